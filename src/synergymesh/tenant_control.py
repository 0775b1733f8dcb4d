"""What operators do with tenants: part of the asynchronous face."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synergymesh.assembly import Parts
from synergymesh.domain.fault_tolerance.breaker import BreakerPolicy
from synergymesh.domain.fault_tolerance.retry import RetryPolicy
from synergymesh.domain.quota import ResourceQuota
from synergymesh.domain.scheduling.limits import CohortShare
from synergymesh.domain.states import TenantStatus
from synergymesh.domain.tenants import Tenant, TenantTier
from synergymesh.engine.observability.views import (
    BreakerView,
    breaker_view,
)
from synergymesh.errors import InvalidRequest

if TYPE_CHECKING:
    from synergymesh.assembly import Parts


class TenantControl:
    """Make, change, suspend and delete tenants; `Orchestrator` has all of these verbs."""

    @property
    def _running(self) -> Parts:
        raise NotImplementedError

    async def create_tenant(
        self,
        tenant_name: str,
        tier: TenantTier | str = TenantTier.BASIC,
        *,
        quota: ResourceQuota | None = None,
        parent: str | None = None,
        share: CohortShare | None = None,
        idempotency_key: str | None = None,
    ) -> Tenant:
        """Make a tenant.

        Whoever is told of an error, or of nothing, does not know whether the tenant was made. Under a key it can be
        asked for again, and there will be one tenant.

        Args:
            tenant_name: a name for people; it need not be unique.
            tier: its plan.
            quota: its own limits instead of the tier's, which change with the configuration.
            parent: the tenant whose quota it shares, for a sub-tenant.
            share: what of that quota it gets whenever it wants it, may borrow, and lends.
            idempotency_key: the same key gives the same tenant again, as it is now; free again once that is deleted.

        Returns:
            the tenant, with its id.

        Raises:
            InvalidRequest: a value cannot be accepted.
            IdempotencyConflict: the key belongs to a tenant that was asked for otherwise.
            UnknownTenant: there is no such parent.
            TenantNotActive: the parent is suspended.
            FeatureNotEnabled: the parent's tier has no sub-tenants.
        """
        return await self._running.tenants.create(tenant_name, tier, quota, parent, share, idempotency_key)

    async def set_tier(self, tenant_id: str, tier: TenantTier | str) -> Tenant:
        """Give a tenant another plan with its quota, from the next dispatch on; what runs goes on.

        Args:
            tenant_id: which.
            tier: its new plan.

        Returns:
            the tenant as it is now.

        Raises:
            UnknownTenant: there is none of that id.
            InvalidRequest: there is no such tier.
        """
        return await self._running.tenants.change_plan(tenant_id, tier=tier)

    async def set_quota(self, tenant_id: str, quota: ResourceQuota) -> Tenant:
        """Give a tenant limits of its own, from the next dispatch on; what runs goes on, whatever they are.

        `set_tier` takes them away again.

        Args:
            tenant_id: which.
            quota: all of its limits.

        Returns:
            the tenant as it is now.

        Raises:
            UnknownTenant: there is none of that id.
            InvalidRequest: it is no quota.
        """
        return await self._running.tenants.change_plan(tenant_id, quota=quota)

    async def modify_quota(self, tenant_id: str, quota: ResourceQuota | None = None, **limits: int | None) -> Tenant:
        """Change single limits of a tenant, from the next dispatch on; changes at the same time all count.

        Args:
            tenant_id: whose.
            quota: all limits; the tenant's present ones when None.
            limits: single limits by name, in the place of those of `quota`.

        Returns:
            the tenant as it is now.

        Raises:
            UnknownTenant: there is none of that id.
            InvalidRequest: a limit cannot be accepted, or there is none of that name.
        """
        return await self._running.tenants.change_plan(tenant_id, quota=quota, limits=limits)

    async def set_weight(self, tenant_id: str, weight: int | None) -> Tenant:
        """Give a tenant another weight in the fair queue than its tier's; None for the tier's.

        Args:
            tenant_id: which.
            weight: its weight, None for its tier's.

        Returns:
            the tenant as it is now.

        Raises:
            UnknownTenant: there is none of that id.
            InvalidRequest: the weight is outside its range.
        """
        return await self._running.tenants.change_plan(tenant_id, weight=weight)

    async def set_share(self, tenant_id: str, share: CohortShare | None) -> Tenant:
        """Give a sub-tenant another share of its parent's quota, from the next dispatch on; None for no share.

        Args:
            tenant_id: which.
            share: what it gets, may borrow and lends; None for none.

        Returns:
            the tenant as it is now.

        Raises:
            UnknownTenant: there is none of that id.
            InvalidRequest: it is no share, or no sub-tenant.
        """

        def edit(tenant: Tenant) -> dict[str, CohortShare | None]:
            if tenant.parent_id is None:
                raise InvalidRequest(
                    f"{tenant.tenant_id} is no sub-tenant, so it has no share. Make sub-tenants with `parent`.",
                    field="tenant_id",
                )
            return {"share": share}

        return await self._running.tenants.change_plan(tenant_id, edit=edit)

    async def throttle_tenant(self, tenant_id: str, percent: int | None) -> Tenant:
        """Let a tenant run only that percentage of the tasks at a time that its limits allow; None for all of them.

        Args:
            tenant_id: which.
            percent: 1 to 100, None for all of its limits.

        Returns:
            the tenant as it is now.

        Raises:
            UnknownTenant: there is none of that id.
            InvalidRequest: percent is not from 1 to 100.
        """
        return await self._running.tenants.change_plan(tenant_id, throttle_percent=percent)

    async def set_retry_policy(
        self, tenant_id: str, policy: RetryPolicy | None, *, workflow: str | None = None, component: str | None = None
    ) -> Tenant:
        """Give a tenant a retry policy of its own, which counts from the next failure on; None takes it away.

        A policy for a component, or for a workflow, comes before what the task declares; one for the whole tenant is
        only the default of tasks that declare none.

        Args:
            tenant_id: whose; its sub-tenants have it too, unless they have their own.
            policy: what counts there.
            workflow: the name of the workflow that it is for; None for all.
            component: the id of the component of that workflow; None for all.

        Returns:
            the tenant as it is now.

        Raises:
            UnknownTenant: there is none of that id.
            InvalidRequest: it is no policy, or a component is named without its workflow.
            FeatureNotEnabled: the tenant's tier does not have advanced_retry.
        """
        return await self._running.retry_policies.change(tenant_id, policy, workflow, component)

    async def set_retention(self, tenant_id: str, days: float | None) -> Tenant:
        """Let the finished runs of a tenant be kept so many days; None for its tier's number, 0 for not at all.

        Args:
            tenant_id: which.
            days: 0 to 36,500; None for its tier's number.

        Returns:
            the tenant as it is now.

        Raises:
            UnknownTenant: there is none of that id.
            InvalidRequest: days is not from 0 to 36,500.
        """
        return await self._running.tenants.change_plan(tenant_id, retention_days=days)

    async def set_breaker_policy(
        self,
        tenant_id: str,
        policy: BreakerPolicy | None,
        *,
        breaker: str | None = None,
        workflow: str | None = None,
        component: str | None = None,
    ) -> Tenant:
        """Give a tenant a breaker policy of its own: for what tasks name, a component, a workflow, or all it runs.

        Args:
            tenant_id: whose; its sub-tenants have it too, unless they have their own.
            policy: what counts there; None takes it away.
            breaker: the name that tasks give with `breaker=`.
            workflow: the name of a workflow.
            component: the id of a component of that workflow; None for all.

        Returns:
            the tenant as it is now.

        Raises:
            UnknownTenant: there is none of that id.
            InvalidRequest: it is no policy, or the names cannot be.
            FeatureNotEnabled: the tenant's tier does not have custom_policies.
        """
        return await self._running.circuits.set_policy(tenant_id, policy, breaker, workflow, component)

    async def breakers(self, tenant: str | None = None) -> list[BreakerView]:
        """Give the circuits that have failed lately, and those that were ever open.

        Args:
            tenant: whose; None for all.

        Returns:
            the circuits, each with its state.

        Raises:
            UnknownTenant: there is none of that id.
        """
        return [breaker_view(record) for record in await self._running.circuits.list(tenant)]

    async def reset_breaker(
        self,
        tenant_id: str,
        *,
        breaker: str | None = None,
        workflow: str | None = None,
        component: str | None = None,
    ) -> None:
        """Close a circuit by hand: what it holds back may start at once.

        Args:
            tenant_id: whose.
            breaker: the name that tasks give with `breaker=`.
            workflow: or the name of the workflow.
            component: and the id of its component.

        Raises:
            UnknownTenant: there is none of that id.
            UnknownBreaker: nothing of that name has failed lately.
            InvalidRequest: the names cannot be.
        """
        await self._running.circuits.reset(tenant_id, breaker, workflow, component)

    async def get_tenant(self, tenant_id: str) -> Tenant:
        """Give a tenant.

        Args:
            tenant_id: which.

        Returns:
            the tenant as it is now; it does not change.

        Raises:
            UnknownTenant: there is none of that id.
        """
        return self._running.tenants.get(tenant_id)

    async def list_tenants(self) -> list[Tenant]:
        """Give all tenants, oldest first.

        Returns:
            the tenants, those that are suspended too.
        """
        return list(self._running.tenants)

    async def suspend_tenant(self, tenant_id: str) -> Tenant:
        """Accept and start nothing more for a tenant; what runs goes on.

        Args:
            tenant_id: which.

        Returns:
            the tenant as it is now.

        Raises:
            UnknownTenant: there is none of that id.
        """
        return await self._running.tenants.set_status(tenant_id, TenantStatus.SUSPENDED)

    async def resume_tenant(self, tenant_id: str) -> Tenant:
        """Accept and start tasks of a suspended tenant again.

        Args:
            tenant_id: which.

        Returns:
            the tenant as it is now.

        Raises:
            UnknownTenant: there is none of that id.
        """
        return await self._running.tenants.set_status(tenant_id, TenantStatus.ACTIVE)

    async def delete_tenant(self, tenant_id: str, *, force: bool = False) -> None:
        """Delete a tenant with everything that is recorded of it.

        Args:
            tenant_id: which.
            force: cancel its open runs first.

        Raises:
            UnknownTenant: there is none of that id.
            TenantHasOpenRuns: it has open runs, and force is False.
        """
        await self._running.control.delete_tenant(tenant_id, force=force)
