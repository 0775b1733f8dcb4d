"""kill -9 while keys are made and replaced, checkpoints written and entries pruned: the log stays whole and signed."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from synergymesh import Orchestrator, Workflow
from synergymesh.audit.checkpoint_file import CheckpointFile
from synergymesh.audit.key_ring import next_key_file
from synergymesh.audit.keys import load
from synergymesh.domain.audit.forms import key_id
from synergymesh.domain.audit.retention import DAY
from synergymesh.store import sqlite
from synergymesh.store.sqlite_files import open_writer

pytestmark = [pytest.mark.crash, pytest.mark.timeout(240)]

CALLS = ("open", "write", "fsync", "ftruncate", "replace", "link", "unlink")
"""What is done with files before a kill; statements of the database come to it."""


class Days:
    """A clock that is put forward; the end of the process takes nothing from it."""

    def __init__(self, days: float) -> None:
        self.at = 20_000 * DAY + int(days * DAY)

    def now(self) -> int:
        self.at += 1_000
        return self.at


class Killer:
    """End this process before its nth step, once it is armed; in the middle of it where it writes to a file."""

    def __init__(self, point: int) -> None:
        self.left = point
        self.is_armed = False

    def step(self, *_: object) -> None:
        self.left -= self.is_armed
        if self.is_armed and not self.left:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self) -> None:
        """Look at every call and every statement from now on."""
        for name in CALLS:
            setattr(os, name, self._watched(name, getattr(os, name)))

        def opened(*arguments: Any) -> Any:
            connection = open_writer(*arguments)
            connection.set_trace_callback(self.step)
            return connection

        vars(sqlite)["open_writer"] = opened

    def _watched(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **named: Any) -> Any:
            if name == "write" and self.is_armed and self.left == 1:
                call(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
            self.step()
            return call(*arguments, **named)

        return watched


def opened(directory: Path, days: float) -> Orchestrator:
    work = Workflow("work").add(lambda: None, id="a")
    return Orchestrator(f"sqlite:///{directory}/mesh.db", workflows=[work], clock=Days(days))


async def begin(directory: Path) -> None:
    """Live once, and leave a log with a tenant and some runs."""
    async with opened(directory, 0) as mesh:
        tenant = (await mesh.create_tenant("Acme")).tenant_id
        for _ in range(3):
            await (await mesh.submit("work", tenant=tenant)).result(10)


async def tenant_of(mesh: Orchestrator) -> str:
    return (await mesh.list_tenants())[0].tenant_id


async def make_key(mesh: Orchestrator) -> None:
    await mesh._running.auditing.checkpoints.keys.key()


async def write_checkpoint(mesh: Orchestrator) -> None:
    await mesh._running.auditing.checkpoints.write()


async def rotate(mesh: Orchestrator) -> None:
    await mesh.rotate_audit_key()


async def prune(mesh: Orchestrator) -> None:
    await mesh.prune_audit(await tenant_of(mesh))


def die(directory: Path, days: float, work: Callable[[Orchestrator], Awaitable[None]], point: int) -> bool:
    """Let a process do some work, and end it before its nth step; tell whether it was ended."""
    process = os.fork()
    if not process:
        try:
            killer = Killer(point)
            killer.watch()

            async def live() -> None:
                async with opened(directory, days) as mesh:
                    await mesh._running.auditing.pruning.stop()  # its time would be another one each time
                    killer.is_armed = True
                    await work(mesh)
                    killer.is_armed = False

            asyncio.run(live())
        finally:
            os._exit(0)
    _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status) == -signal.SIGKILL


async def check(directory: Path, days: float) -> Counter[str]:
    """Check the log after a further life that signs something; give how many entries of each action it has."""
    async with opened(directory, days) as mesh:
        assert (await mesh.verify_audit()).findings == []
        await mesh.create_tenant("Next")
    async with opened(directory, days) as mesh:
        report = await mesh.verify_audit()
        assert report.findings == []
        assert report.checkpoints
        page = await mesh.audit_log(limit=1_000)
        assert page.cursor is None
        assert next_key_file(directory / "mesh.db.audit" / "key.pem").exists() is False
        links = [signed.link for signed in CheckpointFile(directory / "mesh.db.audit" / "checkpoints.jsonl").links()]
        said = [(entry.action, entry.entity) for entry in page.entries if entry.action.startswith("key.")]
        present = key_id(load(directory / "mesh.db.audit" / "key.pem").public)
        first = key_id(links[0].old) if links else present
        expected = [("key.created", f"key/{first}")]
        for link in links:
            expected += [
                ("key.created", f"key/{key_id(link.new)}"),
                ("key.rotated", f"key/{key_id(link.new)}"),
                ("key.revoked", f"key/{key_id(link.old)}"),
            ]
        assert said[::-1] == expected
        assert present == (key_id(links[-1].new) if links else first)
        return Counter(entry.action for entry in page.entries)


WORKS = [
    ("make_key", make_key, 0, 8),
    ("write_checkpoint", write_checkpoint, 0, 4),
    ("rotate", rotate, 0, 12),
    ("prune", prune, 92, 12),
]


@pytest.mark.parametrize(("work", "days", "points_min"), [each[1:] for each in WORKS], ids=[each[0] for each in WORKS])
def test_a_kill_at_any_step_leaves_a_log_that_is_whole_signed_and_says_what_was_done(
    tmp_path: Path, work: Callable[[Orchestrator], Awaitable[None]], days: float, points_min: int
) -> None:
    start = tmp_path / "start"
    start.mkdir()
    if work is not make_key:
        asyncio.run(begin(start))
    outcomes = set()
    point = 0
    while True:
        point += 1
        directory = tmp_path / f"life-{point}"
        shutil.copytree(start, directory)
        killed = die(directory, days, work, point)
        told = asyncio.run(check(directory, days))
        outcomes.add((told["key.rotated"], told["audit.pruned"]))
        if work is prune:
            asyncio.run(prune_again(directory, days))
        shutil.rmtree(directory)
        if not killed:
            break
    assert point > points_min
    if work in (rotate, prune):
        assert len(outcomes) == 2, "it was killed before it was done, and after"


async def prune_again(directory: Path, days: float) -> None:
    """Check that everything is pruned once, and all of it deleted."""
    async with opened(directory, days) as mesh:
        tenant = await tenant_of(mesh)
        await mesh.prune_audit(tenant)
        entries = (await mesh.audit_log(tenant, limit=1_000)).entries
        assert sum(entry.details["count"] for entry in entries if entry.action == "audit.pruned") == 9
        assert not [entry for entry in entries if entry.action.startswith(("run.", "task."))]
        report = await mesh.verify_audit()
        assert (report.findings, report.pruned) == ([], 9)
