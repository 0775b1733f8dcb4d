"""The deadlines of one run and its tasks."""

from __future__ import annotations

from synergymesh.domain.instants import Instant
from synergymesh.engine.timing.deadlines import Deadline


class RunLimits:
    """Hold the deadlines of one run that has any.

    Attributes:
        run: when the run is over time: that of its start first, then that of its end.
        tasks: by position, when all attempts of a task together are.
        waits: by position, when a task has waited too long for its first attempt.
        retries: by position, when a task has waited too long for its next attempt.
        ready_at: by position, from when these two count.
    """

    __slots__ = ("ready_at", "retries", "run", "tasks", "waits")

    def __init__(self, ready_at: dict[int, Instant]) -> None:
        self.run: Deadline | None = None
        self.tasks: dict[int, Deadline] = {}
        self.waits: dict[int, Deadline] = {}
        self.retries: dict[int, Deadline] = {}
        self.ready_at = ready_at

    def drop(self, position: int) -> None:
        """Forget what was set for a task."""
        for deadlines in (self.tasks, self.waits, self.retries):
            deadline = deadlines.pop(position, None)
            if deadline is not None:
                deadline.cancel()

    def started(self, position: int) -> None:
        """Forget until when an attempt of a task had to start."""
        for deadlines in (self.waits, self.retries):
            deadline = deadlines.pop(position, None)
            if deadline is not None:
                deadline.cancel()

    def close(self) -> None:
        """Forget everything."""
        for position in list({**self.tasks, **self.waits, **self.retries}):
            self.drop(position)
        if self.run is not None:
            self.run.cancel()
