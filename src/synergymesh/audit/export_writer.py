"""Writes exports for verification: the lines, then the manifest that is signed over them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Self

from synergymesh.audit.export_format import Manifest, Section, SignedManifest, manifest_path, write_line
from synergymesh.audit.keys import SigningKey
from synergymesh.domain.audit.forms import MANIFEST_TAG, NOTHING, Checkpoint
from synergymesh.domain.audit.trust import SignedTombstone

Entry = tuple[int, bytes, bytes]
"""Number, hash and payload."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Say what an export is to have: of one tenant or of all (None), from `since` on and before `until`."""

    tenant_id: str | None = None
    since: int | None = None
    until: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Signing:
    """Say who signs a manifest, and when.

    Attributes:
        key: the signing key.
        checkpoint: the last one before the export; None when there is none.
        key_links: lines that lead from older keys to this one.
        at: nanoseconds since 1970.
    """

    key: SigningKey
    checkpoint: Checkpoint | None
    at: int
    key_links: Sequence[bytes] = ()


class FileInPlace:
    """Write a file that has its name only once it is whole and on the disk; until then it is a hidden one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bytes = 0
        self.hash = sha256()
        self._scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        # Only for its owner, as the database and its backups are.
        descriptor = os.open(self._scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._file = os.fdopen(descriptor, "wb", buffering=1 << 20)

    def write(self, content: bytes) -> None:
        """Add content."""
        self._file.write(content)
        self.hash.update(content)
        self.bytes += len(content)

    def finish(self) -> None:
        """Give the file its name."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._scratch.replace(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._scratch.unlink(missing_ok=True)


class ExportWriter:
    """Write one export: the tenants in the order of their ids, each with its entries."""

    def __init__(self, file: FileInPlace, log_id: str) -> None:
        self._file = file
        self._log_id = log_id
        self._sections: list[Section] = []
        self._tombstones: dict[str, tuple[SignedTombstone, ...]] = {}
        self.count = 0

    def add(self, tenant_id: str, entries: Iterable[Entry]) -> int:
        """Add entries of a tenant; give how many."""
        lines = [write_line(tenant_id, seq, hash_, payload) for seq, hash_, payload in entries]
        self._file.write(b"".join(lines))
        self.count += len(lines)
        return len(lines)

    def end_tenant(self, section: Section, tombstones: Sequence[SignedTombstone]) -> None:
        """Say what was added of a tenant, and what was pruned between."""
        head = section.head
        self._sections.append(section)
        if tombstones:
            self._tombstones[head.tenant_id] = tuple(tombstones)

    def finish(self, signing: Signing, asked: Asked) -> Manifest:
        """Give both files their names; the manifest last, so that it never names a file that is not there."""
        file = self._file
        key, last = signing.key, signing.checkpoint
        manifest = Manifest(
            log_id=self._log_id,
            sections=tuple(self._sections),
            count=self.count,
            file_bytes=file.bytes,
            file_sha256=file.hash.hexdigest(),
            tenant_id=asked.tenant_id,
            since=asked.since,
            until=asked.until,
            exported_at=signing.at,
            checkpoint=0 if last is None else last.number,
            checkpoint_hash=NOTHING if last is None else last.hash(),
            key_id=key.key_id,
        )
        tombstones: Mapping[str, tuple[SignedTombstone, ...]] = self._tombstones
        signed = SignedManifest(
            manifest=manifest,
            signature=key.sign(MANIFEST_TAG, manifest.content()),
            key_links=tuple(signing.key_links),
            tombstones=tombstones,
        )
        with FileInPlace(manifest_path(file.path)) as beside:
            beside.write(signed.text())
            file.finish()
            beside.finish()
        return manifest
