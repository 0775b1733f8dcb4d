"""Whose retry policy counts: the most specific one, as a simple model of it says too."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synergymesh.domain.fault_tolerance.error_info import ErrorInfo
from synergymesh.domain.fault_tolerance.retry import RetryPolicy
from synergymesh.domain.fault_tolerance.retry_rules import RULES_MAX, RetryRule, RetryRules, change_rules, check_place
from synergymesh.domain.fault_tolerance.tries import Cause, Tries, cause_of
from synergymesh.domain.states import ExecutionStatus
from synergymesh.domain.tenants import TenantPolicy
from synergymesh.errors import InvalidRequest

S = ExecutionStatus
DEFAULT = RetryPolicy(max_retries=999)

places = st.sampled_from([(None, None), ("w", None), ("w", "a"), ("w", "b"), ("v", None), ("v", "a")])
rule_lists = st.dictionaries(places, st.integers(0, 50)).map(
    lambda chosen: [
        RetryRule(policy=RetryPolicy(max_retries=n), workflow=workflow, component=component)
        for (workflow, component), n in chosen.items()
    ]
)


def expected(
    chain: list[list[RetryRule]], workflow: str, component: str, declared: RetryPolicy | None
) -> RetryPolicy | None:
    """Look through everything in the order that the guide gives."""
    for rules in chain:
        for place in ((workflow, component), (workflow, None)):
            for rule in rules:
                if rule.place == place:
                    return rule.policy
    if declared is not None:
        return declared
    for rules in chain:
        for rule in rules:
            if rule.place == (None, None):
                return rule.policy
    return DEFAULT


@given(
    st.lists(rule_lists, max_size=2),
    st.sampled_from("wvu"),
    st.sampled_from("abc"),
    st.none() | st.just(RetryPolicy(max_retries=777)),
)
def test_the_most_specific_policy_counts(
    chain: list[list[RetryRule]], workflow: str, component: str, declared: RetryPolicy | None
) -> None:
    found = RetryRules(chain).find(workflow, component, declared, DEFAULT)
    assert found == expected(chain, workflow, component, declared)


def test_a_policy_of_the_whole_tenant_never_overrules_a_task_that_must_not_be_retried() -> None:
    rules = RetryRules([[RetryRule(policy=RetryPolicy(max_retries=9))]])
    never = RetryPolicy(max_retries=0)
    assert rules.find("w", "a", never, DEFAULT) is never
    assert rules.find("w", "a", None, DEFAULT).max_retries == 9


@given(rule_lists, places, st.none() | st.integers(0, 50))
def test_changing_a_rule_changes_that_place_alone(rules: list[RetryRule], place: Any, retries: int | None) -> None:
    policy = None if retries is None else RetryPolicy(max_retries=retries)
    changed = change_rules(rules, place, policy)
    assert [rule for rule in changed if rule.place != place] == [rule for rule in rules if rule.place != place]
    assert [rule.policy for rule in changed if rule.place == place] == ([] if policy is None else [policy])


def test_a_tenant_has_a_thousand_rules_and_not_one_more() -> None:
    rules = tuple(RetryRule(policy=DEFAULT, workflow=f"w{n}") for n in range(RULES_MAX - 1))
    full = change_rules(rules, ("w", "a"), DEFAULT)
    assert len(change_rules(full, ("w", "a"), RetryPolicy())) == RULES_MAX
    with pytest.raises(InvalidRequest, match="1,000"):
        change_rules(full, ("w", "b"), DEFAULT)


@pytest.mark.parametrize(("workflow", "component"), [(None, "a"), ("", None), ("w", ""), (7, None), ("w", 7)])
def test_a_place_that_cannot_be_one_is_refused(workflow: Any, component: Any) -> None:
    with pytest.raises(InvalidRequest):
        check_place(workflow, component)


def test_rules_are_stored_in_the_policy_of_a_tenant() -> None:
    policy = TenantPolicy(retries=(RetryRule(policy=RetryPolicy(retry_on=(OSError,)), workflow="w", component="a"),))
    assert msgspec.json.decode(msgspec.json.encode(policy), type=TenantPolicy) == policy


# --- earlier attempts -----------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from(Cause), st.integers(0, 100))))
def test_attempts_are_counted_by_cause(attempts: list[tuple[Cause, int]]) -> None:
    tries = Tries()
    for cause, started_at in attempts:
        tries.add(cause, started_at)
    causes = [cause for cause, _ in attempts]
    assert (tries.failures, tries.postponements, tries.shutdowns, tries.losses) == tuple(map(causes.count, Cause))
    assert tries.total == len(attempts)
    assert tries.began == min((at for _, at in attempts), default=None)


@pytest.mark.parametrize(
    ("status", "retry_after", "has_error", "cause"),
    [
        (S.FAILED, None, True, Cause.FAILURE),
        (S.TIMEOUT, None, True, Cause.FAILURE),
        (S.FAILED, 0.0, True, Cause.POSTPONED),
        (S.CANCELLED, None, False, Cause.SHUTDOWN),
        (S.CANCELLED, None, True, Cause.LOST),
    ],
)
def test_what_is_stored_of_an_attempt_says_its_cause(
    status: ExecutionStatus, retry_after: float | None, has_error: bool, cause: Cause
) -> None:
    error = ErrorInfo("x", "y", retry_after=retry_after) if has_error else None
    assert cause_of(status, error) is cause
