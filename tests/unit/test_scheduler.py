"""Which task starts next: order inside a tenant, limits, delays, pauses."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synergymesh.domain.fairness import COST_MIN_MICROSECONDS, SCALE, charge
from synergymesh.domain.scheduler import Scheduler


class Run:
    """A run whose tasks want to be started until they are cancelled."""

    def __init__(self, name: str = "run") -> None:
        self.name = name
        self.cancelled: set[int] = set()

    def wants(self, position: int) -> bool:
        return position not in self.cancelled


def scheduler_of(capacity: int = 100, **limits: int) -> Scheduler[Run]:
    scheduler: Scheduler[Run] = Scheduler(capacity)
    for tenant_id, max_concurrent in limits.items():
        scheduler.add_tenant(tenant_id, max_concurrent=max_concurrent, weight=1)
    return scheduler


def push(scheduler: Scheduler[Run], tenant_id: str, run: Run, position: int = 0, **given: Any) -> None:
    settings: dict[str, Any] = {"priority": 0, "age": 1, "rank": 0, "cost": 1_000, **given}
    scheduler.push(tenant_id, run, position, **settings)


def started(scheduler: Scheduler[Run]) -> list[int]:
    positions = []
    while (ready := scheduler.next()) is not None:
        positions.append(ready.position)
    return positions


def test_the_higher_priority_goes_first_then_the_older_run_then_the_longer_path_then_the_first_come() -> None:
    scheduler = scheduler_of(a=100)
    run = Run()
    tasks = [
        {"priority": 0, "age": 1, "rank": 9},
        {"priority": 5, "age": 7, "rank": 1},
        {"priority": 5, "age": 2, "rank": 1},
        {"priority": 5, "age": 2, "rank": 8},
        {"priority": 5, "age": 2, "rank": 8},
        {"priority": -1, "age": 0, "rank": 99},
    ]
    for position, task in enumerate(tasks):
        push(scheduler, "a", run, position, **task)
    assert started(scheduler) == [3, 4, 2, 1, 0, 5]


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 3), st.integers(0, 3)), max_size=40))
def test_tasks_of_a_tenant_come_in_the_order_of_urgency(tasks: list[tuple[int, int, int]]) -> None:
    scheduler = scheduler_of(a=100)
    run = Run()
    for position, (priority, age, rank) in enumerate(tasks):
        push(scheduler, "a", run, position, priority=priority, age=age, rank=rank)
    expected = sorted(range(len(tasks)), key=lambda p: (-tasks[p][0], tasks[p][1], -tasks[p][2], p))
    assert started(scheduler) == expected


def test_a_tenant_stops_at_its_limit_and_goes_on_when_a_slot_is_given_back() -> None:
    scheduler = scheduler_of(a=2)
    run = Run()
    for position in range(4):
        push(scheduler, "a", run, position)
    assert started(scheduler) == [0, 1]
    assert (scheduler.running_of("a"), scheduler.waiting_of("a")) == (2, 2)
    scheduler.release("a")
    assert started(scheduler) == [2]


def test_a_tenant_at_its_limit_does_not_hold_up_another_one() -> None:
    scheduler = scheduler_of(a=1, b=1)
    run = Run()
    for position in range(3):
        push(scheduler, "a", run, position, priority=1_000)
    push(scheduler, "b", run, 9)
    assert sorted(started(scheduler)) == [0, 9]


def test_the_capacity_limits_all_tenants_together() -> None:
    scheduler = scheduler_of(capacity=3, a=2, b=2)
    run = Run()
    for position in range(3):
        push(scheduler, "a", run, position)
        push(scheduler, "b", run, position)
    assert len(started(scheduler)) == 3
    assert scheduler.running == 3
    scheduler.release("a")
    scheduler.release("b")
    assert len(started(scheduler)) == 2


def test_a_paused_tenant_starts_nothing_until_it_is_resumed() -> None:
    scheduler = scheduler_of(a=5)
    run = Run()
    push(scheduler, "a", run, 0)
    scheduler.pause("a")
    push(scheduler, "a", run, 1)
    assert started(scheduler) == []
    scheduler.resume("a")
    assert started(scheduler) == [0, 1]


def test_a_pause_between_push_and_resume_loses_nothing() -> None:
    scheduler = scheduler_of(a=5)
    push(scheduler, "a", Run(), 0)
    scheduler.pause("a")
    scheduler.resume("a")
    assert started(scheduler) == [0]


def test_a_higher_limit_takes_effect_at_the_next_decision_and_a_lower_one_stops_nothing() -> None:
    scheduler = scheduler_of(a=1)
    run = Run()
    for position in range(6):
        push(scheduler, "a", run, position)
    assert started(scheduler) == [0]
    scheduler.add_tenant("a", max_concurrent=3, weight=1)
    assert started(scheduler) == [1, 2]
    scheduler.add_tenant("a", max_concurrent=1, weight=1)
    scheduler.release("a")
    scheduler.release("a")
    assert started(scheduler) == []
    scheduler.release("a")
    assert started(scheduler) == [3]


def test_a_delayed_task_starts_when_its_moment_has_come_and_not_before() -> None:
    scheduler = scheduler_of(a=5)
    run = Run()
    push(scheduler, "a", run, 0, at=100)
    push(scheduler, "a", run, 1, at=50)
    assert scheduler.next_due() == 50
    scheduler.wake(49)
    assert started(scheduler) == []
    scheduler.wake(50)
    assert started(scheduler) == [1]
    assert scheduler.next_due() == 100
    scheduler.wake(1_000)
    assert started(scheduler) == [0]
    assert scheduler.next_due() is None


def test_a_cancelled_task_is_dropped_and_takes_no_slot() -> None:
    scheduler = scheduler_of(a=1)
    run = Run()
    for position in range(3):
        push(scheduler, "a", run, position)
    push(scheduler, "a", run, 3, at=5)
    run.cancelled = {0, 1, 3}
    assert started(scheduler) == [2]
    scheduler.release("a")
    scheduler.wake(5)
    assert started(scheduler) == []
    assert scheduler.running == 0


def test_tasks_of_a_tenant_that_is_not_known_or_was_removed_are_dropped() -> None:
    scheduler = scheduler_of(a=5)
    run = Run()
    push(scheduler, "nobody", run, 0)
    push(scheduler, "a", run, 1)
    push(scheduler, "a", run, 2)
    push(scheduler, "a", run, 3, at=5)
    assert scheduler.next() is not None
    scheduler.remove_tenant("a")
    scheduler.remove_tenant("a")
    scheduler.wake(5)
    assert started(scheduler) == []
    scheduler.release("a")
    assert scheduler.running == 0
    assert (scheduler.running_of("a"), scheduler.waiting_of("a")) == (0, 0)


@given(st.integers(0, 10**12), st.sampled_from([1, 2, 4, 16]))
def test_a_charge_is_exact_for_the_usual_weights(cost: int, weight: int) -> None:
    assert charge(cost, weight) * weight == max(cost, COST_MIN_MICROSECONDS) * SCALE


@pytest.mark.parametrize("weight", range(1, 17))
def test_the_scale_is_divisible_by_every_weight_up_to_sixteen(weight: int) -> None:
    assert SCALE % weight == 0
