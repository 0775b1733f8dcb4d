"""Add the states of circuit breakers."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "breakers",
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("workflow", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        *(
            sa.Column(name, sa.BigInteger, nullable=False)
            for name in ("since", "until", "trips", "wave", "calls", "failures", "changed_at")
        ),
        sa.PrimaryKeyConstraint("tenant_id", "workflow", "name", name="pk_breakers"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name="fk_breakers_tenants"),
        sa.CheckConstraint("state IN ('closed', 'half_open', 'open')", name="ck_breakers_state"),
        sqlite_with_rowid=False,
    )
