"""Answers other processes of the same user on a Unix domain socket, without ever keeping the engine waiting."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from synergymesh.engine.acting import ActingAs, process_actor
from synergymesh.errors import InvalidRequest, NotReachable, SynergyMeshError
from synergymesh.local.messages import ANSWER_BYTES_MAX, REQUEST_BYTES_MAX, Answer, Request, failure_of
from synergymesh.local.places import bind, is_same_user
from synergymesh.local.verbs import VERBS, Answering
from synergymesh.logs import Log

CONNECTIONS_MAX = 32
"""People and their scripts; each connection may ask one thing at a time."""

BUSY_SECONDS = 1.0
"""How long a connection over the limit may take to say what it wants, before it is told that there are too many."""

IDLE_SECONDS = 60.0
"""A connection that asks nothing for so long is closed; whoever looks on asks every second."""

WRITE_SECONDS = 10.0
"""How long a client may take to read an answer that fills the socket's buffer."""

CLOSE_SECONDS = 1.0
"""How long answers that are being worked out may take when the server is closed."""

log = Log("synergymesh.local")


class LocalServer:
    """Answer verbs on the socket of a database.

    Args:
        database: whose socket; this process owns it.
        answering: by verb, what answers it.
    """

    def __init__(self, database: Path, answering: Mapping[str, Answering]) -> None:
        self.place: Path | None = None
        self._database = database
        self._answering = answering
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[Any]] = set()
        self._answers: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Begin to listen. Where no socket can be made, that is logged, and nobody is answered."""
        try:
            listening, self.place = bind(self._database)
            self._server = await asyncio.start_unix_server(
                self._serve, sock=listening, limit=REQUEST_BYTES_MAX, backlog=CONNECTIONS_MAX
            )
        except OSError as error:
            log.warning(
                "other processes cannot ask this one: no socket could be made",
                database=str(self._database),
                error=str(error),
            )

    async def close(self) -> None:
        """Stop listening, let answers that are being worked out end for a moment, and remove the socket."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        assert self.place is not None
        with contextlib.suppress(OSError):
            self.place.unlink(missing_ok=True)
        if self._answers:
            await asyncio.wait(self._answers, timeout=CLOSE_SECONDS)
        for task in list(self._connections):
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection until it ends."""
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            connection = writer.get_extra_info("socket")
            if not is_same_user(_as_socket(connection)):
                log.warning("a process of another user asked, and was not answered")
            elif len(self._connections) > CONNECTIONS_MAX:
                # read first: a client that still writes to a closed socket would lose the answer
                async with asyncio.timeout(BUSY_SECONDS):
                    await reader.readline()
                busy = NotReachable(f"{CONNECTIONS_MAX} processes ask already. Try again in a moment.")
                await self._write(writer, failing(busy))
            else:
                await self._converse(reader, writer)
        except (OSError, TimeoutError, ValueError):
            writer.transport.abort()  # it has gone, or does not read
        except asyncio.CancelledError:
            writer.transport.abort()  # by close(); streams of asyncio would log it if it went on
        finally:
            self._connections.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                async with asyncio.timeout(IDLE_SECONDS):
                    line = await reader.readline()
            except ValueError:  # what StreamReader raises for a line over its limit
                too_long = InvalidRequest(f"a request has more than {REQUEST_BYTES_MAX:,} bytes.")
                await self._write(writer, failing(too_long))
                return
            if not line.endswith(b"\n"):
                return
            answer = asyncio.ensure_future(self._answer(line))
            self._answers.add(answer)
            answer.add_done_callback(self._answers.discard)
            try:
                raw = await answer
            except asyncio.CancelledError:
                answer.cancel()
                raise
            await self._write(writer, raw)

    async def _write(self, writer: asyncio.StreamWriter, raw: bytes) -> None:
        writer.write(raw + b"\n")
        async with asyncio.timeout(WRITE_SECONDS):
            await writer.drain()

    async def _answer(self, line: bytes) -> bytes:
        """Work out the answer to a request, whatever it is."""
        try:
            raw = encode(Answer(value=msgspec.Raw(encode(await self._call(line)))))
        except SynergyMeshError as error:
            return failing(error)
        except Exception as error:
            log.error("a verb failed", error=f"{type(error).__name__}: {error}", exc_info=True)
            return failing(SynergyMeshError(f"the process that executes failed: {type(error).__name__}: {error}"))
        if len(raw) > ANSWER_BYTES_MAX:
            return failing(
                InvalidRequest(f"the answer has {len(raw):,} bytes, the limit is {ANSWER_BYTES_MAX:,}. Ask for less.")
            )
        return raw

    async def _call(self, line: bytes) -> Any:
        try:
            request = msgspec.json.decode(line, type=Request)
        except msgspec.DecodeError as error:
            raise InvalidRequest(f"that is no request: {error}.") from None
        verb = VERBS.get(request.verb)
        call = self._answering.get(request.verb)
        if verb is None or call is None:
            raise InvalidRequest(
                f"the process that executes cannot do {request.verb!r}: it may be of another version. Restart it.",
                field="verb",
            )
        try:
            arguments = msgspec.json.decode(request.arguments, type=verb.arguments)
        except msgspec.DecodeError as error:
            raise InvalidRequest(f"{request.verb}: {error}.") from None
        try:
            # only processes of the same user get here
            async with asyncio.timeout(verb.seconds_max), ActingAs(process_actor("local")):
                given = {name: getattr(arguments, name) for name in arguments.__struct_fields__}
                return verb.of(await call(**given))
        except TimeoutError:
            raise NotReachable(
                f"{request.verb} took longer than {verb.seconds_max:.0f} seconds. It may still happen; look again."
            ) from None


encode = msgspec.json.Encoder().encode


def failing(error: SynergyMeshError) -> bytes:
    """Give the answer that carries an error."""
    return encode(Answer(error=failure_of(error)))


def _as_socket(transport_socket: Any) -> socket.socket:
    """Give what asyncio shows of a socket, which has `getsockopt`."""
    connection: socket.socket = transport_socket
    return connection
