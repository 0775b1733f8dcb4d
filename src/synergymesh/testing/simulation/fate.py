"""Who decides what goes wrong in a world, and when it dies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random

from synergymesh.errors import StoreError, StoreLocked, StoreUnavailable
from synergymesh.ports.executor import Call
from synergymesh.testing.faults import FAULT_POINTS, StoreFault
from synergymesh.testing.simulation.options import Options
from synergymesh.testing.simulation.violation import WorldEnded
from synergymesh.testing.virtual_time import VirtualLoop

ONCE_A_LIFE = ("open.", "begin_incarnation.", "end_incarnation.")
"""Points that a process passes once: it dies there the first time, or never."""

TIMES_MAX = 12
"""A process dies at one of the first times that it comes to a fault point."""

LOSSES = 0.06
"""Share of the calls that an executor loses, in worlds where it does."""

MOMENT_SHARE = 0.2
"""Of the deaths come at a moment, not at a fault point."""


class WorldFate:
    """Decide by dice.

    Args:
        seed: of the world.
        options: of the world.
        say: writes into the trace.

    Attributes:
        healed: whether nothing goes wrong any more.
        died_at: where the process died, or None while it lives.
        deaths: by fault point.
        lasting: whether there was an error that does not pass by itself: only a restart helps then.
        loop: of the life that is.
    """

    def __init__(self, seed: int, options: Options, say: Callable[[str], None]) -> None:
        self.healed = False
        self.died_at: str | None = None
        self.deaths: Counter[str] = Counter()
        self.lasting = False
        self.loop: VirtualLoop
        self._options = options
        self._say = say
        self._dice = Random(f"{seed}/store")
        self._executor_dice = Random(f"{seed}/executor")
        self._loss_dice = Random(f"{seed}/losses")
        self._death_dice = Random(f"{seed}/deaths")
        self._deaths_left = options.deaths
        self._doom: str | None = None
        self._times = 0
        moments = sorted(self._dice.uniform(0, options.seconds) for _ in range(options.outages))
        self._outages = [(begin, begin + self._dice.uniform(0.5, 6.0)) for begin in moments]

    # --- death ------------------------------------------------------------------------------------------------------

    def begin_life(self, loop: VirtualLoop) -> None:
        """Decide where this life ends, if it does not end well."""
        self.loop = loop
        self.died_at = None
        self._doom = None
        if self._deaths_left and not self.healed:
            self._deaths_left -= 1
            if self._death_dice.random() < MOMENT_SHARE:
                loop.call_later(self._death_dice.uniform(0.0, self._options.seconds / 2), self._die_now)
            else:
                self._doom = self._death_dice.choice(FAULT_POINTS)
                self._times = self._death_dice.randint(1, TIMES_MAX if "commit" in self._doom else 4)
                if self._doom.startswith(ONCE_A_LIFE):
                    self._times = 1

    async def at(self, point: str) -> None:
        """Die here, if it is decided so."""
        if self._is_doomed(point):
            self._die(point)
            await self.loop.create_future()

    def at_once(self, point: str) -> None:
        """Die here, if it is decided so."""
        if self._is_doomed(point):
            self._die(point)
            raise WorldEnded(point)

    def _is_doomed(self, point: str) -> bool:
        if point == "poison":
            return True
        if point != self._doom or self.healed:
            return False
        self._times -= 1
        return self._times <= 0

    def _die_now(self) -> None:
        if not self.healed:
            self._die("a moment")

    def _die(self, point: str) -> None:
        self.died_at = point
        self.deaths[point] += 1
        self._say(f"the process dies at {point}")
        self.loop.stop()

    # --- store and executors ----------------------------------------------------------------------------------------

    def of_store(self, verb: str) -> StoreFault:
        """Say what happens to a call of the store."""
        dice, options = self._dice, self._options
        delay = dice.choice((0.0002, 0.001, 0.003)) if verb == "commit" else 0.0
        if self.healed:
            return StoreFault(delay_before=delay)
        if dice.random() < options.store_delays:
            delay = dice.uniform(0.01, 2.0)
        before: StoreError | None = None
        after: StoreError | None = None
        now = self.loop.time()
        if verb == "commit" and any(begin <= now < end for begin, end in self._outages):
            before = StoreUnavailable("a fault of the simulation: an outage")
        elif dice.random() < options.store_errors * (1.0 if verb == "commit" else 0.3):
            error = dice.choice((StoreUnavailable, StoreUnavailable, StoreLocked))
            if dice.random() < 0.5:
                before = error("a fault of the simulation: before")
            else:
                after = error("a fault of the simulation: after")
        elif verb == "commit" and dice.random() < options.lasting_errors:
            self.lasting = True
            if dice.random() < 0.5:
                before = StoreError("a fault of the simulation: it does not pass, before")
            else:
                after = StoreError("a fault of the simulation: it does not pass, after")
        if before or after:
            self._say(f"{verb}: {before or after}")
        bad = verb == "commit" and dice.random() < options.bad_neighbours
        return StoreFault(
            delay_before=delay * dice.random(),
            delay_after=delay * dice.random(),
            error_before=before,
            error_after=after,
            bad_neighbour=bad,
        )

    def of_report(self, call: Call) -> Sequence[float]:
        """Say when and how often an outcome is reported."""
        if self.healed:
            return (0.0,)
        dice = self._executor_dice
        first = dice.uniform(0.1, 5.0) if dice.random() < self._options.late_reports else 0.0
        if dice.random() < self._options.twice_reports:
            return (first, first + dice.choice((0.0, 0.01, 1.0)))
        return (first,)

    def of_loss(self, call: Call) -> float | None:
        """Say after how many seconds a call is lost; None for never."""
        if self.healed or not self._options.has("losses") or self._loss_dice.random() >= LOSSES:
            return None
        return self._loss_dice.choice((0.0, 0.01, 0.5, 3.0))
