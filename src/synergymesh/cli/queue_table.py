"""Draws what every tenant does, as wide as there is room: the columns that matter least go first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from synergymesh.cli import output
from synergymesh.domain.states import TenantStatus

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from synergymesh.engine.observability.overview import Overview, TenantActivity

NAME_WIDTH_MAX = 32
NAME_WIDTH_MIN = 12
"""Names are cut to as little as that before a column is left out."""

GAP = 2


@dataclass(frozen=True, slots=True)
class Column:
    """Describe a column.

    Attributes:
        weight: how much it matters; the least is left out first.
        cell: gives the text for a tenant.
        style: gives the style for a tenant.
    """

    heading: str
    weight: int
    cell: Callable[[TenantActivity], str]
    style: Callable[[TenantActivity], str] = lambda tenant: ""
    is_number: bool = True


def draw(overview: Overview, width: int) -> Table:
    """Draw a table that is no wider than that.

    Args:
        overview: what there is.
        width: columns of the terminal.
    """
    from rich.table import Table

    tenants = overview.tenants
    cells = {column.heading: [_clean(column, tenant) for tenant in tenants] for column in COLUMNS}
    widths = {
        heading: max([len(heading), *(text.cell_len for text in column_cells)])
        for heading, column_cells in cells.items()
    }
    columns = _fitting(widths, width)
    beside = sum(widths[column.heading] + GAP for column in columns if column is not NAME)
    name = max(1, min(widths[NAME.heading], NAME_WIDTH_MAX, width - beside))
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(
            column.heading,
            justify="right" if column.is_number else "left",
            no_wrap=True,
            overflow="ellipsis",
            width=name if column is NAME else widths[column.heading],
        )
    for place in range(len(tenants)):
        table.add_row(*(cells[column.heading][place] for column in columns))
    return table


def header(overview: Overview) -> str:
    """Say in a line what the whole mesh does."""
    used, capacity = overview.used, overview.capacity
    return (
        f"{output.clock(overview.at)}  slots {used.slots:,}/{capacity.slots:,}  open tasks {overview.open_tasks:,}  "
        f"tenants {overview.tenants_total:,}  memory {used.memory_mb:,}/{capacity.memory_mb:,} MiB  "
        f"cpus {used.cpu_millis / 1_000:.1f}/{capacity.cpu_millis / 1_000:.1f}"
    )


def _fitting(widths: dict[str, int], width: int) -> list[Column]:
    """Choose the columns that fit."""
    name = max(len(NAME.heading), min(widths[NAME.heading], NAME_WIDTH_MIN))
    chosen = list(COLUMNS)
    while len(chosen) > 1:
        needed = sum(name if column is NAME else widths[column.heading] for column in chosen)
        if needed + GAP * (len(chosen) - 1) <= width:
            break
        chosen.remove(min(chosen, key=lambda column: column.weight))
    return chosen


def _clean(column: Column, tenant: TenantActivity) -> Text:
    from rich.text import Text

    return Text(output.clean(column.cell(tenant)), style=column.style(tenant))


def _part(used: int, limit: int) -> str:
    return f"{used:,}/{limit:,}"


def _cpus(tenant: TenantActivity) -> str:
    used, limit = tenant.queue.used.cpu_millis, tenant.queue.limits.cpu_millis
    return f"{used / 1_000:.1f}/{limit / 1_000:.1f}"


def _hour(tenant: TenantActivity) -> str:
    view = tenant.queue
    return "-" if view.hour_limit is None or view.hour_used is None else _part(view.hour_used, view.hour_limit)


def _percent(millionths: int) -> str:
    return f"{millionths / 10_000:.0f} %"


def _served(tenant: TenantActivity) -> str:
    return "-" if tenant.neighbour is None else _percent(tenant.neighbour.share)


def _score(tenant: TenantActivity) -> str:
    if tenant.neighbour is None:
        return "-"
    return f"{'! ' if tenant.neighbour.noisy else ''}{tenant.neighbour.score:,}"


def _score_style(tenant: TenantActivity) -> str:
    return "bold red" if tenant.neighbour is not None and tenant.neighbour.noisy else ""


def _wait(percentile: str) -> Callable[[TenantActivity], str]:
    def cell(tenant: TenantActivity) -> str:
        if tenant.neighbour is None:
            return "-"
        return output.duration(getattr(tenant.neighbour, f"wait_{percentile}_ns") / 1e9)

    return cell


def _held_by(tenant: TenantActivity) -> str:
    view = tenant.queue
    if tenant.status is TenantStatus.SUSPENDED:
        return "paused"
    return "-" if view.last_reason is None or not (view.waiting or view.aside) else view.last_reason.value


def _held_style(tenant: TenantActivity) -> str:
    return "" if _held_by(tenant) == "-" else "yellow"


NAME = Column("TENANT", 100, lambda tenant: tenant.tenant_name, is_number=False)

COLUMNS: Sequence[Column] = (
    NAME,
    Column("TIER", 10, lambda tenant: tenant.tier, is_number=False),
    Column("ELIGIBLE", 40, lambda tenant: "yes" if tenant.queue.eligible else "-", is_number=False),
    Column("RUNS", 95, lambda tenant: f"{tenant.queue.running:,}"),
    Column("WAITS", 94, lambda tenant: f"{tenant.queue.waiting + tenant.queue.aside:,}"),
    Column("LATER", 30, lambda tenant: f"{tenant.queue.delayed:,}"),
    Column("OPEN", 35, lambda tenant: f"{tenant.open_tasks:,}"),
    Column("SLOTS", 80, lambda tenant: _part(tenant.queue.used.slots, tenant.queue.limits.slots)),
    Column("MEMORY", 50, lambda tenant: _part(tenant.queue.used.memory_mb, tenant.queue.limits.memory_mb)),
    Column("CPUS", 45, _cpus),
    Column("HOUR", 70, _hour),
    Column("SHARE", 78, lambda tenant: _percent(tenant.queue.share)),
    Column("DUE", 60, lambda tenant: _percent(tenant.queue.fair_share) if tenant.queue.parent is None else "-"),
    Column("SERVED", 55, _served),
    Column("P50", 42, _wait("p50")),
    Column("P95", 75, _wait("p95")),
    Column("SCORE", 72, _score, _score_style),
    Column("HELD BY", 90, _held_by, _held_style, is_number=False),
)
