"""The scheduler by itself: what a decision costs, and what an idle tenant costs."""

from __future__ import annotations

import gc
import json
import sys
import time
import tracemalloc
from collections import deque
from collections.abc import Callable
from random import Random

from synergymesh.domain.instants import SECOND
from synergymesh.domain.scheduling.grants import Grant
from synergymesh.domain.scheduling.limits import Capacity, Limits, Request
from synergymesh.domain.scheduling.scheduler import Scheduler

NOW = 10**18
LIMITS = Limits(max_concurrent=100, memory_mb=8_192, cpu_millis=60_000, per_hour=1_000_000_000)
REQUEST = Request(64, 100)
SLOTS = 64
WEIGHTS = (1, 4, 16)


class WantedRun:
    """Stand for a run of which every task is wanted."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def wants(self, position: int) -> bool:
        """Tell that the task waits."""
        return True


# --- cost ----------------------------------------------------------------------------------------------------------


def decision_cost(tenants: int, decisions: int) -> dict[str, float]:
    """Give the microseconds of a decision (pop, charge, reinsert) and of the whole cycle with push and release."""
    scheduler: Scheduler[WantedRun] = Scheduler(Capacity(SLOTS, 1 << 20, 64_000), records_reservations=False)
    run = WantedRun("")
    for i in range(tenants):
        scheduler.add_tenant(f"t{i}", limits=LIMITS, weight=WEIGHTS[i % 3])
        for position in range(2):
            push(scheduler, f"t{i}", run, position)
    now = NOW
    running: deque[Grant[WantedRun]] = deque()
    clock = time.perf_counter
    cycle = decision = float("inf")
    for _ in range(3):
        deciding = 0.0
        begun = clock()
        for _ in range(decisions):
            if len(running) == SLOTS:
                grant = running.popleft()
                now += SECOND // 1_000
                scheduler.release(grant, now)
                push(scheduler, grant.tenant_id, run, grant.position)
            before = clock()
            chosen = scheduler.next(now)
            deciding += clock() - before
            assert chosen is not None
            running.append(chosen)
        cycle = min(cycle, (clock() - begun) / decisions)
        decision = min(decision, deciding / decisions)
    return {
        f"decision_us_{tenants}_tenants": decision * 1e6,
        f"cycle_us_{tenants}_tenants": cycle * 1e6,
    }


def short_of_memory(tenants: int, requests: int, starts: int) -> dict[str, float]:
    """Give what a start costs while memory is short: all tenants wait, and their tasks ask for so many different sizes.

    Returns:
        the microseconds of deciding for each task that ends and the one or several that start then; the milliseconds of
        the first fill, in which every tenant is looked at.
    """
    dice = Random(1)
    scheduler: Scheduler[WantedRun] = Scheduler(Capacity(1_000, 64 << 10, 1 << 30), records_reservations=False)
    limits = Limits(max_concurrent=100, memory_mb=1 << 20, cpu_millis=1 << 20)
    sizes = [Request(dice.randint(512, 2_048), dice.randint(500, 2_000)) for _ in range(requests)]
    run = WantedRun("")
    for i in range(tenants):
        scheduler.add_tenant(f"t{i}", limits=limits, weight=WEIGHTS[i % 3])
        for position in range(2):
            push(scheduler, f"t{i}", run, position, dice.choice(sizes))
    clock = time.perf_counter
    running: deque[Grant[WantedRun]] = deque()
    begun = clock()
    while (grant := scheduler.next(NOW)) is not None:
        running.append(grant)
    fill = clock() - begun
    cost = float("inf")
    now = NOW
    for _ in range(3):
        deciding, started = 0.0, 0
        while started < starts:
            grant = running.popleft()
            now += SECOND // 1_000
            scheduler.release(grant, now)
            push(scheduler, grant.tenant_id, run, 0, dice.choice(sizes))
            before = clock()
            while (chosen := scheduler.next(now)) is not None:
                running.append(chosen)
                started += 1
            deciding += clock() - before
        cost = min(cost, deciding / started)
    of = f"{tenants}_tenants_{requests}_requests"
    return {f"short_start_us_{of}": cost * 1e6, f"short_fill_ms_{of}": fill * 1e3}


def push(
    scheduler: Scheduler[WantedRun], tenant_id: str, run: WantedRun, position: int, request: Request = REQUEST
) -> None:
    scheduler.push(
        tenant_id,
        run,
        position,
        priority=0,
        age=0,
        rank=0,
        cost=1_000,
        request=request,
        component=position,
        since=NOW,
    )


def idle_tenant_bytes(tenants: int = 20_000) -> dict[str, float]:
    """Give what a tenant costs that has nothing to do: one that never had, and one that has worked before."""
    figures = {}
    for name, works in (("bytes_per_idle_tenant", False), ("bytes_per_tenant_after_work", True)):
        names = [f"tenant-{i:016x}" for i in range(tenants)]
        scheduler: Scheduler[WantedRun] = Scheduler(Capacity(SLOTS, 1 << 20, 64_000), records_reservations=False)
        run = WantedRun("")
        gc.collect()
        tracemalloc.start()
        for tenant_id in names:
            limits = Limits(max_concurrent=5, memory_mb=512, cpu_millis=2_000, per_hour=100)
            scheduler.add_tenant(tenant_id, limits=limits, weight=1)
            if works:
                push(scheduler, tenant_id, run, 0)
                grant = scheduler.next(NOW)
                assert grant is not None
                scheduler.release(grant, NOW)
        gc.collect()
        figures[name] = tracemalloc.get_traced_memory()[0] / tenants
        tracemalloc.stop()
    return figures


def decisions() -> dict[str, float]:
    """Measure decisions with 1,000, 10,000 and 100,000 tenants that all have work."""
    figures: dict[str, float] = {}
    for tenants in (1_000, 10_000, 100_000):
        figures |= decision_cost(tenants, 200_000)
        gc.collect()
    return figures


def decisions_short_of_memory() -> dict[str, float]:
    """Measure decisions while memory is short, with 10,000 tenants that ask for 1 to 700 different sizes."""
    figures: dict[str, float] = {}
    for requests in (1, 100, 700):
        figures |= short_of_memory(10_000, requests, 5_000)
        gc.collect()
    return figures


SCENARIOS: dict[str, Callable[[], dict[str, float]]] = {
    "decisions": decisions,
    "decisions_short_of_memory": decisions_short_of_memory,
    "idle_tenants": idle_tenant_bytes,
}


def main() -> None:
    """Run one scenario and print its figures."""
    if len(sys.argv) != 2 or sys.argv[1] not in SCENARIOS:
        sys.exit(f"usage: python -m benchmarks.scheduler {'|'.join(SCENARIOS)}")
    print(json.dumps(SCENARIOS[sys.argv[1]]()))


if __name__ == "__main__":
    main()
