"""`synergymesh tenants …`: make tenants, look at them, suspend, resume and delete them."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from synergymesh.cli import output
from synergymesh.cli.options import DATABASE_DEFAULT, DatabaseOption, JsonOption
from synergymesh.domain.quota import ResourceQuota
from synergymesh.domain.scheduling.limits import Capacity, CohortShare
from synergymesh.domain.states import ExecutionStatus
from synergymesh.domain.tenants import Tenant
from synergymesh.errors import InvalidRequest

if TYPE_CHECKING:
    from synergymesh.local.verbs import Asking

app = typer.Typer(invoke_without_command=True)

OPEN = (ExecutionStatus.PENDING, ExecutionStatus.RUNNING)

PLAN = "plan"
"""Stands for the number that the tenant's plan has."""

TenantArgument = Annotated[str, typer.Argument(metavar="TENANT", help="The tenant's name, or its id.")]


def _limit(name: str, help_: str) -> Any:
    return typer.Option(f"--{name}", metavar="N", help=help_)


Concurrent = Annotated[int | None, _limit("max-concurrent-tasks", "Tasks that run at the same time.")]
MemoryMb = Annotated[int | None, _limit("max-memory-mb", "Memory requests of running tasks, MiB.")]
CpuPercent = Annotated[int | None, _limit("max-cpu-percent", "Share of the capacity, 1 to 100.")]
PerHour = Annotated[int | None, _limit("max-tasks-per-hour", "Starts in any rolling hour.")]
PerSecond = Annotated[int | None, _limit("rate-limit-per-second", "Submissions per second.")]
Burst = Annotated[int | None, _limit("burst", "Submissions that may come at once.")]
Queued = Annotated[int | None, _limit("max-queued-tasks", "Tasks that wait.")]


def _part(name: str, help_: str) -> Any:
    return typer.Option(f"--{name}", metavar="SLOTS,MIB,CPUS", help=help_)


Nominal = Annotated[
    str | None, _part("nominal", "Of a sub-tenant: what it gets of its parent's limits whenever it wants.")
]
Borrowing = Annotated[str | None, _part("borrowing", "How much more it may take while nobody else wants it.")]
Lending = Annotated[str | None, _part("lending", "How much of the nominal part others may take while it is not used.")]


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
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name for people, not used before.")],
    tier: Annotated[str, typer.Option("--tier", help="Its plan; limits that are left out are the plan's.")] = "basic",
    max_concurrent_tasks: Concurrent = None,
    max_memory_mb: MemoryMb = None,
    max_cpu_percent: CpuPercent = None,
    max_tasks_per_hour: PerHour = None,
    rate_limit_per_second: PerSecond = None,
    burst: Burst = None,
    max_queued_tasks: Queued = None,
    parent: Annotated[
        str | None,
        typer.Option("--parent", metavar="TENANT", help="Make a sub-tenant, which shares its limits."),
    ] = None,
    nominal: Nominal = None,
    borrowing: Borrowing = None,
    lending: Lending = None,
    key: Annotated[
        str | None,
        typer.Option(
            "--key",
            metavar="TEXT",
            help="An idempotency key: the same key gives the same tenant again, whatever is named so.",
        ),
    ] = None,
    database: DatabaseOption = DATABASE_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Make a tenant, and the database if there is none."""
    from synergymesh.cli.administration import administrating
    from synergymesh.cli.reading import find_tenant, need_tenant
    from synergymesh.domain.tenants import check_tier
    from synergymesh.local.verbs import CREATE_TENANT, LIST_TENANTS
    from synergymesh.settings import read_settings

    limits = limits_said(context)
    quota = None
    if limits:
        plans = read_settings().tier_plans()
        quota = dataclasses.replace(plans[check_tier(tier, plans)].quota, **limits)

    share = share_said(nominal, borrowing, lending)

    async def make() -> Tenant:
        async with administrating(database, create=True) as mesh:
            known = await mesh.ask(LIST_TENANTS)
            if key is None and find_tenant(known, name) is not None:
                raise InvalidRequest(f"there is a tenant {name.strip()!r} already. Use another name.", field="tenant")
            above = None if parent is None else need_tenant(known, parent).tenant_id
            return await mesh.ask(
                CREATE_TENANT,
                tenant_name=name,
                tier=tier,
                quota=quota,
                parent=above,
                share=share,
                idempotency_key=key,
            )

    _say(asyncio.run(make()), as_json)


@app.command()
def change(
    context: typer.Context,
    tenant: TenantArgument,
    tier: Annotated[str | None, typer.Option("--tier", help="Another plan, with its limits.")] = None,
    max_concurrent_tasks: Concurrent = None,
    max_memory_mb: MemoryMb = None,
    max_cpu_percent: CpuPercent = None,
    max_tasks_per_hour: PerHour = None,
    rate_limit_per_second: PerSecond = None,
    burst: Burst = None,
    max_queued_tasks: Queued = None,
    weight: Annotated[int | None, _limit("weight", "Weight in the fair queue instead of the plan's.")] = None,
    throttle: Annotated[
        int | None, _limit("throttle", "Percentage of its tasks at a time that may run; 100 ends it.")
    ] = None,
    nominal: Nominal = None,
    borrowing: Borrowing = None,
    lending: Lending = None,
    retention_days: Annotated[
        str | None,
        typer.Option(
            "--retention-days", metavar="DAYS", help="How long finished runs are kept; `plan` for the plan's number."
        ),
    ] = None,
    database: DatabaseOption = DATABASE_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Give a tenant another plan, other limits, another weight, share or retention, or throttle it."""
    from synergymesh.local import verbs

    limits = limits_said(context)
    share = share_said(nominal, borrowing, lending)
    days = None if retention_days in (None, PLAN) else _days(str(retention_days))

    async def apply(mesh: Asking, tenant_id: str) -> Tenant:
        changed = await mesh.ask(verbs.GET_TENANT, tenant_id=tenant_id)
        if tier is not None:
            changed = await mesh.ask(verbs.SET_TIER, tenant_id=tenant_id, tier=tier)
        if limits:
            quota = dataclasses.replace(changed.quota, **limits)
            changed = await mesh.ask(verbs.SET_QUOTA, tenant_id=tenant_id, quota=quota)
        if weight is not None:
            changed = await mesh.ask(verbs.SET_WEIGHT, tenant_id=tenant_id, weight=weight)
        if share is not None:
            changed = await mesh.ask(verbs.SET_SHARE, tenant_id=tenant_id, share=share)
        if throttle is not None:
            percent = None if throttle == 100 else throttle
            changed = await mesh.ask(verbs.THROTTLE_TENANT, tenant_id=tenant_id, percent=percent)
        if retention_days is not None:
            changed = await mesh.ask(verbs.SET_RETENTION, tenant_id=tenant_id, days=days)
        return changed

    _say(_change(database, tenant, apply), as_json)


@app.command()
def suspend(tenant: TenantArgument, database: DatabaseOption = DATABASE_DEFAULT, as_json: JsonOption = False) -> None:
    """Accept and start nothing more for a tenant."""
    from synergymesh.local.verbs import SUSPEND_TENANT

    _say(_change(database, tenant, lambda mesh, tenant_id: mesh.ask(SUSPEND_TENANT, tenant_id=tenant_id)), as_json)


@app.command()
def resume(tenant: TenantArgument, database: DatabaseOption = DATABASE_DEFAULT, as_json: JsonOption = False) -> None:
    """Accept and start tasks of a suspended tenant again."""
    from synergymesh.local.verbs import RESUME_TENANT

    _say(_change(database, tenant, lambda mesh, tenant_id: mesh.ask(RESUME_TENANT, tenant_id=tenant_id)), as_json)


@app.command()
def delete(
    tenant: TenantArgument,
    force: Annotated[bool, typer.Option("--force", help="Cancel its open runs first.")] = False,
    database: DatabaseOption = DATABASE_DEFAULT,
) -> None:
    """Delete a tenant with everything that is recorded of it."""
    from synergymesh.local.verbs import DELETE_TENANT

    _change(database, tenant, lambda mesh, tenant_id: mesh.ask(DELETE_TENANT, tenant_id=tenant_id, force=force))
    output.say(f"{tenant} is deleted")


def _change(database: str, tenant: str, change: Callable[[Asking, str], Awaitable[Tenant | None]]) -> Tenant | None:
    from synergymesh.cli.administration import administrating
    from synergymesh.cli.reading import need_tenant
    from synergymesh.local.verbs import LIST_TENANTS

    async def changed() -> Tenant | None:
        async with administrating(database) as mesh:
            return await change(mesh, need_tenant(await mesh.ask(LIST_TENANTS), tenant).tenant_id)

    return asyncio.run(changed())


def _days(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidRequest(
            f"--retention-days must be a number of days or `{PLAN}`, not {text!r}.", field="retention_days"
        ) from None


def limits_said(context: typer.Context) -> dict[str, int]:
    """Give the limits of a quota that were said as options."""
    names = [field.name for field in dataclasses.fields(ResourceQuota)]
    return {name: context.params[name] for name in names if context.params.get(name) is not None}


def share_said(nominal: str | None, borrowing: str | None, lending: str | None) -> CohortShare | None:
    """Give the share of a sub-tenant that was said as options, or None if none was."""
    if nominal is None:
        for name, text in (("borrowing", borrowing), ("lending", lending)):
            if text is not None:
                raise InvalidRequest(f"--{name} belongs to a share. Say --nominal too.", field=name)
        return None
    said = {"nominal": nominal, "borrowing": borrowing, "lending": lending}
    return CohortShare(**{name: _capacity(name, text) for name, text in said.items() if text is not None})


def _capacity(name: str, text: str) -> Capacity:
    try:
        slots, memory_mb, cpus = text.split(",")
        return Capacity(int(slots), int(memory_mb), round(float(cpus) * 1_000))
    except (ValueError, OverflowError):
        raise InvalidRequest(
            f"--{name} must be SLOTS,MIB,CPUS such as 10,1000,2.5, not {text!r}.", field=name
        ) from None


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
            "weight": tenant.weight,
            "throttle": None if tenant.policy.throttle_percent is None else f"{tenant.policy.throttle_percent} %",
            "retention": f"{tenant.retention_days:g} days",
            "parent": tenant.parent_id,
            **_share_fields(tenant.policy.share),
            "features": ", ".join(sorted(tenant.features_enabled)),
        }
    )


def _share_fields(share: CohortShare | None) -> dict[str, str]:
    if share is None:
        return {}
    parts = {"nominal": share.nominal, "borrowing": share.borrowing, "lending": share.lending}
    return {
        name: f"{part.slots:,} slots, {part.memory_mb:,} MiB, {part.cpu_millis / 1_000:g} CPUs"
        for name, part in parts.items()
        if part is not None
    }


def tenant_json(tenant: Tenant) -> dict[str, Any]:
    """Give a tenant as JSON values, as `--json` prints it."""
    return {**output.jsonable(tenant), "features_enabled": sorted(tenant.features_enabled)}
