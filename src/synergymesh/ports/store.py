"""The store as a seam: what is written (changes), what is read back (records), and the verbs for both.

A store applies a *unit* (some changes that belong together) wholly or not at all, and as many units as are waiting in
one transaction. It never decides anything: it refuses what breaks an invariant (a final state that would change, an
unknown tenant) and otherwise records.

Every change carries ids made by the caller and may be applied twice with the same effect as once: an error from a
commit says nothing about whether it happened.

What a change really changed is an entry of the audit log, in the same transaction (`ports.audit`). `by` says on whose
account; without it, the engine's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Protocol

from synergymesh.domain.actors import Actor
from synergymesh.domain.instants import Instant
from synergymesh.domain.states import ExecutionStatus
from synergymesh.ports.audit import AuditLog
from synergymesh.ports.audit_keeping import AuditKeeping
from synergymesh.ports.changes import (
    Unit,
)
from synergymesh.ports.records import (
    AttemptRecord,
    BreakerRecord,
    CommitResult,
    DeadLetterRecord,
    EstimateRecord,
    Incarnation,
    OutputRecord,
    PauseRecord,
    PrunablePage,
    Pruned,
    ReservationRecord,
    RunRecord,
    StatisticRecord,
    SubmissionRecord,
    TaskRecord,
    TenantRecord,
    WaitingRecord,
    WorkflowRecord,
)


class Store(AuditLog, AuditKeeping, Protocol):
    """Keep tenants, workflows, runs, tasks and attempts durably.

    Reads that take a `tenant_id` find only what is that tenant's; None means the operator, who finds everything
    (of tenants that are not deleted). All verbs raise `StoreError` when the database fails; `StoreUnavailable` means
    that nothing of the call is known to be recorded and that it may be repeated as it is.
    """

    @property
    def name(self) -> str:
        """Give what errors call it: a path, mostly."""
        ...

    async def open(self) -> None:
        """Take the database for this process alone, create or migrate its schema.

        Raises:
            StoreLocked: another process has it.
            StoreCorrupt: it is not a database of SynergyMesh.
            SchemaMismatch: a newer version made it.
            StoreUnavailable: it cannot be opened or written.
        """
        ...

    async def close(self) -> None:
        """Release the database. Closing twice does nothing."""
        ...

    async def begin_incarnation(self, by: Actor | None = None) -> Incarnation:
        """Start a life on this store, in one transaction, on an actor's account.

        If the one before did not end cleanly: every open run counts one more recovery, and every task that says
        `running` counts one more crash and is pending again. Takes no longer when more runs are open.
        """
        ...

    async def end_incarnation(self, by: Actor | None = None) -> None:
        """Record that this life ends cleanly: no attempt is running any more."""
        ...

    def commit(self, units: Sequence[Unit]) -> Awaitable[list[CommitResult]]:
        """Begin to record units in one transaction, and let the answers be awaited, for each of them in their order.

        A unit that breaks an invariant is refused alone. Within a unit and between units, changes take effect in their
        order.
        """
        ...

    async def purge_deleted(self, limit: int) -> int:
        """Delete at most `limit` rows of deleted tenants; give how many were deleted."""
        ...

    async def prune_reservations(self, before_minute: int, limit: int) -> int:
        """Delete at most `limit` reservations of minutes before this one; give how many were deleted."""
        ...

    async def add_up_statistics(self, before_hour: int, limit: int) -> int:
        """Add at most `limit` rows of hours before this one to hour 0 and delete them; give how many."""
        ...

    async def list_prunable_runs(
        self, tenant_id: str, *, ended_before: Instant, after: str | None, before: str, limit: int
    ) -> PrunablePage:
        """Look at the next `limit` runs of a tenant, oldest first, and give those that may go.

        Those are the ones that are final and ended before that moment, and those that were begun to be deleted. Only
        ids between `after` and `before` are looked at.
        """
        ...

    async def prune_runs(self, run_ids: Sequence[str], *, ended_before: Instant, limit: int) -> Pruned:
        """Delete at most `limit` rows of those of these runs that are final and ended before that moment.

        A run goes with all of its rows in one transaction, and its idempotency key is free again. One that has more
        rows than `limit` takes several calls: from the first on no read finds it, and it can only be deleted.
        """
        ...

    async def find_unused_workflows(self, limit: int) -> list[str] | None:
        """Look at the next `limit` runs for the versions that they use; give None until all were looked at.

        Then give the versions that no run used at any moment since the search began; the next call begins another.
        """
        ...

    async def forget_workflows(self, content_hashes: Sequence[str]) -> int:
        """Delete versions that the last search found unused, except those that a run uses since; give their number."""
        ...

    async def give_space_back(self, limit: int) -> int:
        """Give at most `limit` free pages back to the file system; give how many were.

        0 means that no more than a reserve for what is written next is free.
        """
        ...

    async def shorten_log(self) -> int:
        """Write a log that has grown long back into the database; give its length in bytes afterwards.

        It stays long as long as somebody reads an old state of the database.
        """
        ...

    async def list_tenants(self) -> list[TenantRecord]:
        """Give all tenants that are not deleted, oldest first."""
        ...

    async def list_reservations(self, since_minute: int) -> list[ReservationRecord]:
        """Give what is reserved for this minute and later ones, ordered by (tenant, minute)."""
        ...

    async def list_submissions(self, *, after: str, except_source: str, limit: int) -> list[SubmissionRecord]:
        """Give the runs with a greater id than `after`, oldest first, also those that are final.

        None of tenants that are deleted, and none of workflow versions whose source is `except_source`.
        """
        ...

    async def list_estimates(self) -> list[EstimateRecord]:
        """Give all estimates, ordered by (tenant, workflow, component)."""
        ...

    async def sum_statistics(self) -> list[StatisticRecord]:
        """Give what was counted in all hours together, as of hour 0, ordered by (tenant, measure, bucket).

        Of the measure `last_end` the greatest total instead of the sum.
        """
        ...

    async def list_statistics(self, tenant_id: str | None, *, since_hour: int) -> list[StatisticRecord]:
        """Give what was counted in this hour and later ones, ordered by (tenant, hour, measure, bucket)."""
        ...

    async def list_breakers(self, tenant_id: str | None) -> list[BreakerRecord]:
        """Give the circuits that were ever open, ordered by (tenant, workflow, name)."""
        ...

    async def get_workflow(self, content_hash: str) -> WorkflowRecord | None:
        """Give one version of a workflow.

        Raises:
            StoreCorrupt: the SHA-256 of its definition is not its content hash.
        """
        ...

    async def get_run(self, run_id: str, tenant_id: str | None) -> RunRecord | None:
        """Give one run."""
        ...

    async def list_runs(
        self,
        *,
        tenant_id: str | None,
        statuses: Sequence[ExecutionStatus] = (),
        workflow: str | None = None,
        before: str | None = None,
        limit: int = 100,
    ) -> list[RunRecord]:
        """Give runs, newest first, those with a smaller id than `before`; without statuses: of any."""
        ...

    async def list_open_runs(self, *, after: str | None, limit: int) -> list[RunRecord]:
        """Give runs that are not final, oldest first, those with a greater id than `after`."""
        ...

    async def list_waiting_runs(
        self,
        tenant_id: str,
        *,
        due_by: Instant,
        after: tuple[int, str] | None,
        limit: int,
        except_versions: Sequence[str] = (),
    ) -> list[RunRecord]:
        """Give the tenant's open runs that are not begun and may start by `due_by`, by (level, id).

        A run is begun once its start or the wish to cancel or to pause it is recorded. An engine records the start of
        a run with its first task or attempt, so a waiting run is nothing but its row. Only those behind `after`,
        which is (level, id) of a run, and none of the workflow versions `except_versions`.
        """
        ...

    async def list_later_runs(self, tenant_id: str, *, after: Instant, limit: int) -> list[RunRecord]:
        """Give the tenant's waiting runs that may not start before a moment behind `after`, by (that moment, id)."""
        ...

    async def list_overdue_runs(self, now: Instant, limit: int) -> list[str]:
        """Give the ids of runs of all tenants that are not begun and had to be by now, those most overdue first."""
        ...

    async def list_begun_runs(self, *, after: str | None, limit: int) -> list[RunRecord]:
        """Give the open runs that are begun, oldest first, those with a greater id than `after`."""
        ...

    async def count_waiting_before(self, tenant_id: str, level: int, run_id: str) -> int:
        """Count the tenant's waiting runs whose (level, id) is smaller than this."""
        ...

    async def list_waiting_counts(self) -> list[WaitingRecord]:
        """Give how much waits of every tenant that has waiting runs, ordered by tenant."""
        ...

    async def count_runs(self, *, tenant_id: str | None, statuses: Sequence[ExecutionStatus] = ()) -> int:
        """Count runs; without statuses: all."""
        ...

    async def list_tasks(self, run_ids: Sequence[str], tenant_id: str | None = None) -> list[TaskRecord]:
        """Give the task rows of these runs, ordered by (run, component)."""
        ...

    async def list_outputs(self, run_id: str, component_id: str | None, tenant_id: str | None) -> list[OutputRecord]:
        """Give what the attempts of a run, or of one of its tasks, have printed, ordered by (component, number)."""
        ...

    async def list_attempts(self, run_ids: Sequence[str], tenant_id: str | None = None) -> list[AttemptRecord]:
        """Give the failed attempts of these runs, ordered by (run, component, number)."""
        ...

    async def list_dead_letters(
        self,
        *,
        tenant_id: str | None,
        workflow: str | None = None,
        error_type: str | None = None,
        since: Instant | None = None,
        before: tuple[str, str] | None = None,
        limit: int = 100,
    ) -> list[DeadLetterRecord]:
        """Give tasks that failed for good, newest run first: neither discarded nor of a run that was retried.

        Args:
            tenant_id: whose.
            workflow: only those of this workflow.
            error_type: only those whose error is of that type or of one derived from it; the last part of its full
                name is enough.
            since: only those that ended then or later.
            before: only those behind this (run, component) in the order (run descending, component descending).
            limit: how many at most.
        """
        ...

    async def get_dead_letter(self, run_id: str, component_id: str, tenant_id: str | None) -> DeadLetterRecord | None:
        """Give one task that failed for good, also one that was discarded or retried."""
        ...

    async def get_retry(self, run_id: str, tenant_id: str | None) -> str | None:
        """Give the id of the run that goes on where this one failed."""
        ...

    async def list_pauses(self) -> list[PauseRecord]:
        """Give all workflows that are paused, ordered by (tenant, workflow)."""
        ...
