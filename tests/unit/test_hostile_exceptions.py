"""Exceptions that misbehave when they are asked what they are: described nevertheless, and reported by executors."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synergymesh.domain.fault_tolerance.error_info import (
    MESSAGE_CHARACTERS_MAX,
    TRACEBACK_CHARACTERS_MAX,
    ErrorInfo,
    describe,
)
from synergymesh.domain.fault_tolerance.retry import (
    Cancelled,
    Ending,
    Lost,
    Outcome,
    Raised,
    RetryPolicy,
    decide,
)
from synergymesh.domain.instants import SECOND
from synergymesh.domain.states import ExecutionStatus
from synergymesh.errors import GiveUp, RetryLater
from synergymesh.executors.loop import LoopExecutor
from synergymesh.executors.thread import ThreadExecutor
from synergymesh.ports.task_context import TaskContext

EXECUTORS = {"loop": LoopExecutor, "thread": lambda: ThreadExecutor(2)}


class Text(str):
    """A text that cannot be used as one."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    def __getitem__(self, _: Any) -> str:
        raise RuntimeError("no part of a text")


class Evil:
    def __repr__(self) -> str:
        raise SystemExit("no")

    def __ge__(self, _: Any) -> bool:
        raise RuntimeError("no")


RAISED = (RuntimeError, SystemExit, KeyboardInterrupt, RecursionError, MemoryError, asyncio.CancelledError)
ODD = (
    None,
    5,
    -5,
    math.nan,
    math.inf,
    10**400,
    True,
    "soon",
    "\ud800",
    "a\0b",
    b"x",
    "x" * 5_000,
    Text("x"),
    Evil(),
    [Evil()],
)


def answering(answer: Any) -> Callable[..., Any]:
    def member(*_: object) -> Any:
        if isinstance(answer, type) and issubclass(answer, BaseException):
            raise answer
        return answer

    return member


answers = st.sampled_from([*RAISED, *ODD]).map(answering)
members = st.dictionaries(
    st.sampled_from(["__str__", "__repr__", "__notes__", "delay", "reason", "__class__", "__cause__", "__module__"]),
    answers,
)
of_the_class = st.dictionaries(
    st.sampled_from(["__module__", "__qualname__", "__mro__", "__name__", "__doc__"]), answers
)
bases = st.sampled_from([Exception, BaseException, RetryLater, GiveUp, OSError, KeyError, SyntaxError, StopIteration])


@st.composite
def hostile(draw: st.DrawFn) -> BaseException:
    """Make an exception of a class of its own, of which some members err or answer with what they must not."""
    namespace: dict[str, Any] = {
        name: answer if name in ("__str__", "__repr__") else property(answer) for name, answer in draw(members).items()
    }
    namespace["__init__"] = lambda self: None  # what is to be told to the class above is forgotten
    said_of_the_class = draw(of_the_class)

    class Meta(type):
        def __getattribute__(cls, name: str) -> Any:
            answer = said_of_the_class.get(name)
            return super().__getattribute__(name) if answer is None else answer()

    made: BaseException = Meta("Hostile", (draw(bases),), namespace)()
    return made


@given(hostile())
def test_whatever_an_exception_does_it_is_described_and_can_be_stored(error: BaseException) -> None:
    try:
        raise error
    except BaseException as raised:
        described = describe(raised)
    assert msgspec.json.decode(msgspec.json.encode(described), type=ErrorInfo) == described
    assert described.types[-1] == "builtins.BaseException"
    assert len(described.message) <= MESSAGE_CHARACTERS_MAX
    assert len(described.traceback) <= TRACEBACK_CHARACTERS_MAX + 20
    assert described.retry_after is None or 0 <= described.retry_after < math.inf
    verdict = decide(RetryPolicy(), Raised(described), failures=0, cancelling=False, now=SECOND, dice=0.5, began=SECOND)
    assert verdict.status in (ExecutionStatus.RETRYING, ExecutionStatus.FAILED)


class Busy(RetryLater):
    def __init__(self, delay: Any = None) -> None:
        if delay is not None:
            self.delay = delay  # and super().__init__() is forgotten


@pytest.mark.parametrize("delay", [None, math.nan, "soon", -5, True, Evil()])
def test_a_postponement_without_a_delay_is_a_failure_that_says_so(delay: Any) -> None:
    described = describe(Busy(delay))
    assert described.retry_after is None
    assert "it counts as a failure" in described.message
    assert "super().__init__(delay)" in described.message
    policy = RetryPolicy(max_retries=1, initial_delay=3.0)
    first = decide(policy, Raised(described), failures=0, cancelling=False, now=0, dice=0.0)
    assert (first.status, first.not_before) == (ExecutionStatus.RETRYING, 3 * SECOND)
    last = decide(policy, Raised(described), failures=1, cancelling=False, now=0, dice=0.0)
    assert last.error is not None
    assert last.error.ending == Ending.EXHAUSTED


def test_a_chain_of_thousands_of_causes_is_described() -> None:
    error: BaseException = ValueError(0)
    for number in range(3_000):
        after = ValueError(number)
        after.__cause__ = error
        error = after
    assert describe(error).message == "2999"


# --- the executors --------------------------------------------------------------------------------------------------


class Call:
    """A call as the executors take it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.context = TaskContext("run-1", "a", "tenant-1", 1)
        self.handle: Any = None
        self.stopped = False
        self.outcomes: list[Outcome] = []
        self.ended = asyncio.Event()

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (), {}

    def encode(self, value: Any) -> bytes:
        return msgspec.json.encode(value)

    def done(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self.ended.set()


def raising(error: BaseException, *, is_async: bool) -> Callable[..., Any]:
    async def on_loop() -> None:
        raise error

    def in_thread() -> None:
        raise error

    return on_loop if is_async else in_thread


@pytest.mark.parametrize("kind", EXECUTORS)
@given(hostile())
def test_an_executor_reports_whatever_is_raised_once(kind: str, error: BaseException) -> None:
    async def run() -> list[Outcome]:
        executor: Any = EXECUTORS[kind]()
        await executor.start()
        call = Call(raising(error, is_async=kind == "loop"))
        executor.run(call)
        async with asyncio.timeout(10):
            await call.ended.wait()
        await executor.close()
        return call.outcomes

    (outcome,) = asyncio.run(run())
    assert type(outcome) is Raised


async def test_a_call_for_which_there_is_no_thread_is_lost_and_its_function_is_not_called_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    called: list[int] = []
    executor = ThreadExecutor(2)
    await executor.start()
    with monkeypatch.context() as patch:
        patch.setattr("threading.Thread.start", answering(RuntimeError))
        lost = Call(lambda: called.append(1))
        executor.run(lost)
        await lost.ended.wait()
        assert type(lost.outcomes[0]) is Lost
        assert "no thread" in lost.outcomes[0].error.message
    well = Call(lambda: called.append(2))
    executor.run(well)
    await well.ended.wait()
    await executor.close()
    assert called == [2]
    assert [type(outcome) for outcome in lost.outcomes] == [Lost, Cancelled], "the engine ignores the second one"
