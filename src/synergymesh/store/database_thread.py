"""One thread with a queue: what runs in it runs in order, and its results go back to the event loop that asked."""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable
from queue import SimpleQueue
from typing import Any, ClassVar, TypeVar

from synergymesh.errors import StoreError
from synergymesh.mailbox import Reply, mailbox_here

T = TypeVar("T")

_Item = tuple[Callable[..., Any], tuple[Any, ...], Reply[Any]]


class DatabaseThread:
    """Run blocking functions one after the other in a thread of its own.

    `translate` turns every exception of a function into the one that the caller sees.

    Raises:
        StoreError: the process was forked off from one in which such a thread ran. That thread is not in this process,
            and may have held one of SQLite's locks, which nobody would ever release here.
    """

    _running: ClassVar[set[DatabaseThread]] = set()
    _is_cut_off: ClassVar[bool] = False

    def __init__(self, name: str, translate: Callable[[Exception], Exception]) -> None:
        if DatabaseThread._is_cut_off:
            raise StoreError(
                "this process was forked off while a database was open, so SQLite may be locked in it for ever. Fork "
                'before anything is opened, or start processes with multiprocessing.get_context("spawn").'
            )
        self._translate = translate
        self._queue: SimpleQueue[_Item | None] = SimpleQueue()
        # A daemon: a process that forgets to close its store can still end.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()
        self._running.add(self)

    def run(self, function: Callable[..., T], *arguments: Any) -> Awaitable[T]:
        """Run a function in the thread, and let what it returns be awaited.

        It runs to its end even when the caller is cancelled meanwhile.
        """
        reply: Reply[T] = Reply(mailbox_here())
        self._queue.put((function, arguments, reply))
        return reply

    def stop(self) -> None:
        """Let the thread end once everything that is queued has run. Waits for it."""
        self._queue.put(None)
        self._thread.join()
        self._running.discard(self)

    @classmethod
    def _forked(cls) -> None:
        cls._is_cut_off = cls._is_cut_off or bool(cls._running)

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            function, arguments, reply = item
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
            reply.post(result, error)
            # An idle thread must not keep the last batch in memory.
            del item, function, arguments, reply, result, error


os.register_at_fork(after_in_child=DatabaseThread._forked)
