"""What every store promises about tasks that failed for good, and about runs that go on: a part of `StoreContract`."""

from __future__ import annotations

from synergymesh.domain.audit.actions import Action
from synergymesh.domain.states import TenantStatus
from synergymesh.ports.changes import DeadLetterDiscarded, RunLinked, TenantStatusChanged, Unit
from synergymesh.ports.records import Committed, DeadLetterRecord, Refused
from synergymesh.ports.store import Store
from synergymesh.testing.store_changes import (
    ACME,
    BETA,
    HASH,
    S,
    created,
    everything,
    finished,
    get_run,
    record,
    task_finished,
)

ERROR = b'{"type":"shop.Declined","message":"no","types":["shop.Declined","builtins.ValueError"]}'


def discarded(run_id: str, component_id: str = "a", tenant_id: str = ACME, reason: str = "seen") -> DeadLetterDiscarded:
    return DeadLetterDiscarded(run_id, component_id, tenant_id, reason, 4_000)


def retry_of(run_id: str, earlier: str, tenant_id: str = ACME) -> RunLinked:
    return RunLinked(run_id, tenant_id, earlier, None, 2_000)


async def dead(store: Store, run_id: str, *components: str, tenant_id: str = ACME, ended_at: int = 2_200) -> None:
    """Record a failed run whose tasks failed for good."""
    await record(
        store,
        created(run_id, tenant_id),
        *(
            task_finished(run_id, c, tenant_id, status=S.FAILED, result=None, error=ERROR, ended_at=ended_at)
            for c in components
        ),
        finished(run_id, tenant_id, status=S.FAILED, result=None),
    )


class DeadLettersContract:
    """Test dead letters and links; the fixture `store` comes from `StoreContract`."""

    async def test_a_dead_letter_has_its_task_and_what_is_known_of_its_run(self, store: Store) -> None:
        await dead(store, "run-1", "a")
        (found,) = await store.list_dead_letters(tenant_id=ACME)
        assert found == DeadLetterRecord(
            run_id="run-1",
            component_id="a",
            tenant_id=ACME,
            workflow="checkout",
            content_hash=HASH,
            run_status="failed",
            status=S.FAILED,
            attempt=1,
            started_at=2_100,
            ended_at=2_200,
            error=ERROR,
            crashes=0,
            discarded_at=None,
            discard_reason=None,
            retried_as=None,
        )
        assert await store.get_dead_letter("run-1", "a", ACME) == found

    async def test_only_tasks_that_failed_for_good_are_dead_letters(self, store: Store) -> None:
        await record(store, created("run-1"))
        for status in (S.SUCCESS, S.FAILED, S.TIMEOUT, S.CANCELLED, S.SKIPPED):
            await record(store, task_finished("run-1", status.value, status=status, result=None))
        assert [x.component_id for x in await store.list_dead_letters(tenant_id=None)] == ["timeout", "failed"]
        assert await store.get_dead_letter("run-1", "success", None) is None
        assert await store.get_dead_letter("run-1", "nothing", None) is None

    async def test_dead_letters_come_in_pages_those_of_the_newest_runs_first(self, store: Store) -> None:
        for run_id in ("run-1", "run-2", "run-3"):
            await dead(store, run_id, "a", "b")
        pages: list[list[tuple[str, str]]] = []
        before = None
        while page := await store.list_dead_letters(tenant_id=None, before=before, limit=4):
            pages.append([(x.run_id, x.component_id) for x in page])
            before = pages[-1][-1]
        assert pages == [
            [("run-3", "b"), ("run-3", "a"), ("run-2", "b"), ("run-2", "a")],
            [("run-1", "b"), ("run-1", "a")],
        ]
        assert await store.list_dead_letters(tenant_id=None, limit=0) == []

    async def test_a_dead_letter_is_found_by_its_error_or_what_that_derives_from(self, store: Store) -> None:
        await dead(store, "run-1", "a")
        await record(
            store,
            created("run-2"),
            task_finished("run-2", "a", status=S.FAILED, result=None, error=b'{"type":"synergymesh.Quarantined"}'),
            task_finished("run-2", "b", status=S.FAILED, result=None, error=None),
        )

        async def found(error_type: str) -> list[str]:
            page = await store.list_dead_letters(tenant_id=ACME, error_type=error_type)
            return [x.run_id for x in page]

        for name in ("shop.Declined", "Declined", "ValueError", "builtins.ValueError"):
            assert await found(name) == ["run-1"]
        assert await found("Quarantined") == ["run-2"]
        for name in ("clined", "shop", "%", "_eclined", "Error", ".Declined", "declined"):
            assert await found(name) == []

    async def test_dead_letters_are_found_by_workflow_and_by_time(self, store: Store) -> None:
        await dead(store, "run-1", "a", ended_at=1_000)
        await dead(store, "run-2", "a", ended_at=2_000)
        assert len(await store.list_dead_letters(tenant_id=ACME, workflow="checkout")) == 2
        assert await store.list_dead_letters(tenant_id=ACME, workflow="other") == []
        assert [x.run_id for x in await store.list_dead_letters(tenant_id=ACME, since=2_000)] == ["run-2"]
        assert await store.list_dead_letters(tenant_id=ACME, since=2_001) == []

    async def test_no_tenant_sees_or_discards_the_dead_letters_of_another(self, store: Store) -> None:
        await dead(store, "run-1", "a")
        await dead(store, "run-2", "a", tenant_id=BETA)
        assert [x.run_id for x in await store.list_dead_letters(tenant_id=ACME)] == ["run-1"]
        assert [x.run_id for x in await store.list_dead_letters(tenant_id=None)] == ["run-2", "run-1"]
        assert await store.get_dead_letter("run-2", "a", ACME) is None
        (answer,) = await store.commit([[discarded("run-2", tenant_id=ACME)]])
        assert isinstance(answer, Refused)
        found = await store.get_dead_letter("run-2", "a", BETA)
        assert found is not None
        assert found.discarded_at is None

    async def test_dead_letters_of_a_deleted_tenant_are_gone(self, store: Store) -> None:
        await dead(store, "run-1", "a")
        await record(store, TenantStatusChanged(ACME, TenantStatus.DELETED, 5_000))
        assert await store.list_dead_letters(tenant_id=None) == []
        assert await store.get_dead_letter("run-1", "a", None) is None
        while await store.purge_deleted(100):
            pass
        assert await everything(store, ["run-1"]) == await everything(store, [])

    async def test_a_discarded_dead_letter_is_not_listed_but_found_with_its_first_reason(self, store: Store) -> None:
        await dead(store, "run-1", "a", "b")
        change = discarded("run-1")
        assert await store.commit([[change], [change]]) == [Committed(), Committed()]
        await record(store, discarded("run-1", reason="second thought"))
        assert [x.component_id for x in await store.list_dead_letters(tenant_id=ACME)] == ["b"]
        found = await store.get_dead_letter("run-1", "a", ACME)
        assert found is not None
        assert (found.discarded_at, found.discard_reason) == (4_000, "seen")
        entries = (await store.find_audit_entries(ACME, action=Action.DEAD_LETTER_DISCARDED)).entries
        assert [entry.entity for entry in entries] == ["dead_letter/run-1:a"]

    async def test_what_did_not_fail_is_not_discarded(self, store: Store) -> None:
        await record(store, created("run-1"), task_finished("run-1", "a"), discarded("run-1"))
        await record(store, task_finished("run-1", "a", status=S.FAILED, result=None))  # final already, changes nothing
        assert await store.get_dead_letter("run-1", "a", None) is None

    async def test_a_retried_run_has_no_open_dead_letters_and_names_its_retry(self, store: Store) -> None:
        await dead(store, "run-1", "a")
        await record(store, created("run-2"), retry_of("run-2", "run-1"))
        assert await store.list_dead_letters(tenant_id=ACME) == []
        found = await store.get_dead_letter("run-1", "a", ACME)
        assert found is not None
        assert found.retried_as == "run-2"
        assert (await get_run(store, "run-2")).retry_of == "run-1"
        await record(store, retry_of("run-2", "run-1"))
        entries = (await store.find_audit_entries(ACME, action=Action.RUN_LINKED)).entries
        assert [entry.entity for entry in entries] == ["run/run-2"]
        assert await store.get_retry("run-1", ACME) == await store.get_retry("run-1", None) == "run-2"
        assert await store.get_retry("run-1", BETA) is None
        assert await store.get_retry("run-2", ACME) is None

    async def test_a_run_is_retried_once(self, store: Store) -> None:
        await dead(store, "run-1", "a")
        first: Unit = [created("run-2"), retry_of("run-2", "run-1")]
        second: Unit = [created("run-3"), retry_of("run-3", "run-1")]
        answers = await store.commit([first, second, first, [created("run-4")]])
        assert [type(answer) for answer in answers] == [Committed, Refused, Committed, Committed]
        assert [run.run_id for run in await store.list_runs(tenant_id=None)] == ["run-4", "run-2", "run-1"]

    async def test_a_run_is_replayed_as_often_as_wanted(self, store: Store) -> None:
        await dead(store, "run-1", "a")
        for run_id in ("run-2", "run-3"):
            await record(store, created(run_id), RunLinked(run_id, ACME, None, "run-1", 2_000))
        assert (await get_run(store, "run-3")).replay_of == "run-1"
        assert len(await store.list_dead_letters(tenant_id=ACME)) == 1

    async def test_a_link_of_another_tenants_run_is_refused(self, store: Store) -> None:
        await record(store, created("run-1", BETA))
        (answer,) = await store.commit([[RunLinked("run-1", ACME, "run-0", None, 2_000)]])
        assert isinstance(answer, Refused)
        assert (await get_run(store, "run-1")).retry_of is None
