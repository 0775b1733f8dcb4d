"""Measure the dependency resolver beside raw rustworkx, networkx and graphlib.

    python -m benchmarks.resolver [SIZE ...]

Every measurement runs in a process of its own, so that the peak of its memory is its own. The graph is random and
layered: layers of sqrt(SIZE) components, each component depends on three of the layer before. The input, lists of
names, weights and pairs of names, is made before the clock starts; all contenders give back names.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import pairwise
from math import fsum, isqrt
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Any

SIZES = (10_000, 100_000, 1_000_000)
SLOW_SIZE_MAX = 100_000
"""Components up to which list schedules are compared, and dependencies are added one by one in a bad order."""

RATIO_MAX = 2.5
MEMORY_MB_MAX = 1_500
ONE_BY_ONE_US_MAX = 20
SMALL_MS_MAX = 5

Pairs = list[tuple[str, str]]


def layered(size: int, seed: int = 1) -> tuple[list[str], list[float], Pairs]:
    """Make the names, weights and (dependent, dependency) pairs of a random layered graph."""
    random = Random(seed).random
    width = max(1, isqrt(size))
    names = [f"component-{number}" for number in range(size)]
    weights = [random() for _ in names]
    pairs = [
        (names[number], names[(number // width - 1) * width + chosen])
        for number in range(width, size)
        for chosen in {int(random() * width) for _ in range(3)}
    ]
    return names, weights, pairs


def memory_mb() -> float:
    """Give the peak of this process's memory in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Laps:
    """Take the time of one step after the other."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = perf_counter()

    def lap(self, name: str) -> None:
        """End a step."""
        now = perf_counter()
        self.seconds[name] = now - self._last
        self._last = perf_counter()


# --- contenders -----------------------------------------------------------------------------------------------------


def synergymesh(size: int) -> dict[str, Any]:
    """Measure the resolver."""
    from synergymesh.resolver import DependencyResolver

    names, weights, pairs = layered(size)
    before = memory_mb()
    laps = Laps()
    resolver = DependencyResolver()
    resolver.add_components([(name, "task", 0, weight) for name, weight in zip(names, weights, strict=True)])
    resolver.add_dependencies(pairs)
    laps.lap("build")
    phases = resolver.get_execution_phases()
    laps.lap("phases")
    path = resolver.get_critical_path()
    laps.lap("critical path")
    analysis = resolver.get_parallelization_analysis(workers=())
    laps.lap("analysis")
    memory = memory_mb()
    if size <= SLOW_SIZE_MAX:
        resolver.get_parallelization_analysis(workers=(16,))
        laps.lap("schedule")
    return {
        "seconds": laps.seconds,
        "input_mb": before,
        "memory_mb": memory,
        "phases": len(phases),
        "span_ms": analysis["parallel_time_ms"],
        "path": len(path),
    }


def rustworkx(size: int) -> dict[str, Any]:
    """Measure the calls of rustworkx that give the same results, names included."""
    import rustworkx as rx

    names, weights, pairs = layered(size)
    before = memory_mb()
    laps = Laps()
    graph: rx.PyDiGraph[str, None] = rx.PyDiGraph(multigraph=True)
    graph.add_nodes_from(names)
    index = {name: number for number, name in enumerate(names)}
    graph.add_edges_from_no_data([(index[dependency], index[dependent]) for dependent, dependency in pairs])
    laps.lap("build")
    generations = rx.topological_generations(graph)
    phases = [([names[i] for i in generation], max([weights[i] for i in generation])) for generation in generations]
    laps.lap("phases")
    # the weight of a component is that of the edges to it; the first one of the path comes on top, so each first
    # component gets an edge from a common source
    source = graph.add_node("")
    graph.add_edges_from_no_data([(source, number) for number in generations[0]])
    indices = rx.dag_weighted_longest_path(graph, lambda _, target, __: weights[target])
    path = [names[i] for i in indices if i != source]
    laps.lap("critical path")
    work, span = fsum(weights), fsum(weights[i] for i in indices if i != source)
    widths = [len(generation) for generation in generations]
    _ = (work / span, max(widths), size / len(widths))
    laps.lap("analysis")
    memory = memory_mb()
    if size <= SLOW_SIZE_MAX:
        graph.remove_node(source)
        laps.lap("")
        _list_schedule(rx, graph, weights, 16)
        laps.lap("schedule")
        del laps.seconds[""]
    return {
        "seconds": laps.seconds,
        "input_mb": before,
        "memory_mb": memory,
        "phases": len(phases),
        "span_ms": span * 1_000,
        "path": len(path),
    }


def _list_schedule(rx: Any, graph: Any, weights: list[float], workers: int) -> float:
    """Simulate a list schedule, longest remaining path first, with the sorter of rustworkx."""
    ranks = list(weights)
    for number in reversed(rx.topological_sort(graph)):
        ranks[number] += max((ranks[i] for i in graph.successor_indices(number)), default=0.0)
    sorter = rx.TopologicalSorter(graph, check_cycle=False)
    ready = [(-ranks[i], i) for i in sorter.get_ready()]
    ready.sort()
    running: list[tuple[float, int]] = []
    now = 0.0
    while ready or running:
        while ready and len(running) < workers:
            _, number = heappop(ready)
            heappush(running, (now + weights[number], number))
        now, number = heappop(running)
        sorter.done(number)
        for following in sorter.get_ready():
            heappush(ready, (-ranks[following], following))
    return now


def networkx(size: int) -> dict[str, Any]:
    """Measure networkx, with the weight of a component on the edges to it."""
    import networkx as nx

    names, weights, pairs = layered(size)
    before = memory_mb()
    laps = Laps()
    weight = dict(zip(names, weights, strict=True))
    graph = nx.DiGraph()
    graph.add_nodes_from(names)
    graph.add_weighted_edges_from((dependency, dependent, weight[dependent]) for dependent, dependency in pairs)
    laps.lap("build")
    phases = list(nx.topological_generations(graph))
    laps.lap("phases")
    graph.add_weighted_edges_from(("", name, weight[name]) for name in phases[0])
    path = nx.dag_longest_path(graph)[1:]
    laps.lap("critical path")
    span = fsum(weight[name] for name in path)
    _ = (fsum(weights) / span, max(map(len, phases)), size / len(phases))
    laps.lap("analysis")
    return {
        "seconds": laps.seconds,
        "input_mb": before,
        "memory_mb": memory_mb(),
        "phases": len(phases),
        "span_ms": span * 1_000,
        "path": len(path),
    }


def graphlib(size: int) -> dict[str, Any]:
    """Measure the sorter of the standard library, which knows phases and nothing of weights."""
    from graphlib import TopologicalSorter

    names, _, pairs = layered(size)
    before = memory_mb()
    laps = Laps()
    sorter: TopologicalSorter[str] = TopologicalSorter(dict.fromkeys(names, ()))
    for dependent, dependency in pairs:
        sorter.add(dependent, dependency)
    sorter.prepare()
    laps.lap("build")
    phases = []
    while sorter.is_active():
        phase = sorter.get_ready()
        phases.append(phase)
        sorter.done(*phase)
    laps.lap("phases")
    return {"seconds": laps.seconds, "input_mb": before, "memory_mb": memory_mb(), "phases": len(phases)}


def one_by_one(size: int) -> dict[str, Any]:
    """Add dependencies one at a time, each with its cycle check: in dependency order, reversed, and shuffled."""
    from synergymesh.resolver import DependencyResolver

    names, _, pairs = layered(size)
    microseconds = {}
    for order in ("in order", "reversed", "shuffled"):
        if order != "in order" and size > SLOW_SIZE_MAX:
            continue
        listed, edges = list(names), list(pairs)
        if order == "reversed":
            listed.reverse()
            edges.reverse()
        elif order == "shuffled":
            Random(2).shuffle(listed)
            Random(3).shuffle(edges)
        resolver = DependencyResolver()
        resolver.add_components(listed)
        add = resolver.add_dependency
        start = perf_counter()
        for dependent, dependency in edges:
            add(dependent, dependency)
        microseconds[order] = (perf_counter() - start) / len(edges) * 1e6
    return {"us": microseconds, "memory_mb": memory_mb()}


def small(size: int) -> dict[str, Any]:
    """Do everything there is with a graph of a few hundred components; the median of a hundred times."""
    from synergymesh.resolver import DependencyResolver

    names, weights, pairs = layered(size)
    taken = []
    for _ in range(100):
        start = perf_counter()
        resolver = DependencyResolver()
        resolver.add_components([(name, "task", 0, weight) for name, weight in zip(names, weights, strict=True)])
        resolver.add_dependencies(pairs)
        resolver.topological_sort()
        resolver.get_execution_phases()
        resolver.get_critical_path()
        resolver.get_slack()
        resolver.get_parallelization_analysis()
        resolver.recommendations()
        resolver.export_graph()
        taken.append(perf_counter() - start)
    return {"ms": sorted(taken)[len(taken) // 2] * 1e3}


def chain(size: int) -> dict[str, Any]:
    """Do everything there is with one long chain."""
    from synergymesh.resolver import DependencyResolver

    names = [f"component-{number}" for number in range(size)]
    start = perf_counter()
    resolver = DependencyResolver()
    resolver.add_components(names)
    for dependency, dependent in pairwise(names):
        resolver.add_dependency(dependent, dependency)
    assert resolver.topological_sort() == names == resolver.get_critical_path()
    assert len(resolver.get_execution_phases()) == size
    resolver.get_slack()
    resolver.get_parallelization_analysis()
    resolver.recommendations()
    return {"seconds": {"everything": perf_counter() - start}, "memory_mb": memory_mb()}


CONTENDERS: dict[str, Callable[[int], dict[str, Any]]] = {
    "synergymesh": synergymesh,
    "rustworkx": rustworkx,
    "networkx": networkx,
    "graphlib": graphlib,
    "one by one": one_by_one,
    "small": small,
    "chain": chain,
}


def repeats(size: int) -> int:
    """Say how often a measurement is made; the fastest one counts, since others use the machine too."""
    return 3 if size <= SLOW_SIZE_MAX else 2


def fastest(contender: str, size: int) -> dict[str, Any]:
    """Measure a contender that reports seconds several times and give the figures of the fastest run."""
    runs = [measured(contender, size) for _ in range(repeats(size))]
    return min(runs, key=lambda figures: sum(figures["seconds"].values()))


def measured(contender: str, size: int) -> dict[str, Any]:
    """Run a contender in a process of its own and give its figures."""
    command = [sys.executable, str(Path(__file__).resolve()), "--contender", contender, str(size)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measure all contenders, print a table, and give the figures back."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("sizes", nargs="*", type=int, default=SIZES, metavar="SIZE", help="numbers of components")
    parser.add_argument("--contender", choices=CONTENDERS, help="measure only this one, in this process, as JSON")
    chosen = parser.parse_args([] if arguments is None else arguments)
    if chosen.contender:
        figures = {}
        for size in chosen.sizes:
            figures = CONTENDERS[chosen.contender](size)
            print(json.dumps(figures))
        return figures

    steps = ("build", "phases", "critical path", "analysis")
    results: dict[str, Any] = {}
    print(f"{'':>24}" + "".join(f"{step:>15}" for step in (*steps, "together", "memory", "schedule")))
    for size in chosen.sizes:
        rows = {name: fastest(name, size) for name in ("synergymesh", "rustworkx")}
        rows |= {name: measured(name, size) for name in ("networkx", "graphlib")}
        for name, row in rows.items():
            seconds = row["seconds"]
            row["together"] = sum(seconds[step] for step in steps if step in seconds)
            shown = [f"{seconds[step]:.3f} s" if step in seconds else "-" for step in steps]
            shown += [f"{row['together']:.3f} s", f"{row['memory_mb']:,.0f} MB"]
            shown.append(f"{seconds['schedule']:.3f} s" if "schedule" in seconds else "-")
            print(f"{size:>11,} {name:<12}" + "".join(f"{value:>15}" for value in shown), flush=True)
        ours, raw = rows["synergymesh"], rows["rustworkx"]
        assert ours["phases"] == raw["phases"]
        assert abs(ours["span_ms"] - raw["span_ms"]) <= 1e-6 * raw["span_ms"]
        ratio = ours["together"] / raw["together"]
        goal = f", at most {RATIO_MAX} and {MEMORY_MB_MAX:,} MB wanted" if size >= 1_000_000 else ""
        print(f"{'':>12}{ratio:.2f} times raw rustworkx{goal}")
        one = measured("one by one", size)
        told = ", ".join(f"{order} {value:.1f} us" for order, value in one["us"].items())
        print(f"{'':>12}one dependency at a time: {told} (in order at most {ONE_BY_ONE_US_MAX} us wanted)", flush=True)
        results[str(size)] = {**rows, "ratio": ratio, "one_by_one_us": one["us"]}
    results["small"] = measured("small", 200)
    results["chain"] = measured("chain", 100_000)
    print(f"everything about 200 components: {results['small']['ms']:.2f} ms (at most {SMALL_MS_MAX} ms wanted)")
    print(f"everything about a chain of 100,000: {results['chain']['seconds']['everything']:.2f} s")
    return results


if __name__ == "__main__":
    main(sys.argv[1:])
