"""What the audit log costs: the engine with it and without it in turns, chaining and writing entries, asking for some.

Each scenario runs in a process of its own: `python -m benchmarks.audit SCENARIO` prints one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.engine import WIDE, Figures, _runs
from benchmarks.scenarios import layered, single
from synergymesh import Orchestrator, TenantTier, Workflow
from synergymesh.domain.states import ExecutionStatus
from synergymesh.ports.changes import Change, RunCreated, TaskFinished, TenantCreated, WorkflowStored
from synergymesh.store import writes
from synergymesh.store.audit.writes import Trail
from synergymesh.store.sqlite import SqliteStore
from synergymesh.store.sqlite_files import open_writer
from synergymesh.store.transactions import transaction

ROUNDS = 40
"""Rounds of a quarter of a second: what else runs on the machine hits both sides alike."""
ENTRIES = 10_000_000
TENANTS = 100


class _NoTrail(Trail):
    """Record nothing. There is no setting for this: only a benchmark may leave the audit log out."""

    def add_changes(self, changes: Sequence[Change]) -> None:
        """Forget them."""


@contextmanager
def _without_audit() -> Iterator[None]:
    vars(writes)["Trail"] = _NoTrail
    try:
        yield
    finally:
        vars(writes)["Trail"] = Trail


async def _ratio(workflow: Workflow, runs: int, tasks: int, submitters: int) -> Figures:
    """Give tasks per second with and without, in turns on two databases, and the median of the ratios of neighbours."""

    @asynccontextmanager
    async def opened(folder: str, name: str) -> Any:
        async with Orchestrator(f"sqlite:///{folder}/{name}.db", max_concurrent_tasks=1_000) as mesh:
            yield mesh, (await mesh.create_tenant("bench", TenantTier.ENTERPRISE, quota=WIDE)).tenant_id

    with tempfile.TemporaryDirectory() as folder:
        async with opened(folder, "with") as (with_it, tenant), opened(folder, "without") as (without, other):
            rates: tuple[list[float], list[float]] = ([], [])
            cpu: tuple[list[float], list[float]] = ([], [])
            for number in range(ROUNDS + 1):
                for turn in (0, 1) if number % 2 else (1, 0):
                    computed = time.process_time()
                    if turn == 0:
                        seconds = await _runs(with_it, tenant, workflow, runs, submitters)
                    else:
                        with _without_audit():
                            seconds = await _runs(without, other, workflow, runs, submitters)
                    if number:  # the first round warms up
                        rates[turn].append(runs * tasks / seconds)
                        cpu[turn].append((time.process_time() - computed) / (runs * tasks) * 1e6)
    ratios = [a / b for a, b in zip(*rates, strict=True)]
    return {
        "tasks_per_second_with": statistics.median(rates[0]),
        "tasks_per_second_without": statistics.median(rates[1]),
        "share_median": statistics.median(ratios),
        "share_of_best": max(rates[0]) / max(rates[1]),
        "cpu_us_per_task_with": statistics.median(cpu[0]),
        "cpu_us_per_task_without": statistics.median(cpu[1]),
    }


async def layered_runs() -> Figures:
    """Layered graphs of ten times ten."""
    return await _ratio(layered(10, 10), 50, 100, 50)


async def single_runs() -> Figures:
    """Durable no-op tasks, submitted one run each."""
    return await _ratio(single, 2_000, 1, 1_000)


TENANT_IDS = [f"tenant-{number:016x}" for number in range(TENANTS)]


def _prepare(connection: sqlite3.Connection, runs: Sequence[str]) -> None:
    tenants: list[Change] = [TenantCreated(tenant_id, tenant_id, "basic", b"{}", 1) for tenant_id in TENANT_IDS]
    writes.commit(connection, [[*tenants, WorkflowStored("h", "w", b"{}", None, 1)]])
    writes.commit(
        connection,
        [[RunCreated(run, TENANT_IDS[n % TENANTS], "w", "h", b"{}", None, 0, 0, 1)] for n, run in enumerate(runs)],
    )


def _finished(run: str, tenant_id: str, number: int) -> TaskFinished:
    at = 1_795_386_447_930_130_890 + number
    return TaskFinished(run, f"n{number}", tenant_id, ExecutionStatus.SUCCESS, 1, at, at, b"null", None)


async def sealing() -> Figures:
    """Entries per second, mapped, chained and written with `synchronous=full`, and the memory for batches of 2,000."""
    size, batches = 2_000, 50
    runs = [f"run-{number:024x}" for number in range(1_000)]
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as folder:
        connection = open_writer(Path(folder) / "mesh.db", "full")
        _prepare(connection, runs)
        changes = [_finished(runs[n % 1_000], TENANT_IDS[n % TENANTS], n) for n in range(size)]
        seconds = []
        for _ in range(batches):
            connection.execute("BEGIN IMMEDIATE")
            begun = time.perf_counter()
            trail = Trail(connection)
            trail.add_changes(changes)
            trail.seal()
            connection.execute("COMMIT")
            seconds.append(time.perf_counter() - begun)
        figures["entries_per_second"] = size * batches / sum(seconds)
        peaks = []
        for name, count in (("10000", 5), ("200000", 100)):
            tracemalloc.start()
            for _ in range(count):
                with transaction(connection):
                    trail = Trail(connection)
                    trail.add_changes(changes)
                    trail.seal()
            peaks.append(tracemalloc.get_traced_memory()[1])
            figures[f"peak_mb_over_{name}_entries"] = peaks[-1] / 1e6
            tracemalloc.stop()
        figures["peak_after_200000_entries_to_10000"] = peaks[1] / peaks[0]
        connection.close()
    return figures


APART = 10_000_000
"""Nanoseconds between the entries of a tenant."""


def _run_at(seq: int) -> str:
    """Give the id of the run of which an entry is: it says when it was submitted."""
    return f"run-{seq // 50 * 50 * APART:016x}00000000"


async def query() -> Figures:
    """Milliseconds for the last 100 entries of one tenant among ten million, and for some with a filter."""
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mesh.db"
        connection = open_writer(path, "normal")
        connection.execute("PRAGMA synchronous = OFF")
        _prepare(connection, ["run-1"])
        per_tenant = ENTRIES // TENANTS
        first = max(seq for (seq,) in connection.execute("SELECT seq FROM audit_heads")) + 1
        hash_, filling = bytes(32), b" " * 200
        begun = time.perf_counter()
        for start in range(first, per_tenant + 1, 1_000):
            connection.execute("BEGIN")
            connection.executemany(
                "INSERT INTO audit_entries (tenant_id, seq, first_at, at, action, entity, version, actor, outcome,"
                " payload, hash) VALUES (?, ?, ?, ?, ?, '', 0, ?, ?, ?, ?)",
                (
                    (
                        tenant_id,
                        seq,
                        seq * APART,
                        seq * APART,
                        {0: "run.submitted", 49: "run.finished"}.get(seq % 50, "task.finished"),
                        "system/engine" if seq % 50 else "user/alice",
                        "failure" if seq % 5_000 == 1 else "success",
                        b'{"entity":"run/%s","at":%d,"version":1}%s' % (_run_at(seq).encode(), seq * APART, filling)
                        if seq % 50 in (0, 49)
                        else filling,
                        hash_,
                    )
                    # in turns, as they are recorded: the last ones of a tenant lie far from each other
                    for seq in range(start, min(start + 1_000, per_tenant + 1))
                    for tenant_id in TENANT_IDS
                ),
            )
            connection.execute("COMMIT")
        figures["seconds_to_fill"] = time.perf_counter() - begun
        figures["bytes_per_entry"] = path.stat().st_size / ENTRIES
        connection.close()
        store = SqliteStore(f"sqlite:///{path}")
        await store.open()
        asked: dict[str, dict[str, Any]] = {
            "last_100": {},
            "failures": {"outcome": "failure"},
            "of_user": {"actor": "user/alice"},
            # As long as the run's row is there, its times are known; of this one only its id is left.
            "of_run": {"entity": f"run/{_run_at(per_tenant // 100 * 50)}"},
        }
        for name, filters in asked.items():
            taken = []
            for tenant_id in TENANT_IDS[:50]:
                begun = time.perf_counter()
                await store.find_audit_entries(tenant_id, **filters, limit=100)
                taken.append((time.perf_counter() - begun) * 1_000)
            figures[f"median_ms_{name}"] = statistics.median(taken)
            figures[f"worst_ms_{name}"] = max(taken)
        await store.close()
    return figures


SCENARIOS: dict[str, Callable[[], Coroutine[Any, Any, Figures]]] = {
    "audit_layered_runs": layered_runs,
    "audit_single_runs": single_runs,
    "audit_sealing": sealing,
    "audit_query": query,
}


def main() -> None:
    """Run one scenario and print its figures."""
    if len(sys.argv) != 2 or sys.argv[1] not in SCENARIOS:
        sys.exit(f"usage: python -m benchmarks.audit {'|'.join(SCENARIOS)}")
    print(json.dumps(asyncio.run(SCENARIOS[sys.argv[1]]())))


if __name__ == "__main__":
    main()
