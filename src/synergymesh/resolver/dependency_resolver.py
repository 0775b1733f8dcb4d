"""The dependency resolver: a graph that can be changed, and everything that can be asked about it."""

from __future__ import annotations

import gc
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from synergymesh.domain.graphs.analysis import (
    ExecutionPhase,
    Parallelization,
    Plan,
    Slack,
    execution_phases,
    parallelization,
    slack_of,
    statistics,
)
from synergymesh.domain.graphs.graph import (
    Graph,
    checked_component_id,
    checked_weight,
)
from synergymesh.domain.graphs.graph_order import GrowingGraph, reach
from synergymesh.domain.graphs.recommendations import Recommendation, recommend
from synergymesh.errors import GraphTooLarge, InvalidRequest
from synergymesh.resolver import formats, picture
from synergymesh.resolver.components import (
    Component,
    Dependency,
    DependencyNode,
    checked_components,
    checked_priority,
    checked_type,
    checked_workers,
    edges,
)
from synergymesh.resolver.views import View

if TYPE_CHECKING:
    from synergymesh.domain.workflow.definition import WorkflowDefinition

RESOLVER_COMPONENTS_MAX = 10_000_000
RESOLVER_DEPENDENCIES_MAX = 10_000_000
"""Ten million of each take some 5 GB; a workflow that is run has tighter limits, in `config`."""

RESULTS_MAX = 64
"""Results that are kept: enough for everything about the whole graph and a few parts of it."""

REFUSED_MAX = 1_000
"""Refused dependencies that are remembered: more than anyone reads."""

logger = logging.getLogger(__name__)

T = TypeVar("T")


class DependencyResolver:
    """Plan, analyse and advise on a graph of components.

    Results are kept until something changes. An object is for one thread at a time.

    Args:
        components_max: how many components it takes.
        dependencies_max: how many dependencies it takes.
    """

    def __init__(
        self,
        *,
        components_max: int = RESOLVER_COMPONENTS_MAX,
        dependencies_max: int = RESOLVER_DEPENDENCIES_MAX,
    ) -> None:
        self.components_max = components_max
        self.dependencies_max = dependencies_max
        self._graph = GrowingGraph()
        self._refused: deque[tuple[str, str]] = deque(maxlen=REFUSED_MAX)
        self._results: dict[tuple[object, ...], Any] = {}

    def __len__(self) -> int:
        return len(self._graph)

    def __contains__(self, component_id: object) -> bool:
        return component_id in self._graph.slot_of

    def __repr__(self) -> str:
        return f"<DependencyResolver: {len(self):,} components, {self._graph.edge_count:,} dependencies>"

    # --- changes ---------------------------------------------------------------------------------------------------

    def add_component(self, component_id: str, component_type: str, priority: int = 0, weight: float = 1.0) -> bool:
        """Add a component, or update the one of that id; O(1).

        Args:
            component_id: 1 to 200 characters.
            component_type: 1 to 200 characters; only carried.
            priority: among ready components the higher one is first.
            weight: expected seconds, 0 or more.

        Returns:
            True: the graph has it now.

        Raises:
            InvalidRequest: a value cannot be accepted.
            GraphTooLarge: there are `components_max` already.
        """
        checked_component_id(component_id)
        if component_id not in self._graph.slot_of and len(self) >= self.components_max:
            raise GraphTooLarge("components", actual=len(self) + 1, limit=self.components_max)
        self._graph.add(component_id, checked_type(component_type), checked_priority(priority), checked_weight(weight))
        self._results.clear()
        return True

    def add_components(self, components: Iterable[Component]) -> int:
        """Add or update many components, all of them or none; about 1 us for each.

        Args:
            components: ids, `DependencyNode`s, or tuples of the arguments of `add_component`.

        Returns:
            how many there were in `components`.

        Raises:
            InvalidRequest: a value cannot be accepted; nothing was added.
            GraphTooLarge: there would be more than `components_max`; nothing was added.
        """
        with _collector_paused():
            columns = checked_components(components)
            ids = columns.component_ids
            if len(self) + len(ids) > self.components_max:
                total = len(self._graph.slot_of.keys() | set(ids))
                if total > self.components_max:
                    raise GraphTooLarge("components", actual=total, limit=self.components_max)
            self._graph.extend(ids, columns.types, columns.priorities, columns.weights)
        self._results.clear()
        return len(ids)

    def add_dependency(self, from_component: str, to_component: str, required: bool = True) -> bool:
        """Let `from_component` run after `to_component`, unless that closes a cycle.

        O(1) in dependency order; O(sqrt(dependencies)) amortised in any order. The same dependency again changes
        nothing, except that an optional one becomes required.

        Args:
            from_component: who waits.
            to_component: whom it waits for.
            required: whether `from_component` cannot run if `to_component` fails.

        Returns:
            True if the graph has the dependency now. False if it would close a cycle: nothing has changed, and a
            warning with the path is logged.

        Raises:
            UnknownComponent: a component does not exist.
            GraphTooLarge: there are `dependencies_max` already.
        """
        graph = self._graph
        dependent, dependency = graph.slot(from_component), graph.slot(to_component)
        if graph.edge_count >= self.dependencies_max and dependency not in graph.dependencies[dependent]:
            raise GraphTooLarge("dependencies", actual=graph.edge_count + 1, limit=self.dependencies_max)
        if graph.connect(dependent, dependency, bool(required)):
            if self._results:
                self._results.clear()
            return True
        self._refused.append((from_component, to_component))
        self._results.clear()
        if logger.isEnabledFor(logging.WARNING):
            cycle = self.find_cycle(from_component, to_component) or []
            shown = cycle if len(cycle) <= 12 else [*cycle[:8], "…", *cycle[-3:]]
            logger.warning(
                "refused: %r cannot depend on %r, that closes the cycle %s",
                from_component,
                to_component,
                " -> ".join(shown),
            )
        return False

    def add_dependencies(self, dependencies: Iterable[Dependency]) -> int:
        """Add many dependencies, all of them or none; about 1 us for each if there are many.

        Args:
            dependencies: (from, to) or (from, to, required).

        Returns:
            how many were new.

        Raises:
            UnknownComponent: a component does not exist.
            CircularDependency: with the path of one cycle.
            GraphTooLarge: there would be more than `dependencies_max`. After each of these nothing has changed.
        """
        self._results.clear()
        with _collector_paused():
            return self._graph.connect_all(edges(dependencies), edges_max=self.dependencies_max)

    def remove_component(self, component_id: str) -> None:
        """Remove a component with all its dependencies; O(their number).

        Raises:
            UnknownComponent: it does not exist.
        """
        self._graph.remove(self._graph.slot(component_id))
        self._results.clear()

    def remove_dependency(self, from_component: str, to_component: str) -> bool:
        """Remove a dependency; O(1). Tell whether there was one.

        Raises:
            UnknownComponent: a component does not exist.
        """
        graph = self._graph
        removed = graph.disconnect(graph.slot(from_component), graph.slot(to_component))
        if removed:
            self._results.clear()
        return removed

    # --- the graph -------------------------------------------------------------------------------------------------

    @property
    def nodes(self) -> Mapping[str, DependencyNode]:
        """Show every component by its id, in order of insertion; read-only."""
        return View(self._graph, self._node)

    @property
    def graph(self) -> Mapping[str, tuple[str, ...]]:
        """Show what every component depends on directly; read-only."""
        return View(self._graph, lambda slot: self._ids(self._graph.dependencies[slot]))

    @property
    def reverse_graph(self) -> Mapping[str, tuple[str, ...]]:
        """Show what depends on every component directly; read-only."""
        return View(self._graph, lambda slot: self._ids(sorted(self._graph.dependents[slot])))

    @property
    def refused_dependencies(self) -> list[tuple[str, str]]:
        """Give the last thousand dependencies that `add_dependency` refused, as (from, to)."""
        return list(self._refused)

    def is_required(self, from_component: str, to_component: str) -> bool | None:
        """Tell whether a dependency is required; None if there is no such dependency.

        Raises:
            UnknownComponent: a component does not exist.
        """
        graph = self._graph
        return graph.dependencies[graph.slot(from_component)].get(graph.slot(to_component))

    def find_cycle(self, from_component: str, to_component: str) -> list[str] | None:
        """Give the shortest cycle that a dependency would close: from, to … from; None if it closes none.

        Raises:
            UnknownComponent: a component does not exist.
        """
        graph = self._graph
        cycle = graph.cycle_closed_by(graph.slot(from_component), graph.slot(to_component))
        return None if cycle is None else list(self._ids(cycle))

    def dependencies_of(self, component_id: str, *, transitive: bool = False) -> list[str]:
        """Give what a component runs after, in order of insertion; O(the answer and its dependencies).

        Raises:
            UnknownComponent: it does not exist.
        """
        slot = self._graph.slot(component_id)
        direct = self._graph.dependencies
        return list(self._ids(sorted(reach(slot, direct) if transitive else direct[slot])))

    def dependents_of(self, component_id: str, *, transitive: bool = False) -> list[str]:
        """Give what runs after a component, in order of insertion; O(the answer and its dependencies).

        Raises:
            UnknownComponent: it does not exist.
        """
        slot = self._graph.slot(component_id)
        direct = self._graph.dependents
        return list(self._ids(sorted(reach(slot, direct) if transitive else direct[slot])))

    def impact_of(self, component_id: str) -> list[str]:
        """Give what cannot run when a component fails: what requires it, directly or through others.

        Raises:
            UnknownComponent: it does not exist.
        """
        graph = self._graph
        start = graph.slot(component_id)
        lost: set[int] = set()
        stack = [start]
        while stack:
            failed = stack.pop()
            for dependent in graph.dependents[failed]:
                if dependent not in lost and graph.dependencies[dependent][failed]:
                    lost.add(dependent)
                    stack.append(dependent)
        return list(self._ids(sorted(lost)))

    # --- the plan --------------------------------------------------------------------------------------------------

    def topological_sort(self, component_ids: Iterable[str] | None = None) -> list[str]:
        """Sort components, dependencies first; O(components log components + dependencies).

        Among the ready ones the higher priority is first, then the longest remaining path, then insertion order.

        Args:
            component_ids: sort only these, by their dependencies inside the whole graph, through other components
                too; None for all.

        Raises:
            UnknownComponent: a component does not exist.
        """
        plan = self._plan(component_ids)
        return list(self._kept(("order", plan), lambda: plan.names(plan.order())))

    def get_execution_phases(self, component_ids: Iterable[str] | None = None) -> list[ExecutionPhase]:
        """Divide components into phases that can run side by side; O(components + dependencies).

        Raises:
            UnknownComponent: a component does not exist.
        """
        plan = self._plan(component_ids)
        return list(self._kept(("phases", plan), lambda: execution_phases(plan)))

    def get_critical_path(self, component_ids: Iterable[str] | None = None) -> list[str]:
        """Give the heaviest path in order of execution; O(components + dependencies).

        Raises:
            UnknownComponent: a component does not exist.
        """
        plan = self._plan(component_ids)
        return plan.names(self._kept(("critical path", plan), plan.critical_path))

    def get_slack(self, component_ids: Iterable[str] | None = None) -> dict[str, Slack]:
        """Give the earliest and latest start and the slack of every component; O(components + dependencies).

        Raises:
            UnknownComponent: a component does not exist.
        """
        plan = self._plan(component_ids)
        return dict(self._kept(("slack", plan), lambda: slack_of(plan)))

    def get_parallelization_analysis(
        self, component_ids: Iterable[str] | None = None, workers: int | Iterable[int] | None = None
    ) -> dict[str, Any]:
        """Analyse how much can run side by side, and what numbers of workers make of it.

        O(components + dependencies), and O(components log components + dependencies) for each number of workers.

        Args:
            component_ids: analyse only these; None for all.
            workers: numbers of workers to simulate; None for 1, 2, 4, 8 … up to the largest phase. Without numbers,
                more than 100,000 components get bounds only (`makespan_ms` is None).

        Returns:
            total_components, execution_phases, sequential_time_ms, parallel_time_ms, parallelization_factor,
            potential_speedup, max_width, average_width and schedules: a list of workers, makespan_ms,
            lower_bound_ms, upper_bound_ms, speedup, utilization.

        Raises:
            UnknownComponent: a component does not exist.
            InvalidRequest: a number of workers is below 1.
        """
        counts = None if workers is None else checked_workers(workers)
        plan = self._plan(component_ids)
        found: Parallelization = self._kept(("parallelization", plan, counts), lambda: parallelization(plan, counts))
        return {
            "total_components": found.total_components,
            "execution_phases": found.execution_phases,
            "sequential_time_ms": found.sequential_time_ms,
            "parallel_time_ms": found.parallel_time_ms,
            "parallelization_factor": found.parallelization_factor,
            "potential_speedup": found.potential_speedup,
            "max_width": found.max_width,
            "average_width": found.average_width,
            "schedules": [asdict(row) for row in found.schedules],
        }

    def recommendations(self) -> list[Recommendation]:
        """Give the advice on the graph, with components and figures; O(dependencies log dependencies) and more."""
        plan = self._plan(None)
        return list(self._kept(("recommendations",), lambda: recommend(plan)))

    def get_optimization_recommendations(self) -> list[str]:
        """Give the advice on the graph as sentences."""
        return [recommendation.message for recommendation in self.recommendations()]

    def get_dependency_stats(self) -> dict[str, Any]:
        """Give figures about the graph; O(components + dependencies).

        Returns:
            total_components, total_dependencies, average_dependency_count, max_dependency_depth (dependencies on the
            longest path), circular_dependencies (0: they are refused), refused_dependencies (how many it remembers),
            roots and leaves (ids), density (share of the ordered pairs of components).
        """
        return {**statistics(self._frozen()), "refused_dependencies": len(self._refused)}

    # --- formats ---------------------------------------------------------------------------------------------------

    def export_graph(self) -> dict[str, Any]:
        """Give the graph, its statistics and recommendations as plain data; `from_json` reads it."""
        return {
            **formats.document(self._graph),
            "statistics": self.get_dependency_stats(),
            "recommendations": self.get_optimization_recommendations(),
        }

    def to_json(self, *, indent: int | None = None) -> str:
        """Write `export_graph` as JSON."""
        return formats.to_json(self.export_graph(), indent=indent)

    @classmethod
    def from_json(cls, source: str | bytes | Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote, or `export_graph` gave; statistics and recommendations are computed anew.

        Raises:
            InvalidRequest: it is not such a graph.
        """
        return cls._of(*formats.from_json(source))

    @classmethod
    def from_definition(cls, definition: WorkflowDefinition) -> Self:
        """Build the graph of a workflow's definition; a component's type is the name of its task."""
        return cls._of(
            ((each.component_id, each.task, each.priority, each.weight) for each in definition.components),
            (
                (each.component_id, dependency.component_id, dependency.required)
                for each in definition.components
                for dependency in each.dependencies
            ),
        )

    @classmethod
    def from_wfformat(cls, trace: str | Path | Mapping[str, Any]) -> Self:
        """Read a WfFormat 1.5 trace, a JSON file or its content; a task's recorded runtime is its weight.

        Raises:
            WorkflowFileError: the file cannot be read or is no trace of that version.
            InvalidWorkflow: two tasks have the same id, or they wait for each other.
        """
        from synergymesh.workflows.wfformat import read_wfformat  # its validation takes longer to import than all else

        return cls.from_definition(read_wfformat(trace).definition)

    def to_dot(self) -> str:
        """Write the graph for Graphviz, dependencies first, the critical path emphasised."""
        return formats.to_dot(self._frozen())

    def to_mermaid(self) -> str:
        """Write the graph as a Mermaid flowchart, the critical path emphasised."""
        return formats.to_mermaid(self._frozen())

    def to_svg(self) -> str:
        """Draw the graph in layers, the critical path emphasised.

        Raises:
            GraphTooLarge: more components than a picture can show.
        """
        return picture.to_svg(self._frozen())

    # --- inside ----------------------------------------------------------------------------------------------------

    @classmethod
    def _of(cls, components: Iterable[Component], dependencies: Iterable[Dependency]) -> Self:
        resolver = cls()
        resolver.add_components(components)
        resolver.add_dependencies(dependencies)
        return resolver

    def _frozen(self) -> Graph:
        with _collector_paused():
            return self._graph.freeze()

    def _plan(self, component_ids: Iterable[str] | None) -> Plan:
        graph = self._frozen()
        if component_ids is None:
            return self._kept(("plan",), lambda: Plan(graph, tuple(self._graph.priorities)))
        if isinstance(component_ids, str):
            raise InvalidRequest("component_ids takes several ids, such as a list.", field="component_ids")
        slots = frozenset(map(self._graph.slot, component_ids))
        return self._kept(("plan", slots), lambda: Plan.part(graph, self._graph.priorities, slots))

    def _kept(self, key: tuple[object, ...], compute: Callable[[], T]) -> T:
        results = self._results
        kept: T
        if key in results:
            kept = results.pop(key)
        else:
            with _collector_paused():
                kept = compute()
            if len(results) >= RESULTS_MAX:
                del results[next(iter(results))]  # the one that was not asked for the longest
        results[key] = kept
        return kept

    def _ids(self, slots: Iterable[int]) -> tuple[str, ...]:
        return tuple(map(self._graph.component_ids.__getitem__, slots))

    def _node(self, slot: int) -> DependencyNode:
        graph = self._graph
        return DependencyNode(
            component_id=graph.component_ids[slot],
            component_type=graph.types[slot],
            priority=graph.priorities[slot],
            weight=graph.weights[slot],
            dependencies=self._ids(graph.dependencies[slot]),
            dependents=self._ids(sorted(graph.dependents[slot])),
        )


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Pause the cycle collector: it would go through millions of new objects that form no cycle, again and again."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
