"""A workflow version made ready to run: the definition by positions, shared by all of its runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from synergymesh.domain.fault_tolerance.retry import RetryPolicy
from synergymesh.domain.scheduling.limits import Request
from synergymesh.domain.scheduling.tenant_queue import NO_REQUEST
from synergymesh.domain.workflow.definition import Component, WorkflowDefinition
from synergymesh.domain.workflow.templates import compile_arguments, compile_template, inputs, references

ResultOf = Callable[[int], Any]
Arguments = Callable[[Mapping[str, Any], ResultOf], tuple[tuple[Any, ...], dict[str, Any]]]

MICROSECONDS = 1_000_000
COST_MICROSECONDS_MAX = 10**12
"""No single task is charged with more than eleven days; keeps every sum far inside 64 bits."""

RANKS_PER_PRIORITY = 2 * 10**18
"""One level of a component's priority outweighs any remaining path."""


class PlanLimits:
    """Hold the limits of time of a workflow that has any, in seconds.

    Attributes:
        timeout: of a run, from its start.
        queue_timeout: of its wait for that.
        totals: by position, of a task with all its attempts and waits.
        waits: by position, of a task's wait for its first attempt.
    """

    __slots__ = ("queue_timeout", "timeout", "totals", "waits")

    def __init__(self, definition: WorkflowDefinition, components: Sequence[Component]) -> None:
        self.timeout = definition.timeout
        self.queue_timeout = definition.queue_timeout
        self.totals = {p: c.total_timeout for p, c in enumerate(components) if c.total_timeout is not None}
        self.waits = {p: c.queue_timeout for p, c in enumerate(components) if c.queue_timeout is not None}

    @classmethod
    def of(cls, definition: WorkflowDefinition, components: Sequence[Component]) -> PlanLimits | None:
        """Give the limits of a workflow; None if it has none."""
        limits = cls(definition, components)
        has_any = limits.timeout or limits.queue_timeout or limits.totals or limits.waits
        return limits if has_any else None


class Plan:
    """Hold what the engine needs of a definition, by position (0 to size - 1).

    What undoes components has the positions from size on; it counts in no figure until it is needed.

    Attributes:
        components: the component at each position.
        undo: the position of what undoes a component, by that of the component.
        component_ids: the id at each position.
        dependents: for each position, pairs of (dependent's position, whether the dependency is required).
        open_dependencies: for each position, how many dependencies it has.
        roots: positions without dependencies.
        ranks: upward rank in microseconds: the longest remaining path, own weight included (Topcuoglu et al., "HEFT",
            2002); the component's own priority comes before it. The greatest goes first.
        costs: expected microseconds of each task.
        tolerated: whether the run goes on (and ends `partial`) when the component fails.
        heartbeats: seconds within which each attempt has to give a heartbeat; None if no task says any.
        limits: of the time of runs and tasks; None if there are none.
        requests: memory and CPU that each task takes while it runs.
        largest_request: the most of each that any task takes.
        learning_keys: what durations are learnt by.
        circuits: what can be held back by a breaker: ("", its name) or (workflow, component).
        features: what the definition needs of a tenant's tier, and why.
        sources: positions whose results the component's arguments use.
        uses: for each position, how many components and outputs use its result.
    """

    __slots__ = (
        "arguments",
        "circuits",
        "component_ids",
        "components",
        "content_hash",
        "costs",
        "definition",
        "dependents",
        "features",
        "heartbeats",
        "largest_request",
        "learning_keys",
        "limits",
        "needs_input",
        "open_dependencies",
        "output",
        "output_needs_input",
        "output_position",
        "policies",
        "positions",
        "ranks",
        "requests",
        "roots",
        "size",
        "sources",
        "timeouts",
        "tolerated",
        "undo",
        "uses",
        "workflow",
    )

    def __init__(
        self, definition: WorkflowDefinition, default_policy: RetryPolicy, default_request: Request = NO_REQUEST
    ) -> None:
        components = definition.components
        undoing = definition.compensations
        self.definition = definition
        self.workflow = definition.name
        self.content_hash = definition.content_hash
        self.size = len(components)
        self.positions = positions = definition.positions
        edges = [
            (position, positions[d.component_id], d.required and components[positions[d.component_id]].required)
            for position, component in enumerate(components)
            for d in component.dependencies
        ]
        dependents: list[list[tuple[int, bool]]] = [[] for _ in components]
        self.open_dependencies = [0] * self.size
        for dependent, dependency, required in edges:
            dependents[dependency].append((dependent, required))
            self.open_dependencies[dependent] += 1
        self.dependents = [tuple(d) for d in dependents]
        self.roots = tuple(p for p, count in enumerate(self.open_dependencies) if not count)
        self.ranks = [
            component.priority * RANKS_PER_PRIORITY + min(int(rank * MICROSECONDS), RANKS_PER_PRIORITY // 2)
            for component, rank in zip(components, definition.graph.upward_ranks(), strict=True)
        ]
        self.tolerated = [
            not component.required or (bool(out) and not any(required for _, required in out))
            for component, out in zip(components, self.dependents, strict=True)
        ]
        self.undo: dict[int, int] = {}
        if undoing:
            self.undo = {positions[done]: self.size + number for number, done in enumerate(undoing)}
            components = (*components, *undoing.values())
            self.positions = positions = {c.component_id: p for p, c in enumerate(components)}
            self.dependents += [()] * len(undoing)
            self.ranks += [c.priority * RANKS_PER_PRIORITY for c in undoing.values()]
            self.tolerated += [False] * len(undoing)
        self.components = components
        self.component_ids = tuple(c.component_id for c in components)
        self.costs = [min(int(c.weight * MICROSECONDS), COST_MICROSECONDS_MAX) for c in components]
        self.policies = [c.retry or default_policy for c in components]
        self.timeouts = [c.timeout for c in components]
        self.heartbeats = (
            [c.heartbeat_timeout for c in components] if any(c.heartbeat_timeout for c in components) else None
        )
        self.limits = PlanLimits.of(definition, components)
        self.requests = [
            Request(
                default_request.memory_mb if c.memory_mb is None else c.memory_mb,
                default_request.cpu_millis if c.cpus is None else int(c.cpus * 1_000),
            )
            for c in components
        ]
        self.largest_request = Request(
            max(r.memory_mb for r in self.requests), max(r.cpu_millis for r in self.requests)
        )
        self.learning_keys = [(definition.name, c) for c in self.component_ids]
        self.circuits = [
            key if c.breaker is None else ("", c.breaker) for key, c in zip(self.learning_keys, components, strict=True)
        ]
        self.features = _features(definition)
        self.arguments: list[Arguments] = [compile_arguments(c.args, c.kwargs, positions) for c in components]
        self.sources = [tuple(positions[r] for r in references([*c.args, *c.kwargs.values()])) for c in components]
        self.needs_input = [bool(inputs([*c.args, *c.kwargs.values()])) for c in components]
        self.output_needs_input = bool(inputs(definition.output))
        self.uses = [0] * len(components)
        for sources in self.sources:
            for source in sources:
                self.uses[source] += 1
        for component_id in references(definition.output):
            self.uses[positions[component_id]] += 1
        self.output = compile_template(definition.output, positions)
        self.output_position = _whole_output(definition, positions)


def _features(definition: WorkflowDefinition) -> dict[str, str]:
    """Say which features of a tier a definition uses."""
    used: dict[str, str] = {}
    for component in (*definition.components, *definition.compensations.values()):
        shown = f"{component.component_id!r} of {definition.name!r}"
        if component.retry is not None:
            used.setdefault("advanced_retry", f"the retry policy of {shown}")
        if component.memory_mb is not None or component.cpus is not None:
            used.setdefault("resource_management", f"memory_mb or cpus of {shown}")
        if component.priority:
            used.setdefault("custom_policies", f"the priority of {shown}")
    return used


def _whole_output(definition: WorkflowDefinition, positions: Mapping[str, int]) -> int | None:
    """Give the position whose result is the run's result as it is, so that it need not be decoded and encoded."""
    output = definition.output
    component_id = getattr(output, "component_id", None)
    return positions[component_id] if component_id is not None and not output.path else None
