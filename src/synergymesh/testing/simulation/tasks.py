"""The tasks and workflows of a world: they leave side effects, take time, give heartbeats, and do as scripted."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from random import Random
from typing import Any

from synergymesh.domain.fault_tolerance.breaker import BreakerPolicy
from synergymesh.domain.fault_tolerance.retry import NO_RETRY, RetryPolicy
from synergymesh.domain.workflow.definition import Dependency
from synergymesh.domain.workflow.task_settings import TaskSettings
from synergymesh.ports.task_context import TaskContext, current_task
from synergymesh.testing.faults import Fate
from synergymesh.testing.simulation.options import Options
from synergymesh.testing.simulation.script import CLEAN_UP_SECONDS, Act, Script
from synergymesh.workflows.nodes import optional, ref
from synergymesh.workflows.tasks import Task
from synergymesh.workflows.workflow import Workflow

HEARTBEAT_SECONDS = 0.4
"""The heartbeat timeout of the tasks that have one."""

BEAT_SECONDS = 0.15
"""They give one so often."""

BREAKER = "dependency"
"""The breaker of the tasks that call what is down at times."""

QUICK_BREAKER = BreakerPolicy(
    failure_percent=60, minimum_calls=4, window_seconds=3_600, open_seconds=1, open_seconds_max=4, retry_percent=0,
    retries_per_minute=600,
)  # fmt: skip
"""Opens soon."""

MEAN_BUDGET = BreakerPolicy(
    failure_percent=100, minimum_calls=1_000_000, window_seconds=3_600, retry_percent=0, retries_per_minute=60
)
"""Never opens, never forgets a failure, and lets ten retries through, then one a second."""

Work = Callable[..., Any]


class Tasks:
    """Make the functions of the tasks, and workflows of them.

    Args:
        script: what they do.
        fate: is told that a task has begun.
        begins: is told the side effect of an attempt, with the results that it uses.
        beats: is told of a heartbeat.
    """

    def __init__(
        self,
        script: Script,
        fate: Fate,
        begins: Callable[[TaskContext, tuple[Any, ...]], None],
        beats: Callable[[TaskContext], None],
    ) -> None:
        self._script = script
        self._fate = fate
        self._begins = begins
        self._beats = beats

    def seconds_of(self, context: TaskContext) -> float:
        """Give how long a plain function takes."""
        return self._script.act(context).seconds

    async def on_loop(self, *used: Any, depends: bool = False, beating: bool = False) -> dict[str, Any]:
        context = current_task()
        self._begins(context, used)
        await self._fate.at("task.begun")
        act = self._script.act(context, depends=depends)
        if act.kills:
            await self._fate.at("poison")
        loop = asyncio.get_running_loop()
        end = loop.time() + act.seconds
        pause = BEAT_SECONDS if beating and not act.mute else act.seconds
        while act.seconds and loop.time() < end:
            try:
                await asyncio.sleep(min(pause, end - loop.time()))
                if pause < act.seconds:
                    context.heartbeat()
                    self._beats(context)
            except asyncio.CancelledError:
                if act.tidy:
                    await asyncio.sleep(CLEAN_UP_SECONDS)
                if not act.stubborn:
                    raise
        return _ending(context, act)

    def in_thread(self, *used: Any, depends: bool = False) -> dict[str, Any]:
        context = current_task()
        self._begins(context, used)
        self._fate.at_once("task.begun")
        act = self._script.act(context, depends=depends)
        if act.kills:
            self._fate.at_once("poison")
        return _ending(context, act)

    def single(self, seconds: float, *, priority: int) -> Workflow:
        """Make a workflow of one task that takes so long."""

        async def on_loop() -> dict[str, Any]:
            return await self.on_loop()

        name = f"takes-{seconds}"
        return Workflow(name).add(on_loop, id=name, weight=seconds, priority=priority)

    def workflows(self, dice: Random, options: Options, further: Random) -> list[Workflow]:
        """Make some workflows: single tasks, a chain, and random graphs with optional components and dependencies.

        Args:
            dice: decide about the graphs.
            options: of the world.
            further: dice for what its features add to them.
        """
        makers = _Makers(self, options, further)
        made = [
            Workflow("single").add(makers.plain(thread=False), id="c0"),
            Workflow("alone").add(makers.plain(thread=True), id="c0"),
        ]
        for number in range(3):
            built = Workflow(f"w{number}", **makers.limits_of_a_run())
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
                settings: TaskSettings = {
                    "priority": 0,
                    "weight": 0.0,
                    "retry": None,
                    "timeout": None,
                }
                is_required = dice.random() < 0.85
                settings["priority"] = dice.randint(-1, 1) if custom else 0
                settings["weight"] = dice.choice((0.0, 0.1, 1.0))
                settings["retry"] = RetryPolicy(
                    max_retries=dice.randint(0, 3), initial_delay=dice.choice((0.0, 0.1, 1.0))
                )
                settings["timeout"] = dice.choice((None, 1.0, 4.0))
                built.add(
                    makers.work(settings, thread=thread),
                    id=f"c{place}",
                    depends_on=[Dependency(source, required[source]) for source in sources],
                    args=[ref(each) if required[each] else optional(ref(each)) for each in uses],
                    required=is_required,
                    **settings,
                )
            made.append(built.returns({f"c{place}": ref(f"c{place}") for place in range(count) if dice.random() < 0.5}))
        return made


class _Makers:
    """Make what a component calls, and the settings that the features of a world add to it."""

    def __init__(self, tasks: Tasks, options: Options, dice: Random) -> None:
        self._tasks = tasks
        self._options = options
        self._dice = dice
        self._made: dict[tuple[bool, bool, bool, bool], Work] = {}

        async def undo(done: Any) -> dict[str, Any]:
            return await tasks.on_loop(done)

        self._undo = Task(undo, retry=RetryPolicy(max_retries=2, initial_delay=0.1))

    def limits_of_a_run(self) -> dict[str, Any]:
        if not self._options.has("deadlines"):
            return {}
        choice = self._dice.choice
        return {"timeout": choice((None, 2.0, 8.0)), "queue_timeout": choice((None, 1.0, 4.0))}

    def plain(self, *, thread: bool) -> Work:
        return self._work(thread=thread, depends=False, beating=False, undoable=False)

    def work(self, settings: TaskSettings, *, thread: bool) -> Work:
        """Give what a component calls; change its settings as that needs."""
        has, dice = self._options.has, self._dice
        depends = has("circuits") and dice.random() < 0.6
        beating = has("deadlines") and not thread and dice.random() < 0.5
        undoable = has("sagas") and dice.random() < 0.6
        if depends:
            settings["breaker"] = BREAKER
            settings["retry"] = RetryPolicy(max_retries=dice.randint(1, 4), initial_delay=dice.choice((0.0, 0.2)))
        if has("signals") and dice.random() < 0.5:
            known = settings["retry"] or NO_RETRY
            settings["retry"] = dataclasses.replace(known, max_elapsed=dice.choice((0.5, 2.0)))
        if beating:
            settings["heartbeat_timeout"] = HEARTBEAT_SECONDS
        if has("deadlines"):
            settings["total_timeout"] = dice.choice((None, 1.0, 3.0))
            settings["queue_timeout"] = dice.choice((None, None, 0.5, 2.0))
        return self._work(thread=thread, depends=depends, beating=beating, undoable=undoable)

    def _work(self, *, thread: bool, depends: bool, beating: bool, undoable: bool) -> Work:
        key = (thread, depends, beating, undoable)
        known = self._made.get(key)
        if known is not None:
            return known
        tasks = self._tasks

        async def on_loop(*used: Any) -> dict[str, Any]:
            return await tasks.on_loop(*used, depends=depends, beating=beating)

        def in_thread(*used: Any) -> dict[str, Any]:
            return tasks.in_thread(*used, depends=depends)

        function: Work = in_thread if thread else on_loop
        name = f"{function.__name__}-{sum(bit << place for place, bit in enumerate(key[1:]))}"
        made = self._made[key] = Task(function, name=name, compensate=self._undo if undoable else None)
        return made


def _ending(context: TaskContext, act: Act) -> dict[str, Any]:
    if act.error is not None:
        raise act.error
    return {"task": context.task_id, "attempt": context.attempt}
