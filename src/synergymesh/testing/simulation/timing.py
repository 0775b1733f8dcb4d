"""Whether limits of time hold: nothing starts behind one, and nobody is blamed for a silence that was not his."""

from __future__ import annotations

from collections.abc import Callable

from synergymesh.domain.instants import from_seconds
from synergymesh.domain.states import ExecutionStatus
from synergymesh.domain.workflow.definition import UNDO
from synergymesh.engine.live import Attempt
from synergymesh.ports.changes import AttemptFailed, Change, TaskFinished
from synergymesh.ports.task_context import TaskContext
from synergymesh.testing.simulation.history import History
from synergymesh.testing.simulation.options import Options
from synergymesh.testing.simulation.retrying import error_of
from synergymesh.testing.simulation.usage import Token, token_of

NO_HEARTBEAT = "gave no heartbeat"
"""How the error of an attempt begins whose heartbeat was missing."""

EPSILON = 1e-6

LATE = 1.3
"""A missing heartbeat is seen after so many times its limit."""


class Timing:
    """Measure starts and heartbeats in the seconds of the world, whatever its clock is set to.

    Args:
        history: what was recorded.
        fail: is called when something does not hold.
        now: gives the seconds of the world.
        options: of the world.
    """

    def __init__(
        self, history: History, fail: Callable[[str, str], None], now: Callable[[], float], options: Options
    ) -> None:
        self._history = history
        self._fail = fail
        self._now = now
        self._is_punctual = not (options.store_errors or options.outages or options.store_delays or options.pauses)
        self._has_one_clock = not options.clock_steps
        self._runs: dict[str, float] = {}
        self._tasks: dict[tuple[str, str], float] = {}
        self._ready: dict[tuple[str, str], float] = {}
        self._heard_at: dict[Token, float] = {}
        self._stopped_at: dict[Token, float] = {}
        self._asleep = 0.0
        self._woke_at = -1.0
        history.heard.append(self._heard)

    # --- what happens -----------------------------------------------------------------------------------------------

    def begin_life(self, *, set_back: bool) -> None:
        """Begin anew what no record is kept of; everything, if the clock was set back meanwhile."""
        runs = self._history.runs
        self._runs = {run_id: at for run_id, at in self._runs.items() if runs[run_id].begun}
        self._tasks = {key: at for key, at in self._tasks.items() if runs[key[0]].begun}
        self._heard_at.clear()
        self._stopped_at.clear()
        if set_back:  # times begin anew when the runs are taken up, and that takes as long as it takes
            self._runs.clear()
            self._tasks.clear()
            self._ready.clear()

    def slept(self, seconds: float) -> None:
        """Take note that the process stood still until now."""
        self._asleep += seconds
        self._woke_at = self._now()

    def beats(self, context: TaskContext) -> None:
        """Take note of a heartbeat."""
        token = context.run_id, context.task_id, context.attempt
        if token in self._heard_at:
            self._heard_at[token] = self._awake()

    def stopped(self, call: Attempt) -> None:
        """Take note that an attempt is stopped."""
        self._stopped_at.setdefault(token_of(call), self._awake())

    def handed(self, call: Attempt) -> None:
        """Check a start."""
        now = self._now()
        context = call.context
        run = self._history.runs[context.run_id]
        component = run.components[context.task_id]
        name = f"{token_of(call)}"
        key = (context.run_id, context.task_id)
        if component.heartbeat_timeout is not None:
            self._heard_at[token_of(call)] = self._awake()
        first = self._tasks.get(key)
        is_late_by_itself = self._woke_at == now  # who slept could not look at the time
        if not is_late_by_itself:
            if first is None:
                self._check_waits(call)
            elif component.total_timeout is not None and now > first + component.total_timeout + EPSILON:
                self._fail("time", f"{name} starts {now - first:g} s after the first attempt of its task, which has "
                                   f"{component.total_timeout:g} s in all")  # fmt: skip
            begun = self._runs.get(context.run_id)
            limit = run.definition.timeout
            if limit is not None and begun is not None and now > begun + limit + EPSILON and not _undoes(context):
                self._fail("time", f"{name} starts {now - begun:g} s after its run, which has {limit:g} s")
            self._check_elapsed(call)
        self._tasks.setdefault(key, now)
        self._runs.setdefault(context.run_id, now)

    def _check_elapsed(self, call: Attempt) -> None:
        """Check that a retry starts while its policy still allows it."""
        context = call.context
        run = self._history.runs[context.run_id]
        policy = run.components[context.task_id].retry
        if policy is None or policy.max_elapsed is None or not self._has_one_clock:
            return
        earlier = run.attempts_of(context.task_id)
        if not earlier or earlier[-1].status is ExecutionStatus.CANCELLED or earlier[-1].number + 1 != call.number:
            return  # it follows one that was lost, or that was under way when the process died: no fault of the task
        elapsed = call.started_at - min(attempt.started_at for attempt in earlier)
        if elapsed > from_seconds(policy.max_elapsed + EPSILON):
            self._fail("time", f"{token_of(call)} starts {elapsed / 1e9:g} s after the first attempt, and retries have "
                               f"{policy.max_elapsed:g} s")  # fmt: skip

    def _check_waits(self, call: Attempt) -> None:
        """Check that neither a run nor a task starts that has waited for too long."""
        context = call.context
        run = self._history.runs[context.run_id]
        limit = run.definition.queue_timeout
        if limit is not None and context.run_id not in self._runs and not run.begun and self._has_one_clock:
            # A run has begun when a task of it was chosen, whose start may still have to be recorded.
            begun_at = min(call.started_at, call.run.started_at or call.started_at)
            waited = begun_at - max(run.created.created_at, run.created.not_before)
            if waited > from_seconds(limit + EPSILON):
                self._fail("time", f"{context.run_id} starts after {waited / 1e9:g} s, and has {limit:g} s to")
        limit = run.components[context.task_id].queue_timeout
        ready = self._ready.get((context.run_id, context.task_id))
        if limit is None or ready is None or not self._is_punctual or run.attempts_of(context.task_id):
            return
        if self._now() > ready + limit + 0.1:
            self._fail("time", f"{token_of(call)} starts {self._now() - ready:g} s after it could, and has {limit:g} s")

    def rests(self, under_way: list[Attempt]) -> None:
        """Check, while nothing happens, that nobody is silent for longer than he may."""
        for call in under_way:
            token = token_of(call)
            heard_at = self._heard_at.get(token)
            if heard_at is None or call.stopped or call.executor is None:
                continue
            limit = call.run.version.plan.components[call.position].heartbeat_timeout
            if limit is not None and self._awake() > heard_at + limit * LATE + EPSILON:
                self._fail("time", f"{token} gives no heartbeat for {self._awake() - heard_at:g} s, and goes on")

    # --- what is recorded -------------------------------------------------------------------------------------------

    def _heard(self, change: Change) -> None:
        if isinstance(change, TaskFinished):
            self._frees(change)
            self._check_silence(change, change.attempt)
        elif isinstance(change, AttemptFailed):
            self._check_silence(change, change.number)

    def _frees(self, change: TaskFinished) -> None:
        """Take note of the tasks that wait for nothing but their turn from now on."""
        run = self._history.runs[change.run_id]
        for component in run.definition.components:
            needs = [each.component_id for each in component.dependencies]
            if change.component_id in needs and all(each in run.ended for each in needs):
                self._ready.setdefault((change.run_id, component.component_id), self._now())

    def _check_silence(self, change: AttemptFailed | TaskFinished, number: int) -> None:
        """Check that an attempt was silent for as long as is said."""
        if change.status is not ExecutionStatus.TIMEOUT or not error_of(change).message.startswith(NO_HEARTBEAT):
            return
        token = (change.run_id, change.component_id, number)
        heard_at, stopped_at = self._heard_at.get(token), self._stopped_at.get(token)
        if heard_at is None or stopped_at is None:
            return
        limit = self._history.runs[change.run_id].components[change.component_id].heartbeat_timeout
        unsure = limit / 4 if limit is not None and self._asleep else 0.0  # looks are counted, and one may come late
        if limit is None or stopped_at - heard_at < limit - unsure - EPSILON:
            silence = f"{stopped_at - heard_at:g} s"
            self._fail("time", f"{token} is said to have given no heartbeat, and was stopped {silence} after one")

    def _awake(self) -> float:
        """Give the seconds during which the process did not stand still."""
        return self._now() - self._asleep


def _undoes(context: TaskContext) -> bool:
    return context.task_id.startswith(UNDO)
