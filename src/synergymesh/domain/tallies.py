"""What is counted of a tenant's work: how its tasks and runs ended, how long they took and waited."""

from __future__ import annotations

from enum import StrEnum

from synergymesh.domain.histogram import percentiles

MEASURE_CHARACTERS_MAX = 32


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


class Tally:
    """Hold the counts of one tenant, or of all.

    Attributes:
        counts: by measure, of those that have no histogram.
        durations, waits: by bucket of `domain.histogram`.
        duration_sum, wait_sum: microseconds.
        last_end: nanoseconds since 1970, 0 if no task has ended.
    """

    __slots__ = ("counts", "duration_sum", "durations", "last_end", "wait_sum", "waits")

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.durations: dict[int, int] = {}
        self.duration_sum = 0
        self.waits: dict[int, int] = {}
        self.wait_sum = 0
        self.last_end = 0

    def add(self, measure: str, bucket: int, count: int, total: int) -> None:
        """Count so many more in a bucket (0 where there is no histogram)."""
        if measure == Measure.DURATION:
            self.durations[bucket] = self.durations.get(bucket, 0) + count
            self.duration_sum += total
        elif measure == Measure.WAIT:
            self.waits[bucket] = self.waits.get(bucket, 0) + count
            self.wait_sum += total
        elif measure == Measure.LAST_END:
            self.last_end = max(self.last_end, total)
        else:
            self.counts[measure] = self.counts.get(measure, 0) + count

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

    @property
    def duration_mean(self) -> float:
        """Give the mean duration in microseconds, 0 if nothing was measured."""
        measured = sum(self.durations.values())
        return self.duration_sum / measured if measured else 0.0

    def duration_percentiles(self, *wanted: float) -> list[float]:
        """Give percentiles of the duration in microseconds."""
        return percentiles(self.durations, wanted)

    def wait_percentiles(self, *wanted: float) -> list[float]:
        """Give percentiles of the queue wait in microseconds."""
        return percentiles(self.waits, wanted)
