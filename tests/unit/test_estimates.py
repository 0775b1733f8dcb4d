"""Learnt durations."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from synergymesh.domain.scheduling.estimates import COMPONENTS_MAX, Estimates


def test_what_was_declared_counts_until_a_first_task_ended() -> None:
    estimates = Estimates()
    assert estimates.get("a", 500) == 500
    assert "a" not in estimates
    estimates.learn("a", 90_000)
    assert estimates.get("a", 500) == 90_000
    assert "a" in estimates
    assert estimates.get("b", 500) == 500


def test_after_ten_tasks_of_another_length_the_estimate_has_gone_most_of_the_way() -> None:
    estimates = Estimates({"a": 1_000_000})
    for _ in range(10):
        estimates.learn("a", 2_000_000)
    assert 1_700_000 < estimates.get("a", 0) < 1_800_000


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=50))
def test_an_estimate_stays_between_the_shortest_and_the_longest_task(durations: list[int]) -> None:
    estimates = Estimates()
    for duration in durations:
        estimates.learn("a", duration)
        assert min(durations) <= estimates.get("a", -1) <= max(durations)


def test_no_more_components_are_kept_than_the_limit_the_first_is_forgotten() -> None:
    estimates = Estimates()
    for i in range(COMPONENTS_MAX):
        estimates.learn(i, 1)
    assert len(estimates) == COMPONENTS_MAX
    assert 0 in estimates
    estimates.learn("one more", 1)
    assert len(estimates) == COMPONENTS_MAX
    assert 0 not in estimates


def test_estimates_come_back_from_what_was_stored() -> None:
    estimates = Estimates()
    estimates.learn(("workflow", 3), 700)
    assert Estimates(estimates).get(("workflow", 3), 0) == 700
