"""The benchmarks measure what they say: every goal is of a known scenario, and what they switch off works."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from benchmarks.__main__ import GOALS, MODULE_OF
from benchmarks.engine import WIDE
from benchmarks.plain_queue import without_limits
from benchmarks.scenarios import layered

from synergymesh import Orchestrator


def test_every_goal_is_of_a_scenario() -> None:
    assert {scenario for scenario, _ in GOALS} <= set(MODULE_OF)


@pytest.mark.parametrize("limits", [True, False])
async def test_the_engine_does_the_same_work_without_limits(limits: bool) -> None:
    """What the ratio of `benchmarks.limits` compares differs in nothing else."""
    with nullcontext() if limits else without_limits():
        mesh = Orchestrator(":memory:", max_concurrent_tasks=4)
        await mesh.start()
    try:
        tenant = (await mesh.create_tenant("A", "enterprise", quota=WIDE)).tenant_id
        handles = [await mesh.submit(layered(3, 4), tenant=tenant) for _ in range(5)]
        for handle in handles:
            await handle.result(20)
        runs = await mesh.list_runs()
        assert [run.status for run in runs] == ["success"] * 5
    finally:
        await mesh.close()
