"""The synchronous face of SynergyMesh for programs that embed it: `Orchestrator` through a portal, no own logic."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from inspect import isawaitable
from types import MappingProxyType, TracebackType
from typing import Any, Self, TypeVar

from synergymesh.audit.entries import AuditEntry
from synergymesh.domain.fault_tolerance.retry import DEFAULT_RETRY, RetryPolicy
from synergymesh.domain.graphs.graph import checked_component_id, checked_component_ids
from synergymesh.domain.quota import ResourceQuota
from synergymesh.domain.tenants import Tenant, TenantTier
from synergymesh.domain.workflow.component_types import ComponentType
from synergymesh.engine.direct_calls import DirectCall, ExecutionResult, results_of
from synergymesh.engine.observability.views import Run
from synergymesh.errors import InvalidRequest, UnknownTenant
from synergymesh.orchestrator import Orchestrator
from synergymesh.portal import Portal
from synergymesh.ports.clock import Clock
from synergymesh.resolver.components import checked_type
from synergymesh.resolver.dependency_resolver import DependencyResolver
from synergymesh.settings import Settings
from synergymesh.workflows.direct_tasks import loop_waiting
from synergymesh.workflows.workflow import Workflow

TenantConfig = Tenant
"""A tenant as this face names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentDependency:
    """Say what a component runs after, directly."""

    component_id: str
    depends_on: tuple[str, ...]
    component_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditLog:
    """Describe an entry of the audit log as this face names things.

    Attributes:
        audit_id: the chain and the number of the entry in it.
        timestamp: when it happened, aware (UTC).
        tenant_id: whose; '' for the mesh itself.
        action: what was done: `create_tenant`, `execute_component`, or the catalogue's name with underscores.
        component_id: of a task, or None.
        user_id: on whose account, `type/id`.
        status: success, failure or denied; a cancelled task is no failure, its metadata says so.
        metadata: the entity, the details, and where it came from.
    """

    audit_id: str
    timestamp: datetime
    tenant_id: str
    action: str
    component_id: str | None
    user_id: str
    status: str
    metadata: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Give a dictionary with the time in ISO 8601."""
        return {**asdict(self), "timestamp": self.timestamp.isoformat()}


ACTION_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "tenant.created": "create_tenant",
        "tenant.plan_changed": "modify_tenant",
        "tenant.suspended": "suspend_tenant",
        "tenant.resumed": "resume_tenant",
        "tenant.deleted": "delete_tenant",
        "run.submitted": "submit_run",
        "run.finished": "finish_run",
        "task.finished": "execute_component",
        "task.retried": "retry_component",
    }
)
"""What this face calls actions of the catalogue; the others have an underscore in the place of the dot."""

AUDIT_PAGE = 1_000

Function = Callable[..., Coroutine[Any, Any, Any]]
T = TypeVar("T")


class _Tenants(Mapping[str, Tenant]):
    """Look tenants up when they are asked for."""

    def __init__(self, mesh: EnterpriseSynergyMeshOrchestrator) -> None:
        self._mesh = mesh

    def __getitem__(self, tenant_id: str) -> Tenant:
        tenant = self._mesh.get_tenant(tenant_id)
        if tenant is None:
            raise KeyError(tenant_id)
        return tenant

    def __iter__(self) -> Iterator[str]:
        return iter([tenant.tenant_id for tenant in self._mesh._list_tenants()])

    def __len__(self) -> int:
        return len(self._mesh._list_tenants())

    def __repr__(self) -> str:
        return f"<tenants: {', '.join(self)}>"


class EnterpriseSynergyMeshOrchestrator:
    """Run functions and workflows for tenants, from synchronous programs and from any event loop.

    Methods block until they are done, except those that are awaited: these run the given functions in the event loop
    of their caller. It is open from the beginning until `close()`, and can be used as a context manager; left open, it
    is closed when the interpreter ends.

    Args:
        database: `:memory:` (nothing outlives the object), or `sqlite:///file.db`.
        workflows: that runs of an earlier process may need, and that `submit` finds by name.
        default_retry: the policy of what has none of its own.
        clock: where the time comes from.
        settings: everything else; what is not given here comes from `SYNERGYMESH_…` variables and `synergymesh.toml`.
        options: further arguments of `Orchestrator`.

    Attributes:
        orchestrator: the asynchronous face; it lives in the portal's event loop.
        retry_policies: component id -> RetryPolicy, used by `execute_with_retry` and `execute_components`.
        resolver: the graph that `add_dependency` builds.

    Raises:
        InvalidRequest: an argument cannot be accepted.
        StoreError: the database cannot be used.
    """

    def __init__(
        self,
        database: str = ":memory:",
        *,
        workflows: Iterable[Workflow] = (),
        default_retry: RetryPolicy = DEFAULT_RETRY,
        clock: Clock | None = None,
        settings: Settings | None = None,
        **options: Any,
    ) -> None:
        self.orchestrator = Orchestrator(
            database, workflows=workflows, default_retry=default_retry, clock=clock, settings=settings, **options
        )
        self.retry_policies: dict[str, RetryPolicy] = {}
        self.resolver = DependencyResolver()
        self._graph_lock = threading.Lock()
        self._closing: Future[None] | None = None
        self._close_lock = threading.RLock()  # a signal handler may close what its own thread is closing
        self._portal = Portal("synergymesh-portal", self.close)
        try:
            self.call(self.orchestrator.start())
        except BaseException:
            self._portal.close()
            raise

    def close(self) -> None:
        """Let running tasks end within the grace period, record everything, release the database; twice is no harm.

        Who closes while somebody else does waits for that. In a running event loop it blocks the loop, so functions
        that run there cannot end: they are interrupted at once, and their callers get `NotRunning`; `aclose` and
        `async with` let them end. Interrupted itself, by Ctrl-C, it goes on behind, and another `close()` waits for it.

        Raises:
            NotRunning: a task of a workflow tries to close the orchestrator that runs it, which goes on.
            StoreError: the last changes could not be recorded.
        """
        self._portal.check_caller()
        if self._portal.is_open:  # asked before the lock, which may be held for ever in a process that was forked off
            with self._close_lock, loop_waiting():
                self._close()

    async def aclose(self) -> None:
        """Close without blocking the event loop: what runs in it can end within the grace period.

        Raises:
            NotRunning, StoreError: as in `close`.
        """
        self._portal.check_caller()
        await asyncio.to_thread(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # --- tenants --------------------------------------------------------------------------------------------------

    def create_tenant(
        self,
        tenant_name: str,
        tier: TenantTier | str = TenantTier.BASIC,
        custom_quota: ResourceQuota | None = None,
        *,
        idempotency_key: str | None = None,
    ) -> str:
        """Make a tenant and give its id.

        Args:
            tenant_name: a name for people; it need not be unique.
            tier: its plan.
            custom_quota: its own limits instead of the tier's.
            idempotency_key: the same key gives the same tenant again; so it can be asked for again after an error.

        Returns:
            its id, `tenant-…`.

        Raises:
            InvalidRequest: a value cannot be accepted.
            IdempotencyConflict: the key belongs to a tenant that was asked for otherwise.
        """
        made = self.orchestrator.create_tenant(tenant_name, tier, quota=custom_quota, idempotency_key=idempotency_key)
        return self.call(made).tenant_id

    def get_tenant(self, tenant_id: str) -> TenantConfig | None:
        """Give a tenant, or None if there is none of that id.

        Args:
            tenant_id: which.

        Returns:
            it, or None.
        """
        try:
            return self.call(self.orchestrator.get_tenant(tenant_id))
        except UnknownTenant:
            return None

    @property
    def tenants(self) -> Mapping[str, TenantConfig]:
        """Show all tenants by id, oldest first, always as they are now; read-only."""
        return _Tenants(self)

    def set_tier(self, tenant_id: str, tier: TenantTier | str) -> TenantConfig:
        """Give a tenant another plan with its quota, from the next dispatch on; what runs goes on.

        Args:
            tenant_id: which.
            tier: its new plan.

        Returns:
            the tenant as it is now.

        Raises:
            UnknownTenant: there is none of that id.
            InvalidRequest: there is no such tier.
        """
        return self.call(self.orchestrator.set_tier(tenant_id, tier))

    def modify_quota(self, tenant_id: str, quota: ResourceQuota | None = None, **limits: int | None) -> TenantConfig:
        """Give a tenant other limits, from the next dispatch on; what runs goes on, whatever they are.

        Changes at the same time all count.

        Args:
            tenant_id: which.
            quota: all limits; the tenant's present ones when None.
            limits: single limits by name, in the place of those of `quota`.

        Returns:
            the tenant as it is now.

        Raises:
            UnknownTenant: there is none of that id.
            InvalidRequest: a limit cannot be accepted, or there is none of that name.
        """
        return self.call(self.orchestrator.modify_quota(tenant_id, quota, **limits))

    def suspend_tenant(self, tenant_id: str) -> TenantConfig:
        """Accept and start nothing more for a tenant; what runs goes on.

        Args:
            tenant_id: which.

        Returns:
            the tenant as it is now.

        Raises:
            UnknownTenant: there is none of that id.
        """
        return self.call(self.orchestrator.suspend_tenant(tenant_id))

    def resume_tenant(self, tenant_id: str) -> TenantConfig:
        """Accept and start tasks of a suspended tenant again.

        Args:
            tenant_id: which.

        Returns:
            the tenant as it is now.

        Raises:
            UnknownTenant: there is none of that id.
        """
        return self.call(self.orchestrator.resume_tenant(tenant_id))

    def delete_tenant(self, tenant_id: str, *, force: bool = False) -> None:
        """Delete a tenant with everything that is recorded of it; with `force`, cancel its open runs first.

        Args:
            tenant_id: which.
            force: cancel its open runs first.

        Raises:
            UnknownTenant: there is none of that id.
            TenantHasOpenRuns: it has open runs, and force is False.
        """
        with loop_waiting():
            self.call(self.orchestrator.delete_tenant(tenant_id, force=force))

    # --- execution ------------------------------------------------------------------------------------------------

    async def execute_with_retry(
        self,
        func: Function,
        component_id: str,
        tenant_id: str,
        max_retries: int | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - of each attempt, which the engine watches
        **kwargs: Any,
    ) -> ExecutionResult:
        """Run a coroutine function in the caller's event loop, as a task of a tenant: within its limits, recorded.

        It waits for room in the tenant's quota. The submission rate is the caller's to take (`acquire_rate_limit`).
        What it is retried by is the tenant's policy for the component, or else `retry_policies[component_id]`, or else
        the tenant's own default, or else that of the orchestrator. Cancelling the caller cancels the function.

        Args:
            func: any coroutine function, closures included.
            component_id: a name that stays the same from call to call. Its type is the one that `add_dependency` was
                given.
            tenant_id: whose task it is.
            max_retries: in the place of that of the policy; the policy's delays and refusals stay.
            timeout: seconds for one attempt.
            kwargs: keyword arguments of `func`; bind those that have a name of these parameters with
                `functools.partial`.

        Returns:
            how it ended; what `func` raised is in it, and that its arguments do not fit.

        Raises:
            UnknownTenant, TenantNotActive: nothing can be executed for that tenant.
            InvalidRequest: an argument cannot be accepted.
            BacklogFull: too many tasks of the tenant wait.
            NotRunning: the orchestrator is closed, or was closed meanwhile.
        """
        call = DirectCall(
            component_id=component_id,
            component_type=self._type_of(component_id),
            function=func,
            arguments=kwargs,
            retry=self.retry_policies.get(component_id),
            max_retries=max_retries,
            timeout=timeout,
        )
        (result,) = await self._execute(tenant_id, [call])
        return result

    def submit(
        self,
        workflow: Workflow | str,
        tenant_id: str,
        input: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> str:
        """Submit a durable run of a workflow and give its id; once this returns, the run is never lost.

        Args:
            workflow: a workflow, or the name of one that the orchestrator was given.
            tenant_id: whose run it is.
            input: the workflow's parameters by name; plain JSON.
            options: `idempotency_key`, `priority`, `not_before` and more, as `Orchestrator.submit` takes them.

        Returns:
            the run's id, `run-…`.

        Raises:
            UnknownTenant, TenantNotActive, UnknownWorkflow, InvalidRequest, FeatureNotEnabled, RateLimitExceeded,
            BacklogFull, IdempotencyConflict, StoreUnavailable: it is not accepted.
        """
        return self.call(self.orchestrator.submit(workflow, tenant=tenant_id, input=input, **options)).id

    def result_of(self, run_id: str, timeout: float | None = None) -> Any:
        """Wait until a run is final and give what its workflow returned.

        Args:
            run_id: which.
            timeout: seconds, None for no limit.

        Returns:
            what the workflow returned, as JSON gives it back.

        Raises:
            UnknownRun: there is none of that id.
            TimeoutError: it is not final yet; it goes on.
            RunFailed, RunTimedOut, RunCancelled: it did not succeed.
        """
        return self.call(self.orchestrator.result_of(run_id, timeout=timeout))

    def get_run(self, run_id: str) -> Run:
        """Give a run with all of its tasks.

        Args:
            run_id: which.

        Returns:
            the run as it is now; it does not change.

        Raises:
            UnknownRun: there is none of that id.
        """
        return self.call(self.orchestrator.get_run(run_id))

    async def execute_agent(
        self,
        agent_id: str,
        agent: Any,
        tenant_id: str,
        max_retries: int | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - of each attempt, which the engine watches
        **kwargs: Any,
    ) -> ExecutionResult:
        """Run an object with `execute(**kwargs)`, and `start()` before it if it has one, as a task of a tenant.

        Both may be plain or coroutine methods; a plain one blocks the caller's event loop while it runs.

        Args:
            agent_id: a name that stays the same from call to call.
            agent: the object.
            tenant_id: whose task it is.
            max_retries: in the place of that of the policy, as in `execute_with_retry`.
            timeout: seconds for one attempt, `start` and `execute` together.
            kwargs: keyword arguments of `execute`, of any name that is not one of these.

        Returns:
            how it ended, with the type `agent`; what the agent raised is in it.

        Raises:
            InvalidRequest: the object has no `execute`.
            UnknownTenant, TenantNotActive, BacklogFull, NotRunning: as in `execute_with_retry`.
        """
        execute = getattr(agent, "execute", None)
        if not callable(execute):
            raise InvalidRequest(f"agent must have a method execute, and {agent!r:.100} has none.", field="agent")

        async def run() -> Any:
            for method, given in ((getattr(agent, "start", None), {}), (execute, kwargs)):
                value = method(**given) if callable(method) else None
                value = await value if isawaitable(value) else value
            return value

        call = DirectCall(
            component_id=agent_id,
            component_type=ComponentType.AGENT.value,
            function=run,
            retry=self.retry_policies.get(agent_id),
            max_retries=max_retries,
            timeout=timeout,
        )
        (result,) = await self._execute(tenant_id, [call])
        return result

    def add_dependency(
        self,
        component_id: str,
        depends_on: str | Iterable[str],
        component_type: ComponentType | str | None = None,
    ) -> bool:
        """Let a component run after others, which are added to the graph if they are new.

        Args:
            component_id: who waits.
            depends_on: whom it waits for.
            component_type: what `component_id` is; only carried. None for what it was, `task` if it is new.

        Returns:
            False if one of the dependencies would close a cycle; then nothing has changed.

        Raises:
            InvalidRequest: an id or a type cannot be accepted.
        """
        wanted = _ids([depends_on] if isinstance(depends_on, str) else depends_on, "depends_on")
        checked_component_id(component_id)
        if component_type is not None:
            checked_type(component_type)
        with self._graph_lock:
            if any(self._closes_cycle(component_id, each) for each in wanted):
                return False
            new = [each for each in (component_id, *wanted) if each not in self.resolver]
            self.resolver.add_components([(each, ComponentType.TASK.value) for each in dict.fromkeys(new)])
            if component_type is not None:
                self.resolver.add_component(component_id, str(component_type))
            return all(self.resolver.add_dependency(component_id, each) for each in wanted)

    @property
    def component_dependencies(self) -> Mapping[str, ComponentDependency]:
        """Give what every component of the graph runs after, in order of insertion, as it is now; read-only."""
        with self._graph_lock:
            found = {
                node.component_id: ComponentDependency(
                    component_id=node.component_id, depends_on=node.dependencies, component_type=node.component_type
                )
                for node in self.resolver.nodes.values()
            }
        return MappingProxyType(found)

    def resolve_execution_order(self, component_ids: Iterable[str]) -> list[str]:
        """Give components in an order in which each comes after what it depends on; unknown ones depend on nothing.

        Args:
            component_ids: which; each of them comes once.

        Returns:
            all of them, dependencies first.

        Raises:
            InvalidRequest: an id cannot be accepted.
        """
        ids = dict.fromkeys(_ids(component_ids, "component_ids"))
        with self._graph_lock:
            known = dict.fromkeys(self.resolver.topological_sort([each for each in ids if each in self.resolver]))
        return [*known, *(each for each in ids if each not in known)]

    async def execute_components(
        self, tenant_id: str, components: Mapping[str, Function]
    ) -> dict[str, ExecutionResult]:
        """Run coroutine functions as one run: each after what it depends on, as parallel as the tenant's quota allows.

        Dependencies are those of `add_dependency`, through components that are not in `components` too. What depends
        on a component that fails is skipped.

        Args:
            tenant_id: whose tasks they are.
            components: component id -> coroutine function without arguments.

        Returns:
            how each of them ended, by component id, in the order of execution.

        Raises:
            UnknownTenant, TenantNotActive, BacklogFull, InvalidRequest, NotRunning: as in `execute_with_retry`.
        """
        order = self.resolve_execution_order(components)
        calls = [
            DirectCall(
                component_id=each,
                component_type=self._type_of(each),
                function=components[each],
                retry=self.retry_policies.get(each),
                after=self._after(each, components),
            )
            for each in order
        ]
        if not calls:
            await self._portal.wait_for(self.orchestrator.get_tenant(tenant_id))
            return {}
        return {result.component_id: result for result in await self._execute(tenant_id, calls)}

    # --- limits and figures ---------------------------------------------------------------------------------------

    def check_resource_quota(self, tenant_id: str, resource_type: str = "concurrent") -> bool:
        """Tell whether a limit of a tenant has room for one more; takes nothing.

        Args:
            tenant_id: which.
            resource_type: concurrent (slots), memory, cpu, hourly (starts), rate_limit (submissions), or tasks for all.

        Returns:
            whether there is room; a tenant that is suspended has its limits still.

        Raises:
            UnknownTenant: there is none of that id.
            InvalidRequest: there is no such resource.
        """
        return self.call(self.orchestrator.check_resource_quota(tenant_id, resource_type))

    def acquire_rate_limit(self, tenant_id: str) -> bool:
        """Take a place in a tenant's submission rate; tell whether there was one.

        Args:
            tenant_id: which.

        Returns:
            whether there was one, and is taken.

        Raises:
            UnknownTenant: there is none of that id.
        """
        return self.call(self.orchestrator.acquire_rate_limit(tenant_id))

    def get_metrics(self) -> dict[str, Any]:
        """Give the figures of all tenants together.

        Returns:
            total_executions, successful_executions, failed_executions, success_rate (percent),
            average_execution_time_ms, total_retry_attempts, active_tasks, registered_tenants, total_audit_logs (of all
            chains, pruned ones included).
        """
        found = self.call(self.orchestrator.get_metrics())
        return {
            "total_executions": found.executions,
            "successful_executions": found.succeeded,
            "failed_executions": found.failed,
            "success_rate": found.success_percent,
            "average_execution_time_ms": found.duration_mean_ms,
            "total_retry_attempts": found.retries,
            "active_tasks": found.running,
            "registered_tenants": found.tenants,
            "total_audit_logs": found.audit_entries,
        }

    def metrics_text(self) -> str:
        """Give the metrics in Prometheus' text format.

        Returns:
            lines as `synergymesh metrics` prints them.
        """
        return self.call(self.orchestrator.metrics_text())

    def get_tenant_health(self, tenant_id: str) -> dict[str, Any]:
        """Say how a tenant is doing.

        Args:
            tenant_id: which.

        Returns:
            tenant_id, status (healthy, degraded, failing, idle) and reasons, judged by the last hour; then of all its
            executions: total_executions, successful, failed, uptime_percent and success_rate (both the percentage that
            succeeded), duration_p50_ms, duration_p95_ms, duration_p99_ms, last_execution (aware, or None), and
            wait_p50_ms, wait_p95_ms, wait_p99_ms (counted twice a second, by a sample where there are many).

        Raises:
            UnknownTenant: there is none of that id.
        """
        found = self.call(self.orchestrator.get_tenant_health(tenant_id))
        return {
            "tenant_id": found.tenant_id,
            "status": found.health.value,
            "reasons": list(found.reasons),
            "total_executions": found.executions,
            "successful": found.succeeded,
            "failed": found.failed,
            "uptime_percent": found.success_percent,
            "success_rate": found.success_percent,
            "duration_p50_ms": found.duration.p50,
            "duration_p95_ms": found.duration.p95,
            "duration_p99_ms": found.duration.p99,
            "wait_p50_ms": found.wait.p50,
            "wait_p95_ms": found.wait.p95,
            "wait_p99_ms": found.wait.p99,
            "last_execution": found.last_execution,
        }

    # --- audit ----------------------------------------------------------------------------------------------------

    def get_audit_logs(
        self,
        tenant_id: str,
        hours: float = 24,
        action: str | None = None,
        *,
        until: datetime | None = None,
        actor: str | None = None,
        outcome: str | None = None,
        limit: int = AUDIT_PAGE,
    ) -> list[AuditLog]:
        """Give the newest entries of a tenant's audit log, oldest first. That somebody looked is recorded.

        `call(mesh.orchestrator.audit_log(…))` gives any number of them page by page, with a cursor.

        Args:
            tenant_id: whose.
            hours: how far back, by the orchestrator's clock.
            until: only those before then; aware.
            action: only those of an action, by its name here or in the catalogue.
            actor: only those on the account of `type/id`.
            outcome: success, failure or denied.
            limit: how many at most, 1 to 1,000.

        Returns:
            the newest `limit` of those that fit, oldest first.

        Raises:
            UnknownTenant: there is none of that id.
            InvalidRequest: an argument cannot be accepted.
        """
        self.call(self.orchestrator.get_tenant(tenant_id))
        names = {mine: theirs for theirs, mine in ACTION_NAMES.items()}
        found = self.call(
            self.orchestrator.audit_log(
                tenant_id,
                hours=hours,
                until=until,
                action=None if action is None else names.get(action, action),
                actor=actor,
                outcome=outcome,
                limit=limit,
            )
        )
        return [_audit_log(entry) for entry in reversed(found.entries)]

    @property
    def audit_logs(self) -> list[AuditLog]:
        """Give the newest thousand entries of all chains, oldest first. That somebody looked is recorded."""
        found = self.call(self.orchestrator.audit_log(limit=AUDIT_PAGE))
        return [_audit_log(entry) for entry in reversed(found.entries)]

    # --- everything else ------------------------------------------------------------------------------------------

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Wait for a method of the asynchronous face, and so for everything that the engine can do.

        `mesh.call(mesh.orchestrator.list_runs(tenant=tenant_id))` gives what `await` would give there; who acts
        (`with mesh.orchestrator.acting_as(…)`) counts too. It blocks, like the other methods.

        Args:
            coroutine: what a method of `orchestrator` has returned.

        Returns:
            what awaiting it gives.

        Raises:
            InvalidRequest: it is no coroutine.
            NotRunning: the orchestrator is closed, or a task of a workflow asks the one that runs it.
        """
        if not isinstance(coroutine, Coroutine):
            raise InvalidRequest(
                f"coroutine must be what an asynchronous method has returned, as in `mesh.call(mesh.orchestrator."
                f"list_runs())`, not {coroutine!r:.100}.",
                field="coroutine",
            )
        return self._portal.call(coroutine)

    # --- inside ---------------------------------------------------------------------------------------------------

    def _close(self) -> None:
        if not self._portal.is_open:
            return
        if self._closing is None:
            self._closing = self._portal.begin(self.orchestrator.close())
        try:
            self._closing.result()
        finally:
            if self._closing.done():
                self._portal.close()

    def _list_tenants(self) -> list[Tenant]:
        return self.call(self.orchestrator.list_tenants())

    async def _execute(self, tenant_id: str, calls: list[DirectCall]) -> list[ExecutionResult]:
        begin = partial(self.orchestrator._begin_calls, calls, tenant_id)
        run, end = await self._portal.ask(begin, self.orchestrator._withdraw_calls)
        return results_of(run, calls, end)

    def _closes_cycle(self, component_id: str, depends_on: str) -> bool:
        if component_id == depends_on:
            return True
        if component_id not in self.resolver or depends_on not in self.resolver:
            return False
        return self.resolver.find_cycle(component_id, depends_on) is not None

    def _type_of(self, component_id: str) -> str:
        with self._graph_lock:
            known = isinstance(component_id, str) and component_id in self.resolver
            return self.resolver.nodes[component_id].component_type if known else str(ComponentType.TASK)

    def _after(self, component_id: str, components: Mapping[str, Function]) -> tuple[str, ...]:
        """Give those of the components that one waits for, directly or through such as are not among them."""
        found: dict[str, None] = {}
        seen: set[str] = set()
        stack = [component_id]
        with self._graph_lock:
            graph = self.resolver.graph
            while stack:
                for each in graph.get(stack.pop(), ()):
                    if each in components:
                        found[each] = None
                    elif each not in seen:
                        seen.add(each)
                        stack.append(each)
        return tuple(found)


def _ids(component_ids: Iterable[str], field: str) -> list[str]:
    """Give component ids, or raise `InvalidRequest`."""
    if not isinstance(component_ids, Iterable):
        raise InvalidRequest(f"{field} must be component ids, not {component_ids!r:.100}.", field=field)
    return checked_component_ids(component_ids)


def _audit_log(entry: AuditEntry) -> AuditLog:
    kind, _, rest = entry.entity.partition("/")
    return AuditLog(
        audit_id=f"{entry.tenant_id or 'mesh'}/{entry.seq}",
        timestamp=entry.at,
        tenant_id=entry.tenant_id,
        action=ACTION_NAMES.get(entry.action, entry.action.replace(".", "_")),
        component_id=rest.partition("/")[2] if kind == "task" else None,
        user_id=entry.actor,
        status=entry.outcome,
        metadata={"entity": entry.entity, "details": entry.details, **entry.origin},
    )
