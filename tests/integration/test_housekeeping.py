"""The database does not grow for ever: pruning, versions, free room, the log."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from synergymesh import Orchestrator, Workflow
from synergymesh.domain.retention import DAY
from synergymesh.engine import housekeeping
from synergymesh.errors import InvalidRequest, StoreLocked, UnknownRun, UnknownTenant
from synergymesh.store import space
from synergymesh.store.compaction import compact_file
from synergymesh.store.sqlite import SqliteStore
from synergymesh.testing.store_changes import created, finished, tenant, workflow

OpenMesh = Callable[..., Orchestrator]


class MovedClock:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.moment = 1_000 * DAY

    def now(self) -> int:
        return self.moment


async def give(value: int) -> int:
    return value


simple = Workflow("simple").add(give, id="only", args=[1])
other = Workflow("other").add(give, id="only", args=[2])


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


def pragma(path: Path, name: str) -> int:
    connection = sqlite3.connect(path)
    try:
        return int(connection.execute(f"PRAGMA {name}").fetchone()[0])
    finally:
        connection.close()


# --- runs -----------------------------------------------------------------------------------------------------------


async def test_an_orchestrator_prunes_by_itself(
    open_mesh: OpenMesh, clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "FIRST_PASS_SECONDS", 0.0)
    monkeypatch.setattr(housekeeping, "PASS_SECONDS", 0.01)
    async with open_mesh(clock=clock) as mesh:
        acme = (await mesh.create_tenant("Acme")).tenant_id
        run = await mesh.submit(simple, tenant=acme)
        assert await run.result() is not None
        await mesh.get_run(run.id)
        clock.moment += 31 * DAY
        async with asyncio.timeout(10):
            while await mesh.list_runs():  # noqa: ASYNC110 - nothing tells of it, so it is looked for
                await asyncio.sleep(0.01)
        with pytest.raises(UnknownRun):
            await mesh.get_run(run.id)


async def test_a_pass_that_fails_is_made_again(
    open_mesh: OpenMesh, clock: MovedClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from synergymesh.errors import StoreUnavailable

    monkeypatch.setattr(housekeeping, "FIRST_PASS_SECONDS", 0.0)
    monkeypatch.setattr(housekeeping, "PASS_SECONDS", 0.01)
    mesh = open_mesh(clock=clock)
    failures = 3
    prune_runs = mesh._database.prune_runs

    async def fails(*arguments: Any, **more: Any) -> object:
        nonlocal failures
        if failures:
            failures -= 1
            raise StoreUnavailable("the disk is full")
        return await prune_runs(*arguments, **more)

    monkeypatch.setattr(mesh._database, "prune_runs", fails)
    async with mesh:
        acme = (await mesh.create_tenant("Acme")).tenant_id
        await (await mesh.submit(simple, tenant=acme)).result()
        clock.moment += 31 * DAY
        async with asyncio.timeout(10):
            while await mesh.list_runs():  # noqa: ASYNC110 - nothing tells of it, so it is looked for
                await asyncio.sleep(0.01)
    assert failures == 0


async def test_an_idempotency_key_lives_as_long_as_its_run(mesh: Orchestrator, tenant: str) -> None:
    await mesh.set_retention(tenant, 0)
    first = await mesh.submit(simple, tenant=tenant, idempotency_key="order-1")
    await first.result()
    assert (await mesh.submit(simple, tenant=tenant, idempotency_key="order-1")).id == first.id
    assert (await mesh.prune()).runs == 1
    again = await mesh.submit(other, tenant=tenant, idempotency_key="order-1")
    assert again.id != first.id
    assert await again.result() == await (await mesh.submit(other, tenant=tenant)).result()


async def test_an_open_run_outlives_every_retention(mesh: Orchestrator, tenant: str) -> None:
    gate = asyncio.Event()

    async def waits() -> int:
        await gate.wait()
        return 1

    await mesh.set_retention(tenant, 0)
    run = await mesh.submit(Workflow("waits").add(waits, id="only"), tenant=tenant)
    await asyncio.sleep(0)
    assert (await mesh.prune()).runs == 0
    gate.set()
    await run.result()
    assert (await mesh.prune()).runs == 1


async def test_a_version_that_went_comes_back_with_its_next_run(mesh: Orchestrator, tenant: str) -> None:
    await mesh.set_retention(tenant, 0)
    for _ in range(3):
        run = await mesh.submit(simple, tenant=tenant)
        await run.result()
        pruned = await mesh.prune()
        assert (pruned.runs, pruned.workflow_versions) == (1, 1)


async def test_submissions_during_a_search_keep_their_versions(mesh: Orchestrator, tenant: str) -> None:
    await mesh.set_retention(tenant, 0)
    flows = [Workflow(f"w{n}").add(give, id="only", args=[n]) for n in range(20)]
    stop = asyncio.Event()

    async def submit() -> int:
        done = 0
        while not stop.is_set():
            for flow in flows:
                await (await mesh.submit(flow, tenant=tenant)).cancel()
                done += 1
        return done

    submitting = asyncio.create_task(submit())
    forgotten = 0
    for _ in range(15):
        forgotten += (await mesh.prune()).workflow_versions
    stop.set()
    assert await submitting > 0  # a version that was missing would have refused a submission


async def test_a_tenants_retention_can_be_set_and_left_to_its_tier_again(mesh: Orchestrator, tenant: str) -> None:
    assert (await mesh.get_tenant(tenant)).retention_days == 30
    assert (await mesh.set_retention(tenant, 0.5)).retention_days == 0.5
    assert (await mesh.set_weight(tenant, 3)).retention_days == 0.5
    assert (await mesh.set_retention(tenant, None)).retention_days == 30
    with pytest.raises(InvalidRequest, match="retention_days"):
        await mesh.set_retention(tenant, -1)
    with pytest.raises(UnknownTenant):
        await mesh.set_retention("tenant-nobody", 1)


# --- room -----------------------------------------------------------------------------------------------------------


async def fill(store: SqliteStore, runs: int, size: int = 20_000) -> list[str]:
    """Record finished runs with large results; give their ids."""
    run_ids = [f"run-{n:05}" for n in range(runs)]
    await store.commit([[tenant(), workflow()]])
    for start in range(0, runs, 100):
        await store.commit(
            [[created(i), finished(i, ended_at=1, result=b"1" * size)] for i in run_ids[start : start + 100]]
        )
    return run_ids


async def prune_all(store: SqliteStore, run_ids: list[str]) -> None:
    left = run_ids
    while left:
        left = (await store.prune_runs(left, ended_before=2, limit=200)).left


async def test_the_file_shrinks_when_what_it_held_is_pruned(tmp_path: Path) -> None:
    path = tmp_path / "mesh.db"
    store = SqliteStore(path, synchronous="normal")
    await store.open()
    await prune_all(store, await fill(store, 1_500))
    given = 0
    while pages := await store.give_space_back(500):
        assert pages <= 500
        given += pages
    await store.close()
    assert pragma(path, "auto_vacuum") == 2
    assert given > 5_000
    assert pragma(path, "freelist_count") == space.RESERVE_PAGES
    assert path.stat().st_size < 10_000_000


async def test_room_for_what_comes_next_is_kept(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "mesh.db", synchronous="normal")
    await store.open()
    await prune_all(store, await fill(store, 100))
    assert await store.give_space_back(500) == 0
    await store.close()


def make_early_file(path: Path) -> None:
    """Make a database as the first versions made it: without the means to give pages back."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA auto_vacuum = NONE")
    connection.execute("VACUUM")
    connection.close()
    assert pragma(path, "auto_vacuum") == 0


async def test_a_small_file_of_an_early_version_learns_to_shrink_when_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "mesh.db"
    store = SqliteStore(path)
    await store.open()
    await fill(store, 3)
    await store.close()
    make_early_file(path)
    await store.open()
    assert await store.count_runs(tenant_id=None) == 3
    await store.close()
    assert pragma(path, "auto_vacuum") == 2


async def test_a_large_file_of_an_early_version_is_written_anew_on_demand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mesh.db"
    store = SqliteStore(path)
    await store.open()
    await prune_all(store, await fill(store, 300))
    await store.close()
    make_early_file(path)
    monkeypatch.setattr(space, "CONVERTED_BYTES_MAX", 0)
    await store.open()
    await prune_all(store, await fill(store, 300))
    assert await store.give_space_back(10_000) == 0
    with pytest.raises(StoreLocked):
        compact_file(str(path))
    await store.close()
    assert pragma(path, "auto_vacuum") == 0
    before, after = compact_file(str(path))
    assert before > 5_000_000 > 1_500_000 > after == path.stat().st_size
    assert pragma(path, "auto_vacuum") == 2


# --- the log --------------------------------------------------------------------------------------------------------


class Reader:
    """A connection of another program that reads."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None)

    def begin(self) -> None:
        self._connection.execute("BEGIN")
        self._connection.execute("SELECT count(*) FROM runs").fetchone()

    def end(self) -> None:
        self._connection.execute("ROLLBACK")

    def close(self) -> None:
        self._connection.close()


async def write(store: SqliteStore, number: int) -> None:
    """Write about 4 MB."""
    run_ids = [f"run-{number:04}-{n:03}" for n in range(100)]
    await store.commit([[created(i, input=b"1" * 40_000)] for i in run_ids])


async def test_readers_that_follow_each_other_without_a_gap_do_not_let_the_log_grow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space, "LONG_LOG_BYTES", 20_000_000)
    path = tmp_path / "mesh.db"
    store = SqliteStore(path, synchronous="normal")
    await store.open()
    await store.commit([[tenant(), workflow()]])
    over = threading.Event()

    def read_again_and_again(pause: float) -> None:
        reader = Reader(path)
        over.wait(pause)
        while not over.is_set():
            reader.begin()
            over.wait(0.012)
            reader.end()
        reader.close()

    threads = [threading.Thread(target=read_again_and_again, args=(n * 0.004,)) for n in range(3)]
    for thread in threads:
        thread.start()
    longest = 0
    for number in range(30):
        await write(store, number)
        await store.shorten_log()
        longest = max(longest, space.log_bytes(path))
    over.set()
    for thread in threads:
        thread.join()
    await store.close()
    assert longest < 40_000_000


async def test_a_log_that_a_long_reader_keeps_is_shortened_when_he_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space, "LONG_LOG_BYTES", 20_000_000)
    path = tmp_path / "mesh.db"
    store = SqliteStore(path, synchronous="normal")
    await store.open()
    await store.commit([[tenant(), workflow()]])
    reader = Reader(path)
    reader.begin()
    for number in range(10):
        await write(store, number)
    length = await store.shorten_log()
    assert length > 20_000_000
    assert space.log_bytes(path) == length
    await write(store, 99)  # commits go on
    reader.end()
    assert await store.shorten_log() == 0
    assert space.log_bytes(path) == 0
    for number in range(10, 20):
        await write(store, number)
    reader.close()
    assert space.log_bytes(path) <= space.LOG_BYTES_KEPT
    await store.close()


async def test_a_database_in_memory_has_no_log() -> None:
    store = SqliteStore(":memory:")
    await store.open()
    assert await store.shorten_log() == 0
    await store.close()
