"""What goes on beside the runs: an error that nobody expected ends one round of it, is seen by people, and no more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from synergymesh.domain.fault_tolerance.error_info import describe
from synergymesh.domain.instants import SECOND, Instant
from synergymesh.logs import Log
from synergymesh.ports.clock import Clock

PAUSE_SECONDS = 1.0
"""Pause after an error: one that comes back at once fills no log, and takes no time from what works."""

SAID_AGAIN_SECONDS = 60
"""An error in the same work that comes back sooner is counted and not logged again."""

RECENT_SECONDS = 3_600
"""An error that did not come again for an hour is history: it is still in the log and in the metrics."""

log = Log("synergymesh.engine")


@dataclass(frozen=True, slots=True)
class Fault:
    """Tell of the errors in one part of the background work.

    Attributes:
        error: the last one, in one line.
        count: how many there were since the process started.
        last_at: when the last one was.
        said_at: when one was logged.
    """

    error: str
    count: int
    last_at: Instant
    said_at: Instant


class Background:
    """Keep the background work of an orchestrator going, and the errors in it that should not have happened.

    What may go wrong by nature (a database that is locked) is handled where it happens. What arrives here is a mistake
    or a lack of memory: it is logged with its traceback, counted, and shown by `alerts`, the metrics and the doctor.

    Attributes:
        faults: by the name of the work.
    """

    def __init__(self, clock: Clock) -> None:
        self.faults: dict[str, Fault] = {}
        self._clock = clock

    def start(self, work: str, rounds: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        """Call `rounds` again and again until the task is cancelled; an error in it is noted, and ends that round."""
        return asyncio.get_running_loop().create_task(self._go_round(work, rounds), name=f"synergymesh-{work}")

    async def _go_round(self, work: str, rounds: Callable[[], Awaitable[None]]) -> None:
        while True:
            before = self.faults.get(work)
            with self.guard(work):
                await rounds()
            if self.faults.get(work) is not before:
                await asyncio.sleep(PAUSE_SECONDS)

    @contextmanager
    def guard(self, work: str) -> Iterator[None]:
        """Let an error end this block only."""
        try:
            yield
        except Exception as error:
            self.note(work, error)

    def note(self, work: str, error: BaseException) -> None:
        """Log and count an error."""
        before, now = self.faults.get(work), self._clock.now()
        described = describe(error)
        count = 1 if before is None else before.count + 1
        if before is not None and now - before.said_at < SAID_AGAIN_SECONDS * SECOND:
            self.faults[work] = Fault(str(described), count, now, before.said_at)
            return
        self.faults[work] = Fault(str(described), count, now, now)
        with suppress(Exception):  # what the program has made of logging may be what is wrong
            log.error(
                "an error inside of SynergyMesh; the work goes on. Please report it",
                work=work,
                error=str(described),
                times=count,
                traceback=described.traceback,
            )

    @property
    def recent(self) -> dict[str, Fault]:
        """Give the faults of the last hour."""
        since = self._clock.now() - RECENT_SECONDS * SECOND
        return {work: fault for work, fault in self.faults.items() if fault.last_at >= since}
