"""An obvious interpreter of a run, to compare the engine with; and random workflows whose outcomes are scripted.

It reads the definition alone, one rule after the other until nothing changes any more; it shares no code with the
engine and its plans, and does not try to be quick.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

from synergymesh.domain.fault_tolerance.retry import RetryPolicy
from synergymesh.domain.states import ExecutionStatus
from synergymesh.domain.workflow.definition import Component, Dependency, WorkflowDefinition
from synergymesh.domain.workflow.templates import NodeRef

_S = ExecutionStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpretation:
    """Hold how a run ends: its own state, and that of every task by component."""

    status: ExecutionStatus
    tasks: dict[str, ExecutionStatus]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancellation:
    """Say what a run was doing when it was cancelled.

    Attributes:
        ended: the tasks whose attempts had all ended by then.
        running: how the tasks that were running then ended after all.
    """

    ended: frozenset[str]
    running: Mapping[str, ExecutionStatus] = field(default_factory=dict)


def interpret(
    definition: WorkflowDefinition,
    outcomes: Mapping[str, ExecutionStatus],
    cancellation: Cancellation | None = None,
) -> Interpretation:
    """Say how a run ends.

    Args:
        definition: what is run.
        outcomes: for every component, how its task ends if it is started: success, failed or timeout.
        cancellation: what the run was doing when it was cancelled; None if it never was.
    """
    components = {component.component_id: component for component in definition.components}
    can_start = set(components) if cancellation is None else cancellation.ended
    tasks: dict[str, ExecutionStatus] = {}
    changed = True
    while changed:
        changed = False
        for component_id, component in components.items():
            if component_id in tasks:
                continue
            if _lacks_what_it_requires(component, components, tasks):
                tasks[component_id] = _S.SKIPPED
            elif component_id in can_start and all(d.component_id in tasks for d in component.dependencies):
                tasks[component_id] = outcomes[component_id]
            else:
                continue
            changed = True
    if cancellation is not None:
        for component_id in components:
            tasks.setdefault(component_id, cancellation.running.get(component_id, _S.CANCELLED))
    return Interpretation(status=_status_of_run(components, tasks), tasks=tasks)


def _requires(dependency: Dependency, components: Mapping[str, Component]) -> bool:
    """Tell whether a dependent cannot do without: neither the dependency nor the component it names is optional."""
    return dependency.required and components[dependency.component_id].required


def _lacks_what_it_requires(
    component: Component, components: Mapping[str, Component], tasks: Mapping[str, ExecutionStatus]
) -> bool:
    return any(
        _requires(dependency, components) and tasks.get(dependency.component_id, _S.SUCCESS) is not _S.SUCCESS
        for dependency in component.dependencies
    )


def _status_of_run(components: Mapping[str, Component], tasks: Mapping[str, ExecutionStatus]) -> ExecutionStatus:
    if _S.CANCELLED in tasks.values():
        return _S.CANCELLED
    failed = [component_id for component_id, status in tasks.items() if status in (_S.FAILED, _S.TIMEOUT)]
    if not failed:
        return _S.SUCCESS
    return _S.PARTIAL if all(_is_tolerated(component_id, components) for component_id in failed) else _S.FAILED


def _is_tolerated(component_id: str, components: Mapping[str, Component]) -> bool:
    """Tell whether the run can do without: so it says, or all that depend on it can, and somebody does."""
    if not components[component_id].required:
        return True
    needs = [
        _requires(dependency, components)
        for component in components.values()
        for dependency in component.dependencies
        if dependency.component_id == component_id
    ]
    return bool(needs) and not any(needs)


# --- random workflows -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """Say what the attempts of a task do: fail so often, then end like this.

    Attributes:
        failures: attempts that fail before the one that ends like `ending`.
        ending: success, failed or timeout.
        retries: how many its policy allows.
    """

    failures: int
    ending: ExecutionStatus
    retries: int

    @property
    def outcome(self) -> ExecutionStatus:
        """Give the task's final state if it is started."""
        return self.ending if self.failures <= self.retries else _S.FAILED

    @property
    def attempts(self) -> int:
        """Count the attempts that are made if it is started; what ends badly uses up all of its retries."""
        if self.ending is not _S.SUCCESS:
            return self.retries + 1
        return min(self.failures, self.retries) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptedWorkflow:
    """Hold a random workflow and what each of its tasks does."""

    definition: WorkflowDefinition
    scripts: dict[str, Script]

    @property
    def outcomes(self) -> dict[str, ExecutionStatus]:
        """Give the final state of every task that is started."""
        return {component_id: script.outcome for component_id, script in self.scripts.items()}


def random_workflow(seed: int, *, components_max: int = 30, timeout: float | None = None) -> ScriptedWorkflow:
    """Make a workflow from a seed: random graph, optional dependencies and components, data and order, outcomes.

    Every component calls the task `scripted` with its own id and the results that it uses; the output has those of some
    components. Retries follow without delay.

    Args:
        seed: the same seed gives the same workflow.
        components_max: it has 1 to so many components.
        timeout: seconds, for the components that end in a timeout.
    """
    dice = Random(seed)
    count = dice.randint(1, components_max)
    density = dice.choice((0.05, 0.15, 0.4)) if count > 8 else dice.choice((0.2, 0.5, 0.8))
    troubles = dice.choice((0.0, 0.03, 0.08, 0.25))
    needed = dice.choice((0.1, 0.7, 0.9))
    ids = [f"c{number}" for number in range(count)]
    components: list[Component] = []
    scripts: dict[str, Script] = {}
    for number, component_id in enumerate(ids):
        sources = [source for source in ids[:number] if dice.random() < density]
        used = [NodeRef(source) for source in sources if dice.random() < 0.5]
        ending = _S.SUCCESS
        if dice.random() < troubles:
            ending = dice.choice((_S.FAILED, _S.FAILED, _S.TIMEOUT))
        scripts[component_id] = Script(
            failures=dice.choice((0, 0, 0, 1, 2)),
            ending=ending,
            retries=dice.choice((0, 1)) if dice.random() < troubles else 2,
        )
        components.append(
            Component(
                component_id=component_id,
                task="scripted",
                args=(component_id, *used),
                dependencies=tuple(Dependency(source, dice.random() < needed) for source in sources),
                required=dice.random() < needed,
                priority=dice.randint(-2, 2),
                weight=dice.choice((0.0, 0.5, 1.0, 3.0)),
                retry=RetryPolicy(max_retries=scripts[component_id].retries, initial_delay=0.0),
                timeout=timeout if ending is _S.TIMEOUT else None,
            )
        )
    dice.shuffle(components)  # nothing says that dependencies are declared first
    output = {component_id: NodeRef(component_id) for component_id in ids if dice.random() < 0.3}
    definition = WorkflowDefinition(name="random", parameters=(), components=tuple(components), output=output)
    return ScriptedWorkflow(definition=definition, scripts=scripts)
