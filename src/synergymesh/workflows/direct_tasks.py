"""Functions that run in the event loop of whoever calls them, under the limits of a tenant."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import copy_context
from typing import Any

from synergymesh.domain.payload import encode
from synergymesh.errors import InvalidPayload
from synergymesh.ports.task_context import current_task, enter_task

DIRECT = "direct"
"""Stands where a workflow version says where its functions are found again: these are not."""

_waiting: set[asyncio.AbstractEventLoop] = set()


@contextmanager
def loop_waiting() -> Iterator[None]:
    """Say that the running event loop, if there is one, waits inside: nothing in it can end before this has ended.

    What runs there is given up as soon as it is stopped, since whoever stops it would wait for the loop, and the loop
    for him. Its function is cancelled when the loop goes on.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        yield
        return
    _waiting.add(loop)
    try:
        yield
    finally:
        _waiting.discard(loop)


class DirectTask:
    """Call a coroutine function in an event loop; what an attempt of a direct call runs.

    Attributes:
        value: what the function returned last; any object.
        calls: how often it was called.
        max_retries: in the place of that of its retry policy, or None.
        given_up: whether nobody waits any more for the function to end when it is stopped.
        started_at, ended_at: of the first and of the last call, nanoseconds as the engine's clock gives them.
    """

    is_async = True
    needs_conversion = False

    __slots__ = (
        "_arguments",
        "_context",
        "_function",
        "_loop",
        "_now",
        "calls",
        "ended_at",
        "given_up",
        "max_retries",
        "payload_bytes_max",
        "started_at",
        "value",
    )

    def __init__(
        self,
        function: Callable[..., Coroutine[Any, Any, Any]],
        arguments: Mapping[str, Any],
        loop: asyncio.AbstractEventLoop,
        now: Callable[[], int],
        payload_bytes_max: int,
        max_retries: int | None = None,
    ) -> None:
        self._function = function
        self._arguments = dict(arguments)
        self._loop = loop
        self._context = copy_context()
        self._now = now
        self.payload_bytes_max = payload_bytes_max
        self.max_retries = max_retries
        self.value: Any = None
        self.calls = 0
        self.given_up = False
        self.started_at: int | None = None
        self.ended_at: int | None = None

    async def function(self) -> Any:
        """Call the function where its caller is; end when it has ended there."""
        self.calls += 1
        if self.started_at is None:
            self.started_at = self._now()
        try:
            self.value = await self._call()
        finally:
            self.ended_at = self._now()
        return self.value

    def prepare(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Give the arguments as they are."""
        return tuple(args), dict(kwargs)

    def encode(self, value: Any) -> bytes:
        """Give the value as JSON, null if it is no JSON: the caller has the object itself."""
        try:
            return encode(value, field="result", limit=self.payload_bytes_max)
        except InvalidPayload:
            return b"null"

    @property
    def loop_waits(self) -> bool:
        """Tell whether the function cannot end: its event loop is closed, or waits for somebody who would stop it."""
        return self._loop in _waiting or self._loop.is_closed()

    async def _call(self) -> Any:
        context = self._context.copy()
        context.run(enter_task, current_task())
        here = asyncio.get_running_loop()
        if here is self._loop:
            return await here.create_task(self._function(**self._arguments), context=context)
        ended: asyncio.Future[asyncio.Task[Any] | Exception] = here.create_future()
        begun: list[asyncio.Task[Any]] = []

        def tell(outcome: asyncio.Task[Any] | Exception) -> None:
            with suppress(RuntimeError):  # the orchestrator was closed, and nobody waits for the outcome any more
                here.call_soon_threadsafe(_set, ended, outcome)

        def begin() -> None:
            try:
                task = self._loop.create_task(self._function(**self._arguments), context=context)
            except Exception as error:  # such as arguments that the function does not take
                tell(error)
                return
            begun.append(task)
            task.add_done_callback(tell)

        def cancel() -> None:
            for task in begun:
                task.cancel()

        self._loop.call_soon_threadsafe(begin)
        while True:
            try:
                # shielded, because the slot is taken until the function has really ended
                outcome = await asyncio.shield(ended)
                break
            except asyncio.CancelledError:
                if ended.done():
                    raise
                with suppress(RuntimeError):  # the function's loop is closed
                    self._loop.call_soon_threadsafe(cancel)
                if self.given_up or self.loop_waits:
                    raise
        if isinstance(outcome, Exception):
            raise outcome
        return outcome.result()


def _set(future: asyncio.Future[asyncio.Task[Any] | Exception], outcome: asyncio.Task[Any] | Exception) -> None:
    if not future.done():
        future.set_result(outcome)
