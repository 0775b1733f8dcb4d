"""The executor between the engine and a real one: it reports late, twice, or loses what it was given."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from synergymesh.domain.fault_tolerance.retry import Cancelled, Lost, Outcome, Succeeded
from synergymesh.executors.loop import LoopExecutor
from synergymesh.ports.task_context import TaskContext
from synergymesh.testing.faults import NO_FAULT, FaultyExecutor
from synergymesh.testing.virtual_time import VirtualLoop


class Kind:
    """A fate that lets everything be."""

    def __init__(self, *reports: float) -> None:
        self.reports = reports or (0.0,)

    async def at(self, point: str) -> None: ...
    def at_once(self, point: str) -> None: ...

    def of_store(self, verb: str) -> Any:
        return NO_FAULT

    def of_report(self, call: Any) -> tuple[float, ...]:
        return self.reports


class Call:
    """An attempt that remembers how it ended."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.context = TaskContext("run-1", "c", "tenant-1", 1)
        self.handle: Any = None
        self.stopped = False
        self.function = function
        self.outcomes: list[Outcome] = []
        self.ended = asyncio.Event()

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (), {}

    def encode(self, value: Any) -> bytes:
        return b"1"

    def done(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self.ended.set()


async def started(call: Call, fate: Kind, **hooks: Any) -> FaultyExecutor:
    executor = FaultyExecutor(LoopExecutor(), fate, **hooks)
    await executor.start()
    executor.run(call)
    return executor


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_it_loses_is_reported_as_lost_once_and_its_task_is_stopped() -> None:
    swallowed = asyncio.Event()

    async def work() -> int:
        try:
            await asyncio.sleep(3_600)
        except asyncio.CancelledError:
            swallowed.set()
        return 1

    call = Call(work)
    reported: list[Outcome] = []
    await started(call, Kind(), loses=lambda call: 0.0, reported=lambda call, outcome: reported.append(outcome))
    await call.ended.wait()
    await swallowed.wait()
    await settle()
    assert [type(each) for each in call.outcomes] == [Lost]
    assert reported == call.outcomes


def test_what_ends_first_is_not_lost_any_more() -> None:
    async def work() -> int:
        return 1

    async def main() -> list[Outcome]:
        call = Call(work)
        executor = await started(call, Kind(), loses=lambda call: 60.0)
        await call.ended.wait()
        await asyncio.sleep(61)
        executor.crash()
        return call.outcomes

    loop = VirtualLoop()
    try:
        outcomes = loop.run_until_complete(main())
    finally:
        loop.close()
    assert [type(each) for each in outcomes] == [Succeeded]


async def test_an_outcome_that_is_on_its_way_is_lost_with_its_executor() -> None:
    async def work() -> int:
        return 1

    call = Call(work)
    executor = await started(call, Kind(0.01, 0.01))
    await settle()
    executor.crash()
    first = list(call.outcomes)
    assert [type(each) for each in first] == [Lost]


async def test_a_crash_loses_everything_that_is_under_way() -> None:
    async def work() -> None:
        await asyncio.sleep(3_600)

    calls = [Call(work) for _ in range(3)]
    executor = FaultyExecutor(LoopExecutor(), Kind())
    await executor.start()
    for call in calls:
        executor.run(call)
    await settle()
    executor.crash()
    await settle()
    assert [[type(each) for each in call.outcomes] for call in calls] == [[Lost]] * 3


async def test_it_says_when_a_call_is_stopped_for_the_first_time() -> None:
    async def work() -> None:
        await asyncio.sleep(3_600)

    call = Call(work)
    stopped: list[Any] = []
    executor = await started(call, Kind(), stopped=stopped.append)
    await settle()
    executor.stop(call)
    executor.stop(call)
    await call.ended.wait()
    assert stopped == [call]
    assert [type(each) for each in call.outcomes] == [Cancelled]
