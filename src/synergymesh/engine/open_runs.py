"""The open runs: verdicts given and recorded, dependants released, ends told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from random import Random
from typing import Any, Protocol

import msgspec

from synergymesh.domain.actors import Actor
from synergymesh.domain.fault_tolerance.error_info import (
    FULL_TRACEBACKS_MAX,
    ErrorInfo,
    describe,
    shorten,
)
from synergymesh.domain.fault_tolerance.retry import (
    Ending,
    Outcome,
    RetryPolicy,
    Succeeded,
    Verdict,
    decide,
    with_ending,
)
from synergymesh.domain.fault_tolerance.tries import cause_of
from synergymesh.domain.instants import Instant, to_datetime
from synergymesh.domain.observability.captured import CapturedOutput
from synergymesh.domain.payload import decode, encode
from synergymesh.domain.states import ExecutionStatus
from synergymesh.domain.workflow.run_state import CANCELLED, PENDING, RETRYING, RUNNING, SUCCESS
from synergymesh.engine.backlog.open_tasks import Backlog
from synergymesh.engine.committer import Answer, Committer
from synergymesh.engine.live import Attempt, LiveRun
from synergymesh.engine.observability.events import RunEvent
from synergymesh.engine.observability.followers import Followers
from synergymesh.engine.versions import Version
from synergymesh.errors import InvalidPayload, StoreError, UnknownRun
from synergymesh.logs import Log
from synergymesh.ports.changes import (
    AttemptFailed,
    CancelRequested,
    Change,
    OutputCaptured,
    RunFinished,
    RunStarted,
    TaskFinished,
)
from synergymesh.ports.clock import Clock
from synergymesh.ports.records import Committed

log = Log("synergymesh.engine")

NO_POSITION = -1
"""Stands for the run itself where errors are kept by position."""

DONE_WELL = (ExecutionStatus.SUCCESS, ExecutionStatus.PARTIAL)

encode_json = msgspec.json.Encoder().encode


class AttemptCounter(Protocol):
    """Count how attempts end, and say from when on they may be tried again."""

    @property
    def live(self) -> Mapping[Any, Any]:
        """Give what is counted now; nothing, mostly."""
        ...

    def succeeded(self, attempt: Attempt, now: Instant) -> None:
        """Count a success."""
        ...

    def ended(self, attempt: Attempt, outcome: Outcome, policy: RetryPolicy, now: Instant) -> None:
        """Count anything else."""
        ...

    def retry_at(
        self, attempt: Attempt, not_before: Instant, now: Instant, latest: Instant | None = None
    ) -> Instant | None:
        """Give when a failed attempt may be followed by another one; None if that is after `latest`."""
        ...


class OpenRuns:
    """Keep the runs that are not final; turn outcomes into verdicts, and release dependants once these are committed.

    Attributes:
        released: is called with a run, the positions that may start, and the moment from which (0 for now).
        limited_started: is called when an attempt starts in a run with time limits, and whether it is the first one.
        retry_waits: is called with a run, a position, and the error and the status of the last attempt there, when the
            next one is waited for.
        circuits: counts how attempts end.
        policy_of: gives the retry policy of a run's task at a position.
        waits_no_more: is called with a run when its first task starts, or when it is clear that none will.
        is_workflow_paused: tells whether nothing of a workflow may start for a tenant.
        backlog: counts the open tasks.
        given_up: ids of runs whose verdicts could not be recorded; they are taken up again after a restart.
    """

    def __init__(self, committer: Committer, clock: Clock, dice: Random, *, payload_bytes_max: int) -> None:
        self.released: Callable[[LiveRun, Sequence[int], Instant], None] = _nothing
        self.is_workflow_paused: Callable[[str, str], bool] = _never
        self.policy_of: Callable[[LiveRun, int], RetryPolicy] = _as_planned
        self.circuits: AttemptCounter | None = None
        self.limited_started: Callable[[LiveRun, int, bool], None] = _nothing
        self.retry_waits: Callable[[LiveRun, int, ErrorInfo, ExecutionStatus], None] = _nothing
        self._committer = committer
        self._clock = clock
        self._payload_bytes_max = payload_bytes_max
        self._dice = dice
        self._live: dict[str, LiveRun] = {}
        self._leaving: list[set[str]] = []
        self.waits_no_more: Callable[[LiveRun], None] = _nothing
        self.followers = Followers()
        self.given_up: set[str] = set()
        self.backlog = Backlog()

    def add(self, run: LiveRun) -> None:
        """Take up a run that is new here."""
        self.load(run)
        self.backlog.add(run.tenant_id, run.state.open_tasks)

    def load(self, run: LiveRun) -> None:
        """Take up a run whose open tasks are counted already."""
        if run.paused or self.is_workflow_paused(run.tenant_id, run.version.plan.workflow):
            run.held = {}
        self._live[run.run_id] = run
        if self.followers:
            self.followers.arrive(run)

    def unload(self, run: LiveRun) -> None:
        """Let go of a run that is not begun; it goes on when it is loaded again."""
        del self._live[run.run_id]
        if run.limits is not None:
            run.limits.close()
            run.limits = None
        if run.waiters is not None or run.watchers is not None:
            self.followers.depart(run)

    @contextmanager
    def leaving(self) -> Iterator[set[str]]:
        """Give a set that gets the ids of the runs that end or are given up meanwhile.

        What is read during that time may show them as they were before.
        """
        left: set[str] = set()
        self._leaving.append(left)
        try:
            yield left
        finally:
            # by identity: two of them may be equal
            self._leaving = [each for each in self._leaving if each is not left]

    def get(self, run_id: str) -> LiveRun | None:
        """Give an open run."""
        return self._live.get(run_id)

    def __iter__(self) -> Iterator[LiveRun]:
        """Go through the open runs."""
        return iter(list(self._live.values()))

    def put(self, run: LiveRun, unit: list[Change], done: Callable[[Answer], None]) -> None:
        """Have changes of a run recorded, behind what was kept back of it."""
        if run.unrecorded is not None:
            unit = [*run.unrecorded, *unit]
            run.unrecorded = None
            # asked now and not when the run began, as the store may have lost the version since
            if run.direct is not None and not run.version.stored:
                unit.insert(0, run.version.row(run.created_at))
                done = partial(_version_recorded, run.version, done)
        self._committer.put(unit, done)

    # --- attempts -------------------------------------------------------------------------------------------------

    def started(self, attempt: Attempt) -> None:
        """Note that an attempt is under way."""
        run, position = attempt.run, attempt.position
        run.state.move(position, RUNNING)
        if run.running is None:
            run.running = {}
        run.running[position] = attempt
        begins = run.started_at is None
        if begins:
            run.started_at = attempt.started_at
            self.waits_no_more(run)
        if run.limits is not None:
            self.limited_started(run, position, begins)
        if run.watchers:
            if begins:
                self._tell(run, None, RUNNING, at=attempt.started_at)
            self._tell(run, position, RUNNING, attempt=attempt.number, at=attempt.started_at)

    def judge(self, attempt: Attempt, outcome: Outcome) -> None:
        """Give the verdict on an attempt and have it recorded."""
        attempt.settled = True
        run, position = attempt.run, attempt.position
        assert run.running is not None
        del run.running[position]
        now = self._clock.now()
        if attempt.context.output is not None:
            run.unrecorded = [*(run.unrecorded or ()), _output_of(attempt, attempt.context.output, now)]
        if type(outcome) is Succeeded:
            verdict = Verdict(SUCCESS, result=outcome.result)
            if self.circuits is not None and self.circuits.live:
                self.circuits.succeeded(attempt, now)
        else:
            verdict = self._verdict(attempt, outcome, now)
        status = verdict.status
        if status is RETRYING or status is PENDING:
            self._go_on(attempt, verdict, now)
            return
        if run.state.committed is not None:
            # what is undone is so in the reverse of this order; nothing else goes by it, as the clock may be set back
            now = run.last_end = max(now, run.last_end + 1)
        component_id = run.version.plan.component_ids[position]
        error = None
        if verdict.error is not None:
            error = encode_json(verdict.error)
            if run.errors is None:
                run.errors = {}
            run.errors[position] = verdict.error
        finished = TaskFinished(
            run.run_id,
            component_id,
            run.tenant_id,
            status,
            attempt.number,
            attempt.started_at,
            now,
            verdict.result,
            error,
            attempt.waited_for,
        )
        self.settle(run, position, finished)

    def _verdict(self, attempt: Attempt, outcome: Outcome, now: Instant) -> Verdict:
        """Decide on an attempt that did not succeed."""
        run, position = attempt.run, attempt.position
        tries = run.tries_of(position)
        policy = self.policy_of(run, position)
        if self.circuits is not None:
            self.circuits.ended(attempt, outcome, policy, now)
        began = attempt.started_at if tries.began is None else tries.began
        verdict = decide(
            policy,
            outcome,
            failures=tries.failures,
            postponements=tries.postponements,
            losses=tries.losses,
            began=began,
            cancelling=run.gives_up,
            now=now,
            dice=self._dice.random(),
        )
        error = verdict.error
        if self.circuits is None or verdict.status is not RETRYING or error is None or error.retry_after is not None:
            return verdict
        retry_at = self.circuits.retry_at(attempt, verdict.not_before, now, policy.latest_retry(began))
        if retry_at is None:
            return Verdict(verdict.attempt_status, error=with_ending(error, Ending.MAX_ELAPSED))
        return verdict if retry_at == verdict.not_before else msgspec.structs.replace(verdict, not_before=retry_at)

    def _go_on(self, attempt: Attempt, verdict: Verdict, now: Instant) -> None:
        """Record an attempt that is followed by another one."""
        run, position = attempt.run, attempt.position
        status = CANCELLED if verdict.status is PENDING else verdict.attempt_status
        error = verdict.error
        if error is not None and run.tries_of(position).total >= FULL_TRACEBACKS_MAX:
            error = shorten(error)
        retry_at = verdict.not_before
        run.tried(position, cause_of(status, error), attempt.started_at)
        change = AttemptFailed(
            run.run_id,
            attempt.context.task_id,
            attempt.number,
            run.tenant_id,
            status,
            attempt.started_at,
            now,
            retry_at,
            None if error is None else encode_json(error),
            attempt.waited_for,
        )
        run.state.move(position, verdict.status)

        def recorded(answer: Answer) -> None:
            if not isinstance(answer, Committed):
                self.lost(run, answer)
                return
            if run.watchers:
                self._tell(run, position, verdict.status, attempt=attempt.number, at=now, error=verdict.error)
            if verdict.status is RETRYING and error is not None and run.wants(position):
                self.retry_waits(run, position, error, status)
            if run.wants(position):
                self.released(run, [position], retry_at)

        self.put(run, [*self.first_news(run), change], recorded)

    # --- tasks and runs -------------------------------------------------------------------------------------------

    def settle(self, run: LiveRun, position: int, finished: TaskFinished) -> None:
        """Note a task's final state and have it recorded with what follows from it; then release its dependants."""
        ready, skipped = run.state.settle(position, finished.status, finished.result)
        if run.limits is not None:
            run.limits.drop(position)
        self.backlog.add(run.tenant_id, -1 - len(skipped))
        unit: list[Change] = [finished]
        if skipped:
            unit += self._without_attempt(run, skipped, finished.ended_at)
        end = None
        if not run.state.open_tasks:
            ready, end = self._what_follows(run, finished.ended_at)
            if end is not None:
                unit.append(end)
        if run.started_at is None:
            self._begun_without_attempt(run, position, finished.ended_at, ends=end is not None)
        if end is None and not run.start_recorded:
            unit[:0] = self.first_news(run)
        self.put(run, unit, partial(self._settled, run, unit, ready, end))

    def _begun_without_attempt(self, run: LiveRun, position: int, at: Instant, *, ends: bool) -> None:
        """Take a run for begun of which a task ended that never started: a restart must find what is recorded of it."""
        self.waits_no_more(run)
        if not ends:
            run.started_at = at
            if run.limits is not None:
                self.limited_started(run, position, True)

    def _settled(
        self, run: LiveRun, unit: list[Change], ready: list[int], end: RunFinished | None, answer: Answer
    ) -> None:
        """Go on after a verdict is committed."""
        if not isinstance(answer, Committed):
            self.lost(run, answer)
            return
        if run.watchers:
            for change in unit:
                if isinstance(change, TaskFinished):
                    self._tell_finished(run, change)
        if end is not None:
            self._finish(run, end)
        elif ready:
            self.released(run, ready, 0)

    def _without_attempt(self, run: LiveRun, positions: list[int], now: Instant) -> list[TaskFinished]:
        ids = run.version.plan.component_ids
        return [
            TaskFinished(run.run_id, ids[p], run.tenant_id, run.state.statuses[p], 0, None, now, None, None)
            for p in positions
        ]

    def conclude(self, run: LiveRun) -> bool:
        """Go on with a run that was taken up with no task left; tell whether it undoes something, else it ends."""
        _, end = self._what_follows(run, self._clock.now())
        if end is not None:
            self._committer.put([end], partial(self._settled, run, [end], [], end))
        return end is None

    def _what_follows(self, run: LiveRun, now: Instant) -> tuple[list[int], RunFinished | None]:
        """Say what follows when no task is open: something is to be undone, or the run ends."""
        end = self._end(run, now)
        if not run.state.committed or run.state.compensating or run.abandoned or end.status in DONE_WELL:
            return [], end
        ready = run.state.begin_compensation()
        if not ready:
            return [], self._end(run, now)
        if run.limits is not None and run.limits.run is not None:
            run.limits.run.cancel()  # its time is over in any case; undoing takes as long as it takes
        self.backlog.add(run.tenant_id, run.state.open_tasks)
        return ready, None

    def first_news(self, run: LiveRun) -> list[Change]:
        """Give the record of a run's start, once."""
        if run.start_recorded or run.started_at is None:
            return []
        run.start_recorded = True
        return [RunStarted(run.run_id, run.tenant_id, run.started_at)]

    def _end(self, run: LiveRun, now: Instant) -> RunFinished:
        """Say how a run ended."""
        status = run.state.outcome(cancelled=run.cancelling)
        result: bytes | None = None
        errors = {} if run.errors is None else {p: ErrorInfo(e.type, e.message) for p, e in run.errors.items()}
        if run.timed_out is not None and status not in (ExecutionStatus.SUCCESS, ExecutionStatus.PARTIAL):
            status = ExecutionStatus.TIMEOUT
            errors[NO_POSITION] = run.timed_out
        if status is ExecutionStatus.SUCCESS or status is ExecutionStatus.PARTIAL:
            try:
                result = self._output(run)
            except (InvalidPayload, LookupError) as failure:
                status = ExecutionStatus.FAILED
                errors[NO_POSITION] = describe(failure)
        ids = run.version.plan.component_ids
        error = encode_json({"" if p == NO_POSITION else ids[p]: e for p, e in errors.items()}) if errors else None
        return RunFinished(run.run_id, run.tenant_id, status, run.started_at, now, result, error)

    def _output(self, run: LiveRun) -> bytes:
        """Give the run's result: what the workflow returns, as JSON."""
        plan = run.version.plan
        if plan.output_position is not None:
            return run.state.results.get(plan.output_position, b"null")
        inputs = decode(run.input) if plan.output_needs_input else {}
        value = plan.output(inputs, run.result_of)
        return encode(value, field="result of the workflow", limit=self._payload_bytes_max)

    def _finish(self, run: LiveRun, end: RunFinished) -> None:
        """Let go of a run whose end is committed, and tell those who wait for it."""
        self._live.pop(run.run_id, None)
        for left in self._leaving:
            left.add(run.run_id)
        if run.limits is not None:
            run.limits.close()
        if run.watchers:
            self._tell(run, None, end.status, at=end.ended_at)
        for waiter in run.waiters or ():
            if not waiter.done():
                waiter.set_result(end)
        run.waiters = None

    def lost(self, run: LiveRun, answer: Answer) -> None:
        """Let go of a run whose verdict could not be recorded; a restart finds it as it was before."""
        reason = str(answer) if isinstance(answer, Exception) else getattr(answer, "reason", "refused")
        self.given_up.add(run.run_id)
        log.error("a verdict was not recorded", run_id=run.run_id, tenant_id=run.tenant_id, reason=reason)
        self._let_go(run, answer if isinstance(answer, Exception) else StoreError(reason))

    def close(self) -> None:
        """Let go of everything; there is nothing to do unless somebody follows the runs."""

    def forget(self, run: LiveRun) -> None:
        """Let go of a run that is deleted with its tenant."""
        self._let_go(run, UnknownRun(run.run_id))

    def _let_go(self, run: LiveRun, error: Exception) -> None:
        """Tell those who wait for a run that it does not end here."""
        if self._live.pop(run.run_id, None) is not None:
            self.backlog.add(run.tenant_id, -run.state.open_tasks)
        for left in self._leaving:
            left.add(run.run_id)
        self.waits_no_more(run)
        if run.limits is not None:
            run.limits.close()
        run.state.cancel_waiting(compensations=True)  # nothing more of it starts
        for attempt in list((run.running or {}).values()):
            attempt.settled = True
        for watcher in run.watchers or ():
            watcher(None)
        for waiter in run.waiters or ():
            if not waiter.done():
                waiter.set_exception(error)
        run.waiters = None

    def cancel(
        self, run: LiveRun, by: Actor | None = None, *, timed_out: ErrorInfo | None = None
    ) -> asyncio.Future[None]:
        """Cancel what waits of a run, and retry nothing of what runs; give what is done once that is recorded.

        Does not stop what runs: the run is final once that has ended.

        Args:
            run: which.
            by: who wants it.
            timed_out: the time limit of the run that ends it, if it is no wish of people.
        """
        run.cancelling = True
        self.waits_no_more(run)
        run.timed_out = timed_out
        now = self._clock.now()
        cancelled = run.state.cancel_waiting(compensations=run.abandoned)
        self.backlog.add(run.tenant_id, -len(cancelled))
        unit: list[Change] = [
            CancelRequested(run.run_id, run.tenant_id, now, by),
            *self._without_attempt(run, cancelled, now),
        ]
        ready: list[int] = []
        end = None
        if not run.state.open_tasks:
            ready, end = self._what_follows(run, now)
            if end is not None:
                unit.append(end)
        recorded: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done(answer: Answer) -> None:
            self._settled(run, unit, ready, end, answer)
            if not recorded.done():
                recorded.set_result(None)

        self.put(run, unit, done)
        return recorded

    # --- what is told ---------------------------------------------------------------------------------------------

    def _tell_finished(self, run: LiveRun, change: TaskFinished) -> None:
        position = run.version.plan.positions[change.component_id]
        error = run.errors.get(position) if run.errors is not None else None
        self._tell(run, position, change.status, attempt=change.attempt, at=change.ended_at, error=error)

    def _tell(
        self,
        run: LiveRun,
        position: int | None,
        status: ExecutionStatus,
        *,
        at: Instant,
        attempt: int = 0,
        error: ErrorInfo | None = None,
    ) -> None:
        run.tell(
            RunEvent(
                run_id=run.run_id,
                task_id=None if position is None else run.version.plan.component_ids[position],
                status=status,
                attempt=attempt,
                at=to_datetime(at),
                error=None if error is None else str(error),
            )
        )


def _version_recorded(version: Version, done: Callable[[Answer], None], answer: Answer) -> None:
    """Note that the store has a version, and go on."""
    if isinstance(answer, Committed):
        version.stored = True
    done(answer)


def _as_planned(run: LiveRun, position: int) -> RetryPolicy:
    """Give the policy that the task declares, or the orchestrator's."""
    return run.version.plan.policies[position]


def _output_of(attempt: Attempt, output: CapturedOutput, now: Instant) -> OutputCaptured:
    lines = encode_json(output.lines(now))
    run = attempt.run
    return OutputCaptured(run.run_id, attempt.context.task_id, attempt.number, run.tenant_id, lines, output.dropped)


def _nothing(*_: object) -> None:
    """Do nothing; until somebody listens."""


def _never(*_: object) -> bool:
    """Say no; until somebody knows."""
    return False
