from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synergymesh.domain.workflow.templates import (
    InputRef,
    NodeRef,
    build,
    compile_arguments,
    compile_template,
    follow,
    from_json,
    has_references,
    inputs,
    references,
    to_json,
    transform,
)
from synergymesh.errors import InvalidPayload, InvalidWorkflow

IDS = ["a", "b", "c-2", "$node", "ü"]
POSITIONS = {name: position for position, name in enumerate(IDS)}
paths = st.lists(st.sampled_from(["k", "$path", 0]), max_size=2).map(tuple)
refs = st.builds(NodeRef, st.sampled_from(IDS), paths) | st.builds(InputRef, st.sampled_from(["x", "$y"]), paths)
keys = st.sampled_from(["a", "$node", "$input", "$const", "$path", "", "$"])
constants = st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["", "$node", "t"]) | st.floats(-1, 1)
templates = st.recursive(
    constants | refs,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)


def reference_fill(template: Any, given_inputs: Any, results: list[Any]) -> Any:
    """Fill a template the obvious way."""
    match template:
        case NodeRef(component_id, path):
            return follow(results[POSITIONS[component_id]], path, "")
        case InputRef(name, path):
            return follow(given_inputs[name], path, "")
        case list():
            return [reference_fill(item, given_inputs, results) for item in template]
        case dict():
            return {key: reference_fill(item, given_inputs, results) for key, item in template.items()}
    return template


def no_results(_: int) -> Any:
    raise AssertionError("nothing is asked for")


@settings(max_examples=70, deadline=None)
@given(templates)
def test_a_template_survives_json(template: Any) -> None:
    raw = msgspec.json.encode(to_json(template))
    assert from_json(msgspec.json.decode(raw)) == template


@settings(max_examples=70, deadline=None)
@given(st.lists(templates, max_size=4), st.dictionaries(keys, templates, max_size=3))
def test_compiled_templates_fill_as_the_obvious_interpreter_does(args: list[Any], kwargs: dict[str, Any]) -> None:
    # every path of the strategy leads somewhere in these, or into None
    leaf: Any = {"k": [None], "$path": None}
    part: Any = {"k": [leaf], "$path": {"k": 1, "$path": 2}}
    results = [None, None, part, None, None]
    given_inputs = {"x": None, "$y": part}

    def outcome(fill: Any) -> Any:
        try:
            return fill()
        except LookupError:
            return "LookupError"

    template = [*args, kwargs]
    expected = outcome(lambda: reference_fill(template, given_inputs, results))
    assert outcome(lambda: compile_template(template, POSITIONS)(given_inputs, results.__getitem__)) == expected
    made = outcome(lambda: compile_arguments(args, kwargs, POSITIONS)(given_inputs, results.__getitem__))
    assert made == ("LookupError" if expected == "LookupError" else (tuple(expected[:-1]), expected[-1]))


@settings(max_examples=80, deadline=None)
@given(templates)
def test_what_a_template_mentions_is_what_filling_it_asks_for(template: Any) -> None:
    asked: list[int] = []

    class Inputs(dict[str, Any]):
        def __missing__(self, name: str) -> Any:
            named.append(name)

    named: list[str] = []
    compile_template(template, POSITIONS)(Inputs(), asked.append)
    assert [POSITIONS[each] for each in references(template)] == list(dict.fromkeys(asked))
    assert inputs(template) == list(dict.fromkeys(named))
    assert has_references(template) == bool(asked or named)


@pytest.mark.parametrize("template", [[1, [2]], {"a": {}}, [NodeRef("a"), [1]], {"k": InputRef("x"), "l": {"m": []}}])
def test_constants_are_copied_for_every_call(template: Any) -> None:
    fill = compile_template(template, POSITIONS)

    def lists_in(value: Any) -> set[int]:
        if isinstance(value, (list, dict)):
            items = value.values() if isinstance(value, dict) else value
            return {id(value)}.union(*map(lists_in, items))
        return set()

    first, second = fill({"x": 1}, lambda _: 1), fill({"x": 1}, lambda _: 1)
    assert first == second
    assert not lists_in(first) & lists_in(second)
    assert not lists_in(first) & lists_in(template)


@pytest.mark.parametrize("count", range(5))
def test_whole_results_are_given_as_positional_arguments(count: int) -> None:
    args = [NodeRef(name) for name in IDS[:count]]
    fill = compile_arguments(args, {}, POSITIONS)
    assert fill({}, lambda position: position * 10) == (tuple(range(0, count * 10, 10)), {})


def test_a_call_without_arguments_gets_new_keywords_each_time() -> None:
    fill = compile_arguments((), {}, {})
    (_, first), (_, second) = fill({}, no_results), fill({}, no_results)
    first["a"] = 1
    assert second == {}


def test_a_path_into_nothing_gives_nothing_and_a_wrong_one_says_what_is_there() -> None:
    assert follow(None, ("a", 0), "it") is None
    assert follow({"a": [1, {"b": 2}]}, ("a", -1, "b"), "it") == 2
    with pytest.raises(LookupError, match=r"the result of 'a' has no \['total'\].*keys sum, tax"):
        compile_template(NodeRef("a", ("total",)), POSITIONS)({}, lambda _: {"sum": 1, "tax": 2})
    for value, step in (([1], 1), ([1], "a"), ({"0": 1}, 0), ("text", 0), (5, "a")):
        with pytest.raises(LookupError, match="it has no"):
            follow(value, (step,), "it")


def test_building_copies_and_makes_plain_json() -> None:
    inner = [1]
    template = build({"a": (inner, NodeRef("n"))}, field="f")
    assert template == {"a": [[1], NodeRef("n")]}
    inner.append(2)
    assert template == {"a": [[1], NodeRef("n")]}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([{1, 2}], r"f\[0\] is a set"),
        ({"a": [float("nan")]}, r"f\.a\[0\] is nan"),
        ({1: 2}, "f has the key 1"),
        ({"a": "\0"}, r"f\.a has a NUL"),
    ],
)
def test_building_refuses_what_is_not_json(value: Any, message: str) -> None:
    with pytest.raises(InvalidPayload, match=message):
        build(value, field="f")


def test_building_refuses_more_than_a_payload_may_have() -> None:
    build(["x" * 600_000, NodeRef("a")], field="f")
    with pytest.raises(InvalidPayload, match=r"f has 1,200,\d+ bytes of JSON, the limit is 1,000,000"):
        build(["x" * 600_000, {"k": "x" * 600_000}], field="f")


def test_building_refuses_circles_and_deep_nesting_without_recursion_errors() -> None:
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(InvalidPayload, match="nested deeper than 100"):
        build(circle, field="f")


@pytest.mark.parametrize(
    "value",
    [{"$node": 1}, {"$node": "a", "x": 1}, {"$what": 1}, {"$const": 1}, {"$node": "a", "$path": "x"}, {"$path": [1]},
     {"$node": "a", "$path": [1.5]}, {"$node": "a", "$path": [True]}],
)  # fmt: skip
def test_an_object_that_is_nearly_a_reference_is_refused(value: Any) -> None:
    with pytest.raises(InvalidWorkflow, match="no reference"):
        from_json(value)


def test_transforming_replaces_references_only() -> None:
    template = {"a": [NodeRef("n"), 1], "b": InputRef("i")}
    assert transform(template, lambda reference: type(reference).__name__) == {"a": ["NodeRef", 1], "b": "InputRef"}
