"""Every page is in the navigation of the documentation site; the build itself is tried by `make docs`."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def test_every_page_is_in_the_navigation_once() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    named = re.findall(r"(\S+\.md)$", navigation, re.MULTILINE)
    pages = [path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")]
    assert sorted(named) == sorted(page for page in pages if not page.startswith("decisions/"))


def test_pages_link_to_pages_of_the_site_only() -> None:
    leaving = [
        f"{path.relative_to(ROOT)}: {target}"
        for path in DOCS.rglob("*.md")
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
        if DOCS not in (path.parent / target).resolve().parents
    ]
    assert not leaving, "the site has only what is in docs/: write the path as code instead"


def test_lists_begin_after_an_empty_line() -> None:
    joined, before, is_code = [], "", False
    for path in DOCS.rglob("*.md"):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            is_code ^= line.startswith("```")
            if not is_code and line.startswith("- ") and before.strip() and not before.startswith(("- ", " ")):
                joined.append(f"{path.relative_to(ROOT)}:{number}")
            before = line
    assert not joined, "the site would show these lists as part of the paragraph above"


def test_every_decision_has_a_number_of_its_own_which_its_heading_says() -> None:
    pages = sorted((DOCS / "decisions").glob("*.md"))
    numbers = [int(page.name.partition("-")[0]) for page in pages]
    assert numbers == list(range(1, len(pages) + 1))
    headings = [page.read_text(encoding="utf-8").partition("\n")[0] for page in pages]
    assert all(heading.startswith(f"# {number}. ") for number, heading in zip(numbers, headings, strict=True))
