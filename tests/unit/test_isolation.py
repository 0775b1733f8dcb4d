"""The isolation of tenants: it is whole, every verb is tried, and the examination would find a leak."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from synergymesh import Orchestrator, Workflow
from synergymesh.diagnostics import isolation_store, isolation_verbs
from synergymesh.diagnostics.findings import Level
from synergymesh.diagnostics.isolation import examine_isolation
from synergymesh.ports.store import Store
from synergymesh.store import reads
from synergymesh.store.sqlite import SqliteStore


async def test_tenants_are_apart_and_every_verb_is_tried_or_exempt_for_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "mesh.db"
    findings = await examine_isolation(str(path))
    assert [found.level for found in findings] == [Level.OK, Level.OK, Level.NOTE], findings


def test_the_tables_of_verbs_name_what_there_is() -> None:
    tried = isolation_verbs.PROBES.keys() | isolation_verbs.EXEMPT.keys()
    assert tried == isolation_verbs.verbs_of(Orchestrator)
    assert isolation_verbs.PROBES.keys().isdisjoint(isolation_verbs.EXEMPT)
    assert isolation_store.READS.keys() | isolation_store.EXEMPT.keys() == isolation_verbs.verbs_of(Store)
    assert isolation_store.untried() == []


async def test_a_verb_that_was_forgotten_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Orchestrator, "peek", lambda self: None, raising=False)
    findings = await examine_isolation(None)
    assert [found.said for found in findings if found.level is Level.WRONG] == ["peek is new, and is not tried here."]


async def test_a_read_that_forgets_the_tenant_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    get_run = SqliteStore.get_run

    async def leaks(self: SqliteStore, run_id: str, tenant_id: str | None) -> Any:
        return await get_run(self, run_id, None)

    monkeypatch.setattr(SqliteStore, "get_run", leaks)
    verbs, store, _ = await examine_isolation(None)
    assert verbs.level is store.level is Level.WRONG
    assert "get_run" in store.said
    assert "timeline" in verbs.said


async def test_a_write_that_forgets_the_tenant_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    commit = SqliteStore.commit

    async def leaks(self: SqliteStore, units: Any) -> Any:
        taken = [
            [
                type(c)(**{n: getattr(c, n) for n in c.__struct_fields__} | {"tenant_id": isolation_store.THEY})
                for c in u
            ]
            if any(getattr(c, "tenant_id", "") == isolation_store.ME and hasattr(c, "run_id") for c in u)
            else u
            for u in units
        ]
        return await commit(self, taken)

    monkeypatch.setattr(SqliteStore, "commit", leaks)
    found = (await examine_isolation(None))[1]
    assert found.level is Level.WRONG
    assert "CancelRequested" in found.said
    assert "something of the other tenant was changed" in found.said


async def test_a_database_whose_reads_leak_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        return None

    async with Orchestrator(f"sqlite:///{tmp_path}/mesh.db", synchronous="normal") as mesh:
        for name in "ab":
            tenant_id = (await mesh.create_tenant(name)).tenant_id
            await (await mesh.submit(Workflow("w").add(work, id="t"), tenant=tenant_id)).result()
    path = str(tmp_path / "mesh.db")
    assert (await examine_isolation(path))[-1].level is Level.OK
    list_tasks = reads.list_tasks
    monkeypatch.setattr(reads, "list_tasks", lambda connection, ids, tenant_id: list_tasks(connection, ids, None))
    assert (await examine_isolation(path))[-1].level is Level.WRONG
