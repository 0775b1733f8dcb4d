"""What if: recorded and declared runs under other limits, asked by the operator, by a tenant, by a command."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synergymesh import (
    Capacity,
    Orchestrator,
    PlannedRun,
    PlannedTask,
    ResourceQuota,
    RetryPolicy,
    RunFailed,
    TenantChange,
    Workflow,
    current_task,
)
from synergymesh.cli.app import _run
from synergymesh.domain.instants import SECOND
from synergymesh.domain.scheduling.limits import CohortShare, Request
from synergymesh.domain.states import TenantStatus
from synergymesh.domain.tenants import TIER_PLANS, Tenant, TenantPolicy
from synergymesh.engine.replay import recordings, what_if
from synergymesh.engine.replay.recordings import parse_workload
from synergymesh.engine.replay.what_if import Question, check_runs
from synergymesh.errors import FeatureNotEnabled, InvalidRequest, UnknownTenant

CAPACITY = Capacity(64, 16_000, 8_000)
PLANS = {tier.value: plan for tier, plan in TIER_PLANS.items()}
BEGIN = 1_800_000_000 * SECOND


async def nothing() -> None:
    """Do nothing."""


def tenant_of(name: str, tier: str = "basic", parent: str | None = None, **policy: Any) -> Tenant:
    """Make a tenant with its tier's quota and weight."""
    plan = PLANS[tier]
    return Tenant(
        tenant_id=name,
        tenant_name=name,
        tier=tier,
        quota=plan.quota,
        status=TenantStatus.ACTIVE,
        created_at=datetime.now(UTC),
        weight=plan.weight,
        features_enabled=plan.features,
        sla_uptime_percent=plan.sla_uptime_percent,
        policy=TenantPolicy(**policy),
        parent_id=parent,
    )


def run_of(tenant_id: str, *seconds: float, after: float = 0) -> PlannedRun:
    """Make a run of tasks that take so many seconds."""
    tasks = [PlannedTask(component=n, duration_ns=int(s * SECOND)) for n, s in enumerate(seconds)]
    return PlannedRun(tenant_id=tenant_id, submitted_at=BEGIN + int(after * SECOND), tasks=tasks)


def question(*runs: PlannedRun, tenants: list[Tenant], **asked: Any) -> Question:
    """Ask about declared runs."""
    given = {"changes": {}, **asked}
    return Question(workload=check_runs(runs), tenants=tenants, plans=PLANS, capacity=CAPACITY, **given)


# --- the question ---------------------------------------------------------------------------------------------------


def test_another_tier_lets_more_tasks_run_at_a_time() -> None:
    asked = question(
        run_of("a", *[10] * 20), tenants=[tenant_of("a")], changes={"a": TenantChange(tier="professional")}
    )
    asked.check()
    answer = asked.replay()
    (a,) = answer.tenants
    assert (a.today.makespan_ns, a.what_if.makespan_ns) == (40 * SECOND, 10 * SECOND)
    assert (a.today.wait_p95_ns, a.what_if.wait_p95_ns) == (30 * SECOND, 0)
    assert a.today.limit_hits["concurrency"] > 0 == a.what_if.limit_hits.get("concurrency", 0)
    assert (answer.runs, answer.tasks) == (1, 20)


def test_quota_and_weight_come_before_those_of_the_tier() -> None:
    change = TenantChange(tier="enterprise", quota=ResourceQuota(max_concurrent_tasks=2), weight=3)
    today, then = question(run_of("a", 1), tenants=[tenant_of("a")], changes={"a": change}).scenarios()
    assert (today.tenants[0].limits.max_concurrent, today.tenants[0].weight) == (5, 1)
    assert (then.tenants[0].limits.max_concurrent, then.tenants[0].weight) == (2, 3)


def test_a_throttle_holds_in_both_and_own_weights_survive_a_change_of_tier() -> None:
    tenants = [tenant_of("a", "professional", throttle_percent=10, weight=9)]
    today, then = question(run_of("a", 1), tenants=tenants, changes={"a": TenantChange(tier="enterprise")}).scenarios()
    assert (today.tenants[0].limits.max_concurrent, then.tenants[0].limits.max_concurrent) == (2, 10)
    assert then.tenants[0].weight == 9


def test_cpu_limits_are_a_part_of_the_capacity_that_is_supposed() -> None:
    asked = question(run_of("a", 1), tenants=[tenant_of("a")], capacity_then=Capacity(64, 16_000, 80_000))
    today, then = asked.scenarios()
    assert (today.tenants[0].limits.cpu_millis, then.tenants[0].limits.cpu_millis) == (4_000, 40_000)


def test_only_tenants_with_runs_and_those_above_them_are_replayed() -> None:
    share = CohortShare(nominal=Capacity(2, 100, 1_000))
    tenants = [tenant_of("idle"), tenant_of("parent", "enterprise"), tenant_of("child", parent="parent", share=share)]
    asked = question(run_of("child", 1, 1, 1), tenants=tenants, capacity_then=Capacity(1, 16_000, 8_000))
    today, _ = asked.scenarios()
    assert [t.tenant_id for t in today.tenants] == ["parent", "child"]
    answer = asked.replay()
    assert [t.tenant_id for t in answer.tenants] == ["child"]
    assert answer.what_if is not None
    assert (answer.what_if.makespan_ns, answer.what_if.capacity.slots) == (3 * SECOND, 1)


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.lists(st.integers(1, 50), min_size=1, max_size=8), st.integers(0, 60)),
        min_size=1,
        max_size=15,
    ),
    st.sampled_from(list(PLANS)),
)
def test_what_is_no_change_changes_nothing(runs: list[tuple[str, list[int], int]], tier: str) -> None:
    tenants = [tenant_of(name, tier) for name in "abc"]
    planned = [run_of(name, *seconds, after=after) for name, seconds, after in runs]
    same = {name: TenantChange(tier=tier, quota=PLANS[tier].quota) for name in "abc"}
    answer = question(*planned, tenants=tenants, changes=same, capacity_then=CAPACITY).replay()
    assert answer.today == answer.what_if
    assert all(tenant.today == tenant.what_if for tenant in answer.tenants)
    assert sum(tenant.today.tasks for tenant in answer.tenants) == answer.tasks


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "nothing is different"),
        ({"changes": {"a": TenantChange()}}, "nothing is different"),
        ({"changes": {"b": TenantChange(weight=2)}}, "no tenant 'b'"),
        ({"changes": {"a": 5}}, "TenantChange"),
        ({"changes": {"a": TenantChange(tier="gold")}}, "tier must be one of"),
        ({"changes": {"a": TenantChange(quota=5)}}, "quota must be a ResourceQuota"),  # type: ignore[arg-type]  # on purpose
        ({"changes": {"a": TenantChange(weight=0)}}, "weight must be"),
        ({"changes": {"a": TenantChange(weight=1_001)}}, "weight must be"),
        ({"changes": {"a": TenantChange(weight=True)}}, "weight must be"),
        ({"capacity_then": (1, 1, 1)}, "capacity must be a Capacity"),
        ({"capacity_then": Capacity(0, 1, 1)}, "capacity.slots must be"),
        ({"capacity_then": Capacity(1, 1_000_000_001, 1)}, "capacity.memory_mb must be"),
        ({"capacity_then": Capacity(1, 1, float("nan"))}, "capacity.cpu_millis must be"),  # type: ignore[arg-type]  # on purpose
    ],
)
def test_a_question_that_cannot_be_answered_is_refused(asked: dict[str, Any], message: str) -> None:
    with pytest.raises((InvalidRequest, UnknownTenant), match=message):
        question(run_of("a", 1), tenants=[tenant_of("a")], **asked).check()


# --- declared workloads ---------------------------------------------------------------------------------------------


def test_a_declared_workload_is_read() -> None:
    raw = b"""[
        {"tenant": "B", "count": 3, "at_seconds": 1, "every_seconds": 2.5, "priority": 7,
         "tasks": [{"seconds": 2, "memory_mb": 10, "cpus": 0.5}, {"seconds": 0.5, "depends_on": [0]}]},
        {"tenant": "A", "tasks": [{"seconds": 1}]}
    ]"""
    workload = parse_workload(raw, str.lower)
    assert [run.tenant_id for run in workload.runs] == ["a", "b", "b", "b"]
    assert workload.tasks == 7
    first = workload.runs[1]
    assert (first.priority, first.tasks[0].request, first.tasks[1].depends_on) == (7, (10, 500), (0,))
    assert workload.runs[3].submitted_at - first.submitted_at == 5 * SECOND


TASK = '{"seconds": 1}'


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("", "no workload"),
        ("{}", "no workload"),
        ("[" * 100_000, "no workload"),
        ('[{"tenant": "a"}]', "tasks"),
        ('[{"tenant": "a", "tasks": []}]', r"workload\[0\].tasks is empty"),
        (f'[{{"tenant": "a", "tasks": [{TASK}], "more": 1}}]', "more"),
        (f'[{{"tenant": "a", "tasks": [{TASK}], "count": 0}}]', "count"),
        (f'[{{"tenant": "a", "tasks": [{TASK}], "count": 1000001}}]', "count"),
        (f'[{{"tenant": "a", "tasks": [{TASK}], "at_seconds": -1}}]', "at_seconds"),
        (f'[{{"tenant": "a", "tasks": [{TASK}], "at_seconds": 1e300}}]', "at_seconds"),
        (f'[{{"tenant": "a", "tasks": [{TASK}], "at_seconds": NaN}}]', "no workload"),
        (f'[{{"tenant": "a", "tasks": [{TASK}], "every_seconds": 1e9, "count": 9}}]', "every_seconds"),
        ('[{"tenant": "a", "tasks": [{"seconds": 0}]}]', r"tasks\[0\].seconds"),
        ('[{"tenant": "a", "tasks": [{"seconds": 1, "depends_on": [0]}]}]', "depends_on"),
        ('[{"tenant": "a", "tasks": [{"seconds": 1, "depends_on": [-1]}]}]', "depends_on"),
        ('[{"tenant": "a", "tasks": [{"seconds": 1, "memory_mb": -1}]}]', "memory_mb"),
        ('[{"tenant": "a", "tasks": [{"seconds": 1, "cpus": 1e9}]}]', "cpus"),
    ],
)
def test_a_workload_that_cannot_be_replayed_is_refused(raw: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message) as refused:
        parse_workload(raw.encode(), str)
    assert refused.value.field == "workload"


def test_a_workload_may_have_as_many_tasks_as_the_limit_and_not_one_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recordings, "TASKS_MAX", 6)
    monkeypatch.setattr(what_if, "TASKS_MAX", 6)
    raw = '[{"tenant": "a", "tasks": [{"seconds": 1}, {"seconds": 1}], "count": %d}]'
    assert parse_workload((raw % 3).encode(), str).tasks == 6
    with pytest.raises(InvalidRequest, match="more than 6 tasks"):
        parse_workload((raw % 4).encode(), str)
    assert check_runs([run_of("a", 1, 1, 1)] * 2).tasks == 6
    with pytest.raises(InvalidRequest, match="more than 6 tasks"):
        check_runs([run_of("a", 1, 1, 1)] * 2 + [run_of("a", 1)])


@pytest.mark.parametrize(
    "run",
    [
        "run",
        run_of("a"),
        run_of("a", 0),
        replace(run_of("a", 1), submitted_at=float("nan")),
        replace(run_of("a", 1), submitted_at=-1),
        replace(run_of("a", 1), priority="high"),
        replace(run_of("a", 1), tasks="ab"),
        *(
            replace(run_of("a"), tasks=[PlannedTask(**{"component": 0, "duration_ns": 1, **wrong})])
            for wrong in (
                {"duration_ns": float("nan")},
                {"duration_ns": float("inf")},
                {"duration_ns": 1.5e9},
                {"duration_ns": 10**30},
                {"declared_cost": -1},
                {"rank": None},
                {"request": None},
                {"request": Request(-1, 0)},
                {"request": Request(0, 10**30)},
                {"component": []},
                {"depends_on": (0,)},
                {"depends_on": [0]},
                {"depends_on": 5},
            )
        ),
        PlannedRun(
            tenant_id="a",
            submitted_at=BEGIN,
            tasks=[PlannedTask(component=n, duration_ns=1, depends_on=(1 - n,)) for n in range(2)],
        ),
    ],
)
def test_a_planned_run_that_cannot_be_replayed_is_refused(run: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"workload\[0\]"):
        check_runs([run])


# --- recorded runs --------------------------------------------------------------------------------------------------


async def test_recorded_runs_are_replayed_with_what_their_tasks_took(mesh: Orchestrator, tenant: str) -> None:
    async def slow() -> None:
        await asyncio.sleep(0.02)

    async def fails_once() -> None:
        await asyncio.sleep(0.02)
        if current_task().attempt == 1:
            raise ValueError("once")

    async def fails() -> None:
        raise ValueError("always")

    once = RetryPolicy(max_retries=1, initial_delay=0.001)
    graph = Workflow("mixed").add(slow, id="a").add(slow, id="b", depends_on=["a"], memory_mb=7)
    graph.add(fails_once, id="c", retry=once)
    graph.add(fails, id="d", retry=RetryPolicy(max_retries=0), required=False).add(slow, id="e", depends_on=["d"])
    handle = await mesh.submit(graph, tenant=tenant, priority=3)
    with contextlib.suppress(RunFailed):
        await handle.result(5)
    parts = mesh._parts
    assert parts is not None
    now = parts.dispatcher._clock.now()
    workload = await parts.what_ifs._recordings.read(now - 60 * SECOND, now + SECOND)
    (run,) = workload.runs
    by_id = {str(task.component[1]): task for task in run.tasks if task.component}
    executed = list(by_id)
    assert run.priority == 3
    assert by_id["b"].depends_on == (executed.index("a"),)
    assert by_id["b"].request.memory_mb == 7
    assert by_id["a"].duration_ns >= SECOND // 50
    assert by_id["c"].duration_ns >= 2 * SECOND // 50, "both attempts took their time"
    assert workload.left_out == 5 - len(executed)
    assert workload.tasks == len(executed) >= 4


async def test_the_span_decides_what_is_replayed_and_pages_are_read_to_their_end(
    mesh: Orchestrator, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recordings, "PAGE_RUNS", 3)
    graph = Workflow("one").add(nothing, id="a")
    for _ in range(5):
        await (await mesh.submit(graph, tenant=tenant)).result(5)
    middle = datetime.now(UTC)
    for _ in range(7):
        await (await mesh.submit(graph, tenant=tenant)).result(5)
    change = {tenant: TenantChange(weight=2)}
    assert (await mesh.what_if(change)).tasks == 12
    late = await mesh.what_if(change, since=middle)
    assert (late.runs, late.since) == (7, middle)
    assert (await mesh.what_if(change, until=middle)).runs == 5
    assert (await mesh.what_if(change, until=middle - timedelta(days=1))).tenants == ()
    monkeypatch.setattr(recordings, "TASKS_MAX", 12)
    assert (await mesh.what_if(change)).tasks == 12
    monkeypatch.setattr(recordings, "TASKS_MAX", 11)
    with pytest.raises(InvalidRequest, match="Choose a shorter one"):
        await mesh.what_if(change)


@pytest.mark.parametrize(
    "span",
    [
        {"since": "yesterday"},
        {"since": datetime(2026, 1, 1)},
        {"since": datetime(2026, 1, 2, tzinfo=UTC), "until": datetime(2026, 1, 1, tzinfo=UTC)},
        {"since": datetime(2100, 1, 1, tzinfo=UTC)},
    ],
)
async def test_a_span_that_is_none_is_refused(mesh: Orchestrator, tenant: str, span: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="since"):
        await mesh.what_if({tenant: TenantChange(weight=2)}, **span)
    with pytest.raises(InvalidRequest, match="TenantChange"):
        await mesh.what_if([tenant])  # type: ignore[arg-type]  # on purpose


async def test_a_tenant_needs_the_feature_and_sees_and_changes_only_its_own(mesh: Orchestrator) -> None:
    basic, own, other = [
        (await mesh.create_tenant(name, tier)).tenant_id
        for name, tier in (("Basic", "basic"), ("Own", "enterprise"), ("Other", "enterprise"))
    ]
    child = (await mesh.create_tenant("Child", "basic", parent=own)).tenant_id
    runs = [run_of(own, 1, 1), run_of(other, 5, 5, 5), run_of(child, 1)]
    change = TenantChange(weight=2)
    with pytest.raises(FeatureNotEnabled) as refused:
        await mesh.what_if({basic: change}, tenant=basic)
    assert refused.value.feature == "advanced_analytics"
    with pytest.raises(UnknownTenant):
        await mesh.what_if({other: change}, tenant=own)
    with pytest.raises(UnknownTenant):
        await mesh.what_if({own: change}, workload=runs, tenant=own)
    with pytest.raises(InvalidRequest, match="operator's"):
        await mesh.what_if({own: change}, capacity=CAPACITY, tenant=own)
    answer = await mesh.what_if({child: change}, workload=[runs[0], runs[2]], tenant=own)
    assert [t.tenant_name for t in answer.tenants] == ["Own", "Child"]
    graph = Workflow("one").add(nothing, id="a")
    for tenant in (own, other):
        await (await mesh.submit(graph, tenant=tenant)).result(5)
    answer = await mesh.what_if({own: change}, tenant=own)
    assert [t.tenant_name for t in answer.tenants] == ["Own"]
    assert (answer.runs, answer.tasks, answer.today, answer.what_if) == (1, 1, None, None)
    everything = await mesh.what_if({own: change})
    assert [t.tenant_name for t in everything.tenants] == ["Own", "Other"]
    with pytest.raises(UnknownTenant):
        await mesh.what_if({own: change}, workload=[run_of("tenant-none", 1)])


# --- the command line -----------------------------------------------------------------------------------------------


async def ran(*arguments: str) -> int:
    """Run a command in a thread, as another process would, and give its exit code."""
    return await asyncio.to_thread(_run, arguments)


async def test_the_command_replays_a_database_that_another_process_owns(
    open_mesh: Callable[..., Orchestrator],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SYNERGYMESH_DATABASE", "sqlite:///mesh.db")
    async with open_mesh(max_concurrent_tasks=7) as mesh:
        tenant = (await mesh.create_tenant("漢字 Acme", "enterprise")).tenant_id
        graph = Workflow("three")
        for number in range(3):
            graph.add(nothing, id=f"t{number}")
        await (await mesh.submit(graph, tenant=tenant)).result(5)
        assert await ran("what-if", "--tenant", "漢字 Acme", "--tier", "basic") == 0
        said = capsys.readouterr().out
        assert "replayed 1 runs with 3 tasks" in said
        assert "漢字 Acme  today        3" in said
        assert await ran("what-if", "--tenant", tenant, "--max-concurrent-tasks", "1", "--slots", "2", "--json") == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["today"]["capacity"]["slots"], told["what_if"]["capacity"]["slots"]) == (7, 2)
        assert told["tenants"][0]["what_if"]["limit_hits"]["concurrency"] > 0
        (tmp_path / "runs.json").write_text(
            json.dumps([{"tenant": "漢字 Acme", "count": 10, "tasks": [{"seconds": 60}]}])
        )
        assert await ran("what-if", "--slots", "1", "--workload", "runs.json") == 0
        said = capsys.readouterr().out
        assert "declared runs" in said
        assert "10:00 min" in said
        assert await ran("what-if", "--slots", "1", "--last", "1s", "--until", "2026-01-01T00:00") == 0
        assert "nothing to replay" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing is different"),
        (["--tier", "basic"], "--tenant"),
        (["--tenant", "Nobody", "--tier", "basic"], "no tenant 'Nobody'"),
        (["--tenant", "Acme", "--tier", "gold"], "tier must be one of"),
        (["--tenant", "Acme", "--tier", "gold", "--burst", "2"], "tier must be one of"),
        (["--tenant", "Acme", "--burst", "0"], "quota.burst must be"),
        (["--tenant", "Acme", "--weight", "0"], "weight must be"),
        (["--slots", "0"], "capacity.slots must be"),
        (["--memory-mb", "-1"], "capacity.memory_mb must be"),
        (["--cpus", "nan"], "--cpus must be"),
        (["--slots", "1", "--last", "1y"], "--last must be"),
        (["--slots", "1", "--last", "0d"], "--last must be"),
        (["--slots", "1", "--last", "999999999d"], "longer than there are dates"),
        (["--slots", "1", "--last", "1d", "--since", "2026-01-01"], "not both"),
        (["--slots", "1", "--since", "soon"], "--since must be"),
        (["--slots", "1", "--since", "2999-01-01"], "since must be before until"),
        (["--slots", "1", "--workload", "none.json"], "No such file"),
        (["--slots", "1", "--workload", "."], "directory"),
        (["--slots", "1", "--workload", "bad.json"], "no workload"),
    ],
)
async def test_bad_input_is_refused_in_one_line(
    open_mesh: Callable[..., Orchestrator],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SYNERGYMESH_DATABASE", "sqlite:///mesh.db")
    (tmp_path / "bad.json").write_bytes(b"\xff")
    async with open_mesh(execute=False) as mesh:
        await mesh.create_tenant("Acme")
    assert await ran("what-if", *arguments) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.splitlines()) == 1
