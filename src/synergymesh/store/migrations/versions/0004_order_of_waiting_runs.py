"""Keep the waiting runs of a tenant in the order in which they start, and count recoveries without touching runs."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

WAITING = "status IN ('pending') AND cancel_requested_at IS NULL"


def upgrade() -> None:
    """Add the place of a run, how many tasks it has, and the indexes by place and by moment."""
    op.add_column("runs", sa.Column("level", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("runs", sa.Column("tasks", sa.BigInteger, nullable=False, server_default="1"))
    op.execute(
        "UPDATE runs SET level = max(created_at, not_before) / 60000000000 - priority, tasks = coalesce("
        "(SELECT json_array_length(CAST(definition AS TEXT), '$.components') FROM workflows "
        "WHERE workflows.content_hash = runs.content_hash), 1) "
        "WHERE status IN ('pending', 'running')"
    )
    op.drop_index("ix_runs_waiting", "runs")
    op.create_index(
        "ix_runs_waiting",
        "runs",
        ["tenant_id", "level", "run_id", "not_before", "tasks"],
        sqlite_where=sa.text(WAITING),
    )
    op.create_index(
        "ix_runs_later",
        "runs",
        ["tenant_id", "not_before", "run_id"],
        sqlite_where=sa.text(f"{WAITING} AND not_before > created_at"),
    )
