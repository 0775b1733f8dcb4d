"""Which retry policy counts for a task: the tenant's, the task's own, or the orchestrator's."""

from __future__ import annotations

from dataclasses import replace

from synergymesh.domain.fault_tolerance.retry import RetryPolicy
from synergymesh.domain.fault_tolerance.retry_rules import RetryRules, change_rules, check_place
from synergymesh.domain.tenants import Tenant
from synergymesh.engine.features import check_feature
from synergymesh.engine.live import LiveRun
from synergymesh.engine.tenants import Tenants
from synergymesh.errors import InvalidRequest, UnknownTenant

FEATURE = "advanced_retry"


class RetryPolicies:
    """Keep the rules of each tenant ready; they are only asked when an attempt has failed."""

    def __init__(self, tenants: Tenants, default: RetryPolicy) -> None:
        self._tenants = tenants
        self._default = default
        self._rules: dict[str, tuple[Tenant, Tenant | None, RetryRules]] = {}

    async def change(self, tenant_id: object, policy: object, workflow: object, component: object) -> Tenant:
        """Set or take away a policy of a tenant.

        Raises:
            UnknownTenant: there is none of that id.
            InvalidRequest: it is no policy, or the place cannot be one.
            FeatureNotEnabled: the tenant's tier does not have the feature.
        """
        if policy is not None and not isinstance(policy, RetryPolicy):
            raise InvalidRequest(f"policy must be a RetryPolicy or None, not {policy!r:.100}.", field="policy")
        place = check_place(workflow, component)
        tenant = self._tenants.get(tenant_id)
        if policy is not None:
            check_feature(tenant, FEATURE, "a retry policy of its own", self._tenants.plans)
        return await self._tenants.change_plan(
            tenant_id, edit=lambda now: {"retries": change_rules(now.policy.retries, place, policy)}
        )

    def of(self, run: LiveRun, position: int) -> RetryPolicy:
        """Give the policy of a run's task."""
        component = run.version.plan.components[position]
        rules = self._rules_of(run.tenant_id)
        policy = rules.find(run.version.plan.workflow, component.component_id, component.retry, self._default)
        max_retries = None if run.direct is None else run.direct[position].max_retries
        return policy if max_retries is None else replace(policy, max_retries=max_retries)

    def _rules_of(self, tenant_id: str) -> RetryRules:
        """Give a tenant's rules, made again when the tenant, or the one above it, has changed."""
        try:
            tenant = self._tenants.get(tenant_id)
            parent = None if tenant.parent_id is None else self._tenants.get(tenant.parent_id)
        except UnknownTenant:  # deleted while a task of it ran
            self._rules.pop(tenant_id, None)
            return RetryRules([])
        known = self._rules.get(tenant_id)
        if known is not None and known[0] is tenant and known[1] is parent:
            return known[2]
        chain = [each for each in (tenant, parent) if each is not None and FEATURE in each.features_enabled]
        rules = RetryRules([each.policy.retries for each in chain])
        self._rules[tenant_id] = (tenant, parent, rules)
        return rules
