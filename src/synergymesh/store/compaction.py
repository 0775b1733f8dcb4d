"""A database file written anew: without free pages, and able to give pages back from then on."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from synergymesh.errors import InvalidRequest, StoreUnavailable
from synergymesh.store import space
from synergymesh.store.sqlite_errors import translate
from synergymesh.store.sqlite_files import Ownership, check_file, open_writer, parse_address


def compact_file(database: str) -> tuple[int, int]:
    """Write a database that no process owns anew; give its bytes before and afterwards.

    It needs as much room again while it lasts. When it is interrupted, the file is as it was.

    Raises:
        InvalidRequest: it is no file.
        StoreLocked: a process owns it.
        StoreUnavailable: it is not there, or there is no room.
        StoreCorrupt: it is not a database of SynergyMesh.
    """
    path = parse_address(database)
    if path is None:
        raise InvalidRequest("database must be a file: one in memory ends with its process.", field="database")
    if not path.exists():
        raise StoreUnavailable(f"there is no database {path}. Name one that exists.")
    check_file(path)
    try:
        ownership = Ownership(path)
        try:
            return _compact(path)
        finally:
            ownership.release()
    except (sqlite3.Error, OSError) as error:
        raise translate(error, str(path)) from error


def _compact(path: Path) -> tuple[int, int]:
    before = path.stat().st_size + space.log_bytes(path)
    connection = open_writer(path, "full")
    try:
        space.compact(connection)
    finally:
        connection.close()
    return before, path.stat().st_size + space.log_bytes(path)
