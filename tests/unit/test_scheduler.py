"""The scheduler: limits of all levels, order within a tenant, fairness between them, what it says about itself."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from heapq import heappop, heappush
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synergymesh.domain.instants import SECOND
from synergymesh.domain.scheduling.explain import Reason
from synergymesh.domain.scheduling.fair_queue import Cohort
from synergymesh.domain.scheduling.grants import Grant, usage_from
from synergymesh.domain.scheduling.limits import MINUTE, NOTHING, UNLIMITED, Capacity, CohortShare, Limits, Request
from synergymesh.domain.scheduling.scheduler import Scheduler
from synergymesh.domain.scheduling.tenant_queue import Queue

NOW = 10**18
ROOMY = Capacity(1_000, 10**6, 10**6)


class Run:
    def __init__(self, name: str = "") -> None:
        self.name = name
        self.cancelled: set[int] = set()

    def wants(self, position: int) -> bool:
        return position not in self.cancelled


def scheduler_of(*tenants: str, capacity: Capacity = ROOMY, limits: Limits = UNLIMITED) -> Scheduler[Run]:
    scheduler: Scheduler[Run] = Scheduler(capacity, records_reservations=False)
    for tenant_id in tenants:
        scheduler.add_tenant(tenant_id, limits=limits, weight=1)
    return scheduler


def push(scheduler: Scheduler[Run], tenant_id: str, run: Run, position: int = 0, **wanted: Any) -> None:
    scheduler.push(tenant_id, run, position, **({"priority": 0, "age": 0, "rank": 0, "cost": 1_000} | wanted))


def start_all(scheduler: Scheduler[Run], now: int = NOW) -> list[Grant[Run]]:
    grants = []
    while (grant := scheduler.next(now)) is not None:
        grants.append(grant)
    return grants


# --- order within a tenant --------------------------------------------------------------------------------------------


def test_priority_then_age_of_the_run_then_the_longest_rest_then_first_come() -> None:
    scheduler = scheduler_of("a")
    wanted = [
        (Run("late"), {"age": 2, "since": NOW}),
        (Run("short rest"), {"age": 1, "rank": 5, "since": NOW}),
        (Run("long rest"), {"age": 1, "rank": 9, "since": NOW}),
        (Run("long rest too"), {"age": 1, "rank": 9, "since": NOW}),
        (Run("urgent"), {"age": 3, "priority": 1, "since": NOW}),
    ]
    for run, figures in wanted:
        push(scheduler, "a", run, **figures)
    names = [grant.run.name for grant in start_all(scheduler)]
    assert names == ["urgent", "long rest", "long rest too", "short rest", "late"]


@pytest.mark.parametrize(("minutes_later", "first"), [(4, "urgent"), (6, "patient")])
def test_a_run_gains_one_level_of_priority_for_every_minute_that_it_came_earlier(
    minutes_later: int, first: str
) -> None:
    scheduler = scheduler_of("a")
    push(scheduler, "a", Run("patient"), since=NOW)
    push(scheduler, "a", Run("urgent"), priority=5, age=1, since=NOW + minutes_later * MINUTE)
    grant = scheduler.next(NOW + minutes_later * MINUTE)
    assert grant is not None
    assert grant.run.name == first


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 600)), min_size=2, max_size=30))
@settings(max_examples=60)
def test_nobody_is_overtaken_by_who_came_a_minute_more_than_the_difference_of_levels_later(
    tasks: list[tuple[int, int]],
) -> None:
    scheduler = scheduler_of("a")
    for position, (priority, seconds) in enumerate(tasks):
        push(scheduler, "a", Run(), position, priority=priority, age=position, since=NOW + seconds * SECOND)
    order = [grant.position for grant in start_all(scheduler)]
    for place, early in enumerate(order):
        for late in order[place + 1 :]:
            (priority, seconds), (other_priority, other_seconds) = tasks[early], tasks[late]
            assert seconds - other_seconds < 60 * (priority - other_priority + 1)


def test_a_start_that_waits_for_its_reservation_is_no_limit_that_was_hit() -> None:
    scheduler: Scheduler[Run] = Scheduler(ROOMY)
    scheduler.add_tenant("a", limits=replace(UNLIMITED, per_hour=2), weight=1)
    for position in range(3):
        push(scheduler, "a", Run("run"), position)
    assert scheduler.next(NOW) is None
    assert scheduler.holds_of("a") == {}
    started = 0
    while pending := scheduler.pending_reservations(NOW):
        for tenant_id, reservation in pending:
            scheduler.reserved(tenant_id, reservation)
        started += len(start_all(scheduler))
    assert started == 2
    assert scheduler.holds_of("a") == {Reason.HOUR_LIMIT: 1}


def test_the_longest_wait_is_that_of_a_task_that_is_still_wanted() -> None:
    scheduler = scheduler_of("a")
    assert scheduler.waiting_since("a") is None
    assert scheduler.waiting_since("nobody") is None
    gone = Run("gone")
    push(scheduler, "a", gone, ready=NOW - 9)
    push(scheduler, "a", Run("one"), ready=NOW - 5)
    push(scheduler, "a", Run("two"), ready=NOW - 7)
    gone.cancelled.add(0)
    assert scheduler.waiting_since("a") == NOW - 7


def test_a_cancelled_task_is_dropped_and_never_charged() -> None:
    scheduler = scheduler_of("a", "b")
    gone, kept = Run("gone"), Run("kept")
    push(scheduler, "a", gone, cost=10**9)
    push(scheduler, "a", kept)
    gone.cancelled.add(0)
    assert [grant.run for grant in start_all(scheduler)] == [kept]
    assert scheduler.waiting_of("a") == 0


# --- heads that do not fit --------------------------------------------------------------------------------------------


def test_small_tasks_do_not_overtake_a_large_one_of_the_same_tenant_nor_does_it_block_others() -> None:
    scheduler = scheduler_of("a", "b", limits=replace(UNLIMITED, memory_mb=100))
    push(scheduler, "a", Run("running"), request=Request(60, 1))
    (running,) = start_all(scheduler)
    push(scheduler, "a", Run("large"), request=Request(50, 1), age=1)
    push(scheduler, "a", Run("small"), request=Request(1, 1), age=2)
    push(scheduler, "b", Run("other"), request=Request(100, 1))
    assert [grant.run.name for grant in start_all(scheduler)] == ["other"]
    scheduler.release(running, NOW)
    assert [grant.run.name for grant in start_all(scheduler)] == ["large", "small"]


def test_a_task_behind_a_head_that_is_held_is_told_so() -> None:
    scheduler = scheduler_of("a", limits=replace(UNLIMITED, memory_mb=100))
    push(scheduler, "a", Run("running"), request=Request(60, 1))
    assert len(start_all(scheduler)) == 1
    small = Run("small")
    push(scheduler, "a", Run("large"), request=Request(50, 1), age=1)
    push(scheduler, "a", small, request=Request(1, 1), age=2)
    memory, share = scheduler.why(small, 0, NOW)
    assert (memory.reason, memory.asked) == (Reason.MEMORY, 50)
    assert (share.reason, share.asked) == (Reason.FAIR_SHARE, 1)


def test_a_more_urgent_task_that_fits_takes_the_place_of_a_head_that_does_not() -> None:
    scheduler = scheduler_of("a", "b", "c", capacity=Capacity(10, 100, 100))
    push(scheduler, "b", Run("running"), request=Request(60, 1))
    assert len(start_all(scheduler)) == 1
    push(scheduler, "c", Run("as large"), request=Request(50, 1))
    push(scheduler, "a", Run("large"), request=Request(50, 1), age=1)
    assert start_all(scheduler) == []
    push(scheduler, "a", Run("urgent"), request=Request(1, 1), priority=1, age=2)
    assert [grant.run.name for grant in start_all(scheduler)] == ["urgent"]


def test_small_tasks_of_others_do_not_keep_a_large_one_from_starting_for_ever() -> None:
    scheduler = scheduler_of("large", "small", capacity=Capacity(10, 100, 100))
    for position in range(2_000):
        push(scheduler, "small", Run(), position, request=Request(20, 1), cost=10**6)
    running = start_all(scheduler)
    assert len(running) == 5
    push(scheduler, "large", Run("large"), request=Request(100, 1), cost=10**6)
    now, ended = NOW, 0
    while scheduler.running_of("large") == 0:
        now += SECOND // 5
        scheduler.release(running.pop(0), now)
        running += start_all(scheduler, now)
        ended += 1
        assert ended < 100, "the large task starves"
    assert running[-1].run.name == "large"
    assert scheduler.running == 1


def test_a_task_beyond_the_limit_as_such_is_set_aside_until_the_limit_is_raised() -> None:
    scheduler = scheduler_of("a", limits=replace(UNLIMITED, memory_mb=100))
    hopeless = Run("hopeless")
    push(scheduler, "a", hopeless, request=Request(101, 1))
    push(scheduler, "a", Run("next"), age=1)
    assert [grant.run.name for grant in start_all(scheduler)] == ["next"]
    (blocker,) = scheduler.why(hopeless, 0, NOW)
    assert (blocker.reason, blocker.limit, blocker.asked) == (Reason.MEMORY, 100, 101)
    assert blocker.is_hopeless
    assert scheduler.snapshot(NOW)[0].aside == 1
    scheduler.add_tenant("a", limits=replace(UNLIMITED, memory_mb=200), weight=1)
    assert [grant.run.name for grant in start_all(scheduler)] == ["hopeless"]


def test_a_decision_gives_up_after_so_many_looks_and_goes_on_where_it_was() -> None:
    scheduler = scheduler_of("filler", *map(str, range(50)), "parent", capacity=Capacity(10, 100, 100))
    scheduler.add_tenant("child", limits=UNLIMITED, weight=1, parent="parent")
    push(scheduler, "filler", Run(), request=Request(60, 1))
    assert len(start_all(scheduler)) == 1
    for number in range(50):
        push(scheduler, str(number), Run("large"), request=Request(50 + number, 1))
    push(scheduler, "child", Run("small"), request=Request(40, 1))
    turns = 0
    scheduler.looks_left = 20
    while (grant := scheduler.next(NOW)) is None:
        assert scheduler.looks_left <= 0, "it has looked at all"
        turns += 1
        scheduler.looks_left = 20
    assert (grant.run.name, turns) == ("small", 2)


# --- changes of limits ------------------------------------------------------------------------------------------------


def test_a_limit_lowered_below_what_runs_kills_nothing_and_starts_nothing() -> None:
    scheduler = scheduler_of("a", limits=replace(UNLIMITED, max_concurrent=3))
    for position in range(5):
        push(scheduler, "a", Run(), position)
    running = start_all(scheduler)
    assert len(running) == 3
    scheduler.add_tenant("a", limits=replace(UNLIMITED, max_concurrent=1), weight=1)
    for grant in running[:2]:
        scheduler.release(grant, NOW)
        assert start_all(scheduler) == []
    scheduler.release(running[2], NOW)
    assert len(start_all(scheduler)) == 1


def test_a_task_that_asks_for_no_memory_starts_although_more_is_used_than_there_is_now() -> None:
    scheduler = scheduler_of("a", limits=replace(UNLIMITED, memory_mb=100))
    push(scheduler, "a", Run("running"), request=Request(80, 1))
    assert len(start_all(scheduler)) == 1
    scheduler.add_tenant("a", limits=replace(UNLIMITED, memory_mb=50), weight=1)
    push(scheduler, "a", Run("light"), request=Request(0, 1))
    assert [grant.run.name for grant in start_all(scheduler)] == ["light"]


def test_a_throttled_tenant_runs_that_percentage_and_at_least_one() -> None:
    scheduler = scheduler_of("a", limits=replace(UNLIMITED, max_concurrent=10))
    for position in range(20):
        push(scheduler, "a", Run(), position)
    scheduler.throttle("a", 30)
    assert len(start_all(scheduler)) == 3
    scheduler.throttle("a", 1)
    assert scheduler.snapshot(NOW)[0].limits.slots == 1
    scheduler.throttle("a", None)
    assert len(start_all(scheduler)) == 7


def test_a_tenant_that_was_held_without_work_starts_what_comes_later() -> None:
    scheduler = scheduler_of("a", limits=replace(UNLIMITED, max_concurrent=1))
    run = Run()
    push(scheduler, "a", run, 0)
    push(scheduler, "a", run, 1)
    (grant,) = start_all(scheduler)
    run.cancelled.add(1)
    assert scheduler._queues["a"].head() is None
    scheduler.release(grant, NOW)
    assert start_all(scheduler) == []
    push(scheduler, "a", run, 2)
    assert len(start_all(scheduler)) == 1


def test_a_grant_is_released_once() -> None:
    scheduler = scheduler_of("a")
    push(scheduler, "a", Run())
    (grant,) = start_all(scheduler)
    scheduler.release(grant, NOW)
    with pytest.raises(KeyError):
        scheduler.release(grant, NOW)
    assert scheduler.running == 0


def test_what_a_removed_tenant_still_runs_can_be_released() -> None:
    scheduler = scheduler_of("a", "b")
    for position in range(3):
        push(scheduler, "a", Run(), position, at=NOW + position if position == 2 else 0)
    grant = scheduler.next(NOW)
    assert grant is not None
    scheduler.remove_tenant("a")
    scheduler.remove_tenant("a")
    scheduler.wake(NOW + 5)
    assert start_all(scheduler) == []
    scheduler.release(grant, NOW + 5)
    assert (scheduler.running, scheduler.usage()) == (0, {})
    push(scheduler, "a", Run())
    assert start_all(scheduler) == []


# --- the rolling hour -------------------------------------------------------------------------------------------------


def test_a_tenant_with_an_hourly_limit_waits_until_its_reservation_is_written_down() -> None:
    scheduler: Scheduler[Run] = Scheduler(ROOMY)
    scheduler.add_tenant("a", limits=replace(UNLIMITED, per_hour=2), weight=1)
    for position in range(3):
        push(scheduler, "a", Run(), position)
    for _ in range(2):
        assert scheduler.next(NOW) is None
        ((tenant_id, reservation),) = scheduler.pending_reservations(NOW)
        assert scheduler.pending_reservations(NOW) == []
        assert scheduler.next(NOW) is None
        scheduler.reserved(tenant_id, reservation)
        assert scheduler.next(NOW) is not None
    assert scheduler.next(NOW) is None
    assert scheduler.pending_reservations(NOW) == []
    due = scheduler.next_due()
    assert due is not None
    assert scheduler.snapshot(NOW)[0].last_reason is Reason.HOUR_LIMIT
    scheduler.wake(due)
    assert scheduler.next(due) is None
    ((tenant_id, reservation),) = scheduler.pending_reservations(due)
    scheduler.reserved(tenant_id, reservation, written=False)
    assert scheduler.next(due) is None
    ((tenant_id, reservation),) = scheduler.pending_reservations(due)
    scheduler.reserved(tenant_id, reservation)
    assert scheduler.next(due) is not None


def test_however_often_a_tenant_without_an_hour_left_is_looked_at_it_has_one_timer() -> None:
    scheduler = scheduler_of("a", limits=replace(UNLIMITED, per_hour=1))
    for position in range(3):
        push(scheduler, "a", Run(), position)
    assert len(start_all(scheduler)) == 1
    for _ in range(50):
        scheduler.refresh("a")
        assert scheduler.next(NOW) is None
    assert len(scheduler._timers) == 1
    due = scheduler.next_due()
    assert due is not None
    scheduler.wake(due)
    assert len(start_all(scheduler, due)) == 1
    assert len(scheduler._timers) == 1


# --- sub-tenants ------------------------------------------------------------------------------------------------------


def family(**shares: CohortShare | None) -> Scheduler[Run]:
    """Make a tenant with ten slots, and sub-tenants below it."""
    scheduler = scheduler_of("parent", "other", limits=replace(UNLIMITED, max_concurrent=10))
    for tenant_id, share in shares.items():
        scheduler.add_tenant(tenant_id, limits=UNLIMITED, weight=1, parent="parent", share=share)
    return scheduler


def flood(scheduler: Scheduler[Run], *tenants: str, count: int = 30) -> None:
    for tenant_id in tenants:
        for position in range(count):
            push(scheduler, tenant_id, Run(tenant_id), position)


def by_tenant(grants: list[Grant[Run]]) -> Counter[str]:
    return Counter(grant.tenant_id for grant in grants)


def test_sub_tenants_and_the_tenants_own_tasks_share_its_quota() -> None:
    scheduler = family(x=None, y=None)
    flood(scheduler, "x", "y", "parent")
    started = by_tenant(start_all(scheduler))
    assert sorted(started.values()) == [3, 3, 4]
    assert scheduler.running_of("parent") == 10
    assert scheduler.usage() == usage_from(scheduler.grants())
    flood(scheduler, "other")
    assert by_tenant(start_all(scheduler)) == {"other": 10}


def test_a_sub_tenant_borrows_what_others_do_not_use_up_to_its_limit() -> None:
    one = Capacity(3, 10**6, 10**6)
    scheduler = family(x=CohortShare(nominal=one, borrowing=Capacity(4, 0, 0)), y=CohortShare(nominal=one))
    flood(scheduler, "x")
    assert by_tenant(start_all(scheduler)) == {"x": 7}


def test_a_sub_tenant_keeps_what_it_does_not_lend() -> None:
    half = Capacity(5, 10**6, 10**6)
    scheduler = family(x=CohortShare(nominal=half), y=CohortShare(nominal=half, lending=Capacity(2, 10**6, 10**6)))
    flood(scheduler, "x")
    assert by_tenant(start_all(scheduler)) == {"x": 7}
    flood(scheduler, "y")
    assert by_tenant(start_all(scheduler)) == {"y": 3}


def test_what_is_not_guaranteed_any_more_can_be_used_by_the_others_at_once() -> None:
    whole = Capacity(10, 10**6, 10**6)
    scheduler = family(x=None, y=CohortShare(nominal=whole, lending=Capacity(0, 0, 0)))
    flood(scheduler, "x")
    assert start_all(scheduler) == []
    (blocker, *_) = scheduler.why(next(scheduler._queues["x"].waiting())[4], 0, NOW)
    assert (blocker.reason, blocker.resource) == (Reason.CONCURRENCY, "slots not guaranteed to others")
    assert blocker.is_hopeless
    scheduler.add_tenant("y", limits=UNLIMITED, weight=1, share=None)
    assert by_tenant(start_all(scheduler)) == {"x": 10}


def test_who_borrows_stops_within_one_task_length_when_the_owner_wants_its_share() -> None:
    half = CohortShare(nominal=Capacity(5, 10**6, 10**6))
    scheduler = family(x=half, y=half)
    flood(scheduler, "x", count=100)
    running = start_all(scheduler)
    assert by_tenant(running) == {"x": 10}
    flood(scheduler, "y", count=100)
    for grant in running:
        scheduler.release(grant, NOW + SECOND)
        start_all(scheduler, NOW + SECOND)
    assert by_tenant(list(scheduler.grants())) == {"x": 5, "y": 5}


def test_a_head_of_a_sub_tenant_that_does_not_fit_holds_neither_its_siblings_nor_others() -> None:
    scheduler = scheduler_of("first", "parent", "filler", capacity=Capacity(10, 100, 100))
    for name in ("x", "y"):
        scheduler.add_tenant(name, limits=UNLIMITED, weight=1, parent="parent")
    push(scheduler, "filler", Run("filler"), request=Request(60, 1))
    (filler,) = start_all(scheduler)
    large = Run("large")
    push(scheduler, "first", Run("as large"), request=Request(50, 1))
    push(scheduler, "x", large, request=Request(50, 1))
    push(scheduler, "y", Run("small"), request=Request(1, 1))
    assert [grant.run.name for grant in start_all(scheduler)] == ["small"]
    (blocker,) = scheduler.why(large, 0, NOW)
    assert (blocker.reason, blocker.used) == (Reason.CAPACITY, 61)
    scheduler.release(filler, NOW)
    assert [grant.run.name for grant in start_all(scheduler)] == ["as large"]


class Traffic:
    """Let tasks run for a second or two, and have something new to start whenever one ends."""

    def __init__(self, scheduler: Scheduler[Run], *flooding: str, request: Request) -> None:
        self.scheduler = scheduler
        self.request = request
        self.now = NOW
        self.number = 0
        self.started: list[Run] = []
        self.running: list[tuple[int, int, Grant[Run]]] = []
        for tenant_id in flooding:
            for _ in range(20):
                self.add(tenant_id)
        self.start()

    def add(self, tenant_id: str) -> None:
        self.number += 1
        push(self.scheduler, tenant_id, Run(tenant_id), self.number, request=self.request, cost=10**6)

    def start(self) -> None:
        while (grant := self.scheduler.next(self.now)) is not None:
            self.started.append(grant.run)
            heappush(self.running, (self.now + (10 + grant.order % 10) * SECOND // 10, grant.order, grant))

    def ends_before(self, run: Run, most: int) -> int:
        """Count the tasks that end before a run has started; fail if that takes more than so many."""
        self.start()
        for ended in range(most):
            if run in self.started:
                return ended
            self.now, _, grant = heappop(self.running)
            self.scheduler.release(grant, self.now)
            self.add(grant.tenant_id)
            self.start()
        raise AssertionError(f"{run.name} starves: {[str(b) for b in self.scheduler.why(run, 0, self.now)]}")


def family_with_owner(guaranteed: Capacity) -> Scheduler[Run]:
    """Make a tenant of 1,000 MiB and one CPU with sub-tenants, one of which has a guarantee and nothing to do."""
    limits = Limits(max_concurrent=50, memory_mb=1_000, cpu_millis=1_000)
    scheduler = scheduler_of("parent", "other", capacity=Capacity(50, 10_000, 100_000), limits=limits)
    share = CohortShare(nominal=guaranteed, lending=NOTHING)
    scheduler.add_tenant("owner", limits=limits, weight=1, parent="parent", share=share)
    for name in ("x", "y", "small"):
        scheduler.add_tenant(name, limits=limits, weight=1, parent="parent")
    return scheduler


def test_small_tasks_of_siblings_do_not_starve_a_large_one_beside_a_guarantee() -> None:
    scheduler = family_with_owner(Capacity(1, 200, 0))
    traffic = Traffic(scheduler, "small", request=Request(100, 0))
    large = Run("large")
    push(scheduler, "x", large, request=Request(500, 0), cost=10**6)
    assert traffic.ends_before(large, 100) > 1
    owners = Run("owner's")
    push(scheduler, "owner", owners, request=Request(200, 0))
    traffic.start()
    assert owners in traffic.started, "its guarantee was kept meanwhile"


def test_a_head_that_can_never_start_beside_a_guarantee_is_set_aside_and_hides_nobody() -> None:
    scheduler = family_with_owner(Capacity(1, 0, 200))
    traffic = Traffic(scheduler, "small", request=Request(100, 0))
    hopeless, large = Run("hopeless"), Run("large")
    push(scheduler, "x", hopeless, request=Request(0, 900), cost=10**6)
    push(scheduler, "y", large, request=Request(500, 0), cost=10**6)
    traffic.ends_before(large, 100)
    assert not scheduler.can_ever_run("x", Request(0, 900))
    blocker, *_ = scheduler.why(hopeless, 0, NOW)
    assert (blocker.reason, blocker.level, blocker.limit, blocker.asked) == (Reason.CPU, "parent", 800, 900)
    assert blocker.resource == "cpu_millis not guaranteed to others"
    assert blocker.is_hopeless
    scheduler.add_tenant("owner", limits=UNLIMITED, weight=1)
    traffic.ends_before(hopeless, 5)


@pytest.mark.parametrize("trickle", [False, True])
def test_small_tasks_of_other_tenants_do_not_starve_a_large_one_of_a_sub_tenant(trickle: bool) -> None:
    scheduler = scheduler_of("parent", "flood", capacity=Capacity(50, 1_000, 100_000))
    for name in ("x", "y"):
        scheduler.add_tenant(name, limits=UNLIMITED, weight=1, parent="parent")
    traffic = Traffic(scheduler, "flood", *["y"] * trickle, request=Request(100, 0))
    large = Run("large")
    push(scheduler, "x", large, request=Request(500, 0), cost=10**6)
    assert traffic.ends_before(large, 200) > 1


def test_small_tasks_of_one_that_borrows_do_not_starve_another_that_borrows_much() -> None:
    limits = Limits(max_concurrent=50, memory_mb=1_000, cpu_millis=1_000)
    scheduler = scheduler_of("parent", limits=limits)
    for name in ("x", "small"):
        share = CohortShare(nominal=Capacity(9, 100, 0))
        scheduler.add_tenant(name, limits=limits, weight=1, parent="parent", share=share)
    traffic = Traffic(scheduler, "small", request=Request(100, 0))
    large = Run("large")
    push(scheduler, "x", large, request=Request(500, 0), cost=10**6)
    assert traffic.ends_before(large, 100) > 1


@st.composite
def some_shares(draw: st.DrawFn) -> CohortShare:
    nominal = draw(st.builds(Capacity, st.integers(0, 4), st.integers(0, 8), st.integers(0, 8)))
    least = 0 if nominal.slots else 1
    borrowing = st.builds(Capacity, st.integers(least, 4), st.integers(0, 8), st.integers(0, 8))
    lending = st.builds(Capacity, *(st.integers(0, amount) for amount in nominal))
    return CohortShare(nominal=nominal, borrowing=draw(st.none() | borrowing), lending=draw(st.none() | lending))


def has_nominal_room(scheduler: Scheduler[Run], queue: Queue[Run], request: Request) -> bool:
    """Tell whether a member is promised that it gets so much: within its own limits, and not borrowed."""
    share = queue.share
    if not scheduler.can_ever_run(queue.tenant_id, request):
        return False
    if share is None:
        return True
    nominal = share.nominal
    return nominal.slots > 0 and request.memory_mb <= nominal.memory_mb and request.cpu_millis <= nominal.cpu_millis


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_every_head_that_fits_while_nothing_runs_starts_however_busy_the_others_are(data: st.DataObject) -> None:
    shares = st.none() | some_shares()
    limits = st.builds(
        Limits, max_concurrent=st.integers(1, 6), memory_mb=st.integers(4, 12), cpu_millis=st.integers(4, 12)
    )
    requests = st.builds(Request, st.integers(0, 9), st.integers(0, 9))
    scheduler: Scheduler[Run] = Scheduler(Capacity(8, 12, 12))
    for name in ("parent", "other"):
        scheduler.add_tenant(name, limits=data.draw(limits), weight=1)
    for name in ("x", "y", "z"):
        scheduler.add_tenant(
            name,
            limits=data.draw(limits),
            weight=data.draw(st.integers(1, 4)),
            parent="parent",
            share=data.draw(shares),
        )
    sizes = {name: data.draw(requests) for name in ("parent", "other", "x", "y", "z")}
    now, number = NOW, 0
    running: list[tuple[int, int, Grant[Run]]] = []

    def add(name: str, request: Request) -> Run:
        nonlocal number
        number += 1
        run = Run(name)
        push(scheduler, name, run, request=request, cost=10**6, age=number)
        return run

    def turn() -> set[Run]:
        """Start what may start, and let one task end; whoever had one gets another."""
        nonlocal now
        started = start_all(scheduler, now)
        for grant in started:
            heappush(running, (now + (10 + grant.order * 7 % 10) * SECOND // 10, grant.order, grant))
        if running:
            now, _, grant = heappop(running)
            scheduler.release(grant, now)
            add(grant.tenant_id, sizes[grant.tenant_id])
        return {grant.run for grant in started}

    for name, size in sizes.items():
        for _ in range(9):
            add(name, size)
    for _ in range(data.draw(st.integers(0, 40))):
        turn()
    waiting = {}
    for name in sizes:
        queue = scheduler._queues[name]
        request = data.draw(requests)
        scheduler.recall(name, [item[4] for item in queue.ready])
        run = add(name, request)
        if has_nominal_room(scheduler, queue, request):
            waiting[run] = name
        add(name, sizes[name])
    for _ in range(1_500):
        for run in turn():
            waiting.pop(run, None)
        if not waiting:
            return
    raise AssertionError({name: [str(b) for b in scheduler.why(run, 0, now)] for run, name in waiting.items()})


@pytest.mark.parametrize(
    ("limits", "guaranteed", "reason"),
    [
        (replace(UNLIMITED, memory_mb=10), NOTHING, Reason.MEMORY),
        (replace(UNLIMITED, cpu_millis=10), NOTHING, Reason.CPU),
        (replace(UNLIMITED, memory_mb=15), Capacity(0, 3, 0), Reason.CAPACITY),
    ],
)
def test_a_family_and_its_sub_tenants_say_what_of_the_quota_they_were_short_of(
    limits: Limits, guaranteed: Capacity, reason: Reason
) -> None:
    scheduler = scheduler_of("parent", limits=limits)
    share = CohortShare(nominal=guaranteed._replace(slots=1), lending=Capacity(1, 0, 0))
    scheduler.add_tenant("owner", limits=UNLIMITED, weight=1, parent="parent", share=share)
    scheduler.add_tenant("x", limits=UNLIMITED, weight=1, parent="parent")
    for position in range(2):
        push(scheduler, "x", Run(), position, request=Request(7, 7))
    (running,) = start_all(scheduler)
    views = {view.tenant_id: view for view in scheduler.snapshot(NOW)}
    assert views["x"].last_reason is views["parent"].last_reason is reason
    scheduler.release(running, NOW)
    assert len(start_all(scheduler)) == 1


def test_a_more_urgent_head_puts_a_sub_tenant_where_it_belongs() -> None:
    nominal = CohortShare(nominal=Capacity(9, 10, 9))
    scheduler = family(x=nominal, y=nominal)
    push(scheduler, "x", Run("much"), request=Request(20, 0), age=2)
    push(scheduler, "y", Run("more"), request=Request(30, 0), age=2)
    push(scheduler, "y", Run("little"), request=Request(5, 0), age=1)
    names = [grant.run.name for grant in start_all(scheduler)]
    assert names == ["little", "much", "more"], "who is within its share goes first"


def test_a_tenant_becomes_a_cohort_while_it_runs_and_its_usage_stays_true() -> None:
    scheduler = scheduler_of("parent", limits=replace(UNLIMITED, max_concurrent=3))
    flood(scheduler, "parent")
    running = start_all(scheduler)
    scheduler.add_tenant("child", limits=UNLIMITED, weight=1, parent="parent")
    flood(scheduler, "child")
    assert start_all(scheduler) == []
    for grant in running:
        scheduler.release(grant, NOW)
    started = start_all(scheduler)
    assert sorted(by_tenant(started).values()) == [1, 2]
    assert scheduler.usage() == usage_from(scheduler.grants())
    scheduler.remove_tenant("parent")
    for grant in started:
        scheduler.release(grant, NOW)
    assert (scheduler.running, scheduler.usage()) == (0, {})


def test_a_sub_tenant_for_which_room_is_kept_starts_as_soon_as_there_is_some() -> None:
    scheduler: Scheduler[Run] = Scheduler(Capacity(5, 12, 12))

    def push_one(name: str, memory_mb: int, cpu_millis: int, number: int) -> None:
        push(scheduler, name, Run(f"{name}{number}"), number, request=Request(memory_mb, cpu_millis))

    scheduler.add_tenant("parent", limits=Limits(max_concurrent=2, memory_mb=2, cpu_millis=4), weight=1)
    guaranteed = CohortShare(nominal=Capacity(1, 1, 3), lending=Capacity(0, 0, 1))
    scheduler.add_tenant(
        "x", limits=Limits(max_concurrent=1, memory_mb=2, cpu_millis=3), weight=2, parent="parent", share=guaranteed
    )
    borrows = CohortShare(nominal=Capacity(0, 0, 0))
    scheduler.add_tenant(
        "y", limits=Limits(max_concurrent=1, memory_mb=2, cpu_millis=2), weight=2, parent="parent", share=borrows
    )
    scheduler.pause("parent")
    push_one("parent", 1, 1, 0)
    push_one("y", 1, 1, 1)
    assert start_all(scheduler) == []
    push_one("parent", 1, 2, 2)
    push_one("x", 1, 1, 3)
    push_one("x", 1, 3, 4)
    scheduler.resume("parent")
    running = start_all(scheduler)
    assert [grant.run.name for grant in running] == ["parent0", "x3"]
    started = []
    for seconds, grant in enumerate(running, 1):
        scheduler.release(grant, NOW + seconds * SECOND)
        started += start_all(scheduler, now=NOW + seconds * SECOND)
    assert [grant.run.name for grant in started] == ["parent2"], "what is guaranteed to x is kept"
    scheduler.release(started.pop(), NOW + 3 * SECOND)
    assert [grant.run.name for grant in start_all(scheduler, now=NOW + 3 * SECOND)] == ["x4", "y1"]


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_family_keeps_every_limit_and_ends_with_nothing_left(data: st.DataObject) -> None:
    shares = st.none() | some_shares()
    limits = st.builds(
        Limits, max_concurrent=st.integers(1, 4), memory_mb=st.integers(2, 8), cpu_millis=st.integers(2, 8)
    )
    scheduler: Scheduler[Run] = Scheduler(Capacity(5, 12, 12))
    names = ["parent", "x", "y", "other"]
    known: dict[str, Limits] = {}
    for name in ("parent", "other"):
        known[name] = data.draw(limits)
        scheduler.add_tenant(name, limits=known[name], weight=1)
    chosen = {name: data.draw(shares) for name in ("x", "y")}
    for name, share in chosen.items():
        known[name] = data.draw(limits)
        scheduler.add_tenant(name, limits=known[name], weight=2, parent="parent", share=share)
    pushed, now = 0, NOW
    running: list[Grant[Run]] = []
    paused: set[str] = set()

    def start() -> None:
        """Start what may start, and look at every limit after each start; afterwards nothing could start."""
        while (grant := scheduler.next(now)) is not None:
            running.append(grant)
            usage = scheduler.usage()
            assert usage == usage_from(running)
            for name in {grant.tenant_id, "parent" if grant.tenant_id in "xy" else grant.tenant_id}:
                assert name not in paused
                share = chosen.get(name)
                most = Capacity(known[name].max_concurrent, known[name].memory_mb, known[name].cpu_millis)
                ceiling = most if share is None else share.ceiling(known[name])
                # a task that asks for nothing may start whatever the others use
                assert usage[name].slots <= ceiling.slots
                assert usage[name].memory_mb <= ceiling.memory_mb
                assert usage[name].cpu_millis <= ceiling.cpu_millis
            assert scheduler.running <= 5
            assert sum(g.request.memory_mb for g in running) <= 12
            assert sum(g.request.cpu_millis for g in running) <= 12
        for queue in scheduler._queues.values():
            head = queue.head()
            assert head is None or scheduler.why(head[4], head[5], now), "it could start, but does not"

    for _ in range(data.draw(st.integers(1, 25))):
        match data.draw(st.sampled_from(["push", "push", "push", "start", "start", "end", "quota", "pause", "cancel"])):
            case "push":
                request = Request(data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3)))
                push(scheduler, data.draw(st.sampled_from(names)), Run(), pushed, request=request)
                pushed += 1
            case "start":
                start()
            case "quota":
                name = data.draw(st.sampled_from(names))
                known[name] = data.draw(limits)
                chosen[name] = data.draw(shares) if name in "xy" else None
                scheduler.add_tenant(name, limits=known[name], weight=1, parent=None, share=chosen[name])
            case "pause":
                name = data.draw(st.sampled_from(names))
                paused ^= {name}
                (scheduler.pause if name in paused else scheduler.resume)(name)
            case "cancel":
                queue = scheduler._queues[data.draw(st.sampled_from(names))]
                if (head := queue.head()) is not None:
                    head[4].cancelled.add(head[5])
                    scheduler.refresh(queue.tenant_id)
            case _ if running:
                now += SECOND
                scheduler.release(running.pop(data.draw(st.integers(0, len(running) - 1))), now)
        cohort = scheduler._members["parent"]
        assert isinstance(cohort, Cohort)
        unclaimed = [scheduler._queues[name].unclaimed() for name in "xy"]
        assert list(cohort.reserved) == [sum(figures) for figures in zip(*unclaimed, strict=True)]
    for name in paused:
        scheduler.resume(name)
    paused.clear()
    start()
    while running:
        now += SECOND
        scheduler.release(running.pop(0), now)
        start()
    assert scheduler.usage() == {}
    for queue in scheduler._queues.values():
        head = queue.head()
        if head is not None:
            reasons = scheduler.why(head[4], head[5], now)
            assert any(reason.is_hopeless or reason.resource == "kept for others" for reason in reasons), reasons


# --- fairness ---------------------------------------------------------------------------------------------------------


def served(
    tenants: dict[str, tuple[int, list[int]]], *, seconds: int, slots: int = 4, components: int = 1
) -> dict[str, int]:
    """Give the nanoseconds of service of tenants (weight, lengths of their tasks in ms) that never run out of work."""
    scheduler: Scheduler[Run] = Scheduler(Capacity(slots, 1_000, 1_000))
    done = dict.fromkeys(tenants, 0)
    pushed = Counter[str]()

    def feed(tenant_id: str) -> None:
        number = pushed[tenant_id]
        pushed[tenant_id] += 1
        lengths = tenants[tenant_id][1]
        # nothing is known of a length in advance: all are declared as 10 ms
        push(scheduler, tenant_id, Run(tenant_id), number, cost=10_000, component=number % components, age=number)
        assert lengths

    for tenant_id, (weight, _) in tenants.items():
        scheduler.add_tenant(tenant_id, limits=UNLIMITED, weight=weight)
        for _ in range(slots + 1):
            feed(tenant_id)
    now = NOW
    ends: list[tuple[int, int, Grant[Run]]] = []
    while now < NOW + seconds * SECOND:
        while (grant := scheduler.next(now)) is not None:
            lengths = tenants[grant.tenant_id][1]
            ends.append((now + lengths[grant.position % len(lengths)] * SECOND // 1_000, grant.order, grant))
            feed(grant.tenant_id)
        ends.sort(reverse=True)
        now, _, grant = ends.pop()
        scheduler.release(grant, now)
        done[grant.tenant_id] += now - grant.started_at
    return done


def test_tenants_are_served_by_time_and_weight_not_by_number_of_tasks() -> None:
    done = served({"long": (1, [500]), "short": (1, [10]), "heavy": (2, [10, 90])}, seconds=100)
    total = sum(done.values())
    assert done["long"] / total == pytest.approx(1 / 4, abs=0.02)
    assert done["short"] / total == pytest.approx(1 / 4, abs=0.02)
    assert done["heavy"] / total == pytest.approx(2 / 4, abs=0.02)


def test_cutting_a_flood_into_smaller_tasks_or_more_components_gains_nothing() -> None:
    coarse = served({"flood": (1, [100]), "other": (1, [100])}, seconds=50)
    fine = served({"flood": (1, [10]), "other": (1, [100])}, seconds=50)
    spread = served({"flood": (1, [100]), "other": (1, [100])}, seconds=50, components=40)
    # never the same component twice: nothing is ever learnt, the correction at the end is all there is
    always_new = served({"flood": (1, [100]), "other": (1, [10])}, seconds=50, components=10**9)
    for done in (coarse, fine, spread, always_new):
        assert done["flood"] / sum(done.values()) == pytest.approx(1 / 2, abs=0.02)


def trace(names: list[str], factor: int, tasks: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Give the order of starts by the tenant's number."""
    scheduler: Scheduler[Run] = Scheduler(Capacity(2, 100, 100))
    for number, name in enumerate(names):
        scheduler.add_tenant(name, limits=UNLIMITED, weight=(number + 1) * factor)
    for position, (number, cost) in enumerate(tasks):
        push(scheduler, names[number], Run(), position, cost=cost * 1_000)
    order, running = [], start_all(scheduler)
    while running:
        order += [(names.index(grant.tenant_id), grant.position) for grant in running[:1]]
        scheduler.release(running.pop(0), NOW)
        running += start_all(scheduler)
    return order


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 50)), max_size=25))
@settings(max_examples=60)
def test_doubling_all_weights_or_renaming_the_tenants_changes_nothing(tasks: list[tuple[int, int]]) -> None:
    plain = trace(["a", "b", "c"], 1, tasks)
    assert trace(["a", "b", "c"], 2, tasks) == plain
    assert trace(["z", "y", "x"], 1, tasks) == plain


def test_a_long_task_is_charged_while_it_runs() -> None:
    scheduler = scheduler_of("long", "other", capacity=Capacity(2, 10, 10))
    push(scheduler, "long", Run(), 0)
    (grant,) = start_all(scheduler)
    before = grant.charged
    scheduler.correct_long(NOW + 60 * SECOND)
    assert grant.charged == 60_000_000 * grant.dominant > before
    for position in range(1, 40):
        push(scheduler, "long", Run(), position, cost=10**6)
        push(scheduler, "other", Run(), position, cost=10**6)
    order = []
    for second in range(30):
        (started,) = start_all(scheduler, NOW + (60 + second) * SECOND)
        order.append(started.tenant_id)
        scheduler.release(started, NOW + (61 + second) * SECOND)
    assert order.count("other") == 30, "what it ran for is on its account"


# --- what it says about itself ----------------------------------------------------------------------------------------


def test_blockers_come_in_order_with_their_figures_and_the_estimate_follows_from_what_was_learnt() -> None:
    limits = Limits(max_concurrent=1, memory_mb=100, cpu_millis=1_000)
    scheduler = scheduler_of("a", capacity=Capacity(5, 120, 10_000), limits=limits)
    run = Run()
    for position in range(3):
        push(scheduler, "a", run, position, request=Request(80, 1), component="c", age=position)
    first = scheduler.next(NOW)
    assert first is not None
    assert scheduler.explain(run, 1, NOW).estimated_start is None, "nothing is known of how long it takes"
    scheduler.release(first, NOW + 10 * SECOND)
    second = scheduler.next(NOW + 10 * SECOND)
    assert second is not None
    explanation = scheduler.explain(run, 2, NOW + 12 * SECOND)
    assert [b.reason for b in explanation.blockers] == [Reason.CONCURRENCY, Reason.MEMORY, Reason.CAPACITY]
    assert (explanation.blockers[1].limit, explanation.blockers[1].used, explanation.blockers[1].asked) == (100, 80, 80)
    assert explanation.position == 1
    assert explanation.estimated_start == NOW + 20 * SECOND
    assert scheduler.explain(run, 1, NOW).position is None, "it runs"
    push(scheduler, "a", run, 7, at=NOW + 99 * SECOND)
    blockers = scheduler.why(run, 7, NOW + 12 * SECOND, tenant_id="a")
    assert (blockers[0].reason, blockers[0].until) == (Reason.RETRY_DELAY, NOW + 99 * SECOND)


def test_the_snapshot_shows_every_tenant_beside_its_limits() -> None:
    scheduler = scheduler_of("a", "b", capacity=Capacity(4, 1_000, 1_000), limits=replace(UNLIMITED, per_hour=50))
    scheduler.add_tenant("c", limits=UNLIMITED, weight=1, parent="b")
    for position in range(5):
        push(scheduler, "a", Run(), position, request=Request(10, 5))
    push(scheduler, "a", Run(), 9, at=NOW + SECOND)
    for _ in range(3):
        scheduler.next(NOW)
    a, b, c = scheduler.snapshot(NOW)
    assert (a.tenant_id, a.eligible, a.waiting, a.delayed, a.running) == ("a", True, 2, 1, 3)
    assert (a.used, a.hour_used, a.hour_limit, a.share) == (Capacity(3, 30, 15), 3, 50, 750_000)
    assert (a.last_reason, a.fair_share) == (Reason.FAIR_SHARE, 1_000_000)
    assert (b.eligible, b.parent, c.parent) == (False, None, "b")


def test_estimates_are_handed_out_to_be_stored_and_taken_back() -> None:
    scheduler = scheduler_of("a")
    push(scheduler, "a", Run(), component=("flow", 1))
    (grant,) = start_all(scheduler)
    scheduler.release(grant, NOW + SECOND)
    assert scheduler.learnt("a") == {("flow", 1): 1_000_000}
    push(scheduler, "a", Run(), component=("flow", 1))
    (grant,) = start_all(scheduler)
    scheduler.release(grant, NOW + 9 * SECOND, learn=False)
    assert scheduler.learnt("a") == {("flow", 1): 1_000_000}
    fresh = scheduler_of("a")
    fresh.teach("a", scheduler.learnt("a"))
    push(fresh, "a", Run(), component=("flow", 1))
    (again,) = start_all(fresh)
    assert again.charged == 1_000_000 * again.dominant


# --- taking back ------------------------------------------------------------------------------------------------------


def test_every_waiting_task_of_a_run_is_taken_back_wherever_it_waits() -> None:
    scheduler = scheduler_of("a", limits=Limits(max_concurrent=9, memory_mb=10, cpu_millis=9))
    held, other = Run("held"), Run("other")
    for run in (held, other):
        push(scheduler, "a", run, 0)
        push(scheduler, "a", run, 1, at=NOW + 5)
        push(scheduler, "a", run, 2, request=Request(11, 0), rank=9)
        push(scheduler, "a", run, 3, circuit="api", rank=8)
    scheduler.set_gate("a", "api", permits=0)
    assert sorted(grant.position for grant in start_all(scheduler)) == [0, 0]
    push(scheduler, "a", held, 4)
    taken = sorted((run.name, position, at) for run, position, at in scheduler.recall("a", [held]))
    assert taken == [("held", 1, NOW + 5), ("held", 2, 0), ("held", 3, 0), ("held", 4, 0)]
    assert scheduler.recall("a", [held]) == scheduler.recall("nobody", [held]) == []
    scheduler.open_gate("a", "api")
    scheduler.wake(NOW + 9)
    assert sorted((grant.run.name, grant.position) for grant in start_all(scheduler, NOW + 9)) == [
        ("other", 1),
        ("other", 3),
    ]


# --- what kept a task ------------------------------------------------------------------------------------------------


def test_a_grant_says_what_kept_its_queue_from_its_next_task() -> None:
    limits = replace(UNLIMITED, max_concurrent=2, memory_mb=100)
    scheduler = scheduler_of("a", limits=limits)
    scheduler.add_tenant("b", limits=UNLIMITED, weight=1)
    flood(scheduler, "a")
    first, second = start_all(scheduler)
    assert (first.waited_for, second.waited_for) == (None, None)
    scheduler.release(first, NOW)
    (third,) = start_all(scheduler)
    assert third.waited_for is Reason.CONCURRENCY
    push(scheduler, "b", Run(), request=Request(1, 1))
    (free,) = start_all(scheduler)
    assert free.waited_for is None, "what holds another tenant is none of its business"


def test_a_grant_says_that_every_slot_was_taken_or_its_tenant_paused() -> None:
    scheduler = scheduler_of("a", "b", capacity=Capacity(1, 1_000, 1_000))
    for name in "ab":
        push(scheduler, name, Run(), ready=NOW)
    (first,) = start_all(scheduler)
    scheduler.release(first, NOW)
    (second,) = start_all(scheduler)
    assert (first.waited_for, second.waited_for) == (None, Reason.CAPACITY)
    scheduler.release(second, NOW)
    scheduler.pause("a")
    push(scheduler, "a", Run(), ready=NOW + 1)
    assert start_all(scheduler) == []
    scheduler.resume("a")
    (late,) = start_all(scheduler)
    assert late.waited_for is Reason.PAUSED
