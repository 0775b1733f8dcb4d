"""Commands that look at how a mesh is doing leave a database that nobody executes as it is."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from synergymesh import Orchestrator, RetryPolicy
from synergymesh.cli.app import main
from synergymesh.cli.looking import looking
from synergymesh.domain.fault_tolerance.breaker import BreakerPolicy
from synergymesh.engine.direct_calls import DirectCall
from synergymesh.errors import StoreLocked
from synergymesh.local.verbs import METRICS_TEXT
from synergymesh.settings import read_settings


@pytest.fixture(autouse=True)
def _defaults_of_structlog() -> Iterator[None]:
    yield
    structlog.reset_defaults()  # commands configure it


async def bad() -> None:
    raise ConnectionError


async def fill(database: str) -> str:
    """Let a call of a tenant fail, and a breaker open."""
    async with Orchestrator(database) as mesh:
        tenant_id = (await mesh.create_tenant("Acme", "enterprise")).tenant_id
        touchy = BreakerPolicy(minimum_calls=1, failure_percent=5, open_seconds=600)
        await mesh.set_breaker_policy(tenant_id, touchy)
        call = DirectCall(component_id="c", function=bad, retry=RetryPolicy(max_retries=0))
        await mesh.call([call], tenant=tenant_id)
    return tenant_id


def cli(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code, capsys.readouterr().out


def test_what_is_recorded_is_shown_and_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mesh.db"
    database = f"sqlite:///{path}"
    tenant_id = asyncio.run(fill(database))
    before = path.read_bytes(), sorted(each.name for each in tmp_path.iterdir())
    code, out = cli(capsys, "metrics", "--database", database)
    assert code == 0
    assert f'synergymesh_tasks_total{{status="failed",tenant="{tenant_id}"}} 1.0' in out
    assert f'synergymesh_breakers{{state="open",tenant="{tenant_id}"}} 1.0' in out
    assert "synergymesh_audit_unsigned_entries 0.0" in out
    code, out = cli(capsys, "health", "Acme", "--database", database, "--json")
    (health,) = json.loads(out)
    assert (code, health["executions"], health["running"]) == (0, 1, 0)
    assert health["reasons"] == ["1 of its circuit breakers are open"]
    code, out = cli(capsys, "sla", "Acme", "--database", database)
    assert (code, "none" in out, "%" in out) == (0, True, True)
    assert path.read_bytes() == before[0]
    assert {each.name for each in tmp_path.iterdir()} <= {*before[1], "mesh.db-wal", "mesh.db-shm"}


async def test_the_process_that_executes_is_asked(tmp_path: Path) -> None:
    async with Orchestrator(f"sqlite:///{tmp_path}/mesh.db") as mesh:
        await mesh.create_tenant("Acme")
        async with looking(str(tmp_path / "mesh.db")) as asked:
            assert "synergymesh_commits_total 0.0" not in await asked.ask(METRICS_TEXT)


async def test_a_process_that_does_not_answer_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mesh.db"
    async with Orchestrator(settings=read_settings(database=f"sqlite:///{path}", local_socket=False)):
        with pytest.raises(StoreLocked, match=f"process {os.getpid()}"):
            async with looking(str(path)):
                pass
