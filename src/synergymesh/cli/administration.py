"""Asks the process that executes a database, or opens the database itself where there is none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from synergymesh.errors import StoreLocked

if TYPE_CHECKING:
    from synergymesh.local.client import Remote
    from synergymesh.local.verbs import Asking

NO_ANSWER = "It does not answer other processes: it is starting, ending, or local_socket is off."
"""Said of a process that owns a database, after its name."""


@asynccontextmanager
async def administrating(database: str, *, create: bool = False) -> AsyncIterator[Asking]:
    """Give what answers verbs on a database: the process that executes it, or this one, which opens it for changes.

    This one executes nothing: open runs stay as they are. Changes are recorded on the user's account.

    Args:
        database: URL or file name.
        create: whether it may be a new one.

    Raises:
        StoreLocked: another process has it and does not answer; the message says which.
        StoreUnavailable: there is no such database.
    """
    from synergymesh.cli import logs
    from synergymesh.cli.reading import need_database
    from synergymesh.engine.acting import ActingAs, process_actor
    from synergymesh.local.verbs import Here
    from synergymesh.orchestrator import Orchestrator

    logs.configure()
    if not create:
        need_database(database)
    remote = await reach(database)
    if remote is not None:
        try:
            yield remote
        finally:
            await remote.close()
        return
    mesh = Orchestrator(database, execute=False)
    try:
        await mesh.start()
    except StoreLocked as locked:
        raise StoreLocked(f"{locked} {NO_ANSWER}") from None
    with ActingAs(process_actor("cli")):
        try:
            yield Here(mesh)
        finally:
            await mesh.close()


async def reach(database: str) -> Remote | None:
    """Connect to the process that executes a database; None if none answers."""
    from synergymesh.local.client import connect
    from synergymesh.store.sqlite_files import parse_address

    path = parse_address(database)
    return None if path is None else await connect(path)
