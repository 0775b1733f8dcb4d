"""What goes on beside the runs goes on, whatever goes wrong in it; and people see that something did."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog

from synergymesh import Orchestrator, ResourceQuota, Workflow
from synergymesh.diagnostics.doctor import examine
from synergymesh.diagnostics.findings import Level
from synergymesh.domain.instants import SECOND
from synergymesh.engine import background as background_module
from synergymesh.engine import housekeeping, maintenance
from synergymesh.engine.background import RECENT_SECONDS, SAID_AGAIN_SECONDS, Background
from synergymesh.engine.backlog import window
from synergymesh.errors import StoreUnavailable
from synergymesh.ports.clock import SystemClock
from synergymesh.settings import read_settings
from synergymesh.store import writes

OpenMesh = Callable[..., Orchestrator]


class SetClock:
    def __init__(self) -> None:
        self.time = 1_000 * SECOND

    def now(self) -> int:
        return self.time


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background_module, "PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(maintenance, "TICK_SECONDS", 0.001)
    monkeypatch.setattr(housekeeping, "FIRST_PASS_SECONDS", 0.001)
    monkeypatch.setattr(housekeeping, "PASS_SECONDS", 0.001)
    monkeypatch.setattr(housekeeping, "LOG_SECONDS", 0.001)
    monkeypatch.setattr(window, "RETRY_SECONDS", 0.001)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - nothing tells of it, so it is looked for
            await asyncio.sleep(0.001)


async def test_a_round_that_errs_is_followed_by_the_next_one_until_it_is_ended(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = SetClock()
    background = Background(clock)
    rounds = 0
    enough = asyncio.Event()

    async def work() -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 5:
            enough.set()
        if rounds % 2:
            raise ZeroDivisionError(f"in round {rounds}")
        await asyncio.sleep(0)

    task = background.start("work", work)
    await enough.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    fault = background.faults["work"]
    assert (fault.error, fault.count, fault.last_at) == ("ZeroDivisionError: in round 5", 3, clock.time)
    assert "work" in background.recent
    assert len([said for said in caplog.messages if "ZeroDivisionError" in said]) == 1, "it fills no log"
    clock.time += SAID_AGAIN_SECONDS * SECOND
    background.note("work", KeyError("later"))
    assert len([said for said in caplog.messages if "times=4" in said]) == 1
    clock.time += (RECENT_SECONDS + 1) * SECOND
    assert background.recent == {}
    assert background.faults["work"].count == 4


def test_work_goes_on_although_the_programs_logging_errs() -> None:
    def errs(*_: object) -> None:
        raise RuntimeError("a processor of the program")

    background = Background(SystemClock())
    structlog.configure(processors=[errs])
    try:
        for _ in range(2):
            with background.guard("alerts"):
                raise KeyError
    finally:
        structlog.reset_defaults()
    assert background.faults["alerts"].count == 2


BROKEN: list[tuple[str, Callable[[Any], tuple[Any, str]]]] = [
    ("long tasks", lambda parts: (parts.attempts, "record_long_tasks")),
    ("charges of long tasks", lambda parts: (parts.maintenance._scheduler, "correct_long")),
    ("neighbours", lambda parts: (parts.neighbours, "count")),
    ("limit hits", lambda parts: (parts.maintenance._limit_hits, "flush")),
    ("statistics", lambda parts: (parts.statistics, "write_in_turns")),
    ("learnt durations", lambda parts: (parts.maintenance, "record_learnt")),
    ("alerts", lambda parts: (parts.alerts, "look")),
    ("overdue runs", lambda parts: (parts.store, "list_overdue_runs")),
    ("deletions", lambda parts: (parts.store, "purge_deleted")),
    ("housekeeping", lambda parts: (parts.store, "list_prunable_runs")),
    ("log", lambda parts: (parts.store, "shorten_log")),
]


async def test_whatever_part_of_the_background_work_errs_all_of_it_goes_on(
    mesh: Orchestrator, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts: Any = mesh._parts
    faults = parts.maintenance._background.faults

    def broken(*_: object, **__: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        for _, of in BROKEN:
            patch.setattr(*of(parts), broken)
        await until(lambda: all(work in faults and faults[work].count > 1 for work, _ in BROKEN))
    assert {fault.error for fault in faults.values()} == {"builtins.MemoryError"}
    called = set()

    def watched(work: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            called.add(work)
            return real(*given, **named)

        return call

    for work, of in BROKEN:
        owner, name = of(parts)
        monkeypatch.setattr(owner, name, watched(work, getattr(owner, name)))
    await until(lambda: len(called) == len(BROKEN))
    await (await mesh.submit(Workflow("w").add(nothing, id="a"), tenant=tenant)).result(10)


async def nothing() -> None: ...


async def test_a_backlog_whose_reading_errs_is_read_again(open_mesh: OpenMesh, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_mesh(execute=False) as mesh:
        quota = ResourceQuota(max_concurrent_tasks=1, max_tasks_per_hour=1_000, rate_limit_per_second=1_000)
        acme = (await mesh.create_tenant("Acme", "enterprise", quota=quota)).tenant_id
    all_are_there = asyncio.Event()
    flow = Workflow("w").add(all_are_there.wait, id="a")
    async with open_mesh(workflows=[flow], settings=read_settings(waiting_runs_in_memory=2)) as mesh:
        parts: Any = mesh._parts
        fails = [RuntimeError("a mistake of ours"), RuntimeError("once more")]
        real = parts.store.list_waiting_runs

        async def fragile(*given: Any, **named: Any) -> Any:
            if fails:
                raise fails.pop()
            return await real(*given, **named)

        monkeypatch.setattr(parts.store, "list_waiting_runs", fragile)
        handles = [await mesh.submit(flow, tenant=acme) for _ in range(30)]
        all_are_there.set()
        for handle in handles:
            await handle.result(10)
        assert not fails
        assert parts.maintenance._background.faults["backlogs"].count == 2


async def test_results_are_kept_until_there_is_memory_for_a_commit_again(
    mesh: Orchestrator, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts: Any = mesh._parts
    gate = asyncio.Event()

    async def work() -> str:
        await gate.wait()
        return "done"

    def too_little(*_: object) -> None:
        raise MemoryError  # as sqlite3 does

    flow = Workflow("w").add(work, id="a")
    handle = await mesh.submit(flow, tenant=tenant)
    with monkeypatch.context() as patch:
        patch.setattr(writes, "commit", too_little)
        with pytest.raises(StoreUnavailable, match="not enough memory"):
            await mesh.submit(flow, tenant=tenant)
        gate.set()
        await until(lambda: parts.committer.trouble is not None)
        assert isinstance(parts.committer.trouble, StoreUnavailable)
    assert await handle.result(10) == "done"
    assert await (await mesh.submit(flow, tenant=tenant)).result(10) == "done"
    assert parts.maintenance._background.faults == {}


LITTLE_MEMORY = """
import asyncio, os
from synergymesh import Orchestrator, ResourceQuota, Workflow
from synergymesh.errors import StoreUnavailable

async def large() -> str:
    return "x" * 200_000

async def main():
    async with Orchestrator(":memory:") as mesh:
        tenant = (await mesh.create_tenant("Acme", "enterprise")).tenant_id
        flow = Workflow("large").add(large, id="a")
        limit = "PRAGMA hard_heap_limit=3000000"  # can only be lowered, hence in a process of its own
        await mesh._parts.store._writes.run(lambda connection: connection.execute(limit).fetchone())
        for _ in range(40):
            try:
                await (await mesh.submit(flow, tenant=tenant)).result(2)
            except (StoreUnavailable, TimeoutError):
                break
        print(mesh._parts.committer.trouble, mesh._parts.committer._closed, flush=True)
        os._exit(0)

asyncio.run(main())
"""


def test_a_database_without_memory_is_said_and_written_again_and_again() -> None:
    ended = subprocess.run([sys.executable, "-c", LITTLE_MEMORY], capture_output=True, text=True, timeout=60)
    assert "there is not enough memory. Free some and try again. False" in ended.stdout, ended.stderr


async def test_the_metrics_the_alerts_and_the_doctor_tell_of_an_audit_log_that_cannot_be_signed(
    open_mesh: OpenMesh, tmp_path: Path
) -> None:
    async with open_mesh() as mesh:
        await mesh.create_tenant("Acme")
    key = tmp_path / "mesh.db.audit" / "key.pem"
    key.chmod(0o644)
    async with open_mesh() as mesh:
        parts: Any = mesh._parts
        assert "synergymesh_audit_signed 1.0" in await mesh.metrics_text()
        await parts.auditing.checkpoints.write_if_possible()
        await parts.alerts.look()
        assert "synergymesh_audit_signed 0.0" in await mesh.metrics_text()
        (told,) = await mesh.alerts()
        assert (told.kind, told.tenant_id) == ("audit_log_not_signed", None)
        assert "0644" in told.summary
        found = {each.subject: each for each in await examine(str(tmp_path / "mesh.db"), SystemClock().now())}
        assert found["alert audit_log_not_signed"].level is Level.WRONG
        assert "chmod 600" in found["alert audit_log_not_signed"].said
        key.chmod(0o600)
        await parts.auditing.checkpoints.write_if_possible()
        assert "synergymesh_audit_signed 1.0" in await mesh.metrics_text()


async def test_the_metrics_the_alerts_and_the_doctor_tell_of_an_error_inside(
    open_mesh: OpenMesh, tmp_path: Path
) -> None:
    async with open_mesh() as mesh:
        parts: Any = mesh._parts
        assert "synergymesh_internal_errors_total{" not in await mesh.metrics_text()
        with parts.maintenance._background.guard("statistics"):
            raise LookupError("a mistake of ours")
        await parts.alerts.look()
        assert 'synergymesh_internal_errors_total{work="statistics"} 1.0' in await mesh.metrics_text()
        (told,) = await mesh.alerts()
        assert (told.kind, told.tenant_id) == ("internal_error", None)
        assert "statistics: LookupError: a mistake of ours" in told.summary
        found = {each.subject: each for each in await examine(str(tmp_path / "mesh.db"), SystemClock().now())}
        assert found["owner"].level is Level.OK
        assert found["alert internal_error"].level is Level.WRONG
        assert "a mistake of ours" in found["alert internal_error"].said
