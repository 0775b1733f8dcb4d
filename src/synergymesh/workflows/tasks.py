"""Tasks: functions that become components when they are called inside a workflow."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, ParamSpec, TypeVar, Unpack, overload

from synergymesh.domain.workflow.definition import check_identifier
from synergymesh.domain.workflow.task_settings import DEFAULTS, TaskSettings, check_settings
from synergymesh.errors import InvalidWorkflow
from synergymesh.workflows.compensation import check_compensation
from synergymesh.workflows.signatures import Signature
from synergymesh.workflows.tracing import Settings, current_trace

P = ParamSpec("P")
R = TypeVar("R")

RESERVED = ("after", "required")
"""Keywords of a call inside a workflow, so no names for parameters."""


class Task(Generic[P, R]):
    """Wrap a function so that a call inside a workflow makes a component, and a call elsewhere calls the function.

    Inside a workflow a call takes two keywords more: `after=`, a node or a list of nodes that come first without giving
    data, and `required=False`, which lets the run go on when the component fails (its dependents get None).

    Attributes:
        name: of the task, unique in a workflow.
        function: what is called.
        is_async: whether it is a coroutine function.
        signature: its parameters.
        settings: all of them, by name.
        compensate: what undoes it, or None.
    """

    def __init__(
        self,
        function: Callable[P, R],
        *,
        name: str | None = None,
        compensate: Callable[..., Any] | None = None,
        **settings: Unpack[TaskSettings],
    ) -> None:
        checked = _check_function(function, name)
        functools.update_wrapper(self, function)
        self.function: Callable[P, R] = function
        self.name = checked
        owner = f"task {checked!r}"
        self.signature = Signature.of(function, owner)
        for reserved in RESERVED:
            if reserved in self.signature.parameters:
                raise InvalidWorkflow(
                    f"{owner} has a parameter named {reserved!r}, which a call inside a workflow uses for itself. "
                    "Rename the parameter.",
                    field=reserved,
                )
        check_settings(owner, settings)
        self.is_async = _is_async(function)
        self.settings: TaskSettings = {**DEFAULTS, **settings}
        self.compensate: Task[..., Any] | None = None
        if compensate is not None:
            self.compensate = compensate if isinstance(compensate, Task) else Task(compensate)
            check_compensation(self.compensate, self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Make a component inside a workflow that is being defined, or call the function."""
        return self._call(args, kwargs, None)

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any], settings: Settings | None) -> Any:
        trace = current_trace()
        if trace is None:
            function: Callable[..., Any] = self.function
            return function(*args, **kwargs)
        reserved = {key: kwargs.pop(key) for key in RESERVED if key in kwargs}
        if settings is None:
            settings = Settings(**reserved)
        elif reserved:
            raise InvalidWorkflow(f"give {' and '.join(reserved)} to options() of task {self.name!r}, not to its call.")
        return trace.call(self, args, kwargs, settings)

    def options(
        self,
        *,
        id: str | None = None,
        after: Any = (),
        required: bool = True,
        **settings: Unpack[TaskSettings],
    ) -> Callable[..., Any]:
        """Give a function that calls the task with other settings: `price.options(id="total", timeout=3)(order)`.

        Args:
            id: of the component; by default the task's name, then `name-2`, `name-3` …
            after: a node or a list of nodes that come first.
            required: whether the run fails when the component does.
            settings: those that differ from the task's.

        Raises:
            InvalidWorkflow: there is no such setting, or one is outside its range.
        """
        check_settings(f"options of task {self.name!r}", settings)
        said = Settings(component_id=id, after=after, required=required, changes=settings)

        @functools.wraps(self.function)
        def call(*args: Any, **kwargs: Any) -> Any:
            return self._call(args, kwargs, said)

        return call

    @property
    def needs_conversion(self) -> bool:
        """Tell whether some parameter's annotation is more than plain JSON, so that `prepare` does something."""
        return bool(self.signature.converters)

    def prepare(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Convert JSON values to the annotated types of the function's parameters.

        Raises:
            InvalidRequest: one cannot be converted; the message names the parameter.
        """
        return self.signature.convert(args, kwargs)

    def __repr__(self) -> str:
        return f"<Task {self.name!r}>"


def _is_async(function: Any) -> bool:
    called = function if inspect.isroutine(function) or isinstance(function, functools.partial) else function.__call__
    return inspect.iscoroutinefunction(called)


def _check_function(function: Any, name: str | None) -> str:
    """Check that something can be a task; give the task's name."""
    shown = f"{function!r:.100}"
    if isinstance(function, type):
        raise InvalidWorkflow(f"@task takes functions, and {shown} is a class. Wrap it in a function.")
    if not callable(function):
        raise InvalidWorkflow(f"@task takes functions, not {shown}.")
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise InvalidWorkflow(f"{shown} yields, and a task has one result. Return a list instead.")
    if name is None:
        name = getattr(function, "__name__", None)
        if name is None:
            raise InvalidWorkflow(f"{shown} has no name. Give it one: @task(name=...).", field="name")
    return check_identifier(name, "task name")


@overload
def task(function: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(
    *, name: str | None = None, compensate: Callable[..., Any] | None = None, **settings: Unpack[TaskSettings]
) -> Callable[[Callable[P, R]], Task[P, R]]: ...


def task(function: Any = None, /, **settings: Any) -> Any:
    """Make a task of a function: `@task` or `@task(name=…, retry=…, timeout=…, weight=…, priority=…)`.

    Coroutine functions run on the event loop, plain ones in threads.

    Args:
        function: what to wrap; of a task its function is taken.
        settings: name (by default the function's), compensate (what undoes it when the run fails or is cancelled: a
            function or a task of its result and, by name, of any of its parameters), and those of `TaskSettings`.

    Raises:
        InvalidWorkflow: the function cannot be a task, or a setting is outside its range.
    """
    if function is None:
        return lambda wrapped: task(wrapped, **settings)
    return Task(function.function if isinstance(function, Task) else function, **settings)
