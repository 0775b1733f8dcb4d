"""An event loop in a thread of its own, for programs that have none."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from typing import Any, Generic, TypeVar

from synergymesh.errors import NotRunning
from synergymesh.logs import Log
from synergymesh.mailbox import Mailbox, answer, mailbox_here, take_for_this_thread

END_SECONDS = 1.0
"""How long coroutines and threads may take to end when the portal is closed."""

CLOSED_MEANWHILE = "the orchestrator was closed meanwhile. Open a new one, and ask again."

log = Log("synergymesh.portal")

T = TypeVar("T")
B = TypeVar("B")


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


class Question(Generic[T]):
    """Wait for an answer from the portal's event loop; it is a waiter as a future is, and used there.

    Attributes:
        answer: for who asks, in his event loop.
        begun: what beginning to look for the answer gave.
        there: leads into that loop.
    """

    __slots__ = ("_is_answered", "_open", "answer", "begun", "there")

    def __init__(self, there: Mailbox, open_: set[Question[Any]]) -> None:
        self.answer: asyncio.Future[T] = there.loop.create_future()
        self.begun: Any = None
        self.there = there
        self._open = open_
        self._is_answered = False

    @property
    def is_withdrawn(self) -> bool:
        """Tell whether nobody waits for the answer any more."""
        return self.answer.cancelled()

    def done(self) -> bool:
        """Tell whether it is answered."""
        return self._is_answered

    def set_result(self, result: T, /) -> None:
        """Answer it."""
        self._answer(result, None)

    def set_exception(self, exception: Exception, /) -> None:
        """Say why there is no answer."""
        self._answer(None, exception)

    def _answer(self, result: Any, error: Exception | None) -> None:
        self._is_answered = True
        self._open.discard(self)
        self.there.post_if_open(answer, self.answer, result, error)


class Portal:
    """Run coroutines in an event loop in a thread of its own, from any other thread.

    The thread is a daemon: a program that forgets to close the portal still ends, and `at_exit` is called before. A
    process that was forked off has no such thread, so the portal is closed there.

    Args:
        name: of the thread.
        at_exit: is called when the interpreter ends and the portal is still open.

    Attributes:
        mailbox: leads into the portal's loop.
    """

    def __init__(self, name: str, at_exit: Callable[[], object]) -> None:
        self._loop = asyncio.new_event_loop()
        self._threads = _Threads(thread_name_prefix=name)
        self._loop.set_default_executor(self._threads)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._at_exit = at_exit
        self._process = os.getpid()
        self._questions: set[Question[Any]] = set()
        self.mailbox = Mailbox(self._loop)
        self._open = True
        self._opening = threading.Lock()
        """Held while something is begun, so that nothing is begun in a loop that ends."""
        self._thread.start()
        atexit.register(at_exit)

    @property
    def is_open(self) -> bool:
        """Tell whether something can be run: until `close()`, and only in the process that made it."""
        return self._open and not self._is_forked

    @property
    def _is_forked(self) -> bool:
        return os.getpid() != self._process

    def check_caller(self) -> None:
        """Refuse a caller who would wait for itself.

        Raises:
            NotRunning: the caller is the portal's own thread.
        """
        if threading.current_thread() is self._thread:
            raise NotRunning("a task cannot call the synchronous orchestrator that runs it: it would wait for itself.")

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine and wait for what it gives; blocks the calling thread.

        Raises:
            NotRunning: the portal is closed, is closed meanwhile, or the caller is the portal's own thread.
        """
        try:
            self.check_caller()
        except NotRunning:
            coroutine.close()
            raise
        try:
            return self.begin(coroutine).result()
        except CancelledError:
            if self.is_open:
                raise
            raise NotRunning(CLOSED_MEANWHILE) from None

    async def wait_for(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine and wait for what it gives in the caller's event loop; cancelling the caller cancels it.

        Raises:
            NotRunning: the portal is closed, or is closed meanwhile.
        """
        future = self.begin(coroutine)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if self.is_open or (caller is not None and caller.cancelling()):
                raise
            raise NotRunning(CLOSED_MEANWHILE) from None

    async def ask(self, begin: Callable[[Question[T], Mailbox], B], withdraw: Callable[[B], object]) -> tuple[B, T]:
        """Begin something in the portal's loop, and wait for the answer in the caller's; one wake-up each way.

        Args:
            begin: begins it in the portal's loop, in the caller's context, and returns at once. It gets the question
                to answer, and what leads into the loop of the caller.
            withdraw: is called there with what `begin` gave when the caller is cancelled.

        Returns:
            what `begin` gave, and the answer.

        Raises:
            NotRunning: the portal is closed, or is closed meanwhile.
            Exception: what `begin` raises, or the question is answered with.
        """
        question: Question[T] = Question(mailbox_here(), self._questions)
        context = copy_context()
        self._if_open(self.mailbox.post, context.run, self._begin, question, begin)
        try:
            answer = await question.answer
        except asyncio.CancelledError:
            with suppress(NotRunning):
                self._if_open(self.mailbox.post, context.run, self._withdraw, question, withdraw)
            raise
        return question.begun, answer

    def begin(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin to run a coroutine.

        Raises:
            NotRunning: the portal is closed.
        """
        try:
            return self._if_open(asyncio.run_coroutine_threadsafe, coroutine, self._loop)
        except NotRunning:
            coroutine.close()
            raise

    def _if_open(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call what begins something in the loop, and let the loop not end meanwhile.

        Raises:
            NotRunning: the portal is closed.
        """
        if self._is_forked:
            raise NotRunning(
                "this process was forked off, and the orchestrator stayed with the other one. Fork before it is opened "
                'or start processes with multiprocessing.get_context("spawn"), and open one in each.'
            )
        with self._opening:
            if self._open:
                return function(*arguments)
        raise NotRunning("the orchestrator is closed. Open a new one.")

    def _begin(self, question: Question[T], begin: Callable[[Question[T], Mailbox], object]) -> None:
        if question.is_withdrawn:
            return
        self._questions.add(question)
        try:
            question.begun = begin(question, question.there)
        except Exception as error:
            question.set_exception(error)

    def _withdraw(self, question: Question[T], withdraw: Callable[[Any], object]) -> None:
        if question in self._questions:
            with suppress(NotRunning):
                withdraw(question.begun)

    def close(self) -> None:
        """End the loop and the thread. What ignores that it is cancelled is left behind after a second."""
        if self._is_forked:
            return
        with self._opening:
            if self._open:
                self._open = False
                self._loop.call_soon_threadsafe(self._loop.stop)
        atexit.unregister(self._at_exit)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        take_for_this_thread(self.mailbox)
        try:
            self._loop.run_forever()
        finally:
            self._end_tasks()
            for question in list(self._questions):
                question.set_exception(NotRunning(CLOSED_MEANWHILE))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._end_threads()
            self._loop.close()

    def _end_tasks(self) -> None:
        """Cancel what is left, again and again if it swallows that, but not for ever: somebody waits for the thread."""
        until = self._loop.time() + END_SECONDS
        while (left := asyncio.all_tasks(self._loop)) and self._loop.time() < until:
            for task in left:
                task.cancel()
            done, _ = self._loop.run_until_complete(asyncio.wait(left, timeout=END_SECONDS / 10))
            for task in done:
                if not task.cancelled():
                    task.exception()  # asked for, so that it is not reported as forgotten
        if left:
            log.warning("coroutines are left behind, which ignore that they are cancelled", coroutines=len(left))

    def _end_threads(self) -> None:
        """Let go of the loop's threads; the interpreter waits at its exit for those that still work."""
        try:
            ending = threading.Thread(target=self._threads.shutdown, name=f"{self._thread.name}-end", daemon=True)
            ending.start()
        except RuntimeError:  # the interpreter ends
            self._threads.shutdown(wait=False)
        else:
            ending.join(END_SECONDS)
