"""Tables, constraints and indexes: every name of the database exists here once.

Instants are BIGINT nanoseconds since 1970 (UTC). Payloads are BLOBs, so that what comes back is what was stored, byte
for byte. The statuses that a column accepts are those of `domain.states`.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    text,
)

from synergymesh.domain.actors import ENGINE
from synergymesh.domain.audit.actions import ROUTINE
from synergymesh.domain.fault_tolerance.breaker import BreakerState
from synergymesh.domain.states import (
    ATTEMPT_STATUSES,
    FINAL,
    RUN_TRANSITIONS,
    TASK_TRANSITIONS,
    ExecutionStatus,
    TenantStatus,
)

RUN_STATUSES = frozenset(RUN_TRANSITIONS)
TASK_STATUSES = frozenset(TASK_TRANSITIONS)
OPEN_RUN_STATUSES = RUN_STATUSES - FINAL
FINAL_RUN_STATUSES = RUN_STATUSES & FINAL
FINAL_TASK_STATUSES = TASK_STATUSES & FINAL


def one_of(column: str, statuses: Iterable[ExecutionStatus | TenantStatus | BreakerState]) -> str:
    """Give the SQL condition that a column has one of these statuses.

    Written out instead of bound: SQLite uses a partial index only when it sees the index's own condition.
    """
    return f"{column} IN ({', '.join(sorted(repr(s.value) for s in statuses))})"


_PENDING = one_of("status", [ExecutionStatus.PENDING])
_OPEN = one_of("status", OPEN_RUN_STATUSES)

WAITING_RUN = f"{_PENDING} AND cancel_requested_at IS NULL AND paused_at IS NULL"
"""The condition of a run that is open, not begun and not paused."""

LATER_RUN = f"{WAITING_RUN} AND not_before > created_at"
"""The condition of a waiting run that was submitted for later."""

OVERDUE_RUN = f"{WAITING_RUN} AND start_by > 0"
"""The condition of a run that is not begun, and has to be by a certain moment."""

BEGUN_RUN = f"{_OPEN} AND (NOT {_PENDING} OR cancel_requested_at IS NOT NULL OR paused_at IS NOT NULL)"
"""The condition of every other open run."""

DEAD_TASK = one_of("status", [ExecutionStatus.FAILED, ExecutionStatus.TIMEOUT])
"""The condition of a task that failed for good."""

DEAD_LETTER = f"{DEAD_TASK} AND discarded_at IS NULL"
"""The condition of such a task that nobody has seen to."""

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

meta = Table(
    "meta",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

tenants = Table(
    "tenants",
    metadata,
    Column("tenant_id", Text, primary_key=True),
    Column("tenant_name", Text, nullable=False),
    Column("tier", Text, nullable=False),
    Column("quota", LargeBinary, nullable=False),
    Column("status", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("changed_at", BigInteger),
    Column("parent_id", Text, ForeignKey("tenants.tenant_id")),
    Column("policy", LargeBinary, nullable=False, server_default=text("x'7b7d'")),
    Column("idempotency_key", Text),
    Column("request_hash", Text),
    CheckConstraint(one_of("status", TenantStatus), name="status"),
    sqlite_with_rowid=False,
)
Index(
    "ix_tenants_deleted",
    tenants.c.tenant_id,
    sqlite_where=text(one_of("status", [TenantStatus.DELETED])),
)

# The key of a deleted tenant is free again.
Index(
    "uq_tenants_idempotency_key",
    tenants.c.idempotency_key,
    unique=True,
    sqlite_where=text(f"idempotency_key IS NOT NULL AND NOT {one_of('status', [TenantStatus.DELETED])}"),
)

Index("ix_tenants_parent", tenants.c.parent_id, sqlite_where=text("parent_id IS NOT NULL"))

hour_reservations = Table(
    "hour_reservations",
    metadata,
    Column("tenant_id", Text, ForeignKey(tenants.c.tenant_id), primary_key=True),
    Column("minute", BigInteger, primary_key=True, autoincrement=False),
    Column("starts", BigInteger, nullable=False),
    CheckConstraint("starts >= 0", name="starts"),
    sqlite_with_rowid=False,
)
Index("ix_hour_reservations_minute", hour_reservations.c.minute)

estimates = Table(
    "estimates",
    metadata,
    Column("tenant_id", Text, ForeignKey(tenants.c.tenant_id), primary_key=True),
    Column("workflow", Text, primary_key=True),
    Column("component_id", Text, primary_key=True),
    Column("microseconds", BigInteger, nullable=False),
    CheckConstraint("microseconds >= 0", name="microseconds"),
    sqlite_with_rowid=False,
)

statistics = Table(
    "statistics",
    metadata,
    Column("tenant_id", Text, ForeignKey(tenants.c.tenant_id), primary_key=True),
    Column("hour", BigInteger, primary_key=True, autoincrement=False),
    Column("measure", Text, primary_key=True),
    Column("bucket", BigInteger, primary_key=True, autoincrement=False),
    Column("count", BigInteger, nullable=False),
    Column("total", BigInteger, nullable=False),
    CheckConstraint("count >= 0", name="count"),
    sqlite_with_rowid=False,
)
Index("ix_statistics_hour", statistics.c.hour)

breakers = Table(
    "breakers",
    metadata,
    Column("tenant_id", Text, ForeignKey(tenants.c.tenant_id), primary_key=True),
    Column("workflow", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("until", BigInteger, nullable=False),
    Column("trips", BigInteger, nullable=False),
    Column("wave", BigInteger, nullable=False),
    Column("calls", BigInteger, nullable=False),
    Column("failures", BigInteger, nullable=False),
    Column("changed_at", BigInteger, nullable=False),
    CheckConstraint(one_of("state", BreakerState), name="state"),
    sqlite_with_rowid=False,
)

workflows = Table(
    "workflows",
    metadata,
    Column("content_hash", Text, primary_key=True),
    Column("workflow", Text, nullable=False),
    Column("definition", LargeBinary, nullable=False),
    Column("source", Text),
    Column("created_at", BigInteger, nullable=False),
)

# The tables with payloads keep their rowid: in WITHOUT ROWID tables long rows spill into overflow pages early, which
# made writes two to three times slower (docs/decisions/0002-sqlite-store.md).
runs = Table(
    "runs",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("tenant_id", Text, ForeignKey(tenants.c.tenant_id), nullable=False),
    Column("workflow", Text, nullable=False),
    Column("content_hash", Text, ForeignKey(workflows.c.content_hash), nullable=False),
    Column("status", Text, nullable=False),
    Column("priority", BigInteger, nullable=False),
    Column("input", LargeBinary, nullable=False),
    Column("result", LargeBinary),
    Column("error", LargeBinary),
    Column("idempotency_key", Text),
    Column("not_before", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("started_at", BigInteger),
    Column("ended_at", BigInteger),
    Column("cancel_requested_at", BigInteger),
    # Of an open run: what has to be added to the count of unclean ends (`meta`). A final run has its final figure.
    Column("recoveries", BigInteger, nullable=False, server_default="0"),
    Column("level", BigInteger, nullable=False, server_default="0"),
    Column("tasks", BigInteger, nullable=False, server_default="1"),
    Column("start_by", BigInteger, nullable=False, server_default="0"),
    Column("retry_of", Text),
    Column("replay_of", Text),
    Column("pruned_at", BigInteger),
    Column("paused_at", BigInteger),
    Column("traceparent", Text),
    CheckConstraint(one_of("status", RUN_STATUSES), name="status"),
)
# Also the target of the foreign keys of tasks and attempts: a row can only name the tenant that its run has.
Index("uq_runs_tenant", runs.c.tenant_id, runs.c.run_id, unique=True)
Index(
    "uq_runs_idempotency_key",
    runs.c.tenant_id,
    runs.c.idempotency_key,
    unique=True,
    sqlite_where=text("idempotency_key IS NOT NULL"),
)
# No foreign key: the run before may be pruned first.
Index("uq_runs_retry_of", runs.c.retry_of, unique=True, sqlite_where=text("retry_of IS NOT NULL"))
Index("ix_runs_open", runs.c.run_id, runs.c.tenant_id, sqlite_where=text(_OPEN))
# In the order of starting; the last two columns are there so that a backlog is skipped and summed without its rows.
Index(
    "ix_runs_waiting",
    runs.c.tenant_id,
    runs.c.level,
    runs.c.run_id,
    runs.c.not_before,
    runs.c.tasks,
    sqlite_where=text(WAITING_RUN),
)
Index(
    "ix_runs_later",
    runs.c.tenant_id,
    runs.c.not_before,
    runs.c.run_id,
    sqlite_where=text(LATER_RUN),
)
Index(
    "ix_runs_start_by",
    runs.c.start_by,
    runs.c.run_id,
    sqlite_where=text(OVERDUE_RUN),
)
Index("ix_runs_begun", runs.c.run_id, runs.c.tenant_id, sqlite_where=text(BEGUN_RUN))

# The workflows of which nothing starts: of a tenant, or of all (`tenant_id` is empty then, so there is no foreign key).
pauses = Table(
    "pauses",
    metadata,
    Column("tenant_id", Text, primary_key=True),
    Column("workflow", Text, primary_key=True),
    Column("paused_at", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

tasks = Table(
    "tasks",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("component_id", Text, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("attempt", BigInteger, nullable=False),
    Column("started_at", BigInteger),
    Column("ended_at", BigInteger),
    Column("result", LargeBinary),
    Column("error", LargeBinary),
    Column("crashes", BigInteger, nullable=False, server_default="0"),
    Column("discarded_at", BigInteger),
    Column("discard_reason", Text),
    Column("waited_for", Text),
    ForeignKeyConstraint(["tenant_id", "run_id"], [runs.c.tenant_id, runs.c.run_id]),
    CheckConstraint(one_of("status", TASK_STATUSES), name="status"),
)
Index("ix_tasks_running", tasks.c.run_id, sqlite_where=text(one_of("status", [ExecutionStatus.RUNNING])))

Index("ix_tasks_dead", tasks.c.run_id, tasks.c.component_id, tasks.c.tenant_id, sqlite_where=text(DEAD_LETTER))


outputs = Table(
    "outputs",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("component_id", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("tenant_id", Text, nullable=False),
    Column("lines", LargeBinary, nullable=False),
    Column("dropped", BigInteger, nullable=False),
    ForeignKeyConstraint(["tenant_id", "run_id"], [runs.c.tenant_id, runs.c.run_id]),
)

attempts = Table(
    "attempts",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("component_id", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("tenant_id", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger, nullable=False),
    Column("retry_at", BigInteger, nullable=False),
    Column("error", LargeBinary),
    Column("waited_for", Text),
    ForeignKeyConstraint(["tenant_id", "run_id"], [runs.c.tenant_id, runs.c.run_id]),
    CheckConstraint(one_of("status", ATTEMPT_STATUSES), name="status"),
)

# The columns beside the payload repeat what it says, so that it can be searched; hashes are over the payload alone.
# A row is a group of entries (see domain.audit.groups). It has the number and the place of its last entry, the earliest
# and the latest time, the payloads as lines, and the hashes one behind the other. Entity and version are those of an
# entry that is about no run.
audit_entries = Table(
    "audit_entries",
    metadata,
    Column("entry_id", Integer, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("first_at", BigInteger, nullable=False, server_default=text("0")),
    Column("at", BigInteger, nullable=False),
    Column("action", Text, nullable=False),
    Column("entity", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    CheckConstraint("seq > 0", name="seq"),
)
Index("uq_audit_entries_seq", audit_entries.c.tenant_id, audit_entries.c.seq, unique=True)

# Nearly all entries are tasks that went well. Indexes that leave these out cost nothing while tasks end.
HAS_ENTITY = "entity <> ''"
"""The condition of rows that are found by their entity; those of runs and tasks are found by the time of the run."""

NOT_ROUTINE = " AND ".join(f"action <> '{action.value}'" for action in sorted(ROUTINE))
"""The condition of entries that are found by their action."""

NOT_THE_ENGINE = f"actor <> '{ENGINE}'"
"""The condition of entries that are found by their actor."""

NOT_WELL = "outcome <> 'success'"
"""The condition of entries that are found by their outcome."""

for _column, _condition in (
    ("entity", HAS_ENTITY),
    ("action", NOT_ROUTINE),
    ("actor", NOT_THE_ENGINE),
    ("outcome", NOT_WELL),
):
    Index(
        f"ix_audit_entries_{_column}",
        audit_entries.c.tenant_id,
        audit_entries.c[_column],
        audit_entries.c.seq,
        sqlite_where=text(_condition),
    )

Index("ix_audit_entries_at", *(audit_entries.c[name] for name in ("tenant_id", "at", "first_at", "seq")))

audit_heads = Table(
    "audit_heads",
    metadata,
    Column("tenant_id", Text, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    CheckConstraint("seq > 0", name="seq"),
    sqlite_with_rowid=False,
)

# What belongs to the audit log beside its entries. Tenants are no foreign keys here: a log outlives its tenant.
audit_tombstones = Table(
    "audit_tombstones",
    metadata,
    Column("tenant_id", Text, primary_key=True),
    Column("first_seq", BigInteger, primary_key=True, autoincrement=False),
    Column("last_seq", BigInteger, primary_key=True, autoincrement=False),
    Column("content", LargeBinary, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("pending", BigInteger, nullable=False),
    CheckConstraint("first_seq BETWEEN 1 AND last_seq", name="range"),
)
Index(
    "ix_audit_tombstones_pending",
    audit_tombstones.c.tenant_id,
    audit_tombstones.c.first_seq,
    sqlite_where=text("pending = 1"),
)

audit_holds = Table(
    "audit_holds",
    metadata,
    Column("tenant_id", Text, primary_key=True),
    Column("reason", Text, nullable=False),
    Column("held_at", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

audit_subject_keys = Table(
    "audit_subject_keys",
    metadata,
    Column("subject", Text, primary_key=True),
    Column("key", LargeBinary, nullable=False),
    Column("made_at", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

CHILDREN_OF_RUNS = tuple(
    table for table in reversed(metadata.sorted_tables) if any(key.column.table is runs for key in table.foreign_keys)
)
"""The tables whose rows belong to a run and go with it, those first that others do not refer to."""
