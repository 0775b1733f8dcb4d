"""Tasks: functions that become components when they are called inside a workflow."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, ParamSpec, TypeVar, overload

import msgspec

from synergymesh.domain.definition import check_identifier, check_settings
from synergymesh.domain.retry import RetryPolicy
from synergymesh.errors import InvalidWorkflow
from synergymesh.workflows.signatures import Signature
from synergymesh.workflows.tracing import UNSET, Settings, current_trace

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
        retry: None for the default policy.
        timeout: seconds for one attempt, or None.
        weight: expected seconds.
        priority: a whole number from -1000 to 1000.
        memory_mb: MiB of memory that it takes of the tenant's quota while it runs, or None for the default.
        cpus: CPUs that it takes, or None for the default.
    """

    def __init__(
        self,
        function: Callable[P, R],
        *,
        name: str | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
        weight: float = 1.0,
        priority: int = 0,
        memory_mb: int | None = None,
        cpus: float | None = None,
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
        check_settings(
            owner, weight=weight, priority=priority, retry=retry, timeout=timeout, memory_mb=memory_mb, cpus=cpus
        )
        self.is_async = _is_async(function)
        self.retry = retry
        self.timeout = timeout
        self.weight = weight
        self.priority = priority
        self.memory_mb = memory_mb
        self.cpus = cpus

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
        weight: float | msgspec.UnsetType = UNSET,
        priority: int | msgspec.UnsetType = UNSET,
        retry: RetryPolicy | msgspec.UnsetType | None = UNSET,
        timeout: float | msgspec.UnsetType | None = UNSET,
        memory_mb: int | msgspec.UnsetType | None = UNSET,
        cpus: float | msgspec.UnsetType | None = UNSET,
    ) -> Callable[..., Any]:
        """Give a function that calls the task with other settings: `price.options(id="total", timeout=3)(order)`.

        Args:
            id: of the component; by default the task's name, then `name-2`, `name-3` …
            after: a node or a list of nodes that come first.
            required: whether the run fails when the component does.
            weight: expected seconds.
            priority: a whole number from -1000 to 1000.
            retry: a policy, or None for the default one.
            timeout: seconds for one attempt, or None.
            memory_mb: MiB of memory that it takes of the tenant's quota, or None for the default.
            cpus: CPUs that it takes, or None for the default.
        """
        settings = Settings(
            component_id=id,
            after=after,
            required=required,
            weight=weight,
            priority=priority,
            retry=retry,
            timeout=timeout,
            memory_mb=memory_mb,
            cpus=cpus,
        )

        @functools.wraps(self.function)
        def call(*args: Any, **kwargs: Any) -> Any:
            return self._call(args, kwargs, settings)

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
    *,
    name: str | None = None,
    retry: RetryPolicy | None = None,
    timeout: float | None = None,
    weight: float = 1.0,
    priority: int = 0,
    memory_mb: int | None = None,
    cpus: float | None = None,
) -> Callable[[Callable[P, R]], Task[P, R]]: ...


def task(function: Any = None, /, **settings: Any) -> Any:
    """Make a task of a function: `@task` or `@task(name=…, retry=…, timeout=…, weight=…, priority=…)`.

    Coroutine functions run on the event loop, plain ones in threads.

    Args:
        function: what to wrap; of a task its function is taken.
        settings: name (by default the function's), retry (a RetryPolicy), timeout (seconds for one attempt), weight
            (expected seconds), priority (-1000 to 1000), memory_mb, cpus (taken of the tenant's quota).

    Raises:
        InvalidWorkflow: the function cannot be a task, or a setting is outside its range.
    """
    if function is None:
        return lambda wrapped: task(wrapped, **settings)
    return Task(function.function if isinstance(function, Task) else function, **settings)
