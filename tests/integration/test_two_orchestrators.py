"""Two orchestrators in one process do not touch each other; two on one database are refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from synergymesh import Orchestrator, ResourceQuota, Workflow, current_task, task
from synergymesh.errors import StoreLocked, UnknownRun, UnknownTenant

Open = Callable[..., Orchestrator]


@task
async def who() -> str:
    await asyncio.sleep(0)
    return current_task().tenant_id


shared = Workflow("shared").add(who)


async def test_two_orchestrators_run_the_same_workflow_side_by_side_and_know_nothing_of_each_other() -> None:
    async with Orchestrator(":memory:") as first, Orchestrator(":memory:") as second:
        tenants = [(await mesh.create_tenant("A", "enterprise")).tenant_id for mesh in (first, second)]
        handles = [
            [await mesh.submit(shared, tenant=tenant, idempotency_key=f"k{n}") for n in range(20)]
            for mesh, tenant in zip((first, second), tenants, strict=True)
        ]
        for own, tenant in zip(handles, tenants, strict=True):
            assert {await handle.result(10) for handle in own} == {tenant}
        for mesh, tenant, foreign in ((first, tenants[1], handles[1]), (second, tenants[0], handles[0])):
            assert len(await mesh.list_runs()) == 20
            assert len(await mesh.list_tenants()) == 1
            with pytest.raises(UnknownTenant):
                await mesh.get_tenant(tenant)
            with pytest.raises(UnknownRun):
                await mesh.get_run(foreign[0].id)


async def test_each_has_its_own_limits() -> None:
    running = {"first": 0, "second": 0}
    most = {"first": 0, "second": 0}
    gate = asyncio.Event()

    async def work(name: str) -> None:
        running[name] += 1
        most[name] = max(most[name], running[name])
        await gate.wait()
        running[name] -= 1

    async with Orchestrator(":memory:", max_concurrent_tasks=2) as first, Orchestrator(":memory:") as second:
        handles = []
        for name, mesh in (("first", first), ("second", second)):
            tenant = await mesh.create_tenant("A", "enterprise", quota=ResourceQuota(max_concurrent_tasks=4))
            for _ in range(6):
                handles.append(await mesh.submit(Workflow("w").add(work, args=[name]), tenant=tenant.tenant_id))
        gate.set()
        for handle in handles:
            await handle.result(10)
    assert most == {"first": 2, "second": 4}


async def test_the_end_of_one_does_not_disturb_the_other(open_mesh: Open, tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def work() -> str:
        await gate.wait()
        return "done"

    built = Workflow("w").add(work)
    async with open_mesh(tmp_path / "a.db") as first:
        tenant = (await first.create_tenant("A", "enterprise")).tenant_id
        handle = await first.submit(built, tenant=tenant)
        async with open_mesh(tmp_path / "b.db") as second:
            other = (await second.create_tenant("B", "enterprise")).tenant_id
            await second.submit(built, tenant=other)
        gate.set()
        assert await handle.result(10) == "done"


async def test_a_second_one_on_the_same_database_is_refused_and_the_first_goes_on(open_mesh: Open) -> None:
    async with open_mesh() as first:
        tenant = (await first.create_tenant("A", "enterprise")).tenant_id
        for _ in range(2):
            with pytest.raises(StoreLocked, match="is in use by process"):
                await open_mesh().start()
        assert await (await first.submit(shared, tenant=tenant)).result(10) == tenant
    async with open_mesh() as again:
        assert [each.tenant_id for each in await again.list_tenants()] == [tenant]
