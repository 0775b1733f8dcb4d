"""Single changes at random, in every table of the audit log and in its checkpoints; and logs that nobody changed."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import sqlite3
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.integration.tampered_log import Later, Log, fill, prune, single

from synergymesh import Orchestrator, RetryPolicy
from synergymesh.audit.verify import verify_export
from synergymesh.audit.verifying import verify_log
from synergymesh.domain.actors import Actor
from synergymesh.domain.audit.verification import Verdict
from synergymesh.errors import FeatureNotEnabled, RateLimitExceeded
from synergymesh.store.audit.scan import SqliteAuditScan

MUTATIONS = 2_000
OF_CHECKPOINTS = 600
CLEAN_LOGS = 200

COLUMNS = {
    "audit_entries": (
        *("entry_id", "tenant_id", "seq", "first_at", "at", "action", "entity"),
        *("version", "actor", "outcome", "payload", "hash"),
    ),
    "audit_heads": ("tenant_id", "seq", "hash"),
    "audit_tombstones": ("tenant_id", "first_seq", "last_seq", "content", "signature"),
    "audit_holds": ("tenant_id", "reason", "held_at"),
    "meta": ("name", "value"),
}
"""What is verified of each table. Whether a tombstone's entries are still to be deleted proves nothing."""

VALUES = (None, 0, 10**12, -5, "", "mallory", b"\0", 1.5, b"x" * 32, b"x" * 64, "x" * 64, b"\xff")


class Mutating:
    """One connection to a log past every constraint; each mutation is rolled back."""

    def __init__(self, log: Log) -> None:
        self.log = log
        connection = sqlite3.connect(log.database, isolation_level=None)
        connection.execute("DROP INDEX uq_audit_entries_seq")
        connection.execute("PRAGMA writable_schema = ON")
        for table in COLUMNS:
            connection.execute("UPDATE sqlite_master SET sql = replace(sql, 'NOT NULL', '') WHERE name = ?", (table,))
        connection.close()
        self.connection = sqlite3.connect(log.database, isolation_level=None)
        self.connection.execute("PRAGMA ignore_check_constraints = ON")

    def mutate(self, dice: random.Random) -> str:
        """Change one thing: a byte, a value, a row less or more, or the order; say what, or nothing if nothing was."""
        table = dice.choices(list(COLUMNS), (10, 2, 2, 2, 1))[0]
        where = "name = 'audit_log_id'" if table == "meta" else "1"
        keys = {"audit_entries": "entry_id", "audit_tombstones": "tenant_id, first_seq", "meta": "name"}
        key = keys.get(table, "tenant_id")
        row = dice.choice(self.connection.execute(f"SELECT {key} FROM {table} WHERE {where}").fetchall())
        here = " AND ".join(f"{name} = ?" for name in key.split(", "))
        match dice.randrange(5):
            case 0:
                return self._byte(dice, table, here, row)
            case 1:
                return self._value(dice, table, here, row)
            case 2:
                self.connection.execute(f"DELETE FROM {table} WHERE {here}", row)
                return f"{table}: a row less"
            case 3:
                return self._row(dice, table, here, row)
            case _:
                return self._order(dice, row[0]) if table == "audit_entries" else ""

    def _byte(self, dice: random.Random, table: str, here: str, row: tuple[Any, ...]) -> str:
        blobs = [name for name in ("payload", "hash", "content", "signature") if name in COLUMNS[table]]
        if not blobs:
            return ""
        column = dice.choice(blobs)
        raw = bytearray(self.connection.execute(f"SELECT {column} FROM {table} WHERE {here}", row).fetchone()[0])
        raw[dice.randrange(len(raw))] ^= dice.randrange(1, 256)
        self.connection.execute(f"UPDATE {table} SET {column} = ? WHERE {here}", (bytes(raw), *row))
        return f"{table}.{column}: a byte"

    def _value(self, dice: random.Random, table: str, here: str, row: tuple[Any, ...]) -> str:
        column, value = dice.choice(COLUMNS[table]), dice.choice(VALUES)
        select = f"SELECT {column} FROM {table} WHERE {here}"
        old = self.connection.execute(select, row).fetchone()[0]
        if column == "entry_id" and value is not None and not isinstance(value, int):
            return ""
        self.connection.execute(f"UPDATE {table} SET {column} = ? WHERE {here}", (value, *row))
        return "" if old == value else f"{table}.{column} = {value!r:.20}"

    def _row(self, dice: random.Random, table: str, here: str, row: tuple[Any, ...]) -> str:
        names = [name for name in COLUMNS[table] if name != "entry_id"]
        if table == "meta":
            return ""
        values = dict(
            zip(
                names,
                self.connection.execute(f"SELECT {', '.join(names)} FROM {table} WHERE {here}", row).fetchone(),
                strict=True,
            )
        )
        own = values["tenant_id"]
        tenants = [own, own.encode(), None, "ghost", 5, self.log.other, b"\xff"]
        values["tenant_id"] = dice.choice(tenants)
        for name in ("seq", "first_seq"):
            if name in values:
                values[name] = dice.choice([values[name], 0, -3, 1.5, "x", b"x", None, 5, 10**9])
        pending = ", pending" if table == "audit_tombstones" else ""
        self.connection.execute(
            f"INSERT INTO {table} ({', '.join(names)}{pending}) "
            f"VALUES ({', '.join('?' * len(names))}{', 0' if pending else ''})",
            list(values.values()),
        )
        return f"{table}: a row more, of {values['tenant_id']!r:.20}, {values.get('seq')!r:.20}"

    def _order(self, dice: random.Random, entry_id: int) -> str:
        places = self.connection.execute("SELECT entry_id, tenant_id, seq FROM audit_entries").fetchall()
        (_, *one) = next(place for place in places if place[0] == entry_id)
        other_id, *other = dice.choice([place for place in places if place[0] != entry_id])
        for place, number in ((other, entry_id), (one, other_id)):
            self.connection.execute(
                "UPDATE audit_entries SET tenant_id = ?, seq = ? WHERE entry_id = ?", (*place, number)
            )
        return f"audit_entries: {entry_id} and {other_id} in each other's places"


async def lived(log: Log) -> None:
    """Give a log everything that can be changed: rows of many entries, a tombstone, a hold, checkpoints of two keys."""
    await prune(log)
    later = Later(100)
    async with Orchestrator(f"sqlite:///{log.database}", clock=later) as mesh:
        auditing = mesh._running.auditing
        await mesh.hold_audit(log.other, "case 7")
        for tenant in (log.acme, log.other):  # at once, so that many entries lie together in a row
            handles = await asyncio.gather(*(mesh.submit(single, tenant=tenant) for _ in range(6)))
            await asyncio.gather(*(handle.result() for handle in handles))
        for _ in range(3):
            await mesh.create_tenant("T")
            await auditing.checkpoints.write()
        log.key = bytes.fromhex((await mesh.rotate_audit_key()).public)
        for _ in range(3):
            await mesh.create_tenant("T")
            await auditing.checkpoints.write()


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Log:
    log = Log(tmp_path_factory.mktemp("audit") / "log")
    log.directory.mkdir()
    asyncio.run(fill(log))
    asyncio.run(lived(log))
    return log


@pytest.fixture
def log(original: Log, tmp_path: Path) -> Log:
    return original.copy(tmp_path / "log")


def test_no_single_random_mutation_of_the_database_goes_unnoticed(log: Log) -> None:
    assert log.ask("SELECT max(length(hash)) / 32 FROM audit_entries")[0][0] >= 4
    mutating = Mutating(log)
    connection = mutating.connection
    lines = log.lines()
    unnoticed, done, seed = [], 0, 0
    while done < MUTATIONS:
        seed += 1
        # in a transaction that is rolled back: a file less to copy each time
        connection.execute("BEGIN")
        try:
            what = mutating.mutate(random.Random(seed))
        except sqlite3.IntegrityError:
            what = ""  # the key of a table refuses it, whoever asks
        if what:
            done += 1
            report = verify_log(SqliteAuditScan(connection, packed=bool(seed % 2)), [log.key], lines)
            if report.is_intact:
                unnoticed.append((seed, what))
        connection.execute("ROLLBACK")
    assert unnoticed == []
    for packed in (True, False):
        assert verify_log(SqliteAuditScan(connection, packed=packed), [log.key], lines).findings == []
    connection.close()


def test_no_single_random_mutation_of_the_checkpoints_goes_unnoticed(log: Log) -> None:
    raw = (log.audit / "checkpoints.jsonl").read_bytes()
    lines = raw.splitlines(keepends=True)
    links = [number for number, line in enumerate(lines) if b'"key_link"' in line]
    assert len(lines) > 8
    assert links
    connection = sqlite3.connect(log.database, isolation_level=None)
    unnoticed = []
    for seed in range(OF_CHECKPOINTS):
        dice = random.Random(seed)
        # The first lines can be put away, and whether there were newer ones only those say who have them.
        middle = dice.randrange(1, len(lines) - 1)
        match dice.randrange(4):
            case 0 | 1:
                place = dice.randrange(len(raw) - 1)
                changed = raw[:place] + bytes([raw[place] ^ dice.randrange(1, 256)]) + raw[place + 1 :]
            case 2:
                changed = b"".join(lines[:middle] + lines[middle + 1 :])
            case _:
                one, other = dice.sample([number for number in range(len(lines)) if number not in links], 2)
                swapped = list(lines)
                swapped[one], swapped[other] = lines[other], lines[one]
                changed = b"".join(swapped)
        given = changed.split(b"\n")[:-1]
        if verify_log(SqliteAuditScan(connection), [log.key], given).is_intact:
            unnoticed.append((seed, middle))
    assert unnoticed == []
    assert verify_log(SqliteAuditScan(connection), [log.key], raw.split(b"\n")[:-1]).findings == []
    connection.close()


async def test_no_clean_log_alarms(tmp_path: Path) -> None:
    """Logs of random lives: tenants, runs, holds, pruning, exports, key changes, clocks that are set back, restarts."""
    alarms = []
    for seed in range(CLEAN_LOGS):
        dice = random.Random(seed)
        path = tmp_path / f"{seed}"
        path.mkdir()
        log = Log(path)
        url = f"sqlite:///{log.database}"
        for _ in range(dice.randrange(1, 4)):
            clock = Later(dice.choice((0, 0.01, 100, 400)))
            async with Orchestrator(url, synchronous="normal", clock=clock) as mesh:
                for _ in range(dice.randrange(1, 6)):
                    with mesh.acting_as(Actor(type="user", id=dice.choice(ACTORS))):
                        await _live(mesh, dice, path)
        async with Orchestrator(url, synchronous="normal") as mesh:
            reports = [
                await mesh.verify_audit(),
                await mesh.verify_audit(since=dice.randrange(1, len(log.numbers()) + 1)),
            ]
            times = {dice.choice(("since", "until")): dice.choice((None, datetime.now(UTC)))}
            await mesh.export_audit(str(path / "out.jsonl"), **times)
            keys = [bytes.fromhex(key.public) for key in await mesh.audit_keys()]
        for key in (keys[0], keys[-1]):
            kept = log.lines()
            reports.append(verify_export(path / "out.jsonl", path / "out.jsonl.manifest.json", [key], kept))
        findings = [finding for report in reports for finding in (*report.findings, *report.notes)]
        if findings or any(report.verdict is not Verdict.INTACT for report in reports):
            alarms.append((seed, findings))
        shutil.rmtree(path)
    assert alarms == []


ACTORS = ("u-17", "zoë", "\U0001f600", "\uff1d1+2", '\\u00e9"')


async def _live(mesh: Orchestrator, dice: random.Random, path: Path) -> None:
    tenants = await mesh.list_tenants()
    checkpoints = mesh._running.auditing.checkpoints
    deeds: list[Callable[[], Awaitable[Any]]] = [
        lambda: mesh.create_tenant("T", dice.choice(("basic", "enterprise"))),
        lambda: mesh.audit_log(limit=5),
        lambda: mesh.rotate_audit_key(),
        lambda: mesh.prune_audit(),
        lambda: mesh.export_audit(str(path / "x.csv"), format="csv"),
        lambda: mesh.export_audit(str(path / "x.jsonl")),
        lambda: checkpoints.write(),
    ]
    if tenants:
        tenant = dice.choice(tenants).tenant_id
        policy = RetryPolicy(initial_delay=dice.choice((0.1, 1e-5, 0.3)), jitter=dice.random())
        deeds += [
            lambda: _run(mesh, tenant),
            lambda: _run(mesh, tenant),
            lambda: mesh.suspend_tenant(tenant),
            lambda: mesh.resume_tenant(tenant),
            lambda: mesh.hold_audit(tenant, "case ë"),
            lambda: mesh.release_audit(tenant),
            lambda: mesh.delete_tenant(tenant, force=True),
            lambda: mesh.set_retry_policy(tenant, policy),
            lambda: mesh.set_retention(tenant, dice.choice((1e-5, 0.7, 30))),
            lambda: _verify_meanwhile(mesh, tenant),
        ]
    with contextlib.suppress(FeatureNotEnabled, RateLimitExceeded):
        await dice.choice(deeds)()


async def _run(mesh: Orchestrator, tenant_id: str) -> None:
    if (await mesh.get_tenant(tenant_id)).status == "active":
        await (await mesh.submit(single, tenant=tenant_id)).result()


async def _verify_meanwhile(mesh: Orchestrator, tenant_id: str) -> None:
    """Verify while runs end, checkpoints are written and the key is replaced."""
    checkpoints = mesh._running.auditing.checkpoints
    report, *_ = await asyncio.gather(
        mesh.verify_audit(), _run(mesh, tenant_id), checkpoints.write(), mesh.verify_audit(), mesh.rotate_audit_key()
    )
    assert report.findings == []
