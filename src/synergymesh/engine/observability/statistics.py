"""Counts what was committed, per tenant and hour, and has it written every now and then.

Counting costs two look-ups per task. What was counted since the last writing is lost with the process; the rows of runs
and tasks are what is certain.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from synergymesh.domain.instants import SECOND
from synergymesh.domain.observability.histogram import bucket_of
from synergymesh.domain.observability.tallies import Measure, Tally
from synergymesh.domain.states import ExecutionStatus
from synergymesh.engine.committer import Answer, Committer, Entry
from synergymesh.ports.changes import AttemptFailed, RunCreated, RunFinished, StatisticCounted, TaskFinished
from synergymesh.ports.clock import Clock
from synergymesh.ports.records import CommitResult, Committed
from synergymesh.ports.store import Store

HOUR = 3_600 * SECOND
_DURATION = Measure.DURATION.value
_WAIT = Measure.WAIT.value
_LAST_END = Measure.LAST_END.value
_RETRIED = Measure.RETRIED.value
_SUBMITTED = Measure.SUBMITTED.value

Counts = dict[tuple[str, int], list[int]]
"""Measure and bucket -> count and total."""

Key = tuple[str, str, int]
"""Tenant, measure, bucket."""


class Statistics:
    """Know the counts of every tenant, for ever and in this hour."""

    def __init__(self, store: Store, committer: Committer, clock: Clock) -> None:
        self._store = store
        self._committer = committer
        self._clock = clock
        self._fresh: dict[Key, list[int]] = {}
        self._tallies: dict[str, Tally] = {}
        self._total = Tally()
        self._hour = 0
        self._in_hour: dict[str, Counts] = {}
        self._hour_before: dict[str, Counts] = {}
        self._unwritten: dict[str, set[tuple[str, int]]] = {}
        committer.recorded = self.recorded

    async def load(self) -> None:
        """Read what was counted before."""
        self._hour = self._clock.now() // HOUR
        for record in await self._store.sum_statistics():
            self._tally(record.tenant_id).add(record.measure, record.bucket, record.count, record.total)
            self._total.add(record.measure, record.bucket, record.count, record.total)
        for record in await self._store.list_statistics(None, since_hour=self._hour - 1):
            if record.hour <= self._hour:
                hours = self._in_hour if record.hour == self._hour else self._hour_before
                counts = hours.setdefault(record.tenant_id, {})
                counts[record.measure, record.bucket] = [record.count, record.total]

    # --- counting -------------------------------------------------------------------------------------------------

    def recorded(self, batch: Sequence[Entry], answers: Sequence[CommitResult]) -> None:
        """Count what a transaction has recorded."""
        for entry, answer in zip(batch, answers, strict=True):
            if type(answer) is not Committed or answer.existing is not None:
                continue
            for change in entry.unit:
                kind = type(change)
                if kind is TaskFinished:
                    self._task_finished(change)  # type: ignore[arg-type]  # compared by type(), which is faster than isinstance
                elif kind is RunFinished:
                    self._count(change.tenant_id, f"run.{change.status.value}")  # type: ignore[union-attr]  # as above
                elif kind is RunCreated:
                    self._count(change.tenant_id, _SUBMITTED)  # type: ignore[union-attr]  # as above
                elif kind is AttemptFailed:
                    self._count(change.tenant_id, _RETRIED)  # type: ignore[union-attr]  # as above

    def waited(self, tenant_id: str, nanoseconds: int, times: int) -> None:
        """Count how long a task was ready before it started, for so many tasks."""
        microseconds = max(0, nanoseconds // 1_000)
        self._count(tenant_id, _WAIT, bucket_of(microseconds), microseconds * times, times)

    def _task_finished(self, change: TaskFinished) -> None:
        tenant_id = change.tenant_id
        if change.started_at is None and change.status is ExecutionStatus.SUCCESS:
            return  # a result of an earlier run that is used again: it was counted there
        self._count(tenant_id, _TASK_MEASURES[change.status.value])
        if change.started_at is not None:
            microseconds = (change.ended_at - change.started_at) // 1_000
            self._count(tenant_id, _DURATION, bucket_of(microseconds), microseconds)
            last = self._fresh.get((tenant_id, _LAST_END, 0))
            if last is None:
                self._fresh[tenant_id, _LAST_END, 0] = [1, change.ended_at]
            elif change.ended_at > last[1]:
                last[1] = change.ended_at

    def _count(self, tenant_id: str, measure: str, bucket: int = 0, total: int = 0, times: int = 1) -> None:
        key = (tenant_id, measure, bucket)
        fresh = self._fresh.get(key)
        if fresh is None:
            self._fresh[key] = [times, total]
        else:
            fresh[0] += times
            fresh[1] += total

    def forget(self, tenant_id: str) -> None:
        """Let go of a tenant that is deleted; what it did stays in the sum of all."""
        self._take_fresh()
        self._tallies.pop(tenant_id, None)
        self._in_hour.pop(tenant_id, None)
        self._hour_before.pop(tenant_id, None)
        self._unwritten.pop(tenant_id, None)

    # --- reading --------------------------------------------------------------------------------------------------

    def of(self, tenant_id: str) -> Tally:
        """Give the counts of a tenant."""
        self._take_fresh()
        return self._tallies.get(tenant_id) or Tally()

    @property
    def total(self) -> Tally:
        """Give the counts of all tenants, since the database was made or a tenant's deletion was forgotten."""
        self._take_fresh()
        return self._total

    def active(self) -> list[str]:
        """Give the tenants of which something was counted in this hour or the one before."""
        self._take_fresh()
        return sorted(self._in_hour.keys() | self._hour_before.keys())

    def by_tenant(self) -> Iterable[tuple[str, Tally]]:
        """Go through the counts of all tenants that have any."""
        self._take_fresh()
        return list(self._tallies.items())

    def last_hour(self, tenant_id: str) -> Tally:
        """Give the counts of a tenant in the last sixty minutes.

        Of the hour before, the part that lies in them is taken (a sliding-window counter).
        """
        self._take_fresh()
        now = self._clock.now()
        share = 1.0 - (now % HOUR) / HOUR if now // HOUR == self._hour else 0.0
        tally = Tally()
        for (measure, bucket), (count, total) in self._hour_before.get(tenant_id, {}).items():
            tally.add(measure, bucket, round(count * share), _part(measure, total, share))
        for (measure, bucket), (count, total) in self._in_hour.get(tenant_id, {}).items():
            tally.add(measure, bucket, count, total)
        return tally

    async def since(self, tenant_id: str, seconds: float) -> Tally:
        """Give the counts of a tenant in the last so many seconds.

        Hours are counted whole; of the hour in which the span begins, the part that lies in the span is taken
        (a sliding-window counter).
        """
        self._take_fresh()
        now = self._clock.now()
        begin = now - int(seconds * SECOND)
        first_hour = begin // HOUR
        share = 1.0 - (begin % HOUR) / HOUR
        tally = Tally()
        for record in await self._store.list_statistics(tenant_id, since_hour=first_hour):
            if record.hour == self._hour:
                continue  # what is in memory is newer
            if record.hour == first_hour:
                total = _part(record.measure, record.total, share)
                tally.add(record.measure, record.bucket, round(record.count * share), total)
            else:
                tally.add(record.measure, record.bucket, record.count, record.total)
        for (measure, bucket), (count, total) in self._in_hour.get(tenant_id, {}).items():
            tally.add(measure, bucket, count, total)
        return tally

    # --- writing --------------------------------------------------------------------------------------------------

    def write(self) -> None:
        """Have what was counted since the last time written: absolute figures, so that twice does no harm."""
        self._take_fresh()
        unwritten, self._unwritten = self._unwritten, {}
        for tenant_id, keys in unwritten.items():
            self._write(tenant_id, keys)
        hour = self._clock.now() // HOUR
        if hour > self._hour:
            self._hour_before = self._in_hour if hour == self._hour + 1 else {}
            self._hour = hour
            self._in_hour = {}

    def _write(self, tenant_id: str, keys: set[tuple[str, int]]) -> None:
        hour = self._in_hour.get(tenant_id, {})
        rows = [StatisticCounted(tenant_id, self._hour, *key, *hour[key]) for key in keys if key in hour]
        written_hour = self._hour

        def done(answer: Answer) -> None:
            if not isinstance(answer, Committed) and written_hour == self._hour and tenant_id in self._in_hour:
                self._unwritten.setdefault(tenant_id, set()).update(keys)

        if rows:
            self._committer.put(rows, done, may_fail=True)

    def _take_fresh(self) -> None:
        """Add what was counted lately to the sums."""
        if not self._fresh:
            return
        fresh, self._fresh = self._fresh, {}
        for (tenant_id, measure, bucket), (count, total) in fresh.items():
            self._tally(tenant_id).add(measure, bucket, count, total)
            self._total.add(measure, bucket, count, total)
            hour = self._in_hour.setdefault(tenant_id, {})
            row = hour.get((measure, bucket))
            if row is None:
                hour[measure, bucket] = [count, total]
            elif measure == _LAST_END:
                row[1] = max(row[1], total)
            else:
                row[0] += count
                row[1] += total
            self._unwritten.setdefault(tenant_id, set()).add((measure, bucket))

    def _tally(self, tenant_id: str) -> Tally:
        tally = self._tallies.get(tenant_id)
        if tally is None:
            tally = self._tallies[tenant_id] = Tally()
        return tally


def _part(measure: str, total: int, share: float) -> int:
    return total if measure == _LAST_END else round(total * share)


_TASK_MEASURES = {
    status: f"task.{status}" for status in ("success", "failed", "timeout", "cancelled", "skipped", "partial")
}
