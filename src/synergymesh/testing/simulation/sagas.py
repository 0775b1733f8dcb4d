"""Whether what a run committed is undone when it has to be: each task once, the latest first, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

from synergymesh.domain.states import ExecutionStatus
from synergymesh.domain.workflow.definition import UNDO
from synergymesh.ports.changes import Change, TaskFinished
from synergymesh.ports.task_context import TaskContext
from synergymesh.testing.simulation.history import History, RunHistory, succeeded

DONE_WELL = (ExecutionStatus.SUCCESS, ExecutionStatus.PARTIAL)


class Sagas:
    """Check that compensations begin and end as they must.

    Attributes:
        abandoned: tenants whose deletion was asked for with force: what their runs did is not undone.
    """

    def __init__(self, history: History, fail: Callable[[str, str], None]) -> None:
        self.abandoned: set[str] = set()
        self._history = history
        self._fail = fail
        history.heard.append(self._heard)

    def _heard(self, change: Change) -> None:
        """Check that the recorded moments say in which order tasks were committed: what came later is undone first."""
        if not isinstance(change, TaskFinished) or change.status is not ExecutionStatus.SUCCESS:
            return
        run = self._history.runs[change.run_id]
        for component_id in run.undo:
            before = run.ended.get(component_id)
            if before is None or before is change or not succeeded(before):
                continue
            if before.ended_at >= change.ended_at:
                self._fail("saga", f"{change.run_id}/{change.component_id} says that it ended before {component_id}")

    def begins(self, run: RunHistory, context: TaskContext) -> None:
        """Check that something may be undone now."""
        if not context.task_id.startswith(UNDO):
            return
        name = f"{context.run_id}/{context.task_id}"
        done = context.task_id.removeprefix(UNDO)
        for component in run.definition.components:
            if component.component_id not in run.ended:
                self._fail("saga", f"{name} runs although {component.component_id} has not ended")
        if not succeeded(run.ended[done]):
            self._fail("saga", f"{name} runs although {done} is {run.ended[done].status}")
        for later in self._committed(run)[self._committed(run).index(done) + 1 :]:
            undone = run.ended.get(run.undo[later])
            if undone is None or not succeeded(undone):
                self._fail("saga", f"{name} runs although {later} was committed after {done} and is not undone")

    def check_end(self, run: RunHistory) -> bool:
        """Check what was undone of a run that is final; tell whether some of it could not be."""
        assert run.end is not None
        committed = self._committed(run)
        undone = {done: run.ended.get(run.undo[done]) for done in committed}
        known = {done: each for done, each in undone.items() if each is not None}
        name = run.created.run_id
        if len(known) != sum(1 for each in run.undo.values() if each in run.ended):
            self._fail("saga", f"{name} undid something that was not committed")
        if run.end.status in DONE_WELL:
            if known:
                self._fail("saga", f"{name} ended as {run.end.status}, and {list(known)} are undone")
            return False
        if run.created.tenant_id in self.abandoned:
            return any(not succeeded(each) for each in known.values())
        failed = False
        for done in reversed(committed):
            end = known.get(done)
            if end is None:
                self._fail("saga", f"{name} ended as {run.end.status}, and {done} is not undone")
                continue
            if failed and end.status is not ExecutionStatus.SKIPPED:
                self._fail("saga", f"{name}/{end.component_id} is {end.status} after one that could not be undone")
            failed = failed or not succeeded(end)
        return failed

    def _committed(self, run: RunHistory) -> list[str]:
        """Give the tasks that can be undone and were committed, the earliest first."""
        return [each for each, end in run.ended.items() if each in run.undo and succeeded(end)]
