"""Submissions of which nobody knows whether they are recorded: the commit failed, which says nothing about it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from synergymesh.engine.background import Background
from synergymesh.engine.backlog.waiting import waits
from synergymesh.engine.backlog.window import Window
from synergymesh.engine.open_runs import OpenRuns
from synergymesh.errors import StoreError
from synergymesh.logs import Log
from synergymesh.ports.changes import RunCreated
from synergymesh.ports.records import RunRecord
from synergymesh.ports.store import Store

DOUBTS_MAX = 10_000
"""As many as can wait to be written at once; with more, nothing is submitted until they are settled."""

LOOK_SECONDS = 0.5
"""Pause before it is looked whether they are recorded: by then a database that was locked for a moment is not."""

log = Log("synergymesh.engine")


class Doubts:
    """Find out what became of submissions whose submitters were told of an error, and take up those that are recorded.

    Without that, such a run would wait in the database until the next start, and so would whoever repeats its
    submission and is given the same run.
    """

    def __init__(self, store: Store, runs: OpenRuns, window: Window, background: Background) -> None:
        self._store = store
        self._runs = runs
        self._window = window
        self._background = background
        self._rows: dict[str, tuple[RunCreated, Callable[[], None], bool]] = {}
        self._looking: asyncio.Task[None] | None = None

    @property
    def are_too_many(self) -> bool:
        """Tell whether nothing more should be submitted."""
        return len(self._rows) >= DOUBTS_MAX

    def add(self, row: RunCreated, begin: Callable[[], None], *, begun: bool) -> None:
        """Take a submission whose commit failed.

        Args:
            row: what would be recorded.
            begin: takes the run up.
            begun: whether the run has results from its beginning, so that it never waits.
        """
        self._rows[row.run_id] = (row, begin, begun)
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._look(), name="synergymesh-doubts")

    def found(self, record: RunRecord) -> None:
        """Take up a run because the store has it."""
        doubt = self._rows.pop(record.run_id, None)
        if doubt is None:
            return
        row, begin, begun = doubt
        log.info("a run was recorded although its submission failed", run_id=row.run_id, tenant_id=row.tenant_id)
        if begun or waits(record) or self._runs.get(row.run_id) is not None:
            begin()
        else:
            self._window.count(row)  # a page brought it, and it has begun or ended since

    async def close(self) -> None:
        """Look no more: the next start finds what is recorded."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])

    async def _look(self) -> None:
        while self._rows:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                for run_id in list(self._rows):
                    record = await self._store.get_run(run_id, None)
                    if record is None:
                        self._rows.pop(run_id, None)
                    else:
                        self.found(record)
            except StoreError as error:
                log.warning("it is not known whether runs were recorded; looked for again", error=str(error))
            except Exception as error:
                self._background.note("submissions in doubt", error)
        self._looking = None
