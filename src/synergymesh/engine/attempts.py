"""The life of an attempt: started, watched, stopped when its time is over, ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from functools import partial
from heapq import heappop, heappush
from typing import Any

from synergymesh.domain.fault_tolerance.retry import Cancelled, Interrupted, Outcome, TimedOut, TimeLimit
from synergymesh.domain.instants import SECOND, Instant
from synergymesh.domain.scheduling.grants import Grant
from synergymesh.domain.scheduling.scheduler import Scheduler
from synergymesh.engine.committer import Answer
from synergymesh.engine.live import Attempt, LiveRun
from synergymesh.engine.open_runs import OpenRuns
from synergymesh.engine.timing.deadlines import Deadlines
from synergymesh.logs import Log
from synergymesh.ports.changes import TaskStarted
from synergymesh.ports.clock import Clock
from synergymesh.ports.executor import Executor
from synergymesh.ports.records import Committed
from synergymesh.ports.task_context import TaskContext, task_in
from synergymesh.workflows.direct_tasks import DirectTask

STOPS_MAX = 3
"""Times that an attempt is stopped again which swallowed that it was stopped: one that does so once ends then."""

LOOKS_PER_HEARTBEAT = 4
"""Looks for a heartbeat in the time that it may take: one that is late is seen a quarter of that time later."""

RANKS = {
    TimeLimit.ATTEMPT: 0,
    TimeLimit.HEARTBEAT: 0,
    TimeLimit.QUEUE: 1,
    TimeLimit.TASK: 1,
    TimeLimit.RUN: 2,
}
"""Which limit ends an attempt, if several pass while it is being stopped: one after which it is tried again never takes
the place of one after which it is not."""

LONG_TASK_SECONDS = 1.0
"""Attempts that run longer are written down as running, for people and for crash forensics."""

log = Log("synergymesh.engine")


class Attempts:
    """Carry attempts from their start to their outcome, and give their slots back.

    Attributes:
        under_way: oldest first; those that were judged but do not end are still here, and still hold their slot.
        learnt: pairs of (tenant, learning key) whose durations changed since somebody took them from here.
        slot_freed: is called when a slot was given back.
        suspect_cleared: is called with a task that may run now that another suspect has ended.
    """

    def __init__(
        self,
        scheduler: Scheduler[LiveRun],
        runs: OpenRuns,
        executors: Mapping[str, Executor],
        clock: Clock,
        deadlines: Deadlines,
        *,
        stop_grace_seconds: float,
    ) -> None:
        self.under_way: dict[int, Attempt] = {}
        self.slot_freed: Callable[[], None] = _nothing
        self.learnt: dict[tuple[str, Hashable], None] = {}
        self.suspect_cleared: Callable[[LiveRun, list[int]], None] = _nothing
        self._scheduler = scheduler
        self._runs = runs
        self._loop_executor = executors["loop"]
        self._thread_executor = executors["thread"]
        self._clock = clock
        self._deadlines = deadlines
        self._stop_grace_seconds = stop_grace_seconds
        self._loop = asyncio.get_running_loop()
        self._suspect: Attempt | None = None
        self._suspects: list[tuple[int, int, LiveRun, int]] = []
        self._quiet: asyncio.Event | None = None

    def begin(self, grant: Grant[LiveRun]) -> None:
        """Start a task for which the scheduler took a slot."""
        run, position = grant.run, grant.position
        suspect = run.crashes is not None and position in run.crashes
        if suspect and self._suspect is not None:
            # tasks during which the process died run one after the other, so that the culprit is told from the rest
            assert run.crashes is not None
            heappush(self._suspects, (-run.crashes[position], grant.order, run, position))
            self._scheduler.release(grant, grant.started_at, learn=False)
            return
        attempt = Attempt(run, position, run.next_number(position), grant.started_at, self._ended, grant)
        if suspect:
            self._suspect = attempt
        self.under_way[id(attempt)] = attempt
        self._runs.started(attempt)
        if run.recoveries:
            # cautious after a crash: known to the store before it begins, so that a task which kills its process is
            # found by name
            self._record_start(attempt, partial(self._start_recorded, attempt))
        else:
            self._execute(attempt)

    def _start_recorded(self, attempt: Attempt, answer: Answer) -> None:
        """Begin an attempt that the store knows of."""
        if attempt.settled:
            return  # stopped before it began
        if isinstance(answer, Committed):
            self._execute(attempt)
            return
        self._leave(attempt)
        self._runs.lost(attempt.run, answer)

    def _execute(self, attempt: Attempt) -> None:
        task = attempt.task
        if isinstance(task, DirectTask):
            attempt.executor = task
        else:
            attempt.executor = self._loop_executor if task.is_async else self._thread_executor
        attempt.executor.run(attempt)
        plan = attempt.run.version.plan
        timeout = plan.timeouts[attempt.position]
        if timeout is not None:
            attempt.timer = self._deadlines.after(timeout, self.expire, attempt, TimedOut(timeout))
        if plan.heartbeats is not None:
            seconds = plan.heartbeats[attempt.position]
            if seconds is not None:
                self._listen_later(attempt, seconds, attempt.context.beats, 0)

    def _listen_later(self, attempt: Attempt, seconds: float, beats: int, quiet: int) -> None:
        wait = seconds / LOOKS_PER_HEARTBEAT
        attempt.heart = self._deadlines.after(wait, self._listen, attempt, seconds, beats, quiet)

    def _listen(self, attempt: Attempt, seconds: float, beats: int, quiet: int) -> None:
        """Look whether an attempt has given a heartbeat since the last look.

        Looks are counted, not seconds: a look that comes late because something blocked the event loop comes before the
        heartbeats that were kept waiting too.

        Args:
            attempt: which.
            seconds: its heartbeat timeout.
            beats: how many heartbeats were heard of.
            quiet: looks that heard of no new one, in a row.
        """
        quiet = quiet + 1 if attempt.context.beats == beats else 0
        if quiet == LOOKS_PER_HEARTBEAT:
            self.expire(attempt, TimedOut(seconds, TimeLimit.HEARTBEAT))
        else:
            self._listen_later(attempt, seconds, attempt.context.beats, quiet)

    def expire(self, attempt: Attempt, outcome: TimedOut) -> None:
        """Stop an attempt because a time limit has passed."""
        if attempt.settled:
            if attempt.executor is not None and not attempt.stopped:
                self._stop(attempt, outcome)  # its run was let go of: nobody judges it, and it gives its slot back
            return
        if attempt.executor is None:
            # not begun: its start is being recorded
            self._runs.judge(attempt, outcome)
            self._leave(attempt)
            return
        if attempt.expired is None or RANKS[outcome.limit] > RANKS[attempt.expired.limit]:
            attempt.expired = outcome
        if not attempt.stopped:
            self._stop(attempt, outcome)

    def stop(self, attempt: Attempt, outcome: Cancelled | Interrupted) -> None:
        """Stop an attempt because its run is cancelled or the process shuts down."""
        if attempt.settled:
            return
        if attempt.executor is None:
            # not begun: its start is being recorded
            self._runs.judge(attempt, outcome)
            self._leave(attempt)
            return
        self._stop(attempt, outcome)

    def _stop(self, attempt: Attempt, outcome: Outcome) -> None:
        assert attempt.executor is not None
        self._stop_watching(attempt)
        attempt.executor.stop(attempt)
        if attempt.executor.can_interrupt:
            attempt.timer = self._deadlines.after(self._stop_grace_seconds, self._abandon, attempt, outcome, STOPS_MAX)
        else:
            self._abandon(attempt, outcome, 0)

    def _stop_watching(self, attempt: Attempt) -> None:
        """Let an attempt's own time limits pass unseen: it is stopped, or has ended."""
        if attempt.timer is not None:
            attempt.timer.cancel()
        if attempt.heart is not None:
            attempt.heart.cancel()

    def _abandon(self, attempt: Attempt, outcome: Outcome, stops: int) -> None:
        """Judge an attempt that does not end, and stop it a few times more; its slot stays taken until it ends."""
        if stops:
            assert attempt.executor is not None
            attempt.executor.stop(attempt)
            attempt.timer = self._deadlines.after(self._stop_grace_seconds, self._abandon, attempt, outcome, stops - 1)
        if not attempt.settled:
            context = attempt.context
            log.warning(
                "an attempt goes on although it was stopped; its slot stays taken",
                tenant_id=context.tenant_id,
                run_id=context.run_id,
                task_id=context.task_id,
                attempt=context.attempt,
            )
            self._runs.judge(attempt, attempt.expired or outcome)
            self._look_whether_quiet()

    def _ended(self, attempt: Attempt, outcome: Outcome) -> None:
        """Take the outcome of an attempt from its executor."""
        if id(attempt) not in self.under_way:
            return  # an executor that reports twice must not give back a slot that somebody else has by now
        self._stop_watching(attempt)
        if not attempt.settled:
            if attempt.expired is not None:
                outcome = attempt.expired
            elif isinstance(outcome, Cancelled) and not attempt.run.gives_up:
                outcome = Interrupted()
            self._runs.judge(attempt, outcome)
        self._leave(attempt)

    def _leave(self, attempt: Attempt) -> None:
        """Give the attempt's slot back."""
        learn = not attempt.stopped
        self._scheduler.release(attempt.grant, self._clock.now(), learn=learn)
        if learn:
            self.learnt[attempt.grant.tenant_id, attempt.grant.component] = None
        del self.under_way[id(attempt)]
        if attempt is self._suspect:
            self._suspect = None
            # all of them, as a tenant that is paused or gone must not keep the others waiting
            while self._suspects:
                _, _, run, position = heappop(self._suspects)
                if run.wants(position):
                    self.suspect_cleared(run, [position])
        self._look_whether_quiet()
        self.slot_freed()

    def count_running(self, tenant_id: str, circuit: tuple[str, str], since: Instant) -> int:
        """Count the attempts of a tenant's circuit that are under way and were started at a moment or later."""
        return sum(
            attempt.run.tenant_id == tenant_id
            and attempt.started_at >= since
            and attempt.run.version.plan.circuits[attempt.position] == circuit
            for attempt in self.under_way.values()
            if not attempt.settled
        )

    def lingering(self) -> list[Attempt]:
        """Give the attempts that were stopped and judged, but go on: each still holds its slot."""
        return [attempt for attempt in self.under_way.values() if attempt.settled]

    def context_of(self, task: asyncio.Task[Any]) -> TaskContext | None:
        """Give who an asyncio task works for; also from another thread, while the event loop is blocked."""
        for attempt in list(self.under_way.values()):
            if attempt.handle is task:
                return attempt.context
        get_context = getattr(task, "get_context", None)  # from Python 3.12 on
        return None if get_context is None else task_in(get_context())

    async def drain(self, grace_seconds: float) -> None:
        """Let what runs end within the grace period, then stop the rest; afterwards every attempt is judged."""
        await self._wait_until_quiet(grace_seconds)
        for attempt in list(self.under_way.values()):
            self.stop(attempt, Interrupted())
        while any(not attempt.settled for attempt in self.under_way.values()):
            await self._wait_until_quiet(self._stop_grace_seconds)

    async def _wait_until_quiet(self, seconds: float) -> None:
        """Wait until every attempt that is under way is judged, but no longer than that."""
        self._quiet = asyncio.Event()
        self._look_whether_quiet()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._quiet.wait()
        self._quiet = None

    def _look_whether_quiet(self) -> None:
        if self._quiet is not None and all(attempt.settled for attempt in self.under_way.values()):
            self._quiet.set()

    def record_long_tasks(self) -> None:
        """Write down which attempts have been running for long."""
        horizon = self._clock.now() - int(LONG_TASK_SECONDS * SECOND)
        for attempt in self.under_way.values():
            if attempt.started_at > horizon:
                return
            if not attempt.recorded and not attempt.settled:
                self._record_start(attempt, partial(self._long_recorded, attempt))

    def _long_recorded(self, attempt: Attempt, answer: Answer) -> None:
        """Let go of a run if it could not be written that it has begun: the next start would begin it anew."""
        if not isinstance(answer, Committed):
            self._runs.lost(attempt.run, answer)

    def _record_start(self, attempt: Attempt, then: Callable[[Answer], None]) -> None:
        attempt.recorded = True
        run = attempt.run
        change = TaskStarted(run.run_id, attempt.context.task_id, run.tenant_id, attempt.number, attempt.started_at)
        self._runs.put(run, [*self._runs.first_news(run), change], then)


def _nothing(*_: object) -> None:
    """Do nothing; until somebody listens."""
