"""The dependency resolver as its users see it."""

from __future__ import annotations

import logging
import math
from itertools import pairwise
from pathlib import Path

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synergymesh.errors import CircularDependency, GraphTooLarge, InvalidRequest, UnknownComponent
from synergymesh.resolver import DependencyResolver
from synergymesh.resolver.components import DependencyNode

TRACES = Path(__file__).parents[3] / "shared" / "data" / "wfformat"


@pytest.fixture
def diamond() -> DependencyResolver:
    """Give a -> b (5 s), c (2 s) -> d."""
    resolver = DependencyResolver()
    resolver.add_components(
        [("a", "task", 0, 1.0), ("b", "task", 0, 5.0), ("c", "task", 0, 2.0), ("d", "task", 0, 1.0)]
    )
    resolver.add_dependencies([("b", "a"), ("c", "a"), ("d", "b"), ("d", "c")])
    return resolver


@st.composite
def resolvers(draw: st.DrawFn) -> DependencyResolver:
    count = draw(st.integers(1, 12))
    names = draw(st.permutations([f"é{number}" for number in range(count)]))
    resolver = DependencyResolver()
    for name in names:
        weight = draw(st.sampled_from([0.0, 1.0, 1.0, 2.5, 1e9]))
        resolver.add_component(name, "task", draw(st.integers(-1, 1)), weight)
    position = st.integers(0, count - 1)
    for before, after in draw(st.lists(st.tuples(position, position), max_size=3 * count)):
        if before < after:
            assert resolver.add_dependency(f"é{after}", f"é{before}", draw(st.booleans()))
    return resolver


def reference(resolver: DependencyResolver) -> nx.DiGraph:
    """Give the same graph for networkx: edges from dependency to dependent."""
    directed = nx.DiGraph()
    directed.add_nodes_from(resolver.nodes)
    directed.add_edges_from((before, after) for after, own in resolver.graph.items() for before in own)
    return directed


# --- changes --------------------------------------------------------------------------------------------------------


def test_a_cycle_is_refused_and_its_path_is_shown(
    diamond: DependencyResolver, caplog: pytest.LogCaptureFixture
) -> None:
    before = diamond.to_json()
    assert diamond.find_cycle("a", "d") == ["a", "d", "b", "a"]
    with caplog.at_level(logging.WARNING):
        assert diamond.add_dependency("a", "d") is False
    assert "a -> d -> b -> a" in caplog.text
    assert diamond.refused_dependencies == [("a", "d")]
    assert diamond.get_dependency_stats()["refused_dependencies"] == 1
    assert DependencyResolver.from_json(diamond.to_json()).to_json() == before


def test_a_component_cannot_depend_on_itself(diamond: DependencyResolver) -> None:
    assert diamond.find_cycle("a", "a") == ["a", "a"]
    assert diamond.add_dependency("a", "a") is False


def test_what_closes_no_cycle_has_no_path(diamond: DependencyResolver) -> None:
    assert diamond.find_cycle("d", "a") is None
    assert diamond.add_dependency("d", "a") is True


def test_the_same_dependency_again_changes_nothing(diamond: DependencyResolver) -> None:
    before = diamond.export_graph()
    assert diamond.add_dependency("b", "a") is True
    assert diamond.add_dependency("b", "a", required=False) is True
    assert diamond.export_graph() == before
    assert diamond.add_dependencies([("b", "a")]) == 0


def test_an_optional_dependency_can_become_required(diamond: DependencyResolver) -> None:
    diamond.remove_dependency("b", "a")
    diamond.add_dependency("b", "a", required=False)
    assert diamond.is_required("b", "a") is False
    diamond.add_dependency("b", "a")
    assert diamond.is_required("b", "a") is True
    assert diamond.is_required("a", "b") is None


def test_the_same_component_again_is_updated(diamond: DependencyResolver) -> None:
    assert diamond.get_critical_path() == ["a", "b", "d"]
    assert diamond.add_component("c", "other", priority=3, weight=50) is True
    assert diamond.get_critical_path() == ["a", "c", "d"]
    assert diamond.nodes["c"] == DependencyNode(
        component_id="c", component_type="other", priority=3, weight=50.0, dependencies=("a",), dependents=("d",)
    )
    diamond.add_components([("c", "task"), ("e", "task")])
    assert diamond.nodes["c"].weight == 1.0
    assert list(diamond.nodes) == ["a", "b", "c", "d", "e"]


def test_removing_takes_the_dependencies_along(diamond: DependencyResolver) -> None:
    diamond.remove_component("b")
    assert diamond.get_critical_path() == ["a", "c", "d"]
    assert diamond.remove_dependency("d", "c") is True
    assert diamond.remove_dependency("d", "c") is False
    assert diamond.get_dependency_stats()["total_dependencies"] == 1
    assert "b" not in diamond
    assert len(diamond) == 3


@pytest.mark.parametrize(
    "call",
    [
        lambda resolver: resolver.add_dependency("nope", "a"),
        lambda resolver: resolver.add_dependency("a", "nope"),
        lambda resolver: resolver.remove_dependency("a", "nope"),
        lambda resolver: resolver.remove_component("nope"),
        lambda resolver: resolver.add_dependencies([("d", "a"), ("a", "nope")]),
        lambda resolver: resolver.find_cycle("a", "nope"),
        lambda resolver: resolver.topological_sort(["a", "nope"]),
        lambda resolver: resolver.get_execution_phases(["nope"]),
        lambda resolver: resolver.dependents_of("nope"),
        lambda resolver: resolver.dependencies_of("nope", transitive=True),
        lambda resolver: resolver.impact_of("nope"),
        lambda resolver: resolver.is_required("nope", "a"),
    ],
)
def test_an_unknown_component_is_named(diamond: DependencyResolver, call) -> None:
    before = diamond.to_json()
    with pytest.raises(ValueError, match="no component 'nope'") as caught:
        call(diamond)
    assert isinstance(caught.value, UnknownComponent)
    assert diamond.to_json() == before


def test_bulk_changes_are_all_or_nothing(diamond: DependencyResolver) -> None:
    before = diamond.to_json()
    with pytest.raises(CircularDependency, match="a -> d -> b -> a"):
        diamond.add_dependencies([("c", "b"), ("a", "d")])
    with pytest.raises(InvalidRequest, match="weight"):
        diamond.add_components(["e", ("f", "task", 0, math.nan)])
    with pytest.raises(InvalidRequest, match="component_id"):
        diamond.add_components(["e", ""])
    assert diamond.to_json() == before
    assert diamond.add_components([]) == 0
    assert diamond.add_dependencies([]) == 0


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("", "task"), "component_id"),
        ((b"a", "task"), "component_id"),
        (("x" * 1_000_000, "task"), "component_id"),
        (("e", ""), "component_type"),
        (("e", None), "component_type"),
        (("e", "task", "high"), "priority"),
        (("e", "task", True), "priority"),
        (("e", "task", 2**31), "priority"),
        (("e", "task", 0, math.nan), "weight"),
        (("e", "task", 0, -1), "weight"),
        (("e", "task", 0, math.inf), "weight"),
    ],
)
def test_bad_values_name_their_field(diamond: DependencyResolver, arguments, field: str) -> None:
    for call in (lambda: diamond.add_component(*arguments), lambda: diamond.add_components(["f", arguments])):
        with pytest.raises(InvalidRequest) as caught:
            call()
        assert caught.value.field == field
    assert list(diamond.nodes) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("bad", [7, None, ("a",), ("a", "task", 0, 1.0, 5), ["a", "task"]])
def test_what_is_no_component_is_refused(diamond: DependencyResolver, bad) -> None:
    with pytest.raises(InvalidRequest, match="a component is"):
        diamond.add_components([bad])


@pytest.mark.parametrize("bad", ["ab", ("a",), ("a", "b", True, 1), None])
def test_what_is_no_dependency_is_refused(diamond: DependencyResolver, bad) -> None:
    with pytest.raises(InvalidRequest, match="a dependency is"):
        diamond.add_dependencies([bad])


def test_limits_hold_at_the_limit_and_one_past_it() -> None:
    resolver = DependencyResolver(components_max=3, dependencies_max=2)
    resolver.add_components(["a", "b"])
    resolver.add_component("c", "task")
    with pytest.raises(GraphTooLarge, match="4 components, the limit is 3"):
        resolver.add_component("d", "task")
    with pytest.raises(GraphTooLarge, match="4 components, the limit is 3"):
        resolver.add_components(["a", "d"])
    resolver.add_component("a", "again")
    resolver.add_dependencies([("b", "a"), ("c", "b")])
    assert resolver.add_dependency("c", "b") is True
    with pytest.raises(GraphTooLarge, match="3 dependencies, the limit is 2"):
        resolver.add_dependency("c", "a")
    with pytest.raises(GraphTooLarge, match="3 dependencies, the limit is 2"):
        resolver.add_dependencies([("c", "a")])


# --- order, phases, critical path -----------------------------------------------------------------------------------


def test_ready_components_go_by_priority_then_remaining_path_then_insertion() -> None:
    resolver = DependencyResolver()
    for name, priority, weight in (("p", 0, 1), ("q", 0, 1), ("long", 0, 5), ("urgent", 1, 0), ("late", 9, 1)):
        resolver.add_component(name, "task", priority, weight)
    resolver.add_dependency("late", "q")
    assert resolver.topological_sort() == ["urgent", "long", "q", "late", "p"]
    resolver.remove_dependency("late", "q")
    assert resolver.topological_sort() == ["late", "urgent", "long", "p", "q"]


def test_a_subset_is_ordered_through_components_outside_it() -> None:
    resolver = DependencyResolver()
    for name, priority in (("first", 0), ("between", -5), ("last", 9), ("free", 5), ("before", -9)):
        resolver.add_component(name, "task", priority, 1.0)
    resolver.add_dependencies([("between", "first"), ("last", "between"), ("free", "before")])
    # last has the higher priority, but waits through between; free does not wait for before, which is not asked for
    assert resolver.topological_sort(["last", "first"]) == ["first", "last"]
    assert resolver.topological_sort(["last", "first", "free", "last"]) == ["free", "first", "last"]
    phases = resolver.get_execution_phases(["last", "first", "free"])
    assert [phase.components for phase in phases] == [("first", "free"), ("last",)]
    assert resolver.get_critical_path(["last", "first", "free"]) == ["first", "last"]
    assert resolver.get_critical_path(["free"]) == ["free"]
    assert set(resolver.get_slack(["last", "free"])) == {"last", "free"}


@settings(max_examples=80, deadline=None)
@given(resolvers(), st.data())
def test_subsets_agree_with_the_transitive_closure_of_networkx(resolver: DependencyResolver, data) -> None:
    chosen = data.draw(st.lists(st.sampled_from(list(resolver.nodes)), unique=True))
    closure = nx.transitive_closure_dag(reference(resolver)).subgraph(chosen)
    order = resolver.topological_sort(chosen)
    assert sorted(order) == sorted(chosen)
    place = {name: number for number, name in enumerate(order)}
    assert all(place[before] < place[after] for before, after in closure.edges)
    phases = [set(phase.components) for phase in resolver.get_execution_phases(chosen)]
    assert phases == [set(generation) for generation in nx.topological_generations(closure)]
    weight = {name: node.weight for name, node in resolver.nodes.items()}
    heaviest: dict[str, float] = {}
    for name in nx.topological_sort(closure):
        heaviest[name] = weight[name] + max((heaviest[before] for before in closure.predecessors(name)), default=0.0)
    path = resolver.get_critical_path(chosen)
    assert sum(weight[name] for name in path) == pytest.approx(max(heaviest.values(), default=0.0))
    assert all(closure.has_edge(*step) for step in pairwise(path))
    slack = resolver.get_slack(chosen)
    assert {name: each.earliest_start_ms for name, each in slack.items()} == pytest.approx(
        {name: 1_000 * (heaviest[name] - weight[name]) for name in chosen}, abs=1e-3
    )
    assert all(slack[name].slack_ms == 0 for name in path)


@settings(max_examples=60, deadline=None)
@given(resolvers())
def test_the_order_prefers_the_first_of_the_ready_ones(resolver: DependencyResolver) -> None:
    names = list(resolver.nodes)
    remaining: dict[str, float] = {}
    for name in reversed(list(nx.topological_sort(reference(resolver)))):
        after = [remaining[dependent] for dependent in resolver.reverse_graph[name]]
        remaining[name] = resolver.nodes[name].weight + max(after, default=0.0)
    done: list[str] = []
    while len(done) < len(names):
        ready = [name for name in names if name not in done and set(resolver.graph[name]) <= set(done)]
        done.append(min(ready, key=lambda name: (-resolver.nodes[name].priority, -remaining[name], names.index(name))))
    assert resolver.topological_sort() == done


def test_phases_carry_their_figures(diamond: DependencyResolver) -> None:
    first, second, third = diamond.get_execution_phases()
    assert (first.phase_number, first.components, first.can_parallel, first.dependency_count) == (1, ("a",), False, 0)
    assert (second.phase_number, second.components, second.can_parallel, second.dependency_count) == (
        2,
        ("b", "c"),
        True,
        2,
    )
    assert [phase.estimated_duration_ms for phase in (first, second, third)] == [1_000, 5_000, 1_000]


def test_slack_says_how_long_a_component_may_wait(diamond: DependencyResolver) -> None:
    slack = diamond.get_slack()
    assert (slack["c"].earliest_start_ms, slack["c"].latest_start_ms, slack["c"].slack_ms) == (1_000, 4_000, 3_000)
    assert [name for name, each in slack.items() if not each.slack_ms] == ["a", "b", "d"]


# --- neighbours -----------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(resolvers())
def test_neighbours_are_those_of_networkx(resolver: DependencyResolver) -> None:
    directed = reference(resolver)
    required = nx.DiGraph(edge for edge in directed.edges if resolver.is_required(edge[1], edge[0]))
    required.add_nodes_from(resolver.nodes)
    for name in resolver.nodes:
        assert set(resolver.dependencies_of(name)) == set(directed.predecessors(name))
        assert set(resolver.dependents_of(name)) == set(directed.successors(name))
        assert set(resolver.dependencies_of(name, transitive=True)) == nx.ancestors(directed, name)
        assert set(resolver.dependents_of(name, transitive=True)) == nx.descendants(directed, name)
        assert set(resolver.impact_of(name)) == nx.descendants(required, name)


def test_an_optional_dependency_carries_no_impact(diamond: DependencyResolver) -> None:
    assert diamond.impact_of("c") == ["d"]
    diamond.remove_dependency("d", "c")
    diamond.add_dependency("d", "c", required=False)
    assert diamond.impact_of("c") == []
    assert diamond.impact_of("a") == ["b", "c", "d"]


def test_statistics(diamond: DependencyResolver) -> None:
    assert diamond.get_dependency_stats() == {
        "total_components": 4,
        "total_dependencies": 4,
        "average_dependency_count": 1.0,
        "max_dependency_depth": 2,
        "circular_dependencies": 0,
        "refused_dependencies": 0,
        "roots": ["a"],
        "leaves": ["d"],
        "density": pytest.approx(nx.density(reference(diamond))),
    }


def test_an_empty_graph_has_answers_too() -> None:
    resolver = DependencyResolver()
    assert resolver.topological_sort() == resolver.get_critical_path() == resolver.get_execution_phases() == []
    assert resolver.get_slack() == {}
    assert resolver.get_dependency_stats()["max_dependency_depth"] == 0
    analysis = resolver.get_parallelization_analysis()
    assert (analysis["sequential_time_ms"], analysis["parallelization_factor"], analysis["schedules"]) == (0, 1.0, [])


# --- what is kept ---------------------------------------------------------------------------------------------------


def test_views_are_live_and_cannot_be_written(diamond: DependencyResolver) -> None:
    nodes, graph, reverse = diamond.nodes, diamond.graph, diamond.reverse_graph
    diamond.add_component("e", "task")
    diamond.add_dependency("e", "d")
    assert list(nodes) == list(graph) == ["a", "b", "c", "d", "e"]
    assert graph["e"] == ("d",)
    assert reverse["d"] == ("e",)
    with pytest.raises(TypeError):
        nodes["x"] = nodes["a"]  # type: ignore[index]  # on purpose
    with pytest.raises(AttributeError):
        nodes["a"].weight = 3  # type: ignore[misc]  # on purpose
    with pytest.raises(KeyError):
        graph["nope"]


def test_results_are_kept_until_something_changes(diamond: DependencyResolver, monkeypatch: pytest.MonkeyPatch) -> None:
    computed = []
    original = DependencyResolver._kept

    def counted(self, key, compute):
        return original(self, key, lambda: (computed.append(key[0]), compute())[1])

    monkeypatch.setattr(DependencyResolver, "_kept", counted)
    first = diamond.topological_sort()
    first.clear()
    assert diamond.topological_sort() == ["a", "b", "c", "d"]
    diamond.topological_sort(["a", "b"])
    diamond.topological_sort(("b", "a"))
    assert computed.count("order") == 2
    for change in (
        lambda: diamond.add_component("a", "task", 1),
        lambda: diamond.add_components(["e"]),
        lambda: diamond.add_dependency("e", "a"),
        lambda: diamond.add_dependencies([("e", "b")]),
        lambda: diamond.remove_dependency("e", "b"),
        lambda: diamond.remove_component("e"),
    ):
        computed.clear()
        change()
        diamond.topological_sort()
        assert computed.count("order") == 1


def test_no_more_results_are_kept_than_the_limit(diamond: DependencyResolver) -> None:
    diamond.add_components([f"more-{number}" for number in range(100)])
    for number in range(100):
        assert diamond.topological_sort([f"more-{number}"]) == [f"more-{number}"]
    assert len(diamond._results) <= 64


def test_an_object_is_no_list_of_ids(diamond: DependencyResolver) -> None:
    with pytest.raises(InvalidRequest, match="several ids"):
        diamond.topological_sort("abc")


# --- real graphs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(TRACES.glob("*.json")) or [None], ids=lambda path: path and path.stem[:20])
def test_real_workflows_have_the_phases_and_critical_path_of_networkx(path: Path | None) -> None:
    if path is None:
        pytest.skip("the WfFormat traces are not here")
    resolver = DependencyResolver.from_wfformat(path)
    directed = reference(resolver)
    phases = [list(phase.components) for phase in resolver.get_execution_phases()]
    assert list(map(sorted, phases)) == list(map(sorted, nx.topological_generations(directed)))
    weighted = nx.DiGraph()
    weighted.add_weighted_edges_from((a, b, resolver.nodes[b].weight) for a, b in directed.edges)
    weighted.add_weighted_edges_from(("", name, resolver.nodes[name].weight) for name in directed)
    assert resolver.get_parallelization_analysis()["parallel_time_ms"] == pytest.approx(
        1_000 * nx.dag_longest_path_length(weighted)
    )
    path_found = resolver.get_critical_path()
    assert sum(resolver.nodes[name].weight for name in path_found) == pytest.approx(
        nx.dag_longest_path_length(weighted)
    )
    assert DependencyResolver.from_json(resolver.to_json()).export_graph() == resolver.export_graph()
