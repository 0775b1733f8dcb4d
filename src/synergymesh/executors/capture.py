"""Captures what tasks print and log: each line goes to the attempt that wrote it, and on to where it always went."""

from __future__ import annotations

import logging
import sys
import threading
from time import time_ns
from typing import Any, TextIO

from synergymesh.domain.observability.captured import CapturedOutput
from synergymesh.ports.task_context import running_task

OURS = "synergymesh."
OF_TASKS = "synergymesh.task"

_lock = threading.Lock()
_users = 0
_installed: list[_Tee] = []
_handler: _TaskHandler | None = None


class _Tee:
    """Stand in front of a stream: pass everything on, and give tasks their share."""

    def __init__(self, stream: TextIO, source: str) -> None:
        self.stream = stream
        self.source = source

    def write(self, text: str) -> int:
        context = running_task()
        if context is not None and text:
            if context.output is None:
                context.output = CapturedOutput()
            context.output.write(self.source, text, time_ns())
        return self.stream.write(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class _TaskHandler(logging.Handler):
    """Give log records to the task that made them."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        context = running_task()
        if context is None or (record.name.startswith(OURS) and record.name != OF_TASKS):
            return  # what the engine says while it ends a task is not the task's
        try:
            text = self.format(record)
        except Exception:
            self.handleError(record)
            return
        if context.output is None:
            context.output = CapturedOutput()
        for line in text.split("\n"):
            context.output.add(record.levelname.lower(), line, time_ns())


def start() -> None:
    """Begin to capture, in the whole process; as often as it is started, it has to be stopped."""
    global _users, _handler
    with _lock:
        _users += 1
        if _users > 1:
            return
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is not None:  # a program without a console has none
                tee = _Tee(stream, name)
                _installed.append(tee)
                setattr(sys, name, tee)
        _handler = _TaskHandler()
        logging.getLogger().addHandler(_handler)


def stop() -> None:
    """End it, once for each start. A stream that somebody has replaced meanwhile stays as it is."""
    global _users, _handler
    with _lock:
        _users -= 1
        if _users:
            return
        for tee in _installed:
            if getattr(sys, tee.source) is tee:
                setattr(sys, tee.source, tee.stream)
        _installed.clear()
        assert _handler is not None
        logging.getLogger().removeHandler(_handler)
        _handler = None
