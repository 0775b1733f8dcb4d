"""Calls into the event loop of another thread: as many as are waiting with one wake-up."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

Letter = tuple[Callable[..., object], tuple[Any, ...]]


class Mailbox:
    """Call functions in an event loop, in the order in which they were posted, from any thread.

    Waking a loop is a system call during which the thread lets go of the interpreter lock, so only the first letter in
    an empty mailbox does it. All run in the context of whoever woke the loop: what needs its own brings it along.

    Attributes:
        loop: where the functions are called.
    """

    __slots__ = ("_is_awake", "_letters", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._letters: deque[Letter] = deque()
        self._is_awake = False

    @property
    def is_empty(self) -> bool:
        """Tell whether no letter waits to be read; for who reads one."""
        return not self._letters

    def post(self, function: Callable[..., object], *arguments: Any) -> None:
        """Have a function called in the loop, soon.

        Raises:
            RuntimeError: the loop is closed.
        """
        self._letters.append((function, arguments))
        # Behind the letter, as the loop says in front of its look that it sleeps again: no letter is left lying.
        if not self._is_awake:
            self._is_awake = True
            self.loop.call_soon_threadsafe(self._empty)
        elif self.loop.is_closed():
            raise RuntimeError("Event loop is closed")

    def _empty(self) -> None:
        self._is_awake = False
        letters = self._letters
        for _ in range(len(letters)):  # and no more, so that the loop does what else there is
            function, arguments = letters.popleft()
            try:
                function(*arguments)
            except BaseException:
                if letters:
                    self._is_awake = True
                    self.loop.call_soon(self._empty)
                raise


def answer(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    """Give somebody who may not wait any more what he has asked for; a letter from another thread."""
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
