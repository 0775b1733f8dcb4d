"""A real database file that somebody changes from outside: each attack is found at its first bad entry."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.integration.tampered_log import Later, Log, fill, fill_alone, prune, single

from synergymesh import Orchestrator, RetryPolicy, Settings
from synergymesh.audit.export_format import manifest_path
from synergymesh.audit.keys import SigningKey, load
from synergymesh.audit.verify import verify_export
from synergymesh.domain.actors import Actor
from synergymesh.domain.audit.forms import (
    CHECKPOINT_TAG,
    KEY_LINK_TAG,
    TOMBSTONE_TAG,
    Checkpoint,
    Gap,
    Head,
    KeyLink,
    Tombstone,
    genesis_hash,
    heads_root,
)
from synergymesh.domain.audit.trust import SignedCheckpoint, SignedLink, read_record
from synergymesh.domain.audit.verification import Damage, LogReport, Verdict
from synergymesh.errors import UnknownTenant
from synergymesh.store.audit import scan


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Log:
    directory = tmp_path_factory.mktemp("audit") / "log"
    directory.mkdir()
    log = Log(directory)
    asyncio.run(fill_alone(log))
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


FIELDS = "tenant_id, seq, first_at, at, action, entity, version, actor, outcome, payload, hash"
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
            ("first_at", "first_at + 1"),
            ("first_at ", "first_at - 1"),
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
            f"INSERT INTO audit_entries ({FIELDS}) "
            "SELECT tenant_id, 6, first_at, at, action, 'run/forged', version, actor, outcome, "
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
    "one twice, at the end of what is read at once": (
        (
            "DROP INDEX uq_audit_entries_seq",
            f"INSERT INTO audit_entries ({FIELDS}) SELECT {FIELDS} FROM audit_entries "
            "WHERE tenant_id = :acme AND seq = 8",
        ),
        Damage.DUPLICATE,
        "acme",
        8,
    ),
    "one with another place in the log": (
        (f"UPDATE audit_entries SET entry_id = -1 WHERE {ROW}",),
        Damage.CHANGED,
        "acme",
        5,
    ),
    "the recorded end taken away": (("DELETE FROM audit_heads WHERE tenant_id = :acme",), Damage.TRUNCATED, "acme", 0),
    "all recorded ends taken away": (("DELETE FROM audit_heads",), Damage.TRUNCATED, "acme", 0),
    **{
        f"the recorded end {change}": (
            (f"UPDATE audit_heads SET {change} WHERE tenant_id = :acme",),
            damage,
            "acme",
            seq,
        )
        for change, damage, seq in (
            ("seq = 'x'", Damage.TRUNCATED, 0),
            ("seq = x'00'", Damage.TRUNCATED, 0),
            ("seq = 2.5", Damage.TRUNCATED, 0),
            ("hash = 'x'", Damage.TRUNCATED, 0),
            ("hash = 5", Damage.TRUNCATED, 0),
            ("seq = 20", Damage.INSERTED, 21),
            ("seq = seq + 1", Damage.TRUNCATED, 0),
        )
    },
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
async def test_an_attack_from_outside_is_found_at_its_first_bad_entry(
    log: Log, attack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "CHUNK", 4)
    statements, damage, tenant, seq = ATTACKS[attack]
    last = log.ask("SELECT seq FROM audit_heads WHERE tenant_id = :acme")[0][0]
    log.change(*statements)
    report = await log.verify()
    tenant_id = getattr(log, tenant)
    found = [(each.damage, each.seq) for each in report.findings if each.tenant_id == tenant_id]
    assert found == [(damage, seq or last + 1)]


FORGED_ROW = (
    f"INSERT INTO audit_entries ({FIELDS}) VALUES ({{tenant}}, {{seq}}, 1, 1, 'tenant.suspended', 'tenant/x', 1, "
    "'user/mallory', 'success', x'7b7d', zeroblob(32))"
)


@pytest.mark.parametrize(
    ("tenant", "seq"),
    [
        (":acme", "-5"),
        (":acme", "0"),
        (":acme", "NULL"),
        (":acme", "'x'"),
        (":acme", "1.5"),
        ("CAST(:acme AS BLOB)", "5"),
        ("CAST(:acme AS BLOB)", "999"),
        ("CAST(x'ff' AS TEXT)", "1"),
        ("NULL", "1"),
        ("7", "1"),
        ("'ghost'", "1"),
        ("'ghost'", "0"),
    ],
)
async def test_a_row_that_belongs_into_no_chain_is_found(log: Log, tenant: str, seq: str) -> None:
    log.change(
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_master SET sql = replace(sql, 'NOT NULL', '') WHERE name = 'audit_entries'",
    )
    log.change(FORGED_ROW.format(tenant=tenant, seq=seq))
    assert not (await log.verify()).is_intact
    if tenant in (":acme", "CAST(:acme AS BLOB)"):
        assert not (await log.verify(tenant=log.acme)).is_intact


async def test_a_row_that_the_index_does_not_have_is_found(log: Log) -> None:
    (sql,) = log.ask("SELECT sql FROM sqlite_master WHERE name = 'uq_audit_entries_seq'")[0]
    (root,) = log.ask("SELECT rootpage FROM sqlite_master WHERE name = 'uq_audit_entries_seq'")[0]
    log.change("PRAGMA writable_schema = ON", "DELETE FROM sqlite_master WHERE name = 'uq_audit_entries_seq'")
    log.change(FORGED_ROW.format(tenant="'ghost'", seq="1"))
    log.change(
        "PRAGMA writable_schema = ON",
        "INSERT INTO sqlite_master VALUES ('index', 'uq_audit_entries_seq', 'audit_entries', :root, :sql)",
        root=root,
        sql=sql,
    )
    assert log.ask("SELECT count(*) FROM audit_entries WHERE tenant_id = 'ghost' AND seq = 1")[0][0] == 0
    report = await log.verify()
    assert (Damage.INSERTED, None) in {(each.damage, each.tenant_id) for each in report.findings}


@pytest.mark.parametrize("value", ["'text'", "x'0011'", "2.5", "-7", "0", "NULL"])
async def test_a_log_whose_id_is_another_or_none_is_found(log: Log, value: str) -> None:
    log.change(
        "PRAGMA writable_schema = ON", "UPDATE sqlite_master SET sql = replace(sql, 'NOT NULL', '') WHERE name = 'meta'"
    )
    log.change(f"UPDATE meta SET value = {value} WHERE name = 'audit_log_id'")
    assert not (await log.verify()).is_intact
    log.change("DELETE FROM meta WHERE name = 'audit_log_id'")
    assert only(await log.verify())[0] is Damage.CHANGED


# --- part of a log --------------------------------------------------------------------------------------------------

TAIL_CUT = (
    "DELETE FROM audit_entries WHERE tenant_id = :acme AND seq > 20",
    "UPDATE audit_heads SET seq = 20, hash = "
    "(SELECT hash FROM audit_entries WHERE tenant_id = :acme AND seq = 20) WHERE tenant_id = :acme",
)

SINCE: dict[str, tuple[tuple[str, ...], Damage, int]] = {
    "the tail deleted": (TAIL_CUT[:1], Damage.TRUNCATED, 0),
    "the tail deleted, the head set back": (TAIL_CUT, Damage.ROLLED_BACK, 21),
    "the head set back": (TAIL_CUT[1:], Damage.ROLLED_BACK, 20),
    "the whole tenant deleted": (
        ("DELETE FROM audit_entries WHERE tenant_id = :acme", "DELETE FROM audit_heads WHERE tenant_id = :acme"),
        Damage.MISSING,
        0,
    ),
    "the entry to begin behind another one": (
        (f"UPDATE audit_entries SET hash = zeroblob(32) WHERE tenant_id = :acme AND seq = {HEAD_SEQ.format(':acme')}",),
        Damage.FORKED,
        0,
    ),
}


@pytest.mark.parametrize("attack", SINCE)
async def test_what_is_gone_is_found_also_when_only_the_newest_part_is_verified(log: Log, attack: str) -> None:
    statements, damage, seq = SINCE[attack]
    last = read_record(log.lines()[-1])
    assert isinstance(last, SignedCheckpoint)
    number = last.checkpoint.number
    end = log.ask("SELECT seq FROM audit_heads WHERE tenant_id = :acme")[0][0]
    assert (await log.verify(since=number)).verdict is Verdict.INTACT
    log.change(*statements)
    report = await log.verify(since=number)
    assert [(each.damage, each.tenant_id, each.seq) for each in report.findings] == [(damage, log.acme, seq or end)]


async def test_after_a_restore_what_came_after_it_can_be_verified_alone(log: Log, tmp_path: Path) -> None:
    backup = log.copy(tmp_path / "backup")
    async with Orchestrator(f"sqlite:///{log.database}") as mesh:
        await (await mesh.submit(single, tenant=log.acme)).result()
        await mesh.create_tenant("Lost")
    before = len(log.lines())
    shutil.copy(backup.database, log.database)
    for _ in range(2):
        async with Orchestrator(f"sqlite:///{log.database}") as mesh:
            for _ in range(3):
                await (await mesh.submit(single, tenant=log.acme)).result()
    assert not (await log.verify()).is_intact
    report = await log.verify(since=before + 1)
    assert report.findings == []
    assert report.verdict is Verdict.INTACT
    assert {each.damage for each in report.notes} <= {Damage.ROLLED_BACK, Damage.FORKED}
    assert report.notes, "it is said all the same"
    log.change("DELETE FROM audit_entries WHERE entry_id = (SELECT max(entry_id) FROM audit_entries)")
    assert not (await log.verify(since=before + 1)).is_intact


async def test_nothing_of_a_tenant_that_the_log_does_not_know_is_no_intact_log(log: Log) -> None:
    with pytest.raises(UnknownTenant):
        await log.verify(tenant="tenant-typo")
    done = cli("verify", log, "--tenant", "Acne")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Acne" in done.stderr
    log.change("DELETE FROM audit_entries WHERE tenant_id = :acme", "DELETE FROM audit_heads WHERE tenant_id = :acme")
    assert only(await log.verify(tenant=log.acme)) == (Damage.MISSING, log.acme, 1)


# --- keys and checkpoints -------------------------------------------------------------------------------------------


def forge(log: Log) -> list[Head]:
    """Change an entry, compute the chain anew; give the heads then."""
    raw = log.ask(f"SELECT payload FROM audit_entries WHERE {ROW}")[0][0]
    log.change(
        f"UPDATE audit_entries SET payload = :p, outcome = 'failure' WHERE {ROW}",
        p=raw.replace(b'"outcome":"success"', b'"outcome":"failure"'),
    )
    log.seal_again(log.acme)
    return [Head(*row) for row in log.ask("SELECT tenant_id, seq, hash FROM audit_heads ORDER BY tenant_id")]


def checkpoint(log: Log, heads: list[Head], key: SigningKey, number: int = 1, previous: bytes = bytes(32)) -> bytes:
    """Sign a checkpoint of these heads."""
    made = Checkpoint(
        log_id=log.log_id,
        number=number,
        at=time.time_ns(),
        root=heads_root(heads),
        heads=len(heads),
        entries=sum(head.seq for head in heads),
        previous=previous,
        key_id=key.key_id,
    )
    signature = key.sign(CHECKPOINT_TAG, made.content())
    return SignedCheckpoint(checkpoint=made, signature=signature, heads=tuple(heads), full=True).line()


def link(log: Log, old: SigningKey, new: SigningKey, number: int = 0, previous: bytes = bytes(32)) -> bytes:
    made = KeyLink(log_id=log.log_id, old=old.public, new=new.public, checkpoint=number, previous=previous, at=1)
    content = made.content()
    return SignedLink(
        link=made, signature=old.sign(KEY_LINK_TAG, content), signature_of_new=new.sign(KEY_LINK_TAG, content)
    ).line()


@pytest.mark.parametrize("known", ["the key of the database", "a key that was given"])
async def test_links_between_keys_of_strangers_make_no_forged_checkpoint_a_good_one(log: Log, known: str) -> None:
    heads = forge(log)
    one, other = SigningKey.generate(), SigningKey.generate()
    (log.audit / "checkpoints.jsonl").write_bytes(link(log, one, other) + b"\n" + checkpoint(log, heads, other) + b"\n")
    report = await log.verify(keys=None if known == "a key that was given" else [])
    if known != "a key that was given":
        async with Orchestrator(f"sqlite:///{log.database}", settings=Settings(local_socket=False)) as mesh:
            report = await mesh.verify_audit()
            shown = [key.public for key in await mesh.audit_keys()]
        assert shown == [log.key.hex()], "strangers are not shown as keys of the log"
    assert report.verdict is Verdict.DAMAGED
    assert {each.damage for each in report.findings if each.tenant_id is None} == {Damage.WRONG_KEY}


async def test_a_key_that_was_replaced_signs_nothing_any_more(log: Log) -> None:
    stolen = load(log.audit / "key.pem")
    async with Orchestrator(f"sqlite:///{log.database}") as mesh:
        new = bytes.fromhex((await mesh.rotate_audit_key()).public)
        await (await mesh.submit(single, tenant=log.acme)).result()
    for keys in ([new], [stolen.public]):
        assert (await log.verify(keys=keys)).findings == []
    published = log.lines()
    (rotation,) = (line for line in published if b'"key_link"' in line)
    last = max(
        record.checkpoint.number for line in published if isinstance(record := read_record(line), SignedCheckpoint)
    )
    heads = forge(log)
    found = {}
    for name, lines in {
        "numbered as the first": [rotation, checkpoint(log, heads, stolen)],
        "numbered as the next": [*published, checkpoint(log, heads, stolen, last + 1)],
        "with a successor of its own": [
            *published,
            link(log, stolen, thief := SigningKey.generate()),
            checkpoint(log, heads, thief, last + 1),
        ],
    }.items():
        found[name] = only(await log.verify(keys=[new], lines=lines))[0]
    assert found == {
        "numbered as the first": Damage.MISSING,
        "numbered as the next": Damage.REPLACED_KEY,
        "with a successor of its own": Damage.FORKED,
    }


async def test_a_tombstone_of_a_replaced_key_accounts_for_nothing(log: Log) -> None:
    stolen = load(log.audit / "key.pem")
    async with Orchestrator(f"sqlite:///{log.database}") as mesh:
        new = bytes.fromhex((await mesh.rotate_audit_key()).public)
    late, backdated = log.copy(log.directory.parent / "late"), log.copy(log.directory.parent / "backdated")
    tombstone(late, 2, 5, stolen, checkpoint=99)
    assert {each.damage for each in (await late.verify([new])).findings} == {Damage.REPLACED_KEY, Damage.MISSING}
    tombstone(backdated, 2, 5, stolen, checkpoint=0)
    assert {each.damage for each in (await backdated.verify([new])).findings} == {Damage.INSERTED}


@pytest.mark.parametrize("left", [b"", None])
async def test_a_log_without_checkpoints_is_not_called_intact(log: Log, left: bytes | None) -> None:
    forge(log)
    path = log.audit / "checkpoints.jsonl"
    path.unlink() if left is None else path.write_bytes(left)
    done = cli("verify", log)
    count = log.ask("SELECT count(*) FROM audit_entries")[0][0]
    assert (done.returncode, done.stdout) == (
        2,
        f"unproven: {count} entries in 3 chains; nothing signed speaks for them\n",
    )
    said = json.loads(cli("verify", log, "--json").stdout)
    assert (said["intact"], said["verdict"], said["is_proven"]) == (False, "unproven", False)


CRAFTED = {
    "a number beyond a column": lambda line: line.replace(b'"heads":[["",', b'"heads":[["",%d' % 10**20),
    "a tenant that is no text": lambda line: line.replace(b'"heads":[["",', b'"heads":[["\\ud800",'),
    "no record": lambda line: b"x",
    "nested deeply": lambda line: b"[" * 100_000,
}


@pytest.mark.parametrize("craft", CRAFTED)
async def test_a_checkpoint_that_is_none_is_named_and_breaks_no_verifier(log: Log, craft: str, tmp_path: Path) -> None:
    lines = log.lines()
    crafted = CRAFTED[craft](lines[-1])
    assert crafted != lines[-1]
    kept = tmp_path / "kept.jsonl"
    kept.write_bytes(b"\n".join([*lines[:-1], crafted]) + b"\n")
    done = cli("verify", log, "--checkpoints", str(kept))
    assert done.returncode == 1, done.stderr
    assert "unreadable" in done.stdout
    assert "Traceback" not in done.stderr


async def test_a_checkpoint_that_is_written_while_a_log_is_verified_is_no_alarm(log: Log) -> None:
    async with Orchestrator(f"sqlite:///{log.database}") as mesh:
        auditing = mesh._running.auditing
        loop, lines = asyncio.get_running_loop(), auditing.checkpoints.lines

        async def go_on() -> None:
            await (await mesh.submit(single, tenant=log.acme)).result()
            await auditing.checkpoints.write()

        def slowly() -> Iterator[bytes]:
            asyncio.run_coroutine_threadsafe(go_on(), loop).result()
            yield from lines()
            asyncio.run_coroutine_threadsafe(go_on(), loop).result()

        auditing.checkpoints.lines = slowly  # type: ignore[method-assign]  # so that the log grows while it is read
        assert (await mesh.verify_audit()).findings == []


# --- exports of a log that was changed before ------------------------------------------------------------------------


EXPORTED: dict[str, tuple[tuple[str, ...], Damage, int]] = {
    "the tail deleted": (TAIL_CUT[:1], Damage.TRUNCATED, 21),
    "the tail deleted, the head set back": (TAIL_CUT, Damage.TRUNCATED, 21),
    "the whole tenant deleted, and its head": (
        ("DELETE FROM audit_entries WHERE tenant_id = :acme", "DELETE FROM audit_heads WHERE tenant_id = :acme"),
        Damage.MISSING,
        1,
    ),
}


# Where a part ends before the chain does, only the database can say that entries between are gone.
@pytest.mark.parametrize(
    ("attack", "until"),
    [(attack, until) for attack in EXPORTED for until in (None, timedelta(days=1)) if not until or "," in attack],
)
async def test_what_was_gone_before_an_export_is_found_with_checkpoints_that_were_kept(
    log: Log, attack: str, until: timedelta | None, tmp_path: Path
) -> None:
    statements, damage, seq = EXPORTED[attack]
    kept = log.lines()
    log.change(*statements)
    path = tmp_path / "x.jsonl"
    end = None if until is None else datetime.now(UTC) + until
    async with Orchestrator(f"sqlite:///{log.database}") as mesh:
        await mesh.export_audit(str(path), until=end)
        await mesh.export_audit(str(tmp_path / "other.jsonl"), log.other)
    report = verify_export(path, manifest_path(path), [log.key], kept)
    assert (damage, log.acme, seq) in {(each.damage, each.tenant_id, each.seq) for each in report.findings}
    other = tmp_path / "other.jsonl"
    report = verify_export(other, manifest_path(other), [log.key], kept)
    assert report.findings == [], "only of the other tenant was asked for"


async def test_checkpoints_that_were_taken_away_before_an_export_are_found(log: Log, tmp_path: Path) -> None:
    async with Orchestrator(f"sqlite:///{log.database}") as mesh:
        await (await mesh.submit(single, tenant=log.acme)).result()
    kept, path = log.lines(), tmp_path / "x.jsonl"
    (log.audit / "checkpoints.jsonl").write_bytes(kept[0] + b"\n")
    log.change(*TAIL_CUT)
    async with Orchestrator(f"sqlite:///{log.database}") as mesh:
        await mesh.export_audit(str(path))
    assert only(verify_export(path, manifest_path(path), [log.key], kept))[0] is Damage.FORKED


async def test_checkpoints_from_after_an_export_are_no_alarm(log: Log, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    async with Orchestrator(f"sqlite:///{log.database}", clock=Later(1)) as mesh:
        await mesh.export_audit(str(path))
    async with Orchestrator(f"sqlite:///{log.database}") as mesh:
        for name in ("New", "Newer"):
            tenant = await mesh.create_tenant(name)
            await (await mesh.submit(single, tenant=tenant.tenant_id)).result()
    assert verify_export(path, manifest_path(path), [log.key], log.lines()).findings == []


async def test_a_log_with_texts_and_numbers_of_every_kind_is_exported_as_it_was_sealed(tmp_path: Path) -> None:
    database, path = tmp_path / "mesh.db", tmp_path / "x.jsonl"
    async with Orchestrator(f"sqlite:///{database}") as mesh:
        acme = (await mesh.create_tenant("Acme", "enterprise")).tenant_id
        with mesh.acting_as(Actor(type="user", id="zoë-\U0001f600", source="C:\\\\u00e9")):
            await mesh.set_retry_policy(acme, RetryPolicy(initial_delay=0.00001, max_delay=1e-5))
            await mesh.set_retention(acme, 1e-5)
        await mesh.export_audit(str(path))
        report = await mesh.verify_audit()
        key = bytes.fromhex((await mesh.audit_keys())[-1].public)
    assert report.verdict is Verdict.INTACT
    assert verify_export(path, manifest_path(path), [key]).findings == []
    assert path.read_bytes().isascii()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE audit_entries SET payload = 'x' WHERE seq = 5",
        "UPDATE audit_entries SET hash = 5 WHERE seq = 5",
        "UPDATE audit_entries SET at = 'x' WHERE seq = 5",
        "INSERT INTO audit_tombstones VALUES (:acme, 1, 2, 5, x'00', 0)",
        "INSERT INTO audit_tombstones VALUES (:acme, 1, 2, x'5b5d', 'text', 0)",
        "UPDATE audit_heads SET seq = 'x'",
        "UPDATE audit_heads SET hash = x'00'",
    ],
)
async def test_a_damaged_log_is_exported_or_refused_and_breaks_nothing(log: Log, change: str, tmp_path: Path) -> None:
    log.change(change)
    for name in ("x.jsonl", "x.csv"):
        done = cli("export", log, str(tmp_path / name), "--format", name[2:])
        assert done.returncode in (0, 3), done.stderr
        assert "Traceback" not in done.stderr
        assert "JSON cannot hold" not in done.stderr
    done = cli("verify", log)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def cli(verb: str, log: Log, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "synergymesh.cli", "audit", verb, *arguments, "--database", f"sqlite:///{log.database}"],
        capture_output=True,
        text=True,
        check=False,
    )


# --- the whole chain anew -------------------------------------------------------------------------------------------


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
    assert alone.verdict is Verdict.UNPROVEN, "and without one that is what is said"


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


def tombstone(log: Log, first: int, last: int, key: SigningKey, at: int = 1, checkpoint: int = 0) -> None:
    """Prune from outside, with a tombstone."""
    hashes = dict(log.ask("SELECT seq, hash FROM audit_entries WHERE tenant_id = :acme"))
    log_id = log.log_id
    gap = Gap(
        first=first,
        last=last,
        previous=hashes[first - 1] if first > 1 else genesis_hash(log_id, log.acme),
        head=hashes[last],
    )
    stone = Tombstone(
        log_id=log_id,
        tenant_id=log.acme,
        day="2026-11-22",
        gaps=(gap,),
        pruned_at=at,
        checkpoint=checkpoint,
        key_id=key.key_id,
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
    tombstone(forged, 1, 5, SigningKey.generate())
    report = await forged.verify()
    assert {each.damage for each in report.findings} == {Damage.MISSING, Damage.WRONG_KEY}
    tombstone(log, 1, 5, load(log.audit / "key.pem"))
    assert only(await log.verify()) == (Damage.INSERTED, log.acme, 1), "no entry of the chain names it"


async def test_what_was_pruned_by_the_mesh_is_no_damage_until_somebody_touches_what_accounts_for_it(
    log: Log, tmp_path: Path
) -> None:
    pruned = await prune(log)
    report = await log.verify()
    assert (report.findings, report.pruned) == ([], pruned)
    for number, (statement, damages) in enumerate(
        {
            "DELETE FROM audit_tombstones": {Damage.MISSING},
            "UPDATE audit_tombstones SET first_seq = first_seq + 1": {Damage.CHANGED},
            "UPDATE audit_tombstones SET last_seq = last_seq + 1": {Damage.CHANGED},
            "UPDATE audit_tombstones SET signature = x'00'": {Damage.UNSIGNED, Damage.MISSING},
            "UPDATE audit_tombstones SET content = 'x'": {Damage.UNREADABLE, Damage.MISSING},
            "UPDATE audit_tombstones SET tenant_id = :other": {Damage.FOREIGN, Damage.MISSING},
            "UPDATE audit_tombstones SET tenant_id = x'00'": {Damage.INSERTED, Damage.MISSING},
        }.items()
    ):
        touched = log.copy(tmp_path / str(number))
        touched.change(statement)
        assert {each.damage for each in (await touched.verify()).findings} == damages, statement


async def test_pruning_under_a_legal_hold_is_found_even_when_it_is_signed(log: Log) -> None:
    from synergymesh.audit.keys import load

    async with Orchestrator(f"sqlite:///{log.database}") as mesh:
        await mesh.hold_audit(log.acme, "case 7")
    tombstone(log, 2, 5, load(log.audit / "key.pem"))
    assert only(await log.verify()) == (Damage.PRUNED_UNDER_HOLD, log.acme, 2)


async def test_pruning_under_a_hold_is_told_by_the_order_in_the_chain_and_not_by_clocks(
    log: Log, tmp_path: Path
) -> None:
    url = f"sqlite:///{log.database}"
    async with Orchestrator(url, clock=Later(100)) as mesh:
        await mesh.hold_audit(log.acme, "case 7")
    ahead = log.copy(tmp_path / "ahead")
    async with Orchestrator(f"sqlite:///{ahead.database}", clock=Later(110)) as mesh:  # a clock ahead of its time
        await mesh.release_audit(log.acme)
    async with Orchestrator(f"sqlite:///{ahead.database}", clock=Later(101)) as mesh:  # put right
        assert await mesh.prune_audit(log.acme) > 0
    assert (await ahead.verify()).findings == []
    log.change("DELETE FROM audit_holds")
    path = tmp_path / "x.jsonl"
    async with Orchestrator(url, clock=Later(101)) as mesh:
        pruned = await mesh.prune_audit(log.acme)
        await mesh.export_audit(str(path))
    assert pruned > 0
    assert {each.damage for each in verify_export(path, manifest_path(path), [log.key]).findings} == {
        Damage.PRUNED_UNDER_HOLD
    }
    report = await log.verify()
    assert {each.damage for each in report.findings} == {Damage.PRUNED_UNDER_HOLD, Damage.MISSING}
    assert only(report)[1] == log.acme


HOLDS = {
    "taken away": "DELETE FROM audit_holds",
    "of another": "UPDATE audit_holds SET tenant_id = :other",
    "with another reason": "UPDATE audit_holds SET reason = 'case 8'",
    "of another time": "UPDATE audit_holds SET held_at = held_at + 1",
    "of nobody": "UPDATE audit_holds SET tenant_id = x'00'",
    "one more": "INSERT INTO audit_holds VALUES (:other, 'case 9', 1)",
}


@pytest.mark.parametrize("attack", HOLDS)
async def test_a_legal_hold_that_the_chain_does_not_have_is_found(log: Log, attack: str) -> None:
    async with Orchestrator(f"sqlite:///{log.database}") as mesh:
        await mesh.hold_audit(log.acme, "case 7")
    assert (await log.verify()).findings == []
    log.change(HOLDS[attack])
    assert {each.damage for each in (await log.verify()).findings} <= {Damage.MISSING, Damage.CHANGED, Damage.INSERTED}
    assert not (await log.verify()).is_intact


async def test_damage_in_two_tenants_is_named_for_both(log: Log) -> None:
    log.change("UPDATE audit_entries SET actor = 'user/mallory' WHERE seq = 3 AND tenant_id <> ''")
    report = await log.verify()
    assert [(each.damage, each.seq) for each in report.findings] == [(Damage.CHANGED, 3)] * 2
