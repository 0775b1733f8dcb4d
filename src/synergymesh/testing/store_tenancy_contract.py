"""What every store promises about sub-tenants, plans, reserved starts and estimates: a part of `StoreContract`."""

from __future__ import annotations

import pytest

from synergymesh.domain.states import TenantStatus
from synergymesh.ports.changes import Change, EstimateLearnt, HourReserved, TenantStatusChanged, Unit
from synergymesh.ports.records import Committed, EstimateRecord, Refused, ReservationRecord, TenantRecord
from synergymesh.ports.store import Store
from synergymesh.testing.store_changes import ACME, BETA, created, everything, plan_changed, record, tenant

CHILD = "tenant-child"


def deleted(tenant_id: str) -> TenantStatusChanged:
    """Make the deletion of a tenant."""
    return TenantStatusChanged(tenant_id, TenantStatus.DELETED, 3_000)


async def get_tenant(store: Store, tenant_id: str) -> TenantRecord:
    """Give a tenant that must be there."""
    (found,) = [found for found in await store.list_tenants() if found.tenant_id == tenant_id]
    return found


class TenancyContract:
    """Test what is kept of tenants; the fixture `store` comes from `StoreContract`."""

    # --- sub-tenants ------------------------------------------------------------------------------------------------

    async def test_a_tenant_has_no_parent_and_an_empty_policy_unless_it_says_so(self, store: Store) -> None:
        found = await get_tenant(store, ACME)
        assert (found.parent_id, found.policy) == (None, b"{}")

    async def test_a_sub_tenant_keeps_its_parent_and_its_policy(self, store: Store) -> None:
        await record(store, tenant(CHILD, parent_id=ACME, policy=b'{ "weight": 3 }', quota=b"[1]"))
        found = await get_tenant(store, CHILD)
        assert (found.parent_id, found.policy, found.quota) == (ACME, b'{ "weight": 3 }', b"[1]")

    @pytest.mark.parametrize("together", [True, False])
    async def test_a_parent_must_be_there_before_its_child(self, store: Store, together: bool) -> None:
        units: list[Unit] = [
            [tenant("child-1", parent_id="parent")],
            [tenant("parent"), tenant("child-2", parent_id="parent")],
            [tenant("child-3", parent_id="child-2")],
            [tenant("itself", parent_id="itself")],
        ]
        answers = []
        for batch in [units] if together else [[unit] for unit in units]:
            answers += await store.commit(batch)
        assert [type(answer) for answer in answers] == [Refused, Committed, Committed, Refused]
        assert "'parent'" in getattr(answers[0], "reason", "")
        names = {found.tenant_id for found in await store.list_tenants()}
        assert names == {ACME, BETA, "parent", "child-2", "child-3"}

    async def test_a_deleted_parent_is_refused(self, store: Store) -> None:
        answers = await store.commit([[deleted(ACME)], [tenant(CHILD, parent_id=ACME)], [tenant(ACME)]])
        assert answers == [Committed(), Refused(f"the tenant {ACME!r} is deleted"), Committed()]
        assert [found.tenant_id for found in await store.list_tenants()] == [BETA]

    async def test_a_suspended_parent_can_have_children(self, store: Store) -> None:
        await record(store, TenantStatusChanged(ACME, TenantStatus.SUSPENDED, 3_000), tenant(CHILD, parent_id=ACME))
        assert (await get_tenant(store, CHILD)).parent_id == ACME

    @pytest.mark.parametrize("status", [TenantStatus.ACTIVE, TenantStatus.SUSPENDED])
    async def test_a_parent_cannot_be_deleted_before_its_children(self, store: Store, status: TenantStatus) -> None:
        await record(store, tenant(CHILD, parent_id=ACME), TenantStatusChanged(CHILD, status, 2_000))
        answers = await store.commit([[deleted(ACME)], [created("run-1")], [deleted(CHILD)], [deleted(ACME)]])
        assert [type(answer) for answer in answers] == [Refused, Committed, Committed, Committed]
        assert CHILD in getattr(answers[0], "reason", "")
        assert [found.tenant_id for found in await store.list_tenants()] == [BETA]

    async def test_recording_a_sub_tenant_again_changes_nothing(self, store: Store) -> None:
        child = tenant(CHILD, parent_id=ACME)
        await record(store, child)
        await record(store, child, tenant(CHILD, parent_id=BETA, policy=b"[]"))
        assert (await get_tenant(store, CHILD)).parent_id == ACME
        await record(store, deleted(CHILD), deleted(ACME))
        assert await store.commit([[child]]) == [Committed()]
        assert [found.tenant_id for found in await store.list_tenants()] == [BETA]

    @pytest.mark.parametrize("together", [True, False])
    async def test_no_two_tenants_have_the_same_idempotency_key(self, store: Store, together: bool) -> None:
        first = tenant("first", idempotency_key="k", request_hash="h")
        units: list[Unit] = [
            [first],
            [tenant("second", idempotency_key="k")],
            [first],
            [tenant("third", idempotency_key="other")],
            [tenant("fourth")],
        ]
        answers = []
        for batch in [units] if together else [[unit] for unit in units]:
            answers += await store.commit(batch)
        assert [type(answer) for answer in answers] == [Committed, Refused, Committed, Committed, Committed]
        names = {found.tenant_id for found in await store.list_tenants()}
        assert names == {ACME, BETA, "first", "third", "fourth"}
        found = await get_tenant(store, "first")
        assert (found.idempotency_key, found.request_hash) == ("k", "h")

    async def test_the_key_of_a_deleted_tenant_is_free_again(self, store: Store) -> None:
        await record(
            store, tenant("first", idempotency_key="k"), deleted("first"), tenant("second", idempotency_key="k")
        )
        assert (await get_tenant(store, "second")).idempotency_key == "k"

    async def test_deleted_families_are_purged_one_by_one(self, store: Store) -> None:
        await record(store, tenant("b-parent"), tenant("c-child", parent_id="b-parent"))
        await record(store, tenant("a-grandchild", parent_id="c-child"), tenant("d-child", parent_id="b-parent"))
        await record(store, *(deleted(name) for name in ("a-grandchild", "d-child", "c-child", "b-parent")))
        assert [await store.purge_deleted(1) for _ in range(5)] == [1, 1, 1, 1, 0]

    # --- plans ------------------------------------------------------------------------------------------------------

    async def test_a_new_plan_replaces_tier_quota_and_policy(self, store: Store) -> None:
        await record(store, tenant(CHILD, parent_id=ACME, tenant_name="Child"))
        await record(store, TenantStatusChanged(CHILD, TenantStatus.SUSPENDED, 2_000), plan_changed(CHILD))
        assert await get_tenant(store, CHILD) == TenantRecord(
            CHILD, "Child", "enterprise", b"[1]", TenantStatus.SUSPENDED, 1_000, ACME, b"[2]"
        )
        assert (await get_tenant(store, ACME)).tier == "basic"

    async def test_the_plan_of_a_tenant_of_the_same_batch_can_change(self, store: Store) -> None:
        units: list[Unit] = [
            [tenant(CHILD)],
            [plan_changed(CHILD)],
            [plan_changed(CHILD, tier="professional")],
            [tenant(CHILD)],
        ]
        assert await store.commit(units) == [Committed()] * 4
        assert (await get_tenant(store, CHILD)).tier == "professional"

    async def test_the_plan_of_a_deleted_tenant_cannot_change(self, store: Store) -> None:
        units: list[Unit] = [[plan_changed(ACME)], [deleted(ACME)], [plan_changed(ACME)]]
        answers = await store.commit(units)
        assert answers == [Committed(), Committed(), Refused(f"the tenant {ACME!r} is deleted")]

    # --- reserved starts --------------------------------------------------------------------------------------------

    async def test_reservations_are_listed_from_a_minute_on(self, store: Store) -> None:
        rows = [(BETA, 7, 3), (ACME, 29_000_000, 4), (ACME, 6, 2), (ACME, 7, 0), (BETA, 5, 1)]
        await record(store, *(HourReserved(*row) for row in rows))
        assert await store.list_reservations(0) == [ReservationRecord(*row) for row in sorted(rows)]
        assert await store.list_reservations(7) == [ReservationRecord(*row) for row in sorted(rows) if row[1] >= 7]
        assert await store.list_reservations(29_000_001) == []

    @pytest.mark.parametrize("together", [True, False])
    async def test_of_two_reservations_of_a_minute_the_last_counts(self, store: Store, together: bool) -> None:
        units = [[HourReserved(ACME, 7, 5)], [HourReserved(ACME, 7, 50)], [HourReserved(ACME, 7, 20)]]
        for batch in [units] if together else [[unit] for unit in units]:
            assert await store.commit(batch) == [Committed()] * len(batch)
        assert await store.list_reservations(0) == [ReservationRecord(ACME, 7, 20)]

    async def test_old_reservations_are_pruned_in_small_steps(self, store: Store) -> None:
        await record(store, *(HourReserved(name, minute, 1) for name in (ACME, BETA) for minute in range(20)))
        steps = []
        while pruned := await store.prune_reservations(15, 7):
            steps.append(pruned)
        assert max(steps) <= 7
        assert sum(steps) == 30
        assert {row.minute for row in await store.list_reservations(0)} == set(range(15, 20))
        assert await store.prune_reservations(100, 0) == 0

    # --- estimates --------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("together", [True, False])
    async def test_the_latest_estimate_counts(self, store: Store, together: bool) -> None:
        units: list[Unit] = [
            [EstimateLearnt(ACME, "checkout", "pay", 2**62), EstimateLearnt(ACME, "checkout", "a", 1)],
            [EstimateLearnt(ACME, "checkout", "pay", 0), EstimateLearnt(ACME, "backup", "pay", 7)],
            [EstimateLearnt(BETA, "checkout", "pay", 9), EstimateLearnt(ACME, "checkout", "a", 3)],
        ]
        for batch in [units] if together else [[unit] for unit in units]:
            assert await store.commit(batch) == [Committed()] * len(batch)
        assert await store.list_estimates() == [
            EstimateRecord(ACME, "backup", "pay", 7),
            EstimateRecord(ACME, "checkout", "a", 3),
            EstimateRecord(ACME, "checkout", "pay", 0),
            EstimateRecord(BETA, "checkout", "pay", 9),
        ]

    async def test_thousands_of_estimates_are_recorded_at_once(self, store: Store) -> None:
        for turn in (1, 2):
            learnt: list[Change] = [EstimateLearnt(ACME, "checkout", f"c{n:05}", n * turn) for n in range(5_000)]
            await record(store, *learnt)
        assert [found.microseconds for found in await store.list_estimates()] == [n * 2 for n in range(5_000)]

    @pytest.mark.parametrize("change", [HourReserved("new", 7, 1), EstimateLearnt("new", "checkout", "a", 1)])
    async def test_what_comes_before_its_tenant_is_refused_in_the_same_batch_too(
        self, store: Store, change: Change
    ) -> None:
        answers = await store.commit([[change], [tenant("new")], [change]])
        assert [type(answer) for answer in answers] == [Refused, Committed, Committed]

    # --- both -------------------------------------------------------------------------------------------------------

    async def test_a_bad_value_among_good_ones_is_refused_alone(self, store: Store) -> None:
        answers = await store.commit(
            [
                [HourReserved(ACME, 7, 1), EstimateLearnt(ACME, "checkout", "a", 1)],
                [HourReserved(ACME, 7, -1), EstimateLearnt(ACME, "checkout", "a", 2)],
                [HourReserved(ACME, 8, 1), EstimateLearnt(ACME, "checkout", "b", -1)],
                [EstimateLearnt(BETA, "checkout", "b", 3)],
            ]
        )
        assert [type(answer) for answer in answers] == [Committed, Refused, Refused, Committed]
        assert await store.list_reservations(0) == [ReservationRecord(ACME, 7, 1)]
        assert [found.microseconds for found in await store.list_estimates()] == [1, 3]

    async def test_applying_changes_of_tenants_again_has_no_further_effect(self, store: Store) -> None:
        units: list[Unit] = [
            [tenant(CHILD, parent_id=ACME), plan_changed(CHILD)],
            [HourReserved(CHILD, 7, 5), EstimateLearnt(CHILD, "checkout", "a", 5)],
            [HourReserved(CHILD, 7, 6), EstimateLearnt(CHILD, "checkout", "a", 6)],
        ]
        for _ in range(2):
            assert await store.commit(units) == [Committed()] * 3
            before = await everything(store, [])
            assert await store.commit(units[1:]) == [Committed()] * 2
            assert await everything(store, []) == before

    async def test_what_a_deleted_tenant_learnt_and_reserved_is_not_found_and_purged(self, store: Store) -> None:
        await record(store, tenant(CHILD, parent_id=ACME))
        for tenant_id in (ACME, CHILD, BETA):
            await record(store, *(HourReserved(tenant_id, minute, 1) for minute in range(10)))
            await record(store, *(EstimateLearnt(tenant_id, "checkout", f"c{n}", n) for n in range(10)))
        await record(store, deleted(CHILD), deleted(ACME))
        # Somebody may not have heard of the deletion yet.
        await record(store, HourReserved(CHILD, 10, 1), EstimateLearnt(ACME, "checkout", "late", 1))
        for _ in range(2):
            assert {row.tenant_id for row in await store.list_reservations(0)} == {BETA}
            assert {row.tenant_id for row in await store.list_estimates()} == {BETA}
            steps = []
            while purged := await store.purge_deleted(7):
                steps.append(purged)
            assert max(steps, default=0) <= 7
            assert sum(steps) in (0, 2 * 20 + 2 + 2)
        await record(store, tenant(CHILD), tenant(ACME))
        assert {row.tenant_id for row in await store.list_reservations(0)} == {BETA}
        assert {row.tenant_id for row in await store.list_estimates()} == {BETA}
        assert (await get_tenant(store, CHILD)).parent_id is None
