"""Which breaker policy counts where, and what a circuit is called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from synergymesh.domain.fault_tolerance.breaker import BreakerPolicy
from synergymesh.domain.fault_tolerance.retry_rules import RULES_MAX, check_place
from synergymesh.domain.workflow.definition import check_identifier
from synergymesh.errors import InvalidRequest

CircuitKey = tuple[str, str]
"""What a circuit is about: ("", name) of what tasks name with `breaker=`, or (workflow, component)."""

NAMED_DEFAULT = BreakerPolicy()
"""For what tasks name with `breaker=`: whoever names it wants a breaker."""


def shown(key: CircuitKey) -> str:
    """Give the name of a circuit for people."""
    return "/".join(filter(None, key))


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerRule:
    """Say which breaker policy counts for a dependency, a component, a workflow or a whole tenant.

    Attributes:
        policy: what counts there.
        breaker: the name that tasks give with `breaker=`, or None.
        workflow: its name, or None.
        component: its id in that workflow, or None for the whole workflow.
    """

    policy: BreakerPolicy
    breaker: str | None = None
    workflow: str | None = None
    component: str | None = None

    @property
    def place(self) -> tuple[str | None, str | None, str | None]:
        """Say what it is for."""
        return self.breaker, self.workflow, self.component


BreakerPlace = tuple[str | None, str | None, str | None]


def check_breaker_place(breaker: object, workflow: object, component: object) -> BreakerPlace:
    """Give what a rule is for.

    Raises:
        InvalidRequest: a name cannot be one, a component is named without its workflow, or a breaker beside them.
    """
    if breaker is None:
        return None, *check_place(workflow, component)
    if workflow is not None or component is not None:
        raise InvalidRequest("name a breaker, or a workflow and component, not both.", field="breaker")
    return check_identifier(breaker, "breaker"), None, None


def change_breaker_rules(
    rules: Sequence[BreakerRule], place: BreakerPlace, policy: BreakerPolicy | None
) -> tuple[BreakerRule, ...]:
    """Give the rules with another policy at a place; None for no rule there.

    Raises:
        InvalidRequest: there are too many.
    """
    kept = [rule for rule in rules if rule.place != place]
    if policy is not None:
        kept.append(BreakerRule(policy=policy, breaker=place[0], workflow=place[1], component=place[2]))
    if len(kept) > RULES_MAX:
        raise InvalidRequest(f"a tenant has at most {RULES_MAX:,} breaker policies.", field="policy")
    return tuple(kept)


def policy_for(
    key: CircuitKey, chain: Sequence[Sequence[BreakerRule]], default: BreakerPolicy | None
) -> BreakerPolicy | None:
    """Give the policy of a circuit; None if it has no breaker. The most specific rule counts.

    Args:
        key: the circuit.
        chain: the rules of a sub-tenant, then those of the tenant above it.
        default: of components for which there is no rule.
    """
    workflow, name = key
    places: list[BreakerPlace] = [(None, workflow, name), (None, workflow, None)] if workflow else [(name, None, None)]
    for wanted in (*places, (None, None, None)):
        for rules in chain:
            for rule in rules:
                if rule.place == wanted:
                    return rule.policy
    return default if workflow else NAMED_DEFAULT
