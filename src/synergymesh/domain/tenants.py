"""Tenants, their tiers and their quotas."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum

from synergymesh.domain.states import TenantStatus
from synergymesh.errors import InvalidRequest

TENANT_NAME_MAX = 200
"""Characters; names are shown in tables and pages."""

QUOTA_FIELD_MAX = 1_000_000_000
"""No limit of a quota is larger: far above any machine, far below 2**63 for sums in fixed point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceQuota:
    """Hold the limits of one tenant.

    Attributes:
        max_concurrent_tasks: tasks that run at the same time.
        max_memory_mb: sum of the memory requests of running tasks, in MiB.
        max_cpu_percent: share of the whole capacity, 1 to 100.
        max_tasks_per_hour: starts in any rolling hour.
        rate_limit_per_second: submissions per second.
        max_queued_tasks: tasks that wait.
        burst: submissions that may come at once; None for as many as the rate gives in a second.

    Raises:
        InvalidRequest: a limit is no whole number, below 1 or absurdly large.
    """

    max_concurrent_tasks: int = 5
    max_memory_mb: int = 512
    max_cpu_percent: int = 50
    max_tasks_per_hour: int = 100
    rate_limit_per_second: int = 10
    max_queued_tasks: int = 1_000_000
    burst: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None and field.name == "burst":
                continue
            most = 100 if field.name == "max_cpu_percent" else QUOTA_FIELD_MAX
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
                raise InvalidRequest(
                    f"quota.{field.name} must be a whole number from 1 to {most:,}, not {value!r}.",
                    field=f"quota.{field.name}",
                )


class TenantTier(StrEnum):
    """Name the plan of a tenant."""

    BASIC = "basic"
    PROFESSIONAL = "professional"
    ENTERPRISE = "enterprise"


@dataclass(frozen=True, slots=True, kw_only=True)
class TierPlan:
    """Hold what a tier gives: a quota, a weight in the fair queue, a service level and features."""

    quota: ResourceQuota
    weight: int
    sla_uptime_percent: float
    features: frozenset[str]


_BASIC = frozenset({"basic_execution", "simple_monitoring"})
_PROFESSIONAL = _BASIC | {"advanced_retry", "resource_management", "audit_logs", "sla_monitoring"}
_ENTERPRISE = _PROFESSIONAL | {"multi_tenancy", "high_availability", "custom_policies", "advanced_analytics"}

TIER_PLANS: dict[TenantTier, TierPlan] = {
    TenantTier.BASIC: TierPlan(quota=ResourceQuota(), weight=1, sla_uptime_percent=99.0, features=_BASIC),
    TenantTier.PROFESSIONAL: TierPlan(
        quota=ResourceQuota(
            max_concurrent_tasks=20,
            max_memory_mb=2_048,
            max_cpu_percent=75,
            max_tasks_per_hour=5_000,
            rate_limit_per_second=100,
        ),
        weight=4,
        sla_uptime_percent=99.9,
        features=_PROFESSIONAL,
    ),
    TenantTier.ENTERPRISE: TierPlan(
        quota=ResourceQuota(
            max_concurrent_tasks=100,
            max_memory_mb=8_192,
            max_cpu_percent=95,
            max_tasks_per_hour=100_000,
            rate_limit_per_second=1_000,
        ),
        weight=16,
        sla_uptime_percent=99.95,
        features=_ENTERPRISE,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """Describe a customer: `tenant_id` is `tenant-…`, `created_at` is aware (UTC)."""

    tenant_id: str
    tenant_name: str
    tier: TenantTier
    quota: ResourceQuota
    status: TenantStatus
    created_at: datetime

    @property
    def features_enabled(self) -> frozenset[str]:
        """Name the features of the tenant's tier."""
        return TIER_PLANS[self.tier].features

    @property
    def weight(self) -> int:
        """Give the tenant's weight in the fair queue."""
        return TIER_PLANS[self.tier].weight


def parse_tier(value: object) -> TenantTier:
    """Read a tier from its name in any case.

    Raises:
        InvalidRequest: there is no such tier.
    """
    try:
        return TenantTier(str(value).lower())
    except ValueError:
        known = ", ".join(t.value for t in TenantTier)
        raise InvalidRequest(f"tier must be one of {known}, not {value!r}.", field="tier") from None


def check_tenant_name(name: object) -> str:
    """Return the name without space around it.

    Raises:
        InvalidRequest: empty, too long, or with control characters.
    """
    if not isinstance(name, str) or not name.strip():
        raise InvalidRequest(f"tenant_name must be a text that is not empty, not {name!r}.", field="tenant_name")
    name = name.strip()
    if len(name) > TENANT_NAME_MAX:
        raise InvalidRequest(
            f"tenant_name has {len(name):,} characters, the limit is {TENANT_NAME_MAX}.", field="tenant_name"
        )
    if not name.isprintable():
        raise InvalidRequest("tenant_name has control characters. Leave them out.", field="tenant_name")
    return name
