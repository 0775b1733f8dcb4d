"""`synergymesh retry` and `replay`: go on with a run that failed, or do a run again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from synergymesh.cli import output
from synergymesh.cli.options import DATABASE_DEFAULT, DatabaseOption, JsonOption
from synergymesh.cli.runs import RunArgument

if TYPE_CHECKING:
    from synergymesh.local.verbs import NewRun


def retry(
    run: RunArgument,
    all_: Annotated[
        bool, typer.Option("--all", help="Start all over instead of using committed results again.")
    ] = False,
    database: DatabaseOption = DATABASE_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Go on with a run that did not succeed, as a new run; only what has no result runs again.

    `synergymesh resume` then executes it.
    """
    from synergymesh.cli.administration import administrating
    from synergymesh.local.verbs import RETRY_RUN

    async def go_on() -> NewRun:
        async with administrating(database) as mesh:
            return await mesh.ask(RETRY_RUN, run_id=run, from_failed=not all_)

    _say(asyncio.run(go_on()).id, f"goes on with {run}", {"retry_of": run}, as_json)


def replay(
    run: RunArgument,
    input_: Annotated[
        str | None, typer.Option("--input", metavar="JSON", help="Another input: a JSON object, or @FILE.")
    ] = None,
    database: DatabaseOption = DATABASE_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Do all that a run did again, as a new run of the same version. `synergymesh resume` then executes it."""
    from synergymesh.cli.administration import administrating
    from synergymesh.cli.run import read_input
    from synergymesh.local.verbs import REPLAY

    given = None if input_ is None else read_input(input_)

    async def again() -> NewRun:
        async with administrating(database) as mesh:
            return await mesh.ask(REPLAY, run_id=run, input=given)

    _say(asyncio.run(again()).id, f"repeats {run}", {"replay_of": run}, as_json)


def _say(run_id: str, what: str, link: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.say_json({"id": run_id, **link})
    else:
        output.say(f"{run_id} {what}")
