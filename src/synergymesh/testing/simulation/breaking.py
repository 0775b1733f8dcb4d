"""Whether circuits hold back what they must: everything while one is open, most while it is tried, retries in time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from synergymesh.domain.fault_tolerance.breaker import BreakerState
from synergymesh.domain.fault_tolerance.retry_budget import BURST_MIN
from synergymesh.domain.instants import SECOND, Instant
from synergymesh.domain.states import ExecutionStatus
from synergymesh.engine.circuits import Circuits
from synergymesh.engine.live import Attempt
from synergymesh.ports.changes import AttemptFailed, BreakerChanged, Change
from synergymesh.testing.simulation.history import History
from synergymesh.testing.simulation.retrying import RETRY_LATER, error_of
from synergymesh.testing.simulation.tasks import MEAN_BUDGET
from synergymesh.testing.simulation.usage import token_of

ROUNDING = 1
"""Nanoseconds by which an alarm may seem early: the clock cuts off what an event loop has behind the nanosecond."""

Key = tuple[str, str]
"""A tenant, and the name of a breaker."""


class Breaking:
    """Follow what is recorded of circuits, and check starts and retries against it.

    Attributes:
        has_mean_budget: whether the policy of the world is `MEAN_BUDGET`.
        protected: tenants that are known to have that policy.
        has_one_clock: whether the clock of the world never jumps.
        now: gives the time by which the engine goes.
    """

    def __init__(self, history: History, fail: Callable[[str, str], None], *, has_mean_budget: bool) -> None:
        self.has_mean_budget = has_mean_budget
        self.has_one_clock = True
        self.protected: set[str] = set()
        self.now: Callable[[], Instant] = lambda: 0
        self._history = history
        self._fail = fail
        self._last: dict[Key, BreakerChanged] = {}
        self._closed_at: dict[Key, Instant] = {}
        self._closing: dict[Key, int] = defaultdict(int)
        self._retries: dict[Key, list[Instant]] = defaultdict(list)
        self._first_failure: dict[Key, Instant] = {}
        history.heard.append(self._heard)

    def begin_life(self, *, set_back: bool) -> None:
        """Go on with what is recorded, unless the clock says something else by now; budgets are full again."""
        self._retries.clear()
        self._first_failure.clear()
        self._closing.clear()
        if set_back:
            self._last.clear()
            self._closed_at.clear()

    def closing(self, tenant_id: str, name: str) -> None:
        """Expect that a circuit is closed by hand at some moment from now on, and its budget full."""
        self._closing[tenant_id, name] += 1
        self._forget((tenant_id, name))

    def closed(self, tenant_id: str, name: str) -> None:
        """Take note that whoever wanted to close a circuit is answered."""
        self._closing[tenant_id, name] -= 1
        self._forget((tenant_id, name))

    def _forget(self, key: Key) -> None:
        self._closed_at[key] = self.now()
        self._last.pop(key, None)
        self._retries.pop(key, None)
        self._first_failure.pop(key, None)

    def handed(self, call: Attempt) -> None:
        """Check a start against an open circuit."""
        key = self._key_of(call.context.run_id, call.context.task_id) if self.has_one_clock else None
        last = None if key is None or self._closing[key] > 0 else self._last.get(key)
        if (
            last is not None
            and last.state is BreakerState.OPEN
            and last.since < call.started_at < last.until - ROUNDING
        ):
            left = (last.until - call.started_at) / SECOND
            self._fail("circuit", f"{token_of(call)} starts {left:g} s before its open circuit is tried again")

    def rests(self, circuits: Circuits, under_way: list[Attempt]) -> None:
        """Check, while nothing happens, that no more canaries are out than were let in."""
        for (tenant_id, key), circuit in circuits.live.items():
            breaker = circuit.breaker
            if breaker.state is not BreakerState.HALF_OPEN:
                continue
            out = [
                token_of(call)
                for call in under_way
                if not call.settled
                and call.run.tenant_id == tenant_id
                and call.run.version.plan.circuits[call.position] == key
                and call.started_at >= breaker.since
            ]
            waves = 1 + (self.now() - breaker.since) // (breaker.policy.open_seconds * SECOND)
            if len(out) > breaker.wave * waves:
                self._fail("circuit", f"{len(out)} canaries are out, in {waves} waves of {breaker.wave}: {out}")

    def _heard(self, change: Change) -> None:
        if isinstance(change, BreakerChanged):
            key = (change.tenant_id, change.name)
            if not change.workflow and change.since > self._closed_at.get(key, -1):
                self._last[key] = change  # else it is recorded after somebody has closed it
        elif isinstance(change, AttemptFailed) and self.has_mean_budget and change.tenant_id in self.protected:
            self._retried(change)

    def _retried(self, change: AttemptFailed) -> None:
        """Check that the budget covers a retry: what is saved up, and what has come in since the first failure."""
        key = self._key_of(change.run_id, change.component_id)
        if key is None or self._closing[key] > 0 or change.ended_at <= self._closed_at.get(key, -1):
            return  # a circuit that is closed by hand has a full budget from then on; this one took from that before
        if change.status is ExecutionStatus.CANCELLED or RETRY_LATER in error_of(change).types:
            return
        begin = self._first_failure.setdefault(key, change.ended_at)
        retries = self._retries[key]
        retries.append(change.retry_at)
        per_minute = MEAN_BUDGET.retries_per_minute
        until_then = sum(1 for at in retries if at <= change.retry_at)
        allowed = max(BURST_MIN, per_minute // 6) + (change.retry_at - begin) * per_minute / (60 * SECOND)
        if until_then > allowed + 1e-3:
            self._fail("circuit", f"{until_then} retries of {key} until attempt {change.number} of {change.run_id} is "
                                  f"followed, and {allowed:g} are covered")  # fmt: skip

    def _key_of(self, run_id: str, component_id: str) -> Key | None:
        run = self._history.runs[run_id]
        name = run.components[component_id].breaker
        return None if name is None else (run.created.tenant_id, name)
