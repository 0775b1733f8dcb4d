"""Sums up what the audit log says of a time: what did not succeed, and what is not routine.

Both are found by the indexes that leave out nearly all entries, so that they cost little in a log of any length.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import islice

import sqlalchemy as sa

from synergymesh.domain.audit.actions import ROUTINE, Action
from synergymesh.domain.instants import Instant
from synergymesh.ports.audit import AuditEntryRecord
from synergymesh.ports.audit_keeping import UnsuccessfulRecord
from synergymesh.store.audit.rows import SELECT, AuditRowRecord, unpack
from synergymesh.store.schema import NOT_ROUTINE, NOT_WELL, audit_entries
from synergymesh.store.statements import compile_query

COUNT_MAX = 1_000_000_000
"""What one entry may stand for; a larger figure was written there by somebody else."""

_c = audit_entries.c
_TEXT = "CAST(payload AS TEXT)"
_ONE_TENANT = sa.or_(sa.bindparam("tenant_id").is_(None), _c.tenant_id == sa.bindparam("tenant_id"))


def _said(name: str, otherwise: str) -> str:
    """Give the SQL of what a payload says in its details; a payload that is none says nothing."""
    return f"CASE WHEN json_valid({_TEXT}) THEN coalesce(json_extract({_TEXT}, '$.details.{name}'), {otherwise}) \
ELSE {otherwise} END"


_REASON: sa.Label[str] = sa.literal_column(
    f"CASE WHEN action = '{Action.LIMIT_HIT}' THEN substr(entity, 7) ELSE {_said('error_type', chr(39) * 2)} END"
).label("reason")
_TIMES: sa.ColumnClause[int] = sa.literal_column(f"min(max(CAST({_said('count', '1')} AS INTEGER), 1), {COUNT_MAX})")
_count = sa.func.sum(sa.case((_c.action == sa.literal_column(f"'{Action.LIMIT_HIT}'"), _TIMES), else_=1)).label("count")
_UNSUCCESSFUL = compile_query(
    sa.select(_c.tenant_id, _c.action, _c.outcome, _REASON, _count, sa.func.max(_c.at))
    .where(sa.text(NOT_WELL), _c.at >= sa.bindparam("since"), _ONE_TENANT)
    .group_by(_c.tenant_id, _c.action, _c.outcome, sa.literal_column("reason"))
    .order_by(sa.literal_column("count").desc(), _c.tenant_id, _c.action, sa.literal_column("reason"))
)


def count_unsuccessful(
    connection: sqlite3.Connection, tenant_id: str | None, since: Instant
) -> list[UnsuccessfulRecord]:
    """Count what failed or was denied, of one tenant or of all (None), the most frequent first."""
    rows = connection.execute(_UNSUCCESSFUL, {"tenant_id": tenant_id, "since": since})
    return [
        UnsuccessfulRecord(whose, action, outcome, str(reason), count, last_at)
        for whose, action, outcome, reason, count, last_at in rows
    ]


def list_newest(
    connection: sqlite3.Connection, actions: Sequence[Action], tenant_id: str | None, since: Instant, limit: int
) -> list[AuditEntryRecord]:
    """Give the newest entries of these actions, which are not routine, of one tenant or of all (None)."""
    assert not ROUTINE.intersection(actions)
    names = ", ".join(f"'{action.value}'" for action in actions)
    query = (
        SELECT.where(
            sa.text(NOT_ROUTINE), sa.literal_column(f"action IN ({names})"), _c.at >= sa.bindparam("since"), _ONE_TENANT
        )
        .order_by(sa.literal_column("+entry_id").desc())  # with a plus, so that the index is read and not the table
        .limit(sa.bindparam("limit"))
    )
    rows = connection.execute(compile_query(query), {"tenant_id": tenant_id, "since": since, "limit": limit})
    entries = (entry for row in rows for entry in unpack(AuditRowRecord(*row)) if entry.at >= since)
    return list(islice(entries, limit))
