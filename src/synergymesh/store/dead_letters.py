"""The tasks that failed for good: the queries that find them."""

from __future__ import annotations

import sqlite3
from functools import lru_cache
from operator import itemgetter
from typing import Any

import sqlalchemy as sa

from synergymesh.ports.records import DeadLetterRecord
from synergymesh.store.reads import Query, visible
from synergymesh.store.schema import DEAD_LETTER, DEAD_TASK, runs, tasks
from synergymesh.store.statements import compile_query

_retry = runs.alias("retry")

# A type is found by its full name, or by the last part of it; an error names its type and all that it derives from.
_ERROR = "CAST(tasks.error AS TEXT)"
_IS_NAMED = "(name.value = :error_type OR substr(name.value, -length(:error_type) - 1) = '.' || :error_type)"
_HAS_ERROR = sa.text(
    f"EXISTS (SELECT 1 FROM json_each({_ERROR}, '$.types') AS name WHERE {_IS_NAMED}) "
    f"OR EXISTS (SELECT 1 FROM json_each(json_array(json_extract({_ERROR}, '$.type'))) AS name WHERE {_IS_NAMED})"
)


def _select(of_tenant: bool) -> sa.Select[Any]:
    """Select the columns of `DeadLetterRecord`, in its order."""
    query = sa.select(
        tasks.c.run_id,
        tasks.c.component_id,
        tasks.c.tenant_id,
        runs.c.workflow,
        runs.c.content_hash,
        runs.c.status.label("run_status"),
        tasks.c.status,
        tasks.c.attempt,
        tasks.c.started_at,
        tasks.c.ended_at,
        tasks.c.error,
        tasks.c.crashes,
        tasks.c.discarded_at,
        tasks.c.discard_reason,
        _retry.c.run_id.label("retried_as"),
    ).select_from(
        tasks.join(runs, runs.c.run_id == tasks.c.run_id).outerjoin(_retry, _retry.c.retry_of == tasks.c.run_id)
    )
    return visible(query, tasks, of_tenant)


@lru_cache
def _page(of_tenant: bool, of_workflow: bool, of_error: bool, since: bool, before: bool) -> Query[DeadLetterRecord]:
    query = _select(of_tenant).where(sa.text(DEAD_LETTER.replace("status", "tasks.status")), _retry.c.run_id.is_(None))
    if of_workflow:
        query = query.where(runs.c.workflow == sa.bindparam("workflow"))
    if of_error:
        query = query.where(sa.or_(_HAS_ERROR))
    if since:
        query = query.where(tasks.c.ended_at >= sa.bindparam("since"))
    if before:
        place = sa.tuple_(tasks.c.run_id, tasks.c.component_id)
        query = query.where(place < sa.tuple_(sa.bindparam("run_id"), sa.bindparam("component_id")))
    query = query.order_by(tasks.c.run_id.desc(), tasks.c.component_id.desc()).limit(sa.bindparam("limit"))
    return Query(DeadLetterRecord, query, order=itemgetter(0, 1), descending=True)


@lru_cache
def _one(of_tenant: bool) -> Query[DeadLetterRecord]:
    query = _select(of_tenant).where(
        sa.text(DEAD_TASK.replace("status", "tasks.status")),
        tasks.c.run_id == sa.bindparam("run_id"),
        tasks.c.component_id == sa.bindparam("component_id"),
    )
    return Query(DeadLetterRecord, query, order=itemgetter(0))


@lru_cache
def _retry_query(of_tenant: bool) -> str:
    return compile_query(
        visible(sa.select(runs.c.run_id).where(runs.c.retry_of == sa.bindparam("run_id")), runs, of_tenant)
    )


def list_dead_letters(
    connection: sqlite3.Connection,
    tenant_id: str | None,
    workflow: str | None,
    error_type: str | None,
    since: int | None,
    before: tuple[str, str] | None,
    limit: int,
) -> list[DeadLetterRecord]:
    """Give tasks that failed for good and that nobody has seen to, newest run first."""
    query = _page(
        tenant_id is not None, workflow is not None, error_type is not None, since is not None, before is not None
    )
    run_id, component_id = before or (None, None)
    arguments = {
        "tenant_id": tenant_id,
        "workflow": workflow,
        "error_type": error_type,
        "since": since,
        "run_id": run_id,
        "component_id": component_id,
        "limit": max(0, limit),
    }
    return query.run(connection, arguments)


def get_dead_letter(
    connection: sqlite3.Connection, run_id: str, component_id: str, tenant_id: str | None
) -> DeadLetterRecord | None:
    """Give one task that failed for good."""
    arguments = {"run_id": run_id, "component_id": component_id, "tenant_id": tenant_id}
    return next(iter(_one(tenant_id is not None).run(connection, arguments)), None)


def get_retry(connection: sqlite3.Connection, run_id: str, tenant_id: str | None) -> str | None:
    """Give the id of the run that goes on where this one failed."""
    row = connection.execute(_retry_query(tenant_id is not None), {"run_id": run_id, "tenant_id": tenant_id}).fetchone()
    return None if row is None else str(row[0])
