"""The growing graph: never a cycle, never one refused that is none, whatever the order of changes."""

from __future__ import annotations

from itertools import pairwise

import networkx as nx
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from synergymesh.domain.graphs.graph_order import GrowingGraph
from synergymesh.errors import CircularDependency, GraphTooLarge, UnknownComponent

names = st.sampled_from("abcdefghij")


class Growing(RuleBasedStateMachine):
    """Change a graph and its reference in the same way."""

    def __init__(self) -> None:
        super().__init__()
        self.graph = GrowingGraph()
        self.reference = nx.DiGraph()  # edges from dependent to dependency

    @rule(name=names)
    def add(self, name: str) -> None:
        self.graph.add(name, "task", 0, 1.0)
        self.reference.add_node(name)

    @rule(dependent=names, dependency=names, required=st.booleans())
    def connect(self, dependent: str, dependency: str, required: bool) -> None:
        if not {dependent, dependency} <= set(self.reference):
            return
        wanted = self.reference.copy()
        wanted.add_edge(dependent, dependency)
        slots = self.graph.slot(dependent), self.graph.slot(dependency)
        cycle = self.graph.cycle_closed_by(*slots)
        if nx.is_directed_acyclic_graph(wanted):
            assert cycle is None
            assert self.graph.connect(*slots, required)
            self.reference = wanted
        else:
            assert cycle is not None
            steps = [self.graph.component_ids[slot] for slot in cycle]
            back = nx.shortest_path(self.reference, dependency, dependent)
            assert len(steps) == len(back) + 1  # the shortest cycle
            assert steps[0] == steps[-1] == dependent
            assert all(wanted.has_edge(*step) for step in pairwise(steps))
            assert not self.graph.connect(*slots, required)

    @rule(pairs=st.lists(st.tuples(names, names), max_size=5))
    def connect_all(self, pairs: list[tuple[str, str]]) -> None:
        pairs = [pair for pair in pairs if set(pair) <= set(self.reference)]
        wanted = self.reference.copy()
        wanted.add_edges_from(pairs)
        triples = [(*pair, True) for pair in pairs]
        if nx.is_directed_acyclic_graph(wanted):
            assert self.graph.connect_all(triples, edges_max=1_000) == len(wanted.edges) - len(self.reference.edges)
            self.reference = wanted
        else:
            with pytest.raises(CircularDependency):
                self.graph.connect_all(triples, edges_max=1_000)

    @precondition(lambda self: self.reference.edges)
    @rule(data=st.data())
    def disconnect(self, data: st.DataObject) -> None:
        edge = data.draw(st.sampled_from(sorted(self.reference.edges)))
        assert self.graph.disconnect(self.graph.slot(edge[0]), self.graph.slot(edge[1]))
        self.reference.remove_edge(*edge)

    @rule(name=names)
    def remove(self, name: str) -> None:
        if name in self.reference:
            self.graph.remove(self.graph.slot(name))
            self.reference.remove_node(name)

    @rule()
    def freeze(self) -> None:
        frozen = self.graph.freeze()
        assert frozen is self.graph.freeze()
        assert frozen.component_ids == tuple(self.graph.slot_of)
        ids = frozen.component_ids
        assert {(ids[at], ids[to]) for at, own in enumerate(frozen.dependencies) for to in own} == set(
            self.reference.edges
        )

    @invariant()
    def same_graph(self) -> None:
        assert set(self.graph.slot_of) == set(self.reference)
        assert self.graph.edge_count == len(self.reference.edges)
        ids = self.graph.component_ids
        assert {(ids[at], ids[to]) for at, own in enumerate(self.graph.dependencies) for to in own} == set(
            self.reference.edges
        )
        assert {(ids[at], ids[to]) for to, own in enumerate(self.graph.dependents) for at in own} == set(
            self.reference.edges
        )


Growing.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
test_any_order_of_changes_gives_the_graph_of_networkx = Growing.TestCase


def grown(count: int) -> GrowingGraph:
    graph = GrowingGraph()
    graph.extend([str(number) for number in range(count)], ["task"] * count, [0] * count, [1.0] * count)
    return graph


@pytest.mark.parametrize("count", [4, 1_000], ids=["all together", "one by one"])
@pytest.mark.parametrize(
    ("last", "error"),
    [
        (("0", "3", True), CircularDependency),
        (("0", "nine", True), UnknownComponent),
        (("3", "0", True), GraphTooLarge),
    ],
)
def test_many_dependencies_are_added_all_or_none(
    count: int, last: tuple[str, str, bool], error: type[Exception]
) -> None:
    graph = grown(count)
    graph.connect_all([("1", "0", False)], edges_max=10)
    bad = [("1", "0", True), ("2", "1", True), ("3", "2", True), last]
    with pytest.raises(error):
        graph.connect_all(bad, edges_max=3 if error is GraphTooLarge else 10)
    assert graph.dependencies[:4] == [{}, {0: False}, {}, {}]
    assert [set(own) for own in graph.dependents[:4]] == [{1}, set(), set(), set()]
    assert graph.edge_count == 1
    assert graph.freeze().optional == {(1, 0)}


def test_an_unknown_component_is_named_with_the_nearest_ids() -> None:
    graph = GrowingGraph()
    for name in ("extract", "transform", "load"):
        graph.add(name, "task", 0, 1.0)
    with pytest.raises(UnknownComponent, match=r"'Transfrm'.*Did you mean 'transform'") as caught:
        graph.slot("Transfrm")
    assert caught.value.nearest == ("transform",)
    with pytest.raises(UnknownComponent) as caught:
        graph.slot("x" * 1_000_000)
    assert len(str(caught.value)) < 200


def test_a_cycle_is_found_where_the_backward_search_is_given_up() -> None:
    graph = grown(400)
    for number in range(399):
        assert graph.connect(number, number + 1, True)  # this way round all but the first stay on one level
    assert not graph.connect(300, 1, True)  # 1 comes after 300, far more than the root of 399 steps away
    assert graph.connect(0, 300, True)
    assert graph.connect(1, 300, True)
    assert not graph.connect(399, 0, True)
    assert len(graph.freeze().phases()) == 400


def test_a_lift_goes_on_from_component_to_component() -> None:
    graph = grown(400)
    for number in range(0, 398, 2):
        assert graph.connect(number, number + 2, True)
    for number in range(1, 399, 2):
        assert graph.connect(number, number + 2, True)
    assert graph.connect(1, 0, True)
    assert not graph.connect(398, 1, True)
    assert graph.connect(398, 399, True)
    assert not graph.connect(399, 0, True)
    assert not graph.connect(399, 1, True)
    assert len(graph.freeze().phases()) == 202  # 1, the even ones, 399
