"""Prints: one place through which everything goes that a command writes.

What tenants and tasks wrote (names, errors, results) never reaches a terminal as it is: control characters, escape
sequences and marks that reorder text are shown as codes.
"""

from __future__ import annotations

import io
import json
import os
import sys
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

from synergymesh.cli.endings import PipeClosed

if TYPE_CHECKING:
    from rich.console import RenderableType

WIDE = 10_000
"""Columns of what is no terminal: nothing is cut off there."""

RESULT_LINES_MAX = 20
"""Lines of a result in a summary; `show --json` has all of it."""

_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp", "Co", "Cn"})

STATUS_STYLES = {
    "success": "green",
    "partial": "yellow",
    "failed": "bold red",
    "timeout": "red",
    "cancelled": "magenta",
    "skipped": "dim",
    "retrying": "yellow",
    "running": "cyan",
    "pending": "dim",
    "active": "green",
    "suspended": "yellow",
    "open": "bold red",
    "half_open": "yellow",
    "closed": "green",
}


def clean(text: object) -> str:
    r"""Give text on one line that a terminal takes for nothing but text.

    Spaces, tabs and line ends become single spaces; other control characters, marks that reorder or hide text, and
    characters that do not exist become codes (`\x1b`, `\u202e`).
    """
    string = str(text)
    if string.isascii() and string.isprintable():
        return string
    lines = " ".join(string.split()) if any(c in "\t\n\r\v\f" for c in string) else string
    return "".join(_code(c) if unicodedata.category(c) in _UNSAFE else c for c in lines)


def clean_lines(text: str) -> list[str]:
    """Clean text of several lines, line by line; indentation stays."""
    return [
        line[: len(line) - len(line.lstrip(" "))] + clean(line.lstrip(" ")) for line in text.expandtabs(4).splitlines()
    ]


def _code(character: str) -> str:
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


_kept: TextIO | None = None
"""Standard output as it was, while what tasks print goes elsewhere."""


@contextmanager
def keeping_standard_output() -> Iterator[None]:
    """Go on printing to the present standard output, whatever `sys.stdout` becomes meanwhile."""
    global _kept
    _kept = sys.stdout
    try:
        yield
    finally:
        _kept = None


# --- writing --------------------------------------------------------------------------------------------------------


def write(text: str, stream: TextIO | None = None) -> None:
    """Write text as it is, at once.

    Raises:
        PipeClosed: nobody reads it.
    """
    stream = stream or _kept or sys.stdout
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        # the interpreter flushes once more when it ends, and would complain then
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        raise PipeClosed from None
    except UnicodeEncodeError:
        encoding = stream.encoding or "ascii"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()


def say(text: str = "", *, indent: int = 0) -> None:
    """Print a line on standard output."""
    write(f"{' ' * indent}{clean(text)}\n")


def note(text: str) -> None:
    """Print a line for people on standard error, where it disturbs no output that is read by a program."""
    write(clean(text) + "\n", sys.stderr)


def complain(message: object) -> None:
    """Print why a command cannot do what it was asked for."""
    note(f"error: {message}")


def as_json(value: Any, *, indent: int | None = 2) -> str:
    """Give JSON in ASCII, so that every terminal and every program can take it."""
    return json.dumps(value, indent=indent, ensure_ascii=True) + "\n"


def say_json(value: Any, *, indent: int | None = 2) -> None:
    """Print JSON in ASCII."""
    write(as_json(value, indent=indent))


def is_terminal() -> bool:
    """Tell whether people look at standard output."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def width() -> int:
    """Give the columns that a line may take."""
    if not is_terminal():
        return WIDE
    from rich.console import Console

    return Console().width


def draw(*renderables: RenderableType, plain: bool = False) -> str:
    """Give what Rich draws: in colour and cut to the width of a terminal, plain and whole elsewhere."""
    from rich.console import Console

    target = io.StringIO()
    if is_terminal() and not plain:
        size = Console()
        console = Console(
            file=target,
            force_terminal=True,
            width=size.width,
            color_system=None if size.no_color else "standard",
        )
    else:
        console = Console(file=target, width=WIDE, color_system=None)
    for renderable in renderables:
        console.print(renderable, markup=False, highlight=False, emoji=False)
    return "\n".join(line.rstrip() for line in target.getvalue().split("\n"))


def draw_table(
    headings: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    numbers: Collection[str] = (),
    plain: bool = False,
) -> str:
    """Give rows in aligned columns; those named in `numbers` are aligned on the right, `STATUS` is coloured."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        right = heading in numbers
        table.add_column(
            heading,
            justify="right" if right else "left",
            no_wrap=True,
            overflow="ellipsis",
            min_width=len(heading) if right else min(6, len(heading)),
        )
    for row in rows:
        cells = []
        for heading, value in zip(headings, row, strict=True):
            text = "-" if value is None else clean(value)
            cells.append(Text(text, style=STATUS_STYLES.get(text, "") if heading == "STATUS" else ""))
        table.add_row(*cells)
    return draw(table, plain=plain)


def show_table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Collection[str] = ()) -> None:
    """Print rows in aligned columns, as `draw_table` gives them."""
    write(draw_table(headings, rows, numbers=numbers))


def show_fields(fields: Mapping[str, object]) -> None:
    """Print names and values, one each line; what is None is left out."""
    width = max(map(len, fields))
    for name, value in fields.items():
        if value is not None:
            say(f"{name + ':':<{width + 1}} {clean(value)}")


# --- values ---------------------------------------------------------------------------------------------------------


def duration(seconds: float | None) -> str:
    """Show a length of time."""
    if seconds is None:
        return "-"
    if seconds < 0.1:
        return f"{max(seconds, 0) * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3_600:
        return f"{whole // 60}:{whole % 60:02} min"
    return f"{whole // 3_600}:{whole // 60 % 60:02} h"


def between(start: datetime | None, end: datetime | None) -> str:
    """Show the time between two moments; until now when there is no end."""
    if start is None:
        return "-"
    return duration(((end or datetime.now(UTC)) - start).total_seconds())


def moment(at: datetime | None) -> str | None:
    """Show a moment in the time zone of the user."""
    return None if at is None else at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def clock(at: datetime) -> str:
    """Show the time of day in the time zone of the user."""
    return at.astimezone().strftime("%H:%M:%S")


def jsonable(value: Any) -> Any:
    """Turn what the engine shows (dataclasses, moments, statuses) into plain JSON values."""
    import msgspec

    return msgspec.to_builtins(value)


def say_value(name: str, value: Any) -> None:
    """Print a JSON value, indented where it is longer than a line, and not more of it than fits on a screen."""
    line = f"{name}: {json.dumps(value, ensure_ascii=False)}"
    if len(line) <= 100:
        say(line)
        return
    lines = json.dumps(value, ensure_ascii=False, indent=2).split("\n")
    say(f"{name}:")
    for each in clean_lines("\n".join(lines[:RESULT_LINES_MAX])):
        write(f"  {each}\n")
    if len(lines) > RESULT_LINES_MAX:
        say(f"… {len(lines) - RESULT_LINES_MAX:,} more lines; --json shows all", indent=2)
