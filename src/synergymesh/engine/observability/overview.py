"""Shows operators at a glance what every tenant does: the busiest ones, their limits, and who is noisy."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from heapq import nlargest

from synergymesh.domain.instants import to_datetime
from synergymesh.domain.scheduling.limits import Capacity
from synergymesh.domain.scheduling.neighbours import Neighbour
from synergymesh.domain.scheduling.queue_views import TenantView
from synergymesh.domain.scheduling.scheduler import Scheduler
from synergymesh.domain.states import TenantStatus
from synergymesh.domain.tenants import Tenant
from synergymesh.engine.backlog.open_tasks import Backlog
from synergymesh.engine.backlog.window import Window
from synergymesh.engine.live import LiveRun
from synergymesh.engine.observability.neighbours import Neighbours
from synergymesh.engine.tenants import Tenants
from synergymesh.errors import InvalidRequest, UnknownTenant
from synergymesh.ports.clock import Clock

SHOWN_MAX = 10_000
"""Tenants in one answer: some megabytes, and more than anybody reads."""

TENANTS_PER_TURN = 1_000
"""Tenants that are looked at before the event loop has its turn again: about a millisecond."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantActivity:
    """Describe what a tenant does.

    Attributes:
        open_tasks: accepted and not final, running ones included; also those that wait for others.
        queue: what waits and runs, and its use of each limit.
        neighbour: its part of the last minutes; None for one that was not served, and for sub-tenants.
    """

    tenant_id: str
    tenant_name: str
    tier: str
    status: TenantStatus
    open_tasks: int
    queue: TenantView
    neighbour: Neighbour | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """Describe a mesh at a moment.

    Attributes:
        at: aware (UTC).
        capacity, used: slots, memory and CPU, of all tenants together.
        open_tasks: of all tenants.
        tenants_total: how many there are.
        tenants: the busiest first.
    """

    at: datetime
    capacity: Capacity
    used: Capacity
    open_tasks: int
    tenants_total: int
    tenants: tuple[TenantActivity, ...]


class Overviews:
    """Look at all tenants, a part of them at a time so that nothing else waits."""

    def __init__(
        self,
        scheduler: Scheduler[LiveRun],
        tenants: Tenants,
        backlog: Backlog,
        window: Window,
        neighbours: Neighbours,
        clock: Clock,
    ) -> None:
        self._scheduler = scheduler
        self._tenants = tenants
        self._backlog = backlog
        self._window = window
        self._neighbours = neighbours
        self._clock = clock

    async def now(self, limit: int) -> Overview:
        """Describe the busiest tenants.

        Args:
            limit: how many at most, 1 to 10,000.

        Raises:
            InvalidRequest: the limit is outside its range.
        """
        if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= SHOWN_MAX:
            raise InvalidRequest(f"limit must be from 1 to {SHOWN_MAX:,}, not {limit!r}.", field="limit")
        scheduler = self._scheduler
        tenants = list(self._tenants)
        busiest: list[tuple[tuple[int, int, int], int, Tenant]] = []
        weight = 0
        for start in range(0, len(tenants), TENANTS_PER_TURN):
            turn = tenants[start : start + TENANTS_PER_TURN]
            weight += sum(scheduler.active_weight(tenant.tenant_id) for tenant in turn)
            # ties: the oldest tenant first
            keyed = ((self._busy(tenant), -start - place, tenant) for place, tenant in enumerate(turn))
            busiest = nlargest(limit, [*busiest, *keyed], key=lambda entry: entry[:2])
            await asyncio.sleep(0)
        activities: list[TenantActivity] = []
        neighbours = {neighbour.tenant_id: neighbour for neighbour in self.neighbours()}
        for start in range(0, len(busiest), TENANTS_PER_TURN):
            turn = [tenant for _, _, tenant in busiest[start : start + TENANTS_PER_TURN]]
            activities += self._describe(turn, weight, neighbours)
            await asyncio.sleep(0)
        return Overview(
            at=to_datetime(self._clock.now()),
            capacity=scheduler.capacity,
            used=scheduler.used,
            open_tasks=self._backlog.total,
            tenants_total=len(tenants),
            tenants=tuple(activities),
        )

    def neighbours(self) -> list[Neighbour]:
        """Describe the tenants that were served in the last minutes, the noisiest first."""
        return self._neighbours.report(self._weight_of)

    def _weight_of(self, tenant_id: str) -> int | None:
        try:
            return self._tenants.get(tenant_id).weight
        except UnknownTenant:
            return None

    def _busy(self, tenant: Tenant) -> tuple[int, int, int]:
        running, waiting = self._scheduler.load_of(tenant.tenant_id)
        return running, waiting + self._window.tasks_in_store(tenant.tenant_id), self._backlog.of(tenant.tenant_id)

    def _describe(
        self, tenants: Iterable[Tenant], weight: int, neighbours: dict[str, Neighbour]
    ) -> Iterable[TenantActivity]:
        by_id = {tenant.tenant_id: tenant for tenant in tenants}
        for view in self._scheduler.views(by_id, weight, self._clock.now()):
            tenant = by_id[view.tenant_id]
            waiting = view.waiting + self._window.tasks_in_store(view.tenant_id)
            yield TenantActivity(
                tenant_id=tenant.tenant_id,
                tenant_name=tenant.tenant_name,
                tier=tenant.tier,
                status=tenant.status,
                open_tasks=self._backlog.of(tenant.tenant_id),
                queue=replace(view, waiting=waiting),
                neighbour=neighbours.get(tenant.tenant_id),
            )
