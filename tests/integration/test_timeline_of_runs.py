"""The timeline of real runs: from the engine, and from the database of a process that is gone."""

from __future__ import annotations

import asyncio
import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest

from synergymesh import (
    Orchestrator,
    ResourceQuota,
    RetryPolicy,
    RunFailed,
    Timeline,
    Workflow,
    current_task,
    ref,
    task,
    timeline_html,
    timeline_svg,
)
from synergymesh.cli.app import main
from synergymesh.domain.observability.timeline import Phase
from synergymesh.errors import UnknownRun

OpenMesh = Callable[..., Orchestrator]


async def first() -> int:
    await asyncio.sleep(0.02)
    return 1


async def flaky(before: int) -> int:
    if current_task().attempt == 1:
        raise ConnectionError("once")
    return before + 1


async def last(*before: int) -> int:
    await asyncio.sleep(0.01)
    return sum(before)


def build() -> Workflow:
    flow = Workflow("flow").add(first, id="first")
    flow.add(flaky, id="flaky", args=[ref("first")], retry=RetryPolicy(max_retries=1, initial_delay=0.05))
    flow.add(first, id="beside")
    return flow.add(last, id="last", args=[ref("flaky"), ref("beside")])


async def run_it(mesh: Orchestrator) -> tuple[str, Timeline]:
    quota = ResourceQuota(max_concurrent_tasks=1)
    tenant = (await mesh.create_tenant("Acme", "enterprise", quota=quota)).tenant_id
    run = await mesh.submit(build(), tenant=tenant)
    await run.result()
    with pytest.raises(UnknownRun):
        await mesh.timeline(run.id, tenant="tenant-other")
    return run.id, await mesh.timeline(run.id, tenant=tenant)


async def test_a_run_says_where_its_time_went(mesh: Orchestrator) -> None:
    _, shown = await run_it(mesh)
    lanes = {lane.task_id: lane for lane in shown.lanes}
    assert lanes["flaky"].seconds(Phase.RETRY_DELAY) >= 0.049
    assert [span.attempt for span in lanes["flaky"].spans if span.attempt] == [1, 2]
    assert lanes["last"].seconds(Phase.DEPENDENCY) > 0.05
    kept = lanes["beside"].seconds(Phase.CONCURRENCY) + lanes["first"].seconds(Phase.CONCURRENCY)
    assert kept >= 0.019, "one slot for two tasks"
    assert shown.critical_path[-1].task_id == "last"
    assert sum(shown.critical_totals().values()) == pytest.approx(shown.seconds, abs=0.02)
    assert shown.outages == 0
    ET.fromstring(timeline_svg(shown))
    assert "<svg" in timeline_html(shown)


async def test_an_open_run_has_a_timeline_too(mesh: Orchestrator, tenant: str) -> None:
    gate = asyncio.Event()
    begun = asyncio.Event()

    async def waits() -> None:
        begun.set()
        await gate.wait()

    run = await mesh.submit(Workflow("waits").add(waits, id="a").add(waits, id="b", depends_on=["a"]), tenant=tenant)
    await begun.wait()
    shown = await mesh.timeline(run.id)
    assert [lane.spans[-1].phase for lane in shown.lanes] == [Phase.RUNNING, Phase.DEPENDENCY]
    gate.set()


def test_the_command_draws_and_tells(
    open_mesh: OpenMesh, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def make() -> str:
        async with open_mesh() as mesh:
            return (await run_it(mesh))[0]

    run_id = asyncio.run(make())
    monkeypatch.setenv("SYNERGYMESH_DATABASE", str(tmp_path / "mesh.db"))

    def cli(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["timeline", *arguments])
        assert isinstance(ended.value.code, int)
        return ended.value.code, *capsys.readouterr()

    code, out, _ = cli("last")
    assert code == 0
    assert "pause before a retry" in out
    assert "flaky" in out
    code, out, _ = cli(run_id, "--json")
    told = json.loads(out)
    assert (told["run_id"], told["critical_path"][-1]["task_id"]) == (run_id, "last")
    assert set(told["totals"]) == {str(phase) for phase in Phase}
    for name in ("run.svg", "run.html", "RUN.SVG"):
        assert cli(run_id, "--output", str(tmp_path / name))[0] == 0
        assert "<svg" in (tmp_path / name).read_text()
    assert cli(run_id, "--output", str(tmp_path / "run.png"))[0] == 2
    assert cli(run_id, "--output", str(tmp_path / "nowhere" / "run.svg"))[0] == 2
    assert cli("run-unknown")[0] == 2


async def test_what_undoes_tasks_has_its_lanes_and_its_place_on_the_critical_path(open_mesh: OpenMesh) -> None:
    async def undo(result: int) -> None:
        await asyncio.sleep(0.02)

    async def book(*before: int) -> int:
        return 1

    async def fail(*before: int) -> None:
        raise ValueError("sold out")

    booking = task(book, compensate=task(undo))
    trip = Workflow("trip").add(booking, id="hotel").add(booking, id="train", args=[ref("hotel")])
    trip.add(fail, id="pay", args=[ref("train")], retry=RetryPolicy(max_retries=0)).add(
        booking, id="never", args=[ref("pay")]
    )
    async with open_mesh(workflows=[trip]) as mesh:
        tenant = (await mesh.create_tenant("Acme", "enterprise")).tenant_id
        run = await mesh.submit(trip, tenant=tenant)
        with pytest.raises(RunFailed):
            await run.result()
        shown = await mesh.timeline(run.id)
    assert [lane.task_id for lane in shown.lanes] == ["hotel", "train", "pay", "never", "undo:train", "undo:hotel"]
    assert [step.task_id for step in shown.critical_path][-3:] == ["pay", "undo:train", "undo:hotel"]
    assert sum(shown.critical_totals().values()) == pytest.approx(shown.critical_path[-1].spans[-1].end)
    assert shown.critical_totals()[Phase.RUNNING] >= 0.04
    ET.fromstring(timeline_svg(shown))
