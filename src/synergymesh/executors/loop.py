"""Runs coroutine functions on the event loop."""

from __future__ import annotations

import asyncio
from inspect import CORO_CREATED, getcoroutinestate

from synergymesh.domain.fault_tolerance.error_info import describe
from synergymesh.domain.fault_tolerance.retry import Cancelled, Outcome, Raised, Succeeded
from synergymesh.executors import capture
from synergymesh.ports.executor import Call
from synergymesh.ports.task_context import enter_task


class LoopExecutor:
    """Run each call as an asyncio task of its own; `stop` interrupts it at its next await.

    Args:
        captures: whether what the calls print and log is kept.
    """

    can_interrupt = True

    def __init__(self, *, captures: bool = False) -> None:
        self._captures = captures

    async def start(self) -> None:
        """Make ready to run calls."""
        self._loop = asyncio.get_running_loop()
        if self._captures:
            capture.start()

    def run(self, call: Call) -> None:
        """Start a call and return at once."""
        call.handle = self._loop.create_task(self._attempt(call))

    def stop(self, call: Call) -> None:
        """Ask a call to end: a CancelledError at its next await."""
        call.stopped = True
        call.context.cancelled = True
        if getcoroutinestate(call.handle.get_coro()) != CORO_CREATED:
            call.handle.cancel()  # before its first step it would end without having reported

    async def close(self) -> None:
        """End capturing; the engine has stopped the calls."""
        if self._captures:
            capture.stop()

    async def _attempt(self, call: Call) -> None:
        outcome: Outcome
        if call.stopped:
            call.done(Cancelled())
            return
        try:
            enter_task(call.context)
            args, kwargs = call.arguments()
            outcome = Succeeded(call.encode(await call.function(*args, **kwargs)))
        except asyncio.CancelledError as error:
            outcome = Cancelled() if call.stopped else Raised(describe(error))
        except BaseException as error:
            # nothing that a task raises may end the loop; only Ctrl-C, and the end of the loop itself, go through.
            # The type is asked, as an exception may answer `isinstance` with code of its own.
            if issubclass(type(error), KeyboardInterrupt) or self._loop.is_closed():
                raise
            outcome = Raised(describe(error))
        call.done(outcome)
