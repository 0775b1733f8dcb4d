"""A clock that is set back does not make anybody wait."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from synergymesh.domain.instants import SECOND
from synergymesh.ports.clock import SteadyClock

BEGIN = 1_700_000_000 * SECOND


class Hands:
    """A clock and a stopwatch that are moved by hand."""

    def __init__(self) -> None:
        self.passed = 0
        self.offset = 0

    def now(self) -> int:
        return BEGIN + self.passed * SECOND + self.offset * SECOND

    def stopwatch(self) -> float:
        return float(self.passed)


def test_a_clock_that_is_set_back_goes_on_at_the_pace_of_the_stopwatch_and_catches_up() -> None:
    hands = Hands()
    clock = SteadyClock(hands, hands.stopwatch)
    shown = [clock.now()]
    hands.offset = -3_600
    for _ in range(5):
        shown.append(clock.now())
        hands.passed += 10
    assert [(each - BEGIN) // SECOND for each in shown] == [0, 0, 10, 20, 30, 40]
    hands.offset = 7
    assert clock.now() == hands.now(), "a clock that is ahead again is followed"


@given(st.lists(st.tuples(st.integers(0, 100), st.one_of(st.just(0), st.integers(-90_000, 90_000))), max_size=30))
def test_it_never_goes_back_never_stands_still_and_is_never_behind_the_clock(moves: list[tuple[int, int]]) -> None:
    hands = Hands()
    clock = SteadyClock(hands, hands.stopwatch)
    before = clock.now()
    for seconds, step in moves:
        hands.offset += step
        clock.now()
        hands.passed += seconds
        now = clock.now()
        assert now >= before + seconds * SECOND
        assert now >= hands.now()
        before = now


def test_the_smallest_steps_add_up_while_it_is_ahead() -> None:
    hands = Hands()
    passed = [0.0]
    clock = SteadyClock(hands, lambda: passed[0])
    hands.offset = -3_600
    clock.now()
    hands.offset = 0
    begin = clock.now()
    hands.offset = -3_600
    clock.now()
    for _ in range(1_000):
        passed[0] += 0.9e-9
        clock.now()
    assert 890 <= clock.now() - begin <= 910
