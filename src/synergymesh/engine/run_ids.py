"""Ids of runs: they sort by the moment of the submission."""

from __future__ import annotations

from random import Random

from synergymesh.domain.instants import Instant


class RunIds:
    """Make ids, never the same twice."""

    def __init__(self, dice: Random) -> None:
        self._dice = dice
        self._last_moment: Instant = 0

    def make(self, now: Instant) -> str:
        """Make an id that sorts behind those that were made before."""
        self._last_moment = moment = max(now, self._last_moment + 1)
        return f"{first_run_id(moment)}{self._dice.getrandbits(32):08x}"


def first_run_id(moment: Instant) -> str:
    """Give a text that sorts before the ids of all runs that are submitted at that moment or later."""
    return f"run-{max(0, moment):016x}"
