"""What can be asked of the audit log.

Entries that are not routine are found by indexes of their own, those of a run between the first and the last one of it,
which are found by their time. Everything else is looked for along the chain from its end, so many entries in one call;
the cursor of the page says how far it came.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import islice
from operator import itemgetter
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa

from synergymesh.domain.actors import ENGINE
from synergymesh.domain.audit.actions import ROUTINE, Action, Outcome
from synergymesh.domain.audit.groups import GROUP_ENTRIES_MAX, is_of_run
from synergymesh.domain.audit.retention import DAY
from synergymesh.domain.instants import Instant
from synergymesh.ports.audit import (
    AUDIT_PAGE_MAX,
    AUDIT_SCAN_MAX,
    AuditEntryRecord,
    AuditExtent,
    AuditHeadRecord,
    AuditPage,
)
from synergymesh.store.audit.rows import COLUMNS, SELECT, AuditRowRecord, unpack
from synergymesh.store.audit.writes import LOG_ID, log_id_text
from synergymesh.store.reads import Query
from synergymesh.store.schema import (
    HAS_ENTITY,
    NOT_ROUTINE,
    NOT_THE_ENGINE,
    NOT_WELL,
    audit_entries,
    audit_heads,
    meta,
    runs,
)
from synergymesh.store.statements import compile_query

_LAST = 2**63 - 1
_FIRST_ROWS = 8
"""Rows that are read at first; twice as many each time they were not enough. A row may have a hundred entries."""
_ROWS_MAX = 1_024

_c = audit_entries.c

LOG_ID_NOW = compile_query(sa.select(meta.c.value).where(meta.c.name == sa.literal_column(f"'{LOG_ID}'")))
_HEADS = Query(
    AuditHeadRecord,
    sa.select(*(audit_heads.c[name] for name in AuditHeadRecord.__struct_fields__)).order_by(audit_heads.c.tenant_id),
    order=itemgetter(0),
)
_RECORDED = compile_query(sa.select(sa.func.coalesce(sa.func.sum(audit_heads.c.seq), 0)))
_BEHIND = Query(
    AuditRowRecord,
    SELECT.where(_c.entry_id > sa.bindparam("place")).order_by(_c.entry_id).limit(sa.literal_column("1")),
    order=itemgetter(0),
)
_CHAIN = Query(
    AuditRowRecord,
    SELECT.where(_c.tenant_id == sa.bindparam("tenant_id"), _c.seq > sa.bindparam("after"))
    .order_by(_c.seq)
    .limit(sa.bindparam("rows")),
    order=itemgetter(COLUMNS.index("seq")),
)


class Wanted(NamedTuple):
    """Which entries are wanted; None for any."""

    since: Instant | None = None
    until: Instant | None = None
    action: Action | None = None
    actor: str | None = None
    entity: str | None = None
    outcome: Outcome | None = None


def get_log_id(connection: sqlite3.Connection) -> str:
    """Give the id of this log; empty before its first entry."""
    row = connection.execute(LOG_ID_NOW).fetchone()
    return "" if row is None else log_id_text(row[0])


def list_heads(connection: sqlite3.Connection) -> list[AuditHeadRecord]:
    """Give the end of every chain, ordered by tenant."""
    return _HEADS.run(connection, {})


def get_extent(connection: sqlite3.Connection, signed: int | None) -> AuditExtent:
    """Count the entries of all chains; say when the oldest of those behind the first `signed` was recorded."""
    entries = connection.execute(_RECORDED).fetchone()[0]
    if signed is None or entries <= signed:
        return AuditExtent(entries, None)
    behind = [entry.at for row in _BEHIND.run(connection, {"place": signed}) for entry in unpack(row)]
    # The last entries of the row come first, and those up to the signed one are no part of it.
    return AuditExtent(entries, behind[min(len(behind), entries - signed) - 1] if behind else None)


def list_entries(connection: sqlite3.Connection, tenant_id: str, after_seq: int, limit: int) -> list[AuditEntryRecord]:
    """Give the entries of one chain in its order, those behind `after_seq`."""
    limit = max(0, min(limit, AUDIT_PAGE_MAX))
    found: list[AuditEntryRecord] = []
    rows = _FIRST_ROWS
    while len(found) < limit:
        read = _CHAIN.run(connection, {"tenant_id": tenant_id, "after": after_seq, "rows": rows})
        for row in read:
            found += [entry for entry in reversed(list(unpack(row))) if entry.seq > after_seq]
        if len(read) < rows:
            break
        after_seq = read[-1].seq
        rows = min(2 * rows, _ROWS_MAX)
    return found[:limit]


def find_entries(
    connection: sqlite3.Connection, tenant_id: str | None, wanted: Wanted, cursor: int | None, limit: int
) -> AuditPage:
    """Give entries, newest first: of one chain in its order, or of all (None) in the order of their recording.

    A call looks at `AUDIT_SCAN_MAX` entries at most, unless an index leads to those that are wanted.
    """
    limit = max(1, min(limit, AUDIT_PAGE_MAX))
    place = _CHAIN_PLACE if tenant_id is not None else _LOG_PLACE
    above, below = 0, _LAST if cursor is None else cursor
    given = frozenset(name for name, value in wanted._asdict().items() if value is not None)
    index = None
    if tenant_id is not None:
        index = _index_for(wanted)
        if index is None and wanted.entity is not None:
            above, end = _place_of_run(connection, tenant_id, wanted.entity)
            below = min(below, end)
    oldest = above
    if given and index is None:
        bounds = {"tenant_id": tenant_id, "above": above, "below": _last_row(below)}
        newest = connection.execute(_newest(place), bounds).fetchone()[0]
        if newest is None:
            return AuditPage([], None)
        above = max(above, min(newest, below - 1) - AUDIT_SCAN_MAX)
    matching = _matching(connection, tenant_id, wanted, place, _search(place, given, index), above, below)
    entries = list(islice(matching, limit))
    if len(entries) == limit:
        return AuditPage(entries, getattr(entries[-1], place))
    return AuditPage(entries, above + 1 if above > oldest else None)


_CHAIN_PLACE = "seq"
_LOG_PLACE = "entry_id"


def _last_row(below: int) -> int:
    """Give a place before which the last row is that may have entries before `below`."""
    return min(_LAST, below + GROUP_ENTRIES_MAX)


def _matching(
    connection: sqlite3.Connection,
    tenant_id: str | None,
    wanted: Wanted,
    place: str,
    query: Query[AuditRowRecord],
    above: int,
    below: int,
) -> Iterator[AuditEntryRecord]:
    """Give the entries between two places, newest first, reading few rows at first and then more."""
    arguments: dict[str, Any] = {name: value for name, value in wanted._asdict().items() if value is not None}
    arguments |= {"tenant_id": tenant_id, "above": above}
    if wanted.entity is not None:
        arguments["said"] = b'"entity":' + msgspec.json.encode(wanted.entity)
    is_wanted = _filter(wanted)
    place_of: Callable[[AuditRowRecord | AuditEntryRecord], int] = _PLACES[place]
    rows, before = _FIRST_ROWS, _last_row(below)
    while True:
        read = query.run(connection, {**arguments, "below": before, "rows": rows})
        for row in read:
            for entry in unpack(row):
                if above < place_of(entry) < below and is_wanted(entry):
                    yield entry
        if len(read) < rows:
            return
        before = place_of(read[-1])
        rows = min(2 * rows, _ROWS_MAX)


_PLACES: dict[str, Callable[[Any], int]] = {_CHAIN_PLACE: lambda row: row.seq, _LOG_PLACE: lambda row: row.entry_id}


def _filter(wanted: Wanted) -> Callable[[AuditEntryRecord], bool]:
    """Give what tells of an entry whether it is wanted; action, actor and outcome are those of its row."""
    since, until, entity = wanted.since, wanted.until, wanted.entity

    def is_wanted(entry: AuditEntryRecord) -> bool:
        return (
            (since is None or entry.at >= since)
            and (until is None or entry.at < until)
            and (entity is None or entry.entity == entity)
        )

    return is_wanted


def _index_for(wanted: Wanted) -> str | None:
    """Give the condition of the index that leads to what is wanted, the most choosy one first."""
    if wanted.entity is not None:
        return None if is_of_run(wanted.entity) else HAS_ENTITY
    if wanted.actor is not None and wanted.actor != str(ENGINE):
        return NOT_THE_ENGINE
    if wanted.action is not None and wanted.action not in ROUTINE:
        return NOT_ROUTINE
    if wanted.outcome is not None and wanted.outcome is not Outcome.SUCCESS:
        return NOT_WELL
    return None


def _place_of_run(connection: sqlite3.Connection, tenant_id: str, entity: str) -> tuple[int, int]:
    """Give the places in the chain between which the entries of a run and its tasks are.

    The run's row says when it was submitted and when it ended; those are the times of its first and its last entry. Of
    a run that is not there any more its id says when it was submitted.
    """
    run_id = entity.split("/", 2)[1]
    row = connection.execute(_TIMES_OF_RUN, {"tenant_id": tenant_id, "run_id": run_id}).fetchone()
    created_at, ended_at = row or (_moment_of(run_id), None)
    if created_at is None:
        return 0, _LAST

    def places(action: Action, at: Instant, slack: int) -> list[int]:
        arguments = {
            "tenant_id": tenant_id,
            "action_of_run": action.value,
            "from": at - slack,
            "to": at,
            "day_ends": at - at % DAY + DAY,
            "said": b'"entity":' + msgspec.json.encode(f"run/{run_id}"),
        }
        rows = _ROWS_AT.run(connection, arguments)
        return [entry.seq for row in rows for entry in unpack(row) if entry.entity == f"run/{run_id}"]

    submitted = places(Action.RUN_SUBMITTED, created_at, 0 if row else _ID_SLACK)
    if not submitted:
        return 0, _LAST
    first = min(submitted)
    if row is None:
        finished = _end_of_pruned_run(connection, tenant_id, run_id, first)
    else:
        finished = places(Action.RUN_FINISHED, ended_at, 0) if ended_at is not None else []
    return first - 1, max(finished) + 1 if finished else _LAST


def _end_of_pruned_run(connection: sqlite3.Connection, tenant_id: str, run_id: str, first: int) -> list[int]:
    """Give the number of the last entry of a run, looked for along the chain from the first one on."""
    entity = f"run/{run_id}"
    arguments = {
        "tenant_id": tenant_id,
        "first": first,
        "last": first + AUDIT_SCAN_MAX,
        "said": b'"entity":' + msgspec.json.encode(entity),
    }
    rows = _FINISHED_BEHIND.run(connection, arguments)
    return [entry.seq for row in rows for entry in unpack(row) if entry.entity == entity]


_HEX = frozenset("0123456789abcdef")
_ID_SLACK = 1_000_000_000
"""Nanoseconds by which an id may be later than the submission: no two ids have the same moment."""


def _moment_of(run_id: str) -> Instant | None:
    """Give the moment that an id says its run was submitted at; None when it says none."""
    digits = run_id.removeprefix("run-")[:16]
    if len(digits) != 16 or not run_id.startswith("run-") or not _HEX.issuperset(digits):
        return None
    moment = int(digits, 16)
    return moment if moment <= _LAST - DAY else None


_TIMES_OF_RUN = compile_query(
    sa.select(runs.c.created_at, runs.c.ended_at).where(
        runs.c.run_id == sa.bindparam("run_id"), runs.c.tenant_id == sa.bindparam("tenant_id")
    )
)
_SAID = sa.func.instr(_c.payload, sa.bindparam("said")) > sa.literal_column("0")
_ROWS_AT = Query(
    AuditRowRecord,
    SELECT.where(
        _c.tenant_id == sa.bindparam("tenant_id"),
        _c.at >= sa.bindparam("from"),
        _c.first_at <= sa.bindparam("to"),
        _c.at < sa.bindparam("day_ends"),  # a row is of one day: no need to look at later ones
        _c.action == sa.bindparam("action_of_run"),
        _SAID,
    ),
    order=itemgetter(COLUMNS.index("seq")),
)


_FINISHED_BEHIND = Query(
    AuditRowRecord,
    SELECT.where(
        _c.tenant_id == sa.bindparam("tenant_id"),
        _c.seq >= sa.bindparam("first"),
        _c.seq < sa.bindparam("last"),
        _c.action == sa.literal_column(f"'{Action.RUN_FINISHED.value}'"),
        _SAID,
    )
    .order_by(_c.seq)
    .limit(sa.literal_column("1")),
    order=itemgetter(COLUMNS.index("seq")),
)


def _bounded(statement: sa.Select[Any], place: str) -> sa.Select[Any]:
    column = _c[place]
    statement = statement.where(column > sa.bindparam("above"), column < sa.bindparam("below"))
    if place == _CHAIN_PLACE:
        statement = statement.where(_c.tenant_id == sa.bindparam("tenant_id"))
    return statement


@lru_cache
def _newest(place: str) -> str:
    return compile_query(_bounded(sa.select(sa.func.max(_c[place])), place))


@lru_cache(maxsize=256)
def _search(place: str, given: frozenset[str], index: str | None) -> Query[AuditRowRecord]:
    query = _bounded(SELECT, place)
    if index is not None:
        query = query.where(sa.text(index))
    if "since" in given:
        query = query.where(_c.at >= sa.bindparam("since"))
    if "until" in given:
        query = query.where(_c.first_at < sa.bindparam("until"))
    if "entity" in given:
        query = query.where(_c.entity == sa.bindparam("entity") if index == HAS_ENTITY else _SAID)
    for name in sorted(given & {"action", "actor", "outcome"}):
        query = query.where(_c[name] == sa.bindparam(name))
    query = query.order_by(_c[place].desc()).limit(sa.bindparam("rows"))
    return Query(AuditRowRecord, query, order=itemgetter(COLUMNS.index(place)), descending=True)
