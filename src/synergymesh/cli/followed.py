"""What is known of the runs that somebody follows: counted from their events, and looked up now and then."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from synergymesh.domain.states import ExecutionStatus

if TYPE_CHECKING:
    from synergymesh.engine.observability.events import RunEvent
    from synergymesh.engine.observability.views import Run

RUNNING = ExecutionStatus.RUNNING
RETRYING = ExecutionStatus.RETRYING
FAILED = ExecutionStatus.FAILED
TIMEOUT = ExecutionStatus.TIMEOUT


@dataclass(slots=True)
class RunningTask:
    """Describe a task that runs now; `progress` is what it said of itself, 0 to 1, or None."""

    run_id: str
    task_id: str
    attempt: int
    since: datetime
    progress: float | None = None


class Seen(NamedTuple):
    """Say whether an event was news, and which attempt it ended, if the start of that was seen."""

    is_new: bool
    ended: RunningTask | None


@dataclass(slots=True)
class FollowedRun:
    """Count what happened in one run."""

    run_id: str
    workflow: str
    tenant_name: str
    total: int
    status: ExecutionStatus = ExecutionStatus.PENDING
    done: int = 0
    retries: int = 0
    failed: int = 0
    reason: str | None = None
    running: dict[str, RunningTask] = field(default_factory=dict)


class Followed:
    """Count what happened in all runs that are followed."""

    def __init__(self) -> None:
        self.runs: dict[str, FollowedRun] = {}

    def add(self, run: FollowedRun) -> None:
        """Begin to count a run."""
        self.runs[run.run_id] = run

    def see(self, event: RunEvent) -> Seen:
        """Count an event."""
        run = self.runs[event.run_id]
        if event.task_id is None:
            run.status = event.status
            return Seen(True, None)
        known = run.running.get(event.task_id)
        if event.status is RUNNING:
            if known is not None and known.attempt == event.attempt:
                return Seen(False, None)  # a look-up was faster
            run.running[event.task_id] = RunningTask(event.run_id, event.task_id, event.attempt, event.at)
            return Seen(True, None)
        if event.status is RETRYING:
            run.retries += 1
        elif event.status.is_final:
            run.done += 1
            run.total = max(run.total, run.done)  # what undoes a task is not counted before it is needed
            run.failed += event.status in (FAILED, TIMEOUT)
        if known is None or known.attempt != event.attempt:
            return Seen(True, None)
        return Seen(True, run.running.pop(event.task_id))

    def look_up(self, seen: Run) -> list[RunEvent]:
        """Take over what a look at the run says of its running tasks; give the starts that no event has told.

        Nobody who follows a run from its submission on can be sure to see its very first starts.
        """
        from synergymesh.engine.observability.events import RunEvent

        run = self.runs[seen.id]
        run.reason = seen.reason
        untold = []
        for task in seen.tasks:
            if task.status is not RUNNING or task.started_at is None:
                continue
            known = run.running.get(task.task_id)
            if known is not None and known.attempt == task.attempt:
                known.progress = task.progress
            else:
                untold.append(
                    RunEvent(
                        run_id=seen.id, task_id=task.task_id, status=RUNNING, attempt=task.attempt, at=task.started_at
                    )
                )
        return untold

    def running(self) -> Iterator[RunningTask]:
        """Go through the tasks that run, in the order in which they started."""
        tasks = [task for run in self.runs.values() for task in run.running.values()]
        return iter(sorted(tasks, key=lambda task: task.since))

    @property
    def total(self) -> int:
        """Count the tasks of all runs."""
        return sum(run.total for run in self.runs.values())

    @property
    def done(self) -> int:
        """Count the tasks that are final."""
        return sum(run.done for run in self.runs.values())

    @property
    def retries(self) -> int:
        """Count the attempts that failed and were followed by another one."""
        return sum(run.retries for run in self.runs.values())

    @property
    def failed(self) -> int:
        """Count the tasks that failed for good."""
        return sum(run.failed for run in self.runs.values())

    @property
    def open_runs(self) -> int:
        """Count the runs that are not final."""
        return sum(not run.status.is_final for run in self.runs.values())
