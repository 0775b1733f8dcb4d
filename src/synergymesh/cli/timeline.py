"""`synergymesh timeline`: where the time of a run went, as a picture, a page, or figures."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from synergymesh.cli import output
from synergymesh.cli.options import DATABASE_DEFAULT, DatabaseOption, JsonOption
from synergymesh.errors import InvalidRequest

if TYPE_CHECKING:
    from synergymesh.domain.observability.timeline import Timeline

PICTURES = (".svg", ".html")
STEPS_SHOWN_MAX = 30
"""Steps of the critical path that fit on a screen; --json has all."""


def timeline(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run's id, run-…; `last` is the latest.")],
    target: Annotated[
        Path | None, typer.Option("--output", metavar="PATH", help="Draw it: a picture .svg, or a page .html.")
    ] = None,
    database: DatabaseOption = DATABASE_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Show where the time of a run went: attempts, waits with their reasons, the critical path as it really was."""
    if target is not None and target.suffix.lower() not in PICTURES:
        raise InvalidRequest(f"--output must end in .svg or .html, not {target.name!r}.", field="output")
    found = asyncio.run(_read(database, run))
    if target is not None:
        _write(found, target)
    if as_json:
        output.say_json(timeline_json(found))
    elif target is None:
        _show(found)


def timeline_json(timeline: Timeline) -> dict[str, Any]:
    """Give a timeline as JSON values, as `--json` prints it."""
    return {
        **output.jsonable(timeline),
        "totals": output.jsonable(timeline.totals()),
        "critical_totals": output.jsonable(timeline.critical_totals()),
    }


async def _read(database: str, run_id: str) -> Timeline:
    from synergymesh.cli.reading import reading

    async with reading(database) as store:
        return await store.timeline(run_id)


def _write(timeline: Timeline, target: Path) -> None:
    from synergymesh.timeline.page import timeline_html
    from synergymesh.timeline.picture import timeline_svg

    text = timeline_svg(timeline) if target.suffix.lower() == ".svg" else timeline_html(timeline)
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidRequest(f"--output {target} cannot be written: {error.strerror}.", field="output") from None
    output.note(f"{target} is written")


def _show(timeline: Timeline) -> None:
    from synergymesh.timeline.drawing import NAMES

    output.show_fields(
        {
            "run": timeline.run_id,
            "workflow": timeline.workflow,
            "status": timeline.status,
            "submitted": output.moment(timeline.submitted_at),
            "time": output.duration(timeline.seconds),
        }
    )
    if not timeline.critical_path:
        output.say("no task has ended yet")
        return
    output.say()
    output.say(f"the critical path ({len(timeline.critical_path):,} tasks) spent its time:")
    totals = timeline.critical_totals()
    whole = sum(totals.values()) or 1.0
    output.show_table(
        ("ON", "TIME", "SHARE"),
        [
            (NAMES[phase], output.duration(seconds), f"{100 * seconds / whole:.0f} %")
            for phase, seconds in sorted(totals.items(), key=lambda item: -item[1])
            if seconds > 0
        ],
        numbers=("TIME", "SHARE"),
    )
    output.say()
    rows = []
    for step in timeline.critical_path[:STEPS_SHOWN_MAX]:
        runs = [span for span in step.spans if span.attempt]
        ran = sum(span.seconds for span in runs)
        waited = sum(span.seconds for span in step.spans) - ran
        rows.append((step.task_id, len(runs), output.duration(waited), output.duration(ran)))
    output.show_table(("TASK", "ATTEMPTS", "WAITED", "RAN"), rows, numbers=("ATTEMPTS", "WAITED", "RAN"))
    if len(timeline.critical_path) > STEPS_SHOWN_MAX:
        output.say(f"… and {len(timeline.critical_path) - STEPS_SHOWN_MAX:,} more; --json shows all")
