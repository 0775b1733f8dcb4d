"""The tables of settings are those of the classes. Rewrite them with `python tests/docs/test_configuration.py`."""

from __future__ import annotations

import inspect
import re
import tomllib
import typing
from pathlib import Path

import pydantic
import pytest
from pydantic_core import PydanticUndefined

from synergymesh.domain.tenants import TIER_PLANS
from synergymesh.settings import Settings, TierSettings, read_settings

GUIDE = Path(__file__).parents[2] / "docs/guides/configuration.md"
PART = re.compile(r"<!-- settings (?P<what>\w+) -->\n(?P<text>.*?)<!-- /settings -->\n", re.DOTALL)


def meanings(one: type) -> dict[str, str]:
    """Give what the docstring says of each attribute."""
    text = (inspect.getdoc(one) or "").partition("Attributes:\n")[2]
    joined = re.sub(r"\n {8,}", " ", text)
    return dict(line.strip().split(": ", 1) for line in joined.splitlines() if ": " in line)


def number(value: float) -> str:
    return f"{int(value):,}" if value == int(value) else f"{value:,}"


def bounds(field: pydantic.fields.FieldInfo) -> str:
    """Give the values that a setting may have."""
    kinds = [field.annotation, *typing.get_args(field.annotation)]
    marks = list(field.metadata)
    for kind in kinds:
        if typing.get_origin(kind) is typing.Literal:
            return ", ".join(f"`{value}`" for value in typing.get_args(kind))
        for each in getattr(kind, "__metadata__", ()):
            marks += getattr(each, "metadata", [each])
    said = {name: getattr(mark, name) for mark in marks for name in ("ge", "gt", "lt", "le") if hasattr(mark, name)}
    if said:
        low = f"{number(said['ge'])}" if "ge" in said else f"above {number(said['gt'])}"
        return f"{low} to {number(said['le'])}" if "le" in said else f"from {low}"
    names = {"bool": "true, false", "str": "text", "SecretStr": "text", "list": "list of texts", "dict": "tables"}
    words = [
        names.get(
            typing.get_origin(kind).__name__
            if typing.get_origin(kind) in (list, dict)
            else getattr(kind, "__name__", "")
        )
        for kind in kinds
    ]
    return next((word for word in words if word), "list of texts")


def default(field: pydantic.fields.FieldInfo) -> str:
    """Give a default as TOML has it."""
    value = field.default
    assert value is not PydanticUndefined
    if value is None:
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, int | float):
        return str(value) if isinstance(value, float) else f"{value:,}"
    shown = str(value).replace("'", '"') if isinstance(value, list | dict) else f'"{value}"'
    return f"`{shown}`"


def table(one: type[pydantic.BaseModel]) -> str:
    """Give every setting of a class."""
    said = meanings(one)
    if one is TierSettings:
        rows = [f"| `{name}` | {bounds(field)} | {said[name]} |" for name, field in one.model_fields.items()]
        return "| setting | values | |\n|---|---|---|\n" + "\n".join(rows)
    rows = [
        f"| `{name}` | `SYNERGYMESH_{name.upper()}` | {default(field)} | {bounds(field)} | {said[name]} |"
        for name, field in one.model_fields.items()
    ]
    return "| setting | variable | default | values | |\n|---|---|---|---|---|\n" + "\n".join(rows)


def plans() -> str:
    """Give what the tiers have without any configuration."""
    heading = "| | " + " | ".join(TIER_PLANS) + " |\n|---|" + "---|" * len(TIER_PLANS) + "\n"
    rows = []
    for name in TierSettings.model_fields:
        values = [getattr(plan.quota, name, getattr(plan, name, None)) for plan in TIER_PLANS.values()]
        if name == "features":
            continue
        shown = ["" if value is None else f"{value:,}" for value in values]
        rows.append(f"| `{name}` | {' | '.join(shown)} |")
    known = sorted({feature for plan in TIER_PLANS.values() for feature in plan.features})
    known.sort(key=lambda feature: -sum(feature in plan.features for plan in TIER_PLANS.values()))
    rows += [
        f"| feature `{each}` | {' | '.join('yes' if each in plan.features else 'no' for plan in TIER_PLANS.values())} |"
        for each in known
    ]
    return heading + "\n".join(rows)


def written(text: str) -> str:
    """Give the guide with its tables as they have to be."""
    tables = {"Settings": lambda: table(Settings), "TierSettings": lambda: table(TierSettings), "plans": plans}
    return PART.sub(
        lambda found: f"<!-- settings {found['what']} -->\n{tables[found['what']]()}\n<!-- /settings -->\n", text
    )


def test_the_tables_of_the_guide_are_those_of_the_classes() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    assert len(PART.findall(text)) == 3
    assert text == written(text), "write it anew: python tests/docs/test_configuration.py"


@pytest.mark.parametrize("one", [Settings, TierSettings])
def test_every_setting_says_what_it_means(one: type[pydantic.BaseModel]) -> None:
    assert list(meanings(one)) == list(one.model_fields)


@pytest.mark.parametrize("guide", ["configuration.md", "limits.md"])
def test_the_example_of_a_file_is_read(guide: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = re.findall(r"^```toml\n(.*?)^```", (GUIDE.parent / guide).read_text("utf-8"), re.MULTILINE | re.DOTALL)
    (tmp_path / "synergymesh.toml").write_text(example, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    settings = read_settings()
    said = tomllib.loads(example)
    assert settings.model_fields_set == set(said)
    assert settings.max_concurrent_tasks == said["max_concurrent_tasks"]
    assert settings.tier_plans()["gold"].weight == 8


def test_every_variable_of_the_table_is_one_that_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    values = {
        "alert_sinks": '["log"]',
        "audit_sinks": "[]",
        "tiers": "{}",
        "synchronous": "normal",
        "breakers": "all",
        "cpus": "2",
    }
    for name in Settings.model_fields:
        monkeypatch.setenv(f"SYNERGYMESH_{name.upper()}", values.get(name, "1"))
    assert read_settings().model_fields_set == set(Settings.model_fields)


if __name__ == "__main__":
    GUIDE.write_text(written(GUIDE.read_text(encoding="utf-8")), encoding="utf-8")
