"""A tenant's or sub-tenant's queue: its limits, what it uses of them, its place among the others, its waiting tasks."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from synergymesh.domain.instants import Instant
from synergymesh.domain.scheduling.estimates import Estimates
from synergymesh.domain.scheduling.explain import Reason
from synergymesh.domain.scheduling.gates import Gate
from synergymesh.domain.scheduling.limits import (
    MINUTE,
    NOTHING,
    UNLIMITED,
    Capacity,
    CohortShare,
    Limits,
    Request,
    RollingHour,
)

if TYPE_CHECKING:
    from synergymesh.domain.scheduling.fair_queue import Cohort
    from synergymesh.domain.scheduling.waiting_room import Group

UNIT = 720_720
"""Divisible by every weight from 1 to 16, so that the usual weights lose nothing to rounding."""

SHARE_SHIFT = 20
"""Shares of the capacity are kept to a millionth."""

COST_MIN_MICROSECONDS = 1_000
"""No dispatch is cheaper: starting a task costs something, and a flood of tiny tasks must not be free."""

WHOLE = UNIT << SHARE_SHIFT
"""The dominant share of a task that takes the whole capacity."""

DEBT_MAX = 60_000_000 * WHOLE
"""A member is at most behind virtual time by 60 s of the whole capacity, divided by its weight."""


class Work(Protocol):
    """What a scheduler needs to know of a run."""

    def wants(self, position: int) -> bool:
        """Tell whether the task at that position still waits to be started."""
        ...


WorkT = TypeVar("WorkT", bound=Work)

Item = tuple[int, int, int, int, WorkT, int, int, Request, Hashable, Instant, Hashable]
"""A task that waits: level, age, -rank, order, run, position, declared cost, request, component, the moment from which
it was ready, the circuit that can hold it back. `order` is unique, so nothing after it is ever compared. The level is
the minute in which the run came minus its priority: a run that has waited for a minute longer counts as one level more
urgent, and that never changes while both wait."""
RUN, POSITION, COST, REQUEST, COMPONENT, CIRCUIT = 4, 5, 6, 7, 8, 10


def level_of(since: Instant, priority: int) -> int:
    """Give the level of a task or a run that could start since that moment."""
    return since // MINUTE - priority


NO_REQUEST = Request()


def dominant_share(request: Request, capacity: Capacity) -> int:
    """Give the largest part of any resource that the task takes, in units of `1 / WHOLE`, rounded up."""
    parts = (
        -((-1 << SHARE_SHIFT) // capacity.slots),
        -((-request.memory_mb << SHARE_SHIFT) // capacity.memory_mb),
        -((-request.cpu_millis << SHARE_SHIFT) // capacity.cpu_millis),
    )
    return max(parts) * UNIT


class Member(Generic[WorkT]):
    """Hold the limits of a tenant or sub-tenant, what it uses of them, and its place among the members of its level.

    Attributes:
        hourly: it has a limit of starts per hour; `hour` counts them from the first one on.
        entry: the stamp of its valid entry in a heap of its parent; 0 if it is in none.
        shut: that entry is among the parent's `closed` ones, in `group` if it is in one.
        alarm: the moment of the newest timer for it; 0 for none.
        held: why it is not eligible although it has work; None if it is, or has none.
        owed: cost that is not in `start_tag` yet, in units of `1 / WHOLE` microseconds; below 0 for a credit.
        holds: how often it was held, by reason.
    """

    __slots__ = (
        "alarm",
        "alive",
        "cpu",
        "cpu_used",
        "entry",
        "group",
        "guaranteed",
        "held",
        "holds",
        "hour",
        "hourly",
        "last_reason",
        "limits",
        "memory",
        "memory_used",
        "owed",
        "parent",
        "paused",
        "running",
        "served",
        "share",
        "shut",
        "slots",
        "start_tag",
        "tenant_id",
        "throttle",
        "until",
        "weight",
    )

    def __init__(self, tenant_id: str, parent: Cohort[WorkT] | None) -> None:
        self.tenant_id = tenant_id
        self.parent = parent
        self.alive = True
        self.paused = False
        self.throttle: int | None = None
        self.weight = 1
        self.limits = UNLIMITED
        self.share: CohortShare | None = None
        self.guaranteed = NOTHING
        self.slots = self.memory = self.cpu = 0
        self.hour: RollingHour | None = None
        self.hourly = False
        self.running = self.memory_used = self.cpu_used = 0
        self.start_tag = 0
        self.owed = 0
        self.served = 0
        self.entry = 0
        self.shut = False
        self.group: Group[WorkT] | None = None
        self.held: Reason | None = None
        self.until: Instant = 0
        self.alarm: Instant = 0
        self.last_reason: Reason | None = None
        self.holds: dict[Reason, int] | None = None

    def set_limits(self, limits: Limits, share: CohortShare | None) -> None:
        """Change the limits; less than what is used is legal, nothing starts then."""
        self.limits = limits
        self.share = share
        most = (
            Capacity(limits.max_concurrent, limits.memory_mb, limits.cpu_millis)
            if share is None
            else share.ceiling(limits)
        )
        self.slots = most.slots if self.throttle is None else -(-most.slots * self.throttle // 100)
        self.memory, self.cpu = most.memory_mb, most.cpu_millis
        self.guaranteed = NOTHING if share is None else share.guaranteed()
        self.hourly = limits.per_hour is not None
        if self.hour is not None and limits.per_hour is not None:
            self.hour.set_limit(limits.per_hour)

    def hold(self, reason: Reason) -> None:
        """Take note of why it cannot go on."""
        self.held = self.last_reason = reason
        if reason is Reason.HOUR_LIMIT and not self.until:
            return  # the hour has room: the start waits for its reservation to be written, which is no limit
        if self.holds is None:
            self.holds = {}
        self.holds[reason] = self.holds.get(reason, 0) + 1

    def unclaimed(self) -> Capacity:
        """Give what it could still claim of what is guaranteed to it."""
        slots, memory_mb, cpu_millis = self.guaranteed
        return Capacity(
            max(0, slots - self.running), max(0, memory_mb - self.memory_used), max(0, cpu_millis - self.cpu_used)
        )

    def has_work(self) -> bool:
        """Tell whether anything waits (cancelled tasks included until they are dropped)."""
        raise NotImplementedError

    def head(self) -> Item[WorkT] | None:
        """Give the task that is next; None if there is none or something of its own holds it."""
        raise NotImplementedError

    def settle(self) -> None:
        """Bring the start tag up to date before it enters a heap: what is owed, nothing for the past, debt limited."""
        assert self.parent is not None
        virtual_time = self.parent.virtual_time
        tag = self.start_tag
        if self.owed:
            moved, self.owed = divmod(self.owed, self.weight)
            tag += moved
        self.start_tag = max(virtual_time, min(tag, virtual_time + DEBT_MAX // self.weight))


class Queue(Member[WorkT]):
    """Hold the tasks of one tenant or sub-tenant that wait.

    Attributes:
        ready: a heap; the first is the head.
        aside: tasks that ask for more than a limit as such.
        delayed: how many tasks wait for their moment.
        estimates: what was learnt; None until a first task ended.
        gates: by circuit, what is held back; None if nothing is.
    """

    __slots__ = ("aside", "delayed", "estimates", "gates", "ready")

    def __init__(self, tenant_id: str, parent: Cohort[WorkT] | None) -> None:
        super().__init__(tenant_id, parent)
        self.ready: list[Item[WorkT]] = []
        self.aside: list[Item[WorkT]] | None = None
        self.delayed = 0
        self.estimates: Estimates | None = None
        self.gates: dict[Hashable, Gate[Item[WorkT]]] | None = None

    def has_work(self) -> bool:
        """Tell whether any task is ready."""
        return bool(self.ready)

    def head(self) -> Item[WorkT] | None:
        """Give the most urgent task; those that were cancelled meanwhile are dropped."""
        ready = self.ready
        while ready:
            item = ready[0]
            if item[4].wants(item[5]):
                if self.gates is None:
                    return item
                gate = self.gates.get(item[10])
                if gate is None or gate.permits > 0:
                    return item
                heappush(gate.parked, item)
            heappop(ready)
        return None

    @property
    def parked(self) -> int:
        """Count the tasks that gates hold back."""
        return sum(len(gate.parked) for gate in self.gates.values()) if self.gates is not None else 0

    def waiting(self) -> Iterator[Item[WorkT]]:
        """Go through the tasks that wait for no moment: those that are ready, set aside or held back."""
        yield from self.ready
        yield from self.aside or ()
        for gate in (self.gates or {}).values():
            yield from gate.parked

    def let_in(self, gate: Gate[Item[WorkT]], most: int) -> None:
        """Bring back so many of the most urgent tasks that a gate holds."""
        parked = gate.parked
        while parked and most > 0:
            item = heappop(parked)
            if item[4].wants(item[5]):
                heappush(self.ready, item)
                self.last_reason = Reason.CIRCUIT_OPEN
                most -= 1

    def set_aside(self) -> None:
        """Take the head out of the way: it asks for more than a limit as such."""
        if self.aside is None:
            self.aside = []
        self.aside.append(heappop(self.ready))

    def take_back(self) -> None:
        """Bring back what was set aside, because limits have changed."""
        for item in self.aside or ():
            heappush(self.ready, item)
        self.aside = None
