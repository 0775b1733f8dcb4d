"""Rules and dashboards name only series, labels and values of labels that SynergyMesh exposes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from synergymesh.domain.fault_tolerance.breaker import BreakerState
from synergymesh.domain.observability.tallies import Durations
from synergymesh.domain.scheduling.explain import Reason
from synergymesh.domain.states import FINAL
from synergymesh.engine.limit_hits import REASONS
from synergymesh.engine.observability.monitoring import MeshFigures
from synergymesh.telemetry import metrics

DEPLOY = Path(__file__).parents[2] / "deploy"

SAMPLES = {
    "counter": {"_total": ()},
    "gauge": {"": ()},
    "info": {"_info": ("version",)},
    "histogram": {"_bucket": ("le",), "_sum": (), "_count": ()},
}
VALUES = {
    "status": {status.value for status in FINAL},
    "state": {state.value for state in BreakerState},
    "reason": {reason.value for reason in Reason} | set(REASONS.values()),
}
GIVEN = {"datasource", "__rate_interval", "__range", "tenant"}
"""Variables of Grafana, and those that the dashboard defines."""


NOTHING = MeshFigures(
    tenants=(),
    tenants_total=0,
    slots=1,
    running=0,
    commits=0,
    commit_units=0,
    commit_durations=Durations(),
    starts=0,
    dispatch_seconds=0,
    units_waiting=0,
    is_writable=True,
    is_signed=True,
    faults={},
)


def exposed() -> dict[str, set[str]]:
    """Give every series that is exposed, by name, with its labels."""
    return {
        family.name + ending: {*getattr(family, "_labelnames", ()), *labels}
        for family in metrics._Families(NOTHING, None).collect()
        for ending, labels in SAMPLES[family.type].items()
    }


SERIES = exposed()


def wrong_in(expression: str) -> Iterator[str]:
    """Say what an expression names that is not there."""
    text = " ".join(expression.split())
    named = re.findall(r"\b(synergymesh_\w+)(?:\{([^}]*)\})?", text)
    if not named:
        yield f"no metric in {text}"
    known = {"le"} if "histogram_quantile" in text else set()
    for name, selector in named:
        if name not in SERIES:
            yield f"there is no {name}"
            continue
        known |= SERIES[name]
        for label, _, value in re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', selector):
            if label not in SERIES[name]:
                yield f"{name} has no label {label}"
            elif not value.startswith("$"):
                wanted = set(value.split("|"))
                yield from (f"{label} is never {each}" for each in wanted - VALUES.get(label, wanted))
    for group in re.findall(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)", text):
        yield from (f"nothing in {text} has {label}" for label in re.findall(r"\w+", group) if label not in known)
    yield from (f"there is no variable {name}" for name in re.findall(r"\$(\w+)", text) if name not in GIVEN)


def labels_left(expression: str) -> set[str]:
    """Give the labels that what an expression gives has, at most."""
    grouped = re.findall(r"\bby\s*\(([^)]*)\)", expression)
    if grouped:
        return set(re.findall(r"\w+", grouped[0])) - {"le"}
    return set().union(*(SERIES[name] for name in re.findall(r"\bsynergymesh_\w+", expression)))


def rules() -> list[tuple[str, str, str]]:
    """Give every rule: its name, its expression, and what it says to people."""
    text = (DEPLOY / "prometheus/alerts.yml").read_text(encoding="utf-8")
    found = re.findall(r"- alert: (\w+)\n\s+expr:(.*?)\n\s+(?:for|labels):(.*?)(?=\n\s+- alert:|\Z)", text, re.DOTALL)
    assert len(found) == text.count("- alert:") == text.count("expr:")
    return [(name, expression.lstrip(" >\n"), said) for name, expression, said in found]


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DEPLOY / "grafana/synergymesh.json").read_text())
    return found


def targets() -> Iterable[tuple[str, str, str]]:
    """Give every query of the dashboard: its panel, its expression, its legend."""
    for panel in dashboard()["panels"]:
        for target in panel["targets"]:
            yield str(panel["title"]), target["expr"], target.get("legendFormat", "")


@pytest.mark.parametrize(("name", "expression", "said"), rules(), ids=lambda value: value if value.isalnum() else "")
def test_a_rule_names_only_what_is_exposed(name: str, expression: str, said: str) -> None:
    assert list(wrong_in(expression)) == []
    assert set(re.findall(r"\$labels\.(\w+)", said)) <= labels_left(expression)
    assert "summary:" in said
    assert "remedy:" in said


@pytest.mark.parametrize(("panel", "expression", "legend"), list(targets()))
def test_a_panel_names_only_what_is_exposed(panel: str, expression: str, legend: str) -> None:
    assert list(wrong_in(expression)) == []
    assert set(re.findall(r"\{\{\s*(\w+)\s*\}\}", legend)) <= labels_left(expression)


def test_the_variables_of_the_dashboard_come_from_labels_that_are_exposed() -> None:
    queries = [str(variable["query"]) for variable in dashboard()["templating"]["list"] if variable["type"] == "query"]
    assert queries
    for query in queries:
        asked = re.fullmatch(r"label_values\((\w+), (\w+)\)", query)
        assert asked is not None
        name, label = asked.groups()
        assert label in SERIES[name]


def test_panels_have_numbers_and_places_of_their_own() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(places)) == len(places)


@pytest.mark.parametrize(
    "expression",
    [
        "synergymesh_tasks_running_total",
        "synergymesh_tasks",
        "synergymesh_info_total",
        "rate(synergymesh_task_duration_seconds[5m])",
        'synergymesh_tasks_total{state="success"}',
        'synergymesh_tasks_total{status="sucess"}',
        'synergymesh_limit_hits_total{reason=~"rate_limit|queue"}',
        "sum by (queue) (synergymesh_tasks_total)",
        'synergymesh_tasks_total{tenant=~"$who"}',
        "up == 0",
    ],
)
def test_what_is_not_exposed_would_be_found(expression: str) -> None:
    assert list(wrong_in(expression))
