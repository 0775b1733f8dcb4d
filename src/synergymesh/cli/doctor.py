"""`synergymesh doctor …`: examine the machine, the database, graphs, performance, the audit log, isolation."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from synergymesh.cli import output
from synergymesh.cli.audit import TenantOption
from synergymesh.cli.endings import NOT_SUCCESSFUL, Ended
from synergymesh.cli.options import DATABASE_DEFAULT, FILE_HELP, DatabaseOption, JsonOption

if TYPE_CHECKING:
    from synergymesh.diagnostics.findings import Finding
    from synergymesh.diagnostics.performance import Performance
    from synergymesh.domain.graphs.graph import Graph
    from synergymesh.domain.observability.timeline import Timeline

RUNS_DEFAULT = 100
PATH_SHOWN_MAX = 12

TASKS_MAX = 200_000
"""Tasks of all runs that are looked at: some seconds."""

app = typer.Typer(invoke_without_command=True)


@app.callback()
def doctor(
    context: typer.Context,
    deep: Annotated[
        bool, typer.Option("--deep", help="Read every page, index and reference, however large the database is.")
    ] = False,
    database: DatabaseOption = DATABASE_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Examine the machine and the database, and say what to do; ends with 1 when something is wrong."""
    if context.invoked_subcommand is not None:
        return
    from synergymesh.diagnostics.doctor import examine
    from synergymesh.ports.clock import SystemClock

    _tell(asyncio.run(examine(database, SystemClock().now(), deep=deep)), as_json)


@app.command()
def graph(
    file: Annotated[str, typer.Argument(metavar="FILE", help=FILE_HELP)],
    as_json: JsonOption = False,
) -> None:
    """Examine a workflow's graph: circles, what is missing, redundancies, bottlenecks."""
    from synergymesh.diagnostics.graph import examine_graph

    _tell(examine_graph(file), as_json)


@app.command()
def performance(
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="A run's id, or `last`; without it, the latest finished runs.")
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", min=1, max=1_000, help="How many of the latest runs.")
    ] = RUNS_DEFAULT,
    database: DatabaseOption = DATABASE_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Say where the time of a run, or of the latest runs, went, and what would help."""
    found = asyncio.run(_examined(database, run, limit))
    if as_json:
        output.say_json(output.jsonable(found))
    elif not found.runs:
        output.note("there is no finished run")
    else:
        _show(found)


@app.command()
def audit(
    tenant: TenantOption = None,
    since: Annotated[
        str,
        typer.Option("--since", metavar="TIME", help="Failures and sensitive actions from then on: 2026-11-22, 7d."),
    ] = "24h",
    database: DatabaseOption = DATABASE_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Examine the audit log: failures by reason, sensitive actions, gaps and other damage, what is not signed yet.

    Every chain is verified as a whole; `--since` is about failures and sensitive actions. Ends with 1 when something is
    wrong. Nothing is written, not even that it was read: another process may own the database, or it may be a copy.
    """
    from synergymesh.cli.doctor_audit import ask, show
    from synergymesh.diagnostics.findings import is_wrong

    found, names = asyncio.run(ask(database, tenant, since))
    if as_json:
        output.say_json(output.jsonable(found))
        if is_wrong(found.findings):
            raise Ended(NOT_SUCCESSFUL)
    else:
        show(found, names)
        _tell(found.findings, as_json)


@app.command()
def tenants(database: DatabaseOption = DATABASE_DEFAULT, as_json: JsonOption = False) -> None:
    """Try every read and write with another tenant's ids; nothing of it may be found or changed.

    Writes are tried on a mesh in memory; on the database itself only reads, with ids of its own tenants.
    """
    from synergymesh.diagnostics.isolation import examine_isolation

    _tell(asyncio.run(examine_isolation(database)), as_json)


def _tell(findings: Sequence[Finding], as_json: bool) -> None:
    from synergymesh.diagnostics.findings import Level, is_wrong

    if as_json:
        output.say_json(output.jsonable(findings))
    else:
        marks = {Level.OK: "ok   ", Level.NOTE: "note ", Level.WRONG: "WRONG"}
        width = max(len(finding.subject) for finding in findings)
        for finding in findings:
            output.say(f"{marks[finding.level]}  {finding.subject:<{width}}  {finding.said}")
            if finding.remedy:
                output.write(f"{' ' * (width + 9)}-> {output.clean(finding.remedy)}\n")
    if is_wrong(findings):
        raise Ended(NOT_SUCCESSFUL)


async def _examined(database: str, run: str | None, limit: int) -> Performance:
    from synergymesh.diagnostics.commits import read_commit_times
    from synergymesh.diagnostics.performance import with_commits
    from synergymesh.store.sqlite_files import parse_address

    found = await _read(database, run, limit)
    return with_commits(found, await read_commit_times(parse_address(database)))


async def _read(database: str, run: str | None, limit: int) -> Performance:
    from synergymesh.cli.reading import reading
    from synergymesh.diagnostics.performance import examine_run, examine_runs
    from synergymesh.domain.states import FINAL

    async with reading(database) as store:
        if run is not None:
            timeline, graph = await store.timeline_and_graph(run)
            return examine_run(timeline, graph)
        statuses = sorted(FINAL)
        runs = await store.runs(tenant_id=None, statuses=statuses, workflow=None, limit=limit, cursor=None)
        found: list[tuple[Timeline, Graph]] = []
        for each in runs:
            found.append(await store.timeline_and_graph(each.id))
            if sum(len(graph) for _, graph in found) > TASKS_MAX:
                break
        return examine_runs([timeline for timeline, _ in found], [graph for _, graph in found])


def _show(found: Performance) -> None:
    from synergymesh.timeline.drawing import NAMES

    show = output.duration
    output.show_fields(
        {
            "runs": f"{found.runs:,}",
            "time": show(found.seconds),
            "best possible": f"{show(found.best)} (with a slot for every task at once, and no failures)",
            "planned": show(found.planned) if found.planned else None,
            "critical path": _path(found.path),
            "planned path": _path(found.planned_path),
            "failed attempts": show(found.failed) if found.failed else None,
            "last commit": show(found.behind),
            "commits now": _commits(found),
        }
    )
    whole = sum(found.critical.values()) or 1.0
    output.say()
    output.show_table(
        ("PHASE", "CRITICAL PATH", "SHARE", "ALL TASKS"),
        [
            (NAMES[phase], show(found.critical[phase]), f"{100 * found.critical[phase] / whole:.0f} %", show(seconds))
            for phase, seconds in found.tasks.items()
            if seconds > 0
        ],
        numbers=("CRITICAL PATH", "SHARE", "ALL TASKS"),
    )
    output.say()
    output.show_table(
        ("SLOWEST", "WORKFLOW", "RUNS", "ATTEMPTS", "RAN", "FAILED", "COULD HAVE RUN", "CRITICAL IN"),
        [
            (s.component_id, s.workflow, s.runs, s.attempts, show(s.ran), show(s.failed), show(s.queued), s.critical)
            for s in found.slowest
        ],
        numbers=("RUNS", "ATTEMPTS", "RAN", "FAILED", "COULD HAVE RUN", "CRITICAL IN"),
    )
    output.say()
    for advice in found.advice:
        output.say(f"-> {advice}")


def _commits(found: Performance) -> str | None:
    commits = found.commits
    if commits is None:
        return None
    most = "" if commits.seconds_p95 is None else f", 95 % at most {output.duration(commits.seconds_p95)}"
    return f"{output.duration(commits.seconds_mean)} on average{most} ({commits.commits:,} so far)"


def _path(path: Sequence[str]) -> str | None:
    if not path:
        return None
    if len(path) <= PATH_SHOWN_MAX:
        return " -> ".join(path)
    half = PATH_SHOWN_MAX // 2
    return " -> ".join([*path[:half], f"… {len(path) - 2 * half} more …", *path[-half:]])
