"""What people do to runs while another process executes them, and the graceful end of that process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "synergymesh.cli"]

SHOP = """
import asyncio, pathlib
from synergymesh import RetryPolicy, Task, task, workflow

HERE = pathlib.Path(__file__).parent

async def until(name):
    while not (HERE / name).exists():
        await asyncio.sleep(0.01)

@task
async def first() -> int:
    await until("first")
    return 1

@task
async def second(n: int) -> int:
    await until("second")
    return n + 1

@workflow
def two():
    return second(first())

@task(retry=RetryPolicy(max_retries=0))
def charge() -> str:
    if not (HERE / "repaired").exists():
        raise OSError("no answer")
    return "paid"

@workflow
def checkout():
    return charge()
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "the-shop.py").write_text(SHOP)
    return tmp_path


def run(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], cwd=place, capture_output=True, text=True, timeout=60)


@pytest.fixture
def start(place: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*COMMAND, *arguments], cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def read_until(process: subprocess.Popen[str], part: str) -> None:
    assert process.stdout is not None
    assert any(part in line for line in process.stdout), f"no line with {part!r}"


def test_sigterm_lets_a_resumed_run_end_its_task_and_start_no_other(place: Path, start: Start) -> None:
    begun = start("run", "the-shop.py:two")
    read_until(begun, "first running")
    begun.kill()
    begun.communicate()
    process = start("resume")
    read_until(process, "first running")
    process.send_signal(signal.SIGTERM)
    read_until(process, "stopping: 1 running task has up to 10 s to end")
    (place / "first").touch()
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 143
    assert "first success" in out
    assert "second running" not in out
    (place / "second").touch()
    ended = json.loads(run(place, "resume", "--json").stdout.splitlines()[-1])["run"]
    assert (ended["result"], ended["recoveries"]) == (2, 1)
    assert [t["attempt"] for t in ended["tasks"]] == [2, 2], "the second life ended cleanly"


def test_a_run_is_paused_and_another_one_retried_while_a_process_executes(place: Path, start: Start) -> None:
    assert run(place, "run", "the-shop.py:checkout").returncode == 1
    failed = json.loads(run(place, "runs", "--json").stdout)[0]["id"]
    process = start("run", "the-shop.py:two", "--json")
    read_until(process, '"task_id": "first", "status": "running"')
    open_run = next(r["id"] for r in json.loads(run(place, "runs", "--json").stdout) if r["workflow"] == "two")
    assert run(place, "pause", "run", open_run).stdout == f"{open_run} is paused\n"
    (place / "first").touch()
    (place / "second").touch()
    (place / "repaired").touch()
    retried = json.loads(run(place, "retry", failed, "--json").stdout)["id"]
    assert "goes on with it already" in run(place, "dead-letters", "redrive", f"{failed}:charge").stderr
    while json.loads(run(place, "show", retried, "--json").stdout)["status"] != "success":
        pass
    assert "paused" in run(place, "why", open_run).stdout
    assert run(place, "unpause", "run", open_run).returncode == 0
    process.communicate(timeout=30)
    assert process.returncode == 0
