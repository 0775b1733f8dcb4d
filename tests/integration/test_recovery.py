"""After an unclean end: what was committed is used again, everything else runs again.

A crash is played by copying the database files while everything runs: what is in the copy is what a killed process
would have left. `tests/crash` kills real ones.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random, SystemRandom
from typing import Any

import pytest

from synergymesh import (
    ExecutionStatus,
    Orchestrator,
    ResourceQuota,
    RetryPolicy,
    RunCancelled,
    RunFailed,
    Workflow,
    current_task,
    load_workflow,
    ref,
)
from synergymesh.testing.reference import ScriptedWorkflow, interpret, random_workflow

S = ExecutionStatus
Open = Callable[..., Orchestrator]


def crash(path: Path, name: str) -> Path:
    """Copy the database as it is on disk now; the log last, as no checkpoint happens meanwhile."""
    copy = path.with_name(f"{name}.db")
    shutil.copyfile(path, copy)
    log = path.with_name(path.name + "-wal")
    if log.exists():
        shutil.copyfile(log, copy.with_name(copy.name + "-wal"))
    return copy


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "life-1.db"


def recorded_as_running(path: Path) -> int:
    """Count the running tasks that the store knows of."""
    connection = sqlite3.connect(path)
    found: int = connection.execute("SELECT count(*) FROM tasks WHERE status = 'running'").fetchone()[0]
    connection.close()
    return found


async def test_committed_results_are_used_again_and_the_rest_runs_with_the_next_number(
    open_mesh: Open, path: Path
) -> None:
    blocked, let_go = asyncio.Event(), asyncio.Event()
    seen: list[tuple[str, int]] = []

    async def step(name: str, *before: str) -> str:
        seen.append((name, current_task().attempt))
        if name == "b" and len(seen) == 2:
            blocked.set()
            await let_go.wait()
        return "-".join((*before, name))

    built = Workflow("w").add(step, id="a", args=["a"]).add(step, id="b", args=["b", ref("a")])
    built.add(step, id="c", args=["c", ref("b"), ref("a")])
    async with open_mesh(path) as mesh:
        tenant = (await mesh.create_tenant("A", "enterprise")).tenant_id
        handle = await mesh.submit(built, tenant=tenant)
        await blocked.wait()
        copy = crash(path, "life-2")
    async with open_mesh(copy, workflows=[built]) as mesh:
        assert await mesh.handle(handle.id, tenant=tenant).result(10) == "a-b-a-c"
        run = await mesh.get_run(handle.id)
    assert seen == [("a", 1), ("b", 1), ("b", 2), ("c", 2)]
    assert run.recoveries == 1
    assert run.status is S.SUCCESS


async def test_recoveries_do_not_use_up_a_tasks_retries(open_mesh: Open, path: Path) -> None:
    blocked = asyncio.Event()
    seen: list[int] = []

    async def work() -> str:
        seen.append(current_task().attempt)
        if len(seen) in (1, 3):
            raise OSError("its two failures")
        if len(seen) == 2:
            blocked.set()
            await asyncio.sleep(3_600)
        return "done"

    built = Workflow("w").add(work, id="t", retry=RetryPolicy(max_retries=2, initial_delay=0.0))
    async with open_mesh(path) as mesh:
        tenant = (await mesh.create_tenant("A", "enterprise")).tenant_id
        handle = await mesh.submit(built, tenant=tenant)
        await blocked.wait()
        copy = crash(path, "life-2")
    async with open_mesh(copy, workflows=[built]) as mesh:
        assert await mesh.handle(handle.id, tenant=tenant).result(10) == "done"
        (each,) = (await mesh.get_run(handle.id)).tasks
    assert seen == [1, 2, 3, 4]
    assert [a.number for a in each.failures] == [1, 3]


async def test_a_retry_delay_goes_on_after_a_crash(open_mesh: Open, path: Path) -> None:
    async def work() -> str:
        if current_task().attempt == 1:
            raise OSError("once")
        return "done"

    built = Workflow("w").add(work, id="t", retry=RetryPolicy(initial_delay=0.4))
    async with open_mesh(path) as mesh:
        tenant = (await mesh.create_tenant("A", "enterprise")).tenant_id
        handle = await mesh.submit(built, tenant=tenant)
        async for event in handle.events():
            if event.status is S.RETRYING:
                break
        copy = crash(path, "life-2")
    async with open_mesh(copy, workflows=[built]) as mesh:
        assert await mesh.handle(handle.id, tenant=tenant).result(10) == "done"
        (each,) = (await mesh.get_run(handle.id)).tasks
    assert each.started_at is not None
    assert (each.started_at - each.failures[0].ended_at).total_seconds() >= 0.399


async def test_a_moment_goes_on_after_a_crash(open_mesh: Open, path: Path) -> None:
    async def work() -> str:
        return "done"

    built = Workflow("w").add(work, id="t")
    moment = datetime.now(UTC) + timedelta(seconds=0.4)
    async with open_mesh(path) as mesh:
        tenant = (await mesh.create_tenant("A", "enterprise")).tenant_id
        handle = await mesh.submit(built, tenant=tenant, not_before=moment)
        copy = crash(path, "life-2")
    async with open_mesh(copy, workflows=[built]) as mesh:
        assert await mesh.handle(handle.id, tenant=tenant).result(10) == "done"
        run = await mesh.get_run(handle.id)
    assert run.started_at is not None
    assert run.started_at >= moment


async def test_a_wish_to_cancel_survives_a_crash(open_mesh: Open, path: Path) -> None:
    blocked, let_go = asyncio.Event(), asyncio.Event()
    seen: list[str] = []

    async def stubborn(name: str) -> str:
        seen.append(name)
        blocked.set()
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue
        return name

    built = Workflow("w").add(stubborn, id="a", args=["a"]).add(stubborn, id="b", args=["b"], depends_on=["a"])
    async with open_mesh(path, stop_grace_seconds=1.0) as mesh:
        tenant = (await mesh.create_tenant("A", "enterprise")).tenant_id
        handle = await mesh.submit(built, tenant=tenant)
        await blocked.wait()
        await handle.cancel()
        copy = crash(path, "life-2")
        let_go.set()
    async with open_mesh(copy, workflows=[built]) as mesh:
        with pytest.raises(RunCancelled):
            await mesh.handle(handle.id, tenant=tenant).result(10)
        run = await mesh.get_run(handle.id)
    assert [each.status for each in run.tasks] == [S.CANCELLED, S.CANCELLED]
    assert seen == ["a"], "nothing of it started again"


async def test_failures_skips_and_keys_survive_a_crash(open_mesh: Open, path: Path) -> None:
    blocked = asyncio.Event()
    hold = True

    async def fail() -> None:
        raise ValueError("for good")

    async def work() -> str:
        if hold:
            blocked.set()
            await asyncio.sleep(3_600)
        return "done"

    no = RetryPolicy(max_retries=0)
    built = Workflow("w").add(fail, id="a", retry=no).add(work, id="b", depends_on=["a"]).add(work, id="c")
    async with open_mesh(path) as mesh:
        tenant = (await mesh.create_tenant("A", "enterprise")).tenant_id
        handle = await mesh.submit(built, tenant=tenant, idempotency_key="k")
        await blocked.wait()
        while (await mesh.get_run(handle.id)).tasks[0].status is not S.FAILED:  # noqa: ASYNC110 - nothing tells of it, so it is looked for
            await asyncio.sleep(0)
        copy = crash(path, "life-2")
    hold = False
    async with open_mesh(copy, workflows=[built]) as mesh:
        again = await mesh.submit(built, tenant=tenant, idempotency_key="k")
        assert again.id == handle.id
        with pytest.raises(RunFailed) as caught:
            await again.result(10)
        run = await mesh.get_run(handle.id)
    assert caught.value.errors == {"a": "ValueError: for good"}
    assert [each.status.value for each in run.tasks] == ["failed", "skipped", "success"]


async def test_a_task_during_which_the_process_dies_three_times_is_quarantined_and_the_others_go_on(
    open_mesh: Open, path: Path
) -> None:
    deadly_runs = True
    blocked = asyncio.Event()
    seen: list[int] = []

    async def deadly() -> str:
        seen.append(current_task().attempt)
        blocked.set()
        if deadly_runs:
            await asyncio.sleep(3_600)
        return "never"

    async def harmless(number: int) -> int:
        await asyncio.sleep(0)
        return number

    built = Workflow("deadly").add(deadly, id="killer").add(harmless, id="after", args=[1], depends_on=["killer"])
    built.add(harmless, id="beside", args=[2])
    other = Workflow("harmless").add(harmless, args=[3])
    current = path
    async with open_mesh(current) as mesh:
        tenant = (await mesh.create_tenant("A", "enterprise")).tenant_id
        handle = await mesh.submit(built, tenant=tenant)
        others = [await mesh.submit(other, tenant=tenant) for _ in range(5)]
        await blocked.wait()
        current = crash(current, "life-2")
    # the first death names nobody: short tasks are not written down when they start
    for life in range(3, 6):
        blocked.clear()
        async with open_mesh(current, workflows=[built, other]) as mesh:
            await asyncio.wait_for(blocked.wait(), 10)
            assert recorded_as_running(current) >= 1, "after a crash the store knows of a task before it begins"
            current = crash(current, f"life-{life}")
    async with open_mesh(current, workflows=[built, other]) as mesh:
        with pytest.raises(RunFailed, match="the process died 3 times while this task was running") as caught:
            await mesh.handle(handle.id, tenant=tenant).result(10)
        assert set(caught.value.errors) == {"killer"}
        for each in others:
            assert await mesh.handle(each.id, tenant=tenant).result(10) == 3
        run = await mesh.get_run(handle.id)
    assert {each.task_id: each.status.value for each in run.tasks} == {
        "killer": "failed",
        "after": "skipped",
        "beside": "success",
    }
    assert seen == [1, 2, 3, 4], "not a fifth time"


async def test_suspects_run_one_after_the_other_and_neither_a_cancelled_nor_a_paused_one_holds_up_the_rest(
    open_mesh: Open, path: Path
) -> None:
    gates = {name: asyncio.Event() for name in "abcde"}
    begun: dict[str, asyncio.Event] = {name: asyncio.Event() for name in "abcde"}
    anybody = asyncio.Event()
    running: set[str] = set()
    most = 0
    hold = True

    async def work(name: str) -> str:
        nonlocal most
        running.add(name)
        anybody.set()
        begun[name].set()
        most = max(most, len(running))
        try:
            if hold:
                await asyncio.sleep(3_600)
            await gates[name].wait()
        finally:
            running.discard(name)
        return name

    async with open_mesh(path) as mesh:
        tenants = {name: (await mesh.create_tenant(name)).tenant_id for name in "abcde"}
        workflows = {name: Workflow(f"w-{name}").add(work, args=[name]) for name in "abcde"}
        handles = {name: await mesh.submit(workflows[name], tenant=tenants[name]) for name in "abcde"}
        await asyncio.gather(*(event.wait() for event in begun.values()))
        current = crash(path, "life-2")
    begun.update({name: asyncio.Event() for name in "abcde"})
    async with open_mesh(current, workflows=workflows.values()) as mesh:
        await asyncio.gather(*(event.wait() for event in begun.values()))
        assert recorded_as_running(current) == 5
        current = crash(current, "life-3")
    hold, most = False, 0
    anybody.clear()
    begun.update({name: asyncio.Event() for name in "abcde"})
    async with open_mesh(current, workflows=workflows.values()) as mesh:
        again = {name: mesh.handle(handles[name].id, tenant=tenants[name]) for name in "abcde"}
        await asyncio.wait_for(anybody.wait(), 10)
        (first,) = running
        cancelled, paused, *rest = sorted(set("abcde") - {first})
        await again[cancelled].cancel()
        await mesh.suspend_tenant(tenants[paused])
        for gate in gates.values():
            gate.set()
        for name in (first, *rest):
            assert await again[name].result(5) == name
        assert not begun[paused].is_set()
        await mesh.resume_tenant(tenants[paused])
        assert await again[paused].result(5) == paused
        with pytest.raises(RunCancelled):
            await again[cancelled].result(5)
    assert most == 1


# --- code that cannot be found --------------------------------------------------------------------------------------


def hidden() -> Workflow:
    """Make a workflow that no other process can find by name."""

    async def work(x: int) -> int:
        return x + 1

    return (
        Workflow("hidden")
        .takes("x")
        .add(work, args=[__import__("synergymesh.workflows.nodes", fromlist=["given"]).given("x")])
    )


@pytest.mark.parametrize("supplied", ["workflows=", "submit"])
async def test_a_run_whose_workflow_cannot_be_found_waits_with_that_reason_until_it_is_supplied(
    open_mesh: Open, path: Path, supplied: str
) -> None:
    built = hidden()
    assert built.source is None
    async with open_mesh(path) as mesh:
        tenant = (await mesh.create_tenant("A", "enterprise")).tenant_id
        later = datetime.now(UTC) + timedelta(seconds=0.3)
        handle = await mesh.submit(built, tenant=tenant, input={"x": 1}, not_before=later)
    async with open_mesh(path) as mesh:
        again = mesh.handle(handle.id, tenant=tenant)
        with pytest.raises(TimeoutError):
            await again.result(0.4)
        run = await mesh.get_run(handle.id)
        assert not run.status.is_final
        assert run.reason is not None
        assert "'hidden'" in run.reason
        assert "workflows=" in run.reason
        assert (await mesh.list_runs())[0].reason == run.reason
        if supplied == "submit":
            other = await mesh.submit(hidden(), tenant=tenant, input={"x": 5})
            assert await other.result(10) == 6
            assert await again.result(10) == 2
            assert (await mesh.get_run(handle.id)).reason is None
            return
    async with open_mesh(path, workflows=[hidden()]) as mesh:
        assert await mesh.handle(handle.id, tenant=tenant).result(10) == 2


async def test_a_run_that_waits_for_its_code_can_be_cancelled(open_mesh: Open, path: Path) -> None:
    async with open_mesh(path) as mesh:
        tenant = (await mesh.create_tenant("A", "enterprise")).tenant_id
        later = datetime.now(UTC) + timedelta(seconds=0.3)
        handle = await mesh.submit(hidden(), tenant=tenant, input={"x": 1}, not_before=later)
    async with open_mesh(path) as mesh:
        again = mesh.handle(handle.id, tenant=tenant)
        assert await again.cancel()
        with pytest.raises(RunCancelled):
            await again.result(10)
        assert await mesh.count_open_runs() == 0


async def test_a_workflow_in_a_file_is_found_again_and_one_that_changed_too_much_waits_with_the_reason(
    open_mesh: Open, path: Path, tmp_path: Path
) -> None:
    file = tmp_path / "my-flow.py"
    source = (
        "from synergymesh import task, workflow\n"
        "@task\nasync def {0}():\n    return 7\n"
        "@workflow\ndef flow():\n    return {0}()\n"
    )
    file.write_text(source.format("work"))
    async with open_mesh(path) as mesh:
        tenant = (await mesh.create_tenant("A", "enterprise")).tenant_id
        moments = [datetime.now(UTC) + timedelta(seconds=0.3)] * 2
        first, second = [await mesh.submit(load_workflow(file), tenant=tenant, not_before=moment) for moment in moments]
        copy = crash(path, "life-2")
    async with open_mesh(path) as mesh:
        assert await mesh.handle(first.id, tenant=tenant).result(10) == 7
    file.write_text(source.format("renamed"))
    async with open_mesh(copy) as mesh:
        with pytest.raises(TimeoutError):
            await mesh.handle(second.id, tenant=tenant).result(0.15)
        assert "no task 'work' any more" in str((await mesh.get_run(second.id)).reason)
    file.unlink()
    async with open_mesh(copy) as mesh:
        assert str(file) in str((await mesh.get_run(second.id)).reason)


# --- at random moments ----------------------------------------------------------------------------------------------


class Effects:
    """What the tasks did, in which life."""

    def __init__(self) -> None:
        self.life = 1
        self.seen: list[tuple[int, str, str, int]] = []

    def note(self) -> None:
        context = current_task()
        self.seen.append((self.life, context.run_id, context.task_id, context.attempt))


def build(scripted: ScriptedWorkflow, name: str, effects: Effects, dice: Random) -> Workflow:
    async def act(component_id: str, *used: Any) -> str:
        effects.note()
        for _ in range(dice.randrange(6)):
            await asyncio.sleep(0)
        if scripted.scripts[component_id].outcome is not S.SUCCESS:
            raise ValueError(component_id)
        return component_id

    built = Workflow(name)
    for component in scripted.definition.components:
        built.add(
            act,
            id=component.component_id,
            depends_on=list(component.dependencies),
            args=[component.component_id],
            required=component.required,
            retry=component.retry,
        )
    return built.returns({n.component_id: ref(n.component_id) for n in scripted.definition.output.values()})


def committed(path: Path) -> dict[tuple[str, str], str]:
    """Give the final tasks of a database, by run and component."""
    connection = sqlite3.connect(path)
    rows = connection.execute(
        "SELECT run_id, component_id, status FROM tasks WHERE status NOT IN ('running', 'pending', 'retrying')"
    ).fetchall()
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    return {(run_id, component_id): status for run_id, component_id, status in rows}


async def test_random_workflows_that_are_interrupted_again_and_again_end_as_the_reference_says(
    open_mesh: Open, path: Path, roomy: ResourceQuota
) -> None:
    seed = SystemRandom().randrange(2**32)
    dice = Random(seed)
    effects = Effects()
    scripts = {f"w{n}": random_workflow(seed + n, components_max=25) for n in range(25)}
    workflows = {name: build(scripted, name, effects, dice) for name, scripted in scripts.items()}
    known: dict[int, dict[tuple[str, str], str]] = {}
    current = path
    async with open_mesh(current) as mesh:
        tenant = (await mesh.create_tenant("A", "enterprise", quota=roomy)).tenant_id
        handles = {name: await mesh.submit(built, tenant=tenant) for name, built in workflows.items()}
        current = crash(current, "life-2")
    for life in range(2, 11):
        effects.life = life
        known[life] = committed(current)
        assert known[life].items() >= known.get(life - 1, {}).items(), f"seed {seed}: a final state changed"
        async with open_mesh(current, workflows=workflows.values(), shutdown_grace_seconds=0.0):
            for _ in range(dice.randrange(80)):
                await asyncio.sleep(0)
            following = crash(current, f"life-{life + 1}") if dice.random() < 0.7 else current
        current = following
    effects.life = life + 1
    known[life + 1] = committed(current)
    async with open_mesh(current, workflows=workflows.values()) as mesh:
        for name, handle in handles.items():
            with suppress(RunFailed):
                await mesh.handle(handle.id, tenant=tenant).result(20)
            run = await mesh.get_run(handle.id)
            # whatever ends badly raises, so a timeout is a failure here
            outcomes = {c: S.SUCCESS if s is S.SUCCESS else S.FAILED for c, s in scripts[name].outcomes.items()}
            # what ran in three lives that were cut short is taken for the culprit
            quarantined = [each for each in run.tasks if each.error and each.error.type == "synergymesh.Quarantined"]
            outcomes |= {each.task_id: S.FAILED for each in quarantined}
            expected = interpret(scripts[name].definition, outcomes)
            assert {each.task_id: each.status for each in run.tasks} == expected.tasks, f"seed {seed}, {name}"
            assert run.status is expected.status, f"seed {seed}, {name}"
        assert await mesh.count_open_runs() == 0
    repeated = [(each, r, c) for each, r, c, _ in effects.seen if (r, c) in known.get(each, {})]
    assert not repeated, f"seed {seed}: a committed result was computed again"
