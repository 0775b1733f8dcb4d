"""`synergymesh tenants …`: make tenants, look at them, suspend, resume and delete them."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from synergymesh.cli import output
from synergymesh.cli.options import DATABASE_DEFAULT, DatabaseOption, JsonOption
from synergymesh.domain.states import ExecutionStatus
from synergymesh.domain.tenants import TIER_PLANS, Tenant, TenantTier

if TYPE_CHECKING:
    from synergymesh.orchestrator import Orchestrator

app = typer.Typer(invoke_without_command=True)

OPEN = (ExecutionStatus.PENDING, ExecutionStatus.RUNNING)

TenantArgument = Annotated[str, typer.Argument(metavar="TENANT", help="The tenant's name, or its id.")]


def _limit(name: str, help_: str) -> Any:
    return typer.Option(f"--{name}", metavar="N", help=f"{help_} The tier's when left out.")


@app.callback()
def tenants(context: typer.Context) -> None:
    """Make tenants, look at them, suspend, resume and delete them."""
    if context.invoked_subcommand is None:
        output.write(context.get_help() + "\n")


@app.command("list")
def list_(database: DatabaseOption = DATABASE_DEFAULT, as_json: JsonOption = False) -> None:
    """List all tenants, oldest first."""
    tenants = asyncio.run(_read(database))
    if as_json:
        output.say_json([tenant_json(t) for t in tenants])
        return
    if not tenants:
        output.note("there is no tenant")
        return
    rows = [
        (t.tenant_id, t.tenant_name, t.tier, t.status, f"{t.quota.max_concurrent_tasks:,}", output.moment(t.created_at))
        for t in tenants
    ]
    output.show_table(("ID", "NAME", "TIER", "STATUS", "TASKS", "CREATED"), rows, numbers=("TASKS",))


@app.command()
def show(tenant: TenantArgument, database: DatabaseOption = DATABASE_DEFAULT, as_json: JsonOption = False) -> None:
    """Show a tenant: tier, quota, features."""
    from synergymesh.cli.reading import need_tenant

    _say(need_tenant(asyncio.run(_read(database)), tenant), as_json)


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name for people, not used before.")],
    tier: Annotated[TenantTier, typer.Option("--tier", help="Its plan.")] = TenantTier.BASIC,
    max_concurrent_tasks: Annotated[
        int | None, _limit("max-concurrent-tasks", "Tasks that run at the same time.")
    ] = None,
    max_memory_mb: Annotated[int | None, _limit("max-memory-mb", "Memory requests of running tasks, MiB.")] = None,
    max_cpu_percent: Annotated[int | None, _limit("max-cpu-percent", "Share of the capacity, 1 to 100.")] = None,
    max_tasks_per_hour: Annotated[int | None, _limit("max-tasks-per-hour", "Starts in any rolling hour.")] = None,
    rate_limit_per_second: Annotated[int | None, _limit("rate-limit-per-second", "Submissions per second.")] = None,
    max_queued_tasks: Annotated[int | None, _limit("max-queued-tasks", "Tasks that wait.")] = None,
    database: DatabaseOption = DATABASE_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Make a tenant, and the database if there is none."""
    from synergymesh.cli.administration import administrating
    from synergymesh.cli.reading import find_tenant
    from synergymesh.errors import InvalidRequest

    limits = {
        "max_concurrent_tasks": max_concurrent_tasks,
        "max_memory_mb": max_memory_mb,
        "max_cpu_percent": max_cpu_percent,
        "max_tasks_per_hour": max_tasks_per_hour,
        "rate_limit_per_second": rate_limit_per_second,
        "max_queued_tasks": max_queued_tasks,
    }
    quota = dataclasses.replace(TIER_PLANS[tier].quota, **{n: v for n, v in limits.items() if v is not None})

    async def make() -> Tenant:
        async with administrating(database, create=True) as mesh:
            if find_tenant(await mesh.list_tenants(), name) is not None:
                raise InvalidRequest(f"there is a tenant {name.strip()!r} already. Use another name.", field="tenant")
            return await mesh.create_tenant(name, tier, quota=quota)

    _say(asyncio.run(make()), as_json)


@app.command()
def suspend(tenant: TenantArgument, database: DatabaseOption = DATABASE_DEFAULT, as_json: JsonOption = False) -> None:
    """Accept and start nothing more for a tenant."""
    _say(_change(database, tenant, lambda mesh, tenant_id: mesh.suspend_tenant(tenant_id)), as_json)


@app.command()
def resume(tenant: TenantArgument, database: DatabaseOption = DATABASE_DEFAULT, as_json: JsonOption = False) -> None:
    """Accept and start tasks of a suspended tenant again."""
    _say(_change(database, tenant, lambda mesh, tenant_id: mesh.resume_tenant(tenant_id)), as_json)


@app.command()
def delete(
    tenant: TenantArgument,
    force: Annotated[bool, typer.Option("--force", help="Cancel its open runs first.")] = False,
    database: DatabaseOption = DATABASE_DEFAULT,
) -> None:
    """Delete a tenant with everything that is recorded of it."""
    _change(database, tenant, lambda mesh, tenant_id: mesh.delete_tenant(tenant_id, force=force))
    output.say(f"{tenant} is deleted")


def _change(
    database: str, tenant: str, change: Callable[[Orchestrator, str], Awaitable[Tenant | None]]
) -> Tenant | None:
    from synergymesh.cli.administration import administrating
    from synergymesh.cli.reading import need_tenant

    async def changed() -> Tenant | None:
        async with administrating(database) as mesh:
            return await change(mesh, need_tenant(await mesh.list_tenants(), tenant).tenant_id)

    return asyncio.run(changed())


async def _read(database: str) -> list[Tenant]:
    from synergymesh.cli.reading import reading

    async with reading(database) as store:
        return await store.tenants()


def _say(tenant: Tenant | None, as_json: bool) -> None:
    assert tenant is not None
    if as_json:
        output.say_json(tenant_json(tenant))
        return
    limits = dataclasses.asdict(tenant.quota)
    output.show_fields(
        {
            "id": tenant.tenant_id,
            "name": tenant.tenant_name,
            "tier": tenant.tier,
            "status": tenant.status,
            "created": output.moment(tenant.created_at),
            **{name: None if limit is None else f"{limit:,}" for name, limit in limits.items()},
            "features": ", ".join(sorted(tenant.features_enabled)),
        }
    )


def tenant_json(tenant: Tenant) -> dict[str, Any]:
    """Give a tenant as JSON values, as `--json` prints it."""
    return {**output.jsonable(tenant), "features_enabled": sorted(tenant.features_enabled)}
