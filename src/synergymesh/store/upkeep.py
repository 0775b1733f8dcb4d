"""The lives of processes on a database, and the removal of what is deleted."""

from __future__ import annotations

import json
import sqlite3
import time

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from synergymesh.domain.actors import Actor
from synergymesh.domain.instants import Instant
from synergymesh.domain.states import ExecutionStatus, TenantStatus
from synergymesh.ports.records import RESTORE_STEP, Incarnation
from synergymesh.store.audit.entries import mesh_restored, mesh_started, mesh_stopped, task_crashed, tenant_purged
from synergymesh.store.audit.writes import Trail
from synergymesh.store.schema import (
    CHILDREN_OF_RUNS,
    breakers,
    estimates,
    hour_reservations,
    meta,
    pauses,
    runs,
    statistics,
    tasks,
    tenants,
)
from synergymesh.store.statements import UNCLEAN, compile_query, delete_rows, has_status, status
from synergymesh.store.transactions import transaction

_NUMBER = "incarnation"
_ENDED_CLEANLY = "ended_cleanly"

_RUNS_PER_PURGE = 500
"""Runs that one purge looks at: few enough that a purge of few rows stays short."""

_FIRST_RESTORE: Instant = 1_735_689_600 * 1_000_000_000
"""The first of January 2025."""

_MILLISECOND = 1_000_000

_entry = sqlite.insert(meta)
_SET = compile_query(
    _entry.values(name=sa.bindparam("entry"), value=sa.bindparam("number")).on_conflict_do_update(
        index_elements=["name"], set_={"value": _entry.excluded.value}
    )
)
_ALL = compile_query(sa.select(meta.c.name, meta.c.value))
_COUNT_CRASHES = compile_query(
    sa.update(tasks)
    .values(status=status(ExecutionStatus.PENDING), crashes=tasks.c.crashes + sa.literal_column("1"))
    .where(has_status(tasks, [ExecutionStatus.RUNNING]))
)

_CRASHED = compile_query(
    sa.select(
        tasks.c.tenant_id,
        tasks.c.run_id,
        tasks.c.component_id,
        tasks.c.attempt,
        tasks.c.crashes + sa.literal_column("1"),
    ).where(has_status(tasks, [ExecutionStatus.RUNNING]))
)
_STOP_TASKS = compile_query(
    sa.update(tasks).values(status=status(ExecutionStatus.PENDING)).where(has_status(tasks, [ExecutionStatus.RUNNING]))
)

_LIST = sa.func.json_each(sa.bindparam("list")).table_valued("value")
_LISTED = sa.select(_LIST.c.value)
_DELETED = sa.select(tenants.c.tenant_id).where(has_status(tenants, [TenantStatus.DELETED]))
_DELETED_RUNS = compile_query(
    sa.select(runs.c.run_id).where(runs.c.tenant_id.in_(_DELETED)).limit(sa.bindparam("limit"))
)


_DELETE_CHILDREN = [delete_rows(table, table.c.run_id.in_(_LISTED)) for table in CHILDREN_OF_RUNS]
_DELETE_RUNS = compile_query(sa.delete(runs).where(runs.c.run_id.in_(_LISTED)))

_DELETE_OF_TENANTS = [
    delete_rows(table, table.c.tenant_id.in_(_DELETED))
    for table in (breakers, hour_reservations, estimates, statistics, pauses)
]

# Only used when no deleted tenant has anything else any more; the foreign keys would tell. Children first.
_child = tenants.alias("child")
_PURGEABLE_TENANTS = compile_query(
    _DELETED.where(~sa.exists().where(_child.c.parent_id == tenants.c.tenant_id)).limit(sa.bindparam("limit"))
)
_DELETE_TENANTS = compile_query(sa.delete(tenants).where(tenants.c.tenant_id.in_(_LISTED)))

_PRUNE_RESERVATIONS = delete_rows(hour_reservations, hour_reservations.c.minute < sa.bindparam("before"))


def begin_incarnation(connection: sqlite3.Connection, by: Actor | None = None) -> Incarnation:
    """Start a life; after an unclean end, count it for the open runs and for the tasks that were running."""
    with transaction(connection):
        entries: dict[str, int] = dict(connection.execute(_ALL).fetchall())
        number = entries.get(_NUMBER, 0) + 1
        ended_cleanly = bool(entries.get(_ENDED_CLEANLY, 1))
        trail = Trail(connection)
        now = time.time_ns()
        if not ended_cleanly:
            connection.execute(_SET, {"entry": UNCLEAN, "number": entries.get(UNCLEAN, 0) + 1}).close()
            crashed = connection.execute(_CRASHED).fetchall()
            connection.execute(_COUNT_CRASHES).close()
            trail.add([task_crashed(now, *task) for task in crashed])
        trail.add([mesh_started(number, ended_cleanly, now, by)])
        trail.seal()
        connection.execute(_SET, {"entry": _NUMBER, "number": number}).close()
        connection.execute(_SET, {"entry": _ENDED_CLEANLY, "number": 0}).close()
    return Incarnation(number=number, previous_ended_cleanly=ended_cleanly)


def end_incarnation(connection: sqlite3.Connection, by: Actor | None = None) -> None:
    """Record that this life ends cleanly."""
    with transaction(connection):
        entries: dict[str, int] = dict(connection.execute(_ALL).fetchall())
        if not entries.get(_ENDED_CLEANLY, 0):
            trail = Trail(connection)
            trail.add([mesh_stopped(entries.get(_NUMBER, 0), time.time_ns(), by)])
            trail.seal()
        connection.execute(_SET, {"entry": _ENDED_CLEANLY, "number": 1}).close()


def begin_again(connection: sqlite3.Connection, now: Instant) -> None:
    """Let a copy of a database be the database: no attempt gets a number that was given after the copy was made.

    Open runs count 1,000 recoveries more for every millisecond since 2025, so that the time between two restores of
    one backup would not have sufficed for as many attempts; the numbers stay below 2**53 for 280 years. The process
    that owned the database did not die: the tasks that ran are under no suspicion.
    """
    with transaction(connection):
        entries: dict[str, int] = dict(connection.execute(_ALL).fetchall())
        unclean = entries.get(UNCLEAN, 0)
        step = max((now - _FIRST_RESTORE) // _MILLISECOND, unclean // RESTORE_STEP + 1)
        connection.execute(_SET, {"entry": UNCLEAN, "number": step * RESTORE_STEP + unclean % RESTORE_STEP}).close()
        connection.execute(_SET, {"entry": _ENDED_CLEANLY, "number": 1}).close()
        stopped = connection.execute(_STOP_TASKS).rowcount
        trail = Trail(connection)
        trail.add([mesh_restored(entries.get(_NUMBER, 0), now, stopped)])
        trail.seal()


def purge_deleted(connection: sqlite3.Connection, limit: int) -> int:
    """Delete at most `limit` rows of deleted tenants, children first; give how many were deleted.

    0 means that nothing is left; it may delete fewer than `limit` rows at a time before.
    """
    if limit <= 0:
        return 0
    deleted = 0
    with transaction(connection):
        found = connection.execute(_DELETED_RUNS, {"limit": min(limit, _RUNS_PER_PURGE)}).fetchall()
        if not found:
            return _purge_tenants(connection, limit)
        run_ids = [run_id for (run_id,) in found]
        for statement in _DELETE_CHILDREN:
            if deleted < limit:
                arguments = {"list": json.dumps(run_ids), "limit": limit - deleted}
                deleted += connection.execute(statement, arguments).rowcount
        if deleted < limit:
            deleted += connection.execute(_DELETE_RUNS, {"list": json.dumps(run_ids[: limit - deleted])}).rowcount
    return deleted


def _purge_tenants(connection: sqlite3.Connection, limit: int) -> int:
    """Delete at most `limit` rows of deleted tenants that have no run any more."""
    deleted = 0
    for statement in _DELETE_OF_TENANTS:
        # Whatever is left over keeps its tenant for another time.
        if deleted < limit:
            deleted += connection.execute(statement, {"limit": limit - deleted}).rowcount
    if deleted < limit:
        gone = connection.execute(_PURGEABLE_TENANTS, {"limit": limit - deleted}).fetchall()
        if gone:
            trail = Trail(connection)
            now = time.time_ns()
            trail.add([tenant_purged(tenant_id, now) for (tenant_id,) in gone])
            trail.seal()
            names = json.dumps([tenant_id for (tenant_id,) in gone])
            deleted += connection.execute(_DELETE_TENANTS, {"list": names}).rowcount
    return deleted


def prune_reservations(connection: sqlite3.Connection, before_minute: int, limit: int) -> int:
    """Delete at most `limit` reservations of minutes before this one; give how many were deleted."""
    with transaction(connection):
        return connection.execute(_PRUNE_RESERVATIONS, {"before": before_minute, "limit": max(0, limit)}).rowcount
