"""What-if: runs replayed through the very scheduler that production uses."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synergymesh.domain.instants import SECOND
from synergymesh.domain.scheduling.explain import Reason
from synergymesh.domain.scheduling.limits import UNLIMITED, Capacity, Limits, Request
from synergymesh.domain.simulation import (
    PlannedRun,
    PlannedTask,
    PlannedTenant,
    Scenario,
    compare,
    quantile,
    simulate,
)

START = 10**18
ONE = Scenario(tenants=[PlannedTenant(tenant_id="a", limits=UNLIMITED)], capacity=Capacity(2, 1_000, 1_000))


def run_of(*durations: int, tenant_id: str = "a", after: int = 0, chain: bool = False) -> PlannedRun:
    """Make a run of tasks that take so many seconds."""
    return PlannedRun(
        tenant_id=tenant_id,
        submitted_at=START + after * SECOND,
        tasks=[
            PlannedTask(component=i, duration_ns=d * SECOND, depends_on=(i - 1,) if chain and i else ())
            for i, d in enumerate(durations)
        ],
    )


def test_two_slots_share_four_tasks() -> None:
    outcome = simulate([run_of(10, 10, 10, 10)], ONE)
    assert outcome.makespan_ns == 20 * SECOND
    assert outcome.utilisation == outcome.busy == 1_000_000
    tenant = outcome.tenants["a"]
    assert (tenant.tasks, tenant.unfinished, tenant.served_ns) == (4, 0, 40 * SECOND)
    assert (tenant.wait_p50_ns, tenant.wait_p95_ns) == (0, 10 * SECOND)


def test_a_chain_takes_its_sum_and_leaves_a_slot_free() -> None:
    outcome = simulate([run_of(10, 20, 30, chain=True)], ONE)
    assert outcome.makespan_ns == 60 * SECOND
    assert outcome.busy == 500_000
    assert outcome.tenants["a"].wait_p95_ns == 0


def test_another_quota_is_seen_beside_todays() -> None:
    today = replace(ONE, tenants=[PlannedTenant(tenant_id="a", limits=replace(UNLIMITED, max_concurrent=1))])
    compared = compare([run_of(10, 10, 10, 10)], today, ONE)
    assert compared.today.makespan_ns == 40 * SECOND
    assert compared.what_if.makespan_ns == 20 * SECOND
    assert compared.today.tenants["a"].limit_hits[Reason.CONCURRENCY] > 0
    assert compared.what_if.tenants["a"].limit_hits == {}


def test_the_rolling_hour_holds_in_a_simulation_too() -> None:
    scenario = replace(ONE, tenants=[PlannedTenant(tenant_id="a", limits=replace(UNLIMITED, per_hour=3))])
    outcome = simulate([run_of(1, 1, 1, 1)], scenario)
    assert 3_600 * SECOND < outcome.makespan_ns < 3_720 * SECOND
    assert outcome.tenants["a"].limit_hits == {Reason.HOUR_LIMIT: 1}


def test_a_submission_that_is_refused_is_repeated_when_it_would_be_accepted() -> None:
    tenant = PlannedTenant(tenant_id="a", limits=UNLIMITED, rate_limit_per_second=1)
    outcome = simulate([run_of(1), run_of(1), run_of(1)], replace(ONE, tenants=[tenant]))
    assert outcome.tenants["a"].tasks == 3
    assert outcome.tenants["a"].limit_hits[Reason.RATE_LIMIT] == 2
    assert outcome.makespan_ns == 3 * SECOND


def test_submissions_of_sub_tenants_take_their_parents_rate_too() -> None:
    tenants = [
        PlannedTenant(tenant_id="p", limits=UNLIMITED, rate_limit_per_second=1),
        *(PlannedTenant(tenant_id=name, limits=UNLIMITED, parent="p", rate_limit_per_second=100) for name in "ab"),
    ]
    runs = [run_of(1, tenant_id=name) for name in "abababab"]
    outcome = simulate(runs, replace(ONE, tenants=tenants))
    assert outcome.makespan_ns == 8 * SECOND
    assert [outcome.tenants[name].limit_hits.get(Reason.RATE_LIMIT) for name in "ab"] == [3, 4]


@given(st.lists(st.integers(0, 5 * SECOND), min_size=1, max_size=60), st.integers(1, 20), st.integers(1, 9))
def test_refused_submissions_come_in_their_order_as_soon_as_a_plain_bucket_admits_them(
    moments: list[int], per_second: int, burst: int
) -> None:
    """Compare with a bucket that every submission waits for in turn."""
    moments.sort()
    tenant = PlannedTenant(tenant_id="a", limits=UNLIMITED, rate_limit_per_second=per_second, burst=burst)
    scenario = Scenario(tenants=[tenant], capacity=Capacity(10**6, 10**6, 10**6))
    runs = [replace(run_of(1), submitted_at=START + moment) for moment in moments]
    outcome = simulate(runs, scenario).tenants["a"]
    admitted, refused, waits = [], 0, False
    due = 0  # nanoseconds times the rate, as exact as whole numbers are
    for moment in moments:
        earliest = due - (burst - 1) * SECOND
        at = max(moment, admitted[-1] if admitted else 0, -(-earliest // per_second))
        waits = at > moment or (waits and admitted[-1] == moment)
        refused += waits
        due = max(due, at * per_second) + SECOND
        admitted.append(at)
    assert outcome.limit_hits.get(Reason.RATE_LIMIT, 0) == refused
    assert outcome.makespan_ns == admitted[-1] + SECOND - moments[0]


def test_a_task_that_could_never_run_is_left_and_counted() -> None:
    task = PlannedTask(component="large", duration_ns=SECOND, request=Request(2_000, 1))
    outcome = simulate([PlannedRun(tenant_id="a", submitted_at=START, tasks=[task]), run_of(1)], ONE)
    assert (outcome.tenants["a"].tasks, outcome.tenants["a"].unfinished) == (1, 1)


def test_nothing_at_all_takes_no_time() -> None:
    outcome = simulate([], ONE)
    assert (outcome.makespan_ns, outcome.busy) == (0, 0)
    assert quantile([], 95) == 0


def test_a_run_of_a_tenant_that_the_scenario_does_not_know_is_a_mistake() -> None:
    with pytest.raises(AssertionError, match="does not know b"):
        simulate([run_of(1, tenant_id="b")], ONE)


durations = st.lists(st.integers(1, 20), min_size=1, max_size=5)


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b"]), durations, st.integers(0, 30), st.booleans()), max_size=12),
    st.integers(1, 4),
)
@settings(max_examples=60)
def test_the_makespan_is_within_the_bounds_of_every_list_schedule(
    planned: list[tuple[str, list[int], int, bool]], slots: int
) -> None:
    runs = [run_of(*d, tenant_id=t, after=after, chain=chain) for t, d, after, chain in planned]
    limits = Limits(max_concurrent=10, memory_mb=10, cpu_millis=10)
    scenario = Scenario(
        tenants=[PlannedTenant(tenant_id=t, limits=limits) for t in "ab"], capacity=Capacity(slots, 100, 100)
    )
    outcome = simulate(runs, scenario)
    assert outcome == simulate(runs, scenario), "the same again"
    work = sum(sum(d) for _, d, _, _ in planned) * SECOND
    assert sum(tenant.served_ns for tenant in outcome.tenants.values()) == work
    assert sum(tenant.unfinished for tenant in outcome.tenants.values()) == 0
    last = max((after for _, _, after, _ in planned), default=0) * SECOND
    span = max((sum(d) if chain else max(d) for _, d, _, chain in planned), default=0) * SECOND
    assert max(work // slots, span) <= outcome.makespan_ns or not planned
    assert outcome.makespan_ns <= last + work // slots + span
