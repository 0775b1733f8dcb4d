"""What every store promises about what it deletes, and what it must not delete: a part of `StoreContract`."""

from __future__ import annotations

import msgspec

from synergymesh.domain.audit.actions import Action
from synergymesh.domain.states import TenantStatus
from synergymesh.ports.changes import RunStarted, TenantStatusChanged
from synergymesh.ports.records import Committed
from synergymesh.ports.store import Store
from synergymesh.testing.store_changes import (
    ACME,
    BETA,
    HASH,
    OTHER,
    S,
    attempt_failed,
    created,
    finished,
    record,
    task_finished,
    workflow,
)

END = "run-~"
"""Behind all ids."""


async def list_all_prunable(store: Store, tenant_id: str, ended_before: int, limit: int = 100) -> list[str]:
    """Read the prunable runs of a tenant page by page."""
    seen: list[str] = []
    after = None
    while True:
        page = await store.list_prunable_runs(
            tenant_id, ended_before=ended_before, after=after, before=END, limit=limit
        )
        seen += page.run_ids
        after = page.after
        if after is None:
            return seen


async def all_runs(store: Store) -> list[str]:
    """Give the ids of all runs that are found, oldest first."""
    return [run.run_id for run in reversed(await store.list_runs(tenant_id=None, limit=1_000))]


class HousekeepingContract:
    """Test the pruning of runs and versions; the fixture `store` comes from `StoreContract`."""

    async def test_a_run_may_go_once_it_is_final_and_ended_before_the_moment(self, store: Store) -> None:
        await store.commit([[created(f"run-{n}")] for n in range(6)])
        await record(store, created("run-beta", BETA), finished("run-beta", BETA, ended_at=10))
        await record(store, finished("run-0", ended_at=100), finished("run-1", ended_at=99))
        await record(store, finished("run-2", ended_at=5, status=S.FAILED), RunStarted("run-3", ACME, 1))
        await record(store, finished("run-4", ended_at=98, status=S.CANCELLED))
        for limit in (1, 2, 3, 6, 100):
            assert await list_all_prunable(store, ACME, 100, limit) == ["run-1", "run-2", "run-4"]
        assert await list_all_prunable(store, BETA, 100) == ["run-beta"]
        assert await list_all_prunable(store, ACME, 5) == []

    async def test_only_ids_between_two_places_are_looked_at(self, store: Store) -> None:
        await store.commit([[created(f"run-{n}"), finished(f"run-{n}", ended_at=1)] for n in range(4)])
        page = await store.list_prunable_runs(ACME, ended_before=2, after="run-0", before="run-3", limit=5)
        assert (page.run_ids, page.after) == (["run-1", "run-2"], None)
        page = await store.list_prunable_runs(ACME, ended_before=2, after="run-0", before="run-3", limit=1)
        assert (page.run_ids, page.after) == (["run-1"], "run-1")

    async def test_a_run_is_pruned_with_all_of_its_rows(self, store: Store) -> None:
        for run_id in ("run-1", "run-2"):
            await record(store, created(run_id), task_finished(run_id, "a"), attempt_failed(run_id, "a"))
            await record(store, task_finished(run_id, "b"), finished(run_id, ended_at=50))
        pruned = await store.prune_runs(["run-1"], ended_before=51, limit=100)
        assert (pruned.rows, pruned.left) == (4, [])
        assert await store.get_run("run-1", None) is None
        assert await store.list_tasks(["run-1"]) == []
        assert await store.list_attempts(["run-1"]) == []
        assert len(await store.list_tasks(["run-2"])) == 2

    async def test_what_may_not_go_stays_whoever_asks(self, store: Store) -> None:
        await store.commit([[created("open")], [created("begun"), RunStarted("begun", ACME, 1)]])
        await record(store, created("young"), finished("young", ended_at=100))
        pruned = await store.prune_runs(["open", "begun", "young", "nothing"], ended_before=100, limit=100)
        assert (pruned.rows, pruned.left) == (0, [])
        assert sorted(await all_runs(store)) == ["begun", "open", "young"]

    async def test_no_more_rows_are_deleted_than_the_limit_says(self, store: Store) -> None:
        for n in range(3):
            await record(store, created(f"run-{n}"), task_finished(f"run-{n}", "a"), finished(f"run-{n}", ended_at=1))
        run_ids = ["run-0", "run-1", "run-2"]
        assert (await store.prune_runs(run_ids, ended_before=2, limit=0)).left == run_ids
        pruned = await store.prune_runs(run_ids, ended_before=2, limit=5)
        assert (pruned.rows, pruned.left) == (4, ["run-2"])
        pruned = await store.prune_runs(pruned.left, ended_before=2, limit=2)
        assert (pruned.rows, pruned.left) == (2, [])

    async def test_a_run_that_is_larger_than_the_limit_is_hidden_before_it_goes_in_parts(self, store: Store) -> None:
        tasks = [task_finished("run-1", f"t{n}") for n in range(5)]
        await record(store, created("run-1", idempotency_key="k"), *tasks, finished("run-1", ended_at=1))
        pruned = await store.prune_runs(["run-1"], ended_before=2, limit=3)
        assert (pruned.rows, pruned.left) == (3, ["run-1"])
        assert await store.get_run("run-1", None) is None
        assert await store.get_run("run-1", ACME) is None
        assert await all_runs(store) == []
        assert await store.list_runs(tenant_id=ACME, statuses=[S.SUCCESS]) == []
        # A longer retention since does not bring half a run back.
        assert await list_all_prunable(store, ACME, 0) == ["run-1"]
        assert await store.commit([[created("run-2", idempotency_key="k")]]) == [Committed()]
        assert (await store.prune_runs(["run-1"], ended_before=0, limit=3)).left == []
        assert await list_all_prunable(store, ACME, 100) == []

    async def test_what_is_pruned_is_in_the_audit_log_once(self, store: Store) -> None:
        await store.commit([[created(f"run-{n}"), finished(f"run-{n}", ended_at=1)] for n in range(3)])
        tasks = [task_finished("run-large", f"t{n}") for n in range(5)]
        await record(store, created("run-large"), *tasks, finished("run-large", ended_at=1))
        left = ["run-0", "run-1", "run-2", "run-large"]
        while left:
            left = (await store.prune_runs(left, ended_before=2, limit=3)).left
        page = await store.find_audit_entries(ACME, action=Action.RUNS_PRUNED)
        told = [msgspec.json.decode(entry.payload)["details"] for entry in reversed(page.entries)]
        assert told == [
            {"first_run_id": "run-0", "last_run_id": "run-2", "runs": 3},
            {"first_run_id": "run-large", "last_run_id": "run-large", "runs": 1},
        ]

    async def test_the_key_of_a_pruned_run_is_free_again(self, store: Store) -> None:
        await record(store, created("run-1", idempotency_key="k"), finished("run-1", ended_at=1))
        (answer,) = await store.commit([[created("run-2", idempotency_key="k")]])
        assert isinstance(answer, Committed)
        assert answer.existing is not None
        await store.prune_runs(["run-1"], ended_before=2, limit=10)
        assert await store.commit([[created("run-2", idempotency_key="k")]]) == [Committed()]

    async def test_a_version_is_unused_when_no_run_has_it(self, store: Store) -> None:
        await record(store, workflow(OTHER), workflow("2" * 64), created("run-1", content_hash=OTHER))
        assert await self.find(store, 100) == sorted([HASH, "2" * 64])
        assert await store.forget_workflows([HASH, "2" * 64]) == 2
        assert await store.get_workflow(HASH) is None
        assert await store.get_workflow(OTHER) is not None
        assert await self.find(store, 100) == []

    async def test_a_version_that_is_used_since_is_not_forgotten(self, store: Store) -> None:
        await store.commit([[created(f"run-{n}")] for n in range(4)])
        await record(store, workflow(OTHER))
        assert await store.find_unused_workflows(2) is None
        await record(store, created("run-5", content_hash=OTHER))
        unused = await self.find(store, 2)
        assert await store.forget_workflows([*unused, OTHER]) == 0
        assert await store.get_workflow(OTHER) is not None
        assert await self.find(store, 2) == []

    async def test_a_version_whose_run_takes_the_place_of_a_pruned_one_is_not_forgotten(self, store: Store) -> None:
        await record(store, created("run-1"), finished("run-1", ended_at=1))
        await record(store, workflow(OTHER))
        assert await store.find_unused_workflows(1) is None
        await store.prune_runs(["run-1"], ended_before=2, limit=10)
        await record(store, created("run-2", content_hash=OTHER))
        unused = await self.find(store, 1)
        assert await store.forget_workflows(unused) == 0
        assert await store.get_workflow(OTHER) is not None

    async def test_a_forgotten_version_can_come_again(self, store: Store) -> None:
        assert await store.forget_workflows(await self.find(store, 10)) == 1
        await record(store, workflow(), created("run-1"))
        assert await self.find(store, 10) == []

    async def test_a_store_without_free_room_gives_none_back(self, store: Store) -> None:
        assert await store.give_space_back(100) == 0

    async def test_a_deleted_tenant_goes_with_runs_that_are_being_pruned(self, store: Store) -> None:
        tasks = [task_finished("run-1", f"t{n}") for n in range(5)]
        await record(store, created("run-1"), *tasks, finished("run-1", ended_at=1))
        await store.prune_runs(["run-1"], ended_before=2, limit=3)
        await record(store, TenantStatusChanged(ACME, TenantStatus.DELETED, 5))
        while await store.purge_deleted(100):
            pass
        assert await store.list_tasks(["run-1"]) == []

    async def find(self, store: Store, limit: int) -> list[str]:
        """Search to the end."""
        while (unused := await store.find_unused_workflows(limit)) is None:
            pass
        return unused
