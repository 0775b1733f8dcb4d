"""Functions that run in the event loop of whoever calls them, under the limits of a tenant."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from contextvars import Context, copy_context
from typing import Any

from synergymesh.domain.fault_tolerance.error_info import describe
from synergymesh.domain.fault_tolerance.retry import Cancelled, Outcome, Raised, Succeeded
from synergymesh.domain.payload import encode
from synergymesh.errors import InvalidPayload
from synergymesh.mailbox import Mailbox
from synergymesh.ports.executor import Call
from synergymesh.ports.task_context import TaskContext, enter_task

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
    """Call a coroutine function in an event loop; executes the attempts of a direct call.

    It is made in the context in which the function is to run: each attempt has a copy of it.

    Args:
        function: a coroutine function.
        arguments: keyword arguments.
        there: leads to the event loop of the function.
        here: leads to the engine's.
        now: the engine's clock.
        payload_bytes_max: the longest value that is recorded.
        max_retries: in the place of that of its retry policy, or None.

    Attributes:
        value: what the function returned last; any object.
        calls: how often it was called.
        given_up: whether nobody waits any more for the function to end when it is stopped.
        started_at, ended_at: of the first and of the last call, nanoseconds as the engine's clock gives them.
    """

    is_async = True
    can_interrupt = True

    __slots__ = (
        "_arguments",
        "_context",
        "_function",
        "_now",
        "calls",
        "ended_at",
        "given_up",
        "here",
        "max_retries",
        "payload_bytes_max",
        "started_at",
        "there",
        "value",
    )

    def __init__(
        self,
        function: Callable[..., Coroutine[Any, Any, Any]],
        arguments: Mapping[str, Any],
        there: Mailbox,
        here: Mailbox,
        now: Callable[[], int],
        payload_bytes_max: int,
        max_retries: int | None = None,
    ) -> None:
        self._function = function
        self._arguments = dict(arguments)
        self._context = copy_context()
        self._now = now
        self.there = there
        self.here = here
        self.payload_bytes_max = payload_bytes_max
        self.max_retries = max_retries
        self.value: Any = None
        self.calls = 0
        self.given_up = False
        self.started_at: int | None = None
        self.ended_at: int | None = None

    @property
    def loop_waits(self) -> bool:
        """Tell whether the function cannot end: its event loop is closed, or waits for somebody who would stop it."""
        return self.there.loop in _waiting or self.there.loop.is_closed()

    def run(self, call: Call) -> None:
        """Call the function where its caller is; `call.done` follows here once it has ended there."""
        self.calls += 1
        if self.started_at is None:
            self.started_at = self._now()
        call.handle = hop = _Hop(self, call)
        hop.start()

    def stop(self, call: Call) -> None:
        """Interrupt a call at its next await; it ends here when it has ended there, or at once if it is given up."""
        call.stopped = True
        call.context.cancelled = True
        hop: _Hop = call.handle
        hop.stop(waits=not (self.given_up or self.loop_waits))

    def call(self) -> Coroutine[Any, Any, Any]:
        """Call the function."""
        return self._function(**self._arguments)

    def context_of(self, context: TaskContext) -> Context:
        """Give the context variables of one call, `current_task()` among them."""
        own = self._context.copy()
        own.run(enter_task, context)
        return own

    def end(self, call: Call, value: Any, error: BaseException | None) -> Outcome:
        """Take what a call has come to, in the engine's event loop."""
        self.ended_at = self._now()
        if error is None:
            self.value = value
            return Succeeded(self._encode(value))
        # The type is asked, as an exception may answer `isinstance` with code of its own.
        if issubclass(type(error), asyncio.CancelledError) and call.stopped:
            return Cancelled()
        return Raised(describe(error))

    def _encode(self, value: Any) -> bytes:
        """Give the value as JSON, null if it is no JSON: the caller has the object itself."""
        try:
            return encode(value, field="result", limit=self.payload_bytes_max)
        except InvalidPayload:
            return b"null"


class _Hop:
    """Lead one call into the event loop of its function and back."""

    __slots__ = ("_call", "_running", "_task")

    def __init__(self, task: DirectTask, call: Call) -> None:
        self._task = task
        self._call: Call | None = call  # until it is told
        self._running: asyncio.Task[Any] | None = None

    # --- in the engine's event loop

    def start(self) -> None:
        """Have the function called."""
        task = self._task
        if task.there.loop is task.here.loop:
            self._begin()
            return
        try:
            task.there.post(self._begin)
        except RuntimeError as error:  # the function's loop is closed
            self._tell_soon(error)

    def stop(self, *, waits: bool) -> None:
        """Cancel the function; wait until it has ended, or do not."""
        task = self._task
        if task.there.loop is task.here.loop:
            self._cancel()
        else:
            task.there.post_if_open(self._cancel)
        if not waits:
            self._tell_soon(asyncio.CancelledError())

    def _tell_soon(self, ended: BaseException) -> None:
        self._task.here.loop.call_soon(self._tell, None, ended)

    def _tell(self, value: Any, error: BaseException | None) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.done(self._task.end(call, value, error))

    # --- in that of the function

    def _begin(self) -> None:
        call = self._call
        if call is None:
            return  # it was given up before
        task = self._task
        self._running = task.there.loop.create_task(self._run(), context=task.context_of(call.context))
        self._running.add_done_callback(self._ended)

    async def _run(self) -> None:
        assert self._running is not None
        # From here on it says itself what it comes to, which takes a turn of the loop less.
        self._running.remove_done_callback(self._ended)
        try:
            value = await self._task.call()
        except BaseException as error:
            if issubclass(type(error), (KeyboardInterrupt, SystemExit)):
                self._running.add_done_callback(self._ended)
                raise
            self._lead_back(None, error)
        else:
            self._lead_back(value, None)

    def _ended(self, running: asyncio.Task[None]) -> None:
        """Take the end of a call that never began, or ends its loop too."""
        self._lead_back(None, asyncio.CancelledError() if running.cancelled() else running.exception())

    def _cancel(self) -> None:
        if self._running is not None:
            self._running.cancel()

    def _lead_back(self, value: Any, error: BaseException | None) -> None:
        here = self._task.here
        if self._task.there.loop is here.loop:
            self._tell(value, error)
        else:
            here.post_if_open(self._tell, value, error)
