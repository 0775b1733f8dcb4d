"""What limits and fairness cost the engine: the same work with them and without, in turns.

python -m benchmarks.limits SCENARIO prints one JSON object. A ratio is of the processor time that a task takes (the
whole process, database threads included) and of tasks per second; the medians of all rounds are compared.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import nullcontext
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.engine import WIDE, Figures
from benchmarks.plain_queue import without_limits
from benchmarks.scenarios import chain, layered, single
from synergymesh import Orchestrator, TenantTier, Workflow

ROUNDS = int(os.environ.get("LIMITS_ROUNDS", "12"))
WAYS = ("on", "off")
_shifts = count()


async def _round(mesh: Orchestrator, tenants: Sequence[str], workflow: Workflow, runs: int, submitters: int) -> None:
    todo = iter(range(runs))
    shift = next(_shifts) * runs  # other tenants in each round

    async def submitter() -> None:
        for number in todo:
            tenant = tenants[(shift + number) % len(tenants)]
            await (await mesh.submit(workflow, tenant=tenant)).result()

    await asyncio.gather(*(submitter() for _ in range(submitters)))


async def compare(workflow: Workflow, *, tenants: int, runs: int, submitters: int, slots: int = 1_000) -> Figures:
    """Run the same with limits and without, in turns."""
    tasks = runs * len(workflow.definition.components)
    walls: dict[str, list[float]] = {way: [] for way in WAYS}
    cpus: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        meshes, names = {}, {}
        for way in WAYS:
            with without_limits() if way == "off" else nullcontext():
                mesh = meshes[way] = Orchestrator(f"sqlite:///{Path(folder) / way}.db", max_concurrent_tasks=slots)
                await mesh.start()
            created = [mesh.create_tenant(f"t{n}", TenantTier.ENTERPRISE, quota=WIDE) for n in range(tenants)]
            names[way] = [tenant.tenant_id for tenant in await asyncio.gather(*created)]
            # everybody once: what a tenant learns of new components is written once, and not what is measured
            await _round(mesh, names[way], workflow, max(runs // 4, tenants), submitters)
            assert mesh._parts is not None
            mesh._parts.maintenance.record_everything()
            await mesh._parts.committer.drained()
        for turn in range(ROUNDS):
            for way in WAYS if turn % 2 else reversed(WAYS):
                gc.collect()
                wall, cpu = time.perf_counter(), time.process_time()
                await _round(meshes[way], names[way], workflow, runs, submitters)
                walls[way].append(time.perf_counter() - wall)
                cpus[way].append(time.process_time() - cpu)
        for mesh in meshes.values():
            await mesh.close()
    on, off = (statistics.median(walls[way]) for way in WAYS)
    cpu_on, cpu_off = (statistics.median(cpus[way]) for way in WAYS)
    return {
        "tasks_per_second_on": tasks / on,
        "tasks_per_second_off": tasks / off,
        "speed_ratio": off / on,
        "cpu_us_per_task_on": cpu_on / tasks * 1e6,
        "cpu_us_per_task_off": cpu_off / tasks * 1e6,
        "cpu_ratio": cpu_off / cpu_on,
    }


async def thousand_tenants() -> Figures:
    """Let a thousand tenants submit single tasks."""
    return await compare(single, tenants=1_000, runs=4_000, submitters=1_000)


async def limits_on_layers() -> Figures:
    """Let one tenant run layered graphs of ten times ten."""
    return await compare(layered(10, 10), tenants=1, runs=60, submitters=60)


async def limits_on_layers_of_many() -> Figures:
    """Let a thousand tenants run layered graphs of ten times ten, a hundred of them at a time."""
    return await compare(layered(10, 10), tenants=1_000, runs=100, submitters=100)


async def limits_on_a_chain() -> Figures:
    """Let each of a thousand tenants run a chain of a hundred tasks in its turn, sixteen of them at a time."""
    return await compare(chain(100), tenants=1_000, runs=64, submitters=16)


SCENARIOS: dict[str, Callable[[], Coroutine[Any, Any, Figures]]] = {
    "thousand_tenants": thousand_tenants,
    "limits_on_layers": limits_on_layers,
    "limits_on_layers_of_many": limits_on_layers_of_many,
    "limits_on_a_chain": limits_on_a_chain,
}


def main() -> None:
    """Run one scenario and print its figures."""
    if len(sys.argv) != 2 or sys.argv[1] not in SCENARIOS:
        sys.exit(f"usage: python -m benchmarks.limits {'|'.join(SCENARIOS)}")
    print(json.dumps(asyncio.run(SCENARIOS[sys.argv[1]]())))


if __name__ == "__main__":
    main()
