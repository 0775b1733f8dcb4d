"""When tasks start: concurrency, priorities, moments, pauses."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from synergymesh import ExecutionStatus, Orchestrator, ResourceQuota, RetryPolicy, TenantTier, Workflow, current_task
from synergymesh.engine import dispatch
from synergymesh.engine.dispatch import STARTS_PER_TURN
from synergymesh.errors import InvalidRequest, TenantNotActive
from synergymesh.run_handle import RunHandle
from synergymesh.settings import read_settings

S = ExecutionStatus


class Gauge:
    """Count, in the tasks themselves, how many run at the same time, per tenant and in all."""

    def __init__(self, capacity: int) -> None:
        self.full = threading.Event()
        self._capacity = capacity
        self._lock = threading.Lock()
        self.now: dict[str, int] = {}
        self.most: dict[str, int] = {}

    def enter(self) -> None:
        with self._lock:
            for name in (current_task().tenant_id, "all"):
                self.now[name] = self.now.get(name, 0) + 1
                self.most[name] = max(self.most.get(name, 0), self.now[name])
            if self.now["all"] == self._capacity:
                self.full.set()

    def leave(self) -> None:
        with self._lock:
            for name in (current_task().tenant_id, "all"):
                self.now[name] -= 1


async def test_no_tenant_ever_runs_more_than_its_quota_and_all_never_more_than_the_capacity() -> None:
    gauge = Gauge(capacity=9)

    async def on_loop() -> None:
        gauge.enter()
        try:
            await asyncio.to_thread(gauge.full.wait, 10)
            await asyncio.sleep(0)
            if current_task().attempt == 1 and current_task().task_id == "t3":
                raise OSError("once")
        finally:
            gauge.leave()

    def in_thread() -> None:
        gauge.enter()
        gauge.full.wait(10)
        threading.Event().wait(0.001)
        gauge.leave()

    built = Workflow("w")
    for number in range(12):
        built.add(
            in_thread if number % 3 == 0 and number != 3 else on_loop,
            id=f"t{number}",
            retry=RetryPolicy(initial_delay=0.0),
            depends_on=[f"t{number - 8}"] if number >= 8 else [],
        )
    async with Orchestrator(":memory:", max_concurrent_tasks=9) as mesh:
        limits = {}
        handles = []
        for number, limit in enumerate((1, 3, 7)):
            quota = ResourceQuota(max_concurrent_tasks=limit)
            tenant = await mesh.create_tenant(
                f"t{number}", (TenantTier.PROFESSIONAL, TenantTier.ENTERPRISE)[number % 2], quota=quota
            )
            limits[tenant.tenant_id] = limit
        for _ in range(6):
            handles += [await mesh.submit(built, tenant=tenant_id) for tenant_id in limits]
        for handle in handles:
            await handle.result(20)
        assert all(1 <= gauge.most[tenant_id] <= limit for tenant_id, limit in limits.items())
        assert gauge.most["all"] == 9, "reached, never exceeded"
        assert set(gauge.now.values()) == {0}


async def test_a_flood_of_one_tenant_does_not_hold_up_another_one() -> None:
    order: list[str] = []

    async def work() -> None:
        order.append(current_task().tenant_id)
        await asyncio.sleep(0)

    built = Workflow("w").add(work, weight=0.001)
    async with Orchestrator(":memory:", max_concurrent_tasks=1) as mesh:
        flood = (await mesh.create_tenant("flood", "enterprise")).tenant_id
        quiet = (await mesh.create_tenant("quiet", "enterprise")).tenant_id
        for tenant_id in (flood, quiet):
            await mesh.suspend_tenant(tenant_id)
        for tenant_id in (flood, quiet):
            await mesh.resume_tenant(tenant_id)
        handles = [await mesh.submit(built, tenant=flood) for _ in range(100)]
        order.clear()
        handles += [await mesh.submit(built, tenant=quiet) for _ in range(5)]
        for handle in handles:
            await handle.result(10)
    last = max(number for number, tenant_id in enumerate(order) if tenant_id == quiet)
    assert last <= 100
    assert order.count(quiet) == 5


async def started_in_order(mesh: Orchestrator, submissions: list[dict[str, Any]]) -> list[str]:
    """Submit runs for a tenant of one slot while that is taken; give the order in which they started."""
    order: list[str] = []
    let_go, taken = asyncio.Event(), asyncio.Event()

    async def block() -> None:
        taken.set()
        await let_go.wait()

    async def note(name: str) -> None:
        order.append(name)

    narrow = (await mesh.create_tenant("narrow", "enterprise", quota=ResourceQuota(max_concurrent_tasks=1))).tenant_id
    handles = [await mesh.submit(Workflow("block").add(block), tenant=narrow)]
    await taken.wait()
    for submission in submissions:
        built = Workflow("note").add(note, args=[submission.pop("name")])
        handles.append(await mesh.submit(built, tenant=narrow, **submission))
    let_go.set()
    for handle in handles:
        await handle.result(10)
    return order


async def test_higher_priorities_go_first_and_equal_ones_in_the_order_of_submission(mesh: Orchestrator) -> None:
    given = [("a", 0), ("b", 5), ("c", -5), ("d", 5), ("e", 1_000), ("f", -1_000)]
    order = await started_in_order(mesh, [{"name": name, "priority": priority} for name, priority in given])
    assert order == ["e", "b", "d", "a", "c", "f"]


async def test_priorities_of_components_order_them_within_a_run(mesh: Orchestrator) -> None:
    order: list[str] = []

    async def note() -> None:
        order.append(current_task().task_id)

    narrow = (await mesh.create_tenant("narrow", "enterprise", quota=ResourceQuota(max_concurrent_tasks=1))).tenant_id
    built = Workflow("w")
    for name, priority in (("low", -7), ("high", 9), ("middle", 0)):
        built.add(note, id=name, priority=priority)
    await (await mesh.submit(built, tenant=narrow)).result(10)
    assert order == ["high", "middle", "low"]


async def test_the_longest_remaining_path_goes_first(mesh: Orchestrator) -> None:
    order: list[str] = []

    async def note() -> None:
        order.append(current_task().task_id)

    narrow = (await mesh.create_tenant("narrow", "enterprise", quota=ResourceQuota(max_concurrent_tasks=1))).tenant_id
    built = Workflow("w").add(note, id="short", weight=2.0).add(note, id="head", weight=1.0)
    built.add(note, id="tail", depends_on=["head"], weight=5.0)
    await (await mesh.submit(built, tenant=narrow)).result(10)
    assert order[0] == "head"
    assert sorted(order) == ["head", "short", "tail"]


async def test_a_run_with_a_moment_does_not_start_before_it(mesh: Orchestrator, tenant: str) -> None:
    async def work() -> int:
        return 1

    moment = datetime.now(UTC) + timedelta(seconds=0.15)
    built = Workflow("w").add(work)
    handle = await mesh.submit(built, tenant=tenant, not_before=moment)
    assert await handle.status() is S.PENDING
    assert (await mesh.get_run(handle.id)).not_before == moment
    assert await handle.result(10) == 1
    run = await mesh.get_run(handle.id)
    assert run.started_at is not None
    assert run.started_at >= moment


async def test_a_moment_in_the_past_is_now_and_in_another_time_zone_the_same_one(
    mesh: Orchestrator, tenant: str
) -> None:
    async def work() -> int:
        return 1

    built = Workflow("w").add(work)
    east = timezone(timedelta(hours=14))
    for moment in (datetime(1999, 1, 1, tzinfo=UTC), datetime(1, 1, 2, tzinfo=UTC), datetime.now(east)):
        assert await (await mesh.submit(built, tenant=tenant, not_before=moment)).result(10) == 1


@pytest.mark.parametrize("moment", [datetime(2030, 1, 1), "2030-01-01", 5])
async def test_a_moment_without_a_time_zone_is_refused(mesh: Orchestrator, tenant: str, moment: Any) -> None:
    async def work() -> int:
        return 1

    with pytest.raises(InvalidRequest, match="not_before") as caught:
        await mesh.submit(Workflow("w").add(work), tenant=tenant, not_before=moment)
    assert caught.value.field == "not_before"
    assert await mesh.count_open_runs() == 0


async def test_a_moment_that_no_database_can_hold_is_refused_and_the_last_one_is_accepted(
    mesh: Orchestrator, tenant: str
) -> None:
    async def work() -> int:
        return 1

    built = Workflow("w").add(work)
    for moment in (datetime.max.replace(tzinfo=UTC), datetime(2262, 4, 12, tzinfo=UTC)):
        with pytest.raises(InvalidRequest, match="not_before") as caught:
            await mesh.submit(built, tenant=tenant, not_before=moment)
        assert caught.value.field == "not_before"
    assert await mesh.count_open_runs() == 0
    handle = await mesh.submit(built, tenant=tenant, not_before=datetime(2262, 4, 11, tzinfo=UTC))
    assert await handle.status() is S.PENDING
    assert await handle.cancel()


async def test_a_suspended_tenant_starts_and_accepts_nothing_until_it_is_resumed(
    mesh: Orchestrator, tenant: str
) -> None:
    first, let_go = asyncio.Event(), asyncio.Event()
    done: list[str] = []

    async def step(name: str) -> None:
        first.set()
        await let_go.wait()
        done.append(name)

    built = Workflow("w").add(step, id="a", args=["a"]).add(step, id="b", args=["b"], depends_on=["a"])
    handle = await mesh.submit(built, tenant=tenant)
    await first.wait()
    suspended = await mesh.suspend_tenant(tenant)
    assert suspended.status.value == "suspended"
    with pytest.raises(TenantNotActive, match=tenant):
        await mesh.submit(built, tenant=tenant)
    let_go.set()
    with pytest.raises(TimeoutError):
        await handle.result(0.05)
    assert done == ["a"], "what runs goes on, nothing else starts"
    await mesh.resume_tenant(tenant)
    await handle.result(10)
    assert done == ["a", "b"]


async def test_suspending_survives_a_restart(open_mesh: Callable[..., Orchestrator]) -> None:
    async def work() -> int:
        return 1

    built = Workflow("w", source="nowhere:built").add(work)
    async with open_mesh() as mesh:
        tenant = (await mesh.create_tenant("A", "enterprise")).tenant_id
        handle = await mesh.submit(built, tenant=tenant, not_before=datetime.now(UTC) + timedelta(seconds=0.3))
        await mesh.suspend_tenant(tenant)
    async with open_mesh(workflows=[built]) as mesh:
        again = mesh.handle(handle.id, tenant=tenant)
        with pytest.raises(TimeoutError):
            await again.result(0.4)
        assert (await mesh.get_tenant(tenant)).status.value == "suspended"
        await mesh.resume_tenant(tenant)
        assert await again.result(10) == 1


async def test_a_large_start_leaves_the_event_loop_turns() -> None:
    gate = asyncio.Event()
    graph = Workflow("wide")
    for number in range(1_000):
        graph.add(gate.wait, id=f"t{number}")
    quota = ResourceQuota(max_concurrent_tasks=2_000, max_tasks_per_hour=100_000)
    async with Orchestrator(":memory:", max_concurrent_tasks=2_000) as mesh:
        assert mesh._parts is not None
        dispatcher = mesh._parts.dispatcher
        tenant = (await mesh.create_tenant("A", TenantTier.ENTERPRISE, quota=quota)).tenant_id
        run = await mesh.submit(graph, tenant=tenant)
        steps = []
        while dispatcher.starts < 1_000:
            before = dispatcher.starts
            await asyncio.sleep(0)
            steps.append(dispatcher.starts - before)
        assert max(steps) <= STARTS_PER_TURN
        gate.set()
        await run.result(20)


async def test_who_can_start_is_found_behind_many_that_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "LOOKS_PER_TURN", 3)
    gate, begun = asyncio.Event(), asyncio.Event()
    started: list[str] = []
    tenants: list[str] = []
    async with Orchestrator(settings=read_settings(database=":memory:", memory_mb=1_000)) as mesh:

        async def tenant(name: int) -> str:
            return (await mesh.create_tenant(str(name), TenantTier.ENTERPRISE)).tenant_id

        async def work() -> None:
            started.append(current_task().tenant_id)
            begun.set()
            if started[-1:] == tenants[-1:]:
                gate.set()
            await gate.wait()

        async def submit(memory_mb: int, tenant_id: str) -> RunHandle:
            graph = Workflow("one").add(work, id="t", memory_mb=memory_mb)
            return await mesh.submit(graph, tenant=tenant_id)

        first = await submit(600, await tenant(0))
        await begun.wait()
        tenants += [await tenant(number) for number in range(1, 22)]
        sizes = [*range(500, 520), 100]
        runs = await asyncio.gather(*map(submit, sizes, tenants))
        for run in (first, *runs):
            await run.result(20)
    assert started[1] == tenants[-1]
