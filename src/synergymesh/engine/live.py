"""What is in memory of a run while it is open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from synergymesh.domain.fault_tolerance.error_info import ErrorInfo
from synergymesh.domain.fault_tolerance.retry import Outcome, TimedOut
from synergymesh.domain.fault_tolerance.tries import NO_TRIES, Cause, Tries
from synergymesh.domain.instants import Instant
from synergymesh.domain.payload import decode
from synergymesh.domain.scheduling.grants import Grant
from synergymesh.domain.states import ExecutionStatus
from synergymesh.domain.workflow.run_state import PENDING, RETRYING, RUNNING, RunState
from synergymesh.engine.observability.events import RunEvent, error_of
from synergymesh.engine.timing.deadlines import Deadline
from synergymesh.engine.timing.run_limits import RunLimits
from synergymesh.engine.versions import Version
from synergymesh.ports.changes import Change, RunFinished
from synergymesh.ports.executor import Runner
from synergymesh.ports.records import TaskRecord
from synergymesh.ports.task_context import TaskContext
from synergymesh.workflows.direct_tasks import DirectTask
from synergymesh.workflows.tasks import Task

SETTLED_BY_AN_ATTEMPT = (
    ExecutionStatus.SUCCESS,
    ExecutionStatus.FAILED,
    ExecutionStatus.TIMEOUT,
)
"""Skipped and cancelled tasks follow from these, and from the wish to cancel."""


class Waiter(Protocol):
    """Wait for the end of a run, as a future does."""

    def done(self) -> bool:
        """Tell whether it knows already, or waits no more."""
        ...

    def set_result(self, result: RunFinished, /) -> None:
        """Take how the run ended."""
        ...

    def set_exception(self, exception: Exception, /) -> None:
        """Take why the end will not be known here."""
        ...


class Attempt:
    """One try of a task that is under way; what an executor calls.

    Attributes:
        ended: takes the outcome.
        grant: what the scheduler gave for it.
        executor: None until the attempt is handed to it.
        recorded: whether the store knows that it runs.
        expired: the time limit that has passed, or None.
        heart: when it is looked again whether the attempt gives heartbeats.
        settled: whether its verdict is given; what it reports after that is ignored.
    """

    __slots__ = (
        "context",
        "ended",
        "executor",
        "expired",
        "grant",
        "handle",
        "heart",
        "number",
        "position",
        "recorded",
        "run",
        "settled",
        "started_at",
        "stopped",
        "timer",
    )

    def __init__(
        self,
        run: LiveRun,
        position: int,
        number: int,
        started_at: Instant,
        ended: Callable[[Attempt, Outcome], None],
        grant: Grant[LiveRun],
    ) -> None:
        self.run = run
        self.position = position
        self.number = number
        self.started_at = started_at
        self.ended = ended
        self.grant = grant
        self.context = TaskContext(run.run_id, run.version.plan.component_ids[position], run.tenant_id, number)
        self.executor: Runner | None = None
        self.handle: Any = None
        self.timer: Deadline | None = None
        self.heart: Deadline | None = None
        self.stopped = False
        self.recorded = False
        self.expired: TimedOut | None = None
        self.settled = False

    @property
    def waited_for(self) -> str | None:
        """Give the code of what kept it from starting at once, None where nothing did."""
        reason = self.grant.waited_for
        return None if reason is None else reason.value

    @property
    def task(self) -> Task[..., Any] | DirectTask:
        """Give the task that does the work."""
        return self._task_of_workflow if self.run.direct is None else self.run.direct[self.position]

    @property
    def _task_of_workflow(self) -> Task[..., Any]:
        tasks = self.run.version.tasks
        assert tasks is not None, "a task without its function was started"
        return tasks[self.position]

    @property
    def function(self) -> Callable[..., Any]:
        """Give the function to call."""
        return self._task_of_workflow.function

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Give the arguments: inputs of the run, and results of the tasks before this one."""
        run = self.run
        plan = run.version.plan
        inputs = decode(run.input) if plan.needs_input[self.position] else {}
        args, kwargs = plan.arguments[self.position](inputs, run.result_of)
        task = self._task_of_workflow
        return task.prepare(args, kwargs) if task.needs_conversion else (args, kwargs)

    def encode(self, value: Any) -> bytes:
        """Turn the function's value into JSON."""
        return self.run.version.encoders[self.position](value)

    def done(self, outcome: Outcome) -> None:
        """Take the outcome."""
        self.ended(self, outcome)


class LiveRun:
    """Hold an open run: its state, what runs of it, and who waits for it.

    Attributes:
        input: JSON object.
        order: when it was submitted, from its id; what was submitted earlier is finished first.
        recoveries: how often a crash has interrupted it.
        tries: by position, the attempts that were followed by another one.
        crashes: by position, how often the process died while the task ran.
        errors: by position, why tasks failed for good.
        paused: whether somebody paused this run.
        abandoned: whether it is cancelled without undoing what it did: its tenant is deleted.
        last_end: the latest end of its tasks, where their order counts.
        retry_at: by position, before which moment retries that waited at the start do not begin.
        held: while nothing of it may start (it is paused, or its workflow is): by position, from which moment the tasks
            could; else None.
        direct: by position, what a direct call calls; None for a run of a workflow.
        unrecorded: changes that go in front of the first ones that are recorded of the run, or None.
        limits: the deadlines of the run and its tasks; None if there are none.
        timed_out: why the run is ended, if its own time is over.
        traceparent: the trace that it belongs to, or None.
        watchers: are called with every event of the run, and with None if no more will come although it is not final.
    """

    __slots__ = (
        "abandoned",
        "cancelling",
        "crashes",
        "created_at",
        "direct",
        "errors",
        "held",
        "input",
        "last_end",
        "limits",
        "not_before",
        "order",
        "paused",
        "priority",
        "recoveries",
        "retry_at",
        "run_id",
        "running",
        "start_recorded",
        "started_at",
        "state",
        "tenant_id",
        "timed_out",
        "traceparent",
        "tries",
        "unrecorded",
        "version",
        "waiters",
        "watchers",
    )

    def __init__(
        self,
        run_id: str,
        tenant_id: str,
        version: Version,
        input_: bytes,
        *,
        priority: int,
        not_before: Instant,
        created_at: Instant,
        recoveries: int = 0,
        started_at: Instant | None = None,
        traceparent: str | None = None,
    ) -> None:
        self.run_id = run_id
        self.tenant_id = tenant_id
        self.version = version
        self.input = input_
        self.order = int(run_id[4:20], 16)
        self.priority = priority
        self.not_before = not_before
        self.created_at = created_at
        self.recoveries = recoveries
        self.started_at = started_at
        self.traceparent = traceparent
        self.start_recorded = started_at is not None
        self.state = RunState(version.plan)
        self.cancelling = False
        self.paused = False
        self.abandoned = False
        self.last_end: Instant = 0
        self.held: dict[int, Instant] | None = None
        self.retry_at: dict[int, Instant] | None = None
        self.running: dict[int, Attempt] | None = None
        self.tries: dict[int, Tries] | None = None
        self.crashes: dict[int, int] | None = None
        self.errors: dict[int, ErrorInfo] | None = None
        self.limits: RunLimits | None = None
        self.timed_out: ErrorInfo | None = None
        self.waiters: list[Waiter] | None = None
        self.direct: Sequence[DirectTask] | None = None
        self.unrecorded: list[Change] | None = None
        self.watchers: list[Callable[[RunEvent | None], None]] | None = None

    def wants(self, position: int) -> bool:
        """Tell whether the task at that position still waits to be started."""
        status = self.state.statuses[position]
        return status is PENDING or status is RETRYING

    @property
    def gives_up(self) -> bool:
        """Tell whether what runs of it is not tried again: it is cancelled, and does not undo anything."""
        return self.cancelling and (self.abandoned or not self.state.compensating)

    def restore(self, task: TaskRecord) -> None:
        """Take over the verdict on a task that an attempt has ended before."""
        position = self.version.plan.positions[task.component_id]
        if position >= self.version.plan.size:
            if task.status is ExecutionStatus.SUCCESS:
                self.state.compensated.add(position)
            return
        self.last_end = max(self.last_end, task.ended_at or 0)
        self.state.move(position, RUNNING)
        error = error_of(task.error)
        if error is not None:
            self.errors = self.errors or {}
            self.errors[position] = error
        self.state.settle(position, task.status, task.result)

    def next_number(self, position: int) -> int:
        """Give the number of the next attempt; never one that was given before, in whichever life of the process."""
        number = self.recoveries + 1
        return number if self.tries is None else number + self.tries_of(position).total

    def tries_of(self, position: int) -> Tries:
        """Give the attempts of a task that were followed by another one."""
        return NO_TRIES if self.tries is None else self.tries.get(position, NO_TRIES)

    def tried(self, position: int, cause: Cause, started_at: Instant) -> None:
        """Note that an attempt is followed by another one."""
        if self.tries is None:
            self.tries = {}
        tries = self.tries.get(position)
        if tries is None:
            tries = self.tries[position] = Tries()
        tries.add(cause, started_at)

    def result_of(self, position: int) -> Any:
        """Give a task's result, a fresh copy each time; None where there is none (an optional task that failed)."""
        raw = self.state.results.get(position)
        return None if raw is None else decode(raw)

    def tell(self, event: RunEvent) -> None:
        """Pass an event on to those who watch the run."""
        for watcher in self.watchers or ():
            watcher(event)
