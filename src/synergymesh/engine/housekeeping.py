"""Keeps the database from growing for ever: old runs, unused versions, free pages, a long log."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypeVar

from synergymesh.domain.instants import Instant
from synergymesh.domain.retention import ended_before
from synergymesh.engine.background import Background
from synergymesh.engine.committer import Committer
from synergymesh.engine.run_ids import first_run_id
from synergymesh.engine.tenants import Tenants
from synergymesh.engine.versions import Versions
from synergymesh.errors import StoreError
from synergymesh.logs import Log
from synergymesh.ports.clock import Clock
from synergymesh.ports.store import Store

T = TypeVar("T")

FIRST_PASS_SECONDS = 5.0
"""A process begins to prune when it has begun its work; one that ends sooner leaves it to the next."""

PASS_SECONDS = 60.0
"""Pause between two looks at the runs of all tenants."""

VERSIONS_SECONDS = 6 * 3_600.0
"""Pause between two searches for unused versions: each looks at every run once."""

LOG_SECONDS = 5.0

ROWS_PER_STEP = 100
"""Rows deleted in one transaction: one to two milliseconds of writing, less than a commit takes."""

RUNS_PER_LOOK = 500
"""Runs looked at in one reading."""

PAGES_PER_STEP = 250
"""Free pages (1 MB) given back in one transaction."""

REST = 9.0
"""A step is followed by a rest of so many times its length: at most a tenth of the writer's time goes into this."""

LOG_BYTES_WARNED = 1_000_000_000
"""A log of this length is said: somebody has been reading the same state for long."""

log = Log("synergymesh.engine")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """Say what one pass has deleted.

    Attributes:
        runs: finished runs.
        rows: their rows: runs, tasks, attempts and what else belongs to them.
        workflow_versions: versions of workflows that no run used any more.
        pages: free pages given back to the file system.
    """

    runs: int
    rows: int
    workflow_versions: int
    pages: int


class Housekeeping:
    """Delete in small steps what is not kept any longer; between two steps everything else has its turn."""

    def __init__(
        self,
        store: Store,
        committer: Committer,
        tenants: Tenants,
        versions: Versions,
        clock: Clock,
        background: Background,
    ) -> None:
        self._store = store
        self._background = background
        self._committer = committer
        self._tenants = tenants
        self._versions = versions
        self._clock = clock
        self._tasks: list[asyncio.Task[None]] = []
        self._turn = asyncio.Lock()
        self._warned = False
        self._rest_seconds = FIRST_PASS_SECONDS
        self._versions_due = 0.0

    def start(self) -> None:
        """Begin."""
        self._tasks = [
            self._background.start("housekeeping", self._make_a_pass),
            self._background.start("log", self._watch_log),
        ]

    async def close(self) -> None:
        """End, after the step that is under way."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def prune(self, *, versions: bool = True) -> Pruned:
        """Make one pass: delete everything that may go now.

        Args:
            versions: whether unused versions are looked for too, for which every run is looked at.

        Raises:
            StoreError: the database cannot be read or written now.
        """
        async with self._turn:
            runs = rows = 0
            for tenant in self._tenants:
                moment = ended_before(self._clock.now(), tenant.retention_days)
                of_tenant, deleted = await self._prune_runs(tenant.tenant_id, moment)
                runs += of_tenant
                rows += deleted
            forgotten = await self._forget_versions() if versions else 0
            pages = 0
            while given := await self._gently(self._store.give_space_back(PAGES_PER_STEP)):
                pages += given
        if runs or forgotten:
            log.info("what is not kept any longer was deleted", runs=runs, rows=rows, workflow_versions=forgotten)
        return Pruned(runs=runs, rows=rows, workflow_versions=forgotten, pages=pages)

    async def _prune_runs(self, tenant_id: str, moment: Instant) -> tuple[int, int]:
        """Delete the runs of a tenant that ended before that moment; give how many, and how many rows."""
        runs = rows = 0
        after: str | None = None
        before = first_run_id(moment)  # who ended before it was submitted before it
        while True:
            page = await self._gently(
                self._store.list_prunable_runs(
                    tenant_id, ended_before=moment, after=after, before=before, limit=RUNS_PER_LOOK
                )
            )
            left = page.run_ids
            while left:
                step = await self._gently(self._store.prune_runs(left, ended_before=moment, limit=ROWS_PER_STEP))
                runs += len(left) - len(step.left)
                rows += step.rows
                left = step.left
            if page.after is None:
                return runs, rows
            after = page.after

    async def _forget_versions(self) -> int:
        """Delete the versions that no run uses any more; give how many."""
        unused: list[str] | None = None
        while unused is None:
            unused = await self._gently(self._store.find_unused_workflows(RUNS_PER_LOOK))
        if not unused:
            return 0
        # From now on a submission brings its version along again; those that came before are behind us then.
        self._versions.forget()
        await self._committer.record([])
        forgotten = 0
        for start in range(0, len(unused), ROWS_PER_STEP):
            forgotten += await self._gently(self._store.forget_workflows(unused[start : start + ROWS_PER_STEP]))
        return forgotten

    async def _gently(self, step: Awaitable[T]) -> T:
        """Make a step, and rest: the longer it took, the more others had to wait for it."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        answer = await step
        await asyncio.sleep((loop.time() - begun) * REST)
        return answer

    async def _make_a_pass(self) -> None:
        await asyncio.sleep(self._rest_seconds)
        self._rest_seconds = PASS_SECONDS
        loop = asyncio.get_running_loop()
        versions = loop.time() >= self._versions_due
        try:
            await self.prune(versions=versions)
            if versions:
                self._versions_due = loop.time() + VERSIONS_SECONDS
        except StoreError as error:
            log.warning("what is not kept any longer could not be deleted; tried again", error=str(error))

    async def _watch_log(self) -> None:
        await asyncio.sleep(LOG_SECONDS)
        try:
            length = await self._store.shorten_log()
        except StoreError as error:
            log.warning("the database's log could not be shortened; tried again", error=str(error))
            return
        if length > LOG_BYTES_WARNED and not self._warned:
            log.warning(
                "the database's log cannot be shortened: a program has been reading the same state for long. "
                "Look for open transactions of other programs on this database",
                log_bytes=length,
            )
        self._warned = length > LOG_BYTES_WARNED
