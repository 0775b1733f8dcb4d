"""Members that wait for room, beside a list that is looked through."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from synergymesh.domain.scheduling.fair_queue import Cohort
from synergymesh.domain.scheduling.limits import Request
from synergymesh.domain.scheduling.tenant_queue import Queue
from synergymesh.domain.scheduling.waiting_room import COMPACT_SLACK, NEVER, Entry, WaitingRoom

sizes = st.one_of(st.integers(0, 40), st.integers(0, 5_000), st.integers(1_000, 1_012))


def members(count: int) -> list[Queue[Any]]:
    cohort: Cohort[Any] = Cohort("", None)
    return [Queue(f"t{number}", cohort) for number in range(count)]


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_the_first_that_fits_is_found_whatever_came_and_went(data: st.DataObject) -> None:
    queues = members(60)
    room: WaitingRoom[Any] = WaitingRoom()
    waiting: dict[Queue[Any], tuple[Entry[Any], Request]] = {}
    requests = data.draw(st.lists(st.builds(Request, sizes, sizes), min_size=1, max_size=60))
    stamp = 0
    for chosen, tag, place in data.draw(
        st.lists(st.tuples(st.integers(0, 59), st.integers(0, 20), st.integers(0, 59)), max_size=150)
    ):
        queue = queues[chosen]
        if queue in waiting:
            room.leave(queue)
            assert not queue.shut
            del waiting[queue]
        else:
            stamp += 1
            queue.entry = stamp
            request = requests[place % len(requests)]
            waiting[queue] = ((tag, stamp, queue), request)
            room.add(waiting[queue][0], request)
            assert room.entry_of(queue) == waiting[queue][0]
    assert room.size == len(waiting)
    assert set(room.members()) == set(waiting)
    assert room.first() == min((entry for entry, _ in waiting.values()), default=NEVER)
    if waiting:
        asked = [request for _, request in waiting.values()]
        assert room.least() == (min(r.memory_mb for r in asked), min(r.cpu_millis for r in asked))
    for memory, cpu in data.draw(st.lists(st.tuples(sizes, sizes), min_size=1, max_size=10)):
        fitting = [entry for entry, r in waiting.values() if r.memory_mb <= memory and r.cpu_millis <= cpu]
        assert room.find(memory, cpu, NEVER) == min(fitting, default=None)
        limit: Entry[Any] = (10, 0, queues[0])
        assert room.find(memory, cpu, limit) == min((entry for entry in fitting if entry < limit), default=None)


def test_entries_out_of_date_do_not_pile_up() -> None:
    first, other = members(2)
    room: WaitingRoom[Any] = WaitingRoom()
    first.entry = 1
    room.add((0, 1, first), Request(1, 1))
    for stamp in range(2, 1_000):
        other.entry = stamp
        room.add((5, stamp, other), Request(1, 1))
        room.leave(other)
    assert first.group is not None
    assert len(first.group.entries) <= 2 * 2 + COMPACT_SLACK + 1


def test_requests_that_nobody_asks_for_any_more_are_forgotten() -> None:
    (queue,) = members(1)
    room: WaitingRoom[Any] = WaitingRoom()
    for number in range(2_000):
        queue.entry = number + 1
        room.add((0, queue.entry, queue), Request(number, number % 7))
        room.leave(queue)
    assert len(room._groups) < 100
