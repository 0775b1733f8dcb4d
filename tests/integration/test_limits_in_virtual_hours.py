"""Hours of real runs on a virtual clock: what is recorded keeps every limit, also over a restart in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.integration.settling import settled

from synergymesh import DirectCall, Orchestrator, ResourceQuota, TenantTier, Workflow, current_task
from synergymesh.domain.instants import SECOND, from_datetime
from synergymesh.errors import RateLimitExceeded
from synergymesh.settings import read_settings

HOUR = 3_600 * SECOND
TASK_SECONDS = 60
SLOTS = 16


class VirtualTime:
    """A clock that goes on to the next thing that happens, and tasks that sleep by it."""

    def __init__(self) -> None:
        self.moment = 1_800_000_000 * SECOND
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._number = 0

    def now(self) -> int:
        self.moment += 1_000  # time never stands still for long
        return self.moment

    async def sleep(self, seconds: float) -> None:
        """Wait until so much of the virtual time has passed."""
        self._number += 1
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heappush(self._sleepers, (self.moment + int(seconds * SECOND), self._number, woken))
        await woken

    def next_waking(self) -> int | None:
        """Give the moment when the next sleeper is to be woken."""
        while self._sleepers and self._sleepers[0][2].done():
            heappop(self._sleepers)  # its task was stopped
        return self._sleepers[0][0] if self._sleepers else None

    def go_to(self, moment: int) -> None:
        """Let time pass, and wake who is to be woken by then."""
        self.moment = max(self.moment, moment)
        while self._sleepers and self._sleepers[0][0] <= self.moment:
            _, _, woken = heappop(self._sleepers)
            if not woken.done():
                woken.set_result(None)


class Stay(NamedTuple):
    """From when to when an attempt ran, as recorded."""

    began: int
    ended: int


async def go_on(mesh: Orchestrator, time: VirtualTime, until: int | None = None) -> None:
    """Let virtual time pass until nothing is open any more, or until a moment."""
    parts = mesh._parts
    assert parts is not None
    while True:
        await settled(mesh, looks_again=True)
        if not await mesh.count_open_runs() or (until is not None and time.moment >= until):
            return
        coming = [time.next_waking(), parts.dispatcher.scheduler.next_due(), until]
        time.go_to(min(moment for moment in coming if moment is not None))


async def history(mesh: Orchestrator, run_ids: Sequence[str]) -> list[Stay]:
    """Give every attempt that was recorded, whatever became of it."""
    parts = mesh._parts
    assert parts is not None
    stays = [Stay(a.started_at, a.ended_at) for a in await parts.store.list_attempts(run_ids)]
    for task in await parts.store.list_tasks(run_ids):
        assert task.started_at is not None
        assert task.ended_at is not None
        stays.append(Stay(task.started_at, task.ended_at))
    return sorted(stays)


def running_at_each_start(stays: Sequence[Stay]) -> Iterator[int]:
    """Count at every start, which is where it is most, how many run."""
    for stay in stays:
        yield sum(other.began <= stay.began < other.ended for other in stays)


def most_starts_in_an_hour(stays: Sequence[Stay]) -> int:
    """Count the starts of the rolling hour that has most of them."""
    return max(sum(stay.began <= other.began < stay.began + HOUR for other in stays) for stay in stays)


def p95(values: Sequence[int]) -> int:
    return sorted(values)[-(-len(values) * 95 // 100) - 1]


async def enterprise_waits(tmp_path: Path, *, with_basic: bool, restart: bool) -> list[int]:
    """Run an enterprise tenant for five hours, beside a basic one that has submitted 500 tasks, and check its limits.

    Returns:
        how long the enterprise tenant's tasks waited.
    """
    time = VirtualTime()
    most = running = 0

    async def of_basic() -> None:
        nonlocal most, running
        running += 1
        most = max(most, running)
        try:
            await time.sleep(TASK_SECONDS)
        finally:
            running -= 1

    async def of_enterprise() -> None:
        await time.sleep(TASK_SECONDS)

    flood, batch = Workflow("flood"), Workflow("batch")
    for number in range(500):
        flood.add(of_basic, id=f"t{number}")
    for number in range(40):
        batch.add(of_enterprise, id=f"t{number}")
    settings = read_settings(
        database=f"sqlite:///{tmp_path}/{with_basic}-{restart}.db",
        max_concurrent_tasks=SLOTS,
        local_socket=False,
        synchronous="normal",
        shutdown_grace_seconds=0.01,
    )

    def open_mesh() -> Orchestrator:
        return Orchestrator(settings=settings, clock=time, workflows=[flood, batch])

    begin = time.moment
    flood_ids: list[str] = []
    batch_ids: list[str] = []
    async with open_mesh() as mesh:
        basic = (await mesh.create_tenant("Basic", TenantTier.BASIC)).tenant_id
        enterprise = (await mesh.create_tenant("Enterprise", TenantTier.ENTERPRISE)).tenant_id
        if with_basic:
            flood_ids.append((await mesh.submit(flood, tenant=basic)).id)
    for hour in range(5):
        async with open_mesh() as mesh:
            batch_ids.append((await mesh.submit(batch, tenant=enterprise)).id)
            # in the middle of a minute of virtual time, with tasks under way
            await go_on(mesh, time, begin + hour * HOUR + (HOUR // 2 if restart else HOUR))
        if restart:
            async with open_mesh() as mesh:
                await go_on(mesh, time, begin + (hour + 1) * HOUR)
    async with open_mesh() as mesh:
        await go_on(mesh, time)
        if with_basic:
            stays = await history(mesh, flood_ids)
            assert len(stays) >= 500
            assert most <= 5
            assert max(running_at_each_start(stays)) <= 5
            assert 90 <= most_starts_in_an_hour(stays) <= 100
            assert (await mesh.get_run(flood_ids[0])).status == "success"
        waits = []
        for run_id in batch_ids:
            run = await mesh.get_run(run_id)
            assert run.status == "success"
            waits += [
                from_datetime(task.started_at) - from_datetime(run.created_at) for task in run.tasks if task.started_at
            ]
        return waits


@pytest.mark.parametrize("restart", [False, True])
async def test_500_tasks_of_a_basic_tenant_keep_its_limits_and_slow_nobody_down(tmp_path: Path, restart: bool) -> None:
    alone = await enterprise_waits(tmp_path, with_basic=False, restart=restart)
    beside = await enterprise_waits(tmp_path, with_basic=True, restart=restart)
    assert len(alone) == len(beside) == 200
    assert p95(beside) <= 1.2 * p95(alone) + TASK_SECONDS * SECOND


async def test_what_explain_says_is_what_happens(tmp_path: Path) -> None:
    """The first blocker goes at the moment that was told, and then the task that was first starts."""
    time = VirtualTime()
    started: list[str] = []

    async def work() -> None:
        started.append(current_task().task_id)
        await time.sleep(TASK_SECONDS)

    graph = Workflow("wide")
    for number in range(12):
        graph.add(work, id=f"t{number}")
    quota = ResourceQuota(max_concurrent_tasks=3, max_tasks_per_hour=6)
    async with Orchestrator(":memory:", clock=time) as mesh:
        tenant = (await mesh.create_tenant("A", quota=quota)).tenant_id
        run = await mesh.submit(graph, tenant=tenant)
        while len(started) < 12:
            await settled(mesh, looks_again=True)
            told = await mesh.explain(run.id)
            if not told.waiting:
                break
            head = told.waiting[0]
            first = head.blockers[0]
            before = list(started)
            assert head.position == 1
            if first.reason == "hour_limit":
                assert (first.limit, first.used) == (6, 6)
                assert first.until is not None
                time.go_to(first.until - SECOND)
                await settled(mesh, looks_again=True)
                assert started == before, "not a second earlier"
                time.go_to(first.until)
            else:
                assert first.reason == "concurrency"
                assert (first.limit, first.used) == (3, 3)
                waking = time.next_waking()
                assert waking is not None
                time.go_to(waking)
            await settled(mesh, looks_again=True)
            if started == before:  # the next blocker shows
                again = (await mesh.explain(run.id)).waiting[0]
                assert again.task_id == head.task_id
                assert again.blockers[0] != first
            else:
                assert started[len(before)] == head.task_id
        await go_on(mesh, time)
        assert (await mesh.get_run(run.id)).status == "success"


async def test_a_refused_submission_succeeds_after_retry_after_and_not_a_millisecond_earlier() -> None:
    time = VirtualTime()

    async def nothing() -> None:
        pass

    graph = Workflow("one").add(nothing, id="a")
    async with Orchestrator(":memory:", clock=time) as mesh:
        basic = (await mesh.create_tenant("Basic")).tenant_id
        for _ in range(10):
            await mesh.submit(graph, tenant=basic)
        with pytest.raises(RateLimitExceeded) as refused:
            await mesh.submit(graph, tenant=basic)
        due = time.moment + int(refused.value.retry_after * SECOND)
        time.go_to(due - SECOND // 1_000)
        with pytest.raises(RateLimitExceeded) as again:
            await mesh.submit(graph, tenant=basic)
        assert 0 < again.value.retry_after <= 0.001
        time.go_to(due)
        await mesh.submit(graph, tenant=basic)


@pytest.mark.parametrize("burst", [None, 3, 40])
async def test_restarts_add_nothing_to_what_a_rate_and_its_burst_admit(tmp_path: Path, burst: int | None) -> None:
    time = VirtualTime()

    async def nothing() -> None:
        pass

    graph = Workflow("one").add(nothing, id="a")
    most = burst or 10
    quota = ResourceQuota(rate_limit_per_second=10, burst=burst)
    settings = read_settings(database=f"sqlite:///{tmp_path}/mesh.db", local_socket=False, synchronous="normal")
    tenants: list[str] = []
    refusals: list[RateLimitExceeded] = []
    admitted = 0
    for life in range(4):
        async with Orchestrator(settings=settings, clock=time, workflows=[graph]) as mesh:
            if not tenants:
                parent = await mesh.create_tenant("Parent", TenantTier.ENTERPRISE, quota=quota)
                child = await mesh.create_tenant("Child", TenantTier.ENTERPRISE, parent=parent.tenant_id)
                tenants += [parent.tenant_id, child.tenant_id]
                begin = time.moment
            for number in range(most // 2 if life == 0 else most):
                try:
                    await mesh.submit(graph, tenant=tenants[number % 2])  # the sub-tenant's count for its parent, too
                except RateLimitExceeded as refused:
                    refusals.append(refused)
                    break
                admitted += 1
            await mesh.call([DirectCall(component_id="c", function=nothing)], tenant=tenants[0])  # no submission
    assert all(refused.retry_after <= 0.1 and "10 per second" in str(refused) for refused in refusals)
    assert admitted == most + (time.moment - begin) * 10 // SECOND
    time.go_to(time.moment + SECOND)
    async with Orchestrator(settings=settings, clock=time, workflows=[graph]) as mesh:
        for _ in range(min(most, 10)):
            await mesh.submit(graph, tenant=tenants[0])
