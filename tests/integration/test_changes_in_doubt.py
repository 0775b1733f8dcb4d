"""Changes of tenants and pauses whose caller goes away, or whose commit reports an error: memory is as the store is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, cast

import pytest
from tests.integration.settling import settled

from synergymesh import CohortShare, Orchestrator, ResourceQuota, RetryPolicy, Workflow
from synergymesh.domain.fault_tolerance.breaker import BreakerPolicy
from synergymesh.domain.scheduling.limits import Capacity
from synergymesh.domain.states import TenantStatus
from synergymesh.engine.control import turns as turns_module
from synergymesh.errors import (
    IdempotencyConflict,
    InvalidRequest,
    NotRunning,
    StoreError,
    StoreLocked,
    StoreUnavailable,
    TenantHasOpenRuns,
)
from synergymesh.ports.changes import (
    Change,
    RunPaused,
    RunResumed,
    TenantCreated,
    TenantPlanChanged,
    TenantStatusChanged,
    Unit,
    WorkflowPaused,
    WorkflowResumed,
)
from synergymesh.ports.store import Store
from synergymesh.testing.memory import differences

SHARE = CohortShare(nominal=Capacity(1, 100, 10))
QUOTA = ResourceQuota(max_concurrent_tasks=1)
OF_PEOPLE = (
    RunPaused,
    RunResumed,
    TenantCreated,
    TenantPlanChanged,
    TenantStatusChanged,
    WorkflowPaused,
    WorkflowResumed,
)


class Trouble:
    """A store between whose commits people's changes can be held back, or end with an error.

    Attributes:
        error: raised by commits with a change that somebody asked for.
        done: whether it is done all the same.
        gate: such commits wait for it.
        waiting: is set once such a commit waits.
        fails: whether reads fail too.
        changes: that were recorded.
    """

    def __init__(self, store: Any) -> None:
        self._store = store
        self.error: StoreError | None = None
        self.done = True
        self.gate = asyncio.Event()
        self.gate.set()
        self.waiting = asyncio.Event()
        self.fails = False
        self.reads = 0
        self.changes: list[Change] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def commit(self, units: Sequence[Unit]) -> Any:
        asked = any(isinstance(change, OF_PEOPLE) for unit in units for change in unit)
        if asked:
            self.waiting.set()
            await self.gate.wait()
        if asked and self.error is not None and not self.done:
            raise self.error
        results = await self._store.commit(units)
        self.changes += [change for unit in units for change in unit]
        if asked and self.error is not None:
            raise self.error
        return results

    async def list_tenants(self) -> Any:
        self.reads += 1
        if self.fails:
            raise StoreUnavailable("it cannot be read")
        return await self._store.list_tenants()


class Scene:
    """A mesh with a tenant, a child of it, and a run that waits for a gate."""

    def __init__(self, mesh: Orchestrator, store: Trouble) -> None:
        self.mesh = mesh
        self.store = store
        self.tenant = self.child = self.run = ""
        self.let_go = asyncio.Event()

    async def set_up(self) -> None:
        began = asyncio.Event()

        async def first() -> None:
            began.set()
            await self.let_go.wait()

        async def second() -> int:
            return 2

        built = Workflow("w").add(first, id="a").add(second, id="b", depends_on=["a"])
        self.tenant = (await self.mesh.create_tenant("A", "enterprise")).tenant_id
        self.child = (await self.mesh.create_tenant("B", parent=self.tenant)).tenant_id
        self.run = (await self.mesh.submit(built, tenant=self.tenant)).id
        await began.wait()

    async def settled(self) -> list[str]:
        """Wait until nothing is in doubt, and give where memory and the store differ."""
        turns = self.mesh._running.turns
        async with asyncio.timeout(10):
            while turns._in_doubt or turns._errands:  # noqa: ASYNC110 - nothing tells of it, so it is looked for
                await asyncio.sleep(0.001)
        return await differences(self.mesh, self.store._store)


@pytest.fixture
async def scene(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    monkeypatch.setattr(turns_module, "LOOK_SECONDS", 0.01)
    mesh = Orchestrator(":memory:", shutdown_grace_seconds=0.05)
    store = Trouble(mesh._database)
    mesh._database = cast(Store, store)
    async with mesh:
        built = Scene(mesh, store)
        await built.set_up()
        yield built
        store.error = None
        store.gate.set()
        built.let_go.set()


Verb = Callable[[Scene], Awaitable[Any]]

VERBS: dict[str, tuple[Verb | None, Verb]] = {
    "suspend": (None, lambda s: s.mesh.suspend_tenant(s.tenant)),
    "resume": (lambda s: s.mesh.suspend_tenant(s.tenant), lambda s: s.mesh.resume_tenant(s.tenant)),
    "delete": (None, lambda s: s.mesh.delete_tenant(s.child)),
    "delete with force": (
        lambda s: s.mesh.delete_tenant(s.child),
        lambda s: s.mesh.delete_tenant(s.tenant, force=True),
    ),
    "create": (None, lambda s: s.mesh.create_tenant("C")),
    "create a child": (None, lambda s: s.mesh.create_tenant("C", parent=s.tenant)),
    "tier": (None, lambda s: s.mesh.set_tier(s.tenant, "professional")),
    "quota": (None, lambda s: s.mesh.set_quota(s.tenant, QUOTA)),
    "weight": (None, lambda s: s.mesh.set_weight(s.tenant, 7)),
    "throttle": (None, lambda s: s.mesh.throttle_tenant(s.tenant, 10)),
    "retention": (None, lambda s: s.mesh.set_retention(s.tenant, 3)),
    "retry policy": (None, lambda s: s.mesh.set_retry_policy(s.tenant, RetryPolicy(max_retries=7))),
    "breaker policy": (None, lambda s: s.mesh.set_breaker_policy(s.tenant, BreakerPolicy(open_seconds=7))),
    "pause run": (None, lambda s: s.mesh.pause_run(s.run)),
    "resume run": (lambda s: s.mesh.pause_run(s.run), lambda s: s.mesh.resume_run(s.run)),
    "pause workflow": (None, lambda s: s.mesh.pause_workflow("w")),
    "resume workflow": (lambda s: s.mesh.pause_workflow("w"), lambda s: s.mesh.resume_workflow("w")),
    "pause for one": (None, lambda s: s.mesh.pause_workflow("w", tenant=s.tenant)),
}


async def begin(scene: Scene, verb: str) -> Awaitable[Any]:
    first, act = VERBS[verb]
    if first is not None:
        await first(scene)
    if "delete with" in verb:
        asyncio.get_running_loop().call_later(0.05, scene.let_go.set)
    scene.store.waiting.clear()
    return act(scene)


@pytest.mark.parametrize("verb", VERBS)
async def test_what_a_caller_asked_for_who_went_away_takes_effect_as_it_is_recorded(scene: Scene, verb: str) -> None:
    call = asyncio.ensure_future(await begin(scene, verb))
    scene.store.gate.clear()
    await scene.store.waiting.wait()
    recorded = len(scene.store.changes)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    scene.store.gate.set()
    assert await scene.settled() == []
    assert len(scene.store.changes) > recorded, "nobody was there to be told, and it is done all the same"


@pytest.mark.parametrize("error", [StoreUnavailable("full"), StoreLocked("locked"), StoreError("does not pass")])
@pytest.mark.parametrize("done", [True, False])
@pytest.mark.parametrize("verb", VERBS)
async def test_a_change_whose_commit_reports_an_error_takes_effect_if_it_was_done(
    scene: Scene, verb: str, done: bool, error: StoreError
) -> None:
    call = await begin(scene, verb)
    scene.store.error, scene.store.done = error, done
    with pytest.raises(StoreError, match=str(error)):
        await call
    scene.store.error = None
    assert await scene.settled() == []


@pytest.mark.parametrize("done", [True, False])
@pytest.mark.parametrize("verb", VERBS)
async def test_a_change_in_doubt_is_settled_before_it_is_repeated(
    scene: Scene, verb: str, done: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns_module, "LOOK_SECONDS", 3_600.0)  # nobody looks by himself
    scene.store.done = done
    call = await begin(scene, verb)
    scene.store.error = StoreUnavailable("full")
    with pytest.raises(StoreUnavailable):
        await call
    scene.store.error = None
    try:
        await VERBS[verb][1](scene)
    except LookupError:
        assert verb.startswith("delete"), "it is deleted already, as who repeats it is told"
    turns = scene.mesh._running.turns
    if not verb.startswith("create"):  # each of them is another tenant
        assert not turns._in_doubt
        assert await differences(scene.mesh, scene.store._store) == []


async def test_who_resumes_after_a_suspension_in_doubt_is_not_told_what_is_not_recorded(scene: Scene) -> None:
    mesh, store = scene.mesh, scene.store
    store.error = StoreUnavailable("full")
    with pytest.raises(StoreUnavailable):
        await mesh.suspend_tenant(scene.tenant)
    store.error = None
    assert (await mesh.resume_tenant(scene.tenant)).status is TenantStatus.ACTIVE
    assert next(record.status for record in await store._store.list_tenants()) is TenantStatus.ACTIVE
    assert isinstance(store.changes[-1], TenantStatusChanged), "it was suspended, so that resuming is recorded"


async def test_while_nobody_can_read_what_is_in_doubt_nothing_more_of_it_is_changed(scene: Scene) -> None:
    mesh, store = scene.mesh, scene.store
    store.error, store.fails = StoreUnavailable("full"), True
    with pytest.raises(StoreUnavailable, match="full"):
        await mesh.suspend_tenant(scene.tenant)
    store.error = None
    with pytest.raises(StoreUnavailable, match="cannot be read"):
        await mesh.set_weight(scene.tenant, 3)
    assert (await mesh.set_weight(scene.child, 3)).weight == 3, "others are not in doubt"
    reads = store.reads
    while store.reads < reads + 3:  # noqa: ASYNC110 - nothing tells of it, so it is looked for
        await asyncio.sleep(0.001)
    store.fails = False
    assert await scene.settled() == []
    assert (await mesh.get_tenant(scene.tenant)).status is TenantStatus.SUSPENDED
    assert (await mesh.set_weight(scene.tenant, 3)).weight == 3


async def test_a_tenant_that_was_asked_for_under_a_key_is_made_once(scene: Scene) -> None:
    mesh, store = scene.mesh, scene.store

    async def create(key: str | None = "k", name: str = "C", **options: Any) -> str:
        return (await mesh.create_tenant(name, idempotency_key=key, **options)).tenant_id

    for done in (True, False):
        store.error, store.done = StoreUnavailable("full"), done
        with pytest.raises(StoreUnavailable, match="full"):
            await create(f"k{done}")
        store.error = None
        call = asyncio.ensure_future(create(f"k{done}"))
        made = await create(f"k{done}")
        assert await create(f"k{done}") == made == await call
    store.gate.clear()
    store.waiting.clear()
    gone = asyncio.ensure_future(create())
    await store.waiting.wait()
    gone.cancel()
    store.gate.set()
    made = await create()
    assert (await mesh.get_tenant(made)).tenant_name == "C"
    assert len({await create(None), await create(None), made}) == 3, "without a key each is another one"
    await mesh.set_tier(made, "enterprise")
    assert (await mesh.create_tenant("C", idempotency_key="k")).tier == "enterprise", "it is given as it is now"
    for other in ({"name": "D"}, {"tier": "professional"}, {"quota": QUOTA}, {"parent": scene.tenant}):
        with pytest.raises(IdempotencyConflict, match=made) as caught:
            await create(**other)  # type: ignore[arg-type]  # of several types
        assert caught.value.tenant_id == made
    for bad in ("", "a\0b", "x" * 1_000, 7):
        with pytest.raises(InvalidRequest, match="idempotency_key"):
            await create(bad)  # type: ignore[arg-type]  # on purpose
    assert await scene.settled() == []
    await mesh.delete_tenant(made)
    again = await create()
    assert again != made, "the key of a deleted tenant is free again"
    assert await create() == again


async def test_a_key_of_a_tenant_holds_across_restarts(open_mesh: Callable[..., Orchestrator]) -> None:
    async with open_mesh() as mesh:
        made = await mesh.create_tenant("A", "enterprise", quota=QUOTA, idempotency_key="k")
        await mesh.set_weight(made.tenant_id, 3)
        child = await mesh.create_tenant("B", parent=made.tenant_id, share=SHARE, idempotency_key="b")
    async with open_mesh() as mesh:
        assert await mesh.create_tenant("A", "enterprise", quota=QUOTA, idempotency_key="k") == await mesh.get_tenant(
            made.tenant_id
        )
        repeated = await mesh.create_tenant("B", parent=made.tenant_id, share=SHARE, idempotency_key="b")
        assert repeated == child
        with pytest.raises(IdempotencyConflict):
            await mesh.create_tenant("A", "enterprise", idempotency_key="k")
        assert len(await mesh.list_tenants()) == 2


async def test_too_many_changes_in_doubt_let_nothing_else_be_changed(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns_module, "IN_DOUBT_MAX", 2)
    store = scene.store
    store.error, store.fails = StoreUnavailable("full"), True
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="full"):
            await scene.mesh.create_tenant("C")
    with pytest.raises(StoreUnavailable, match="too many changes"):
        await scene.mesh.create_tenant("C")
    store.error, store.fails = None, False
    assert await scene.settled() == []
    await scene.mesh.create_tenant("C")


async def test_changes_of_one_tenant_by_many_people_are_all_kept(scene: Scene) -> None:
    mesh, tenant = scene.mesh, scene.tenant
    calls = [mesh.set_weight(tenant, 7), mesh.throttle_tenant(tenant, 10), mesh.set_retention(tenant, 3)]
    calls += [mesh.suspend_tenant(tenant), mesh.set_quota(tenant, QUOTA), mesh.resume_tenant(tenant)]
    tasks = [asyncio.ensure_future(call) for call in calls]
    await asyncio.sleep(0)
    tasks[0].cancel()
    tasks[4].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert await scene.settled() == []
    found = await mesh.get_tenant(tenant)
    assert (found.weight, found.quota, found.status) == (7, QUOTA, TenantStatus.ACTIVE)
    assert (found.policy.throttle_percent, found.policy.retention_days) == (10, 3)


@pytest.mark.parametrize("goes_away", [True, False])
async def test_open_circuits_follow_a_breaker_policy_that_nobody_was_told_of(scene: Scene, goes_away: bool) -> None:
    mesh, store = scene.mesh, scene.store

    async def fail() -> None:
        raise OSError("down")

    policy = BreakerPolicy(minimum_calls=1, open_seconds=600)
    await mesh.set_breaker_policy(scene.tenant, policy)
    failing = Workflow("failing").add(fail, id="a", retry=RetryPolicy(max_retries=0))
    await asyncio.gather((await mesh.submit(failing, tenant=scene.tenant)).result(10), return_exceptions=True)
    (circuit,) = mesh._running.circuits.live.values()
    assert circuit.breaker.policy == policy
    shorter = BreakerPolicy(minimum_calls=1, open_seconds=7)
    if goes_away:
        store.gate.clear()
        store.waiting.clear()
        call = asyncio.ensure_future(mesh.set_breaker_policy(scene.tenant, shorter))
        await store.waiting.wait()
        call.cancel()
        store.gate.set()
    else:
        store.error = StoreUnavailable("full")
        with pytest.raises(StoreUnavailable):
            await mesh.set_breaker_policy(scene.tenant, shorter)
        store.error = None
    assert await scene.settled() == []
    assert circuit.breaker.policy == shorter


async def test_a_deletion_is_carried_out_although_nobody_waits_for_it(scene: Scene) -> None:
    mesh = scene.mesh
    await mesh.delete_tenant(scene.child)
    call = asyncio.ensure_future(mesh.delete_tenant(scene.tenant, force=True))
    run = mesh._running.runs.get(scene.run)
    assert run is not None
    while not run.cancelling:  # noqa: ASYNC110 - nothing tells of it, so it is looked for
        await asyncio.sleep(0)  # at each turn of the loop: the deletion itself takes several, as it is recorded
    call.cancel()
    assert isinstance((await asyncio.gather(call, return_exceptions=True))[0], asyncio.CancelledError)
    scene.let_go.set()
    assert await scene.settled() == []
    assert await mesh.list_tenants() == []
    assert mesh._running.maintenance.purge_is_due or not await scene.store._store.list_tenants()


async def test_a_deletion_that_fails_halfway_leaves_the_tenant_as_it_was(scene: Scene) -> None:
    mesh, store = scene.mesh, scene.store

    async def fail(**given: Any) -> Any:
        raise StoreUnavailable("it cannot be read")

    with pytest.raises(TenantHasOpenRuns):
        await mesh.delete_tenant(await _lone(scene))
    store.count_runs = fail
    with pytest.raises(StoreUnavailable, match="cannot be read"):
        await mesh.delete_tenant(scene.child)
    del store.count_runs
    assert (await mesh.get_tenant(scene.child)).status is TenantStatus.ACTIVE
    assert await scene.settled() == []


async def _lone(scene: Scene) -> str:
    """Give a tenant with an open run."""
    tenant = (await scene.mesh.create_tenant("Lone", "enterprise")).tenant_id
    await scene.mesh.submit(Workflow("waits").add(scene.let_go.wait, id="a").returns(None), tenant=tenant)
    return tenant


async def test_a_change_that_is_under_way_when_the_mesh_is_closed_is_answered(scene: Scene) -> None:
    scene.store.gate.clear()
    waiting = [
        asyncio.ensure_future(scene.mesh.set_weight(scene.tenant, 3)),
        asyncio.ensure_future(scene.mesh.set_weight(scene.tenant, 4)),
        asyncio.ensure_future(scene.mesh.delete_tenant(scene.child)),
    ]
    await scene.store.waiting.wait()
    closing = asyncio.ensure_future(scene.mesh.close())
    await asyncio.sleep(0)
    scene.store.gate.set()
    await closing
    answers: list[Any] = await asyncio.gather(*waiting, return_exceptions=True)
    assert answers[0].weight == 3, "it was recorded"
    for answer in answers[1:]:
        assert answer is None or isinstance(answer, NotRunning) or answer.weight == 4
    with pytest.raises(NotRunning):
        await scene.mesh.set_weight(scene.tenant, 5)


async def test_a_pause_in_doubt_holds_the_run_once_it_is_known(scene: Scene) -> None:
    mesh, store = scene.mesh, scene.store
    store.error = StoreUnavailable("full")
    with pytest.raises(StoreUnavailable):
        await mesh.pause_run(scene.run)
    store.error = None
    assert await scene.settled() == []
    scene.let_go.set()
    while (await mesh.get_run(scene.run)).tasks[0].ended_at is None:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.001)
    await settled(mesh)
    assert (await mesh.get_run(scene.run)).tasks[1].started_at is None
    assert await mesh.resume_run(scene.run)
    assert await mesh.result_of(scene.run, timeout=10) == 2
