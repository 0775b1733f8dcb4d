"""How bugs are planted, and hunted.

They are planted from outside, into the classes of the engine while a block runs; production code knows nothing of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

from synergymesh.testing.simulation.violation import Violation
from synergymesh.testing.simulation.world import World

Planter = Callable[[], tuple[object, str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantedBug:
    """Hold a mistake and how to make it.

    Attributes:
        name: short, unique.
        what: the mistake in words.
        plant: gives what is replaced (owner and name) and by what.
    """

    name: str
    what: str
    plant: Planter

    @contextlib.contextmanager
    def planted(self) -> Iterator[None]:
        """Make the mistake while the block runs."""
        owner, name, wrong = self.plant()
        with mock.patch.object(owner, name, wrong):
            yield


@dataclass(frozen=True, slots=True, kw_only=True)
class Catch:
    """Say what caught a bug: the invariant, in which world, after how many."""

    bug: PlantedBug
    invariant: str
    seed: int
    seeds: int


def register(bugs: list[PlantedBug], what: str) -> Callable[[Planter], Planter]:
    """Add a bug to a list, under its function's name."""

    def add(plant: Planter) -> Planter:
        bugs.append(PlantedBug(name=plant.__name__.replace("_", "-"), what=what, plant=plant))
        return plant

    return add


def hunt(bug: PlantedBug, seeds: range) -> Catch | None:
    """Look for the first world in which something does not hold; None if all of them do."""
    with bug.planted():
        for number, seed in enumerate(seeds, start=1):
            try:
                World(seed).run()
            except Violation as violation:
                return Catch(bug=bug, invariant=violation.invariant, seed=seed, seeds=number)
    return None
