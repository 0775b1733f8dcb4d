"""A journey is booked step by step; when a step fails for good, the ones before it are undone in reverse order.

python examples/saga.py
"""

import asyncio
from typing import Any

from synergymesh import Orchestrator, RetryPolicy, TenantTier, task, workflow
from synergymesh.errors import RunFailed

NEVER_AGAIN = RetryPolicy(max_retries=0)


async def cancel_flight(booking: str) -> None:
    print(f"cancelled: {booking}")


async def cancel_hotel(booking: str) -> None:
    print(f"cancelled: {booking}")


@task(compensate=cancel_flight)
async def book_flight(traveller: str) -> str:
    return f"flight of {traveller}"


@task(compensate=cancel_hotel)
async def book_hotel(traveller: str, flight: str) -> str:
    return f"hotel of {traveller}"


@task(retry=NEVER_AGAIN)
async def rent_car(traveller: str, hotel: str) -> str:
    raise RuntimeError("no car is left")


@workflow
def journey(traveller: str) -> Any:
    flight = book_flight(traveller)
    hotel = book_hotel(traveller, flight)
    return rent_car(traveller, hotel)


async def main() -> None:
    async with Orchestrator(":memory:") as mesh:
        agency = await mesh.create_tenant("Agency", TenantTier.ENTERPRISE)
        run = await mesh.submit(journey, tenant=agency.tenant_id, input={"traveller": "Ann"})
        try:
            await run.result()
        except RunFailed as error:
            print(f"the journey failed: {error}")
        for each in (await mesh.get_run(run.id)).tasks:
            print(f"{each.task_id:17} {each.status}")


asyncio.run(main())
