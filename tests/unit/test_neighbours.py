"""The noisy-neighbour watch."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from synergymesh.domain.instants import SECOND
from synergymesh.domain.scheduling.limits import MINUTE
from synergymesh.domain.scheduling.neighbours import MINUTES, NeighbourWatch, _end_of, _step_of

NOW = 10**18 // MINUTE * MINUTE


def test_a_tenant_with_more_than_its_share_is_noisy_while_another_waits_longer() -> None:
    watch = NeighbourWatch()
    for _ in range(90):
        watch.started("flood", SECOND, 10, NOW)
    for _ in range(10):
        watch.started("victim", 5 * SECOND, 10, NOW)
    flood, victim = watch.report({"flood": 1, "victim": 1}, NOW)
    assert (flood.tenant_id, flood.share, flood.fair_share, flood.score) == ("flood", 900_000, 500_000, 180)
    assert flood.noisy
    assert not victim.noisy
    assert (flood.starts, victim.starts, victim.score) == (90, 10, 20)


def test_using_what_nobody_else_wants_is_not_noise() -> None:
    watch = NeighbourWatch()
    for _ in range(90):
        watch.started("large", 5 * SECOND, 10, NOW)
    watch.started("small", SECOND, 10, NOW)
    assert not any(neighbour.noisy for neighbour in watch.report({"large": 1, "small": 1}, NOW))
    alone = NeighbourWatch()
    alone.started("one", SECOND, 10, NOW)
    assert [n.score for n in alone.report({"one": 4}, NOW)] == [100]


def test_what_is_left_over_by_those_who_want_less_may_be_taken_by_the_others_without_noise() -> None:
    """Two tenants share what a large one does not want; each waits now and then behind the other."""
    watch = NeighbourWatch()
    for wait, tenant_id in ((8, "b"), (7, "c")):
        for _ in range(40):
            watch.started(tenant_id, wait * SECOND, 10, NOW)
    for _ in range(20):
        watch.started("large", 1_000, 10, NOW)
    found = {n.tenant_id: n for n in watch.report({"large": 16, "b": 4, "c": 4}, NOW)}
    assert found["c"].score >= 150
    assert not any(n.noisy for n in found.values())


def test_the_weight_decides_what_is_due() -> None:
    watch = NeighbourWatch()
    watch.started("a", 0, 1_600, NOW)
    watch.started("b", 0, 100, NOW)
    assert [n.score for n in watch.report({"a": 16, "b": 1}, NOW)] == [100, 100]


def test_minutes_long_past_and_tenants_that_have_gone_do_not_count() -> None:
    watch = NeighbourWatch()
    watch.started("a", 0, 10, NOW)
    watch.corrected("a", 5, NOW)
    assert watch.report({"a": 1}, NOW + (MINUTES - 1) * MINUTE)[0].served == 15
    assert watch.report({"b": 1}, NOW) == []
    assert watch.report({"a": 1}, NOW + MINUTES * MINUTE) == []
    assert watch.tenants(NOW + MINUTES * MINUTE) == set()


def test_a_task_that_runs_for_long_goes_on_counting_for_its_tenant() -> None:
    watch = NeighbourWatch()
    watch.started("long", 0, 10, NOW)
    later = NOW + 2 * MINUTES * MINUTE
    watch.corrected("long", 60, later)
    watch.started("short", 7, 20, later)
    assert watch.tenants(later) == {"long", "short"}
    long, short = watch.report({"long": 1, "short": 1}, later)
    assert (long.tenant_id, long.starts, long.served, long.share) == ("long", 0, 60, 750_000)
    assert (long.wait_p95_ns, short.wait_p95_ns) == (0, 7)


def test_one_start_may_stand_for_several() -> None:
    watch = NeighbourWatch()
    watch.started("a", 5, 10, NOW, times=30)
    watch.started("a", 7, 10, NOW)
    (a,) = watch.report({"a": 1}, NOW)
    assert (a.starts, a.served, a.wait_p50_ns, a.wait_p95_ns) == (31, 310, 5, 5)


@given(st.lists(st.integers(0, 10**14), min_size=1, max_size=200))
def test_quantiles_are_at_most_an_eighth_too_large(waits: list[int]) -> None:
    watch = NeighbourWatch()
    for wait in waits:
        watch.started("a", wait, 1, NOW)
    (found,) = watch.report({"a": 1}, NOW)
    waits.sort()
    for percent, quantile in ((50, found.wait_p50_ns), (95, found.wait_p95_ns)):
        exact = waits[-(-len(waits) * percent // 100) - 1]
        assert exact <= quantile <= exact + exact // 8


@given(st.integers(0, 10**15))
def test_every_wait_falls_into_the_step_that_ends_after_it(wait: int) -> None:
    step = _step_of(wait)
    assert _end_of(step) >= wait
    assert step == 0 or _end_of(step - 1) < wait
