"""Nodes: what stands for a value that does not exist while a workflow is being defined."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, overload

from synergymesh.domain.workflow.definition import Dependency
from synergymesh.domain.workflow.templates import InputRef, NodeRef, Reference
from synergymesh.errors import InvalidWorkflow


class Node:
    """Stand for the result of a component, for an input of the run, or for a part of one.

    `node["key"]` and `node[0]` stand for parts. Anything else that needs the value belongs into a task, and is refused.
    """

    __slots__ = ("_annotation", "_owner", "_reference", "_required")

    def __init__(
        self, reference: Reference, *, owner: object = None, annotation: Any = Any, required: bool = True
    ) -> None:
        self._reference = reference
        self._owner = owner
        self._annotation = annotation
        self._required = required

    def __getitem__(self, step: Any) -> Node:
        if type(step) is not str and type(step) is not int:
            kind = "a slice" if isinstance(step, slice) else f"{step!r:.100}"
            raise InvalidWorkflow(f"a part of {describe(self)} is named by a text or a whole number, not by {kind}.")
        reference = self._reference
        path = (*reference.path, step)
        longer: Reference = (
            NodeRef(reference.component_id, path) if isinstance(reference, NodeRef) else InputRef(reference.name, path)
        )
        return Node(longer, owner=self._owner, required=self._required)

    def __repr__(self) -> str:
        return f"<{describe(self)}>"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # tools ask for such names, and take the answer "no" only from an AttributeError
            raise AttributeError(name)
        _refuse(self, f"its attribute .{name} cannot be read (for the key of an object write [{name!r}])")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Node):
            _refuse(self, "it cannot be compared (==)")
        return self is other

    __hash__ = object.__hash__


def _refuse(node: Node, use: str) -> NoReturn:
    raise InvalidWorkflow(
        f"{describe(node)} does not exist yet while the workflow is being defined, so {use}. Move this into a task."
    )


_CALCULATIONS = (
    *("add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "divmod", "pow"),
    *("lshift", "rshift", "and", "xor", "or"),
)
_USES: dict[str, tuple[str, ...]] = {
    "it is neither true nor false": ("bool",),
    "it cannot be iterated or unpacked": ("iter", "next", "reversed", "contains", "len", "aiter"),
    "it is no number": ("int", "float", "complex", "index", "round", "trunc", "floor", "ceil"),
    "it cannot be calculated with": (
        *("neg", "pos", "abs", "invert"),
        *(side + name for name in _CALCULATIONS for side in ("", "r", "i")),
    ),
    "it cannot be compared": ("lt", "le", "gt", "ge", "ne"),
    "it cannot be made a text": ("str", "format", "bytes", "fspath"),
    "it cannot be called": ("call",),
    "it cannot be awaited (the engine awaits tasks: leave the `await` out)": ("await",),
    "it cannot be changed": ("setitem", "delitem"),
    "it is no context manager": ("enter", "exit", "aenter", "aexit"),
}


def _guard(use: str) -> Callable[..., NoReturn]:
    def refuse(self: Node, *args: Any, **kwargs: Any) -> NoReturn:
        _refuse(self, use)

    return refuse


for _use, _names in _USES.items():
    for _name in _names:
        setattr(Node, f"__{_name}__", _guard(_use))


def describe(node: Node) -> str:
    """Say in words what a node stands for."""
    reference = node._reference
    parts = "".join(f"[{step!r}]" for step in reference.path)
    if isinstance(reference, NodeRef):
        return f"the result of {reference.component_id!r}{parts}"
    return f"the input {reference.name!r}{parts}"


def reference_of(node: Node) -> Reference:
    """Give the reference that stands for a node in templates."""
    return node._reference


def owner_of(node: Node) -> object:
    """Give the trace that made a node; None for one made by `ref` or `given`."""
    return node._owner


def annotation_of(node: Node) -> Any:
    """Give the annotation of what a node stands for; Any when it is not known."""
    return node._annotation


def is_required(node: Node) -> bool:
    """Tell whether a component that uses the node cannot do without it."""
    return node._required


def ref(component_id: str) -> Node:
    """Refer to the result of a component of a workflow that is built with `Workflow.add`."""
    return Node(NodeRef(component_id))


def given(name: str) -> Node:
    """Refer to an input of a workflow that is built with `Workflow.takes`."""
    return Node(InputRef(name))


@overload
def optional(what: Node) -> Node: ...
@overload
def optional(what: str | Dependency) -> Dependency: ...


def optional(what: Node | str | Dependency) -> Node | Dependency:
    """Mark one dependency as optional: the dependent runs however that component ends, and gets None for its result.

    For nodes in arguments and in `after=`, for component ids in `depends_on=`.

    Raises:
        InvalidWorkflow: it is something else.
    """
    if isinstance(what, Node):
        return Node(what._reference, owner=what._owner, annotation=what._annotation, required=False)
    if isinstance(what, Dependency):
        return Dependency(what.component_id, False)
    if isinstance(what, str):
        return Dependency(what, False)
    raise InvalidWorkflow(f"optional() takes a node or a component id, not {what!r:.100}.")
