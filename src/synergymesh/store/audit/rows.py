"""Rows of the audit log: groups of entries (see `domain.audit.groups`), packed when written and unpacked when read.

Canonical JSON has no line breaks, so the payloads of a group are lines. The row has the number in the chain and the
place in the log of its last entry; those before it have the ones before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import msgspec
import sqlalchemy as sa

from synergymesh.domain.audit.forms import HASH_BYTES
from synergymesh.domain.audit.groups import GROUP_ENTRIES_MAX, is_kept_together, is_of_run
from synergymesh.domain.audit.retention import DAY
from synergymesh.domain.instants import Instant
from synergymesh.domain.states import ExecutionStatus
from synergymesh.ports.audit import AuditEntryRecord
from synergymesh.ports.changes import RunCreated, RunFinished, TaskFinished
from synergymesh.store.audit.entries import Entry, run_submitted
from synergymesh.store.schema import audit_entries

_DONE = ExecutionStatus.SUCCESS

NOBODY = object()
"""Stands for the actor of no submission; None is one."""

D = TypeVar("D", TaskFinished, RunFinished)

COLUMNS = (
    *("entry_id", "tenant_id", "seq", "first_at", "at", "action", "entity", "version"),
    *("actor", "outcome", "payload", "hash"),
)

ENTRIES = f"length({audit_entries.name}.hash) / {HASH_BYTES}"
"""The SQL of how many entries a row has."""


class Group:
    """Entries of one chain that follow each other and go into one row.

    Attributes:
        by: whose submissions they are; `NOBODY` if they are none.
    """

    __slots__ = (
        *("action", "actor", "at", "by", "day_begins", "day_ends", "entity", "first_at", "is_open", "outcome"),
        *("payloads", "version"),
    )

    def __init__(self, entry: Entry) -> None:
        _, at, action, entity, version, actor, outcome, payload = entry
        self.first_at = self.at = at
        self.action, self.actor, self.outcome = action, actor, outcome
        of_run = is_of_run(entity)
        self.entity, self.version = ("", 0) if of_run else (entity, version)
        self.is_open = of_run and is_kept_together(action, outcome)
        self.day_begins = at - at % DAY
        self.day_ends = self.day_begins + DAY
        self.payloads = [payload]
        self.by: object = NOBODY

    def takes_done(self, change: D, action: str, payload_of: Callable[[D], bytes]) -> bool:
        """Add the entry of a task or a run that succeeded, if the one before is that of such a one too.

        Nearly all entries are these. `takes` gives the same, and takes half as long again.
        """
        if (
            self.action == action
            and self.is_open
            and change.status is _DONE
            and change.error is None
            and self._reaches(change.ended_at)
        ):
            self.payloads.append(payload_of(change))
            return True
        return False

    def takes_submitted(self, change: RunCreated) -> bool:
        """Add the entry of a submission, if the one before is that of one by the very same actor.

        Each run has one. `takes` gives the same, and takes half as long again.
        """
        if change.by is self.by and self.is_open and self._reaches(change.created_at):
            self.payloads.append(run_submitted(change, self.actor))
            return True
        return False

    def takes(self, entry: Entry) -> bool:
        """Add an entry of the same chain that follows, if it belongs to the group."""
        _, at, action, entity, _, actor, outcome, payload = entry
        if (
            self.is_open
            and action == self.action
            and actor == self.actor
            and outcome == self.outcome
            and is_of_run(entity)
            and self._reaches(at)
        ):
            self.payloads.append(payload)
            return True
        return False

    def _reaches(self, at: Instant) -> bool:
        """Take one more moment into the group's time, if there is room and it is of the same day."""
        if not self.day_begins <= at < self.day_ends or len(self.payloads) >= GROUP_ENTRIES_MAX:
            return False
        if at > self.at:
            self.at = at
        elif at < self.first_at:
            self.first_at = at
        return True


def pack(
    tenant_id: str, groups: Sequence[Group], seq: int, place: int, hashes: Sequence[bytes]
) -> list[tuple[object, ...]]:
    """Give the rows of groups that follow the entry with this number, and this place in the log."""
    rows: list[tuple[object, ...]] = []
    of_entries = iter(hashes)
    for group in groups:
        payloads = group.payloads
        count = len(payloads)
        seq += count
        place += count
        rows.append(
            (
                *(place, tenant_id, seq, group.first_at, group.at, group.action, group.entity, group.version),
                *(group.actor, group.outcome, b"\n".join(payloads), b"".join(islice(of_entries, count))),
            )
        )
    return rows


class AuditRowRecord(msgspec.Struct, frozen=True, gc=False):
    """A row as stored; a database lets anything stand in a column."""

    entry_id: int
    tenant_id: str
    seq: int
    first_at: Instant
    at: Instant
    action: str
    entity: str
    version: int
    actor: str
    outcome: str
    payload: bytes
    hash: bytes


assert AuditRowRecord.__struct_fields__ == COLUMNS

SELECT = sa.select(*(audit_entries.c[name] for name in COLUMNS))


class _Said(msgspec.Struct, gc=False):
    at: Instant
    entity: str
    version: int


_decode = msgspec.json.Decoder(_Said).decode


def unpack(row: AuditRowRecord) -> Iterator[AuditEntryRecord]:
    """Give the entries of a row, the last one first; what a payload does not say any more, the row says."""
    payloads = row.payload.split(b"\n")
    for back in range(len(row.hash) // HASH_BYTES):
        number = len(payloads) - 1 - back
        payload = payloads[number] if number >= 0 else b""
        end = len(row.hash) - back * HASH_BYTES
        try:
            said = _decode(payload)
            at, entity, version = said.at, said.entity, said.version
        except msgspec.MsgspecError:  # `synergymesh audit verify` says what happened to it
            at, entity, version = row.at, row.entity, row.version
        yield AuditEntryRecord(
            *(row.entry_id - back, row.tenant_id, row.seq - back, at, row.action, entity, version),
            *(row.actor, row.outcome, payload, row.hash[end - HASH_BYTES : end]),
        )
