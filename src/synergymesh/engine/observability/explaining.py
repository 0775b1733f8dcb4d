"""Says why a run does not go on, from the scheduler's own state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from synergymesh.domain.instants import to_datetime
from synergymesh.domain.scheduling.explain import Blocker, Reason
from synergymesh.domain.scheduling.queue_views import TenantView
from synergymesh.domain.scheduling.scheduler import Scheduler
from synergymesh.domain.states import ExecutionStatus
from synergymesh.engine.backlog.waiting import live_run, waits
from synergymesh.engine.backlog.window import Window
from synergymesh.engine.live import LiveRun
from synergymesh.engine.observability.watching import Watching
from synergymesh.engine.open_runs import OpenRuns
from synergymesh.engine.versions import Versions
from synergymesh.ports.clock import Clock
from synergymesh.ports.store import Store

TASKS_MAX = 100
"""Tasks of a run that are explained; those that are nearest to starting come first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskExplanation:
    """Say why a task is not running.

    Attributes:
        task_id: the component's id.
        waits_for: the tasks that it depends on and that have not ended.
        blockers: what else keeps it, in the order in which it is looked at; none if it starts at the next decision.
        position: its place among the waiting tasks of its tenant, from 1; None if it is not in the queue yet.
        estimated_start: aware (UTC), from learnt durations; None if that is not known.
    """

    task_id: str
    waits_for: tuple[str, ...] = ()
    blockers: tuple[Blocker, ...] = ()
    position: int | None = None
    estimated_start: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunExplanation:
    """Say why a run does not go on.

    Attributes:
        status: of the run now.
        running: the tasks that run.
        waiting: the tasks that wait, those nearest to starting first, at most 100.
        reason: what keeps the whole run (its functions cannot be found), or None.
        backlog_position: its place among the runs of its tenant that have not begun, 1 for the next, while it is not in
            memory because so many are in front of it; else None.
    """

    run_id: str
    status: ExecutionStatus
    running: tuple[str, ...]
    waiting: tuple[TaskExplanation, ...]
    reason: str | None
    backlog_position: int | None = None


class Explaining:
    """Answer from what the scheduler decides by."""

    def __init__(
        self,
        store: Store,
        scheduler: Scheduler[LiveRun],
        runs: OpenRuns,
        versions: Versions,
        window: Window,
        watching: Watching,
        clock: Clock,
    ) -> None:
        self._store = store
        self._scheduler = scheduler
        self._versions = versions
        self._window = window
        self._runs = runs
        self._watching = watching
        self._clock = clock

    async def run(self, run_id: str, tenant_id: str | None) -> RunExplanation:
        """Say why a run does not go on.

        Raises:
            UnknownRun: there is none of that id that this tenant may see.
        """
        record = await self._watching.record_of(run_id, tenant_id)
        run = self._runs.get(run_id)
        if run is None and waits(record) and run_id not in self._runs.given_up:
            version = await self._versions.load(record.content_hash)
            ahead = await self._store.count_waiting_before(record.tenant_id, record.level, run_id)
            run = self._runs.get(run_id)  # it may have come into memory meanwhile
            if run is None:
                return self._in_backlog(live_run(record, version), ahead)
        if run is None:
            return RunExplanation(run_id=run_id, status=record.status, running=(), waiting=(), reason=None)
        ids = run.version.plan.component_ids
        running = tuple(ids[position] for position in run.running or ())
        status = ExecutionStatus.RUNNING if run.started_at is not None else ExecutionStatus.PENDING
        return RunExplanation(
            run_id=run_id,
            status=status,
            running=running,
            waiting=tuple(self._waiting(run)),
            reason=run.version.problem,
        )

    def queue(self) -> list[TenantView]:
        """Describe the queue of every tenant, with what waits outside memory."""
        return [self._window.complete(view) for view in self._scheduler.snapshot(self._clock.now())]

    def _in_backlog(self, run: LiveRun, ahead: int) -> RunExplanation:
        """Explain a run that is not in memory."""
        plan = run.version.plan
        now = self._clock.now()
        waiting = []
        for position in plan.roots[:TASKS_MAX]:
            blockers = self._paused(run)
            if run.not_before > now:
                blockers.append(Blocker(reason=Reason.RETRY_DELAY, level=run.tenant_id, until=run.not_before))
            blockers += self._scheduler.limits_against(run.tenant_id, plan.requests[position], now)
            blockers.append(Blocker(reason=Reason.BACKLOG, level=run.tenant_id, resource="runs", asked=ahead))
            waiting.append(TaskExplanation(task_id=plan.component_ids[position], blockers=tuple(blockers)))
        waiting += [self._blocked(run, p) for p in run.state.blocked()[: TASKS_MAX - len(waiting)]]
        return RunExplanation(
            run_id=run.run_id,
            status=ExecutionStatus.PENDING,
            running=(),
            waiting=tuple(waiting),
            reason=run.version.problem,
            backlog_position=ahead + 1,
        )

    def _waiting(self, run: LiveRun) -> Sequence[TaskExplanation]:
        startable = run.state.startable()
        explained = [self._startable(run, position) for position in startable[:TASKS_MAX]]
        if len(explained) < TASKS_MAX:
            explained += [self._blocked(run, p) for p in run.state.blocked()[: TASKS_MAX - len(explained)]]
        return explained

    def _paused(self, run: LiveRun) -> list[Blocker]:
        """Say what is paused: the run itself, or its workflow."""
        workflow = run.version.plan.workflow
        found = [run.run_id] if run.paused else []
        if self._runs.is_workflow_paused(run.tenant_id, workflow):
            found.append(f"workflow {workflow}")
        return [Blocker(reason=Reason.PAUSED, level=level) for level in found]

    def _startable(self, run: LiveRun, position: int) -> TaskExplanation:
        if run.held is not None:
            return TaskExplanation(task_id=run.version.plan.component_ids[position], blockers=tuple(self._paused(run)))
        found = self._scheduler.explain(run, position, self._clock.now(), tenant_id=run.tenant_id)
        start = found.estimated_start
        return TaskExplanation(
            task_id=run.version.plan.component_ids[position],
            blockers=tuple(found.blockers),
            position=found.position,
            estimated_start=None if start is None else to_datetime(start),
        )

    def _blocked(self, run: LiveRun, position: int) -> TaskExplanation:
        plan = run.version.plan
        component = plan.components[position]
        waits_for = tuple(
            d.component_id
            for d in component.dependencies
            if not run.state.statuses[plan.positions[d.component_id]].is_final
        )
        return TaskExplanation(
            task_id=component.component_id, waits_for=waits_for, blockers=(Blocker(reason=Reason.DEPENDENCY),)
        )
