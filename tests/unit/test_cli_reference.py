"""The reference in the guide is what `--help` prints. Written anew by running this file."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import typer

from synergymesh.cli.app import app

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "command-line.md"
MARK = "<!-- What `--help` prints. Written by: python tests/unit/test_cli_reference.py -->\n"


def reference() -> str:
    """Give the reference of all commands as Markdown."""
    root = typer.main.get_command(app)
    sections = []

    def add(command: typer.core.TyperCommand | typer.core.TyperGroup, parent: typer.Context | None, name: str) -> None:
        context = typer.Context(command, parent=parent, info_name=name, **command.context_settings)
        shown = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
        sections.append(f"### {context.command_path}\n\n```text\n{shown}\n```\n")
        for sub_name, sub in getattr(command, "commands", {}).items():
            add(sub, context, sub_name)

    add(root, None, "synergymesh")
    return "\n" + "\n".join(sections)


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")


def test_the_reference_is_what_help_prints() -> None:
    written = GUIDE.read_text(encoding="utf-8").partition(MARK)[2]
    assert written == reference(), f"write it anew: python {Path(__file__).relative_to(GUIDE.parents[2])}"


def test_the_exit_codes_of_the_guide_are_those_of_the_program() -> None:
    from synergymesh.cli import endings

    codes = {
        value
        for name, value in vars(endings).items()
        if name.isupper() and isinstance(value, int) and not name.endswith("_SECONDS")
    }
    guide = GUIDE.read_text(encoding="utf-8").partition("## Exit codes")[2].partition("## Reference")[0]
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", guide, re.MULTILINE)} == codes


if __name__ == "__main__":
    os.environ["COLUMNS"] = "100"
    start, mark, _ = GUIDE.read_text(encoding="utf-8").partition(MARK)
    assert mark, "the guide has lost its mark"
    GUIDE.write_text(start + mark + reference(), encoding="utf-8")
