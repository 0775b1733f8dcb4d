"""What operators see of a running mesh: overview, neighbours, `why`, `queue`, `top`; asked by another process too."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from synergymesh import Orchestrator, ResourceQuota, TenantTier, Workflow
from synergymesh.cli import queue_table
from synergymesh.cli.app import _run
from synergymesh.domain.instants import SECOND
from synergymesh.engine.observability.neighbours import SAMPLES_PER_TICK
from synergymesh.engine.observability.overview import SHOWN_MAX, TENANTS_PER_TURN, Overview
from synergymesh.errors import InvalidRequest

ROOMY = ResourceQuota(
    max_concurrent_tasks=1_000,
    max_memory_mb=1_000_000,
    max_cpu_percent=100,
    max_tasks_per_hour=1_000_000,
    rate_limit_per_second=1_000_000,
)


class FakeClock:
    """A clock that goes when it is told."""

    def __init__(self) -> None:
        self.moment = 1_800_000_000 * SECOND

    def now(self) -> int:
        return self.moment


def wide(tasks: int, function: Callable[..., Any], name: str = "wide") -> Workflow:
    """Give a workflow of independent tasks."""
    graph = Workflow(name)
    for number in range(tasks):
        graph.add(function, id=f"t{number}")
    return graph


async def nothing() -> None:
    """Do nothing."""


async def until(holds: Callable[[], bool]) -> None:
    """Let everything else go on until something holds."""
    for _ in range(1_000_000):
        if holds():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never held")


async def ran(*arguments: str) -> int:
    """Run a command in a thread, as another process would, and give its exit code."""
    return await asyncio.to_thread(_run, arguments)


# --- neighbours -----------------------------------------------------------------------------------------------------


async def test_a_tenant_that_floods_is_told_apart_from_those_that_wait_for_it() -> None:
    clock = FakeClock()

    async def work() -> None:
        clock.moment += SECOND // 10

    async with Orchestrator(":memory:", max_concurrent_tasks=1, clock=clock) as mesh:
        flood = (await mesh.create_tenant("Flood", TenantTier.ENTERPRISE, quota=ROOMY)).tenant_id
        await mesh.set_weight(flood, 1)
        quiet = (await mesh.create_tenant("Quiet", TenantTier.ENTERPRISE, quota=ROOMY)).tenant_id
        await mesh.set_weight(quiet, 1)
        handles = [await mesh.submit(wide(40, work), tenant=flood)]
        first = asyncio.ensure_future(handles[0].result(20))
        await until(lambda: clock.moment >= 1_800_000_002 * SECOND)
        handles.append(await mesh.submit(wide(2, work), tenant=quiet))
        await asyncio.gather(first, handles[1].result(20))
        found = {n.tenant_id: n for n in await mesh.neighbours()}
        assert list(found) == [flood, quiet]
        assert (found[flood].starts, found[quiet].starts) == (40, 2)
        assert found[flood].share == pytest.approx(40 / 42 * 1e6, rel=0.01)
        assert found[flood].score > 150 > 100 > found[quiet].score
        assert found[quiet].wait_p95_ns >= SECOND // 10
        overview = await mesh.overview()
        assert {t.tenant_id: t.neighbour for t in overview.tenants} == found
        await mesh.delete_tenant(flood)
        assert [n.tenant_id for n in await mesh.neighbours()] == [quiet]


async def test_a_task_that_still_runs_counts_for_what_it_has_cost_so_far(mesh: Orchestrator) -> None:
    gate = asyncio.Event()

    async def hold() -> None:
        await gate.wait()

    tenants = [(await mesh.create_tenant(name, "enterprise", quota=ROOMY)).tenant_id for name in ("Long", "Short")]
    handle = await mesh.submit(wide(5, hold), tenant=tenants[0])
    await (await mesh.submit(wide(20, nothing), tenant=tenants[1])).result(5)
    parts = mesh._parts
    assert parts is not None
    parts.dispatcher.scheduler.correct_long(parts.dispatcher._clock.now() + 3_600 * SECOND)
    long, short = await mesh.neighbours()
    assert (long.tenant_id, long.starts, short.starts) == (tenants[0], 5, 20)
    assert long.share > 900_000
    gate.set()
    await handle.result(5)


async def test_above_some_hundred_starts_in_half_a_second_a_sample_stands_for_all() -> None:
    async with Orchestrator(":memory:", clock=FakeClock()) as mesh:
        tenants = [(await mesh.create_tenant(name, "enterprise", quota=ROOMY)).tenant_id for name in ("A", "B")]
        graph = wide(100, nothing)
        parts = mesh._parts
        assert parts is not None
        watch = parts.overviews._neighbours
        watch._stride = 8
        for _ in range(4):
            handles = [await mesh.submit(graph, tenant=tenant) for tenant in tenants for _ in range(10)]
            for handle in handles:
                await handle.result(20)
        found = {n.tenant_id: n for n in await mesh.neighbours()}
        assert sum(n.starts for n in found.values()) == pytest.approx(8_000, rel=0.3)
        assert found[tenants[0]].share == pytest.approx(500_000, rel=0.3)


async def test_a_burst_of_starts_never_makes_more_samples_than_the_limit(mesh: Orchestrator, tenant: str) -> None:
    parts = mesh._parts
    assert parts is not None
    await (await mesh.submit(wide(1, nothing), tenant=tenant)).result(5)
    watch = parts.overviews._neighbours
    (grant, _) = watch._fresh[-1]
    most = 0
    for _ in range(50 * SAMPLES_PER_TICK):
        watch.started(grant)
        most = max(most, len(watch._fresh))
    assert most < 2 * SAMPLES_PER_TICK
    assert watch._stride > 1
    watch.count()
    watch.count()
    assert watch._stride == 1, "when it is quiet again, every start is looked at"


async def test_what_sub_tenants_do_counts_for_the_tenant_above_them(mesh: Orchestrator) -> None:
    parent = (await mesh.create_tenant("Parent", "enterprise", quota=ROOMY)).tenant_id
    child = (await mesh.create_tenant("Child", "enterprise", quota=ROOMY, parent=parent)).tenant_id
    for tenant in (parent, child):
        await (await mesh.submit(wide(3, nothing), tenant=tenant)).result(5)
    (found,) = await mesh.neighbours()
    assert (found.tenant_id, found.starts, found.score) == (parent, 6, 100)
    by_id = {t.tenant_id: t for t in (await mesh.overview()).tenants}
    assert by_id[child].neighbour is None
    assert by_id[child].queue.parent == parent


# --- the overview ---------------------------------------------------------------------------------------------------


async def test_the_overview_has_the_busiest_tenants_first_and_no_more_than_asked_for(mesh: Orchestrator) -> None:
    gate = asyncio.Event()

    async def hold() -> None:
        await gate.wait()

    assert (await mesh.overview()).tenants == ()
    names = [f"T{n}" for n in range(5)]
    tenants = [(await mesh.create_tenant(name, "enterprise", quota=ROOMY)).tenant_id for name in names]
    handles = [await mesh.submit(wide(3 + 2 * n, hold), tenant=tenants[n]) for n in (1, 3)]
    parts = mesh._parts
    assert parts is not None
    await until(lambda: parts.dispatcher.scheduler.running == 14)
    overview = await mesh.overview(limit=3)
    assert [t.tenant_name for t in overview.tenants] == ["T3", "T1", "T0"]
    assert (overview.tenants_total, overview.open_tasks) == (5, 14)
    assert [t.open_tasks for t in overview.tenants] == [9, 5, 0]
    assert overview.tenants[0].queue.fair_share == 500_000
    same = {view.tenant_id: view for view in await mesh.queue()}
    assert all(t.queue == same[t.tenant_id] for t in overview.tenants)
    gate.set()
    for handle in handles:
        await handle.result(5)


@pytest.mark.parametrize("limit", [0, -1, SHOWN_MAX + 1, True, "5", None, 1.5])
async def test_a_limit_outside_its_range_is_refused(mesh: Orchestrator, limit: Any) -> None:
    with pytest.raises(InvalidRequest, match="limit must be from 1 to 10,000"):
        await mesh.overview(limit)
    assert await mesh.overview(SHOWN_MAX)


async def test_looking_at_many_tenants_lets_others_have_their_turn(
    mesh: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = await mesh.create_tenant("A")
    monkeypatch.setattr(mesh._running.overviews, "_tenants", [some] * (3 * TENANTS_PER_TURN))
    turns = 0
    done = asyncio.ensure_future(mesh.overview(1))
    while not done.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns >= 3


# --- the command line -----------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give an empty directory that commands run in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SYNERGYMESH_DATABASE", "sqlite:///mesh.db")
    monkeypatch.setattr("synergymesh.cli.logs.configure", lambda **_: None)
    return tmp_path


async def test_why_gives_the_blockers_with_their_figures_and_what_to_do(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gate = asyncio.Event()

    async def hold() -> None:
        await gate.wait()

    graph = wide(4, hold)
    graph.add(hold, id="最後", depends_on=["t0", "t1"])
    async with Orchestrator("sqlite:///mesh.db", workflows=[graph]) as mesh:
        quota = ResourceQuota(max_concurrent_tasks=2)
        tenant = (await mesh.create_tenant("Acmé 漢字", quota=quota)).tenant_id
        run = await mesh.submit(graph, tenant=tenant)
        parts = mesh._parts
        assert parts is not None
        await until(lambda: parts.dispatcher.scheduler.running == 2)
        assert await ran("why", "last") == 0
        said = capsys.readouterr().out
        assert "running:    t0, t1" in said
        assert "t2, place 1 in its tenant's queue, start not known" in said
        assert f"1. concurrency of Acmé 漢字 ({tenant}): slots limit 2, used 2, asked 1" in said
        assert "Wait until one of its tasks ends, or raise max_concurrent_tasks" in said
        assert "最後      -  -       dependency: t0, t1" in said
        assert await ran("why", run.id, "--json") == 0
        explained = json.loads(capsys.readouterr().out)
        (blocker,) = explained["waiting"][0]["blockers"]
        assert (blocker["reason"], blocker["limit"], blocker["used"], blocker["asked"]) == ("concurrency", 2, 2, 1)
        assert blocker["remedy"]
        assert explained["executed"] is True
        assert await ran("why", "run-none") == 2
        assert "there is no run 'run-none'" in capsys.readouterr().err
        gate.set()
        await run.result(5)
        assert await ran("why", run.id) == 0
        assert "It is over." in capsys.readouterr().out


async def test_what_is_not_in_memory_is_counted_and_explained(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gate = asyncio.Event()

    async def hold() -> None:
        await gate.wait()

    async with Orchestrator("sqlite:///mesh.db") as mesh:
        quota = ResourceQuota(max_concurrent_tasks=1, rate_limit_per_second=1_000_000, max_tasks_per_hour=1_000_000)
        tenant = (await mesh.create_tenant("Acme", quota=quota)).tenant_id
        graph = wide(1, hold)
        runs = 2_500
        handles = await asyncio.gather(*(mesh.submit(graph, tenant=tenant) for _ in range(runs)))
        parts = mesh._parts
        assert parts is not None
        await until(lambda: parts.dispatcher.scheduler.running == 1)
        assert parts.window.tasks_in_store(tenant) > 0
        (activity,) = (await mesh.overview()).tenants
        assert (activity.queue.running, activity.queue.waiting, activity.open_tasks) == (1, runs - 1, runs)
        assert await ran("why", handles[-1].id) == 0
        said = capsys.readouterr().out
        # the one that runs is not among them, once its start is recorded
        assert re.search(rf"backlog of Acme \({tenant}\): 2,49[89] runs first", said)
        gate.set()
        for handle in handles:
            await handle.result(60)


async def test_why_and_queue_of_a_database_that_nobody_executes_tell_what_is_stored(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Orchestrator("sqlite:///mesh.db", execute=False) as mesh:
        tenant = await mesh.create_tenant("Acme")
        await mesh.create_tenant("Idle")
        run = await mesh.submit(wide(2, nothing), tenant=tenant.tenant_id)
        await mesh.suspend_tenant(tenant.tenant_id)
    assert await ran("why", run.id) == 0
    said = capsys.readouterr().out
    assert "no process executes this database" in said
    assert "paused: its tenant is suspended" in said
    assert "2 tasks of 2 not ended: t0, t1" in said
    assert await ran("why", run.id, "--json") == 0
    assert json.loads(capsys.readouterr().out)["executed"] is False
    for command in ("queue", "top"):
        assert await ran(command) == 0
        out, err = capsys.readouterr()
        assert "no process executes this database" in err
        assert out.splitlines()[1].split() == ["Acme", "basic", "suspended", "1"]
    assert await ran("queue", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert [(t["tenant_name"], t["open_runs"]) for t in told["tenants"]] == [("Acme", 1), ("Idle", 0)]
    assert await ran("queue", "--database", "none.db") == 3
    assert await ran("queue", "--limit", "0") == 2


async def test_queue_shows_each_tenant_and_top_does_so_once_where_there_is_no_terminal(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Orchestrator("sqlite:///mesh.db") as mesh:
        assert await ran("queue") == 0
        assert "there is no tenant" in capsys.readouterr().err
        tenant = (await mesh.create_tenant("Acmé 漢字")).tenant_id
        await (await mesh.submit(wide(3, nothing), tenant=tenant)).result(5)
        for command in ("queue", "top"):
            assert await ran(command) == 0
            head, headings, row = capsys.readouterr().out.splitlines()
            assert "tenants 1" in head
            assert headings.split()[:2] == ["TENANT", "TIER"]
            assert row.startswith("Acmé 漢字  basic")
            assert "3/100" in row
        await mesh.create_tenant("B")
        assert await ran("queue", "--limit", "1") == 0
        assert "and 1 more tenants" in capsys.readouterr().err
        assert await ran("queue", "--json") == 0
        told = json.loads(capsys.readouterr().out)
        assert told["capacity"]["slots"] == 256
        assert [t["queue"]["hour_used"] for t in told["tenants"]] == [3, 0]


# --- the table in any width -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def seen() -> Overview:
    """Give an overview with one tenant that has worked."""

    async def look() -> Overview:
        async with Orchestrator(":memory:") as mesh:
            tenant = await mesh.create_tenant("A", "enterprise")
            await (await mesh.submit(wide(3, nothing), tenant=tenant.tenant_id)).result(5)
            return await mesh.overview()

    return asyncio.run(look())


@given(
    st.lists(st.text("aé漢\u0301𝄞\u202e\x1b\n\t", max_size=60), max_size=50),
    st.sampled_from([20, 40, 80, 120, 160, 240]),
)
def test_no_line_of_the_table_is_wider_than_the_terminal(seen: Overview, names: list[str], width: int) -> None:
    from rich.console import Console

    (tenant,) = seen.tenants
    tenants = tuple(dataclasses.replace(tenant, tenant_name=name) for name in names)
    overview = dataclasses.replace(seen, tenants=tenants)
    console = Console(width=width, color_system=None, file=open(os.devnull, "w"))  # noqa: SIM115 - only captured
    with console.capture() as capture:
        console.print(queue_table.draw(overview, width))
    console.file.close()
    lines = capture.get().splitlines()
    assert len(lines) == 1 + len(names)
    assert "\x1b" not in "".join(lines)
    assert all(cell_len(line) <= width for line in lines)
    headings = lines[0].split()
    assert headings[0].startswith("TENAN")
    if width >= 80:
        assert {"RUNS", "WAITS", "SLOTS", "BY"} <= set(headings)
    if width >= 240:
        assert len(headings) == len(queue_table.COLUMNS) + 1  # "HELD BY" are two words
