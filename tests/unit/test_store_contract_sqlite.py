"""The store on SQLite keeps the promises of every store, in memory and in a file."""

from pathlib import Path

import pytest

from synergymesh.store.sqlite import SqliteStore
from synergymesh.testing.store_changes import MakeStore
from synergymesh.testing.store_contract import StoreContract


class TestSqliteInMemory(StoreContract):
    durable = False

    @pytest.fixture
    def database(self) -> MakeStore:
        return lambda: SqliteStore(":memory:")


class TestSqliteFile(StoreContract):
    @pytest.fixture
    def database(self, tmp_path: Path) -> MakeStore:
        return lambda: SqliteStore(f"sqlite:///{tmp_path}/mesh.db", synchronous="normal")
