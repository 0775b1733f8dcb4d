"""Reports an event loop that is blocked, with the stack of what blocks it."""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from collections.abc import Callable
from time import monotonic
from types import FrameType
from typing import Any

from synergymesh.domain.fault_tolerance.error_info import describe
from synergymesh.logs import Log
from synergymesh.ports.task_context import TaskContext

STACK_FRAMES_MAX = 30
"""Frames of the culprit that are reported, the innermost ones: a recursion fills no log."""

log = Log("synergymesh.engine")

Finder = Callable[["asyncio.Task[Any]"], TaskContext | None]


class Watchdog:
    """Ask the event loop from a thread whether it still goes round; one warning for each time that it does not.

    A task that blocks the loop (a long computation, `time.sleep`, a blocking call in an `async def`) stops everything:
    no other task goes on, no timeout fires. It cannot be interrupted from outside; it can be named.

    Args:
        seconds: a loop that does not answer for so long is blocked.
        find: gives the context of the task that an asyncio task carries out, if it does.
    """

    def __init__(self, seconds: float, find: Finder) -> None:
        self._seconds = seconds
        self._find = find
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to watch the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._thread = threading.Thread(target=self._watch, name="synergymesh-watchdog", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End; returns at once."""
        self._closed.set()

    def _watch(self) -> None:
        answered = threading.Event()
        while not self._closed.wait(self._seconds / 2):
            answered.clear()
            asked_at = monotonic()
            try:
                self._loop.call_soon_threadsafe(answered.set)
            except RuntimeError:  # the loop is closed
                return
            if answered.wait(self._seconds) or self._closed.is_set():
                continue
            try:
                named = self._report(monotonic() - asked_at)
            except Exception as error:  # the stack of a running thread changes while it is looked at
                named = {}
                log.error("the event loop is blocked; by what could not be found out", error=str(describe(error)))
            while not answered.wait(self._seconds):
                if self._closed.is_set() or self._loop.is_closed():
                    return
            log.warning("the event loop goes on", blocked_seconds=round(monotonic() - asked_at, 3), **named)

    def _report(self, seconds: float) -> dict[str, Any]:
        """Say what blocks the loop; give how the task is named."""
        frame = sys._current_frames().get(self._loop_thread)
        context = self._culprit()
        named: dict[str, Any] = {}
        if context is not None:
            named = {
                "tenant_id": context.tenant_id,
                "run_id": context.run_id,
                "task_id": context.task_id,
                "attempt": context.attempt,
            }
        log.warning(
            "the event loop is blocked: no other task goes on until this one awaits or ends. Make it a plain function, "
            "which runs in a thread, or move the blocking part there",
            blocked_seconds=round(seconds, 3),
            stack=stack_of(frame),
            **named,
        )
        return named

    def _culprit(self) -> TaskContext | None:
        task = asyncio.current_task(self._loop)
        return None if task is None else self._find(task)


def stack_of(frame: FrameType | None) -> str:
    """Give the innermost frames of a stack as text, those of the event loop around them left out."""
    if frame is None:
        return ""
    frames = traceback.extract_stack(frame)
    outside = max(
        (number for number, each in enumerate(frames) if each.filename == asyncio.events.__file__), default=-1
    )
    return "".join(traceback.format_list(frames[outside + 1 :][-STACK_FRAMES_MAX:]))
