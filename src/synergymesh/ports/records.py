"""What is read back from a store, and what it answers to a commit."""

from __future__ import annotations

import msgspec

from synergymesh.domain.fault_tolerance.breaker import BreakerState
from synergymesh.domain.instants import Instant
from synergymesh.domain.states import ExecutionStatus, TenantStatus


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
    idempotency_key: str | None = None
    request_hash: str | None = None


class ReservationRecord(msgspec.Struct, frozen=True, gc=False):
    """How many starts of a minute are reserved, as stored."""

    tenant_id: str
    minute: int
    starts: int


class SubmissionRecord(msgspec.Struct, frozen=True, gc=False):
    """Who submitted a run, and when."""

    run_id: str
    tenant_id: str
    created_at: Instant


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
    waited_for: str | None = None


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
    waited_for: str | None = None


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
