"""Does now and then what need not be done at once."""

from __future__ import annotations

import asyncio

from synergymesh.engine.attempts import Attempts
from synergymesh.errors import StoreError
from synergymesh.logs import Log
from synergymesh.ports.store import Store

TICK_SECONDS = 0.5

PURGE_ROWS = 500
"""Rows deleted in one transaction, so that no commit waits long behind it."""

log = Log("synergymesh.engine")


class Maintenance:
    """Write down long tasks, and delete what deleted tenants left."""

    def __init__(self, store: Store, attempts: Attempts) -> None:
        self._store = store
        self._attempts = attempts
        self._task: asyncio.Task[None] | None = None
        self.purge_is_due = True

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.get_running_loop().create_task(self._tick_for_ever(), name="synergymesh-maintenance")

    async def close(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _tick_for_ever(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self._attempts.record_long_tasks()
            if self.purge_is_due:
                await self._purge()

    async def _purge(self) -> None:
        try:
            self.purge_is_due = bool(await self._store.purge_deleted(PURGE_ROWS))
        except StoreError as error:
            log.warning("what deleted tenants left could not be deleted; tried again", error=str(error))
