"""Counts what was committed, per tenant and hour, and has it written every now and then.

Counting costs two look-ups per task. What was counted since the last writing is lost with the process; the rows of runs
and tasks are what is certain.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from synergymesh.domain.instants import SECOND
from synergymesh.domain.observability.histogram import bucket_of
from synergymesh.domain.observability.tallies import HISTOGRAMS, SUM_BUCKET, Measure, Tally
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
_SUCCESS = ExecutionStatus.SUCCESS
_SUBMITTED = Measure.SUBMITTED.value
_RUN_DURATION = Measure.RUN_DURATION.value

KEYS_PER_TURN = 500
"""Counts that are added to the tallies before the event loop has its turn again: some milliseconds."""

ROWS_PER_TURN = 1_000
"""Rows that are handed to the committer before the event loop has its turn again: some milliseconds."""

Key = tuple[str, str, int]
"""Tenant, measure, bucket."""


class Statistics:
    """Know the counts of every tenant, for ever, in this hour, and what health needs of the one before.

    A tenant that works has some five kilobytes of them.
    """

    def __init__(self, store: Store, committer: Committer, clock: Clock) -> None:
        self._store = store
        self._committer = committer
        self._clock = clock
        self._fresh: dict[Key, list[int]] = {}
        self._ends: dict[str, int] = {}
        self._tallies: dict[str, Tally] = {}
        self._total = Tally()
        self._hour = 0
        self._in_hour: dict[str, Tally] = {}
        self._hour_before: dict[str, Tally] = {}
        self._unwritten: dict[str, set[tuple[str, int]]] = {}
        committer.recorded = self.recorded

    async def load(self) -> None:
        """Read what was counted before."""
        self._hour = self._clock.now() // HOUR
        for record in await self._store.sum_statistics():
            self._tally(record.tenant_id).add(record.measure, record.bucket, record.count, record.total)
            self._total.add(record.measure, record.bucket, record.count, record.total)
        for record in await self._store.list_statistics(None, since_hour=self._hour - 1):
            if record.hour > self._hour:
                continue
            hours = self._in_hour if record.hour == self._hour else self._hour_before
            hours.setdefault(record.tenant_id, Tally()).add(record.measure, record.bucket, record.count, record.total)
            has_own_sum = record.measure in HISTOGRAMS and record.bucket != SUM_BUCKET and record.total
            if record.hour == self._hour and has_own_sum:  # an earlier version wrote it; from now on it is in the sum
                keys = self._unwritten.setdefault(record.tenant_id, set())
                keys.update({(record.measure, record.bucket), (record.measure, SUM_BUCKET)})
        for tally in self._hour_before.values():
            tally.drop_durations()

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
                    self._run_finished(change)  # type: ignore[arg-type]  # as above
                elif kind is RunCreated:
                    self._count(change.tenant_id, _SUBMITTED)  # type: ignore[union-attr]  # as above
                elif kind is AttemptFailed:
                    self._count(change.tenant_id, _RETRIED)  # type: ignore[union-attr]  # as above
                elif kind is StatisticCounted:
                    break  # so are all others of the unit

    def waited(self, tenant_id: str, nanoseconds: int, times: int) -> None:
        """Count how long a task was ready before it started, for so many tasks."""
        microseconds = max(0, nanoseconds // 1_000)
        self._count(tenant_id, _WAIT, bucket_of(microseconds), microseconds * times, times)

    def _run_finished(self, change: RunFinished) -> None:
        self._count(change.tenant_id, _RUN_MEASURES[change.status._value_])
        if change.started_at is not None:
            microseconds = (change.ended_at - change.started_at) // 1_000
            self._count(change.tenant_id, _RUN_DURATION, bucket_of(microseconds), microseconds)

    def _task_finished(self, change: TaskFinished) -> None:
        """Count a task. It is done for each one, so what `_count()` does is written out."""
        tenant_id, status, started_at, ended_at = change.tenant_id, change.status, change.started_at, change.ended_at
        if started_at is None:
            if (
                status is not _SUCCESS
            ):  # else it is a result of an earlier run that is used again, and was counted there
                self._count(tenant_id, _TASK_MEASURES[status._value_])
            return
        counts = self._fresh
        fresh = counts.get(key := (tenant_id, _TASK_MEASURES[status._value_], 0))
        if fresh is None:
            counts[key] = [1, 0]
        else:
            fresh[0] += 1
        microseconds = (ended_at - started_at) // 1_000
        fresh = counts.get(key := (tenant_id, _DURATION, bucket_of(microseconds)))
        if fresh is None:
            counts[key] = [1, microseconds]
        else:
            fresh[0] += 1
            fresh[1] += microseconds
        if ended_at > self._ends.get(tenant_id, 0):
            self._ends[tenant_id] = ended_at

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

    def last_hour(self, tenant_id: str) -> Tally:
        """Give the counts of a tenant in the last sixty minutes, without durations.

        Of the hour before, the part that lies in them is taken (a sliding-window counter).
        """
        self._take_fresh()
        now = self._clock.now()
        share = 1.0 - (now % HOUR) / HOUR if now // HOUR == self._hour else 0.0
        before, present = self._hour_before.get(tenant_id), self._in_hour.get(tenant_id)
        tally = Tally()
        if before is not None:
            tally.add_part(before, share)
        if present is not None:
            tally.add_part(present, 1.0)
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
        present = self._in_hour.get(tenant_id)
        if present is not None:
            tally.merge(present)
        return tally

    # --- writing --------------------------------------------------------------------------------------------------

    async def write_in_turns(self) -> None:
        """Do what `write()` does, a part at a time, so that nothing else waits while many tenants are active."""
        await self.take_in_turns()
        unwritten, self._unwritten = self._unwritten, {}
        rows = 0
        for tenant_id, keys in unwritten.items():
            self._write(tenant_id, keys)
            rows += len(keys)
            if rows >= ROWS_PER_TURN:
                rows = 0
                await asyncio.sleep(0)
        if self._clock.now() // HOUR > self._hour:
            self.write()

    def write(self) -> None:
        """Have what was counted since the last time written: absolute figures, so that twice does no harm."""
        self._take_fresh()
        unwritten, self._unwritten = self._unwritten, {}
        for tenant_id, keys in unwritten.items():
            self._write(tenant_id, keys)
        hour = self._clock.now() // HOUR
        if hour > self._hour:
            self._hour_before = self._in_hour if hour == self._hour + 1 else {}
            for tally in self._hour_before.values():
                tally.drop_durations()
            self._hour = hour
            self._in_hour = {}

    def _write(self, tenant_id: str, keys: set[tuple[str, int]]) -> None:
        tally = self._in_hour.get(tenant_id)
        if tally is None:
            return
        written_hour = self._hour
        rows = [StatisticCounted(tenant_id, written_hour, *key, *tally.row(*key)) for key in keys]

        def done(answer: Answer) -> None:
            if not isinstance(answer, Committed) and written_hour == self._hour and tenant_id in self._in_hour:
                self._unwritten.setdefault(tenant_id, set()).update(keys)

        self._committer.put(rows, done, may_fail=True)

    async def take_in_turns(self) -> None:
        """Add what was counted lately to the sums, a part at a time."""
        self._take_ends()
        turns = len(self._fresh) // KEYS_PER_TURN
        for _ in range(turns):
            self._take(KEYS_PER_TURN)
            await asyncio.sleep(0)
        self._take_fresh()

    def _take_fresh(self) -> None:
        """Add what was counted lately to the sums."""
        self._take_ends()
        if self._fresh:
            self._take(len(self._fresh))

    def _take_ends(self) -> None:
        """Count when the last tasks ended."""
        ends, self._ends = self._ends, {}
        for tenant_id, ended_at in ends.items():
            self._fresh[tenant_id, _LAST_END, 0] = [1, ended_at]

    def _take(self, keys_max: int) -> None:
        fresh = self._fresh
        for _ in range(min(keys_max, len(fresh))):
            (tenant_id, measure, bucket), (count, total) = fresh.popitem()
            self._tally(tenant_id).add(measure, bucket, count, total)
            self._total.add(measure, bucket, count, total)
            hour = self._in_hour.get(tenant_id)
            if hour is None:
                hour = self._in_hour[tenant_id] = Tally()
            hour.add(measure, bucket, count, total)
            keys = self._unwritten.get(tenant_id)
            if keys is None:
                keys = self._unwritten[tenant_id] = set()
            keys.add((measure, bucket))
            if measure in HISTOGRAMS:
                keys.add((measure, SUM_BUCKET))
        if not fresh:
            self._fresh = {}  # an emptied dictionary keeps its room

    def _tally(self, tenant_id: str) -> Tally:
        tally = self._tallies.get(tenant_id)
        if tally is None:
            tally = self._tallies[tenant_id] = Tally()
        return tally


def _part(measure: str, total: int, share: float) -> int:
    return total if measure == _LAST_END else round(total * share)


_TASK_MEASURES = {status.value: f"task.{status.value}" for status in ExecutionStatus}
_RUN_MEASURES = {status.value: f"run.{status.value}" for status in ExecutionStatus}
