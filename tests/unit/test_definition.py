from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synergymesh.domain.fault_tolerance.retry import RetryPolicy
from synergymesh.domain.workflow import definition as module
from synergymesh.domain.workflow.definition import (
    Component,
    Dependency,
    Parameter,
    WorkflowDefinition,
    merge_dependencies,
)
from synergymesh.domain.workflow.templates import InputRef, NodeRef
from synergymesh.errors import (
    CircularDependency,
    DuplicateComponent,
    GraphTooLarge,
    InvalidWorkflow,
    UnknownComponent,
)


def component(component_id: str, *dependencies: str, **settings: Any) -> Component:
    return Component(component_id, "work", dependencies=tuple(map(Dependency, dependencies)), **settings)


def define(*components: Component, parameters: tuple[Parameter, ...] = (), output: Any = None) -> WorkflowDefinition:
    return WorkflowDefinition("w", parameters, components, output)


def layered(size: int, width: int) -> WorkflowDefinition:
    """Each component uses the results of the `width` before it."""
    ids = [f"c{i}" for i in range(size)]
    edges = [Dependency(each) for each in ids]
    refs = [NodeRef(each) for each in ids]
    before = [slice(max(0, i - width), i) for i in range(size)]
    return define(
        *[
            Component(ids[i], "work", args=tuple(refs[before[i]]), dependencies=tuple(edges[before[i]]))
            for i in range(size)
        ]
    )


@st.composite
def definitions(draw: st.DrawFn) -> WorkflowDefinition:
    count = draw(st.integers(1, 8))
    ids = draw(
        st.lists(
            st.sampled_from([*"abcdefgh", "ü", "a b", "$x", "fetch-2"]), min_size=count, max_size=count, unique=True
        )
    )
    components = []
    for position, component_id in enumerate(ids):
        before = draw(st.lists(st.sampled_from(ids[:position]), unique=True)) if position else []
        used = draw(st.lists(st.sampled_from(before), max_size=3)) if before else []
        policy = st.builds(
            RetryPolicy,
            max_retries=st.integers(0, 9),
            jitter=st.sampled_from([0.0, 0.5]),
            retry_on=st.just((ValueError, "a.B")),
        )
        components.append(
            Component(
                component_id,
                draw(st.sampled_from(["t", "u"])),
                args=tuple(NodeRef(each) for each in used),
                kwargs=draw(
                    st.dictionaries(st.sampled_from("xy"), st.sampled_from([1, None, "t", [1.5], {"$k": {"a": []}}]))
                ),
                dependencies=tuple(Dependency(each, draw(st.booleans())) for each in before),
                required=draw(st.booleans()),
                weight=draw(st.sampled_from([1.0, 0, 0.25, 1e9])),
                priority=draw(st.integers(-1000, 1000)),
                retry=draw(st.none() | policy),
                timeout=draw(st.none() | st.sampled_from([1, 0.5])),
            )
        )
    return WorkflowDefinition(
        "w",
        (Parameter("x"), Parameter("y", required=False, default=draw(st.sampled_from([None, [1], {"$a": 1}])))),
        tuple(components),
        {"x": InputRef("x"), "y": [InputRef("y", (0,))], "z": NodeRef(ids[-1])},
    )  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(definitions())
def test_a_definition_survives_json_and_keeps_its_hash(definition: WorkflowDefinition) -> None:
    again = WorkflowDefinition.from_json(definition.to_json())
    assert again == definition
    assert again.to_json() == definition.to_json()
    assert again.content_hash == definition.content_hash
    assert hash(again) == hash(definition)


@settings(max_examples=20, deadline=None)
@given(definitions())
def test_edges_from_optional_components_are_optional(definition: WorkflowDefinition) -> None:
    required = {each.component_id: each.required for each in definition.components}
    edges = [edge for each in definition.components for edge in each.dependencies]
    assert not any(edge.required and not required[edge.component_id] for edge in edges)
    positions = definition.positions
    expected = {
        (positions[each.component_id], positions[edge.component_id])
        for each in definition.components
        for edge in each.dependencies
        if not edge.required
    }
    assert definition.graph.optional == expected


def test_the_hash_is_of_the_content_alone() -> None:
    one = define(component("a"), component("b", "a"))
    assert one.content_hash == define(component("a"), component("b", "a")).content_hash
    others = [
        define(component("a"), component("b", "a", weight=2)),
        define(component("a"), component("b", "a", required=False)),
        define(component("a"), component("b")),
        define(component("a"), component("b", "a"), output=NodeRef("b")),
        define(component("a"), component("b", "a", retry=RetryPolicy())),
    ]
    assert len({each.content_hash for each in [one, *others]}) == 6
    assert len(one.content_hash) == 64


def test_a_workflow_without_components_is_refused() -> None:
    with pytest.raises(InvalidWorkflow, match="has no components"):
        define()


def test_two_components_of_one_id_are_refused() -> None:
    with pytest.raises(DuplicateComponent, match="'a'"):
        define(component("a"), component("b"), component("a"))


def test_an_unknown_dependency_is_refused_with_the_nearest_names() -> None:
    with pytest.raises(UnknownComponent, match="no component 'fetsh'") as caught:
        define(component("fetch"), component("b", "fetsh"))
    assert caught.value.nearest == ("fetch",)


def test_an_unknown_reference_is_refused_in_arguments_and_output() -> None:
    with pytest.raises(UnknownComponent):
        define(component("a", args=(NodeRef("zzz"),)))
    with pytest.raises(UnknownComponent):
        define(component("a"), output={"r": [NodeRef("zzz")]})


def test_a_result_used_without_a_dependency_is_refused() -> None:
    with pytest.raises(InvalidWorkflow, match="'b' uses the result of 'a' without depending on it"):
        define(component("a"), component("b", kwargs={"x": [NodeRef("a")]}))


@pytest.mark.parametrize(
    ("edges", "length"),
    [({"a": ["a"]}, 1), ({"a": ["b"], "b": ["a"]}, 2), ({"a": ["c"], "b": ["a"], "c": ["b"], "d": []}, 3)],
)
def test_a_cycle_is_refused_and_its_path_is_shown(edges: dict[str, list[str]], length: int) -> None:
    with pytest.raises(CircularDependency) as caught:
        define(*[component(name, *names) for name, names in edges.items()])
    cycle = caught.value.cycle
    assert cycle[0] == cycle[-1]
    assert len(cycle) == length + 1
    assert len(set(cycle)) == length
    assert " -> ".join(cycle) in str(caught.value)


def test_an_unused_input_is_refused_by_name() -> None:
    with pytest.raises(InvalidWorkflow, match="never uses its input 'order_id'") as caught:
        define(component("a"), parameters=(Parameter("order_id"),))
    assert caught.value.field == "order_id"


def test_an_input_that_is_no_parameter_is_refused_with_the_nearest() -> None:
    with pytest.raises(InvalidWorkflow, match=r"no parameter 'ordr'. Did you mean 'order'\?"):
        define(component("a", args=(InputRef("ordr"),)), parameters=(Parameter("order"),))


def test_an_input_that_only_the_output_uses_is_used() -> None:
    define(component("a"), parameters=(Parameter("x"),), output=InputRef("x"))


def test_two_parameters_of_one_name_are_refused() -> None:
    with pytest.raises(InvalidWorkflow, match="two parameters"):
        define(component("a", args=(InputRef("x"),)), parameters=(Parameter("x"), Parameter("x")))


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"weight": -1}, "weight"),
        ({"weight": float("nan")}, "weight"),
        ({"weight": float("inf")}, "weight"),
        ({"weight": 1e291}, "weight"),
        ({"weight": "1"}, "weight"),
        ({"weight": True}, "weight"),
        ({"priority": 1001}, "priority"),
        ({"priority": -1001}, "priority"),
        ({"priority": 1.5}, "priority"),
        ({"priority": True}, "priority"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": float("inf")}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"retry": 3}, "retry"),
        ({"dependencies": (Dependency("a"), Dependency("a", False))}, "dependencies"),
    ],
)
def test_a_setting_outside_its_range_is_refused_by_name(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidWorkflow, match="'c'") as caught:
        Component("c", "t", **settings)
    assert caught.value.field == field


@pytest.mark.parametrize("bad", ["", "  ", "a\nb", "x" * 201, None, 5])
def test_a_bad_id_is_refused(bad: Any) -> None:
    with pytest.raises(InvalidWorkflow, match="component id"):
        Component(bad, "t")
    Component("x" * 200, "t")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{}",
        b'{"format":1}',
        b'{"format":2,"name":"w"}',
        b'{"format":1,"name":"w","parameters":[],"components":[5]}',
    ],
)
def test_what_is_no_definition_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidWorkflow):
        WorkflowDefinition.from_json(raw)


def test_the_limits_hold_at_their_edge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMPONENTS_MAX", 3)
    monkeypatch.setattr(module, "DEPENDENCIES_MAX", 3)
    define(component("a"), component("b", "a"), component("c", "a", "b"))
    with pytest.raises(GraphTooLarge, match="4 components, the limit is 3"):
        define(*[component(name) for name in "abcd"])
    monkeypatch.setattr(module, "DEPENDENCIES_MAX", 2)
    with pytest.raises(GraphTooLarge, match="3 dependencies, the limit is 2"):
        define(component("a"), component("b", "a"), component("c", "a", "b"))


def test_a_large_definition_takes_seconds_not_minutes() -> None:
    started = time.process_time()
    definition = layered(5_000, 10)
    again = WorkflowDefinition.from_json(definition.to_json())
    assert again.content_hash == definition.content_hash
    assert time.process_time() - started < 5  # a twentieth of the largest: 0.3 s on an idle machine


def test_a_long_chain_is_no_recursion() -> None:
    assert len(layered(20_000, 1).graph) == 20_000


def test_a_dependency_marked_optional_anywhere_is_optional() -> None:
    merged = merge_dependencies([Dependency("a"), Dependency("b"), Dependency("a", False), Dependency("b")])
    assert merged == (Dependency("a", False), Dependency("b"))
