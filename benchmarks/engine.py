"""Throughput, latency and memory of the engine, beside a bare group-commit loop.

Each scenario runs in a process of its own: `python -m benchmarks.engine SCENARIO` prints one JSON object.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Literal

from benchmarks.bare import BareLoop, run_layers
from benchmarks.scenarios import chain, layered, nothing, single
from synergymesh import Orchestrator, ResourceQuota, TenantTier, Workflow

WIDE = ResourceQuota(
    max_concurrent_tasks=1_000,
    max_memory_mb=1_000_000,
    max_cpu_percent=100,
    max_tasks_per_hour=1_000_000_000,
    rate_limit_per_second=1_000_000,
)
Synchronous = Literal["full", "normal"]
Figures = dict[str, float]


async def _runs(mesh: Orchestrator, tenant: str, workflow: Workflow, runs: int, submitters: int) -> float:
    """Submit runs and wait for all results; give the seconds."""
    todo = iter(range(runs))

    async def submitter() -> None:
        for _ in todo:
            await (await mesh.submit(workflow, tenant=tenant)).result()

    begun = time.perf_counter()
    await asyncio.gather(*(submitter() for _ in range(submitters)))
    return time.perf_counter() - begun


async def _engine(workflow: Workflow, runs: int, tasks: int, submitters: int, synchronous: Synchronous) -> float:
    """Give tasks per second through the engine, the best of three rounds after a warm-up."""
    with tempfile.TemporaryDirectory() as folder:
        async with Orchestrator(
            f"sqlite:///{folder}/mesh.db", max_concurrent_tasks=1_000, synchronous=synchronous
        ) as mesh:
            tenant = (await mesh.create_tenant("bench", TenantTier.ENTERPRISE, quota=WIDE)).tenant_id
            await _runs(mesh, tenant, workflow, max(1, runs // 10), submitters)
            return max([runs * tasks / await _runs(mesh, tenant, workflow, runs, submitters) for _ in range(3)])


async def _bare(layers: int, width: int, runs: int, concurrent: int, synchronous: Synchronous) -> float:
    """Give tasks per second through the bare loop, the best of three rounds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mesh.db"
        async with Orchestrator(f"sqlite:///{path}", synchronous=synchronous) as mesh:
            tenant = (await mesh.create_tenant("bench", TenantTier.ENTERPRISE, quota=WIDE)).tenant_id
            handle = await mesh.submit(single, tenant=tenant)
            await handle.result()
        content_hash = single.definition.content_hash
        loop = BareLoop(str(path), synchronous)
        best = 0.0
        numbers = iter(range(10**9))
        for _ in range(3):
            todo = iter(range(runs))

            async def worker(todo: Any = todo) -> None:
                for _ in todo:
                    await run_layers(loop, next(numbers), tenant, content_hash, layers, width, nothing.function)

            begun = time.perf_counter()
            await asyncio.gather(*(worker() for _ in range(concurrent)))
            best = max(best, runs * layers * width / (time.perf_counter() - begun))
        loop.close()
        return best


async def _shape(layers: int, width: int, workflow: Workflow, runs: int, concurrent: int) -> Figures:
    tasks = layers * width
    engine = await _engine(workflow, runs, tasks, concurrent, "full")
    bare = await _bare(layers, width, runs, concurrent, "full")
    return {"tasks_per_second": engine, "bare_tasks_per_second": bare, "share_of_bare": engine / bare}


async def single_runs() -> Figures:
    """Durable no-op tasks, submitted one run each."""
    return await _shape(1, 1, single, 20_000, 1_000)


async def layered_runs() -> Figures:
    """Layered graphs of ten times ten."""
    return await _shape(10, 10, layered(10, 10), 500, 200)


async def one_chain() -> Figures:
    """One run of a chain of a thousand."""
    return await _shape(1_000, 1, chain(1_000), 1, 1)


async def latency() -> Figures:
    """Submit-to-result of one no-op task at idle, milliseconds."""
    figures: Figures = {}
    for synchronous in ("full", "normal"):
        with tempfile.TemporaryDirectory() as folder:
            async with Orchestrator(f"sqlite:///{folder}/mesh.db", synchronous=synchronous) as mesh:
                tenant = (await mesh.create_tenant("bench", TenantTier.ENTERPRISE, quota=WIDE)).tenant_id
                taken = []
                for _ in range(1_100):
                    begun = time.perf_counter()
                    await (await mesh.submit(single, tenant=tenant)).result()
                    taken.append((time.perf_counter() - begun) * 1_000)
                    await asyncio.sleep(0.001)
        quantiles = statistics.quantiles(taken[100:], n=100)
        figures[f"p50_ms_{synchronous}"] = quantiles[49]
        figures[f"p99_ms_{synchronous}"] = quantiles[98]
    return figures


async def queued_memory() -> Figures:
    """Memory with 100,000 queued runs of one task, and for 10,000 tenants."""
    with tempfile.TemporaryDirectory() as folder:
        async with Orchestrator(f"sqlite:///{folder}/mesh.db") as mesh:
            blocked = (await mesh.create_tenant("bench", TenantTier.ENTERPRISE, quota=WIDE)).tenant_id
            gate = asyncio.Event()
            waiting = Workflow("waiting")

            async def wait_for_gate() -> None:
                await gate.wait()

            waiting.add(wait_for_gate, id="wait")
            holders = [await mesh.submit(waiting, tenant=blocked) for _ in range(256)]
            todo = iter(range(100_000))

            async def submitter() -> None:
                for _ in todo:
                    await mesh.submit(single, tenant=blocked)

            await asyncio.gather(*(submitter() for _ in range(500)))
            gc.collect()
            queued = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            gate.set()
            for holder in holders:
                await holder.result()
    with tempfile.TemporaryDirectory() as folder:
        async with Orchestrator(f"sqlite:///{folder}/mesh.db", synchronous="normal") as mesh:
            await mesh.create_tenant("warm")
            gc.collect()
            tracemalloc.start()
            before = tracemalloc.get_traced_memory()[0]
            for i in range(10):
                await asyncio.gather(*(mesh.create_tenant(f"tenant {i} {j}") for j in range(1_000)))
            gc.collect()
            tenants = (tracemalloc.get_traced_memory()[0] - before) / 10_000
            tracemalloc.stop()
    return {"peak_mb_with_100000_queued_runs": queued, "bytes_per_tenant": tenants}


SCENARIOS: dict[str, Callable[[], Coroutine[Any, Any, Figures]]] = {
    "single_runs": single_runs,
    "layered_runs": layered_runs,
    "one_chain": one_chain,
    "latency": latency,
    "queued_memory": queued_memory,
}


def main() -> None:
    """Run one scenario and print its figures."""
    if len(sys.argv) != 2 or sys.argv[1] not in SCENARIOS:
        sys.exit(f"usage: python -m benchmarks.engine {'|'.join(SCENARIOS)}")
    if os.environ.get("PROFILE"):
        from pyinstrument import Profiler

        with Profiler(async_mode="disabled", interval=0.0005) as profiler:
            figures = asyncio.run(SCENARIOS[sys.argv[1]]())
        print(profiler.output_text(show_all=False, timeline=False), file=sys.stderr)
    else:
        figures = asyncio.run(SCENARIOS[sys.argv[1]]())
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
