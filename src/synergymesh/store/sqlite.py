"""The store on SQLite: one thread that writes, one that reads, and the verbs of `ports.store`."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from synergymesh.domain.actors import Actor
from synergymesh.domain.audit.actions import Action, Outcome
from synergymesh.domain.instants import Instant
from synergymesh.domain.states import ExecutionStatus
from synergymesh.errors import InvalidRequest, NotRunning, StoreUnavailable
from synergymesh.ports.audit import AuditEntryRecord, AuditExtent, AuditHeadRecord, AuditPage
from synergymesh.ports.changes import Unit
from synergymesh.ports.records import (
    AttemptRecord,
    BreakerRecord,
    CommitResult,
    DeadLetterRecord,
    EstimateRecord,
    Incarnation,
    OutputRecord,
    PauseRecord,
    PrunablePage,
    Pruned,
    ReservationRecord,
    RunRecord,
    StatisticRecord,
    SubmissionRecord,
    TaskRecord,
    TenantRecord,
    WaitingRecord,
    WorkflowRecord,
)
from synergymesh.store import backlog_reads, dead_letters, pauses, pruning, reads, space, statistics, upkeep, writes
from synergymesh.store.audit import reads as audit_reads
from synergymesh.store.database_thread import DatabaseThread
from synergymesh.store.sqlite_audit import AuditKeepingReads, AuditKeepingWrites
from synergymesh.store.sqlite_errors import translate
from synergymesh.store.sqlite_files import (
    BUSY_TIMEOUT_SECONDS,
    MEMORY,
    Ownership,
    Synchronous,
    check_file,
    open_reader,
    open_writer,
    parse_address,
)
from synergymesh.store.unused_versions import UnusedVersions

T = TypeVar("T")

_BUSY_MILLISECONDS = int(BUSY_TIMEOUT_SECONDS * 1_000)


class _Lane:
    """A connection and the only thread that touches it."""

    def __init__(self, name: str, where: str, thread: type[DatabaseThread] = DatabaseThread) -> None:
        self._where = where
        self._thread = thread(name, lambda error: translate(error, where))
        self._connection: sqlite3.Connection | None = None

    async def open(self, function: Callable[..., sqlite3.Connection], *arguments: Any) -> None:
        """Let the function open the connection in the thread."""
        await self._thread.run(self._open, function, arguments)

    def run(self, function: Callable[..., T], *arguments: Any) -> Awaitable[T]:
        """Call the function in the thread, with the connection in front of the arguments."""
        return self._thread.run(self._call, function, arguments)

    async def close(self) -> None:
        """Close the connection and end the thread, after everything that is under way."""
        try:
            await self._thread.run(self._close)
        finally:
            self._thread.stop()

    def _open(self, function: Callable[..., sqlite3.Connection], arguments: tuple[Any, ...]) -> None:
        self._connection = function(*arguments)

    def _call(self, function: Callable[..., T], arguments: tuple[Any, ...]) -> T:
        if self._connection is None:
            raise _not_open(self._where)
        return function(self._connection, *arguments)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _not_open(where: str) -> NotRunning:
    return NotRunning(f"the store on {where} is not open.")


class _ReadVerbs(AuditKeepingReads):
    """The verbs of `ports.store.Store` that only read; where they run is up to the class that has them."""

    path: Path | None
    _reads: _Lane | None = None
    _where: str

    @property
    def name(self) -> str:
        """Give what errors call it."""
        return self._where

    async def _read(self, function: Callable[..., T], *arguments: Any) -> T:
        if self._reads is None:
            raise _not_open(self._where)
        return await self._reads.run(function, *arguments)

    async def list_tenants(self) -> list[TenantRecord]:
        """Give all tenants that are not deleted, oldest first."""
        return await self._read(reads.list_tenants)

    async def list_reservations(self, since_minute: int) -> list[ReservationRecord]:
        """Give what is reserved for this minute and later ones, ordered by (tenant, minute)."""
        return await self._read(reads.list_reservations, since_minute)

    async def list_submissions(self, *, after: str, except_source: str, limit: int) -> list[SubmissionRecord]:
        """Give the runs with a greater id than `after`, oldest first, but those of versions of that source."""
        return await self._read(reads.list_submissions, after, except_source, limit)

    async def list_estimates(self) -> list[EstimateRecord]:
        """Give all estimates, ordered by (tenant, workflow, component)."""
        return await self._read(reads.list_estimates)

    async def sum_statistics(self) -> list[StatisticRecord]:
        """Give what was counted in all hours together, as of hour 0, ordered by (tenant, measure, bucket)."""
        return await self._read(statistics.sum_statistics)

    async def list_statistics(self, tenant_id: str | None, *, since_hour: int) -> list[StatisticRecord]:
        """Give what was counted in this hour and later ones, ordered by (tenant, hour, measure, bucket)."""
        return await self._read(statistics.list_statistics, tenant_id, since_hour)

    async def list_breakers(self, tenant_id: str | None) -> list[BreakerRecord]:
        """Give the circuits that were ever open, ordered by (tenant, workflow, name)."""
        return await self._read(reads.list_breakers, tenant_id)

    async def get_workflow(self, content_hash: str) -> WorkflowRecord | None:
        """Give one version of a workflow."""
        return await self._read(reads.get_workflow, content_hash)

    async def get_run(self, run_id: str, tenant_id: str | None) -> RunRecord | None:
        """Give one run."""
        return await self._read(reads.get_run, run_id, tenant_id)

    async def list_runs(
        self,
        *,
        tenant_id: str | None,
        statuses: Sequence[ExecutionStatus] = (),
        workflow: str | None = None,
        before: str | None = None,
        limit: int = 100,
    ) -> list[RunRecord]:
        """Give runs, newest first, those with a smaller id than `before`; without statuses: of any."""
        return await self._read(reads.list_runs, tenant_id, statuses, workflow, before, limit)

    async def list_open_runs(self, *, after: str | None, limit: int) -> list[RunRecord]:
        """Give runs that are not final, oldest first, those with a greater id than `after`."""
        return await self._read(reads.list_open_runs, after, limit)

    async def list_waiting_runs(
        self,
        tenant_id: str,
        *,
        due_by: Instant,
        after: tuple[int, str] | None,
        limit: int,
        except_versions: Sequence[str] = (),
    ) -> list[RunRecord]:
        """Give the tenant's open runs that are not begun and may start by `due_by`, by (level, id)."""
        return await self._read(
            backlog_reads.list_waiting_runs, tenant_id, due_by, after, limit, tuple(except_versions)
        )

    async def list_later_runs(self, tenant_id: str, *, after: Instant, limit: int) -> list[RunRecord]:
        """Give the tenant's waiting runs that may not start before a moment behind `after`, by (that moment, id)."""
        return await self._read(backlog_reads.list_later_runs, tenant_id, after, limit)

    async def list_overdue_runs(self, now: Instant, limit: int) -> list[str]:
        """Give the ids of runs of all tenants that are not begun and had to be by now, those most overdue first."""
        return await self._read(backlog_reads.list_overdue_runs, now, limit)

    async def list_begun_runs(self, *, after: str | None, limit: int) -> list[RunRecord]:
        """Give the open runs that are begun, oldest first, those with a greater id than `after`."""
        return await self._read(reads.list_begun_runs, after, limit)

    async def count_waiting_before(self, tenant_id: str, level: int, run_id: str) -> int:
        """Count the tenant's waiting runs whose (level, id) is smaller than this."""
        return await self._read(backlog_reads.count_waiting_before, tenant_id, level, run_id)

    async def list_waiting_counts(self) -> list[WaitingRecord]:
        """Give how much waits of every tenant that has waiting runs, ordered by tenant."""
        return await self._read(backlog_reads.list_waiting_counts)

    async def count_runs(self, *, tenant_id: str | None, statuses: Sequence[ExecutionStatus] = ()) -> int:
        """Count runs; without statuses: all."""
        return await self._read(reads.count_runs, tenant_id, statuses)

    async def list_tasks(self, run_ids: Sequence[str], tenant_id: str | None = None) -> list[TaskRecord]:
        """Give the task rows of these runs, ordered by (run, component)."""
        return await self._read(reads.list_tasks, run_ids, tenant_id)

    async def list_outputs(self, run_id: str, component_id: str | None, tenant_id: str | None) -> list[OutputRecord]:
        """Give what the attempts of a run, or of one of its tasks, have printed, ordered by (component, number)."""
        return await self._read(reads.list_outputs, run_id, component_id, tenant_id)

    async def list_attempts(self, run_ids: Sequence[str], tenant_id: str | None = None) -> list[AttemptRecord]:
        """Give the failed attempts of these runs, ordered by (run, component, number)."""
        return await self._read(reads.list_attempts, run_ids, tenant_id)

    async def get_audit_log_id(self) -> str:
        """Give the id of this log; empty before its first entry."""
        return await self._read(audit_reads.get_log_id)

    async def list_audit_heads(self) -> list[AuditHeadRecord]:
        """Give the end of every chain, ordered by tenant."""
        return await self._read(audit_reads.list_heads)

    async def get_audit_extent(self, signed: int | None) -> AuditExtent:
        """Count the entries that were ever recorded, pruned ones too; say since when those behind `signed` wait."""
        return await self._read(audit_reads.get_extent, signed)

    async def list_audit_entries(self, tenant_id: str, *, after_seq: int, limit: int) -> list[AuditEntryRecord]:
        """Give the entries of one chain in its order, those behind `after_seq`."""
        return await self._read(audit_reads.list_entries, tenant_id, after_seq, limit)

    async def find_audit_entries(
        self,
        tenant_id: str | None,
        *,
        since: Instant | None = None,
        until: Instant | None = None,
        action: Action | None = None,
        actor: str | None = None,
        entity: str | None = None,
        outcome: Outcome | None = None,
        cursor: int | None = None,
        limit: int = 100,
    ) -> AuditPage:
        """Give entries, newest first: of one chain in its order, or of all (None) in the order of their recording."""
        wanted = audit_reads.Wanted(since, until, action, actor, entity, outcome)
        return await self._read(audit_reads.find_entries, tenant_id, wanted, cursor, limit)

    async def list_pauses(self) -> list[PauseRecord]:
        """Give all workflows that are paused, ordered by (tenant, workflow)."""
        return await self._read(pauses.list_pauses)

    async def list_dead_letters(
        self,
        *,
        tenant_id: str | None,
        workflow: str | None = None,
        error_type: str | None = None,
        since: Instant | None = None,
        before: tuple[str, str] | None = None,
        limit: int = 100,
    ) -> list[DeadLetterRecord]:
        """Give tasks that failed for good, newest run first: neither discarded nor of a run that was retried."""
        return await self._read(dead_letters.list_dead_letters, tenant_id, workflow, error_type, since, before, limit)

    async def get_dead_letter(self, run_id: str, component_id: str, tenant_id: str | None) -> DeadLetterRecord | None:
        """Give one task that failed for good, also one that was discarded or retried."""
        return await self._read(dead_letters.get_dead_letter, run_id, component_id, tenant_id)

    async def get_retry(self, run_id: str, tenant_id: str | None) -> str | None:
        """Give the id of the run that goes on where this one failed."""
        return await self._read(dead_letters.get_retry, run_id, tenant_id)


class SqliteStore(_ReadVerbs, AuditKeepingWrites):
    """Keep everything in one SQLite file, or in memory.

    Writes go through one connection in one thread; reads of a file have their own of both, and wait for no write.
    """

    _thread = DatabaseThread
    _beside_an_engine = True

    def __init__(self, database: str | os.PathLike[str], *, synchronous: Synchronous = "full") -> None:
        """Name the database: `sqlite:///mesh.db`, `sqlite:////data/mesh.db`, `:memory:` or a path.

        `synchronous="normal"` does not wait for the disk at each commit: a power cut may take the last ones back, a
        crash of the process does not.

        Raises:
            InvalidRequest: that is no SQLite database, or no such mode.
        """
        if synchronous not in get_args(Synchronous):
            raise InvalidRequest(f"synchronous must be full or normal, not {synchronous!r}.", field="synchronous")
        self.path = parse_address(database)
        self._where = str(self.path or MEMORY)
        self._synchronous = synchronous
        self._writes: _Lane | None = None
        self._ownership: Ownership | None = None
        self._unused = UnusedVersions()

    async def open(self) -> None:
        """Take the database for this process alone, create or migrate its schema. Opening twice does nothing."""
        if self._writes is not None:
            return
        self._unused = UnusedVersions()
        self._writes = _Lane("synergymesh-writes", self._where, self._thread)
        try:
            await self._writes.open(self._open_writer)
            if self.path is None:
                self._reads = self._writes
            else:
                self._reads = _Lane("synergymesh-reads", self._where, self._thread)
                await self._reads.open(open_reader, self.path)
        except BaseException:
            await self.close()
            raise

    def _open_writer(self) -> sqlite3.Connection:
        if self.path is not None:
            check_file(self.path)
            self._ownership = Ownership(self.path)
        return open_writer(self.path, self._synchronous)

    async def close(self) -> None:
        """Release the database. Closing twice does nothing."""
        lanes = [lane for lane in (self._reads, self._writes) if lane is not None]
        self._reads = self._writes = None
        # The reader first: whoever closes last writes the log back into the file, and only the writer may.
        for lane in dict.fromkeys(lanes):
            await lane.close()
        if self._ownership is not None:
            self._ownership.release()
            self._ownership = None

    async def begin_incarnation(self, by: Actor | None = None) -> Incarnation:
        """Start a life on this store, in one transaction, on an actor's account."""
        return await self._write(upkeep.begin_incarnation, by)

    async def end_incarnation(self, by: Actor | None = None) -> None:
        """Record that this life ends cleanly: no attempt is running any more."""
        await self._write(upkeep.end_incarnation, by)

    def commit(self, units: Sequence[Unit]) -> Awaitable[list[CommitResult]]:
        """Begin to record units in one transaction, and let the answers be awaited, for each of them in their order."""
        if self._writes is None:
            raise _not_open(self._where)
        return self._writes.run(self._commit, units)

    def _commit(self, connection: sqlite3.Connection, units: Sequence[Unit]) -> list[CommitResult]:
        results = writes.commit(connection, units)
        self._unused.note(units)
        return results

    async def purge_deleted(self, limit: int) -> int:
        """Delete at most `limit` rows of deleted tenants; give how many were deleted."""
        return await self._write(upkeep.purge_deleted, limit)

    async def prune_reservations(self, before_minute: int, limit: int) -> int:
        """Delete at most `limit` reservations of minutes before this one; give how many were deleted."""
        return await self._write(upkeep.prune_reservations, before_minute, limit)

    async def add_up_statistics(self, before_hour: int, limit: int) -> int:
        """Add at most `limit` rows of hours before this one to hour 0 and delete them; give how many."""
        return await self._write(statistics.add_up_statistics, before_hour, limit)

    async def list_prunable_runs(
        self, tenant_id: str, *, ended_before: Instant, after: str | None, before: str, limit: int
    ) -> PrunablePage:
        """Look at the next `limit` runs of a tenant, oldest first, and give those that may go."""
        return await self._read(pruning.list_prunable_runs, tenant_id, ended_before, after, before, limit)

    async def prune_runs(self, run_ids: Sequence[str], *, ended_before: Instant, limit: int) -> Pruned:
        """Delete at most `limit` rows of those of these runs that are final and ended before that moment."""
        return await self._write(pruning.prune_runs, run_ids, ended_before, limit)

    async def find_unused_workflows(self, limit: int) -> list[str] | None:
        """Look at the next `limit` runs for the versions that they use; give the unused ones in the end."""
        return await self._read(self._unused.look, limit)

    async def forget_workflows(self, content_hashes: Sequence[str]) -> int:
        """Delete versions that the last search found unused, except those that a run uses since."""
        return await self._write(self._unused.forget, content_hashes)

    async def give_space_back(self, limit: int) -> int:
        """Give at most `limit` free pages back to the file system; give how many were."""
        return await self._write(space.give_space_back, limit)

    async def shorten_log(self) -> int:
        """Write a log that has grown long back into the database; give its length in bytes afterwards."""
        return await self._write(space.shorten_log, self.path, _BUSY_MILLISECONDS)

    async def _write(self, function: Callable[..., T], *arguments: Any) -> T:
        if self._writes is None:
            raise _not_open(self._where)
        return await self._writes.run(function, *arguments)


class SqliteReader(_ReadVerbs):
    """Read a database file, also while another process owns it. It changes nothing and takes no lock."""

    path: Path

    def __init__(self, database: str | os.PathLike[str]) -> None:
        """Name the database as for `SqliteStore`.

        Raises:
            InvalidRequest: that is no SQLite file.
        """
        path = parse_address(database)
        if path is None:
            raise InvalidRequest(
                "database must be a file: one in memory can only be read by its store.", field="database"
            )
        self.path = path
        self._where = str(path)

    async def open(self) -> None:
        """Open the database. Opening twice does nothing.

        Raises:
            StoreUnavailable: it is not there, empty, not readable, or still of an older version.
            StoreCorrupt: it is not a database of SynergyMesh.
            SchemaMismatch: a newer version made it.
        """
        if self._reads is not None:
            return
        self._reads = _Lane("synergymesh-reads", self._where)
        try:
            await self._reads.open(self._open_reader)
        except BaseException:
            await self.close()
            raise

    def _open_reader(self) -> sqlite3.Connection:
        check_file(self.path)
        if not self.path.exists():
            raise StoreUnavailable(f"there is no database {self.path}. Start an orchestrator on it first.")
        return open_reader(self.path)

    async def close(self) -> None:
        """Close the database. Closing twice does nothing."""
        lane, self._reads = self._reads, None
        if lane is not None:
            await lane.close()
