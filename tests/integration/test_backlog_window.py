"""A part of each tenant's backlog is in memory, the rest in the store; nobody can tell, but for memory and speed."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.integration.settling import settled

from synergymesh import (
    ExecutionStatus,
    Orchestrator,
    ResourceQuota,
    RunCancelled,
    TenantTier,
    Workflow,
    current_task,
)
from synergymesh.domain.scheduling.explain import Reason
from synergymesh.engine import recovery
from synergymesh.engine.backlog import window as window_module
from synergymesh.engine.backlog.window import Window
from synergymesh.errors import NotRunning, StoreUnavailable, UnknownRun
from synergymesh.settings import read_settings

S = ExecutionStatus
ROOMY = ResourceQuota(
    max_concurrent_tasks=200,
    max_memory_mb=1_000_000,
    max_cpu_percent=100,
    max_tasks_per_hour=1_000_000,
    rate_limit_per_second=1_000_000,
)
SIZE = 3


class Steps:
    """Tasks that end one by one, when they are let go."""

    def __init__(self) -> None:
        self.permits = asyncio.Semaphore(0)
        self.started: list[str] = []
        self.done: list[str] = []
        self.attempts: dict[str, int] = {}

    async def step(self) -> str:
        task = current_task()
        self.started.append(task.run_id)
        self.attempts[task.run_id] = task.attempt
        await self.permits.acquire()
        self.done.append(task.run_id)
        return task.run_id

    def workflow(self) -> Workflow:
        return Workflow("steps").add(self.step, id="step")


def make(path: Path | str, size: int = SIZE, **given: Any) -> Orchestrator:
    database = f"sqlite:///{path}" if path != ":memory:" else ":memory:"
    fields = {"shutdown_grace_seconds": 0.0, "stop_grace_seconds": 0.2, "waiting_runs_in_memory": size, **given}
    run_with = {name: fields.pop(name) for name in ("workflows", "clock") if name in fields}
    return Orchestrator(settings=read_settings(database=database, max_concurrent_tasks=1, **fields), **run_with)


def window_of(mesh: Orchestrator) -> Window:
    assert mesh._parts is not None
    return mesh._parts.window


async def tenant_of(mesh: Orchestrator, quota: ResourceQuota = ROOMY) -> str:
    return (await mesh.create_tenant("Acme", TenantTier.ENTERPRISE, quota=quota)).tenant_id


async def check_window(mesh: Orchestrator) -> None:
    """What belongs into memory is there, not too much is there, and the counters say what is in the store.

    Memory and store are read one after the other, so nothing may go on in between: it waits for that first.
    """
    await settled(mesh)
    assert mesh._parts is not None
    parts = mesh._parts
    window = parts.window
    now = parts.dispatcher._clock.now()
    counts = {count.tenant_id: count for count in await parts.store.list_waiting_counts()}
    for tenant_id, part in window._parts.items():
        assert len(part.ready) <= 2 * window._runs_max
        assert len(part.timed) <= window._runs_max + 1
        held = [*part.ready, *part.timed]
        assert all(parts.runs.get(run_id) is not None for run_id in held)
        rows = await parts.store.list_waiting_runs(tenant_id, due_by=now, after=None, limit=10_000)
        begun = {run.run_id for run in parts.runs if run.started_at is not None or run.cancelling}
        if (await mesh.get_tenant(tenant_id)).status == "active" and not part.stale:
            for row in rows:
                if row.content_hash in part.stuck:
                    assert row.run_id not in held
                elif part.edge is None or (row.level, row.run_id) <= part.edge:
                    assert row.run_id in held or row.run_id in begun, (row.run_id, part.edge)
        in_store = counts[tenant_id].runs if tenant_id in counts else 0
        waiting_begun = sum(1 for row in rows if row.run_id in begun)
        assert part.runs == in_store - len(held) - waiting_begun
        open_runs = await mesh.count_open_runs(tenant_id)
        assert parts.runs.backlog.of(tenant_id) == open_runs
    assert window._held == sum(len(part.ready) + len(part.timed) for part in window._parts.values())


async def test_runs_start_by_priority_and_age_however_few_are_in_memory() -> None:
    steps = Steps()
    async with make(":memory:") as mesh:
        tenant = await tenant_of(mesh)
        first = await mesh.submit(steps.workflow(), tenant=tenant)
        await settled(mesh)
        priorities = [0, 3, -2, 0, 7, 7, -2, 1, 0, 3, 0, 0, -5, 9, 0, 1, 2, 3, -1, 4, 0, 0, 0, 8, 0, -9, 5, 0]
        workflow = steps.workflow()
        handles = [await mesh.submit(workflow, tenant=tenant, priority=p) for p in priorities]
        await check_window(mesh)
        expected = sorted(handles, key=lambda h: (-priorities[handles.index(h)], h.id))
        for _ in range(len(handles) + 1):
            steps.permits.release()
            await check_window(mesh)
        minutes = {int(h.id[4:20], 16) // (60 * 10**9) for h in handles}
        if len(minutes) == 1:  # otherwise some have aged by a level
            assert steps.started == [first.id, *(h.id for h in expected)]
        assert sorted(steps.done) == sorted([first.id, *(h.id for h in handles)])


async def test_a_run_outside_memory_can_be_looked_at_explained_awaited_followed_and_cancelled() -> None:
    steps = Steps()
    async with make(":memory:") as mesh:
        tenant = await tenant_of(mesh)
        workflow = steps.workflow()
        handles = [await mesh.submit(workflow, tenant=tenant) for _ in range(60)]
        await settled(mesh)
        assert mesh._parts is not None
        runs = mesh._parts.runs
        assert len(list(runs)) <= 2 * SIZE + 1
        last = handles[-1]
        assert runs.get(last.id) is None
        assert (await mesh.get_run(last.id)).status is S.PENDING
        explained = await mesh.explain(last.id)
        assert (explained.status, explained.backlog_position) == (S.PENDING, 60)  # the first has begun, unrecorded
        (task,) = explained.waiting
        backlog = task.blockers[-1]
        assert (backlog.reason, backlog.asked) == (Reason.BACKLOG, 59)
        assert (await mesh.explain(handles[1].id)).backlog_position is None
        (view,) = await mesh.queue()
        assert (view.running, view.waiting) == (1, 59)
        overview = await mesh._parts.overviews.now(10)
        assert overview.tenants[0].queue.waiting == 59

        result = asyncio.create_task(last.result(20))
        events: list[tuple[str | None, S]] = []

        async def follow() -> None:
            events.extend([(event.task_id, event.status) async for event in last.events()])

        following = asyncio.create_task(follow())
        cancelled = handles[40]
        waiting = asyncio.create_task(cancelled.result(20))
        await asyncio.sleep(0)
        assert await cancelled.cancel() is True
        assert await cancelled.cancel() is False
        with pytest.raises(RunCancelled):
            await waiting
        assert (await mesh.get_run(cancelled.id)).tasks[0].status is S.CANCELLED
        with pytest.raises(UnknownRun):
            await mesh.cancel_run(last.id, tenant="tenant-other")
        await check_window(mesh)
        for _ in handles:
            steps.permits.release()
        assert await result == last.id
        await asyncio.wait_for(following, 5)
        assert events == [
            (None, S.PENDING),
            (None, S.RUNNING),
            ("step", S.RUNNING),
            ("step", S.SUCCESS),
            (None, S.SUCCESS),
        ]
        await check_window(mesh)
        assert steps.done == [h.id for h in handles if h is not cancelled]
        assert not runs.followers
        assert runs.backlog.total == 0


async def test_who_awaits_a_run_that_is_pushed_out_of_memory_is_told_of_its_end() -> None:
    steps = Steps()
    async with make(":memory:", 1) as mesh:
        tenant = await tenant_of(mesh)
        workflow = steps.workflow()
        await mesh.submit(workflow, tenant=tenant)
        low = await mesh.submit(workflow, tenant=tenant, priority=-5)
        await settled(mesh)
        ended = asyncio.create_task(low.result(20))
        await asyncio.sleep(0)
        for _ in range(4):
            await mesh.submit(workflow, tenant=tenant)
        await settled(mesh)
        assert mesh._parts is not None
        assert mesh._parts.runs.get(low.id) is None
        for _ in range(6):
            steps.permits.release()
        assert await ended == low.id
        assert steps.done[-1] == low.id


async def test_waiters_of_runs_outside_memory_are_released_when_the_mesh_closes(tmp_path: Path) -> None:
    steps = Steps()
    async with make(tmp_path / "mesh.db", 1) as mesh:
        tenant = await tenant_of(mesh)
        workflow = steps.workflow()
        handles = [await mesh.submit(workflow, tenant=tenant) for _ in range(9)]
        await settled(mesh)
        ended = asyncio.create_task(handles[-1].result(20))
        while handles[-1].id not in mesh._running.runs.followers.run_ids():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0)
    with pytest.raises(NotRunning, match=handles[-1].id):
        await ended


async def test_after_a_crash_a_backlog_goes_on_page_by_page_with_the_next_attempt(tmp_path: Path) -> None:
    steps = Steps()
    workflow = steps.workflow()
    async with make(tmp_path / "mesh.db") as mesh:
        tenant = await tenant_of(mesh)
        handles = [await mesh.submit(workflow, tenant=tenant, priority=n % 3) for n in range(40)]
        await settled(mesh)
        for suffix in ("", "-wal"):
            shutil.copyfile(tmp_path / f"mesh.db{suffix}", tmp_path / f"crashed.db{suffix}")
    steps.started.clear()
    async with make(tmp_path / "crashed.db", workflows=[workflow]) as mesh:
        assert mesh._parts is not None
        assert len(list(mesh._parts.runs)) <= 2 * SIZE + 1
        assert mesh._parts.runs.backlog.of(tenant) == 40
        await check_window(mesh)
        later = await mesh.submit(workflow, tenant=tenant, priority=5)
        for _ in range(41):
            steps.permits.release()
        for handle in (*handles, later):
            assert await mesh.handle(handle.id, tenant=tenant).result(20) == handle.id
        assert (await mesh.get_run(handles[7].id)).recoveries == 1
        await settled(mesh)
        assert mesh._parts.runs.backlog.total == 0
    assert sorted(steps.done) == sorted(h.id for h in (*handles, later))
    assert {steps.attempts[h.id] for h in handles} == {2}
    assert steps.attempts[later.id] == 1


async def test_runs_whose_code_is_missing_do_not_stand_in_the_way_of_others(tmp_path: Path) -> None:
    steps = Steps()
    good = Workflow("good").add(steps.step, id="step")

    def hidden() -> Workflow:
        return Workflow("hidden").add(steps.step, id="step")

    async with make(tmp_path / "mesh.db") as mesh:
        tenant = await tenant_of(mesh)
        lost = [await mesh.submit(hidden(), tenant=tenant) for _ in range(30)]
        found = [await mesh.submit(good, tenant=tenant) for _ in range(2)]
    steps.permits = asyncio.Semaphore(100)
    async with make(tmp_path / "mesh.db", workflows=[good]) as mesh:
        for handle in found:
            assert await mesh.handle(handle.id, tenant=tenant).result(20) == handle.id
        run = await mesh.get_run(lost[20].id)
        assert run.status is S.PENDING
        assert run.reason is not None
        assert "hidden" in run.reason
        assert (await mesh.explain(lost[20].id)).reason == run.reason
        await check_window(mesh)
        new = await mesh.submit(hidden(), tenant=tenant)
        for handle in (*lost, new):
            assert await mesh.handle(handle.id, tenant=tenant).result(20) == handle.id


async def test_runs_that_ask_for_more_than_a_lowered_quota_stay_in_the_store_until_it_is_raised() -> None:
    steps = Steps()
    big = Workflow("big").add(steps.step, id="step", memory_mb=500)
    small = steps.workflow()
    async with make(":memory:") as mesh:
        tenant = await tenant_of(mesh)
        holder = await mesh.submit(small, tenant=tenant)
        await settled(mesh)
        large = [await mesh.submit(big, tenant=tenant) for _ in range(20)]
        await mesh.set_quota(tenant, ResourceQuota(**{**_fields(ROOMY), "max_memory_mb": 100}))
        little = [await mesh.submit(small, tenant=tenant) for _ in range(8)]
        await settled(mesh)
        for _ in range(9):
            steps.permits.release()
            await check_window(mesh)
        assert steps.done == [holder.id, *(h.id for h in little)]
        explained = await mesh.explain(large[0].id)
        (task,) = explained.waiting
        assert task.blockers[0].reason is Reason.MEMORY
        assert (task.blockers[0].limit, task.blockers[0].asked) == (100, 500)
        await mesh.set_quota(tenant, ROOMY)
        for _ in large:
            steps.permits.release()
        for handle in large:
            assert await handle.result(20) == handle.id


def _fields(quota: ResourceQuota) -> dict[str, Any]:
    return {name: getattr(quota, name) for name in ResourceQuota.__dataclass_fields__}


async def test_runs_for_later_do_not_stand_in_the_way_and_start_when_they_are_due(tmp_path: Path) -> None:
    steps = Steps()
    steps.permits = asyncio.Semaphore(1_000)
    workflow = steps.workflow()
    async with make(tmp_path / "mesh.db", 2) as mesh:
        tenant = await tenant_of(mesh)
        never = datetime.now(UTC) + timedelta(hours=5)
        for_later = [await mesh.submit(workflow, tenant=tenant, priority=900, not_before=never) for _ in range(20)]
        soon = datetime.now(UTC) + timedelta(seconds=0.2)
        due = [await mesh.submit(workflow, tenant=tenant, not_before=soon) for _ in range(20)]
        now = [await mesh.submit(workflow, tenant=tenant) for _ in range(20)]
        for handle in now:
            assert await handle.result(20) == handle.id
        for handle in due:
            assert await handle.result(20) == handle.id
        assert datetime.now(UTC) > soon
        explained = await mesh.explain(for_later[-1].id)
        assert explained.waiting[0].blockers[0].reason is Reason.RETRY_DELAY
        await check_window(mesh)
    # after a restart too
    async with make(tmp_path / "mesh.db", 2, workflows=[workflow]) as mesh:
        await check_window(mesh)
        assert window_of(mesh)._parts[tenant].later_edge is not None
        handle = await mesh.submit(workflow, tenant=tenant)
        assert await handle.result(20) == handle.id
    assert len(steps.done) == 41


async def test_the_backlog_of_a_suspended_tenant_stays_in_the_store_until_it_is_resumed(tmp_path: Path) -> None:
    steps = Steps()
    workflow = steps.workflow()
    async with make(tmp_path / "mesh.db") as mesh:
        tenant = await tenant_of(mesh)
        handles = [await mesh.submit(workflow, tenant=tenant) for _ in range(20)]
        await mesh.suspend_tenant(tenant)
    steps.permits = asyncio.Semaphore(100)
    async with make(tmp_path / "mesh.db", workflows=[workflow]) as mesh:
        assert mesh._parts is not None
        waiting = [run for run in mesh._parts.runs if run.started_at is None]
        assert waiting == []
        explained = await mesh.explain(handles[-1].id)
        reasons = [blocker.reason for blocker in explained.waiting[0].blockers]
        assert (reasons[0], reasons[-1]) == (Reason.PAUSED, Reason.BACKLOG)
        await mesh.resume_tenant(tenant)
        for handle in handles:
            assert await mesh.handle(handle.id, tenant=tenant).result(20) == handle.id


async def test_a_tenant_with_a_backlog_is_deleted_and_those_who_follow_it_are_told() -> None:
    steps = Steps()
    workflow = steps.workflow()
    async with make(":memory:") as mesh:
        tenant, other = await tenant_of(mesh), await tenant_of(mesh)
        kept = await mesh.submit(workflow, tenant=other)
        await settled(mesh)
        handles = [await mesh.submit(workflow, tenant=tenant) for _ in range(30)]
        followers = [asyncio.create_task(h.result(20)) for h in (handles[0], handles[-1])]
        await settled(mesh)
        await mesh.delete_tenant(tenant, force=True)
        for ending in followers:
            with pytest.raises(RunCancelled):
                await ending
        assert mesh._parts is not None
        assert mesh._parts.runs.backlog.total == 1
        assert [run.run_id for run in mesh._parts.runs] == [kept.id]
        await check_window(mesh)
        steps.permits.release()
        assert await kept.result(20) == kept.id


async def test_a_page_that_cannot_be_read_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps()
    steps.permits = asyncio.Semaphore(100)
    workflow = steps.workflow()
    monkeypatch.setattr(window_module, "RETRY_SECONDS", 0.01)
    failures = 0
    async with make(tmp_path / "mesh.db") as mesh:
        tenant = await tenant_of(mesh)
        assert mesh._parts is not None
        store: Any = mesh._parts.store
        read = store.list_waiting_runs

        async def fail_at_times(*args: Any, **named: Any) -> Any:
            nonlocal failures
            failures += 1
            if failures % 2:
                raise StoreUnavailable("the disk is gone")
            return await read(*args, **named)

        monkeypatch.setattr(store, "list_waiting_runs", fail_at_times)
        handles = await asyncio.gather(*(mesh.submit(workflow, tenant=tenant) for _ in range(40)))
        for handle in handles:
            assert await handle.result(20) == handle.id
    assert failures > 4
    assert len(steps.done) == 40


async def test_an_idempotency_key_finds_a_run_outside_memory_and_a_full_backlog_counts_it() -> None:
    steps = Steps()
    workflow = steps.workflow()
    quota = ResourceQuota(**{**_fields(ROOMY), "max_queued_tasks": 31})
    async with make(":memory:") as mesh:
        tenant = await tenant_of(mesh, quota)
        handles = [await mesh.submit(workflow, tenant=tenant, idempotency_key=f"k{n}") for n in range(30)]
        await settled(mesh)
        again = await mesh.submit(workflow, tenant=tenant, idempotency_key="k29")
        assert again.id == handles[-1].id
        await mesh.submit(workflow, tenant=tenant)
        await mesh.submit(workflow, tenant=tenant)
        with pytest.raises(Exception, match="31"):
            await mesh.submit(workflow, tenant=tenant)
        await check_window(mesh)


class StepClock:
    """A clock that goes on when it is told to, and a little with each look."""

    def __init__(self) -> None:
        self.at = 1_800_000_000 * 10**9

    def now(self) -> int:
        self.at += 1
        return self.at


Op = tuple[str, int]
OPS = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.integers(-3, 3)),
        st.tuples(st.just("later"), st.integers(0, 200)),
        st.tuples(st.just("flood"), st.integers(1, 8)),
        st.tuples(st.just("release"), st.integers(1, 6)),
        st.tuples(st.just("cancel"), st.integers(0, 60)),
        st.tuples(st.just("advance"), st.integers(1, 120)),
        st.tuples(st.just("settle"), st.just(0)),
        st.tuples(st.just("suspend"), st.just(0)),
        st.tuples(st.just("resume"), st.just(0)),
        st.tuples(st.just("restart"), st.just(0)),
        st.tuples(st.just("crash"), st.just(0)),
    ),
    min_size=5,
    max_size=25,
)


@given(ops=OPS, size=st.integers(1, 3))
@example(ops=[("submit", 0), *[("crash", 0)] * 4], size=1)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_nothing_is_lost_and_nothing_runs_twice_whatever_happens(ops: Sequence[Op], size: int) -> None:
    asyncio.run(_play(ops, size))


async def _play(ops: Sequence[Op], size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recovery, "CRASHES_MAX", len(ops) + 1)  # what is quarantined is another test's
        await _play_on(ops, size)


async def _play_on(ops: Sequence[Op], size: int) -> None:
    steps = Steps()
    workflow = steps.workflow()
    clock = StepClock()
    submitted: list[str] = []
    cancelled: set[str] = set()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "life-0.db"
        mesh = make(path, size, workflows=[workflow], clock=clock)
        await mesh.start()
        tenant = await tenant_of(mesh)
        active = True
        for number, (op, value) in enumerate(ops):
            assert mesh._parts is not None
            match op:
                case "submit" | "later" | "flood" if active:
                    for _ in range(value if op == "flood" else 1):
                        moment = datetime.fromtimestamp(clock.at / 1e9 + value, UTC) if op == "later" else None
                        priority = value if op == "submit" else 0
                        submitted.append(
                            (await mesh.submit(workflow, tenant=tenant, priority=priority, not_before=moment)).id
                        )
                case "release":
                    for _ in range(value):
                        steps.permits.release()
                    await asyncio.sleep(0)
                case "cancel" if submitted:
                    run_id = submitted[value % len(submitted)]
                    if await mesh.cancel_run(run_id):
                        cancelled.add(run_id)
                case "advance":
                    _advance(mesh, clock, value)
                case "settle":
                    await check_window(mesh)
                case "suspend":
                    await mesh.suspend_tenant(tenant)
                    active = False
                case "resume":
                    await mesh.resume_tenant(tenant)
                    active = True
                case "restart" | "crash":
                    if op == "crash":
                        await settled(mesh)
                        copy = path.with_name(f"life-{number + 1}.db")
                        for suffix in ("", "-wal"):
                            shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
                        path = copy
                        ended = list(steps.done)
                    await mesh.close()
                    if op == "crash":
                        steps.done = ended
                    mesh = make(path, size, workflows=[workflow], clock=clock)
                    await mesh.start()
        await mesh.resume_tenant(tenant)
        _advance(mesh, clock, 1_000)
        for _ in range(len(submitted) + 1):
            steps.permits.release()
        for run_id in submitted:
            try:
                assert await mesh.handle(run_id, tenant=tenant).result(20) == run_id
            except RunCancelled:
                assert run_id in cancelled
        await check_window(mesh)
        assert mesh._parts is not None
        assert mesh._parts.runs.backlog.total == 0
        assert list(mesh._parts.runs) == []
        await mesh.close()
    assert len(set(steps.done)) == len(steps.done)
    assert set(submitted) - cancelled <= set(steps.done)


def _advance(mesh: Orchestrator, clock: StepClock, seconds: int) -> None:
    """Let time pass, and ring what would have rung."""
    assert mesh._parts is not None
    clock.at += seconds * 10**9
    for part in window_of(mesh)._parts.values():
        if part.later_edge is not None:
            window_of(mesh)._ring(part)
    mesh._parts.dispatcher.pump_soon()
