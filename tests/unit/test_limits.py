"""Rates, the rolling hour and the limits themselves, on every interval and with every clock."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synergymesh.domain.instants import SECOND, Instant
from synergymesh.domain.quota import QUOTA_FIELD_MAX, ResourceQuota
from synergymesh.domain.scheduling.limits import (
    MINUTE,
    WINDOW_MINUTES,
    Capacity,
    CohortShare,
    Limits,
    Request,
    RollingHour,
    SubmissionRate,
    limits_of,
)
from synergymesh.errors import InvalidRequest

HOUR = 3_600 * SECOND
steps = st.lists(st.integers(0, 3 * SECOND), min_size=1, max_size=120)


# --- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["max_concurrent", "memory_mb", "cpu_millis", "per_hour"])
@pytest.mark.parametrize("value", [0, -1, 1.5, float("nan"), True, "5", QUOTA_FIELD_MAX + 1])
def test_a_limit_that_is_no_sensible_whole_number_is_refused_by_name(field: str, value: Any) -> None:
    figures: dict[str, Any] = {"max_concurrent": 1, "memory_mb": 1, "cpu_millis": 1, "per_hour": 1}
    with pytest.raises(InvalidRequest, match=field):
        Limits(**(figures | {field: value}))
    assert Limits(**(figures | {field: QUOTA_FIELD_MAX}))


def test_the_cpu_limit_of_a_quota_is_a_percentage_of_the_whole_capacity() -> None:
    limits = limits_of(ResourceQuota(max_cpu_percent=50), Capacity(8, 1_024, 3_000))
    assert limits.cpu_millis == 1_500
    assert limits_of(ResourceQuota(max_cpu_percent=1), Capacity(1, 1, 10)).cpu_millis == 1


def test_a_task_that_asks_for_more_than_the_whole_quota_is_not_admitted() -> None:
    limits = Limits(max_concurrent=1, memory_mb=100, cpu_millis=500)
    assert limits.admits(Request(100, 500))
    assert not limits.admits(Request(101, 1))
    assert not limits.admits(Request(1, 501))


def test_the_ceiling_of_a_sub_tenant_is_its_nominal_share_and_what_it_may_borrow() -> None:
    limits = Limits(max_concurrent=10, memory_mb=1_000, cpu_millis=9_000)
    nominal = Capacity(4, 400, 4_000)
    assert CohortShare(nominal=nominal).ceiling(limits) == (10, 1_000, 9_000)
    assert CohortShare(nominal=nominal, borrowing=Capacity(2, 0, 9_000)).ceiling(limits) == (6, 400, 9_000)
    assert CohortShare(nominal=nominal).guaranteed() == (0, 0, 0)
    assert CohortShare(nominal=nominal, lending=Capacity(1, 400, 4_000)).guaranteed() == (3, 0, 0)


@pytest.mark.parametrize("figure", ["nominal", "borrowing", "lending"])
@pytest.mark.parametrize("value", [(1, 2), (1, 2, 3), "half", 5])
def test_a_share_whose_figures_are_no_capacity_is_refused_with_its_name(figure: str, value: Any) -> None:
    figures = {"nominal": Capacity(1, 1, 1), figure: value}
    with pytest.raises(InvalidRequest, match=f"share.{figure} must be a Capacity") as caught:
        CohortShare(**figures)
    assert caught.value.field == f"share.{figure}"


@pytest.mark.parametrize("figure", ["nominal", "borrowing", "lending"])
@pytest.mark.parametrize("part", ["slots", "memory_mb", "cpu_millis"])
@pytest.mark.parametrize("value", [-1, QUOTA_FIELD_MAX + 1, 1.5, float("nan"), None, True, "5"])
def test_a_share_that_makes_no_sense_is_refused_with_its_name(figure: str, part: str, value: Any) -> None:
    figures = {"nominal": Capacity(1, 1, 1), figure: Capacity(1, 1, 1)._replace(**{part: value})}
    with pytest.raises(InvalidRequest, match=rf"share.{figure}.{part} must be a whole number") as caught:
        CohortShare(**figures)
    assert caught.value.field == f"share.{figure}.{part}"


def test_no_more_is_lent_than_there_is_and_something_can_run() -> None:
    with pytest.raises(InvalidRequest, match=r"share\.lending is a part of share\.nominal"):
        CohortShare(nominal=Capacity(1, 1, 1), lending=Capacity(1, 2, 1))
    with pytest.raises(InvalidRequest, match="have no slot together"):
        CohortShare(nominal=Capacity(0, 5, 5), borrowing=Capacity(0, 5, 5))
    assert CohortShare(nominal=Capacity(0, 0, 0)).borrowing is None  # it lives on what the others leave


# --- submissions per second -------------------------------------------------------------------------------------------


@given(per_second=st.integers(1, 50), burst=st.integers(1, 60), steps=steps)
@settings(max_examples=100)
def test_no_interval_admits_more_than_the_burst_and_the_rate(per_second: int, burst: int, steps: list[int]) -> None:
    rate = SubmissionRate(per_second, burst)
    now = 10**18
    admitted: list[Instant] = []
    for step in steps:
        now += step
        if not rate.admit(now):
            admitted.append(now)
    for i, first in enumerate(admitted):
        for j in range(i, len(admitted)):
            assert (j - i + 1 - burst) * SECOND <= per_second * (admitted[j] - first)


@given(per_second=st.integers(1, 1_000), burst=st.integers(1, 20), late=st.integers(0, SECOND))
def test_waiting_for_as_long_as_told_succeeds_and_a_nanosecond_less_does_not(
    per_second: int, burst: int, late: int
) -> None:
    rate = SubmissionRate(per_second, burst)
    now = 10**18
    for _ in range(burst):
        assert rate.admit(now) == 0
    now += late % (SECOND // per_second)
    wait = rate.retry_after(now)
    assert wait > 0
    assert rate.retry_after(now) == wait, "asking takes nothing"
    assert rate.retry_after(now + wait - 1) == 1
    assert rate.admit(now + wait) == 0


def test_the_eleventh_submission_in_a_second_is_refused() -> None:
    rate = SubmissionRate(10)
    assert [rate.admit(10**18) for _ in range(11)] == [0] * 10 + [SECOND // 10]


@given(
    per_second=st.integers(1, 20),
    burst=st.integers(1, 20),
    steps=st.lists(st.tuples(st.integers(0, SECOND), st.integers(0, 100 * SECOND)), min_size=1, max_size=60),
)
@settings(max_examples=100)
def test_a_clock_that_steps_back_never_admits_more(per_second: int, burst: int, steps: list[tuple[int, int]]) -> None:
    """In true time, which goes on evenly whatever the clock shows."""
    rate = SubmissionRate(per_second, burst)
    true_time, shift = 0, 10**18
    admitted: list[int] = []
    for step, back in steps:
        true_time += step
        shift -= back if back > 90 * SECOND else 0
        if not rate.admit(true_time + shift):
            admitted.append(true_time)
    for i, first in enumerate(admitted):
        for j in range(i, len(admitted)):
            assert (j - i + 1 - burst) * SECOND <= per_second * (admitted[j] - first)


def test_after_a_step_back_of_an_hour_submissions_go_on_within_a_moment() -> None:
    rate = SubmissionRate(10)
    rate.admit(10**18)
    wait = rate.admit(10**18 - HOUR)
    assert 0 < wait <= SECOND // 10
    assert rate.admit(10**18 - HOUR + wait) == 0


def test_a_changed_rate_keeps_what_was_used_of_the_burst() -> None:
    rate = SubmissionRate(10)
    now = 10**18
    for _ in range(10):
        rate.take(now)
    rate.set_rate(20, None, now)
    assert [rate.admit(now) > 0 for _ in range(11)] == [False] * 10 + [True]
    rate.set_rate(2, 2, now)
    assert rate.retry_after(now) == SECOND // 2


@pytest.mark.parametrize(("per_second", "burst"), [(0, 1), (-1, 1), (1, 0)])
def test_a_rate_below_one_is_refused(per_second: int, burst: int) -> None:
    with pytest.raises(InvalidRequest):
        SubmissionRate(per_second, burst)


# --- starts per hour --------------------------------------------------------------------------------------------------


class Ledger:
    """What a store keeps of a rolling hour."""

    def __init__(self, limit: int) -> None:
        self.hour = RollingHour(limit)
        self.rows: dict[int, int] = {}
        self.starts: list[Instant] = []

    def start(self, now: Instant) -> bool:
        """Start a task if that is allowed, after writing down what has to be."""
        reservation = self.hour.needs_reservation(now)
        if reservation is not None:
            self.rows.update(reservation.rows)
            self.hour.reserved(reservation)
        if not self.hour.take(now):
            return False
        self.starts.append(now)
        return True

    def crash(self) -> None:
        limit = self.hour.limit
        self.hour = RollingHour(limit)
        self.hour.restore(self.rows.items())


def most_in_an_hour(starts: list[Instant]) -> int:
    return max((sum(end - HOUR < s <= end for s in starts) for end in starts), default=0)


@given(
    limit=st.sampled_from([1, 3, 10, 250]),
    steps=st.lists(
        st.tuples(st.integers(0, 12 * MINUTE), st.integers(1, 40), st.sampled_from([False, False, False, True])),
        min_size=1,
        max_size=40,
    ),
)
@settings(max_examples=80)
def test_no_rolling_hour_has_more_starts_than_the_limit_whatever_crashes(
    limit: int, steps: list[tuple[int, int, bool]]
) -> None:
    ledger = Ledger(limit)
    now = 10**18
    for step, tries, crashes in steps:
        now += step
        for _ in range(tries):
            ledger.start(now)
        if crashes:
            ledger.crash()
        written = sum(n for m, n in ledger.rows.items() if m > now // MINUTE - WINDOW_MINUTES)
        used = sum(1 for s in ledger.starts if s // MINUTE > now // MINUTE - WINDOW_MINUTES)
        assert written >= used
    assert most_in_an_hour(ledger.starts) <= limit


def test_the_next_room_is_true_and_a_nanosecond_earlier_there_is_none() -> None:
    ledger = Ledger(5)
    now = 10**18
    while ledger.start(now):
        now += SECOND
    room_at = ledger.hour.next_room(now)
    assert now < room_at <= now + HOUR + 2 * MINUTE
    assert not ledger.start(room_at - 1)
    assert ledger.start(room_at)


def test_an_hour_is_used_to_the_full_without_a_crash() -> None:
    ledger = Ledger(1_000)
    now = 10**18 // HOUR * HOUR
    for i in range(3_000):
        ledger.start(now + i * SECOND)
    assert len(ledger.starts) == 1_000


def test_a_crash_wastes_no_more_than_a_chunk_and_a_half() -> None:
    ledger = Ledger(1_000)
    now = 10**18
    for _ in range(37):
        assert ledger.start(now)
    ledger.crash()
    more = 0
    while ledger.start(now):
        more += 1
    assert 1_000 - 37 - 15 <= more < 1_000 - 37


@pytest.mark.parametrize(
    ("limit", "chunk"), [(1, 1), (19, 1), (39, 1), (40, 2), (80, 4), (100, 4), (499, 4), (500, 5), (5_000, 50)]
)
def test_a_chunk_is_a_hundredth_but_not_so_small_that_each_start_waits_for_a_commit(limit: int, chunk: int) -> None:
    assert RollingHour(limit).chunk == chunk


@given(limit=st.integers(1, 3_000), starts=st.integers(0, 3_000))
def test_a_crash_wastes_at_most_a_small_part_of_any_limit(limit: int, starts: int) -> None:
    ledger = Ledger(limit)
    now = 10**18
    used = sum(ledger.start(now) for _ in range(min(starts, limit)))
    ledger.crash()
    lost = limit - used - sum(ledger.start(now) for _ in range(limit))
    assert 0 <= lost <= max(1, limit * 75 // 1_000)


def test_in_a_small_hour_the_next_starts_are_written_down_while_the_last_ones_are_used() -> None:
    hour = RollingHour(100)
    now = 10**18
    reservation = hour.needs_reservation(now)
    assert reservation is not None
    hour.reserved(reservation)
    assert [hour.take(now), hour.take(now)] == [True, True]
    following = hour.needs_reservation(now)
    assert following is not None
    assert [hour.take(now), hour.take(now), hour.take(now)] == [True, True, False]
    hour.reserved(following)
    assert hour.take(now)


@given(
    per_second=st.integers(1, 50),
    burst=st.integers(1, 50),
    steps=st.lists(st.integers(-2 * SECOND, 2 * SECOND), max_size=60),
)
def test_admitting_is_asking_and_then_taking(per_second: int, burst: int, steps: list[int]) -> None:
    one, other = SubmissionRate(per_second, burst), SubmissionRate(per_second, burst)
    now = 10**18
    for step in steps:
        now += step
        wait = other.retry_after(now)
        if not wait:
            other.take(now)
        assert one.admit(now) == wait
        assert one.retry_after(now) == other.retry_after(now)


def test_what_was_not_used_of_a_chunk_is_given_back_in_a_later_minute() -> None:
    ledger = Ledger(1_000)
    now = 10**18
    assert ledger.start(now)
    assert ledger.rows == {now // MINUTE: 10}
    assert ledger.start(now + MINUTE)
    assert ledger.rows == {now // MINUTE: 1, now // MINUTE + 1: 10}


def test_a_reservation_that_comes_too_late_or_not_at_all_is_of_no_use() -> None:
    hour = RollingHour(100)
    now = 10**18
    reservation = hour.needs_reservation(now)
    assert reservation is not None
    assert hour.needs_reservation(now) is None, "one is on its way"
    assert not hour.take(now)
    hour.turn(now + MINUTE)
    hour.reserved(reservation)
    assert not hour.take(now + MINUTE)
    again = hour.needs_reservation(now + MINUTE)
    assert again is not None
    assert dict(again.rows) == {now // MINUTE: 0, now // MINUTE + 1: 4}
    hour.not_reserved(again)
    assert not hour.take(now + MINUTE)
    assert hour.needs_reservation(now + MINUTE) is not None


def test_a_limit_lowered_below_what_has_started_starts_nothing_until_there_is_room() -> None:
    ledger = Ledger(300)
    now = 10**18
    for _ in range(50):
        assert ledger.start(now)
    ledger.hour.set_limit(20)
    assert not ledger.start(now)
    room_at = ledger.hour.next_room(now)
    assert room_at > now
    assert ledger.start(room_at)
    ledger.hour.set_limit(300)
    assert ledger.start(room_at)


def test_a_clock_that_steps_back_stands_still_in_the_hour() -> None:
    ledger = Ledger(3)
    now = 10**18
    assert all(ledger.start(now) for _ in range(3))
    for back in (SECOND, MINUTE, 2 * HOUR):
        assert not ledger.start(now - back)
    assert ledger.hour.rows() == [(now // MINUTE, 3)]


def test_a_restored_hour_does_not_count_what_is_older_than_the_window() -> None:
    hour = RollingHour(2)
    hour.restore([(100, 1), (100 + WINDOW_MINUTES, 1)])
    now = (100 + WINDOW_MINUTES) * MINUTE
    assert hour.spent == 1
    assert hour.next_room(now) == now
