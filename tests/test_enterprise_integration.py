"""The enterprise face as companies use it: many tenants, service graphs, retries, quotas, whole workflows."""

import asyncio
import random
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import pytest

from synergymesh import (
    Actor,
    ComponentType,
    DirectCall,
    EnterpriseSynergyMeshOrchestrator,
    ExecutionStatus,
    Orchestrator,
    ResourceQuota,
    RetryPolicy,
    TenantTier,
    task,
    workflow,
)
from synergymesh.errors import (
    FeatureNotEnabled,
    LegalHold,
    RateLimitExceeded,
    TenantNotActive,
    UnknownRun,
    UnknownTenant,
)
from synergymesh.settings import read_settings
from synergymesh.testing.inline_store import InlineSqliteStore
from synergymesh.testing.shifted_clock import ShiftedClock
from synergymesh.testing.virtual_time import VirtualClock, VirtualLoop

T = TypeVar("T")


@pytest.fixture
def mesh() -> Iterator[EnterpriseSynergyMeshOrchestrator]:
    with EnterpriseSynergyMeshOrchestrator() as opened:
        yield opened


def tenants_of(mesh: EnterpriseSynergyMeshOrchestrator, number: int, tier: TenantTier) -> list[str]:
    return [mesh.create_tenant(f"tenant {n}", tier) for n in range(number)]


async def succeed(value: Any = None) -> Any:
    return value


async def fail() -> None:
    raise ValueError("no")


def in_virtual_time(program: Callable[[Orchestrator, VirtualClock], Awaitable[T]]) -> T:
    """Run a program with an orchestrator for which time is made up."""
    from synergymesh.assembly import Seams

    loop = VirtualLoop()
    asyncio.set_event_loop(loop)
    try:

        async def run() -> T:
            clock = VirtualClock(loop)
            seams = Seams(store=InlineSqliteStore(":memory:"), dice=random.Random(7))
            async with Orchestrator(":memory:", clock=clock, seams=seams) as mesh:
                return await program(mesh, clock)

        return loop.run_until_complete(run())
    finally:
        asyncio.set_event_loop(None)
        loop.close()


async def until(happened: Callable[[], bool]) -> None:
    for _ in range(30_000):
        if happened():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it did not happen within half a minute")


@task
async def double(number: int) -> int:
    return 2 * number


@task
async def add(numbers: list[int]) -> int:
    return sum(numbers)


@workflow
def doubled_sum(numbers: list[int]) -> Any:
    return add([double(numbers[0]), double(numbers[1])])


class TestDataIsolation:
    async def test_a_tenant_never_sees_the_runs_of_another(self, mesh: EnterpriseSynergyMeshOrchestrator) -> None:
        ours, theirs = tenants_of(mesh, 2, TenantTier.ENTERPRISE)
        result = await mesh.execute_with_retry(succeed, "secret", ours, value="ours alone")
        run_id = result.metadata["run_id"]
        face, call = mesh.orchestrator, mesh.call
        assert call(face.get_run(run_id, tenant=ours)).id == run_id
        for read in (
            lambda: face.get_run(run_id, tenant=theirs),
            lambda: face.explain(run_id, tenant=theirs),
            lambda: face.logs(run_id, tenant=theirs),
            lambda: face.cancel_run(run_id, tenant=theirs),
            lambda: face.result_of(run_id, tenant=theirs),
        ):
            with pytest.raises(UnknownRun):
                call(read())
        assert call(face.list_runs(tenant=theirs)) == []

    async def test_three_tenants_of_three_tiers_see_and_touch_nothing_of_each_other(
        self, mesh: EnterpriseSynergyMeshOrchestrator
    ) -> None:
        tenants = [mesh.create_tenant(tier.value, tier) for tier in TenantTier]
        face, call = mesh.orchestrator, mesh.call
        runs = {}
        for number, tenant_id in enumerate(tenants):
            for n in range(number + 6):  # so that no two of them have the same figures
                done = await mesh.execute_with_retry(succeed if n else fail, f"only {number}", tenant_id, 0)
            runs[tenant_id] = [done.metadata["run_id"], mesh.submit(doubled_sum, tenant_id, {"numbers": [number, 1]})]
            mesh.result_of(runs[tenant_id][1])
        for number, tenant_id in enumerate(tenants):
            theirs = {run.id for run in call(face.list_runs(tenant=tenant_id))}
            assert theirs >= set(runs[tenant_id])
            assert len(theirs) == number + 7
            entries = mesh.get_audit_logs(tenant_id)
            assert {entry.tenant_id for entry in entries} == {tenant_id}
            assert {entry.component_id for entry in entries if entry.component_id} >= {f"only {number}"}
            assert not {f"only {n}" for n in range(3) if n != number} & {entry.component_id for entry in entries}
            health = mesh.get_tenant_health(tenant_id)
            assert (health["total_executions"], health["failed"]) == (number + 9, 1)
            letters = call(face.dead_letters(tenant=tenant_id))
            assert [letter.run_id in theirs for letter in letters] == [True]
            for other in tenants:
                for run_id in runs[other] if other != tenant_id else []:
                    assert run_id not in theirs
                    for ask in (face.get_run, face.explain, face.logs, face.timeline, face.cancel_run, face.pause_run):
                        with pytest.raises(UnknownRun):
                            call(ask(run_id, tenant=tenant_id))  # type: ignore[operator]  # of different kinds
        # what one of them is given or denied changes nothing for the others
        untouched = mesh.tenants[tenants[2]]
        mesh.suspend_tenant(tenants[0])
        mesh.set_tier(tenants[1], TenantTier.ENTERPRISE)
        with pytest.raises(TenantNotActive):
            await mesh.execute_with_retry(succeed, "c", tenants[0])
        assert (await mesh.execute_with_retry(succeed, "c", tenants[2])).status is ExecutionStatus.SUCCESS
        assert mesh.tenants[tenants[2]] == untouched
        mesh.delete_tenant(tenants[0])
        assert {run.tenant_id for run in call(face.list_runs(limit=100))} == set(tenants[1:])

    async def test_the_same_component_id_of_two_tenants_is_two_components(
        self, mesh: EnterpriseSynergyMeshOrchestrator
    ) -> None:
        ours, theirs = tenants_of(mesh, 2, TenantTier.ENTERPRISE)
        for _ in range(6):
            await mesh.execute_with_retry(fail, "shared", ours, max_retries=0)
            await mesh.execute_with_retry(succeed, "shared", theirs)
        assert mesh.get_tenant_health(ours)["status"] == "failing"
        assert mesh.get_tenant_health(theirs)["status"] == "healthy"

    async def test_the_same_idempotency_key_of_two_tenants_is_two_runs(
        self, mesh: EnterpriseSynergyMeshOrchestrator
    ) -> None:
        runs = [
            mesh.call(
                mesh.orchestrator.submit(
                    doubled_sum, tenant=tenant_id, input={"numbers": [1, 2]}, idempotency_key="order-1"
                )
            )
            for tenant_id in tenants_of(mesh, 2, TenantTier.BASIC)
            for _ in range(2)
        ]
        assert runs[0].id == runs[1].id != runs[2].id == runs[3].id

    async def test_deleting_a_tenant_takes_its_data_and_nobody_elses(
        self, mesh: EnterpriseSynergyMeshOrchestrator
    ) -> None:
        gone, stays = tenants_of(mesh, 2, TenantTier.BASIC)
        for tenant_id in (gone, stays):
            await mesh.execute_with_retry(succeed, "c", tenant_id)
        mesh.delete_tenant(gone)
        runs = mesh.call(mesh.orchestrator.list_runs())
        assert {run.tenant_id for run in runs} == {stays}
        with pytest.raises(UnknownTenant):
            mesh.get_tenant_health(gone)


class TestMicroservices:
    GRAPH = (
        ("database", []),
        ("cache", []),
        ("auth", ["database"]),
        ("users", ["database", "cache", "auth"]),
        ("orders", ["database", "auth"]),
        ("gateway", ["users", "orders", "auth"]),
    )

    def build(self, mesh: EnterpriseSynergyMeshOrchestrator) -> None:
        for name, depends_on in self.GRAPH:
            assert mesh.add_dependency(name, depends_on, ComponentType.SERVICE)

    async def test_services_start_in_the_order_of_their_dependencies(
        self, mesh: EnterpriseSynergyMeshOrchestrator
    ) -> None:
        (tenant_id,) = tenants_of(mesh, 1, TenantTier.ENTERPRISE)
        self.build(mesh)
        started: list[str] = []

        def service(name: str) -> Callable[[], Awaitable[str]]:
            async def start() -> str:
                await asyncio.sleep(0)
                started.append(name)
                return f"{name} is up"

            return start

        results = await mesh.execute_components(tenant_id, {name: service(name) for name, _ in self.GRAPH})
        assert all(result.output == f"{name} is up" for name, result in results.items())
        assert all(result.component_type == "service" for result in results.values())
        for name, depends_on in self.GRAPH:
            for dependency in depends_on:
                assert started.index(dependency) < started.index(name)

    async def test_when_a_service_fails_only_what_needs_it_is_skipped(
        self, mesh: EnterpriseSynergyMeshOrchestrator
    ) -> None:
        (tenant_id,) = tenants_of(mesh, 1, TenantTier.ENTERPRISE)
        self.build(mesh)
        mesh.retry_policies["orders"] = RetryPolicy(max_retries=0)
        components: dict[str, Callable[[], Awaitable[Any]]] = {name: succeed for name, _ in self.GRAPH}
        results = await mesh.execute_components(tenant_id, components | {"orders": fail})
        assert {name: result.status.value for name, result in results.items()} == {
            "database": "success",
            "cache": "success",
            "auth": "success",
            "users": "success",
            "orders": "failed",
            "gateway": "skipped",
        }

    async def test_the_whole_graph_is_one_run_that_can_be_looked_up(
        self, mesh: EnterpriseSynergyMeshOrchestrator
    ) -> None:
        (tenant_id,) = tenants_of(mesh, 1, TenantTier.ENTERPRISE)
        self.build(mesh)
        results = await mesh.execute_components(tenant_id, {name: succeed for name, _ in self.GRAPH})
        (run_id,) = {result.metadata["run_id"] for result in results.values()}
        run = mesh.call(mesh.orchestrator.get_run(run_id))
        assert (run.status, len(run.tasks)) == (ExecutionStatus.SUCCESS, len(self.GRAPH))

    def test_the_resolver_finds_what_can_start_together(self, mesh: EnterpriseSynergyMeshOrchestrator) -> None:
        self.build(mesh)
        phases = [sorted(phase.components) for phase in mesh.resolver.get_execution_phases()]
        assert phases == [["cache", "database"], ["auth"], ["orders", "users"], ["gateway"]]


class TestRetryWorkflows:
    def test_delays_between_attempts_are_those_of_the_policy(self) -> None:
        policy = RetryPolicy(max_retries=5, initial_delay=1.0, max_delay=8.0, exponential_base=2.0)

        async def program(mesh: Orchestrator, clock: VirtualClock) -> tuple[list[float], int]:
            tenant = await mesh.create_tenant("Acme", "enterprise")
            moments: list[float] = []

            async def flaky() -> None:
                moments.append(clock.now() / 1e9)
                if len(moments) <= 5:
                    raise ConnectionError

            (result,) = await mesh.call(
                [DirectCall(component_id="payment", function=flaky, retry=policy)], tenant=tenant.tenant_id
            )
            return moments, result.retry_count

        moments, retries = in_virtual_time(program)
        pauses = [later - earlier for earlier, later in pairwise(moments)]
        assert pauses == pytest.approx([1, 2, 4, 8, 8], abs=0.001)
        assert retries == 5

    def test_a_waiting_retry_holds_no_slot(self) -> None:
        async def program(mesh: Orchestrator, clock: VirtualClock) -> tuple[float, float]:
            tenant = await mesh.create_tenant("Acme", "enterprise", quota=ResourceQuota(max_concurrent_tasks=1))
            begin = clock.now()
            slow_retry = RetryPolicy(max_retries=1, initial_delay=100, max_delay=100)
            first = asyncio.create_task(
                mesh.call([DirectCall(component_id="a", function=fail, retry=slow_retry)], tenant=tenant.tenant_id)
            )
            await asyncio.sleep(1)
            await mesh.call([DirectCall(component_id="b", function=succeed)], tenant=tenant.tenant_id)
            between = clock.now() - begin
            await first
            return between / 1e9, (clock.now() - begin) / 1e9

        between, end = in_virtual_time(program)
        assert between < 2
        assert 100 <= end < 102

    def test_a_timeout_ends_an_attempt_at_its_time(self) -> None:
        async def program(mesh: Orchestrator, clock: VirtualClock) -> tuple[str, float]:
            tenant = await mesh.create_tenant("Acme", "enterprise")
            begin = clock.now()
            calls = [
                DirectCall(
                    component_id="a",
                    function=asyncio.Event().wait,
                    timeout=30,
                    retry=RetryPolicy(max_retries=1, initial_delay=10),
                )
            ]
            (result,) = await mesh.call(calls, tenant=tenant.tenant_id)
            return result.status.value, (clock.now() - begin) / 1e9

        status, seconds = in_virtual_time(program)
        assert status == "timeout"
        assert seconds == pytest.approx(70, abs=0.01)

    async def test_only_listed_errors_are_retried(self, mesh: EnterpriseSynergyMeshOrchestrator) -> None:
        (tenant_id,) = tenants_of(mesh, 1, TenantTier.PROFESSIONAL)
        mesh.retry_policies["c"] = RetryPolicy(max_retries=3, initial_delay=0, retry_on=(ConnectionError,))
        calls = 0

        async def broken(kind: type[Exception]) -> None:
            nonlocal calls
            calls += 1
            raise kind

        for kind, expected in ((ConnectionResetError, 4), (ValueError, 1)):
            calls = 0
            result = await mesh.execute_with_retry(broken, "c", tenant_id, kind=kind)
            assert (result.status, calls) == (ExecutionStatus.FAILED, expected)

    async def test_every_failed_attempt_is_kept_with_its_error(self, mesh: EnterpriseSynergyMeshOrchestrator) -> None:
        (tenant_id,) = tenants_of(mesh, 1, TenantTier.PROFESSIONAL)
        mesh.retry_policies["c"] = RetryPolicy(max_retries=2, initial_delay=0)
        result = await mesh.execute_with_retry(fail, "c", tenant_id)
        run = mesh.call(mesh.orchestrator.get_run(result.metadata["run_id"]))
        failures = run.tasks[0].failures
        assert [failure.number for failure in failures] == [1, 2]
        assert all("ValueError: no" in str(failure.error) for failure in failures)
        assert "raise ValueError" in failures[0].error.traceback if failures[0].error else False


class TestQuotasAcrossTenants:
    async def test_each_tenant_has_its_own_concurrency(self, mesh: EnterpriseSynergyMeshOrchestrator) -> None:
        limits = {mesh.create_tenant(f"t{n}", custom_quota=ResourceQuota(max_concurrent_tasks=n)): n for n in (1, 2, 4)}
        running = dict.fromkeys(limits, 0)
        most = dict.fromkeys(limits, 0)
        full = {tenant_id: asyncio.Event() for tenant_id in limits}

        async def busy(tenant_id: str) -> None:
            running[tenant_id] += 1
            most[tenant_id] = max(most[tenant_id], running[tenant_id])
            if running[tenant_id] == limits[tenant_id]:
                full[tenant_id].set()
            await full[tenant_id].wait()
            running[tenant_id] -= 1

        calls = (
            mesh.execute_with_retry(_bound(busy, tenant_id), f"c{n}", tenant_id)
            for n in range(8)
            for tenant_id in limits
        )
        await asyncio.gather(*calls)
        assert most == limits

    async def test_a_flood_of_one_tenant_does_not_starve_another(self) -> None:
        def measure(flooded: bool) -> float:
            async def program(mesh: Orchestrator, clock: VirtualClock) -> float:
                noisy = await mesh.create_tenant("Noisy", "enterprise")
                quiet = await mesh.create_tenant("Quiet", "enterprise")

                async def work() -> None:
                    await asyncio.sleep(1)

                def calls(tenant_id: str, number: int) -> list[asyncio.Task[Any]]:
                    return [
                        asyncio.create_task(mesh.call([DirectCall(component_id="c", function=work)], tenant=tenant_id))
                        for _ in range(number)
                    ]

                flood = calls(noisy.tenant_id, 2_000 if flooded else 0)
                await asyncio.sleep(0.5)
                begin = clock.now()
                await asyncio.gather(*calls(quiet.tenant_id, 20))
                seconds = (clock.now() - begin) / 1e9
                await asyncio.gather(*flood)
                return seconds

            return in_virtual_time(program)

        alone, beside = await asyncio.to_thread(measure, False), await asyncio.to_thread(measure, True)
        assert beside <= 1.2 * alone + 1  # one task length

    def test_submissions_beyond_the_rate_say_when_to_come_back(self) -> None:
        async def program(mesh: Orchestrator, clock: VirtualClock) -> float:
            tenant = await mesh.create_tenant("Acme")  # basic: ten a second
            for _ in range(10):
                await mesh.submit(doubled_sum, tenant=tenant.tenant_id, input={"numbers": [1, 2]})
            with pytest.raises(RateLimitExceeded) as refused:
                await mesh.submit(doubled_sum, tenant=tenant.tenant_id, input={"numbers": [1, 2]})
            await asyncio.sleep(refused.value.retry_after)
            await mesh.submit(doubled_sum, tenant=tenant.tenant_id, input={"numbers": [1, 2]})
            return refused.value.retry_after

        assert 0 < in_virtual_time(program) <= 0.1

    async def test_a_basic_tenant_starts_a_hundred_tasks_an_hour_and_no_more(self) -> None:
        clock = ShiftedClock()
        with EnterpriseSynergyMeshOrchestrator(clock=clock) as mesh:
            tenant_id = mesh.create_tenant("Acme")
            calls = [asyncio.create_task(mesh.execute_with_retry(succeed, "c", tenant_id)) for _ in range(103)]
            await until(lambda: mesh.get_metrics()["total_executions"] == 100)
            assert not mesh.check_resource_quota(tenant_id, "hourly")
            done, waiting = await asyncio.wait(calls, timeout=0.3)
            assert (len(done), len(waiting)) == (100, 3)
            assert await mesh.execute_with_retry(succeed, "c", mesh.create_tenant("Bree"))
            clock.forward(hours=1.1)
            mesh.modify_quota(tenant_id, max_queued_tasks=1_000)  # looked at again at once, not at the next minute
            await asyncio.gather(*waiting)

    @pytest.mark.parametrize(
        ("settings", "at_a_time"),
        [({"task_memory_mb": 200}, 2), ({"task_cpus": 1.0, "cpus": 6.0}, 3), ({"task_memory_mb": 1}, 5)],
        ids=["512 MB of memory", "half of the CPUs", "five slots"],
    )
    async def test_a_basic_tenant_never_has_more_than_its_memory_its_cpus_and_its_slots(
        self, settings: dict[str, Any], at_a_time: int
    ) -> None:
        with EnterpriseSynergyMeshOrchestrator(settings=read_settings(**settings)) as mesh:
            tenant_id = mesh.create_tenant("Acme")
            running = most = 0
            full = asyncio.Event()

            async def work() -> None:
                nonlocal running, most
                running += 1
                most = max(most, running)
                if running == at_a_time:
                    full.set()
                await full.wait()
                for _ in range(5):
                    await asyncio.sleep(0)
                running -= 1

            await asyncio.gather(*(mesh.execute_with_retry(work, f"c{n}", tenant_id) for n in range(20)))
            assert most == at_a_time

    async def test_features_of_a_tier_are_enforced_where_they_are_used(
        self, mesh: EnterpriseSynergyMeshOrchestrator
    ) -> None:
        @task(retry=RetryPolicy(max_retries=9))
        async def special() -> None: ...

        @workflow(name="special")
        def needs_retry() -> Any:
            return special()

        basic = mesh.create_tenant("Basic")
        with pytest.raises(FeatureNotEnabled, match="advanced_retry"):
            mesh.call(mesh.orchestrator.submit(needs_retry, tenant=basic))
        mesh.set_tier(basic, TenantTier.PROFESSIONAL)
        run = mesh.call(mesh.orchestrator.submit(needs_retry, tenant=basic))
        assert mesh.call(mesh.orchestrator.result_of(run.id)) is None


def _bound(function: Callable[[str], Awaitable[None]], tenant_id: str) -> Callable[[], Awaitable[None]]:
    async def call() -> None:
        await function(tenant_id)

    return call


class TestEndToEnd:
    async def test_an_order_goes_through_its_pipeline(self, mesh: EnterpriseSynergyMeshOrchestrator) -> None:
        (tenant_id,) = tenants_of(mesh, 1, TenantTier.PROFESSIONAL)
        ledger: list[str] = []
        for name, depends_on in (
            ("validate", []),
            ("reserve", ["validate"]),
            ("charge", ["validate"]),
            ("ship", ["reserve", "charge"]),
        ):
            mesh.add_dependency(name, depends_on)
        attempts = 0

        async def charge() -> str:
            nonlocal attempts
            attempts += 1
            if attempts == 1:
                raise ConnectionError("the bank does not answer")
            ledger.append("charge")
            return "paid"

        def step(name: str) -> Callable[[], Awaitable[str]]:
            async def run() -> str:
                ledger.append(name)
                return name

            return run

        mesh.retry_policies["charge"] = RetryPolicy(max_retries=2, initial_delay=0)
        steps = {name: step(name) for name in ("validate", "reserve", "ship")}
        results = await mesh.execute_components(tenant_id, steps | {"charge": charge})
        assert ledger[0] == "validate"
        assert ledger[-1] == "ship"
        assert (results["charge"].output, results["charge"].retry_count) == ("paid", 1)

    async def test_a_durable_workflow_ends_in_another_process_life(self, tmp_path: Path) -> None:
        database = f"sqlite:///{tmp_path}/mesh.db"
        with EnterpriseSynergyMeshOrchestrator(database, execute=False) as mesh:
            tenant_id = mesh.create_tenant("Acme")
            run = mesh.call(mesh.orchestrator.submit(doubled_sum, tenant=tenant_id, input={"numbers": [20, 1]}))
        with EnterpriseSynergyMeshOrchestrator(database, workflows=[doubled_sum]) as mesh:
            assert mesh.call(mesh.orchestrator.result_of(run.id, tenant=tenant_id)) == 42

    async def test_three_tenants_of_three_tiers_work_side_by_side(
        self, mesh: EnterpriseSynergyMeshOrchestrator
    ) -> None:
        tenants = {tier: mesh.create_tenant(tier.value, tier) for tier in TenantTier}
        results = await asyncio.gather(
            *(mesh.execute_with_retry(succeed, "c", tenant_id, value=tier) for tier, tenant_id in tenants.items())
        )
        assert [result.output for result in results] == list(tenants)
        assert [mesh.get_tenant_health(tenant_id)["successful"] for tenant_id in tenants.values()] == [1, 1, 1]

    async def test_suspending_in_the_middle_lets_what_runs_end(self, mesh: EnterpriseSynergyMeshOrchestrator) -> None:
        tenant_id = mesh.create_tenant("Acme", custom_quota=ResourceQuota(max_concurrent_tasks=1))
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def first() -> None:
            begun.set()
            await go_on.wait()

        running = asyncio.create_task(mesh.execute_with_retry(first, "a", tenant_id))
        await begun.wait()
        waiting = asyncio.create_task(mesh.execute_with_retry(succeed, "b", tenant_id))
        await until(lambda: mesh.call(mesh.orchestrator.get_tenant_health(tenant_id)).waiting == 1)
        mesh.suspend_tenant(tenant_id)
        go_on.set()
        assert (await running).status is ExecutionStatus.SUCCESS
        done, _ = await asyncio.wait([waiting], timeout=0.2)
        assert not done
        mesh.resume_tenant(tenant_id)
        assert (await waiting).status is ExecutionStatus.SUCCESS


class TestScale:
    async def test_sixty_tenants_execute_at_once_and_none_is_mixed_up(
        self, mesh: EnterpriseSynergyMeshOrchestrator
    ) -> None:
        tenants = tenants_of(mesh, 60, TenantTier.BASIC)
        results = await asyncio.gather(
            *(
                mesh.execute_with_retry(succeed, f"c{n}", tenant_id, value=(tenant_id, n))
                for tenant_id in tenants
                for n in range(5)
            )
        )
        assert [result.output for result in results] == [(tenant_id, n) for tenant_id in tenants for n in range(5)]
        assert all(result.tenant_id == result.output[0] for result in results)
        assert mesh.get_metrics()["total_executions"] == 300
        assert all(mesh.get_tenant_health(tenant_id)["successful"] == 5 for tenant_id in tenants)

    async def test_a_graph_of_150_components_runs_in_order(self, mesh: EnterpriseSynergyMeshOrchestrator) -> None:
        tenant_id = mesh.create_tenant("Acme", TenantTier.ENTERPRISE)
        dice = random.Random(5)
        names = [f"c{n:03}" for n in range(150)]
        depends_on = {name: dice.sample(names[:n], min(n, dice.randrange(4))) for n, name in enumerate(names)}
        for name, dependencies in depends_on.items():
            mesh.add_dependency(name, dependencies)
        order: list[str] = []

        def component(name: str) -> Callable[[], Awaitable[None]]:
            async def run() -> None:
                order.append(name)

            return run

        shuffled = dice.sample(names, len(names))
        results = await mesh.execute_components(tenant_id, {name: component(name) for name in shuffled})
        assert {result.status for result in results.values()} == {ExecutionStatus.SUCCESS}
        place = {name: position for position, name in enumerate(order)}
        assert len(place) == 150
        assert all(place[each] < place[name] for name in names for each in depends_on[name])

    async def test_a_chain_of_120_components_is_resolved_and_run(self, mesh: EnterpriseSynergyMeshOrchestrator) -> None:
        tenant_id = mesh.create_tenant("Acme", TenantTier.ENTERPRISE)
        names = [f"c{n}" for n in range(120)]
        for earlier, later in pairwise(names):
            mesh.add_dependency(later, earlier)
        assert mesh.resolve_execution_order(reversed(names)) == names
        assert not mesh.add_dependency(names[0], names[-1])
        results = await mesh.execute_components(tenant_id, dict.fromkeys(names, succeed))
        assert list(results) == names

    async def test_a_thousand_tenants_are_made_and_found(self, mesh: EnterpriseSynergyMeshOrchestrator) -> None:
        ids = tenants_of(mesh, 1_000, TenantTier.PROFESSIONAL)
        assert list(mesh.tenants) == ids
        assert mesh.get_metrics()["registered_tenants"] == 1_000


class TestAudit:
    async def test_everything_that_happened_is_in_the_log_once(self, mesh: EnterpriseSynergyMeshOrchestrator) -> None:
        tenant_id = mesh.create_tenant("Acme", TenantTier.ENTERPRISE)
        await mesh.execute_components(tenant_id, {f"c{n}": succeed for n in range(120)})
        entries = mesh.get_audit_logs(tenant_id)
        executed = [entry.component_id for entry in entries if entry.action == "execute_component"]
        assert sorted(map(str, executed)) == sorted(f"c{n}" for n in range(120))
        assert [entry.action for entry in entries if entry.action.endswith("_run")] == ["submit_run", "finish_run"]

    async def test_the_log_of_each_tenant_is_a_chain_of_its_own_that_verifies(
        self, mesh: EnterpriseSynergyMeshOrchestrator
    ) -> None:
        tenants = tenants_of(mesh, 5, TenantTier.BASIC)
        await asyncio.gather(*(mesh.execute_with_retry(succeed, "c", each) for each in tenants for _ in range(3)))
        for tenant_id in tenants:
            entries = mesh.get_audit_logs(tenant_id)
            assert {entry.tenant_id for entry in entries} == {tenant_id}
            assert [entry.audit_id for entry in entries] == [f"{tenant_id}/{n + 1}" for n in range(len(entries))]
        assert mesh.call(mesh.orchestrator.verify_audit()).is_intact

    def test_what_is_over_the_time_of_its_tier_leaves_the_log_and_the_rest_still_verifies(self, tmp_path: Path) -> None:
        clock = ShiftedClock()
        settings = read_settings(tiers={"basic": {"audit_days": 30}})
        with EnterpriseSynergyMeshOrchestrator(
            f"sqlite:///{tmp_path}/mesh.db", workflows=[doubled_sum], clock=clock, settings=settings
        ) as mesh:
            basic, enterprise = mesh.create_tenant("Basic"), mesh.create_tenant("Enterprise", TenantTier.ENTERPRISE)
            for tenant_id in (basic, enterprise):
                mesh.result_of(mesh.submit(doubled_sum, tenant_id, {"numbers": [1, 2]}))
            assert mesh.call(mesh.orchestrator.prune_audit()) == 0
            clock.forward(hours=33 * 24)
            mesh.suspend_tenant(basic)
            assert mesh.call(mesh.orchestrator.hold_audit(basic, "case 7"))
            with pytest.raises(LegalHold):
                mesh.call(mesh.orchestrator.prune_audit(basic))
            mesh.call(mesh.orchestrator.release_audit(basic))
            pruned = mesh.call(mesh.orchestrator.prune_audit(basic))
            assert pruned >= 5
            kept = {entry.action for entry in mesh.get_audit_logs(basic, hours=1_000)}
            assert kept >= {"create_tenant", "suspend_tenant", "audit_pruned"}
            assert not kept & {"submit_run", "finish_run", "execute_component"}
            assert mesh.get_audit_logs(enterprise, hours=1_000, action="finish_run")
            report = mesh.call(mesh.orchestrator.verify_audit())
            assert (report.is_intact, report.pruned) == (True, pruned)

    async def test_who_did_it_is_in_the_log(self, mesh: EnterpriseSynergyMeshOrchestrator) -> None:
        async def by_alice() -> str:
            async with mesh.orchestrator.acting_as(Actor(type="user", id="alice", source="web", request_id="r-1")):
                return (await mesh.orchestrator.create_tenant("Acme")).tenant_id

        tenant_id = mesh.call(by_alice())
        (entry,) = mesh.get_audit_logs(tenant_id, action="create_tenant")
        assert entry.user_id == "user/alice"
        assert (entry.metadata["source"], entry.metadata["request_id"]) == ("web", "r-1")

    async def test_a_tenant_reads_its_own_log_only_where_its_tier_allows_it(
        self, mesh: EnterpriseSynergyMeshOrchestrator
    ) -> None:
        basic, professional = (mesh.create_tenant(tier, tier) for tier in (TenantTier.BASIC, TenantTier.PROFESSIONAL))
        with pytest.raises(FeatureNotEnabled, match="audit_logs"):
            mesh.call(mesh.orchestrator.audit_log(basic, as_tenant=True))
        assert mesh.call(mesh.orchestrator.audit_log(professional, as_tenant=True)).entries

    def test_a_change_from_outside_is_found_by_the_first_bad_entry(self, tmp_path: Path) -> None:
        path = tmp_path / "mesh.db"
        with EnterpriseSynergyMeshOrchestrator(f"sqlite:///{path}") as mesh:
            tenant_id = mesh.create_tenant("Acme")
            mesh.suspend_tenant(tenant_id)
            mesh.resume_tenant(tenant_id)
        with sqlite3.connect(path) as connection:
            changed = connection.execute(
                "UPDATE audit_entries SET payload = replace(payload, 'suspended', 'resumed!!') "
                "WHERE tenant_id = ? AND seq = 2",
                (tenant_id,),
            )
            assert changed.rowcount == 1
        connection.close()
        with EnterpriseSynergyMeshOrchestrator(f"sqlite:///{path}") as mesh:
            report = mesh.call(mesh.orchestrator.verify_audit(tenant_id))
        assert not report.is_intact
        assert report.findings[0].seq == 2
