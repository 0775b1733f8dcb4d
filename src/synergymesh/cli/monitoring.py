"""`synergymesh metrics`, `health` and `sla`: how the mesh and its tenants are doing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from synergymesh.cli import output
from synergymesh.cli.looking import looking
from synergymesh.cli.options import DATABASE_DEFAULT, DatabaseOption, JsonOption

if TYPE_CHECKING:
    from synergymesh.domain.observability.service_levels import ServiceLevel
    from synergymesh.engine.observability.monitoring import TenantHealth

SomeTenant = Annotated[
    str | None, typer.Argument(metavar="[TENANT]", help="The tenant's name, or its id; all if none.")
]
OneTenant = Annotated[str, typer.Argument(metavar="TENANT", help="The tenant's name, or its id.")]


def metrics(database: DatabaseOption = DATABASE_DEFAULT) -> None:
    """Show the metrics in Prometheus' text format.

    They come from the process that executes the database. Where there is none, what is recorded is shown: the counts of
    tenants; nothing runs or waits then, and commits and starts are 0. Nothing is written in either case.
    """
    from synergymesh.local.verbs import METRICS_TEXT

    async def ask() -> str:
        async with looking(database) as mesh:
            return await mesh.ask(METRICS_TEXT)

    output.write(asyncio.run(ask()))


def health(tenant: SomeTenant = None, database: DatabaseOption = DATABASE_DEFAULT, as_json: JsonOption = False) -> None:
    """Show how tenants are doing: healthy, degraded, failing or idle, judged by the last hour, with the reasons."""
    from synergymesh.cli.reading import need_tenant
    from synergymesh.local.verbs import GET_TENANT_HEALTH, LIST_TENANTS

    async def ask() -> list[tuple[str, TenantHealth]]:
        async with looking(database) as mesh:
            tenants = await mesh.ask(LIST_TENANTS)
            wanted = tenants if tenant is None else [need_tenant(tenants, tenant)]
            return [(t.tenant_name, await mesh.ask(GET_TENANT_HEALTH, tenant_id=t.tenant_id)) for t in wanted]

    found = asyncio.run(ask())
    if as_json:
        output.say_json([output.jsonable(each) for _, each in found])
        return
    if not found:
        output.note("there is no tenant")
        return
    rows = [
        (
            name,
            each.health,
            f"{each.executions:,}",
            f"{each.success_percent:.2f} %",
            _milliseconds(each.duration.p50),
            _milliseconds(each.duration.p95),
            _milliseconds(each.wait.p95),
            f"{each.running:,}",
            f"{each.waiting:,}",
        )
        for name, each in found
    ]
    headings = ("TENANT", "HEALTH", "EXECUTIONS", "SUCCESS", "P50", "P95", "WAIT P95", "RUNNING", "WAITING")
    output.show_table(headings, rows, numbers=headings[2:])
    for name, each in found:
        for reason in each.reasons:
            output.note(f"{output.clean(name)}: {reason}")


def sla(tenant: OneTenant, database: DatabaseOption = DATABASE_DEFAULT, as_json: JsonOption = False) -> None:
    """Show what a tenant's tier promises, what was kept, and how fast the error budget burns."""
    from synergymesh.cli.reading import need_tenant
    from synergymesh.local.verbs import LIST_TENANTS, SLA_REPORT

    async def ask() -> list[ServiceLevel]:
        async with looking(database) as mesh:
            tenant_id = need_tenant(await mesh.ask(LIST_TENANTS), tenant).tenant_id
            return await mesh.ask(SLA_REPORT, tenant_id=tenant_id)

    levels = asyncio.run(ask())
    if as_json:
        output.say_json([output.jsonable(level) for level in levels])
        return
    rows = [
        (
            level.span,
            f"{level.executions:,}",
            f"{level.failed:,}",
            f"{level.success_percent:.3f} %",
            f"{level.target_percent:g} %",
            "yes" if level.is_kept else "NO",
            f"{level.budget:,.1f}",
            f"{level.budget_left:.0%}" if level.budget_left > 0 else "none",
            f"{level.burn_rate:.1f}",
        )
        for level in levels
    ]
    headings = ("SPAN", "EXECUTIONS", "FAILED", "SUCCESS", "TARGET", "KEPT", "BUDGET", "LEFT", "BURN RATE")
    numbers = ("EXECUTIONS", "FAILED", "SUCCESS", "TARGET", "BUDGET", "LEFT", "BURN RATE")
    output.show_table(headings, rows, numbers=numbers)


def _milliseconds(milliseconds: float) -> str:
    return output.duration(milliseconds / 1_000) if milliseconds else "-"
