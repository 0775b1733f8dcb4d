"""The tables of transitions: complete, closed, and without a way out of a final state."""

from __future__ import annotations

import pytest

from synergymesh.domain.states import ATTEMPT_STATUSES, FINAL, RUN_TRANSITIONS, TASK_TRANSITIONS, ExecutionStatus

S = ExecutionStatus
TABLES = pytest.mark.parametrize("table", [TASK_TRANSITIONS, RUN_TRANSITIONS], ids=["task", "run"])


@TABLES
def test_every_state_that_is_reached_is_in_the_table(table: dict[S, frozenset[S]]) -> None:
    reached = {S.PENDING}
    waiting = [S.PENDING]
    while waiting:
        for following in table[waiting.pop()] - reached:
            reached.add(following)
            waiting.append(following)
    assert reached == set(table)


@TABLES
def test_exactly_the_final_states_have_no_way_out(table: dict[S, frozenset[S]]) -> None:
    assert {state for state, following in table.items() if not following} == set(table) & FINAL
    assert all(state.is_final is (not following) for state, following in table.items())


@TABLES
def test_a_final_state_can_be_reached_from_every_state(table: dict[S, frozenset[S]]) -> None:
    for state, following in table.items():
        assert state.is_final or following & FINAL


def test_a_task_succeeds_only_while_it_runs_and_times_out_in_every_state_that_is_not_final() -> None:
    for state, following in TASK_TRANSITIONS.items():
        assert (S.SUCCESS in following) is (state is S.RUNNING)
        assert (S.TIMEOUT in following) is bool(following)


def test_only_what_never_started_is_skipped() -> None:
    assert [state for state, following in TASK_TRANSITIONS.items() if S.SKIPPED in following] == [S.PENDING]


def test_partial_is_a_state_of_runs_and_skipped_one_of_tasks() -> None:
    assert S.PARTIAL in RUN_TRANSITIONS
    assert S.PARTIAL not in TASK_TRANSITIONS
    assert S.SKIPPED in TASK_TRANSITIONS
    assert S.SKIPPED not in RUN_TRANSITIONS


def test_an_attempt_that_is_followed_by_another_one_never_succeeded() -> None:
    assert frozenset({S.FAILED, S.TIMEOUT, S.CANCELLED}) == ATTEMPT_STATUSES


def test_the_names_are_the_public_ones() -> None:
    names = ["pending", "running", "success", "failed", "partial", "skipped", "timeout", "cancelled", "retrying"]
    assert [status.value for status in S] == names
