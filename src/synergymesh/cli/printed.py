"""`synergymesh logs`: what the tasks of a run have printed and logged."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from synergymesh.cli import output
from synergymesh.cli.options import DATABASE_DEFAULT, DatabaseOption, JsonOption

if TYPE_CHECKING:
    from synergymesh.engine.observability.views import LogLine

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The run's id, or `last`.")]
TaskArgument = Annotated[str | None, typer.Argument(metavar="[TASK]", help="Only of this task.")]


def logs(
    run: RunArgument,
    task: TaskArgument = None,
    database: DatabaseOption = DATABASE_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Show what the tasks of a run have printed and logged, also while they run.

    Of each attempt the first and the last lines are kept, some 64,000 characters.
    """
    lines = asyncio.run(_read(database, run, task))
    if as_json:
        output.say_json([output.jsonable(line) for line in lines])
        return
    if not lines:
        output.note("nothing was printed or logged")
    for line in lines:
        at = output.clock(line.at)
        output.say(f"{at} {output.clean(line.task_id)}#{line.attempt} {line.source:7} {output.clean(line.text)}")


async def _read(database: str, run: str, task: str | None) -> list[LogLine]:
    from synergymesh.cli.administration import reach
    from synergymesh.cli.reading import LAST, reading
    from synergymesh.local.verbs import LOGS

    async with reading(database) as store:
        if run == LAST:
            run = (await store.run(run)).id
        remote = await reach(database)
        if remote is None:
            return await store.logs(run, task)
        try:
            return await remote.ask(LOGS, run_id=run, task_id=task)
        finally:
            await remote.close()
