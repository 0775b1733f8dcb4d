"""The command line as people and programs meet it: as a process, with signals, pipes, terminals and other processes."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "synergymesh.cli"]

WAITING = """
import asyncio, pathlib, time
from synergymesh import task, workflow

GO = pathlib.Path(__file__).with_name("go")

@task
async def wait() -> int:
    while not GO.exists():
        await asyncio.sleep(0.01)
    return 20

@task
def wait_in_a_thread() -> int:
    while not GO.exists():
        time.sleep(0.01)
    return 20

@task
def add(n: int) -> int:
    return n + 1

@task
def give_ansi() -> str:
    return "\\x1b[31mred\\x9b2J"

@task(timeout=0.05)
def hang() -> None:
    time.sleep(3600)

@workflow
def waiting():
    return add(wait())

@workflow
def in_a_thread():
    return add(wait_in_a_thread())

@workflow
def ansi():
    return give_ansi()

@workflow
def stuck():
    return hang.options(retry=None)()
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Give a directory with a workflow file."""
    (tmp_path / "some-waiting.py").write_text(WAITING)
    return tmp_path


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(place: Path) -> Iterator[Start]:
    """Give a function that starts a command, and end what is left of it."""
    started: list[subprocess.Popen[str]] = []

    def start_(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=place,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "", "COLUMNS": "80"},
        )
        started.append(process)
        return process

    yield start_
    for process in started:
        with process:
            if process.poll() is None:
                process.kill()


def run(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], cwd=place, capture_output=True, text=True, timeout=60)


def read_until(process: subprocess.Popen[str], part: str) -> list[str]:
    """Read lines of standard output until one has that part; give all of them."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if part in line:
            return lines
    raise AssertionError(f"no line with {part!r}: {lines}, {process.stderr.read() if process.stderr else ''}")


# --- signals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("signal_", "workflow", "task", "code"),
    [
        (signal.SIGINT, "waiting", "wait", 130),
        (signal.SIGTERM, "waiting", "wait", 143),
        (signal.SIGINT, "in_a_thread", "wait_in_a_thread", 130),
    ],
)
def test_the_first_signal_lets_running_tasks_end_and_resume_goes_on(
    place: Path, start: Start, signal_: signal.Signals, workflow: str, task: str, code: int
) -> None:
    process = start("run", f"some-waiting.py:{workflow}")
    read_until(process, f"{task} running")
    process.send_signal(signal_)
    read_until(process, "stopping: 1 running task has up to 10 s to end. Ctrl-C again ends at once.")
    (place / "go").touch()
    out, err = process.communicate(timeout=30)
    assert f"{task} success" in out
    assert process.returncode == code
    assert re.fullmatch(r"run-\w+ is not lost. Continue with:\nsynergymesh resume\n", err)
    resumed = run(place, "resume", "--json")
    assert resumed.returncode == 0
    finished = json.loads(resumed.stdout.splitlines()[-1])["run"]
    assert finished["result"] == 21
    assert [t["attempt"] for t in finished["tasks"]] == [1, 1]


@pytest.mark.parametrize("workflow", ["waiting", "in_a_thread"])
def test_the_second_signal_ends_at_once_and_nothing_is_lost(place: Path, start: Start, workflow: str) -> None:
    process = start("run", f"some-waiting.py:{workflow}")
    read_until(process, "running")
    process.send_signal(signal.SIGINT)
    read_until(process, "stopping: 1 running task")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=5)  # the grace period is longer
    assert process.returncode == 130
    (place / "go").touch()
    assert json.loads(run(place, "resume", "--json").stdout.splitlines()[-1])["run"]["result"] == 21


def test_after_a_kill_resume_goes_on(place: Path, start: Start) -> None:
    process = start("run", "some-waiting.py:waiting")
    read_until(process, "wait running")
    process.kill()
    process.communicate()
    (place / "go").touch()
    resumed = run(place, "resume", "--json")
    finished = json.loads(resumed.stdout.splitlines()[-1])["run"]
    assert (finished["result"], finished["recoveries"]) == (21, 1)


def test_a_thread_that_does_not_end_does_not_keep_the_command(place: Path) -> None:
    ended = run(place, "run", "some-waiting.py:stuck", "--json", "--timeout", "0.5")
    assert ended.returncode == 124


# --- other processes ------------------------------------------------------------------------------------------------


def test_while_a_process_owns_the_database_others_can_look_and_nothing_else(place: Path, start: Start) -> None:
    process = start("run", "some-waiting.py:waiting", "--tenant", "Acme", "--json")
    read_until(process, '"status": "running"')
    listed = run(place, "runs", "--json")
    run_id = json.loads(listed.stdout)[0]["id"]
    shown = run(place, "show", run_id)
    assert (shown.returncode, "Acme" in shown.stdout) == (0, True)
    tenants = run(place, "tenants", "list")
    assert (tenants.returncode, "Acme" in tenants.stdout) == (0, True)
    assert run(place, "tenants", "show", "Acme").returncode == 0
    for arguments in (["run", "some-waiting.py:ansi"], ["resume"]):
        refused = run(place, *arguments)
        assert refused.returncode == 3
        assert f"in use by process {process.pid}," in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
    (place / "go").touch()
    process.communicate(timeout=30)
    assert process.returncode == 0


def test_what_changes_something_is_done_by_the_process_that_executes(place: Path, start: Start) -> None:
    process = start("run", "some-waiting.py:waiting", "--tenant", "Acme", "--json")
    read_until(process, '"status": "running"')
    run_id = json.loads(run(place, "runs", "--json").stdout)[0]["id"]
    made = run(place, "tenants", "create", "Other", "--tier", "professional", "--max-concurrent-tasks", "7", "--json")
    assert (made.returncode, json.loads(made.stdout)["quota"]["max_concurrent_tasks"]) == (0, 7)
    changed = run(place, "tenants", "change", "Other", "--tier", "enterprise", "--weight", "3", "--json")
    assert (json.loads(changed.stdout)["tier"], json.loads(changed.stdout)["weight"]) == ("enterprise", 3)
    assert json.loads(run(place, "tenants", "suspend", "Other", "--json").stdout)["status"] == "suspended"
    assert json.loads(run(place, "tenants", "resume", "Other", "--json").stdout)["status"] == "active"
    assert run(place, "tenants", "delete", "Other").stdout == "Other is deleted\n"
    refused = run(place, "tenants", "delete", "Acme")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
    assert "has 1 open runs" in refused.stderr
    unknown = run(place, "tenants", "change", "Acme", "--tier", "gold")
    assert (unknown.returncode, "basic, professional, enterprise" in unknown.stderr) == (2, True)
    assert run(place, "cancel", run_id).stdout == f"{run_id} is cancelled\n"
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert json.loads(out.splitlines()[-1])["run"]["status"] == "cancelled"
    assert run(place, "cancel", run_id).stdout == f"{run_id} was over already\n"
    assert not list(place.glob("*.sock"))


def test_after_a_kill_the_socket_that_is_left_disturbs_nobody(place: Path, start: Start) -> None:
    process = start("run", "some-waiting.py:waiting", "--tenant", "Acme")
    read_until(process, "wait running")
    process.kill()
    process.communicate()
    assert list(place.glob("*.sock"))
    assert run(place, "tenants", "suspend", "Acme").returncode == 0
    assert run(place, "tenants", "resume", "Acme").returncode == 0
    (place / "go").touch()
    assert run(place, "resume").returncode == 0
    assert not list(place.glob("*.sock"))


# --- pipes and terminals --------------------------------------------------------------------------------------------


def test_the_end_of_a_pipe_is_silent(place: Path) -> None:
    (place / "go").touch()
    command = f"{' '.join(COMMAND)} run some-waiting.py:waiting | head -1; echo ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", command], cwd=place, capture_output=True, text=True, timeout=60)
    assert ended.stderr == ""
    assert ended.stdout.splitlines()[-1] in ("141", "0")
    command = f"{' '.join(COMMAND)} graph --installed --format svg | (exec <&-; exit 0); echo ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", command], cwd=place, capture_output=True, text=True, timeout=60)
    assert (ended.stdout, ended.stderr) == ("141\n", "")


class Terminal:
    """Run a command in a terminal of 80 columns and 24 lines."""

    def __init__(self, place: Path, *arguments: str) -> None:
        pid, self._fd = pty.fork()
        if pid == 0:
            os.chdir(place)
            os.environ["TERM"] = "xterm-256color"
            os.execv(sys.executable, [*COMMAND, *arguments])
        self.pid = pid
        self.text = ""
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))

    def read_until(self, part: str) -> None:
        """Read until a part of the text appears."""
        while part not in self.text:
            self.text += os.read(self._fd, 4096).decode(errors="replace")

    def write(self, keys: str) -> None:
        """Press keys."""
        os.write(self._fd, keys.encode())

    def end(self) -> int:
        """Read everything and give the exit code."""
        try:
            while data := os.read(self._fd, 4096):
                self.text += data.decode(errors="replace")
        except OSError:  # the other side is closed
            pass
        os.close(self._fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_a_terminal_shows_a_bar_and_what_runs_and_gets_its_cursor_back(place: Path) -> None:
    terminal = Terminal(place, "run", "some-waiting.py:waiting")
    terminal.read_until("0/2 tasks")
    terminal.read_until("wait ")
    assert "\x1b[?25l" in terminal.text
    (place / "go").touch()
    assert terminal.end() == 0
    assert terminal.text.rindex("\x1b[?25h") > terminal.text.rindex("\x1b[?25l")
    last = terminal.text[terminal.text.rindex("\x1b[?25h") :]
    assert "success" in last
    assert "result: 21" in last


@pytest.mark.parametrize(("how", "code"), [("q", 0), ("signal", 130)])
def test_top_draws_until_it_is_ended_and_gives_the_screen_back(place: Path, start: Start, how: str, code: int) -> None:
    process = start("run", "some-waiting.py:waiting", "--tenant", "漢字 GmbH")
    read_until(process, "wait running")
    terminal = Terminal(place, "top")
    terminal.read_until("漢字 GmbH")
    terminal.read_until("q ends.")
    (place / "go").touch()
    process.communicate(timeout=30)
    terminal.read_until("no process executes this database")
    if how == "q":
        terminal.write("q")
    else:
        os.kill(terminal.pid, signal.SIGINT)
    assert terminal.end() == code
    assert terminal.text.count("\x1b[?1049h") == terminal.text.count("\x1b[?1049l") == 1
    assert terminal.text.rindex("\x1b[?25h") > terminal.text.rindex("\x1b[?25l")


def test_a_second_interrupt_gives_the_terminal_its_cursor_back(place: Path) -> None:
    terminal = Terminal(place, "run", "some-waiting.py:waiting")
    terminal.read_until("wait ")
    os.kill(terminal.pid, signal.SIGINT)
    terminal.read_until("Ctrl-C again ends at once.")
    os.kill(terminal.pid, signal.SIGINT)
    assert terminal.end() == 130
    assert terminal.text.rindex("\x1b[?25h") > terminal.text.rindex("\x1b[?25l")


def test_no_escape_sequence_of_a_task_reaches_the_terminal(place: Path) -> None:
    for arguments in (["run", "some-waiting.py:ansi"], ["show", "last"], ["show", "last", "--json"]):
        terminal = Terminal(place, *arguments)
        assert terminal.end() == 0
        assert "[31mred" in terminal.text
        assert "\x1b[31mred" not in terminal.text
        assert "\x9b" not in terminal.text


def test_nothing_is_wider_than_the_terminal(place: Path) -> None:
    terminal = Terminal(place, "graph", "--installed")
    assert terminal.end() == 0, terminal.text
    assert "critical path" in terminal.text
    assert not [line for line in terminal.text.split("recommendations:")[0].splitlines() if len(line) > 80]


# --- start ----------------------------------------------------------------------------------------------------------


def test_the_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, synergymesh.cli.app\n"
        "heavy = ('sqlalchemy', 'alembic', 'rustworkx', 'pydantic', 'rich', 'structlog')\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (ended.stdout, ended.stderr) == ("[]\n", "")
