"""What happens to a tenant's backlog while a page of it is being read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from synergymesh import Orchestrator, ResourceQuota, RunCancelled, TenantTier, Workflow, current_task
from synergymesh.settings import read_settings

ROOMY = ResourceQuota(
    max_concurrent_tasks=200,
    max_memory_mb=1_000_000,
    max_cpu_percent=100,
    max_tasks_per_hour=1_000_000,
    rate_limit_per_second=1_000_000,
)
SIZE = 3


class Steps:
    """Tasks that end one by one, when they are let go."""

    def __init__(self) -> None:
        self.permits = asyncio.Semaphore(0)
        self.done: list[str] = []
        self.workflow = Workflow("steps").add(self.step, id="step")

    async def step(self) -> None:
        await self.permits.acquire()
        self.done.append(current_task().run_id)

    def let_go(self, tasks: int) -> None:
        for _ in range(tasks):
            self.permits.release()


def make() -> Orchestrator:
    fields: dict[str, Any] = {"shutdown_grace_seconds": 0.0, "waiting_runs_in_memory": SIZE, "max_concurrent_tasks": 1}
    return Orchestrator(settings=read_settings(database=":memory:", **fields))


def after_next_read(
    mesh: Orchestrator, monkeypatch: pytest.MonkeyPatch, act: Callable[[], Awaitable[Any]]
) -> asyncio.Event:
    """Have something happen between the next page's being read and its being used; give what says that it did."""
    assert mesh._parts is not None
    store: Any = mesh._parts.store
    read = store.list_waiting_runs
    happened = asyncio.Event()
    happening: list[None] = []

    async def and_act(*args: Any, **named: Any) -> Any:
        page = await read(*args, **named)
        if not happening:
            happening.append(None)
            await act()
            happened.set()
        return page

    monkeypatch.setattr(store, "list_waiting_runs", and_act)
    return happened


async def test_what_is_submitted_during_a_read_between_the_old_edge_and_the_new_one_is_not_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps = Steps()
    async with make() as mesh:
        tenant = (await mesh.create_tenant("A", TenantTier.ENTERPRISE, quota=ROOMY)).tenant_id
        handles = [await mesh.submit(steps.workflow, tenant=tenant, priority=5) for _ in range(4)]
        handles += [await mesh.submit(steps.workflow, tenant=tenant) for _ in range(20)]

        async def submit() -> None:
            handles.append(await mesh.submit(steps.workflow, tenant=tenant, priority=3))

        happened = after_next_read(mesh, monkeypatch, submit)
        steps.let_go(4)
        await asyncio.wait_for(happened.wait(), 10)
        steps.let_go(100)
        for handle in handles:
            await handle.result(10)
        assert sorted(steps.done) == sorted(handle.id for handle in handles)


async def test_a_page_that_was_read_before_the_window_was_pushed_back_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps = Steps()
    async with make() as mesh:
        tenant = (await mesh.create_tenant("A", TenantTier.ENTERPRISE, quota=ROOMY)).tenant_id
        handles = [await mesh.submit(steps.workflow, tenant=tenant) for _ in range(24)]

        async def submit() -> None:
            for _ in range(2 * SIZE + 2):
                handles.append(await mesh.submit(steps.workflow, tenant=tenant, priority=3))

        happened = after_next_read(mesh, monkeypatch, submit)
        steps.let_go(4)
        await asyncio.wait_for(happened.wait(), 10)
        steps.let_go(100)
        for handle in handles:
            await handle.result(10)
        assert sorted(steps.done) == sorted(handle.id for handle in handles)


async def test_a_run_that_ended_during_a_read_is_not_brought_back_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps()
    async with make() as mesh:
        tenant = (await mesh.create_tenant("A", TenantTier.ENTERPRISE, quota=ROOMY)).tenant_id
        handles = [await mesh.submit(steps.workflow, tenant=tenant) for _ in range(3)]
        happened = after_next_read(mesh, monkeypatch, handles[-1].cancel)
        assert mesh._parts is not None
        window = mesh._parts.window
        part = window._parts[tenant]
        part.stale = True  # as after a change of limits: everything is read from the beginning
        window._fill_soon(part)
        await asyncio.wait_for(happened.wait(), 10)
        steps.let_go(10)
        for handle in handles[:-1]:
            await handle.result(10)
        with pytest.raises(RunCancelled):
            await handles[-1].result(10)
        await asyncio.gather(*window._readers)
        await mesh._parts.committer.drained()
        assert steps.done == [handle.id for handle in handles[:-1]]
        assert list(mesh._parts.runs) == []
        assert mesh._parts.runs.backlog.total == 0
