"""The limits of the time of attempts, tasks and runs, as a user sees them."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from synergymesh import (
    ExecutionStatus,
    Orchestrator,
    ResourceQuota,
    RetryPolicy,
    RunFailed,
    RunHandle,
    RunTimedOut,
    Workflow,
    current_task,
    task,
    workflow,
)
from synergymesh.domain.fault_tolerance.retry import Ending
from synergymesh.domain.instants import SECOND
from synergymesh.domain.workflow.definition import WorkflowDefinition
from synergymesh.engine import maintenance
from synergymesh.engine.timing import watchdog
from synergymesh.errors import InvalidWorkflow
from synergymesh.ports.changes import CancelRequested, RunStarted
from synergymesh.store.sqlite import SqliteStore

S = ExecutionStatus
HOUR = 3_600 * SECOND

OpenMesh = Callable[..., Orchestrator]


class FakeClock:
    def __init__(self) -> None:
        self.moment = 1_700_000_000 * SECOND

    def now(self) -> int:
        return self.moment


class SetClock:
    """The machine's clock, which somebody has set."""

    def __init__(self) -> None:
        self.ahead = 0

    def now(self) -> int:
        return time.time_ns() + self.ahead


async def sleep_for_ever() -> None:
    await asyncio.sleep(3_600)


async def quick() -> int:
    return 1


def fail() -> None:
    raise OSError("no")


async def narrow_tenant(mesh: Orchestrator) -> str:
    return (await mesh.create_tenant("narrow", "enterprise", quota=ResourceQuota(max_concurrent_tasks=1))).tenant_id


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)


async def until_told(status: ExecutionStatus, handle: RunHandle) -> None:
    """Wait until a run tells that its task "a" has, or had, a status."""
    async with asyncio.timeout(10):
        async for event in handle.events():
            if (event.task_id, event.status) == ("a", status):
                return


def deadlines_of(mesh: Orchestrator) -> int:
    """Count the deadlines that can still fire."""
    return sum(not entry[2].is_cancelled for entry in mesh._running.deadlines._heap)


# --- tasks ----------------------------------------------------------------------------------------------------------


async def test_the_total_timeout_covers_the_waits_between_attempts(mesh: Orchestrator, tenant: str) -> None:
    patient = RetryPolicy(max_retries=100, initial_delay=3_600, max_delay=3_600)
    handle = await mesh.submit(Workflow("w").add(fail, retry=patient, total_timeout=0.1), tenant=tenant)
    with pytest.raises(RunFailed, match=r"total timeout of 0\.1 s"):
        await handle.result(10)
    (each,) = (await mesh.get_run(handle.id)).tasks
    assert each.error is not None
    assert (each.status, each.attempt, each.error.ending) == (S.TIMEOUT, 1, Ending.TIMEOUT)
    assert [str(attempt.error) for attempt in each.failures] == ["OSError: no"]
    assert deadlines_of(mesh) == 0


async def test_the_total_timeout_stops_an_attempt_and_no_other_follows(mesh: Orchestrator, tenant: str) -> None:
    built = Workflow("w").add(sleep_for_ever, retry=RetryPolicy(max_retries=9), timeout=3_000, total_timeout=0.05)
    handle = await mesh.submit(built, tenant=tenant)
    with pytest.raises(RunFailed, match="total timeout"):
        await handle.result(10)
    run = await mesh.get_run(handle.id)
    assert (run.status, run.tasks[0].status, run.tasks[0].attempt) == (S.FAILED, S.TIMEOUT, 1)
    assert deadlines_of(mesh) == 0


async def test_a_task_that_waits_too_long_for_its_turn_ends_as_timeout_without_an_attempt(mesh: Orchestrator) -> None:
    narrow = await narrow_tenant(mesh)
    let_go = asyncio.Event()

    async def hold() -> None:
        await let_go.wait()

    holding = await mesh.submit(Workflow("h").add(hold), tenant=narrow)
    built = Workflow("w").add(quick, id="late", queue_timeout=0.05).add(quick, id="after", depends_on=["late"])
    waiting = await mesh.submit(built, tenant=narrow)
    with pytest.raises(RunFailed, match=r"did not start within its queue timeout of 0\.05 s"):
        await waiting.result(10)
    late, after = (await mesh.get_run(waiting.id)).tasks
    assert (late.status, late.attempt, late.started_at, after.status) == (S.TIMEOUT, 0, None, S.SKIPPED)
    let_go.set()
    await holding.result(10)
    assert await (await mesh.submit(Workflow("q").add(quick), tenant=narrow)).result(10) == 1
    assert (await mesh.queue())[0].waiting == 0


async def test_a_task_that_starts_in_time_is_not_ended_by_its_queue_timeout(mesh: Orchestrator, tenant: str) -> None:
    started, let_go = asyncio.Event(), asyncio.Event()

    async def longer() -> str:
        started.set()
        await let_go.wait()
        return "done"

    handle = await mesh.submit(Workflow("w").add(longer, queue_timeout=3_600), tenant=tenant)
    ((_, _, deadline),) = mesh._running.deadlines._heap
    await started.wait()
    deadline.ring()
    let_go.set()
    assert await handle.result(10) == "done"


# --- runs -----------------------------------------------------------------------------------------------------------


async def test_a_run_that_takes_too_long_ends_as_timeout_with_everything_that_it_has(
    mesh: Orchestrator, tenant: str
) -> None:
    built = Workflow("w", timeout=0.1).add(quick, id="done").add(sleep_for_ever, id="runs")
    built.add(quick, id="waits", depends_on=["runs"])
    handle = await mesh.submit(built, tenant=tenant)
    with pytest.raises(RunTimedOut, match=r"the run took longer than its timeout of 0\.1 s") as caught:
        await handle.result(10)
    assert set(caught.value.errors) == {"runs"}
    run = await mesh.get_run(handle.id)
    assert (run.status, [each.status for each in run.tasks]) == (S.TIMEOUT, [S.SUCCESS, S.TIMEOUT, S.CANCELLED])
    assert [r.id for r in await mesh.list_runs(status="timeout")] == [handle.id]
    assert await mesh.count_open_runs() == 0
    assert deadlines_of(mesh) == 0


async def test_a_run_that_does_not_start_in_time_ends_as_timeout(mesh: Orchestrator) -> None:
    narrow = await narrow_tenant(mesh)
    let_go = asyncio.Event()

    async def hold() -> None:
        await let_go.wait()

    await mesh.submit(Workflow("h").add(hold), tenant=narrow)
    waiting = await mesh.submit(Workflow("w", queue_timeout=0.05, timeout=5).add(quick), tenant=narrow)
    with pytest.raises(RunTimedOut, match=r"did not start within its queue timeout of 0\.05 s"):
        await waiting.result(10)
    run = await mesh.get_run(waiting.id)
    assert (run.status, run.started_at, run.tasks[0].status) == (S.TIMEOUT, None, S.CANCELLED)
    let_go.set()


async def test_a_run_that_ends_in_time_leaves_no_deadline(mesh: Orchestrator, tenant: str) -> None:
    built = Workflow("w", timeout=60, queue_timeout=60)
    built.add(quick, timeout=60, total_timeout=60, queue_timeout=60, heartbeat_timeout=60)
    assert await (await mesh.submit(built, tenant=tenant)).result(10) == 1
    assert deadlines_of(mesh) == 0


async def test_runs_that_wait_outside_of_the_memory_end_in_time_too(
    open_mesh: Callable[..., Orchestrator], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "TICK_SECONDS", 0.02)
    let_go = asyncio.Event()

    async def hold() -> None:
        await let_go.wait()

    late = Workflow("late", queue_timeout=0.1).add(quick)
    async with open_mesh(workflows=[late]) as mesh:
        suspended = await narrow_tenant(mesh)
        handles = [await mesh.submit(late, tenant=suspended, not_before=datetime.now(UTC) + timedelta(seconds=0.3))]
        await mesh.suspend_tenant(suspended)
    async with open_mesh(workflows=[late], settings=_settings(waiting_runs_in_memory=1)) as mesh:
        assert mesh._running.runs.get(handles[0].id) is None
        narrow = await narrow_tenant(mesh)
        await mesh.submit(Workflow("h").add(hold), tenant=narrow)
        handles = [mesh.handle(handles[0].id, tenant=suspended)]
        handles += [await mesh.submit(late, tenant=narrow) for _ in range(5)]
        for handle in handles:
            with pytest.raises(RunTimedOut, match="did not start"):
                await handle.result(10)
        assert await mesh.count_open_runs() == 1
        let_go.set()


# --- restarts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("slept", "ends"), [(2 * HOUR, True), (HOUR // 2, False)])
async def test_the_deadline_of_a_run_counts_from_its_stored_start_across_a_restart(
    open_mesh: Callable[..., Orchestrator], roomy: ResourceQuota, slept: int, ends: bool
) -> None:
    clock = FakeClock()
    started = asyncio.Event()

    async def work() -> str:
        if not started.is_set():
            started.set()
            await asyncio.sleep(3_600)
        return "done"

    built = Workflow("w", timeout=3_600).add(work)
    async with open_mesh(workflows=[built], clock=clock) as mesh:
        tenant = (await mesh.create_tenant("A", "enterprise", quota=roomy)).tenant_id
        handle = await mesh.submit(built, tenant=tenant)
        await started.wait()
    clock.moment += slept
    async with open_mesh(workflows=[built], clock=clock) as mesh:
        handle = mesh.handle(handle.id, tenant=tenant)
        if ends:
            with pytest.raises(RunTimedOut):
                await handle.result(10)
        else:
            assert await handle.result(10) == "done"


async def test_the_waits_of_tasks_count_from_the_stored_end_of_those_before_them(
    open_mesh: Callable[..., Orchestrator], roomy: ResourceQuota
) -> None:
    clock = FakeClock()
    let_go = asyncio.Event()

    async def first() -> None:
        await let_go.wait()

    built = Workflow("w").add(first).add(quick, id="waits", depends_on=["first"], queue_timeout=7_000)
    built.add(quick, id="total", depends_on=["first"], total_timeout=7_000)
    built.add(quick, id="longer", depends_on=["first"], total_timeout=9_000)
    built.add(quick, id="free", depends_on=["first"])
    async with open_mesh(workflows=[built], clock=clock) as mesh:
        tenant = (await mesh.create_tenant("A", "enterprise", quota=roomy)).tenant_id
        handle = await mesh.submit(built, tenant=tenant)
        async for event in handle.events():
            if event.task_id == "first" and event.status is S.RUNNING:
                clock.moment += 24 * HOUR  # before they may start, so that it does not count
                await mesh.suspend_tenant(tenant)
                let_go.set()
            if event.task_id == "first" and event.status is S.SUCCESS:
                break
    clock.moment += 2 * HOUR
    async with open_mesh(workflows=[built], clock=clock) as mesh:
        await mesh.resume_tenant(tenant)
        with pytest.raises(RunFailed):
            await mesh.handle(handle.id, tenant=tenant).result(10)
        run = await mesh.get_run(handle.id)
    assert [each.status for each in run.tasks] == [S.SUCCESS, S.TIMEOUT, S.TIMEOUT, S.SUCCESS, S.SUCCESS]


@pytest.mark.parametrize(("after", "status"), [(2 * HOUR, S.TIMEOUT), (HOUR // 2, S.CANCELLED)])
async def test_a_run_whose_end_was_interrupted_ends_as_what_ended_it(
    open_mesh: Callable[..., Orchestrator], roomy: ResourceQuota, tmp_path: Path, after: int, status: ExecutionStatus
) -> None:
    clock = FakeClock()
    built = Workflow("w", timeout=3_600).add(quick)
    async with open_mesh(workflows=[built], clock=clock, execute=False) as mesh:
        tenant = (await mesh.create_tenant("A", "enterprise", quota=roomy)).tenant_id
        handle = await mesh.submit(built, tenant=tenant)
    store = SqliteStore(tmp_path / "mesh.db")
    await store.open()
    await store.commit(
        [
            [RunStarted(handle.id, tenant, clock.moment)],
            [CancelRequested(handle.id, tenant, clock.moment + after)],
        ]
    )
    await store.close()
    async with open_mesh(workflows=[built], clock=clock) as mesh:
        handle = mesh.handle(handle.id, tenant=tenant)
        with pytest.raises(Exception, match="timed out" if status is S.TIMEOUT else "cancelled"):
            await handle.result(10)
        assert await handle.status() is status


async def test_a_clock_that_was_set_back_across_a_restart_stretches_no_limit(
    open_mesh: OpenMesh, roomy: ResourceQuota
) -> None:
    clock = SetClock()
    many = RetryPolicy(max_retries=1_000, initial_delay=0.02, exponential_base=1)
    late = Workflow("late", timeout=0.3).add(sleep_for_ever, id="a")
    total = Workflow("total").add(fail, id="a", total_timeout=0.3, retry=many)
    elapsed = Workflow("elapsed").add(fail, id="a", retry=replace(many, max_elapsed=0.3))
    after = Workflow("after").add(quick, id="a").add(sleep_for_ever, id="b", depends_on=["a"], total_timeout=0.3)
    waits = Workflow("waits", queue_timeout=0.3).add(quick, id="a")
    task_waits = Workflow("task-waits").add(quick, id="a", queue_timeout=0.3)
    blocker = Workflow("blocker").add(sleep_for_ever, id="a")
    workflows = [late, total, elapsed, after, waits, task_waits]
    one = ResourceQuota(max_concurrent_tasks=1, max_tasks_per_hour=1_000, rate_limit_per_second=1_000)
    async with open_mesh(workflows=[*workflows, blocker], clock=clock) as mesh:
        tenant = (await mesh.create_tenant("A", "enterprise", quota=roomy)).tenant_id
        narrow = (await mesh.create_tenant("B", "enterprise", quota=one)).tenant_id
        holding = await mesh.submit(blocker, tenant=narrow)
        await until_told(S.RUNNING, holding)
        handles = [
            await mesh.submit(each, tenant=narrow if each in (waits, task_waits) else tenant) for each in workflows
        ]
        await until_told(S.RUNNING, handles[workflows.index(late)])
        await until_told(S.RETRYING, handles[workflows.index(total)])
        await until_told(S.RETRYING, handles[workflows.index(elapsed)])
        await until_told(S.SUCCESS, handles[workflows.index(after)])
    clock.ahead -= 24 * HOUR
    async with open_mesh(workflows=[*workflows, blocker], clock=clock) as mesh:
        for handle in handles:
            with suppress(RunFailed, TimeoutError):
                await mesh.handle(handle.id, tenant=handle.tenant_id).result(3)
        ended = {run.workflow: run.status for run in await mesh.list_runs()}
        assert ended.pop("blocker") is S.RUNNING
        assert ended == {
            "late": S.TIMEOUT,
            "total": S.FAILED,
            "elapsed": S.FAILED,
            "waits": S.TIMEOUT,
            "after": S.FAILED,
            "task-waits": S.FAILED,
        }


# --- heartbeats -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_thread", [False, True])
async def test_a_task_that_gives_no_heartbeat_is_stopped(mesh: Orchestrator, tenant: str, in_thread: bool) -> None:
    let_go = threading.Event()

    def silent() -> None:
        current_task().heartbeat()
        let_go.wait(10)

    async def silent_on_loop() -> None:
        current_task().heartbeat()
        await asyncio.sleep(3_600)

    built = Workflow("w").add(
        silent if in_thread else silent_on_loop, retry=RetryPolicy(max_retries=0), heartbeat_timeout=0.08
    )
    handle = await mesh.submit(built, tenant=tenant)
    with pytest.raises(RunFailed, match=r"gave no heartbeat for 0\.08 s"):
        await handle.result(10)
    (each,) = (await mesh.get_run(handle.id)).tasks
    assert each.status is S.TIMEOUT
    let_go.set()


async def test_a_task_that_gives_heartbeats_runs_as_long_as_it_likes(mesh: Orchestrator, tenant: str) -> None:
    async def alive() -> str:
        for _ in range(20):
            current_task().heartbeat()
            await asyncio.sleep(0.03)
        return "done"

    handle = await mesh.submit(Workflow("w").add(alive, heartbeat_timeout=0.3), tenant=tenant)
    assert await handle.result(10) == "done"
    assert deadlines_of(mesh) == 0


async def test_heartbeats_that_a_blocked_event_loop_keeps_waiting_are_not_missed(
    mesh: Orchestrator, tenant: str, roomy: ResourceQuota
) -> None:
    other = (await mesh.create_tenant("B", "enterprise", quota=roomy)).tenant_id

    async def alive() -> str:
        for _ in range(12):
            current_task().heartbeat()
            await asyncio.sleep(0.1)
        return "done"

    async def blocker() -> None:
        for _ in range(3):
            await asyncio.sleep(0.07)
            time.sleep(0.3)  # noqa: ASYNC251 - that is what it is for

    built = Workflow("w").add(alive, heartbeat_timeout=0.2, retry=RetryPolicy(max_retries=0))
    handles = [await mesh.submit(built, tenant=tenant) for _ in range(5)]
    await mesh.submit(Workflow("bad").add(blocker), tenant=other)
    for handle in handles:
        assert await handle.result(10) == "done"


async def test_a_silent_task_is_found_although_the_event_loop_is_blocked_again_and_again(
    mesh: Orchestrator, tenant: str
) -> None:
    let_go = asyncio.Event()

    async def blocker() -> None:
        while not let_go.is_set():
            time.sleep(0.05)  # noqa: ASYNC251 - that is what it is for
            await asyncio.sleep(0)

    silent = Workflow("w").add(sleep_for_ever, heartbeat_timeout=0.1, retry=RetryPolicy(max_retries=0))
    handle = await mesh.submit(silent, tenant=tenant)
    blocking = await mesh.submit(Workflow("bad").add(blocker), tenant=tenant)
    with pytest.raises(RunFailed, match="gave no heartbeat"):
        await handle.result(10)
    let_go.set()
    await blocking.result(10)


# --- limits that pass while an attempt is being stopped ---------------------------------------------------------------


def tidy(seconds: float, tried: list[int]) -> Callable[[], Any]:
    """Give a task that beats, and takes its time to clean up when it is stopped."""

    async def work() -> None:
        tried.append(current_task().attempt)
        try:
            while True:
                current_task().heartbeat()
                await asyncio.sleep(0.02)
        except asyncio.CancelledError:
            await asyncio.sleep(seconds)
            raise

    return work


async def test_a_task_whose_total_time_is_over_is_not_tried_again_however_it_is_stopped(open_mesh: OpenMesh) -> None:
    tried: list[int] = []
    retry = RetryPolicy(max_retries=3, initial_delay=0.0)
    built = Workflow("w").add(tidy(0.6, tried), total_timeout=0.15, heartbeat_timeout=0.1, timeout=30, retry=retry)
    async with open_mesh(stop_grace_seconds=5) as mesh:
        tenant = (await mesh.create_tenant("A", "enterprise")).tenant_id
        handle = await mesh.submit(built, tenant=tenant)
        with pytest.raises(RunFailed, match=r"total timeout of 0\.15 s"):
            await handle.result(10)
        (each,) = (await mesh.get_run(handle.id)).tasks
    assert (each.status, tried) == (S.TIMEOUT, [1])


async def test_a_total_time_that_passes_while_an_attempt_is_stopped_for_another_limit_is_final(
    open_mesh: OpenMesh,
) -> None:
    tried: list[int] = []
    retry = RetryPolicy(max_retries=3, initial_delay=0.0)
    built = Workflow("w").add(tidy(0.5, tried), total_timeout=0.3, timeout=0.1, heartbeat_timeout=30, retry=retry)
    async with open_mesh(stop_grace_seconds=5) as mesh:
        tenant = (await mesh.create_tenant("A", "enterprise")).tenant_id
        handle = await mesh.submit(built, tenant=tenant)
        with pytest.raises(RunFailed, match=r"total timeout of 0\.3 s"):
            await handle.result(10)
    assert tried == [1]


@pytest.mark.parametrize("total", [0.1, 0.3])
async def test_a_task_that_is_stopped_because_its_run_is_over_timed_out_whatever_else_passes(
    open_mesh: OpenMesh, total: float
) -> None:
    tried: list[int] = []
    built = Workflow("w", timeout=0.2).add(tidy(0.5, tried), total_timeout=total, heartbeat_timeout=0.1)
    async with open_mesh(stop_grace_seconds=5) as mesh:
        tenant = (await mesh.create_tenant("A", "enterprise")).tenant_id
        handle = await mesh.submit(built, tenant=tenant)
        with pytest.raises(RunTimedOut):
            await handle.result(10)
        (each,) = (await mesh.get_run(handle.id)).tasks
    assert (each.status, tried) == (S.TIMEOUT, [1])


# --- what does not end ----------------------------------------------------------------------------------------------


async def test_an_attempt_that_swallows_that_it_was_stopped_is_named_and_stopped_again() -> None:
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while swallowed < 2:
            try:
                await asyncio.sleep(3_600)
            except asyncio.CancelledError:
                swallowed += 1
        await asyncio.sleep(3_600)

    async with Orchestrator(":memory:", stop_grace_seconds=0.05, shutdown_grace_seconds=0.05) as mesh:
        tenant = (await mesh.create_tenant("A", "enterprise")).tenant_id
        built = Workflow("w").add(stubborn, retry=RetryPolicy(max_retries=0), timeout=0.05)
        handle = await mesh.submit(built, tenant=tenant)
        with pytest.raises(RunFailed, match="timeout"):
            await handle.result(10)
        (named,) = await mesh.lingering()
        assert (named.tenant_id, named.run_id, named.task_id, named.number) == (tenant, handle.id, "stubborn", 1)
        assert not named.in_thread
        await until(lambda: mesh._running.attempts.lingering() == [])
        assert await mesh.lingering() == []
        assert swallowed == 2


async def test_the_watchdog_names_the_task_that_blocks_the_event_loop_and_shows_its_stack(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def computes_for_long() -> None:
        time.sleep(0.6)  # noqa: ASYNC251 - what the watchdog is for

    with caplog.at_level(logging.WARNING, logger="synergymesh.engine"):
        async with Orchestrator(":memory:", settings=_settings(watchdog_seconds=0.1)) as mesh:
            tenant = (await mesh.create_tenant("A", "enterprise")).tenant_id
            handle = await mesh.submit(Workflow("w").add(computes_for_long), tenant=tenant)
            await handle.result(10)
            await until(lambda: "goes on" in caplog.text)
    messages = [record.getMessage() for record in caplog.records]
    (said,) = [message for message in messages if "loop is blocked" in message and handle.id in message]
    assert "task_id='computes_for_long'" in said
    assert "in computes_for_long" in said
    assert "run_forever" not in said
    assert tenant in said


async def test_the_watchdog_goes_on_when_it_cannot_find_out_what_blocks(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(frame: object) -> str:
        raise RuntimeError("the stack changed")

    with caplog.at_level(logging.WARNING), monkeypatch.context() as patch:
        patch.setattr(watchdog, "stack_of", fails)
        async with Orchestrator(":memory:", settings=_settings(watchdog_seconds=0.05)):
            for _ in range(50):
                time.sleep(0.2)  # noqa: ASYNC251 - what the watchdog is for
                await asyncio.sleep(0.05)
                if caplog.text.count("RuntimeError: the stack changed") > 1:
                    break
    assert caplog.text.count("RuntimeError: the stack changed") > 1


async def test_the_watchdog_can_be_switched_off() -> None:
    async with Orchestrator(":memory:", settings=_settings(watchdog_seconds=0)):
        assert not [t for t in threading.enumerate() if t.name == "synergymesh-watchdog" and t.is_alive()]
    async with Orchestrator(":memory:", settings=_settings(watchdog_seconds=0.02)):
        (thread,) = [t for t in threading.enumerate() if t.name == "synergymesh-watchdog"]
        assert thread.daemon
    thread.join(5)
    assert not thread.is_alive()


def _settings(**given: Any) -> Any:
    from synergymesh import read_settings

    return read_settings(**given)


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["timeout", "total_timeout", "queue_timeout", "heartbeat_timeout"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), 1e12, "1", True])
def test_a_time_limit_that_is_none_is_refused(name: str, value: Any) -> None:
    with pytest.raises(InvalidWorkflow, match=f"{name} is a number of seconds") as caught:
        task(**{name: value})(fail)
    assert caught.value.field == name
    if name in ("timeout", "queue_timeout"):
        with pytest.raises(InvalidWorkflow, match="number of seconds"):
            Workflow("w", **{name: value})
        with pytest.raises(InvalidWorkflow, match="number of seconds"):
            workflow(**{name: value})(lambda: None)


def test_the_time_limits_of_a_workflow_are_part_of_its_definition() -> None:
    plain = Workflow("w").add(quick).definition
    limited = Workflow("w", timeout=5, queue_timeout=7).add(quick).definition
    assert plain.content_hash != limited.content_hash
    read = WorkflowDefinition.from_json(limited.to_json())
    assert (read, read.timeout, read.queue_timeout) == (limited, 5.0, 7.0)
    assert b"timeout" not in plain.to_json()
