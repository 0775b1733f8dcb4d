"""What every attempt of a world does: decided by its seed and the attempt's token alone, whatever else happens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from synergymesh.errors import GiveUp, RetryLater
from synergymesh.ports.task_context import TaskContext
from synergymesh.testing.simulation.options import Options

LONGEST_SECONDS = 12.0
"""No task takes longer, whatever it does."""

CLEAN_UP_SECONDS = 0.45
"""A tidy task needs so long when it is stopped: less than the grace that it is given."""


class Scripted(Exception):
    """What a task fails with on purpose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """Say what one attempt does.

    Attributes:
        seconds: how long it takes.
        error: what it raises then, or None.
        stubborn: whether it goes on though stopped.
        tidy: whether it cleans up for a while when it is stopped.
        mute: whether it gives no heartbeat.
        kills: whether it kills the process.
    """

    seconds: float = 0.0
    error: Exception | None = None
    stubborn: bool = False
    tidy: bool = False
    mute: bool = False
    kills: bool = False


_KINDS = {"plain": 80, "flaky": 9, "fails": 3, "slow": 5, "stubborn": 3}
_OF_FEATURES = {
    "sagas": {"fails": 9},
    "reruns": {"fails": 9},
    "signals": {"later": 12, "gives up": 6},
    "deadlines": {"slow": 12, "tidy": 12, "mute": 6, "flaky": 6},
}


class Script:
    """Decide what every attempt does.

    Args:
        seed: of the world.
        options: of the world.
        now: gives the seconds of the world.

    Attributes:
        calm: whether tasks do only what they must: those that always fail do, those that kill do.
    """

    def __init__(self, seed: int, options: Options, now: Callable[[], float]) -> None:
        self._seed = seed
        self._poison = options.poison
        self._now = now
        self._kinds = dict(_KINDS)
        for feature in options.features:
            for kind, weight in _OF_FEATURES.get(feature, {}).items():
                self._kinds[kind] = self._kinds.get(kind, 0) + weight
        dice = Random(f"{seed}/dependency")
        begins = [dice.uniform(0.0, options.seconds) for _ in range(3 if options.has("circuits") else 0)]
        self._down = [(begin, begin + dice.uniform(0.5, 8.0)) for begin in begins]
        self.calm = False

    def act(self, context: TaskContext, *, depends: bool = False) -> Act:
        """Give what an attempt does.

        Args:
            context: of the attempt.
            depends: whether it calls what is down at times.
        """
        if context.task_id.startswith("takes-"):
            return Act(seconds=float(context.task_id.removeprefix("takes-")))
        of_task = Random(f"{self._seed}/{context.run_id}/{context.task_id}")
        kills = of_task.random() < self._poison
        kind = of_task.choices(list(self._kinds), list(self._kinds.values()))[0]
        of_attempt = Random(f"{self._seed}/{context.run_id}/{context.task_id}/{context.attempt}")
        seconds = of_attempt.choice((0.0, 0.0, 0.002, 0.02, 0.05, 0.3))
        name = f"{context.task_id}, attempt {context.attempt}"
        error: Exception | None = None
        if kind == "fails":
            error = Scripted(name)
        elif kind == "gives up":
            error = GiveUp(name)
        if self.calm:
            return Act(seconds=seconds, error=error, kills=kills)
        if kind in ("slow", "tidy") or (kind in ("stubborn", "mute") and of_attempt.random() < 0.7):
            seconds = of_attempt.uniform(0.5, LONGEST_SECONDS)
        if kind == "flaky" and of_attempt.random() < 0.6:
            error = Scripted(name)
        elif kind == "later" and of_attempt.random() < 0.6:
            error = RetryLater(of_attempt.choice((0.05, 0.5, 2.0)), name)
        elif depends and error is None and any(begin <= self._now() < end for begin, end in self._down):
            error = ConnectionError(f"{name}: down")
        return Act(
            seconds=seconds, error=error, stubborn=kind == "stubborn", tidy=kind == "tidy", mute=kind == "mute",
            kills=kills,
        )  # fmt: skip
