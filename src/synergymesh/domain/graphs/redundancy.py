"""Dependencies that say nothing new: what a transitive reduction leaves out (Aho, Garey & Ullman 1972)."""

from __future__ import annotations

from dataclasses import dataclass

from synergymesh.domain.graphs.graph import Graph

BLOCK_BITS = 4_096
"""Goals that are looked for at once: a set of them is one whole number, half a kilobyte."""

SETS_BITS_MAX = 400_000_000
"""Bits of all such sets together: a large graph gets smaller blocks, so that they stay at some 100 MB."""

STEPS_MAX = 10_000_000
"""Dependencies that are looked at, those of every block together: some seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Redundancy:
    """Say which dependencies could be left out.

    Attributes:
        edges: (dependent, dependency) pairs by position; the dependent reaches the dependency through another one.
        is_complete: whether all were looked at; False if `STEPS_MAX` was not enough.
    """

    edges: tuple[tuple[int, int], ...]
    is_complete: bool


def redundant_edges(graph: Graph, *, steps_max: int = STEPS_MAX) -> Redundancy:
    """Find the dependencies that are implied by others.

    Only those that skip a phase can be. Their goals are numbered in topological order and taken `BLOCK_BITS` at a
    time; for every component between a block and the last of its dependents, the goals that it reaches are one
    whole number. O(goals / BLOCK_BITS * dependencies) at most; nothing at all where no dependency skips a phase.
    """
    order = graph.topological_order()
    place = [0] * len(order)
    for index, position in enumerate(order):
        place[position] = index
    levels = [0] * len(order)
    for level, phase in enumerate(graph.iter_phases()):
        for position in phase:
            levels[position] = level
    dependencies = graph.dependencies
    candidates: dict[int, list[int]] = {}
    for position in order:
        own = dependencies[position]
        if len(own) > 1:
            highest = levels[position] - 1
            for dependency in own:
                if levels[dependency] < highest:
                    candidates.setdefault(dependency, []).append(position)
    goals = sorted(candidates, key=place.__getitem__)

    found: list[tuple[int, int]] = []
    steps = 0
    bits = max(1, min(BLOCK_BITS, SETS_BITS_MAX // max(1, len(graph))))
    for first in range(0, len(goals), bits):
        block = goals[first : first + bits]
        bit_of = {goal: 1 << index for index, goal in enumerate(block)}
        asked: dict[int, list[int]] = {}
        for goal in block:
            for dependent in candidates[goal]:
                asked.setdefault(dependent, []).append(goal)
        last = max([place[dependent] for dependent in asked])
        below = [0] * len(order)  # goals of this block that a position runs after
        within = [0] * len(order)  # the same, itself included
        for position in order[place[block[0]] : last + 1]:
            own = dependencies[position]
            steps += len(own) + 1
            reached = 0
            for dependency in own:
                reached |= within[dependency]
            below[position] = reached
            if position in asked:
                indirectly = 0
                for dependency in own:
                    indirectly |= below[dependency]
                if indirectly:
                    found += [(position, goal) for goal in asked[position] if indirectly & bit_of[goal]]
            within[position] = reached | bit_of[position] if position in bit_of else reached
        if steps > steps_max:
            return Redundancy(edges=tuple(sorted(found)), is_complete=first + bits >= len(goals))
    return Redundancy(edges=tuple(sorted(found)), is_complete=True)
