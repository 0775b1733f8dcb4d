"""Tenants, their tiers and their quotas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from synergymesh.domain.audit.retention import AUDIT_DAYS_DEFAULT, AUDIT_SENSITIVE_DAYS_DEFAULT
from synergymesh.domain.fault_tolerance.breaker_rules import BreakerRule
from synergymesh.domain.fault_tolerance.retry_rules import RetryRule
from synergymesh.domain.quota import ResourceQuota
from synergymesh.domain.scheduling.limits import CohortShare
from synergymesh.domain.states import TenantStatus
from synergymesh.errors import InvalidRequest

WEIGHT_MAX = 1_000
"""Weights in the fair queue are small ratios; larger ones would only starve the others."""

RETENTION_DAYS_DEFAULT = 30.0
"""Days that a finished run is kept: a month's work can be looked into."""

RETENTION_DAYS_MAX = 36_500.0
"""A hundred years: for ever."""

TENANT_NAME_MAX = 200
"""Characters; names are shown in tables and pages."""


class TenantTier(StrEnum):
    """Name the plan of a tenant."""

    BASIC = "basic"
    PROFESSIONAL = "professional"
    ENTERPRISE = "enterprise"


@dataclass(frozen=True, slots=True, kw_only=True)
class TierPlan:
    """Hold what a tier gives: a quota, a weight in the fair queue, a service level, features, retentions.

    `retention_days` is how long a finished run is kept; 0 lets it go as soon as it has ended. `audit_days` is how long
    entries of the audit log are kept, `audit_sensitive_days` those about power and access.
    """

    quota: ResourceQuota
    weight: int
    sla_uptime_percent: float
    features: frozenset[str]
    retention_days: float = RETENTION_DAYS_DEFAULT
    audit_days: int = AUDIT_DAYS_DEFAULT
    audit_sensitive_days: int = AUDIT_SENSITIVE_DAYS_DEFAULT


_BASIC = frozenset({"basic_execution", "simple_monitoring"})
_PROFESSIONAL = _BASIC | {"advanced_retry", "resource_management", "audit_logs", "sla_monitoring"}
_ENTERPRISE = _PROFESSIONAL | {"multi_tenancy", "high_availability", "custom_policies", "advanced_analytics"}
FEATURES = _ENTERPRISE
"""Every feature that a tier can have."""

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


NO_PLAN = TierPlan(quota=ResourceQuota(), weight=1, sla_uptime_percent=99.0, features=frozenset())
"""For a tenant whose tier is not in the configuration any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantPolicy:
    """Hold what the operator has set for one tenant beside its tier and quota.

    Attributes:
        weight: in the fair queue instead of the tier's, 1 to `WEIGHT_MAX`.
        throttle_percent: share of its slots that it may use at a time, 1 to 100; None for all.
        share: of a sub-tenant in its parent's quota.
        retries: its own retry policies.
        retention_days: how long a finished run is kept, instead of the tier's: 0 (not at all) to `RETENTION_DAYS_MAX`.
        breakers: its own breaker policies.

    Raises:
        InvalidRequest: a field is outside its range.
    """

    weight: int | None = None
    throttle_percent: int | None = None
    share: CohortShare | None = None
    retries: tuple[RetryRule, ...] = ()
    retention_days: float | None = None
    breakers: tuple[BreakerRule, ...] = ()

    def __post_init__(self) -> None:
        for name, most in (("weight", WEIGHT_MAX), ("throttle_percent", 100)):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most):
                raise InvalidRequest(f"{name} must be a whole number from 1 to {most:,}, not {value!r}.", field=name)
        if self.share is not None and not isinstance(self.share, CohortShare):
            raise InvalidRequest(f"share must be a CohortShare, not {self.share!r}.", field="share")
        days = self.retention_days
        if days is not None and (
            not isinstance(days, int | float) or isinstance(days, bool) or not 0 <= days <= RETENTION_DAYS_MAX
        ):
            raise InvalidRequest(
                f"retention_days must be a number of days from 0 (finished runs go at once) to "
                f"{RETENTION_DAYS_MAX:,.0f}, not {days!r}.",
                field="retention_days",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """Describe a customer.

    Attributes:
        tenant_id: `tenant-…`.
        tier: the name of its plan.
        quota: its limits: its own, or those of its tier.
        has_own_quota: whether it keeps its limits when its tier, or what the tier gives, is changed.
        status: active, suspended or deleted.
        created_at: aware (UTC).
        weight: in the fair queue.
        features_enabled: what its tier allows.
        sla_uptime_percent: what its tier promises.
        policy: what the operator has set for it.
        parent_id: the tenant whose quota it shares, if it is a sub-tenant.
        retention_days: how long its finished runs are kept.
    """

    tenant_id: str
    tenant_name: str
    tier: str
    quota: ResourceQuota
    status: TenantStatus
    created_at: datetime
    weight: int
    features_enabled: frozenset[str]
    sla_uptime_percent: float
    policy: TenantPolicy
    parent_id: str | None = None
    retention_days: float = RETENTION_DAYS_DEFAULT
    has_own_quota: bool = False


def check_tier(value: object, plans: Mapping[str, TierPlan]) -> str:
    """Read the name of a tier in any case.

    Raises:
        InvalidRequest: there is no such tier.
    """
    name = str(value).lower()
    if name not in plans:
        raise InvalidRequest(f"tier must be one of {', '.join(plans)}, not {value!r}.", field="tier")
    return name


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
