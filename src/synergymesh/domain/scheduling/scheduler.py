"""Which task starts next: inside every limit, fair between tenants by cost, the most urgent task of a tenant first.

Only *eligible* members (ready work, nothing holds them) are looked at. Those that a cap holds come back with the event
that frees it; those that time holds are in a heap of timers; so that a decision costs O(log n), however many wait.
Time comes in as an argument, and never goes back: a clock that is set back stands still here.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from heapq import heapify, heappop, heappush, heapreplace
from typing import Final

from synergymesh.domain.instants import Instant
from synergymesh.domain.scheduling.estimates import Estimates
from synergymesh.domain.scheduling.explain import Blocker, Explanation, Reason
from synergymesh.domain.scheduling.fair_queue import Cohort, can_ever_run
from synergymesh.domain.scheduling.grants import Grant
from synergymesh.domain.scheduling.limits import MINUTE, NOTHING, Capacity, Request
from synergymesh.domain.scheduling.queue_tree import HOUR_LIMIT, QueueTree, parent_of
from synergymesh.domain.scheduling.queue_views import (
    Ceiling,
    TenantView,
    blockers_of,
    ceiling_against,
    explanation_of,
    limit_blockers,
    view_of,
)
from synergymesh.domain.scheduling.tenant_queue import (
    COST_MIN_MICROSECONDS,
    DEBT_MAX,
    NO_REQUEST,
    Item,
    Member,
    Queue,
    WorkT,
    dominant_share,
)

PAUSED: Final = Reason.PAUSED
CONCURRENCY: Final = Reason.CONCURRENCY
MEMORY: Final = Reason.MEMORY
CPU: Final = Reason.CPU
CAPACITY: Final = Reason.CAPACITY
FREED_BY_AN_END = frozenset({None, CONCURRENCY, MEMORY, CPU, CAPACITY})


class Scheduler(QueueTree[WorkT]):
    """Decide what starts next. Every grant takes a slot, memory and CPU, which `release()` gives back.

    Attributes:
        looks_left: of how many more members `next()` may find that they cannot go on, before it gives up for the time
            being with None; for callers that have something else to do meanwhile, who set it again.
    """

    def __init__(self, capacity: Capacity, *, records_reservations: bool = True) -> None:
        super().__init__(capacity, records_reservations=records_reservations)
        self.looks_left = 1 << 62
        self._grants: dict[int, Grant[WorkT]] = {}

    # --- tasks ------------------------------------------------------------------------------------------------------

    def push(
        self,
        tenant_id: str,
        run: WorkT,
        position: int,
        *,
        priority: int,
        age: int,
        rank: int,
        cost: int,
        request: Request = NO_REQUEST,
        component: Hashable = None,
        since: Instant = 0,
        at: Instant = 0,
        ready: Instant = 0,
        circuit: Hashable = None,
    ) -> None:
        """Add a task that may start now, or at the moment `at`. Of a tenant that is not known, it is dropped.

        Args:
            tenant_id: whose task.
            run: the run.
            position: the task's place in the run.
            priority: level; the highest goes first, and who came a minute earlier counts as one level higher.
            age: the run's place in the order of submission; what was begun earlier is finished first.
            rank: remaining path in microseconds; the longest goes first.
            cost: expected microseconds, until the component's duration is learnt.
            request: memory and CPU that it takes.
            component: what durations are learnt by.
            since: when the run was submitted, for ageing.
            at: 0 for now.
            ready: from when on it could have started, for those who look at waits; nothing is decided by it.
            circuit: whose gate can hold it back.
        """
        queue = self._queues.get(tenant_id)
        if queue is None:
            return
        self._order = order = self._order + 1
        item = (since // MINUTE - priority, age, -rank, order, run, position, cost, request, component, ready, circuit)
        if at:
            queue.delayed += 1
            heappush(self._timers, (at, order, queue, item))
        else:
            self._add(queue, item)

    def withdraw(self, tenant_id: str, runs: Iterable[WorkT]) -> None:
        """Take back the tasks of runs that are ready: nobody asks for them now. O(length of the queue)."""
        queue = self._queues.get(tenant_id)
        if queue is None:
            return
        gone = {id(run) for run in runs}
        queue.ready[:] = [item for item in queue.ready if id(item[4]) not in gone]
        heapify(queue.ready)
        if queue.aside is not None:
            queue.aside = [item for item in queue.aside if id(item[4]) not in gone] or None
        for gate in (queue.gates or {}).values():
            gate.parked[:] = [item for item in gate.parked if id(item[4]) not in gone]
            heapify(gate.parked)
        self._look_again(queue)

    def next_due(self) -> Instant | None:
        """Give the moment when a delayed task may start or an hour has room again."""
        return self._timers[0][0] if self._timers else None

    def wake(self, now: Instant) -> None:
        """Make those ready whose moment has come."""
        timers = self._timers
        now = self._clamp(now)
        while timers and timers[0][0] <= now:
            at, _, member, item = heappop(timers)
            if not member.alive:
                continue
            if item is not None:
                assert isinstance(member, Queue)
                member.delayed -= 1
                self._add(member, item)
            else:
                if member.alarm == at:
                    member.alarm = 0
                if member.until == at:
                    self._look_again(member)

    def next(self, now: Instant) -> Grant[WorkT] | None:
        """Take the task that starts next, and what it needs at all levels; None when nothing may start now."""
        if now > self._now:
            self._now = now
        else:
            now = self._now
        root = self._root
        if root.running >= root.slots:
            self._full_at = now
            return None
        queue = self._candidate(root, now)
        if queue is None:
            return None
        _, _, _, order, run, position, cost, request, component, ready, circuit = heappop(queue.ready)
        if queue.gates is not None and circuit in queue.gates:
            queue.gates[circuit].permits -= 1
        if queue.estimates is not None:
            cost = queue.estimates.get(component, cost)
        if cost < COST_MIN_MICROSECONDS:
            cost = COST_MIN_MICROSECONDS
        dominant = self._dominant.get(request) or self._charge_of(request)
        charged = cost * dominant
        least = COST_MIN_MICROSECONDS * dominant
        memory_mb, cpu_millis = request
        asks = memory_mb or cpu_millis
        root.running += 1
        if asks:
            root.memory_used += memory_mb
            root.cpu_used += cpu_millis
        stamp = self._order
        member: Member[WorkT] = queue
        parent = queue.parent
        has_more = bool(queue.ready)
        waited_for = CAPACITY if self._full_at >= ready else None
        while parent is not None:
            if member.last_reason is not None:
                waited_for, member.last_reason = member.last_reason, None
            guaranteed = member.guaranteed is not NOTHING
            if guaranteed:
                parent.reserve(member.unclaimed(), -1)
            running = member.running = member.running + 1
            if asks:
                member.memory_used += memory_mb
                member.cpu_used += cpu_millis
            if guaranteed:
                parent.reserve(member.unclaimed(), 1)
            if member.hourly:
                hour = member.hour
                assert hour is not None
                # what `hour.use()` does: a call for each start would cost as much as all the rest of the hour
                left = hour.left = hour.left - 1
                hour.spent += 1
                hour.bucket[1] += 1
                if left <= hour.low:
                    self._thirsty[member] = None
            member.served += charged
            # the tag moves by what is charged now and what is owed, forward in any case, and not too far
            amount = charged + member.owed
            kept = 0
            if amount < least:
                kept = amount - least
                amount = least
            elif amount > DEBT_MAX:
                amount = DEBT_MAX
            tag = member.start_tag
            moved, rest = divmod(amount, member.weight)
            member.owed = rest + kept
            member.start_tag = moved = tag + moved
            if tag > parent.virtual_time:
                parent.virtual_time = tag
            if has_more and running < member.slots:
                stamp += 1
                member.entry = stamp
                heapreplace(parent.heap, (moved if member.share is None else parent.key(member), stamp, member))
            else:
                heappop(parent.heap)
                member.entry = 0
                if has_more:
                    member.hold(CONCURRENCY)
            if parent.closed is not None:
                parent.look_for_claim(self._charge_of)
            if parent is root:
                break
            has_more = parent.has_work()
            member = parent
            parent = member.parent
        self._order = stamp
        grant = Grant(run, position, queue, request, component, order, now, dominant, charged, ready, waited_for)
        self._grants[order] = grant
        return grant

    def release(self, grant: Grant[WorkT], now: Instant, *, learn: bool = True) -> None:
        """Give back what a task took, charge what it really cost, and learn how long it takes.

        Args:
            grant: each is released once.
            now: when it ended.
            learn: False if the duration says nothing, because it was cancelled or never begun.
        """
        del self._grants[grant.order]
        self._root.freed += 1
        if now > self._now:
            self._now = now
        actual = (self._now - grant.started_at) // 1_000
        if actual < COST_MIN_MICROSECONDS:
            actual = COST_MIN_MICROSECONDS
        queue = grant.queue
        if learn:
            estimates = queue.estimates
            if estimates is None:
                estimates = queue.estimates = Estimates()
            if estimates.get(grant.component) != actual:
                estimates.learn(grant.component, actual)
        cost = actual * grant.dominant
        more = cost - grant.charged
        grant.charged = cost
        memory_mb, cpu_millis = grant.request
        asks = memory_mb or cpu_millis
        member: Member[WorkT] = queue
        parent = queue.parent
        while parent is not None:
            member.owed += more
            member.served += more
            guaranteed = member.guaranteed is not NOTHING
            if guaranteed:
                parent.reserve(member.unclaimed(), -1)
            member.running -= 1
            if asks:
                member.memory_used -= memory_mb
                member.cpu_used -= cpu_millis
            if guaranteed:
                parent.reserve(member.unclaimed(), 1)
            if not member.entry:
                if member.held in FREED_BY_AN_END:
                    member.held = None
                    if member.has_work() and member.alive:
                        self._activate(member)
            elif member.share is not None:
                self._enter(member)  # may be within its nominal share again
            member = parent
            parent = member.parent
        member.running -= 1
        if asks:
            member.memory_used -= memory_mb
            member.cpu_used -= cpu_millis

    def correct_long(self, now: Instant) -> None:
        """Charge tasks that run longer than expected for the time that they have run; O(running tasks)."""
        now = self._clamp(now)
        for grant in self._grants.values():
            cost = (now - grant.started_at) // 1_000 * grant.dominant
            if cost > grant.charged:
                self._correct(grant, cost)

    def adopt(
        self,
        tenant_id: str,
        run: WorkT,
        position: int,
        *,
        cost: int,
        request: Request = NO_REQUEST,
        component: Hashable = None,
        started_at: Instant,
    ) -> Grant[WorkT]:
        """Take over a task that runs already, whatever the limits are now."""
        queue = self._queues[tenant_id]
        self._order = order = self._order + 1
        dominant = self._charge_of(request)
        member: Member[WorkT] | None = queue
        while member is not None:
            self._take(member, request)
            member = member.parent
        charged = max(cost, COST_MIN_MICROSECONDS) * dominant
        grant = self._grants[order] = Grant(
            run, position, queue, request, component, order, started_at, dominant, charged, started_at
        )
        return grant

    # --- what is known ----------------------------------------------------------------------------------------------

    @property
    def running(self) -> int:
        """Count the tasks that run."""
        return self._root.running

    @property
    def virtual_time(self) -> int:
        """Give the virtual time between tenants; it never goes back."""
        return self._root.virtual_time

    def grants(self) -> Iterator[Grant[WorkT]]:
        """Go through what runs, in the order of starting."""
        return iter(list(self._grants.values()))

    def why(self, run: WorkT, position: int, now: Instant, *, tenant_id: str | None = None) -> list[Blocker]:
        """Say what keeps a task from starting, in order; nothing if it starts at the next decision or does not wait.

        Args:
            run: the run.
            position: the task's place in it.
            now: the present.
            tenant_id: where to look; all queues if it is None. O(length of the queue).
        """
        found = self._find(run, position, tenant_id)
        return (
            []
            if found is None
            else blockers_of(*found, self._root, self._clamp(now), recorded=self._records_reservations)
        )

    def explain(self, run: WorkT, position: int, now: Instant, *, tenant_id: str | None = None) -> Explanation:
        """Give the blockers of a task, its place in its tenant's queue and when it will probably start."""
        found = self._find(run, position, tenant_id)
        if found is None:
            return Explanation(blockers=[], position=None, estimated_start=None)
        return explanation_of(
            *found, self._root, self._grants.values(), self._clamp(now), recorded=self._records_reservations
        )

    def can_ever_run(self, tenant_id: str, request: Request) -> bool:
        """Tell whether a task asks for no more than each limit of a tenant as such."""
        queue = self._queues.get(tenant_id)
        return queue is not None and can_ever_run(queue, request)

    def ceiling_against(self, tenant_id: str, request: Request) -> Ceiling | None:
        """Give the limit of a tenant, or of the one above it, that a task could never keep; None if there is none."""
        queue = self._queues.get(tenant_id)
        return None if queue is None else ceiling_against(queue, request)

    def limits_against(self, tenant_id: str, request: Request, now: Instant) -> list[Blocker]:
        """Give what the limits of all levels have against a task that is not in a queue."""
        queue = self._queues.get(tenant_id)
        if queue is None:
            return []
        return limit_blockers(queue, request, self._clamp(now), recorded=self._records_reservations)

    def snapshot(self, now: Instant) -> list[TenantView]:
        """Describe every tenant and sub-tenant."""
        total = sum(member.weight for member in self._root.members.values() if member.entry or member.running)
        return [
            view_of(member, self._queues_below(member), self._root, total, self._clamp(now))
            for member in self._members.values()
        ]

    def view(self, tenant_id: str, now: Instant) -> TenantView:
        """Describe one tenant or sub-tenant; its fair share is that beside nobody."""
        member = self._members[tenant_id]
        return view_of(member, self._queues_below(member), self._root, member.weight, self._clamp(now))

    def is_running(self, grant: Grant[WorkT]) -> bool:
        """Tell whether a task has not been released yet."""
        return grant.order in self._grants

    # --- inside -----------------------------------------------------------------------------------------------------

    def _candidate(self, cohort: Cohort[WorkT], now: Instant) -> Queue[WorkT] | None:
        """Find the queue whose head is next in a cohort and fits everywhere below and in it; take nothing.

        What leads to it is then first in the heap of each level. Those that cannot go on leave the heap.
        """
        heap = cohort.heap
        above = cohort.parent
        root = self._root
        while True:
            if cohort.closed is not None:
                cohort.reopen(root.freed)
            while heap:
                _, stamp, member = heap[0]
                if member.entry == stamp:
                    break
                heappop(heap)
            else:
                return None
            reason: Reason | None = None
            if member.paused:
                reason = PAUSED
            elif member.running >= member.slots:
                reason = CONCURRENCY
            elif (
                member.hourly
                and ((hour := member.hour) is None or now >= hour.until or not hour.left or hour.spent >= hour.limit)
                and not self._hour_has_room(member, now)
            ):
                reason = HOUR_LIMIT
            elif isinstance(member, Queue):
                item = member.head()
                if item is not None:
                    request = item[7]
                    memory_mb, cpu_millis = request
                    if (
                        cohort.claim is None
                        and not cohort.guarantees
                        and member.memory_used + memory_mb <= member.memory
                        and member.cpu_used + cpu_millis <= member.cpu
                        and cohort.memory_used + memory_mb <= cohort.memory
                        and cohort.cpu_used + cpu_millis <= cohort.cpu
                        and (above is None or above.fits(member, request))
                    ):
                        return member
                    if not can_ever_run(member, request):
                        cohort.set_aside(member)  # it blocks nobody
                        if member.share is not None:  # another head, which may be within its share
                            heapreplace(heap, (cohort.key(member), stamp, member))
                        continue
                    if memory_mb and member.memory_used + memory_mb > member.memory:
                        reason = MEMORY
                    elif cpu_millis and member.cpu_used + cpu_millis > member.cpu:
                        reason = CPU
                    elif cohort.fits(member, request):
                        return member
                    else:
                        is_above = above is None or cohort.fits_here(member, request)
                        member.last_reason = CAPACITY if is_above else _short_of(cohort, request)
                        cohort.close(member, request)
                        self.looks_left -= 1
                        if self.looks_left <= 0:
                            return None
                        continue
            elif isinstance(member, Cohort):
                queue = self._candidate(member, now)
                if queue is not None or self.looks_left <= 0:
                    return queue
                if member.closed is not None:
                    if member.waits_above():
                        member.last_reason = CAPACITY
                        cohort.close(member, NO_REQUEST)
                        self.looks_left -= 1
                        continue
                    reason = _short_of(member, member.closed.least())
            heappop(heap)
            member.entry = 0
            if reason is not None:
                member.hold(reason)
                if cohort.claim is not None:
                    self._give_up_claim(cohort, member)
            self.looks_left -= 1
            if self.looks_left <= 0:
                return None

    def _give_up_claim(self, cohort: Cohort[WorkT], member: Member[WorkT]) -> None:
        """Keep no room for a member that is held, apart from what the end of one of its tasks changes."""
        claim = cohort.claim
        if claim is not None and cohort.member_of(claim) is member and member.held not in FREED_BY_AN_END:
            cohort.claim = None
            self._root.freed += 1

    def _add(self, queue: Queue[WorkT], item: Item[WorkT]) -> None:
        heappush(queue.ready, item)
        if not queue.entry:
            held = queue.held
            if held is None or ((held is MEMORY or held is CPU) and queue.ready[0] is item):
                if queue.parent is self._root:  # `_activate`, without what only sub-tenants need
                    queue.settle()
                    self._order += 1
                    self._root.enter(queue, self._order)
                else:
                    self._activate(queue)
        elif (queue.shut or queue.share is not None) and queue.ready[0] is item:
            if queue.shut:
                self._root.freed += 1  # room may have been kept for the head before
            self._enter(queue)

    def _charge_of(self, request: Request) -> int:
        """Give the dominant share of a request."""
        dominant = self._dominant.get(request)
        if dominant is None:
            dominant = self._dominant[request] = dominant_share(request, self.capacity)
        return dominant

    def _take(self, member: Member[WorkT], request: Request) -> None:
        if member.guaranteed is not NOTHING:
            parent_of(member).reserve(member.unclaimed(), -1)
        member.running += 1
        member.memory_used += request.memory_mb
        member.cpu_used += request.cpu_millis
        if member.guaranteed is not NOTHING:
            parent_of(member).reserve(member.unclaimed(), 1)

    def _correct(self, grant: Grant[WorkT], cost: int) -> None:
        """Let the tenant owe what a task cost more than was charged, or less."""
        more = cost - grant.charged
        grant.charged = cost
        member: Member[WorkT] = grant.queue
        while member.parent is not None:
            member.owed += more
            member.served += more
            member = member.parent

    def _find(
        self, run: WorkT, position: int, tenant_id: str | None
    ) -> tuple[Queue[WorkT], Item[WorkT], Instant] | None:
        """Look for a waiting task; its moment is 0 if that has come."""
        queues = self._queues.values() if tenant_id is None else [self._queues[tenant_id]]
        for queue in queues:
            for item in queue.waiting():
                if item[4] is run and item[5] == position:
                    return queue, item, 0
        for at, _, member, item_ in self._timers:
            if item_ is not None and isinstance(member, Queue) and item_[4] is run and item_[5] == position:
                return member, item_, at
        return None


def _short_of(cohort: Cohort[WorkT], request: Request) -> Reason:
    """Say what a cohort has too little of for a request: its own, or what it does not keep for others."""
    if request.memory_mb > cohort.memory - cohort.memory_used:
        return MEMORY
    return CPU if request.cpu_millis > cohort.cpu - cohort.cpu_used else CAPACITY
