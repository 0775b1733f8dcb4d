"""What a tenant's tier allows, checked where it is used."""

from __future__ import annotations

from collections.abc import Mapping

from synergymesh.domain.tenants import Tenant, TierPlan
from synergymesh.errors import FeatureNotEnabled


def check_feature(tenant: Tenant, feature: str, what: str, plans: Mapping[str, TierPlan]) -> None:
    """Raise FeatureNotEnabled, which says who has the feature, unless the tenant's tier has it.

    Args:
        tenant: who wants it.
        feature: its name, as in the tier's plan.
        what: what the tenant wants to do, for the message.
        plans: every tier by name.
    """
    if feature not in tenant.features_enabled:
        tiers = [name for name, plan in plans.items() if feature in plan.features]
        raise FeatureNotEnabled(feature, tenant_id=tenant.tenant_id, tier=tenant.tier, tiers=tiers, what=what)
