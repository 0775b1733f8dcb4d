from __future__ import annotations

import copy
import functools
import math
import operator
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, TypedDict

import msgspec
import pydantic
import pytest

from synergymesh.domain.fault_tolerance.retry import RetryPolicy
from synergymesh.domain.workflow.definition import Component, Dependency
from synergymesh.domain.workflow.task_settings import DEFAULTS, TaskSettings, settings_from_json, settings_to_json
from synergymesh.domain.workflow.templates import InputRef, NodeRef
from synergymesh.errors import DuplicateComponent, InvalidPayload, InvalidRequest, InvalidWorkflow
from synergymesh.workflows.nodes import Node, given, optional, ref
from synergymesh.workflows.tasks import Task, task
from synergymesh.workflows.tracing import Trace
from synergymesh.workflows.workflow import Workflow, workflow


class Line(pydantic.BaseModel):
    count: int
    when: datetime | None = None


@dataclass
class Order:
    lines: list[Line]


class Options(TypedDict):
    fast: bool


class Point(msgspec.Struct):
    x: int


@task
def number() -> int:
    return 1


@task
def text() -> str:
    return "t"


@task
def load(key: int) -> dict:  # type: ignore[type-arg]  # as users write it
    """Load something."""
    return {"key": key}


@task
def anything(*args, **kwargs):  # type: ignore[no-untyped-def]  # as users write it
    return [list(args), kwargs]


def traced(body: Callable[[], Any]) -> dict[str, Component]:
    """Trace a body without inputs; give its components."""
    trace = Trace("w")
    with trace.active():
        body()
    return {component.component_id: component for component in trace.components}


def refused(body: Callable[[], Any]) -> str:
    with pytest.raises(InvalidWorkflow) as caught:
        traced(body)
    return str(caught.value)


# --- tasks ----------------------------------------------------------------------------------------------------------


def test_a_task_is_the_function_outside_of_a_workflow() -> None:
    assert load(5) == {"key": 5}
    assert load.options(timeout=3)(key=6) == {"key": 6}
    assert load.__name__ == "load"
    assert load.__doc__ == "Load something."
    assert (load.name, load.is_async, load.needs_conversion) == ("load", False, False)


async def test_a_coroutine_function_gives_its_coroutine() -> None:
    @task(name="other", retry=RetryPolicy(max_retries=1), timeout=2, weight=3, priority=4)
    async def work() -> int:
        return 7

    assert work.is_async
    assert await work() == 7
    assert work.name == "other"
    assert [work.settings[key] for key in ("timeout", "weight", "priority")] == [2, 3, 4]


def test_callable_objects_and_partials_are_tasks_with_a_name() -> None:
    class Adder:
        async def __call__(self, x: int) -> int:
            return x

    assert task(name="add")(Adder()).is_async
    partial = task(name="p")(functools.partial(divmod, 7))
    assert partial(2) == (3, 1)
    with pytest.raises(InvalidWorkflow, match="has no name"):
        task(functools.partial(divmod, 7))
    assert task(load).function is load.function


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (Line, "is a class"),
        (5, "takes functions, not 5"),
        (generator, "yields"),
        (async_generator, "yields"),
        (dict.fromkeys, None),
        (max, "signature"),
    ],
)
def test_what_cannot_be_a_task_is_refused(function: Any, message: str | None) -> None:
    if message is None:
        assert isinstance(task(function), Task)
        return
    with pytest.raises(InvalidWorkflow, match=message):
        task(function)


@pytest.mark.parametrize("name", ["after", "required"])
def test_a_parameter_with_a_reserved_name_is_refused_with_the_remedy(name: str) -> None:
    names: dict[str, Any] = {}
    exec(f"def work({name}): pass", names)  # noqa: S102 - a name that is given
    with pytest.raises(InvalidWorkflow, match=f"'{name}'.*Rename the parameter"):
        task(names["work"])


@pytest.mark.parametrize(
    "settings",
    [
        {"weight": -1},
        {"priority": 2000},
        {"timeout": 0},
        {"retry": 3},
        {"name": ""},
        {"name": 7},
        *({"breaker": name} for name in ("", " ", 7, "x" * 201, "a\nb")),
    ],
)
def test_a_bad_setting_is_refused_at_the_task(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidWorkflow):
        task(**settings)(lambda: None)


# --- calls inside a workflow ----------------------------------------------------------------------------------------


def test_calls_become_components_and_nodes_become_edges() -> None:
    def body() -> None:
        a = load(1)
        b = load(key=a["n"][0])
        anything([a, {"k": b}], 3, x=b, after=[load.options(id="last")(5)])

    components = traced(body)
    assert list(components) == ["load", "load-2", "last", "anything"]
    assert components["load-2"].kwargs == {"key": NodeRef("load", ("n", 0))}
    assert components["load-2"].dependencies == (Dependency("load"),)
    call = components["anything"]
    assert call.args == ([NodeRef("load"), {"k": NodeRef("load-2")}], 3)
    assert call.kwargs == {"x": NodeRef("load-2")}
    assert [each.component_id for each in call.dependencies] == ["load", "load-2", "last"]


def test_options_and_reserved_keywords_change_one_call() -> None:
    policy = RetryPolicy(max_retries=9)
    slow = task(name="slow", timeout=30.0, weight=2.0, retry=policy)(lambda: 1)

    def body() -> None:
        a = slow(required=False)
        slow.options(id="b", after=a, weight=0.5, priority=7, retry=None, timeout=None)()
        slow(after=optional(a))

    components = traced(body)
    first, second, third = components.values()
    assert (first.required, first.timeout, first.weight, first.retry) == (False, 30.0, 2.0, policy)
    assert (second.component_id, second.weight, second.priority) == ("b", 0.5, 7)
    assert (second.retry, second.timeout, second.required) == (None, None, True)
    assert third.dependencies == (Dependency("slow", False),)


def test_an_optional_node_as_an_argument_makes_an_optional_edge() -> None:
    def body() -> None:
        a = load(1)
        anything(optional(a)["x"], [a])

    assert traced(body)["anything"].dependencies == (Dependency("load", False),)


def test_default_ids_avoid_those_that_are_taken() -> None:
    def body() -> None:
        load.options(id="load-2")(0)
        for key in range(3):
            load(key)

    assert list(traced(body)) == ["load-2", "load", "load-3", "load-4"]


def test_the_same_id_twice_is_refused() -> None:
    with pytest.raises(DuplicateComponent, match="'x'"):
        traced(lambda: [load.options(id="x")(key) for key in range(2)])


def test_two_tasks_of_one_name_in_one_workflow_are_refused() -> None:
    other = task(name="load")(lambda: 1)
    assert "two different tasks named 'load'" in refused(lambda: (load(1), other()))


def test_constants_are_json_and_not_shared() -> None:
    kept = {"a": [1]}

    def body() -> None:
        anything(kept, (1, 2), Line(count=1), datetime(2024, 1, 2))
        kept["a"].append(2)

    assert traced(body)["anything"].args[:2] == ({"a": [1]}, [1, 2])
    assert traced(body)["anything"].args[2:] == ({"count": 1, "when": None}, "2024-01-02T00:00:00")
    with pytest.raises(InvalidPayload, match=r"anything\(x\)\[0\] is a set"):
        traced(lambda: anything(x=[{1}]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: load(), r"task 'load': missing a required argument: 'key'. It takes \(key\)"),
        (lambda: load(1, 2), "task 'load': too many positional arguments"),
        (lambda: load(kye=1), "missing a required argument: 'key'"),
        (lambda: load(1, nothing=1), "unexpected keyword argument 'nothing'"),
        (lambda: load(1, key=1), "multiple values for argument 'key'"),
        (lambda: load("1"), r"task 'load': argument key is '1' \(str\), but int is wanted"),
        (lambda: load(1.5), "argument key is 1.5"),
        (lambda: load(None), "argument key is None"),
        (lambda: load([number()]), "argument key is a list, but int is wanted"),
        (lambda: load(text()), "argument key is the result of 'text', a str, but int is wanted"),
        (lambda: load(1, after=5), "after= takes a node"),
        (lambda: load(1, after=[5]), "after= takes a node"),
        (lambda: load(1, required=0), "required= of 'load' takes True or False"),
        (lambda: load.options(id="x")(1, required=False), r"give required to options\(\)"),
        (lambda: load(ref("other")), "belongs to another workflow"),
        (lambda: load.options(id="")(1), "component id"),
        (lambda: load.options(weight=-1)(1), "weight"),
    ],
)
def test_a_wrong_call_is_refused_when_the_workflow_is_defined(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(InvalidWorkflow, match=message):
        traced(call)


def test_results_fit_by_their_annotations() -> None:
    @task
    def wide(a: float, b: Any, c: int | None, d) -> None: ...  # type: ignore[no-untyped-def]  # what is tested

    traced(lambda: wide(number(), text(), text(), text()))
    traced(lambda: wide(1, {}, None, []))
    assert "argument c" in refused(lambda: wide(1, 1, "x", 1))
    traced(lambda: wide(load(1)["a"], 1, 1, 1))  # nothing is known of a part


def test_variadic_functions_check_each_argument() -> None:
    @task
    def total(first: str, *rest: int, **named: float) -> None: ...

    traced(lambda: total("a", 1, 2, x=1.5, y=number()))
    assert r"argument *rest[1] is 'b'" in refused(lambda: total("a", 1, "b"))
    assert "argument y" in refused(lambda: total("a", 1, y="b"))


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        (dict[str, int], {"a": 1}, {"a": "1"}),
        (list[float], [1, 2.5], ["1"]),
        (Literal["a", "b"], "a", "c"),
        (int | str, "x", 1.5),
        (Sequence[int], [1], 5),
        (Mapping[str, Any], {"a": []}, []),
        (Order, {"lines": [{"count": 1}]}, {"lines": [{}]}),
        (Line, Line(count=1), {"count": "many"}),
        (datetime, "2024-05-06T07:08:09Z", "yesterday"),
        (Decimal, "1.5", "x"),
        (tuple[int, str], (1, "a"), [1]),
        (Annotated[int, pydantic.Field(gt=0)], 1, 0),
        (Options, {"fast": True}, {"fast": "perhaps"}),
        (Point, Point(1), {"x": "a"}),
        (list[Point], [{"x": 1}], [{"y": 1}]),
        (None, None, 1),
    ],
)
def test_constants_are_checked_against_annotations(annotation: Any, good: Any, bad: Any) -> None:
    def work(value: Any) -> None: ...

    work.__annotations__["value"] = annotation
    checked = task(work)
    traced(lambda: checked(good))
    assert "task 'work': argument value" in refused(lambda: checked(bad))


# --- nodes ----------------------------------------------------------------------------------------------------------

USES: list[Callable[[Any], Any]] = [
    bool,
    len,
    iter,
    list,
    int,
    float,
    str,
    lambda node: f"{node}",
    lambda node: "%s" % node,  # noqa: UP031 - what is tested
    lambda node: node + 1,
    lambda node: 1 + node,
    lambda node: node - 1,
    lambda node: 2 * node,
    lambda node: -node,
    lambda node: node / 2,
    lambda node: node**2,
    lambda node: node & 1,
    lambda node: divmod(node, 2),
    round,
    math.floor,
    lambda node: node == 1,
    lambda node: node != 1,
    lambda node: node < 1,
    lambda node: node >= node,
    lambda node: 1 in node,
    lambda node: node.total,
    lambda node: node(),
    lambda node: node[1:2],
    lambda node: node[True],
    lambda node: node[None],
    lambda node: operator.setitem(node, 0, 1),
    lambda node: node.__await__(),
    operator.index,
    reversed,
    abs,
    next,
    lambda node: node.__enter__(),
    lambda node: [*node],
    lambda node: {**node} if node.keys() else None,
    bytes,
    open,
]


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("node", [ref("price"), given("order"), ref("price")["a"]], ids=repr)
def test_a_node_refuses_every_use_of_its_value(use: Callable[[Any], Any], node: Node) -> None:
    with pytest.raises(InvalidWorkflow, match=r"'price'|'order'"):
        use(node)


def test_the_refusal_says_what_to_do() -> None:
    with pytest.raises(InvalidWorkflow, match=r"the result of 'price' does not exist yet.*Move this into a task"):
        _ = ref("price") + 1
    with pytest.raises(InvalidWorkflow, match=r"write \['total'\]"):
        _ = ref("price").total


def test_nodes_can_be_shown_kept_in_sets_and_copied_by_tools() -> None:
    a, b = ref("a"), ref("b")
    assert repr(a["k"][0]) == "<the result of 'a'['k'][0]>"
    assert {a, b, a} == {a, b}
    assert a in [b, a]
    assert not hasattr(a, "__wrapped__")
    assert repr(copy.copy(a)) == repr(a)


def test_optional_takes_nodes_ids_and_dependencies_only() -> None:
    assert optional("a") == Dependency("a", False) == optional(Dependency("a"))
    with pytest.raises(InvalidWorkflow, match="takes a node or a component id"):
        optional(5)  # type: ignore[call-overload]  # on purpose


def test_a_node_of_another_workflow_is_refused() -> None:
    kept: list[Node] = []

    @workflow
    def first() -> None:
        kept.append(number())

    for use in (lambda: anything(kept[0]), lambda: anything([{"a": kept[0]}]), lambda: load(1, after=kept[0])):
        assert "belongs to another workflow" in refused(use)


# --- at run time ----------------------------------------------------------------------------------------------------


def test_plain_annotations_need_no_conversion() -> None:
    def work(  # type: ignore[no-untyped-def]  # what is tested
        a,
        b: int,
        c: dict[str, list[int | None]],
        d: Sequence[str],
        e: Literal["x"],
        f: Any,
        g: object,
        h: Mapping[str, Any] | None = None,
        *args: float,
        **kwargs: bool,
    ) -> Order: ...

    plain = task(work)
    assert not plain.needs_conversion
    assert plain.prepare((1, "not checked"), {"c": 3}) == ((1, "not checked"), {"c": 3})


def test_values_are_converted_to_their_annotated_types() -> None:
    def work(
        a: int,
        order: Order,
        /,
        when: datetime,
        *more: Line,
        price: Decimal,
        point: Point | None = None,
        **rest: tuple[int, ...],
    ) -> None: ...

    typed = task(work)
    assert typed.needs_conversion
    line = {"count": 2, "when": "2024-01-02T03:04:05"}
    args, kwargs = typed.prepare(
        (1, {"lines": [line]}, "2024-01-02T00:00:00", line),
        {"price": "1.10", "point": {"x": 1}, "z": [1], "order": [2]},
    )
    made = Line(count=2, when=datetime(2024, 1, 2, 3, 4, 5))
    assert args == (1, Order([made]), datetime(2024, 1, 2), made)
    assert kwargs == {"price": Decimal("1.10"), "point": Point(1), "z": (1,), "order": (2,)}


def test_a_value_that_cannot_be_converted_names_its_parameter_and_place() -> None:
    typed = task(name="work")(lambda order: None)
    typed.function.__annotations__["order"] = Order
    with pytest.raises(
        InvalidRequest, match=r"task 'work': argument order\.lines\[0\]\.count is 'x' \(str\)"
    ) as caught:
        typed.prepare(({"lines": [{"count": "x"}]},), {})
    assert caught.value.field == "order"


def test_the_missing_result_of_an_optional_component_is_passed_as_it_is() -> None:
    typed = task(name="work")(lambda order: None)
    typed.function.__annotations__["order"] = Order
    assert typed.prepare((None,), {}) == ((None,), {})


def test_an_annotation_that_cannot_be_resolved_means_anything() -> None:
    def work(a: Nowhere, b: Line) -> None: ...  # type: ignore[name-defined] # noqa: F821 - what is tested

    typed = task(work)
    traced(lambda: typed({"x": 1}, {"count": 1}))
    assert typed.prepare((5, {"count": 1}), {}) == ((5, Line(count=1)), {})


def test_an_annotation_that_is_defined_later_is_found_at_run_time() -> None:
    names: dict[str, Any] = {"__name__": "later"}
    exec("from __future__ import annotations\ndef work(a: Later): pass", names)  # noqa: S102 - what it names comes later
    typed = task(names["work"])
    traced(lambda: typed({"count": 1}))
    names["Later"] = Line
    assert typed.prepare(({"count": 1},), {}) == ((Line(count=1),), {})


def test_a_type_that_json_cannot_make_is_given_what_there_is() -> None:
    class Connection: ...

    def work(connection: Connection, count: int = 1) -> None: ...

    work.__annotations__["connection"] = Connection
    assert task(work).prepare(({"a": 1},), {}) == (({"a": 1},), {})


def test_inputs_in_a_builder_are_references() -> None:
    built = Workflow("w").takes("x", int).add(load, args=(given("x"),))
    assert built.definition.components[0].args == (InputRef("x"),)


def test_a_setting_that_there_is_not_is_refused_with_the_nearest_one() -> None:
    for give in (
        lambda: task(name="x", timeot=3)(lambda: 1),  # type: ignore[call-overload]  # on purpose
        lambda: load.options(timeot=3),  # type: ignore[call-arg]  # on purpose
        lambda: Workflow("w").add(load, timeot=3),  # type: ignore[call-arg]  # on purpose
    ):
        with pytest.raises(InvalidWorkflow, match=r"'timeot'.*'timeout'") as caught:
            give()
        assert caught.value.field == "timeot"


def test_the_settings_of_a_component_come_back_from_json_and_defaults_are_left_out() -> None:
    policy = RetryPolicy(max_retries=2, retry_on=(OSError,))
    said: TaskSettings = {"weight": 2.0, "priority": 3, "retry": policy, "timeout": 4, "memory_mb": 5, "cpus": 0.5}
    said |= {"total_timeout": 5, "queue_timeout": 6, "heartbeat_timeout": 7, "breaker": "api"}
    assert said.keys() == DEFAULTS.keys()
    document = settings_to_json(said)
    assert settings_from_json(msgspec.json.decode(msgspec.json.encode(document))) == said
    assert settings_to_json(DEFAULTS) == {}
