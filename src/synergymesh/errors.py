"""Every error of SynergyMesh, one tree.

```text
SynergyMeshError                 code
├── InvalidRequest               invalid_request        also a ValueError: what was asked for can never work
│   ├── InvalidPayload           invalid_payload        not JSON, too large, too deep, NaN, NUL, lone surrogate
│   ├── InvalidWorkflow          invalid_workflow       the definition cannot be run
│   │   ├── CircularDependency   circular_dependency    .cycle is the path
│   │   ├── DuplicateComponent   duplicate_component
│   │   ├── UnknownComponent     unknown_component      .component_id, .nearest
│   │   └── GraphTooLarge        graph_too_large        .limit, .actual
│   └── WorkflowFileError        workflow_file          a workflow file that cannot be read or has no workflow
├── NotFound                     not_found              also a LookupError
│   ├── UnknownTenant            unknown_tenant         also a ValueError
│   ├── UnknownRun               unknown_run
│   ├── UnknownDeadLetter        unknown_dead_letter
│   ├── UnknownWorkflow          unknown_workflow
│   └── UnknownBreaker           unknown_breaker        nothing of that name has failed lately
├── Denied                       denied                 the tenant's plan does not allow it, or not now
│   ├── FeatureNotEnabled        feature_not_enabled    .feature, .tiers that have it
│   ├── RateLimitExceeded        rate_limit_exceeded    .retry_after seconds
│   └── BacklogFull              backlog_full           .waiting, .limit
├── Conflict                     conflict               the state of things does not allow it
│   ├── IdempotencyConflict      idempotency_conflict   the key was used for something else
│   ├── RunNotRetryable          run_not_retryable      open, successful, or retried already
│   ├── TenantNotActive          tenant_not_active      suspended or deleted
│   ├── LegalHold                legal_hold             the audit log of a tenant must be kept
│   └── TenantHasOpenRuns        tenant_has_open_runs
├── RunNotSuccessful             run_not_successful     what `RunHandle.result()` raises
│   ├── RunFailed                run_failed             .errors: component -> error
│   │   └── RunTimedOut          run_timed_out          a time limit of the run has passed
│   └── RunCancelled             run_cancelled
├── TaskSignal                   task_signal            what a task raises to say how it goes on
│   ├── RetryLater               retry_later            .delay seconds, .reason: another attempt, and no failure
│   └── GiveUp                   give_up                .reason: failed, and no other attempt
├── StoreError                   store                  the database
│   ├── StoreLocked              store_locked           another process owns it
│   ├── StoreCorrupt             store_corrupt          not a database, or a damaged one
│   ├── StoreUnavailable         store_unavailable      full disk, read-only, I/O error: may work later
│   └── SchemaMismatch           schema_mismatch        made by a newer version
├── NotReachable                 not_reachable          the process that executes the database does not answer
├── AuditKeyError                audit_key              the audit log's key cannot be used
└── NotRunning                   not_running            the orchestrator is not started, or closed
```

Each has a stable public `code`. What user code raises is an `Outcome`; of these it raises only a `TaskSignal`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar


class SynergyMeshError(Exception):
    """Stand for every error that SynergyMesh raises on purpose."""

    code: ClassVar[str] = "error"


# --- what was asked for can never work ------------------------------------------------------------------------------


class InvalidRequest(SynergyMeshError, ValueError):
    """Say that a value cannot be accepted; the message names the field and the remedy."""

    code = "invalid_request"

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class InvalidPayload(InvalidRequest):
    """Say that an input or a result is not a payload: plain JSON within the limits."""

    code = "invalid_payload"


class InvalidWorkflow(InvalidRequest):
    """Say that a workflow definition cannot be run."""

    code = "invalid_workflow"


class CircularDependency(InvalidWorkflow):
    """Say that components depend on each other in a circle.

    `cycle` is the path, its first component again at the end.
    """

    code = "circular_dependency"

    def __init__(self, cycle: Sequence[str]) -> None:
        shown = list(cycle) if len(cycle) <= 12 else [*cycle[:8], f"… {len(cycle) - 11} more …", *cycle[-3:]]
        super().__init__(f"circular dependency: {' -> '.join(shown)}. Remove one of these dependencies.")
        self.cycle = tuple(cycle)


class DuplicateComponent(InvalidWorkflow):
    """Say that two components have the same id."""

    code = "duplicate_component"

    def __init__(self, component_id: str) -> None:
        super().__init__(f"two components have the id {component_id!r:.100}. Give one of them another id.")
        self.component_id = component_id


class UnknownComponent(InvalidWorkflow):
    """Say that there is no such component, and which ids are near."""

    code = "unknown_component"

    def __init__(self, component_id: str, nearest: Sequence[str] = ()) -> None:
        hint = f" Did you mean {' or '.join(repr(n) for n in nearest)}?" if nearest else ""
        super().__init__(f"there is no component {component_id!r:.100}.{hint}")
        self.component_id = component_id
        self.nearest = tuple(nearest)


class GraphTooLarge(InvalidWorkflow):
    """Say that a graph has more components or dependencies than is allowed."""

    code = "graph_too_large"

    def __init__(self, noun: str, *, actual: int, limit: int) -> None:
        super().__init__(
            f"the graph has {actual:,} {noun}, the limit is {limit:,}. Split the workflow, or raise the limit."
        )
        self.actual = actual
        self.limit = limit


class WorkflowFileError(InvalidRequest):
    """Say that a workflow file cannot be used: missing, broken, or without a workflow."""

    code = "workflow_file"


# --- not found ------------------------------------------------------------------------------------------------------


class NotFound(SynergyMeshError, LookupError):
    """Say that there is no such thing, or none that this tenant may see."""

    code = "not_found"


class UnknownTenant(NotFound, ValueError):
    """Say that there is no tenant of that id."""

    code = "unknown_tenant"

    def __init__(self, tenant_id: object) -> None:
        super().__init__(f"there is no tenant {tenant_id!r:.100}. `synergymesh tenants list` shows the tenants.")
        self.tenant_id = tenant_id


class UnknownRun(NotFound):
    """Say that there is no run of that id for this tenant."""

    code = "unknown_run"

    def __init__(self, run_id: object) -> None:
        super().__init__(f"there is no run {run_id!r:.100}. `synergymesh runs` shows the runs.")
        self.run_id = run_id


class UnknownDeadLetter(NotFound):
    """Say that no task of that run failed for good under that name, for this tenant."""

    code = "unknown_dead_letter"

    def __init__(self, dead_letter_id: object) -> None:
        super().__init__(
            f"there is no dead letter {dead_letter_id!r:.100}. `synergymesh dead-letters list` shows them (RUN:TASK)."
        )
        self.dead_letter_id = dead_letter_id


class UnknownWorkflow(NotFound):
    """Say that no workflow of that name is registered."""

    code = "unknown_workflow"

    def __init__(self, name: object, known: Sequence[str] = ()) -> None:
        listed = f" Known: {', '.join(known)}." if known else " None is registered."
        super().__init__(f"there is no workflow {name!r}.{listed} Pass it with workflows=[...], or submit the object.")
        self.name = name


class UnknownBreaker(NotFound):
    """Say that there is no circuit of that name to be reset: nothing of it has failed lately."""

    code = "unknown_breaker"

    def __init__(self, name: object, known: Sequence[str] = ()) -> None:
        listed = f" Known: {', '.join(known)}." if known else ""
        super().__init__(f"there is no breaker {name!r} that has counted a failure lately.{listed}")
        self.name = name


# --- the plan does not allow it -------------------------------------------------------------------------------------


class Denied(SynergyMeshError):
    """Say that the tenant's plan does not allow it, or not now."""

    code = "denied"


class FeatureNotEnabled(Denied):
    """Say that the tenant's tier does not have a feature, and which tiers have it."""

    code = "feature_not_enabled"

    def __init__(self, feature: str, *, tenant_id: str, tier: str, tiers: Sequence[str], what: str) -> None:
        having = f"the tiers {', '.join(tiers)} have it" if tiers else "no tier has it"
        super().__init__(f"{what} needs the feature {feature!r}, which {tenant_id} ({tier}) does not have: {having}.")
        self.feature = feature
        self.tenant_id = tenant_id
        self.tiers = tuple(tiers)


class RateLimitExceeded(Denied):
    """Say that a tenant submits too fast, and after how many seconds the next submission is admitted."""

    code = "rate_limit_exceeded"

    def __init__(self, tenant_id: str, *, per_second: int, retry_after: float) -> None:
        super().__init__(
            f"{tenant_id} submits faster than {per_second:,} per second. Try again in {retry_after:.3f} seconds."
        )
        self.tenant_id = tenant_id
        self.retry_after = retry_after


class BacklogFull(Denied):
    """Say that too many tasks wait already."""

    code = "backlog_full"

    def __init__(self, owner: str, *, waiting: int, asked: int, limit: int) -> None:
        super().__init__(
            f"{owner} has {waiting:,} tasks waiting and the limit is {limit:,}, so {asked:,} more are refused. "
            f"Submit them when some have ended."
        )
        self.owner = owner
        self.waiting = waiting
        self.limit = limit


# --- the state of things does not allow it --------------------------------------------------------------------------


class Conflict(SynergyMeshError):
    """Say that the present state of things does not allow it."""

    code = "conflict"


class IdempotencyConflict(Conflict):
    """Say that an idempotency key was used before, for something else.

    `run_id` or `tenant_id` names what was made under it.
    """

    code = "idempotency_conflict"

    def __init__(self, key: str, run_id: str | None = None, *, tenant_id: str | None = None) -> None:
        which = (
            f"{run_id}, which has another workflow or input"
            if tenant_id is None
            else f"{tenant_id}, which was asked for with another name, tier, quota, parent or share"
        )
        super().__init__(f"the idempotency key {key!r} belongs to {which}. Use a new key.")
        self.key = key
        self.run_id = run_id
        self.tenant_id = tenant_id


class RunNotRetryable(Conflict):
    """Say that a run cannot be retried as it is now, why, and what to do instead."""

    code = "run_not_retryable"

    def __init__(self, run_id: str, why: str) -> None:
        super().__init__(f"{run_id} cannot be retried: {why}")
        self.run_id = run_id


class TenantNotActive(Conflict):
    """Say that a tenant is suspended or just being deleted, so nothing can be submitted for it."""

    code = "tenant_not_active"

    def __init__(self, tenant_id: str, status: str) -> None:
        remedy = "Resume the tenant first." if status == "suspended" else "Use another tenant, or try again."
        super().__init__(f"{tenant_id} is {status}: nothing can be submitted for it. {remedy}")
        self.tenant_id = tenant_id


class LegalHold(Conflict):
    """Say that a legal hold forbids to prune the audit log of a tenant."""

    code = "legal_hold"

    def __init__(self, tenant_id: str) -> None:
        name = tenant_id or "the mesh"
        super().__init__(f"the audit log of {name} is under a legal hold. Release the hold before you prune.")
        self.tenant_id = tenant_id


class TenantHasOpenRuns(Conflict):
    """Say that a tenant cannot be deleted because runs of it are open."""

    code = "tenant_has_open_runs"

    def __init__(self, tenant_id: str, open_runs: int) -> None:
        super().__init__(f"{tenant_id} has {open_runs:,} open runs. Wait for them, or delete it with force=True.")
        self.tenant_id = tenant_id
        self.open_runs = open_runs


# --- how a run ended ------------------------------------------------------------------------------------------------


class RunNotSuccessful(SynergyMeshError):
    """Say that a run has no result because it did not end well."""

    code = "run_not_successful"

    def __init__(self, message: str, *, run_id: str, errors: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.run_id = run_id
        self.errors: dict[str, str] = dict(errors or {})


class RunFailed(RunNotSuccessful):
    """Say that a run failed; `errors` has the error of every failed task by component."""

    code = "run_failed"


class RunTimedOut(RunFailed):
    """Say that a time limit of the run has passed; `errors` has the error of every failed task by component."""

    code = "run_timed_out"


class RunCancelled(RunNotSuccessful):
    """Say that a run was cancelled."""

    code = "run_cancelled"


# --- what tasks raise -------------------------------------------------------------------------------------------------


class TaskSignal(SynergyMeshError):
    """Say how a task goes on; raised by the task itself."""

    code = "task_signal"


class RetryLater(TaskSignal):
    """Ask for another attempt after a delay, in a task that cannot do its work yet.

    It is no failure: it does not count against `max_retries`. A task can ask 1,000 times, and not beyond its policy's
    `max_elapsed` or its own time limits.

    Args:
        delay: seconds; more than 30 days count as 30 days.
        reason: for people.

    Raises:
        InvalidRequest: delay is no finite number of seconds from 0.
    """

    code = "retry_later"

    def __init__(self, delay: float, reason: str = "") -> None:
        if not isinstance(delay, (int, float)) or isinstance(delay, bool) or not 0 <= delay < math.inf:
            raise InvalidRequest(f"delay must be a number of seconds from 0, not {delay!r:.100}.", field="delay")
        super().__init__(delay, reason)
        self.delay = float(delay)
        self.reason = str(reason)

    def __str__(self) -> str:
        return self.reason or f"again in {self.delay:g} s"


class GiveUp(TaskSignal):
    """Fail a task for good, whatever its retry policy says: another attempt would fail as well.

    Args:
        reason: for people.
    """

    code = "give_up"

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = str(reason)


# --- the database ---------------------------------------------------------------------------------------------------


class StoreError(SynergyMeshError):
    """Say that the database cannot do its work."""

    code = "store"


class StoreLocked(StoreError):
    """Say that another process owns the database."""

    code = "store_locked"


class StoreCorrupt(StoreError):
    """Say that the file is not a database of SynergyMesh, or a damaged one."""

    code = "store_corrupt"


class StoreUnavailable(StoreError):
    """Say that the database cannot be read or written now: full disk, read-only, I/O error."""

    code = "store_unavailable"


class SchemaMismatch(StoreError):
    """Say that the database was made by another version of SynergyMesh that this one does not understand."""

    code = "schema_mismatch"


class NotReachable(SynergyMeshError):
    """Say that the process that executes a database could not be asked, or did not answer."""

    code = "not_reachable"


class AuditKeyError(SynergyMeshError):
    """Say that the key of the audit log cannot be used: others may read it, it is none, or it is gone."""

    code = "audit_key"


class NotRunning(SynergyMeshError):
    """Say that the orchestrator is not started yet, or already closed."""

    code = "not_running"
