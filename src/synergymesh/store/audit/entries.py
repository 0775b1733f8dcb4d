"""What the audit log says of each kind of change: a pure mapping from a change that took effect to its entry.

An entry's payload is canonical JSON. msgspec writes the fields of a struct in their order, and here they are declared
in that of their names, so nothing is sorted while tasks end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, assert_never, cast

import msgspec
from msgspec import UNSET, UnsetType

from synergymesh.domain.actors import ENGINE, Actor
from synergymesh.domain.audit.actions import Action, Outcome
from synergymesh.domain.audit.forms import MESH
from synergymesh.domain.fault_tolerance.breaker import BreakerState
from synergymesh.domain.instants import Instant
from synergymesh.domain.states import ExecutionStatus, TenantStatus
from synergymesh.ports.changes import (
    AttemptFailed,
    BreakerChanged,
    CancelRequested,
    Change,
    DeadLetterDiscarded,
    EstimateLearnt,
    HourReserved,
    Noted,
    OutputCaptured,
    RunCreated,
    RunFinished,
    RunLinked,
    RunPaused,
    RunResumed,
    RunStarted,
    StatisticCounted,
    TaskFinished,
    TaskStarted,
    TenantCreated,
    TenantPlanChanged,
    TenantStatusChanged,
    WorkflowPaused,
    WorkflowResumed,
    WorkflowStored,
)

_encode = msgspec.json.Encoder().encode
_encode_sorted = msgspec.json.Encoder(order="sorted").encode

_ENGINE = str(ENGINE)
_SUCCESS = Outcome.SUCCESS.value
_FAILURE = Outcome.FAILURE.value
_RUN_SUBMITTED = Action.RUN_SUBMITTED.value
_RUN_FINISHED = Action.RUN_FINISHED.value
_TASK_FINISHED = Action.TASK_FINISHED.value
_DONE = ExecutionStatus.SUCCESS
_FAILED = ExecutionStatus.FAILED
_TIMEOUT = ExecutionStatus.TIMEOUT


class Entry(NamedTuple):
    """An entry before it has its place in a chain."""

    tenant_id: str
    at: Instant
    action: str
    entity: str
    version: int
    actor: str
    outcome: str
    payload: bytes


class _Payload(msgspec.Struct, gc=False):
    action: str
    actor: str
    at: Instant
    details: Any
    entity: str
    outcome: str
    tenant_id: str
    version: int


class _Origin(msgspec.Struct, gc=False, omit_defaults=True):
    on_behalf_of: str | None = None
    personal: str | None = None
    request_id: str | None = None
    source: str | None = None


class _PayloadWithOrigin(msgspec.Struct, gc=False):
    action: str
    actor: str
    at: Instant
    details: Any
    entity: str
    origin: _Origin
    outcome: str
    tenant_id: str
    version: int


def make_entry(
    tenant_id: str,
    at: Instant,
    action: str,
    entity: str,
    version: int,
    by: Actor | None,
    outcome: str,
    details: Any,
) -> Entry:
    """Make an entry; `details` is a struct with its fields in the order of their names, or canonical JSON."""
    return Entry(*_make(tenant_id, at, action, entity, version, by, outcome, details))


def _make(
    tenant_id: str,
    at: Instant,
    action: str,
    entity: str,
    version: int,
    by: Actor | None,
    outcome: str,
    details: Any,
) -> Entry:
    """Make an entry as a plain tuple: it is made five times as fast as one with names, which few ever look at."""
    actor = _ENGINE if by is None else str(by)
    payload = _payload(tenant_id, at, action, entity, version, by, actor, outcome, details)
    return cast(Entry, (tenant_id, at, action, entity, version, actor, outcome, payload))


def _payload(
    tenant_id: str,
    at: Instant,
    action: str,
    entity: str,
    version: int,
    by: Actor | None,
    actor: str,
    outcome: str,
    details: Any,
) -> bytes:
    """Give what an entry says; `actor` is the text of `by`."""
    if by is None or by.on_behalf_of is by.source is by.request_id is by.personal is None:
        return _encode(_Payload(action, actor, at, details, entity, outcome, tenant_id, version))
    origin = _Origin(by.on_behalf_of, by.personal, by.request_id, by.source)
    return _encode(_PayloadWithOrigin(action, actor, at, details, entity, origin, outcome, tenant_id, version))


def raw_details(details: Any) -> msgspec.Raw:
    """Give what can be written as JSON as the details of an entry, its keys sorted."""
    return msgspec.Raw(_encode_sorted(details))


class _HasType(msgspec.Struct, gc=False):
    type: str | UnsetType = UNSET


_decode_type = msgspec.json.Decoder(_HasType).decode


def _error_type(error: bytes | None) -> str | UnsetType:
    """Give the type of an error; its message may quote what the task was given, which the log does not keep."""
    if error is None:
        return UNSET
    try:
        return _decode_type(error).type
    except msgspec.MsgspecError:
        return UNSET


# --- runs -----------------------------------------------------------------------------------------------------------


class _Submitted(msgspec.Struct, gc=False):
    content_hash: str
    input_bytes: int
    not_before: Instant
    priority: int
    workflow: str


def _run_submitted(change: RunCreated) -> Entry:
    at = change.created_at
    actor = _ENGINE if change.by is None else str(change.by)
    payload = run_submitted(change, actor)
    return Entry(change.tenant_id, at, _RUN_SUBMITTED, f"run/{change.run_id}", at, actor, _SUCCESS, payload)


def run_submitted(change: RunCreated, actor: str) -> bytes:
    """Give the payload of the entry of a submission by the actor of this text."""
    details = _Submitted(change.content_hash, len(change.input), change.not_before, change.priority, change.workflow)
    at, entity = change.created_at, f"run/{change.run_id}"
    return _payload(change.tenant_id, at, _RUN_SUBMITTED, entity, at, change.by, actor, _SUCCESS, details)


class _Link(msgspec.Struct, gc=False):
    replay_of: str | None
    retry_of: str | None


def _run_linked(change: RunLinked) -> Entry:
    at = change.linked_at
    details = _Link(change.replay_of, change.retry_of)
    return make_entry(
        change.tenant_id, at, Action.RUN_LINKED.value, f"run/{change.run_id}", at, change.by, _SUCCESS, details
    )


class _Nothing(msgspec.Struct, gc=False):
    """Has nothing to say."""


_NOTHING = _Nothing()


def _run_started(change: RunStarted) -> Entry:
    at = change.started_at
    return make_entry(
        change.tenant_id, at, Action.RUN_STARTED.value, f"run/{change.run_id}", at, None, _SUCCESS, _NOTHING
    )


def _cancel_requested(change: CancelRequested) -> Entry:
    at = change.requested_at
    action = Action.RUN_CANCEL_REQUESTED.value
    return make_entry(change.tenant_id, at, action, f"run/{change.run_id}", at, change.by, _SUCCESS, _NOTHING)


def _run_paused(change: RunPaused) -> Entry:
    at = change.paused_at
    entity = f"run/{change.run_id}"
    return make_entry(change.tenant_id, at, Action.RUN_PAUSED.value, entity, at, change.by, _SUCCESS, _NOTHING)


def _run_resumed(change: RunResumed) -> Entry:
    at = change.resumed_at
    entity = f"run/{change.run_id}"
    return make_entry(change.tenant_id, at, Action.RUN_RESUMED.value, entity, at, change.by, _SUCCESS, _NOTHING)


def _workflow_paused(change: WorkflowPaused) -> Entry:
    return _of_workflow(Action.WORKFLOW_PAUSED, change, change.paused_at)


def _workflow_resumed(change: WorkflowResumed) -> Entry:
    return _of_workflow(Action.WORKFLOW_RESUMED, change, change.resumed_at)


def _of_workflow(action: Action, change: WorkflowPaused | WorkflowResumed, at: Instant) -> Entry:
    """Give the entry in the tenant's chain, or in that of the mesh when it is about all tenants."""
    return make_entry(
        change.tenant_id, at, action.value, f"workflow/{change.workflow}", at, change.by, _SUCCESS, _NOTHING
    )


class _RunEnd(msgspec.Struct, gc=False):
    started_at: Instant | None
    status: ExecutionStatus


def _run_finished(change: RunFinished) -> Entry:
    at, status = change.ended_at, change.status
    outcome = _FAILURE if status is _FAILED or status is _TIMEOUT else _SUCCESS
    details = _RunEnd(change.started_at, status)
    return _make(change.tenant_id, at, _RUN_FINISHED, f"run/{change.run_id}", at, None, outcome, details)


# --- tasks ----------------------------------------------------------------------------------------------------------


class _AttemptBegin(msgspec.Struct, gc=False):
    attempt: int


def _task_started(change: TaskStarted) -> Entry:
    return make_entry(
        change.tenant_id,
        change.started_at,
        Action.TASK_STARTED.value,
        f"task/{change.run_id}/{change.component_id}",
        change.attempt,
        None,
        _SUCCESS,
        _AttemptBegin(change.attempt),
    )


class _AttemptEnd(msgspec.Struct, gc=False):
    attempt: int
    error_type: str | UnsetType
    retry_at: Instant
    started_at: Instant
    status: ExecutionStatus


def _attempt_failed(change: AttemptFailed) -> Entry:
    interrupted = change.status is ExecutionStatus.CANCELLED
    return make_entry(
        change.tenant_id,
        change.ended_at,
        Action.TASK_INTERRUPTED.value if interrupted else Action.TASK_RETRIED.value,
        f"task/{change.run_id}/{change.component_id}",
        change.number,
        None,
        _SUCCESS if interrupted else _FAILURE,
        _AttemptEnd(change.number, _error_type(change.error), change.retry_at, change.started_at, change.status),
    )


class _TaskEnd(msgspec.Struct, gc=False):
    attempt: int
    error_type: str | UnsetType
    started_at: Instant | None
    status: ExecutionStatus


def _task_finished(change: TaskFinished) -> Entry:
    status = change.status
    error = UNSET if change.error is None else _error_type(change.error)
    outcome = _FAILURE if status is _FAILED or status is _TIMEOUT else _SUCCESS
    tenant_id, at, number = change.tenant_id, change.ended_at, change.attempt
    entity = f"task/{change.run_id}/{change.component_id}"
    details = _TaskEnd(number, error, change.started_at, status)
    payload = _encode(_Payload(_TASK_FINISHED, _ENGINE, at, details, entity, outcome, tenant_id, number))
    return cast(Entry, (tenant_id, at, _TASK_FINISHED, entity, number, _ENGINE, outcome, payload))


def run_done(change: RunFinished) -> bytes:
    """Give the payload of the entry of a run that succeeded: see `task_done`."""
    at = change.ended_at
    return _encode(
        _Payload(
            _RUN_FINISHED,
            _ENGINE,
            at,
            _RunEnd(change.started_at, _DONE),
            f"run/{change.run_id}",
            _SUCCESS,
            change.tenant_id,
            at,
        )
    )


def task_done(change: TaskFinished) -> bytes:
    """Give the payload of the entry of a task that succeeded: `entries_of` gives all of it, and takes twice as long."""
    number = change.attempt
    return _encode(
        _Payload(
            _TASK_FINISHED,
            _ENGINE,
            change.ended_at,
            _TaskEnd(number, UNSET, change.started_at, _DONE),
            f"task/{change.run_id}/{change.component_id}",
            _SUCCESS,
            change.tenant_id,
            number,
        )
    )


def _dead_letter_discarded(change: DeadLetterDiscarded) -> Entry:
    # Not the reason: it may quote what the task was given, and the row has it.
    at = change.discarded_at
    entity = f"dead_letter/{change.run_id}:{change.component_id}"
    return make_entry(
        change.tenant_id, at, Action.DEAD_LETTER_DISCARDED.value, entity, at, change.by, _SUCCESS, _NOTHING
    )


class _Crash(msgspec.Struct, gc=False):
    attempt: int
    crashes: int


def task_crashed(at: Instant, tenant_id: str, run_id: str, component_id: str, attempt: int, crashes: int) -> Entry:
    """Give the entry of a task during which the process died."""
    return make_entry(
        tenant_id,
        at,
        Action.TASK_CRASHED.value,
        f"task/{run_id}/{component_id}",
        attempt,
        None,
        _FAILURE,
        _Crash(attempt, crashes),
    )


# --- tenants --------------------------------------------------------------------------------------------------------


def _exactly(literal: str) -> int | str:
    """Give a number with a fraction as the text that it has, so that no two programs write it as other bytes."""
    value = float(literal)
    return int(value) if value.is_integer() and abs(value) <= _EXACT_MAX else literal


_EXACT_MAX = 2**53
"""Up to which a fraction's kind of number is exact."""

_decode_exactly = msgspec.json.Decoder(float_hook=_exactly).decode


def _json(document: bytes) -> Any:
    """Give JSON that came from elsewhere, to be written again with sorted keys; what is none, as text."""
    try:
        return _decode_exactly(document)
    except msgspec.MsgspecError:
        return document.decode(errors="replace")


def _tenant_created(change: TenantCreated) -> Entry:
    # Not the name: it may be that of a person, and the table of tenants has it for as long as it is wanted.
    details = {
        "parent_id": change.parent_id,
        "policy": _json(change.policy),
        "quota": _json(change.quota),
        "tier": change.tier,
    }
    at = change.created_at
    return _of_tenant(change.tenant_id, change.tenant_id, at, Action.TENANT_CREATED, change.by, details)


def _tenant_plan_changed(change: TenantPlanChanged) -> Entry:
    details = {"policy": _json(change.policy), "quota": _json(change.quota), "tier": change.tier}
    at = change.changed_at
    return _of_tenant(change.tenant_id, change.tenant_id, at, Action.TENANT_PLAN_CHANGED, change.by, details)


def _breaker_changed(change: BreakerChanged) -> Entry:
    details = {
        "calls": change.calls,
        "failures": change.failures,
        "state": change.state,
        "trips": change.trips,
        "until": change.until,
    }
    entity = f"breaker/{change.workflow}/{change.name}" if change.workflow else f"breaker/{change.name}"
    outcome = _FAILURE if change.state is BreakerState.OPEN else _SUCCESS
    at, action = change.changed_at, Action.BREAKER_CHANGED.value
    return make_entry(change.tenant_id, at, action, entity, at, change.by, outcome, raw_details(details))


def _tenant_status_changed(change: TenantStatusChanged) -> Entry:
    match change.status:
        case TenantStatus.ACTIVE:
            action = Action.TENANT_RESUMED
        case TenantStatus.SUSPENDED:
            action = Action.TENANT_SUSPENDED
        case TenantStatus.DELETED:
            return tenant_deleted(change, 0, b"")
        case _:
            assert_never(change.status)
    return _of_tenant(change.tenant_id, change.tenant_id, change.changed_at, action, change.by, {})


def tenant_deleted(change: TenantStatusChanged, seq: int, digest: bytes) -> Entry:
    """Give the entry of a deletion, with the end of the tenant's own chain at that moment.

    It is in the chain of the mesh, so that it stays when the tenant's own chain is pruned.
    """
    details = {"last_hash": digest.hex(), "last_seq": seq}
    return _of_tenant(MESH, change.tenant_id, change.changed_at, Action.TENANT_DELETED, change.by, details)


def _of_tenant(chain: str, tenant_id: str, at: Instant, action: Action, by: Actor | None, details: Any) -> Entry:
    return make_entry(chain, at, action.value, f"tenant/{tenant_id}", at, by, _SUCCESS, raw_details(details))


def tenant_purged(tenant_id: str, at: Instant) -> Entry:
    """Give the entry of a tenant of which nothing is left but its chain."""
    return _of_tenant(MESH, tenant_id, at, Action.TENANT_PURGED, None, {})


def runs_pruned(tenant_id: str, at: Instant, run_ids: Sequence[str]) -> Entry:
    """Give the entry of finished runs that are deleted since their retention is over."""
    details = {"first_run_id": min(run_ids), "last_run_id": max(run_ids), "runs": len(run_ids)}
    return _of_tenant(tenant_id, tenant_id, at, Action.RUNS_PRUNED, None, details)


# --- the mesh itself ------------------------------------------------------------------------------------------------


def mesh_started(incarnation: int, ended_cleanly: bool, at: Instant, by: Actor | None) -> Entry:
    """Give the entry of the begin of a process's life."""
    details = {"incarnation": incarnation, "previous_ended_cleanly": ended_cleanly}
    return _of_mesh(Action.MESH_STARTED, incarnation, at, by, details)


def mesh_stopped(incarnation: int, at: Instant, by: Actor | None) -> Entry:
    """Give the entry of the clean end of a process's life."""
    return _of_mesh(Action.MESH_STOPPED, incarnation, at, by, {"incarnation": incarnation})


def mesh_restored(incarnation: int, at: Instant, running_tasks: int) -> Entry:
    """Give the entry of a database that begins again from a backup, with the tasks that ran when that was made."""
    return _of_mesh(Action.MESH_RESTORED, incarnation, at, None, {"running_tasks": running_tasks})


def _of_mesh(action: Action, incarnation: int, at: Instant, by: Actor | None, details: Any) -> Entry:
    return make_entry(MESH, at, action.value, "mesh", incarnation, by, _SUCCESS, raw_details(details))


# --- the rest -------------------------------------------------------------------------------------------------------


def _noted(change: Noted) -> Entry:
    return make_entry(
        change.tenant_id,
        change.noted_at,
        change.action.value,
        change.entity,
        change.number,
        change.by,
        change.outcome.value,
        raw_details(_json(change.details)),
    )


ENTRY_OF: dict[type[Change], Callable[[Any], Entry] | None] = {
    RunCreated: _run_submitted,
    RunLinked: _run_linked,
    RunStarted: _run_started,
    RunPaused: _run_paused,
    RunResumed: _run_resumed,
    WorkflowPaused: _workflow_paused,
    WorkflowResumed: _workflow_resumed,
    CancelRequested: _cancel_requested,
    RunFinished: _run_finished,
    TaskStarted: _task_started,
    AttemptFailed: _attempt_failed,
    TaskFinished: _task_finished,
    DeadLetterDiscarded: _dead_letter_discarded,
    TenantCreated: _tenant_created,
    TenantPlanChanged: _tenant_plan_changed,
    TenantStatusChanged: _tenant_status_changed,
    BreakerChanged: _breaker_changed,
    Noted: _noted,
    # The engine's own bookkeeping: it can be lost without anybody's loss, and nobody asked for it.
    HourReserved: None,
    EstimateLearnt: None,
    StatisticCounted: None,
    OutputCaptured: None,
    # Runs name the hash of their version's content, which proves it better than an entry.
    WorkflowStored: None,
}
"""By kind of change, what gives its entry; None for bookkeeping. A kind that is missing here fails a test."""


def entries_of(changes: Sequence[Change]) -> Iterable[Entry]:
    """Give the entries of changes of one kind that took effect, each once it is asked for."""
    if not changes:
        return ()
    entry_of = ENTRY_OF[type(changes[0])]
    return () if entry_of is None else map(entry_of, changes)
