"""What every store promises: a subclass names a database, and these tests say whether its store keeps the promises.

```python
class TestMyStore(StoreContract):
    @pytest.fixture
    def database(self, tmp_path):
        return lambda: MyStore(tmp_path / "mesh.db")   # a new, closed store on the same database at every call
```
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from hashlib import sha256
from itertools import pairwise

import pytest

from synergymesh.domain.states import ATTEMPT_STATUSES, ExecutionStatus, TenantStatus
from synergymesh.errors import NotRunning, StoreCorrupt
from synergymesh.ports.changes import RunStarted, TenantStatusChanged
from synergymesh.ports.records import AttemptRecord, Committed, Refused, RunRecord, TenantRecord, WorkflowRecord
from synergymesh.ports.store import Store
from synergymesh.testing.store_audit_contract import AuditContract
from synergymesh.testing.store_audit_keeping_contract import AuditKeepingContract
from synergymesh.testing.store_backlog_contract import BacklogContract
from synergymesh.testing.store_breakers_contract import BreakersContract
from synergymesh.testing.store_changes import (
    ACME,
    BETA,
    HASH,
    OTHER,
    MakeStore,
    S,
    attempt_failed,
    created,
    everything,
    finished,
    get_run,
    get_task,
    record,
    task_finished,
    task_started,
    tenant,
    workflow,
)
from synergymesh.testing.store_commit_contract import CommitContract
from synergymesh.testing.store_dead_letters_contract import DeadLettersContract
from synergymesh.testing.store_housekeeping_contract import HousekeepingContract
from synergymesh.testing.store_outputs_contract import OutputsContract
from synergymesh.testing.store_pauses_contract import PausesContract
from synergymesh.testing.store_statistics_contract import StatisticsContract
from synergymesh.testing.store_tenancy_contract import TenancyContract


class StoreContract(
    CommitContract,
    TenancyContract,
    StatisticsContract,
    BreakersContract,
    BacklogContract,
    AuditContract,
    AuditKeepingContract,
    DeadLettersContract,
    HousekeepingContract,
    OutputsContract,
    PausesContract,
):
    """Test a store; the fixture `database` of the subclass makes stores on one database."""

    durable = True
    """Whether a store that was closed finds its data again."""

    @pytest.fixture
    def database(self) -> MakeStore:
        """Give a maker of stores on one database; each subclass has its own."""
        raise NotImplementedError("the subclass names its database")

    @pytest.fixture
    async def store(self, database: MakeStore) -> AsyncIterator[Store]:
        """Give an open store with two tenants and a workflow."""
        store = database()
        await store.open()
        await record(store, tenant(ACME), tenant(BETA, created_at=1_001), workflow())
        yield store
        await store.close()

    # --- tasks and attempts -----------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("status", "expected"), [(S.FAILED, S.RETRYING), (S.TIMEOUT, S.RETRYING), (S.CANCELLED, S.PENDING)]
    )
    async def test_a_failed_attempt_lets_a_running_task_wait(
        self, store: Store, status: ExecutionStatus, expected: ExecutionStatus
    ) -> None:
        await record(store, created("run-1"), task_started("run-1", "a"))
        assert (await get_task(store, "run-1")).status is S.RUNNING
        await record(store, attempt_failed("run-1", "a", status=status))
        assert (await get_task(store, "run-1")).status is expected
        await record(store, task_started("run-1", "a", attempt=2, started_at=2_400))
        task = await get_task(store, "run-1")
        assert (task.status, task.attempt, task.started_at) == (S.RUNNING, 2, 2_400)

    async def test_a_failed_attempt_of_a_short_task_makes_no_task_row(self, store: Store) -> None:
        await record(store, created("run-1"), attempt_failed("run-1", "a"))
        assert await store.list_tasks(["run-1"]) == []

    async def test_a_new_start_in_the_batch_of_the_failure_before_it_counts(self, store: Store) -> None:
        await record(store, created("run-1"), task_started("run-1", "a"))
        await store.commit([[attempt_failed("run-1", "a")], [task_started("run-1", "a", attempt=2)]])
        task = await get_task(store, "run-1")
        assert (task.status, task.attempt) == (S.RUNNING, 2)

    async def test_attempts_are_listed_by_run_component_and_number(self, store: Store) -> None:
        await record(store, created("run-1"), created("run-2"))
        order = [("run-1", "a", 1), ("run-1", "a", 2), ("run-1", "a", 10), ("run-1", "b", 1), ("run-2", "a", 1)]
        for run_id, component_id, number in reversed(order):
            await record(store, attempt_failed(run_id, component_id, number=number))
        listed = await store.list_attempts(["run-2", "run-1"])
        assert [(a.run_id, a.component_id, a.number) for a in listed] == order
        assert listed[0] == AttemptRecord(
            "run-1", "a", 1, ACME, S.FAILED, 2_100, 2_200, 2_300, b'{"type": "ValueError"}', "hour_limit"
        )

    @pytest.mark.parametrize("status", sorted(ATTEMPT_STATUSES))
    async def test_an_attempt_keeps_its_status(self, store: Store, status: ExecutionStatus) -> None:
        await record(store, created("run-1"), attempt_failed("run-1", "a", status=status))
        (attempt,) = await store.list_attempts(["run-1"])
        assert attempt.status is status

    async def test_tasks_are_listed_by_run_and_component(self, store: Store) -> None:
        await record(store, created("run-1"), created("run-2"))
        for run_id, component_id in [("run-2", "b"), ("run-1", "b"), ("run-2", "a"), ("run-1", "ä"), ("run-1", "a")]:
            await record(store, task_finished(run_id, component_id))
        listed = await store.list_tasks(["run-2", "run-1", "run-1", "run-nothing"])
        assert [(task.run_id, task.component_id) for task in listed] == [
            ("run-1", "a"),
            ("run-1", "b"),
            ("run-1", "ä"),
            ("run-2", "a"),
            ("run-2", "b"),
        ]

    async def test_nothing_is_listed_for_no_runs(self, store: Store) -> None:
        assert await store.list_tasks([]) == []
        assert await store.list_attempts([]) == []

    async def test_tasks_of_very_many_runs_are_listed_at_once(self, store: Store) -> None:
        await record(store, created("run-1"), task_finished("run-1", "a"))
        names = [f"run-nothing-{n}" for n in range(40_000)]
        assert len(await store.list_tasks([*names, "run-1"], ACME)) == 1

    # --- payloads ---------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        "payload",
        [b"{}", b'{ "a" : 1.0, "a": 1e5 }', '{"ключ": "🗝 \\u0000"}'.encode(), b'"' + b"x" * 999_998 + b'"', b"null"],
        ids=["empty", "spaces and doubles", "unicode", "1 MB", "null"],
    )
    async def test_payloads_come_back_byte_for_byte(self, store: Store, payload: bytes) -> None:
        content_hash = sha256(payload).hexdigest()
        await record(store, tenant("tenant-quota", quota=payload), workflow(content_hash, definition=payload))
        await record(store, created("run-1", input=payload), task_finished("run-1", "a", result=payload, error=payload))
        await record(store, task_finished("run-1", "b", result=None), attempt_failed("run-1", "a", error=payload))
        await record(store, finished("run-1", result=payload, error=payload))
        run = await get_run(store, "run-1")
        assert (run.input, run.result, run.error) == (payload, payload, payload)
        tasks = await store.list_tasks(["run-1"])
        assert [(task.result, task.error) for task in tasks] == [(payload, payload), (None, None)]
        assert [attempt.error for attempt in await store.list_attempts(["run-1"])] == [payload]
        assert payload in [found.quota for found in await store.list_tenants()]
        version = await store.get_workflow(content_hash)
        assert version is not None
        assert version.definition == payload

    # --- reads ------------------------------------------------------------------------------------------------------

    async def test_a_run_comes_back_as_it_was_submitted(self, store: Store) -> None:
        await record(
            store,
            created(
                "run-1",
                input=b"[1]",
                idempotency_key="k",
                priority=-3,
                not_before=2**62,
                created_at=2**62 + 1,
                traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            ),
        )
        assert await store.get_run("run-1", ACME) == RunRecord(
            run_id="run-1",
            tenant_id=ACME,
            workflow="checkout",
            content_hash=HASH,
            status=S.PENDING,
            priority=-3,
            input=b"[1]",
            result=None,
            error=None,
            idempotency_key="k",
            not_before=2**62,
            created_at=2**62 + 1,
            started_at=None,
            ended_at=None,
            cancel_requested_at=None,
            recoveries=0,
            traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        )

    async def test_no_read_finds_anything_of_another_tenant(self, store: Store) -> None:
        await record(store, created("run-1"), task_finished("run-1", "a"), attempt_failed("run-1", "a"))
        assert await store.get_run("run-1", BETA) is None
        assert await store.list_runs(tenant_id=BETA) == []
        assert await store.count_runs(tenant_id=BETA) == 0
        assert await store.list_tasks(["run-1"], BETA) == []
        assert await store.list_attempts(["run-1"], BETA) == []
        for tenant_id in (ACME, None):
            assert await store.get_run("run-1", tenant_id) is not None
            assert len(await store.list_runs(tenant_id=tenant_id)) == 1
            assert await store.count_runs(tenant_id=tenant_id) == 1
            assert len(await store.list_tasks(["run-1"], tenant_id)) == 1
            assert len(await store.list_attempts(["run-1"], tenant_id)) == 1

    async def test_what_is_not_there_is_none(self, store: Store) -> None:
        assert await store.get_run("run-nothing", None) is None
        assert await store.get_workflow("nothing") is None

    async def test_runs_are_listed_newest_first_page_by_page(self, store: Store) -> None:
        names = [f"run-{n:02}" for n in range(25)]
        await store.commit([[created(name)] for name in names])
        pages: list[list[str]] = []
        before = None
        while page := [run.run_id for run in await store.list_runs(tenant_id=ACME, before=before, limit=10)]:
            pages.append(page)
            before = page[-1]
        assert [len(page) for page in pages] == [10, 10, 5]
        assert [name for page in pages for name in page] == names[::-1]
        assert await store.list_runs(tenant_id=ACME, limit=0) == []

    async def test_runs_are_filtered_by_status_and_workflow_and_counted(self, store: Store) -> None:
        await record(store, created("run-1"), created("run-2", workflow="other"), created("run-3", workflow="other"))
        await record(store, RunStarted("run-2", ACME, 2_100), finished("run-3", status=S.FAILED))
        for statuses, expected in [
            ((), {"run-1", "run-2", "run-3"}),
            ((S.PENDING,), {"run-1"}),
            ((S.PENDING, S.RUNNING), {"run-1", "run-2"}),
            ((S.RUNNING, S.FAILED), {"run-2", "run-3"}),
            ((S.PARTIAL,), set()),
        ]:
            for tenant_id in (ACME, None):
                listed = await store.list_runs(tenant_id=tenant_id, statuses=statuses)
                assert {run.run_id for run in listed} == expected
                assert await store.count_runs(tenant_id=tenant_id, statuses=statuses) == len(expected)
        other = await store.list_runs(tenant_id=ACME, workflow="other", statuses=[S.FAILED])
        assert [run.run_id for run in other] == ["run-3"]

    async def test_open_runs_are_listed_oldest_first_page_by_page(self, store: Store) -> None:
        names = [f"run-{n:02}" for n in range(9)]
        await store.commit([[created(name, ACME if n % 2 else BETA)] for n, name in enumerate(names)])
        await record(store, finished("run-03"), RunStarted("run-05", ACME, 2_100))
        seen: list[str] = []
        after = None
        while page := await store.list_open_runs(after=after, limit=4):
            assert len(page) <= 4
            seen += [run.run_id for run in page]
            after = seen[-1]
        assert seen == [name for name in names if name != "run-03"]

    async def test_a_read_sees_what_was_committed_before_it(self, store: Store) -> None:
        for n in range(50):
            await record(store, created(f"run-{n:02}"))
            assert await store.count_runs(tenant_id=ACME) == n + 1

    # --- workflows and tenants --------------------------------------------------------------------------------------

    async def test_storing_a_version_again_only_renews_its_source(self, store: Store) -> None:
        await record(store, workflow(source="shop:checkout", definition=b"[]", workflow="renamed"))
        assert await store.get_workflow(HASH) == WorkflowRecord(
            HASH, "checkout", b'{"components": []}', "shop:checkout"
        )

    async def test_a_definition_that_is_not_the_one_of_its_hash_is_damage(self, store: Store) -> None:
        await record(store, workflow(OTHER, definition=b'{"components": [1]}'))
        with pytest.raises(StoreCorrupt, match=f"(?s){OTHER}"):
            await store.get_workflow(OTHER)

    async def test_tenants_are_listed_oldest_first(self, store: Store) -> None:
        await record(store, tenant("tenant-zero", created_at=1, tenant_name="Zéro", tier="enterprise", quota=b"[]"))
        listed = await store.list_tenants()
        assert [found.tenant_id for found in listed] == ["tenant-zero", ACME, BETA]
        assert listed[0] == TenantRecord("tenant-zero", "Zéro", "enterprise", b"[]", TenantStatus.ACTIVE, 1)

    async def test_a_tenant_can_be_suspended_and_resumed(self, store: Store) -> None:
        for status in (TenantStatus.SUSPENDED, TenantStatus.ACTIVE):
            await record(store, TenantStatusChanged(ACME, status, 3_000))
            assert (await store.list_tenants())[0].status is status
        await record(store, TenantStatusChanged(ACME, TenantStatus.SUSPENDED, 3_000), created("run-1"))
        assert await store.count_runs(tenant_id=ACME) == 1

    async def test_nothing_of_a_deleted_tenant_is_found(self, store: Store) -> None:
        await record(store, created("run-1", idempotency_key="k"), task_finished("run-1", "a"))
        await record(store, created("run-2", BETA), attempt_failed("run-1", "b"))
        await record(store, TenantStatusChanged(ACME, TenantStatus.DELETED, 3_000))
        assert [found.tenant_id for found in await store.list_tenants()] == [BETA]
        for tenant_id in (ACME, None):
            assert await store.get_run("run-1", tenant_id) is None
            assert await store.list_tasks(["run-1"], tenant_id) == []
            assert await store.list_attempts(["run-1"], tenant_id) == []
        assert [run.run_id for run in await store.list_runs(tenant_id=None)] == ["run-2"]
        assert [run.run_id for run in await store.list_open_runs(after=None, limit=10)] == ["run-2"]
        assert await store.count_runs(tenant_id=None) == 1
        assert await store.count_runs(tenant_id=ACME, statuses=[S.PENDING]) == 0

    async def test_a_run_of_a_deleted_tenant_is_refused(self, store: Store) -> None:
        await record(store, created("run-1", idempotency_key="k"))
        gone = TenantStatusChanged(ACME, TenantStatus.DELETED, 3_000)
        answers = await store.commit([[created("run-2")], [gone], [created("run-3")], [created("run-4", BETA)]])
        assert [type(answer) for answer in answers] == [Committed, Committed, Refused, Committed]
        (answer,) = await store.commit([[created("run-5", idempotency_key="k")]])
        assert isinstance(answer, Refused)
        assert ACME in answer.reason

    async def test_a_deleted_tenant_stays_deleted(self, store: Store) -> None:
        await record(store, TenantStatusChanged(ACME, TenantStatus.DELETED, 3_000))
        await record(store, TenantStatusChanged(ACME, TenantStatus.ACTIVE, 3_001))
        await record(store, tenant(ACME))
        assert [found.tenant_id for found in await store.list_tenants()] == [BETA]

    async def test_deleted_tenants_are_purged_in_small_steps(self, store: Store) -> None:
        for n in range(5):
            changes = [task_finished(f"run-{n}", f"t{m}") for m in range(4)]
            await record(store, created(f"run-{n}"), *changes, attempt_failed(f"run-{n}", "t0"))
        await record(store, created("run-9", BETA), task_finished("run-9", "a", BETA))
        assert await store.purge_deleted(1_000) == 0
        await record(store, TenantStatusChanged(ACME, TenantStatus.DELETED, 3_000))
        assert await store.purge_deleted(0) == 0
        steps = []
        while deleted := await store.purge_deleted(7):
            steps.append(deleted)
        assert max(steps) <= 7
        assert sum(steps) == 5 * (1 + 4 + 1) + 1
        assert len(await store.list_tasks(["run-9"], BETA)) == 1
        (answer,) = await store.commit([[created("run-x")]])
        assert isinstance(answer, Refused)
        await record(store, tenant(ACME))
        assert await store.list_runs(tenant_id=ACME) == []

    # --- lives ------------------------------------------------------------------------------------------------------

    async def test_the_first_life_is_number_one_after_a_clean_end(self, store: Store) -> None:
        life = await store.begin_incarnation()
        assert (life.number, life.previous_ended_cleanly) == (1, True)

    async def test_lives_are_counted_and_an_unclean_end_is_noticed(self, store: Store) -> None:
        lives = [await store.begin_incarnation(), await store.begin_incarnation()]
        await store.end_incarnation()
        lives += [await store.begin_incarnation(), await store.begin_incarnation()]
        assert [life.previous_ended_cleanly for life in lives] == [True, False, True, False]
        assert all(later.number == life.number + 1 for life, later in pairwise(lives))

    async def test_an_unclean_end_counts_for_open_runs_and_running_tasks(self, store: Store) -> None:
        await store.begin_incarnation()
        await record(store, created("run-1"), task_started("run-1", "a"), task_finished("run-1", "b"))
        await record(store, created("run-2"), finished("run-2"))
        await store.begin_incarnation()
        assert ((await get_run(store, "run-1")).recoveries, (await get_run(store, "run-2")).recoveries) == (1, 0)
        task = await get_task(store, "run-1", "a")
        assert (task.status, task.crashes, task.attempt) == (S.PENDING, 1, 1)
        assert (await get_task(store, "run-1", "b")).status is S.SUCCESS
        await record(store, task_started("run-1", "a", attempt=2))
        await store.begin_incarnation()
        assert (await get_run(store, "run-1")).recoveries == 2
        assert (await get_task(store, "run-1", "a")).crashes == 2
        await record(store, task_finished("run-1", "a", attempt=3, status=S.FAILED))
        assert (await get_task(store, "run-1", "a")).crashes == 2

    async def test_a_clean_end_counts_for_nothing(self, store: Store) -> None:
        await store.begin_incarnation()
        await record(store, created("run-1"), task_started("run-1", "a"))
        await store.end_incarnation()
        await store.begin_incarnation()
        assert (await get_run(store, "run-1")).recoveries == 0
        assert (await get_task(store, "run-1")).crashes == 0

    # --- opening and closing ----------------------------------------------------------------------------------------

    async def test_everything_is_there_after_a_restart(self, store: Store, database: MakeStore) -> None:
        if not self.durable:
            pytest.skip("this database ends with its store")
        await store.begin_incarnation()
        await record(store, created("run-1"), task_finished("run-1", "a"), attempt_failed("run-1", "b"))
        before = await everything(store, ["run-1"])
        await store.close()
        again = database()
        await again.open()
        try:
            assert await everything(again, ["run-1"]) == before
            assert (await again.begin_incarnation()).number == 2
        finally:
            await again.close()

    async def test_a_store_can_be_closed_twice(self, store: Store) -> None:
        await store.close()
        await store.close()

    async def test_a_store_that_is_not_open_says_so(self, database: MakeStore) -> None:
        store = database()
        with pytest.raises(NotRunning):
            await store.commit([[tenant()]])
        with pytest.raises(NotRunning):
            await store.list_tenants()
        await store.close()
