"""The public names of the package."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import synergymesh


@pytest.mark.parametrize("name", synergymesh.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(synergymesh, name) is not None
    assert name in dir(synergymesh)


def test_what_type_checkers_see_is_what_programs_get() -> None:
    assert synergymesh.__file__ is not None
    tree = ast.parse(Path(synergymesh.__file__).read_text(encoding="utf-8"))
    seen = {
        (node.module, alias.name)
        for block in tree.body
        if isinstance(block, ast.If)
        for node in ast.walk(block)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == {(home, name) for name, home in synergymesh._HOME_OF.items()}
    assert {name for _, name in seen} == set(synergymesh.__all__)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Orchestra'"):
        synergymesh.Orchestra  # noqa: B018 - the access is what is tested


def test_importing_the_package_imports_neither_the_database_nor_the_border() -> None:
    heavy = "sqlalchemy", "pydantic", "rustworkx", "rich"
    code = f"import sys, synergymesh; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
