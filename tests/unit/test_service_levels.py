"""Service levels and health: figures that follow from counts alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synergymesh.domain.observability.health import Health, diagnose
from synergymesh.domain.observability.service_levels import service_level
from synergymesh.domain.observability.tallies import Tally


def tally(succeeded: int = 0, failed: int = 0, timeouts: int = 0, waits: int = 0) -> Tally:
    made = Tally()
    made.add("task.success", 0, succeeded, 0)
    made.add("task.failed", 0, failed, 0)
    made.add("task.timeout", 0, timeouts, 0)
    for _ in range(waits):
        made.wait.add(120_000_000)
    return made


def test_a_thousandth_of_a_thousand_is_one_failure_of_budget() -> None:
    level = service_level("30d", tally(999, 1), 99.9)
    assert level.budget == pytest.approx(1.0)
    assert level.budget_left == pytest.approx(0.0)
    assert level.burn_rate == pytest.approx(1.0)
    assert level.is_kept


def test_nothing_executed_keeps_every_promise() -> None:
    level = service_level("1h", tally(), 99.9)
    assert (level.success_percent, level.burn_rate, level.budget_left, level.is_kept) == (100.0, 0.0, 1.0, True)


def test_a_promise_of_everything_has_no_budget() -> None:
    assert service_level("1h", tally(5), 100.0).is_kept
    broken = service_level("1h", tally(5, 1), 100.0)
    assert (broken.is_kept, broken.budget_left) == (False, -1.0)
    assert broken.burn_rate > 1_000


@given(st.integers(0, 10_000), st.integers(0, 10_000), st.sampled_from([90.0, 99.0, 99.95]))
def test_a_level_is_kept_exactly_when_the_budget_is_not_overdrawn(succeeded: int, failed: int, target: float) -> None:
    level = service_level("24h", tally(succeeded, failed), target)
    assert level.is_kept == (level.budget_left >= -1e-9)
    assert level.burn_rate * level.budget == pytest.approx(failed)


def judge(counts: Tally, **now: int) -> Health:
    return diagnose(counts, running=0, waiting=0, sla_percent=99.0, suspended=False, **now).health


def test_health_follows_from_the_last_hour() -> None:
    assert judge(tally()) is Health.IDLE
    assert judge(tally(100)) is Health.HEALTHY
    assert judge(tally(95, 5)) is Health.DEGRADED
    assert judge(tally(40, 30, 30)) is Health.FAILING
    assert judge(tally(100), open_breakers=1) is Health.DEGRADED
    assert judge(tally(100, waits=100)) is Health.DEGRADED


def test_a_few_failures_say_nothing_about_a_share() -> None:
    assert judge(tally(1, 3)) is Health.HEALTHY


def test_a_suspended_tenant_says_so() -> None:
    found = diagnose(tally(), running=1, waiting=0, sla_percent=99.0, suspended=True)
    assert (found.health, found.reasons) == (Health.DEGRADED, ("it is suspended: nothing of it starts",))
