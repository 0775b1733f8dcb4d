"""Bring the schema of a database to this version's: create it, upgrade it, or refuse it.

Alembic is imported only when there is something to do: a start on a database at `HEAD` does not pay for it.
"""

from __future__ import annotations

import sqlite3
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from synergymesh.errors import SchemaMismatch, StoreCorrupt, StoreUnavailable
from synergymesh.store.transactions import transaction

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory
    from sqlalchemy import Connection

HEAD = "0017"
"""The revision that this version works with; a test compares it with the newest script in `migrations/`."""

SCRIPTS = Path(__file__).parent / "migrations"
_TABLES_OF_EVERY_VERSION = frozenset({"alembic_version", "meta", "tenants", "runs"})


def get_revision(connection: sqlite3.Connection, where: str) -> str | None:
    """Give the revision of a database, None of an empty one. Changes nothing.

    Raises:
        StoreCorrupt: it has tables, and they are not those of SynergyMesh.
    """
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")}
    if not names:
        return None
    if not names >= _TABLES_OF_EVERY_VERSION:
        raise StoreCorrupt(
            f"{where} is a database of another program (it has the tables {', '.join(sorted(names)[:5])}). "
            "Nothing was changed in it; name another file."
        )
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    if row is None:
        raise StoreCorrupt(f"{where} does not say which version made it. Restore it from a backup.")
    return str(row[0])


def check_is_head(revision: str | None, where: str) -> None:
    """Refuse to read a database that has another schema than this version's.

    Raises:
        SchemaMismatch: a newer version made it.
        StoreUnavailable: an older version made it, or it is still empty.
    """
    if revision == HEAD:
        return
    if revision is None:
        raise StoreUnavailable(f"{where} is empty. Start an orchestrator on it first.")
    if not _is_known(revision):
        raise _made_by_a_newer_version(where, revision)
    raise StoreUnavailable(
        f"{where} was made by an older version of SynergyMesh. Start an orchestrator on it once; that migrates it."
    )


def upgrade(connection: sqlite3.Connection, revision: str | None, where: str) -> None:
    """Run the migrations from `revision` (None: an empty database) to `HEAD` in one transaction.

    Raises:
        SchemaMismatch: a newer version made it.
    """
    if revision == HEAD:
        return
    if revision is None:
        with transaction(connection):
            for statement in _statements_for_empty(HEAD, SCRIPTS):
                connection.execute(statement).close()
        return
    if not _is_known(revision):
        raise _made_by_a_newer_version(where, revision)
    _migrate(connection)


@lru_cache(maxsize=1)
def _statements_for_empty(head: str, scripts: Path) -> tuple[str, ...]:
    """Give what the migrations do to an empty database: a process that makes hundreds (tests) runs them once."""
    scratch = sqlite3.connect(":memory:", isolation_level=None)
    try:
        _migrate(scratch)
        return tuple(scratch.iterdump())[1:-1]  # without BEGIN and COMMIT
    finally:
        scratch.close()


def _migrate(connection: sqlite3.Connection) -> None:
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext

    config = Config()
    scripts = _open_scripts()
    with _borrow(connection) as borrowed, borrowed.begin():
        config.attributes["connection"] = borrowed
        with EnvironmentContext(config, scripts, fn=lambda current, _: scripts._upgrade_revs(HEAD, current)):
            scripts.run_env()


def _borrow(connection: sqlite3.Connection) -> Connection:
    """Give a SQLAlchemy connection over an open sqlite3 connection, which stays open afterwards."""
    from sqlalchemy import create_engine, event
    from sqlalchemy.pool import StaticPool

    engine = create_engine("sqlite://", creator=lambda: connection, poolclass=StaticPool)
    # sqlite3 itself begins nothing here (isolation_level None), and its legacy mode would not cover DDL.
    event.listen(engine, "begin", lambda borrowed: borrowed.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine.connect()


def _open_scripts() -> ScriptDirectory:
    from alembic.script import ScriptDirectory

    return ScriptDirectory(str(SCRIPTS))


def _is_known(revision: str) -> bool:
    return any(script.revision == revision for script in _open_scripts().walk_revisions())


def _made_by_a_newer_version(where: str, revision: str) -> SchemaMismatch:
    return SchemaMismatch(
        f"{where} was made by a newer version of SynergyMesh (schema {revision}, this one knows {HEAD}). "
        "Install that version, or name another database."
    )
