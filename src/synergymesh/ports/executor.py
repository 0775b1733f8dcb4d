"""Executors as a seam: the only place where user code runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from synergymesh.domain.fault_tolerance.retry import Outcome
from synergymesh.ports.task_context import TaskContext


class Call(Protocol):
    """One attempt as an executor sees it: a function with its arguments, and the way to report back.

    Attributes:
        context: what `current_task()` gives inside the function.
        handle: the executor's own.
        stopped: set by `Executor.stop`.
    """

    context: TaskContext
    handle: Any
    stopped: bool

    @property
    def function(self) -> Callable[..., Any]:
        """Give the function to call."""
        ...

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Give the positional and the keyword arguments; called where the function runs, and may raise."""
        ...

    def encode(self, value: Any) -> bytes:
        """Turn the function's value into JSON; called where the function runs, and may raise."""
        ...

    def done(self, outcome: Outcome) -> None:
        """Take the outcome, on the event loop, exactly once."""
        ...


class Runner(Protocol):
    """Run calls and report their outcomes."""

    can_interrupt: bool
    """Whether `stop` ends a call that does not cooperate (at its next await, for the event loop)."""

    def run(self, call: Call) -> None:
        """Start a call and return at once; `call.done` follows, never before this returns."""
        ...

    def stop(self, call: Call) -> None:
        """Ask a call to end soon. Its outcome is `Cancelled` if it does because of this."""
        ...


class Executor(Runner, Protocol):
    """Run calls as long as the engine is open."""

    async def start(self) -> None:
        """Make ready to run calls."""
        ...

    async def close(self) -> None:
        """Let go of everything; calls still running are abandoned."""
        ...
