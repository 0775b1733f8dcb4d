"""A clock that tests put forward, while everything else goes on as it does."""

from __future__ import annotations

from synergymesh.domain.instants import SECOND, Instant
from synergymesh.ports.clock import SystemClock


class ShiftedClock(SystemClock):
    """Tell the machine's time, and so much more as it was put forward."""

    def __init__(self) -> None:
        self._ahead = 0

    def now(self) -> Instant:
        """Give the moment that it is by this clock, in nanoseconds since 1970 (UTC)."""
        return super().now() + self._ahead

    def forward(self, *, hours: float) -> None:
        """Put the clock forward."""
        self._ahead += int(hours * 3_600 * SECOND)
