"""`dead-letters`, `retry` and `replay`: what they print, and their exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from synergymesh.cli.app import main

SHOP = """
from pathlib import Path
from synergymesh import RetryPolicy, task, workflow

@task
def price(order_id: int) -> int:
    with open("calls", "a") as calls:
        print("price", file=calls)
    return order_id * 10

@task(retry=RetryPolicy(max_retries=1, initial_delay=0.001))
def charge(order_id: int, total: int) -> str:
    if not Path("repaired").exists():
        raise ConnectionError(f"no\\x1b[31m answer for {order_id}")
    return f"paid {total}"

@workflow
def checkout(order_id: int):
    return charge(order_id, total=price(order_id))
"""


class Ended(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Cli = Callable[..., Ended]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Give a function that runs a command in a directory with a workflow file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SYNERGYMESH_DATABASE", raising=False)
    (tmp_path / "the-shop.py").write_text(SHOP)

    def run(*arguments: str) -> Ended:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert isinstance(ended.value.code, int)
        return Ended(ended.value.code, *capsys.readouterr())

    return run


@pytest.fixture
def failed(cli: Cli) -> str:
    """Give the id of a run that failed."""
    assert cli("run", "the-shop.py", "--tenant", "Acme", "--input", '{"order_id": 4}').code == 1
    found: str = cli("runs", "--json").json[0]["id"]
    return found


def calls(tmp_path: Path) -> int:
    return len((tmp_path / "calls").read_text().split())


def test_a_dead_letter_is_listed_shown_and_its_run_is_gone_on_with(cli: Cli, failed: str, tmp_path: Path) -> None:
    listed = cli("dead-letters", "list")
    assert listed.code == 0
    assert f"{failed}:charge" in listed.out
    assert "Acme" in listed.out
    assert "\x1b" not in listed.out
    shown = cli("dead-letters", "show", f"{failed}:charge")
    assert "ConnectionError" in shown.out
    assert '"order_id": 4' in shown.out
    assert '"total": 40' in shown.out
    assert "raise ConnectionError" in shown.out
    assert "\x1b" not in shown.out
    found = cli("dead-letters", "show", f"{failed}:charge", "--json").json
    assert (found["args"], found["kwargs"], len(found["failures"])) == ([4], {"total": 40}, 1)
    (tmp_path / "repaired").touch()
    redriven = cli("dead-letters", "redrive", f"{failed}:charge")
    assert redriven.code == 0
    new = redriven.out.split()[0]
    assert redriven.out == f"{new} goes on with {failed}\n"
    assert cli("resume", "the-shop.py").code == 0
    shown = cli("show", new)
    assert "success" in shown.out
    assert "reused" in shown.out
    assert failed in shown.out
    assert calls(tmp_path) == 1
    assert "no such dead letter" in cli("dead-letters", "list").err


def test_many_are_redriven_by_their_error(cli: Cli, failed: str, tmp_path: Path) -> None:
    (tmp_path / "repaired").touch()
    assert "0 runs are redriven" in cli("dead-letters", "redrive", "--error", "ValueError").err
    done = cli("dead-letters", "redrive", "--tenant", "Acme", "--error", "OSError", "--since", "2020-01-01", "--json")
    assert done.code == 0
    assert list(done.json["runs"]) == [failed]
    assert not done.json["more"]
    assert "0 runs are redriven" in cli("dead-letters", "redrive", "--all").err


def test_a_dead_letter_is_discarded_with_a_reason(cli: Cli, failed: str) -> None:
    assert cli("dead-letters", "discard", f"{failed}:charge").code == 2
    assert cli("dead-letters", "discard", f"{failed}:charge", "--reason", " ").code == 2
    assert cli("dead-letters", "discard", f"{failed}:charge", "--reason", "by hand").code == 0
    assert cli("dead-letters", "list", "--json").json == []
    assert "by hand" in cli("dead-letters", "show", f"{failed}:charge").out


def test_a_run_is_retried_once_and_replayed_with_another_input(cli: Cli, failed: str, tmp_path: Path) -> None:
    (tmp_path / "repaired").touch()
    retried = cli("retry", failed, "--json")
    assert retried.json["retry_of"] == failed
    again = cli("retry", failed)
    assert again.code == 2
    assert retried.json["id"] in again.err
    replayed = cli("replay", failed, "--input", '{"order_id": 7}')
    assert replayed.code == 0
    new = replayed.out.split()[0]
    assert replayed.out == f"{new} repeats {failed}\n"
    assert cli("resume", "the-shop.py").code == 0
    assert cli("show", new, "--json").json["result"] == "paid 70"
    assert cli("show", retried.json["id"], "--json").json["result"] == "paid 40"
    assert calls(tmp_path) == 2
    assert cli("retry", new).code == 2


def test_a_retry_can_start_all_over(cli: Cli, failed: str, tmp_path: Path) -> None:
    (tmp_path / "repaired").touch()
    assert cli("retry", failed, "--all").code == 0
    assert cli("resume", "the-shop.py").code == 0
    assert calls(tmp_path) == 2


@pytest.mark.parametrize(
    "command",
    [
        ("retry", "run-nothing"),
        ("retry", "\udc80"),
        ("replay", "run-nothing"),
        ("replay", "RUN", "--input", "[1]"),
        ("replay", "RUN", "--input", "{}"),
        ("replay", "RUN", "--input", '{"order": 1}'),
        ("replay", "RUN", "--input", '{"order_id": "x"}'),
        ("dead-letters", "show", "run-nothing:charge"),
        ("dead-letters", "show", "RUN"),
        ("dead-letters", "show", "RUN:price"),
        ("dead-letters", "redrive"),
        ("dead-letters", "redrive", "RUN:charge", "--all"),
        ("dead-letters", "redrive", "RUN:charge", "--error", "OSError"),
        ("dead-letters", "redrive", "--tenant", "Nobody"),
        ("dead-letters", "redrive", "--since", "yesterday"),
        ("dead-letters", "redrive", "--all", "--limit", "1001"),
        ("dead-letters", "list", "--limit", "0"),
        ("dead-letters", "list", "--cursor", "RUN"),
        ("dead-letters", "list", "--error", ""),
        ("dead-letters", "discard", "RUN:price", "--reason", "x"),
        ("dead-letters", "nothing"),
    ],
)
def test_wrong_usage_is_refused_in_one_line(cli: Cli, failed: str, command: tuple[str, ...]) -> None:
    ended = cli(*(part.replace("RUN", failed) for part in command))
    assert ended.code == 2, ended
    assert ended.out == ""
    assert len(ended.err.splitlines()) == 1
    assert "Traceback" not in ended.err


def test_dead_letters_alone_shows_its_help(cli: Cli) -> None:
    shown = cli("dead-letters")
    assert shown.code == 0
    assert all(command in shown.out for command in ("list", "show", "redrive", "discard"))


def test_a_workflow_is_paused_listed_and_let_go_on(cli: Cli, failed: str, tmp_path: Path) -> None:
    (tmp_path / "repaired").touch()
    assert cli("pause", "workflow", "checkout", "--tenant", "Acme").out == "checkout is paused for Acme\n"
    assert "Acme" in cli("pause", "list").out
    assert cli("pause", "list", "--json").json[0]["workflow"] == "checkout"
    new = cli("retry", failed, "--json").json["id"]
    assert "paused" in cli("resume", "the-shop.py", "--timeout", "0.2").out
    assert cli("show", new, "--json").json["status"] == "running"
    assert cli("unpause", "workflow", "checkout").out == "checkout was not paused for all tenants\n"
    assert cli("unpause", "workflow", "checkout", "--tenant", "Acme").code == 0
    assert cli("resume", "the-shop.py").code == 0
    assert cli("show", new, "--json").json["status"] == "success"
    assert "no workflow is paused" in cli("pause", "list").err
    assert "is that its name" in cli("pause", "workflow", "chekout").err


def test_a_run_is_paused_and_let_go_on(cli: Cli, failed: str) -> None:
    new = cli("retry", failed, "--json").json["id"]
    assert cli("pause", "run", new).out == f"{new} is paused\n"
    assert cli("unpause", "run", new).out == f"{new} goes on\n"
    assert cli("unpause", "run", new).out == f"{new} was not paused\n"
    assert cli("pause", "run", failed).out == f"{failed} was over already\n"
    for command in (
        ("pause", "run", "run-nothing"),
        ("pause", "workflow", ""),
        ("pause", "workflow", "w", "--tenant", "x"),
    ):
        ended = cli(*command)
        assert (ended.code, ended.out) == (2, "")
