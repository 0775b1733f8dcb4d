"""When people do what in a world."""

from __future__ import annotations

from random import Random

from synergymesh.testing.simulation.options import Options

_COMMON = {"submit_again": 4, "submit_another": 1, "cancel": 3, "look": 4}
_OF_TENANTS = {
    "change_quota": 5,
    "change_weight": 3,
    "suspend": 2,
    "resume": 3,
    "create_tenant": 1,
    "create_tenant_again": 2,
    "create_child": 2,
    "delete_tenant": 2,
}
_OF_FEATURES = {
    "holds": {"pause_run": 3, "unpause_run": 3, "pause_workflow": 2, "unpause_workflow": 2},
    "reruns": {"retry_run": 5, "replay": 2, "redrive": 3, "redrive_many": 1, "discard": 2},
    "circuits": {"reset_breaker": 1, "look_at_breakers": 1},
    "retention": {"prune": 3, "keep_for": 2},
    "losses": {"crash an executor": 1},
}
"""What people do beside their features' own part in tasks and executors, and how often in relation to each other."""


def make_plan(options: Options, dice: Random) -> list[tuple[float, str]]:
    """Give moments and actions, in the order of time."""
    end = options.seconds
    if options.kind == "fair":
        return []
    actions = ["submit"] * options.submissions
    weights = dict(_COMMON)
    if options.kind in ("churn", "limits"):
        weights.update(_OF_TENANTS)
    names = list(weights)
    actions += dice.choices(names, [weights[name] for name in names], k=options.submissions)
    actions += ["restart"] * options.restarts + ["pause"] * options.pauses + ["step the clock"] * options.clock_steps
    for feature in options.features:
        if feature in _OF_FEATURES:
            weights = _OF_FEATURES[feature]
            actions += dice.choices(list(weights), list(weights.values()), k=2 + options.submissions // 3)
    bursts = sorted(dice.uniform(0.0, end * 0.9) for _ in range(3))
    plan = []
    for action in actions:
        at = dice.choice(bursts) + dice.uniform(0.0, 0.05) if dice.random() < 0.5 else dice.uniform(0.0, end * 0.95)
        plan.append((at, action))
    plan.sort()
    return plan
