"""How long finished runs are kept: what can be said, and what is pruned of many tenants' runs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synergymesh import Orchestrator
from synergymesh.domain.retention import DAY, ended_before
from synergymesh.domain.states import ExecutionStatus
from synergymesh.domain.tenants import RETENTION_DAYS_DEFAULT, TenantPolicy
from synergymesh.engine.run_ids import first_run_id
from synergymesh.errors import InvalidRequest
from synergymesh.ports.changes import Change, RunCreated, RunFinished, RunStarted, TaskFinished
from synergymesh.settings import read_settings
from synergymesh.testing.store_changes import HASH, workflow

S = ExecutionStatus
NOW = 1_000 * DAY
FINAL = [S.SUCCESS, S.FAILED, S.PARTIAL, S.CANCELLED]


class StoppedClock:
    """A clock that stands still."""

    def now(self) -> int:
        return NOW


def test_a_run_may_go_when_its_retention_is_over() -> None:
    assert ended_before(NOW, 30) == 970 * DAY
    assert ended_before(NOW, 0.5) == NOW - DAY // 2
    assert ended_before(NOW, 0) == NOW
    assert ended_before(NOW, 36_500) == 0, "a hundred years before 1972 nothing has ended"


@pytest.mark.parametrize("days", [0, 0.25, 30, 36_500, 36_500.0, None])
def test_a_tenant_can_have_its_own_retention(days: float | None) -> None:
    assert TenantPolicy(retention_days=days).retention_days == days


@pytest.mark.parametrize("days", [-1, -0.001, 36_500.1, float("nan"), float("inf"), True, "30", [1]])
def test_a_retention_that_makes_no_sense_is_refused(days: Any) -> None:
    with pytest.raises(InvalidRequest, match="retention_days must be a number of days") as caught:
        TenantPolicy(retention_days=days)
    assert caught.value.field == "retention_days"


def test_each_tier_has_a_retention(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert {plan.retention_days for plan in read_settings().tier_plans().values()} == {RETENTION_DAYS_DEFAULT} == {30}
    Path("synergymesh.toml").write_text("[tiers.basic]\nretention_days = 0\n[tiers.gold]\nretention_days = 400.5\n")
    plans = read_settings().tier_plans()
    assert (plans["basic"].retention_days, plans["gold"].retention_days) == (0, 400.5)
    Path("synergymesh.toml").write_text("[tiers.basic]\nretention_days = -1\n")
    with pytest.raises(InvalidRequest, match="retention_days"):
        read_settings()


RUN = st.tuples(
    st.integers(0, 3),  # its tenant
    st.floats(0, 60),  # days since it was submitted
    st.floats(0, 1) | st.none(),  # when it ended of the time since; never
    st.sampled_from(FINAL),
    st.integers(0, 450),  # tasks: up to more than two steps
)


@settings(max_examples=60, deadline=None)
@given(
    retentions=st.lists(st.sampled_from([0, 0.5, 7, 30, 36_500, None]), min_size=4, max_size=4),
    runs=st.lists(RUN, max_size=12),
)
def test_exactly_what_is_final_and_past_its_tenants_retention_is_pruned(
    retentions: list[float | None], runs: list[tuple[int, float, float | None, ExecutionStatus, int]]
) -> None:
    async def pruned() -> None:
        async with Orchestrator(":memory:", execute=False, clock=StoppedClock()) as mesh:
            store = mesh._database
            ids = []
            for days in retentions:
                tenant = await mesh.create_tenant("T")
                ids.append(tenant.tenant_id)
                if days is not None:
                    assert (await mesh.set_retention(tenant.tenant_id, days)).retention_days == days
            await store.commit([[workflow()]])
            kept: set[str] = set()
            rows = 0
            for number, (whose, age, ended, status, tasks) in enumerate(runs):
                created_at = NOW - int(age * DAY)
                ended_at = None if ended is None else created_at + int(ended * (NOW - created_at))
                run_id = f"{first_run_id(created_at)}{number:08x}"
                unit: list[Change] = [
                    RunCreated(run_id, ids[whose], "w", HASH, b"{}", None, 0, 0, created_at),
                    RunStarted(run_id, ids[whose], created_at),
                ]
                unit += [
                    TaskFinished(run_id, f"t{n}", ids[whose], S.SUCCESS, 1, created_at, created_at, b"1", None)
                    for n in range(tasks)
                ]
                if ended_at is not None:
                    unit.append(RunFinished(run_id, ids[whose], status, created_at, ended_at, b"1", None))
                assert [type(a).__name__ for a in await store.commit([unit])] == ["Committed"]
                days = retentions[whose] if retentions[whose] is not None else 30
                assert days is not None
                if ended_at is None or ended_at >= ended_before(NOW, days):
                    kept.add(run_id)
                else:
                    rows += 1 + tasks
            answer = await mesh.prune()
            assert {run.run_id for run in await store.list_runs(tenant_id=None, limit=1_000)} == kept
            assert (answer.runs, answer.rows) == (len(runs) - len(kept), rows)
            left = await store.list_tasks([f"{first_run_id(NOW - int(r[1] * DAY))}{n:08x}" for n, r in enumerate(runs)])
            assert {task.run_id for task in left} <= kept
            assert answer.workflow_versions == (0 if kept else 1)

    asyncio.run(pruned())
