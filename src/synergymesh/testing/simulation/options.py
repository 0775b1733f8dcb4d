"""What a world is like: drawn from its seed, printed when something is found."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

FEATURES = ("circuits", "deadlines", "haste", "holds", "losses", "reruns", "retention", "sagas", "signals")
"""What a world may have beside its kind.

circuits: tasks call something that is down at times; deadlines: workflows and tasks have limits of time, and give
heartbeats; haste: people go away before they are answered; holds: they pause runs and workflows; losses: executors lose
attempts, or all they have; reruns: people retry, replay, redrive and discard; retention: finished runs are pruned;
sagas: tasks have compensations; signals: tasks raise `RetryLater` and `GiveUp`.
"""

FEATURE_COUNTS = {0: 15, 1: 35, 2: 35, 3: 15}
"""How many of them a world has, and how often: few, so that worlds stay small."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Hold what a world is like.

    Attributes:
        kind: plain (no faults of the process), storm (the store fails), deaths, limits (tight quotas), churn (tenants
            and plans change), hours (the rolling hour binds), fair (a flood beside others), clocks (the clock jumps).
        seconds: of virtual time until everything is healed.
        tenants: at the beginning.
        submissions: of workflows.
        slots: tasks at a time over all tenants.
        window: waiting runs of a tenant that are in memory.
        store_errors: share of the store's calls that fail, half of them after they were done.
        store_delays: share of the store's calls that take up to two seconds.
        outages: longer times during which every commit fails.
        bad_neighbours: share of the commits in which a unit stands that has to be refused.
        lasting_errors: share of the commits that fail with an error that does not pass by itself.
        deaths: times that the process dies.
        restarts: times that it ends cleanly.
        late_reports, twice_reports: share of the outcomes.
        poison: share of the tasks that kill the process whenever they run.
        pauses: times that the process stands still for up to ten seconds.
        clock_steps: times that the clock jumps; it does as well while no process lives.
        down_seconds: the longest time between two lives.
        features: what else there is; some of `FEATURES`.
    """

    kind: str
    seconds: float
    tenants: int
    submissions: int
    slots: int
    window: int = 1_000
    store_errors: float = 0.0
    store_delays: float = 0.0
    outages: int = 0
    bad_neighbours: float = 0.0
    lasting_errors: float = 0.0
    deaths: int = 0
    restarts: int = 0
    late_reports: float = 0.0
    twice_reports: float = 0.0
    poison: float = 0.0
    pauses: int = 0
    clock_steps: int = 0
    down_seconds: float = 0.0
    features: tuple[str, ...] = ()

    def has(self, feature: str) -> bool:
        """Tell whether there is this feature."""
        return feature in self.features

    @classmethod
    def from_seed(cls, seed: int) -> Options:
        """Draw them."""
        dice = Random(f"{seed}/options")
        kind = dice.choices(tuple(_KINDS), weights=[weight for weight, _ in _KINDS.values()])[0]
        drawn: dict[str, Any] = {
            "seconds": float(dice.randint(5, 40)),
            "tenants": dice.randint(1, 3),
            "submissions": dice.randint(4, 14),
            "slots": dice.choice((2, 4, 8, 32)),
            "store_delays": dice.choice((0.0, 0.01, 0.1)),
            "late_reports": dice.choice((0.0, 0.05)),
            "twice_reports": dice.choice((0.0, 0.1)),
            "bad_neighbours": dice.choice((0.0, 0.05)),
            "window": dice.choice((1, 3, 1_000)),
        }
        for name, values in _KINDS[kind][1].items():
            drawn[name] = dice.choice(values)
        if kind not in _PURE:
            count = dice.choices(tuple(FEATURE_COUNTS), weights=tuple(FEATURE_COUNTS.values()))[0]
            features = set(dice.sample(FEATURES, count))
            drawn["down_seconds"] = dice.choice((0.0, 0.0, 2.0, 20.0))
            if kind == "clocks":
                features.add(dice.choice(_OF_TIME))
            drawn["features"] = tuple(sorted(features))
        return cls(kind=kind, **drawn)


_DEATHS = {"deaths": (1, 2, 3, 5), "restarts": (0, 0, 1), "store_errors": (0.0, 0.0, 0.05)}
_PUNCTUAL: dict[str, tuple[float, ...]] = {
    "late_reports": (0.0,),
    "store_delays": (0.0,),
    "twice_reports": (0.0,),
    "window": (1_000,),  # who waits for the next page to be read is not eligible meanwhile
}
_KINDS: dict[str, tuple[int, dict[str, tuple[float, ...]]]] = {
    "plain": (10, {"late_reports": (0.0,), "restarts": (0, 1)}),
    "storm": (
        25,
        {"store_errors": (0.05, 0.2), "outages": (0, 1, 2), "lasting_errors": (0.0, 0.0, 0.02), "restarts": (0, 1, 2)},
    ),
    "deaths": (25, {**_DEATHS, "poison": (0.0, 0.0, 0.03), "pauses": (0, 1)}),
    "limits": (12, {"submissions": (10, 20), "deaths": (0, 1, 2), "store_errors": (0.0, 0.05)}),
    "churn": (14, {"tenants": (2, 3, 4), "deaths": (0, 1, 2), "store_errors": (0.0, 0.05), "restarts": (0, 1)}),
    "hours": (5, {"seconds": (150.0, 150.0, 3_900.0), "tenants": (1,), "submissions": (30,), "deaths": (1, 3)}),
    "fair": (5, {"seconds": (5.0,), "tenants": (2, 3), "slots": (1, 2, 3), "submissions": (0,), **_PUNCTUAL}),
    "clocks": (8, {"clock_steps": (2, 4), "submissions": (12, 18), "deaths": (0, 1, 2), "restarts": (0, 1)}),
}
"""For each kind: how often it is drawn, and what is special about it."""

_PURE = ("fair", "hours")
"""Kinds whose one question takes long enough."""

_OF_TIME = ("circuits", "deadlines")
"""Features that go by the clock: where it jumps, there is at least one of them."""
