"""What a plan would gain: from a faster component, or from a dependency less."""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import accumulate, pairwise

from synergymesh.domain.graphs.graph import Graph


@dataclass(frozen=True, slots=True, kw_only=True)
class Gains:
    """Say by how many seconds the critical path could shrink.

    Attributes:
        span: seconds of the critical path.
        path: positions on it, in order of execution.
        of_component: for each of these, the gain if it took no time at all.
        of_dependency: for each but the first, the gain if it did not depend on the one before.
    """

    span: float
    path: tuple[int, ...]
    of_component: tuple[float, ...]
    of_dependency: tuple[float, ...]


def gains(graph: Graph) -> Gains:
    """Compute every gain in one sweep along a topological order; O(dependencies log dependencies).

    Only what is on every critical path gains anything, so what is on one of them is enough to look at. A path that
    avoids a component lies before it in the order, or after it, or leaps over it with exactly one dependency; a path
    that avoids a dependency of the critical path ends before its dependent, or starts there or later, or leaps over
    the place between with another one.
    """
    path = graph.critical_path()
    if not path:
        return Gains(span=0.0, path=(), of_component=(), of_dependency=())
    weights, dependents = graph.weights, graph.dependents
    order = graph.topological_order()
    place = [0] * len(order)
    for index, position in enumerate(order):
        place[position] = index
    tails = graph.upward_ranks()
    heads = [start + weight for start, weight in zip(graph.earliest_starts(), weights, strict=True)]
    span = tails[path[0]]
    # the heaviest path that ends before, or starts at or after, a place of the order
    before = [*accumulate((heads[position] for position in order), max, initial=0.0)]
    after = [*accumulate((tails[position] for position in reversed(order)), max, initial=0.0)][::-1]

    of_component: list[float] = []
    of_dependency: list[float] = []
    leaps: list[tuple[float, int]] = []  # (-weight of the heaviest path over it, place of its dependent)
    following = dict(pairwise(path))
    index = 0
    for critical in path:
        here = place[critical]
        for position in order[index:here]:
            for dependent in dependents[position]:
                end = place[dependent]
                if end > here:
                    heappush(leaps, (-heads[position] - tails[dependent], end))
        avoiding = max(before[here], after[here + 1], _heaviest(leaps, here))
        of_component.append(max(0.0, span - max(avoiding, span - weights[critical])))
        if critical in following:
            for dependent in dependents[critical]:
                if dependent != following[critical]:
                    heappush(leaps, (-heads[critical] - tails[dependent], place[dependent]))
            avoiding = max(before[here + 1], after[here + 1], _heaviest(leaps, here))
            of_dependency.append(max(0.0, span - avoiding))
        index = here + 1
    return Gains(span=span, path=tuple(path), of_component=tuple(of_component), of_dependency=tuple(of_dependency))


def _heaviest(leaps: list[tuple[float, int]], here: int) -> float:
    while leaps and leaps[0][1] <= here:
        heappop(leaps)
    return -leaps[0][0] if leaps else 0.0
