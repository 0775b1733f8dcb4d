"""What goes over the channel: one JSON object a line each way, and errors that stay what they are."""

from __future__ import annotations

from typing import Any

import msgspec

from synergymesh import errors
from synergymesh.errors import SynergyMeshError

REQUEST_BYTES_MAX = 64 * 1024
"""A verb and its arguments: ids, names and a quota. A path or a long name fits many times."""

ANSWER_BYTES_MAX = 16 * 1024 * 1024
"""The state of some ten thousand tenants; verbs that could answer more take a limit."""

MESSAGE_CHARACTERS_MAX = 10_000
"""Of the message of an error, which may quote what was asked."""


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Ask for a verb with its arguments."""

    verb: str
    arguments: msgspec.Raw = msgspec.Raw(b"{}")


class Failure(msgspec.Struct, frozen=True):
    """Carry an error of SynergyMesh: its code, its message and its fields."""

    code: str
    message: str
    fields: dict[str, Any] = {}


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """Carry what the verb gave, or why it could not."""

    value: msgspec.Raw = msgspec.Raw(b"null")
    error: Failure | None = None


def failure_of(error: SynergyMeshError) -> Failure:
    """Put an error into a message; of its fields, those that are JSON."""
    fields = {}
    for name, value in vars(error).items():
        try:
            fields[name] = msgspec.to_builtins(value)
        except (TypeError, ValueError):
            continue
    return Failure(error.code, str(error)[:MESSAGE_CHARACTERS_MAX], fields)


def error_of(failure: Failure) -> SynergyMeshError:
    """Give the error that a message carries: of the same class, with the same message and fields."""
    kind = _kinds().get(failure.code, SynergyMeshError)
    error = kind.__new__(kind)
    error.args = (failure.message,)
    for name, value in failure.fields.items():
        setattr(error, name, tuple(value) if isinstance(value, list) else value)
    return error


def _kinds() -> dict[str, type[SynergyMeshError]]:
    """Give the errors of SynergyMesh by their codes; those that a program derives from them are not asked anything."""
    kinds = (kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, SynergyMeshError))
    return {kind.code: kind for kind in kinds}
