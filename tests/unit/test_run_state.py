"""`RunState` beside the reference interpreter, on random graphs, outcomes and interleavings."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synergymesh.domain.fault_tolerance.retry import DEFAULT_RETRY
from synergymesh.domain.states import TASK_TRANSITIONS, ExecutionStatus
from synergymesh.domain.workflow.definition import Component, Dependency, WorkflowDefinition
from synergymesh.domain.workflow.plan import Plan
from synergymesh.domain.workflow.run_state import RunState
from synergymesh.domain.workflow.templates import NodeRef, references
from synergymesh.testing.reference import Cancellation, ScriptedWorkflow, interpret, random_workflow

S = ExecutionStatus
SEEDS = st.integers(0, 2**32 - 1)


def plan_of(*components: Component, output: object = None) -> Plan:
    return Plan(WorkflowDefinition(name="w", parameters=(), components=components, output=output), DEFAULT_RETRY)


def component(
    component_id: str, *needs: str | Dependency, required: bool = True, uses: tuple[str, ...] = ()
) -> Component:
    return Component(
        component_id,
        "t",
        args=tuple(NodeRef(each) for each in uses),
        dependencies=tuple(Dependency(each) if isinstance(each, str) else each for each in needs),
        required=required,
    )


class Watched:
    """A run that is driven at random; every state that a task was in is noted."""

    def __init__(self, workflow: ScriptedWorkflow, dice: Random) -> None:
        self.plan = Plan(workflow.definition, DEFAULT_RETRY)
        self.state = RunState(self.plan)
        self.outcomes = workflow.outcomes
        self.scripts = workflow.scripts
        self.dice = dice
        self.waiting = list(self.plan.roots)
        self.running: list[int] = []
        self.failures = dict.fromkeys(range(self.plan.size), 0)
        self.ended: list[int] = []
        self.path: dict[int, list[ExecutionStatus]] = {p: [S.PENDING] for p in range(self.plan.size)}

    @property
    def is_over(self) -> bool:
        return not self.waiting and not self.running

    def step(self) -> None:
        """Start a task, or end an attempt: as failed and followed by another, as interrupted, or for good."""
        if self.waiting and (not self.running or self.dice.random() < 0.5):
            position = self.waiting.pop(self.dice.randrange(len(self.waiting)))
            self.state.move(position, S.RUNNING)
            self.running.append(position)
        else:
            position = self.running.pop(self.dice.randrange(len(self.running)))
            script = self.scripts[self.plan.component_ids[position]]
            if self.dice.random() < 0.1:
                self.state.move(position, S.PENDING)
                self.waiting.append(position)
            elif self.failures[position] < min(script.failures, script.retries):
                self.failures[position] += 1
                self.state.move(position, S.RETRYING)
                self.waiting.append(position)
            else:
                self.end(position, self.outcome_of(position))
        self.note()

    def outcome_of(self, position: int) -> ExecutionStatus:
        return self.outcomes[self.plan.component_ids[position]]

    def end(self, position: int, status: ExecutionStatus) -> None:
        before = {p for p, s in enumerate(self.state.statuses) if s.is_final}
        result = b'"%d"' % position if status is S.SUCCESS else None
        ready, skipped = self.state.settle(position, status, result)
        after = {p for p, s in enumerate(self.state.statuses) if s.is_final}
        assert after - before == {position, *skipped}
        assert len(set(ready)) == len(ready)
        assert not set(ready) & set(self.waiting)
        self.ended.append(position)
        self.waiting += ready

    def note(self) -> None:
        for position, status in enumerate(self.state.statuses):
            if status is not self.path[position][-1]:
                self.path[position].append(status)

    def finals(self) -> dict[str, ExecutionStatus]:
        return dict(zip(self.plan.component_ids, self.state.statuses, strict=True))

    def check_path(self) -> None:
        for path in self.path.values():
            for before, after in pairwise(path):
                assert after in TASK_TRANSITIONS[before], path

    def results_in_use(self) -> set[int]:
        """Say, from the definition alone, whose results a task that is not final, or the output, still needs."""
        positions = self.plan.positions
        statuses = self.state.statuses
        needed = {positions[c] for c in references(self.plan.definition.output)}
        for each in self.plan.definition.components:
            if not statuses[positions[each.component_id]].is_final:
                needed |= {positions[c] for c in references(each.args)}
        return {p for p in needed if statuses[p] is S.SUCCESS}


@settings(max_examples=150, deadline=None)
@given(SEEDS, SEEDS)
def test_any_interleaving_ends_as_the_reference_says(seed: int, luck: int) -> None:
    workflow = random_workflow(seed)
    dice = Random(luck)
    run = Watched(workflow, dice)
    while not run.is_over:
        run.step()
        assert set(run.state.results) == run.results_in_use(), f"seed {seed}, luck {luck}"
    expected = interpret(workflow.definition, workflow.outcomes)
    assert run.state.open_tasks == 0
    assert run.finals() == expected.tasks, f"seed {seed}, luck {luck}"
    assert run.state.outcome(cancelled=False) is expected.status, f"seed {seed}, luck {luck}"
    run.check_path()


@settings(max_examples=100, deadline=None)
@given(SEEDS, st.integers(0, 60), SEEDS)
def test_a_run_that_is_cancelled_anywhere_ends_as_the_reference_says(seed: int, steps: int, luck: int) -> None:
    workflow = random_workflow(seed)
    dice = Random(luck)
    run = Watched(workflow, dice)
    while not run.is_over and steps:
        run.step()
        steps -= 1
    ids = run.plan.component_ids
    ended = frozenset(ids[p] for p in run.ended)
    cancelled = run.state.cancel_waiting()
    assert all(run.state.statuses[p] is S.CANCELLED for p in cancelled)
    assert run.state.open_tasks == len(run.running)
    run.note()
    late: dict[str, ExecutionStatus] = {}
    for position in run.running:
        status = S.CANCELLED if dice.random() < 0.7 else run.outcome_of(position)
        late[ids[position]] = status
        ready, skipped = run.state.settle(position, status, b"1" if status is S.SUCCESS else None)
        assert (ready, skipped) == ([], [])
        run.note()
    expected = interpret(workflow.definition, workflow.outcomes, Cancellation(ended=ended, running=late))
    assert run.state.open_tasks == 0
    assert run.finals() == expected.tasks, f"seed {seed}, luck {luck}"
    assert run.state.outcome(cancelled=True) is expected.status, f"seed {seed}, luck {luck}"
    run.check_path()


@settings(max_examples=120, deadline=None)
@given(SEEDS, st.integers(0, 80), SEEDS)
def test_a_state_rebuilt_from_its_rows_in_any_order_continues_where_it_was(seed: int, steps: int, luck: int) -> None:
    workflow = random_workflow(seed)
    dice = Random(luck)
    run = Watched(workflow, dice)
    while not run.is_over and steps:
        run.step()
        steps -= 1
    rebuilt = RunState(run.plan)
    rows = list(run.ended)
    dice.shuffle(rows)
    for position in rows:
        status = run.state.statuses[position]
        rebuilt.move(position, S.RUNNING)
        rebuilt.settle(position, status, b'"%d"' % position if status is S.SUCCESS else None)
    assert set(rebuilt.startable()) == {*run.waiting, *run.running}, f"seed {seed}, luck {luck}"
    assert rebuilt.open_tasks == run.state.open_tasks
    assert rebuilt.results == run.state.results, f"seed {seed}, luck {luck}"
    finals = {p: s for p, s in enumerate(run.state.statuses) if s.is_final}
    assert {p: s for p, s in enumerate(rebuilt.statuses) if s.is_final} == finals


def test_the_first_startable_tasks_are_the_roots() -> None:
    for seed in range(50):
        plan = Plan(random_workflow(seed).definition, DEFAULT_RETRY)
        assert tuple(RunState(plan).startable()) == plan.roots


def test_a_failure_skips_what_requires_it_and_what_requires_that() -> None:
    plan = plan_of(component("a"), component("b", "a"), component("c", "b"), component("d"))
    state = RunState(plan)
    state.move(0, S.RUNNING)
    assert state.settle(0, S.FAILED) == ([], [1, 2])
    assert state.statuses == [S.FAILED, S.SKIPPED, S.SKIPPED, S.PENDING]
    state.move(3, S.RUNNING)
    state.settle(3, S.SUCCESS, b"1")
    assert state.outcome(cancelled=False) is S.FAILED


def test_a_task_is_skipped_as_soon_as_one_dependency_failed_though_another_still_runs() -> None:
    plan = plan_of(component("a"), component("b"), component("c", "a", "b"))
    state = RunState(plan)
    state.move(0, S.RUNNING)
    state.move(1, S.RUNNING)
    assert state.settle(0, S.FAILED) == ([], [2])
    assert state.settle(1, S.SUCCESS, b"1") == ([], [])
    assert state.open_tasks == 0


def test_an_optional_dependency_that_fails_releases_its_dependent_and_the_run_is_partial() -> None:
    plan = plan_of(component("a"), component("b", Dependency("a", required=False)))
    state = RunState(plan)
    state.move(0, S.RUNNING)
    assert state.settle(0, S.TIMEOUT) == ([1], [])
    state.move(1, S.RUNNING)
    state.settle(1, S.SUCCESS, b"1")
    assert state.outcome(cancelled=False) is S.PARTIAL


def test_an_optional_leaf_that_fails_leaves_the_run_partial_and_a_required_one_fails_it() -> None:
    for required, expected in ((False, S.PARTIAL), (True, S.FAILED)):
        state = RunState(plan_of(component("a", required=required)))
        state.move(0, S.RUNNING)
        state.settle(0, S.FAILED)
        assert state.outcome(cancelled=False) is expected


def test_a_run_whose_tasks_all_succeeded_before_the_cancellation_took_effect_is_a_success() -> None:
    state = RunState(plan_of(component("a")))
    state.move(0, S.RUNNING)
    assert state.cancel_waiting() == []
    state.settle(0, S.SUCCESS, b"1")
    assert state.outcome(cancelled=True) is S.SUCCESS


@pytest.mark.parametrize("final", sorted(s for s in TASK_TRANSITIONS if s.is_final))
def test_a_final_state_never_changes(final: ExecutionStatus) -> None:
    for following in ExecutionStatus:
        state = RunState(plan_of(component("a")))
        if final in (S.SUCCESS, S.TIMEOUT):
            state.move(0, S.RUNNING)
        state.settle(0, final)
        with pytest.raises(AssertionError):
            state.settle(0, following)
        with pytest.raises(AssertionError):
            state.move(0, following)


def test_a_result_is_kept_until_its_last_user_is_settled() -> None:
    plan = plan_of(component("a"), component("b", "a", uses=("a",)), component("c", "a", uses=("a",)))
    state = RunState(plan)
    state.move(0, S.RUNNING)
    state.settle(0, S.SUCCESS, b"7")
    for position, kept in ((1, {0: b"7"}), (2, {})):
        state.move(position, S.RUNNING)
        state.settle(position, S.SUCCESS, b"8")
        assert state.results == kept


def test_a_result_that_only_orders_is_never_kept_and_one_of_the_output_always() -> None:
    state = RunState(plan_of(component("a"), component("b", "a"), output=[NodeRef("b")]))
    for position, kept in ((0, {}), (1, {1: b"8"})):
        state.move(position, S.RUNNING)
        state.settle(position, S.SUCCESS, b"8")
        assert state.results == kept
