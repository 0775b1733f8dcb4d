"""Verify the installed Python packages: every file against the hash that was recorded when it was installed.

A workflow with one component for each distribution, those that are required first, runs for three tenants of different
tiers at once:

    python examples/verify-packages.py
    python examples/verify-packages.py --distributions rich typer --workers 1
    python examples/verify-packages.py --database verify.db     # killed in the middle? the same command goes on

Exit codes: 0 everything is as it was installed; 1 something is not, or could not be checked; 2 wrong usage; 3 the
database cannot be used.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from package_report import report_on, say, show
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from synergymesh import (
    ExecutionStatus,
    Orchestrator,
    RetryPolicy,
    Run,
    RunHandle,
    SynergyMeshError,
    Tenant,
    TenantTier,
    Workflow,
    current_task,
    ref,
    task,
)
from synergymesh.cli import logs
from synergymesh.cli.endings import code_of
from synergymesh.cli.installed import (
    Environment,
    FileRecord,
    Installed,
    find_distribution,
    read_environment,
    read_record,
)
from synergymesh.cli.output import clean
from synergymesh.cli.reading import reading
from synergymesh.domain.tenants import TIER_PLANS
from synergymesh.errors import StoreUnavailable

TENANTS = {
    "Shop": TenantTier.BASIC,
    "Agency": TenantTier.PROFESSIONAL,
    "Bank": TenantTier.ENTERPRISE,
}
WORKFLOW = "verify-packages"
PROBLEMS_RECORDED_MAX = 1_000
"""Problems of one distribution in a result: far below the limit of a result's size."""

BLOCK_BYTES = 1 << 20
DISK_RETRY = RetryPolicy(max_retries=3, initial_delay=0.2, retry_on=(OSError,))
"""A disk or a network file system that fails for a moment is asked again; a file that is not there is a finding."""


# --- the work -------------------------------------------------------------------------------------------------------


@task(name="verify")
def verify(name: str, root: str, needed: list[dict[str, Any]]) -> dict[str, Any]:
    """Check every file of a distribution against its RECORD.

    Args:
        name: canonical name.
        root: the directory that the distribution was found in.
        needed: the results of the distributions that it requires.

    Returns:
        counts, the problems, and `unsafe`: the names of all distributions that are not as they were installed, this
        one included, that it is built on.
    """
    began, cpu_began = time.perf_counter(), time.thread_time()
    distribution = find_distribution(name, root)
    records = None if distribution is None else read_record(distribution)
    problems: list[list[str]] = []
    checked = unchecked = size = 0
    if distribution is None:
        problems.append([name, "not installed any more"])
    elif records is None:
        unchecked = 1
    for position, record in enumerate(records or ()):
        if current_task().cancelled:
            raise InterruptedError("stopped")
        current_task().heartbeat(position / len(records or ()))
        if not record.hash:
            unchecked += 1
            continue
        problem, read = check_file(Path(root), record)
        checked += 1
        size += read
        if problem is not None:
            problems.append([record.path, problem])
    unsafe = {other for result in needed for other in result["unsafe"]} | ({name} if problems else set())
    return {
        "name": name,
        "files": checked + unchecked,
        "checked": checked,
        "not_checked": unchecked,
        "bytes": size,
        "problems": problems[:PROBLEMS_RECORDED_MAX],
        "problem_count": len(problems),
        "unsafe": sorted(unsafe),
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.thread_time() - cpu_began,
    }


def check_file(root: Path, record: FileRecord) -> tuple[str | None, int]:
    """Compare a file with its record; give what is wrong, or None, and how many bytes were read.

    Raises:
        OSError: the file is there, and cannot be read.
    """
    algorithm, _, expected = record.hash.partition("=")
    if algorithm not in hashlib.algorithms_guaranteed or algorithm.startswith("shake"):
        return f"unknown hash {algorithm}", 0
    digest, size = hashlib.new(algorithm), 0
    try:
        with open(root / record.path, "rb") as file:
            while block := file.read(BLOCK_BYTES):
                digest.update(block)
                size += len(block)
    except (FileNotFoundError, NotADirectoryError):
        return "missing", 0
    except (IsADirectoryError, PermissionError) as error:
        return f"unreadable: {error.strerror}", 0
    if base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode() == expected:
        return None, size
    if record.size is not None and size != record.size:
        return f"{size:,} bytes instead of {record.size:,}", size
    return "changed", size


def build(distributions: Iterable[Installed]) -> Workflow:
    """Make the workflow: one component for each distribution, which gets the results of those that it requires."""
    built = Workflow(WORKFLOW)
    for each in distributions:
        built.add(
            verify,
            id=each.name,
            args=[each.name, each.root, [ref(name) for name in each.needs]],
            weight=each.estimated_seconds,
        )
    return built.returns(None)


# --- running it for three tenants -----------------------------------------------------------------------------------


@dataclass(slots=True)
class Job:
    """Hold what is known of one tenant's run."""

    tenant: Tenant
    handle: RunHandle
    continued: bool
    done: int = 0
    retries: int = 0


async def submit(
    mesh: Orchestrator, workflow: Workflow, name: str, tier: TenantTier, open_before: Collection[str]
) -> Job:
    """Submit the workflow for a tenant, or go on with a run of it that was open when the program started."""
    tenant = next((t for t in await mesh.list_tenants() if t.tenant_name == name), None)
    if tenant is None:
        # the plan's own limits, except that checking the same packages often is not metered by the hour
        quota = replace(TIER_PLANS[tier].quota, max_tasks_per_hour=1_000_000)
        tenant = await mesh.create_tenant(name, tier, quota=quota)
    for run in await mesh.list_runs(tenant=tenant.tenant_id, workflow=WORKFLOW):
        if run.id not in open_before:
            continue
        components = {t.task_id for t in (await mesh.get_run(run.id)).tasks}
        if components == {c.component_id for c in workflow.definition.components}:
            return Job(tenant, mesh.handle(run.id, tenant=tenant.tenant_id), continued=True)
    return Job(tenant, await mesh.submit(workflow, tenant=tenant.tenant_id), continued=False)


async def follow(job: Job, bars: Bars) -> None:
    """Count the events of a run and show them."""
    async for event in job.handle.events():
        if event.task_id is None:
            continue
        if event.status is ExecutionStatus.RETRYING:
            job.retries += 1
            bars.say(f"{job.tenant.tenant_name}: {event.task_id} is tried again: {event.error}")
        elif event.status.is_final:
            job.done += 1
        bars.show(job)


async def verify_for_all(workflow: Workflow, database: str, workers: int, bars: Bars) -> list[tuple[Tenant, Run]]:
    """Run the workflow for every tenant at once; give how each run ended."""
    open_before: list[str] = []
    with contextlib.suppress(StoreUnavailable):  # a new database
        async with reading(database) as store:
            open_before = await store.open_runs()
    async with Orchestrator(
        database, default_retry=DISK_RETRY, workflows=[workflow], max_concurrent_tasks=workers
    ) as mesh:
        jobs = [await submit(mesh, workflow, name, tier, open_before) for name, tier in TENANTS.items()]
        for job in jobs:
            bars.add(job, len(workflow.definition.components))
        await asyncio.gather(*(follow(job, bars) for job in jobs))
        return [(job.tenant, await mesh.get_run(job.handle.id)) for job in jobs]


class Bars:
    """Show a progress bar for each tenant; lines where there is no terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            TextColumn("{task.fields[tier]}", style="dim"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[retries]}", style="yellow"),
            TimeElapsedColumn(),
            console=console,
            expand=True,
            transient=True,
            disable=not console.is_terminal,
        )
        self._rows: dict[str, Any] = {}

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def add(self, job: Job, total: int) -> None:
        """Begin to show a run."""
        name, tier = job.tenant.tenant_name, str(job.tenant.tier)
        self._rows[job.handle.id] = self._progress.add_task(clean(name), total=total, tier=tier, retries="")
        if job.continued:
            self.say(f"{name}: goes on with {job.handle.id}")
        elif not self._console.is_terminal:
            self.say(f"{name} ({tier}): {job.handle.id}, {total} distributions")

    def show(self, job: Job) -> None:
        """Show how far a run is."""
        retries = f"{job.retries} retried" if job.retries else ""
        self._progress.update(self._rows[job.handle.id], completed=job.done, retries=retries)

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        self._console.print(
            Text(clean(text)), no_wrap=True, overflow="ellipsis", soft_wrap=not self._console.is_terminal
        )


# --- the command ----------------------------------------------------------------------------------------------------


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n\n")[0], epilog=__doc__.partition("\n\n")[2], allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--environment", metavar="PATH", action="append", help="a site-packages directory to verify")
    parser.add_argument("--distributions", metavar="NAME", nargs="+", help="only these, and what they require")
    parser.add_argument("--workers", metavar="N", type=int, default=os.cpu_count() or 1, help="tasks at the same time")
    parser.add_argument("--database", metavar="URL", help="keep the runs in this database; temporary when left out")
    parser.add_argument("--report", metavar="PATH", default="verify-packages-report.json", help="file for the report")
    options = parser.parse_args(arguments)
    for path in options.environment or ():
        if not Path(path).is_dir():
            parser.error(f"--environment: there is no directory {path}")
    return options


def choose(environment: Environment, names: Sequence[str] | None) -> Environment:
    """Keep the distributions of these names and what they require; all if there are no names.

    Raises:
        SystemExit: one is not installed.
    """
    if names is None:
        return environment
    from synergymesh.cli.installed import canonical

    wanted: set[str] = set()
    open_names = [canonical(name) for name in names]
    while open_names:
        name = open_names.pop()
        if name not in environment.distributions:
            print(f"error: {clean(name)} is not installed", file=sys.stderr)
            raise SystemExit(2)
        if name not in wanted:
            wanted.add(name)
            open_names.extend(environment.distributions[name].needs)
    return Environment(
        distributions={name: each for name, each in environment.distributions.items() if name in wanted},
        cut=tuple((name, other) for name, other in environment.cut if name in wanted),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify, print, write the report; give the exit code."""
    options = parse(arguments)
    logs.configure()
    console = Console(highlight=False, emoji=False, markup=False)
    environment = choose(read_environment(options.environment), options.distributions)
    if not environment.distributions:
        print("error: there is no distribution to verify", file=sys.stderr)
        return 2
    workflow = build(environment.distributions.values())
    edges = sum(len(each.needs) for each in environment.distributions.values())
    say(
        console,
        f"{len(environment.distributions)} installed distributions, {edges} dependencies between them, "
        f"{len(TENANTS)} tenants",
    )
    with contextlib.ExitStack() as stack:
        database = options.database
        if database is None:
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="synergymesh-"))
            database = str(Path(directory) / "verify.db")
        try:
            began = time.perf_counter()
            with Bars(console) as bars:
                ended = asyncio.run(verify_for_all(workflow, database, options.workers, bars))
            wall_seconds = time.perf_counter() - began
        except SynergyMeshError as error:
            print(f"error: {clean(error)}", file=sys.stderr)
            return code_of(error)
        except KeyboardInterrupt:
            if options.database is not None:
                print("stopped; nothing is lost, the same command goes on", file=sys.stderr)
            return 130
    report = report_on(environment, ended, wall_seconds, options.workers)
    try:
        Path(options.report).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        print(f"error: the report cannot be written: {clean(error)}", file=sys.stderr)
        return 2
    show(report, console, options.report)
    return 0 if report["intact"] else 1


if __name__ == "__main__":
    sys.exit(main())
