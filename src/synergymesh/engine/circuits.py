"""The circuit breakers and retry budgets of tenants: told how attempts end, and holding back what would fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

import msgspec

from synergymesh.domain.actors import Actor
from synergymesh.domain.fault_tolerance.breaker import Breaker, BreakerPolicy, BreakerState
from synergymesh.domain.fault_tolerance.breaker_rules import (
    BreakerRule,
    CircuitKey,
    change_breaker_rules,
    check_breaker_place,
    policy_for,
    shown,
)
from synergymesh.domain.fault_tolerance.retry import (
    Outcome,
    Raised,
    RetryPolicy,
    Succeeded,
    TimedOut,
    TimeLimit,
    timeout_error,
)
from synergymesh.domain.fault_tolerance.retry_budget import RetryBudget
from synergymesh.domain.instants import Instant
from synergymesh.domain.scheduling.scheduler import Scheduler
from synergymesh.domain.tenants import Tenant
from synergymesh.engine.acting import current_actor
from synergymesh.engine.committer import Answer, Committer
from synergymesh.engine.features import check_feature
from synergymesh.engine.live import Attempt, LiveRun
from synergymesh.engine.tenants import Tenants
from synergymesh.engine.timing.deadlines import Deadline, Deadlines
from synergymesh.errors import InvalidRequest, UnknownBreaker, UnknownTenant
from synergymesh.logs import Log
from synergymesh.ports.changes import BreakerChanged
from synergymesh.ports.clock import Clock
from synergymesh.ports.records import BreakerRecord, Committed
from synergymesh.ports.store import Store

FEATURE = "custom_policies"

log = Log("synergymesh.engine")


class Circuit:
    """Hold what is known of one thing that can be down: its breaker and its budget of retries."""

    __slots__ = ("breaker", "budget", "deadline", "key", "tenant_id")

    def __init__(self, tenant_id: str, key: CircuitKey, breaker: Breaker, now: Instant) -> None:
        self.tenant_id = tenant_id
        self.key = key
        self.breaker = breaker
        self.budget = budget_of(breaker.policy, now)
        self.deadline: Deadline | None = None


def budget_of(policy: BreakerPolicy, now: Instant) -> RetryBudget:
    """Make the budget that a policy allows."""
    return RetryBudget(retry_percent=policy.retry_percent, retries_per_minute=policy.retries_per_minute, now=now)


class Circuits:
    """Keep a circuit for what has failed lately; what has not costs a look at an empty dictionary.

    A circuit is made at a first failure. Attempts count from then on, so that the first one in a window is always a
    failure: with the least number of calls n, the share of failures is too high by less than 1 / n.

    Attributes:
        live: by tenant and key.
        changed: is called when something may start that was held back.
        count_running: counts the attempts of a tenant's circuit that are under way and started at a moment or later.
    """

    def __init__(
        self,
        store: Store,
        committer: Committer,
        scheduler: Scheduler[LiveRun],
        tenants: Tenants,
        deadlines: Deadlines,
        clock: Clock,
        dice: Random,
        *,
        default: BreakerPolicy | None,
    ) -> None:
        self.live: dict[tuple[str, CircuitKey], Circuit] = {}
        self.changed: Callable[[], object] = object
        self.count_running: Callable[[str, CircuitKey, Instant], int] = _none
        self._store = store
        self._committer = committer
        self._scheduler = scheduler
        self._tenants = tenants
        self._deadlines = deadlines
        self._clock = clock
        self._dice = dice
        self._default = default
        self._recorded_at: dict[tuple[str, CircuitKey], Instant] = {}

    async def load(self) -> None:
        """Take up the circuits that were not closed when they were last heard of."""
        now = self._clock.now()
        for row in await self._store.list_breakers(None):
            self._recorded_at[row.tenant_id, (row.workflow, row.name)] = row.changed_at
            if row.state is BreakerState.CLOSED:
                continue
            key = (row.workflow, row.name)
            policy = self._policy_of(row.tenant_id, key)
            if policy is None:
                continue
            breaker = Breaker.restore(policy, row.state, row.since, row.until, row.trips, row.wave, now=now)
            circuit = self.live[row.tenant_id, key] = Circuit(row.tenant_id, key, breaker, now)
            self._apply(circuit)

    # --- how attempts end -----------------------------------------------------------------------------------------

    def succeeded(self, attempt: Attempt, now: Instant) -> None:
        """Count a success; only called while there are circuits."""
        run = attempt.run
        circuit = self.live.get((run.tenant_id, run.version.plan.circuits[attempt.position]))
        if circuit is not None:
            self._count(circuit, attempt, now, failed=False)

    def ended(self, attempt: Attempt, outcome: Outcome, policy: RetryPolicy, now: Instant) -> None:
        """Count an attempt that did not succeed, if its failure is one that another attempt could cure.

        What a policy never retries, and what a task says of itself (`GiveUp`, `RetryLater`), says nothing about what it
        calls; nor does a shutdown.
        """
        run = attempt.run
        key: CircuitKey = run.version.plan.circuits[attempt.position]
        circuit = self.live.get((run.tenant_id, key))
        if not is_failure(outcome, policy):
            if circuit is not None and circuit.breaker.state is BreakerState.HALF_OPEN:
                self._give_back(circuit, attempt)
            return
        if circuit is None:
            breaker_policy = self._policy_of(run.tenant_id, key)
            if breaker_policy is None:
                return
            circuit = self.live[run.tenant_id, key] = Circuit(run.tenant_id, key, Breaker(breaker_policy), now)
        self._count(circuit, attempt, now, failed=True)

    def retry_at(
        self, attempt: Attempt, not_before: Instant, now: Instant, latest: Instant | None = None
    ) -> Instant | None:
        """Give when a failed attempt may be followed by another one, from when its policy and the budget allow it.

        None if the budget allows it only after `latest`.
        """
        run = attempt.run
        circuit = self.live.get((run.tenant_id, run.version.plan.circuits[attempt.position]))
        if circuit is None:
            return not_before
        covered = circuit.budget.retry_at(now, latest)
        return None if covered is None else max(not_before, covered)

    def _count(self, circuit: Circuit, attempt: Attempt, now: Instant, *, failed: bool) -> None:
        if not attempt.run.tries_of(attempt.position).total:
            circuit.budget.attempted(now)
        breaker = circuit.breaker
        if breaker.record(failed=failed, started_at=attempt.started_at, now=now, dice=self._dice.random()):
            self._apply(circuit)
            self._record(circuit, now)
        elif not failed and breaker.is_quiet(now) and circuit.budget.is_full(now):
            del self.live[circuit.tenant_id, circuit.key]

    def _give_back(self, circuit: Circuit, attempt: Attempt) -> None:
        """Let another canary in for one that told nothing."""
        if attempt.started_at >= circuit.breaker.since:
            self._scheduler.permit(circuit.tenant_id, circuit.key, 1)
            self.changed()

    # --- what is held back ----------------------------------------------------------------------------------------

    def _apply(self, circuit: Circuit) -> None:
        """Hold back, let in or release what waits for a circuit, as its breaker says."""
        breaker, tenant_id, key = circuit.breaker, circuit.tenant_id, circuit.key
        if circuit.deadline is not None:
            circuit.deadline.cancel()
            circuit.deadline = None
        match breaker.state:
            case BreakerState.OPEN:
                self._scheduler.set_gate(tenant_id, key, permits=0, until=breaker.until)
                circuit.deadline = self._deadlines.at(breaker.until, self._try_again, circuit)
            case BreakerState.HALF_OPEN:
                running = self.count_running(tenant_id, key, breaker.since)
                self._scheduler.set_gate(tenant_id, key, permits=max(0, breaker.wave_left - running))
                circuit.deadline = self._deadlines.after(breaker.policy.open_seconds, self._top_up, circuit)
            case BreakerState.CLOSED:
                self._scheduler.open_gate(tenant_id, key)
        self.changed()

    def _try_again(self, circuit: Circuit) -> None:
        """Let the first wave in: the time of an open circuit is over, whatever the machine's clock was set to."""
        now = self._clock.now()
        if circuit.breaker.wake(max(now, circuit.breaker.until)):
            circuit.breaker.since = now
            self._apply(circuit)
            self._record(circuit, now)

    def _top_up(self, circuit: Circuit) -> None:
        """Let canaries in for those that got lost without telling anything, so that no circuit stays half open."""
        if circuit.breaker.state is BreakerState.HALF_OPEN:
            self._apply(circuit)

    def _record(self, circuit: Circuit, now: Instant) -> None:
        breaker = circuit.breaker
        tell = log.warning if breaker.state is BreakerState.OPEN else log.info
        tell("a circuit changed", tenant_id=circuit.tenant_id, breaker=shown(circuit.key), state=breaker.state.value)
        self._committer.put([self._next_change(circuit, now)], _whatever)

    def _next_change(self, circuit: Circuit, now: Instant, by: Actor | None = None) -> BreakerChanged:
        """Give what is to be recorded, at a moment after all earlier ones, whatever the machine's clock was set to."""
        name = circuit.tenant_id, circuit.key
        at = self._recorded_at[name] = max(now, self._recorded_at.get(name, 0) + 1)
        return msgspec.structs.replace(self._change(circuit, now), changed_at=at, by=by)

    def _change(self, circuit: Circuit, now: Instant) -> BreakerChanged:
        breaker = circuit.breaker
        calls, failures = breaker.counts(now)
        workflow, name = circuit.key
        return BreakerChanged(
            circuit.tenant_id,
            workflow,
            name,
            breaker.state,
            breaker.since,
            breaker.until,
            breaker.trips,
            breaker.wave,
            calls,
            failures,
            now,
        )

    # --- people ---------------------------------------------------------------------------------------------------

    async def list(self, tenant_id: str | None) -> list[BreakerRecord]:
        """Give the circuits that have failed lately, and those that were ever open, by tenant and name.

        Raises:
            UnknownTenant: there is none of that id.
        """
        if tenant_id is not None:
            self._tenants.get(tenant_id)
        now = self._clock.now()
        found = {(row.tenant_id, row.workflow, row.name): row for row in await self._store.list_breakers(tenant_id)}
        for circuit in self.live.values():
            if tenant_id in (None, circuit.tenant_id) and self._is_known(circuit.tenant_id):
                change = self._change(circuit, now)
                found[change.tenant_id, change.workflow, change.name] = record_of(change)
        return [found[key] for key in sorted(found)]

    async def reset(self, tenant_id: object, breaker: object, workflow: object, component: object) -> None:
        """Close a circuit by hand, and forget what it counted; it is closed once that is recorded.

        Raises:
            StoreError: it could not be recorded, and is not closed.
            UnknownTenant: there is none of that id.
            UnknownBreaker: nothing of that name has failed lately.
            InvalidRequest: the name cannot be one.
        """
        tenant = self._tenants.get(tenant_id)
        name, *place = check_breaker_place(breaker, workflow, component)
        if name is None and place[1] is None:
            raise InvalidRequest("name the breaker, or the workflow and its component.", field="breaker")
        key: CircuitKey = ("", name) if name is not None else (str(place[0]), str(place[1]))
        circuit = self.live.get((tenant.tenant_id, key))
        if circuit is None:
            known = [shown(key) for owner, key in self.live if owner == tenant.tenant_id]
            raise UnknownBreaker(shown(key), known)
        closed = Circuit(tenant.tenant_id, key, Breaker(circuit.breaker.policy), now := self._clock.now())
        closed.breaker.close(now)
        change = self._next_change(closed, now, current_actor())
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def recorded(answer: Answer) -> None:
            if isinstance(answer, Committed):
                self._close(circuit, change.changed_at)
            if not answered.done():  # whoever asked may be gone
                answered.set_result(answer)

        self._committer.put([change], recorded)
        answer = await answered
        if isinstance(answer, Exception):
            raise answer

    def _close(self, circuit: Circuit, recorded_at: Instant) -> None:
        """Close a circuit for which that is recorded as of a moment."""
        name = circuit.tenant_id, circuit.key
        if self.live.get(name) is not circuit:
            return  # its tenant is deleted, or it has no breaker any more
        now = self._clock.now()
        circuit.breaker.close(now)
        circuit.budget = budget_of(circuit.breaker.policy, now)
        self._apply(circuit)
        if self._recorded_at[name] > recorded_at:
            self._record(circuit, now)  # behind what became of it meanwhile

    async def set_policy(
        self, tenant_id: object, policy: object, breaker: object, workflow: object, component: object
    ) -> Tenant:
        """Set or take away a breaker policy of a tenant; what is open stays so until its time is over.

        Raises:
            UnknownTenant: there is none of that id.
            InvalidRequest: it is no policy, or the place cannot be one.
            FeatureNotEnabled: the tenant's tier does not have the feature.
        """
        if policy is not None and not isinstance(policy, BreakerPolicy):
            raise InvalidRequest(f"policy must be a BreakerPolicy or None, not {policy!r:.100}.", field="policy")
        place = check_breaker_place(breaker, workflow, component)
        tenant = self._tenants.get(tenant_id)
        if policy is not None:
            check_feature(tenant, FEATURE, "a breaker policy of its own", self._tenants.plans)
        return await self._tenants.change_plan(
            tenant_id, edit=lambda now: {"breakers": change_breaker_rules(now.policy.breakers, place, policy)}
        )

    def take_policies_again(self) -> None:
        """Let the circuits that there are follow the policies as they are now."""
        now = self._clock.now()
        for name, circuit in list(self.live.items()):
            policy = self._policy_of(*name)
            if policy is None:
                if circuit.breaker.state is not BreakerState.CLOSED:
                    circuit.breaker.close(now)
                    self._apply(circuit)
                    self._record(circuit, now)
                del self.live[name]
            elif policy != circuit.breaker.policy:
                circuit.breaker.change_policy(policy)
                circuit.budget = budget_of(policy, now)

    def states(self) -> dict[str, dict[BreakerState, int]]:
        """Count the circuits of each tenant that has any, by state; closed ones are those that have failed lately."""
        counts: dict[str, dict[BreakerState, int]] = {}
        for (tenant_id, _), circuit in self.live.items():
            of_tenant = counts.setdefault(tenant_id, {})
            of_tenant[circuit.breaker.state] = of_tenant.get(circuit.breaker.state, 0) + 1
        return counts

    # --- inside ---------------------------------------------------------------------------------------------------

    def forget(self, tenant_id: str) -> None:
        """Forget a tenant that is deleted."""
        for name, circuit in list(self.live.items()):
            if name[0] == tenant_id:
                if circuit.deadline is not None:
                    circuit.deadline.cancel()
                del self.live[name]
                self._recorded_at.pop(name, None)

    def _is_known(self, tenant_id: str) -> bool:
        try:
            self._tenants.get(tenant_id)
        except UnknownTenant:
            return False
        return True

    def _policy_of(self, tenant_id: str, key: CircuitKey) -> BreakerPolicy | None:
        """Give the policy of a circuit; None if it has no breaker."""
        chain: list[tuple[BreakerRule, ...]] = []
        name: str | None = tenant_id
        while name is not None:
            try:
                tenant = self._tenants.get(name)
            except UnknownTenant:
                return None
            if FEATURE in tenant.features_enabled:
                chain.append(tenant.policy.breakers)
            name = tenant.parent_id
        return policy_for(key, chain, self._default)


def _none(*_: object) -> int:
    """Count nothing; until somebody tells."""
    return 0


def is_failure(outcome: Outcome, policy: RetryPolicy) -> bool:
    """Tell whether an attempt failed in a way that another one could cure."""
    match outcome:
        case Raised(error):
            return error.retry_after is None and policy.is_retryable(error)
        case TimedOut(_, limit):
            return limit in (TimeLimit.ATTEMPT, TimeLimit.HEARTBEAT) and policy.is_retryable(timeout_error(outcome))
        case Succeeded():
            return False
        case _:
            return False


def record_of(change: BreakerChanged) -> BreakerRecord:
    """Give what a store would give back of a change."""
    return BreakerRecord(*(getattr(change, name) for name in BreakerRecord.__struct_fields__))


def _whatever(answer: Answer) -> None:
    """Do nothing: a circuit whose state was not recorded opens again when it has to."""
