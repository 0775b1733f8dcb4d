"""The recorded executions of real workflows run to success, in dependency order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from synergymesh import ExecutionStatus, Orchestrator, read_wfformat

TRACES = sorted((Path(__file__).parents[3] / "shared" / "data" / "wfformat").glob("*.json"))
RUN_SECONDS = 0.5
"""What the longest path of a trace takes here."""

pytestmark = pytest.mark.skipif(not TRACES, reason="there are no traces in ../shared/data/wfformat")


def test_there_are_ten_traces() -> None:
    assert len(TRACES) == 10


def parents_of(trace: Path) -> dict[str, set[str]]:
    """Read the order from the file, apart from the reader that is tested."""
    tasks: list[dict[str, Any]] = json.loads(trace.read_text())["workflow"]["specification"]["tasks"]
    parents = {each["id"]: set(each.get("parents", ())) for each in tasks}
    for each in tasks:
        for child in each.get("children", ()):
            parents[child].add(each["id"])
    return parents


@pytest.mark.parametrize("trace", TRACES, ids=lambda trace: trace.stem)
async def test_a_trace_runs_to_success_in_dependency_order(mesh: Orchestrator, tenant: str, trace: Path) -> None:
    plan = read_wfformat(trace).definition
    longest = max(plan.graph.upward_ranks())
    workflow = read_wfformat(trace, speed=max(1.0, longest / RUN_SECONDS))
    handle = await mesh.submit(workflow, tenant=tenant)
    await handle.result(60)
    run = await mesh.get_run(handle.id)
    parents = parents_of(trace)
    assert run.status is ExecutionStatus.SUCCESS
    tasks = {each.task_id: each for each in run.tasks}
    assert set(tasks) == set(parents)
    for task_id, each in tasks.items():
        assert (each.status, each.attempt) == (ExecutionStatus.SUCCESS, 1)
        assert each.started_at is not None
        assert each.ended_at is not None
        assert each.started_at <= each.ended_at
        for parent in parents[task_id]:
            ended = tasks[parent].ended_at
            assert ended is not None
            assert ended <= each.started_at, f"{task_id} started before {parent} had ended"


async def test_all_traces_run_beside_each_other(mesh: Orchestrator, tenant: str) -> None:
    handles = [await mesh.submit(read_wfformat(trace, speed=1e6), tenant=tenant) for trace in TRACES]
    for handle in handles:
        await handle.result(60)
        assert await handle.status() is ExecutionStatus.SUCCESS
