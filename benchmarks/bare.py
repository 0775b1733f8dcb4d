"""A bare group-commit loop: writes the same rows and awaits the same coroutines as the engine, and nothing else.

No scheduler, no limits, no validation, no retries, no events: the work that nobody can avoid who keeps the same
promises on the same database (dependants start after the commit). The engine's speed is reported as a share of it.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

RUN = (
    "INSERT INTO runs (run_id, tenant_id, workflow, content_hash, status, priority, input, not_before, created_at, "
    "recoveries) VALUES (?, ?, ?, ?, 'pending', 0, ?, 0, ?, 0)"
)
TASK = (
    "INSERT INTO tasks (run_id, component_id, tenant_id, status, attempt, started_at, ended_at, result, crashes) "
    "VALUES (?, ?, ?, 'success', 1, ?, ?, ?, 0)"
)
END = "UPDATE runs SET status = 'success', started_at = ?, ended_at = ?, result = ? WHERE run_id = ?"

Rows = tuple[list[Any], list[Any], list[Any]]


class BareLoop:
    """Commit what waits in one transaction, from a writer thread."""

    def __init__(self, path: str, synchronous: str) -> None:
        self._queue: SimpleQueue[tuple[Rows, Callable[[], None]] | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._rows: Rows = ([], [], [])
        self._committed: asyncio.Future[None] = self._loop.create_future()
        self._writing = False
        self._thread = threading.Thread(target=self._write, args=(path, synchronous))
        self._thread.start()

    async def record(self, kind: int, row: tuple[Any, ...]) -> None:
        """Add a row to the next transaction and wait until it is committed."""
        self._rows[kind].append(row)
        future = self._committed
        if not self._writing:
            self._writing = True
            self._loop.call_soon(self._flush)
        await future

    def close(self) -> None:
        """End the writer."""
        self._queue.put(None)
        self._thread.join()

    def _flush(self) -> None:
        rows, self._rows = self._rows, ([], [], [])
        future, self._committed = self._committed, self._loop.create_future()

        def done() -> None:
            future.set_result(None)
            self._writing = any(self._rows)
            if self._writing:
                self._loop.call_soon(self._flush)

        self._queue.put((rows, done))

    def _write(self, path: str, synchronous: str) -> None:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute(f"PRAGMA synchronous={synchronous}")
        connection.execute("PRAGMA foreign_keys=ON")
        while (item := self._queue.get()) is not None:
            rows, done = item
            connection.execute("BEGIN IMMEDIATE")
            for statement, values in zip((RUN, TASK, END), rows, strict=True):
                if values:
                    connection.executemany(statement, values)
            connection.execute("COMMIT")
            self._loop.call_soon_threadsafe(done)
        connection.close()


async def run_layers(
    loop: BareLoop, number: int, tenant_id: str, content_hash: str, layers: int, width: int, function: Any
) -> None:
    """Execute one run of `layers` times `width` tasks."""
    run_id = f"run-{time.time_ns():016x}{number:08x}"
    await loop.record(0, (run_id, tenant_id, "bare", content_hash, b"{}", time.time_ns()))
    started = time.time_ns()

    async def one(component_id: str) -> None:
        begun = time.time_ns()
        await function()
        await loop.record(1, (run_id, component_id, tenant_id, begun, time.time_ns(), b"null"))

    for layer in range(layers):
        await asyncio.gather(*(one(f"n{layer}-{i}") for i in range(width)))
    await loop.record(2, (started, time.time_ns(), b"null", run_id))
