"""What readers, followers and submitters see when things change between two looks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from synergymesh import ExecutionStatus, Orchestrator, Workflow
from synergymesh.errors import NotRunning, TenantHasOpenRuns, TenantNotActive


async def nothing() -> None:
    """Do nothing."""


@pytest.mark.parametrize("after", [True, False])
async def test_a_run_and_its_tasks_are_never_of_two_moments(mesh: Orchestrator, tenant: str, after: bool) -> None:
    """The run ends right after the look at its tasks, and, in another round, right before it."""
    gate = asyncio.Event()

    async def hold() -> None:
        await gate.wait()

    run = await mesh.submit(Workflow("w").add(hold, id="a"), tenant=tenant)
    assert mesh._parts is not None
    store = mesh._parts.store
    list_tasks: Callable[..., Any] = store.list_tasks

    async def looks_while_it_ends(*arguments: Any) -> Any:
        before = await list_tasks(*arguments)
        gate.set()
        await run.result(5)
        store.list_tasks = list_tasks  # type: ignore[method-assign]  # as it was
        return before if after else await list_tasks(*arguments)

    store.list_tasks = looks_while_it_ends  # type: ignore[method-assign]  # the moment between the looks
    seen = await mesh.get_run(run.id)
    assert seen.tasks[0].status is ExecutionStatus.SUCCESS
    assert seen.status is ExecutionStatus.SUCCESS


async def test_a_follower_of_a_run_that_is_given_up_is_told(mesh: Orchestrator, tenant: str) -> None:
    begun = asyncio.Event()

    async def hold() -> None:
        begun.set()
        await asyncio.Event().wait()

    run = await mesh.submit(Workflow("w").add(hold), tenant=tenant)
    following = asyncio.create_task(_all(run.events()))
    await begun.wait()
    assert mesh._parts is not None
    live = mesh._parts.runs.get(run.id)
    assert live is not None
    while not live.watchers:  # noqa: ASYNC110 - nothing tells when a follower has begun to watch
        await asyncio.sleep(0)
    mesh._parts.runs.lost(live, NotRunning("the disk is full"))
    with pytest.raises(NotRunning, match=run.id):
        await asyncio.wait_for(following, 5)


async def test_nothing_is_accepted_while_a_tenant_is_being_deleted(mesh: Orchestrator, tenant: str) -> None:
    assert mesh._parts is not None
    store = mesh._parts.store
    count_runs = store.count_runs
    refused: list[bool] = []

    async def submits_meanwhile(**arguments: Any) -> int:
        counted = await count_runs(**arguments)
        with pytest.raises(TenantNotActive):
            await mesh.submit(Workflow("w").add(nothing), tenant=tenant)
        refused.append(True)
        return counted

    store.count_runs = submits_meanwhile  # type: ignore[method-assign]  # the moment between count and delete
    await mesh.delete_tenant(tenant)
    assert refused == [True]


async def test_a_tenant_that_is_not_deleted_is_active_again(mesh: Orchestrator, tenant: str) -> None:
    gate = asyncio.Event()

    async def hold() -> None:
        await gate.wait()

    run = await mesh.submit(Workflow("w").add(hold), tenant=tenant)
    with pytest.raises(TenantHasOpenRuns):
        await mesh.delete_tenant(tenant)
    assert (await mesh.get_tenant(tenant)).status == "active"
    gate.set()
    await run.result(5)


async def test_a_workflow_that_has_moved_is_stored_with_its_new_place(mesh: Orchestrator, tenant: str) -> None:
    first = Workflow("w").add(nothing, id="a")
    await (await mesh.submit(first, tenant=tenant)).result(5)
    moved: Any = SimpleNamespace(
        name="w", tasks=first.tasks, definition=first.definition, source="elsewhere:w", check_input=first.check_input
    )
    assert mesh._parts is not None
    await mesh._parts.submission.submit(moved, tenant, None, None, 0, None)
    record = await mesh._parts.store.get_workflow(first.definition.content_hash)
    assert record is not None
    assert record.source == "elsewhere:w"


async def _all(events: Any) -> list[Any]:
    return [event async for event in events]
