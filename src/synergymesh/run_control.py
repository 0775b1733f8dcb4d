"""What operators do about runs that failed: part of the asynchronous face."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from synergymesh.engine.control.dead_letter_views import DeadLetter, DeadLetterQuery
from synergymesh.engine.control.dead_letters import Redriven
from synergymesh.engine.control.pausing import PausedWorkflow
from synergymesh.run_handle import RunHandle

if TYPE_CHECKING:
    from synergymesh.assembly import Parts


class RunControl:
    """Retry, replay and pause runs, and see to dead letters; `Orchestrator` has all of these verbs."""

    @property
    def _running(self) -> Parts:
        raise NotImplementedError

    def _handle(self, run_id: str, tenant_id: str) -> RunHandle:
        raise NotImplementedError

    # --- runs that failed -----------------------------------------------------------------------------------------

    async def retry_run(self, run_id: str, *, from_failed: bool = True, tenant: str | None = None) -> RunHandle:
        """Go on with a run that did not succeed, as a new run of the same version and input.

        The old run stays as it is, and keeps its idempotency key. A run can be retried once; then its retry can.

        Args:
            run_id: a run that ended as failed, partial, timeout or cancelled.
            from_failed: use the committed results again, so that only the other tasks run; False to start all over.
            tenant: whose run it has to be; None for the operator.

        Returns:
            what refers to the new run.

        Raises:
            UnknownRun: there is none of that id that this tenant may see.
            RunNotRetryable: it is open, it succeeded, or it was retried already.
            TenantNotActive, InvalidRequest, FeatureNotEnabled, RateLimitExceeded, BacklogFull: it is not admitted.
            StoreUnavailable: the new run could not be recorded.
        """
        return self._handle(*await self._running.reruns.retry(run_id, tenant, from_failed=from_failed))

    async def replay(
        self, run_id: str, input: Mapping[str, Any] | None = None, *, tenant: str | None = None
    ) -> RunHandle:
        """Do again all that a run did, as a new run of the same version, with its input or another one.

        Args:
            run_id: a run in any state.
            input: the workflow's parameters by name, instead of those of the run.
            tenant: whose run it has to be; None for the operator.

        Returns:
            what refers to the new run.

        Raises:
            UnknownRun: there is none of that id that this tenant may see.
            InvalidRequest: the input does not fit.
            TenantNotActive, FeatureNotEnabled, RateLimitExceeded, BacklogFull: it is not admitted.
            StoreUnavailable: the new run could not be recorded.
        """
        return self._handle(*await self._running.reruns.replay(run_id, tenant, input))

    # --- pauses ---------------------------------------------------------------------------------------------------

    async def pause_run(self, run_id: str, *, tenant: str | None = None) -> bool:
        """Let nothing more of a run start, also after a restart, until it is resumed; what runs goes on.

        Its time limits go on as well.

        Args:
            run_id: which.
            tenant: whose run it has to be; None for the operator.

        Returns:
            whether the run was still open.

        Raises:
            UnknownRun: there is none of that id that this tenant may see.
        """
        return await self._running.pausing.pause_run(run_id, tenant)

    async def resume_run(self, run_id: str, *, tenant: str | None = None) -> bool:
        """Let a paused run go on, unless its workflow or its tenant is paused too.

        Args:
            run_id: which.
            tenant: whose run it has to be; None for the operator.

        Returns:
            whether it was paused, and still open.

        Raises:
            UnknownRun: there is none of that id that this tenant may see.
        """
        return await self._running.pausing.resume_run(run_id, tenant)

    async def pause_workflow(self, workflow: str, *, tenant: str | None = None) -> PausedWorkflow:
        """Let nothing more of a workflow start, also after a restart, until it is resumed; what runs goes on.

        Submissions are accepted, and wait.

        Args:
            workflow: its name.
            tenant: for whom; None for all tenants.

        Returns:
            what is paused, for whom and since when.

        Raises:
            InvalidRequest: it is no name, or 10,000 workflows are paused already.
            UnknownTenant: there is none of that id.
        """
        return await self._running.pausing.pause_workflow(workflow, tenant)

    async def resume_workflow(self, workflow: str, *, tenant: str | None = None) -> bool:
        """Let a workflow go on that was paused for that tenant, or for all (None).

        Args:
            workflow: its name.
            tenant: for whom it was paused; None for all tenants.

        Returns:
            whether it was paused so.

        Raises:
            InvalidRequest: it is no name.
            UnknownTenant: there is none of that id.
        """
        return await self._running.pausing.resume_workflow(workflow, tenant)

    async def paused_workflows(self, *, tenant: str | None = None) -> list[PausedWorkflow]:
        """Give the workflows that are paused: for a tenant, or all of them (None).

        Args:
            tenant: for whom; None for all of them.

        Returns:
            what is paused, for whom and since when.
        """
        return self._running.pausing.workflows(tenant)

    # --- dead letters ---------------------------------------------------------------------------------------------

    async def dead_letters(
        self,
        *,
        tenant: str | None = None,
        workflow: str | None = None,
        error_type: str | None = None,
        since: datetime | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> list[DeadLetter]:
        """Give the tasks that failed for good and that nobody has seen to, those of the newest runs first.

        Args:
            tenant: whose; None for the operator, who sees all.
            workflow: only those of this workflow.
            error_type: only those whose error is of that type, or of one derived from it; `ValueError` or a full name.
            since: only those that failed then or later; aware.
            limit: 1 to 1,000.
            cursor: the id of the last one of the page before.

        Returns:
            at most `limit` of them.

        Raises:
            InvalidRequest: error_type, since, limit or cursor cannot be accepted.
        """
        query = DeadLetterQuery(tenant_id=tenant, workflow=workflow, error_type=error_type, since=since)
        return await self._running.dead_letters.list(query, limit=limit, cursor=cursor)

    async def get_dead_letter(self, dead_letter_id: str, *, tenant: str | None = None) -> DeadLetter:
        """Give one task that failed for good, with its arguments and attempts, also when somebody has seen to it.

        Args:
            dead_letter_id: which, RUN:TASK.
            tenant: whose it has to be; None for the operator.

        Returns:
            it, with its run's input and every attempt.

        Raises:
            UnknownDeadLetter: there is none of that id that this tenant may see.
        """
        return await self._running.dead_letters.get(dead_letter_id, tenant)

    async def redrive_dead_letter(self, dead_letter_id: str, *, tenant: str | None = None) -> RunHandle:
        """Go on with the run of a task that failed for good; see `retry_run`.

        Args:
            dead_letter_id: which, RUN:TASK.
            tenant: whose it has to be; None for the operator.

        Returns:
            what refers to the new run.

        Raises:
            UnknownDeadLetter: there is none of that id that this tenant may see.
            RunNotRetryable: its run is open, or was retried already.
            TenantNotActive, InvalidRequest, FeatureNotEnabled, RateLimitExceeded, BacklogFull: it is not admitted.
        """
        return self._handle(*await self._running.dead_letters.redrive(dead_letter_id, tenant))

    async def redrive_dead_letters(
        self,
        *,
        tenant: str | None = None,
        workflow: str | None = None,
        error_type: str | None = None,
        since: datetime | None = None,
        limit: int = 100,
    ) -> Redriven:
        """Go on with the runs of all dead letters that fit, newest first; see `dead_letters` and `retry_run`.

        Waits where a tenant's submission rate asks for it; stops, and says so, where another limit is reached.

        Args:
            tenant: whose; None for the operator: of all tenants.
            workflow: only those of this workflow.
            error_type: only those with an error of that type.
            since: only those that failed then or later; aware.
            limit: runs, 1 to 1,000.

        Returns:
            the new runs, what was left out and why, and whether there are more.

        Raises:
            InvalidRequest: error_type, since or limit cannot be accepted.
        """
        query = DeadLetterQuery(tenant_id=tenant, workflow=workflow, error_type=error_type, since=since)
        return await self._running.dead_letters.redrive_many(query, limit=limit)

    async def discard_dead_letter(self, dead_letter_id: str, *, reason: str, tenant: str | None = None) -> DeadLetter:
        """Put a dead letter away for good, with a reason; it is listed no more. Its run stays as it is.

        Args:
            dead_letter_id: which, RUN:TASK.
            reason: why, 1 to 1,000 characters.
            tenant: whose it has to be; None for the operator.

        Returns:
            it, with the reason.

        Raises:
            UnknownDeadLetter: there is none of that id that this tenant may see.
            InvalidRequest: there is no reason, or it has more than 1,000 characters.
        """
        return await self._running.dead_letters.discard(dead_letter_id, reason, tenant)
