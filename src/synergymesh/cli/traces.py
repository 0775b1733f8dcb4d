"""Shows tracebacks of tasks: cleaned, and no longer than a screen."""

from __future__ import annotations

from synergymesh.cli import output

TRACEBACK_LINES_MAX = 30


def show_trace(traceback: str) -> None:
    """Show the end of a traceback."""
    lines = output.clean_lines(traceback)
    if len(lines) > TRACEBACK_LINES_MAX:
        output.say("…", indent=2)
    for line in lines[-TRACEBACK_LINES_MAX:]:
        output.write(f"  {line}\n")
