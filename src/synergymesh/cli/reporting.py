"""Says how runs ended, and how to go on with those that did not."""

from __future__ import annotations

import shlex
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from synergymesh.cli import output
from synergymesh.cli.endings import NOT_SUCCESSFUL, SUCCESS
from synergymesh.cli.options import DATABASE_DEFAULT
from synergymesh.cli.reading import reading
from synergymesh.domain.states import ExecutionStatus

if TYPE_CHECKING:
    from synergymesh.cli.executing import Execution
    from synergymesh.engine.observability.views import Run

GOOD = (ExecutionStatus.SUCCESS, ExecutionStatus.PARTIAL)

RUNS_SHOWN_MAX = 10
ERRORS_SHOWN_MAX = 10


async def report(
    run_ids: Sequence[str], get_run: Callable[[str], Awaitable[Run]], execution: Execution, as_json: bool
) -> int:
    """Print how followed runs ended; give the exit code."""
    execution.view.close()
    statuses = {run_id: execution.followed.runs[run_id].status for run_id in run_ids}
    bad = [run_id for run_id, status in statuses.items() if status not in GOOD]
    if as_json:
        for run_id in run_ids:
            output.say_json({"type": "run", "run": output.jsonable(await get_run(run_id))}, indent=None)
    elif len(run_ids) > RUNS_SHOWN_MAX:
        output.say(f"{len(run_ids):,} runs ended: {len(run_ids) - len(bad):,} well, {len(bad):,} not")
        for run_id in bad[:RUNS_SHOWN_MAX]:
            _say_summary(await get_run(run_id))
    else:
        for run_id in run_ids:
            _say_end(await get_run(run_id))
    return NOT_SUCCESSFUL if bad else SUCCESS


async def report_stopped(run_ids: Sequence[str], execution: Execution, database: str, as_json: bool) -> int:
    """Print what is still open after a stop, and how to go on; give the exit code. The orchestrator is closed."""
    execution.view.close()
    followed = execution.followed.runs
    ended = [run_id for run_id in run_ids if run_id in followed and followed[run_id].status.is_final]
    still_open = [run_id for run_id in run_ids if run_id not in set(ended)]
    if ended:
        async with reading(database) as store:
            await report(ended, store.run, execution, as_json)
    if as_json:
        output.say_json({"type": "stopped", "open_runs": still_open}, indent=None)
    if still_open:
        place = "" if database == DATABASE_DEFAULT else f" --database {shlex.quote(database)}"
        what = f"{still_open[0]} is" if len(still_open) == 1 else f"{len(still_open):,} runs are"
        output.note(f"{what} not lost. Continue with:")
        output.note(f"synergymesh resume{place}")
    return execution.exit_code or SUCCESS


def _say_summary(run: Run) -> None:
    """Say in two lines how a run ended."""
    counts: dict[str, int] = {}
    for task in run.tasks:
        counts[task.status] = counts.get(task.status, 0) + 1
    statuses = ", ".join(f"{count:,} {status}" for status, count in counts.items())
    retries = retries_of(run)
    again = "" if not retries else f"; {retries:,} {'retry' if retries == 1 else 'retries'}"
    output.say(f"{run.id} {run.status} in {output.between(run.started_at or run.created_at, run.ended_at)}")
    tasks = "1 task" if len(run.tasks) == 1 else f"{len(run.tasks):,} tasks"
    output.say(f"{tasks}: {statuses}{again}", indent=2)


def _say_end(run: Run) -> None:
    """Say how a run ended, why, and with which result."""
    _say_summary(run)
    for component_id, error in list(run.errors.items())[:ERRORS_SHOWN_MAX]:
        output.say(f"{component_id or 'result'}: {error}", indent=2)
    if len(run.errors) > ERRORS_SHOWN_MAX:
        more = len(run.errors) - ERRORS_SHOWN_MAX
        output.say(f"… and {more:,} more; see synergymesh show {run.id}", indent=2)
    if run.status in GOOD and run.result is not None:
        output.say_value("result", run.result)


def retries_of(run: Run) -> int:
    """Count the attempts that failed and were followed by another one."""
    return sum(task.failed_attempts for task in run.tasks)
