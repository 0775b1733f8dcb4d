"""The ends of the chains that a connection writes, kept so that no transaction has to read them again.

Nobody else writes them: one connection writes a database. What is kept is forgotten with every rollback.
"""

from __future__ import annotations

import sqlite3
from typing import Any

ENDS_MAX = 10_000
"""Chains whose ends are kept, about 2 MB; all are forgotten when there are more."""

End = tuple[int, bytes]
"""The number and the hash of the last entry."""


class Ends:
    """What is known of the ends.

    Attributes:
        of_chains: by tenant.
        place: of the last entry in the log as a whole; None while it is not known.
    """

    __slots__ = ("of_chains", "place")

    def __init__(self) -> None:
        self.of_chains: dict[str, End] = {}
        self.place: int | None = None

    def forget(self) -> None:
        """Know nothing any more."""
        self.of_chains.clear()
        self.place = None


class Writer(sqlite3.Connection):
    """A connection that knows the ends of the chains to which it has added."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.ends = Ends()


def known_ends(connection: sqlite3.Connection) -> Ends:
    """Give the ends that are kept, to be looked into and added to; of another kind of connection none."""
    if not isinstance(connection, Writer):
        return Ends()
    if len(connection.ends.of_chains) > ENDS_MAX:
        connection.ends.of_chains.clear()
    return connection.ends


def forget_ends(connection: sqlite3.Connection) -> None:
    """Forget all ends, because something was rolled back."""
    if isinstance(connection, Writer):
        connection.ends.forget()
