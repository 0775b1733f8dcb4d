"""Which entries of a chain may be deleted: by whole days, what is sensitive later than the rest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from synergymesh.domain.audit.forms import Gap

DAY = 86_400_000_000_000
"""Nanoseconds."""

AUDIT_DAYS_DEFAULT = 90
AUDIT_SENSITIVE_DAYS_DEFAULT = 365
"""What is about power and access is asked for in yearly audits."""

AUDIT_DAYS_MAX = 36_500

GAPS_MAX = 10_000
"""Gaps of one tombstone: two megabytes. A day with more has several tombstones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How many days entries are kept.

    Attributes:
        days: daily work.
        sensitive_days: what is about power or access; at least as long.
    """

    days: int = AUDIT_DAYS_DEFAULT
    sensitive_days: int = AUDIT_SENSITIVE_DAYS_DEFAULT

    def last_day(self, now: int, *, sensitive: bool) -> int:
        """Give the last day (since 1970) whose entries may go: it has been over for the whole time."""
        days = max(self.days, self.sensitive_days) if sensitive else self.days
        return now // DAY - days - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What is pruned of one day of a chain, in one tombstone."""

    day: str
    gaps: tuple[Gap, ...]


def plan_pruning(
    rows: Iterable[tuple[int, bytes, int, bool | None]],
    genesis: bytes,
    pruned: Sequence[Gap],
    retention: Retention,
    now: int,
) -> Iterator[Pruned]:
    """Say what of a chain may be deleted.

    An entry belongs to the latest day that it or an entry before it has, so that days are whole pieces of the chain
    whatever clocks did.

    Args:
        rows: number, hash, time and whether it is sensitive, of what is left of the chain, in its order. None of what
            is never deleted: the entries that name tombstones, which are kept as long as those are.
        genesis: what the first entry follows.
        pruned: gaps that are there already; entries of them that are not deleted yet are counted no second time.
        retention: how long entries are kept.
        now: nanoseconds since 1970.

    Raises:
        ValueError: entries are missing.
    """
    last_routine = retention.last_day(now, sensitive=False)
    last_sensitive = retention.last_day(now, sensitive=True)
    pruned_ends = {gap.last: gap.head for gap in pruned}
    before = iter(sorted(pruned, key=lambda gap: gap.first))
    there = next(before, None)
    gaps: list[Gap] = []
    day = 0
    before_seq, before_hash = 0, genesis
    for seq, hash_, at, sensitive in rows:
        this_day = max(day, at // DAY)
        if gaps and (this_day != day or len(gaps) > GAPS_MAX):
            yield Pruned(day=_name(day), gaps=tuple(gaps))
            gaps = []
        day = this_day
        if day > last_routine:
            break
        while there is not None and there.last < seq:
            there = next(before, None)
        if there is not None and there.first <= seq:
            continue
        if seq != before_seq + 1:
            if seq - 1 not in pruned_ends:
                raise ValueError(
                    f"entries {before_seq + 1:,} to {seq - 1:,} are gone, and no tombstone accounts for them"
                )
            before_hash = pruned_ends[seq - 1]
        if sensitive is not None and day <= (last_sensitive if sensitive else last_routine):
            if gaps and gaps[-1].last == seq - 1:
                last = gaps.pop()
                gaps.append(Gap(first=last.first, last=seq, previous=last.previous, head=hash_))
            else:
                gaps.append(Gap(first=seq, last=seq, previous=before_hash, head=hash_))
        before_seq, before_hash = seq, hash_
    if gaps:
        yield Pruned(day=_name(day), gaps=tuple(gaps))


def _name(day: int) -> str:
    return datetime.fromtimestamp(day * 86_400, UTC).strftime("%Y-%m-%d")
