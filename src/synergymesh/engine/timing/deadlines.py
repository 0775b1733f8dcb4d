"""Everything that has to happen at a certain time: one heap, and one alarm for what comes first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Any

from synergymesh.domain.instants import SECOND, Instant
from synergymesh.ports.clock import Clock

CANCELLED_MAX = 1_000
"""Cancelled deadlines that may lie in the heap; above it they are swept out once they are more than half of it."""


class Deadline:
    """Hold what happens at a moment, until it does or is cancelled."""

    __slots__ = ("_action", "_arguments", "_owner")

    def __init__(self, owner: Deadlines, action: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        self._owner = owner
        self._action: Callable[..., object] | None = action
        self._arguments = arguments

    @property
    def is_cancelled(self) -> bool:
        """Tell whether nothing happens any more."""
        return self._action is None

    def cancel(self) -> None:
        """Let nothing happen. Doing it twice, or afterwards, changes nothing."""
        if self._action is not None:
            self._action = None
            self._arguments = ()
            self._owner.note_cancelled()

    def ring(self) -> None:
        """Let it happen, once."""
        action, arguments = self._action, self._arguments
        self._action, self._arguments = None, ()
        if action is not None:
            action(*arguments)


class Deadlines:
    """Let things happen when their time comes.

    What is stored is a moment of the calendar; within a life of the process the event loop's clock counts, so that a
    clock that is set forward or back neither ends what runs nor lets it run on.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._heap: list[tuple[float, int, Deadline]] = []
        self._order = 0
        self._cancelled = 0
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = 0.0

    def __len__(self) -> int:
        """Count what waits, cancelled ones included until they are swept out."""
        return len(self._heap)

    def after(self, seconds: float, action: Callable[..., object], *arguments: Any) -> Deadline:
        """Call something after so many seconds; never before this returns."""
        at = self._loop.time() + max(0.0, seconds)
        deadline = Deadline(self, action, arguments)
        self._order += 1
        heappush(self._heap, (at, self._order, deadline))
        if self._alarm is None or at < self._alarm_at:
            self._set_alarm(at)
        return deadline

    def at(self, moment: Instant, action: Callable[..., object], *arguments: Any) -> Deadline:
        """Call something at a moment; soon, if that has passed."""
        return self.after((moment - self._clock.now()) / SECOND, action, *arguments)

    def ring_due(self) -> None:
        """Let everything happen at once whose time has come."""
        for deadline in self._take_due(self._loop.time()):
            deadline.ring()

    def note_cancelled(self) -> None:
        """Count a cancelled deadline; sweep them out when they are most of the heap."""
        self._cancelled += 1
        if self._cancelled > CANCELLED_MAX and 2 * self._cancelled > len(self._heap):
            self._heap = [entry for entry in self._heap if not entry[2].is_cancelled]
            heapify(self._heap)
            self._cancelled = 0

    def close(self) -> None:
        """Let nothing happen any more."""
        self._heap.clear()
        self._cancelled = 0
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _set_alarm(self, at: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = at
        self._alarm = self._loop.call_at(at, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        for deadline in self._take_due(max(self._loop.time(), self._alarm_at)):
            self._loop.call_soon(deadline.ring)  # apart from each other, so that an error ends only its own
        if self._heap:
            self._set_alarm(self._heap[0][0])

    def _take_due(self, now: float) -> list[Deadline]:
        heap = self._heap
        due = []
        while heap and (heap[0][0] <= now or heap[0][2].is_cancelled):
            _, _, deadline = heappop(heap)
            if deadline.is_cancelled:
                self._cancelled = max(0, self._cancelled - 1)
            else:
                due.append(deadline)
        return due
