"""A backlog of a million runs of one tenant: its cost in memory and in speed, and how long a start takes.

python -m benchmarks.backlog SCENARIO prints one JSON object; `BACKLOG_RUNS` is the size. Rates are the best of five
rounds, of which each measures both databases.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import psutil

from benchmarks.engine import WIDE, Figures
from synergymesh import Orchestrator, ResourceQuota, TenantTier, Workflow

RUNS = int(os.environ.get("BACKLOG_RUNS", "1_000_000"))
CHUNK = 10_000
"""Runs of one measurement: so many that both databases read most of them page by page."""

ROUNDS = 5
SUBMITTERS = 500
BATCH_QUOTA = ResourceQuota(
    **{**{name: getattr(WIDE, name) for name in ResourceQuota.__dataclass_fields__}, "max_queued_tasks": 10_000_000}
)


class Gate:
    """Let tasks end only as far as there are permits."""

    def __init__(self) -> None:
        self.permits = 0
        self.used_up = asyncio.Event()
        self._changed = asyncio.Event()

    async def step(self) -> None:
        """Do nothing, once it is permitted."""
        while not self.permits:
            await self._changed.wait()
        self.permits -= 1
        if not self.permits:
            self.used_up.set()

    def open(self, permits: int) -> None:
        """Permit so many more to end."""
        self.permits += permits
        self.used_up.clear()
        self._changed.set()
        self._changed = asyncio.Event()

    def workflow(self) -> Workflow:
        """Give a workflow of one such task."""
        return Workflow("gated").add(self.step, id="step")


async def submit(mesh: Orchestrator, tenant: str, workflow: Workflow, runs: int) -> float:
    """Submit so many runs; give runs per second."""
    todo = iter(range(runs))

    async def submitter() -> None:
        for _ in todo:
            await mesh.submit(workflow, tenant=tenant)

    begun = time.perf_counter()
    await asyncio.gather(*(submitter() for _ in range(SUBMITTERS)))
    return runs / (time.perf_counter() - begun)


async def dispatch(gate: Gate, runs: int) -> float:
    """Let so many runs start and end; give runs per second."""
    begun = time.perf_counter()
    gate.open(runs)
    await gate.used_up.wait()
    return runs / (time.perf_counter() - begun)


def mesh_on(path: Path, *workflows: Workflow) -> Orchestrator:
    """Make an orchestrator."""
    return Orchestrator(
        f"sqlite:///{path}", workflows=workflows, synchronous="normal", shutdown_grace_seconds=0, stop_grace_seconds=1
    )


async def _ready(path: Path, gate: Gate) -> tuple[float, float]:
    """Start an orchestrator; give the seconds until it is started, and until a task of the backlog has ended."""
    begun = time.perf_counter()
    mesh = mesh_on(path, gate.workflow())
    await mesh.start()
    started = time.perf_counter() - begun
    await dispatch(gate, 1)
    first = time.perf_counter() - begun
    await mesh.close()
    return started, first


async def million_backlog() -> Figures:
    """Speed, memory and start with a backlog of a million runs, beside one without."""
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder) / f"{name}.db" for name in ("empty", "full")}
        gates = {name: Gate() for name in paths}
        meshes = {name: mesh_on(path) for name, path in paths.items()}
        tenants = {}
        for name, mesh in meshes.items():
            await mesh.start()
            tenants[name] = (await mesh.create_tenant(name, TenantTier.ENTERPRISE, quota=BATCH_QUOTA)).tenant_id
        flows = {name: gate.workflow() for name, gate in gates.items()}
        begun = time.perf_counter()
        await submit(meshes["full"], tenants["full"], flows["full"], RUNS)
        figures["filling_runs_per_second"] = RUNS / (time.perf_counter() - begun)
        figures["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        submitted: dict[str, list[float]] = {"empty": [], "full": []}
        dispatched: dict[str, list[float]] = {"empty": [], "full": []}
        taken: dict[str, list[float]] = {"empty": [], "full": []}
        for turn in range(ROUNDS):
            for name in sorted(meshes, reverse=bool(turn % 2)):
                gc.collect()
                submitted[name].append(await submit(meshes[name], tenants[name], flows[name], CHUNK))
                before = time.process_time()
                dispatched[name].append(await dispatch(gates[name], CHUNK))
                taken[name].append(time.process_time() - before)
        for verb, rates in (("submission", submitted), ("dispatch", dispatched)):
            for name, values in rates.items():
                figures[f"{verb}_per_second_{name}"] = statistics.median(values)
            figures[f"{verb}_ratio"] = figures[f"{verb}_per_second_full"] / figures[f"{verb}_per_second_empty"]
        figures["dispatch_cpu_ratio"] = statistics.median(taken["empty"]) / statistics.median(taken["full"])
        await meshes["empty"].close()
        figures["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        crashed = Path(folder) / "crashed.db"
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{paths['full']}{suffix}", f"{crashed}{suffix}")
        await meshes["full"].close()
        meshes.clear()
        gc.collect()
        figures["mb_before_restart"] = psutil.Process().memory_info().rss / 2**20
        figures["start_seconds"], figures["first_task_seconds"] = await _ready(paths["full"], Gate())
        figures["start_seconds_after_crash"], figures["first_task_seconds_after_crash"] = await _ready(crashed, Gate())
        figures["mb_after_restart"] = psutil.Process().memory_info().rss / 2**20
        figures["database_mb"] = paths["full"].stat().st_size / 2**20
    return figures


SCENARIOS: dict[str, Callable[[], Coroutine[Any, Any, Figures]]] = {"million_backlog": million_backlog}


def main() -> None:
    """Run one scenario and print its figures."""
    if len(sys.argv) != 2 or sys.argv[1] not in SCENARIOS:
        sys.exit(f"usage: python -m benchmarks.backlog {'|'.join(SCENARIOS)}")
    print(json.dumps(asyncio.run(SCENARIOS[sys.argv[1]]())))


if __name__ == "__main__":
    main()
