"""Asks the process that executes a database."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import msgspec

from synergymesh.errors import InvalidRequest, NotReachable
from synergymesh.local.messages import ANSWER_BYTES_MAX, REQUEST_BYTES_MAX, Answer, Request, error_of
from synergymesh.local.places import is_same_user, places
from synergymesh.local.verbs import AnswerT, Verb

CONNECT_SECONDS = 2.0

SPARE_SECONDS = 2.0
"""The other side says itself that a verb took too long; after this much more it is not answering at all."""


class Remote:
    """Hold a connection to the process that executes a database; it asks one thing at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._turn = asyncio.Lock()

    async def ask(self, verb: Verb[AnswerT], **arguments: Any) -> AnswerT:
        """Give the answer to a verb.

        Raises:
            NotReachable: the process does not answer, or has gone. What was asked for may have happened or not.
            SynergyMeshError: what the method of `Orchestrator` raises.
        """
        given = msgspec.json.encode(verb.arguments(**arguments))
        request = msgspec.json.encode(Request(verb.name, msgspec.Raw(given)))
        if len(request) >= REQUEST_BYTES_MAX:
            raise InvalidRequest(f"{verb.name} was given {len(request):,} bytes, the limit is {REQUEST_BYTES_MAX:,}.")
        async with self._turn:
            try:
                async with asyncio.timeout(verb.seconds_max + SPARE_SECONDS):
                    self._writer.write(request + b"\n")
                    await self._writer.drain()
                    line = await self._reader.readline()
            except (OSError, TimeoutError, ValueError) as error:
                self._writer.transport.abort()
                raise NotReachable(_gone(str(error) or "no answer in time")) from None
        if not line.endswith(b"\n"):
            raise NotReachable(_gone("it closed the connection"))
        try:
            answer = msgspec.json.decode(line, type=Answer)
            if answer.error is not None:
                raise error_of(answer.error)
            return msgspec.json.decode(answer.value, type=verb.answer)
        except msgspec.DecodeError as error:
            raise NotReachable(
                f"the process that executes this database gives an answer that is not understood ({error}). It may be "
                f"of another version; restart it."
            ) from None

    async def close(self) -> None:
        """Close the connection."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


async def connect(database: Path) -> Remote | None:
    """Connect to the process that executes a database; None if none listens.

    Args:
        database: absolute, symbolic links resolved.
    """
    for place in places(database):
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                reader, writer = await asyncio.open_unix_connection(str(place), limit=ANSWER_BYTES_MAX)
        except (OSError, TimeoutError):
            continue
        if is_same_user(writer.get_extra_info("socket")):
            return Remote(reader, writer)
        writer.close()
    return None


def _gone(why: str) -> str:
    return (
        f"the process that executes this database stopped answering ({why}). What was asked for may have happened or "
        f"not; look before you repeat it."
    )
