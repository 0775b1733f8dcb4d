"""What goes into a dependency resolver: components and dependencies, checked."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from synergymesh.config import IDENTIFIER_MAX
from synergymesh.domain.graphs.graph import checked_component_ids, checked_weights
from synergymesh.errors import InvalidRequest

PRIORITY_MAX = 2**31 - 1
"""Priorities fit 32 bits of any database."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class DependencyNode:
    """Describe a component with its place in the graph.

    Attributes:
        component_id: its name, unique in the graph.
        component_type: what kind of thing it is; the resolver only carries it.
        priority: among ready components the higher one is first.
        weight: expected seconds.
        dependencies: ids of what it runs after, directly.
        dependents: ids of what runs after it, directly.
    """

    component_id: str
    component_type: str = "task"
    priority: int = 0
    weight: float = 1.0
    dependencies: tuple[str, ...] = ()
    dependents: tuple[str, ...] = ()


Component = str | DependencyNode | tuple[str, str] | tuple[str, str, int] | tuple[str, str, int, float]
Dependency = tuple[str, str] | tuple[str, str, bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Hold many components by column."""

    component_ids: list[str]
    types: list[str]
    priorities: list[int]
    weights: list[float]


def checked_components(components: Iterable[Component]) -> Columns:
    """Check many components at once, about half a microsecond each.

    Raises:
        InvalidRequest: a value cannot be accepted.
    """
    rows = [_row(component) for component in components]
    types = [row[1] for row in rows]
    priorities = [row[2] for row in rows]
    for component_type in _distinct(types):
        checked_type(component_type)
    for priority in _distinct(priorities):
        checked_priority(priority)
    return Columns(
        component_ids=checked_component_ids([row[0] for row in rows]),
        types=types,
        priorities=priorities,
        weights=checked_weights([row[3] for row in rows]),
    )


def _row(component: Component) -> tuple[Any, Any, Any, Any]:
    if type(component) is tuple:
        if len(component) == 4:
            return component
        if 2 <= len(component) < 4:
            return (*component, 0, 1.0)[:4] if len(component) == 2 else (*component, 1.0)
    elif isinstance(component, DependencyNode):
        return (component.component_id, component.component_type, component.priority, component.weight)
    elif isinstance(component, str):
        return (component, "task", 0, 1.0)
    raise InvalidRequest(
        f"a component is an id, a DependencyNode or (id, type, priority, weight), not {component!r:.60}.",
        field="components",
    )


def edges(dependencies: Iterable[Dependency]) -> Iterator[tuple[str, str, bool]]:
    """Give dependencies as (dependent, dependency, required); `InvalidRequest` for what is none."""
    for dependency in dependencies:
        if type(dependency) is tuple or isinstance(dependency, (tuple, list)):
            if len(dependency) == 2:
                yield (dependency[0], dependency[1], True)
                continue
            if len(dependency) == 3:
                yield (dependency[0], dependency[1], bool(dependency[2]))
                continue
        raise InvalidRequest(
            f"a dependency is (from, to) or (from, to, required), not {dependency!r:.60}.", field="dependencies"
        )


def _distinct(values: Collection[T]) -> Iterable[T]:
    """Give each different value once if they can be told apart quickly; 1, True and 1.0 are different."""
    try:
        return set(values) if len(set(map(type, values))) == 1 else values
    except TypeError:
        return values


def checked_type(component_type: object) -> str:
    """Give back a component's type, or raise `InvalidRequest`."""
    if not isinstance(component_type, str) or not 0 < len(component_type) <= IDENTIFIER_MAX:
        raise InvalidRequest(
            f"component_type must be a string of 1 to {IDENTIFIER_MAX} characters, not {component_type!r:.40}.",
            field="component_type",
        )
    return component_type


def checked_priority(priority: object) -> int:
    """Give back a priority, or raise `InvalidRequest`."""
    if not isinstance(priority, int) or isinstance(priority, bool) or not -PRIORITY_MAX <= priority <= PRIORITY_MAX:
        raise InvalidRequest(
            f"priority must be a whole number of at most 32 bits, not {priority!r:.40}.", field="priority"
        )
    return priority


def checked_workers(workers: int | Iterable[int]) -> tuple[int, ...]:
    """Give back numbers of workers, or raise `InvalidRequest`."""
    counts = (workers,) if isinstance(workers, int) else tuple(workers)
    for count in counts:
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise InvalidRequest(f"workers must be whole numbers from 1, not {count!r:.40}.", field="workers")
    return counts
