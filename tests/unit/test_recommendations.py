"""Advice: each piece is computed, names what it is about, and is silent when there is nothing to say."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synergymesh.domain.graphs.analysis import Plan
from synergymesh.domain.graphs.graph import Graph
from synergymesh.domain.graphs.list_schedule import makespan
from synergymesh.domain.graphs.recommendations import Recommendation, RecommendationKind, duration, recommend
from synergymesh.resolver import DependencyResolver

Kind = RecommendationKind


def advice(weights: dict[str, float], edges: list[tuple[str, str]]) -> dict[Kind, list[Recommendation]]:
    resolver = DependencyResolver()
    resolver.add_components((name, "task", 0, weight) for name, weight in weights.items())
    resolver.add_dependencies(edges)
    by_kind: dict[Kind, list[Recommendation]] = {}
    for recommendation in resolver.recommendations():
        by_kind.setdefault(recommendation.kind, []).append(recommendation)
    assert [each.message for each in resolver.recommendations()] == resolver.get_optimization_recommendations()
    return by_kind


DIAMOND = [("b", "a"), ("c", "a"), ("d", "b"), ("d", "c")]


def test_the_component_whose_speeding_up_helps_most_is_named_with_its_gain() -> None:
    (found,) = advice({"a": 1, "b": 5, "c": 2, "d": 1}, DIAMOND)[Kind.SPEED_UP]
    assert found.components == ("b",)
    assert (found.figure, found.unit) == (3_000, "ms")  # then the path through c is the longest
    assert "'b'" in found.message
    assert "from 7 s to 4 s" in found.message


def test_the_dependency_whose_removal_helps_most_is_named_with_its_gain() -> None:
    (found,) = advice({"a": 4, "b": 5, "c": 1}, [("b", "a"), ("c", "b")])[Kind.CUT]
    assert found.dependencies == (("b", "a"),)
    assert found.figure == 4_000
    assert "6 s instead of 10 s" in found.message


def test_redundant_dependencies_are_all_listed() -> None:
    (found,) = advice({"a": 1, "b": 1, "c": 1, "d": 1}, [*DIAMOND, ("d", "a")])[Kind.REDUNDANT]
    assert found.dependencies == (("d", "a"),)
    assert (found.figure, found.unit) == (1, "dependencies")
    assert "1 of 5" in found.message
    assert "'d' on 'a'" in found.message


def test_a_bottleneck_has_many_on_both_sides() -> None:
    weights = {f"in-{n}": 1.0 for n in range(4)} | {"hub": 1.0} | {f"out-{n}": 1.0 for n in range(5)} | {"beside": 1.0}
    edges = [("hub", f"in-{n}") for n in range(4)] + [(f"out-{n}", "hub") for n in range(5)] + [("beside", "in-0")]
    (found,) = advice(weights, edges)[Kind.BOTTLENECK]
    assert found.components == ("hub",)
    assert found.figure == 9
    assert "4 components have to end before it and 5 wait for it" in found.message
    assert "1 of the other 10 can run beside it" in found.message
    weights |= {f"far-{number}": 1.0 for number in range(40)}
    assert Kind.BOTTLENECK not in advice(weights, edges)


def test_chains_that_could_be_merged_are_found() -> None:
    weights = dict.fromkeys("abcdefg", 1.0)
    (found,) = advice(weights, [("b", "a"), ("c", "b"), ("d", "c"), ("e", "c"), ("f", "d"), ("g", "e"), ("g", "d")])[
        Kind.CHAIN
    ]
    assert found.components == ("a", "b", "c")  # not d-f and e-g: d has two dependents, g two dependencies
    assert found.figure == 2
    assert "3 s" in found.message


def test_isolated_components_are_found_only_beside_others() -> None:
    (found,) = advice(dict.fromkeys("abcde", 1.0), DIAMOND)[Kind.ISOLATED]
    assert found.components == ("e",)
    assert Kind.ISOLATED not in advice(dict.fromkeys("abc", 1.0), [])


def test_a_healthy_graph_says_so() -> None:
    layers = [[f"{layer}-{n}" for n in range(4)] for layer in "abc"]
    weights = {name: 1.0 for layer in layers for name in layer}
    edges = [(after, before) for number in (1, 2) for after in layers[number] for before in layers[number - 1]]
    found = advice(weights, edges)
    assert set(found) == {Kind.HEALTHY, Kind.WORKERS}
    (healthy,) = found[Kind.HEALTHY]
    assert healthy.figure == 4.0
    assert "healthy" in healthy.message
    (workers,) = found[Kind.WORKERS]
    assert (workers.figure, workers.unit) == (4, "workers")


def test_the_useful_number_of_workers_can_be_far_below_the_width() -> None:
    gates = {f"gate-{number}": 1.0 for number in range(12)}  # all have to end before the long tail
    weights = gates | {f"beside-{number}": 1.0 for number in range(20)} | {"tail": 50.0}
    (workers,) = advice(weights, [("tail", gate) for gate in gates])[Kind.WORKERS]
    assert workers.figure == 12


def test_an_empty_graph_says_so() -> None:
    assert set(advice({}, [])) == {Kind.EMPTY}


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.data())
def test_the_useful_number_of_workers_takes_no_longer_than_the_critical_path(count: int, data: st.DataObject) -> None:
    edges = [(after, before, True) for after in range(count) for before in range(after) if data.draw(st.booleans())]
    weights = data.draw(st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=count, max_size=count))
    plan = Plan(Graph.build([str(number) for number in range(count)], weights, edges), [0] * count)
    found = recommend(plan)
    useful = int(found[-1].figure)
    assert found[-1].kind is Kind.WORKERS
    assert len(found) > 1  # advice, or that it is healthy
    if plan.span():
        assert makespan(plan.graph, plan.listed(), useful) == pytest.approx(plan.span())
        assert all(makespan(plan.graph, plan.listed(), fewer) > plan.span() for fewer in range(1, useful))


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0 ms"), (0.25, "250 ms"), (3.21, "3.21 s"), (250, "4 min 10 s"), (36_000, "10.0 h"), (1e290, "1e+290 s")],
)
def test_durations_are_shown_for_people(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown
