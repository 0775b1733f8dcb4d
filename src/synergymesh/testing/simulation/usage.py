"""What runs, and what it may use: the limits that are in force, and who holds how much of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from synergymesh.domain.instants import SECOND, Instant
from synergymesh.domain.quota import ResourceQuota
from synergymesh.domain.scheduling.limits import MINUTE
from synergymesh.ports.executor import Call
from synergymesh.testing.simulation.history import History

HOUR = 3_600 * SECOND

Token = tuple[str, str, int]
"""An attempt: run, component, number."""


def token_of(call: Call) -> Token:
    """Name an attempt."""
    context = call.context
    return context.run_id, context.task_id, context.attempt


class Usage:
    """Follow what runs, and check every start against the limits.

    A limit that is being changed may be the old one or the new one until the change is acknowledged; what the scheduler
    had chosen before that may start after it.

    Attributes:
        under_way: calls that executors hold, by their tokens.
        checks_hours: whether starts are counted by the minute: not while the clock jumps.
        starts: of this and earlier lives, by tenant.
    """

    def __init__(self, history: History, fail: Callable[[str, str], None], slots: int) -> None:
        self.under_way: dict[Token, Call] = {}
        self.checks_hours = True
        self.starts: dict[str, list[Instant]] = defaultdict(list)
        self._history = history
        self._fail = fail
        self._slots = slots
        self._quotas: dict[str, list[ResourceQuota]] = {}

    # --- limits -----------------------------------------------------------------------------------------------------

    def begin_life(self, quotas: dict[str, ResourceQuota]) -> None:
        """Begin with what the store says: nothing runs."""
        self.under_way.clear()
        self._quotas = {tenant_id: [quota] for tenant_id, quota in quotas.items()}

    def made(self, tenant_id: str, quota: ResourceQuota) -> None:
        """Take note of the quota of a new tenant; it may have been changed since, if its maker was told late."""
        self._quotas.setdefault(tenant_id, []).append(quota)

    def changing(self, tenant_id: str, quota: ResourceQuota) -> None:
        """Expect that a quota may be in force from now on."""
        self._quotas.setdefault(tenant_id, []).append(quota)

    def changed(self, tenant_id: str, quota: ResourceQuota) -> None:
        """Take note that a quota is in force.

        What was asked for later may be in force as well: who asked first is not always told first.
        """
        known = self._quotas.get(tenant_id, [])
        asked = next((number for number, each in enumerate(known) if each is quota), len(known))
        self._quotas[tenant_id] = known[asked:] or [quota]

    # --- starts and ends --------------------------------------------------------------------------------------------

    def handed(self, call: Call, started_at: Instant, *, excused: bool) -> None:
        """Check a start; one that is excused was chosen under other limits."""
        token = token_of(call)
        if token in self.under_way:
            self._fail("I3", f"{token} is started twice")
        self.under_way[token] = call
        tenant_id = call.context.tenant_id
        family = self._history.family(tenant_id)
        if not excused:
            if len(self.under_way) > self._slots:
                self._fail("I6", f"{len(self.under_way)} tasks run, {self._slots} may")
            for member in family:
                self._check(member)
        if self.checks_hours:
            for member in family:
                self._check_hour(member, started_at)

    def reported(self, call: Call) -> None:
        """Take note that an attempt holds its slot no longer."""
        self.under_way.pop(token_of(call), None)

    def _check(self, tenant_id: str) -> None:
        quotas = self._quotas.get(tenant_id)
        if quotas is None:
            return
        running, memory_mb = self.used(tenant_id)
        if running > max(quota.max_concurrent_tasks for quota in quotas):
            self._fail("I6", f"{running} tasks of {tenant_id} run, {quotas} allow fewer")
        if memory_mb > max(quota.max_memory_mb for quota in quotas):
            self._fail("I6", f"tasks of {tenant_id} take {memory_mb} MiB, {quotas} allow fewer")

    def _check_hour(self, tenant_id: str, started_at: Instant) -> None:
        starts = self.starts[tenant_id]
        starts.append(started_at)
        minute = started_at // MINUTE
        in_minute = sum(1 for start in starts if start // MINUTE == minute)
        reserved = self._history.reserved[tenant_id, minute]
        if in_minute > reserved:
            self._fail("I6", f"{in_minute} starts of {tenant_id} in a minute for which {reserved} are written down")
        limit = max((quota.max_tasks_per_hour for quota in self._quotas.get(tenant_id, ())), default=0)
        in_hour = sum(1 for start in starts if start > started_at - HOUR)
        if limit and in_hour > limit:
            self._fail("I6", f"{in_hour} starts of {tenant_id} in an hour, {limit} are allowed")

    def used(self, tenant_id: str) -> tuple[int, int]:
        """Count what a tenant and its sub-tenants run, and the memory that this takes."""
        running = memory_mb = 0
        for call in self.under_way.values():
            if tenant_id in self._history.family(call.context.tenant_id):
                running += 1
                run = self._history.runs[call.context.run_id]
                memory_mb += run.components[call.context.task_id].memory_mb or 0
        return running, memory_mb
