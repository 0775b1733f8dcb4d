"""The search for versions of workflows that no run uses any more.

No index leads from a version to its runs: it would cost every run more than the search costs. So all runs are looked
at, some at a time, by the connection that reads, while the one that writes notes the versions of the runs that it adds.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from synergymesh.ports.changes import RunCreated, Unit
from synergymesh.store.schema import runs, workflows
from synergymesh.store.statements import compile_query
from synergymesh.store.transactions import transaction

_rowid: sa.ColumnClause[int] = sa.literal_column("runs.rowid", sa.BigInteger)
_looked_at = (
    sa.select(_rowid.label("place"), runs.c.content_hash)
    .where(_rowid > sa.bindparam("after"))
    .order_by(_rowid)
    .limit(sa.bindparam("limit"))
    .subquery("looked_at")
)
_PAGE = compile_query(
    sa.select(
        sa.func.count(),
        sa.func.max(_looked_at.c.place),
        sa.func.json_group_array(_looked_at.c.content_hash.distinct()),
    )
)
_VERSIONS = compile_query(sa.select(sa.func.json_group_array(workflows.c.content_hash)))

_LIST = sa.func.json_each(sa.bindparam("list")).table_valued("value")
_DELETE = compile_query(sa.delete(workflows).where(workflows.c.content_hash.in_(sa.select(_LIST.c.value))))


class UnusedVersions:
    """Look for versions without runs, one search at a time."""

    def __init__(self) -> None:
        self._unseen: set[str] | None = None
        self._place = 0
        self._used_since: set[str] | None = None

    def note(self, units: Iterable[Unit]) -> None:
        """Take note of the versions of new runs; to be called after they are committed."""
        if self._used_since is not None:
            self._used_since.update(c.content_hash for unit in units for c in unit if type(c) is RunCreated)

    def look(self, connection: sqlite3.Connection, limit: int) -> list[str] | None:
        """Look at the next `limit` runs; give the versions that none uses, once all were looked at."""
        if self._unseen is None:
            # Noted before anything is read: what is committed earlier is seen, what is committed later is noted.
            self._used_since = set()
            self._unseen = set(json.loads(connection.execute(_VERSIONS).fetchone()[0]))
            self._place = 0
        arguments = {"after": self._place, "limit": limit}
        looked_at, place, found = connection.execute(_PAGE, arguments).fetchone()
        self._unseen.difference_update(json.loads(found))
        if looked_at >= limit > 0:
            self._place = place
            return None
        unused, self._unseen = self._unseen, None
        return sorted(unused)

    def forget(self, connection: sqlite3.Connection, content_hashes: Sequence[str]) -> int:
        """Delete versions that the last search found, except those that are used since."""
        assert self._used_since is not None, "versions are forgotten after a search only"
        chosen = [each for each in content_hashes if each not in self._used_since]
        # SQLite would look at every run for each version. That they have none is what the search has shown.
        connection.execute("PRAGMA foreign_keys = OFF").close()
        try:
            with transaction(connection):
                return connection.execute(_DELETE, {"list": json.dumps(chosen)}).rowcount
        finally:
            connection.execute("PRAGMA foreign_keys = ON").close()
