"""What SynergyMesh logs about a run, task or attempt names it by the same keys everywhere."""

from __future__ import annotations

import ast
import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

import synergymesh
from synergymesh import Orchestrator, RunCancelled, Workflow, current_task

SOURCES = Path(synergymesh.__file__).parent
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
NEEDS = {"run_id": "tenant_id", "task_id": "run_id", "attempt": "task_id"}


@pytest.fixture
def said() -> Iterator[list[Any]]:
    """Give what is logged, as a program gets it that has configured structlog."""
    with structlog.testing.capture_logs() as entries:
        yield entries


def log_calls() -> Iterator[tuple[str, set[str]]]:
    """Give each call of a logger with the keys that it names."""
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if isinstance(node.func.value, ast.Name) and node.func.value.id == "log" and node.func.attr in LEVELS:
                keys = {each.arg for each in node.keywords if each.arg}
                yield f"{path.relative_to(SOURCES)}:{node.lineno}", keys


def test_whatever_names_an_attempt_names_its_task_run_and_tenant_too() -> None:
    calls = dict(log_calls())
    assert len(calls) > 20
    assert any("attempt" in keys for keys in calls.values())
    incomplete = {
        place: f"{key} without {needed}"
        for place, keys in calls.items()
        for key, needed in NEEDS.items()
        if key in keys and needed not in keys
    }
    assert not incomplete


async def test_structlog_gets_tenant_run_task_and_attempt_as_keys(
    open_mesh: Callable[..., Orchestrator], said: list[Any]
) -> None:
    begun, let_go = threading.Event(), threading.Event()

    def deaf() -> None:
        current_task().logger.info("it begins")
        begun.set()
        let_go.wait(30)

    async with open_mesh() as mesh:
        tenant = (await mesh.create_tenant("Acme", "enterprise")).tenant_id
        handle = await mesh.submit(Workflow("w").add(deaf, id="a"), tenant=tenant)
        assert await asyncio.to_thread(begun.wait, 30)
        await handle.cancel()
        with pytest.raises(RunCancelled):
            await handle.result(10)
        let_go.set()
    named = {"tenant_id": tenant, "run_id": handle.id, "task_id": "a", "attempt": 1}
    own, engines = (
        next(entry for entry in said if event in entry["event"]) for event in ("it begins", "an attempt goes on")
    )
    assert named.items() <= own.items()
    assert named.items() <= engines.items()
    assert (own["log_level"], engines["log_level"]) == ("info", "warning")
