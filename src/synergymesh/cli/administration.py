"""Opens a database to change something in it, without executing the runs that are open in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from synergymesh.orchestrator import Orchestrator


@asynccontextmanager
async def administrating(database: str, *, create: bool = False) -> AsyncIterator[Orchestrator]:
    """Open a database for changes; its open runs stay as they are.

    Args:
        database: URL or file name.
        create: whether it may be a new one.

    Raises:
        StoreLocked: another process has it; the message says which.
        StoreUnavailable: there is no such database.
    """
    from synergymesh.cli import logs
    from synergymesh.cli.reading import need_database
    from synergymesh.orchestrator import Orchestrator

    logs.configure()
    if not create:
        need_database(database)
    async with Orchestrator(database, execute=False) as mesh:
        yield mesh
