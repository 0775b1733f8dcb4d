"""What every store promises about open runs, waiting and begun: a part of `StoreContract`."""

from __future__ import annotations

from itertools import groupby

from synergymesh.domain.states import TenantStatus
from synergymesh.ports.store import CancelRequested, RunStarted, Store, TenantStatusChanged
from synergymesh.testing.store_changes import ACME, BETA, S, created, finished, get_run, record


async def list_all_waiting(store: Store, tenant_id: str, limit: int) -> list[str]:
    """Read the waiting runs of a tenant page by page."""
    seen: list[str] = []
    after = None
    while page := await store.list_waiting_runs(tenant_id, after=after, limit=limit):
        assert len(page) <= limit
        seen += [run.run_id for run in page]
        after = (page[-1].priority, page[-1].run_id)
    return seen


class BacklogContract:
    """Test the reads of open runs; the fixture `store` comes from `StoreContract`."""

    async def test_waiting_runs_are_listed_by_priority_then_age_page_by_page(self, store: Store) -> None:
        priorities = [0, 5, -(2**63), 0, 5, 2**63 - 1, 0, -3, 0, 2**63 - 1, 5]
        names = [f"run-{n:02}" for n in range(len(priorities))]
        await store.commit([[created(name, priority=p)] for name, p in zip(names, priorities, strict=True)])
        await record(store, created("run-beta", BETA, priority=7))
        expected = sorted(names, key=lambda name: (-priorities[names.index(name)], name))
        for limit in (1, 2, 3, 5, 100):
            assert await list_all_waiting(store, ACME, limit) == expected
        assert await list_all_waiting(store, BETA, 2) == ["run-beta"]

    async def test_a_page_of_a_backlog_has_what_its_limit_says(self, store: Store) -> None:
        await store.commit([[created(f"run-{n}", priority=n % 2)] for n in range(6)])
        assert await store.list_waiting_runs(ACME, after=None, limit=0) == []
        assert await store.list_waiting_runs(ACME, after=(1, "run-1"), limit=0) == []
        page = await store.list_waiting_runs(ACME, after=(1, "run-1"), limit=3)
        assert [run.run_id for run in page] == ["run-3", "run-5", "run-0"]
        assert page[0] == await get_run(store, "run-3")

    async def test_the_place_of_a_run_that_is_gone_can_be_read_on_from(self, store: Store) -> None:
        await store.commit([[created(f"run-{n}")] for n in range(4)])
        await record(store, finished("run-1"))
        page = await store.list_waiting_runs(ACME, after=(0, "run-1"), limit=10)
        assert [run.run_id for run in page] == ["run-2", "run-3"]
        assert await store.list_waiting_runs(ACME, after=(-1, "run-3"), limit=10) == []

    async def test_an_open_run_is_either_waiting_or_begun(self, store: Store) -> None:
        await store.begin_incarnation()
        await store.commit([[created(f"run-{n}", ACME if n < 6 else BETA)] for n in range(8)])
        await record(store, RunStarted("run-1", ACME, 2_100), RunStarted("run-7", BETA, 2_100))
        await record(store, CancelRequested("run-2", ACME, 2_200))
        await record(store, RunStarted("run-3", ACME, 2_100), CancelRequested("run-3", ACME, 2_200))
        await record(store, finished("run-4"))
        await record(store, RunStarted("run-5", ACME, 2_100), finished("run-5"))
        await store.begin_incarnation()  # a recovery begins nothing
        assert await list_all_waiting(store, ACME, 10) == ["run-0"]
        assert await list_all_waiting(store, BETA, 10) == ["run-6"]
        begun = await store.list_begun_runs(after=None, limit=10)
        assert [run.run_id for run in begun] == ["run-1", "run-2", "run-3", "run-7"]
        assert [(run.status, run.recoveries) for run in begun[:2]] == [(S.RUNNING, 1), (S.PENDING, 1)]
        open_runs = await store.list_open_runs(after=None, limit=10)
        assert sorted(["run-0", "run-6", *(run.run_id for run in begun)]) == [run.run_id for run in open_runs]
        by_tenant = {name: len(list(of)) for name, of in groupby(open_runs, key=lambda run: run.tenant_id)}
        assert await store.count_open_runs_by_tenant() == by_tenant == {ACME: 4, BETA: 2}

    async def test_begun_runs_are_listed_oldest_first_page_by_page(self, store: Store) -> None:
        names = [f"run-{n:02}" for n in range(9)]
        for n, name in enumerate(names):
            tenant_id = ACME if n % 2 else BETA
            await record(store, created(name, tenant_id), RunStarted(name, tenant_id, 2_100))
        await record(store, created("run-045"), created("run-10"))
        seen: list[str] = []
        after = None
        while page := await store.list_begun_runs(after=after, limit=4):
            assert len(page) <= 4
            seen += [run.run_id for run in page]
            after = seen[-1]
        assert seen == names
        assert await store.list_begun_runs(after=None, limit=0) == []

    async def test_a_backlog_without_runs_is_empty(self, store: Store) -> None:
        assert await store.list_waiting_runs(ACME, after=None, limit=10) == []
        assert await store.list_begun_runs(after=None, limit=10) == []
        assert await store.count_open_runs_by_tenant() == {}

    async def test_a_deleted_tenant_has_no_backlog(self, store: Store) -> None:
        await record(store, created("run-1"), created("run-2"), RunStarted("run-2", ACME, 2_100))
        await record(store, created("run-3", BETA))
        await record(store, TenantStatusChanged(ACME, TenantStatus.DELETED, 3_000))
        assert await store.list_waiting_runs(ACME, after=None, limit=10) == []
        assert await store.list_waiting_runs(ACME, after=(9, ""), limit=10) == []
        assert await store.list_begun_runs(after=None, limit=10) == []
        assert await store.count_open_runs_by_tenant() == {BETA: 1}
