"""Circuit breakers and retry budgets beside simple models of them."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synergymesh.domain.fault_tolerance.breaker import BUCKETS, WAVE_MAX, Breaker, BreakerPolicy, BreakerState
from synergymesh.domain.fault_tolerance.breaker_rules import (
    NAMED_DEFAULT,
    BreakerRule,
    change_breaker_rules,
    check_breaker_place,
    policy_for,
)
from synergymesh.domain.fault_tolerance.retry_budget import BURST_MIN, BURST_SECONDS, RetryBudget
from synergymesh.domain.fault_tolerance.retry_rules import RULES_MAX
from synergymesh.domain.instants import SECOND
from synergymesh.errors import InvalidRequest

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
START = 1_700_000_000 * SECOND

policies = st.builds(
    BreakerPolicy,
    failure_percent=st.integers(1, 100),
    minimum_calls=st.integers(1, 12),
    window_seconds=st.integers(1, 40),
    open_seconds=st.integers(1, 30),
    open_seconds_max=st.integers(30, 100),
    canaries=st.integers(1, WAVE_MAX),
)
events = st.lists(st.tuples(st.integers(0, 5 * SECOND), st.booleans()), max_size=80)


def opened(policy: BreakerPolicy | None = None) -> Breaker:
    """Give a breaker that has just opened at START."""
    breaker = Breaker(policy or BreakerPolicy(minimum_calls=1, open_seconds=30))
    assert breaker.record(failed=True, started_at=START, now=START, dice=0.0)
    assert breaker.state is OPEN
    return breaker


class Model:
    """The simplest closed breaker: it remembers every attempt."""

    def __init__(self, policy: BreakerPolicy) -> None:
        self.policy = policy
        self.attempts: list[tuple[int, bool]] = []

    def opens(self, failed: bool, now: int) -> bool:
        width = Fraction(self.policy.window_seconds * SECOND, BUCKETS)
        self.attempts.append((now, failed))
        oldest = now // width - BUCKETS
        counted = [bad for at, bad in self.attempts if at // width > oldest]
        share = Fraction(sum(counted), len(counted))
        return failed and len(counted) >= self.policy.minimum_calls and share * 100 >= self.policy.failure_percent


@given(policies, events)
def test_a_closed_breaker_opens_exactly_when_the_share_of_failures_in_its_window_is_too_high(
    policy: BreakerPolicy, script: list[tuple[int, bool]]
) -> None:
    breaker, model, now = Breaker(policy), Model(policy), START
    for step, failed in script:
        now += step
        opens = model.opens(failed, now)
        assert breaker.record(failed=failed, started_at=now, now=now, dice=0.0) is opens
        if opens:
            assert (breaker.state, breaker.since, breaker.until) == (OPEN, now, now + policy.open_seconds * SECOND)
            return
        assert breaker.state is CLOSED


@given(policies, st.lists(st.booleans(), max_size=300))
def test_a_half_open_breaker_lets_waves_in_that_double_and_closes_after_the_last_or_opens_again(
    policy: BreakerPolicy, outcomes: list[bool]
) -> None:
    policy = BreakerPolicy(**{f: getattr(policy, f) for f in policy.__slots__} | {"minimum_calls": 1})
    breaker = opened(policy)
    now = breaker.until
    assert breaker.wake(now)
    wave, passed, failed = policy.canaries, 0, 0
    for bad in outcomes:
        assert (breaker.state, breaker.wave, breaker.wave_left) == (HALF_OPEN, wave, wave - passed - failed)
        now += 1
        changed = breaker.record(failed=bad, started_at=now, now=now, dice=0.0)
        passed, failed = passed + (not bad), failed + bad
        if bad and 100 * failed >= policy.failure_percent * wave:
            assert changed
            assert breaker.state is OPEN
            assert breaker.trips == 2
            return
        assert changed is (passed + failed == wave)
        if changed and wave == WAVE_MAX:
            assert (breaker.state, breaker.trips, breaker.counts(now)) == (CLOSED, 0, (0, 0))
            return
        if changed:
            wave, passed, failed = min(2 * wave, WAVE_MAX), 0, 0


@given(st.integers(1, 100), st.integers(0, 900), st.integers(1, 30), st.floats(0, 1, exclude_max=True))
def test_an_open_breaker_waits_twice_as_long_each_time_up_to_its_limit(
    seconds: int, more: int, times: int, dice: float
) -> None:
    policy = BreakerPolicy(minimum_calls=1, open_seconds=seconds, open_seconds_max=seconds + more)
    breaker = Breaker(policy)
    now = START
    breaker.record(failed=True, started_at=now, now=now, dice=dice)
    for turn in range(times):
        length = min(seconds * 2**turn, seconds + more) * SECOND
        assert length <= breaker.until - breaker.since <= length + length // 10
        assert not breaker.wake(breaker.until - 1)
        now = breaker.until
        assert breaker.wake(now)
        assert breaker.record(failed=True, started_at=now, now=now, dice=dice)


def test_what_started_before_a_change_says_nothing_about_the_time_after_it() -> None:
    breaker = opened()
    assert not breaker.record(failed=False, started_at=START - 1, now=START + 1, dice=0.0)
    assert not breaker.record(failed=False, started_at=START + 1, now=START + 1, dice=0.0)  # stale by its state
    assert breaker.wake(breaker.until)
    for failed in (True, False):
        assert not breaker.record(failed=failed, started_at=breaker.since - 1, now=breaker.since + 1, dice=0.0)
    assert breaker.wave_left == 1


def test_a_clock_that_goes_back_forgets_nothing() -> None:
    breaker = Breaker(BreakerPolicy(minimum_calls=3, failure_percent=100))
    breaker.record(failed=True, started_at=START, now=START, dice=0.0)
    breaker.record(failed=True, started_at=START, now=START - 3_600 * SECOND, dice=0.0)
    assert breaker.counts(START) == (2, 2)
    assert not breaker.is_quiet(START)
    assert breaker.is_quiet(START + 61 * SECOND)


def test_a_stored_breaker_goes_on_where_it_was() -> None:
    policy = BreakerPolicy()
    breaker = Breaker.restore(policy, OPEN, START, START + 60 * SECOND, 3, 0, now=START)
    assert not breaker.wake(START + 59 * SECOND)
    assert breaker.wake(START + 60 * SECOND)
    breaker.record(failed=True, started_at=START + 60 * SECOND, now=START + 60 * SECOND, dice=0.0)
    assert breaker.until - breaker.since == 240 * SECOND
    half = Breaker.restore(policy, HALF_OPEN, START, 0, 1, 8, now=START)
    assert half.wave_left == 8


def test_another_policy_counts_at_once() -> None:
    breaker = Breaker(BreakerPolicy(minimum_calls=100))
    for _ in range(10):
        assert not breaker.record(failed=True, started_at=START, now=START, dice=0.0)
    breaker.change_policy(BreakerPolicy(minimum_calls=11))
    assert breaker.record(failed=True, started_at=START, now=START, dice=0.0)
    breaker.change_policy(BreakerPolicy(window_seconds=5))
    assert breaker.counts(START) == (0, 0)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("failure_percent", [0, 101, 50.0, "50", True, None]),
        ("minimum_calls", [0, 1_000_001]),
        ("window_seconds", [0, 86_401, 1.5]),
        ("open_seconds", [0, 86_401]),
        ("open_seconds_max", [0, 86_401, 29]),
        ("canaries", [0, WAVE_MAX + 1]),
        ("retry_percent", [-1, 1_001]),
        ("retries_per_minute", [0, 1_000_001]),
    ],
)
def test_a_field_of_a_policy_outside_its_range_is_refused_with_its_name(field: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(InvalidRequest, match=field) as caught:
            BreakerPolicy(**{field: value})
        assert caught.value.field == field


# --- budgets --------------------------------------------------------------------------------------------------------

steps = st.lists(st.tuples(st.integers(0, 30 * SECOND), st.sampled_from(["attempt", "retry"])), max_size=80)


@given(st.integers(0, 300), st.integers(1, 3_000), steps)
def test_a_budget_covers_what_a_bucket_of_tokens_with_exact_fractions_covers(
    percent: int, per_minute: int, script: list[tuple[int, str]]
) -> None:
    now = START
    budget = RetryBudget(retry_percent=percent, retries_per_minute=per_minute, now=now)
    most = Fraction(max(BURST_MIN, per_minute * BURST_SECONDS // 60))
    tokens = most
    rate = Fraction(per_minute, 60 * SECOND)
    for step, verb in script:
        now += step
        tokens = min(most, tokens + step * rate)
        assert budget.is_full(now) == (tokens == most)
        if verb == "attempt":
            tokens = min(most, tokens + Fraction(percent, 100))
            budget.attempted(now)
            continue
        tokens -= 1
        at = budget.retry_at(now)
        if tokens >= 0:
            assert at == now
        else:
            exact = now - tokens / rate
            assert exact <= at < exact + 1


@given(st.integers(0, 100), st.integers(1, 600), st.integers(1, 400))
def test_retries_beside_no_other_attempt_never_exceed_the_reserve(percent: int, per_minute: int, retries: int) -> None:
    budget = RetryBudget(retry_percent=percent, retries_per_minute=per_minute, now=START)
    moments = [budget.retry_at(START) for _ in range(retries)]
    assert moments == sorted(moments)
    burst = max(BURST_MIN, per_minute * BURST_SECONDS // 60)
    for minutes in range(1, 5):
        due = sum(moment <= START + minutes * 60 * SECOND for moment in moments)
        assert due <= burst + minutes * per_minute


def test_a_clock_that_goes_back_gives_no_retries() -> None:
    budget = RetryBudget(retry_percent=0, retries_per_minute=60, now=START)
    for _ in range(BURST_MIN):
        assert budget.retry_at(START) == START
    assert budget.retry_at(START - 3_600 * SECOND) > START - 3_600 * SECOND
    assert budget.retry_at(START) == START + 2 * SECOND


# --- whose policy ---------------------------------------------------------------------------------------------------


def rule(calls: int, **place: str) -> BreakerRule:
    return BreakerRule(policy=BreakerPolicy(minimum_calls=calls), **place)


def test_the_most_specific_breaker_policy_counts_and_a_component_without_one_has_none() -> None:
    own = [rule(1, workflow="w", component="a"), rule(2, workflow="w"), rule(3, breaker="api")]
    parent = [rule(4), rule(5, workflow="v", component="a"), rule(6, breaker="bank")]

    def calls(workflow: str, name: str, *chain: list[BreakerRule]) -> int | None:
        found = policy_for((workflow, name), chain, None)
        return None if found is None else found.minimum_calls

    assert calls("w", "a", own, parent) == 1
    assert calls("w", "b", own, parent) == 2
    assert calls("v", "a", own, parent) == 5
    assert calls("u", "a", own, parent) == 4
    assert calls("u", "a", own) is None
    assert calls("", "api", own, parent) == 3
    assert calls("", "bank", own, parent) == 6
    assert calls("", "other", own, parent) == 4
    assert policy_for(("", "other"), [own], None) is NAMED_DEFAULT
    assert policy_for(("u", "a"), [], NAMED_DEFAULT) is NAMED_DEFAULT


def test_places_of_breakers_are_checked_and_rules_are_limited() -> None:
    for place in (("api", "w", None), (None, None, "a"), ("", None, None), (7, None, None)):
        with pytest.raises(InvalidRequest):
            check_breaker_place(*place)
    rules = tuple(rule(1, breaker=f"b{n}") for n in range(RULES_MAX))
    assert len(change_breaker_rules(rules, ("b1", None, None), BreakerPolicy())) == RULES_MAX
    assert len(change_breaker_rules(rules, ("b1", None, None), None)) == RULES_MAX - 1
    with pytest.raises(InvalidRequest, match="1,000"):
        change_breaker_rules(rules, ("more", None, None), BreakerPolicy())


@given(
    st.sampled_from([OPEN, HALF_OPEN]),
    st.integers(0, 86_400),
    st.integers(-2 * 86_400, 2 * 86_400),
    st.integers(0, WAVE_MAX),
)
def test_a_stored_circuit_is_open_for_no_longer_than_it_was_to_be_wherever_the_clock_was_set(
    state: BreakerState, open_seconds: int, set_by: int, wave: int
) -> None:
    until = START + open_seconds * SECOND
    now = START + set_by * SECOND
    breaker = Breaker.restore(BreakerPolicy(), state, START, until, 1, wave, now=now)
    assert breaker.until <= until
    assert breaker.until - now <= open_seconds * SECOND
    assert breaker.since <= now, "what starts from now on says something about it"
    if state is OPEN and set_by >= 0:
        assert (breaker.since, breaker.until) == (START, until)
