"""The asynchronous face of SynergyMesh."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Literal, Self

from synergymesh.assembly import Parts, Seams, assemble
from synergymesh.audit_control import AuditControl
from synergymesh.domain.actors import Actor
from synergymesh.domain.alerts import Condition
from synergymesh.domain.breaker import BreakerPolicy
from synergymesh.domain.definition import WorkflowDefinition
from synergymesh.domain.limits import Capacity, CohortShare
from synergymesh.domain.neighbours import Neighbour
from synergymesh.domain.payload import decode
from synergymesh.domain.queue_views import TenantView
from synergymesh.domain.quota import ResourceQuota
from synergymesh.domain.retry import DEFAULT_RETRY, RetryPolicy
from synergymesh.domain.service_levels import ServiceLevel
from synergymesh.domain.simulation import PlannedRun
from synergymesh.domain.states import ExecutionStatus, TenantStatus
from synergymesh.domain.tenants import Tenant, TenantTier
from synergymesh.domain.timeline import Timeline
from synergymesh.engine.acting import ActingAs, current_actor
from synergymesh.engine.control import OPEN
from synergymesh.engine.direct_calls import DirectCall, ExecutionResult
from synergymesh.engine.events import RunEvent
from synergymesh.engine.explaining import RunExplanation
from synergymesh.engine.housekeeping import Pruned
from synergymesh.engine.live import LiveRun
from synergymesh.engine.monitoring import MeshMetrics, TenantHealth
from synergymesh.engine.overview import Overview
from synergymesh.engine.timelines import timeline_of
from synergymesh.engine.views import (
    BreakerView,
    LingeringAttempt,
    LogLine,
    Run,
    breaker_view,
    errors_of,
    lingering_views,
    log_views,
    run_view,
    summary,
    task_views,
)
from synergymesh.engine.what_if import TenantChange, WhatIf
from synergymesh.errors import InvalidRequest, NotRunning, RunCancelled, RunFailed, RunTimedOut, StoreCorrupt
from synergymesh.local.server import LocalServer
from synergymesh.local.verbs import answering
from synergymesh.ports.clock import Clock, SystemClock
from synergymesh.ports.store import AttemptRecord, RunRecord, Store, TaskRecord
from synergymesh.run_control import RunControl
from synergymesh.run_handle import RunHandle
from synergymesh.settings import Settings, change_settings
from synergymesh.store.sqlite import SqliteStore
from synergymesh.store.sqlite_files import parse_address
from synergymesh.telemetry.metrics import exposition
from synergymesh.workflows.registry import Registry
from synergymesh.workflows.workflow import Workflow

PAGE_RUNS_MAX = 1_000


class Orchestrator(RunControl, AuditControl):
    """Run workflows for tenants, durably; use it as an asynchronous context manager.

    Leaving the context lets running tasks end within a grace period. Open runs stay in the database, and go on when it
    is opened again.

    Args:
        database: `sqlite:///file.db`, or `:memory:`.
        workflows: that runs of an earlier process may need, and that `submit` finds by name.
        max_concurrent_tasks: tasks at the same time over all tenants, 256 by default.
        synchronous: "full" survives power loss; "normal" may lose the last moments then, and nothing when only the
            process dies.
        default_retry: the policy of tasks that have none of their own.
        shutdown_grace_seconds: how long leaving the context waits for running tasks before it stops them.
        stop_grace_seconds: how long a stopped task may take to end before it is given up.
        payload_bytes_max: limit of an input and of a result, in bytes of JSON.
        execute: whether tasks are started; False to accept, cancel and administrate only.
        clock: where the time comes from.
        seams: a store, executors or dice in place of the usual ones.
        settings: everything else; what is not given here comes from `SYNERGYMESH_…` variables and `synergymesh.toml`.

    Raises:
        InvalidRequest: an argument cannot be accepted.
    """

    def __init__(
        self,
        database: str | None = None,
        *,
        workflows: Iterable[Workflow] = (),
        max_concurrent_tasks: int | None = None,
        synchronous: Literal["full", "normal"] | None = None,
        default_retry: RetryPolicy = DEFAULT_RETRY,
        shutdown_grace_seconds: float | None = None,
        stop_grace_seconds: float | None = None,
        payload_bytes_max: int | None = None,
        execute: bool = True,
        clock: Clock | None = None,
        seams: Seams | None = None,
        settings: Settings | None = None,
    ) -> None:
        given = {
            "database": database,
            "max_concurrent_tasks": max_concurrent_tasks,
            "synchronous": synchronous,
            "shutdown_grace_seconds": shutdown_grace_seconds,
            "stop_grace_seconds": stop_grace_seconds,
            "payload_bytes_max": payload_bytes_max,
        }
        self.settings = change_settings(settings, {name: value for name, value in given.items() if value is not None})
        self._registry = Registry()
        for workflow in workflows:
            self._registry.add(workflow)
        self._seams = seams or Seams()
        self._database: Store = self._seams.store or SqliteStore(
            self.settings.database, synchronous=self.settings.synchronous
        )
        self._default_retry = default_retry
        self._execute = execute
        self._clock = clock or SystemClock()
        self._parts: Parts | None = None
        self._server: LocalServer | None = None

    # --- start and end --------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Open the database, take up the open runs, and begin.

        Raises:
            StoreError: the database cannot be used; the message says why and what to do.
        """
        assert self._parts is None, "this orchestrator is started already"
        store = self._database
        await store.open()
        try:
            await store.begin_incarnation(current_actor())
            parts = assemble(store, self.settings, self._registry, self._default_retry, self._clock, self._seams)
            self._parts = parts
            for executor in parts.executors.values():
                await executor.start()
            parts.committer.start()
            await parts.tenants.load()
            await parts.circuits.load()
            await parts.statistics.load()
            await parts.pausing.load()
            await parts.recovery.run()
            if self._execute:
                parts.dispatcher.start()
            parts.maintenance.start()
            if parts.watchdog is not None:
                parts.watchdog.start()
            parts.auditing.start()
            await self._listen()
            parts.housekeeping.start()
        except BaseException:
            if self._parts is not None:
                await self._parts.committer.close()
                for executor in self._parts.executors.values():
                    await executor.close()
                await self._parts.delivery.close()
                self._parts = None
            await store.close()
            raise

    async def close(self, *, grace_seconds: float | None = None) -> None:
        """Let running tasks end within the grace period, stop the rest, record everything, release the database.

        Args:
            grace_seconds: seconds; what the orchestrator was made with when None.
        """
        parts, self._parts = self._parts, None
        if parts is None:
            return
        if self._server is not None:
            await self._server.close()
            self._server = None
        await parts.housekeeping.close()
        await parts.auditing.stop()
        await parts.maintenance.close()
        await parts.window.close()
        if parts.watchdog is not None:
            parts.watchdog.close()
        await parts.doubts.close()
        parts.dispatcher.stop()
        grace = self.settings.shutdown_grace_seconds if grace_seconds is None else grace_seconds
        await parts.attempts.drain(grace)
        parts.maintenance.record_everything()
        parts.deadlines.close()
        await parts.committer.close()
        parts.watching.close()
        for executor in parts.executors.values():
            await executor.close()
        await parts.delivery.close()
        try:
            if parts.committer.trouble is None:
                await parts.store.end_incarnation(current_actor())
                await parts.auditing.close()
        finally:
            await parts.store.close()

    def acting_as(self, actor: Actor) -> ActingAs:
        """Record what is asked for inside this context (`with` or `async with`) on that actor's account.

        Outside, it is recorded on the account of the system user under whom the process runs.

        Raises:
            InvalidRequest: it is no actor.
        """
        return ActingAs(actor)

    # --- tenants --------------------------------------------------------------------------------------------------

    async def create_tenant(
        self,
        tenant_name: str,
        tier: TenantTier | str = TenantTier.BASIC,
        *,
        quota: ResourceQuota | None = None,
        parent: str | None = None,
        share: CohortShare | None = None,
    ) -> Tenant:
        """Make a tenant.

        Args:
            tenant_name: a name for people; it need not be unique.
            tier: its plan.
            quota: its own limits instead of the tier's.
            parent: the tenant whose quota it shares, for a sub-tenant.
            share: what of that quota it gets whenever it wants it, may borrow, and lends.

        Raises:
            InvalidRequest: a value cannot be accepted.
            UnknownTenant: there is no such parent.
            FeatureNotEnabled: the parent's tier has no sub-tenants.
        """
        return await self._running.tenants.create(tenant_name, tier, quota, parent, share)

    async def set_tier(self, tenant_id: str, tier: TenantTier | str) -> Tenant:
        """Give a tenant another plan with its quota, from the next dispatch on; what runs goes on.

        Raises:
            UnknownTenant: there is none of that id.
            InvalidRequest: there is no such tier.
        """
        return await self._running.tenants.change_plan(tenant_id, tier=tier)

    async def set_quota(self, tenant_id: str, quota: ResourceQuota) -> Tenant:
        """Give a tenant other limits, from the next dispatch on; what runs goes on, whatever they are.

        Raises:
            UnknownTenant: there is none of that id.
            InvalidRequest: it is no quota.
        """
        return await self._running.tenants.change_plan(tenant_id, quota=quota)

    async def set_weight(self, tenant_id: str, weight: int | None) -> Tenant:
        """Give a tenant another weight in the fair queue than its tier's; None for the tier's.

        Raises:
            UnknownTenant: there is none of that id.
            InvalidRequest: the weight is outside its range.
        """
        return await self._running.tenants.change_plan(tenant_id, weight=weight)

    async def throttle_tenant(self, tenant_id: str, percent: int | None) -> Tenant:
        """Let a tenant use only that percentage of its own limits at a time; None for all of them.

        Raises:
            UnknownTenant: there is none of that id.
            InvalidRequest: percent is not from 1 to 100.
        """
        return await self._running.tenants.change_plan(tenant_id, throttle_percent=percent)

    async def set_retry_policy(
        self, tenant_id: str, policy: RetryPolicy | None, *, workflow: str | None = None, component: str | None = None
    ) -> Tenant:
        """Give a tenant a retry policy of its own, which counts from the next failure on; None takes it away.

        A policy for a component, or for a workflow, comes before what the task declares; one for the whole tenant is
        only the default of tasks that declare none.

        Args:
            tenant_id: whose; its sub-tenants have it too, unless they have their own.
            policy: what counts there.
            workflow: the name of the workflow that it is for; None for all.
            component: the id of the component of that workflow; None for all.

        Raises:
            UnknownTenant: there is none of that id.
            InvalidRequest: it is no policy, or a component is named without its workflow.
            FeatureNotEnabled: the tenant's tier does not have advanced_retry.
        """
        return await self._running.retry_policies.change(tenant_id, policy, workflow, component)

    async def set_retention(self, tenant_id: str, days: float | None) -> Tenant:
        """Let the finished runs of a tenant be kept so many days; None for its tier's number, 0 for not at all.

        Raises:
            UnknownTenant: there is none of that id.
            InvalidRequest: days is not from 0 to 36,500.
        """
        return await self._running.tenants.change_plan(tenant_id, retention_days=days)

    async def set_breaker_policy(
        self,
        tenant_id: str,
        policy: BreakerPolicy | None,
        *,
        breaker: str | None = None,
        workflow: str | None = None,
        component: str | None = None,
    ) -> Tenant:
        """Give a tenant a breaker policy of its own: for what tasks name, a component, a workflow, or all it runs.

        Args:
            tenant_id: whose; its sub-tenants have it too, unless they have their own.
            policy: what counts there; None takes it away.
            breaker: the name that tasks give with `breaker=`.
            workflow: the name of a workflow.
            component: the id of a component of that workflow; None for all.

        Raises:
            UnknownTenant: there is none of that id.
            InvalidRequest: it is no policy, or the names cannot be.
            FeatureNotEnabled: the tenant's tier does not have custom_policies.
        """
        return await self._running.circuits.set_policy(tenant_id, policy, breaker, workflow, component)

    async def breakers(self, tenant: str | None = None) -> list[BreakerView]:
        """Give the circuits that have failed lately, and those that were ever open.

        Args:
            tenant: whose; None for all.

        Raises:
            UnknownTenant: there is none of that id.
        """
        return [breaker_view(record) for record in await self._running.circuits.list(tenant)]

    async def reset_breaker(
        self,
        tenant_id: str,
        *,
        breaker: str | None = None,
        workflow: str | None = None,
        component: str | None = None,
    ) -> None:
        """Close a circuit by hand: what it holds back may start at once.

        Args:
            tenant_id: whose.
            breaker: the name that tasks give with `breaker=`.
            workflow: or the name of the workflow,
            component: and the id of its component.

        Raises:
            UnknownTenant: there is none of that id.
            UnknownBreaker: nothing of that name has failed lately.
            InvalidRequest: the names cannot be.
        """
        await self._running.circuits.reset(tenant_id, breaker, workflow, component)

    async def get_tenant(self, tenant_id: str) -> Tenant:
        """Give a tenant.

        Raises:
            UnknownTenant: there is none of that id.
        """
        return self._running.tenants.get(tenant_id)

    async def list_tenants(self) -> list[Tenant]:
        """Give all tenants, oldest first."""
        return list(self._running.tenants)

    async def suspend_tenant(self, tenant_id: str) -> Tenant:
        """Accept and start nothing more for a tenant; what runs goes on.

        Raises:
            UnknownTenant: there is none of that id.
        """
        return await self._running.tenants.set_status(tenant_id, TenantStatus.SUSPENDED)

    async def resume_tenant(self, tenant_id: str) -> Tenant:
        """Accept and start tasks of a suspended tenant again.

        Raises:
            UnknownTenant: there is none of that id.
        """
        return await self._running.tenants.set_status(tenant_id, TenantStatus.ACTIVE)

    async def delete_tenant(self, tenant_id: str, *, force: bool = False) -> None:
        """Delete a tenant with everything that is recorded of it.

        Args:
            tenant_id: which.
            force: cancel its open runs first.

        Raises:
            UnknownTenant: there is none of that id.
            TenantHasOpenRuns: it has open runs, and force is False.
        """
        parts = self._running
        await parts.control.delete_tenant(tenant_id, force=force)
        parts.circuits.forget(tenant_id)
        parts.statistics.forget(tenant_id)
        parts.maintenance.purge_is_due = True

    # --- runs -----------------------------------------------------------------------------------------------------

    async def submit(
        self,
        workflow: Workflow | str,
        *,
        tenant: str,
        input: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        priority: int = 0,
        not_before: datetime | None = None,
    ) -> RunHandle:
        """Submit a run; once this returns, the run is never lost.

        Args:
            workflow: a workflow, or the name of one that the orchestrator was given.
            tenant: the tenant's id.
            input: the workflow's parameters by name; plain JSON.
            idempotency_key: the same key of the same tenant gives the same run again.
            priority: -1,000 to 1,000 among the runs of this tenant; the highest goes first.
            not_before: no task starts earlier; aware.

        Raises:
            UnknownTenant, TenantNotActive: nothing can be submitted for that tenant.
            UnknownWorkflow: there is no workflow of that name.
            InvalidRequest: input, key, priority or not_before cannot be accepted.
            IdempotencyConflict: the key belongs to a run with another workflow or input.
            StoreUnavailable: the run could not be recorded.
        """
        parts = self._running
        if isinstance(workflow, str):
            workflow = self._registry.get(workflow)
        elif not isinstance(workflow, Workflow):
            raise InvalidRequest(
                f"workflow must be a workflow or the name of one, not {workflow!r}. Decorate the function with "
                f"@workflow.",
                field="workflow",
            )
        run_id = await parts.submission.submit(workflow, tenant, input, idempotency_key, priority, not_before)
        return RunHandle(self, run_id, tenant)

    async def call(
        self,
        calls: Sequence[DirectCall],
        *,
        tenant: str,
        name: str | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> list[ExecutionResult]:
        """Call coroutine functions, closures too, as tasks of a tenant: under its limits, with retries, recorded.

        What a function raises is in its result. The tenant's submission rate is not asked for, since this is a direct
        call and no request. After a crash it cannot go on: what was recorded of it is failed with that reason.

        Args:
            calls: what to call; each starts once those that it names in `after` have succeeded.
            tenant: the tenant's id.
            name: shown as the workflow of the run; the component's id, or `components`, when None.
            loop: where the functions run; the orchestrator's own event loop when None.

        Raises:
            UnknownTenant, TenantNotActive: nothing can be called for that tenant.
            InvalidRequest: a call cannot be accepted.
            BacklogFull: too many tasks of the tenant wait.
            StoreError: the results could not be recorded.
        """
        parts = self._running
        shown = name or (calls[0].component_id if len(calls) == 1 else "components")
        return await parts.direct_calls.call(shown, tenant, calls, loop or asyncio.get_running_loop())

    async def get_run(self, run_id: str, *, tenant: str | None = None) -> Run:
        """Give a run with all of its tasks.

        Args:
            run_id: which.
            tenant: whose run it has to be; None for the operator.

        Raises:
            UnknownRun: there is none of that id that this tenant may see.
        """
        record, definition, tasks, attempts = await self._rows_of(run_id, tenant)
        live = self._live(run_id)
        return run_view(record, live, task_views(definition, tasks, attempts, live), problem=self._problem(record))

    async def timeline(self, run_id: str, *, tenant: str | None = None) -> Timeline:
        """Say where the time of a run went: every attempt, every wait with its reason, the critical path as it was.

        Draw it with `timeline_svg` or `timeline_html`.

        Args:
            run_id: which; an open one is shown until now.
            tenant: whose run it has to be; None for the operator.

        Raises:
            UnknownRun: there is none of that id that this tenant may see.
        """
        record, definition, tasks, attempts = await self._rows_of(run_id, tenant)
        return timeline_of(record, definition, tasks, attempts, self._clock.now(), self._live(run_id))

    async def _rows_of(
        self, run_id: str, tenant: str | None
    ) -> tuple[RunRecord, WorkflowDefinition, list[TaskRecord], list[AttemptRecord]]:
        """Give all that is recorded of a run, as it was at one moment."""
        parts = self._running
        record = await parts.watching.record_of(run_id, tenant)
        workflow = await parts.store.get_workflow(record.content_hash)
        if workflow is None:
            raise StoreCorrupt(f"the database has {run_id}, but not its workflow version {record.content_hash}.")
        while True:
            tasks = await parts.store.list_tasks([run_id], tenant)
            attempts = await parts.store.list_attempts([run_id], tenant)
            before, record = record, await parts.watching.record_of(run_id, tenant)
            if record.status is before.status:
                break  # else it moved on between the reads, and its tasks have to be read again
        live = self._live(run_id)
        definition = WorkflowDefinition.from_json(workflow.definition) if live is None else live.version.plan.definition
        return record, definition, tasks, attempts

    async def logs(self, run_id: str, task_id: str | None = None, *, tenant: str | None = None) -> list[LogLine]:
        """Give what the attempts of a run have printed and logged, in the order of time; also while they run.

        Of each attempt the first and the last lines are kept, some 64,000 characters.

        Args:
            run_id: which.
            task_id: only of this task.
            tenant: whose run it has to be; None for the operator.

        Raises:
            UnknownRun: there is none of that id that this tenant may see.
        """
        parts = self._running
        await parts.watching.record_of(run_id, tenant)
        outputs = await parts.store.list_outputs(run_id, task_id, tenant)
        return log_views(outputs, self._live(run_id), task_id, self._clock.now())

    async def list_runs(
        self,
        *,
        tenant: str | None = None,
        status: ExecutionStatus | str | Sequence[ExecutionStatus | str] = (),
        workflow: str | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> list[Run]:
        """Give runs without their tasks, newest first.

        Args:
            tenant: whose; None for the operator, who sees all.
            status: only those in one of these states.
            workflow: only those of this workflow.
            limit: 1 to 1,000.
            cursor: the id of the last run of the page before.

        Raises:
            InvalidRequest: status or limit cannot be accepted.
        """
        parts = self._running
        if not isinstance(limit, int) or not 1 <= limit <= PAGE_RUNS_MAX:
            raise InvalidRequest(f"limit must be from 1 to {PAGE_RUNS_MAX:,}, not {limit!r}.", field="limit")
        records = await parts.store.list_runs(
            tenant_id=tenant, statuses=_statuses(status), workflow=workflow, before=cursor, limit=limit
        )
        return [run_view(record, self._live(record.run_id), problem=self._problem(record)) for record in records]

    async def count_open_runs(self, tenant: str | None = None) -> int:
        """Count the runs that are not final.

        Args:
            tenant: whose; None for all.
        """
        return await self._running.store.count_runs(tenant_id=tenant, statuses=OPEN)

    async def cancel_run(self, run_id: str, *, tenant: str | None = None) -> bool:
        """Cancel a run: what waits never starts, what runs is stopped as far as possible.

        Returns:
            whether the run was still open.

        Raises:
            UnknownRun: there is none of that id that this tenant may see.
        """
        return await self._running.control.cancel_run(run_id, tenant)

    async def explain(self, run_id: str, *, tenant: str | None = None) -> RunExplanation:
        """Say why a run does not go on: what each waiting task waits for, its place in the queue, and when it starts.

        Raises:
            UnknownRun: there is none of that id that this tenant may see.
        """
        return await self._running.explaining.run(run_id, tenant)

    async def lingering(self) -> list[LingeringAttempt]:
        """Name the attempts that were stopped and go on all the same: each keeps its slot until it really ends.

        A plain function in a thread cannot be stopped from outside; a coroutine can ignore that it is.
        """
        return lingering_views(self._running.attempts.lingering())

    async def queue(self) -> list[TenantView]:
        """Describe every tenant's queue: what waits and runs, its share, its use of each limit, what holds it."""
        return self._running.explaining.queue()

    async def get_metrics(self) -> MeshMetrics:
        """Give the figures of all tenants together: executions, failures, durations, retries."""
        return await self._running.monitoring.mesh()

    async def metrics_text(self) -> str:
        """Give the metrics in Prometheus' text format; `telemetry.endpoint.MetricsEndpoint` serves them."""
        return exposition(self._running.monitoring.figures(), tenants_max=self.settings.metrics_tenants_max)

    async def alerts(self) -> list[Condition]:
        """Give what is wrong and was told to the alert sinks: a database that cannot be written, tenants that fail."""
        return self._running.alerts.standing

    async def sla_report(self, tenant_id: str) -> list[ServiceLevel]:
        """Compare the last hour, day and thirty days of a tenant with what its tier promises.

        Raises:
            UnknownTenant: there is none of that id.
        """
        return await self._running.monitoring.service_levels(tenant_id)

    async def get_tenant_health(self, tenant_id: str) -> TenantHealth:
        """Say how a tenant is doing, judged by its last hour, with the reasons and its figures.

        Raises:
            UnknownTenant: there is none of that id.
        """
        return self._running.monitoring.health(tenant_id)

    async def check_resource_quota(self, tenant_id: str, resource_type: str = "concurrent") -> bool:
        """Tell whether a limit of a tenant has room for one more; takes nothing.

        Args:
            tenant_id: which.
            resource_type: concurrent (slots), memory, cpu, hourly (starts), rate_limit (submissions), or tasks for all.

        Raises:
            UnknownTenant: there is none of that id.
            InvalidRequest: there is no such resource.
        """
        return self._running.monitoring.has_room(tenant_id, resource_type)

    async def acquire_rate_limit(self, tenant_id: str) -> bool:
        """Take a place in a tenant's submission rate; tell whether there was one.

        Raises:
            UnknownTenant: there is none of that id.
        """
        return self._running.monitoring.take_rate(tenant_id)

    async def overview(self, limit: int = 100) -> Overview:
        """Describe the busiest tenants: names, queues, use of each limit, and their part of the last minutes.

        Args:
            limit: how many tenants at most, 1 to 10,000.

        Raises:
            InvalidRequest: the limit is outside its range.
        """
        return await self._running.overviews.now(limit)

    async def neighbours(self) -> list[Neighbour]:
        """Describe who was served how much in the last minutes beside their weight, the noisiest first."""
        return self._running.overviews.neighbours()

    async def prune(self) -> Pruned:
        """Delete now what is not kept any longer, in small steps; it is done every minute by itself.

        Raises:
            StoreError: the database cannot be read or written now.
        """
        return await self._running.housekeeping.prune()

    async def what_if(
        self,
        tenants: Mapping[str, TenantChange] | None = None,
        *,
        capacity: Capacity | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        workload: Iterable[PlannedRun] | None = None,
        tenant: str | None = None,
    ) -> WhatIf:
        """Replay runs on a virtual clock as things are and as they would be, through the very same scheduler.

        The replay runs in a thread and takes turns with the event loop; `synergymesh what-if` replays in a process of
        its own. Delays between attempts, pauses and learnt durations are not replayed.

        Args:
            tenants: by id, another tier, quota or weight.
            capacity: in place of the present one.
            since: recorded runs that were submitted from then on; aware. The last 24 hours before `until` by default.
            until: and before then; now by default.
            workload: declared runs instead of recorded ones.
            tenant: who asks; it changes and sees only its own. None for the operator.

        Raises:
            FeatureNotEnabled: the asking tenant's tier has no `advanced_analytics`.
            UnknownTenant: a change or a run is of a tenant that there is not, or that is not the asker's.
            InvalidRequest: a value cannot be accepted, nothing is different, or too many tasks ran in that time.
        """
        return await self._running.what_ifs.ask(tenants or {}, capacity, since, until, workload, tenant)

    def handle(self, run_id: str, *, tenant: str) -> RunHandle:
        """Give the handle of a run that was submitted earlier, by another process say."""
        return RunHandle(self, run_id, tenant)

    async def result_of(self, run_id: str, *, tenant: str | None = None, timeout: float | None = None) -> Any:  # noqa: ASYNC109 - passed on from RunHandle.result
        """Wait until a run is final and give what its workflow returned; see `RunHandle.result`."""
        ending = self._running.watching.end_of(run_id, tenant)
        end = await (ending if timeout is None else asyncio.wait_for(ending, timeout))
        if end.status is ExecutionStatus.CANCELLED:
            raise RunCancelled(f"{run_id} was cancelled.", run_id=run_id)
        if end.status is ExecutionStatus.TIMEOUT:
            errors = errors_of(end.error)
            raise RunTimedOut(
                f"{run_id} timed out: {errors.get('') or summary(errors)}",
                run_id=run_id,
                errors={component_id: str(error) for component_id, error in errors.items() if component_id},
            )
        if end.status not in (ExecutionStatus.SUCCESS, ExecutionStatus.PARTIAL):
            errors = errors_of(end.error)
            raise RunFailed(
                f"{run_id} failed: {summary(errors)}",
                run_id=run_id,
                errors={component_id: str(error) for component_id, error in errors.items()},
            )
        return None if end.result is None else decode(end.result)

    def events_of(self, run_id: str, *, tenant: str | None = None) -> AsyncIterator[RunEvent]:
        """Follow a run; see `RunHandle.events`."""
        return self._running.watching.events_of(run_id, tenant)

    # --- inside ---------------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        """Begin to answer other processes, if this one executes a database that they can see."""
        path = None if self._seams.store else parse_address(self.settings.database)
        if path is not None and self._execute and self.settings.local_socket:
            self._server = LocalServer(path, answering(self))
            await self._server.start()

    @property
    def _running(self) -> Parts:
        if self._parts is None:
            raise NotRunning(
                "the orchestrator is not started, or closed. Use it inside `async with Orchestrator(...)`."
            )
        return self._parts

    def _problem(self, record: RunRecord) -> str | None:
        parts = self._running
        if record.paused_at is not None:
            return "it is paused"
        if parts.pausing.is_workflow_paused(record.tenant_id, record.workflow):
            return f"the workflow {record.workflow!r} is paused"
        version = parts.versions.known(record.content_hash)
        return None if version is None else version.problem

    def _handle(self, run_id: str, tenant_id: str) -> RunHandle:
        return RunHandle(self, run_id, tenant_id)

    def _live(self, run_id: str) -> LiveRun | None:
        return self._running.runs.get(run_id)


def _statuses(status: ExecutionStatus | str | Sequence[ExecutionStatus | str]) -> list[ExecutionStatus]:
    wanted = [status] if isinstance(status, str) else list(status)
    try:
        return [ExecutionStatus(s) for s in wanted]
    except ValueError as error:
        known = ", ".join(s.value for s in ExecutionStatus)
        raise InvalidRequest(f"status must be one of {known}: {error}.", field="status") from None
