"""What can be asked of the audit log.

Entries that are not routine are found by indexes of their own. Everything else is looked for along the chain from its
end, so many entries in one call; the cursor of the page says how far it came.
"""

from __future__ import annotations

import sqlite3
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple

import sqlalchemy as sa

from synergymesh.domain.actors import ENGINE
from synergymesh.domain.audit.actions import ROUTINE, Action, Outcome
from synergymesh.domain.instants import Instant
from synergymesh.ports.audit import (
    AUDIT_PAGE_MAX,
    AUDIT_SCAN_MAX,
    AuditEntryRecord,
    AuditExtent,
    AuditHeadRecord,
    AuditPage,
)
from synergymesh.store.audit.writes import LOG_ID, log_id_text
from synergymesh.store.reads import Query
from synergymesh.store.schema import (
    NOT_A_TASK_DONE,
    NOT_ROUTINE,
    NOT_THE_ENGINE,
    NOT_WELL,
    audit_entries,
    audit_heads,
    meta,
)
from synergymesh.store.statements import compile_query

_LAST = 2**63 - 1
_ENTRY = sa.select(*(audit_entries.c[name] for name in AuditEntryRecord.__struct_fields__))
_SEQ = AuditEntryRecord.__struct_fields__.index("seq")

LOG_ID_NOW = compile_query(sa.select(meta.c.value).where(meta.c.name == sa.literal_column(f"'{LOG_ID}'")))
_HEADS = Query(
    AuditHeadRecord,
    sa.select(*(audit_heads.c[name] for name in AuditHeadRecord.__struct_fields__)).order_by(audit_heads.c.tenant_id),
    order=itemgetter(0),
)
_RECORDED = compile_query(sa.select(sa.func.coalesce(sa.func.sum(audit_heads.c.seq), 0)))
_FROM_THE_END = compile_query(
    sa.select(audit_entries.c.at).order_by(audit_entries.c.entry_id.desc()).limit(1).offset(sa.bindparam("behind"))
)
WAITING_LOOKED_AT_MAX = 100_000
"""Entries behind a checkpoint that are counted back to the oldest one: ten milliseconds, and hours of trouble."""

_CHAIN = Query(
    AuditEntryRecord,
    _ENTRY.where(audit_entries.c.tenant_id == sa.bindparam("tenant_id"), audit_entries.c.seq > sa.bindparam("after"))
    .order_by(audit_entries.c.seq)
    .limit(sa.bindparam("limit")),
    order=itemgetter(_SEQ),
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
    behind = 0 if signed is None else min(entries - signed, WAITING_LOOKED_AT_MAX)
    row = connection.execute(_FROM_THE_END, {"behind": behind - 1}).fetchone() if behind > 0 else None
    return AuditExtent(entries, None if row is None else row[0])


def list_entries(connection: sqlite3.Connection, tenant_id: str, after_seq: int, limit: int) -> list[AuditEntryRecord]:
    """Give the entries of one chain in its order, those behind `after_seq`."""
    return _CHAIN.run(
        connection, {"tenant_id": tenant_id, "after": after_seq, "limit": max(0, min(limit, AUDIT_PAGE_MAX))}
    )


def find_entries(
    connection: sqlite3.Connection, tenant_id: str | None, wanted: Wanted, cursor: int | None, limit: int
) -> AuditPage:
    """Give entries, newest first: of one chain in its order, or of all (None) in the order of their recording.

    A call looks at `AUDIT_SCAN_MAX` entries at most, unless an index leads to those that are wanted.
    """
    limit = max(1, min(limit, AUDIT_PAGE_MAX))
    place = _CHAIN_PLACE if tenant_id is not None else _LOG_PLACE
    above, below = 0, _LAST if cursor is None else cursor
    arguments: dict[str, Any] = {name: value for name, value in wanted._asdict().items() if value is not None}
    arguments["tenant_id"] = tenant_id
    given = frozenset(name for name, value in wanted._asdict().items() if value is not None)
    index = None
    if tenant_id is not None:
        index = _index_for(wanted)
        if index is None and wanted.entity is not None:
            above, end = _place_of_run(connection, tenant_id, wanted.entity)
            below = min(below, end)
    oldest = above
    if given and index is None:
        bounds = {"tenant_id": tenant_id, "above": above, "below": below}
        newest = connection.execute(_newest(place), bounds).fetchone()[0]
        if newest is None:
            return AuditPage([], None)
        above = max(above, newest - AUDIT_SCAN_MAX)
    query = _search(place, given, index)
    entries = query.run(connection, {**arguments, "above": above, "below": below, "limit": limit})
    if len(entries) == limit:
        return AuditPage(entries, getattr(entries[-1], place))
    return AuditPage(entries, above + 1 if above > oldest else None)


_CHAIN_PLACE = "seq"
_LOG_PLACE = "entry_id"


def _index_for(wanted: Wanted) -> str | None:
    """Give the condition of the index that leads to what is wanted, the most choosy one first."""
    if wanted.entity is not None and not wanted.entity.startswith("task/"):
        return NOT_A_TASK_DONE
    if wanted.actor is not None and wanted.actor != str(ENGINE):
        return NOT_THE_ENGINE
    if wanted.action is not None and wanted.action not in ROUTINE:
        return NOT_ROUTINE
    if wanted.outcome is not None and wanted.outcome is not Outcome.SUCCESS:
        return NOT_WELL
    return None


def _place_of_run(connection: sqlite3.Connection, tenant_id: str, entity: str) -> tuple[int, int]:
    """Give the places in the chain between which the entries of a task are: those of its run enclose them."""
    run_id = entity.split("/", 2)[1]
    arguments = {"tenant_id": tenant_id, "entity": f"run/{run_id}"}
    rows = connection.execute(_PLACES_OF_RUN, arguments).fetchall()
    if not rows:
        return 0, 0
    last, action = rows[-1]
    return rows[0][0], last if action == Action.RUN_FINISHED else _LAST


_PLACES_OF_RUN = compile_query(
    sa.select(audit_entries.c.seq, audit_entries.c.action)
    .where(
        audit_entries.c.tenant_id == sa.bindparam("tenant_id"),
        audit_entries.c.entity == sa.bindparam("entity"),
        sa.text(NOT_A_TASK_DONE),
    )
    .order_by(audit_entries.c.seq)
)


def _bounded(statement: sa.Select[Any], place: str) -> sa.Select[Any]:
    column = audit_entries.c[place]
    statement = statement.where(column > sa.bindparam("above"), column < sa.bindparam("below"))
    if place == _CHAIN_PLACE:
        statement = statement.where(audit_entries.c.tenant_id == sa.bindparam("tenant_id"))
    return statement


@lru_cache
def _newest(place: str) -> str:
    return compile_query(_bounded(sa.select(sa.func.max(audit_entries.c[place])), place))


@lru_cache(maxsize=256)
def _search(place: str, given: frozenset[str], index: str | None) -> Query[AuditEntryRecord]:
    columns = audit_entries.c
    query = _bounded(_ENTRY, place)
    if index is not None:
        query = query.where(sa.text(index))
    if "since" in given:
        query = query.where(columns.at >= sa.bindparam("since"))
    if "until" in given:
        query = query.where(columns.at < sa.bindparam("until"))
    for name in sorted(given & {"action", "actor", "entity", "outcome"}):
        query = query.where(columns[name] == sa.bindparam(name))
    query = query.order_by(columns[place].desc()).limit(sa.bindparam("limit"))
    return Query(
        AuditEntryRecord,
        query,
        order=itemgetter(AuditEntryRecord.__struct_fields__.index(place)),
        descending=True,
    )
