"""Keep what kept each attempt from starting at once."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Add the reason to tasks, of their last attempts, and to the attempts before."""
    op.add_column("tasks", sa.Column("waited_for", sa.Text))
    op.add_column("attempts", sa.Column("waited_for", sa.Text))
