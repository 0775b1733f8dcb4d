"""Tallies count what dictionaries would, in a few bytes each, and give back what is recorded of them."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from synergymesh.domain.observability.histogram import bucket_of
from synergymesh.domain.observability.tallies import HISTOGRAMS, SUM_BUCKET, Cells, Tally

numbers = st.integers(0, 1_023)
changes = st.lists(st.tuples(numbers, st.integers(1, 1 << 40)), max_size=60)
small = st.lists(st.tuples(numbers, st.integers(1, 3)), max_size=60)
MEASURES = ("run.submitted", "retried", "run.success", "run.failed", "task.success", "task.failed", "task.cancelled")
counted = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(MEASURES), st.just(0), st.integers(1, 10**7), st.just(0)),
        st.tuples(
            st.sampled_from(sorted(HISTOGRAMS)), st.integers(0, 407), st.integers(1, 10**7), st.integers(0, 10**9)
        ),
        st.tuples(st.just("last_end"), st.just(0), st.just(1), st.integers(0, 10**18)),
    ),
    max_size=40,
)
Rows = list[tuple[str, int, int, int]]


def tally_of(rows: Rows) -> Tally:
    tally = Tally()
    for row in rows:
        tally.add(*row)
    return tally


def said(tally: Tally) -> tuple[object, ...]:
    histograms = (tally.duration, tally.wait, tally.run_duration)
    return tally.counts, [(each.counts, each.sum, each.count) for each in histograms], tally.last_end


@given(st.one_of(changes, small))
def test_cells_count_what_a_counter_counts(added: list[tuple[int, int]]) -> None:
    cells, counter = Cells(), Counter[int]()
    for number, count in added:
        cells.add(number, count)
        counter[number] += count
        assert cells.of(number) == counter[number]
    assert list(cells.items()) == sorted(counter.items())
    assert cells.total == counter.total()


def test_a_count_of_more_than_four_millions_keeps_all_others() -> None:
    cells = Cells()
    for number in (7, 3, 1_023, 0):
        cells.add(number, number + 1)
    cells.add(3, 5_000_000)
    cells.add(4, 1 << 50)
    assert list(cells.items()) == [(0, 1), (3, 5_000_004), (4, 1 << 50), (7, 8), (1_023, 1_024)]


@given(small, small)
def test_what_is_taken_away_is_gone_and_nothing_is_below_zero(
    kept: list[tuple[int, int]], more: list[tuple[int, int]]
) -> None:
    cells, counter = Cells(), Counter[int]()
    for number, count in kept:
        cells.add(number, count)
        counter[number] += count
    for number, count in more:
        cells.add(number, -count)
        counter[number] = max(0, counter[number] - count)
    assert list(cells.items()) == sorted((+counter).items())


@given(counted, counted)
def test_taking_away_undoes_a_merge(one: Rows, other: Rows) -> None:
    tally = tally_of(one)
    tally.merge(tally_of(other))
    tally.take_away(tally_of(other))
    assert said(tally)[:2] == said(tally_of(one))[:2]


@given(counted)
def test_what_is_recorded_of_a_tally_gives_the_same_one(rows: Rows) -> None:
    tally = tally_of(rows)
    keys = {(measure, bucket) for measure, bucket, _, _ in rows}
    keys |= {(measure, SUM_BUCKET) for measure, _ in keys if measure in HISTOGRAMS}
    again = tally_of([(*key, *tally.row(*key)) for key in sorted(keys)])
    assert said(again) == said(tally)
    assert said(tally.copy()) == said(tally)


def test_a_part_has_counts_and_waits_and_no_durations() -> None:
    tally = tally_of(
        [("task.success", 0, 10, 0), ("wait", 40, 10, 1_000), ("duration", 9, 10, 100), ("last_end", 0, 1, 7)]
    )
    half = Tally()
    half.add_part(tally, 0.5)
    assert half.counts == {"task.success": 5}
    assert (half.wait.counts, half.wait.sum) == ({40: 5}, 500)
    assert (half.duration.count, half.duration.sum, half.last_end) == (0, 0, 7)


def test_a_measure_that_is_not_known_is_left_out() -> None:
    tally = tally_of([("task.dreamt", 0, 1, 0), ("task.success", 0, 1, 0)])
    assert tally.counts == {"task.success": 1}


def test_the_mean_is_exact_although_buckets_are_not() -> None:
    tally = Tally()
    for microseconds in (1_000_003, 17, 5):
        tally.duration.add(microseconds)
    assert tally.duration.mean == (1_000_003 + 17 + 5) / 3
    assert tally.duration.counts[bucket_of(17)] == 1
