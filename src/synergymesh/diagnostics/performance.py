"""Examines where the time of runs went, and what would help."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from synergymesh.diagnostics.commits import CommitTimes
from synergymesh.domain.graphs.graph import Graph
from synergymesh.domain.graphs.recommendations import duration
from synergymesh.domain.observability.timeline import QUEUED, Lane, Phase, Timeline
from synergymesh.domain.states import ExecutionStatus

SLOWEST = 10
"""Components that are named."""

SLOW_COMMIT_SECONDS = 0.05
"""Ten times what a disk that writes through at once takes."""

SHARE_MIN = 0.1
SECONDS_MIN = 0.1
"""What takes less than a tenth of the time, or of a second, is not worth a word."""

FAILED = (ExecutionStatus.FAILED, ExecutionStatus.TIMEOUT)

WAIT_REMEDIES = {
    Phase.QUEUE: "`synergymesh why RUN` says what holds them.",
    Phase.CONCURRENCY: "raise max_concurrent_tasks of the tenant, or take back its throttle.",
    Phase.MEMORY: "raise max_memory_mb of the tenant, or lower memory_mb of the tasks to what they take.",
    Phase.CPU: "raise max_cpu_percent of the tenant, or lower cpus of the tasks to what they take.",
    Phase.HOUR_LIMIT: "raise max_tasks_per_hour of the tenant, or put small tasks together.",
    Phase.CAPACITY: "give all tenants more slots, memory or CPUs, or this one a larger weight or its run a priority.",
    Phase.CIRCUIT_OPEN: "repair what they call (`synergymesh breakers`), or let its breaker try again sooner.",
    Phase.PAUSED: "the tenant was suspended.",
    Phase.COMMIT: 'put the database on a faster disk, or set synchronous to "normal".',
}


@dataclass(frozen=True, slots=True)
class SlowComponent:
    """Describe what a component took, over all runs that were looked at; seconds.

    Attributes:
        workflow: the workflow's name.
        component_id: the component.
        runs: in how many runs it was executed.
        attempts: how many there were.
        ran: all attempts together.
        failed: the part of it that failed attempts took.
        queued: how long it could have run and did not.
        critical: in how many runs it was on the critical path.
    """

    workflow: str
    component_id: str
    runs: int
    attempts: int
    ran: float
    failed: float
    queued: float
    critical: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Performance:
    """Say where the time of one or many runs went; all in seconds.

    Attributes:
        runs: how many were looked at.
        seconds: their length, all together.
        best: how long they would have taken had every task begun at the end of its dependencies, and succeeded.
        planned: how long they would have taken with the weights of their definitions; 0 for many runs.
        critical: what the critical paths, as they really were, spent by phase.
        tasks: what all tasks spent by phase.
        failed: what failed attempts took, of all tasks.
        behind: from the end of the last task to the end of the run: the last commit.
        path: the critical path of the run; empty for many.
        planned_path: the longest path by the weights of the definition; empty for many.
        slowest: the components that ran longest in all.
        advice: what would help, with what it would save.
        commits: how long those of the process took that executes the database now; None if none says so.
    """

    runs: int
    seconds: float
    best: float
    planned: float
    critical: dict[Phase, float]
    tasks: dict[Phase, float]
    failed: float
    behind: float
    path: tuple[str, ...]
    planned_path: tuple[str, ...]
    slowest: tuple[SlowComponent, ...]
    advice: tuple[str, ...]
    commits: CommitTimes | None = None


def with_commits(performance: Performance, commits: CommitTimes | None) -> Performance:
    """Add how long commits take, and what to do when that is long."""
    advice = performance.advice
    if commits is not None and commits.seconds_mean > SLOW_COMMIT_SECONDS:
        advice = (
            *advice,
            f"A commit takes {duration(commits.seconds_mean)}, and each task waits for the one before it: put the "
            f'database on a faster disk, or set synchronous to "normal".',
        )
    return replace(performance, commits=commits, advice=advice)


def examine_run(timeline: Timeline, graph: Graph) -> Performance:
    """Examine one run.

    Args:
        timeline: of the run.
        graph: of its definition, with the weights that were planned.
    """
    planned = [graph.component_ids[position] for position in graph.critical_path()]
    return _examine(
        [timeline],
        [_best(timeline, graph)],
        planned=max(graph.upward_ranks(), default=0.0),
        path=tuple(step.task_id for step in timeline.critical_path),
        planned_path=tuple(planned),
    )


def examine_runs(timelines: Sequence[Timeline], graphs: Sequence[Graph]) -> Performance:
    """Examine many runs together.

    Args:
        timelines: of the runs.
        graphs: of their definitions, in the same order.
    """
    best = [_best(timeline, graph) for timeline, graph in zip(timelines, graphs, strict=True)]
    return _examine(timelines, best, planned=0.0, path=(), planned_path=())


def _best(timeline: Timeline, graph: Graph) -> float:
    """Give the longest path by what the last attempts took; behind it what undid tasks, one after the other."""
    finish = [0.0] * len(graph)
    for position in graph.topological_order():
        begin = max((finish[before] for before in graph.dependencies[position]), default=0.0)
        finish[position] = begin + _last_seconds(timeline.lanes[position])
    return max(finish, default=0.0) + sum(_last_seconds(lane) for lane in timeline.lanes[len(graph) :])


def _last_seconds(lane: Lane) -> float:
    """Give what a task's last attempt took."""
    return next((span.seconds for span in reversed(lane.spans) if span.phase is Phase.RUNNING), 0.0)


def _examine(
    timelines: Sequence[Timeline],
    best: Sequence[float],
    *,
    planned: float,
    path: tuple[str, ...],
    planned_path: tuple[str, ...],
) -> Performance:
    critical = _sum([timeline.critical_totals() for timeline in timelines])
    tasks = _sum([timeline.totals() for timeline in timelines])
    components = _components(timelines)
    seconds = sum(timeline.seconds for timeline in timelines)
    behind = sum(timeline.seconds - max(lane.end for lane in timeline.lanes) for timeline in timelines)
    slowest = tuple(sorted(components, key=lambda each: -each.ran)[:SLOWEST])
    failed = sum(each.failed for each in components)
    performance = Performance(
        runs=len(timelines),
        seconds=seconds,
        best=sum(best),
        planned=planned,
        critical=critical,
        tasks=tasks,
        failed=failed,
        behind=behind,
        path=path,
        planned_path=planned_path,
        slowest=slowest,
        advice=(),
    )
    return _with_advice(performance, timelines)


def _components(timelines: Sequence[Timeline]) -> list[SlowComponent]:
    found: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0] * 6)
    for timeline in timelines:
        for lane in timeline.lanes:
            runs = [span for span in lane.spans if span.phase is Phase.RUNNING]
            queued = sum(map(lane.seconds, QUEUED))
            if not runs and not queued:
                continue
            figures = found[timeline.workflow, lane.task_id]
            figures[0] += bool(runs)
            figures[1] += len(runs)
            figures[2] += sum(span.seconds for span in runs)
            figures[3] += sum(span.seconds for span in runs if span.status in FAILED)
            figures[4] += queued
            figures[5] += lane.critical
    return [
        SlowComponent(workflow, component_id, int(f[0]), int(f[1]), f[2], f[3], f[4], int(f[5]))
        for (workflow, component_id), f in found.items()
    ]


def _sum(totals: Sequence[dict[Phase, float]]) -> dict[Phase, float]:
    return {phase: sum(each[phase] for each in totals) for phase in Phase}


# --- advice ---------------------------------------------------------------------------------------------------------


def _with_advice(performance: Performance, timelines: Sequence[Timeline]) -> Performance:
    whole = sum(performance.critical.values())
    if not whole:
        return replace(performance, advice=("No task has ended yet.",))
    critical = performance.critical
    least = max(SHARE_MIN * whole, SECONDS_MIN)
    advice = []
    advice += [
        f"Tasks of the critical path could have started {duration(critical[phase])} earlier: {remedy}"
        for phase, remedy in WAIT_REMEDIES.items()
        if critical[phase] > least
    ]
    failed = _failed_on_path(timelines)
    retries = critical[Phase.RETRY_DELAY] + failed
    if retries > least:
        advice.append(
            f"Failed attempts and the pauses behind them cost the critical path {duration(retries)}: look into "
            f"{_worst(timelines)}, or shorten its delays."
        )
    if critical[Phase.OUTAGE] > least:
        advice.append(
            f"The process was away, or tasks queued after it was, for {duration(critical[Phase.OUTAGE])}: let a "
            f"supervisor start it again at once."
        )
    running = critical[Phase.RUNNING] - failed
    if running > (1 - SHARE_MIN) * whole:
        advice.append(
            "The time went into the tasks themselves: more slots would not help; faster or split tasks would."
        )
    longest = _longest_on_path(timelines)
    if longest is not None and longest[1] > 0.5 * whole and performance.runs == 1:
        advice.append(f"{longest[0]} alone took {duration(longest[1])} of it: split it, or make it faster.")
    return replace(performance, advice=tuple(advice) or ("Nothing stands out.",))


def _failed_on_path(timelines: Sequence[Timeline]) -> float:
    return sum(s.seconds for t in timelines for step in t.critical_path for s in step.spans if s.status in FAILED)


def _longest_on_path(timelines: Sequence[Timeline]) -> tuple[str, float] | None:
    steps = [
        (step.task_id, span.seconds)
        for timeline in timelines
        for step in timeline.critical_path
        for span in step.spans
        if span.phase is Phase.RUNNING
    ]
    return max(steps, key=lambda step: step[1], default=None)


def _worst(timelines: Sequence[Timeline]) -> str:
    """Give the component whose failed attempts, with the pauses behind them, cost the critical paths most."""
    lost: dict[str, float] = defaultdict(float)
    for timeline in timelines:
        for step in timeline.critical_path:
            lost[step.task_id] += sum(s.seconds for s in step.spans if s.status in FAILED)
            lost[step.task_id] += sum(s.seconds for s in step.spans if s.phase is Phase.RETRY_DELAY)
    return max(lost, key=lost.__getitem__)
