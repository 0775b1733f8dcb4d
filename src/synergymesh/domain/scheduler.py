"""Which task starts next: fair between tenants, inside each tenant's limits, the most urgent task of a tenant first.

Only tenants that are *eligible* (ready work, below their limits, not paused) are in the heap, so that a decision costs
O(log n) however many tenants are blocked. Time comes in as an argument.
"""

from __future__ import annotations

from heapq import heappop, heappush, heapreplace
from typing import Generic, NamedTuple, Protocol, TypeVar

from synergymesh.domain.fairness import charge
from synergymesh.domain.instants import Instant


class Work(Protocol):
    """What a scheduler needs to know of a run."""

    def wants(self, position: int) -> bool:
        """Tell whether the task at that position still waits to be started."""
        ...


WorkT = TypeVar("WorkT", bound=Work)


class Ready(NamedTuple, Generic[WorkT]):
    """A task that may start; compares by urgency: higher priority, older run, longer remaining path, first come.

    `order` is unique, so nothing after it is ever compared.
    """

    negative_priority: int
    age: int
    negative_rank: int
    order: int
    cost: int
    run: WorkT
    position: int


class TenantQueue(Generic[WorkT]):
    """Hold one tenant's ready tasks, its limits and its place in the fair queue."""

    __slots__ = ("in_heap", "max_concurrent", "paused", "ready", "running", "start_tag", "tenant_id", "weight")

    def __init__(self, tenant_id: str, max_concurrent: int, weight: int) -> None:
        self.tenant_id = tenant_id
        self.max_concurrent = max_concurrent
        self.weight = weight
        self.running = 0
        self.paused = False
        self.ready: list[Ready[WorkT]] = []
        self.start_tag = 0
        self.in_heap = False


class Scheduler(Generic[WorkT]):
    """Decide what starts next. Every `next()` that gives a task takes a slot, which `release()` gives back.

    Args:
        capacity: tasks that may run at the same time, over all tenants.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.running = 0
        self._tenants: dict[str, TenantQueue[WorkT]] = {}
        self._eligible: list[tuple[int, int, TenantQueue[WorkT]]] = []
        self._delayed: list[tuple[Instant, int, str, Ready[WorkT]]] = []
        self._virtual_time = 0
        self._order = 0

    def add_tenant(self, tenant_id: str, *, max_concurrent: int, weight: int) -> None:
        """Make a tenant known, or change its limits from the next decision on."""
        queue = self._tenants.get(tenant_id)
        if queue is None:
            self._tenants[tenant_id] = TenantQueue(tenant_id, max_concurrent, weight)
            return
        queue.max_concurrent = max_concurrent
        queue.weight = weight
        self._activate(queue)

    def remove_tenant(self, tenant_id: str) -> None:
        """Forget a tenant and what waits for it; what still runs may be released later."""
        queue = self._tenants.pop(tenant_id, None)
        if queue is not None:
            queue.ready.clear()

    def pause(self, tenant_id: str) -> None:
        """Start nothing more for a tenant."""
        self._tenants[tenant_id].paused = True

    def resume(self, tenant_id: str) -> None:
        """Start tasks of a paused tenant again."""
        queue = self._tenants[tenant_id]
        queue.paused = False
        self._activate(queue)

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
        at: Instant = 0,
    ) -> None:
        """Add a task that may start now, or at the moment `at`. Of a tenant that is not known, it is dropped.

        Args:
            tenant_id: whose task.
            run: the run.
            position: the task's place in the run.
            priority: the highest goes first.
            age: the run's place in the order of submission; what was begun earlier is finished first.
            rank: remaining path in microseconds; the longest goes first.
            cost: expected microseconds, charged to the tenant when the task starts.
            at: 0 for now.
        """
        self._order = order = self._order + 1
        ready = Ready(-priority, age, -rank, order, cost, run, position)
        if at:
            heappush(self._delayed, (at, order, tenant_id, ready))
            return
        queue = self._tenants.get(tenant_id)
        if queue is not None:
            heappush(queue.ready, ready)
            if not queue.in_heap:
                self._activate(queue)

    def next_due(self) -> Instant | None:
        """Give the moment when the next delayed task may start."""
        return self._delayed[0][0] if self._delayed else None

    def wake(self, now: Instant) -> None:
        """Make the delayed tasks ready whose moment has come."""
        delayed = self._delayed
        while delayed and delayed[0][0] <= now:
            _, _, tenant_id, ready = heappop(delayed)
            queue = self._tenants.get(tenant_id)
            if queue is not None:
                heappush(queue.ready, ready)
                self._activate(queue)

    def next(self) -> Ready[WorkT] | None:
        """Take the task that starts next, and a slot for it; None when nothing may start now."""
        eligible = self._eligible
        while eligible and self.running < self.capacity:
            start_tag, _, queue = eligible[0]
            ready = self._pop(queue) if not queue.paused and queue.running < queue.max_concurrent else None
            if ready is None:
                heappop(eligible)
                queue.in_heap = False
                continue
            self._virtual_time = start_tag
            queue.start_tag = start_tag + charge(ready.cost, queue.weight)
            queue.running += 1
            self.running += 1
            if queue.ready and queue.running < queue.max_concurrent:
                self._order += 1
                heapreplace(eligible, (queue.start_tag, self._order, queue))
            else:
                heappop(eligible)
                queue.in_heap = False
            return ready
        return None

    def release(self, tenant_id: str) -> None:
        """Give back a slot of a tenant."""
        self.running -= 1
        queue = self._tenants.get(tenant_id)
        if queue is not None:
            queue.running -= 1
            if not queue.in_heap:
                self._activate(queue)

    def running_of(self, tenant_id: str) -> int:
        """Give how many slots a tenant has taken."""
        queue = self._tenants.get(tenant_id)
        return queue.running if queue is not None else 0

    def waiting_of(self, tenant_id: str) -> int:
        """Give how many tasks of a tenant are ready and wait for a slot (cancelled ones not yet dropped included)."""
        queue = self._tenants.get(tenant_id)
        return len(queue.ready) if queue is not None else 0

    def _activate(self, queue: TenantQueue[WorkT]) -> None:
        if queue.in_heap or queue.paused or not queue.ready or queue.running >= queue.max_concurrent:
            return
        self._order += 1
        queue.in_heap = True
        queue.start_tag = max(queue.start_tag, self._virtual_time)
        heappush(self._eligible, (queue.start_tag, self._order, queue))

    @staticmethod
    def _pop(queue: TenantQueue[WorkT]) -> Ready[WorkT] | None:
        """Take the tenant's most urgent task; those that were cancelled meanwhile are dropped."""
        while queue.ready:
            ready = heappop(queue.ready)
            if ready.run.wants(ready.position):
                return ready
        return None
