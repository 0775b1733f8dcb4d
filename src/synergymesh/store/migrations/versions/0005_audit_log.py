"""Add the audit log: its entries, and the end of each chain."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_INDEXES = {
    "entity": "(action <> 'task.finished' OR outcome <> 'success')",
    "action": "action <> 'run.finished' AND action <> 'run.started' "
    "AND action <> 'task.finished' AND action <> 'task.started'",
    "actor": "actor <> 'system/engine'",
    "outcome": "outcome <> 'success'",
}


def upgrade() -> None:
    """Add the tables and their indexes."""
    op.create_table(
        "audit_entries",
        sa.Column("entry_id", sa.Integer, nullable=False),
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("entity", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("entry_id", name="pk_audit_entries"),
        sa.CheckConstraint("seq > 0", name="ck_audit_entries_seq"),
    )
    op.create_index("uq_audit_entries_seq", "audit_entries", ["tenant_id", "seq"], unique=True)
    for column, condition in _INDEXES.items():
        op.create_index(
            f"ix_audit_entries_{column}",
            "audit_entries",
            ["tenant_id", column, "seq"],
            sqlite_where=sa.text(condition),
        )
    op.create_table(
        "audit_heads",
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", name="pk_audit_heads"),
        sa.CheckConstraint("seq > 0", name="ck_audit_heads_seq"),
        sqlite_with_rowid=False,
    )
