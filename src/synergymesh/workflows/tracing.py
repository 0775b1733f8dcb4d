"""Tracing: how calls inside a workflow function become components."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from synergymesh.domain.workflow import templates
from synergymesh.domain.workflow.definition import (
    UNDO,
    Component,
    Dependency,
    WorkflowDefinition,
    check_identifier,
    merge_dependencies,
)
from synergymesh.domain.workflow.task_settings import TaskSettings
from synergymesh.domain.workflow.templates import InputRef, NodeRef, Reference, Template
from synergymesh.errors import DuplicateComponent, InvalidWorkflow
from synergymesh.workflows.compensation import make_compensation
from synergymesh.workflows.nodes import Node, describe, is_required, owner_of, reference_of

if TYPE_CHECKING:
    from synergymesh.workflows.tasks import Task

After = Node | str | Dependency | Iterable[Node | str | Dependency]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Hold what one call of a task says: the component's id, its place, and the settings that it changes."""

    component_id: str | None = None
    after: Any = ()
    required: bool = True
    changes: TaskSettings = field(default_factory=TaskSettings)


AS_DECLARED = Settings()

_current: ContextVar[Trace | None] = ContextVar("synergymesh_trace", default=None)


def current_trace() -> Trace | None:
    """Give the workflow that is being defined here and now, if one is."""
    return _current.get()


class Trace:
    """Collect the components of one workflow while its function runs."""

    def __init__(self, workflow: str) -> None:
        self.workflow = workflow
        self.components: list[Component] = []
        self.tasks: dict[str, Task[..., Any]] = {}
        self._ids: set[str] = set()
        self._counts: dict[str, int] = {}

    @contextmanager
    def active(self) -> Iterator[None]:
        """Collect what is called inside the `with` block."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    def call(
        self, task: Task[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], settings: Settings = AS_DECLARED
    ) -> Node:
        """Make a component of a call; give the node of its result."""
        component_id = settings.component_id
        if component_id is None:
            component_id = self._free_id(task.name)
        elif component_id in self._ids:
            raise DuplicateComponent(component_id)
        component = make_component(task, component_id, args, kwargs, settings, owner=self)
        self._add(component, task)
        return self._node(component, task)

    def inline(self, definition: WorkflowDefinition, tasks: Mapping[str, Task[..., Any]], arguments: Mapping[str, Any],
               after: Any = ()) -> Any:  # fmt: skip
        """Make the components of another workflow part of this one.

        Args:
            definition: of the other workflow; its ids get its name and a dot in front.
            tasks: its tasks.
            arguments: constants and nodes by the name of its parameter, all given.
            after: what all of it comes after.

        Returns:
            Its output, with nodes for results.
        """
        prefix = self._free_id(definition.name)
        self._ids.add(prefix)
        given = {name: make_template(value, f"{definition.name}({name})", self) for name, value in arguments.items()}
        sources = {name: dependencies_of(value, self) for name, value in arguments.items()}
        first = dependencies_of_after(after, self)

        def replace(reference: Reference) -> Template:
            if isinstance(reference, NodeRef):
                return NodeRef(f"{prefix}.{reference.component_id}", reference.path)
            return _part(given[reference.name], reference, definition.name)

        for component in definition.components:
            values = [*component.args, *component.kwargs.values()]
            inner = [Dependency(f"{prefix}.{each.component_id}", each.required) for each in component.dependencies]
            outer = [each for name in templates.inputs(values) for each in sources[name]]
            undoing = component.compensate
            if undoing is not None:
                undoing = msgspec.structs.replace(
                    _moved(undoing, replace),
                    component_id=f"{UNDO}{prefix}.{component.component_id}",
                    dependencies=tuple(
                        Dependency(f"{prefix}.{each.component_id}", each.required) for each in undoing.dependencies
                    ),
                )
            moved = msgspec.structs.replace(
                _moved(component, replace),
                component_id=f"{prefix}.{component.component_id}",
                dependencies=merge_dependencies([*inner, *outer, *(() if inner else first)]),
                compensate=undoing,
            )
            self._add(moved, tasks[component.task])
        by_id = {component.component_id: component for component in self.components}

        def node(reference: Reference) -> Any:
            if isinstance(reference, InputRef) or reference.path:
                return Node(reference, owner=self)
            component = by_id[reference.component_id]
            return self._node(component, self.tasks[component.task])

        return templates.transform(templates.transform(definition.output, replace), node)

    def _add(self, component: Component, task: Task[..., Any]) -> None:
        if component.component_id in self._ids:
            raise DuplicateComponent(component.component_id)
        register(self.tasks, task, self.workflow)
        self._ids.add(component.component_id)
        self.components.append(component)

    def _node(self, component: Component, task: Task[..., Any]) -> Node:
        return Node(NodeRef(component.component_id), owner=self, annotation=task.signature.annotation("return"))

    def _free_id(self, name: str) -> str:
        count = self._counts.get(name, 0) + 1
        while (candidate := name if count == 1 else f"{name}-{count}") in self._ids:
            count += 1
        self._counts[name] = count
        return candidate


def _moved(component: Component, replace: Callable[[Reference], Template]) -> Component:
    """Give a component with the references in its arguments replaced."""
    return msgspec.structs.replace(
        component,
        args=tuple(templates.transform(value, replace) for value in component.args),
        kwargs={name: templates.transform(value, replace) for name, value in component.kwargs.items()},
    )


def register(tasks: dict[str, Task[..., Any]], task: Task[..., Any], workflow: str) -> None:
    """Note a task under its name.

    Raises:
        InvalidWorkflow: another task of the workflow has that name.
    """
    known = tasks.setdefault(task.name, task)
    if task.compensate is not None:
        register(tasks, task.compensate, workflow)
    if known is not task and known.function is not task.function:
        raise InvalidWorkflow(
            f"workflow {workflow!r} has two different tasks named {task.name!r}. Give one another name: "
            f"@task(name=...).",
            field="name",
        )


def make_component(
    task: Task[..., Any],
    component_id: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    settings: Settings,
    *,
    owner: object,
) -> Component:
    """Make a component of a call, its arguments checked against the task's signature.

    Args:
        task: what is called.
        component_id: of the component.
        args: positional arguments: nodes, constants, mixtures.
        kwargs: keyword arguments.
        settings: of this call.
        owner: the trace whose nodes may be used; None for a workflow that is built.
    """
    check_identifier(component_id, "component id")
    if not isinstance(settings.required, bool):
        raise InvalidWorkflow(f"required= of {component_id!r} takes True or False, not {settings.required!r:.100}.")
    made_args: tuple[Template, ...] = ()
    made_kwargs: dict[str, Template] = {}
    signature = task.signature
    if args or kwargs:
        made_args = tuple([make_template(value, f"{component_id}({i})", owner) for i, value in enumerate(args)])
        made_kwargs = {name: make_template(value, f"{component_id}({name})", owner) for name, value in kwargs.items()}
    made = signature.bind(made_args, made_kwargs)
    written = signature.bind(args, kwargs)
    for (name, label, value), (_, _, template) in zip(written, made, strict=True):
        signature.check(name, label, value, template)
    dependencies = [
        each for value in (*args, *kwargs.values()) for each in dependencies_of(value, owner)
    ] + dependencies_of_after(settings.after, owner)
    made_settings: TaskSettings = {**task.settings, **settings.changes}
    return Component(
        component_id=component_id,
        task=task.name,
        args=made_args,
        kwargs=made_kwargs,
        dependencies=merge_dependencies(dependencies),
        required=settings.required,
        **made_settings,
        compensate=make_compensation(task, component_id, made),
    )


def make_template(value: object, field: str, owner: object) -> Template:
    """Make a template of what was written, nodes turned into references.

    Raises:
        InvalidWorkflow: a node of another workflow.
        InvalidPayload: a constant that is not JSON.
    """

    def refer(item: object) -> Reference | None:
        if not isinstance(item, Node):
            return None
        _check_owner(item, owner)
        return reference_of(item)

    return templates.build(value, field=field, refer=refer)


def _check_owner(node: Node, owner: object) -> None:
    if owner_of(node) is not owner:
        raise InvalidWorkflow(f"{describe(node)} belongs to another workflow. Call its task in this one.")


def dependencies_of(value: object, owner: object) -> list[Dependency]:
    """Give the dependencies that a written argument makes, with those that `optional` marks."""
    if isinstance(value, Node):
        reference = reference_of(value)
        return [Dependency(reference.component_id, is_required(value))] if isinstance(reference, NodeRef) else []
    if isinstance(value, (list, tuple)):
        return [each for item in value for each in dependencies_of(item, owner)]
    if isinstance(value, dict):
        return [each for item in value.values() for each in dependencies_of(item, owner)]
    return []


def dependencies_of_after(after: Any, owner: object, noun: str = "after=") -> list[Dependency]:
    """Give the dependencies that `after=` and `depends_on=` make.

    Raises:
        InvalidWorkflow: it is no node, component id or Dependency, nor a list of them.
    """
    if after is None:
        return []
    items = [after] if isinstance(after, (Node, str, Dependency)) else after
    if not isinstance(items, (list, tuple, set, frozenset)):
        raise InvalidWorkflow(f"{noun} takes a node or a list of nodes, not {after!r:.100}.", field=noun.strip("="))
    dependencies = []
    for item in items:
        if isinstance(item, Node):
            _check_owner(item, owner)
            made = dependencies_of(item, owner)
            if not made:
                raise InvalidWorkflow(
                    f"{describe(item)} is there from the start: {noun} takes nodes.", field=noun.strip("=")
                )
            dependencies.extend(made)
        elif isinstance(item, (str, Dependency)):
            dependencies.append(Dependency(item) if isinstance(item, str) else item)
        else:
            raise InvalidWorkflow(f"{noun} takes a node or a list of nodes, not {item!r:.100}.", field=noun.strip("="))
    return dependencies


def _part(template: Template, reference: InputRef, workflow: str) -> Template:
    """Give the part of a template at the path of a reference."""
    for index, step in enumerate(reference.path):
        rest = reference.path[index:]
        if isinstance(template, NodeRef):
            return NodeRef(template.component_id, (*template.path, *rest))
        if isinstance(template, InputRef):
            return InputRef(template.name, (*template.path, *rest))
        try:
            template = template[step]
        except (LookupError, TypeError):
            raise InvalidWorkflow(
                f"workflow {workflow!r} uses [{step!r}] of its input {reference.name!r}, which this one does not have.",
                field=reference.name,
            ) from None
    return template
