"""Submitting runs: idempotency keys, tenants kept apart, deletion."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from synergymesh import ExecutionStatus, Orchestrator, RunCancelled, RunHandle, Workflow, task, workflow
from synergymesh.errors import (
    IdempotencyConflict,
    InvalidRequest,
    NotRunning,
    TenantHasOpenRuns,
    UnknownRun,
    UnknownTenant,
)

S = ExecutionStatus


@task
async def double(x: int) -> int:
    return 2 * x


@workflow
def doubled(x: int) -> object:
    return double(x)


@workflow
def doubled_twice(x: int) -> object:
    return double(double(x))


async def test_the_same_key_gives_the_same_run(mesh: Orchestrator, tenant: str) -> None:
    first = await mesh.submit(doubled, tenant=tenant, input={"x": 1}, idempotency_key="k")
    second = await mesh.submit(doubled, tenant=tenant, input={"x": 1}, idempotency_key="k")
    assert first.id == second.id
    assert await second.result(10) == 2
    third = await mesh.submit(doubled, tenant=tenant, input={"x": 1}, idempotency_key="k")
    assert third.id == first.id, "also when it is final"
    assert await third.result(10) == 2
    assert len(await mesh.list_runs()) == 1
    assert (await mesh.get_run(first.id)).idempotency_key == "k"


async def test_the_same_key_with_another_input_or_workflow_is_a_conflict(mesh: Orchestrator, tenant: str) -> None:
    first = await mesh.submit(doubled, tenant=tenant, input={"x": 1}, idempotency_key="k")
    for other, x in ((doubled, 2), (doubled_twice, 1)):
        with pytest.raises(IdempotencyConflict, match="'k'") as caught:
            await mesh.submit(other, tenant=tenant, input={"x": x}, idempotency_key="k")
        assert caught.value.run_id == first.id
    assert len(await mesh.list_runs()) == 1


async def test_concurrent_submissions_with_one_key_are_one_run(mesh: Orchestrator, tenant: str) -> None:
    calls = [mesh.submit(doubled, tenant=tenant, input={"x": 7}, idempotency_key=f"k{n % 3}") for n in range(60)]
    handles = await asyncio.gather(*calls)
    assert len({handle.id for handle in handles}) == 3
    assert {await handle.result(10) for handle in handles} == {14}
    assert len(await mesh.list_runs()) == 3


async def test_of_concurrent_submissions_with_one_key_and_different_inputs_one_wins(
    mesh: Orchestrator, tenant: str
) -> None:
    calls = [mesh.submit(doubled, tenant=tenant, input={"x": n}, idempotency_key="k") for n in range(10)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    conflicts = [answer for answer in answers if isinstance(answer, IdempotencyConflict)]
    assert len(conflicts) == 9
    assert len(await mesh.list_runs()) == 1


async def test_two_tenants_may_use_the_same_key(mesh: Orchestrator, tenant: str) -> None:
    other = (await mesh.create_tenant("Other", "enterprise")).tenant_id
    first = await mesh.submit(doubled, tenant=tenant, input={"x": 1}, idempotency_key="k")
    second = await mesh.submit(doubled, tenant=other, input={"x": 2}, idempotency_key="k")
    assert (await first.result(10), await second.result(10)) == (2, 4)


@pytest.mark.parametrize("key", ["", "x" * 201, "a\nb", "a\0", "\ud800", 7, b"k"])
async def test_a_key_that_cannot_be_stored_is_refused(mesh: Orchestrator, tenant: str, key: Any) -> None:
    with pytest.raises(InvalidRequest, match="idempotency_key") as caught:
        await mesh.submit(doubled, tenant=tenant, input={"x": 1}, idempotency_key=key)
    assert caught.value.field == "idempotency_key"
    assert await mesh.list_runs() == []


async def test_a_run_that_is_acknowledged_goes_on_though_its_submitter_gave_up(mesh: Orchestrator, tenant: str) -> None:
    submitting = asyncio.create_task(mesh.submit(doubled, tenant=tenant, input={"x": 1}, idempotency_key="k"))
    for _ in range(2):  # far enough that it is handed over to be written
        await asyncio.sleep(0)
    submitting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await submitting
    again = await mesh.submit(doubled, tenant=tenant, input={"x": 1}, idempotency_key="k")
    assert await again.result(10) == 2
    assert len(await mesh.list_runs()) == 1


# --- tenants --------------------------------------------------------------------------------------------------------


async def test_another_tenants_run_is_simply_not_found(mesh: Orchestrator, tenant: str) -> None:
    other = (await mesh.create_tenant("Other", "enterprise")).tenant_id
    handle = await mesh.submit(doubled, tenant=tenant, input={"x": 1})
    await handle.result(10)
    foreign = mesh.handle(handle.id, tenant=other)
    unknown = mesh.handle("run-0000", tenant=other)
    for stranger in (foreign, unknown):
        for ask in (stranger.result, stranger.status, stranger.cancel):
            with pytest.raises(UnknownRun, match=stranger.id):
                await ask()
        with pytest.raises(UnknownRun):
            await anext(stranger.events())
        with pytest.raises(UnknownRun):
            await mesh.get_run(stranger.id, tenant=other)
        with pytest.raises(UnknownRun):
            await mesh.cancel_run(stranger.id, tenant=other)
    assert await mesh.list_runs(tenant=other) == []
    assert await mesh.count_open_runs(other) == 0
    assert (await mesh.get_run(handle.id, tenant=tenant)).id == handle.id
    assert (await mesh.get_run(handle.id)).id == handle.id, "the operator sees all"


async def test_a_running_run_of_another_tenant_is_not_found_either(mesh: Orchestrator, tenant: str) -> None:
    other = (await mesh.create_tenant("Other", "enterprise")).tenant_id
    running = asyncio.Event()

    async def long() -> None:
        running.set()
        await asyncio.sleep(3_600)

    handle = await mesh.submit(Workflow("w").add(long), tenant=tenant)
    await running.wait()
    foreign = mesh.handle(handle.id, tenant=other)
    for ask in (foreign.result, foreign.status, foreign.cancel):
        with pytest.raises(UnknownRun):
            await ask()
    with pytest.raises(UnknownRun):
        await anext(foreign.events())
    assert await handle.status() is S.RUNNING
    await handle.cancel()


async def test_runs_are_listed_newest_first_by_page_state_and_workflow(mesh: Orchestrator, tenant: str) -> None:
    handles = [await mesh.submit(doubled, tenant=tenant, input={"x": n}) for n in range(7)]
    handles.append(await mesh.submit(doubled_twice, tenant=tenant, input={"x": 1}))
    for handle in handles:
        await handle.result(10)
    ids = [handle.id for handle in reversed(handles)]
    first = await mesh.list_runs(tenant=tenant, limit=5)
    second = await mesh.list_runs(tenant=tenant, limit=5, cursor=first[-1].id)
    assert [run.id for run in (*first, *second)] == ids
    assert [run.id for run in await mesh.list_runs(workflow="doubled_twice")] == ids[:1]
    assert len(await mesh.list_runs(status="success")) == 8
    assert await mesh.list_runs(status=["failed", S.CANCELLED]) == []
    cases: list[dict[str, Any]] = [{"limit": 0}, {"limit": 1_001}, {"limit": "5"}, {"status": "odd"}]
    for wrong in cases:
        with pytest.raises(InvalidRequest) as caught:
            await mesh.list_runs(**wrong)
        assert caught.value.field in wrong


async def test_a_tenant_with_open_runs_is_deleted_only_by_force_and_then_all_is_gone(
    mesh: Orchestrator, tenant: str
) -> None:
    running = asyncio.Event()

    async def long() -> None:
        running.set()
        await asyncio.sleep(3_600)

    final = await mesh.submit(doubled, tenant=tenant, input={"x": 1})
    await final.result(10)
    handle = await mesh.submit(Workflow("w").add(long), tenant=tenant)
    waiting = asyncio.create_task(handle.result())
    await running.wait()
    with pytest.raises(TenantHasOpenRuns, match="1 open runs") as caught:
        await mesh.delete_tenant(tenant)
    assert caught.value.open_runs == 1
    assert await handle.status() is S.RUNNING
    await mesh.delete_tenant(tenant, force=True)
    with pytest.raises(RunCancelled):
        await waiting
    assert await mesh.list_tenants() == []
    for run_id in (final.id, handle.id):
        with pytest.raises(UnknownRun):
            await mesh.get_run(run_id)
    for ask in (mesh.get_tenant, mesh.delete_tenant, mesh.suspend_tenant, mesh.resume_tenant):
        with pytest.raises(UnknownTenant, match=tenant):
            await ask(tenant)
    with pytest.raises(UnknownTenant):
        await mesh.submit(doubled, tenant=tenant, input={"x": 1})
    assert await mesh.count_open_runs() == 0


async def test_what_a_deleted_tenant_left_is_purged(open_mesh: Callable[..., Orchestrator], tmp_path: Any) -> None:
    import sqlite3

    async with open_mesh() as mesh:
        tenant = (await mesh.create_tenant("A", "enterprise")).tenant_id
        for n in range(20):
            await (await mesh.submit(doubled, tenant=tenant, input={"x": n})).result(10)
        await mesh.delete_tenant(tenant)
        store = mesh._running.store
        while await store.purge_deleted(7):
            pass
    with sqlite3.connect(tmp_path / "mesh.db") as connection:
        for table in ("runs", "tasks", "attempts", "tenants"):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table
    connection.close()


async def test_a_run_submitted_while_its_tenant_is_deleted_is_refused_or_gone_and_nobody_waits_for_it(
    open_mesh: Callable[..., Orchestrator],
) -> None:
    async with open_mesh() as mesh:
        for _ in range(20):
            tenant = (await mesh.create_tenant("A", "enterprise")).tenant_id
            answers = await asyncio.gather(
                mesh.submit(doubled, tenant=tenant, input={"x": 1}),
                mesh.delete_tenant(tenant),
                mesh.submit(doubled, tenant=tenant, input={"x": 1}),
                return_exceptions=True,
            )
            for answer in (answers[0], answers[2]):
                if isinstance(answer, RunHandle):
                    with suppress(UnknownRun, RunCancelled):
                        assert await answer.result(5) == 2
        assert await mesh.count_open_runs() == 0
        assert list(mesh._running.runs) == []


# --- not running ----------------------------------------------------------------------------------------------------


async def test_an_orchestrator_that_is_not_started_or_is_closed_says_so() -> None:
    mesh = Orchestrator(":memory:")
    with pytest.raises(NotRunning):
        await mesh.create_tenant("A", "enterprise")
    async with mesh:
        tenant = (await mesh.create_tenant("A", "enterprise")).tenant_id
        handle = await mesh.submit(doubled, tenant=tenant, input={"x": 1})
        await handle.result(10)
    for ask in (
        mesh.submit(doubled, tenant=tenant, input={"x": 1}),
        mesh.get_run(handle.id),
        mesh.list_tenants(),
        mesh.count_open_runs(),
        handle.result(),
        handle.cancel(),
    ):
        with pytest.raises(NotRunning):
            await ask
    await mesh.close()  # a second time does nothing


async def test_calls_that_race_with_the_end_are_answered(mesh: Orchestrator, tenant: str) -> None:
    running = asyncio.Event()

    async def long() -> None:
        running.set()
        await asyncio.sleep(3_600)

    handle = await mesh.submit(Workflow("w").add(long), tenant=tenant)
    await running.wait()
    calls: list[Any] = [
        handle.result(),
        mesh.submit(doubled, tenant=tenant, input={"x": 1}),
        mesh.create_tenant("B", "enterprise"),
        handle.cancel(),
        mesh.delete_tenant(tenant, force=True),
        mesh.get_run(handle.id),
    ]
    waiting = [asyncio.create_task(call) for call in calls]
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await mesh.close(grace_seconds=0)
        answers = await asyncio.gather(*waiting, return_exceptions=True)
    allowed = (NotRunning, RunCancelled, UnknownRun, UnknownTenant)
    assert all(isinstance(a, allowed) or not isinstance(a, BaseException) for a in answers), answers
