"""Tasks that end before they ever start, and runs whose time is over while their end is being recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from synergymesh import ExecutionStatus, Orchestrator, ResourceQuota, RetryPolicy, RunFailed, RunTimedOut, Workflow
from synergymesh.domain.fault_tolerance.retry import Ending
from synergymesh.ports.changes import AttemptFailed, RunCreated, RunFinished, Unit

S = ExecutionStatus
OpenMesh = Callable[..., Orchestrator]


async def quick() -> int:
    return 1


async def narrow_tenant(mesh: Orchestrator) -> str:
    return (await mesh.create_tenant("narrow", "enterprise", quota=ResourceQuota(max_concurrent_tasks=1))).tenant_id


async def test_a_task_that_timed_out_before_its_run_began_is_not_run_after_a_restart(open_mesh: OpenMesh) -> None:
    calls: list[str] = []

    async def late() -> None:
        calls.append("late")

    async def other() -> int:
        calls.append("other")
        return 7

    async def hold() -> None:
        await asyncio.sleep(3_600)

    built = Workflow("w").add(late, id="late", queue_timeout=0.05, required=False).add(other, id="other")
    holding = Workflow("h").add(hold)
    async with open_mesh() as mesh:
        narrow = await narrow_tenant(mesh)
        held = await mesh.submit(holding, tenant=narrow)
        waiting = await mesh.submit(built, tenant=narrow)
        async with asyncio.timeout(10):
            async for event in waiting.events():
                if event.task_id == "late" and event.status is S.TIMEOUT:
                    break
    async with open_mesh(workflows=[built, holding]) as mesh:
        await mesh.cancel_run(held.id)
        async with asyncio.timeout(10):
            await mesh.result_of(waiting.id)
        run = await mesh.get_run(waiting.id)
        assert {each.task_id: each.status for each in run.tasks} == {"late": S.TIMEOUT, "other": S.SUCCESS}
    assert calls == ["other"]


async def test_runs_that_end_before_they_begin_make_room_for_others_in_memory(open_mesh: OpenMesh) -> None:
    let_go = asyncio.Event()

    async def hold() -> None:
        await let_go.wait()

    late = Workflow("late").add(quick, queue_timeout=0.05)
    async with open_mesh() as mesh:
        mesh._running.window._runs_max = 1
        narrow = await narrow_tenant(mesh)
        await mesh.submit(Workflow("h").add(hold), tenant=narrow)
        runs = [await mesh.submit(late, tenant=narrow) for _ in range(4)]
        next_one = await mesh.submit(Workflow("next").add(quick), tenant=narrow)
        async with asyncio.timeout(10):
            while not (await mesh.get_run(runs[0].id)).status.is_final:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.01)
            let_go.set()
            assert await next_one.result() == 1


def answer_late(store: Any, kind: type, *, seconds: float) -> None:
    """Let the store answer late to commits that have such a change, which is recorded by then."""
    commit = store.commit

    async def slow(units: Sequence[Unit]) -> Any:
        answer = await commit(units)
        if any(isinstance(change, kind) for unit in units for change in unit):
            await asyncio.sleep(seconds)
        return answer

    store.commit = slow


async def test_a_run_that_is_recorded_after_its_queue_timeout_does_not_start(
    open_mesh: OpenMesh, with_faults: Callable[[Orchestrator], Any]
) -> None:
    calls: list[int] = []

    async def work() -> None:
        calls.append(1)

    mesh = open_mesh()
    answer_late(with_faults(mesh), RunCreated, seconds=0.1)
    async with mesh:
        tenant = await narrow_tenant(mesh)
        await (await mesh.submit(Workflow("first").add(quick), tenant=tenant)).result(10)  # starts are reserved now
        handle = await mesh.submit(Workflow("w", queue_timeout=0.05).add(work), tenant=tenant)
        with pytest.raises(RunTimedOut, match="queue timeout"):
            await handle.result(10)
        assert (await mesh.queue())[0].waiting == 0
    assert calls == []


async def test_a_retry_that_is_recorded_after_max_elapsed_does_not_start(
    open_mesh: OpenMesh, with_faults: Callable[[Orchestrator], Any]
) -> None:
    calls: list[int] = []

    async def work() -> None:
        calls.append(1)
        raise OSError("no")

    mesh = open_mesh()
    answer_late(with_faults(mesh), AttemptFailed, seconds=0.3)
    async with mesh:
        tenant = await narrow_tenant(mesh)
        hasty = RetryPolicy(max_retries=5, initial_delay=0, max_elapsed=0.1)
        handle = await mesh.submit(Workflow("w").add(work, id="work", retry=hasty), tenant=tenant)
        with pytest.raises(RunFailed):
            await handle.result(10)
        (task,) = (await mesh.get_run(handle.id)).tasks
        assert task.error is not None
        assert (task.status, task.attempt, task.error.ending) == (S.FAILED, 1, Ending.MAX_ELAPSED)
    assert calls == [1]


async def test_a_run_whose_end_is_being_recorded_does_not_time_out(
    open_mesh: OpenMesh, with_faults: Callable[[Orchestrator], Any]
) -> None:
    ends: list[RunFinished] = []
    may_commit = asyncio.Event()
    mesh = open_mesh()
    faulty = with_faults(mesh)
    commit = faulty.commit

    async def slow(units: Sequence[Unit]) -> Any:
        found = [change for unit in units for change in unit if isinstance(change, RunFinished)]
        ends.extend(found)
        if found:
            await may_commit.wait()
        return await commit(units)

    faulty.commit = slow
    async with mesh:
        tenant = await narrow_tenant(mesh)
        handle = await mesh.submit(Workflow("w", timeout=3_600).add(quick), tenant=tenant)
        async with asyncio.timeout(10):
            while not ends:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.01)
            ((_, _, deadline),) = mesh._running.deadlines._heap
            assert not deadline.is_cancelled
            deadline.ring()  # its time is over
            may_commit.set()
            assert await handle.result() == 1
        await mesh._running.committer.record([])
        assert [end.status for end in ends] == [S.SUCCESS]
        assert (await mesh.get_run(handle.id)).status is S.SUCCESS
