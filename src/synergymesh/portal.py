"""An event loop in a thread of its own, for programs that have none."""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from synergymesh.errors import NotRunning

T = TypeVar("T")


class _Threads(ThreadPoolExecutor):
    """Call functions in threads; while the interpreter ends, where they are called, since no thread starts any more."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Call a function, soon or at once."""
        try:
            return super().submit(fn, *args, **kwargs)
        except RuntimeError:
            future: Future[T] = Future()
            try:
                future.set_result(fn(*args, **kwargs))
            except Exception as error:
                future.set_exception(error)
            return future


class Portal:
    """Run coroutines in an event loop in a thread of its own, from any other thread.

    The thread is a daemon: a program that forgets to close the portal still ends, and `at_exit` is called before.

    Args:
        name: of the thread.
        at_exit: is called when the interpreter ends and the portal is still open.

    Attributes:
        is_open: until `close()`.
    """

    def __init__(self, name: str, at_exit: Callable[[], object]) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(_Threads(thread_name_prefix=name))
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._at_exit = at_exit
        self.is_open = True
        self._thread.start()
        atexit.register(at_exit)

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine and wait for what it gives; blocks the calling thread.

        Raises:
            NotRunning: the portal is closed, or the caller is the portal's own thread.
        """
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise NotRunning("a task cannot call the synchronous orchestrator that runs it: it would wait for itself.")
        return self.begin(coroutine).result()

    def begin(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin to run a coroutine.

        Raises:
            NotRunning: the portal is closed.
        """
        if not self.is_open:
            coroutine.close()
            raise NotRunning("the orchestrator is closed. Open a new one.")
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def close(self) -> None:
        """End the loop and the thread. Closing twice does nothing."""
        if not self.is_open:
            return
        self.is_open = False
        atexit.unregister(self._at_exit)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()
