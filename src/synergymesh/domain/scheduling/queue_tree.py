"""The tenants and sub-tenants of a scheduler: their limits, and which of them are eligible."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from heapq import heapify, heappush
from typing import Final, Generic

from synergymesh.domain.instants import Instant
from synergymesh.domain.scheduling.estimates import Estimates
from synergymesh.domain.scheduling.explain import Reason
from synergymesh.domain.scheduling.fair_queue import Cohort
from synergymesh.domain.scheduling.gates import Gate
from synergymesh.domain.scheduling.limits import (
    NOTHING,
    UNLIMITED,
    Capacity,
    CohortShare,
    Limits,
    Request,
    Reservation,
    RollingHour,
)
from synergymesh.domain.scheduling.queue_views import TenantView, view_of
from synergymesh.domain.scheduling.tenant_queue import Item, Member, Queue, WorkT

HOUR_LIMIT: Final = Reason.HOUR_LIMIT
SHORT_OF_ROOM: Final = frozenset({None, Reason.MEMORY, Reason.CPU, Reason.CAPACITY})
"""What holds a cohort that may go on when another of its members wants to start."""


class QueueTree(Generic[WorkT]):
    """Know the queues of all tenants below one capacity.

    Args:
        capacity: what tasks may use at the same time, over all tenants.
        records_reservations: starts of tenants with an hourly limit wait until the caller has written down the
            `pending_reservations()` and said so with `reserved()`; without it, they are used at once (simulation).
    """

    def __init__(self, capacity: Capacity, *, records_reservations: bool = True) -> None:
        self._root: Cohort[WorkT] = Cohort("", None)
        self._records_reservations = records_reservations
        self._members: dict[str, Member[WorkT]] = {}
        self._queues: dict[str, Queue[WorkT]] = {}
        self._timers: list[tuple[Instant, int, Member[WorkT], Item[WorkT] | None]] = []
        self._thirsty: dict[Member[WorkT], None] = {}
        self._dominant: dict[Request, int] = {}
        self._order = 0
        self._now: Instant = 0
        self._full_at: Instant = -1
        self.set_capacity(capacity)

    # --- tenants ----------------------------------------------------------------------------------------------------

    def set_capacity(self, capacity: Capacity) -> None:
        """Change what there is, from the next decision on; less than what is used is legal."""
        assert min(capacity) >= 1, "capacity is at least 1 of everything"
        self.capacity = capacity
        root = self._root
        root.slots, root.memory, root.cpu = capacity
        self._dominant.clear()
        for member in root.members.values():
            if isinstance(member, Cohort):
                self._reconsider(member)
        self._reconsider(root)

    def add_tenant(
        self,
        tenant_id: str,
        *,
        limits: Limits,
        weight: int,
        parent: str | None = None,
        share: CohortShare | None = None,
    ) -> None:
        """Make a tenant or sub-tenant known, or change its limits from the next decision on.

        Args:
            tenant_id: unique over tenants and sub-tenants.
            limits: what it may use at most.
            weight: its part beside the others of its level, at least 1.
            parent: the tenant whose quota a sub-tenant shares; stays what it was at first.
            share: its nominal share of that quota, and what of it is lent and borrowed; only of a sub-tenant.
        """
        assert weight >= 1, "a weight is at least 1"
        member = self._members.get(tenant_id)
        if member is None:
            cohort = self._root if parent is None else self._cohort_of(parent)
            queue: Queue[WorkT] = Queue(tenant_id, cohort)
            member = queue
            cohort.members[tenant_id] = member
            self._members[tenant_id] = self._queues[tenant_id] = queue
        above = parent_of(member)
        before, had_share = member.guaranteed, member.share is not None
        above.promise(member, -1)
        member.weight = weight
        member.set_limits(limits, None if above is self._root else share)
        above.promise(member, 1)
        self._look_again(member)
        self._take_back(member)
        if had_share and member.entry:
            self._enter(member)  # its place does not depend on what it uses any more
        if member.guaranteed != before:
            self._reconsider(above)

    def remove_tenant(self, tenant_id: str) -> None:
        """Forget a tenant, its sub-tenants and what waits for them; what still runs may be released later."""
        member = self._members.pop(tenant_id, None)
        if member is None:
            return
        if isinstance(member, Cohort):
            for name in [name for name, below in member.members.items() if below is not member.own]:
                self.remove_tenant(name)
        queue = self._queues.pop(tenant_id)
        for gone in (member, queue):
            if gone.shut:
                parent_of(gone).leave(gone)
            parent_of(gone).asides.pop(queue, None)
            gone.alive = False
            gone.entry = 0
            self._thirsty.pop(gone, None)
        queue.ready.clear()
        queue.aside = queue.gates = None
        above = parent_of(member)
        del above.members[tenant_id]
        self._root.freed += 1
        if member.guaranteed is not NOTHING:
            above.promise(member, -1)
            member.guaranteed = NOTHING
            self._reconsider(above)
        self._rouse(above)

    def set_gate(self, tenant_id: str, circuit: Hashable, *, permits: int, until: Instant = 0) -> None:
        """Hold the tasks of a circuit of a tenant back, apart from so many, the most urgent ones first.

        They take no slot meanwhile, and nothing of the rolling hour; the tenant's other tasks go on.

        Args:
            tenant_id: whose; nothing happens for one that is not known.
            circuit: as given to `push()`.
            permits: how many may start before the next decision.
            until: when that is expected, for those who ask; 0 if that is not known.
        """
        queue = self._queues.get(tenant_id)
        if queue is None:
            return
        if queue.gates is None:
            queue.gates = {}
        gate = queue.gates.get(circuit)
        if gate is None:
            gate = queue.gates[circuit] = Gate()
        gate.permits, gate.until = permits, until
        if permits > 0:
            queue.let_in(gate, permits)
            self._look_again(queue)
        elif queue.shut or queue.share is not None:
            self._look_again(queue)  # another head

    def permit(self, tenant_id: str, circuit: Hashable, more: int) -> None:
        """Let so many more in than were permitted; nothing happens where there is no gate."""
        queue = self._queues.get(tenant_id)
        gate = None if queue is None or queue.gates is None else queue.gates.get(circuit)
        if gate is not None:
            self.set_gate(tenant_id, circuit, permits=gate.permits + more, until=gate.until)

    def open_gate(self, tenant_id: str, circuit: Hashable) -> None:
        """Hold nothing of a circuit back any more."""
        queue = self._queues.get(tenant_id)
        if queue is None or queue.gates is None:
            return
        gate = queue.gates.pop(circuit, None)
        if not queue.gates:
            queue.gates = None
        if gate is not None:
            queue.let_in(gate, len(gate.parked))
            self._look_again(queue)

    def pause(self, tenant_id: str) -> None:
        """Start nothing more for a tenant and its sub-tenants."""
        member = self._members[tenant_id]
        member.paused = True
        self._look_again(member)  # others of its cohort may have waited behind its head

    def resume(self, tenant_id: str) -> None:
        """Start tasks of a paused tenant again."""
        member = self._members[tenant_id]
        member.paused = False
        self._look_again(member)

    def throttle(self, tenant_id: str, share: int | None) -> None:
        """Let a tenant run only that percentage of its tasks at a time (at least one); None for all of them."""
        assert share is None or 1 <= share <= 100, "a share is a percentage from 1 to 100"
        member = self._members[tenant_id]
        member.throttle = share
        member.set_limits(member.limits, member.share)
        self._look_again(member)
        self._take_back(member)

    def refresh(self, tenant_id: str) -> None:
        """Look again at a tenant's head, because a task of it was cancelled."""
        queue = self._queues.get(tenant_id)
        if queue is not None:
            self._look_again(queue)

    def recall(self, tenant_id: str, runs: Iterable[WorkT]) -> list[tuple[WorkT, int, Instant]]:
        """Take back every waiting task of runs, delayed ones too. O(everything that waits).

        Returns:
            of each the run, its position, and the moment for which it was added; 0 for one that could start.
        """
        queue = self._queues.get(tenant_id)
        if queue is None:
            return []
        gone = {id(run) for run in runs}
        gates = list((queue.gates or {}).values())
        waiting = (*queue.ready, *(queue.aside or ()), *(item for gate in gates for item in gate.parked))
        taken: list[tuple[WorkT, int, Instant]] = [(item[4], item[5], 0) for item in waiting if id(item[4]) in gone]
        queue.ready[:] = [item for item in queue.ready if id(item[4]) not in gone]
        heapify(queue.ready)
        if queue.aside is not None:
            queue.aside = [item for item in queue.aside if id(item[4]) not in gone] or None
        for gate in gates:
            gate.parked[:] = [item for item in gate.parked if id(item[4]) not in gone]
            heapify(gate.parked)
        delayed = [
            entry for entry in self._timers if entry[2] is queue and entry[3] is not None and id(entry[3][4]) in gone
        ]
        if delayed:
            places = {entry[1] for entry in delayed}
            self._timers[:] = [entry for entry in self._timers if entry[1] not in places]
            heapify(self._timers)
            queue.delayed -= len(delayed)
            taken += [(item[4], item[5], at) for at, _, _, item in delayed if item is not None]
        self._look_again(queue)
        return taken

    # --- the rolling hour -------------------------------------------------------------------------------------------

    def pending_reservations(self, now: Instant) -> list[tuple[str, Reservation]]:
        """Give what is to be written down so that tenants with an hourly limit can go on; each is given once."""
        if not self._thirsty:
            return []
        now = self._clamp(now)
        pending = []
        for member in self._thirsty:
            hour = member.hour
            reservation = None if hour is None else hour.needs_reservation(now)
            if reservation is not None:
                pending.append((member.tenant_id, reservation))
        self._thirsty.clear()
        return pending

    def reserved(self, tenant_id: str, reservation: Reservation, *, written: bool = True) -> None:
        """Take note that a reservation is written down, or that it could not be."""
        member = self._members.get(tenant_id)
        if member is None or member.hour is None:
            return
        if written:
            member.hour.reserved(reservation)
        else:
            member.hour.not_reserved(reservation)
        if member.held is HOUR_LIMIT and not member.until:
            self._look_again(member)

    def restore_hour(self, tenant_id: str, rows: Iterable[tuple[int, int]]) -> None:
        """Begin a tenant's rolling hour with the rows (minute, starts) that were written down."""
        member = self._members[tenant_id]
        if member.limits.per_hour is not None:
            member.hour = RollingHour(member.limits.per_hour)
            member.hour.restore(rows)

    # --- what is known ----------------------------------------------------------------------------------------------

    def running_of(self, tenant_id: str) -> int:
        """Count the running tasks of a tenant, its sub-tenants' included."""
        member = self._members.get(tenant_id)
        return member.running if member is not None else 0

    def waiting_of(self, tenant_id: str) -> int:
        """Count the tasks of a tenant that are ready and wait (cancelled ones not yet dropped included)."""
        member = self._members.get(tenant_id)
        return 0 if member is None else sum(len(queue.ready) + queue.parked for queue in self._queues_below(member))

    def waiting_since(self, tenant_id: str) -> Instant | None:
        """Give since when the task that has waited longest could have started; None if none waits. O(waiting tasks)."""
        member = self._members.get(tenant_id)
        queues = () if member is None else self._queues_below(member)
        since = (item[9] for queue in queues for item in queue.ready if item[9] and item[4].wants(item[5]))
        return min(since, default=None)

    def holds_of(self, tenant_id: str) -> Mapping[Reason, int]:
        """Give how often limits held a tenant, by reason."""
        member = self._members.get(tenant_id)
        return {} if member is None or member.holds is None else dict(member.holds)

    def usage(self) -> dict[str, Capacity]:
        """Give what each tenant and sub-tenant uses, its sub-tenants' included; nothing for those that use nothing."""
        return {
            name: Capacity(member.running, member.memory_used, member.cpu_used)
            for name, member in self._members.items()
            if member.running
        }

    def load_of(self, tenant_id: str) -> tuple[int, int]:
        """Count the tasks of a tenant that run, and those that wait or are delayed; (0, 0) if it is not known."""
        member = self._members.get(tenant_id)
        if member is None:
            return 0, 0
        queues = self._queues_below(member)
        return member.running, sum(
            len(queue.ready) + queue.parked + queue.delayed + len(queue.aside or ()) for queue in queues
        )

    def active_weight(self, tenant_id: str) -> int:
        """Give the weight of a tenant that runs tasks or is eligible; 0 for any other, and for sub-tenants."""
        member = self._members.get(tenant_id)
        if member is None or member.parent is not self._root or not (member.entry or member.running):
            return 0
        return member.weight

    def views(self, tenant_ids: Iterable[str], total_weight: int, now: Instant) -> list[TenantView]:
        """Describe some tenants and sub-tenants; those that are not known are left out.

        Args:
            tenant_ids: which.
            total_weight: the sum of `active_weight()` over all tenants.
            now: the present.
        """
        now = self._clamp(now)
        members = [member for name in tenant_ids if (member := self._members.get(name)) is not None]
        return [view_of(member, self._queues_below(member), self._root, total_weight, now) for member in members]

    @property
    def used(self) -> Capacity:
        """Give what is taken of the capacity."""
        root = self._root
        return Capacity(root.running, root.memory_used, root.cpu_used)

    def learnt(self, tenant_id: str) -> Mapping[Hashable, int]:
        """Give the learnt microseconds of a tenant's components, to be stored; nothing for one that is not known."""
        queue = self._queues.get(tenant_id)
        return {} if queue is None or queue.estimates is None else dict(queue.estimates)

    def teach(self, tenant_id: str, learnt: Mapping[Hashable, int]) -> None:
        """Begin with stored estimates."""
        self._queues[tenant_id].estimates = Estimates(learnt) if learnt else None

    # --- inside -----------------------------------------------------------------------------------------------------

    def _clamp(self, now: Instant) -> Instant:
        """Give the present, which never goes back."""
        if now > self._now:
            self._now = now
        return self._now

    def _hour_has_room(self, member: Member[WorkT], now: Instant) -> bool:
        hour = member.hour
        if hour is not None and now < hour.until and hour.left and hour.spent < hour.limit:
            return True
        if hour is None:
            assert member.limits.per_hour is not None
            hour = member.hour = RollingHour(member.limits.per_hour)
        if hour.has_room(now):
            return True
        room_at = hour.next_room(now)
        if room_at > now:
            member.until = room_at
            if member.alarm != room_at:
                member.alarm = room_at
                self._order += 1
                heappush(self._timers, (room_at, self._order, member, None))
            return False
        if self._records_reservations:
            self._thirsty[member] = None
            return False
        reservation = hour.needs_reservation(now)
        assert reservation is not None
        hour.reserved(reservation)
        return hour.has_room(now)

    def _activate(self, member: Member[WorkT]) -> None:
        """Put a member that has work among the eligible ones; whether it may go on is seen when its turn comes."""
        member.settle()
        self._enter(member)

    def _enter(self, member: Member[WorkT]) -> None:
        parent = parent_of(member)
        self._order += 1
        parent.enter(member, self._order)
        if parent.parent is None:
            return
        if not parent.entry:
            if parent.held in SHORT_OF_ROOM:
                self._activate(parent)
        elif parent.shut:
            self._enter(parent)

    def _rouse(self, cohort: Cohort[WorkT]) -> None:
        """Make a cohort eligible whose members may fit now that less is kept for one of them."""
        if cohort.parent is not None and cohort.held in SHORT_OF_ROOM and cohort.alive and cohort.has_work():
            if not cohort.entry:
                self._activate(cohort)
            elif cohort.shut:
                self._enter(cohort)

    def _look_again(self, member: Member[WorkT]) -> None:
        """Make a member eligible, whatever held it."""
        member.held = None
        member.until = 0
        self._root.freed += 1
        if isinstance(member, Cohort):
            for below in member.members.values():
                self._look_again(below)
        if member.parent is None:
            return
        if member.has_work():
            if not member.entry:
                self._activate(member)
            elif member.shut or member.share is not None:
                self._enter(member)
        self._rouse(member.parent)

    def _reconsider(self, cohort: Cohort[WorkT]) -> None:
        """Look again at what can never start, because more or less is left for the members of a cohort."""
        self._root.freed += 1
        for member in [] if cohort.closed is None else cohort.closed.members():
            self._look_again(member)
        self._take_back(cohort)

    def _take_back(self, member: Member[WorkT]) -> None:
        """Bring back what was set aside in a member and below it."""
        if isinstance(member, Cohort):
            for queue in [*member.asides]:
                self._take_back(queue)
            for below in member.members.values():
                if isinstance(below, Cohort):
                    self._take_back(below)
        elif isinstance(member, Queue):
            parent_of(member).asides.pop(member, None)
            if member.aside:
                member.take_back()
                self._look_again(member)

    def _queues_below(self, member: Member[WorkT]) -> list[Queue[WorkT]]:
        if isinstance(member, Queue):
            return [member]
        assert isinstance(member, Cohort)
        return [queue for below in member.members.values() for queue in self._queues_below(below)]

    def _cohort_of(self, tenant_id: str) -> Cohort[WorkT]:
        """Give the cohort of a tenant; its own tasks become one member of it beside its sub-tenants."""
        queue = self._members[tenant_id]
        if isinstance(queue, Cohort):
            return queue
        assert isinstance(queue, Queue)
        root = self._root
        assert queue.parent is root, "a sub-tenant has no sub-tenants"
        cohort: Cohort[WorkT] = Cohort(tenant_id, root)
        for name in ("hour", "limits", "owed", "paused", "served", "share", "start_tag", "throttle", "weight"):
            setattr(cohort, name, getattr(queue, name))
        cohort.running, cohort.memory_used, cohort.cpu_used = queue.running, queue.memory_used, queue.cpu_used
        cohort.set_limits(queue.limits, queue.share)
        if queue.shut:
            root.leave(queue)
        if root.asides.pop(queue, queue) is None:
            cohort.asides[queue] = None
        cohort.own = queue
        cohort.members[tenant_id] = queue
        queue.entry, queue.start_tag, queue.owed, queue.weight = 0, 0, 0, 1
        queue.hour, queue.held, queue.paused, queue.throttle = None, None, False, None
        queue.until = queue.alarm = 0
        queue.set_limits(UNLIMITED, None)
        queue.parent = cohort
        root.members[tenant_id] = self._members[tenant_id] = cohort
        self._look_again(queue)
        return cohort


def parent_of(member: Member[WorkT]) -> Cohort[WorkT]:
    assert member.parent is not None, "the capacity has nothing above it"
    return member.parent
