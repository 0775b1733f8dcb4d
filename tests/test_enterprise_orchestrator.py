"""The enterprise face, part by part: tenants, graphs, faults, resources, figures, and all of it together."""

import asyncio
import getpass
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from synergymesh import (
    Actor,
    AuditLog,
    ComponentType,
    DependencyResolver,
    EnterpriseSynergyMeshOrchestrator,
    ExecutionResult,
    ExecutionStatus,
    ResourceQuota,
    RetryPolicy,
    TenantConfig,
    TenantTier,
    current_task,
    task,
    workflow,
)
from synergymesh.errors import (
    BacklogFull,
    InvalidRequest,
    NotRunning,
    StoreCorrupt,
    StoreLocked,
    TenantHasOpenRuns,
    TenantNotActive,
    UnknownRun,
    UnknownTenant,
)
from synergymesh.testing.shifted_clock import ShiftedClock

AT_ONCE = RetryPolicy(max_retries=3, initial_delay=0)


@pytest.fixture
def mesh() -> Iterator[EnterpriseSynergyMeshOrchestrator]:
    with EnterpriseSynergyMeshOrchestrator() as opened:
        yield opened


@pytest.fixture
def tenant_id(mesh: EnterpriseSynergyMeshOrchestrator) -> str:
    return mesh.create_tenant("Acme", TenantTier.PROFESSIONAL)


async def succeed(value: Any = "done") -> Any:
    return value


async def fail() -> None:
    raise ValueError("no")


class Flaky:
    """Fail so many times, then give how often it was called."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.calls = 0

    async def __call__(self) -> int:
        self.calls += 1
        if self.calls <= self.failures:
            raise ConnectionError(f"call {self.calls}")
        return self.calls


class TestMultiTenancy:
    def test_a_tenant_has_the_plan_of_its_tier(self, mesh: EnterpriseSynergyMeshOrchestrator) -> None:
        before = datetime.now(UTC)
        tenant_id = mesh.create_tenant("Acme", TenantTier.ENTERPRISE)
        tenant = mesh.get_tenant(tenant_id)
        assert isinstance(tenant, TenantConfig)
        assert (tenant.tenant_id, tenant.tenant_name, tenant.tier) == (tenant_id, "Acme", TenantTier.ENTERPRISE)
        assert tenant.quota.max_concurrent_tasks == 100
        assert tenant.sla_uptime_percent == 99.95
        assert "multi_tenancy" in tenant.features_enabled
        assert before <= tenant.created_at <= datetime.now(UTC)

    def test_the_tiers_differ_in_quota_features_and_service_level(
        self, mesh: EnterpriseSynergyMeshOrchestrator
    ) -> None:
        tenants = [mesh.tenants[mesh.create_tenant(tier.value, tier)] for tier in TenantTier]
        assert [tenant.quota.max_concurrent_tasks for tenant in tenants] == [5, 20, 100]
        assert [tenant.quota.max_tasks_per_hour for tenant in tenants] == [100, 5_000, 100_000]
        assert [tenant.sla_uptime_percent for tenant in tenants] == [99.0, 99.9, 99.95]
        assert tenants[0].features_enabled < tenants[1].features_enabled < tenants[2].features_enabled

    def test_a_tenant_is_basic_unless_it_says_otherwise(self, mesh: EnterpriseSynergyMeshOrchestrator) -> None:
        tenant = mesh.get_tenant(mesh.create_tenant("Acme"))
        assert tenant is not None
        assert tenant.tier == TenantTier.BASIC

    def test_a_tenant_can_have_its_own_quota(self, mesh: EnterpriseSynergyMeshOrchestrator) -> None:
        quota = ResourceQuota(max_concurrent_tasks=7, rate_limit_per_second=3)
        tenant = mesh.get_tenant(mesh.create_tenant("Acme", custom_quota=quota))
        assert tenant is not None
        assert tenant.quota == quota

    def test_who_is_not_there_is_none_and_refused_where_a_decision_is_asked_for(
        self, mesh: EnterpriseSynergyMeshOrchestrator
    ) -> None:
        assert mesh.get_tenant("nobody") is None
        for ask in (
            mesh.check_resource_quota,
            mesh.acquire_rate_limit,
            mesh.get_tenant_health,
            mesh.suspend_tenant,
            mesh.resume_tenant,
            mesh.delete_tenant,
            mesh.modify_quota,
        ):
            with pytest.raises(UnknownTenant, match="nobody") as caught:
                ask("nobody")
            assert isinstance(caught.value, ValueError)

    def test_what_was_asked_for_is_not_repeated_at_length(self, mesh: EnterpriseSynergyMeshOrchestrator) -> None:
        with pytest.raises(UnknownTenant) as caught:
            mesh.get_tenant_health("x" * 10_000)
        assert len(str(caught.value)) < 250

    def test_the_mapping_of_tenants_can_only_be_read(self, mesh: EnterpriseSynergyMeshOrchestrator) -> None:
        ids = [mesh.create_tenant(f"tenant {n}") for n in range(3)]
        assert list(mesh.tenants) == ids
        with pytest.raises(TypeError):
            mesh.tenants["x"] = mesh.tenants[ids[0]]  # type: ignore[index]  # what is tested

    def test_tier_and_quota_can_be_changed(self, mesh: EnterpriseSynergyMeshOrchestrator, tenant_id: str) -> None:
        assert mesh.set_tier(tenant_id, "enterprise").quota.max_concurrent_tasks == 100
        assert mesh.modify_quota(tenant_id, max_concurrent_tasks=2).quota.max_memory_mb == 8_192
        assert mesh.tenants[tenant_id].quota.max_concurrent_tasks == 2
        assert mesh.modify_quota(tenant_id, ResourceQuota(max_memory_mb=9)).quota.max_memory_mb == 9
        with pytest.raises(InvalidRequest, match="max_concurrent_tasks"):
            mesh.modify_quota(tenant_id, max_concurrent_tasks=0)
        with pytest.raises(InvalidRequest, match="no limit speed"):
            mesh.modify_quota(tenant_id, speed=1)
        assert mesh.tenants[tenant_id].quota.max_memory_mb == 9

    def test_changes_of_different_limits_at_the_same_time_all_count(
        self, mesh: EnterpriseSynergyMeshOrchestrator
    ) -> None:
        changes = {"max_concurrent_tasks": 77, "max_memory_mb": 777, "max_tasks_per_hour": 7_777}
        for _ in range(20):
            tenant_id = mesh.create_tenant("Acme")
            together = threading.Barrier(len(changes))

            def change(tenant_id: str, together: threading.Barrier, name: str) -> None:
                together.wait()
                mesh.modify_quota(tenant_id, **{name: changes[name]})

            threads = [threading.Thread(target=change, args=(tenant_id, together, name)) for name in changes]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            quota = mesh.tenants[tenant_id].quota
            assert {name: getattr(quota, name) for name in changes} == changes

    async def test_a_suspended_tenant_executes_nothing_until_it_is_resumed(
        self, mesh: EnterpriseSynergyMeshOrchestrator, tenant_id: str
    ) -> None:
        mesh.suspend_tenant(tenant_id)
        with pytest.raises(TenantNotActive):
            await mesh.execute_with_retry(succeed, "c", tenant_id)
        mesh.resume_tenant(tenant_id)
        assert (await mesh.execute_with_retry(succeed, "c", tenant_id)).status is ExecutionStatus.SUCCESS

    async def test_a_deleted_tenant_is_gone(self, mesh: EnterpriseSynergyMeshOrchestrator, tenant_id: str) -> None:
        await mesh.execute_with_retry(succeed, "c", tenant_id)
        mesh.delete_tenant(tenant_id)
        assert mesh.get_tenant(tenant_id) is None
        with pytest.raises(UnknownTenant):
            await mesh.execute_with_retry(succeed, "c", tenant_id)
        with pytest.raises(UnknownTenant):
            await mesh.execute_components(tenant_id, {})

    def test_a_tenant_with_open_runs_is_deleted_by_force_only(
        self, mesh: EnterpriseSynergyMeshOrchestrator, tenant_id: str
    ) -> None:
        @task
        async def for_ever() -> None:
            await asyncio.Event().wait()

        @workflow
        def endless() -> Any:
            return for_ever()

        run_id = mesh.submit(endless, tenant_id)
        with pytest.raises(TenantHasOpenRuns):
            mesh.delete_tenant(tenant_id)
        assert mesh.get_run(run_id).id == run_id
        mesh.delete_tenant(tenant_id, force=True)
        assert mesh.get_tenant(tenant_id) is None

    async def test_two_orchestrators_do_not_touch_each_other(self, mesh: EnterpriseSynergyMeshOrchestrator) -> None:
        with EnterpriseSynergyMeshOrchestrator() as other:
            here, there = mesh.create_tenant("Acme"), other.create_tenant("Acme")
            await mesh.execute_with_retry(succeed, "c", here)
            assert mesh.get_tenant(there) is None
            assert other.get_tenant(here) is None
            assert (mesh.get_metrics()["total_executions"], other.get_metrics()["total_executions"]) == (1, 0)
        assert mesh.get_tenant(here) is not None


class TestDependencyResolver:
    def test_components_come_after_what_they_depend_on(self, mesh: EnterpriseSynergyMeshOrchestrator) -> None:
        assert mesh.add_dependency("web", ["api", "assets"], ComponentType.SERVICE)
        assert mesh.add_dependency("api", "database", "service")
        order = mesh.resolve_execution_order(["web", "api", "database", "assets"])
        assert order.index("database") < order.index("api") < order.index("web")
        assert order.index("assets") < order.index("web")

    def test_a_cycle_is_refused_and_changes_nothing(self, mesh: EnterpriseSynergyMeshOrchestrator) -> None:
        assert mesh.add_dependency("b", "a")
        assert mesh.add_dependency("c", "b")
        before = mesh.component_dependencies
        assert not mesh.add_dependency("a", ["x", "c"], ComponentType.AGENT)
        assert not mesh.add_dependency("a", "a")
        assert mesh.component_dependencies == before

    def test_the_graph_can_be_read(self, mesh: EnterpriseSynergyMeshOrchestrator) -> None:
        mesh.add_dependency("web", ["api"], ComponentType.SERVICE)
        mesh.add_dependency("web", ["assets"])
        web = mesh.component_dependencies["web"]
        assert (web.depends_on, web.component_type) == (("api", "assets"), "service")
        assert mesh.component_dependencies["api"].component_type == ComponentType.TASK

    def test_unknown_components_depend_on_nothing_and_only_the_asked_are_given(
        self, mesh: EnterpriseSynergyMeshOrchestrator
    ) -> None:
        mesh.add_dependency("b", "a")
        assert set(mesh.resolve_execution_order(["b", "z"])) == {"b", "z"}
        assert mesh.resolve_execution_order([]) == []

    def test_the_resolver_gives_phases_and_the_critical_path(self) -> None:
        resolver = DependencyResolver()
        resolver.add_components([("a", "task", 0, 1.0), ("b", "task", 0, 5.0), ("c", "task", 0, 1.0), ("d", "task")])
        resolver.add_dependencies([("b", "a"), ("c", "a"), ("d", "b"), ("d", "c")])
        assert [sorted(phase.components) for phase in resolver.get_execution_phases()] == [["a"], ["b", "c"], ["d"]]
        assert resolver.get_critical_path() == ["a", "b", "d"]

    def test_what_cannot_be_a_component_is_refused_and_changes_nothing(
        self, mesh: EnterpriseSynergyMeshOrchestrator
    ) -> None:
        for component_id, depends_on, component_type in (
            ("a", "b", ""),
            ("a", "b", 5),
            ("a", None, None),
            ("a", ["b", None], None),
            ("a", [""], None),
            (None, "b", None),
        ):
            with pytest.raises(InvalidRequest):
                mesh.add_dependency(component_id, depends_on, component_type)  # type: ignore[arg-type]  # what is tested
        assert mesh.component_dependencies == {}
        for ids in ([None], [""], None):
            with pytest.raises(InvalidRequest):
                mesh.resolve_execution_order(ids)  # type: ignore[arg-type]  # what is tested

    async def test_components_are_executed_in_dependency_order_side_by_side(
        self, mesh: EnterpriseSynergyMeshOrchestrator, tenant_id: str
    ) -> None:
        mesh.add_dependency("b", "a")
        mesh.add_dependency("c", "a")
        mesh.add_dependency("d", ["b", "c"])
        order: list[str] = []
        both = asyncio.Barrier(2)  # b and c end only when they run at the same time

        def component(name: str) -> Any:
            async def run() -> str:
                if name in ("b", "c"):
                    await both.wait()
                order.append(name)
                return name.upper()

            return run

        results = await mesh.execute_components(tenant_id, {name: component(name) for name in "dcba"})
        assert {name: result.output for name, result in results.items()} == {"a": "A", "b": "B", "c": "C", "d": "D"}
        assert (order[0], sorted(order[1:3]), order[3]) == ("a", ["b", "c"], "d")

    async def test_a_dependency_through_a_component_that_is_not_executed_counts(
        self, mesh: EnterpriseSynergyMeshOrchestrator, tenant_id: str
    ) -> None:
        mesh.add_dependency("middle", "first")
        mesh.add_dependency("last", "middle")
        order: list[str] = []

        async def first() -> None:
            await asyncio.sleep(0)
            order.append("first")

        async def last() -> None:
            order.append("last")

        await mesh.execute_components(tenant_id, {"last": last, "first": first})
        assert order == ["first", "last"]

    async def test_what_depends_on_a_failed_component_is_skipped(
        self, mesh: EnterpriseSynergyMeshOrchestrator, tenant_id: str
    ) -> None:
        mesh.add_dependency("after", "broken")
        mesh.retry_policies["broken"] = RetryPolicy(max_retries=0)
        results = await mesh.execute_components(tenant_id, {"broken": fail, "after": succeed, "beside": succeed})
        assert {name: result.status.value for name, result in results.items()} == {
            "broken": "failed",
            "after": "skipped",
            "beside": "success",
        }
        assert await mesh.execute_components(tenant_id, {}) == {}


class TestFaultTolerance:
    async def test_a_flaky_function_is_retried_until_it_succeeds(
        self, mesh: EnterpriseSynergyMeshOrchestrator, tenant_id: str
    ) -> None:
        mesh.retry_policies["payment"] = AT_ONCE
        flaky = Flaky(2)
        result = await mesh.execute_with_retry(flaky, "payment", tenant_id)
        assert (result.status, result.output, result.retry_count) == (ExecutionStatus.SUCCESS, 3, 2)
        assert mesh.get_metrics()["total_retry_attempts"] == 2

    async def test_what_a_function_raises_is_said_and_not_raised(
        self, mesh: EnterpriseSynergyMeshOrchestrator, tenant_id: str
    ) -> None:
        result = await mesh.execute_with_retry(fail, "payment", tenant_id, max_retries=0)
        assert (result.status, result.error, result.output) == (ExecutionStatus.FAILED, "ValueError: no", None)

    async def test_max_retries_comes_before_the_components_policy(
        self, mesh: EnterpriseSynergyMeshOrchestrator, tenant_id: str
    ) -> None:
        mesh.retry_policies["payment"] = AT_ONCE
        flaky = Flaky(10)
        result = await mesh.execute_with_retry(flaky, "payment", tenant_id, max_retries=1)
        assert (result.retry_count, flaky.calls) == (1, 2)

    async def test_max_retries_leaves_everything_else_of_the_policy_that_counts(
        self, mesh: EnterpriseSynergyMeshOrchestrator, tenant_id: str
    ) -> None:
        own = RetryPolicy(max_retries=9, initial_delay=0, give_up_on=(ValueError,))
        mesh.call(mesh.orchestrator.set_retry_policy(tenant_id, own))
        flaky = Flaky(10)
        result = await mesh.execute_with_retry(flaky, "payment", tenant_id, max_retries=4)
        assert (result.retry_count, flaky.calls) == (4, 5)
        assert (await mesh.execute_with_retry(fail, "payment", tenant_id, max_retries=4)).retry_count == 0
        mesh.retry_policies["payment"] = RetryPolicy(max_retries=0, initial_delay=0, give_up_on=(ConnectionError,))
        assert (await mesh.execute_with_retry(Flaky(10), "payment", tenant_id, max_retries=4)).retry_count == 0
        with pytest.raises(InvalidRequest, match="max_retries"):
            await mesh.execute_with_retry(succeed, "payment", tenant_id, max_retries=-1)

    async def test_the_tenants_policy_counts_where_the_component_has_none(
        self, mesh: EnterpriseSynergyMeshOrchestrator, tenant_id: str
    ) -> None:
        mesh.call(mesh.orchestrator.set_retry_policy(tenant_id, RetryPolicy(max_retries=2, initial_delay=0)))
        mesh.retry_policies["refund"] = RetryPolicy(max_retries=1, initial_delay=0)
        assert (await mesh.execute_with_retry(fail, "payment", tenant_id)).retry_count == 2
        assert (await mesh.execute_with_retry(fail, "refund", tenant_id)).retry_count == 1

    async def test_arguments_that_do_not_fit_are_a_failed_result(
        self, mesh: EnterpriseSynergyMeshOrchestrator, tenant_id: str
    ) -> None:
        result = await mesh.execute_with_retry(succeed, "c", tenant_id, max_retries=0, valeu=1)
        assert result.status is ExecutionStatus.FAILED
        assert "unexpected keyword argument 'valeu'" in str(result.error)

    async def test_a_cancelled_caller_cancels_its_function_and_frees_the_slot(
        self, mesh: EnterpriseSynergyMeshOrchestrator
    ) -> None:
        tenant_id = mesh.create_tenant("Acme", custom_quota=ResourceQuota(max_concurrent_tasks=1))
        begun = asyncio.Event()
        told = []

        async def for_ever() -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                told.append("ended")

        async def next_one() -> list[str]:
            return list(told)  # it begins when the slot is free

        running = asyncio.create_task(mesh.execute_with_retry(for_ever, "a", tenant_id))
        await begun.wait()
        waiting = asyncio.create_task(mesh.execute_with_retry(succeed, "b", tenant_id))
        for cancelled in (waiting, running):
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
        assert (await mesh.execute_with_retry(next_one, "c", tenant_id)).output == ["ended"]
        (entry,) = (each for each in mesh.get_audit_logs(tenant_id) if each.component_id == "a")
        assert (entry.status, entry.metadata["details"]["status"]) == ("success", "cancelled")

    def test_delays_grow_up_to_their_limit_and_attempt_zero_gives_the_initial_one(self) -> None:
        policy = RetryPolicy(max_retries=5, initial_delay=1.0, max_delay=5.0, exponential_base=2.0)
        assert [policy.get_delay(attempt) for attempt in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]

    async def test_an_attempt_that_takes_too_long_is_a_timeout(
        self, mesh: EnterpriseSynergyMeshOrchestrator, tenant_id: str
    ) -> None:
        result = await mesh.execute_with_retry(asyncio.Event().wait, "slow", tenant_id, max_retries=0, timeout=0.01)
        assert result.status is ExecutionStatus.TIMEOUT
        assert "timeout of 0.01 s" in str(result.error)

    async def test_an_agent_is_started_and_executed(
        self, mesh: EnterpriseSynergyMeshOrchestrator, tenant_id: str
    ) -> None:
        class Agent:
            def __init__(self) -> None:
                self.log: list[str] = []

            async def start(self) -> None:
                self.log.append("start")

            def execute(self, goal: str) -> str:
                self.log.append("execute")
                return goal.upper()

        agent = Agent()
        result = await mesh.execute_agent("planner", agent, tenant_id, goal="win")
        assert (result.output, result.component_type, agent.log) == ("WIN", "agent", ["start", "execute"])
        with pytest.raises(InvalidRequest, match="execute"):
            await mesh.execute_agent("planner", object(), tenant_id)

    async def test_an_agent_takes_arguments_of_any_name_and_no_longer_than_it_may(
        self, mesh: EnterpriseSynergyMeshOrchestrator, tenant_id: str
    ) -> None:
        class Agent:
            async def execute(self, **given: Any) -> Any:
                return given or await asyncio.Event().wait()

        arguments = {"component_id": 1, "func": 2, "component_type": 3}
        assert (await mesh.execute_agent("planner", Agent(), tenant_id, **arguments)).output == arguments
        mesh.retry_policies["planner"] = AT_ONCE
        result = await mesh.execute_agent("planner", Agent(), tenant_id, 1, timeout=0.01)
        assert (result.status, result.retry_count) == (ExecutionStatus.TIMEOUT, 1)

    async def test_a_result_carries_the_type_that_its_component_has_in_the_graph(
        self, mesh: EnterpriseSynergyMeshOrchestrator, tenant_id: str
    ) -> None:
        mesh.add_dependency("web", [], ComponentType.SERVICE)

        async def kind(component_type: str) -> str:
            return component_type

        result = await mesh.execute_with_retry(kind, "web", tenant_id, component_type="mine")
        assert (result.component_type, result.output) == ("service", "mine")

    async def test_only_coroutine_functions_are_taken(
        self, mesh: EnterpriseSynergyMeshOrchestrator, tenant_id: str
    ) -> None:
        with pytest.raises(InvalidRequest, match="coroutine function"):
            await mesh.execute_with_retry(lambda: 1, "c", tenant_id)  # type: ignore[arg-type,return-value]  # what is tested

    async def test_a_closure_that_a_crash_interrupted_is_failed_with_that_reason(self, tmp_path: Path) -> None:
        database = f"sqlite:///{tmp_path}/mesh.db"
        program = f"""
import asyncio, os
from synergymesh import EnterpriseSynergyMeshOrchestrator
mesh = EnterpriseSynergyMeshOrchestrator({database!r})
tenant_id = mesh.create_tenant("Acme")
def listed():
    return mesh.call(mesh.orchestrator.list_runs())
async def main():
    async def done(): return 1
    async def dies():
        while not any(run.workflow == "lost" for run in await asyncio.to_thread(listed)):
            await asyncio.sleep(0.05)
        os._exit(9)
    await mesh.execute_with_retry(done, "before", tenant_id)
    await mesh.execute_with_retry(dies, "lost", tenant_id)
asyncio.run(main())
"""
        ended = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program], timeout=60)
        assert ended.returncode == 9
        with EnterpriseSynergyMeshOrchestrator(database) as mesh:
            (tenant_id,) = mesh.tenants
            runs = mesh.call(mesh.orchestrator.list_runs(tenant=tenant_id))
            lost = next(run for run in runs if run.workflow == "lost")
            with pytest.raises(Exception, match="cannot be found again"):
                mesh.call(mesh.orchestrator.result_of(lost.id))
            assert {run.workflow: run.status.value for run in runs}["before"] == "success"


class TestResourceManagement:
    async def test_no_more_run_at_a_time_than_the_quota_allows(self, mesh: EnterpriseSynergyMeshOrchestrator) -> None:
        tenant_id = mesh.create_tenant("Acme")  # basic: five at a time
        running = most = 0
        full = asyncio.Event()

        async def busy() -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            if running == 5:
                full.set()
            await full.wait()
            await asyncio.sleep(0)
            running -= 1

        await asyncio.gather(*(mesh.execute_with_retry(busy, f"c{n % 3}", tenant_id) for n in range(40)))
        assert most == 5

    async def test_a_check_says_whether_there_is_room_and_takes_nothing(
        self, mesh: EnterpriseSynergyMeshOrchestrator
    ) -> None:
        tenant_id = mesh.create_tenant("Acme", custom_quota=ResourceQuota(max_concurrent_tasks=1))
        go_on, begun = asyncio.Event(), asyncio.Event()

        async def busy() -> None:
            begun.set()
            await go_on.wait()

        for resource in ("concurrent", "memory", "cpu", "hourly", "rate_limit", "tasks"):
            assert all(mesh.check_resource_quota(tenant_id, resource) for _ in range(20))
        running = asyncio.create_task(mesh.execute_with_retry(busy, "c", tenant_id))
        await begun.wait()
        assert not mesh.check_resource_quota(tenant_id)
        assert not mesh.check_resource_quota(tenant_id, "tasks")
        assert mesh.check_resource_quota(tenant_id, "memory")
        go_on.set()
        await running
        assert mesh.check_resource_quota(tenant_id)
        with pytest.raises(InvalidRequest, match="resource_type"):
            mesh.check_resource_quota(tenant_id, "luck")

    def test_the_rate_admits_a_burst_and_no_more(self, mesh: EnterpriseSynergyMeshOrchestrator) -> None:
        quota = ResourceQuota(rate_limit_per_second=1, burst=3)
        tenant_id = mesh.create_tenant("Acme", custom_quota=quota)
        assert [mesh.acquire_rate_limit(tenant_id) for _ in range(4)] == [True, True, True, False]
        assert not mesh.check_resource_quota(tenant_id, "rate_limit")
        assert not mesh.check_resource_quota(tenant_id, "tasks")

    async def test_the_starts_of_an_hour_are_limited(self, mesh: EnterpriseSynergyMeshOrchestrator) -> None:
        quota = ResourceQuota(max_tasks_per_hour=5)
        tenant_id = mesh.create_tenant("Acme", custom_quota=quota)
        calls = [asyncio.create_task(mesh.execute_with_retry(succeed, "c", tenant_id)) for _ in range(6)]
        done, waiting = await asyncio.wait(calls, timeout=0.5)
        assert (len(done), len(waiting)) == (5, 1)
        assert not mesh.check_resource_quota(tenant_id, "hourly")
        mesh.modify_quota(tenant_id, max_tasks_per_hour=50)
        assert (await waiting.pop()).status is ExecutionStatus.SUCCESS

    async def test_one_tenants_limit_does_not_hold_another(self, mesh: EnterpriseSynergyMeshOrchestrator) -> None:
        full = mesh.create_tenant("Full", custom_quota=ResourceQuota(max_concurrent_tasks=1))
        free = mesh.create_tenant("Free")
        go_on, begun = asyncio.Event(), asyncio.Event()

        async def busy() -> None:
            begun.set()
            await go_on.wait()

        blocked = [asyncio.create_task(mesh.execute_with_retry(busy, "c", full)) for _ in range(3)]
        await begun.wait()
        assert (await mesh.execute_with_retry(succeed, "c", free)).status is ExecutionStatus.SUCCESS
        assert mesh.check_resource_quota(free)
        go_on.set()
        await asyncio.gather(*blocked)

    async def test_a_backlog_beyond_its_limit_is_refused(self, mesh: EnterpriseSynergyMeshOrchestrator) -> None:
        quota = ResourceQuota(max_concurrent_tasks=1, max_queued_tasks=2)
        tenant_id = mesh.create_tenant("Acme", custom_quota=quota)
        with pytest.raises(BacklogFull):
            await mesh.execute_components(tenant_id, {str(n): succeed for n in range(3)})


class TestAuditLogging:
    def test_creating_a_tenant_is_an_entry_with_success(self, mesh: EnterpriseSynergyMeshOrchestrator) -> None:
        before = datetime.now(UTC)
        tenant_id = mesh.create_tenant("Acme")
        (entry,) = mesh.get_audit_logs(tenant_id, action="create_tenant")
        assert isinstance(entry, AuditLog)
        assert (entry.action, entry.status, entry.tenant_id) == ("create_tenant", "success", tenant_id)
        assert before <= entry.timestamp <= datetime.now(UTC)
        assert entry.user_id == f"user/{getpass.getuser()}"
        shown = entry.to_dict()
        assert (shown["action"], datetime.fromisoformat(shown["timestamp"])) == ("create_tenant", entry.timestamp)

    async def test_executions_and_their_failures_are_entries(
        self, mesh: EnterpriseSynergyMeshOrchestrator, tenant_id: str
    ) -> None:
        mesh.retry_policies["payment"] = AT_ONCE
        await mesh.execute_with_retry(Flaky(1), "payment", tenant_id)
        await mesh.execute_with_retry(fail, "refund", tenant_id, max_retries=0)
        entries = mesh.get_audit_logs(tenant_id)
        told = [(each.action, each.component_id, each.status) for each in entries if each.component_id]
        assert told == [
            ("retry_component", "payment", "failure"),
            ("execute_component", "payment", "success"),
            ("execute_component", "refund", "failure"),
        ]
        failures = mesh.get_audit_logs(tenant_id, outcome="failure")
        assert [each.component_id for each in failures if each.component_id] == ["payment", "refund"]

    def test_changes_of_a_tenant_are_entries_in_their_order(self, mesh: EnterpriseSynergyMeshOrchestrator) -> None:
        tenant_id = mesh.create_tenant("Acme")
        mesh.set_tier(tenant_id, TenantTier.ENTERPRISE)
        mesh.modify_quota(tenant_id, max_concurrent_tasks=3)
        mesh.suspend_tenant(tenant_id)
        mesh.resume_tenant(tenant_id)
        assert [entry.action for entry in mesh.get_audit_logs(tenant_id)] == [
            "create_tenant",
            "modify_tenant",
            "modify_tenant",
            "suspend_tenant",
            "resume_tenant",
            "audit_read",  # this very look
        ]

    def test_all_entries_are_given_oldest_first_and_counted(self, mesh: EnterpriseSynergyMeshOrchestrator) -> None:
        tenants = [mesh.create_tenant(f"tenant {n}") for n in range(3)]
        entries = mesh.audit_logs
        assert [entry.tenant_id for entry in entries if entry.action == "create_tenant"] == tenants
        assert [entry.timestamp for entry in entries] == sorted(entry.timestamp for entry in entries)
        assert mesh.get_metrics()["total_audit_logs"] >= len(entries)

    def test_hours_are_those_of_the_orchestrators_clock(self) -> None:
        clock = ShiftedClock()
        with EnterpriseSynergyMeshOrchestrator(clock=clock) as mesh:
            tenant_id = mesh.create_tenant("Acme")
            clock.forward(hours=30)
            mesh.suspend_tenant(tenant_id)
            between = mesh.get_tenant(tenant_id)
            assert between is not None
            told = [[entry.action for entry in mesh.get_audit_logs(tenant_id, hours=hours)][:2] for hours in (24, 31)]
            assert told == [["suspend_tenant", "audit_read"], ["create_tenant", "suspend_tenant"]]
            earlier = mesh.get_audit_logs(tenant_id, hours=31, until=between.created_at + timedelta(hours=1))
            assert [entry.action for entry in earlier] == ["create_tenant"]

    def test_entries_can_be_searched_by_who_acted(self, mesh: EnterpriseSynergyMeshOrchestrator) -> None:
        tenant_id = mesh.create_tenant("Acme")
        with mesh.orchestrator.acting_as(Actor(type="user", id="ann")):
            mesh.suspend_tenant(tenant_id)
        assert [entry.action for entry in mesh.get_audit_logs(tenant_id, actor="user/ann")] == ["suspend_tenant"]

    async def test_all_entries_can_be_read_page_by_page(
        self, mesh: EnterpriseSynergyMeshOrchestrator, tenant_id: str
    ) -> None:
        await mesh.execute_components(tenant_id, {f"c{n}": succeed for n in range(30)})
        read, cursor, pages = [], None, 0
        while pages == 0 or cursor is not None:
            page = mesh.call(mesh.orchestrator.audit_log(tenant_id, action="task.finished", cursor=cursor, limit=7))
            read += [entry.entity.rpartition("/")[2] for entry in page.entries]
            cursor, pages = page.cursor, pages + 1
        assert sorted(read) == sorted(f"c{n}" for n in range(30))
        assert pages >= 5

    def test_the_chain_verifies(self, mesh: EnterpriseSynergyMeshOrchestrator, tenant_id: str) -> None:
        report = mesh.call(mesh.orchestrator.verify_audit(tenant_id))
        assert report.is_intact

    def test_bad_questions_are_refused(self, mesh: EnterpriseSynergyMeshOrchestrator, tenant_id: str) -> None:
        with pytest.raises(UnknownTenant):
            mesh.get_audit_logs("nobody")
        for hours in (0, -1, float("nan"), float("inf")):
            with pytest.raises(InvalidRequest, match="hours"):
                mesh.get_audit_logs(tenant_id, hours=hours)
        with pytest.raises(InvalidRequest):
            mesh.get_audit_logs(tenant_id, limit=0)
        with pytest.raises(InvalidRequest):
            mesh.get_audit_logs(tenant_id, outcome="luck")


class TestMonitoring:
    async def test_the_figures_of_all_tenants_add_up(self, mesh: EnterpriseSynergyMeshOrchestrator) -> None:
        tenants = [mesh.create_tenant(f"tenant {n}") for n in range(3)]
        for tenant_id in tenants:
            await mesh.execute_with_retry(succeed, "good", tenant_id)
        await mesh.execute_with_retry(fail, "bad", tenants[0], max_retries=0)
        metrics = mesh.get_metrics()
        assert metrics["total_executions"] == 4
        assert (metrics["successful_executions"], metrics["failed_executions"]) == (3, 1)
        assert metrics["success_rate"] == 75.0
        assert (metrics["active_tasks"], metrics["registered_tenants"]) == (0, 3)

    async def test_the_health_of_a_tenant_is_its_own(self, mesh: EnterpriseSynergyMeshOrchestrator) -> None:
        good, bad, idle = (mesh.create_tenant(name, TenantTier.PROFESSIONAL) for name in ("good", "bad", "idle"))
        for _ in range(6):
            await mesh.execute_with_retry(succeed, "c", good)
            await mesh.execute_with_retry(fail, "c", bad, max_retries=0)
        healthy, failing, nothing = (mesh.get_tenant_health(each) for each in (good, bad, idle))
        assert (healthy["status"], healthy["success_rate"], healthy["successful"]) == ("healthy", 100.0, 6)
        assert (failing["status"], failing["success_rate"], failing["failed"]) == ("failing", 0.0, 6)
        assert "0.00 % of 6 executions" in failing["reasons"][0]
        assert (nothing["status"], nothing["total_executions"], nothing["last_execution"]) == ("idle", 0, None)
        assert healthy["duration_p50_ms"] <= healthy["duration_p95_ms"] <= healthy["duration_p99_ms"]
        assert healthy["last_execution"] <= datetime.now(UTC)

    async def test_durations_and_waits_are_those_that_were(self, mesh: EnterpriseSynergyMeshOrchestrator) -> None:
        tenant_id = mesh.create_tenant("Acme", custom_quota=ResourceQuota(max_concurrent_tasks=1))

        async def work() -> None:
            await asyncio.sleep(0.05)

        results = await asyncio.gather(*(mesh.execute_with_retry(work, "c", tenant_id) for _ in range(3)))
        longest = max(result.duration_ms for result in results)
        health = mesh.get_tenant_health(tenant_id)
        while not health["wait_p95_ms"]:  # waits are counted twice a second
            await asyncio.sleep(0.01)
            health = mesh.get_tenant_health(tenant_id)
        assert 45 <= mesh.get_metrics()["average_execution_time_ms"] <= longest + 1
        for name in ("duration_p50_ms", "duration_p95_ms", "duration_p99_ms"):
            assert 40 <= health[name] <= 2 * longest  # a histogram's buckets
        assert health["wait_p50_ms"] >= 25  # the second waited for the first,
        assert health["wait_p95_ms"] >= 60  # and the third for both
        assert health["wait_p99_ms"] >= health["wait_p95_ms"]

    async def test_a_tenant_below_its_service_level_is_degraded(
        self, mesh: EnterpriseSynergyMeshOrchestrator, tenant_id: str
    ) -> None:
        for n in range(10):
            await mesh.execute_with_retry(fail if n == 0 else succeed, "c", tenant_id, max_retries=0)
        health = mesh.get_tenant_health(tenant_id)
        assert (health["status"], health["success_rate"], health["uptime_percent"]) == ("degraded", 90.0, 90.0)
        assert "promises 99.9 %" in health["reasons"][0]

    async def test_figures_outlive_the_process_on_a_file(self, tmp_path: Path) -> None:
        database = f"sqlite:///{tmp_path}/mesh.db"
        with EnterpriseSynergyMeshOrchestrator(database) as mesh:
            tenant_id = mesh.create_tenant("Acme")
            await mesh.execute_with_retry(succeed, "c", tenant_id)
            before = mesh.get_metrics()
        with EnterpriseSynergyMeshOrchestrator(database) as mesh:
            after = mesh.get_metrics()
            assert after.pop("total_audit_logs") > before.pop("total_audit_logs")  # the first one ended, this one began
            assert after == before
            assert mesh.get_tenant_health(tenant_id)["successful"] == 1

    async def test_a_result_can_be_turned_into_a_dictionary(
        self, mesh: EnterpriseSynergyMeshOrchestrator, tenant_id: str
    ) -> None:
        result = await mesh.execute_with_retry(succeed, "c", tenant_id, value=[1])
        assert isinstance(result, ExecutionResult)
        shown = result.to_dict()
        assert (shown["component_id"], shown["status"], shown["output"]) == ("c", "success", [1])
        assert list(shown) == [each.name for each in fields(ExecutionResult)]
        lock = threading.Lock()  # cannot be copied
        assert (await mesh.execute_with_retry(succeed, "c", tenant_id, value=lock)).to_dict()["output"] is lock
        assert datetime.fromisoformat(shown["start_time"]) == result.start_time
        assert result.duration_ms >= 0


class TestIntegration:
    async def test_a_function_runs_in_its_callers_loop_and_thread(
        self, mesh: EnterpriseSynergyMeshOrchestrator, tenant_id: str
    ) -> None:
        async def where() -> tuple[object, object, str]:
            return asyncio.get_running_loop(), threading.current_thread(), current_task().tenant_id

        result = await mesh.execute_with_retry(where, "c", tenant_id)
        assert result.output == (asyncio.get_running_loop(), threading.current_thread(), tenant_id)

    def test_it_serves_threads_with_loops_of_their_own(
        self, mesh: EnterpriseSynergyMeshOrchestrator, tenant_id: str
    ) -> None:
        outputs: list[Any] = []

        def program(number: int) -> None:
            async def main() -> None:
                result = await mesh.execute_with_retry(succeed, "c", tenant_id, value=number)
                outputs.append(result.output)

            asyncio.run(main())

        threads = [threading.Thread(target=program, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outputs) == list(range(8))

    async def test_workflows_and_direct_calls_share_a_tenants_limits(
        self, mesh: EnterpriseSynergyMeshOrchestrator, tenant_id: str
    ) -> None:
        @task
        async def double(number: int) -> int:
            return 2 * number

        @workflow
        def doubled(number: int) -> Any:
            return double(number)

        run = mesh.call(mesh.orchestrator.submit(doubled, tenant=tenant_id, input={"number": 21}))
        assert mesh.call(mesh.orchestrator.result_of(run.id)) == 42
        await mesh.execute_with_retry(succeed, "c", tenant_id)
        assert mesh.get_metrics()["total_executions"] == 2

    async def test_a_closed_orchestrator_says_so(self) -> None:
        mesh = EnterpriseSynergyMeshOrchestrator()
        tenant_id = mesh.create_tenant("Acme")
        mesh.close()
        mesh.close()
        with pytest.raises(NotRunning):
            mesh.get_metrics()
        with pytest.raises(NotRunning):
            await mesh.execute_with_retry(succeed, "c", tenant_id)

    def test_one_left_open_ends_cleanly_with_the_interpreter(self, tmp_path: Path) -> None:
        database = f"sqlite:///{tmp_path}/mesh.db"
        program = f"""
import asyncio
from synergymesh import EnterpriseSynergyMeshOrchestrator
mesh = EnterpriseSynergyMeshOrchestrator({database!r})
tenant_id = mesh.create_tenant("Acme")
async def done(): return 1
print(asyncio.run(mesh.execute_with_retry(done, "c", tenant_id)).status.value)
"""
        ended = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, timeout=60)
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"success\n", b"")
        with EnterpriseSynergyMeshOrchestrator(database) as mesh:
            assert mesh.get_metrics()["successful_executions"] == 1

    def test_what_the_asynchronous_face_can_do_can_be_called(
        self, mesh: EnterpriseSynergyMeshOrchestrator, tenant_id: str
    ) -> None:
        with mesh.orchestrator.acting_as(Actor(type="user", id="ann")):
            mesh.call(mesh.orchestrator.set_weight(tenant_id, 3))
        assert mesh.get_audit_logs(tenant_id, action="modify_tenant")[0].user_id == "user/ann"
        assert mesh.call(mesh.orchestrator.list_runs(tenant=tenant_id)) == []
        with pytest.raises(UnknownRun):
            mesh.call(mesh.orchestrator.cancel_run("run-nobody"))
        with pytest.raises(InvalidRequest, match="coroutine"):
            mesh.call(mesh.orchestrator.list_runs)  # type: ignore[arg-type]  # what is tested

    def test_a_database_that_cannot_be_used_is_refused_and_nothing_stays_behind(self, tmp_path: Path) -> None:
        before = set(threading.enumerate())
        with pytest.raises(InvalidRequest):
            EnterpriseSynergyMeshOrchestrator("postgres://nowhere/mesh", synchronous="fast")
        (tmp_path / "text.db").write_text("this is no database")
        with pytest.raises(StoreCorrupt):
            EnterpriseSynergyMeshOrchestrator(f"sqlite:///{tmp_path}/text.db")
        with EnterpriseSynergyMeshOrchestrator(f"sqlite:///{tmp_path}/mesh.db"):
            theirs = set(threading.enumerate())
            with pytest.raises(StoreLocked):
                EnterpriseSynergyMeshOrchestrator(f"sqlite:///{tmp_path}/mesh.db")
            assert set(threading.enumerate()) <= theirs
        assert set(threading.enumerate()) <= before
