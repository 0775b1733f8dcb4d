"""`synergymesh breakers`: look at circuit breakers, and close one by hand."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from synergymesh.cli import output
from synergymesh.cli.options import DATABASE_DEFAULT, DatabaseOption, JsonOption

if TYPE_CHECKING:
    from synergymesh.engine.observability.views import BreakerView

app = typer.Typer(invoke_without_command=True)

TenantName = Annotated[str, typer.Argument(metavar="TENANT", help="The tenant's name, or its id.")]


@app.callback()
def breakers(
    context: typer.Context,
    tenant: Annotated[
        str | None, typer.Option("--tenant", metavar="NAME", help="Only those of a tenant: its name or its id.")
    ] = None,
    database: DatabaseOption = DATABASE_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """List the circuit breakers that were ever open, as they are recorded; `reset` closes one."""
    if context.invoked_subcommand is not None:
        return
    found, names = asyncio.run(_read(database, tenant))
    if as_json:
        output.say_json([output.jsonable(breaker) for breaker in found])
        return
    if not found:
        output.note("no breaker was ever open")
        return
    rows = [
        (
            names.get(breaker.tenant_id, breaker.tenant_id),
            breaker.name,
            breaker.state,
            output.moment(breaker.since),
            output.moment(breaker.until),
            breaker.trips,
            f"{breaker.failures:,} of {breaker.calls:,}",
        )
        for breaker in found
    ]
    headings = ("TENANT", "BREAKER", "STATUS", "SINCE", "TRIED AGAIN", "TRIPS", "FAILED")
    output.show_table(headings, rows, numbers=("TRIPS", "FAILED"))


@app.command()
def reset(
    tenant: TenantName,
    breaker: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The name that tasks give with breaker=.")
    ] = None,
    workflow: Annotated[
        str | None, typer.Option("--workflow", metavar="NAME", help="Instead of a name: the workflow,")
    ] = None,
    component: Annotated[str | None, typer.Option("--component", metavar="ID", help="and its component.")] = None,
    database: DatabaseOption = DATABASE_DEFAULT,
) -> None:
    """Close a breaker by hand: what it holds back may start at once."""
    from synergymesh.cli.administration import administrating
    from synergymesh.cli.reading import need_tenant
    from synergymesh.local import verbs

    async def _reset() -> None:
        async with administrating(database) as mesh:
            tenant_id = need_tenant(await mesh.ask(verbs.LIST_TENANTS), tenant).tenant_id
            await mesh.ask(
                verbs.RESET_BREAKER, tenant_id=tenant_id, breaker=breaker, workflow=workflow, component=component
            )

    asyncio.run(_reset())
    output.say(f"{breaker or f'{workflow}/{component}'} of {tenant} is closed")


async def _read(database: str, tenant: str | None) -> tuple[list[BreakerView], dict[str, str]]:
    from synergymesh.cli.reading import need_tenant, reading

    async with reading(database) as store:
        tenants = await store.tenants()
        tenant_id = None if tenant is None else need_tenant(tenants, tenant).tenant_id
        found = await store.breakers(tenant_id)
    return found, {t.tenant_id: t.tenant_name for t in tenants}
