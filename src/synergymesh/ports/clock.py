"""The clock as a seam: production reads the machine's, tests and simulations bring their own."""

from __future__ import annotations

import time
from typing import Protocol

from synergymesh.domain.instants import Instant


class Clock(Protocol):
    """Tell the time."""

    def now(self) -> Instant:
        """Give the present moment in nanoseconds since 1970 (UTC)."""
        ...


class SystemClock:
    """Tell the machine's time."""

    def now(self) -> Instant:
        """Give the present moment in nanoseconds since 1970 (UTC)."""
        return time.time_ns()
