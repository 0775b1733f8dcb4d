"""What if: recorded or declared runs, replayed under other tiers, quotas, weights or another capacity."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from synergymesh.domain.instants import SECOND, from_datetime, to_datetime
from synergymesh.domain.quota import QUOTA_FIELD_MAX, ResourceQuota
from synergymesh.domain.scheduling.limits import Capacity, Request, limits_of
from synergymesh.domain.simulation import (
    Comparison,
    Outcome,
    PlannedRun,
    PlannedTask,
    PlannedTenant,
    Scenario,
    TenantOutcome,
    compare,
)
from synergymesh.domain.tenants import WEIGHT_MAX, Tenant, TierPlan, check_tier
from synergymesh.domain.workflow.plan import COST_MICROSECONDS_MAX, RANKS_PER_PRIORITY
from synergymesh.domain.workflow.task_settings import PRIORITY_MAX
from synergymesh.engine.features import check_feature
from synergymesh.engine.replay.recordings import SECONDS_MAX, TASKS_MAX, Recordings, Workload
from synergymesh.engine.tenants import Tenants, check_quota
from synergymesh.errors import InvalidRequest, UnknownTenant
from synergymesh.ports.clock import Clock

FEATURE = "advanced_analytics"

SPAN_DEFAULT = timedelta(hours=24)

MOMENT_MAX = 2**62
"""Of a declared submission: the year 2116, and sums with ten years of waiting are still no surprise."""

RANK_MAX = (PRIORITY_MAX + 1) * RANKS_PER_PRIORITY
"""As far as the ranks of real tasks go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantChange:
    """Say what is supposed to be different for a tenant; what is None stays as it is.

    Attributes:
        tier: another tier, with its quota and weight.
        quota: other limits; before those of the tier.
        weight: in the fair queue; before that of the tier.
    """

    tier: str | None = None
    quota: ResourceQuota | None = None
    weight: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshOutcome:
    """Say how all tenants together fared.

    Attributes:
        capacity: that all of them shared.
        makespan_ns: from the first submission to the end of the last task.
        utilisation: the part of all slots that was taken while any task waited, in millionths.
        busy: the part of all slots that was taken from beginning to end, in millionths.
    """

    capacity: Capacity
    makespan_ns: int
    utilisation: int
    busy: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantComparison:
    """Set what a tenant would get beside what it gets now; both are replayed."""

    tenant_id: str
    tenant_name: str
    today: TenantOutcome
    what_if: TenantOutcome


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """Answer a what-if question.

    Attributes:
        since, until: the span that was replayed, aware (UTC); None for a declared workload.
        runs, tasks: how many were replayed.
        left_out: recorded tasks that never ran, and are not in it.
        today, what_if: of all tenants together; None when a tenant asked, who sees its own figures only.
        tenants: those that have tasks in it.
    """

    since: datetime | None
    until: datetime | None
    runs: int
    tasks: int
    left_out: int
    today: MeshOutcome | None
    what_if: MeshOutcome | None
    tenants: tuple[TenantComparison, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Say what is to be replayed, and how.

    Attributes:
        workload: what.
        tenants: all that are known, parents before their sub-tenants.
        plans: every tier by name.
        capacity: as it is now.
        changes: by tenant's id.
        capacity_then: in place of the present one, or None.
    """

    workload: Workload
    tenants: Sequence[Tenant]
    plans: Mapping[str, TierPlan]
    capacity: Capacity
    changes: Mapping[str, TenantChange]
    capacity_then: Capacity | None = None

    def check(self) -> None:
        """Refuse what cannot be replayed.

        Raises:
            UnknownTenant: a change, or a run, is of a tenant that is not known.
            InvalidRequest: a change is none, or nothing is changed, or a capacity is outside its range.
        """
        known = {tenant.tenant_id for tenant in self.tenants}
        for tenant_id, change in self.changes.items():
            if tenant_id not in known:
                raise UnknownTenant(tenant_id)
            check_change(change, self.plans)
        if self.capacity_then is not None:
            check_capacity(self.capacity_then)
        if self.capacity_then is None and all(change == TenantChange() for change in self.changes.values()):
            raise InvalidRequest(
                "nothing is different: give a tenant another tier, quota or weight, or another capacity.",
                field="tenants",
            )
        for run in self.workload.runs:
            if run.tenant_id not in known:
                raise UnknownTenant(run.tenant_id)

    def scenarios(self) -> tuple[Scenario, Scenario]:
        """Give things as they are, and as they would be; only with tenants that have runs, and those above them."""
        wanted = {run.tenant_id for run in self.workload.runs}
        wanted |= {t.parent_id for t in self.tenants if t.tenant_id in wanted and t.parent_id is not None}
        tenants = [tenant for tenant in self.tenants if tenant.tenant_id in wanted]
        then = self.capacity_then or self.capacity
        return (
            Scenario(tenants=[_planned(t, self.capacity) for t in tenants], capacity=self.capacity),
            Scenario(
                tenants=[_planned(_changed(t, self.changes.get(t.tenant_id), self.plans), then) for t in tenants],
                capacity=then,
            ),
        )

    def replay(self) -> WhatIf:
        """Work out the answer; takes about half a second for 10,000 tasks."""
        today, what_if = self.scenarios()
        return self._answer(compare(self.workload.runs, today, what_if))

    def _answer(self, compared: Comparison) -> WhatIf:
        having = {run.tenant_id for run in self.workload.runs}
        return WhatIf(
            since=None,
            until=None,
            runs=len(self.workload.runs),
            tasks=self.workload.tasks,
            left_out=self.workload.left_out,
            today=_mesh_outcome(compared.today, self.capacity),
            what_if=_mesh_outcome(compared.what_if, self.capacity_then or self.capacity),
            tenants=tuple(
                TenantComparison(
                    tenant_id=tenant.tenant_id,
                    tenant_name=tenant.tenant_name,
                    today=compared.today.tenants[tenant.tenant_id],
                    what_if=compared.what_if.tenants[tenant.tenant_id],
                )
                for tenant in self.tenants
                if tenant.tenant_id in having
            ),
        )


class WhatIfs:
    """Answer what-if questions of a running mesh, one at a time."""

    def __init__(self, recordings: Recordings, tenants: Tenants, clock: Clock) -> None:
        self._recordings = recordings
        self._tenants = tenants
        self._clock = clock
        self._turn = asyncio.Lock()

    async def ask(
        self,
        changes: Mapping[str, TenantChange],
        capacity: Capacity | None,
        since: object,
        until: object,
        runs: Iterable[PlannedRun] | None,
        asker_id: str | None,
    ) -> WhatIf:
        """Answer a question; see `Orchestrator.what_if`."""
        if not isinstance(changes, Mapping):
            raise InvalidRequest(f"tenants must map ids to TenantChange, not {changes!r:.100}.", field="tenants")
        family = None if asker_id is None else self._family(asker_id, changes, capacity)
        begin, end = check_span(since, until, to_datetime(self._clock.now()))
        declared = None if runs is None else check_runs(runs)
        async with self._turn:
            if declared is None:
                workload = await self._recordings.read(from_datetime(begin), from_datetime(end))
            else:
                workload = declared
            question = Question(
                workload=workload,
                tenants=list(self._tenants),
                plans=self._tenants.plans,
                capacity=self._tenants.capacity,
                changes=changes,
                capacity_then=capacity,
            )
            if declared is None:
                question = _of_known(question)
            elif family is not None and any(run.tenant_id not in family for run in declared.runs):
                raise UnknownTenant(next(r.tenant_id for r in declared.runs if r.tenant_id not in family))
            question.check()
            answer = await asyncio.to_thread(question.replay)
        if declared is None:
            answer = replace(answer, since=begin, until=end)
        return answer if family is None else _for_tenant(answer, family, question)

    def _family(self, asker_id: str, changes: Mapping[str, TenantChange], capacity: Capacity | None) -> set[str]:
        """Give the asking tenant and its sub-tenants, to whom its question is confined."""
        asker = self._tenants.get(asker_id)
        check_feature(asker, FEATURE, "a what-if", self._tenants.plans)
        family = {asker.tenant_id, *self._tenants.children_of(asker.tenant_id)}
        for tenant_id in changes:
            if tenant_id not in family:
                raise UnknownTenant(tenant_id)
        if capacity is not None:
            raise InvalidRequest("the capacity is the operator's to change, not a tenant's.", field="capacity")
        return family


def check_span(since: object, until: object, now: datetime) -> tuple[datetime, datetime]:
    """Give the span; the last 24 hours where nothing is said.

    Raises:
        InvalidRequest: a moment is no aware datetime, or the span is empty.
    """
    for name, moment in (("since", since), ("until", until)):
        if moment is not None and (not isinstance(moment, datetime) or moment.tzinfo is None):
            raise InvalidRequest(f"{name} must be a datetime with a time zone, not {moment!r}.", field=name)
    end = until if isinstance(until, datetime) else now
    begin = since if isinstance(since, datetime) else end - SPAN_DEFAULT
    if begin >= end:
        raise InvalidRequest(f"since must be before until ({end.isoformat()}).", field="since")
    return begin, end


def check_runs(runs: Iterable[PlannedRun]) -> Workload:
    """Give declared runs as a workload.

    Raises:
        InvalidRequest: there is something else among them, or a value that cannot be replayed.
    """
    if not isinstance(runs, Iterable):
        raise InvalidRequest(f"workload must be PlannedRuns, not {runs!r:.100}.", field="workload")
    checked: list[PlannedRun] = []
    tasks = 0
    for place, run in enumerate(runs):
        where = f"workload[{place}]"
        if not isinstance(run, PlannedRun) or not isinstance(run.tasks, Sequence) or not run.tasks:
            raise InvalidRequest(f"{where} must be a PlannedRun with tasks, not {run!r:.100}.", field="workload")
        tasks += len(run.tasks)
        if tasks > TASKS_MAX:
            raise InvalidRequest(f"the workload has more than {TASKS_MAX:,} tasks.", field="workload")
        _check_whole(f"{where}.submitted_at", run.submitted_at, 0, MOMENT_MAX)
        _check_whole(f"{where}.priority", run.priority, -PRIORITY_MAX, PRIORITY_MAX)
        for number, task in enumerate(run.tasks):
            _check_task(f"{where}.tasks[{number}]", task, number)
        checked.append(run)
    checked.sort(key=lambda run: run.submitted_at)
    return Workload(runs=tuple(checked), tasks=tasks)


def _check_task(where: str, task: object, number: int) -> None:
    if not isinstance(task, PlannedTask):
        raise InvalidRequest(f"{where} must be a PlannedTask, not {task!r:.100}.", field="workload")
    _check_whole(f"{where}.duration_ns", task.duration_ns, 1, SECONDS_MAX * SECOND)
    _check_whole(f"{where}.declared_cost", task.declared_cost, 1, COST_MICROSECONDS_MAX)
    _check_whole(f"{where}.rank", task.rank, -RANK_MAX, RANK_MAX)
    if not isinstance(task.request, Request):
        raise InvalidRequest(f"{where}.request must be a Request, not {task.request!r:.100}.", field="workload")
    for name, amount in task.request._asdict().items():
        _check_whole(f"{where}.request.{name}", amount, 0, QUOTA_FIELD_MAX)
    if not isinstance(task.component, Hashable):
        raise InvalidRequest(f"{where}.component must be hashable, not {task.component!r:.100}.", field="workload")
    before = task.depends_on
    if not isinstance(before, tuple) or not all(isinstance(each, int) and 0 <= each < number for each in before):
        raise InvalidRequest(
            f"{where}.depends_on must be a tuple of places of tasks before it, not {before!r:.100}.", field="workload"
        )


def _check_whole(where: str, value: object, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InvalidRequest(
            f"{where} must be a whole number from {least:,} to {most:,}, not {value!r:.100}.", field="workload"
        )


def check_change(change: object, plans: Mapping[str, TierPlan]) -> None:
    """Raise InvalidRequest unless it is a change that could be made."""
    if not isinstance(change, TenantChange):
        raise InvalidRequest(f"tenants must map ids to TenantChange, not {change!r}.", field="tenants")
    if change.tier is not None:
        check_tier(change.tier, plans)
    if change.quota is not None:
        check_quota(change.quota)
    weight = change.weight
    if weight is not None and (not _is_count(weight) or weight > WEIGHT_MAX):
        raise InvalidRequest(f"weight must be a whole number from 1 to {WEIGHT_MAX:,}, not {weight!r}.", field="weight")


def check_capacity(capacity: Any) -> None:
    """Raise InvalidRequest unless it is a capacity with at least 1 of everything."""
    if not isinstance(capacity, Capacity):
        raise InvalidRequest(f"capacity must be a Capacity, not {capacity!r}.", field="capacity")
    for name, amount in capacity._asdict().items():
        if not _is_count(amount):
            raise InvalidRequest(
                f"capacity.{name} must be a whole number from 1 to {QUOTA_FIELD_MAX:,}, not {amount!r}.",
                field=f"capacity.{name}",
            )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= QUOTA_FIELD_MAX


def _changed(tenant: Tenant, change: TenantChange | None, plans: Mapping[str, TierPlan]) -> Tenant:
    if change is None:
        return tenant
    if change.tier is not None:
        tier = check_tier(change.tier, plans)
        weight = tenant.policy.weight or plans[tier].weight
        tenant = replace(tenant, tier=tier, quota=plans[tier].quota, weight=weight)
    return replace(tenant, quota=change.quota or tenant.quota, weight=change.weight or tenant.weight)


def _planned(tenant: Tenant, capacity: Capacity) -> PlannedTenant:
    limits = limits_of(tenant.quota, capacity)
    throttle = tenant.policy.throttle_percent
    if throttle is not None:
        limits = replace(limits, max_concurrent=-(-limits.max_concurrent * throttle // 100))
    return PlannedTenant(
        tenant_id=tenant.tenant_id,
        limits=limits,
        weight=tenant.weight,
        parent=tenant.parent_id,
        share=tenant.policy.share,
        rate_limit_per_second=tenant.quota.rate_limit_per_second,
        burst=tenant.quota.burst,
    )


def _mesh_outcome(outcome: Outcome, capacity: Capacity) -> MeshOutcome:
    return MeshOutcome(
        capacity=capacity, makespan_ns=outcome.makespan_ns, utilisation=outcome.utilisation, busy=outcome.busy
    )


def _of_known(question: Question) -> Question:
    """Leave out recorded runs of tenants that were deleted while they were read."""
    known = {tenant.tenant_id for tenant in question.tenants}
    runs = tuple(run for run in question.workload.runs if run.tenant_id in known)
    if len(runs) == len(question.workload.runs):
        return question
    workload = replace(question.workload, runs=runs, tasks=sum(len(run.tasks) for run in runs))
    return replace(question, workload=workload)


def _for_tenant(answer: WhatIf, family: set[str], question: Question) -> WhatIf:
    """Leave out of an answer what is not the asking tenant's."""
    own = [run for run in question.workload.runs if run.tenant_id in family]
    return replace(
        answer,
        runs=len(own),
        tasks=sum(len(run.tasks) for run in own),
        left_out=0,
        today=None,
        what_if=None,
        tenants=tuple(tenant for tenant in answer.tenants if tenant.tenant_id in family),
    )
