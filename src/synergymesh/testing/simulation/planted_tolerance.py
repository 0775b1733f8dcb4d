"""Bugs on purpose in what follows when something fails: pauses, retries, circuits, limits of time, compensation."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec

from synergymesh.domain.fault_tolerance import retry, retry_budget, tries
from synergymesh.domain.fault_tolerance.breaker import BreakerState
from synergymesh.domain.fault_tolerance.tries import Cause
from synergymesh.domain.workflow import run_state
from synergymesh.engine import attempts, circuits, housekeeping, live, open_runs, recovery
from synergymesh.engine.control import dead_letters, pausing, reruns
from synergymesh.engine.timing import time_limits
from synergymesh.ports.changes import AttemptFailed
from synergymesh.testing.simulation.planting import PlantedBug, register

BUGS: list[PlantedBug] = []

bug = partial(register, BUGS)

# --- pauses -----------------------------------------------------------------------------------------------------------


@bug("What is paused goes on starting tasks.")
def pause_ignored() -> tuple[object, str, Any]:
    return pausing.Pausing, "_hold", lambda self, tenant_id, runs: None


@bug("A restart forgets which workflows are paused.")
def pause_forgotten() -> tuple[object, str, Any]:
    async def load(self: Any) -> None:
        """Load nothing."""

    return pausing.Pausing, "load", load


@bug("What was held is lost when it is let go.")
def held_for_ever() -> tuple[object, str, Any]:
    def lose(self: Any, runs: Any) -> None:
        for run in runs:
            run.held = None

    return pausing.Pausing, "_let_go", lose


# --- retries ----------------------------------------------------------------------------------------------------------


def _counted_as(cause: Cause, wrong: Cause) -> tuple[object, str, Any]:
    add = tries.Tries.add
    return tries.Tries, "add", lambda self, of, started_at: add(self, wrong if of is cause else of, started_at)


@bug("A task that asks for a later attempt uses up a retry.")
def postponement_is_failure() -> tuple[object, str, Any]:
    return _counted_as(Cause.POSTPONED, Cause.FAILURE)


@bug("A lost worker uses up a retry of the task.")
def loss_is_failure() -> tuple[object, str, Any]:
    return _counted_as(Cause.LOST, Cause.FAILURE)


@bug("A task that gives up is tried again.")
def giving_up_ignored() -> tuple[object, str, Any]:
    def refusal(policy: Any, error: Any, failures: int) -> Any:
        return retry.Ending.EXHAUSTED if failures >= policy.max_retries else None

    return retry, "_refusal", refusal


@bug("A task that asks for a later attempt gets it at once.")
def postponement_at_once() -> tuple[object, str, Any]:
    decide = retry.decide

    def hasty(policy: Any, outcome: Any, **given: Any) -> Any:
        verdict = decide(policy, outcome, **given)
        if verdict.error is not None and verdict.error.retry_after is not None:
            return msgspec.structs.replace(verdict, not_before=min(verdict.not_before, given["now"]))
        return verdict

    return open_runs, "decide", hasty


@bug("A task gets one retry more than its policy allows.")
def one_retry_more() -> tuple[object, str, Any]:
    decide = retry.decide
    return open_runs, "decide", lambda *a, failures, **given: decide(*a, failures=max(0, failures - 1), **given)


# --- limits of time ---------------------------------------------------------------------------------------------------


@bug("The time of a task in all begins anew with each attempt.")
def total_begins_anew() -> tuple[object, str, Any]:
    offered = time_limits.TimeLimits.offered

    def anew(self: Any, run: Any, positions: Any, at: int) -> None:
        if run.limits is not None:
            for position in positions:
                run.limits.ready_at.pop(position, None)
                deadline = run.limits.tasks.pop(position, None)
                if deadline is not None:
                    deadline.cancel()
        offered(self, run, positions, at)

    return time_limits.TimeLimits, "offered", anew


@bug("A restart gives every run its whole time again.")
def run_time_begins_anew() -> tuple[object, str, Any]:
    begin = time_limits.TimeLimits._begin

    def anew(self: Any, run: Any, live_limits: Any, started_at: int) -> None:
        begin(self, run, live_limits, self._clock.now())

    return time_limits.TimeLimits, "_begin", anew


@bug("The time of a task takes as long as the clock was set back before a start.")
def clock_set_back_is_waited_for() -> tuple[object, str, Any]:
    restore = time_limits.TimeLimits.restore

    def trusting(self: Any, run: Any, tasks: Any) -> None:
        restore(self, run, tasks)
        if run.limits is None:
            return
        plan = run.version.plan
        ended = {plan.positions[task.component_id]: task.ended_at or 0 for task in tasks}
        for position in run.limits.ready_at:
            needs = [plan.positions[each.component_id] for each in plan.components[position].dependencies]
            earliest = max(run.created_at, run.not_before)
            run.limits.ready_at[position] = max(earliest, *(ended.get(each, 0) for each in needs), 0)

    return time_limits.TimeLimits, "restore", trusting


@bug("Heartbeats are not listened to.")
def deaf_to_silence() -> tuple[object, str, Any]:
    return attempts.Attempts, "_listen", lambda self, *given: None


@bug("Heartbeats do not count: every attempt is silent.")
def deaf_to_heartbeats() -> tuple[object, str, Any]:
    listen = attempts.Attempts._listen

    def deaf(self: Any, attempt: Any, seconds: float, beats: int, *rest: Any) -> None:
        listen(self, attempt, seconds, attempt.context.beats, *rest)

    return attempts.Attempts, "_listen", deaf


@bug("A run that has waited for too long starts all the same.")
def queue_timeout_ignored() -> tuple[object, str, Any]:
    return time_limits.TimeLimits, "_run_waited", lambda self, run, seconds: None


# --- circuits ---------------------------------------------------------------------------------------------------------


def _permitting(state: BreakerState) -> tuple[object, str, Any]:
    apply = circuits.Circuits._apply

    def lax(self: Any, circuit: Any) -> None:
        apply(self, circuit)
        if circuit.breaker.state is state:
            self._scheduler.permit(circuit.tenant_id, circuit.key, 1_000)

    return circuits.Circuits, "_apply", lax


@bug("An open circuit holds nothing back.")
def open_circuit_ignored() -> tuple[object, str, Any]:
    return _permitting(BreakerState.OPEN)


@bug("A circuit that is tried lets everything in.")
def everybody_is_a_canary() -> tuple[object, str, Any]:
    return _permitting(BreakerState.HALF_OPEN)


@bug("A restart forgets which circuits are open.")
def circuit_forgotten() -> tuple[object, str, Any]:
    async def load(self: Any) -> None:
        """Load nothing."""

    return circuits.Circuits, "load", load


@bug("A circuit stays open: nobody tries again.")
def circuit_never_tried() -> tuple[object, str, Any]:
    return circuits.Circuits, "_try_again", lambda self, circuit: None


@bug("Retries that the budget does not cover do not wait.")
def budget_ignored() -> tuple[object, str, Any]:
    return retry_budget.RetryBudget, "retry_at", lambda self, now, latest=None: now


# --- compensation -----------------------------------------------------------------------------------------------------


@bug("What is undone is undone in the order in which it was done.")
def undone_in_order() -> tuple[object, str, Any]:
    begin = run_state.RunState.begin_compensation

    def forwards(self: Any) -> Any:
        self.committed = (self.committed or [])[::-1]
        return begin(self)

    return run_state.RunState, "begin_compensation", forwards


@bug("A restart forgets what was undone: it is undone twice.")
def undone_twice() -> tuple[object, str, Any]:
    restore = live.LiveRun.restore

    def forgetful(self: Any, task: Any) -> None:
        restore(self, task)
        self.state.compensated.clear()

    return live.LiveRun, "restore", forgetful


@bug("What a cancelled run did is not undone.")
def cancelled_is_not_undone() -> tuple[object, str, Any]:
    follows = open_runs.OpenRuns._what_follows

    def nothing(self: Any, run: Any, now: int) -> Any:
        if run.cancelling and not run.state.compensating:
            return [], self._end(run, now)
        return follows(self, run, now)

    return open_runs.OpenRuns, "_what_follows", nothing


@bug("Undoing begins while tasks of the run still run.")
def undone_too_early() -> tuple[object, str, Any]:
    settle = run_state.RunState.settle

    def early(self: Any, position: int, status: Any, result: bytes | None = None) -> Any:
        ready, skipped = settle(self, position, status, result)
        if self.committed and self._untolerated_failure and not self.compensating and position < self.plan.size:
            ready = [*ready, self.plan.undo[self.committed[-1]]]
        return ready, skipped

    return run_state.RunState, "settle", early


# --- runs that go on from others, and what is kept --------------------------------------------------------------------


@bug("A retry uses no result again.")
def nothing_is_reused() -> tuple[object, str, Any]:
    async def nothing(self: Any, record: Any) -> list[Any]:
        return []

    return reruns.Reruns, "_reusable", nothing


@bug("A retry uses what was undone.")
def undone_is_reused() -> tuple[object, str, Any]:
    async def everything(self: Any, record: Any) -> list[Any]:
        tasks = await self._store.list_tasks([record.run_id], record.tenant_id)
        plan = (await self._versions.load(record.content_hash)).plan
        return [t for t in tasks if t.status == "success" and plan.positions[t.component_id] < plan.size]

    return reruns.Reruns, "_reusable", everything


@bug("A dead letter is said to be discarded before it is.")
def discarded_in_memory() -> tuple[object, str, Any]:
    async def discard(self: Any, dead_letter_id: str, reason: object, tenant_id: str | None) -> Any:
        return await self.get(dead_letter_id, tenant_id)

    return dead_letters.DeadLetters, "discard", discard


@bug("Runs are pruned before their time.")
def pruned_too_early() -> tuple[object, str, Any]:
    return housekeeping, "ended_before", lambda now, days: now


@bug("A restart forgets which workers were lost: a task that kills its worker is tried for ever.")
def losses_forgotten() -> tuple[object, str, Any]:
    restore = recovery.Recovery._restore_attempts

    def forgetful(self: Any, run: Any, rows: Any, now: int) -> Any:
        return restore(self, run, [row for row in rows if not _is_loss(row)], now)

    return recovery.Recovery, "_restore_attempts", forgetful


def _is_loss(row: AttemptFailed) -> bool:
    return row.status == "cancelled" and row.error is not None
