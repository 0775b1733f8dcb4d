"""Reads the audit log from one end to the other, for its verification and export."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from math import ceil
from operator import itemgetter
from typing import Any, TypeVar

import msgspec
import sqlalchemy as sa

from synergymesh.domain.audit.actions import Action
from synergymesh.domain.audit.forms import HASH_BYTES
from synergymesh.domain.instants import Instant
from synergymesh.ports.audit import AuditEntryRecord, AuditHeadRecord
from synergymesh.ports.audit_keeping import AuditRow, AuditScanned, TombstoneRecord, UnsuccessfulRecord
from synergymesh.store.audit import summaries
from synergymesh.store.audit.reads import LOG_ID_NOW
from synergymesh.store.audit.rows import SELECT, AuditRowRecord, unpack
from synergymesh.store.audit.writes import log_id_text
from synergymesh.store.schema import audit_entries, audit_heads, audit_holds, audit_tombstones
from synergymesh.store.statements import compile_query

T = TypeVar("T")

CHUNK = 2_000
"""Numbers of a chain that are read at once: about a megabyte."""

_COLUMNS = ("first_at", "at", "action", "entity", "version", "actor", "outcome", "tenant_id", "entry_id")

_c = audit_entries.c
_OF_TENANT = _c.tenant_id == sa.bindparam("tenant_id")
_row = sa.select(_c.seq, _c.hash, _c.payload, *(_c[name] for name in _COLUMNS))
_chunk = (
    _row.where(
        _OF_TENANT,
        _c.seq >= sa.bindparam("after"),
        # A number can be there twice, and one of the two the last row of a chunk.
        sa.or_(_c.seq > sa.bindparam("after"), _c.entry_id > sa.bindparam("after_place")),
        _c.seq <= sa.bindparam("upto"),
    )
    .order_by(_c.seq, _c.entry_id)
    .limit(sa.bindparam("rows"))
)
_PLAIN = compile_query(_chunk)
_found = _chunk.subquery("found")
_f = _found.c
# All rows as one: every row may cost a wait for the interpreter lock (see store.reads).
_PACKED = compile_query(
    sa.select(
        sa.func.json_group_array(
            # Not the tenant, which is that of all of them: a fifth of the time goes into these texts.
            sa.func.json_array(
                _f.seq,
                sa.func.length(_f.payload),
                sa.func.length(_f.hash),
                *(_f[name] for name in _COLUMNS if name != "tenant_id"),
            )
        ),
        sa.cast(sa.func.group_concat(_f.payload.op("||")(_f.hash), sa.literal_column("''")), sa.LargeBinary),
        sa.func.sum(
            sa.case(
                (
                    sa.and_(
                        sa.func.typeof(_f.payload) == sa.literal_column("'blob'"),
                        sa.func.typeof(_f.hash) == sa.literal_column("'blob'"),
                        sa.func.typeof(_f.seq) == sa.literal_column("'integer'"),
                    ),
                    sa.literal_column("0"),
                ),
                else_=sa.literal_column("1"),
            )
        ),
    ).select_from(_found)
)
_REST = compile_query(_row.where(_OF_TENANT, _c.seq > sa.bindparam("after")).limit(sa.bindparam("rows")))
_NEXT = compile_query(sa.select(sa.func.min(_c.seq)).where(_OF_TENANT, _c.seq > sa.bindparam("after")))
_IN_TIME = (
    _OF_TENANT,
    _c.at >= sa.bindparam("since"),
    _c.first_at < sa.bindparam("until"),
    _c.seq > sa.bindparam("above"),
    _c.seq < sa.bindparam("below"),
)
_FIRST_IN_TIME = compile_query(sa.select(sa.func.min(_c.seq)).where(*_IN_TIME))
_LAST_IN_TIME = compile_query(sa.select(sa.func.max(_c.seq)).where(*_IN_TIME))
_AT_NUMBER = compile_query(SELECT.where(_OF_TENANT, _c.seq == sa.bindparam("number")))
_LAST = 2**63 - 1

_TENANTS = compile_query(sa.select(_c.tenant_id, sa.func.typeof(_c.tenant_id)).group_by(_c.tenant_id))
_t = audit_tombstones.c
_TOMBSTONE_TENANTS = compile_query(sa.select(_t.tenant_id, sa.func.typeof(_t.tenant_id)).group_by(_t.tenant_id))

STRAYS_MAX = 100

_ODD = sa.or_(_c.seq.is_(None), _c.seq < sa.literal_column("1"))
_STRAYS = compile_query(
    sa.select(_c.tenant_id, _c.seq)
    .where(sa.or_(_ODD, sa.func.typeof(_c.tenant_id) != sa.literal_column("'text'")))
    .limit(sa.literal_column(str(STRAYS_MAX)))
)
_STRAY_TOMBSTONES = compile_query(
    sa.select(_t.tenant_id, _t.first_seq)
    .where(sa.func.typeof(_t.tenant_id) != sa.literal_column("'text'"))
    .limit(sa.literal_column(str(STRAYS_MAX)))
)
_STRAYS_OF_TENANT = compile_query(
    sa.union_all(
        sa.select(_c.tenant_id, _c.seq).where(_c.tenant_id == sa.bindparam("tenant_id"), _ODD),
        sa.select(_c.tenant_id, _c.seq).where(_c.tenant_id == sa.bindparam("tenant_id_in_bytes")),
    ).limit(sa.literal_column(str(STRAYS_MAX)))
)
# Every row of the table: what an index leaves out is found by nothing else.
_COUNT = f"SELECT coalesce(sum(length(hash)), 0) / {HASH_BYTES} FROM {audit_entries.name} NOT INDEXED"
_LAST_PLACE = compile_query(sa.select(sa.func.max(_c.entry_id)))
_HEADS = compile_query(sa.select(*(audit_heads.c[name] for name in AuditHeadRecord.__struct_fields__)))
_HOLDS = compile_query(sa.select(audit_holds.c.tenant_id, audit_holds.c.reason, audit_holds.c.held_at))
_TOMBSTONES = compile_query(
    sa.select(*(_t[name] for name in TombstoneRecord.__struct_fields__))
    .where(_t.tenant_id == sa.bindparam("tenant_id"))
    .order_by(_t.first_seq, _t.last_seq)
)

_decode = msgspec.json.Decoder(list[tuple[Any, ...]]).decode


class SqliteAuditScan:
    """Read the log on a connection, inside one read transaction.

    `packed` reads many rows as one, which costs half as much again, and where an event loop is busy in the same process
    saves a wait for the interpreter lock at every row.
    """

    def __init__(self, connection: sqlite3.Connection, *, packed: bool = True) -> None:
        self._connection = connection
        self._packed = packed

    def log_id(self) -> str | None:
        """Give the id of the log; empty before its first entry, None if what stands there is none."""
        rows = self._as_it_is(LOG_ID_NOW)
        if not rows:
            return ""
        number = rows[0][0]
        return log_id_text(number) if isinstance(number, int) and number >= 0 else None

    def heads(self) -> list[AuditHeadRecord]:
        """Give the recorded end of every chain, whatever stands there."""
        return [AuditHeadRecord(*row) for row in self._as_it_is(_HEADS)]

    def tenants(self) -> list[str]:
        """Give every tenant that has entries or tombstones, in order."""
        return sorted({name for name in self._owners() if name is not None})

    def strays(self, tenant_id: str | None) -> list[tuple[object, object]]:
        """Give tenant and number of entries and tombstones that no chain has, of one tenant or of all (None)."""
        if tenant_id is not None:
            return self._as_it_is(_STRAYS_OF_TENANT, {"tenant_id": tenant_id, "tenant_id_in_bytes": tenant_id.encode()})
        found = self._as_it_is(_STRAYS) + self._as_it_is(_STRAY_TOMBSTONES)
        if None in self._owners():
            found.append(("a text that is not UTF-8", None))
        return found

    def extent(self) -> tuple[int, int]:
        """Count the entries of the table itself, past its indexes; give the largest place in the log (0 of none)."""
        last = self._connection.execute(_LAST_PLACE).fetchone()[0]
        return self._connection.execute(_COUNT).fetchone()[0], last or 0

    def holds(self) -> list[tuple[object, object, object]]:
        """Give tenant, reason and time of every legal hold, whatever stands there."""
        return self._as_it_is(_HOLDS)

    def bounds(self, tenant_id: str, since: Instant | None, until: Instant | None) -> tuple[int, int]:
        """Give the numbers between which a time lies, `until` not included; (1, 0) when no entry is of it."""
        if since is None and until is None:
            return 1, _LAST
        arguments = {"tenant_id": tenant_id, "since": since or 0, "until": _LAST if until is None else until}
        first = self._in_time(_FIRST_IN_TIME, min, arguments, "above")
        last = self._in_time(_LAST_IN_TIME, max, arguments, "below")
        if first is None or last is None:
            return 1, 0
        # With a clock that was set back, older times stand behind newer ones; a chain begins and ends where it does.
        return 1 if since is None else first, _LAST if until is None else last

    def _in_time(
        self, query: str, choose: Callable[[list[int]], int], arguments: dict[str, Any], bound: str
    ) -> int | None:
        """Give the first or the last entry of a time; a row's times can enclose it without any entry of it."""
        bounds = {"above": 0, "below": _LAST}
        while True:
            number = self._connection.execute(query, arguments | bounds).fetchone()[0]
            if not isinstance(number, int):
                return None
            rows = self._as_it_is(_AT_NUMBER, {"tenant_id": arguments["tenant_id"], "number": number})
            found = [
                entry.seq
                for row in rows
                for entry in unpack(AuditRowRecord(*row))
                if arguments["since"] <= entry.at < arguments["until"]
            ]
            if found:
                return choose(found)
            bounds[bound] = number

    def rows(self, tenant_id: str, after_seq: int) -> Iterator[AuditScanned]:
        """Give the entries of a chain in its order: see `ports.audit_keeping.AuditScan.rows`."""
        for chunk in self._chunks(tenant_id, after_seq):
            for row in chunk:
                hash_, payload = row[1], row[2]
                if (
                    type(hash_) is bytes
                    and len(hash_) == HASH_BYTES
                    and type(payload) is bytes
                    and b"\n" not in payload
                ):
                    yield row[0], hash_, payload, row[-1], row
                else:
                    yield from _entries(row, after_seq)

    def _chunks(self, tenant_id: str, after_seq: int) -> Iterator[Sequence[AuditRow]]:
        """Give the rows of a chain whose last entry is behind this one."""
        arguments: dict[str, Any] = {"tenant_id": tenant_id, "after": after_seq, "after_place": _LAST, "rows": CHUNK}
        while True:
            arguments["upto"] = min(_LAST, arguments["after"] + CHUNK)
            chunk = self._chunk(arguments)
            yield chunk
            if len(chunk) == CHUNK:
                arguments |= {"after": chunk[-1][0], "after_place": chunk[-1][-1]}
                continue
            behind = {"tenant_id": tenant_id, "after": arguments["upto"], "rows": CHUNK}
            ((following,),) = self._as_it_is(_NEXT, behind)
            if isinstance(following, (int, float)) and following < _LAST:
                arguments |= {"after": ceil(following) - 1, "after_place": _LAST}
                continue
            if following is not None:  # behind all numbers is what is none
                yield self._as_it_is(_REST, behind)
            return

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
        return [TombstoneRecord(*row) for row in self._as_it_is(_TOMBSTONES, {"tenant_id": tenant_id})]

    def _owners(self) -> set[str | None]:
        """Give the tenants of all entries and tombstones; None among them if one is a text that is not UTF-8."""
        found: set[str | None] = set()
        for query in (_TENANTS, _TOMBSTONE_TENANTS):
            for raw, kind in self._as_it_is(query, texts=bytes):
                if kind == b"text":
                    try:
                        found.add(raw.decode())
                    except UnicodeDecodeError:
                        found.add(None)
        return found

    def _as_it_is(self, query: str, arguments: dict[str, Any] | None = None, *, texts: Any = None) -> list[Any]:
        """Give rows whatever stands in them, also texts that are not UTF-8."""
        connection = self._connection
        connection.text_factory = texts or _any_text
        try:
            return connection.execute(query, arguments or {}).fetchall()
        finally:
            connection.text_factory = str

    def _chunk(self, arguments: dict[str, Any]) -> Sequence[AuditRow]:
        connection = self._connection
        try:
            if not self._packed:
                return connection.execute(_PLAIN, arguments).fetchall()
            document, joined, odd = connection.execute(_PACKED, arguments).fetchone()
            if not odd:
                return _unpack(_decode(document), joined, arguments["tenant_id"])
        except (sqlite3.DatabaseError, msgspec.DecodeError):
            pass  # something stands there that does not belong there; it is given as it is
        return self._as_it_is(_PLAIN, arguments)


def _unpack(scalars: list[tuple[Any, ...]], joined: bytes | None, tenant_id: str) -> list[AuditRow]:
    rows: list[Any] = []
    start = 0
    joined = joined or b""
    for seq, payload, hash_, *rest, place in scalars:
        middle = start + payload
        end = middle + hash_
        rows.append((seq, joined[middle:end], joined[start:middle], *rest, tenant_id, place))
        start = end
    rows.sort(key=_SEQ)  # two of one number stay as they came
    return rows


_SEQ = itemgetter(0)


def _entries(row: AuditRow, after_seq: int) -> list[AuditScanned]:
    """Give the entries of a row behind a number, whatever stands there."""
    seq, hash_, payload, *_, place = row
    hashes = -(-len(hash_) // HASH_BYTES) if isinstance(hash_, bytes) else 0
    payloads = payload.split(b"\n") if isinstance(payload, bytes) else []
    count = max(hashes, len(payloads))
    if count <= 1 or not isinstance(seq, int):
        return [(seq, hash_, payload, place, row)]
    before = hashes or len(payloads)
    first, first_place = seq - before + 1, place - before + 1
    return [
        (
            first + number,
            hash_[number * HASH_BYTES : (number + 1) * HASH_BYTES] if hashes else hash_,
            payloads[number] if number < len(payloads) else payload if not payloads else None,
            first_place + number,
            row,
        )
        for number in range(max(0, after_seq - first + 1), count)
    ]


def scan(connection: sqlite3.Connection, work: Callable[[SqliteAuditScan], T], *, packed: bool = True) -> T:
    """Call `work` with a scan of one moment."""
    connection.execute("BEGIN").close()
    try:
        return work(SqliteAuditScan(connection, packed=packed))
    finally:
        connection.execute("ROLLBACK").close()


def _any_text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
