"""What is known of one tenant's backlog: which part of it is in memory, and how much is not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from synergymesh.domain.instants import Instant
from synergymesh.domain.scheduling.tenant_queue import level_of
from synergymesh.engine.live import LiveRun
from synergymesh.engine.versions import Version
from synergymesh.ports.changes import RunCreated
from synergymesh.ports.records import RunRecord

Place = tuple[int, str]
"""The level of a run and its id: the order of a tenant's waiting runs."""

BEFORE_ALL: Place = (-(2**63), "")
"""Nothing of the backlog is in memory."""


def place_of(run: LiveRun) -> Place:
    """Give the place of a run among those that wait."""
    return level_of(max(run.created_at, run.not_before), run.priority), run.run_id


class Part:
    """Hold which part of a tenant's backlog is in memory.

    Attributes:
        edge: everything up to this place that may start is in memory; None for all of it.
        later_edge: every run for later up to this moment is in memory; None for all of them.
        ready, timed: the waiting runs in memory; those whose moment had not come when they came into memory are timed.
        stuck: versions that cannot be started now, by content hash: their runs stay in the store.
        stale: the whole window has to be read again.
        reading: a read is under way; what is submitted meanwhile goes into memory.
        turn: counts how often the edge was moved back; what was read before that is not taken.
        runs, tasks: how much of the backlog is not in memory.
    """

    __slots__ = (
        "alarm",
        "edge",
        "later_edge",
        "reading",
        "ready",
        "runs",
        "stale",
        "stuck",
        "tasks",
        "tenant_id",
        "timed",
        "turn",
    )

    def __init__(self, tenant_id: str) -> None:
        self.tenant_id = tenant_id
        self.edge: Place | None = None
        self.later_edge: Instant | None = None
        self.ready: dict[str, LiveRun] = {}
        self.timed: dict[str, LiveRun] = {}
        self.stuck: set[str] = set()
        self.stale = False
        self.reading = False
        self.turn = 0
        self.runs = self.tasks = 0
        self.alarm: asyncio.TimerHandle | None = None

    def stays_in_store(self, tasks: int, runs: int = 1) -> None:
        """Count runs that are not in memory (below 0: that are from now on)."""
        self.runs += runs
        self.tasks += tasks

    def ring(self, function: Callable[[Part], None], seconds: float) -> None:
        """Have a function called later, in place of one that was asked for before."""
        self.silence()
        self.alarm = asyncio.get_running_loop().call_later(seconds, function, self)

    def silence(self) -> None:
        """Ask for nothing any more."""
        if self.alarm is not None:
            self.alarm.cancel()
            self.alarm = None


def waits(record: RunRecord) -> bool:
    """Tell whether a run was not begun when it was read."""
    begun = (record.started_at, record.ended_at, record.cancel_requested_at, record.paused_at)
    return all(moment is None for moment in begun)


def live_run(row: RunCreated | RunRecord, version: Version) -> LiveRun:
    """Make what is in memory of a run, by its row; what its tasks have done is not there yet."""
    return LiveRun(
        row.run_id,
        row.tenant_id,
        version,
        row.input,
        priority=row.priority,
        not_before=row.not_before,
        created_at=row.created_at,
        recoveries=row.recoveries if isinstance(row, RunRecord) else 0,
        started_at=row.started_at if isinstance(row, RunRecord) else None,
        traceparent=row.traceparent,
    )
