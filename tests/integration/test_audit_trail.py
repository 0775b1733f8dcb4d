"""The audit log of a working engine: who did what, which limits were hit, and that nothing is missing or told twice."""

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from synergymesh import (
    Actor,
    BreakerPolicy,
    Orchestrator,
    ResourceQuota,
    RetryPolicy,
    TenantTier,
    Workflow,
    task,
    workflow,
)
from synergymesh.domain.audit.actions import Action
from synergymesh.domain.audit.forms import MESH, chain_hash, genesis_hash
from synergymesh.errors import RateLimitExceeded, RunFailed, StoreUnavailable
from synergymesh.ports.audit import AuditEntryRecord
from synergymesh.ports.store import Store

ALICE = Actor(type="user", id="alice", source="http", request_id="r-1")
ROOMY = ResourceQuota(
    max_concurrent_tasks=200,
    max_memory_mb=1_000_000,
    max_cpu_percent=100,
    max_tasks_per_hour=1_000_000,
    rate_limit_per_second=1_000_000,
)


def store_of(mesh: Orchestrator) -> Store:
    assert mesh._parts is not None
    return mesh._parts.store


async def chain_of(mesh: Orchestrator, tenant_id: str) -> list[AuditEntryRecord]:
    """Give a whole chain, checked."""
    store = store_of(mesh)
    entries = await store.list_audit_entries(tenant_id, after_seq=0, limit=10_000)
    previous = genesis_hash(await store.get_audit_log_id(), tenant_id)
    for number, entry in enumerate(entries, 1):
        assert entry.seq == number
        previous = chain_hash(tenant_id, number, previous, entry.payload)
        assert entry.hash == previous
    return entries


@task
async def one() -> int:
    return 1


@workflow
def single() -> object:
    return one()


async def test_each_thing_is_recorded_on_the_account_of_who_asked_for_it(mesh: Orchestrator) -> None:
    gate = asyncio.Event()
    waiting = Workflow("waiting")

    async def wait() -> None:
        await gate.wait()

    waiting.add(wait, id="wait")
    with mesh.acting_as(ALICE):
        tenant = (await mesh.create_tenant("Acme", TenantTier.ENTERPRISE, quota=ROOMY)).tenant_id
        handle = await mesh.submit(waiting, tenant=tenant)
    while (await handle.status()).value == "pending":  # noqa: ASYNC110 - it starts at once
        await asyncio.sleep(0)
    async with mesh.acting_as(Actor(type="service", id="janitor")):
        assert await mesh.cancel_run(handle.id)
        await mesh.suspend_tenant(tenant)
    entries = await chain_of(mesh, tenant)
    assert [(entry.action, entry.actor) for entry in entries if entry.actor != "system/engine"] == [
        ("tenant.created", "user/alice"),
        ("run.submitted", "user/alice"),
        ("run.cancel_requested", "service/janitor"),
        ("tenant.suspended", "service/janitor"),
    ]
    assert json.loads(entries[1].payload)["origin"] == {"request_id": "r-1", "source": "http"}
    started = (await chain_of(mesh, MESH))[0]
    assert started.action == "mesh.started"
    assert started.actor.startswith("user/")


async def test_what_people_hold_back_and_let_go_again_is_recorded_on_their_account(mesh: Orchestrator) -> None:
    async def wait() -> None:
        await asyncio.Event().wait()

    waiting = Workflow("waiting").add(wait, id="wait").add(one, id="then", after=["wait"])
    tenant = (await mesh.create_tenant("Acme", TenantTier.ENTERPRISE, quota=ROOMY)).tenant_id
    handle = await mesh.submit(waiting, tenant=tenant)
    with mesh.acting_as(ALICE):
        assert await mesh.pause_run(handle.id)
        assert await mesh.resume_run(handle.id)
        assert not await mesh.resume_run(handle.id)
        for whose in (tenant, None):
            await mesh.pause_workflow("waiting", tenant=whose)
            assert await mesh.resume_workflow("waiting", tenant=whose)
            assert not await mesh.resume_workflow("waiting", tenant=whose)
        await mesh.suspend_tenant(tenant)
        await mesh.resume_tenant(tenant)

    def done_by_alice(entries: list[AuditEntryRecord]) -> list[tuple[str, str, str]]:
        return [(entry.action, entry.entity, entry.outcome) for entry in entries if entry.actor == "user/alice"]

    of_workflow = [
        ("workflow.paused", "workflow/waiting", "success"),
        ("workflow.resumed", "workflow/waiting", "success"),
    ]
    assert done_by_alice(await chain_of(mesh, tenant)) == [
        ("run.paused", f"run/{handle.id}", "success"),
        ("run.resumed", f"run/{handle.id}", "success"),
        *of_workflow,
        ("tenant.suspended", f"tenant/{tenant}", "success"),
        ("tenant.resumed", f"tenant/{tenant}", "success"),
    ]
    assert done_by_alice(await chain_of(mesh, MESH)) == of_workflow, "what is about all tenants is the mesh's"


async def test_a_circuit_that_opens_by_itself_and_is_closed_by_hand_is_recorded(mesh: Orchestrator) -> None:
    def fail() -> None:
        raise OSError("no answer")

    failing = Workflow("failing").add(task(fail, breaker="bank", retry=RetryPolicy(max_retries=0)), id="fail")
    tenant = (await mesh.create_tenant("Acme", TenantTier.ENTERPRISE, quota=ROOMY)).tenant_id
    await mesh.set_breaker_policy(tenant, BreakerPolicy(minimum_calls=2), breaker="bank")
    for _ in range(2):
        with pytest.raises(RunFailed):
            await (await mesh.submit(failing, tenant=tenant)).result(10)
    with mesh.acting_as(ALICE):
        await mesh.reset_breaker(tenant, breaker="bank")
    changes = [entry for entry in await chain_of(mesh, tenant) if entry.action == "breaker.changed"]
    assert [(entry.entity, entry.actor, entry.outcome) for entry in changes] == [
        ("breaker/bank", "system/engine", "failure"),
        ("breaker/bank", "user/alice", "success"),
    ]
    opened, closed = (json.loads(entry.payload)["details"] for entry in changes)
    assert (opened["state"], opened["calls"], opened["failures"], opened["trips"]) == ("open", 2, 2, 1)
    assert opened["until"] > changes[0].at
    assert (closed["state"], closed["trips"]) == ("closed", 0)


async def test_retries_and_failures_are_recorded_with_the_type_of_the_error_only(
    mesh: Orchestrator, tenant: str
) -> None:
    @task(retry=RetryPolicy(max_retries=1, initial_delay=0.001))
    async def fails() -> None:
        raise ValueError("the secret of the customer")

    with pytest.raises(RunFailed):
        await (await mesh.submit(Workflow("failing").add(fails, id="f"), tenant=tenant)).result()
    entries = await chain_of(mesh, tenant)
    assert [(entry.action, entry.outcome, entry.version) for entry in entries if entry.entity.startswith("task/")] == [
        ("task.retried", "failure", 1),
        ("task.finished", "failure", 2),
    ]
    assert all(b"secret" not in entry.payload for entry in entries)
    assert sum(b'ValueError"' in entry.payload for entry in entries) == 2


async def test_a_limit_that_is_hit_is_recorded_at_once_and_then_counted(mesh: Orchestrator) -> None:
    quota = ResourceQuota(rate_limit_per_second=1, burst=1)
    tenant = (await mesh.create_tenant("Acme", TenantTier.ENTERPRISE, quota=quota)).tenant_id
    with mesh.acting_as(ALICE):
        await mesh.submit(single, tenant=tenant)
        for _ in range(20):
            with pytest.raises(RateLimitExceeded):
                await mesh.submit(single, tenant=tenant)
    assert mesh._parts is not None
    mesh._parts.maintenance.record_everything()
    await mesh._parts.committer.drained()
    hits = (await store_of(mesh).find_audit_entries(tenant, action=Action.LIMIT_HIT)).entries
    said = [json.loads(entry.payload) for entry in reversed(hits)]
    assert said[0]["actor"] == "user/alice"
    assert all((entry["entity"], entry["outcome"]) == ("limit/rate_limit_exceeded", "denied") for entry in said)
    assert sum(entry["details"]["count"] for entry in said) == 20
    assert len(said) <= 4  # twice a minute, and the test may see two of them


async def test_64_concurrent_writers_leave_gapless_chains(tmp_path: Path) -> None:
    async with Orchestrator(f"sqlite:///{tmp_path}/mesh.db", synchronous="normal") as mesh:
        tenants = [(await mesh.create_tenant(f"T{n}", TenantTier.ENTERPRISE, quota=ROOMY)).tenant_id for n in range(4)]

        async def write(number: int) -> None:
            for turn in range(10):
                actor = Actor(type="user", id=f"u{number}", request_id=f"{number}-{turn}")
                with mesh.acting_as(actor):
                    handle = await mesh.submit(single, tenant=tenants[(number + turn) % 4])
                    if (number + turn) % 5 == 0:
                        await mesh.cancel_run(handle.id)
                    elif (number + turn) % 7 == 0:
                        await mesh.set_weight(tenants[number % 4], 1 + turn)
                    await asyncio.wait([asyncio.ensure_future(handle.result())])

        await asyncio.gather(*(write(number) for number in range(64)))
        entries = [entry for tenant in tenants for entry in await chain_of(mesh, tenant)]
    submitted = [entry for entry in entries if entry.action == "run.submitted"]
    assert len(submitted) == 640
    requests = {(entry.actor, json.loads(entry.payload)["origin"]["request_id"]) for entry in submitted}
    assert requests == {(f"user/u{n}", f"{n}-{t}") for n in range(64) for t in range(10)}
    counts = Counter(entry.action for entry in entries)
    assert counts["task.finished"] == counts["run.finished"] == 640
    assert max(Counter((entry.action, entry.entity, entry.version) for entry in entries).values()) == 1


async def test_a_commit_whose_answer_was_lost_is_repeated_without_a_second_entry(
    mesh: Orchestrator, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store: Any = store_of(mesh)
    commit = store.commit
    lost = 0

    async def lose_some_answers(units: Any) -> Any:
        nonlocal lost
        answers = await commit(units)
        if lost < 5 and any(type(change).__name__ == "TaskFinished" for unit in units for change in unit):
            lost += 1
            raise StoreUnavailable("the answer is lost")
        return answers

    gate = asyncio.Event()

    async def wait() -> int:
        await gate.wait()
        return 1

    waiting = Workflow("waiting").add(wait, id="wait")
    handles = [await mesh.submit(waiting, tenant=tenant) for _ in range(5)]
    monkeypatch.setattr(store, "commit", lose_some_answers)
    gate.set()
    for handle in handles:
        await handle.result()
    assert lost
    entries = [entry for entry in await chain_of(mesh, tenant) if entry.entity.partition("/")[0] in ("run", "task")]
    assert Counter(entry.action for entry in entries) == {"run.submitted": 5, "task.finished": 5, "run.finished": 5}
