"""How tenants are recorded: what a family of tenants allows, and what is refused of those that are deleted."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

import sqlalchemy as sa

from synergymesh.domain.states import TenantStatus
from synergymesh.ports.changes import RunCreated, TenantCreated, TenantPlanChanged, TenantStatusChanged
from synergymesh.store import statements as sql
from synergymesh.store.schema import tenants


class Unrecordable(Exception):
    """A change breaks an invariant that no constraint of the schema catches; the message is for the user."""


_LIST = sa.func.json_each(sa.bindparam("list")).table_valued("value")
_STATUSES = sql.compile_query(
    sa.select(tenants.c.tenant_id, tenants.c.status).where(tenants.c.tenant_id.in_(sa.select(_LIST.c.value)))
)
_DELETED = sql.compile_query(sa.select(tenants.c.tenant_id).where(sql.has_status(tenants, [TenantStatus.DELETED])))
_HAS = sql.compile_query(sa.select(tenants.c.tenant_id).where(tenants.c.tenant_id == sa.bindparam("id")))
_CHILD = sql.compile_query(
    sa.select(tenants.c.tenant_id)
    .where(tenants.c.parent_id == sa.bindparam("id"), sql.has_no_status(tenants, [TenantStatus.DELETED]))
    .limit(sa.literal_column("1"))
)


def has_tenant(connection: sqlite3.Connection, tenant_id: str) -> bool:
    """Tell whether there is such a tenant, deleted or not."""
    return connection.execute(_HAS, {"id": tenant_id}).fetchone() is not None


def create_tenants(connection: sqlite3.Connection, created: Sequence[TenantCreated]) -> int:
    """Record new tenants, and give how many these are; those that are there already stay as they are.

    Raises:
        Unrecordable: a new one has a parent that is not there or deleted.
    """
    if any(change.parent_id is not None for change in created):
        _check_parents(connection, created)
    return sql.CREATE_TENANTS.execute(connection, created)


def _check_parents(connection: sqlite3.Connection, created: Sequence[TenantCreated]) -> None:
    """Refuse a parent that is not there when its child joins: the foreign key would accept one that joins after it."""
    named = {name for change in created for name in (change.tenant_id, change.parent_id) if name is not None}
    statuses = dict(connection.execute(_STATUSES, {"list": json.dumps(list(named))}).fetchall())
    for change in created:
        if change.tenant_id in statuses:
            continue
        if change.parent_id is not None and (status := statuses.get(change.parent_id)) != TenantStatus.ACTIVE:
            if status is None:
                raise Unrecordable(f"there is no tenant {change.parent_id!r}")
            if status == TenantStatus.DELETED:
                raise Unrecordable(f"the tenant {change.parent_id!r} is deleted")
        statuses[change.tenant_id] = TenantStatus.ACTIVE


def change_tenant_status(connection: sqlite3.Connection, change: TenantStatusChanged) -> bool:
    """Record a tenant's new status, and tell whether it is another one; one that is deleted stays so.

    Raises:
        Unrecordable: it is not there, or would be deleted before its sub-tenants.
    """
    if change.status is TenantStatus.DELETED:
        child = connection.execute(_CHILD, {"id": change.tenant_id}).fetchone()
        if child is not None:
            raise Unrecordable(f"the tenant {change.tenant_id!r} has the sub-tenant {child[0]!r}, which is not deleted")
    if sql.CHANGE_TENANT_STATUS.execute(connection, [change]) == 1:
        return True
    if not has_tenant(connection, change.tenant_id):
        raise Unrecordable(f"there is no tenant {change.tenant_id!r}")
    return False


def change_tenant_plan(connection: sqlite3.Connection, change: TenantPlanChanged) -> bool:
    """Record a tenant's new plan, and tell whether it is another one.

    Raises:
        Unrecordable: it is not there, or deleted.
    """
    if sql.CHANGE_TENANT_PLAN.execute(connection, [change]) == 1:
        return True
    statuses = dict(connection.execute(_STATUSES, {"list": json.dumps([change.tenant_id])}).fetchall())
    status = statuses.get(change.tenant_id)
    if status is None:
        raise Unrecordable(f"there is no tenant {change.tenant_id!r}")
    if status == TenantStatus.DELETED:
        raise Unrecordable(f"the tenant {change.tenant_id!r} is deleted")
    return False


def refuse_runs_of_deleted_tenants(connection: sqlite3.Connection, created: Sequence[RunCreated]) -> None:
    """Refuse runs whose tenant is deleted.

    Raises:
        Unrecordable: there is one.
    """
    deleted = {tenant_id for (tenant_id,) in connection.execute(_DELETED)}
    if not deleted:
        return
    for change in created:
        if change.tenant_id in deleted:
            raise Unrecordable(f"the tenant {change.tenant_id!r} is deleted")
