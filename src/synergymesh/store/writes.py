"""How units are recorded: many in one transaction, grouped by kind of change, the bad ones refused alone.

Grouping keeps the meaning of the order that changes came in:

- kinds are written in the order in which one needs another (tenant, workflow, run, link, start, attempt, task, end of
  run);
- a change that must not come before one that is already grouped (a new tenant, its new status or plan; the start or the
  cancellation of a run that ends, the start of an attempt that fails or of a task that ends in the same batch) makes
  the groups be written first;
- statements compare attempt numbers and leave final rows alone, so the other pairs of kinds commute.

Each row that really changed leaves an entry in the audit log. When a statement changed as many rows as there were
changes, all of them took effect. When it changed fewer (some are recorded already), the batch is rolled back and done
again with care: by halves, until it is known which ones took effect.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar, assert_never

import sqlalchemy as sa

from synergymesh.domain.states import TenantStatus
from synergymesh.ports.changes import (
    AttemptFailed,
    BreakerChanged,
    CancelRequested,
    Change,
    DeadLetterDiscarded,
    EstimateLearnt,
    HourReserved,
    Noted,
    OutputCaptured,
    RunCreated,
    RunFinished,
    RunLinked,
    RunPaused,
    RunResumed,
    RunStarted,
    StatisticCounted,
    TaskFinished,
    TaskStarted,
    TenantCreated,
    TenantPlanChanged,
    TenantStatusChanged,
    Unit,
    WorkflowPaused,
    WorkflowResumed,
    WorkflowStored,
)
from synergymesh.ports.records import COMMITTED, CommitResult, Committed, Refused
from synergymesh.store import statements as sql
from synergymesh.store.audit.chain_ends import forget_ends
from synergymesh.store.audit.writes import Trail
from synergymesh.store.pauses import pause_workflow, resume_workflow
from synergymesh.store.reads import find_runs
from synergymesh.store.schema import runs, tenants, workflows
from synergymesh.store.sqlite_errors import UNRECORDABLE
from synergymesh.store.tenant_writes import (
    Unrecordable,
    change_tenant_plan,
    change_tenant_status,
    create_tenants,
    has_tenant,
    refuse_runs_of_deleted_tenants,
)
from synergymesh.store.transactions import transaction

_BAD_UNIT: tuple[type[Exception], ...] = (Unrecordable, *UNRECORDABLE)

C = TypeVar("C", bound=Change)
R = TypeVar("R", bound="_OfRun")

_OfTenant = RunCreated | BreakerChanged | HourReserved | EstimateLearnt | StatisticCounted
_OfRun = (
    RunCreated
    | RunLinked
    | RunStarted
    | RunPaused
    | RunResumed
    | CancelRequested
    | TaskStarted
    | AttemptFailed
    | TaskFinished
    | DeadLetterDiscarded
    | OutputCaptured
    | RunFinished
)


class _NotAllTookEffect(Exception):
    """Some changes of a group are recorded already; it is not known which."""


_TO_BE_SPLIT: tuple[type[Exception], ...] = (_NotAllTookEffect, *_BAD_UNIT)


def commit(connection: sqlite3.Connection, units: Sequence[Unit]) -> list[CommitResult]:
    """Record units in one transaction and answer for each of them, in their order.

    When it raises, nothing is recorded, or (if the commit itself failed) perhaps everything.
    """
    if not units:
        return []
    try:
        with transaction(connection):
            return _record(connection, units, careful=False)
    except _TO_BE_SPLIT:
        with transaction(connection):
            return _record_without_bad_units(connection, units)


def _record_without_bad_units(connection: sqlite3.Connection, units: Sequence[Unit]) -> list[CommitResult]:
    """Record units by halves, and those of a half that fails by its halves: the bad ones are left over and refused."""
    connection.execute("SAVEPOINT units").close()
    try:
        results = _record(connection, units, careful=True)
    except _BAD_UNIT as error:
        forget_ends(connection)
        connection.execute("ROLLBACK TO units").close()
        connection.execute("RELEASE units").close()
        if len(units) == 1:
            return [Refused(_explain(connection, units[0], error))]
        middle = len(units) // 2
        first = _record_without_bad_units(connection, units[:middle])
        return first + _record_without_bad_units(connection, units[middle:])
    connection.execute("RELEASE units").close()
    return results


def _record(connection: sqlite3.Connection, units: Sequence[Unit], *, careful: bool) -> list[CommitResult]:
    """Write all units, except those whose idempotency key was used before.

    Raises:
        Unrecordable, UNRECORDABLE: at least one of the units is bad; what was written has to be rolled back.
        _NotAllTookEffect: so has it, and to be done again with care.
    """
    earlier = _find_earlier_runs(connection, units)
    trail = Trail(connection)
    pending = _Pending(connection, trail, careful=careful)
    for position, unit in enumerate(units):
        if position not in earlier:
            for change in unit:
                pending.add(change)
    pending.write_groups()
    trail.seal()
    results: list[CommitResult] = [COMMITTED] * len(units)
    if earlier:
        records = {record.run_id: record for record in find_runs(connection, set(earlier.values()))}
        for position, run_id in earlier.items():
            results[position] = Committed(existing=records[run_id])
    return results


# --- grouping -------------------------------------------------------------------------------------------------------


class _Pending:
    """Changes that wait to be written, grouped by kind."""

    __slots__ = (
        "_attempts",
        "_cancels",
        "_careful",
        "_connection",
        "_created",
        "_discarded",
        "_ended",
        "_ended_whole",
        "_estimates",
        "_finished",
        "_finished_tasks",
        "_linked",
        "_looked_up",
        "_notes",
        "_outputs",
        "_reservations",
        "_started",
        "_statistics",
        "_tasks_started",
        "_tenants",
        "_trail",
        "_workflows",
    )

    def __init__(self, connection: sqlite3.Connection, trail: Trail, *, careful: bool) -> None:
        self._connection = connection
        self._trail = trail
        self._careful = careful
        self._clear()

    def _clear(self) -> None:
        self._tenants: list[TenantCreated] = []
        self._reservations: list[HourReserved] = []
        self._estimates: list[EstimateLearnt] = []
        self._statistics: list[StatisticCounted] = []
        self._outputs: list[OutputCaptured] = []
        self._workflows: list[WorkflowStored] = []
        self._created: list[RunCreated] = []
        # An UPDATE that finds several values for a row takes any of them, so the first one is chosen here.
        self._started: dict[tuple[str, str], RunStarted] = {}
        self._cancels: dict[tuple[str, str], CancelRequested] = {}
        self._tasks_started: list[TaskStarted] = []
        self._attempts: dict[tuple[str, str, int, str], AttemptFailed] = {}
        self._finished: list[TaskFinished] = []
        self._finished_tasks: set[tuple[str, str]] = set()
        self._looked_up = 0
        self._linked: dict[tuple[str, str], RunLinked] = {}
        self._discarded: dict[tuple[str, str, str], DeadLetterDiscarded] = {}
        self._ended: dict[tuple[str, str], RunFinished] = {}
        self._ended_whole: set[tuple[str, str]] = set()
        self._notes: list[Noted] = []

    def add(self, change: Change) -> None:
        """Take a change; write the earlier ones first where the order matters."""
        match change:
            case TaskFinished():
                self._finished.append(change)
            case RunFinished():
                self._ended.setdefault((change.run_id, change.tenant_id), change)
            case RunCreated():
                self._created.append(change)
            case AttemptFailed():
                self._attempts.setdefault((change.run_id, change.component_id, change.number, change.tenant_id), change)
            case TaskStarted():
                if (
                    change.run_id,
                    change.component_id,
                    change.attempt,
                    change.tenant_id,
                ) in self._attempts or self._has_finished(change):
                    self.write()
                self._tasks_started.append(change)
            case RunStarted():
                if (change.run_id, change.tenant_id) in self._ended:
                    self.write()
                self._started.setdefault((change.run_id, change.tenant_id), change)
            case CancelRequested():
                if (change.run_id, change.tenant_id) in self._ended:
                    self.write()
                self._cancels.setdefault((change.run_id, change.tenant_id), change)
            case RunLinked():
                self._linked.setdefault((change.run_id, change.tenant_id), change)
            case DeadLetterDiscarded():
                self._discarded.setdefault((change.run_id, change.component_id, change.tenant_id), change)
            case EstimateLearnt():
                self._estimates.append(change)
            case OutputCaptured():
                self._outputs.append(change)
            case StatisticCounted():
                self._statistics.append(change)
            case HourReserved():
                self._reservations.append(change)
            case TenantCreated():
                if self._created or self._reservations or self._estimates or self._statistics:
                    self.write()  # what came before its tenant is refused
                self._tenants.append(change)
            case WorkflowStored():
                self._workflows.append(change)
            case TenantStatusChanged():
                self.write()
                if change_tenant_status(self._connection, change):
                    self._trail.add_tenant_status(change)
            case TenantPlanChanged():
                self.write()
                if change_tenant_plan(self._connection, change):
                    self._trail.add_changes([change])
            case BreakerChanged():
                self.write()
                if sql.CHANGE_BREAKER.execute(self._connection, [change]):
                    self._trail.add_changes([change])
            case RunPaused():
                self.write()
                self._apply_to_runs(sql.PAUSE_RUNS, [change])
            case RunResumed():
                self.write()
                self._apply_to_runs(sql.RESUME_RUNS, [change])
            case WorkflowPaused():
                self.write()
                if pause_workflow(self._connection, change):
                    self._trail.add_changes([change])
            case WorkflowResumed():
                self.write()
                if resume_workflow(self._connection, change):
                    self._trail.add_changes([change])
            case Noted():
                self._notes.append(change)
            case _:
                assert_never(change)

    def _has_finished(self, change: TaskStarted) -> bool:
        """Tell whether the end of the task is grouped already: its start came too late, and leaves no entry."""
        # Looked up only when something starts, as nearly everything only ends.
        for finished in self._finished[self._looked_up :]:
            self._finished_tasks.add((finished.run_id, finished.component_id))
        self._looked_up = len(self._finished)
        return (change.run_id, change.component_id) in self._finished_tasks

    def write(self) -> None:
        """Write all groups and forget them."""
        self.write_groups()
        self._clear()

    def write_groups(self) -> None:
        """Write all groups, kind after kind; nothing may be added after that."""
        connection = self._connection
        if self._tenants:
            self._apply(partial(create_tenants, connection), self._tenants)
        if self._reservations:
            sql.RESERVE_HOURS.execute(connection, self._reservations)
        if self._estimates:
            sql.LEARN_ESTIMATES.execute(connection, self._estimates)
        if self._statistics:
            sql.COUNT_STATISTICS.execute(connection, self._statistics)
        if self._workflows:
            sql.STORE_WORKFLOWS.execute(connection, self._workflows)
        if self._created:
            unclean_ends, has_deleted_tenants = connection.execute(_BEFORE_RUNS).fetchone()
            if has_deleted_tenants:
                refuse_runs_of_deleted_tenants(connection, self._created)
            self._create_runs(sql.create_runs(unclean_ends))
        if self._linked:
            self._apply_to_runs(sql.LINK_RUNS, [*self._linked.values()])
        if self._started:
            self._apply_to_runs(sql.START_RUNS, [*self._started.values()])
        if self._cancels:
            self._apply_to_runs(sql.REQUEST_CANCELS, [*self._cancels.values()])
        if self._tasks_started:
            self._apply_to_runs(sql.START_TASKS, self._tasks_started)
        if self._attempts:
            failed = self._apply_to_runs(sql.RECORD_ATTEMPTS, [*self._attempts.values()])
            sql.LET_TASKS_WAIT.execute(connection, failed)
        if self._finished:
            self._apply_to_runs(sql.FINISH_TASKS, self._finished)
        if self._discarded:
            self._apply_to_runs(sql.DISCARD_DEAD_LETTERS, [*self._discarded.values()])
        if self._ended:
            self._apply(self._finish_runs, [*self._ended.values()])
        if self._outputs:
            _write_of_runs(connection, sql.CAPTURE_OUTPUTS, self._outputs)
        for noted in self._notes:
            self._trail.note(noted)

    def _create_runs(self, statement: sql.ManyRows) -> None:
        """Write new runs; those that end in this batch as they are then, without an UPDATE of what was just written."""
        if self._careful or not self._ended:
            self._apply_to_runs(statement, self._created)
            return
        left: list[RunCreated] = []
        whole: list[sql.EndedRun] = []
        for created in self._created:
            key = created.run_id, created.tenant_id
            ended = self._ended.get(key)
            if ended is None or key in self._started or key in self._cancels:
                left.append(created)  # what comes between wants to find it open
            else:
                whole.append(sql.EndedRun(created, ended))
                self._ended_whole.add(key)

        def write(_: Sequence[RunCreated]) -> int:
            changed = sql.CREATE_ENDED_RUNS.execute(self._connection, whole)
            return changed + (_write_of_runs(self._connection, statement, left) if left else 0)

        self._apply(write, self._created)

    def _finish_runs(self, changes: Sequence[RunFinished]) -> int:
        """Write ends of runs that are not written with their beginning."""
        written = self._ended_whole
        left = (
            [change for change in changes if (change.run_id, change.tenant_id) not in written] if written else changes
        )
        return len(changes) - len(left) + (_write_of_runs(self._connection, sql.FINISH_RUNS, left) if left else 0)

    def _apply_to_runs(self, statement: sql.ManyRows, changes: Sequence[R]) -> Sequence[R]:
        return self._apply(partial(_write_of_runs, self._connection, statement), changes)

    def _apply(self, write: Callable[[Sequence[C]], int], changes: Sequence[C]) -> Sequence[C]:
        """Write changes of one kind; give those that took effect, of which the audit log has entries then.

        `write` gives how many did.
        """
        if self._careful:
            changes = self._took_effect(write, changes)
        elif write(changes) != len(changes):
            raise _NotAllTookEffect
        self._trail.add_changes(changes)
        return changes

    def _took_effect(self, write: Callable[[Sequence[C]], int], changes: Sequence[C]) -> Sequence[C]:
        """Write changes and give those that took effect, by halves until a half did wholly or not at all."""
        self._connection.execute("SAVEPOINT half").close()
        changed = write(changes)
        if changed in (0, len(changes)):
            self._connection.execute("RELEASE half").close()
            return changes if changed else []
        self._connection.execute("ROLLBACK TO half").close()
        self._connection.execute("RELEASE half").close()
        middle = len(changes) // 2
        return [*self._took_effect(write, changes[:middle]), *self._took_effect(write, changes[middle:])]


def _write_of_runs(connection: sqlite3.Connection, statement: sql.ManyRows, changes: Sequence[_OfRun]) -> int:
    """Run a statement for changes of runs; give how many rows it changed.

    Fewer rows than changes mean that some were recorded before, or that some name a run that is not there, or that
    is another tenant's.
    """
    changed = statement.execute(connection, changes)
    if changed == len(changes):
        return changed
    known = connection.execute(_RUNS_OF_IDS, {"list": json.dumps([c.run_id for c in changes])}).fetchall()
    unknown = {(change.run_id, change.tenant_id) for change in changes}.difference(known)
    if unknown:
        run_id, tenant_id = next(iter(unknown))
        raise Unrecordable(f"there is no run {run_id!r} of {tenant_id!r}")
    return changed


# --- look-ups within the transaction --------------------------------------------------------------------------------


_LIST = sa.func.json_each(sa.bindparam("list")).table_valued("value")

_RUNS_OF_IDS = sql.compile_query(
    sa.select(runs.c.run_id, runs.c.tenant_id).where(runs.c.run_id.in_(sa.select(_LIST.c.value)))
)
_HAS_WORKFLOW = sql.compile_query(
    sa.select(workflows.c.content_hash).where(workflows.c.content_hash == sa.bindparam("id"))
)
_BEFORE_RUNS = sql.compile_query(
    sa.select(
        sql.UNCLEAN_ENDS,
        sa.exists(
            sa.select(tenants.c.tenant_id).where(sql.has_status(tenants, [TenantStatus.DELETED])).correlate(None)
        ),
    )
)
_RUNS_OF_KEYS = sql.compile_query(
    sa.select(runs.c.tenant_id, runs.c.idempotency_key, runs.c.run_id).where(
        sa.tuple_(runs.c.tenant_id, runs.c.idempotency_key).in_(
            sa.select(
                sa.func.json_extract(_LIST.c.value, sa.literal_column("'$[0]'")),
                sa.func.json_extract(_LIST.c.value, sa.literal_column("'$[1]'")),
            )
        ),
        runs.c.idempotency_key.is_not(None),
        runs.c.tenant_id.not_in(sa.select(tenants.c.tenant_id).where(sql.has_status(tenants, [TenantStatus.DELETED]))),
    )
)


def _find_earlier_runs(connection: sqlite3.Connection, units: Sequence[Unit]) -> dict[int, str]:
    """Give the units whose run exists already under its idempotency key: position -> the id of that run.

    A run that comes a second time with its own id is no earlier run: recording it again just changes nothing.
    """
    keyed: dict[int, list[tuple[tuple[str, str], str]]] = {}
    for position, unit in enumerate(units):
        for change in unit:
            if type(change) is RunCreated and change.idempotency_key is not None:
                keyed.setdefault(position, []).append(((change.tenant_id, change.idempotency_key), change.run_id))
    if not keyed:
        return {}
    wanted = json.dumps([key for of_unit in keyed.values() for key, _ in of_unit])
    known = {(tenant_id, key): run_id for tenant_id, key, run_id in connection.execute(_RUNS_OF_KEYS, {"list": wanted})}
    earlier: dict[int, str] = {}
    for position, of_unit in keyed.items():
        used = [known[key] for key, run_id in of_unit if known.get(key, run_id) != run_id]
        if used:
            earlier[position] = used[0]
            continue
        for key, run_id in of_unit:
            if known.setdefault(key, run_id) != run_id:
                raise Unrecordable(f"two runs of one unit have the idempotency key {key[1]!r}")
    return earlier


def _explain(connection: sqlite3.Connection, unit: Unit, error: Exception) -> str:
    """Say what is wrong with a unit that was refused: SQLite names no key when a foreign key fails."""
    if isinstance(error, Unrecordable):
        return str(error)
    if isinstance(error, sqlite3.IntegrityError) and "FOREIGN KEY" in str(error):
        created = {change.run_id for change in unit if isinstance(change, RunCreated)}
        for change in unit:
            if isinstance(change, _OfTenant) and not has_tenant(connection, change.tenant_id):
                return f"there is no tenant {change.tenant_id!r}"
            if isinstance(change, RunCreated):
                if connection.execute(_HAS_WORKFLOW, {"id": change.content_hash}).fetchone() is None:
                    return f"there is no workflow version {change.content_hash!r}"
            elif isinstance(change, _OfRun) and change.run_id not in created:
                known = connection.execute(_RUNS_OF_IDS, {"list": json.dumps([change.run_id])}).fetchall()
                if (change.run_id, change.tenant_id) not in known:
                    return f"there is no run {change.run_id!r} of {change.tenant_id!r}"
    return f"{type(error).__name__}: {error}"
