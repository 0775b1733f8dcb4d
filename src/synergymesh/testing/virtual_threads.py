"""Plain functions on a virtual loop: they take time, and cannot be stopped, as in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context

from synergymesh.domain.fault_tolerance.error_info import describe
from synergymesh.domain.fault_tolerance.retry import Cancelled, Outcome, Raised, Succeeded
from synergymesh.ports.executor import Call
from synergymesh.ports.task_context import TaskContext, enter_task


class VirtualThreads:
    """Run each call at once, and report its outcome after as long as it is said to take.

    Args:
        seconds_of: how long a call takes.
    """

    can_interrupt = False

    def __init__(self, seconds_of: Callable[[TaskContext], float]) -> None:
        self._seconds_of = seconds_of

    async def start(self) -> None:
        """Make ready to run calls."""
        self._loop = asyncio.get_running_loop()

    def run(self, call: Call) -> None:
        """Start a call and return at once."""
        self._loop.call_soon(self._begin, call)

    def stop(self, call: Call) -> None:
        """Set `current_task().cancelled`; nothing else is possible."""
        call.stopped = True
        call.context.cancelled = True

    async def close(self) -> None:
        """Do nothing."""

    def _begin(self, call: Call) -> None:
        if call.stopped:
            call.done(Cancelled())
            return
        outcome = copy_context().run(_outcome_of, call)
        self._loop.call_later(self._seconds_of(call.context), self._end, call, outcome)

    def _end(self, call: Call, outcome: Outcome) -> None:
        if call.stopped and isinstance(outcome, Raised):
            outcome = Cancelled()
        call.done(outcome)


def _outcome_of(call: Call) -> Outcome:
    try:
        enter_task(call.context)
        args, kwargs = call.arguments()
        return Succeeded(call.encode(call.function(*args, **kwargs)))
    except Exception as error:
        return Raised(describe(error))
