"""Histograms: every duration has one bucket, and a percentile is right within its width."""

import math

from hypothesis import given
from hypothesis import strategies as st

from synergymesh.domain.observability.histogram import VALUE_MAX, bounds_of, bucket_of, percentiles

durations = st.integers(0, VALUE_MAX)


@given(durations)
def test_a_duration_lies_in_its_bucket(microseconds: int) -> None:
    low, high = bounds_of(bucket_of(microseconds))
    assert low <= microseconds < high
    assert high - low <= max(1, low // 8)


@given(durations, durations)
def test_a_longer_duration_never_has_a_lower_bucket(one: int, other: int) -> None:
    assert (bucket_of(min(one, other))) <= bucket_of(max(one, other))


@given(st.integers(0, 400))
def test_every_bucket_is_the_bucket_of_its_bounds(bucket: int) -> None:
    low, high = bounds_of(bucket)
    if low > VALUE_MAX:
        return
    assert bucket_of(low) == bucket
    assert bucket_of(high) == (bucket + 1 if high <= VALUE_MAX else bucket_of(VALUE_MAX))


def test_what_lies_outside_counts_as_the_nearest() -> None:
    assert bucket_of(-5) == bucket_of(0) == 0
    assert bucket_of(VALUE_MAX * 3) == bucket_of(VALUE_MAX)


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=200), st.sampled_from([0, 1, 50, 95, 99, 100]))
def test_a_percentile_is_that_of_the_sorted_durations_within_six_percent(values: list[int], percent: int) -> None:
    counts: dict[int, int] = {}
    for value in values:
        counts[bucket_of(value)] = counts.get(bucket_of(value), 0) + 1
    exact = sorted(values)[max(1, math.ceil(len(values) * percent / 100)) - 1]
    (found,) = percentiles(counts, [percent])
    assert abs(found - exact) <= exact / 16 + 0.5


def test_nothing_has_percentiles_of_zero() -> None:
    assert percentiles({}, [50, 99]) == [0.0, 0.0]
