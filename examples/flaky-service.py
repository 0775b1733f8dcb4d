"""A service is down for a while: its breaker opens, nothing is lost, and work goes on when the service is back.

python examples/flaky-service.py
"""

import asyncio
from typing import Any

from synergymesh import BreakerPolicy, Orchestrator, RetryPolicy, TenantTier, task, workflow


class Payments:
    """Stand for a service of somebody else."""

    is_up = False
    calls = 0


@task(breaker="payments-api", retry=RetryPolicy(max_retries=50, initial_delay=0.05, max_delay=0.2))
async def pay(number: int) -> int:
    Payments.calls += 1
    if not Payments.is_up:
        raise ConnectionError("payments do not answer")
    return number


@workflow
def payment(number: int) -> Any:
    return pay(number)


async def is_open(mesh: Orchestrator, tenant_id: str) -> bool:
    return any(breaker.state == "open" for breaker in await mesh.breakers(tenant_id))


async def main() -> None:
    async with Orchestrator(":memory:") as mesh:
        shop = await mesh.create_tenant("Shop", TenantTier.ENTERPRISE)
        careful = BreakerPolicy(failure_percent=50, minimum_calls=5, open_seconds=1, open_seconds_max=1)
        await mesh.set_breaker_policy(shop.tenant_id, careful, breaker="payments-api")
        runs = [await mesh.submit(payment, tenant=shop.tenant_id, input={"number": n}) for n in range(30)]

        while not await is_open(mesh, shop.tenant_id):  # noqa: ASYNC110 - a person looks at `synergymesh breakers`
            await asyncio.sleep(0.01)
        print(f"the breaker is open after {Payments.calls} calls; 30 payments wait and hold no slot")
        why = await mesh.explain(runs[-1].id)
        print("the last one waits for:", ", ".join(blocker.reason for blocker in why.waiting[0].blockers))

        Payments.is_up = True
        paid = [await run.result() for run in runs]
        print(f"the service is back: {len(paid)} payments done with {Payments.calls} calls")


asyncio.run(main())
