"""Errors as data, so that they can cross a process and a database: what an exception says of itself, within limits."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import cast

import msgspec

from synergymesh.errors import RetryLater

MESSAGE_CHARACTERS_MAX = 2_000
TRACEBACK_CHARACTERS_MAX = 16_000
"""A recorded error stays readable, and small beside the row it stands in."""

DELAY_SECONDS_MAX = 30 * 86_400.0
"""No delay is longer than 30 days: what waits longer wants a new submission."""

FULL_TRACEBACKS_MAX = 20
"""Earlier attempts of a task that are kept with their whole traceback; 10,000 of them would fill a disk."""

SHORT_TRACEBACK_CHARACTERS = 2_000
"""What is kept of the traceback of the attempts after those; the final error of a task has the whole one."""


class ErrorInfo(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Describe an error as data, so that it can cross a process and a database.

    `types` are the full names of the exception's class and its bases, the class first; empty for what no exception
    stands behind (a crash, a quarantine). `retry_after` are the seconds of a `RetryLater`. `ending` says of a final
    error why no other attempt followed; it is an `Ending`, or empty.
    """

    type: str
    message: str
    types: tuple[str, ...] = ()
    traceback: str = ""
    retry_after: float | None = None
    ending: str = ""

    def __str__(self) -> str:
        return f"{self.type.removeprefix('builtins.')}: {self.message}" if self.message else self.type


def type_name(exception_type: type[BaseException]) -> str:
    """Give the full name of an exception type, as policies and recorded errors compare it."""
    try:
        return _storable(f"{exception_type.__module__}.{exception_type.__qualname__}")
    except BaseException:  # what a class says of itself is code of others
        return _storable(f"unknown.{type.__getattribute__(exception_type, '__name__')}")


def _lineage(exception_type: type[BaseException]) -> tuple[str, ...]:
    """Give the full names of a type and its bases, itself first."""
    bases: tuple[type, ...] = type.__getattribute__(exception_type, "__mro__")
    return tuple(type_name(base) for base in bases if base is not object)


INDESCRIBABLE = ErrorInfo(
    "builtins.BaseException",
    "(an exception that cannot even be described)",
    ("builtins.Exception", "builtins.BaseException"),
)


def describe(exception: BaseException, *, type_: type[BaseException] | None = None) -> ErrorInfo:
    """Describe an exception: type, lineage, message and traceback, each within its limit.

    What an exception says of itself is code of others, which may raise anything. This function never does: what cannot
    be found out is replaced by a note.
    """
    try:
        kind = type_ or type(exception)
        message = _told(str, exception, "its message cannot be shown")
        retry_after, complaint = _retry_after(exception)
        if complaint:
            message = f"{message[: MESSAGE_CHARACTERS_MAX - len(complaint) - 1]} {complaint}"
        trace = _told(_format, exception, "its traceback cannot be shown")
        if len(trace) > TRACEBACK_CHARACTERS_MAX:
            trace = f"{trace[:1_000]}\n… shortened …\n{trace[1_000 - TRACEBACK_CHARACTERS_MAX :]}"
        return ErrorInfo(
            type_name(kind), _storable(message[:MESSAGE_CHARACTERS_MAX]), _lineage(kind), _storable(trace), retry_after
        )
    except BaseException:
        return INDESCRIBABLE


def _told(tell: Callable[[BaseException], str], exception: BaseException, otherwise: str) -> str:
    """Ask an exception for a text about itself."""
    try:
        return str.__str__(tell(exception))
    except BaseException as broken:
        return f"({otherwise}: {type.__getattribute__(type(broken), '__name__')})"


def _format(exception: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(exception))
    except Exception:  # its notes or its causes cannot be shown
        return "".join(traceback.format_tb(exception.__traceback__))


def _retry_after(exception: BaseException) -> tuple[float | None, str]:
    """Give the seconds that a `RetryLater` asks for, and what is wrong with them if they are none."""
    if not issubclass(type(exception), RetryLater):
        return None, ""
    try:
        delay = cast(RetryLater, exception).delay
        if type(delay) in (int, float) and delay >= 0:
            return float(min(delay, DELAY_SECONDS_MAX)), ""
        shown = f"{delay!r:.100}"
    except BaseException:
        shown = "missing"
    return (
        None,
        f"(it counts as a failure: its delay is {shown}, not a number of seconds; call super().__init__(delay))",
    )


def shorten(error: ErrorInfo) -> ErrorInfo:
    """Give an error with the end of its traceback only."""
    if len(error.traceback) <= SHORT_TRACEBACK_CHARACTERS:
        return error
    return msgspec.structs.replace(error, traceback=f"… shortened …\n{error.traceback[-SHORT_TRACEBACK_CHARACTERS:]}")


def _storable(text: str) -> str:
    """Replace what no database stores: NUL and lone surrogates."""
    return text.replace("\0", "\N{SYMBOL FOR NULL}").encode("utf-8", "backslashreplace").decode()
