"""What must hold, checked at every start, report and commit, and when everything has come to rest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from synergymesh.domain.fault_tolerance.retry import RetryPolicy
from synergymesh.domain.instants import Instant
from synergymesh.domain.payload import decode
from synergymesh.domain.scheduling.queue_views import TenantView
from synergymesh.domain.states import ExecutionStatus
from synergymesh.engine.live import Attempt
from synergymesh.ports.changes import Unit
from synergymesh.ports.executor import Call
from synergymesh.ports.records import AttemptRecord, CommitResult, RunRecord, TaskRecord
from synergymesh.ports.store import Store
from synergymesh.ports.task_context import TaskContext
from synergymesh.testing.reference import interpret
from synergymesh.testing.simulation.breaking import Breaking
from synergymesh.testing.simulation.history import History, RunHistory, is_required, succeeded
from synergymesh.testing.simulation.holds import Holds
from synergymesh.testing.simulation.keeping import Keeping
from synergymesh.testing.simulation.options import Options
from synergymesh.testing.simulation.rerunning import Rerunning
from synergymesh.testing.simulation.retrying import Retrying
from synergymesh.testing.simulation.sagas import Sagas
from synergymesh.testing.simulation.timing import Timing
from synergymesh.testing.simulation.usage import Token, Usage, token_of

STARTED = (ExecutionStatus.SUCCESS, ExecutionStatus.FAILED, ExecutionStatus.TIMEOUT)
PAGE_RUNS = 500


class Checker:
    """Check the invariants.

    Args:
        fail: is called with the invariant and what broke it; does not return.
        now: gives the seconds of the world.
        options: of the world.
        default: the retry policy of tasks that have none.
        has_mean_budget: whether the breakers of the world let few retries through.

    Attributes:
        history: what was recorded.
        usage: what runs.
        holds: what is suspended and paused.
        timing: when what started.
        breaking: which circuits are open.
        sagas: what has to be undone.
        rerunning: what goes on from what.
        keeping: how long what is kept.
        effects: how often each attempt left its side effect.
    """

    def __init__(
        self,
        fail: Callable[[str, str], None],
        now: Callable[[], float],
        options: Options,
        default: RetryPolicy,
        *,
        has_mean_budget: bool,
    ) -> None:
        self.history = history = History(fail)
        self.usage = Usage(history, fail, options.slots)
        self.holds = Holds(history, fail)
        self.timing = Timing(history, fail, now, options)
        self.breaking = Breaking(history, fail, has_mean_budget=has_mean_budget)
        self.sagas = Sagas(history, fail)
        self.rerunning = Rerunning(history, fail)
        self.keeping = Keeping(history, fail)
        self.effects: dict[Token, int] = defaultdict(int)
        self._fail = fail
        Retrying(history, fail, default)

    def handed(self, call: Attempt) -> None:
        """Check that an attempt may start (I3, I6)."""
        excused = self.holds.excuses(token_of(call))
        if not excused:
            self.holds.handed(call)
        self.usage.handed(call, call.started_at, excused=excused)
        self.timing.handed(call)
        self.breaking.handed(call)

    def committed(self, units: Sequence[Unit], results: Sequence[CommitResult]) -> None:
        """Check a commit (I2, I3, I8)."""
        self.history.committed(units, results)

    # --- attempts ---------------------------------------------------------------------------------------------------

    def begins(self, context: TaskContext, used: tuple[Any, ...], now: Instant) -> None:
        """Check that an attempt may do what it does: once (I3), not again (I4), on committed results (I5)."""
        token = (context.run_id, context.task_id, context.attempt)
        self.effects[token] += 1
        if self.effects[token] > 1:
            self._fail("I3", f"{token} has its side effect twice")
        run = self.history.runs.get(context.run_id)
        if run is None:
            self._fail("I1", f"{context.run_id} runs and is not recorded")
            return
        if context.task_id in run.ended:
            self._fail("I4", f"{token} runs although its task ended as {run.ended[context.task_id].status}")
        if run.end is not None:
            self._fail("I4", f"{token} runs although its run ended")
        if (context.task_id, context.attempt) in run.failed:
            self._fail("I3", f"{token} runs although it is recorded that it failed")
        component = run.components[context.task_id]
        self.sagas.begins(run, context)
        for dependency in component.dependencies:
            ended = run.ended.get(dependency.component_id)
            if ended is None:
                self._fail("I5", f"{token} runs although {dependency.component_id} is not recorded")
            elif is_required(run, component, dependency.component_id) and not succeeded(ended):
                self._fail("I5", f"{token} runs although {dependency.component_id} is {ended.status}")
        for value in used:
            if value is not None and decode(run.ended[value["task"]].result or b"") != value:
                self._fail("I5", f"{token} uses {value}, which is not what is recorded")
        for (component_id, _), failed in run.failed.items():
            if component_id == context.task_id and failed.retry_at > now:
                self._fail("I5", f"{token} runs {(failed.retry_at - now) / 1e9:g} s before its delay is over")

    # --- usage ------------------------------------------------------------------------------------------------------

    def rests(self, views: Sequence[TenantView], chosen: Sequence[Call]) -> None:
        """Check, while nothing happens, that what the scheduler counts is what runs (I7)."""
        waiting: dict[str, int] = defaultdict(int)
        for call in chosen:
            for member in self.history.family(call.context.tenant_id):
                waiting[member] += 1
        for view in views:
            running, memory_mb = self.usage.used(view.tenant_id)
            if view.running != running + waiting[view.tenant_id]:
                self._fail(
                    "I7",
                    f"{view.running} slots of {view.tenant_id} are taken, {running} tasks run and "
                    f"{waiting[view.tenant_id]} are about to",
                )
            if not waiting[view.tenant_id] and view.used.memory_mb != memory_mb:
                self._fail("I7", f"{view.used.memory_mb} MiB of {view.tenant_id} are taken, and {memory_mb} used")

    def is_quiet(self, views: Sequence[TenantView]) -> None:
        """Check that nothing is taken and nothing waits when all runs are final (I7)."""
        for view in views:
            if view.running or view.used != (0, 0, 0):
                self._fail("I7", f"{view.tenant_id} uses {view.used} although nothing runs")
        if self.usage.under_way:
            self._fail("I7", f"{list(self.usage.under_way)} run although everything is final")

    # --- the end ----------------------------------------------------------------------------------------------------

    async def compare_with(self, store: Store) -> None:
        """Check that the store has what was recorded, no more and no less (I1, I2, I3)."""
        runs = await _all_runs(store)
        history = self.history
        alive = {
            run_id: run
            for run_id, run in history.runs.items()
            if run.created.tenant_id not in history.deleted and run_id not in history.pruned
        }
        missing = alive.keys() - runs.keys()
        if missing:
            self._fail("I1", f"{sorted(missing)} were recorded, and are gone")
        if runs.keys() - alive.keys():
            self._fail("I2", f"{sorted(runs.keys() - alive.keys())} are there, and nobody recorded them")
        tasks: dict[str, list[TaskRecord]] = defaultdict(list)
        attempts: dict[str, list[AttemptRecord]] = defaultdict(list)
        ids = list(runs)
        for begin in range(0, len(ids), PAGE_RUNS):
            for task in await store.list_tasks(ids[begin : begin + PAGE_RUNS]):
                tasks[task.run_id].append(task)
            for attempt in await store.list_attempts(ids[begin : begin + PAGE_RUNS]):
                attempts[attempt.run_id].append(attempt)
        for run_id, record in runs.items():
            self._compare_run(alive[run_id], record, tasks[run_id], attempts[run_id])

    def _compare_run(
        self, run: RunHistory, record: RunRecord, tasks: Sequence[TaskRecord], attempts: Sequence[AttemptRecord]
    ) -> None:
        run_id = record.run_id
        if run.end is None:
            if record.status.is_final:
                self._fail("I2", f"{run_id} is {record.status}, and nobody recorded that")
        elif (record.status, record.result) != (run.end.status, run.end.result):
            self._fail("I2", f"{run_id} was recorded as {run.end.status}, and is {record.status}")
        ended = {task.component_id: task for task in tasks if task.status.is_final}
        for component_id, finished in run.ended.items():
            found = ended.pop(component_id, None)
            if found is None:
                self._fail("I2", f"{run_id}/{component_id} was recorded as {finished.status}, and is not final")
            elif (found.status, found.attempt, found.result) != (finished.status, finished.attempt, finished.result):
                self._fail("I2", f"{run_id}/{component_id} was {finished.status}, and is {found.status}")
        if ended:
            self._fail("I2", f"{run_id}: {sorted(ended)} are final, and nobody recorded that")
        if {(each.component_id, each.number) for each in attempts} != run.failed.keys():
            self._fail("I3", f"{run_id} does not have the failed attempts that were recorded")
        for finished in run.ended.values():
            token = (run_id, finished.component_id, finished.attempt)
            if finished.component_id in run.reused:
                continue
            if finished.status is ExecutionStatus.SUCCESS and not self.effects[token]:
                self._fail("I2", f"{token} succeeded, and never ran")
        if run.end is not None:
            is_undone = not self.sagas.check_end(run)
            if run.end.status is not ExecutionStatus.CANCELLED:
                self._compare_with_reference(run, is_undone=is_undone)

    def _compare_with_reference(self, run: RunHistory, *, is_undone: bool) -> None:
        """Check that the ends of the tasks, and that of the run, follow from those that were started (I5)."""
        main = {each.component_id for each in run.definition.components}
        statuses = {component_id: end.status for component_id, end in run.ended.items() if component_id in main}
        if ExecutionStatus.CANCELLED in statuses.values():
            return
        outcomes = {
            component_id: status if status in STARTED else ExecutionStatus.SUCCESS
            for component_id, status in statuses.items()
        }
        expected = interpret(run.definition, outcomes)
        assert run.end is not None
        status = expected.status if is_undone else ExecutionStatus.FAILED
        if run.end.status is ExecutionStatus.TIMEOUT and status is ExecutionStatus.FAILED and _has_limits(run):
            status = run.end.status
        if expected.tasks != statuses or status is not run.end.status:
            self._fail("I5", f"{run.created.run_id} ended as {run.end.status} with {statuses}, not as {expected}")


async def _all_runs(store: Store) -> dict[str, RunRecord]:
    runs: dict[str, RunRecord] = {}
    before: str | None = None
    while page := await store.list_runs(tenant_id=None, before=before, limit=PAGE_RUNS):
        runs.update({record.run_id: record for record in page})
        before = page[-1].run_id
    return runs


def _has_limits(run: RunHistory) -> bool:
    """Tell whether a run can end because its time is over."""
    return run.definition.timeout is not None or run.definition.queue_timeout is not None
