"""The people who look after a world: they pause, retry, redrive, prune and reset."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from synergymesh.testing.simulation.clients import OK, UNKNOWN, ClientCall, Clients
from synergymesh.testing.simulation.holds import Subject
from synergymesh.testing.simulation.keeping import DAY_SECONDS
from synergymesh.testing.simulation.tasks import BREAKER

KEPT_DAYS = (0.0, 5.0 / DAY_SECONDS, 1.0)


class Operators:
    """Call the mesh as its operators do.

    Args:
        clients: whose runs and tenants they look after.
        say: writes into the trace.
        fail: is called when an answer breaks an invariant.
    """

    def __init__(self, clients: Clients, say: Callable[[str], None], fail: Callable[[str, str], None]) -> None:
        self._clients = clients
        self._dice = clients.dice
        self._checker = clients.checker
        self._names = clients.names
        self._say = say
        self._fail = fail
        self._paused: dict[Subject, None] = {}

    async def act(self, action: str) -> None:
        """Do one of the actions of a plan."""
        await getattr(self, action)()

    # --- pauses -----------------------------------------------------------------------------------------------------

    async def pause_run(self) -> None:
        """Pause one of the latest runs."""
        run = self._clients.some_run()
        if run is not None and run.run_id is not None:
            subject = ("run", run.run_id)
            self._paused[subject] = None
            call = ClientCall("pause", self._names.of(run.run_id))
            await self._clients.hold(subject, call, self._clients.mesh.pause_run(run.run_id, tenant=run.tenant_id))

    async def unpause_run(self) -> None:
        """Let a run go on, of those that were paused."""
        await self._unpause([each for each in self._paused if each[0] == "run"])

    async def pause_workflow(self) -> None:
        """Pause a workflow, for one tenant or for all."""
        tenant_id = self._clients.tenant() if self._dice.random() < 0.6 else None
        name = self._dice.choice(self._clients.workflows).name
        subject = ("workflow", tenant_id or "", name)
        self._paused[subject] = None
        call = ClientCall("pause", f"{name} of {self._names.of(tenant_id)}")
        await self._clients.hold(subject, call, self._clients.mesh.pause_workflow(name, tenant=tenant_id))

    async def unpause_workflow(self) -> None:
        """Let a workflow go on, of those that were paused."""
        await self._unpause([each for each in self._paused if each[0] == "workflow"])

    async def unpause_everything(self) -> None:
        """Let everything go on that was ever paused."""
        for subject in self._paused:
            await self._unpause([subject])

    async def _unpause(self, subjects: list[Subject]) -> None:
        if not subjects:
            return
        subject = self._dice.choice(subjects)
        mesh = self._clients.mesh
        answer: Awaitable[Any]
        if subject[0] == "run":
            call = ClientCall("unpause", self._names.of(subject[1]))
            answer = mesh.resume_run(subject[1])
        else:
            call = ClientCall("unpause", f"{subject[2]} of {self._names.of(subject[1] or None)}")
            answer = mesh.resume_workflow(subject[2], tenant=subject[1] or None)
        await self._clients.let_go(subject, call, answer)

    # --- runs that go on from others --------------------------------------------------------------------------------

    async def retry_run(self) -> None:
        """Go on with one of the latest runs, from where it failed or anew."""
        run = self._clients.some_run()
        if run is not None and run.run_id is not None:
            from_failed = self._dice.random() < 0.7
            self._checker.rerunning.asks(run.run_id, from_failed=from_failed)
            await self._rerun(
                run.tenant_id,
                f"retry of {self._names.of(run.run_id)}",
                self._clients.mesh.retry_run(run.run_id, from_failed=from_failed, tenant=run.tenant_id),
            )

    async def replay(self) -> None:
        """Do again what one of the latest runs does."""
        run = self._clients.some_run()
        if run is not None and run.run_id is not None:
            await self._rerun(
                run.tenant_id,
                f"replay of {self._names.of(run.run_id)}",
                self._clients.mesh.replay(run.run_id, tenant=run.tenant_id),
            )

    async def redrive(self) -> None:
        """Go on with the run of a dead letter."""
        letter = await self._letter("redrive")
        if letter is not None:
            self._checker.rerunning.asks(letter.run_id, from_failed=True)
            await self._rerun(
                letter.tenant_id,
                f"redrive of {self._names.of(letter.run_id)}",
                self._clients.mesh.redrive_dead_letter(letter.id, tenant=letter.tenant_id),
            )

    async def redrive_many(self) -> None:
        """Go on with the runs of several dead letters."""
        looked = ClientCall("dead letters", "to redrive many")
        letters = await self._clients.call(looked, self._clients.mesh.dead_letters())
        for letter in letters if looked.answer == OK else ():
            self._checker.rerunning.asks(letter.run_id, from_failed=True)
        call = ClientCall("redrive many", "")
        done = await self._clients.call(call, self._clients.mesh.redrive_dead_letters(limit=3))
        if call.answer != OK:
            return
        for new in done.runs.values():
            if new not in self._checker.history.runs:
                self._fail("I1", f"{new} is said to go on from another run, and is not recorded")

    async def discard(self) -> None:
        """Put a dead letter away."""
        letter = await self._letter("discard")
        if letter is None:
            return
        call = ClientCall("discard", self._names.of(letter.run_id))
        await self._clients.call(
            call, self._clients.mesh.discard_dead_letter(letter.id, reason="seen to", tenant=letter.tenant_id)
        )
        if call.answer == OK and (letter.run_id, letter.task_id) not in self._checker.history.discarded:
            self._fail("kept", f"{letter.id} is said to be discarded, and that is not recorded")

    async def _letter(self, verb: str) -> Any:
        call = ClientCall("dead letters", f"to {verb}")
        letters = await self._clients.call(call, self._clients.mesh.dead_letters())
        return self._dice.choice(letters) if call.answer == OK and letters else None

    async def _rerun(self, tenant_id: str, subject: str, answer: Awaitable[Any]) -> None:
        call = ClientCall("rerun", subject, tenant_id=tenant_id)
        handle = await self._clients.call(call, answer)
        if call.answer != OK:
            return
        call.run_id = handle.id
        self._say(f"{subject}: {self._names.of(handle.id)}")
        if handle.id not in self._checker.history.runs:
            self._fail("I1", f"{handle.id} is acknowledged, and not recorded")

    # --- the rest ---------------------------------------------------------------------------------------------------

    async def prune(self) -> None:
        """Delete what is not kept any longer."""
        await self._clients.call(ClientCall("prune", ""), self._clients.mesh.prune())

    async def keep_for(self) -> None:
        """Let the finished runs of a tenant be kept for another time."""
        tenant_id = self._clients.tenant()
        if tenant_id is None:
            return
        days = self._dice.choice(KEPT_DAYS)
        kept = self._checker.keeping.days
        kept[tenant_id] = min(kept[tenant_id], days)
        await self._clients.call(
            ClientCall("keep for", f"{days:g} days: {self._names.of(tenant_id)}"),
            self._clients.mesh.set_retention(tenant_id, days),
        )

    async def reset_breaker(self) -> None:
        """Close a circuit by hand."""
        tenant_id = self._clients.tenant()
        if tenant_id is None:
            return
        self._checker.breaking.closing(tenant_id, BREAKER)
        call = ClientCall("reset breaker", self._names.of(tenant_id))
        await self._clients.call(call, self._clients.mesh.reset_breaker(tenant_id, breaker=BREAKER))
        if call.answer != UNKNOWN:
            self._checker.breaking.closed(tenant_id, BREAKER)

    async def look_at_breakers(self) -> None:
        """Look at the circuits of all tenants."""
        call = ClientCall("breakers", "")
        views = await self._clients.call(call, self._clients.mesh.breakers())
        for view in views if call.answer == OK else ():
            self._say(f"{view.name} of {view.tenant_id} is {view.state}")

    async def protect(self, tenant_id: str, policy: Any) -> None:
        """Give a tenant a breaker policy, unless its tier has none."""
        call = ClientCall("protect", self._names.of(tenant_id))
        await self._clients.call(call, self._clients.mesh.set_breaker_policy(tenant_id, policy, breaker=BREAKER))
        if call.answer == OK:
            self._checker.breaking.protected.add(tenant_id)
