"""Who is next: a tree of queues and cohorts, each level a start-time fair queue of its eligible members.

Start-time fair queueing (Goyal, Vin & Cheng, 1996): each member has a start tag S; the smallest goes first; a dispatch
moves S forward by cost / weight; virtual time V is the S of the member dispatched last and never goes back; a member
that becomes eligible again starts from max(S, V), so that it can claim nothing for the past. The cost is the dominant
share (Ghodsi et al., "Dominant Resource Fairness", 2011) times the expected time.

What is learnt later about a cost (a task took longer than expected) is owed, and moves S with the member's next
dispatch; so a tag in a heap never changes, and each dispatch moves S forward.

**Heads that do not fit.** The head of a queue is never overtaken by tasks behind it in the same queue: a queue whose
head does not fit its own limits waits until its own tasks end. A head that does not fit what is free of a shared level
(memory, CPU; a sub-tenant shares two levels) steps aside with its start tag, and others go on; once they have been
served as much as the head costs, so much is kept free for it (a *claim*), beside what is guaranteed to others, until it
fits, which takes no longer than the tasks that run then. There is one claim per level at a time. A claim within a
tenant's family is one on the capacity too, where that is what is short. A task that asks for more than a limit as such,
or than others' guarantees ever leave, is set aside and blocks nobody.

Whole numbers only; Python's do not overflow.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Any

from synergymesh.domain.scheduling.limits import NOTHING, Capacity, Request
from synergymesh.domain.scheduling.tenant_queue import (
    COST_MIN_MICROSECONDS,
    NO_REQUEST,
    Item,
    Member,
    Queue,
    WorkT,
)
from synergymesh.domain.scheduling.waiting_room import COMPACT_SLACK, NEVER, Entry, WaitingRoom

BORROWING = 1 << 200
"""Added to the tag of a member beyond its nominal share: it comes after all that are within theirs."""

BORROWERS: Entry[Any] = (BORROWING, 0, None)  # type: ignore[assignment]  # no member: only compared
"""Comes before every member that borrows, and after all others."""


class Cohort(Member[WorkT]):
    """Hold members that share limits: the tenants share the capacity, sub-tenants share their tenant's quota.

    Attributes:
        heap: the eligible members by start tag; an entry counts only while its stamp is the member's.
        closed: those whose head does not fit what is free; None if there are none.
        asides: the members that may have tasks which were set aside.
        own: the queue of the tenant's own tasks beside those of its sub-tenants.
        guarantees: how many members have something guaranteed.
        promised: the sum of their guarantees.
        reserved: what these could still claim of it.
        claim: the queue whose head free memory and CPU are kept for; it may be a sub-tenant's, at the capacity too.
        claim_borrows: only members that borrow too have to leave it that room.
        pending: cohorts that want a claim here for the queue that has theirs, with their tag when they asked.
        freed: of the capacity: moves whenever something may fit that did not before.
        searched: what `freed` was when the closed ones were searched last; `upcoming` was found then.
    """

    __slots__ = (
        "asides",
        "claim",
        "claim_borrows",
        "claim_entry",
        "claim_request",
        "closed",
        "freed",
        "guarantees",
        "heap",
        "members",
        "own",
        "pending",
        "promised",
        "reserved",
        "searched",
        "upcoming",
        "virtual_time",
    )

    def __init__(self, tenant_id: str, parent: Cohort[WorkT] | None) -> None:
        super().__init__(tenant_id, parent)
        self.heap: list[Entry[WorkT]] = []
        self.closed: WaitingRoom[WorkT] | None = None
        self.members: dict[str, Member[WorkT]] = {}
        self.asides: dict[Queue[WorkT], None] = {}
        self.own: Queue[WorkT] | None = None
        self.virtual_time = 0
        self.promised = self.reserved = NOTHING
        self.guarantees = 0
        self.claim: Queue[WorkT] | None = None
        self.claim_entry = 0
        self.claim_request = NO_REQUEST
        self.claim_borrows = False
        self.pending: dict[Cohort[WorkT], int] | None = None
        self.freed = 1
        self.searched = 0
        self.upcoming: Entry[WorkT] | None = None

    def has_work(self) -> bool:
        """Tell whether any member is in a heap."""
        return bool(self.heap) or self.closed is not None

    def enter(self, member: Member[WorkT], stamp: int) -> None:
        """Put a member among the eligible ones; an entry that it has becomes invalid."""
        if member.shut:
            self.leave(member)
        heap = self.heap
        member.entry = stamp
        member.held = None
        heappush(heap, (self.key(member), stamp, member))
        if len(heap) > 2 * len(self.members) + COMPACT_SLACK:
            compact(heap)

    def leave(self, member: Member[WorkT]) -> None:
        """Take a member from the closed ones."""
        assert self.closed is not None
        self.closed.leave(member)
        if not self.closed.size:
            self.closed = None

    def key(self, member: Member[WorkT]) -> int:
        """Give a member's place in the heap: within its nominal share first, then by start tag."""
        if member.share is None:
            return member.start_tag
        item = member.head()
        while item is not None and isinstance(member, Queue) and not can_ever_run(member, item[7]):
            self.set_aside(member)  # it says nothing about what the member is going to take
            item = member.head()
        return self.key_for(member, NO_REQUEST if item is None else item[7])

    def key_for(self, member: Member[WorkT], request: Request) -> int:
        """Give the place that a member has with a head that asks for so much."""
        share = member.share
        if share is None:
            return member.start_tag
        nominal = share.nominal
        within = (
            member.running < nominal.slots
            and member.memory_used + request.memory_mb <= nominal.memory_mb
            and member.cpu_used + request.cpu_millis <= nominal.cpu_millis
        )
        return member.start_tag if within else member.start_tag + BORROWING

    def set_aside(self, queue: Queue[WorkT]) -> None:
        """Take the head of a member out of the way, because it can never start as the limits are."""
        queue.set_aside()
        self.asides[queue] = None

    def top(self) -> Entry[WorkT] | None:
        """Give the first eligible member's entry; what is out of date is dropped."""
        return first(self.heap)

    # --- what fits --------------------------------------------------------------------------------------------------

    def member_of(self, queue: Queue[WorkT]) -> Member[WorkT]:
        """Give the member that a queue is, or belongs to."""
        member: Member[WorkT] = queue
        while member.parent is not self:
            assert member.parent is not None
            member = member.parent
        return member

    def fits(self, queue: Queue[WorkT], request: Request) -> bool:
        """Tell whether a queue's head fits what is free beside what is kept for others, here and above."""
        return self.fits_here(queue, request) and (self.parent is None or self.parent.fits(queue, request))

    def fits_here(self, queue: Queue[WorkT], request: Request) -> bool:
        """Tell whether a queue's head fits what is free of this level beside what is kept for others."""
        slots = self.slots - self.running - 1
        memory = self.memory - self.memory_used - request.memory_mb
        cpu = self.cpu - self.cpu_used - request.cpu_millis
        # a task that asks for nothing of something is never held for it
        if slots < 0 or (memory < 0 and request.memory_mb) or (cpu < 0 and request.cpu_millis):
            return False
        if self.guarantees:
            return self._fits_beside_guarantees(queue, request, (slots, memory, cpu))
        if not self.bars(queue):
            return True
        asked = self.claim_request
        return (memory >= asked.memory_mb or not request.memory_mb) and (
            cpu >= asked.cpu_millis or not request.cpu_millis
        )

    def _fits_beside_guarantees(self, queue: Queue[WorkT], request: Request, free: tuple[int, int, int]) -> bool:
        member = self.member_of(queue)
        own = member.guaranteed
        used = (member.running, member.memory_used, member.cpu_used)
        asks = (1, *request)
        # what the others could still claim is kept beside what it asks for, what is left of its own is kept afterwards
        others = added(self.reserved, member.unclaimed(), -1)
        left = Capacity(*(max(0, own[k] - used[k] - asks[k]) for k in range(3)))
        claimed = self._kept_for_claim(added(others, left, 1)) if self.bars(queue) else None
        whole = (self.slots, self.memory, self.cpu)
        for k in range(3):
            if not asks[k]:
                continue
            within = used[k] + asks[k] <= own[k]  # its own guarantee, which nobody else's can bar
            if not within and free[k] < others[k]:
                return False
            if claimed is None or (within and self.promised[k] <= whole[k]):
                continue  # what is guaranteed to it is kept beside the claim, so that it takes nothing of that
            if free[k] < claimed[k]:
                return False
        return True

    def bars(self, queue: Queue[WorkT]) -> bool:
        """Tell whether a queue has to leave room for the claim."""
        claim = self.claim
        if claim is None or claim is queue:
            return False
        if claim.entry != self.claim_entry:
            self.claim = None
            return False
        if self.claim_borrows and queue.parent is claim.parent:
            assert queue.parent is not None
            return queue.parent.key(queue) >= BORROWING
        return True

    def _kept_for_claim(self, reserved: Capacity) -> tuple[int, int, int]:
        """Give what has to be free for the claim to fit: what it asks for beside what is guaranteed to others."""
        assert self.claim is not None
        claimer = self.member_of(self.claim)
        unclaimed = claimer.unclaimed()
        memory, cpu = self.claim_request
        if claimer.memory_used + memory > claimer.guaranteed.memory_mb:
            memory += max(0, reserved.memory_mb - unclaimed.memory_mb)
        if claimer.cpu_used + cpu > claimer.guaranteed.cpu_millis:
            cpu += max(0, reserved.cpu_millis - unclaimed.cpu_millis)
        return 0, memory, cpu

    def most_for(self, member: Member[WorkT]) -> Capacity:
        """Give what a member could take if nothing ran: all but what is guaranteed to others."""
        own, promised = member.guaranteed, self.promised
        return Capacity(
            *(
                min(whole, max(mine, whole - all_of_it + mine))
                for whole, mine, all_of_it in zip((self.slots, self.memory, self.cpu), own, promised, strict=True)
            )
        )

    def room(self, family: Cohort[WorkT], *, within: bool, above: bool = True) -> tuple[int, int]:
        """Give the memory and CPU of the largest head that fits, of a member without a guarantee.

        Args:
            family: the cohort that the queue is in; this one, or one below it.
            within: the queue is within its nominal share.
            above: look at the levels above too.

        Returns:
            (-1, -1) if no slot is free.
        """
        slots, memory, cpu = self.reserved
        if self.running + slots >= self.slots:
            return -1, -1
        claim = self.claim
        if claim is not None and claim.entry != self.claim_entry:
            claim = self.claim = None
        if claim is not None and not (self.claim_borrows and within and claim.parent is family):
            kept = self._kept_for_claim(self.reserved)
            memory, cpu = max(memory, kept[1]), max(cpu, kept[2])
        memory, cpu = max(0, self.memory - self.memory_used - memory), max(0, self.cpu - self.cpu_used - cpu)
        if above and self.parent is not None:
            memory_above, cpu_above = self.parent.room(family, within=within)
            memory, cpu = min(memory, memory_above), min(cpu, cpu_above)
        return memory, cpu

    # --- those that do not fit --------------------------------------------------------------------------------------

    def close(self, member: Member[WorkT], request: Request) -> None:
        """Move the first eligible member, whose head does not fit, to those that wait for room."""
        entry = heappop(self.heap)
        assert entry[2] is member
        closed = self.closed
        if closed is None:
            closed = self.closed = WaitingRoom()
        if isinstance(member, Cohort):
            closed.try_later(entry)
        elif member.guaranteed is not NOTHING:
            closed.add_owner(entry)
        else:
            closed.add(entry, request)

    def reopen(self, freed: int) -> None:
        """Move the first closed member that fits again to the eligible ones, if it goes before them.

        Nothing is searched again unless something was freed since, or what was found then is gone.

        Args:
            freed: `freed` of the capacity.
        """
        closed = self.closed
        assert closed is not None
        upcoming = self.upcoming
        if self.searched != freed:
            self.searched = freed
            if self.claim is not None:
                self._reopen_claim()
            for entry in list(closed.tried.values()) if closed.tried else ():
                family = entry[2]
                assert isinstance(family, Cohort)
                closed.leave(family)
                closed.add(entry, NO_REQUEST if family.closed is None else family.closed.least())
            upcoming = self.upcoming = self._first_in(self.closed, above=True)
        elif upcoming is None:
            return
        elif not closed.holds(upcoming) or not self._still_fits(upcoming[2]):
            # others have started meanwhile, and room may be kept now for one that fits all the same
            if self.claim is not None:
                self._reopen_claim()
            upcoming = self.upcoming = self._first_in(self.closed, above=True)
        if upcoming is not None:
            eligible = first(self.heap)
            if eligible is None or upcoming < eligible:
                self._open(upcoming)

    def _open(self, entry: Entry[WorkT]) -> None:
        self.leave(entry[2])
        heappush(self.heap, entry)

    def _still_fits(self, member: Member[WorkT]) -> bool:
        if not isinstance(member, Queue):
            return True  # seen when its turn comes
        item = member.head()
        return item is None or self.fits(member, item[7])

    def _first_in(self, closed: WaitingRoom[WorkT] | None, *, above: bool) -> Entry[WorkT] | None:
        if closed is None:
            return None
        found: Entry[WorkT] | None = None
        if self.claim_borrows:
            found = closed.find(*self.room(self, within=True, above=above), BORROWERS)
        if found is None:
            found = closed.find(*self.room(self, within=False, above=above), NEVER)
        for owner, entry in closed.owners.items():
            if found is None or entry < found:
                assert isinstance(owner, Queue)
                item = owner.head()
                if item is None or (self.fits if above else self.fits_here)(owner, item[7]):
                    found = entry
        return found

    def waits_above(self) -> bool:
        """Tell whether any closed head fits this level, so that it is a level above that is short."""
        return self.claim_fits(above=False) or self._first_in(self.closed, above=False) is not None

    def claim_fits(self, *, above: bool = True) -> bool:
        """Tell whether the head that room is kept for fits."""
        claim = self.claim
        if claim is None or claim.entry != self.claim_entry:
            return False
        item = claim.head()
        assert claim.parent is not None
        return item is not None and (
            claim.parent.fits(claim, item[7]) if above else claim.parent.fits_here(claim, item[7])
        )

    def _reopen_claim(self) -> None:
        """Let the member that room was kept for go on when there is enough, also from behind others like it."""
        if not self.claim_fits():
            return
        assert self.claim is not None
        member = self.member_of(self.claim)
        if member.shut:
            assert self.closed is not None
            self._open(self.closed.entry_of(member))

    # --- claims -----------------------------------------------------------------------------------------------------

    def has_claim(self) -> bool:
        """Tell whether room is kept for somebody."""
        if self.claim is not None and self.claim.entry != self.claim_entry:
            self.claim = None
        return self.claim is not None

    def look_for_claim(self, charge_of: Callable[[Request], int]) -> None:
        """Keep room for the member that was overtaken longest, once others were served as much as its head costs.

        One that borrows comes last, and only others that borrow have to leave it room.

        Args:
            charge_of: gives the dominant share of a request.
        """
        entry = NEVER if self.closed is None else self.closed.first()
        if self.claim is None and self.pending is None and (entry is NEVER or self.virtual_time <= entry[2].start_tag):
            return  # the usual case: nobody was overtaken
        # one that borrows may never get its room, so it gives its place to one that does not
        if self.has_claim() and not (self.claim_borrows and (entry[0] < BORROWING or self.pending)):
            self._claim_above(charge_of)
            return
        family: Cohort[WorkT] | None = None
        if self.pending is not None:
            family, tag = self._longest_pending()
            if family is not None and tag < entry[0]:
                self._claim_for_family(family)
                return
        if entry is NEVER:
            return
        member = entry[2]
        queue = member.next_to_claim() if isinstance(member, Cohort) else member
        item = None if queue is None else queue.head()
        if queue is not None and item is not None:
            assert isinstance(queue, Queue)
            patience = max(item[6], COST_MIN_MICROSECONDS) * charge_of(item[7]) // member.weight
            if self.virtual_time > member.start_tag + patience:
                self._keep_for(queue, item[7], borrows=entry[0] >= BORROWING)
                if isinstance(member, Cohort):
                    if not member.has_claim():
                        member._keep_for(queue, item[7], borrows=member.key(queue) >= BORROWING)
                    self.claim_borrows = member.claim_borrows
                self._claim_above(charge_of)
                return
        if family is not None:
            self._claim_for_family(family)

    def next_to_claim(self) -> Queue[WorkT] | None:
        """Give the closed queue that room above is kept for next."""
        if self.has_claim():
            return self.claim
        entry = self._first_in(self.closed, above=False)
        if entry is None:
            return None
        assert isinstance(entry[2], Queue)
        return entry[2]

    def _keep_for(self, queue: Queue[WorkT], request: Request, *, borrows: bool) -> None:
        self.claim, self.claim_entry, self.claim_request, self.claim_borrows = queue, queue.entry, request, borrows

    def _claim_above(self, charge_of: Callable[[Request], int]) -> None:
        """Let the claim of a family be one on the capacity as well, if that is short."""
        above, claim = self.parent, self.claim
        if above is None or claim is None or above.claim is claim or above.fits_here(claim, self.claim_request):
            return
        if above.pending is None:
            above.pending = {}
        if self not in above.pending:
            above.pending[self] = self.start_tag
        above.look_for_claim(charge_of)

    def _longest_pending(self) -> tuple[Cohort[WorkT] | None, int]:
        pending = self.pending
        if pending is None:
            return None, 0
        for family in [family for family in pending if not family.has_claim()]:
            del pending[family]
        if not pending:
            self.pending = None
            return None, 0
        family = min(pending, key=pending.__getitem__)
        return family, pending[family]

    def _claim_for_family(self, family: Cohort[WorkT]) -> None:
        assert self.pending is not None
        assert family.claim is not None
        del self.pending[family]
        self._keep_for(family.claim, family.claim_request, borrows=family.claim_borrows)

    def head(self) -> Item[WorkT] | None:
        """Give the head of its first eligible member."""
        entry = self.top()
        return None if entry is None else entry[2].head()

    def reserve(self, unclaimed: Capacity, sign: int) -> None:
        """Keep that much more (or less) for members with a guarantee."""
        self.reserved = added(self.reserved, unclaimed, sign)

    def promise(self, member: Member[WorkT], sign: int) -> None:
        """Take note of a member's guarantee, or that it is gone."""
        if member.guaranteed is not NOTHING:
            self.guarantees += sign
            self.promised = added(self.promised, member.guaranteed, sign)
            self.reserve(member.unclaimed(), sign)


def can_ever_run(queue: Queue[WorkT], request: Request) -> bool:
    """Tell whether a task asks for no more than each limit as such leaves it, if nothing else runs."""
    member: Member[WorkT] = queue
    while request.memory_mb <= member.memory and request.cpu_millis <= member.cpu:
        above = member.parent
        if above is None:
            return True
        if above.guarantees:
            slots, memory_mb, cpu_millis = above.most_for(member)
            if slots < 1 or request.memory_mb > memory_mb or request.cpu_millis > cpu_millis:
                return False
        member = above
    return False


def added(have: Capacity, more: Capacity, sign: int) -> Capacity:
    """Give the sum of two amounts, or what is left of the first."""
    return Capacity(*(a + sign * b for a, b in zip(have, more, strict=True)))


def first(heap: list[Entry[WorkT]]) -> Entry[WorkT] | None:
    """Give a heap's first valid entry; those out of date before it are dropped."""
    while heap:
        entry = heap[0]
        if entry[2].entry == entry[1]:
            return entry
        heappop(heap)
    return None


def compact(heap: list[Entry[WorkT]]) -> None:
    """Drop all entries that are out of date."""
    heap[:] = [entry for entry in heap if entry[2].entry == entry[1]]
    heapify(heap)
