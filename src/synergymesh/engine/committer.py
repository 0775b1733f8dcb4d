"""The only writer: what waits while one transaction is being written goes into the next one (group commit)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from time import perf_counter_ns
from typing import NamedTuple

from synergymesh.domain.fault_tolerance.error_info import describe
from synergymesh.domain.observability.tallies import Durations
from synergymesh.engine.background import Background
from synergymesh.errors import NotRunning, StoreError, StoreLocked, StoreUnavailable
from synergymesh.logs import Log
from synergymesh.mailbox import Mailbox, mailbox_here, tell
from synergymesh.ports.changes import Unit
from synergymesh.ports.records import CommitResult
from synergymesh.ports.store import Store

BATCH_UNITS_MAX = 2_000
"""Units of one transaction: about 20 ms of writing, so that nobody waits long for the batch before his own."""

WAITING_UNITS_MAX = 10_000
"""Units that wait; who submits faster than the disk writes, waits too."""

RETRY_DELAYS_SECONDS = (0.05, 0.2, 0.5, 1.0, 2.0)
"""Pauses between attempts to write what must not be lost, while the database cannot be written."""

PASSING = (StoreUnavailable, StoreLocked)
"""What may pass by itself: a full disk, or a program that keeps the database locked for a while."""

CLOSED = "the orchestrator is closed. Open a new one."

log = Log("synergymesh.engine")

Answer = CommitResult | StoreError | NotRunning


class Entry(NamedTuple):
    """A unit that waits, and who wants to know.

    `may_fail` is for what was not acknowledged yet (a submission): it is given up when the database cannot be written.
    Everything else is kept and tried again until it is recorded.
    """

    unit: Unit
    done: Callable[[Answer], None]
    may_fail: bool


class Committer:
    """Write units in the order in which they come, as many as are waiting in one transaction.

    Attributes:
        batches: how many transactions were written.
        units: how many units they had.
        durations: of those transactions.
        trouble: why the database cannot be written now, or None; at the end, why units were given up. While there is
            any, no submission is accepted.
        failure: why the last transaction was not written, or None if it was; also when nothing is kept to try it again.
        room_made: is called after each transaction.
        recorded: is called with the units of each transaction and their answers, before those who wait for them are.
    """

    def __init__(self, store: Store, background: Background) -> None:
        self._store = store
        self._background = background
        self._waiting: deque[Entry] = deque()
        self._batch: list[Entry] = []
        self._failures = 0
        self._begun = 0
        self._writing: asyncio.Future[list[CommitResult]] | None = None
        self._mailbox: Mailbox | None = None
        self._look_is_due = False
        self._room = asyncio.Event()
        self._room.set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._ended = asyncio.Event()
        self._closing = False
        self._closed = False
        self._gave_up: StoreError | None = None
        self.room_made: Callable[[], None] = _nothing
        self.recorded: Callable[[Sequence[Entry], Sequence[CommitResult]], None] = _nothing
        self.batches = 0
        self.units = 0
        self.durations = Durations()
        self.trouble: StoreError | None = None
        self.failure: StoreError | None = None

    def start(self) -> None:
        """Begin to write."""
        self._mailbox = mailbox_here()
        self._look_soon()

    async def close(self) -> None:
        """Write what waits and end. While the database cannot be written, what waits is given up after one more try."""
        self._closing = True
        if self._mailbox is not None:
            self._look_soon()
            await self._ended.wait()

    @property
    def waiting(self) -> int:
        """Give how many units wait to be written."""
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        """Tell whether so much waits that nothing new should be started."""
        return len(self._waiting) >= WAITING_UNITS_MAX

    async def room(self) -> None:
        """Wait until there is room for one more submission.

        Raises:
            StoreUnavailable: the database cannot be written now.
            NotRunning: the orchestrator is being closed.
        """
        while True:
            if self._closing:
                raise NotRunning(CLOSED)
            if self.trouble is not None:
                raise StoreUnavailable(str(self.trouble))
            if not self.is_full:
                return
            self._room.clear()
            await self._room.wait()

    def put(self, unit: Unit, done: Callable[[Answer], None], *, may_fail: bool = False) -> None:
        """Add a unit; `done` is called on the event loop once it is recorded, refused or given up."""
        if self._closed:
            done(NotRunning(CLOSED))
            return
        self._waiting.append(Entry(unit, done, may_fail))
        self._idle.clear()
        self._look_soon()

    def _look_soon(self) -> None:
        """Write what waits, unless that is being done; behind what comes together with it, so that it is one batch."""
        if not self._look_is_due and not self._batch and self._mailbox is not None:
            self._look_is_due = True
            self._mailbox.soon(self._look)

    async def record(self, unit: Unit, *, may_fail: bool = True) -> CommitResult:
        """Add a unit and wait for the answer.

        Raises:
            StoreError: the database cannot be written; the unit may or may not be recorded.
        """
        future: asyncio.Future[CommitResult] = asyncio.get_running_loop().create_future()

        def done(answer: Answer) -> None:
            if future.cancelled():
                return
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)

        self.put(unit, done, may_fail=may_fail)
        return await future

    async def drained(self) -> None:
        """Wait until nothing waits to be written."""
        await self._idle.wait()

    def _look(self) -> None:
        """Begin to write what waits; with nothing left, say so."""
        self._look_is_due = False
        if self._batch:
            return
        waiting = self._waiting
        if waiting:
            self._batch = [waiting.popleft() for _ in range(min(len(waiting), BATCH_UNITS_MAX))]
            self._failures = 0
            self._write()
            return
        self._idle.set()
        if self._closing:
            self._closed = True
            self.trouble = self.trouble or self._gave_up
            self._room.set()
            self._ended.set()

    def _write(self) -> None:
        """Have the store write the batch; it answers in `_answered`."""
        self._begun = perf_counter_ns()
        try:
            self._writing = tell(self._store.commit([entry.unit for entry in self._batch]), self._answered)
        except Exception as error:
            self._answered(None, error)

    def _answered(self, results: Sequence[CommitResult] | None, raised: BaseException | None) -> None:
        """Go on after the store has written a batch, or has not."""
        if isinstance(raised, asyncio.CancelledError):
            return  # the event loop ends
        batch = self._batch
        if results is None or len(results) != len(batch):
            error = raised or AssertionError("a store answers for each unit")
            self._failed(error if isinstance(error, StoreError) else self._unexpected(error))
            return
        if self.trouble is not None:
            log.info("the database can be written again", units_kept=len(batch))
            self.trouble = None
        self.failure = None
        self.batches += 1
        self.units += len(batch)
        self.durations.add((perf_counter_ns() - self._begun) // 1_000)
        try:
            try:
                self.recorded(batch, results)
            except Exception as error:
                self._background.note("what is counted of commits", error)
            for entry, result in zip(batch, results, strict=True):
                self._tell(entry, result)
        finally:  # also when Ctrl-C comes in between
            self._end_batch()

    def _failed(self, error: StoreError) -> None:
        """Try a batch again after a pause, or give it up."""
        self._batch = self._after_failure(self._batch, error)
        if not self._batch:
            self._end_batch()
        elif self._closing or not isinstance(error, PASSING):
            self._give_up(self._batch, error)
            self._end_batch()
        else:
            assert self._mailbox is not None
            pause = RETRY_DELAYS_SECONDS[min(self._failures, len(RETRY_DELAYS_SECONDS) - 1)]
            self._failures += 1
            self._mailbox.loop.call_later(pause, self._write)

    def _end_batch(self) -> None:
        """Go on with what came meanwhile, and then let more come."""
        self._batch = []
        self._look()
        if not self.is_full:
            self._room.set()
            try:
                self.room_made()
            except Exception as error:
                self._background.note("what follows room for more", error)

    def _tell(self, entry: Entry, answer: Answer) -> None:
        """Tell somebody; what goes wrong with him is not to keep the others from being told."""
        try:
            entry.done(answer)
        except Exception as error:
            self._background.note("what follows a commit", error)

    def _unexpected(self, error: BaseException) -> StoreError:
        """Say what is no error of a database as one: those who wait are to be told, and the next batch is written."""
        self._background.note("commits", error)
        return StoreError(f"the database could not be written because of an error inside of it: {describe(error)}")

    def _after_failure(self, batch: list[Entry], error: StoreError) -> list[Entry]:
        """Give up what may fail, in this batch and behind it; keep the rest."""
        if self.failure is None:
            log.error("the database cannot be written", error=str(error), units=len(batch))
        self.trouble = self.failure = error
        waiting = list(self._waiting)
        self._waiting.clear()
        self._waiting.extend(entry for entry in waiting if not entry.may_fail)
        self._room.set()
        for entry in (*batch, *waiting):
            if entry.may_fail:
                self._tell(entry, error)
        kept = [entry for entry in batch if not entry.may_fail]
        if not kept:
            self.trouble = None  # nothing is tried again by itself, so the next submission has to find out
        return kept

    def _give_up(self, batch: list[Entry], error: StoreError) -> None:
        """Say that these units are not recorded, nor those behind them; after a restart their attempts run again.

        What comes later may rest on what came before: a run must not end without the results that it ended on.
        """
        lost = [*batch, *self._waiting]
        self._waiting.clear()
        self._gave_up = error
        self.trouble = None
        log.error("results could not be recorded; their tasks run again after a restart", units=len(lost))
        for entry in lost:
            self._tell(entry, error)


def _nothing(*_: object) -> None:
    """Do nothing; until somebody listens."""
