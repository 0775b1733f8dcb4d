"""`synergymesh what-if`: how recorded or declared runs would have fared under other limits, beside today's."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import sys
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from synergymesh.cli import output
from synergymesh.cli.options import DATABASE_DEFAULT, DatabaseOption, JsonOption
from synergymesh.cli.tenants import (
    Burst,
    Concurrent,
    CpuPercent,
    MemoryMb,
    PerHour,
    PerSecond,
    limits_said,
)
from synergymesh.errors import InvalidRequest

if TYPE_CHECKING:
    from synergymesh.domain.scheduling.limits import Capacity
    from synergymesh.domain.simulation import TenantOutcome
    from synergymesh.domain.tenants import Tenant, TierPlan
    from synergymesh.engine.replay.recordings import Workload
    from synergymesh.engine.replay.what_if import TenantChange, WhatIf

UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}

TENANTS_SHOWN_MAX = 20

WORKLOAD_BYTES_MAX = 50_000_000
"""Bytes of a declared workload: more shapes of runs than anybody writes."""


def what_if(
    context: typer.Context,
    tenant: Annotated[
        str | None, typer.Option("--tenant", metavar="NAME", help="Whose plan is changed: a name or an id.")
    ] = None,
    tier: Annotated[str | None, typer.Option("--tier", help="Another plan for it.")] = None,
    weight: Annotated[int | None, typer.Option("--weight", metavar="N", help="Another weight for it.")] = None,
    max_concurrent_tasks: Concurrent = None,
    max_memory_mb: MemoryMb = None,
    max_cpu_percent: CpuPercent = None,
    max_tasks_per_hour: PerHour = None,
    rate_limit_per_second: PerSecond = None,
    burst: Burst = None,
    slots: Annotated[
        int | None, typer.Option("--slots", metavar="N", help="Tasks at the same time over all tenants.")
    ] = None,
    memory: Annotated[
        int | None, typer.Option("--memory-mb", metavar="N", help="Memory that all tasks share, MiB.")
    ] = None,
    cpus: Annotated[float | None, typer.Option("--cpus", metavar="N", help="CPUs that all tasks share.")] = None,
    last: Annotated[
        str | None, typer.Option("--last", metavar="TIME", help="Replay the runs of that time: 30m, 24h, 7d.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="Replay from then on: 2026-01-31T08:00.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="TIME", help="Replay until then; now by default.")
    ] = None,
    workload: Annotated[
        Path | None, typer.Option("--workload", metavar="FILE", help="Replay declared runs instead: JSON.")
    ] = None,
    database: DatabaseOption = DATABASE_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Replay runs under another tier, quota, weight or capacity, and show how they fare beside today."""
    from synergymesh.engine.replay.what_if import Question

    begin, end = _span(last, since, until)
    limits = limits_said(context)
    if tenant is None and (tier is not None or weight is not None or limits):
        raise InvalidRequest("name the tenant whose plan is changed, with --tenant.", field="tenant")
    replayed, tenants, plans, capacity = asyncio.run(_read(database, workload, begin, end))
    changes = {} if tenant is None else _changes(tenants, plans, tenant, tier, weight, limits)
    question = Question(
        workload=replayed,
        tenants=tenants,
        plans=plans,
        capacity=capacity,
        changes=changes,
        capacity_then=_capacity(capacity, slots, memory, cpus),
    )
    question.check()
    answer = question.replay()
    if workload is None:
        answer = dataclasses.replace(answer, since=begin, until=end)
    if as_json:
        output.say_json(_json(answer))
    else:
        _say(answer, changes)


async def _read(
    database: str, workload: Path | None, begin: datetime, end: datetime
) -> tuple[Workload, list[Tenant], dict[str, TierPlan], Capacity]:
    """Read what is to be replayed, and how things are; the capacity is that of the process that executes, if any."""
    from synergymesh.cli.administration import reach
    from synergymesh.cli.reading import need_tenant, reading
    from synergymesh.domain.instants import from_datetime
    from synergymesh.engine.replay.recordings import Recordings, parse_workload
    from synergymesh.local.verbs import OVERVIEW
    from synergymesh.settings import read_settings
    from synergymesh.store.sqlite import SqliteReader

    settings = read_settings()
    async with reading(database) as store:
        tenants = await store.tenants()
    if workload is None:
        reader = SqliteReader(database)
        await reader.open()
        try:
            recordings = Recordings(reader, settings.task_request())
            replayed = await recordings.read(from_datetime(begin), from_datetime(end))
        finally:
            await reader.close()
    else:
        replayed = parse_workload(_bytes_of(workload), lambda name: need_tenant(tenants, name).tenant_id)
    capacity = settings.capacity()
    remote = await reach(database)
    if remote is not None:
        try:
            capacity = (await remote.ask(OVERVIEW, limit=1)).capacity
        finally:
            await remote.close()
    return replayed, tenants, settings.tier_plans(), capacity


def _bytes_of(path: Path) -> bytes:
    try:
        raw = sys.stdin.buffer.read(WORKLOAD_BYTES_MAX + 1) if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise InvalidRequest(f"--workload {path}: {error.strerror or error}.", field="workload") from None
    if len(raw) > WORKLOAD_BYTES_MAX:
        raise InvalidRequest(f"--workload {path} has more than {WORKLOAD_BYTES_MAX:,} bytes.", field="workload")
    return raw


def _changes(
    tenants: list[Tenant],
    plans: dict[str, TierPlan],
    name: str,
    tier: str | None,
    weight: int | None,
    limits: dict[str, int],
) -> dict[str, TenantChange]:
    from synergymesh.cli.reading import need_tenant
    from synergymesh.domain.tenants import check_tier
    from synergymesh.engine.replay.what_if import TenantChange

    tenant = need_tenant(tenants, name)
    quota = None
    if limits:
        before = tenant.quota if tier is None else plans[check_tier(tier, plans)].quota
        quota = dataclasses.replace(before, **limits)
    return {tenant.tenant_id: TenantChange(tier=tier, quota=quota, weight=weight)}


def _capacity(now: Capacity, slots: int | None, memory: int | None, cpus: float | None) -> Capacity | None:
    """Give the capacity that is asked for; None if it is the present one."""
    if slots is None and memory is None and cpus is None:
        return None
    if cpus is not None and not 0.001 <= cpus <= 100_000:
        raise InvalidRequest(f"--cpus must be from 0.001 to 100,000, not {cpus!r}.", field="cpus")
    return now._replace(
        slots=now.slots if slots is None else slots,
        memory_mb=now.memory_mb if memory is None else memory,
        cpu_millis=now.cpu_millis if cpus is None else int(cpus * 1_000),
    )


def _span(last: str | None, since: str | None, until: str | None) -> tuple[datetime, datetime]:
    """Give the span that is to be replayed."""
    from synergymesh.engine.replay.what_if import SPAN_DEFAULT, check_span

    if last is not None and since is not None:
        raise InvalidRequest("say --last or --since, not both.", field="last")
    now = datetime.now(UTC)
    end = _moment("until", until) or now
    length = SPAN_DEFAULT if last is None else _length(last)
    try:
        begin = _moment("since", since) or end - length
    except OverflowError:
        raise InvalidRequest(f"--last {last} is longer than there are dates.", field="last") from None
    return check_span(begin, end, now)


def _length(text: str) -> timedelta:
    found = re.fullmatch(r"(\d{1,9})([smhd])", text.strip())
    if found is None or int(found[1]) == 0:
        raise InvalidRequest(f"--last must be a number with s, m, h or d, as in 24h, not {text!r}.", field="last")
    return timedelta(seconds=int(found[1]) * UNITS[found[2]])


def _moment(name: str, text: str | None) -> datetime | None:
    """Read a moment; without a time zone it is in the user's."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.astimezone()).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        raise InvalidRequest(
            f"--{name} must be a date and a time, as in 2026-01-31T08:00 or 2026-01-31T08:00+01:00, not {text!r}.",
            field=name,
        ) from None


# --- showing --------------------------------------------------------------------------------------------------------


def _json(answer: WhatIf) -> dict[str, Any]:
    """Give an answer as JSON values, amounts by name."""
    value: dict[str, Any] = output.jsonable(answer)
    for name, outcome in (("today", answer.today), ("what_if", answer.what_if)):
        if outcome is not None:
            value[name]["capacity"] = outcome.capacity._asdict()
    return value


def _say(answer: WhatIf, changed: Collection[str]) -> None:
    span = "declared runs"
    if answer.since is not None:
        span = f"submitted from {output.moment(answer.since)} to {output.moment(answer.until)}"
    output.say(f"replayed {answer.runs:,} runs with {answer.tasks:,} tasks, {span}")
    if answer.left_out:
        output.say(f"left out {answer.left_out:,} tasks that never ran")
    if not answer.tenants:
        output.note("there is nothing to replay")
        return
    assert answer.today is not None
    assert answer.what_if is not None
    output.say()
    output.show_table(
        ("ALL TENANTS", "TODAY", "WHAT IF"),
        [
            ("slots", f"{answer.today.capacity.slots:,}", f"{answer.what_if.capacity.slots:,}"),
            ("memory, MiB", f"{answer.today.capacity.memory_mb:,}", f"{answer.what_if.capacity.memory_mb:,}"),
            ("cpus", f"{answer.today.capacity.cpu_millis / 1e3:g}", f"{answer.what_if.capacity.cpu_millis / 1e3:g}"),
            ("makespan", _time(answer.today.makespan_ns), _time(answer.what_if.makespan_ns)),
            ("slots taken while tasks wait", _percent(answer.today.utilisation), _percent(answer.what_if.utilisation)),
            ("slots taken over all", _percent(answer.today.busy), _percent(answer.what_if.busy)),
        ],
        numbers=("TODAY", "WHAT IF"),
    )
    # those whose plan is changed, then those for whom most changes
    tenants = sorted(
        answer.tenants,
        key=lambda t: (t.tenant_id not in changed, -abs(t.what_if.wait_p95_ns - t.today.wait_p95_ns), t.tenant_name),
    )[:TENANTS_SHOWN_MAX]
    output.say()
    output.show_table(
        ("TENANT", "", "TASKS", "WAIT P50", "WAIT P95", "MAKESPAN", "NEVER RAN"),
        [
            row
            for tenant in tenants
            for row in (
                _row(tenant.tenant_name, "today", tenant.today),
                _row("", "what if", tenant.what_if),
            )
        ],
        numbers=("TASKS", "WAIT P50", "WAIT P95", "MAKESPAN", "NEVER RAN"),
    )
    if len(answer.tenants) > len(tenants):
        output.note(f"… and {len(answer.tenants) - len(tenants):,} more tenants; --json has all of them")
    hits = [
        (
            tenant.tenant_name,
            reason.value,
            f"{tenant.today.limit_hits.get(reason, 0):,}",
            f"{tenant.what_if.limit_hits.get(reason, 0):,}",
        )
        for tenant in tenants
        for reason in sorted({*tenant.today.limit_hits, *tenant.what_if.limit_hits})
    ]
    if hits:
        output.say()
        output.show_table(("TENANT", "HELD BY", "TODAY", "WHAT IF"), hits, numbers=("TODAY", "WHAT IF"))


def _row(name: str, which: str, outcome: TenantOutcome) -> tuple[object, ...]:
    return (
        name,
        which,
        f"{outcome.tasks:,}",
        _time(outcome.wait_p50_ns),
        _time(outcome.wait_p95_ns),
        _time(outcome.makespan_ns),
        f"{outcome.unfinished:,}",
    )


def _time(nanoseconds: int) -> str:
    return output.duration(nanoseconds / 1e9)


def _percent(millionths: int) -> str:
    return f"{millionths / 10_000:.1f} %"
