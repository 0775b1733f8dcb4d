"""Transactions around a function."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator

from synergymesh.store.audit.chain_ends import forget_ends


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit what the block writes, or roll it back when the block or the commit raises."""
    if connection.in_transaction:
        # The rollback of the one before failed too; it has to be made up for before anything else.
        connection.execute("ROLLBACK").close()
    connection.execute("BEGIN IMMEDIATE").close()
    try:
        yield
        connection.execute("COMMIT").close()
    except BaseException:
        forget_ends(connection)
        # After a full disk or an I/O error SQLite may have rolled back by itself.
        if connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK").close()
        raise


@contextlib.contextmanager
def transaction_without_waiting(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit as `transaction` does, but do not wait for the disk: a power cut may take it back, and nothing else.

    The next commit that waits for the disk waits for this one too.
    """
    waits = int(connection.execute("PRAGMA synchronous").fetchone()[0])
    connection.execute("PRAGMA synchronous = NORMAL").close()
    try:
        with transaction(connection):
            yield
    finally:
        connection.execute(f"PRAGMA synchronous = {waits}").close()
