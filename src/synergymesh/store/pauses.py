"""Workflows that are paused: recorded, taken back, and listed."""

from __future__ import annotations

import sqlite3
from operator import itemgetter

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from synergymesh.ports.changes import WorkflowPaused, WorkflowResumed
from synergymesh.ports.records import PauseRecord
from synergymesh.store.reads import Query, select, visible
from synergymesh.store.schema import pauses
from synergymesh.store.statements import compile_query
from synergymesh.store.tenant_writes import Unrecordable, has_tenant

ALL = ""
"""Stands for all tenants."""

_PAUSE = compile_query(
    sqlite.insert(pauses)
    .values(tenant_id=sa.bindparam("tenant"), workflow=sa.bindparam("name"), paused_at=sa.bindparam("at"))
    .on_conflict_do_nothing(index_elements=["tenant_id", "workflow"])
)
_RESUME = compile_query(
    sa.delete(pauses).where(pauses.c.tenant_id == sa.bindparam("tenant"), pauses.c.workflow == sa.bindparam("name"))
)
_ALL = Query(PauseRecord, visible(select(pauses, PauseRecord), pauses, False), order=itemgetter(0, 1))


def pause_workflow(connection: sqlite3.Connection, change: WorkflowPaused) -> bool:
    """Pause a workflow; tell whether it was not paused before.

    Raises:
        Unrecordable: there is no such tenant.
    """
    if change.tenant_id != ALL and not has_tenant(connection, change.tenant_id):
        raise Unrecordable(f"there is no tenant {change.tenant_id!r}")
    arguments = {"tenant": change.tenant_id, "name": change.workflow, "at": change.paused_at}
    return bool(connection.execute(_PAUSE, arguments).rowcount)


def resume_workflow(connection: sqlite3.Connection, change: WorkflowResumed) -> bool:
    """Let a workflow go on; tell whether it was paused."""
    arguments = {"tenant": change.tenant_id, "name": change.workflow}
    return bool(connection.execute(_RESUME, arguments).rowcount)


def list_pauses(connection: sqlite3.Connection) -> list[PauseRecord]:
    """Give all workflows that are paused, ordered by (tenant, workflow)."""
    return _ALL.run(connection, {})
