"""A database with an audit log, that a test changes from outside."""

from __future__ import annotations

import shutil
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from synergymesh import Orchestrator, task, workflow
from synergymesh.audit.verifying import verify_log
from synergymesh.domain.actors import Actor
from synergymesh.domain.audit.forms import chain_hashes, genesis_hash
from synergymesh.domain.audit.trust import SignedCheckpoint, read_record
from synergymesh.domain.audit.verification import LogReport
from synergymesh.store.audit import rows
from synergymesh.store.sqlite import SqliteReader


@task
async def nothing() -> None: ...


@workflow
def single() -> object:
    return nothing()


class Log:
    """A database with its checkpoints, at rest; `acme` has 1 + 3 x 12 entries and more, `other` some."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.database = directory / "mesh.db"
        self.audit = directory / "mesh.db.audit"
        self.acme = self.other = ""
        self.key = b""
        self.number = 0

    def copy(self, to: Path) -> Log:
        shutil.copytree(self.directory, to)
        log = Log(to)
        log.acme, log.other, log.key, log.number = self.acme, self.other, self.key, self.number
        return log

    def change(self, *statements: str, **arguments: Any) -> None:
        """Change the database from outside, past every constraint."""
        connection = sqlite3.connect(self.database, isolation_level=None)
        try:
            connection.execute("PRAGMA ignore_check_constraints = ON")
            for statement in statements:
                connection.execute(statement, {"acme": self.acme, "other": self.other, **arguments})
        finally:
            connection.close()

    def ask(self, statement: str, **arguments: Any) -> list[Any]:
        connection = sqlite3.connect(self.database)
        try:
            return connection.execute(statement, {"acme": self.acme, "other": self.other, **arguments}).fetchall()
        finally:
            connection.close()

    @property
    def log_id(self) -> str:
        return f"{self.ask('SELECT value FROM meta WHERE name = :n', n='audit_log_id')[0][0]:016x}"

    def lines(self) -> list[bytes]:
        return (self.audit / "checkpoints.jsonl").read_bytes().splitlines()

    def numbers(self) -> list[int]:
        """Give the numbers of the published checkpoints."""
        records = map(read_record, self.lines())
        return [record.checkpoint.number for record in records if isinstance(record, SignedCheckpoint)]

    async def verify(
        self,
        keys: list[bytes] | None = None,
        lines: list[bytes] | None = None,
        since: int | None = None,
        tenant: str | None = None,
    ) -> LogReport:
        reader = SqliteReader(self.database)
        await reader.open()
        try:
            trusted = [self.key] if keys is None else keys
            published = self.lines() if lines is None else lines
            return await reader.scan_audit(
                lambda scan: verify_log(scan, trusted, published, tenant_id=tenant, since=since)
            )
        finally:
            await reader.close()

    def seal_again(self, tenant: str) -> None:
        """Compute the whole chain of a tenant anew, as somebody can who has the database and not the key."""
        rows = self.ask("SELECT entry_id, payload FROM audit_entries WHERE tenant_id = :t ORDER BY seq", t=tenant)
        hashes = chain_hashes(tenant, 1, genesis_hash(self.log_id, tenant), [row[1] for row in rows])
        self.change("UPDATE audit_entries SET seq = -seq WHERE tenant_id = :t", t=tenant)
        for seq, ((entry_id, _), hash_) in enumerate(zip(rows, hashes, strict=True), 1):
            self.change("UPDATE audit_entries SET seq = :s, hash = :h WHERE entry_id = :i", s=seq, h=hash_, i=entry_id)
        self.change(
            "UPDATE audit_heads SET seq = :s, hash = :h WHERE tenant_id = :t", s=len(rows), h=hashes[-1], t=tenant
        )


async def fill_alone(log: Log, runs: int = 12) -> None:
    """Fill a log so that every entry has a row for itself, as they have where little happens."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "GROUP_ENTRIES_MAX", 1)
        await fill(log, runs)


async def fill(log: Log, runs: int = 12) -> None:
    async with Orchestrator(f"sqlite:///{log.database}") as mesh:
        log.acme = (await mesh.create_tenant("Acme", "professional")).tenant_id
        log.other = (await mesh.create_tenant("Other")).tenant_id
        for tenant, count in ((log.acme, runs), (log.other, 2)):
            with mesh.acting_as(Actor(type="user", id="alice")):
                for handle in [await mesh.submit(single, tenant=tenant) for _ in range(count)]:
                    await handle.result()
        log.key = bytes.fromhex((await mesh.audit_keys() or [await new_key(mesh)])[-1].public)


async def new_key(mesh: Orchestrator) -> Any:
    await mesh.export_audit(str(Path(mesh.settings.database.removeprefix("sqlite:///")).with_suffix(".jsonl")))
    return (await mesh.audit_keys())[-1]


class Later:
    """A clock that is so many days ahead."""

    def __init__(self, days: float) -> None:
        self.days = days

    def now(self) -> int:
        return time.time_ns() + int(self.days * 86_400e9)


async def prune(log: Log) -> int:
    """Let the mesh prune what is routine of acme, long after it happened."""
    later = Later(100)
    async with Orchestrator(f"sqlite:///{log.database}", clock=later) as mesh:
        return await mesh.prune_audit(log.acme)
