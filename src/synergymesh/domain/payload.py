"""Payloads: inputs and results as strict JSON, the same on every store.

Encoding is by the standard library; what it would let pass or change silently (NaN, NUL, keys that are no text, huge
integers, deep nesting) is looked for in the encoded bytes, which is cheap, and the value is walked only to be sure and
to name the place.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import date
from decimal import Decimal
from enum import Enum
from itertools import accumulate
from typing import Any
from uuid import UUID

import msgspec

from synergymesh.config import PAYLOAD_BYTES_MAX, PAYLOAD_DEPTH_MAX
from synergymesh.errors import InvalidPayload

INTEGER_MIN = -(2**63)
INTEGER_MAX = 2**63 - 1
"""Integers of databases have 64 bits with a sign; most JSON readers turn larger ones into floats."""

_SHORT = 64
_EXPANSIONS_MAX = 16
_PATH_SHOWN_MAX = 120

_PLAIN_TEXT = re.compile(r"[ !#-\[\]-~]*").fullmatch

_ALL_DIGITS_TO_0 = bytes(ord("0") if chr(code).isdigit() and code < 128 else code for code in range(256))
_LONG_DIGITS = b"0" * 19
_LONG_INTEGER = re.compile(rb"(?<![0-9.])[0-9]{19}")
_ODD_KEY = re.compile(rb'[{,]"(?:-?[0-9][0-9.e+-]*|true|false|null)":')
_NOT_BRACKETS = bytes(code for code in range(256) if chr(code) not in "[]{}")
_STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}

_REMEDIES: Mapping[str, str] = {
    "set": "Give a list.",
    "frozenset": "Give a list.",
    "bytes": "Give text (base64, say), or store it elsewhere and pass a reference.",
    "bytearray": "Give text (base64, say), or store it elsewhere and pass a reference.",
    "coroutine": "Await it.",
    "generator": "Give a list.",
}


class _NotJSON(Exception):
    """An object that has no JSON."""


def _to_builtin(value: object) -> Any:
    """Turn one object into plain values, one level deep; the encoder's hook."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, date):  # a datetime too
        return value.isoformat()
    if isinstance(value, (UUID, Decimal)):
        return str(value)
    kind = type(value)
    if isinstance(value, msgspec.Struct):
        values = [getattr(value, name) for name in value.__struct_fields__]
        config = value.__struct_config__
        if config.array_like:
            return values if config.tag is None else [config.tag, *values]
        tagged = {} if config.tag is None or config.tag_field is None else {config.tag_field: config.tag}
        return tagged | dict(zip(value.__struct_encode_fields__, values, strict=True))
    if dataclasses.is_dataclass(kind):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(kind)}
    dump = getattr(kind, "model_dump", None)
    if callable(dump):
        return dump(value, mode="json", by_alias=True)  # models read by alias unless told otherwise
    raise _NotJSON


_encode_text: Callable[[Any], str] = json.JSONEncoder(
    allow_nan=False, ensure_ascii=False, separators=(",", ":"), default=_to_builtin
).encode


def encode(value: Any, *, field: str, limit: int = PAYLOAD_BYTES_MAX) -> bytes:
    """Turn a value into JSON.

    Takes what JSON has, and dataclasses, pydantic models, msgspec Structs, enums, dates, UUIDs and decimals (as text);
    tuples are lists.

    Args:
        value: what to encode.
        field: what the value is called in messages: `result`, `input`.
        limit: the most bytes of JSON.

    Raises:
        InvalidPayload: not JSON, or beyond a limit; the message names the place inside the value.
    """
    if value is None:
        return b"null"
    kind = type(value)
    if kind is bool:
        return b"true" if value else b"false"
    if kind is int and INTEGER_MIN <= value <= INTEGER_MAX:
        return b"%d" % value
    if kind is str and len(value) <= _SHORT < limit and _PLAIN_TEXT(value) is not None:
        return b'"%b"' % value.encode()
    try:
        raw = _encode_text(value).encode()
    except Exception as error:
        fault = _find_fault(value, field)
        if fault is not None:
            raise fault from None
        message = f"{field} cannot be turned into JSON: {type(error).__name__}: {error}"
        raise InvalidPayload(message, field=field) from error
    if len(raw) > limit:
        raise InvalidPayload(
            f"{field} has {len(raw):,} bytes of JSON, the limit is {limit:,}. Store it elsewhere and pass a reference.",
            field=field,
        )
    if _is_suspicious(raw):
        fault = _find_fault(value, field)
        if fault is not None:
            raise fault
    return raw


def decode(raw: bytes) -> Any:
    """Turn JSON into values.

    Raises:
        InvalidPayload: it is not JSON.
    """
    if raw == b"null":
        return None
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidPayload(f"not JSON: {error}") from error


def _is_suspicious(raw: bytes) -> bool:
    """Tell whether JSON may come from a value that is refused; never wrong when it says no."""
    digits = raw.translate(_ALL_DIGITS_TO_0)
    return (
        b"\\u0000" in raw
        or (_LONG_DIGITS in digits and _LONG_INTEGER.search(raw) is not None)
        or (
            (b'0":' in digits or b'true":' in raw or b'false":' in raw or b'null":' in raw)
            and _ODD_KEY.search(raw) is not None
        )
        or (raw.count(b"[") + raw.count(b"{") > PAYLOAD_DEPTH_MAX and _depth(raw) > PAYLOAD_DEPTH_MAX)
    )


def _depth(raw: bytes) -> int:
    """Count how deep the lists and objects of a JSON text are nested."""
    unescaped = raw.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in raw else raw
    outside_of_texts = b"".join(unescaped.split(b'"')[::2])
    return max(accumulate(map(_STEP.__getitem__, outside_of_texts.translate(None, _NOT_BRACKETS))), default=0)


class _Place:
    """Where a value stands: a step below another place."""

    __slots__ = ("depth", "identity", "parent", "step")

    def __init__(self, parent: _Place | None, step: str, identity: int) -> None:
        self.parent = parent
        self.step = step
        self.identity = identity
        self.depth: int = 1 if parent is None else parent.depth + 1

    def __str__(self) -> str:
        steps: list[str] = []
        place: _Place | None = self
        while place is not None:
            steps.append(place.step)
            place = place.parent
        path = "".join(reversed(steps))
        if len(path) > _PATH_SHOWN_MAX:
            path = f"{path[: _PATH_SHOWN_MAX // 2]}…{path[-_PATH_SHOWN_MAX // 2 :]}"
        return path.encode("utf-8", "backslashreplace").decode()

    def is_inside_itself(self) -> bool:
        """Tell whether a place above this one has the same value."""
        place = self.parent
        while place is not None:
            if place.identity == self.identity:
                return True
            place = place.parent
        return False


def _find_fault(value: object, field: str) -> InvalidPayload | None:
    """Walk a value and describe the first thing that is refused."""
    waiting: list[tuple[object, _Place | None, str]] = [(value, None, field)]
    alive: list[object] = []  # what hooks made must not be freed, or another object would get its identity
    while waiting:
        item, parent, step = waiting.pop()
        place = _Place(parent, step, id(item))
        for _ in range(_EXPANSIONS_MAX):
            if item is None or isinstance(item, (bool, int, float, str, dict, list, tuple)):
                break
            try:
                item = _to_builtin(item)
            except _NotJSON:
                break
            except Exception as error:
                return InvalidPayload(
                    f"{place} cannot be turned into JSON: {type(error).__name__}: {error}", field=field
                )
            alive.append(item)
        if isinstance(item, dict):
            for key in item:
                problem = _problem_of_key(key)
                if problem is not None:
                    return InvalidPayload(f"{place} {problem}", field=field)
            children = [(child, place, _key_step(key)) for key, child in item.items()]
        elif isinstance(item, (list, tuple)):
            children = [(child, place, f"[{index}]") for index, child in enumerate(item)]
        else:
            problem = _problem(item)
            if problem is not None:
                return InvalidPayload(f"{place} {problem}", field=field)
            continue
        if place.depth > PAYLOAD_DEPTH_MAX:
            if place.is_inside_itself():
                return InvalidPayload(f"{field} contains itself at {place}. JSON has no circles.", field=field)
            return InvalidPayload(
                f"{field} is nested deeper than {PAYLOAD_DEPTH_MAX} levels at {place}. Make it flatter.", field=field
            )
        waiting.extend(reversed(children))
    return None


def _key_step(key: str) -> str:
    return f".{key}" if key.isidentifier() else f"[{key[:40]!r}]"


def _problem_of_key(key: object) -> str | None:
    if not isinstance(key, str):
        return (
            f"has the key {key!r:.100} ({type(key).__name__}). Keys are text in JSON and it would come back as text: "
            "use str keys."
        )
    problem = _problem(key)
    return None if problem is None else f"has the key {key[:40]!r}, which {problem}"


def _problem(value: object) -> str | None:
    """Say what is wrong with a value that holds no others."""
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, str):
        if "\0" in value:
            return "has a NUL character, which not every database can store. Remove it."
        try:
            value.encode()
        except UnicodeEncodeError as error:
            lone = f"\\u{ord(value[error.start]):04x}"
            return f"has a lone surrogate ({lone}), which is no text. Decode the bytes with errors='replace'."
        return None
    if isinstance(value, int):
        if INTEGER_MIN <= value <= INTEGER_MAX:
            return None
        return "is an integer of more than 64 bits, which JSON readers and databases change. Give it as text."
    if isinstance(value, float):
        return None if math.isfinite(value) else f"is {value!r}, which JSON does not have. Give None."
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    remedy = _REMEDIES.get(kind.__name__, "Give plain values, a dataclass or a pydantic model.")
    return f"is a {name}, which is not JSON. {remedy}"
