"""kill -9 at every statement of a transaction: the audit log has no gap, no duplicate, and one entry per change."""

import os
import signal
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest

from synergymesh.domain.audit.forms import MESH, chain_hash, genesis_hash
from synergymesh.domain.states import ExecutionStatus, TenantStatus
from synergymesh.ports.changes import (
    AttemptFailed,
    RunCreated,
    RunFinished,
    RunStarted,
    TaskFinished,
    TaskStarted,
    TenantCreated,
    TenantStatusChanged,
    Unit,
    WorkflowStored,
)
from synergymesh.store import upkeep, writes
from synergymesh.store.audit.reads import get_log_id, list_entries, list_heads
from synergymesh.store.sqlite_files import open_writer

pytestmark = [pytest.mark.crash, pytest.mark.timeout(240)]

S = ExecutionStatus
TENANTS = ("tenant-a", "tenant-b")
SETUP: list[Unit] = [
    [*(TenantCreated(t, t, "basic", b"{}", 1) for t in TENANTS), WorkflowStored("h", "w", b"{}", None, 1)]
]


def batches() -> list[list[Unit]]:
    """Give batches with every kind of change; one unit is bad, some changes come a second time."""
    runs = [RunCreated(f"run-{n}", TENANTS[n % 2], "w", "h", b"{}", None, 0, 0, 1) for n in range(6)]
    first: list[Unit] = [[run] for run in runs]
    second: list[Unit] = [
        [RunStarted(run.run_id, run.tenant_id, 2), TaskStarted(run.run_id, "a", run.tenant_id, 1, 2)] for run in runs
    ]
    third: list[Unit] = [
        [AttemptFailed("run-0", "a", 1, TENANTS[0], S.FAILED, 2, 3, 4, None)],
        [TaskFinished("run-nothing", "a", TENANTS[0], S.SUCCESS, 1, 2, 3, b"1", None)],
        *([TaskFinished(run.run_id, "a", run.tenant_id, S.SUCCESS, 2, 2, 3, b"1", None)] for run in runs),
        [TenantStatusChanged(TENANTS[1], TenantStatus.SUSPENDED, 5)],
    ]
    ends: list[Unit] = [[RunFinished(run.run_id, run.tenant_id, S.SUCCESS, 2, 6, b"1", None)] for run in runs]
    return [first, second, [*second[:3], *third], [*third[2:5], *ends]]


def live(database: Path, statement: int) -> None:
    """Live once on the database, and die before that statement (counted from 1)."""
    connection = open_writer(database, "normal")
    seen = 0

    def count(text: str) -> None:
        nonlocal seen
        seen += 1
        if seen == statement:
            os.kill(os.getpid(), signal.SIGKILL)

    connection.set_trace_callback(count)
    upkeep.begin_incarnation(connection)
    for batch in [SETUP, *batches()]:
        writes.commit(connection, batch)
    upkeep.end_incarnation(connection)


def die(database: Path, statement: int) -> bool:
    """Let a process live and die; tell whether it was killed."""
    process = os.fork()
    if not process:
        try:
            live(database, statement)
        finally:
            os._exit(0)
    _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status) == -signal.SIGKILL


def check(connection: sqlite3.Connection) -> int:
    """Check that every chain is whole, and that entries and rows match; give the number of entries."""
    log_id = get_log_id(connection)
    entries = []
    for head in list_heads(connection):
        previous = genesis_hash(log_id, head.tenant_id)
        chain = list_entries(connection, head.tenant_id, 0, 10_000)
        assert [entry.seq for entry in chain] == list(range(1, head.seq + 1))
        for entry in chain:
            previous = chain_hash(head.tenant_id, entry.seq, previous, entry.payload)
            assert entry.hash == previous
        assert head.hash == previous
        entries += chain
    assert connection.execute("SELECT coalesce(sum(length(hash)), 0) / 32 FROM audit_entries").fetchone() == (
        len(entries),
    )
    told = sorted((entry.action, entry.entity) for entry in entries if entry.tenant_id != MESH)
    expected: Sequence[tuple[str, str]] = connection.execute(
        "SELECT 'tenant.created', 'tenant/' || tenant_id FROM tenants "
        "UNION ALL SELECT 'tenant.suspended', 'tenant/' || tenant_id FROM tenants WHERE status = 'suspended' "
        "UNION ALL SELECT 'run.submitted', 'run/' || run_id FROM runs "
        "UNION ALL SELECT 'run.started', 'run/' || run_id FROM runs WHERE status <> 'pending' "
        "UNION ALL SELECT 'run.finished', 'run/' || run_id FROM runs WHERE status = 'success' "
        "UNION ALL SELECT 'task.retried', 'task/' || run_id || '/' || component_id FROM attempts "
        "UNION ALL SELECT 'task.finished', 'task/' || run_id || '/' || component_id FROM tasks "
        "WHERE status = 'success' "
    ).fetchall()
    lasting = [entry for entry in told if entry[0] not in ("task.started", "task.crashed")]
    assert lasting == sorted(expected)
    # A start that is recorded again after a crash is no change: the attempt's number is the same.
    started = [entity for action, entity in told if action == "task.started"]
    assert len(started) == len(set(started)) == connection.execute("SELECT count(*) FROM tasks").fetchone()[0]
    return len(entries)


def test_a_kill_before_any_statement_leaves_whole_chains_that_match_the_rows(tmp_path: Path) -> None:
    statement = 0
    while True:
        statement += 1
        database = tmp_path / f"mesh-{statement}.db"
        open_writer(database, "normal").close()
        killed = die(database, statement)
        connection = open_writer(database, "normal")
        check(connection)
        connection.close()
        if not killed:
            break
        assert not die(database, 0)  # everything is done again
        connection = open_writer(database, "normal")
        assert check(connection) >= 34
        assert connection.execute("SELECT count(*) FROM runs WHERE status = 'success'").fetchone() == (6,)
        connection.close()
        for path in tmp_path.glob(f"{database.name}*"):
            path.unlink()
    assert statement > 40


def test_kills_one_after_the_other_on_one_database_leave_whole_chains(tmp_path: Path) -> None:
    database = tmp_path / "mesh.db"
    open_writer(database, "normal").close()
    for statement in range(1, 70, 3):
        die(database, statement)
        connection = open_writer(database, "normal")
        check(connection)
        connection.close()
