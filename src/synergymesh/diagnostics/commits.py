"""How long commits take, as far as the process that executes a database says it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from synergymesh.errors import SynergyMeshError
from synergymesh.local.client import connect
from synergymesh.local.verbs import METRICS_TEXT

METRIC = "synergymesh_commit_duration_seconds"


@dataclass(frozen=True, slots=True)
class CommitTimes:
    """Say how long the commits of a process took, since it began.

    Attributes:
        commits: how many there were.
        seconds_mean: of each.
        seconds_p95: 95 of 100 took at most so long, as far as the buckets tell; None beyond the last.
    """

    commits: int
    seconds_mean: float
    seconds_p95: float | None


async def read_commit_times(path: Path | None) -> CommitTimes | None:
    """Ask the process that executes a database; None if none answers, or there was no commit."""
    try:
        remote = None if path is None else await connect(path)
        if remote is None:
            return None
        try:
            return commit_times(await remote.ask(METRICS_TEXT))
        finally:
            await remote.close()
    except (SynergyMeshError, OSError):
        return None


def commit_times(text: str) -> CommitTimes | None:
    """Read the figures from metrics in Prometheus' text format."""
    samples = [
        sample for family in text_string_to_metric_families(text) if family.name == METRIC for sample in family.samples
    ]
    values = {sample.name: sample.value for sample in samples}
    commits = int(values.get(f"{METRIC}_count", 0))
    if not commits:
        return None
    buckets = sorted((float(s.labels["le"]), s.value) for s in samples if s.name == f"{METRIC}_bucket")
    p95 = next(bound for bound, count in buckets if count >= 0.95 * commits)  # the last one has all
    return CommitTimes(commits, values[f"{METRIC}_sum"] / commits, p95 if math.isfinite(p95) else None)
