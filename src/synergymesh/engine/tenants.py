"""The tenants of this mesh, in memory, in the store and in the scheduler alike."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping
from random import Random
from typing import Any

import msgspec

from synergymesh.domain.quota import ResourceQuota
from synergymesh.domain.scheduling.limits import MINUTE, WINDOW_MINUTES, Capacity, CohortShare, Limits, limits_of
from synergymesh.domain.scheduling.scheduler import Scheduler
from synergymesh.domain.states import TenantStatus
from synergymesh.domain.tenants import Tenant, TenantPolicy, TierPlan, check_tenant_name, check_tier
from synergymesh.engine.acting import current_actor
from synergymesh.engine.committer import Committer
from synergymesh.engine.features import check_feature
from synergymesh.engine.live import LiveRun
from synergymesh.engine.observability.views import tenant_view
from synergymesh.errors import InvalidRequest, StoreError, TenantNotActive, UnknownTenant
from synergymesh.ports.changes import Change, TenantCreated, TenantPlanChanged, TenantStatusChanged
from synergymesh.ports.clock import Clock
from synergymesh.ports.records import Committed, TenantRecord
from synergymesh.ports.store import Store


class Tenants:
    """Know every tenant, and keep the scheduler's limits in step.

    Attributes:
        plans: every tier by name.
        capacity: what all tenants share; CPU percentages are of it.
        changed: is called with a tenant's id when its limits or its status have changed.
    """

    def __init__(
        self,
        store: Store,
        committer: Committer,
        scheduler: Scheduler[LiveRun],
        clock: Clock,
        plans: Mapping[str, TierPlan],
        capacity: Capacity,
        dice: Random,
    ) -> None:
        self.plans = plans
        self.capacity = capacity
        self._store = store
        self._committer = committer
        self._scheduler = scheduler
        self._clock = clock
        self._dice = dice
        self.changed: Callable[[str], object] = _nothing
        self._tenants: dict[str, Tenant] = {}
        self._children: dict[str, list[str]] = {}
        self._limits: dict[str, Limits] = {}
        self._asked: dict[str, TenantStatus] = {}
        self._changing = asyncio.Lock()

    async def load(self) -> None:
        """Read all tenants from the store, with what they used of their hours and what was learnt of their tasks."""
        for record in await self._store.list_tenants():  # parents come before their sub-tenants
            self._admit(tenant_view(record, self.plans))
        hours: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for row in await self._store.list_reservations(self._clock.now() // MINUTE - WINDOW_MINUTES):
            hours[row.tenant_id].append((row.minute, row.starts))
        for tenant_id, rows in hours.items():
            self._scheduler.restore_hour(tenant_id, rows)
        learnt: dict[str, dict[Hashable, int]] = defaultdict(dict)
        for estimate in await self._store.list_estimates():
            learnt[estimate.tenant_id][estimate.workflow, estimate.component_id] = estimate.microseconds
        for tenant_id, estimates in learnt.items():
            self._scheduler.teach(tenant_id, estimates)

    async def create(
        self, name: object, tier: object, quota: object, parent: object, share: CohortShare | None
    ) -> Tenant:
        """Record a new tenant.

        Raises:
            InvalidRequest: name, tier, quota or share cannot be accepted.
            UnknownTenant: there is no such parent.
            FeatureNotEnabled: the parent's tier has no sub-tenants.
        """
        checked_name = check_tenant_name(name)
        checked_tier = check_tier(tier, self.plans)
        checked_quota = self.plans[checked_tier].quota if quota is None else check_quota(quota)
        parent_id = None if parent is None else self._parent(parent).tenant_id
        if share is not None and parent_id is None:
            raise InvalidRequest("share is of a sub-tenant in its parent's quota. Name the parent too.", field="share")
        policy = TenantPolicy(share=share)
        record = TenantRecord(
            f"tenant-{self._dice.getrandbits(64):016x}",
            checked_name,
            checked_tier,
            msgspec.json.encode(checked_quota),
            TenantStatus.ACTIVE,
            self._clock.now(),
            parent_id,
            msgspec.json.encode(policy),
        )
        await self._record(
            TenantCreated(
                record.tenant_id,
                record.tenant_name,
                record.tier,
                record.quota,
                record.created_at,
                record.parent_id,
                record.policy,
                current_actor(),
            )
        )
        tenant = tenant_view(record, self.plans)
        self._admit(tenant)
        return tenant

    def get(self, tenant_id: object) -> Tenant:
        """Give a tenant.

        Raises:
            UnknownTenant: there is none of that id.
        """
        tenant = self._tenants.get(tenant_id) if isinstance(tenant_id, str) else None
        if tenant is None:
            raise UnknownTenant(tenant_id)
        return tenant

    def find(self, tenant_id: str) -> Tenant | None:
        """Give a tenant, None if there is none of that id."""
        return self._tenants.get(tenant_id)

    def active(self, tenant_id: object) -> Tenant:
        """Give a tenant for which something can be submitted.

        Raises:
            UnknownTenant: there is none of that id.
            TenantNotActive: it, or the tenant above it, is suspended.
        """
        tenant = self.get(tenant_id)
        if tenant.status is not TenantStatus.ACTIVE:
            raise TenantNotActive(tenant.tenant_id, tenant.status)
        if tenant.parent_id is not None:
            self.active(tenant.parent_id)
        return tenant

    def limits(self, tenant: Tenant) -> list[Limits]:
        """Give the limits of a tenant and of the one above it."""
        own = self._limits[tenant.tenant_id]
        return [own] if tenant.parent_id is None else [own, self._limits[tenant.parent_id]]

    def children_of(self, tenant_id: str) -> list[str]:
        """Give the ids of a tenant's sub-tenants."""
        return self._children.get(tenant_id, [])

    def __len__(self) -> int:
        """Count the tenants."""
        return len(self._tenants)

    def __iter__(self) -> Iterator[Tenant]:
        """Go through all tenants, oldest first."""
        return iter(list(self._tenants.values()))

    def check_childless(self, tenant_id: object) -> Tenant:
        """Give a tenant that can be deleted.

        Raises:
            UnknownTenant: there is none of that id.
            InvalidRequest: it has sub-tenants.
        """
        tenant = self.get(tenant_id)
        children = self.children_of(tenant.tenant_id)
        if children:
            raise InvalidRequest(
                f"{tenant.tenant_id} has sub-tenants ({', '.join(children[:3])}). Delete them first.",
                field="tenant_id",
            )
        return tenant

    def asked_status(self, tenant_id: str) -> TenantStatus:
        """Give the status that somebody wanted last, whatever a deletion that is under way has made of it."""
        return self._asked.get(tenant_id, TenantStatus.ACTIVE)

    async def set_status(self, tenant_id: object, status: TenantStatus, *, asked: bool = True) -> Tenant:
        """Suspend, resume or delete a tenant; nothing happens when it is in that state already.

        Args:
            tenant_id: whose.
            status: the new one.
            asked: whether somebody wants it so; False for what a deletion does on its way.
        """
        tenant = self.get(tenant_id)
        if asked:
            self._asked[tenant.tenant_id] = status
        if tenant.status is status:
            return tenant
        await self._record(TenantStatusChanged(tenant.tenant_id, status, self._clock.now(), current_actor()))
        if status is TenantStatus.DELETED:
            if self._tenants.pop(tenant.tenant_id, None) is None:
                return tenant  # somebody else has deleted it at the same time
            self._limits.pop(tenant.tenant_id, None)
            self._asked.pop(tenant.tenant_id, None)
            self._scheduler.remove_tenant(tenant.tenant_id)
            if tenant.parent_id is not None:
                self._children[tenant.parent_id].remove(tenant.tenant_id)
            return tenant
        return self._admit(dataclasses.replace(self.get(tenant_id), status=status))

    async def change_plan(
        self,
        tenant_id: object,
        *,
        tier: object = None,
        quota: object = None,
        edit: Callable[[Tenant], Mapping[str, Any]] | None = None,
        **policy: Any,
    ) -> Tenant:
        """Change a tenant's tier, quota or policy, with effect at the next dispatch; what runs goes on.

        A change of tier sets the quota of the new tier, unless a quota is given too. `edit` gives fields of the policy
        that depend on what the tenant has now.

        Raises:
            UnknownTenant: there is none of that id.
            InvalidRequest: a value cannot be accepted.
        """
        async with self._changing:  # one after the other, or of two changes at a time the second undoes the first
            current = self.get(tenant_id)
            return await self._change_plan(current, tier, quota, policy if edit is None else dict(edit(current)))

    async def _change_plan(self, tenant: Tenant, tier: object, quota: object, policy: Mapping[str, Any]) -> Tenant:
        tenant_id = tenant.tenant_id
        new_tier = tenant.tier if tier is None else check_tier(tier, self.plans)
        if quota is not None:
            new_quota = check_quota(quota)
        else:
            new_quota = tenant.quota if tier is None else self.plans[new_tier].quota
        new_policy = dataclasses.replace(tenant.policy, **policy)
        record = TenantRecord(
            tenant.tenant_id,
            tenant.tenant_name,
            new_tier,
            msgspec.json.encode(new_quota),
            tenant.status,
            0,
            tenant.parent_id,
            msgspec.json.encode(new_policy),
        )
        await self._record(
            TenantPlanChanged(
                tenant.tenant_id, record.tier, record.quota, record.policy, self._clock.now(), current_actor()
            )
        )
        current = self.get(tenant_id)
        fresh = tenant_view(record, self.plans)
        return self._admit(dataclasses.replace(fresh, status=current.status, created_at=current.created_at))

    def _parent(self, parent: object) -> Tenant:
        tenant = self.active(parent)
        if tenant.parent_id is not None:
            raise InvalidRequest(
                f"{tenant.tenant_id} is a sub-tenant itself. Make the new one beside it.", field="parent"
            )
        check_feature(tenant, "multi_tenancy", "making a sub-tenant", self.plans)
        return tenant

    async def _record(self, change: Change) -> None:
        answer = await self._committer.record([change])
        if not isinstance(answer, Committed):
            raise StoreError(f"the database refused the change: {getattr(answer, 'reason', answer)}")

    def _admit(self, tenant: Tenant) -> Tenant:
        if tenant.parent_id is not None and tenant.tenant_id not in self._tenants:
            self._children.setdefault(tenant.parent_id, []).append(tenant.tenant_id)
        self._tenants[tenant.tenant_id] = tenant
        self._asked.setdefault(tenant.tenant_id, tenant.status)
        self._limits[tenant.tenant_id] = limits = limits_of(tenant.quota, self.capacity)
        scheduler = self._scheduler
        scheduler.add_tenant(
            tenant.tenant_id,
            limits=limits,
            weight=tenant.weight,
            parent=tenant.parent_id,
            share=tenant.policy.share,
        )
        scheduler.throttle(tenant.tenant_id, tenant.policy.throttle_percent)
        if tenant.status is TenantStatus.SUSPENDED:
            scheduler.pause(tenant.tenant_id)
        else:
            scheduler.resume(tenant.tenant_id)
        self.changed(tenant.tenant_id)
        return tenant


def check_quota(quota: object) -> ResourceQuota:
    """Give the quota.

    Raises:
        InvalidRequest: it is none.
    """
    if not isinstance(quota, ResourceQuota):
        raise InvalidRequest(f"quota must be a ResourceQuota, not {quota!r}.", field="quota")
    return quota


def _nothing(tenant_id: str) -> None:
    """Do nothing; until somebody listens."""
