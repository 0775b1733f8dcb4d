"""`synergymesh breakers`: what it shows, and how a breaker is closed by hand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from synergymesh import BreakerPolicy, Orchestrator, RetryPolicy, RunFailed, Workflow
from synergymesh.cli.app import main


class Ended(NamedTuple):
    code: int
    out: str
    err: str


Cli = Callable[..., Ended]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Give a function that runs a command in an empty directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SYNERGYMESH_DATABASE", raising=False)

    def run(*arguments: str) -> Ended:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert isinstance(ended.value.code, int)
        return Ended(ended.value.code, *capsys.readouterr())

    return run


async def call() -> None:
    raise ConnectionError("down")


NEVER = RetryPolicy(max_retries=0)
WORK = Workflow("checkout").add(call, id="pay", retry=NEVER).add(call, id="ask", retry=NEVER, breaker="bank")


@pytest.fixture
def opened(tmp_path: Path) -> None:
    """Make a database with two open circuits of one tenant."""

    async def make() -> None:
        async with Orchestrator(f"sqlite:///{tmp_path}/synergymesh.db") as mesh:
            tenant = (await mesh.create_tenant("Acme", "enterprise")).tenant_id
            await mesh.create_tenant("Bree")
            await mesh.set_breaker_policy(
                tenant, BreakerPolicy(minimum_calls=1, open_seconds=3_600, open_seconds_max=3_600)
            )
            with pytest.raises(RunFailed):
                await (await mesh.submit(WORK, tenant=tenant)).result(10)

    asyncio.run(make())


@pytest.mark.usefixtures("opened")
def test_open_breakers_are_listed_from_the_file_as_a_table_and_as_json(cli: Cli) -> None:
    shown = cli("breakers")
    assert shown.code == 0
    heading, *rows = shown.out.splitlines()
    assert heading.split()[:3] == ["TENANT", "BREAKER", "STATUS"]
    assert [row.split()[:3] for row in rows] == [["Acme", "bank", "open"], ["Acme", "checkout/pay", "open"]]
    found: list[dict[str, Any]] = json.loads(cli("breakers", "--tenant", "Acme", "--json").out)
    assert [(each["breaker"], each["workflow"], each["component"], each["state"]) for each in found] == [
        ("bank", None, None, "open"),
        (None, "checkout", "pay", "open"),
    ]
    nothing = cli("breakers", "--tenant", "Bree")
    assert (nothing.code, nothing.out, nothing.err) == (0, "", "no breaker was ever open\n")


@pytest.mark.usefixtures("opened")
def test_a_breaker_is_closed_by_its_name_or_by_workflow_and_component(cli: Cli) -> None:
    done = cli("breakers", "reset", "Acme", "bank")
    assert (done.code, done.out) == (0, "bank of Acme is closed\n")
    done = cli("breakers", "reset", "Acme", "--workflow", "checkout", "--component", "pay")
    assert (done.code, done.out) == (0, "checkout/pay of Acme is closed\n")
    assert {each["state"] for each in json.loads(cli("breakers", "--json").out)} == {"closed"}


@pytest.mark.usefixtures("opened")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("reset", "Nobody", "bank"), "there is no tenant 'Nobody'"),
        (("reset", "Acme", "other"), "there is no breaker 'other'"),
        (("reset", "Acme"), "name the breaker"),
        (("reset", "Acme", "--component", "pay"), "Name the workflow too"),
        (("reset", "Acme", "bank", "--workflow", "checkout"), "not both"),
        (("--tenant", "Nobody"), "there is no tenant 'Nobody'"),
    ],
)
def test_wrong_names_are_refused_with_what_to_do(cli: Cli, arguments: tuple[str, ...], said: str) -> None:
    ended = cli("breakers", *arguments)
    assert ended.code == 2
    assert said in ended.err


def test_a_database_that_is_not_there_is_not_made(cli: Cli, tmp_path: Path) -> None:
    assert cli("breakers").code != 0
    assert not list(tmp_path.iterdir())
