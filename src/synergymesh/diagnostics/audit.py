"""Examines the audit log: what did not succeed, what was done with power or access, and whether anything is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from synergymesh.audit.checkpoint_file import CheckpointFile
from synergymesh.audit.checkpoints import present_key
from synergymesh.audit.entries import AuditEntry, record_view
from synergymesh.audit.verifying import verify_log
from synergymesh.audit_assembly import audit_places
from synergymesh.diagnostics.audit_lag import examine_audit_lag
from synergymesh.diagnostics.findings import Finding, note, ok, wrong
from synergymesh.domain.audit.actions import CATALOGUE, Action, Outcome
from synergymesh.domain.audit.verification import Damage, LogReport, Verdict
from synergymesh.domain.instants import Instant, to_datetime
from synergymesh.errors import InvalidRequest
from synergymesh.ports.audit_keeping import AuditScan, UnsuccessfulRecord
from synergymesh.settings import read_settings
from synergymesh.store.sqlite import SqliteReader

SENSITIVE_SHOWN_MAX = 200
"""Entries about power and access that are given, newest first; `synergymesh audit list` pages through all."""

SENSITIVE = tuple(action for action, described in CATALOGUE.items() if described.sensitive)

DAMAGE_SHOWN_MAX = 20

NOTED = {
    Action.MESH_RESTORED: "Make sure that whoever did it was to: what the newer database had is in the old file only.",
    Action.TENANT_DELETED: "Make sure that whoever did it was to.",
    Action.AUDIT_PRUNED: "Entries past their retention are gone; tombstones account for them.",
    Action.AUDIT_ERASED: "Make sure that the subject asked for it.",
    Action.AUDIT_RELEASED: "Make sure that the reason of the hold is over.",
    Action.KEY_ROTATED: "Pin the new public key where the log is verified: `synergymesh audit keys export`.",
    Action.KEY_REVOKED: "Trust nothing that it signed after that moment.",
}
"""Sensitive actions that are worth a word of their own, and what to do about them."""

_RESTORE = "Keep the database and the checkpoints as evidence; compare them with a backup and with the sinks' copies."
_REMEDIES = {
    Damage.WRONG_KEY: "Verify with the key that you trust (`synergymesh audit verify --key`); if it is right, the "
    "checkpoints are somebody else's.",
    Damage.WRONG_LOG: "The checkpoints are those of another database: name the right file (`audit_checkpoint_file`).",
    Damage.ROLLED_BACK: "An older database was put in place: restore the newer one, or find out who did it and why.",
    Damage.PRUNED_UNDER_HOLD: "Find out who pruned it; a backup from before still has the entries.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsuccessful:
    """Count what failed or was denied for the same reason.

    Attributes:
        tenant_id: whose; '' for the mesh itself.
        outcome: failure or denied.
        reason: the type of the error, or the name of the limit; empty where neither is known.
        last_at: when it happened last, aware (UTC).
    """

    tenant_id: str
    action: str
    outcome: str
    reason: str
    count: int
    last_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditExamination:
    """Say what the audit log tells of a time, and whether it can be believed.

    Attributes:
        since: from when on failures and sensitive actions are counted, aware (UTC).
        entries, chains: that were verified, whatever their time.
        unsuccessful: the most frequent first.
        sensitive: entries about power and access, the newest first, at most 200.
        findings: with what to do.
    """

    since: datetime
    entries: int
    chains: int
    unsuccessful: tuple[Unsuccessful, ...]
    sensitive: tuple[AuditEntry, ...]
    findings: tuple[Finding, ...]


async def examine_audit(
    database: str, now: Instant, *, since: Instant, tenant_id: str | None = None
) -> AuditExamination:
    """Examine the audit log of a database; it is only read, also while another process owns it.

    Args:
        database: URL or file name.
        now: the present moment.
        since: from when on failures and sensitive actions are counted; the chains are verified as a whole.
        tenant_id: whose log; '' for the mesh's own, None for all.

    Raises:
        InvalidRequest: that is no database file, or its checkpoints cannot be read.
        StoreError: it cannot be read.
        AuditKeyError: the key beside it cannot be used.
    """
    reader = SqliteReader(database)
    places = audit_places(read_settings(database=database), reader.path)
    assert places.checkpoints is not None
    assert places.key is not None
    present = present_key(places.key)
    keys = [] if present is None else [present]
    try:  # before the log, which may grow meanwhile
        lines = [line for _, line in CheckpointFile(places.checkpoints).lines()] if keys else []
    except OSError as error:
        raise InvalidRequest(f"the checkpoints cannot be read: {error}.", field="checkpoints") from None
    await reader.open()

    def work(scan: AuditScan) -> tuple[LogReport, list[UnsuccessfulRecord], list[AuditEntry]]:
        report = verify_log(scan, keys, lines, tenant_id=tenant_id)
        sensitive = scan.newest(SENSITIVE, tenant_id, since, SENSITIVE_SHOWN_MAX)
        return report, scan.unsuccessful(tenant_id, since), [record_view(record) for record in sensitive]

    try:
        report, unsuccessful, sensitive = await reader.scan_audit(work)
    finally:
        await reader.close()
    return AuditExamination(
        since=to_datetime(since),
        entries=report.entries,
        chains=report.chains,
        unsuccessful=tuple(map(_shown, unsuccessful)),
        sensitive=tuple(sensitive),
        findings=(
            *_gaps(report, is_signed=bool(keys)),
            *await examine_audit_lag(reader.path, now),
            *_failures(unsuccessful),
            *_sensitive(sensitive),
        ),
    )


def _shown(record: UnsuccessfulRecord) -> Unsuccessful:
    return Unsuccessful(
        tenant_id=record.tenant_id,
        action=record.action,
        outcome=record.outcome,
        reason=record.reason,
        count=record.count,
        last_at=to_datetime(record.last_at),
    )


def _gaps(report: LogReport, *, is_signed: bool) -> Iterator[Finding]:
    for finding in report.findings[:DAMAGE_SHOWN_MAX]:
        whose = "the checkpoints" if finding.tenant_id is None else finding.tenant_id or "the mesh"
        said = f"{finding.damage.value}, in {whose}: {finding.detail}"
        yield wrong("gaps", said, _REMEDIES.get(finding.damage, _RESTORE))
    if (more := len(report.findings) - DAMAGE_SHOWN_MAX) > 0:
        yield wrong("gaps", f"{more:,} more are damaged.", "`synergymesh audit verify` names them all.")
    if report.findings:
        return
    pruned = f" {report.pruned:,} pruned ones are accounted for by tombstones." if report.pruned else ""
    said = f"{report.entries:,} entries in {report.chains:,} chains follow one another without a gap.{pruned}"
    if not is_signed and report.entries:
        yield note(
            "gaps",
            f"{said} None of them is signed.",
            "The key and the first checkpoint are made by an orchestrator; keep the public key elsewhere then.",
        )
    elif report.verdict is Verdict.UNPROVEN:
        yield note(
            "gaps",
            f"{said} There is a key, and no checkpoint that speaks for them.",
            "The first one comes within `audit_checkpoint_seconds`; if there were some, somebody took them away.",
        )
    else:
        yield ok("gaps", f"{said} {report.checkpoints:,} checkpoints agree.")


def _failures(unsuccessful: Sequence[UnsuccessfulRecord]) -> Iterator[Finding]:
    failed = Counter[str]()
    denied = Counter[str]()
    for record in unsuccessful:
        (denied if record.outcome == Outcome.DENIED else failed)[record.tenant_id or "the mesh"] += record.count
    if not failed:
        yield ok("failures", "nothing failed in this time.")
    else:
        tenant_id, most = failed.most_common(1)[0]
        yield note(
            "failures",
            f"{failed.total():,} entries are of failures, most of them ({most:,}) of {tenant_id}.",
            "`synergymesh dead-letters list` and `synergymesh runs --status failed` say what failed, and why.",
        )
    if not denied:
        yield ok("denials", "nothing was denied in this time.")
    else:
        tenant_id, most = denied.most_common(1)[0]
        yield note(
            "denials",
            f"{denied.total():,} submissions were denied, most of them ({most:,}) of {tenant_id}.",
            "Its limit is named below: submit slower, or give it another plan; `synergymesh what-if` compares plans.",
        )


def _sensitive(entries: Sequence[AuditEntry]) -> Iterator[Finding]:
    by_action = Counter(entry.action for entry in entries)
    newest: dict[str, AuditEntry] = {}
    for entry in entries:
        newest.setdefault(entry.action, entry)
    for action, remedy in NOTED.items():
        if count := by_action[action]:
            last = newest[action]
            yield note(
                action.value,
                f"{CATALOGUE[action].when}: {count:,} times, last by {last.actor} ({last.at:%Y-%m-%d %H:%M} UTC, "
                f"{last.entity}).",
                remedy,
            )
    actors = Counter(entry.actor for entry in entries)
    who = ", ".join(f"{actor} ({count:,})" for actor, count in actors.most_common(5)) or "nobody"
    many = f"{len(entries):,}" if len(entries) < SENSITIVE_SHOWN_MAX else f"{SENSITIVE_SHOWN_MAX:,} or more"
    yield ok("sensitive actions", f"{many} in this time, by {who}.")
