"""What is counted of a tenant's work: how its tasks and runs ended, how long they took and waited."""

from __future__ import annotations

from enum import StrEnum

from synergymesh.domain.observability.histogram import bucket_of, percentiles


class Measure(StrEnum):
    """Name what is counted. Statuses of tasks and runs are `task.STATUS` and `run.STATUS`."""

    SUBMITTED = "run.submitted"
    RETRIED = "retried"
    DURATION = "duration"
    """Of attempts that gave a task its final verdict: a histogram in microseconds, with their sum."""
    WAIT = "wait"
    """From the moment when a task was ready until it started: a histogram in microseconds, with their sum."""
    LAST_END = "last_end"
    """Not a count: `total` is when the last task ended, in nanoseconds since 1970."""


class Durations:
    """Hold a histogram of durations in microseconds.

    Attributes:
        counts: by bucket of `domain.histogram`.
        sum: of all durations.
    """

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.sum = 0

    def add(self, microseconds: int) -> None:
        """Count one."""
        self.merge(bucket_of(microseconds), 1, microseconds)

    def merge(self, bucket: int, count: int, total: int) -> None:
        """Count so many more in a bucket."""
        self.counts[bucket] = self.counts.get(bucket, 0) + count
        self.sum += total

    @property
    def count(self) -> int:
        """Give how many there are."""
        return sum(self.counts.values())

    @property
    def mean(self) -> float:
        """Give the mean in microseconds, 0 of nothing."""
        count = self.count
        return self.sum / count if count else 0.0

    def percentiles(self, *wanted: float) -> list[float]:
        """Give percentiles (0 to 100) in microseconds, 0 of nothing."""
        return percentiles(self.counts, wanted)


class Tally:
    """Hold the counts of one tenant, or of several.

    Attributes:
        counts: by measure, of those that have no histogram.
        duration: of the attempts that gave a verdict.
        wait: from ready to started.
        last_end: nanoseconds since 1970, 0 if no task has ended.
    """

    __slots__ = ("counts", "duration", "last_end", "wait")

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.duration = Durations()
        self.wait = Durations()
        self.last_end = 0

    def add(self, measure: str, bucket: int, count: int, total: int) -> None:
        """Count so many more in a bucket (0 where there is no histogram)."""
        if measure == Measure.DURATION:
            self.duration.merge(bucket, count, total)
        elif measure == Measure.WAIT:
            self.wait.merge(bucket, count, total)
        elif measure == Measure.LAST_END:
            self.last_end = max(self.last_end, total)
        else:
            self.counts[measure] = self.counts.get(measure, 0) + count

    def merge(self, other: Tally) -> None:
        """Add the counts of another one."""
        for measure, count in other.counts.items():
            self.counts[measure] = self.counts.get(measure, 0) + count
        for mine, its in ((self.duration, other.duration), (self.wait, other.wait)):
            for bucket, count in its.counts.items():
                mine.merge(bucket, count, 0)
            mine.sum += its.sum
        self.last_end = max(self.last_end, other.last_end)

    def count(self, *measures: str) -> int:
        """Give the sum of these counts."""
        return sum(self.counts.get(measure, 0) for measure in measures)

    @property
    def succeeded(self) -> int:
        """Give how many tasks succeeded."""
        return self.counts.get("task.success", 0)

    @property
    def failed(self) -> int:
        """Give how many tasks failed for good, timeouts included."""
        return self.count("task.failed", "task.timeout")

    @property
    def executions(self) -> int:
        """Give how many tasks were executed to a verdict of their own; what was skipped or cancelled is not in it."""
        return self.succeeded + self.failed

    @property
    def success_percent(self) -> float:
        """Give the share of executions that succeeded, 100 if there was none."""
        executions = self.executions
        return 100.0 * self.succeeded / executions if executions else 100.0
