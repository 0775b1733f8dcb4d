"""How fast the audit log is verified: of a database by the command and by an engine, and of an export."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from synergymesh import Orchestrator, Settings
from synergymesh.audit.checkpoint_file import CheckpointFile
from synergymesh.audit.checkpoints import Checkpoints
from synergymesh.audit.export_format import Section
from synergymesh.audit.export_writer import Asked, ExportWriter, FileInPlace, Signing
from synergymesh.audit.key_ring import KeyRing
from synergymesh.audit.keys import SigningKey, load
from synergymesh.audit.notes import Notes
from synergymesh.audit.verify import verify_export
from synergymesh.audit.verifying import verify_log
from synergymesh.audit_assembly import audit_places
from synergymesh.domain.actors import ENGINE
from synergymesh.domain.audit.forms import Head, canonical, chain_hashes, genesis_hash
from synergymesh.ports.audit import AuditHeadRecord
from synergymesh.ports.changes import Unit
from synergymesh.ports.clock import SystemClock
from synergymesh.ports.records import COMMITTED, CommitResult
from synergymesh.store.audit.entries import Entry
from synergymesh.store.audit.rows import COLUMNS, Group, pack
from synergymesh.store.audit.scan import SqliteAuditScan
from synergymesh.store.migration import upgrade

ENTRIES = 400_000
TENANTS = 4
LOG_NUMBER = 7
LOG_ID = f"{LOG_NUMBER:016x}"
REPETITIONS = 3

CHECKPOINTS = 400
"""One for every thousand entries: more often than one for each second of a busy engine."""


class _Heads:
    """A log that has grown so far."""

    def __init__(self) -> None:
        self.heads: list[AuditHeadRecord] = []

    async def get_audit_log_id(self) -> str:
        return LOG_ID

    async def list_audit_heads(self) -> list[AuditHeadRecord]:
        return self.heads


def measure() -> dict[str, float]:
    """Verify logs of made entries, which lie together in rows and each in its own; give the best rates of three."""
    alone = _measure(together=False)
    return _measure(together=True) | {f"{name}_alone": rate for name, rate in alone.items() if "exported" not in name}


def _measure(*, together: bool) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "mesh.db"
        places = audit_places(Settings(), path)
        assert places.key is not None
        assert places.checkpoints is not None
        connection = sqlite3.connect(path, isolation_level=None)
        upgrade(connection, None, str(path))
        export = Path(directory) / "log.jsonl"
        with FileInPlace(export) as file:
            writer = ExportWriter(file, LOG_ID)
            hashes = _fill(connection, writer, together=together)
            published = CheckpointFile(places.checkpoints)
            asyncio.run(_sign(published, places.key, hashes))
            key = load(places.key)
            newest = published.last_checkpoint()
            assert newest is not None
            writer.finish(Signing(key=key, checkpoint=newest.checkpoint, at=1), Asked())
        lines = [line for _, line in published.lines()]
        figures = {
            "entries_per_second": _best(lambda: _database_rate(connection, key, lines)),
            "entries_per_second_without_checkpoints": _best(lambda: _database_rate(connection, key, [])),
            "exported_entries_per_second": _best(lambda: _export_rate(export, key)),
        }
        connection.close()
        figures["entries_per_second_in_a_mesh"] = asyncio.run(_mesh_rate(path))
    return figures


def _best(measured: Callable[[], float]) -> float:
    return max(measured() for _ in range(REPETITIONS))


async def _sign(file: CheckpointFile, key_file: Path, hashes: Mapping[str, Sequence[bytes]]) -> None:
    """Write the checkpoints of a log that has grown to its size in as many steps."""

    async def record(unit: Unit) -> CommitResult:
        return COMMITTED

    clock, log = SystemClock(), _Heads()
    keys = KeyRing(key_file, file, Notes(record, lambda: ENGINE, clock), clock)
    checkpoints = Checkpoints(
        log,  # type: ignore[arg-type]  # what they need of a log
        file,
        keys,
        clock,
        interval_seconds=60,
        interval_units=1,
        written=lambda: 0,
    )
    for step in range(1, CHECKPOINTS + 1):
        log.heads = [
            AuditHeadRecord(tenant, seq, of_tenant[seq - 1])
            for tenant, of_tenant in hashes.items()
            if (seq := len(of_tenant) * step // CHECKPOINTS)
        ]
        await checkpoints.write()


def _fill(connection: sqlite3.Connection, writer: ExportWriter, *, together: bool) -> dict[str, list[bytes]]:
    """Make the entries; give their hashes by tenant."""
    chains = {}
    place = 0
    connection.execute("BEGIN")
    connection.execute("INSERT INTO meta (name, value) VALUES ('audit_log_id', ?)", (LOG_NUMBER,))
    count = ENTRIES // TENANTS
    for number in range(TENANTS):
        tenant = f"tenant-{number:016x}"
        groups: list[Group] = []
        for seq in range(1, count + 1):
            at, entity = 1_795_000_000_000_000_000 + seq, f"task/run-18c3a5f0e1b2c3d4{seq:08x}/charge"
            fields = {
                "action": "task.finished",
                "actor": "system/engine",
                "at": at,
                "details": {"attempt": 1, "started_at": 1_795_000_000_000_000_000, "status": "success"},
                "entity": entity,
                "outcome": "success",
                "tenant_id": tenant,
                "version": 1,
            }
            payload = msgspec.json.encode(fields)
            entry = Entry(tenant, at, "task.finished", entity, 1, "system/engine", "success", payload)
            if not (together and groups and groups[-1].takes(entry)):
                groups.append(Group(entry))
        payloads = [payload for group in groups for payload in group.payloads]
        assert payloads[0] == canonical(msgspec.json.decode(payloads[0]))
        genesis = genesis_hash(LOG_ID, tenant)
        hashes = chains[tenant] = chain_hashes(tenant, 1, genesis, payloads)
        connection.executemany(
            f"INSERT INTO audit_entries ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})",
            pack(tenant, groups, 0, place, hashes),
        )
        place += count
        connection.execute("INSERT INTO audit_heads VALUES (?, ?, ?)", (tenant, count, hashes[-1]))
        writer.add(
            tenant,
            [(seq, *of_entry) for seq, of_entry in enumerate(zip(hashes, payloads, strict=True), 1)],
        )
        head = Head(tenant, count, hashes[-1])
        writer.end_tenant(Section(before=Head(tenant, 0, genesis), head=head, end=count, count=count), ())
    connection.execute("COMMIT")
    return chains


def _database_rate(connection: sqlite3.Connection, key: SigningKey, lines: Sequence[bytes]) -> float:
    started = time.perf_counter()
    report = verify_log(SqliteAuditScan(connection, packed=False), [key.public], lines)
    took = time.perf_counter() - started
    assert report.is_intact
    assert (report.entries, report.checkpoints) == (ENTRIES, len(lines))
    return ENTRIES / took


async def _mesh_rate(path: Path) -> float:
    """Let the process verify that executes, with its own key and checkpoints."""
    best = 0.0
    async with Orchestrator(f"sqlite:///{path}") as mesh:
        for _ in range(REPETITIONS):
            started = time.perf_counter()
            report = await mesh.verify_audit()
            took = time.perf_counter() - started
            assert report.is_intact
            assert report.entries >= ENTRIES
            assert report.checkpoints == CHECKPOINTS
            best = max(best, report.entries / took)
    return best


def _export_rate(export: Path, key: SigningKey) -> float:
    started = time.perf_counter()
    report = verify_export(export, export.with_name(f"{export.name}.manifest.json"), [key.public])
    took = time.perf_counter() - started
    assert report.is_intact
    assert report.entries == ENTRIES
    return ENTRIES / took


def main() -> None:
    """Print the figures as JSON."""
    sys.stdout.write(json.dumps(measure()) + "\n")


if __name__ == "__main__":
    main()
