"""`synergymesh runs`, `show` and `cancel`: look at runs, and stop one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from synergymesh.cli import output
from synergymesh.cli.options import DATABASE_DEFAULT, DatabaseOption, JsonOption
from synergymesh.cli.traces import show_trace
from synergymesh.domain.states import ExecutionStatus

if TYPE_CHECKING:
    from synergymesh.engine.observability.views import Run, RunTask

RUNS_MAX = 1_000

ENDINGS = {
    "retries_exhausted": "its retries are used up",
    "not_retryable": "such errors are not retried",
    "gave_up": "it gave up",
    "max_elapsed": "the time for its retries is over",
    "timeout": "its time is over",
    "lost": "its executor lost it too often",
}

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The run's id, run-….")]


def runs(
    tenant: Annotated[
        str | None, typer.Option("--tenant", metavar="NAME", help="Only those of a tenant: its name or its id.")
    ] = None,
    status: Annotated[
        list[ExecutionStatus] | None,
        typer.Option("--status", metavar="STATUS", help="Only those in that state; may be repeated."),
    ] = None,
    workflow: Annotated[
        str | None, typer.Option("--workflow", metavar="NAME", help="Only those of a workflow.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, max=RUNS_MAX, help="How many at most.")] = 20,
    cursor: Annotated[
        str | None, typer.Option("--cursor", metavar="RUN", help="Go on after that run, the last one of a page.")
    ] = None,
    database: DatabaseOption = DATABASE_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """List runs, newest first."""
    found, names = asyncio.run(_list(database, tenant, status or [], workflow, limit, cursor))
    if as_json:
        output.say_json([run_json(run, with_tasks=False) for run in found])
        return
    if not found:
        output.note("there is no such run")
        return
    rows = [
        (
            run.id,
            run.status,
            run.workflow,
            names.get(run.tenant_id, run.tenant_id),
            output.moment(run.created_at),
            output.between(run.started_at, run.ended_at),
        )
        for run in found
    ]
    output.show_table(("RUN", "STATUS", "WORKFLOW", "TENANT", "SUBMITTED", "TOOK"), rows, numbers=("TOOK",))
    if len(found) == limit:
        output.note(f"for older ones: --cursor {found[-1].id}")


async def _list(
    database: str,
    tenant: str | None,
    statuses: list[ExecutionStatus],
    workflow: str | None,
    limit: int,
    cursor: str | None,
) -> tuple[list[Run], dict[str, str]]:
    from synergymesh.cli.reading import need_tenant, reading

    async with reading(database) as store:
        tenants = await store.tenants()
        tenant_id = None if tenant is None else need_tenant(tenants, tenant).tenant_id
        found = await store.runs(tenant_id=tenant_id, statuses=statuses, workflow=workflow, limit=limit, cursor=cursor)
    return found, {t.tenant_id: t.tenant_name for t in tenants}


def show(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run's id, run-…, or `last`.")],
    database: DatabaseOption = DATABASE_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Show a run with its tasks, their attempts and errors."""
    found, tenant_name = asyncio.run(_find(database, run))
    if as_json:
        output.say_json(run_json(found))
        return
    from synergymesh.cli.reporting import retries_of

    output.show_fields(
        {
            "run": found.id,
            "workflow": found.workflow,
            "tenant": f"{tenant_name} ({found.tenant_id})",
            "status": found.status,
            "waits": found.reason,
            "submitted": output.moment(found.created_at),
            "not before": output.moment(found.not_before),
            "took": output.between(found.started_at, found.ended_at) if found.ended_at else None,
            "priority": found.priority or None,
            "key": found.idempotency_key,
            "retries": retries_of(found) or None,
            "interruptions": sum(task.interruptions for task in found.tasks) or None,
            "recoveries": found.recoveries or None,
            "retry of": found.retry_of,
            "replay of": found.replay_of,
            "error": found.error,
        }
    )
    output.say_value("input", found.input)
    if found.result is not None:
        output.say_value("result", found.result)
    if found.tasks:
        output.say()
        output.show_table(
            ("TASK", "STATUS", "ATTEMPTS", "TOOK", "ERROR"),
            [_row(task) for task in found.tasks],
            numbers=("ATTEMPTS", "TOOK"),
        )
    failures = [(task, failure) for task in found.tasks for failure in task.failures]
    if failures:
        output.say()
        output.say("attempts that failed, or were interrupted:")
        output.show_table(
            ("TASK", "ATTEMPT", "STATUS", "AT", "TOOK", "ERROR"),
            [
                (
                    task.task_id,
                    failure.number,
                    failure.status if failure.cause == "failure" else failure.cause,
                    output.moment(failure.started_at),
                    output.between(failure.started_at, failure.ended_at),
                    failure.error,
                )
                for task, failure in failures
            ],
            numbers=("ATTEMPT", "TOOK"),
        )
    for task in found.tasks:
        if task.error is not None and task.error.traceback:
            output.say()
            why = f" ({ENDINGS[task.error.ending]})" if task.error.ending in ENDINGS else ""
            output.say(f"{task.task_id} failed for good{why}:")
            show_trace(task.error.traceback)
            break  # the first one explains most; --json has all


def _row(task: RunTask) -> tuple[object, ...]:
    took = output.between(task.started_at, task.ended_at) if task.started_at and task.status != "pending" else None
    return task.task_id, task.status, "reused" if task.reused else task.attempt or None, took, task.error


async def _find(database: str, run_id: str) -> tuple[Run, str]:
    from synergymesh.cli.reading import reading

    async with reading(database) as store:
        found = await store.run(run_id)
        names = {t.tenant_id: t.tenant_name for t in await store.tenants()}
    return found, names.get(found.tenant_id, "?")


def cancel(run: RunArgument, database: DatabaseOption = DATABASE_DEFAULT) -> None:
    """Cancel an open run, also one that another process executes."""
    from synergymesh.cli.administration import administrating
    from synergymesh.local.verbs import CANCEL_RUN

    async def _cancel() -> bool:
        async with administrating(database) as mesh:
            return await mesh.ask(CANCEL_RUN, run_id=run)

    output.say(f"{run} is cancelled" if asyncio.run(_cancel()) else f"{run} was over already")


def run_json(run: Run, *, with_tasks: bool = True) -> dict[str, Any]:
    """Give a run as JSON values, as `--json` prints it."""
    value: dict[str, Any] = output.jsonable(run)
    if not with_tasks:
        del value["tasks"]
    return value
