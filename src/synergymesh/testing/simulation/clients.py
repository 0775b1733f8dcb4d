"""The people of a world: they submit, cancel, look and administrate, and remember what they were told."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

from synergymesh.domain.quota import ResourceQuota
from synergymesh.domain.states import ExecutionStatus
from synergymesh.errors import (
    Conflict,
    IdempotencyConflict,
    NotRunning,
    RunCancelled,
    RunFailed,
    RunTimedOut,
    StoreError,
    SynergyMeshError,
    UnknownRun,
)
from synergymesh.orchestrator import Orchestrator
from synergymesh.testing.simulation.checker import Checker
from synergymesh.testing.simulation.holds import Subject
from synergymesh.testing.simulation.naming import Names
from synergymesh.testing.simulation.usage import Token
from synergymesh.workflows.workflow import Workflow

OK, REFUSED, UNKNOWN = "ok", "refused", "unknown"

ENTERS = ("submit", "rerun")
"""Verbs of calls that make runs."""

HASTE = 0.3
"""Share of the people who go away before they are answered, in worlds where some do."""


@dataclasses.dataclass(slots=True)
class ClientCall:
    """Remember a call: what was asked, and what came of it. `unknown` until there is an answer."""

    verb: str
    subject: str
    answer: str = UNKNOWN
    key: str | None = None
    tenant_id: str = ""
    workflow: Workflow | None = None
    run_id: str | None = None


@dataclasses.dataclass(slots=True)
class Wish:
    """Remember what tenant was asked for under a key, and which one was given, if there was an answer."""

    key: str
    tier: str
    quota: ResourceQuota
    parent: str | None
    tenant_id: str | None = None


class Clients:
    """Call the mesh as people do.

    Args:
        dice: decides what they do.
        checker: is told what was promised.
        fail: is called when an answer breaks an invariant.
        say: writes into the trace.
        chosen: gives the attempts that the scheduler has chosen, and that are not handed over yet.
        haste: dice that decide who goes away before he is answered; None if nobody does.

    Attributes:
        mesh: the orchestrator that lives now.
        calls: all, oldest first.
        tenants: known ids, oldest first.
    """

    def __init__(
        self,
        dice: Random,
        checker: Checker,
        names: Names,
        fail: Callable[[str, str], None],
        say: Callable[[str], None],
        chosen: Callable[[], list[Token]],
        haste: Random | None,
    ) -> None:
        self.mesh: Orchestrator
        self.calls: list[ClientCall] = []
        self.tenants: list[str] = []
        self.plans: dict[str, ResourceQuota] = {}
        self.workflows: list[Workflow] = []
        self.dice = dice
        self.checker = checker
        self.names = names
        self.chosen = chosen
        self.is_hasty = haste is not None
        self._haste = haste
        self._fail = fail
        self._say = say
        self._keys = 0
        self._wishes: list[Wish] = []

    def begin_life(self, mesh: Orchestrator) -> None:
        """Call this mesh from now on; whoever waited for the one before has no answer."""
        self.mesh = mesh

    async def act(self, action: str) -> None:
        """Do one of the actions of a plan."""
        await getattr(self, action)()

    async def call(self, call: ClientCall, answer: Awaitable[Any]) -> Any:
        """Wait for an answer and remember it; give None if there is none."""
        self.calls.append(call)
        try:
            if self.is_hasty and self._haste is not None and self._haste.random() < HASTE:
                result = await asyncio.wait_for(answer, self._haste.choice((0.0001, 0.0005, 0.002, 0.02, 0.5)))
            else:
                result = await answer
        except TimeoutError:
            self._say(f"{call.verb} {call.subject}: nobody waits for the answer")
            return None
        except (StoreError, NotRunning) as error:
            self._say(f"{call.verb} {call.subject}: unknown, {type(error).__name__}: {error}")
            return None
        except (RunFailed, RunCancelled) as error:
            call.answer = REFUSED
            self._say(f"{call.verb} {call.subject}: {type(error).__name__}")
            return error
        except SynergyMeshError as error:
            call.answer = REFUSED
            self._say(f"{call.verb} {call.subject}: {type(error).__name__}")
            return error
        call.answer = OK
        return result

    def tenant(self) -> str | None:
        """Choose a tenant that is not deleted."""
        alive = [each for each in self.tenants if each not in self.checker.history.deleted]
        return self.dice.choice(alive) if alive else None

    # --- runs -------------------------------------------------------------------------------------------------------

    async def submit(self, tenant_id: str | None = None, workflow: Workflow | None = None) -> ClientCall | None:
        """Submit a run, with a key as often as not, and sometimes wait for its result."""
        tenant_id = tenant_id or self.tenant()
        if tenant_id is None:
            return None
        self._keys += 1
        key = f"key-{self._keys}" if self.dice.random() < 0.6 else None
        chosen = workflow or self.dice.choice(self.workflows)
        call = ClientCall("submit", f"{chosen.name} for {self.names.of(tenant_id)}", key=key, tenant_id=tenant_id)
        call.workflow = chosen
        await self._submitted(call)
        return call

    async def submit_again(self) -> None:
        """Repeat a submission that had a key: the run is the same, whatever was answered before."""
        earlier = [call for call in self.calls if call.verb == "submit" and call.key and call.answer != REFUSED]
        if not earlier:
            return
        first = self.dice.choice(earlier)
        await self._submitted(dataclasses.replace(first, verb="submit", answer=UNKNOWN, run_id=None))

    async def submit_another(self) -> None:
        """Use a key again for something else: a conflict, if the first one was recorded."""
        earlier = [call for call in self.calls if call.verb == "submit" and call.key and call.answer == OK]
        if not earlier:
            return
        first = self.dice.choice(earlier)
        others = [each for each in self.workflows if each is not first.workflow]
        call = dataclasses.replace(first, verb="submit another", answer=UNKNOWN, run_id=None)
        answer = await self.call(
            call,
            self.mesh.submit(self.dice.choice(others), tenant=first.tenant_id, idempotency_key=first.key),
        )
        if first.run_id in self.checker.history.pruned:
            return  # its key was free again
        if call.answer == OK and first.tenant_id not in self.checker.history.deleted:
            self._fail("I8", f"{first.key} belongs to {first.run_id}, and another workflow was accepted under it")
        if isinstance(answer, IdempotencyConflict) and answer.run_id != first.run_id:
            self._fail("I8", f"{first.key} belongs to {first.run_id}, and is said to be of {answer.run_id}")

    async def _submitted(self, call: ClientCall) -> None:
        assert call.workflow is not None
        handle = await self.call(call, self.mesh.submit(call.workflow, tenant=call.tenant_id, idempotency_key=call.key))
        if call.answer != OK:
            return
        call.run_id = handle.id
        self._say(f"submit {call.subject}: {self.names.of(handle.id)}")
        run = self.checker.history.runs.get(handle.id)
        if run is None:
            self._fail("I1", f"{handle.id} is acknowledged, and not recorded")
        for other in self.calls:
            if (
                other is not call
                and other.run_id is not None
                and other.verb == "submit"
                and call.key is not None
                and (other.tenant_id, other.key) == (call.tenant_id, call.key)
                and other.run_id != call.run_id
                and other.run_id not in self.checker.history.pruned
            ):
                self._fail("I8", f"{call.key} is answered with {other.run_id} and with {call.run_id}")
        if self.dice.random() < 0.5:
            await self._wait_for(handle.id, call.tenant_id)

    async def _wait_for(self, run_id: str, tenant_id: str) -> None:
        call = ClientCall("result", self.names.of(run_id), run_id=run_id)
        answer = await self.call(call, self.mesh.result_of(run_id, tenant=tenant_id))
        if call.answer == UNKNOWN or tenant_id in self.checker.history.deleted or isinstance(answer, UnknownRun):
            if isinstance(answer, UnknownRun):
                self._is_gone(run_id, tenant_id)
            return
        end = self.checker.history.runs[run_id].end
        if end is None:
            self._fail("I2", f"the end of {run_id} was told, and is not recorded")
            return
        told = (
            (ExecutionStatus.CANCELLED,)
            if isinstance(answer, RunCancelled)
            else (ExecutionStatus.TIMEOUT,)
            if isinstance(answer, RunTimedOut)
            else (ExecutionStatus.FAILED,)
            if isinstance(answer, RunFailed)
            else (ExecutionStatus.SUCCESS, ExecutionStatus.PARTIAL)
        )
        if end.status not in told:
            self._fail("I2", f"{run_id} was told to be one of {told}, and is recorded as {end.status}")

    def _is_gone(self, run_id: str, tenant_id: str) -> None:
        """Check that a run that is not found any more was deleted, with its tenant or after its time."""
        history = self.checker.history
        if tenant_id not in history.deleted and run_id not in history.pruned:
            self._fail("I1", f"{run_id} is acknowledged, and cannot be found")

    def some_run(self) -> ClientCall | None:
        """Choose one of the latest runs."""
        submitted = [call for call in self.calls if call.verb in ENTERS and call.run_id is not None]
        return self.dice.choice(submitted[-8:]) if submitted else None

    async def cancel(self) -> None:
        """Cancel one of the latest runs."""
        run = self.some_run()
        if run is not None and run.run_id is not None:
            self._say(f"cancel {self.names.of(run.run_id)}")
            await self.call(
                ClientCall("cancel", self.names.of(run.run_id), run_id=run.run_id),
                self.mesh.cancel_run(run.run_id, tenant=run.tenant_id),
            )

    async def look(self) -> None:
        """Look at a run: what is seen to be final is recorded so; nobody else's is seen at all."""
        run = self.some_run()
        if run is None or run.run_id is None:
            return
        stranger = self.dice.random() < 0.2
        tenant_id = "tenant-of-nobody" if stranger else run.tenant_id
        call = ClientCall("look", self.names.of(run.run_id))
        seen = await self.call(call, self.mesh.get_run(run.run_id, tenant=tenant_id))
        if call.answer == OK and stranger:
            self._fail("I9", f"{run.run_id} was shown to a stranger")
        recorded = self.checker.history.runs[run.run_id]
        if isinstance(seen, UnknownRun) and not stranger:
            self._is_gone(run.run_id, run.tenant_id)
        if call.answer == OK and seen.status.is_final and (recorded.end is None or recorded.end.status != seen.status):
            self._fail("I2", f"{run.run_id} is seen as {seen.status}, and not recorded so")

    # --- tenants ----------------------------------------------------------------------------------------------------

    async def create_tenant(self, quota: ResourceQuota | None = None, parent: str | None = None) -> str | None:
        """Make a tenant."""
        tier = "enterprise" if quota is not None else self.dice.choice(("professional", "enterprise"))
        given = quota or self.draw_quota()
        self._keys += 1
        wish = Wish(f"tenant-{self._keys}", tier, given, parent)
        self._wishes.append(wish)
        return await self._created(wish)

    async def create_tenant_again(self) -> None:
        """Ask once more for a tenant that was asked for before: it is the same, whatever was answered then."""
        if self._wishes:
            await self._created(self.dice.choice(self._wishes))

    async def _created(self, wish: Wish) -> str | None:
        call = ClientCall("create tenant", wish.key)
        tenant = await self.call(
            call,
            self.mesh.create_tenant("T", wish.tier, quota=wish.quota, parent=wish.parent, idempotency_key=wish.key),
        )
        if call.answer != OK:
            return None
        tenant_id = str(tenant.tenant_id)
        deleted = self.checker.history.deleted
        if wish.tenant_id not in (None, tenant_id) and wish.tenant_id not in deleted:
            self._fail("I8", f"{wish.key} is answered with {wish.tenant_id} and with {tenant_id}")
        if tenant_id not in self.checker.history.parents:
            self._fail("I1", f"{tenant_id} is acknowledged, and not recorded")
        wish.tenant_id = tenant_id
        if tenant_id not in self.tenants and tenant_id not in deleted:
            self.tenants.append(tenant_id)
            self.checker.usage.made(tenant_id, wish.quota)
            self._say(f"create {self.names.of(tenant_id)} with {wish.quota.max_concurrent_tasks} at a time")
        return tenant_id

    async def create_child(self) -> None:
        """Make a sub-tenant."""
        parent = self.tenant()
        if parent is not None and self.checker.history.parents.get(parent) is None:
            await self.create_tenant(parent=parent)

    async def change_quota(self) -> None:
        """Give a tenant other limits."""
        tenant_id = self.tenant()
        if tenant_id is not None:
            await self.set_quota(tenant_id, self.draw_quota())

    async def set_quota(self, tenant_id: str, quota: ResourceQuota) -> bool:
        """Give a tenant these limits; tell whether it has them."""
        usage = self.checker.usage
        usage.changing(tenant_id, quota)
        call = ClientCall("set quota", self.names.of(tenant_id))
        await self.call(call, self.mesh.set_quota(tenant_id, quota))
        if call.answer == OK:
            usage.changed(tenant_id, quota)
            self.checker.holds.excuse(self.chosen())
            self._say(f"quota of {self.names.of(tenant_id)}: {quota.max_concurrent_tasks} at a time")
        return call.answer == OK

    async def change_weight(self) -> None:
        """Give a tenant another weight or throttle it."""
        tenant_id = self.tenant()
        if tenant_id is None:
            return
        if self.dice.random() < 0.5:
            answer: Awaitable[Any] = self.mesh.set_weight(tenant_id, self.dice.choice((None, 1, 50)))
        else:
            answer = self.mesh.throttle_tenant(tenant_id, self.dice.choice((None, 10, 50)))
        await self.call(ClientCall("change plan", self.names.of(tenant_id)), answer)

    async def suspend(self) -> None:
        """Suspend a tenant."""
        tenant_id = self.tenant()
        if tenant_id is None:
            return
        await self.hold(
            ("tenant", tenant_id), ClientCall("suspend", self.names.of(tenant_id)), self.mesh.suspend_tenant(tenant_id)
        )

    async def resume(self, tenant_id: str | None = None) -> None:
        """Resume a tenant."""
        tenant_id = tenant_id or self.tenant()
        if tenant_id is not None:
            call = ClientCall("resume", self.names.of(tenant_id))
            await self.let_go(("tenant", tenant_id), call, self.mesh.resume_tenant(tenant_id))

    async def hold(self, subject: Subject, call: ClientCall, answer: Awaitable[Any]) -> None:
        """Ask that nothing of something starts, and expect it once that is acknowledged."""
        holds = self.checker.holds
        lifts = holds.lifts(subject)
        done = await self.call(call, answer)
        if call.answer == OK and done is not False and holds.held(subject, lifts, self.chosen()):
            self._say(f"{call.verb} {call.subject}")

    async def let_go(self, subject: Subject, call: ClientCall, answer: Awaitable[Any]) -> None:
        """Ask that something may start again, and expect it from now on."""
        self.checker.holds.lifting(subject)
        await self.call(call, answer)
        if call.answer != UNKNOWN:
            self.checker.holds.lifted(subject)

    async def delete_tenant(self) -> None:
        """Delete a tenant, with force as often as not; keep one."""
        tenant_id = self.tenant()
        if tenant_id is None or len(self.tenants) - len(self.checker.history.deleted) < 2:
            return
        call = ClientCall("delete", self.names.of(tenant_id))
        force = self.dice.random() < 0.5
        if force:
            self.checker.sagas.abandoned.add(tenant_id)
        answer = await self.call(call, self.mesh.delete_tenant(tenant_id, force=force))
        if call.answer == OK and tenant_id not in self.checker.history.deleted:
            self._fail("I2", f"{tenant_id} is said to be deleted, and that is not recorded")
        if call.answer != OK and not isinstance(answer, Conflict):
            self._say(f"delete {self.names.of(tenant_id)}: {answer}")

    def draw_quota(self) -> ResourceQuota:
        """Draw limits that may bind, except per hour."""
        return ResourceQuota(
            max_concurrent_tasks=self.dice.choice((1, 2, 3, 5, 20)),
            max_memory_mb=self.dice.choice((512, 4_096)),
            max_cpu_percent=100,
            max_tasks_per_hour=100_000,
            rate_limit_per_second=self.dice.choice((2, 1_000)),
            max_queued_tasks=self.dice.choice((10, 1_000)),
        )


ROOMY = ResourceQuota(
    max_concurrent_tasks=1_000,
    max_memory_mb=100_000,
    max_cpu_percent=100,
    max_tasks_per_hour=1_000_000,
    rate_limit_per_second=1_000_000,
)
