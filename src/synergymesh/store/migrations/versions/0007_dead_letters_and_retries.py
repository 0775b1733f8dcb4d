"""Add the links between runs, and what is known of tasks that failed for good."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the columns and their indexes."""
    op.add_column("runs", sa.Column("retry_of", sa.Text))
    op.add_column("runs", sa.Column("replay_of", sa.Text))
    op.create_index("uq_runs_retry_of", "runs", ["retry_of"], unique=True, sqlite_where=sa.text("retry_of IS NOT NULL"))
    op.add_column("tasks", sa.Column("discarded_at", sa.BigInteger))
    op.add_column("tasks", sa.Column("discard_reason", sa.Text))
    op.create_index(
        "ix_tasks_dead",
        "tasks",
        ["run_id", "component_id", "tenant_id"],
        sqlite_where=sa.text("status IN ('failed', 'timeout') AND discarded_at IS NULL"),
    )
