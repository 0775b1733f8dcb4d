"""Mark the runs whose rows are being deleted in several steps."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add the column."""
    op.add_column("runs", sa.Column("pruned_at", sa.BigInteger))
