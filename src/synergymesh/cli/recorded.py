"""Answers from what is recorded in a database that no process executes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

from synergymesh.assembly import Parts, Seams, assemble
from synergymesh.domain.fault_tolerance.retry import RetryPolicy
from synergymesh.domain.tenants import Tenant
from synergymesh.local.verbs import Here
from synergymesh.mesh_control import MeshControl
from synergymesh.ports.clock import SystemClock
from synergymesh.ports.store import Store
from synergymesh.settings import Settings, read_settings
from synergymesh.store.sqlite import SqliteReader


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
async def recorded(path: Path) -> AsyncIterator[Here]:
    """Give what answers verbs that only look.

    Raises:
        StoreError: the database cannot be read.
    """
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
