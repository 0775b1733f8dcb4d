"""What may start and what does: the scheduler's choice, made whenever something changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextvars import copy_context
from time import perf_counter_ns

from synergymesh.domain.instants import SECOND, Instant
from synergymesh.domain.scheduling.limits import Reservation
from synergymesh.domain.scheduling.scheduler import Scheduler
from synergymesh.engine.attempts import Attempts
from synergymesh.engine.committer import Answer, Committer
from synergymesh.engine.live import LiveRun
from synergymesh.engine.observability.neighbours import Neighbours
from synergymesh.engine.open_runs import OpenRuns
from synergymesh.engine.versions import Version
from synergymesh.mailbox import mailbox_here
from synergymesh.ports.changes import HourReserved
from synergymesh.ports.clock import Clock
from synergymesh.ports.records import Committed

SUSPECT_PRIORITIES = 5_000_000
"""Tasks during which the process died come before all others, the most suspicious first: an innocent one is soon done,
so that the next crash is not put down to it as well."""

STARTS_PER_TURN = 256
"""So many attempts are started before the event loop does what else there is: some milliseconds. A number and no time,
so that what happens can be repeated."""

LOOKS_PER_TURN = 1_000
"""So many tenants whose next task cannot start now are put where they wait, some 4 us each, before the event loop does
what else there is. Each is looked at once, but when a large backlog begins to wait for memory, that is all of them."""


class Dispatcher:
    """Hand ready tasks to the scheduler, and start what it chooses.

    Attributes:
        parked: tasks by version whose functions cannot be found.
        limited_offered: is called with what `offer` is called with, for runs with time limits.
        starts: how many attempts were started.
        busy_nanoseconds: spent on choosing and starting them.
    """

    def __init__(
        self,
        scheduler: Scheduler[LiveRun],
        runs: OpenRuns,
        attempts: Attempts,
        committer: Committer,
        neighbours: Neighbours,
        clock: Clock,
    ) -> None:
        self.scheduler = scheduler
        self.parked: dict[str, list[tuple[LiveRun, Sequence[int], Instant]]] = {}
        self.limited_offered: Callable[[LiveRun, Sequence[int], Instant], None] = _nothing
        self.starts = 0
        self.busy_nanoseconds = 0
        self._attempts = attempts
        self._committer = committer
        self._neighbours = neighbours
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._mailbox = mailbox_here()
        self._context = copy_context()
        self._started = False
        self._pump_is_due = False
        self._lacks_room = False
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at: Instant = 0
        runs.released = self.offer
        attempts.slot_freed = self.pump_soon
        attempts.suspect_cleared = self.offer
        committer.room_made = self._room_made

    def start(self) -> None:
        """Begin to start tasks."""
        self._started = True
        self.pump_soon()

    def stop(self) -> None:
        """Start nothing more."""
        self._started = False
        if self._alarm is not None:
            self._alarm.cancel()

    def offer(self, run: LiveRun, positions: Sequence[int], at: Instant = 0) -> None:
        """Hand tasks of a run to the scheduler, at once or for a moment to come."""
        if run.version.plan.limits is not None:
            self.limited_offered(run, positions, at)
            positions = [position for position in positions if run.wants(position)]
            if not positions:
                return  # it came too late
        if run.version.tasks is None:
            self.parked.setdefault(run.version.plan.content_hash, []).append((run, positions, at))
            return
        if run.held is not None:
            run.held.update(dict.fromkeys(positions, at))
            return
        if run.retry_at is not None and not at:
            for position in [each for each in positions if each in run.retry_at]:
                self.offer(run, [position], max(1, run.retry_at[position]))
            positions = [each for each in positions if each not in run.retry_at]
        plan = run.version.plan
        scheduler = self.scheduler
        crashes = run.crashes
        ready = at or self._clock.now()
        since = max(run.created_at, run.not_before)
        for position in positions:
            priority = run.priority
            if crashes is not None:
                priority += crashes.get(position, 0) * SUSPECT_PRIORITIES
            scheduler.push(
                run.tenant_id,
                run,
                position,
                priority=priority,
                age=run.order,
                rank=plan.ranks[position],
                cost=plan.costs[position],
                request=plan.requests[position],
                component=plan.learning_keys[position],
                circuit=plan.circuits[position],
                since=since,
                at=at,
                ready=ready,
            )
        self.pump_soon()

    def code_found(self, version: Version) -> None:
        """Offer what waited for the functions of a version."""
        if self.parked and version.tasks is not None:
            for run, positions, at in self.parked.pop(version.plan.content_hash, ()):
                self.offer(run, [p for p in positions if run.wants(p)], at=at)

    def look_again(self, tenant_id: str) -> None:
        """Look for what may start now that a tenant waits for less: a task of it was cancelled."""
        self.scheduler.refresh(tenant_id)
        self.pump_soon()

    def pump_soon(self) -> None:
        """Look for what may start, once what has come together with this is done."""
        if not self._pump_is_due:
            self._pump_is_due = True
            self._mailbox.soon(self._pump_in_context)

    def _pump_in_context(self) -> None:
        """Pump in the context of the start: that of whoever happens to come by, another tenant say, is no task's."""
        self._context.run(self._pump)

    def _room_made(self) -> None:
        """Go on if the committer had too much to write."""
        if self._lacks_room:
            self.pump_soon()

    def _pump(self) -> None:
        self._pump_is_due = False
        if not self._started:
            return
        begun = perf_counter_ns()
        scheduler = self.scheduler
        now = self._clock.now()
        due = scheduler.next_due()
        if due is not None and due <= now:
            scheduler.wake(now)
        started = self._neighbours.started
        scheduler.looks_left = LOOKS_PER_TURN
        most = self.starts + STARTS_PER_TURN
        self._lacks_room = False
        while not self._committer.is_full:
            grant = scheduler.next(self._clock.now())
            if grant is None:
                if scheduler.looks_left <= 0:
                    self.pump_soon()
                break
            self._attempts.begin(grant)
            started(grant)
            self.starts += 1
            if self.starts >= most:
                self.pump_soon()
                break
        else:
            self._lacks_room = True
        for tenant_id, reservation in scheduler.pending_reservations(now):
            self._reserve(tenant_id, reservation)
        due = scheduler.next_due()
        if due is not None and due != self._alarm_at:
            self._set_alarm(due)
        self.busy_nanoseconds += perf_counter_ns() - begun

    def _reserve(self, tenant_id: str, reservation: Reservation) -> None:
        """Write down starts of a tenant's rolling hour before they are used."""

        def recorded(answer: Answer) -> None:
            self.scheduler.reserved(tenant_id, reservation, written=isinstance(answer, Committed))
            self.pump_soon()

        rows = [HourReserved(tenant_id, minute, starts) for minute, starts in reservation.rows]
        self._committer.put(rows, recorded)

    def _set_alarm(self, due: Instant) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = due
        delay = max(0, due - self._clock.now()) / SECOND
        self._alarm = self._loop.call_later(delay, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self._alarm_at = 0
        self.pump_soon()


def _nothing(*_: object) -> None:
    """Do nothing; until somebody listens."""
