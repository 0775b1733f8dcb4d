"""`synergymesh run` and `synergymesh resume`: execute, and show it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from synergymesh.cli import output
from synergymesh.cli.endings import NOT_SUCCESSFUL, Ended
from synergymesh.cli.options import DATABASE_DEFAULT, FILE_HELP, DatabaseOption, JsonOption
from synergymesh.cli.reading import find_tenant, need_tenant, reading
from synergymesh.domain.states import ExecutionStatus, TenantStatus
from synergymesh.domain.tenants import Tenant, TenantTier
from synergymesh.errors import InvalidRequest

if TYPE_CHECKING:
    from synergymesh.cli.executing import Execution
    from synergymesh.orchestrator import Orchestrator
    from synergymesh.workflows.workflow import Workflow

OPEN = (ExecutionStatus.PENDING, ExecutionStatus.RUNNING)

FOLLOWED_RUNS_MAX = 1_000
"""Runs that `resume` follows at the same time; the others go on meanwhile, and are followed after them."""

RUNS_SHOWN_MAX = 10

TimeoutOption = Annotated[
    float | None,
    typer.Option(
        "--timeout", metavar="SECONDS", min=0, help="Stop after that time; `synergymesh resume` goes on from there."
    ),
]
ConcurrencyOption = Annotated[
    int | None,
    typer.Option("--max-concurrent-tasks", metavar="N", min=1, help="Tasks at the same time over all tenants."),
]
SpeedOption = Annotated[
    float, typer.Option("--speed", metavar="N", help="Replay a WfFormat trace that many times faster than recorded.")
]
VerboseOption = Annotated[bool, typer.Option("--verbose", help="Show what the engine logs, not only its warnings.")]


def run(
    file: Annotated[str, typer.Argument(metavar="FILE", help=FILE_HELP)],
    tenant: Annotated[
        str, typer.Option("--tenant", metavar="NAME", help="For whom: a name or an id; a new name makes a tenant.")
    ] = "default",
    tier: Annotated[
        str | None, typer.Option("--tier", help="The plan of a new tenant; enterprise when left out.")
    ] = None,
    input_: Annotated[
        str | None,
        typer.Option("--input", metavar="JSON", help="The workflow's input: a JSON object, @FILE, or - to read it."),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option("--key", metavar="TEXT", help="An idempotency key: the same key gives the same run again."),
    ] = None,
    priority: Annotated[
        int, typer.Option("--priority", metavar="N", help="-1000 to 1000 among the runs of the tenant.")
    ] = 0,
    speed: SpeedOption = 1.0,
    database: DatabaseOption = DATABASE_DEFAULT,
    max_concurrent_tasks: ConcurrencyOption = None,
    timeout: TimeoutOption = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Run a workflow and show it until it ends."""
    from synergymesh.cli import logs
    from synergymesh.cli.followed import FollowedRun
    from synergymesh.cli.reporting import report, report_stopped
    from synergymesh.workflows.loader import load_workflow

    logs.configure(verbose=verbose)
    given = read_input(input_)
    with _output_kept_apart(as_json):
        workflow = load_workflow(file, speed=speed)

        async def execute(mesh: Orchestrator, execution: Execution) -> int:
            owner = await _tenant(mesh, tenant, tier)
            others = await mesh.count_open_runs()
            handle = await mesh.submit(
                workflow, tenant=owner.tenant_id, input=given, idempotency_key=key, priority=priority
            )
            followed = FollowedRun(handle.id, workflow.name, owner.tenant_name, len(workflow.definition.components))
            if others:
                execution.view.say(f"{others:,} open {'run' if others == 1 else 'runs'} of before go on beside it")
            if await execution.follow([handle], [followed], resumed=False):
                return await report([handle.id], mesh.get_run, execution, as_json)
            return await report_stopped([handle.id], execution, database, as_json)

        _execute(execute, database, [workflow], max_concurrent_tasks, timeout, as_json)


def resume(
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE", help="Workflow files that have moved since, FILE.py[:NAME]."),
    ] = None,
    database: DatabaseOption = DATABASE_DEFAULT,
    speed: SpeedOption = 1.0,
    max_concurrent_tasks: ConcurrencyOption = None,
    timeout: TimeoutOption = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Continue all open runs of a database and show them until they end."""
    from synergymesh.cli import logs
    from synergymesh.cli.followed import FollowedRun
    from synergymesh.cli.reporting import report, report_stopped
    from synergymesh.workflows.loader import load_workflows

    logs.configure(verbose=verbose)
    with _output_kept_apart(as_json):
        workflows = [workflow for file in files or () for workflow in load_workflows(file, speed=speed)]

        async def execute(mesh: Orchestrator, execution: Execution) -> int:
            tenants = {t.tenant_id: t for t in await mesh.list_tenants()}
            waiting = await _waiting(mesh, tenants)
            for run_id, reason in list(waiting.items())[:RUNS_SHOWN_MAX]:
                execution.view.say(f"{run_id} waits: {reason}")
            if len(waiting) > RUNS_SHOWN_MAX:
                execution.view.say(f"… and {len(waiting) - RUNS_SHOWN_MAX:,} more runs wait")
            going_on = [run_id for run_id in open_before if run_id not in waiting]
            if not open_before:
                execution.view.say("no run is open")
            for chunk in _chunks(going_on, FOLLOWED_RUNS_MAX):
                runs = [await mesh.get_run(run_id) for run_id in chunk]
                handles = [mesh.handle(run.id, tenant=run.tenant_id) for run in runs]
                followed = [
                    FollowedRun(run.id, run.workflow, tenants[run.tenant_id].tenant_name, len(run.tasks))
                    for run in runs
                ]
                if not await execution.follow(handles, followed, resumed=True):
                    return await report_stopped(going_on, execution, database, as_json)
            code = await report(going_on, mesh.get_run, execution, as_json)
            return NOT_SUCCESSFUL if waiting else code

        # listed before anything is executed: a short run could be over before it was seen
        open_before = asyncio.run(_open_runs(database))
        _execute(execute, database, workflows, max_concurrent_tasks, timeout, as_json)


# --- executing ------------------------------------------------------------------------------------------------------


def _execute(
    execute: Any,
    database: str,
    workflows: Sequence[Workflow],
    max_concurrent_tasks: int | None,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Open the database, do it, close the database; end with the exit code if it is not 0."""
    from synergymesh.cli.executing import Execution
    from synergymesh.cli.followed import Followed
    from synergymesh.cli.interrupts import Interrupts
    from synergymesh.cli.live_view import make_view
    from synergymesh.engine.acting import ActingAs, process_actor
    from synergymesh.orchestrator import Orchestrator

    async def opened() -> int:
        stop = interrupts.stop_event()
        mesh = Orchestrator(database, workflows=workflows, max_concurrent_tasks=max_concurrent_tasks)
        await mesh.start()
        followed = Followed()
        view = make_view(followed, as_json=as_json)
        execution = Execution(mesh, view, followed, stop, timeout)
        try:
            code: int = await execute(mesh, execution)
            return code
        finally:
            view.close()
            await mesh.close()

    with Interrupts() as interrupts, ActingAs(process_actor("cli")):
        code = asyncio.run(opened())
    if interrupts.exit_code is not None:
        raise Ended(interrupts.exit_code)
    if code:
        raise Ended(code)


@contextlib.contextmanager
def _output_kept_apart(as_json: bool) -> Any:
    """Send what tasks print to standard error, when standard output is JSON."""
    if not as_json:
        yield
        return
    with output.keeping_standard_output(), contextlib.redirect_stdout(sys.stderr):
        yield


async def _tenant(mesh: Orchestrator, name: str, tier: str | None) -> Tenant:
    """Find the tenant, or make it."""
    tenants = await mesh.list_tenants()
    if name.startswith("tenant-"):
        return need_tenant(tenants, name)
    found = find_tenant(tenants, name)
    if found is None:
        return await mesh.create_tenant(name, tier or TenantTier.ENTERPRISE)
    if tier not in (None, found.tier):
        raise InvalidRequest(f"the tenant {name!r} is {found.tier}, not {tier}. Leave --tier out.", field="tier")
    return found


async def _waiting(mesh: Orchestrator, tenants: Mapping[str, Tenant]) -> dict[str, str]:
    """Give by id the open runs that do not go on by themselves, and why."""
    waiting = {}
    cursor = None
    while page := await mesh.list_runs(status=OPEN, limit=FOLLOWED_RUNS_MAX, cursor=cursor):
        cursor = page[-1].id
        for run in page:
            if run.reason:
                waiting[run.id] = f"{run.reason.rstrip('.')}. Give its file: synergymesh resume FILE"
            elif tenants[run.tenant_id].status is TenantStatus.SUSPENDED:
                waiting[run.id] = f"its tenant {tenants[run.tenant_id].tenant_name} is suspended"
    return waiting


async def _open_runs(database: str) -> list[str]:
    """Give the ids of the open runs, oldest first."""
    async with reading(database) as store:
        return await store.open_runs()


def _chunks(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


# --- reading what was given -----------------------------------------------------------------------------------------


def read_input(text: str | None) -> dict[str, Any] | None:
    """Read `--input`.

    Raises:
        InvalidRequest: it is no JSON object, or its file cannot be read.
    """
    if text is None:
        return None
    try:
        if text == "-":
            text = sys.stdin.read()
        elif text.startswith("@"):
            text = Path(text[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"--input {text}: {error}", field="input") from None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(
            f'--input is no JSON ({error}). Write it as --input \'{{"name": "value"}}\'.', field="input"
        ) from None
    if not isinstance(value, dict):
        raise InvalidRequest(f"--input must be a JSON object, not {text[:60]}.", field="input")
    return value
