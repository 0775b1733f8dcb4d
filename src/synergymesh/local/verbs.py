"""What may be asked of the process that executes a database: one table.

A verb has the name of the method of `Orchestrator` that answers it, a struct whose fields are the method's keyword
arguments, and the type of the answer. Whoever adds a method that other processes may call adds one line here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from synergymesh.audit.auditing import AuditKey
from synergymesh.audit.entries import AuditEntries
from synergymesh.audit.exporting import AuditExport
from synergymesh.domain.observability.alerts import Condition
from synergymesh.domain.observability.service_levels import ServiceLevel
from synergymesh.domain.quota import ResourceQuota
from synergymesh.domain.scheduling.limits import CohortShare
from synergymesh.domain.scheduling.neighbours import Neighbour
from synergymesh.domain.tenants import Tenant
from synergymesh.engine.control.dead_letter_views import DeadLetter
from synergymesh.engine.control.dead_letters import Redriven
from synergymesh.engine.control.pausing import PausedWorkflow
from synergymesh.engine.housekeeping import Pruned
from synergymesh.engine.observability.explaining import RunExplanation
from synergymesh.engine.observability.monitoring import TenantHealth
from synergymesh.engine.observability.overview import Overview
from synergymesh.engine.observability.views import LogLine
from synergymesh.ports.audit_keeping import HoldRecord

AnswerT = TypeVar("AnswerT")
AnswerT_co = TypeVar("AnswerT_co", covariant=True)

REDRIVE_SECONDS = 600.0
"""Redriving a thousand runs waits for their tenants' submission rates."""

ANSWER_SECONDS = 30.0
"""A commit on a slow disk, many times over."""

DELETE_SECONDS = 600.0
"""Deleting a tenant waits until each of its runs is cancelled."""

LONG_SECONDS = 3_600.0
"""Reading a log of a hundred million entries from one end to the other."""


PRUNE_SECONDS = 3_600.0
"""Millions of rows, some thousand per second."""


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Say nothing more than the verb."""


class OfRun(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Name a run; of a certain tenant, if one is given."""

    run_id: str
    tenant: str | None = None


class LogsOf(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Name a run, or one of its tasks."""

    run_id: str
    task_id: str | None = None


class OfTenant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Name a tenant."""

    tenant_id: str


class Shown(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Say how much of something is wanted."""

    limit: int


class NewTenant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Describe a tenant to be made."""

    tenant_name: str
    tier: str
    quota: ResourceQuota | None = None
    parent: str | None = None
    share: CohortShare | None = None
    idempotency_key: str | None = None


class NewTier(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Give a tenant a tier."""

    tenant_id: str
    tier: str


class NewQuota(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Give a tenant a quota."""

    tenant_id: str
    quota: ResourceQuota


class NewWeight(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Give a tenant a weight."""

    tenant_id: str
    weight: int | None


class NewShare(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Give a sub-tenant a share of its parent's quota."""

    tenant_id: str
    share: CohortShare | None


class Throttle(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Throttle a tenant."""

    tenant_id: str
    percent: int | None


class Retention(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Let a tenant's finished runs be kept so many days."""

    tenant_id: str
    days: float | None


class Deletion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Delete a tenant."""

    tenant_id: str
    force: bool = False


class Retry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Go on with a run."""

    run_id: str
    from_failed: bool = True
    tenant: str | None = None


class Replay(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Do a run again."""

    run_id: str
    input: dict[str, Any] | None = None
    tenant: str | None = None


class OfDeadLetter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Name a dead letter."""

    dead_letter_id: str
    tenant: str | None = None


class DeadLetterFilter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Say which dead letters."""

    tenant: str | None = None
    workflow: str | None = None
    error_type: str | None = None
    since: datetime | None = None
    limit: int = 100


class Discard(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Put a dead letter away."""

    dead_letter_id: str
    reason: str
    tenant: str | None = None


class OfWorkflow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Name a workflow; of a certain tenant, or of all."""

    workflow: str
    tenant: str | None = None


class NewRun(msgspec.Struct, frozen=True):
    """Name a run that was made."""

    id: str
    tenant_id: str


def _new_run(handle: Any) -> NewRun:
    return NewRun(handle.id, handle.tenant_id)


def _as_it_is(answer: Any) -> Any:
    return answer


class Reset(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Close a circuit of a tenant, by its name or by workflow and component."""

    tenant_id: str
    breaker: str | None = None
    workflow: str | None = None
    component: str | None = None


class AuditSearch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Say which entries of the audit log are wanted."""

    tenant: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    action: str | None = None
    actor: str | None = None
    entity: str | None = None
    outcome: str | None = None
    cursor: int | None = None
    limit: int = 100


class AuditWish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Say what of the audit log is to be exported, and where to."""

    path: str
    tenant: str | None = None
    format: str = "jsonl"
    since: datetime | None = None
    until: datetime | None = None


class OfLog(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Name the audit log of a tenant; None for all."""

    tenant: str | None = None


class OneLog(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Name the audit log of a tenant."""

    tenant: str


class Hold(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Hold the audit log of a tenant for a reason."""

    tenant: str
    reason: str


class OfSubject(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Name somebody of whom there is personal data."""

    subject: str


@dataclass(frozen=True, slots=True)
class Verb(Generic[AnswerT_co]):
    """Name something that may be asked.

    Attributes:
        name: of the method of `Orchestrator`.
        arguments: a struct whose fields are keyword arguments of the method.
        answer: what the method returns.
        seconds_max: how long the answer may take.
    """

    name: str
    arguments: type[msgspec.Struct]
    answer: type[AnswerT_co]
    seconds_max: float = ANSWER_SECONDS
    of: Callable[[Any], Any] = _as_it_is


CANCEL_RUN = Verb("cancel_run", OfRun, bool)
EXPLAIN = Verb("explain", OfRun, RunExplanation)
OVERVIEW = Verb("overview", Shown, Overview)
NEIGHBOURS = Verb("neighbours", Nothing, list[Neighbour])
LIST_TENANTS = Verb("list_tenants", Nothing, list[Tenant])
GET_TENANT = Verb("get_tenant", OfTenant, Tenant)
CREATE_TENANT = Verb("create_tenant", NewTenant, Tenant)
SET_TIER = Verb("set_tier", NewTier, Tenant)
SET_QUOTA = Verb("set_quota", NewQuota, Tenant)
SET_WEIGHT = Verb("set_weight", NewWeight, Tenant)
SET_SHARE = Verb("set_share", NewShare, Tenant)
THROTTLE_TENANT = Verb("throttle_tenant", Throttle, Tenant)
LOGS = Verb("logs", LogsOf, list[LogLine])
ALERTS = Verb("alerts", Nothing, list[Condition])
METRICS_TEXT = Verb("metrics_text", Nothing, str)
GET_TENANT_HEALTH = Verb("get_tenant_health", OfTenant, TenantHealth)
SLA_REPORT = Verb("sla_report", OfTenant, list[ServiceLevel])
SUSPEND_TENANT = Verb("suspend_tenant", OfTenant, Tenant)
RESUME_TENANT = Verb("resume_tenant", OfTenant, Tenant)
SET_RETENTION = Verb("set_retention", Retention, Tenant)
PRUNE = Verb("prune", Nothing, Pruned, seconds_max=PRUNE_SECONDS)
RESET_BREAKER = Verb("reset_breaker", Reset, type(None))
DELETE_TENANT = Verb("delete_tenant", Deletion, type(None), seconds_max=DELETE_SECONDS)
AUDIT_LOG = Verb("audit_log", AuditSearch, AuditEntries)
EXPORT_AUDIT = Verb("export_audit", AuditWish, AuditExport, seconds_max=LONG_SECONDS)
PRUNE_AUDIT = Verb("prune_audit", OfLog, int, seconds_max=LONG_SECONDS)
HOLD_AUDIT = Verb("hold_audit", Hold, bool)
RELEASE_AUDIT = Verb("release_audit", OneLog, bool)
AUDIT_HOLDS = Verb("audit_holds", Nothing, list[HoldRecord])
ERASE_AUDIT = Verb("erase_audit", OfSubject, bool)
AUDIT_KEYS = Verb("audit_keys", Nothing, list[AuditKey])
ROTATE_AUDIT_KEY = Verb("rotate_audit_key", Nothing, AuditKey)

RETRY_RUN = Verb("retry_run", Retry, NewRun, of=_new_run)
REPLAY = Verb("replay", Replay, NewRun, of=_new_run)
REDRIVE_DEAD_LETTER = Verb("redrive_dead_letter", OfDeadLetter, NewRun, of=_new_run)
REDRIVE_DEAD_LETTERS = Verb("redrive_dead_letters", DeadLetterFilter, Redriven, seconds_max=REDRIVE_SECONDS)
DISCARD_DEAD_LETTER = Verb("discard_dead_letter", Discard, DeadLetter)
PAUSE_RUN = Verb("pause_run", OfRun, bool)
UNPAUSE_RUN = Verb("resume_run", OfRun, bool)
PAUSE_WORKFLOW = Verb("pause_workflow", OfWorkflow, PausedWorkflow)
UNPAUSE_WORKFLOW = Verb("resume_workflow", OfWorkflow, bool)

VERBS: Mapping[str, Verb[Any]] = MappingProxyType(
    {
        verb.name: verb
        for verb in (
            CANCEL_RUN,
            EXPLAIN,
            OVERVIEW,
            NEIGHBOURS,
            LOGS,
            ALERTS,
            METRICS_TEXT,
            GET_TENANT_HEALTH,
            SLA_REPORT,
            LIST_TENANTS,
            GET_TENANT,
            CREATE_TENANT,
            SET_TIER,
            SET_QUOTA,
            SET_WEIGHT,
            SET_SHARE,
            THROTTLE_TENANT,
            SET_RETENTION,
            PRUNE,
            SUSPEND_TENANT,
            RESUME_TENANT,
            RESET_BREAKER,
            DELETE_TENANT,
            RETRY_RUN,
            REPLAY,
            REDRIVE_DEAD_LETTER,
            REDRIVE_DEAD_LETTERS,
            DISCARD_DEAD_LETTER,
            PAUSE_RUN,
            UNPAUSE_RUN,
            PAUSE_WORKFLOW,
            UNPAUSE_WORKFLOW,
            AUDIT_LOG,
            EXPORT_AUDIT,
            PRUNE_AUDIT,
            HOLD_AUDIT,
            RELEASE_AUDIT,
            AUDIT_HOLDS,
            ERASE_AUDIT,
            AUDIT_KEYS,
            ROTATE_AUDIT_KEY,
        )
    }
)

Answering = Callable[..., Awaitable[Any]]


class Asking(Protocol):
    """Answer verbs: an orchestrator of this process, or the process that executes."""

    async def ask(self, verb: Verb[AnswerT], **arguments: Any) -> AnswerT:
        """Give the answer; raises what the method of `Orchestrator` raises."""
        ...


class Here:
    """Answer verbs by an orchestrator of this process."""

    def __init__(self, mesh: object) -> None:
        self._mesh = mesh

    async def ask(self, verb: Verb[AnswerT], **arguments: Any) -> AnswerT:
        """Give the answer; raises what the method of `Orchestrator` raises."""
        answer: AnswerT = verb.of(await getattr(self._mesh, verb.name)(**arguments))
        return answer


def answering(mesh: object) -> dict[str, Answering]:
    """Give by verb the method of an orchestrator that answers it."""
    return {name: getattr(mesh, name) for name in VERBS}
