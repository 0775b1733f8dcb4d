"""Runs plain functions in threads."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor

from synergymesh.domain.fault_tolerance.error_info import ErrorInfo, describe
from synergymesh.domain.fault_tolerance.retry import (
    Cancelled,
    Lost,
    Outcome,
    Raised,
    Succeeded,
)
from synergymesh.executors import capture
from synergymesh.ports.executor import Call
from synergymesh.ports.task_context import enter_task


class ThreadExecutor:
    """Run each call in a thread of a pool. A thread cannot be stopped from outside: `stop` only tells the task.

    Args:
        threads_max: calls that can run at the same time; threads are made as they are needed.
        captures: whether what the calls print and log is kept.
    """

    can_interrupt = False

    def __init__(self, threads_max: int, *, captures: bool = False) -> None:
        self._captures = captures
        self._threads_max = threads_max

    async def start(self) -> None:
        """Make ready to run calls."""
        self._loop = asyncio.get_running_loop()
        if self._captures:
            capture.start()
        self._pool = ThreadPoolExecutor(self._threads_max, thread_name_prefix="synergymesh-task")

    def run(self, call: Call) -> None:
        """Start a call and return at once."""
        try:
            self._pool.submit(self._attempt, call)
        except RuntimeError as error:  # there is no thread to be had
            call.stopped = True  # it may be in the queue nevertheless
            lost = ErrorInfo(
                "synergymesh.NoThread", f"no thread could be started: {error}. Raise the limit of threads."
            )
            self._loop.call_soon(call.done, Lost(lost))

    def stop(self, call: Call) -> None:
        """Set `current_task().cancelled`; the function has to look at it."""
        call.stopped = True
        call.context.cancelled = True

    async def close(self) -> None:
        """Let go of the threads; the interpreter waits at its exit for those that still run."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._captures:
            capture.stop()

    def _attempt(self, call: Call) -> None:
        outcome: Outcome
        if call.stopped:
            outcome = Cancelled()
        else:
            try:
                enter_task(call.context)
                args, kwargs = call.arguments()
                outcome = Succeeded(call.encode(call.function(*args, **kwargs)))
            except BaseException as error:
                # nothing may end a thread of the pool; that the task was told to stop explains whatever it raised
                outcome = Cancelled() if call.stopped else Raised(describe(error))
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for the outcome any more
            self._loop.call_soon_threadsafe(call.done, outcome)
