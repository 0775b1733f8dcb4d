"""Every planted bug is caught: a harness that finds nothing has to be able to find something."""

from __future__ import annotations

from pathlib import Path

import pytest

from synergymesh.testing.simulation.planted import BUGS, PlantedBug, hunt
from synergymesh.testing.simulation.world import simulate

GUIDE = Path(__file__).parents[2] / "docs/guides/reliability.md"
SEEDS = range(500)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_caught(bug: PlantedBug) -> None:
    catch = hunt(bug, SEEDS)
    assert catch is not None, bug.what
    simulate(catch.seed)  # without the bug, the same world holds


def test_the_guide_has_every_planted_bug() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    assert not [bug.what for bug in BUGS if f"| {bug.what} |" not in text]
    assert "**missed**" not in text
