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

    logs.configure()
    if not create:
        need_database(database)
    mesh = _quiet_orchestrator(database)
    await mesh.start()
    try:
        yield mesh
    finally:
        await mesh.close(grace_seconds=0)


def _quiet_orchestrator(database: str) -> Orchestrator:
    """Make an orchestrator that takes up what is open, and starts none of it."""
    from synergymesh.orchestrator import Orchestrator

    class Quiet(Orchestrator):
        def _compose(self, *parts):  # type: ignore[no-untyped-def]
            composed = super()._compose(*parts)
            composed.dispatcher.start = lambda: None  # type: ignore[method-assign]
            return composed

    return Quiet(database)
