"""One thread with a queue: what runs in it runs in order, and its results go back to the event loop that asked."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

_Item = tuple[Callable[..., Any], tuple[Any, ...], asyncio.AbstractEventLoop, "asyncio.Future[Any]"]


class DatabaseThread:
    """Run blocking functions one after the other in a thread of its own.

    `translate` turns every exception of a function into the one that the caller sees.
    """

    def __init__(self, name: str, translate: Callable[[Exception], Exception]) -> None:
        self._translate = translate
        self._queue: SimpleQueue[_Item | None] = SimpleQueue()
        # A daemon: a process that forgets to close its store can still end.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run a function in the thread and give what it returns.

        It runs to its end even when the caller is cancelled meanwhile.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._queue.put((function, arguments, loop, future))
        return await future

    def stop(self) -> None:
        """Let the thread end once everything that is queued has run. Waits for it."""
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            function, arguments, loop, future = item
            result: Any = None
            error: BaseException | None = None
            try:
                result = function(*arguments)
            except Exception as raised:
                error = self._translate(raised)
                if error is not raised:
                    error.__cause__ = raised
            except BaseException as raised:
                error = raised
            # The loop may be closed by now; then nobody waits for the answer.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_answer, future, result, error)
            # An idle thread must not keep the last batch in memory.
            del item, function, arguments, loop, future, result, error


def _answer(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
