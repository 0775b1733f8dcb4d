"""The deletion of finished runs: few rows at a time, a run never by halves."""

from __future__ import annotations

import json
import sqlite3
import time
from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate

import sqlalchemy as sa

from synergymesh.domain.instants import Instant
from synergymesh.ports.records import PrunablePage, Pruned
from synergymesh.store.audit.entries import runs_pruned
from synergymesh.store.audit.writes import Trail
from synergymesh.store.schema import CHILDREN_OF_RUNS, FINAL_RUN_STATUSES, runs
from synergymesh.store.statements import compile_query, delete_rows, has_status
from synergymesh.store.transactions import transaction_without_waiting

_ENDED = sa.and_(has_status(runs, FINAL_RUN_STATUSES), runs.c.ended_at < sa.bindparam("ended_before"))
_PRUNABLE = sa.or_(runs.c.pruned_at.is_not(None), _ENDED)

_LIST = sa.func.json_each(sa.bindparam("list")).table_valued("value")
_LISTED = sa.select(_LIST.c.value)

_looked_at = (
    sa.select(runs.c.run_id, _PRUNABLE.label("prunable"))
    .where(
        runs.c.tenant_id == sa.bindparam("tenant_id"),
        runs.c.run_id > sa.bindparam("after"),
        runs.c.run_id < sa.bindparam("before"),
    )
    .order_by(runs.c.run_id)
    .limit(sa.bindparam("limit"))
    .subquery("looked_at")
)
_PAGE = compile_query(
    sa.select(
        sa.func.count(),
        sa.func.max(_looked_at.c.run_id),
        sa.func.json_group_array(_looked_at.c.run_id).filter(_looked_at.c.prunable),
    )
)


def _rows_of_a_run() -> sa.ColumnElement[int]:
    """Count the rows that go with a run, in each table no more than `limit`."""
    counts = [
        sa.select(sa.func.count())
        .select_from(
            sa.select(table.c.run_id)
            .where(table.c.run_id == runs.c.run_id)
            .limit(sa.bindparam("limit"))
            .correlate(runs)
            .subquery()
        )
        .scalar_subquery()
        for table in CHILDREN_OF_RUNS
    ]
    return sum(counts, start=sa.literal_column("1"))


_SIZES = compile_query(
    sa.select(runs.c.run_id, runs.c.tenant_id, runs.c.pruned_at, _rows_of_a_run())
    .where(runs.c.run_id.in_(_LISTED), _PRUNABLE)
    .order_by(runs.c.run_id)
)
_HIDE = compile_query(
    sa.update(runs)
    .values(pruned_at=sa.bindparam("ended_before"), idempotency_key=sa.null())
    .where(runs.c.run_id == sa.bindparam("run_id"), runs.c.pruned_at.is_(None))
)
_DELETE_CHILDREN = [delete_rows(table, table.c.run_id.in_(_LISTED)) for table in CHILDREN_OF_RUNS]
_DELETE_RUNS = compile_query(sa.delete(runs).where(runs.c.run_id.in_(_LISTED)))


def list_prunable_runs(
    connection: sqlite3.Connection, tenant_id: str, ended_before: Instant, after: str | None, before: str, limit: int
) -> PrunablePage:
    """Look at the next `limit` runs of a tenant and give those that may go."""
    arguments = {
        "tenant_id": tenant_id,
        "ended_before": ended_before,
        "after": after or "",
        "before": before,
        "limit": max(0, limit),
    }
    looked_at, last, found = connection.execute(_PAGE, arguments).fetchone()
    return PrunablePage(json.loads(found), last if looked_at >= limit > 0 else None)


def prune_runs(connection: sqlite3.Connection, run_ids: Sequence[str], ended_before: Instant, limit: int) -> Pruned:
    """Delete at most `limit` rows of those of these runs that may go, run by run."""
    if limit <= 0 or not run_ids:
        return Pruned(0, list(run_ids))
    with transaction_without_waiting(connection):
        arguments = {"list": json.dumps(list(run_ids)), "ended_before": ended_before, "limit": limit}
        found: list[tuple[str, str, int | None, int]] = connection.execute(_SIZES, arguments).fetchall()
        chosen = _fitting([size for *_, size in found], limit)
        going = [row[0] for row in found[:chosen]]
        if going:
            rows = _delete(connection, going, limit)
        elif found:
            # Larger than a step: hidden first, so that nobody takes what is left of it for the whole.
            connection.execute(_HIDE, {"run_id": found[0][0], "ended_before": ended_before}).close()
            rows = _delete_children(connection, [found[0][0]], limit)
        else:
            return Pruned(0, [])
        _record(connection, [(tenant_id, run_id) for run_id, tenant_id, at, _ in found[: chosen or 1] if at is None])
    return Pruned(rows, [row[0] for row in found[chosen:]])


def _fitting(sizes: Sequence[int], limit: int) -> int:
    """Count how many of the first ones have no more than `limit` rows together."""
    return sum(rows <= limit for rows in accumulate(sizes))


def _record(connection: sqlite3.Connection, pruned: Sequence[tuple[str, str]]) -> None:
    """Note in the audit log which runs of which tenants are gone from now on."""
    by_tenant: dict[str, list[str]] = defaultdict(list)
    for tenant_id, run_id in pruned:
        by_tenant[tenant_id].append(run_id)
    if by_tenant:
        trail = Trail(connection)
        now = time.time_ns()
        trail.add([runs_pruned(tenant_id, now, run_ids) for tenant_id, run_ids in by_tenant.items()])
        trail.seal()


def _delete(connection: sqlite3.Connection, run_ids: list[str], limit: int) -> int:
    rows = _delete_children(connection, run_ids, limit)
    return rows + connection.execute(_DELETE_RUNS, {"list": json.dumps(run_ids)}).rowcount


def _delete_children(connection: sqlite3.Connection, run_ids: list[str], limit: int) -> int:
    rows = 0
    for statement in _DELETE_CHILDREN:
        if rows < limit:
            arguments = {"list": json.dumps(run_ids), "limit": limit - rows}
            rows += connection.execute(statement, arguments).rowcount
    return rows
