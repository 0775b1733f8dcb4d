"""The room that the database takes on the disk: free pages that are given back, and a log that stays short."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

AUTOCHECKPOINT_PAGES = 4_000
"""16 MB of write-ahead log: four times SQLite's, since under load its checkpoints cost more than the room."""

LOG_BYTES_KEPT = 32_000_000
"""The file of the log is cut to this when it starts anew: room for two checkpoints, which need not be made again."""

LONG_LOG_BYTES = 64_000_000
"""A log of this length was kept from starting anew by somebody who reads; what follows is tried then."""

LOG_WAIT_MILLISECONDS = 50
"""How long commits may wait for those readers, each time that the log is tried to be cut."""

RESERVE_PAGES = 1_000
"""Free pages (4 MB) that are kept for what is written next; taking them from the file system again costs more."""

RESERVE_DIVISOR = 10
"""A tenth of a large database may be free for the same reason."""

CONVERTED_BYTES_MAX = 64_000_000
"""Files up to this size learn to give pages back when they are opened, in about a second; others by `compact`."""

_INCREMENTAL = 2


def set_up(connection: sqlite3.Connection, *, is_new: bool, busy_milliseconds: int) -> None:
    """Let a database give free pages back (it has to be said before its first table), and keep its log short."""
    if is_new:
        connection.execute(f"PRAGMA auto_vacuum = {_INCREMENTAL}").close()
    connection.execute("PRAGMA journal_mode = WAL").close()
    connection.execute(f"PRAGMA wal_autocheckpoint = {AUTOCHECKPOINT_PAGES}").close()
    connection.execute(f"PRAGMA journal_size_limit = {LOG_BYTES_KEPT}").close()
    connection.execute(f"PRAGMA busy_timeout = {busy_milliseconds}").close()


def gives_back(connection: sqlite3.Connection) -> bool:
    """Tell whether free pages can be given back: files of the first versions have to be written anew once."""
    return _number(connection, "auto_vacuum") == _INCREMENTAL


def convert_small(connection: sqlite3.Connection) -> None:
    """Write a small file of an early version anew, so that it can give free pages back."""
    size = _number(connection, "page_count") * _number(connection, "page_size")
    if not gives_back(connection) and size <= CONVERTED_BYTES_MAX:
        # Without the room for it the file works as before.
        with contextlib.suppress(sqlite3.OperationalError):
            compact(connection)


def compact(connection: sqlite3.Connection) -> None:
    """Write the whole file anew, without free pages and able to give pages back."""
    connection.execute(f"PRAGMA auto_vacuum = {_INCREMENTAL}").close()
    connection.execute("VACUUM").close()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def give_space_back(connection: sqlite3.Connection, limit: int) -> int:
    """Give at most `limit` free pages back to the file system; give how many were."""
    if not gives_back(connection):
        return 0
    free = _number(connection, "freelist_count")
    reserve = max(RESERVE_PAGES, _number(connection, "page_count") // RESERVE_DIVISOR)
    pages = min(limit, free - reserve)
    if pages <= 0:
        return 0
    connection.execute(f"PRAGMA incremental_vacuum({pages})").fetchall()
    return free - _number(connection, "freelist_count")


def log_bytes(database: Path) -> int:
    """Give the length of the log of a database, 0 if there is none."""
    try:
        return os.stat(f"{database}-wal").st_size
    except FileNotFoundError:
        return 0


def shorten_log(connection: sqlite3.Connection, database: Path | None, busy_milliseconds: int) -> int:
    """Write a long log back into the database and cut it; give its length afterwards.

    Readers that follow each other without a gap keep SQLite from starting the log anew by itself. This waits a moment
    for those that read now, and lets those that come read the database alone.
    """
    if database is None:
        return 0
    size = log_bytes(database)
    pages = AUTOCHECKPOINT_PAGES
    if size > LONG_LOG_BYTES:
        # While it is blocked, every commit would look through the whole log for pages that it may not write back.
        pages += _cut(connection, busy_milliseconds)
        size = log_bytes(database)
    connection.execute(f"PRAGMA wal_autocheckpoint = {pages}").close()
    return size


def cut_log(connection: sqlite3.Connection) -> bool:
    """Write the log back into the database and cut it to nothing; False when readers kept that from being done."""
    return _cut(connection, _number(connection, "busy_timeout")) == 0


def _cut(connection: sqlite3.Connection, busy_milliseconds: int) -> int:
    """Try to cut the log; give the pages that are left in it."""
    connection.execute(f"PRAGMA busy_timeout = {LOG_WAIT_MILLISECONDS}").close()
    try:
        blocked, in_log, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        connection.execute(f"PRAGMA busy_timeout = {busy_milliseconds}").close()
    return int(in_log) if blocked else 0


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    return int(connection.execute(f"PRAGMA {pragma}").fetchone()[0])
