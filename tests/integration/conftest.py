"""Orchestrators for tests: in memory, with short grace periods, and with a store that can be made to fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from synergymesh import Orchestrator, ResourceQuota, TenantTier
from synergymesh.errors import StoreError
from synergymesh.ports.changes import Unit
from synergymesh.ports.records import CommitResult
from synergymesh.ports.store import Store

ROOMY = ResourceQuota(
    max_concurrent_tasks=200,
    max_memory_mb=1_000_000,
    max_cpu_percent=100,
    max_tasks_per_hour=1_000_000,
    rate_limit_per_second=1_000_000,
)


class FaultyStore:
    """A store whose commits can be made to fail."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.error: StoreError | None = None
        self.fails: Callable[[Sequence[Unit]], bool] = lambda units: self.error is not None
        self.failures = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def commit(self, units: Sequence[Unit]) -> list[CommitResult]:
        if self.error is not None and self.fails(units):
            self.failures += 1
            raise self.error
        results: list[CommitResult] = await self._store.commit(units)
        return results


@pytest.fixture
async def mesh() -> AsyncIterator[Orchestrator]:
    """Give a started orchestrator in memory."""
    async with Orchestrator(":memory:", shutdown_grace_seconds=0.05, stop_grace_seconds=0.3) as started:
        yield started


@pytest.fixture
async def tenant(mesh: Orchestrator) -> str:
    """Give the id of a tenant with room for everything."""
    return (await mesh.create_tenant("Acme", TenantTier.ENTERPRISE, quota=ROOMY)).tenant_id


@pytest.fixture
async def unhandled() -> list[dict[str, Any]]:
    """Give the list of errors that nobody handled on the event loop."""
    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: errors.append(context))
    return errors


@pytest.fixture
def roomy() -> ResourceQuota:
    """Give a quota with room for everything."""
    return ROOMY


@pytest.fixture
def open_mesh(tmp_path: Path) -> Callable[..., Orchestrator]:
    """Give a function that makes an orchestrator on one and the same file."""

    def make(path: Path = tmp_path / "mesh.db", **settings: Any) -> Orchestrator:
        given = {"shutdown_grace_seconds": 0.05, "stop_grace_seconds": 0.3, **settings}
        return Orchestrator(f"sqlite:///{path}", **given)

    return make


@pytest.fixture
def with_faults() -> Callable[[Orchestrator], FaultyStore]:
    """Give a function that puts a store with faults under an orchestrator that is not started yet."""

    def wrap(mesh: Orchestrator) -> FaultyStore:
        faulty = FaultyStore(mesh._database)
        mesh._database = cast(Store, faulty)
        return faulty

    return wrap
