"""Turns: what people change is changed one wish after the other, to the end, and in memory as it is in the store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Hashable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from synergymesh.engine.background import Background
from synergymesh.engine.committer import CLOSED, Answer, Committer
from synergymesh.errors import NotRunning, StoreError, StoreUnavailable, SynergyMeshError
from synergymesh.logs import Log
from synergymesh.ports.changes import Change
from synergymesh.ports.records import Committed

IN_DOUBT_MAX = 1_000
"""Each of them costs a read; with more, nothing else is changed until they are settled."""

LOOK_SECONDS = 0.5
"""Pause before the store is read again, if it could not be read at once."""

CLOSING_SECONDS = 1.0
"""At the end nothing is left to wait for but reads, which take milliseconds."""

log = Log("synergymesh.engine")

T = TypeVar("T")

Look = Callable[[], Awaitable[object]]
"""Reads a subject from the store, and makes memory say the same; raises StoreError if that cannot be read."""


class Turn:
    """Be the only one who changes a subject: a tenant, a run, a workflow.

    Attributes:
        in_doubt: whether nobody knows if the last change was recorded.
    """

    __slots__ = ("_committer", "_doubted", "in_doubt", "lock", "look", "subject", "users")

    def __init__(self, subject: Hashable, look: Look, committer: Committer, doubted: Callable[[Turn], None]) -> None:
        self.subject = subject
        self.look = look
        self.lock = asyncio.Lock()
        self.users = 0
        self.in_doubt = False
        self._committer = committer
        self._doubted = doubted

    async def settle(self) -> None:
        """Read the subject again if it is in doubt.

        Raises:
            StoreError: it cannot be read.
        """
        if self.in_doubt:
            await self.look()
            self.in_doubt = False

    async def record(self, change: Change, effect: Callable[[], T]) -> T:
        """Have a change recorded, and give what its effect gives.

        Args:
            change: of this subject.
            effect: makes memory say what the store says then. Called once it is recorded, in the order of the commits.

        Raises:
            StoreError: it was refused, or it is not known whether it is recorded: the subject is in doubt then.
            NotRunning: the orchestrator is closed.
        """
        heard: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def done(answer: Answer) -> None:
            try:
                outcome = self._outcome(answer, effect)
            except Exception as error:
                if not heard.done():
                    heard.set_exception(error)
                if not isinstance(error, SynergyMeshError):
                    raise
            else:
                if not heard.done():
                    heard.set_result(outcome)

        self._committer.put([change], done, may_fail=True)
        return await heard

    def _outcome(self, answer: Answer, effect: Callable[[], T]) -> T:
        if isinstance(answer, StoreError):
            self._doubt()
        if isinstance(answer, Exception):
            raise answer
        if not isinstance(answer, Committed):
            raise StoreError(f"the database refused the change: {answer.reason}")
        try:
            return effect()
        except Exception:
            self._doubt()  # it is recorded, and nobody knows what memory says
            raise

    def _doubt(self) -> None:
        self.in_doubt = True
        self._doubted(self)


class Turns:
    """Let each subject be changed by one at a time, and find out what became of changes whose commit failed.

    An error from a commit does not say whether it was done. Memory stays as it was until the store is read again, which
    happens by itself, and before the next change of the same subject: nobody decides by what may be out of date.
    """

    def __init__(self, committer: Committer, background: Background) -> None:
        self._committer = committer
        self._background = background
        self._turns: dict[Hashable, Turn] = {}
        self._in_doubt: set[Turn] = set()
        self._errands: set[asyncio.Task[None]] = set()
        self._unheard: set[asyncio.Task[None]] = set()
        self._looking = False
        self._closed = False

    async def carry_out(self, errand: Coroutine[Any, Any, T]) -> T:
        """Do something to its end, whatever becomes of who asked for it; give what it gives.

        Raises:
            NotRunning: the orchestrator was closed before the end.
        """
        if self._closed:
            errand.close()
            raise NotRunning(CLOSED)
        heard: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        _keep(self._errands, _tell(errand, heard))
        return await heard

    def begin(self, errand: Coroutine[Any, Any, None]) -> None:
        """Do something for which nobody waits; it ends when the orchestrator is closed."""
        if self._closed:
            errand.close()
        else:
            _keep(self._unheard, errand)

    @asynccontextmanager
    async def of(self, subject: Hashable, look: Look) -> AsyncIterator[Turn]:
        """Wait for the turn to change a subject, of which memory says what the store says then.

        Raises:
            StoreError: it is in doubt and cannot be read; or too much is in doubt.
        """
        turn = self._turns.get(subject)
        if turn is None:
            if len(self._in_doubt) >= IN_DOUBT_MAX:
                raise StoreUnavailable("the database failed during too many changes. Wait until it can be read again.")
            turn = self._turns[subject] = Turn(subject, look, self._committer, self._doubted)
        turn.users += 1
        try:
            async with turn.lock:
                await turn.settle()
                self._in_doubt.discard(turn)
                yield turn
        finally:
            turn.users -= 1
            if not turn.users and not turn.in_doubt:
                self._turns.pop(subject, None)

    async def close(self) -> None:
        """Let changes end whose commit is answered, and tell who waits for others that the orchestrator is closed."""
        self._closed = True
        for task in self._unheard:
            task.cancel()
        if self._errands:
            await asyncio.wait(self._errands, timeout=CLOSING_SECONDS)
        for task in self._errands:
            task.cancel()
        if left := self._errands | self._unheard:
            await asyncio.wait(left)

    def _doubted(self, turn: Turn) -> None:
        self._in_doubt.add(turn)
        if not self._looking:
            self._looking = True
            self.begin(self._look_again())

    async def _look_again(self) -> None:
        while self._in_doubt:
            for turn in list(self._in_doubt):
                try:
                    async with self.of(turn.subject, turn.look):
                        log.info("a change whose commit failed was looked up", subject=str(turn.subject))
                except StoreError as error:
                    log.warning(
                        "it is not known whether a change was recorded; looked for again",
                        subject=str(turn.subject),
                        error=str(error),
                    )
                except Exception as error:
                    self._background.note("changes in doubt", error)
            if self._in_doubt:
                await asyncio.sleep(LOOK_SECONDS)
        self._looking = False


def _keep(tasks: set[asyncio.Task[None]], errand: Coroutine[Any, Any, None]) -> None:
    """Let a task run, and hold on to it: the loop would forget it while it waits."""
    task = asyncio.get_running_loop().create_task(errand, name="synergymesh-change")
    tasks.add(task)
    task.add_done_callback(tasks.discard)


async def _tell(errand: Coroutine[Any, Any, T], heard: asyncio.Future[T]) -> None:
    """Do something, and tell who waits for it, if anybody does."""
    try:
        result = await errand
    except asyncio.CancelledError:
        if not heard.done():
            heard.set_exception(NotRunning(CLOSED))
    except Exception as error:
        if not heard.done():
            heard.set_exception(error)
    else:
        if not heard.done():
            heard.set_result(result)
