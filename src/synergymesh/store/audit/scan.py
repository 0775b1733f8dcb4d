"""Reads the audit log from one end to the other, for its verification and export."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import msgspec
import sqlalchemy as sa

from synergymesh.domain.audit.actions import Action
from synergymesh.domain.instants import Instant
from synergymesh.ports.audit import AuditEntryRecord, AuditHeadRecord
from synergymesh.ports.audit_keeping import TombstoneRecord, UnsuccessfulRecord
from synergymesh.store.audit import keeping, reads, summaries
from synergymesh.store.schema import audit_entries, audit_tombstones
from synergymesh.store.statements import compile_query

T = TypeVar("T")

CHUNK = 2_000
"""Entries that are read at once: about a megabyte."""

_COLUMNS = ("at", "action", "entity", "version", "actor", "outcome", "tenant_id")

_c = audit_entries.c
_chunk = (
    sa.select(_c.seq, _c.hash, _c.payload, *(_c[name] for name in _COLUMNS))
    .where(_c.tenant_id == sa.bindparam("tenant_id"), _c.seq > sa.bindparam("after"))
    .order_by(_c.seq)
    .limit(sa.literal_column(str(CHUNK)))
)
_PLAIN = compile_query(_chunk)
_found = _chunk.subquery("found")
_f = _found.c
# All rows as one: every row may cost a wait for the interpreter lock (see store.reads).
_PACKED = compile_query(
    sa.select(
        sa.func.json_group_array(
            sa.func.json_array(_f.seq, sa.func.length(_f.payload), *(_f[name] for name in _COLUMNS))
        ),
        sa.cast(sa.func.group_concat(_f.payload.op("||")(_f.hash), sa.literal_column("''")), sa.LargeBinary),
        sa.func.sum(
            sa.case(
                (
                    sa.and_(
                        sa.func.typeof(_f.payload) == sa.literal_column("'blob'"),
                        sa.func.typeof(_f.hash) == sa.literal_column("'blob'"),
                        sa.func.typeof(_f.seq) == sa.literal_column("'integer'"),
                        sa.func.length(_f.hash) == sa.literal_column("32"),
                    ),
                    sa.literal_column("0"),
                ),
                else_=sa.literal_column("1"),
            )
        ),
    ).select_from(_found)
)
_BOUNDS = compile_query(
    sa.select(sa.func.min(_c.seq), sa.func.max(_c.seq)).where(
        _c.tenant_id == sa.bindparam("tenant_id"), _c.at >= sa.bindparam("since"), _c.at < sa.bindparam("until")
    )
)
_LAST = 2**63 - 1

_TENANTS = compile_query(sa.select(_c.tenant_id).distinct().order_by(_c.tenant_id))
_TOMBSTONE_TENANTS = compile_query(sa.select(audit_tombstones.c.tenant_id).distinct())

_decode = msgspec.json.Decoder(list[list[Any]]).decode


class SqliteAuditScan:
    """Read the log on a connection, inside one read transaction.

    `packed` reads many rows as one, which costs half as much again, and where an event loop is busy in the same process
    saves a wait for the interpreter lock at every row.
    """

    def __init__(self, connection: sqlite3.Connection, *, packed: bool = True) -> None:
        self._connection = connection
        self._packed = packed

    def log_id(self) -> str:
        """Give the id of the log; empty before its first entry."""
        return reads.get_log_id(self._connection)

    def heads(self) -> list[AuditHeadRecord]:
        """Give the recorded end of every chain, ordered by tenant."""
        return reads.list_heads(self._connection)

    def tenants(self) -> list[str]:
        """Give every tenant that has entries or tombstones, in order."""
        found = {str(row[0]) for row in self._connection.execute(_TENANTS)}
        return sorted(found | {str(row[0]) for row in self._connection.execute(_TOMBSTONE_TENANTS)})

    def bounds(self, tenant_id: str, since: Instant | None, until: Instant | None) -> tuple[int, int]:
        """Give the numbers of the first and the last entry of a time, `until` not included; (1, 0) when none is."""
        if since is None and until is None:
            return 1, _LAST
        arguments = {"tenant_id": tenant_id, "since": since or 0, "until": _LAST if until is None else until}
        first, last = self._connection.execute(_BOUNDS, arguments).fetchone()
        return (1, 0) if first is None else (first, last)

    def rows(self, tenant_id: str, after_seq: int) -> Iterator[Sequence[Any]]:
        """Give a chain in its order: number, hash, payload, at, action, entity, version, actor, outcome, tenant."""
        while True:
            chunk = self._chunk(tenant_id, after_seq)
            yield from chunk
            if len(chunk) < CHUNK:
                return
            after_seq = chunk[-1][0]

    def unsuccessful(self, tenant_id: str | None, since: Instant) -> list[UnsuccessfulRecord]:
        """Count what failed or was denied, of one tenant or of all (None), the most frequent first."""
        return summaries.count_unsuccessful(self._connection, tenant_id, since)

    def newest(
        self, actions: Sequence[Action], tenant_id: str | None, since: Instant, limit: int
    ) -> list[AuditEntryRecord]:
        """Give the newest entries of these actions, which are not routine, of one tenant or of all (None)."""
        return summaries.list_newest(self._connection, actions, tenant_id, since, limit)

    def tombstones(self, tenant_id: str) -> list[TombstoneRecord]:
        """Give the tombstones of a tenant, the first one first."""
        return keeping.list_tombstones(self._connection, tenant_id)

    def _chunk(self, tenant_id: str, after_seq: int) -> Sequence[Sequence[Any]]:
        arguments = {"tenant_id": tenant_id, "after": after_seq}
        connection = self._connection
        try:
            if not self._packed:
                return connection.execute(_PLAIN, arguments).fetchall()
            document, joined, odd = connection.execute(_PACKED, arguments).fetchone()
            if not odd:
                return _unpack(_decode(document), joined)
        except (sqlite3.DatabaseError, msgspec.DecodeError):
            pass  # something stands there that does not belong there; it is given as it is
        connection.text_factory = _any_text
        try:
            return connection.execute(_PLAIN, arguments).fetchall()
        finally:
            connection.text_factory = str


def _unpack(scalars: list[list[Any]], joined: bytes | None) -> list[list[Any]]:
    start = 0
    joined = joined or b""
    for row in scalars:
        middle = start + row[1]
        end = middle + 32
        row[1:2] = joined[middle:end], joined[start:middle]
        start = end
    scalars.sort(key=_seq)
    return scalars


def _seq(row: list[Any]) -> Any:
    return row[0]


def scan(connection: sqlite3.Connection, work: Callable[[SqliteAuditScan], T], *, packed: bool = True) -> T:
    """Call `work` with a scan of one moment."""
    connection.execute("BEGIN").close()
    try:
        return work(SqliteAuditScan(connection, packed=packed))
    finally:
        connection.execute("ROLLBACK").close()


def _any_text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
