"""What people do to runs and tenants while they are under way: cancel, delete."""

from __future__ import annotations

from synergymesh.domain.retry import Cancelled
from synergymesh.domain.scheduler import Scheduler
from synergymesh.domain.states import ExecutionStatus, TenantStatus
from synergymesh.engine.acting import current_actor
from synergymesh.engine.attempts import Attempts
from synergymesh.engine.live import LiveRun
from synergymesh.engine.open_runs import OpenRuns
from synergymesh.engine.tenants import Tenants
from synergymesh.engine.watching import Watching
from synergymesh.errors import TenantHasOpenRuns
from synergymesh.ports.store import Store

OPEN = (ExecutionStatus.PENDING, ExecutionStatus.RUNNING)


class Control:
    """Cancel runs, delete tenants."""

    def __init__(
        self,
        store: Store,
        tenants: Tenants,
        runs: OpenRuns,
        attempts: Attempts,
        scheduler: Scheduler[LiveRun],
        watching: Watching,
    ) -> None:
        self._store = store
        self._tenants = tenants
        self._runs = runs
        self._attempts = attempts
        self._scheduler = scheduler
        self._watching = watching

    async def cancel_run(self, run_id: str, tenant_id: str | None) -> bool:
        """Cancel a run; tell whether it was still open.

        Raises:
            UnknownRun: there is none of that id that this tenant may see.
        """
        record = await self._watching.record_of(run_id, tenant_id)
        run = self._runs.get(run_id)
        if run is None or record.status.is_final:
            return False
        await self.cancel(run)
        return True

    async def delete_tenant(self, tenant_id: str, *, force: bool) -> None:
        """Delete a tenant; with force, cancel its open runs first.

        Raises:
            UnknownTenant: there is none of that id.
            TenantHasOpenRuns: it has open runs, and force is False.
            InvalidRequest: it has sub-tenants.
        """
        before = self._tenants.check_childless(tenant_id)
        # nothing more is accepted while the runs are counted, so that none is acknowledged and then deleted
        tenant = await self._tenants.set_status(tenant_id, TenantStatus.SUSPENDED)
        open_runs = await self._store.count_runs(tenant_id=tenant_id, statuses=OPEN)
        if open_runs and not force:
            await self._tenants.set_status(tenant_id, before.status)
            raise TenantHasOpenRuns(tenant_id, open_runs)
        for run in self._runs:
            if run.tenant_id == tenant.tenant_id:
                await self.cancel(run)
                await self._watching.end_of(run.run_id, tenant_id)
        await self._tenants.set_status(tenant_id, TenantStatus.DELETED)
        for run in self._runs:
            if run.tenant_id == tenant.tenant_id:  # submitted while all this was under way
                self._runs.forget(run)
                for attempt in (run.running or {}).values():
                    if attempt.executor is not None:
                        attempt.executor.stop(attempt)

    async def cancel(self, run: LiveRun) -> None:
        """Cancel an open run."""
        if not run.cancelling:
            recorded = self._runs.cancel(run, current_actor())
            self._scheduler.refresh(run.tenant_id)
            for attempt in list((run.running or {}).values()):
                self._attempts.stop(attempt, Cancelled())
            await recorded
