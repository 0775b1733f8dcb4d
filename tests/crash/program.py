"""What the crash tests start and kill: submits runs, acknowledges them in a file, leaves side effects in another.

    program.py DATABASE DIRECTORY READY_FD

Each line of its input starts a process (a fork, as importing everything would take most of the time): `submit` goes on
until it is killed; `finish` ends when every run is final; `killer` has a task that kills the process. `submit@POINT 3`
kills itself when it comes to that fault point for the third time.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zlib import crc32

from synergymesh import Orchestrator, ResourceQuota, RetryPolicy, TenantTier, Workflow, current_task, ref, task
from synergymesh.assembly import Seams
from synergymesh.engine.recovery import CRASHES_MAX
from synergymesh.executors.loop import LoopExecutor
from synergymesh.executors.thread import ThreadExecutor
from synergymesh.store.sqlite import SqliteStore
from synergymesh.testing.faults import NO_FAULT, FaultyExecutor, FaultyStore

OPEN_RUNS = 300
"""Runs that are open at the same time while submitting."""

QUICK = RetryPolicy(max_retries=3, initial_delay=0.005)
DIRECTORY = Path(sys.argv[2] if len(sys.argv) > 2 else ".")


class Killer:
    """A fate that kills the process at a fault point."""

    def __init__(self, doom: str) -> None:
        self._point, _, times = doom.partition(" ")
        self._times = int(times or 1)
        # nothing runs yet when these are reached, so nothing is put down to a task that is on its last chance
        self.is_armed = self._point.startswith(("open", "begin", "recovery", "end_incarnation"))

    async def at(self, point: str) -> None:
        self.at_once(point)

    def at_once(self, point: str) -> None:
        if self.is_armed and point == self._point:
            self._times -= 1
            if not self._times:
                os.kill(os.getpid(), signal.SIGKILL)

    def of_store(self, verb: str) -> Any:
        return NO_FAULT

    def of_report(self, call: Any) -> tuple[float, ...]:
        return (0.0,)

    def seams(self, database: str) -> Seams:
        store: Any = FaultyStore(SqliteStore(database, synchronous="normal"), self)
        executors = {"loop": FaultyExecutor(LoopExecutor(), self), "thread": FaultyExecutor(ThreadExecutor(64), self)}
        return Seams(store=store, executors=executors)


fate = Killer("never")


def append(name: str, line: str) -> None:
    """Append a line to a file outside the system, in one write; it survives the process at once."""
    file = os.open(DIRECTORY / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(file, line.encode())
    os.close(file)


def note() -> float:
    """Leave a side effect; give the seconds that the task takes, up to 20 ms."""
    context = current_task()
    append("effects", f"{context.idempotency_token} {context.run_id} {context.task_id} {context.attempt}\n")
    fate.at_once("task.begun")
    return crc32(context.idempotency_token.encode()) % 20 / 1_000


@task
async def on_loop(*before: Any) -> int:
    await asyncio.sleep(note())
    return 1 + sum(before)


@task
def in_thread(*before: Any) -> int:
    threading.Event().wait(note())
    return 1 + sum(before)


@task(retry=QUICK)
async def flaky(*before: Any) -> int:
    await asyncio.sleep(note())
    if current_task().attempt == 1:
        raise ConnectionError("once")
    return 1 + sum(before)


async def undo(done: int) -> None:
    await asyncio.sleep(note())


@task(compensate=undo)
async def undoable(*before: Any) -> int:
    await asyncio.sleep(note())
    return 1 + sum(before)


@task(retry=RetryPolicy(max_retries=0))
async def fails(*before: Any) -> None:
    await asyncio.sleep(note())
    raise ConnectionError("always")


@task
async def kills() -> None:
    note()
    os.kill(os.getpid(), signal.SIGKILL)


single = Workflow("single").add(on_loop, id="only")
chain = Workflow("chain").add(in_thread, id="c0")
for number in range(1, 6):
    chain.add(flaky if number % 2 else on_loop, id=f"c{number}", args=[ref(f"c{number - 1}")])
layers = Workflow("layers")
for layer in range(5):
    for place in range(5):
        below = [ref(f"l{layer - 1}-{p}") for p in range(5)] if layer else []
        layers.add(in_thread if place == 0 else on_loop, id=f"l{layer}-{place}", args=below)
trip = Workflow("trip").add(undoable, id="s0")
for number in range(1, 3):
    trip.add(undoable, id=f"s{number}", args=[ref(f"s{number - 1}")])
trip.add(fails, id="s3", args=[ref("s2")])
killer = Workflow("killer").add(kills, id="culprit").add(on_loop, id="after", depends_on=["culprit"])
killer.add(on_loop, id="beside")

MIX = [single] * 10 + [chain] * 7 + [layers] * 3 + [trip] * 2


def acknowledged() -> set[str]:
    file = DIRECTORY / "acknowledged"
    return {line.split()[0] for line in file.read_text().splitlines()} if file.exists() else set()


async def submit_for_ever(mesh: Orchestrator, tenants: list[str]) -> None:
    known = acknowledged()
    number = 0
    while True:
        while await mesh.count_open_runs() >= OPEN_RUNS:  # noqa: ASYNC110 - nothing tells of it, so it is looked for
            await asyncio.sleep(0.01)
        numbers = range(number, number + 20)
        number += 20
        await asyncio.gather(*(submit(mesh, tenants, n) for n in numbers if f"key-{n}" not in known))


async def submit(mesh: Orchestrator, tenants: list[str], number: int) -> None:
    key = f"key-{number}"
    handle = await mesh.submit(
        MIX[number % len(MIX)], tenant=tenants[number % len(tenants)], idempotency_key=key, priority=number % 3
    )
    append("acknowledged", f"{key} {handle.id}\n")


async def finish(mesh: Orchestrator) -> None:
    while await mesh.count_open_runs():  # noqa: ASYNC110 - nothing tells of it, so it is looked for
        await asyncio.sleep(0.02)


async def until_no_task_is_on_its_last_chance(mesh: Orchestrator) -> None:
    """Let those tasks end that ran during two deaths: whoever kills the process, the third one is put down to them.

    Their verdicts have to be recorded too, as the next start knows nothing else. Whoever kills the process only
    afterwards, or while no task runs, or when none has run during more than one death, never brings one to three.
    """
    assert mesh._parts is not None
    while any(  # noqa: ASYNC110 - nothing tells of it, so it is looked for
        run.wants(position) or position in (run.running or ())
        for run in mesh._parts.runs
        for position, crashes in (run.crashes or {}).items()
        if crashes == CRASHES_MAX - 1
    ):
        await asyncio.sleep(0.001)
    await mesh._parts.committer.record([])  # it writes in the order in which it is told to: what was judged is recorded


async def live(database: str, ready: int, mode: str) -> None:
    """Live once. Says S at its begin, and R when it is ready."""
    global fate
    os.write(ready, b"S")
    mode, at, doom = mode.partition("@")
    fate = Killer(doom)
    seams = fate.seams(database) if at else None
    async with Orchestrator(f"sqlite:///{database}", synchronous="normal", seams=seams) as mesh:
        tenants = [tenant.tenant_id for tenant in await mesh.list_tenants()]
        while len(tenants) < 3:
            quota = ResourceQuota(
                max_concurrent_tasks=3 + len(tenants), max_tasks_per_hour=1_000_000, rate_limit_per_second=1_000_000
            )
            tenants.append((await mesh.create_tenant("T", TenantTier.ENTERPRISE, quota=quota)).tenant_id)
            await mesh.set_weight(tenants[-1], 4 ** (len(tenants) - 1))
        assert mesh._parts is not None
        if mode != "killer":
            await until_no_task_is_on_its_last_chance(mesh)
        if mode == "submit":
            fate.is_armed = True
            mesh._parts.maintenance.purge_is_due = True  # once more: the first time may have been before this
        os.write(ready, b"R")
        if mode == "submit":
            await submit_for_ever(mesh, tenants)
        if mode == "killer" and not acknowledged():
            all_are_acknowledged = datetime.now(UTC) + timedelta(seconds=0.5)
            for each, count in ((killer, 1), (single, 10), (chain, 3)):
                for _ in range(count):
                    handle = await mesh.submit(each, tenant=tenants[0], not_before=all_are_acknowledged)
                    append("acknowledged", f"{each.name} {handle.id}\n")
        await finish(mesh)


def main(database: str, ready: int) -> None:
    """Live as often as is asked for, each time in a process of its own; say its id, and how it ended."""
    for line in sys.stdin:
        process = os.fork()
        if not process:
            os.dup2(2, 1)  # what is logged is not for the one who asked
            asyncio.run(live(database, ready, line.strip()))
            return
        print(process, flush=True)
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[3]))
