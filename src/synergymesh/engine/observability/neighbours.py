"""Watches who is served how much and how long tasks wait, by a sample of the starts where there are many."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random

from synergymesh.domain.scheduling.grants import Grant
from synergymesh.domain.scheduling.neighbours import Neighbour, NeighbourWatch
from synergymesh.domain.scheduling.scheduler import Scheduler
from synergymesh.engine.live import LiveRun
from synergymesh.ports.clock import Clock

SAMPLES_PER_TICK = 200
"""Starts that are looked at in half a second: below it all of them, above it so many, at random. That is a fifth of a
millisecond of work, and a hundred thousand waits in five minutes."""


class Neighbours:
    """Take a sample of the starts, count it now and then, and report on the tenants of the first level.

    A start costs one subtraction; what it means is worked out in `count()`.

    Attributes:
        waited: is called with a tenant, the nanoseconds that one of its tasks was ready before it started, and for how
            many starts that one stands.
    """

    def __init__(self, scheduler: Scheduler[LiveRun], clock: Clock, dice: Random) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._dice = dice
        self._watch = NeighbourWatch()
        self.waited: Callable[[str, int, int], None] = _nothing
        self._skip = 0
        self._stride = 1
        self._starts = 0
        self._fresh: list[tuple[Grant[LiveRun], int]] = []
        self._running: list[tuple[Grant[LiveRun], int, int]] = []

    def started(self, grant: Grant[LiveRun]) -> None:
        """Take note of a start, or pass over it."""
        self._skip -= 1
        if self._skip < 0:
            self._sample(grant)

    def _sample(self, grant: Grant[LiveRun]) -> None:
        stride = self._stride
        self._starts += stride
        self._fresh.append((grant, stride))
        if stride > 1:
            # at random, so that tenants that start in turns are all seen
            self._skip = self._dice.randrange(2 * stride - 1)
        if len(self._fresh) >= 2 * SAMPLES_PER_TICK:
            self._stride = 2 * stride
            self._count_fresh(self._clock.now())

    def count(self) -> None:
        """Count what was sampled since the last time, and what has become of what still runs; twice a second."""
        self._stride = max(1, self._starts // SAMPLES_PER_TICK)
        self._starts = 0
        self._skip = min(self._skip, 2 * self._stride)
        now = self._clock.now()
        self._follow(now)
        self._count_fresh(now)

    def report(self, weight_of: Callable[[str], int | None]) -> list[Neighbour]:
        """Describe the tenants that were served in the last minutes, the noisiest first.

        Args:
            weight_of: the weight of a tenant; None if there is none of that id any more.
        """
        self.count()
        now = self._clock.now()
        known = ((name, weight_of(name)) for name in self._watch.tenants(now))
        return self._watch.report({name: weight for name, weight in known if weight is not None}, now)

    def _count_fresh(self, now: int) -> None:
        fresh, self._fresh = self._fresh, []
        for grant, times in fresh:
            charged = grant.charged
            waited = grant.started_at - grant.ready_at
            self._watch.started(_tenant_of(grant), waited, charged, now, times=times)
            self.waited(grant.tenant_id, waited, times)
            if self._scheduler.is_running(grant):
                self._running.append((grant, times, charged))

    def _follow(self, now: int) -> None:
        """Count what running tasks have cost meanwhile."""
        followed: Iterable[tuple[Grant[LiveRun], int, int]] = self._running
        self._running = []
        for grant, times, counted in followed:
            more = grant.charged - counted
            if more:
                self._watch.corrected(_tenant_of(grant), more * times, now)
            if self._scheduler.is_running(grant):
                self._running.append((grant, times, grant.charged))


def _nothing(*_: object) -> None:
    """Do nothing; until somebody listens."""


def _tenant_of(grant: Grant[LiveRun]) -> str:
    """Name the tenant of the first level: what sub-tenants do counts for the one above them."""
    above = grant.queue.parent
    return grant.tenant_id if above is None or above.parent is None else above.tenant_id
