"""What can be asked: the queries, and how their rows become records.

A query gives all its rows as one: their plain values as a JSON array, their payloads one after the other in a blob.
Python's sqlite3 may wait for the interpreter lock at every row otherwise (up to 5 ms each beside a busy event loop).
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any, Generic, TypeVar

import msgspec
import sqlalchemy as sa

from synergymesh.domain.fault_tolerance.breaker import BreakerState
from synergymesh.domain.states import ExecutionStatus, TenantStatus
from synergymesh.errors import StoreCorrupt
from synergymesh.ports.records import (
    AttemptRecord,
    BreakerRecord,
    EstimateRecord,
    OutputRecord,
    ReservationRecord,
    RunRecord,
    SubmissionRecord,
    TaskRecord,
    TenantRecord,
    WorkflowRecord,
)
from synergymesh.store.schema import (
    BEGUN_RUN,
    OPEN_RUN_STATUSES,
    attempts,
    breakers,
    estimates,
    hour_reservations,
    outputs,
    runs,
    tasks,
    tenants,
    workflows,
)
from synergymesh.store.statements import UNCLEAN_ENDS, compile_query, has_no_status, has_status

R = TypeVar("R", bound=msgspec.Struct)
_Row = list[Any]

_decode = msgspec.json.Decoder(list[_Row]).decode


class Query(Generic[R]):
    """A query for the records of one type, whose fields are columns of one table.

    `statement` selects the columns in the order of the record's fields; `order` gives a record's place among the
    others.
    """

    def __init__(
        self,
        record: type[R],
        statement: sa.Select[Any],
        order: Callable[[_Row], Any],
        *,
        descending: bool = False,
    ) -> None:
        fields = record.__struct_fields__
        columns = list(statement.selected_columns)
        assert [column.name for column in columns] == list(fields)
        self._record = record
        self._order = order
        self._descending = descending
        self._payloads = [n for n, column in enumerate(columns) if isinstance(column.type, sa.LargeBinary)]
        self._status = fields.index("status") if "status" in fields else None
        self._status_of: Callable[[str], Any] = TenantStatus if record is TenantRecord else ExecutionStatus
        rows = statement.subquery("found")
        scalars = [sa.func.length(column) if n in self._payloads else column for n, column in enumerate(rows.columns)]
        pieces = [sa.func.coalesce(rows.c[n], sa.literal_column("x''")) for n in self._payloads]
        joined = pieces[0] if pieces else sa.literal_column("x''")
        for piece in pieces[1:]:
            joined = joined.op("||")(piece)
        packed = sa.select(
            sa.func.json_group_array(sa.func.json_array(*scalars)),
            sa.cast(sa.func.group_concat(joined, sa.literal_column("''")), sa.LargeBinary),
        ).select_from(rows)
        self._packed = compile_query(packed)
        self._plain = compile_query(statement)

    def run(self, connection: sqlite3.Connection, arguments: Mapping[str, Any]) -> list[R]:
        """Give the records in their order."""
        try:
            document, payloads = connection.execute(self._packed, arguments).fetchone()
        except sqlite3.DataError:
            # Payloads of a gigabyte do not fit into one value of SQLite.
            return [self._make(list(row)) for row in connection.execute(self._plain, arguments)]
        try:
            return self._unpack(_decode(document), payloads)
        except (TypeError, ValueError, msgspec.DecodeError) as error:
            # SQLite checks neither types nor values when it reads: what does not fit was not written by a store.
            damaged = sqlite3.DatabaseError(f"a row is no {self._record.__name__}: {error}")
            damaged.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise damaged from error

    def _unpack(self, rows: list[_Row], payloads: bytes) -> list[R]:
        start = 0
        for row in rows:
            for place in self._payloads:
                if (length := row[place]) is not None:
                    row[place] = payloads[start : start + length]
                    start += length
        # SQLite does not promise that an aggregate sees the rows in the order of a subquery.
        rows.sort(key=self._order, reverse=self._descending)
        return [self._make(row) for row in rows]

    def _make(self, row: _Row) -> R:
        if self._status is not None:
            row[self._status] = self._status_of(row[self._status])
        return self._record(*row)


# --- conditions -----------------------------------------------------------------------------------------------------

_LIST = sa.func.json_each(sa.bindparam("list")).table_valued("value")
_LISTED = sa.select(_LIST.c.value)
_DELETED = sa.select(tenants.c.tenant_id).where(has_status(tenants, [TenantStatus.DELETED]))


_RECOVERIES = sa.case(
    (has_status(runs, OPEN_RUN_STATUSES), runs.c.recoveries + UNCLEAN_ENDS), else_=runs.c.recoveries
).label("recoveries")


def select(table: sa.Table, record: type[msgspec.Struct]) -> sa.Select[Any]:
    """Select what a record has."""
    names = record.__struct_fields__
    return sa.select(*(_RECOVERIES if record is RunRecord and n == "recoveries" else table.c[n] for n in names))


def visible(query: sa.Select[Any], table: sa.Table, of_tenant: bool) -> sa.Select[Any]:
    """Leave out what the caller may not see: deleted tenants, and other tenants unless the operator asks."""
    query = query.where(table.c.tenant_id.not_in(_DELETED))
    return query.where(table.c.tenant_id == sa.bindparam("tenant_id")) if of_tenant else query


# Half a large run is never shown. Open runs are never pruned, and counts do not look at every row for the sake of one.
_WHOLE = runs.c.pruned_at.is_(None)


def _visible_runs(query: sa.Select[Any], of_tenant: bool, statuses: frozenset[ExecutionStatus]) -> sa.Select[Any]:
    """Leave out what the caller may not see, and runs of other statuses (none: all are wanted)."""
    if not statuses:
        return visible(query, runs, of_tenant)
    query = visible(query, runs, False).where(has_status(runs, statuses))
    if statuses <= OPEN_RUN_STATUSES:
        # In the words of the partial index, and a plus that keeps SQLite from the tenant's index: open runs are few,
        # the runs that a tenant ever had are many.
        query = query.where(has_status(runs, OPEN_RUN_STATUSES))
        return query.where(sa.text("+runs.tenant_id = :tenant_id")) if of_tenant else query
    return query.where(runs.c.tenant_id == sa.bindparam("tenant_id")) if of_tenant else query


# --- tenants, their limits and workflows ------------------------------------------------------------------------------

_TENANTS = Query(
    TenantRecord,
    select(tenants, TenantRecord).where(has_no_status(tenants, [TenantStatus.DELETED])),
    order=lambda row: (row[5], row[0]),
)
_WORKFLOW = Query(
    WorkflowRecord,
    select(workflows, WorkflowRecord).where(workflows.c.content_hash == sa.bindparam("content_hash")),
    order=itemgetter(0),
)
_RESERVATIONS = Query(
    ReservationRecord,
    visible(select(hour_reservations, ReservationRecord), hour_reservations, False).where(
        hour_reservations.c.minute >= sa.bindparam("since")
    ),
    order=itemgetter(0, 1),
)
_SUBMISSIONS = Query(
    SubmissionRecord,
    visible(select(runs, SubmissionRecord), runs, False)
    .join(workflows, workflows.c.content_hash == runs.c.content_hash)
    .where(
        runs.c.run_id > sa.bindparam("after"),
        workflows.c.source.is_distinct_from(sa.bindparam("except_source")),
    )
    .order_by(runs.c.run_id)
    .limit(sa.bindparam("limit")),
    order=itemgetter(0),
)
_ESTIMATES = Query(
    EstimateRecord, visible(select(estimates, EstimateRecord), estimates, False), order=itemgetter(0, 1, 2)
)


def list_tenants(connection: sqlite3.Connection) -> list[TenantRecord]:
    """Give all tenants that are not deleted, oldest first."""
    return _TENANTS.run(connection, {})


def list_reservations(connection: sqlite3.Connection, since_minute: int) -> list[ReservationRecord]:
    """Give what is reserved for this minute and later ones, ordered by (tenant, minute)."""
    return _RESERVATIONS.run(connection, {"since": since_minute})


def list_submissions(
    connection: sqlite3.Connection, after: str, except_source: str, limit: int
) -> list[SubmissionRecord]:
    """Give the runs with a greater id than `after`, oldest first, but those of versions of that source."""
    return _SUBMISSIONS.run(connection, {"after": after, "except_source": except_source, "limit": max(0, limit)})


def list_estimates(connection: sqlite3.Connection) -> list[EstimateRecord]:
    """Give all estimates, ordered by (tenant, workflow, component)."""
    return _ESTIMATES.run(connection, {})


@lru_cache
def _breakers_query(of_tenant: bool) -> Query[BreakerRecord]:
    query = visible(select(breakers, BreakerRecord), breakers, of_tenant)
    return Query(BreakerRecord, query, order=itemgetter(0, 1, 2))


def list_breakers(connection: sqlite3.Connection, tenant_id: str | None) -> list[BreakerRecord]:
    """Give the circuits that were ever open, ordered by (tenant, workflow, name)."""
    found = _breakers_query(tenant_id is not None).run(connection, {"tenant_id": tenant_id})
    return [msgspec.structs.replace(row, state=BreakerState(row.state)) for row in found]


def get_workflow(connection: sqlite3.Connection, content_hash: str) -> WorkflowRecord | None:
    """Give one version of a workflow.

    Raises:
        StoreCorrupt: its definition is not the one that was stored.
    """
    record = next(iter(_WORKFLOW.run(connection, {"content_hash": content_hash})), None)
    if record is not None and hashlib.sha256(record.definition).hexdigest() != content_hash:
        raise StoreCorrupt(
            f"the definition of the workflow version {content_hash} has changed since it was stored. Restore a backup."
        )
    return record


# --- runs -----------------------------------------------------------------------------------------------------------


@lru_cache
def _run_query(of_tenant: bool) -> Query[RunRecord]:
    query = select(runs, RunRecord).where(runs.c.run_id == sa.bindparam("run_id"), _WHOLE)
    return Query(RunRecord, visible(query, runs, of_tenant), order=itemgetter(0))


@lru_cache
def _runs_query(
    of_tenant: bool, statuses: frozenset[ExecutionStatus], of_workflow: bool, before: bool
) -> Query[RunRecord]:
    query = _visible_runs(select(runs, RunRecord), of_tenant, statuses)
    if not statuses or not statuses <= OPEN_RUN_STATUSES:
        query = query.where(_WHOLE)
    if of_workflow:
        query = query.where(runs.c.workflow == sa.bindparam("workflow"))
    if before:
        query = query.where(runs.c.run_id < sa.bindparam("before"))
    query = query.order_by(runs.c.run_id.desc()).limit(sa.bindparam("limit"))
    return Query(RunRecord, query, order=itemgetter(0), descending=True)


_OPEN_RUNS = Query(
    RunRecord,
    _visible_runs(select(runs, RunRecord), False, OPEN_RUN_STATUSES)
    .where(runs.c.run_id > sa.bindparam("after"))
    .order_by(runs.c.run_id)
    .limit(sa.bindparam("limit")),
    order=itemgetter(0),
)
_BEGUN_RUNS = Query(
    RunRecord,
    visible(select(runs, RunRecord), runs, False)
    .where(sa.text(BEGUN_RUN), runs.c.run_id > sa.bindparam("after"))
    .order_by(runs.c.run_id)
    .limit(sa.bindparam("limit")),
    order=itemgetter(0),
)


_RUNS_OF_IDS = Query(RunRecord, select(runs, RunRecord).where(runs.c.run_id.in_(_LISTED)), order=itemgetter(0))


@lru_cache
def _count_query(of_tenant: bool, statuses: frozenset[ExecutionStatus]) -> str:
    query = sa.select(sa.func.count()).select_from(runs)
    return compile_query(_visible_runs(query, of_tenant, statuses))


def get_run(connection: sqlite3.Connection, run_id: str, tenant_id: str | None) -> RunRecord | None:
    """Give one run."""
    found = _run_query(tenant_id is not None).run(connection, {"run_id": run_id, "tenant_id": tenant_id})
    return next(iter(found), None)


def find_runs(connection: sqlite3.Connection, run_ids: Collection[str]) -> list[RunRecord]:
    """Give the runs of these ids, whoever's they are: for the store itself."""
    return _RUNS_OF_IDS.run(connection, {"list": json.dumps(list(run_ids))})


def list_runs(
    connection: sqlite3.Connection,
    tenant_id: str | None,
    statuses: Collection[ExecutionStatus],
    workflow: str | None,
    before: str | None,
    limit: int,
) -> list[RunRecord]:
    """Give runs, newest first."""
    query = _runs_query(tenant_id is not None, frozenset(statuses), workflow is not None, before is not None)
    arguments = {"tenant_id": tenant_id, "workflow": workflow, "before": before, "limit": max(0, limit)}
    return query.run(connection, arguments)


def list_open_runs(connection: sqlite3.Connection, after: str | None, limit: int) -> list[RunRecord]:
    """Give runs that are not final, oldest first."""
    return _OPEN_RUNS.run(connection, {"after": after or "", "limit": max(0, limit)})


def list_begun_runs(connection: sqlite3.Connection, after: str | None, limit: int) -> list[RunRecord]:
    """Give the open runs that are begun, oldest first."""
    return _BEGUN_RUNS.run(connection, {"after": after or "", "limit": max(0, limit)})


def count_runs(connection: sqlite3.Connection, tenant_id: str | None, statuses: Collection[ExecutionStatus]) -> int:
    """Count runs."""
    query = _count_query(tenant_id is not None, frozenset(statuses))
    return int(connection.execute(query, {"tenant_id": tenant_id}).fetchone()[0])


# --- tasks and attempts ---------------------------------------------------------------------------------------------


@lru_cache
def _tasks_query(of_tenant: bool) -> Query[TaskRecord]:
    query = visible(select(tasks, TaskRecord).where(tasks.c.run_id.in_(_LISTED)), tasks, of_tenant)
    return Query(TaskRecord, query, order=itemgetter(0, 1))


@lru_cache
def _attempts_query(of_tenant: bool) -> Query[AttemptRecord]:
    query = visible(select(attempts, AttemptRecord).where(attempts.c.run_id.in_(_LISTED)), attempts, of_tenant)
    return Query(AttemptRecord, query, order=itemgetter(0, 1, 2))


def list_tasks(connection: sqlite3.Connection, run_ids: Sequence[str], tenant_id: str | None) -> list[TaskRecord]:
    """Give the task rows of these runs, ordered by (run, component)."""
    arguments = {"list": json.dumps(list(run_ids)), "tenant_id": tenant_id}
    return _tasks_query(tenant_id is not None).run(connection, arguments)


@lru_cache
def _outputs_query(of_tenant: bool, of_component: bool) -> Query[OutputRecord]:
    query = select(outputs, OutputRecord).where(outputs.c.run_id == sa.bindparam("run_id"))
    query = visible(query, outputs, of_tenant)
    if of_component:
        query = query.where(outputs.c.component_id == sa.bindparam("component_id"))
    return Query(OutputRecord, query, order=itemgetter(1, 2))


def list_outputs(
    connection: sqlite3.Connection, run_id: str, component_id: str | None, tenant_id: str | None
) -> list[OutputRecord]:
    """Give what the attempts of a run, or of one of its tasks, have printed, ordered by (component, number)."""
    arguments = {"run_id": run_id, "component_id": component_id, "tenant_id": tenant_id}
    return _outputs_query(tenant_id is not None, component_id is not None).run(connection, arguments)


def list_attempts(connection: sqlite3.Connection, run_ids: Sequence[str], tenant_id: str | None) -> list[AttemptRecord]:
    """Give the failed attempts of these runs, ordered by (run, component, number)."""
    arguments = {"list": json.dumps(list(run_ids)), "tenant_id": tenant_id}
    return _attempts_query(tenant_id is not None).run(connection, arguments)
