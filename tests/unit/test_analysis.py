"""List schedules, their bounds, and what the parallelization analysis says."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synergymesh.domain.graphs import analysis
from synergymesh.domain.graphs.analysis import Plan, parallelization, schedules, worker_counts
from synergymesh.domain.graphs.graph import Graph
from synergymesh.domain.graphs.list_schedule import makespan
from synergymesh.errors import InvalidRequest
from synergymesh.resolver import DependencyResolver


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    count = draw(st.integers(1, 10))
    edges = [
        (dependent, dependency, True)
        for dependent in range(count)
        for dependency in range(dependent)
        if draw(st.integers(0, 3)) == 0
    ]
    weights = draw(st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.5]), min_size=count, max_size=count))
    graph = Graph.build([str(number) for number in range(count)], weights, edges)
    return Plan(graph, draw(st.lists(st.integers(0, 2), min_size=count, max_size=count)))


def simulated(plan: Plan, workers: int) -> float:
    """Simulate the same schedule in the obvious way: whenever time moves on, fill the free workers."""
    graph, listed = plan.graph, plan.listed()
    running: dict[int, float] = {}
    done: set[int] = set()
    now = 0.0
    while len(done) < len(graph):
        for position in listed:
            ready = position not in done and position not in running and set(graph.dependencies[position]) <= done
            if ready and len(running) < workers:
                running[position] = now + graph.weights[position]
        now = min(running.values())
        ended = {position for position, end in running.items() if end <= now}
        done |= ended
        for position in ended:
            del running[position]
    return now


@settings(max_examples=60, deadline=None)
@given(plans(), st.integers(1, 6))
def test_a_list_schedule_is_the_one_of_the_obvious_simulation(plan: Plan, workers: int) -> None:
    found = makespan(plan.graph, plan.listed(), workers)
    assert found == pytest.approx(simulated(plan, workers))
    (row,) = schedules(plan, [workers])
    assert row.makespan_ms == pytest.approx(1_000 * found)


@settings(max_examples=60, deadline=None)
@given(plans())
def test_every_list_schedule_is_within_its_bounds(plan: Plan) -> None:
    found = parallelization(plan)
    assert [row.workers for row in found.schedules] == worker_counts(found.max_width)
    for row in found.schedules:
        assert row.makespan_ms is not None
        assert row.lower_bound_ms - 1e-6 <= row.makespan_ms <= row.upper_bound_ms + 1e-6
        assert row.speedup == pytest.approx(found.sequential_time_ms / row.makespan_ms if row.makespan_ms else 1)
        assert row.utilization <= 1 + 1e-9
    (unlimited,) = schedules(plan, [100])
    assert unlimited.makespan_ms == pytest.approx(found.parallel_time_ms)


@settings(max_examples=60, deadline=None)
@given(plans(), st.integers(1, 4), st.data())
def test_what_lies_between_takes_no_worker_and_no_time(plan: Plan, workers: int, data: st.DataObject) -> None:
    chosen = data.draw(st.sets(st.integers(0, len(plan.graph) - 1), min_size=1))
    part = Plan.part(plan.graph, plan.priorities, chosen)
    reached: dict[int, set[int]] = {}
    for position in range(len(plan.graph)):
        before = plan.graph.dependencies[position]
        reached[position] = set(before).union(*(reached[dependency] for dependency in before))
    members = sorted(chosen)
    place = {position: number for number, position in enumerate(members)}
    closed = Graph.build(
        [str(position) for position in members],
        [plan.graph.weights[position] for position in members],
        [(place[after], place[before], True) for after in members for before in members if before in reached[after]],
    )
    alone = Plan(closed, [plan.priorities[position] for position in members])
    assert part.names(part.order()) == alone.names(alone.order())
    assert makespan(part.graph, part.listed(), workers, part.members) == pytest.approx(simulated(alone, workers))
    found, expected = parallelization(part, [workers]), parallelization(alone, [workers])
    assert (found.total_components, found.max_width) == (expected.total_components, expected.max_width)
    assert found.parallel_time_ms == pytest.approx(expected.parallel_time_ms)


def test_what_ends_at_one_moment_is_released_before_anything_starts() -> None:
    weights = [1.0, 1.0, 2.0, 3.0, 2.0, 3.0]  # 0 and 1 end together; only both release 2 and 4, which go before 3
    edges = [(2, 0, True), (2, 1, True), (4, 0, True), (4, 1, True), (5, 2, True), (5, 4, True)]
    plan = Plan(Graph.build(list("012345"), weights, edges), [0] * 6)
    assert makespan(plan.graph, plan.listed(), 2) == 6.0


def test_what_lies_between_does_not_wait_for_a_worker() -> None:
    resolver = DependencyResolver()
    resolver.add_components([("first", "task", 9, 1.0), ("between", "task", -9), ("last", "task", 9, 5.0)])
    resolver.add_components([("one", "task", 0, 3.0), ("two", "task", 0, 3.0)])
    resolver.add_dependencies([("between", "first"), ("last", "between")])
    (row,) = resolver.get_parallelization_analysis(["first", "last", "one", "two"], workers=2)["schedules"]
    assert row["makespan_ms"] == 6_000  # last starts at 1 s, although two is ready and between has a low priority


def test_the_numbers_of_workers_go_up_to_the_widest_phase() -> None:
    assert [worker_counts(width) for width in (0, 1, 2, 3, 8, 9)] == [
        [],
        [1],
        [1, 2],
        [1, 2, 3],
        [1, 2, 4, 8],
        [1, 2, 4, 8, 9],
    ]


def test_a_fork_and_join_is_analysed() -> None:
    resolver = DependencyResolver()
    resolver.add_components([("split", "task", 0, 1.0), *((f"part-{n}", "task", 0, 2.0) for n in range(4))])
    resolver.add_dependencies((f"part-{n}", "split") for n in range(4))
    found = resolver.get_parallelization_analysis()
    rows = found.pop("schedules")
    assert found == {
        "total_components": 5,
        "execution_phases": 2,
        "sequential_time_ms": 9_000,
        "parallel_time_ms": 3_000,
        "parallelization_factor": 3.0,
        "potential_speedup": "3.00x",
        "max_width": 4,
        "average_width": 2.5,
    }
    assert [(row["workers"], row["makespan_ms"]) for row in rows] == [(1, 9_000), (2, 5_000), (4, 3_000)]
    assert (rows[1]["lower_bound_ms"], rows[1]["upper_bound_ms"]) == (4_500, 6_000)
    (three,) = resolver.get_parallelization_analysis(workers=3)["schedules"]
    assert (three["workers"], three["makespan_ms"], three["utilization"]) == (3, 5_000, pytest.approx(0.6))


@pytest.mark.parametrize("workers", [0, -1, [1, 0], [1.5], [True]])
def test_workers_are_whole_numbers_from_one(workers) -> None:
    with pytest.raises(InvalidRequest, match="from 1"):
        DependencyResolver().get_parallelization_analysis(workers=workers)


def test_a_large_plan_has_bounds_only_unless_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analysis, "SIMULATED_COMPONENTS_MAX", 3)
    resolver = DependencyResolver()
    resolver.add_components(["a", "b", "c", "d"])
    rows = resolver.get_parallelization_analysis()["schedules"]
    assert [row["makespan_ms"] for row in rows] == [4_000, None, None]
    assert all(row["lower_bound_ms"] <= row["upper_bound_ms"] for row in rows)
    (row,) = resolver.get_parallelization_analysis(workers=2)["schedules"]
    assert row["makespan_ms"] == 2_000
