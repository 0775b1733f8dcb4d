"""Who takes more than its share while others wait: served cost and queue waits of each tenant over the last minutes."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from synergymesh.domain.instants import Instant
from synergymesh.domain.scheduling.limits import MINUTE

MINUTES = 5
"""Long enough for a p95, short enough to see a flood while it lasts."""

NOISY_SCORE = 150
"""Half as much again as its weight gives it."""

MILLION = 1_000_000
STEPS_SHIFT = 3
"""Waits are kept in eight steps per power of two: a quantile is at most an eighth too large."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """Describe a tenant beside the others over the last minutes.

    Attributes:
        served: charged cost.
        share: its part of all cost served, in millionths.
        fair_share: what its weight gives it beside the tenants that were served at all, in millionths.
        score: share in percent of fair share; 100 is exactly what it is due.
        wait_p50_ns, wait_p95_ns: from ready to started.
        noisy: it takes much more than its share, and somebody who gets less than theirs waits longer than it does.
    """

    tenant_id: str
    starts: int
    served: int
    share: int
    fair_share: int
    score: int
    wait_p50_ns: int
    wait_p95_ns: int
    noisy: bool


class _Tally:
    """Hold a tenant's figures of one minute."""

    __slots__ = ("served", "starts", "waits")

    def __init__(self) -> None:
        self.served = 0
        self.starts = 0
        self.waits: dict[int, int] = {}


class NeighbourWatch:
    """Take note of every start, and tell who is noisy. Memory: the tenants that were active in the last minutes."""

    __slots__ = ("_current", "_minute", "_minutes")

    def __init__(self) -> None:
        self._minutes: deque[tuple[int, dict[str, _Tally]]] = deque()
        self._minute = -1
        self._current: dict[str, _Tally] = {}

    def started(self, tenant_id: str, waited_ns: int, cost: int, now: Instant, *, times: int = 1) -> None:
        """Take note of a start: how long the task was ready, and what its tenant was charged.

        Args:
            tenant_id: whose task.
            waited_ns: how long it was ready before it started.
            cost: what the tenant was charged.
            now: the present.
            times: how many starts this one stands for, where only a sample is told.
        """
        tally = self._tally(tenant_id, now)
        tally.served += cost * times
        tally.starts += times
        step = _step_of(waited_ns)
        tally.waits[step] = tally.waits.get(step, 0) + times

    def corrected(self, tenant_id: str, more: int, now: Instant) -> None:
        """Take note that a task cost more than was charged, or less; also of one that started long ago."""
        self._tally(tenant_id, now).served += more

    def tenants(self, now: Instant) -> set[str]:
        """Give the tenants that were served in the last minutes."""
        self._turn(now // MINUTE)
        return {tenant_id for _, tallies in self._minutes for tenant_id in tallies}

    def report(self, weights: Mapping[str, int], now: Instant) -> list[Neighbour]:
        """Describe the tenants that were served in the last minutes, the noisiest first.

        Args:
            weights: of the tenants; those that are not in it have gone, and are left out.
            now: the present.
        """
        self._turn(now // MINUTE)
        total: dict[str, _Tally] = {}
        for _, tallies in self._minutes:
            for tenant_id, tally in tallies.items():
                if tenant_id in weights:
                    _add(total.setdefault(tenant_id, _Tally()), tally)
        served = max(1, sum(max(0, tally.served) for tally in total.values()))
        weight = max(1, sum(weights[tenant_id] for tenant_id in total))
        shares = {tenant_id: max(0, tally.served) * MILLION // served for tenant_id, tally in total.items()}
        dues = {tenant_id: weights[tenant_id] * MILLION // weight for tenant_id in total}
        scores = {tenant_id: share * 100 // max(1, dues[tenant_id]) for tenant_id, share in shares.items()}
        p95s = {tenant_id: _quantile(tally.waits, 95) for tenant_id, tally in total.items()}
        # who gets less than its due is a victim of those that wait less than it does
        longest = max((p95s[tenant_id] for tenant_id, score in scores.items() if score < 100), default=0)
        neighbours = []
        for tenant_id, tally in total.items():
            share, fair_share, score = shares[tenant_id], dues[tenant_id], scores[tenant_id]
            noisy = score >= NOISY_SCORE and longest > p95s[tenant_id]
            neighbours.append(
                Neighbour(
                    tenant_id=tenant_id,
                    starts=tally.starts,
                    served=tally.served,
                    share=share,
                    fair_share=fair_share,
                    score=score,
                    wait_p50_ns=_quantile(tally.waits, 50),
                    wait_p95_ns=p95s[tenant_id],
                    noisy=noisy,
                )
            )
        return sorted(neighbours, key=lambda neighbour: (-neighbour.score, neighbour.tenant_id))

    def _tally(self, tenant_id: str, now: Instant) -> _Tally:
        self._turn(now // MINUTE)
        tally = self._current.get(tenant_id)
        if tally is None:
            tally = self._current[tenant_id] = _Tally()
        return tally

    def _turn(self, minute: int) -> None:
        if minute <= self._minute:
            return
        self._minute = minute
        self._current = {}
        self._minutes.append((minute, self._current))
        while self._minutes[0][0] <= minute - MINUTES:
            self._minutes.popleft()


def _add(total: _Tally, tally: _Tally) -> None:
    total.served += tally.served
    total.starts += tally.starts
    for step, count in tally.waits.items():
        total.waits[step] = total.waits.get(step, 0) + count


def _step_of(nanoseconds: int) -> int:
    """Give the number of the step that a wait falls into."""
    nanoseconds = max(0, nanoseconds)
    size = nanoseconds.bit_length()
    if size <= STEPS_SHIFT:
        return nanoseconds
    return (size - STEPS_SHIFT << STEPS_SHIFT) + (nanoseconds >> size - STEPS_SHIFT - 1) - (1 << STEPS_SHIFT)


def _end_of(step: int) -> int:
    """Give the largest wait of a step."""
    if step < 1 << STEPS_SHIFT:
        return step
    power, part = divmod(step, 1 << STEPS_SHIFT)
    return ((1 << STEPS_SHIFT) + part + 1 << power - 1) - 1


def _quantile(waits: Mapping[int, int], percent: int) -> int:
    """Give the wait that so many percent do not exceed, rounded up to the end of its step."""
    left = -(-sum(waits.values()) * percent // 100)
    for step in sorted(waits):
        left -= waits[step]
        if left <= 0:
            return _end_of(step)
    return 0
