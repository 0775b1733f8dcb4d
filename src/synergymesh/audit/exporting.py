"""Exports the log of a database into files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from synergymesh.audit.entries import entry_view
from synergymesh.audit.export_format import manifest_path
from synergymesh.audit.export_views import cloud_event, csv_header, csv_line
from synergymesh.audit.export_writer import ExportWriter, FileInPlace
from synergymesh.audit.keys import SigningKey
from synergymesh.domain.audit.forms import NOTHING, Head, genesis_hash, read_tombstone
from synergymesh.domain.audit.trust import SignedTombstone
from synergymesh.domain.instants import Instant
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
    """What is to be exported: of one tenant or of all, from `since` on and before `until`."""

    path: Path
    format: ExportFormat
    tenant_id: str | None
    since: Instant | None
    until: Instant | None


def export_log(
    scan: AuditScan, wish: Wish, key: SigningKey | None, key_links: Sequence[bytes], now: Instant
) -> AuditExport:
    """Write an export; the file gets its name once it is whole.

    Of each chain one piece without gaps is exported, from the first to the last entry of the time that is asked for.

    Raises:
        OSError: a file cannot be written.
    """
    tenants = [wish.tenant_id] if wish.tenant_id is not None else scan.tenants()
    with FileInPlace(wish.path) as file:
        if wish.format is ExportFormat.JSONL:
            assert key is not None
            return _verifiable(scan, wish, file, tenants, key, key_links, now)
        log_id = scan.log_id()
        count = 0
        if wish.format is ExportFormat.CSV:
            file.write(csv_header())
        for tenant_id in tenants:
            for row in _rows(scan, tenant_id, wish):
                entry = entry_view(row)
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
    scan: AuditScan,
    wish: Wish,
    file: FileInPlace,
    tenants: Sequence[str],
    key: SigningKey,
    key_links: Sequence[bytes],
    now: Instant,
) -> AuditExport:
    log_id = scan.log_id()
    writer = ExportWriter(file, log_id)
    for tenant_id in tenants:
        stones = [
            SignedTombstone(content=each.content, signature=each.signature) for each in scan.tombstones(tenant_id)
        ]
        first: int | None = None
        last: tuple[int, bytes] = (0, NOTHING)
        count = 0
        batch: list[tuple[int, bytes, bytes]] = []
        for row in _rows(scan, tenant_id, wish):
            first = row[0] if first is None else first
            batch.append((row[0], row[1], row[2]))
            if len(batch) == BATCH:
                count += writer.add(tenant_id, batch)
                last = batch[-1][:2]
                batch.clear()
        if batch:
            count += writer.add(tenant_id, batch)
            last = batch[-1][:2]
        if first is None:
            continue
        before = _head_before(scan, log_id, tenant_id, first, stones)
        if wish.since is None:
            before = Head(tenant_id, 0, genesis_hash(log_id, tenant_id))
        writer.end_tenant(before, Head(tenant_id, *last), count, _in_range(stones, before.seq, last[0]))
    manifest = writer.finish(key, key_links, since=wish.since, until=wish.until, exported_at=now)
    return AuditExport(
        path=str(wish.path),
        manifest=str(manifest_path(wish.path)),
        format=wish.format,
        entries=writer.count,
        sha256=manifest.file_sha256,
        key_id=manifest.key_id,
    )


def _rows(scan: AuditScan, tenant_id: str, wish: Wish) -> Iterator[Sequence[Any]]:
    """Give the entries of the piece of a chain that is asked for."""
    first, last = scan.bounds(tenant_id, wish.since, wish.until)
    for row in scan.rows(tenant_id, first - 1):
        if row[0] > last:
            return
        yield row


def _head_before(scan: AuditScan, log_id: str, tenant_id: str, first: int, stones: Sequence[SignedTombstone]) -> Head:
    """Give the entry before the first one; a log that is damaged there shows it when the export is verified."""
    if first == 1:
        return Head(tenant_id, 0, genesis_hash(log_id, tenant_id))
    for row in scan.rows(tenant_id, first - 2):
        if row[0] == first - 1:
            return Head(tenant_id, first - 1, row[1])
        break
    for stone in stones:
        for gap in read_tombstone(stone.content).gaps:
            if gap.last == first - 1:
                return Head(tenant_id, gap.last, gap.head)
    return Head(tenant_id, first - 1, NOTHING)


def _in_range(stones: Sequence[SignedTombstone], before: int, last: int) -> list[SignedTombstone]:
    found = []
    for stone in stones:
        gaps = read_tombstone(stone.content).gaps
        if gaps[-1].last > before and gaps[0].first <= last:
            found.append(stone)
    return found
