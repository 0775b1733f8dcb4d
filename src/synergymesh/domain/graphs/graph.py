"""The graph of a plan: components by position, what each depends on, and in which order they can run."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from types import ModuleType
from typing import TYPE_CHECKING, Self, cast

from synergymesh.config import COMPONENTS_MAX, DEPENDENCIES_MAX, IDENTIFIER_MAX
from synergymesh.errors import CircularDependency, DuplicateComponent, GraphTooLarge, InvalidRequest

if TYPE_CHECKING:
    import rustworkx

Edge = tuple[int, int, bool]
"""The position of the dependent, the position of what it depends on, and whether it cannot do without."""

WEIGHT_MAX = 1e290
"""Seconds: so large that no expectation reaches it, so small that ten million of them in a row, in ms, are finite."""


def checked_component_id(component_id: object) -> str:
    """Give back a component id, or say what is wrong with it.

    Raises:
        InvalidRequest: it is not a string, is empty, or has more than `IDENTIFIER_MAX` characters.
    """
    if not isinstance(component_id, str):
        kind = type(component_id).__name__
        raise InvalidRequest(f"component_id must be a string, not {kind}.", field="component_id")
    if not component_id:
        raise InvalidRequest("component_id must not be empty.", field="component_id")
    if len(component_id) > IDENTIFIER_MAX:
        raise InvalidRequest(
            f"component_id must have at most {IDENTIFIER_MAX} characters, "
            f"not {len(component_id):,} ({component_id[:20]!r}…).",
            field="component_id",
        )
    if not _is_text(component_id):
        raise InvalidRequest("component_id must not have NUL or lone surrogates.", field="component_id")
    return component_id


def _is_text(text: str) -> bool:
    """Tell whether every database and JSON reader takes a text."""
    if "\0" in text:
        return False
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return False
    return True


def checked_weight(weight: object) -> float:
    """Give back a weight in seconds, or say what is wrong with it.

    Raises:
        InvalidRequest: it is no number, not finite, negative, or above `WEIGHT_MAX`.
    """
    if not isinstance(weight, (int, float)) or isinstance(weight, bool):
        raise InvalidRequest(f"weight must be a number of seconds, not {weight!r:.40}.", field="weight")
    if not 0 <= weight <= WEIGHT_MAX:  # false for NaN too, and exact for whole numbers too long for a float
        shown = "a much larger number" if weight > WEIGHT_MAX else weight
        raise InvalidRequest(f"weight must be from 0 to {WEIGHT_MAX:g} seconds, not {shown}.", field="weight")
    return float(weight)


def checked_component_ids(component_ids: Iterable[object]) -> list[str]:
    """Check many ids at once; the errors are those of `checked_component_id`. Some 50 ns each when all are good."""
    ids = list(component_ids)
    if set(map(type, ids)) <= {str}:
        texts = cast("list[str]", ids)
        lengths = set(map(len, texts))
        if not lengths or (min(lengths) > 0 and max(lengths) <= IDENTIFIER_MAX and _is_text("".join(texts))):
            return texts
    return [checked_component_id(component_id) for component_id in ids]


def checked_weights(weights: Iterable[object]) -> list[float]:
    """Check many weights at once; the errors are those of `checked_weight`."""
    numbers = list(weights)
    if set(map(type, numbers)) == {float}:
        floats = cast("list[float]", numbers)
        if all(map(math.isfinite, floats)) and min(floats) >= 0 and max(floats) <= WEIGHT_MAX:
            return floats
    return [checked_weight(weight) for weight in numbers]


class Graph:
    """Hold a graph without cycles, by position, frozen.

    Attributes:
        component_ids: the id of every position.
        weights: expected seconds of every position.
        dependents: for every position, those that run after it.
        dependencies: for every position, those it runs after, in the order in which they were given.
        optional: the (dependent, dependency) pairs whose dependent can do without.
    """

    __slots__ = ("_native", "_phases", "_ranks", "component_ids", "dependencies", "dependents", "optional", "weights")

    component_ids: tuple[str, ...]
    weights: tuple[float, ...]
    dependents: tuple[tuple[int, ...], ...]
    dependencies: tuple[tuple[int, ...], ...]
    optional: frozenset[tuple[int, int]]
    _phases: list[list[int]]
    _ranks: list[float] | None
    _native: rustworkx.PyDiGraph[None, None] | None

    @classmethod
    def build(
        cls,
        component_ids: Sequence[str],
        weights: Sequence[float],
        edges: Iterable[Edge],
        *,
        components_max: int = COMPONENTS_MAX,
        dependencies_max: int = DEPENDENCIES_MAX,
    ) -> Self:
        """Build a graph from ids, weights and edges by position; O(components + dependencies).

        The same edge twice is one edge, required if one of the two was.

        Args:
            component_ids: different strings of 1 to `IDENTIFIER_MAX` characters.
            weights: expected seconds of each, 0 or more.
            edges: (dependent, dependency, required), each a position in `component_ids`.
            components_max: components that are allowed.
            dependencies_max: dependencies that are allowed; duplicates count.

        Raises:
            InvalidRequest: an id or a weight cannot be accepted.
            DuplicateComponent: two components have the same id.
            CircularDependency: with the path of one cycle.
            GraphTooLarge: more components or dependencies than allowed.
        """
        count = len(component_ids)
        if count > components_max:
            raise GraphTooLarge("components", actual=count, limit=components_max)
        ids = checked_component_ids(component_ids)
        if len(set(ids)) != count:
            seen: set[str] = set()
            for component_id in ids:
                if component_id in seen:
                    raise DuplicateComponent(component_id)
                seen.add(component_id)
        seconds = checked_weights(weights)
        assert len(seconds) == count, "one weight for each component"

        pairs = edges if isinstance(edges, (list, tuple)) else list(edges)
        if len(pairs) > dependencies_max:
            raise GraphTooLarge("dependencies", actual=len(pairs), limit=dependencies_max)
        lists: list[list[int]] = [[] for _ in range(count)]
        optional: set[tuple[int, int]] = set()
        for dependent, dependency, required in pairs:
            lists[dependent].append(dependency)
            if not required:
                optional.add((dependent, dependency))
        if optional:
            optional.difference_update((dependent, dependency) for dependent, dependency, required in pairs if required)
        dependencies = tuple([tuple(own) if len(own) < 2 else tuple(dict.fromkeys(own)) for own in lists])
        return cls.of(tuple(ids), tuple(seconds), dependencies, frozenset(optional))

    @classmethod
    def of(
        cls,
        component_ids: tuple[str, ...],
        weights: tuple[float, ...],
        dependencies: tuple[tuple[int, ...], ...],
        optional: frozenset[tuple[int, int]] = frozenset(),
    ) -> Self:
        """Build a graph from parts that were checked before.

        Raises:
            CircularDependency: with the path of one cycle.
        """
        self = cls.__new__(cls)
        self.component_ids = component_ids
        self.weights = weights
        self.dependencies = dependencies
        self.optional = optional
        self.dependents = _turned_round(dependencies)
        self._phases = _phases(dependencies, self.dependents, component_ids)
        self._ranks = None
        self._native = None
        return self

    def __len__(self) -> int:
        return len(self.component_ids)

    def topological_order(self) -> list[int]:
        """Give the positions, dependencies first: phase by phase, by position inside a phase."""
        return list(chain.from_iterable(self._phases))

    def phases(self) -> list[list[int]]:
        """Give the positions by the length of the longest path of dependencies before them.

        What is in one phase does not depend on each other and can run side by side.
        """
        return [list(phase) for phase in self._phases]

    def iter_phases(self) -> Iterator[Sequence[int]]:
        """Give the phases one by one without copying them."""
        return iter(self._phases)

    def upward_ranks(self) -> list[float]:
        """Give for every position the weight of the heaviest path that starts with it, itself included.

        Who is started highest rank first keeps the critical path moving (Hu 1961; Topcuoglu et al., "HEFT", 2002).
        """
        return list(self._upward_ranks())

    def earliest_starts(self) -> list[float]:
        """Give for every position the seconds after which it can start at the earliest."""
        starts = [0.0] * len(self.weights)
        ends = [0.0] * len(self.weights)
        end, weights, dependencies = ends.__getitem__, self.weights, self.dependencies
        for phase in self._phases:
            for position in phase:
                own = dependencies[position]
                start = max(map(end, own)) if own else 0.0
                starts[position] = start
                ends[position] = start + weights[position]
        return starts

    def critical_path(self) -> list[int]:
        """Give the positions of the heaviest path in order of execution; of equals, the earlier positions.

        Empty for an empty graph only.
        """
        ranks = self._upward_ranks()
        if not ranks:
            return []
        rank = ranks.__getitem__
        at = max(self._phases[0], key=rank)
        path = [at]
        while following := self.dependents[at]:
            at = max(following, key=rank)
            path.append(at)
        return path

    def everything_after(self, position: int) -> set[int]:
        """Give all that cannot run before `position` has: its direct and transitive dependents."""
        return set(_rustworkx().descendants(self.native(), position))

    def everything_before(self, position: int) -> set[int]:
        """Give all that has to run before `position`: its direct and transitive dependencies."""
        return set(_rustworkx().ancestors(self.native(), position))

    def native(self) -> rustworkx.PyDiGraph[None, None]:
        """Give the same graph for rustworkx, each edge from a dependency to its dependent; made once."""
        if self._native is None:
            native: rustworkx.PyDiGraph[None, None] = _rustworkx().PyDiGraph(multigraph=True)
            native.add_nodes_from([None] * len(self.component_ids))
            native.add_edges_from_no_data(
                [
                    (dependency, dependent)
                    for dependency, dependents in enumerate(self.dependents)
                    for dependent in dependents
                ]
            )
            self._native = native
        return self._native

    def _upward_ranks(self) -> list[float]:
        if self._ranks is None:
            ranks = list(self.weights)
            rank = ranks.__getitem__
            dependents = self.dependents
            for phase in reversed(self._phases):
                for position in phase:
                    if following := dependents[position]:
                        ranks[position] += max(map(rank, following))
            self._ranks = ranks
        return self._ranks


def _rustworkx() -> ModuleType:
    import rustworkx  # takes as long as planning a thousand runs, which do without

    return rustworkx


def _turned_round(dependencies: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
    lists: list[list[int]] = [[] for _ in dependencies]
    for dependent, own in enumerate(dependencies):
        for dependency in own:
            lists[dependency].append(dependent)
    return tuple(map(tuple, lists))


def _phases(
    dependencies: tuple[tuple[int, ...], ...], dependents: tuple[tuple[int, ...], ...], component_ids: tuple[str, ...]
) -> list[list[int]]:
    """Peel the graph phase by phase (Kahn 1962)."""
    waiting_for = list(map(len, dependencies))
    phase = [position for position, count in enumerate(waiting_for) if not count]
    phases: list[list[int]] = []
    placed = 0
    while phase:
        phases.append(phase)
        placed += len(phase)
        following: list[int] = []
        for position in phase:
            for dependent in dependents[position]:
                waiting_for[dependent] -= 1
                if not waiting_for[dependent]:
                    following.append(dependent)
        following.sort()
        phase = following
    if placed < len(component_ids):
        stuck = {position for position, count in enumerate(waiting_for) if count}
        raise CircularDependency([component_ids[position] for position in cycle_within(dependencies, stuck)])
    return phases


def cycle_within(dependencies: Sequence[Iterable[int]], stuck: set[int]) -> list[int]:
    """Find a cycle among positions that each depend on another one of them; the first one is at the end again."""
    at = min(stuck)
    seen: set[int] = set()
    while at not in seen:
        seen.add(at)
        at = next(dependency for dependency in dependencies[at] if dependency in stuck)
    # `at` is on a cycle; the shortest one through it is easier to read than the one that was stumbled on
    came_from: dict[int, int] = {}
    frontier = deque([at])
    while at not in came_from:
        position = frontier.popleft()
        for dependency in dependencies[position]:
            if dependency in stuck and dependency not in came_from:
                came_from[dependency] = position
                frontier.append(dependency)
    path = [at]
    while path[-1] != at or len(path) == 1:
        path.append(came_from[path[-1]])
    return path[::-1]
