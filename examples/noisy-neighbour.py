"""One tenant floods the mesh; another one with the same plan hardly notices.

python examples/noisy-neighbour.py
"""

import asyncio
import time
from typing import Any

from synergymesh import DirectCall, Orchestrator, TenantTier


async def work() -> None:
    await asyncio.sleep(0.01)


async def call(mesh: Orchestrator, tenant_id: str) -> float:
    began = time.perf_counter()
    await mesh.call([DirectCall(component_id="work", function=work)], tenant=tenant_id)
    return time.perf_counter() - began


async def main() -> None:
    async with Orchestrator(":memory:", max_concurrent_tasks=8) as mesh:
        noisy = await mesh.create_tenant("Noisy", TenantTier.ENTERPRISE)
        quiet = await mesh.create_tenant("Quiet", TenantTier.ENTERPRISE)
        flood: list[asyncio.Task[Any]] = [asyncio.create_task(call(mesh, noisy.tenant_id)) for _ in range(1_000)]
        await asyncio.sleep(0.1)
        waits = [await call(mesh, quiet.tenant_id) for _ in range(20)]
        print(f"a call of Quiet beside 1,000 of Noisy took {1_000 * max(waits):.0f} ms at most")
        for neighbour in await mesh.neighbours():
            tenant = await mesh.get_tenant(neighbour.tenant_id)
            print(f"{tenant.tenant_name:5}  {neighbour.starts:5,} starts, score {neighbour.score}")
        await mesh.throttle_tenant(noisy.tenant_id, 10)
        print("Noisy may use a tenth of its own limits now")
        await mesh.throttle_tenant(noisy.tenant_id, None)
        await asyncio.gather(*flood)


asyncio.run(main())
