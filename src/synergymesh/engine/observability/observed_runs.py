"""Open runs whose course somebody follows: every attempt, every verdict, every end.

Made in the place of `OpenRuns` where somebody does, so that nothing is asked on the way of a task where nobody does.
"""

from __future__ import annotations

from random import Random
from typing import Protocol

from synergymesh.domain.fault_tolerance.retry import Verdict
from synergymesh.domain.instants import Instant
from synergymesh.engine.committer import Committer
from synergymesh.engine.live import Attempt, LiveRun
from synergymesh.engine.open_runs import OpenRuns
from synergymesh.ports.changes import RunFinished, TaskFinished
from synergymesh.ports.clock import Clock


class RunObserver(Protocol):
    """Be told what happens to runs, in the event loop. Nothing of it may raise."""

    def attempt_started(self, attempt: Attempt, *, begins: bool) -> None:
        """Take note of an attempt that is about to run, and whether its run begins with it."""
        ...

    def attempt_failed(self, attempt: Attempt, verdict: Verdict, now: Instant) -> None:
        """Take note of an attempt that is followed by another one."""
        ...

    def task_ended(self, run: LiveRun, position: int, finished: TaskFinished) -> None:
        """Take note of the final verdict on a task, and so on its attempt if it has one."""
        ...

    def run_ended(self, run: LiveRun, end: RunFinished) -> None:
        """Take note of a run's end, which is committed."""
        ...

    def run_left(self, run: LiveRun) -> None:
        """Take note of a run that is let go of although it is not final."""
        ...

    def close(self) -> None:
        """Let go of everything: what is open goes on in another life of the process."""
        ...


class ObservedRuns(OpenRuns):
    """Keep the open runs, and tell an observer what happens to them."""

    def __init__(
        self, committer: Committer, clock: Clock, dice: Random, observer: RunObserver, *, payload_bytes_max: int
    ) -> None:
        super().__init__(committer, clock, dice, payload_bytes_max=payload_bytes_max)
        self._observer = observer

    def started(self, attempt: Attempt) -> None:
        """Note that an attempt is under way."""
        begins = attempt.run.started_at is None
        super().started(attempt)
        self._observer.attempt_started(attempt, begins=begins)

    def settle(self, run: LiveRun, position: int, finished: TaskFinished) -> None:
        """Note a task's final state."""
        self._observer.task_ended(run, position, finished)
        super().settle(run, position, finished)

    def close(self) -> None:
        """Let go of everything."""
        self._observer.close()

    def _go_on(self, attempt: Attempt, verdict: Verdict, now: Instant) -> None:
        self._observer.attempt_failed(attempt, verdict, now)
        super()._go_on(attempt, verdict, now)

    def _finish(self, run: LiveRun, end: RunFinished) -> None:
        self._observer.run_ended(run, end)
        super()._finish(run, end)

    def _let_go(self, run: LiveRun, error: Exception) -> None:
        self._observer.run_left(run)
        super()._let_go(run, error)
