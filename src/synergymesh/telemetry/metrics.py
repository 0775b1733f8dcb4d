"""The metrics in Prometheus' text format: names by its conventions, labels in bounded numbers.

Prometheus, "Metric and label naming" and "Exposition formats".
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version

from prometheus_client import generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from synergymesh.audit.lag import AuditLag
from synergymesh.domain.observability.histogram import bounds_of
from synergymesh.domain.observability.tallies import Durations, Measure
from synergymesh.engine.observability.monitoring import MeshFigures

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

BOUNDS_SECONDS = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    300.0,
    1_800.0,
)
"""Upper bounds of the buckets that are shown, for tasks of milliseconds as of half an hour."""

_TASK = "task."
_RUN = "run."


class _Families(Collector):
    """Give the metrics of one moment."""

    def __init__(self, figures: MeshFigures, audit: AuditLag | None) -> None:
        self._figures = figures
        self._audit = audit

    def collect(self) -> Iterator[Metric]:
        """Give every metric."""
        yield from self._of_tenants()
        yield from self._of_mesh()
        yield from self._of_audit()

    def _of_tenants(self) -> Iterator[Metric]:
        submitted = CounterMetricFamily("synergymesh_runs_submitted", "Runs that were acknowledged.", labels=["tenant"])
        runs = CounterMetricFamily("synergymesh_runs", "Runs that ended, by status.", labels=["tenant", "status"])
        tasks = CounterMetricFamily("synergymesh_tasks", "Tasks that ended, by status.", labels=["tenant", "status"])
        retries = CounterMetricFamily(
            "synergymesh_task_retries", "Attempts that failed and were followed by another.", labels=["tenant"]
        )
        durations = HistogramMetricFamily(
            "synergymesh_task_duration_seconds",
            "How long the attempts took that gave a task its verdict.",
            labels=["tenant"],
        )
        waits = HistogramMetricFamily(
            "synergymesh_queue_wait_seconds", "How long tasks were ready before they started.", labels=["tenant"]
        )
        running = GaugeMetricFamily("synergymesh_tasks_running", "Attempts that are under way.", labels=["tenant"])
        waiting = GaugeMetricFamily("synergymesh_tasks_waiting", "Tasks that wait in a queue.", labels=["tenant"])
        backlog = GaugeMetricFamily(
            "synergymesh_backlog_tasks", "Tasks of open runs that are not final.", labels=["tenant"]
        )
        holds = CounterMetricFamily(
            "synergymesh_limit_hits",
            "How often a limit held a tenant's tasks or refused a submission, by reason.",
            labels=["tenant", "reason"],
        )
        run_durations = HistogramMetricFamily(
            "synergymesh_run_duration_seconds",
            "How long runs took from their first start to their end.",
            labels=["tenant"],
        )
        breakers = GaugeMetricFamily(
            "synergymesh_breakers",
            "Circuit breakers by state; closed ones that have not failed lately are not counted.",
            labels=["tenant", "state"],
        )
        for tenant in self._figures.tenants:
            name = [tenant.tenant_id]
            tally = tenant.tally
            submitted.add_metric(name, tally.count(Measure.SUBMITTED))
            for measure, count in sorted(tally.counts.items()):
                if measure.startswith(_TASK):
                    tasks.add_metric([*name, measure.removeprefix(_TASK)], count)
                elif measure.startswith(_RUN) and measure != Measure.SUBMITTED:
                    runs.add_metric([*name, measure.removeprefix(_RUN)], count)
            retries.add_metric(name, tally.count(Measure.RETRIED))
            durations.add_metric(name, *_buckets(tally.duration))
            waits.add_metric(name, *_buckets(tally.wait))
            running.add_metric(name, tenant.running)
            waiting.add_metric(name, tenant.waiting)
            backlog.add_metric(name, tenant.open_tasks)
            for reason, count in sorted(tenant.limit_hits.items()):
                holds.add_metric([*name, reason], count)
            run_durations.add_metric(name, *_buckets(tally.run_duration))
            for state, count in tenant.breakers.items():
                breakers.add_metric([*name, state], count)
        yield from (submitted, runs, tasks, retries, durations, run_durations, waits)
        yield from (running, waiting, backlog, holds, breakers)

    def _of_mesh(self) -> Iterator[Metric]:
        figures = self._figures
        yield InfoMetricFamily("synergymesh", "The version that runs.", {"version": version("synergymesh")})
        yield GaugeMetricFamily("synergymesh_tenants", "Tenants that there are.", figures.tenants_total)
        yield GaugeMetricFamily("synergymesh_executor_slots", "Attempts that may run at the same time.", figures.slots)
        yield GaugeMetricFamily("synergymesh_executor_slots_used", "Attempts that are under way.", figures.running)
        yield CounterMetricFamily("synergymesh_commits", "Transactions that were written.", figures.commits)
        yield CounterMetricFamily(
            "synergymesh_commit_units", "Changes that belong together in those transactions.", figures.commit_units
        )
        commits = HistogramMetricFamily("synergymesh_commit_duration_seconds", "How long the transactions took.")
        commits.add_metric([], *_buckets(figures.commit_durations))
        yield commits
        yield GaugeMetricFamily(
            "synergymesh_commit_units_waiting", "Changes that wait to be written.", figures.units_waiting
        )
        yield CounterMetricFamily("synergymesh_task_starts", "Attempts that were started.", figures.starts)
        yield CounterMetricFamily(
            "synergymesh_dispatch_seconds", "Time spent on choosing and starting attempts.", figures.dispatch_seconds
        )
        yield GaugeMetricFamily(
            "synergymesh_database_writable", "1 unless the database could not be written last.", figures.is_writable
        )
        yield GaugeMetricFamily(
            "synergymesh_audit_signed", "1 unless the audit log could not be signed last.", figures.is_signed
        )
        faults = CounterMetricFamily(
            "synergymesh_internal_errors",
            "Errors inside of SynergyMesh, by the work in which they were.",
            labels=["work"],
        )
        for work, count in sorted(figures.faults.items()):
            faults.add_metric([work], count)
        yield faults

    def _of_audit(self) -> Iterator[Metric]:
        lag = self._audit
        entries = CounterMetricFamily("synergymesh_audit_entries", "Entries of the audit log that were ever recorded.")
        unsigned = GaugeMetricFamily(
            "synergymesh_audit_unsigned_entries", "Entries of the audit log behind the last signed checkpoint."
        )
        seconds = GaugeMetricFamily(
            "synergymesh_audit_unsigned_seconds", "How long the oldest of these entries has been waiting."
        )
        waiting = GaugeMetricFamily(
            "synergymesh_audit_sink_waiting_seconds",
            "How long the oldest checkpoint has been waiting that a sink does not have.",
            labels=["sink"],
        )
        if lag is not None:
            entries.add_metric([], lag.entries)
            unsigned.add_metric([], lag.unsigned)
            seconds.add_metric([], lag.unsigned_seconds)
            for number, sink in enumerate(lag.sinks, start=1):
                # no more of its name: a command's arguments may be secret
                waiting.add_metric([f"{number}:{sink.name.partition(':')[0]}"], sink.waiting_seconds)
        yield from (entries, unsigned, seconds, waiting)


def exposition(figures: MeshFigures, audit: AuditLag | None) -> str:
    """Give the metrics as text.

    Args:
        figures: of the mesh.
        audit: how far the audit log is signed; None if that cannot be told, and is left out then.
    """
    return generate_latest(_Families(figures, audit)).decode()


def _buckets(durations: Durations) -> tuple[list[tuple[str, float]], float]:
    """Give the cumulative counts by upper bound, and the sum in seconds; right within the width of a bucket."""
    counts = sorted((bounds_of(bucket)[1] / 1e6, count) for bucket, count in durations.counts.items())
    cumulated: list[tuple[str, float]] = []
    seen, place = 0, 0
    for bound in BOUNDS_SECONDS:
        while place < len(counts) and counts[place][0] <= bound:
            seen += counts[place][1]
            place += 1
        cumulated.append((str(bound), seen))
    cumulated.append(("+Inf", durations.count))
    return cumulated, durations.sum / 1e6
