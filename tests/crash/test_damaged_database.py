"""A damaged database file: cut off, or with a bit flipped anywhere. Errors name it, and nothing else is done or seen.

What may differ is a single stored value, as SQLite keeps no checksums of them. Never does another run come up, one get
lost, or other work be done than the work that was submitted.
"""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
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
FLIPS_ANYWHERE = 40
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


def flip(path: Path, offset: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ bit]))


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
        flip(copy, offset, 1 << dice.randrange(8))
        seen.add(ask(copy, expected, f"seed {seed}, offset {offset}"))
    assert StoreCorrupt.__name__ in seen, seen


# --- anywhere -------------------------------------------------------------------------------------------------------

WAITING = 12
done: list[int] = []


async def work(number: int) -> int:
    done.append(number)
    return number


def planned(number: int) -> Workflow:
    """Give a workflow whose definition says what is to be done."""
    return Workflow(f"planned-{number}").add(work, id="a", args=[number * 1_000])


Answers = dict[str, tuple[str, str, Any]]


@pytest.fixture
def half_done(tmp_path: Path) -> tuple[Path, Answers]:
    """Give a database with runs that have ended and runs that wait, and what is in it once these have ended too."""
    path = tmp_path / "half.db"

    async def submit(numbers: range, *, execute: bool) -> None:
        async with Orchestrator(f"sqlite:///{path}", execute=execute) as mesh:
            quota = ResourceQuota(max_tasks_per_hour=1_000, rate_limit_per_second=1_000)
            tenant = (await mesh.create_tenant(f"T{numbers.start}", quota=quota)).tenant_id
            for number in numbers:
                handle = await mesh.submit(planned(number), tenant=tenant)
                if execute:
                    await handle.result(30)

    asyncio.run(submit(range(WAITING), execute=True))
    asyncio.run(submit(range(WAITING, 2 * WAITING), execute=False))
    whole = tmp_path / "half-whole.db"
    shutil.copyfile(path, whole)
    return path, asyncio.run(goes_on(whole))


async def goes_on(path: Path) -> Answers:
    """Do what waits; give the workflow, the status and the result of every run."""
    every = [planned(number) for number in range(2 * WAITING)]
    async with Orchestrator(f"sqlite:///{path}", workflows=every, stop_grace_seconds=0.1) as mesh:
        async with asyncio.timeout(10):
            while await mesh.count_open_runs():  # noqa: ASYNC110 - nothing tells of it, so it is looked for
                await asyncio.sleep(0.005)
        return {run.id: (run.workflow, run.status.value, run.result) for run in await mesh.list_runs(limit=1_000)}


def test_a_bit_that_flips_anywhere_gives_an_error_or_one_other_value_and_never_other_work(
    half_done: tuple[Path, Answers], tmp_path: Path
) -> None:
    path, expected = half_done
    seed = SystemRandom().randrange(2**32)
    dice = Random(seed)
    seen: Counter[str] = Counter()
    for number in range(FLIPS_ANYWHERE):
        copy = tmp_path / f"flip-{number}.db"
        shutil.copyfile(path, copy)
        offset, bit = dice.randrange(path.stat().st_size), 1 << dice.randrange(8)
        flip(copy, offset, bit)
        seen[outcome_of(copy, expected, f"seed {seed}, offset {offset}, bit {bit}")] += 1
    assert seen["right"] > FLIPS_ANYWHERE / 2, seen


def test_a_definition_of_which_a_bit_has_flipped_is_not_executed(
    half_done: tuple[Path, Answers], tmp_path: Path
) -> None:
    path, expected = half_done
    content = path.read_bytes()
    for number in (WAITING, 2 * WAITING - 1):  # what is waiting
        told = f"[{number * 1_000}]".encode()
        assert content.count(told) == 1
        for place, bit in ((content.index(told) + 3, 1), (content.index(told), 2), (content.index(told) + 2, 128)):
            copy = tmp_path / f"definition-{number}-{place}.db"
            shutil.copyfile(path, copy)
            flip(copy, place, bit)
            assert outcome_of(copy, expected, f"{number}, {place}") == StoreCorrupt.__name__


def outcome_of(path: Path, expected: Answers, shown: str) -> str:
    """Let it go on, and give how it went; anything that is not allowed is an error."""
    done.clear()
    try:
        found = asyncio.run(goes_on(path))
    except StoreError as error:
        named = path.name in str(error)
        said = f"{shown}: {type(error).__name__}: {error}"
        assert named, said
        return type(error).__name__
    except TimeoutError:
        return "a run waits"  # for a moment that is far away, say: it is shown as waiting
    finally:
        planned_work = {number * 1_000 for number in range(WAITING, 2 * WAITING)}
        assert set(done) <= planned_work, f"{shown}: {done}"
        assert len(set(done)) == len(done), f"{shown}: {done}"
    if found == expected:
        return "right"
    other = {run: row for run, row in found.items() if expected.get(run) != row}
    assert len(other) == 1, f"{shown}: {other} of {len(found)}"
    assert len(found) == len(expected), shown
    return "another value"
