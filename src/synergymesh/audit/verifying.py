"""Verifies the log of a database against its checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from synergymesh.audit.keys import verify_signature
from synergymesh.domain.audit.forms import HASH_BYTES, Head, Tombstone, is_place
from synergymesh.domain.audit.groups import GROUP_ENTRIES_MAX, day_of, is_kept_together, is_of_run
from synergymesh.domain.audit.keeping import TOLD_OF, Keeping
from synergymesh.domain.audit.trust import SignedTombstone, Trust, verify_checkpoints, verify_tombstones
from synergymesh.domain.audit.verification import Damage, Finding, LogReport, Row, verify_chain
from synergymesh.errors import InvalidRequest, UnknownTenant
from synergymesh.ports.audit_keeping import AuditRow, AuditScan, TombstoneRecord

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
    current: AuditRow | None = None
    earliest = latest = 0
    is_whole = False

    def disagrees(entry: Row) -> str | None:
        nonlocal last, current, earliest, latest, is_whole
        number, hash_, payload, place, row = entry
        try:
            sealed = _decode(payload)
        except msgspec.MsgspecError:
            return "has a payload that is no entry"
        last_number, hashes, _, first_at, last_at, action, entity, version, actor, outcome, tenant_id, _ = row
        at = sealed.at
        if not (
            sealed.action == action
            and sealed.actor == actor
            and sealed.outcome == outcome
            and sealed.tenant_id == tenant_id
            and (
                entity == "" and version == 0
                if is_of_run(sealed.entity)
                else entity == sealed.entity and version == sealed.version
            )
            and place > last
        ):
            return _what_disagrees(sealed, row, is_before=place <= last)
        last = place
        if hashes is hash_:  # it is alone
            if not at == first_at == last_at:
                return f"has the times {first_at!r:.50} and {last_at!r:.50} in its columns, and {at} was sealed"
        else:
            if row is not current:
                if (why := _is_no_group(row)) is not None:
                    return why
                current, earliest, latest = row, at, at
                is_whole = number == last_number - len(hashes) // HASH_BYTES + 1
            elif at < earliest:
                earliest = at
            elif at > latest:
                latest = at
            if number == last_number and is_whole and (earliest, latest) != (first_at, last_at):
                return "and those before it in its row have other times than the row says"
        if action in TOLD_OF:
            keeping.see(action, number, at, payload)
        return None

    return disagrees


def _what_disagrees(sealed: _Sealed, row: AuditRow, *, is_before: bool) -> str:
    elsewhere = {"entity": "", "version": 0} if is_of_run(sealed.entity) else {}
    for name, found in zip(("action", "entity", "version", "actor", "outcome", "tenant_id"), row[5:11], strict=True):
        said = elsewhere.get(name, getattr(sealed, name))
        if said != found:
            return f"has the {name} {found!r:.100} in its column, where {said!r:.100} belongs"
    if is_before:
        return "stands in the log before what it follows in its chain"
    return "has a column of another type"


def _is_no_group(row: AuditRow) -> str | None:
    """Say why entries in one row do not belong together."""
    _, hashes, _, first_at, last_at, action, entity, _, _, outcome, _, _ = row
    if len(hashes) > GROUP_ENTRIES_MAX * HASH_BYTES or entity != "" or not is_kept_together(action, outcome):
        return "lies in a row with others, where it should be alone"
    if not isinstance(first_at, int) or not isinstance(last_at, int) or day_of(first_at) != day_of(last_at):
        return "lies in a row that is not of one day"
    return None


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
