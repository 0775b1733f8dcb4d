"""The heap of deadlines beside the simplest model of it: a sorted list."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synergymesh.domain.instants import SECOND
from synergymesh.engine.timing.deadlines import CANCELLED_MAX, Deadline, Deadlines


@dataclass
class Handle:
    at: float
    action: Callable[..., object]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeLoop:
    """An event loop whose time stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[Handle] = []

    def time(self) -> float:
        return self.now

    def call_at(self, at: float, action: Callable[..., object]) -> Handle:
        handle = Handle(at, action)
        self.timers.append(handle)
        return handle

    def call_soon(self, action: Callable[..., object]) -> None:
        action()

    def advance(self, seconds: float) -> None:
        self.now += seconds
        while due := [t for t in self.timers if not t.cancelled and t.at <= self.now]:
            self.timers.remove(due[0])
            due[0].action()
        self.timers = [t for t in self.timers if not t.cancelled]


class StoppedClock:
    moment = 1_700_000_000 * SECOND

    def now(self) -> int:
        return self.moment


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> FakeLoop:
    loop = FakeLoop()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: loop)
    return loop


steps = st.lists(
    st.one_of(
        st.tuples(st.just("after"), st.integers(0, 50)),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.just("advance"), st.integers(0, 20)),
    ),
    max_size=60,
)


@given(steps)
def test_what_is_due_happens_once_in_its_order_and_what_is_cancelled_never(script: list[tuple[str, int]]) -> None:
    loop = FakeLoop()
    happened: list[int] = []
    expected: list[int] = []
    waiting: dict[int, float] = {}
    made: list[Deadline] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(asyncio, "get_running_loop", lambda: loop)
        deadlines = Deadlines(StoppedClock())
        for verb, number in script:
            if verb == "after":
                waiting[len(made)] = loop.now + number
                made.append(deadlines.after(number, happened.append, len(made)))
            elif verb == "cancel" and number < len(made):
                made[number].cancel()
                waiting.pop(number, None)
            elif verb == "advance":
                loop.advance(number)
                due = sorted((at, key) for key, at in waiting.items() if at <= loop.now)
                expected += [key for _, key in due]
                for _, key in due:
                    del waiting[key]
                assert happened == expected
            assert sum(not timer.cancelled for timer in loop.timers) <= 1


def test_a_moment_of_the_calendar_comes_after_the_time_until_then_and_one_that_has_passed_soon(loop: FakeLoop) -> None:
    happened: list[str] = []
    deadlines = Deadlines(StoppedClock())
    deadlines.at(StoppedClock.moment + 5 * SECOND, happened.append, "later")
    deadlines.at(StoppedClock.moment - 3_600 * SECOND, happened.append, "passed")
    assert happened == []  # never before the caller goes on
    loop.advance(0)
    assert happened == ["passed"]
    loop.advance(4.9)
    assert happened == ["passed"]
    loop.advance(0.1)
    assert happened == ["passed", "later"]


def test_cancelled_deadlines_do_not_pile_up(loop: FakeLoop) -> None:
    deadlines = Deadlines(StoppedClock())
    kept: list[Any] = []
    first = deadlines.after(3_600, kept.append, "kept")
    for _ in range(100_000):
        deadlines.after(3_600, kept.append, "cancelled").cancel()
        assert len(deadlines) <= CANCELLED_MAX + 2
    loop.advance(3_600)
    assert kept == ["kept"]
    first.cancel()
    assert len(deadlines) <= CANCELLED_MAX + 1


def test_nothing_happens_after_the_end(loop: FakeLoop) -> None:
    deadlines = Deadlines(StoppedClock())
    happened: list[int] = []
    deadlines.after(1, happened.append, 1)
    deadlines.close()
    loop.advance(10)
    assert happened == []
