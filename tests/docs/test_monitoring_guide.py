"""The guide has every metric. Rewrite its table with `python tests/docs/test_monitoring_guide.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from synergymesh.domain.observability.tallies import Durations
from synergymesh.engine.observability.monitoring import MeshFigures
from synergymesh.telemetry import metrics

GUIDE = Path(__file__).parents[2] / "docs/guides/monitoring.md"
BEGIN, END = "<!-- metrics -->\n", "<!-- /metrics -->"


def nothing_counted() -> MeshFigures:
    """Give the figures of a mesh in which nothing has happened."""
    empty: dict[str, Any] = {}
    for name, kind in MeshFigures.__annotations__.items():
        nothing = {"Durations": Durations(), "Sequence": (), "Mapping": {}}
        empty[name] = next((value for word, value in nothing.items() if word in str(kind)), 0)
    return MeshFigures(**empty)


def table() -> str:
    """Give every metric with its name as it is exposed, its type and its labels."""
    rows = []
    for family in metrics._Families(nothing_counted(), None).collect():
        ending = {"counter": "_total", "info": "_info"}.get(family.type, "")
        labels = ", ".join(f"`{label}`" for label in getattr(family, "_labelnames", ()))
        rows.append(f"| `{family.name}{ending}` | {family.type} | {labels} | {family.documentation} |\n")
    return "| metric | type | labels | |\n|---|---|---|---|\n" + "".join(rows)


def with_metrics(text: str) -> str:
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}{table()}{END}{after}"


def test_the_guide_has_every_metric() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    assert text == with_metrics(text), "write it anew: python tests/docs/test_monitoring_guide.py"


def test_the_guide_has_every_kind_of_alert() -> None:
    from synergymesh.domain.observability.alerts import Condition

    named: list[str] = (
        (Condition.__doc__ or "")
        .partition("kind: a stable name: ")[2]
        .partition(".\n")[0]
        .replace("\n", " ")
        .split(",")
    )
    named = [kind.strip() for kind in named]
    text = GUIDE.read_text(encoding="utf-8")
    assert len(named) >= 4
    assert [kind for kind in named if f"`{kind}`" not in text] == []


if __name__ == "__main__":
    GUIDE.write_text(with_metrics(GUIDE.read_text(encoding="utf-8")), encoding="utf-8")
