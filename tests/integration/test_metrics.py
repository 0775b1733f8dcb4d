"""The metrics agree with what happened, their names keep to the conventions, and their number is bounded."""

import asyncio
import re

import httpx
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from synergymesh import (
    EnterpriseSynergyMeshOrchestrator,
    Orchestrator,
    ResourceQuota,
    RetryPolicy,
    TenantTier,
    Workflow,
)
from synergymesh.engine.direct_calls import DirectCall
from synergymesh.settings import read_settings
from synergymesh.telemetry.endpoint import MetricsEndpoint


async def good() -> int:
    return 1


async def bad() -> None:
    raise ValueError


gate = asyncio.Event()
failures_left = 2


async def flaky() -> None:
    global failures_left
    failures_left -= 1
    if failures_left >= 0:
        raise ValueError("not yet")


def families(text: str) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(text)}


def value(found: dict[str, Metric], name: str, **labels: str) -> float:
    for family in found.values():
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return sample.value
    raise AssertionError(f"there is no {name}{labels}")


@pytest.fixture
def text() -> str:
    with EnterpriseSynergyMeshOrchestrator() as mesh:
        tenant_id = mesh.create_tenant("Acme", TenantTier.ENTERPRISE)

        async def work() -> None:
            for _ in range(3):
                await mesh.execute_with_retry(good, "c", tenant_id)
            await mesh.execute_with_retry(bad, "c", tenant_id, max_retries=0)

        asyncio.run(work())
        return str(mesh.call(mesh.orchestrator.metrics_text()))


def test_the_metrics_agree_with_what_happened(text: str) -> None:
    found = families(text)
    assert value(found, "synergymesh_tasks_total", status="success") == 3
    assert value(found, "synergymesh_tasks_total", status="failed") == 1
    assert value(found, "synergymesh_runs_total", status="success") == 3
    assert value(found, "synergymesh_runs_submitted_total") == 4
    assert value(found, "synergymesh_task_duration_seconds_count") == 4
    assert value(found, "synergymesh_task_duration_seconds_bucket", le="+Inf") == 4
    assert value(found, "synergymesh_executor_slots") == read_settings().max_concurrent_tasks
    assert value(found, "synergymesh_tenants") == 1
    assert value(found, "synergymesh_commits_total") >= 4
    assert value(found, "synergymesh_database_writable") == 1


def test_names_keep_to_the_conventions(text: str) -> None:
    for name, family in families(text).items():
        assert name.startswith("synergymesh"), name
        assert family.documentation.endswith("."), name
        assert not re.search(r"milli|micro|_ms\b|minutes", name), name
        if family.type == "counter":
            assert all(sample.name.endswith(("_total", "_created")) for sample in family.samples), name
        if family.type == "histogram":
            assert name.endswith("_seconds"), name


def test_buckets_never_fall(text: str) -> None:
    for family in families(text).values():
        if family.type == "histogram":
            counts = [sample.value for sample in family.samples if sample.name.endswith("_bucket")]
            assert counts == sorted(counts)


async def test_retries_waiting_tasks_decisions_and_limits_are_counted() -> None:
    global failures_left
    failures_left = 2
    gate.clear()
    quota = ResourceQuota(max_concurrent_tasks=1)
    async with Orchestrator(":memory:") as mesh:
        tenant_id = (await mesh.create_tenant("Acme", TenantTier.ENTERPRISE, quota=quota)).tenant_id
        again = RetryPolicy(max_retries=5, initial_delay=0)
        await (await mesh.submit(Workflow("flaky").add(flaky, id="a", retry=again), tenant=tenant_id)).result()
        runs = [await mesh.submit(Workflow("gated").add(gate.wait, id="a"), tenant=tenant_id) for _ in range(4)]
        found = families(await mesh.metrics_text())
        gate.set()
        for run in runs:
            await run.result()
        assert value(found, "synergymesh_task_retries_total", tenant=tenant_id) == 2
        assert value(found, "synergymesh_tasks_running", tenant=tenant_id) == 1
        assert value(found, "synergymesh_tasks_waiting", tenant=tenant_id) == 3
        assert value(found, "synergymesh_backlog_tasks", tenant=tenant_id) == 4
        assert value(found, "synergymesh_executor_slots_used") == 1
        assert value(found, "synergymesh_task_starts_total") == 4
        assert value(found, "synergymesh_dispatch_seconds_total") > 0
        assert value(found, "synergymesh_limit_hits_total", tenant=tenant_id, reason="concurrency") >= 1
        assert value(found, "synergymesh_commit_units_total") >= value(found, "synergymesh_commits_total") > 0
        later = families(await mesh.metrics_text())
        assert value(later, "synergymesh_backlog_tasks", tenant=tenant_id) == 0


async def test_tenants_beyond_the_limit_are_summed_up() -> None:
    async with Orchestrator(":memory:", settings=read_settings(metrics_tenants_max=2)) as mesh:
        tenants = [(await mesh.create_tenant(f"tenant {n}")).tenant_id for n in range(5)]
        for position, tenant in enumerate(tenants):
            for _ in range(5 - position):
                await mesh.call([DirectCall(component_id="c", function=good)], tenant=tenant)
        found = families(await mesh.metrics_text())
        labels = {sample.labels["tenant"] for sample in found["synergymesh_tasks"].samples}
        assert labels == {tenants[0], tenants[1], "other"}
        assert value(found, "synergymesh_tasks_total", tenant="other") == 3 + 2 + 1
        assert value(found, "synergymesh_task_duration_seconds_count", tenant="other") == 6


async def test_an_endpoint_serves_them_and_nothing_else() -> None:
    async with Orchestrator(":memory:") as mesh:
        transport = httpx.ASGITransport(app=MetricsEndpoint(mesh))
        async with httpx.AsyncClient(transport=transport, base_url="http://mesh") as client:
            answer = await client.get("/metrics")
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
            assert value(families(answer.text), "synergymesh_tenants") == 0
            head = await client.head("/metrics")
            assert (head.status_code, head.content) == (200, b"")
            refused = await client.post("/metrics")
            assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
