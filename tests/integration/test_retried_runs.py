"""Runs that go on from where another one failed, and runs that do the same again."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from synergymesh import (
    ExecutionStatus,
    Orchestrator,
    ResourceQuota,
    RetryPolicy,
    RunFailed,
    Workflow,
    current_task,
    given,
    optional,
    ref,
    task,
    workflow,
)
from synergymesh.errors import (
    BacklogFull,
    InvalidRequest,
    NotFound,
    RateLimitExceeded,
    RunNotRetryable,
    TenantNotActive,
)
from synergymesh.testing.reference import interpret, random_workflow

S = ExecutionStatus
Open = Callable[..., Orchestrator]
ONCE = RetryPolicy(max_retries=0)


class Broken:
    """A chain a -> b -> c whose b fails while it is broken."""

    def __init__(self) -> None:
        self.broken = True
        self.calls: list[tuple[str, str, int]] = []

        def step(name: str, *before: str) -> str:
            now = current_task()
            self.calls.append((name, now.run_id, now.attempt))
            if name == "b" and self.broken:
                raise OSError("no answer")
            return "-".join((*before, name))

        self.workflow = (
            Workflow("chain")
            .add(step, id="a", args=["a"])
            .add(step, id="b", args=["b", ref("a")], retry=ONCE)
            .add(step, id="c", args=["c", ref("b"), ref("a")])
        )

    @property
    def names(self) -> list[str]:
        return [name for name, _, _ in self.calls]


async def fail(mesh: Orchestrator, tenant: str, broken: Broken, **more: str) -> str:
    handle = await mesh.submit(broken.workflow, tenant=tenant, **more)  # type: ignore[arg-type]  # only a key
    with pytest.raises(RunFailed):
        await handle.result(10)
    broken.broken = False
    return handle.id


async def test_a_retry_uses_committed_results_again_and_runs_only_the_rest(mesh: Orchestrator, tenant: str) -> None:
    broken = Broken()
    old = await fail(mesh, tenant, broken)
    before = await mesh.get_run(old)
    handle = await mesh.retry_run(old)
    assert await handle.result(10) == "a-b-a-c"
    assert broken.names == ["a", "b", "b", "c"]
    run = await mesh.get_run(handle.id)
    assert (run.status, run.retry_of) == (S.SUCCESS, old)
    assert [(t.task_id, t.status, t.attempt, t.reused) for t in run.tasks] == [
        ("a", S.SUCCESS, 0, True),
        ("b", S.SUCCESS, 1, False),
        ("c", S.SUCCESS, 1, False),
    ]
    assert await mesh.get_run(old) == before, "a final run never changes"
    tokens = [(run_id, name, attempt) for name, run_id, attempt in broken.calls]
    assert len(set(tokens)) == len(tokens)


async def test_the_events_of_a_retry_begin_with_what_is_used_again(mesh: Orchestrator, tenant: str) -> None:
    broken = Broken()
    handle = await mesh.retry_run(await fail(mesh, tenant, broken))
    await handle.result(10)
    events = [(event.task_id, event.status) async for event in handle.events()]
    assert events[:2] == [(None, S.PENDING), (None, S.RUNNING)]
    assert events.count(("a", S.SUCCESS)) == 1
    assert ("a", S.RUNNING) not in events
    assert events[-1] == (None, S.SUCCESS)


async def test_a_retry_can_start_all_over(mesh: Orchestrator, tenant: str) -> None:
    broken = Broken()
    handle = await mesh.retry_run(await fail(mesh, tenant, broken), from_failed=False)
    assert await handle.result(10) == "a-b-a-c"
    assert broken.names == ["a", "b", "a", "b", "c"]


async def test_a_run_is_retried_once_and_then_its_retry_can_be(mesh: Orchestrator, tenant: str) -> None:
    broken = Broken()
    first = await fail(mesh, tenant, broken)
    broken.broken = True
    second = await mesh.retry_run(first)
    with pytest.raises(RunFailed):
        await second.result(10)
    with pytest.raises(RunNotRetryable, match=second.id):
        await mesh.retry_run(first)
    broken.broken = False
    third = await mesh.retry_run(second.id)
    assert await third.result(10) == "a-b-a-c"
    assert broken.names.count("a") == 1
    assert (await mesh.get_run(third.id)).retry_of == second.id


async def test_of_two_retries_at_once_one_is_accepted(mesh: Orchestrator, tenant: str) -> None:
    old = await fail(mesh, tenant, Broken())
    answers = await asyncio.gather(*(mesh.retry_run(old) for _ in range(5)), return_exceptions=True)
    accepted = [answer for answer in answers if not isinstance(answer, BaseException)]
    assert len(accepted) == 1
    assert all(isinstance(a, RunNotRetryable) for a in answers if a not in accepted)
    assert await accepted[0].result(10) == "a-b-a-c"


async def test_runs_that_are_open_or_succeeded_are_not_retried(mesh: Orchestrator, tenant: str) -> None:
    started, let_go = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        started.set()
        await let_go.wait()

    handle = await mesh.submit(Workflow("w").add(wait, id="t"), tenant=tenant)
    await started.wait()
    with pytest.raises(RunNotRetryable, match="still open"):
        await mesh.retry_run(handle.id)
    let_go.set()
    await handle.result(10)
    with pytest.raises(RunNotRetryable, match="Replay"):
        await mesh.retry_run(handle.id)


async def test_cancelled_and_skipped_tasks_run_again(mesh: Orchestrator, tenant: str) -> None:
    started, calls = asyncio.Event(), []

    async def step(name: str) -> str:
        calls.append(name)
        if name == "b" and calls.count("b") == 1:
            started.set()
            await asyncio.sleep(3_600)
        return name

    built = Workflow("w").add(step, id="a", args=["a"]).add(step, id="b", args=["b"], after=["a"])
    built.add(step, id="c", args=["c"], after=["b"])
    handle = await mesh.submit(built, tenant=tenant)
    await started.wait()
    await handle.cancel()
    again = await mesh.retry_run(handle.id)
    await again.result(10)
    assert calls == ["a", "b", "b", "c"]


async def test_a_partial_run_is_retried_for_its_optional_tasks(mesh: Orchestrator, tenant: str) -> None:
    calls: list[str] = []

    def step(name: str, before: str | None = None) -> str:
        calls.append(name)
        if name == "extra" and calls.count("extra") == 1:
            raise OSError("no answer")
        return f"{before}-{name}"

    built = Workflow("w").add(step, id="extra", args=["extra"], required=False, retry=ONCE)
    built.add(step, id="sum", args=["sum", optional(ref("extra"))]).returns([ref("extra"), ref("sum")])
    handle = await mesh.submit(built, tenant=tenant)
    assert await handle.result(10) == [None, "None-sum"]
    assert await handle.status() is S.PARTIAL
    again = await mesh.retry_run(handle.id)
    assert await again.result(10) == ["None-extra", "None-sum"], "a committed result is not computed again"
    assert calls == ["extra", "sum", "extra"]


async def test_a_run_whose_output_failed_is_retried_without_running_anything(mesh: Orchestrator, tenant: str) -> None:
    calls: list[int] = []

    def step() -> dict[str, int]:
        calls.append(1)
        return {"x": 1}

    built = Workflow("w").add(step, id="t").returns(ref("t")["y"])
    handle = await mesh.submit(built, tenant=tenant)
    with pytest.raises(RunFailed):
        await handle.result(10)
    again = await mesh.retry_run(handle.id)
    with pytest.raises(RunFailed, match="y"):
        await again.result(10)
    assert calls == [1]


async def test_the_key_stays_with_the_first_run(mesh: Orchestrator, tenant: str) -> None:
    broken = Broken()
    old = await fail(mesh, tenant, broken, idempotency_key="order-1")
    handle = await mesh.retry_run(old)
    await handle.result(10)
    assert (await mesh.get_run(handle.id)).idempotency_key is None
    assert (await mesh.submit(broken.workflow, tenant=tenant, idempotency_key="order-1")).id == old


async def test_nobody_retries_or_replays_the_run_of_another_tenant(mesh: Orchestrator, tenant: str) -> None:
    old = await fail(mesh, tenant, Broken())
    other = (await mesh.create_tenant("Other", "enterprise")).tenant_id
    for call in (mesh.retry_run, mesh.replay):
        with pytest.raises(NotFound):
            await call(old, tenant=other)
        with pytest.raises(NotFound):
            await call("run-nothing")
        with pytest.raises(NotFound):
            await call(7)  # type: ignore[arg-type]  # on purpose
    assert (await mesh.retry_run(old, tenant=tenant)).tenant_id == tenant


async def test_a_retry_is_admitted_like_a_submission_with_the_tasks_that_are_left(mesh: Orchestrator) -> None:
    quota = ResourceQuota(max_queued_tasks=3, rate_limit_per_second=1)
    tenant = (await mesh.create_tenant("Small", "enterprise", quota=quota)).tenant_id
    broken = Broken()
    old = await fail(mesh, tenant, broken)
    with pytest.raises(RateLimitExceeded):
        await mesh.retry_run(old)
    roomy = ResourceQuota(max_queued_tasks=1, rate_limit_per_second=1_000)
    await mesh.set_quota(tenant, roomy)
    with pytest.raises(BacklogFull, match="2 more"):
        await mesh.retry_run(old)
    await mesh.set_quota(tenant, ResourceQuota(max_queued_tasks=2, rate_limit_per_second=1_000))
    await mesh.suspend_tenant(tenant)
    with pytest.raises(TenantNotActive):
        await mesh.retry_run(old)
    await mesh.resume_tenant(tenant)
    assert await (await mesh.retry_run(old)).result(10) == "a-b-a-c"


async def test_a_retry_survives_a_crash_before_anything_of_it_ran(open_mesh: Open, tmp_path: Path) -> None:
    broken = Broken()
    async with open_mesh(tmp_path / "life-1.db") as mesh:
        tenant = (await mesh.create_tenant("A", "enterprise")).tenant_id
        old = await fail(mesh, tenant, broken)
        mesh._running.dispatcher.stop()
        handle = await mesh.retry_run(old)
        for name in ("life-1.db", "life-1.db-wal"):  # the log last, as no checkpoint happens meanwhile
            shutil.copyfile(tmp_path / name, tmp_path / name.replace("1", "2"))
    async with open_mesh(tmp_path / "life-2.db", workflows=[broken.workflow]) as mesh:
        assert await mesh.handle(handle.id, tenant=tenant).result(10) == "a-b-a-c"
    assert broken.names == ["a", "b", "b", "c"]
    assert broken.calls[2] == ("b", handle.id, 2), "the crash counts in the number, so no token comes twice"


async def test_a_retry_waits_for_code_that_cannot_be_found(open_mesh: Open) -> None:
    broken = Broken()
    async with open_mesh() as mesh:
        tenant = (await mesh.create_tenant("A", "enterprise")).tenant_id
        old = await fail(mesh, tenant, broken)
    async with open_mesh() as mesh:
        handle = await mesh.retry_run(old)
        assert "cannot be found" in str((await mesh.get_run(handle.id)).reason)
        await mesh.submit(broken.workflow, tenant=tenant)
        assert await handle.result(10) == "a-b-a-c"


# --- replay -----------------------------------------------------------------------------------------------------------


@task
def double(n: int) -> int:
    return 2 * n


@workflow
def doubled(n: int, m: int = 5) -> list[int]:
    return [double(n), double(m)]  # type: ignore[list-item]  # nodes


async def test_a_replay_runs_everything_again_with_the_same_input(mesh: Orchestrator, tenant: str) -> None:
    first = await mesh.submit(doubled, tenant=tenant, input={"n": 1}, priority=3)
    assert await first.result(10) == [2, 10]
    again = await mesh.replay(first.id)
    assert await again.result(10) == [2, 10]
    run = await mesh.get_run(again.id)
    assert (run.replay_of, run.retry_of, run.priority, run.input) == (first.id, None, 3, {"n": 1, "m": 5})
    assert not any(t.reused for t in run.tasks)
    assert await (await mesh.replay(first.id)).result(10) == [2, 10], "as often as wanted"


async def test_a_replay_takes_another_input_and_checks_it(mesh: Orchestrator, tenant: str) -> None:
    first = await mesh.submit(doubled, tenant=tenant, input={"n": 1})
    assert await (await mesh.replay(first.id, {"n": 4})).result(10) == [8, 10]
    for bad in ({}, {"n": "x"}, {"k": 1}, {"n": 1, "k": 1}, [1], "n"):
        with pytest.raises(InvalidRequest):
            await mesh.replay(first.id, bad)  # type: ignore[arg-type]  # on purpose
    with pytest.raises(InvalidRequest, match="Did you mean 'n'"):
        await mesh.replay(first.id, {"n ": 1})


async def test_a_replay_runs_the_version_of_the_run_and_not_that_of_today(mesh: Orchestrator, tenant: str) -> None:
    def step(n: int) -> int:
        return n + 1

    built = Workflow("w").takes("n", int).add(step, id="a", args=[given("n")]).returns(ref("a"))
    first = await mesh.submit(built, tenant=tenant, input={"n": 1})
    assert await first.result(10) == 2
    built.takes("k", int, default=0).add(step, id="b", args=[given("k")]).returns([ref("a"), ref("b")])
    newer = await mesh.submit(built, tenant=tenant, input={"n": 1})
    assert await newer.result(10) == [2, 1]
    again = await mesh.replay(first.id, {"n": 7})
    assert await again.result(10) == 8
    with pytest.raises(InvalidRequest, match="no input 'k'"):
        await mesh.replay(first.id, {"n": 7, "k": 1})


# --- random workflows -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(40))
async def test_a_retry_ends_as_a_run_would_in_which_the_failed_tasks_had_been_repaired(
    mesh: Orchestrator, tenant: str, seed: int
) -> None:
    scripted = random_workflow(seed, components_max=12)
    repaired = False
    dice = Random(seed)
    still_broken = {component_id for component_id in scripted.scripts if dice.random() < 0.2}
    calls: dict[tuple[str, str], int] = {}

    def run_script(component_id: str, *results: object) -> str:
        now = current_task()
        calls[now.run_id, component_id] = calls.get((now.run_id, component_id), 0) + 1
        works = scripted.outcomes[component_id] is S.SUCCESS or (repaired and component_id not in still_broken)
        if not works:
            raise OSError("scripted")
        return component_id

    built = Workflow("random")
    for component in scripted.definition.components:
        built.add(
            task(run_script, name="scripted") if not built.tasks else built.tasks["scripted"],
            id=component.component_id,
            args=[a if isinstance(a, str) else ref(a.component_id) for a in component.args],
            depends_on=component.dependencies,
            required=component.required,
            retry=ONCE,
        )
    handle = await mesh.submit(built, tenant=tenant)
    outcomes = {c: S.SUCCESS if o is S.SUCCESS else S.FAILED for c, o in scripted.outcomes.items()}
    with_failures = interpret(built.definition, outcomes)
    async for _ in handle.events():
        pass
    run = await mesh.get_run(handle.id)
    assert {t.task_id: t.status for t in run.tasks} == with_failures.tasks
    if run.status is S.SUCCESS:
        return
    repaired = True
    again = await mesh.retry_run(handle.id)
    async for _ in again.events():
        pass
    run = await mesh.get_run(again.id)
    after = {c: S.SUCCESS if o is S.SUCCESS or c not in still_broken else S.FAILED for c, o in outcomes.items()}
    assert {t.task_id: t.status for t in run.tasks} == interpret(built.definition, after).tasks
    reused = {c for c, status in with_failures.tasks.items() if status is S.SUCCESS}
    assert {t.task_id for t in run.tasks if t.reused} == reused
    assert {c for run_id, c in calls if run_id == again.id}.isdisjoint(reused)
    assert run.status is interpret(built.definition, after).status
