"""Waits for runs and follows them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from synergymesh.engine.live import LiveRun
from synergymesh.engine.observability.events import RunEvent, history
from synergymesh.engine.open_runs import OpenRuns
from synergymesh.errors import NotRunning, UnknownRun
from synergymesh.ports.changes import RunFinished
from synergymesh.ports.records import RunRecord
from synergymesh.ports.store import Store

NOT_UNDER_WAY = "the orchestrator that executed {run_id} is closed. Open the database again to go on with it."


class Watching:
    """Wait for the end of runs, and follow their events."""

    def __init__(self, store: Store, runs: OpenRuns) -> None:
        self._store = store
        self._runs = runs
        self._queues: set[asyncio.Queue[RunEvent | None]] = set()
        self._closed = False

    def close(self) -> None:
        """Tell everybody who still waits that nothing more comes."""
        self._closed = True
        for run in self._runs:
            for waiter in run.waiters or ():
                if not waiter.done():
                    waiter.set_exception(NotRunning(NOT_UNDER_WAY.format(run_id=run.run_id)))
            run.waiters = None
        for run_id in self._runs.followers.run_ids():
            self._runs.followers.release(run_id, NotRunning(NOT_UNDER_WAY.format(run_id=run_id)))
        for queue in self._queues:
            queue.put_nowait(None)

    async def record_of(self, run_id: str, tenant_id: str | None) -> RunRecord:
        """Give a run as stored.

        Raises:
            UnknownRun: there is none of that id that this tenant may see.
        """
        # ids are plain; what no database can even look for is not found either
        plain = isinstance(run_id, str) and run_id.isascii()
        record = await self._store.get_run(run_id, tenant_id) if plain else None
        if record is None:
            raise UnknownRun(run_id)
        return record

    async def end_of(self, run_id: str, tenant_id: str | None) -> RunFinished:
        """Wait until a run is final and say how it ended.

        Raises:
            UnknownRun: there is none of that id that this tenant may see.
            NotRunning: the orchestrator was closed before the run ended.
        """
        live = self._live(run_id, tenant_id)
        ended: asyncio.Future[RunFinished] = asyncio.get_running_loop().create_future()
        # before the record is read: the run may come into memory and end meanwhile
        waiters, _ = self._runs.followers.of(run_id, live)
        waiters.append(ended)
        try:
            if live is None:
                record = await self.record_of(run_id, tenant_id)
                if record.status.is_final:
                    return _end_of_record(record)
            if self._closed or run_id in self._runs.given_up:
                raise NotRunning(NOT_UNDER_WAY.format(run_id=run_id))
            return await ended
        finally:
            waiters.remove(ended)
            self._runs.followers.tidy(run_id)

    async def events_of(self, run_id: str, tenant_id: str | None) -> AsyncIterator[RunEvent]:
        """Follow a run from its beginning to its end.

        Raises:
            UnknownRun: there is none of that id that this tenant may see.
            NotRunning: the orchestrator was closed before the run ended.
        """
        queue: asyncio.Queue[RunEvent | None] = asyncio.Queue()
        _, watchers = self._runs.followers.of(run_id, self._live(run_id, tenant_id))
        watchers.append(queue.put_nowait)
        self._queues.add(queue)
        try:
            record = await self.record_of(run_id, tenant_id)
            told = history(record, await self._store.list_tasks([run_id]), await self._store.list_attempts([run_id]))
            seen = {(event.task_id, event.status, event.attempt) for event in told}
            for event in told:
                yield event
            if record.status.is_final:
                return
            if self._closed or run_id in self._runs.given_up:
                raise NotRunning(NOT_UNDER_WAY.format(run_id=run_id))
            while (following := await queue.get()) is not None:
                if (following.task_id, following.status, following.attempt) not in seen:
                    yield following
                if following.task_id is None and following.status.is_final:
                    return
            raise NotRunning(NOT_UNDER_WAY.format(run_id=run_id))
        finally:
            self._queues.discard(queue)
            watchers.remove(queue.put_nowait)
            self._runs.followers.tidy(run_id)

    def _live(self, run_id: str, tenant_id: str | None) -> LiveRun | None:
        live = self._runs.get(run_id)
        return live if live is not None and tenant_id in (None, live.tenant_id) else None


def _end_of_record(record: RunRecord) -> RunFinished:
    return RunFinished(
        record.run_id,
        record.tenant_id,
        record.status,
        record.started_at,
        record.ended_at or 0,
        record.result,
        record.error,
    )
