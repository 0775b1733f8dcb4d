"""What can be said about a plan: its order, phases, critical path, slack, and what workers make of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from math import fsum
from typing import Any, Self

import msgspec

from synergymesh.domain.graphs.graph import Graph
from synergymesh.domain.graphs.list_schedule import Schedule, bounds, makespan, peak_width

MILLISECONDS = 1_000.0

SIMULATED_COMPONENTS_MAX = 100_000
"""Components up to which a table of schedules is simulated (some 2 us each and row); beyond it only has bounds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionPhase:
    """Describe components that can run side by side once all earlier phases are done.

    Attributes:
        phase_number: from 1.
        components: ids in order of insertion.
        can_parallel: whether there is more than one.
        estimated_duration_ms: the longest component, since they run side by side.
        dependency_count: direct dependencies of its components.
    """

    phase_number: int
    components: tuple[str, ...]
    can_parallel: bool
    estimated_duration_ms: float
    dependency_count: int


class Slack(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Say when a component can start, in milliseconds after the start of the plan.

    Attributes:
        earliest_start_ms: when its dependencies have ended.
        latest_start_ms: later than that, and the plan takes longer.
        slack_ms: the time between; 0 on a critical path.
    """

    earliest_start_ms: float
    latest_start_ms: float
    slack_ms: float


class Plan:
    """Hold a graph with priorities, or the part of it that some components make up.

    A part keeps what lies between its components as well, marked as no member: it orders them, and costs nothing.

    Attributes:
        graph: the components and what lies between them.
        priorities: by position.
        members: by position, 0 for what only lies between; None if all are members.
    """

    __slots__ = ("_listed", "_peak", "_starts", "graph", "members", "priorities")

    def __init__(self, graph: Graph, priorities: Sequence[int], members: bytes | None = None) -> None:
        self.graph = graph
        self.priorities = priorities
        self.members = members
        self._listed: list[int] | None = None
        self._starts: list[float] | None = None
        self._peak: int | None = None

    @classmethod
    def part(cls, graph: Graph, priorities: Sequence[int], positions: Iterable[int]) -> Self:
        """Build the plan of some positions, ordered by their dependencies through all others too."""
        wanted = set(positions)
        before = _reached(wanted, graph.dependencies, None)
        between = sorted(_reached(wanted, graph.dependents, before))
        position_of = {old: new for new, old in enumerate(between)}
        dependencies = [
            tuple([position_of[dependency] for dependency in graph.dependencies[old] if dependency in position_of])
            for old in between
        ]
        part = Graph.of(
            tuple([graph.component_ids[old] for old in between]),
            tuple([graph.weights[old] if old in wanted else 0.0 for old in between]),
            tuple(dependencies),
        )
        members = bytes([old in wanted for old in between]) if len(between) > len(wanted) else None
        return cls(part, [priorities[old] for old in between], members)

    @property
    def positions(self) -> Sequence[int]:
        """Give the positions of the members."""
        members = self.members
        everything = range(len(self.graph))
        return everything if members is None else [position for position in everything if members[position]]

    def names(self, positions: Iterable[int]) -> list[str]:
        """Give the ids of positions."""
        return list(map(self.graph.component_ids.__getitem__, positions))

    def listed(self) -> list[int]:
        """Give all positions, the one to prefer first: by priority, longest remaining path, insertion."""
        if self._listed is None:
            listed = sorted(range(len(self.graph)), key=self.graph.upward_ranks().__getitem__, reverse=True)
            if len(set(self.priorities)) > 1:
                listed.sort(key=self.priorities.__getitem__, reverse=True)
            self._listed = listed
        return self._listed

    def order(self) -> list[int]:
        """Give the members, dependencies first; among the ready ones the one that `listed` prefers."""
        graph, members, listed = self.graph, self.members, self.listed()
        places = [0] * len(listed)
        for place, position in enumerate(listed):
            places[position] = place
        waiting_for = list(map(len, graph.dependencies))
        dependents = graph.dependents
        ready = [places[position] for position, count in enumerate(waiting_for) if not count]
        heapify(ready)
        order: list[int] = []
        while ready:
            position = listed[heappop(ready)]
            order.append(position)
            released = [position]
            for at in released:  # grows: what only lies between is passed at once
                for dependent in dependents[at]:
                    waiting_for[dependent] -= 1
                    if not waiting_for[dependent]:
                        if members is None or members[dependent]:
                            heappush(ready, places[dependent])
                        else:
                            released.append(dependent)
        return order

    def phases(self) -> list[Sequence[int]]:
        """Give the members by the largest number of members on a path before them."""
        graph, members = self.graph, self.members
        if members is None:
            return list(graph.iter_phases())
        levels = [0] * len(graph)
        phases: list[list[int]] = []
        for phase in graph.iter_phases():
            for position in phase:
                for dependency in graph.dependencies[position]:
                    levels[position] = max(levels[position], levels[dependency] + members[dependency])
                if members[position]:
                    while len(phases) <= levels[position]:
                        phases.append([])
                    phases[levels[position]].append(position)
        return [sorted(phase) for phase in phases]

    def critical_path(self) -> list[int]:
        """Give the members on the heaviest path, in order of execution."""
        path = self.graph.critical_path()
        return path if self.members is None else [position for position in path if self.members[position]]

    def span(self) -> float:
        """Give the seconds of the critical path."""
        return max(self.graph.upward_ranks(), default=0.0)

    def work(self) -> float:
        """Give the seconds of all components one after the other."""
        return fsum(self.graph.weights)

    def starts(self) -> list[float]:
        """Give, by position, the seconds after which each can start at the earliest."""
        if self._starts is None:
            self._starts = self.graph.earliest_starts()
        return self._starts

    def peak(self) -> int:
        """Give how many run at once if each starts as early as it can; more workers than that make no difference."""
        if self._peak is None:
            self._peak = peak_width(self.starts(), self.graph.weights, self.positions)
        return self._peak


def execution_phases(plan: Plan) -> list[ExecutionPhase]:
    """Describe the phases of a plan."""
    name = plan.graph.component_ids.__getitem__
    weight = plan.graph.weights.__getitem__
    own = plan.graph.dependencies.__getitem__
    return [
        ExecutionPhase(
            phase_number=number,
            components=tuple(map(name, phase)),
            can_parallel=len(phase) > 1,
            estimated_duration_ms=max(map(weight, phase)) * MILLISECONDS,
            dependency_count=sum(map(len, map(own, phase))),
        )
        for number, phase in enumerate(plan.phases(), start=1)
    ]


def slack_of(plan: Plan) -> dict[str, Slack]:
    """Give the slack of every member (critical path method: Kelley & Walker 1959)."""
    ranks, starts, span = plan.graph.upward_ranks(), plan.starts(), plan.span()
    critical = set(plan.critical_path())
    rounding = span * 1e-12
    slacks: dict[str, Slack] = {}
    for position in plan.positions:
        earliest = starts[position]
        slack = span - ranks[position] - earliest
        if slack <= rounding or position in critical:
            slack = 0.0
        slacks[plan.graph.component_ids[position]] = Slack(
            earliest_start_ms=earliest * MILLISECONDS,
            latest_start_ms=(earliest + slack) * MILLISECONDS,
            slack_ms=slack * MILLISECONDS,
        )
    return slacks


@dataclass(frozen=True, slots=True, kw_only=True)
class Parallelization:
    """Say how much of a plan can run side by side; durations in milliseconds.

    Attributes:
        total_components: how many there are.
        execution_phases: how many phases.
        sequential_time_ms: one after the other.
        parallel_time_ms: with as many workers as wanted: the critical path.
        parallelization_factor: the ratio of the two; 1 if there is nothing to do.
        max_width: components of the largest phase.
        average_width: components of a phase.
        schedules: what numbers of workers make of it.
    """

    total_components: int
    execution_phases: int
    sequential_time_ms: float
    parallel_time_ms: float
    parallelization_factor: float
    max_width: int
    average_width: float
    schedules: tuple[Schedule, ...]

    @property
    def potential_speedup(self) -> str:
        """Give the factor for people, as in "3.33x"."""
        return f"{self.parallelization_factor:.2f}x"


def worker_counts(max_width: int) -> list[int]:
    """Give 1, 2, 4, 8 … and `max_width` itself."""
    counts = [1 << power for power in range(max_width.bit_length()) if 1 << power < max_width]
    return [*counts, max_width] if max_width else []


def parallelization(plan: Plan, workers: Iterable[int] | None = None) -> Parallelization:
    """Analyse how much of a plan can run side by side.

    Args:
        plan: what to analyse.
        workers: the numbers of workers to simulate; None for 1, 2, 4, 8 … up to the largest phase. That table has
            bounds only for plans of more than `SIMULATED_COMPONENTS_MAX` components.
    """
    widths = list(map(len, plan.phases()))
    total, max_width = sum(widths), max(widths, default=0)
    work, span = plan.work(), plan.span()
    simulated = workers is not None or total <= SIMULATED_COMPONENTS_MAX
    counts = worker_counts(max_width) if workers is None else list(workers)
    return Parallelization(
        total_components=total,
        execution_phases=len(widths),
        sequential_time_ms=work * MILLISECONDS,
        parallel_time_ms=span * MILLISECONDS,
        parallelization_factor=work / span if span else 1.0,
        max_width=max_width,
        average_width=total / len(widths) if widths else 0.0,
        schedules=tuple(schedules(plan, counts, simulated=simulated)),
    )


def schedules(plan: Plan, counts: Iterable[int], *, simulated: bool = True) -> list[Schedule]:
    """Simulate a plan with numbers of workers, or only give the bounds."""
    work, span = plan.work(), plan.span()
    rows: list[Schedule] = []
    for workers in counts:
        lower, upper = bounds(work, span, workers)
        seconds: float | None
        if workers == 1:
            seconds = work
        elif not simulated:
            seconds = None
        elif workers >= plan.peak():
            seconds = span
        else:
            seconds = makespan(plan.graph, plan.listed(), workers, plan.members)
        shown = upper if seconds is None else seconds
        rows.append(
            Schedule(
                workers=workers,
                makespan_ms=None if seconds is None else seconds * MILLISECONDS,
                lower_bound_ms=lower * MILLISECONDS,
                upper_bound_ms=upper * MILLISECONDS,
                speedup=work / shown if shown else 1.0,
                utilization=work / (shown * workers) if shown else 1.0,
            )
        )
    return rows


def statistics(graph: Graph) -> dict[str, Any]:
    """Give figures about a graph; O(components + dependencies)."""
    count, total = len(graph), sum(map(len, graph.dependencies))
    ids = graph.component_ids
    return {
        "total_components": count,
        "total_dependencies": total,
        "average_dependency_count": total / count if count else 0.0,
        "max_dependency_depth": max(0, sum(1 for _ in graph.iter_phases()) - 1),
        "circular_dependencies": 0,
        "roots": [component_id for component_id, own in zip(ids, graph.dependencies, strict=True) if not own],
        "leaves": [component_id for component_id, own in zip(ids, graph.dependents, strict=True) if not own],
        "density": total / (count * (count - 1)) if count > 1 else 0.0,
    }


def _reached(start: Iterable[int], following: Sequence[Iterable[int]], within: set[int] | None) -> set[int]:
    reached = set(start)
    stack = list(reached)
    while stack:
        for position in following[stack.pop()]:
            if position not in reached and (within is None or position in within):
                reached.add(position)
                stack.append(position)
    return reached
