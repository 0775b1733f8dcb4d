"""Asks the process that executes a database how it is doing; where there is none, shows what is recorded."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

from synergymesh.errors import StoreLocked
from synergymesh.mesh_control import MeshControl

if TYPE_CHECKING:
    from synergymesh.assembly import Parts
    from synergymesh.domain.tenants import Tenant
    from synergymesh.local.verbs import Asking
    from synergymesh.settings import Settings


class _Recorded(MeshControl):
    """Answer from what is recorded: nothing runs or waits in it, and nothing is written."""

    def __init__(self, parts: Parts, settings: Settings) -> None:
        self._parts = parts
        self.settings = settings

    @property
    def _running(self) -> Parts:
        return self._parts

    async def list_tenants(self) -> list[Tenant]:
        """Give all tenants, oldest first."""
        return list(self._parts.tenants)


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
    from synergymesh.cli.administration import reach
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
        raise StoreLocked(
            f"{path} is in use by process {holder}. It does not answer other processes: it is starting, ending, or "
            "local_socket is off."
        )
    async with _recorded(path) as mesh:
        yield mesh


@asynccontextmanager
async def _recorded(path: Path) -> AsyncIterator[Asking]:
    from synergymesh.assembly import Seams, assemble
    from synergymesh.domain.fault_tolerance.retry import RetryPolicy
    from synergymesh.local.verbs import Here
    from synergymesh.ports.clock import SystemClock
    from synergymesh.ports.store import Store
    from synergymesh.settings import read_settings
    from synergymesh.store.sqlite import SqliteReader

    settings = read_settings(database=str(path))
    reader = SqliteReader(path)
    await reader.open()
    try:
        parts = assemble(cast(Store, reader), settings, (), RetryPolicy(), SystemClock(), Seams())
        try:
            await parts.tenants.load()
            await parts.circuits.load()
            await parts.statistics.load()
            yield Here(_Recorded(parts, settings))
        finally:
            parts.deadlines.close()
            await parts.delivery.close()
    finally:
        await reader.close()
