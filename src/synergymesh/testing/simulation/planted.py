"""Bugs on purpose: each is a mistake that was made somewhere before, and each has to be caught by the simulation.

Those in what follows when something fails are in `planted_tolerance`.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import msgspec

from synergymesh.domain.fault_tolerance.retry import Succeeded
from synergymesh.domain.scheduling import limits, queue_tree
from synergymesh.domain.scheduling.scheduler import Scheduler
from synergymesh.domain.states import ExecutionStatus
from synergymesh.engine import attempts, committer, dispatch, live, open_runs, recovery, tenants
from synergymesh.engine.backlog import doubts, window
from synergymesh.engine.backlog.open_tasks import Backlog
from synergymesh.ports import clock
from synergymesh.ports.changes import HourReserved, RunCreated, TaskFinished
from synergymesh.ports.records import COMMITTED, Refused
from synergymesh.store import writes
from synergymesh.testing.simulation import planted_tolerance
from synergymesh.testing.simulation.planting import PlantedBug, register

BUGS: list[PlantedBug] = []
"""All that there are, those of `planted_tolerance` included."""

bug = partial(register, BUGS)

# --- those that the list of faults names ------------------------------------------------------------------------------


@bug("A task that was stopped never gives its slot back: a counter that leaks.")
def slot_leaks() -> tuple[object, str, Any]:
    release = Scheduler.release

    def leaky(self: Any, grant: Any, now: int, *, learn: bool = True) -> None:
        if learn:
            release(self, grant, now, learn=learn)

    return Scheduler, "release", leaky


@bug("Skipped tasks stay in the count of what waits: a counter that leaks.")
def backlog_leaks() -> tuple[object, str, Any]:
    add = Backlog.add

    def leaky(self: Any, tenant_id: str, tasks: int) -> None:
        add(self, tenant_id, -1 if tasks < -1 else tasks)

    return Backlog, "add", leaky


@bug("Dependants are released before the result that they need is committed.")
def dependants_before_the_commit() -> tuple[object, str, Any]:
    put = open_runs.OpenRuns.put

    def early(self: Any, run: Any, unit: Any, done: Any) -> None:
        if isinstance(done, partial) and done.func.__name__ == "_settled" and done.args[2]:
            self.released(run, done.args[2], 0)
            done = partial(done.func, done.args[0], done.args[1], [], done.args[3])
        put(self, run, unit, done)

    return open_runs.OpenRuns, "put", early


@bug("The rescuer after a crash overwrites finished tasks: it runs them again.")
def rescuer_overwrites() -> tuple[object, str, Any]:
    restore = recovery.Recovery._restore_tasks

    def forgetful(self: Any, run: Any, tasks: Any) -> Any:
        return restore(self, run, [task for task in tasks if task.status is not ExecutionStatus.SUCCESS])

    return recovery.Recovery, "_restore_tasks", forgetful


@bug("A poisoned item stops its whole batch: its neighbours are refused with it.")
def poisoned_batch() -> tuple[object, str, Any]:
    def refuse(connection: Any, units: Any) -> Any:
        return [Refused("one of the batch is bad") for _ in units]

    return writes, "_record_without_bad_units", refuse


@bug("An error from a commit is taken for a failure: what may have been written is given up.")
def commit_error_is_failure() -> tuple[object, str, Any]:
    def give_up(self: Any, batch: Any, error: Any) -> list[Any]:
        for entry in batch:
            entry.done(error)
        return []

    return committer.Committer, "_after_failure", give_up


@bug("Usage is not rebuilt after a takeover: the rolling hour begins empty.")
def usage_not_rebuilt() -> tuple[object, str, Any]:
    return queue_tree.QueueTree, "restore_hour", lambda self, tenant_id, rows: None


# --- others -----------------------------------------------------------------------------------------------------------


@bug("Starts of the hour are used before they are written down.")
def hour_before_written() -> tuple[object, str, Any]:
    def early(self: Any, tenant_id: str, reservation: Any) -> None:
        self.scheduler.reserved(tenant_id, reservation, written=True)
        rows = [HourReserved(tenant_id, minute, starts) for minute, starts in reservation.rows]
        self._committer.put(rows, lambda answer: None)
        self.pump_soon()

    return dispatch.Dispatcher, "_reserve", early


@bug("A retry uses the number of the attempt before it.")
def attempt_number_reused() -> tuple[object, str, Any]:
    return live.LiveRun, "next_number", lambda self, position: self.recoveries + 1


@bug("Recoveries are not counted: attempts get the numbers that they had before the crash.")
def recoveries_not_counted() -> tuple[object, str, Any]:
    number = live.LiveRun.next_number
    return live.LiveRun, "next_number", lambda self, position: number(self, position) - self.recoveries


@bug("The alarm for delayed tasks is lost when it rings.")
def lost_wakeup() -> tuple[object, str, Any]:
    return dispatch.Dispatcher, "_ring", lambda self: None


@bug("Who waits for a run is not told of its end.")
def waiter_forgotten() -> tuple[object, str, Any]:
    finish = open_runs.OpenRuns._finish

    def silent(self: Any, run: Any, end: Any) -> None:
        run.waiters = None
        finish(self, run, end)

    return open_runs.OpenRuns, "_finish", silent


@bug("A tenant's priority counts across tenants.")
def priority_across_tenants() -> tuple[object, str, Any]:
    choose = Scheduler.next

    def urgent_first(self: Any, now: int) -> Any:
        waiting = [queue for queue in self._queues.values() if queue.entry and queue.ready]
        if waiting:
            first = min(waiting, key=lambda queue: queue.ready[0][0])
            first.start_tag = min(queue.start_tag for queue in waiting) - 1
            self._enter(first)
        return choose(self, now)

    return Scheduler, "next", urgent_first


@bug("Nothing is charged: who came first is always served first.")
def nothing_is_charged() -> tuple[object, str, Any]:
    choose = Scheduler.next

    def free(self: Any, now: int) -> Any:
        grant = choose(self, now)
        if grant is not None:
            grant.queue.start_tag = 0
            if grant.queue.entry:
                self._enter(grant.queue)
        return grant

    return Scheduler, "next", free


@bug("One task more than the limit may run at a time.")
def one_too_many() -> tuple[object, str, Any]:
    limits_of = limits.limits_of

    def generous(quota: Any, capacity: Any) -> Any:
        strict = limits_of(quota, capacity)
        return dataclasses.replace(strict, max_concurrent=strict.max_concurrent + 1)

    return tenants, "limits_of", generous


@bug("A submission is acknowledged before it is committed.")
def acknowledged_before_the_commit() -> tuple[object, str, Any]:
    put = committer.Committer.put

    def early(self: Any, unit: Any, done: Any, **options: Any) -> None:
        if any(isinstance(change, RunCreated) for change in unit):
            done(COMMITTED)
            put(self, unit, lambda answer: None, **options)
        else:
            put(self, unit, done, **options)

    return committer.Committer, "put", early


@bug("An idempotency key is not recorded.")
def key_not_recorded() -> tuple[object, str, Any]:
    put = committer.Committer.put

    def keyless(self: Any, unit: Any, done: Any, **options: Any) -> None:
        stripped = [
            msgspec.structs.replace(change, idempotency_key=None) if isinstance(change, RunCreated) else change
            for change in unit
        ]
        put(self, stripped, done, **options)

    return committer.Committer, "put", keyless


@bug("A change of quota does not reach the scheduler.")
def quota_change_ignored() -> tuple[object, str, Any]:
    add = queue_tree.QueueTree.add_tenant

    def first_only(self: Any, tenant_id: str, **given: Any) -> None:
        if tenant_id not in self._members:
            add(self, tenant_id, **given)

    return queue_tree.QueueTree, "add_tenant", first_only


@bug("A suspended tenant goes on starting tasks.")
def suspension_ignored() -> tuple[object, str, Any]:
    return queue_tree.QueueTree, "pause", lambda self, tenant_id: None


@bug("A task that goes on although it was stopped gives its slot to another one.")
def slot_given_away() -> tuple[object, str, Any]:
    abandon = attempts.Attempts._abandon

    def hasty(self: Any, attempt: Any, outcome: Any, *rest: Any) -> None:
        abandon(self, attempt, outcome, *rest)
        if id(attempt) in self.under_way:
            self._leave(attempt)

    return attempts.Attempts, "_abandon", hasty


@bug("What a task reports after it was given up is recorded as its result.")
def late_result_recorded() -> tuple[object, str, Any]:
    ended = attempts.Attempts._ended

    def recorded(self: Any, attempt: Any, outcome: Any) -> None:
        if attempt.settled and id(attempt) in self.under_way and isinstance(outcome, Succeeded):
            context, now = attempt.context, self._clock.now()
            finished = TaskFinished(
                context.run_id,
                context.task_id,
                context.tenant_id,
                ExecutionStatus.SUCCESS,
                attempt.number,
                attempt.started_at,
                now,
                outcome.result,
                None,
            )
            self._runs._committer.put([finished], lambda answer: None)
        ended(self, attempt, outcome)

    return attempts.Attempts, "_ended", recorded


@bug("An outcome that is reported twice frees two slots.")
def second_report_counts() -> tuple[object, str, Any]:
    ended = attempts.Attempts._ended

    def twice(self: Any, attempt: Any, outcome: Any) -> None:
        if id(attempt) not in self.under_way:
            attempt.grant.queue.running -= 1
        ended(self, attempt, outcome)

    return attempts.Attempts, "_ended", twice


@bug("After a restart retries do not wait for their delay.")
def delay_forgotten() -> tuple[object, str, Any]:
    restore = recovery.Recovery._restore_attempts

    def impatient(self: Any, *given: Any) -> dict[int, int]:
        restore(self, *given)
        return {}

    return recovery.Recovery, "_restore_attempts", impatient


@bug("A submission whose commit reported an error is forgotten although it was done.")
def ghost_submission() -> tuple[object, str, Any]:
    return doubts.Doubts, "add", lambda self, row, version: None


@bug("A change of a tenant whose commit reported an error is forgotten although it was done.")
def forgotten_plan_change() -> tuple[object, str, Any]:
    async def satisfied(self: Any, tenant_id: str) -> None:
        """Look at nothing."""

    return tenants.Tenants, "_look", satisfied


@bug("A clock that is set back is followed.")
def clock_followed_back() -> tuple[object, str, Any]:
    return clock.SteadyClock, "now", lambda self: self._shown()


@bug("The rest of a backlog is never read once the window is half empty.")
def window_not_filled() -> tuple[object, str, Any]:
    return window.Window, "_fill_soon", lambda self, part: None


@bug("A task that is cancelled while it waits starts all the same.")
def cancelled_task_starts() -> tuple[object, str, Any]:
    return live.LiveRun, "wants", lambda self, position: True


@bug("Results are told before they are committed.")
def told_before_the_commit() -> tuple[object, str, Any]:
    put = open_runs.OpenRuns.put

    def early(self: Any, run: Any, unit: Any, done: Any) -> None:
        if isinstance(done, partial) and done.func.__name__ == "_settled" and done.args[3] is not None:
            done(COMMITTED)
            put(self, run, unit, lambda answer: None)
        else:
            put(self, run, unit, done)

    return open_runs.OpenRuns, "put", early


BUGS += planted_tolerance.BUGS
