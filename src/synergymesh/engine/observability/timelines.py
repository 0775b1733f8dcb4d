"""Timelines of runs from what the store has, and what runs now."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from synergymesh.domain.instants import Instant
from synergymesh.domain.observability.timeline import Course, Timeline, Try, build_timeline
from synergymesh.domain.states import ExecutionStatus
from synergymesh.domain.workflow.definition import Component, WorkflowDefinition
from synergymesh.engine.live import LiveRun
from synergymesh.ports.records import AttemptRecord, RunRecord, TaskRecord


def timeline_of(
    record: RunRecord,
    definition: WorkflowDefinition,
    tasks: Sequence[TaskRecord],
    attempts: Sequence[AttemptRecord],
    now: Instant,
    live: LiveRun | None = None,
) -> Timeline:
    """Work out the timeline of a run.

    Args:
        record: the run.
        definition: of its workflow version.
        tasks: its rows.
        attempts: its rows of attempts that were followed by others.
        now: the present moment.
        live: what is in memory of it, if it is open here: attempts that the store does not know yet.
    """
    rows = {task.component_id: task for task in tasks}
    earlier: dict[str, list[Try]] = defaultdict(list)
    for attempt in attempts:
        earlier[attempt.component_id].append(
            Try(
                attempt.number,
                attempt.status,
                attempt.started_at,
                attempt.ended_at,
                attempt.retry_at,
                attempt.waited_for,
            )
        )

    def course(position: int, component: Component, dependencies: tuple[int, ...]) -> Course:
        row = rows.get(component.component_id)
        tries = sorted(earlier.get(component.component_id, ()), key=lambda each: each.number)
        status = row.status if row is not None else ExecutionStatus.RETRYING if tries else ExecutionStatus.PENDING
        ended_at = None
        if row is not None and status.is_final:
            ended_at = row.ended_at
            if row.started_at is not None and row.attempt:
                tries.append(Try(row.attempt, status, row.started_at, ended_at, None, row.waited_for))
        else:
            running = _running(row, live, position)
            if running is not None and not (tries and tries[-1].number >= running.number):
                tries.append(running)
                status = ExecutionStatus.RUNNING
        return Course(component.component_id, component.task, status, dependencies, tuple(tries), ended_at)

    courses = [
        course(position, each, tuple(definition.positions[d.component_id] for d in each.dependencies))
        for position, each in enumerate(definition.components)
    ]
    # what undoes them comes one after the other, the latest first, when everything else has ended
    before = tuple(range(len(courses)))
    undoing = enumerate(definition.compensations.items(), len(courses))
    for position, (_, component) in sorted(undoing, key=lambda each: -_end(rows.get(each[1][0]))):
        found = course(position, component, before)
        if found.tries or found.ended_at is not None:
            before = (len(courses),)
            courses.append(found)
    return build_timeline(
        record.run_id,
        record.workflow,
        record.status,
        courses,
        created_at=record.created_at,
        not_before=record.not_before,
        ended_at=record.ended_at,
        now=now,
    )


def _end(row: TaskRecord | None) -> Instant:
    return 0 if row is None or row.ended_at is None else row.ended_at


def _running(row: TaskRecord | None, live: LiveRun | None, position: int) -> Try | None:
    """Give the attempt that runs, as far as it is known."""
    attempt = None if live is None or live.running is None else live.running.get(position)
    if attempt is not None:
        return Try(attempt.number, ExecutionStatus.RUNNING, attempt.started_at, None, None, attempt.waited_for)
    if row is not None and row.status is ExecutionStatus.RUNNING and row.started_at is not None:
        return Try(row.attempt, ExecutionStatus.RUNNING, row.started_at, None)
    return None
