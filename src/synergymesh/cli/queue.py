"""`synergymesh queue` and `synergymesh top`: what every tenant's queue does, once or as it changes."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from synergymesh.cli import output
from synergymesh.cli.endings import Ended
from synergymesh.cli.options import DATABASE_DEFAULT, DatabaseOption, JsonOption
from synergymesh.cli.why import NOT_EXECUTED

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from synergymesh.engine.observability.overview import Overview
    from synergymesh.local.client import Remote

TENANTS_DEFAULT = 50

REFRESH_SECONDS = 1.0

LINES_BESIDE = 4
"""Of the screen: what the mesh does, the headings, what is left out, and where the cursor is."""

LimitOption = Annotated[
    int, typer.Option("--limit", metavar="N", min=1, max=10_000, help="How many tenants at most, the busiest first.")
]


def queue(
    limit: LimitOption = TENANTS_DEFAULT,
    database: DatabaseOption = DATABASE_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Show what every tenant's queue does: what waits and runs, its use of each limit, what holds it."""
    _print_once(database, limit, as_json=as_json)


def top(limit: LimitOption = TENANTS_DEFAULT, database: DatabaseOption = DATABASE_DEFAULT) -> None:
    """Show what every tenant's queue does, once a second, until q or Ctrl-C; once where there is no terminal."""
    if not (output.is_terminal() and sys.stdin.isatty()):
        _print_once(database, limit, as_json=False)
        return
    from synergymesh.cli.interrupts import Interrupts
    from synergymesh.cli.reading import need_database

    need_database(database)
    with Interrupts() as interrupts:
        asyncio.run(_Watch(database, limit).run(interrupts.stop_event))
    if interrupts.exit_code is not None:
        raise Ended(interrupts.exit_code)


# --- once -----------------------------------------------------------------------------------------------------------


def _print_once(database: str, limit: int, *, as_json: bool) -> None:
    overview = asyncio.run(_overview(database, limit))
    if overview is None:
        _print_stored(database, limit, as_json=as_json)
        return
    if as_json:
        output.say_json(_json(overview))
        return
    from synergymesh.cli import queue_table

    output.say(queue_table.header(overview))
    if not overview.tenants:
        output.note("there is no tenant")
        return
    width = output.width()
    output.write(output.draw(queue_table.draw(overview, width)))
    if overview.tenants_total > len(overview.tenants):
        output.note(f"… and {overview.tenants_total - len(overview.tenants):,} more tenants; --limit shows more")


def _json(overview: Overview) -> dict[str, Any]:
    """Give an overview as JSON values, amounts by name."""
    value: dict[str, Any] = {"executed": True, **output.jsonable(overview)}
    value["capacity"], value["used"] = overview.capacity._asdict(), overview.used._asdict()
    for tenant, raw in zip(overview.tenants, value["tenants"], strict=True):
        raw["queue"]["used"], raw["queue"]["limits"] = tenant.queue.used._asdict(), tenant.queue.limits._asdict()
    return value


async def _overview(database: str, limit: int) -> Overview | None:
    """Ask the process that executes; None if there is none."""
    from synergymesh.cli.administration import reach
    from synergymesh.cli.reading import need_database
    from synergymesh.local.verbs import OVERVIEW

    need_database(database)
    remote = await reach(database)
    if remote is None:
        return None
    try:
        return await remote.ask(OVERVIEW, limit=limit)
    finally:
        await remote.close()


def _print_stored(database: str, limit: int, *, as_json: bool) -> None:
    """Print how many runs of each tenant are open in a database that nobody executes."""
    rows = asyncio.run(_stored(database))
    rows.sort(key=lambda row: -row["open_runs"])
    if as_json:
        output.say_json({"executed": False, "tenants_total": len(rows), "tenants": rows[:limit]})
        return
    output.note(NOT_EXECUTED)
    if not rows:
        output.note("there is no tenant")
        return
    headings = ("TENANT", "TIER", "STATUS", "OPEN RUNS")
    shown = [(row["tenant_name"], row["tier"], row["status"], f"{row['open_runs']:,}") for row in rows[:limit]]
    output.show_table(headings, shown, numbers=("OPEN RUNS",))
    if len(rows) > limit:
        output.note(f"… and {len(rows) - limit:,} more tenants; --limit shows more")


async def _stored(database: str) -> list[dict[str, Any]]:
    from synergymesh.cli.reading import reading

    async with reading(database) as store:
        open_runs = await store.open_runs_by_tenant()
        return [
            {
                "tenant_id": tenant.tenant_id,
                "tenant_name": tenant.tenant_name,
                "tier": tenant.tier,
                "status": tenant.status.value,
                "open_runs": open_runs.get(tenant.tenant_id, 0),
            }
            for tenant in await store.tenants()
        ]


# --- as it changes --------------------------------------------------------------------------------------------------


class _Watch:
    """Draw the screen anew every second; the process that executes may come and go meanwhile."""

    def __init__(self, database: str, limit: int) -> None:
        self._database = database
        self._limit = limit
        self._remote: Remote | None = None

    async def run(self, stop_event: Any) -> None:
        """Draw until q is pressed, or a signal comes."""
        from rich.console import Console
        from rich.live import Live

        stop: asyncio.Event = stop_event()
        console = Console(highlight=False, markup=False, emoji=False)
        live = Live(console=console, auto_refresh=False, screen=True, redirect_stdout=False, redirect_stderr=False)
        with _keys(stop), live:
            while not stop.is_set():
                live.update(await self._picture(console), refresh=True)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), REFRESH_SECONDS)
        if self._remote is not None:
            await self._remote.close()

    async def _picture(self, console: Console) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        from synergymesh.cli import queue_table

        room = max(1, console.height - LINES_BESIDE)
        overview = await self._look(min(self._limit, room))
        if overview is None:
            return Text("no process executes this database; waiting for one. q ends.")
        lines: list[RenderableType] = [Text(queue_table.header(overview), no_wrap=True, overflow="ellipsis")]
        lines.append(queue_table.draw(overview, console.width))
        more = overview.tenants_total - len(overview.tenants)
        lines.append(Text(f"… and {more:,} more tenants. q ends." if more > 0 else "q ends.", style="dim"))
        return Group(*lines)

    async def _look(self, limit: int) -> Overview | None:
        from synergymesh.cli.administration import reach
        from synergymesh.errors import NotReachable, NotRunning
        from synergymesh.local.verbs import OVERVIEW

        if self._remote is None:
            self._remote = await reach(self._database)
        if self._remote is None:
            return None
        try:
            return await self._remote.ask(OVERVIEW, limit=limit)
        except (NotReachable, NotRunning):
            await self._remote.close()
            self._remote = None
            return None


@contextlib.contextmanager
def _keys(stop: asyncio.Event) -> Iterator[None]:
    """Set the event when q is pressed; keys arrive at once and are not shown meanwhile."""
    import os
    import termios
    import tty

    keyboard = sys.stdin.fileno()
    earlier = termios.tcgetattr(keyboard)
    loop = asyncio.get_running_loop()

    def pressed() -> None:
        keys = os.read(keyboard, 100)
        if not keys or keys.lower() in (b"q", b"\x1b"):
            stop.set()

    tty.setcbreak(keyboard)
    loop.add_reader(keyboard, pressed)
    try:
        yield
    finally:
        loop.remove_reader(keyboard)
        termios.tcsetattr(keyboard, termios.TCSADRAIN, earlier)
