"""Create the first tables: tenants, workflows, runs, tasks, attempts."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables as they were in version 0.1."""
    op.create_table(
        "meta",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("value", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_meta"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "tenants",
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("tenant_name", sa.Text, nullable=False),
        sa.Column("tier", sa.Text, nullable=False),
        sa.Column("quota", sa.LargeBinary, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("changed_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("tenant_id", name="pk_tenants"),
        sa.CheckConstraint("status IN ('active', 'deleted', 'suspended')", name="ck_tenants_status"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_tenants_deleted", "tenants", ["tenant_id"], sqlite_where=sa.text("status IN ('deleted')"))
    op.create_table(
        "workflows",
        sa.Column("content_hash", sa.Text, nullable=False),
        sa.Column("workflow", sa.Text, nullable=False),
        sa.Column("definition", sa.LargeBinary, nullable=False),
        sa.Column("source", sa.Text),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("content_hash", name="pk_workflows"),
    )
    op.create_table(
        "runs",
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("workflow", sa.Text, nullable=False),
        sa.Column("content_hash", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("priority", sa.BigInteger, nullable=False),
        sa.Column("input", sa.LargeBinary, nullable=False),
        sa.Column("result", sa.LargeBinary),
        sa.Column("error", sa.LargeBinary),
        sa.Column("idempotency_key", sa.Text),
        sa.Column("not_before", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("started_at", sa.BigInteger),
        sa.Column("ended_at", sa.BigInteger),
        sa.Column("cancel_requested_at", sa.BigInteger),
        sa.Column("recoveries", sa.BigInteger, nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("run_id", name="pk_runs"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name="fk_runs_tenants"),
        sa.ForeignKeyConstraint(["content_hash"], ["workflows.content_hash"], name="fk_runs_workflows"),
        sa.CheckConstraint(
            "status IN ('cancelled', 'failed', 'partial', 'pending', 'running', 'success')", name="ck_runs_status"
        ),
    )
    op.create_index("uq_runs_tenant", "runs", ["tenant_id", "run_id"], unique=True)
    op.create_index(
        "uq_runs_idempotency_key",
        "runs",
        ["tenant_id", "idempotency_key"],
        unique=True,
        sqlite_where=sa.text("idempotency_key IS NOT NULL"),
    )
    op.create_index(
        "ix_runs_open", "runs", ["run_id", "tenant_id"], sqlite_where=sa.text("status IN ('pending', 'running')")
    )
    op.create_table(
        "tasks",
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("component_id", sa.Text, nullable=False),
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("attempt", sa.BigInteger, nullable=False),
        sa.Column("started_at", sa.BigInteger),
        sa.Column("ended_at", sa.BigInteger),
        sa.Column("result", sa.LargeBinary),
        sa.Column("error", sa.LargeBinary),
        sa.Column("crashes", sa.BigInteger, nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("run_id", "component_id", name="pk_tasks"),
        sa.ForeignKeyConstraint(["tenant_id", "run_id"], ["runs.tenant_id", "runs.run_id"], name="fk_tasks_runs"),
        sa.CheckConstraint(
            "status IN ('cancelled', 'failed', 'pending', 'retrying', 'running', 'skipped', 'success', 'timeout')",
            name="ck_tasks_status",
        ),
    )
    op.create_index("ix_tasks_running", "tasks", ["run_id"], sqlite_where=sa.text("status IN ('running')"))
    op.create_table(
        "attempts",
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("component_id", sa.Text, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("ended_at", sa.BigInteger, nullable=False),
        sa.Column("retry_at", sa.BigInteger, nullable=False),
        sa.Column("error", sa.LargeBinary),
        sa.PrimaryKeyConstraint("run_id", "component_id", "number", name="pk_attempts"),
        sa.ForeignKeyConstraint(["tenant_id", "run_id"], ["runs.tenant_id", "runs.run_id"], name="fk_attempts_runs"),
        sa.CheckConstraint("status IN ('cancelled', 'failed', 'timeout')", name="ck_attempts_status"),
    )
