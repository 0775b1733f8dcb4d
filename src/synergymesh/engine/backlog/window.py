"""The window of each tenant's backlog: the next waiting runs are in memory, the rest is read page by page.

A waiting run (recorded, not begun) has a place that never changes: its level, in which ageing is contained, and then
its id. A run *belongs* into memory if it may start by now, its version can be started, and its place is not behind the
window's edge. What belongs is in memory, apart from what is just being read; more may be (runs for later, as far as
there is room; what was submitted during a read), never more than twice the window of each kind.

A submission behind the edge costs its row and nothing else. One in front of it goes into memory at once, and pushes the
last ones out when there are too many. When the window is half empty, the next page is read.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterable

from synergymesh.domain.instants import SECOND, Instant
from synergymesh.domain.scheduling.queue_views import TenantView
from synergymesh.engine.background import Background
from synergymesh.engine.backlog.waiting import BEFORE_ALL, Part, live_run, place_of, waits
from synergymesh.engine.dispatch import Dispatcher
from synergymesh.engine.live import LiveRun
from synergymesh.engine.open_runs import OpenRuns
from synergymesh.engine.tenants import Tenants
from synergymesh.engine.versions import Version, Versions
from synergymesh.errors import StoreError
from synergymesh.logs import Log
from synergymesh.ports.changes import RunCreated
from synergymesh.ports.clock import Clock
from synergymesh.ports.records import RunRecord, WaitingRecord
from synergymesh.ports.store import Store

RUNS_IN_MEMORY_MAX = 50_000
"""Waiting runs of all tenants beyond which each one's window becomes smaller: about 100 MB."""

WINDOW_MIN = 64
"""No window becomes smaller than this, whatever the number of tenants: a page is read in a millisecond."""

RETRY_SECONDS = 1.0
"""Pause after a read that failed."""

log = Log("synergymesh.engine")


class Window:
    """Bring waiting runs into memory when their turn is near.

    Args:
        runs_max: the size of a tenant's window; up to twice as many runs are in memory.
    """

    def __init__(
        self,
        store: Store,
        runs: OpenRuns,
        versions: Versions,
        dispatcher: Dispatcher,
        tenants: Tenants,
        clock: Clock,
        background: Background,
        *,
        runs_max: int,
    ) -> None:
        self._store = store
        self._background = background
        self._runs = runs
        self._versions = versions
        self._dispatcher = dispatcher
        self._tenants = tenants
        self._clock = clock
        self._runs_max = runs_max
        self._parts: dict[str, Part] = {}
        self._stuck: dict[str, set[Part]] = {}
        self._held = 0
        self._readers: set[asyncio.Task[None]] = set()
        self._closed = False
        runs.waits_no_more = self._waits_no_more

    # --- start and end ----------------------------------------------------------------------------------------------

    async def start(self) -> int:
        """Count what waits, and read the first page of each tenant; give the number of waiting runs.

        Raises:
            StoreError: the database cannot be read.
        """
        counts = await self._store.list_waiting_counts()
        for count in counts:
            part = self._part(count.tenant_id)
            self._begin_with(part, count)
            if self._wants(part):
                await self._fill(part)
        return sum(count.runs for count in counts)

    def _begin_with(self, part: Part, count: WaitingRecord) -> None:
        self._runs.backlog.add(part.tenant_id, count.tasks)
        part.stays_in_store(count.tasks, count.runs)
        part.edge = BEFORE_ALL
        part.stale = True

    async def close(self) -> None:
        """Read nothing more."""
        self._closed = True
        for part in self._parts.values():
            part.silence()
        for reader in self._readers:
            reader.cancel()
        if self._readers:
            await asyncio.wait(self._readers)

    # --- what happens -----------------------------------------------------------------------------------------------

    def take(self, row: RunCreated, version: Version) -> None:
        """Take up a run that was just recorded, into memory or not."""
        part = self._part(row.tenant_id)
        if self._runs.get(row.run_id) is not None:
            self.count(row)  # a page was read after the commit and before its answer came
            return
        now = self._clock.now()
        stays = False
        if self._is_stuck(row.tenant_id, version):
            self._stick(part, row.content_hash)
            stays = True
        elif row.not_before > now:
            if len(part.timed) >= self._size():
                stays = True
                if part.later_edge is None or row.not_before < part.later_edge:
                    part.later_edge = row.not_before
                    self._set_alarm(part, now)
        elif part.edge is not None and not part.reading and (row.level, row.run_id) > part.edge:
            stays = True
        if stays:
            self._runs.backlog.add(row.tenant_id, row.tasks)
            part.stays_in_store(row.tasks)
            return
        run = live_run(row, version)
        self._runs.add(run)
        self._offer(part, run, now)
        if len(part.ready) > 2 * self._size():
            self._push_out(part)

    def count(self, row: RunCreated) -> None:
        """Count a run that came into memory with a page before it was known that it is recorded."""
        self._runs.backlog.add(row.tenant_id, row.tasks)
        self._part(row.tenant_id).stays_in_store(row.tasks)

    def _waits_no_more(self, run: LiveRun) -> None:
        """Take note that a run has begun, or will never begin."""
        part = self._parts.get(run.tenant_id)
        if part is None:
            return
        if part.ready.pop(run.run_id, None) is not None:
            self._held -= 1
            if part.edge is not None and not part.reading:
                self._fill_soon(part)
        elif part.timed.pop(run.run_id, None) is not None:
            self._held -= 1

    def code_found(self, version: Version) -> None:
        """Read again what waited for the functions of a version."""
        for part in [*self._stuck.get(version.plan.content_hash, ())]:
            if not self._is_stuck(part.tenant_id, version):
                self._unstick(part, version.plan.content_hash)
                self._fill_soon(part)

    def tenant_changed(self, tenant_id: str) -> None:
        """Look again at what a tenant and its family can start, because limits or a status have changed."""
        tenant = self._tenants.find(tenant_id)
        above = tenant_id if tenant is None or tenant.parent_id is None else tenant.parent_id
        for name in (above, *self._tenants.children_of(above)):
            part = self._parts.get(name)
            if part is not None:
                self._look_again(part)

    def workflow_changed(self) -> None:
        """Look again at what all tenants can start, because a workflow was paused or goes on."""
        for part in list(self._parts.values()):
            self._look_again(part)

    def _look_again(self, part: Part) -> None:
        stuck = {run.version.plan.content_hash: run.version for run in part.ready.values()}
        stuck = {key: version for key, version in stuck.items() if self._is_stuck(part.tenant_id, version)}
        if stuck:
            gone = [run for run in part.ready.values() if run.version.plan.content_hash in stuck]
            self._put_back(part, gone)
            part.turn += 1
        for content_hash in list(part.stuck):
            version = self._versions.known(content_hash)
            if version is None or not self._is_stuck(part.tenant_id, version):
                self._unstick(part, content_hash)
        for content_hash in stuck:
            self._stick(part, content_hash)
        self._fill_soon(part)

    def forget(self, tenant_id: str) -> None:
        """Forget a tenant that is deleted."""
        part = self._parts.pop(tenant_id, None)
        if part is None:
            return
        part.silence()
        for content_hash in [*part.stuck]:
            self._unstick(part, content_hash)
        self._held -= len(part.ready) + len(part.timed)
        self._runs.backlog.add(tenant_id, -part.tasks)
        part.stays_in_store(-part.tasks, -part.runs)
        part.turn += 1

    async def fetch(self, run_id: str, tenant_id: str | None) -> LiveRun | None:
        """Bring a waiting run into memory out of turn, to cancel it; None if it is not open and waiting any more."""
        with self._runs.leaving() as left:
            record = await self._store.get_run(run_id, tenant_id)
            if record is None:
                return None
            version = await self._versions.load(record.content_hash)
            live = self._runs.get(run_id)
            if live is not None:
                return live
            if run_id in left or run_id in self._runs.given_up or not waits(record):
                return None
        run = live_run(record, version)
        self._runs.load(run)
        self._part(run.tenant_id).stays_in_store(-record.tasks, -1)
        return run

    # --- what is known ----------------------------------------------------------------------------------------------

    def tasks_in_store(self, tenant_id: str) -> int:
        """Count the waiting tasks of a tenant, its sub-tenants' included, that are not in memory."""
        names = (tenant_id, *self._tenants.children_of(tenant_id))
        return sum(self._parts[name].tasks for name in names if name in self._parts)

    def complete(self, view: TenantView) -> TenantView:
        """Add to the view of a tenant's queue what waits in the store."""
        more = self.tasks_in_store(view.tenant_id)
        return dataclasses.replace(view, waiting=view.waiting + more) if more else view

    # --- inside -----------------------------------------------------------------------------------------------------

    def _part(self, tenant_id: str) -> Part:
        part = self._parts.get(tenant_id)
        if part is None:
            part = self._parts[tenant_id] = Part(tenant_id)
        return part

    def _size(self) -> int:
        if self._held <= RUNS_IN_MEMORY_MAX:
            return self._runs_max
        return min(self._runs_max, max(WINDOW_MIN, RUNS_IN_MEMORY_MAX // len(self._parts)))

    def _is_stuck(self, tenant_id: str, version: Version) -> bool:
        """Tell whether no run of a version can begin: no functions, or more is asked for than the limits as such."""
        plan = version.plan
        if version.tasks is None or self._runs.is_workflow_paused(tenant_id, plan.workflow):
            return True
        if not any(plan.largest_request):
            return False
        fits = self._dispatcher.scheduler.can_ever_run
        return not any(fits(tenant_id, plan.requests[position]) for position in plan.roots)

    def _stick(self, part: Part, content_hash: str) -> None:
        part.stuck.add(content_hash)
        self._stuck.setdefault(content_hash, set()).add(part)

    def _unstick(self, part: Part, content_hash: str) -> None:
        """Read everything again, the runs of a version included that could not begin."""
        part.stale = True
        part.stuck.discard(content_hash)
        parts = self._stuck[content_hash]
        parts.discard(part)
        if not parts:
            del self._stuck[content_hash]

    def _offer(self, part: Part, run: LiveRun, now: Instant) -> None:
        timed = run.not_before > now
        (part.timed if timed else part.ready)[run.run_id] = run
        self._held += 1
        self._dispatcher.offer(run, run.version.plan.roots, run.not_before if timed else 0)

    def _push_out(self, part: Part) -> None:
        """Let go of those behind the window, because there are twice too many."""
        ordered = sorted(part.ready.values(), key=place_of)
        size = self._size()
        last = place_of(ordered[size - 1])
        part.edge = last if part.edge is None else min(part.edge, last)
        part.turn += 1
        self._put_back(part, ordered[size:])

    def _put_back(self, part: Part, runs: Iterable[LiveRun]) -> None:
        gone = list(runs)
        for run in gone:
            del part.ready[run.run_id]
            self._runs.unload(run)
            part.stays_in_store(run.state.open_tasks)
        self._held -= len(gone)
        self._dispatcher.scheduler.withdraw(part.tenant_id, gone)

    # --- reading ----------------------------------------------------------------------------------------------------

    def _wants(self, part: Part) -> bool:
        """Tell whether the next page is to be read."""
        if self._closed or self._parts.get(part.tenant_id) is not part:
            return False
        if not part.stale and (part.edge is None or 2 * len(part.ready) >= self._size()):
            return False
        return self._tenants.may_start(part.tenant_id)

    def _fill_soon(self, part: Part) -> None:
        if not part.reading and self._wants(part):
            part.reading = True
            reader = asyncio.get_running_loop().create_task(self._fill_in_background(part), name="synergymesh-window")
            self._readers.add(reader)
            reader.add_done_callback(self._readers.discard)

    async def _fill_in_background(self, part: Part) -> None:
        try:
            await self._fill(part)
        except StoreError as error:
            log.warning("a backlog could not be read; tried again", tenant_id=part.tenant_id, error=str(error))
        except Exception as error:
            self._background.note("backlogs", error)
        else:
            return
        asyncio.get_running_loop().call_later(RETRY_SECONDS, self._fill_soon, part)

    async def _fill(self, part: Part) -> None:
        part.reading = True
        try:
            while self._wants(part):
                await self._read(part)
        finally:
            part.reading = False
        self._set_alarm(part, self._clock.now())

    async def _read(self, part: Part) -> None:
        """Read the next page, or the first one if anything before it may have changed."""
        whole, turn, size = part.stale, part.turn, self._size()
        part.stale = False
        now = self._clock.now()
        with self._runs.leaving() as left:
            try:
                page = await self._store.list_waiting_runs(
                    part.tenant_id,
                    due_by=now,
                    after=None if whole else part.edge,
                    limit=size,
                    except_versions=sorted(part.stuck),
                )
                later = await self._store.list_later_runs(part.tenant_id, after=now, limit=size + 1) if whole else []
                versions = {row.content_hash: await self._versions.load(row.content_hash) for row in (*page, *later)}
            except BaseException:
                part.stale = part.stale or whole
                raise
            if part.turn != turn:
                part.stale = part.stale or whole
                return
            for row in page:
                if row.run_id not in left:
                    self._bring(part, row, versions[row.content_hash], now)
            if whole:
                part.later_edge = None
                for row in later:
                    if len(part.timed) >= size and row.run_id not in part.timed:
                        part.later_edge = row.not_before
                        break
                    if row.run_id not in left:
                        self._bring(part, row, versions[row.content_hash], now)
                else:
                    if len(later) > size:
                        part.later_edge = later[-1].not_before
        if len(page) == size:
            part.edge = (page[-1].level, page[-1].run_id)
        else:
            part.edge = None
        if len(part.ready) > 2 * self._size():
            self._push_out(part)

    def _bring(self, part: Part, row: RunRecord, version: Version, now: Instant) -> None:
        """Bring a run into memory that was read, unless it is there or must not start."""
        if self._runs.get(row.run_id) is not None or row.run_id in self._runs.given_up:
            return
        if self._is_stuck(part.tenant_id, version):
            if row.content_hash not in part.stuck:
                self._stick(part, row.content_hash)
                if version.problem is not None:
                    log.warning(
                        "runs wait for their code",
                        workflow=row.workflow,
                        tenant_id=part.tenant_id,
                        reason=version.problem,
                    )
            return
        run = live_run(row, version)
        self._runs.load(run)
        part.stays_in_store(-row.tasks, -1)
        self._offer(part, run, now)

    def _set_alarm(self, part: Part, now: Instant) -> None:
        """Be called when runs for later come due that are not in memory."""
        if part.later_edge is not None and not self._closed:
            part.ring(self._ring, max(0, part.later_edge - now) / SECOND)

    def _ring(self, part: Part) -> None:
        part.alarm = None
        now = self._clock.now()
        if part.later_edge is not None and part.later_edge <= now:
            part.stale = True
            self._fill_soon(part)
        else:
            self._set_alarm(part, now)
