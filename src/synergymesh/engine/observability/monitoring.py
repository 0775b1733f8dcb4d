"""Answers what operators ask of a running mesh: figures of all tenants and of one, and whether a limit has room."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from synergymesh.domain.fault_tolerance.breaker import BreakerState
from synergymesh.domain.instants import SECOND, to_datetime
from synergymesh.domain.observability.health import Diagnosis, Health, diagnose
from synergymesh.domain.observability.service_levels import SPANS_SECONDS, ServiceLevel, service_level
from synergymesh.domain.observability.tallies import Durations, Tally
from synergymesh.domain.scheduling.scheduler import Scheduler
from synergymesh.domain.states import TenantStatus
from synergymesh.engine.admission import Admission
from synergymesh.engine.background import Background
from synergymesh.engine.circuits import Circuits
from synergymesh.engine.committer import Committer
from synergymesh.engine.dispatch import Dispatcher
from synergymesh.engine.features import check_feature
from synergymesh.engine.limit_hits import REASONS, LimitHits
from synergymesh.engine.live import LiveRun
from synergymesh.engine.observability.labels import TenantLabels
from synergymesh.engine.observability.statistics import Statistics
from synergymesh.engine.open_runs import OpenRuns
from synergymesh.engine.tenants import Tenants
from synergymesh.errors import InvalidRequest, RateLimitExceeded
from synergymesh.ports.clock import Clock
from synergymesh.ports.store import Store

OTHERS = "other"
"""Stands for all tenants that have no label of their own."""

TALLIES_PER_TURN = 20

TENANTS_PER_TURN = 500
"""Tenants that are looked at before the event loop has its turn again: about two milliseconds."""

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
    """Hold what is counted of a tenant, or of several together, and what it does now.

    Attributes:
        tally: a copy.
        limit_hits: how often limits held its tasks or refused its submissions, by reason.
        breakers: how many of its circuits are in which state.
    """

    tenant_id: str
    tally: Tally
    running: int
    waiting: int
    open_tasks: int
    limit_hits: Mapping[str, int]
    breakers: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshFigures:
    """Hold everything that a monitoring system may want to know.

    Attributes:
        tenants: those that have a label, and all others together as the last one if there are any, or were.
        tenants_total: how many there are.
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
    tenants_total: int
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
        circuits: Circuits,
        limit_hits: LimitHits,
        clock: Clock,
        *,
        labels_max: int,
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
        self._circuits = circuits
        self._limit_hits = limit_hits
        self._clock = clock
        self._labels = TenantLabels(labels_max)
        self._had_label = Tally()
        self._hits_of_others_gone = Counter[str]()
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
        extent = await self._store.get_audit_extent(None)
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
            audit_entries=extent.entries,
        )

    async def figures(self) -> MeshFigures:
        """Give everything that is counted, looking at so many tenants at a time that nothing else waits."""
        await self._statistics.take_in_turns()
        tenants = [tenant.tenant_id for tenant in self._tenants]
        labelled = self._labels.choose(tenants, lambda each: self._statistics.of(each).executions)
        breakers = self._circuits.states()
        # copied in one turn, so that what is left of the total when they are taken away is that of the others
        shown = [self._figures_of(each, breakers) for each in labelled]
        left = self._statistics.total.copy()
        left.take_away(self._had_label)
        if self._labels.has_others:
            own = set(labelled)
            others = [each for each in tenants if each not in own]
            for place, figures in enumerate(shown, start=1):
                left.take_away(figures.tally)
                if place % TALLIES_PER_TURN == 0:
                    await asyncio.sleep(0)
            shown.append(await self._figures_of_others(others, left, breakers))
        committer, dispatcher = self._committer, self._dispatcher
        return MeshFigures(
            tenants=shown,
            tenants_total=len(tenants),
            slots=self._tenants.capacity.slots,
            running=self._scheduler.running,
            commits=committer.batches,
            commit_units=committer.units,
            commit_durations=committer.durations.copy(),
            starts=dispatcher.starts,
            dispatch_seconds=dispatcher.busy_nanoseconds / 1e9,
            units_waiting=committer.waiting,
            is_writable=committer.failure is None,
            is_signed=self.signing_trouble() is None,
            faults={work: fault.count for work, fault in self._background.faults.items()},
        )

    def _figures_of(self, tenant_id: str, breakers: Mapping[str, Mapping[BreakerState, int]]) -> TenantFigures:
        running, waiting = self._scheduler.load_of(tenant_id)
        return TenantFigures(
            tenant_id=tenant_id,
            tally=self._statistics.of(tenant_id).copy(),
            running=running,
            waiting=waiting,
            open_tasks=self._runs.backlog.of(tenant_id),
            limit_hits=self._hits_of(tenant_id),
            breakers={state.value: breakers.get(tenant_id, {}).get(state, 0) for state in BreakerState},
        )

    async def _figures_of_others(
        self, others: Sequence[str], tally: Tally, breakers: Mapping[str, Mapping[BreakerState, int]]
    ) -> TenantFigures:
        """Sum up what all that have no label do now. What was counted of them stays when they are deleted."""
        running = waiting = open_tasks = 0
        hits, states = self._hits_of_others_gone.copy(), dict.fromkeys((state.value for state in BreakerState), 0)
        for place, tenant_id in enumerate(others, start=1):
            running_, waiting_ = self._scheduler.load_of(tenant_id)
            running, waiting = running + running_, waiting + waiting_
            open_tasks += self._runs.backlog.of(tenant_id)
            hits.update(self._hits_of(tenant_id))
            for state, count in breakers.get(tenant_id, {}).items():
                states[state.value] += count
            if place % TENANTS_PER_TURN == 0:
                await asyncio.sleep(0)
        return TenantFigures(
            tenant_id=OTHERS,
            tally=tally,
            running=running,
            waiting=waiting,
            open_tasks=open_tasks,
            limit_hits=hits,
            breakers=states,
        )

    def _hits_of(self, tenant_id: str) -> dict[str, int]:
        hits = {reason.value: count for reason, count in self._scheduler.holds_of(tenant_id).items()}
        for reason, count in self._limit_hits.counts.get(tenant_id, {}).items():
            hits[reason] = hits.get(reason, 0) + count
        return hits

    def forget(self, tenant_id: str) -> None:
        """Let go of a tenant that is deleted, so that no counter of the others falls or jumps."""
        if self._labels.forget(tenant_id):
            self._had_label.merge(self._statistics.of(tenant_id))
        else:
            self._hits_of_others_gone.update(self._hits_of(tenant_id))
        self._limit_hits.counts.pop(tenant_id, None)
        self._statistics.forget(tenant_id)

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

    def diagnosis(self, tenant_id: str, last_hour: Tally | None = None, open_breakers: int | None = None) -> Diagnosis:
        """Judge a tenant by its last hour.

        Args:
            tenant_id: which.
            last_hour: its counts, if they are known already.
            open_breakers: how many of its circuits are not closed, if that is known already.
        """
        tenant = self._tenants.get(tenant_id)
        since = self._scheduler.waiting_since(tenant_id)
        return diagnose(
            self._statistics.last_hour(tenant_id) if last_hour is None else last_hour,
            running=self._scheduler.running_of(tenant_id),
            waiting=self._scheduler.waiting_of(tenant_id),
            sla_percent=tenant.sla_uptime_percent,
            suspended=tenant.status is TenantStatus.SUSPENDED,
            open_breakers=self.open_breakers().get(tenant_id, 0) if open_breakers is None else open_breakers,
            longest_wait_seconds=0.0 if since is None else (self._clock.now() - since) / SECOND,
        )

    def open_breakers(self) -> dict[str, int]:
        """Count the circuits of each tenant that are not closed."""
        return {
            tenant_id: sum(count for state, count in states.items() if state is not BreakerState.CLOSED)
            for tenant_id, states in self._circuits.states().items()
        }

    def waits(self, tenant_id: str) -> bool:
        """Tell whether tasks of a tenant wait that could start."""
        return self._scheduler.waiting_of(tenant_id) > 0

    async def service_levels(self, tenant_id: object, *, as_tenant: bool = False) -> list[ServiceLevel]:
        """Compare the spans of a report with what a tenant's tier promises.

        Args:
            tenant_id: which.
            as_tenant: whether the tenant itself asks, and not the operator.

        Raises:
            UnknownTenant: there is none of that id.
            FeatureNotEnabled: the tenant asks, and its tier does not have the feature.
        """
        tenant = self._tenants.get(tenant_id)
        if as_tenant:
            check_feature(tenant, "sla_monitoring", "a report of its service level", self._tenants.plans)
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
        tenant = self._tenants.get(tenant_id)
        taken = self._admission.take_rate(tenant, self._clock.now())
        if not taken:
            self._limit_hits.count(tenant.tenant_id, REASONS[RateLimitExceeded])
        return taken

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
