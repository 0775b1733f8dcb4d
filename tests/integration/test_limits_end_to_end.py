"""Limits, features and fairness through a real orchestrator."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.integration.settling import settled

from synergymesh import Orchestrator, ResourceQuota, RetryPolicy, TenantTier, Workflow, current_task
from synergymesh.domain.instants import SECOND
from synergymesh.domain.scheduling.limits import Capacity, CohortShare
from synergymesh.errors import BacklogFull, FeatureNotEnabled, InvalidRequest, RateLimitExceeded, UnknownTenant
from synergymesh.settings import TierSettings, read_settings

HOUR = 3_600 * SECOND


class FakeClock:
    """A clock that goes when it is told."""

    def __init__(self) -> None:
        self.moment = 1_800_000_000 * SECOND

    def now(self) -> int:
        self.moment += 1_000  # time never stands still for long
        return self.moment


async def nothing() -> None:
    """Do nothing."""


def wide(tasks: int, name: str = "wide", function: Any = nothing, **settings: Any) -> Workflow:
    """Give a workflow of independent tasks."""
    graph = Workflow(name)
    for number in range(tasks):
        graph.add(function, id=f"t{number}", **settings)
    return graph


# --- the rolling hour -----------------------------------------------------------------------------------------------


async def test_a_basic_tenant_never_starts_more_than_a_hundred_tasks_in_a_rolling_hour_not_even_by_a_restart(
    tmp_path: Path,
) -> None:
    clock = FakeClock()
    starts: list[int] = []
    running = 0
    most = 0

    async def count() -> None:
        nonlocal running, most
        starts.append(clock.moment)
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    graph = wide(250, function=count)
    where = f"sqlite:///{tmp_path}/mesh.db"
    async with Orchestrator(where, clock=clock, workflows=[graph]) as mesh:
        tenant = await mesh.create_tenant("Small", TenantTier.BASIC)
        run = await mesh.submit(graph, tenant=tenant.tenant_id)
        await settled(mesh, looks_again=True)
        assert 90 <= len(starts) <= 100
        why = await mesh.explain(run.id)
        assert why.waiting[0].blockers[0].reason == "hour_limit"
        assert why.waiting[0].blockers[0].limit == 100
    for _ in range(30):
        clock.moment += HOUR // 7
        async with Orchestrator(where, clock=clock, workflows=[graph]) as mesh:
            await settled(mesh, looks_again=True)
            if await mesh.count_open_runs() == 0:
                break
    assert len(starts) == 250
    assert most <= 5
    for begin in starts:
        assert sum(begin <= start < begin + HOUR for start in starts) <= 100


# --- what waits -----------------------------------------------------------------------------------------------------


async def test_memory_and_cpus_are_never_exceeded_and_the_reason_is_told(mesh: Orchestrator) -> None:
    quota = ResourceQuota(
        max_concurrent_tasks=100, max_memory_mb=1_000, max_tasks_per_hour=1_000_000, rate_limit_per_second=1_000
    )
    tenant = await mesh.create_tenant("A", TenantTier.PROFESSIONAL, quota=quota)
    used = Counter[str]()
    most = Counter[str]()
    gate = asyncio.Event()
    begun = asyncio.Event()

    async def hold() -> None:
        used["memory"] += 300
        most["memory"] = max(most["memory"], used["memory"])
        if used["memory"] == 900:
            begun.set()
        await gate.wait()
        used["memory"] -= 300

    run = await mesh.submit(wide(10, function=hold, memory_mb=300), tenant=tenant.tenant_id)
    await asyncio.wait_for(begun.wait(), 5)
    why = await mesh.explain(run.id, tenant=tenant.tenant_id)
    assert len(why.running) == 3
    (blocker,) = (b for b in why.waiting[0].blockers if b.reason == "memory")
    assert (blocker.limit, blocker.used, blocker.asked) == (1_000, 900, 300)
    (view,) = await mesh.queue()
    assert view.used.memory_mb == 900
    assert view.last_reason == "memory"
    gate.set()
    await run.result(5)
    assert most["memory"] == 900
    (view,) = await mesh.queue()
    assert view.used == Capacity(0, 0, 0), "nothing leaks"


async def test_a_quota_is_changed_at_the_next_dispatch_and_what_runs_goes_on(mesh: Orchestrator) -> None:
    tenant = (await mesh.create_tenant("A", TenantTier.PROFESSIONAL)).tenant_id
    gates = [asyncio.Event() for _ in range(2)]
    running: set[str] = set()
    changed = asyncio.Condition()

    async def hold() -> None:
        async with changed:
            running.add(current_task().task_id)
            changed.notify_all()
        await gates[0].wait()
        async with changed:
            running.discard(current_task().task_id)
            changed.notify_all()

    run = await mesh.submit(wide(40, function=hold), tenant=tenant)

    async def until(count: int) -> None:
        async with asyncio.timeout(5), changed:
            await changed.wait_for(lambda: len(running) == count)

    await until(20)
    fewer = ResourceQuota(max_concurrent_tasks=2, max_tasks_per_hour=5_000, rate_limit_per_second=100)
    assert (await mesh.set_quota(tenant, fewer)).quota == fewer
    assert len(running) == 20, "lowering a limit never ends what runs"
    assert (await mesh.set_tier(tenant, "enterprise")).quota.max_concurrent_tasks == 100
    await until(40)
    gates[0].set()
    await run.result(5)


async def test_a_throttled_tenant_runs_a_part_of_its_tasks_and_the_change_survives_a_restart(
    open_mesh: Callable[..., Orchestrator],
) -> None:
    async with open_mesh() as mesh:
        tenant = (await mesh.create_tenant("A", TenantTier.PROFESSIONAL)).tenant_id
        await mesh.throttle_tenant(tenant, 10)
        await mesh.set_weight(tenant, 9)
    async with open_mesh() as mesh:
        again = await mesh.get_tenant(tenant)
        assert (again.policy.throttle_percent, again.weight) == (10, 9)
        most = running = 0

        async def count() -> None:
            nonlocal most, running
            running += 1
            most = max(most, running)
            await asyncio.sleep(0)
            running -= 1

        await (await mesh.submit(wide(30, function=count), tenant=tenant)).result(5)
        assert most == 2


async def test_a_task_that_waits_for_others_says_for_which(mesh: Orchestrator, tenant: str) -> None:
    gate = asyncio.Event()

    async def hold() -> None:
        await gate.wait()

    graph = Workflow("chain").add(hold, id="first").add(hold, id="second", depends_on=["first"])
    run = await mesh.submit(graph, tenant=tenant)
    await settled(mesh, looks_again=True)
    why = await mesh.explain(run.id)
    assert why.running == ("first",)
    (second,) = why.waiting
    assert (second.task_id, second.waits_for, second.blockers[0].reason) == ("second", ("first",), "dependency")
    gate.set()
    await run.result(5)
    assert (await mesh.explain(run.id)).waiting == ()


# --- what is refused ------------------------------------------------------------------------------------------------


async def test_the_eleventh_submission_in_a_second_is_refused_and_waiting_as_told_succeeds(
    open_mesh: Callable[..., Orchestrator],
) -> None:
    clock = FakeClock()
    async with open_mesh(clock=clock) as mesh:
        basic = (await mesh.create_tenant("Small")).tenant_id
        large = (await mesh.create_tenant("Large", TenantTier.ENTERPRISE)).tenant_id
        graph = wide(1)
        for _ in range(10):
            await mesh.submit(graph, tenant=basic)
        with pytest.raises(RateLimitExceeded) as refused:
            await mesh.submit(graph, tenant=basic)
        for _ in range(100):
            await mesh.submit(graph, tenant=large)
        clock.moment += int(refused.value.retry_after * SECOND) + 1
        await mesh.submit(graph, tenant=basic)
        with pytest.raises(RateLimitExceeded):
            await mesh.submit(graph, tenant=basic)


async def test_a_full_backlog_refuses_whole_runs_also_when_they_come_at_once(mesh: Orchestrator) -> None:
    quota = ResourceQuota(max_concurrent_tasks=1, max_queued_tasks=25, rate_limit_per_second=1_000)
    tenant = (await mesh.create_tenant("A", quota=quota)).tenant_id
    gate = asyncio.Event()

    async def hold() -> None:
        await gate.wait()

    graph = wide(10, function=hold)
    answers = await asyncio.gather(*(mesh.submit(graph, tenant=tenant) for _ in range(5)), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, BacklogFull)]
    assert len(refused) == 3
    assert refused[0].limit == 25
    assert await mesh.count_open_runs(tenant) == 2
    gate.set()
    for handle in answers:
        if not isinstance(handle, BaseException):
            await handle.result(5)
    await (await mesh.submit(graph, tenant=tenant)).result(5)


@pytest.mark.parametrize(
    ("settings", "feature"),
    [
        ({"retry": RetryPolicy(max_retries=1)}, "advanced_retry"),
        ({"memory_mb": 10}, "resource_management"),
        ({"cpus": 0.5}, "resource_management"),
        ({"priority": 1}, "custom_policies"),
    ],
)
async def test_what_the_tier_does_not_have_is_refused_with_the_tiers_that_have_it(
    mesh: Orchestrator, settings: dict[str, Any], feature: str
) -> None:
    basic = (await mesh.create_tenant("Small")).tenant_id
    with pytest.raises(FeatureNotEnabled, match="enterprise") as refused:
        await mesh.submit(wide(1, **settings), tenant=basic)
    assert refused.value.feature == feature
    assert await mesh.count_open_runs() == 0
    large = (await mesh.create_tenant("Large", TenantTier.ENTERPRISE)).tenant_id
    await (await mesh.submit(wide(1, **settings), tenant=large)).result(5)


async def test_a_task_that_asks_for_more_than_the_quota_is_refused_at_submission(mesh: Orchestrator) -> None:
    tenant = (await mesh.create_tenant("A", TenantTier.PROFESSIONAL)).tenant_id
    with pytest.raises(InvalidRequest, match="could never run") as refused:
        await mesh.submit(wide(1, memory_mb=2_049), tenant=tenant)
    assert refused.value.field == "memory_mb"
    with pytest.raises(InvalidRequest, match="could never run") as refused:
        await mesh.submit(wide(1, cpus=10_000), tenant=tenant)
    assert refused.value.field == "cpus"
    await (await mesh.submit(wide(1, memory_mb=2_048), tenant=tenant)).result(5)


@pytest.mark.parametrize(
    ("asked", "field", "named"),
    [
        ({"memory_mb": 151}, "memory_mb", r"the share of tenant-\w+ with all that it may borrow is 150 MiB and 2 C"),
        ({"cpus": 2.5}, "cpus", "the share of"),
        ({"memory_mb": 2_000}, "memory_mb", r"the quota of tenant-\w+ is 1,000 MiB"),
    ],
)
async def test_a_task_beyond_what_a_sub_tenant_may_ever_use_is_refused_with_the_limit(
    asked: dict[str, Any], field: str, named: str
) -> None:
    share = CohortShare(nominal=Capacity(2, 100, 1_000), borrowing=Capacity(0, 50, 1_000))
    quota = ResourceQuota(max_memory_mb=1_000, max_cpu_percent=50)
    async with Orchestrator(settings=read_settings(database=":memory:", cpus=8)) as mesh:
        parent = (await mesh.create_tenant("Parent", "enterprise")).tenant_id
        child = (await mesh.create_tenant("Child", "enterprise", parent=parent, quota=quota, share=share)).tenant_id
        with pytest.raises(InvalidRequest, match=named) as refused:
            await mesh.submit(wide(1, **asked), tenant=child)
        assert refused.value.field == field
        assert await mesh.count_open_runs() == 0
        await (await mesh.submit(wide(1, memory_mb=150, cpus=2), tenant=child)).result(5)


async def test_a_task_beyond_what_guarantees_leave_is_refused_until_there_are_none(mesh: Orchestrator) -> None:
    quota = ResourceQuota(max_memory_mb=1_000, max_cpu_percent=95)
    parent = (await mesh.create_tenant("Parent", "enterprise", quota=quota)).tenant_id
    child = (await mesh.create_tenant("Child", "enterprise", parent=parent, quota=quota)).tenant_id
    gate = asyncio.Event()
    first = await mesh.submit(wide(1, memory_mb=200, function=gate.wait), tenant=child)
    early = await mesh.submit(wide(1, memory_mb=900, name="early"), tenant=child)
    await settled(mesh, looks_again=True)
    nominal = Capacity(1, 200, 0)
    share = CohortShare(nominal=nominal, lending=nominal._replace(memory_mb=0))
    owner = (await mesh.create_tenant("Owner", "enterprise", parent=parent, share=share)).tenant_id
    for tenant in (parent, child):
        with pytest.raises(InvalidRequest, match="leaves beside the guarantees of its other sub-tenants is 800 MiB"):
            await mesh.submit(wide(1, memory_mb=900), tenant=tenant)
    gate.set()
    await first.result(5)
    await settled(mesh, looks_again=True)
    blocker = (await mesh.explain(early.id)).waiting[0].blockers[0]
    assert (blocker.limit, blocker.asked) == (800, 900)
    await mesh.delete_tenant(owner)
    await early.result(5)
    await (await mesh.submit(wide(1, memory_mb=900), tenant=child)).result(5)


@pytest.mark.parametrize("value", [None, "large", 5, {"max_concurrent_tasks": 5}])
async def test_what_is_no_quota_is_refused(mesh: Orchestrator, tenant: str, value: Any) -> None:
    if value is not None:
        with pytest.raises(InvalidRequest, match="quota must be a ResourceQuota"):
            await mesh.set_quota(tenant, value)
    with pytest.raises(UnknownTenant):
        await mesh.set_quota("tenant-none", ResourceQuota())
    with pytest.raises(InvalidRequest, match="basic, professional, enterprise"):
        await mesh.set_tier(tenant, "gold")


async def test_nothing_is_kept_of_the_rates_and_backlogs_of_deleted_tenants(mesh: Orchestrator) -> None:
    parts = mesh._parts
    assert parts is not None
    admission = parts.submission._admission
    for number in range(5):
        tenant = (await mesh.create_tenant(f"T{number}")).tenant_id
        await (await mesh.submit(wide(1), tenant=tenant)).result(5)
        assert tenant in admission._rates
        await mesh.delete_tenant(tenant)
    assert (admission._rates, parts.runs.backlog._of) == ({}, {})


# --- sub-tenants ----------------------------------------------------------------------------------------------------


async def test_sub_tenants_share_their_parents_quota_and_live_on_after_a_restart(
    open_mesh: Callable[..., Orchestrator],
) -> None:
    running = Counter[str]()
    most = Counter[str]()

    async def count() -> None:
        mine = current_task().tenant_id
        for who in (mine, "all"):
            running[who] += 1
            most[who] = max(most[who], running[who])
        await asyncio.sleep(0.001)
        for who in (mine, "all"):
            running[who] -= 1

    graph = wide(30, function=count)
    async with open_mesh(workflows=[graph]) as mesh:
        quota = ResourceQuota(max_concurrent_tasks=6, max_tasks_per_hour=10_000, rate_limit_per_second=100)
        parent = (await mesh.create_tenant("Parent", TenantTier.ENTERPRISE, quota=quota)).tenant_id
        share = CohortShare(nominal=Capacity(2, 100, 1_000))
        children = [
            (await mesh.create_tenant(f"Child {n}", "enterprise", parent=parent, share=share)).tenant_id
            for n in range(2)
        ]
        with pytest.raises(InvalidRequest, match="is a sub-tenant itself"):
            await mesh.create_tenant("Grandchild", parent=children[0])
        with pytest.raises(InvalidRequest, match="Delete them first"):
            await mesh.delete_tenant(parent)
        small = (await mesh.create_tenant("Small")).tenant_id
        with pytest.raises(FeatureNotEnabled, match="multi_tenancy"):
            await mesh.create_tenant("Child of small", parent=small)
    async with open_mesh(workflows=[graph]) as mesh:
        assert (await mesh.get_tenant(children[0])).parent_id == parent
        handles = [await mesh.submit(graph, tenant=tenant) for tenant in (parent, *children)]
        for handle in handles:
            await handle.result(10)
        assert most["all"] == 6
        await mesh.set_tier(parent, "professional")
        with pytest.raises(FeatureNotEnabled, match="multi_tenancy") as without:
            await mesh.submit(graph, tenant=children[0])
        assert without.value.tenant_id == parent
        for child in children:
            await mesh.delete_tenant(child)
        await mesh.delete_tenant(parent)


@pytest.mark.parametrize("share", ["half", (1, 2, 3), 0.5])
async def test_a_share_that_is_none_is_refused_and_the_database_opens_again(
    open_mesh: Callable[..., Orchestrator], share: Any
) -> None:
    async with open_mesh() as mesh:
        parent = (await mesh.create_tenant("Parent", "enterprise")).tenant_id
        with pytest.raises(InvalidRequest, match="share must be a CohortShare"):
            await mesh.create_tenant("Child", "enterprise", parent=parent, share=share)
    async with open_mesh() as mesh:
        assert [tenant.tenant_id for tenant in await mesh.list_tenants()] == [parent]


async def test_a_share_is_changed_at_the_next_dispatch_and_kept_over_a_restart(
    open_mesh: Callable[..., Orchestrator],
) -> None:
    gate = asyncio.Event()
    graph = wide(9, function=gate.wait)
    everything = Capacity(4, 1_000, 1_000)
    async with open_mesh(workflows=[graph]) as mesh:
        parent = (await mesh.create_tenant("Parent", "enterprise")).tenant_id
        share = CohortShare(nominal=everything._replace(slots=2), borrowing=Capacity(0, 0, 0))
        child = (await mesh.create_tenant("Child", "enterprise", parent=parent, share=share)).tenant_id
        handle = await mesh.submit(graph, tenant=child)

        async def running(wanted: int) -> bool:
            async with asyncio.timeout(30):
                while next(view.running for view in await mesh.queue() if view.tenant_id == child) != wanted:  # noqa: ASYNC110 - nothing tells of it
                    await asyncio.sleep(0.001)
            return True

        assert await running(2)
        await mesh.set_share(child, CohortShare(nominal=everything, borrowing=Capacity(0, 0, 0)))
        assert await running(4)
        with pytest.raises(InvalidRequest, match="is no sub-tenant"):
            await mesh.set_share(parent, share)
        with pytest.raises(InvalidRequest, match="share must be a CohortShare"):
            await mesh.set_share(child, "half")  # type: ignore[arg-type]  # on purpose
        gate.set()
        await handle.result(5)
    async with open_mesh(workflows=[graph]) as mesh:
        kept = (await mesh.get_tenant(child)).policy.share
        assert kept == CohortShare(nominal=everything, borrowing=Capacity(0, 0, 0))
        assert (await mesh.set_share(child, None)).policy.share is None


# --- configuration --------------------------------------------------------------------------------------------------


async def test_an_own_tier_of_the_configuration_is_used() -> None:
    settings = read_settings(database=":memory:", tiers={"gold": TierSettings(max_concurrent_tasks=3, weight=5)})
    async with Orchestrator(settings=settings) as mesh:
        gold = await mesh.create_tenant("A", "gold")
        assert (gold.tier, gold.weight, gold.quota.max_concurrent_tasks) == ("gold", 5, 3)
        with pytest.raises(InvalidRequest, match="gold"):
            await mesh.create_tenant("B", "silver")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tiers": {"gold": {"features": ["advanced_retries"]}}}, "no feature 'advanced_retries'"),
        ({"tiers": {"": {}}}, "the name of a tier"),
        ({"tiers": {"a b\n": {}}}, "the name of a tier"),
        ({"tiers": {"Gold": {}, "gold": {}}}, "two tiers"),
        ({"tiers": {"gold": {"max_concurrent_tasks": True}}}, "valid integer"),
        ({"max_concurrent_tasks": True}, "valid integer"),
        ({"cpus": 0.0005}, "greater than or equal to 0.001"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_refused_with_its_name(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said) as refused:
        read_settings(**given)
    assert str(refused.value.field).startswith(next(iter(given)))


async def test_an_own_tier_with_a_capital_letter_is_found_in_any_case() -> None:
    settings = read_settings(database=":memory:", tiers={"Gold": {"weight": 5}}, cpus=0.001)
    async with Orchestrator(settings=settings) as mesh:
        assert [(await mesh.create_tenant("A", name)).tier for name in ("gold", "Gold", "GOLD")] == ["gold"] * 3


async def test_a_changed_tier_reaches_the_tenants_without_a_quota_of_their_own(tmp_path: Path) -> None:
    def mesh_with(slots: int) -> Orchestrator:
        tiers = {"gold": TierSettings(max_concurrent_tasks=slots, max_tasks_per_hour=1_000)}
        return Orchestrator(settings=read_settings(database=f"sqlite:///{tmp_path}/mesh.db", tiers=tiers))

    async def slots(mesh: Orchestrator, tenant: str) -> int:
        return (await mesh.get_tenant(tenant)).quota.max_concurrent_tasks

    async with mesh_with(3) as mesh:
        plain, changed, own = [(await mesh.create_tenant(name, "gold")).tenant_id for name in "abc"]
        await mesh.set_quota(changed, ResourceQuota(max_concurrent_tasks=7))
        await mesh.set_tier(changed, "gold")  # its own limits are gone
        await mesh.set_weight(plain, 5)
        await mesh.set_quota(own, ResourceQuota(max_concurrent_tasks=7))
        await mesh.set_weight(own, 5)
        assert [await slots(mesh, tenant) for tenant in (plain, changed, own)] == [3, 3, 7]
        assert [t.has_own_quota for t in await mesh.list_tenants()] == [False, False, True]
    async with mesh_with(30) as mesh:
        assert [await slots(mesh, tenant) for tenant in (plain, changed, own)] == [30, 30, 7]
        handle = await mesh.submit(wide(10), tenant=plain)
        await handle.result(5)


async def test_tasks_that_declare_nothing_take_what_the_settings_say() -> None:
    settings = read_settings(database=":memory:", task_memory_mb=300, task_cpus=0.5, cpus=8, memory_mb=10_000)
    async with Orchestrator(settings=settings) as mesh:
        quota = ResourceQuota(max_memory_mb=512, max_tasks_per_hour=10_000)
        tenant = (await mesh.create_tenant("A", quota=quota)).tenant_id
        begun, gate = asyncio.Event(), asyncio.Event()

        async def work() -> None:
            begun.set()
            await gate.wait()

        handle = await mesh.submit(wide(3, function=work), tenant=tenant)
        await begun.wait()
        blocker = (await mesh.explain(handle.id)).waiting[0].blockers[0]
        assert (blocker.reason, blocker.used, blocker.asked) == ("memory", 300, 300)
        assert (await mesh.queue())[0].used.cpu_millis == 500
        gate.set()
        await handle.result(5)


async def test_the_backlog_of_the_whole_mesh_has_a_limit_beside_each_tenants() -> None:
    gate = asyncio.Event()
    settings = read_settings(database=":memory:", max_queued_tasks=10, max_concurrent_tasks=1)
    async with Orchestrator(settings=settings) as mesh:
        one, other = [(await mesh.create_tenant(name, "enterprise")).tenant_id for name in "ab"]
        first = await mesh.submit(wide(6, function=gate.wait), tenant=one)
        await mesh.explain(first.id)
        with pytest.raises(BacklogFull, match="the whole mesh") as refused:
            await mesh.submit(wide(6, function=gate.wait), tenant=other)
        assert refused.value.limit == 10
        second = await mesh.submit(wide(4, function=gate.wait), tenant=other)
        gate.set()
        await first.result(5)
        await second.result(5)
        await (await mesh.submit(wide(10, function=gate.wait), tenant=other)).result(5)


async def test_learnt_durations_are_kept_over_a_restart(open_mesh: Callable[..., Orchestrator]) -> None:
    async with open_mesh() as mesh:
        tenant = (await mesh.create_tenant("A", TenantTier.ENTERPRISE)).tenant_id
        await (await mesh.submit(wide(1), tenant=tenant)).result(5)
    async with open_mesh() as mesh:
        assert mesh._parts is not None
        assert mesh._parts.tenants._scheduler.learnt(tenant)[("wide", "t0")] >= 0


async def test_tenants_get_their_weights_shares_of_the_slots() -> None:
    """What is served is proportional to the weights (1, 4, 16) while everybody has work."""
    served: list[str] = []

    async def work() -> None:
        served.append(current_task().tenant_id)
        await asyncio.sleep(0)

    graph = wide(300, function=work, weight=0.001)
    quota = ResourceQuota(max_concurrent_tasks=50, max_tasks_per_hour=100_000, rate_limit_per_second=100)
    # on this clock each task takes less than the least that is charged, which is also what is declared
    async with Orchestrator(":memory:", max_concurrent_tasks=4, clock=FakeClock()) as mesh:
        tenants = [(await mesh.create_tenant(tier.value, tier, quota=quota)).tenant_id for tier in TenantTier]
        handles = await asyncio.gather(*(mesh.submit(graph, tenant=tenant) for tenant in tenants))
        for handle in handles:
            await handle.result(20)
    begin = max(served.index(tenant) for tenant in tenants)
    for rounds in (3, 6, 10):
        counted = Counter(served[begin : begin + rounds * 21])
        for tenant, weight in zip(tenants, (1, 4, 16), strict=True):
            assert abs(counted[tenant] - rounds * weight) <= 2, (rounds, counted)
