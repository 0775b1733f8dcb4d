"""A circuit breaker: stops work that would fail anyway, and lets it in again in waves that grow.

The idea is Nygard's ("Release It!", 2007). What it stops is not failed, as a breaker in front of a call would do: it
waits until the circuit is closed again. Time and dice come in as arguments; all counting is in integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from synergymesh.domain.instants import SECOND, Instant
from synergymesh.errors import InvalidRequest

BUCKETS = 10
"""Parts of a window: what is older than it leaves in steps of a tenth."""

WAVE_MAX = 64
"""The last wave before the circuit is closed: a dependency that bore it bears the rest."""

DAY_SECONDS = 86_400
CALLS_MAX = 1_000_000


class BreakerState(StrEnum):
    """Name the state of a circuit."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerPolicy:
    """Say when a circuit opens, for how long, and how many retries there may be beside the other attempts.

    Attributes:
        failure_percent: it opens when so many of the attempts in the window failed, 1 to 100.
        minimum_calls: fewer attempts in the window open nothing, 1 to 1,000,000.
        window_seconds: how far back attempts count, 1 to 86,400.
        open_seconds: how long it is open at first; each time that the canaries fail, twice as long.
        open_seconds_max: it is never open for longer at a time.
        canaries: attempts of the first wave when it is tried again, 1 to 64; each wave is twice the one before.
        retry_percent: retries that every hundred first attempts allow, 0 to 1,000.
        retries_per_minute: retries that are allowed beside these, 1 to 1,000,000.

    Raises:
        InvalidRequest: a field is outside its range.
    """

    failure_percent: int = 50
    minimum_calls: int = 20
    window_seconds: int = 60
    open_seconds: int = 30
    open_seconds_max: int = 600
    canaries: int = 1
    retry_percent: int = 20
    retries_per_minute: int = 600

    def __post_init__(self) -> None:
        for field, low, high in (
            ("failure_percent", 1, 100),
            ("minimum_calls", 1, CALLS_MAX),
            ("window_seconds", 1, DAY_SECONDS),
            ("open_seconds", 1, DAY_SECONDS),
            ("open_seconds_max", 1, DAY_SECONDS),
            ("canaries", 1, WAVE_MAX),
            ("retry_percent", 0, 1_000),
            ("retries_per_minute", 1, CALLS_MAX),
        ):
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise InvalidRequest(
                    f"{field} must be a whole number from {low:,} to {high:,}, not {value!r:.100}.", field=field
                )
        if self.open_seconds_max < self.open_seconds:
            raise InvalidRequest(
                f"open_seconds_max ({self.open_seconds_max:,}) must be at least open_seconds ({self.open_seconds:,}).",
                field="open_seconds_max",
            )


class Breaker:
    """Follow the attempts at one thing that can be down.

    Attributes:
        state: closed, open or half open.
        since: when it came into that state; what was started before it says nothing about it.
        until: when an open circuit is tried again.
        trips: how often it has opened since it was closed.
        wave: while it is half open, how many attempts are let in before the next decision.
    """

    __slots__ = ("_bucket", "_calls", "_failures", "_wave_failed", "_wave_passed", "policy", "since", "state", "trips",
                 "until", "wave")  # fmt: skip

    def __init__(self, policy: BreakerPolicy) -> None:
        self.policy = policy
        self.state = BreakerState.CLOSED
        self.since: Instant = 0
        self.until: Instant = 0
        self.trips = 0
        self.wave = 0
        self._wave_passed = self._wave_failed = 0
        self._bucket = 0
        self._calls = [0] * BUCKETS
        self._failures = [0] * BUCKETS

    @classmethod
    def restore(
        cls,
        policy: BreakerPolicy,
        state: BreakerState,
        since: Instant,
        until: Instant,
        trips: int,
        wave: int,
        *,
        now: Instant,
    ) -> Breaker:
        """Give a breaker as it was stored; what it counted within its window is forgotten.

        It is open for no longer than it was to be open when it opened: the clock may have been set back since. The
        canaries of one that is half open are let in anew, as they ended with the process.
        """
        breaker = cls(policy)
        breaker.state = state
        breaker.since = now if state is BreakerState.HALF_OPEN else min(since, now)
        breaker.until = min(until, now + max(0, until - since))
        breaker.trips, breaker.wave = trips, wave
        if state is BreakerState.HALF_OPEN and wave < 1:
            breaker.wave = policy.canaries
        return breaker

    def record(self, *, failed: bool, started_at: Instant, now: Instant, dice: float) -> bool:
        """Take note of how an attempt ended; tell whether the state or the wave is another one now.

        Args:
            failed: whether it failed in a way that another attempt could cure.
            started_at: when it started.
            now: when it ended.
            dice: a number in [0, 1): spreads the ends of open circuits over a tenth of their time.
        """
        if started_at < self.since or self.state is BreakerState.OPEN:
            return False
        if self.state is BreakerState.HALF_OPEN:
            return self._record_canary(failed, now, dice)
        self._advance(now)
        at = self._bucket % BUCKETS
        self._calls[at] += 1
        if not failed:
            return False
        self._failures[at] += 1
        calls, failures = sum(self._calls), sum(self._failures)
        policy = self.policy
        if calls < policy.minimum_calls or failures * 100 < policy.failure_percent * calls:
            return False
        self._open(now, dice)
        return True

    def wake(self, now: Instant) -> bool:
        """Try an open circuit again once its time is over; tell whether it is tried now."""
        if self.state is not BreakerState.OPEN or now < self.until:
            return False
        self.state = BreakerState.HALF_OPEN
        self.since = now
        self._begin_wave(self.policy.canaries)
        return True

    @property
    def wave_left(self) -> int:
        """Count the attempts of the present wave that have not told how they ended."""
        return self.wave - self._wave_passed - self._wave_failed

    def change_policy(self, policy: BreakerPolicy) -> None:
        """Follow another policy from now on; the window begins anew if it has another length."""
        if policy.window_seconds != self.policy.window_seconds:
            self._calls = [0] * BUCKETS
            self._failures = [0] * BUCKETS
            self._bucket = 0
        self.policy = policy

    def close(self, now: Instant) -> None:
        """Let everything in again, and forget what was counted."""
        self.state = BreakerState.CLOSED
        self.since = now
        self.until = 0
        self.trips = self.wave = 0
        self._calls = [0] * BUCKETS
        self._failures = [0] * BUCKETS

    def counts(self, now: Instant) -> tuple[int, int]:
        """Give the attempts in the window, and how many of them failed."""
        if self.state is BreakerState.CLOSED:
            self._advance(now)
        return sum(self._calls), sum(self._failures)

    def is_quiet(self, now: Instant) -> bool:
        """Tell whether nothing failed within the window, so that nothing need be remembered."""
        return self.state is BreakerState.CLOSED and self.counts(now)[1] == 0

    def _record_canary(self, failed: bool, now: Instant, dice: float) -> bool:
        if failed:
            self._wave_failed += 1
            if self._wave_failed * 100 >= self.policy.failure_percent * self.wave:
                self._open(now, dice)
                return True
        else:
            self._wave_passed += 1
        if self._wave_passed + self._wave_failed < self.wave:
            return False
        if self.wave >= WAVE_MAX:
            self.close(now)
        else:
            self._begin_wave(min(2 * self.wave, WAVE_MAX))
        return True

    def _begin_wave(self, size: int) -> None:
        self.wave = size
        self._wave_passed = self._wave_failed = 0

    def _open(self, now: Instant, dice: float) -> None:
        seconds = min(self.policy.open_seconds << min(self.trips, 20), self.policy.open_seconds_max)
        length = seconds * SECOND
        self.state = BreakerState.OPEN
        self.since = now
        self.until = now + length + int(length // 10 * dice)
        self.trips += 1
        self.wave = 0

    def _advance(self, now: Instant) -> None:
        """Empty the buckets that the window has left; a clock that goes back empties none."""
        bucket = now * BUCKETS // (self.policy.window_seconds * SECOND)
        steps = bucket - self._bucket
        if steps <= 0:
            return
        for step in range(min(steps, BUCKETS)):
            at = (bucket - step) % BUCKETS
            self._calls[at] = self._failures[at] = 0
        self._bucket = bucket
