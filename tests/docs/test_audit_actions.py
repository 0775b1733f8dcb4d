"""The table of actions in the guide is the catalogue. Rewrite it with `python tests/docs/test_audit_actions.py`."""

from __future__ import annotations

from pathlib import Path

from synergymesh.domain.audit.actions import format_actions

GUIDE = Path(__file__).parents[2] / "docs/guides/audit-actions.md"
BEGIN, END = "<!-- actions -->\n", "<!-- /actions -->"


def with_actions(text: str) -> str:
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}{format_actions()}{END}{after}"


def test_the_guide_has_every_action() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    assert text == with_actions(text)


if __name__ == "__main__":
    GUIDE.write_text(with_actions(GUIDE.read_text(encoding="utf-8")), encoding="utf-8")
