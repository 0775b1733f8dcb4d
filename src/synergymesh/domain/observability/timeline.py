"""What a run's time went into: every attempt and every wait of every task, and the path that decided its length.

Only what is recorded is said. Between the moment when a task could start and its start it waited for its turn: what
kept it is recorded with each attempt. Where several things did, one after the other, it is the last of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from synergymesh.domain.instants import Instant, to_datetime
from synergymesh.domain.states import ExecutionStatus

NANOSECONDS = 1_000_000_000


class Phase(StrEnum):
    """Name what a task does or waits for during a span of time."""

    NOT_BEFORE = "not_before"
    """The run was not to start yet."""
    DEPENDENCY = "dependency"
    """Another task had not ended."""
    QUEUE = "queue"
    """It could start, and has not: `explain` says why."""
    CONCURRENCY = "concurrency"
    """Its tenant ran as many tasks as it may at a time."""
    MEMORY = "memory"
    """The memory of its tenant's tasks left too little for it."""
    CPU = "cpu"
    """The CPUs of its tenant's tasks left too little for it."""
    HOUR_LIMIT = "hour_limit"
    """Its tenant had started as many tasks as it may in an hour."""
    CAPACITY = "capacity"
    """The slots, memory or CPUs of the scheduler were taken, or kept for others."""
    CIRCUIT_OPEN = "circuit_open"
    """What it calls was not tried, since it failed too often."""
    PAUSED = "paused"
    """Its tenant was suspended."""
    COMMIT = "commit"
    """Nothing kept it: the result before it was being written, and the process got to it then."""
    RETRY_DELAY = "retry_delay"
    """The pause between two attempts."""
    OUTAGE = "outage"
    """Behind a shutdown or a crash: for some of the time the process was not there, for the rest the task queued."""
    RUNNING = "running"


WAITS = tuple(phase for phase in Phase if phase is not Phase.RUNNING)

QUEUED = tuple(
    Phase(name)
    for name in ("queue", "concurrency", "memory", "cpu", "hour_limit", "capacity", "circuit_open", "paused", "commit")
)
"""Phases in which a task could start as far as its run goes."""

_KEPT = {phase.value: phase for phase in QUEUED}


@dataclass(frozen=True, slots=True)
class Try:
    """Hold an attempt as it is recorded.

    `ended_at` is None while it runs, `retry_at` where none follows; `waited_for` is what kept it from starting at once.
    """

    number: int
    status: ExecutionStatus
    started_at: Instant
    ended_at: Instant | None
    retry_at: Instant | None = None
    waited_for: str | None = None


@dataclass(frozen=True, slots=True)
class Course:
    """Hold what is recorded of a task.

    Attributes:
        task_id: the component's id.
        task: the name of the task function.
        status: its present state.
        dependencies: positions of those that it runs after.
        tries: its attempts, oldest first.
        ended_at: when it became final, None while it is open.
    """

    task_id: str
    task: str
    status: ExecutionStatus
    dependencies: tuple[int, ...]
    tries: tuple[Try, ...]
    ended_at: Instant | None


@dataclass(frozen=True, slots=True)
class Span:
    """Describe a piece of a task's time, in seconds since the run was submitted.

    Attributes:
        attempt: its number if the task runs, else 0.
        status: how the attempt ended, `running` if it goes on; None for a wait.
    """

    phase: Phase
    begin: float
    end: float
    attempt: int = 0
    status: ExecutionStatus | None = None

    @property
    def seconds(self) -> float:
        """Give its length."""
        return self.end - self.begin


@dataclass(frozen=True, slots=True)
class Lane:
    """Describe the time of a task.

    Attributes:
        task_id: the component's id.
        task: the name of the task function.
        status: its present state.
        spans: without gaps, from the run's submission to the task's end.
        end: seconds since the submission; of an open task, now.
        critical: whether it is on the path that decided the run's length.
    """

    task_id: str
    task: str
    status: ExecutionStatus
    spans: tuple[Span, ...]
    end: float
    critical: bool

    def seconds(self, phase: Phase) -> float:
        """Give how long the task was in that phase."""
        return sum(span.seconds for span in self.spans if span.phase is phase)


@dataclass(frozen=True, slots=True)
class Step:
    """Describe a task of the critical path: what it did from the moment when it could start.

    Attributes:
        task_id: the component's id.
        spans: from the end of the step before.
    """

    task_id: str
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """Describe where the time of a run went.

    Attributes:
        run_id: which.
        workflow: its name.
        status: of the run.
        submitted_at: aware (UTC); all seconds count from there.
        seconds: to the end of the run; of an open one, until now.
        lanes: one for each task, in the order of the definition.
        critical_path: the tasks that decided the length as it really was: from the one that ended last, always to the
            dependency that ended last. Their spans follow each other without gaps.
        outages: how many waits there were during which the process was not there all the time.
    """

    run_id: str
    workflow: str
    status: ExecutionStatus
    submitted_at: datetime
    seconds: float
    lanes: tuple[Lane, ...]
    critical_path: tuple[Step, ...]
    outages: int

    def totals(self) -> dict[Phase, float]:
        """Give the seconds of all tasks together by phase."""
        return _totals(span for lane in self.lanes for span in lane.spans)

    def critical_totals(self) -> dict[Phase, float]:
        """Give the seconds of the critical path by phase."""
        return _totals(span for step in self.critical_path for span in step.spans)


def build_timeline(
    run_id: str,
    workflow: str,
    status: ExecutionStatus,
    courses: Sequence[Course],
    *,
    created_at: Instant,
    not_before: Instant,
    ended_at: Instant | None,
    now: Instant,
) -> Timeline:
    """Work out the timeline of a run from what is recorded of it; O(tasks + dependencies + attempts).

    Clocks that were set back make spans empty, never negative.

    Args:
        run_id: which.
        workflow: its name.
        status: its state.
        courses: what is recorded of its tasks, by position.
        created_at: when it was submitted.
        not_before: no task was to start earlier; 0 for at once.
        ended_at: when it became final, None while it is open.
        now: where open tasks end for the time being.
    """
    last = max(created_at, now if ended_at is None else ended_at)
    outages = 0
    all_spans: list[tuple[Span, ...]] = []
    ready_at: list[Instant] = []
    for course in courses:
        ends = [courses[position].ended_at for position in course.dependencies]
        ready = max([created_at, not_before, *(end for end in ends if end is not None)])
        builder = _Spans(created_at, last)
        builder.until(not_before, Phase.NOT_BEFORE)
        still_waits = None in ends and not course.tries and course.ended_at is None
        builder.until(last if still_waits else ready, Phase.DEPENDENCY)
        outages += builder.tries(course, last)
        all_spans.append(tuple(builder.spans))
        ready_at.append(ready)
    path = _critical_path(courses, created_at)
    critical = set(path)
    lanes = tuple(
        Lane(
            course.task_id,
            course.task,
            course.status,
            spans,
            spans[-1].end if spans else 0.0,
            position in critical,
        )
        for position, (course, spans) in enumerate(zip(courses, all_spans, strict=True))
    )
    steps = []
    for number, position in enumerate(path):
        begin = (ready_at[position] - created_at) / NANOSECONDS if number else 0.0
        steps.append(Step(courses[position].task_id, tuple(s for s in all_spans[position] if s.begin >= begin)))
    return Timeline(
        run_id=run_id,
        workflow=workflow,
        status=status,
        submitted_at=to_datetime(created_at),
        seconds=(last - created_at) / NANOSECONDS,
        lanes=lanes,
        critical_path=tuple(steps),
        outages=outages,
    )


class _Spans:
    """Put the spans of a task one behind the other."""

    def __init__(self, begin: Instant, last: Instant) -> None:
        self.spans: list[Span] = []
        self._begin = begin
        self._last = last
        self._at = begin

    def until(self, end: Instant, phase: Phase, attempt: int = 0, status: ExecutionStatus | None = None) -> None:
        """Add a span from the end of the one before; an attempt also when it took no time."""
        at, self._at = self._at, max(self._at, min(end, self._last))
        if self._at > at or attempt:
            begin, ended = (at - self._begin) / NANOSECONDS, (self._at - self._begin) / NANOSECONDS
            self.spans.append(Span(phase, begin, ended, attempt, status))

    def tries(self, course: Course, now: Instant) -> int:
        """Add the attempts and the waits before and between them; give during how many the process was away."""
        outages = 0
        expected = 1
        was_away = False
        for attempt in course.tries:
            was_away |= attempt.number > expected  # a crash counts into the numbers of attempts
            outages += was_away
            kept = _KEPT.get(attempt.waited_for or "", Phase.COMMIT)
            self.until(attempt.started_at, Phase.OUTAGE if was_away else kept)
            self.until(
                now if attempt.ended_at is None else attempt.ended_at, Phase.RUNNING, attempt.number, attempt.status
            )
            was_away = attempt.status is ExecutionStatus.CANCELLED
            if attempt.retry_at is not None and not was_away:
                self.until(attempt.retry_at, Phase.RETRY_DELAY)
            expected = attempt.number + 1
        if course.ended_at is not None:
            if not course.tries:
                self.until(course.ended_at, Phase.QUEUE)  # it was given up before it started
        elif not course.tries or course.tries[-1].ended_at is not None:
            self.until(now, Phase.OUTAGE if was_away else Phase.QUEUE)
        return outages


def _critical_path(courses: Sequence[Course], created_at: Instant) -> list[int]:
    """Go back from the task that ended last, always to the dependency that ended last."""
    ended = [position for position, course in enumerate(courses) if course.ended_at is not None and course.tries]
    if not ended:
        return []

    def end(position: int) -> Instant:
        return courses[position].ended_at or created_at

    path = [max(ended, key=end)]
    while dependencies := [d for d in courses[path[-1]].dependencies if courses[d].ended_at is not None]:
        path.append(max(dependencies, key=end))
    return path[::-1]


def _totals(spans: Iterable[Span]) -> dict[Phase, float]:
    totals: Mapping[Phase, list[float]] = defaultdict(list)
    for span in spans:
        totals[span.phase].append(span.seconds)
    return {phase: sum(totals[phase]) for phase in Phase}
