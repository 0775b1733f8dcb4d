"""Whether runs that go on from others use again what these committed, and nothing that was undone."""

from __future__ import annotations

from collections.abc import Callable

from synergymesh.domain.states import ExecutionStatus
from synergymesh.testing.simulation.history import History, RunHistory, succeeded

DEAD = (ExecutionStatus.FAILED, ExecutionStatus.TIMEOUT)


class Rerunning:
    """Check what a retry begins with (I4)."""

    def __init__(self, history: History, fail: Callable[[str, str], None]) -> None:
        self._history = history
        self._fail = fail
        self._anew: set[str] = set()
        self._wanted: dict[str, bool] = {}
        history.entered.append(self._entered)

    def asks(self, run_id: str, *, from_failed: bool) -> None:
        """Expect that a run may be retried: from where it failed, or anew. Who asked for both gets either."""
        if self._wanted.setdefault(run_id, from_failed) is not from_failed:
            self._anew.add(run_id)

    def _entered(self, run: RunHistory) -> None:
        """Check a run that goes on from another one."""
        old = self._history.runs.get(run.link.retry_of or "") if run.link is not None else None
        if old is None:
            return
        run_id = run.created.run_id
        if old.end is None:
            self._fail("I2", f"{run_id} goes on from {old.created.run_id}, which has not ended")
        undone = [old.ended.get(each) for each in old.undo.values()]
        known = [each for each in undone if each is not None]
        if old.created.run_id in self._anew or any(each.status in DEAD for each in known):
            return
        expected = self._reusable(old) if self._wanted.get(old.created.run_id, True) else set()
        reused = {each for each in run.reused if each in old.ended}
        if reused != expected:
            self._fail("I4", f"{run_id} uses {sorted(reused)} of {old.created.run_id} again, not {sorted(expected)}")
        for component_id in reused:
            if run.ended[component_id].result != old.ended[component_id].result:
                self._fail("I4", f"{run_id} has another result of {component_id} than {old.created.run_id}")

    def _reusable(self, run: RunHistory) -> set[str]:
        """Give the tasks that are committed, not undone, and rest on nothing that is."""
        gone = {done for done, undo in run.undo.items() if undo in run.ended and succeeded(run.ended[undo])}
        for component in run.definition.components:  # those before it come first
            if any(each.component_id in gone for each in component.dependencies):
                gone.add(component.component_id)
        return {
            each.component_id
            for each in run.definition.components
            if each.component_id in run.ended and succeeded(run.ended[each.component_id])
        } - gone
