"""Add tombstones, legal holds and keys of personal data."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "audit_tombstones",
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("first_seq", sa.BigInteger, nullable=False),
        sa.Column("last_seq", sa.BigInteger, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.Column("signature", sa.LargeBinary, nullable=False),
        sa.Column("pending", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "first_seq", "last_seq", name="pk_audit_tombstones"),
        sa.CheckConstraint("first_seq BETWEEN 1 AND last_seq", name="ck_audit_tombstones_range"),
    )
    op.create_index(
        "ix_audit_tombstones_pending",
        "audit_tombstones",
        ["tenant_id", "first_seq"],
        sqlite_where=sa.text("pending = 1"),
    )
    op.create_table(
        "audit_holds",
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("held_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", name="pk_audit_holds"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "audit_subject_keys",
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("key", sa.LargeBinary, nullable=False),
        sa.Column("made_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("subject", name="pk_audit_subject_keys"),
        sqlite_with_rowid=False,
    )
