"""Pauses: nothing new of a run or a workflow starts until it is resumed; what runs goes on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from synergymesh.domain.instants import Instant, to_datetime
from synergymesh.domain.scheduling.scheduler import Scheduler
from synergymesh.domain.workflow.definition import check_identifier
from synergymesh.engine.acting import current_actor
from synergymesh.engine.backlog.window import Window
from synergymesh.engine.control.turns import Turn, Turns
from synergymesh.engine.dispatch import Dispatcher
from synergymesh.engine.live import LiveRun
from synergymesh.engine.observability.watching import Watching
from synergymesh.engine.open_runs import OpenRuns
from synergymesh.engine.tenants import Tenants
from synergymesh.errors import InvalidRequest
from synergymesh.ports.changes import RunPaused, RunResumed, WorkflowPaused, WorkflowResumed
from synergymesh.ports.clock import Clock
from synergymesh.ports.store import Store

PAUSED_WORKFLOWS_MAX = 10_000
"""Pauses are looked through by people, and kept in memory."""

ALL = ""
"""Stands for all tenants."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PausedWorkflow:
    """Describe a workflow that is paused.

    Attributes:
        tenant_id: for whom; None for all tenants.
        paused_at: since when, aware (UTC).
    """

    workflow: str
    tenant_id: str | None
    paused_at: datetime


class Pausing:
    """Hold back what may not start, durably; a paused task takes no slot and stands in nobody's way."""

    def __init__(
        self,
        store: Store,
        turns: Turns,
        scheduler: Scheduler[LiveRun],
        runs: OpenRuns,
        dispatcher: Dispatcher,
        window: Window,
        watching: Watching,
        tenants: Tenants,
        clock: Clock,
    ) -> None:
        self._store = store
        self._turns = turns
        self._scheduler = scheduler
        self._runs = runs
        self._dispatcher = dispatcher
        self._window = window
        self._watching = watching
        self._tenants = tenants
        self._clock = clock
        self._workflows: dict[tuple[str, str], Instant] = {}
        runs.is_workflow_paused = self.is_workflow_paused

    async def load(self) -> None:
        """Read which workflows are paused, before any run is taken up."""
        for record in await self._store.list_pauses():
            self._workflows[record.tenant_id, record.workflow] = record.paused_at

    # --- what is known --------------------------------------------------------------------------------------------

    def is_workflow_paused(self, tenant_id: str, workflow: str) -> bool:
        """Tell whether nothing of a workflow may start for a tenant."""
        paused = self._workflows
        return bool(paused) and ((tenant_id, workflow) in paused or (ALL, workflow) in paused)

    def workflows(self, tenant_id: str | None) -> list[PausedWorkflow]:
        """Give what is paused: for a tenant (what is paused for all included), or everything (None)."""
        return [
            paused_workflow_view(workflow, owner, at)
            for (owner, workflow), at in sorted(self._workflows.items())
            if tenant_id is None or owner in (ALL, tenant_id)
        ]

    # --- runs -----------------------------------------------------------------------------------------------------

    async def pause_run(self, run_id: str, tenant_id: str | None) -> bool:
        """Let nothing more of a run start; tell whether it was still open.

        Raises:
            UnknownRun: there is none of that id that this tenant may see.
            StoreError: it is not known whether it is recorded.
        """
        return await self._turns.carry_out(self._pause_run(run_id, tenant_id))

    async def _pause_run(self, run_id: str, tenant_id: str | None) -> bool:
        async with self._turn_of_run(run_id) as turn:
            record = await self._watching.record_of(run_id, tenant_id)
            if record.status.is_final:
                return False
            if record.paused_at is not None:
                return True
            run = self._runs.get(run_id)
            if run is None:
                run = await self._window.fetch(run_id, tenant_id)
                if run is None:
                    return False
                self._dispatcher.offer(run, run.version.plan.roots, run.not_before)
            self._runs.waits_no_more(run)  # or the window may let go of it before it is known to be paused
            change = RunPaused(run_id, run.tenant_id, self._clock.now(), current_actor())
            return await turn.record(change, partial(self._set_run, run_id, paused=True))

    async def resume_run(self, run_id: str, tenant_id: str | None) -> bool:
        """Let a paused run go on; tell whether it was paused and open.

        Raises:
            UnknownRun: there is none of that id that this tenant may see.
            StoreError: it is not known whether it is recorded.
        """
        return await self._turns.carry_out(self._resume_run(run_id, tenant_id))

    async def _resume_run(self, run_id: str, tenant_id: str | None) -> bool:
        async with self._turn_of_run(run_id) as turn:
            record = await self._watching.record_of(run_id, tenant_id)
            if record.status.is_final or record.paused_at is None:
                return False
            change = RunResumed(run_id, record.tenant_id, self._clock.now(), current_actor())
            return await turn.record(change, partial(self._set_run, run_id, paused=False))

    def _turn_of_run(self, run_id: str) -> AbstractAsyncContextManager[Turn]:
        return self._turns.of(("run", run_id), partial(self._look_at_run, run_id))

    async def _look_at_run(self, run_id: str) -> None:
        """Make of a run what the store says."""
        record = await self._store.get_run(run_id, None)
        if record is not None:
            self._set_run(run_id, paused=record.paused_at is not None)

    def _set_run(self, run_id: str, *, paused: bool) -> bool:
        """Let a run be paused or not, as it is recorded; tell whether it is still open."""
        run = self._runs.get(run_id)
        if run is None:
            return False
        if paused and not run.paused:
            run.paused = True
            self._hold(run.tenant_id, [run])
        elif run.paused and not paused:
            run.paused = False
            self._let_go([run])
        return True

    # --- workflows ------------------------------------------------------------------------------------------------

    async def pause_workflow(self, workflow: object, tenant_id: object) -> PausedWorkflow:
        """Let nothing more of a workflow start, for a tenant or for all (None).

        Raises:
            InvalidRequest: it is no name, or too many are paused.
            UnknownTenant: there is none of that id.
            StoreError: it is not known whether it is recorded.
        """
        return await self._turns.carry_out(self._pause_workflow(*self._check(workflow, tenant_id)))

    async def _pause_workflow(self, name: str, owner: str) -> PausedWorkflow:
        async with self._turn_of_workflow(name, owner) as turn:
            at = self._workflows.get((owner, name))
            if at is None:
                if len(self._workflows) >= PAUSED_WORKFLOWS_MAX:
                    raise InvalidRequest(
                        f"{PAUSED_WORKFLOWS_MAX:,} workflows are paused, and that is the limit. Resume some, or "
                        f"suspend the tenant.",
                        field="workflow",
                    )
                at = self._clock.now()
                change = WorkflowPaused(name, owner, at, current_actor())
                await turn.record(change, partial(self._set_workflow, name, owner, at))
            return paused_workflow_view(name, owner, at)

    async def resume_workflow(self, workflow: object, tenant_id: object) -> bool:
        """Let a workflow go on, for a tenant or for all (None); tell whether it was paused so.

        Raises:
            InvalidRequest: it is no name.
            UnknownTenant: there is none of that id.
            StoreError: it is not known whether it is recorded.
        """
        return await self._turns.carry_out(self._resume_workflow(*self._check(workflow, tenant_id)))

    async def _resume_workflow(self, name: str, owner: str) -> bool:
        async with self._turn_of_workflow(name, owner) as turn:
            if (owner, name) not in self._workflows:
                return False
            change = WorkflowResumed(name, owner, self._clock.now(), current_actor())
            await turn.record(change, partial(self._set_workflow, name, owner, None))
            return True

    def forget(self, tenant_id: str) -> None:
        """Forget what is paused for a tenant that is deleted."""
        self._workflows = {key: at for key, at in self._workflows.items() if key[0] != tenant_id}

    def _turn_of_workflow(self, name: str, owner: str) -> AbstractAsyncContextManager[Turn]:
        return self._turns.of(("workflow", owner, name), partial(self._look_at_workflow, name, owner))

    async def _look_at_workflow(self, name: str, owner: str) -> None:
        """Make of a workflow what the store says."""
        paused = {(record.tenant_id, record.workflow): record.paused_at for record in await self._store.list_pauses()}
        self._set_workflow(name, owner, paused.get((owner, name)))

    def _set_workflow(self, name: str, owner: str, at: Instant | None) -> None:
        """Let a workflow be paused since then, or not (None), as it is recorded."""
        if at is not None:
            if owner != ALL and self._tenants.find(owner) is None:
                return  # deleted meanwhile
            self._workflows[owner, name] = at
            self._window.workflow_changed()
            for of_tenant, runs in self._by_tenant(lambda run: self._is_of(run, name, owner)).items():
                self._hold(of_tenant, runs)
        elif self._workflows.pop((owner, name), None) is not None:
            self._let_go([run for run in self._runs if self._is_of(run, name, owner)])
            self._window.workflow_changed()
            self._dispatcher.pump_soon()

    # --- inside ---------------------------------------------------------------------------------------------------

    def _check(self, workflow: object, tenant_id: object) -> tuple[str, str]:
        name = check_identifier(workflow, "workflow name")
        return name, ALL if tenant_id is None else self._tenants.get(tenant_id).tenant_id

    def _is_of(self, run: LiveRun, workflow: str, owner: str) -> bool:
        return run.version.plan.workflow == workflow and owner in (ALL, run.tenant_id)

    def _by_tenant(self, wanted: Callable[[LiveRun], bool]) -> dict[str, list[LiveRun]]:
        found: dict[str, list[LiveRun]] = defaultdict(list)
        for run in self._runs:
            if wanted(run):
                found[run.tenant_id].append(run)
        return found

    def _hold(self, tenant_id: str, runs: Iterable[LiveRun]) -> None:
        """Take what waits of runs of one tenant out of its queue."""
        free = [run for run in runs if run.held is None]
        for run in free:
            run.held = {}
        for run, position, at in self._scheduler.recall(tenant_id, free):
            assert run.held is not None
            run.held[position] = at
        self._dispatcher.pump_soon()

    def _let_go(self, runs: Iterable[LiveRun]) -> None:
        """Put what was held of runs back into their queues, unless something else holds them."""
        now = self._clock.now()
        for run in runs:
            held = run.held
            if held is None or run.paused or self.is_workflow_paused(run.tenant_id, run.version.plan.workflow):
                continue
            run.held = None
            for position, at in held.items():
                if run.wants(position):
                    self._dispatcher.offer(run, [position], at if at > now else 0)


def paused_workflow_view(workflow: str, owner: str, at: Instant) -> PausedWorkflow:
    """Describe a paused workflow; `owner` is empty where it is paused for all tenants."""
    return PausedWorkflow(workflow=workflow, tenant_id=owner or None, paused_at=to_datetime(at))
