"""One story in which everything that the audit log records really happens."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from synergymesh import Actor, BreakerPolicy, Orchestrator, ResourceQuota, RetryPolicy, RunFailed, Workflow
from synergymesh.audit.entries import AuditEntry
from synergymesh.domain.audit.actions import CATALOGUE, Action
from synergymesh.domain.audit.retention import DAY
from synergymesh.errors import RateLimitExceeded
from synergymesh.store.backup import back_up, restore

ALICE = Actor(type="user", id="alice")
ONCE = RetryPolicy(max_retries=0)


class Days:
    """A clock that is put forward."""

    def __init__(self) -> None:
        self.at = 20_000 * DAY

    def now(self) -> int:
        self.at += 1_000
        return self.at

    def forward(self, days: float) -> None:
        self.at += int(days * DAY)


class World:
    """What workflows of the story depend on."""

    def __init__(self) -> None:
        self.works = False
        self.gate = asyncio.Event()

        def work() -> int:
            if not self.works:
                raise OSError("out of order")
            return 1

        async def wait() -> None:
            await self.gate.wait()

        self.single = Workflow("single").add(work, id="work", retry=ONCE)
        self.stubborn = Workflow("stubborn").add(work, id="work", retry=RetryPolicy(max_retries=1, initial_delay=0.0))
        self.waiting = Workflow("waiting").add(wait, id="wait").add(work, id="work", after=["wait"])

    def open(self, path: Path, clock: Days) -> Orchestrator:
        return Orchestrator(
            f"sqlite:///{path}",
            workflows=[self.single, self.stubborn, self.waiting],
            clock=clock,
            shutdown_grace_seconds=0.05,
            stop_grace_seconds=0.3,
        )


async def whole_log(mesh: Orchestrator) -> list[AuditEntry]:
    found: list[AuditEntry] = []
    cursor = None
    while True:
        page = await mesh.audit_log(limit=1_000, cursor=cursor)
        found += page.entries
        cursor = page.cursor
        if cursor is None:
            assert (await mesh.verify_audit()).findings == []
            return found


async def until_recorded(mesh: Orchestrator, action: Action) -> None:
    """Wait until what the engine does by itself now and then is recorded."""
    async with asyncio.timeout(20):
        found = mesh._database.find_audit_entries
        while not (await found(None, action=action, limit=1)).entries:  # noqa: ASYNC110 - nothing tells of an entry
            await asyncio.sleep(0.05)


async def work_and_fail(mesh: Orchestrator, world: World, tenant: str) -> None:
    """Runs and tasks, dead letters, limits and circuits."""
    failed = []
    for flow in (world.stubborn, world.single, world.single, world.single):
        handle = await mesh.submit(flow, tenant=tenant)
        with pytest.raises(RunFailed):
            await handle.result(10)
        failed.append(handle.id)
    world.works = True
    await (await mesh.redrive_dead_letter(f"{failed[0]}:work")).result(10)
    await (await mesh.retry_run(failed[1])).result(10)
    await mesh.discard_dead_letter(f"{failed[2]}:work", reason="seen to")
    assert await mesh.pause_workflow("single", tenant=tenant)
    assert await mesh.resume_workflow("single", tenant=tenant)
    await mesh.set_breaker_policy(tenant, BreakerPolicy(minimum_calls=2))
    world.works = False
    for _ in range(2):
        with pytest.raises(RunFailed):
            await (await mesh.submit(world.single, tenant=tenant)).result(10)
    await until_recorded(mesh, Action.BREAKER_CHANGED)
    await mesh.set_quota(tenant, ResourceQuota(rate_limit_per_second=1))
    submissions = [mesh.submit(world.single, tenant=tenant) for _ in range(5)]
    answers = await asyncio.gather(*submissions, return_exceptions=True)
    assert any(isinstance(answer, RateLimitExceeded) for answer in answers)


async def administrate(mesh: Orchestrator, directory: Path, clock: Days, tenant: str) -> None:
    """Tenants, and the log itself."""
    await mesh.suspend_tenant(tenant)
    await mesh.resume_tenant(tenant)
    gone = await mesh.create_tenant("Gone")
    await mesh.delete_tenant(gone.tenant_id)
    await until_recorded(mesh, Action.TENANT_PURGED)
    await mesh.export_audit(str(directory / "x.jsonl"), tenant)
    await mesh.with_personal_data(ALICE, name="Alice")
    await mesh.erase_audit("user/alice")
    await mesh.rotate_audit_key()
    await mesh.hold_audit(tenant, "case 7")
    await mesh.release_audit(tenant)
    clock.forward(100)
    assert (await mesh.prune()).runs
    assert await mesh.prune_audit()


async def test_everything_in_the_catalogue_happens_and_is_recorded_as_it_says(tmp_path: Path) -> None:
    world, clock = World(), Days()
    path, crashed, restored = (tmp_path / name / "mesh.db" for name in ("first", "crashed", "restored"))
    for each in (path, crashed, restored):
        each.parent.mkdir()
    entries: list[AuditEntry] = []
    async with world.open(path, clock) as mesh:
        with mesh.acting_as(ALICE):
            tenant = (await mesh.create_tenant("Acme", "enterprise")).tenant_id
            await work_and_fail(mesh, world, tenant)
            calm = (await mesh.create_tenant("Calm", "enterprise")).tenant_id
            long = await mesh.submit(world.waiting, tenant=calm)
            assert await mesh.pause_run(long.id)
            assert await mesh.resume_run(long.id)
            clock.forward(1 / 24)
            await until_recorded(mesh, Action.TASK_STARTED)
            # a copy of the moment, without the end of the process: what a crash leaves behind
            source, copy = sqlite3.connect(path), sqlite3.connect(crashed)
            source.backup(copy)
            copy.close()
            source.close()
            await asyncio.to_thread(back_up, str(path), tmp_path / "copy.db")
            await mesh.cancel_run((await mesh.submit(world.waiting, tenant=calm)).id)
            await mesh.submit(world.waiting, tenant=calm)
    async with world.open(path, clock) as mesh:
        with mesh.acting_as(ALICE):
            entries += await whole_log(mesh)
            await administrate(mesh, tmp_path, clock, tenant)
            entries += await whole_log(mesh)
    await asyncio.to_thread(restore, tmp_path / "copy.db", str(restored), now=clock.now())
    for place in (crashed, restored):
        async with world.open(place, clock) as mesh:
            entries += await whole_log(mesh)
    assert {Action(entry.action) for entry in entries} == set(Action)
    for entry in entries:
        described = CATALOGUE[Action(entry.action)]
        assert entry.entity.split("/")[0] == described.entity.split("/")[0], entry.action
        if described.entity != "audit":  # of a tenant, or of the whole mesh
            assert (entry.tenant_id == "") == described.of_mesh, entry.action
    assert "user/alice" in {entry.actor for entry in entries}
