"""A real database file that somebody changes from outside: each attack is found at its first bad entry."""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from synergymesh import Orchestrator, task, workflow
from synergymesh.audit.keys import SigningKey
from synergymesh.audit.verify import verify_export
from synergymesh.audit.verifying import verify_log
from synergymesh.domain.actors import Actor
from synergymesh.domain.audit.forms import (
    CHECKPOINT_TAG,
    TOMBSTONE_TAG,
    Checkpoint,
    Gap,
    Head,
    Tombstone,
    chain_hashes,
    genesis_hash,
    heads_root,
)
from synergymesh.domain.audit.trust import SignedCheckpoint, read_record
from synergymesh.domain.audit.verification import Damage, LogReport
from synergymesh.store.sqlite import SqliteReader

MUTATIONS = 2_000
CLEAN_LOGS = 200


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

    def lines(self) -> list[bytes]:
        return (self.audit / "checkpoints.jsonl").read_bytes().splitlines()

    async def verify(self, keys: list[bytes] | None = None, lines: list[bytes] | None = None) -> LogReport:
        reader = SqliteReader(self.database)
        await reader.open()
        try:
            trusted = [self.key] if keys is None else keys
            published = self.lines() if lines is None else lines
            return await reader.scan_audit(lambda scan: verify_log(scan, trusted, published))
        finally:
            await reader.close()

    def seal_again(self, tenant: str) -> None:
        """Compute the whole chain of a tenant anew, as somebody can who has the database and not the key."""
        rows = self.ask("SELECT entry_id, payload FROM audit_entries WHERE tenant_id = :t ORDER BY seq", t=tenant)
        log_id = f"{self.ask('SELECT value FROM meta WHERE name = :n', n='audit_log_id')[0][0]:016x}"
        hashes = chain_hashes(tenant, 1, genesis_hash(log_id, tenant), [row[1] for row in rows])
        self.change("UPDATE audit_entries SET seq = -seq WHERE tenant_id = :t", t=tenant)
        for seq, ((entry_id, _), hash_) in enumerate(zip(rows, hashes, strict=True), 1):
            self.change("UPDATE audit_entries SET seq = :s, hash = :h WHERE entry_id = :i", s=seq, h=hash_, i=entry_id)
        self.change(
            "UPDATE audit_heads SET seq = :s, hash = :h WHERE tenant_id = :t", s=len(rows), h=hashes[-1], t=tenant
        )


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


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Log:
    directory = tmp_path_factory.mktemp("audit") / "log"
    directory.mkdir()
    log = Log(directory)
    asyncio.run(fill(log))
    return log


@pytest.fixture
def log(original: Log, tmp_path: Path) -> Log:
    return original.copy(tmp_path / "log")


def only(report: LogReport) -> tuple[Damage, str | None, int | None]:
    assert report.findings, "nothing was found"
    first = report.findings[0]
    return first.damage, first.tenant_id, first.seq


async def test_a_log_that_nobody_touched_is_intact(log: Log) -> None:
    report = await log.verify()
    assert report.findings == []
    assert report.checkpoints >= 1
    assert report.chains == 3
    assert report.entries == log.ask("SELECT count(*) FROM audit_entries")[0][0]
    assert report.unpinned == 0


FIELDS = "tenant_id, seq, at, action, entity, version, actor, outcome, payload, hash"
HEAD_SEQ = "(SELECT seq FROM audit_heads WHERE tenant_id = {})"
ROW = "tenant_id = :acme AND seq = 5"
UP = (
    "UPDATE audit_entries SET seq = -seq WHERE tenant_id = :acme AND seq > 5",
    "UPDATE audit_entries SET seq = 1 - seq WHERE tenant_id = :acme AND seq < 0",
)

ATTACKS: dict[str, tuple[tuple[str, ...], Damage, str, int]] = {
    **{
        f"the column {column}": (
            (f"UPDATE audit_entries SET {column} = {value} WHERE {ROW}",),
            Damage.CHANGED,
            "acme",
            5,
        )
        for column, value in (
            ("at", "at + 1"),
            ("action", "'run.finished.'"),
            ("entity", "'run/another'"),
            ("version", "version + 1"),
            ("actor", "'user/mallory'"),
            ("outcome", "'denied'"),
            ("payload", "replace(payload, 'success', 'failure')"),
            ("payload ", "CAST(replace(payload, 'success', 'failure') AS BLOB)"),
            ("payload  ", "x''"),
            ("payload   ", "CAST(payload AS TEXT)"),
            ("hash", "zeroblob(32)"),
            ("hash ", "x'00'"),
            ("hash  ", "'text'"),
        )
    },
    "one deleted": ((f"DELETE FROM audit_entries WHERE {ROW}",), Damage.MISSING, "acme", 5),
    "the first deleted": (
        ("DELETE FROM audit_entries WHERE tenant_id = :acme AND seq = 1",),
        Damage.MISSING,
        "acme",
        1,
    ),
    "some deleted, the others renumbered": (
        (
            "DELETE FROM audit_entries WHERE tenant_id = :acme AND seq IN (5, 6)",
            "UPDATE audit_entries SET seq = -seq WHERE tenant_id = :acme AND seq > 6",
            "UPDATE audit_entries SET seq = -seq - 2 WHERE tenant_id = :acme AND seq < 0",
        ),
        Damage.MISSING,
        "acme",
        5,
    ),
    "the tail deleted": (
        ("DELETE FROM audit_entries WHERE tenant_id = :acme AND seq > 20",),
        Damage.TRUNCATED,
        "acme",
        21,
    ),
    "the tail deleted, the head set back": (
        (
            "DELETE FROM audit_entries WHERE tenant_id = :acme AND seq > 20",
            "UPDATE audit_heads SET seq = 20, hash = "
            "(SELECT hash FROM audit_entries WHERE tenant_id = :acme AND seq = 20) WHERE tenant_id = :acme",
        ),
        Damage.ROLLED_BACK,
        "acme",
        21,
    ),
    "a whole tenant deleted": (
        ("DELETE FROM audit_entries WHERE tenant_id = :acme", "DELETE FROM audit_heads WHERE tenant_id = :acme"),
        Damage.MISSING,
        "acme",
        1,
    ),
    "the head deleted, and the tail": (
        (
            "DELETE FROM audit_heads WHERE tenant_id = :acme",
            "DELETE FROM audit_entries WHERE tenant_id = :acme AND seq > 20",
        ),
        Damage.TRUNCATED,
        "acme",
        21,
    ),
    "two swapped": (
        (
            "UPDATE audit_entries SET seq = -1 WHERE tenant_id = :acme AND seq = 5",
            "UPDATE audit_entries SET seq = 5 WHERE tenant_id = :acme AND seq = 9",
            "UPDATE audit_entries SET seq = 9 WHERE tenant_id = :acme AND seq = -1",
        ),
        Damage.REORDERED,
        "acme",
        5,
    ),
    "one inserted, backdated": (
        (
            *UP,
            "INSERT INTO audit_entries (tenant_id, seq, at, action, entity, version, actor, outcome, payload, hash) "
            "SELECT tenant_id, 6, at, action, 'run/forged', version, actor, outcome, "
            "CAST(replace(payload, 'run/', 'run/forged') AS BLOB), zeroblob(32) FROM audit_entries WHERE " + ROW,
        ),
        Damage.INSERTED,
        "acme",
        6,
    ),
    "one twice": (
        (
            "DROP INDEX uq_audit_entries_seq",
            f"INSERT INTO audit_entries ({FIELDS}) SELECT {FIELDS} FROM audit_entries WHERE {ROW}",
        ),
        Damage.DUPLICATE,
        "acme",
        5,
    ),
    "one moved to another tenant": (
        (
            f"UPDATE audit_entries SET tenant_id = :acme, seq = 1 + {HEAD_SEQ.format(':acme')} "
            f"WHERE tenant_id = :other AND seq = {HEAD_SEQ.format(':other')}",
        ),
        Damage.FOREIGN,
        "acme",
        0,
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
async def test_an_attack_from_outside_is_found_at_its_first_bad_entry(log: Log, attack: str) -> None:
    statements, damage, tenant, seq = ATTACKS[attack]
    last = log.ask("SELECT seq FROM audit_heads WHERE tenant_id = :acme")[0][0]
    log.change(*statements)
    report = await log.verify()
    tenant_id = getattr(log, tenant)
    found = [(each.damage, each.seq) for each in report.findings if each.tenant_id == tenant_id]
    assert found == [(damage, seq or last + 1)]


async def test_a_chain_computed_anew_without_the_key_is_found(log: Log) -> None:
    raw = log.ask(f"SELECT payload FROM audit_entries WHERE {ROW}")[0][0]
    log.change(
        f"UPDATE audit_entries SET payload = :p, outcome = 'failure' WHERE {ROW}",
        p=raw.replace(b'"outcome":"success"', b'"outcome":"failure"'),
    )
    log.seal_again(log.acme)
    last = log.ask("SELECT seq FROM audit_heads WHERE tenant_id = :acme")[0][0]
    report = await log.verify()
    assert only(report) == (Damage.FORKED, log.acme, last)
    assert report.findings[0].since == 1
    alone = await log.verify(lines=[])
    assert alone.is_intact, "only the signed checkpoint contradicts it"
    assert alone.unpinned == alone.entries


async def test_an_entry_left_out_of_a_chain_computed_anew_is_found(log: Log) -> None:
    log.change(f"DELETE FROM audit_entries WHERE {ROW}")
    log.seal_again(log.acme)
    assert only(await log.verify())[:2] == (Damage.ROLLED_BACK, log.acme)


async def test_an_older_backup_is_found(log: Log, tmp_path: Path) -> None:
    backup = log.copy(tmp_path / "backup")
    async with Orchestrator(f"sqlite:///{log.database}") as mesh:
        await (await mesh.submit(single, tenant=log.acme)).result()
    newer = log.lines()
    assert (await log.verify()).is_intact
    report = await backup.verify(lines=newer)
    assert {each.damage for each in report.findings} == {Damage.ROLLED_BACK}
    assert log.acme in {each.tenant_id for each in report.findings}
    shutil.copy(backup.database, log.database)
    async with Orchestrator(f"sqlite:///{log.database}"):
        pass  # goes on from the backup, and signs what it finds
    report = await log.verify()
    assert report.findings[0].tenant_id is None, "the checkpoints themselves say that heads went back"
    assert report.findings[0].damage in (Damage.ROLLED_BACK, Damage.FORKED)


async def test_another_key_is_found(log: Log) -> None:
    stranger = SigningKey.generate()
    assert only(await log.verify(keys=[stranger.public]))[0] is Damage.WRONG_KEY
    record = read_record(log.lines()[-1])
    assert isinstance(record, SignedCheckpoint)
    forged = Checkpoint(
        **{
            name: getattr(record.checkpoint, name)
            for name in ("log_id", "number", "at", "root", "heads", "entries", "previous")
        },
        key_id=stranger.key_id,
    )
    line = SignedCheckpoint(
        checkpoint=forged,
        signature=stranger.sign(CHECKPOINT_TAG, forged.content()),
        heads=record.heads,
        full=record.full,
    ).line()
    assert only(await log.verify(lines=[*log.lines()[:-1], line]))[0] is Damage.WRONG_KEY


async def test_two_heads_for_one_number_are_a_fork(log: Log) -> None:
    from synergymesh.audit.keys import load

    key = load(log.audit / "key.pem")
    record = read_record(log.lines()[-1])
    assert isinstance(record, SignedCheckpoint)
    heads = [Head(head.tenant_id, head.seq, bytes(32)) for head in record.heads]
    other = Checkpoint(
        log_id=record.checkpoint.log_id,
        number=record.checkpoint.number,
        at=record.checkpoint.at,
        root=heads_root(heads),
        heads=len(heads),
        entries=record.checkpoint.entries,
        previous=record.checkpoint.previous,
        key_id=key.key_id,
    )
    line = SignedCheckpoint(
        checkpoint=other, signature=key.sign(CHECKPOINT_TAG, other.content()), heads=tuple(heads), full=True
    ).line()
    assert only(await log.verify(lines=[*log.lines(), line]))[0] is Damage.FORKED


async def test_another_log_of_the_same_mesh_is_found(log: Log, tmp_path: Path) -> None:
    stranger = Log(tmp_path / "stranger")
    stranger.directory.mkdir()
    await fill(stranger, runs=1)
    report = await log.verify(keys=[log.key, stranger.key], lines=stranger.lines())
    assert only(report)[0] is Damage.WRONG_LOG
    log.change("UPDATE meta SET value = value + 1 WHERE name = 'audit_log_id'")
    report = await log.verify(lines=[])
    assert (Damage.CHANGED, log.acme, 1) in {(each.damage, each.tenant_id, each.seq) for each in report.findings}


@pytest.mark.parametrize("cut", [1, 40, 127])
async def test_a_checkpoint_whose_signature_is_cut_off_is_found(log: Log, cut: int) -> None:
    *rest, last = log.lines()
    start = last.index(b'"signature":"') + len(b'"signature":"')
    for broken in (last[:start] + last[start + cut :], last.replace(b'"signature"', b'"signatura"')):
        assert only(await log.verify(lines=[*rest, broken]))[0] is Damage.UNSIGNED
    flipped = bytes([last[start] ^ 1]) if chr(last[start] ^ 1) in "0123456789abcdef" else b"0"
    wrong = last[:start] + flipped + last[start + 1 :]
    if wrong != last:
        assert only(await log.verify(lines=[*rest, wrong]))[0] is Damage.BAD_SIGNATURE


def tombstone(log: Log, first: int, last: int, key: SigningKey, at: int) -> None:
    """Prune from outside, with a tombstone."""
    hashes = dict(log.ask("SELECT seq, hash FROM audit_entries WHERE tenant_id = :acme"))
    log_id = f"{log.ask('SELECT value FROM meta WHERE name = :n', n='audit_log_id')[0][0]:016x}"
    gap = Gap(
        first=first,
        last=last,
        previous=hashes[first - 1] if first > 1 else genesis_hash(log_id, log.acme),
        head=hashes[last],
    )
    stone = Tombstone(
        log_id=log_id, tenant_id=log.acme, day="2026-11-22", gaps=(gap,), pruned_at=at, key_id=key.key_id
    ).content()
    log.change(
        "INSERT INTO audit_tombstones VALUES (:acme, :f, :l, :c, :s, 0)",
        f=first,
        l=last,
        c=stone,
        s=key.sign(TOMBSTONE_TAG, stone),
    )
    log.change("DELETE FROM audit_entries WHERE tenant_id = :acme AND seq BETWEEN :f AND :l", f=first, l=last)


async def test_pruning_without_a_tombstone_or_with_a_forged_one_is_found(log: Log, tmp_path: Path) -> None:
    from synergymesh.audit.keys import load

    bare = log.copy(tmp_path / "bare")
    bare.change("DELETE FROM audit_entries WHERE tenant_id = :acme AND seq <= 5")
    assert only(await bare.verify()) == (Damage.MISSING, log.acme, 1)
    forged = log.copy(tmp_path / "forged")
    tombstone(forged, 1, 5, SigningKey.generate(), 1)
    report = await forged.verify()
    assert {each.damage for each in report.findings} == {Damage.MISSING, Damage.WRONG_KEY}
    tombstone(log, 1, 5, load(log.audit / "key.pem"), 1)
    assert (await log.verify()).is_intact


async def test_pruning_under_a_legal_hold_is_found_even_when_it_is_signed(log: Log) -> None:
    from synergymesh.audit.keys import load

    async with Orchestrator(f"sqlite:///{log.database}") as mesh:
        await mesh.hold_audit(log.acme, "case 7")
    held_at = log.ask("SELECT held_at FROM audit_holds")[0][0]
    tombstone(log, 2, 5, load(log.audit / "key.pem"), held_at + 1)
    assert only(await log.verify()) == (Damage.PRUNED_UNDER_HOLD, log.acme, 2)


async def test_damage_in_two_tenants_is_named_for_both(log: Log) -> None:
    log.change("UPDATE audit_entries SET actor = 'user/mallory' WHERE seq = 3 AND tenant_id <> ''")
    report = await log.verify()
    assert [(each.damage, each.seq) for each in report.findings] == [(Damage.CHANGED, 3)] * 2


# --- at random ------------------------------------------------------------------------------------------------------

_COLUMNS = ("at", "action", "entity", "version", "actor", "outcome", "payload", "hash", "seq", "tenant_id")


def mutate(connection: sqlite3.Connection, dice: random.Random) -> None:
    """Change one thing: a byte, a value, a row or the order."""
    rows = connection.execute("SELECT entry_id, tenant_id, seq FROM audit_entries ORDER BY entry_id").fetchall()
    entry_id, tenant_id, seq = dice.choice(rows)
    match dice.randrange(5):
        case 0:  # a byte
            column = dice.choice(("payload", "hash"))
            raw = bytearray(
                connection.execute(f"SELECT {column} FROM audit_entries WHERE entry_id = ?", (entry_id,)).fetchone()[0]
            )
            raw[dice.randrange(len(raw))] ^= dice.randrange(1, 256)
            connection.execute(f"UPDATE audit_entries SET {column} = ? WHERE entry_id = ?", (bytes(raw), entry_id))
        case 1:  # a value
            column = dice.choice(_COLUMNS)
            value = dice.choice((None, 0, 10**12, -5, "", "mallory", b"\0", 1.5))
            old = connection.execute(f"SELECT {column} FROM audit_entries WHERE entry_id = ?", (entry_id,)).fetchone()[
                0
            ]
            assert old != value
            connection.execute(f"UPDATE audit_entries SET {column} = ? WHERE entry_id = ?", (value, entry_id))
        case 2:  # a row less
            connection.execute("DELETE FROM audit_entries WHERE entry_id = ?", (entry_id,))
        case 3:  # a row more
            connection.execute(
                f"INSERT INTO audit_entries ({FIELDS}) "
                f"SELECT {FIELDS.replace('seq', '?')} FROM audit_entries WHERE entry_id = ?",
                (dice.choice((seq, len(rows) + 100, 10**9)), entry_id),
            )
        case _:  # the order
            other_id, other_tenant, other_seq = dice.choice([row for row in rows if row[0] != entry_id])
            connection.execute(
                "UPDATE audit_entries SET tenant_id = ?, seq = ? WHERE entry_id = ?",
                (other_tenant, other_seq, entry_id),
            )
            connection.execute(
                "UPDATE audit_entries SET tenant_id = ?, seq = ? WHERE entry_id = ?", (tenant_id, seq, other_id)
            )


async def test_no_single_random_mutation_of_the_file_goes_unnoticed(log: Log) -> None:
    from synergymesh.audit.verifying import verify_log as verify
    from synergymesh.store.audit.scan import scan

    connection = sqlite3.connect(log.database, isolation_level=None)
    connection.execute("DROP INDEX uq_audit_entries_seq")
    connection.execute("PRAGMA ignore_check_constraints = ON")
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute("UPDATE sqlite_master SET sql = replace(sql, 'NOT NULL', '') WHERE name = 'audit_entries'")
    connection.close()
    connection = sqlite3.connect(log.database, isolation_level=None)
    connection.execute("PRAGMA ignore_check_constraints = ON")
    lines = log.lines()
    unnoticed = []
    for seed in range(MUTATIONS):
        # in a transaction that is rolled back: a file less to copy each time; the scan begins its own otherwise
        connection.execute("BEGIN")
        mutate(connection, random.Random(seed))
        report = verify(_Inside(connection), [log.key], lines)
        connection.execute("ROLLBACK")
        if report.is_intact:
            unnoticed.append(seed)
    assert unnoticed == []
    assert verify(_Inside(connection), [log.key], lines).is_intact
    assert scan is not None
    connection.close()


def _Inside(connection: sqlite3.Connection) -> Any:  # noqa: N802 - it stands for a class
    from synergymesh.store.audit.scan import SqliteAuditScan

    return SqliteAuditScan(connection)


async def test_no_clean_log_alarms(original: Log, tmp_path: Path) -> None:
    """Logs of random lives: tenants, runs, holds, exports, key changes, restarts."""
    alarms = []
    for seed in range(CLEAN_LOGS):
        dice = random.Random(seed)
        path = tmp_path / f"{seed}"
        path.mkdir()
        log = Log(path)
        for _ in range(dice.randrange(1, 3)):
            async with Orchestrator(f"sqlite:///{log.database}", synchronous="normal") as mesh:
                for _ in range(dice.randrange(1, 6)):
                    await _live(mesh, dice, path)
        async with Orchestrator(f"sqlite:///{log.database}", synchronous="normal") as mesh:
            report = await mesh.verify_audit()
            await mesh.export_audit(str(path / "out.jsonl"))
            exported = verify_export(
                path / "out.jsonl",
                path / "out.jsonl.manifest.json",
                [bytes.fromhex((await mesh.audit_keys())[0].public)],
            )
        if not report.is_intact or not exported.is_intact:
            alarms.append((seed, report.findings, exported.findings))
        shutil.rmtree(path)
    assert alarms == []


async def _live(mesh: Orchestrator, dice: random.Random, path: Path) -> None:
    tenants = await mesh.list_tenants()
    deeds: list[Callable[[], Awaitable[Any]]] = [
        lambda: mesh.create_tenant("T", dice.choice(("basic", "enterprise"))),
        lambda: mesh.audit_log(limit=5),
        lambda: mesh.rotate_audit_key(),
        lambda: mesh.prune_audit(),
        lambda: mesh.export_audit(str(path / "x.csv"), format="csv"),
    ]
    if tenants:
        tenant = dice.choice(tenants)
        deeds += [
            lambda: _run(mesh, tenant.tenant_id),
            lambda: _run(mesh, tenant.tenant_id),
            lambda: mesh.suspend_tenant(tenant.tenant_id),
            lambda: mesh.resume_tenant(tenant.tenant_id),
            lambda: mesh.hold_audit(tenant.tenant_id, "case"),
            lambda: mesh.release_audit(tenant.tenant_id),
            lambda: mesh.delete_tenant(tenant.tenant_id, force=True),
        ]
    await dice.choice(deeds)()


async def _run(mesh: Orchestrator, tenant_id: str) -> None:
    if (await mesh.get_tenant(tenant_id)).status == "active":
        await (await mesh.submit(single, tenant=tenant_id)).result()
