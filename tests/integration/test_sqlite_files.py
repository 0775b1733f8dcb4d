"""Files that are no database, cannot be written, or belong to somebody: a clear error, and nothing lost."""

# ruff: noqa: ASYNC221, ASYNC222 - nothing else runs on the event loop of these tests.

import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from synergymesh.errors import (
    InvalidRequest,
    SchemaMismatch,
    StoreCorrupt,
    StoreError,
    StoreLocked,
    StoreUnavailable,
)
from synergymesh.ports.changes import RunCreated, TenantCreated, Unit, WorkflowStored
from synergymesh.ports.records import Committed
from synergymesh.store import reads
from synergymesh.store.sqlite import SqliteReader, SqliteStore
from synergymesh.store.sqlite_errors import translate

HASH = "0" * 64
SETUP: list[Unit] = [[TenantCreated("tenant-a", "A", "basic", b"{}", 1), WorkflowStored(HASH, "w", b"{}", None, 1)]]


def created(run_id: str, payload: bytes = b"{}") -> list[RunCreated]:
    return [RunCreated(run_id, "tenant-a", "w", HASH, payload, None, 0, 0, 1)]


async def make(path: Path, runs: int = 0) -> None:
    """Make a database with some runs."""
    store = SqliteStore(path)
    await store.open()
    await store.commit([*SETUP, *(created(f"run-{n:04}") for n in range(runs))])
    await store.close()


async def count(path: Path) -> int:
    store = SqliteStore(path)
    await store.open()
    try:
        return await store.count_runs(tenant_id=None)
    finally:
        await store.close()


# --- addresses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    ["", "postgresql://host/db", "sqlite://host/mesh.db", "sqlite:///mesh.db?mode=ro", "mesh\0.db", "http://x"],
)
def test_an_address_that_is_no_sqlite_database_is_refused(address: str) -> None:
    with pytest.raises(InvalidRequest, match="database must be") as caught:
        SqliteStore(address)
    assert caught.value.field == "database"


def test_an_unknown_synchronous_mode_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="synchronous must be full or normal"):
        SqliteStore(":memory:", synchronous="off")  # type: ignore[arg-type]  # on purpose


@pytest.mark.parametrize("address", [":memory:", "sqlite:///:memory:", "sqlite://"])
async def test_a_database_in_memory_leaves_no_file(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = SqliteStore(address)
    await store.open()
    await store.close()
    assert list(tmp_path.iterdir()) == []


async def test_relative_and_absolute_addresses_name_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    expected = tmp_path.resolve() / "mesh.db"
    for address in ("sqlite:///mesh.db", f"sqlite:///{tmp_path}/mesh.db", "mesh.db", Path("mesh.db")):
        assert SqliteStore(address).path == expected
    await make(Path("mesh.db"))
    assert expected.exists()


async def test_a_name_with_strange_characters_works(tmp_path: Path) -> None:
    path = tmp_path / "a b?c#d%20é.db"
    await make(path, runs=1)
    assert path.exists()
    assert await count(path) == 1


# --- files that are no database of ours -----------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"hello", b"SQLite format 2\0" + b"x" * 100, b"\0" * 4_096])
async def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    for store in (SqliteStore(path), SqliteReader(path)):
        with pytest.raises(StoreCorrupt, match=r"notes\.txt is not a SQLite database"):
            await store.open()
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


async def test_a_database_with_a_broken_header_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mesh.db"
    path.write_bytes(b"SQLite format 3\0" + b"\xff" * 5_000)
    with pytest.raises(StoreCorrupt, match=r"mesh\.db"):
        await SqliteStore(path).open()


async def test_a_database_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE songs (title)")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    for store in (SqliteStore(path), SqliteReader(path)):
        with pytest.raises(StoreCorrupt, match=r"another program .*songs"):
            await store.open()
    assert path.read_bytes() == before


async def test_an_empty_file_becomes_a_database(tmp_path: Path) -> None:
    path = tmp_path / "mesh.db"
    path.touch()
    await make(path, runs=2)
    assert await count(path) == 2


async def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mesh.db"
    await make(path)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    for store in (SqliteStore(path), SqliteReader(path)):
        with pytest.raises(SchemaMismatch, match=r"newer version of SynergyMesh .*9999"):
            await store.open()


async def test_a_truncated_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mesh.db"
    await make(path, runs=500)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(StoreCorrupt, match=r"mesh\.db is damaged .*backup"):
        await SqliteStore(path).open()


async def test_a_damaged_page_is_reported_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mesh.db"
    await make(path, runs=500)
    with path.open("r+b") as file:
        file.seek(20 * 4_096)
        file.write(b"\xff" * (path.stat().st_size - 20 * 4_096))
    store = SqliteStore(path)

    async def read() -> None:
        await store.open()  # which notices it already if a table of the schema lies there
        await store.list_runs(tenant_id=None, limit=1_000)

    with pytest.raises(StoreCorrupt, match=r"mesh\.db is damaged"):
        await read()
    await store.close()


async def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    for store in (SqliteStore(tmp_path / "no" / "mesh.db"), SqliteReader(tmp_path / "no" / "mesh.db")):
        with pytest.raises(StoreUnavailable, match=r"the directory .*/no does not exist"):
            await store.open()


async def test_a_directory_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="is not a file"):
        await SqliteStore(tmp_path).open()
    assert list(tmp_path.iterdir()) == []


async def test_a_store_that_was_refused_can_be_opened_once_the_cause_is_gone(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "new" / "mesh.db")
    with pytest.raises(StoreUnavailable):
        await store.open()
    (tmp_path / "new").mkdir()
    await store.open()
    assert await store.commit(SETUP) == [Committed()]
    await store.close()


# --- reading beside the owner ---------------------------------------------------------------------------------------


async def test_a_reader_sees_what_the_owner_commits(tmp_path: Path) -> None:
    path = tmp_path / "mesh.db"
    await make(path, runs=1)
    owner, reader = SqliteStore(path), SqliteReader(path)
    await owner.open()
    await reader.open()
    assert [run.run_id for run in await reader.list_runs(tenant_id="tenant-a")] == ["run-0000"]
    await owner.commit([created("run-0001")])
    assert await reader.count_runs(tenant_id=None) == 2
    await owner.close()
    assert await reader.count_runs(tenant_id=None) == 2
    await reader.close()
    await reader.close()


async def test_a_reader_of_a_database_nobody_owns_takes_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "mesh.db"
    await make(path, runs=3)
    reader = SqliteReader(path)
    await reader.open()
    assert await reader.count_runs(tenant_id=None) == 3
    assert await count(path) == 3
    await reader.close()


async def test_a_reader_makes_no_database(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="there is no database"):
        await SqliteReader(tmp_path / "mesh.db").open()
    (tmp_path / "empty.db").touch()
    with pytest.raises(StoreUnavailable, match="is empty"):
        await SqliteReader(tmp_path / "empty.db").open()
    assert [path.name for path in tmp_path.iterdir()] == ["empty.db"]
    with pytest.raises(InvalidRequest, match="must be a file"):
        SqliteReader(":memory:")


# --- one owner ------------------------------------------------------------------------------------------------------


async def test_a_second_store_of_this_process_is_refused_by_any_name(tmp_path: Path) -> None:
    path = tmp_path / "mesh.db"
    owner = SqliteStore(path)
    await owner.open()
    (tmp_path / "link.db").symlink_to(path)
    (tmp_path / "sub").mkdir()
    for other in (path, tmp_path / "link.db", tmp_path / "sub" / ".." / "mesh.db"):
        with pytest.raises(StoreLocked, match=f"in use by process {os.getpid()}, since 20.*Stop that process"):
            await SqliteStore(other).open()
    assert await owner.commit(SETUP) == [Committed()]
    await owner.close()
    assert await count(path) == 0


OWNER = """
import asyncio, sys
from synergymesh.ports.changes import TenantCreated
from synergymesh.store.sqlite import SqliteStore

async def main():
    store = SqliteStore(sys.argv[1])
    await store.open()
    await store.commit([[TenantCreated("tenant-child", "C", "basic", b"{}", 1)]])
    print("ready", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Give another process that owns the database."""
    arguments = [sys.executable, "-c", OWNER, str(tmp_path / "mesh.db")]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


async def test_a_database_of_another_process_is_refused_by_its_pid(
    tmp_path: Path, owner: subprocess.Popen[str]
) -> None:
    path = tmp_path / "mesh.db"
    with pytest.raises(StoreLocked, match=f"in use by process {owner.pid}, since"):
        await SqliteStore(path).open()
    reader = SqliteReader(path)
    await reader.open()
    assert [tenant.tenant_id for tenant in await reader.list_tenants()] == ["tenant-child"]
    await reader.close()


async def test_the_lock_of_a_killed_process_is_free(tmp_path: Path, owner: subprocess.Popen[str]) -> None:
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    store = SqliteStore(tmp_path / "mesh.db")
    await store.open()
    assert [tenant.tenant_id for tenant in await store.list_tenants()] == ["tenant-child"]
    await store.close()


async def test_a_forked_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "mesh.db"
    store = SqliteStore(path)
    await store.open()
    gate_out, gate_in = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(gate_in)
        os.read(gate_out, 1)
        os._exit(0)
    os.close(gate_out)
    await store.close()
    assert await count(path) == 0
    os.close(gate_in)
    assert os.waitpid(child, 0)[1] == 0


async def test_a_foreign_writer_is_reported_as_a_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synergymesh.store.sqlite_files.BUSY_TIMEOUT_SECONDS", 0.05)
    path = tmp_path / "mesh.db"
    store = SqliteStore(path)
    await store.open()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreLocked, match="locked by another program"):
        await store.commit(SETUP)
    other.execute("ROLLBACK")
    other.close()
    assert await store.commit(SETUP) == [Committed()]
    await store.close()


# --- no room, no permission -----------------------------------------------------------------------------------------

FILL = """
import asyncio, resource, signal, sys
from synergymesh.errors import StoreUnavailable
from synergymesh.ports.changes import RunCreated, TenantCreated, WorkflowStored
from synergymesh.store.sqlite import SqliteStore

def created(name, size):
    return [RunCreated(name, "tenant-a", "w", "h", b'"' + b"x" * size + b'"', None, 0, 0, 1)]

async def main():
    store = SqliteStore(sys.argv[1])
    await store.open()
    await store.commit([[TenantCreated("tenant-a", "A", "basic", b"{}", 1), WorkflowStored("h", "w", b"{}", None, 1)]])
    await store.commit([created("run-before", 10)])
    limit = int(sys.argv[2])
    if limit:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    recorded = 0
    try:
        for n in range(100):
            await store.commit([created(f"run-{n:04}-{m}", 50_000) for m in range(10)])
            recorded += 10
    except StoreUnavailable as error:
        print(error)
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await store.commit([created("run-later", 10)])
        recorded += 1
    print(recorded + 1, await store.count_runs(tenant_id=None))
    await store.close()

asyncio.run(main())
"""


def fill(path: Path, limit: int) -> tuple[str, int, int]:
    """Fill a database in a child until the disk refuses; give the error, the runs acknowledged and those found."""
    done = subprocess.run(
        [sys.executable, "-c", FILL, str(path), str(limit)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    message, numbers = done.stdout.splitlines()
    acknowledged, found = map(int, numbers.split())
    return message, acknowledged, found


async def test_a_file_that_may_not_grow_loses_nothing_and_works_again_later(tmp_path: Path) -> None:
    path = tmp_path / "mesh.db"
    message, acknowledged, found = fill(path, 3_000_000)
    assert str(path) in message
    assert acknowledged == found > 1
    assert await count(path) == found


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a file system of 4 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    done = subprocess.run([mount, "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"mounting is not permitted: {done.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


async def test_a_full_disk_is_reported_and_loses_nothing(small_disk: Path) -> None:
    message, acknowledged, found = fill(small_disk / "mesh.db", 0)
    assert "the disk is full" in message
    assert acknowledged == found > 1
    assert await count(small_disk / "mesh.db") == found


async def test_a_read_only_disk_is_reported(small_disk: Path) -> None:
    path = small_disk / "mesh.db"
    await make(path, runs=1)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for place in (path, small_disk / "new.db"):
        with pytest.raises(StoreUnavailable, match=r"(?i)read-only"):
            await SqliteStore(place).open()


async def test_a_database_that_becomes_read_only_is_reported(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "mesh.db")
    await store.open()
    await store.commit(SETUP)
    assert store._writes is not None
    await store._writes.run(lambda connection: connection.execute("PRAGMA query_only = ON").close())
    with pytest.raises(StoreUnavailable, match="it is read-only"):
        await store.commit([created("run-1")])
    await store._writes.run(lambda connection: connection.execute("PRAGMA query_only = OFF").close())
    assert await store.commit([created("run-1")]) == [Committed()]
    await store.close()


async def test_no_error_of_the_database_leaves_the_store_untranslated(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "mesh.db")
    await store.open()
    assert store._writes is not None
    with pytest.raises(StoreError, match="no such table"):
        await store._writes.run(lambda connection: connection.execute("SELECT * FROM lost"))
    await store.close()


def test_open_files_are_closed(tmp_path: Path) -> None:
    import asyncio

    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    if not Path("/proc/self/fd").exists():
        pytest.skip("this system has no /proc")
    asyncio.run(make(tmp_path / "mesh.db"))
    before = open_files()
    for _ in range(5):
        asyncio.run(make(tmp_path / "mesh.db"))
    assert open_files() == before
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_damage_that_is_found_in_the_audit_log_names_the_database() -> None:
    error = translate(StoreCorrupt("the audit log has a gap"), "mesh.db")
    assert isinstance(error, StoreCorrupt)
    assert str(error) == "mesh.db is damaged: the audit log has a gap"
    assert translate(error, "mesh.db") is error


def test_a_row_that_no_store_can_have_written_is_reported_as_damage() -> None:
    """As after a bit that flipped in the header of a record: SQLite reads it and notices nothing."""
    connection = sqlite3.connect(":memory:")
    columns = (
        "tenant_id, tenant_name, tier, quota, status, created_at, parent_id, policy, idempotency_key, request_hash"
    )
    connection.execute(f"CREATE TABLE tenants ({columns})")
    connection.executemany(
        f"INSERT INTO tenants ({columns}) VALUES (?, 'n', 'basic', x'', 'active', ?, NULL, x'', NULL, NULL)",
        [("a", 1), ("b", None)],
    )
    with pytest.raises(sqlite3.DatabaseError) as raised:
        reads.list_tenants(connection)
    connection.close()
    error = translate(raised.value, "mesh.db")
    assert isinstance(error, StoreCorrupt)
    assert "mesh.db is damaged" in str(error)
