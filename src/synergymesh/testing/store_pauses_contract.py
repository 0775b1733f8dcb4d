"""What every store promises about pauses: a part of `StoreContract`."""

from __future__ import annotations

from synergymesh.domain.states import TenantStatus
from synergymesh.ports.changes import (
    Change,
    RunPaused,
    RunResumed,
    RunStarted,
    TenantStatusChanged,
    WorkflowPaused,
    WorkflowResumed,
)
from synergymesh.ports.records import Committed, PauseRecord, Refused
from synergymesh.ports.store import Store
from synergymesh.testing.store_changes import ACME, BETA, created, finished, get_run, record


class PausesContract:
    """Test pauses; the fixture `store` comes from `StoreContract`."""

    async def test_a_paused_run_is_begun_and_a_resumed_one_waits_again(self, store: Store) -> None:
        await record(store, created("run-1"), created("run-2", not_before=9_000))
        for run_id in ("run-1", "run-2"):
            await record(store, RunPaused(run_id, ACME, 3_000))
        assert (await get_run(store, "run-1")).paused_at == 3_000
        assert [run.run_id for run in await store.list_begun_runs(after=None, limit=9)] == ["run-1", "run-2"]
        assert await store.list_waiting_runs(ACME, due_by=9_999, after=None, limit=9) == []
        assert await store.list_later_runs(ACME, after=0, limit=9) == []
        for run_id in ("run-1", "run-2"):
            await record(store, RunResumed(run_id, ACME, 4_000))
        assert (await get_run(store, "run-1")).paused_at is None
        assert await store.list_begun_runs(after=None, limit=9) == []
        assert len(await store.list_waiting_runs(ACME, due_by=9_999, after=None, limit=9)) == 2
        assert len(await store.list_later_runs(ACME, after=0, limit=9)) == 1

    async def test_changes_of_a_pause_take_effect_in_their_order(self, store: Store) -> None:
        unit: list[Change] = [
            created("run-1"),
            RunPaused("run-1", ACME, 1),
            RunResumed("run-1", ACME, 2),
            RunPaused("run-1", ACME, 3),
        ]
        assert await store.commit([unit]) == [Committed()]
        assert (await get_run(store, "run-1")).paused_at == 3
        await record(store, RunPaused("run-1", ACME, 4))
        assert (await get_run(store, "run-1")).paused_at == 3, "it is paused already"

    async def test_a_final_run_is_not_paused_and_that_of_another_tenant_is_refused(self, store: Store) -> None:
        await record(store, created("run-1"), RunStarted("run-1", ACME, 2_050), finished("run-1"))
        await record(store, created("run-2", BETA), RunPaused("run-1", ACME, 3_000))
        assert (await get_run(store, "run-1")).paused_at is None
        for change in (RunPaused("run-2", ACME, 1), RunResumed("run-2", ACME, 1), RunPaused("run-nothing", ACME, 1)):
            assert isinstance((await store.commit([[change]]))[0], Refused)
        assert (await get_run(store, "run-2")).paused_at is None

    async def test_workflows_are_paused_for_a_tenant_or_for_all(self, store: Store) -> None:
        await record(store, WorkflowPaused("w", ACME, 1), WorkflowPaused("w", "", 2), WorkflowPaused("w", ACME, 3))
        both = [PauseRecord("", "w", 2), PauseRecord(ACME, "w", 1)]
        assert await store.list_pauses() == both
        await record(store, WorkflowResumed("w", BETA, 4), WorkflowResumed("v", "", 4))
        assert await store.list_pauses() == both
        await record(store, WorkflowResumed("w", "", 5))
        assert await store.list_pauses() == both[1:]
        assert isinstance((await store.commit([[WorkflowPaused("w", "tenant-nobody", 1)]]))[0], Refused)

    async def test_pauses_of_a_deleted_tenant_are_gone(self, store: Store) -> None:
        await record(store, WorkflowPaused("w", ACME, 1), WorkflowPaused("w", BETA, 1))
        await record(store, TenantStatusChanged(ACME, TenantStatus.DELETED, 5_000))
        assert await store.list_pauses() == [PauseRecord(BETA, "w", 1)]
        while await store.purge_deleted(100):
            pass
        assert await store.list_pauses() == [PauseRecord(BETA, "w", 1)]
