"""`synergymesh dead-letters …`: tasks that failed for good: look into them, do them again, or put them away."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from synergymesh.cli import output
from synergymesh.cli.options import DATABASE_DEFAULT, DatabaseOption, JsonOption
from synergymesh.cli.traces import show_trace

if TYPE_CHECKING:
    from synergymesh.engine.control.dead_letter_views import DeadLetter
    from synergymesh.engine.control.dead_letters import Redriven

app = typer.Typer(invoke_without_command=True)

LETTERS_MAX = 1_000

LetterArgument = Annotated[str, typer.Argument(metavar="ID", help="RUN:TASK, as `dead-letters list` shows it.")]
TenantOption = Annotated[
    str | None, typer.Option("--tenant", metavar="NAME", help="Only those of a tenant: its name or its id.")
]
WorkflowOption = Annotated[str | None, typer.Option("--workflow", metavar="NAME", help="Only those of a workflow.")]
ErrorOption = Annotated[
    str | None,
    typer.Option("--error", metavar="TYPE", help="Only those whose error is of that type, or derived from it."),
]
SinceOption = Annotated[
    datetime | None,
    typer.Option(
        "--since",
        formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"],
        help="Only those that failed then or later; UTC if no offset is given.",
    ),
]


@app.callback()
def dead_letters(context: typer.Context) -> None:
    """Look into tasks that failed for good, do them again, or put them away."""
    if context.invoked_subcommand is None:
        output.write(context.get_help() + "\n")


@app.command("list")
def list_(
    tenant: TenantOption = None,
    workflow: WorkflowOption = None,
    error: ErrorOption = None,
    since: SinceOption = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, max=LETTERS_MAX, help="How many at most.")] = 20,
    cursor: Annotated[
        str | None, typer.Option("--cursor", metavar="ID", help="Go on after that one, the last one of a page.")
    ] = None,
    database: DatabaseOption = DATABASE_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """List those that nobody has seen to, of the newest runs first."""
    found, names = asyncio.run(_list(database, tenant, workflow, error, _aware(since), limit, cursor))
    if as_json:
        output.say_json([letter_json(letter, whole=False) for letter in found])
        return
    if not found:
        output.note("there is no such dead letter")
        return
    rows = [
        (x.id, x.status, x.workflow, names.get(x.tenant_id, x.tenant_id), output.moment(x.failed_at), x.error)
        for x in found
    ]
    output.show_table(("ID", "STATUS", "WORKFLOW", "TENANT", "FAILED", "ERROR"), rows)
    if len(found) == limit:
        output.note(f"for older ones: --cursor {found[-1].id}")


async def _list(
    database: str,
    tenant: str | None,
    workflow: str | None,
    error: str | None,
    since: datetime | None,
    limit: int,
    cursor: str | None,
) -> tuple[list[DeadLetter], dict[str, str]]:
    from synergymesh.cli.reading import need_tenant, reading
    from synergymesh.engine.control.dead_letter_views import DeadLetterQuery

    async with reading(database) as store:
        tenants = await store.tenants()
        tenant_id = None if tenant is None else need_tenant(tenants, tenant).tenant_id
        query = DeadLetterQuery(tenant_id=tenant_id, workflow=workflow, error_type=error, since=since)
        found = await store.dead_letters(query, limit=limit, cursor=cursor)
    return found, {t.tenant_id: t.tenant_name for t in tenants}


@app.command()
def show(letter: LetterArgument, database: DatabaseOption = DATABASE_DEFAULT, as_json: JsonOption = False) -> None:
    """Show one with its arguments, its attempts, and its traceback."""
    found = asyncio.run(_find(database, letter))
    if as_json:
        output.say_json(letter_json(found))
        return
    _say(found)
    output.say_value("input", found.input)
    output.say_value("args", list(found.args))
    output.say_value("kwargs", found.kwargs)
    if found.failures:
        output.say()
        output.say("attempts before:")
        output.show_table(
            ("ATTEMPT", "STATUS", "AT", "TOOK", "ERROR"),
            [
                (f.number, f.status, output.moment(f.started_at), output.between(f.started_at, f.ended_at), f.error)
                for f in found.failures
            ],
            numbers=("ATTEMPT", "TOOK"),
        )
    if found.error is not None and found.error.traceback:
        output.say()
        show_trace(found.error.traceback)


async def _find(database: str, letter: str) -> DeadLetter:
    from synergymesh.cli.reading import reading

    async with reading(database) as store:
        return await store.dead_letter(letter)


@app.command()
def redrive(
    letter: Annotated[
        str | None, typer.Argument(metavar="ID", help="RUN:TASK; or leave it out and say which with options.")
    ] = None,
    tenant: TenantOption = None,
    workflow: WorkflowOption = None,
    error: ErrorOption = None,
    since: SinceOption = None,
    all_: Annotated[bool, typer.Option("--all", help="Redrive all, where no other option says which.")] = False,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, max=LETTERS_MAX, help="Runs at most.")] = 100,
    database: DatabaseOption = DATABASE_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Go on with the run of one, or with the runs of all that fit. `synergymesh resume` then executes them."""
    from synergymesh.cli.administration import administrating
    from synergymesh.cli.reading import need_tenant
    from synergymesh.errors import InvalidRequest
    from synergymesh.local.verbs import LIST_TENANTS, REDRIVE_DEAD_LETTER, REDRIVE_DEAD_LETTERS

    filtered = any(value is not None for value in (tenant, workflow, error, since))
    if (letter is not None) + (filtered or all_) != 1:
        raise InvalidRequest(
            "give an ID, or options that say which (--tenant, --workflow, --error, --since), or --all.", field="letter"
        )

    async def one() -> dict[str, str]:
        async with administrating(database) as mesh:
            handle = await mesh.ask(REDRIVE_DEAD_LETTER, dead_letter_id=str(letter))
            return {str(letter).partition(":")[0]: handle.id}

    async def many() -> Redriven:
        async with administrating(database) as mesh:
            tenant_id = None if tenant is None else need_tenant(await mesh.ask(LIST_TENANTS), tenant).tenant_id
            return await mesh.ask(
                REDRIVE_DEAD_LETTERS,
                tenant=tenant_id,
                workflow=workflow,
                error_type=error,
                since=_aware(since),
                limit=limit,
            )

    if letter is not None:
        runs = asyncio.run(one())
        if as_json:
            output.say_json({"runs": runs, "skipped": {}, "stopped": None, "more": False})
        else:
            output.say("".join(f"{new} goes on with {old}" for old, new in runs.items()))
        return
    done = asyncio.run(many())
    if as_json:
        output.say_json(output.jsonable(done))
        return
    for old, new in done.runs.items():
        output.say(f"{new} goes on with {old}")
    for why in done.skipped.values():
        output.note(why)
    if done.stopped is not None:
        output.complain(done.stopped)
    more = " There may be more: repeat the command." if done.more else ""
    output.note(f"{len(done.runs):,} runs are redriven, {len(done.skipped):,} left out.{more}")


@app.command()
def discard(
    letter: LetterArgument,
    reason: Annotated[str, typer.Option("--reason", help="Why nothing more has to be done about it.")],
    database: DatabaseOption = DATABASE_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Put one away for good, with a reason; its run stays as it is."""
    from synergymesh.cli.administration import administrating
    from synergymesh.local.verbs import DISCARD_DEAD_LETTER

    async def put_away() -> DeadLetter:
        async with administrating(database) as mesh:
            return await mesh.ask(DISCARD_DEAD_LETTER, dead_letter_id=letter, reason=reason)

    discarded = asyncio.run(put_away())
    if as_json:
        output.say_json(letter_json(discarded, whole=False))
    else:
        output.say(f"{letter} is discarded")


def _aware(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


def _say(letter: DeadLetter) -> None:
    output.show_fields(
        {
            "id": letter.id,
            "workflow": f"{letter.workflow} ({letter.version[:12]})",
            "task": letter.task,
            "tenant": letter.tenant_id,
            "status": letter.status,
            "attempts": letter.attempt or None,
            "crashes": letter.crashes or None,
            "quarantined": "yes" if letter.quarantined else None,
            "failed": output.moment(letter.failed_at),
            "took": output.between(letter.started_at, letter.failed_at) if letter.started_at else None,
            "run": f"{letter.run_id} ({letter.run_status})",
            "retried as": letter.retried_as,
            "discarded": output.moment(letter.discarded_at),
            "reason": letter.discard_reason,
            "error": letter.error,
        }
    )


def letter_json(letter: DeadLetter, *, whole: bool = True) -> dict[str, Any]:
    """Give a dead letter as JSON values, as `--json` prints it."""
    value: dict[str, Any] = output.jsonable(letter)
    if not whole:
        for name in ("task", "input", "args", "kwargs", "failures"):
            del value[name]
    return value
