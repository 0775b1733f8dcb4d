"""Advice on a plan: each piece names components and carries a figure that was computed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from synergymesh.domain.graphs.analysis import MILLISECONDS, Plan
from synergymesh.domain.graphs.criticality import gains
from synergymesh.domain.graphs.graph import Graph
from synergymesh.domain.graphs.list_schedule import makespan
from synergymesh.domain.graphs.redundancy import redundant_edges

GAIN_SHARE_MIN = 0.05
"""A change that saves less than a twentieth of the plan is not worth a word."""

BOTTLENECK_DEGREE_MIN = 3
"""Fewer than three on each side is no bottleneck."""

BOTTLENECK_SHARE_MIN = 0.25
"""What less than a quarter of the others has to pass is none either."""

BOTTLENECKS_MAX = 3
"""Bottlenecks that are named: the worst ones."""

SIMULATED_COMPONENTS_MAX = 20_000
"""Components up to which the useful number of workers is found by simulation; beyond it, from the bounds."""


class RecommendationKind(StrEnum):
    """Name what a recommendation is about."""

    EMPTY = "empty"
    HEALTHY = "healthy"
    SPEED_UP = "speed_up"
    CUT = "cut"
    REDUNDANT = "redundant"
    BOTTLENECK = "bottleneck"
    CHAIN = "chain"
    ISOLATED = "isolated"
    WORKERS = "workers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """Recommend something about a plan.

    Attributes:
        kind: what it is about.
        message: one or two sentences for people.
        components: the components it is about, all of them.
        dependencies: (dependent, dependency) pairs it is about, all of them.
        figure: what was computed.
        unit: of the figure: "ms", "components", "dependencies", "workers", "x".
    """

    kind: RecommendationKind
    message: str
    components: tuple[str, ...] = ()
    dependencies: tuple[tuple[str, str], ...] = ()
    figure: float
    unit: str


def recommend(plan: Plan) -> list[Recommendation]:
    """Give the advice on a plan, what shortens it most first.

    The plan must be of a whole graph. O(dependencies log dependencies), and the search for redundant dependencies.
    """
    assert plan.members is None
    graph = plan.graph
    if not len(graph):
        return [
            Recommendation(
                kind=RecommendationKind.EMPTY,
                message="The graph has 0 components: there is nothing to run yet.",
                figure=0,
                unit="components",
            )
        ]
    advice = [*_gains(graph), *_redundant(graph), *_bottlenecks(graph), *_chains(graph), *_isolated(graph)]
    if not advice:
        advice.append(_healthy(plan))
    advice.append(_workers(plan))
    return advice


def duration(seconds: float) -> str:
    """Show seconds for people: "250 ms", "3.2 s", "4 min 10 s"."""
    if seconds < 1:
        return f"{seconds * MILLISECONDS:.3g} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 36_000:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest} s"
    return f"{seconds / 3600:,.1f} h" if seconds < 1e12 else f"{seconds:.3g} s"


def _some(names: tuple[str, ...], limit: int = 4) -> str:
    shown = ", ".join(repr(name) for name in names[:limit])
    return f"{shown} and {len(names) - limit:,} more" if len(names) > limit else shown


def _gains(graph: Graph) -> list[Recommendation]:
    found = gains(graph)
    names = graph.component_ids
    threshold = found.span * GAIN_SHARE_MIN
    advice: list[Recommendation] = []
    best, index = max(((gain, -index) for index, gain in enumerate(found.of_component)), default=(0.0, 0))
    if best > 0 and best >= threshold:
        name = names[found.path[-index]]
        advice.append(
            Recommendation(
                kind=RecommendationKind.SPEED_UP,
                message=f"Speed up {name!r}: nothing else shortens the plan as much, by up to {duration(best)}, "
                f"from {duration(found.span)} to {duration(found.span - best)}.",
                components=(name,),
                figure=best * MILLISECONDS,
                unit="ms",
            )
        )
    best, index = max(((gain, -index) for index, gain in enumerate(found.of_dependency)), default=(0.0, 0))
    if best > 0 and best >= threshold:
        dependency, dependent = names[found.path[-index]], names[found.path[-index + 1]]
        advice.append(
            Recommendation(
                kind=RecommendationKind.CUT,
                message=f"Look whether {dependent!r} has to wait for {dependency!r}: without this dependency the plan "
                f"is {duration(best)} shorter, {duration(found.span - best)} instead of {duration(found.span)}.",
                components=(dependent, dependency),
                dependencies=((dependent, dependency),),
                figure=best * MILLISECONDS,
                unit="ms",
            )
        )
    return advice


def _redundant(graph: Graph) -> list[Recommendation]:
    found = redundant_edges(graph)
    if not found.edges:
        return []
    names = graph.component_ids
    pairs = tuple((names[dependent], names[dependency]) for dependent, dependency in found.edges)
    total = sum(map(len, graph.dependencies))
    shown = "; ".join(f"{dependent!r} on {dependency!r}" for dependent, dependency in pairs[:3])
    more = f"; and {len(pairs) - 3:,} more" if len(pairs) > 3 else ""
    verb = "is" if len(pairs) == 1 else "are"
    least = "" if found.is_complete else "At least "
    return [
        Recommendation(
            kind=RecommendationKind.REDUNDANT,
            message=f"{least}{len(pairs):,} of {total:,} dependencies {verb} implied by others and can go if no data "
            f"passes: "
            f"{shown}{more}.",
            components=tuple(dict.fromkeys(dependent for dependent, _ in pairs)),
            dependencies=pairs,
            figure=len(pairs),
            unit="dependencies",
        )
    ]


def _bottlenecks(graph: Graph) -> list[Recommendation]:
    count = len(graph)
    average = sum(map(len, graph.dependencies)) / count
    least = max(BOTTLENECK_DEGREE_MIN, 2 * average)
    narrow = [
        (min(len(before), len(after)), len(before) + len(after), -position)
        for position, (before, after) in enumerate(zip(graph.dependencies, graph.dependents, strict=True))
        if len(before) >= least and len(after) >= least
    ]
    advice: list[Recommendation] = []
    for *_, negative in sorted(narrow, reverse=True)[:BOTTLENECKS_MAX]:
        position = -negative
        before, after = len(graph.everything_before(position)), len(graph.everything_after(position))
        name = graph.component_ids[position]
        if before + after < BOTTLENECK_SHARE_MIN * (count - 1):
            continue
        beside = count - 1 - before - after
        advice.append(
            Recommendation(
                kind=RecommendationKind.BOTTLENECK,
                message=f"{name!r} is a bottleneck: {before:,} components have to end before it and {after:,} wait "
                f"for it ({len(graph.dependencies[position]):,} and {len(graph.dependents[position]):,} directly); "
                f"{beside:,} of the other {count - 1:,} can run beside it. Split it, or let fewer wait for it.",
                components=(name,),
                figure=before + after,
                unit="components",
            )
        )
    return advice


def _chains(graph: Graph) -> list[Recommendation]:
    """Find runs of components that each have one neighbour on the side of the run."""
    dependencies, dependents = graph.dependencies, graph.dependents

    def follows(position: int) -> bool:
        return len(dependencies[position]) == 1 and len(dependents[dependencies[position][0]]) == 1

    chains: list[list[int]] = []
    for start in range(len(graph)):
        if len(dependents[start]) == 1 and not follows(start) and follows(dependents[start][0]):
            chain = [start]
            while len(dependents[chain[-1]]) == 1 and follows(dependents[chain[-1]][0]):
                chain.append(dependents[chain[-1]][0])
            chains.append(chain)
    if not chains:
        return []
    longest = max(chains, key=len)
    names = graph.component_ids
    members = tuple(names[position] for chain in chains for position in chain)
    saved = sum(len(chain) - 1 for chain in chains)
    shown = _some(tuple(names[position] for position in longest))
    seconds = sum(graph.weights[position] for position in longest)
    runs = "1 chain runs" if len(chains) == 1 else f"{len(chains):,} chains run"
    return [
        Recommendation(
            kind=RecommendationKind.CHAIN,
            message=f"{runs} strictly one after the other and could be merged, {saved:,} "
            f"{'task' if saved == 1 else 'tasks'} less to start: the longest is {shown} "
            f"({len(longest):,} components, {duration(seconds)}).",
            components=members,
            figure=saved,
            unit="components",
        )
    ]


def _isolated(graph: Graph) -> list[Recommendation]:
    alone = tuple(
        graph.component_ids[position]
        for position, (before, after) in enumerate(zip(graph.dependencies, graph.dependents, strict=True))
        if not before and not after
    )
    if not alone or len(alone) == len(graph):  # nothing but independent components is a plan, not an oversight
        return []
    has = "1 component has" if len(alone) == 1 else f"{len(alone):,} components have"
    return [
        Recommendation(
            kind=RecommendationKind.ISOLATED,
            message=f"{has} no dependency on either side: {_some(alone)}. Is one missing?",
            components=alone,
            figure=len(alone),
            unit="components",
        )
    ]


def _healthy(plan: Plan) -> Recommendation:
    work, span = plan.work(), plan.span()
    factor = work / span if span else 1.0
    count = len(plan.graph)
    share = f"{GAIN_SHARE_MIN:.0%}"
    return Recommendation(
        kind=RecommendationKind.HEALTHY,
        message=f"The graph is healthy: no single change to its {count:,} components or "
        f"{sum(map(len, plan.graph.dependencies)):,} dependencies shortens the plan of {duration(span)} by {share}, "
        f"nothing is redundant or isolated, and it can run {factor:.2f} times as fast as one by one.",
        components=(),
        figure=factor,
        unit="x",
    )


def _workers(plan: Plan) -> Recommendation:
    """Find the smallest number of workers that takes no longer than any larger one."""
    span = plan.span()
    phases = plan.phases()
    widest = max(phases, key=len)
    if len(plan.graph) > SIMULATED_COMPONENTS_MAX:
        useful, sure = max(1, -int(-plan.work() // span) if span else 1), False
    else:
        useful, sure = _useful_workers(plan), True
    name = plan.graph.component_ids[widest[0]]
    wide = "1 component" if len(widest) == 1 else f"{len(widest):,} components"
    people = "1 worker" if useful == 1 else f"{useful:,} workers"
    if sure:
        message = (
            f"More than {people} would gain nothing: with {useful:,} the plan takes {duration(span)}, its critical "
            f"path; the widest phase, with {name!r}, has {wide}."
        )
    else:
        message = (
            f"At least {people} are needed to come near the critical path of {duration(span)}; "
            f"the widest phase, with {name!r}, has {wide}."
        )
    return Recommendation(
        kind=RecommendationKind.WORKERS, message=message, components=(name,), figure=useful, unit="workers"
    )


def _useful_workers(plan: Plan) -> int:
    """Search from the fewest workers that could reach the span: most plans need hardly more."""
    graph, span = plan.graph, plan.span()
    if not span:
        return 1
    enough = span * (1 + 1e-9)
    latest_starts = [enough - rank for rank in graph.upward_ranks()]
    low = int(plan.work() / enough)  # too few: not even if they were never idle
    enough_for_all = max(low + 1, plan.peak())
    high = low + 1
    step = 1
    while high < enough_for_all and makespan(graph, plan.listed(), high, latest_starts=latest_starts) > enough:
        low, high, step = high, min(high + step, enough_for_all), step * 2
    while high - low > 1:
        middle = (low + high) // 2
        if makespan(graph, plan.listed(), middle, latest_starts=latest_starts) <= enough:
            high = middle
        else:
            low = middle
    return high
