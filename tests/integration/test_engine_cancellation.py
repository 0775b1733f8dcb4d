"""Cancelling runs: what waits, what runs, what does not listen."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from random import Random, SystemRandom
from typing import Any

import pytest
from tests.integration.settling import settled

from synergymesh import ExecutionStatus, Orchestrator, RetryPolicy, RunCancelled, Workflow, current_task, ref
from synergymesh.domain.fault_tolerance.retry import Cancelled
from synergymesh.domain.states import TASK_TRANSITIONS
from synergymesh.executors.loop import LoopExecutor
from synergymesh.ports.changes import RunFinished
from synergymesh.ports.task_context import TaskContext

S = ExecutionStatus


def statuses(run: Any) -> dict[str, str]:
    return {each.task_id: each.status.value for each in run.tasks}


async def test_a_run_that_waits_is_cancelled_and_never_starts(mesh: Orchestrator, tenant: str) -> None:
    started: list[str] = []

    async def note() -> None:
        started.append("x")

    built = Workflow("w").add(note, id="a").add(note, id="b", depends_on=["a"])
    handle = await mesh.submit(built, tenant=tenant, not_before=datetime.now(UTC) + timedelta(hours=1))
    assert await handle.cancel() is True
    with pytest.raises(RunCancelled, match=handle.id):
        await handle.result(5)
    run = await mesh.get_run(handle.id)
    assert run.status is S.CANCELLED
    assert statuses(run) == {"a": "cancelled", "b": "cancelled"}
    assert run.started_at is None
    assert started == []


async def test_cancelling_stops_what_runs_and_what_would_come_after_it(mesh: Orchestrator, tenant: str) -> None:
    running = asyncio.Event()
    seen: list[bool] = []

    async def long() -> None:
        running.set()
        try:
            await asyncio.sleep(3_600)
        finally:
            seen.append(current_task().cancelled)

    async def quick() -> int:
        return 1

    built = Workflow("w").add(quick, id="a").add(long, id="b", depends_on=["a"]).add(quick, id="c", depends_on=["b"])
    handle = await mesh.submit(built, tenant=tenant)
    await running.wait()
    assert await handle.cancel() is True
    with pytest.raises(RunCancelled):
        await handle.result(5)
    assert statuses(await mesh.get_run(handle.id)) == {"a": "success", "b": "cancelled", "c": "cancelled"}
    assert seen == [True]
    assert await handle.cancel() is False, "it is final already"


async def test_a_function_in_a_thread_sees_the_cancellation_and_the_run_does_not_wait_for_it(
    mesh: Orchestrator, tenant: str
) -> None:
    running, ended = threading.Event(), threading.Event()

    def cooperative() -> str:
        running.set()
        context = current_task()
        while not context.cancelled:
            threading.Event().wait(0.005)
        ended.set()
        return "stopped early"

    handle = await mesh.submit(Workflow("w").add(cooperative), tenant=tenant)
    await asyncio.to_thread(running.wait, 10)
    await handle.cancel()
    with pytest.raises(RunCancelled):
        await handle.result(5)
    assert await asyncio.to_thread(ended.wait, 10)
    assert statuses(await mesh.get_run(handle.id)) == {"cooperative": "cancelled"}


async def test_a_task_that_swallows_its_cancellation_is_given_up_after_the_grace_period(
    mesh: Orchestrator, tenant: str
) -> None:
    running, let_go = asyncio.Event(), asyncio.Event()

    async def stubborn() -> str:
        running.set()
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue
        return "at last"

    handle = await mesh.submit(Workflow("w").add(stubborn), tenant=tenant)
    await running.wait()
    await handle.cancel()
    with pytest.raises(RunCancelled):
        await handle.result(5)
    before = await mesh.get_run(handle.id)
    let_go.set()
    await settled(mesh)
    assert await mesh.get_run(handle.id) == before, "a final state never changes"


async def test_a_task_that_succeeds_in_spite_of_the_cancellation_keeps_its_result(
    mesh: Orchestrator, tenant: str
) -> None:
    running = asyncio.Event()

    async def finishes() -> str:
        running.set()
        try:
            await asyncio.sleep(3_600)
        except asyncio.CancelledError:
            return "finished anyway"
        return "never"

    handle = await mesh.submit(Workflow("w").add(finishes), tenant=tenant)
    await running.wait()
    await handle.cancel()
    assert await handle.result(5) == "finished anyway"
    assert await handle.status() is S.SUCCESS


async def test_a_task_that_waits_for_a_retry_is_cancelled(mesh: Orchestrator, tenant: str) -> None:
    async def fail() -> None:
        raise OSError("no")

    policy = RetryPolicy(max_retries=5, initial_delay=3_600, max_delay=3_600)
    handle = await mesh.submit(Workflow("w").add(fail, retry=policy), tenant=tenant)
    async for event in handle.events():
        if event.status is S.RETRYING:
            break
    await handle.cancel()
    with pytest.raises(RunCancelled):
        await handle.result(5)
    (each,) = (await mesh.get_run(handle.id)).tasks
    assert each.status is S.CANCELLED
    assert [a.number for a in each.failures] == [1]


class FakeCall:
    """A call as the loop executor sees it."""

    def __init__(self, function: Any) -> None:
        self.function = function
        self.context = TaskContext("run-1", "a", "tenant-1", 1)
        self.handle: Any = None
        self.stopped = False
        self.outcomes: list[Any] = []

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (), {}

    def encode(self, value: Any) -> bytes:
        return b"1"

    def done(self, outcome: Any) -> None:
        self.outcomes.append(outcome)


@pytest.mark.parametrize("times", [1, 2])
async def test_a_call_that_is_stopped_before_its_first_step_reports_its_end_once(times: int) -> None:
    begun: list[int] = []

    async def work() -> None:
        begun.append(1)

    executor = LoopExecutor()
    await executor.start()
    call = FakeCall(work)
    executor.run(call)
    for _ in range(times):
        executor.stop(call)
    for _ in range(5):
        await asyncio.sleep(0)
    assert call.outcomes == [Cancelled()], "its slot would never be given back"
    assert begun == []


async def test_runs_cancelled_at_random_moments_are_final_and_consistent(mesh: Orchestrator, tenant: str) -> None:
    seed = SystemRandom().randrange(2**32)
    dice = Random(seed)
    after_cancel: list[str] = []
    cancelled: set[str] = set()

    async def step(_: object = None) -> int:
        if current_task().run_id in cancelled:
            after_cancel.append(current_task().task_id)
        for _ in range(dice.randrange(4)):
            await asyncio.sleep(0)
        return 1

    built = Workflow("w")
    for number in range(12):
        built.add(step, id=f"t{number}", args=[ref(f"t{number // 2}")] if number else [])
    handles = [await mesh.submit(built, tenant=tenant) for _ in range(60)]

    async def cancel(handle: Any) -> None:
        for _ in range(dice.randrange(60)):
            await asyncio.sleep(0)
        if await handle.cancel():
            cancelled.add(handle.id)

    await asyncio.gather(*map(cancel, handles))
    for handle in handles:
        try:
            await handle.result(5)
        except RunCancelled:
            assert await handle.status() is S.CANCELLED, f"seed {seed}"
        run = await mesh.get_run(handle.id)
        ends = {each.status for each in run.tasks}
        assert ends <= {S.SUCCESS, S.CANCELLED}, f"seed {seed}"
        assert (S.CANCELLED in ends) is (run.status is S.CANCELLED), f"seed {seed}"
        assert all(not TASK_TRANSITIONS[each.status] for each in run.tasks)
    assert after_cancel == [], f"seed {seed}: nothing starts once cancel() has returned"
    assert await mesh.count_open_runs() == 0


async def test_a_run_whose_end_is_being_written_ends_once_and_is_not_cancelled(with_faults: Any) -> None:
    mesh = Orchestrator(":memory:")
    store = with_faults(mesh)
    commit = store.commit
    ends: list[Any] = []
    begun, gate = asyncio.Event(), asyncio.Event()

    async def slowly(units: Any) -> Any:
        found = [change for unit in units for change in unit if isinstance(change, RunFinished)]
        ends.extend(found)
        if found and not gate.is_set():
            begun.set()
            await gate.wait()
        return await commit(units)

    store.commit = slowly

    async def quick() -> int:
        return 1

    async with mesh:
        tenant = (await mesh.create_tenant("A")).tenant_id
        handle = await mesh.submit(Workflow("w").add(quick), tenant=tenant)
        await begun.wait()
        assert await handle.cancel() is False
        gate.set()
        assert await handle.result(5) == 1
    assert len(ends) == 1
