"""The state of one run: which tasks may start, which are skipped, and how the run ends."""

from __future__ import annotations

from synergymesh.domain.plan import Plan
from synergymesh.domain.states import TASK_TRANSITIONS, ExecutionStatus

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
    """

    __slots__ = (
        "_open_dependencies",
        "_tolerated_failure",
        "_untolerated_failure",
        "_uses",
        "open_tasks",
        "plan",
        "results",
        "statuses",
    )

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.statuses = [PENDING] * plan.size
        self.open_tasks = plan.size
        self.results: dict[int, bytes] = {}
        self._open_dependencies = plan.open_dependencies.copy()
        self._uses = plan.uses.copy()
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
        ready: list[int] = []
        skipped: list[int] = []
        plan = self.plan
        statuses = self.statuses
        open_dependencies = self._open_dependencies
        if result is not None and self._uses[position]:
            self.results[position] = result
        self._finish(position, status)
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

    def startable(self) -> list[int]:
        """Give the tasks that wait for nothing but their turn; for a state that was rebuilt."""
        return [
            position
            for position, count in enumerate(self._open_dependencies)
            if not count and (self.statuses[position] is PENDING or self.statuses[position] is RETRYING)
        ]

    def blocked(self) -> list[int]:
        """Give the tasks that wait for others to end."""
        return [
            position
            for position, count in enumerate(self._open_dependencies)
            if count and self.statuses[position] is PENDING
        ]

    def cancel_waiting(self) -> list[int]:
        """Cancel every task that neither runs nor is final; give their positions."""
        waiting = [p for p, status in enumerate(self.statuses) if status is PENDING or status is RETRYING]
        for position in waiting:
            self._finish(position, CANCELLED)
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
        if cancelled and CANCELLED in self.statuses:
            return CANCELLED
        if self._untolerated_failure:
            return ExecutionStatus.FAILED
        if self._tolerated_failure:
            return ExecutionStatus.PARTIAL
        return SUCCESS
