"""Traces by OpenTelemetry: a span for each run, task and attempt, in the trace of whoever submitted the run.

Imported only when traces are on, as opentelemetry-api is an extra. Spans go to the tracer provider that the program has
set; what they cost and where they end up is decided there. Names and attributes: OpenTelemetry, "Semantic conventions",
"Recording errors"; the caller's context: W3C Trace Context.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from importlib.metadata import version
from typing import Concatenate, Final, ParamSpec, TypeVar

from opentelemetry.context import Context, attach
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    TracerProvider,
    get_current_span,
    get_tracer,
    set_span_in_context,
)

from synergymesh.domain.fault_tolerance.error_info import ErrorInfo
from synergymesh.domain.fault_tolerance.retry import Verdict
from synergymesh.domain.fault_tolerance.tries import Cause, cause_of
from synergymesh.domain.instants import Instant
from synergymesh.domain.observability.trace_context import TraceParent, read_traceparent
from synergymesh.domain.states import ExecutionStatus
from synergymesh.engine.live import Attempt, LiveRun
from synergymesh.engine.observability.views import errors_of, summary
from synergymesh.logs import Log
from synergymesh.ports.changes import RunFinished, TaskFinished
from synergymesh.ports.clock import Clock

SUBMIT: Final = "synergymesh.submit"
RUN: Final = "synergymesh.run"
TASK: Final = "synergymesh.task"
ATTEMPT: Final = "synergymesh.attempt"

TENANT_ID: Final = "synergymesh.tenant.id"
RUN_ID: Final = "synergymesh.run.id"
TASK_ID: Final = "synergymesh.task.id"
ATTEMPT_NUMBER: Final = "synergymesh.attempt.number"
WORKFLOW: Final = "synergymesh.workflow.name"
STATUS: Final = "synergymesh.status"
CAUSE: Final = "synergymesh.retry.cause"
INTERRUPTED: Final = "synergymesh.interrupted"

BAD = (ExecutionStatus.FAILED, ExecutionStatus.TIMEOUT)
"""What ends so is an error. What was cancelled or skipped is none."""

NOWHERE = Context()
"""No span and no baggage: what the event loop happens to carry may be another tenant's."""

log = Log("synergymesh.telemetry")

P = ParamSpec("P")
R = TypeVar("R")


def _harmless(method: Callable[Concatenate[Traces, P], R]) -> Callable[Concatenate[Traces, P], R | None]:
    """Have nothing that a sampler or a span processor raises reach the engine."""

    @wraps(method)
    def guarded(self: Traces, /, *args: P.args, **kwargs: P.kwargs) -> R | None:
        try:
            return method(self, *args, **kwargs)
        except Exception as error:
            self.failures += 1
            if self.failures == 1:
                log.error("a span could not be made or ended; this is said once", error=str(error), exc_info=True)
            return None

    return guarded


class _TaskSpans:
    """Hold the open spans of a task: its own, and that of the attempt that is under way."""

    __slots__ = ("attempt", "task", "within")

    def __init__(self, task: Span) -> None:
        self.task = task
        self.within = set_span_in_context(task, NOWHERE)
        self.attempt: Span | None = None


class _RunSpans:
    """Hold the open spans of a run."""

    __slots__ = ("run", "tasks", "within")

    def __init__(self, run: Span) -> None:
        self.run = run
        self.within = set_span_in_context(run, NOWHERE)
        self.tasks: dict[int, _TaskSpans] = {}


class Traces:
    """Follow runs with spans; a `RunObserver`.

    A run or task that goes on after a restart gets another span in the same trace: spans do not outlive their process.

    Args:
        clock: where the time comes from.
        provider: where spans are made; the one that the program has set when None.

    Attributes:
        failures: how often a span could not be made or ended.
    """

    def __init__(self, clock: Clock, provider: TracerProvider | None = None) -> None:
        self._tracer = get_tracer("synergymesh", version("synergymesh"), provider)
        self._clock = clock
        self._born = clock.now()
        self._runs: dict[str, _RunSpans] = {}
        self.failures = 0

    # --- where a run comes from -----------------------------------------------------------------------------------

    @_harmless
    def caller(self) -> str | None:
        """Give the trace context in which this is called as a `traceparent`; None outside of any trace."""
        return _traceparent(get_current_span().get_span_context())

    @_harmless
    def submitted(self, run_id: str, tenant_id: str, workflow: str) -> str | None:
        """Give the `traceparent` that a new run keeps: the caller's, or else that of a trace which begins here."""
        here = get_current_span().get_span_context()
        if not here.is_valid:
            attributes = {TENANT_ID: tenant_id, RUN_ID: run_id, WORKFLOW: workflow}
            # recorded at once, so that the trace has its root whatever becomes of the process
            span = self._tracer.start_span(SUBMIT, NOWHERE, kind=SpanKind.PRODUCER, attributes=attributes)
            span.end()
            here = span.get_span_context()
        return _traceparent(here)

    # --- what happens to it ---------------------------------------------------------------------------------------

    @_harmless
    def attempt_started(self, attempt: Attempt, *, begins: bool) -> None:
        """Begin the span of an attempt, and of its task and run if they have none; make it current for the task."""
        run, position, context = attempt.run, attempt.position, attempt.context
        spans = self._runs.get(run.run_id)
        if spans is None:
            spans = self._runs[run.run_id] = self._begin_run(run, begun=not begins)
        task = spans.tasks.get(position)
        if task is None:
            since = min(attempt.grant.ready_at, attempt.started_at)
            task = spans.tasks[position] = _TaskSpans(self._begin_task(run, context.task_id, since, spans.within))
        task.attempt = span = self._tracer.start_span(
            ATTEMPT,
            task.within,
            attributes={
                TENANT_ID: run.tenant_id,
                RUN_ID: run.run_id,
                TASK_ID: context.task_id,
                ATTEMPT_NUMBER: attempt.number,
            },
            start_time=attempt.started_at,
        )
        if run.direct is None:
            context.entered = partial(attach, set_span_in_context(span, NOWHERE))
        else:
            context.entered = partial(_attach_beside, span)

    @_harmless
    def attempt_failed(self, attempt: Attempt, verdict: Verdict, now: Instant) -> None:
        """End the span of an attempt that is followed by another one."""
        spans = self._runs.get(attempt.run.run_id)
        task = None if spans is None else spans.tasks.get(attempt.position)
        if task is None or task.attempt is None:
            return
        span, task.attempt = task.attempt, None
        pending = verdict.status is ExecutionStatus.PENDING
        status = ExecutionStatus.CANCELLED if pending else verdict.attempt_status
        cause = cause_of(status, verdict.error)
        span.set_attribute(CAUSE, cause.value)
        _end(span, status, verdict.error, now, bad=cause in (Cause.FAILURE, Cause.LOST))

    @_harmless
    def task_ended(self, run: LiveRun, position: int, finished: TaskFinished) -> None:
        """End the span of a task and of its attempt; one that failed without an attempt gets its span now."""
        spans = self._runs.get(run.run_id)
        task = None if spans is None else spans.tasks.pop(position, None)
        status, now = finished.status, finished.ended_at
        if task is None:
            if status not in BAD:
                return
            if spans is None:
                spans = self._runs[run.run_id] = self._begin_run(run, begun=run.started_at is not None)
            task = _TaskSpans(self._begin_task(run, finished.component_id, now, spans.within))
        error = run.errors.get(position) if run.errors is not None and status in BAD else None
        if task.attempt is not None:
            _end(task.attempt, status, error, now, bad=status in BAD)
            error = None if error is None else ErrorInfo(error.type, error.message)
        _end(task.task, status, error, now, bad=status in BAD)

    @_harmless
    def run_ended(self, run: LiveRun, end: RunFinished) -> None:
        """End the span of a run; one that ended without an attempt gets its span now."""
        spans = self._runs.pop(run.run_id, None) or self._begin_run(run, begun=run.started_at is not None)
        for position, task in spans.tasks.items():
            if task.attempt is not None:
                task.attempt.end(end.ended_at)
            # it waited for its next attempt when the run was cancelled
            _end(task.task, run.state.statuses[position], None, end.ended_at, bad=False)
        error = None
        if end.status in BAD:
            errors = errors_of(end.error)
            error = errors.get("") or ErrorInfo("synergymesh.RunFailed", summary(errors) or "")
        _end(spans.run, end.status, error, end.ended_at, bad=error is not None)

    @_harmless
    def run_left(self, run: LiveRun) -> None:
        """End the spans of a run that may go on in another life of the process."""
        spans = self._runs.pop(run.run_id, None)
        if spans is not None:
            self._interrupt(spans)

    def close(self) -> None:
        """End all spans: what is open goes on in another life of the process."""
        for run_id in list(self._runs):
            self._close_run(run_id)

    @_harmless
    def _close_run(self, run_id: str) -> None:
        self._interrupt(self._runs.pop(run_id))

    # --- spans ----------------------------------------------------------------------------------------------------

    def _begin_run(self, run: LiveRun, *, begun: bool) -> _RunSpans:
        """Begin the span of a run: with its submission, or with this life of the process if it began before."""
        since = max(run.created_at, self._born) if begun else run.created_at
        parent = None if run.traceparent is None else read_traceparent(run.traceparent)
        span = self._tracer.start_span(
            RUN,
            NOWHERE if parent is None else _within(parent),
            kind=SpanKind.CONSUMER if run.direct is None else SpanKind.INTERNAL,
            attributes={TENANT_ID: run.tenant_id, RUN_ID: run.run_id, WORKFLOW: run.version.plan.workflow},
            start_time=since,
        )
        return _RunSpans(span)

    def _begin_task(self, run: LiveRun, task_id: str, since: Instant, within: Context) -> Span:
        """Begin the span of a task at the moment from which it waited for its turn."""
        attributes = {TENANT_ID: run.tenant_id, RUN_ID: run.run_id, TASK_ID: task_id}
        return self._tracer.start_span(TASK, within, attributes=attributes, start_time=since)

    def _interrupt(self, spans: _RunSpans) -> None:
        now = self._clock.now()
        for task in spans.tasks.values():
            for span in (task.attempt, task.task):
                if span is not None:
                    span.set_attribute(INTERRUPTED, True)
                    span.end(now)
        spans.run.set_attribute(INTERRUPTED, True)
        spans.run.end(now)


def _end(span: Span, status: ExecutionStatus, error: ErrorInfo | None, now: Instant, *, bad: bool) -> None:
    """End a span and say how it ended; what went well has no status, as instrumentation is told to leave that open."""
    span.set_attribute(STATUS, status.value)
    if bad:
        if error is not None:
            kind = error.type.removeprefix("builtins.")
            span.set_attribute("error.type", kind)
            event = {"exception.type": kind, "exception.message": error.message}
            if error.traceback:
                event["exception.stacktrace"] = error.traceback
            span.add_event("exception", event, timestamp=now)
        span.set_status(StatusCode.ERROR, None if error is None else error.message)
    span.end(now)


def _traceparent(context: SpanContext) -> str | None:
    if not context.is_valid:
        return None
    return str(TraceParent(context.trace_id, context.span_id, context.trace_flags & 0xFF))


def _within(parent: TraceParent) -> Context:
    """Give the context of a span that another part of the program, or another life of it, has made."""
    context = SpanContext(parent.trace_id, parent.span_id, is_remote=True, trace_flags=TraceFlags(parent.flags))
    return set_span_in_context(NonRecordingSpan(context), NOWHERE)


def _attach_beside(span: Span) -> None:
    """Make a span current and keep the rest of the context: a direct call runs in its caller's."""
    attach(set_span_in_context(span))
