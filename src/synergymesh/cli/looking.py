"""Asks the process that executes a database how it is doing; where there is none, shows what is recorded."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from synergymesh.errors import StoreLocked

if TYPE_CHECKING:
    from synergymesh.local.verbs import Asking


@asynccontextmanager
async def looking(database: str) -> AsyncIterator[Asking]:
    """Give what answers verbs that only look: the process that executes, or this one, which takes no lock.

    Args:
        database: URL or file name.

    Raises:
        StoreLocked: another process has it and does not answer.
        StoreUnavailable: there is no such database.
    """
    from synergymesh.cli import logs
    from synergymesh.cli.administration import NO_ANSWER, reach
    from synergymesh.cli.reading import need_database
    from synergymesh.diagnostics.owner import find_holder
    from synergymesh.store.sqlite_files import parse_address

    logs.configure()
    need_database(database)
    remote = await reach(database)
    if remote is not None:
        try:
            yield remote
        finally:
            await remote.close()
        return
    path = parse_address(database)
    assert path is not None
    holder = find_holder(path.with_name(path.name + ".lock"))
    if holder is not None:
        raise StoreLocked(f"{path} is in use by process {holder}. {NO_ANSWER}")
    from synergymesh.cli.recorded import recorded

    async with recorded(path) as mesh:
        yield mesh
