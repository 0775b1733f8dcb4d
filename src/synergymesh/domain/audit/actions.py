"""The catalogue of the audit log: every action that it records, of what, and when.

The single source of the documentation's table, of what retention treats as sensitive, and of the test that every action
is reached. An entry is about an *entity*: `run/run-…`, `task/run-…/component`, `tenant/…`, `mesh`, and so on.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """How what was done ended. A run or task that was cancelled is no failure."""

    SUCCESS = "success"
    FAILURE = "failure"
    DENIED = "denied"


class Action(StrEnum):
    """What is recorded; the order is that of the documentation."""

    RUN_SUBMITTED = "run.submitted"
    RUN_LINKED = "run.linked"
    RUN_STARTED = "run.started"
    RUN_CANCEL_REQUESTED = "run.cancel_requested"
    RUN_PAUSED = "run.paused"
    RUN_RESUMED = "run.resumed"
    RUN_FINISHED = "run.finished"
    TASK_STARTED = "task.started"
    TASK_RETRIED = "task.retried"
    TASK_INTERRUPTED = "task.interrupted"
    TASK_CRASHED = "task.crashed"
    TASK_FINISHED = "task.finished"
    DEAD_LETTER_REDRIVEN = "dead_letter.redriven"
    DEAD_LETTER_DISCARDED = "dead_letter.discarded"
    RUNS_PRUNED = "runs.pruned"
    WORKFLOW_PAUSED = "workflow.paused"
    WORKFLOW_RESUMED = "workflow.resumed"
    LIMIT_HIT = "limit.hit"
    BREAKER_CHANGED = "breaker.changed"
    TENANT_CREATED = "tenant.created"
    TENANT_PLAN_CHANGED = "tenant.plan_changed"
    TENANT_SUSPENDED = "tenant.suspended"
    TENANT_RESUMED = "tenant.resumed"
    TENANT_DELETED = "tenant.deleted"
    TENANT_PURGED = "tenant.purged"
    MESH_STARTED = "mesh.started"
    MESH_STOPPED = "mesh.stopped"
    MESH_RESTORED = "mesh.restored"
    AUDIT_READ = "audit.read"
    AUDIT_EXPORTED = "audit.exported"
    AUDIT_PRUNED = "audit.pruned"
    AUDIT_HELD = "audit.held"
    AUDIT_RELEASED = "audit.released"
    AUDIT_ERASED = "audit.erased"
    KEY_CREATED = "key.created"
    KEY_ROTATED = "key.rotated"
    KEY_REVOKED = "key.revoked"


ROUTINE = frozenset({Action.TASK_FINISHED, Action.TASK_STARTED, Action.RUN_FINISHED, Action.RUN_STARTED})
"""What happens by itself all the time; nearly all entries are of these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """Describe an action.

    Attributes:
        action: its name.
        entity: what its entries are about.
        when: in which case it is recorded, for people.
        sensitive: whether it is about power or access rather than daily work, and is kept longer.
        of_mesh: whether it is in the chain of the mesh itself, not in a tenant's.
    """

    action: Action
    entity: str
    when: str
    sensitive: bool = False
    of_mesh: bool = False


def _routine(action: Action, entity: str, when: str) -> Described:
    return Described(action=action, entity=entity, when=when)


def _sensitive(action: Action, entity: str, when: str, *, of_mesh: bool = False) -> Described:
    return Described(action=action, entity=entity, when=when, sensitive=True, of_mesh=of_mesh)


CATALOGUE: dict[Action, Described] = {
    described.action: described
    for described in (
        _routine(Action.RUN_SUBMITTED, "run/RUN", "a run is acknowledged"),
        _routine(Action.RUN_LINKED, "run/RUN", "a new run goes on with an earlier one, or repeats it"),
        _routine(Action.RUN_STARTED, "run/RUN", "the first attempt of a run that goes on after it"),
        _routine(Action.RUN_CANCEL_REQUESTED, "run/RUN", "somebody wants a run to stop"),
        _routine(Action.RUN_PAUSED, "run/RUN", "nothing more of a run starts"),
        _routine(Action.RUN_RESUMED, "run/RUN", "a paused run goes on"),
        _routine(Action.RUN_FINISHED, "run/RUN", "a run is final; its status is in the details"),
        _routine(Action.TASK_STARTED, "task/RUN/COMPONENT", "an attempt has been running for a second, or is watched"),
        _routine(Action.TASK_RETRIED, "task/RUN/COMPONENT", "an attempt failed and another one follows"),
        _routine(Action.TASK_INTERRUPTED, "task/RUN/COMPONENT", "the process was shut down while an attempt ran"),
        _routine(Action.TASK_CRASHED, "task/RUN/COMPONENT", "the process died while an attempt was known to run"),
        _routine(Action.TASK_FINISHED, "task/RUN/COMPONENT", "a task is final; its status is in the details"),
        _routine(
            Action.DEAD_LETTER_REDRIVEN, "dead_letter/RUN:COMPONENT", "the run of a dead letter goes on in a new one"
        ),
        _sensitive(
            Action.DEAD_LETTER_DISCARDED, "dead_letter/RUN:COMPONENT", "a dead letter is put away, with a reason"
        ),
        _sensitive(Action.WORKFLOW_PAUSED, "workflow/WORKFLOW", "nothing more of a workflow starts"),
        _sensitive(Action.WORKFLOW_RESUMED, "workflow/WORKFLOW", "a paused workflow goes on"),
        _routine(
            Action.RUNS_PRUNED,
            "tenant/TENANT",
            "finished runs past their retention are deleted; names the first, the last",
        ),
        _routine(
            Action.LIMIT_HIT, "limit/REASON", "a submission is denied; the further ones of a minute are counted in one"
        ),
        _routine(
            Action.BREAKER_CHANGED, "breaker/NAME", "a circuit opens, is tried again, or closes, by itself or by hand"
        ),
        _sensitive(Action.TENANT_CREATED, "tenant/TENANT", "a tenant joins"),
        _sensitive(Action.TENANT_PLAN_CHANGED, "tenant/TENANT", "tier, quota, weight or throttle are changed"),
        _sensitive(Action.TENANT_SUSPENDED, "tenant/TENANT", "a tenant is suspended"),
        _sensitive(Action.TENANT_RESUMED, "tenant/TENANT", "a suspended tenant is resumed"),
        _sensitive(
            Action.TENANT_DELETED, "tenant/TENANT", "a tenant is deleted; names the head of its chain", of_mesh=True
        ),
        _sensitive(Action.TENANT_PURGED, "tenant/TENANT", "the last data of a deleted tenant is gone", of_mesh=True),
        _sensitive(Action.MESH_STARTED, "mesh", "a process takes the database", of_mesh=True),
        _sensitive(Action.MESH_STOPPED, "mesh", "a process leaves the database cleanly", of_mesh=True),
        _sensitive(Action.MESH_RESTORED, "mesh", "the database begins again from a backup", of_mesh=True),
        _sensitive(Action.AUDIT_READ, "audit", "the log of a tenant is read"),
        _sensitive(Action.AUDIT_EXPORTED, "audit", "the log of a tenant is exported"),
        _sensitive(Action.AUDIT_PRUNED, "audit", "entries whose time is over are deleted"),
        _sensitive(Action.AUDIT_HELD, "audit", "a legal hold forbids to prune"),
        _sensitive(Action.AUDIT_RELEASED, "audit", "a legal hold ends"),
        _sensitive(Action.AUDIT_ERASED, "audit", "the personal data of somebody is made unreadable", of_mesh=True),
        _sensitive(Action.KEY_CREATED, "key/KEY", "a key that signs the log is made; has the public key", of_mesh=True),
        _sensitive(Action.KEY_ROTATED, "key/KEY", "a key takes the place of another one", of_mesh=True),
        _sensitive(Action.KEY_REVOKED, "key/KEY", "the next key took its place: it signs no more", of_mesh=True),
    )
}


def format_actions() -> str:
    """Give the table of all actions as Markdown, for the docs."""
    lines = ["| action | entity | recorded when | chain | sensitive |", "|---|---|---|---|---|"]
    for action, described in CATALOGUE.items():
        chain = "the mesh's" if described.of_mesh else "the tenant's"
        sensitive = "yes" if described.sensitive else ""
        lines.append(f"| `{action}` | `{described.entity}` | {described.when} | {chain} | {sensitive} |")
    return "\n".join(lines) + "\n"
