"""Exports the log of a database into files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from synergymesh.audit.entries import sealed_view
from synergymesh.audit.export_format import Section, manifest_path
from synergymesh.audit.export_views import cloud_event, csv_header, csv_line
from synergymesh.audit.export_writer import Asked, Entry, ExportWriter, FileInPlace, Signing
from synergymesh.domain.audit.forms import NOTHING, Head, Tombstone, genesis_hash, is_place, read_tombstone
from synergymesh.domain.audit.trust import SignedTombstone
from synergymesh.errors import StoreCorrupt
from synergymesh.ports.audit import AuditHeadRecord
from synergymesh.ports.audit_keeping import AuditScan

BATCH = 1_000


class ExportFormat(StrEnum):
    """Name what an export looks like."""

    JSONL = "jsonl"
    CSV = "csv"
    CLOUDEVENTS = "cloudevents"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditExport:
    """What was exported.

    Attributes:
        path: of the file.
        manifest: of its signed manifest; None for formats that cannot be verified.
        format: of the file.
        entries: how many it has.
        sha256: of the file, as hex.
        key_id: of the key that signed the manifest.
    """

    path: str
    manifest: str | None
    format: ExportFormat
    entries: int
    sha256: str
    key_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to be exported, where to, and in which form."""

    path: Path
    format: ExportFormat
    asked: Asked


def export_log(scan: AuditScan, wish: Wish, signing: Signing | None) -> AuditExport:
    """Write an export; the file gets its name once it is whole.

    Of each chain one piece without gaps is exported, from the first to the last entry of the time that is asked for.

    Args:
        scan: of the database.
        wish: what, where to and how.
        signing: who signs the manifest; None for forms that have none.

    Raises:
        OSError: a file cannot be written.
        StoreCorrupt: an entry cannot be written down.
    """
    asked = wish.asked
    tenants = [asked.tenant_id] if asked.tenant_id is not None else scan.tenants()
    with FileInPlace(wish.path) as file:
        if wish.format is ExportFormat.JSONL:
            assert signing is not None
            return _verifiable(scan, wish, file, tenants, signing)
        log_id = scan.log_id() or ""
        count = 0
        if wish.format is ExportFormat.CSV:
            file.write(csv_header())
        for tenant_id in tenants:
            for seq, hash_, payload in _entries(scan, tenant_id, asked):
                try:
                    entry = sealed_view(tenant_id, seq, hash_, payload)
                except ValueError:
                    raise _no_entry(tenant_id, seq) from None
                file.write(csv_line(entry) if wish.format is ExportFormat.CSV else cloud_event(entry, log_id))
                count += 1
        file.finish()
        return AuditExport(
            path=str(wish.path),
            manifest=None,
            format=wish.format,
            entries=count,
            sha256=file.hash.hexdigest(),
            key_id=None,
        )


def _verifiable(
    scan: AuditScan, wish: Wish, file: FileInPlace, tenants: Sequence[str], signing: Signing
) -> AuditExport:
    log_id, asked = scan.log_id() or "", wish.asked
    writer = ExportWriter(file, log_id)
    ends = {head.tenant_id: head for head in scan.heads() if is_place(head.seq, head.hash)}
    for tenant_id in sorted({*tenants, *(ends if asked.tenant_id is None else ())}):
        stones = _tombstones(scan, tenant_id)
        recorded = ends.get(tenant_id)
        first: int | None = None
        last = Head(tenant_id, 0, NOTHING)
        count = 0
        batch: list[Entry] = []
        for entry in _entries(scan, tenant_id, asked):
            first = entry[0] if first is None else first
            batch.append(entry)
            if len(batch) == BATCH:
                count += writer.add(tenant_id, batch)
                last = Head(tenant_id, *batch[-1][:2])
                batch.clear()
        if batch:
            count += writer.add(tenant_id, batch)
            last = Head(tenant_id, *batch[-1][:2])
        genesis = Head(tenant_id, 0, genesis_hash(log_id, tenant_id))
        if first is not None:
            before = genesis if asked.since is None else _head_before(scan, log_id, tenant_id, first, stones)
        elif recorded is None:
            continue
        else:  # the piece is empty, and stands where it would begin
            last = genesis if asked.since is None and asked.until is not None else _head_of(recorded)
            before = genesis if asked.since is None else last
        end = max(last.seq, 0 if recorded is None else recorded.seq)
        section = Section(before=before, head=last, end=end, count=count)
        writer.end_tenant(section, _in_range(stones, before.seq, last.seq))
    manifest = writer.finish(signing, asked)
    return AuditExport(
        path=str(wish.path),
        manifest=str(manifest_path(wish.path)),
        format=wish.format,
        entries=writer.count,
        sha256=manifest.file_sha256,
        key_id=manifest.key_id,
    )


def _head_of(recorded: AuditHeadRecord) -> Head:
    return Head(recorded.tenant_id, recorded.seq, recorded.hash)


def _tombstones(scan: AuditScan, tenant_id: str) -> list[tuple[SignedTombstone, Tombstone]]:
    """Give the tombstones of a tenant, as stored and as read; what is none accounts for nothing, and is left out."""
    found = []
    for record in scan.tombstones(tenant_id):
        try:
            tombstone = read_tombstone(record.content)
        except ValueError:
            continue
        signature = record.signature if isinstance(record.signature, bytes) else b""
        found.append((SignedTombstone(content=record.content, signature=signature), tombstone))
    return found


def _entries(scan: AuditScan, tenant_id: str, asked: Asked) -> Iterator[Entry]:
    """Give the entries of the piece of a chain that is asked for."""
    first, last = scan.bounds(tenant_id, asked.since, asked.until)
    for seq, hash_, payload, *_ in scan.rows(tenant_id, first - 1):
        if not is_place(seq, hash_) or not isinstance(payload, bytes):
            raise _no_entry(tenant_id, seq)
        if seq > last:
            return
        yield seq, hash_, payload


def _no_entry(tenant_id: str, seq: object) -> StoreCorrupt:
    return StoreCorrupt(
        f"entry {seq!r:.50} of {tenant_id or 'the mesh'} is none, so it cannot be exported. "
        "`synergymesh audit verify` says what happened to the log."
    )


def _head_before(
    scan: AuditScan, log_id: str, tenant_id: str, first: int, stones: Sequence[tuple[SignedTombstone, Tombstone]]
) -> Head:
    """Give the entry before the first one; a log that is damaged there shows it when the export is verified."""
    if first == 1:
        return Head(tenant_id, 0, genesis_hash(log_id, tenant_id))
    for row in scan.rows(tenant_id, first - 2):
        if row[0] == first - 1 and is_place(row[0], row[1]):
            return Head(tenant_id, first - 1, row[1])
        break
    for _, stone in stones:
        for gap in stone.gaps:
            if gap.last == first - 1:
                return Head(tenant_id, gap.last, gap.head)
    return Head(tenant_id, first - 1, NOTHING)


def _in_range(stones: Sequence[tuple[SignedTombstone, Tombstone]], before: int, last: int) -> list[SignedTombstone]:
    return [signed for signed, stone in stones if stone.gaps[-1].last > before and stone.gaps[0].first <= last]
