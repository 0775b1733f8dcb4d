"""Executors as a seam: the only place where user code runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from synergymesh.domain.retry import Outcome


class Call:
    """One attempt as an executor sees it: a function with its arguments, and the way to report back.

    Attributes:
        function: what to call.
        arguments: gives the positional and the keyword arguments; called where the function runs, and may raise.
        context: what `current_task()` gives inside the function.
        encode: turns the function's value into JSON; called where the function runs, and may raise.
        done: takes the outcome, on the event loop, exactly once.
        handle: the executor's own.
    """

    __slots__ = ("arguments", "context", "done", "encode", "function", "handle", "stopped")

    def __init__(
        self,
        function: Callable[..., Any],
        arguments: Callable[[], tuple[tuple[Any, ...], dict[str, Any]]],
        context: Any,
        encode: Callable[[Any], bytes],
        done: Callable[[Outcome], None],
    ) -> None:
        self.function = function
        self.arguments = arguments
        self.context = context
        self.encode = encode
        self.done = done
        self.handle: Any = None
        self.stopped = False


class Executor(Protocol):
    """Run calls and report their outcomes."""

    can_interrupt: bool
    """Whether `stop` ends a call that does not cooperate (at its next await, for the event loop)."""

    async def start(self) -> None:
        """Make ready to run calls."""
        ...

    def run(self, call: Call) -> None:
        """Start a call and return at once; `call.done` follows, never before this returns."""
        ...

    def stop(self, call: Call) -> None:
        """Ask a call to end soon. Its outcome is `Cancelled` if it does because of this."""
        ...

    async def close(self) -> None:
        """Let go of everything; calls still running are abandoned."""
        ...
