"""A backup of a database that a process works on; the process is killed, the backup restored, and the work goes on."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.crash, pytest.mark.timeout(240)]


def command(directory: Path, *arguments: str) -> None:
    """Run the command line in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "synergymesh.cli", *arguments, "--database", str(directory / "mesh.db")],
        capture_output=True,
        text=True,
        cwd=directory,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def acknowledged(directory: Path) -> set[str]:
    lines = (directory / "acknowledged").read_text().splitlines()
    return {line.split()[1] for line in lines if len(line.split()) == 2}


def ask(file: Path, query: str) -> list[Any]:
    connection = sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def test_a_backup_under_load_is_one_moment_and_its_runs_go_on_without_repeating_an_attempt(
    new_program: Callable[[], Any], errors_of: Callable[[], str], tmp_path: Path
) -> None:
    program = new_program()
    program.start("submit")
    assert program.becomes_ready(), errors_of()
    assert not program.ends_within(1.0), errors_of()
    before = acknowledged(tmp_path)
    backup = tmp_path / "backup.db"
    command(tmp_path, "backup", str(backup))
    assert not program.ends_within(1.0), errors_of()  # the owner goes on, and gives further attempts numbers
    program.kill()
    assert before, "nothing was submitted before the backup"
    saved = dict(ask(backup, "SELECT run_id, status FROM runs"))
    assert before <= set(saved)
    assert set(saved) < acknowledged(tmp_path), "nothing was submitted after the backup"
    assert backup.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.glob("*backup*")) == ["backup.db"]
    assert any(status in ("pending", "running") for status in saved.values()), "no run was open in the backup"

    command(tmp_path, "restore", str(backup), "--force")
    program.start("finish")
    assert program.becomes_ready(), errors_of()
    assert program.ends_within(120), errors_of()
    assert program.returncode == 0, errors_of()
    runs = dict(ask(tmp_path / "mesh.db", "SELECT run_id, status FROM runs"))
    assert set(runs) == set(saved)
    ends = set(ask(tmp_path / "mesh.db", "SELECT workflow = 'trip', status FROM runs"))
    assert ends <= {(0, "success"), (1, "failed")}, "only trips fail, and are undone"
    assert ask(tmp_path / "mesh.db", "PRAGMA integrity_check") == [("ok",)]

    command(tmp_path, "restore", str(backup), "--force")  # once more, from the same backup
    program.start("finish")
    assert program.becomes_ready(), errors_of()
    program.ends_within(1.0)
    program.kill()

    effects = Counter(line.split(" ", 1)[1] for line in (tmp_path / "effects").read_text().splitlines())
    twice = [effect for effect, count in effects.items() if count > 1]
    assert not twice, "attempts that ran twice"
    assert len(list(tmp_path.glob("mesh.db.before-*"))) >= 2
