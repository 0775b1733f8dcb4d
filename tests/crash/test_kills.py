"""kill -9 at any moment: nothing acknowledged is lost, nothing is recorded twice, nothing committed is done again."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random, SystemRandom
from typing import Any

import pytest

from synergymesh.testing.faults import FAULT_POINTS

pytestmark = [pytest.mark.crash, pytest.mark.timeout(240)]

KILLS = 50 - len(FAULT_POINTS)
ROUNDS_OF_THE_LONG_SUITE = 4
"""Each on a database of its own: a death wastes up to a hundredth of the starts that an hour allows."""
KILLS_AT_THE_BEGIN = 6
"""Kills that hit a process before it is ready: while it opens the database and takes up what is open."""

MET_OFTEN = ("commit", "result", "submission", "end.", "dispatch", "task", "outcome")
"""Fault points that a process comes to again and again: it may die there later than the first time."""

SIZES = {"single": 1, "chain": 6, "layers": 25, "trip": 7}
"""Tasks of a run; of a trip, three of them undo three others."""

FAILS = "s3"
"""The task of a trip that fails, so that what was done before it is undone."""

WORST_BLAME = "SELECT max(crashes + (status = 'running')) FROM tasks WHERE status NOT IN ('success', 'failed')"

Effect = tuple[str, str, int]


def effects_of(directory: Path) -> list[tuple[int, str, Effect]]:
    """Give the side effects: where in the file, the idempotency token, and (run, task, attempt)."""
    found = []
    offset = 0
    for line in (directory / "effects").read_bytes().splitlines(keepends=True):
        token, run, task, attempt = line.decode().split()
        found.append((offset, token, (run, task, int(attempt))))
        offset += len(line)
    return found


LONG = [pytest.param(number, marks=pytest.mark.soak) for number in range(1, ROUNDS_OF_THE_LONG_SUITE + 1)]


@pytest.mark.parametrize("number", [0, *LONG])
def test_a_process_that_is_killed_again_and_again_loses_and_repeats_nothing(
    number: int,
    new_program: Callable[[], Any],
    look: Callable[[str], list[Any]],
    errors_of: Callable[[], str],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    seed = SystemRandom().randrange(2**32)
    dice = Random(seed)
    shown = f"round {number}, seed {seed}"
    began = time.monotonic()
    committed_at: dict[tuple[str, str], int] = {}
    open_when_killed = 0
    program = new_program()
    points = [*FAULT_POINTS]
    dice.shuffle(points)
    missed: list[str] = []
    reached: list[str] = []
    kills = at_the_begin = 0
    blamed = 0
    while kills < KILLS + KILLS_AT_THE_BEGIN + len(FAULT_POINTS) or points:
        point = points.pop() if points and kills >= 10 and kills % 2 == 0 else None  # among the others
        if point is not None:
            times = dice.randint(1, 20) if point.startswith(MET_OFTEN) and point not in missed else 1
            mode = "finish" if point.startswith("end_incarnation") else "submit"
            program.start(f"{mode}@{point} {times}")
            if program.ends_within(20):
                assert program.returncode == -9, f"{shown}, {point}: {errors_of()}"
                reached.append(point)
            else:
                assert point not in missed, f"{shown}: {point} is not reached"
                missed.append(point)
                points.insert(0, point)
                assert program.becomes_ready(), f"{shown}, {point}: {errors_of()}"
        else:
            program.start("submit")
            # a task that runs alone after two deaths would be blamed for a third one at the begin
            if blamed < 2 and kills >= 10 and kills % 6 == 1 and kills // 6 <= KILLS_AT_THE_BEGIN + 1:
                at_the_begin += 1
                time.sleep(dice.uniform(0.0, 0.02))
            else:
                assert program.becomes_ready(), f"{shown}, kill {kills}: {errors_of()}"
                assert not program.ends_within(dice.uniform(0.05, 0.4)), f"{shown}, kill {kills}: {errors_of()}"
        kills += 1
        program.kill()
        effects = tmp_path / "effects"
        size = effects.stat().st_size if effects.exists() else 0
        for run, task in look("SELECT run_id, component_id FROM tasks WHERE status = 'success'"):
            committed_at.setdefault((run, task), size)
        assert look("PRAGMA integrity_check") == [("ok",)], shown
        blamed = look(WORST_BLAME)[0][0] or 0
        assert blamed < 3, f"{shown}, kill {kills}: the test has a task quarantined that did no harm"
        open_when_killed += look("SELECT count(*) FROM runs WHERE ended_at IS NULL")[0][0]
    killed = time.monotonic() - began
    program = new_program()  # a fresh one that has seen nothing of it
    program.start("finish")
    assert program.ends_within(120), f"{shown}: {errors_of()}"
    assert program.returncode == 0, f"{shown}: {errors_of()}"

    acknowledged = dict(line.split() for line in (tmp_path / "acknowledged").read_text().splitlines())
    runs = {run: (status, workflow, key) for run, status, workflow, key in look(
        "SELECT run_id, status, workflow, idempotency_key FROM runs"
    )}  # fmt: skip
    lost = {key: run for key, run in acknowledged.items() if run not in runs}
    assert not lost, f"{shown}: acknowledged runs are lost"
    not_well = {run: row for run, row in runs.items() if row[0] != ("failed" if row[1] == "trip" else "success")}
    assert not not_well, f"{shown}: {look('SELECT run_id, component_id, error FROM tasks WHERE error IS NOT NULL')}"
    keys = [key for _, _, key in runs.values()]
    assert len(set(keys)) == len(keys), f"{shown}: one key, two runs"
    assert {acknowledged[key] for key in acknowledged} <= set(runs)

    rows = look("SELECT run_id, component_id, status, attempt FROM tasks")
    assert {status for _, task, status, _ in rows if task != FAILS} == {"success"}, shown
    assert {status for _, task, status, _ in rows if task == FAILS} == {"failed"}, shown
    per_run = Counter(run for run, _, _, _ in rows)
    assert all(per_run[run] == SIZES[workflow] for run, (_, workflow, _) in runs.items()), shown

    effects_seen = effects_of(tmp_path)
    twice = [effect for effect, count in Counter(e for _, _, e in effects_seen).items() if count > 1]
    assert not twice, f"{shown}: attempts that ran twice"
    tokens = {(run, task): token for _, token, (run, task, _) in effects_seen}
    assert len(set(tokens.values())) == len(tokens), f"{shown}: a token of two tasks"
    done = {e for _, _, e in effects_seen}
    unexplained = [(run, task, attempt) for run, task, _, attempt in rows if (run, task, attempt) not in done]
    assert not unexplained, f"{shown}: results of attempts that never ran"
    again = [e for at, _, e in effects_seen if at >= committed_at.get(e[:2], 1 << 62)]
    assert not again, f"{shown}: committed results were computed again"
    suspected = look("SELECT count(*), max(crashes) FROM tasks WHERE crashes > 0")
    assert look("PRAGMA integrity_check") == [("ok",)], shown
    assert look("PRAGMA foreign_key_check") == [], shown
    check_order(look, shown)
    sagas = check_sagas(look, shown)

    figures = {
        "kills": kills,
        "of them at a fault point": len(reached),
        "before it was ready": at_the_begin,
        "runs": len(runs),
        "acknowledged": len(acknowledged),
        "tasks": len(rows),
        "attempts": len(effects_seen),
        "runs that were undone": sagas,
        "open runs at a kill": open_when_killed // kills,
        "tasks during which it died, most for one": suspected[0],
        "seconds of killing": round(killed, 1),
        "seconds": round(time.monotonic() - began, 1),
    }
    for name, value in figures.items():
        record_property(name, value)
    with capsys.disabled():
        print(f"\n  {figures}", end="")
    assert sorted(reached) == sorted(FAULT_POINTS), shown
    assert sagas, f"{shown}: nothing had to be undone"
    assert open_when_killed / kills >= 50, f"{shown}: there was too little to do to show anything"
    assert len(effects_seen) > len(rows) * 1.01, f"{shown}: nothing was interrupted"


def check_order(look: Callable[[str], list[Any]], shown: str) -> None:
    """Check that no task of a layered graph started before the layer below it was recorded."""
    starts: dict[tuple[str, int], int] = {}
    ends: dict[tuple[str, int], int] = {}
    for run, task, started, ended in look(
        "SELECT run_id, component_id, started_at, ended_at FROM tasks WHERE component_id LIKE 'l%-%' OR "
        "component_id LIKE 'c_'"
    ):
        layer = (run, int(task[1]))
        starts[layer] = min(starts.get(layer, 1 << 62), started)
        ends[layer] = max(ends.get(layer, 0), ended)
    for (run, layer), started in starts.items():
        if layer:
            assert ends[(run, layer - 1)] <= started, f"{shown}: {run}, layer {layer}"


def check_sagas(look: Callable[[str], list[Any]], shown: str) -> int:
    """Check that what failing runs did was undone after they failed, the latest first; give how many there were."""
    moments: dict[str, dict[str, tuple[int, int]]] = {}
    for run, task, started, ended in look(
        "SELECT run_id, component_id, tasks.started_at, tasks.ended_at FROM tasks JOIN runs USING (run_id) "
        "WHERE workflow = 'trip'"
    ):
        moments.setdefault(run, {})[task] = (started, ended)
    order = [FAILS, "undo:s2", "undo:s1", "undo:s0"]
    for run, of_task in moments.items():
        for before, after in itertools.pairwise(order):
            assert of_task[before][1] <= of_task[after][0], f"{shown}: {run}, {after}"
    return len(moments)


def test_a_task_that_kills_its_process_is_quarantined_and_the_other_runs_complete(
    new_program: Callable[[], Any], look: Callable[[str], list[Any]], errors_of: Callable[[], str], tmp_path: Path
) -> None:
    program = new_program()
    lives = 0
    while True:
        lives += 1
        program.start("killer")
        assert program.ends_within(60), errors_of()
        if program.returncode == 0:
            break
        assert program.returncode == -9, errors_of()
        program.kill()
        assert lives < 10, "it kills its process for ever"
    statuses = dict(look("SELECT workflow || ' ' || status, count(*) FROM runs GROUP BY 1"))
    assert statuses == {"killer failed": 1, "single success": 10, "chain success": 3}
    tasks = {task: (status, crashes, error) for task, status, crashes, error in look(
        "SELECT component_id, tasks.status, crashes, CAST(tasks.error AS TEXT) FROM tasks JOIN runs USING (run_id) "
        "WHERE workflow = 'killer'"
    )}  # fmt: skip
    assert {task: status for task, (status, _, _) in tasks.items()} == {
        "culprit": "failed",
        "after": "skipped",
        "beside": "success",
    }
    assert tasks["culprit"][1] == 3
    assert "the process died 3 times while this task was running" in tasks["culprit"][2]
    attempts = [attempt for _, _, (_, task, attempt) in effects_of(tmp_path) if task == "culprit"]
    # the first death names nobody, as short tasks are not written down when they start
    assert attempts == [1, 2, 3, 4]
    assert lives == 5


def test_a_second_process_is_refused_while_the_first_one_lives_and_not_after_its_death(
    new_program: Callable[[], Any], errors_of: Callable[[], str]
) -> None:
    first, second = new_program(), new_program()
    first.start("submit")
    assert first.becomes_ready(), errors_of()
    second.start("finish")
    assert not second.becomes_ready()
    assert second.ends_within(30)
    assert second.returncode == 1
    assert "StoreLocked" in errors_of()
    assert str(first.pid) in errors_of()
    first.kill()
    second.start("finish")
    assert second.becomes_ready(), errors_of()
