"""Every Python example in the documents runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md")])
PARSERS = Sybil(parsers=[PythonCodeBlockParser()], path=str(ROOT), patterns=["**/*.md"])


def with_examples() -> list[Path]:
    return [path for path in DOCUMENTS if "```python" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", with_examples(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_python_examples_of_a_document_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    examples = list(PARSERS.parse(path))
    assert examples, "a document with Python blocks has no example that runs"
    for example in examples:
        example.evaluate()


def test_every_link_between_documents_leads_somewhere() -> None:
    import re

    broken = [
        f"{path.relative_to(ROOT)}: {target}"
        for path in [*DOCUMENTS, ROOT / "ARCHITECTURE.md", ROOT / "CHANGELOG.md"]
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
        if not (path.parent / target).exists()
    ]
    assert not broken
