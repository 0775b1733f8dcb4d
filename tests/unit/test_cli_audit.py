"""The commands of the audit log: what stands in an entry disturbs no terminal, and a page is a whole one."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from unicodedata import category

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synergymesh import Orchestrator
from synergymesh.audit.entries import AuditEntries, AuditEntry
from synergymesh.cli import audit
from synergymesh.errors import InvalidRequest
from synergymesh.store.audit import reads

HOSTILE = ["\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "a\r\nb", "a\rb", "a\nb", "\x00", "\x9b31m", "\u2028", "\u202eabc"]


def entry(text: str, seq: int = 7) -> AuditEntry:
    return AuditEntry(
        tenant_id=text,
        seq=seq,
        at=datetime(2026, 11, 22, 10, 0, 0, 5, tzinfo=UTC),
        action=text,
        entity=text,
        version=3,
        actor=text,
        outcome=text,
        details={text: [text]},
        origin={"source": text},
        personal={"name": text},
        hash="00" * 32,
    )


def check_lines(shown: str, count: int) -> None:
    assert len(shown.splitlines()) == count
    assert not [
        each for each in shown.replace("\n", "") if category(each) not in ("Zs", "Co", "Cn") and not each.isprintable()
    ]


def check_shown(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    audit._show([entry(text)])
    check_lines(capsys.readouterr().out, 2)
    audit._say([entry(text), entry(text, 8)], False)
    check_lines(capsys.readouterr().out, 2)
    audit._say([entry(text)], True)
    shown = capsys.readouterr().out
    check_lines(shown, 1)
    assert json.loads(shown)["actor"] == text


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_in_every_field_is_one_harmless_line_of_the_table_and_of_the_tail(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    check_shown(text, capsys)


@given(text=st.text(st.characters(codec="utf-8"), max_size=30))
def test_any_text_in_every_field_is_one_harmless_line(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        written: list[str] = []
        patch.setattr(audit.output, "write", lambda text, stream=None: written.append(text))
        audit._show([entry(text)])
        audit._say([entry(text)], False)
        audit._say([entry(text)], True)
    check_lines("".join(written), 4)


async def test_a_page_is_filled_although_a_search_looks_at_so_many_entries_in_one_turn() -> None:
    asked: list[tuple[int | None, int]] = []
    turns = [
        AuditEntries(entries=(), cursor=90),
        AuditEntries(entries=(entry("a", 80),), cursor=50),
        AuditEntries(entries=(entry("a", 40), entry("a", 30)), cursor=30),
    ]

    async def turn(cursor: int | None, limit: int) -> AuditEntries:
        asked.append((cursor, limit))
        return turns[len(asked) - 1]

    page = await audit._whole_page(turn, None, 3)
    assert ([each.seq for each in page.entries], page.cursor) == ([80, 40, 30], 30)
    assert asked == [(None, 3), (90, 3), (50, 2)]


@pytest.mark.parametrize("answers", [True, False])
async def test_old_entries_are_listed_without_asking_again_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    monkeypatch.setattr(reads, "AUDIT_SCAN_MAX", 2)
    database = f"sqlite:///{tmp_path}/mesh.db"
    async with Orchestrator(database) as mesh:
        acme = await mesh.create_tenant("Acme")
        between = datetime.now(UTC)
        for _ in range(10):
            await mesh.suspend_tenant(acme.tenant_id)
            await mesh.resume_tenant(acme.tenant_id)
        assert not (await mesh.audit_log(acme.tenant_id, until=between)).entries, "one turn does not reach it"
        wanted = audit._wanted(None, between.isoformat(), None, None, None, None)
        if answers:
            page = await asyncio.to_thread(audit._read, database, "Acme", None, 5, wanted)
        else:
            page = await audit._read_file(database, "Acme", None, 5, wanted)
        assert ([each.action for each in page.entries], page.cursor) == (["tenant.created"], None)


def test_a_tenant_with_the_name_that_stands_for_the_mesh_is_not_mixed_up_with_it() -> None:
    assert audit.find_log("mesh", {"tenant-1": "Acme"}) == ""
    names = {"tenant-1": "mesh"}
    with pytest.raises(InvalidRequest, match="empty text"):
        audit.find_log("mesh", names)
    assert audit.find_log("", names) == ""
    assert audit.find_log("tenant-1", names) == "tenant-1"


async def test_the_public_key_is_exported_as_a_file_and_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database = f"sqlite:///{tmp_path}/mesh.db"
    async with Orchestrator(database) as mesh:
        await mesh.create_tenant("Acme")
    async with Orchestrator(database) as mesh:
        (key,) = await mesh.audit_keys()
        target = tmp_path / "audit.pub"
        await asyncio.to_thread(audit.export_key, str(target), database=database, as_json=True)
        assert json.loads(capsys.readouterr().out) == {
            "key_id": key.key_id,
            "public": key.public,
            "pem": key.pem,
            "is_present": True,
            "path": str(target),
        }
        assert target.read_text() == key.pem
        await asyncio.to_thread(audit.export_key, None, database=database)
        assert capsys.readouterr().out == key.pem


@pytest.mark.parametrize("until", ["9999-12-31", "9999-12-31T00:00Z", "0001-01-01T00:00Z"])
async def test_a_time_that_no_database_holds_is_refused_with_the_name_of_its_option(tmp_path: Path, until: str) -> None:
    database = f"sqlite:///{tmp_path}/mesh.db"
    async with Orchestrator(database) as mesh:
        await mesh.create_tenant("Acme")
        with pytest.raises(InvalidRequest, match=r"^until must be") as raised:
            await asyncio.to_thread(audit.list_, until=until, since=None, limit=5, database=database)
        assert raised.value.field == "until"
