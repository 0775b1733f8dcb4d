"""What every store promises about `commit`: a part of `StoreContract`."""

from __future__ import annotations

import pytest

from synergymesh.domain.states import FINAL, RUN_TRANSITIONS, ExecutionStatus, TenantStatus
from synergymesh.ports.changes import (
    CancelRequested,
    Change,
    EstimateLearnt,
    HourReserved,
    RunStarted,
    TenantStatusChanged,
    Unit,
)
from synergymesh.ports.records import Committed, Refused
from synergymesh.ports.store import Store
from synergymesh.testing.store_changes import (
    ACME,
    BETA,
    S,
    attempt_failed,
    created,
    everything,
    finished,
    get_run,
    get_task,
    plan_changed,
    record,
    task_finished,
    task_started,
    tenant,
)


class CommitContract:
    """Test what `commit` records, refuses and repeats; the fixture `store` comes from `StoreContract`."""

    # --- commit -----------------------------------------------------------------------------------------------------

    async def test_an_empty_batch_has_no_answers(self, store: Store) -> None:
        assert await store.commit([]) == []

    async def test_an_empty_unit_is_accepted(self, store: Store) -> None:
        assert await store.commit([[], [created("run-1")]]) == [Committed(), Committed()]

    async def test_every_unit_of_a_batch_has_its_answer_in_its_place(self, store: Store) -> None:
        answers = await store.commit([[created("run-1")], [created("run-2", "tenant-nobody")], [created("run-3")]])
        assert answers[0] == answers[2] == Committed()
        assert isinstance(answers[1], Refused)
        assert [run.run_id for run in await store.list_runs(tenant_id=None)] == ["run-3", "run-1"]

    @pytest.mark.parametrize(
        ("bad", "named"),
        [
            (created("run-2", "tenant-nobody"), "tenant-nobody"),
            (created("run-2", content_hash="f" * 64), "f" * 64),
            (task_finished("run-nothing", "a"), "run-nothing"),
            (task_started("run-nothing", "a"), "run-nothing"),
            (attempt_failed("run-nothing", "a"), "run-nothing"),
            (finished("run-nothing"), "run-nothing"),
            (RunStarted("run-nothing", ACME, 2_000), "run-nothing"),
            (CancelRequested("run-nothing", ACME, 2_000), "run-nothing"),
            (TenantStatusChanged("tenant-nobody", TenantStatus.SUSPENDED, 2_000), "tenant-nobody"),
            (plan_changed("tenant-nobody"), "tenant-nobody"),
            (tenant("tenant-child", parent_id="tenant-nobody"), "tenant-nobody"),
            (HourReserved("tenant-nobody", 1, 1), "tenant-nobody"),
            (EstimateLearnt("tenant-nobody", "checkout", "a", 1), "tenant-nobody"),
        ],
        ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
    )
    async def test_a_change_of_something_unknown_is_refused_by_name(
        self, store: Store, bad: Change, named: str
    ) -> None:
        (answer,) = await store.commit([[bad]])
        assert isinstance(answer, Refused)
        assert named in answer.reason

    @pytest.mark.parametrize(
        "change",
        [
            task_finished("run-1", "a", BETA),
            task_finished("run-1", "new", BETA),
            task_started("run-1", "a", BETA, attempt=9),
            attempt_failed("run-1", "a", BETA),
            finished("run-1", BETA),
            RunStarted("run-1", BETA, 2_000),
            CancelRequested("run-1", BETA, 2_000),
            created("run-1", BETA),
        ],
        ids=lambda change: type(change).__name__,
    )
    async def test_a_change_of_another_tenants_run_is_refused(self, store: Store, change: Change) -> None:
        await record(store, created("run-1"), task_started("run-1", "a"))
        before = await everything(store, ["run-1"])
        (answer,) = await store.commit([[change]])
        assert isinstance(answer, Refused)
        assert await everything(store, ["run-1"]) == before

    @pytest.mark.parametrize(
        "bad",
        [
            finished("run-1", status=S.SKIPPED),
            task_finished("run-1", "a", status=S.PARTIAL),
            attempt_failed("run-1", "a", status=S.SUCCESS),
            created("run-1", priority=2**80),
            HourReserved(ACME, 1, -1),
            HourReserved(ACME, 2**70, 1),
            EstimateLearnt(ACME, "checkout", "a", -1),
        ],
        ids=lambda change: type(change).__name__,
    )
    async def test_a_value_outside_its_range_is_refused(self, store: Store, bad: Change) -> None:
        answers = await store.commit([[created("run-1")], [created("run-2")], [bad]])
        assert answers[:2] == [Committed(), Committed()]
        assert isinstance(answers[2], Refused)
        assert answers[2].reason

    async def test_a_unit_is_recorded_wholly_or_not_at_all(self, store: Store) -> None:
        unit: list[Change] = [created("run-1"), task_finished("run-1", "a"), task_finished("run-nothing", "a")]
        (answer,) = await store.commit([unit])
        assert isinstance(answer, Refused)
        assert await store.get_run("run-1", ACME) is None
        assert await store.list_tasks(["run-1"]) == []

    async def test_many_bad_units_among_many_good_ones_are_refused_alone(self, store: Store) -> None:
        units = [[created(f"run-{n:04}", ACME if n % 7 else "tenant-nobody")] for n in range(300)]
        answers = await store.commit(units)
        assert [isinstance(answer, Refused) for answer in answers] == [n % 7 == 0 for n in range(300)]
        assert await store.count_runs(tenant_id=None) == sum(n % 7 != 0 for n in range(300))

    @pytest.mark.parametrize("size", [1, 2, 5, 63, 520, 1_024, 1_025, 2_600])
    async def test_a_batch_of_any_size_is_recorded_completely(self, store: Store, size: int) -> None:
        names = [f"run-{n:05}" for n in range(size)]
        assert await store.commit([[created(name)] for name in names]) == [Committed()] * size
        ends: list[Unit] = [[task_finished(name, "a", result=name.encode()), finished(name)] for name in names]
        assert await store.commit(ends) == [Committed()] * size
        assert await store.count_runs(tenant_id=ACME, statuses=[S.SUCCESS]) == size
        tasks = await store.list_tasks(names)
        assert [(task.run_id, task.result) for task in tasks] == [(name, name.encode()) for name in names]

    async def test_a_whole_run_can_be_one_unit(self, store: Store) -> None:
        await record(
            store,
            created("run-1"),
            RunStarted("run-1", ACME, 2_050),
            task_started("run-1", "a"),
            attempt_failed("run-1", "a"),
            task_finished("run-1", "a", attempt=2),
            finished("run-1", started_at=None),
        )
        run = await get_run(store, "run-1")
        assert (run.status, run.started_at, run.ended_at) == (S.SUCCESS, 2_050, 2_900)
        assert (await get_task(store, "run-1")).attempt == 2
        assert len(await store.list_attempts(["run-1"])) == 1

    async def test_applying_units_again_has_no_further_effect(self, store: Store) -> None:
        units: list[list[Change]] = [
            [created("run-1", idempotency_key="k"), RunStarted("run-1", ACME, 2_050)],
            [task_started("run-1", "a"), task_started("run-1", "b")],
            [attempt_failed("run-1", "a")],
            [task_finished("run-1", "b"), CancelRequested("run-1", ACME, 2_400)],
            [task_finished("run-1", "a", status=S.CANCELLED), finished("run-1", status=S.CANCELLED)],
            [created("run-2"), task_started("run-2", "a"), attempt_failed("run-2", "a")],
        ]
        for unit in units:
            await record(store, *unit)
        before = await everything(store, ["run-1", "run-2"])
        for unit in units:
            await record(store, *unit)
        assert await store.commit(units) == [Committed()] * len(units)
        assert await everything(store, ["run-1", "run-2"]) == before

    async def test_changes_take_effect_in_their_order_within_a_batch(self, store: Store) -> None:
        await record(store, created("run-1"), created("run-2"), created("run-3"))
        answers = await store.commit(
            [
                [finished("run-1")],
                [CancelRequested("run-1", ACME, 3_000)],
                [CancelRequested("run-2", ACME, 3_000)],
                [finished("run-2", status=S.CANCELLED)],
                [finished("run-3", started_at=None)],
                [RunStarted("run-3", ACME, 3_000)],
            ]
        )
        assert answers == [Committed()] * 6
        assert (await get_run(store, "run-1")).cancel_requested_at is None
        assert (await get_run(store, "run-2")).cancel_requested_at == 3_000
        assert (await get_run(store, "run-3")).started_at is None

    # --- idempotency keys -------------------------------------------------------------------------------------------

    async def test_a_key_that_was_used_answers_with_the_earlier_run(self, store: Store) -> None:
        await record(store, created("run-1", idempotency_key="order-42", input=b'{"order": 42}'))
        (answer,) = await store.commit([[created("run-2", idempotency_key="order-42"), task_finished("run-2", "a")]])
        assert answer == Committed(existing=await get_run(store, "run-1"))
        assert await store.get_run("run-2", ACME) is None
        assert await store.list_tasks(["run-2"]) == []

    async def test_a_key_used_twice_in_a_batch_makes_one_run(self, store: Store) -> None:
        units = [[created(f"run-{n}", idempotency_key="k")] for n in range(1, 4)]
        answers = await store.commit(units)
        first = await get_run(store, "run-1")
        assert answers == [Committed(), Committed(existing=first), Committed(existing=first)]
        assert await store.count_runs(tenant_id=ACME) == 1

    async def test_two_runs_of_a_unit_cannot_have_the_same_key(self, store: Store) -> None:
        (answer,) = await store.commit([[created("run-1", idempotency_key="k"), created("run-2", idempotency_key="k")]])
        assert isinstance(answer, Refused)
        assert await store.count_runs(tenant_id=ACME) == 0

    async def test_a_key_of_a_unit_that_is_not_recorded_is_free(self, store: Store) -> None:
        await record(store, created("run-1", idempotency_key="k"))
        units = [
            [created("run-2", idempotency_key="k"), created("run-3", idempotency_key="other")],
            [created("run-4", idempotency_key="other")],
        ]
        answers = await store.commit(units)
        assert answers == [Committed(existing=await get_run(store, "run-1")), Committed()]
        assert (await get_run(store, "run-4")).idempotency_key == "other"

    async def test_a_key_of_a_refused_run_is_free(self, store: Store) -> None:
        answers = await store.commit(
            [
                [created("run-1", idempotency_key="k", content_hash="unknown")],
                [created("run-2", idempotency_key="k")],
            ]
        )
        assert isinstance(answers[0], Refused)
        assert answers[1] == Committed()
        assert (await get_run(store, "run-2")).idempotency_key == "k"

    async def test_tenants_do_not_share_keys(self, store: Store) -> None:
        units = [[created("run-1", ACME, idempotency_key="k")], [created("run-2", BETA, idempotency_key="k")]]
        assert await store.commit(units) == [Committed(), Committed()]

    @pytest.mark.parametrize("key", ["", "a'b\"c", "ключ 🗝", "x" * 200])
    async def test_a_key_is_any_text(self, store: Store, key: str) -> None:
        await record(store, created("run-1", idempotency_key=key))
        (answer,) = await store.commit([[created("run-2", idempotency_key=key)]])
        assert isinstance(answer, Committed)
        assert answer.existing is not None
        assert (answer.existing.run_id, answer.existing.idempotency_key) == ("run-1", key)

    # --- finality ---------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("status", sorted(FINAL & RUN_TRANSITIONS.keys()))
    async def test_a_final_run_never_changes(self, store: Store, status: ExecutionStatus) -> None:
        await record(store, created("run-1"), finished("run-1", status=status, result=b'"first"'))
        before = await get_run(store, "run-1")
        await record(store, finished("run-1", status=S.SUCCESS, result=b'"second"', ended_at=9_999))
        await record(store, RunStarted("run-1", ACME, 9_999))
        await record(store, CancelRequested("run-1", ACME, 9_999))
        assert await get_run(store, "run-1") == before

    @pytest.mark.parametrize("together", [True, False])
    async def test_of_two_ends_of_a_run_the_first_counts(self, store: Store, together: bool) -> None:
        units = [[finished("run-1", status=S.FAILED)], [finished("run-1", status=S.SUCCESS)]]
        await record(store, created("run-1"))
        for batch in [units] if together else [units[:1], units[1:]]:
            assert await store.commit(batch) == [Committed()] * len(batch)
        assert (await get_run(store, "run-1")).status is S.FAILED

    @pytest.mark.parametrize("together", [True, False])
    async def test_of_two_verdicts_on_a_task_the_first_counts(self, store: Store, together: bool) -> None:
        await record(store, created("run-1"))
        units: list[list[Change]] = [
            [task_finished("run-1", "a", status=S.FAILED, result=None, error=b"{}")],
            [task_finished("run-1", "a", attempt=2)],
            [task_started("run-1", "a", attempt=3)],
            [attempt_failed("run-1", "a", number=3)],
        ]
        for batch in [units] if together else [[unit] for unit in units]:
            assert await store.commit(batch) == [Committed()] * len(batch)
        task = await get_task(store, "run-1")
        assert (task.status, task.attempt, task.result, task.error) == (S.FAILED, 1, None, b"{}")
