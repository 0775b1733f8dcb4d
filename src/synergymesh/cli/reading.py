"""Reads a database for the commands that only look, also while another process owns it."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from synergymesh.domain.states import ExecutionStatus
from synergymesh.domain.tenants import Tenant
from synergymesh.errors import InvalidRequest, StoreUnavailable, UnknownRun, UnknownTenant

if TYPE_CHECKING:
    from synergymesh.domain.graphs.graph import Graph
    from synergymesh.domain.observability.timeline import Timeline
    from synergymesh.domain.workflow.definition import WorkflowDefinition
    from synergymesh.engine.control.dead_letter_views import DeadLetter, DeadLetterQuery
    from synergymesh.engine.control.pausing import PausedWorkflow
    from synergymesh.engine.observability.views import BreakerView, LogLine, Run
    from synergymesh.ports.records import AttemptRecord, RunRecord, TaskRecord
    from synergymesh.store.sqlite import SqliteReader

PAGE_RUNS = 1_000
"""Runs that are read at once."""

LAST = "last"
"""Stands for the id of the run that was submitted last."""


class Reading:
    """See what is recorded; what is only in the memory of the process that executes is not there."""

    def __init__(self, reader: SqliteReader) -> None:
        self._reader = reader

    async def tenants(self) -> list[Tenant]:
        """Give all tenants, oldest first."""
        from synergymesh.engine.observability.views import tenant_view
        from synergymesh.settings import read_settings

        plans = read_settings().tier_plans()
        return [tenant_view(record, plans) for record in await self._reader.list_tenants()]

    async def runs(
        self,
        *,
        tenant_id: str | None,
        statuses: Sequence[ExecutionStatus],
        workflow: str | None,
        limit: int,
        cursor: str | None,
    ) -> list[Run]:
        """Give runs without their tasks, newest first."""
        from synergymesh.engine.observability.views import run_view

        records = await self._reader.list_runs(
            tenant_id=tenant_id, statuses=statuses, workflow=workflow, before=cursor, limit=limit
        )
        return [run_view(record) for record in records]

    async def open_runs(self) -> list[str]:
        """Give the ids of the runs that are not final, oldest first."""
        ids: list[str] = []
        while page := await self._reader.list_open_runs(after=ids[-1] if ids else None, limit=PAGE_RUNS):
            ids += [record.run_id for record in page]
        return ids

    async def open_runs_by_tenant(self) -> dict[str, int]:
        """Count the runs that are not final, of every tenant that has any."""
        counts = Counter({waiting.tenant_id: waiting.runs for waiting in await self._reader.list_waiting_counts()})
        after: str | None = None
        while page := await self._reader.list_begun_runs(after=after, limit=PAGE_RUNS):
            counts.update(record.tenant_id for record in page)
            after = page[-1].run_id
        return counts

    async def breakers(self, tenant_id: str | None) -> list[BreakerView]:
        """Give the circuits that were ever open."""
        from synergymesh.engine.observability.views import breaker_view

        return [breaker_view(record) for record in await self._reader.list_breakers(tenant_id)]

    async def run(self, run_id: str) -> Run:
        """Give a run with its tasks; `last` is the one that was submitted last.

        Raises:
            UnknownRun: there is none of that id.
        """
        from synergymesh.engine.observability.views import run_view, task_views

        record, definition, tasks, attempts = await self._rows_of(run_id)
        return run_view(record, tasks=task_views(definition, tasks, attempts))

    async def timeline(self, run_id: str) -> Timeline:
        """Give a run's timeline; `last` is the one that was submitted last.

        Raises:
            UnknownRun: there is none of that id.
        """
        return (await self.timeline_and_graph(run_id))[0]

    async def timeline_and_graph(self, run_id: str) -> tuple[Timeline, Graph]:
        """Give a run's timeline, and the graph of its definition with the weights that were planned.

        Raises:
            UnknownRun: there is none of that id.
        """
        from synergymesh.engine.observability.timelines import timeline_of
        from synergymesh.ports.clock import SystemClock

        record, definition, tasks, attempts = await self._rows_of(run_id)
        return timeline_of(record, definition, tasks, attempts, SystemClock().now()), definition.graph

    async def _rows_of(
        self, run_id: str
    ) -> tuple[RunRecord, WorkflowDefinition, list[TaskRecord], list[AttemptRecord]]:
        from synergymesh.domain.workflow.definition import WorkflowDefinition
        from synergymesh.engine.stored import version_of

        if run_id == LAST:
            newest = await self._reader.list_runs(tenant_id=None, limit=1)
            record = newest[0] if newest else None
        else:
            record = await self._reader.get_run(run_id, None)
        if record is None:
            raise UnknownRun(run_id)
        run_id = record.run_id
        workflow = await version_of(self._reader, record.content_hash)
        return (
            record,
            WorkflowDefinition.from_json(workflow.definition),
            await self._reader.list_tasks([run_id]),
            await self._reader.list_attempts([run_id]),
        )

    async def dead_letters(self, query: DeadLetterQuery, *, limit: int, cursor: str | None) -> list[DeadLetter]:
        """Give the tasks that failed for good and that nobody has seen to, of the newest runs first."""
        from synergymesh.engine.control.dead_letter_views import list_from

        return await list_from(self._reader, query, limit=limit, cursor=cursor)

    async def paused_workflows(self) -> list[PausedWorkflow]:
        """Give the workflows that are paused."""
        from synergymesh.engine.control.pausing import paused_workflow_view

        return [paused_workflow_view(x.workflow, x.tenant_id, x.paused_at) for x in await self._reader.list_pauses()]

    async def dead_letter(self, dead_letter_id: str) -> DeadLetter:
        """Give one with everything that is known of it.

        Raises:
            UnknownDeadLetter: there is none of that id.
        """
        from synergymesh.engine.control.dead_letter_views import find, look_into

        return await look_into(self._reader, await find(self._reader, dead_letter_id, None))

    async def logs(self, run_id: str, task_id: str | None) -> list[LogLine]:
        """Give what the attempts of a run have printed; `last` is the run that was submitted last.

        Raises:
            UnknownRun: there is none of that id.
            UnknownComponent: its workflow has no such task.
        """
        from synergymesh.engine.observability.views import log_views

        record, definition, _, _ = await self._rows_of(run_id)
        if task_id is not None:
            definition.find(task_id)
        return log_views(await self._reader.list_outputs(record.run_id, task_id, None))


@asynccontextmanager
async def reading(database: str) -> AsyncIterator[Reading]:
    """Open a database to look at it."""
    from synergymesh.store.sqlite import SqliteReader

    need_database(database)
    reader = SqliteReader(database)
    await reader.open()
    try:
        yield Reading(reader)
    finally:
        await reader.close()


def find_tenant(tenants: Sequence[Tenant], name_or_id: str) -> Tenant | None:
    """Find a tenant by its id or its name; None if there is none.

    Raises:
        InvalidRequest: several have that name.
    """
    wanted = name_or_id.strip()
    found = [t for t in tenants if t.tenant_id == wanted] or [t for t in tenants if t.tenant_name == wanted]
    if len(found) > 1:
        ids = ", ".join(t.tenant_id for t in found[:5])
        raise InvalidRequest(f"{len(found)} tenants are named {wanted!r}. Give the id of one: {ids}.", field="tenant")
    return found[0] if found else None


def need_tenant(tenants: Sequence[Tenant], name_or_id: str) -> Tenant:
    """Find a tenant by its id or its name.

    Raises:
        UnknownTenant: there is none.
        InvalidRequest: several have that name.
    """
    tenant = find_tenant(tenants, name_or_id)
    if tenant is None:
        raise UnknownTenant(name_or_id)
    return tenant


def need_database(database: str) -> None:
    """Refuse a database that does not exist, where making a new one is no use.

    Raises:
        StoreUnavailable: there is no such file.
    """
    from synergymesh.store.sqlite_files import parse_address

    path = parse_address(database)
    if path is None or not path.exists():
        raise StoreUnavailable(f"there is no database {path or database}. `synergymesh run` makes one.")
