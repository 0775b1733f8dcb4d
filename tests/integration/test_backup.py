"""Backups: made of a database that somebody works on, checked before they take its place."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from synergymesh import Orchestrator, ResourceQuota, Workflow, current_task
from synergymesh.domain.audit.actions import Action
from synergymesh.domain.states import ExecutionStatus
from synergymesh.errors import InvalidRequest, SchemaMismatch, StoreCorrupt, StoreLocked, StoreUnavailable
from synergymesh.ports.changes import Unit
from synergymesh.ports.records import RESTORE_STEP
from synergymesh.store import backup
from synergymesh.store.backup import back_up, restore
from synergymesh.store.sqlite import SqliteStore
from synergymesh.testing.store_changes import created, finished, get_run, get_task, task_started, tenant, workflow

OpenMesh = Callable[..., Orchestrator]
NOW = 1_800_000_000 * 1_000_000_000


async def fill(path: Path, runs: int = 5, size: int = 10) -> None:
    store = SqliteStore(path)
    await store.open()
    await store.commit([[tenant(), workflow()]])
    await store.commit([[created(f"run-{n}"), finished(f"run-{n}", result=b"1" * size)] for n in range(runs)])
    await store.close()


async def count(path: Path) -> int:
    store = SqliteStore(path)
    await store.open()
    try:
        return await store.count_runs(tenant_id=None)
    finally:
        await store.close()


def names(directory: Path) -> set[str]:
    """Name the files; who reads a database without an owner leaves an empty log and its index beside it."""
    return {path.name for path in directory.iterdir() if path.suffix not in (".lock", ".db-wal", ".db-shm")}


# --- making one -----------------------------------------------------------------------------------------------------


async def test_a_backup_is_complete_private_and_alone(tmp_path: Path) -> None:
    await fill(tmp_path / "mesh.db")
    steps: list[tuple[int, int]] = []
    made = back_up(str(tmp_path / "mesh.db"), tmp_path / "copy.db", progress=lambda *step: steps.append(step))
    assert made == tmp_path / "copy.db"
    assert made.stat().st_mode & 0o777 == 0o600
    assert names(tmp_path) == {"mesh.db", "copy.db"}
    assert await count(made) == 5
    assert steps[-1][0] == steps[-1][1] > 0


async def test_a_backup_has_one_moment_while_its_owner_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "PAGES_PER_STEP", 10)
    path = tmp_path / "mesh.db"
    await fill(path, 50, size=10_000)
    store = SqliteStore(path)
    await store.open()
    loop = asyncio.get_running_loop()
    written = 0
    steps = 0

    async def commit(unit: Unit) -> None:
        await store.commit([unit])

    def between_steps(done: int, pages: int) -> None:
        nonlocal written, steps
        steps += 1
        if written < 10:
            written += 1
            unit = [created(f"new-{written}"), finished(f"new-{written}", result=b"2" * 10_000)]
            asyncio.run_coroutine_threadsafe(commit(unit), loop).result(10)

    copy = await asyncio.to_thread(back_up, str(path), tmp_path / "copy.db", progress=between_steps)
    assert written == 10 <= steps < 100
    assert await store.count_runs(tenant_id=None) == 60
    await store.close()
    assert await count(copy) == 50


async def test_a_file_that_is_there_is_not_replaced_unless_that_is_said(tmp_path: Path) -> None:
    await fill(tmp_path / "mesh.db")
    target = tmp_path / "copy.db"
    target.write_text("precious")
    with pytest.raises(InvalidRequest, match="exists already"):
        back_up(str(tmp_path / "mesh.db"), target)
    assert target.read_text() == "precious"
    back_up(str(tmp_path / "mesh.db"), target, force=True)
    assert target.stat().st_mode & 0o777 == 0o600
    assert await count(target) == 5


async def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    await fill(tmp_path / "mesh.db")
    target = tmp_path / "copy.db"
    with pytest.raises(InvalidRequest, match="made by somebody else"):
        back_up(str(tmp_path / "mesh.db"), target, progress=lambda *_: target.write_text("theirs"))
    assert target.read_text() == "theirs"
    assert names(tmp_path) == {"mesh.db", "copy.db"}


async def test_a_backup_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    await fill(tmp_path / "mesh.db")

    def fails(done: int, pages: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        back_up(str(tmp_path / "mesh.db"), tmp_path / "copy.db", progress=fails)
    assert names(tmp_path) == {"mesh.db"}


async def test_a_backup_gives_up_before_the_log_fills_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "LOG_BYTES_MAX", 100_000)
    store = SqliteStore(tmp_path / "mesh.db")
    await store.open()
    await store.commit([[tenant(), workflow()]])
    await store.commit([[created(f"run-{n}", input=b"1" * 10_000)] for n in range(20)])
    with pytest.raises(StoreUnavailable, match=r"log .* has grown beyond 100,000 bytes"):
        await asyncio.to_thread(back_up, str(tmp_path / "mesh.db"), tmp_path / "copy.db")
    await store.close()
    assert names(tmp_path) == {"mesh.db"}


@pytest.mark.parametrize("database", [":memory:", "missing.db", "other.db", "text.db", "directory"])
async def test_what_is_no_database_of_ours_has_no_backup(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    other = sqlite3.connect("other.db")
    other.execute("CREATE TABLE theirs (a)")
    other.close()
    Path("text.db").write_text("this is a letter to my aunt, no database")
    Path("directory").mkdir()
    with pytest.raises((InvalidRequest, StoreUnavailable, StoreCorrupt)):
        back_up(database, "copy.db")
    assert not Path("copy.db").exists()


async def test_a_backup_goes_into_a_directory_that_is_there_and_is_not_the_database(tmp_path: Path) -> None:
    path = tmp_path / "mesh.db"
    await fill(path)
    with pytest.raises(StoreUnavailable, match="does not exist"):
        back_up(str(path), tmp_path / "nowhere" / "copy.db")
    with pytest.raises(InvalidRequest, match="the database itself"):
        back_up(str(path), path, force=True)
    (tmp_path / "link.db").symlink_to(path)
    with pytest.raises(InvalidRequest, match="the database itself"):
        back_up(str(path), tmp_path / "link.db", force=True)
    with pytest.raises(InvalidRequest, match="not a file"):
        back_up(str(path), tmp_path, force=True)
    assert await count(path) == 5


# --- taking one -----------------------------------------------------------------------------------------------------


async def test_a_restored_database_has_what_the_backup_had(tmp_path: Path) -> None:
    path, copy = tmp_path / "mesh.db", tmp_path / "copy.db"
    await fill(path)
    back_up(str(path), copy)
    whole = copy.read_bytes()
    store = SqliteStore(path)
    await store.open()
    await store.commit([[created("later")]])
    await store.close()
    with pytest.raises(InvalidRequest, match="exists already"):
        restore(copy, str(path), now=NOW)
    kept = restore(copy, str(path), now=NOW, force=True)
    assert kept is not None
    assert await count(path) == 5
    assert await count(kept) == 6
    assert copy.read_bytes() == whole
    assert restore(copy, str(tmp_path / "new.db"), now=NOW) is None
    assert await count(tmp_path / "new.db") == 5


async def test_the_log_of_the_database_before_goes_with_it(tmp_path: Path) -> None:
    path, copy = tmp_path / "mesh.db", tmp_path / "copy.db"
    await fill(path)
    back_up(str(path), copy)
    # what a process leaves that was killed while a program read, on a database that cannot be opened any more
    Path(f"{path}-wal").write_bytes(b"old log")
    Path(f"{path}-shm").write_bytes(b"old index")
    path.write_bytes(b"SQLite format 3\x00" + b"\xff" * 5_000)
    kept = restore(copy, str(path), now=NOW, force=True)
    assert kept is not None
    assert await count(path) == 5
    assert kept.read_bytes().endswith(b"\xff")


DIE_AT_STEP = """
import os, sys
from synergymesh.store.backup import back_up, restore

verb, source, target, step = sys.argv[1:]
left = int(step)

def hook(event, arguments):
    global left
    if event in ("os.rename", "os.link", "os.remove") and target in str(arguments[:2]):
        left -= 1
        if not left:
            os._exit(9)  # nothing is cleaned up, as when it is killed

sys.addaudithook(hook)
if verb == "restore":
    restore(source, target, now=1_800_000_000 * 1_000_000_000, force=True)
else:
    back_up(source, target, force=True)
"""


async def with_a_log(path: Path) -> None:
    """Leave what a process leaves that was killed: a database whose last commits are in its log alone."""
    store = SqliteStore(path)
    await store.open()
    await store.commit([[created("in-the-log")]])
    copies = {suffix: Path(f"{path}{suffix}").read_bytes() for suffix in ("", "-wal")}
    await store.close()
    for suffix, content in copies.items():
        Path(f"{path}{suffix}").write_bytes(content)


@pytest.mark.parametrize("before", ["sound", "with a log", "damaged", "a backup with a log"])
async def test_a_process_that_dies_while_it_replaces_a_database_leaves_one_of_the_two_or_says_so(
    before: str, tmp_path: Path
) -> None:
    source, target = tmp_path / "copy.db", tmp_path / "mesh.db"
    await fill(tmp_path / "first.db", 3)
    back_up(str(tmp_path / "first.db"), source)
    verb = "backup" if "backup" in before else "restore"
    notes = 0
    for step in range(1, 100):
        for old in tmp_path.glob("*mesh.db*"):
            old.unlink()
        await fill(target)
        if "log" in before:
            await with_a_log(target)
        if before == "damaged":
            await with_a_log(target)
            target.write_bytes(b"SQLite format 3\x00" + b"\xff" * 5_000)
        whole = {suffix: Path(f"{target}{suffix}").read_bytes() for suffix in ("", "-wal") if before == "damaged"}
        arguments = [sys.executable, "-c", DIE_AT_STEP, verb, str(source), str(target), str(step)]
        code = await (await asyncio.create_subprocess_exec(*arguments)).wait()
        assert code in (0, 9)
        assert target.exists(), "the next start would make an empty one"
        found: int | None = None
        try:
            found = await count(target)
            assert found in {3, 5 + ("log" in before)}
            assert code or found == 3
        except StoreCorrupt as error:
            if "was being put here" in str(error):
                notes += 1
            else:
                assert target.read_bytes() == whole[""], "it is as damaged as it was"
        kept = [path for path in tmp_path.glob("mesh.db.before-*") if path.suffix[-4:] not in ("-wal", "-shm")]
        if verb == "restore" and found != 5 + ("log" in before) and (found == 3 or not whole):
            (old,) = kept
            if whole:
                assert old.read_bytes() == whole[""]
                assert Path(f"{old}-wal").read_bytes() == whole["-wal"]
            else:
                assert await count(old) == 5 + ("log" in before)
        if code == 0:
            break
        if verb == "restore":
            restore(source, str(target), now=NOW, force=True)
        else:
            back_up(str(source), target, force=True)
        assert await count(target) == 3
    else:
        pytest.fail("it never ends")
    assert step > 2
    assert notes or before in ("sound", "with a log"), "a log that is moved is never beside the other database"


async def test_a_database_that_a_program_reads_is_not_replaced(tmp_path: Path) -> None:
    path, copy = tmp_path / "mesh.db", tmp_path / "copy.db"
    await fill(path)
    back_up(str(path), copy)
    reader = sqlite3.connect(path)
    reader.execute("SELECT count(*) FROM runs").fetchone()
    with pytest.raises(StoreLocked, match=r"mesh\.db is locked by another program"):
        restore(copy, str(path), now=NOW, force=True)
    assert names(tmp_path) == {"mesh.db", "copy.db"}
    reader.close()
    kept = restore(copy, str(path), now=NOW, force=True)
    assert kept is not None
    assert await count(kept) == 5


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])
async def test_a_file_system_without_hard_links_will_do(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    path, copy = tmp_path / "mesh.db", tmp_path / "copy.db"
    await fill(path)
    back_up(str(path), copy)
    with pytest.raises(InvalidRequest, match="made by somebody else"):
        back_up(str(path), tmp_path / "new.db", progress=lambda *_: (tmp_path / "new.db").write_text("theirs"))
    (tmp_path / "new.db").unlink()
    await fill(tmp_path / "other.db", 2)
    kept = restore(copy, str(tmp_path / "other.db"), now=NOW, force=True)
    assert kept is not None
    assert (await count(kept), await count(tmp_path / "other.db")) == (2, 5)
    assert restore(copy, str(tmp_path / "new.db"), now=NOW) is None
    assert await count(tmp_path / "new.db") == 5
    assert names(tmp_path) == {"mesh.db", "copy.db", "other.db", "new.db", kept.name}


async def test_an_error_of_the_disk_names_the_file_that_it_is_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, copy = tmp_path / "mesh.db", tmp_path / "copy.db"
    await fill(path)

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(StoreUnavailable, match=r"copy\.db: Input/output error"):
        back_up(str(path), copy)
    assert names(tmp_path) == {"mesh.db"}


async def test_what_killed_backups_left_is_deleted_by_a_later_one(tmp_path: Path) -> None:
    path, copy = tmp_path / "mesh.db", tmp_path / "copy.db"
    await fill(path)
    old, young = tmp_path / ".copy.db.0123abcd.partial", tmp_path / ".copy.db.4567abcd.partial"
    others = {".other.db.0123abcd.partial", ".copy.db.partial"}
    for name in (old.name, f"{old.name}-journal", young.name, *others):
        (tmp_path / name).write_text("half")
        if name != young.name:
            os.utime(tmp_path / name, (time.time() - backup.LEFT_SECONDS - 9,) * 2)
    back_up(str(path), copy)
    assert names(tmp_path) == {"mesh.db", "copy.db", young.name, *others}


async def test_a_backup_does_not_take_the_place_of_a_database_that_a_process_owns(tmp_path: Path) -> None:
    path, other = tmp_path / "mesh.db", tmp_path / "other.db"
    await fill(path)
    store = SqliteStore(other)
    await store.open()
    with pytest.raises(StoreLocked, match=r"other\.db is in use"):
        back_up(str(path), other, force=True)
    await store.commit([[tenant(), workflow()], [created("still-there")]])
    await store.close()
    assert await count(other) == 1


async def test_an_owned_database_is_not_replaced(tmp_path: Path) -> None:
    path, copy = tmp_path / "mesh.db", tmp_path / "copy.db"
    await fill(path)
    back_up(str(path), copy)
    store = SqliteStore(path)
    await store.open()
    with pytest.raises(StoreLocked, match="in use by process"):
        restore(copy, str(path), now=NOW, force=True)
    await store.commit([[created("still-there")]])
    await store.close()
    assert names(tmp_path) == {"mesh.db", "copy.db"}


def damage(path: Path) -> None:
    """Overwrite pages in the middle of a file."""
    with path.open("r+b") as file:
        file.seek(os.path.getsize(path) // 2)
        file.write(b"\xa5" * 20_000)


async def test_a_damaged_backup_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    path, copy = tmp_path / "mesh.db", tmp_path / "copy.db"
    await fill(path, 100, size=3_000)
    back_up(str(path), copy)
    damage(copy)
    before = path.read_bytes()
    with pytest.raises(StoreCorrupt, match=r"copy\.db is damaged"):
        restore(copy, str(path), now=NOW, force=True)
    assert path.read_bytes() == before
    assert names(tmp_path) == {"mesh.db", "copy.db"}


async def test_a_damaged_database_gets_no_backup_that_looks_sound(tmp_path: Path) -> None:
    path = tmp_path / "mesh.db"
    await fill(path, 100, size=3_000)
    damage(path)
    with pytest.raises(StoreCorrupt, match="is damaged"):
        back_up(str(path), tmp_path / "copy.db")
    assert names(tmp_path) == {"mesh.db"}


async def test_a_backup_with_a_reference_into_nothing_is_refused(tmp_path: Path) -> None:
    path, copy = tmp_path / "mesh.db", tmp_path / "copy.db"
    await fill(path)
    back_up(str(path), copy)
    edited = sqlite3.connect(copy)
    edited.execute("DELETE FROM workflows")
    edited.commit()
    edited.close()
    with pytest.raises(StoreCorrupt, match=r"row .* of runs refers to a row of workflows that is not there"):
        restore(copy, str(path), now=NOW, force=True)


async def test_a_backup_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path, copy = tmp_path / "mesh.db", tmp_path / "copy.db"
    await fill(path)
    back_up(str(path), copy)
    edited = sqlite3.connect(copy)
    edited.execute("UPDATE alembic_version SET version_num = '9999'")
    edited.commit()
    edited.close()
    with pytest.raises(SchemaMismatch, match="newer version"):
        restore(copy, str(path), now=NOW, force=True)
    assert await count(path) == 5


@pytest.mark.parametrize("file", ["missing.db", "text.db", "empty.db", "mesh.db"])
async def test_what_is_no_backup_is_refused(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    await fill(tmp_path / "mesh.db")
    Path("text.db").write_text("this is a letter to my aunt, no database")
    Path("empty.db").touch()
    with pytest.raises((InvalidRequest, StoreUnavailable, StoreCorrupt)):
        restore(file, "mesh.db", now=NOW, force=True)
    assert await count(tmp_path / "mesh.db") == 5


# --- going on -------------------------------------------------------------------------------------------------------


async def test_no_attempt_has_a_number_that_was_given_after_the_backup(open_mesh: OpenMesh, tmp_path: Path) -> None:
    ran: list[tuple[str, int]] = []
    begun, gate = asyncio.Event(), asyncio.Event()

    async def stuck() -> int:
        ran.append((current_task().idempotency_token, current_task().attempt))
        begun.set()
        await gate.wait()
        return 1

    flow = Workflow("stuck").add(stuck, id="only")
    path, copy = tmp_path / "mesh.db", tmp_path / "copy.db"
    async with open_mesh(workflows=[flow]) as mesh:
        quota = ResourceQuota(max_concurrent_tasks=1)
        tenant_id = (await mesh.create_tenant("Acme", quota=quota)).tenant_id
        runs = [await mesh.submit(flow, tenant=tenant_id) for _ in range(2)]  # one begins, the other one waits
        await begun.wait()
        await asyncio.to_thread(back_up, str(path), copy)
        gate.set()
        for run in runs:
            await run.result()
    assert ran == [(f"{run.id}/only", 1) for run in runs]
    for life in range(2, 5):
        await asyncio.to_thread(restore, copy, str(path), now=time.time_ns(), force=True)
        async with open_mesh(workflows=[flow]) as mesh:
            for run in runs:
                await mesh.handle(run.id, tenant=tenant_id).result()
                assert (await mesh.get_run(run.id)).recoveries == 0, "a restore is no crash"
            later = await mesh.submit(flow, tenant=tenant_id)
            await later.result()
            assert ran.pop() == (f"{later.id}/only", 1), "what is submitted later counts from 1"
        assert len(ran) == 2 * life
    assert len(set(ran)) == len(ran)


async def test_a_restored_run_counts_its_crashes_as_before(open_mesh: OpenMesh, tmp_path: Path) -> None:
    path, copy = tmp_path / "mesh.db", tmp_path / "copy.db"
    store = SqliteStore(path)
    await store.open()
    await store.begin_incarnation()
    await store.commit([[tenant(), workflow()], [created("old")]])
    await store.begin_incarnation()  # the process before died
    await store.commit([[created("new")], [task_started("new", "a", attempt=1)]])
    await asyncio.to_thread(back_up, str(path), copy)
    await store.close()
    restore(copy, str(path), now=NOW, force=True)
    await store.open()
    assert (await store.begin_incarnation()).previous_ended_cleanly
    old, new = await get_run(store, "old"), await get_run(store, "new")
    assert (old.recoveries % RESTORE_STEP, new.recoveries % RESTORE_STEP) == (1, 0)
    assert min(old.recoveries, new.recoveries) > RESTORE_STEP
    assert (await get_task(store, "new")).crashes == 0
    assert (await get_task(store, "new")).status is ExecutionStatus.PENDING
    (restored,) = (await store.find_audit_entries(None, action=Action.MESH_RESTORED)).entries
    assert msgspec.json.decode(restored.payload)["details"] == {"running_tasks": 1}
    await store.close()
