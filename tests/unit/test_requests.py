"""What tasks ask for: memory and CPU."""

from __future__ import annotations

from typing import Any

import pytest

from synergymesh import Workflow, task, workflow
from synergymesh.domain.fault_tolerance.retry import DEFAULT_RETRY
from synergymesh.domain.quota import QUOTA_FIELD_MAX
from synergymesh.domain.scheduling.limits import Request
from synergymesh.domain.workflow.definition import Component, WorkflowDefinition
from synergymesh.domain.workflow.plan import Plan
from synergymesh.domain.workflow.task_settings import CPUS_MAX
from synergymesh.errors import InvalidWorkflow


@task(memory_mb=300, cpus=0.5)
def heavy() -> int:
    return 1


@task
def light(number: int) -> int:
    return number


@workflow
def both() -> int:
    return light.options(cpus=2)(heavy())


def test_what_tasks_ask_for_is_in_the_definition_and_survives_its_round_trip() -> None:
    definition = both.definition
    assert [(c.memory_mb, c.cpus) for c in definition.components] == [(300, 0.5), (None, 2)]
    again = WorkflowDefinition.from_json(definition.to_json())
    assert again == definition
    assert again.content_hash == definition.content_hash


def test_a_plan_fills_in_the_default_and_says_which_features_are_used() -> None:
    plan = Plan(both.definition, DEFAULT_RETRY, Request(10, 100))
    assert plan.requests == [Request(300, 500), Request(10, 2_000)]
    assert plan.largest_request == Request(300, 2_000)
    assert list(plan.features) == ["resource_management"]
    assert Plan(Workflow("w").add(light, args=(1,)).definition, DEFAULT_RETRY).features == {}


@pytest.mark.parametrize(
    ("settings", "field"),
    [({"memory_mb": value}, "memory_mb") for value in (-1, 1.5, "5", True, QUOTA_FIELD_MAX + 1)]
    + [({"cpus": value}, "cpus") for value in (-0.1, float("nan"), "5", True, CPUS_MAX + 1)],
)
def test_requests_that_make_no_sense_are_refused_with_the_field(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidWorkflow, match=field) as refused:
        Component("a", "t", **settings)
    assert refused.value.field == field
    with pytest.raises(InvalidWorkflow, match=field):
        task(**settings)(light.function)


def test_a_components_priority_comes_before_the_remaining_path() -> None:
    graph = Workflow("w").add(light, id="long", args=(1,), weight=1_000.0)
    graph.add(light, id="urgent", args=(1,), weight=0.1, priority=1)
    plan = Plan(graph.definition, DEFAULT_RETRY)
    assert plan.ranks[1] > plan.ranks[0]
