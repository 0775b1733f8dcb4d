"""Transactions around a function."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager
from types import TracebackType

from synergymesh.store.audit.chain_ends import forget_ends


class _Transaction:
    """Commit or roll back; a class, as a generator takes several times as long to begin and to end."""

    __slots__ = ("_connection",)

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        connection = self._connection
        if connection.in_transaction:
            # The rollback of the one before failed too; it has to be made up for before anything else.
            connection.execute("ROLLBACK").close()
        connection.execute("BEGIN IMMEDIATE").close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            try:
                self._connection.execute("COMMIT").close()
            except BaseException:
                self._roll_back()
                raise
        else:
            self._roll_back()

    def _roll_back(self) -> None:
        connection = self._connection
        forget_ends(connection)
        # After a full disk or an I/O error SQLite may have rolled back by itself.
        if connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK").close()


def transaction(connection: sqlite3.Connection) -> AbstractContextManager[None]:
    """Commit what the block writes, or roll it back when the block or the commit raises."""
    return _Transaction(connection)


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
