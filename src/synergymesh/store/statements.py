"""The statements that record changes: one per kind of change, for many rows at once.

Python's sqlite3 gives up the interpreter lock around every step of a statement, and takes up to 5 ms to get it back
while the event loop computes. So a statement takes as many rows as possible in one step. Names come from the schema:
SQLAlchemy compiles each statement for one row, and the row is repeated here.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from operator import attrgetter
from typing import Any, NamedTuple, cast

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.sql.compiler import SQLCompiler

from synergymesh.domain.states import ExecutionStatus, TenantStatus
from synergymesh.ports.changes import Change, RunCreated, RunFinished
from synergymesh.store.schema import (
    FINAL_TASK_STATUSES,
    OPEN_RUN_STATUSES,
    attempts,
    breakers,
    estimates,
    hour_reservations,
    one_of,
    outputs,
    runs,
    statistics,
    tasks,
    tenants,
    workflows,
)

_POSITIONAL = sqlite.dialect()
_NAMED = sqlite.dialect(paramstyle="named")

UNCLEAN = "unclean_ends"
"""The entry of `meta` that counts the lives which did not end cleanly."""

ROWS_MAX = 1_024
"""Rows of one statement: 18 values each stay far below SQLite's 32,766 variables, and it is parsed within 10 ms."""

_SIZES = sorted({size for power in range(11) for size in (1 << power, 3 << power) if size <= ROWS_MAX}, reverse=True)


class ManyRows:
    """A statement that takes a row of values from each of many changes.

    Attributes:
        row_of: gives the row of a change.
    """

    __slots__ = ("_by_size", "_head", "_row", "_tail", "row_of")

    def __init__(self, head: str, row: str, tail: str, attributes: Sequence[str]) -> None:
        self._head = head
        self._row = row
        self._tail = tail
        self._by_size: dict[int, str] = {}
        # A plain str is bound three times as fast as an enum's member, and `value` is a property.
        self.row_of = attrgetter(*(f"{name}._value_" if name.endswith("status") else name for name in attributes))

    def execute(self, connection: sqlite3.Connection, changes: Sequence[Change | EndedRun]) -> int:
        """Run the statement for all changes, in their order; give how many rows of the table it changed.

        A statement must do nothing for a change that it was just given: the last one is repeated to fill a size up.
        """
        if len(changes) == 1:
            return self._execute_one(connection, self.row_of(changes[0]))
        return self.execute_rows(connection, list(map(self.row_of, changes)))

    def execute_rows(self, connection: sqlite3.Connection, rows: list[tuple[Any, ...]]) -> int:
        """Run the statement for rows of values; see `execute`."""
        if len(rows) == 1:
            return self._execute_one(connection, rows[0])
        changed = 0
        for start, count, size in _plan(len(rows)):
            chosen = rows[start : start + count]
            chosen.extend(chosen[-1:] * (size - count))
            cursor = connection.execute(self._sql(size), list(chain.from_iterable(chosen)))
            changed += cursor.rowcount
            cursor.close()
        return changed

    def _execute_one(self, connection: sqlite3.Connection, row: tuple[Any, ...]) -> int:
        """Run the statement for one row: while little is under way, what is done for many is most of the work."""
        cursor = connection.execute(self._sql(1), row)
        changed = cursor.rowcount
        cursor.close()
        return changed

    def _sql(self, size: int) -> str:
        sql = self._by_size.get(size)
        if sql is None:
            sql = self._by_size[size] = f"{self._head}{', '.join([self._row] * size)}{self._tail}"
        return sql


@lru_cache(maxsize=4_096)
def _plan(rows: int) -> tuple[tuple[int, int, int], ...]:
    """Split a number of rows into few statements of few sizes: (first row, rows, size of the statement)."""
    plan = []
    start = 0
    while left := rows - start:
        fitting = next(size for size in _SIZES if size <= left)
        filled = min((size for size in _SIZES if size >= left), default=ROWS_MAX)
        size = filled if left <= filled <= left + left // 4 else fitting
        count = min(size, left)
        plan.append((start, count, size))
        start += count
    return tuple(plan)


def _compile(statement: sa.Executable, columns: Iterable[str] | None = None) -> SQLCompiler:
    """Compile a statement for SQLite; an insert or update binds these columns (None: what it says itself)."""
    compiled = cast(sa.ClauseElement, statement).compile(
        dialect=_POSITIONAL, column_keys=None if columns is None else list(columns)
    )
    assert isinstance(compiled, SQLCompiler)
    return compiled


def compile_query(statement: sa.Executable) -> str:
    """Give the SQL of a statement with named parameters; numbers that it says itself are written out."""
    compiled = cast(sa.ClauseElement, statement).compile(dialect=_NAMED)
    text = str(compiled)
    for name, value in compiled.params.items():
        if value is not None:
            assert isinstance(value, int), f"{name}={value!r} must be a literal column"
            text = text.replace(f":{name}", str(value))
    return text


def delete_rows(table: sa.Table, condition: sa.ColumnElement[bool]) -> str:
    """Delete at most `limit` rows that fulfil a condition."""
    keys = list(table.primary_key.columns)
    chosen = sa.select(*keys).where(condition).limit(sa.bindparam("limit"))
    return compile_query(sa.delete(table).where(sa.tuple_(*keys).in_(chosen)))


def insert(statement: sqlite.Insert, columns: Iterable[str], within: Mapping[str, str] | None = None) -> ManyRows:
    """Make an insert of many rows with these columns, which are attributes of the change.

    `within` names, by column, the part of the change that has the attribute, if it has parts.
    """
    compiled = _compile(statement, columns)
    head, values, rest = compiled.string.partition(" VALUES ")
    row = rest[: rest.index(")") + 1]
    assert compiled.positiontup is not None
    attributes = compiled.positiontup
    if within is not None:
        attributes = [f"{within[name]}.{name}" for name in attributes]
    return ManyRows(head + values, row, rest[len(row) :], attributes)


def _update(statement: sa.Update, attributes: Sequence[str]) -> ManyRows:
    """Make an update of many rows, in which `_value(n)` stands for the n-th of these attributes of the change."""
    head, source, tail = _compile(statement).string.partition(" FROM given ")
    assert source, "the update must use the given values"
    return ManyRows(f"{head} FROM (VALUES ", f"({', '.join('?' * len(attributes))})", f") AS given {tail}", attributes)


_GIVEN = sa.table("given", *(sa.column(f"column{n}") for n in range(1, 11)))


def _value(number: int) -> Any:
    """Name a value of a row of `VALUES` as SQLite does: column1, column2 ..."""
    return _GIVEN.c[f"column{number}"]


def has_status(table: sa.Table, statuses: Iterable[ExecutionStatus | TenantStatus]) -> sa.TextClause:
    """Give the condition that a row of this table has one of these statuses."""
    return sa.text(one_of(f"{table.name}.status", statuses))


def has_no_status(table: sa.Table, statuses: Iterable[ExecutionStatus | TenantStatus]) -> sa.TextClause:
    """Give the condition that a row of this table has none of these statuses."""
    return sa.text(f"NOT {one_of(f'{table.name}.status', statuses)}")


def status(member: ExecutionStatus | TenantStatus) -> sa.ColumnClause[str]:
    """Give a status as a constant."""
    return sa.literal_column(f"'{member.value}'")


# --- tenants and workflows ------------------------------------------------------------------------------------------

CREATE_TENANTS = insert(
    sqlite.insert(tenants)
    .values(status=status(TenantStatus.ACTIVE))
    .on_conflict_do_nothing(index_elements=["tenant_id"]),
    [
        "tenant_id",
        "tenant_name",
        "tier",
        "quota",
        "created_at",
        "parent_id",
        "policy",
        "idempotency_key",
        "request_hash",
    ],
)

CHANGE_TENANT_STATUS = _update(
    sa.update(tenants)
    .values(status=_value(2), changed_at=_value(3))
    .where(
        tenants.c.tenant_id == _value(1),
        tenants.c.status != _value(2),
        has_no_status(tenants, [TenantStatus.DELETED]),
    ),
    ["tenant_id", "status", "changed_at"],
)

CHANGE_TENANT_PLAN = _update(
    sa.update(tenants)
    .values(tier=_value(2), quota=_value(3), policy=_value(4), changed_at=_value(5))
    .where(
        tenants.c.tenant_id == _value(1),
        sa.or_(
            tenants.c.tier != _value(2),
            tenants.c.quota != _value(3),
            tenants.c.policy != _value(4),
        ),
        has_no_status(tenants, [TenantStatus.DELETED]),
    ),
    ["tenant_id", "tier", "quota", "policy", "changed_at"],
)

_reservation = sqlite.insert(hour_reservations)
RESERVE_HOURS = insert(
    _reservation.on_conflict_do_update(
        index_elements=["tenant_id", "minute"], set_={"starts": _reservation.excluded.starts}
    ),
    ["tenant_id", "minute", "starts"],
)

_estimate = sqlite.insert(estimates)
LEARN_ESTIMATES = insert(
    _estimate.on_conflict_do_update(
        index_elements=["tenant_id", "workflow", "component_id"],
        set_={"microseconds": _estimate.excluded.microseconds},
    ),
    ["tenant_id", "workflow", "component_id", "microseconds"],
)

_statistic = sqlite.insert(statistics)
COUNT_STATISTICS = insert(
    _statistic.on_conflict_do_update(
        index_elements=["tenant_id", "hour", "measure", "bucket"],
        set_={"count": _statistic.excluded["count"], "total": _statistic.excluded.total},
    ),
    ["tenant_id", "hour", "measure", "bucket", "count", "total"],
)

_breaker = sqlite.insert(breakers)
_BREAKER_STATE = ("since", "until", "trips", "wave", "calls", "failures", "changed_at")
CHANGE_BREAKER = insert(
    _breaker.on_conflict_do_update(
        index_elements=["tenant_id", "workflow", "name"],
        set_={name: _breaker.excluded[name] for name in ("state", *_BREAKER_STATE)},
        where=breakers.c.changed_at < _breaker.excluded.changed_at,
    ),
    ["tenant_id", "workflow", "name", "state", *_BREAKER_STATE],
)

_workflow = sqlite.insert(workflows)
STORE_WORKFLOWS = insert(
    _workflow.on_conflict_do_update(index_elements=["content_hash"], set_={"source": _workflow.excluded.source}),
    ["content_hash", "workflow", "definition", "source", "created_at"],
)

# --- runs -----------------------------------------------------------------------------------------------------------

UNCLEAN_ENDS: sa.ColumnClause[int] = sa.literal_column(
    f"coalesce((SELECT value FROM meta WHERE name = '{UNCLEAN}'), 0)", sa.BigInteger
)
"""How many lives on this database did not end cleanly."""


_CREATED = (
    "run_id",
    "tenant_id",
    "workflow",
    "content_hash",
    "priority",
    "input",
    "idempotency_key",
    "not_before",
    "created_at",
    "level",
    "tasks",
    "start_by",
    "traceparent",
)


@lru_cache(maxsize=4)
def create_runs(unclean_ends: int) -> ManyRows:
    """Give the statement that creates runs which count recoveries from now on, after so many unclean ends."""
    return insert(
        sqlite.insert(runs)
        .values(status=status(ExecutionStatus.PENDING), recoveries=sa.literal_column(str(-unclean_ends)))
        .on_conflict_do_nothing(index_elements=["run_id"]),
        _CREATED,
    )


class EndedRun(NamedTuple):
    """A run that has ended before it was written."""

    created: RunCreated
    ended: RunFinished


_ENDED = ("status", "started_at", "ended_at", "result", "error")

CREATE_ENDED_RUNS = insert(
    sqlite.insert(runs).values(recoveries=sa.literal_column("0")).on_conflict_do_nothing(index_elements=["run_id"]),
    (*_CREATED, *_ENDED),
    dict.fromkeys(_CREATED, "created") | dict.fromkeys(_ENDED, "ended"),
)
"""As if a run was created and then finished, without the entries in between of those who look for open runs."""

_THIS_RUN = (runs.c.run_id == _value(1), runs.c.tenant_id == _value(2))

START_RUNS = _update(
    sa.update(runs)
    .values(status=status(ExecutionStatus.RUNNING), started_at=_value(3))
    .where(*_THIS_RUN, has_status(runs, [ExecutionStatus.PENDING])),
    ["run_id", "tenant_id", "started_at"],
)

LINK_RUNS = _update(
    sa.update(runs)
    .values(retry_of=_value(3), replay_of=_value(4))
    .where(*_THIS_RUN, runs.c.retry_of.is_(None), runs.c.replay_of.is_(None)),
    ["run_id", "tenant_id", "retry_of", "replay_of"],
)

PAUSE_RUNS = _update(
    sa.update(runs)
    .values(paused_at=_value(3))
    .where(*_THIS_RUN, runs.c.paused_at.is_(None), has_status(runs, OPEN_RUN_STATUSES)),
    ["run_id", "tenant_id", "paused_at"],
)

RESUME_RUNS = _update(
    sa.update(runs).values(paused_at=sa.null()).where(*_THIS_RUN, runs.c.paused_at.is_not(None)),
    ["run_id", "tenant_id"],
)

REQUEST_CANCELS = _update(
    sa.update(runs)
    .values(cancel_requested_at=_value(3))
    .where(*_THIS_RUN, runs.c.cancel_requested_at.is_(None), has_status(runs, OPEN_RUN_STATUSES)),
    ["run_id", "tenant_id", "requested_at"],
)

FINISH_RUNS = _update(
    sa.update(runs)
    .values(
        status=_value(3),
        started_at=sa.func.coalesce(_value(4), runs.c.started_at),
        ended_at=_value(5),
        result=_value(6),
        error=_value(7),
        recoveries=runs.c.recoveries + UNCLEAN_ENDS,
    )
    .where(*_THIS_RUN, has_status(runs, OPEN_RUN_STATUSES)),
    ["run_id", "tenant_id", "status", "started_at", "ended_at", "result", "error"],
)

# --- tasks and attempts ---------------------------------------------------------------------------------------------

_task = sqlite.insert(tasks)
# A tenant that is not the run's never gets past the foreign key of a new row; an old row has to be compared.
_SAME_TASK_NOT_FINAL = (tasks.c.tenant_id == _task.excluded.tenant_id, has_no_status(tasks, FINAL_TASK_STATUSES))

START_TASKS = insert(
    _task.values(status=status(ExecutionStatus.RUNNING)).on_conflict_do_update(
        index_elements=["run_id", "component_id"],
        set_={
            "status": _task.excluded.status,
            "attempt": _task.excluded.attempt,
            "started_at": _task.excluded.started_at,
        },
        # A start that is written a second time must not revive an attempt that has ended since.
        where=sa.and_(*_SAME_TASK_NOT_FINAL, tasks.c.attempt < _task.excluded.attempt),
    ),
    ["run_id", "component_id", "tenant_id", "attempt", "started_at"],
)

_FINISHED = ("status", "attempt", "started_at", "ended_at", "result", "error", "waited_for")
FINISH_TASKS = insert(
    _task.on_conflict_do_update(
        index_elements=["run_id", "component_id"],
        set_={name: _task.excluded[name] for name in _FINISHED},
        where=sa.and_(*_SAME_TASK_NOT_FINAL),
    ),
    ["run_id", "component_id", "tenant_id", *_FINISHED],
)

CAPTURE_OUTPUTS = insert(
    sqlite.insert(outputs).on_conflict_do_nothing(index_elements=["run_id", "component_id", "number"]),
    [column.name for column in outputs.columns],
)

RECORD_ATTEMPTS = insert(
    sqlite.insert(attempts).on_conflict_do_nothing(index_elements=["run_id", "component_id", "number"]),
    [column.name for column in attempts.columns],
)

LET_TASKS_WAIT = _update(
    sa.update(tasks)
    .values(
        # The process was shut down while it ran: nothing failed, it is as if it had not started.
        status=sa.case(
            (_value(5) == status(ExecutionStatus.CANCELLED), status(ExecutionStatus.PENDING)),
            else_=status(ExecutionStatus.RETRYING),
        )
    )
    .where(
        tasks.c.run_id == _value(1),
        tasks.c.component_id == _value(2),
        tasks.c.tenant_id == _value(3),
        tasks.c.attempt == _value(4),
        has_status(tasks, [ExecutionStatus.RUNNING]),
    ),
    ["run_id", "component_id", "tenant_id", "number", "status"],
)

DISCARD_DEAD_LETTERS = _update(
    sa.update(tasks)
    .values(discarded_at=_value(4), discard_reason=_value(5))
    .where(
        tasks.c.run_id == _value(1),
        tasks.c.component_id == _value(2),
        tasks.c.tenant_id == _value(3),
        tasks.c.discarded_at.is_(None),
        has_status(tasks, [ExecutionStatus.FAILED, ExecutionStatus.TIMEOUT]),
    ),
    ["run_id", "component_id", "tenant_id", "discarded_at", "reason"],
)
