"""A process that is killed in the middle of commits loses nothing that it was told is recorded."""

# ruff: noqa: ASYNC220 - nothing else runs on the event loop of this test.

import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

from synergymesh.store.sqlite import SqliteStore

WRITER = """
import asyncio, sys
from synergymesh.domain.states import ExecutionStatus
from synergymesh.ports.changes import RunCreated, RunFinished, TaskFinished, TenantCreated, WorkflowStored
from synergymesh.store.sqlite import SqliteStore

async def main():
    store = SqliteStore(sys.argv[1])
    await store.open()
    life = await store.begin_incarnation()
    await store.commit([[TenantCreated("tenant-a", "A", "basic", b"{}", 1), WorkflowStored("h", "w", b"{}", None, 1)]])
    batch = 0
    while True:
        names = [f"run-{life.number:03}-{batch:06}-{n:02}" for n in range(20)]
        await store.commit([[RunCreated(name, "tenant-a", "w", "h", b"{}", name, 0, 0, 1)] for name in names])
        await store.commit(
            [
                [
                    TaskFinished(name, "a", "tenant-a", ExecutionStatus.SUCCESS, 1, 1, 2, name.encode(), None),
                    RunFinished(name, "tenant-a", ExecutionStatus.SUCCESS, 1, 2, b"1", None),
                ]
                for name in names
            ]
        )
        print(names[-1], flush=True)
        batch += 1

asyncio.run(main())
"""

KILLS = 4


async def test_nothing_acknowledged_is_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "mesh.db"
    dice = random.Random(7)
    acknowledged: list[str] = []
    for life in range(1, KILLS + 1):
        lines = dice.randint(1, 60)
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(lines):
                acknowledged.append(process.stdout.readline().strip())
            process.send_signal(signal.SIGKILL)
            acknowledged += [line.strip() for line in process.stdout if line.endswith("\n")]
        assert process.returncode == -signal.SIGKILL
        connection = sqlite3.connect(path)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        # A unit is there wholly or not at all.
        assert connection.execute(
            "SELECT count(*) FROM runs LEFT JOIN tasks USING (run_id) "
            "WHERE (runs.status = 'success') <> (tasks.status IS NOT NULL)"
        ).fetchone() == (0,)
        connection.close()
        store = SqliteStore(path)
        await store.open()
        assert (await store.begin_incarnation()).number == 2 * life
        found = {task.run_id for task in await store.list_tasks(acknowledged)}
        assert found == set(acknowledged)
        await store.close()
    assert len(acknowledged) > KILLS
