"""Where the time of runs went, and what is advised: figures that were worked out by hand."""

from __future__ import annotations

import pytest

from synergymesh.diagnostics.commits import METRIC, CommitTimes, commit_times
from synergymesh.diagnostics.performance import examine_run, examine_runs, with_commits
from synergymesh.domain.graphs.graph import Graph
from synergymesh.domain.observability.timeline import Course, Phase, Timeline, Try, build_timeline
from synergymesh.domain.states import ExecutionStatus

S = ExecutionStatus
SECOND = 1_000_000_000
START = 1_000 * SECOND


def made(*tasks: tuple[str, tuple[int, ...], list[tuple[float, float]]]) -> tuple[Timeline, Graph]:
    """Make a run: of each task its dependencies and when its attempts were; all but the last failed, without pause."""
    courses = []
    for name, after, times in tasks:
        tries = [
            Try(
                number,
                S.SUCCESS if number == len(times) else S.FAILED,
                START + int(begin * SECOND),
                START + int(end * SECOND),
                None if number == len(times) else START + int(times[number][0] * SECOND),
                "concurrency",
            )
            for number, (begin, end) in enumerate(times, start=1)
        ]
        courses.append(Course(name, "work", S.SUCCESS, after, tuple(tries), tries[-1].ended_at))
    end = max(course.ended_at or 0 for course in courses)
    timeline = build_timeline(
        "run-1", "flow", S.SUCCESS, courses, created_at=START, not_before=0, ended_at=end + SECOND, now=end
    )
    edges = [(position, before, True) for position, (_, after, _) in enumerate(tasks) for before in after]
    return timeline, Graph.build([name for name, _, _ in tasks], [1.0] * len(tasks), edges)


def test_a_run_is_compared_with_its_plan_and_with_the_best_that_was_possible() -> None:
    timeline, graph = made(("a", (), [(2, 5)]), ("b", (), [(0, 4)]), ("c", (0, 1), [(5, 6)]))
    found = examine_run(timeline, graph)
    assert (found.runs, found.seconds, found.behind) == (1, 7, 1)
    assert found.path == ("a", "c")
    assert found.best == 5, "b, then c"
    assert found.planned == 2
    assert found.planned_path in (("a", "c"), ("b", "c"))
    assert found.critical[Phase.CONCURRENCY] == 2
    assert found.critical[Phase.RUNNING] == 4
    assert [each.component_id for each in found.slowest] == ["b", "a", "c"]
    (advice,) = [advice for advice in found.advice if "could have started 2 s earlier" in advice]
    assert "raise max_concurrent_tasks" in advice


def test_failed_attempts_and_the_pauses_behind_them_are_put_down_to_the_component() -> None:
    timeline, graph = made(("a", (), [(0, 1)]), ("b", (0,), [(1, 3), (5, 6)]))
    found = examine_run(timeline, graph)
    assert found.failed == 2
    assert found.critical[Phase.RETRY_DELAY] == 2
    assert found.best == 2
    (advice,) = [advice for advice in found.advice if "Failed attempts" in advice]
    assert "4 s" in advice
    assert "look into b" in advice


def test_the_component_that_is_blamed_for_failures_failed_on_the_critical_path() -> None:
    longer = [(f"long{number}", (), [(0.0, 2 + number / 10)]) for number in range(12)]  # longer, and never failed
    timeline, graph = made(
        ("flaky", (), [(0, 0.01), (4, 4.01)]), ("often", (), [(0, 0.1), (0.1, 0.2), (0.2, 0.3)]), *longer
    )
    (advice,) = [advice for advice in examine_run(timeline, graph).advice if "Failed attempts" in advice]
    assert "look into flaky" in advice


def test_what_undid_tasks_counts_into_the_best_that_was_possible() -> None:
    timeline, graph = made(("a", (), [(0, 1)]), ("b", (0,), [(1, 2)]))
    whole, _ = made(
        ("a", (), [(0, 1)]), ("b", (0,), [(1, 2)]), ("undo:b", (0, 1), [(2, 5)]), ("undo:a", (2,), [(6, 10)])
    )
    assert examine_run(timeline, graph).best == 2
    found = examine_run(whole, graph)
    assert (found.best, found.path) == (9, ("a", "b", "undo:b", "undo:a"))


def test_time_that_went_into_the_tasks_is_no_matter_of_slots() -> None:
    found = examine_run(*made(("a", (), [(0, 9)]), ("b", (0,), [(9, 10)])))
    assert any("more slots would not help" in advice for advice in found.advice)
    assert any("a alone took 9 s" in advice for advice in found.advice)


def test_many_runs_are_summed_up() -> None:
    runs = [made(("a", (), [(0, 1)]), ("b", (0,), [(1, 3)])) for _ in range(3)]
    found = examine_runs([timeline for timeline, _ in runs], [graph for _, graph in runs])
    assert (found.runs, found.seconds, found.best, found.path) == (3, 12, 9, ())
    assert found.slowest[0].component_id == "b"
    assert (found.slowest[0].runs, found.slowest[0].ran, found.slowest[0].critical) == (3, 6, 3)


def test_nothing_is_said_of_runs_without_an_end() -> None:
    assert examine_runs([], []).advice == ("No task has ended yet.",)


@pytest.mark.parametrize("wait", [0.05, 0.5])
def test_waits_that_nobody_would_notice_are_not_worth_a_word(wait: float) -> None:
    found = examine_run(*made(("a", (), [(wait, wait + 0.2)])))
    assert any("could have started" in advice for advice in found.advice) == (wait > 0.1)


def test_how_long_commits_take_is_read_from_the_metrics() -> None:
    text = "\n".join(
        [
            f"# TYPE {METRIC} histogram",
            *(f'{METRIC}_bucket{{le="{le}"}} {count}' for le, count in (("0.001", 10), ("0.01", 96), ("+Inf", 100))),
            f"{METRIC}_sum 0.5",
            f"{METRIC}_count 100",
            "",
        ]
    )
    assert commit_times(text) == CommitTimes(100, 0.005, 0.01)
    assert commit_times(text.replace("96", "94")) == CommitTimes(100, 0.005, None)
    assert commit_times("") is None


def test_slow_commits_are_worth_a_word() -> None:
    found = examine_run(*made(("a", (), [(0, 1)])))
    assert with_commits(found, None) == found
    assert with_commits(found, CommitTimes(5, 0.001, 0.01)).advice == found.advice
    slow = with_commits(found, CommitTimes(5, 0.2, 0.5))
    assert "A commit takes 200 ms" in slow.advice[-1]
