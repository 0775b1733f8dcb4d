"""Retry policies of tenants, and what tasks say of their own retries, as a user sees them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from synergymesh import (
    ExecutionStatus,
    GiveUp,
    Orchestrator,
    ResourceQuota,
    RetryLater,
    RetryPolicy,
    RunFailed,
    Workflow,
    current_task,
)
from synergymesh.domain.fault_tolerance.error_info import FULL_TRACEBACKS_MAX
from synergymesh.domain.fault_tolerance.retry import Ending
from synergymesh.domain.fault_tolerance.tries import Cause
from synergymesh.errors import FeatureNotEnabled, InvalidRequest, UnknownTenant

S = ExecutionStatus
NEVER = RetryPolicy(max_retries=0)


def at_once(retries: int, **more: Any) -> RetryPolicy:
    return RetryPolicy(max_retries=retries, initial_delay=0.0, **more)


async def attempts_of(mesh: Orchestrator, tenant: str, workflow: Workflow) -> dict[str, int]:
    """Run a workflow that fails; give how often each task was tried."""
    handle = await mesh.submit(workflow, tenant=tenant)
    with pytest.raises(RunFailed):
        await handle.result(10)
    return {task.task_id: task.attempt for task in (await mesh.get_run(handle.id)).tasks}


def fail() -> None:
    raise OSError("no")


def failing(name: str = "w") -> Workflow:
    """Give a workflow with a task that declares no policy, and one that must not be retried."""
    return Workflow(name).add(fail, id="open").add(fail, id="never", retry=NEVER)


async def test_policies_of_a_tenant_count_by_how_specific_they_are(mesh: Orchestrator, tenant: str) -> None:
    await mesh.set_retry_policy(tenant, at_once(1))
    assert await attempts_of(mesh, tenant, failing()) == {"open": 2, "never": 1}
    await mesh.set_retry_policy(tenant, at_once(2), workflow="w")
    assert await attempts_of(mesh, tenant, failing()) == {"open": 3, "never": 3}
    await mesh.set_retry_policy(tenant, at_once(4), workflow="w", component="never")
    assert await attempts_of(mesh, tenant, failing()) == {"open": 3, "never": 5}
    assert await attempts_of(mesh, tenant, failing("other")) == {"open": 2, "never": 1}
    await mesh.set_retry_policy(tenant, None, workflow="w")
    assert await attempts_of(mesh, tenant, failing()) == {"open": 2, "never": 5}
    assert len((await mesh.get_tenant(tenant)).policy.retries) == 2


async def test_a_sub_tenant_has_its_parents_policies_unless_it_has_its_own(
    mesh: Orchestrator, tenant: str, roomy: ResourceQuota
) -> None:
    child = (await mesh.create_tenant("child", "enterprise", quota=roomy, parent=tenant)).tenant_id
    await mesh.set_retry_policy(tenant, at_once(1))
    await mesh.set_retry_policy(tenant, at_once(3), workflow="w", component="never")
    assert await attempts_of(mesh, child, failing()) == {"open": 2, "never": 4}
    await mesh.set_retry_policy(child, at_once(2))
    assert await attempts_of(mesh, child, failing()) == {"open": 3, "never": 4}
    assert await attempts_of(mesh, tenant, failing()) == {"open": 2, "never": 4}


async def test_a_policy_needs_the_feature_and_sleeps_while_the_tier_does_not_have_it(
    roomy: ResourceQuota,
) -> None:
    built = Workflow("plain").add(fail, id="open")
    async with Orchestrator(":memory:", default_retry=NEVER) as mesh:
        basic = (await mesh.create_tenant("small", "basic", quota=roomy)).tenant_id
        with pytest.raises(FeatureNotEnabled, match="advanced_retry"):
            await mesh.set_retry_policy(basic, at_once(1))
        await mesh.set_tier(basic, "professional")
        await mesh.set_retry_policy(basic, at_once(1))
        assert await attempts_of(mesh, basic, built) == {"open": 2}
        await mesh.set_tier(basic, "basic")
        assert await attempts_of(mesh, basic, built) == {"open": 1}
        await mesh.set_retry_policy(basic, None)  # what is there can always be taken away


async def test_bad_policies_and_places_are_refused_before_anything_changes(mesh: Orchestrator, tenant: str) -> None:
    with pytest.raises(UnknownTenant):
        await mesh.set_retry_policy("tenant-nobody", at_once(1))
    with pytest.raises(InvalidRequest, match="RetryPolicy"):
        await mesh.set_retry_policy(tenant, 3)  # type: ignore[arg-type]  # on purpose
    with pytest.raises(InvalidRequest, match="Name the workflow"):
        await mesh.set_retry_policy(tenant, at_once(1), component="a")
    with pytest.raises(InvalidRequest):
        await mesh.set_retry_policy(tenant, at_once(1), workflow="")
    assert (await mesh.get_tenant(tenant)).policy.retries == ()


async def test_a_policy_survives_a_restart(open_mesh: Callable[..., Orchestrator], roomy: ResourceQuota) -> None:
    async with open_mesh() as mesh:
        tenant = (await mesh.create_tenant("A", "enterprise", quota=roomy)).tenant_id
        await mesh.set_retry_policy(tenant, at_once(2, retry_on=(OSError,)), workflow="w")
    async with open_mesh() as mesh:
        assert await attempts_of(mesh, tenant, failing()) == {"open": 3, "never": 3}


async def test_changes_of_a_tenant_at_the_same_time_all_count(mesh: Orchestrator, tenant: str) -> None:
    await asyncio.gather(
        mesh.set_weight(tenant, 7),
        mesh.throttle_tenant(tenant, 50),
        *(mesh.set_retry_policy(tenant, at_once(1), workflow=f"w{n}") for n in range(5)),
    )
    policy = (await mesh.get_tenant(tenant)).policy
    assert (policy.weight, policy.throttle_percent, len(policy.retries)) == (7, 50, 5)


# --- what tasks say themselves --------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_thread", [False, True])
async def test_a_task_that_asks_for_a_later_attempt_loses_no_retry(
    mesh: Orchestrator, tenant: str, in_thread: bool
) -> None:
    def poll() -> str:
        number = current_task().attempt
        if number <= 5:
            raise RetryLater(0.0, "not ready")
        if number == 6:
            raise OSError("a failure")
        return "ready"

    async def poll_on_loop() -> str:
        return poll()

    work = poll if in_thread else poll_on_loop
    handle = await mesh.submit(Workflow("w").add(work, id="poll", retry=at_once(1)), tenant=tenant)
    assert await handle.result(10) == "ready"
    (task,) = (await mesh.get_run(handle.id)).tasks
    assert [attempt.cause for attempt in task.failures] == [Cause.POSTPONED] * 5 + [Cause.FAILURE]
    assert (task.attempt, task.failed_attempts, task.interruptions) == (7, 1, 0)
    assert str(task.failures[0].error) == "synergymesh.errors.RetryLater: not ready"


class Busy(RetryLater):
    def __init__(self, response: str) -> None:
        self.response = response  # and super().__init__() is forgotten


@pytest.mark.parametrize("in_thread", [False, True])
async def test_an_exception_that_misbehaves_fails_its_task_and_gives_its_slot_back(
    mesh: Orchestrator, in_thread: bool
) -> None:
    def poll() -> None:
        raise Busy("429")

    async def poll_on_loop() -> None:
        poll()

    one = ResourceQuota(max_concurrent_tasks=1, max_tasks_per_hour=1_000, rate_limit_per_second=1_000)
    tenant = (await mesh.create_tenant("One", "enterprise", quota=one)).tenant_id
    work = poll if in_thread else poll_on_loop
    handle = await mesh.submit(Workflow("w").add(work, id="poll", retry=at_once(1)), tenant=tenant)
    behind = await mesh.submit(Workflow("v").add(asyncio.sleep, id="a", args=[0]), tenant=tenant)
    with pytest.raises(RunFailed, match="it counts as a failure: its delay is missing"):
        await handle.result(10)
    await behind.result(10)
    (task,) = (await mesh.get_run(handle.id)).tasks
    assert (task.attempt, task.failed_attempts) == (2, 1)
    assert "poll" in (task.error.traceback if task.error else "")


async def test_a_task_that_gives_up_fails_at_once_and_says_what_was_behind_it(mesh: Orchestrator, tenant: str) -> None:
    async def work() -> None:
        try:
            raise KeyError("order 7")
        except KeyError as error:
            raise GiveUp("there is no such order") from error

    handle = await mesh.submit(Workflow("w").add(work, retry=at_once(5)), tenant=tenant)
    with pytest.raises(RunFailed, match="no such order"):
        await handle.result(10)
    (task,) = (await mesh.get_run(handle.id)).tasks
    assert (task.attempt, task.failures) == (1, ())
    assert task.error is not None
    assert task.error.ending == Ending.GAVE_UP
    assert "KeyError: 'order 7'" in task.error.traceback


async def test_no_retry_starts_when_the_time_for_retries_is_over(mesh: Orchestrator, tenant: str) -> None:
    policy = RetryPolicy(max_retries=100, initial_delay=3_600, max_delay=3_600, max_elapsed=3_000)
    handle = await mesh.submit(Workflow("w").add(fail, retry=policy), tenant=tenant)
    with pytest.raises(RunFailed):
        await handle.result(10)
    (task,) = (await mesh.get_run(handle.id)).tasks
    assert task.error is not None
    assert (task.attempt, task.error.ending) == (1, Ending.MAX_ELAPSED)


async def test_counts_of_earlier_attempts_survive_a_restart(
    open_mesh: Callable[..., Orchestrator], roomy: ResourceQuota
) -> None:
    reached = asyncio.Event()

    async def work() -> str:
        number = current_task().attempt
        if number == 1:
            raise OSError("counts")
        if number == 2:
            raise RetryLater(0.0)
        if number == 3:
            reached.set()
            await asyncio.sleep(3_600)  # until the shutdown
        if number == 4:
            raise OSError("counts too")
        return "done"

    built = Workflow("w").add(work, retry=at_once(2))
    async with open_mesh(workflows=[built]) as mesh:
        tenant = (await mesh.create_tenant("A", "enterprise", quota=roomy)).tenant_id
        handle = await mesh.submit(built, tenant=tenant)
        await reached.wait()
    async with open_mesh(workflows=[built]) as mesh:
        handle = mesh.handle(handle.id, tenant=tenant)
        assert await handle.result(10) == "done"
        (task,) = (await mesh.get_run(handle.id)).tasks
    assert [attempt.cause for attempt in task.failures] == [
        Cause.FAILURE,
        Cause.POSTPONED,
        Cause.SHUTDOWN,
        Cause.FAILURE,
    ]
    assert (task.attempt, task.failed_attempts, task.interruptions) == (5, 2, 1)


async def test_later_attempts_of_a_long_history_are_kept_with_the_end_of_their_traceback(
    mesh: Orchestrator, tenant: str
) -> None:
    def deep(levels: int) -> None:
        if levels:
            [deep(levels - 1) for _ in range(1)]
        else:
            raise OSError("x" * 1_500)

    def work() -> None:
        deep(40)

    handle = await mesh.submit(Workflow("w").add(work, retry=at_once(FULL_TRACEBACKS_MAX + 1)), tenant=tenant)
    with pytest.raises(RunFailed):
        await handle.result(10)
    (task,) = (await mesh.get_run(handle.id)).tasks
    lengths = [len(attempt.error.traceback) for attempt in task.failures if attempt.error is not None]
    assert len(lengths) == FULL_TRACEBACKS_MAX + 1
    assert min(lengths[:-1]) > 4_000 > 2_100 > lengths[-1]
    assert task.error is not None
    assert len(task.error.traceback) == lengths[0]
