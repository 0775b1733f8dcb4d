"""Examines a database file: whether it is ours, sound, and as small as it can be. It is only read."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from synergymesh.diagnostics.findings import Finding, note, ok, wrong
from synergymesh.domain.instants import Instant, to_datetime
from synergymesh.errors import SchemaMismatch, StoreError, SynergyMeshError
from synergymesh.store import space
from synergymesh.store.backup import check
from synergymesh.store.migration import HEAD, get_revision
from synergymesh.store.sqlite_errors import translate
from synergymesh.store.sqlite_files import BUSY_TIMEOUT_SECONDS, check_file

CHECKED_BYTES_MAX = 300_000_000
"""A database up to this size is read wholly in a second or two; a larger one only with `deep`."""

FREE_SHARE_NOTED = 0.5
"""With more than half of a file free, writing it anew is worth a word."""

AHEAD_SECONDS_MAX = 60
"""Clocks of machines that are set by the network differ by less."""

_NANOSECONDS = 1_000_000_000


def examine_database(path: Path, now: Instant, *, deep: bool) -> Iterator[Finding]:
    """Look at a database file and what is in it.

    Args:
        path: of the file.
        now: the present moment.
        deep: whether every page is read, however large the file is, and every index compared with its table.
    """
    if not path.exists():
        yield wrong("database", f"there is no file {path}.", "Name another one; `synergymesh run` makes a new one.")
        return
    try:
        check_file(path)
        with closing(_connect(path)) as connection:
            revision = get_revision(connection, str(path))
            if revision is None:
                yield wrong("database", f"{path} is empty.", "Start an orchestrator on it, or restore a backup.")
                return
            yield ok("database", f"{path}, {path.stat().st_size:,} bytes.")
            yield _migrations(revision)
            yield from _contents(connection, path, now, deep=deep)
    except (SynergyMeshError, sqlite3.Error, OSError) as error:
        shown = translate(error, str(path)) if not isinstance(error, SynergyMeshError) else error
        remedy = "" if isinstance(shown, StoreError) else "Check the file and its directory."
        yield wrong("database", str(shown), remedy or "See above; `synergymesh restore` takes a backup.")


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.as_uri()}?mode=ro", uri=True, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None
    )
    connection.execute("PRAGMA query_only = ON").close()
    return connection


def _migrations(revision: str) -> Finding:
    if revision == HEAD:
        return ok("migrations", f"the schema is this version's ({HEAD}).")
    if revision < HEAD:
        return note(
            "migrations",
            f"the schema is {revision}, this version's is {HEAD}.",
            "It is migrated when an orchestrator is started on it; make a backup before.",
        )
    mismatch = SchemaMismatch(f"a newer version made it (schema {revision}, this one knows {HEAD}).")
    return wrong("migrations", str(mismatch), "Install that version, or name another database.")


def _contents(connection: sqlite3.Connection, path: Path, now: Instant, *, deep: bool) -> Iterator[Finding]:
    examinations: tuple[Callable[[], Finding], ...] = (
        lambda: _soundness(connection, path, deep=deep),
        lambda: _room(connection),
        lambda: _log(path),
        lambda: _clock(connection, now),
    )
    for examination in examinations:
        yield examination()


def _soundness(connection: sqlite3.Connection, path: Path, *, deep: bool) -> Finding:
    size = path.stat().st_size
    if not deep and size > CHECKED_BYTES_MAX:
        return note(
            "soundness",
            f"its pages were not read, since there are more than {CHECKED_BYTES_MAX:,} bytes.",
            "`synergymesh doctor --deep` reads them all.",
        )
    check(connection, str(path), quick=not deep)
    return ok("soundness", "every page, index and reference is sound." if deep else "every page is sound.")


def _room(connection: sqlite3.Connection) -> Finding:
    pages = int(connection.execute("PRAGMA page_count").fetchone()[0])
    free = int(connection.execute("PRAGMA freelist_count").fetchone()[0])
    said = f"{100 * free / max(1, pages):.0f} % of the file is free."
    compact = "`synergymesh compact` writes it anew; no process may own it then."
    if not space.gives_back(connection):
        return note("room", f"{said} An early version made it: it cannot give room back by itself.", compact)
    if free > FREE_SHARE_NOTED * pages and free > space.RESERVE_PAGES:
        return note("room", f"{said} It is given back in small steps while an orchestrator runs.", compact)
    return ok("room", said)


def _log(path: Path) -> Finding:
    length = space.log_bytes(path)
    said = f"the write-ahead log has {length:,} bytes."
    if length <= space.LONG_LOG_BYTES:
        return ok("log", said)
    return wrong(
        "log",
        f"{said} A program has been reading the same state of the database for long, or was killed while it wrote.",
        "Close programs that read the database; an orchestrator that starts on it, or runs, writes the log back.",
    )


def _clock(connection: sqlite3.Connection, now: Instant) -> Finding:
    newest = connection.execute("SELECT created_at FROM runs ORDER BY run_id DESC LIMIT 1").fetchone()
    ahead = 0 if newest is None else (newest[0] - now) / _NANOSECONDS
    if ahead <= AHEAD_SECONDS_MAX:
        return ok("clock", f"it is {to_datetime(now):%Y-%m-%d %H:%M:%S} UTC; nothing that is recorded is ahead of it.")
    return wrong(
        "clock",
        f"the newest run was submitted {ahead:,.0f} seconds in the future of this machine's clock.",
        "Set the clock; retries, timeouts and limits per hour count from it.",
    )
