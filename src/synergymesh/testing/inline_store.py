"""The SQLite store without threads, for loops whose time is virtual."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from synergymesh.ports.store import Store
from synergymesh.store.database_thread import DatabaseThread
from synergymesh.store.sqlite import SqliteStore

T = TypeVar("T")


class InlineThread(DatabaseThread):
    """Run blocking functions where they are called, at once."""

    def __init__(self, name: str, translate: Callable[[Exception], Exception]) -> None:
        self._translate = translate

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run a function and give what it returns."""
        try:
            return function(*arguments)
        except Exception as error:
            translated = self._translate(error)
            if translated is error:
                raise
            raise translated from error

    def stop(self) -> None:
        """Do nothing: there is no thread."""


class InlineSqliteStore(SqliteStore):
    """Keep everything in SQLite; every verb is done when it is called."""

    _thread = InlineThread


class Database(Protocol):
    """Outlive the processes that use it."""

    def connect(self) -> Store:
        """Give the store for one life of a process; closed, or left alone if the process dies."""
        ...

    async def died(self, store: Store) -> None:
        """Take back the store of a process that died."""
        ...

    async def destroy(self) -> None:
        """Let go of everything."""
        ...


class MemoryDatabase:
    """Keep the database in memory, for as many lives as it is asked for."""

    def __init__(self) -> None:
        self._store = InlineSqliteStore(":memory:", synchronous="normal")

    def connect(self) -> Store:
        """Give the one store that there is, open or not."""
        return cast(Store, _Kept(self._store))

    async def died(self, store: Store) -> None:
        """Keep it as it is."""

    async def destroy(self) -> None:
        """Let go of everything."""
        await self._store.close()


class FileDatabase:
    """Keep the database in a file; every life opens it anew."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def connect(self) -> Store:
        """Give a store on the file."""
        return InlineSqliteStore(self._path, synchronous="normal")

    async def died(self, store: Store) -> None:
        """Close the dead process's connections, as the kernel does."""
        await store.close()

    async def destroy(self) -> None:
        """Leave the file to whoever named it."""


class _Kept:
    """A store that closing leaves open."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def close(self) -> None:
        """Keep it open: what is in memory would be gone."""
