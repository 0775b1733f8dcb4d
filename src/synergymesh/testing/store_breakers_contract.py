"""What every store promises about the states of circuit breakers: a part of `StoreContract`."""

from __future__ import annotations

from typing import Any

import pytest

from synergymesh.domain.fault_tolerance.breaker import BreakerState
from synergymesh.domain.states import TenantStatus
from synergymesh.ports.changes import BreakerChanged, TenantStatusChanged, Unit
from synergymesh.ports.records import BreakerRecord, Committed, Refused
from synergymesh.ports.store import Store
from synergymesh.testing.store_changes import ACME, BETA, record, tenant


def breaker_changed(tenant_id: str = ACME, **fields: Any) -> BreakerChanged:
    """Make a change of a circuit."""
    made: dict[str, Any] = {
        "workflow": "checkout",
        "name": "pay",
        "state": BreakerState.OPEN,
        "since": 2_000,
        "until": 3_000,
        "trips": 1,
        "wave": 0,
        "calls": 20,
        "failures": 15,
        "changed_at": 2_000,
    }
    return BreakerChanged(tenant_id, **(made | fields))


def stored(change: BreakerChanged) -> BreakerRecord:
    """Give what is read back of a change."""
    return BreakerRecord(*(getattr(change, name) for name in BreakerRecord.__struct_fields__))


class BreakersContract:
    """Test what is kept of circuits; the fixture `store` comes from `StoreContract`."""

    async def test_circuits_come_back_as_they_are_ordered_and_by_tenant(self, store: Store) -> None:
        changes = [
            breaker_changed(BETA),
            breaker_changed(name="pay"),
            breaker_changed(name="ask", state=BreakerState.HALF_OPEN, since=2**62, until=0, trips=7, wave=64),
            breaker_changed(workflow="", name="payments-api", state=BreakerState.CLOSED),
        ]
        await record(store, *changes)
        expected = [stored(change) for change in (changes[3], changes[2], changes[1], changes[0])]
        assert await store.list_breakers(None) == expected
        assert await store.list_breakers(ACME) == expected[:3]
        assert all(type(found.state) is BreakerState for found in await store.list_breakers(None))
        assert await store.list_breakers("tenant-nobody") == []

    @pytest.mark.parametrize("together", [True, False])
    async def test_the_latest_change_of_a_circuit_stays(self, store: Store, together: bool) -> None:
        last = breaker_changed(state=BreakerState.CLOSED, changed_at=2_002)
        half = breaker_changed(state=BreakerState.HALF_OPEN, changed_at=2_001)
        units: list[Unit] = [[breaker_changed()], [last], [half], [last], [breaker_changed()]]
        for batch in [units] if together else [[unit] for unit in units]:
            assert await store.commit(batch) == [Committed()] * len(batch)
        assert await store.list_breakers(None) == [stored(last)]

    async def test_a_circuit_of_a_tenant_that_is_not_there_is_refused_alone(self, store: Store) -> None:
        answers = await store.commit([[breaker_changed("tenant-nobody")], [breaker_changed()]])
        assert [type(answer) for answer in answers] == [Refused, Committed]
        assert "tenant-nobody" in getattr(answers[0], "reason", "")

    async def test_a_circuit_of_a_tenant_of_the_same_unit_is_recorded(self, store: Store) -> None:
        assert await store.commit([[tenant("tenant-new"), breaker_changed("tenant-new")]]) == [Committed()]

    async def test_the_circuits_of_a_deleted_tenant_are_not_found_and_purged(self, store: Store) -> None:
        await record(store, *(breaker_changed(name=f"c{n}") for n in range(10)), breaker_changed(BETA))
        await record(store, TenantStatusChanged(ACME, TenantStatus.DELETED, 3_000))
        assert [found.tenant_id for found in await store.list_breakers(None)] == [BETA]
        assert await store.list_breakers(ACME) == []
        while await store.purge_deleted(3):
            pass
        await record(store, tenant(ACME))
        assert [found.tenant_id for found in await store.list_breakers(None)] == [BETA]
