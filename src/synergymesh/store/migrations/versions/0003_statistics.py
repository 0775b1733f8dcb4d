"""Add the counts of tenants' work per hour."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the table and its index."""
    op.create_table(
        "statistics",
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("hour", sa.BigInteger, nullable=False),
        sa.Column("measure", sa.Text, nullable=False),
        sa.Column("bucket", sa.BigInteger, nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("total", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "hour", "measure", "bucket", name="pk_statistics"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name="fk_statistics_tenants"),
        sa.CheckConstraint("count >= 0", name="ck_statistics_count"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_statistics_hour", "statistics", ["hour"])
