"""Ctrl-C and SIGTERM: the first one stops gracefully, the second one at once."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from types import FrameType, TracebackType
from typing import Any, Self

from synergymesh.cli.endings import INTERRUPTED, TERMINATED

_SHOW_CURSOR = b"\x1b[?25h\x1b[0m\n"


class Interrupts:
    """Take SIGINT and SIGTERM while a command runs; use it as a context manager around the event loop.

    Plain signal handlers and not those of the event loop: they work even while a task blocks the loop.

    Attributes:
        exit_code: 130 after Ctrl-C, 143 after SIGTERM, None while there was neither.
    """

    def __init__(self) -> None:
        self.exit_code: int | None = None
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._earlier: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._earlier[number] = signal.signal(number, self._take)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, earlier in self._earlier.items():
            signal.signal(number, earlier)

    def stop_event(self) -> asyncio.Event:
        """Give the event that the first signal sets, for the running loop."""
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        if self.exit_code is not None:
            self._stop.set()
        return self._stop

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self.exit_code is not None:
            if sys.stdout.isatty():
                os.write(sys.stdout.fileno(), _SHOW_CURSOR)
            os._exit(INTERRUPTED if number == signal.SIGINT else TERMINATED)
        self.exit_code = INTERRUPTED if number == signal.SIGINT else TERMINATED
        if self._loop is not None and self._stop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop.set)
