"""Faults at the seams: a store and an executor that fail, wait or die where they are told to.

They stand between the engine and the real ones, in the simulation as well as in real processes; what happens there is
up to a `Fate`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from synergymesh.domain.fault_tolerance.error_info import ErrorInfo
from synergymesh.domain.fault_tolerance.retry import Lost, Outcome
from synergymesh.domain.states import ExecutionStatus
from synergymesh.errors import StoreError
from synergymesh.ports.changes import RunCreated, RunFinished, TaskFinished, TaskStarted, Unit
from synergymesh.ports.executor import Call, Executor
from synergymesh.ports.records import CommitResult, Refused
from synergymesh.ports.store import Store

FAULT_POINTS = (
    "open.after",
    "begin_incarnation.before",
    "begin_incarnation.after",
    "recovery.read",
    "commit.before",
    "commit.after",
    "submission.committed",
    "start.committed",
    "result.committed",
    "end.committed",
    "dispatch.handed",
    "task.begun",
    "outcome.ready",
    "outcome.reported",
    "purge_deleted.before",
    "purge_deleted.after",
    "end_incarnation.before",
    "end_incarnation.after",
)
"""Where a process may die. `before`: nothing is written; `after` and `committed`: it is, and nobody has been told."""

_COMMITTED = {
    RunCreated: "submission.committed",
    TaskStarted: "start.committed",
    TaskFinished: "result.committed",
    RunFinished: "end.committed",
}

_OF_NO_RUN: Unit = (
    TaskFinished("run-of-nobody", "none", "tenant-of-nobody", ExecutionStatus.FAILED, 1, 1, 2, None, None),
)
"""A unit that every store refuses: its neighbours in the batch have nothing to do with it."""

_LOST = Lost(ErrorInfo("synergymesh.testing.WorkerLost", "a fault of the simulation: the worker died"))


class StoreFault(msgspec.Struct, frozen=True, kw_only=True):
    """Say what happens to one call of a store; by default, nothing.

    Attributes:
        delay_before, delay_after: seconds, before and after it is done.
        error_before: raised instead of doing it.
        error_after: raised although it is done.
        bad_neighbour: a unit that has to be refused is committed together with the others.
    """

    delay_before: float = 0.0
    delay_after: float = 0.0
    error_before: StoreError | None = None
    error_after: StoreError | None = None
    bad_neighbour: bool = False


NO_FAULT = StoreFault()


class Fate(Protocol):
    """Decide what goes wrong."""

    async def at(self, point: str) -> None:
        """Be told that a fault point is reached; does not return if the process dies there."""
        ...

    def at_once(self, point: str) -> None:
        """Do the same where nothing can be awaited."""
        ...

    def of_store(self, verb: str) -> StoreFault:
        """Say what happens to a call of the store."""
        ...

    def of_report(self, call: Call) -> Sequence[float]:
        """Give the seconds after which an outcome is reported, once for each time that it is."""
        ...


class FaultyStore:
    """Stand between the engine and a store.

    Args:
        store: the real one; every verb that it has is passed on.
        fate: decides.
        committed: is told what was recorded, before anybody else is.
        wrote: is told of every other verb that writes: its name, its arguments and what it gave.
    """

    def __init__(
        self,
        store: Store,
        fate: Fate,
        committed: Callable[[Sequence[Unit], Sequence[CommitResult]], None] = lambda units, results: None,
        wrote: Callable[[str, tuple[Any, ...], dict[str, Any], Any], None] = lambda name, args, kwargs, result: None,
    ) -> None:
        self._store = store
        self._fate = fate
        self._committed = committed
        self._wrote = wrote
        self._recovering = False
        self._writing = asyncio.Lock()

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._store, name)
        if not callable(verb):
            return verb

        async def call(*args: Any, **kwargs: Any) -> Any:
            if name.startswith(("get_", "list_", "count_")):
                return await self._read(name, verb, args, kwargs)
            async with self._writing:  # one writer, which takes one after the other
                return await self._write(name, verb, args, kwargs)

        return call

    async def close(self) -> None:
        """Close the real store."""
        await self._store.close()

    async def _read(self, name: str, verb: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if self._recovering:
            await self._fate.at("recovery.read")
        return await self._with_fault(self._fate.of_store(name), verb, args, kwargs)

    async def _write(self, name: str, verb: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        await self._fate.at(f"{name}.before")

        async def write(*args: Any, **kwargs: Any) -> Any:
            result = await verb(*args, **kwargs)
            self._wrote(name, args, kwargs, result)
            return result

        result = await self._with_fault(self._fate.of_store(name), write, args, kwargs)
        await self._fate.at(f"{name}.after")
        self._recovering = name == "begin_incarnation"
        return result

    async def _with_fault(self, fault: StoreFault, verb: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if fault.delay_before:
            await asyncio.sleep(fault.delay_before)
        if fault.error_before is not None:
            raise fault.error_before
        result = await verb(*args, **kwargs)
        if fault.delay_after:
            await asyncio.sleep(fault.delay_after)
        if fault.error_after is not None:
            raise fault.error_after
        return result

    async def commit(self, units: Sequence[Unit]) -> list[CommitResult]:
        """Record units, or fail before or after it."""
        async with self._writing:
            self._recovering = False
            await self._fate.at("commit.before")
            fault = self._fate.of_store("commit")
            results: list[CommitResult] = await self._with_fault(fault, self._record, (units, fault), {})
            await self._fate.at("commit.after")
            return results

    async def _record(self, units: Sequence[Unit], fault: StoreFault) -> list[CommitResult]:
        if fault.bad_neighbour:
            middle = len(units) // 2
            results = await self._store.commit([*units[:middle], _OF_NO_RUN, *units[middle:]])
            assert isinstance(results.pop(middle), Refused), "a result of no run was recorded"
        else:
            results = await self._store.commit(units)
        self._committed(units, results)
        kinds = {type(change) for unit in units for change in unit}
        for kind, point in _COMMITTED.items():
            if kind in kinds:
                await self._fate.at(point)
        return results


class FaultyExecutor:
    """Stand between the engine and an executor.

    Args:
        executor: the real one.
        fate: decides.
        handed, reported: are told when a call is handed over, and when its outcome is reported for the first time.
        stopped: is told when a call is stopped for the first time.
        loses: gives the seconds after which a call is lost, if it has not ended by then; None for never.
    """

    def __init__(
        self,
        executor: Executor,
        fate: Fate,
        handed: Callable[[Call], None] = lambda call: None,
        reported: Callable[[Call, Outcome], None] = lambda call, outcome: None,
        stopped: Callable[[Call], None] = lambda call: None,
        loses: Callable[[Call], float | None] = lambda call: None,
    ) -> None:
        self.can_interrupt = executor.can_interrupt
        self._executor = executor
        self._fate = fate
        self._handed = handed
        self._reported = reported
        self._stopped = stopped
        self._loses = loses
        self._passed: dict[int, _PassedCall] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._executor, name)

    async def start(self) -> None:
        """Make ready to run calls."""
        await self._executor.start()

    def run(self, call: Call) -> None:
        """Start a call."""
        self._handed(call)
        self._fate.at_once("dispatch.handed")
        passed = self._passed[id(call)] = _PassedCall(call, self._ended)
        self._executor.run(passed)
        seconds = self._loses(call)
        if seconds is not None:
            asyncio.get_running_loop().call_later(seconds, self._lose, call)

    def stop(self, call: Call) -> None:
        """Ask a call to end soon."""
        if not call.stopped:
            self._stopped(call)
        call.stopped = True
        passed = self._passed.get(id(call))
        if passed is not None:
            self._executor.stop(passed)

    def crash(self) -> None:
        """Lose every call that has not ended, as when a pool of workers dies."""
        for passed in list(self._passed.values()):
            self._lose(passed.call)

    async def close(self) -> None:
        """Let go of everything."""
        await self._executor.close()

    def _lose(self, call: Call) -> None:
        """Report that a call is lost, and hear no more of it: its worker died, in the middle of whatever it did."""
        passed = self._passed.pop(id(call), None)
        if passed is None:
            return
        self._reported(call, _LOST)
        call.done(_LOST)
        passed.is_lost = True
        self._executor.stop(passed)

    def _ended(self, call: Call, outcome: Outcome) -> None:
        """Take an outcome, and report it as often and as late as is decided."""
        self._fate.at_once("outcome.ready")
        for number, seconds in enumerate(self._fate.of_report(call)):
            if seconds:
                asyncio.get_running_loop().call_later(seconds, self._report, call, outcome, number)
            else:
                self._report(call, outcome, number)

    def _report(self, call: Call, outcome: Outcome, number: int) -> None:
        if not number:
            if self._passed.pop(id(call), None) is None:
                return  # lost while its outcome was on its way
            self._reported(call, outcome)
        call.done(outcome)
        self._fate.at_once("outcome.reported")


class _PassedCall:
    """A call as the real executor sees it; its outcome goes through the faulty one."""

    __slots__ = ("_ended", "call", "handle", "is_lost")

    def __init__(self, call: Call, ended: Callable[[Call, Outcome], None]) -> None:
        self.call = call
        self._ended = ended
        self.handle: Any = None
        self.is_lost = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.call, name)

    @property
    def stopped(self) -> bool:
        return self.call.stopped

    @stopped.setter
    def stopped(self, stopped: bool) -> None:
        self.call.stopped = stopped

    def done(self, outcome: Outcome) -> None:
        if not self.is_lost:
            self._ended(self.call, outcome)
