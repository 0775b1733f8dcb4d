"""Executes runs and shows them, until they end, or somebody stops it, or the time is over."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from synergymesh.cli import output
from synergymesh.cli.endings import TIMED_OUT
from synergymesh.cli.followed import Followed, FollowedRun
from synergymesh.cli.live_view import FRAME_SECONDS, View
from synergymesh.errors import NotRunning, RunNotSuccessful

if TYPE_CHECKING:
    from synergymesh.engine.observability.events import RunEvent
    from synergymesh.orchestrator import Orchestrator
    from synergymesh.run_handle import RunHandle

FRAMES_PER_LOOK = 4
"""Runs are looked up twice a second."""

LOOK_UP_TASKS_MAX = 500
"""Runs with more tasks are not looked up while they run: their bar moves anyway, and reading them takes long."""

SHUTDOWN_GRACE_SECONDS = 10.0
"""How long running tasks may go on after Ctrl-C."""


@dataclass(slots=True)
class Execution:
    """Follow runs of one orchestrator.

    Attributes:
        stop: set by the first Ctrl-C.
        timeout: seconds, or None.
        exit_code: 124 when the time is over, else None.
    """

    mesh: Orchestrator
    view: View
    followed: Followed
    stop: asyncio.Event
    timeout: float | None = None
    exit_code: int | None = None
    _ends_at: float | None = field(default=None, init=False)

    async def follow(self, handles: Sequence[RunHandle], runs: Sequence[FollowedRun], *, resumed: bool) -> bool:
        """Show runs until all of them are final.

        Args:
            handles: of the runs.
            runs: the same, nothing counted yet.
            resumed: whether they were submitted by an earlier process.

        Returns:
            False when it was stopped before; the orchestrator is closed then, and its running tasks have ended.

        Raises:
            StoreError: the database failed.
        """
        loop = asyncio.get_running_loop()
        if self._ends_at is None and self.timeout is not None:
            self._ends_at = loop.time() + self.timeout
        for run in runs:
            self.followed.add(run)
            self.view.start(run, resumed=resumed)
        followers = [asyncio.create_task(self._follow(handle)) for handle in handles]
        frames = asyncio.create_task(self._draw())
        stopped = asyncio.create_task(self.stop.wait())
        others: list[asyncio.Task[Any]] = [*followers, frames, stopped]
        try:
            everything = asyncio.gather(*followers)
            left = None if self._ends_at is None else max(0.0, self._ends_at - loop.time())
            first: list[asyncio.Future[Any]] = [everything, stopped]
            await asyncio.wait(first, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if everything.done():
                everything.result()
                return True
            await self._close(everything)
            return False
        finally:
            for task in others:
                task.cancel()
            await asyncio.wait(others)

    async def _close(self, everything: asyncio.Future[list[None]]) -> None:
        if not self.stop.is_set():
            self.exit_code = TIMED_OUT
            self.view.say(f"the time of --timeout is over ({output.duration(self.timeout)})")
        running = sum(1 for _ in self.followed.running())
        self.view.say(
            f"stopping: {running} running {'task has' if running == 1 else 'tasks have'} up to "
            f"{SHUTDOWN_GRACE_SECONDS:.0f} s to end. Ctrl-C again ends at once."
            if running
            else "stopping"
        )
        await self.mesh.close(grace_seconds=SHUTDOWN_GRACE_SECONDS)
        with suppress(NotRunning):
            await everything

    async def _follow(self, handle: RunHandle) -> None:
        """Show the events of a run; a database that fails ends this with its error."""
        end = asyncio.create_task(_end_of(handle))
        events = asyncio.create_task(self._show_events(handle))
        try:
            await asyncio.wait([end, events], return_when=asyncio.FIRST_COMPLETED)
            if end.done():
                end.result()
            await events
        finally:
            end.cancel()
            events.cancel()
            await asyncio.wait([end, events])

    async def _show_events(self, handle: RunHandle) -> None:
        async for event in handle.events():
            self._see(event)

    def _see(self, event: RunEvent) -> None:
        seen = self.followed.see(event)
        if seen.is_new:
            self.view.event(event, seen.ended)

    async def _draw(self) -> None:
        """Draw, and look up now and then what no event tells: progress, and why a run waits."""
        with suppress(NotRunning):
            while True:
                wanted = [run for run in self.followed.runs.values() if not run.status.is_final]
                if sum(run.total for run in wanted) <= LOOK_UP_TASKS_MAX:
                    for run in wanted:
                        for event in self.followed.look_up(await self.mesh.get_run(run.run_id)):
                            self._see(event)
                for _ in range(FRAMES_PER_LOOK):
                    self.view.frame()
                    await asyncio.sleep(FRAME_SECONDS)
        while True:  # the orchestrator is being closed; its last tasks are still shown
            self.view.frame()
            await asyncio.sleep(FRAME_SECONDS)


async def _end_of(handle: RunHandle) -> None:
    with suppress(RunNotSuccessful, NotRunning):
        await handle.result()
