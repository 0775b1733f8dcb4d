"""`synergymesh backup`, `restore`, `prune` and `compact`: what keeps a database safe and small."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from synergymesh.cli import output
from synergymesh.cli.options import DATABASE_DEFAULT, DatabaseOption, JsonOption


def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What to make.", show_default=False)],
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it is there.")] = False,
    database: DatabaseOption = DATABASE_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Copy the database as it is at this moment, while everything runs; the copy is checked."""
    from synergymesh.store.backup import back_up

    shown = sys.stderr.isatty()

    def progress(done: int, pages: int) -> None:
        if shown:
            output.write(f"\r{100 * done // max(1, pages)} % ", sys.stderr)

    path = back_up(database, file, force=force, progress=progress)
    if shown:
        output.write("\r", sys.stderr)
    size = path.stat().st_size
    if as_json:
        output.say_json({"file": str(path), "bytes": size})
    else:
        output.say(f"{path} has the database as it was now ({size:,} bytes); `synergymesh restore` takes it")


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A backup.", show_default=False)],
    force: Annotated[
        bool, typer.Option("--force", help="Take the place of a database that is there, which is renamed.")
    ] = False,
    database: DatabaseOption = DATABASE_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Check a backup wholly, and let the database begin again from it. No process may own the database."""
    from synergymesh.ports.clock import SystemClock
    from synergymesh.store.backup import restore as restore_file

    kept = restore_file(file, database, now=SystemClock().now(), force=force)
    if as_json:
        output.say_json({"database": database, "kept": None if kept is None else str(kept)})
        return
    output.say(f"{database} begins again from {file}; `synergymesh resume` goes on with its open runs")
    if kept is not None:
        output.say(f"the database that was there is {kept} now; delete it when it is not needed any more")


def prune(database: DatabaseOption = DATABASE_DEFAULT, as_json: JsonOption = False) -> None:
    """Delete the finished runs that are older than their tenants' retention now, and unused workflow versions.

    The process that executes the database does so every minute; it is asked to do so now.
    """
    from synergymesh.cli.administration import administrating
    from synergymesh.engine.housekeeping import Pruned
    from synergymesh.local.verbs import PRUNE

    async def made() -> Pruned:
        async with administrating(database) as mesh:
            return await mesh.ask(PRUNE)

    pruned = asyncio.run(made())
    if as_json:
        output.say_json(output.jsonable(pruned))
    else:
        output.say(f"{pruned.runs:,} runs ({pruned.rows:,} rows) and {pruned.workflow_versions:,} workflow versions")


def compact(database: DatabaseOption = DATABASE_DEFAULT, as_json: JsonOption = False) -> None:
    """Write the database file anew, without the free room in it. No process may own the database.

    A file that an early version made can give room back by itself only after this.
    """
    from synergymesh.store.compaction import compact_file

    before, after = compact_file(database)
    if as_json:
        output.say_json({"bytes_before": before, "bytes_after": after})
    else:
        output.say(f"{before:,} bytes before, {after:,} bytes now")
