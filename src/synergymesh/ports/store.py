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

from collections.abc import Sequence
from typing import Protocol

import msgspec

from synergymesh.domain.actors import Actor
from synergymesh.domain.audit_actions import Action, Outcome
from synergymesh.domain.breaker import BreakerState
from synergymesh.domain.instants import Instant
from synergymesh.domain.states import ExecutionStatus, TenantStatus
from synergymesh.ports.audit import AuditLog
from synergymesh.ports.audit_keeping import AuditKeeping

# --- changes --------------------------------------------------------------------------------------------------------


class TenantCreated(msgspec.Struct, frozen=True, gc=False):
    """A tenant joins. `quota` and `policy` are JSON; the store does not look into them.

    A sub-tenant names its parent, which must be there and not deleted.
    """

    tenant_id: str
    tenant_name: str
    tier: str
    quota: bytes
    created_at: Instant
    parent_id: str | None = None
    policy: bytes = b"{}"
    by: Actor | None = None


class TenantStatusChanged(msgspec.Struct, frozen=True, gc=False):
    """A tenant is suspended, resumed or deleted. Nothing of a deleted tenant is found by any read.

    A tenant cannot be deleted before its sub-tenants.
    """

    tenant_id: str
    status: TenantStatus
    changed_at: Instant
    by: Actor | None = None


class TenantPlanChanged(msgspec.Struct, frozen=True, gc=False):
    """A tenant has another plan from now on: tier, quota and policy replace what it had."""

    tenant_id: str
    tier: str
    quota: bytes
    policy: bytes
    changed_at: Instant
    by: Actor | None = None


class HourReserved(msgspec.Struct, frozen=True, gc=False):
    """A tenant may start so many tasks in a minute; replaces what was reserved for that minute.

    `minute` counts from 1970. Written before the starts are used, so that a crash can waste some and exceed nothing.
    """

    tenant_id: str
    minute: int
    starts: int


class EstimateLearnt(msgspec.Struct, frozen=True, gc=False):
    """A component of a tenant's workflow is expected to take so long; replaces what was expected before."""

    tenant_id: str
    workflow: str
    component_id: str
    microseconds: int


class StatisticCounted(msgspec.Struct, frozen=True, gc=False):
    """So much was counted of a tenant in an hour, in all; replaces what was counted of that hour before.

    `hour` counts from 1970. `measure` and `bucket` are those of `domain.tallies`.
    """

    tenant_id: str
    hour: int
    measure: str
    bucket: int
    count: int
    total: int


class BreakerChanged(msgspec.Struct, frozen=True, gc=False):
    """A circuit of a tenant is in another state; replaces what was recorded of it before.

    `workflow` is empty for a circuit that tasks name, else `name` is the component of that workflow. `changed_at` grows
    with every change of a circuit: of two, the later one stays. `wave` is how many attempts are let in while it is half
    open, `trips` how often it has opened since it was closed.
    """

    tenant_id: str
    workflow: str
    name: str
    state: BreakerState
    since: Instant
    until: Instant
    trips: int
    wave: int
    calls: int
    failures: int
    changed_at: Instant
    by: Actor | None = None


class WorkflowStored(msgspec.Struct, frozen=True, gc=False):
    """A version of a workflow is known. Stored once per content hash; a second time only renews `source`.

    `source` says where its functions are found again: `module:attribute`, or `file:PATH:attribute`, or nothing.
    """

    content_hash: str
    workflow: str
    definition: bytes
    source: str | None
    created_at: Instant


class RunCreated(msgspec.Struct, frozen=True, gc=False):
    """A run is acknowledged. `input` is a JSON object; ids sort by the time of creation.

    `level` and then the id give its place among the waiting runs of its tenant, the smallest first; `tasks` is how many
    it has. `start_by` is the moment until which it has to be begun, 0 for none. `traceparent` names the trace that it
    belongs to, as W3C Trace Context writes it.

    With an `idempotency_key` that the tenant has used, nothing is written and `commit` answers with the earlier run.
    """

    run_id: str
    tenant_id: str
    workflow: str
    content_hash: str
    input: bytes
    idempotency_key: str | None
    priority: int
    not_before: Instant
    created_at: Instant
    level: int = 0
    tasks: int = 1
    by: Actor | None = None
    start_by: Instant = 0
    traceparent: str | None = None


class RunLinked(msgspec.Struct, frozen=True, gc=False):
    """A run goes on where another one failed (`retry_of`), or does the same again (`replay_of`).

    A run can be retried once; a second retry of it is refused.
    """

    run_id: str
    tenant_id: str
    retry_of: str | None
    replay_of: str | None
    linked_at: Instant
    by: Actor | None = None


class RunStarted(msgspec.Struct, frozen=True, gc=False):
    """The first attempt of a run started: pending -> running."""

    run_id: str
    tenant_id: str
    started_at: Instant


class CancelRequested(msgspec.Struct, frozen=True, gc=False):
    """Somebody wants a run to stop; it becomes final once its running attempts have ended."""

    run_id: str
    tenant_id: str
    requested_at: Instant
    by: Actor | None = None


class RunPaused(msgspec.Struct, frozen=True, gc=False):
    """Nothing more of a run starts until it is resumed. It is among the begun runs meanwhile, not the waiting ones."""

    run_id: str
    tenant_id: str
    paused_at: Instant
    by: Actor | None = None


class RunResumed(msgspec.Struct, frozen=True, gc=False):
    """A paused run goes on."""

    run_id: str
    tenant_id: str
    resumed_at: Instant
    by: Actor | None = None


class WorkflowPaused(msgspec.Struct, frozen=True, gc=False):
    """Nothing more of a workflow starts for a tenant, or for all of them (""), until it is resumed."""

    workflow: str
    tenant_id: str
    paused_at: Instant
    by: Actor | None = None


class WorkflowResumed(msgspec.Struct, frozen=True, gc=False):
    """A paused workflow goes on for a tenant, or for all (""): where it is not paused for the tenant too."""

    workflow: str
    tenant_id: str
    resumed_at: Instant
    by: Actor | None = None


class TaskStarted(msgspec.Struct, frozen=True, gc=False):
    """An attempt runs. Written only for long tasks, and for those of runs that a crash has interrupted before."""

    run_id: str
    component_id: str
    tenant_id: str
    attempt: int
    started_at: Instant


class AttemptFailed(msgspec.Struct, frozen=True, gc=False):
    """An attempt ended, and the task goes on: another attempt follows at `retry_at`.

    `status` is failed or timeout (counts against the task's retries), or cancelled (the process was shut down; does
    not count). `error` is the JSON of an `ErrorInfo`. A task row that says `running` goes back to retrying (pending
    after a shutdown).
    """

    run_id: str
    component_id: str
    number: int
    tenant_id: str
    status: ExecutionStatus
    started_at: Instant
    ended_at: Instant
    retry_at: Instant
    error: bytes | None


class OutputCaptured(msgspec.Struct, frozen=True, gc=False):
    """What an attempt has printed and logged; written with its end. `lines` is JSON: `domain.captured.OutputLine`s."""

    run_id: str
    component_id: str
    number: int
    tenant_id: str
    lines: bytes
    dropped: int


class TaskFinished(msgspec.Struct, frozen=True, gc=False):
    """A task has its final verdict. `started_at` is None when it never started (skipped, cancelled before).

    `attempt` is the number of the last attempt, 0 when there was none. `result` is JSON; `error` is the JSON of an
    `ErrorInfo`. A task that is final already stays as it is.
    """

    run_id: str
    component_id: str
    tenant_id: str
    status: ExecutionStatus
    attempt: int
    started_at: Instant | None
    ended_at: Instant
    result: bytes | None
    error: bytes | None


class DeadLetterDiscarded(msgspec.Struct, frozen=True, gc=False):
    """Somebody has seen to a task that failed for good; it is listed no more. One that is discarded stays as it is."""

    run_id: str
    component_id: str
    tenant_id: str
    reason: str
    discarded_at: Instant
    by: Actor | None = None


class RunFinished(msgspec.Struct, frozen=True, gc=False):
    """A run is final. `result` is JSON; `error` is the JSON of an object: component id -> `ErrorInfo`."""

    run_id: str
    tenant_id: str
    status: ExecutionStatus
    started_at: Instant | None
    ended_at: Instant
    result: bytes | None
    error: bytes | None


class Noted(msgspec.Struct, frozen=True, gc=False):
    """Something happened that changes nothing else, and has to be in the audit log.

    `number` is chosen by the caller, and with action and entity recorded once. `details` is a JSON object; `tenant_id`
    is '' for the mesh itself.
    """

    tenant_id: str
    action: Action
    entity: str
    number: int
    outcome: Outcome
    noted_at: Instant
    details: bytes = b"{}"
    by: Actor | None = None


Change = (
    TenantCreated
    | TenantStatusChanged
    | TenantPlanChanged
    | HourReserved
    | EstimateLearnt
    | BreakerChanged
    | StatisticCounted
    | OutputCaptured
    | WorkflowStored
    | RunCreated
    | RunLinked
    | RunStarted
    | CancelRequested
    | RunPaused
    | RunResumed
    | WorkflowPaused
    | WorkflowResumed
    | TaskStarted
    | AttemptFailed
    | TaskFinished
    | DeadLetterDiscarded
    | RunFinished
    | Noted
)

Unit = Sequence[Change]
"""Changes that are recorded together or not at all."""

# --- records --------------------------------------------------------------------------------------------------------


class TenantRecord(msgspec.Struct, frozen=True, gc=False):
    """A tenant as stored."""

    tenant_id: str
    tenant_name: str
    tier: str
    quota: bytes
    status: TenantStatus
    created_at: Instant
    parent_id: str | None = None
    policy: bytes = b"{}"


class ReservationRecord(msgspec.Struct, frozen=True, gc=False):
    """How many starts of a minute are reserved, as stored."""

    tenant_id: str
    minute: int
    starts: int


class EstimateRecord(msgspec.Struct, frozen=True, gc=False):
    """How long a component is expected to take, as stored."""

    tenant_id: str
    workflow: str
    component_id: str
    microseconds: int


class StatisticRecord(msgspec.Struct, frozen=True, gc=False):
    """What was counted of a tenant in an hour, as stored; hour 0 stands for all those that were added up."""

    tenant_id: str
    hour: int
    measure: str
    bucket: int
    count: int
    total: int


class BreakerRecord(msgspec.Struct, frozen=True, gc=False):
    """A circuit as stored."""

    tenant_id: str
    workflow: str
    name: str
    state: BreakerState
    since: Instant
    until: Instant
    trips: int
    wave: int
    calls: int
    failures: int
    changed_at: Instant


class WorkflowRecord(msgspec.Struct, frozen=True, gc=False):
    """A version of a workflow as stored."""

    content_hash: str
    workflow: str
    definition: bytes
    source: str | None


RESTORE_STEP = 1_000
"""A run that was open in a backup counts recoveries from a multiple of this on, so that no attempt's number repeats."""


class RunRecord(msgspec.Struct, frozen=True, gc=False):
    """A run as stored. `recoveries` counts how often a crash interrupted it while it was open; see `RESTORE_STEP`."""

    run_id: str
    tenant_id: str
    workflow: str
    content_hash: str
    status: ExecutionStatus
    priority: int
    input: bytes
    result: bytes | None
    error: bytes | None
    idempotency_key: str | None
    not_before: Instant
    created_at: Instant
    started_at: Instant | None
    ended_at: Instant | None
    cancel_requested_at: Instant | None
    recoveries: int
    level: int = 0
    tasks: int = 1
    retry_of: str | None = None
    replay_of: str | None = None
    paused_at: Instant | None = None
    traceparent: str | None = None


class PauseRecord(msgspec.Struct, frozen=True, gc=False):
    """A workflow that is paused for a tenant, or for all of them (`tenant_id` is empty), as stored."""

    tenant_id: str
    workflow: str
    paused_at: Instant


class WaitingRecord(msgspec.Struct, frozen=True, gc=False):
    """How much of a tenant waits: runs that are not begun, and the tasks that these have."""

    tenant_id: str
    runs: int
    tasks: int


class TaskRecord(msgspec.Struct, frozen=True, gc=False):
    """A task as stored; a task without a row is pending. `crashes`: how often the process died while it was running."""

    run_id: str
    component_id: str
    tenant_id: str
    status: ExecutionStatus
    attempt: int
    started_at: Instant | None
    ended_at: Instant | None
    result: bytes | None
    error: bytes | None
    crashes: int


class AttemptRecord(msgspec.Struct, frozen=True, gc=False):
    """A failed attempt as stored."""

    run_id: str
    component_id: str
    number: int
    tenant_id: str
    status: ExecutionStatus
    started_at: Instant
    ended_at: Instant
    retry_at: Instant
    error: bytes | None


class DeadLetterRecord(msgspec.Struct, frozen=True, gc=False):
    """A task that failed for good (failed, timeout), with what is stored of its run.

    `retried_as` is the run that goes on with it, if there is one.
    """

    run_id: str
    component_id: str
    tenant_id: str
    workflow: str
    content_hash: str
    run_status: str
    status: ExecutionStatus
    attempt: int
    started_at: Instant | None
    ended_at: Instant
    error: bytes | None
    crashes: int
    discarded_at: Instant | None
    discard_reason: str | None
    retried_as: str | None


class OutputRecord(msgspec.Struct, frozen=True, gc=False):
    """What an attempt has printed and logged, as stored; `dropped` lines lay between the first and the last ones."""

    run_id: str
    component_id: str
    number: int
    lines: bytes
    dropped: int


class Committed(msgspec.Struct, frozen=True):
    """What `commit` answers for one unit that was recorded.

    `existing` is the earlier run when the unit's `RunCreated` used an idempotency key again; nothing of that unit was
    written then.
    """

    existing: RunRecord | None = None


class Refused(msgspec.Struct, frozen=True):
    """What `commit` answers for one unit that breaks an invariant; the other units of the batch are recorded."""

    reason: str


CommitResult = Committed | Refused

COMMITTED = Committed()


class PrunablePage(msgspec.Struct, frozen=True):
    """Some of a tenant's runs that may go, and the place to look on from; None when all were looked at."""

    run_ids: list[str]
    after: str | None


class Pruned(msgspec.Struct, frozen=True):
    """How many rows were deleted, and which of the runs are still to be deleted."""

    rows: int
    left: list[str]


class Incarnation(msgspec.Struct, frozen=True):
    """One life of a process on this store: its number, from 1, and whether the one before ended cleanly."""

    number: int
    previous_ended_cleanly: bool


class Store(AuditLog, AuditKeeping, Protocol):
    """Keep tenants, workflows, runs, tasks and attempts durably.

    Reads that take a `tenant_id` find only what is that tenant's; None means the operator, who finds everything
    (of tenants that are not deleted). All verbs raise `StoreError` when the database fails; `StoreUnavailable` means
    that nothing of the call is known to be recorded and that it may be repeated as it is.
    """

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

    async def commit(self, units: Sequence[Unit]) -> list[CommitResult]:
        """Record units in one transaction and answer for each of them, in their order.

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
        """Give one version of a workflow."""
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
