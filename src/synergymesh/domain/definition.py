"""Definitions of workflows: what is run, as a value that is valid once it exists and is known by its content."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from typing import Any

import msgspec

from synergymesh.config import COMPONENTS_MAX, DEPENDENCIES_MAX, IDENTIFIER_MAX
from synergymesh.domain import templates
from synergymesh.domain.graph import WEIGHT_MAX, Graph
from synergymesh.domain.quota import QUOTA_FIELD_MAX
from synergymesh.domain.retry import RetryPolicy
from synergymesh.domain.templates import Template
from synergymesh.errors import DuplicateComponent, GraphTooLarge, InvalidWorkflow, UnknownComponent

FORMAT = 1
"""Version of the JSON of a definition."""

PRIORITY_MAX = 1_000
"""Priorities are from -1000 to 1000: enough to order anything, and they fit into any database's integer."""

CPUS_MAX = 100_000
"""CPUs of one task: far above any cluster, so a larger figure is a mistake."""


def check_identifier(value: object, noun: str) -> str:
    """Return a name or id that can be shown and indexed.

    Raises:
        InvalidWorkflow: not text, empty, too long, or with control characters.
    """
    if not isinstance(value, str) or not value.strip():
        raise InvalidWorkflow(f"{noun} must be a text that is not empty, not {value!r:.100}.", field=noun)
    if len(value) > IDENTIFIER_MAX:
        raise InvalidWorkflow(
            f"{noun} has {len(value):,} characters ({value[:20]!r}…), the limit is {IDENTIFIER_MAX}.", field=noun
        )
    if not value.isprintable():
        raise InvalidWorkflow(f"{noun} {value!r} has control characters. Leave them out.", field=noun)
    return value


class Dependency(msgspec.Struct, frozen=True, gc=False):
    """Name a component that has to end first; if it is not required, however it ends."""

    component_id: str
    required: bool = True


class Parameter(msgspec.Struct, frozen=True):
    """Name an input of a workflow; `default` is JSON and counts when it is not required."""

    name: str
    required: bool = True
    default: Any = None

    def __post_init__(self) -> None:
        check_identifier(self.name, "parameter name")


class Component(msgspec.Struct, frozen=True):
    """Describe a node of the graph: a call of a task.

    Attributes:
        component_id: unique in the workflow.
        task: name of the task that is called.
        args: templates of the positional arguments.
        kwargs: templates of the keyword arguments.
        dependencies: those whose results are used and those that only come first, each once.
        required: whether the run fails when this component does.
        weight: expected seconds, 0 to `WEIGHT_MAX`.
        priority: a whole number from -1000 to 1000; higher ones go first within a tenant.
        retry: None for the default policy.
        timeout: seconds for one attempt, above 0; None for no limit.
        memory_mb: MiB that it takes of its tenant's quota while it runs; None for the default of the settings.
        cpus: CPUs that it takes, 1.0 is one; None for the default of the settings.

    Raises:
        InvalidWorkflow: a field is outside its range.
    """

    component_id: str
    task: str
    args: tuple[Template, ...] = ()
    kwargs: dict[str, Template] = {}
    dependencies: tuple[Dependency, ...] = ()
    required: bool = True
    weight: float = 1.0
    priority: int = 0
    retry: RetryPolicy | None = None
    timeout: float | None = None
    memory_mb: int | None = None
    cpus: float | None = None

    def __post_init__(self) -> None:
        check_identifier(self.component_id, "component id")
        check_identifier(self.task, "task name")
        if len(self.dependencies) > 1 and len({each.component_id for each in self.dependencies}) < len(
            self.dependencies
        ):
            raise InvalidWorkflow(f"{self.component_id!r} names a dependency twice.", field="dependencies")
        check_settings(
            f"component {self.component_id!r}",
            weight=self.weight,
            priority=self.priority,
            retry=self.retry,
            timeout=self.timeout,
            memory_mb=self.memory_mb,
            cpus=self.cpus,
        )


def check_settings(
    owner: str, *, weight: Any, priority: Any, retry: Any, timeout: Any, memory_mb: Any, cpus: Any
) -> None:
    """Check the settings that tasks and components share.

    Raises:
        InvalidWorkflow: one is outside its range; the message names `owner`.
    """
    if not _is_number(weight) or not 0 <= weight <= WEIGHT_MAX:
        raise InvalidWorkflow(
            f"{owner}: weight is the expected seconds, a finite number from 0, not {weight!r}.", field="weight"
        )
    if not isinstance(priority, int) or isinstance(priority, bool) or not -PRIORITY_MAX <= priority <= PRIORITY_MAX:
        raise InvalidWorkflow(
            f"{owner}: priority must be a whole number from {-PRIORITY_MAX} to {PRIORITY_MAX}, not {priority!r}.",
            field="priority",
        )
    if retry is not None and not isinstance(retry, RetryPolicy):
        raise InvalidWorkflow(f"{owner}: retry takes a RetryPolicy, not {retry!r}.", field="retry")
    if timeout is not None and (not _is_number(timeout) or not 0 < timeout < math.inf):
        raise InvalidWorkflow(
            f"{owner}: timeout is a number of seconds above 0, or None, not {timeout!r}.", field="timeout"
        )
    if memory_mb is not None and (
        not isinstance(memory_mb, int) or isinstance(memory_mb, bool) or not 0 <= memory_mb <= QUOTA_FIELD_MAX
    ):
        raise InvalidWorkflow(
            f"{owner}: memory_mb is a whole number of MiB from 0, or None, not {memory_mb!r}.", field="memory_mb"
        )
    if cpus is not None and (not _is_number(cpus) or not 0 <= cpus <= CPUS_MAX):
        raise InvalidWorkflow(
            f"{owner}: cpus is a number of CPUs from 0 to {CPUS_MAX:,}, or None, not {cpus!r}.", field="cpus"
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True)
class WorkflowDefinition:
    """Describe a workflow completely: two with equal JSON are the same workflow.

    Attributes:
        name: of the workflow.
        parameters: its inputs.
        components: its nodes, in the order in which they were declared.
        output: template of the result.
        positions: component id -> position.
        graph: of the components by position, edges from `dependencies`.

    Edges from components that are not required are made optional.

    Raises:
        InvalidWorkflow: it has no components, an input is unknown or unused, or a result is used without dependency.
        DuplicateComponent: two components have the same id.
        UnknownComponent: a dependency or a reference names none.
        CircularDependency: components wait for each other.
        GraphTooLarge: more components or dependencies than the limits.
    """

    name: str
    parameters: tuple[Parameter, ...]
    components: tuple[Component, ...]
    output: Template
    positions: dict[str, int] = field(init=False, compare=False, repr=False)
    graph: Graph = field(init=False, compare=False, repr=False)
    _json: bytes | None = field(init=False, compare=False, repr=False, default=None)
    _hash: str | None = field(init=False, compare=False, repr=False, default=None)

    def __post_init__(self) -> None:
        check_identifier(self.name, "workflow name")
        count = len(self.components)
        if count == 0:
            raise InvalidWorkflow(f"workflow {self.name!r} has no components. Call a task in it.")
        if count > COMPONENTS_MAX:
            raise GraphTooLarge("components", actual=count, limit=COMPONENTS_MAX)
        total = sum(len(component.dependencies) for component in self.components)
        if total > DEPENDENCIES_MAX:
            raise GraphTooLarge("dependencies", actual=total, limit=DEPENDENCIES_MAX)
        positions: dict[str, int] = {}
        for position, component in enumerate(self.components):
            if positions.setdefault(component.component_id, position) != position:
                raise DuplicateComponent(component.component_id)
        object.__setattr__(self, "positions", positions)
        self._make_edges_of_optional_components_optional()
        self._check_references()
        edges = [
            (position, positions[dependency.component_id], dependency.required)
            for position, component in enumerate(self.components)
            for dependency in component.dependencies
        ]
        weights = [float(component.weight) for component in self.components]
        object.__setattr__(self, "graph", Graph.build(list(positions), weights, edges))

    def _make_edges_of_optional_components_optional(self) -> None:
        optional = {component.component_id for component in self.components if not component.required}
        if not optional:
            return
        components = []
        for component in self.components:
            if any(each.required and each.component_id in optional for each in component.dependencies):
                dependencies = tuple(
                    Dependency(each.component_id, each.required and each.component_id not in optional)
                    for each in component.dependencies
                )
                component = msgspec.structs.replace(component, dependencies=dependencies)
            components.append(component)
        object.__setattr__(self, "components", tuple(components))

    def _check_references(self) -> None:
        positions = self.positions
        names = [parameter.name for parameter in self.parameters]
        if len(set(names)) < len(names):
            raise InvalidWorkflow(f"workflow {self.name!r} has two parameters of the same name.")
        used: set[str] = set()
        for component in self.components:
            for dependency in component.dependencies:
                if dependency.component_id not in positions:
                    raise self._unknown(dependency.component_id)
            if component.args or component.kwargs:
                values = [*component.args, *component.kwargs.values()]
                ids, inputs = templates.mentions(values)
                used |= inputs
                ids.difference_update([dependency.component_id for dependency in component.dependencies])
                if ids:
                    self._refuse_reference(component, min(ids))
        for component_id in templates.references(self.output):
            if component_id not in positions:
                raise self._unknown(component_id)
        used.update(templates.inputs(self.output))
        for name in sorted(used.difference(names)):
            nearest = get_close_matches(name, names, n=1)
            hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
            raise InvalidWorkflow(f"workflow {self.name!r} has no parameter {name!r}.{hint}", field=name)
        for name in names:
            if name not in used:
                raise InvalidWorkflow(
                    f"workflow {self.name!r} never uses its input {name!r}. Pass it to a task, or remove it.",
                    field=name,
                )

    def _refuse_reference(self, component: Component, component_id: str) -> None:
        if component_id not in self.positions:
            raise self._unknown(component_id)
        raise InvalidWorkflow(
            f"{component.component_id!r} uses the result of {component_id!r} without depending on it.",
            field="dependencies",
        )

    def _unknown(self, component_id: str) -> UnknownComponent:
        return UnknownComponent(component_id, get_close_matches(component_id, self.positions, n=3))

    def __hash__(self) -> int:
        return hash(self.content_hash)

    @property
    def content_hash(self) -> str:
        """Give the SHA-256 of the JSON, in hex."""
        if self._hash is None:
            object.__setattr__(self, "_hash", hashlib.sha256(self.to_json()).hexdigest())
        assert self._hash is not None
        return self._hash

    def to_json(self) -> bytes:
        """Give the JSON: always the same bytes for the same definition; what has its default value is left out."""
        if self._json is None:
            document = {
                "format": FORMAT,
                "name": self.name,
                "parameters": [
                    {"name": each.name} if each.required else {"name": each.name, "default": each.default}
                    for each in self.parameters
                ],
                "components": [_component_to_json(component) for component in self.components],
                "output": templates.to_json(self.output),
            }
            object.__setattr__(self, "_json", msgspec.json.encode(document))
        assert self._json is not None
        return self._json

    @classmethod
    def from_json(cls, raw: bytes) -> WorkflowDefinition:
        """Read what `to_json` wrote.

        Raises:
            InvalidWorkflow: it is no definition, one of another version, or not valid.
        """
        try:
            document = msgspec.json.decode(raw)
            version = document["format"]
            shared: dict[tuple[str, bool], Dependency] = {}
            if version == FORMAT:
                return cls(
                    name=document["name"],
                    parameters=tuple(
                        Parameter(each["name"], required="default" not in each, default=each.get("default"))
                        for each in document["parameters"]
                    ),
                    components=tuple([_component_from_json(each, shared) for each in document["components"]]),
                    output=templates.from_json(document["output"]),
                )
        except (msgspec.DecodeError, KeyError, TypeError, AttributeError) as error:
            raise InvalidWorkflow(f"this is no workflow definition: {type(error).__name__}: {error}") from error
        raise InvalidWorkflow(
            f"a definition of format {version!r} was made by another version; this one reads {FORMAT}."
        )


def _component_to_json(component: Component) -> dict[str, Any]:
    document: dict[str, Any] = {"id": component.component_id, "task": component.task}
    if component.args:
        document["args"] = templates.to_json(component.args)
    if component.kwargs:
        document["kwargs"] = {name: templates.to_json(value) for name, value in component.kwargs.items()}
    if component.dependencies:
        document["dependencies"] = [each.component_id for each in component.dependencies]
        optional = [each.component_id for each in component.dependencies if not each.required]
        if optional:
            document["optional"] = optional
    if not component.required:
        document["required"] = False
    if component.weight != 1.0:
        document["weight"] = float(component.weight)
    if component.priority:
        document["priority"] = component.priority
    if component.retry is not None:
        document["retry"] = asdict(component.retry)
    if component.timeout is not None:
        document["timeout"] = float(component.timeout)
    if component.memory_mb is not None:
        document["memory_mb"] = component.memory_mb
    if component.cpus is not None:
        document["cpus"] = float(component.cpus)
    return document


def _component_from_json(document: dict[str, Any], shared: dict[tuple[str, bool], Dependency]) -> Component:
    """Read a component; `shared` holds the dependencies so far, as a million equal ones would be much memory."""
    optional = frozenset(document.get("optional", ()))
    keys = [(each, each not in optional) for each in document.get("dependencies", ())]
    retry = document.get("retry")
    return Component(
        component_id=document["id"],
        task=document["task"],
        args=tuple([templates.from_json(value) for value in document.get("args", ())]),
        kwargs={name: templates.from_json(value) for name, value in document.get("kwargs", {}).items()},
        dependencies=tuple([shared.get(key) or shared.setdefault(key, Dependency(*key)) for key in keys]),
        required=document.get("required", True),
        weight=document.get("weight", 1.0),
        priority=document.get("priority", 0),
        retry=None if retry is None else RetryPolicy(**{key: _as_tuple(value) for key, value in retry.items()}),
        timeout=document.get("timeout"),
        memory_mb=document.get("memory_mb"),
        cpus=document.get("cpus"),
    )


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def merge_dependencies(dependencies: Iterable[Dependency]) -> tuple[Dependency, ...]:
    """Make dependencies unique, in their order; one that is marked optional anywhere is optional."""
    merged: dict[str, bool] = {}
    for each in dependencies:
        merged[each.component_id] = merged.get(each.component_id, True) and each.required
    return tuple([Dependency(component_id, required) for component_id, required in merged.items()])
