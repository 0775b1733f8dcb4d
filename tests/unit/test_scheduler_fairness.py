"""The scheduler beside a model that decides by looking at everything: limits, work conservation, order, fairness."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from synergymesh.domain.fairness import charge
from synergymesh.domain.scheduler import Scheduler

TENANTS = ["a", "b", "c", "d"]


class Run:
    def __init__(self) -> None:
        self.cancelled: set[int] = set()

    def wants(self, position: int) -> bool:
        return position not in self.cancelled


@dataclass
class Model:
    """What a tenant is, seen from outside."""

    max_concurrent: int
    weight: int
    paused: bool = False
    running: int = 0
    ready: dict[int, tuple[int, int, int, int]] = field(default_factory=dict)
    costs: dict[int, int] = field(default_factory=dict)
    largest_charge: int = 0


class SchedulerMachine(RuleBasedStateMachine):
    """Drive a scheduler at random and compare every decision."""

    @initialize(
        capacity=st.integers(1, 6),
        limits=st.lists(st.integers(1, 4), min_size=4, max_size=4),
        weights=st.permutations([1, 2, 4, 16]),
    )
    def begin(self, capacity: int, limits: list[int], weights: list[int]) -> None:
        self.scheduler: Scheduler[Run] = Scheduler(capacity)
        self.run = Run()
        self.tenants = {t: Model(m, w) for t, m, w in zip(TENANTS, limits, weights, strict=True)}
        for tenant_id, model in self.tenants.items():
            self.scheduler.add_tenant(tenant_id, max_concurrent=model.max_concurrent, weight=model.weight)
        self.delayed: dict[int, tuple[str, int]] = {}
        self.tags: dict[int, tuple[int, int, int, int]] = {}
        self.positions = 0
        self.now = 0
        self.virtual_time = 0
        # charges of both since both of a pair became eligible
        self.shares: dict[tuple[str, str], list[int]] = {}

    def is_eligible(self, tenant_id: str) -> bool:
        model = self.tenants[tenant_id]
        return not model.paused and model.running < model.max_concurrent and bool(self.wanted(model))

    def wanted(self, model: Model) -> list[int]:
        return [p for p in model.ready if self.run.wants(p)]

    @rule(
        tenant_id=st.sampled_from(TENANTS),
        priority=st.integers(-1, 1),
        age=st.integers(0, 2),
        rank=st.integers(0, 2),
        cost=st.sampled_from([0, 500, 1_000, 3_000, 50_000]),
        delay=st.sampled_from([0, 0, 0, 0, 1, 5]),
        count=st.integers(1, 6),
    )
    def push(self, tenant_id: str, priority: int, age: int, rank: int, cost: int, delay: int, count: int) -> None:
        for _ in range(count):
            self.positions += 1
            position = self.positions
            at = self.now + delay if delay else 0
            self.scheduler.push(tenant_id, self.run, position, priority=priority, age=age, rank=rank, cost=cost, at=at)
            model = self.tenants[tenant_id]
            model.costs[position] = cost
            self.tags[position] = (-priority, age, -rank, position)
            if at:
                self.delayed[position] = (tenant_id, at)
            else:
                model.ready[position] = self.tags[position]

    @rule(step=st.integers(0, 3))
    def pass_time(self, step: int) -> None:
        self.now += step
        assert self.scheduler.next_due() == min((at for _, at in self.delayed.values()), default=None)
        self.scheduler.wake(self.now)
        for position, (tenant_id, at) in list(self.delayed.items()):
            if at <= self.now:
                del self.delayed[position]
                self.tenants[tenant_id].ready[position] = self.tags[position]

    @rule(position=st.integers(1, 60))
    def cancel(self, position: int) -> None:
        self.run.cancelled.add(position)
        # a task that is pushed later has to be wanted
        if position > self.positions:
            self.run.cancelled.discard(position)

    @rule(tenant_id=st.sampled_from(TENANTS))
    def pause_or_resume(self, tenant_id: str) -> None:
        model = self.tenants[tenant_id]
        model.paused = not model.paused
        (self.scheduler.pause if model.paused else self.scheduler.resume)(tenant_id)

    @rule(tenant_id=st.sampled_from(TENANTS), max_concurrent=st.integers(1, 4))
    def change_limit(self, tenant_id: str, max_concurrent: int) -> None:
        model = self.tenants[tenant_id]
        model.max_concurrent = max_concurrent
        self.scheduler.add_tenant(tenant_id, max_concurrent=max_concurrent, weight=model.weight)

    @rule(count=st.integers(1, 8))
    def dispatch(self, count: int) -> None:
        for _ in range(count):
            self.dispatch_one()

    def dispatch_one(self) -> None:
        eligible = [t for t in TENANTS if self.is_eligible(t)]
        has_room = self.running() < self.scheduler.capacity
        ready = self.scheduler.next()
        assert (ready is not None) is (has_room and bool(eligible)), "work is conserved"
        if ready is None:
            return
        tenant_id = next(t for t in TENANTS if ready.position in self.tenants[t].ready)
        model = self.tenants[tenant_id]
        assert tenant_id in eligible
        assert ready.position == min(self.wanted(model), key=lambda p: model.ready[p]), "the most urgent first"
        del model.ready[ready.position]
        model.running += 1
        amount = charge(model.costs[ready.position], model.weight)
        model.largest_charge = max(model.largest_charge, amount)
        for pair, served in self.shares.items():
            if tenant_id in pair:
                served[pair.index(tenant_id)] += amount
        self.check_shares()

    @precondition(lambda self: any(model.running for model in self.tenants.values()))
    @rule(chosen=st.integers(0, 3))
    def release(self, chosen: int) -> None:
        busy = [t for t in TENANTS if self.tenants[t].running]
        tenant_id = busy[chosen % len(busy)]
        self.tenants[tenant_id].running -= 1
        self.scheduler.release(tenant_id)

    def running(self) -> int:
        return sum(model.running for model in self.tenants.values())

    @invariant()
    def no_limit_is_exceeded_and_usage_is_what_runs(self) -> None:
        assert self.scheduler.running == self.running() <= self.scheduler.capacity
        for tenant_id, model in self.tenants.items():
            assert self.scheduler.running_of(tenant_id) == model.running <= 4

    @invariant()
    def virtual_time_never_goes_back(self) -> None:
        assert self.scheduler._virtual_time >= self.virtual_time
        self.virtual_time = self.scheduler._virtual_time

    @invariant()
    def check_shares(self) -> None:
        """Those that stay eligible are served in proportion to their weights, within one charge of each."""
        for pair in combinations(TENANTS, 2):
            if not all(map(self.is_eligible, pair)):
                self.shares.pop(pair, None)
                continue
            first, second = self.shares.setdefault(pair, [0, 0])
            bound = sum(self.tenants[t].largest_charge for t in pair)
            assert abs(first - second) <= bound, pair


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def served_costs(weights: dict[str, int], costs: dict[str, int], dispatches: int) -> dict[str, int]:
    """Give what each of some tenants that never run out of work was served."""
    scheduler: Scheduler[Run] = Scheduler(1)
    run = Run()
    for tenant_id, weight in weights.items():
        scheduler.add_tenant(tenant_id, max_concurrent=1, weight=weight)
    served = dict.fromkeys(weights, 0)
    names = list(weights)
    for position, tenant_id in enumerate(names):
        for _ in range(2):
            scheduler.push(tenant_id, run, position, priority=0, age=0, rank=0, cost=costs[tenant_id])
    for _ in range(dispatches):
        ready = scheduler.next()
        assert ready is not None
        tenant_id = names[ready.position]
        served[tenant_id] += ready.cost
        scheduler.push(tenant_id, run, ready.position, priority=0, age=0, rank=0, cost=costs[tenant_id])
        scheduler.release(tenant_id)
    return served


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.sampled_from([1, 2, 3, 4, 16]), min_size=2, max_size=5),
    st.lists(st.integers(1_000, 50_000), min_size=5, max_size=5),
)
def test_tenants_that_always_want_more_are_served_by_weight_however_long_their_tasks_are(
    weights: list[int], costs: list[int]
) -> None:
    names = TENANTS[: len(weights)] if len(weights) <= 4 else [*TENANTS, "e"]
    weight_of = dict(zip(names, weights, strict=True))
    cost_of = dict(zip(names, costs, strict=False))
    served = served_costs(weight_of, cost_of, 400)
    for i, j in combinations(names, 2):
        difference = abs(served[i] / weight_of[i] - served[j] / weight_of[j])
        assert difference <= cost_of[i] / weight_of[i] + cost_of[j] / weight_of[j] + 1e-6


def test_doubling_all_weights_changes_nothing() -> None:
    costs = {"a": 3_000, "b": 5_000, "c": 1_000}
    once = served_costs({"a": 1, "b": 2, "c": 4}, costs, 500)
    assert served_costs({"a": 2, "b": 4, "c": 8}, costs, 500) == once


def test_cutting_work_into_more_tasks_of_the_same_total_gains_nothing() -> None:
    served = served_costs({"a": 1, "b": 1}, {"a": 1_000, "b": 50_000}, 510)
    assert served["a"] <= served["b"] + 51_000


def test_a_newcomer_is_served_before_anybody_else_is_served_twice_behind_any_backlog() -> None:
    scheduler: Scheduler[Run] = Scheduler(1)
    run = Run()
    flood = [f"t{number}" for number in range(20)]
    for tenant_id in flood:
        scheduler.add_tenant(tenant_id, max_concurrent=1, weight=16)
        for _ in range(50):
            scheduler.push(tenant_id, run, 0, priority=1_000, age=0, rank=10**9, cost=1_000)
    for _ in range(300):
        ready = scheduler.next()
        assert ready is not None
        for tenant_id in flood:
            if scheduler.running_of(tenant_id):
                scheduler.release(tenant_id)
    scheduler.add_tenant("new", max_concurrent=1, weight=1)
    scheduler.push("new", run, 7, priority=-1_000, age=10**9, rank=0, cost=10**12)
    dispatches = 0
    ready = None
    while ready is None or ready.position != 7:
        dispatches += 1
        ready = scheduler.next()
        assert ready is not None
        for tenant_id in flood:
            if scheduler.running_of(tenant_id):
                scheduler.release(tenant_id)
    assert dispatches <= len(flood) + 1


def test_a_tenant_that_was_away_claims_nothing_for_the_past() -> None:
    scheduler: Scheduler[Run] = Scheduler(1)
    run = Run()
    for tenant_id in ("busy", "away"):
        scheduler.add_tenant(tenant_id, max_concurrent=1, weight=1)
    order = []

    def dispatch() -> None:
        ready = scheduler.next()
        assert ready is not None
        order.append(ready.position)
        scheduler.release("busy" if ready.position == 0 else "away")

    for _ in range(200):
        scheduler.push("busy", run, 0, priority=0, age=0, rank=0, cost=1_000)
    for _ in range(100):
        dispatch()
    for _ in range(50):
        scheduler.push("away", run, 1, priority=0, age=0, rank=0, cost=1_000)
    order.clear()
    for _ in range(40):
        dispatch()
    assert abs(order.count(0) - order.count(1)) <= 1
