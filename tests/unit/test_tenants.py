"""Tenants, tiers and quotas as values."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Any

import pytest

from synergymesh.domain.quota import QUOTA_FIELD_MAX, ResourceQuota
from synergymesh.domain.states import TenantStatus
from synergymesh.domain.tenants import (
    TENANT_NAME_MAX,
    TIER_PLANS,
    TenantPolicy,
    TenantTier,
    check_tenant_name,
    check_tier,
)
from synergymesh.engine.observability.views import tenant_view
from synergymesh.errors import InvalidRequest
from synergymesh.ports.records import TenantRecord

PLANS = {tier.value: plan for tier, plan in TIER_PLANS.items()}

FIELDS = [
    "max_concurrent_tasks",
    "max_memory_mb",
    "max_cpu_percent",
    "max_tasks_per_hour",
    "rate_limit_per_second",
    "max_queued_tasks",
]


def test_a_quota_has_the_fields_that_programs_rely_on() -> None:
    assert {field.name for field in dataclasses.fields(ResourceQuota)} >= set(FIELDS)


@pytest.mark.parametrize("field", FIELDS)
def test_a_limit_takes_its_smallest_and_its_largest_number(field: str) -> None:
    most = 100 if field == "max_cpu_percent" else QUOTA_FIELD_MAX
    for value in (1, most):
        assert getattr(ResourceQuota(**{field: value}), field) == value


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("value", [0, -1, QUOTA_FIELD_MAX + 1, 1.5, "5", None, True, float("nan"), float("inf")])
def test_a_limit_that_makes_no_sense_is_refused_with_its_name(field: str, value: Any) -> None:
    with pytest.raises(InvalidRequest, match=f"quota.{field} must be a whole number") as caught:
        ResourceQuota(**{field: value})
    assert caught.value.field == f"quota.{field}"


def test_more_than_a_hundred_percent_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"quota\.max_cpu_percent"):
        ResourceQuota(max_cpu_percent=101)


def test_the_tiers_are_those_of_the_design() -> None:
    shown = {
        tier.value: (
            plan.quota.max_concurrent_tasks,
            plan.quota.max_memory_mb,
            plan.quota.max_cpu_percent,
            plan.quota.max_tasks_per_hour,
            plan.quota.rate_limit_per_second,
            plan.weight,
            plan.sla_uptime_percent,
        )
        for tier, plan in TIER_PLANS.items()
    }
    assert shown == {
        "basic": (5, 512, 50, 100, 10, 1, 99.0),
        "professional": (20, 2_048, 75, 5_000, 100, 4, 99.9),
        "enterprise": (100, 8_192, 95, 100_000, 1_000, 16, 99.95),
    }


def test_each_tier_has_all_features_of_the_one_below_and_more() -> None:
    basic, professional, enterprise = (TIER_PLANS[tier].features for tier in TenantTier)
    assert basic < professional < enterprise


def test_a_tenant_has_the_weight_and_the_features_of_its_tier() -> None:
    record = TenantRecord("tenant-1", "Acme", "professional", b"{}", TenantStatus.ACTIVE, 0)
    tenant = tenant_view(record, PLANS)
    assert tenant.weight == 4
    assert tenant.created_at == datetime(1970, 1, 1, tzinfo=UTC)
    assert "advanced_retry" in tenant.features_enabled
    with pytest.raises(dataclasses.FrozenInstanceError):
        tenant.tier = TenantTier.BASIC  # type: ignore[misc]  # on purpose


def test_a_policy_changes_the_weight_and_an_unknown_tier_has_no_features() -> None:
    heavy = TenantRecord("tenant-1", "Acme", "basic", b"{}", TenantStatus.ACTIVE, 0, None, b'{"weight":7}')
    assert tenant_view(heavy, PLANS).weight == 7
    gone = TenantRecord("tenant-1", "Acme", "gold", b"{}", TenantStatus.ACTIVE, 0)
    assert tenant_view(gone, PLANS).features_enabled == frozenset()


@pytest.mark.parametrize("field", ["weight", "throttle_percent"])
@pytest.mark.parametrize("value", [0, -1, 1_001, 1.5, "5", True])
def test_a_policy_that_makes_no_sense_is_refused_with_the_name_of_its_field(field: str, value: Any) -> None:
    with pytest.raises(InvalidRequest, match=field):
        TenantPolicy(**{field: value})


@pytest.mark.parametrize("value", ["basic", "BASIC", "Basic", TenantTier.BASIC])
def test_a_tier_is_known_by_its_name_in_any_case(value: str) -> None:
    assert check_tier(value, PLANS) == "basic"


@pytest.mark.parametrize("value", ["gold", "", None, 3, object()])
def test_an_unknown_tier_is_refused_and_the_known_ones_are_named(value: object) -> None:
    with pytest.raises(InvalidRequest, match="basic, professional, enterprise") as caught:
        check_tier(value, PLANS)
    assert caught.value.field == "tier"


def test_space_around_a_name_is_left_out() -> None:
    assert check_tenant_name("  Müller & Söhne \n") == "Müller & Söhne"


@pytest.mark.parametrize("name", ["", "  ", None, 7, b"Acme", "a\nb", "a\0b", "\ud800", "x" * (TENANT_NAME_MAX + 1)])
def test_a_name_that_cannot_be_shown_is_refused(name: object) -> None:
    with pytest.raises(InvalidRequest, match="tenant_name") as caught:
        check_tenant_name(name)
    assert caught.value.field == "tenant_name"


def test_a_name_may_be_as_long_as_the_limit() -> None:
    assert len(check_tenant_name("x" * TENANT_NAME_MAX)) == TENANT_NAME_MAX
