"""Who acts now: a context that says on whose account what is asked for is recorded."""

from __future__ import annotations

import os
import pwd
from contextvars import ContextVar, Token
from functools import cache
from types import TracebackType
from typing import Self

from synergymesh.domain.actors import Actor
from synergymesh.errors import InvalidRequest

_acting: ContextVar[Actor | None] = ContextVar("synergymesh_actor", default=None)


@cache
def process_actor(source: str = "process") -> Actor:
    """Give the system user under which this process runs: the actor where no other one is named."""
    user = os.geteuid()
    try:
        name = pwd.getpwuid(user).pw_name
    except KeyError:
        name = str(user)
    return Actor(type="user", id=name, source=source)


def current_actor() -> Actor:
    """Give who acts now."""
    return _acting.get() or process_actor()


class ActingAs:
    """Record what is asked for inside `with` (or `async with`) on an actor's account; contexts may be nested."""

    __slots__ = ("_actor", "_tokens")

    def __init__(self, actor: Actor) -> None:
        """Name the actor.

        Raises:
            InvalidRequest: it is none.
        """
        if not isinstance(actor, Actor):
            raise InvalidRequest(f"actor must be an Actor, not {actor!r:.100}.", field="actor")
        self._actor = actor
        self._tokens: list[Token[Actor | None]] = []

    def __enter__(self) -> Self:
        self._tokens.append(_acting.set(self._actor))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _acting.reset(self._tokens.pop())

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)
