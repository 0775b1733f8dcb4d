"""Compensation: how the call that undoes a component is made (Garcia-Molina & Salem, "Sagas", 1987)."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from synergymesh.domain.workflow.definition import UNDO, Component, Dependency
from synergymesh.domain.workflow.templates import NodeRef, Template, build, references
from synergymesh.errors import InvalidWorkflow

if TYPE_CHECKING:
    from synergymesh.workflows.tasks import Task

_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def check_compensation(undoing: Task[..., Any], task: Task[..., Any]) -> None:
    """Check that a task can undo another: it takes the result first, and then parameters of the other by their names.

    Raises:
        InvalidWorkflow: it cannot; the message says why.
    """
    owner = f"task {task.name!r}: compensate={undoing.name!r}"
    if undoing.compensate is not None:
        raise InvalidWorkflow(f"{owner} has a compensation itself. What undoes cannot be undone.", field="compensate")
    parameters = list(undoing.signature.parameters.values())
    if not parameters or parameters[0].kind in (*_VARIABLE, inspect.Parameter.KEYWORD_ONLY):
        raise InvalidWorkflow(f"{owner} takes no result. Give it one parameter in front, for that.", field="compensate")
    for parameter in parameters[1:]:
        if parameter.kind in (*_VARIABLE, inspect.Parameter.POSITIONAL_ONLY):
            raise InvalidWorkflow(
                f"{owner} has the parameter {parameter}; it is given the result, and parameters of the task by name.",
                field="compensate",
            )
        given = task.signature.parameters.get(parameter.name)
        if (given is None or given.kind in _VARIABLE) and parameter.default is parameter.empty:
            raise InvalidWorkflow(
                f"{owner} needs {parameter.name!r}, which is no parameter of the task. It is given the result first, "
                f"and then parameters of the task by their names.",
                field="compensate",
            )


def make_compensation(
    task: Task[..., Any], component_id: str, arguments: Sequence[tuple[str, str, Template]]
) -> Component | None:
    """Make the component that undoes a call; None if nothing does.

    Args:
        task: what is called.
        component_id: of the call.
        arguments: of the call: for each the name of its parameter, its name for messages, and its template.
    """
    undoing = task.compensate
    if undoing is None:
        return None
    said = {name: template for name, _, template in arguments}
    kwargs: dict[str, Template] = {}
    for parameter in list(undoing.signature.parameters.values())[1:]:
        given = task.signature.parameters.get(parameter.name)
        if given is None or given.kind in _VARIABLE:
            continue  # it has a default of its own
        if parameter.name in said:
            kwargs[parameter.name] = said[parameter.name]
        elif parameter.default is parameter.empty:
            # the task's default counts for the call, so it is what has to be undone
            kwargs[parameter.name] = build(given.default, field=f"default of {parameter.name}")
    used = references(list(kwargs.values()))
    return Component(
        component_id=UNDO + component_id,
        task=undoing.name,
        args=(NodeRef(component_id),),
        kwargs=kwargs,
        dependencies=tuple(Dependency(each, required=False) for each in dict.fromkeys([component_id, *used])),
        **undoing.settings,
    )
