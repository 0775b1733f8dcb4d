"""What tasks print and log is kept with their attempts, in bounded space, and goes on to where it always went."""

import asyncio
import logging
import sys
from pathlib import Path

import pytest

from synergymesh import EnterpriseSynergyMeshOrchestrator, Orchestrator, RetryPolicy, current_task, task, workflow
from synergymesh.cli.app import main
from synergymesh.errors import UnknownComponent, UnknownRun
from synergymesh.settings import read_settings

log = logging.getLogger("shop")
begun = asyncio.Event()
go_on = asyncio.Event()
tries = 0


@task
async def on_loop(name: str) -> str:
    print("loop", name)
    await asyncio.sleep(0)
    log.warning("careful with %s", name)
    return name


@task
def in_thread(name: str) -> str:
    print("thread", name, file=sys.stderr)
    print("no end", end="")
    current_task().logger.warning("said by the task's own logger")
    return name


@workflow
def talkative(name: str) -> object:
    return [on_loop(name), in_thread(name)]


@task(retry=RetryPolicy(max_retries=1, initial_delay=0))
async def twice() -> int:
    global tries
    tries += 1
    print("try", tries)
    if tries == 1:
        raise ValueError
    return tries


@workflow
def retried() -> object:
    return twice()


@task
async def waits() -> None:
    print("before")
    begun.set()
    await go_on.wait()


@workflow
def waiting() -> object:
    return waits()


@task
async def chatty() -> None:
    for number in range(10_000):
        print("line", number)
    print("x" * 100_000)


@workflow
def flood() -> object:
    return chatty()


async def test_each_line_goes_to_the_attempt_that_wrote_it(capsys: pytest.CaptureFixture[str]) -> None:
    async with Orchestrator(":memory:") as mesh:
        tenant = (await mesh.create_tenant("Acme", "enterprise")).tenant_id
        runs = [await mesh.submit(talkative, tenant=tenant, input={"name": name}) for name in ("ann", "bob")]
        print("of nobody")
        for run, name in zip(runs, ("ann", "bob"), strict=True):
            await run.result()
            lines = await mesh.logs(run.id, tenant=tenant)
            found = {(line.task_id, line.source, line.text) for line in lines}
            assert {
                ("on_loop", "stdout", f"loop {name}"),
                ("on_loop", "warning", f"shop: careful with {name}"),
                ("in_thread", "stderr", f"thread {name}"),
                ("in_thread", "stdout", "no end"),
            } <= found
            assert any("said by the task's own logger" in text for _, _, text in found)
            assert len(found) == 5
            assert {line.task_id for line in await mesh.logs(run.id, "on_loop")} == {"on_loop"}
    shown = capsys.readouterr()
    assert "loop ann\n" in shown.out
    assert "thread bob\n" in shown.err


async def test_attempts_that_failed_keep_what_they_said_and_everything_outlives_the_process(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/mesh.db"
    async with Orchestrator(database) as mesh:
        tenant = (await mesh.create_tenant("Acme", "enterprise")).tenant_id
        run = await mesh.submit(retried, tenant=tenant)
        await run.result()
    async with Orchestrator(database, execute=False) as mesh:
        assert [(line.attempt, line.text) for line in await mesh.logs(run.id)] == [(1, "try 1"), (2, "try 2")]
        with pytest.raises(UnknownRun):
            await mesh.logs(run.id, tenant="tenant-of-somebody-else")


async def test_what_a_running_attempt_has_said_can_be_read() -> None:
    begun.clear()
    go_on.clear()
    async with Orchestrator(":memory:") as mesh:
        tenant = (await mesh.create_tenant("Acme")).tenant_id
        run = await mesh.submit(waiting, tenant=tenant)
        await begun.wait()
        assert [line.text for line in await mesh.logs(run.id)] == ["before"]
        go_on.set()
        await run.result()
        assert [line.text for line in await mesh.logs(run.id)] == ["before"]


async def test_a_flood_keeps_its_beginning_and_its_end() -> None:
    async with Orchestrator(":memory:") as mesh:
        tenant = (await mesh.create_tenant("Acme")).tenant_id
        run = await mesh.submit(flood, tenant=tenant)
        await run.result()
        lines = [line.text for line in await mesh.logs(run.id)]
        assert lines[0] == "line 0"
        assert "line 5000" not in lines
        assert sum(len(line) for line in lines) < 70_000
        (gap,) = [place for place, line in enumerate(lines) if line.endswith("were not kept)")]
        assert lines[gap - 1] == f"line {gap - 1}", "it stands where lines are missing"
        assert lines[-1] == "x" * (100_000 % 8_000)


def test_the_output_of_a_task_that_the_workflow_does_not_have_is_asked_for_in_vain(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database = f"sqlite:///{tmp_path}/mesh.db"

    async def make() -> tuple[str, str]:
        async with Orchestrator(database) as mesh:
            tenant = (await mesh.create_tenant("Acme", "enterprise")).tenant_id
            run = await mesh.submit(retried, tenant=tenant)
            await run.result()
            (name,) = {line.task_id for line in await mesh.logs(run.id)}
            with pytest.raises(UnknownComponent, match=f"Did you mean '{name}'"):
                await mesh.logs(run.id, f"{name}x")
            return run.id, name

    run_id, name = asyncio.run(make())
    with pytest.raises(SystemExit) as ended:
        main(["logs", run_id, f"{name}x", "--database", database])
    assert (ended.value.code, f"Did you mean '{name}'" in capsys.readouterr().err) == (2, True)


async def test_it_can_be_switched_off_and_leaves_the_streams_as_they_were() -> None:
    before = sys.stdout, sys.stderr, list(logging.getLogger().handlers)
    async with Orchestrator(":memory:", settings=read_settings(capture_output=False)) as mesh:
        assert (sys.stdout, sys.stderr) == before[:2]
        tenant = (await mesh.create_tenant("Acme", "enterprise")).tenant_id
        run = await mesh.submit(talkative, tenant=tenant, input={"name": "ann"})
        await run.result()
        assert await mesh.logs(run.id) == []
    with EnterpriseSynergyMeshOrchestrator(), EnterpriseSynergyMeshOrchestrator():
        assert sys.stdout is not before[0]
    assert (sys.stdout, sys.stderr, list(logging.getLogger().handlers)) == before


async def test_a_direct_call_is_captured_too() -> None:
    with EnterpriseSynergyMeshOrchestrator() as mesh:
        tenant = mesh.create_tenant("Acme")

        async def speak() -> None:
            print("here I am")

        result = await mesh.execute_with_retry(speak, "c", tenant)
        lines = mesh.call(mesh.orchestrator.logs(result.metadata["run_id"]))
        assert [line.text for line in lines] == ["here I am"]
