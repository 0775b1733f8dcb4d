"""The time limits of tasks and runs: what goes beyond one is ended; what has none costs nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from synergymesh.domain.fault_tolerance.error_info import ErrorInfo, shorten
from synergymesh.domain.fault_tolerance.retry import (
    TIMEOUT_TYPES,
    Ending,
    TimedOut,
    TimeLimit,
    timeout_error,
    with_ending,
)
from synergymesh.domain.instants import Instant, from_seconds
from synergymesh.domain.states import ExecutionStatus
from synergymesh.domain.workflow.plan import Plan
from synergymesh.engine.attempts import Attempts
from synergymesh.engine.backlog.window import Window
from synergymesh.engine.committer import Answer
from synergymesh.engine.dispatch import Dispatcher
from synergymesh.engine.live import LiveRun
from synergymesh.engine.open_runs import OpenRuns, encode_json
from synergymesh.engine.timing.deadlines import Deadlines
from synergymesh.engine.timing.run_limits import RunLimits
from synergymesh.ports.changes import TaskFinished
from synergymesh.ports.clock import Clock
from synergymesh.ports.records import Committed, TaskRecord
from synergymesh.ports.store import Store

OVERDUE_MAX = 500
"""Runs that are ended at a time; the next ones follow with the next look, seconds later."""


class TimeLimits:
    """Set the deadlines of runs whose workflow has time limits, and end what goes beyond them.

    All of them follow from what is stored: when a run was submitted and started, when the tasks before a task ended. So
    they are the same after a restart; those that passed meanwhile fire at once. What was stored as of a time to come
    counts from now: the clock has been set back since.
    """

    def __init__(
        self,
        deadlines: Deadlines,
        runs: OpenRuns,
        attempts: Attempts,
        dispatcher: Dispatcher,
        store: Store,
        window: Window,
        clock: Clock,
    ) -> None:
        self._deadlines = deadlines
        self._runs = runs
        self._attempts = attempts
        self._dispatcher = dispatcher
        self._store = store
        self._window = window
        self._clock = clock
        runs.limited_started = self.started
        runs.retry_waits = self.retry_waits

    # --- what happens to runs and tasks ---------------------------------------------------------------------------

    def offered(self, run: LiveRun, positions: Iterable[int], at: Instant) -> None:
        """Set the deadlines of tasks that wait from now on, or from a moment to come, and those of their run."""
        plan = run.version.plan
        limits = plan.limits
        if limits is None:
            return
        if run.limits is None:
            run.limits = RunLimits({})
        live = run.limits
        if live.run is None:
            if run.started_at is not None:
                self._begin(run, live, run.started_at)
            elif limits.queue_timeout is not None:
                moment = self._due_to_start(run) + from_seconds(limits.queue_timeout)
                if moment < self._clock.now():
                    self._run_waited(run, limits.queue_timeout)  # at once, as it could start before an alarm rings
                    return
                live.run = self._deadlines.at(moment, self._run_waited, run, limits.queue_timeout)
        for position in positions:
            ready_at = live.ready_at.setdefault(position, max(at, self._clock.now()))
            seconds = limits.totals.get(position)
            if seconds is not None and position not in live.tasks:
                moment = ready_at + from_seconds(seconds)
                live.tasks[position] = self._deadlines.at(moment, self._task_over, run, position, seconds)
            seconds = limits.waits.get(position)
            if seconds is not None and position not in live.waits and not run.tries_of(position).total:
                moment = ready_at + from_seconds(seconds)
                live.waits[position] = self._deadlines.at(moment, self._task_waited, run, position, seconds)

    def started(self, run: LiveRun, position: int, begins: bool) -> None:
        """Take note that an attempt has started, perhaps the first one of its run."""
        live = run.limits
        assert live is not None
        live.started(position)
        if begins:
            if live.run is not None:
                live.run.cancel()
            assert run.started_at is not None
            self._begin(run, live, run.started_at)

    def retry_waits(self, run: LiveRun, position: int, error: ErrorInfo, status: ExecutionStatus) -> None:
        """Take note that a task waits for its next attempt, which its policy may want to start by a certain moment.

        A circuit that is open, a pause or other tasks may keep it waiting for longer than its delay.

        Args:
            run: of the task.
            position: of the task.
            error: of its last attempt.
            status: of its last attempt.
        """
        latest = self._runs.policy_of(run, position).latest_retry(run.tries_of(position).began)
        if latest is None:
            return
        error = with_ending(shorten(error), Ending.MAX_ELAPSED)
        if latest < self._clock.now():
            self._end_waiting(run, position, error, status)  # at once, as it could start before an alarm rings
            return
        if run.limits is None:
            run.limits = RunLimits({})
        # at that moment itself it may still start
        run.limits.retries[position] = self._deadlines.at(latest + 1, self._end_waiting, run, position, error, status)

    def restore(self, run: LiveRun, tasks: Sequence[TaskRecord]) -> None:
        """Work out from the rows of a run since when its tasks have been ready."""
        plan = run.version.plan
        if plan.limits is None:
            return
        positions, now = plan.positions, self._clock.now()
        ended = {positions[task.component_id]: min(task.ended_at or 0, now) for task in tasks}
        components = plan.components
        run.limits = RunLimits(
            {
                position: max(
                    self._due_to_start(run),
                    *(ended.get(positions[d.component_id], 0) for d in components[position].dependencies),
                    0,
                )
                for position in run.state.startable()
            }
        )

    async def end_overdue(self) -> None:
        """End the runs that had to start by now and wait where nothing of them is in memory.

        They are behind their tenant's window, their tenant is suspended, or their functions are missing.
        """
        for run_id in await self._store.list_overdue_runs(self._clock.now(), OVERDUE_MAX):
            if self._runs.get(run_id) is not None:
                continue  # its own deadline ends it
            run = await self._window.fetch(run_id, None)
            limits = None if run is None else run.version.plan.limits
            if run is not None and limits is not None and limits.queue_timeout is not None:
                self._end_run(run, limits.queue_timeout, run_waited_too_long(limits.queue_timeout))

    def catch_up(self) -> None:
        """End what was over time when its run was taken up again, before any of it can start."""
        self._deadlines.ring_due()

    def passed(self, run: LiveRun, moment: Instant) -> ErrorInfo | None:
        """Say which time limit of the run had passed at a moment; None if none had."""
        limits = run.version.plan.limits
        if limits is None:
            return None
        if run.started_at is None:
            seconds, since, error = limits.queue_timeout, max(run.created_at, run.not_before), run_waited_too_long
        else:
            seconds, since, error = limits.timeout, run.started_at, run_took_too_long
        return None if seconds is None or moment < since + from_seconds(seconds) else error(seconds)

    # --- what passes ----------------------------------------------------------------------------------------------

    def _begin(self, run: LiveRun, live: RunLimits, started_at: Instant) -> None:
        """Count the time of a run from its start, which is recorded at once."""
        live.run = None
        seconds = run.version.plan.limits.timeout if run.version.plan.limits is not None else None
        if seconds is None:
            return
        moment = min(started_at, self._clock.now()) + from_seconds(seconds)
        live.run = self._deadlines.at(moment, self._run_over, run, seconds)
        news = self._runs.first_news(run)
        if news:

            def recorded(answer: Answer) -> None:
                if not isinstance(answer, Committed):
                    self._runs.lost(run, answer)

            self._runs.put(run, news, recorded)

    def _due_to_start(self, run: LiveRun) -> Instant:
        """Give the moment from which a run waits for its start."""
        return max(min(run.created_at, self._clock.now()), run.not_before)

    def _run_waited(self, run: LiveRun, seconds: float) -> None:
        if run.started_at is None:
            self._end_run(run, seconds, run_waited_too_long(seconds))

    def _run_over(self, run: LiveRun, seconds: float) -> None:
        self._end_run(run, seconds, run_took_too_long(seconds))

    def _end_run(self, run: LiveRun, seconds: float, error: ErrorInfo) -> None:
        """End a run whose time is over: what waits is cancelled, what runs is stopped."""
        if run.cancelling or run.state.compensating or self._runs.get(run.run_id) is not run:
            return
        if not run.state.open_tasks:
            return  # it is over, and that is being recorded
        self._runs.cancel(run, timed_out=error)
        self._dispatcher.look_again(run.tenant_id)
        for attempt in list((run.running or {}).values()):
            self._attempts.expire(attempt, TimedOut(seconds, TimeLimit.RUN))

    def _task_over(self, run: LiveRun, position: int, seconds: float) -> None:
        attempt = None if run.running is None else run.running.get(position)
        if attempt is not None:
            self._attempts.expire(attempt, TimedOut(seconds, TimeLimit.TASK))
        else:
            self._end_waiting(run, position, timeout_error(TimedOut(seconds, TimeLimit.TASK)))

    def _task_waited(self, run: LiveRun, position: int, seconds: float) -> None:
        self._end_waiting(run, position, timeout_error(TimedOut(seconds, TimeLimit.QUEUE)))

    def _end_waiting(
        self, run: LiveRun, position: int, error: ErrorInfo, status: ExecutionStatus = ExecutionStatus.TIMEOUT
    ) -> None:
        """End a task that waits: for its turn, or for its next attempt."""
        if not run.wants(position) or self._runs.get(run.run_id) is not run:
            return
        run.errors = run.errors or {}
        run.errors[position] = error
        tried = run.tries_of(position).total
        finished = TaskFinished(
            run.run_id,
            run.version.plan.component_ids[position],
            run.tenant_id,
            status,
            run.next_number(position) - 1 if tried else 0,
            None,
            self._clock.now(),
            None,
            encode_json(error),
        )
        self._runs.settle(run, position, finished)
        self._dispatcher.look_again(run.tenant_id)


def start_by(plan: Plan, created_at: Instant, not_before: Instant) -> Instant:
    """Give the moment until which a run has to be begun; 0 for none."""
    if plan.limits is None or plan.limits.queue_timeout is None:
        return 0
    return max(created_at, not_before) + from_seconds(plan.limits.queue_timeout)


def run_waited_too_long(seconds: float) -> ErrorInfo:
    return _timeout(f"the run did not start within its queue timeout of {seconds:g} s")


def run_took_too_long(seconds: float) -> ErrorInfo:
    return _timeout(f"the run took longer than its timeout of {seconds:g} s")


def _timeout(message: str) -> ErrorInfo:
    return ErrorInfo("builtins.TimeoutError", message, TIMEOUT_TYPES, ending=Ending.TIMEOUT.value)
