from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest

from synergymesh.domain.workflow.definition import WorkflowDefinition
from synergymesh.errors import (
    CircularDependency,
    DuplicateComponent,
    InvalidRequest,
    InvalidWorkflow,
    WorkflowFileError,
)
from synergymesh.workflows.loader import find_workflow
from synergymesh.workflows.wfformat import read_wfformat

TRACES = Path(__file__).parents[3] / "shared" / "data" / "wfformat"
FILES = sorted(TRACES.glob("*.json"))

SMALL: dict[str, Any] = {
    "name": "small",
    "schemaVersion": "1.5",
    "workflow": {
        "specification": {
            "tasks": [
                {"id": "a", "name": "A", "parents": [], "children": ["b"]},
                {"id": "b", "name": "B", "parents": ["a"], "children": []},
                {"id": "c", "name": "C", "parents": ["b"]},
            ]
        },
        "execution": {"tasks": [{"id": "a", "runtimeInSeconds": 3}, {"id": "b", "runtimeInSeconds": 0.5}]},
    },
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """Give the small trace with one thing changed, or left out (...)."""
    trace = copy.deepcopy(SMALL)
    *places, last = [int(each) if each.isdigit() else each for each in path.split(".")]
    target: Any = trace
    for place in places:
        target = target[place]
    if value is ...:
        del target[last]
    else:
        target[last] = value
    return trace


def dependencies(definition: WorkflowDefinition) -> dict[str, set[str]]:
    return {each.component_id: {edge.component_id for edge in each.dependencies} for each in definition.components}


def test_a_trace_becomes_a_workflow_of_its_tasks() -> None:
    workflow = read_wfformat(SMALL, speed=2)
    components = workflow.definition.components
    assert workflow.name == "small"
    assert [(each.component_id, each.args, each.weight) for each in components] == [
        ("a", (1.5,), 1.5),
        ("b", (0.25,), 0.25),
        ("c", (0.0,), 0.0),  # the trace has no execution of it
    ]
    assert dependencies(workflow.definition) == {"a": set(), "b": {"a"}, "c": {"b"}}
    assert workflow.definition.output is None


def test_parents_and_children_are_put_together() -> None:
    only_children = changed("workflow.specification.tasks.1.parents", [])
    only_parents = changed("workflow.specification.tasks.0.children", [])
    for trace in (only_children, only_parents):
        assert dependencies(read_wfformat(trace).definition) == {"a": set(), "b": {"a"}, "c": {"b"}}


def test_an_execution_may_be_missing_altogether() -> None:
    components = read_wfformat(changed("workflow.execution", ...)).definition.components
    assert [each.weight for each in components] == [0.0, 0.0, 0.0]


async def test_a_trace_replays_without_an_engine() -> None:
    assert await read_wfformat(SMALL, speed=1e6)() is None


def test_the_stored_definition_alone_is_enough_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    path.write_text(json.dumps(SMALL))
    workflow = read_wfformat(path, speed=10)
    stored, source = workflow.definition.to_json(), workflow.source
    path.unlink()
    assert source is not None
    tasks = find_workflow(source).tasks
    again = WorkflowDefinition.from_json(stored)
    assert again == workflow.definition
    assert all(tasks[each.task] is workflow.tasks[each.task] for each in again.components)


@pytest.mark.skipif(not FILES, reason="the traces of WfCommons are not beside the repository")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_real_trace_has_the_order_and_the_times_that_were_recorded(path: Path) -> None:
    document = json.loads(path.read_bytes())["workflow"]
    workflow = read_wfformat(path, speed=1000)
    recorded = {each["id"]: each["runtimeInSeconds"] for each in document["execution"]["tasks"]}
    weights = {each.component_id: each.weight for each in workflow.definition.components}
    assert weights == {name: pytest.approx(seconds / 1000) for name, seconds in recorded.items()}
    expected = {each["id"]: set(each["parents"]) for each in document["specification"]["tasks"]}
    assert dependencies(workflow.definition) == expected
    assert WorkflowDefinition.from_json(workflow.definition.to_json()) == workflow.definition


@pytest.mark.parametrize("speed", [0, -1, math.inf, math.nan, "2", None, True])
def test_a_speed_that_makes_no_sense_is_refused(speed: Any) -> None:
    with pytest.raises(InvalidRequest, match="speed") as caught:
        read_wfformat(SMALL, speed=speed)
    assert caught.value.field == "speed"


def test_a_speed_so_small_that_a_task_never_ends_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="too small"):
        read_wfformat(SMALL, speed=5e-324)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("schemaVersion", "1.4", r"schemaVersion \('1.4'\)"),
        ("schemaVersion", ..., "schemaVersion: Field required"),
        ("name", ..., "name"),
        ("workflow", ..., "workflow"),
        ("workflow.specification", ..., "workflow.specification"),
        ("workflow.specification.tasks", 5, "workflow.specification.tasks"),
        ("workflow.specification.tasks.1.id", ..., "workflow.specification.tasks.1.id"),
        ("workflow.specification.tasks.1.parents", ["zzz"], "task 'b' names the parent 'zzz'"),
        ("workflow.specification.tasks.1.children", ["zzz"], "task 'b' names the child 'zzz'"),
        ("workflow.execution.tasks.0.runtimeInSeconds", ..., "workflow.execution.tasks.0.runtimeInSeconds"),
        ("workflow.execution.tasks.0.runtimeInSeconds", -1, "greater than or equal to 0"),
        ("workflow.execution.tasks.0.runtimeInSeconds", math.nan, "finite"),
    ],
)
def test_what_is_no_trace_is_refused_with_the_place(path: str, value: Any, message: str) -> None:
    with pytest.raises(WorkflowFileError, match=message):
        read_wfformat(changed(path, value))


def test_definitions_that_cannot_run_are_refused() -> None:
    with pytest.raises(CircularDependency):
        read_wfformat(changed("workflow.specification.tasks.0.parents", ["c"]))
    with pytest.raises(DuplicateComponent):
        read_wfformat(changed("workflow.specification.tasks.1.id", "a"))
    with pytest.raises(InvalidWorkflow, match="no components"):
        read_wfformat(changed("workflow.specification.tasks", []))


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "not JSON"), (b"{", "not JSON"), (b"\xff", "not JSON"), (b"[]", "no WfFormat 1.5 trace"), (b"5", "no WfF")],
)
def test_a_file_that_is_no_trace_is_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "trace.json"
    path.write_bytes(content)
    with pytest.raises(WorkflowFileError, match=message) as caught:
        read_wfformat(path)
    assert "trace.json" in str(caught.value)
    with pytest.raises(WorkflowFileError, match="cannot be read"):
        read_wfformat(tmp_path / "other.json")
