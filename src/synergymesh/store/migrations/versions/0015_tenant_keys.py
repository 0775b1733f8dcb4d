"""Keep under which idempotency key a tenant was made, so that it can be asked for again."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Add the key, the hash of what was asked for, and an index."""
    op.add_column("tenants", sa.Column("idempotency_key", sa.Text))
    op.add_column("tenants", sa.Column("request_hash", sa.Text))
    op.create_index(
        "uq_tenants_idempotency_key",
        "tenants",
        ["idempotency_key"],
        unique=True,
        sqlite_where=sa.text("idempotency_key IS NOT NULL AND NOT status IN ('deleted')"),
    )
