"""The table of reasons in the guide is the one of the code. Rewrite it with `python tests/docs/test_reasons.py`."""

from __future__ import annotations

from pathlib import Path

from synergymesh.domain.scheduling.explain import format_reasons

GUIDE = Path(__file__).parents[2] / "docs/guides/limits.md"
BEGIN, END = "<!-- reasons -->\n", "<!-- /reasons -->"


def with_reasons(text: str) -> str:
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}{format_reasons()}{END}{after}"


def test_the_guide_has_every_reason_with_its_remedy() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    assert text == with_reasons(text)


if __name__ == "__main__":
    GUIDE.write_text(with_reasons(GUIDE.read_text(encoding="utf-8")), encoding="utf-8")
