"""Keep entries of the audit log together: rows have an earliest time, and those of runs are found by it.

Rows that are there become groups of one entry.
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Add the earliest time, take the entities of runs away, and change what the indexes have."""
    op.add_column("audit_entries", sa.Column("first_at", sa.BigInteger, nullable=False, server_default=sa.text("0")))
    op.drop_index("ix_audit_entries_entity", "audit_entries")
    op.create_index(
        "ix_audit_entries_entity",
        "audit_entries",
        ["tenant_id", "entity", "seq"],
        sqlite_where=sa.text("entity <> ''"),
    )
    of_run = "entity LIKE 'run/%' OR entity LIKE 'task/%'"
    op.execute(
        f"UPDATE audit_entries SET first_at = at, version = CASE WHEN {of_run} THEN 0 ELSE version END, "
        f"entity = CASE WHEN {of_run} THEN '' ELSE entity END"
    )
    op.create_index("ix_audit_entries_at", "audit_entries", ["tenant_id", "at", "first_at", "seq"])
