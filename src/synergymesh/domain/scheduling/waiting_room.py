"""Members whose head waits for memory or CPU of their level, so that the first one that fits is found quickly.

Heads that ask for the same form a group, ordered by start tag. The groups are in a tree of squares (a point-region
quadtree: Samet, "The Quadtree and Related Hierarchical Data Structures", 1984) over memory and CPU; each square knows
the first entry in it and the bounds of what is asked. So a search looks only into squares that hold something earlier
than what was found, and some of which fits: O(sqrt(groups)) at worst, a handful in practice, however many wait.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Any, Generic

from synergymesh.domain.scheduling.limits import Request
from synergymesh.domain.scheduling.tenant_queue import NO_REQUEST, Member, WorkT

GROUPS_MAX = 12
"""Groups of a square before it is divided: looking at a dozen costs about as much as going down two levels."""

COMPACT_SLACK = 64
"""Entries of a heap that may be out of date beside as many as are not."""

Entry = tuple[int, int, Member[WorkT]]

NEVER: Entry[Any] = (1 << 400, 0, None)  # type: ignore[assignment]  # no member: only compared
"""Comes after every entry; there is none."""


class Group(Generic[WorkT]):
    """Hold the entries of members whose heads ask for the same; the first one is always valid."""

    __slots__ = ("cpu", "entries", "memory", "square")

    def __init__(self, request: Request) -> None:
        self.memory, self.cpu = request
        self.entries: list[Entry[WorkT]] = []
        self.square: Square[WorkT]


class Square(Generic[WorkT]):
    """Hold groups, or the four quarters of the square.

    Attributes:
        bit: what divides it: the halves of both sides differ in this bit.
        first: the first entry of all its groups, `NEVER` if there is none.
        memory_min, memory_max, cpu_min, cpu_max: bounds of what its entries ask for.
    """

    __slots__ = ("above", "bit", "cpu_max", "cpu_min", "first", "groups", "memory_max", "memory_min", "quarters")

    def __init__(self, above: Square[WorkT] | None, bit: int) -> None:
        self.above = above
        self.bit = bit
        self.groups: list[Group[WorkT]] = []
        self.quarters: list[Square[WorkT]] | None = None
        self.clear()

    def clear(self) -> None:
        """Know of no entries."""
        self.first: Entry[WorkT] = NEVER
        self.memory_min = self.cpu_min = 1 << 62
        self.memory_max = self.cpu_max = -1

    def quarter_of(self, memory: int, cpu: int) -> Square[WorkT]:
        """Give the quarter that a request belongs to."""
        assert self.quarters is not None
        return self.quarters[(memory >> self.bit & 1) << 1 | (cpu >> self.bit & 1)]


class WaitingRoom(Generic[WorkT]):
    """Hold the closed members of a level.

    Attributes:
        size: how many there are.
        owners: those with a guarantee, which fit where others do not; few, and each is looked at.
        tried: cohorts in which nothing could start since something was freed last.
    """

    __slots__ = ("_groups", "_top", "owners", "size", "tried")

    def __init__(self) -> None:
        self._groups: dict[Request, Group[WorkT]] = {}
        self._top: Square[WorkT] = Square(None, -1)
        self.owners: dict[Member[WorkT], Entry[WorkT]] = {}
        self.tried: dict[Member[WorkT], Entry[WorkT]] = {}
        self.size = 0

    def add(self, entry: Entry[WorkT], request: Request) -> None:
        """Let a member wait for what its head asks for."""
        member = entry[2]
        member.shut = True
        self.size += 1
        group = self._groups.get(request)
        if group is None:
            group = self._groups[request] = Group(request)
            self._place(group)
        member.group = group
        entries = group.entries
        heappush(entries, entry)
        if entries[0] is entry:
            self._widen(group.square, group, entry)
        elif len(entries) > 2 * self.size + COMPACT_SLACK:
            entries[:] = [other for other in entries if _is_valid(other, group)]
            heapify(entries)

    def add_owner(self, entry: Entry[WorkT]) -> None:
        """Let a member with a guarantee wait."""
        entry[2].shut = True
        self.size += 1
        self.owners[entry[2]] = entry

    def try_later(self, entry: Entry[WorkT]) -> None:
        """Let a cohort wait in which nothing can start until something is freed."""
        entry[2].shut = True
        self.size += 1
        self.tried[entry[2]] = entry

    def leave(self, member: Member[WorkT]) -> None:
        """Let a member go."""
        member.shut = False
        self.size -= 1
        group, member.group = member.group, None
        if group is None:
            if self.owners.pop(member, None) is None:
                del self.tried[member]
            return
        entries = group.entries
        if entries[0][2] is member:
            heappop(entries)
            while entries and not _is_valid(entries[0], group):
                heappop(entries)
            self._narrow(group)

    def find(self, memory: int, cpu: int, before: Entry[WorkT]) -> Entry[WorkT] | None:
        """Give the first entry whose head asks for no more than that, if it comes before another."""
        best = before
        squares = [self._top]
        while squares:
            square = squares.pop()
            if square.memory_min > memory or square.cpu_min > cpu or square.first >= best:
                continue
            if square.memory_max <= memory and square.cpu_max <= cpu:
                best = square.first
            elif square.quarters is not None:
                squares += square.quarters
            else:
                for group in square.groups:
                    if group.memory <= memory and group.cpu <= cpu and group.entries and group.entries[0] < best:
                        best = group.entries[0]
        return None if best is before else best

    def first(self) -> Entry[WorkT]:
        """Give the entry that comes before all others, whatever it asks for; `NEVER` if nobody waits."""
        if not self.owners and not self.tried:
            return self._top.first
        return min(self._top.first, *self.owners.values(), *self.tried.values())

    def least(self) -> Request:
        """Give so much that no head here asks for less, of memory or of CPU."""
        memory, cpu = self._top.memory_min, self._top.cpu_min
        for owner in self.owners:
            item = owner.head()
            request = NO_REQUEST if item is None else item[7]
            memory, cpu = min(memory, request.memory_mb), min(cpu, request.cpu_millis)
        return Request(memory, cpu)

    def holds(self, entry: Entry[WorkT]) -> bool:
        """Tell whether an entry that was found is still one that waits."""
        member = entry[2]
        return member.shut and member.entry == entry[1] and member not in self.tried

    def entry_of(self, member: Member[WorkT]) -> Entry[WorkT]:
        """Give the entry of one that waits."""
        if member.group is not None:
            return next(entry for entry in member.group.entries if entry[1] == member.entry)
        return self.owners[member] if member in self.owners else self.tried[member]

    def members(self) -> list[Member[WorkT]]:
        """Give all that wait."""
        grouped = [
            entry[2] for group in self._groups.values() for entry in group.entries if _is_valid(entry, group)
        ]  # fmt: skip
        return [*dict.fromkeys(grouped), *self.owners, *self.tried]

    # --- the tree ---------------------------------------------------------------------------------------------------

    def _place(self, group: Group[WorkT]) -> None:
        """Find the square of a new group, and divide it if it is full."""
        memory, cpu = group.memory, group.cpu
        square = self._top
        if square.quarters is not None and max(memory, cpu) >> square.bit > 1:
            square = self._grow(group)
        while square.quarters is not None:
            square = square.quarter_of(memory, cpu)
        groups = square.groups
        groups.append(group)
        group.square = square
        if len(groups) > GROUPS_MAX:
            for other in groups:
                if not other.entries and other is not group:
                    del self._groups[Request(other.memory, other.cpu)]
            groups[:] = [other for other in groups if other.entries or other is group]
            if len(groups) > GROUPS_MAX:
                self._divide(square)

    def _divide(self, square: Square[WorkT]) -> None:
        groups = square.groups
        if square.above is None:
            square.bit = max(max(group.memory, group.cpu) for group in groups).bit_length() - 1
        square.quarters = [Square(square, square.bit - 1) for _ in range(4)]
        square.groups = []
        for group in groups:
            quarter = square.quarter_of(group.memory, group.cpu)
            quarter.groups.append(group)
            group.square = quarter
        for quarter in square.quarters:
            for group in quarter.groups:
                if group.entries:
                    _include(quarter, group, group.entries[0])
            if len(quarter.groups) > GROUPS_MAX:
                self._divide(quarter)

    def _grow(self, new: Group[WorkT]) -> Square[WorkT]:
        """Begin anew, because somebody asks for more than the largest square holds."""
        top = self._top = Square(None, -1)
        for request, group in list(self._groups.items()):
            if group.entries:
                top.groups.append(group)
                group.square = top
                _include(top, group, group.entries[0])
            elif group is not new:
                del self._groups[request]
        return top

    def _widen(self, square: Square[WorkT] | None, group: Group[WorkT], entry: Entry[WorkT]) -> None:
        """Take note of an entry that is the first of its group."""
        while square is not None:
            _include(square, group, entry)
            square = square.above

    def _narrow(self, group: Group[WorkT]) -> None:
        """Take note that the first entry of a group has left."""
        square: Square[WorkT] | None = group.square
        if not group.entries:
            self._shrink(square)
            return
        while square is not None:
            before = square.first
            if square.quarters is None:
                square.first = min([other.entries[0] for other in square.groups if other.entries])
            else:
                a, b, c, d = square.quarters
                square.first = min(a.first, b.first, c.first, d.first)
            if square.first is before:
                return
            square = square.above

    def _shrink(self, square: Square[WorkT] | None) -> None:
        """Work out anew what squares know of their entries, because nobody asks for the same as one that left."""
        while square is not None:
            square.clear()
            if square.quarters is None:
                for other in square.groups:
                    if other.entries:
                        _include(square, other, other.entries[0])
            else:
                for quarter in square.quarters:
                    if quarter.first is not NEVER:
                        _enclose(square, quarter)
            square = square.above


def _is_valid(entry: Entry[WorkT], group: Group[WorkT]) -> bool:
    return entry[2].entry == entry[1] and entry[2].group is group


def _include(square: Square[WorkT], group: Group[WorkT], entry: Entry[WorkT]) -> None:
    if entry < square.first:
        square.first = entry
    memory, cpu = group.memory, group.cpu
    if memory < square.memory_min:
        square.memory_min = memory
    if memory > square.memory_max:
        square.memory_max = memory
    if cpu < square.cpu_min:
        square.cpu_min = cpu
    if cpu > square.cpu_max:
        square.cpu_max = cpu


def _enclose(square: Square[WorkT], quarter: Square[WorkT]) -> None:
    if quarter.first < square.first:
        square.first = quarter.first
    square.memory_min = min(square.memory_min, quarter.memory_min)
    square.memory_max = max(square.memory_max, quarter.memory_max)
    square.cpu_min = min(square.cpu_min, quarter.cpu_min)
    square.cpu_max = max(square.cpu_max, quarter.cpu_max)
