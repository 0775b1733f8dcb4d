"""Direct calls: closures as tasks of a tenant, under its limits, with retries, recorded."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from synergymesh import (
    EnterpriseSynergyMeshOrchestrator,
    ExecutionStatus,
    Orchestrator,
    ResourceQuota,
    RetryPolicy,
    TenantTier,
    Workflow,
    current_task,
)
from synergymesh.domain.workflow.definition import Component, WorkflowDefinition
from synergymesh.engine.direct_calls import DirectCall, ExecutionResult
from synergymesh.engine.versions import DIRECT_COMPONENTS_KEPT
from synergymesh.errors import BacklogFull, InvalidRequest, NotRunning, TenantNotActive, UnknownTenant
from synergymesh.settings import read_settings

AT_ONCE = RetryPolicy(initial_delay=0)


@pytest.fixture
def database(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/mesh.db"


async def call(
    mesh: Orchestrator, tenant: str, function: Callable[..., Awaitable[Any]], **settings: Any
) -> ExecutionResult:
    settings.setdefault("component_id", "payment")
    (result,) = await mesh.call([DirectCall(function=function, **settings)], tenant=tenant)
    return result


async def test_a_closure_runs_as_a_task_of_its_tenant_and_is_recorded(database: str) -> None:
    async with Orchestrator(database) as mesh:
        tenant = (await mesh.create_tenant("Acme")).tenant_id
        secret = object()
        seen = []

        async def pay(amount: int) -> object:
            seen.append((amount, current_task().tenant_id, current_task().task_id))
            return secret

        result = await call(mesh, tenant, pay, arguments={"amount": 42})
        assert result.status is ExecutionStatus.SUCCESS
        assert result.output is secret
        assert (result.retry_count, result.error, result.component_type) == (0, None, "task")
        assert seen == [(42, tenant, "payment")]
        run = await mesh.get_run(result.metadata["run_id"], tenant=tenant)
        assert (run.workflow, run.status) == ("payment", ExecutionStatus.SUCCESS)
        assert [task.status for task in run.tasks] == [ExecutionStatus.SUCCESS]


async def test_what_the_function_raises_is_in_the_result_with_its_retries(database: str) -> None:
    async with Orchestrator(database) as mesh:
        tenant = (await mesh.create_tenant("Acme")).tenant_id
        calls = 0

        async def flaky() -> int:
            nonlocal calls
            calls += 1
            if calls < 3:
                raise ConnectionError(f"try {calls}")
            return calls

        async def broken() -> None:
            raise ValueError("no")

        result = await call(mesh, tenant, flaky, retry=AT_ONCE)
        assert (result.status, result.output, result.retry_count) == (ExecutionStatus.SUCCESS, 3, 2)
        failed = await call(mesh, tenant, broken, retry=RetryPolicy(max_retries=1, initial_delay=0))
        assert (failed.status, failed.retry_count, failed.output) == (ExecutionStatus.FAILED, 1, None)
        assert failed.error == "ValueError: no"
        run = await mesh.get_run(result.metadata["run_id"])
        assert [attempt.number for attempt in run.tasks[0].failures] == [1, 2]


async def test_a_call_that_takes_longer_than_its_timeout_ends_as_timeout(database: str) -> None:
    async with Orchestrator(database) as mesh:
        tenant = (await mesh.create_tenant("Acme")).tenant_id
        result = await call(mesh, tenant, asyncio.Event().wait, timeout=0.01, retry=RetryPolicy(max_retries=0))
        assert result.status is ExecutionStatus.TIMEOUT


async def test_calls_wait_for_room_in_the_quota(database: str) -> None:
    async with Orchestrator(database) as mesh:
        quota = ResourceQuota(max_concurrent_tasks=3, max_tasks_per_hour=1_000)
        tenant = (await mesh.create_tenant("Acme", quota=quota)).tenant_id
        running = most = 0

        async def busy() -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0)
            running -= 1

        await asyncio.gather(*(call(mesh, tenant, busy, component_id=f"c{n}") for n in range(30)))
        assert most == 3


async def test_components_run_after_those_that_they_name_and_are_skipped_when_these_fail(database: str) -> None:
    async with Orchestrator(database) as mesh:
        tenant = (await mesh.create_tenant("Acme")).tenant_id
        order = []

        def component(name: str) -> Callable[[], Awaitable[str]]:
            async def run() -> str:
                order.append(name)
                if name == "bad":
                    raise ValueError(name)
                return name

            return run

        none = RetryPolicy(max_retries=0)
        after = {"top": (), "left": ("top",), "bad": ("top",), "end": ("left",), "lost": ("bad", "left")}
        calls = [
            DirectCall(component_id=name, function=component(name), after=names, retry=none)
            for name, names in after.items()
        ]
        results = {result.component_id: result for result in await mesh.call(calls, tenant=tenant)}
        assert [result.status.value for result in results.values()] == [
            "success",
            "success",
            "failed",
            "success",
            "skipped",
        ]
        assert order[0] == "top"
        assert order.index("left") < order.index("end")
        assert (results["lost"].start_time, results["lost"].duration_ms) == (None, 0.0)


async def test_functions_run_in_the_loop_and_context_of_their_caller(database: str) -> None:
    async with Orchestrator(database) as mesh:
        tenant = (await mesh.create_tenant("Acme")).tenant_id
        mine = asyncio.get_running_loop()
        found: list[object] = []

        async def where() -> str:
            found.append(asyncio.get_running_loop())
            return threading.current_thread().name

        def elsewhere() -> str:
            async def main() -> str:
                calls = [DirectCall(component_id="far", function=where)]
                asked = asyncio.run_coroutine_threadsafe(
                    mesh.call(calls, tenant=tenant, loop=asyncio.get_running_loop()), mine
                )
                found.append(asyncio.get_running_loop())
                (result,) = await asyncio.wrap_future(asked)
                return str(result.output)

            return asyncio.run(main())

        assert await asyncio.to_thread(elsewhere) != threading.main_thread().name
        assert found[0] is found[1] is not mine


async def test_a_cancelled_caller_cancels_its_call_and_frees_the_slot(database: str) -> None:
    async with Orchestrator(database) as mesh:
        tenant = (await mesh.create_tenant("Acme")).tenant_id
        begun = asyncio.Event()
        ended = asyncio.Event()

        async def for_ever() -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        waiting = asyncio.create_task(call(mesh, tenant, for_ever))
        await begun.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await ended.wait()
        (run,) = await mesh.list_runs(tenant=tenant)
        end = await mesh._running.watching.end_of(run.id, tenant)
        assert end.status is ExecutionStatus.CANCELLED
        assert mesh._running.attempts.under_way == {}


async def test_a_call_that_a_shutdown_interrupts_is_failed_after_the_restart(database: str) -> None:
    mesh = Orchestrator(database, shutdown_grace_seconds=0, stop_grace_seconds=1)
    await mesh.start()
    tenant = (await mesh.create_tenant("Acme")).tenant_id
    begun = asyncio.Event()

    async def for_ever() -> None:
        begun.set()
        await asyncio.Event().wait()

    waiting = asyncio.create_task(call(mesh, tenant, for_ever))
    await begun.wait()
    await mesh.close()
    with pytest.raises(NotRunning):
        await waiting
    async with Orchestrator(database) as mesh:
        (run,) = await mesh.list_runs(tenant=tenant)
        end = await mesh._running.watching.end_of(run.id, tenant)
        assert end.status is ExecutionStatus.FAILED
        again = await mesh.get_run(run.id)
        assert "cannot be found again" in str(again.error)


async def test_bad_calls_are_refused_and_nothing_is_recorded(database: str) -> None:
    async with Orchestrator(database) as mesh:
        tenant = (await mesh.create_tenant("Acme", quota=ResourceQuota(max_queued_tasks=1))).tenant_id

        async def good() -> None: ...

        with pytest.raises(InvalidRequest, match="coroutine function"):
            await call(mesh, tenant, lambda: None)  # type: ignore[arg-type, return-value]  # what is tested
        with pytest.raises(InvalidRequest, match="no components"):
            await mesh.call([], tenant=tenant)
        with pytest.raises(InvalidRequest, match="component id"):
            await call(mesh, tenant, good, component_id="")
        with pytest.raises(InvalidRequest, match="timeout"):
            await call(mesh, tenant, good, timeout=-1)
        with pytest.raises(UnknownTenant):
            await call(mesh, "nobody", good)
        with pytest.raises(BacklogFull):
            await mesh.call([DirectCall(component_id=str(n), function=good) for n in range(2)], tenant=tenant)
        await mesh.suspend_tenant(tenant)
        with pytest.raises(TenantNotActive):
            await call(mesh, tenant, good)
        assert await mesh.list_runs() == []


async def test_what_is_kept_of_graphs_is_bounded_by_their_components(database: str) -> None:
    async with Orchestrator(database) as mesh:
        versions = mesh._running.versions
        for graph in range(30):
            components = tuple(Component(component_id=f"{graph}-{n}", task="direct task") for n in range(1_000))
            versions.direct(
                WorkflowDefinition(name=f"graph {graph}", parameters=(), components=components, output=None)
            )
        assert versions._direct.size == DIRECT_COMPONENTS_KEPT
        assert len(versions._direct) == DIRECT_COMPONENTS_KEPT // 1_000


async def test_a_call_brings_its_version_along_if_it_was_deleted_while_the_function_ran(database: str) -> None:
    async with Orchestrator(database) as mesh:
        tenant = (await mesh.create_tenant("Acme")).tenant_id
        await mesh.set_retention(tenant, 0)
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def quick() -> None: ...

        async def slow() -> str:
            begun.set()
            await go_on.wait()
            return "done"

        await call(mesh, tenant, quick)
        waiting = asyncio.create_task(call(mesh, tenant, slow))
        await begun.wait()
        assert (await mesh.prune()).workflow_versions == 1
        go_on.set()
        result = await waiting
        assert (result.status, result.output) == (ExecutionStatus.SUCCESS, "done")
        assert (await mesh.get_run(result.metadata["run_id"])).status is ExecutionStatus.SUCCESS


async def test_the_version_of_a_call_is_written_once(database: str) -> None:
    async with Orchestrator(database) as mesh:
        tenant = (await mesh.create_tenant("Acme")).tenant_id
        written: list[str] = []

        async def quick() -> None: ...

        committer = mesh._running.committer
        recorded = committer.recorded

        def look(entries: Any, results: Any) -> None:
            written.extend(type(change).__name__ for entry in entries for change in entry.unit)
            recorded(entries, results)

        committer.recorded = look
        for _ in range(3):
            await call(mesh, tenant, quick)
        assert (written.count("WorkflowStored"), written.count("RunCreated")) == (1, 3)


async def test_what_waited_behind_a_call_that_is_cancelled_starts(database: str) -> None:
    settings = read_settings(database=database, task_memory_mb=60)
    async with Orchestrator(settings=settings) as mesh:
        quota = ResourceQuota(max_memory_mb=100)
        tenant = (await mesh.create_tenant("Acme", TenantTier.ENTERPRISE, quota=quota)).tenant_id
        begun, ended = asyncio.Event(), asyncio.Event()

        async def hold() -> None:
            begun.set()
            await ended.wait()

        async def quick() -> None: ...

        small = Workflow("small").add(quick, id="small", memory_mb=10)
        holding = asyncio.create_task(call(mesh, tenant, hold, component_id="holds"))
        await begun.wait()
        large = asyncio.create_task(call(mesh, tenant, quick, component_id="large"))
        await asyncio.sleep(0)  # it is the head of the queue now
        run = await mesh.submit(small, tenant=tenant)
        large.cancel()
        await run.result(10)
        ended.set()
        assert (await holding).status is ExecutionStatus.SUCCESS


async def test_a_call_that_is_cancelled_before_its_first_step_has_ended() -> None:
    called: list[int] = []

    async def work() -> None:
        called.append(1)

    with EnterpriseSynergyMeshOrchestrator() as mesh:
        tenant = mesh.create_tenant("Acme")
        known = asyncio.all_tasks()
        calling = asyncio.create_task(mesh.execute_with_retry(work, "a", tenant, max_retries=0))
        known.add(calling)
        while not (begun := asyncio.all_tasks() - known):  # noqa: ASYNC110 - nothing tells of a task that is made
            await asyncio.sleep(0)
        begun.pop().cancel()  # in the turn in which it was made: this one looks in front of its first step
        result = await asyncio.wait_for(calling, 20)
        assert not called
        assert result.status is ExecutionStatus.FAILED
        assert "CancelledError" in (result.error or "")
        assert mesh.get_metrics()["active_tasks"] == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_call_that_ends_the_event_loop_of_its_caller_gives_its_slot_back(error: type[BaseException]) -> None:
    async def work() -> None:
        raise error

    async def one() -> None:
        return None

    with EnterpriseSynergyMeshOrchestrator() as mesh:
        tenant = mesh.create_tenant("Acme", custom_quota=ResourceQuota(max_concurrent_tasks=1))
        with pytest.raises(error):
            asyncio.run(mesh.execute_with_retry(work, "a", tenant, max_retries=0))
        result = asyncio.run(asyncio.wait_for(mesh.execute_with_retry(one, "b", tenant), 20))
        assert result.status is ExecutionStatus.SUCCESS
