"""Add what attempts print and log."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "outputs",
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("component_id", sa.Text, nullable=False),
        sa.Column("number", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("lines", sa.LargeBinary, nullable=False),
        sa.Column("dropped", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "component_id", "number", name="pk_outputs"),
        sa.ForeignKeyConstraint(["tenant_id", "run_id"], ["runs.tenant_id", "runs.run_id"], name="fk_outputs_runs"),
    )
