"""What every store promises about open runs, waiting and begun: a part of `StoreContract`."""

from __future__ import annotations

from typing import Any

from synergymesh.domain.states import TenantStatus
from synergymesh.ports.changes import CancelRequested, RunStarted, TenantStatusChanged
from synergymesh.ports.records import WaitingRecord
from synergymesh.ports.store import Store
from synergymesh.testing.store_changes import ACME, BETA, HASH, S, created, finished, get_run, record, workflow

LATE = 2**62
"""A moment by which everything is due."""


async def list_all_waiting(store: Store, tenant_id: str, limit: int, **which: Any) -> list[str]:
    """Read the waiting runs of a tenant page by page."""
    seen: list[str] = []
    after = None
    given = {"due_by": LATE, **which}
    while page := await store.list_waiting_runs(tenant_id, after=after, limit=limit, **given):
        assert len(page) <= limit
        seen += [run.run_id for run in page]
        after = (page[-1].level, page[-1].run_id)
    return seen


class BacklogContract:
    """Test the reads of open runs; the fixture `store` comes from `StoreContract`."""

    async def test_waiting_runs_are_listed_by_level_then_age_page_by_page(self, store: Store) -> None:
        levels = [0, 5, -(2**62), 0, 5, 2**62 - 1, 0, -3, 0, 2**62 - 1, 5]
        names = [f"run-{n:02}" for n in range(len(levels))]
        await store.commit([[created(name, level=v)] for name, v in zip(names, levels, strict=True)])
        await record(store, created("run-beta", BETA, level=7))
        expected = sorted(names, key=lambda name: (levels[names.index(name)], name))
        for limit in (1, 2, 3, 5, 100):
            assert await list_all_waiting(store, ACME, limit) == expected
        assert await list_all_waiting(store, BETA, 2) == ["run-beta"]

    async def test_a_page_of_a_backlog_has_what_its_limit_says(self, store: Store) -> None:
        await store.commit([[created(f"run-{n}", level=-(n % 2), tasks=n + 1)] for n in range(6)])
        assert await store.list_waiting_runs(ACME, due_by=LATE, after=None, limit=0) == []
        assert await store.list_waiting_runs(ACME, due_by=LATE, after=(-1, "run-1"), limit=0) == []
        page = await store.list_waiting_runs(ACME, due_by=LATE, after=(-1, "run-1"), limit=3)
        assert [(run.run_id, run.level, run.tasks) for run in page] == [
            ("run-3", -1, 4),
            ("run-5", -1, 6),
            ("run-0", 0, 1),
        ]
        assert page[0] == await get_run(store, "run-3")

    async def test_the_place_of_a_run_that_is_gone_can_be_read_on_from(self, store: Store) -> None:
        await store.commit([[created(f"run-{n}")] for n in range(4)])
        await record(store, finished("run-1"))
        page = await store.list_waiting_runs(ACME, due_by=LATE, after=(0, "run-1"), limit=10)
        assert [run.run_id for run in page] == ["run-2", "run-3"]
        assert await store.list_waiting_runs(ACME, due_by=LATE, after=(1, "run-3"), limit=10) == []

    async def test_waiting_runs_that_are_not_due_or_of_some_versions_are_left_out(self, store: Store) -> None:
        await record(store, workflow("1" * 64), workflow("2" * 64))
        moments = [0, 50, 51, 2_000, 9_000, 50]
        versions = [HASH, "1" * 64, HASH, "2" * 64, HASH, HASH]
        rows = [
            [created(f"run-{n}", not_before=at, content_hash=version, level=-n)]
            for n, (at, version) in enumerate(zip(moments, versions, strict=True))
        ]
        await store.commit(rows)
        assert await list_all_waiting(store, ACME, 2, due_by=50) == ["run-5", "run-1", "run-0"]
        assert await list_all_waiting(store, ACME, 2, due_by=51) == ["run-5", "run-2", "run-1", "run-0"]
        assert await list_all_waiting(store, ACME, 1, except_versions=[HASH]) == ["run-3", "run-1"]
        assert await list_all_waiting(store, ACME, 2, except_versions=["1" * 64, "2" * 64]) == [
            "run-5",
            "run-4",
            "run-2",
            "run-0",
        ]
        assert await list_all_waiting(store, ACME, 2, due_by=50, except_versions=[HASH, "x"]) == ["run-1"]

    async def test_runs_for_later_are_listed_by_their_moment(self, store: Store) -> None:
        moments = [0, 9_000, 1_999, 5_000, 2_000, 9_000, 5_000, 2_001]
        await store.commit([[created(f"run-{n}", not_before=at, level=-n)] for n, at in enumerate(moments)])
        await record(store, created("run-beta", BETA, not_before=6_000))
        await record(store, finished("run-6"))
        # they were created at 2,000: what could start then was not submitted for later
        found = await store.list_later_runs(ACME, after=0, limit=10)
        assert [run.run_id for run in found] == ["run-7", "run-3", "run-1", "run-5"]
        assert found[0] == await get_run(store, "run-7")
        assert [run.run_id for run in await store.list_later_runs(ACME, after=5_000, limit=1)] == ["run-1"]
        assert await store.list_later_runs(ACME, after=0, limit=0) == []
        assert await store.list_later_runs(ACME, after=9_000, limit=10) == []

    async def test_an_open_run_is_either_waiting_or_begun(self, store: Store) -> None:
        await store.begin_incarnation()
        await store.commit([[created(f"run-{n}", ACME if n < 6 else BETA, tasks=n + 1)] for n in range(8)])
        await record(store, RunStarted("run-1", ACME, 2_100), RunStarted("run-7", BETA, 2_100))
        await record(store, CancelRequested("run-2", ACME, 2_200))
        await record(store, RunStarted("run-3", ACME, 2_100), CancelRequested("run-3", ACME, 2_200))
        await record(store, finished("run-4"))
        await record(store, RunStarted("run-5", ACME, 2_100), finished("run-5"))
        await store.begin_incarnation()  # a recovery begins nothing
        assert await list_all_waiting(store, ACME, 10) == ["run-0"]
        assert await list_all_waiting(store, BETA, 10) == ["run-6"]
        assert await store.list_waiting_counts() == [WaitingRecord(ACME, 1, 1), WaitingRecord(BETA, 1, 7)]
        begun = await store.list_begun_runs(after=None, limit=10)
        assert [run.run_id for run in begun] == ["run-1", "run-2", "run-3", "run-7"]
        assert [(run.status, run.recoveries) for run in begun[:2]] == [(S.RUNNING, 1), (S.PENDING, 1)]
        open_runs = await store.list_open_runs(after=None, limit=10)
        assert sorted(["run-0", "run-6", *(run.run_id for run in begun)]) == [run.run_id for run in open_runs]

    async def test_what_waits_is_counted(self, store: Store) -> None:
        await store.commit([[created(f"run-{n}", level=n // 2, tasks=n)] for n in range(1, 8)])
        await record(store, created("run-beta", BETA, level=-5))
        await record(store, finished("run-3"))
        assert await store.list_waiting_counts() == [WaitingRecord(ACME, 6, 25), WaitingRecord(BETA, 1, 1)]
        places = [await store.count_waiting_before(ACME, n // 2, f"run-{n}") for n in range(1, 8)]
        assert places == [0, 1, 2, 2, 3, 4, 5]
        assert await store.count_waiting_before(ACME, 4, "") == 6
        assert await store.count_waiting_before(BETA, 0, "") == 1

    async def test_recoveries_count_from_the_creation_of_a_run_to_its_end(self, store: Store) -> None:
        await store.begin_incarnation()
        await record(store, created("run-0"))
        for n in range(1, 4):
            await store.begin_incarnation()
            await record(store, created(f"run-{n}"), RunStarted(f"run-{n}", ACME, 2_100))
        await store.begin_incarnation()
        assert [(await get_run(store, f"run-{n}")).recoveries for n in range(4)] == [4, 3, 2, 1]
        await record(store, finished("run-1"))
        await record(store, finished("run-1"))
        await record(store, created("run-2", priority=7))  # again: changes nothing
        await store.end_incarnation()
        await store.begin_incarnation()
        assert [(await get_run(store, f"run-{n}")).recoveries for n in range(4)] == [4, 3, 2, 1]
        await store.begin_incarnation()
        assert [(await get_run(store, f"run-{n}")).recoveries for n in range(4)] == [5, 3, 3, 2]
        assert [run.recoveries for run in await store.list_begun_runs(after=None, limit=10)] == [3, 2]
        (waiting,) = await store.list_waiting_runs(ACME, due_by=LATE, after=None, limit=10)
        assert waiting.recoveries == 5

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
        assert await list_all_waiting(store, ACME, 10) == []
        assert await store.list_later_runs(ACME, after=0, limit=10) == []
        assert await store.list_begun_runs(after=None, limit=10) == []
        assert await store.list_waiting_counts() == []
        assert await store.count_waiting_before(ACME, 0, "") == 0

    async def test_a_deleted_tenant_has_no_backlog(self, store: Store) -> None:
        await record(store, created("run-1"), created("run-2"), RunStarted("run-2", ACME, 2_100))
        await record(store, created("run-3", BETA), created("run-4", not_before=9_000))
        await record(store, TenantStatusChanged(ACME, TenantStatus.DELETED, 3_000))
        assert await list_all_waiting(store, ACME, 10) == []
        assert await store.list_waiting_runs(ACME, due_by=LATE, after=(-9, ""), limit=10) == []
        assert await store.list_later_runs(ACME, after=0, limit=10) == []
        assert await store.list_begun_runs(after=None, limit=10) == []
        assert await store.list_waiting_counts() == [WaitingRecord(BETA, 1, 1)]
        assert await store.count_waiting_before(ACME, 9, "") == 0

    async def test_runs_that_had_to_be_begun_by_now_are_found_those_most_overdue_first(self, store: Store) -> None:
        await record(
            store,
            created("run-1", start_by=50),
            created("run-2", BETA, start_by=40),
            created("run-3"),
            created("run-4", start_by=61),
            created("run-5", start_by=30),
            created("run-6", start_by=20),
            created("run-7", start_by=50),
        )
        await record(store, RunStarted("run-5", ACME, 25), CancelRequested("run-6", ACME, 15))
        assert await store.list_overdue_runs(60, 10) == ["run-2", "run-1", "run-7"]
        assert await store.list_overdue_runs(60, 1) == ["run-2"]
        assert await store.list_overdue_runs(39, 10) == []
        assert await store.list_overdue_runs(60, 0) == []
        await record(store, TenantStatusChanged(BETA, TenantStatus.DELETED, 3_000))
        assert await store.list_overdue_runs(61, 10) == ["run-1", "run-7", "run-4"]

    async def test_submissions_are_listed_by_age_whatever_became_of_them(self, store: Store) -> None:
        direct = "1" * 64
        await record(store, workflow(direct, source="given as an object"))
        names = [f"run-{n}" for n in range(6)]
        await store.commit([[created(name, BETA if n % 2 else ACME, created_at=n)] for n, name in enumerate(names)])
        await record(store, created("run-7", content_hash=direct))
        await record(store, finished("run-2"))

        async def listed(after: str, limit: int = 100) -> list[tuple[str, str, int]]:
            found = await store.list_submissions(after=after, except_source="given as an object", limit=limit)
            return [(each.run_id, each.tenant_id, each.created_at) for each in found]

        everything = [(name, BETA if n % 2 else ACME, n) for n, name in enumerate(names)]
        assert await listed("") == everything
        assert await listed("run-1") == everything[2:]
        assert await listed("run-1", 2) == everything[2:4]
        assert await listed("run-1", 0) == []
        await record(store, TenantStatusChanged(BETA, TenantStatus.DELETED, 3_000))
        assert await listed("") == everything[::2]
