"""What every store promises about the counts of tenants' work: a part of `StoreContract`."""

from __future__ import annotations

from synergymesh.domain.states import TenantStatus
from synergymesh.ports.changes import StatisticCounted, TenantStatusChanged
from synergymesh.ports.records import Committed, Refused, StatisticRecord
from synergymesh.ports.store import Store
from synergymesh.testing.store_changes import ACME, BETA, record


class StatisticsContract:
    """Test what is counted; the fixture `store` comes from `StoreContract`."""

    async def test_a_later_count_of_an_hour_replaces_the_earlier_one(self, store: Store) -> None:
        await record(store, StatisticCounted(ACME, 7, "duration", 3, 1, 10), StatisticCounted(ACME, 7, "wait", 3, 5, 6))
        await record(store, StatisticCounted(ACME, 7, "duration", 3, 2, 30))
        assert await store.list_statistics(ACME, since_hour=7) == [
            StatisticRecord(ACME, 7, "duration", 3, 2, 30),
            StatisticRecord(ACME, 7, "wait", 3, 5, 6),
        ]

    async def test_counts_are_found_from_an_hour_on_and_by_tenant(self, store: Store) -> None:
        for hour in (6, 7, 8):
            await record(store, StatisticCounted(ACME, hour, "retried", 0, hour, 0))
        await record(store, StatisticCounted(BETA, 8, "retried", 0, 1, 0))
        assert [found.hour for found in await store.list_statistics(ACME, since_hour=7)] == [7, 8]
        assert [found.tenant_id for found in await store.list_statistics(None, since_hour=8)] == [ACME, BETA]

    async def test_a_count_for_a_tenant_that_is_not_there_is_refused_alone(self, store: Store) -> None:
        answers = await store.commit(
            [[StatisticCounted("nobody", 7, "retried", 0, 1, 0)], [StatisticCounted(ACME, 7, "retried", 0, 1, 0)]]
        )
        assert [type(answer) for answer in answers] == [Refused, Committed]

    async def test_sums_go_over_all_hours_and_keep_the_last_moment(self, store: Store) -> None:
        for hour in (6, 7):
            await record(
                store,
                StatisticCounted(ACME, hour, "duration", 3, 2, 10 * hour),
                StatisticCounted(ACME, hour, "last_end", 0, 1, 1_000 - hour),
            )
        expected = [
            StatisticRecord(ACME, 0, "duration", 3, 4, 130),
            StatisticRecord(ACME, 0, "last_end", 0, 2, 994),
        ]
        assert await store.sum_statistics() == expected

    async def test_adding_up_old_hours_changes_no_sum(self, store: Store) -> None:
        for hour in range(1, 6):
            await record(
                store,
                StatisticCounted(ACME, hour, "duration", hour % 2, hour, 100),
                StatisticCounted(BETA, hour, "last_end", 0, 1, hour * 7),
            )
        before = await store.sum_statistics()
        assert [await store.add_up_statistics(4, 4) for _ in range(3)] == [4, 2, 0]
        assert await store.sum_statistics() == before
        assert {found.hour for found in await store.list_statistics(None, since_hour=0)} == {0, 4, 5}
        assert await store.add_up_statistics(10, 100) == 4
        assert await store.sum_statistics() == before
        assert {found.hour for found in await store.list_statistics(None, since_hour=0)} == {0}

    async def test_counts_of_a_deleted_tenant_are_not_found_and_purged(self, store: Store) -> None:
        await record(store, *(StatisticCounted(ACME, hour, "retried", 0, 1, 0) for hour in range(10)))
        await record(store, TenantStatusChanged(ACME, TenantStatus.DELETED, 3_000))
        assert await store.list_statistics(None, since_hour=0) == []
        assert await store.sum_statistics() == []
        while await store.purge_deleted(3):
            pass
        assert ACME not in [found.tenant_id for found in await store.list_tenants()]
