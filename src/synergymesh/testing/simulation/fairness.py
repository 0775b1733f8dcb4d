"""Whether tenants that all have work get what their weights say (start-time fair queueing, Goyal, Vin & Cheng 1996)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from random import Random

from synergymesh.ports.task_context import TaskContext
from synergymesh.testing.simulation.tasks import Tasks
from synergymesh.workflows.workflow import Workflow

RUNS = 30
"""Of a tenant; one of them has twice as many."""


class Fairness:
    """Count what each tenant of a flood gets.

    Attributes:
        seconds: until everything of the flood has ended.
    """

    def __init__(self, fail: Callable[[str, str], None]) -> None:
        self.seconds = 0.0
        self._fail = fail
        self._weights: dict[str, int] = {}
        self._takes: dict[str, float] = {}
        self._runs: dict[str, int] = {}
        self._starts: list[tuple[float, str]] = []

    def flood(self, tenants: Sequence[str], dice: Random, tasks: Tasks) -> list[tuple[str, int, Workflow, int]]:
        """Give for each tenant its weight, a workflow of one task, and how often to submit it."""
        flood = []
        greedy = dice.choice(tenants) if tenants else None
        for tenant_id in tenants:
            takes = dice.choice((0.02, 0.05, 0.2))
            self._weights[tenant_id] = dice.choice((1, 1, 3))
            self._takes[tenant_id] = takes
            self._runs[tenant_id] = RUNS * (2 if tenant_id == greedy else 1)
            self.seconds += takes * self._runs[tenant_id] + 5.0
            urgent = dice.choice((-1, 0, 1))
            workflow = tasks.single(takes, priority=urgent)
            flood.append((tenant_id, self._weights[tenant_id], workflow, self._runs[tenant_id]))
        return flood

    def started(self, context: TaskContext, now: float) -> None:
        """Take note of a start."""
        if self._weights:
            self._starts.append((now, context.tenant_id))

    def check(self, slots: int) -> None:
        """Check that served cost by weight differs by no more than what can be under way (I12)."""
        served: dict[str, float] = defaultdict(float)
        counts: dict[str, int] = defaultdict(int)
        waiting = set(self._weights)
        for number, (_, tenant_id) in enumerate(self._starts):
            counts[tenant_id] += 1
            if counts[tenant_id] >= self._runs.get(tenant_id, 0):
                break  # from here on somebody has nothing left to do
            served[tenant_id] += self._takes[tenant_id]
            if number < slots * 2:
                continue  # the first ones start before everybody has submitted
            for one in waiting:
                for other in waiting:
                    if one < other:
                        self._compare(one, other, served, slots, number)

    def _compare(self, one: str, other: str, served: dict[str, float], slots: int, number: int) -> None:
        parts = [served[each] / self._weights[each] for each in (one, other)]
        bound = sum(self._takes[each] / self._weights[each] for each in (one, other)) * (slots * 2 + 2)
        if abs(parts[0] - parts[1]) > bound:
            self._fail(
                "I12",
                f"after {number + 1} starts {one} had {parts[0]:.3f} s by weight and {other} {parts[1]:.3f} s, more "
                f"than {bound:.3f} s apart",
            )
