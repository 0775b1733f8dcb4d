"""What is wrong is seen: in the health of tenants, in alerts, and in the metrics."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from synergymesh import Orchestrator, ResourceQuota, RetryPolicy, Workflow
from synergymesh.domain.fault_tolerance.breaker import BreakerPolicy
from synergymesh.domain.observability.health import Health
from synergymesh.engine.direct_calls import DirectCall
from synergymesh.errors import BacklogFull, RateLimitExceeded, StoreCorrupt, StoreError, StoreUnavailable
from synergymesh.ports.changes import Unit
from synergymesh.settings import read_settings
from synergymesh.testing.shifted_clock import ShiftedClock

OpenMesh = Callable[..., Orchestrator]


async def good() -> int:
    return 1


async def bad() -> None:
    raise ConnectionError("down")


NEVER = RetryPolicy(max_retries=0)


async def samples(mesh: Orchestrator) -> dict[tuple[str, ...], float]:
    """Give the metrics by name and values of the labels, that of the tenant first."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items(), key=_tenant_first))): sample.value
        for family in text_string_to_metric_families(await mesh.metrics_text())
        for sample in family.samples
    }


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - nothing tells of it, so it is looked for
            await asyncio.sleep(0.005)


def _tenant_first(label: tuple[str, str]) -> tuple[bool, str]:
    return label[0] != "tenant", label[0]


async def kinds(mesh: Orchestrator) -> list[str]:
    await mesh._running.alerts.look()
    return sorted(alert.kind for alert in await mesh.alerts())


async def call(mesh: Orchestrator, tenant_id: str, function: Callable[[], Any], times: int) -> None:
    for _ in range(times):
        with suppress(Exception):
            await mesh.call([DirectCall(component_id="c", function=function, retry=NEVER)], tenant=tenant_id)


# --- circuit breakers -------------------------------------------------------------------------------------------------


async def test_an_open_breaker_degrades_its_tenant_and_is_in_the_metrics() -> None:
    async with Orchestrator(":memory:") as mesh:
        acme, beta = [(await mesh.create_tenant(name, "enterprise")).tenant_id for name in ("Acme", "Beta")]
        await mesh.set_breaker_policy(
            acme, BreakerPolicy(minimum_calls=1, failure_percent=5), workflow="w", component="a"
        )
        await call(mesh, acme, good, 300)  # so that one failure is within what the tier promises
        flow = Workflow("w").add(bad, id="a", retry=RetryPolicy(max_retries=1, initial_delay=0.001))
        await mesh.submit(flow, tenant=acme)
        await until(lambda: mesh._running.monitoring.open_breakers().get(acme) == 1)
        health = await mesh.get_tenant_health(acme)
        assert health.health is Health.DEGRADED
        assert health.reasons == ("1 of its circuit breakers are open",)
        assert (await mesh.get_tenant_health(beta)).reasons == ()
        assert await kinds(mesh) == ["tenant_degraded"]
        found = await samples(mesh)
        assert found["synergymesh_breakers", acme, "open"] == 1
        assert found["synergymesh_breakers", acme, "half_open"] == 0
        assert found["synergymesh_breakers", beta, "open"] == 0


# --- waits ------------------------------------------------------------------------------------------------------------


async def test_a_tenant_whose_tasks_only_wait_is_not_healthy() -> None:
    clock, gate = ShiftedClock(), asyncio.Event()
    async with Orchestrator(":memory:", max_concurrent_tasks=1, clock=clock) as mesh:
        hog, starved = [(await mesh.create_tenant(name, "enterprise")).tenant_id for name in ("Hog", "Starved")]
        await mesh.submit(Workflow("w").add(gate.wait, id="a"), tenant=hog)
        await mesh.submit(Workflow("w").add(gate.wait, id="a"), tenant=starved)
        assert (await mesh.get_tenant_health(starved)).health is Health.HEALTHY
        clock.forward(hours=10)
        health = await mesh.get_tenant_health(starved)
        assert health.health is Health.DEGRADED
        assert "has been waiting for 36" in health.reasons[0]
        assert (await mesh.get_tenant_health(hog)).reasons == ()
        await mesh._running.alerts.look()
        assert [(each.kind, each.tenant_id) for each in await mesh.alerts()] == [("tenant_degraded", starved)]
        gate.set()


# --- the database -----------------------------------------------------------------------------------------------------


class Broken:
    """Stand for a store that cannot be written."""

    def __init__(self, error: StoreError) -> None:
        self.error = error

    async def commit(self, units: Sequence[Unit]) -> None:
        raise self.error


@pytest.mark.parametrize("error", [StoreUnavailable("the disk is full"), StoreCorrupt("it is damaged")])
async def test_a_database_that_refuses_submissions_is_told_until_it_is_written_again(error: StoreError) -> None:
    async with Orchestrator(":memory:") as mesh:
        tenant = (await mesh.create_tenant("Acme", "enterprise")).tenant_id
        flow = Workflow("w").add(good, id="a")
        committer: Any = mesh._running.committer
        await committer.drained()
        real, committer._store = committer._store, Broken(error)
        for _ in range(3):
            with pytest.raises(StoreError):
                await mesh.submit(flow, tenant=tenant)
        assert await kinds(mesh) == ["database_not_writable"]
        assert (await samples(mesh))["synergymesh_database_writable",] == 0
        committer._store = real
        assert await (await mesh.submit(flow, tenant=tenant)).result() is not None  # nothing has to be started anew
        assert (await samples(mesh))["synergymesh_database_writable",] == 1
        await kinds(mesh)
        assert await kinds(mesh) == []


async def test_results_that_were_given_up_leave_an_alert() -> None:
    async with Orchestrator(":memory:") as mesh:
        tenant = (await mesh.create_tenant("Acme", "enterprise")).tenant_id
        gate, begun = asyncio.Event(), asyncio.Event()

        async def waits() -> None:
            begun.set()
            await gate.wait()

        await mesh.submit(Workflow("w").add(waits, id="a"), tenant=tenant)
        await begun.wait()
        committer: Any = mesh._running.committer
        await committer.drained()
        real, committer._store = committer._store, Broken(StoreCorrupt("it is damaged"))
        gate.set()
        await until(lambda: committer.failure is not None)
        await committer.drained()
        assert committer.trouble is None
        assert await kinds(mesh) == ["database_not_writable"]
        committer._store = real


# --- limits -----------------------------------------------------------------------------------------------------------


async def test_refused_submissions_are_limit_hits_by_reason() -> None:
    async with Orchestrator(":memory:") as mesh:
        quota = ResourceQuota(rate_limit_per_second=1)
        fast = (await mesh.create_tenant("Fast", "enterprise", quota=quota)).tenant_id
        full = (await mesh.create_tenant("Full", "enterprise", quota=ResourceQuota(max_queued_tasks=1))).tenant_id
        flow = Workflow("w").add(good, id="a")
        refused = 0
        for _ in range(4):
            try:
                await mesh.submit(flow, tenant=fast)
            except RateLimitExceeded:
                refused += 1
        refused += not await mesh.acquire_rate_limit(fast)
        with pytest.raises(BacklogFull):
            await mesh.submit(flow.add(good, id="b").add(good, id="c"), tenant=full)
        found = await samples(mesh)
        assert found["synergymesh_limit_hits_total", fast, "rate_limit"] == refused > 2
        assert found["synergymesh_limit_hits_total", full, "backlog_full"] == 1
        assert ("synergymesh_limit_hits_total", fast, "hour_limit") not in found  # nothing of it ran into that


# --- counters never fall ----------------------------------------------------------------------------------------------


async def test_no_counter_falls_or_jumps_when_the_ranking_changes_or_tenants_are_deleted() -> None:
    def counters(found: dict[tuple[str, ...], float]) -> dict[tuple[str, ...], float]:
        return {key: value for key, value in found.items() if key[0].endswith(("_total", "_count", "_sum", "_bucket"))}

    async with Orchestrator(":memory:", settings=read_settings(metrics_tenants_max=1)) as mesh:
        tenants = [(await mesh.create_tenant(name, "enterprise")).tenant_id for name in "abc"]
        first, second, third = tenants
        await call(mesh, first, good, 5)
        await call(mesh, second, bad, 4)
        before = counters(await samples(mesh))
        assert before["synergymesh_tasks_total", first, "success"] == 5
        assert before["synergymesh_tasks_total", "other", "failed"] == 4

        async def grows() -> dict[tuple[str, ...], float]:
            nonlocal before
            now = counters(await samples(mesh))
            fallen = {key: (value, now.get(key)) for key, value in before.items() if now.get(key, -1) < value}
            assert {key for key in fallen if first not in key} == set()
            before = now
            return now

        await call(mesh, second, bad, 6)  # it has done more now than the one with the label
        assert (await grows())["synergymesh_tasks_total", "other", "failed"] == 10
        await call(mesh, third, good, 1)
        await grows()
        await mesh.delete_tenant(second)
        assert (await grows())["synergymesh_tasks_total", "other", "failed"] == 10
        await mesh.delete_tenant(first)  # its label ends; what it did is nobody else's
        now = await grows()
        assert now["synergymesh_tasks_total", "other", "success"] == 1
        assert not any(first in key for key in now)
        fresh = (await mesh.create_tenant("d", "enterprise")).tenant_id
        await call(mesh, fresh, good, 2)
        now = await grows()
        assert now["synergymesh_tasks_total", fresh, "success"] == 2
        assert now["synergymesh_tasks_total", "other", "success"] == 1


# --- runs and the audit log -------------------------------------------------------------------------------------------


async def test_runs_have_durations_and_the_audit_log_its_lag(tmp_path: Path) -> None:
    sink = f"command:{sys.executable} -c 'import sys; sys.exit(1)' secret"
    settings = read_settings(database=f"sqlite:///{tmp_path}/mesh.db", audit_sinks=[sink])
    async with Orchestrator(settings=settings) as mesh:
        tenant = (await mesh.create_tenant("Acme", "enterprise")).tenant_id
        for _ in range(3):
            await (await mesh.submit(Workflow("w").add(good, id="a"), tenant=tenant)).result()
        found = await samples(mesh)
        entries = (await mesh.get_metrics()).audit_entries
        assert found["synergymesh_run_duration_seconds_count", tenant] == 3
        assert found["synergymesh_run_duration_seconds_sum", tenant] > 0
        assert found["synergymesh_audit_entries_total",] == found["synergymesh_audit_unsigned_entries",] == entries > 6
        assert 0 < found["synergymesh_audit_unsigned_seconds",] < 60
        assert found["synergymesh_audit_sink_waiting_seconds", "1:command"] == 0
        await mesh._running.auditing.checkpoints.write()
        found = await samples(mesh)
        assert found["synergymesh_audit_unsigned_entries",] == found["synergymesh_audit_unsigned_seconds",] == 0
        assert found["synergymesh_audit_sink_waiting_seconds", "1:command"] > 0  # it takes none
        assert "secret" not in await mesh.metrics_text()
        (tmp_path / "mesh.db.audit" / "checkpoints.jsonl").write_text("nonsense\n")
        found = await samples(mesh)  # everything else is still told
        assert found["synergymesh_tenants",] == 1
        assert ("synergymesh_audit_unsigned_entries",) not in found
