"""The scheduler beside a model that decides by looking at everything: the nine properties, at every step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import combinations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from synergymesh.domain.instants import SECOND, Instant
from synergymesh.domain.scheduling.explain import Blocker, Reason
from synergymesh.domain.scheduling.fair_queue import Cohort
from synergymesh.domain.scheduling.grants import Grant, usage_from
from synergymesh.domain.scheduling.limits import MINUTE, WINDOW_MINUTES, Capacity, CohortShare, Limits, Request
from synergymesh.domain.scheduling.scheduler import Scheduler
from synergymesh.domain.scheduling.tenant_queue import DEBT_MAX

TENANTS = ["a", "b", "c", "d"]
FAMILY = {"x": "d", "y": "d"}
"""Sub-tenants, and the tenant whose quota they share beside its own tasks."""
QUEUES = [*TENANTS, *FAMILY]
HOUR = 3_600 * SECOND
SMALL, MIDDLE, LARGE, LIGHT = Request(1, 1), Request(2, 1), Request(5, 3), Request(0, 1)


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
    """What a tenant or sub-tenant is, seen from outside; what waits and runs is its own, without its sub-tenants'."""

    limits: Limits
    weight: int
    share: CohortShare | None = None
    throttle: int | None = None
    paused: bool = False
    gates: dict[int, int] = field(default_factory=dict)
    waiting: dict[int, Task] = field(default_factory=dict)
    running: dict[int, Grant[Run]] = field(default_factory=dict)
    starts: list[Instant] = field(default_factory=list)
    counted: dict[int, int] = field(default_factory=dict)
    written: dict[int, int] = field(default_factory=dict)

    def most(self) -> Capacity:
        """Give what it may use by its own limits."""
        own = Capacity(self.limits.max_concurrent, self.limits.memory_mb, self.limits.cpu_millis)
        most = own if self.share is None else self.share.ceiling(self.limits)
        return most if self.throttle is None else most._replace(slots=-(-most.slots * self.throttle // 100))

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


@st.composite
def some_shares(draw: st.DrawFn) -> CohortShare:
    nominal = draw(st.builds(Capacity, st.integers(0, 3), st.integers(0, 6), st.integers(0, 6)))
    borrowing = st.builds(Capacity, st.integers(0 if nominal.slots else 1, 3), st.integers(0, 6), st.integers(0, 6))
    lending = st.builds(Capacity, *(st.integers(0, amount) for amount in nominal))
    return CohortShare(nominal=nominal, borrowing=draw(st.none() | borrowing), lending=draw(st.none() | lending))


class SchedulerMachine(RuleBasedStateMachine):
    """Drive a scheduler at random and compare every decision."""

    @initialize(
        slots=st.integers(1, 6),
        memory_mb=st.integers(4, 12),
        limits=st.lists(limits, min_size=6, max_size=6),
        weights=st.permutations([1, 2, 4, 16, 1, 2]),
        shares=st.lists(st.none() | some_shares(), min_size=2, max_size=2),
    )
    def begin(
        self,
        slots: int,
        memory_mb: int,
        limits: list[Limits],
        weights: list[int],
        shares: list[CohortShare | None],
    ) -> None:
        self.run = Run()
        self.capacity = Capacity(slots, memory_mb, 8)
        self.tenants = {t: Model(m, w) for t, m, w in zip(QUEUES, limits, weights, strict=True)}
        for sub_tenant, share in zip(FAMILY, shares, strict=True):
            self.tenants[sub_tenant].share = share
        self.positions = 0
        self.now = 1_000 * HOUR
        self.make_scheduler()

    def make_scheduler(self) -> None:
        self.scheduler: Scheduler[Run] = Scheduler(self.capacity)
        for tenant_id in QUEUES:
            self.tell(tenant_id)
            model = self.tenants[tenant_id]
            self.scheduler.throttle(tenant_id, model.throttle)
            for circuit, permits in model.gates.items():
                self.scheduler.set_gate(tenant_id, circuit, permits=permits)
            if model.paused:
                self.scheduler.pause(tenant_id)
        self.virtual_time = 0
        # how far the tags of both have moved since both of a pair became eligible
        self.moved: dict[tuple[str, str], list[int]] = {}
        self.largest_step = dict.fromkeys(TENANTS, 1)
        # who was served since a tenant without debt became eligible
        self.served_before: dict[str, list[str]] = {}

    def tell(self, tenant_id: str) -> None:
        """Tell the scheduler what a tenant is."""
        model = self.tenants[tenant_id]
        self.scheduler.add_tenant(
            tenant_id, limits=model.limits, weight=model.weight, parent=FAMILY.get(tenant_id), share=model.share
        )

    # --- the model --------------------------------------------------------------------------------------------------

    def effective_now(self) -> Instant:
        return max(self.now, self.scheduler._now)

    def levels(self, queue: str) -> Iterator[tuple[Model, Capacity]]:
        """Give the tenants whose limits a queue is under, with what they use, from below."""
        if queue in FAMILY:
            yield self.tenants[queue], self.tenants[queue].used()
        name = FAMILY.get(queue, queue)
        yield self.tenants[name], self.used(name)

    def used(self, tenant_id: str) -> Capacity:
        """Give what a tenant uses, its sub-tenants' included."""
        names = [tenant_id, *(name for name, parent in FAMILY.items() if parent == tenant_id)]
        return Capacity(*map(sum, zip(*(self.tenants[name].used() for name in names), strict=True)))

    def not_guaranteed(self, queue: str) -> Capacity:
        """Give what others' guarantees leave of the quota that a queue shares, if nothing runs."""
        whole = self.tenants[FAMILY.get(queue, queue)].most()
        if queue not in FAMILY and queue not in FAMILY.values():
            return whole
        kept = {name: [0, 0, 0] if (s := self.tenants[name].share) is None else [*s.guaranteed()] for name in FAMILY}
        own = kept.get(queue, [0, 0, 0])
        others = [sum(figures) - mine for *figures, mine in zip(*kept.values(), own, strict=True)]
        return Capacity(*(min(w, max(mine, w - o)) for w, mine, o in zip(whole, own, others, strict=True)))

    def can_ever_run(self, queue: str, request: Request) -> bool:
        left = self.not_guaranteed(queue)
        limits = [self.capacity, left, *(model.most() for model, _ in self.levels(queue))]
        return left.slots > 0 and all(
            request.memory_mb <= most.memory_mb and request.cpu_millis <= most.cpu_millis for most in limits
        )

    def head(self, queue: str) -> int | None:
        waiting, gates = self.tenants[queue].waiting, self.tenants[queue].gates
        heads = [
            p
            for p, task in waiting.items()
            if not task.at
            and self.run.wants(p)
            and gates.get(task.component, 1) > 0
            and self.can_ever_run(queue, task.request)
        ]
        return min(heads, key=lambda p: waiting[p].tag, default=None)

    def hour_has_room(self, model: Model) -> bool:
        if model.limits.per_hour is None:
            return True
        minute = max(self.effective_now() // MINUTE, max(model.counted, default=0))
        spent = sum(count for m, count in model.counted.items() if m > minute - WINDOW_MINUTES)
        return spent < model.limits.per_hour

    def is_eligible(self, queue: str) -> bool:
        """Nothing of its own or of its tenant holds it, and its head fits what is free and not kept for another."""
        position = self.head(queue)
        if position is None:
            return False
        request = self.tenants[queue].waiting[position].request
        for model, used in self.levels(queue):
            most = model.most()
            if model.paused or not self.hour_has_room(model) or used.slots >= most.slots:
                return False
            for have, asked, limit in zip(used[1:], request, most[1:], strict=True):
                if asked and have + asked > limit:
                    return False
        member = self.scheduler._queues[queue]
        assert member.parent is not None
        return member.parent.fits(member, request)

    def stays_eligible(self, queue: str) -> bool:
        """It is eligible, and does not wait until a reservation is written down."""
        if not self.is_eligible(queue):
            return False
        for name in {queue, FAMILY.get(queue, queue)}:
            hour = self.scheduler._members[name].hour
            if self.tenants[name].limits.per_hour is not None and (
                hour is None or not hour.has_room(self.effective_now())
            ):
                return False
        return True

    def tenant_stays_eligible(self, tenant_id: str) -> bool:
        return any(self.stays_eligible(queue) for queue in QUEUES if FAMILY.get(queue, queue) == tenant_id)

    # --- what happens -----------------------------------------------------------------------------------------------

    @rule(
        tenant_id=st.sampled_from(QUEUES),
        priority=st.integers(-1, 1),
        age=st.integers(0, 2),
        rank=st.integers(0, 2),
        cost=st.sampled_from([0, 500, 3_000, 50_000, 10**9]),
        request=st.sampled_from([SMALL, SMALL, MIDDLE, LARGE, LIGHT]),
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
            circuit=task.component,
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

    @rule(tenant_id=st.sampled_from(QUEUES))
    def pause_or_resume(self, tenant_id: str) -> None:
        model = self.tenants[tenant_id]
        model.paused = not model.paused
        (self.scheduler.pause if model.paused else self.scheduler.resume)(tenant_id)

    @rule(tenant_id=st.sampled_from(QUEUES), limits=limits, weight=st.sampled_from([1, 2, 4, 16]))
    def change_quota(self, tenant_id: str, limits: Limits, weight: int) -> None:
        model = self.tenants[tenant_id]
        if (limits.per_hour is None) is not (model.limits.per_hour is None):
            limits = replace(limits, per_hour=model.limits.per_hour)
        model.limits, model.weight = limits, weight
        self.tell(tenant_id)

    @rule(tenant_id=st.sampled_from(sorted(FAMILY)), share=st.none() | some_shares())
    def change_share(self, tenant_id: str, share: CohortShare | None) -> None:
        self.tenants[tenant_id].share = share
        self.tell(tenant_id)

    @rule(tenant_id=st.sampled_from(QUEUES), percent=st.sampled_from([None, 1, 50]))
    def throttle(self, tenant_id: str, percent: int | None) -> None:
        self.tenants[tenant_id].throttle = percent
        self.scheduler.throttle(tenant_id, percent)

    @rule(tenant_id=st.sampled_from(QUEUES), circuit=st.integers(0, 2), permits=st.sampled_from([None, 0, 0, 1, 2]))
    def hold_back(self, tenant_id: str, circuit: int, permits: int | None) -> None:
        gates = self.tenants[tenant_id].gates
        if permits is None:
            gates.pop(circuit, None)
            self.scheduler.open_gate(tenant_id, circuit)
        else:
            gates[circuit] = permits
            self.scheduler.set_gate(tenant_id, circuit, permits=permits)

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
            eligible = [queue for queue in QUEUES if self.is_eligible(queue)]
            self.follow_eligibility()
            tags = {t: self.scheduler._members[t].start_tag for t in TENANTS}
            grant = self.scheduler.next(self.now)
            if grant is not None or not self.write_reservations():
                break
        if grant is None:
            assert not eligible, "work is conserved"
            return None
        queue = grant.tenant_id
        model = self.tenants[queue]
        assert queue in eligible
        assert grant.position == self.head(queue), "the most urgent first"
        assert grant.request == model.waiting[grant.position].request
        circuit = model.waiting.pop(grant.position).component
        if circuit in model.gates:
            model.gates[circuit] -= 1
        model.running[grant.position] = grant
        self.run.gone.add(grant.position)
        self.count_start(queue, grant)
        tenant_id = FAMILY.get(queue, queue)
        step = self.scheduler._members[tenant_id].start_tag - tags[tenant_id]
        assert 0 < step <= DEBT_MAX // self.tenants[tenant_id].weight, "forward, and not too far"
        self.largest_step[tenant_id] = max(self.largest_step[tenant_id], step)
        for pair, moved in self.moved.items():
            if tenant_id in pair:
                moved[pair.index(tenant_id)] += step
        for waiting, served in self.served_before.items():
            served.append(tenant_id)
            assert waiting == tenant_id or served.count(tenant_id) == 1, "everybody else at most once before it"
        self.served_before.pop(tenant_id, None)
        self.check_shares()
        return grant

    def count_start(self, queue: str, grant: Grant[Run]) -> None:
        for model, used in self.levels(queue):
            most = model.most()
            assert used.slots <= most.slots
            # a task that asks for nothing of something may start whatever is used of it
            assert used.memory_mb <= most.memory_mb or not grant.request.memory_mb
            assert used.cpu_millis <= most.cpu_millis or not grant.request.cpu_millis
            model.starts.append(grant.started_at)
            if model.limits.per_hour is not None:
                minute = max(grant.started_at // MINUTE, max(model.counted, default=0))
                model.counted[minute] = model.counted.get(minute, 0) + 1
                assert model.written.get(minute, 0) >= model.counted[minute], "written down before it is used"
                end = grant.started_at
                assert sum(end - HOUR < s <= end for s in model.starts) <= model.limits.per_hour, "any rolling hour"
        total = [sum(figures) for figures in zip(*(m.used() for m in self.tenants.values()), strict=True)]
        for taken, asked, most in zip(total, (1, *grant.request), self.capacity, strict=True):
            assert taken <= most or not asked

    @precondition(lambda self: any(model.running for model in self.tenants.values()))
    @rule(chosen=st.integers(0, 5), milliseconds=st.sampled_from([0, 1, 20, 3_000]), fails=st.booleans())
    def end(self, chosen: int, milliseconds: int, fails: bool) -> None:
        busy = [(t, p) for t in QUEUES for p in self.tenants[t].running]
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
        _, position = waiting[chosen % len(waiting)]
        for _ in range(20):
            blockers = self.scheduler.why(self.run, position, self.now)
            if not blockers:
                grant = self.dispatch_one()
                assert grant is not None, "nothing blocks it, but it does not start"
                assert grant.position == position
                return
            first = blockers[0]
            self.remove_blocker(first)
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
            names = [(b.reason, b.level, b.resource, b.asked, b.until is None) for b in (first, *after)]
            assert names[0] not in names[1:], (blockers, after)

    def remove_blocker(self, blocker: Blocker) -> None:
        if blocker.reason is Reason.CAPACITY:
            if blocker.resource in Capacity._fields:
                used = (blocker.used or 0) + (blocker.asked or 0)
                self.capacity = self.capacity._replace(**{blocker.resource: used})
                self.scheduler.set_capacity(self.capacity)
            return
        if blocker.reason is Reason.PAUSED:
            self.pause_or_resume(blocker.level)
        if blocker.reason is Reason.CIRCUIT_OPEN:
            self.hold_back(blocker.level, int(blocker.resource), None)
        if blocker.resource.endswith("not guaranteed to others"):
            for name in FAMILY:
                if (share := self.tenants[name].share) is not None:
                    self.change_share(name, replace(share, lending=None))
            return
        field = {
            Reason.CONCURRENCY: "max_concurrent",
            Reason.MEMORY: "memory_mb",
            Reason.CPU: "cpu_millis",
            Reason.HOUR_LIMIT: "per_hour",
        }.get(blocker.reason)
        if field is not None:
            model = self.tenants[blocker.level]
            wanted = (blocker.used or 0) + (blocker.asked or 0)
            if field != "per_hour":
                self.throttle(blocker.level, None)
                if blocker.level in FAMILY and model.share is not None:
                    # more than its share is borrowed without a bound; nothing else of the share changes
                    self.change_share(blocker.level, replace(model.share, borrowing=None))
            if wanted > (getattr(model.limits, field) or 0):
                model.limits = replace(model.limits, **{field: wanted})
                self.tell(blocker.level)

    # --- what holds at every step -----------------------------------------------------------------------------------

    def follow_eligibility(self) -> None:
        for tenant_id in TENANTS:
            if not self.tenant_stays_eligible(tenant_id):
                self.served_before.pop(tenant_id, None)
            elif tenant_id not in self.served_before:
                member = self.scheduler._members[tenant_id]
                if member.entry and member.start_tag <= self.scheduler.virtual_time:
                    self.served_before[tenant_id] = []
        self.check_shares()

    @invariant()
    def usage_is_what_runs(self) -> None:
        used = {t: figures for t in QUEUES if (figures := self.used(t)).slots}
        assert self.scheduler.usage() == used == usage_from(self.scheduler.grants())
        assert self.scheduler.running == sum(len(model.running) for model in self.tenants.values())

    @invariant()
    def what_is_kept_for_guarantees_follows_from_what_runs(self) -> None:
        cohort = self.scheduler._members["d"]
        assert isinstance(cohort, Cohort)
        unclaimed = [self.scheduler._queues[name].unclaimed() for name in FAMILY]
        assert list(cohort.reserved) == [sum(figures) for figures in zip(*unclaimed, strict=True)]

    @invariant()
    def virtual_time_never_goes_back(self) -> None:
        assert self.scheduler.virtual_time >= self.virtual_time
        self.virtual_time = self.scheduler.virtual_time

    @invariant()
    def check_shares(self) -> None:
        """Those that stay eligible are served in proportion to their weights, within one charge of each."""
        for pair in combinations(TENANTS, 2):
            if not all(map(self.tenant_stays_eligible, pair)):
                self.moved.pop(pair, None)
                continue
            first, second = self.moved.setdefault(pair, [0, 0])
            bound = sum(self.largest_step[t] for t in pair)
            assert abs(first - second) <= bound, pair


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
