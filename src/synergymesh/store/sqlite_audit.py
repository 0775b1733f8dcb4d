"""The verbs of `ports.audit_keeping` on SQLite; the class that has them says where they run."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from synergymesh.domain.instants import Instant
from synergymesh.ports.audit_keeping import AuditScan, HoldRecord, TombstoneRecord
from synergymesh.ports.changes import Noted
from synergymesh.store.audit import keeping as audit_keeping
from synergymesh.store.audit import scan as audit_scan
from synergymesh.store.sqlite_errors import translate
from synergymesh.store.sqlite_files import open_reader

T = TypeVar("T")


class _Reads(Protocol):
    _beside_an_engine: bool

    @property
    def path(self) -> Path | None: ...

    async def _read(self, function: Callable[..., T], *arguments: Any) -> T: ...


class _Writes(Protocol):
    async def _write(self, function: Callable[..., T], *arguments: Any) -> T: ...


class AuditKeepingReads:
    """The verbs that only read."""

    _beside_an_engine = False
    """Whether an event loop of the same process is busy with other things."""

    async def scan_audit(self: _Reads, work: Callable[[AuditScan], T]) -> T:
        """Call `work` with a scan: of a file on a connection of its own, so that nobody waits for it."""
        path = self.path
        if path is None:
            return await self._read(audit_scan.scan, work)
        return await asyncio.to_thread(_scan_file, path, work, self._beside_an_engine)

    async def list_audit_tombstones(self: _Reads, tenant_id: str) -> list[TombstoneRecord]:
        """Give the tombstones of a tenant, the first one first."""
        return await self._read(audit_keeping.list_tombstones, tenant_id)

    async def list_audit_holds(self: _Reads) -> list[HoldRecord]:
        """Give all holds, ordered by tenant."""
        return await self._read(audit_keeping.list_holds)

    async def get_subject_key(self: _Reads, subject: str) -> bytes | None:
        """Give the key of somebody's personal data."""
        return await self._read(audit_keeping.get_subject_key, subject)


class AuditKeepingWrites:
    """The verbs that write, each in one transaction."""

    async def add_audit_tombstones(self: _Writes, tombstones: Sequence[TombstoneRecord], noted: Noted) -> bool:
        """Record tombstones of one tenant, unless it is under a hold."""
        return await self._write(audit_keeping.add_tombstones, tombstones, noted)

    async def delete_pruned_audit_entries(self: _Writes, limit: int) -> int:
        """Delete entries that tombstones account for, at most `limit` and only a moment long; give how many."""
        return await self._write(audit_keeping.delete_pruned, limit)

    async def hold_audit(self: _Writes, hold: HoldRecord, noted: Noted) -> bool:
        """Forbid to prune a tenant's chain; give False when it is forbidden already."""
        return await self._write(audit_keeping.hold, hold, noted)

    async def release_audit(self: _Writes, tenant_id: str, noted: Noted) -> bool:
        """Allow to prune a tenant's chain again; give False when nothing forbids it."""
        return await self._write(audit_keeping.release, tenant_id, noted)

    async def add_subject_key(self: _Writes, subject: str, key: bytes, made_at: Instant) -> bytes:
        """Record a key unless there is one; give the one that counts."""
        return await self._write(audit_keeping.add_subject_key, subject, key, made_at)

    async def erase_subject_key(self: _Writes, subject: str, noted: Noted) -> bool:
        """Destroy a key; give False when there is none."""
        return await self._write(audit_keeping.erase_subject_key, subject, noted)

    async def wipe_erased_keys(self: _Writes) -> bool:
        """Remove what the files have of erased keys; give False while somebody reads that."""
        return await self._write(audit_keeping.wipe_erased_keys)


def _scan_file(path: Path, work: Callable[[AuditScan], T], packed: bool) -> T:
    try:
        connection = open_reader(path)
        try:
            return audit_scan.scan(connection, work, packed=packed)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise translate(error, str(path)) from error
