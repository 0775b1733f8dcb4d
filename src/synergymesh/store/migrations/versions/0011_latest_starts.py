"""Keep until when a run has to start, so that those that wait for too long are found wherever they wait."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Add the moment and its index."""
    op.add_column("runs", sa.Column("start_by", sa.BigInteger, nullable=False, server_default="0"))
    op.create_index(
        "ix_runs_start_by",
        "runs",
        ["start_by", "run_id"],
        sqlite_where=sa.text("status IN ('pending') AND cancel_requested_at IS NULL AND start_by > 0"),
    )
