"""How fast the audit log is verified: of a database, and of an export."""

from __future__ import annotations

import json
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from synergymesh.audit.export_format import Section
from synergymesh.audit.export_writer import Asked, ExportWriter, FileInPlace, Signing
from synergymesh.audit.keys import SigningKey
from synergymesh.audit.verify import verify_export
from synergymesh.audit.verifying import verify_log
from synergymesh.domain.audit.forms import Head, canonical, chain_hashes, genesis_hash
from synergymesh.store.audit.scan import SqliteAuditScan
from synergymesh.store.migration import upgrade

ENTRIES = 400_000
TENANTS = 4
LOG_NUMBER = 7
LOG_ID = f"{LOG_NUMBER:016x}"
REPETITIONS = 3


def measure() -> dict[str, float]:
    """Verify a log of made entries; give the best rates of three."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "mesh.db"
        key = SigningKey.generate()
        connection = sqlite3.connect(path, isolation_level=None)
        upgrade(connection, None, str(path))
        export = Path(directory) / "log.jsonl"
        with FileInPlace(export) as file:
            writer = ExportWriter(file, LOG_ID)
            _fill(connection, writer)
            writer.finish(Signing(key=key, checkpoint=None, at=1), Asked())
        database = max(_database_rate(connection) for _ in range(REPETITIONS))
        exported = max(_export_rate(export, key) for _ in range(REPETITIONS))
        connection.close()
    return {"entries_per_second": database, "exported_entries_per_second": exported}


def _fill(connection: sqlite3.Connection, writer: ExportWriter) -> None:
    connection.execute("BEGIN")
    connection.execute("INSERT INTO meta (name, value) VALUES ('audit_log_id', ?)", (LOG_NUMBER,))
    count = ENTRIES // TENANTS
    for number in range(TENANTS):
        tenant = f"tenant-{number:016x}"
        rows = []
        for seq in range(1, count + 1):
            entity = f"task/run-18c3a5f0e1b2c3d4{seq:08x}/charge"
            fields = {
                "action": "task.finished",
                "actor": "system/engine",
                "at": 1_795_000_000_000_000_000 + seq,
                "details": {"attempt": 1, "started_at": 1_795_000_000_000_000_000, "status": "success"},
                "entity": entity,
                "outcome": "success",
                "tenant_id": tenant,
                "version": 1,
            }
            rows.append((fields["at"], entity, msgspec.json.encode(fields)))
        assert rows[0][2] == canonical(msgspec.json.decode(rows[0][2]))
        genesis = genesis_hash(LOG_ID, tenant)
        hashes = chain_hashes(tenant, 1, genesis, [row[2] for row in rows])
        connection.executemany(
            "INSERT INTO audit_entries (tenant_id, seq, at, action, entity, version, actor, outcome, payload, hash) "
            "VALUES (?, ?, ?, 'task.finished', ?, 1, 'system/engine', 'success', ?, ?)",
            [
                (tenant, seq, at, entity, payload, hash_)
                for seq, ((at, entity, payload), hash_) in enumerate(zip(rows, hashes, strict=True), 1)
            ],
        )
        connection.execute("INSERT INTO audit_heads VALUES (?, ?, ?)", (tenant, count, hashes[-1]))
        writer.add(
            tenant,
            [(seq, hash_, row[2]) for seq, (row, hash_) in enumerate(zip(rows, hashes, strict=True), 1)],
        )
        head = Head(tenant, count, hashes[-1])
        writer.end_tenant(Section(before=Head(tenant, 0, genesis), head=head, end=count, count=count), ())
    connection.execute("COMMIT")


def _database_rate(connection: sqlite3.Connection) -> float:
    started = time.perf_counter()
    report = verify_log(SqliteAuditScan(connection, packed=False), [], [])
    took = time.perf_counter() - started
    assert report.is_intact
    assert report.entries == ENTRIES
    return ENTRIES / took


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
