"""The report of verify-packages.py: what was found and measured, as data and on the screen."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from synergymesh import ExecutionStatus, Run, Tenant
from synergymesh.cli.installed import Environment
from synergymesh.cli.output import clean, duration

HEADINGS = ("TENANT", "TIER", "TASKS", "RETRIES", "WALL", "ONE BY ONE", "SPEED-UP", "LONGEST PATH")
PROBLEMS_SHOWN_MAX = 10


def critical_path(environment: Environment, results: dict[str, dict[str, Any]]) -> tuple[float, list[str]]:
    """Give the seconds and the names of the chain of distributions that took longest, by measured durations."""
    best: dict[str, tuple[float, str | None]] = {}
    for name, each in environment.distributions.items():  # those that are required come first
        if name in results:
            longest = max((n for n in each.needs if n in best), key=lambda n: best[n][0], default=None)
            best[name] = (results[name]["seconds"] + (best[longest][0] if longest else 0.0), longest)
    if not best:
        return 0.0, []
    last: str | None = max(best, key=lambda n: best[n][0])
    seconds, path = best[str(last)][0], []
    while last is not None:
        path.append(last)
        last = best[last][1]
    return seconds, path[::-1]


def shortened(path: Sequence[str]) -> str:
    """Give a path in few words."""
    return " → ".join(path if len(path) <= 3 else [path[0], "…", path[-1]])


def report_on(
    environment: Environment, ended: Sequence[tuple[Tenant, Run]], wall_seconds: float, workers: int
) -> dict[str, Any]:
    """Put everything that was found and measured into a report."""
    tenants = []
    found: dict[str, dict[str, Any]] = {}
    for tenant, run in ended:
        results = {t.task_id: t.result for t in run.tasks if t.status is ExecutionStatus.SUCCESS}
        seconds, path = critical_path(environment, results)
        sequential = sum(result["seconds"] for result in results.values())
        wall = ((run.ended_at or run.created_at) - (run.started_at or run.created_at)).total_seconds()
        tenants.append(
            {
                "tenant": tenant.tenant_name,
                "tier": str(tenant.tier),
                "run_id": run.id,
                "status": str(run.status),
                "tasks": len(run.tasks),
                "retries": sum(f.status != ExecutionStatus.CANCELLED for t in run.tasks for f in t.failures),
                "recoveries": run.recoveries,
                "wall_seconds": wall,
                "sequential_seconds": sequential,
                "cpu_seconds": sum(result["cpu_seconds"] for result in results.values()),
                "speed_up": sequential / wall if wall else None,
                "critical_path_seconds": seconds,
                "critical_path": path,
                "errors": {t.task_id: str(t.error) for t in run.tasks if t.error is not None},
            }
        )
        for name, result in results.items():
            known = found.setdefault(name, result)
            if result["problem_count"] > known["problem_count"]:
                found[name] = result
    for name, result in found.items():
        each = environment.distributions[name]
        result |= {"version": each.version, "requires": list(each.needs)}
    return {
        "made_at": datetime.now(UTC).isoformat(),
        "python": sys.version.split()[0],
        "prefix": sys.prefix,
        "workers": workers,
        "wall_seconds": wall_seconds,
        "intact": not any(r["problem_count"] for r in found.values())
        and all(each["status"] == ExecutionStatus.SUCCESS for each in tenants),
        "tenants": tenants,
        "problems": [
            {"distribution": name, "file": file, "problem": problem}
            for name, result in found.items()
            for file, problem in result["problems"]
        ],
        "circles_cut": [{"distribution": name, "requires": other} for name, other in environment.cut],
        "distributions": dict(sorted(found.items())),
    }


def show_table(report: dict[str, Any], console: Console) -> None:
    """Print a line for each tenant, and what its critical path was."""
    tenants = report["tenants"]
    rows = [
        (
            clean(each["tenant"]),
            each["tier"],
            str(each["tasks"]),
            str(each["retries"]),
            duration(each["wall_seconds"]),
            duration(each["sequential_seconds"]),
            "-" if each["speed_up"] is None else f"{each['speed_up']:.2f}x",
            duration(each["critical_path_seconds"]),
        )
        for each in tenants
    ]
    sequential = sum(each["sequential_seconds"] for each in tenants)
    rows.append(
        (
            "together",
            "",
            str(sum(each["tasks"] for each in tenants)),
            str(sum(each["retries"] for each in tenants)),
            duration(report["wall_seconds"]),
            duration(sequential),
            f"{sequential / report['wall_seconds']:.2f}x",
            "",
        )
    )
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading in ("TENANT", "TIER") else "right", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row), style="bold" if row is rows[-1] else "")
    console.print(table)
    workers = report["workers"]
    say(console, f"speed-up: one by one / wall. {workers} workers for all tenants, higher tiers come first.", "dim")
    console.print()
    for each in tenants:
        say(console, f"longest path of {each['tenant']}: {shortened(each['critical_path'])}")


def show(report: dict[str, Any], console: Console, report_file: str) -> None:
    """Print the summary: a screen of 80 columns has room for it."""
    show_table(report, console)
    console.print()
    results = report["distributions"].values()
    checked, unchecked = sum(r["checked"] for r in results), sum(r["not_checked"] for r in results)
    megabytes = sum(r["bytes"] for r in results) / 1e6
    say(
        console,
        f"{checked:,} files ({megabytes:,.0f} MB) checked for each tenant, {unchecked:,} have no hash",
    )
    for each in report["circles_cut"]:
        say(console, f"left out, since it closes a circle: {each['distribution']} requires {each['requires']}")
    for each in report["tenants"]:
        for name, error in list(each["errors"].items())[:PROBLEMS_SHOWN_MAX]:
            say(console, f"✗ {each['tenant']}: {name} could not be checked: {error}", "red")
    problems = report["problems"]
    for each in problems[:PROBLEMS_SHOWN_MAX]:
        say(console, f"✗ {each['distribution']}: {each['problem']}: {each['file']}", "bold red")
    if len(problems) > PROBLEMS_SHOWN_MAX:
        say(console, f"… and {len(problems) - PROBLEMS_SHOWN_MAX:,} more; the report has them", "red")
    broken = {each["distribution"] for each in problems}
    on_top = sum(1 for r in results if r["unsafe"] and r["name"] not in broken)
    if on_top:
        say(console, f"{on_top} more {'distribution is' if on_top == 1 else 'distributions are'} built on these", "red")
    if report["intact"]:
        say(console, "✓ every file is as it was installed", "bold green")
    say(console, f"report: {report_file}")


def say(console: Console, text: str, style: str = "") -> None:
    """Print a line of text that may have come from anywhere."""
    whole = not console.is_terminal
    console.print(Text(clean(text), style=style), no_wrap=True, overflow="ellipsis", soft_wrap=whole)
