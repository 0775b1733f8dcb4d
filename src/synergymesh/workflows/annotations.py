"""Annotations: which ones JSON satisfies as it is, and how values are made for the others."""

from __future__ import annotations

import types
import typing
from collections import abc
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, is_typeddict

import msgspec

from synergymesh.errors import InvalidRequest

Converter = Callable[[Any], Any]
"""Makes a value from JSON values; raises `Mismatch`."""

_BUILTIN: frozenset[Any] = frozenset({int, float, str, bool, dict, list, type(None)})
_LISTS: frozenset[Any] = frozenset({list, abc.Sequence, abc.Iterable, abc.Collection})
_OBJECTS: frozenset[Any] = frozenset({dict, abc.Mapping})
_WIDER: dict[type, tuple[type, ...]] = {int: (bool,), float: (int, bool)}


class Mismatch(InvalidRequest):
    """Say that a value does not have the annotated type; the message begins with the place inside the value."""


def anything(annotation: Any) -> bool:
    """Tell whether an annotation says nothing."""
    return annotation is Any or annotation is object or isinstance(annotation, TypeVar)


def builtin_kind(annotation: Any) -> type | None:
    """Give the plain builtin type of an annotation (`list` for `list[int]`), or None when it is another one."""
    if annotation is None:
        return type(None)
    kind = get_origin(annotation) or annotation
    return kind if isinstance(kind, type) and kind in _BUILTIN else None


def fits(given: type, wanted: type) -> bool:
    """Tell whether a value of one builtin type may be given for another one; an int is fine for a float."""
    return given is wanted or given in _WIDER.get(wanted, ())


def is_plain(annotation: Any) -> bool:
    """Tell whether JSON satisfies an annotation as it is, so that nothing has to be converted."""
    if annotation is None or anything(annotation) or annotation in (abc.Sequence, abc.Iterable, abc.Mapping):
        return True
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is None:
        return isinstance(annotation, type) and annotation in _BUILTIN
    if origin is Literal:
        return all(type(each) in _BUILTIN for each in arguments)
    if origin is Union or origin is types.UnionType or origin in _LISTS:
        return all(map(is_plain, arguments))
    if origin in _OBJECTS:
        return arguments[0] in (str, Any) and is_plain(arguments[1])
    return False


def checker(annotation: Any) -> Converter:
    """Make a function that gives a value back when it has the annotated type, strictly; for plain annotations."""
    if anything(annotation):
        return _unchanged
    if annotation is None or (isinstance(annotation, type) and annotation in _BUILTIN):
        return partial(_check_builtin, wanted=type(None) if annotation is None else annotation)
    adapter = _adapter(annotation)
    return _unchanged if adapter is None else partial(_check_strictly, adapter=adapter)


def converter(annotation: Any) -> Converter:
    """Make a function that turns JSON values into the annotated type.

    By pydantic (dataclasses, models, datetimes, TypedDicts, tuples …) or msgspec (its Structs). What neither can make
    is given as it is.
    """
    if _mentions(annotation, _is_struct):
        return partial(_convert_by_msgspec, annotation=annotation)
    adapter = _adapter(annotation)
    if adapter is not None:
        return partial(_convert, adapter=adapter)
    if _mentions(annotation, is_typeddict):  # before Python 3.12 pydantic takes only those of typing_extensions
        return partial(_convert_by_msgspec, annotation=annotation)
    return _unchanged


def _unchanged(value: Any) -> Any:
    return value


def _adapter(annotation: Any) -> Any:
    from pydantic import PydanticUserError, TypeAdapter
    from pydantic.errors import PydanticSchemaGenerationError, PydanticUndefinedAnnotation

    try:
        return TypeAdapter(annotation)
    except (PydanticUserError, PydanticSchemaGenerationError, PydanticUndefinedAnnotation):
        return None


def _is_struct(annotation: Any) -> bool:
    return isinstance(annotation, type) and get_origin(annotation) is None and issubclass(annotation, msgspec.Struct)


def _mentions(annotation: Any, wanted: Callable[[Any], bool]) -> bool:
    if get_origin(annotation) is None:
        return wanted(annotation)
    arguments = get_args(annotation)[:1] if get_origin(annotation) is Annotated else get_args(annotation)
    return any(_mentions(argument, wanted) for argument in arguments)


def _check_builtin(value: Any, *, wanted: type) -> Any:
    if not fits(type(value), wanted):
        name = "None" if wanted is type(None) else wanted.__name__
        raise Mismatch(f" is {shown(value)}, but {name} is wanted")
    return value


def _check_strictly(value: Any, *, adapter: Any) -> Any:
    from pydantic import ValidationError

    try:
        adapter.validate_python(value, strict=True)
    except ValidationError as error:
        raise Mismatch(_describe(error)) from None
    return value


def _convert(value: Any, *, adapter: Any) -> Any:
    from pydantic import ValidationError

    try:
        return adapter.validate_json(msgspec.json.encode(value))
    except ValidationError as error:
        raise Mismatch(_describe(error)) from None


def _convert_by_msgspec(value: Any, *, annotation: Any) -> Any:
    try:
        return msgspec.convert(value, annotation)
    except msgspec.ValidationError as error:
        raise Mismatch(f": {error}") from None


def _describe(error: Any) -> str:
    """Put a pydantic error into one line: the first three places, and how many more there are."""
    problems = error.errors(include_url=False, include_context=False)
    parts = []
    for problem in problems[:3]:
        place = "".join(f".{step}" if isinstance(step, str) else f"[{step}]" for step in problem["loc"])
        parts.append(f"{place} is {shown(problem['input'])}: {problem['msg']}")
    more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
    return "; ".join(parts) + more


def shown(value: Any) -> str:
    """Show a value and its type in a few words."""
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '…'} ({type(value).__name__})"


def resolve(annotations: dict[str, Any], names: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Evaluate the annotations of a function in the names of its module.

    Returns:
        The annotations, Any for those that cannot be evaluated (yet), and whether all could be.
    """
    try:
        return _hints(annotations, names), True
    except Exception:  # an annotation is an expression: it can raise anything
        resolved: dict[str, Any] = {}
        complete = True
        for name, annotation in annotations.items():
            try:
                resolved |= _hints({name: annotation}, names)
            except Exception:
                resolved[name] = Any
                complete = False
        return resolved, complete


def _hints(annotations: dict[str, Any], names: dict[str, Any]) -> dict[str, Any]:
    holder = types.SimpleNamespace(__annotations__=annotations)
    return typing.get_type_hints(holder, globalns=names, include_extras=True)
