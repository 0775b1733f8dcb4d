"""Letters into an event loop: in order, from any thread, with few wake-ups, and none is left lying."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from contextvars import Context, ContextVar
from typing import Any

import pytest

from synergymesh.mailbox import Mailbox, Reply, mailbox_here, tell


class Loop:
    """Stand for an event loop that counts how often it is woken."""

    def __init__(self) -> None:
        self.due: list[Callable[[], object]] = []

    def call_soon_threadsafe(self, function: Callable[[], object], *, context: Context) -> None:
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


async def test_nothing_that_whoever_posts_has_set_in_his_context_is_seen() -> None:
    box, set_here = mailbox_here(), ContextVar("set_here", default="nowhere")
    seen: list[str] = []
    ended = asyncio.Event()

    def follows() -> None:
        seen.append(set_here.get())
        ended.set()

    def letter() -> None:
        seen.append(set_here.get())
        set_here.set("by a letter")
        box.soon(follows)

    set_here.set("by who posts")
    box.post(letter)
    await ended.wait()
    ended.clear()
    box.soon(follows)
    await ended.wait()
    assert seen[0] == "nowhere"
    assert "by who posts" not in seen


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


# --- what follows from letters --------------------------------------------------------------------------------------


def test_what_follows_from_letters_is_done_behind_all_of_them_in_the_same_turn() -> None:
    loop, done = Loop(), list[str]()
    box = mailbox(loop)

    def letter(name: str) -> None:
        done.append(name)
        box.soon(lambda: done.append(f"follows {name}"))

    box.post(letter, "a")
    box.post(letter, "b")
    loop.turn()
    assert done == ["a", "b", "follows a", "follows b"]
    assert not loop.due


def test_what_follows_from_anything_else_or_from_what_follows_is_done_in_the_next_turn() -> None:
    loop, done = Loop(), list[str]()
    box = mailbox(loop)
    box.soon(lambda: done.append("of no letter"))
    assert not done
    loop.turn()
    assert done == ["of no letter"]
    box.post(lambda: box.soon(lambda: (done.append("first"), box.soon(lambda: done.append("second")))))
    loop.turn()
    assert done == ["of no letter", "first"]
    loop.turn()
    assert done == ["of no letter", "first", "second"]


def test_neither_a_letter_nor_what_follows_is_forgotten_when_another_one_fails() -> None:
    def fail() -> None:
        raise ValueError

    loop, done = Loop(), list[str]()
    box = mailbox(loop)
    for step in (lambda: done.append("a"), fail, lambda: done.append("b")):
        box.post(box.soon, step)
    box.post(fail)
    box.post(done.append, "letter")
    turns = 0
    while loop.due:
        turns += 1
        for function in loop.due[:]:
            loop.due.remove(function)
            with contextlib.suppress(ValueError):
                function()
    assert sorted(done) == ["a", "b", "letter"]
    assert turns < 5


async def test_the_mailbox_here_is_one_for_each_running_loop() -> None:
    here = mailbox_here()
    assert here is mailbox_here()
    assert here.loop is asyncio.get_running_loop()
    there = await asyncio.to_thread(lambda: asyncio.run(_mailbox_here()))
    assert there is not here
    assert there.loop.is_closed()


async def _mailbox_here() -> Mailbox:
    return mailbox_here()


def test_where_no_loop_runs_there_is_no_mailbox() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        mailbox_here()


# --- replies --------------------------------------------------------------------------------------------------------


async def in_a_thread(function: Callable[..., object], *arguments: object) -> None:
    thread = threading.Thread(target=function, args=arguments)
    thread.start()
    await asyncio.to_thread(thread.join)


@pytest.mark.parametrize("is_awaited_before", [True, False])
async def test_a_reply_is_what_the_other_thread_answers(is_awaited_before: bool) -> None:
    well, badly = Reply[int](mailbox_here()), Reply[int](mailbox_here())

    async def awaited(reply: Reply[int]) -> int:
        return await reply

    waiting = [asyncio.create_task(awaited(reply)) for reply in (well, badly)] if is_awaited_before else []
    await asyncio.sleep(0)
    await in_a_thread(well.post, 5, None)
    await in_a_thread(badly.post, None, KeyError("no"))
    waiting = waiting or [asyncio.create_task(awaited(reply)) for reply in (well, badly)]
    assert await waiting[0] == 5
    with pytest.raises(KeyError, match="no"):
        await waiting[1]


async def test_who_no_longer_awaits_a_reply_is_not_disturbed_by_it() -> None:
    reply = Reply[int](mailbox_here())

    async def awaited() -> int:
        return await reply

    waiting = asyncio.create_task(awaited())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await in_a_thread(reply.post, 5, None)
    assert await reply == 5


def test_a_reply_is_told_in_the_turn_in_which_it_comes_and_what_follows_from_it_is_done() -> None:
    loop, told = Loop(), list[object]()
    box = mailbox(loop)
    reply = Reply[int](box)

    def take(result: object, error: object) -> None:
        told.append((result, error))
        box.soon(lambda: told.append("followed"))

    assert tell(reply, take) is None
    reply.post(5, None)
    loop.turn()
    assert told == [(5, None), "followed"]
    late: list[object] = []
    tell(reply, lambda result, error: late.append(result))
    assert late == [5]


async def test_what_anything_else_gives_is_told_too() -> None:
    async def well() -> int:
        return 5

    async def badly() -> int:
        raise KeyError("no")

    told: list[object] = []
    kept = [tell(each(), lambda result, error: told.append((result, type(error)))) for each in (well, badly)]
    waiting = tell(asyncio.Event().wait(), lambda result, error: told.append((result, type(error))))
    assert waiting is not None
    for each in kept:
        assert each is not None
        await asyncio.wait([each])
    waiting.cancel()
    await asyncio.wait([waiting])
    await asyncio.sleep(0)
    assert told == [(5, type(None)), (None, KeyError), (None, asyncio.CancelledError)]


def test_for_a_closed_loop_nobody_waits() -> None:
    loop = asyncio.new_event_loop()
    box = Mailbox(loop)
    assert box.post_if_open(print)
    loop.close()
    assert not box.post_if_open(print)
    Reply[int](box).post(5, None)
