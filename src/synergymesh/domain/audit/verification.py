"""Verify the audit log: find the first entry of a chain that is not what was sealed, and say what happened to it.

Pure, and the standard library only. A chain is followed from its genesis, over the gaps that tombstones account for,
to its head. It proves that nothing was changed *inside*; that the chain as a whole was not written anew is proved by
pins: heads that signed checkpoints name.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from itertools import chain
from struct import Struct
from typing import Any

from synergymesh.domain.audit.forms import (
    HASH_BYTES,
    Gap,
    Head,
    chain_hash,
    chain_prefix,
    genesis_hash,
)

SHIFT_MAX = 64
"""Entries removed in a row that are recognised when those behind them were renumbered; more are called changed."""

_LINK = Struct(">IQI32sI")


class Damage(StrEnum):
    """Name what happened to the log."""

    CHANGED = "changed"
    """An entry is not what was sealed."""
    MISSING = "missing"
    """Entries are gone, and no tombstone accounts for them."""
    REORDERED = "reordered"
    """Entries stand in each other's places."""
    INSERTED = "inserted"
    """An entry was never sealed here."""
    DUPLICATE = "duplicate"
    """A number is there twice."""
    FOREIGN = "foreign"
    """An entry belongs to another tenant."""
    FORKED = "forked"
    """There is another history than the one that was signed."""
    TRUNCATED = "truncated"
    """The newest entries or checkpoints are gone."""
    ROLLED_BACK = "rolled_back"
    """The whole log is an older one, from a backup say."""
    PRUNED_UNDER_HOLD = "pruned_under_hold"
    """Entries were pruned while a legal hold forbade it."""
    UNSIGNED = "unsigned"
    """A signature is missing or cut off."""
    BAD_SIGNATURE = "bad_signature"
    """A signature is not over what it stands beside."""
    WRONG_KEY = "wrong_key"
    """Something is signed by a key that is not trusted."""
    REPLACED_KEY = "replaced_key"
    """Something is signed by a key that had been replaced before."""
    WRONG_LOG = "wrong_log"
    """Something belongs to another log."""
    UNREADABLE = "unreadable"
    """A checkpoint, a tombstone or a line is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Describe the first bad place of a chain, or of the checkpoints.

    Attributes:
        damage: the kind.
        tenant_id: whose chain; None for the checkpoints and the log as a whole.
        seq: the first bad entry's number (of a checkpoint: its number); None where there is none.
        since: the first number that may be affected, where the damage can only be narrowed down to a range.
        detail: one sentence for people.
    """

    damage: Damage
    tenant_id: str | None
    seq: int | None
    detail: str
    since: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainReport:
    """What was found out about one chain.

    Attributes:
        tenant_id: whose.
        entries: how many were followed.
        pruned: how many are accounted for by tombstones.
        head: the last good entry.
        pinned: the number of the last entry that a checkpoint vouches for; what is behind it could be rewritten by
            somebody who has the database.
        finding: the first bad entry, or None.
    """

    tenant_id: str
    entries: int
    pruned: int
    head: Head
    pinned: int
    finding: Finding | None


Row = Sequence[Any]
"""Number, hash and payload of an entry; behind them whatever `disagrees` looks at."""


def verify_chain(
    log_id: str,
    tenant_id: str,
    rows: Iterable[Row],
    *,
    pins: Mapping[int, bytes] | None = None,
    gaps: Sequence[Gap] = (),
    recorded: Head | None = None,
    is_recorded: bool = False,
    start: Head | None = None,
    shows_start: bool = False,
    disagrees: Callable[[Row], str | None] | None = None,
) -> ChainReport:
    """Follow a chain and report its first bad entry.

    Args:
        log_id: of the log.
        tenant_id: whose chain.
        rows: in the order of their numbers.
        pins: hashes that signed checkpoints name, by number.
        gaps: what signed tombstones account for, ascending.
        recorded: the head that the database has beside the entries.
        is_recorded: whether there has to be one.
        start: the entry behind which to begin; the genesis when None.
        shows_start: whether that entry is the first one of `rows`, unless it was pruned.
        disagrees: says what is wrong with what stands beside a payload that is good itself.
    """
    walk = _Walk(log_id, tenant_id, pins or {}, gaps, start, disagrees)
    given = iter(rows)
    finding = None
    if shows_start:
        first = next(given, None)
        finding = walk.look_at_start(first, recorded)
        if first is not None and first[0] != walk.begin:
            given = chain([first], given)
    finding = finding or walk.follow(given) or walk.jump() or walk.end(recorded, is_recorded)
    return ChainReport(
        tenant_id=tenant_id,
        entries=walk.entries,
        pruned=walk.pruned,
        head=Head(tenant_id, walk.seq, walk.hash),
        pinned=walk.pinned,
        finding=finding,
    )


class _Walk:
    """One way along one chain."""

    def __init__(
        self,
        log_id: str,
        tenant_id: str,
        pins: Mapping[int, bytes],
        gaps: Sequence[Gap],
        start: Head | None,
        disagrees: Callable[[Row], str | None] | None,
    ) -> None:
        self.tenant_id = tenant_id
        self.pins = pins
        self.pinned_numbers = sorted(pins)
        self.gaps = sorted(gaps, key=lambda gap: gap.first)
        self.next_gap = 0  # those before it end behind us
        self.disagrees = disagrees
        self.seq = 0 if start is None else start.seq
        self.begin = self.seq
        self.hash = genesis_hash(log_id, tenant_id) if start is None else start.hash
        self.pinned = 0 if start is None else start.seq
        self.entries = 0
        self.pruned = 0

    def look_at_start(self, row: Row | None, recorded: Head | None) -> Finding | None:
        """Say what is wrong with the entry behind which to begin, which is the first row unless it was pruned."""
        start = self.seq
        if row is not None and row[0] == start:
            return None if row[1] == self.hash else self.forked(start)
        if any(gap.first <= start <= gap.last for gap in self.gaps):
            return None
        if row is not None:
            return self.finding(Damage.MISSING, "is gone, behind which to begin", seq=start)
        if recorded is None:
            return self.finding(Damage.MISSING, "and all others are gone, behind which to begin", seq=start)
        older = recorded.seq < start
        return self.finding(
            Damage.ROLLED_BACK if older else Damage.TRUNCATED,
            f"and what followed is gone; a checkpoint has {start:,} entries",
            seq=min(start, recorded.seq + 1),
        )

    def follow(self, rows: Iterator[Row]) -> Finding | None:
        """Go along the entries; `self` stands at the last good one afterwards."""
        prefix, pack, size = chain_prefix(self.tenant_id), _LINK.pack, HASH_BYTES
        pins, disagrees = self.pins, self.disagrees
        seq, before = self.seq, self.hash
        first = seq
        for row in rows:
            number, found, payload = row[:3]
            if number != seq + 1:
                self.stand(seq, before, first)
                finding = self.jump(number) if _is_number(number) and number > seq + 1 else None
                if finding is None and number == self.seq + 1:
                    first = seq = self.seq
                    before = self.hash
                else:
                    return finding or self.out_of_place(row, rows)
            try:
                link = pack(8, number, size, before, len(payload)) + payload
            except TypeError:  # a database lets anything stand in a column
                self.stand(seq, before, first)
                return self.finding(Damage.CHANGED, "is no entry: its payload is not in bytes", seq=number)
            expected = sha256(prefix + link).digest()
            if expected != found:
                self.stand(seq, before, first)
                return self.classify(row, expected, rows)
            if disagrees is not None and (why := disagrees(row)) is not None:
                self.stand(seq, before, first)
                return self.finding(Damage.CHANGED, why, seq=number)
            pin = pins.get(number)
            if pin is not None:
                if pin != found:
                    self.stand(seq, before, first)
                    return self.forked(number)
                self.pinned = number
            seq, before = number, found
        self.stand(seq, before, first)
        return None

    def stand(self, seq: int, before: bytes, first: int) -> None:
        """Write down how far the way went since `first`."""
        self.entries += seq - first
        self.seq, self.hash = seq, before

    def jump(self, until: int | None = None) -> Finding | None:
        """Go over the gaps that begin here, up to the next entry that is there (None for none).

        What is pruned is deleted later, from its end: entries of a gap may be there, or those at its beginning.
        """
        gaps, pinned = self.gaps, self.pinned_numbers
        while self.next_gap < len(gaps) and gaps[self.next_gap].first <= self.seq + 1:
            if until is not None and self.seq + 1 >= until:
                break
            gap = gaps[self.next_gap]
            self.next_gap += 1
            if gap.last <= self.seq:
                continue
            if gap.first == self.seq + 1 and gap.previous != self.hash:
                return self.finding(Damage.FORKED, "does not follow the entry before it, as its tombstone has it")
            end = bisect_right(pinned, gap.last)
            if end and pinned[end - 1] > self.seq:
                number = pinned[end - 1]
                if number == gap.last and self.pins[number] != gap.head:
                    self.pinned = max(self.pinned, *pinned[max(0, end - 2) : end - 1], 0)
                    self.seq = number - 1
                    return self.forked(number)
                self.pinned = number
            self.pruned += gap.last - self.seq
            self.seq, self.hash = gap.last, gap.head
        return None

    def end(self, recorded: Head | None, is_recorded: bool) -> Finding | None:
        """Compare the end of the way with the checkpoints and with the head that is recorded."""
        last = self.pinned_numbers[-1] if self.pinned_numbers else 0
        if last > self.seq:
            if self.seq == 0:
                return self.finding(Damage.MISSING, f"and all others are gone; a checkpoint has {last:,}", seq=1)
            older = recorded is not None and recorded.seq <= self.seq
            return self.finding(
                Damage.ROLLED_BACK if older else Damage.TRUNCATED,
                f"and what followed is gone; a checkpoint has {last:,} entries",
            )
        if recorded is None:
            if not is_recorded or not self.seq:
                return None
            return self.finding(Damage.TRUNCATED, "may have been there: where the chain ends is recorded no more")
        if recorded.seq < self.begin:
            return self.finding(
                Damage.ROLLED_BACK,
                f"is the last one that the chain says it has; a checkpoint has {self.begin:,}",
                seq=recorded.seq,
            )
        if recorded.seq > self.seq:
            return self.finding(Damage.TRUNCATED, f"and what followed is gone; {recorded.seq:,} were sealed")
        if recorded.seq < self.seq:
            return self.finding(
                Damage.INSERTED, f"stands behind the last one that was sealed, {recorded.seq:,}", seq=recorded.seq + 1
            )
        if recorded.seq == self.seq and recorded.hash != self.hash:
            return self.finding(Damage.FORKED, "has another hash than the recorded head", seq=max(1, self.seq))
        return None

    # --- what happened --------------------------------------------------------------------------------------------

    def finding(self, damage: Damage, detail: str, *, seq: int | None = None, since: int | None = None) -> Finding:
        seq = self.seq + 1 if seq is None else seq
        return Finding(damage=damage, tenant_id=self.tenant_id, seq=seq, since=since, detail=f"entry {seq:,} {detail}.")

    def forked(self, number: int) -> Finding:
        end = bisect_right(self.pinned_numbers, min(number - 1, self.pinned))
        since = (self.pinned_numbers[end - 1] if end else self.begin) + 1
        return self.finding(
            Damage.FORKED,
            f"is not the one that a checkpoint signed: the chain was written anew somewhere from {since:,} on",
            seq=number,
            since=since,
        )

    def out_of_place(self, row: Row, rows: Iterator[Row]) -> Finding:
        """Say what is wrong with an entry whose number is not the next one."""
        number = row[0]
        if not _is_number(number):
            return self.finding(Damage.CHANGED, "has no number")
        if (owner := tenant_of(row[2])) is not None and owner != self.tenant_id:
            return self.finding(Damage.FOREIGN, f"belongs to {_name(owner)}", seq=number)
        if number <= self.seq:
            if any(gap.first <= number <= gap.last for gap in self.gaps):
                return self.finding(Damage.INSERTED, "is there although it was pruned", seq=number)
            return self.finding(Damage.DUPLICATE, "is there twice", seq=number)
        if any(later[0] == self.seq + 1 for later in rows):
            return self.finding(Damage.REORDERED, "stands behind a later one")
        many = f"and {number - self.seq - 2:,} more are" if number > self.seq + 2 else "is"
        return self.finding(Damage.MISSING, f"{many} gone, and no tombstone accounts for it")

    def classify(self, row: Row, expected: bytes, rows: Iterator[Row]) -> Finding:
        """Say what is wrong with an entry whose hash does not follow from it; reads the rest of the rows."""
        number, found, payload = row[:3]
        if (owner := tenant_of(payload)) is not None and owner != self.tenant_id:
            return self.finding(Damage.FOREIGN, f"belongs to {_name(owner)}", seq=number)
        before: Row = row
        for place, later in enumerate(rows):
            if not _is_row(later):
                continue
            theirs = later[2]
            fits = chain_hash(self.tenant_id, number, self.hash, theirs)
            if fits == found:
                return self.finding(Damage.REORDERED, f"has the payload of entry {later[0]:,} and theirs is there")
            if fits == later[1]:
                if later[0] == number:
                    return self.finding(Damage.DUPLICATE, "is there twice")
                previous = later[1] if place == 0 else before[1]
                if isinstance(previous, bytes) and len(previous) == HASH_BYTES:
                    at_home = chain_hash(self.tenant_id, later[0], previous, payload)
                    if at_home == found:
                        return self.finding(Damage.REORDERED, f"has changed places with entry {later[0]:,}")
                return self.finding(Damage.INSERTED, "was never sealed; the right one stands behind it")
            if place == 0:
                if isinstance(found, bytes) and len(found) == HASH_BYTES:
                    for shift in range(1, SHIFT_MAX + 1):
                        if chain_hash(self.tenant_id, number + 1 + shift, found, theirs) == later[1]:
                            gone = "is gone" if shift == 1 else f"and {shift - 1:,} more are gone"
                            return self.finding(Damage.MISSING, f"{gone}, and those behind were renumbered")
                if chain_hash(self.tenant_id, number + 1, expected, theirs) == later[1]:
                    return self.finding(Damage.CHANGED, "has another hash than the one that was sealed")
            before = later
        return self.finding(Damage.CHANGED, "is not what was sealed")


def tenant_of(payload: object) -> str | None:
    """Give the tenant that a payload names; None if it is no payload."""
    try:
        fields = json.loads(payload) if isinstance(payload, (bytes, str)) else None
    except (ValueError, RecursionError):
        return None
    value = fields.get("tenant_id") if isinstance(fields, dict) else None
    return value if isinstance(value, str) else None


def _name(tenant_id: str) -> str:
    return repr(tenant_id) if tenant_id else "the mesh"


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_row(row: Row) -> bool:
    return _is_number(row[0]) and isinstance(row[2], bytes)


# --- the log as a whole ---------------------------------------------------------------------------------------------


class Verdict(StrEnum):
    """Name what was found out about a log as a whole."""

    INTACT = "intact"
    """Nothing is wrong, and something signed speaks for it."""
    UNPROVEN = "unproven"
    """Nothing is wrong inside, and nothing signed speaks for it."""
    DAMAGED = "damaged"
    """Something is wrong."""


@dataclass(slots=True, kw_only=True)
class LogReport:
    """What was found out about a whole log, or about the part that was asked for.

    Attributes:
        log_id: of the log.
        chains: how many chains were followed.
        entries: how many entries were followed.
        pruned: how many are accounted for by tombstones.
        unpinned: how many are behind the last checkpoint that was given.
        checkpoints: how many were verified.
        is_proven: whether anything signed speaks for it. Where nothing does, somebody who has the database may have
            written all of it anew.
        findings: the first bad place of each chain, those of the checkpoints first.
        notes: what is wrong with checkpoints before the one from which on was verified; no part of the verdict.
    """

    log_id: str
    chains: int = 0
    entries: int = 0
    pruned: int = 0
    unpinned: int = 0
    checkpoints: int = 0
    is_proven: bool = False
    findings: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)

    @property
    def is_intact(self) -> bool:
        """Whether nothing was found to be wrong; what that is worth says `is_proven`."""
        return not self.findings

    @property
    def verdict(self) -> Verdict:
        """What was found out, in a word."""
        if self.findings:
            return Verdict.DAMAGED
        return Verdict.INTACT if self.is_proven else Verdict.UNPROVEN

    def add(self, chain: ChainReport) -> None:
        """Add what was found out about one chain."""
        self.chains += 1
        self.entries += chain.entries
        self.pruned += chain.pruned
        self.unpinned += max(0, chain.head.seq - chain.pinned)
        self.is_proven = self.is_proven or chain.pinned > 0
        if chain.finding is not None:
            self.findings.append(chain.finding)
