"""A scheduler without limits and fairness: what the real one is measured against."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from synergymesh.domain.scheduling.grants import Grant
from synergymesh.domain.scheduling.limits import Capacity, Request
from synergymesh.domain.scheduling.scheduler import Scheduler
from synergymesh.domain.scheduling.tenant_queue import NO_REQUEST, Queue

NO_QUEUE: Queue[Any] = Queue("", None)


class PlainQueue(Scheduler[Any]):
    """Start what came first as long as there are slots; know nothing of tenants, cost, memory or hours."""

    def __init__(self, capacity: Capacity, *, records_reservations: bool = True) -> None:
        super().__init__(capacity, records_reservations=records_reservations)
        self._slots = capacity.slots
        self._taken = 0
        self._line: deque[tuple[Any, int, Request, Any]] = deque()

    def push(self, tenant_id: str, run: Any, position: int, **how: Any) -> None:
        """Add a task."""
        self._line.append((run, position, how.get("request", NO_REQUEST), how.get("component")))

    def next(self, now: int) -> Grant[Any] | None:
        """Take the first task if a slot is free."""
        line = self._line
        while line and self._taken < self._slots:
            run, position, request, component = line.popleft()
            if run.wants(position):
                self._taken += 1
                return Grant(run, position, NO_QUEUE, request, component, 0, now, 0, 0, now)
        return None

    def release(self, grant: Grant[Any], now: int, *, learn: bool = True) -> None:
        """Give a slot back."""
        self._taken -= 1

    @property
    def running(self) -> int:
        """Count the tasks that run."""
        return self._taken


@contextmanager
def without_limits() -> Iterator[None]:
    """Let orchestrators that are started meanwhile have no limits: no admission, no fair queue, no watch on tenants."""
    with (
        patch("synergymesh.assembly.Scheduler", PlainQueue),
        patch("synergymesh.assembly.Admission", _NoAdmission),
        patch("synergymesh.assembly.Neighbours", _NoNeighbours),
    ):
        yield


class _NoAdmission:
    def __init__(self, *args: Any, **named: Any) -> None:
        pass

    async def load(self) -> None:
        """Know nothing of what was submitted."""

    def admit(self, *args: Any, **named: Any) -> None:
        """Admit everything."""


class _NoNeighbours:
    def __init__(self, *args: Any, **named: Any) -> None:
        pass

    def started(self, grant: Grant[Any]) -> None:
        """Take no note."""

    def count(self) -> None:
        """Count nothing."""
