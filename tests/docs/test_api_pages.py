"""The API pages have every public name and method, with what their docstrings say and an example that runs.

What is between `<!-- api … -->` and `<!-- /api -->` is written anew by `python tests/docs/test_api_pages.py`, which
puts new methods into the last part of their class, and new public names into the page of names.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pydantic
import pytest

import synergymesh
from synergymesh import DependencyResolver, EnterpriseSynergyMeshOrchestrator, Orchestrator, RunHandle, errors

API = Path(__file__).parents[2] / "docs" / "api"
ENTERPRISE, RESOLVER, NAMES = (
    API / name for name in ("enterprise-orchestrator-api.md", "dependency-resolver-api.md", "public-names.md")
)
CLASSES = {one.__name__: one for one in (EnterpriseSynergyMeshOrchestrator, Orchestrator, RunHandle)}
PART = re.compile(r"<!-- api (?P<what>\w+): (?P<names>[\w ]*) -->\n(?P<text>.*?)<!-- /api -->\n", re.DOTALL)
EXAMPLES = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
SECTIONS = ("Args", "Returns", "Raises", "Attributes")


def public(one: type) -> list[str]:
    """Give the public methods and properties of a class, those of its own first, in the order of the source."""
    return list(
        dict.fromkeys(
            name
            for each in one.__mro__
            for name, value in vars(each).items()
            if not name.startswith("_")
            and (callable(value) or isinstance(value, property | classmethod | staticmethod))
        )
    )


def divided(docstring: str) -> Iterator[tuple[str, str]]:
    """Give the sections of a docstring, the text before them as the one without a name."""
    name, lines = "", list[str]()
    for line in docstring.splitlines():
        if line.rstrip().removesuffix(":") in SECTIONS and line.endswith(":"):
            yield name, inspect.cleandoc("\n" + "\n".join(lines))
            name, lines = line[:-1], []
        else:
            lines.append(line)
    yield name, inspect.cleandoc("\n" + "\n".join(lines))


def entries(text: str) -> list[tuple[str, str]]:
    """Give the names of a section with what is said of them; what follows on deeper lines belongs to the one above."""
    found: list[tuple[str, str]] = []
    for line in inspect.cleandoc("\n" + text).replace(",\n", ", ").splitlines():
        if line.startswith(" ") and found:
            found[-1] = found[-1][0], f"{found[-1][1]} {line.strip()}"
        elif line.strip():
            name, _, said = line.partition(": ")
            found.append((name, said))
    return found


def described(docstring: str) -> str:
    """Give a docstring as Markdown."""
    parts = []
    for name, text in divided(docstring):
        if not name:
            parts.append(text)
        elif name == "Returns":
            parts.append(f"Returns {' '.join(text.split())}")
        else:
            rows = "".join(f"| {names(key)} | {said.replace('|', chr(92) + '|')} |\n" for key, said in entries(text))
            title = {"Args": "parameter", "Raises": "raises", "Attributes": "attribute"}[name]
            parts.append(f"| {title} | |\n|---|---|\n{rows}".rstrip())
    return "\n\n".join(parts) + "\n"


def names(text: str) -> str:
    return ", ".join(f"`{each.strip()}`" for each in text.split(","))


def plain_type(kind: object) -> str:
    return kind.__name__ if isinstance(kind, type) and not hasattr(kind, "__args__") else str(kind).replace("'", "")


def plain(signature: str) -> str:
    """Give a signature without what only Python makes of it: quoted annotations, defaults that have no literal."""
    shortened = re.sub(r"<([\w.]+): '?\w+'?>", r"\1", signature.replace("'", ""))
    return re.sub(r"<object object at \w+>|<factory>", "...", shortened)


def shown_signature(name: str, value: Callable[..., Any]) -> str:
    """Give a signature on one line, or with a line for each parameter."""
    signature = inspect.signature(value)
    kept = [each for each in signature.parameters.values() if each.name not in ("self", "cls")]
    start = "async def " if inspect.iscoroutinefunction(value) else "def "
    flat = f"{start}{name}{signature.replace(parameters=kept)}"
    flat = plain(flat)
    if len(flat) <= 100:
        return flat
    lines, star = [], False
    for each in kept:
        if each.kind is each.KEYWORD_ONLY and not star:
            star = True
            lines.append("    *,\n")
        star = star or each.kind is each.VAR_POSITIONAL
        lines.append(f"    {plain(str(each))},\n")
    ending = flat[flat.rindex(")") :]
    return f"{start}{name}(\n{''.join(lines)}{ending}"


def of_method(one: type, name: str) -> str:
    """Give a method's part of the page."""
    value = inspect.getattr_static(one, name)
    docstring = inspect.getdoc(getattr(one, name))
    assert docstring, f"{one.__name__}.{name} has no docstring"
    if isinstance(value, property):
        assert value.fget is not None
        signature = f"{name}: {inspect.signature(value.fget).return_annotation}  # property".replace("'", "")
    else:
        signature = shown_signature(name, getattr(value, "__func__", value))
    return f"#### `{name}`\n\n```py\n{signature}\n```\n\n{described(docstring)}\n"


def of_name(name: str) -> str:
    """Give a public name's part of the page."""
    value = getattr(synergymesh, name)
    docstring = inspect.getdoc(value) or ""
    start = f"### `{name}`\n\n"
    if not inspect.isclass(value):
        return f"{start}```py\n{shown_signature(name, value)}\n```\n\n{described(docstring)}\n"
    if value.__name__ != name:
        return f"{start}The same as [`{value.__name__}`](#{value.__name__.lower()}).\n\n"
    text = start + described(docstring)
    if issubclass(value, enum.Enum):
        text += "\nValues: " + ", ".join(f"`{each.value}`" for each in value) + ".\n"
    fields = fields_of(value)
    if fields:
        text += f"\n```py\n{fields}```\n"
    has_page = value in CLASSES.values() or value is DependencyResolver or issubclass(value, pydantic.BaseModel)
    methods = [] if has_page else [each for each in public(value) if each in own_names(value)]
    if methods:
        rows = (
            f"| `{each}` | {(inspect.getdoc(getattr(value, each)) or '').partition(chr(10))[0]} |" for each in methods
        )
        text += "\n| method | |\n|---|---|\n" + "\n".join(rows) + "\n"
    return text + "\n"


def own_names(one: type) -> set[str]:
    """Give the names that a class has by itself or from another one of the package, and not from Python's."""
    fields = {*inspect.get_annotations(one), *getattr(one, "_fields", ())}
    homes = [each for each in one.__mro__ if each.__module__.startswith("synergymesh")]
    return {name for each in homes for name in vars(each)} - fields


def fields_of(one: type) -> str:
    """Give the fields of a record, a line for each."""
    if dataclasses.is_dataclass(one) or issubclass(one, msgspec.Struct) or hasattr(one, "_fields"):
        said = inspect.get_annotations(one)
        said = {key: getattr(kind, "__forward_arg__", kind) for key, kind in said.items()}
        return "".join(f"{key}: {plain_type(kind)}\n" for key, kind in said.items() if not key.startswith("_"))
    return ""


def of_errors() -> str:
    """Give every error with its code and what it means."""
    rows, todo = "", [errors.SynergyMeshError]
    while todo:
        one = todo.pop(0)
        todo = [*(kind for kind in vars(errors).values() if one in getattr(kind, "__bases__", ())), *todo]
        first = (inspect.getdoc(one) or "").partition("\n")[0]
        rows += f"| `{one.__name__}` | `{one.code}` | {first} |\n"
    return f"| error | code | |\n|---|---|---|\n{rows}"


def written(text: str) -> str:
    """Give a page with all of its parts as they have to be."""

    def part(found: re.Match[str]) -> str:
        what, wanted = found["what"], found["names"].split()
        if what in CLASSES:
            one = CLASSES[what]
            known = {name for each in PART.finditer(text) if each["what"] == what for name in each["names"].split()}
            is_last = [each.start() for each in PART.finditer(text) if each["what"] == what][-1] == found.start()
            wanted = [name for name in wanted if name in public(one)]
            wanted += [name for name in public(one) if name not in known] if is_last else []
            body = "".join(of_method(one, name) for name in wanted)
        elif what == "names":
            wanted = []
            body = "".join(of_name(name) for name in synergymesh.__all__)
        else:
            wanted, body = [], of_errors()
        return f"<!-- api {what}: {' '.join(wanted)} -->\n\n{body.rstrip()}\n\n<!-- /api -->\n"

    return PART.sub(part, text)


@pytest.mark.parametrize("page", [ENTERPRISE, NAMES], ids=lambda page: page.name)
def test_the_api_pages_say_what_the_docstrings_say(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text == written(text), "write it anew: python tests/docs/test_api_pages.py"


@pytest.mark.parametrize("one", CLASSES.values(), ids=CLASSES)
def test_every_public_method_is_described_and_used_in_an_example(one: type) -> None:
    text = ENTERPRISE.read_text(encoding="utf-8")
    listed = [n for part in PART.finditer(text) if part["what"] == one.__name__ for n in part["names"].split()]
    assert sorted(listed) == sorted(public(one))
    code = "\n".join(EXAMPLES.findall(text))
    assert [name for name in listed if not re.search(rf"\.{name}\b", code)] == [], "no example on the page uses it"


NOTHING_TO_REFUSE = {"get_tenant", "count_open_runs", "handle", "paused_workflows"}
"""What takes arguments and refuses none of them."""


def missing(one: type, name: str) -> Iterator[str]:
    """Say what a method's docstring leaves out: parameters, what is returned, what is raised."""
    value = inspect.getattr_static(one, name)
    if isinstance(value, property):
        return
    said = dict(divided(inspect.getdoc(getattr(one, name)) or ""))
    signature = inspect.signature(getattr(value, "__func__", value))
    wanted = [each for each in signature.parameters if each not in ("self", "cls")]
    told = [each.strip() for key, text in entries(said.get("Args", "")) if text for each in key.split(",")]
    yield from (f"no parameter {each}" for each in sorted(set(told) - set(wanted)))
    yield from (f"{each} is not described" for each in wanted if each not in told)
    if str(signature.return_annotation) != "None" and not said.get("Returns"):
        yield "it returns something, and does not say what"
    if wanted and not said.get("Raises") and name not in NOTHING_TO_REFUSE:
        yield "it takes something, and does not say what it refuses"


@pytest.mark.parametrize(("one", "name"), [(one, name) for one in CLASSES.values() for name in public(one)])
def test_every_method_says_what_it_takes_and_returns_and_raises(one: type, name: str) -> None:
    assert list(missing(one, name)) == []


def test_a_method_that_leaves_something_out_is_told_so() -> None:
    class Face:
        def ask(self, tenant_id: str, timeout: float) -> int:
            """Ask.

            Args:
                tenant_id: whose.
                tenant: whose.
            """
            return 0

    assert list(missing(Face, "ask")) == [
        "no parameter tenant",
        "timeout is not described",
        "it returns something, and does not say what",
        "it takes something, and does not say what it refuses",
    ]


@pytest.mark.parametrize("name", public(DependencyResolver))
def test_every_public_method_of_the_resolver_has_its_heading_with_its_parameters(name: str) -> None:
    page = RESOLVER.read_text(encoding="utf-8")
    headings = "\n".join(re.findall(r"^### .*", page, re.MULTILINE))
    shown = re.search(rf"`(?:DependencyResolver\.)?{name}(?:\((?P<parameters>[^)]*)\))?[^`]*`", headings)
    assert shown, f"{RESOLVER.name} has no heading for {name}"
    value = inspect.getattr_static(DependencyResolver, name)
    if not isinstance(value, property):
        signature = inspect.signature(getattr(value, "__func__", value))
        wanted = [each for each in signature.parameters if each not in ("self", "cls")]
        said = [each.partition("=")[0].strip() for each in (shown["parameters"] or "").split(",") if each.strip()]
        assert [each for each in said if each != "*"] == wanted
    assert re.search(rf"\.{name}\b", "\n".join(EXAMPLES.findall(page))), f"no example uses {name}"


def test_every_public_name_has_its_heading() -> None:
    headings = re.findall(r"^### `(\w+)`$", NAMES.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(headings) == sorted(synergymesh.__all__)


def test_a_method_that_the_page_lacks_is_put_where_its_class_ends() -> None:
    text = "<!-- api RunHandle: result status -->\n<!-- /api -->\n<!-- api RunHandle: cancel gone -->\n<!-- /api -->\n"
    first, last = (part["names"].split() for part in PART.finditer(written(text)))
    assert (first, last[0], "events" in last, "gone" in last) == (["result", "status"], "cancel", True, False)


if __name__ == "__main__":
    for each in (ENTERPRISE, NAMES):
        each.write_text(written(each.read_text(encoding="utf-8")), encoding="utf-8")
