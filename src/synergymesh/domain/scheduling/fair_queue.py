"""Who is next: a tree of queues and cohorts, each level a start-time fair queue of its eligible members.

Start-time fair queueing (Goyal, Vin & Cheng, 1996): each member has a start tag S; the smallest goes first; a dispatch
moves S forward by cost / weight; virtual time V is the S of the member dispatched last and never goes back; a member
that becomes eligible again starts from max(S, V), so that it can claim nothing for the past. The cost is the dominant
share (Ghodsi et al., "Dominant Resource Fairness", 2011) times the expected time.

What is learnt later about a cost (a task took longer than expected) is owed, and moves S with the member's next
dispatch; so a tag in a heap never changes, and each dispatch moves S forward.

**Heads that do not fit.** The head of a queue is never overtaken by tasks behind it in the same queue: a queue whose
head does not fit its own limits waits until its own tasks end. A head that does not fit what is free of a shared level
(memory, CPU) steps aside with its start tag, and others go on; once they have been served as much as the head costs,
so much is kept free for it (a *claim*) until it fits, which takes no longer than the tasks that run then. There is one
claim per level at a time. A task that asks for more than a limit as such is set aside and blocks nobody.

Whole numbers only; Python's do not overflow.
"""

from __future__ import annotations

from collections.abc import Hashable
from heapq import heapify, heappop, heappush

from synergymesh.domain.scheduling.limits import NOTHING, Capacity, Request
from synergymesh.domain.scheduling.tenant_queue import (
    COST_MIN_MICROSECONDS,
    NO_REQUEST,
    WHOLE,
    Item,
    Member,
    Queue,
    WorkT,
)

BORROWING = 1 << 200
"""Added to the tag of a member beyond its nominal share: it comes after all that are within theirs."""

COMPACT_SLACK = 64
"""Entries of a heap that may be out of date beside as many as are not."""


Entry = tuple[int, int, Member[WorkT]]


class Cohort(Member[WorkT]):
    """Hold members that share limits: the tenants share the capacity, sub-tenants share their tenant's quota.

    Attributes:
        heap: the eligible members by start tag; an entry counts only while its stamp is the member's.
        closed: those whose head does not fit what is free, by what the head asks for.
        own: the queue of the tenant's own tasks beside those of its sub-tenants.
        guarantees: how many members have something guaranteed.
        reserved: what these could still claim of it.
        claim: the member that free memory and CPU are kept for.
    """

    __slots__ = (
        "claim",
        "claim_entry",
        "claim_request",
        "closed",
        "guarantees",
        "heap",
        "members",
        "own",
        "reserved",
        "virtual_time",
    )

    def __init__(self, tenant_id: str, parent: Cohort[WorkT] | None) -> None:
        super().__init__(tenant_id, parent)
        self.heap: list[Entry[WorkT]] = []
        self.closed: dict[Hashable, list[Entry[WorkT]]] = {}
        self.members: dict[str, Member[WorkT]] = {}
        self.own: Queue[WorkT] | None = None
        self.virtual_time = 0
        self.reserved = NOTHING
        self.guarantees = 0
        self.claim: Member[WorkT] | None = None
        self.claim_entry = 0
        self.claim_request = NO_REQUEST

    def has_work(self) -> bool:
        """Tell whether any member is in a heap."""
        return bool(self.heap or self.closed)

    def enter(self, member: Member[WorkT], stamp: int) -> None:
        """Put a member among the eligible ones; an entry that it has becomes invalid."""
        heap = self.heap
        member.entry = stamp
        member.shut = False
        member.held = None
        heappush(heap, (self.key(member), stamp, member))
        if len(heap) > 2 * len(self.members) + COMPACT_SLACK:
            compact(heap)

    def key(self, member: Member[WorkT]) -> int:
        """Give a member's place in the heap: within its nominal share first, then by start tag."""
        share = member.share
        if share is None:
            return member.start_tag
        item = member.head()
        request = NO_REQUEST if item is None else item[7]
        nominal = share.nominal
        within = (
            member.running < nominal.slots
            and member.memory_used + request.memory_mb <= nominal.memory_mb
            and member.cpu_used + request.cpu_millis <= nominal.cpu_millis
        )
        return member.start_tag if within else member.start_tag + BORROWING

    def top(self) -> Entry[WorkT] | None:
        """Give the first eligible member's entry; what is out of date is dropped."""
        return first(self.heap)

    def fits(self, member: Member[WorkT], request: Request) -> bool:
        """Tell whether a member's head fits what is free beside what is kept for others."""
        slots = self.slots - self.running - 1
        memory = self.memory - self.memory_used - request.memory_mb
        cpu = self.cpu - self.cpu_used - request.cpu_millis
        if slots < 0 or memory < 0 or cpu < 0:
            return False
        if self.guarantees and not self._fits_beside_guarantees(member, request, slots, memory, cpu):
            return False
        claim = self.claim
        if claim is None or claim is member:
            return True
        if claim.entry != self.claim_entry:
            self.claim = None
            return True
        asked = self.claim_request
        return memory >= asked.memory_mb and cpu >= asked.cpu_millis

    def _fits_beside_guarantees(
        self, member: Member[WorkT], request: Request, slots: int, memory: int, cpu: int
    ) -> bool:
        own = member.guaranteed
        used = (member.running, member.memory_used, member.cpu_used)
        asks = (1, request.memory_mb, request.cpu_millis)
        free = (slots, memory, cpu)
        for k in range(3):
            if used[k] + asks[k] <= own[k]:
                continue  # its own guarantee, which nobody else's can bar
            if free[k] < self.reserved[k] - max(0, own[k] - used[k]):
                return False
        return True

    def close(self, member: Member[WorkT], request: Request) -> None:
        """Move the first eligible member, whose head does not fit, to those that wait for room."""
        entry = heappop(self.heap)
        assert entry[2] is member
        member.shut = True
        key = (request, member.tenant_id if member.guaranteed is not NOTHING else None)
        waiting = self.closed.setdefault(key, [])
        heappush(waiting, entry)
        if len(waiting) > 2 * len(self.members) + COMPACT_SLACK:
            compact(waiting)

    def reopen(self) -> None:
        """Move the most urgent member that fits again to the eligible ones, if it goes before them.

        Looks at one member for each different request that waits, never at all members.
        """
        claim = self.claim
        if claim is not None and claim.shut and claim.entry == self.claim_entry:
            self._reopen_claim(claim)
        best: Entry[WorkT] | None = self.top()
        source: list[Entry[WorkT]] | None = None
        for key, waiting in list(self.closed.items()):
            entry = first(waiting)
            if entry is None:
                del self.closed[key]
                continue
            member = entry[2]
            item = member.head()
            if best is not None and entry > best:
                continue
            if item is None or self.fits(member, item[7]):
                best, source = entry, waiting
        if source is not None:
            entry = heappop(source)
            entry[2].shut = False
            heappush(self.heap, entry)

    def _reopen_claim(self, member: Member[WorkT]) -> None:
        """Let the member that room was kept for go on when there is enough, also from behind others like it."""
        item = member.head()
        if item is not None and not self.fits(member, item[7]):
            return
        for waiting in self.closed.values():
            for place, entry in enumerate(waiting):
                if entry[1] == self.claim_entry:
                    waiting[place] = waiting[-1]
                    waiting.pop()
                    heapify(waiting)
                    member.shut = False
                    heappush(self.heap, entry)
                    return

    def look_for_claim(self, charge_of: dict[Request, int]) -> None:
        """Keep room for the member that was overtaken longest, once others were served as much as its head costs.

        Not for one that borrows: it has what the others leave.

        Args:
            charge_of: the dominant share of each request.
        """
        if self.claim is not None and self.claim.entry == self.claim_entry:
            return
        self.claim = None
        longest: Entry[WorkT] | None = None
        for waiting in self.closed.values():
            entry = first(waiting)
            if entry is not None and (longest is None or entry < longest):
                longest = entry
        if longest is None or longest[0] >= BORROWING:
            return
        member = longest[2]
        item = member.head()
        if item is None:
            return
        request = item[7]
        patience = max(item[6], COST_MIN_MICROSECONDS) * charge_of.get(request, WHOLE) // member.weight
        if self.virtual_time <= member.start_tag + patience:
            return
        others = self.reserved[1] - member.guaranteed.memory_mb, self.reserved[2] - member.guaranteed.cpu_millis
        if request.memory_mb > self.memory - max(0, others[0]) or request.cpu_millis > self.cpu - max(0, others[1]):
            return  # could not start even if nothing ran: what others are guaranteed is in the way
        self.claim, self.claim_entry, self.claim_request = member, member.entry, request

    def head(self) -> Item[WorkT] | None:
        """Give the head of its first eligible member."""
        entry = self.top()
        return None if entry is None else entry[2].head()

    def reserve(self, unclaimed: Capacity, sign: int) -> None:
        """Keep that much more (or less) for members with a guarantee."""
        self.reserved = Capacity(*(have + sign * more for have, more in zip(self.reserved, unclaimed, strict=True)))


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
