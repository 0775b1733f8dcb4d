"""Calls into the event loop of another thread: as many as are waiting with one wake-up, and what follows from them."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from contextvars import Context
from typing import Any, Generic, TypeVar

T = TypeVar("T")

Letter = tuple[Callable[..., object], tuple[Any, ...]]


class Mailbox:
    """Call functions in an event loop, in the order in which they were posted, from any thread.

    Waking a loop is a system call during which the thread lets go of the interpreter lock, so only the first letter in
    an empty mailbox does it. All run in an empty context (PEP 567), as what whoever woke the loop has set there is no
    business of the others: what needs its own brings it along.

    A turn of a loop costs as much as a small task does. So what follows from letters (`soon`) is done behind them in
    the turn in which they are read, once for all of them.

    Attributes:
        loop: where the functions are called.
    """

    __slots__ = ("_context", "_follows", "_is_awake", "_is_read", "_letters", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._context = Context()
        self._letters: deque[Letter] = deque()
        self._follows: deque[Callable[[], object]] = deque()
        self._is_awake = False
        self._is_read = False

    def post(self, function: Callable[..., object], *arguments: Any) -> None:
        """Have a function called in the loop, soon.

        Raises:
            RuntimeError: the loop is closed.
        """
        self._letters.append((function, arguments))
        # Behind the letter, as the loop says in front of its look that it sleeps again: no letter is left lying.
        if not self._is_awake:
            self._is_awake = True
            self.loop.call_soon_threadsafe(self._empty, context=self._context)
        elif self.loop.is_closed():
            raise RuntimeError("Event loop is closed")

    def post_if_open(self, function: Callable[..., object], *arguments: Any) -> bool:
        """Have a function called in the loop, soon; tell whether the loop is open, where somebody waits for that."""
        try:
            self.post(function, *arguments)
        except RuntimeError:
            return False
        return True

    def soon(self, function: Callable[[], object]) -> None:
        """Call a function behind the letters that are being read, or in the loop's next turn; from the loop itself."""
        if self._is_read:
            self._follows.append(function)
        else:
            self.loop.call_soon(function, context=self._context)

    def _empty(self) -> None:
        self._is_awake = False
        letters, follows = self._letters, self._follows
        self._is_read = True
        try:
            for _ in range(len(letters)):  # and no more, so that the loop does what else there is
                function, arguments = letters.popleft()
                function(*arguments)
            for _ in range(len(follows)):
                follows.popleft()()
        except BaseException:
            if letters:
                self._is_awake = True
                self.loop.call_soon(self._empty, context=self._context)
            raise
        finally:
            self._is_read = False
            while follows:  # what follows from what follows, or was behind an error
                self.loop.call_soon(follows.popleft(), context=self._context)


_of_thread = threading.local()


def mailbox_here() -> Mailbox:
    """Give the mailbox of the running event loop.

    Raises:
        RuntimeError: no loop is running.
    """
    loop = asyncio.get_running_loop()
    known: Mailbox | None = getattr(_of_thread, "mailbox", None)
    if known is None or known.loop is not loop:
        known = _of_thread.mailbox = Mailbox(loop)
    return known


def take_for_this_thread(mailbox: Mailbox) -> None:
    """Let a mailbox be that of its loop, which is going to run in the calling thread."""
    _of_thread.mailbox = mailbox


class Reply(Generic[T]):
    """What another thread will answer: to be awaited, or told to a function in the turn in which it comes.

    Args:
        here: leads to the event loop that asks.
    """

    __slots__ = ("_error", "_here", "_is_there", "_result", "_told")

    def __init__(self, here: Mailbox) -> None:
        self._here = here
        self._is_there = False
        self._result: Any = None
        self._error: BaseException | None = None
        self._told: Callable[[Any, BaseException | None], object] | None = None

    def post(self, result: T | None, error: BaseException | None) -> None:
        """Answer, from any thread; once the loop that asked is closed, nobody waits for it."""
        self._here.post_if_open(self._arrive, result, error)

    def then(self, told: Callable[[Any, BaseException | None], object]) -> None:
        """Have a function called with the result, or None and the error; at once if they are there."""
        if self._is_there:
            told(self._result, self._error)
        else:
            self._told = told

    def __await__(self) -> Generator[Any, None, T]:
        """Wait for the result."""
        future: asyncio.Future[T] = self._here.loop.create_future()
        self.then(lambda result, error: answer(future, result, error))
        return (yield from future)

    def _arrive(self, result: Any, error: BaseException | None) -> None:
        self._is_there, self._result, self._error = True, result, error
        if self._told is not None:
            self._told(result, error)


def tell(awaited: Awaitable[T], told: Callable[[Any, BaseException | None], object]) -> asyncio.Future[T] | None:
    """Have a function told what awaiting something gives, or None and the error.

    Of a reply it is told in the turn in which that comes; awaiting it would take a turn more.

    Returns:
        what has to be kept until then, as the loop itself may forget it.
    """
    if isinstance(awaited, Reply):
        awaited.then(told)
        return None

    def ended(future: asyncio.Future[T]) -> None:
        error = asyncio.CancelledError() if future.cancelled() else future.exception()
        told(None if error is not None else future.result(), error)

    future = asyncio.ensure_future(awaited)
    future.add_done_callback(ended)
    return future


def answer(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    """Give somebody who may not wait any more what he has asked for; a letter from another thread."""
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
