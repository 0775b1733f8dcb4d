"""The tenants of this mesh, in memory, in the store and in the scheduler alike."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Hashable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from random import Random
from typing import Any

import msgspec

from synergymesh.domain.idempotency import check_key, hash_request
from synergymesh.domain.quota import ResourceQuota, change_limits
from synergymesh.domain.scheduling.limits import MINUTE, WINDOW_MINUTES, Capacity, CohortShare, limits_of
from synergymesh.domain.scheduling.scheduler import Scheduler
from synergymesh.domain.states import TenantStatus
from synergymesh.domain.tenants import Tenant, TenantPolicy, TierPlan, check_tenant_name, check_tier
from synergymesh.engine.acting import current_actor
from synergymesh.engine.committer import Committer
from synergymesh.engine.control.turns import Turn, Turns
from synergymesh.engine.features import check_feature
from synergymesh.engine.live import LiveRun
from synergymesh.engine.observability.views import tenant_view
from synergymesh.errors import IdempotencyConflict, InvalidRequest, TenantNotActive, UnknownTenant
from synergymesh.ports.changes import TenantCreated, TenantPlanChanged, TenantStatusChanged
from synergymesh.ports.clock import Clock
from synergymesh.ports.records import TenantRecord
from synergymesh.ports.store import Store

BEING_DELETED = "being deleted"
"""What a tenant is called while its deletion is under way, which may still be refused."""


class Tenants:
    """Know every tenant, and keep the scheduler's limits in step.

    Attributes:
        plans: every tier by name.
        capacity: what all tenants share; CPU percentages are of it.
        changed: is called with a tenant's id when its limits, its policies or its status have changed.
        removing: is called with a tenant's id when it is deleted, and the scheduler still knows it.
        removed: is called then, when the scheduler does not know it any more.
    """

    def __init__(
        self,
        store: Store,
        committer: Committer,
        turns: Turns,
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
        self._turns = turns
        self._scheduler = scheduler
        self._clock = clock
        self._dice = dice
        self.changed: Callable[[str], object] = _nothing
        self.removing: Callable[[str], object] = _nothing
        self.removed: Callable[[str], object] = _nothing
        self._tenants: dict[str, Tenant] = {}
        self._children: dict[str, list[str]] = {}
        self._leaving: Counter[str] = Counter()
        self._keys: dict[str, tuple[str, str | None]] = {}

    async def load(self) -> None:
        """Read all tenants from the store, with what they used of their hours and what was learnt of their tasks."""
        for record in await self._store.list_tenants():  # parents come before their sub-tenants
            self._admit(record)
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
        self,
        name: object,
        tier: object,
        quota: object,
        parent: object,
        share: CohortShare | None,
        key: str | None = None,
    ) -> Tenant:
        """Record a new tenant; with an idempotency key that was used before, give the one that was made then.

        Raises:
            InvalidRequest: name, tier, quota, share or key cannot be accepted.
            IdempotencyConflict: the key belongs to a tenant that was asked for otherwise.
            UnknownTenant: there is no such parent.
            TenantNotActive: the parent is suspended.
            FeatureNotEnabled: the parent's tier has no sub-tenants.
            StoreError: it is not known whether it is recorded.
        """
        check_key(key)
        checked_name = check_tenant_name(name)
        checked_tier = check_tier(tier, self.plans)
        own_quota = None if quota is None else check_quota(quota)
        parent_id = None if parent is None else self._parent(parent).tenant_id
        if share is not None and parent_id is None:
            raise InvalidRequest("share is of a sub-tenant in its parent's quota. Name the parent too.", field="share")
        policy = TenantPolicy(share=share)
        record = TenantRecord(
            f"tenant-{self._dice.getrandbits(64):016x}",
            checked_name,
            checked_tier,
            msgspec.json.encode(own_quota),
            TenantStatus.ACTIVE,
            self._clock.now(),
            parent_id,
            msgspec.json.encode(policy),
            key,
            None if key is None else hash_request(checked_name, checked_tier, quota, parent_id, share),
        )
        return await self._turns.carry_out(self._create(record))

    async def _create(self, record: TenantRecord) -> Tenant:
        change = TenantCreated(
            record.tenant_id,
            record.tenant_name,
            record.tier,
            record.quota,
            record.created_at,
            record.parent_id,
            record.policy,
            current_actor(),
            record.idempotency_key,
            record.request_hash,
        )
        key = record.idempotency_key
        if key is None:
            async with self._turn(record.tenant_id) as turn:
                return await turn.record(change, partial(self._admit, record))
        async with self._turns.of(("tenant of the key", key), partial(self._look_for, key)) as turn:
            tenant_id, request_hash = self._keys.get(key, ("", None))
            if not tenant_id:
                return await turn.record(change, partial(self._admit, record))
            if request_hash != record.request_hash:
                raise IdempotencyConflict(key, tenant_id=tenant_id)
            return self.get(tenant_id)

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
            TenantNotActive: it, or the tenant above it, is suspended or just being deleted.
        """
        tenant = self.get(tenant_id)
        if tenant.status is not TenantStatus.ACTIVE:
            raise TenantNotActive(tenant.tenant_id, tenant.status)
        if tenant_id in self._leaving:
            raise TenantNotActive(tenant.tenant_id, BEING_DELETED)
        if tenant.parent_id is not None:
            self.active(tenant.parent_id)
        return tenant

    def may_start(self, tenant_id: str) -> bool:
        """Tell whether tasks of a tenant may start as far as its own status goes."""
        tenant = self._tenants.get(tenant_id)
        return tenant is not None and tenant.status is TenantStatus.ACTIVE and tenant_id not in self._leaving

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

    @asynccontextmanager
    async def leaving(self, tenant_id: str) -> AsyncIterator[None]:
        """Accept and start nothing more for a tenant meanwhile, as it may be deleted; what was accepted is recorded.

        Raises:
            UnknownTenant: there is none of that id.
            StoreError: the database cannot be written.
        """
        self.get(tenant_id)
        self._leaving[tenant_id] += 1
        self._scheduler.pause(tenant_id)
        try:
            await self._committer.record([])  # whatever was put before is recorded then
            yield
        finally:
            self._leaving -= Counter((tenant_id,))
            tenant = self._tenants.get(tenant_id)
            if tenant is not None:
                self._take(tenant)

    async def set_status(self, tenant_id: object, status: TenantStatus) -> Tenant:
        """Suspend or resume a tenant; nothing happens when it is in that state already.

        Raises:
            UnknownTenant: there is none of that id.
            StoreError: it is not known whether it is recorded.
        """
        return await self._turns.carry_out(self._set_status(self.get(tenant_id).tenant_id, status))

    async def _set_status(self, tenant_id: str, status: TenantStatus) -> Tenant:
        async with self._turn(tenant_id) as turn:
            tenant = self.get(tenant_id)
            if tenant.status is status:
                return tenant
            change = TenantStatusChanged(tenant_id, status, self._clock.now(), current_actor())
            return await turn.record(change, partial(self._take, dataclasses.replace(tenant, status=status)))

    async def delete(self, tenant_id: str) -> None:
        """Delete a tenant, unless somebody else has done so meanwhile.

        Raises:
            StoreError: it has sub-tenants, or it is not known whether it is recorded.
        """
        async with self._turn(tenant_id) as turn:
            tenant = self._tenants.get(tenant_id)
            if tenant is not None:
                change = TenantStatusChanged(tenant_id, TenantStatus.DELETED, self._clock.now(), current_actor())
                await turn.record(change, partial(self._remove, tenant))

    async def change_plan(
        self,
        tenant_id: object,
        *,
        tier: object = None,
        quota: object = None,
        limits: Mapping[str, Any] | None = None,
        edit: Callable[[Tenant], Mapping[str, Any]] | None = None,
        **policy: Any,
    ) -> Tenant:
        """Change a tenant's tier, quota or policy, with effect at the next dispatch; what runs goes on.

        With a change of tier it has the quota of the new tier, unless a quota is given too. `limits` are single ones by
        name, in the place of those of that quota or of the present one. `edit` gives fields of the policy that depend
        on what the tenant has now.

        Raises:
            UnknownTenant: there is none of that id.
            InvalidRequest: a value cannot be accepted.
        """
        change = self._change_plan(
            self.get(tenant_id).tenant_id, tier, quota, limits or {}, edit or (lambda now: policy)
        )
        return await self._turns.carry_out(change)

    async def _change_plan(
        self,
        tenant_id: str,
        tier: object,
        quota: object,
        limits: Mapping[str, Any],
        edit: Callable[[Tenant], Mapping[str, Any]],
    ) -> Tenant:
        async with self._turn(tenant_id) as turn:
            tenant = self.get(tenant_id)
            new_tier = tenant.tier if tier is None else check_tier(tier, self.plans)
            own_quota = tenant.quota if tenant.has_own_quota and tier is None else None
            if quota is not None:
                own_quota = check_quota(quota)
            if limits:
                present = tenant.quota if tier is None else self.plans[new_tier].quota
                own_quota = change_limits(own_quota or present, limits)
            record = TenantRecord(
                tenant_id,
                tenant.tenant_name,
                new_tier,
                msgspec.json.encode(own_quota),
                tenant.status,
                0,
                tenant.parent_id,
                msgspec.json.encode(dataclasses.replace(tenant.policy, **edit(tenant))),
            )
            change = TenantPlanChanged(
                tenant_id, record.tier, record.quota, record.policy, self._clock.now(), current_actor()
            )
            changed = dataclasses.replace(tenant_view(record, self.plans), created_at=tenant.created_at)
            return await turn.record(change, partial(self._take, changed))

    def _turn(self, tenant_id: str) -> AbstractAsyncContextManager[Turn]:
        """Wait for the turn to change a tenant; a new one has an id of its own already."""
        return self._turns.of(("tenant", tenant_id), partial(self._look, tenant_id))

    async def _look_for(self, key: str) -> None:
        """Take the tenant that was made under a key, if the store has one that is not known."""
        for record in await self._store.list_tenants():
            if record.idempotency_key == key and record.tenant_id not in self._tenants:
                self._admit(record)

    async def _look(self, tenant_id: str) -> None:
        """Make of a tenant what the store says."""
        for record in await self._store.list_tenants():
            if record.tenant_id == tenant_id:
                self._admit(record)
                return
        tenant = self._tenants.get(tenant_id)
        if tenant is not None:
            self._remove(tenant)

    def _parent(self, parent: object) -> Tenant:
        tenant = self.active(parent)
        if tenant.parent_id is not None:
            raise InvalidRequest(
                f"{tenant.tenant_id} is a sub-tenant itself. Make the new one beside it.", field="parent"
            )
        check_feature(tenant, "multi_tenancy", "making a sub-tenant", self.plans)
        return tenant

    def _admit(self, record: TenantRecord) -> Tenant:
        """Take a tenant as it is recorded."""
        if record.idempotency_key is not None:
            self._keys[record.idempotency_key] = record.tenant_id, record.request_hash
        return self._take(tenant_view(record, self.plans))

    def _take(self, tenant: Tenant) -> Tenant:
        """Let a tenant be from now on what it is recorded to be."""
        if tenant.parent_id is not None and tenant.tenant_id not in self._tenants:
            self._children.setdefault(tenant.parent_id, []).append(tenant.tenant_id)
        self._tenants[tenant.tenant_id] = tenant
        limits = limits_of(tenant.quota, self.capacity)
        scheduler = self._scheduler
        scheduler.add_tenant(
            tenant.tenant_id,
            limits=limits,
            weight=tenant.weight,
            parent=tenant.parent_id,
            share=tenant.policy.share,
        )
        scheduler.throttle(tenant.tenant_id, tenant.policy.throttle_percent)
        if self.may_start(tenant.tenant_id):
            scheduler.resume(tenant.tenant_id)
        else:
            scheduler.pause(tenant.tenant_id)
        self.changed(tenant.tenant_id)
        return tenant

    def _remove(self, tenant: Tenant) -> None:
        """Forget a tenant that is recorded as deleted."""
        tenant_id = tenant.tenant_id
        self.removing(tenant_id)
        del self._tenants[tenant_id]
        self._scheduler.remove_tenant(tenant_id)
        if tenant.parent_id is not None:
            self._children[tenant.parent_id].remove(tenant_id)
            self.changed(tenant.parent_id)  # what was guaranteed to it is left for the others
        self._children.pop(tenant_id, None)
        self._keys = {key: made for key, made in self._keys.items() if made[0] != tenant_id}
        self.removed(tenant_id)


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
