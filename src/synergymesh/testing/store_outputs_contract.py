"""What every store promises about what attempts print: a part of `StoreContract`."""

from __future__ import annotations

from synergymesh.domain.states import TenantStatus
from synergymesh.ports.changes import OutputCaptured, TenantStatusChanged
from synergymesh.ports.records import Committed, OutputRecord, Refused
from synergymesh.ports.store import Store
from synergymesh.testing.store_changes import ACME, BETA, created, record, workflow


def captured(run_id: str, component_id: str = "a", number: int = 1, tenant_id: str = ACME) -> OutputCaptured:
    """Make what an attempt printed."""
    return OutputCaptured(run_id, component_id, number, tenant_id, b"[]", 0)


class OutputsContract:
    """Test what is kept of outputs; the fixture `store` comes from `StoreContract`."""

    async def test_outputs_are_found_by_run_task_and_tenant_in_order(self, store: Store) -> None:
        await record(store, workflow(), created("run-1"), created("run-2", BETA))
        await record(store, captured("run-1", "b", 1), captured("run-1", "a", 2), captured("run-1", "a", 1))
        await record(store, captured("run-2", "a", 1, BETA))
        found = [(each.component_id, each.number) for each in await store.list_outputs("run-1", None, None)]
        assert found == [("a", 1), ("a", 2), ("b", 1)]
        assert [each.number for each in await store.list_outputs("run-1", "a", ACME)] == [1, 2]
        assert await store.list_outputs("run-1", None, BETA) == []
        assert await store.list_outputs("run-2", "a", BETA) == [OutputRecord("run-2", "a", 1, b"[]", 0)]

    async def test_an_output_is_recorded_once(self, store: Store) -> None:
        await record(store, workflow(), created("run-1"), captured("run-1"))
        await record(store, OutputCaptured("run-1", "a", 1, ACME, b'["again"]', 7))
        assert await store.list_outputs("run-1", None, None) == [OutputRecord("run-1", "a", 1, b"[]", 0)]

    async def test_an_output_of_another_tenants_run_is_refused_alone(self, store: Store) -> None:
        await record(store, workflow(), created("run-1"))
        answers = await store.commit([[captured("run-1", tenant_id=BETA)], [captured("nothing")], [captured("run-1")]])
        assert [type(answer) for answer in answers] == [Refused, Refused, Committed]

    async def test_outputs_of_a_deleted_tenant_are_not_found_and_purged(self, store: Store) -> None:
        await record(store, workflow(), created("run-1"), *(captured("run-1", number=n) for n in range(1, 9)))
        await record(store, TenantStatusChanged(ACME, TenantStatus.DELETED, 3_000))
        assert await store.list_outputs("run-1", None, None) == []
        while await store.purge_deleted(3):
            pass
        assert ACME not in [found.tenant_id for found in await store.list_tenants()]
