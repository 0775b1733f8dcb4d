"""What can be written into a store: one struct per kind of change.

Every change carries ids made by the caller and may be applied twice with the same effect as once: an error from a
commit says nothing about whether it happened.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from synergymesh.domain.actors import Actor
from synergymesh.domain.audit.actions import Action, Outcome
from synergymesh.domain.fault_tolerance.breaker import BreakerState
from synergymesh.domain.instants import Instant
from synergymesh.domain.states import ExecutionStatus, TenantStatus


class TenantCreated(msgspec.Struct, frozen=True, gc=False):
    """A tenant joins. `quota` and `policy` are JSON; the store does not look into them.

    A sub-tenant names its parent, which must be there and not deleted. Of tenants that are not deleted no two have the
    same idempotency key; the hash of what was asked for under it is kept beside it.
    """

    tenant_id: str
    tenant_name: str
    tier: str
    quota: bytes
    created_at: Instant
    parent_id: str | None = None
    policy: bytes = b"{}"
    by: Actor | None = None
    idempotency_key: str | None = None
    request_hash: str | None = None


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
    not count). `error` is the JSON of an `ErrorInfo`. `waited_for` is the code of what kept it from starting at once,
    None where nothing did. A task row that says `running` goes back to retrying (pending after a shutdown).
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
    waited_for: str | None = None


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
    `ErrorInfo`. `waited_for` is the code of what kept that attempt from starting at once, None where nothing did. A
    task that is final already stays as it is.
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
    waited_for: str | None = None


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
