"""Definitions of workflows: what is run, as a value that is valid once it exists and is known by its content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import msgspec

from synergymesh.config import COMPONENTS_MAX, DEPENDENCIES_MAX, IDENTIFIER_MAX
from synergymesh.domain.fault_tolerance.retry import RetryPolicy
from synergymesh.domain.graphs.graph import Graph
from synergymesh.domain.workflow import templates
from synergymesh.domain.workflow.task_settings import (
    DEFAULTS,
    check_seconds,
    check_settings,
    settings_from_json,
    settings_to_json,
)
from synergymesh.domain.workflow.templates import Template
from synergymesh.errors import DuplicateComponent, GraphTooLarge, InvalidWorkflow, UnknownComponent

UNDO = "undo:"
"""In front of the id of a component, names the one that undoes it."""

FORMAT = 1
"""Version of the JSON of a definition."""


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
        weight and those that follow: as in `TaskSettings`.
        compensate: the call that undoes this one when the run fails or is cancelled, or None; its id is `undo:` and
            this one's, and nothing can depend on it.

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
    total_timeout: float | None = None
    queue_timeout: float | None = None
    heartbeat_timeout: float | None = None
    breaker: str | None = None
    compensate: Component | None = None

    def __post_init__(self) -> None:
        check_identifier(self.component_id, "component id")
        check_identifier(self.task, "task name")
        if len(self.dependencies) > 1 and len({each.component_id for each in self.dependencies}) < len(
            self.dependencies
        ):
            raise InvalidWorkflow(f"{self.component_id!r} names a dependency twice.", field="dependencies")
        check_settings(f"component {self.component_id!r}", self.settings)

    @property
    def settings(self) -> dict[str, Any]:
        """Give the settings that tasks have too, by name."""
        return {name: getattr(self, name) for name in DEFAULTS}


@dataclass(frozen=True, slots=True)
class WorkflowDefinition:
    """Describe a workflow completely: two with equal JSON are the same workflow.

    Attributes:
        name: of the workflow.
        parameters: its inputs.
        components: its nodes, in the order in which they were declared.
        output: template of the result.
        timeout: seconds for a whole run, from the start of its first task; None for no limit.
        queue_timeout: seconds that a run may wait for that start; None for no limit.
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
    timeout: float | None = None
    queue_timeout: float | None = None
    positions: dict[str, int] = field(init=False, compare=False, repr=False)
    graph: Graph = field(init=False, compare=False, repr=False)
    _json: bytes | None = field(init=False, compare=False, repr=False, default=None)
    _hash: str | None = field(init=False, compare=False, repr=False, default=None)

    def __post_init__(self) -> None:
        check_identifier(self.name, "workflow name")
        for name in ("timeout", "queue_timeout"):
            value = check_seconds(f"workflow {self.name!r}", name, getattr(self, name))
            object.__setattr__(self, name, value)
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
        for component in self.components:
            if component.compensate is not None and component.compensate.component_id in positions:
                raise DuplicateComponent(component.compensate.component_id)
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

    @property
    def compensations(self) -> dict[str, Component]:
        """Give by the id of a component the one that undoes it."""
        return {c.component_id: c.compensate for c in self.components if c.compensate is not None}

    def find(self, component_id: str) -> Component:
        """Give the component of that id, also one that undoes another.

        Raises:
            UnknownComponent: there is none.
        """
        position = self.positions.get(component_id)
        if position is not None:
            return self.components[position]
        undoing = self.compensations.get(component_id.removeprefix(UNDO))
        if undoing is None or undoing.component_id != component_id:
            raise self._unknown(component_id)
        return undoing

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
            document: dict[str, Any] = {
                "format": FORMAT,
                "name": self.name,
                "parameters": [
                    {"name": each.name} if each.required else {"name": each.name, "default": each.default}
                    for each in self.parameters
                ],
                "components": [_component_to_json(component) for component in self.components],
                "output": templates.to_json(self.output),
            }
            for name in ("timeout", "queue_timeout"):
                if getattr(self, name) is not None:
                    document[name] = getattr(self, name)
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
                    timeout=document.get("timeout"),
                    queue_timeout=document.get("queue_timeout"),
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
    document.update(settings_to_json(component.settings))
    if component.compensate is not None:
        document["compensate"] = _component_to_json(component.compensate)
    return document


def _component_from_json(document: dict[str, Any], shared: dict[tuple[str, bool], Dependency]) -> Component:
    """Read a component; `shared` holds the dependencies so far, as a million equal ones would be much memory."""
    optional = frozenset(document.get("optional", ()))
    keys = [(each, each not in optional) for each in document.get("dependencies", ())]
    return Component(
        component_id=document["id"],
        task=document["task"],
        args=tuple([templates.from_json(value) for value in document.get("args", ())]),
        kwargs={name: templates.from_json(value) for name, value in document.get("kwargs", {}).items()},
        dependencies=tuple([shared.get(key) or shared.setdefault(key, Dependency(*key)) for key in keys]),
        required=document.get("required", True),
        **settings_from_json(document),
        compensate=_component_from_json(document["compensate"], shared) if "compensate" in document else None,
    )


def merge_dependencies(dependencies: Iterable[Dependency]) -> tuple[Dependency, ...]:
    """Make dependencies unique, in their order; one that is marked optional anywhere is optional."""
    merged: dict[str, bool] = {}
    for each in dependencies:
        merged[each.component_id] = merged.get(each.component_id, True) and each.required
    return tuple([Dependency(component_id, required) for component_id, required in merged.items()])
