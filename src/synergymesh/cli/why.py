"""`synergymesh why`: what keeps a run from going on, and what to do about it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from synergymesh.cli import output
from synergymesh.cli.options import DATABASE_DEFAULT, DatabaseOption, JsonOption
from synergymesh.domain.instants import to_datetime
from synergymesh.domain.states import TenantStatus

if TYPE_CHECKING:
    from synergymesh.domain.scheduling.explain import Blocker, Reason
    from synergymesh.engine.observability.explaining import RunExplanation, TaskExplanation
    from synergymesh.engine.observability.views import Run

TASKS_SHOWN_MAX = 20
"""Waiting tasks in the table; `--json` has all that the scheduler explains."""

NAMES_SHOWN_MAX = 5

NOT_EXECUTED = (
    "no process executes this database, or it answers no others (local_socket). `synergymesh resume` goes on with it."
)


def why(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run's id, run-…, or `last`.")],
    database: DatabaseOption = DATABASE_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Say why a run does not go on: what each of its tasks waits for, and what to do about it."""
    stored, names, explained = asyncio.run(_ask(database, run))
    if as_json:
        output.say_json(_json(stored, explained))
        return
    status = stored.status if explained is None else explained.status
    output.show_fields(
        {
            "run": stored.id,
            "workflow": stored.workflow,
            "tenant": f"{names.get(stored.tenant_id, ('?', None))[0]} ({stored.tenant_id})",
            "status": status,
            "submitted": output.moment(stored.created_at),
            "not before": output.moment(stored.not_before),
            "running": None if explained is None else _listed(explained.running),
        }
    )
    output.say()
    if status.is_final:
        output.say(f"It is over. `synergymesh show {stored.id}` shows how it ended.")
    elif explained is None:
        _say_stored(stored, names.get(stored.tenant_id, ("?", None))[1])
    else:
        _say_explained(explained, {tenant_id: name for tenant_id, (name, _) in names.items()})


async def _ask(
    database: str, run_id: str
) -> tuple[Run, dict[str, tuple[str, TenantStatus | None]], RunExplanation | None]:
    """Read what is stored, and ask the process that executes; None from it if there is none."""
    from synergymesh.cli.administration import reach
    from synergymesh.cli.reading import reading
    from synergymesh.local.verbs import EXPLAIN

    async with reading(database) as store:
        stored = await store.run(run_id)
        names: dict[str, tuple[str, TenantStatus | None]] = {
            t.tenant_id: (t.tenant_name, t.status) for t in await store.tenants()
        }
    remote = await reach(database)
    if remote is None:
        return stored, names, None
    try:
        return stored, names, await remote.ask(EXPLAIN, run_id=stored.id)
    finally:
        await remote.close()


def _json(stored: Run, explained: RunExplanation | None) -> dict[str, Any]:
    if explained is None:
        return {
            "run_id": stored.id,
            "status": stored.status,
            "executed": False,
            "reason": None if stored.status.is_final else NOT_EXECUTED,
            "running": [],
            "waiting": [],
        }
    value: dict[str, Any] = output.jsonable(explained)
    for task, shown in zip(explained.waiting, value["waiting"], strict=True):
        for blocker, raw in zip(task.blockers, shown["blockers"], strict=True):
            raw["until"] = None if blocker.until is None else output.jsonable(to_datetime(blocker.until))
            raw["remedy"] = blocker.remedy
    return {**value, "executed": True}


def _say_stored(stored: Run, tenant_status: TenantStatus | None) -> None:
    """Say what can be said of a run that nobody executes."""
    output.say(NOT_EXECUTED)
    if tenant_status is TenantStatus.SUSPENDED:
        output.say("paused: its tenant is suspended. `synergymesh tenants resume` starts its tasks again.")
    waiting = [task.task_id for task in stored.tasks if not task.status.is_final]
    if waiting:
        output.say(f"{_counted(len(waiting), 'task')} of {len(stored.tasks):,} not ended: {_listed(waiting)}")


def _say_explained(explained: RunExplanation, names: Mapping[str, str]) -> None:
    if explained.reason:
        output.say(f"The whole run waits: {explained.reason}")
    if not explained.waiting:
        if explained.running:
            output.say("Nothing of it waits.")
        elif not explained.reason:
            output.say("It waits behind other runs of its tenant, and has not been looked at yet.")
        return
    first = explained.waiting[0]
    _say_task(first, names)
    others = explained.waiting[1:]
    if others:
        output.say()
        output.show_table(
            ("TASK", "PLACE", "STARTS", "HELD BY"),
            [(task.task_id, task.position, _start(task.estimated_start), _held_by(task)) for task in others][
                :TASKS_SHOWN_MAX
            ],
            numbers=("PLACE",),
        )
        if len(others) > TASKS_SHOWN_MAX:
            output.say(f"… and {len(others) - TASKS_SHOWN_MAX:,} more; --json shows them")
    told = {blocker.reason for blocker in first.blockers}
    more = {blocker.reason: blocker.remedy for task in others for blocker in task.blockers}
    _say_remedies({reason: remedy for reason, remedy in more.items() if reason not in told})


def _say_task(task: TaskExplanation, names: Mapping[str, str]) -> None:
    """Say everything about the task that is nearest to starting."""
    place = "" if task.position is None else f", place {task.position:,} in its tenant's queue"
    output.say(f"{task.task_id}{place}, {_start_in_words(task)}")
    for number, blocker in enumerate(task.blockers, 1):
        output.say(f"{number}. {describe(blocker, names, task.waits_for)}", indent=2)
        output.say(blocker.remedy, indent=5)
        if blocker.is_hopeless:
            output.say("It asks for more than the limit as such: waiting does not help.", indent=5)


def describe(blocker: Blocker, names: Mapping[str, str], waits_for: Sequence[str] = ()) -> str:
    """Say in a line what blocks."""
    parts = [blocker.reason.value]
    if blocker.level:
        parts.append(f"of {names.get(blocker.level, '?')} ({blocker.level})")
    if blocker.resource in ("tasks", "runs") and blocker.asked is not None:
        parts.append(f": {_counted(blocker.asked, blocker.resource.removesuffix('s'))} first")
    elif blocker.limit is not None:
        parts.append(f": {blocker.resource} limit {blocker.limit:,}, used {blocker.used:,}, asked {blocker.asked:,}")
    elif blocker.resource:
        parts.append(f": {blocker.resource}")
    if waits_for and blocker.reason == "dependency":
        parts.append(f": waits for {_listed(waits_for)}")
    if blocker.until is not None:
        parts.append(f"until {output.moment(to_datetime(blocker.until))}")
    return " ".join(parts).replace(" :", ":")


def _say_remedies(remedies: Mapping[Reason, str]) -> None:
    if remedies:
        output.say()
        for reason, remedy in remedies.items():
            output.say(f"{reason}: {remedy}")


def _held_by(task: TaskExplanation) -> str:
    if task.waits_for:
        return f"dependency: {_listed(task.waits_for)}"
    return ", ".join(dict.fromkeys(blocker.reason.value for blocker in task.blockers)) or "-"


def _start_in_words(task: TaskExplanation) -> str:
    if not task.blockers:
        return "starts at the next decision"
    if task.estimated_start is None:
        return "start not known"
    return f"starts about {_start(task.estimated_start)}"


def _start(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    return output.clock(moment)


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _listed(names: Iterable[str]) -> str | None:
    """Give some names, and how many more there are; None for none."""
    every = list(names)
    more = f" and {len(every) - NAMES_SHOWN_MAX:,} more" if len(every) > NAMES_SHOWN_MAX else ""
    return ", ".join(every[:NAMES_SHOWN_MAX]) + more if every else None
