"""A whole mesh in made-up time: one seed, one world, with faults, deaths and restarts, checked at every step."""

from synergymesh.testing.simulation.options import Options
from synergymesh.testing.simulation.violation import Violation
from synergymesh.testing.simulation.world import Report, World, simulate

__all__ = ["Options", "Report", "Violation", "World", "simulate"]
