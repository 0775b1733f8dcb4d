"""The engine on a database that cannot be written for a while, or refuses something."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from tests.integration.settling import settled

from synergymesh import ExecutionStatus, Orchestrator, ResourceQuota, RetryPolicy, Workflow, current_task, ref
from synergymesh.engine import attempts as attempts_module
from synergymesh.engine import committer as committer_module
from synergymesh.engine.backlog import doubts as doubts_module
from synergymesh.errors import StoreCorrupt, StoreError, StoreLocked, StoreUnavailable
from synergymesh.ports.changes import RunCreated, TaskFinished, TaskStarted, Unit

S = ExecutionStatus
FULL = StoreUnavailable("mesh.db: the disk is full")


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committer_module, "RETRY_DELAYS_SECONDS", (0.005,))


def gated(count: int, gate: asyncio.Event, effects: list[str]) -> Workflow:
    async def work(name: str, *before: Any) -> str:
        effects.append(name)
        await gate.wait()
        return name

    built = Workflow("gated")
    for number in range(count):
        built.add(work, id=f"t{number}", args=[f"t{number}", *([ref("t0")] if number else [])])
    return built.returns([ref(f"t{number}") for number in range(count)])


@pytest.mark.parametrize("error", [FULL, StoreLocked("mesh.db is locked by another program")])
async def test_results_are_kept_while_the_disk_is_full_and_recorded_once_there_is_room_again(
    error: StoreError, roomy: Any, with_faults: Callable[..., Any]
) -> None:
    mesh = Orchestrator(":memory:")
    store = with_faults(mesh)
    gate, effects = asyncio.Event(), []
    async with mesh:
        tenant = (await mesh.create_tenant("A", "enterprise", quota=roomy)).tenant_id
        handle = await mesh.submit(gated(5, gate, effects), tenant=tenant)
        while not effects:  # noqa: ASYNC110 - nothing tells of it, so it is looked for
            await asyncio.sleep(0)
        store.error = error
        gate.set()
        while not store.failures:  # noqa: ASYNC110 - nothing tells of it, so it is looked for
            await asyncio.sleep(0.001)
        with pytest.raises(StoreUnavailable, match=str(error)[:10]):
            await mesh.submit(gated(1, gate, effects), tenant=tenant)
        assert effects == ["t0"], "nothing that depends on it starts before it is recorded"
        assert await handle.status() is S.RUNNING, "reads go on"
        store.error = None
        assert await handle.result(10) == ["t0", "t1", "t2", "t3", "t4"]
        later = await mesh.submit(gated(1, gate, effects), tenant=tenant)
        assert await later.result(10) == ["t0"]
        assert await mesh.count_open_runs() == 0
        assert len(await mesh.list_runs()) == 2, "the refused one left nothing"
    assert sorted(effects) == ["t0", "t0", "t1", "t2", "t3", "t4"]


async def test_submissions_that_find_the_disk_full_are_refused_and_nothing_of_them_is_left(
    with_faults: Callable[..., Any],
) -> None:
    mesh = Orchestrator(":memory:")
    store = with_faults(mesh)
    gate = asyncio.Event()
    gate.set()
    async with mesh:
        tenant = (await mesh.create_tenant("A", "enterprise")).tenant_id
        store.error = FULL
        refusals = await asyncio.gather(
            *(mesh.submit(gated(1, gate, []), tenant=tenant) for _ in range(20)), return_exceptions=True
        )
        assert all(isinstance(refusal, StoreUnavailable) for refusal in refusals)
        with pytest.raises(StoreUnavailable):
            await mesh.create_tenant("B", "enterprise")
        store.error = None
        assert await mesh.list_runs() == []
        assert len(await mesh.list_tenants()) == 1
        assert await (await mesh.submit(gated(1, gate, []), tenant=tenant)).result(10) == ["t0"]


async def test_tasks_that_waited_while_too_much_was_unwritten_start_when_it_is_written(
    roomy: Any, with_faults: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committer_module, "WAITING_UNITS_MAX", 8)
    monkeypatch.setattr(committer_module, "BATCH_UNITS_MAX", 4)
    mesh = Orchestrator(":memory:", max_concurrent_tasks=2)
    store = with_faults(mesh)
    begun: list[int] = []
    gate = asyncio.Event()

    async def work(number: int) -> int:
        await gate.wait()
        begun.append(number)
        return number

    async with mesh:
        tenant = (await mesh.create_tenant("A", "enterprise", quota=roomy)).tenant_id
        handles = [await mesh.submit(Workflow("w").add(work, args=[n]), tenant=tenant) for n in range(40)]
        store.error = FULL
        gate.set()
        while not mesh._parts.committer.is_full:  # type: ignore[union-attr]  # noqa: ASYNC110 - nothing tells of it, so it is looked for
            await asyncio.sleep(0.001)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(begun) < 40, "what is not written yet is bounded"
        store.error = None
        assert [await handle.result(5) for handle in handles] == list(range(40))


async def test_a_run_whose_result_could_not_be_recorded_never_ends_without_it(
    open_mesh: Callable[..., Orchestrator], with_faults: Callable[..., Any]
) -> None:
    gate = asyncio.Event()
    seen: list[tuple[str, int]] = []

    async def work(name: str) -> str:
        seen.append((name, current_task().attempt))
        if name == "late":
            await gate.wait()
        return name

    built = Workflow("w").add(work, id="early", args=["early"]).add(work, id="late", args=["late"])
    built.returns([ref("early"), ref("late")])
    mesh = open_mesh()
    store = with_faults(mesh)
    store.error = StoreError("something that does not pass")
    store.fails = lambda units: any(
        isinstance(change, TaskFinished) and change.component_id == "early" for unit in units for change in unit
    )
    async with mesh:
        tenant = (await mesh.create_tenant("A", "enterprise")).tenant_id
        handle = await mesh.submit(built, tenant=tenant)
        with pytest.raises(StoreError, match="does not pass"):
            await handle.result(5)
        store.error = None
        gate.set()
        await settled(mesh)
        run = await mesh.get_run(handle.id)
        assert not run.status.is_final, "one of its results is not recorded"
        # what was lost belongs to this run alone
        gate.set()
        other = await mesh.submit(Workflow("o").add(work, args=["other"]), tenant=tenant)
        assert await other.result(5) == "other"
    async with open_mesh(workflows=[built]) as again:
        assert await again.handle(handle.id, tenant=tenant).result(10) == ["early", "late"]
    assert len(set(seen)) == len(seen), f"no attempt's number is given twice: {seen}"


async def test_a_run_that_lost_a_result_starts_nothing_more_and_does_not_end(with_faults: Callable[..., Any]) -> None:
    gates = {name: asyncio.Event() for name in ("early", "blocker")}
    begun: dict[str, asyncio.Event] = {name: asyncio.Event() for name in ("early", "blocker", "late")}

    async def work(name: str) -> str:
        begun[name].set()
        if name in gates:
            await gates[name].wait()
        return name

    built = Workflow("w").add(work, id="early", args=["early"], priority=1).add(work, id="late", args=["late"])
    mesh = Orchestrator(":memory:", shutdown_grace_seconds=0.05)
    store = with_faults(mesh)
    store.error = StoreError("something that does not pass")
    store.fails = lambda units: any(
        isinstance(change, TaskFinished) and change.component_id == "early" for unit in units for change in unit
    )
    async with mesh:
        tenant = (await mesh.create_tenant("A", "enterprise", quota=ResourceQuota(max_concurrent_tasks=1))).tenant_id
        handle = await mesh.submit(built.returns(None), tenant=tenant)
        await begun["early"].wait()
        # it takes the slot that the lost task gives back, so that the other one has to wait
        blocker = await mesh.submit(Workflow("b").add(work, args=["blocker"]), tenant=tenant, priority=10)
        gates["early"].set()
        with pytest.raises(StoreError, match="does not pass"):
            await handle.result(5)
        await begun["blocker"].wait()
        gates["blocker"].set()
        await blocker.result(5)
        after = await mesh.submit(Workflow("a").add(work, args=["late"]), tenant=tenant, priority=-10)
        await after.result(5)  # whatever was in front of it had its turn
        run = await mesh.get_run(handle.id)
        assert not run.status.is_final
        assert [each.status for each in run.tasks] == [S.PENDING, S.PENDING]


@pytest.mark.parametrize("limit", [{"timeout": 0.05}, {"heartbeat_timeout": 0.05}])
async def test_a_task_of_a_run_that_is_let_go_of_is_stopped_by_its_time_limit_and_gives_its_slot_back(
    with_faults: Callable[..., Any], limit: dict[str, float]
) -> None:
    mesh = Orchestrator(":memory:")
    store = with_faults(mesh)
    begun, stopped = asyncio.Event(), asyncio.Event()

    async def hangs() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async def ends() -> None:
        await begun.wait()
        store.error = StoreCorrupt("mesh.db is damaged")

    built = Workflow("w").add(hangs, id="hangs", **limit).add(ends, id="ends")
    async with mesh:
        tenant = (await mesh.create_tenant("A", "enterprise")).tenant_id
        await mesh.submit(built, tenant=tenant)
        async with asyncio.timeout(20):
            await stopped.wait()
            while mesh._running.attempts.under_way:  # noqa: ASYNC110 - nothing tells of it, so it is looked for
                await asyncio.sleep(0.001)
        assert mesh._running.dispatcher.scheduler.running == 0
        store.error = None


async def test_closing_on_a_full_disk_does_not_hang_and_the_next_start_runs_what_was_not_recorded_again(
    open_mesh: Callable[..., Orchestrator], with_faults: Callable[..., Any]
) -> None:
    seen: list[tuple[str, int]] = []

    async def work(name: str) -> str:
        seen.append((name, current_task().attempt))
        return name

    built = Workflow("w").add(work, id="a", args=["a"]).add(work, id="b", args=["b"], depends_on=["a"])
    mesh = open_mesh()
    store = with_faults(mesh)
    async with asyncio.timeout(10):
        async with mesh:
            tenant = (await mesh.create_tenant("A", "enterprise")).tenant_id
            store.error = FULL
            store.fails = lambda units: any(isinstance(c, TaskFinished) for unit in units for c in unit)
            handle = await mesh.submit(built, tenant=tenant)
            while not store.failures:  # noqa: ASYNC110 - nothing tells of it, so it is looked for
                await asyncio.sleep(0.001)
    async with open_mesh(workflows=[built]) as again:
        assert await again.handle(handle.id, tenant=tenant).result(10) == "b"
    assert seen == [("a", 1), ("a", 2), ("b", 2)]


async def test_an_error_after_the_write_is_repeated_without_harm(with_faults: Callable[..., Any], roomy: Any) -> None:
    mesh = Orchestrator(":memory:")
    store = with_faults(mesh)
    commit = store.commit
    trouble = iter([False, True, True, False, True] * 40)

    async def commit_and_fail(units: Sequence[Unit]) -> Any:
        results = await commit(units)
        kept = all(not any(type(c).__name__ in ("RunCreated", "TenantCreated") for c in unit) for unit in units)
        if kept and next(trouble):
            raise FULL
        return results

    store.commit = commit_and_fail
    counts: dict[str, int] = {}

    async def work(name: str, *_: Any) -> str:
        counts[name] = counts.get(name, 0) + 1
        if current_task().attempt == 1 and name == "t2":
            raise OSError("once")
        return name

    built = Workflow("w")
    for number in range(6):
        before = [ref(f"t{number - 1}")] if number else []
        built.add(work, id=f"t{number}", args=[f"t{number}", *before], retry=RetryPolicy(initial_delay=0.0))
    async with mesh:
        tenant = (await mesh.create_tenant("A", "enterprise", quota=roomy)).tenant_id
        handle = await mesh.submit(built, tenant=tenant)
        assert await handle.result(10) == "t5"
        run = await mesh.get_run(handle.id)
    assert counts == {"t0": 1, "t1": 1, "t2": 2, "t3": 1, "t4": 1, "t5": 1}
    assert [each.attempt for each in run.tasks] == [1, 1, 2, 1, 1, 1]


async def test_a_submission_whose_commit_failed_after_it_was_done_runs_once_the_store_answers(
    with_faults: Callable[..., Any],
) -> None:
    mesh = Orchestrator(":memory:")
    store = with_faults(mesh)
    commit = store.commit
    gate = asyncio.Event()
    gate.set()
    effects: list[str] = []
    built = gated(1, gate, effects)
    fails = [True]

    async def commit_and_fail(units: Sequence[Unit]) -> Any:
        results = await commit(units)
        if fails[0] and any(isinstance(change, RunCreated) for unit in units for change in unit):
            raise FULL
        return results

    store.commit = commit_and_fail
    async with mesh:
        tenant = (await mesh.create_tenant("A", "enterprise")).tenant_id
        for key in ("repeated", None):
            with pytest.raises(StoreUnavailable):
                await mesh.submit(built, tenant=tenant, idempotency_key=key)
        fails[0] = False
        # whoever repeats it is given the run that is there, which is no ghost
        again = await mesh.submit(built, tenant=tenant, idempotency_key="repeated")
        assert await again.result(5) == ["t0"]
        for run in await mesh.list_runs():
            assert await mesh.result_of(run.id, timeout=5) == ["t0"]
        assert len(effects) == 2
        assert await mesh.count_open_runs() == 0


async def test_too_many_submissions_in_doubt_let_no_more_in(
    with_faults: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doubts_module, "DOUBTS_MAX", 3)
    mesh = Orchestrator(":memory:")
    store = with_faults(mesh)
    async with mesh:
        tenant = (await mesh.create_tenant("A", "enterprise")).tenant_id
        store.error = FULL
        for _ in range(3):
            with pytest.raises(StoreUnavailable, match="disk is full"):
                await mesh.submit(gated(1, asyncio.Event(), []), tenant=tenant)
        with pytest.raises(StoreUnavailable, match="too many submissions"):
            await mesh.submit(gated(1, asyncio.Event(), []), tenant=tenant)


async def test_a_run_whose_begin_could_not_be_recorded_goes_on_with_new_attempts_after_a_restart(
    open_mesh: Callable[..., Orchestrator], with_faults: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts_module, "LONG_TASK_SECONDS", 0.01)
    gates = {1: asyncio.Event(), 2: asyncio.Event()}
    seen: list[int] = []

    async def work() -> str:
        number = current_task().attempt
        seen.append(number)
        if len(seen) == 1:
            await gates[1].wait()
            raise OSError("the first one fails")
        if len(seen) == 2:
            await gates[2].wait()
        return "done"

    built = Workflow("w").add(work, id="t", retry=RetryPolicy(initial_delay=0.0))
    mesh = open_mesh()
    store = with_faults(mesh)
    store.error = StoreError("something that does not pass")
    store.fails = lambda units: any(isinstance(change, TaskStarted) for unit in units for change in unit)
    async with mesh:
        tenant = (await mesh.create_tenant("A", "enterprise")).tenant_id
        handle = await mesh.submit(built, tenant=tenant)
        while not store.failures:  # noqa: ASYNC110 - nothing tells of it, so it is looked for
            await asyncio.sleep(0.01)
        store.error = None
        gates[1].set()
        await settled(mesh)
    gates[2].set()
    async with open_mesh(workflows=[built]) as again:
        assert await again.handle(handle.id, tenant=tenant).result(10) == "done"
    assert len(set(seen)) == len(seen), f"no attempt's number is given twice: {seen}"
