"""A graph that grows and shrinks one dependency at a time and never has a cycle.

Every component has a level; a dependency never has a higher level than its dependent. That is enough to answer most
new dependencies at once, and to keep the search for a cycle short for the others: the two-way search for sparse graphs
of Bender, Fineman, Gilbert & Tarjan, "A New Approach to Incremental Cycle Detection and Related Problems", ACM
Transactions on Algorithms 12(2), 2015: O(min(sqrt(m), n^(2/3))) amortised for each dependency. The decision record
0003 compares it with Pearce & Kelly (2006).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from itertools import chain, compress, islice
from math import isqrt

from synergymesh.domain.graphs.graph import Graph
from synergymesh.errors import CircularDependency, GraphTooLarge, UnknownComponent

NEAREST_CANDIDATES_MAX = 2_000
"""Ids that a wrong one is compared with: some milliseconds of work for an error message."""

FEW_SHARE = 64
"""Up to a 64th as many dependencies as there are components are added one by one; more go all together."""

SEARCH_SHARE = 16
"""The search before a dependency gives up after a 16th of the square root of all dependencies. Any share keeps the
bound; measured on shuffled layered graphs this one is three times as fast as the whole root."""


def nearest_ids(wanted: str, component_ids: Iterable[str]) -> list[str]:
    """Give up to three ids that look like `wanted`; of a large graph the first ids of similar length are looked at."""
    length = len(wanted)
    if length > 200:
        return []
    folded = wanted.casefold()
    similar = (component_id for component_id in component_ids if abs(len(component_id) - length) <= 3)
    candidates = {component_id.casefold(): component_id for component_id in islice(similar, NEAREST_CANDIDATES_MAX)}
    return [candidates[match] for match in get_close_matches(folded, candidates, n=3, cutoff=0.6)]


def reach(start: int, following: Sequence[Iterable[int]]) -> set[int]:
    """Give every slot that is reached from `start`, without it; O(these and what follows them)."""
    reached: set[int] = set()
    stack = [start]
    while stack:
        for slot in following[stack.pop()]:
            if slot not in reached:
                reached.add(slot)
                stack.append(slot)
    return reached


class GrowingGraph:
    """Hold components by slot, and what each depends on.

    Slots are in order of insertion. A removed component leaves its slot empty until `freeze` closes the gaps.

    Attributes:
        slot_of: the slot of every component id.
        component_ids, types, priorities, weights: by slot; the id of an empty slot is "".
        dependencies: by slot, the slots it runs after, and whether it requires them, in order of insertion.
        edge_count: how many dependencies there are.
    """

    __slots__ = (
        "_dependents",
        "_frozen",
        "_levels",
        "component_ids",
        "dependencies",
        "edge_count",
        "priorities",
        "slot_of",
        "types",
        "weights",
    )

    def __init__(self) -> None:
        self.slot_of: dict[str, int] = {}
        self.component_ids: list[str] = []
        self.types: list[str] = []
        self.priorities: list[int] = []
        self.weights: list[float] = []
        self.dependencies: list[dict[int, bool]] = []
        self._dependents: list[dict[int, None]] | None = []
        self.edge_count = 0
        self._levels: list[int] = []
        self._frozen: Graph | None = None

    def __len__(self) -> int:
        return len(self.slot_of)

    @property
    def dependents(self) -> Sequence[dict[int, None]]:
        """Give, by slot, the slots that run after it; made anew after many dependencies came at once."""
        if self._dependents is None:
            self._dependents = [{} for _ in self.dependencies]
            for dependent, own in enumerate(self.dependencies):
                for dependency in own:
                    self._dependents[dependency][dependent] = None
        return self._dependents

    def slot(self, component_id: object) -> int:
        """Give the slot of a component.

        Raises:
            UnknownComponent: there is none of that id; the nearest ids are named.
        """
        slot = self.slot_of.get(component_id) if isinstance(component_id, str) else None
        if slot is None:
            shown = component_id if isinstance(component_id, str) else repr(component_id)
            raise UnknownComponent(shown if len(shown) <= 60 else f"{shown[:60]}…", nearest_ids(shown, self.slot_of))
        return slot

    def add(self, component_id: str, component_type: str, priority: int, weight: float) -> None:
        """Add a component, or give the one of that id another type, priority and weight."""
        self._frozen = None
        slot = self.slot_of.get(component_id)
        if slot is not None:
            self.types[slot] = component_type
            self.priorities[slot] = priority
            self.weights[slot] = weight
            return
        self.slot_of[component_id] = len(self.component_ids)
        self.component_ids.append(component_id)
        self.types.append(component_type)
        self.priorities.append(priority)
        self.weights.append(weight)
        self.dependencies.append({})
        if self._dependents is not None:
            self._dependents.append({})
        self._levels.append(0)

    def extend(
        self, component_ids: Sequence[str], types: Sequence[str], priorities: Sequence[int], weights: Sequence[float]
    ) -> None:
        """Add many components; as `add` one after the other, but faster when all of them are new."""
        count = len(component_ids)
        first = len(self.component_ids)
        slots = dict(zip(component_ids, range(first, first + count), strict=True))
        if len(slots) < count or not slots.keys().isdisjoint(self.slot_of):
            for component in zip(component_ids, types, priorities, weights, strict=True):
                self.add(*component)
            return
        self._frozen = None
        if self.slot_of:
            self.slot_of.update(slots)
        else:
            self.slot_of = slots
        self.component_ids += component_ids
        self.types += types
        self.priorities += priorities
        self.weights += weights
        self.dependencies += [{} for _ in range(count)]
        if self._dependents is not None:
            self._dependents += [{} for _ in range(count)]
        self._levels += [0] * count

    def connect(self, dependent: int, dependency: int, required: bool) -> bool:
        """Let `dependent` run after `dependency`, unless that closes a cycle.

        A dependency that is there already stays; it becomes required if it was optional and now is required.

        Returns:
            whether the graph has the dependency now; False if it would close a cycle, and nothing has changed.
        """
        own = self.dependencies[dependent]
        known = own.get(dependency)
        if known is None:
            if not self._raise_levels(dependent, dependency):
                return False
            own[dependency] = required
            self.dependents[dependency][dependent] = None
            self.edge_count += 1
            self._frozen = None
        elif required and not known:
            own[dependency] = True
            self._frozen = None
        return True

    def connect_all(self, dependencies: Iterable[tuple[str, str, bool]], *, edges_max: int) -> int:
        """Add many dependencies by (dependent id, dependency id, required), all of them or none.

        O(components + dependencies) for all together, so less for each than `connect`; a few go one by one.

        Returns:
            how many were new.

        Raises:
            UnknownComponent: a component does not exist.
            CircularDependency: with the path of one cycle.
            GraphTooLarge: there would be more than `edges_max`. After each of these the graph is unchanged.
        """
        if len(self.slot_of) < len(self.component_ids):
            self._close_gaps()
        few = len(self) // FEW_SHARE
        rest = iter(dependencies)
        first = list(islice(rest, few + 1))
        if len(first) <= few:
            return self._connect_few(first, edges_max)
        return self._connect_many(chain(first, rest), edges_max)

    def _connect_few(self, dependencies: Iterable[tuple[str, str, bool]], edges_max: int) -> int:
        count = self.edge_count
        undo: list[tuple[int, int, bool | None]] = []
        try:
            for dependent_id, dependency_id, required in dependencies:
                dependent, dependency = self.slot(dependent_id), self.slot(dependency_id)
                known = self.dependencies[dependent].get(dependency)
                if not self.connect(dependent, dependency, required):
                    cycle = self.cycle_closed_by(dependent, dependency)
                    assert cycle is not None
                    raise CircularDependency([self.component_ids[slot] for slot in cycle])
                undo.append((dependent, dependency, known))
                if self.edge_count > edges_max:
                    raise GraphTooLarge("dependencies", actual=self.edge_count, limit=edges_max)
        except BaseException:
            for dependent, dependency, known in reversed(undo):
                if known is None:
                    self.disconnect(dependent, dependency)
                else:
                    self.dependencies[dependent][dependency] = known
            self._frozen = None
            raise
        return self.edge_count - count

    def _connect_many(self, dependencies: Iterable[tuple[str, str, bool]], edges_max: int) -> int:
        slot_of, before = self.slot_of, self.dependencies
        room = edges_max - self.edge_count
        dependents: list[int] = []
        targets: list[int] = []
        sharpened: list[tuple[int, int]] = []
        self._frozen = self._dependents = None
        try:
            for dependent_id, dependency_id, required in dependencies:
                try:
                    dependent = slot_of[dependent_id]
                    dependency = slot_of[dependency_id]
                except (KeyError, TypeError):
                    self.slot(dependent_id)
                    self.slot(dependency_id)
                    raise
                own = before[dependent]
                if dependency not in own:
                    own[dependency] = required
                    dependents.append(dependent)
                    targets.append(dependency)
                    if len(targets) > room:
                        raise GraphTooLarge("dependencies", actual=edges_max + 1, limit=edges_max)
                elif required and not own[dependency]:
                    own[dependency] = True
                    sharpened.append((dependent, dependency))
            levels = self._levels
            for level, phase in enumerate(self.freeze().iter_phases()):
                for position in phase:
                    levels[position] = level
        except BaseException:
            for dependent, dependency in sharpened:
                before[dependent][dependency] = False
            for dependent, dependency in zip(dependents, targets, strict=False):  # an interrupt may come between
                before[dependent].pop(dependency, None)
            self._frozen = self._dependents = None
            raise
        self.edge_count += len(targets)
        return len(targets)

    def disconnect(self, dependent: int, dependency: int) -> bool:
        """Remove a dependency; tell whether there was one."""
        if dependency not in self.dependencies[dependent]:
            return False
        self._disconnect(dependent, dependency)
        self._frozen = None
        return True

    def remove(self, slot: int) -> None:
        """Remove a component with all its dependencies; O(their number)."""
        for dependency in tuple(self.dependencies[slot]):
            self._disconnect(slot, dependency)
        for dependent in tuple(self.dependents[slot]):
            self._disconnect(dependent, slot)
        del self.slot_of[self.component_ids[slot]]
        self.component_ids[slot] = ""
        self._frozen = None

    def cycle_closed_by(self, dependent: int, dependency: int) -> list[int] | None:
        """Give the shortest cycle that a dependency would close: dependent, dependency … dependent; None if none."""
        if dependent == dependency:
            return [dependent, dependent]
        lowest = self._levels[dependent]
        came_from: dict[int, int] = {dependency: dependent}
        frontier = deque([dependency])
        while frontier:
            at = frontier.popleft()
            for following in self.dependencies[at]:
                if following == dependent:
                    path = [dependent, at]
                    while path[-1] != dependent:
                        path.append(came_from[path[-1]])
                    return path[::-1]
                if following not in came_from and self._levels[following] >= lowest:
                    came_from[following] = at
                    frontier.append(following)
        return None

    def freeze(self) -> Graph:
        """Give the graph as it is now, by position in order of insertion; the same one until something changes.

        Raises:
            CircularDependency: only inside `connect_all`, which takes everything back then.
        """
        if self._frozen is None:
            if len(self.slot_of) < len(self.component_ids):
                self._close_gaps()
            dependencies = tuple([tuple(own) for own in self.dependencies])
            optional = frozenset(
                (dependent, dependency)
                for dependent, own in enumerate(self.dependencies)
                if False in own.values()
                for dependency, required in own.items()
                if not required
            )
            self._frozen = Graph.of(tuple(self.component_ids), tuple(self.weights), dependencies, optional)
        return self._frozen

    def _disconnect(self, dependent: int, dependency: int) -> None:
        del self.dependents[dependency][dependent]  # first: they may be made from the dependencies only now
        del self.dependencies[dependent][dependency]
        self.edge_count -= 1

    def _raise_levels(self, dependent: int, dependency: int) -> bool:
        """Make the levels right for one more dependency; False, with the levels as before, if it closes a cycle."""
        if dependent == dependency:
            return False
        levels, dependents = self._levels, self.dependents
        level = levels[dependency]
        if level < levels[dependent]:
            return True
        if not dependents[dependent]:  # nothing runs after it, so there is no cycle, and it may rise freely
            levels[dependent] = level + 1
            return True
        before = self._before_on_level(dependency, level, dependent)
        if before is None:
            return self._lift(dependent, level + 1, {dependency})
        if dependent in before:
            return False
        return levels[dependent] == level or self._lift(dependent, level, before)

    def _before_on_level(self, start: int, level: int, goal: int) -> set[int] | None:
        """Collect what `start` depends on inside its level; stop early at `goal`; None if that is too much to see."""
        levels, dependencies = self._levels, self.dependencies
        steps_left = isqrt(self.edge_count) // SEARCH_SHARE + 1
        seen = {start}
        stack = [start]
        while stack:
            for dependency in dependencies[stack.pop()]:
                if levels[dependency] == level:
                    steps_left -= 1
                    if dependency not in seen:
                        seen.add(dependency)
                        if dependency == goal:
                            return seen
                        stack.append(dependency)
            if steps_left <= 0 and stack:
                return None
        return seen

    def _lift(self, start: int, level: int, before: set[int]) -> bool:
        """Lift a component, and what runs after it, to a level; False, taken back, if it meets `before`."""
        levels, dependents = self._levels, self.dependents
        lifted = [(start, levels[start])]
        levels[start] = level
        stack = [start]
        while stack:
            for dependent in dependents[stack.pop()]:
                if dependent in before:
                    for slot, old in lifted:
                        levels[slot] = old
                    return False
                if levels[dependent] < level:
                    lifted.append((dependent, levels[dependent]))
                    levels[dependent] = level
                    stack.append(dependent)
        return True

    def _close_gaps(self) -> None:
        alive = [bool(component_id) for component_id in self.component_ids]
        positions: list[int] = []
        position = 0
        for living in alive:
            positions.append(position)
            position += living
        self.types = list(compress(self.types, alive))
        self.priorities = list(compress(self.priorities, alive))
        self.weights = list(compress(self.weights, alive))
        self._levels = list(compress(self._levels, alive))
        self.dependencies = [
            {positions[slot]: required for slot, required in own.items()} for own in compress(self.dependencies, alive)
        ]
        self._dependents = None
        self.component_ids = list(compress(self.component_ids, alive))
        self.slot_of = {component_id: position for position, component_id in enumerate(self.component_ids)}
