"""A database that an older version made is migrated when it is opened, and keeps everything."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from synergymesh.domain.states import TenantStatus
from synergymesh.errors import StoreUnavailable
from synergymesh.ports.changes import EstimateLearnt, HourReserved, TenantCreated, TenantPlanChanged, Unit
from synergymesh.ports.records import Committed, TenantRecord, WaitingRecord
from synergymesh.store import migration
from synergymesh.store.sqlite import SqliteReader, SqliteStore
from synergymesh.store.sqlite_files import open_writer

ROWS: dict[str, list[tuple[Any, ...]]] = {
    "meta": [("ended_cleanly", 1), ("incarnation", 7)],
    "tenants": [
        ("tenant-a", "A", "basic", b"[1]", "active", 1, None),
        ("tenant-b", "B", "enterprise", b"[2]", "suspended", 2, 5),
        ("tenant-c", "C", "basic", b"[3]", "deleted", 3, 6),
    ],
    "workflows": [("h", "w", b'{"components": [{}, {}]}', "shop:w", 1)],
    # run, tenant, workflow, hash, status, priority, input, result, error, key, not_before, created, started, ended,
    # cancel requested, recoveries
    "runs": [
        ("run-1", "tenant-a", "w", "h", "pending", 0, b"1", None, None, "k", 0, 1, None, None, None, 2),
        ("run-2", "tenant-a", "w", "h", "running", 0, b"2", None, None, None, 0, 1, 2, None, None, 0),
        ("run-3", "tenant-a", "w", "h", "pending", 9, b"3", None, None, None, 180_000_000_000, 1, None, None, None, 0),
        ("run-4", "tenant-a", "w", "h", "pending", 0, b"4", None, None, None, 0, 1, None, None, 3, 0),
        ("run-5", "tenant-b", "w", "h", "success", 0, b"5", b"1", None, None, 0, 1, 2, 3, None, 0),
        ("run-6", "tenant-b", "w", "h", "pending", 0, b"6", None, None, None, 0, 1, None, None, None, 0),
        ("run-7", "tenant-c", "w", "h", "pending", 0, b"7", None, None, None, 0, 1, None, None, None, 0),
    ],
    "tasks": [
        ("run-2", "a", "tenant-a", "success", 1, 2, 3, b"1", None, 0),
        ("run-2", "b", "tenant-a", "retrying", 1, 2, None, None, None, 1),
    ],
    "attempts": [("run-2", "b", 1, "tenant-a", "failed", 2, 3, 4, b"{}")],
}


@pytest.fixture
def made_by_0001(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a database as version 0.1 left it."""
    path = tmp_path / "mesh.db"
    with monkeypatch.context() as patched:
        patched.setattr(migration, "HEAD", "0001")
        connection = open_writer(path, "normal")
    for table, rows in ROWS.items():
        connection.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)
    assert migration.get_revision(connection, "it") == "0001"
    connection.close()
    return path


async def test_a_database_of_revision_0001_keeps_everything(made_by_0001: Path) -> None:
    store = SqliteStore(made_by_0001)
    await store.open()
    await store.close()
    connection = sqlite3.connect(made_by_0001)
    assert migration.get_revision(connection, "it") == migration.HEAD
    for table, rows in ROWS.items():
        kept = connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()
        assert [row[: len(rows[0])] for row in kept] == rows
    assert connection.execute("SELECT DISTINCT parent_id, policy FROM tenants").fetchall() == [(None, b"{}")]
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    connection.close()


async def test_a_migrated_database_does_what_a_new_one_does(made_by_0001: Path) -> None:
    store = SqliteStore(made_by_0001)
    await store.open()
    try:
        assert (await store.list_tenants())[1] == TenantRecord(
            "tenant-b", "B", "enterprise", b"[2]", TenantStatus.SUSPENDED, 2, None, b"{}"
        )
        waiting = await store.list_waiting_runs("tenant-a", due_by=2**62, after=None, limit=10)
        assert [(run.run_id, run.recoveries, run.level, run.tasks) for run in waiting] == [
            ("run-3", 0, 3 - 9, 2),
            ("run-1", 2, 0, 2),
        ]
        begun = await store.list_begun_runs(after=None, limit=10)
        assert [run.run_id for run in begun] == ["run-2", "run-4"]
        assert await store.list_waiting_counts() == [WaitingRecord("tenant-a", 2, 4), WaitingRecord("tenant-b", 1, 2)]
        life = await store.begin_incarnation()
        assert (life.number, life.previous_ended_cleanly) == (8, True)
        unit: Unit = [
            TenantCreated("child", "Child", "basic", b"{}", 9, "tenant-a", b"[4]"),
            TenantPlanChanged("tenant-a", "enterprise", b"[5]", b"[6]", 9),
            HourReserved("tenant-a", 1, 2),
            EstimateLearnt("child", "w", "a", 3),
        ]
        assert await store.commit([unit]) == [Committed()]
        assert [tenant.policy for tenant in await store.list_tenants()] == [b"[6]", b"{}", b"[4]"]
        while await store.purge_deleted(10):
            pass
        assert len(await store.list_waiting_counts()) == 2
        await store.begin_incarnation()
        assert [run.recoveries for run in await store.list_open_runs(after=None, limit=10)] == [3, 1, 1, 1, 1]
    finally:
        await store.close()


async def test_a_reader_of_an_older_database_says_what_to_do_and_changes_nothing(made_by_0001: Path) -> None:
    reader = SqliteReader(made_by_0001)
    with pytest.raises(StoreUnavailable, match=r"older version .*Start an orchestrator on it once"):
        await reader.open()
    connection = sqlite3.connect(made_by_0001)
    assert migration.get_revision(connection, "it") == "0001"
    connection.close()
