"""The loop that never waits: the order of callbacks, the passing of time, and what cannot go on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from synergymesh.testing import virtual_time
from synergymesh.testing.virtual_time import Deadlock, Livelock, VirtualClock, VirtualLoop


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    made = VirtualLoop()
    yield made
    made.close()


def test_a_day_passes_at_once_and_timers_ring_in_their_order(loop: VirtualLoop) -> None:
    rung: list[tuple[str, float]] = []

    async def wait(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        rung.append((name, loop.time()))

    async def main() -> None:
        await asyncio.gather(wait("day", 86_400), wait("second", 1), wait("same second", 1), wait("now", 0))

    began = time.monotonic()
    loop.run_until_complete(main())
    assert rung == [("now", 0.0), ("second", 1.0), ("same second", 1.0), ("day", 86_400.0)]
    assert time.monotonic() - began < 10


def test_who_waits_for_nothing_is_told_so(loop: VirtualLoop) -> None:
    with pytest.raises(Deadlock):
        loop.run_until_complete(loop.create_future())


def test_callbacks_that_never_rest_are_told_so(loop: VirtualLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtual_time, "CALLBACKS_AT_ONCE_MAX", 100)

    def again() -> None:
        loop.call_soon(again)

    again()
    with pytest.raises(Livelock):
        loop.run_forever()


def test_a_clock_can_be_set_and_a_process_can_stand_still(loop: VirtualLoop) -> None:
    clock = VirtualClock(loop)
    begin = clock.now()
    loop.leap(2.5)
    assert clock.now() - begin == 2_500_000_000
    clock.step(-3_600)
    assert clock.now() - begin == (2 - 3_600) * 1_000_000_000 + 500_000_000


def test_what_would_go_to_a_thread_is_done_here(loop: VirtualLoop) -> None:
    assert loop.run_until_complete(asyncio.to_thread(sum, [1, 2])) == 3

    async def fails() -> None:
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(divmod, 1, 0)

    loop.run_until_complete(fails())
