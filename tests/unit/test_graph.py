"""The frozen graph: what it accepts, and that its answers are those of networkx."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synergymesh.domain.graphs.criticality import gains
from synergymesh.domain.graphs.graph import WEIGHT_MAX, Graph
from synergymesh.domain.graphs.redundancy import redundant_edges
from synergymesh.errors import CircularDependency, DuplicateComponent, GraphTooLarge, InvalidRequest

weights = st.one_of(st.sampled_from([0.0, 1.0, 2.0, 1e12]), st.floats(0, 1e6))


@st.composite
def graphs(draw: st.DrawFn, size_max: int = 12) -> Graph:
    count = draw(st.integers(0, size_max))
    places = draw(st.permutations(range(count)))
    possible = [(dependent, dependency) for dependent in range(count) for dependency in range(dependent)]
    chosen = draw(st.lists(st.sampled_from(possible), max_size=3 * count)) if possible else []
    return Graph.build(
        [f"ü{number}" for number in range(count)],
        draw(st.lists(weights, min_size=count, max_size=count)),
        [(places[dependent], places[dependency], draw(st.booleans())) for dependent, dependency in chosen],
    )


def reference(graph: Graph) -> nx.DiGraph:
    """Give the same graph for networkx: edges from dependency to dependent."""
    directed = nx.DiGraph()
    directed.add_nodes_from(range(len(graph)))
    directed.add_edges_from((dependency, at) for at, own in enumerate(graph.dependencies) for dependency in own)
    return directed


def span(graph: Graph) -> float:
    """Give the weight of the heaviest path, by the definition."""
    heaviest: dict[int, float] = {}
    for at in nx.topological_sort(reference(graph)):
        heaviest[at] = graph.weights[at] + max((heaviest[before] for before in graph.dependencies[at]), default=0.0)
    return max(heaviest.values(), default=0.0)


def build(count: int, edges: list[tuple[int, int]], weights: list[float] | None = None) -> Graph:
    ids = [chr(ord("a") + number) if count <= 26 else f"c{number}" for number in range(count)]
    return Graph.build(ids, weights or [1.0] * count, [(*edge, True) for edge in edges])


@settings(max_examples=80, deadline=None)
@given(graphs())
def test_phases_are_the_generations_of_networkx(graph: Graph) -> None:
    expected = [sorted(generation) for generation in nx.topological_generations(reference(graph))]
    assert graph.phases() == expected
    assert graph.topological_order() == [position for phase in expected for position in phase]


@settings(max_examples=80, deadline=None)
@given(graphs())
def test_the_critical_path_is_a_path_of_the_largest_weight(graph: Graph) -> None:
    path = graph.critical_path()
    assert all(before in graph.dependencies[after] for before, after in pairwise(path))
    assert sum(graph.weights[position] for position in path) == pytest.approx(span(graph))
    assert max(graph.upward_ranks(), default=0.0) == pytest.approx(span(graph))


@settings(max_examples=80, deadline=None)
@given(graphs())
def test_dependents_are_dependencies_turned_round(graph: Graph) -> None:
    turned = {(before, after) for before, own in enumerate(graph.dependents) for after in own}
    assert turned == {(before, after) for after, own in enumerate(graph.dependencies) for before in own}
    directed = reference(graph)
    for position in range(len(graph)):
        assert graph.everything_after(position) == nx.descendants(directed, position)
        assert graph.everything_before(position) == nx.ancestors(directed, position)


@settings(max_examples=80, deadline=None)
@given(graphs(), st.integers(1, 5))
def test_redundant_edges_are_what_the_transitive_reduction_leaves_out(graph: Graph, bits: int) -> None:
    directed = reference(graph)
    reduced = nx.transitive_reduction(directed)
    expected = {(after, before) for before, after in set(directed.edges) - set(reduced.edges)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("synergymesh.domain.graphs.redundancy.BLOCK_BITS", bits)
        found = redundant_edges(graph)
    assert found.is_complete
    assert set(found.edges) == expected


def test_a_search_for_redundant_edges_that_is_cut_short_says_so() -> None:
    graph = build(40, [(at, before) for at in range(40) for before in range(at)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("synergymesh.domain.graphs.redundancy.BLOCK_BITS", 4)
        found = redundant_edges(graph, steps_max=100)
    assert not found.is_complete
    assert 0 < len(found.edges) < len(redundant_edges(graph).edges) == 39 * 38 / 2


@settings(max_examples=60, deadline=None)
@given(graphs(size_max=8))
def test_gains_are_what_the_plan_loses_without_a_weight_or_a_dependency(graph: Graph) -> None:
    found = gains(graph)
    edges = [(at, before) for at, own in enumerate(graph.dependencies) for before in own]
    for number, position in enumerate(found.path):
        lighter = [0.0 if at == position else weight for at, weight in enumerate(graph.weights)]
        without = span(build(len(graph), edges, lighter))
        assert found.of_component[number] == pytest.approx(span(graph) - without, abs=1e-9 * found.span)
    for number, (before, after) in enumerate(pairwise(found.path)):
        cut = build(len(graph), [edge for edge in edges if edge != (after, before)], list(graph.weights))
        assert found.of_dependency[number] == pytest.approx(span(graph) - span(cut), abs=1e-9 * found.span)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 8), st.data())
def test_any_edges_build_a_graph_or_show_a_real_cycle(count: int, data: st.DataObject) -> None:
    position = st.integers(0, count - 1)
    edges = data.draw(st.lists(st.tuples(position, position), max_size=14))
    directed = nx.DiGraph(edges)
    try:
        build(count, edges)
    except CircularDependency as error:
        path = [ord(name) - ord("a") for name in error.cycle]
        assert path[0] == path[-1]
        assert len(set(path)) == len(path) - 1
        assert all(step in edges for step in pairwise(path))
    else:
        assert nx.is_directed_acyclic_graph(directed)


def test_the_same_edge_twice_is_one_and_required_wins() -> None:
    graph = Graph.build(["a", "b", "c"], [1, 1, 1], [(1, 0, False), (1, 0, True), (2, 0, False), (2, 0, False)])
    assert graph.dependencies == ((), (0,), (0,))
    assert graph.optional == {(2, 0)}


def test_edges_may_come_from_a_generator() -> None:
    graph = Graph.build(["a", "b"], [1, 1], ((1, 0, required) for required in (False, True)))
    assert graph.optional == frozenset()


def test_a_component_that_depends_on_itself_is_a_cycle() -> None:
    with pytest.raises(CircularDependency, match="a -> a"):
        build(1, [(0, 0)])


def test_chains_of_a_hundred_thousand_need_no_stack() -> None:
    count = 100_000
    graph = build(count, [(number, number - 1) for number in range(1, count)])
    assert len(graph.phases()) == count
    assert graph.critical_path() == list(range(count))


@pytest.mark.parametrize(
    ("component_id", "says"),
    [
        ("", "empty"),
        (7, "string, not int"),
        (None, "string, not NoneType"),
        ("x" * 1_000_000, "at most 200 characters, not 1,000,000"),
        ("a\0b", "NUL"),
        ("a\ud800b", "surrogates"),
    ],
)
def test_an_id_that_cannot_be_accepted_is_named(component_id: Any, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says) as caught:
        Graph.build(["fine", component_id], [1, 1], [])
    assert caught.value.field == "component_id"
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "weight", [-1, -1e-9, math.nan, math.inf, -math.inf, 10**400, 1.01 * WEIGHT_MAX, "1", None, True]
)
def test_a_weight_that_cannot_be_accepted_is_named(weight: Any) -> None:
    with pytest.raises(InvalidRequest, match="weight must be") as caught:
        Graph.build(["a", "b"], [1.0, weight], [])
    assert caught.value.field == "weight"


def test_a_weight_with_more_digits_than_python_prints_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="weight must be"):
        Graph.build(["a"], [10**5000], [])


def test_the_largest_weights_in_a_row_stay_finite() -> None:
    graph = build(3, [(1, 0), (2, 1)], [WEIGHT_MAX] * 3)
    assert math.isfinite(graph.upward_ranks()[0] * 1_000)


def test_the_same_id_twice_is_refused() -> None:
    with pytest.raises(DuplicateComponent, match="'b'"):
        Graph.build(["a", "b", "b"], [1, 1, 1], [])


def test_limits_hold_at_the_limit_and_one_past_it() -> None:
    edges = [(1, 0, True), (2, 1, True)]
    Graph.build(["a", "b", "c"], [1, 1, 1], edges, components_max=3, dependencies_max=2)
    with pytest.raises(GraphTooLarge, match="3 components, the limit is 2"):
        Graph.build(["a", "b", "c"], [1, 1, 1], edges, components_max=2)
    with pytest.raises(GraphTooLarge, match="2 dependencies, the limit is 1"):
        Graph.build(["a", "b", "c"], [1, 1, 1], edges, dependencies_max=1)
