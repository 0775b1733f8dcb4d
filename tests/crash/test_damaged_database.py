"""A damaged database file: cut off, or with bits flipped where its structure is. Errors name it, answers are right."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from random import Random, SystemRandom
from typing import Any

import pytest

from synergymesh import Orchestrator, ResourceQuota, Workflow
from synergymesh.errors import StoreCorrupt, StoreError

pytestmark = [pytest.mark.crash, pytest.mark.timeout(240)]

RUNS = 60
CUTS = 15
FLIPS = 25
PAGE = 4_096
STRUCTURE_BYTES = 12
"""At the beginning of each page: what kind it is, and where its cells are."""


async def answers(path: Path) -> dict[str, Any]:
    """Give the result of every run."""
    async with Orchestrator(f"sqlite:///{path}", execute=False) as mesh:
        return {run.id: run.result for run in await mesh.list_runs(limit=1_000)}


@pytest.fixture
def whole(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """Give a database of some hundred pages, and what is in it."""
    path = tmp_path / "whole.db"

    async def work(number: int) -> str:
        return f"{number} " + "." * 3_000

    async def fill() -> None:
        async with Orchestrator(f"sqlite:///{path}") as mesh:
            quota = ResourceQuota(max_tasks_per_hour=1_000, rate_limit_per_second=1_000)
            tenant = (await mesh.create_tenant("A", quota=quota)).tenant_id
            for number in range(RUNS):
                await (await mesh.submit(Workflow("w").add(work, args=[number]), tenant=tenant)).result(30)

    asyncio.run(fill())
    return path, asyncio.run(answers(path))


def ask(path: Path, expected: dict[str, Any], shown: str) -> str:
    """Give how it went: right, or the name of the error."""
    try:
        found = asyncio.run(answers(path))
    except StoreError as error:
        named = path.name in str(error)
        said = f"{type(error).__name__}: {error}"
        assert named, f"{shown}: {said}"
        return type(error).__name__
    assert found == expected, f"{shown}: {len(found)} of {len(expected)} runs, and no error"
    return "right"


def test_a_file_that_is_cut_off_is_named(whole: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    path, expected = whole
    seed = SystemRandom().randrange(2**32)
    dice = Random(seed)
    for number in range(CUTS):
        copy = tmp_path / f"cut-{number}.db"
        shutil.copyfile(path, copy)
        size = dice.randrange(PAGE, path.stat().st_size - PAGE)
        with copy.open("r+b") as file:
            file.truncate(size)
        assert ask(copy, expected, f"seed {seed}, {size} bytes") == StoreCorrupt.__name__


def test_bits_that_flip_in_the_structure_give_an_error_or_right_answers(
    whole: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    path, expected = whole
    seed = SystemRandom().randrange(2**32)
    dice = Random(seed)
    pages = path.stat().st_size // PAGE
    seen = set()
    for number in range(FLIPS):
        copy = tmp_path / f"flip-{number}.db"
        shutil.copyfile(path, copy)
        offset = dice.randrange(1, pages) * PAGE + dice.randrange(STRUCTURE_BYTES)
        with copy.open("r+b") as file:
            file.seek(offset)
            (byte,) = file.read(1)
            file.seek(offset)
            file.write(bytes([byte ^ (1 << dice.randrange(8))]))
        seen.add(ask(copy, expected, f"seed {seed}, offset {offset}"))
    assert StoreCorrupt.__name__ in seen, seen
