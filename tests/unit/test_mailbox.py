"""Letters into an event loop: in order, from any thread, with few wake-ups, and none is left lying."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from synergymesh.mailbox import Mailbox


class Loop:
    """Stand for an event loop that counts how often it is woken."""

    def __init__(self) -> None:
        self.due: list[Callable[[], object]] = []

    def call_soon_threadsafe(self, function: Callable[[], object]) -> None:
        self.due.append(function)

    call_soon = call_soon_threadsafe

    def is_closed(self) -> bool:
        return False

    def turn(self) -> None:
        due, self.due = self.due, []
        for function in due:
            function()


def mailbox(loop: Any) -> Mailbox:
    return Mailbox(loop)


def test_letters_are_read_in_order_with_one_wake_up() -> None:
    loop, read = Loop(), list[int]()
    box = mailbox(loop)
    for number in range(5):
        box.post(read.append, number)
    assert len(loop.due) == 1
    loop.turn()
    assert read == [0, 1, 2, 3, 4]
    box.post(read.append, 5)
    assert len(loop.due) == 1


def test_what_a_letter_posts_is_read_in_the_next_turn() -> None:
    loop, read = Loop(), list[str]()
    box = mailbox(loop)
    box.post(lambda: (read.append("first"), box.post(read.append, "second")))
    loop.turn()
    assert read == ["first"]
    loop.turn()
    assert read == ["first", "second"]


@pytest.mark.parametrize("error", [ValueError(), KeyboardInterrupt()])
def test_a_letter_that_fails_keeps_none_of_the_others(error: BaseException) -> None:
    def fail() -> None:
        raise error

    loop, read = Loop(), list[int]()
    box = mailbox(loop)
    for letter in (fail, lambda: read.append(1), fail, lambda: read.append(2)):
        box.post(letter)
    for _ in range(2):
        with pytest.raises(type(error)):
            loop.turn()
    loop.turn()
    assert read == [1, 2]


def test_the_mailbox_of_a_closed_loop_says_so_whether_or_not_it_was_woken_before() -> None:
    loop = asyncio.new_event_loop()
    woken, sleeping = Mailbox(loop), Mailbox(loop)
    woken.post(print)
    loop.close()
    for box in (woken, woken, sleeping):
        with pytest.raises(RuntimeError, match="closed"):
            box.post(print)


async def test_letters_of_many_threads_all_arrive_in_each_ones_order() -> None:
    box = Mailbox(asyncio.get_running_loop())
    read: list[tuple[int, int]] = []
    ended = asyncio.Event()

    def write(writer: int) -> None:
        for number in range(2_000):
            box.post(take, writer, number)

    def take(writer: int, number: int) -> None:
        read.append((writer, number))
        if len(read) == 8_000:
            ended.set()

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    await ended.wait()
    for writer in range(4):
        assert [number for who, number in read if who == writer] == list(range(2_000))
