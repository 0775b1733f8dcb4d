"""An event loop whose time is made up: it never waits, has no threads, and does the same again from the same start.

The idea is FoundationDB's deterministic simulation ("Testing Distributed Systems w/ Deterministic Simulation", Strange
Loop 2014): who owns time and order owns every interleaving.
"""

from __future__ import annotations

import asyncio
import heapq
from asyncio import events
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple

from synergymesh.domain.instants import SECOND, Instant

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

BEGIN: Instant = 1_700_000_000 * SECOND
"""What a virtual clock shows at second 0: some day in 2023."""


class Deadlock(RuntimeError):
    """Nothing is ready and no timer is set: whoever still waits, waits for ever."""


CALLBACKS_AT_ONCE_MAX = 200_000
"""So many callbacks without a moment's rest mean that time will never pass again."""


class Livelock(RuntimeError):
    """Callbacks ask for callbacks for ever, and time never passes."""


class VirtualLoop(asyncio.BaseEventLoop):
    """Run callbacks in the order in which they were asked for; when there is none, go on to the next timer.

    Attributes:
        idle: is called each time before time passes.
        callbacks: how many have run.
    """

    _ready: deque[events.Handle]
    _scheduled: list[events.TimerHandle]
    _timer_cancelled_count: int
    _stopping: bool

    def __init__(self, seconds: float = 0.0) -> None:
        """Begin at so many seconds."""
        super().__init__()
        self._seconds = seconds
        self.idle: Callable[[], None] = _nothing
        self.callbacks = 0
        self._since = 0

    def time(self) -> float:
        """Give the virtual seconds."""
        return self._seconds

    def leap(self, seconds: float) -> None:
        """Let time pass while nothing runs, as for a process that is stopped and goes on later."""
        self._seconds += seconds

    def _run_once(self) -> None:
        """Run the next callback; asyncio's own loop calls this until it is stopped."""
        ready, timers = self._ready, self._scheduled
        if not ready:
            self._forget_cancelled()
            if not timers:
                if self._stopping:
                    return
                raise Deadlock("nothing is ready and no timer is set.")
            due: float = timers[0].when()
            if due > self._seconds:
                self.idle()
                if ready:
                    return
                self._seconds = due
                self._since = self.callbacks
        self._forget_cancelled()
        while timers and timers[0].when() <= self._seconds:
            timer: Any = heapq.heappop(timers)
            timer._scheduled = False
            if timer._cancelled:
                self._timer_cancelled_count -= 1
            else:
                ready.append(timer)
        if ready:
            handle: Any = ready.popleft()
            if not handle._cancelled:
                self.callbacks += 1
                if self.callbacks - self._since > CALLBACKS_AT_ONCE_MAX:
                    raise Livelock(f"time stands still, and this is called for ever: {handle!r}.")
                handle._run()

    def _forget_cancelled(self) -> None:
        timers: list[Any] = self._scheduled
        while timers and timers[0]._cancelled:
            heapq.heappop(timers)._scheduled = False
            self._timer_cancelled_count -= 1

    def _write_to_self(self) -> None:
        """Do nothing: there is no other thread that could have to wake this one."""

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Call a function here and now: a thread would come to it at another moment each time."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


class VirtualClock:
    """Show the time of a virtual loop, as far off as it is set.

    Attributes:
        offset: nanoseconds by which it is fast, below 0 slow.
        loop: whose time it is.
    """

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.offset = 0

    def now(self) -> Instant:
        """Give the present moment in nanoseconds since 1970 (UTC)."""
        return BEGIN + int(self.loop.time() * SECOND) + self.offset

    def step(self, seconds: float) -> None:
        """Set the clock forward, or back."""
        self.offset += int(seconds * SECOND)


def _nothing() -> None:
    """Do nothing; until somebody listens."""
