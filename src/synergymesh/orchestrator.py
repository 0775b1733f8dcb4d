"""The asynchronous face of SynergyMesh."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import Any, Literal, Self

from synergymesh.assembly import Parts, Seams, assemble, check_sinks
from synergymesh.audit_control import AuditControl
from synergymesh.domain.actors import Actor
from synergymesh.domain.fault_tolerance.retry import DEFAULT_RETRY, RetryPolicy
from synergymesh.domain.observability.timeline import Timeline
from synergymesh.domain.payload import decode
from synergymesh.domain.states import ExecutionStatus
from synergymesh.domain.workflow.definition import WorkflowDefinition
from synergymesh.engine.acting import ActingAs, current_actor
from synergymesh.engine.control.cancellation import OPEN
from synergymesh.engine.direct_calls import DirectCall, ExecutionResult
from synergymesh.engine.live import LiveRun, Waiter
from synergymesh.engine.observability.events import RunEvent
from synergymesh.engine.observability.explaining import RunExplanation
from synergymesh.engine.observability.timelines import timeline_of
from synergymesh.engine.observability.views import (
    LogLine,
    Run,
    errors_of,
    log_views,
    run_view,
    summary,
    task_views,
)
from synergymesh.engine.stored import naming_damage, version_of
from synergymesh.errors import InvalidRequest, NotRunning, RunCancelled, RunFailed, RunTimedOut
from synergymesh.interpreter import INTERPRETER
from synergymesh.local.server import LocalServer
from synergymesh.local.verbs import answering
from synergymesh.mailbox import Mailbox
from synergymesh.mesh_control import MeshControl
from synergymesh.ports.changes import RunFinished
from synergymesh.ports.clock import Clock, SystemClock
from synergymesh.ports.records import AttemptRecord, RunRecord, TaskRecord
from synergymesh.ports.store import Store
from synergymesh.run_control import RunControl
from synergymesh.run_handle import RunHandle
from synergymesh.settings import Settings, change_settings
from synergymesh.store.sqlite import SqliteStore
from synergymesh.store.sqlite_files import parse_address
from synergymesh.tenant_control import TenantControl
from synergymesh.workflows.registry import Registry
from synergymesh.workflows.workflow import Workflow

PAGE_RUNS_MAX = 1_000

LAST_RECORDS_SECONDS = 2.0
"""How long the end waits for the last results to be recorded before it writes the figures without them."""


class Orchestrator(TenantControl, RunControl, MeshControl, AuditControl):
    """Run workflows for tenants, durably; use it as an asynchronous context manager.

    Leaving the context lets running tasks end within a grace period. Open runs stay in the database, and go on when it
    is opened again.

    Args:
        database: `sqlite:///file.db`, or `:memory:`.
        workflows: that runs of an earlier process may need, and that `submit` finds by name.
        max_concurrent_tasks: tasks at the same time over all tenants, 256 by default.
        synchronous: "full" survives power loss; "normal" may lose the last moments then, and nothing when only the
            process dies.
        default_retry: the policy of tasks that have none of their own.
        shutdown_grace_seconds: how long leaving the context waits for running tasks before it stops them.
        stop_grace_seconds: how long a stopped task may take to end before it is given up.
        payload_bytes_max: limit of an input and of a result, in bytes of JSON.
        execute: whether tasks are started; False to accept, cancel and administrate only.
        clock: where the time comes from.
        seams: a store, executors or dice in place of the usual ones.
        settings: everything else; what is not given here comes from `SYNERGYMESH_…` variables and `synergymesh.toml`.

    Raises:
        InvalidRequest: an argument cannot be accepted.
    """

    def __init__(
        self,
        database: str | None = None,
        *,
        workflows: Iterable[Workflow] = (),
        max_concurrent_tasks: int | None = None,
        synchronous: Literal["full", "normal"] | None = None,
        default_retry: RetryPolicy = DEFAULT_RETRY,
        shutdown_grace_seconds: float | None = None,
        stop_grace_seconds: float | None = None,
        payload_bytes_max: int | None = None,
        execute: bool = True,
        clock: Clock | None = None,
        seams: Seams | None = None,
        settings: Settings | None = None,
    ) -> None:
        given = {
            "database": database,
            "max_concurrent_tasks": max_concurrent_tasks,
            "synchronous": synchronous,
            "shutdown_grace_seconds": shutdown_grace_seconds,
            "stop_grace_seconds": stop_grace_seconds,
            "payload_bytes_max": payload_bytes_max,
        }
        self.settings = change_settings(settings, {name: value for name, value in given.items() if value is not None})
        check_sinks(self.settings)
        self._registry = Registry()
        for workflow in workflows:
            self._registry.add(workflow)
        self._seams = seams or Seams()
        self._database: Store = self._seams.store or SqliteStore(
            self.settings.database, synchronous=self.settings.synchronous
        )
        self._default_retry = default_retry
        self._execute = execute
        self._clock = clock or SystemClock()
        self._parts: Parts | None = None
        self._server: LocalServer | None = None

    # --- start and end --------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Open the database, take up the open runs, and begin.

        Raises:
            StoreError: the database cannot be used; the message says why and what to do.
        """
        assert self._parts is None, "this orchestrator is started already"
        store = self._database
        await store.open()
        if self.settings.adjust_interpreter:
            INTERPRETER.adjust()
        try:
            await store.begin_incarnation(current_actor())
            parts = assemble(store, self.settings, self._registry, self._default_retry, self._clock, self._seams)
            self._parts = parts
            for executor in parts.executors.values():
                await executor.start()
            parts.committer.start()
            with naming_damage(store, LookupError, ValueError, AssertionError):
                await parts.tenants.load()
                await parts.admission.load()
                await parts.circuits.load()
                await parts.statistics.load()
                await parts.pausing.load()
                await parts.recovery.run()
            if self._execute:
                parts.dispatcher.start()
            parts.maintenance.start()
            if parts.watchdog is not None:
                parts.watchdog.start()
            parts.auditing.start()
            await self._listen()
            parts.housekeeping.start()
        except BaseException:
            if self._parts is not None:
                await self._parts.committer.close()
                for executor in self._parts.executors.values():
                    await executor.close()
                await self._parts.delivery.close()
                self._parts = None
            self._set_interpreter_back()
            await store.close()
            raise

    async def close(self, *, grace_seconds: float | None = None) -> None:
        """Let running tasks end within the grace period, stop the rest, record everything, release the database.

        Args:
            grace_seconds: seconds; what the orchestrator was made with when None.

        Raises:
            StoreError: the last changes could not be recorded.
        """
        parts, self._parts = self._parts, None
        if parts is None:
            return
        parts.dispatcher.stop()  # first of all: nothing new starts, however long the rest takes
        self._set_interpreter_back()
        if self._server is not None:
            await self._server.close()
            self._server = None
        await parts.housekeeping.close()
        await parts.auditing.stop()
        await parts.maintenance.close()
        await parts.window.close()
        if parts.watchdog is not None:
            parts.watchdog.close()
        await parts.doubts.close()
        grace = self.settings.shutdown_grace_seconds if grace_seconds is None else grace_seconds
        parts.direct_calls.stop_waiting()
        await parts.attempts.drain(grace)
        parts.direct_calls.give_up()
        with suppress(TimeoutError):  # what has just ended is counted once it is recorded
            async with asyncio.timeout(LAST_RECORDS_SECONDS):
                await parts.committer.drained()
        parts.maintenance.record_everything()
        parts.deadlines.close()
        await parts.committer.close()
        parts.runs.close()
        parts.watching.close()
        await parts.turns.close()
        for executor in parts.executors.values():
            await executor.close()
        await parts.delivery.close()
        try:
            if parts.committer.trouble is None:
                await parts.store.end_incarnation(current_actor())
                await parts.auditing.close()
        finally:
            await parts.store.close()

    def _set_interpreter_back(self) -> None:
        if self.settings.adjust_interpreter:
            INTERPRETER.set_back()

    def acting_as(self, actor: Actor) -> ActingAs:
        """Record what is asked for inside this context (`with` or `async with`) on that actor's account.

        Outside, it is recorded on the account of the system user under whom the process runs.

        Args:
            actor: who acts.

        Returns:
            a context for `with` or `async with`.

        Raises:
            InvalidRequest: it is no actor.
        """
        return ActingAs(actor)

    # --- runs -----------------------------------------------------------------------------------------------------

    async def submit(
        self,
        workflow: Workflow | str,
        *,
        tenant: str,
        input: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        priority: int = 0,
        not_before: datetime | None = None,
    ) -> RunHandle:
        """Submit a run; once this returns, the run is never lost.

        Args:
            workflow: a workflow, or the name of one that the orchestrator was given.
            tenant: the tenant's id.
            input: the workflow's parameters by name; plain JSON.
            idempotency_key: the same key of the same tenant gives the same run again.
            priority: -1,000 to 1,000 among the runs of this tenant; the highest goes first.
            not_before: no task starts earlier; aware.

        Returns:
            what refers to the run: wait for it, follow it, cancel it.

        Raises:
            UnknownTenant, TenantNotActive: nothing can be submitted for that tenant.
            UnknownWorkflow: there is no workflow of that name.
            InvalidRequest: input, key, priority or not_before cannot be accepted.
            IdempotencyConflict: the key belongs to a run with another workflow or input.
            StoreUnavailable: the run could not be recorded.
        """
        parts = self._running
        if isinstance(workflow, str):
            workflow = self._registry.get(workflow)
        elif not isinstance(workflow, Workflow):
            raise InvalidRequest(
                f"workflow must be a workflow or the name of one, not {workflow!r}. Decorate the function with "
                f"@workflow.",
                field="workflow",
            )
        run_id = await parts.submission.submit(workflow, tenant, input, idempotency_key, priority, not_before)
        return RunHandle(self, run_id, tenant)

    async def call(
        self,
        calls: Sequence[DirectCall],
        *,
        tenant: str,
        name: str | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> list[ExecutionResult]:
        """Call coroutine functions, closures too, as tasks of a tenant: under its limits, with retries, recorded.

        What a function raises is in its result. The tenant's submission rate is not asked for, since this is a direct
        call and no request. After a crash it cannot go on: what was recorded of it is failed with that reason.

        Args:
            calls: what to call; each starts once those that it names in `after` have succeeded.
            tenant: the tenant's id.
            name: shown as the workflow of the run; the component's id, or `components`, when None.
            loop: where the functions run; the orchestrator's own event loop when None.

        Returns:
            how each of them ended, in the order of `calls`.

        Raises:
            UnknownTenant, TenantNotActive: nothing can be called for that tenant.
            InvalidRequest: a call cannot be accepted.
            BacklogFull: too many tasks of the tenant wait.
            StoreError: the results could not be recorded.
        """
        return await self._running.direct_calls.call(name, tenant, calls, loop or asyncio.get_running_loop())

    def _begin_calls(self, calls: list[DirectCall], tenant: str, waiter: Waiter, there: Mailbox) -> LiveRun:
        """Begin to call functions in another event loop, as `call` does; for `enterprise`."""
        return self._running.direct_calls.begin(None, tenant, calls, there, waiter)

    def _withdraw_calls(self, run: LiveRun) -> None:
        """Cancel them, since their caller has gone away."""
        self._running.direct_calls.withdraw(run)

    async def get_run(self, run_id: str, *, tenant: str | None = None) -> Run:
        """Give a run with all of its tasks.

        Args:
            run_id: which.
            tenant: whose run it has to be; None for the operator.

        Returns:
            the run as it is now; it does not change.

        Raises:
            UnknownRun: there is none of that id that this tenant may see.
        """
        record, definition, tasks, attempts = await self._rows_of(run_id, tenant)
        live = self._live(run_id)
        with naming_damage(self._database, LookupError):
            return run_view(record, live, task_views(definition, tasks, attempts, live), problem=self._problem(record))

    async def timeline(self, run_id: str, *, tenant: str | None = None) -> Timeline:
        """Say where the time of a run went: every attempt, every wait with its reason, the critical path as it was.

        Draw it with `timeline_svg` or `timeline_html`.

        Args:
            run_id: which; an open one is shown until now.
            tenant: whose run it has to be; None for the operator.

        Returns:
            its attempts, waits and critical path.

        Raises:
            UnknownRun: there is none of that id that this tenant may see.
        """
        record, definition, tasks, attempts = await self._rows_of(run_id, tenant)
        with naming_damage(self._database, LookupError):
            return timeline_of(record, definition, tasks, attempts, self._clock.now(), self._live(run_id))

    async def _rows_of(
        self, run_id: str, tenant: str | None
    ) -> tuple[RunRecord, WorkflowDefinition, list[TaskRecord], list[AttemptRecord]]:
        """Give all that is recorded of a run, as it was at one moment."""
        parts = self._running
        record = await parts.watching.record_of(run_id, tenant)
        workflow = await version_of(parts.store, record.content_hash)
        while True:
            tasks = await parts.store.list_tasks([run_id], tenant)
            attempts = await parts.store.list_attempts([run_id], tenant)
            before, record = record, await parts.watching.record_of(run_id, tenant)
            if record.status is before.status:
                break  # else it moved on between the reads, and its tasks have to be read again
        live = self._live(run_id)
        definition = WorkflowDefinition.from_json(workflow.definition) if live is None else live.version.plan.definition
        return record, definition, tasks, attempts

    async def logs(self, run_id: str, task_id: str | None = None, *, tenant: str | None = None) -> list[LogLine]:
        """Give what the attempts of a run have printed and logged, in the order of time; also while they run.

        Of each attempt the first and the last lines are kept, some 64,000 characters.

        Args:
            run_id: which.
            task_id: only of this task.
            tenant: whose run it has to be; None for the operator.

        Returns:
            the lines, each with its moment, task and attempt.

        Raises:
            UnknownRun: there is none of that id that this tenant may see.
            UnknownComponent: its workflow has no such task.
        """
        parts = self._running
        record = await parts.watching.record_of(run_id, tenant)
        if task_id is not None:
            (await parts.versions.load(record.content_hash)).plan.definition.find(task_id)
        outputs = await parts.store.list_outputs(run_id, task_id, tenant)
        return log_views(outputs, self._live(run_id), task_id, self._clock.now())

    async def list_runs(
        self,
        *,
        tenant: str | None = None,
        status: ExecutionStatus | str | Sequence[ExecutionStatus | str] = (),
        workflow: str | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> list[Run]:
        """Give runs without their tasks, newest first.

        Args:
            tenant: whose; None for the operator, who sees all.
            status: only those in one of these states.
            workflow: only those of this workflow.
            limit: 1 to 1,000.
            cursor: the id of the last run of the page before.

        Returns:
            at most `limit` runs.

        Raises:
            InvalidRequest: status or limit cannot be accepted.
        """
        parts = self._running
        if not isinstance(limit, int) or not 1 <= limit <= PAGE_RUNS_MAX:
            raise InvalidRequest(f"limit must be from 1 to {PAGE_RUNS_MAX:,}, not {limit!r}.", field="limit")
        records = await parts.store.list_runs(
            tenant_id=tenant, statuses=_statuses(status), workflow=workflow, before=cursor, limit=limit
        )
        with naming_damage(self._database):
            return [run_view(record, self._live(record.run_id), problem=self._problem(record)) for record in records]

    async def count_open_runs(self, tenant: str | None = None) -> int:
        """Count the runs that are not final.

        Args:
            tenant: whose; None for all.

        Returns:
            their number.
        """
        return await self._running.store.count_runs(tenant_id=tenant, statuses=OPEN)

    async def cancel_run(self, run_id: str, *, tenant: str | None = None) -> bool:
        """Cancel a run: what waits never starts, what runs is stopped as far as possible.

        Args:
            run_id: which.
            tenant: whose run it has to be; None for the operator.

        Returns:
            whether the run was still open.

        Raises:
            UnknownRun: there is none of that id that this tenant may see.
        """
        return await self._running.control.cancel_run(run_id, tenant)

    async def explain(self, run_id: str, *, tenant: str | None = None) -> RunExplanation:
        """Say why a run does not go on: what each waiting task waits for, its place in the queue, and when it starts.

        Args:
            run_id: which.
            tenant: whose run it has to be; None for the operator.

        Returns:
            the run's state, and what holds each of its waiting tasks.

        Raises:
            UnknownRun: there is none of that id that this tenant may see.
        """
        return await self._running.explaining.run(run_id, tenant)

    def handle(self, run_id: str, *, tenant: str) -> RunHandle:
        """Give the handle of a run that was submitted earlier, by another process say.

        Args:
            run_id: which; it is not looked up.
            tenant: whose run it is.

        Returns:
            what refers to the run.
        """
        return RunHandle(self, run_id, tenant)

    async def result_of(self, run_id: str, *, tenant: str | None = None, timeout: float | None = None) -> Any:  # noqa: ASYNC109 - passed on from RunHandle.result
        """Wait until a run is final and give what its workflow returned; see `RunHandle.result`.

        Args:
            run_id: which.
            tenant: whose run it has to be; None for the operator.
            timeout: seconds to wait at most, None for no limit; the run itself goes on.

        Returns:
            what the workflow returned, as JSON gives it back.

        Raises:
            UnknownRun: there is none of that id that this tenant may see.
            RunFailed, RunTimedOut, RunCancelled: it did not succeed.
            TimeoutError: it is not final yet.
            NotRunning: the orchestrator was closed meanwhile.
        """
        ending = self._running.watching.end_of(run_id, tenant)
        end = await (ending if timeout is None else asyncio.wait_for(ending, timeout))
        with naming_damage(self._database):
            return _returned(run_id, end)

    def events_of(self, run_id: str, *, tenant: str | None = None) -> AsyncIterator[RunEvent]:
        """Follow a run; see `RunHandle.events`.

        Args:
            run_id: which.
            tenant: whose run it has to be; None for the operator.

        Returns:
            an asynchronous iterator, which ends with the run.

        Raises:
            UnknownRun: there is none of that id that this tenant may see; raised by the first step.
            NotRunning: the orchestrator was closed meanwhile.
        """
        return self._running.watching.events_of(run_id, tenant)

    # --- inside ---------------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        """Begin to answer other processes, if this one executes a database that they can see."""
        path = None if self._seams.store else parse_address(self.settings.database)
        if path is not None and self._execute and self.settings.local_socket:
            self._server = LocalServer(path, answering(self))
            await self._server.start()

    @property
    def _running(self) -> Parts:
        if self._parts is None:
            raise NotRunning(
                "the orchestrator is not started, or closed. Use it inside `async with Orchestrator(...)`."
            )
        return self._parts

    def _problem(self, record: RunRecord) -> str | None:
        parts = self._running
        if record.paused_at is not None:
            return "it is paused"
        if parts.pausing.is_workflow_paused(record.tenant_id, record.workflow):
            return f"the workflow {record.workflow!r} is paused"
        version = parts.versions.known(record.content_hash)
        return None if version is None else version.problem

    def _handle(self, run_id: str, tenant_id: str) -> RunHandle:
        return RunHandle(self, run_id, tenant_id)

    def _live(self, run_id: str) -> LiveRun | None:
        return self._running.runs.get(run_id)


def _statuses(status: ExecutionStatus | str | Sequence[ExecutionStatus | str]) -> list[ExecutionStatus]:
    wanted = [status] if isinstance(status, str) else list(status)
    try:
        return [ExecutionStatus(s) for s in wanted]
    except ValueError as error:
        known = ", ".join(s.value for s in ExecutionStatus)
        raise InvalidRequest(f"status must be one of {known}: {error}.", field="status") from None


def _returned(run_id: str, end: RunFinished) -> Any:
    """Give what a run's workflow returned, or raise what it ended as."""
    if end.status is ExecutionStatus.CANCELLED:
        raise RunCancelled(f"{run_id} was cancelled.", run_id=run_id)
    if end.status is ExecutionStatus.TIMEOUT:
        errors = errors_of(end.error)
        raise RunTimedOut(
            f"{run_id} timed out: {errors.get('') or summary(errors)}",
            run_id=run_id,
            errors={component_id: str(error) for component_id, error in errors.items() if component_id},
        )
    if end.status not in (ExecutionStatus.SUCCESS, ExecutionStatus.PARTIAL):
        errors = errors_of(end.error)
        raise RunFailed(
            f"{run_id} failed: {summary(errors)}",
            run_id=run_id,
            errors={component_id: str(error) for component_id, error in errors.items()},
        )
    return None if end.result is None else decode(end.result)
