"""The retry policies that are set for a tenant: for everything it runs, for a workflow, or for one component."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from synergymesh.domain.fault_tolerance.retry import RetryPolicy
from synergymesh.domain.workflow.definition import check_identifier
from synergymesh.errors import InvalidRequest

RULES_MAX = 1_000
"""Rules of a tenant: they are one JSON value in its row, which is written again with every change."""

Place = tuple[str | None, str | None]
"""What a rule is for: (workflow, component); (None, None) for everything, (workflow, None) for a whole workflow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryRule:
    """Say which policy counts at a place.

    Attributes:
        policy: what counts there.
        workflow: its name, or None for everything of the tenant.
        component: its id in that workflow, or None for the whole workflow.
    """

    policy: RetryPolicy
    workflow: str | None = None
    component: str | None = None

    @property
    def place(self) -> Place:
        """Say what it is for."""
        return self.workflow, self.component


def check_place(workflow: object, component: object) -> Place:
    """Give what a rule is for.

    Raises:
        InvalidRequest: a name cannot be one, or a component is named without its workflow.
    """
    if workflow is None:
        if component is not None:
            raise InvalidRequest(
                f"the component {component!r:.100} is one of a workflow. Name the workflow too.", field="workflow"
            )
        return None, None
    return check_identifier(workflow, "workflow"), None if component is None else check_identifier(
        component, "component"
    )


def change_rules(rules: Sequence[RetryRule], place: Place, policy: RetryPolicy | None) -> tuple[RetryRule, ...]:
    """Give the rules with another policy at a place; None for no rule there.

    Raises:
        InvalidRequest: there are too many.
    """
    kept = [rule for rule in rules if rule.place != place]
    if policy is not None:
        kept.append(RetryRule(policy=policy, workflow=place[0], component=place[1]))
    if len(kept) > RULES_MAX:
        raise InvalidRequest(
            f"a tenant has at most {RULES_MAX:,} retry policies. Set one for a whole workflow instead.", field="policy"
        )
    return tuple(kept)


class RetryRules:
    """Find the policy of a task by its tenant's rules: O(1), the most specific one first.

    What is said of a component or workflow of this tenant comes before what the task says itself; what is said of the
    tenant as a whole is only its default, so that it never retries a task whose author said that it must not be.

    Args:
        chain: the rules of a sub-tenant, then those of the tenant above it.
    """

    __slots__ = ("_chain",)

    def __init__(self, chain: Sequence[Sequence[RetryRule]]) -> None:
        self._chain = [{rule.place: rule.policy for rule in rules} for rules in chain if rules]

    def find(self, workflow: str, component: str, declared: RetryPolicy | None, default: RetryPolicy) -> RetryPolicy:
        """Give the policy of a component.

        Args:
            workflow: its name.
            component: its id.
            declared: what the task says itself, if it does.
            default: the orchestrator's.
        """
        for rules in self._chain:
            found = rules.get((workflow, component)) or rules.get((workflow, None))
            if found is not None:
                return found
        if declared is not None:
            return declared
        for rules in self._chain:
            found = rules.get((None, None))
            if found is not None:
                return found
        return default
