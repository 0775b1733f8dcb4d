"""What is raised when something does not hold that must."""

from __future__ import annotations


class Violation(AssertionError):
    """Say which invariant was broken in which world.

    Attributes:
        invariant: `I1` to `I12`, or `engine` for an error that nobody handled.
        seed: of the world.
        trace: what happened, to the end.
    """

    def __init__(self, invariant: str, message: str, *, seed: int, options: object, trace: list[str]) -> None:
        self.invariant = invariant
        self.seed = seed
        self.trace = trace
        tail = "\n".join(trace[-25:])
        super().__init__(f"{invariant} is broken: {message}\nseed {seed}, {options}\nmake sim SEED={seed}\n{tail}")


class WorldEnded(KeyboardInterrupt):
    """Leave whatever runs, at once: the process has died, or the world has seen enough.

    A KeyboardInterrupt, as the event loop and the executors let nothing else through.
    """
