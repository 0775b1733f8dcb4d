"""What is behind a task: its earlier attempts, counted by why another one followed."""

from __future__ import annotations

from enum import StrEnum

from synergymesh.domain.fault_tolerance.error_info import ErrorInfo
from synergymesh.domain.instants import Instant
from synergymesh.domain.states import ExecutionStatus


class Cause(StrEnum):
    """Name why an attempt was followed by another one; only failures count against a policy's retries.

    The attempt's status and error say it, so that it needs no column of its own.
    """

    FAILURE = "failure"
    POSTPONED = "postponed"
    SHUTDOWN = "shutdown"
    LOST = "lost"


def cause_of(status: ExecutionStatus, error: ErrorInfo | None) -> Cause:
    """Give why an attempt that ended so was followed by another one.

    Args:
        status: of the attempt: failed, timeout, or cancelled for what says nothing about the task.
        error: what was recorded with it.
    """
    if status is ExecutionStatus.CANCELLED:
        return Cause.SHUTDOWN if error is None else Cause.LOST
    return Cause.POSTPONED if error is not None and error.retry_after is not None else Cause.FAILURE


class Tries:
    """Count the attempts of a task that were followed by another one.

    Attributes:
        failures: by the task's own fault, timeouts included.
        postponements: it raised `RetryLater`.
        shutdowns: the process was shut down while it ran.
        losses: its executor lost it.
        began: when the first of them started; None if there was none.
    """

    __slots__ = ("began", "failures", "losses", "postponements", "shutdowns")

    def __init__(self) -> None:
        self.failures = self.postponements = self.shutdowns = self.losses = 0
        self.began: Instant | None = None

    @property
    def total(self) -> int:
        """Count them all."""
        return self.failures + self.postponements + self.shutdowns + self.losses

    def add(self, cause: Cause, started_at: Instant) -> None:
        """Count one more."""
        if self.began is None or started_at < self.began:
            self.began = started_at
        match cause:
            case Cause.FAILURE:
                self.failures += 1
            case Cause.POSTPONED:
                self.postponements += 1
            case Cause.SHUTDOWN:
                self.shutdowns += 1
            case Cause.LOST:
                self.losses += 1


NO_TRIES = Tries()
"""Of a task at its first attempt; never changed."""
