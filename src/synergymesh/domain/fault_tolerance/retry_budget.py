"""A retry budget: retries are a share of the other attempts, so that a fault is not made worse by repeating it.

The idea is that of Finagle's `RetryBudget` and of the retry throttling of gRPC (proposal A6): first attempts deposit,
retries withdraw, and a reserve per minute lets rare work be retried as well. What is not covered is not given up as
there: it waits for the reserve.
"""

from __future__ import annotations

from synergymesh.domain.instants import Instant

TOKEN = 60_000_000_000
"""One retry, in units of which the reserve gives `retries_per_minute` every nanosecond: so all of it is exact."""

BURST_SECONDS = 10
"""So many seconds of the reserve can be saved up, and as much of what first attempts deposit."""

BURST_MIN = 10
"""Retries that can be saved up at least."""


class RetryBudget:
    """Know from when on the next retry is covered.

    Args:
        retry_percent: retries that every hundred first attempts allow.
        retries_per_minute: the reserve beside it, at least 1.
        now: the present; the reserve is full at first.
    """

    __slots__ = ("_at", "_balance", "_deposit", "_most", "_rate")

    def __init__(self, *, retry_percent: int, retries_per_minute: int, now: Instant) -> None:
        self._rate = retries_per_minute
        self._deposit = retry_percent * TOKEN // 100
        self._most = max(BURST_MIN, retries_per_minute * BURST_SECONDS // 60) * TOKEN
        self._balance = self._most
        self._at = now

    def attempted(self, now: Instant) -> None:
        """Take note of a first attempt."""
        self._refill(now)
        self._balance = min(self._most, self._balance + self._deposit)

    def retry_at(self, now: Instant, latest: Instant | None = None) -> Instant | None:
        """Take what a retry costs; give the moment from which it is covered, in the order of asking.

        Nothing is taken for a retry that would be covered only after `latest`; None says so.
        """
        self._refill(now)
        left = self._balance - TOKEN
        covered = now if left >= 0 else now + -(left // self._rate)
        if latest is not None and covered > latest:
            return None
        self._balance = left
        return covered

    def is_full(self, now: Instant) -> bool:
        """Tell whether as much is saved up as can be, so that nothing need be remembered."""
        self._refill(now)
        return self._balance == self._most

    def _refill(self, now: Instant) -> None:
        if now > self._at:
            self._balance = min(self._most, self._balance + (now - self._at) * self._rate)
            self._at = now
