"""Limits that submissions run into, for the audit log: the first one of a minute at once, the others counted."""

from __future__ import annotations

import msgspec

from synergymesh.domain.audit.actions import Action, Outcome
from synergymesh.domain.instants import Instant
from synergymesh.domain.scheduling.limits import MINUTE
from synergymesh.engine.acting import current_actor
from synergymesh.engine.committer import Answer, Committer
from synergymesh.errors import BacklogFull, Denied, FeatureNotEnabled, RateLimitExceeded
from synergymesh.ports.changes import Noted
from synergymesh.ports.clock import Clock

REASONS: dict[type[Denied], str] = {
    RateLimitExceeded: "rate_limit",
    BacklogFull: "backlog_full",
    FeatureNotEnabled: "feature",
}
"""What refuses submissions, named beside the limits that hold tasks (`domain.scheduling.explain.Reason`)."""


class LimitHits:
    """Record that tenants ran into limits, at most twice a minute for each tenant and reason.

    Attributes:
        counts: of refused submissions since the process started, by tenant and reason.
    """

    def __init__(self, committer: Committer, clock: Clock) -> None:
        self.counts: dict[str, dict[str, int]] = {}
        self._committer = committer
        self._clock = clock
        self._minute = 0
        self._further: dict[tuple[str, str], int] = {}
        self._last_number = 0

    def hit(self, tenant_id: str, denied: Denied) -> None:
        """Record, or count, that a submission was denied."""
        self.count(tenant_id, REASONS.get(type(denied), denied.code))
        now = self._clock.now()
        self.flush(now)
        key = (tenant_id, denied.code)
        further = self._further.get(key)
        if further is None:
            self._further[key] = 0
            self._note(key, 1, now, named=True)
        else:
            self._further[key] = further + 1

    def count(self, tenant_id: str, reason: str) -> None:
        """Count that something was refused, for the metrics alone."""
        counts = self.counts.setdefault(tenant_id, {})
        counts[reason] = counts.get(reason, 0) + 1

    def flush(self, now: Instant) -> None:
        """Record what was counted in a minute that is over."""
        minute = now // MINUTE
        if minute != self._minute:
            self.close(now)
            self._minute = minute

    def close(self, now: Instant) -> None:
        """Record what was counted until now."""
        counted, self._further = self._further, {}
        for key, further in counted.items():
            if further:
                self._note(key, further, now, named=False)

    def _note(self, key: tuple[str, str], count: int, now: Instant, *, named: bool) -> None:
        tenant_id, reason = key
        self._last_number = number = max(now, self._last_number + 1)
        details = msgspec.json.encode({"count": count, "minute": self._minute * MINUTE})
        note = Noted(
            tenant_id,
            Action.LIMIT_HIT,
            f"limit/{reason}",
            number,
            Outcome.DENIED,
            now,
            details,
            current_actor() if named else None,
        )
        self._committer.put([note], _whatever)


def _whatever(answer: Answer) -> None:
    """Do nothing: it was denied, whether or not that could be recorded."""
