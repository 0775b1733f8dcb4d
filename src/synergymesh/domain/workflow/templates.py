"""Templates: arguments and outputs that mention what does not exist yet.

A template is JSON (None, bool, int, float, str, list, dict) with references in it: the result of a component, or a part
of a run's input. As JSON a reference is `{"$node": id, "$path": [...]}` or `{"$input": name, "$path": [...]}`, the path
left out when it is empty; a constant object with a key that starts with `$` is wrapped as `{"$const": {...}}`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from synergymesh.config import PAYLOAD_BYTES_MAX, PAYLOAD_DEPTH_MAX
from synergymesh.domain import payload
from synergymesh.errors import InvalidPayload, InvalidWorkflow

Template = Any
"""JSON with references in it."""

Path = tuple[str | int, ...]
"""Keys of objects and positions in lists, outermost first."""

ResultOf = Callable[[int], Any]
"""Gives the result of the component at a position; None when it has none."""

Filler = Callable[[Mapping[str, Any], ResultOf], Any]
"""Fills a template with the run's inputs and the results of components."""

ArgumentsFiller = Callable[[Mapping[str, Any], ResultOf], tuple[tuple[Any, ...], dict[str, Any]]]
"""Fills positional and keyword arguments."""


class NodeRef(msgspec.Struct, frozen=True, gc=False):
    """Refer to the result of a component, or to a part of it."""

    component_id: str
    path: Path = ()


class InputRef(msgspec.Struct, frozen=True, gc=False):
    """Refer to one of the inputs of a run, or to a part of it."""

    name: str
    path: Path = ()


Reference = NodeRef | InputRef


def build(value: object, *, field: str, refer: Callable[[object], Reference | None] = lambda _: None) -> Template:
    """Make a template from values that users wrote; nothing mutable is shared with them.

    Args:
        value: JSON, references, and whatever `payload.encode` takes.
        field: what the value is called in messages.
        refer: turns an object that stands for a reference into one, others into None.

    Raises:
        InvalidPayload: something in it is not JSON, or beyond the limits of a payload.
    """
    template = _build(value, field, refer, 1)
    if isinstance(template, (list, dict)):
        size = len(msgspec.json.encode(to_json(template)))
        if size > PAYLOAD_BYTES_MAX:
            raise InvalidPayload(
                f"{field} has {size:,} bytes of JSON, the limit is {PAYLOAD_BYTES_MAX:,}. "
                "Store it elsewhere and pass a reference.",
                field=field,
            )
    return template


def _build(value: object, field: str, refer: Callable[[object], Reference | None], depth: int) -> Template:
    if value is None or value is True or value is False or isinstance(value, (NodeRef, InputRef)):
        return value
    reference = refer(value)
    if reference is not None:
        return reference
    if isinstance(value, (list, tuple, dict)) and depth > PAYLOAD_DEPTH_MAX:
        raise InvalidPayload(f"{field} is nested deeper than {PAYLOAD_DEPTH_MAX} levels. Make it flatter.", field=field)
    if isinstance(value, (list, tuple)):
        return [_build(item, f"{field}[{index}]", refer, depth + 1) for index, item in enumerate(value)]
    if isinstance(value, dict):
        payload.encode(dict.fromkeys(value), field=field)
        return {key: _build(item, f"{field}.{key}", refer, depth + 1) for key, item in value.items()}
    return payload.decode(payload.encode(value, field=field))


def transform(template: Template, replace: Callable[[Reference], Any]) -> Template:
    """Copy a template with each reference replaced."""
    if isinstance(template, (NodeRef, InputRef)):
        return replace(template)
    if isinstance(template, list):
        return [transform(item, replace) for item in template]
    if isinstance(template, dict):
        return {key: transform(item, replace) for key, item in template.items()}
    return template


def _collect(template: Template, found: list[Reference]) -> list[Reference]:
    if isinstance(template, (NodeRef, InputRef)):
        found.append(template)
    elif isinstance(template, (list, tuple)):
        for item in template:
            _collect(item, found)
    elif isinstance(template, dict):
        for item in template.values():
            _collect(item, found)
    return found


def references(template: Template) -> list[str]:
    """Name the components whose results a template uses, each once, in their order."""
    return list(dict.fromkeys([each.component_id for each in _collect(template, []) if isinstance(each, NodeRef)]))


def inputs(template: Template) -> list[str]:
    """Name the inputs that a template uses, each once, in their order."""
    return list(dict.fromkeys([each.name for each in _collect(template, []) if isinstance(each, InputRef)]))


def mentions(template: Template) -> tuple[set[str], set[str]]:
    """Name the components and the inputs that a template uses, in one walk."""
    found = _collect(template, [])
    ids = {each.component_id for each in found if isinstance(each, NodeRef)}
    return ids, {each.name for each in found if isinstance(each, InputRef)}


def has_references(template: Template) -> bool:
    """Tell whether anything in a template is not constant."""
    return bool(_collect(template, []))


# --- as JSON --------------------------------------------------------------------------------------------------------


def to_json(template: Template) -> Any:
    """Turn a template into plain JSON values."""
    if isinstance(template, NodeRef):
        return {"$node": template.component_id} | ({"$path": list(template.path)} if template.path else {})
    if isinstance(template, InputRef):
        return {"$input": template.name} | ({"$path": list(template.path)} if template.path else {})
    if isinstance(template, (list, tuple)):
        return [to_json(item) for item in template]
    if isinstance(template, dict):
        plain = {key: to_json(item) for key, item in template.items()}
        return {"$const": plain} if any(key[:1] == "$" for key in plain) else plain
    return template


def from_json(value: Any) -> Template:
    """Turn what `to_json` gave back into a template.

    Raises:
        InvalidWorkflow: an object with a key that starts with `$` is no reference.
    """
    if isinstance(value, list):
        return [from_json(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1 and type(value.get("$node")) is str:
        return NodeRef(value["$node"])
    if not any(key[:1] == "$" for key in value):
        return {key: from_json(item) for key, item in value.items()}
    path = value.get("$path", [])
    sound = isinstance(path, list) and all(type(step) in (str, int) for step in path)
    match value:
        case {"$node": str(component_id)} if sound and value.keys() <= {"$node", "$path"}:
            return NodeRef(component_id, tuple(path))
        case {"$input": str(name)} if sound and value.keys() <= {"$input", "$path"}:
            return InputRef(name, tuple(path))
        case {"$const": dict(plain)} if len(value) == 1:
            return {key: from_json(item) for key, item in plain.items()}
    raise InvalidWorkflow(f"this is no reference: {str(value)[:200]}")


# --- filling --------------------------------------------------------------------------------------------------------


def follow(value: Any, path: Path, described: str) -> Any:
    """Give the part of a JSON value at a path; a path into None gives None, as an optional component has no result.

    Raises:
        LookupError: there is no such part.
    """
    for step in path:
        if value is None:
            return None
        if isinstance(value, dict) if isinstance(step, str) else isinstance(value, list):
            try:
                value = value[step]
                continue
            except LookupError:
                pass
        there = f"keys {', '.join(list(value)[:10])}" if isinstance(value, dict) else type(value).__name__
        if isinstance(value, list):
            there = f"a list of {len(value):,}"
        raise LookupError(
            f"{described} has no {''.join(f'[{step!r}]' for step in path)}: at [{step!r}] there is {there}."
        )
    return value


def _constant(value: Any) -> Filler:
    if isinstance(value, (list, dict)):
        raw = msgspec.json.encode(value)
        decode = msgspec.json.Decoder().decode
        return lambda inputs, result_of: decode(raw)
    return lambda inputs, result_of: value


def _input(reference: InputRef) -> Filler:
    name, path = reference.name, reference.path
    if not path:
        return lambda inputs, result_of: inputs[name]
    described = f"the input {name!r}"
    return lambda inputs, result_of: follow(inputs[name], path, described)


def _node(reference: NodeRef, positions: Mapping[str, int]) -> Filler:
    position, path = positions[reference.component_id], reference.path
    if not path:
        return lambda inputs, result_of: result_of(position)
    described = f"the result of {reference.component_id!r}"
    return lambda inputs, result_of: follow(result_of(position), path, described)


def compile_template(template: Template, positions: Mapping[str, int]) -> Filler:
    """Prepare a template for filling.

    Args:
        template: as `build` or `from_json` gives it.
        positions: the position of every component that it mentions.

    Returns:
        A function of (inputs, result_of). Constant lists and objects are new each time; inputs and results are given on
        as they come, so the caller decodes them for each call. It raises `LookupError` when a path leads nowhere.
    """
    if isinstance(template, NodeRef):
        return _node(template, positions)
    if isinstance(template, InputRef):
        return _input(template)
    if not has_references(template):
        return _constant(template)
    if isinstance(template, dict):
        entries = [(key, compile_template(item, positions)) for key, item in template.items()]
        return lambda inputs, result_of: {key: fill(inputs, result_of) for key, fill in entries}
    nodes = _bare_positions(template, positions)
    if nodes is not None:
        return lambda inputs, result_of: [result_of(position) for position in nodes]
    items = [compile_template(item, positions) for item in template]
    return lambda inputs, result_of: [fill(inputs, result_of) for fill in items]


def _bare_positions(items: Sequence[Template], positions: Mapping[str, int]) -> list[int] | None:
    """Give the positions if all items are whole results."""
    if all(isinstance(item, NodeRef) and not item.path for item in items):
        return [positions[item.component_id] for item in items]
    return None


def compile_arguments(
    args: Sequence[Template], kwargs: Mapping[str, Template], positions: Mapping[str, int]
) -> ArgumentsFiller:
    """Prepare the arguments of a call for filling; as `compile_template`, for all of them at once."""
    if not kwargs:
        if not args:
            return lambda inputs, result_of: ((), {})
        nodes = _bare_positions(args, positions)
        if nodes is not None:
            if len(nodes) == 1:
                only = nodes[0]
                return lambda inputs, result_of: ((result_of(only),), {})
            if len(nodes) == 2:
                first, second = nodes
                return lambda inputs, result_of: ((result_of(first), result_of(second)), {})
            return lambda inputs, result_of: (tuple([result_of(position) for position in nodes]), {})
    fillers = [compile_template(item, positions) for item in args]
    named = [(name, compile_template(item, positions)) for name, item in kwargs.items()]
    if not named:
        return lambda inputs, result_of: (tuple([fill(inputs, result_of) for fill in fillers]), {})
    return lambda inputs, result_of: (
        tuple([fill(inputs, result_of) for fill in fillers]),
        {name: fill(inputs, result_of) for name, fill in named},
    )
