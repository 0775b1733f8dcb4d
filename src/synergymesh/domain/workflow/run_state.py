"""The state of one run: which tasks may start, which are skipped, and how the run ends."""

from __future__ import annotations

from synergymesh.domain.states import TASK_TRANSITIONS, ExecutionStatus
from synergymesh.domain.workflow.plan import Plan

PENDING = ExecutionStatus.PENDING
RUNNING = ExecutionStatus.RUNNING
RETRYING = ExecutionStatus.RETRYING
SUCCESS = ExecutionStatus.SUCCESS
SKIPPED = ExecutionStatus.SKIPPED
CANCELLED = ExecutionStatus.CANCELLED


class RunState:
    """Follow the tasks of a run through their states.

    A task may start once each of its dependencies is settled, and every required one succeeded. When a task does not
    succeed, the tasks that require it are skipped, and those that require them; all others go on.

    Attributes:
        statuses: the state of each task by position.
        open_tasks: how many are not final.
        results: JSON by position, of those whose users are not all settled yet.
        committed: the tasks that succeeded and can be undone, in that order; None if there can be none.
        compensating: whether undoing has begun.
        compensations: what is left to be undone, the next one last.
        compensated: what was undone in an earlier life of the process, or in an earlier run.
        compensation_failed: whether something could not be undone.
    """

    __slots__ = (
        "_open_dependencies",
        "_tolerated_failure",
        "_untolerated_failure",
        "_uses",
        "committed",
        "compensated",
        "compensating",
        "compensation_failed",
        "compensations",
        "open_tasks",
        "plan",
        "results",
        "statuses",
    )

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.statuses = [PENDING] * len(plan.component_ids)
        self.open_tasks = plan.size
        self.results: dict[int, bytes] = {}
        self._open_dependencies = plan.open_dependencies.copy()
        self._uses = plan.uses.copy()
        self.committed: list[int] | None = [] if plan.undo else None
        self.compensations: list[int] = []
        self.compensated: set[int] = set()
        self.compensating = False
        self.compensation_failed = False
        self._tolerated_failure = False
        self._untolerated_failure = False

    def move(self, position: int, status: ExecutionStatus) -> None:
        """Note a transition that leaves the task open: running, retrying, pending again."""
        assert status in TASK_TRANSITIONS[self.statuses[position]], (self.statuses[position], status)
        self.statuses[position] = status

    def settle(
        self, position: int, status: ExecutionStatus, result: bytes | None = None
    ) -> tuple[list[int], list[int]]:
        """Note a task's final state.

        Returns:
            the positions that may start because of it, and those that are skipped because of it.
        """
        plan = self.plan
        if position >= plan.size:
            return self._settle_compensation(position, status)
        ready: list[int] = []
        skipped: list[int] = []
        statuses = self.statuses
        open_dependencies = self._open_dependencies
        if result is not None and self._uses[position]:
            self.results[position] = result
        self._finish(position, status)
        if self.committed is not None and status is SUCCESS and position in plan.undo:
            self.committed.append(position)
        settled = [position]
        while settled:
            position = settled.pop()
            status = statuses[position]
            succeeded = status is SUCCESS
            if not succeeded and status is not SKIPPED:
                if plan.tolerated[position]:
                    self._tolerated_failure = True
                else:
                    self._untolerated_failure = True
            for source in plan.sources[position]:
                self._use(source)
            for dependent, required in plan.dependents[position]:
                open_dependencies[dependent] -= 1
                if statuses[dependent] is not PENDING:
                    continue
                if required and not succeeded:
                    self._finish(dependent, SKIPPED)
                    skipped.append(dependent)
                    settled.append(dependent)
                elif not open_dependencies[dependent]:
                    ready.append(dependent)
        return ready, skipped

    def begin_compensation(self) -> list[int]:
        """Begin to undo what is committed, the latest first; give the position that may start."""
        assert not self.open_tasks
        assert not self.compensating
        self.compensating = True
        self.compensations = [self.plan.undo[position] for position in self.committed or ()]
        self.open_tasks = len(self.compensations)
        while self.compensations and self.compensations[-1] in self.compensated:
            self.statuses[self.compensations.pop()] = SUCCESS
            self.open_tasks -= 1
        return self.compensations[-1:]

    def _settle_compensation(self, position: int, status: ExecutionStatus) -> tuple[list[int], list[int]]:
        """Note how undoing ended: the next one may start, or, if it failed, the rest is left undone."""
        self._finish(position, status)
        if position in self.compensations:
            self.compensations.remove(position)
        if status is SUCCESS:
            return self.compensations[-1:], []
        self.compensation_failed = status is not CANCELLED
        skipped, self.compensations = self.compensations[::-1], []
        for left in skipped:
            self._finish(left, SKIPPED)
        return [], skipped

    def startable(self) -> list[int]:
        """Give the tasks that wait for nothing but their turn; for a state that was rebuilt."""
        found = [
            position
            for position, count in enumerate(self._open_dependencies)
            if not count and (self.statuses[position] is PENDING or self.statuses[position] is RETRYING)
        ]
        return found + [
            p for p in self.compensations[-1:] if self.statuses[p] is PENDING or self.statuses[p] is RETRYING
        ]

    def blocked(self) -> list[int]:
        """Give the tasks that wait for others to end."""
        found = [
            position
            for position, count in enumerate(self._open_dependencies)
            if count and self.statuses[position] is PENDING
        ]
        return found + self.compensations[-2::-1]

    def cancel_waiting(self, *, compensations: bool = False) -> list[int]:
        """Cancel every task that neither runs nor is final; give their positions. What undoes, only if that is said."""
        candidates = [*range(self.plan.size), *(self.compensations if compensations else ())]
        statuses = self.statuses
        waiting = [p for p in candidates if statuses[p] is PENDING or statuses[p] is RETRYING]
        for position in waiting:
            self._finish(position, CANCELLED)
        if compensations:
            self.compensations = [p for p in self.compensations if statuses[p] is not CANCELLED]
        return waiting

    def _finish(self, position: int, status: ExecutionStatus) -> None:
        assert status in TASK_TRANSITIONS[self.statuses[position]], (self.statuses[position], status)
        self.statuses[position] = status
        self.open_tasks -= 1

    def _use(self, source: int) -> None:
        self._uses[source] -= 1
        if not self._uses[source]:
            self.results.pop(source, None)

    def outcome(self, *, cancelled: bool) -> ExecutionStatus:
        """Give the state in which the run ends; only meaningful when no task is open."""
        if self.compensation_failed:
            return ExecutionStatus.FAILED
        if cancelled and CANCELLED in self.statuses:
            return CANCELLED
        if self._untolerated_failure:
            return ExecutionStatus.FAILED
        if self._tolerated_failure:
            return ExecutionStatus.PARTIAL
        return SUCCESS
