"""Exports for other programs: whatever stands in a field, a line is one line and nothing in it runs."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synergymesh.audit.entries import AuditEntry
from synergymesh.audit.export_views import CSV_COLUMNS, cell, cloud_event, csv_header, csv_line, plain

TEXTS = st.text(max_size=30)
HOSTILE = [
    "=1+2",
    "+1",
    "-1",
    "@SUM(A1)",
    "|calc",
    "%0A",
    " =1",
    "\t=1",
    "\r=1",
    "\n=1",
    "\u3000=1",
    "\uff1dHYPERLINK(1)",
    "\x00=1",
    'a"b,c',
    "a\r\nb",
    "\x1b[31mred",
    "\x9b31m",
    "\u2028",
    "\u202eabc",
    "\ud800",
]


def entry(text: str) -> AuditEntry:
    return AuditEntry(
        tenant_id=text,
        seq=7,
        at=datetime(2026, 11, 22, 10, 0, 0, 5, tzinfo=UTC),
        action=text,
        entity=text,
        version=3,
        actor=text,
        outcome=text,
        details={text: [text]},
        origin={"source": text, "on_behalf_of": text, "request_id": text},
        personal=None,
        hash="00" * 32,
    )


def check_cells(line: bytes) -> list[str]:
    text = line.decode()
    assert text.endswith("\r\n")
    assert len(text.splitlines()) == 1
    (cells,) = csv.reader(io.StringIO(text))
    assert len(cells) == len(CSV_COLUMNS)
    for value in cells:
        assert all(c.isprintable() or c in "\u3000\xa0" or c.isspace() for c in value)
        assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in value)
        assert value.strip()[:1] not in set("=+-@|%\uff1d\uff0b\uff0d\uff20")
    return cells


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_in_every_field_is_one_harmless_line(text: str) -> None:
    check_cells(csv_line(entry(text)))
    event = cloud_event(entry(text), "log-1")
    assert event.isascii()
    assert len(event.decode().splitlines()) == 1
    assert not set(event) & ({*range(32), 127} - {10})


@settings(deadline=None)
@given(TEXTS)
def test_any_text_in_every_field_is_one_harmless_line(text: str) -> None:
    check_cells(csv_line(entry(text)))
    read = json.loads(cloud_event(entry(text), "log-1"))
    assert read["data"]["actor"] == text
    assert read["specversion"] == "1.0"
    for name in ("id", "source", "type", "subject"):
        assert read[name] == plain(read[name])


def test_plain_cells_stay_as_they_are() -> None:
    cells = check_cells(csv_line(entry("run/1")))
    assert cells[:8] == ["7", "run/1", "2026-11-22T10:00:00.000005+00:00", "run/1", "run/1", "3", "run/1", "run/1"]
    assert cell("a") == '"a"'
    assert "not for verification" in csv_header().decode()


def test_an_event_names_its_source_and_its_time() -> None:
    event = json.loads(cloud_event(entry("a"), "log-1"))
    assert event["id"] == "log-1/a/7"
    assert event["type"] == "synergymesh.audit.a"
    assert event["time"] == "2026-11-22T10:00:00.000005Z"
