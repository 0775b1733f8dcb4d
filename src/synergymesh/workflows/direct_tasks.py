"""Functions that run in the event loop of whoever calls them, under the limits of a tenant."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from typing import Any

from synergymesh.domain.payload import encode
from synergymesh.errors import InvalidPayload
from synergymesh.ports.task_context import current_task, enter_task

DIRECT = "direct"
"""Stands where a workflow version says where its functions are found again: these are not."""


class DirectTask:
    """Call a coroutine function in an event loop; what an attempt of a direct call runs.

    Attributes:
        value: what the function returned last; any object.
        calls: how often it was called.
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
        "payload_bytes_max",
        "started_at",
        "value",
    )

    def __init__(
        self,
        function: Callable[..., Any],
        arguments: Mapping[str, Any],
        loop: asyncio.AbstractEventLoop,
        now: Callable[[], int],
        payload_bytes_max: int,
    ) -> None:
        self._function = function
        self._arguments = dict(arguments)
        self._loop = loop
        self._context = copy_context()
        self._now = now
        self.payload_bytes_max = payload_bytes_max
        self.value: Any = None
        self.calls = 0
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

    async def _call(self) -> Any:
        context = self._context.copy()
        context.run(enter_task, current_task())
        here = asyncio.get_running_loop()
        if here is self._loop:
            return await here.create_task(self._function(**self._arguments), context=context)
        ended: asyncio.Future[asyncio.Task[Any]] = here.create_future()
        begun: list[asyncio.Task[Any]] = []

        def begin() -> None:
            task = self._loop.create_task(self._function(**self._arguments), context=context)
            begun.append(task)
            task.add_done_callback(lambda done: here.call_soon_threadsafe(_set, ended, done))

        def cancel() -> None:
            for task in begun:
                task.cancel()

        self._loop.call_soon_threadsafe(begin)
        while True:
            try:
                # shielded, because the slot is taken until the function has really ended
                task = await asyncio.shield(ended)
                return task.result()
            except asyncio.CancelledError:
                if ended.done():
                    raise
                self._loop.call_soon_threadsafe(cancel)


def _set(future: asyncio.Future[asyncio.Task[Any]], task: asyncio.Task[Any]) -> None:
    if not future.done():
        future.set_result(task)
