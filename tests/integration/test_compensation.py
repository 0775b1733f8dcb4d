"""Compensation: when a run fails or is cancelled, what it committed is undone, the latest first, once, durably."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from tests.integration.settling import settled

from synergymesh import (
    ExecutionStatus,
    Orchestrator,
    RetryPolicy,
    RunCancelled,
    RunFailed,
    Task,
    Workflow,
    current_task,
    ref,
    task,
    workflow,
)
from synergymesh.domain.instants import SECOND
from synergymesh.domain.workflow.definition import WorkflowDefinition
from synergymesh.errors import InvalidWorkflow, RunNotRetryable
from synergymesh.testing.reference import interpret, random_workflow

S = ExecutionStatus
Open = Callable[..., Orchestrator]
ONCE = RetryPolicy(max_retries=0)


class Trip:
    """A flight, a hotel and a car are booked one after the other; the car fails while `broken` says so."""

    def __init__(self, *broken: str) -> None:
        self.broken = set(broken)
        self.done: list[str] = []
        self.undone: list[tuple[str, str, int]] = []
        self.waiting = asyncio.Event()
        self.hangs: str | None = None

        async def cancel(booking: str, what: str, nights: int) -> str:
            if self.hangs == f"cancel {what}":
                self.waiting.set()
                await asyncio.sleep(3_600)
            if f"cancel {what}" in self.broken:
                raise OSError(f"cannot cancel {what}")
            self.undone.append((booking, what, nights))
            return "cancelled"

        async def book(what: str, first: str | None = None, nights: int = 2) -> str:
            if self.hangs == what:
                self.waiting.set()
                await asyncio.sleep(3_600)
            if what in self.broken:
                raise OSError(f"no {what}")
            self.done.append(what)
            return f"{what}-1"

        cancelling = Task(cancel, retry=ONCE)
        booking = Task(book, retry=ONCE, compensate=cancelling)
        self.workflow = (
            Workflow("trip")
            .add(booking, id="flight", args=["flight"])
            .add(booking, id="hotel", args=["hotel", ref("flight")], kwargs={"nights": 3})
            .add(booking, id="car", args=["car", ref("hotel")])
        )

    @property
    def order(self) -> list[str]:
        return [what for _, what, _ in self.undone]


async def fail(mesh: Orchestrator, tenant: str, trip: Trip) -> str:
    handle = await mesh.submit(trip.workflow, tenant=tenant)
    with pytest.raises(RunFailed):
        await handle.result(10)
    return handle.id


async def test_what_is_committed_is_undone_in_reverse_with_result_and_arguments(
    mesh: Orchestrator, tenant: str
) -> None:
    trip = Trip("car")
    run_id = await fail(mesh, tenant, trip)
    assert trip.undone == [("hotel-1", "hotel", 3), ("flight-1", "flight", 2)]
    run = await mesh.get_run(run_id)
    assert run.status is S.FAILED
    assert [(t.task_id, t.status, t.compensates) for t in run.tasks] == [
        ("flight", S.SUCCESS, None),
        ("hotel", S.SUCCESS, None),
        ("car", S.FAILED, None),
        ("undo:flight", S.SUCCESS, "flight"),
        ("undo:hotel", S.SUCCESS, "hotel"),
    ]
    events = [(e.task_id, e.status) async for e in mesh.handle(run_id, tenant=tenant).events()]
    assert events.index(("undo:hotel", S.SUCCESS)) < events.index(("undo:flight", S.SUCCESS))
    assert events[-1] == (None, S.FAILED)
    assert list(run.errors) == ["car"]


async def test_nothing_is_undone_when_a_run_succeeds(mesh: Orchestrator, tenant: str) -> None:
    trip = Trip()
    handle = await mesh.submit(trip.workflow, tenant=tenant)
    assert await handle.result(10) == "car-1"
    assert trip.undone == []
    assert [t.task_id for t in (await mesh.get_run(handle.id)).tasks] == ["flight", "hotel", "car"]


async def test_a_cancelled_run_is_undone_and_ends_as_cancelled(mesh: Orchestrator, tenant: str) -> None:
    trip = Trip()
    trip.hangs = "car"
    handle = await mesh.submit(trip.workflow, tenant=tenant)
    await trip.waiting.wait()
    assert await handle.cancel()
    with pytest.raises(RunCancelled):
        await handle.result(10)
    assert trip.order == ["hotel", "flight"]


async def test_undoing_is_not_cancelled(mesh: Orchestrator, tenant: str) -> None:
    trip = Trip("car")
    trip.hangs = "cancel hotel"
    handle = await mesh.submit(trip.workflow, tenant=tenant)
    await trip.waiting.wait()
    assert not await handle.cancel()
    (explained,) = (await mesh.explain(handle.id)).waiting
    assert explained.task_id == "undo:flight"
    await mesh.delete_tenant(tenant, force=True)
    assert trip.order == []


async def test_a_compensation_is_retried_by_its_own_policy(mesh: Orchestrator, tenant: str) -> None:
    seen: list[int] = []

    def undo(done: str) -> None:
        seen.append(current_task().attempt)
        if len(seen) < 3:
            raise OSError("not yet")

    def do() -> str:
        return "done"

    def fail_() -> None:
        raise OSError("no")

    built = Workflow("w").add(
        Task(do, compensate=Task(undo, retry=RetryPolicy(max_retries=2, initial_delay=0.0))), id="a"
    )
    built.add(fail_, id="b", after=["a"], retry=ONCE)
    handle = await mesh.submit(built, tenant=tenant)
    with pytest.raises(RunFailed):
        await handle.result(10)
    assert seen == [1, 2, 3]


async def test_a_compensation_that_fails_leaves_the_rest_and_is_a_dead_letter_that_can_be_redriven(
    mesh: Orchestrator, tenant: str
) -> None:
    trip = Trip("car", "cancel hotel")
    run_id = await fail(mesh, tenant, trip)
    run = await mesh.get_run(run_id)
    assert run.status is S.FAILED
    assert set(run.errors) == {"car", "undo:hotel"}
    assert {t.task_id: t.status for t in run.tasks if t.compensates} == {
        "undo:hotel": S.FAILED,
        "undo:flight": S.SKIPPED,
    }
    assert [x.task_id for x in await mesh.dead_letters()] == ["undo:hotel", "car"]
    letter = await mesh.get_dead_letter(f"{run_id}:undo:hotel")
    assert (letter.args, letter.kwargs) == (("hotel-1",), {"what": "hotel", "nights": 3})
    with pytest.raises(RunNotRetryable, match="undo:hotel"):
        await mesh.retry_run(run_id)
    trip.broken.clear()
    handle = await mesh.redrive_dead_letter(letter.id)
    with pytest.raises(RunFailed):
        await handle.result(10)
    assert trip.order == ["hotel", "flight"]
    assert trip.done == ["flight", "hotel"], "nothing else was done"
    again = await mesh.retry_run(handle.id)
    assert await again.result(10) == "car-1"
    assert trip.done == ["flight", "hotel", "flight", "hotel", "car"], "what was undone is done again"


async def test_a_discarded_compensation_counts_as_done_by_hand(mesh: Orchestrator, tenant: str) -> None:
    trip = Trip("car", "cancel hotel")
    run_id = await fail(mesh, tenant, trip)
    await mesh.discard_dead_letter(f"{run_id}:undo:hotel", reason="called the hotel")
    trip.broken.clear()
    assert await (await mesh.retry_run(run_id)).result(10) == "car-1"
    assert trip.done == ["flight", "hotel", "hotel", "car"], "the flight was never cancelled"


async def test_a_cancelled_run_whose_undoing_failed_goes_on_undoing_only(mesh: Orchestrator, tenant: str) -> None:
    trip = Trip("cancel hotel")
    trip.hangs = "car"
    handle = await mesh.submit(trip.workflow, tenant=tenant)
    await trip.waiting.wait()
    await handle.cancel()
    with pytest.raises(RunFailed):
        await handle.result(10)
    trip.broken.clear()
    again = await mesh.redrive_dead_letter(f"{handle.id}:undo:hotel")
    with pytest.raises(RunCancelled):
        await again.result(10)
    assert trip.order == ["hotel", "flight"]
    assert trip.done == ["flight", "hotel"]


@pytest.mark.parametrize("hangs", ["cancel hotel", "cancel flight", "car"])
async def test_undoing_goes_on_after_a_crash_in_the_middle(open_mesh: Open, tmp_path: Path, hangs: str) -> None:
    trip = Trip() if hangs == "car" else Trip("car")
    trip.hangs = hangs
    async with open_mesh(tmp_path / "life-1.db") as mesh:
        tenant = (await mesh.create_tenant("A", "enterprise")).tenant_id
        handle = await mesh.submit(trip.workflow, tenant=tenant)
        await trip.waiting.wait()
        await mesh._running.committer.drained()
        for name in ("life-1.db", "life-1.db-wal"):
            shutil.copyfile(tmp_path / name, tmp_path / name.replace("1", "2"))
    undone = len(trip.undone)
    trip.hangs = None
    trip.broken = {"car"}
    async with open_mesh(tmp_path / "life-2.db", workflows=[trip.workflow]) as mesh:
        with pytest.raises(RunFailed):
            await mesh.handle(handle.id, tenant=tenant).result(10)
    assert undone == (1 if hangs == "cancel flight" else 0)
    assert trip.order == ["hotel", "flight"]
    assert trip.done == ["flight", "hotel"]


async def test_a_cancelled_run_goes_on_undoing_after_a_shutdown(open_mesh: Open, tmp_path: Path) -> None:
    trip = Trip()
    trip.hangs = "car"
    async with open_mesh() as mesh:
        tenant = (await mesh.create_tenant("A", "enterprise")).tenant_id
        handle = await mesh.submit(trip.workflow, tenant=tenant)
        await trip.waiting.wait()
        trip.waiting.clear()
        trip.hangs = "cancel hotel"
        await handle.cancel()
        await trip.waiting.wait()
    trip.hangs = None
    async with open_mesh(workflows=[trip.workflow]) as mesh:
        with pytest.raises(RunCancelled):
            await mesh.handle(handle.id, tenant=tenant).result(10)
    assert trip.order == ["hotel", "flight"]


async def test_a_compensation_of_a_cancelled_run_waits_for_its_retry_after_a_restart_too(
    open_mesh: Open, tmp_path: Path
) -> None:
    begun, tried = asyncio.Event(), asyncio.Event()
    tries = 0

    async def undo(result: None) -> None:
        nonlocal tries
        tries += 1
        tried.set()
        raise ConnectionError("not now")

    async def book() -> None: ...

    async def waits() -> None:
        begun.set()
        await asyncio.Event().wait()

    undoing = task(undo, retry=RetryPolicy(max_retries=3, initial_delay=3_600, jitter=0))
    built = Workflow("w").add(task(book, compensate=undoing), id="a").add(waits, id="b", depends_on=["a"])
    built.add(waits, id="c", depends_on=["b"])
    async with open_mesh(workflows=[built]) as mesh:
        tenant = (await mesh.create_tenant("A", "enterprise")).tenant_id
        handle = await mesh.submit(built, tenant=tenant)
        await begun.wait()
        await handle.cancel()
        await tried.wait()
    async with open_mesh(workflows=[built]) as mesh:
        async with asyncio.timeout(20):
            while not (told := await mesh.explain(handle.id)).waiting:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.001)
        assert [(each.task_id, each.blockers[0].reason) for each in told.waiting] == [("undo:a", "retry_delay")]
        assert tries == 1


# --- definitions ------------------------------------------------------------------------------------------------------


def test_a_compensation_is_a_part_of_the_version() -> None:
    definition = Trip().workflow.definition
    again = WorkflowDefinition.from_json(definition.to_json())
    assert again == definition
    assert again.content_hash == definition.content_hash
    assert list(again.compensations) == ["flight", "hotel", "car"]
    assert again.find("undo:hotel").task == "cancel"

    def book(what: str, first: str | None = None, nights: int = 2) -> str:
        return what

    plain = Workflow("trip").add(book, id="flight", args=["flight"])
    undone = Workflow("trip").add(
        Task(book, compensate=lambda booking: None, name="book"), id="flight", args=["flight"]
    )
    assert plain.definition.content_hash != undone.definition.content_hash


@task
def forget(made: int, n: int = 5) -> None:
    """Undo."""


@task(compensate=forget)
def make(n: int) -> int:
    return n


@workflow
def inner(n: int) -> int:
    return make(n)


@workflow
def outer(n: int) -> list[int]:
    return [inner(n), inner(7)]  # type: ignore[list-item]  # nodes


async def test_a_workflow_inside_another_brings_its_compensations(mesh: Orchestrator, tenant: str) -> None:
    assert sorted(outer.definition.compensations) == ["inner-2.make", "inner.make"]
    undoing = outer.definition.find("undo:inner.make")
    assert (undoing.task, undoing.kwargs["n"].name) == ("forget", "n")
    assert await (await mesh.submit(outer, tenant=tenant, input={"n": 3})).result(10) == [3, 7]
    assert outer(3) == [3, 7], "a direct call undoes nothing"


def test_what_cannot_undo_is_refused_when_it_is_declared() -> None:
    def work(a: int, *rest: int, b: int = 1) -> int:
        return a

    def keyword_only(*, result: int) -> None: ...
    def none() -> None: ...
    def unknown(result: int, c: int) -> None: ...
    def variable(result: int, *a: int) -> None: ...
    def everything(result: int, **a: int) -> None: ...
    def of_rest(result: int, rest: int) -> None: ...

    for bad in (keyword_only, none, unknown, variable, everything, of_rest, make, 7, int):
        with pytest.raises(InvalidWorkflow):
            Task(work, compensate=bad)  # type: ignore[arg-type]  # on purpose
    built = Workflow("w").add(Task(work, compensate=forget), id="x", args=[1])
    with pytest.raises(InvalidWorkflow):
        _ = built.add(work, id="undo:x", args=[1]).definition


class SetClock:
    """A clock that shows what it is set to."""

    def __init__(self) -> None:
        self.moment = 1_700_000_000 * SECOND

    def now(self) -> int:
        return self.moment


async def test_a_clock_that_is_set_back_before_a_start_keeps_no_retry_waiting(open_mesh: Open) -> None:
    clock = SetClock()
    attempts: list[str] = []

    async def undo(done: str) -> None: ...

    async def first() -> str:
        return "done"

    async def second(done: str) -> str:
        attempts.append(done)
        if len(attempts) == 1:
            await asyncio.sleep(3_600)
        if len(attempts) == 2:
            raise OSError("once")
        return done

    soon = RetryPolicy(max_retries=1, initial_delay=0.01)
    saga = Workflow("saga").add(Task(first, compensate=undo), id="first").add(second, args=[ref("first")], retry=soon)
    async with open_mesh(clock=clock) as mesh:
        tenant = (await mesh.create_tenant("Acme", "enterprise")).tenant_id
        handle = await mesh.submit(saga, tenant=tenant)
        async with asyncio.timeout(10):
            while not attempts:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.01)
    clock.moment -= 86_400 * SECOND
    async with open_mesh(clock=clock, workflows=[saga]) as mesh:
        async with asyncio.timeout(10):
            while len(attempts) < 2:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.01)
            await settled(mesh)
            clock.moment += SECOND
            assert await mesh.result_of(handle.id, tenant=tenant) == "done"


# --- random workflows -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(40))
async def test_exactly_the_committed_tasks_are_undone_in_the_reverse_order_of_their_commits(
    mesh: Orchestrator, tenant: str, seed: int
) -> None:
    scripted = random_workflow(seed, components_max=14)
    dice = Random(seed)
    committed: list[str] = []
    undone: list[str] = []

    async def undo(done: str, component_id: str) -> None:
        assert done == component_id
        assert current_task().task_id == f"undo:{component_id}"
        undone.append(component_id)

    async def run_script(component_id: str, *results: object) -> str:
        for _ in range(dice.randrange(4)):
            await asyncio.sleep(0)
        if scripted.outcomes[component_id] is not S.SUCCESS:
            raise OSError("scripted")
        return component_id

    plain, undoable = Task(run_script, name="plain"), Task(run_script, name="undoable", compensate=undo)
    built = Workflow("random")
    with_undo = {c.component_id for c in scripted.definition.components if dice.random() < 0.6}
    for component in scripted.definition.components:
        built.add(
            undoable if component.component_id in with_undo else plain,
            id=component.component_id,
            args=[a if isinstance(a, str) else ref(a.component_id) for a in component.args],
            depends_on=component.dependencies,
            required=component.required,
            retry=ONCE,
        )
    handle = await mesh.submit(built, tenant=tenant)
    async for event in handle.events():
        if event.status is S.SUCCESS and event.task_id in with_undo:
            committed.append(str(event.task_id))
    outcomes = {c: S.SUCCESS if o is S.SUCCESS else S.FAILED for c, o in scripted.outcomes.items()}
    expected = interpret(built.definition, outcomes)
    run = await mesh.get_run(handle.id)
    assert run.status is expected.status
    assert {t.task_id: t.status for t in run.tasks if t.compensates is None} == expected.tasks
    assert set(committed) == {c for c, status in expected.tasks.items() if status is S.SUCCESS and c in with_undo}
    assert undone == (committed[::-1] if run.status is S.FAILED else [])
    assert mesh._running.runs.backlog.total == 0
