"""WfFormat: recorded executions of real workflows, replayed.

The format is that of WfCommons, version 1.5 (https://wfcommons.org/format; Coleman et al., "WfCommons: A Framework for
Enabling Scientific Workflow Research and Development", 2022). Each task waits as long as it was recorded to run.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from synergymesh.domain.workflow.definition import Dependency
from synergymesh.errors import DuplicateComponent, InvalidRequest, WorkflowFileError
from synergymesh.workflows.tasks import task
from synergymesh.workflows.workflow import Workflow

SOURCE = f"{__name__}:replayed"
"""The source of every trace: after a restart the stored definition and the task below are all that is needed."""


@task
async def replay(seconds: float) -> None:
    """Wait as long as a task was recorded to run."""
    await asyncio.sleep(seconds)


replayed = Workflow("replayed").add(replay, args=(0.0,))
"""Has the tasks of every trace."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _SpecifiedTask(_Model):
    id: str
    name: str = ""
    parents: tuple[str, ...] = ()
    children: tuple[str, ...] = ()


class _ExecutedTask(_Model):
    id: str
    seconds: Annotated[float, Field(alias="runtimeInSeconds", ge=0, allow_inf_nan=False)]


class _Specification(_Model):
    tasks: tuple[_SpecifiedTask, ...]


class _Execution(_Model):
    tasks: tuple[_ExecutedTask, ...] = ()


class _Workflow(_Model):
    specification: _Specification
    execution: _Execution = _Execution()


class _Trace(_Model):
    name: str
    version: Annotated[Literal["1.5"], Field(alias="schemaVersion")]
    workflow: _Workflow


def read_wfformat(trace: str | Path | Mapping[str, Any], *, speed: float = 1.0) -> Workflow:
    """Read a WfFormat 1.5 trace as a workflow that replays it.

    Its components have the ids of the trace's tasks; the order is what parents or children say. A task that the trace
    has no execution of takes no time.

    Args:
        trace: path of a JSON file, or its content.
        speed: recorded runtimes are divided by it.

    Raises:
        WorkflowFileError: the file cannot be read or is no trace of that version.
        InvalidRequest: the speed is not a finite number above 0.
        InvalidWorkflow: two tasks have the same id, or they wait for each other.
    """
    if not isinstance(speed, (int, float)) or isinstance(speed, bool) or not 0 < speed < math.inf:
        raise InvalidRequest(f"speed must be a finite number above 0, not {speed!r}.", field="speed")
    shown, document = _read(trace)
    specified = document.workflow.specification.tasks
    order: dict[str, dict[str, None]] = {}
    for each in specified:
        if each.id in order:
            raise DuplicateComponent(each.id)
        order[each.id] = {}
    for each in specified:
        for parent in each.parents:
            _require(order, parent, each.id, "parent", shown)
            order[each.id][parent] = None
        for child in each.children:
            _require(order, child, each.id, "child", shown)
            order[child][each.id] = None
    seconds = {each.id: each.seconds for each in document.workflow.execution.tasks}
    built = Workflow(document.name, source=SOURCE)
    for each in specified:
        scaled = seconds.get(each.id, 0.0) / speed
        if not math.isfinite(scaled):
            raise InvalidRequest(f"speed {speed!r} is too small: {each.id!r} would take for ever.", field="speed")
        built.add(
            replay,
            id=each.id,
            args=(scaled,),
            depends_on=[Dependency(parent) for parent in order[each.id]],
            weight=scaled,
        )
    built.returns(None)
    _ = built.definition
    return built


def _read(trace: str | Path | Mapping[str, Any]) -> tuple[str, _Trace]:
    try:
        if isinstance(trace, Mapping):
            return "the trace", _Trace.model_validate(trace)
        shown = str(trace)
        return shown, _Trace.model_validate_json(Path(trace).read_bytes())
    except OSError as error:
        raise WorkflowFileError(f"{shown} cannot be read: {error.strerror}.") from error
    except pydantic.ValidationError as error:
        shown = "the trace" if isinstance(trace, Mapping) else str(trace)
        problem = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(map(str, problem["loc"]))
        if problem["type"] == "json_invalid":
            raise WorkflowFileError(f"{shown} is not JSON: {problem['msg'].removeprefix('Invalid JSON: ')}.") from None
        found = "" if problem["type"] == "missing" else f" ({problem['input']!r:.60})"
        more = f" And {error.error_count() - 1} more." if error.error_count() > 1 else ""
        raise WorkflowFileError(
            f"{shown} is no WfFormat 1.5 trace: {place}{found}: {problem['msg']}.{more}", field=place
        ) from None


def _require(known: Mapping[str, object], component_id: str, of: str, noun: str, shown: str) -> None:
    if component_id not in known:
        raise WorkflowFileError(
            f"{shown}: task {of!r} names the {noun} {component_id!r}, which the trace does not have."
        )
