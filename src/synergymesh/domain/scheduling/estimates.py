"""How long tasks of a component take, learnt from those that ended: an exponentially weighted mean in microseconds."""

from __future__ import annotations

from collections.abc import Hashable

COMPONENTS_MAX = 2_000
"""Learnt figures per tenant; the ones learnt first are forgotten first. Bounds memory, not correctness."""

WEIGHT_SHIFT = 3
"""A new duration counts for 1/8: ten tasks after a change the estimate has gone three quarters of the way."""


class Estimates(dict[Hashable, int]):
    """Hold the estimates of one tenant: microseconds by component; `get(component, declared)` gives the best figure."""

    __slots__ = ()

    def learn(self, component: Hashable, microseconds: int) -> None:
        """Take note of how long a task took."""
        old = self.get(component)
        if old is not None:
            self[component] = old + ((microseconds - old) >> WEIGHT_SHIFT)
            return
        if len(self) >= COMPONENTS_MAX:
            del self[next(iter(self))]
        self[component] = microseconds
