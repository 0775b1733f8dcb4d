"""The clean end: what runs may finish, the rest is interrupted, and goes on at the next start."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from synergymesh import ExecutionStatus, Orchestrator, RetryPolicy, Workflow, current_task
from synergymesh.errors import NotRunning

S = ExecutionStatus
Open = Callable[..., Orchestrator]


async def test_a_task_that_ends_within_the_grace_period_is_recorded_and_its_dependants_wait_for_the_next_start(
    open_mesh: Open,
) -> None:
    running, seen = asyncio.Event(), []

    async def short() -> str:
        seen.append(("a", current_task().attempt))
        running.set()
        await asyncio.sleep(0.02)
        return "a"

    async def after() -> str:
        seen.append(("b", current_task().attempt))
        return "b"

    built = Workflow("w").add(short, id="a").add(after, id="b", depends_on=["a"])
    async with open_mesh(shutdown_grace_seconds=10.0) as mesh:
        tenant = (await mesh.create_tenant("A", "enterprise")).tenant_id
        handle = await mesh.submit(built, tenant=tenant)
        waiting = asyncio.create_task(handle.result())
        await running.wait()
    with pytest.raises(NotRunning, match=handle.id):
        await waiting
    assert seen == [("a", 1)]
    async with open_mesh(workflows=[built]) as mesh:
        assert await mesh.handle(handle.id, tenant=tenant).result(10) == "b"
        run = await mesh.get_run(handle.id)
    assert seen == [("a", 1), ("b", 1)]
    assert run.recoveries == 0


async def test_a_task_that_is_interrupted_goes_on_with_the_next_attempt_and_keeps_its_retries(open_mesh: Open) -> None:
    running, seen = asyncio.Event(), []

    async def work() -> str:
        number = current_task().attempt
        seen.append(number)
        if number == 1:
            running.set()
            await asyncio.sleep(3_600)
        if number == 2:
            raise OSError("its only failure")
        return "done"

    built = Workflow("w").add(work, id="t", retry=RetryPolicy(max_retries=1, initial_delay=0.0))
    async with open_mesh() as mesh:
        tenant = (await mesh.create_tenant("A", "enterprise")).tenant_id
        handle = await mesh.submit(built, tenant=tenant)
        await running.wait()
    async with open_mesh(workflows=[built]) as mesh:
        assert await mesh.handle(handle.id, tenant=tenant).result(10) == "done"
        (each,) = (await mesh.get_run(handle.id)).tasks
    assert seen == [1, 2, 3]
    assert [(a.number, a.status) for a in each.failures] == [(1, S.CANCELLED), (2, S.FAILED)]


async def test_a_task_with_a_heartbeat_that_cleans_up_during_a_shutdown_did_not_fail(open_mesh: Open) -> None:
    running, seen = asyncio.Event(), []

    async def work() -> str:
        seen.append(current_task().attempt)
        if len(seen) > 1:
            return "done"
        try:
            while True:
                running.set()
                current_task().heartbeat()
                await asyncio.sleep(0.02)
        except asyncio.CancelledError:
            await asyncio.sleep(0.4)
            raise

    built = Workflow("w").add(work, id="t", heartbeat_timeout=0.1, retry=RetryPolicy(max_retries=0))
    async with open_mesh(stop_grace_seconds=5) as mesh:
        tenant = (await mesh.create_tenant("A", "enterprise")).tenant_id
        handle = await mesh.submit(built, tenant=tenant)
        await running.wait()
    async with open_mesh(workflows=[built]) as mesh:
        assert await mesh.handle(handle.id, tenant=tenant).result(10) == "done"
        (each,) = (await mesh.get_run(handle.id)).tasks
    assert (seen, each.failed_attempts, each.interruptions) == ([1, 2], 0, 1)


async def test_a_function_in_a_thread_is_told_to_stop_and_nobody_waits_for_it(open_mesh: Open) -> None:
    running, let_go = threading.Event(), threading.Event()
    told: list[bool] = []

    def stubborn() -> str:
        if current_task().attempt > 1:
            return "second"
        running.set()
        let_go.wait(20)
        told.append(current_task().cancelled)
        return "first"

    built = Workflow("w").add(stubborn, id="t")
    async with asyncio.timeout(5):
        async with open_mesh() as mesh:
            tenant = (await mesh.create_tenant("A", "enterprise")).tenant_id
            handle = await mesh.submit(built, tenant=tenant)
            await asyncio.to_thread(running.wait, 10)
    let_go.set()
    async with open_mesh(workflows=[built]) as mesh:
        assert await mesh.handle(handle.id, tenant=tenant).result(10) == "second"
    assert told == [True]


async def test_a_task_that_swallows_its_interruption_holds_up_the_end_only_for_the_grace_period(
    open_mesh: Open,
) -> None:
    running, let_go = asyncio.Event(), asyncio.Event()

    async def stubborn() -> str:
        if current_task().attempt > 1:
            return "second"
        running.set()
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue
        return "first"

    built = Workflow("w").add(stubborn, id="t")
    async with asyncio.timeout(5):
        async with open_mesh() as mesh:
            tenant = (await mesh.create_tenant("A", "enterprise")).tenant_id
            handle = await mesh.submit(built, tenant=tenant)
            await running.wait()
    let_go.set()
    await asyncio.sleep(0)
    async with open_mesh(workflows=[built]) as mesh:
        assert await mesh.handle(handle.id, tenant=tenant).result(10) == "second"


async def test_a_task_that_waits_for_its_retry_does_not_hold_up_the_end_and_waits_on_after_it(open_mesh: Open) -> None:
    seen: list[int] = []

    async def work() -> str:
        seen.append(current_task().attempt)
        if len(seen) == 1:
            raise OSError("once")
        return "done"

    built = Workflow("w").add(work, id="t", retry=RetryPolicy(initial_delay=0.4))
    async with open_mesh() as mesh:
        tenant = (await mesh.create_tenant("A", "enterprise")).tenant_id
        handle = await mesh.submit(built, tenant=tenant)
        async for event in handle.events():
            if event.status is S.RETRYING:
                break
    async with open_mesh(workflows=[built]) as mesh:
        assert (await mesh.get_run(handle.id)).tasks[0].status is S.RETRYING
        assert await mesh.handle(handle.id, tenant=tenant).result(10) == "done"
        (each,) = (await mesh.get_run(handle.id)).tasks
    assert seen == [1, 2]
    assert each.started_at is not None
    assert (each.started_at - each.failures[0].ended_at).total_seconds() >= 0.399


async def test_an_orchestrator_can_be_started_again_after_its_end(open_mesh: Open) -> None:
    async def work() -> int:
        return 1

    mesh = open_mesh()
    async with mesh:
        tenant = (await mesh.create_tenant("A", "enterprise")).tenant_id
        first = await mesh.submit(Workflow("w").add(work), tenant=tenant)
        await first.result(10)
    async with mesh:
        assert await first.result(10) == 1
        assert await (await mesh.submit(Workflow("w").add(work), tenant=tenant)).result(10) == 1


async def test_the_end_leaves_no_thread_and_no_asyncio_task_behind(open_mesh: Open) -> None:
    def work() -> int:
        return 1

    before = set(threading.enumerate())
    async with open_mesh() as mesh:
        tenant = (await mesh.create_tenant("A", "enterprise")).tenant_id
        await (await mesh.submit(Workflow("w").add(work), tenant=tenant)).result(10)
    threads = set(threading.enumerate()) - before
    for thread in [each for each in threads if not each.name.startswith("asyncio_")]:  # those are the loop's own
        await asyncio.to_thread(thread.join, 5)
    left = {t for t in set(threading.enumerate()) - before if not t.name.startswith("asyncio_")}
    assert left == set()
    assert [t.get_name() for t in asyncio.all_tasks() if t is not asyncio.current_task()] == []
