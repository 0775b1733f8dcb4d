"""What happens in a run, as a stream that can be followed while it happens or read afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from synergymesh.domain.fault_tolerance.error_info import ErrorInfo
from synergymesh.domain.instants import to_datetime
from synergymesh.domain.states import ExecutionStatus
from synergymesh.ports.records import AttemptRecord, RunRecord, TaskRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEvent:
    """Say that a run, or a task of it, is in a new state.

    Attributes:
        run_id: the run.
        task_id: the component's id, or None when it is about the run itself.
        status: the new state. `retrying` means that attempt number `attempt` failed and another one follows.
        attempt: the attempt's number, 0 where there is none.
        at: when, aware (UTC).
        error: why, or None.
    """

    run_id: str
    task_id: str | None
    status: ExecutionStatus
    attempt: int
    at: datetime
    error: str | None = None


def error_of(raw: bytes | None) -> ErrorInfo | None:
    """Read a recorded error."""
    return None if raw is None else msgspec.json.decode(raw, type=ErrorInfo)


def history(run: RunRecord, tasks: Sequence[TaskRecord], attempts: Sequence[AttemptRecord]) -> list[RunEvent]:
    """Give the events of a run as they follow from its rows, in the order of time."""
    events: list[tuple[int, int, RunEvent]] = []

    def add(
        at: int | None,
        order: int,
        task_id: str | None,
        status: ExecutionStatus,
        attempt: int = 0,
        error: ErrorInfo | None = None,
    ) -> None:
        if at is not None:
            shown = None if error is None else str(error)
            event = RunEvent(
                run_id=run.run_id, task_id=task_id, status=status, attempt=attempt, at=to_datetime(at), error=shown
            )
            events.append((at, order, event))

    add(run.created_at, 0, None, ExecutionStatus.PENDING)
    add(run.started_at, 1, None, ExecutionStatus.RUNNING)
    for attempt in attempts:
        add(attempt.started_at, 2, attempt.component_id, ExecutionStatus.RUNNING, attempt.number)
        status = ExecutionStatus.PENDING if attempt.status is ExecutionStatus.CANCELLED else ExecutionStatus.RETRYING
        add(attempt.ended_at, 3, attempt.component_id, status, attempt.number, error_of(attempt.error))
    for task in tasks:
        # a row that waits for another attempt still names the last one, which is among the attempts
        if task.status is ExecutionStatus.RUNNING or (task.attempt and task.status.is_final):
            add(task.started_at, 2, task.component_id, ExecutionStatus.RUNNING, task.attempt)
        if task.status.is_final:
            add(task.ended_at, 3, task.component_id, task.status, task.attempt, error_of(task.error))
    if run.status.is_final:
        add(run.ended_at, 4, None, run.status)
    events.sort(key=lambda item: item[:2])
    return [event for _, _, event in events]
