"""When people are told that something is wrong, and that it is over: once each, not at every look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from synergymesh.domain.instants import Instant

LOOKS_UNTIL_RESOLVED = 2
"""A condition that was away for one look only is still the same trouble."""


class Severity(StrEnum):
    """Name how bad something is: `critical` stops everybody's work, `warning` harms a tenant."""

    WARNING = "warning"
    CRITICAL = "critical"


class AlertState(StrEnum):
    """Name what an alert says."""

    RAISED = "raised"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """Describe something that is wrong now.

    Attributes:
        kind: a stable name: database_not_writable, audit_log_not_signed, internal_error, tenant_failing,
            tenant_degraded, error_budget_burns.
        tenant_id: whose, None for the mesh's.
        severity: how bad it is.
        summary: in one line, for people.
    """

    kind: str
    tenant_id: str | None
    severity: Severity
    summary: str

    @property
    def key(self) -> str:
        """Name the trouble: the same as long as it lasts."""
        return self.kind if self.tenant_id is None else f"{self.kind}/{self.tenant_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """Say that something went wrong, or that it is over.

    Attributes:
        number: counts up from 1 as long as the process lives.
        key: the same for a trouble and its end.
        at: nanoseconds since 1970.
    """

    number: int
    state: AlertState
    key: str
    kind: str
    tenant_id: str | None
    severity: Severity
    summary: str
    at: Instant


class AlertBook:
    """Remember what was told, and give what is new."""

    def __init__(self) -> None:
        self._standing: dict[str, Condition] = {}
        self._away: dict[str, int] = {}
        self._number = 0

    @property
    def standing(self) -> Mapping[str, Condition]:
        """Give what is wrong and was told, by key."""
        return dict(self._standing)

    def look(self, conditions: Mapping[str, Condition], now: Instant) -> list[Alert]:
        """Compare what is wrong now with what was told.

        Args:
            conditions: by key.
            now: the present.

        Returns:
            what is new, or worse or less bad than told, and what is over.
        """
        alerts = []
        for key, condition in conditions.items():
            self._away.pop(key, None)
            told = self._standing.get(key)
            if told is None or told.severity is not condition.severity:
                alerts.append(self._alert(AlertState.RAISED, condition, now))
            self._standing[key] = condition
        for key in [key for key in self._standing if key not in conditions]:
            self._away[key] = self._away.get(key, 0) + 1
            if self._away[key] >= LOOKS_UNTIL_RESOLVED:
                del self._away[key]
                alerts.append(self._alert(AlertState.RESOLVED, self._standing.pop(key), now))
        return alerts

    def _alert(self, state: AlertState, condition: Condition, now: Instant) -> Alert:
        self._number += 1
        return Alert(
            number=self._number,
            state=state,
            key=condition.key,
            kind=condition.kind,
            tenant_id=condition.tenant_id,
            severity=condition.severity,
            summary=condition.summary,
            at=now,
        )
