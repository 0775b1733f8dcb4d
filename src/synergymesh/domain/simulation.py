"""What if: recorded or declared runs, replayed on a virtual clock through the very scheduler that production uses."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from synergymesh.domain.instants import Instant
from synergymesh.domain.scheduling.explain import Reason
from synergymesh.domain.scheduling.grants import Grant
from synergymesh.domain.scheduling.limits import Capacity, CohortShare, Limits, Request, SubmissionRate
from synergymesh.domain.scheduling.scheduler import Scheduler
from synergymesh.domain.scheduling.tenant_queue import NO_REQUEST

MILLION = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedTask:
    """Describe a task: how long it takes, and the places (in its run) of the tasks that it depends on."""

    component: Hashable
    duration_ns: int
    depends_on: tuple[int, ...] = ()
    request: Request = NO_REQUEST
    declared_cost: int = 1_000_000
    rank: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRun:
    """Describe a run: who submits it, when, and its tasks."""

    tenant_id: str
    submitted_at: Instant
    tasks: Sequence[PlannedTask]
    priority: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedTenant:
    """Describe a tenant; parents come before their sub-tenants."""

    tenant_id: str
    limits: Limits
    weight: int = 1
    parent: str | None = None
    share: CohortShare | None = None
    rate_limit_per_second: int | None = None
    burst: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Say under which tiers, quotas, weights and capacity the runs are replayed."""

    tenants: Sequence[PlannedTenant]
    capacity: Capacity


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantOutcome:
    """Say how a tenant fared.

    Attributes:
        tasks, unfinished: tasks that ran, and those that never could.
        wait_p50_ns, wait_p95_ns: from ready to started.
        makespan_ns: from its first submission to the end of its last task.
        served_ns: the sum of its tasks' durations.
        limit_hits: how often a limit held it, by reason; as `rate_limit` the submissions that were refused, each once.
    """

    tasks: int
    unfinished: int
    wait_p50_ns: int
    wait_p95_ns: int
    makespan_ns: int
    served_ns: int
    limit_hits: Mapping[Reason, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Say how a scenario went.

    Attributes:
        makespan_ns: from the first submission to the end of the last task.
        utilisation: the part of all slots that was taken while any task waited, for a slot or for a limit, in
            millionths.
        busy: the part of all slots that was taken from beginning to end, in millionths.
    """

    tenants: Mapping[str, TenantOutcome]
    makespan_ns: int
    utilisation: int
    busy: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Set two scenarios beside each other."""

    today: Outcome
    what_if: Outcome


class _Run:
    """Follow a run through the simulation."""

    __slots__ = ("dependents", "open", "order", "plan", "ready_at", "submitted_at")

    def __init__(self, plan: PlannedRun, order: int) -> None:
        self.plan = plan
        self.order = order
        self.submitted_at = plan.submitted_at
        self.open = [len(task.depends_on) for task in plan.tasks]
        self.ready_at: dict[int, Instant] = {}
        self.dependents: dict[int, list[int]] = {}
        for position, task in enumerate(plan.tasks):
            for before in task.depends_on:
                self.dependents.setdefault(before, []).append(position)

    def wants(self, position: int) -> bool:
        """Tell that a task waits: here none is cancelled."""
        return True


class _Tally:
    __slots__ = ("first", "last", "refused", "served", "tasks", "waits")

    def __init__(self) -> None:
        self.waits: list[int] = []
        self.tasks = 0
        self.refused = 0
        self.served = 0
        self.first: Instant | None = None
        self.last: Instant = 0


class _Replay:
    """Drive a scheduler through a scenario, event by event."""

    def __init__(self, scenario: Scenario) -> None:
        self.scheduler: Scheduler[_Run] = Scheduler(scenario.capacity, records_reservations=False)
        self.slots = scenario.capacity.slots
        self.rates: dict[str, tuple[SubmissionRate, ...]] = {}
        self.refused: dict[str, deque[_Run]] = {}
        self.tallies: dict[str, _Tally] = {}
        for tenant in scenario.tenants:
            self.scheduler.add_tenant(
                tenant.tenant_id, limits=tenant.limits, weight=tenant.weight, parent=tenant.parent, share=tenant.share
            )
            self.tallies[tenant.tenant_id] = _Tally()
            above = () if tenant.parent is None else self.rates[tenant.parent]
            per_second = tenant.rate_limit_per_second
            own = () if per_second is None else (SubmissionRate(per_second, tenant.burst),)
            self.rates[tenant.tenant_id] = (*own, *above)
            self.refused[tenant.tenant_id] = deque()
        self.events: list[tuple[Instant, int, _Run | Grant[_Run] | str]] = []
        self.number = 0
        self.ready = 0
        self.slot_time = self.contended_time = self.contended_slot_time = 0

    def at(self, moment: Instant, what: _Run | Grant[_Run] | str) -> None:
        """Note a submission, the end of an attempt, or a tenant whose refused submissions are repeated."""
        self.number += 1
        heappush(self.events, (moment, self.number, what))

    def submit(self, run: _Run, now: Instant) -> None:
        tenant_id = run.plan.tenant_id
        tally = self.tallies[tenant_id]
        if tally.first is None:
            tally.first = now
        refused = self.refused[tenant_id]
        wait = 0 if refused else self.take_rate(tenant_id, now)
        if not refused and not wait:
            self.accept(run, now)
            return
        tally.refused += 1
        refused.append(run)
        if wait:
            self.at(now + wait, tenant_id)

    def repeat(self, tenant_id: str, now: Instant) -> None:
        """Submit again what was refused, the oldest first, as far as the rate admits it."""
        refused = self.refused[tenant_id]
        while refused:
            wait = self.take_rate(tenant_id, now)
            if wait:
                self.at(now + wait, tenant_id)
                return
            self.accept(refused.popleft(), now)

    def take_rate(self, tenant_id: str, now: Instant) -> int:
        """Take a place in the rates of a tenant and of the one above it, or give the nanoseconds until there is one."""
        rates = self.rates[tenant_id]
        wait = max((rate.retry_after(now) for rate in rates), default=0)
        if not wait:
            for rate in rates:
                rate.take(now)
        return wait

    def accept(self, run: _Run, now: Instant) -> None:
        run.submitted_at = now
        for position, before in enumerate(run.open):
            if not before:
                self.release(run, position, now)

    def release(self, run: _Run, position: int, now: Instant) -> None:
        plan = run.plan
        task = plan.tasks[position]
        run.ready_at[position] = now
        self.ready += 1
        self.scheduler.push(
            plan.tenant_id,
            run,
            position,
            priority=plan.priority,
            age=run.order,
            rank=task.rank,
            cost=task.declared_cost,
            request=task.request,
            component=task.component,
            since=run.submitted_at,
        )

    def end(self, grant: Grant[_Run], now: Instant) -> None:
        self.scheduler.release(grant, now)
        run = grant.run
        tally = self.tallies[run.plan.tenant_id]
        tally.tasks += 1
        tally.served += now - grant.started_at
        tally.last = now
        for dependent in run.dependents.get(grant.position, ()):
            run.open[dependent] -= 1
            if not run.open[dependent]:
                self.release(run, dependent, now)

    def run(self) -> None:
        """Go from event to event until nothing is left."""
        scheduler, events = self.scheduler, self.events
        now: Instant = events[0][0] if events else 0
        while True:
            due = scheduler.next_due()
            if not events and due is None:
                return
            upcoming = events[0][0] if events else None
            before = now
            now = min(moment for moment in (upcoming, due) if moment is not None)
            self.count_time(now - before)
            while events and events[0][0] <= now:
                what = heappop(events)[2]
                if isinstance(what, _Run):
                    self.submit(what, now)
                elif isinstance(what, str):
                    self.repeat(what, now)
                else:
                    self.end(what, now)
            scheduler.wake(now)
            while (grant := scheduler.next(now)) is not None:
                self.ready -= 1
                run = grant.run
                self.tallies[run.plan.tenant_id].waits.append(now - run.ready_at.pop(grant.position))
                self.at(now + run.plan.tasks[grant.position].duration_ns, grant)

    def count_time(self, elapsed: int) -> None:
        taken = self.scheduler.running * elapsed
        self.slot_time += taken
        if self.ready:
            self.contended_time += elapsed * self.slots
            self.contended_slot_time += taken

    def outcome(self, planned: Counter[str]) -> Outcome:
        """Sum up."""
        views = {view.tenant_id: view for view in self.scheduler.snapshot(0)}
        tenants = {}
        for tenant_id, tally in self.tallies.items():
            waits = sorted(tally.waits)
            hits = dict(views[tenant_id].holds)
            if tally.refused:
                hits[Reason.RATE_LIMIT] = tally.refused
            tenants[tenant_id] = TenantOutcome(
                tasks=tally.tasks,
                unfinished=planned[tenant_id] - tally.tasks,
                wait_p50_ns=quantile(waits, 50),
                wait_p95_ns=quantile(waits, 95),
                makespan_ns=0 if tally.first is None else max(0, tally.last - tally.first),
                served_ns=tally.served,
                limit_hits=hits,
            )
        firsts = [tally.first for tally in self.tallies.values() if tally.first is not None]
        makespan = max(0, max(tally.last for tally in self.tallies.values()) - min(firsts)) if firsts else 0
        return Outcome(
            tenants=tenants,
            makespan_ns=makespan,
            utilisation=MILLION * self.contended_slot_time // self.contended_time if self.contended_time else MILLION,
            busy=MILLION * self.slot_time // (makespan * self.slots) if makespan else 0,
        )


def simulate(runs: Iterable[PlannedRun], scenario: Scenario) -> Outcome:
    """Replay runs under a scenario.

    A submission that is refused for its rate is repeated as soon as it would be accepted.
    """
    replay = _Replay(scenario)
    planned: Counter[str] = Counter()
    for order, plan in enumerate(runs):
        assert plan.tenant_id in replay.tallies, f"the scenario does not know {plan.tenant_id}"
        planned[plan.tenant_id] += len(plan.tasks)
        replay.at(plan.submitted_at, _Run(plan, order))
    replay.run()
    return replay.outcome(planned)


def compare(runs: Sequence[PlannedRun], today: Scenario, what_if: Scenario) -> Comparison:
    """Replay the same runs under two scenarios."""
    return Comparison(today=simulate(runs, today), what_if=simulate(runs, what_if))


def quantile(ordered: Sequence[int], percent: int) -> int:
    """Give the value of a sorted sequence that so many percent do not exceed; 0 if it is empty."""
    return ordered[-(-len(ordered) * percent // 100) - 1] if ordered else 0
