"""Run the benchmarks, each scenario in a process of its own; print a table and write a JSON file.

python -m benchmarks [SCENARIO ...]

`audit` stands for all scenarios of the audit log.
"""

from __future__ import annotations

import json
import platform
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import audit, backlog, engine, enterprise, fairness, limits, resolver, scheduler

GOALS: dict[tuple[str, str], tuple[str, float]] = {
    ("single_runs", "tasks_per_second"): (">=", 8_000),
    ("single_runs", "share_of_bare"): (">=", 0.35),
    ("layered_runs", "tasks_per_second"): (">=", 20_000),
    ("layered_runs", "share_of_bare"): (">=", 0.35),
    ("one_chain", "tasks_per_second"): (">=", 1_500),
    ("one_chain", "share_of_bare"): (">=", 0.35),
    ("latency", "p50_ms_full"): ("<=", 2),
    ("latency", "p99_ms_full"): ("<=", 10),
    ("queued_memory", "peak_mb_with_100000_queued_runs"): ("<=", 300),
    ("queued_memory", "bytes_per_tenant"): ("<=", 2_048),
    ("decisions", "decision_us_10000_tenants"): ("<=", 20),
    ("decisions", "decision_us_100000_tenants"): ("<=", 50),
    ("decisions_short_of_memory", "short_start_us_10000_tenants_700_requests"): ("<=", 30),
    ("decisions_short_of_memory", "short_fill_ms_10000_tenants_700_requests"): ("<=", 200),
    ("idle_tenants", "bytes_per_idle_tenant"): ("<=", 2_048),
    ("fairness", "jain_index_fair"): (">=", 0.99),
    ("fairness", "utilisation_fair"): (">=", 0.99),
    ("fairness", "wait_ratio_to_allowed"): ("<=", 1),
    ("replayed_day", "seconds"): ("<=", 10),
    ("replayed_day", "seconds_with_refused_submissions"): ("<=", 10),
    ("audit_layered_runs", "share_median"): (">=", 0.85),
    ("audit_single_runs", "share_median"): (">=", 0.85),
    ("enterprise_calls", "calls_per_second_in_sequence"): (">=", 1_500),
    ("enterprise_calls", "calls_per_second_of_50_tenants"): (">=", 5_000),
    ("enterprise_figures", "median_ms_get_metrics"): ("<=", 5),
    ("enterprise_figures", "median_ms_get_tenant_health"): ("<=", 5),
    ("enterprise_counting", "share_median"): (">=", 0.97),
    ("enterprise_many_tenants", "median_ms_get_metrics"): ("<=", 5),
    ("enterprise_many_tenants", "median_ms_get_tenant_health"): ("<=", 5),
    ("tenant_memory", "bytes_per_active_tenant"): ("<=", 10_000),
    ("audit_sealing", "entries_per_second"): (">=", 10_000),
    ("audit_sealing", "peak_after_200000_entries_to_10000"): ("<=", 1.1),
    ("audit_query", "median_ms_last_100"): ("<=", 5),
    ("million_backlog", "peak_mb"): ("<=", 400),
    ("million_backlog", "submission_ratio"): (">=", 0.8),
    ("million_backlog", "dispatch_ratio"): (">=", 0.8),
    ("million_backlog", "first_task_seconds"): ("<=", 5),
    ("million_backlog", "first_task_seconds_after_crash"): ("<=", 5),
    ("thousand_tenants", "speed_ratio"): (">=", 0.9),
    ("limits_on_layers", "speed_ratio"): (">=", 0.9),
    ("limits_on_layers_of_many", "speed_ratio"): (">=", 0.9),
    ("limits_on_a_chain", "speed_ratio"): (">=", 0.9),
    ("audit_verify", "entries_per_second"): (">=", 200_000),
    ("audit_verify", "entries_per_second_in_a_mesh"): (">=", 200_000),
    ("audit_verify", "exported_entries_per_second"): (">=", 200_000),
}

RESOLVER = "resolver"
AUDIT = "audit"

MODULE_OF = {
    scenario: module.__name__
    for module in (engine, scheduler, fairness, backlog, limits, audit, enterprise)
    for scenario in module.SCENARIOS
}
AUDIT_VERIFY = "audit_verify"
MODULE_OF[AUDIT_VERIFY] = "benchmarks.audit_verify"
OF_AUDIT = [*audit.SCENARIOS, AUDIT_VERIFY]


def main() -> None:
    """Run what was asked for, or everything."""
    known = [*MODULE_OF, RESOLVER]
    wanted = [name for given in sys.argv[1:] for name in (OF_AUDIT if given == AUDIT else [given])] or known
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        sys.exit(f"unknown scenario {unknown[0]}; known: {', '.join(known)}")
    console = Console()
    table = Table("scenario", "figure", "value", "goal", "reached")
    report: dict[str, object] = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }
    for scenario in [name for name in wanted if name != RESOLVER]:
        console.print(f"{scenario} …", style="dim")
        done = subprocess.run(
            [sys.executable, "-m", MODULE_OF[scenario], scenario], check=True, stdout=subprocess.PIPE, text=True
        )
        figures = json.loads(done.stdout.splitlines()[-1])
        report[scenario] = figures
        for name, value in figures.items():
            sign, goal = GOALS.get((scenario, name), ("", 0.0))
            reached = "" if not sign else ("yes" if (value >= goal) == (sign == ">=") else "NO")
            table.add_row(scenario, name, f"{value:,.2f}", f"{sign} {goal:,g}" if sign else "", reached)
    if table.row_count:
        console.print(table)
    if RESOLVER in wanted:
        report[RESOLVER] = resolver.main()
    out = Path(__file__).parent / "out"
    out.mkdir(exist_ok=True)
    path = out / "figures.json"
    path.write_text(json.dumps(report, indent=2) + "\n")
    console.print(f"written to {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")


if __name__ == "__main__":
    main()
