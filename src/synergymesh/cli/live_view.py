"""Shows runs while they execute: drawn anew on a terminal, in plain lines elsewhere, as JSON for programs."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from synergymesh.cli import output
from synergymesh.cli.followed import Followed, FollowedRun, RunningTask
from synergymesh.domain.states import ExecutionStatus

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

    from synergymesh.engine.observability.events import RunEvent

RUNNING_LINES_MAX = 10
"""Running tasks that are drawn; the rest is a number."""

FRAME_SECONDS = 0.125
"""Eight pictures a second look smooth, and cost nothing beside the tasks."""

_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_TROUBLE = frozenset({ExecutionStatus.RETRYING, ExecutionStatus.FAILED, ExecutionStatus.TIMEOUT})


class View(Protocol):
    """Show what happens."""

    def start(self, run: FollowedRun, *, resumed: bool) -> None:
        """Say that a run is followed from now on."""
        ...

    def event(self, event: RunEvent, ended: RunningTask | None) -> None:
        """Show an event; `ended` is the attempt that it ends, if its start was seen."""
        ...

    def frame(self) -> None:
        """Show the present state; called several times a second."""
        ...

    def say(self, text: str) -> None:
        """Show a line that is no event."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was."""
        ...


def make_view(followed: Followed, *, as_json: bool) -> View:
    """Choose how to show runs: JSON when asked for, else what standard output can take."""
    if as_json:
        return JsonView()
    return TerminalView(followed) if output.is_terminal() else LinesView(followed)


def _started(run: FollowedRun, *, resumed: bool) -> str:
    verb = "continued" if resumed else "submitted"
    tasks = "1 task" if run.total == 1 else f"{run.total:,} tasks"
    return f"{run.run_id} {verb}: {run.workflow} for {run.tenant_name}, {tasks}"


def describe(event: RunEvent, ended: RunningTask | None) -> str:
    """Say in words what an event tells of a task."""
    took = f" after {output.duration((event.at - ended.since).total_seconds())}" if ended is not None else ""
    attempt = f" (attempt {event.attempt})" if event.attempt > 1 else ""
    error = f": {event.error}" if event.error else ""
    match event.status:
        case ExecutionStatus.RUNNING:
            return f"running{attempt}"
        case ExecutionStatus.RETRYING:
            return f"attempt {event.attempt} failed{took}, retrying{error}"
        case ExecutionStatus.PENDING:
            return f"attempt {event.attempt} was interrupted{took}"
        case _:
            return f"{event.status}{took}{attempt}{error}"


class JsonView:
    """Print one JSON object a line: `{"type": "event", …}` for each event."""

    def start(self, run: FollowedRun, *, resumed: bool) -> None:
        """Print the run as it is now."""
        output.say_json(
            {
                "type": "followed",
                "run_id": run.run_id,
                "workflow": run.workflow,
                "tenant_name": run.tenant_name,
                "tasks": run.total,
                "resumed": resumed,
            },
            indent=None,
        )

    def event(self, event: RunEvent, ended: RunningTask | None) -> None:
        """Print an event."""
        output.say_json({"type": "event", **output.jsonable(event)}, indent=None)

    def frame(self) -> None:
        """Print nothing."""

    def say(self, text: str) -> None:
        """Print on standard error."""
        output.note(text)

    def close(self) -> None:
        """Do nothing."""


class LinesView:
    """Print one line for each event."""

    def __init__(self, followed: Followed) -> None:
        self._followed = followed

    def start(self, run: FollowedRun, *, resumed: bool) -> None:
        """Print which run it is."""
        self.say(_started(run, resumed=resumed))

    def event(self, event: RunEvent, ended: RunningTask | None) -> None:
        """Print an event."""
        if event.task_id is None:
            if event.status is not ExecutionStatus.PENDING:
                output.say(f"{output.clock(event.at)} {event.run_id} {event.status}")
            return
        of_run = f"{event.run_id} " if len(self._followed.runs) > 1 else ""
        output.say(f"{output.clock(event.at)} {of_run}{event.task_id} {describe(event, ended)}")

    def frame(self) -> None:
        """Print nothing."""

    def say(self, text: str) -> None:
        """Print a line."""
        output.say(f"{output.clock(datetime.now(UTC))} {text}")

    def close(self) -> None:
        """Do nothing."""


class TerminalView:
    """Draw a progress bar and the running tasks; retries and failures stay as lines above."""

    def __init__(self, followed: Followed) -> None:
        from rich.console import Console
        from rich.live import Live

        self._followed = followed
        self._console = Console(highlight=False, markup=False, emoji=False)
        # drawn by `frame` on the event loop: no second thread reads what is being counted
        self._live: Live = Live(console=self._console, auto_refresh=False, transient=True, redirect_stderr=True)
        self._began = time.monotonic()
        self._line = ""
        self._live.start()

    def start(self, run: FollowedRun, *, resumed: bool) -> None:
        """Print which run it is."""
        self.say(_started(run, resumed=resumed))

    def event(self, event: RunEvent, ended: RunningTask | None) -> None:
        """Print a line for trouble; everything else is drawn."""
        if event.task_id is None or event.status not in _TROUBLE:
            return
        from rich.text import Text

        style = output.STATUS_STYLES[event.status]
        mark = "↻" if event.status is ExecutionStatus.RETRYING else "✗"
        self._print(
            Text.assemble(
                (f"{mark} ", style),
                (f"{output.clock(event.at)} ", "dim"),
                (output.clean(event.task_id), "bold"),
                f" {output.clean(describe(event, ended))}",
            )
        )

    def say(self, text: str) -> None:
        """Print a line above the picture."""
        from rich.text import Text

        self._print(Text(output.clean(text)))

    def _print(self, line: RenderableType) -> None:
        self._console.print(line, no_wrap=True, overflow="ellipsis", crop=True)

    def frame(self) -> None:
        """Draw the picture."""
        self._live.update(self._picture(), refresh=True)

    def close(self) -> None:
        """Take the picture away and show the cursor again."""
        from rich.text import Text

        self._live.update(Text(""))
        self._live.stop()

    def _picture(self) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        followed = self._followed
        elapsed = time.monotonic() - self._began
        bar = Table.grid(expand=True, padding=(0, 1))
        bar.add_column(ratio=1, min_width=8)
        bar.add_column(no_wrap=True, justify="right")
        facts = Text(f"{followed.done:,}/{followed.total:,} tasks")
        if len(followed.runs) > 1:
            facts.append(f"  {len(followed.runs) - followed.open_runs:,}/{len(followed.runs):,} runs")
        if followed.retries:
            facts.append(f"  {followed.retries:,} {'retry' if followed.retries == 1 else 'retries'}", "yellow")
        if followed.failed:
            facts.append(f"  {followed.failed:,} failed", "bold red")
        facts.append(f"  {output.duration(elapsed) if elapsed >= 60 else f'{elapsed:.0f} s'}", "dim")
        bar.add_row(ProgressBar(total=max(followed.total, 1), completed=followed.done), facts)
        rows: list[RenderableType] = [bar]
        tasks = list(followed.running())
        room = max(1, min(RUNNING_LINES_MAX, self._console.height - 4))
        if tasks:
            rows.append(self._running(tasks[:room], elapsed))
        waits = {run.reason for run in followed.runs.values() if run.reason and not run.status.is_final}
        rows += [
            Text(f"  waits: {output.clean(reason)}", style="yellow", no_wrap=True, overflow="ellipsis")
            for reason in sorted(waits)[:1]
        ]
        if len(tasks) > room:
            rows.append(Text(f"  … and {len(tasks) - room:,} more running", style="dim"))
        # the cursor waits on a line of its own, so that the "^C" of the terminal moves nothing
        return Group(*rows, Text(""))

    def _running(self, tasks: list[RunningTask], elapsed: float) -> RenderableType:
        from rich.table import Table
        from rich.text import Text

        now = datetime.now(UTC)
        spinner = _SPINNER[int(elapsed / FRAME_SECONDS) % len(_SPINNER)]
        table = Table.grid(expand=True, padding=(0, 1))
        table.add_column(width=1, style="cyan")
        table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        table.add_column(no_wrap=True, justify="right", style="yellow")
        table.add_column(no_wrap=True, justify="right", min_width=4)
        table.add_column(no_wrap=True, justify="right", min_width=7)
        for task in tasks:
            table.add_row(
                spinner,
                Text(output.clean(task.task_id)),
                f"attempt {task.attempt}" if task.attempt > 1 else "",
                "" if task.progress is None else f"{task.progress:.0%}",
                output.duration((now - task.since).total_seconds()),
            )
        return table
