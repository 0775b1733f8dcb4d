"""Random workflows through the real engine end as the reference interpreter says."""

from __future__ import annotations

import asyncio
from random import SystemRandom
from typing import Any

from synergymesh import ExecutionStatus, Orchestrator, Run, Workflow, current_task, optional, ref, task
from synergymesh.domain.workflow.definition import Component
from synergymesh.domain.workflow.templates import NodeRef
from synergymesh.testing.reference import Script, ScriptedWorkflow, interpret, random_workflow

S = ExecutionStatus
RUNS = 120


class Scripted(Exception):
    """What a task fails with on purpose."""


def act(component_id: str, failures: int, ending: str, used: tuple[Any, ...]) -> dict[str, Any]:
    context = current_task()
    assert context.task_id == component_id
    if context.attempt <= failures or ending == "failed":
        raise Scripted(f"{component_id}, attempt {context.attempt}")
    return {"id": component_id, "used": [None if each is None else each["id"] for each in used]}


@task
async def on_the_loop(component_id: str, failures: int, ending: str, *used: Any) -> dict[str, Any]:
    if ending == "timeout" and current_task().attempt > failures:
        await asyncio.sleep(3_600)
    return act(component_id, failures, ending, used)


@task
def in_a_thread(component_id: str, failures: int, ending: str, *used: Any) -> dict[str, Any]:
    return act(component_id, failures, ending, used)


def build(scripted: ScriptedWorkflow) -> Workflow:
    """Build the workflow from the pieces that a user has."""
    built = Workflow("random")
    for number, component in enumerate(scripted.definition.components):
        script = scripted.scripts[component.component_id]
        thread = number % 4 == 0 and script.ending is not S.TIMEOUT
        built.add(
            in_a_thread if thread else on_the_loop,
            id=component.component_id,
            depends_on=list(component.dependencies),
            args=[component.component_id, script.failures, script.ending.value, *nodes(component)],
            required=component.required,
            priority=component.priority,
            weight=component.weight,
            retry=component.retry,
            timeout=component.timeout,
        )
    return built.returns({c: ref(c) for c in scripted.definition.output})


def nodes(component: Component) -> list[Any]:
    required = {each.component_id: each.required for each in component.dependencies}
    used = [each.component_id for each in component.args if isinstance(each, NodeRef)]
    return [ref(c) if required[c] else optional(ref(c)) for c in used]


def check(seed: int, scripted: ScriptedWorkflow, run: Run) -> None:
    expected = interpret(scripted.definition, scripted.outcomes)
    shown = f"seed {seed}"
    tasks = {each.task_id: each for each in run.tasks}
    assert {c: each.status for c, each in tasks.items()} == expected.tasks, shown
    assert run.status is expected.status, shown
    for component in scripted.definition.components:
        each = tasks[component.component_id]
        script: Script = scripted.scripts[component.component_id]
        if each.status is S.SKIPPED:
            assert (each.attempt, each.started_at, each.failures) == (0, None, ()), shown
            continue
        assert each.attempt == script.attempts, shown
        assert [a.number for a in each.failures] == list(range(1, script.attempts)), shown
        assert each.started_at is not None
        for dependency in component.dependencies:
            before = tasks[dependency.component_id].ended_at
            assert before is not None
            assert before <= each.started_at, shown
        if each.status is S.SUCCESS:
            used = [n.component_id for n in component.args if isinstance(n, NodeRef)]
            shown_used = [c if tasks[c].status is S.SUCCESS else None for c in used]
            assert each.result == {"id": component.component_id, "used": shown_used}, shown
    if run.status in (S.SUCCESS, S.PARTIAL):
        wanted = scripted.definition.output
        assert run.result == {c: tasks[c].result for c in wanted}, shown
        assert all(tasks[c].result is not None or tasks[c].status is not S.SUCCESS for c in wanted)
        assert run.result is not None
    else:
        failed = {c for c, status in expected.tasks.items() if status in (S.FAILED, S.TIMEOUT)}
        assert set(run.errors) == failed, shown


async def test_random_workflows_end_as_the_reference_says(mesh: Orchestrator, tenant: str) -> None:
    first = SystemRandom().randrange(2**32)
    workflows = {seed: random_workflow(seed, components_max=25, timeout=0.03) for seed in range(first, first + RUNS)}
    handles = {seed: await mesh.submit(build(each), tenant=tenant) for seed, each in workflows.items()}
    ends = set()
    for seed, handle in handles.items():
        async for event in handle.events():
            last = event
        assert last.task_id is None
        run = await mesh.get_run(handle.id)
        check(seed, workflows[seed], run)
        ends.add(run.status)
    assert ends == {S.SUCCESS, S.PARTIAL, S.FAILED}, "the workflows are too tame to show anything"
    assert await mesh.count_open_runs() == 0
