"""`synergymesh pause …` and `unpause …`: let nothing more of a run or a workflow start, and let it go on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from synergymesh.cli import output
from synergymesh.cli.options import DATABASE_DEFAULT, DatabaseOption, JsonOption
from synergymesh.cli.runs import RunArgument

if TYPE_CHECKING:
    from synergymesh.engine.control.pausing import PausedWorkflow
    from synergymesh.local.verbs import Asking

pause = typer.Typer(invoke_without_command=True)
unpause = typer.Typer(invoke_without_command=True)

WorkflowArgument = Annotated[str, typer.Argument(metavar="WORKFLOW", help="The workflow's name.")]
TenantOption = Annotated[
    str | None, typer.Option("--tenant", metavar="NAME", help="Only for a tenant: its name or its id; else for all.")
]


@pause.callback()
def paused(context: typer.Context) -> None:
    """Let nothing more of a run or a workflow start; what runs goes on. For a tenant: `tenants suspend`."""
    if context.invoked_subcommand is None:
        output.write(context.get_help() + "\n")


@unpause.callback()
def unpaused(context: typer.Context) -> None:
    """Let a paused run or workflow go on."""
    if context.invoked_subcommand is None:
        output.write(context.get_help() + "\n")


@pause.command("run")
def pause_run(run: RunArgument, database: DatabaseOption = DATABASE_DEFAULT) -> None:
    """Let nothing more of a run start."""
    from synergymesh.cli.administration import administrating
    from synergymesh.local.verbs import PAUSE_RUN

    async def hold() -> bool:
        async with administrating(database) as mesh:
            return await mesh.ask(PAUSE_RUN, run_id=run)

    output.say(f"{run} is paused" if asyncio.run(hold()) else f"{run} was over already")


@unpause.command("run")
def unpause_run(run: RunArgument, database: DatabaseOption = DATABASE_DEFAULT) -> None:
    """Let a paused run go on."""
    from synergymesh.cli.administration import administrating
    from synergymesh.local.verbs import UNPAUSE_RUN

    async def go_on() -> bool:
        async with administrating(database) as mesh:
            return await mesh.ask(UNPAUSE_RUN, run_id=run)

    output.say(f"{run} goes on" if asyncio.run(go_on()) else f"{run} was not paused")


@pause.command("workflow")
def pause_workflow(
    workflow: WorkflowArgument, tenant: TenantOption = None, database: DatabaseOption = DATABASE_DEFAULT
) -> None:
    """Let nothing more of a workflow start; submissions are accepted, and wait."""
    from synergymesh.cli.administration import administrating
    from synergymesh.local.verbs import PAUSE_WORKFLOW

    async def hold() -> PausedWorkflow:
        async with administrating(database) as mesh:
            return await mesh.ask(PAUSE_WORKFLOW, workflow=workflow, tenant=await _tenant(mesh, tenant))

    asyncio.run(hold())
    output.say(f"{workflow} is paused for {tenant or 'all tenants'}")
    if not asyncio.run(_is_known(database, workflow)):
        output.note(f"there is no run of a workflow {workflow!r} yet: is that its name?")


@unpause.command("workflow")
def unpause_workflow(
    workflow: WorkflowArgument, tenant: TenantOption = None, database: DatabaseOption = DATABASE_DEFAULT
) -> None:
    """Let a paused workflow go on."""
    from synergymesh.cli.administration import administrating
    from synergymesh.local.verbs import UNPAUSE_WORKFLOW

    async def go_on() -> bool:
        async with administrating(database) as mesh:
            return await mesh.ask(UNPAUSE_WORKFLOW, workflow=workflow, tenant=await _tenant(mesh, tenant))

    owner = tenant or "all tenants"
    output.say(f"{workflow} goes on for {owner}" if asyncio.run(go_on()) else f"{workflow} was not paused for {owner}")


@pause.command("list")
def list_(database: DatabaseOption = DATABASE_DEFAULT, as_json: JsonOption = False) -> None:
    """List the workflows that are paused."""
    found, names = asyncio.run(_list(database))
    if as_json:
        output.say_json(output.jsonable(found))
        return
    if not found:
        output.note("no workflow is paused")
        return
    rows = [
        (x.workflow, "all" if x.tenant_id is None else names.get(x.tenant_id, x.tenant_id), output.moment(x.paused_at))
        for x in found
    ]
    output.show_table(("WORKFLOW", "TENANT", "SINCE"), rows)


async def _list(database: str) -> tuple[list[PausedWorkflow], dict[str, str]]:
    from synergymesh.cli.reading import reading

    async with reading(database) as store:
        return await store.paused_workflows(), {t.tenant_id: t.tenant_name for t in await store.tenants()}


async def _is_known(database: str, workflow: str) -> bool:
    from synergymesh.cli.reading import reading

    async with reading(database) as store:
        return bool(await store.runs(tenant_id=None, statuses=(), workflow=workflow, limit=1, cursor=None))


async def _tenant(mesh: Asking, tenant: str | None) -> str | None:
    from synergymesh.cli.reading import need_tenant
    from synergymesh.local.verbs import LIST_TENANTS

    return None if tenant is None else need_tenant(await mesh.ask(LIST_TENANTS), tenant).tenant_id
