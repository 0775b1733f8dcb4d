"""The scheduler beside a model that decides by looking at everything: the nine properties, at every step."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from synergymesh.domain.instants import SECOND, Instant
from synergymesh.domain.scheduling.explain import Reason
from synergymesh.domain.scheduling.grants import Grant, usage_from
from synergymesh.domain.scheduling.limits import MINUTE, WINDOW_MINUTES, Capacity, Limits, Request
from synergymesh.domain.scheduling.scheduler import Scheduler
from synergymesh.domain.scheduling.tenant_queue import DEBT_MAX

TENANTS = ["a", "b", "c", "d"]
HOUR = 3_600 * SECOND
SMALL, MIDDLE, LARGE = Request(1, 1), Request(2, 1), Request(5, 3)


class Run:
    def __init__(self) -> None:
        self.gone: set[int] = set()

    def wants(self, position: int) -> bool:
        return position not in self.gone


@dataclass
class Task:
    """A task that waits, seen from outside."""

    tag: tuple[int, int, int, int]
    priority: int
    since: Instant
    request: Request
    cost: int
    component: int
    at: Instant


@dataclass
class Model:
    """What a tenant is, seen from outside."""

    limits: Limits
    weight: int
    paused: bool = False
    waiting: dict[int, Task] = field(default_factory=dict)
    running: dict[int, Grant[Run]] = field(default_factory=dict)
    starts: list[Instant] = field(default_factory=list)
    counted: dict[int, int] = field(default_factory=dict)
    written: dict[int, int] = field(default_factory=dict)
    largest_step: int = 0

    def used(self) -> Capacity:
        requests = [grant.request for grant in self.running.values()]
        return Capacity(len(requests), sum(r.memory_mb for r in requests), sum(r.cpu_millis for r in requests))


limits = st.builds(
    Limits,
    max_concurrent=st.integers(1, 4),
    memory_mb=st.integers(2, 9),
    cpu_millis=st.integers(1, 9),
    per_hour=st.sampled_from([None, None, 3, 7, 400]),
)


class SchedulerMachine(RuleBasedStateMachine):
    """Drive a scheduler at random and compare every decision."""

    @initialize(
        slots=st.integers(1, 6),
        memory_mb=st.integers(4, 12),
        limits=st.lists(limits, min_size=4, max_size=4),
        weights=st.permutations([1, 2, 4, 16]),
    )
    def begin(self, slots: int, memory_mb: int, limits: list[Limits], weights: list[int]) -> None:
        self.run = Run()
        self.capacity = Capacity(slots, memory_mb, 8)
        self.tenants = {t: Model(m, w) for t, m, w in zip(TENANTS, limits, weights, strict=True)}
        self.positions = 0
        self.now = 1_000 * HOUR
        self.highest_limit: dict[str, int] = {}
        self.make_scheduler()

    def make_scheduler(self) -> None:
        self.scheduler: Scheduler[Run] = Scheduler(self.capacity)
        for tenant_id, model in self.tenants.items():
            self.scheduler.add_tenant(tenant_id, limits=model.limits, weight=model.weight)
            if model.paused:
                self.scheduler.pause(tenant_id)
        self.virtual_time = 0
        # how far the tags of both have moved since both of a pair became eligible
        self.moved: dict[tuple[str, str], list[int]] = {}
        # who was served since a tenant without debt became eligible
        self.served_before: dict[str, list[str]] = {}

    # --- the model --------------------------------------------------------------------------------------------------

    def effective_now(self) -> Instant:
        return max(self.now, self.scheduler._now)

    def can_ever_run(self, model: Model, task: Task) -> bool:
        return (
            task.request.memory_mb <= min(model.limits.memory_mb, self.capacity.memory_mb)
            and task.request.cpu_millis <= min(model.limits.cpu_millis, self.capacity.cpu_millis)
        )  # fmt: skip

    def head(self, model: Model) -> int | None:
        heads = [
            p
            for p, task in model.waiting.items()
            if not task.at and self.run.wants(p) and self.can_ever_run(model, task)
        ]
        return min(heads, key=lambda p: model.waiting[p].tag, default=None)

    def hour_has_room(self, model: Model) -> bool:
        if model.limits.per_hour is None:
            return True
        minute = max(self.effective_now() // MINUTE, max(model.counted, default=0))
        spent = sum(count for m, count in model.counted.items() if m > minute - WINDOW_MINUTES)
        return spent < model.limits.per_hour

    def is_eligible(self, tenant_id: str) -> bool:
        """Nothing of its own holds it, and its head fits what is free and not kept for another."""
        model = self.tenants[tenant_id]
        position = self.head(model)
        if position is None or model.paused or not self.hour_has_room(model):
            return False
        request = model.waiting[position].request
        used = model.used()
        return (
            used.slots < model.limits.max_concurrent
            and used.memory_mb + request.memory_mb <= model.limits.memory_mb
            and used.cpu_millis + request.cpu_millis <= model.limits.cpu_millis
            and self.scheduler._root.fits(self.scheduler._members[tenant_id], request)
        )

    def stays_eligible(self, tenant_id: str) -> bool:
        """It is eligible, and does not wait until a reservation is written down."""
        if not self.is_eligible(tenant_id):
            return False
        hour = self.scheduler._queues[tenant_id].hour
        needs_one = self.tenants[tenant_id].limits.per_hour is not None
        return not needs_one or (hour is not None and hour.has_room(self.effective_now()))

    # --- what happens -----------------------------------------------------------------------------------------------

    @rule(
        tenant_id=st.sampled_from(TENANTS),
        priority=st.integers(-1, 1),
        age=st.integers(0, 2),
        rank=st.integers(0, 2),
        cost=st.sampled_from([0, 500, 3_000, 50_000, 10**9]),
        request=st.sampled_from([SMALL, SMALL, MIDDLE, LARGE]),
        component=st.integers(0, 2),
        delay=st.sampled_from([0, 0, 0, 0, 1, 40]),
        count=st.integers(1, 5),
    )
    def push(
        self,
        tenant_id: str,
        priority: int,
        age: int,
        rank: int,
        cost: int,
        request: Request,
        component: int,
        delay: int,
        count: int,
    ) -> None:
        for _ in range(count):
            self.positions += 1
            since = self.now
            tag = (since // MINUTE - priority, age, -rank, self.positions)
            at = self.now + delay * SECOND if delay else 0
            task = Task(tag, priority, since, request, cost, component, at)
            self.tenants[tenant_id].waiting[self.positions] = task
            self.hand_over(tenant_id, self.positions, task)

    def hand_over(self, tenant_id: str, position: int, task: Task) -> None:
        self.scheduler.push(
            tenant_id,
            self.run,
            position,
            priority=task.priority,
            age=task.tag[1],
            rank=-task.tag[2],
            cost=task.cost,
            request=task.request,
            component=task.component,
            since=task.since,
            at=task.at,
        )

    @rule(seconds=st.sampled_from([0, 1, 5, 30, 61, 600, 3_000, 3_660, -5, -700]))
    def pass_time(self, seconds: int) -> None:
        self.now += seconds * SECOND
        self.wake()

    def wake(self) -> None:
        self.scheduler.wake(self.now)
        for model in self.tenants.values():
            for task in model.waiting.values():
                if task.at and task.at <= max(self.now, self.scheduler._now):
                    task.at = 0

    @precondition(lambda self: any(model.waiting for model in self.tenants.values()))
    @rule(chosen=st.integers(0, 100))
    def cancel(self, chosen: int) -> None:
        waiting = [(t, p) for t, model in self.tenants.items() for p in model.waiting]
        tenant_id, position = waiting[chosen % len(waiting)]
        self.run.gone.add(position)
        del self.tenants[tenant_id].waiting[position]
        self.scheduler.refresh(tenant_id)

    @rule(tenant_id=st.sampled_from(TENANTS))
    def pause_or_resume(self, tenant_id: str) -> None:
        model = self.tenants[tenant_id]
        model.paused = not model.paused
        (self.scheduler.pause if model.paused else self.scheduler.resume)(tenant_id)

    @rule(tenant_id=st.sampled_from(TENANTS), limits=limits, weight=st.sampled_from([1, 2, 4, 16]))
    def change_quota(self, tenant_id: str, limits: Limits, weight: int) -> None:
        model = self.tenants[tenant_id]
        if (limits.per_hour is None) is not (model.limits.per_hour is None):
            limits = Limits(
                max_concurrent=limits.max_concurrent,
                memory_mb=limits.memory_mb,
                cpu_millis=limits.cpu_millis,
                per_hour=model.limits.per_hour,
            )
        model.limits, model.weight = limits, weight
        self.scheduler.add_tenant(tenant_id, limits=limits, weight=weight)

    @rule(slots=st.integers(1, 6), memory_mb=st.integers(4, 12))
    def change_capacity(self, slots: int, memory_mb: int) -> None:
        self.capacity = Capacity(slots, memory_mb, 8)
        self.scheduler.set_capacity(self.capacity)

    @rule(count=st.integers(1, 8))
    def dispatch(self, count: int) -> None:
        for _ in range(count):
            if self.dispatch_one() is None:
                return

    def write_reservations(self) -> bool:
        pending = self.scheduler.pending_reservations(self.now)
        for tenant_id, reservation in pending:
            self.tenants[tenant_id].written.update(reservation.rows)
            self.scheduler.reserved(tenant_id, reservation)
        return bool(pending)

    def dispatch_one(self) -> Grant[Run] | None:
        while True:
            eligible = [t for t in TENANTS if self.is_eligible(t)]
            self.follow_eligibility(eligible)
            tags = {t: self.scheduler._queues[t].start_tag for t in TENANTS}
            grant = self.scheduler.next(self.now)
            if grant is not None or not self.write_reservations():
                break
        if grant is None:
            assert not eligible, "work is conserved"
            return None
        tenant_id = grant.tenant_id
        model = self.tenants[tenant_id]
        assert tenant_id in eligible
        assert grant.position == self.head(model), "the most urgent first"
        assert grant.request == model.waiting[grant.position].request
        del model.waiting[grant.position]
        model.running[grant.position] = grant
        self.run.gone.add(grant.position)
        self.count_start(model, grant)
        step = self.scheduler._queues[tenant_id].start_tag - tags[tenant_id]
        assert 0 < step <= DEBT_MAX // model.weight, "forward, and not too far"
        model.largest_step = max(model.largest_step, step)
        for pair, moved in self.moved.items():
            if tenant_id in pair:
                moved[pair.index(tenant_id)] += step
        for waiting, served in self.served_before.items():
            served.append(tenant_id)
            assert waiting == tenant_id or served.count(tenant_id) == 1, "everybody else at most once before it"
        self.served_before.pop(tenant_id, None)
        self.check_shares()
        return grant

    def count_start(self, model: Model, grant: Grant[Run]) -> None:
        used = model.used()
        assert used.slots <= model.limits.max_concurrent
        assert used.memory_mb <= model.limits.memory_mb
        assert used.cpu_millis <= model.limits.cpu_millis
        total = [sum(figures) for figures in zip(*(m.used() for m in self.tenants.values()), strict=True)]
        assert all(taken <= most for taken, most in zip(total, self.capacity, strict=True))
        model.starts.append(grant.started_at)
        if model.limits.per_hour is not None:
            minute = max(grant.started_at // MINUTE, max(model.counted, default=0))
            model.counted[minute] = model.counted.get(minute, 0) + 1
            assert model.written.get(minute, 0) >= model.counted[minute], "written down before it is used"
            end = grant.started_at
            assert sum(end - HOUR < s <= end for s in model.starts) <= model.limits.per_hour, "any rolling hour"

    @precondition(lambda self: any(model.running for model in self.tenants.values()))
    @rule(chosen=st.integers(0, 5), milliseconds=st.sampled_from([0, 1, 20, 3_000]), fails=st.booleans())
    def end(self, chosen: int, milliseconds: int, fails: bool) -> None:
        busy = [(t, p) for t in TENANTS for p in self.tenants[t].running]
        tenant_id, position = busy[chosen % len(busy)]
        self.now += milliseconds * SECOND // 1_000
        grant = self.tenants[tenant_id].running.pop(position)
        self.scheduler.release(grant, self.now, learn=not fails)
        if fails:
            self.push(tenant_id, 0, 0, 0, 3_000, grant.request, 1, 1, 1)

    @rule()
    def charge_long_tasks(self) -> None:
        self.scheduler.correct_long(self.now)

    @rule()
    def take_over(self) -> None:
        """The process died; the rows of what runs, what waits and what was reserved are what there is."""
        self.make_scheduler()
        for tenant_id, model in self.tenants.items():
            if model.limits.per_hour is not None:
                self.scheduler.restore_hour(tenant_id, list(model.written.items()))
                model.counted = dict(model.written)
            for position, grant in list(model.running.items()):
                model.running[position] = self.scheduler.adopt(
                    tenant_id,
                    self.run,
                    position,
                    cost=3_000,
                    request=grant.request,
                    component=grant.component,
                    started_at=grant.started_at,
                )
            for position, task in sorted(model.waiting.items()):
                self.hand_over(tenant_id, position, task)
        self.wake()

    @precondition(lambda self: any(model.waiting for model in self.tenants.values()))
    @rule(chosen=st.integers(0, 100))
    def ask_why(self, chosen: int) -> None:
        """Removing the first blocker starts the task or shows the next one."""
        self.wake()
        waiting = [(t, p) for t, model in self.tenants.items() for p in model.waiting]
        tenant_id, position = waiting[chosen % len(waiting)]
        model = self.tenants[tenant_id]
        for _ in range(12):
            blockers = self.scheduler.why(self.run, position, self.now)
            if not blockers:
                grant = self.dispatch_one()
                assert grant is not None, "nothing blocks it, but it does not start"
                assert grant.position == position
                return
            first = blockers[0]
            self.remove_blocker(model, tenant_id, first.reason, first.resource, first.asked or 0, first.used or 0)
            if first.reason is Reason.RETRY_DELAY:
                assert first.until is not None
                self.now = first.until
                self.wake()
            elif first.reason is Reason.FAIR_SHARE:
                grant = self.dispatch_one()
                assert grant is not None, (blockers, "others go first, but nothing starts")
                assert grant.position != position
                return
            elif first.resource == "kept for others" or (first.reason is Reason.HOUR_LIMIT and first.until is None):
                return
            after = self.scheduler.why(self.run, position, self.now)
            # an hour with room again may still wait for its reservation to be written down, which has no moment
            names = [(b.reason, b.resource, b.asked, b.until is None) for b in (first, *after)]
            assert names[0] not in names[1:], (blockers, after)

    def remove_blocker(
        self, model: Model, tenant_id: str, reason: Reason, resource: str, asked: int, used: int
    ) -> None:
        known = model.limits
        changed = {
            Reason.CONCURRENCY: ("max_concurrent", used + asked),
            Reason.MEMORY: ("memory_mb", used + asked),
            Reason.CPU: ("cpu_millis", used + asked),
            Reason.HOUR_LIMIT: ("per_hour", used + 1),
        }.get(reason)
        if changed is not None:
            figures = {name: getattr(known, name) for name in ("max_concurrent", "memory_mb", "cpu_millis", "per_hour")}
            figures[changed[0]] = changed[1]
            model.limits = Limits(**figures)
            self.scheduler.add_tenant(tenant_id, limits=model.limits, weight=model.weight)
        elif reason is Reason.PAUSED:
            self.pause_or_resume(tenant_id)
        elif reason is Reason.CAPACITY and resource in Capacity._fields:
            self.capacity = self.capacity._replace(**{resource: used + asked})
            self.scheduler.set_capacity(self.capacity)

    # --- what holds at every step -----------------------------------------------------------------------------------

    def follow_eligibility(self, eligible: list[str]) -> None:
        for tenant_id in TENANTS:
            if tenant_id not in eligible or not self.stays_eligible(tenant_id):
                self.served_before.pop(tenant_id, None)
            elif tenant_id not in self.served_before:
                queue = self.scheduler._queues[tenant_id]
                if queue.entry and queue.start_tag <= self.scheduler.virtual_time:
                    self.served_before[tenant_id] = []
        self.check_shares()

    @invariant()
    def usage_is_what_runs(self) -> None:
        used = {t: model.used() for t, model in self.tenants.items() if model.running}
        assert self.scheduler.usage() == used == usage_from(self.scheduler.grants())
        assert self.scheduler.running == sum(figures.slots for figures in used.values())

    @invariant()
    def virtual_time_never_goes_back(self) -> None:
        assert self.scheduler.virtual_time >= self.virtual_time
        self.virtual_time = self.scheduler.virtual_time

    @invariant()
    def check_shares(self) -> None:
        """Those that stay eligible are served in proportion to their weights, within one charge of each."""
        for pair in combinations(TENANTS, 2):
            if not all(map(self.stays_eligible, pair)):
                self.moved.pop(pair, None)
                continue
            first, second = self.moved.setdefault(pair, [0, 0])
            bound = sum(max(self.tenants[t].largest_step, 1) for t in pair)
            assert abs(first - second) <= bound, pair


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
