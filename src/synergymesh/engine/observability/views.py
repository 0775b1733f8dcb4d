"""What people see of runs and tasks: the rows of the store, and what is in memory of open runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from synergymesh.domain.fault_tolerance.breaker import BreakerState
from synergymesh.domain.fault_tolerance.error_info import ErrorInfo
from synergymesh.domain.fault_tolerance.tries import Cause, cause_of
from synergymesh.domain.instants import Instant, to_datetime
from synergymesh.domain.observability.captured import OutputLine
from synergymesh.domain.payload import decode
from synergymesh.domain.quota import ResourceQuota
from synergymesh.domain.states import ExecutionStatus
from synergymesh.domain.tenants import NO_PLAN, Tenant, TenantPolicy, TierPlan
from synergymesh.domain.workflow.definition import UNDO, WorkflowDefinition
from synergymesh.engine.live import Attempt as LiveAttempt
from synergymesh.engine.live import LiveRun
from synergymesh.engine.observability.events import error_of
from synergymesh.ports.records import (
    RESTORE_STEP,
    AttemptRecord,
    BreakerRecord,
    OutputRecord,
    RunRecord,
    TaskRecord,
    TenantRecord,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """Describe an attempt that was followed by another one.

    Attributes:
        cause: why it was: a failure of the task, or one of the infrastructure, or because the task asked for it.
    """

    number: int
    status: ExecutionStatus
    cause: Cause
    started_at: datetime
    ended_at: datetime
    error: ErrorInfo | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """Hold a line that an attempt printed or logged.

    Attributes:
        task_id: the component's id.
        attempt: the number of the attempt.
        at: aware (UTC).
        source: stdout, stderr, or the level of a log record.
        text: without its end.
    """

    task_id: str
    attempt: int
    at: datetime
    source: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTask:
    """Describe a task: a component's work in one run.

    Attributes:
        task_id: the component's id.
        task: the name of the task function.
        attempt: the number of the last attempt, 0 if there was none.
        result: the value, None unless it succeeded.
        error: why it failed for good, or None.
        progress: what the running attempt said with `heartbeat`, 0 to 1, or None.
        failures: the attempts before the last one, whatever ended them.
        crashes: how often the process died while the task was known to run.
        reused: whether the result is that of an earlier run, which this one goes on from.
        compensates: the task whose work it undoes, or None.
    """

    task_id: str
    task: str
    status: ExecutionStatus
    attempt: int = 0
    started_at: datetime | None = None
    ended_at: datetime | None = None
    result: Any = None
    error: ErrorInfo | None = None
    progress: float | None = None
    failures: tuple[Attempt, ...] = ()
    crashes: int = 0
    reused: bool = False
    compensates: str | None = None

    @property
    def failed_attempts(self) -> int:
        """Count the attempts that failed by the task's own fault and were followed by another one."""
        return sum(attempt.cause is Cause.FAILURE for attempt in self.failures)

    @property
    def interruptions(self) -> int:
        """Count the attempts that the infrastructure ended: shutdowns, lost workers, crashes of the process."""
        return sum(attempt.cause in (Cause.SHUTDOWN, Cause.LOST) for attempt in self.failures) + self.crashes


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Describe a run: one execution of a workflow. Times are aware (UTC).

    Attributes:
        result: what the workflow returned, None unless it ended as success or partial.
        error: why it failed, in one line, or None.
        errors: by component, why each task failed.
        reason: why an open run does not go on, or None.
        recoveries: how often a crash of the process interrupted it.
        retry_of: the run that it goes on from, or None.
        replay_of: the run that it repeats, or None.
        paused_at: since when it is paused itself, or None.
        tasks: every task in the order of the definition; empty in a list of runs.
    """

    id: str
    tenant_id: str
    workflow: str
    status: ExecutionStatus
    priority: int
    input: Any
    result: Any
    error: str | None
    errors: Mapping[str, ErrorInfo]
    idempotency_key: str | None
    created_at: datetime
    not_before: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    recoveries: int
    retry_of: str | None = None
    replay_of: str | None = None
    paused_at: datetime | None = None
    reason: str | None = None
    tasks: tuple[RunTask, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerView:
    """Describe a circuit of a tenant. Times are aware (UTC).

    Attributes:
        breaker: the name that tasks give it, or None.
        workflow, component: what it is about, if tasks do not name it.
        since: when it came into its state; None if it was never open.
        until: when an open circuit is tried again.
        trips: how often it has opened since it was closed.
        wave: how many attempts are let in while it is half open.
        calls, failures: in its window.
    """

    tenant_id: str
    breaker: str | None
    workflow: str | None
    component: str | None
    state: BreakerState
    since: datetime | None
    until: datetime | None
    trips: int
    wave: int
    calls: int
    failures: int

    @property
    def name(self) -> str:
        """Name it in one word."""
        return self.breaker or f"{self.workflow}/{self.component}"


def breaker_view(record: BreakerRecord) -> BreakerView:
    """Describe a circuit."""
    named = not record.workflow
    return BreakerView(
        tenant_id=record.tenant_id,
        breaker=record.name if named else None,
        workflow=None if named else record.workflow,
        component=None if named else record.name,
        state=record.state,
        since=_moment(record.since or None),
        until=_moment(record.until or None),
        trips=record.trips,
        wave=record.wave,
        calls=record.calls,
        failures=record.failures,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LingeringAttempt:
    """Name an attempt that was stopped and goes on all the same.

    Attributes:
        number: of the attempt.
        in_thread: whether it is a plain function, which cannot be stopped from outside.
        started_at: aware (UTC).
    """

    tenant_id: str
    run_id: str
    task_id: str
    number: int
    in_thread: bool
    started_at: datetime


def lingering_views(attempts: Sequence[LiveAttempt]) -> list[LingeringAttempt]:
    """Name attempts that go on although they were stopped."""
    return [
        LingeringAttempt(
            tenant_id=attempt.context.tenant_id,
            run_id=attempt.context.run_id,
            task_id=attempt.context.task_id,
            number=attempt.number,
            in_thread=not attempt.task.is_async,
            started_at=to_datetime(attempt.started_at),
        )
        for attempt in attempts
    ]


def tenant_view(record: TenantRecord, plans: Mapping[str, TierPlan]) -> Tenant:
    """Describe a tenant; one whose tier is not configured any more has the features of none."""
    plan = plans.get(record.tier, NO_PLAN)
    policy = msgspec.json.decode(record.policy, type=TenantPolicy)
    own_quota = msgspec.json.decode(record.quota, type=ResourceQuota | None)
    return Tenant(
        tenant_id=record.tenant_id,
        tenant_name=record.tenant_name,
        tier=record.tier,
        quota=plan.quota if own_quota is None else own_quota,
        has_own_quota=own_quota is not None,
        status=record.status,
        created_at=to_datetime(record.created_at),
        weight=policy.weight or plan.weight,
        features_enabled=plan.features,
        sla_uptime_percent=plan.sla_uptime_percent,
        policy=policy,
        parent_id=record.parent_id,
        retention_days=plan.retention_days if policy.retention_days is None else policy.retention_days,
    )


def errors_of(raw: bytes | None) -> dict[str, ErrorInfo]:
    """Read the recorded errors of a run."""
    return {} if raw is None else msgspec.json.decode(raw, type=dict[str, ErrorInfo])


def summary(errors: Mapping[str, ErrorInfo]) -> str | None:
    """Say in one line what went wrong."""
    if not errors:
        return None
    shown = [f"{component_id or 'result'}: {error}" for component_id, error in list(errors.items())[:3]]
    more = f" (and {len(errors) - 3} more)" if len(errors) > 3 else ""
    return "; ".join(shown) + more


def run_view(
    record: RunRecord, live: LiveRun | None = None, tasks: tuple[RunTask, ...] = (), *, problem: str | None = None
) -> Run:
    """Describe a run; `problem` is why it does not go on, if that is known."""
    errors = errors_of(record.error)
    status = record.status
    started_at = record.started_at
    reason = None if status.is_final else problem
    if live is not None and not status.is_final:
        started_at = live.started_at if started_at is None else started_at
        if started_at is not None:
            status = ExecutionStatus.RUNNING
        reason = problem or live.version.problem
    return Run(
        id=record.run_id,
        tenant_id=record.tenant_id,
        workflow=record.workflow,
        status=status,
        priority=record.priority,
        input=decode(record.input),
        result=None if record.result is None else decode(record.result),
        error=summary(errors),
        errors=errors,
        idempotency_key=record.idempotency_key,
        created_at=to_datetime(record.created_at),
        not_before=_moment(record.not_before or None),
        started_at=_moment(started_at),
        ended_at=_moment(record.ended_at),
        recoveries=record.recoveries % RESTORE_STEP,
        retry_of=record.retry_of,
        replay_of=record.replay_of,
        paused_at=None if status.is_final else _moment(record.paused_at),
        reason=reason,
        tasks=tasks,
    )


def task_views(
    definition: WorkflowDefinition,
    tasks: Sequence[TaskRecord],
    attempts: Sequence[AttemptRecord],
    live: LiveRun | None = None,
) -> tuple[RunTask, ...]:
    """Describe every task of a run, in the order of the definition; then what undoes them, as far as it is needed."""
    rows = {task.component_id: task for task in tasks}
    failures: dict[str, list[AttemptRecord]] = defaultdict(list)
    for attempt in attempts:
        failures[attempt.component_id].append(attempt)
    views = []
    undoing = definition.compensations
    for position, component in enumerate((*definition.components, *undoing.values())):
        component_id = component.component_id
        compensates = None if position < len(definition.components) else component_id.removeprefix(UNDO)
        earlier = tuple(attempt_view(a) for a in failures.get(component_id, ()))
        row = rows.get(component_id)
        running = None if live is None or live.running is None else live.running.get(position)
        left = live is not None and position in live.state.compensations
        if compensates is not None and row is None and not earlier and not left:
            continue  # it is not needed
        if running is not None and (row is None or not row.status.is_final):
            views.append(
                RunTask(
                    task_id=component_id,
                    task=component.task,
                    status=ExecutionStatus.RUNNING,
                    attempt=running.number,
                    started_at=to_datetime(running.started_at),
                    progress=running.context.progress,
                    failures=earlier,
                    crashes=0 if row is None else row.crashes,
                    compensates=compensates,
                )
            )
        elif row is None:
            status = ExecutionStatus.RETRYING if earlier else ExecutionStatus.PENDING
            attempt_number = earlier[-1].number if earlier else 0
            views.append(
                RunTask(
                    task_id=component_id,
                    task=component.task,
                    status=status,
                    attempt=attempt_number,
                    failures=earlier,
                    compensates=compensates,
                )
            )
        else:
            views.append(
                RunTask(
                    task_id=component_id,
                    task=component.task,
                    status=row.status,
                    attempt=row.attempt,
                    started_at=_moment(row.started_at),
                    ended_at=_moment(row.ended_at),
                    result=None if row.result is None else decode(row.result),
                    error=error_of(row.error),
                    failures=earlier,
                    crashes=row.crashes,
                    reused=row.status is ExecutionStatus.SUCCESS and not row.attempt,
                    compensates=compensates,
                )
            )
    return tuple(views)


def attempt_view(record: AttemptRecord) -> Attempt:
    """Describe an attempt."""
    error = error_of(record.error)
    return Attempt(
        number=record.number,
        status=record.status,
        cause=cause_of(record.status, error),
        started_at=to_datetime(record.started_at),
        ended_at=to_datetime(record.ended_at),
        error=error,
    )


def log_views(
    outputs: Sequence[OutputRecord], live: LiveRun | None = None, task_id: str | None = None, now: Instant = 0
) -> list[LogLine]:
    """Give what the attempts of a run have printed, those that are under way included, in the order of time."""
    found = [
        (record.component_id, record.number, msgspec.json.decode(record.lines, type=list[OutputLine]))
        for record in outputs
    ]
    for attempt in [] if live is None or live.running is None else live.running.values():
        context = attempt.context
        if context.output is not None and task_id in (None, context.task_id):
            found.append((context.task_id, attempt.number, context.output.lines(now)))
    lines = []
    for component_id, number, kept in found:
        lines += [
            LogLine(task_id=component_id, attempt=number, at=to_datetime(line.at), source=line.source, text=line.text)
            for line in kept
        ]
    return sorted(lines, key=lambda line: line.at)


def _moment(instant: Instant | None) -> datetime | None:
    return None if instant is None else to_datetime(instant)
