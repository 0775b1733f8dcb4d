"""Answers what operators ask of a running mesh: figures of all tenants and of one, and whether a limit has room."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from synergymesh.domain.instants import to_datetime
from synergymesh.domain.observability.health import Diagnosis, Health, diagnose
from synergymesh.domain.observability.service_levels import SPANS_SECONDS, ServiceLevel, service_level
from synergymesh.domain.observability.tallies import Durations, Tally
from synergymesh.domain.scheduling.scheduler import Scheduler
from synergymesh.domain.states import TenantStatus
from synergymesh.engine.admission import Admission
from synergymesh.engine.background import Background
from synergymesh.engine.committer import Committer
from synergymesh.engine.dispatch import Dispatcher
from synergymesh.engine.live import LiveRun
from synergymesh.engine.observability.statistics import Statistics
from synergymesh.engine.open_runs import OpenRuns
from synergymesh.engine.tenants import Tenants
from synergymesh.errors import InvalidRequest
from synergymesh.ports.clock import Clock
from synergymesh.ports.store import Store

RESOURCES = ("concurrent", "memory", "cpu", "hourly", "rate_limit", "tasks")


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentiles:
    """Hold the median and the tail of durations, in milliseconds; right within 6 %."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshMetrics:
    """Hold the figures of a mesh, all tenants together, since its database was made.

    Attributes:
        executions: tasks that were executed to a verdict of their own; skipped and cancelled ones are not in it.
        succeeded, failed: how they ended; timeouts are failures.
        success_percent: 100 if there was none.
        duration_mean_ms: of the attempt that gave the verdict, in milliseconds.
        retries: attempts that failed and were followed by another one.
        running: attempts that are under way.
        tenants: how many there are.
        audit_entries: of all chains of the audit log.
    """

    executions: int
    succeeded: int
    failed: int
    success_percent: float
    duration_mean_ms: float
    retries: int
    running: int
    tenants: int
    audit_entries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantHealth:
    """Say how a tenant is doing.

    Attributes:
        health: healthy, degraded, failing or idle, judged by the last hour.
        reasons: why it is not healthy.
        executions, succeeded, failed: of its tasks, ever.
        success_percent: share of its executions that succeeded, ever; 100 if there was none.
        duration: of the attempts that gave a verdict, ever.
        wait: from ready to started, ever.
        running, waiting: its tasks now.
        last_execution: when its last task ended, aware (UTC), or None.
    """

    tenant_id: str
    health: Health
    reasons: tuple[str, ...]
    executions: int
    succeeded: int
    failed: int
    success_percent: float
    duration: Percentiles
    wait: Percentiles
    running: int
    waiting: int
    last_execution: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantFigures:
    """Hold what is counted of a tenant, or of several together, and what it does now."""

    tenant_id: str
    tally: Tally
    running: int
    waiting: int
    open_tasks: int
    holds: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshFigures:
    """Hold everything that a monitoring system may want to know.

    Attributes:
        tenants: one for each, those with the most executions and tasks first.
        slots, running: of the executors.
        commits, commit_units: transactions, and the changes that belong together in them.
        commit_durations: of the transactions.
        starts, dispatch_seconds: attempts that were started, and the time that choosing and starting them took.
        units_waiting: changes that wait to be written.
        is_writable: whether the database could be written the last time.
        is_signed: whether the audit log could be signed the last time.
        faults: errors inside of SynergyMesh, by the work in which they were.
    """

    tenants: Sequence[TenantFigures]
    slots: int
    running: int
    commits: int
    commit_units: int
    commit_durations: Durations
    starts: int
    dispatch_seconds: float
    units_waiting: int
    is_writable: bool
    is_signed: bool
    faults: Mapping[str, int]


class Monitoring:
    """Answer from what is in memory, apart from the audit log and service levels, which are asked of the store.

    Attributes:
        signing_trouble: says why the audit log could not be signed the last time, or None.
    """

    def __init__(
        self,
        store: Store,
        statistics: Statistics,
        scheduler: Scheduler[LiveRun],
        tenants: Tenants,
        admission: Admission,
        runs: OpenRuns,
        committer: Committer,
        dispatcher: Dispatcher,
        background: Background,
        clock: Clock,
    ) -> None:
        self._store = store
        self._runs = runs
        self._committer = committer
        self._dispatcher = dispatcher
        self._background = background
        self._statistics = statistics
        self._scheduler = scheduler
        self._tenants = tenants
        self._admission = admission
        self.signing_trouble: Callable[[], str | None] = _none
        self._clock = clock
        self._has_room: dict[str, Callable[[str], bool]] = {
            "concurrent": lambda tenant_id: self._has_room_for(tenant_id, 0),
            "memory": lambda tenant_id: self._has_room_for(tenant_id, 1),
            "cpu": lambda tenant_id: self._has_room_for(tenant_id, 2),
            "hourly": self._hour_has_room,
            "rate_limit": self._rate_has_room,
            "tasks": lambda tenant_id: all(self._has_room[name](tenant_id) for name in RESOURCES[:-1]),
        }
        assert tuple(self._has_room) == RESOURCES

    async def mesh(self) -> MeshMetrics:
        """Give the figures of all tenants together."""
        heads = await self._store.list_audit_heads()
        total = self._statistics.total
        return MeshMetrics(
            executions=total.executions,
            succeeded=total.succeeded,
            failed=total.failed,
            success_percent=total.success_percent,
            duration_mean_ms=total.duration.mean / 1_000,
            retries=total.count("retried"),
            running=self._scheduler.running,
            tenants=len(self._tenants),
            audit_entries=sum(head.seq for head in heads),
        )

    def figures(self) -> MeshFigures:
        """Give everything that is counted."""
        now = self._clock.now()
        tallies = self._statistics.by_tenant()
        tenants = [
            TenantFigures(
                tenant_id=view.tenant_id,
                tally=tallies.get(view.tenant_id) or Tally(),
                running=view.running,
                waiting=view.waiting + view.delayed + view.aside,
                open_tasks=self._runs.backlog.of(view.tenant_id),
                holds={reason.value: count for reason, count in view.holds.items()},
            )
            for view in self._scheduler.snapshot(now)
        ]
        tenants.sort(key=lambda each: (-each.tally.executions - each.open_tasks, each.tenant_id))
        committer, dispatcher = self._committer, self._dispatcher
        return MeshFigures(
            tenants=tenants,
            slots=self._tenants.capacity.slots,
            running=self._scheduler.running,
            commits=committer.batches,
            commit_units=committer.units,
            commit_durations=committer.durations,
            starts=dispatcher.starts,
            dispatch_seconds=dispatcher.busy_nanoseconds / 1e9,
            units_waiting=committer.waiting,
            is_writable=committer.trouble is None,
            is_signed=self.signing_trouble() is None,
            faults={work: fault.count for work, fault in self._background.faults.items()},
        )

    def health(self, tenant_id: object) -> TenantHealth:
        """Say how a tenant is doing.

        Raises:
            UnknownTenant: there is none of that id.
        """
        tenant = self._tenants.get(tenant_id)
        tally = self._statistics.of(tenant.tenant_id)
        diagnosis = self.diagnosis(tenant.tenant_id)
        return TenantHealth(
            tenant_id=tenant.tenant_id,
            health=diagnosis.health,
            reasons=diagnosis.reasons,
            executions=tally.executions,
            succeeded=tally.succeeded,
            failed=tally.failed,
            success_percent=tally.success_percent,
            duration=_in_milliseconds(tally.duration),
            wait=_in_milliseconds(tally.wait),
            running=self._scheduler.running_of(tenant.tenant_id),
            waiting=self._scheduler.waiting_of(tenant.tenant_id),
            last_execution=_last_end(tally),
        )

    def diagnosis(self, tenant_id: str) -> Diagnosis:
        """Judge a tenant by its last hour."""
        tenant = self._tenants.get(tenant_id)
        return diagnose(
            self._statistics.last_hour(tenant_id),
            running=self._scheduler.running_of(tenant_id),
            waiting=self._scheduler.waiting_of(tenant_id),
            sla_percent=tenant.sla_uptime_percent,
            suspended=tenant.status is TenantStatus.SUSPENDED,
        )

    async def service_levels(self, tenant_id: object) -> list[ServiceLevel]:
        """Compare the spans of a report with what a tenant's tier promises.

        Raises:
            UnknownTenant: there is none of that id.
        """
        tenant = self._tenants.get(tenant_id)
        return [
            service_level(span, await self._statistics.since(tenant.tenant_id, seconds), tenant.sla_uptime_percent)
            for span, seconds in SPANS_SECONDS.items()
        ]

    def has_room(self, tenant_id: object, resource: str) -> bool:
        """Tell whether a limit of a tenant, and of the one above it, has room for one more; takes nothing.

        Args:
            tenant_id: which.
            resource: concurrent (slots), memory, cpu, hourly (starts), rate_limit (submissions), or tasks for all.

        Raises:
            UnknownTenant: there is none of that id.
            InvalidRequest: there is no such resource.
        """
        tenant = self._tenants.get(tenant_id)
        check = self._has_room.get(resource) if isinstance(resource, str) else None
        if check is None:
            raise InvalidRequest(
                f"resource_type must be one of {', '.join(RESOURCES)}, not {resource!r}.", field="resource_type"
            )
        return check(tenant.tenant_id)

    def take_rate(self, tenant_id: object) -> bool:
        """Take a place in a tenant's submission rate; tell whether there was one.

        Raises:
            UnknownTenant: there is none of that id.
        """
        return self._admission.take_rate(self._tenants.get(tenant_id), self._clock.now())

    def _family(self, tenant_id: str) -> list[str]:
        parent = self._tenants.get(tenant_id).parent_id
        return [tenant_id] if parent is None else [tenant_id, parent]

    def _has_room_for(self, tenant_id: str, place: int) -> bool:
        views = [self._scheduler.view(each, self._clock.now()) for each in self._family(tenant_id)]
        return all(view.used[place] < view.limits[place] for view in views)

    def _hour_has_room(self, tenant_id: str) -> bool:
        views = [self._scheduler.view(each, self._clock.now()) for each in self._family(tenant_id)]
        return all(view.hour_limit is None or (view.hour_used or 0) < view.hour_limit for view in views)

    def _rate_has_room(self, tenant_id: str) -> bool:
        return self._admission.rate_has_room(self._tenants.get(tenant_id), self._clock.now())


def _in_milliseconds(durations: Durations) -> Percentiles:
    p50, p95, p99 = (found / 1_000 for found in durations.percentiles(50, 95, 99))
    return Percentiles(p50=p50, p95=p95, p99=p99)


def _last_end(tally: Tally) -> datetime | None:
    return to_datetime(tally.last_end) if tally.last_end else None


def _none() -> None:
    """Know of no trouble."""
