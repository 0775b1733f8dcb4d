"""What an orchestrator can be given in place of what it takes by itself."""

from __future__ import annotations

from random import Random
from typing import Any

from synergymesh import Orchestrator, ResourceQuota, Workflow
from synergymesh.assembly import Seams
from synergymesh.executors.loop import LoopExecutor
from synergymesh.store.sqlite import SqliteStore


class ReportsTwice(LoopExecutor):
    """An executor that does not keep to its contract."""

    def run(self, call: Any) -> None:
        done = call.ended

        def twice(attempt: Any, outcome: Any) -> None:
            done(attempt, outcome)
            done(attempt, outcome)

        call.ended = twice
        super().run(call)


async def test_an_outcome_that_is_reported_twice_frees_one_slot_only(unhandled: list[dict[str, Any]]) -> None:
    async def work(number: int) -> int:
        return number

    built = Workflow("w")
    for number in range(6):
        built.add(work, id=f"t{number}", args=[number])
    async with Orchestrator(":memory:", seams=Seams(executors={"loop": ReportsTwice()})) as mesh:
        quota = ResourceQuota(max_concurrent_tasks=2)
        tenant = (await mesh.create_tenant("A", quota=quota)).tenant_id
        await (await mesh.submit(built.returns(None), tenant=tenant)).result(5)
        (view,) = await mesh.queue()
        assert view.running == 0
    assert not unhandled


async def test_with_dice_that_fall_the_same_ids_are_the_same() -> None:
    class Stopped:
        def now(self) -> int:
            return 1_000_000_000

    async def work() -> None:
        return None

    ids = []
    for _ in range(2):
        seams = Seams(store=SqliteStore(":memory:"), dice=Random(7))
        async with Orchestrator(clock=Stopped(), seams=seams) as mesh:
            tenant = (await mesh.create_tenant("A")).tenant_id
            handle = await mesh.submit(Workflow("w").add(work), tenant=tenant)
            await handle.result(5)
            ids.append((tenant, handle.id))
    assert ids[0] == ids[1]
