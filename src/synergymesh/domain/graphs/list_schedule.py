"""How long a plan takes when a number of workers share it: a greedy list schedule and its bounds.

A worker that is free takes the first ready component of the list. Such a schedule takes at least `max(work / workers,
span)` and at most `work / workers + (1 - 1 / workers) * span` (Graham, "Bounds on Multiprocessing Timing Anomalies",
1969; Brent, "The Parallel Evaluation of General Arithmetic Expressions", 1974), whatever the list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from itertools import accumulate
from math import inf

from synergymesh.domain.graphs.graph import Graph


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Say what a number of workers makes of a plan; durations in milliseconds.

    Attributes:
        workers: how many components run at a time.
        makespan_ms: how long the list schedule takes; None if it was not simulated because the plan is large.
        lower_bound_ms: no schedule is shorter.
        upper_bound_ms: no list schedule is longer.
        speedup: sequential time / makespan (of the upper bound, if there is no makespan).
        utilization: the share of the workers' time that is spent on components.
    """

    workers: int
    makespan_ms: float | None
    lower_bound_ms: float
    upper_bound_ms: float
    speedup: float
    utilization: float


def bounds(work: float, span: float, workers: int) -> tuple[float, float]:
    """Give the lower and the upper bound of the makespan, in the unit of `work` and `span`."""
    return max(work / workers, span), work / workers + (1 - 1 / workers) * span


def makespan(
    graph: Graph,
    listed: Sequence[int],
    workers: int,
    members: bytes | None = None,
    latest_starts: Sequence[float] | None = None,
) -> float:
    """Simulate a list schedule and give the seconds it takes; O(components log components + dependencies).

    Args:
        graph: the plan.
        listed: every position of the graph, the one to prefer first.
        workers: at least 1.
        members: by position, 0 for what needs no worker and no time; None if there is no such thing.
        latest_starts: by position; give up, with infinity, as soon as one starts later.
    """
    assert workers >= 1
    weights, dependents = graph.weights, graph.dependents
    places = [0] * len(listed)
    for place, position in enumerate(listed):
        places[position] = place
    waiting_for = list(map(len, graph.dependencies))
    ready = [places[position] for position, count in enumerate(waiting_for) if not count]
    heapify(ready)
    running: list[tuple[float, int]] = []
    passed: list[int] = []  # what needs no worker and was reached just now
    now = 0.0
    free = workers
    while True:
        while ready and free:
            position = listed[heappop(ready)]
            if latest_starts is not None and now > latest_starts[position]:
                return inf
            free -= 1
            heappush(running, (now + weights[position], position))
        if not running:
            return now
        now, ended = heappop(running)
        free += 1
        while True:
            for dependent in dependents[ended]:
                waiting_for[dependent] -= 1
                if not waiting_for[dependent]:
                    if members is None or members[dependent]:
                        heappush(ready, places[dependent])
                    else:
                        passed.append(dependent)
            if passed:
                ended = passed.pop()
            elif running and running[0][0] <= now:  # what ends at the same moment may release what is preferred
                ended = heappop(running)[1]
                free += 1
            else:
                break


def peak_width(starts: Sequence[float], weights: Sequence[float], positions: Sequence[int]) -> int:
    """Give how many run at once when each starts as early as it can; with so many workers the plan takes its span."""
    # at one moment: first the ends, then the starts, then the ends of what takes no time
    moments = [(starts[position], 1) for position in positions]
    for position in positions:
        start = starts[position]
        end = start + weights[position]
        moments.append((end, 0 if end > start else 2))
    moments.sort()
    changes = (1 if kind == 1 else -1 for _, kind in moments)
    return max(accumulate(changes), default=0)
