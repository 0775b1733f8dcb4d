"""What people do to runs and tenants while they are under way: cancel, delete."""

from __future__ import annotations

import asyncio

from synergymesh.domain.fault_tolerance.retry import Cancelled
from synergymesh.domain.states import ExecutionStatus
from synergymesh.engine.acting import current_actor
from synergymesh.engine.attempts import Attempts
from synergymesh.engine.backlog.window import Window
from synergymesh.engine.control.turns import LOOK_SECONDS, Turns
from synergymesh.engine.dispatch import Dispatcher
from synergymesh.engine.live import LiveRun
from synergymesh.engine.observability.watching import Watching
from synergymesh.engine.open_runs import OpenRuns
from synergymesh.engine.tenants import Tenants
from synergymesh.errors import StoreError, TenantHasOpenRuns, UnknownRun
from synergymesh.ports.store import Store

OPEN = (ExecutionStatus.PENDING, ExecutionStatus.RUNNING)


class Control:
    """Cancel runs, delete tenants.

    Who cancels or deletes may go away before it is done; it is done all the same.
    """

    def __init__(
        self,
        store: Store,
        turns: Turns,
        tenants: Tenants,
        runs: OpenRuns,
        attempts: Attempts,
        dispatcher: Dispatcher,
        watching: Watching,
        window: Window,
    ) -> None:
        self._store = store
        self._turns = turns
        self._tenants = tenants
        self._runs = runs
        self._attempts = attempts
        self._dispatcher = dispatcher
        self._watching = watching
        self._window = window

    async def cancel_run(self, run_id: str, tenant_id: str | None) -> bool:
        """Cancel a run; tell whether it was still open.

        Raises:
            UnknownRun: there is none of that id that this tenant may see.
        """
        record = await self._watching.record_of(run_id, tenant_id)
        if record.status.is_final:
            return False
        run = self._runs.get(run_id)
        if run is not None and run.state.compensating:
            return False  # it has failed or was cancelled, and what it did is being undone
        run = run or await self._window.fetch(run_id, tenant_id)
        if run is None or not run.state.open_tasks:
            return False  # final, or its end is on its way
        await self.cancel(run)
        return True

    async def delete_tenant(self, tenant_id: str, *, force: bool) -> None:
        """Delete a tenant; with force, cancel its open runs first.

        Raises:
            UnknownTenant: there is none of that id.
            TenantHasOpenRuns: it has open runs, and force is False.
            InvalidRequest: it has sub-tenants.
        """
        tenant = self._tenants.check_childless(tenant_id)
        await self._turns.carry_out(self._delete(tenant.tenant_id, force=force))

    async def _delete(self, tenant_id: str, *, force: bool) -> None:
        # nothing more is accepted while the runs are counted, so that none is acknowledged and then deleted
        async with self._tenants.leaving(tenant_id):
            open_runs = await self._store.count_runs(tenant_id=tenant_id, statuses=OPEN)
            if open_runs and not force:
                raise TenantHasOpenRuns(tenant_id, open_runs)
            for run in self._runs:
                if run.tenant_id == tenant_id:
                    await self.cancel(run, abandon=True)
                    await self._watching.end_of(run.run_id, tenant_id)
            for run_id in self._runs.followers.run_ids():
                # what waits in the store is deleted with the tenant; only those who follow it have to be told
                followed = await self._window.fetch(run_id, tenant_id)
                if followed is not None:
                    await self.cancel(followed, abandon=True)
            await self._tenants.delete(tenant_id)

    def tenant_removed(self, tenant_id: str) -> None:
        """Let go of everything of a tenant that is deleted."""
        self._window.forget(tenant_id)
        for run in self._runs:
            if run.tenant_id == tenant_id:  # submitted while the deletion was under way
                self._runs.forget(run)
                for attempt in (run.running or {}).values():
                    if attempt.executor is not None:
                        attempt.executor.stop(attempt)
        if self._runs.followers:
            self._turns.begin(self._release_followers())

    async def _release_followers(self) -> None:
        """Tell those who follow runs that are deleted, and were not in memory."""
        for run_id in self._runs.followers.run_ids():
            while True:
                try:
                    found = await self._store.get_run(run_id, None)
                    break
                except StoreError:
                    await asyncio.sleep(LOOK_SECONDS)
            if found is None and self._runs.get(run_id) is None:
                self._runs.followers.release(run_id, UnknownRun(run_id))

    def cancel_soon(self, run: LiveRun) -> None:
        """Cancel an open run for somebody who does not wait for it."""
        self._turns.begin(self.cancel(run))

    async def cancel(self, run: LiveRun, *, abandon: bool = False) -> None:
        """Cancel an open run; with `abandon`, without undoing what it did."""
        again = abandon and not run.abandoned
        run.abandoned = run.abandoned or abandon
        if (not run.cancelling or again) and run.state.open_tasks:
            recorded = self._runs.cancel(run, current_actor())
            self._dispatcher.look_again(run.tenant_id)
            for attempt in list((run.running or {}).values()):
                self._attempts.stop(attempt, Cancelled())
            await recorded
