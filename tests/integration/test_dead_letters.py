"""Tasks that failed for good: found with everything about them, redriven, put away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from synergymesh import (
    Actor,
    DeadLetter,
    ExecutionStatus,
    Orchestrator,
    ResourceQuota,
    RetryPolicy,
    RunFailed,
    Workflow,
    given,
    ref,
)
from synergymesh.engine.control.dead_letter_views import PAGE_MAX
from synergymesh.engine.control.dead_letters import REASON_CHARACTERS_MAX, REDRIVEN_MAX
from synergymesh.errors import InvalidRequest, NotFound, RunNotRetryable

S = ExecutionStatus
Open = Callable[..., Orchestrator]
ONCE = RetryPolicy(max_retries=0)
TWICE = RetryPolicy(max_retries=1, initial_delay=0.0)


class Declined(ValueError):
    """The card was declined."""


class Shop:
    """A workflow whose `charge` fails while it is broken."""

    def __init__(self, error: type[Exception] = Declined, name: str = "checkout") -> None:
        self.broken = True
        self.charges = 0

        def price(order: int) -> dict[str, int]:
            return {"total": order * 10}

        def charge(order: int, total: int, *, currency: str) -> str:
            self.charges += 1
            if self.broken:
                raise error(f"order {order}")
            return f"paid {total} {currency}"

        self.workflow = (
            Workflow(name)
            .takes("order", int)
            .add(price, id="price", args=[given("order")])
            .add(
                charge,
                id="charge",
                args=[given("order"), ref("price")["total"]],
                kwargs={"currency": "EUR"},
                retry=TWICE,
            )
        )

    async def fail(self, mesh: Orchestrator, tenant: str, order: int = 1) -> str:
        handle = await mesh.submit(self.workflow, tenant=tenant, input={"order": order})
        with pytest.raises(RunFailed):
            await handle.result(10)
        return handle.id


async def test_a_dead_letter_has_everything_that_is_needed_to_look_into_it(mesh: Orchestrator, tenant: str) -> None:
    shop = Shop()
    run_id = await shop.fail(mesh, tenant, order=7)
    (listed,) = await mesh.dead_letters()
    assert listed.id == f"{run_id}:charge"
    assert (listed.workflow, listed.status, listed.run_status) == ("checkout", S.FAILED, S.FAILED)
    found = await mesh.get_dead_letter(listed.id, tenant=tenant)
    assert found.version == shop.workflow.definition.content_hash
    assert (found.task, found.input) == ("charge", {"order": 7})
    assert (found.args, found.kwargs) == ((7, 70), {"currency": "EUR"})
    assert found.attempt == 2
    assert found.error is not None
    assert found.error.type.endswith("Declined")
    assert "raise error" in found.error.traceback
    (before,) = found.failures
    assert before.number == 1
    assert before.error is not None
    assert "raise error" in before.error.traceback
    assert not found.quarantined
    assert (found.discarded_at, found.retried_as) == (None, None)
    assert found.started_at is not None
    assert found.started_at <= found.failed_at


async def test_redriving_a_dead_letter_goes_on_with_its_run(mesh: Orchestrator, tenant: str) -> None:
    shop = Shop()
    run_id = await shop.fail(mesh, tenant)
    (letter,) = await mesh.dead_letters()
    shop.broken = False
    handle = await mesh.redrive_dead_letter(letter.id, tenant=tenant)
    assert await handle.result(10) == "paid 10 EUR"
    assert (await mesh.get_run(handle.id)).retry_of == run_id
    assert await mesh.dead_letters() == []
    assert (await mesh.get_dead_letter(letter.id)).retried_as == handle.id
    with pytest.raises(RunNotRetryable, match=handle.id):
        await mesh.redrive_dead_letter(letter.id)


async def test_the_audit_log_names_each_dead_letter_that_was_redriven_and_its_new_run(
    mesh: Orchestrator, tenant: str
) -> None:
    shop = Shop()
    run_ids = [await shop.fail(mesh, tenant, order) for order in (1, 2, 3)]
    shop.broken = False
    assert await (await mesh.retry_run(run_ids[2])).result(10)
    first = await mesh.redrive_dead_letter(f"{run_ids[0]}:charge")
    with mesh.acting_as(Actor(type="user", id="u-7")):
        second = (await mesh.redrive_dead_letters(tenant=tenant)).runs[run_ids[1]]
    found = (await mesh.audit_log(tenant, action="dead_letter.redriven")).entries
    assert [(entry.entity, entry.details) for entry in found] == [
        (f"dead_letter/{run_ids[1]}:charge", {"run_id": second}),
        (f"dead_letter/{run_ids[0]}:charge", {"run_id": first.id}),
    ], "and a run that is retried as a whole is no redriven dead letter"
    assert found[0].actor == "user/u-7"
    with pytest.raises(RunNotRetryable):
        await mesh.redrive_dead_letter(f"{run_ids[0]}:charge")
    assert (await mesh.audit_log(tenant, action="dead_letter.redriven")).entries == found


async def test_a_redrive_that_fails_makes_a_new_dead_letter(mesh: Orchestrator, tenant: str) -> None:
    shop = Shop()
    await shop.fail(mesh, tenant)
    (letter,) = await mesh.dead_letters()
    handle = await mesh.redrive_dead_letter(letter.id)
    with pytest.raises(RunFailed):
        await handle.result(10)
    (second,) = await mesh.dead_letters()
    assert second.run_id == handle.id


async def test_many_are_redriven_by_filter_each_run_once(mesh: Orchestrator, tenant: str) -> None:
    shop, other = Shop(), Shop(OSError, "refunds")
    orders = [await shop.fail(mesh, tenant, order) for order in range(5)]
    refund = await other.fail(mesh, tenant)
    shop.broken = other.broken = False
    first = await mesh.redrive_dead_letters(tenant=tenant, workflow="checkout", error_type="Declined", limit=2)
    assert list(first.runs) == orders[:2:-1]
    assert first.more
    rest = await mesh.redrive_dead_letters(tenant=tenant, error_type="ValueError")
    assert list(rest.runs) == orders[2::-1]
    assert (rest.more, rest.stopped, dict(rest.skipped)) == (False, None, {})
    for run_id in (*first.runs.values(), *rest.runs.values()):
        await mesh.result_of(run_id, timeout=10)
    assert [letter.run_id for letter in await mesh.dead_letters()] == [refund]


async def test_runs_that_are_still_open_are_left_out_of_many(mesh: Orchestrator, tenant: str) -> None:
    started, let_go = asyncio.Event(), asyncio.Event()

    def fail() -> None:
        raise OSError("no")

    async def wait() -> None:
        started.set()
        await let_go.wait()

    built = Workflow("w").add(fail, id="bad", retry=ONCE).add(wait, id="slow").returns(None)
    handle = await mesh.submit(built, tenant=tenant)
    await started.wait()
    async for event in handle.events():
        if event.task_id == "bad" and event.status is S.FAILED:
            break
    (letter,) = await mesh.dead_letters()
    assert letter.run_status is S.RUNNING
    done = await mesh.redrive_dead_letters(tenant=tenant)
    assert (dict(done.runs), list(done.skipped)) == ({}, [handle.id])
    with pytest.raises(RunNotRetryable, match="open"):
        await mesh.redrive_dead_letter(letter.id)
    let_go.set()
    with pytest.raises(RunFailed):
        await handle.result(10)
    assert list((await mesh.redrive_dead_letters(tenant=tenant)).runs) == [handle.id]


async def test_redriving_many_waits_for_the_rate_and_stops_at_the_backlog(mesh: Orchestrator) -> None:
    quick = ResourceQuota(rate_limit_per_second=50, max_queued_tasks=2, max_concurrent_tasks=1)
    tenant = (await mesh.create_tenant("Small", "enterprise", quota=quick)).tenant_id
    shop = Shop()
    for order in range(4):
        await shop.fail(mesh, tenant, order)
    await mesh.set_quota(tenant, ResourceQuota(rate_limit_per_second=50, burst=1, max_queued_tasks=2))
    mesh._running.dispatcher.stop()
    done = await mesh.redrive_dead_letters(tenant=tenant)
    assert len(done.runs) == 2
    assert done.more
    assert "tasks waiting" in str(done.stopped)


async def test_a_discarded_dead_letter_is_listed_no_more(mesh: Orchestrator, tenant: str) -> None:
    shop = Shop()
    run_id = await shop.fail(mesh, tenant)
    (letter,) = await mesh.dead_letters()
    gone = await mesh.discard_dead_letter(letter.id, reason="paid by hand", tenant=tenant)
    assert gone.discard_reason == "paid by hand"
    assert gone.discarded_at is not None
    assert await mesh.dead_letters() == []
    assert (await mesh.get_run(run_id)).status is S.FAILED
    again = await mesh.discard_dead_letter(letter.id, reason="once more")
    assert again == gone
    shop.broken = False
    assert await (await mesh.redrive_dead_letter(letter.id)).result(10) == "paid 10 EUR", "somebody may think twice"


async def test_no_tenant_reaches_the_dead_letters_of_another(mesh: Orchestrator, tenant: str) -> None:
    await Shop().fail(mesh, tenant)
    other = (await mesh.create_tenant("Other", "enterprise")).tenant_id
    (letter,) = await mesh.dead_letters(tenant=tenant)
    assert await mesh.dead_letters(tenant=other) == []
    with pytest.raises(NotFound):
        await mesh.get_dead_letter(letter.id, tenant=other)
    with pytest.raises(NotFound):
        await mesh.redrive_dead_letter(letter.id, tenant=other)
    with pytest.raises(NotFound):
        await mesh.discard_dead_letter(letter.id, reason="x", tenant=other)
    assert dict((await mesh.redrive_dead_letters(tenant=other)).runs) == {}
    assert await mesh.dead_letters(tenant=tenant) == [letter]


async def test_pages_follow_each_other_without_a_gap(mesh: Orchestrator, tenant: str) -> None:
    shop = Shop()
    runs = [await shop.fail(mesh, tenant, order) for order in range(5)]
    seen: list[DeadLetter] = []
    while page := await mesh.dead_letters(limit=2, cursor=seen[-1].id if seen else None):
        assert len(page) <= 2
        seen += page
    assert [letter.run_id for letter in seen] == runs[::-1]


async def test_a_time_out_is_a_dead_letter_too(mesh: Orchestrator, tenant: str) -> None:
    async def sleep() -> None:
        await asyncio.sleep(3_600)

    built = Workflow("w").add(sleep, id="t", timeout=0.01, retry=ONCE)
    handle = await mesh.submit(built, tenant=tenant)
    with pytest.raises(RunFailed):
        await handle.result(10)
    (letter,) = await mesh.dead_letters(error_type="TimeoutError")
    assert letter.status is S.TIMEOUT


async def test_a_task_whose_arguments_cannot_be_made_is_shown_without_them(mesh: Orchestrator, tenant: str) -> None:
    def make() -> dict[str, int]:
        return {"x": 1}

    def use(y: int) -> int:
        return y

    built = Workflow("w").add(make, id="a").add(use, id="b", args=[ref("a")["y"]], retry=ONCE)
    handle = await mesh.submit(built, tenant=tenant)
    with pytest.raises(RunFailed):
        await handle.result(10)
    found = await mesh.get_dead_letter(f"{handle.id}:b")
    assert (found.args, found.kwargs) == ((), {})
    assert "y" in str(found.error)


async def test_bad_input_is_refused_before_anything_changes(mesh: Orchestrator, tenant: str) -> None:
    await Shop().fail(mesh, tenant)
    (letter,) = await mesh.dead_letters()
    naive = datetime(2026, 1, 1)
    for bad in (0, -1, PAGE_MAX + 1, True, 1.5, None):
        with pytest.raises(InvalidRequest):
            await mesh.dead_letters(limit=bad)  # type: ignore[arg-type]  # on purpose
    for bad in (0, REDRIVEN_MAX + 1):
        with pytest.raises(InvalidRequest):
            await mesh.redrive_dead_letters(limit=bad)
    for call in (mesh.dead_letters, mesh.redrive_dead_letters):
        with pytest.raises(InvalidRequest, match="time zone"):
            await call(since=naive)
        for error_type in ("", "a\0b", 7):
            with pytest.raises(InvalidRequest, match="error_type"):
                await call(error_type=error_type)  # type: ignore[arg-type]  # on purpose
    for cursor in ("run-1", "", "\0:", 7):
        with pytest.raises(InvalidRequest, match="cursor"):
            await mesh.dead_letters(cursor=cursor)  # type: ignore[arg-type]  # on purpose
    for unknown in ("run-1", "", letter.run_id, f"{letter.run_id}:", f"{letter.run_id}:price", "\ud800:a", 7):
        with pytest.raises(NotFound):
            await mesh.get_dead_letter(unknown)  # type: ignore[arg-type]  # on purpose
    for reason in ("", "  ", None, 7, "a\0", "\ud800", "x" * (REASON_CHARACTERS_MAX + 1)):
        with pytest.raises(InvalidRequest, match="reason"):
            await mesh.discard_dead_letter(letter.id, reason=reason)  # type: ignore[arg-type]  # on purpose
    assert await mesh.dead_letters(limit=PAGE_MAX) == [letter]
    longest = "x" * REASON_CHARACTERS_MAX
    assert (await mesh.discard_dead_letter(letter.id, reason=longest)).discard_reason == longest


async def test_dead_letters_are_found_by_their_time(mesh: Orchestrator, tenant: str) -> None:
    await Shop().fail(mesh, tenant)
    now = datetime.now(UTC)
    assert len(await mesh.dead_letters(since=now - timedelta(hours=1))) == 1
    assert await mesh.dead_letters(since=now + timedelta(hours=1)) == []
