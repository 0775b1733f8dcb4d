"""What a run shows of itself: events, results, progress, the context of its tasks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from synergymesh import (
    ExecutionStatus,
    Orchestrator,
    RetryPolicy,
    RunEvent,
    RunFailed,
    Workflow,
    current_task,
    ref,
    task,
    workflow,
)
from synergymesh.engine.observability.events import history
from synergymesh.errors import InvalidRequest, NotRunning, UnknownRun
from synergymesh.ports.records import AttemptRecord, RunRecord, TaskRecord

S = ExecutionStatus


def told(events: list[RunEvent]) -> list[tuple[str | None, str, int]]:
    return [(event.task_id, event.status.value, event.attempt) for event in events]


def soon() -> datetime:
    """Give a moment that is far enough for somebody to follow the run before it starts."""
    return datetime.now(UTC) + timedelta(seconds=0.3)


async def flaky(name: str) -> str:
    if current_task().attempt == 1:
        raise OSError(f"{name} once")
    return name


async def fail() -> None:
    raise ValueError("for good")


def eventful() -> Workflow:
    no = RetryPolicy(max_retries=0)
    built = Workflow("eventful").add(flaky, id="a", args=["a"], retry=RetryPolicy(initial_delay=0.0))
    built.add(flaky, id="b", args=["b"], depends_on=["a"], retry=RetryPolicy(initial_delay=0.0))
    return built.add(fail, id="c", depends_on=["a"], retry=no).add(flaky, id="d", args=["d"], depends_on=["c"])


EXPECTED_ENDS = {
    (None, "failed", 0),
    ("a", "retrying", 1),
    ("a", "success", 2),
    ("b", "retrying", 1),
    ("b", "success", 2),
    ("c", "failed", 1),
    ("d", "skipped", 0),
}
EXPECTED = EXPECTED_ENDS | {
    (None, "pending", 0),
    (None, "running", 0),
    ("a", "running", 1),
    ("a", "running", 2),
    ("b", "running", 1),
    ("b", "running", 2),
    ("c", "running", 1),
}


def check_order(events: list[RunEvent]) -> None:
    shown = told(events)
    assert len(set(shown)) == len(shown), "nothing comes twice"
    assert shown[0] == (None, "pending", 0)
    assert shown[-1][0] is None
    assert events[-1].status.is_final
    for task_id, before in (("b", "a"), ("c", "a"), ("d", "c")):
        ended = next(n for n, e in enumerate(events) if e.task_id == before and e.status.is_final)
        assert all(n > ended for n, e in enumerate(events) if e.task_id == task_id and e.status is S.RUNNING)
    for task_id in "abcd":
        own = [e for e in events if e.task_id == task_id]
        assert own[-1].status.is_final
        assert [e.at for e in own] == sorted(e.at for e in own)
        numbers = [e.attempt for e in own]
        assert numbers == sorted(numbers)


async def test_events_of_a_run_that_is_followed_from_the_start_are_complete_and_in_order(
    mesh: Orchestrator, tenant: str
) -> None:
    handle = await mesh.submit(eventful(), tenant=tenant, not_before=soon())
    events = [event async for event in handle.events()]
    assert set(told(events)) == EXPECTED
    check_order(events)
    errors = {(e.task_id, e.status.value): e.error for e in events if e.error}
    assert errors == {
        ("a", "retrying"): "OSError: a once",
        ("b", "retrying"): "OSError: b once",
        ("c", "failed"): "ValueError: for good",
    }


async def test_events_of_a_final_run_tell_the_same_again(mesh: Orchestrator, tenant: str) -> None:
    handle = await mesh.submit(eventful(), tenant=tenant, not_before=soon())
    live = [event async for event in handle.events()]
    afterwards = [event async for event in handle.events()]
    assert set(told(afterwards)) == set(told(live))
    check_order(afterwards)
    by_key = {(e.task_id, e.status, e.attempt): e for e in live}
    for event in afterwards:
        assert by_key[(event.task_id, event.status, event.attempt)] == event


async def test_whoever_follows_whenever_sees_every_end_exactly_once(mesh: Orchestrator, tenant: str) -> None:
    handle = await mesh.submit(eventful(), tenant=tenant)

    async def follow(turns: int) -> list[RunEvent]:
        for _ in range(turns):
            await asyncio.sleep(0)
        return [event async for event in handle.events()]

    for events in await asyncio.gather(*(follow(turns) for turns in range(0, 60, 3))):
        shown = told(events)
        assert len(set(shown)) == len(shown)
        assert set(shown) >= EXPECTED_ENDS | {(None, "pending", 0)}
        assert set(shown) <= EXPECTED
        check_order(events)


async def test_whoever_stops_following_is_forgotten(mesh: Orchestrator, tenant: str) -> None:
    let_go = asyncio.Event()

    async def wait() -> None:
        await let_go.wait()

    handle = await mesh.submit(Workflow("w").add(wait), tenant=tenant)
    events = handle.events()
    await anext(events)
    assert isinstance(events, AsyncGenerator)
    await events.aclose()
    live = mesh._running.runs.get(handle.id)
    assert live is not None
    assert not live.watchers
    let_go.set()
    await handle.result(10)


async def test_followers_and_waiters_of_a_run_that_is_still_open_at_the_end_are_released(
    open_mesh: Callable[..., Orchestrator],
) -> None:
    running = asyncio.Event()

    async def long() -> None:
        running.set()
        await asyncio.sleep(3_600)

    async with open_mesh() as mesh:
        tenant = (await mesh.create_tenant("A", "enterprise")).tenant_id
        handle = await mesh.submit(Workflow("w").add(long), tenant=tenant)
        waiting = asyncio.create_task(handle.result())

        events: list[RunEvent] = []

        async def follow() -> None:
            async for event in handle.events():
                events.append(event)

        following = asyncio.create_task(follow())
        await running.wait()
    async with asyncio.timeout(5):
        with pytest.raises(NotRunning, match=handle.id):
            await waiting
        with pytest.raises(NotRunning, match=handle.id):
            await following
    assert told(events)[-1] == ("long", "pending", 1), "interrupted, and pending again"


def test_history_names_no_attempt_twice_while_a_task_waits_for_its_next_one() -> None:
    run = RunRecord(
        "run-1", "tenant-1", "w", "h", S.RUNNING, 0, b"{}", None, None, None, 0, 1, 2, None, None, 1
    )  # fmt: skip
    waiting = TaskRecord("run-1", "a", "tenant-1", S.RETRYING, 2, 10, None, None, None, 0)
    attempt = AttemptRecord("run-1", "a", 2, "tenant-1", S.FAILED, 10, 20, 99, None)
    shown = told(history(run, [waiting], [attempt]))
    assert shown == [(None, "pending", 0), (None, "running", 0), ("a", "running", 2), ("a", "retrying", 2)]


async def test_events_of_an_unknown_run_are_not_found(mesh: Orchestrator, tenant: str) -> None:
    with pytest.raises(UnknownRun):
        await anext(mesh.handle("run-no", tenant=tenant).events())


# --- results --------------------------------------------------------------------------------------------------------


async def test_waiting_for_a_result_ends_at_the_timeout_and_the_run_goes_on(mesh: Orchestrator, tenant: str) -> None:
    let_go = asyncio.Event()

    async def wait() -> str:
        await let_go.wait()
        return "done"

    handle = await mesh.submit(Workflow("w").add(wait), tenant=tenant)
    for _ in range(2):
        with pytest.raises(TimeoutError):
            await handle.result(0.01)
    assert await handle.status() is S.RUNNING
    let_go.set()
    assert await handle.result(10) == "done"
    assert await handle.result(timeout=0.5) == "done"


async def test_many_may_wait_for_the_same_run(mesh: Orchestrator, tenant: str) -> None:
    let_go = asyncio.Event()

    async def wait() -> list[int]:
        await let_go.wait()
        return [1]

    handle = await mesh.submit(Workflow("w").add(wait), tenant=tenant)
    waiting = [asyncio.create_task(handle.result()) for _ in range(10)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    let_go.set()
    results = await asyncio.gather(*waiting[1:])
    assert results == [[1]] * 9
    results[0].append(2)
    assert results[1] == [1], "each has a copy of its own"


async def test_a_workflow_without_an_output_gives_none(mesh: Orchestrator, tenant: str) -> None:
    async def work() -> int:
        return 1

    built = Workflow("w").add(work, id="a").add(work, id="b").returns(None)
    assert await (await mesh.submit(built, tenant=tenant)).result(10) is None


async def test_the_states_that_are_seen_never_go_back(mesh: Orchestrator, tenant: str) -> None:
    order = [S.PENDING, S.RUNNING, S.SUCCESS]
    for _ in range(20):
        handle = await mesh.submit(
            Workflow("w").add(flaky, args=["x"], retry=RetryPolicy(initial_delay=0.0)), tenant=tenant
        )
        seen = [S.PENDING]
        while not seen[-1].is_final:
            seen.append(await handle.status())
        ranks = [order.index(status) for status in seen]
        assert ranks == sorted(ranks), seen


# --- the context of a task ------------------------------------------------------------------------------------------


@task
def report(note: str) -> dict[str, Any]:
    context = current_task()
    return {
        "note": note,
        "run": context.run_id,
        "task": context.task_id,
        "tenant": context.tenant_id,
        "attempt": context.attempt,
        "token": context.idempotency_token,
        "cancelled": context.cancelled,
        "thread": threading.current_thread() is not threading.main_thread(),
    }


@task
async def report_on_loop(note: str) -> dict[str, Any]:
    context = current_task()
    context.logger.debug("said by the task")
    await asyncio.sleep(0)
    assert current_task() is context
    return report.function(note)


@workflow
def reports(note: str) -> object:
    return [report(note), report_on_loop(note)]


async def test_a_task_knows_who_it_is(mesh: Orchestrator, tenant: str) -> None:
    handle = await mesh.submit(reports, tenant=tenant, input={"note": "n"})
    in_thread, on_loop = await handle.result(10)
    for shown, component, thread in ((in_thread, "report", True), (on_loop, "report_on_loop", False)):
        assert shown == {
            "note": "n",
            "run": handle.id,
            "task": component,
            "tenant": tenant,
            "attempt": 1,
            "token": f"{handle.id}/{component}",
            "cancelled": False,
            "thread": thread,
        }


def test_there_is_no_current_task_outside_of_one() -> None:
    with pytest.raises(NotRunning, match=r"current_task\(\)"):
        current_task()


async def test_tasks_beside_each_other_do_not_see_each_others_context(mesh: Orchestrator, tenant: str) -> None:
    async def who() -> list[str]:
        seen = []
        for _ in range(5):
            seen.append(current_task().task_id)
            await asyncio.sleep(0)
        return seen

    built = Workflow("w")
    for number in range(5):
        built.add(who, id=f"t{number}")
    built.returns([ref(f"t{number}") for number in range(5)])
    assert await (await mesh.submit(built, tenant=tenant)).result(10) == [[f"t{n}"] * 5 for n in range(5)]


@pytest.mark.parametrize("in_thread", [False, True])
async def test_progress_is_seen_while_the_task_runs(mesh: Orchestrator, tenant: str, in_thread: bool) -> None:
    said, let_go = threading.Event(), threading.Event()

    def work() -> str:
        current_task().heartbeat(0.25)
        current_task().heartbeat()
        said.set()
        let_go.wait(10)
        return "done"

    async def work_on_loop() -> str:
        current_task().heartbeat(0.25)
        said.set()
        await asyncio.to_thread(let_go.wait, 10)
        return "done"

    handle = await mesh.submit(Workflow("w").add(work if in_thread else work_on_loop, id="t"), tenant=tenant)
    await asyncio.to_thread(said.wait, 10)
    run = await mesh.get_run(handle.id)
    assert (run.status, run.tasks[0].status, run.tasks[0].attempt) == (S.RUNNING, S.RUNNING, 1)
    assert run.tasks[0].progress == 0.25
    let_go.set()
    await handle.result(10)
    assert (await mesh.get_run(handle.id)).tasks[0].progress is None


@pytest.mark.parametrize("progress", [-0.1, 1.1, float("nan"), float("inf")])
async def test_progress_outside_its_range_fails_the_task_and_is_not_retried(
    mesh: Orchestrator, tenant: str, progress: float
) -> None:
    attempts: list[int] = []

    async def work() -> None:
        attempts.append(1)
        current_task().heartbeat(progress)

    handle = await mesh.submit(Workflow("w").add(work, id="t"), tenant=tenant)
    with pytest.raises(RunFailed, match="progress"):
        await handle.result(10)
    assert attempts == [1]
    assert InvalidRequest.__name__ in str((await mesh.get_run(handle.id)).errors["t"])


async def test_a_run_shows_when_everything_happened(mesh: Orchestrator, tenant: str) -> None:
    handle = await mesh.submit(reports, tenant=tenant, input={"note": "n"}, priority=3)
    await handle.result(10)
    run = await mesh.get_run(handle.id)
    assert run.started_at is not None
    assert run.ended_at is not None
    assert run.created_at.utcoffset() is not None
    assert run.created_at <= run.started_at <= run.ended_at
    assert (run.workflow, run.priority, run.recoveries, run.reason, run.error) == ("reports", 3, 0, None, None)
    for each in run.tasks:
        assert each.started_at is not None
        assert each.ended_at is not None
        assert run.started_at <= each.started_at <= each.ended_at <= run.ended_at
