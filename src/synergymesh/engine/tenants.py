"""The tenants of this mesh, in memory and in the store alike."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Iterator

import msgspec

from synergymesh.domain.instants import to_datetime
from synergymesh.domain.states import TenantStatus
from synergymesh.domain.tenants import (
    TIER_PLANS,
    ResourceQuota,
    Tenant,
    check_tenant_name,
    parse_tier,
)
from synergymesh.engine.committer import Committer
from synergymesh.engine.dispatch import Dispatcher
from synergymesh.engine.views import tenant_view
from synergymesh.errors import InvalidRequest, StoreError, TenantNotActive, UnknownTenant
from synergymesh.ports.clock import Clock
from synergymesh.ports.store import Change, Committed, Store, TenantCreated, TenantStatusChanged


class Tenants:
    """Know every tenant, and tell the scheduler about each."""

    def __init__(self, store: Store, committer: Committer, dispatcher: Dispatcher, clock: Clock) -> None:
        self._store = store
        self._committer = committer
        self._dispatcher = dispatcher
        self._clock = clock
        self._tenants: dict[str, Tenant] = {}

    async def load(self) -> None:
        """Read all tenants from the store."""
        for record in await self._store.list_tenants():
            self._admit(tenant_view(record))

    async def create(self, name: object, tier: object, quota: object) -> Tenant:
        """Record a new tenant.

        Raises:
            InvalidRequest: name, tier or quota cannot be accepted.
        """
        checked_name = check_tenant_name(name)
        checked_tier = parse_tier(tier)
        if quota is not None and not isinstance(quota, ResourceQuota):
            raise InvalidRequest(f"quota must be a ResourceQuota or None, not {quota!r}.", field="quota")
        checked_quota = quota or TIER_PLANS[checked_tier].quota
        now = self._clock.now()
        tenant = Tenant(
            tenant_id=f"tenant-{secrets.token_hex(8)}",
            tenant_name=checked_name,
            tier=checked_tier,
            quota=checked_quota,
            status=TenantStatus.ACTIVE,
            created_at=to_datetime(now),
        )
        row = TenantCreated(tenant.tenant_id, checked_name, checked_tier.value, msgspec.json.encode(checked_quota), now)
        await self._record(row)
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

    def active(self, tenant_id: object) -> Tenant:
        """Give a tenant for which something can be submitted.

        Raises:
            UnknownTenant: there is none of that id.
            TenantNotActive: it is suspended.
        """
        tenant = self.get(tenant_id)
        if tenant.status is not TenantStatus.ACTIVE:
            raise TenantNotActive(tenant.tenant_id, tenant.status)
        return tenant

    def __iter__(self) -> Iterator[Tenant]:
        """Go through all tenants, oldest first."""
        return iter(list(self._tenants.values()))

    async def set_status(self, tenant_id: object, status: TenantStatus) -> Tenant:
        """Suspend, resume or delete a tenant; nothing happens when it is in that state already."""
        tenant = self.get(tenant_id)
        if tenant.status is status:
            return tenant
        await self._record(TenantStatusChanged(tenant.tenant_id, status, self._clock.now()))
        if status is TenantStatus.DELETED:
            del self._tenants[tenant.tenant_id]
            self._dispatcher.scheduler.remove_tenant(tenant.tenant_id)
            return tenant
        tenant = dataclasses.replace(tenant, status=status)
        self._admit(tenant)
        return tenant

    async def _record(self, change: Change) -> None:
        answer = await self._committer.record([change])
        if not isinstance(answer, Committed):
            raise StoreError(f"the database refused the change: {getattr(answer, 'reason', answer)}")

    def _admit(self, tenant: Tenant) -> None:
        self._tenants[tenant.tenant_id] = tenant
        scheduler = self._dispatcher.scheduler
        scheduler.add_tenant(tenant.tenant_id, max_concurrent=tenant.quota.max_concurrent_tasks, weight=tenant.weight)
        if tenant.status is TenantStatus.SUSPENDED:
            scheduler.pause(tenant.tenant_id)
        else:
            scheduler.resume(tenant.tenant_id)
            self._dispatcher.pump_soon()
