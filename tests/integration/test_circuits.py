"""Circuit breakers and retry budgets, as a user sees them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from tests.integration.settling import settled

from synergymesh import (
    BreakerPolicy,
    BreakerView,
    ExecutionStatus,
    GiveUp,
    Orchestrator,
    ResourceQuota,
    RetryLater,
    RetryPolicy,
    RunFailed,
    RunHandle,
    Workflow,
    read_settings,
)
from synergymesh.domain.fault_tolerance.breaker import WAVE_MAX, BreakerState
from synergymesh.domain.fault_tolerance.retry import Ending
from synergymesh.domain.instants import SECOND
from synergymesh.engine.observability.views import RunTask
from synergymesh.errors import (
    FeatureNotEnabled,
    InvalidRequest,
    StoreCorrupt,
    StoreError,
    StoreUnavailable,
    UnknownBreaker,
    UnknownTenant,
)
from synergymesh.testing.shifted_clock import ShiftedClock

S = ExecutionStatus
CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
NEVER = RetryPolicy(max_retries=0)
TOUCHY = BreakerPolicy(minimum_calls=3, open_seconds=3_600, open_seconds_max=86_400)


class SetClock:
    """A clock that shows what it is set to."""

    def __init__(self) -> None:
        self.moment = 1_700_000_000 * SECOND

    def now(self) -> int:
        return self.moment


class Service:
    """Something that tasks call, which can be down."""

    def __init__(self) -> None:
        self.down = True
        self.calls = 0

    async def call(self) -> str:
        self.calls += 1
        if self.down:
            raise ConnectionError("down")
        return "served"


def calling(service: Service, *, name: str = "w", retry: RetryPolicy = NEVER, **settings: Any) -> Workflow:
    async def call() -> str:
        return await service.call()

    return Workflow(name).add(call, retry=retry, **{"breaker": "payments-api", **settings})


async def fail_times(mesh: Orchestrator, tenant: str, workflow: Workflow, times: int) -> None:
    for _ in range(times):
        with pytest.raises(RunFailed):
            await (await mesh.submit(workflow, tenant=tenant)).result(10)


async def the_breaker(mesh: Orchestrator, tenant: str | None = None) -> BreakerView:
    (found,) = await mesh.breakers(tenant)
    return found


def try_again(mesh: Orchestrator) -> None:
    """Let the time of every open circuit be over."""
    for circuit in list(mesh._running.circuits.live.values()):
        if circuit.deadline is not None and circuit.breaker.state is OPEN:
            circuit.deadline.ring()


async def count_final(mesh: Orchestrator, handles: list[RunHandle]) -> int:
    """Let everything happen that can happen now; give how many of the runs are final."""
    await settled(mesh)
    return sum([(await handle.status()).is_final for handle in handles])


async def test_a_named_circuit_opens_holds_back_without_slots_and_says_so(mesh: Orchestrator) -> None:
    tenant = (await mesh.create_tenant("A", "enterprise", quota=ResourceQuota(max_concurrent_tasks=1))).tenant_id
    await mesh.set_breaker_policy(tenant, TOUCHY, breaker="payments-api")
    service = Service()
    await fail_times(mesh, tenant, calling(service), 3)
    held = await mesh.submit(calling(service, name="other"), tenant=tenant)

    async def free() -> str:
        return "free"

    assert await (await mesh.submit(Workflow("f").add(free), tenant=tenant)).result(10) == "free"
    explained = await mesh.explain(held.id)
    (blocker,) = explained.waiting[0].blockers
    assert (blocker.reason.value, blocker.resource, explained.running) == ("circuit_open", "payments-api", ())
    assert explained.waiting[0].estimated_start is not None
    assert service.calls == 3
    breaker = await the_breaker(mesh, tenant)
    assert (breaker.name, breaker.state, breaker.trips, breaker.calls, breaker.failures) == (
        "payments-api", OPEN, 1, 3, 3,
    )  # fmt: skip
    assert breaker.since is not None
    assert breaker.until is not None
    assert 3_599 <= (breaker.until - breaker.since).total_seconds() <= 3_600 * 1.1 + 1


async def test_a_circuit_is_tried_again_with_a_canary_and_opens_in_waves(mesh: Orchestrator, tenant: str) -> None:
    await mesh.set_breaker_policy(tenant, TOUCHY)
    service = Service()
    work = calling(service)
    await fail_times(mesh, tenant, work, 3)
    handles = [await mesh.submit(work, tenant=tenant) for _ in range(150)]
    assert await count_final(mesh, handles) == 0
    try_again(mesh)
    with pytest.raises(RunFailed):  # the first one is the canary
        await handles[0].result(10)
    assert await count_final(mesh, handles) == 1
    assert (await the_breaker(mesh)).trips == 2
    service.down = False
    try_again(mesh)
    assert await asyncio.gather(*(handle.result(10) for handle in handles[1:])) == ["served"] * 149
    breaker = await the_breaker(mesh)
    assert (breaker.state, breaker.trips, breaker.wave) == (CLOSED, 0, 0)
    assert service.calls == 153


async def test_no_wave_is_larger_than_it_may_be(mesh: Orchestrator, tenant: str) -> None:
    await mesh.set_breaker_policy(tenant, TOUCHY)
    waiting: list[asyncio.Future[None]] = []
    arrived = asyncio.Event()
    down = True

    async def call() -> None:
        if down:
            raise ConnectionError("down")
        waiting.append(asyncio.get_running_loop().create_future())
        arrived.set()
        await waiting[-1]

    work = Workflow("w").add(call, retry=NEVER, breaker="api")
    await fail_times(mesh, tenant, work, 3)
    down = False
    handles = [await mesh.submit(work, tenant=tenant) for _ in range(150)]
    try_again(mesh)
    for wave in (1, 2, 4, 8, 16, 32, WAVE_MAX):
        async with asyncio.timeout(10):
            while len(waiting) < wave:
                arrived.clear()
                await arrived.wait()
        await settled(mesh)  # so that one too many would have come
        assert len(waiting) == wave
        for future in waiting:
            future.set_result(None)
        waiting.clear()
    async with asyncio.timeout(10):
        while len(waiting) < 150 - 127:
            arrived.clear()
            await arrived.wait()
    for future in waiting:
        future.set_result(None)
    await asyncio.gather(*(handle.result(10) for handle in handles))
    assert (await the_breaker(mesh)).state is CLOSED


async def test_the_circuit_of_one_tenant_is_not_that_of_another(mesh: Orchestrator, tenant: str) -> None:
    other = (await mesh.create_tenant("B", "enterprise")).tenant_id
    service = Service()
    work = calling(service)
    for each in (tenant, other):
        await mesh.set_breaker_policy(each, TOUCHY)
    await fail_times(mesh, tenant, work, 3)
    service.down = False
    assert await (await mesh.submit(work, tenant=other)).result(10) == "served"
    held = await mesh.submit(work, tenant=tenant)
    assert await count_final(mesh, [held]) == 0
    assert [b.tenant_id for b in await mesh.breakers()] == [tenant]
    assert await mesh.breakers(other) == []


async def test_failures_that_no_retry_could_cure_open_nothing(mesh: Orchestrator, tenant: str) -> None:
    await mesh.set_breaker_policy(tenant, BreakerPolicy(minimum_calls=1))

    async def gives_up() -> None:
        raise GiveUp("bad order")

    async def bad() -> None:
        raise KeyError("bad order")

    only_os = RetryPolicy(max_retries=0, retry_on=(OSError,))
    for work in (Workflow("g").add(gives_up, breaker="api"), Workflow("b").add(bad, breaker="api", retry=only_os)):
        await fail_times(mesh, tenant, work, 3)
    asked: list[int] = []

    async def later() -> None:
        asked.append(1)
        if len(asked) < 4:
            raise RetryLater(0.0)

    await (await mesh.submit(Workflow("l").add(later, breaker="api"), tenant=tenant)).result(10)
    assert await mesh.breakers(tenant) == []
    assert not mesh._running.circuits.live


async def test_a_canary_that_tells_nothing_is_followed_by_another_one(mesh: Orchestrator, tenant: str) -> None:
    await mesh.set_breaker_policy(tenant, TOUCHY)
    mood: list[BaseException | None] = [ConnectionError("down")] * 3 + [GiveUp("says nothing"), None]

    async def call() -> str:
        error = mood.pop(0) if mood else None
        if error is not None:
            raise error
        return "served"

    work = Workflow("w").add(call, retry=NEVER, breaker="api")
    await fail_times(mesh, tenant, work, 3)
    handles = [await mesh.submit(work, tenant=tenant) for _ in range(3)]
    try_again(mesh)
    with pytest.raises(RunFailed, match="says nothing"):
        await handles[0].result(10)
    assert [await handle.result(10) for handle in handles[1:]] == ["served"] * 2


async def test_components_have_breakers_only_where_a_policy_or_the_settings_say_so(
    mesh: Orchestrator, tenant: str, roomy: ResourceQuota
) -> None:
    service = Service()
    work = calling(service, breaker=None)
    await fail_times(mesh, tenant, work, 25)
    assert await mesh.breakers() == []
    await mesh.set_breaker_policy(tenant, TOUCHY, workflow="w", component="call")
    await fail_times(mesh, tenant, work, 3)
    breaker = await the_breaker(mesh)
    assert (breaker.breaker, breaker.workflow, breaker.component, breaker.state) == (None, "w", "call", OPEN)
    async with Orchestrator(":memory:", settings=read_settings(breakers="all")) as every:
        basic = (await every.create_tenant("small", "basic", quota=roomy)).tenant_id
        plain = Workflow("w").add(service.call, id="call")
        failing = [await every.submit(plain, tenant=basic) for _ in range(30)]
        async with asyncio.timeout(10):
            while (await every.breakers() or [None])[0] is None or (await the_breaker(every)).state is not OPEN:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.01)
        assert not any([(await handle.status()).is_final for handle in failing])


async def test_an_open_circuit_stays_open_across_a_restart_and_then_goes_on(
    open_mesh: Callable[..., Orchestrator], roomy: ResourceQuota
) -> None:
    service = Service()
    work = calling(service)
    async with open_mesh(workflows=[work]) as mesh:
        tenant = (await mesh.create_tenant("A", "enterprise", quota=roomy)).tenant_id
        await mesh.set_breaker_policy(tenant, TOUCHY)
        await fail_times(mesh, tenant, work, 3)
        held = await mesh.submit(work, tenant=tenant)
        before = await the_breaker(mesh)
    service.down = False
    async with open_mesh(workflows=[work]) as mesh:
        held = mesh.handle(held.id, tenant=tenant)
        assert await count_final(mesh, [held]) == 0
        after = await the_breaker(mesh)
        assert (after.state, after.until, after.trips) == (OPEN, before.until, 1)
        assert (await mesh.explain(held.id)).waiting[0].blockers[0].reason == "circuit_open"
        try_again(mesh)
        assert await held.result(10) == "served"
        assert (await the_breaker(mesh)).state is HALF_OPEN
    async with open_mesh(workflows=[work]) as mesh:
        assert (await the_breaker(mesh)).state is HALF_OPEN
        assert await (await mesh.submit(work, tenant=tenant)).result(10) == "served"
        assert service.calls == 5


async def test_an_open_circuit_whose_time_passed_while_nothing_ran_is_tried_at_the_start(
    open_mesh: Callable[..., Orchestrator], roomy: ResourceQuota
) -> None:
    clock = SetClock()
    service = Service()
    work = calling(service)
    async with open_mesh(workflows=[work], clock=clock) as mesh:
        tenant = (await mesh.create_tenant("A", "enterprise", quota=roomy)).tenant_id
        await mesh.set_breaker_policy(tenant, TOUCHY)
        await fail_times(mesh, tenant, work, 3)
        held = await mesh.submit(work, tenant=tenant)
    service.down = False
    clock.moment += 2 * 3_600 * SECOND
    async with open_mesh(workflows=[work], clock=clock) as mesh:
        assert await mesh.handle(held.id, tenant=tenant).result(10) == "served"


async def test_a_clock_that_was_set_back_across_a_restart_keeps_no_circuit_open(
    open_mesh: Callable[..., Orchestrator], roomy: ResourceQuota
) -> None:
    clock = SetClock()
    service = Service()
    work = calling(service)
    async with open_mesh(workflows=[work], clock=clock) as mesh:
        tenant = (await mesh.create_tenant("A", "enterprise", quota=roomy)).tenant_id
        await mesh.set_breaker_policy(tenant, BreakerPolicy(minimum_calls=3, open_seconds=1))
        await fail_times(mesh, tenant, work, 3)
        held = await mesh.submit(work, tenant=tenant)
    service.down = False
    clock.moment -= 86_400 * SECOND
    async with open_mesh(workflows=[work], clock=clock) as mesh:
        open_until = (await the_breaker(mesh)).until
        assert open_until is not None
        assert open_until.timestamp() * SECOND <= clock.moment + 1.2 * SECOND
        assert await mesh.handle(held.id, tenant=tenant).result(10) == "served"
        assert (await the_breaker(mesh)).state is HALF_OPEN


async def test_the_time_of_an_open_circuit_passes_by_itself(mesh: Orchestrator, tenant: str) -> None:
    await mesh.set_breaker_policy(tenant, BreakerPolicy(minimum_calls=2, open_seconds=1))
    service = Service()
    work = calling(service)
    await fail_times(mesh, tenant, work, 2)
    service.down = False
    held = await mesh.submit(work, tenant=tenant)
    assert await count_final(mesh, [held]) == 0
    assert await held.result(10) == "served"


async def test_a_breaker_can_be_reset_by_hand(mesh: Orchestrator, tenant: str) -> None:
    await mesh.set_breaker_policy(tenant, TOUCHY)
    service = Service()
    work = calling(service)
    await fail_times(mesh, tenant, work, 3)
    held = await mesh.submit(work, tenant=tenant)
    service.down = False
    await mesh.reset_breaker(tenant, breaker="payments-api")
    assert await held.result(10) == "served"
    assert (await the_breaker(mesh)).state is CLOSED
    with pytest.raises(UnknownBreaker, match="'bank'"):
        await mesh.reset_breaker(tenant, breaker="bank")
    with pytest.raises(UnknownTenant):
        await mesh.reset_breaker("tenant-nobody", breaker="bank")
    for bad in ({}, {"workflow": "w"}, {"breaker": "x", "workflow": "w"}, {"breaker": ""}):
        with pytest.raises(InvalidRequest):
            await mesh.reset_breaker(tenant, **bad)


async def test_own_policies_need_the_feature_and_taking_one_away_releases_what_it_held(
    mesh: Orchestrator, tenant: str
) -> None:
    small = (await mesh.create_tenant("small", "professional")).tenant_id
    with pytest.raises(FeatureNotEnabled, match="custom_policies"):
        await mesh.set_breaker_policy(small, TOUCHY)
    with pytest.raises(InvalidRequest, match="BreakerPolicy"):
        await mesh.set_breaker_policy(tenant, 3)  # type: ignore[arg-type]  # on purpose
    with pytest.raises(InvalidRequest, match="not both"):
        await mesh.set_breaker_policy(tenant, TOUCHY, breaker="x", workflow="w")
    service = Service()
    work = calling(service, breaker=None)
    await mesh.set_breaker_policy(tenant, TOUCHY, workflow="w")
    await fail_times(mesh, tenant, work, 3)
    held = await mesh.submit(work, tenant=tenant)
    service.down = False
    await mesh.set_breaker_policy(tenant, None, workflow="w")
    assert await held.result(10) == "served"


async def test_retries_beyond_the_budget_wait_for_it(mesh: Orchestrator, tenant: str) -> None:
    closed = BreakerPolicy(minimum_calls=1_000_000, retry_percent=0, retries_per_minute=1)
    await mesh.set_breaker_policy(tenant, closed)
    service = Service()
    work = calling(service, retry=RetryPolicy(max_retries=1, initial_delay=0.0))
    handles = [await mesh.submit(work, tenant=tenant) for _ in range(15)]
    assert await count_final(mesh, handles) == 10  # what can be saved up
    assert service.calls == 25
    waiting = [handle for handle in handles if not (await handle.status()).is_final]
    (blocker,) = (await mesh.explain(waiting[-1].id)).waiting[0].blockers
    assert blocker.reason == "retry_delay"
    assert blocker.until is not None


async def test_what_a_budget_has_spent_is_not_forgotten_with_the_failures(roomy: ResourceQuota) -> None:
    clock = SetClock()
    async with Orchestrator(":memory:", clock=clock) as mesh:
        tenant = (await mesh.create_tenant("A", "enterprise", quota=roomy)).tenant_id
        closed = BreakerPolicy(minimum_calls=1_000_000, window_seconds=10, retry_percent=0, retries_per_minute=1)
        await mesh.set_breaker_policy(tenant, closed)
        service = Service()
        work = calling(service, retry=RetryPolicy(max_retries=1, initial_delay=0.0))
        handles = [await mesh.submit(work, tenant=tenant) for _ in range(10)]
        assert await count_final(mesh, handles) == 10
        assert service.calls == 20, "it is all spent"
        clock.moment += 60 * SECOND  # nothing failed within the window, and one retry is covered again
        service.down = False
        assert await (await mesh.submit(work, tenant=tenant)).result(10) == "served"
        service.down, service.calls = True, 0
        handles = [await mesh.submit(work, tenant=tenant) for _ in range(10)]
        assert await count_final(mesh, handles) == 1
        assert service.calls == 11


async def test_a_circuit_without_failures_and_with_a_full_budget_is_forgotten(roomy: ResourceQuota) -> None:
    clock = SetClock()
    async with Orchestrator(":memory:", clock=clock) as mesh:
        tenant = (await mesh.create_tenant("A", "enterprise", quota=roomy)).tenant_id
        await mesh.set_breaker_policy(tenant, BreakerPolicy(window_seconds=10, retries_per_minute=60))
        service = Service()
        work = calling(service, retry=RetryPolicy(max_retries=1, initial_delay=0.0))
        await fail_times(mesh, tenant, work, 1)
        service.down = False
        for seconds, known in ((0, 1), (11, 0)):
            clock.moment += seconds * SECOND
            assert await (await mesh.submit(work, tenant=tenant)).result(10) == "served"
            assert len(mesh._running.circuits.live) == known


@asynccontextmanager
async def one_that_fails(with_faults: Callable[..., Any], quota: ResourceQuota) -> AsyncIterator[tuple[Any, ...]]:
    """Give an orchestrator, a tenant, and a store whose commits fail while it has an error."""
    mesh = Orchestrator(":memory:", shutdown_grace_seconds=0.05)
    store = with_faults(mesh)
    async with mesh:
        yield mesh, (await mesh.create_tenant("A", "enterprise", quota=quota)).tenant_id, store
        store.error = None


async def test_a_reset_closes_nothing_before_it_is_recorded_whoever_waits_for_it(
    with_faults: Callable[..., Any], roomy: ResourceQuota
) -> None:
    async with one_that_fails(with_faults, roomy) as (mesh, tenant, store):
        await mesh.set_breaker_policy(tenant, TOUCHY)
        service = Service()
        await fail_times(mesh, tenant, calling(service), 3)
        store.error = StoreUnavailable("mesh.db: the disk is full")
        impatient = asyncio.create_task(mesh.reset_breaker(tenant, breaker="payments-api"))
        while not store.failures:  # noqa: ASYNC110 - nothing tells of it, so it is looked for
            await asyncio.sleep(0)
        assert (await the_breaker(mesh)).state is OPEN
        try_again(mesh)  # and meanwhile something becomes of it
        assert (await the_breaker(mesh)).state is HALF_OPEN
        impatient.cancel()
        store.error = None
        while (await the_breaker(mesh)).state is not CLOSED:  # noqa: ASYNC110 - nothing tells of it, so it is looked for
            await asyncio.sleep(0.01)
        await mesh._running.committer.drained()
        (row,) = await mesh._running.store.list_breakers(None)
        assert row.state is CLOSED, "what is recorded last is what holds"
        service.down = False
        assert await (await mesh.submit(calling(service), tenant=tenant)).result(10) == "served"


async def test_a_reset_that_cannot_be_recorded_is_none(with_faults: Callable[..., Any], roomy: ResourceQuota) -> None:
    async with one_that_fails(with_faults, roomy) as (mesh, tenant, store):
        await mesh.set_breaker_policy(tenant, TOUCHY)
        await fail_times(mesh, tenant, calling(Service()), 3)
        store.error = StoreCorrupt("mesh.db is damaged")
        with pytest.raises(StoreCorrupt):
            await mesh.reset_breaker(tenant, breaker="payments-api")
        store.error = None
        assert (await the_breaker(mesh)).state is OPEN


async def test_no_more_canaries_are_let_in_while_the_first_ones_take_their_time(
    mesh: Orchestrator, tenant: str
) -> None:
    await mesh.set_breaker_policy(tenant, TOUCHY)
    service = Service()
    await fail_times(mesh, tenant, calling(service), 3)
    answer, started = asyncio.Event(), []

    async def slow(number: int) -> str:
        started.append(number)
        await answer.wait()
        return "served"

    handles = [
        await mesh.submit(Workflow(f"w{n}").add(slow, args=[n], breaker="payments-api", retry=NEVER), tenant=tenant)
        for n in range(10)
    ]
    try_again(mesh)

    async def look_again() -> None:
        for circuit in list(mesh._running.circuits.live.values()):
            assert circuit.deadline is not None
            circuit.deadline.ring()
        await count_final(mesh, handles)

    for _ in range(3):
        await look_again()
    assert started == [0]
    run = mesh._running.runs.get(handles[0].id)
    assert run is not None
    mesh._running.runs.lost(run, StoreError("its verdict could not be recorded"))
    await look_again()
    assert started == [0, 1], "one in place of the one that got lost"
    answer.set()
    await asyncio.gather(*(handle.result(10) for handle in handles[1:]))


PATIENT = RetryPolicy(max_retries=1_000, initial_delay=0.01, exponential_base=1, max_elapsed=0.3)


def deadlines_of(mesh: Orchestrator) -> int:
    """Count what is still to happen."""
    return sum(not deadline.is_cancelled for _, _, deadline in mesh._running.deadlines._heap)


async def ends_as_max_elapsed(mesh: Orchestrator, handle: RunHandle) -> RunTask:
    with pytest.raises(RunFailed, match="down"):
        await handle.result(10)
    (task,) = (await mesh.get_run(handle.id)).tasks
    assert (task.status, task.error and task.error.ending) == (S.FAILED, Ending.MAX_ELAPSED)
    return task


async def test_a_retry_that_an_open_circuit_keeps_until_its_time_is_over_does_not_start(
    mesh: Orchestrator, tenant: str
) -> None:
    await mesh.set_breaker_policy(tenant, TOUCHY)
    service = Service()
    handle = await mesh.submit(calling(service, retry=PATIENT), tenant=tenant)
    task = await ends_as_max_elapsed(mesh, handle)
    assert (service.calls, task.attempt) == (3, 3)
    assert task.failures[-1].error is not None
    assert task.failures[-1].ended_at is not None
    assert task.ended_at is not None
    assert task.failures[0].started_at is not None
    assert task.ended_at - task.failures[0].started_at >= timedelta(seconds=0.3)
    service.down = False
    try_again(mesh)
    assert await (await mesh.submit(calling(service), tenant=tenant)).result(10) == "served"
    assert service.calls == 4, "and it is not tried later"
    assert deadlines_of(mesh) == 1  # of the circuit


async def test_a_retry_that_the_budget_covers_too_late_does_not_start_and_costs_nothing(
    mesh: Orchestrator, tenant: str
) -> None:
    slow = BreakerPolicy(minimum_calls=1_000_000, retry_percent=0, retries_per_minute=1)
    await mesh.set_breaker_policy(tenant, slow)
    service = Service()
    at_once = RetryPolicy(max_retries=20, initial_delay=0.0, max_elapsed=30.0)
    task = await ends_as_max_elapsed(mesh, await mesh.submit(calling(service, retry=at_once), tenant=tenant))
    assert (service.calls, task.attempt) == (11, 11)  # as many retries as can be saved up
    service.calls = 0
    waits = RetryPolicy(max_retries=1, initial_delay=0.0, max_elapsed=90.0)
    handle = await mesh.submit(calling(service, retry=waits), tenant=tenant)
    assert await count_final(mesh, [handle]) == 0, "the first retry that is covered is its own"
    (blocker,) = (await mesh.explain(handle.id)).waiting[0].blockers
    assert blocker.reason == "retry_delay"


async def test_a_retry_that_waits_for_a_slot_until_its_time_is_over_does_not_start(mesh: Orchestrator) -> None:
    one = ResourceQuota(max_concurrent_tasks=1, max_tasks_per_hour=1_000, rate_limit_per_second=1_000)
    tenant = (await mesh.create_tenant("One", "enterprise", quota=one)).tenant_id
    service = Service()
    policy = RetryPolicy(max_retries=5, initial_delay=0.1, exponential_base=1, max_elapsed=0.3)
    handle = await mesh.submit(calling(service, retry=policy), tenant=tenant)
    while not service.calls:  # noqa: ASYNC110 - nothing tells of it, so it is looked for
        await asyncio.sleep(0)
    blocker = Workflow("blocker").add(asyncio.sleep, args=[3_600], id="a")
    blocking = await mesh.submit(blocker, tenant=tenant)
    task = await ends_as_max_elapsed(mesh, handle)
    assert (service.calls, task.attempt) == (1, 1)
    await blocking.cancel()


@pytest.mark.parametrize("down_for", [0.0, 1.0])
async def test_the_time_for_retries_goes_on_across_a_restart(
    open_mesh: Callable[..., Orchestrator], roomy: ResourceQuota, down_for: float
) -> None:
    clock = ShiftedClock()
    service = Service()
    work = calling(service, retry=PATIENT)
    async with open_mesh(workflows=[work], clock=clock) as mesh:
        tenant = (await mesh.create_tenant("A", "enterprise", quota=roomy)).tenant_id
        await mesh.set_breaker_policy(tenant, TOUCHY)
        handle = await mesh.submit(work, tenant=tenant)
        async with asyncio.timeout(10):
            while service.calls < 3:  # noqa: ASYNC110 - nothing tells of it, so it is looked for
                await asyncio.sleep(0.001)
        await settled(mesh)
    service.down = False
    clock.forward(hours=down_for / 3_600)
    async with open_mesh(workflows=[work], clock=clock) as mesh:
        task = await ends_as_max_elapsed(mesh, mesh.handle(handle.id, tenant=tenant))
        assert (service.calls, task.attempt) == (3, 3)


async def test_a_retry_that_starts_in_time_takes_as_long_as_it_takes(mesh: Orchestrator, tenant: str) -> None:
    calls = 0

    async def work() -> str:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ConnectionError("down")
        await asyncio.sleep(0.4)
        return "served"

    handle = await mesh.submit(Workflow("w").add(work, retry=PATIENT), tenant=tenant)
    assert await handle.result(10) == "served"
    assert deadlines_of(mesh) == 0


async def test_a_circuit_of_a_deleted_tenant_is_forgotten(mesh: Orchestrator, tenant: str) -> None:
    await mesh.set_breaker_policy(tenant, TOUCHY)
    await fail_times(mesh, tenant, calling(Service()), 3)
    await mesh.delete_tenant(tenant, force=True)
    assert await mesh.breakers() == []
    assert not mesh._running.circuits.live
    with pytest.raises(UnknownTenant):
        await mesh.breakers(tenant)


async def test_a_held_task_ends_when_its_time_is_over(mesh: Orchestrator, tenant: str) -> None:
    await mesh.set_breaker_policy(tenant, TOUCHY)
    service = Service()
    await fail_times(mesh, tenant, calling(service), 3)
    held = await mesh.submit(calling(service, total_timeout=0.1), tenant=tenant)
    with pytest.raises(RunFailed, match="total timeout"):
        await held.result(10)
    assert service.calls == 3
