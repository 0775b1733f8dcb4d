"""How long finished runs are kept."""

from __future__ import annotations

from synergymesh.domain.instants import Instant

DAY = 86_400 * 1_000_000_000


def ended_before(now: Instant, retention_days: float) -> Instant:
    """Give the moment before which a run must have ended to go now; 0 for never.

    Args:
        now: nanoseconds since 1970.
        retention_days: how long it is kept after its end.
    """
    return max(0, now - int(retention_days * DAY))
