"""Workflows: functions whose task calls are a graph, and workflows that are built piece by piece."""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Unpack, overload

from synergymesh.domain import payload
from synergymesh.domain.workflow.definition import (
    Component,
    Dependency,
    Parameter,
    WorkflowDefinition,
    check_identifier,
)
from synergymesh.domain.workflow.inputs import check_inputs
from synergymesh.domain.workflow.task_settings import TaskSettings, check_seconds, check_settings
from synergymesh.domain.workflow.templates import InputRef, NodeRef, Template
from synergymesh.errors import DuplicateComponent, InvalidWorkflow
from synergymesh.workflows import direct
from synergymesh.workflows.nodes import Node
from synergymesh.workflows.signatures import Signature
from synergymesh.workflows.tasks import Task
from synergymesh.workflows.tracing import (
    Settings,
    Trace,
    current_trace,
    dependencies_of_after,
    make_component,
    make_template,
    register,
)

FILE_MARK = "__synergymesh_file__"
"""Name in a module that the loader loaded from a file: its absolute path."""

_MISSING: Any = inspect.Parameter.empty


class Workflow:
    """Hold a graph of tasks with a name, inputs and an output.

    Made by `@workflow` from a function, or built: `Workflow("name").add(task, id="a").add(task, depends_on=["a"])`.
    Called inside another workflow that is being defined, its components become part of that one; called elsewhere, it
    runs right there and gives its output (a coroutine if one of its tasks is a coroutine function).

    Attributes:
        name: of the workflow.
    """

    def __init__(
        self,
        name: str,
        *,
        source: str | None = None,
        timeout: float | None = None,
        queue_timeout: float | None = None,
    ) -> None:
        """Begin an empty workflow.

        Args:
            name: of the workflow.
            timeout: seconds for a whole run, from the start of its first task, or None.
            queue_timeout: seconds that a run may wait for that start, or None.
            source: where its functions are found after a restart; by default found out.
        """
        self.name = check_identifier(name, "workflow name")
        self._timeout = check_seconds(f"workflow {name!r}", "timeout", timeout)
        self._queue_timeout = check_seconds(f"workflow {name!r}", "queue_timeout", queue_timeout)
        self._source = source
        self._home: Mapping[str, Any] = sys._getframe(1).f_globals
        self._function: Callable[..., Any] | None = None
        self._definition: WorkflowDefinition | None = None
        self._tasks: dict[str, Task[..., Any]] = {}
        self._components: dict[str, Component] = {}
        self._counts: dict[str, int] = {}
        self._wrapped: dict[Any, Task[..., Any]] = {}
        self._signature = Signature(f"workflow {name!r}", (), None)
        self._output: Template = _MISSING

    # --- reading ----------------------------------------------------------------------------------------------------

    @property
    def tasks(self) -> Mapping[str, Task[..., Any]]:
        """Give its tasks by name."""
        return self._tasks

    @property
    def definition(self) -> WorkflowDefinition:
        """Give what is run, as a value; always the same object until something is added.

        Raises:
            InvalidWorkflow: it cannot be run.
        """
        if self._definition is None:
            self._definition = WorkflowDefinition(
                name=self.name,
                parameters=tuple(map(_parameter, self._signature.parameters.values())),
                components=tuple(self._components.values()),
                output=self._only_leaf() if self._output is _MISSING else self._output,
                timeout=self._timeout,
                queue_timeout=self._queue_timeout,
            )
        return self._definition

    @property
    def source(self) -> str | None:
        """Say where its functions are found after a restart, or None: it lives in no module's names.

        `module:attribute`, or `file:PATH:attribute` for a script and for what the loader read from a file.
        """
        if self._source is None:
            attribute = self._attribute()
            if attribute is not None:
                self._source = _place(self._home, attribute)
        return self._source

    @source.setter
    def source(self, source: str) -> None:
        self._source = source

    def _attribute(self) -> str | None:
        likely = getattr(self._function, "__name__", "")
        if self._home.get(likely) is self:
            return likely
        return next((name for name, value in list(self._home.items()) if value is self), None)

    def is_from(self, names: Mapping[str, Any]) -> bool:
        """Tell whether it was made in the module with these names."""
        return self._home is names

    def check_input(self, values: Mapping[str, Any] | None) -> dict[str, Any]:
        """Check the input of a run; give it as JSON values, defaults filled in.

        Raises:
            InvalidRequest: an input is missing, unknown or has not the annotated type.
            InvalidPayload: one is not JSON.
        """
        return check_inputs(self.definition, values, self._signature.check_input)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it right here without an engine, or make it part of the workflow that is being defined."""
        trace = current_trace()
        after: Any = kwargs.pop("after", ()) if trace is not None else ()
        arguments = self._signature.bind(args, kwargs)
        values = {name: value for name, _, value in arguments}
        definition = self.definition
        if trace is None:
            inputs = self.check_input(values)
            is_async = any(self._tasks[component.task].is_async for component in definition.components)
            return (direct.run_async if is_async else direct.run)(definition, self._tasks, inputs)
        for name, label, value in arguments:
            self._signature.check(name, label, value, make_template(value, f"{self.name}({name})", trace))
        defaults = {each.name: each.default for each in definition.parameters if not each.required}
        return trace.inline(definition, self._tasks, defaults | values, after)

    def __repr__(self) -> str:
        return f"<Workflow {self.name!r}>"

    # --- building ---------------------------------------------------------------------------------------------------

    def takes(self, name: str, annotation: Any = Any, *, default: Any = _MISSING) -> Workflow:
        """Add an input, used as `given(name)` in arguments.

        Args:
            name: of the input.
            annotation: its type.
            default: JSON, for runs that do not give it.
        """
        self._change()
        parameters = [each for each in self._signature.parameters.values() if each.name != name]
        if len(parameters) < len(self._signature.parameters):
            raise InvalidWorkflow(f"workflow {self.name!r} has the input {name!r} already.", field=name)
        if not isinstance(name, str) or not name.isidentifier():
            raise InvalidWorkflow(f"the name of an input is an identifier, not {name!r:.100}.", field="name")
        parameter = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        _parameter(parameter)
        self._signature = Signature(self._signature.owner, [*parameters, parameter], None)
        return self

    def add(
        self,
        work: Task[..., Any] | Callable[..., Any],
        *,
        id: str | None = None,
        depends_on: Iterable[str | Dependency | Node] = (),
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        after: Any = (),
        required: bool = True,
        **settings: Unpack[TaskSettings],
    ) -> Workflow:
        """Add a component; give the workflow again.

        Args:
            work: a task or a plain function.
            id: of the component; by default the task's name, then `name-2`, `name-3` …
            depends_on: components that come first, also ones that are added later; no data.
            args: positional arguments: constants, `ref("a")` for results, `given("x")` for inputs.
            kwargs: keyword arguments.
            after: as `depends_on`.
            required: whether the run fails when the component does.
            settings: those that differ from the task's.

        Raises:
            InvalidWorkflow: the arguments do not fit, or a setting is unknown or outside its range.
            DuplicateComponent: the id is taken.
        """
        self._change()
        task = work if isinstance(work, Task) else self._wrap(work)
        component_id = self._free_id(task.name) if id is None else id
        if component_id in self._components:
            raise DuplicateComponent(component_id)
        check_settings(f"component {component_id!r}", settings)
        said = Settings(
            after=[*dependencies_of_after(depends_on, None, "depends_on="), *dependencies_of_after(after, None)],
            required=required,
            changes=settings,
        )
        component = make_component(task, component_id, args, kwargs or {}, said, owner=None)
        register(self._tasks, task, self.name)
        self._components[component_id] = component
        return self

    def returns(self, template: Any) -> Workflow:
        """Set the output: `ref("a")`, or JSON with references in it. By default that of the only leaf, else None."""
        self._change()
        self._output = make_template(template, "output", None)
        return self

    def _change(self) -> None:
        if self._function is not None:
            raise InvalidWorkflow(f"workflow {self.name!r} is made from a function. Change the function.")
        self._definition = None

    def _wrap(self, function: Callable[..., Any]) -> Task[..., Any]:
        known = self._wrapped.get(function)
        if known is None:
            known = Task(function)
            count = 1
            while known.name in self._tasks:
                count += 1
                known = Task(function, name=f"{function.__name__}-{count}")
            self._wrapped[function] = known
        return known

    def _free_id(self, name: str) -> str:
        count = self._counts.get(name, 0) + 1
        while (candidate := name if count == 1 else f"{name}-{count}") in self._components:
            count += 1
        self._counts[name] = count
        return candidate

    def _only_leaf(self) -> Template:
        inner = {each.component_id for component in self._components.values() for each in component.dependencies}
        leaves = [component_id for component_id in self._components if component_id not in inner]
        return NodeRef(leaves[0]) if len(leaves) == 1 else None

    # --- tracing ----------------------------------------------------------------------------------------------------

    @classmethod
    def of(
        cls,
        function: Callable[..., Any],
        name: str | None = None,
        *,
        timeout: float | None = None,
        queue_timeout: float | None = None,
    ) -> Workflow:
        """Trace a function: every task that it calls becomes a component; the rest is as in `Workflow`.

        Raises:
            InvalidWorkflow: what it describes cannot be run.
        """
        _check_function(function)
        self = cls(function.__name__ if name is None else name, timeout=timeout, queue_timeout=queue_timeout)
        self._home = getattr(function, "__globals__", {})
        self._signature = Signature.of(function, f"workflow {self.name!r}")
        parameters = self._signature.parameters.values()
        for parameter in parameters:
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or parameter.name == "after":
                raise InvalidWorkflow(
                    f"workflow {self.name!r} cannot have the parameter {parameter}: each input has a name of its own, "
                    "and `after` is taken.",
                    field=parameter.name,
                )
        trace = Trace(self.name)
        nodes = {
            each.name: Node(InputRef(each.name), owner=trace, annotation=self._signature.annotation(each.name))
            for each in parameters
        }
        positional = [nodes.pop(each.name) for each in parameters if each.kind is each.POSITIONAL_ONLY]
        with trace.active():
            output = function(*positional, **nodes)
        self._tasks = trace.tasks
        self._components = {component.component_id: component for component in trace.components}
        self._output = make_template(output, "output", trace)
        functools.update_wrapper(self, function)
        self._function = function
        _ = self.definition
        return self


def _check_function(function: Any) -> None:
    if isinstance(function, (Task, Workflow)) or not inspect.isfunction(function):
        raise InvalidWorkflow(f"@workflow takes functions, not {function!r:.100}.")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise InvalidWorkflow(
            f"workflow {function.__name__!r} only describes what is run, so it is a plain function: leave `async` out."
        )
    if inspect.isgeneratorfunction(function):
        raise InvalidWorkflow(f"workflow {function.__name__!r} yields. Return the output instead.")


def _parameter(parameter: inspect.Parameter) -> Parameter:
    if parameter.default is _MISSING:
        return Parameter(parameter.name)
    raw = payload.encode(parameter.default, field=f"default of {parameter.name}")
    return Parameter(parameter.name, required=False, default=payload.decode(raw))


def _place(names: Mapping[str, Any], attribute: str) -> str | None:
    """Say where a module's attribute is found by another process."""
    path = names.get(FILE_MARK)
    if path is not None:
        return f"file:{path}:{attribute}"
    module = names.get("__name__")
    if module == "__main__":
        spec = names.get("__spec__")
        if spec is not None and spec.name:
            return f"{spec.name}:{attribute}"
        script = names.get("__file__")
        return None if script is None else f"file:{os.path.abspath(script)}:{attribute}"
    return f"{module}:{attribute}" if module in sys.modules else None


@overload
def workflow(function: Callable[..., Any], /) -> Workflow: ...
@overload
def workflow(
    *, name: str | None = None, timeout: float | None = None, queue_timeout: float | None = None
) -> Callable[[Callable[..., Any]], Workflow]: ...


def workflow(
    function: Any = None,
    /,
    *,
    name: str | None = None,
    timeout: float | None = None,
    queue_timeout: float | None = None,
) -> Any:
    """Make a workflow of a function: `@workflow` or `@workflow(name=…, timeout=…, queue_timeout=…)`.

    The function is called once, now, with nodes for its inputs; every task that it calls becomes a component, and what
    it returns is the output.

    Raises:
        InvalidWorkflow: what it describes cannot be run.
    """
    if function is None:
        return lambda traced: Workflow.of(traced, name, timeout=timeout, queue_timeout=queue_timeout)
    return Workflow.of(function, name, timeout=timeout, queue_timeout=queue_timeout)
