"""The database file: which one an address means, who owns it, and how it is opened."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import weakref
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, Literal

from synergymesh.errors import InvalidRequest, StoreCorrupt, StoreLocked, StoreUnavailable
from synergymesh.store import space
from synergymesh.store.audit.chain_ends import Writer
from synergymesh.store.migration import check_is_head, get_revision, upgrade

Synchronous = Literal["full", "normal"]
"""`full` survives a power cut at once; `normal` may lose the last commits then, never those before a mere crash."""

MEMORY = ":memory:"

_CACHED_STATEMENTS = 512
"""More than there are statements (about 20 sizes for each kind of change), so that none is ever parsed twice."""

BUSY_TIMEOUT_SECONDS = 5.0
"""A backup tool may hold the database for a moment."""

_CACHE_KIB = 16_000
"""Pages that the writer keeps in memory: the upper levels of every index of tens of millions of rows."""

_MAGIC = b"SQLite format 3\x00"

INTERRUPTED = "SynergyMesh: a file was being put here"
"""What a file begins with that stands where a database or a backup was going to be."""


def parse_address(address: str | os.PathLike[str]) -> Path | None:
    """Give the absolute path, symbolic links resolved, that a database URL or path means; None means in memory.

    Accepts `sqlite:///relative.db`, `sqlite:////absolute.db`, `sqlite:///:memory:`, `:memory:` and plain paths.

    Raises:
        InvalidRequest: it is another URL, or nothing.
    """
    text = os.fspath(address)
    if not isinstance(text, str) or not text or "\0" in text:
        raise _not_an_address(address)
    scheme, separator, rest = text.partition("://")
    if separator:
        if scheme != "sqlite" or (rest and not rest.startswith("/")) or "?" in rest:
            raise _not_an_address(address)
        text = rest[1:] or MEMORY
    return None if text == MEMORY else Path(os.path.realpath(text))


def _not_an_address(address: object) -> InvalidRequest:
    return InvalidRequest(
        f"database must be a file name, sqlite:///relative.db, sqlite:////absolute.db or :memory:, not {address!r}.",
        field="database",
    )


class Ownership:
    """Own a database file for this process alone, by a kernel lock on `<database>.lock` beside it.

    The kernel releases the lock when the process dies, however it dies. The file stays: deleting it would let two
    processes lock two different files of the same name.
    """

    _held: ClassVar[weakref.WeakSet[Ownership]] = weakref.WeakSet()

    def __init__(self, database: Path) -> None:
        """Take the lock.

        Raises:
            StoreLocked: another process, or another store of this process, has it.
            OSError: the lock file cannot be made.
        """
        path = database.with_name(database.name + ".lock")
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(self._file, 200, 0).decode(errors="replace").strip() or "an unknown process"
            self.release()
            raise StoreLocked(
                f"{database} is in use by {owner}. Stop that process, or name another database; "
                "`synergymesh runs` and `synergymesh show` can read it meanwhile."
            ) from None
        except BaseException:
            self.release()
            raise
        owner = f"process {os.getpid()}, since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
        # The lock is what counts. On a full disk the text is missing, and nothing else.
        with contextlib.suppress(OSError):
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, owner.encode(), 0)
        self._held.add(self)

    def release(self) -> None:
        """Let go of the lock. Releasing twice does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    @classmethod
    def _forget_in_child(cls) -> None:
        """Close the copies that a fork made: a child that outlives its parent must not keep the database locked."""
        for ownership in list(cls._held):
            ownership.release()


os.register_at_fork(after_in_child=Ownership._forget_in_child)


def check_file(database: Path) -> None:
    """Refuse a path that cannot be a database, before anything is created beside it.

    Raises:
        StoreUnavailable: its directory is missing, or it is no regular file.
        StoreCorrupt: it is another kind of file.
    """
    if not database.parent.is_dir():
        raise StoreUnavailable(f"{database}: the directory {database.parent} does not exist. Create it first.")
    if not database.exists():
        return
    if not database.is_file():
        raise StoreUnavailable(f"{database} is not a file. Name a file.")
    with database.open("rb") as file:
        start = file.read(len(_MAGIC))
        if INTERRUPTED.startswith(start.decode(errors="replace")) and len(start) == len(_MAGIC):
            raise StoreCorrupt(f"{database} says: {(start + file.read(4_096)).decode(errors='replace').strip()}")
    if start and start != _MAGIC:
        raise StoreCorrupt(f"{database} is not a SQLite database. Nothing was changed in it; name another file.")


def open_writer(database: Path | None, synchronous: Synchronous) -> sqlite3.Connection:
    """Open the one connection that writes, and bring the schema to this version's.

    A database of another program is refused before anything is written to it.
    """
    where = str(database or MEMORY)
    connection = sqlite3.connect(
        where,
        timeout=BUSY_TIMEOUT_SECONDS,
        isolation_level=None,
        cached_statements=_CACHED_STATEMENTS,
        factory=Writer,
    )
    try:
        revision = get_revision(connection, where)
        if database is not None and not os.access(database, os.W_OK):
            raise StoreUnavailable(f"{database} is read-only. Make it writable, or name another file.")
        space.set_up(connection, is_new=revision is None, busy_milliseconds=int(BUSY_TIMEOUT_SECONDS * 1_000))
        connection.execute(f"PRAGMA synchronous = {'FULL' if synchronous == 'full' else 'NORMAL'}").close()
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}").close()
        # Statement journals of many-row statements stay in memory.
        connection.execute("PRAGMA temp_store = MEMORY").close()
        upgrade(connection, revision, where)
        if revision is not None:
            space.convert_small(connection)
        connection.execute("PRAGMA foreign_keys = ON").close()
        # A file system that refuses writes says so now, not at the first commit.
        connection.execute("BEGIN IMMEDIATE").close()
        connection.execute("ROLLBACK").close()
    except BaseException:
        connection.close()
        raise
    return connection


def open_reader(database: Path) -> sqlite3.Connection:
    """Open a connection that only reads: it never checkpoints and never creates the file.

    Raises:
        SchemaMismatch: a newer version made it.
        StoreUnavailable: an older version made it, or it is still empty.
        StoreCorrupt: it is not a database of SynergyMesh.
    """
    connection = sqlite3.connect(
        f"{database.as_uri()}?mode=ro", uri=True, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None
    )
    try:
        connection.execute("PRAGMA query_only = ON").close()
        check_is_head(get_revision(connection, str(database)), str(database))
    except BaseException:
        connection.close()
        raise
    return connection
