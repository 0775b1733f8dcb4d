"""Why a task is not running: the reason codes, what to do about each, and the answer that users get."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from synergymesh.domain.instants import Instant


class Reason(StrEnum):
    """Name what a task or a submission waits for."""

    DEPENDENCY = "dependency"
    RETRY_DELAY = "retry_delay"
    RATE_LIMIT = "rate_limit"
    HOUR_LIMIT = "hour_limit"
    CONCURRENCY = "concurrency"
    MEMORY = "memory"
    CPU = "cpu"
    FAIR_SHARE = "fair_share"
    CAPACITY = "capacity"
    CIRCUIT_OPEN = "circuit_open"
    PAUSED = "paused"
    BACKLOG = "backlog"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """Say in one line each what a reason means and what to do about it."""

    meaning: str
    remedy: str


REMEDIES: Mapping[Reason, Remedy] = MappingProxyType(
    {
        Reason.DEPENDENCY: Remedy(
            meaning="A task that this one depends on has not ended.",
            remedy="Look at the task it waits for; remove the dependency if the result is not needed.",
        ),
        Reason.RETRY_DELAY: Remedy(
            meaning="The moment from which it may start has not come: a retry, or a run submitted for later.",
            remedy="Wait, or shorten the delays of the component's retry policy.",
        ),
        Reason.RATE_LIMIT: Remedy(
            meaning="The tenant submits faster than its rate; the submission was refused.",
            remedy="Submit again after `retry_after` seconds, spread submissions, or raise rate_limit_per_second.",
        ),
        Reason.HOUR_LIMIT: Remedy(
            meaning="The tenant has started as many tasks as it may in a rolling hour.",
            remedy="Wait until the moment shown, or raise max_tasks_per_hour.",
        ),
        Reason.CONCURRENCY: Remedy(
            meaning="The tenant runs as many tasks as it may at a time.",
            remedy="Wait until one of its tasks ends, or raise max_concurrent_tasks (or the throttle).",
        ),
        Reason.MEMORY: Remedy(
            meaning="The memory of the tenant's running tasks leaves too little for this one.",
            remedy="Lower the task's memory_mb, or raise max_memory_mb; beyond the limit it never starts.",
        ),
        Reason.CPU: Remedy(
            meaning="The CPUs of the tenant's running tasks leave too little for this one.",
            remedy="Lower the task's cpus, or raise max_cpu_percent; beyond the limit it never starts.",
        ),
        Reason.FAIR_SHARE: Remedy(
            meaning="Others go first: more urgent tasks of the same tenant, or tenants that had less of their share.",
            remedy="Wait for its turn; raise the run's priority in its tenant, or the tenant's weight.",
        ),
        Reason.CAPACITY: Remedy(
            meaning="The slots, the memory or the CPUs of this scheduler are taken, or kept for others.",
            remedy="Wait until a task of any tenant ends, or add capacity.",
        ),
        Reason.CIRCUIT_OPEN: Remedy(
            meaning="The component, or what its task names as its breaker, failed so often that it is not tried now.",
            remedy="Repair what it calls: it is tried again at the moment shown. Or reset the breaker.",
        ),
        Reason.PAUSED: Remedy(
            meaning="The run, its workflow or its tenant was paused (a tenant: suspended).",
            remedy="Resume what the line names: `synergymesh unpause`, or `synergymesh tenants resume`.",
        ),
        Reason.BACKLOG: Remedy(
            meaning="So many runs of the tenant wait in front of this one that it is not looked at yet.",
            remedy="Wait for its turn; a higher priority of the run puts it further ahead.",
        ),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocker:
    """Say what keeps a task from starting.

    Attributes:
        reason: the code.
        level: the tenant or sub-tenant whose limit it is; empty for the whole capacity.
        resource: what is short: slots, memory_mb, cpu_millis, starts_per_hour, or tasks (those that go first).
        limit: how much there is of it; None where that has no meaning.
        used: how much is taken (or kept for another task).
        asked: how much the task takes.
        until: when it will be gone, if that is known.
    """

    reason: Reason
    level: str = ""
    resource: str = ""
    limit: int | None = None
    used: int | None = None
    asked: int | None = None
    until: Instant | None = None

    @property
    def remedy(self) -> str:
        """Say what to do about it."""
        return REMEDIES[self.reason].remedy

    @property
    def is_hopeless(self) -> bool:
        """Tell whether no waiting helps: more is asked than the limit as such."""
        return (
            self.limit is not None and self.asked is not None and self.asked > self.limit and self.resource != "tasks"
        )

    def __str__(self) -> str:
        """Say it in a line."""
        parts = [self.reason.value]
        if self.level:
            parts.append(f"of {self.level}")
        if self.resource:
            figures = [
                f"{name} {value:,}"
                for name, value in (("limit", self.limit), ("used", self.used), ("asked", self.asked))
                if value is not None
            ]
            parts.append(f"({self.resource}: {', '.join(figures)})")
        return " ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Answer why a task is not running.

    Attributes:
        blockers: in the order in which they are looked at; none if it starts at the next decision, or is not waiting.
        position: its place among the waiting tasks of its tenant, 1 for the head; None if it is not in the queue.
        estimated_start: from learnt durations and what runs; None if that is not known.
    """

    blockers: Sequence[Blocker]
    position: int | None
    estimated_start: Instant | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Hold what an estimate is made from.

    Attributes:
        ends: when the running tasks that have to end first are expected to end; None for one that is not known.
        duration_ns: what a task of this queue takes; None if nothing was learnt.
        parallel: how many of its tasks run at a time.
    """

    ends: Sequence[Instant | None]
    duration_ns: int | None
    parallel: int


def estimate_start(blockers: Sequence[Blocker], ahead: int, pace: Pace, now: Instant) -> Instant | None:
    """Give when a task will probably start, or None: without learnt figures there is no honest answer.

    Args:
        blockers: what blocks it.
        ahead: how many tasks of its queue go first.
        pace: what was learnt.
        now: the present.
    """
    start = now
    waits_for_an_end = False
    for blocker in blockers:
        match blocker.reason:
            case Reason.RETRY_DELAY | Reason.HOUR_LIMIT | Reason.CIRCUIT_OPEN if blocker.until is not None:
                start = max(start, blocker.until)
            case Reason.CONCURRENCY | Reason.MEMORY | Reason.CPU | Reason.CAPACITY if not blocker.is_hopeless:
                waits_for_an_end = True
            case Reason.FAIR_SHARE:
                pass
            case _:
                return None
    if waits_for_an_end:
        known = [end for end in pace.ends if end is not None]
        if not known or len(known) < len(pace.ends):
            return None
        start = max(start, min(known))
    if ahead:
        if pace.duration_ns is None or not pace.parallel:
            return None
        start += ahead * pace.duration_ns // pace.parallel
    return start


def format_reasons() -> str:
    """Give the table of all reason codes as Markdown, for the docs."""
    lines = ["| reason | what it means | what to do |", "|---|---|---|"]
    lines += [f"| `{reason}` | {remedy.meaning} | {remedy.remedy} |" for reason, remedy in REMEDIES.items()]
    return "\n".join(lines) + "\n"
