"""Which entries may be deleted: whole days that are over, what is sensitive later, and the chain still verifies."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synergymesh.domain.audit.forms import Gap, Head, canonical, chain_hashes, genesis_hash
from synergymesh.domain.audit.retention import DAY, GAPS_MAX, Pruned, Retention, plan_pruning
from synergymesh.domain.audit.verification import verify_chain

LOG, TENANT = "log-1", "tenant-a"
GENESIS = genesis_hash(LOG, TENANT)
RETENTION = Retention(days=90, sensitive_days=365)
NOW = 20_000 * DAY + DAY // 2

Entry = tuple[int, bytes, bytes, int, bool]


def chain(times: list[tuple[int, bool]]) -> list[Entry]:
    payloads = [
        canonical({"tenant_id": TENANT, "at": at, "n": number, "s": sensitive})
        for number, (at, sensitive) in enumerate(times, 1)
    ]
    hashes = chain_hashes(TENANT, 1, GENESIS, payloads)
    return [
        (number, hash_, payload, at, sensitive)
        for number, (hash_, payload, (at, sensitive)) in enumerate(zip(hashes, payloads, times, strict=True), 1)
    ]


def plan(rows: list[Entry], gaps: list[Gap], now: int = NOW, retention: Retention = RETENTION) -> list[Pruned]:
    light = [(number, hash_, at, sensitive) for number, hash_, _, at, sensitive in rows]
    return list(plan_pruning(light, GENESIS, gaps, retention, now))


def without(rows: list[Entry], gaps: list[Gap]) -> list[Entry]:
    return [row for row in rows if not any(gap.first <= row[0] <= gap.last for gap in gaps)]


def days_ago(days: float) -> int:
    return int(NOW - days * DAY)


def test_a_day_is_pruned_when_all_of_it_is_over_its_time() -> None:
    rows = chain([(days_ago(200), False), (days_ago(100), False), (days_ago(89), False)])
    planned = plan(rows, [])
    assert [[(gap.first, gap.last) for gap in each.gaps] for each in planned] == [[(1, 1)], [(2, 2)]]


@pytest.mark.parametrize(("at", "goes"), [(19_909 * DAY - 1, True), (19_909 * DAY, True), (19_910 * DAY, False)])
def test_the_last_day_that_goes_has_been_over_for_the_whole_time(at: int, goes: bool) -> None:
    assert bool(plan(chain([(at, False)]), [])) is goes


def test_what_is_sensitive_stays_when_the_rest_of_its_day_goes() -> None:
    rows = chain([(days_ago(100), number in (2, 5)) for number in range(1, 7)])
    (pruned,) = plan(rows, [])
    assert [(gap.first, gap.last) for gap in pruned.gaps] == [(1, 1), (3, 4), (6, 6)]
    later = NOW + 300 * DAY
    left = without(rows, list(pruned.gaps))
    (second,) = plan(left, list(pruned.gaps), later)
    assert [(gap.first, gap.last) for gap in second.gaps] == [(2, 2), (5, 5)]
    assert without(left, list(second.gaps)) == []


def test_an_entry_whose_clock_went_back_belongs_to_the_day_before_it() -> None:
    rows = chain([(days_ago(10), False), (days_ago(200), False)])
    assert plan(rows, []) == []


def test_a_sensitive_entry_is_never_kept_for_less_time_than_the_others() -> None:
    rows = chain([(days_ago(50), True)])
    assert plan(rows, [], retention=Retention(days=90, sensitive_days=10)) == []


def test_a_day_with_very_many_gaps_has_several_tombstones() -> None:
    rows = chain([(days_ago(100), number % 2 == 0) for number in range(2 * GAPS_MAX + 10)])
    planned = plan(rows, [])
    assert len(planned) == 2
    assert all(len(each.gaps) <= GAPS_MAX + 1 for each in planned)
    gaps = [gap for each in planned for gap in each.gaps]
    kept = [(number, hash_, payload) for number, hash_, payload, _, sensitive in rows if sensitive]
    assert verify_chain(LOG, TENANT, kept, gaps=gaps).finding is None


def going_of(gap: Gap, left: list[Entry]) -> list[int]:
    """Give what is left of a gap in the order in which it is deleted."""
    return [row[0] for row in reversed(left) if gap.first <= row[0] <= gap.last]


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.tuples(st.integers(0, 500), st.booleans()), max_size=30),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 30)), min_size=2, max_size=4),
)
def test_what_is_pruned_and_not_deleted_yet_is_not_pruned_again(
    ages: list[tuple[int, bool]], visits: list[tuple[int, int]]
) -> None:
    rows = chain([(days_ago(age), sensitive) for age, sensitive in sorted(ages, reverse=True)])
    gaps: list[Gap] = []
    left, planned = rows, []
    for visit, deleted in sorted(visits):
        now = NOW + visit * DAY
        new = [gap for each in plan(left, gaps, now) for gap in each.gaps]
        planned += [seq for gap in new for seq in range(gap.first, gap.last + 1)]
        gaps += new
        assert plan(left, gaps, now) == []
        going = [seq for gap in sorted(gaps, key=lambda gap: gap.first) for seq in going_of(gap, left)]
        left = [row for row in left if row[0] not in going[:deleted]]
        report = verify_chain(LOG, TENANT, [row[:3] for row in left], gaps=gaps)
        assert report.finding is None
    assert len(planned) == len(set(planned))
    assert set(planned) == {row[0] for row in rows} - {row[0] for row in without(rows, gaps)}


def test_a_chain_with_a_hole_is_not_pruned() -> None:
    rows = chain([(days_ago(100), False)] * 4)
    with pytest.raises(ValueError, match=r"tombstone"):
        plan([rows[0], rows[3]], [])


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.tuples(st.integers(0, 500), st.booleans()), max_size=30),
    st.lists(st.integers(0, 400), max_size=3),
)
def test_a_chain_that_was_pruned_time_and_again_still_verifies(ages: list[tuple[int, bool]], visits: list[int]) -> None:
    rows = chain([(days_ago(age), sensitive) for age, sensitive in sorted(ages, reverse=True)])
    head = Head(TENANT, len(rows), rows[-1][1] if rows else GENESIS)
    pins = {row[0]: row[1] for row in rows[::3]}
    gaps: list[Gap] = []
    left = rows
    for visit in sorted(visits):
        now = NOW + visit * DAY
        new = [gap for each in plan(left, gaps, now) for gap in each.gaps]
        gaps += new
        kept = without(left, new)
        for _, _, _, at, sensitive in set(left) - set(kept):
            assert now - at > (365 if sensitive else 90) * DAY
        left = kept
    report = verify_chain(LOG, TENANT, [row[:3] for row in left], pins=pins, gaps=gaps, recorded=head if rows else None)
    assert report.finding is None
    assert report.pruned == len(rows) - len(left)
