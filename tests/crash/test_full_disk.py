"""A full disk: submissions are refused, results are kept in memory and recorded once there is room again."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).with_name("full_disk.py")

pytestmark = pytest.mark.crash


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a file system of its own of 1 MiB; needs the right to mount."""
    disk = tmp_path / "disk"
    disk.mkdir()
    try:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("there is no mount command here")
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def check(database: Path, mode: str) -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(database), mode], capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stdout[-2_000:] + done.stderr[-2_000:]
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    refusal = seen.pop("refusal")
    assert str(database) in refusal, refusal
    assert seen == {
        "status while full": "running",
        "open while full": True,
        "runs": 4,  # the refused ones left nothing
        "statuses": ["success"],
        "most often": 1,  # nothing ran twice
        "tasks": 20,
        "attempts": [1],
    }
    connection = sqlite3.connect(database)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert connection.execute("SELECT count(*) FROM tasks WHERE component_id <> 's'").fetchone() == (20,)
    connection.close()


def test_results_are_kept_while_no_file_may_grow_and_recorded_afterwards(tmp_path: Path) -> None:
    check(tmp_path / "mesh.db", "rlimit")


def test_results_are_kept_while_the_disk_is_full_and_recorded_afterwards(small_disk: Path) -> None:
    check(small_disk / "mesh.db", "tmpfs")


def test_a_database_on_a_full_disk_is_refused_with_its_reason(small_disk: Path) -> None:
    with (small_disk / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while file.write(b"x" * 4_096):
            pass
    script = (
        "import asyncio, sys\nfrom synergymesh import Orchestrator\n"
        "asyncio.run(Orchestrator('sqlite:///' + sys.argv[1]).start())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(small_disk / "mesh.db")], capture_output=True, text=True, check=False
    )
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("synergymesh.errors.StoreUnavailable"), done.stderr[-2_000:]
    assert "full" in last or "No space" in last
