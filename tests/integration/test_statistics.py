"""What is counted of tenants' work agrees with what happened, also after a restart."""

import asyncio
from pathlib import Path

import pytest

from synergymesh import Orchestrator, ResourceQuota, RetryPolicy, task, workflow
from synergymesh.domain.observability.tallies import Tally
from synergymesh.engine.observability import statistics as statistics_module
from synergymesh.engine.observability.statistics import HOUR
from synergymesh.errors import RunFailed
from synergymesh.ports.changes import StatisticCounted
from synergymesh.ports.clock import SystemClock

failures_left = 0


@task
async def good(number: int) -> int:
    return number


@task(retry=RetryPolicy(max_retries=2, initial_delay=0))
async def flaky() -> int:
    global failures_left
    failures_left -= 1
    if failures_left >= 0:
        raise ValueError("not yet")
    return 1


@workflow
def sums(number: int) -> object:
    return [good(number), good(number)]


@workflow
def fragile() -> object:
    return good(flaky())


gate = asyncio.Event()


@task
async def wait_for_gate() -> None:
    await gate.wait()


@workflow
def gated() -> object:
    return wait_for_gate()


class LaterClock(SystemClock):
    """Tell a time that lies so many hours ahead."""

    hours = 0

    def now(self) -> int:
        return super().now() + self.hours * HOUR


def counts(tally: Tally) -> dict[str, int]:
    return dict(sorted(tally.counts.items()))


async def do_some_work(mesh: Orchestrator, tenant_id: str) -> None:
    global failures_left
    for number in range(3):
        await (await mesh.submit(sums, tenant=tenant_id, input={"number": number})).result()
    failures_left = 1
    await (await mesh.submit(fragile, tenant=tenant_id)).result()
    failures_left = 10
    with pytest.raises(RunFailed):
        await (await mesh.submit(fragile, tenant=tenant_id)).result()


EXPECTED = {
    "retried": 3,
    "run.failed": 1,
    "run.submitted": 5,
    "run.success": 4,
    "task.failed": 1,
    "task.skipped": 1,
    "task.success": 8,
}


async def test_counts_agree_with_what_happened_and_survive_a_restart(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/mesh.db"
    async with Orchestrator(database) as mesh:
        tenant = await mesh.create_tenant("Acme", "enterprise")
        other = await mesh.create_tenant("Beta")
        await do_some_work(mesh, tenant.tenant_id)
        statistics = mesh._running.statistics
        tally = statistics.of(tenant.tenant_id)
        assert counts(tally) == EXPECTED
        assert counts(statistics.total) == EXPECTED
        assert counts(statistics.of(other.tenant_id)) == {}
        assert (tally.succeeded, tally.failed, tally.executions) == (8, 1, 9)
        assert tally.duration.count == 9
        assert tally.last_end > 0
    async with Orchestrator(database, workflows=[sums, fragile]) as mesh:
        statistics = mesh._running.statistics
        again = statistics.of(tenant.tenant_id)
        assert counts(again) == EXPECTED
        assert (again.duration.counts, again.duration.sum) == (tally.duration.counts, tally.duration.sum)
        assert again.last_end == tally.last_end
        await do_some_work(mesh, tenant.tenant_id)
        twice = {measure: 2 * count for measure, count in EXPECTED.items()}
        assert counts(statistics.of(tenant.tenant_id)) == twice
        assert counts(await statistics.since(tenant.tenant_id, 3_600)) == twice


async def test_a_span_counts_the_hours_that_lie_in_it(tmp_path: Path) -> None:
    clock = LaterClock()
    async with Orchestrator(f"sqlite:///{tmp_path}/mesh.db", clock=clock) as mesh:
        tenant = await mesh.create_tenant("Acme", "enterprise")
        statistics = mesh._running.statistics
        await do_some_work(mesh, tenant.tenant_id)
        statistics.write()
        await mesh._running.committer.drained()
        clock.hours = 5
        statistics.write()
        await do_some_work(mesh, tenant.tenant_id)
        statistics.write()
        await mesh._running.committer.drained()
        assert counts(await statistics.since(tenant.tenant_id, 2 * 3_600)) == EXPECTED
        twice = {measure: 2 * count for measure, count in EXPECTED.items()}
        assert counts(await statistics.since(tenant.tenant_id, 24 * 3_600)) == twice
        assert counts(statistics.of(tenant.tenant_id)) == twice


async def test_waits_are_counted_until_the_very_end(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/mesh.db"
    async with Orchestrator(database) as mesh:
        tenant_id = (await mesh.create_tenant("Acme", "enterprise")).tenant_id
        await do_some_work(mesh, tenant_id)
    async with Orchestrator(database, workflows=[sums, fragile]) as mesh:
        tally = mesh._running.statistics.of(tenant_id)
        assert tally.wait.count == tally.duration.count + tally.count("retried")


async def test_runs_are_counted_with_how_long_they_took(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/mesh.db"
    async with Orchestrator(database) as mesh:
        tenant = await mesh.create_tenant("Acme", "enterprise")
        await do_some_work(mesh, tenant.tenant_id)
        took = mesh._running.statistics.of(tenant.tenant_id).run_duration
        assert took.count == 5
        assert took.sum > 0
    async with Orchestrator(database, workflows=[sums, fragile]) as mesh:
        again = mesh._running.statistics.of(tenant.tenant_id).run_duration
        assert (again.counts, again.sum) == (took.counts, took.sum)


async def test_an_hour_that_an_earlier_version_recorded_with_a_sum_in_each_bucket_is_counted_once(
    tmp_path: Path,
) -> None:
    database = f"sqlite:///{tmp_path}/mesh.db"
    async with Orchestrator(database) as mesh:
        tenant_id = (await mesh.create_tenant("Acme", "enterprise")).tenant_id
        hour = mesh._clock.now() // HOUR
        rows = [StatisticCounted(tenant_id, hour, "duration", bucket, 2, 100) for bucket in (9, 12)]
        await mesh._running.committer.record(rows)
    for _ in range(2):  # the first one writes them anew
        async with Orchestrator(database) as mesh:
            statistics = mesh._running.statistics
            statistics.write()
            await mesh._running.committer.drained()
            assert statistics.of(tenant_id).duration.sum == 200
            assert (await statistics.since(tenant_id, 3_600)).duration.sum == 200


async def test_many_tenants_are_written_in_turns_and_none_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics_module, "KEYS_PER_TURN", 3)
    monkeypatch.setattr(statistics_module, "ROWS_PER_TURN", 4)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async with Orchestrator(":memory:") as mesh:
        statistics = mesh._running.statistics
        tenants = [(await mesh.create_tenant(f"tenant {n}")).tenant_id for n in range(10)]
        for tenant_id in tenants:
            statistics.waited(tenant_id, 5_000_000, 3)
        busy = asyncio.create_task(others())
        await statistics.write_in_turns()
        busy.cancel()
        assert turns >= 5  # somebody else had a turn between two of them
        await mesh._running.committer.drained()
        hour = mesh._clock.now() // HOUR
        found = await mesh._running.store.list_statistics(None, since_hour=hour)
        assert {record.tenant_id for record in found} == set(tenants)
        assert sum(record.count for record in found) == 30


async def test_a_deleted_tenant_is_not_counted_any_more(tmp_path: Path) -> None:
    async with Orchestrator(f"sqlite:///{tmp_path}/mesh.db") as mesh:
        tenant = await mesh.create_tenant("Acme", "enterprise")
        await do_some_work(mesh, tenant.tenant_id)
        await mesh.delete_tenant(tenant.tenant_id)
        assert counts(mesh._running.statistics.of(tenant.tenant_id)) == {}


async def test_how_long_tasks_waited_is_counted_in_the_tenant_that_waited() -> None:
    async with Orchestrator(":memory:") as mesh:
        tenant = await mesh.create_tenant("Acme", "enterprise", quota=ResourceQuota(max_concurrent_tasks=1))
        gate.clear()
        runs = [await mesh.submit(gated, tenant=tenant.tenant_id) for _ in range(3)]
        await asyncio.sleep(0.05)  # so long the two others wait at least
        gate.set()
        for run in runs:
            await run.result()
        mesh._running.neighbours.count()
        wait = mesh._running.statistics.of(tenant.tenant_id).wait
        assert wait.count == 3
        assert wait.sum >= 2 * 50_000
        assert mesh._running.statistics.of("nobody").wait.count == 0
