"""Gates of the scheduler: what a circuit holds back takes no slot and no place, and comes back in its order."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from synergymesh.domain.instants import SECOND
from synergymesh.domain.scheduling.explain import Reason
from synergymesh.domain.scheduling.limits import UNLIMITED, Capacity, Limits
from synergymesh.domain.scheduling.scheduler import Scheduler

NOW = 10**18
API = ("", "api")


class Run:
    def __init__(self, name: str = "") -> None:
        self.name = name
        self.cancelled: set[int] = set()

    def wants(self, position: int) -> bool:
        return position not in self.cancelled


def scheduler_of(*tenants: str, limits: Limits = UNLIMITED) -> Scheduler[Run]:
    scheduler: Scheduler[Run] = Scheduler(Capacity(1_000, 10**6, 10**6), records_reservations=False)
    for tenant_id in tenants:
        scheduler.add_tenant(tenant_id, limits=limits, weight=1)
    return scheduler


def push(scheduler: Scheduler[Run], tenant_id: str, run: Run, position: int = 0, **wanted: Any) -> None:
    scheduler.push(tenant_id, run, position, **({"priority": 0, "age": 0, "rank": 0, "cost": 1_000} | wanted))


def started(scheduler: Scheduler[Run]) -> list[str]:
    names = []
    while (grant := scheduler.next(NOW)) is not None:
        names.append(grant.run.name)
    return names


def test_a_closed_gate_holds_one_circuit_of_one_tenant_back_and_nothing_else() -> None:
    scheduler = scheduler_of("a", "b")
    scheduler.set_gate("a", API, permits=0, until=NOW + SECOND)
    for tenant_id in "ab":
        push(scheduler, tenant_id, Run(f"{tenant_id} api"), circuit=API, priority=9)
        push(scheduler, tenant_id, Run(f"{tenant_id} other"), circuit=("w", "c"))
    assert sorted(started(scheduler)) == ["a other", "b api", "b other"]
    assert scheduler.running == 3
    view = {each.tenant_id: each for each in scheduler.snapshot(NOW)}
    assert (view["a"].waiting, view["a"].parked, view["a"].running) == (0, 1, 1)
    scheduler.open_gate("a", API)
    assert started(scheduler) == ["a api"]


def test_what_a_gate_holds_back_says_so_and_when_it_is_tried_again() -> None:
    scheduler = scheduler_of("a")
    run = Run("held")
    scheduler.set_gate("a", API, permits=0, until=NOW + 30 * SECOND)
    push(scheduler, "a", run, circuit=API)
    for _ in range(2):  # before and after it was parked
        explained = scheduler.explain(run, 0, NOW)
        assert [blocker.reason for blocker in explained.blockers] == [Reason.CIRCUIT_OPEN]
        assert (explained.blockers[0].resource, explained.blockers[0].until) == ("api", NOW + 30 * SECOND)
        assert explained.estimated_start == NOW + 30 * SECOND
        assert started(scheduler) == []


def test_starts_of_the_rolling_hour_are_not_spent_on_what_is_held_back() -> None:
    scheduler = scheduler_of("a", limits=replace(UNLIMITED, per_hour=2))
    scheduler.set_gate("a", API, permits=0)
    for n in range(50):
        push(scheduler, "a", Run(f"held {n}"), circuit=API, priority=9)
    for n in range(2):
        push(scheduler, "a", Run(f"free {n}"))
    assert started(scheduler) == ["free 0", "free 1"]


def test_what_was_cancelled_takes_no_permit() -> None:
    scheduler = scheduler_of("a")
    scheduler.set_gate("a", API, permits=0)
    gone = Run("gone")
    push(scheduler, "a", gone, circuit=API)
    push(scheduler, "a", Run("kept"), circuit=API)
    assert started(scheduler) == []
    gone.cancelled.add(0)
    scheduler.set_gate("a", API, permits=1)
    assert started(scheduler) == ["kept"]


def test_runs_that_are_taken_back_leave_the_gate_too() -> None:
    scheduler = scheduler_of("a")
    scheduler.set_gate("a", API, permits=0)
    runs = [Run(str(n)) for n in range(4)]
    for run in runs:
        push(scheduler, "a", run, circuit=API)
    assert started(scheduler) == []
    scheduler.withdraw("a", runs[1:3])
    scheduler.open_gate("a", API)
    assert started(scheduler) == ["0", "3"]


def test_gates_of_tenants_that_are_not_there_are_nothing() -> None:
    scheduler = scheduler_of("a")
    scheduler.set_gate("nobody", API, permits=0)
    scheduler.permit("nobody", API, 1)
    scheduler.permit("a", API, 1)
    scheduler.open_gate("nobody", API)
    scheduler.open_gate("a", API)
    scheduler.set_gate("a", API, permits=0)
    scheduler.remove_tenant("a")
    scheduler.open_gate("a", API)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.integers(0, 2), st.integers(-3, 3)),
        st.tuples(st.just("gate"), st.integers(0, 2), st.integers(0, 3)),
        st.tuples(st.just("permit"), st.integers(0, 2), st.integers(1, 3)),
        st.tuples(st.just("open"), st.integers(0, 2), st.just(0)),
        st.tuples(st.just("start"), st.just(0), st.just(0)),
    ),
    max_size=80,
)


@given(steps)
def test_gates_agree_with_a_list_from_which_the_most_urgent_permitted_task_is_taken(
    script: list[tuple[str, int, int]],
) -> None:
    scheduler = scheduler_of("a")
    waiting: list[tuple[int, int, int]] = []
    permits: dict[int, int] = {}
    for number, (verb, circuit, figure) in enumerate(script):
        match verb:
            case "push":
                push(scheduler, "a", Run(str(number)), circuit=("w", str(circuit)), priority=figure)
                waiting.append((-figure, number, circuit))
            case "gate":
                scheduler.set_gate("a", ("w", str(circuit)), permits=figure)
                permits[circuit] = figure
            case "permit":
                scheduler.permit("a", ("w", str(circuit)), figure)
                if circuit in permits:
                    permits[circuit] += figure
            case "open":
                scheduler.open_gate("a", ("w", str(circuit)))
                permits.pop(circuit, None)
            case _:
                grant = scheduler.next(NOW)
                allowed = sorted(item for item in waiting if permits.get(item[2], 1) > 0)
                assert (grant is None) is (not allowed)
                if grant is not None:
                    assert grant.run.name == str(allowed[0][1])
                    waiting.remove(allowed[0])
                    if allowed[0][2] in permits:
                        permits[allowed[0][2]] -= 1
    for circuit in range(3):
        scheduler.open_gate("a", ("w", str(circuit)))
    assert started(scheduler) == [str(number) for _, number, _ in sorted(waiting)]
