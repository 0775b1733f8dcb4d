"""Verifies the log of a database against its checkpoints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from synergymesh.audit.keys import verify_signature
from synergymesh.domain.audit.actions import Action
from synergymesh.domain.audit.forms import Head, Tombstone
from synergymesh.domain.audit.trust import Pinned, SignedTombstone, Trust, verify_checkpoints, verify_tombstones
from synergymesh.domain.audit.verification import ChainReport, Damage, Finding, LogReport, Row, verify_chain
from synergymesh.errors import InvalidRequest
from synergymesh.ports.audit_keeping import AuditScan

FINDINGS_MAX = 1_000
"""Chains that are named as damaged; more help nobody."""


class _Sealed(msgspec.Struct, gc=False):
    """What a payload says again of its columns."""

    at: int
    action: str
    entity: str
    version: int
    actor: str
    outcome: str
    tenant_id: str


_decode = msgspec.json.Decoder(_Sealed).decode
_HOLDS = (Action.AUDIT_HELD.value, Action.AUDIT_RELEASED.value)


class _Columns:
    """Compare the columns of entries with their payloads; remember when holds began and ended."""

    def __init__(self) -> None:
        self.holds: list[tuple[str, int]] = []

    def disagrees(self, row: Row) -> str | None:
        """Say which column does not say what the payload does."""
        try:
            sealed = _decode(row[2])
        except msgspec.MsgspecError:
            return "has a payload that is no entry"
        _, _, _, at, action, entity, version, actor, outcome, tenant_id = row
        if (
            sealed.action == action
            and sealed.at == at
            and sealed.entity == entity
            and sealed.actor == actor
            and sealed.version == version
            and sealed.outcome == outcome
            and sealed.tenant_id == tenant_id
        ):
            if action in _HOLDS:
                self.holds.append((action, at))
            return None
        for name, value in zip(_Sealed.__struct_fields__, row[3:], strict=True):
            if getattr(sealed, name) != value:
                return f"has the {name} {value!r:.100} in its column, and {getattr(sealed, name)!r:.100} was sealed"
        return "has a column of another type"


def verify_log(
    scan: AuditScan,
    keys: Iterable[bytes],
    checkpoints: Iterable[bytes],
    *,
    tenant_id: str | None = None,
    since: int | None = None,
) -> LogReport:
    """Verify the chains of a database.

    Args:
        scan: of the database.
        keys: trusted public keys.
        checkpoints: published lines.
        tenant_id: whose chain only; '' for the mesh's own, None for all.
        since: the number of the checkpoint from which on.

    Raises:
        InvalidRequest: there is no such checkpoint.
    """
    log_id = scan.log_id()
    trust = Trust(keys, verify_signature, log_id=log_id)
    pinned = verify_checkpoints(checkpoints, trust, since=since)
    if since is not None and pinned.start is None:
        raise InvalidRequest(f"there is no good checkpoint {since:,} with all heads to begin from.", field="since")
    report = LogReport(log_id=log_id, checkpoints=pinned.count, findings=list(pinned.findings))
    recorded = {head.tenant_id: Head(head.tenant_id, head.seq, head.hash) for head in scan.heads()}
    wanted = [tenant_id] if tenant_id is not None else sorted({*scan.tenants(), *recorded, *pinned.pins})
    for each in wanted:
        chain, findings = _verify_chain(scan, log_id, each, trust, pinned, recorded.get(each))
        report.add(chain)
        report.findings += findings
        if len(report.findings) > FINDINGS_MAX:
            break
    return report


def _verify_chain(
    scan: AuditScan, log_id: str, tenant_id: str, trust: Trust, pinned: Pinned, recorded: Head | None
) -> tuple[ChainReport, list[Finding]]:
    start = None if pinned.start is None else pinned.start.get(tenant_id)
    first = 0 if start is None else start.seq
    signed = [SignedTombstone(content=each.content, signature=each.signature) for each in scan.tombstones(tenant_id)]
    tombstones, findings = verify_tombstones(signed, tenant_id, trust)
    columns = _Columns()
    chain = verify_chain(
        log_id,
        tenant_id,
        scan.rows(tenant_id, first),
        pins={seq: hash_ for seq, hash_ in pinned.pins.get(tenant_id, {}).items() if seq > first},
        gaps=[gap for tombstone in tombstones for gap in tombstone.gaps if gap.last > first],
        recorded=recorded,
        start=start,
        disagrees=columns.disagrees,
    )
    return chain, findings + _pruned_under_hold(tenant_id, tombstones, columns.holds)


def _pruned_under_hold(
    tenant_id: str, tombstones: Sequence[Tombstone], holds: Sequence[tuple[str, int]]
) -> list[Finding]:
    findings = []
    for tombstone in tombstones:
        before = [action for action, at in holds if at <= tombstone.pruned_at]
        if before and before[-1] == Action.AUDIT_HELD.value:
            first = tombstone.gaps[0].first
            detail = f"entry {first:,} and {tombstone.count - 1:,} more were pruned while a legal hold forbade it."
            findings.append(Finding(damage=Damage.PRUNED_UNDER_HOLD, tenant_id=tenant_id, seq=first, detail=detail))
    return findings
