"""Runs functions that are given as objects, closures too, as tasks of a tenant: within its limits, retried, recorded.

A direct call is a run whose functions are called in the event loop of the caller. Its rows are written when it ends, or
after a second if it takes longer: until then nobody else knows of it, and a process that dies takes its caller along.
After a crash it cannot be called again, so a run that was written is failed with that reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from inspect import CO_COROUTINE, iscoroutinefunction
from types import FunctionType
from typing import Any

from synergymesh.domain.fault_tolerance.error_info import ErrorInfo
from synergymesh.domain.fault_tolerance.retry import DEFAULT_RETRY, Interrupted, RetryPolicy
from synergymesh.domain.instants import to_datetime
from synergymesh.domain.states import ExecutionStatus
from synergymesh.domain.workflow.definition import Component, Dependency, WorkflowDefinition
from synergymesh.domain.workflow.templates import Template
from synergymesh.engine.acting import current_actor
from synergymesh.engine.admission import Admission
from synergymesh.engine.attempts import Attempts
from synergymesh.engine.control.cancellation import Control
from synergymesh.engine.dispatch import Dispatcher
from synergymesh.engine.live import LiveRun, Waiter
from synergymesh.engine.open_runs import OpenRuns
from synergymesh.engine.recently_used import RecentlyUsed
from synergymesh.engine.submission import Submission
from synergymesh.engine.tenants import Tenants
from synergymesh.engine.versions import DIRECT_COMPONENTS_KEPT, Version, Versions
from synergymesh.errors import InvalidRequest
from synergymesh.mailbox import Mailbox, mailbox_here
from synergymesh.ports.changes import RunCreated, RunFinished
from synergymesh.ports.clock import Clock
from synergymesh.workflows.direct_tasks import DIRECT, DirectTask


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectCall:
    """Say what to call as which component.

    Attributes:
        component_id: a name that stays the same from call to call: durations are learnt by it.
        component_type: what it is; only carried.
        function: a coroutine function.
        arguments: keyword arguments, any objects; they are not recorded.
        retry: None for the policy that the tenant has for it.
        max_retries: in the place of that of the policy that counts for it, whoever's it is.
        timeout: seconds for one attempt, or None.
        after: component ids of the same call that have to succeed first.
    """

    component_id: str
    function: Callable[..., Coroutine[Any, Any, Any]]
    component_type: str = "task"
    arguments: Mapping[str, Any] = field(default_factory=dict)
    retry: RetryPolicy | None = None
    max_retries: int | None = None
    timeout: float | None = None
    after: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionResult:
    """Say how the execution of a component ended.

    Attributes:
        status: success, failed, timeout, cancelled, or skipped because another component did not succeed.
        start_time, end_time: of the first attempt's start and the last one's end, aware (UTC); None if it never ran.
        duration_ms: milliseconds between the two, waits between attempts included.
        output: what the function returned, the object itself.
        error: why it did not succeed, or None.
        retry_count: attempts after the first one.
        metadata: `run_id` and `attempts`.
    """

    component_id: str
    component_type: str
    status: ExecutionStatus
    tenant_id: str
    start_time: datetime | None
    end_time: datetime | None
    duration_ms: float
    output: Any
    error: str | None
    retry_count: int
    metadata: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Give a dictionary with times in ISO 8601; `output` stays the object that it is."""
        shown = {each.name: getattr(self, each.name) for each in fields(self)}
        for name in ("start_time", "end_time"):
            shown[name] = None if shown[name] is None else shown[name].isoformat()
        return {**shown, "status": self.status.value, "metadata": dict(self.metadata)}


class DirectCalls:
    """Call functions as tasks of a tenant.

    Attributes:
        traced: gives the trace of the caller, or None; None if nothing is traced.
    """

    def __init__(
        self,
        tenants: Tenants,
        admission: Admission,
        versions: Versions,
        submission: Submission,
        runs: OpenRuns,
        dispatcher: Dispatcher,
        attempts: Attempts,
        control: Control,
        clock: Clock,
        *,
        payload_bytes_max: int,
    ) -> None:
        self.traced: Callable[[], str | None] | None = None
        self._known: RecentlyUsed[_Called, Version] = RecentlyUsed(DIRECT_COMPONENTS_KEPT)
        self._tenants = tenants
        self._admission = admission
        self._versions = versions
        self._submission = submission
        self._runs = runs
        self._dispatcher = dispatcher
        self._attempts = attempts
        self._control = control
        self._clock = clock
        self._payload_bytes_max = payload_bytes_max
        self._here = mailbox_here()

    async def call(
        self, name: str | None, tenant_id: object, calls: Sequence[DirectCall], loop: asyncio.AbstractEventLoop
    ) -> list[ExecutionResult]:
        """Call functions and give their results in the order of `calls`.

        Args:
            name: as for `begin`.
            tenant_id: whose tasks they are.
            calls: at least one.
            loop: where the functions run; they are awaited there.

        Raises:
            UnknownTenant, TenantNotActive, InvalidRequest, BacklogFull: as for `begin`.
            NotRunning: the orchestrator was closed meanwhile.
            StoreError: the results could not be recorded.
        """
        ended: asyncio.Future[RunFinished] = asyncio.get_running_loop().create_future()
        there = self._here if loop is self._here.loop else Mailbox(loop)
        run = self.begin(name, tenant_id, calls, there, ended)
        try:
            end = await ended
        except asyncio.CancelledError:
            await self._control.cancel(run)
            raise
        return results_of(run, calls, end)

    def begin(
        self,
        name: str | None,
        tenant_id: object,
        calls: Sequence[DirectCall],
        there: Mailbox,
        waiter: Waiter,
    ) -> LiveRun:
        """Begin to call functions, each after those that it names.

        Args:
            name: shown as the workflow of the run; the component's id, or `components`, when None.
            tenant_id: whose tasks they are.
            calls: at least one.
            there: leads to the event loop where the functions run.
            waiter: is told how the run ended; for `results_of`.

        Raises:
            UnknownTenant, TenantNotActive: nothing can be called for that tenant.
            InvalidRequest: a call cannot be accepted, or a component waits for one that is not there or for itself.
            BacklogFull: too many tasks wait.
        """
        tenant = self._tenants.active(tenant_id)
        for call in calls:
            check_function(call.function)
            if call.max_retries is not None:
                replace(DEFAULT_RETRY, max_retries=call.max_retries)  # refuses what cannot be one
        name = name or (calls[0].component_id if len(calls) == 1 else "components")
        shapes = tuple((c.component_id, c.component_type, c.retry, c.timeout, c.after) for c in calls)
        version = self._known.get((name, shapes))
        if version is None:
            version = self._versions.direct(_definition(name, shapes))
            self._known.put((name, shapes), version, len(shapes))
        now = self._clock.now()
        self._admission.admit_call(tenant, version.plan)
        run = LiveRun(
            self._submission.ids.make(now),
            tenant.tenant_id,
            version,
            b"{}",
            priority=0,
            not_before=0,
            created_at=now,
            traceparent=None if self.traced is None else self.traced(),
        )
        row = RunCreated(
            run.run_id,
            tenant.tenant_id,
            version.plan.workflow,
            version.plan.content_hash,
            b"{}",
            None,
            0,
            0,
            now,
            by=current_actor(),
            traceparent=run.traceparent,
        )
        run.unrecorded = [row]
        limit = self._payload_bytes_max
        run.direct = [
            DirectTask(call.function, call.arguments, there, self._here, self._clock.now, limit, call.max_retries)
            for call in calls
        ]
        run.waiters = [waiter]
        self._runs.add(run)
        self._dispatcher.offer(run, version.plan.roots)
        return run

    def withdraw(self, run: LiveRun) -> None:
        """Cancel a run whose caller has gone away."""
        self._control.cancel_soon(run)

    def stop_waiting(self) -> None:
        """Stop what runs in event loops that are closed, or wait for the orchestrator to close: none of it can end."""
        for attempt in list(self._attempts.under_way.values()):
            if isinstance(attempt.task, DirectTask) and attempt.task.loop_waits:
                self._attempts.stop(attempt, Interrupted())

    def give_up(self) -> None:
        """Wait no longer for functions that go on although they were stopped, in whatever event loop."""
        for attempt in list(self._attempts.under_way.values()):
            if isinstance(attempt.task, DirectTask) and attempt.executor is not None:
                attempt.task.given_up = True
                attempt.executor.stop(attempt)


def results_of(run: LiveRun, calls: Sequence[DirectCall], end: RunFinished) -> list[ExecutionResult]:
    """Give the results of calls whose run has ended, in their order; in whatever thread."""
    return [_result(run, position, call, end) for position, call in enumerate(calls)]


def _result(run: LiveRun, position: int, call: DirectCall, end: RunFinished) -> ExecutionResult:
    assert run.direct is not None
    task = run.direct[position]
    status = run.state.statuses[position]
    error: ErrorInfo | None = None if run.errors is None else run.errors.get(position)
    started, ended = task.started_at, task.ended_at
    if started is not None and ended is None:
        ended = end.ended_at  # it was given up, and goes on
    return ExecutionResult(
        component_id=call.component_id,
        component_type=call.component_type,
        status=status,
        tenant_id=run.tenant_id,
        start_time=None if started is None else to_datetime(started),
        end_time=None if ended is None else to_datetime(ended),
        duration_ms=0.0 if started is None or ended is None else (ended - started) / 1e6,
        output=task.value if status is ExecutionStatus.SUCCESS else None,
        error=None if error is None else str(error),
        retry_count=max(0, task.calls - 1),
        metadata={"run_id": run.run_id, "attempts": task.calls},
    )


_Shape = tuple[str, str, RetryPolicy | None, float | None, tuple[str, ...]]
_Called = tuple[str, tuple[_Shape, ...]]


def _definition(name: str, shapes: tuple[_Shape, ...]) -> WorkflowDefinition:
    """Describe a direct call as a workflow."""
    components = tuple(
        Component(
            component_id=component_id,
            task=f"{DIRECT} {component_type}",
            dependencies=tuple(Dependency(each) for each in after),
            retry=retry,
            timeout=timeout,
        )
        for component_id, component_type, retry, timeout, after in shapes
    )
    return WorkflowDefinition(name=name, parameters=(), components=components, output=_NOTHING)


_NOTHING: Template = None


def check_function(function: object) -> None:
    """Raise InvalidRequest unless something is a coroutine function, or an object whose call is one."""
    if type(function) is FunctionType and function.__code__.co_flags & CO_COROUTINE:
        return  # nearly all; what follows is for the others
    if iscoroutinefunction(function):
        return
    called = getattr(function, "__call__", None)  # noqa: B004 - its kind is asked for, not whether it can be called
    inner = getattr(function, "func", None)  # of functools.partial
    if not (iscoroutinefunction(called) or iscoroutinefunction(inner)):
        raise InvalidRequest(
            f"func must be a coroutine function (async def), not {function!r:.100}. Wrap a plain function in one.",
            field="func",
        )
