"""Verifies the log of a database against its checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from synergymesh.audit.keys import verify_signature
from synergymesh.domain.audit.forms import Head, Tombstone, is_place
from synergymesh.domain.audit.keeping import TOLD_OF, Keeping
from synergymesh.domain.audit.trust import SignedTombstone, Trust, verify_checkpoints, verify_tombstones
from synergymesh.domain.audit.verification import Damage, Finding, LogReport, Row, verify_chain
from synergymesh.errors import InvalidRequest, UnknownTenant
from synergymesh.ports.audit_keeping import AuditScan, TombstoneRecord

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


def _compare_columns(keeping: Keeping) -> Callable[[Row], str | None]:
    """Give what says which column of an entry disagrees with its payload, or that it stands elsewhere in the log.

    What the chain says of its keeping is passed on. Every entry of a log goes through this, hence the closure.
    """
    last = 0

    def disagrees(row: Row) -> str | None:
        nonlocal last
        try:
            sealed = _decode(row[2])
        except msgspec.MsgspecError:
            return "has a payload that is no entry"
        _, _, _, at, action, entity, version, actor, outcome, tenant_id, place = row
        if (
            sealed.action == action
            and sealed.at == at
            and sealed.entity == entity
            and sealed.actor == actor
            and sealed.version == version
            and sealed.outcome == outcome
            and sealed.tenant_id == tenant_id
            and place > last
        ):
            last = place
            if action in TOLD_OF:
                keeping.see(action, row[0], at, row[2])
            return None
        for name, value in zip(_Sealed.__struct_fields__, row[3:], strict=False):
            if getattr(sealed, name) != value:
                return f"has the {name} {value!r:.100} in its column, and {getattr(sealed, name)!r:.100} was sealed"
        if place <= last:
            return "stands in the log before what it follows in its chain"
        return "has a column of another type"

    return disagrees


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
        since: the number of the checkpoint from which on. What is wrong with checkpoints before it is a note.

    Raises:
        InvalidRequest: there is no such checkpoint.
        UnknownTenant: the log has nothing of this tenant.
    """
    return _Verification(scan, Trust(keys, verify_signature, log_id=scan.log_id() or ""), checkpoints, since).run(
        tenant_id
    )


class _Verification:
    """One verification of one database."""

    def __init__(self, scan: AuditScan, trust: Trust, checkpoints: Iterable[bytes], since: int | None) -> None:
        self.scan = scan
        self.trust = trust
        self.since = since
        pinned = self.pinned = verify_checkpoints(checkpoints, trust, since=since)
        if since is not None and pinned.start is None:
            raise InvalidRequest(f"there is no good checkpoint {since:,} with all heads to begin from.", field="since")
        self.report = LogReport(
            log_id=trust.log_id,
            checkpoints=pinned.count,
            findings=list(pinned.findings),
            notes=list(pinned.notes),
        )
        self.recorded: dict[str, Head] = {}
        self.known: set[str] = set()
        self._read_heads()
        self.held = self._read_holds()

    def run(self, tenant_id: str | None) -> LogReport:
        """Follow all chains, or one."""
        report, scan = self.report, self.scan
        findings = report.findings
        if tenant_id is None:
            tenants = {*scan.tenants(), *self.known, *self.held, *self.pinned.pins, *(self.pinned.start or ())}
            if scan.log_id() is None or (tenants and not scan.log_id()):
                findings.append(_of_log(Damage.CHANGED, "the id of the log is gone, or is none"))
            for each in sorted(tenants):
                self._follow(each)
                if len(findings) > FINDINGS_MAX:
                    return report
            self._count_rows()
        else:
            self._follow(tenant_id)
            if not (report.entries or report.pruned or findings or tenant_id in self.known or report.is_proven):
                raise UnknownTenant(tenant_id)
        strays = scan.strays(tenant_id)
        findings += [_stray(tenant, seq) for tenant, seq in strays]
        return report

    def _read_heads(self) -> None:
        for head in self.scan.heads():
            owner: object = head.tenant_id
            if not isinstance(owner, str):
                detail = f"the end of a chain is recorded for {owner!r:.100}, which is no tenant"
                self.report.findings.append(_of_log(Damage.INSERTED, detail))
                continue
            self.known.add(head.tenant_id)
            if is_place(head.seq, head.hash):
                self.recorded[head.tenant_id] = Head(head.tenant_id, head.seq, head.hash)

    def _read_holds(self) -> dict[str, tuple[object, object]]:
        held: dict[str, tuple[object, object]] = {}
        for tenant_id, reason, held_at in self.scan.holds():
            if isinstance(tenant_id, str):
                held[tenant_id] = reason, held_at
            else:
                detail = f"a legal hold is recorded for {tenant_id!r:.100}, which is no tenant"
                self.report.findings.append(_of_log(Damage.INSERTED, detail))
        return held

    def _follow(self, tenant_id: str) -> None:
        """Follow one chain, and compare with it what is kept beside it."""
        pinned, report = self.pinned, self.report
        start = None if pinned.start is None else pinned.start.get(tenant_id)
        first = 0 if start is None else start.seq
        records = self.scan.tombstones(tenant_id)
        signed = [SignedTombstone(content=each.content, signature=each.signature) for each in records]
        tombstones, findings = verify_tombstones(signed, tenant_id, self.trust)
        findings += _misplaced(tenant_id, records, tombstones)
        keeping = Keeping(is_whole=start is None)
        chain = verify_chain(
            self.trust.log_id,
            tenant_id,
            self.scan.rows(tenant_id, max(0, first - 1)),
            pins={seq: hash_ for seq, hash_ in pinned.pins.get(tenant_id, {}).items() if seq > first},
            gaps=[gap for tombstone in tombstones for gap in tombstone.gaps if gap.last >= first],
            recorded=self.recorded.get(tenant_id),
            is_recorded=True,
            start=start,
            shows_start=start is not None,
            disagrees=_compare_columns(keeping),
        )
        report.add(chain)
        report.findings += findings
        if chain.finding is None and tenant_id in self.known and tenant_id not in self.recorded:
            detail = "the end of a chain is recorded that is none."
            report.findings.append(Finding(damage=Damage.INSERTED, tenant_id=tenant_id, seq=None, detail=detail))
        if chain.finding is None:
            contents = [each.content for each in records if isinstance(each.content, bytes)]
            report.findings += keeping.compare_tombstones(tenant_id, tombstones, contents)
            report.findings += keeping.compare_hold(tenant_id, self.held.get(tenant_id))

    def _count_rows(self) -> None:
        """Look for rows that are in the table and in no chain, and for places in the log that were never given.

        An index can be made to lie, so that a row is shown by one query and not by another.
        """
        report = self.report
        if report.findings:
            return
        count, last = self.scan.extent()
        if self.since is None and count != report.entries:
            detail = f"the table has {count:,} entries, and its chains have {report.entries:,}"
            report.findings.append(_of_log(Damage.INSERTED, detail))
        sealed = sum(head.seq for head in self.recorded.values())
        if last != sealed:
            detail = f"the last place in the log is {last:,}, and {sealed:,} entries were sealed"
            report.findings.append(_of_log(Damage.REORDERED, detail))


def _misplaced(tenant_id: str, records: Sequence[TombstoneRecord], tombstones: Sequence[Tombstone]) -> list[Finding]:
    """Find the tombstones whose columns do not say what their content does."""
    places = {each.content(): (each.gaps[0].first, each.gaps[-1].last) for each in tombstones}
    return [
        Finding(
            damage=Damage.CHANGED,
            tenant_id=tenant_id,
            seq=places[each.content][0],
            detail=f"a tombstone stands under {each.first_seq!r:.30} to {each.last_seq!r:.30}, unlike its content.",
        )
        for each in records
        if isinstance(each.content, bytes)
        and each.content in places
        and (each.first_seq, each.last_seq) != places[each.content]
    ]


def _stray(tenant_id: object, seq: object) -> Finding:
    owner = tenant_id if isinstance(tenant_id, str) else None
    number = seq if isinstance(seq, int) else None
    detail = f"a row with the number {seq!r:.50} of {tenant_id!r:.100} is in no chain."
    return Finding(damage=Damage.INSERTED, tenant_id=owner, seq=number, detail=detail)


def _of_log(damage: Damage, detail: str) -> Finding:
    return Finding(damage=damage, tenant_id=None, seq=None, detail=f"{detail}.")
