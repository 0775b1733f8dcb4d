"""Copies of a database: made while everything runs, and checked before one takes the place of another."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import secrets
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from synergymesh.domain.instants import Instant
from synergymesh.errors import InvalidRequest, StoreCorrupt, StoreLocked, StoreUnavailable
from synergymesh.store import space, upkeep
from synergymesh.store.migration import get_revision
from synergymesh.store.sqlite_errors import translate
from synergymesh.store.sqlite_files import (
    BUSY_TIMEOUT_SECONDS,
    INTERRUPTED,
    Ownership,
    check_file,
    open_writer,
    parse_address,
)

PAGES_PER_STEP = 1_000
"""4 MB, a few milliseconds of copying: between two steps other programs get at the disk."""

LOG_BYTES_MAX = 2_000_000_000
"""The log cannot be shortened while a backup reads. Rather than let it fill the disk, the backup gives up."""

LEFT_SECONDS = 6 * 3_600
"""A copy that was not touched for so long has nobody who makes it: its process was killed. Checking takes minutes."""

_LOGS = ("-wal", "-shm", "-journal")
"""What SQLite has beside a database, and takes for the log of whatever has the database's name."""

_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
"""What file systems without hard links say: FAT, many network shares."""

_PROBLEMS_MAX = 5
"""What is wrong with a damaged database is shown up to here."""

Progress = Callable[[int, int], object]
"""Is called with the pages that are done, and with all."""


def _no_progress(done: int, pages: int) -> None:
    """Tell nobody."""


def back_up(
    database: str, file: str | os.PathLike[str], *, force: bool = False, progress: Progress = _no_progress
) -> Path:
    """Copy a database into a file, as it was at one moment, while its owner goes on; give the file's path.

    The file is complete once it has its name, readable only by its owner, and needs no other file beside it. The
    database is read in one transaction: its owner waits for nothing, but its log grows meanwhile.

    Args:
        database: URL or file name.
        file: what to make.
        force: whether it may take the place of another file.
        progress: is called after every step.

    Raises:
        InvalidRequest: the file is there already and force is False; or it is the database itself.
        StoreLocked: a process owns the file that would be replaced.
        StoreUnavailable: the database or the file's directory is not there, or the log grew too long.
        StoreCorrupt: it is not a database of SynergyMesh, or a damaged one.
    """
    source_path = _existing(database)
    target = Path(os.path.realpath(file))
    if target == source_path:
        raise InvalidRequest(f"{target} is the database itself. Name another file.", field="file")
    _check_target(target, force=force)
    with _translated(str(source_path)), _owned_if_a_database(target), _partial(target) as partial:
        with _connected(f"{source_path.as_uri()}?mode=ro") as source, _connected(partial.as_uri()) as copy:
            _check_is_ours(source, str(source_path))
            # Without a transaction around all steps every commit of the owner would make the copy begin again.
            source.execute("BEGIN").close()
            source.execute("SELECT count(*) FROM sqlite_master").fetchone()
            _copy(source, copy, target, progress, log_of=source_path)
            source.execute("ROLLBACK").close()
            check(copy, str(source_path), quick=True)
        with _translated(str(target)):
            _sync(partial)
            if force and target.exists():
                _replace(target, partial, None)
            else:
                _put(partial, target)
    return target


def restore(file: str | os.PathLike[str], database: str, *, now: Instant, force: bool = False) -> Path | None:
    """Let a database begin again from a backup; give where the database before is kept, or None.

    The backup is copied, checked wholly, and brought to this version's schema before anything is changed. Whenever the
    process dies, the name stands for the one database or the other, or for a note that says what to do. Its open runs
    go on from where they were; their attempts get numbers that were never given before, since nobody knows what
    happened after the backup was made.

    Args:
        file: the backup; it stays as it is.
        database: URL or file name of what becomes the copy.
        now: the present moment.
        force: whether another database may be there; it is renamed.

    Raises:
        InvalidRequest: a database is there and force is False; or it is the backup itself.
        StoreLocked: a process owns the database, or a program reads it.
        StoreUnavailable: the backup or the directory is not there.
        StoreCorrupt: the backup is not a database of SynergyMesh, or a damaged one.
        SchemaMismatch: a newer version made the backup.
    """
    source_path = _existing(str(file))
    target = parse_address(database)
    if target is None:
        raise InvalidRequest("database must be a file: one in memory ends with its process.", field="database")
    if target == source_path:
        raise InvalidRequest(f"{target} is the backup itself. Name another database.", field="database")
    if not target.parent.is_dir():
        raise StoreUnavailable(f"{target}: the directory {target.parent} does not exist. Create it first.")
    with _translated(str(source_path)), _owned(target):
        if target.exists() and not force:
            raise InvalidRequest(
                f"{target} exists already. With --force it is kept under another name, and the backup takes its place.",
                field="database",
            )
        with _partial(target) as partial:
            with _connected(f"{source_path.as_uri()}?mode=ro") as source, _connected(partial.as_uri()) as copy:
                _check_is_ours(source, str(source_path))
                _copy(source, copy, target, _no_progress)
                check(copy, str(source_path))
            begun_again = open_writer(partial, "full")
            try:
                upkeep.begin_again(begun_again, now)
                _close_log(begun_again)
            finally:
                begun_again.close()
            with _translated(str(target)):
                _sync(partial)
                return _let_begin_again(partial, target)


def check(connection: sqlite3.Connection, where: str, *, quick: bool = False) -> None:
    """Look at every page of a database, and at every reference from one row to another.

    Args:
        connection: to the database.
        where: what it is called in errors.
        quick: whether to leave out whether the indexes agree with their tables, which takes most of the time.

    Raises:
        StoreCorrupt: something is wrong; the message says what.
    """
    pragma = "quick_check" if quick else "integrity_check"
    problems = [str(row[0]) for row in connection.execute(f"PRAGMA {pragma}({_PROBLEMS_MAX})") if row[0] != "ok"]
    if not problems and not quick:
        broken = connection.execute("PRAGMA foreign_key_check").fetchmany(_PROBLEMS_MAX)
        problems = [
            f"row {rowid} of {table} refers to a row of {parent} that is not there"
            for table, rowid, parent, _ in broken
        ]
    if problems:
        raise StoreCorrupt(f"{where} is damaged: {'; '.join(problems)}. Restore an older backup.")


# --- one step each --------------------------------------------------------------------------------------------------


def _existing(database: str) -> Path:
    path = parse_address(database)
    if path is None:
        raise InvalidRequest("database must be a file: one in memory has no copy.", field="database")
    if not path.exists():
        raise StoreUnavailable(f"there is no file {path}. Name one that exists.")
    check_file(path)
    return path


def _check_target(target: Path, *, force: bool) -> None:
    if not target.parent.is_dir():
        raise StoreUnavailable(f"{target}: the directory {target.parent} does not exist. Create it first.")
    if target.exists() and not force:
        raise InvalidRequest(f"{target} exists already. Name another file, or replace it with --force.", field="file")
    if target.exists() and not target.is_file():
        raise InvalidRequest(f"{target} is not a file. Name a file.", field="file")


@contextlib.contextmanager
def _translated(where: str) -> Iterator[None]:
    """Turn what the database or the disk raises into errors of SynergyMesh."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise translate(error, where) from error


@contextlib.contextmanager
def _owned(database: Path) -> Iterator[None]:
    ownership = Ownership(database)
    try:
        yield
    finally:
        ownership.release()


def _owned_if_a_database(target: Path) -> contextlib.AbstractContextManager[None]:
    """Own what is going to be replaced if it is, or was, the database of a process."""
    has_lock = target.with_name(f"{target.name}.lock").exists()
    return _owned(target) if has_lock else contextlib.nullcontext()


@contextlib.contextmanager
def _partial(target: Path) -> Iterator[Path]:
    """Give an empty file beside the target, which nobody else may read; it is gone afterwards."""
    with _translated(str(target)):
        _sweep(target)
        partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    try:
        yield partial
    finally:
        for suffix in ("", ".note", *_LOGS):
            Path(f"{partial}{suffix}").unlink(missing_ok=True)


def _sweep(target: Path) -> None:
    """Delete what copies to this target left that were killed."""
    before = time.time() - LEFT_SECONDS
    for left in target.parent.glob(f".{glob.escape(target.name)}.????????.partial*"):
        with contextlib.suppress(FileNotFoundError):
            if left.stat().st_mtime < before:
                left.unlink()


@contextlib.contextmanager
def _connected(uri: str) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()


def _check_is_ours(connection: sqlite3.Connection, where: str) -> None:
    if get_revision(connection, where) is None:
        raise StoreCorrupt(f"{where} is empty. Name a database of SynergyMesh.")


def _copy(
    source: sqlite3.Connection,
    copy: sqlite3.Connection,
    target: Path,
    progress: Progress,
    *,
    log_of: Path | None = None,
) -> None:
    def after_step(_: int, remaining: int, pages: int) -> None:
        if log_of is not None and space.log_bytes(log_of) > LOG_BYTES_MAX:
            raise StoreUnavailable(
                f"the log of {log_of} has grown beyond {LOG_BYTES_MAX:,} bytes while it was copied, so the backup was "
                f"given up. Try again when less is written, or onto a faster disk."
            )
        progress(pages - remaining, pages)

    copy.execute("PRAGMA synchronous = OFF").close()  # nobody sees the file before it is whole and on the disk
    try:
        source.backup(copy, pages=PAGES_PER_STEP, progress=after_step)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_FULL:  # of the two disks, only this one is written to
            raise translate(error, str(target)) from error
        raise
    copy.execute("PRAGMA journal_mode = DELETE").close()


def _close_log(connection: sqlite3.Connection) -> None:
    """Leave everything in the file itself, which is going to be renamed."""
    connection.execute("PRAGMA journal_mode = DELETE").close()


def _let_begin_again(partial: Path, target: Path) -> Path | None:
    """Give a whole copy the name of a database; give where the one before is kept, or None if there was none."""
    kept = target.with_name(f"{target.name}.before-{secrets.token_hex(4)}")
    if target.exists():
        _empty_log(target)
        _replace(target, partial, kept)
        return kept
    _move_logs(target, kept)
    _put(partial, target)
    return None


def _empty_log(target: Path) -> None:
    """Bring the log of a database into it, so that it is one file; one that is damaged keeps its log.

    Raises:
        StoreLocked: a program reads it: it would go on with the log of another database.
    """
    try:
        with _connected(target.as_uri()) as old:
            old.execute("PRAGMA journal_mode = DELETE").close()
    except sqlite3.Error as error:
        refused = translate(error, str(target))
        if isinstance(refused, StoreLocked):
            raise refused from error


def _replace(target: Path, partial: Path, kept: Path | None) -> None:
    """Put a whole file in the place of another one, whose name is never free; keep that one under another name."""
    if kept is not None:
        _link(target, kept)
    if any(Path(f"{target}{suffix}").exists() for suffix in _LOGS):
        # Neither database may be found beside a log that is not its own, nor without its own, whenever this ends.
        note = Path(f"{partial}.note")
        note.write_text(_note(kept), encoding="utf-8")
        _sync(note)
        note.replace(target)
        _sync(target.parent)
        _move_logs(target, kept)
    _sync(target.parent)
    partial.replace(target)
    _sync(target.parent)


def _note(kept: Path | None) -> str:
    where = "" if kept is None else f" What was here is {kept}."
    return f"{INTERRUPTED}, and its process ended before it was done.{where} Do it again with --force.\n"


def _move_logs(target: Path, kept: Path | None) -> None:
    """Take away the logs beside a database, along with it or for good."""
    for suffix in _LOGS:
        with contextlib.suppress(FileNotFoundError):
            if kept is None:
                Path(f"{target}{suffix}").unlink()
            else:
                Path(f"{target}{suffix}").rename(f"{kept}{suffix}")


def _link(file: Path, name: Path) -> None:
    """Give a file a second name, or make a copy of it where it can have only one."""
    try:
        os.link(file, name)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        try:
            shutil.copy2(file, name)
            _sync(name)
        except BaseException:
            name.unlink(missing_ok=True)
            raise


def _put(partial: Path, target: Path) -> None:
    """Give a whole file a name that nobody has, at once and for good."""
    try:
        try:
            os.link(partial, target)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            claim = os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
            os.write(claim, _note(None).encode())
            os.close(claim)
            partial.replace(target)
    except FileExistsError:
        raise InvalidRequest(f"{target} was made by somebody else meanwhile. Try again.", field="file") from None
    _sync(target.parent)


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
