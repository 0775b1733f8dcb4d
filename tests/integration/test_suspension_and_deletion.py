"""A deletion that is refused leaves the tenant as people wanted it meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from synergymesh import Orchestrator, Workflow
from synergymesh.domain.states import TenantStatus
from synergymesh.errors import TenantHasOpenRuns


@pytest.mark.parametrize("deletions", [1, 2])
@pytest.mark.parametrize("suspends", [True, False])
async def test_a_refused_deletion_leaves_the_status_that_was_asked_for(
    deletions: int, suspends: bool, with_faults: Any
) -> None:
    mesh = Orchestrator(":memory:", shutdown_grace_seconds=0.05)
    store = with_faults(mesh)
    counting, go_on = asyncio.Event(), asyncio.Event()
    count = store.count_runs

    async def slowly(**given: Any) -> Any:
        counting.set()
        await go_on.wait()
        return await count(**given)

    async def forever() -> None:
        await asyncio.sleep(3_600)

    async with mesh:
        tenant = (await mesh.create_tenant("A")).tenant_id
        await mesh.submit(Workflow("w").add(forever), tenant=tenant)
        store.count_runs = slowly
        refused = [asyncio.ensure_future(mesh.delete_tenant(tenant)) for _ in range(deletions)]
        await counting.wait()
        if suspends:
            await mesh.suspend_tenant(tenant)
        go_on.set()
        for each in refused:
            with pytest.raises(TenantHasOpenRuns):
                await each
        expected = TenantStatus.SUSPENDED if suspends else TenantStatus.ACTIVE
        assert (await mesh.get_tenant(tenant)).status is expected


async def test_two_deletions_of_a_sub_tenant_at_the_same_time_delete_it_once(mesh: Orchestrator) -> None:
    parent = (await mesh.create_tenant("A", "enterprise")).tenant_id
    child = (await mesh.create_tenant("B", parent=parent)).tenant_id
    await asyncio.gather(mesh.delete_tenant(child), mesh.delete_tenant(child, force=True))
    assert [tenant.tenant_id for tenant in await mesh.list_tenants()] == [parent]
    await mesh.delete_tenant(parent)
