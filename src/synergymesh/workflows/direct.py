"""Direct runs: a workflow as a plain function call, right here, without an engine; for unit tests."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from functools import partial
from inspect import isawaitable
from typing import Any

from synergymesh.domain import payload
from synergymesh.domain.workflow.definition import WorkflowDefinition
from synergymesh.domain.workflow.templates import compile_arguments, compile_template
from synergymesh.workflows.tasks import Task

Steps = Generator[Callable[[], Any], Any, Any]


def run(definition: WorkflowDefinition, tasks: Mapping[str, Task[..., Any]], inputs: Mapping[str, Any]) -> Any:
    """Run a workflow whose tasks are all plain functions; give its output."""
    steps = _steps(definition, tasks, inputs)
    try:
        call = next(steps)
        while True:
            try:
                value = call()
            except Exception as error:
                call = steps.throw(error)
            else:
                call = steps.send(value)
    except StopIteration as end:
        return end.value


async def run_async(
    definition: WorkflowDefinition, tasks: Mapping[str, Task[..., Any]], inputs: Mapping[str, Any]
) -> Any:
    """Run a workflow some of whose tasks are coroutine functions; give its output."""
    steps = _steps(definition, tasks, inputs)
    try:
        call = next(steps)
        while True:
            try:
                value = call()
                if isawaitable(value):
                    value = await value
            except Exception as error:
                call = steps.throw(error)
            else:
                call = steps.send(value)
    except StopIteration as end:
        return end.value


def _steps(definition: WorkflowDefinition, tasks: Mapping[str, Task[..., Any]], inputs: Mapping[str, Any]) -> Steps:
    """Yield one call after the other in dependency order, and take what it gives.

    Values go through JSON as they do in the engine, so what it would refuse is refused here.
    """
    raw_inputs = payload.encode(inputs, field="input")
    results: dict[int, bytes] = {}
    graph = definition.graph

    def result_of(position: int) -> Any:
        return payload.decode(results.get(position, b"null"))

    for position in graph.topological_order():
        component = definition.components[position]
        task = tasks[component.task]
        fill = compile_arguments(component.args, component.kwargs, definition.positions)
        try:
            args, kwargs = task.prepare(*fill(payload.decode(raw_inputs), result_of))
            value = yield partial(task.function, *args, **kwargs)
            results[position] = payload.encode(value, field=f"result of {component.component_id}")
        except Exception:
            out = graph.dependents[position]
            tolerated = not component.required or (
                out and all((dependent, position) in graph.optional for dependent in out)
            )
            if not tolerated:
                raise
    return compile_template(definition.output, definition.positions)(payload.decode(raw_inputs), result_of)
