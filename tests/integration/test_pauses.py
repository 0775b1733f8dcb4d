"""Pauses: nothing new starts until it is resumed, whatever happens meanwhile; what runs goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from tests.integration.settling import settled

from synergymesh import ExecutionStatus, Orchestrator, ResourceQuota, RetryPolicy, RunCancelled, RunFailed, Workflow
from synergymesh.domain.scheduling.explain import Reason
from synergymesh.errors import InvalidRequest, NotFound
from synergymesh.testing.shifted_clock import ShiftedClock

S = ExecutionStatus
Open = Callable[..., Orchestrator]


class Steps:
    """A chain a -> b whose a waits until it may end."""

    def __init__(self, name: str = "chain") -> None:
        self.began, self.let_go = asyncio.Event(), asyncio.Event()
        self.seen: list[str] = []

        async def step(name: str) -> str:
            self.seen.append(name)
            if name == "a":
                self.began.set()
                await self.let_go.wait()
            return name

        self.workflow = Workflow(name).add(step, id="a", args=["a"]).add(step, id="b", args=["b"], after=["a"])


async def test_what_runs_of_a_paused_run_goes_on_and_nothing_more_starts(mesh: Orchestrator, tenant: str) -> None:
    steps = Steps()
    handle = await mesh.submit(steps.workflow, tenant=tenant)
    await steps.began.wait()
    assert await mesh.pause_run(handle.id)
    assert await mesh.pause_run(handle.id), "twice does no harm"
    steps.let_go.set()
    await settled(mesh)
    assert steps.seen == ["a"]
    run = await mesh.get_run(handle.id)
    assert (run.status, run.reason) == (S.RUNNING, "it is paused")
    assert run.paused_at is not None
    assert [t.status for t in run.tasks] == [S.SUCCESS, S.PENDING]
    (waiting,) = (await mesh.explain(handle.id)).waiting
    assert [(b.reason, b.level) for b in waiting.blockers] == [(Reason.PAUSED, handle.id)]
    (view,) = await mesh.queue()
    assert (view.running, view.waiting) == (0, 0), "it holds no slot and is in no queue"
    assert await mesh.resume_run(handle.id)
    assert not await mesh.resume_run(handle.id)
    assert await handle.result(10) == "b"
    assert not await mesh.pause_run(handle.id)
    assert (await mesh.get_run(handle.id)).reason is None


async def test_a_paused_run_does_not_stand_in_its_tenants_way(mesh: Orchestrator) -> None:
    tenant = (await mesh.create_tenant("One", "enterprise", quota=ResourceQuota(max_concurrent_tasks=1))).tenant_id
    blocker, first, second = Steps("blocker"), Steps("first"), Steps("second")
    for steps in (first, second):
        steps.let_go.set()
    held_up = await mesh.submit(blocker.workflow, tenant=tenant)
    await blocker.began.wait()
    paused = await mesh.submit(first.workflow, tenant=tenant, priority=5)
    assert await mesh.pause_run(paused.id)
    other = await mesh.submit(second.workflow, tenant=tenant)
    blocker.let_go.set()
    await held_up.result(10)
    assert await other.result(10) == "b"
    assert first.seen == []
    await mesh.resume_run(paused.id)
    assert await paused.result(10) == "b"


async def test_a_pause_survives_a_restart(open_mesh: Open) -> None:
    steps, other = Steps(), Steps("other")
    steps.let_go.set()
    other.let_go.set()
    async with open_mesh() as mesh:
        tenant = (await mesh.create_tenant("A", "enterprise")).tenant_id
        mesh._running.dispatcher.stop()
        handle = await mesh.submit(steps.workflow, tenant=tenant)
        await mesh.pause_run(handle.id)
        await mesh.pause_workflow("other", tenant=tenant)
        second = await mesh.submit(other.workflow, tenant=tenant)
    async with open_mesh(workflows=[steps.workflow, other.workflow]) as mesh:
        await settled(mesh)
        assert steps.seen == other.seen == []
        assert (await mesh.get_run(handle.id)).reason == "it is paused"
        assert (await mesh.get_run(second.id)).reason == "the workflow 'other' is paused"
        (waiting,) = (await mesh.explain(second.id)).waiting[:1]
        assert waiting.blockers[0].reason is Reason.PAUSED
        await mesh.resume_run(handle.id)
        assert await mesh.handle(handle.id, tenant=tenant).result(10) == "b"
        assert other.seen == []
        assert await mesh.resume_workflow("other", tenant=tenant)
        assert await mesh.handle(second.id, tenant=tenant).result(10) == "b"


async def test_a_workflow_is_paused_for_one_tenant_or_for_all(mesh: Orchestrator, tenant: str) -> None:
    other = (await mesh.create_tenant("Other", "enterprise")).tenant_id
    steps = Steps()
    steps.let_go.set()
    await mesh.pause_workflow("chain", tenant=tenant)
    mine = await mesh.submit(steps.workflow, tenant=tenant)
    assert await (await mesh.submit(steps.workflow, tenant=other)).result(10) == "b"
    await mesh.pause_workflow("chain")
    theirs = await mesh.submit(steps.workflow, tenant=other)
    unrelated = Steps("unrelated")
    unrelated.let_go.set()
    assert await (await mesh.submit(unrelated.workflow, tenant=tenant)).result(10) == "b"
    await settled(mesh)
    assert len(steps.seen) == 2
    assert [(p.workflow, p.tenant_id) for p in await mesh.paused_workflows()] == [("chain", None), ("chain", tenant)]
    assert [p.tenant_id for p in await mesh.paused_workflows(tenant=other)] == [None]
    assert not await mesh.resume_workflow("chain", tenant=other), "it was paused for all, not for this one"
    assert await mesh.resume_workflow("chain")
    assert await theirs.result(10) == "b"
    await settled(mesh)
    assert len(steps.seen) == 4
    assert await mesh.resume_workflow("chain", tenant=tenant)
    assert await mine.result(10) == "b"
    assert await mesh.paused_workflows() == []


async def test_a_pause_of_a_workflow_holds_runs_that_have_begun(mesh: Orchestrator, tenant: str) -> None:
    steps = Steps()
    handle = await mesh.submit(steps.workflow, tenant=tenant)
    await steps.began.wait()
    await mesh.pause_workflow("chain")
    steps.let_go.set()
    await settled(mesh)
    assert steps.seen == ["a"]
    await mesh.pause_run(handle.id)
    await mesh.resume_workflow("chain")
    await settled(mesh)
    assert steps.seen == ["a"], "the run itself is paused too"
    await mesh.resume_run(handle.id)
    assert await handle.result(10) == "b"


async def test_a_retry_waits_for_its_moment_and_for_the_end_of_the_pause(open_mesh: Open) -> None:
    failed = asyncio.Event()
    calls: list[int] = []

    async def fail() -> str:
        calls.append(1)
        if len(calls) == 1:
            failed.set()
            raise OSError("once")
        return "done"

    built = Workflow("w").add(fail, id="t", retry=RetryPolicy(max_retries=1, initial_delay=1_800, max_delay=1_800))
    clock = ShiftedClock()
    async with open_mesh(clock=clock) as mesh:
        tenant = (await mesh.create_tenant("A", "enterprise")).tenant_id
        handle = await mesh.submit(built, tenant=tenant)
        await failed.wait()
        await settled(mesh)
        await mesh.pause_run(handle.id)
        run = mesh._running.runs.get(handle.id)
        assert run is not None
        assert run.held is not None
        assert run.held[0] > 0
        clock.forward(hours=1)
        await settled(mesh, looks_again=True)
        assert len(calls) == 1
        await mesh.resume_run(handle.id)
        assert await handle.result(10) == "done"
        assert len(calls) == 2


async def test_a_paused_run_is_cancelled(mesh: Orchestrator, tenant: str) -> None:
    steps = Steps()
    await mesh.pause_workflow("chain")
    handle = await mesh.submit(steps.workflow, tenant=tenant)
    await mesh.pause_run(handle.id)
    assert await handle.cancel()
    with pytest.raises(RunCancelled):
        await handle.result(10)
    assert steps.seen == []


async def test_the_time_of_a_paused_run_goes_on(mesh: Orchestrator, tenant: str) -> None:
    steps = Steps()
    built = Workflow("limited", timeout=0.2).add(steps.workflow.tasks["step"], id="a", args=["a"])
    built.add(steps.workflow.tasks["step"], id="b", args=["b"], after=["a"])
    handle = await mesh.submit(built, tenant=tenant)
    await steps.began.wait()
    await mesh.pause_run(handle.id)
    steps.let_go.set()
    with pytest.raises(RunFailed, match="timeout"):
        await handle.result(10)
    assert await handle.status() is S.TIMEOUT


async def test_a_run_for_later_is_paused_beyond_its_moment(open_mesh: Open) -> None:
    steps = Steps()
    steps.let_go.set()
    clock = ShiftedClock()
    async with open_mesh(clock=clock) as mesh:
        tenant = (await mesh.create_tenant("A", "enterprise")).tenant_id
        later = datetime.now(UTC) + timedelta(minutes=30)
        handle = await mesh.submit(steps.workflow, tenant=tenant, not_before=later)
        await mesh.pause_run(handle.id)
        clock.forward(hours=1)
        await settled(mesh, looks_again=True)
        assert steps.seen == []
        await mesh.resume_run(handle.id)
        assert await handle.result(10) == "b"


async def test_runs_outside_memory_are_paused_too(open_mesh: Open) -> None:
    from synergymesh.settings import read_settings

    steps, blocker = Steps(), Steps("blocker")
    steps.let_go.set()
    settings = read_settings(waiting_runs_in_memory=2)
    async with open_mesh(settings=settings) as mesh:
        quota = ResourceQuota(max_concurrent_tasks=1, rate_limit_per_second=1_000)
        tenant = (await mesh.create_tenant("A", "enterprise", quota=quota)).tenant_id
        first = await mesh.submit(blocker.workflow, tenant=tenant)
        await blocker.began.wait()
        handles = [await mesh.submit(steps.workflow, tenant=tenant) for _ in range(12)]
        dice = Random(1)
        paused = dice.sample(handles, 4)
        for handle in paused:
            assert await mesh.pause_run(handle.id)
        blocker.let_go.set()
        await first.result(10)
        for handle in handles:
            if handle not in paused:
                assert await handle.result(10) == "b"
        await settled(mesh)
        assert len(steps.seen) == 2 * 8
        for handle in paused:
            assert await mesh.resume_run(handle.id)
            assert await handle.result(10) == "b"
        await mesh.pause_workflow("chain")
        more = [await mesh.submit(steps.workflow, tenant=tenant) for _ in range(12)]
        await settled(mesh)
        assert len(steps.seen) == 2 * 12
        await mesh.resume_workflow("chain")
        for handle in more:
            assert await handle.result(10) == "b"


async def test_nobody_pauses_the_run_of_another_tenant_and_bad_names_are_refused(
    mesh: Orchestrator, tenant: str
) -> None:
    steps = Steps()
    handle = await mesh.submit(steps.workflow, tenant=tenant)
    other = (await mesh.create_tenant("Other", "enterprise")).tenant_id
    for call in (mesh.pause_run, mesh.resume_run):
        with pytest.raises(NotFound):
            await call(handle.id, tenant=other)
        with pytest.raises(NotFound):
            await call("run-nothing")
    for verb in (mesh.pause_workflow, mesh.resume_workflow):
        with pytest.raises(NotFound):
            await verb("chain", tenant="tenant-nobody")
        for bad in ("", " ", "a\0b", "x" * 1_000, None, 7):
            with pytest.raises(InvalidRequest):
                await verb(bad)  # type: ignore[arg-type]  # on purpose
    assert await mesh.paused_workflows() == []
    steps.let_go.set()
    assert await handle.result(10) == "b"


async def test_no_more_workflows_are_paused_than_the_limit(mesh: Orchestrator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synergymesh.engine.control.pausing.PAUSED_WORKFLOWS_MAX", 2)
    await mesh.pause_workflow("a")
    await mesh.pause_workflow("b")
    await mesh.pause_workflow("b")
    with pytest.raises(InvalidRequest, match="limit"):
        await mesh.pause_workflow("c")
    await mesh.resume_workflow("a")
    await mesh.pause_workflow("c")
