"""Rows in which many entries lie together, changed from outside: each attack is found at its first bad entry."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.integration.tampered_log import Later, Log, prune, single

from synergymesh import Orchestrator
from synergymesh.domain.audit.forms import HASH_BYTES
from synergymesh.domain.audit.verification import Damage
from synergymesh.errors import StoreCorrupt

RUNS = 20


async def fill_together(log: Log) -> None:
    """Submit many runs at once, so that their entries are recorded in few rows."""
    async with Orchestrator(f"sqlite:///{log.database}") as mesh:
        log.acme = (await mesh.create_tenant("Acme", "enterprise")).tenant_id
        log.other = (await mesh.create_tenant("Other", "enterprise")).tenant_id
        for tenant in (log.acme, log.other):
            handles = await asyncio.gather(*(mesh.submit(single, tenant=tenant) for _ in range(RUNS)))
            await asyncio.gather(*(handle.result() for handle in handles))
        await mesh.export_audit(str(log.directory / "out.jsonl"))
        log.key = bytes.fromhex((await mesh.audit_keys())[-1].public)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Log:
    directory = tmp_path_factory.mktemp("audit") / "log"
    directory.mkdir()
    log = Log(directory)
    asyncio.run(fill_together(log))
    return log


@pytest.fixture
def log(original: Log, tmp_path: Path) -> Log:
    return original.copy(tmp_path / "log")


class Row:
    """The largest row of acme: its place, the numbers of its entries, its payloads and hashes."""

    def __init__(self, log: Log) -> None:
        self.log = log
        query = (
            "SELECT entry_id, seq, payload, hash FROM audit_entries WHERE tenant_id = :acme "
            "ORDER BY length(hash) DESC, seq LIMIT 1"
        )
        self.entry_id, self.last, payload, hashes = log.ask(query)[0]
        self.payloads = payload.split(b"\n")
        self.hashes = [hashes[start : start + HASH_BYTES] for start in range(0, len(hashes), HASH_BYTES)]
        self.first = self.last - len(self.hashes) + 1
        assert len(self.hashes) == len(self.payloads) >= 4

    def change(self, assignment: str, **arguments: object) -> None:
        self.log.change(f"UPDATE audit_entries SET {assignment} WHERE entry_id = :i", i=self.entry_id, **arguments)

    def write(self) -> None:
        self.change("payload = :p, hash = :h", p=b"\n".join(self.payloads), h=b"".join(self.hashes))


def test_a_log_of_many_runs_at_once_has_fewer_rows_than_entries(log: Log) -> None:
    rows, entries = log.ask("SELECT count(*), sum(length(hash)) / 32 FROM audit_entries WHERE tenant_id = :acme")[0]
    assert entries >= 3 * RUNS
    assert rows <= entries / 3


async def test_a_log_with_such_rows_is_intact(log: Log) -> None:
    report = await log.verify()
    assert report.findings == []
    assert report.entries == log.ask("SELECT sum(length(hash)) / 32 FROM audit_entries")[0][0]


def _payload(row: Row) -> int:
    row.payloads[1] = row.payloads[1].replace(b"success", b"failure")
    row.write()
    return row.first + 1


def _break_in_a_payload(row: Row) -> int:
    row.payloads[1] = row.payloads[1][:20] + b"\n" + row.payloads[1][21:]
    row.write()
    return row.first + 1


def _no_break_between_two(row: Row) -> int:
    row.payloads[1:3] = [row.payloads[1] + b" " + row.payloads[2]]
    row.write()
    return row.first + 1


def _hash(row: Row) -> int:
    row.hashes[2] = bytes(HASH_BYTES)
    row.write()
    return row.first + 2


def _hash_cut_off(row: Row) -> int:
    row.hashes[-1] = row.hashes[-1][:-1]
    row.write()
    return row.last


def _payloads_in_text(row: Row) -> int:
    row.change("payload = CAST(payload AS TEXT)")
    return row.first


def _hashes_in_text(row: Row) -> int:
    row.change("hash = 'text'")
    return row.first


def _column(assignment: str) -> Callable[[Row], int]:
    def change(row: Row) -> int:
        row.change(assignment)
        return row.first

    return change


def _time(assignment: str) -> Callable[[Row], int]:
    def change(row: Row) -> int:
        row.change(assignment)
        return row.last

    return change


CHANGED: dict[str, Callable[[Row], int]] = {
    "a payload": _payload,
    "a break in a payload": _break_in_a_payload,
    "no break between two": _no_break_between_two,
    "a hash": _hash,
    "a hash cut off": _hash_cut_off,
    "payloads in text": _payloads_in_text,
    "hashes in text": _hashes_in_text,
    **{
        f"the column {assignment}": _column(assignment)
        for assignment in (
            "action = 'run.started'",
            "actor = 'user/mallory'",
            "outcome = 'denied'",
            "entity = 'run/another'",
            "version = 1",
            "entry_id = -entry_id",
            "at = at + 86400000000000",
            "first_at = 'x'",
        )
    },
    **{f"the column {assignment}": _time(assignment) for assignment in ("at = at + 1", "first_at = first_at - 1")},
}


@pytest.mark.parametrize("attack", CHANGED)
async def test_a_change_of_a_row_is_found_at_its_first_bad_entry(log: Log, attack: str) -> None:
    number = CHANGED[attack](Row(log))
    report = await log.verify()
    found = [(each.damage, each.seq) for each in report.findings if each.tenant_id == log.acme]
    assert found == [(Damage.CHANGED, number)]


async def test_two_entries_of_a_row_in_each_others_places_are_found(log: Log) -> None:
    row = Row(log)
    for pieces in (row.payloads, row.hashes):
        pieces[1], pieces[3] = pieces[3], pieces[1]
    row.write()
    report = await log.verify()
    assert [(each.damage, each.seq) for each in report.findings] == [(Damage.REORDERED, row.first + 1)]


async def test_one_more_payload_than_hashes_is_found(log: Log) -> None:
    row = Row(log)
    row.payloads.append(row.payloads[0])
    row.write()
    report = await log.verify()
    assert [(each.damage, each.seq) for each in report.findings] == [(Damage.DUPLICATE, row.last + 1)]


async def test_an_entry_taken_out_of_a_row_is_found(log: Log) -> None:
    row = Row(log)
    del row.payloads[1], row.hashes[1]
    row.write()
    (finding,) = (await log.verify()).findings
    # What is left reaches back from the row's last number, so that it is the first one which is not there.
    assert (finding.damage, finding.seq) == (Damage.MISSING, row.first)


async def test_a_whole_row_taken_away_is_found(log: Log) -> None:
    row = Row(log)
    log.change("DELETE FROM audit_entries WHERE entry_id = :i", i=row.entry_id)
    report = await log.verify()
    assert [(each.damage, each.seq) for each in report.findings] == [(Damage.MISSING, row.first)]


async def test_an_entry_put_into_a_row_of_its_own_is_found_by_the_times_of_what_is_left(log: Log) -> None:
    row = Row(log)
    fields = "tenant_id, first_at, at, action, entity, version, actor, outcome"
    log.change(
        f"INSERT INTO audit_entries (entry_id, seq, payload, hash, {fields}) SELECT entry_id - {len(row.hashes) - 1}, "
        f":first, :p, :h, {fields} FROM audit_entries WHERE entry_id = :i",
        first=row.first,
        p=row.payloads[0],
        h=row.hashes[0],
        i=row.entry_id,
    )
    del row.payloads[0], row.hashes[0]
    row.write()
    (finding,) = (await log.verify()).findings
    assert (finding.damage, finding.seq) == (Damage.CHANGED, row.first)


async def test_entries_that_are_to_be_alone_are_found_in_one_row(log: Log) -> None:
    async with Orchestrator(f"sqlite:///{log.database}") as mesh:
        await mesh.suspend_tenant(log.acme)
        await mesh.suspend_tenant(log.other)
        await mesh.resume_tenant(log.acme)
        await mesh.suspend_tenant(log.acme)
    rows = log.ask("SELECT entry_id, seq, payload, hash FROM audit_entries WHERE tenant_id = :acme ORDER BY seq")[-2:]
    (first_id, first, *one), (entry_id, last, *two) = rows
    assert last == first + 1
    log.change("DELETE FROM audit_entries WHERE entry_id = :i", i=first_id)
    log.change(
        "UPDATE audit_entries SET payload = :p, hash = :h, action = 'tenant.resumed' WHERE entry_id = :i",
        p=b"\n".join((one[0], two[0])),
        h=one[1] + two[1],
        i=entry_id,
    )
    (finding,) = [each for each in (await log.verify()).findings if each.tenant_id == log.acme]
    assert (finding.damage, finding.seq) == (Damage.CHANGED, first)


@pytest.mark.parametrize("further", [1, 2, 500])
async def test_nothing_is_added_behind_entries_that_somebody_has_put_at_the_end_of_a_chain(
    log: Log, further: int
) -> None:
    fields = "tenant_id, first_at, at, action, entity, version, actor, outcome, payload, hash"
    log.change(
        f"INSERT INTO audit_entries (seq, {fields}) SELECT seq + :f, {fields} FROM audit_entries "
        "WHERE tenant_id = :acme ORDER BY seq DESC LIMIT 1",
        f=further,
    )
    async with Orchestrator(f"sqlite:///{log.database}") as mesh:
        for _ in range(2):
            with pytest.raises(StoreCorrupt, match=f"behind the end of the chain of {log.acme}.*audit verify"):
                await mesh.submit(single, tenant=log.acme)
        await (await mesh.submit(single, tenant=log.other)).result()
    assert {each.tenant_id for each in (await log.verify()).findings} == {log.acme}


async def test_rows_of_a_day_that_is_over_are_pruned_whole(log: Log) -> None:
    pruned = await prune(log)
    assert pruned >= 3 * RUNS
    report = await log.verify()
    assert (report.findings, report.pruned) == ([], pruned)
    left = log.ask("SELECT action FROM audit_entries WHERE tenant_id = :acme AND length(hash) > 32")
    assert left == [], "nothing of what is routine is left"


async def test_the_days_of_entries_that_were_recorded_at_once_are_pruned_one_by_one(tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    log.directory.mkdir()
    clock = Later(0)
    async with Orchestrator(f"sqlite:///{log.database}", clock=clock) as mesh:
        acme = (await mesh.create_tenant("Acme", "enterprise")).tenant_id
        for days in range(3):
            clock.days = days
            handles = await asyncio.gather(*(mesh.submit(single, tenant=acme) for _ in range(8)))
            await asyncio.gather(*(handle.result() for handle in handles))
    async with Orchestrator(f"sqlite:///{log.database}", clock=Later(91.5)) as mesh:
        gone = await mesh.prune_audit(acme)
        assert 24 <= gone < 3 * 24
        report = await mesh.verify_audit(acme)
        assert (report.findings, report.pruned) == ([], gone)
        page = await mesh.audit_log(acme, action="run.submitted", limit=100)
        assert len(page.entries) == 24 - gone // 3
