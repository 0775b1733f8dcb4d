"""Takes up after a start what was open before it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TypeVar

from synergymesh.domain.fault_tolerance.error_info import ErrorInfo
from synergymesh.domain.fault_tolerance.tries import cause_of
from synergymesh.domain.instants import Instant
from synergymesh.domain.states import ExecutionStatus
from synergymesh.domain.workflow.run_state import RUNNING
from synergymesh.engine.backlog.waiting import live_run
from synergymesh.engine.backlog.window import Window
from synergymesh.engine.dispatch import Dispatcher
from synergymesh.engine.live import SETTLED_BY_AN_ATTEMPT, LiveRun
from synergymesh.engine.observability.events import error_of
from synergymesh.engine.open_runs import OpenRuns, encode_json
from synergymesh.engine.timing.time_limits import TimeLimits
from synergymesh.engine.versions import Version, Versions
from synergymesh.logs import Log
from synergymesh.ports.changes import TaskFinished
from synergymesh.ports.clock import Clock
from synergymesh.ports.records import AttemptRecord, RunRecord, TaskRecord
from synergymesh.ports.store import Store
from synergymesh.workflows.direct_tasks import DIRECT

PAGE_RUNS = 500
"""Open runs that are read at once."""

CRASHES_MAX = 3
"""A task during which the process died so often is quarantined."""

FUNCTION_LOST = (
    "the process ended during this direct call, and a function that was given as an object cannot be found again. "
    "Call it again, or make it a task of a workflow, which goes on after a crash."
)
QUARANTINED = "synergymesh.Quarantined"
"""The type of the error of a quarantined task."""

RecordT = TypeVar("RecordT", TaskRecord, AttemptRecord)

log = Log("synergymesh.engine")


class Recovery:
    """Rebuild the open runs from the store: committed results are used again, everything else runs again."""

    def __init__(
        self,
        store: Store,
        versions: Versions,
        runs: OpenRuns,
        dispatcher: Dispatcher,
        window: Window,
        time_limits: TimeLimits,
        clock: Clock,
    ) -> None:
        self._store = store
        self._window = window
        self._versions = versions
        self._runs = runs
        self._dispatcher = dispatcher
        self._time_limits = time_limits
        self._clock = clock

    async def run(self) -> int:
        """Take up the runs that were begun, oldest first, and count those that wait; give the number of both."""
        after: str | None = None
        recovered = 0
        while page := await self._store.list_begun_runs(after=after, limit=PAGE_RUNS):
            after = page[-1].run_id
            recovered += len(page)
            begun = [run.run_id for run in page]
            tasks = _by_run(await self._store.list_tasks(begun))
            attempts = _by_run(await self._store.list_attempts(begun))
            for record in page:
                version = await self._versions.load(record.content_hash)
                await self._take_up(record, version, tasks.get(record.run_id, []), attempts.get(record.run_id, []))
        recovered += await self._window.start()
        self._time_limits.catch_up()
        if recovered:
            log.info("open runs were taken up again", runs=recovered)
        return recovered

    async def _take_up(
        self, record: RunRecord, version: Version, tasks: Sequence[TaskRecord], attempts: Sequence[AttemptRecord]
    ) -> None:
        run = live_run(record, version)
        run.paused = record.paused_at is not None
        now = self._clock.now()
        retry_at, last = self._restore_attempts(run, attempts, now)
        poisoned = self._restore_tasks(run, tasks)
        self._runs.add(run)
        if not run.state.open_tasks and not self._runs.conclude(run):
            return
        startable = run.state.startable()
        self._time_limits.restore(run, tasks)
        if record.cancel_requested_at is not None and not run.state.compensating:
            # what undoes is opened again by this, and may have failed before
            run.retry_at = {position: at for position, at in retry_at.items() if at > now} or None
            await self._runs.cancel(run, timed_out=self._time_limits.passed(run, record.cancel_requested_at))
            for position in set(poisoned).intersection(run.state.startable()):
                self._quarantine(run, position, poisoned[position], self._clock.now())
            return
        if version.source == DIRECT:
            self._fail_direct_call(run, startable, self._clock.now())
            return
        if version.tasks is None:
            log.warning("a run waits for its code", run_id=run.run_id, tenant_id=run.tenant_id, reason=version.problem)
        for position in startable:
            if position not in poisoned:
                if position in last and position not in (run.crashes or ()):
                    self._retry_waits(run, position, last[position])
                    if not run.wants(position):
                        continue  # it has waited for too long
                at = max(retry_at.get(position, 0), run.not_before)
                self._dispatcher.offer(run, [position], at if at > now else 0)
        for position, task in poisoned.items():
            if not run.wants(position):
                continue
            self._quarantine(run, position, task, now)

    def _retry_waits(self, run: LiveRun, position: int, attempt: AttemptRecord) -> None:
        """Let a retry that waited before the start wait no longer than its policy says."""
        error = error_of(attempt.error)
        if error is not None and attempt.status is not ExecutionStatus.CANCELLED:
            self._time_limits.retry_waits(run, position, error, attempt.status)

    def _restore_attempts(
        self, run: LiveRun, attempts: Sequence[AttemptRecord], now: Instant
    ) -> tuple[dict[int, Instant], dict[int, AttemptRecord]]:
        """Count the failed attempts; give by position when the next one may start, and the last one.

        That is never further off than the delay was long, nor did the first attempt start in time to come: the clock
        may have been set back since.
        """
        retry_at: dict[int, Instant] = {}
        last: dict[int, AttemptRecord] = {}
        for attempt in attempts:
            position = run.version.plan.positions[attempt.component_id]
            run.tried(position, cause_of(attempt.status, error_of(attempt.error)), min(attempt.started_at, now))
            retry_at[position] = min(attempt.retry_at, now + attempt.retry_at - attempt.ended_at)
            last[position] = attempt
        return retry_at, last

    def _restore_tasks(self, run: LiveRun, tasks: Sequence[TaskRecord]) -> dict[int, TaskRecord]:
        """Settle the tasks that are final; give those during which the process died too often, by position."""
        poisoned = {}
        if run.version.plan.undo:  # what is undone is so in the reverse of the order in which it was done
            tasks = sorted(tasks, key=lambda task: task.ended_at or 0)
        for task in tasks:
            if task.status in SETTLED_BY_AN_ATTEMPT:
                run.restore(task)
            elif task.crashes:
                position = run.version.plan.positions[task.component_id]
                run.crashes = run.crashes or {}
                run.crashes[position] = task.crashes
                if task.crashes >= CRASHES_MAX:
                    poisoned[position] = task
        return poisoned

    def _quarantine(self, run: LiveRun, position: int, task: TaskRecord, now: Instant) -> None:
        """Fail a task during which the process died too often."""
        error = ErrorInfo(
            QUARANTINED,
            f"the process died {task.crashes} times while this task was running, so it is not tried again. "
            f"Run it apart from other work to find out why.",
        )
        run.errors = run.errors or {}
        run.errors[position] = error
        run.state.move(position, RUNNING)
        log.error(
            "a task is quarantined",
            run_id=run.run_id,
            tenant_id=run.tenant_id,
            task_id=task.component_id,
            attempt=task.attempt,
        )
        finished = TaskFinished(
            run.run_id,
            task.component_id,
            run.tenant_id,
            ExecutionStatus.FAILED,
            task.attempt,
            task.started_at,
            now,
            None,
            encode_json(error),
        )
        self._runs.settle(run, position, finished)

    def _fail_direct_call(self, run: LiveRun, startable: Sequence[int], now: Instant) -> None:
        """Fail what was left of a direct call when the process ended: nobody has its functions any more."""
        error = ErrorInfo("synergymesh.FunctionLost", FUNCTION_LOST)
        for position in startable:
            run.errors = run.errors or {}
            run.errors[position] = error
            run.state.move(position, RUNNING)
            component_id = run.version.plan.component_ids[position]
            number = run.next_number(position)
            finished = TaskFinished(
                run.run_id,
                component_id,
                run.tenant_id,
                ExecutionStatus.FAILED,
                number,
                None,
                now,
                None,
                encode_json(error),
            )
            self._runs.settle(run, position, finished)


def _by_run(records: Sequence[RecordT]) -> dict[str, list[RecordT]]:
    grouped: dict[str, list[RecordT]] = defaultdict(list)
    for record in records:
        grouped[record.run_id].append(record)
    return grouped
