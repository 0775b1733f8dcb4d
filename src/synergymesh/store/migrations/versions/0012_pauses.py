"""Let runs and workflows be paused: a paused run is not among those that wait."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

WAITING = "status IN ('pending') AND cancel_requested_at IS NULL AND paused_at IS NULL"
BEGUN = (
    "status IN ('pending', 'running') "
    "AND (NOT status IN ('pending') OR cancel_requested_at IS NOT NULL OR paused_at IS NOT NULL)"
)


def upgrade() -> None:
    """Add the column and the table, and make the indexes of open runs anew."""
    op.add_column("runs", sa.Column("paused_at", sa.BigInteger))
    op.create_table(
        "pauses",
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("workflow", sa.Text, nullable=False),
        sa.Column("paused_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "workflow", name="pk_pauses"),
        sqlite_with_rowid=False,
    )
    for name in ("ix_runs_waiting", "ix_runs_later", "ix_runs_start_by", "ix_runs_begun"):
        op.drop_index(name, "runs")
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
    op.create_index(
        "ix_runs_start_by", "runs", ["start_by", "run_id"], sqlite_where=sa.text(f"{WAITING} AND start_by > 0")
    )
    op.create_index("ix_runs_begun", "runs", ["run_id", "tenant_id"], sqlite_where=sa.text(BEGUN))
