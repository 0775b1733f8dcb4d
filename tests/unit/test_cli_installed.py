"""Installed distributions are read with the requirements between them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synergymesh.cli.installed import (
    FileRecord,
    _cut_circles,
    canonical,
    find_distribution,
    parse_requirement,
    read_environment,
    read_record,
)


def install(root: Path, name: str, *requires: str, record: str | None = "", version: str = "1.0") -> None:
    """Make a distribution as an installer leaves it."""
    info = root / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = [f"Requires-Dist: {each}" for each in requires]
    text = "\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *lines, "", "About it."])
    (info / "METADATA").write_text(text)
    if record is not None:
        (info / "RECORD").write_text(record)


@pytest.fixture(params=["packaging", "by hand"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "by hand":
        monkeypatch.setitem(sys.modules, "packaging.requirements", None)
    return str(request.param)


@pytest.mark.parametrize(
    ("text", "extras", "expected"),
    [
        ("rich", (), [("rich", set())]),
        ("Typing_Extensions >=4.1,<5", (), [("typing-extensions", set())]),
        ("zope.interface[test, Doc_s]>=5 ; python_version >= '3'", (), [("zope-interface", {"test", "doc-s"})]),
        ("colour @ https://example.org/colour.zip", (), [("colour", set())]),
        ('pytest>=8; extra == "test"', (), []),
        ('pytest>=8; extra == "test"', ("test",), [("pytest", set())]),
        ("pytest>=8; python_version > '3' and extra == 'my-test'", ("other", "my-test"), [("pytest", set())]),
    ],
)
def test_requirements_are_read_with_and_without_packaging(
    parser: str, text: str, extras: tuple[str, ...], expected: list[tuple[str, set[str]]]
) -> None:
    assert [(name, set(found)) for name, found in parse_requirement(text, extras)] == expected


def test_a_marker_that_does_not_hold_here_is_left_out() -> None:
    assert list(parse_requirement("pywin32; python_version < '3'")) == []


def test_text_that_is_no_requirement_is_left_out(parser: str) -> None:
    assert list(parse_requirement("!!!")) == []


def test_names_are_compared_as_pep_503_says() -> None:
    assert {canonical(n) for n in ("Foo-Bar", "foo_bar", "FOO.bar", "foo-_.bar")} == {"foo-bar"}


def test_an_environment_is_read_in_dependency_order(tmp_path: Path) -> None:
    install(tmp_path, "App", "lib_core[fast]>=1", "not-installed", "App[self]")
    install(tmp_path, "lib-core", "base", "speed; extra == 'fast'", "slow; extra == 'slow'")
    for name in ("base", "speed", "slow"):
        install(tmp_path, name)
    environment = read_environment([str(tmp_path)])
    needs = {name: each.needs for name, each in environment.distributions.items()}
    assert needs == {"app": ("lib-core",), "lib-core": ("base", "speed"), "base": (), "speed": (), "slow": ()}
    order = list(environment.distributions)
    assert all(order.index(needed) < order.index(name) for name, found in needs.items() for needed in found)
    assert environment.cut == ()


def test_the_first_of_two_distributions_of_a_name_counts(tmp_path: Path) -> None:
    install(tmp_path / "first", "lib", version="2.0")
    install(tmp_path / "second", "lib", version="1.0")
    environment = read_environment([str(tmp_path / "first"), str(tmp_path / "second")])
    assert environment.distributions["lib"].version == "2.0"


def test_circles_are_cut_and_reported(tmp_path: Path) -> None:
    install(tmp_path, "a", "b")
    install(tmp_path, "b", "c")
    install(tmp_path, "c", "a")
    environment = read_environment([str(tmp_path)])
    assert environment.cut == (("c", "a"),)
    assert list(environment.distributions) == ["c", "b", "a"]


def test_a_record_is_read_with_quotes_and_without_hashes(tmp_path: Path) -> None:
    install(tmp_path, "lib", record='lib/a.py,sha256=abc,12\n"lib/with, comma.py",sha256=x,\nlib/RECORD,,\n\n')
    distribution = find_distribution("lib", str(tmp_path))
    assert distribution is not None
    assert read_record(distribution) == [
        FileRecord("lib/a.py", "sha256=abc", 12),
        FileRecord("lib/with, comma.py", "sha256=x", None),
        FileRecord("lib/RECORD", "", None),
    ]
    described = read_environment([str(tmp_path)]).distributions["lib"]
    assert (described.files, described.bytes) == (3, 12)
    assert described.estimated_seconds > 0


def test_a_distribution_without_a_record_has_no_files(tmp_path: Path) -> None:
    install(tmp_path, "lib", record=None)
    assert read_environment([str(tmp_path)]).distributions["lib"].files == 0


@settings(max_examples=60)
@given(st.dictionaries(st.integers(0, 9), st.sets(st.integers(0, 9))))
def test_an_order_is_found_whatever_the_circles(raw: dict[int, set[int]]) -> None:
    needs = {str(n): sorted(str(o) for o in others if o in raw and o != n) for n, others in raw.items()}
    before = {name: list(others) for name, others in needs.items()}
    order, cut = _cut_circles(needs)
    place = {name: position for position, name in enumerate(order)}
    assert sorted(order) == sorted(needs)
    assert all(place[other] < place[name] for name, others in needs.items() for other in others)
    assert {n: sorted([*o, *(other for name, other in cut if name == n)]) for n, o in needs.items()} == before
