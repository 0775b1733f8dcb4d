"""Keep which trace a run belongs to, so that it goes on in the same one after a restart."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Add the trace context."""
    op.add_column("runs", sa.Column("traceparent", sa.Text))
