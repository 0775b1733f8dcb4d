"""What is counted of a tenant's work: how its tasks and runs ended, how long they took and waited.

Every tenant has several of these tallies in memory, so each count takes four bytes, and not the hundred of an entry of
a dictionary.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator
from enum import StrEnum

from synergymesh.domain.observability.histogram import bucket_of, percentiles
from synergymesh.domain.states import ExecutionStatus


class Measure(StrEnum):
    """Name what is counted. Statuses of tasks and runs are `task.STATUS` and `run.STATUS`."""

    SUBMITTED = "run.submitted"
    RETRIED = "retried"
    DURATION = "duration"
    """Of attempts that gave a task its final verdict: a histogram in microseconds, with their sum."""
    WAIT = "wait"
    """From the moment when a task was ready until it started: a histogram in microseconds, with their sum."""
    RUN_DURATION = "run_duration"
    """From the first start in a run to its end: a histogram in microseconds, with their sum."""
    LAST_END = "last_end"
    """Not a count: `total` is when the last task ended, in nanoseconds since 1970."""


HISTOGRAMS = frozenset({Measure.DURATION.value, Measure.WAIT.value, Measure.RUN_DURATION.value})

SUM_BUCKET = -1
"""Stands for no bucket: what is recorded of it has the sum of a histogram as `total`, and counts nothing."""

_BITS_NARROW, _BITS_WIDE = 22, 54
"""Bits of a count beside the ten of its number, in integers of 32 and of 64 bits."""


class Cells:
    """Hold counts by small numbers (0 to 1,023): each in one integer, in the order of the numbers.

    The integers have 32 bits until a count reaches four millions.
    """

    __slots__ = ("_cells",)

    def __init__(self) -> None:
        self._cells: array[int] | None = None

    def add(self, number: int, count: int) -> None:
        """Count so many more, or fewer, of a number; below 0 is 0. O(numbers) where it is a new one."""
        cells = self._cells
        if cells is None:
            cells = self._cells = array("I")
        bits = _BITS_NARROW if cells.itemsize == _NARROW else _BITS_WIDE
        place = bisect_left(cells, number << bits)
        if place < len(cells) and cells[place] >> bits == number:
            changed = max(0, (cells[place] & ((1 << bits) - 1)) + count)
            if changed >> bits:
                self._widen()
                self.add(number, count)
            else:
                cells[place] = number << bits | changed
        elif count >> bits > 0:
            self._widen()
            self.add(number, count)
        elif count > 0:
            cells.insert(place, number << bits | count)

    def of(self, number: int) -> int:
        """Give the count of a number."""
        cells = self._cells
        if cells is None:
            return 0
        bits = _BITS_NARROW if cells.itemsize == _NARROW else _BITS_WIDE
        place = bisect_left(cells, number << bits)
        if place < len(cells) and cells[place] >> bits == number:
            return cells[place] & ((1 << bits) - 1)
        return 0

    def items(self) -> Iterator[tuple[int, int]]:
        """Go through the numbers that have a count, smallest first."""
        cells = self._cells
        if cells is not None:
            bits = _BITS_NARROW if cells.itemsize == _NARROW else _BITS_WIDE
            mask = (1 << bits) - 1
            for cell in cells:
                if cell & mask:
                    yield cell >> bits, cell & mask

    @property
    def total(self) -> int:
        """Give the sum of all counts."""
        return sum(count for _, count in self.items())

    def copy(self) -> Cells:
        """Give cells of their own with the same counts."""
        cells = Cells()
        cells._cells = None if self._cells is None else self._cells[:]
        return cells

    def _widen(self) -> None:
        """Make room for counts of 64 bits."""
        items = list(self.items())
        assert self._cells is None or self._cells.itemsize == _NARROW, "a count has at most 54 bits"
        self._cells = array("Q", [number << _BITS_WIDE | count for number, count in items])


_NARROW = array("I").itemsize


class Durations:
    """Hold a histogram of durations in microseconds.

    Attributes:
        sum: of all durations.
    """

    __slots__ = ("_cells", "sum")

    def __init__(self) -> None:
        self._cells = Cells()
        self.sum = 0

    @property
    def counts(self) -> dict[int, int]:
        """Give the counts by bucket of `domain.observability.histogram`, smallest first."""
        return dict(self._cells.items())

    def add(self, microseconds: int) -> None:
        """Count one."""
        self.merge(bucket_of(microseconds), 1, microseconds)

    def merge(self, bucket: int, count: int, total: int) -> None:
        """Count so many more in a bucket."""
        if bucket != SUM_BUCKET:
            self._cells.add(bucket, count)
        self.sum += total

    def count_of(self, bucket: int) -> int:
        """Give how many there are in a bucket."""
        return self._cells.of(bucket)

    @property
    def count(self) -> int:
        """Give how many there are."""
        return self._cells.total

    @property
    def mean(self) -> float:
        """Give the mean in microseconds, 0 of nothing."""
        count = self.count
        return self.sum / count if count else 0.0

    def percentiles(self, *wanted: float) -> list[float]:
        """Give percentiles (0 to 100) in microseconds, 0 of nothing."""
        return percentiles(self.counts, wanted)

    def copy(self) -> Durations:
        """Give a histogram of its own with the same counts."""
        durations = Durations()
        durations._cells = self._cells.copy()
        durations.sum = self.sum
        return durations

    def combine(self, other: Durations, sign: int = 1) -> None:
        """Add the counts of another one, or take them away."""
        for bucket, count in other._cells.items():
            self._cells.add(bucket, sign * count)
        self.sum += sign * other.sum


_COUNTED = (
    Measure.SUBMITTED.value,
    Measure.RETRIED.value,
    *(f"{what}.{status.value}" for what in ("run", "task") for status in ExecutionStatus),
)
_NUMBERS = {measure: number for number, measure in enumerate(_COUNTED)}


class Tally:
    """Hold the counts of one tenant, or of several.

    Attributes:
        duration: of the attempts that gave a verdict.
        wait: from ready to started.
        run_duration: of the runs, from the first start to the end.
        last_end: nanoseconds since 1970, 0 if no task has ended.
    """

    __slots__ = ("_cells", "duration", "last_end", "run_duration", "wait")

    def __init__(self) -> None:
        self._cells = Cells()
        self.duration = Durations()
        self.wait = Durations()
        self.run_duration = Durations()
        self.last_end = 0

    @property
    def counts(self) -> dict[str, int]:
        """Give the counts by measure, of those that have no histogram and are not 0."""
        return {_COUNTED[number]: count for number, count in self._cells.items()}

    def histogram(self, measure: str) -> Durations | None:
        """Give the histogram of a measure; None if it has none."""
        return getattr(self, measure) if measure in HISTOGRAMS else None

    def add(self, measure: str, bucket: int, count: int, total: int) -> None:
        """Count so many more in a bucket (0 where there is no histogram); a measure that is not known is left out."""
        number = _NUMBERS.get(measure)
        if number is not None:
            self._cells.add(number, count)
        elif measure in HISTOGRAMS:
            histogram: Durations = getattr(self, measure)
            histogram.merge(bucket, count, total)
        elif measure == Measure.LAST_END:
            self.last_end = max(self.last_end, total)

    def row(self, measure: str, bucket: int) -> tuple[int, int]:
        """Give the count and the total that are recorded of a bucket: what `add()` takes."""
        histogram = self.histogram(measure)
        if histogram is not None:
            return (0, histogram.sum) if bucket == SUM_BUCKET else (histogram.count_of(bucket), 0)
        if measure == Measure.LAST_END:
            return 1, self.last_end
        return self.count(measure), 0

    def merge(self, other: Tally) -> None:
        """Add the counts of another one."""
        self._combine(other, 1)

    def take_away(self, other: Tally) -> None:
        """Take the counts of another one away, which were added before."""
        self._combine(other, -1)

    def _combine(self, other: Tally, sign: int) -> None:
        for number, count in other._cells.items():
            self._cells.add(number, sign * count)
        self.duration.combine(other.duration, sign)
        self.wait.combine(other.wait, sign)
        self.run_duration.combine(other.run_duration, sign)
        self.last_end = max(self.last_end, other.last_end)

    def add_part(self, other: Tally, share: float) -> None:
        """Add a share (0 to 1) of the counts and waits of another one, rounded; durations are left out."""
        for number, count in other._cells.items():
            self._cells.add(number, round(count * share))
        for bucket, count in other.wait._cells.items():
            self.wait.merge(bucket, round(count * share), 0)
        self.wait.sum += round(other.wait.sum * share)
        self.last_end = max(self.last_end, other.last_end)

    def drop_durations(self) -> None:
        """Forget how long tasks and runs took."""
        self.duration, self.run_duration = Durations(), Durations()

    def copy(self) -> Tally:
        """Give a tally of its own with the same counts."""
        tally = Tally()
        tally._cells = self._cells.copy()
        tally.duration = self.duration.copy()
        tally.wait = self.wait.copy()
        tally.run_duration = self.run_duration.copy()
        tally.last_end = self.last_end
        return tally

    def count(self, *measures: str) -> int:
        """Give the sum of these counts."""
        return sum(self._cells.of(_NUMBERS[measure]) for measure in measures)

    @property
    def succeeded(self) -> int:
        """Give how many tasks succeeded."""
        return self.count("task.success")

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
