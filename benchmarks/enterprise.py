"""What the enterprise face costs: calls one after the other and side by side, figures with a million tasks, counting.

Each scenario runs in a process of its own: `python -m benchmarks.enterprise SCENARIO` prints one JSON object.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable, Coroutine
from pathlib import Path
from queue import SimpleQueue
from random import Random
from typing import Any

from benchmarks.engine import WIDE, Figures, _runs
from benchmarks.scenarios import layered
from synergymesh import EnterpriseSynergyMeshOrchestrator, Orchestrator, TenantTier
from synergymesh.domain.observability.tallies import Durations
from synergymesh.domain.states import ExecutionStatus
from synergymesh.engine.committer import Entry
from synergymesh.ports.changes import Change, RunCreated, RunFinished, TaskFinished, TenantCreated, WorkflowStored
from synergymesh.ports.records import Committed
from synergymesh.testing.shifted_clock import ShiftedClock

CALLS = 1_000
TASKS = 1_000_000
ROUNDS = 12


async def nothing() -> None: ...


async def bare_hops(path: Path, calls: int) -> float:
    """Give calls per second of a loop that does only what cannot be left out, by the cheapest means: into the engine's
    event loop, the function as a task in that of its caller, back, one durable commit of a row in a writing thread,
    back, and the answer to the caller: six wake-ups of threads."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE results (id INTEGER PRIMARY KEY, value TEXT)")
    engine, caller = asyncio.new_event_loop(), asyncio.get_running_loop()
    ends: SimpleQueue[asyncio.Future[None] | None] = SimpleQueue()

    def begin(answer: asyncio.Future[None]) -> None:
        caller.call_soon_threadsafe(execute, answer)

    def execute(answer: asyncio.Future[None]) -> None:
        caller.create_task(nothing()).add_done_callback(lambda _: engine.call_soon_threadsafe(ends.put, answer))

    def write() -> None:
        while (answer := ends.get()) is not None:
            connection.execute("INSERT INTO results (value) VALUES ('null')")
            engine.call_soon_threadsafe(caller.call_soon_threadsafe, answer.set_result, None)

    threads = [threading.Thread(target=target, daemon=True) for target in (engine.run_forever, write)]
    for thread in threads:
        thread.start()
    begun = time.perf_counter()
    for _ in range(calls):
        answer = caller.create_future()
        engine.call_soon_threadsafe(begin, answer)
        await answer
    rate = calls / (time.perf_counter() - begun)
    ends.put(None)
    engine.call_soon_threadsafe(engine.stop)
    for thread in threads:
        thread.join()
    connection.close()
    return rate


async def calls() -> Figures:
    """1,000 durable calls of a no-op in sequence, and 50 tenants with 100 each at once."""
    with (
        tempfile.TemporaryDirectory() as folder,
        EnterpriseSynergyMeshOrchestrator(f"sqlite:///{folder}/mesh.db") as mesh,
    ):
        tenants = [mesh.create_tenant(f"tenant {n}", TenantTier.ENTERPRISE, WIDE) for n in range(50)]

        async def of(tenant: str, number: int) -> None:
            for _ in range(number):
                await mesh.execute_with_retry(nothing, "c", tenant)

        await of(tenants[0], 100)
        sequence, together, bare = [], [], []
        for number in range(3):
            begun = time.perf_counter()
            await of(tenants[0], CALLS)
            sequence.append(CALLS / (time.perf_counter() - begun))
            bare.append(await bare_hops(Path(folder) / f"bare{number}.db", CALLS))
            begun = time.perf_counter()
            await asyncio.gather(*(of(tenant, 100) for tenant in tenants))
            together.append(5_000 / (time.perf_counter() - begun))
    return {
        "calls_per_second_in_sequence": max(sequence),
        "share_of_bare_hops": statistics.median(a / b for a, b in zip(sequence, bare, strict=True)),
        "calls_per_second_of_50_tenants": max(together),
    }


async def figures() -> Figures:
    """Milliseconds of `get_metrics` and `get_tenant_health` with a million recorded tasks."""
    with tempfile.TemporaryDirectory() as folder:
        address = f"sqlite:///{folder}/mesh.db"
        with EnterpriseSynergyMeshOrchestrator(address) as mesh:
            tenant_id = mesh.create_tenant("Acme", TenantTier.ENTERPRISE, WIDE)
        async with Orchestrator(address, execute=False) as recorder:
            committer = recorder._running.committer
            await committer.record([WorkflowStored("h", "w", b"{}", None, 1)])
            ids = [f"n{n}" for n in range(1_000)]
            for number in range(TASKS // len(ids)):
                run_id = f"run-{number:024x}"
                success = ExecutionStatus.SUCCESS
                unit: list[Change] = [
                    RunCreated(run_id, tenant_id, "w", "h", b"{}", None, 0, 0, 1),
                    *(TaskFinished(run_id, each, tenant_id, success, 1, 1, 2_000_000, b"null", None) for each in ids),
                    RunFinished(run_id, tenant_id, success, 1, 2, None, None),
                ]
                await committer.record(unit)
        with EnterpriseSynergyMeshOrchestrator(address) as mesh:
            assert mesh.get_metrics()["total_executions"] == TASKS
            return {
                "median_ms_get_metrics": _median_ms(mesh.get_metrics),
                "median_ms_get_tenant_health": _median_ms(lambda: mesh.get_tenant_health(tenant_id)),
            }


def _median_ms(ask: Callable[[], object]) -> float:
    seconds = []
    for _ in range(200):
        begun = time.perf_counter()
        ask()
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds) * 1_000


async def counting() -> Figures:
    """Layered graphs with everything that is counted and looked at, and with nothing of it, in turns in one run.

    In each round of half a second counts are written and alerts looked for, and in every fourth the metrics are asked
    for: several times as often as usual. The median is of the rounds' throughputs, the other one of all processor time.
    """
    shares: list[float] = []
    cpu = {True: 0.0, False: 0.0}
    with tempfile.TemporaryDirectory() as folder:
        async with Orchestrator(f"sqlite:///{folder}/mesh.db", max_concurrent_tasks=1_000) as mesh:
            tenant_id = (await mesh.create_tenant("bench", TenantTier.ENTERPRISE, quota=WIDE)).tenant_id
            parts = mesh._running
            counted = parts.committer.recorded, parts.neighbours.waited, parts.committer.durations
            nothing = _ignore, _ignore, _Uncounted()
            for number in range(ROUNDS + 1):
                rates: dict[bool, tuple[float, float]] = {}
                for is_on in (True, False) if number % 2 else (False, True):
                    used = counted if is_on else nothing
                    parts.committer.recorded, parts.neighbours.waited, parts.committer.durations = used
                    computed, begun = time.process_time(), time.perf_counter()
                    await _runs(mesh, tenant_id, layered(10, 10), 200, 50)
                    if is_on:
                        await parts.statistics.write_in_turns()
                        await parts.alerts.look()
                        await mesh.get_tenant_health(tenant_id)
                        if number % 4 == 0:
                            await mesh.metrics_text()
                    rates[is_on] = (1 / (time.perf_counter() - begun), time.process_time() - computed)
                if number:  # the first round warms up
                    shares.append(rates[True][0] / rates[False][0])
                    cpu = {is_on: cpu[is_on] + rates[is_on][1] for is_on in cpu}
            parts.committer.recorded, parts.neighbours.waited, parts.committer.durations = counted
    return {"share_median": statistics.median(shares), "share_by_processor_time": cpu[False] / cpu[True]}


class _Uncounted(Durations):
    """Count nothing."""

    def add(self, microseconds: int) -> None:
        """Do nothing."""


MANY_TENANTS = 5_000


async def many_tenants() -> Figures:
    """Figures of 5,000 tenants that have all worked in this hour, and how long they keep the event loop from the rest.

    Milliseconds: medians of the calls, and the longest time between two turns of another task meanwhile.
    """
    async with Orchestrator(":memory:") as mesh:
        parts = mesh._running
        tenants = [f"tenant-{number:016x}" for number in range(MANY_TENANTS)]
        for start in range(0, MANY_TENANTS, 500):
            made: list[Change] = [TenantCreated(each, each, "basic", b"{}", 1) for each in tenants[start : start + 500]]
            await parts.committer.record(made)
        await parts.tenants.load()
        dice = Random(1)
        found: Figures = {}
        for tasks in (60, 8):  # the second time, what 20,000 tasks a second leave in the two seconds between writings
            await parts.statistics.write_in_turns()
            await parts.committer.drained()
            recorded, waited, now = parts.committer.recorded, parts.neighbours.waited, parts.clock.now()
            for tenant_id in tenants:
                _work_an_hour(recorded, waited, tenant_id, now, dice, tasks)
        found["stall_ms_counting"] = await _stall_ms(parts.statistics.write_in_turns)
        await parts.committer.drained()
        found["stall_ms_alerts"] = await _stall_ms(parts.alerts.look)
        await mesh.metrics_text()  # the first one gives out the labels
        found["stall_ms_metrics"] = await _stall_ms(mesh.metrics_text)
        asked: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
            "metrics_text": mesh.metrics_text,
            "get_metrics": mesh.get_metrics,
            "get_tenant_health": lambda: mesh.get_tenant_health(tenants[7]),
        }
        for name, ask in asked.items():
            seconds = []
            for _ in range(20):
                begun = time.perf_counter()
                await ask()
                seconds.append(time.perf_counter() - begun)
            found[f"median_ms_{name}"] = statistics.median(seconds) * 1_000
    return found


async def _stall_ms(work: Callable[[], Coroutine[Any, Any, Any]]) -> float:
    """Give the longest time for which a piece of work keeps another task waiting."""
    longest = 0.0
    task = asyncio.create_task(work())
    last = time.perf_counter()
    while not task.done():
        await asyncio.sleep(0)
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
    await task
    return longest * 1_000


def _ignore(*_: object) -> None:
    """Count nothing."""


ACTIVE_TENANTS = 200
PER_HOUR = 1_000


async def tenant_memory() -> Figures:
    """Bytes that a tenant takes in memory: idle, and with two hours of work that takes and waits differently long.

    A thousand tasks and runs an hour, whose durations and waits spread by a factor of e around their medians
    (log-normal), are counted as the engine counts them; the clock goes on by an hour in between.
    """
    clock = ShiftedClock()
    async with Orchestrator(":memory:", clock=clock) as mesh:
        parts = mesh._running
        dice = Random(1)
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        tenants = [
            (await mesh.create_tenant(f"tenant {n}", TenantTier.ENTERPRISE)).tenant_id for n in range(ACTIVE_TENANTS)
        ]
        idle = await _bytes_per_tenant(mesh, tenants, before)
        for hour in range(2):
            clock.forward(hours=hour)
            await parts.statistics.write_in_turns()  # the hour before is over
            for tenant_id in tenants:
                _work_an_hour(parts.committer.recorded, parts.neighbours.waited, tenant_id, clock.now(), dice)
            await parts.statistics.write_in_turns()
            await parts.committer.drained()
        active = await _bytes_per_tenant(mesh, tenants, before)
        tracemalloc.stop()
    return {"bytes_per_idle_tenant": idle, "bytes_per_active_tenant": active}


def _work_an_hour(
    recorded: Callable[[Any, Any], None],
    waited: Callable[[str, int, int], None],
    tenant_id: str,
    now: int,
    dice: Random,
    tasks: int = PER_HOUR,
) -> None:
    done = Committed(None)
    for _ in range(tasks):
        began = now - int(dice.lognormvariate(11.5, 1) * 1_000)
        unit: list[Change] = [
            RunCreated("run-1", tenant_id, "w", "h", b"{}", None, 0, 0, began),
            TaskFinished("run-1", "a", tenant_id, ExecutionStatus.SUCCESS, 1, began, now, b"null", None),
            RunFinished("run-1", tenant_id, ExecutionStatus.SUCCESS, began, now, None, None),
        ]
        recorded([Entry(unit, _ignore, False)], [done])
        waited(tenant_id, int(dice.lognormvariate(8, 1) * 1_000), 1)


async def _bytes_per_tenant(mesh: Orchestrator, tenants: list[str], before: int) -> float:
    await mesh._running.committer.drained()
    for weight in (3, 4):  # small commits: what was written last stays with its writer until something else is
        await mesh.set_weight(tenants[0], weight)
    gc.collect()
    return (tracemalloc.get_traced_memory()[0] - before) / len(tenants)


SCENARIOS: dict[str, Callable[[], Coroutine[Any, Any, Figures]]] = {
    "enterprise_calls": calls,
    "enterprise_figures": figures,
    "enterprise_counting": counting,
    "enterprise_many_tenants": many_tenants,
    "tenant_memory": tenant_memory,
}

if __name__ == "__main__":
    print(json.dumps(asyncio.run(SCENARIOS[sys.argv[1]]())))
