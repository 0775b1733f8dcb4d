"""What the tests of a full disk start: fills the disk while a run is under way, and makes room again.

    full_disk.py DATABASE rlimit|tmpfs

Prints what it saw as one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

from synergymesh import Orchestrator, ResourceQuota, Workflow, ref
from synergymesh.errors import StoreUnavailable

FILLING = 2_000
"""Bytes of each result: a few of them fill what is left."""


class Limit:
    """No file of this process may grow: what a quota does, and what a full disk looks like to SQLite."""

    def __init__(self, database: Path) -> None:
        self._log = database.with_name(database.name + "-wal")

    def fill(self) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self._log.stat().st_size, hard))

    def make_room(self) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


class Filler:
    """A file that takes all the room that there is."""

    def __init__(self, database: Path) -> None:
        self._path = database.with_name("filler")

    def fill(self) -> None:
        with self._path.open("wb", buffering=0) as file:
            for size in (65_536, 4_096, 512, 1):
                try:
                    while True:
                        file.write(b"x" * size)
                except OSError:
                    continue

    def make_room(self) -> None:
        self._path.unlink()


async def main(database: Path, disk: Any) -> dict[str, Any]:
    effects: list[str] = []
    full = asyncio.Event()

    async def work(name: str, *before: Any) -> str:
        effects.append(name)
        await full.wait()
        return name + "." * FILLING

    built = Workflow("w")
    for number in range(10):
        built.add(work, id=f"a{number}", args=[f"a{number}"])
        built.add(work, id=f"b{number}", args=[f"b{number}", ref(f"a{number}")])
    built.returns(None)
    small = Workflow("small").add(work, id="s", args=["s"])
    seen: dict[str, Any] = {}
    async with Orchestrator(f"sqlite:///{database}") as mesh:
        quota = ResourceQuota(max_concurrent_tasks=50, max_tasks_per_hour=1_000_000, rate_limit_per_second=1_000)
        tenant = (await mesh.create_tenant("A", quota=quota)).tenant_id
        handle = await mesh.submit(built, tenant=tenant)
        while len(effects) < 10:  # noqa: ASYNC110 - nothing tells of it, so it is looked for
            await asyncio.sleep(0.001)
        disk.fill()
        full.set()
        # at first there may be a little room left
        refusals: list[str] = []
        accepted = 0
        while len(refusals) < 5:
            try:
                await mesh.submit(small, tenant=tenant)
                accepted += 1
            except StoreUnavailable as error:
                refusals.append(str(error))
            await asyncio.sleep(0.02)
        seen["refusal"] = refusals[0]
        seen["status while full"] = (await handle.status()).value
        seen["open while full"] = await mesh.count_open_runs() > 0
        disk.make_room()
        await handle.result(30)
        for _ in range(3):
            await (await submitted(mesh, small, tenant)).result(30)
        runs = await mesh.list_runs()
        seen["runs"] = len(runs) - accepted
        seen["statuses"] = sorted({run.status.value for run in runs})
        seen["most often"] = max(effects.count(name) for name in set(effects) - {"s"})
        seen["tasks"] = len(set(effects) - {"s"})
        seen["attempts"] = sorted({each.attempt for each in (await mesh.get_run(handle.id)).tasks})
    return seen


async def submitted(mesh: Orchestrator, built: Workflow, tenant: str) -> Any:
    """Submit as soon as the database can be written again."""
    while True:
        try:
            return await mesh.submit(built, tenant=tenant)
        except StoreUnavailable:
            await asyncio.sleep(0.02)


if __name__ == "__main__":
    path = Path(sys.argv[1])
    os.chdir(path.parent)
    print(json.dumps(asyncio.run(main(path, Limit(path) if sys.argv[2] == "rlimit" else Filler(path)))))
