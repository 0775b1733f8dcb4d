"""Changes with everything filled in, and short ways to look at a store: what the tests of stores are written with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

from synergymesh.domain.states import ExecutionStatus
from synergymesh.ports.changes import (
    AttemptFailed,
    Change,
    RunCreated,
    RunFinished,
    TaskFinished,
    TaskStarted,
    TenantCreated,
    TenantPlanChanged,
    WorkflowStored,
)
from synergymesh.ports.records import Committed, RunRecord, TaskRecord
from synergymesh.ports.store import Store

S = ExecutionStatus
ACME = "tenant-acme"
BETA = "tenant-beta"
DEFINITION = b'{"components": []}'
OTHER_DEFINITION = b'{"components": ["other"]}'
HASH = sha256(DEFINITION).hexdigest()
OTHER = sha256(OTHER_DEFINITION).hexdigest()

MakeStore = Callable[[], Store]


def tenant(tenant_id: str = ACME, **fields: Any) -> TenantCreated:
    """Make a tenant that joins."""
    given: dict[str, Any] = {"tenant_name": tenant_id.title(), "tier": "basic", "quota": b"{}", "created_at": 1_000}
    return TenantCreated(tenant_id=tenant_id, **(given | fields))


def plan_changed(tenant_id: str = ACME, **fields: Any) -> TenantPlanChanged:
    """Make a tenant's new plan."""
    given: dict[str, Any] = {"tier": "enterprise", "quota": b"[1]", "policy": b"[2]", "changed_at": 3_000}
    return TenantPlanChanged(tenant_id=tenant_id, **(given | fields))


def workflow(content_hash: str = HASH, **fields: Any) -> WorkflowStored:
    """Make a workflow version."""
    given: dict[str, Any] = {
        "workflow": "checkout",
        "definition": OTHER_DEFINITION if content_hash == OTHER else DEFINITION,
        "source": None,
        "created_at": 1_000,
    }
    return WorkflowStored(content_hash=content_hash, **(given | fields))


def created(run_id: str, tenant_id: str = ACME, **fields: Any) -> RunCreated:
    """Make a submitted run."""
    given: dict[str, Any] = {
        "workflow": "checkout",
        "content_hash": HASH,
        "input": b"{}",
        "idempotency_key": None,
        "priority": 0,
        "not_before": 0,
        "created_at": 2_000,
    }
    return RunCreated(run_id=run_id, tenant_id=tenant_id, **(given | fields))


def finished(run_id: str, tenant_id: str = ACME, **fields: Any) -> RunFinished:
    """Make the end of a run."""
    given: dict[str, Any] = {"status": S.SUCCESS, "started_at": 2_100, "ended_at": 2_900, "result": b"1", "error": None}
    return RunFinished(run_id=run_id, tenant_id=tenant_id, **(given | fields))


def task_started(run_id: str, component_id: str, tenant_id: str = ACME, **fields: Any) -> TaskStarted:
    """Make the start of an attempt."""
    return TaskStarted(run_id, component_id, tenant_id, **({"attempt": 1, "started_at": 2_100} | fields))


def task_finished(run_id: str, component_id: str, tenant_id: str = ACME, **fields: Any) -> TaskFinished:
    """Make the final verdict of a task."""
    given: dict[str, Any] = {
        "status": S.SUCCESS,
        "attempt": 1,
        "started_at": 2_100,
        "ended_at": 2_200,
        "result": b"1",
        "error": None,
        "waited_for": "concurrency",
    }
    return TaskFinished(run_id, component_id, tenant_id=tenant_id, **(given | fields))


def attempt_failed(run_id: str, component_id: str, tenant_id: str = ACME, **fields: Any) -> AttemptFailed:
    """Make a failed attempt that is followed by another."""
    given: dict[str, Any] = {
        "number": 1,
        "status": S.FAILED,
        "started_at": 2_100,
        "ended_at": 2_200,
        "retry_at": 2_300,
        "error": b'{"type": "ValueError"}',
        "waited_for": "hour_limit",
    }
    return AttemptFailed(run_id, component_id, tenant_id=tenant_id, **(given | fields))


async def record(store: Store, *changes: Change) -> None:
    """Commit changes as one unit that must be accepted."""
    assert await store.commit([changes]) == [Committed()]


async def get_run(store: Store, run_id: str) -> RunRecord:
    """Give a run that must be there."""
    run = await store.get_run(run_id, None)
    assert run is not None
    return run


async def get_task(store: Store, run_id: str, component_id: str = "a") -> TaskRecord:
    """Give a task that must be there."""
    (task,) = [task for task in await store.list_tasks([run_id]) if task.component_id == component_id]
    return task


async def everything(store: Store, run_ids: Sequence[str]) -> list[Any]:
    """Give all that can be read."""
    return [
        await store.list_tenants(),
        await store.list_reservations(0),
        await store.list_estimates(),
        await store.list_breakers(None),
        await store.list_statistics(None, since_hour=0),
        await store.list_runs(tenant_id=None, limit=1_000),
        await store.list_tasks(run_ids),
        await store.list_attempts(run_ids),
    ]
