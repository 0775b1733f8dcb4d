"""Whether a submission is admitted: feature, size, rate, backlog; without side effects until it is."""

from __future__ import annotations

from synergymesh.domain.instants import SECOND, Instant
from synergymesh.domain.quota import ResourceQuota
from synergymesh.domain.scheduling.limits import SubmissionRate
from synergymesh.domain.scheduling.scheduler import Scheduler
from synergymesh.domain.tenants import Tenant
from synergymesh.domain.workflow.plan import Plan
from synergymesh.engine.features import check_feature
from synergymesh.engine.limit_hits import LimitHits
from synergymesh.engine.live import LiveRun
from synergymesh.engine.open_runs import OpenRuns
from synergymesh.engine.run_ids import first_run_id
from synergymesh.engine.tenants import Tenants
from synergymesh.errors import BacklogFull, Denied, InvalidRequest, RateLimitExceeded
from synergymesh.ports.clock import Clock
from synergymesh.ports.store import Store
from synergymesh.workflows.direct_tasks import DIRECT

PAGE_RUNS = 10_000
"""Submissions that are read at once at the start."""


class Admission:
    """Admit submissions inside a tenant's plan.

    Args:
        hits: is told of what is denied.
        queued_tasks_max: tasks that may wait, over all tenants.
    """

    def __init__(
        self,
        tenants: Tenants,
        scheduler: Scheduler[LiveRun],
        runs: OpenRuns,
        hits: LimitHits,
        store: Store,
        clock: Clock,
        *,
        queued_tasks_max: int,
    ) -> None:
        self._tenants = tenants
        self._scheduler = scheduler
        self._runs = runs
        self._hits = hits
        self._store = store
        self._clock = clock
        self._queued_tasks_max = queued_tasks_max
        self._rates: dict[str, SubmissionRate] = {}

    def forget(self, tenant_id: str) -> None:
        """Forget a tenant that is deleted."""
        self._rates.pop(tenant_id, None)

    async def load(self) -> None:
        """Count what was submitted before this start and still counts against a rate.

        What `take_rate` took is not recorded, and not counted.
        """
        longest = max((_full_again(tenant.quota) for tenant in self._tenants), default=0)
        after = first_run_id(self._clock.now() - longest)
        while page := await self._store.list_submissions(after=after, except_source=DIRECT, limit=PAGE_RUNS):
            after = page[-1].run_id
            for submission in page:
                tenant = self._tenants.find(submission.tenant_id)
                for each in () if tenant is None else self._family(tenant):
                    self._rate(each, submission.created_at).take(submission.created_at)

    def admit(self, tenant: Tenant, plan: Plan, priority: int, now: Instant, *, size: int | None = None) -> None:
        """Admit a run and take its place in the rate.

        Args:
            tenant: whose.
            plan: of its workflow version.
            priority: of the run.
            now: the present.
            size: how many tasks are to be done; None for all of the plan.

        Raises:
            FeatureNotEnabled: the run needs a feature that the tenant's tier does not have.
            InvalidRequest: a task asks for more than the whole quota, or than a share or others' guarantees ever leave
                it; it could never run.
            BacklogFull: too many tasks wait.
            RateLimitExceeded: the tenant submits too fast.
        """
        try:
            self._admit(tenant, plan, priority, now, plan.size if size is None else size)
        except Denied as denied:
            self._hits.hit(tenant.tenant_id, denied)
            raise

    def _admit(self, tenant: Tenant, plan: Plan, priority: int, now: Instant, asked: int) -> None:
        plans = self._tenants.plans
        for feature, what in plan.features.items():
            check_feature(tenant, feature, what, plans)
        if priority:
            check_feature(tenant, "custom_policies", "a priority", plans)
        self._check_size(tenant, plan)
        self._check_backlog(tenant, asked)
        if tenant.parent_id is None:
            self._check_whole_backlog(asked)
            wait = self._rate(tenant, now).admit(now)
            if wait:
                raise _too_fast(tenant, tenant.quota, wait)
        else:
            parent = self._tenants.get(tenant.parent_id)
            check_feature(parent, "multi_tenancy", "work of its sub-tenants", plans)
            self._check_backlog(parent, asked)
            self._check_whole_backlog(asked)
            rates = [self._rate(each, now) for each in (tenant, parent)]
            own, above = (rate.retry_after(now) for rate in rates)
            if own or above:
                raise _too_fast(tenant, (tenant if own >= above else parent).quota, max(own, above))
            for rate in rates:
                rate.take(now)

    def take_rate(self, tenant: Tenant, now: Instant) -> bool:
        """Take a place in the submission rate of a tenant and of the one above it; tell whether there was one."""
        family = self._family(tenant)
        if not self.rate_has_room(tenant, now):
            return False
        for each in family:
            self._rates[each.tenant_id].take(now)
        return True

    def rate_has_room(self, tenant: Tenant, now: Instant) -> bool:
        """Tell whether a submission would be admitted by its rate; take nothing."""
        return not any(self._rate(each, now).retry_after(now) for each in self._family(tenant))

    def admit_call(self, tenant: Tenant, plan: Plan) -> None:
        """Admit a direct call: no request, so it takes no place in the rate.

        Raises:
            InvalidRequest, BacklogFull: as in `admit`.
        """
        self._check_size(tenant, plan)
        try:
            for each in self._family(tenant):
                self._check_backlog(each, plan.size)
            self._check_whole_backlog(plan.size)
        except Denied as denied:
            self._hits.hit(tenant.tenant_id, denied)
            raise

    def _family(self, tenant: Tenant) -> list[Tenant]:
        """Give the tenant and the one whose quota it shares."""
        return [tenant] if tenant.parent_id is None else [tenant, self._tenants.get(tenant.parent_id)]

    def _check_size(self, tenant: Tenant, plan: Plan) -> None:
        request = plan.largest_request
        if not any(request):
            return
        ceiling = self._scheduler.ceiling_against(tenant.tenant_id, request)
        if ceiling is None:
            return
        if ceiling.beside_guarantees:
            what = f"what the quota of {ceiling.level} leaves beside the guarantees of its other sub-tenants"
            remedy = "lower what these do not lend"
        elif ceiling.is_share:
            what, remedy = (
                f"the share of {ceiling.level} with all that it may borrow",
                "raise its nominal part or borrowing",
            )
        else:
            what, remedy = f"the quota of {ceiling.level}", "raise the quota"
        raise InvalidRequest(
            f"a task of {plan.workflow!r} asks for {request.memory_mb:,} MiB and {request.cpu_millis / 1000:g} CPUs, "
            f"and {what} is {ceiling.memory_mb:,} MiB and {ceiling.cpu_millis / 1000:g} CPUs: it could never run. "
            f"Lower memory_mb or cpus of the task, or {remedy}.",
            field="memory_mb" if request.memory_mb > ceiling.memory_mb else "cpus",
        )

    def _check_backlog(self, tenant: Tenant, size: int) -> None:
        backlog = self._runs.backlog
        open_tasks = backlog.of(tenant.tenant_id)
        for child in self._tenants.children_of(tenant.tenant_id):
            open_tasks += backlog.of(child)
        waiting = open_tasks - self._scheduler.running_of(tenant.tenant_id)
        limit = tenant.quota.max_queued_tasks
        if waiting + size > limit:
            raise BacklogFull(tenant.tenant_id, waiting=max(0, waiting), asked=size, limit=limit)

    def _check_whole_backlog(self, size: int) -> None:
        waiting = self._runs.backlog.total - self._scheduler.running
        if waiting + size > self._queued_tasks_max:
            raise BacklogFull("the whole mesh", waiting=max(0, waiting), asked=size, limit=self._queued_tasks_max)

    def _rate(self, tenant: Tenant, now: Instant) -> SubmissionRate:
        quota = tenant.quota
        rate = self._rates.get(tenant.tenant_id)
        if rate is None:
            rate = self._rates[tenant.tenant_id] = SubmissionRate(quota.rate_limit_per_second, quota.burst)
        elif (rate.per_second, rate.burst) != (quota.rate_limit_per_second, quota.burst or quota.rate_limit_per_second):
            rate.set_rate(quota.rate_limit_per_second, quota.burst, now)
        return rate


def _full_again(quota: ResourceQuota) -> int:
    """Give the nanoseconds after which nothing of what was submitted counts any more."""
    return -(-(quota.burst or quota.rate_limit_per_second) * SECOND // quota.rate_limit_per_second)


def _too_fast(tenant: Tenant, quota: ResourceQuota, wait: int) -> RateLimitExceeded:
    return RateLimitExceeded(tenant.tenant_id, per_second=quota.rate_limit_per_second, retry_after=wait / SECOND)
