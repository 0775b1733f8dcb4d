"""The clock as a seam: production reads the machine's, tests and simulations bring their own."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from synergymesh.domain.instants import SECOND, Instant


class Clock(Protocol):
    """Tell the time."""

    def now(self) -> Instant:
        """Give the present moment in nanoseconds since 1970 (UTC)."""
        ...


class SystemClock:
    """Tell the machine's time."""

    now = staticmethod(time.time_ns)
    """Give the present moment in nanoseconds since 1970 (UTC)."""


class SteadyClock:
    """Follow a clock, except when it is set back: then time goes on at the pace of a stopwatch until it catches up.

    Without that, whatever waits for a moment (a retry, the rolling hour) would wait for as long as the clock was set
    back. A clock that is set forward is followed.

    Args:
        clock: what the time is.
        stopwatch: seconds since any moment; never goes back.
    """

    def __init__(self, clock: Clock, stopwatch: Callable[[], float]) -> None:
        self._shown = clock.now
        self._stopwatch = stopwatch
        self._last: Instant = 0
        self._ahead = False
        self._set_back_at: Instant = 0
        self._since = 0.0

    def now(self) -> Instant:
        """Give the present moment in nanoseconds since 1970 (UTC); never earlier than before."""
        shown = self._shown()
        if not self._ahead:
            if shown >= self._last:
                self._last = shown
                return shown
            self._ahead = True
            self._set_back_at = self._last
            self._since = self._stopwatch()
            return self._last
        self._last = self._set_back_at + int((self._stopwatch() - self._since) * SECOND)
        if shown >= self._last:
            self._last = shown
            self._ahead = False
        return self._last
