"""What operators ask of the mesh as a whole, and of how tenants are doing: part of the asynchronous face."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from synergymesh.assembly import Parts
from synergymesh.domain.observability.alerts import Condition
from synergymesh.domain.observability.service_levels import ServiceLevel
from synergymesh.domain.scheduling.limits import Capacity
from synergymesh.domain.scheduling.neighbours import Neighbour
from synergymesh.domain.scheduling.queue_views import TenantView
from synergymesh.domain.simulation import PlannedRun
from synergymesh.engine.housekeeping import Pruned
from synergymesh.engine.observability.monitoring import MeshMetrics, TenantHealth
from synergymesh.engine.observability.overview import Overview
from synergymesh.engine.observability.views import (
    LingeringAttempt,
    lingering_views,
)
from synergymesh.engine.replay.what_if import TenantChange, WhatIf
from synergymesh.errors import StoreError
from synergymesh.settings import Settings
from synergymesh.telemetry.metrics import exposition

if TYPE_CHECKING:
    from synergymesh.assembly import Parts


class MeshControl:
    """Give figures, health, service levels, queues and forecasts; `Orchestrator` has all of these verbs."""

    settings: Settings

    @property
    def _running(self) -> Parts:
        raise NotImplementedError

    async def lingering(self) -> list[LingeringAttempt]:
        """Name the attempts that were stopped and go on all the same: each keeps its slot until it really ends.

        A plain function in a thread cannot be stopped from outside; a coroutine can ignore that it is.

        Returns:
            the attempts, with whose they are and since when they run.
        """
        return lingering_views(self._running.attempts.lingering())

    async def queue(self) -> list[TenantView]:
        """Describe every tenant's queue: what waits and runs, its share, its use of each limit, what holds it.

        Returns:
            a description of every tenant's queue.
        """
        return self._running.explaining.queue()

    async def get_metrics(self) -> MeshMetrics:
        """Give the figures of all tenants together: executions, failures, durations, retries.

        Returns:
            the figures, of tenants that were deleted too.
        """
        return await self._running.monitoring.mesh()

    async def metrics_text(self) -> str:
        """Give the metrics in Prometheus' text format; `telemetry.endpoint.MetricsEndpoint` serves them.

        Returns:
            lines as `synergymesh metrics` prints them.
        """
        parts = self._running
        figures = await parts.monitoring.figures()
        try:
            audit = await parts.auditing.lag()
        except (StoreError, OSError, ValueError):
            audit = None  # whoever signs says in the log what is wrong
        return await asyncio.to_thread(exposition, figures, audit)

    async def alerts(self) -> list[Condition]:
        """Give what is wrong and was told to the alert sinks: a database that cannot be written, tenants that fail.

        Returns:
            what is wrong now; empty when nothing is.
        """
        return self._running.alerts.standing

    async def sla_report(self, tenant_id: str, *, as_tenant: bool = False) -> list[ServiceLevel]:
        """Compare the last hour, day and thirty days of a tenant with what its tier promises.

        Args:
            tenant_id: which.
            as_tenant: whether the tenant itself asks, and not the operator; it needs the feature `sla_monitoring`.

        Returns:
            a comparison for each of the three spans: target, what was, error budget, burn rate.

        Raises:
            UnknownTenant: there is none of that id.
            FeatureNotEnabled: the tenant's tier has no service level reports.
        """
        return await self._running.monitoring.service_levels(tenant_id, as_tenant=as_tenant)

    async def get_tenant_health(self, tenant_id: str) -> TenantHealth:
        """Say how a tenant is doing, judged by its last hour, with the reasons and its figures.

        Args:
            tenant_id: which.

        Returns:
            its health with reasons and figures.

        Raises:
            UnknownTenant: there is none of that id.
        """
        return self._running.monitoring.health(tenant_id)

    async def check_resource_quota(self, tenant_id: str, resource_type: str = "concurrent") -> bool:
        """Tell whether a limit of a tenant has room for one more; takes nothing.

        Args:
            tenant_id: which.
            resource_type: concurrent (slots), memory, cpu, hourly (starts), rate_limit (submissions), or tasks for all.

        Returns:
            whether there is room; a tenant that is suspended has its limits still.

        Raises:
            UnknownTenant: there is none of that id.
            InvalidRequest: there is no such resource.
        """
        return self._running.monitoring.has_room(tenant_id, resource_type)

    async def acquire_rate_limit(self, tenant_id: str) -> bool:
        """Take a place in a tenant's submission rate; tell whether there was one.

        Args:
            tenant_id: which.

        Returns:
            whether there was one, and is taken.

        Raises:
            UnknownTenant: there is none of that id.
        """
        return self._running.monitoring.take_rate(tenant_id)

    async def overview(self, limit: int = 100) -> Overview:
        """Describe the busiest tenants: names, queues, use of each limit, and their part of the last minutes.

        Args:
            limit: how many tenants at most, 1 to 10,000.

        Returns:
            the tenants, the busiest first, and what all of them do together.

        Raises:
            InvalidRequest: the limit is outside its range.
        """
        return await self._running.overviews.now(limit)

    async def neighbours(self) -> list[Neighbour]:
        """Describe who was served how much in the last minutes beside their weight, the noisiest first.

        Returns:
            a description of each tenant that was served.
        """
        return self._running.overviews.neighbours()

    async def prune(self) -> Pruned:
        """Delete now what is not kept any longer, in small steps; it is done every minute by itself.

        Returns:
            what was deleted.

        Raises:
            StoreError: the database cannot be read or written now.
        """
        return await self._running.housekeeping.prune()

    async def what_if(
        self,
        tenants: Mapping[str, TenantChange] | None = None,
        *,
        capacity: Capacity | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        workload: Iterable[PlannedRun] | None = None,
        tenant: str | None = None,
    ) -> WhatIf:
        """Replay runs on a virtual clock as things are and as they would be, through the very same scheduler.

        The replay runs in a thread and takes turns with the event loop; `synergymesh what-if` replays in a process of
        its own. Delays between attempts, pauses and learnt durations are not replayed.

        Args:
            tenants: by id, another tier, quota or weight.
            capacity: in place of the present one.
            since: recorded runs that were submitted from then on; aware. The last 24 hours before `until` by default.
            until: and before then; now by default.
            workload: declared runs instead of recorded ones.
            tenant: who asks; it changes and sees only its own. None for the operator.

        Returns:
            what came of both replays, for each tenant and together.

        Raises:
            FeatureNotEnabled: the asking tenant's tier has no `advanced_analytics`.
            UnknownTenant: a change or a run is of a tenant that there is not, or that is not the asker's.
            InvalidRequest: a value cannot be accepted, nothing is different, or too many tasks ran in that time.
        """
        return await self._running.what_ifs.ask(tenants or {}, capacity, since, until, workload, tenant)
