"""How a tenant is doing: healthy, degraded, failing or idle, with the reasons."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from synergymesh.domain.observability.tallies import Tally

EXECUTIONS_MIN = 5
"""Fewer executions in an hour say nothing about a share."""

FAILING_BELOW_PERCENT = 50.0
"""A tenant for which more than every other task fails is failing, whatever was promised to it."""

WAIT_SECONDS_MAX = 60.0
"""Waits in the queue beyond this degrade a tenant: it is the time in which a priority ages by one level."""


class Health(StrEnum):
    """Name how a tenant is doing."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    FAILING = "failing"
    IDLE = "idle"


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """Say how a tenant is doing, and why; a healthy or idle one has no reasons unless it is suspended."""

    health: Health
    reasons: tuple[str, ...]


def diagnose(
    last_hour: Tally,
    *,
    running: int,
    waiting: int,
    sla_percent: float,
    suspended: bool,
    open_breakers: int = 0,
    longest_wait_seconds: float = 0.0,
) -> Diagnosis:
    """Judge a tenant by its last hour.

    Args:
        last_hour: its counts in the last sixty minutes.
        running, waiting: its tasks now.
        sla_percent: what its tier promises.
        suspended: whether nothing of it may start.
        open_breakers: components that are not tried, or only tried now and then, because they fail too often.
        longest_wait_seconds: how long the task has been waiting that could have started first, and has not.
    """
    failing: list[str] = []
    degraded: list[str] = []
    executions = last_hour.executions
    if executions >= EXECUTIONS_MIN:
        percent = last_hour.success_percent
        said = f"{percent:.2f} % of {executions:,} executions in the last hour succeeded"
        if percent < FAILING_BELOW_PERCENT:
            failing.append(said)
        elif percent < sla_percent:
            degraded.append(f"{said}; its tier promises {sla_percent:g} %")
    (wait,) = last_hour.wait.percentiles(95)
    if wait / 1e6 > WAIT_SECONDS_MAX:
        degraded.append(f"5 % of its tasks waited longer than {wait / 1e6:.0f} s in the queue")
    if longest_wait_seconds > WAIT_SECONDS_MAX:
        degraded.append(f"a task that could start has been waiting for {longest_wait_seconds:.0f} s")
    if open_breakers:
        degraded.append(f"{open_breakers} of its circuit breakers are open")
    if suspended:
        degraded.append("it is suspended: nothing of it starts")
    if failing:
        return Diagnosis(health=Health.FAILING, reasons=(*failing, *degraded))
    if not executions and not running and not waiting:
        return Diagnosis(health=Health.IDLE, reasons=tuple(degraded))
    if degraded:
        return Diagnosis(health=Health.DEGRADED, reasons=tuple(degraded))
    return Diagnosis(health=Health.HEALTHY, reasons=())
