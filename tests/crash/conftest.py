"""Real processes that are started on a database, and killed by their ids."""

from __future__ import annotations

import os
import select
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("program.py")
START_SECONDS_MAX = 30.0


class Program:
    """The program, which lives as often as it is told to; one life at a time."""

    def __init__(self, directory: Path) -> None:
        self._ready, theirs = os.pipe()
        command = [sys.executable, str(PROGRAM), str(directory / "mesh.db"), str(directory), str(theirs)]
        with (directory / "errors").open("ab") as errors:
            self._process = subprocess.Popen(
                command, pass_fds=[theirs], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, bufsize=0
            )
        os.close(theirs)
        self.pid = 0
        self.returncode: int | None = 0

    def start(self, mode: str) -> None:
        """Begin a life, and wait until it has begun."""
        assert self.returncode is not None, "the life before is not over"
        assert self._process.stdin is not None
        self._process.stdin.write(f"{mode}\n".encode())
        self.pid = int(self._said())
        self.returncode = None
        assert self._hears(b"S"), "the process did not begin"

    def becomes_ready(self) -> bool:
        """Wait until it says that it is ready; tell whether it did, and did not end before."""
        return self._hears(b"R")

    def _hears(self, letter: bytes) -> bool:
        if self.returncode is None and not self._has_said(0):
            readable, _, _ = select.select([self._ready, self._process.stdout], [], [], START_SECONDS_MAX)
            assert readable, "the process did not become ready"
            return self._ready in readable and os.read(self._ready, 1) == letter
        return False

    def ends_within(self, seconds: float) -> bool:
        """Wait for the end of this life; tell whether it came."""
        if self.returncode is None and self._has_said(seconds):
            self.returncode = int(self._said())
        return self.returncode is not None

    def kill(self) -> None:
        """Kill it at once, and wait until it is gone."""
        if self.returncode is None:
            # its parent waits for it, so the id cannot be another process's by now
            os.kill(self.pid, signal.SIGKILL)
            self.returncode = int(self._said())
        while select.select([self._ready], [], [], 0)[0]:
            os.read(self._ready, 1)

    def close(self) -> None:
        """End it for good."""
        self.kill()
        self._process.communicate()
        os.close(self._ready)

    def _has_said(self, seconds: float) -> bool:
        return bool(select.select([self._process.stdout], [], [], seconds)[0])

    def _said(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().decode()
        assert line, "the program is gone"
        return line


@pytest.fixture
def new_program(tmp_path: Path) -> Iterator[Callable[[], Program]]:
    """Give a function that starts the program; all are ended at the end."""
    programs: list[Program] = []

    def begin() -> Program:
        programs.append(Program(tmp_path))
        return programs[-1]

    yield begin
    for program in programs:
        program.close()


@pytest.fixture
def look(tmp_path: Path) -> Callable[[str], list[tuple[object, ...]]]:
    """Give a function that asks the database with a new connection that only reads."""

    def ask(query: str) -> list[tuple[object, ...]]:
        connection = sqlite3.connect(f"{(tmp_path / 'mesh.db').as_uri()}?mode=ro", uri=True)
        try:
            return connection.execute(query).fetchall()
        finally:
            connection.close()

    return ask


@pytest.fixture
def errors_of(tmp_path: Path) -> Callable[[], str]:
    """Give a function that gives what the processes said, shortened."""
    return lambda: (tmp_path / "errors").read_text()[-3_000:]
