"""The audit log through its people's verbs: who may look, what is recorded of that, keeping and erasing."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from synergymesh import Orchestrator, Settings, task, workflow
from synergymesh.audit import auditing, pruning
from synergymesh.audit.auditing import PAGE_ENTRIES_MAX
from synergymesh.audit.keys import load, verify_signature
from synergymesh.audit.notes import Notes
from synergymesh.audit.verify import verify_export
from synergymesh.domain.actors import Actor
from synergymesh.domain.audit.retention import DAY
from synergymesh.domain.audit.trust import Trust, verify_checkpoints
from synergymesh.errors import (
    FeatureNotEnabled,
    InvalidRequest,
    LegalHold,
    NotFound,
    StoreUnavailable,
    UnknownTenant,
)
from synergymesh.local.verbs import Here
from synergymesh.store.audit import reads

ALICE = Actor(type="user", id="u-17")


@task
async def nothing() -> None: ...


@workflow
def single() -> object:
    return nothing()


class Days:
    """A clock that is put forward by days."""

    def __init__(self) -> None:
        self.at = 20_000 * DAY

    def now(self) -> int:
        self.at += 1_000
        return self.at

    def forward(self, days: float) -> None:
        self.at += int(days * DAY)


def count(database: Path, statement: str = "SELECT count(*) FROM audit_entries", *arguments: Any) -> int:
    connection = sqlite3.connect(database)
    try:
        return int(connection.execute(statement, arguments).fetchone()[0])
    finally:
        connection.close()


def reading(database: Path) -> sqlite3.Connection:
    """Give a connection that reads the state of this moment, until it is closed."""
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("BEGIN")
    connection.execute("SELECT count(*) FROM audit_entries").fetchone()
    return connection


async def run_one(mesh: Orchestrator, tenant_id: str) -> None:
    await (await mesh.submit(single, tenant=tenant_id)).result()


async def test_entries_are_found_by_what_is_asked_for() -> None:
    async with Orchestrator(":memory:", workflows=[single]) as mesh:
        acme = (await mesh.create_tenant("Acme", "professional")).tenant_id
        other = (await mesh.create_tenant("Other")).tenant_id
        with mesh.acting_as(ALICE):
            await run_one(mesh, acme)
        await run_one(mesh, other)
        found = await mesh.audit_log(acme, action="run.submitted")
        assert [entry.actor for entry in found.entries] == ["user/u-17"]
        assert found.entries[0].details["workflow"] == "single"
        assert {entry.tenant_id for entry in (await mesh.audit_log(acme)).entries} == {acme}
        assert {acme, other} <= {entry.tenant_id for entry in (await mesh.audit_log(limit=50)).entries}
        assert (await mesh.audit_log(acme, actor="user/u-17")).entries == found.entries
        assert (await mesh.audit_log(acme, entity=found.entries[0].entity)).entries
        assert (await mesh.audit_log(acme, outcome="failure")).entries == ()
        now = datetime.now(UTC)
        assert (await mesh.audit_log(acme, since=now + timedelta(hours=1))).entries == ()
        assert (await mesh.audit_log(acme, until=now + timedelta(hours=1))).entries


async def test_pages_follow_each_other_without_a_gap() -> None:
    async with Orchestrator(":memory:", workflows=[single]) as mesh:
        acme = (await mesh.create_tenant("Acme")).tenant_id
        for _ in range(5):
            await run_one(mesh, acme)
        whole = (await mesh.audit_log(acme, limit=PAGE_ENTRIES_MAX)).entries
        paged: list[int] = []
        cursor = None
        while True:
            page = await mesh.audit_log(acme, limit=3, cursor=cursor)
            paged += [entry.seq for entry in page.entries]
            cursor = page.cursor
            if cursor is None:
                break
        assert paged == [entry.seq for entry in whole] == list(range(len(whole), 0, -1))


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": PAGE_ENTRIES_MAX + 1}, "limit"),
        ({"limit": True}, "limit"),
        ({"action": "bogus"}, "action"),
        ({"outcome": "bogus"}, "outcome"),
        ({"since": datetime(2026, 1, 1)}, "since"),
        ({"until": "yesterday"}, "until"),
        ({"until": datetime(9999, 12, 31, tzinfo=UTC)}, "until"),
        ({"since": datetime(1, 1, 1, tzinfo=UTC)}, "since"),
        ({"cursor": 0}, "cursor"),
        ({"cursor": True}, "cursor"),
        ({"cursor": "7"}, "cursor"),
        ({"cursor": 2**63}, "cursor"),
    ],
)
async def test_a_wrong_question_is_refused_and_not_recorded(arguments: dict[str, Any], field: str) -> None:
    async with Orchestrator(":memory:") as mesh:
        with pytest.raises(InvalidRequest) as raised:
            await mesh.audit_log(**arguments)
        assert raised.value.field == field
        assert not (await mesh.audit_log(action="audit.read", limit=1)).entries[1:]


async def test_a_tenant_reads_its_own_log_only_with_the_feature_and_the_operator_always() -> None:
    async with Orchestrator(":memory:") as mesh:
        basic = (await mesh.create_tenant("Basic")).tenant_id
        rich = (await mesh.create_tenant("Rich", "professional")).tenant_id
        for attempt in (
            mesh.audit_log(basic, as_tenant=True),
            mesh.verify_audit(basic, as_tenant=True),
            mesh.export_audit("x.jsonl", basic, as_tenant=True),
        ):
            with pytest.raises(FeatureNotEnabled, match="professional"):
                await attempt
        assert (await mesh.audit_log(basic)).entries
        assert (await mesh.audit_log(rich, as_tenant=True)).entries
        with pytest.raises(UnknownTenant):
            await mesh.audit_log("tenant-nobody")
        with pytest.raises(UnknownTenant):
            await mesh.audit_log(None, as_tenant=True)
        assert not [entry for entry in (await mesh.audit_log()).entries if entry.tenant_id == "tenant-nobody"]


async def test_looking_at_a_log_is_recorded_once_a_minute_for_each_reader(tmp_path: Path) -> None:
    clock = Days()
    async with Orchestrator(":memory:", clock=clock) as mesh:
        acme = (await mesh.create_tenant("Acme")).tenant_id
        for _ in range(3):
            await mesh.audit_log(acme)
        with mesh.acting_as(ALICE):
            await mesh.audit_log(acme, action="run.submitted")
        reads = (await mesh.audit_log(acme, action="audit.read")).entries
        assert [entry.details["filters"] for entry in reads] == [
            {"action": "audit.read"},
            {"action": "run.submitted"},
            {},
        ]
        assert [entry.actor == "user/u-17" for entry in reads] == [False, True, False]
        assert len((await mesh.audit_log(acme, action="audit.read")).entries) == 3, "itself a new question"
        clock.forward(0.01)
        await mesh.audit_log(acme)
        await mesh.audit_log(acme)
        assert len((await mesh.audit_log(acme, action="audit.read")).entries) == 5
        await mesh.export_audit(str(tmp_path / "x.csv"), acme, format="csv")
        assert (await mesh.audit_log(acme, action="audit.exported")).entries[0].details["format"] == "csv"


async def test_nothing_is_read_before_it_could_be_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Orchestrator(":memory:") as mesh:

        async def fail(*_: object) -> None:
            raise StoreUnavailable("the disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(Notes, "record", fail)
            for _ in range(2):
                with pytest.raises(StoreUnavailable):
                    await mesh.audit_log()
        await mesh.audit_log()
        assert len((await mesh.audit_log("", action="audit.read")).entries) == 2


async def test_the_log_of_a_tenant_that_is_gone_can_be_read_and_verified(tmp_path: Path) -> None:
    async with Orchestrator(f"sqlite:///{tmp_path}/mesh.db") as mesh:
        acme = (await mesh.create_tenant("Acme")).tenant_id
        await mesh.delete_tenant(acme)
        assert (await mesh.audit_log(acme)).entries
        assert (await mesh.verify_audit(acme)).is_intact


# --- checkpoints and exports ----------------------------------------------------------------------------------------


async def test_a_checkpoint_is_written_at_the_end_behind_the_last_entry(tmp_path: Path) -> None:
    database = tmp_path / "mesh.db"
    for _ in range(2):
        async with Orchestrator(f"sqlite:///{database}") as mesh:
            await mesh.create_tenant("Acme")
    key = load(tmp_path / "mesh.db.audit" / "key.pem").public
    lines = (tmp_path / "mesh.db.audit" / "checkpoints.jsonl").read_bytes().splitlines()
    pinned = verify_checkpoints(lines, Trust([key], verify_signature))
    assert pinned.findings == []
    assert pinned.last is not None
    assert pinned.last.entries == count(database)


async def test_making_and_replacing_the_key_is_recorded_in_the_log_of_the_mesh(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/mesh.db"
    async with Orchestrator(database) as mesh:
        await mesh.create_tenant("Acme")
    async with Orchestrator(database) as mesh:
        (old,) = await mesh.audit_keys()
        with mesh.acting_as(ALICE):
            new = await mesh.rotate_audit_key()
        entries = [entry for entry in (await mesh.audit_log("")).entries if entry.action.startswith("key.")]
        assert [(entry.action, entry.entity, entry.details) for entry in reversed(entries)] == [
            ("key.created", f"key/{old.key_id}", {"public_key": old.public}),
            ("key.created", f"key/{new.key_id}", {"public_key": new.public}),
            ("key.rotated", f"key/{new.key_id}", {"old": old.key_id, "new": new.key_id}),
            ("key.revoked", f"key/{old.key_id}", {"replaced_by": new.key_id}),
        ]
        assert [entry.actor == "user/u-17" for entry in reversed(entries)] == [False, True, True, True]
        assert (await mesh.verify_audit()).findings == []
    async with Orchestrator(database) as mesh:
        assert (await mesh.verify_audit()).findings == []
        assert len((await mesh.audit_log("", action="key.created")).entries) == 2


async def test_files_and_sinks_are_where_the_settings_say(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    settings = Settings(
        audit_key_file=str(tmp_path / "keys" / "audit.pem"),
        audit_checkpoint_file=str(tmp_path / "published.jsonl"),
        audit_sinks=[f"directory:{elsewhere}"],
    )
    async with Orchestrator(f"sqlite:///{tmp_path}/mesh.db", settings=settings) as mesh:
        await mesh.create_tenant("Acme")
    assert (tmp_path / "keys" / "audit.pem").exists()
    assert (tmp_path / "published.jsonl").read_bytes().splitlines()[0] in b"".join(
        path.read_bytes() for path in elsewhere.iterdir()
    )
    assert not (tmp_path / "mesh.db.audit").exists()


async def test_verifying_since_a_checkpoint_reads_only_what_came_after_it(tmp_path: Path) -> None:
    database = tmp_path / "mesh.db"
    async with Orchestrator(f"sqlite:///{database}") as mesh:
        await mesh.create_tenant("Acme")
    before = count(database)
    async with Orchestrator(f"sqlite:///{database}") as mesh:
        report = await mesh.verify_audit(since=1)
        assert report.is_intact
        assert report.entries == count(database) - before
        with pytest.raises(InvalidRequest, match="no good checkpoint"):
            await mesh.verify_audit(since=99)


async def test_a_part_of_the_log_can_be_exported_and_verified_alone(tmp_path: Path) -> None:
    clock = Days()
    path = tmp_path / "part.jsonl"
    async with Orchestrator(f"sqlite:///{tmp_path}/mesh.db", workflows=[single], clock=clock) as mesh:
        acme = (await mesh.create_tenant("Acme")).tenant_id
        for _ in range(3):
            await run_one(mesh, acme)
            clock.forward(1)
        since = datetime.fromtimestamp(20_001 * 86_400, UTC)
        until = datetime.fromtimestamp(20_002 * 86_400, UTC)
        done = await mesh.export_audit(str(path), acme, since=since, until=until)
        assert done.manifest is not None
        assert [Path(each).stat().st_mode & 0o777 for each in (path, done.manifest)] == [0o600, 0o600]
        assert (
            0
            < done.entries
            < count(tmp_path / "mesh.db", "SELECT count(*) FROM audit_entries WHERE tenant_id = ?", acme)
        )
        key = bytes.fromhex((await mesh.audit_keys())[-1].public)
    assert done.manifest is not None
    report = verify_export(path, Path(done.manifest), [key])
    assert report.is_intact
    assert report.entries == done.entries


@pytest.mark.parametrize("path", ["", "/nowhere/x.jsonl", "."])
async def test_an_export_that_cannot_be_written_is_refused(path: str) -> None:
    async with Orchestrator(":memory:") as mesh:
        with pytest.raises(InvalidRequest) as raised:
            await mesh.export_audit(path)
        assert raised.value.field == "path"
        with pytest.raises(InvalidRequest, match="cloudevents"):
            await mesh.export_audit("x", format="xml")


# --- keeping --------------------------------------------------------------------------------------------------------


async def test_what_is_over_its_time_is_pruned_and_the_log_still_verifies(tmp_path: Path) -> None:
    clock = Days()
    database = tmp_path / "mesh.db"
    async with Orchestrator(f"sqlite:///{database}", workflows=[single], clock=clock) as mesh:
        acme = (await mesh.create_tenant("Acme")).tenant_id
        for _ in range(3):
            await run_one(mesh, acme)
        assert await mesh.prune_audit() == 0
        clock.forward(92)
        gone = await mesh.prune_audit(acme)
        assert gone > 0
        kept = {entry.action for entry in (await mesh.audit_log(acme)).entries}
        assert {"tenant.created", "audit.pruned"} <= kept
        assert not kept & {"run.submitted", "run.finished", "task.finished"}
        report = await mesh.verify_audit()
        assert report.findings == []
        assert report.pruned == gone
        done = await mesh.export_audit(str(tmp_path / "x.jsonl"))
        key = bytes.fromhex((await mesh.audit_keys())[-1].public)
        assert verify_export(tmp_path / "x.jsonl", Path(str(done.manifest)), [key]).is_intact
        clock.forward(366)
        assert await mesh.prune_audit() > 0
        assert (await mesh.verify_audit()).findings == []
    async with Orchestrator(f"sqlite:///{database}", clock=clock) as mesh:
        assert (await mesh.verify_audit()).findings == []


async def test_a_tier_says_how_long_its_log_is_kept(tmp_path: Path) -> None:
    clock = Days()
    settings = Settings.model_validate({"tiers": {"basic": {"audit_days": 5}}})
    async with Orchestrator(
        f"sqlite:///{tmp_path}/mesh.db", workflows=[single], clock=clock, settings=settings
    ) as mesh:
        short = (await mesh.create_tenant("Short")).tenant_id
        long = (await mesh.create_tenant("Long", "professional")).tenant_id
        for tenant in (short, long):
            await run_one(mesh, tenant)
        clock.forward(7)
        assert await mesh.prune_audit(short) > 0
        assert await mesh.prune_audit(long) == 0


async def test_nothing_is_pruned_under_a_legal_hold(tmp_path: Path) -> None:
    clock = Days()
    async with Orchestrator(f"sqlite:///{tmp_path}/mesh.db", workflows=[single], clock=clock) as mesh:
        acme = (await mesh.create_tenant("Acme")).tenant_id
        await run_one(mesh, acme)
        assert await mesh.hold_audit(acme, "case 7")
        assert not await mesh.hold_audit(acme, "case 8")
        assert [hold.reason for hold in await mesh.audit_holds()] == ["case 7"]
        clock.forward(400)
        with pytest.raises(LegalHold):
            await mesh.prune_audit(acme)
        await mesh.prune_audit()
        assert (await mesh.audit_log(acme, action="run.submitted")).entries
        assert await mesh.release_audit(acme)
        assert not await mesh.release_audit(acme)
        assert await mesh.prune_audit(acme) > 0
        assert (await mesh.verify_audit()).findings == []
        for reason in ("", "a\nb", "x" * 501):
            with pytest.raises(InvalidRequest):
                await mesh.hold_audit(acme, reason)
        with pytest.raises(UnknownTenant):
            await mesh.hold_audit("tenant-nobody", "case")


async def test_deleting_what_was_pruned_goes_on_after_it_was_interrupted(tmp_path: Path) -> None:
    clock = Days()
    database = tmp_path / "mesh.db"
    async with Orchestrator(f"sqlite:///{database}", workflows=[single], clock=clock) as mesh:
        acme = (await mesh.create_tenant("Acme")).tenant_id
        for _ in range(4):
            await run_one(mesh, acme)
        clock.forward(92)
        await mesh._running.auditing.pruning.stop()
        await mesh._running.auditing.pruning.bury(acme)
        before = count(database)
        assert await mesh._database.delete_pruned_audit_entries(3) == 3
        assert count(database) == before - 3
        assert (await mesh.verify_audit()).findings == []
        while await mesh._database.delete_pruned_audit_entries(3):
            pass
        assert (await mesh.verify_audit()).findings == []
        assert count(database, "SELECT count(*) FROM audit_tombstones WHERE pending = 1") == 0


async def test_pruning_again_before_the_entries_are_gone_prunes_nothing_twice(tmp_path: Path) -> None:
    clock = Days()
    async with Orchestrator(f"sqlite:///{tmp_path}/mesh.db", workflows=[single], clock=clock) as mesh:
        acme = (await mesh.create_tenant("Acme")).tenant_id
        for _ in range(4):
            await run_one(mesh, acme)
        clock.forward(92)
        pruning = mesh._running.auditing.pruning
        await pruning.stop()  # so that nothing is deleted in between
        counts = await asyncio.gather(pruning.bury(acme), pruning.bury(acme))
        assert sorted(counts) == [0, 12]
        assert await mesh.prune_audit(acme) == 0
        assert [e.details["count"] for e in (await mesh.audit_log(acme, action="audit.pruned")).entries] == [12]
        assert (await mesh.verify_audit()).pruned == 12


async def test_pruned_entries_are_deleted_in_the_background_one_step_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auditing, "TICK_SECONDS", 3_600.0)
    monkeypatch.setattr(pruning, "DELETE_ROWS", 2)
    clock = Days()
    database = tmp_path / "mesh.db"
    async with Orchestrator(f"sqlite:///{database}", workflows=[single], clock=clock) as mesh:
        acme = (await mesh.create_tenant("Acme")).tenant_id
        for _ in range(10):
            await run_one(mesh, acme)
        clock.forward(92)
        assert await mesh._running.auditing.pruning.bury(acme) == 30
        await until_nothing_is_pending(database)
        assert (await mesh.verify_audit()).findings == []


async def until_nothing_is_pending(database: Path) -> None:
    async with asyncio.timeout(20):
        pending = "SELECT count(*) FROM audit_tombstones WHERE pending = 1"
        while count(database, pending):  # noqa: ASYNC110 - it is done in the background, and nothing tells of it
            await asyncio.sleep(0.01)


async def test_a_hold_that_comes_before_the_deletion_keeps_the_entries_until_it_is_released(tmp_path: Path) -> None:
    clock = Days()
    database = tmp_path / "mesh.db"
    async with Orchestrator(f"sqlite:///{database}", workflows=[single], clock=clock) as mesh:
        acme = (await mesh.create_tenant("Acme")).tenant_id
        await run_one(mesh, acme)
        clock.forward(92)
        pruning = mesh._running.auditing.pruning
        await pruning.stop()
        assert await pruning.bury(acme) == 3
        await mesh.hold_audit(acme, "case 7")
    async with Orchestrator(f"sqlite:///{database}", workflows=[single], clock=clock) as mesh:
        other = (await mesh.create_tenant("Other")).tenant_id
        await run_one(mesh, other)
        clock.forward(92)
        assert await mesh.prune_audit() >= 3, "that of others goes on"
        assert (await mesh.audit_log(acme, action="run.submitted")).entries
        assert not (await mesh.audit_log(other, action="run.submitted")).entries
        assert (await mesh.verify_audit()).findings == []
        await mesh.release_audit(acme)
        await until_nothing_is_pending(database)
        assert not (await mesh.audit_log(acme, action="run.submitted")).entries
        assert (await mesh.verify_audit()).findings == []


# --- personal data --------------------------------------------------------------------------------------------------


async def test_personal_data_is_not_in_the_clear_and_can_be_erased(tmp_path: Path) -> None:
    database = tmp_path / "mesh.db"
    async with Orchestrator(f"sqlite:///{database}", workflows=[single]) as mesh:
        acme = (await mesh.create_tenant("Acme")).tenant_id
        alice = await mesh.with_personal_data(ALICE, name="Alice Liddell", mail="alice@example.org", address="::1")
        again = await mesh.with_personal_data(ALICE, name="Alice Liddell")
        for actor in (alice, again):
            with mesh.acting_as(actor):
                await run_one(mesh, acme)
        shown = (await mesh.audit_log(acme, actor="user/u-17")).entries
        assert [entry.personal for entry in shown] == [
            {"name": "Alice Liddell"},
            {"name": "Alice Liddell", "mail": "alice@example.org", "address": "::1"},
        ]
        await mesh.export_audit(str(tmp_path / "x.jsonl"))
        await mesh.erase_audit("user/u-17")
        shown = (await mesh.audit_log(acme, actor="user/u-17")).entries
        assert [entry.personal for entry in shown] == [None, None]
        assert (await mesh.verify_audit()).is_intact
        with pytest.raises(NotFound):
            await mesh.erase_audit("user/u-17")
        erased = (await mesh.audit_log("", action="audit.erased")).entries
        assert erased[0].details == {"subject": "user/u-17"}
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert b"Liddell" not in path.read_bytes()


@pytest.mark.parametrize("personal", [{"phone": "1"}, {"name": ""}, {"name": "a\nb"}, {"mail": "x" * 501}, {"name": 7}])
async def test_personal_data_that_cannot_be_kept_is_refused(personal: dict[str, Any]) -> None:
    async with Orchestrator(":memory:") as mesh:
        with pytest.raises(InvalidRequest):
            await mesh.with_personal_data(ALICE, **personal)


async def test_a_key_that_was_erased_is_nowhere_in_the_files(tmp_path: Path) -> None:
    database = tmp_path / "mesh.db"
    async with Orchestrator(f"sqlite:///{database}") as mesh:
        await mesh.with_personal_data(ALICE, name="Alice")
        key = await mesh._database.get_subject_key("user/u-17")
        assert key is not None
        assert await mesh.erase_audit("user/u-17") is True
        assert not [path for path in tmp_path.rglob("*") if path.is_file() and key in path.read_bytes()]


async def test_who_erases_while_somebody_reads_is_told_and_it_is_done_once_that_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = tmp_path / "mesh.db"

    def files_with(key: bytes) -> list[str]:
        return sorted(path.name for path in tmp_path.rglob("*") if path.is_file() and key in path.read_bytes())

    async with Orchestrator(f"sqlite:///{database}") as mesh:
        monkeypatch.setattr(auditing, "TICK_SECONDS", 0.01)
        await mesh.with_personal_data(ALICE, name="Alice")
        key = await mesh._database.get_subject_key("user/u-17")
        assert key is not None
        reader = reading(database)
        assert await mesh.erase_audit("user/u-17") is False
        assert files_with(key) == ["mesh.db-wal"]
        await mesh.create_tenant("Acme")
        reader.close()
        async with asyncio.timeout(20):
            while files_with(key):  # noqa: ASYNC110 - it is tried again now and then
                await asyncio.sleep(0.01)


async def test_what_an_earlier_process_could_not_wipe_is_wiped_by_the_next_one(tmp_path: Path) -> None:
    database = tmp_path / "mesh.db"
    async with Orchestrator(f"sqlite:///{database}") as mesh:
        await mesh.with_personal_data(ALICE, name="Alice")
        key = await mesh._database.get_subject_key("user/u-17")
        assert key is not None
        reader = reading(database)
        await mesh.erase_audit("user/u-17")
    log = tmp_path / "mesh.db-wal"
    assert key in log.read_bytes()
    reader.execute("ROLLBACK")  # it stays open, so that the log is not removed by the end of the last connection
    async with Orchestrator(f"sqlite:///{database}"):
        pass
    assert key not in log.read_bytes()
    assert key not in database.read_bytes()
    reader.close()


# --- the command line -----------------------------------------------------------------------------------------------


def command(*arguments: str, database: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "synergymesh.cli", "audit", *arguments, "--database", f"sqlite:///{database}"],
        capture_output=True,
        text=True,
        check=False,
    )


async def test_the_command_asks_the_process_that_executes(tmp_path: Path) -> None:
    database = tmp_path / "mesh.db"
    async with Orchestrator(f"sqlite:///{database}", workflows=[single]) as mesh:
        acme = await mesh.create_tenant("Acme")
        await run_one(mesh, acme.tenant_id)
        done = await asyncio.to_thread(command, "list", "--tenant", "Acme", "--json", database=database)
        assert done.returncode == 0, done.stderr
        assert [entry["action"] for entry in json.loads(done.stdout)["entries"]][-1] == "tenant.created"
        done = await asyncio.to_thread(command, "tail", "--tenant", "Acme", "-n", "2", database=database)
        assert len(done.stdout.splitlines()) == 2
        done = await asyncio.to_thread(command, "verify", database=database)
        assert done.returncode == 2, "nothing is signed yet"
        assert done.stdout.startswith("unproven: ")
        await mesh.export_audit(str(tmp_path / "x.jsonl"))
        done = await asyncio.to_thread(command, "verify", database=database)
        assert done.returncode == 0, done.stderr
        done = await asyncio.to_thread(command, "hold", "Acme", "--reason", "case 7", database=database)
        assert done.returncode == 0, done.stderr
        assert len(await mesh.audit_holds()) == 1
        done = await asyncio.to_thread(command, "prune", "--tenant", "Acme", database=database)
        assert done.returncode == 2
        assert "legal hold" in done.stderr


async def test_the_command_says_when_an_erased_key_is_still_in_the_log_of_the_database(tmp_path: Path) -> None:
    database = tmp_path / "mesh.db"
    async with Orchestrator(f"sqlite:///{database}") as mesh:
        for name in ("u-17", "u-18"):
            await mesh.with_personal_data(Actor(type="user", id=name), name="Alice")
        reader = reading(database)
        done = await asyncio.to_thread(command, "erase", "user/u-17", database=database)
        assert done.returncode == 0, done.stderr
        assert "is erased" in done.stdout
        assert "until that ends" in done.stderr
        reader.close()
        done = await asyncio.to_thread(command, "erase", "user/u-18", "--json", database=database)
        assert json.loads(done.stdout) == {"erased": "user/u-18", "is_wiped": True}


async def test_following_the_log_shows_each_new_entry_once_and_nothing_older(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from synergymesh.cli import audit

    async with Orchestrator(":memory:") as mesh:
        for name in ("Acme", "Other"):
            await mesh.create_tenant(name)
        polls = 0

        async def between(seconds: float) -> None:
            nonlocal polls
            polls += 1
            if polls == 3:
                raise asyncio.CancelledError
            await mesh.create_tenant(f"New {polls}")

        monkeypatch.setattr(audit.asyncio, "sleep", between)
        wanted = dict.fromkeys(("since", "until", "actor", "entity", "outcome")) | {"action": "tenant.created"}
        with pytest.raises(asyncio.CancelledError):
            await audit._follow(Here(mesh), None, wanted, 1, True, True)
        monkeypatch.undo()
        shown = [json.loads(line)["tenant_id"] for line in capsys.readouterr().out.splitlines()]
        assert shown == [tenant.tenant_id for tenant in await mesh.list_tenants()][1:]


async def test_the_command_ends_with_1_when_the_log_is_damaged(tmp_path: Path) -> None:
    database = tmp_path / "mesh.db"
    async with Orchestrator(f"sqlite:///{database}") as mesh:
        await mesh.create_tenant("Acme")
    connection = sqlite3.connect(database)
    connection.execute("DELETE FROM audit_entries WHERE tenant_id = '' AND seq = 2")
    connection.commit()
    connection.close()
    done = command("verify", database=database)
    assert done.returncode == 1
    assert done.stdout.startswith("missing mesh #2: ") or done.stdout.startswith("truncated mesh #2: ")


async def test_a_log_can_be_read_while_its_process_does_not_answer(tmp_path: Path) -> None:
    database = tmp_path / "mesh.db"
    async with Orchestrator(f"sqlite:///{database}", settings=Settings(local_socket=False)) as mesh:
        await mesh.create_tenant("Acme")
        done = await asyncio.to_thread(command, "list", "--tenant", "Acme", database=database)
        assert done.returncode == 0, done.stderr
        assert "tenant.created" in done.stdout
        assert "not recorded" in done.stderr


@pytest.mark.parametrize("rows", ["there", "pruned", "pruned, and no time in the id"])
async def test_entries_of_a_run_are_found_among_those_of_many_others(
    tmp_path: Path, rows: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = tmp_path / "mesh.db"
    async with Orchestrator(f"sqlite:///{database}") as mesh:
        acme = (await mesh.create_tenant("Acme", "enterprise")).tenant_id
        handles = await asyncio.gather(*(mesh.submit(single, tenant=acme) for _ in range(30)))
        await asyncio.gather(*(handle.result() for handle in handles))
    if rows != "there":
        connection = sqlite3.connect(database)
        connection.execute("DELETE FROM tasks")
        connection.execute("DELETE FROM runs")
        connection.commit()
        connection.close()
    if rows == "pruned, and no time in the id":
        monkeypatch.setattr(reads, "_moment_of", lambda _: None)
    async with Orchestrator(f"sqlite:///{database}") as mesh:
        for handle in handles:
            entity = f"run/{handle.id}"
            page = await mesh.audit_log(acme, entity=entity)
            assert [(entry.action, entry.entity) for entry in page.entries] == [
                ("run.finished", entity),
                ("run.submitted", entity),
            ]
            entity = f"task/{handle.id}/nothing"
            page = await mesh.audit_log(acme, entity=entity)
            assert [(entry.action, entry.entity) for entry in page.entries] == [("task.finished", entity)]
        odd = ("run-00000000000000010000", f"run-{'f' * 24}", "run--000000000000001", "odd", "", "run-\0")
        for run_id in odd:
            assert (await mesh.audit_log(acme, entity=f"run/{run_id}")).entries == ()
            assert (await mesh.audit_log(acme, entity=f"task/{run_id}/nothing")).entries == ()


@pytest.mark.parametrize("field", ["actor", "entity"])
@pytest.mark.parametrize("value", ["run/\ud800", 5, b"run/1"])
async def test_what_is_looked_for_has_to_be_a_text(field: str, value: Any) -> None:
    async with Orchestrator(":memory:") as mesh:
        with pytest.raises(InvalidRequest, match=field) as refused:
            await mesh.audit_log(**{field: value})
        assert refused.value.field == field
