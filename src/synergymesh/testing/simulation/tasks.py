"""What the tasks of a world do: they leave side effects, take time, fail, hang, go on though stopped, or kill."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from synergymesh.domain.fault_tolerance.retry import RetryPolicy
from synergymesh.domain.workflow.definition import Dependency
from synergymesh.ports.task_context import TaskContext, current_task
from synergymesh.testing.faults import Fate
from synergymesh.workflows.nodes import optional, ref
from synergymesh.workflows.workflow import Workflow

LONGEST_SECONDS = 12.0
"""No task takes longer, whatever it does."""


class Scripted(Exception):
    """What a task fails with on purpose."""


@dataclass(frozen=True, slots=True)
class Act:
    """Say what one attempt does: how long it takes, whether it fails then, goes on though stopped, or kills."""

    seconds: float = 0.0
    fails: bool = False
    stubborn: bool = False
    kills: bool = False


class Script:
    """Decide what every attempt does: from the seed and its token alone, whatever else happens.

    Args:
        seed: of the world.
        poison: share of the tasks that kill the process.

    Attributes:
        calm: whether tasks do only what they must: those that always fail do, those that kill do.
    """

    def __init__(self, seed: int, poison: float) -> None:
        self._seed = seed
        self._poison = poison
        self.calm = False

    def act(self, context: TaskContext) -> Act:
        """Give what an attempt does."""
        if context.task_id.startswith("takes-"):
            return Act(float(context.task_id.removeprefix("takes-")))
        of_task = Random(f"{self._seed}/{context.run_id}/{context.task_id}")
        kills = of_task.random() < self._poison
        kind = of_task.choices(("plain", "flaky", "fails", "slow", "stubborn"), (80, 9, 3, 5, 3))[0]
        of_attempt = Random(f"{self._seed}/{context.run_id}/{context.task_id}/{context.attempt}")
        seconds = of_attempt.choice((0.0, 0.0, 0.002, 0.02, 0.05, 0.3))
        if self.calm:
            return Act(seconds, fails=kind == "fails", kills=kills)
        if kind == "slow" or (kind == "stubborn" and of_attempt.random() < 0.7):
            seconds = of_attempt.uniform(0.5, LONGEST_SECONDS)
        fails = kind == "fails" or (kind == "flaky" and of_attempt.random() < 0.6)
        return Act(seconds, fails=fails, stubborn=kind == "stubborn", kills=kills)


class Tasks:
    """Make the functions of the tasks, and workflows of them.

    Args:
        script: what they do.
        fate: is told that a task has begun.
        begins: is told the side effect of an attempt, with the results that it uses.
    """

    def __init__(self, script: Script, fate: Fate, begins: Callable[[TaskContext, tuple[Any, ...]], None]) -> None:
        self._script = script
        self._fate = fate
        self._begins = begins

    def seconds_of(self, context: TaskContext) -> float:
        """Give how long a plain function takes."""
        return self._script.act(context).seconds

    async def on_loop(self, *used: Any) -> dict[str, Any]:
        context = current_task()
        self._begins(context, used)
        await self._fate.at("task.begun")
        act = self._script.act(context)
        if act.kills:
            await self._fate.at("poison")
        loop = asyncio.get_running_loop()
        end = loop.time() + act.seconds
        while act.seconds and loop.time() < end:
            try:
                await asyncio.sleep(end - loop.time())
            except asyncio.CancelledError:
                if not act.stubborn:
                    raise
        return _ending(context, act)

    def in_thread(self, *used: Any) -> dict[str, Any]:
        context = current_task()
        self._begins(context, used)
        self._fate.at_once("task.begun")
        act = self._script.act(context)
        if act.kills:
            self._fate.at_once("poison")
        return _ending(context, act)

    def single(self, seconds: float, *, priority: int) -> Workflow:
        """Make a workflow of one task that takes so long."""

        async def on_loop() -> dict[str, Any]:
            return await self.on_loop()

        name = f"takes-{seconds}"
        return Workflow(name).add(on_loop, id=name, weight=seconds, priority=priority)

    def workflows(self, dice: Random) -> list[Workflow]:
        """Make some workflows: single tasks, a chain, and random graphs with optional components and dependencies."""

        async def on_loop(*used: Any) -> dict[str, Any]:
            return await self.on_loop(*used)

        def in_thread(*used: Any) -> dict[str, Any]:
            return self.in_thread(*used)

        made = [Workflow("single").add(on_loop, id="c0"), Workflow("alone").add(in_thread, id="c0")]
        for number in range(3):
            built = Workflow(f"w{number}")
            count = dice.randint(2, 8)
            density = dice.choice((0.2, 0.5, 0.9))
            custom = dice.random() < 0.5
            for place in range(count):
                sources = [f"c{each}" for each in range(place) if dice.random() < density]
                if number == 0 and place:
                    sources = [f"c{place - 1}"]
                required = {source: dice.random() < 0.8 for source in sources}
                uses = [source for source in sources if dice.random() < 0.6]
                thread = dice.random() < 0.3
                built.add(
                    in_thread if thread else on_loop,
                    id=f"c{place}",
                    depends_on=[Dependency(source, required[source]) for source in sources],
                    args=[ref(each) if required[each] else optional(ref(each)) for each in uses],
                    required=dice.random() < 0.85,
                    priority=dice.randint(-1, 1) if custom else 0,
                    weight=dice.choice((0.0, 0.1, 1.0)),
                    retry=RetryPolicy(max_retries=dice.randint(0, 3), initial_delay=dice.choice((0.0, 0.1, 1.0))),
                    timeout=dice.choice((None, 1.0, 4.0)),
                )
            made.append(built.returns({f"c{place}": ref(f"c{place}") for place in range(count) if dice.random() < 0.5}))
        return made


def _ending(context: TaskContext, act: Act) -> dict[str, Any]:
    if act.fails:
        raise Scripted(f"{context.task_id}, attempt {context.attempt}")
    return {"task": context.task_id, "attempt": context.attempt}
