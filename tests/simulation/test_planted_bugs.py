"""Every planted bug is caught: a harness that finds nothing has to be able to find something."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from synergymesh.testing.simulation.__main__ import SEEDS_PER_BUG, version
from synergymesh.testing.simulation.planted import BUGS
from synergymesh.testing.simulation.planting import PlantedBug, hunt
from synergymesh.testing.simulation.violation import Violation
from synergymesh.testing.simulation.world import simulate

GUIDE = (Path(__file__).parents[2] / "docs/guides/reliability.md").read_text(encoding="utf-8")


def table() -> dict[str, tuple[str, int]]:
    """Give what the guide says: by what is wrong, the invariant that caught it, and after how many seeds, from 0 on."""
    text = GUIDE.split("<!-- planted bugs -->")[1]
    found = re.findall(r"\| (.+) \| (\S+) \| (\d+) \|", text)
    return {what: (invariant, int(seeds)) for what, invariant, seeds in found}


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_caught_as_the_guide_says(bug: PlantedBug) -> None:
    invariant, seeds = table()[bug.what]
    if f"Made with Python {version()};" in GUIDE:
        with bug.planted(), pytest.raises(Violation) as caught:
            simulate(seeds - 1)
        assert caught.value.invariant == invariant, "renew the table: make sim-bugs"
        seed = seeds - 1
    else:
        catch = hunt(bug, range(SEEDS_PER_BUG))
        assert catch is not None, bug.what
        seed = catch.seed
    simulate(seed)  # without the bug, the same world holds


def test_the_guide_names_no_bug_that_is_not_planted() -> None:
    assert set(table()) == {bug.what for bug in BUGS}
