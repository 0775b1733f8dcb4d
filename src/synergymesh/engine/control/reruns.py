"""Runs that go on from where another one failed, or do the same again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synergymesh.domain.payload import encode
from synergymesh.domain.states import ExecutionStatus
from synergymesh.domain.workflow.definition import UNDO
from synergymesh.domain.workflow.inputs import check_inputs
from synergymesh.engine.observability.watching import Watching
from synergymesh.engine.submission import Origin, Submission
from synergymesh.engine.tenants import Tenants
from synergymesh.engine.versions import Versions
from synergymesh.errors import RunNotRetryable, StoreError
from synergymesh.ports.records import RunRecord, TaskRecord
from synergymesh.ports.store import Store
from synergymesh.workflows.direct_tasks import DIRECT

DEAD = (ExecutionStatus.FAILED, ExecutionStatus.TIMEOUT)


class Reruns:
    """Make a new run of an earlier one; the earlier one stays as it is."""

    def __init__(
        self,
        store: Store,
        tenants: Tenants,
        versions: Versions,
        submission: Submission,
        watching: Watching,
        *,
        payload_bytes_max: int,
    ) -> None:
        self._store = store
        self._tenants = tenants
        self._versions = versions
        self._submission = submission
        self._watching = watching
        self._payload_bytes_max = payload_bytes_max

    async def retry(
        self, run_id: str, tenant_id: str | None, *, from_failed: bool, dead_letter: str | None = None
    ) -> tuple[str, str]:
        """Go on with a run that did not succeed; give the new run's id and its tenant's.

        Args:
            run_id: which.
            tenant_id: whose it has to be; None for the operator.
            from_failed: whether results are used again.
            dead_letter: the id of the dead letter that is redriven, or None.

        Raises:
            UnknownRun: there is none of that id that this tenant may see.
            RunNotRetryable: it is open, it succeeded, or it was retried already.
            TenantNotActive, InvalidRequest, FeatureNotEnabled, RateLimitExceeded, BacklogFull: it is not admitted.
            StoreError: the new run could not be recorded.
        """
        record = await self._watching.record_of(run_id, tenant_id)
        await self._check_retryable(record)
        reused = await self._reusable(record) if from_failed else []
        return await self._enter(record, record.input, Origin(retry_of=run_id, reused=reused, dead_letter=dead_letter))

    async def replay(self, run_id: str, tenant_id: str | None, input_: Mapping[str, Any] | None) -> tuple[str, str]:
        """Do again what a run did, all of it, with the same version and input or with another input.

        Raises:
            UnknownRun: there is none of that id that this tenant may see.
            InvalidRequest: the input does not fit the version.
            TenantNotActive, FeatureNotEnabled, RateLimitExceeded, BacklogFull: it is not admitted.
            StoreError: the new run could not be recorded.
        """
        record = await self._watching.record_of(run_id, tenant_id)
        raw = record.input
        if input_ is not None:
            version = await self._versions.load(record.content_hash)
            workflow = version.workflow  # knows the types too, unless it is another version by now
            if workflow is not None and workflow.definition.content_hash == record.content_hash:
                checked = workflow.check_input(input_)
            else:
                checked = check_inputs(version.plan.definition, input_)
            raw = encode(checked, field="input", limit=self._payload_bytes_max)
        return await self._enter(record, raw, Origin(replay_of=run_id))

    async def _enter(self, record: RunRecord, raw: bytes, origin: Origin) -> tuple[str, str]:
        tenant = self._tenants.active(record.tenant_id)
        version = await self._versions.load(record.content_hash)
        if version.source == DIRECT:
            raise RunNotRetryable(
                record.run_id, "it is a direct call, and what it called is known to its caller only. Call it again."
            )
        try:
            new_id = await self._submission.enter(tenant, version, raw, priority=record.priority, origin=origin)
        except StoreError:
            if origin.retry_of is not None:
                await self._check_not_retried(record)  # somebody else may have been faster
            raise
        return new_id, record.tenant_id

    async def _check_retryable(self, record: RunRecord) -> None:
        if not record.status.is_final:
            raise RunNotRetryable(record.run_id, "it is still open. Wait for its end, or cancel it.")
        if record.status is ExecutionStatus.SUCCESS:
            raise RunNotRetryable(record.run_id, "it succeeded. Replay it to do the same again.")
        await self._check_not_retried(record)

    async def _check_not_retried(self, record: RunRecord) -> None:
        retry = await self._store.get_retry(record.run_id, record.tenant_id)
        if retry is not None:
            raise RunNotRetryable(record.run_id, f"{retry} goes on with it already. Look at that one.")

    async def _reusable(self, record: RunRecord) -> list[TaskRecord]:
        """Give the tasks whose results are used again."""
        tasks = await self._store.list_tasks([record.run_id], record.tenant_id)
        plan = (await self._versions.load(record.content_hash)).plan
        done = [task for task in tasks if task.status is ExecutionStatus.SUCCESS]
        if not plan.undo:
            return done
        gone: set[int] = set()
        for task in tasks:
            if plan.positions[task.component_id] < plan.size:
                continue
            if task.status is ExecutionStatus.SUCCESS or await self._is_discarded(task):
                gone.add(plan.positions[task.component_id.removeprefix(UNDO)])
            elif task.status in DEAD:
                raise RunNotRetryable(
                    record.run_id,
                    f"{task.component_id} failed, so it is not known what is undone. Redrive that dead letter, or "
                    f"discard it once it is seen to.",
                )
        reached = list(gone)  # a result that rests on what was undone is worth nothing either
        while reached:
            for dependent, _ in plan.dependents[reached.pop()]:
                if dependent not in gone:
                    gone.add(dependent)
                    reached.append(dependent)
        kept = [task for task in done if plan.positions[task.component_id] < plan.size]
        return [task for task in kept if plan.positions[task.component_id] not in gone]

    async def _is_discarded(self, task: TaskRecord) -> bool:
        if task.status not in DEAD:
            return False
        letter = await self._store.get_dead_letter(task.run_id, task.component_id, task.tenant_id)
        return letter is not None and letter.discarded_at is not None

    async def compensate(self, run_id: str, tenant_id: str, *, dead_letter: str) -> tuple[str, str]:
        """Go on with undoing where it failed, in a new run that does nothing else; give its id and its tenant's.

        Args:
            run_id: of which run.
            tenant_id: whose it is.
            dead_letter: the id of the dead letter that is redriven.

        Raises:
            RunNotRetryable: somebody was faster, or the run is open.
            TenantNotActive, InvalidRequest, FeatureNotEnabled, RateLimitExceeded, BacklogFull: it is not admitted.
        """
        record = await self._watching.record_of(run_id, tenant_id)
        await self._check_retryable(record)
        tasks = await self._store.list_tasks([run_id], tenant_id)
        plan = (await self._versions.load(record.content_hash)).plan
        undone = [
            task
            for task in tasks
            if plan.positions[task.component_id] >= plan.size and task.status is not ExecutionStatus.SUCCESS
        ]
        origin = Origin(
            retry_of=run_id,
            reused=[task for task in tasks if task not in undone],
            cancelled=record.cancel_requested_at is not None,
            dead_letter=dead_letter,
            size=len(undone),
        )
        return await self._enter(record, record.input, origin)
