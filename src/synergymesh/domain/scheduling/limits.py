"""What a tenant may use: resources at a time, starts per rolling hour, submissions per second. Whole numbers only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import NamedTuple

from synergymesh.domain.instants import SECOND, Instant
from synergymesh.domain.quota import QUOTA_FIELD_MAX, ResourceQuota
from synergymesh.errors import InvalidRequest

MINUTE = 60 * SECOND
WINDOW_MINUTES = 61
"""Any 3,600 seconds touch at most so many minutes of the clock."""

CHUNKS_PER_LIMIT = 100
"""Starts are reserved in hundredths of the limit: a hundred writes per hour, and a crash wastes one percent."""

SMALL_CHUNK = 4
"""At least so many at once, as far as that is no more than a twentieth of the limit: while the last two are used, the
next ones are being written down, so that a start need not wait for a commit of its own. A crash then wastes 7.5 % at
most."""


class Request(NamedTuple):
    """What one task takes beside its slot: MiB of memory, thousandths of a CPU."""

    memory_mb: int = 0
    cpu_millis: int = 0


class Capacity(NamedTuple):
    """An amount of everything that is shared: slots, MiB of memory, thousandths of a CPU."""

    slots: int
    memory_mb: int
    cpu_millis: int


NOTHING = Capacity(0, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Hold what a tenant or sub-tenant may use at most.

    Attributes:
        max_concurrent: tasks at a time.
        memory_mb: sum of the requests of running tasks, in MiB.
        cpu_millis: sum of the requests of running tasks, in thousandths of a CPU.
        per_hour: starts in any rolling hour; None for no such limit.

    Raises:
        InvalidRequest: a limit is no whole number, below 1 or absurdly large.
    """

    max_concurrent: int
    memory_mb: int
    cpu_millis: int
    per_hour: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None and field.name == "per_hour":
                continue
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= QUOTA_FIELD_MAX:
                raise InvalidRequest(
                    f"limits.{field.name} must be a whole number from 1 to {QUOTA_FIELD_MAX:,}, not {value!r}.",
                    field=f"limits.{field.name}",
                )

    def admits(self, request: Request) -> bool:
        """Tell whether a task that asks for so much can ever run; if not, it is refused at submission."""
        return request.memory_mb <= self.memory_mb and request.cpu_millis <= self.cpu_millis


UNLIMITED = Limits(max_concurrent=QUOTA_FIELD_MAX, memory_mb=QUOTA_FIELD_MAX, cpu_millis=QUOTA_FIELD_MAX)
"""For a queue that only its cohort limits."""


def limits_of(quota: ResourceQuota, capacity: Capacity) -> Limits:
    """Turn a quota into limits: its CPU percentage is one of the whole capacity."""
    return Limits(
        max_concurrent=quota.max_concurrent_tasks,
        memory_mb=quota.max_memory_mb,
        cpu_millis=max(1, capacity.cpu_millis * quota.max_cpu_percent // 100),
        per_hour=quota.max_tasks_per_hour,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortShare:
    """Say how a sub-tenant shares its parent's quota (the figures of Kueue's cohorts).

    Attributes:
        nominal: what it gets whenever it wants it: within this it goes before those that borrow.
        borrowing: how much more it may take when nobody else wants it; None for up to its own limits.
        lending: how much of `nominal` others may take while it is not used; None for all of it.

    Raises:
        InvalidRequest: a figure is no `Capacity` of whole numbers from 0 on, more is lent than there is, or what may be
            used has no slot.
    """

    nominal: Capacity
    borrowing: Capacity | None = None
    lending: Capacity | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None or field.name == "nominal":
                _check_capacity(f"share.{field.name}", value)
        if self.lending is not None and any(o > n for n, o in zip(self.nominal, self.lending, strict=True)):
            raise InvalidRequest(
                f"share.lending is a part of share.nominal, and {self.lending} is more than {self.nominal}.",
                field="share.lending",
            )
        if self.borrowing is not None and self.nominal.slots + self.borrowing.slots < 1:
            raise InvalidRequest(
                "share.nominal and share.borrowing have no slot together, so nothing could ever run. Give one of them "
                "a slot.",
                field="share.nominal",
            )

    def ceiling(self, limits: Limits) -> Capacity:
        """Give the most that the sub-tenant may use."""
        own = Capacity(limits.max_concurrent, limits.memory_mb, limits.cpu_millis)
        if self.borrowing is None:
            return own
        return Capacity(*(min(o, n + b) for o, n, b in zip(own, self.nominal, self.borrowing, strict=True)))

    def guaranteed(self) -> Capacity:
        """Give what is kept free for the sub-tenant even while it does not use it."""
        if self.lending is None:
            return NOTHING
        return Capacity(*(max(0, n - o) for n, o in zip(self.nominal, self.lending, strict=True)))


def _check_capacity(name: str, value: object) -> None:
    if not isinstance(value, Capacity):
        raise InvalidRequest(f"{name} must be a Capacity(slots, memory_mb, cpu_millis), not {value!r}.", field=name)
    for part, amount in value._asdict().items():
        if not isinstance(amount, int) or isinstance(amount, bool) or not 0 <= amount <= QUOTA_FIELD_MAX:
            raise InvalidRequest(
                f"{name}.{part} must be a whole number from 0 to {QUOTA_FIELD_MAX:,}, not {amount!r}.",
                field=f"{name}.{part}",
            )


class SubmissionRate:
    """Admit so many submissions per second (GCRA, ITU-T I.371: one timestamp, no timer).

    Whatever the interval of t seconds, no more than `burst + rate * t` are admitted. The timestamp is kept in
    nanoseconds times the rate, so that nothing is rounded. A clock that steps back finds the burst used up.

    Args:
        per_second: the rate, at least 1.
        burst: how many may come at once; None for as many as come in a second.
    """

    __slots__ = ("_due", "burst", "per_second")

    def __init__(self, per_second: int, burst: int | None = None) -> None:
        burst = per_second if burst is None else burst
        if per_second < 1 or burst < 1:
            raise InvalidRequest("A rate and its burst must be whole numbers from 1 on.", field="rate_limit_per_second")
        self.per_second = per_second
        self.burst = burst
        self._due: int | None = None

    def retry_after(self, now: Instant) -> int:
        """Give the nanoseconds after which a submission would be admitted, 0 for now; take nothing."""
        if self._due is None:
            return 0
        early = self._ahead(now) - (self.burst - 1) * SECOND
        return -(-early // self.per_second) if early > 0 else 0

    def take(self, now: Instant) -> None:
        """Count a submission, whether or not it would have been admitted."""
        present = now * self.per_second
        self._due = present + min(max(0, self._ahead(now)) + SECOND, self.burst * SECOND)

    def admit(self, now: Instant) -> int:
        """Count a submission if it is admitted; give 0, or the nanoseconds after which to try again.

        The same as `retry_after` and then `take`, in one step: it is on the way of each submission.
        """
        present = now * self.per_second
        most = self.burst * SECOND
        ahead = 0 if self._due is None else min(max(0, self._due - present), most)
        early = ahead + SECOND - most
        if early > 0:
            self._due = present + ahead
            return -(-early // self.per_second)
        self._due = present + ahead + SECOND
        return 0

    def set_rate(self, per_second: int, burst: int | None, now: Instant) -> None:
        """Change the rate; what was used of the burst stays used."""
        used = max(0, self._ahead(now))
        fresh = SubmissionRate(per_second, burst)
        self.per_second, self.burst = fresh.per_second, fresh.burst
        self._due = now * self.per_second + min(used, self.burst * SECOND)

    def _ahead(self, now: Instant) -> int:
        """Give how far the timestamp is ahead; more than the burst means that the clock was set back."""
        if self._due is None:
            return 0
        present = now * self.per_second
        self._due = min(self._due, present + self.burst * SECOND)
        return self._due - present


class Reservation(NamedTuple):
    """Starts that may be used once the rows are written down.

    Attributes:
        minute: for which minute (since 1970).
        starts: how many.
        rows: pairs (minute, starts) to be written in one transaction, each in place of an older row of that minute.
    """

    minute: int
    starts: int
    rows: tuple[tuple[int, int], ...]


class RollingHour:
    """Admit at most `limit` starts in any rolling hour, also across a crash.

    Starts are counted by minutes of the clock, and the 61 minutes that an hour can touch are summed. They are reserved
    in chunks which the caller writes down before they are used; after a restart everything reserved counts as used. A
    chunk is good for its minute only; what was not used of it is given back with the next reservation, so that a crash
    wastes no more than the last chunk and a half. A clock that steps back stands still here.

    Attributes:
        limit: may be changed at any time by `set_limit`.
        left: starts that are reserved and not used yet; good before `until`.
        spent: starts in the 61 minutes.
        low: with so many left, the next chunk is to be asked for.
        until: the end of the present minute.
        bucket: the present minute and its starts.
    """

    __slots__ = (
        "_asked",
        "_minute",
        "_minutes",
        "_wasted",
        "bucket",
        "chunk",
        "left",
        "limit",
        "low",
        "spent",
        "until",
    )

    def __init__(self, limit: int) -> None:
        self.left = 0
        self.spent = 0
        self.until: Instant = 0
        self._minute = -1
        self._minutes: list[list[int]] = []
        self.bucket = [-1, 0]
        self._wasted: set[int] = set()
        self._asked: Reservation | None = None
        self.set_limit(limit)

    def set_limit(self, limit: int) -> None:
        """Change the limit, at once; fewer than have started already is legal, nothing starts then."""
        assert limit >= 1
        self.limit = limit
        self.chunk = max(1, limit // CHUNKS_PER_LIMIT, min(SMALL_CHUNK, limit // 20))
        self.low = self.chunk // 2

    def turn(self, now: Instant) -> None:
        """Go on to the minute of `now`; what was left of the minute before is not good any more."""
        minute = now // MINUTE
        if minute <= self._minute:
            return
        if self.left:
            self._wasted.add(self._minute)
            self.left = 0
        self._minute = minute
        self.until = (minute + 1) * MINUTE
        minutes = self._minutes
        self._forget_before(minute - WINDOW_MINUTES)
        self.bucket = [minute, 0]
        minutes.append(self.bucket)

    def has_room(self, now: Instant) -> bool:
        """Tell whether a start is reserved and allowed now; take nothing."""
        if now >= self.until:
            self.turn(now)
        return self.left > 0 and self.spent < self.limit

    def take(self, now: Instant) -> bool:
        """Use up one reserved start; False if there is none or the hour is full."""
        if not self.has_room(now):
            return False
        self.use()
        return True

    def use(self) -> None:
        """Use up one reserved start, for which there is room."""
        self.left -= 1
        self.spent += 1
        self.bucket[1] += 1

    def next_room(self, now: Instant) -> Instant:
        """Give the earliest moment when the hour is not full, `now` if it is not."""
        if now >= self.until:
            self.turn(now)
        excess = self.spent - self.limit + 1
        if excess <= 0:
            return now
        for minute, starts in self._minutes:
            excess -= starts
            if excess <= 0:
                return (minute + WINDOW_MINUTES) * MINUTE
        raise AssertionError("more was spent than the minutes hold")

    def needs_reservation(self, now: Instant) -> Reservation | None:
        """Give what should be written down next; None if enough is left, the hour is full, or one is on its way."""
        if now >= self.until:
            self.turn(now)
        if self._asked is not None or self.left > self.low:
            return None
        room = min(self.chunk, self.limit - self.spent - self.left)
        if room <= 0:
            return None
        counts = {bucket[0]: bucket[1] for bucket in self._minutes}
        rows = [(minute, counts[minute]) for minute in sorted(self._wasted & counts.keys()) if minute != self._minute]
        rows.append((self._minute, counts[self._minute] + self.left + room))
        self._wasted.clear()
        self._asked = Reservation(self._minute, room, tuple(rows))
        return self._asked

    def reserved(self, reservation: Reservation) -> None:
        """Take note that the rows are written: the starts may be used, if their minute is not over."""
        self._asked = None
        if reservation.minute == self._minute:
            self.left += reservation.starts
        else:
            self._wasted.add(reservation.minute)

    def not_reserved(self, reservation: Reservation) -> None:
        """Take note that the rows could not be written, or that nobody knows; they may be asked for again."""
        self._asked = None
        self._wasted.update(minute for minute, _ in reservation.rows)

    def rows(self) -> list[tuple[int, int]]:
        """Give the starts of each minute that counts, oldest first."""
        return [(minute, starts) for minute, starts in self._minutes if starts]

    def restore(self, rows: Iterable[tuple[int, int]]) -> None:
        """Begin with what was written down before; all of it counts as used."""
        assert not self._minutes, "a used counter is not restored"
        for minute, starts in sorted(rows):
            self.bucket = [minute, starts]
            self._minutes.append(self.bucket)
            self.spent += starts
            self._minute = minute
            self.until = (minute + 1) * MINUTE
        self._forget_before(self._minute - WINDOW_MINUTES)

    def _forget_before(self, minute: int) -> None:
        """Take back what started in this minute and before it."""
        minutes = self._minutes
        while minutes and minutes[0][0] <= minute:
            self.spent -= minutes.pop(0)[1]
