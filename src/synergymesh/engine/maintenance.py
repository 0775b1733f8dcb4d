"""Does now and then what need not be done at once."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Hashable

from synergymesh.domain.scheduling.limits import MINUTE, WINDOW_MINUTES
from synergymesh.domain.scheduling.scheduler import Scheduler
from synergymesh.engine.attempts import Attempts
from synergymesh.engine.background import Background
from synergymesh.engine.committer import Answer, Committer
from synergymesh.engine.limit_hits import LimitHits
from synergymesh.engine.live import LiveRun
from synergymesh.engine.observability.alerts import LOOK_SECONDS, Alerts
from synergymesh.engine.observability.neighbours import Neighbours
from synergymesh.engine.observability.statistics import HOUR, Statistics
from synergymesh.errors import StoreError
from synergymesh.logs import Log
from synergymesh.ports.changes import EstimateLearnt
from synergymesh.ports.clock import Clock
from synergymesh.ports.store import Store

TICK_SECONDS = 0.5

LEARN_TICKS = 10
"""What was learnt is written every five seconds: a crash forgets no more than that."""

ALERT_TICKS = int(LOOK_SECONDS / TICK_SECONDS)

COUNT_TICKS = 4
"""Counts are written every two seconds: a crash loses no more of them than that."""

KEPT_HOURS = 31 * 24
"""Hours that are kept apart: a month, which service levels are reported for, and a day."""

SWEEP_TICKS = 4
"""Runs that wait for too long outside of the memory are looked for every two seconds."""

PRUNE_TICKS = 120

PURGE_ROWS = 500
"""Rows deleted in one transaction, so that no commit waits long behind it."""

ESTIMATES_PER_UNIT = 500

CHANGED_SHIFT = 1
"""An estimate is written again when it has changed by half: the next start needs no more than an idea of it, and short
tasks change theirs every time."""

log = Log("synergymesh.engine")


class Maintenance:
    """Write down long tasks and learnt durations, charge what runs long, and delete what is not needed any more."""

    def __init__(
        self,
        store: Store,
        committer: Committer,
        scheduler: Scheduler[LiveRun],
        attempts: Attempts,
        statistics: Statistics,
        alerts: Alerts,
        neighbours: Neighbours,
        limit_hits: LimitHits,
        clock: Clock,
        background: Background,
    ) -> None:
        self._store = store
        self._background = background
        self._committer = committer
        self._scheduler = scheduler
        self._attempts = attempts
        self._statistics = statistics
        self._alerts = alerts
        self._neighbours = neighbours
        self._limit_hits = limit_hits
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._ticks = 0
        self._written: dict[str, dict[Hashable, int]] = {}
        self.purge_is_due = True
        self.sweep: Callable[[], Awaitable[None]] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = self._background.start("maintenance", self._tick)

    async def close(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def record_everything(self) -> None:
        """Write down what was learnt and counted; at the end."""
        self._neighbours.count()  # what started since the last tick has waited, too
        self.record_learnt()
        self._statistics.write()
        self._limit_hits.close(self._clock.now())

    def record_learnt(self) -> None:
        """Write down the durations that changed since they were written."""
        by_tenant: dict[str, list[Hashable]] = defaultdict(list)
        for tenant_id, key in self._attempts.learnt:
            by_tenant[tenant_id].append(key)
        self._attempts.learnt.clear()
        changes = []
        for tenant_id, keys in by_tenant.items():
            known = self._scheduler.learnt(tenant_id)
            before = self._written.pop(tenant_id, {})
            if known:
                self._written[tenant_id] = before = {key: before[key] for key in before if key in known}
            for key in keys:
                fresh, old = known.get(key), before.get(key)
                if fresh is None or (old is not None and abs(fresh - old) <= old >> CHANGED_SHIFT):
                    continue
                assert isinstance(key, tuple)
                workflow, component_id = key
                before[key] = fresh
                changes.append(EstimateLearnt(tenant_id, workflow, component_id, fresh))
        for start in range(0, len(changes), ESTIMATES_PER_UNIT):
            self._committer.put(changes[start : start + ESTIMATES_PER_UNIT], _whatever, may_fail=True)

    async def _tick(self) -> None:
        """Do what is due, each thing apart: an error in one of them is not to keep the others from being done."""
        await asyncio.sleep(TICK_SECONDS)
        self._ticks += 1
        guard = self._background.guard
        with guard("long tasks"):
            self._attempts.record_long_tasks()
        with guard("charges of long tasks"):
            self._scheduler.correct_long(self._clock.now())
        with guard("neighbours"):
            self._neighbours.count()
        with guard("limit hits"):
            self._limit_hits.flush(self._clock.now())
        if self._is_due(COUNT_TICKS):
            with guard("statistics"):
                await self._statistics.write_in_turns()
        if self._is_due(LEARN_TICKS):
            with guard("learnt durations"):
                self.record_learnt()
        if self._is_due(ALERT_TICKS):
            with guard("alerts"):
                await self._alerts.look()
        if self._is_due(SWEEP_TICKS) and self.sweep is not None:
            with guard("overdue runs"):
                await self._sweep(self.sweep)
        if self.purge_is_due or self._is_due(PRUNE_TICKS):
            with guard("deletions"):
                await self._delete()

    def _is_due(self, every: int) -> bool:
        return self._ticks % every == 0

    async def _sweep(self, sweep: Callable[[], Awaitable[None]]) -> None:
        try:
            await sweep()
        except StoreError as error:
            log.warning("runs that wait for too long could not be looked for; tried again", error=str(error))

    async def _delete(self) -> None:
        try:
            self.purge_is_due = bool(await self._store.purge_deleted(PURGE_ROWS))
            now = self._clock.now()
            await self._store.prune_reservations(now // MINUTE - 2 * WINDOW_MINUTES, PURGE_ROWS)
            await self._store.add_up_statistics(now // HOUR - KEPT_HOURS, PURGE_ROWS)
        except StoreError as error:
            log.warning("what is not needed any more could not be deleted; tried again", error=str(error))


def _whatever(answer: Answer) -> None:
    """Do nothing: an estimate that was not written is learnt again."""
