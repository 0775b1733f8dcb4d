from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Any

import msgspec
import pytest
from hypothesis import given as given_examples
from hypothesis import settings
from hypothesis import strategies as st

from synergymesh.domain.workflow.definition import Dependency, Parameter
from synergymesh.domain.workflow.templates import InputRef, NodeRef
from synergymesh.errors import (
    CircularDependency,
    DuplicateComponent,
    InvalidPayload,
    InvalidRequest,
    InvalidWorkflow,
    UnknownComponent,
    UnknownWorkflow,
)
from synergymesh.workflows.nodes import given, optional, ref
from synergymesh.workflows.registry import Registry
from synergymesh.workflows.tasks import task
from synergymesh.workflows.workflow import Workflow, workflow


@dataclass
class Customer:
    name: str
    since: date


@task
def double(x: int) -> int:
    return 2 * x


@task
def add(a: int, b: int = 0) -> int:
    return a + b


@task
async def slow_double(x: int) -> int:
    await asyncio.sleep(0)
    return 2 * x


@task
def broken(*ignored: Any) -> int:
    raise ValueError("broken")


@task
def echo(*args: Any, **kwargs: Any) -> Any:
    return {"args": list(args), **kwargs}


@task
def total(*values: int) -> int:
    return sum(values)


@workflow
def quadruple(x: int, more: int = 1) -> Any:
    return add(double(double(x)), more)


built = Workflow("built").add(double, id="a", args=(1,))


# --- traced ---------------------------------------------------------------------------------------------------------


def test_a_function_becomes_a_definition() -> None:
    definition = quadruple.definition
    assert definition.name == "quadruple"
    assert definition.parameters == (Parameter("x"), Parameter("more", required=False, default=1))
    assert [each.component_id for each in definition.components] == ["double", "double-2", "add"]
    assert definition.output == NodeRef("add")
    assert quadruple.definition is definition
    assert dict(quadruple.tasks) == {"double": double, "add": add}
    assert quadruple.__name__ == "quadruple"


def test_a_workflow_runs_as_a_plain_function() -> None:
    assert quadruple(3) == 13
    assert quadruple(x=3, more=0) == 12


async def test_a_workflow_with_a_coroutine_function_gives_a_coroutine() -> None:
    @workflow(name="mixed")
    def mixed(x: int) -> Any:
        return {"x": x, "all": [double(slow_double(x)), "constant"]}

    assert mixed.name == "mixed"
    assert await mixed(2) == {"x": 2, "all": [8, "constant"]}


async def test_an_error_comes_out_of_a_plain_run_as_it_is() -> None:
    @workflow
    def failing(x: int) -> Any:
        return double(broken(x))

    @workflow
    def failing_slowly(x: int) -> Any:
        return broken(slow_double(x))

    with pytest.raises(ValueError, match=r"^broken$"):
        failing(1)
    with pytest.raises(ValueError, match=r"^broken$"):
        await failing_slowly(1)


@pytest.mark.parametrize("mark", ["component", "edge"])
def test_a_failure_of_an_optional_component_gives_none_and_goes_on(mark: str) -> None:
    @workflow
    def tolerant() -> Any:
        failed = broken(required=False) if mark == "component" else optional(broken())
        return [echo(failed, part=failed["a"][0]), echo(after=failed)]

    assert tolerant() == [{"args": [None], "part": None}, {"args": []}]


def test_a_plain_run_passes_values_through_json_as_the_engine_does() -> None:
    shared = [1]

    @task
    def tuples() -> Any:
        return (1, shared)

    @task
    def change(values: Any) -> Any:
        values[1].append(2)
        return values

    @workflow
    def passing() -> Any:
        values = tuples()
        return [change(values), change.options(id="again")(values)]

    assert passing() == [[1, [1, 2]], [1, [1, 2]]]
    assert shared == [1]

    @workflow
    def unfit() -> Any:
        return task(name="sets")(lambda: {1})()

    with pytest.raises(InvalidPayload, match="result of sets is a set"):
        unfit()


def test_annotated_types_are_made_in_a_plain_run() -> None:
    @task
    def greet(customer: Customer) -> str:
        return f"{customer.name} {customer.since.year}"

    @workflow
    def greeting(customer: Customer) -> Any:
        return greet(customer)

    assert greeting(Customer("A", date(2020, 1, 1))) == "A 2020"
    assert greeting(customer={"name": "B", "since": "2021-01-01"}) == "B 2021"


def test_a_default_that_is_mutable_is_not_shared_between_runs() -> None:
    @workflow
    def defaulted(values: list[int] = [1]) -> Any:  # noqa: B006 - what is tested
        return echo(values)

    first = defaulted.check_input(None)
    first["values"].append(2)
    assert defaulted.check_input({}) == {"values": [1]}


async def coroutine() -> None: ...


def yielding() -> Any:
    yield 1


def many(*args: Any) -> Any: ...


def reserved(after: Any) -> Any: ...


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (coroutine, "leave `async` out"),
        (yielding, "yields"),
        (many, r"cannot have the parameter \*args"),
        (reserved, "`after` is taken"),
        (5, "takes functions"),
        (double, "takes functions"),
        (lambda: None, "has no components"),
        (lambda x: double(1), "never uses its input 'x'"),
        (lambda x: double(f"{x}"), "cannot be made a text"),
        (lambda x={1}: double(x), None),
        (lambda x: 1 if double(x) else 2, "neither true nor false"),
        (lambda: [*double(1)], "cannot be iterated"),
        (lambda: double(1).total, "attribute .total"),
    ],
)
def test_what_is_no_workflow_is_refused_when_it_is_defined(function: Any, message: str | None) -> None:
    with pytest.raises(InvalidPayload if message is None else InvalidWorkflow, match=message):
        workflow(function)


def test_an_input_that_does_not_fit_a_task_is_refused_when_it_is_defined() -> None:
    def wrong(x: str) -> Any:
        return double(x)

    with pytest.raises(InvalidWorkflow, match="argument x is the input 'x', a str, but int is wanted"):
        workflow(wrong)


def test_an_error_in_the_function_leaves_nothing_behind() -> None:
    def wrong() -> Any:
        double(1)
        raise KeyError("mine")

    with pytest.raises(KeyError):
        workflow(wrong)
    assert double(2) == 4


# --- one inside another ---------------------------------------------------------------------------------------------


def test_workflows_compose() -> None:
    @workflow
    def outer(y: int) -> Any:
        first = quadruple(y, after=double.options(id="before")(0))
        return [first, quadruple(first, more=double(5))]

    components = {each.component_id: each for each in outer.definition.components}
    assert list(components) == [
        "before",
        "quadruple.double",
        "quadruple.double-2",
        "quadruple.add",
        "double",
        "quadruple-2.double",
        "quadruple-2.double-2",
        "quadruple-2.add",
    ]
    assert components["quadruple.double"].args == (InputRef("y"),)
    assert components["quadruple.double"].dependencies == (Dependency("before"),)
    assert components["quadruple.add"].args == (NodeRef("quadruple.double-2"), 1)
    assert components["quadruple-2.double"].dependencies == (Dependency("quadruple.add"),)
    assert {each.component_id for each in components["quadruple-2.add"].dependencies} == {
        "quadruple-2.double-2",
        "double",
    }
    assert outer(3) == [13, 62]


def test_parts_of_inputs_reach_into_what_another_workflow_is_given() -> None:
    @workflow
    def inner(order: Any) -> Any:
        return {"sum": add(order["lines"][0], order["tax"]), "order": order}

    @workflow
    def outer(y: Any) -> Any:
        return [
            inner({"lines": [y["n"]], "tax": double(2)})["sum"],
            inner({"lines": [1], "tax": 2})["sum"],
            inner(echo(lines=[5], tax=1)),
            inner(y)["order"],
        ]

    made = {"args": [], "lines": [5], "tax": 1}
    given_order = {"n": 1, "lines": [3], "tax": 4}
    assert outer(given_order) == [5, 3, {"sum": 6, "order": made}, given_order]

    with pytest.raises(InvalidWorkflow, match=r"uses \['lines'\] of its input 'order'"):
        workflow(lambda: inner({"tax": 1}))


def test_arguments_of_an_inner_workflow_are_checked() -> None:
    for call, message in [
        (lambda: quadruple(), "workflow 'quadruple': missing a required argument: 'x'"),
        (lambda: quadruple("3"), r"argument x is '3' \(str\), but int is wanted"),
        (lambda: quadruple(1, y=2), "unexpected keyword argument 'y'"),
        (lambda: quadruple(task(name="t")(text_value)()), "argument x is the result of 't', a str"),
    ]:
        with pytest.raises(InvalidWorkflow, match=message):
            workflow(call)


def text_value() -> str:
    return "t"


# --- input ----------------------------------------------------------------------------------------------------------


@workflow
def ordered(order_id: int, customer: Customer | None = None, tags: list[str] = []) -> Any:  # noqa: B006 - a user may
    return echo(order_id, customer, tags)


def test_input_is_checked_and_completed() -> None:
    assert ordered.check_input({"order_id": 5}) == {"order_id": 5, "customer": None, "tags": []}
    customer = {"name": "A", "since": "2020-01-01"}
    assert ordered.check_input({"order_id": 5, "customer": customer, "tags": ("a",)}) == {
        "order_id": 5,
        "customer": customer,
        "tags": ["a"],
    }
    assert ordered.check_input({"order_id": 1, "customer": Customer("A", date(2020, 1, 1))})["customer"] == customer


@pytest.mark.parametrize(
    ("values", "field", "message"),
    [
        (None, "order_id", "needs the input 'order_id'"),
        ({}, "order_id", "needs the input 'order_id'"),
        ({"order_id": "5"}, "order_id", r"input order_id is '5' \(str\), but int is wanted"),
        ({"order_id": 5, "ordr_id": 1}, "ordr_id", r"no input 'ordr_id'. Did you mean 'order_id'\?"),
        ({"order_id": 5, "zzzz": 1}, "zzzz", "It takes order_id, customer, tags"),
        ({"order_id": 5, "tags": [1]}, "tags", r"input tags\[0\] is 1 \(int\)"),
        ({"order_id": 5, "customer": {"name": "A", "since": "never"}}, "customer", r"input customer\.since is 'never'"),
        ({"order_id": {5}}, "input.order_id", "input.order_id is a set"),
        ([1], "input", "is an object with its inputs by name"),
        ({5: 1}, "5", "no input 5"),
    ],
)
def test_input_that_does_not_fit_is_refused_with_its_field(values: Any, field: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message) as caught:
        ordered.check_input(values)
    assert caught.value.field == field


# --- built ----------------------------------------------------------------------------------------------------------


def test_a_workflow_is_built_without_decorators() -> None:
    def multiplied(values: list[int], factor: int) -> int:
        return sum(values) * factor

    made = (
        Workflow("sums")
        .takes("x", int)
        .takes("factor", int, default=10)
        .add(multiplied, id="total", kwargs={"values": [ref("left"), ref("right"), 1], "factor": given("factor")})
        .add(double, id="left", args=(given("x"),))
        .add(add, id="right", args=(ref("left"),), kwargs={"b": 2}, weight=2.5, priority=3, timeout=4)
        .add(lambda: None, id="last", depends_on=["total", optional("right")], required=False)
        .returns({"total": ref("total")})
    )
    components = {each.component_id: each for each in made.definition.components}
    assert components["total"].dependencies == (Dependency("left"), Dependency("right"))
    assert components["last"].dependencies == (Dependency("total"), Dependency("right", False))
    assert (components["right"].weight, components["right"].priority, components["right"].timeout) == (2.5, 3, 4)
    assert made(x=3) == {"total": 150}
    assert made.check_input({"x": 3}) == {"x": 3, "factor": 10}


def test_adding_makes_a_new_definition() -> None:
    made = Workflow("w").add(double, args=(1,))
    first = made.definition
    assert made.definition is first
    made.add(double, args=(ref("double"),))
    assert [each.component_id for each in made.definition.components] == ["double", "double-2"]
    assert len(first.components) == 1


def test_the_output_of_a_built_workflow_is_that_of_its_only_leaf() -> None:
    assert Workflow("w").add(double, id="a", args=(1,)).add(
        double, id="b", args=(ref("a"),)
    ).definition.output == NodeRef("b")
    assert Workflow("w").add(double, id="a", args=(1,)).add(double, id="b", args=(1,)).definition.output is None


def test_plain_functions_of_one_name_stay_apart() -> None:
    made = Workflow("w").add(lambda: 1, id="a").add(lambda: 2, id="b")
    assert len(made.tasks) == 2
    same = add.function
    assert len(Workflow("w").add(same, args=(1,)).add(same, args=(2,)).tasks) == 1
    with pytest.raises(InvalidWorkflow, match="two different tasks named 'double'"):
        Workflow("w").add(double, args=(1,)).add(task(name="double")(lambda: 1))


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda w: w, InvalidWorkflow, "has no components"),
        (lambda w: w.add(double, id="a", args=(1,)).add(double, id="a", args=(1,)), DuplicateComponent, "'a'"),
        (lambda w: w.add(double, id="a", args=(ref("aa"),)), UnknownComponent, "'aa'.*'a'"),
        (lambda w: w.add(double, id="a", args=(1,), depends_on=["b"]), UnknownComponent, "'b'"),
        (
            lambda w: w.add(double, id="a", args=(1,), depends_on=["b"]).add(double, id="b", args=(ref("a"),)),
            CircularDependency,
            "a -> b -> a|b -> a -> b",
        ),
        (lambda w: w.add(double), InvalidWorkflow, "missing a required argument: 'x'"),
        (lambda w: w.add(double, args=(given("x"),)), InvalidWorkflow, "has no parameter 'x'"),
        (lambda w: w.takes("x").takes("x"), InvalidWorkflow, "has the input 'x' already"),
        (lambda w: w.takes("no name"), InvalidWorkflow, "identifier"),
        (lambda w: w.takes("x", default={1}), InvalidPayload, "default of x is a set"),
        (lambda w: w.add(Customer), InvalidWorkflow, "is a class"),
        (lambda w: w.add(double, args=(1,), depends_on=5), InvalidWorkflow, "depends_on= takes a node or a list"),
        (lambda w: quadruple.add(double, args=(1,)), InvalidWorkflow, "made from a function"),
    ],
)
def test_a_wrongly_built_workflow_is_refused(
    build: Callable[[Workflow], Workflow], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        _ = build(Workflow("w")).definition


@settings(max_examples=30, deadline=None)
@given_examples(st.data())
def test_random_graphs_compute_what_the_obvious_interpreter_does(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 8))
    edges = [data.draw(st.lists(st.integers(0, i - 1), max_size=4)) if i else [] for i in range(count)]
    order = data.draw(st.permutations(range(count)))
    made = Workflow("random")
    for i in order:
        made.add(total, id=f"n{i}", args=(i, *[ref(f"n{j}") for j in edges[i]]))
    made.returns([ref(f"n{i}") for i in range(count)])
    expected: list[int] = []
    for i in range(count):
        expected.append(i + sum(expected[j] for j in edges[i]))
    assert made() == expected


# --- where it is found again ----------------------------------------------------------------------------------------


def test_a_workflow_of_a_module_has_a_source_and_a_local_one_has_none() -> None:
    assert quadruple.source == f"{__name__}:quadruple"
    assert built.source == f"{__name__}:built"
    local = Workflow("local").add(double, args=(1,))
    assert local.source is None
    assert workflow(lambda: double(1)).source is None
    assert Workflow("given", source="m:a").source == "m:a"


@pytest.mark.parametrize(
    ("names", "source"),
    [
        ({"__name__": "__main__", "__file__": "/x/y z.py"}, "file:/x/y z.py:found"),
        ({"__name__": "__main__"}, None),
        ({"__name__": "not.imported"}, None),
        ({"__name__": "any", "__synergymesh_file__": "/x/f.py"}, "file:/x/f.py:found"),
    ],
)
def test_the_source_says_how_the_module_was_loaded(names: dict[str, Any], source: str | None) -> None:
    code = "from synergymesh.workflows.workflow import Workflow\nfound = Workflow('w')"
    exec(code, names)  # noqa: S102 - a module of any name
    assert names["found"].source == source


def test_tracing_again_gives_the_same_content() -> None:
    assert len({workflow(lambda: double(double(1))).definition.content_hash for _ in range(20)}) == 1


# --- registries -----------------------------------------------------------------------------------------------------


def test_a_registry_finds_workflows_by_name() -> None:
    registry = Registry([quadruple])
    registry.add(built)
    assert registry.get("quadruple") is quadruple
    assert list(registry) == [quadruple, built]
    assert ("built" in registry, "other" in registry, len(registry)) == (True, False, 2)
    with pytest.raises(UnknownWorkflow, match=r"no workflow 'other'. Known: built, quadruple"):
        registry.get("other")


def test_a_registry_refuses_another_workflow_of_the_same_name() -> None:
    registry = Registry([quadruple, quadruple])
    same = workflow(name="quadruple")(lambda x, more=1: add(double(double(x)), more))
    assert registry.add(same) is quadruple
    with pytest.raises(InvalidWorkflow, match="two different workflows are named 'quadruple'"):
        registry.add(Workflow("quadruple").add(double, args=(1,)))
    with pytest.raises(InvalidWorkflow, match="takes workflows"):
        registry.add(double)  # type: ignore[arg-type]  # on purpose
    assert len(registry) == 1


def test_two_registries_know_nothing_of_each_other() -> None:
    Registry([quadruple])
    assert len(Registry()) == 0


def test_definitions_are_json() -> None:
    document = msgspec.json.decode(quadruple.definition.to_json())
    assert document["components"][0] == {"id": "double", "task": "double", "args": [{"$input": "x"}]}
