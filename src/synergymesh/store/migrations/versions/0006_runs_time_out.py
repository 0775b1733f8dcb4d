"""Let a run end as `timeout`."""

from alembic import op

revision = "0006"
down_revision = "0005"

BEFORE = "status IN ('cancelled', 'failed', 'partial', 'pending', 'running', 'success')"
AFTER = "status IN ('cancelled', 'failed', 'partial', 'pending', 'running', 'success', 'timeout')"


def upgrade() -> None:
    """Widen the condition of a run's status, without copying the table.

    SQLite cannot change a CHECK, and a copy of the runs would take long where there are many. This is what
    https://www.sqlite.org/lang_altertable.html#otheralter gives for changes that leave the rows as they are.
    """
    connection = op.get_bind()
    version = connection.exec_driver_sql("PRAGMA schema_version").scalar_one()
    connection.exec_driver_sql("PRAGMA writable_schema = ON")
    changed = connection.exec_driver_sql(
        "UPDATE sqlite_master SET sql = replace(sql, ?, ?) WHERE type = 'table' AND name = 'runs' AND instr(sql, ?)",
        (BEFORE, AFTER, BEFORE),
    )
    assert changed.rowcount == 1, "the table of runs is not the one of version 0005"
    connection.exec_driver_sql(f"PRAGMA schema_version = {version + 1}")
    connection.exec_driver_sql("PRAGMA writable_schema = OFF")
