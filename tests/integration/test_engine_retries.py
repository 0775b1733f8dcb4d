"""Order, data, retries and timeouts as a user sees them."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import timedelta

import pytest

from synergymesh import (
    ExecutionStatus,
    Orchestrator,
    ResourceQuota,
    RetryPolicy,
    RunFailed,
    Workflow,
    current_task,
    optional,
    ref,
    task,
    workflow,
)

S = ExecutionStatus
AT_ONCE = RetryPolicy(max_retries=3, initial_delay=0.0)


@task
async def fetch(order_id: int) -> dict[str, int]:
    return {"id": order_id, "price": order_id * 2}


@task
def price(order: dict[str, int], factor: float = 1.0) -> float:
    return order["price"] * factor


@task
async def collect(items: list[float], extra: dict[str, float]) -> float:
    return sum(items) + extra["more"]


@workflow
def checkout(order_id: int) -> object:
    order = fetch(order_id)
    return {"sum": collect([price(order), price(order, factor=0.5), 1.0], {"more": order["price"]}), "constant": [1]}


async def test_results_flow_along_the_edges_also_inside_lists_and_objects(mesh: Orchestrator, tenant: str) -> None:
    handle = await mesh.submit(checkout, tenant=tenant, input={"order_id": 21})
    assert await handle.result(10) == {"sum": 42 + 21 + 1 + 42, "constant": [1]}
    run = await mesh.get_run(handle.id)
    assert [each.status for each in run.tasks] == [S.SUCCESS] * 4
    assert run.input == {"order_id": 21}


async def test_no_task_starts_before_what_it_comes_after_has_ended(mesh: Orchestrator, tenant: str) -> None:
    order: list[str] = []

    def step(name: str) -> None:
        order.append(name)

    built = Workflow("ordered")
    for name, before in {"d": ["b", "c"], "b": ["a"], "c": ["a"], "a": []}.items():
        built.add(step, id=name, args=[name], depends_on=before)
    await (await mesh.submit(built, tenant=tenant)).result(10)
    assert order[0] == "a"
    assert order[-1] == "d"
    assert sorted(order) == ["a", "b", "c", "d"]


async def test_what_a_task_does_to_its_arguments_is_not_seen_by_another_one(mesh: Orchestrator, tenant: str) -> None:
    async def make() -> list[int]:
        return [1]

    async def spoil(items: list[int]) -> list[int]:
        items.append(2)
        return items

    built = Workflow("copies").add(make, id="a").add(spoil, id="b", args=[ref("a")])
    built.add(spoil, id="c", args=[ref("a")], depends_on=["b"]).returns([ref("a"), ref("b"), ref("c")])
    assert await (await mesh.submit(built, tenant=tenant)).result(10) == [[1], [1, 2], [1, 2]]


async def test_a_task_that_fails_is_tried_again_with_the_next_number_and_the_same_token(
    mesh: Orchestrator, tenant: str
) -> None:
    seen: list[tuple[int, str]] = []

    async def flaky() -> str:
        context = current_task()
        seen.append((context.attempt, context.idempotency_token))
        if context.attempt < 3:
            raise ConnectionError(f"attempt {context.attempt}")
        return "done"

    handle = await mesh.submit(Workflow("flaky").add(flaky, retry=AT_ONCE), tenant=tenant)
    assert await handle.result(10) == "done"
    assert [number for number, _ in seen] == [1, 2, 3]
    assert {token for _, token in seen} == {f"{handle.id}/flaky"}
    (each,) = (await mesh.get_run(handle.id)).tasks
    assert each.attempt == 3
    assert [(a.number, a.status, str(a.error)) for a in each.failures] == [
        (1, S.FAILED, "ConnectionError: attempt 1"),
        (2, S.FAILED, "ConnectionError: attempt 2"),
    ]


async def test_retries_wait_as_long_as_the_policy_says(mesh: Orchestrator, tenant: str) -> None:
    async def hopeless() -> None:
        raise OSError("no")

    policy = RetryPolicy(max_retries=3, initial_delay=0.02, exponential_base=2.0, max_delay=0.05)
    handle = await mesh.submit(Workflow("w").add(hopeless, retry=policy), tenant=tenant)
    with pytest.raises(RunFailed):
        await handle.result(10)
    (each,) = (await mesh.get_run(handle.id)).tasks
    assert each.started_at is not None
    starts = [*(a.started_at for a in each.failures), each.started_at]
    ends = [a.ended_at for a in each.failures]
    waits = [start - end for start, end in zip(starts[1:], ends, strict=True)]
    for wait, least in zip(waits, (0.02, 0.04, 0.05), strict=True):
        assert wait >= timedelta(seconds=least) - timedelta(milliseconds=1)


async def test_a_retry_that_waits_holds_no_slot(mesh: Orchestrator) -> None:
    narrow = await mesh.create_tenant("narrow", "enterprise", quota=ResourceQuota(max_concurrent_tasks=1))

    async def hopeless() -> None:
        raise OSError("no")

    async def quick() -> str:
        return "quick"

    policy = RetryPolicy(max_retries=1, initial_delay=3_600, max_delay=3_600)
    waiting = await mesh.submit(Workflow("w").add(hopeless, retry=policy), tenant=narrow.tenant_id)
    async for event in waiting.events():
        if event.status is S.RETRYING:
            break
    other = await mesh.submit(Workflow("q").add(quick), tenant=narrow.tenant_id)
    assert await other.result(10) == "quick"
    (each,) = (await mesh.get_run(waiting.id)).tasks
    assert (each.status, each.attempt) == (S.RETRYING, 1)


async def test_errors_that_are_given_up_on_are_not_tried_again(mesh: Orchestrator, tenant: str) -> None:
    attempts: list[str] = []

    def fail(name: str) -> None:
        attempts.append(name)
        raise {"key": KeyError("k"), "os": OSError("o"), "value": ValueError("v")}[name]

    policy = RetryPolicy(max_retries=2, initial_delay=0.0, retry_on=(LookupError, OSError), give_up_on=("KeyError",))
    built = Workflow("w")
    for name in ("key", "os", "value"):
        built.add(fail, id=name, args=[name], retry=policy)
    with pytest.raises(RunFailed) as caught:
        await (await mesh.submit(built, tenant=tenant)).result(10)
    assert {name: attempts.count(name) for name in ("key", "os", "value")} == {"key": 1, "os": 3, "value": 1}
    assert caught.value.errors == {"key": "KeyError: 'k'", "os": "OSError: o", "value": "ValueError: v"}


async def test_the_orchestrators_policy_is_for_tasks_that_have_none() -> None:
    attempts: list[str] = []

    async def fail(name: str) -> None:
        attempts.append(name)
        raise OSError(name)

    built = Workflow("w").add(fail, id="a", args=["a"])
    built.add(fail, id="b", args=["b"], retry=RetryPolicy(max_retries=0))
    async with Orchestrator(":memory:", default_retry=RetryPolicy(max_retries=1, initial_delay=0.0)) as mesh:
        tenant = await mesh.create_tenant("A", "enterprise")
        with pytest.raises(RunFailed):
            await (await mesh.submit(built, tenant=tenant.tenant_id)).result(10)
    assert sorted(attempts) == ["a", "a", "b"]


async def test_a_failed_run_lists_the_error_of_every_failed_task_and_skips_the_rest(
    mesh: Orchestrator, tenant: str
) -> None:
    async def fail(name: str) -> None:
        raise ValueError(name)

    async def fine() -> int:
        return 1

    no = RetryPolicy(max_retries=0)
    built = Workflow("w").add(fine, id="fine").add(fail, id="x", args=["first"], retry=no)
    built.add(fail, id="y", args=["second"], retry=no, depends_on=["fine"])
    built.add(fine, id="after-x", depends_on=["x"]).add(fine, id="after-that", depends_on=["after-x"])
    handle = await mesh.submit(built, tenant=tenant)
    with pytest.raises(RunFailed, match="first") as caught:
        await handle.result(10)
    assert caught.value.errors == {"x": "ValueError: first", "y": "ValueError: second"}
    assert caught.value.run_id == handle.id
    run = await mesh.get_run(handle.id)
    assert {each.task_id: each.status.value for each in run.tasks} == {
        "fine": "success",
        "x": "failed",
        "y": "failed",
        "after-x": "skipped",
        "after-that": "skipped",
    }
    assert run.status is S.FAILED
    assert run.error is not None
    assert "first" in run.error
    assert run.result is None


async def test_a_dependent_that_can_do_without_gets_none_and_the_run_is_partial(
    mesh: Orchestrator, tenant: str
) -> None:
    async def fail() -> dict[str, int]:
        raise ValueError("no")

    async def use(whole: object, part: object) -> list[object]:
        return [whole, part]

    no = RetryPolicy(max_retries=0)
    built = Workflow("w").add(fail, id="extra", retry=no)
    built.add(use, id="use", args=[optional(ref("extra")), optional(ref("extra")["key"])])
    handle = await mesh.submit(built, tenant=tenant)
    assert await handle.result(10) == [None, None]
    assert await handle.status() is S.PARTIAL

    leaf = Workflow("w2").add(fail, id="extra", retry=no, required=False).returns({"extra": ref("extra")})
    handle = await mesh.submit(leaf, tenant=tenant)
    assert await handle.result(10) == {"extra": None}
    assert await handle.status() is S.PARTIAL
    assert "extra" in (await mesh.get_run(handle.id)).errors


# --- timeouts -------------------------------------------------------------------------------------------------------


async def test_an_async_task_that_takes_too_long_is_interrupted_and_tried_again(
    mesh: Orchestrator, tenant: str
) -> None:
    interrupted: list[int] = []

    async def slow() -> str:
        number = current_task().attempt
        if number == 2:
            return "in time"
        try:
            await asyncio.sleep(3_600)
        except asyncio.CancelledError:
            interrupted.append(number)
            raise
        return "never"

    handle = await mesh.submit(Workflow("w").add(slow, retry=AT_ONCE, timeout=0.05), tenant=tenant)
    assert await handle.result(10) == "in time"
    assert interrupted == [1]
    (each,) = (await mesh.get_run(handle.id)).tasks
    assert [a.status for a in each.failures] == [S.TIMEOUT]
    assert "0.05 s" in str(each.failures[0].error)


async def test_a_task_that_always_takes_too_long_ends_as_timeout(mesh: Orchestrator, tenant: str) -> None:
    async def slow() -> None:
        await asyncio.sleep(3_600)

    built = Workflow("w").add(slow, retry=RetryPolicy(max_retries=1, initial_delay=0.0), timeout=0.02)
    handle = await mesh.submit(built, tenant=tenant)
    with pytest.raises(RunFailed, match=r"timeout of 0\.02 s"):
        await handle.result(10)
    run = await mesh.get_run(handle.id)
    assert (run.status, run.tasks[0].status, run.tasks[0].attempt) == (S.FAILED, S.TIMEOUT, 2)


async def test_a_function_in_a_thread_that_takes_too_long_is_told_and_its_slot_stays_taken_until_it_ends(
    mesh: Orchestrator,
) -> None:
    narrow = (await mesh.create_tenant("narrow", "enterprise", quota=ResourceQuota(max_concurrent_tasks=1))).tenant_id
    let_go = threading.Event()
    told: list[bool] = []

    def stubborn() -> str:
        let_go.wait(20)
        told.append(current_task().cancelled)
        return "too late"

    async def next_one() -> str:
        return "next"

    built = Workflow("w").add(stubborn, retry=RetryPolicy(max_retries=0), timeout=0.03)
    with pytest.raises(RunFailed, match="timeout"):
        await (await mesh.submit(built, tenant=narrow)).result(10)
    waiting = await mesh.submit(Workflow("n").add(next_one), tenant=narrow)
    with pytest.raises(TimeoutError):
        await waiting.result(0.05)
    let_go.set()
    assert await waiting.result(10) == "next"
    assert told == [True]


async def test_a_late_result_of_a_task_that_swallows_its_interruption_does_not_count(
    mesh: Orchestrator, tenant: str
) -> None:
    async def swallows() -> str:
        try:
            await asyncio.sleep(3_600)
        except asyncio.CancelledError:
            return "too late"
        return "never"

    built = Workflow("w").add(swallows, retry=RetryPolicy(max_retries=0), timeout=0.02)
    handle = await mesh.submit(built, tenant=tenant)
    with pytest.raises(RunFailed, match="timeout"):
        await handle.result(10)
    assert (await mesh.get_run(handle.id)).tasks[0].status is S.TIMEOUT


# --- what user code may do ------------------------------------------------------------------------------------------


class Outrageous(BaseException):
    """No Exception: what pytest.fail, and some frameworks' control flow, raise."""


@pytest.mark.parametrize("error", [SystemExit(3), asyncio.CancelledError(), Outrageous("no"), GeneratorExit()])
@pytest.mark.parametrize("in_thread", [False, True])
async def test_whatever_a_task_raises_fails_that_task_and_nothing_else(
    mesh: Orchestrator, tenant: str, error: BaseException, in_thread: bool
) -> None:
    def raise_in_thread() -> None:
        raise error

    async def raise_on_loop() -> None:
        raise error

    async def fine() -> int:
        return 1

    built = Workflow("w").add(
        raise_in_thread if in_thread else raise_on_loop, id="bad", retry=RetryPolicy(max_retries=0)
    )
    with pytest.raises(RunFailed) as caught:
        await (await mesh.submit(built, tenant=tenant)).result(5)
    assert type(error).__qualname__ in caught.value.errors["bad"]
    assert await (await mesh.submit(Workflow("f").add(fine), tenant=tenant)).result(5) == 1


async def test_an_output_that_names_a_part_that_is_not_there_fails_the_run_and_says_so(
    mesh: Orchestrator, tenant: str
) -> None:
    built = Workflow("w").add(fetch, id="a", args=[1]).returns(ref("a")["missing"])
    handle = await mesh.submit(built, tenant=tenant)
    with pytest.raises(RunFailed, match="missing"):
        await handle.result(5)
    run = await mesh.get_run(handle.id)
    assert (run.status, run.tasks[0].status) == (S.FAILED, S.SUCCESS)


async def test_an_argument_that_names_a_part_that_is_not_there_fails_the_task(mesh: Orchestrator, tenant: str) -> None:
    built = Workflow("w").add(fetch, id="a", args=[1])
    built.add(price, id="b", args=[ref("a")["missing"]], retry=RetryPolicy(max_retries=0))
    with pytest.raises(RunFailed, match="missing") as caught:
        await (await mesh.submit(built, tenant=tenant)).result(5)
    assert set(caught.value.errors) == {"b"}


async def test_blocking_functions_run_beside_each_other_and_beside_the_event_loop(
    mesh: Orchestrator, tenant: str
) -> None:
    together = threading.Barrier(4, timeout=10)

    def meet() -> int:
        return together.wait()

    built = Workflow("w")
    for number in range(4):
        built.add(meet, id=f"m{number}")
    built.returns([ref(f"m{number}") for number in range(4)])
    started = time.perf_counter()
    assert sorted(await (await mesh.submit(built, tenant=tenant)).result(10)) == [0, 1, 2, 3]
    assert time.perf_counter() - started < 5
