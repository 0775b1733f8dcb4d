"""What SQLite's errors mean: the one place where they become errors of SynergyMesh."""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from synergymesh.errors import InvalidRequest, StoreCorrupt, StoreError, StoreLocked, StoreUnavailable

UNRECORDABLE: tuple[type[Exception], ...] = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    OverflowError,
    UnicodeError,
)
"""Errors that a value or a row causes, not the database: whoever repeats the call gets them again."""

_UNAVAILABLE = {
    sqlite3.SQLITE_FULL: ("the disk is full", "Make room and try again"),
    sqlite3.SQLITE_READONLY: ("it is read-only", "Make the file and its directory writable, or name another file"),
    sqlite3.SQLITE_IOERR: ("the disk gives an I/O error", "Check the disk and the room on it, and try again"),
    sqlite3.SQLITE_CANTOPEN: ("it cannot be opened", "Check that its directory exists and is writable"),
    sqlite3.SQLITE_PERM: ("access is denied", "Make the file and its directory writable, or name another file"),
    sqlite3.SQLITE_NOMEM: ("there is not enough memory", "Free some and try again"),
    sqlite3.SQLITE_PROTOCOL: ("its locks do not work", "Put it on a local disk; network file systems cannot lock"),
    sqlite3.SQLITE_NOLFS: ("it is too large for the file system", "Put it on another file system"),
}


def translate(error: Exception, where: str) -> Exception:
    """Give the error of SynergyMesh for an error of the database; `where` names the database.

    An error that does not come from the database is given back as it is; damage that names no database gets its name.
    """
    if isinstance(error, StoreCorrupt) and where not in str(error):
        return StoreCorrupt(f"{where} is damaged: {error}")
    if isinstance(error, DBAPIError) and isinstance(error.orig, Exception):
        return translate(error.orig, where)
    if isinstance(error, sqlite3.Error):
        return _translate_sqlite(error, where)
    if isinstance(error, SQLAlchemyError):
        return StoreError(f"{where}: {error}")
    if isinstance(error, UnicodeDecodeError):
        return StoreCorrupt(f"{where} is damaged: a text in it is none ({error}). Restore a backup that is sound.")
    if isinstance(error, UnicodeError):
        return InvalidRequest(f"a text cannot be stored or looked for: {error}. Leave lone surrogates out.")
    if isinstance(error, MemoryError):  # what sqlite3 raises in place of SQLITE_NOMEM
        cause, remedy = _UNAVAILABLE[sqlite3.SQLITE_NOMEM]
        return StoreUnavailable(f"{where}: {cause}. {remedy}.")
    if isinstance(error, OSError):
        return StoreUnavailable(f"{where}: {error.strerror or error}. Check the file, its directory and the disk.")
    return error


def _translate_sqlite(error: sqlite3.Error, where: str) -> StoreError:
    # Extended codes carry the primary one in their low byte.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    detail = f"{getattr(error, 'sqlite_errorname', type(error).__name__)}: {error}"
    if code in _UNAVAILABLE:
        cause, remedy = _UNAVAILABLE[code]
        return StoreUnavailable(f"{where}: {cause} ({detail}). {remedy}.")
    if code == sqlite3.SQLITE_NOTADB:
        return StoreCorrupt(f"{where} is not a SQLite database ({detail}). Name another file.")
    if code == sqlite3.SQLITE_CORRUPT:
        return StoreCorrupt(f"{where} is damaged ({detail}). Restore a backup that is sound.")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreLocked(f"{where} is locked by another program ({detail}). Close that program and try again.")
    return StoreError(f"{where}: {detail}.")
