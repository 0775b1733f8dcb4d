"""Looks now and then for what people should be told of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from synergymesh.domain.observability.alerts import Alert, AlertBook, Condition, Severity
from synergymesh.domain.observability.health import EXECUTIONS_MIN, Health
from synergymesh.domain.observability.service_levels import service_level
from synergymesh.engine.background import Background
from synergymesh.engine.committer import Committer
from synergymesh.engine.observability.monitoring import Monitoring
from synergymesh.engine.observability.statistics import Statistics
from synergymesh.engine.tenants import Tenants
from synergymesh.ports.clock import Clock

LOOK_SECONDS = 15.0

BURN_RATE_MAX = 14.4
"""An error budget of thirty days is used up in two then (The Site Reliability Workbook, chapter 5)."""


class Alerts:
    """Watch the database and the tenants that did something in the last hour.

    Args:
        tell: is called with what is new.
    """

    def __init__(
        self,
        monitoring: Monitoring,
        statistics: Statistics,
        tenants: Tenants,
        committer: Committer,
        background: Background,
        clock: Clock,
        tell: Callable[[Sequence[Alert]], None],
    ) -> None:
        self._monitoring = monitoring
        self._statistics = statistics
        self._tenants = tenants
        self._committer = committer
        self._background = background
        self._clock = clock
        self._tell = tell
        self._book = AlertBook()

    def look(self) -> None:
        """Tell what is new."""
        conditions = {condition.key: condition for condition in self._conditions()}
        alerts = self._book.look(conditions, self._clock.now())
        if alerts:
            self._tell(alerts)

    @property
    def standing(self) -> list[Condition]:
        """Give what is wrong and was told."""
        return list(self._book.standing.values())

    def _conditions(self) -> Iterator[Condition]:
        trouble = self._committer.trouble
        if trouble is not None:
            summary = f"the database cannot be written: {trouble}"
            yield Condition(kind="database_not_writable", tenant_id=None, severity=Severity.CRITICAL, summary=summary)
        unsigned = self._monitoring.signing_trouble()
        if unsigned is not None:
            summary = f"the audit log cannot be signed, so what is recorded is not proved by anything: {unsigned}"
            yield Condition(kind="audit_log_not_signed", tenant_id=None, severity=Severity.CRITICAL, summary=summary)
        recent = self._background.recent
        if recent:
            told = "; ".join(f"{work}: {fault.error}" for work, fault in sorted(recent.items()))
            summary = f"errors inside of SynergyMesh, the log has their tracebacks: {told}"
            yield Condition(kind="internal_error", tenant_id=None, severity=Severity.WARNING, summary=summary)
        for tenant_id in self._statistics.active():
            tenant = self._tenants.find(tenant_id)
            if tenant is None:
                continue
            diagnosis = self._monitoring.diagnosis(tenant_id)
            if diagnosis.health in (Health.FAILING, Health.DEGRADED):
                yield Condition(
                    kind=f"tenant_{diagnosis.health.value}",
                    tenant_id=tenant_id,
                    severity=Severity.WARNING,
                    summary=f"{tenant.tenant_name} is {diagnosis.health.value}: {'; '.join(diagnosis.reasons)}",
                )
            level = service_level("1h", self._statistics.last_hour(tenant_id), tenant.sla_uptime_percent)
            if level.executions >= EXECUTIONS_MIN and level.burn_rate >= BURN_RATE_MAX:
                yield Condition(
                    kind="error_budget_burns",
                    tenant_id=tenant_id,
                    severity=Severity.WARNING,
                    summary=f"{tenant.tenant_name} burns its error budget {level.burn_rate:.0f} times too fast: "
                    f"{level.failed:,} of {level.executions:,} executions failed in the last hour, and its tier "
                    f"promises {level.target_percent:g} %",
                )
