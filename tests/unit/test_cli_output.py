"""What the command line prints is safe for a terminal, and readable."""

from __future__ import annotations

import io
import json
import unicodedata
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.text import Text

from synergymesh.cli import output
from synergymesh.cli.endings import DATABASE, NOT_SUCCESSFUL, USAGE, PipeClosed, code_of
from synergymesh.errors import (
    IdempotencyConflict,
    InvalidRequest,
    RunFailed,
    SchemaMismatch,
    StoreError,
    StoreLocked,
    SynergyMeshError,
    UnknownRun,
)


@settings(max_examples=200)
@given(st.text(alphabet=st.characters(), max_size=60))
def test_nothing_that_steers_a_terminal_is_left_in_cleaned_text(text: str) -> None:
    cleaned = output.clean(text)
    assert not [c for c in cleaned if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"}]


@pytest.mark.parametrize(
    ("dangerous", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("safe\u202egnp.exe", "safe\\u202egnp.exe"),
        ("one\r\ntwo\tthree", "one two three"),
        ("del\x7f\x00", "del\\x7f\\x00"),
        ("[bold]no markup[/bold]", "[bold]no markup[/bold]"),
        ("Zoë 株式会社", "Zoë 株式会社"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_control_characters_are_shown_as_codes(dangerous: str, shown: str) -> None:
    assert output.clean(dangerous) == shown


def test_lines_keep_their_indentation_and_lose_their_escapes() -> None:
    assert output.clean_lines("a\n    b\x1b[2J\n\tc") == ["a", "    b\\x1b[2J", "    c"]


def test_a_table_takes_markup_and_escapes_for_text() -> None:
    drawn = output.draw_table(("NAME", "STATUS"), [("[red]x[/red]", "failed"), ("\x1b[1m", None)])
    assert drawn.splitlines() == ["NAME          STATUS", "[red]x[/red]  failed", "\\x1b[1m       -"]


def test_a_table_is_not_cut_where_there_is_no_terminal() -> None:
    drawn = output.draw_table(("ID", "ERROR"), [("run-1", "x" * 500)])
    assert "x" * 500 in drawn


def test_what_rich_draws_has_no_spaces_at_line_ends() -> None:
    assert output.draw(Text("a   ")) == "a\n"


def test_a_closed_pipe_is_told_apart_from_other_errors() -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with pytest.raises(PipeClosed):
        output.write("x", Closed())


def test_text_that_the_terminal_cannot_encode_is_written_as_codes() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    output.write("Zoë →\n", stream)
    assert raw.getvalue() == b"Zo\\xeb \\u2192\n"


def test_json_is_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    output.say_json({"name": "\x9bé"})
    printed = capsys.readouterr().out
    assert printed.isascii()
    assert json.loads(printed) == {"name": "\x9bé"}


def test_a_long_value_is_shown_in_part(capsys: pytest.CaptureFixture[str]) -> None:
    output.say_value("result", list(range(1_000)))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "result:"
    assert lines[-1] == "  … 982 more lines; --json shows all"
    assert len(lines) == output.RESULT_LINES_MAX + 2


def test_a_value_that_would_steer_the_terminal_is_shown_as_codes(capsys: pytest.CaptureFixture[str]) -> None:
    output.say_value("result", "\x9b2J" + "x" * 200)
    assert "\\x9b2J" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "-"),
        (0, "0 ms"),
        (-1, "0 ms"),
        (0.0991, "99 ms"),
        (0.5, "0.50 s"),
        (9.994, "9.99 s"),
        (59.94, "59.9 s"),
        (60, "1:00 min"),
        (125.4, "2:05 min"),
        (3_599.6, "1:00 h"),
        (7_320, "2:02 h"),
    ],
)
def test_durations_are_short(seconds: float | None, shown: str) -> None:
    assert output.duration(seconds) == shown


def test_the_time_between_two_moments_is_shown() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    assert output.between(start, start + timedelta(seconds=1.5)) == "1.50 s"
    assert output.between(None, start) == "-"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidRequest("no"), USAGE),
        (UnknownRun("run-1"), USAGE),
        (IdempotencyConflict("k", "run-1"), USAGE),
        (SynergyMeshError("other"), USAGE),
        (RunFailed("no", run_id="run-1"), NOT_SUCCESSFUL),
        (StoreError("no"), DATABASE),
        (StoreLocked("no"), DATABASE),
        (SchemaMismatch("no"), DATABASE),
    ],
)
def test_every_error_has_its_exit_code(error: SynergyMeshError, code: int) -> None:
    assert code_of(error) == code
