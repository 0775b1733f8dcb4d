"""What is kept beside the entries of the audit log: tombstones, holds, keys of personal data; and deleting by them."""

from __future__ import annotations

import json
import sqlite3
from bisect import bisect_left
from collections.abc import Sequence
from operator import itemgetter
from time import perf_counter
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from synergymesh.domain.audit.forms import Gap, read_tombstone
from synergymesh.domain.instants import Instant
from synergymesh.ports.audit_keeping import HoldRecord, TombstoneRecord
from synergymesh.ports.changes import Noted
from synergymesh.store.audit.rows import ENTRIES
from synergymesh.store.audit.writes import Trail
from synergymesh.store.reads import Query
from synergymesh.store.schema import audit_entries, audit_holds, audit_subject_keys, audit_tombstones
from synergymesh.store.space import cut_log
from synergymesh.store.statements import compile_query
from synergymesh.store.transactions import transaction

DELETE_SECONDS = 0.01
"""How long the entries of one transaction may be deleted: a commit waits that long behind it."""

DELETE_ENTRIES = 500
"""Entries that are deleted between two looks at the time: one or two milliseconds."""

_TENANT: sa.BindParameter[str] = sa.bindparam("tenant_id")

_TOMBSTONES = Query(
    TombstoneRecord,
    sa.select(*(audit_tombstones.c[name] for name in TombstoneRecord.__struct_fields__)).where(
        audit_tombstones.c.tenant_id == _TENANT
    ),
    order=itemgetter(1, 2),
)
_ADD_TOMBSTONE = compile_query(
    sqlite.insert(audit_tombstones)
    .values(
        {name: sa.bindparam(name) for name in TombstoneRecord.__struct_fields__} | {"pending": sa.literal_column("1")}
    )
    .on_conflict_do_nothing()
)
_PENDING = compile_query(
    sa.select(*(audit_tombstones.c[name] for name in TombstoneRecord.__struct_fields__))
    .where(sa.text("pending = 1"), audit_tombstones.c.tenant_id.not_in(sa.select(audit_holds.c.tenant_id)))
    .order_by(audit_tombstones.c.tenant_id, audit_tombstones.c.first_seq)
    .limit(sa.literal_column("1"))
)
_DONE = compile_query(
    sa.update(audit_tombstones)
    .values(pending=sa.literal_column("0"))
    .where(
        audit_tombstones.c.tenant_id == _TENANT,
        audit_tombstones.c.first_seq == sa.bindparam("first"),
        audit_tombstones.c.last_seq == sa.bindparam("last"),
    )
)
# From the end of a gap: what is left of it after a crash still follows what is before it. A gap ends where a row does:
# the entries of a row are of one day, and are all kept equally long.
_CHOSEN = compile_query(
    sa.select(audit_entries.c.entry_id, sa.literal_column(ENTRIES))
    .where(
        audit_entries.c.tenant_id == _TENANT,
        audit_entries.c.seq <= sa.bindparam("last"),
        audit_entries.c.seq - sa.literal_column(ENTRIES) >= sa.bindparam("first") - sa.literal_column("1"),
    )
    .order_by(audit_entries.c.seq.desc())
    .limit(sa.bindparam("limit"))
)
_DELETE = compile_query(
    sa.delete(audit_entries).where(
        audit_entries.c.entry_id.in_(sa.select(sa.func.json_each(sa.bindparam("list")).table_valued("value").c.value))
    )
)
_ANY = compile_query(
    sa.select(audit_entries.c.seq)
    .where(
        audit_entries.c.tenant_id == _TENANT, audit_entries.c.seq.between(sa.bindparam("first"), sa.bindparam("last"))
    )
    .limit(sa.literal_column("1"))
)

_HOLDS = Query(
    HoldRecord, sa.select(*(audit_holds.c[name] for name in HoldRecord.__struct_fields__)), order=itemgetter(0)
)
_HOLD = compile_query(
    sqlite.insert(audit_holds)
    .values({name: sa.bindparam(name) for name in HoldRecord.__struct_fields__})
    .on_conflict_do_nothing()
)
_RELEASE = compile_query(sa.delete(audit_holds).where(audit_holds.c.tenant_id == _TENANT))
_IS_HELD = compile_query(sa.select(audit_holds.c.tenant_id).where(audit_holds.c.tenant_id == _TENANT))

_SUBJECT: sa.BindParameter[str] = sa.bindparam("subject")
_GET_KEY = compile_query(sa.select(audit_subject_keys.c.key).where(audit_subject_keys.c.subject == _SUBJECT))
_ADD_KEY = compile_query(
    sqlite.insert(audit_subject_keys)
    .values(subject=_SUBJECT, key=sa.bindparam("key"), made_at=sa.bindparam("made_at"))
    .on_conflict_do_nothing()
)
_ERASE_KEY = compile_query(sa.delete(audit_subject_keys).where(audit_subject_keys.c.subject == _SUBJECT))


def list_tombstones(connection: sqlite3.Connection, tenant_id: str) -> list[TombstoneRecord]:
    """Give the tombstones of a tenant, the first one first."""
    return _TOMBSTONES.run(connection, {"tenant_id": tenant_id})


def add_tombstones(connection: sqlite3.Connection, tombstones: Sequence[TombstoneRecord], noted: Noted) -> bool:
    """Record tombstones of one tenant with their entry, unless it is under a hold."""
    with transaction(connection):
        if connection.execute(_IS_HELD, {"tenant_id": noted.tenant_id}).fetchone() is not None:
            return False
        for tombstone in tombstones:
            values = {name: getattr(tombstone, name) for name in TombstoneRecord.__struct_fields__}
            connection.execute(_ADD_TOMBSTONE, values).close()
        _note(connection, noted)
    return True


def delete_pruned(connection: sqlite3.Connection, limit: int) -> int:
    """Delete entries that tombstones account for, `limit` or a few more and only a moment long; give how many.

    Those of a tenant under a hold stay: it may have been placed after they were pruned. 0 when nothing else is left.
    """
    deleted = 0
    end = perf_counter() + DELETE_SECONDS
    with transaction(connection):
        while deleted < limit:
            row = connection.execute(_PENDING).fetchone()
            if row is None:
                break
            record = TombstoneRecord(*row)
            gaps = read_tombstone(record.content).gaps
            # They are emptied from the last one on.
            left = bisect_left(gaps, True, key=lambda gap: not _has_entries(connection, record.tenant_id, gap))
            for gap in reversed(gaps[:left]):
                arguments = {"tenant_id": record.tenant_id, "first": gap.first, "last": gap.last}
                piece = 1
                while piece:
                    if deleted >= limit or (deleted and perf_counter() > end):
                        return deleted
                    piece = _delete(connection, arguments, min(DELETE_ENTRIES, limit - deleted))
                    deleted += piece
            arguments = {"tenant_id": record.tenant_id, "first": record.first_seq, "last": record.last_seq}
            connection.execute(_DONE, arguments).close()
    return deleted


def _delete(connection: sqlite3.Connection, arguments: dict[str, Any], limit: int) -> int:
    """Delete the last rows of a gap with so many entries, or with those of one row if it has more; give how many."""
    chosen: list[int] = []
    deleted = 0
    for entry_id, entries in connection.execute(_CHOSEN, {**arguments, "limit": limit}).fetchall():
        if chosen and deleted + entries > limit:
            break
        chosen.append(entry_id)
        deleted += entries
    connection.execute(_DELETE, {"list": json.dumps(chosen)}).close()
    return deleted


def _has_entries(connection: sqlite3.Connection, tenant_id: str, gap: Gap) -> bool:
    arguments = {"tenant_id": tenant_id, "first": gap.first, "last": gap.last}
    return connection.execute(_ANY, arguments).fetchone() is not None


def list_holds(connection: sqlite3.Connection) -> list[HoldRecord]:
    """Give all holds, ordered by tenant."""
    return _HOLDS.run(connection, {})


def hold(connection: sqlite3.Connection, record: HoldRecord, noted: Noted) -> bool:
    """Forbid to prune a tenant's chain; False when it is forbidden already."""
    values = {name: getattr(record, name) for name in HoldRecord.__struct_fields__}
    return _change_and_note(connection, _HOLD, values, noted)


def release(connection: sqlite3.Connection, tenant_id: str, noted: Noted) -> bool:
    """Allow to prune a tenant's chain again; False when nothing forbids it."""
    return _change_and_note(connection, _RELEASE, {"tenant_id": tenant_id}, noted)


def get_subject_key(connection: sqlite3.Connection, subject: str) -> bytes | None:
    """Give the key of somebody's personal data."""
    row = connection.execute(_GET_KEY, {"subject": subject}).fetchone()
    return None if row is None else bytes(row[0])


def add_subject_key(connection: sqlite3.Connection, subject: str, key: bytes, made_at: Instant) -> bytes:
    """Record a key unless there is one; give the one that counts."""
    with transaction(connection):
        connection.execute(_ADD_KEY, {"subject": subject, "key": key, "made_at": made_at}).close()
        counts = get_subject_key(connection, subject)
    assert counts is not None
    return counts


def erase_subject_key(connection: sqlite3.Connection, subject: str, noted: Noted) -> bool:
    """Destroy a key, also in the page that it was in; False when there is none."""
    connection.execute("PRAGMA secure_delete = ON").close()
    try:
        return _change_and_note(connection, _ERASE_KEY, {"subject": subject}, noted)
    finally:
        connection.execute("PRAGMA secure_delete = OFF").close()


def wipe_erased_keys(connection: sqlite3.Connection) -> bool:
    """Write the log back and cut it, since it has older versions of pages; False while somebody reads these."""
    return cut_log(connection)


def _change_and_note(
    connection: sqlite3.Connection, statement: str, arguments: dict[str, object], noted: Noted
) -> bool:
    with transaction(connection):
        if connection.execute(statement, arguments).rowcount != 1:
            return False
        _note(connection, noted)
    return True


def _note(connection: sqlite3.Connection, noted: Noted) -> None:
    trail = Trail(connection)
    trail.note(noted)
    trail.seal()
