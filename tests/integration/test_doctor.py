"""The doctor: what it finds in sound and unsound databases, and whether it would find tenants that are not apart."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from synergymesh import Orchestrator
from synergymesh.cli.app import main
from synergymesh.diagnostics import database as examined
from synergymesh.diagnostics import machine
from synergymesh.diagnostics.commits import read_commit_times
from synergymesh.diagnostics.doctor import examine
from synergymesh.diagnostics.findings import Finding, Level
from synergymesh.ports.clock import SystemClock
from synergymesh.store import space
from synergymesh.store.sqlite import SqliteStore
from synergymesh.testing.store_changes import created, finished, tenant, workflow

OpenMesh = Callable[..., Orchestrator]


async def fill(path: Path, *, created_at: int = 1) -> None:
    store = SqliteStore(path)
    await store.open()
    await store.commit([[tenant(), workflow()]])
    await store.commit([[created(f"run-{n:03}", created_at=created_at), finished(f"run-{n:03}")] for n in range(100)])
    await store.close()


async def look(path: Path | str, *, deep: bool = False) -> dict[str, Finding]:
    return {found.subject: found for found in await examine(str(path), SystemClock().now(), deep=deep)}


def levels(found: dict[str, Finding], *subjects: str) -> list[Level]:
    return [found[subject].level for subject in subjects]


# --- the database ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deep", [False, True])
async def test_a_sound_database_is_found_sound_and_not_changed(tmp_path: Path, deep: bool) -> None:
    path = tmp_path / "mesh.db"
    await fill(path)
    before = path.read_bytes()
    found = await look(path, deep=deep)
    assert {each.level for each in found.values()} <= {Level.OK, Level.NOTE}
    assert levels(found, "database", "migrations", "soundness", "room", "log", "clock", "owner") == [Level.OK] * 7
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", ["missing", "text", "other", "empty", "directory", "damaged", "newer"])
async def test_what_is_wrong_with_a_database_is_said_with_a_remedy(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "mesh.db"
    match kind:
        case "text":
            path.write_text("this is a letter to my aunt, no database")
        case "other":
            other = sqlite3.connect(path)
            other.execute("CREATE TABLE theirs (a)")
            other.close()
        case "empty":
            path.touch()
        case "directory":
            path.mkdir()
        case "damaged":
            await fill(path)
            with path.open("r+b") as file:
                file.seek(path.stat().st_size // 2)
                file.write(b"\xa5" * 20_000)
        case "newer":
            await fill(path)
            edited = sqlite3.connect(path)
            edited.execute("UPDATE alembic_version SET version_num = '9999'")
            edited.commit()
            edited.close()
    found = await look(path)
    bad = [each for each in found.values() if each.level is Level.WRONG]
    assert [each.subject for each in bad] == ["migrations" if kind == "newer" else "database"]
    assert all(each.remedy for each in bad)


async def test_an_older_schema_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mesh.db"
    await fill(path)
    monkeypatch.setattr(examined, "HEAD", "9999")
    assert (await look(path))["migrations"].level is Level.NOTE


async def test_a_large_database_is_read_wholly_only_when_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mesh.db"
    await fill(path)
    monkeypatch.setattr(examined, "CHECKED_BYTES_MAX", 10)
    assert (await look(path))["soundness"].level is Level.NOTE
    assert (await look(path, deep=True))["soundness"].level is Level.OK


async def test_runs_from_the_future_tell_of_a_clock_that_was_set_back(tmp_path: Path) -> None:
    path = tmp_path / "mesh.db"
    await fill(path, created_at=SystemClock().now() + 3_600 * 1_000_000_000)
    found = (await look(path))["clock"]
    assert found.level is Level.WRONG
    assert "3,600 seconds" in found.said or "3,599 seconds" in found.said


async def test_a_long_log_and_much_free_room_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mesh.db"
    await fill(path)
    monkeypatch.setattr(space, "LONG_LOG_BYTES", -1)
    monkeypatch.setattr(examined, "FREE_SHARE_NOTED", -1.0)
    monkeypatch.setattr(space, "RESERVE_PAGES", -1)
    found = await look(path)
    assert levels(found, "log", "room") == [Level.WRONG, Level.NOTE]
    monkeypatch.setattr(space, "gives_back", lambda _: False)
    assert "cannot give room back" in (await look(path))["room"].said


async def test_a_database_in_memory_has_nothing_to_look_at() -> None:
    assert (await look(":memory:"))["database"].level is Level.NOTE


# --- the machine ----------------------------------------------------------------------------------------------------


async def test_what_is_wrong_with_the_machine_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mesh.db"
    await fill(path)
    monkeypatch.setattr(machine, "FREE_BYTES_MIN", 10**18)
    monkeypatch.setattr(machine, "DESCRIPTORS_MIN", 10**9)
    monkeypatch.setattr(machine, "NETWORK_FILE_SYSTEMS", ("",))
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 8, 0))
    monkeypatch.setenv("SYNERGYMESH_MEMORY_MB", "100000000")
    found = await look(path)
    wrong = {subject for subject, each in found.items() if each.level is Level.WRONG}
    assert wrong == {"disk", "descriptors", "file system", "sqlite", "settings"}
    monkeypatch.setenv("SYNERGYMESH_MEMORY_MB", "much")
    assert "memory_mb" in (await look(path))["settings"].said


# --- the owner ------------------------------------------------------------------------------------------------------


async def test_an_owner_that_answers_is_fine(open_mesh: OpenMesh, tmp_path: Path) -> None:
    async with open_mesh():
        found = (await look(tmp_path / "mesh.db"))["owner"]
    assert found.level is Level.OK
    assert f"process {os.getpid()}" in found.said
    assert "answers" in found.said


async def test_an_owner_that_does_not_listen_is_a_note(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "mesh.db")
    await store.open()
    assert (await look(tmp_path / "mesh.db"))["owner"].level is Level.NOTE
    await store.close()


def test_an_owner_that_is_stopped_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "mesh.db"
    asyncio.run(fill(path))
    program = "import sys; from pathlib import Path; from synergymesh.store.sqlite_files import Ownership\n"
    program += "kept = Ownership(Path(sys.argv[1])); print('owned', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"owned\n"
        os.kill(owner.pid, signal.SIGSTOP)
        try:
            os.waitid(os.P_PID, owner.pid, os.WSTOPPED | os.WNOWAIT)
            found = asyncio.run(look(path))["owner"]
        finally:
            os.kill(owner.pid, signal.SIGCONT)
            owner.kill()
    assert found.level is Level.WRONG
    assert f"kill -CONT {owner.pid}" in found.remedy


async def test_an_owner_says_how_long_its_commits_take(open_mesh: OpenMesh, tmp_path: Path) -> None:
    path = tmp_path / "mesh.db"
    async with open_mesh() as mesh:
        await mesh.create_tenant("Acme")
        times = await read_commit_times(path)
    assert times is not None
    assert times.commits >= 1
    assert 0 < times.seconds_mean < 10
    assert await read_commit_times(path) is None
    assert await read_commit_times(None) is None


# --- the command ----------------------------------------------------------------------------------------------------

CIRCLE = """
from synergymesh import Workflow
async def work(): ...
flow = Workflow("flow").add(work, id="a", depends_on=["b"]).add(work, id="b", depends_on=["a"])
"""
SOUND = CIRCLE.replace(', depends_on=["b"]', "")


def test_the_commands_end_with_1_when_something_is_wrong(
    open_mesh: OpenMesh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SYNERGYMESH_DATABASE", raising=False)
    Path("circle.py").write_text(CIRCLE)
    Path("sound.py").write_text(SOUND)

    def cli(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert isinstance(ended.value.code, int)
        return ended.value.code, capsys.readouterr().out

    code, out = cli("doctor")
    assert (code, "WRONG  database" in out) == (1, True)
    assert cli("tenants", "create", "Acme")[0] == 0
    code, out = cli("doctor", "--json")
    assert code == 0
    assert {each["level"] for each in json.loads(out)} <= {"ok", "note"}
    code, out = cli("doctor", "graph", "circle.py")
    assert (code, "cycles" in out) == (1, True)
    code, out = cli("doctor", "graph", "sound.py", "--json")
    assert (code, json.loads(out)[1]["said"]) == (0, "there are none.")
    assert cli("doctor", "graph", "missing.py")[0] == 1
    assert cli("doctor", "performance")[0] == 0
    assert cli("doctor", "performance", "run-unknown")[0] == 2
    assert cli("run", "sound.py", "--tenant", "Acme")[0] == 0
    code, out = cli("doctor", "performance", "last", "--json")
    assert (code, json.loads(out)["path"]) == (0, ["a", "b"])
    code, out = cli("doctor", "performance")
    assert (code, "best possible" in out) == (0, True)
    code, out = cli("doctor", "tenants", "--json")
    assert code == 0
    assert [each["level"] for each in json.loads(out)] == ["ok", "ok", "note"]
