"""Whether what has ended is kept for as long as it has to be, and what failed is listed until somebody saw to it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from math import inf

from synergymesh.domain.instants import Instant, from_seconds
from synergymesh.domain.states import ExecutionStatus
from synergymesh.ports.records import Pruned
from synergymesh.testing.simulation.history import History

DAY_SECONDS = 86_400.0
DEAD = (ExecutionStatus.FAILED, ExecutionStatus.TIMEOUT)


class Keeping:
    """Follow what is pruned, and check it.

    Attributes:
        days: how long finished runs of a tenant may have to be kept, the shortest; 30 days unless it was changed.
    """

    def __init__(self, history: History, fail: Callable[[str, str], None]) -> None:
        self.days: dict[str, float] = defaultdict(lambda: inf)
        self._history = history
        self._fail = fail

    def pruned(self, run_ids: Iterable[str], step: Pruned, now: Instant) -> None:
        """Check what a step has deleted."""
        gone = set(run_ids) - set(step.left) - self._history.pruned
        for run_id in sorted(gone):
            run = self._history.runs[run_id]
            if run.end is None:
                self._fail("kept", f"{run_id} is pruned, and has not ended")
                continue
            days = self.days[run.created.tenant_id]
            if run.end.ended_at + (from_seconds(days * DAY_SECONDS) if days < inf else now) > now:
                self._fail("kept", f"{run_id} ended {(now - run.end.ended_at) / 1e9:g} s ago, and is pruned")
        self._history.forget(gone)

    def check_dead_letters(self, listed: set[str]) -> None:
        """Check that exactly the tasks are listed that failed for good and that nobody has seen to; all is final."""
        history = self._history
        expected = set()
        for run_id, run in history.runs.items():
            if run_id in history.pruned or run.created.tenant_id in history.deleted:
                continue
            retry = history.retries.get(run_id)
            if retry is not None and retry not in history.pruned:
                continue
            for component_id, end in run.ended.items():
                if end.status in DEAD and (run_id, component_id) not in history.discarded:
                    expected.add(f"{run_id}:{component_id}")
        if listed != expected:
            self._fail(
                "kept", f"dead letters: {sorted(listed - expected)} too many, {sorted(expected - listed)} missing"
            )
