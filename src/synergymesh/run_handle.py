"""What a submitter holds of a run: wait for it, follow it, cancel it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from synergymesh.domain.states import ExecutionStatus
from synergymesh.engine.observability.events import RunEvent

if TYPE_CHECKING:
    from synergymesh.orchestrator import Orchestrator


class RunHandle:
    """Refer to a run.

    Attributes:
        id: the run's id, `run-…`.
        tenant_id: whose run it is.
    """

    __slots__ = ("_mesh", "id", "tenant_id")

    def __init__(self, mesh: Orchestrator, run_id: str, tenant_id: str) -> None:
        self._mesh = mesh
        self.id = run_id
        self.tenant_id = tenant_id

    def __repr__(self) -> str:
        return f"RunHandle({self.id!r})"

    async def result(self, timeout: float | None = None) -> Any:  # noqa: ASYNC109 - the name that callers expect
        """Wait until the run is final and give what the workflow returned.

        Args:
            timeout: seconds to wait at most; the run itself goes on.

        Returns:
            what the workflow returned, as JSON gives it back.

        Raises:
            RunFailed: tasks failed; `errors` has the error of each.
            RunCancelled: the run was cancelled.
            TimeoutError: it is not final within the timeout.
            NotRunning: the orchestrator was closed meanwhile; the run goes on with the next one.
            RunTimedOut: a time limit of the run has passed.
        """
        return await self._mesh.result_of(self.id, tenant=self.tenant_id, timeout=timeout)

    async def status(self) -> ExecutionStatus:
        """Give the run's state now.

        Returns:
            the state.

        Raises:
            UnknownRun: its tenant was deleted, or the run was pruned.
        """
        return (await self._mesh.get_run(self.id, tenant=self.tenant_id)).status

    async def cancel(self) -> bool:
        """Cancel the run; tell whether it was still open. Running tasks are stopped as far as possible.

        Returns:
            whether it was still open.

        Raises:
            UnknownRun: its tenant was deleted, or the run was pruned.
        """
        return await self._mesh.cancel_run(self.id, tenant=self.tenant_id)

    def events(self) -> AsyncIterator[RunEvent]:
        """Follow the run from its beginning to its end; for a final run, what happened.

        Every state of a task that is final, and every failed attempt, comes exactly once. Starts of attempts come
        while somebody follows the run, and afterwards as far as they were recorded.

        Returns:
            an asynchronous iterator, which ends with the run.

        Raises:
            UnknownRun: its tenant was deleted, or the run was pruned; raised by the first step.
        """
        return self._mesh.events_of(self.id, tenant=self.tenant_id)
