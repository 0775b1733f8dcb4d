"""Add what quotas and fairness need: sub-tenants, plans, reserved starts, estimates, and the order of a backlog."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the columns, tables and indexes of version 0.2."""
    op.add_column(
        "tenants",
        sa.Column("parent_id", sa.Text, sa.ForeignKey("tenants.tenant_id", name="fk_tenants_tenants")),
        inline_references=True,
    )
    op.add_column("tenants", sa.Column("policy", sa.LargeBinary, nullable=False, server_default=sa.text("x'7b7d'")))
    op.create_index("ix_tenants_parent", "tenants", ["parent_id"], sqlite_where=sa.text("parent_id IS NOT NULL"))
    op.create_table(
        "hour_reservations",
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("minute", sa.BigInteger, nullable=False),
        sa.Column("starts", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "minute", name="pk_hour_reservations"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name="fk_hour_reservations_tenants"),
        sa.CheckConstraint("starts >= 0", name="ck_hour_reservations_starts"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_hour_reservations_minute", "hour_reservations", ["minute"])
    op.create_table(
        "estimates",
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("workflow", sa.Text, nullable=False),
        sa.Column("component_id", sa.Text, nullable=False),
        sa.Column("microseconds", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "workflow", "component_id", name="pk_estimates"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name="fk_estimates_tenants"),
        sa.CheckConstraint("microseconds >= 0", name="ck_estimates_microseconds"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_runs_waiting",
        "runs",
        ["tenant_id", sa.text("priority DESC"), "run_id"],
        sqlite_where=sa.text("status IN ('pending') AND cancel_requested_at IS NULL"),
    )
    op.create_index(
        "ix_runs_begun",
        "runs",
        ["run_id", "tenant_id"],
        sqlite_where=sa.text(
            "status IN ('pending', 'running') AND (NOT status IN ('pending') OR cancel_requested_at IS NOT NULL)"
        ),
    )
