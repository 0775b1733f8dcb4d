"""Service levels: what a tier promises, what was kept, what of the error budget is left and how fast it burns.

Beyer et al., "The Site Reliability Workbook" (2018), chapter 5: a burn rate of 1 uses the whole error budget up in just
the span that it is meant for.
"""

from __future__ import annotations

from dataclasses import dataclass

from synergymesh.domain.observability.tallies import Tally

SPANS_SECONDS = {"1h": 3_600, "24h": 86_400, "30d": 30 * 86_400}
"""The spans of a report, shortest first."""


BURN_RATE_MAX = 1_000_000.0
"""Stands for the failures of a tenant that was promised none: JSON has no infinity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceLevel:
    """Compare a span with a target. An execution that fails or times out counts against it; cancelled ones do not.

    Attributes:
        span: `1h`, `24h` or `30d`.
        executions, failed: in the span.
        success_percent: 100 if there was none.
        target_percent: what is promised.
        budget: failures that the target allows for so many executions.
        budget_left: of that, 0 to 1; below 0 if more has failed.
        burn_rate: how many times faster than allowed executions fail; 0 if there was none.
        is_kept: whether success_percent reaches the target.
    """

    span: str
    executions: int
    failed: int
    success_percent: float
    target_percent: float
    budget: float
    budget_left: float
    burn_rate: float
    is_kept: bool


def service_level(span: str, tally: Tally, target_percent: float) -> ServiceLevel:
    """Judge a span by its counts.

    A target of 100 % has no budget: the first failure overdraws it by the whole of itself.
    """
    executions, failed = tally.executions, tally.failed
    allowed = (100.0 - target_percent) / 100.0
    budget = executions * allowed
    share = failed / executions if executions else 0.0
    return ServiceLevel(
        span=span,
        executions=executions,
        failed=failed,
        success_percent=tally.success_percent,
        target_percent=target_percent,
        budget=budget,
        budget_left=1.0 - failed / budget if budget else (1.0 if not failed else -float(failed)),
        burn_rate=share / allowed if allowed else (0.0 if not failed else BURN_RATE_MAX),
        is_kept=tally.success_percent >= target_percent,
    )
