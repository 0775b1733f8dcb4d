"""Looks now and then for what people should be told of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence

from synergymesh.domain.observability.alerts import Alert, AlertBook, Condition, Severity
from synergymesh.domain.observability.health import EXECUTIONS_MIN, Health
from synergymesh.domain.observability.service_levels import service_level
from synergymesh.domain.tenants import Tenant
from synergymesh.engine.background import Background
from synergymesh.engine.committer import Committer
from synergymesh.engine.observability.monitoring import Monitoring
from synergymesh.engine.observability.statistics import Statistics
from synergymesh.engine.tenants import Tenants
from synergymesh.ports.clock import Clock

LOOK_SECONDS = 15.0

TENANTS_PER_TURN = 25
"""Tenants that are looked at before the event loop has its turn again: a few milliseconds if all of them are active."""

BURN_RATE_MAX = 14.4
"""An error budget of thirty days is used up in two then (The Site Reliability Workbook, chapter 5)."""


class Alerts:
    """Watch the database, and the tenants that did something in the last hour, wait, or have an open breaker.

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

    async def look(self) -> None:
        """Tell what is new; so many tenants are looked at in a turn that nothing else waits."""
        conditions = {condition.key: condition for condition in self._conditions_of_mesh()}
        await self._statistics.take_in_turns()
        breakers = self._monitoring.open_breakers()
        looked_at = set(self._statistics.active()) | breakers.keys()
        for place, tenant in enumerate(self._tenants, start=1):
            if tenant.tenant_id in looked_at or self._monitoring.waits(tenant.tenant_id):
                found = self._conditions_of(tenant, breakers.get(tenant.tenant_id, 0))
                conditions.update((condition.key, condition) for condition in found)
            if place % TENANTS_PER_TURN == 0:
                await asyncio.sleep(0)
        alerts = self._book.look(conditions, self._clock.now())
        if alerts:
            self._tell(alerts)

    @property
    def standing(self) -> list[Condition]:
        """Give what is wrong and was told."""
        return list(self._book.standing.values())

    def _conditions_of_mesh(self) -> Iterator[Condition]:
        failure = self._committer.failure
        if failure is not None:
            summary = f"the database could not be written: {failure}"
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

    def _conditions_of(self, tenant: Tenant, open_breakers: int) -> Iterator[Condition]:
        tenant_id = tenant.tenant_id
        if self._tenants.find(tenant_id) is None:
            return  # deleted while others were looked at
        last_hour = self._statistics.last_hour(tenant_id)
        diagnosis = self._monitoring.diagnosis(tenant_id, last_hour, open_breakers)
        if diagnosis.health in (Health.FAILING, Health.DEGRADED):
            yield Condition(
                kind=f"tenant_{diagnosis.health.value}",
                tenant_id=tenant_id,
                severity=Severity.WARNING,
                summary=f"{tenant.tenant_name} is {diagnosis.health.value}: {'; '.join(diagnosis.reasons)}",
            )
        level = service_level("1h", last_hour, tenant.sla_uptime_percent)
        if level.executions >= EXECUTIONS_MIN and level.burn_rate >= BURN_RATE_MAX:
            yield Condition(
                kind="error_budget_burns",
                tenant_id=tenant_id,
                severity=Severity.WARNING,
                summary=f"{tenant.tenant_name} burns its error budget {level.burn_rate:.0f} times too fast: "
                f"{level.failed:,} of {level.executions:,} executions failed in the last hour, and its tier "
                f"promises {level.target_percent:g} %",
            )
