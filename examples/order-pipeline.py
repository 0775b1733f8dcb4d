"""An order goes through its pipeline: validated, reserved and charged side by side, shipped, confirmed.

python examples/order-pipeline.py
"""

import asyncio
from typing import Any

from synergymesh import Orchestrator, RetryPolicy, TenantTier, task, workflow

attempts = 0


@task
async def validate(order: dict[str, Any]) -> dict[str, Any]:
    if not order["items"]:
        raise ValueError("an order has at least one item")
    return order


@task(weight=0.1)
async def reserve(order: dict[str, Any]) -> str:
    await asyncio.sleep(0.1)
    return f"{len(order['items'])} items reserved"


@task(weight=0.2, retry=RetryPolicy(max_retries=3, initial_delay=0.05, retry_on=(ConnectionError,)))
async def charge(order: dict[str, Any]) -> str:
    global attempts
    attempts += 1
    if attempts == 1:
        raise ConnectionError("the bank does not answer")
    await asyncio.sleep(0.2)
    return f"{sum(order['items'].values())} euros charged"


@task
async def ship(reserved: str, charged: str) -> str:
    return f"shipped: {reserved}, {charged}"


@workflow
def checkout(order: dict[str, Any]) -> Any:
    valid = validate(order)
    return ship(reserve(valid), charge(valid))


async def main() -> None:
    async with Orchestrator(":memory:") as mesh:
        shop = await mesh.create_tenant("Shop", TenantTier.PROFESSIONAL)
        order = {"items": {"tea": 12, "pot": 30}}
        run = await mesh.submit(checkout, tenant=shop.tenant_id, input={"order": order}, idempotency_key="order-42")
        async for event in run.events():
            print(f"{event.task_id or 'run':9} {event.status}")
        print(await run.result())


asyncio.run(main())
