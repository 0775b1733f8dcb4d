"""One world: a mesh that lives, dies and lives again in virtual time, and the people who use it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import inspect
import logging
import re
from asyncio import events
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Any

from synergymesh.assembly import Seams
from synergymesh.domain.fault_tolerance.breaker import BreakerState
from synergymesh.domain.fault_tolerance.retry import Outcome, RetryPolicy
from synergymesh.domain.instants import SECOND
from synergymesh.domain.quota import ResourceQuota
from synergymesh.domain.states import TenantStatus
from synergymesh.domain.tenants import TIER_PLANS, Tenant
from synergymesh.engine.control.cancellation import OPEN
from synergymesh.engine.live import Attempt
from synergymesh.engine.observability.views import tenant_view
from synergymesh.errors import NotFound, StoreError, SynergyMeshError
from synergymesh.executors.loop import LoopExecutor
from synergymesh.orchestrator import Orchestrator
from synergymesh.ports.changes import Unit
from synergymesh.ports.clock import Clock
from synergymesh.ports.executor import Call
from synergymesh.ports.records import CommitResult
from synergymesh.ports.task_context import TaskContext
from synergymesh.settings import Settings, read_settings
from synergymesh.testing.faults import FaultyExecutor, FaultyStore
from synergymesh.testing.inline_store import Database, MemoryDatabase
from synergymesh.testing.memory import differences
from synergymesh.testing.simulation.checker import Checker
from synergymesh.testing.simulation.clients import ROOMY, Clients
from synergymesh.testing.simulation.fairness import Fairness
from synergymesh.testing.simulation.fate import WorldFate
from synergymesh.testing.simulation.holds import Subject
from synergymesh.testing.simulation.naming import Names
from synergymesh.testing.simulation.operators import Operators
from synergymesh.testing.simulation.options import Options
from synergymesh.testing.simulation.plan import make_plan
from synergymesh.testing.simulation.script import LONGEST_SECONDS, Script
from synergymesh.testing.simulation.tasks import MEAN_BUDGET, QUICK_BREAKER, Tasks
from synergymesh.testing.simulation.usage import Token, token_of
from synergymesh.testing.simulation.violation import Violation, WorldEnded
from synergymesh.testing.virtual_threads import VirtualThreads
from synergymesh.testing.virtual_time import Deadlock, Livelock, VirtualClock, VirtualLoop

_ID = re.compile(r"(?:run-[0-9a-f]{24}|tenant-[0-9a-f]{16})")

HEALING_SECONDS = 60.0 + LONGEST_SECONDS
"""After healing everything is final within a minute, plus the longest task; and that long after a circuit was open."""

PATIENCE_SECONDS = 3_000.0
"""So long after it should have been healed a world has certainly hung up."""

BURIALS_MAX = 5
"""So often a coroutine may wait for something else instead of ending."""

CLOCK_STEPS = (-86_400, -3_600, -30, -1, 1, 30, 3_600, 86_400)
"""Seconds by which a clock jumps."""

DEFAULT_RETRY = RetryPolicy(max_retries=2, initial_delay=0.2)

SETTLING_SECONDS = 6.0
"""After healing, what is in doubt is settled soon."""

LIVES_MAX = 60
"""A world that dies more often than it can be told to would never end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Say what happened in a world in which everything held.

    Attributes:
        digest: of the trace; the same for the same seed.
        deaths: by fault point.
    """

    seed: int
    options: Options
    trace: list[str]
    digest: str
    lives: int
    deaths: Counter[str]
    runs: int
    attempts: int
    commits: int
    seconds: float


class World:
    """Make a world from a seed and let it be.

    Args:
        seed: everything follows from it.
        options: instead of those that follow from the seed.
        database: what outlives the processes; by default SQLite in memory.
        watch: is called with each line of the trace when it is written.
    """

    def __init__(
        self,
        seed: int,
        options: Options | None = None,
        *,
        database: Database | None = None,
        watch: Callable[[str], None] | None = None,
    ) -> None:
        self.seed = seed
        self.options = options or Options.from_seed(seed)
        self.trace: list[str] = []
        self._watch = watch
        self._database = database or MemoryDatabase()
        self._loop = VirtualLoop()
        self._loop.close()  # shows the time until the first life begins
        self._clock = VirtualClock(self._loop)
        self._names = Names()
        self._dice = Random(f"{seed}/plan")
        self._engine_dice = Random(f"{seed}/engine")
        self._further_dice = Random(f"{seed}/features")
        has_mean_budget = self._further_dice.random() < 0.4
        self._breaker_policy = MEAN_BUDGET if has_mean_budget else QUICK_BREAKER
        self._checker = Checker(self._fail, self._seconds, self.options, DEFAULT_RETRY, has_mean_budget=has_mean_budget)
        self._checker.usage.checks_hours = not self.options.clock_steps
        self._checker.breaking.has_one_clock = not self.options.clock_steps
        self._fate = WorldFate(seed, self.options, self._say)
        self._script = Script(seed, self.options, self._seconds)
        self._tasks = Tasks(self._script, self._fate, self._begins, self._checker.timing.beats)
        haste = Random(f"{seed}/haste") if self.options.has("haste") else None
        self._clients = Clients(self._dice, self._checker, self._names, self._fail, self._say, self._chosen, haste)
        self._operators = Operators(self._clients, self._say, self._fail)
        self._fairness = Fairness(self._fail)
        self._clients.workflows = self._tasks.workflows(self._dice, self.options, self._further_dice)
        self._plan = make_plan(self.options, self._dice)
        self._settings = _settings(self.options.slots, self.options.window)
        self._violation: Violation | None = None
        self._mesh: Orchestrator | None = None
        self._engine_clock: Clock = self._clock
        self._executors: dict[str, FaultyExecutor] = {}
        self._store: FaultyStore | None = None
        self._raw: Any = None
        self._lives = 0
        self._commits = 0
        self._changed = False
        self._busy: set[asyncio.Task[Any]] = set()
        self._over = False
        self._healed_at: float | None = None

    def run(self) -> Report:
        """Let everything happen, and check it.

        Raises:
            Violation: something does not hold.
        """
        level = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        try:
            while not self._over:
                self._live_once()
        except Violation:
            raise
        except WorldEnded:
            assert self._violation is not None
            raise self._violation from None
        finally:
            _bury(self._loop)
            _finish(self._database.destroy())
            logging.disable(level)
        return Report(
            seed=self.seed,
            options=self.options,
            trace=self.trace,
            digest=hashlib.sha256("\n".join(self.trace).encode()).hexdigest(),
            lives=self._lives,
            deaths=self._fate.deaths,
            runs=len(self._checker.history.runs),
            attempts=len(self._checker.effects),
            commits=self._commits,
            seconds=self._loop.time(),
        )

    # --- lives ------------------------------------------------------------------------------------------------------

    def _live_once(self) -> None:
        """Live until the process dies or ends, on a loop of its own, which is left as it is then."""
        self._lives += 1
        if self._lives > LIVES_MAX:
            self._report("I11", f"after {LIVES_MAX} lives it still dies")
        loop = VirtualLoop(self._loop.time())
        self._loop = self._clock.loop = loop
        set_back = self._lives > 1 and not self._fate.healed and self._be_down()
        loop.idle = self._rests
        loop.set_exception_handler(self._unhandled)
        self._fate.begin_life(loop)
        self._checker.timing.begin_life(set_back=set_back)
        self._checker.breaking.begin_life(set_back=set_back)
        living = loop.create_task(self._live(), name="world")
        living.add_done_callback(lambda task: loop.stop())
        try:
            loop.run_forever()
        except WorldEnded:
            pass
        except (Livelock, Deadlock) as error:
            self._report("I11", str(error))
        if self._violation is not None:
            raise self._violation
        if self._fate.died_at is None and living.done():
            living.result()
        _bury(loop)
        self._busy.clear()
        if self._fate.died_at is not None and self._raw is not None:
            _finish(self._database.died(self._raw))
        self._mesh = self._raw = None

    def _be_down(self) -> bool:
        """Let time pass between two lives; tell whether the clock is set back meanwhile, or was before."""
        dice = self._further_dice
        seconds = dice.uniform(0.0, self.options.down_seconds)
        self._loop.leap(seconds)
        if self.options.clock_steps and dice.random() < 0.5:
            step = dice.choice(CLOCK_STEPS)
            self._say(f"the clock is set by {step} s while nothing runs")
            self._clock.step(step)
        return bool(self.options.clock_steps)

    async def _live(self) -> None:
        await self._begin()
        loop = self._loop
        while self._plan:
            at, action = self._plan[0]
            await asyncio.sleep(max(0.0, at - loop.time()))
            self._plan.pop(0)
            if action == "restart":
                await self._end()
                return
            self._do(action)
        if self.options.kind == "fair":
            await self._flood()
        await asyncio.sleep(max(0.0, self.options.seconds - loop.time()))
        if not self._fate.healed:
            self._heal()
            if self._fate.lasting:
                self._say("a restart, as an error did not pass by itself")
                await self._end()
                return
        await self._come_to_rest()
        await self._end()
        self._over = True

    async def _begin(self) -> None:
        """Start a mesh; again, if the store fails meanwhile."""
        while True:
            self._raw = self._database.connect()
            self._store = FaultyStore(self._raw, self._fate, self._committed, self._wrote)
            hooks = (self._handed, self._reported, self._stopped, self._fate.of_loss)
            self._executors = {
                "loop": FaultyExecutor(LoopExecutor(), self._fate, *hooks),
                "thread": FaultyExecutor(VirtualThreads(self._tasks.seconds_of), self._fate, *hooks),
            }
            seams = Seams(store=self._store, executors=self._executors, dice=self._engine_dice)
            mesh = Orchestrator(
                workflows=self._clients.workflows,
                clock=self._clock,
                seams=seams,
                settings=self._settings,
                default_retry=DEFAULT_RETRY,
            )
            try:
                await self._raw.open()
                quotas, held = await _limits_of(self._raw)
                self._checker.usage.begin_life(quotas)
                self._checker.holds.begin_life(held)
                await mesh.start()
                break
            except StoreError as error:
                self._say(f"cannot start: {error}")
                await asyncio.sleep(0.5)
        assert mesh._parts is not None
        self._engine_clock = mesh._parts.attempts._clock
        self._checker.breaking.now = self._engine_clock.now
        self._mesh = mesh
        self._clients.begin_life(mesh)
        self._say(f"life {self._lives} begins with {len(self._checker.history.open_runs())} open runs")
        if not self._clients.tenants and not self._checker.history.parents:
            await self._first_tenants()

    async def _first_tenants(self) -> None:
        for number in range(self.options.tenants):
            quota = ROOMY
            if self.options.kind in ("limits", "churn"):
                quota = self._clients.draw_quota()
            elif self.options.kind == "hours":
                quota = ResourceQuota(
                    max_concurrent_tasks=5, max_tasks_per_hour=self._dice.randint(8, 120), rate_limit_per_second=1_000
                )
            tenant_id = await self._clients.create_tenant(quota)
            if tenant_id is None:
                self._say(f"tenant {number} could not be made")
            elif self.options.has("circuits"):
                await self._operators.protect(tenant_id, self._breaker_policy)

    async def _end(self) -> None:
        """End this life cleanly."""
        self._say("the process is told to end")
        assert self._mesh is not None
        try:
            await self._mesh.close(grace_seconds=self._dice.choice((0.0, 0.1, 2.0)))
        except StoreError as error:
            self._say(f"it could not say that it ended: {error}")
        self._loop.stop()

    def _do(self, action: str) -> None:
        """Begin an action; nobody waits for it."""
        if action == "pause":
            seconds = self._dice.uniform(0.1, 10.0)
            self._say(f"the process stands still for {seconds:.1f} s")
            self._loop.leap(seconds)
            self._checker.timing.slept(seconds)
        elif action == "step the clock":
            seconds = self._dice.choice(CLOCK_STEPS)
            self._say(f"the clock jumps by {seconds} s")
            self._clock.step(seconds)
        elif action == "crash an executor":
            name = self._dice.choice(list(self._executors))
            self._say(f"the executor {name} crashes")
            self._executors[name].crash()
        else:
            people = self._operators if hasattr(self._operators, action) else self._clients
            self._ask(people.act(action), action)

    def _ask(self, action: Coroutine[Any, Any, Any], name: str) -> None:
        """Let somebody do something, and hold on to him: the loop would forget him while he waits."""
        self._busy.add(task := self._loop.create_task(action, name=name))
        task.add_done_callback(self._busy.discard)

    # --- healing ----------------------------------------------------------------------------------------------------

    def _heal(self) -> None:
        """Let nothing go wrong any more."""
        self._say("nothing goes wrong any more")
        self._fate.healed = True
        self._clients.is_hasty = False
        self._script.calm = True

    async def _come_to_rest(self) -> None:
        """Remove every limit, and wait until everything is final; then nothing is used."""
        clients, history = self._clients, self._checker.history
        assert self._mesh is not None
        mesh = self._mesh
        await asyncio.sleep(SETTLING_SECONDS)
        await self._is_in_force(mesh)
        await self._operators.unpause_everything()
        for tenant in await self._tenants_left(mesh):
            await clients.set_quota(tenant.tenant_id, ROOMY)
            await clients.resume(tenant.tenant_id)
            with contextlib.suppress(NotFound, StoreError):  # it is just being deleted
                await mesh.throttle_tenant(tenant.tenant_id, None)
        until = self._loop.time() + HEALING_SECONDS
        while self._loop.time() < until:
            await asyncio.sleep(0.25)
            if not self._checker.usage.under_way and not await mesh.count_open_runs():
                break
            until = max(until, self._loop.time() + self._circuits_open_for(mesh) + HEALING_SECONDS)
        if await mesh.count_open_runs():
            left = [self._names.of(run.created.run_id) for run in history.open_runs()]
            self._fail("I11", f"{HEALING_SECONDS:g} s after healing, {left} are not final")
        await asyncio.sleep(5.0)  # calls that began before may be delayed for two seconds
        await self._is_in_force(mesh)
        waiting = [task.get_name() for task in asyncio.all_tasks() if task.get_name() in ACTIONS_THAT_END]
        if waiting:
            self._fail("I11", f"everything is final, and these wait for an answer: {waiting}")
        for call in clients.calls:
            run = history.runs.get(call.run_id or "")
            if run is not None and run.end is None and run.created.tenant_id not in history.deleted:
                self._fail("I1", f"{call.run_id} was acknowledged, and is not final")
        self._checker.is_quiet(await mesh.queue())
        await self._probe(mesh)
        if self.options.has("retention"):
            await mesh.prune()
        letters = await mesh.dead_letters(limit=1_000)
        self._checker.keeping.check_dead_letters({letter.id for letter in letters})
        await self._checker.compare_with(self._raw)
        self._say("everything is final, and as it was recorded")

    async def _tenants_left(self, mesh: Orchestrator) -> list[Tenant]:
        """Give the tenants that are not deleted: one whose deletion reported an error may still be listed."""
        deleted = self._checker.history.deleted
        return [tenant for tenant in await mesh.list_tenants() if tenant.tenant_id not in deleted]

    def _circuits_open_for(self, mesh: Orchestrator) -> float:
        """Give the seconds until the last open circuit is tried again, less than none when no circuit is open.

        A task that fails each time opens its circuit for twice as long with every retry.
        """
        now = self._clock.now()
        open_ = (c.breaker for c in mesh._running.circuits.live.values() if c.breaker.state is BreakerState.OPEN)
        return max(((breaker.until - now) / SECOND for breaker in open_), default=-2 * HEALING_SECONDS)

    async def _is_in_force(self, mesh: Orchestrator) -> None:
        """Check that the mesh goes by what is recorded: tenants, their limits, and pauses (I7)."""
        if different := await differences(mesh, self._raw):
            self._fail("I7", f"the process goes by something else than its store: {different}")

    async def _probe(self, mesh: Orchestrator) -> None:
        """Submit one more task under limits that leave room for nothing else: a count that leaked would refuse it."""
        for tenant in await self._tenants_left(mesh):
            quota = ResourceQuota(max_concurrent_tasks=1, max_tasks_per_hour=1_000_000, max_queued_tasks=1, burst=9)
            await self._clients.set_quota(tenant.tenant_id, quota)
        for tenant in await self._tenants_left(mesh):
            for _ in range(2):  # a clock that went back has used up the burst, so the first one may be too early
                call = await self._clients.submit(tenant.tenant_id, self._clients.workflows[0])
                await asyncio.sleep(1.0)
                if call is not None and call.answer == "ok":
                    break
            else:
                self._fail("I7", f"{self._names.of(tenant.tenant_id)} has nothing open, and one more task is refused")
        await asyncio.sleep(5.0)
        if await mesh.count_open_runs():
            self._fail("I11", "one more task does not end")

    async def _flood(self) -> None:
        """Let all tenants have work at the same time, one of them much more, and see who gets what."""
        flood = self._fairness.flood(self._clients.tenants, self._dice, self._tasks)
        mesh = self._clients.mesh
        for tenant_id, weight, workflow, runs in flood:
            await mesh.set_weight(tenant_id, weight)
            for _ in range(runs):
                self._ask(self._clients.submit(tenant_id, workflow), "submit")
        await asyncio.sleep(self._fairness.seconds)
        self._fairness.check(self.options.slots)

    def _seconds(self) -> float:
        return self._loop.time()

    # --- what is seen -----------------------------------------------------------------------------------------------

    def _say(self, text: str) -> None:
        line = f"{self._loop.time():10.4f} {text}"
        for full in _ids(text):
            line = line.replace(full, self._names.of(full))
        self.trace.append(line)
        if self._watch is not None:
            self._watch(line)

    def _committed(self, units: Sequence[Unit], results: Sequence[CommitResult]) -> None:
        self._commits += 1
        self._changed = True
        kinds = Counter(type(change).__name__ for unit in units for change in unit)
        self._say("commit " + ", ".join(f"{count} {kind}" for kind, count in kinds.items()))
        self._checker.committed(units, results)

    def _wrote(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        if name == "prune_runs":
            if result.rows:
                self._say(f"pruned {result.rows} rows")
            self._checker.keeping.pruned(args[0], result, self._engine_clock.now())

    def _handed(self, call: Call) -> None:
        self._changed = True
        assert isinstance(call, Attempt)
        self._say(f"start {self._names.of(call.context.run_id)}/{call.context.task_id} attempt {call.context.attempt}")
        self._checker.handed(call)
        self._fairness.started(call.context, self._loop.time())

    def _reported(self, call: Call, outcome: Outcome) -> None:
        self._changed = True
        token = token_of(call)
        self._say(f"{type(outcome).__name__} {self._names.of(token[0])}/{token[1]} attempt {token[2]}")
        self._checker.usage.reported(call)

    def _stopped(self, call: Call) -> None:
        assert isinstance(call, Attempt)
        self._checker.timing.stopped(call)

    def _begins(self, context: TaskContext, used: tuple[Any, ...]) -> None:
        self._checker.begins(context, used, self._clock.now() if not self.options.clock_steps else 1 << 62)

    def _chosen_calls(self) -> list[Attempt]:
        """Give the attempts that have a slot and are not handed over yet: their start is being recorded."""
        assert self._mesh is not None
        parts = self._mesh._parts
        if parts is None:
            return []
        return [attempt for attempt in parts.attempts.under_way.values() if attempt.executor is None]

    def _chosen(self) -> list[Token]:
        return [token_of(attempt) for attempt in self._chosen_calls()]

    def _rests(self) -> None:
        """Check the counts before time passes."""
        if self._loop.time() > self.options.seconds + PATIENCE_SECONDS:
            self._fail("I11", "it neither ends nor comes to rest")
        mesh = self._mesh
        if not self._changed or mesh is None or mesh._parts is None:
            return
        self._changed = False
        self._checker.rests(mesh._parts.explaining.queue(), self._chosen_calls())
        parts = mesh._parts
        for work, fault in parts.committer._background.faults.items():
            self._fail("engine", f"an error in {work}: {fault.error}")
        under_way = list(parts.attempts.under_way.values())
        if self.options.has("deadlines"):
            self._checker.timing.rests(under_way)
        if parts.circuits.live:
            self._checker.breaking.rests(parts.circuits, under_way)

    # --- what must not be -------------------------------------------------------------------------------------------

    def _unhandled(self, loop: Any, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, WorldEnded):
            return
        if isinstance(error, SynergyMeshError) and "Future" in context.get("message", ""):
            return  # an answer of the mesh that nobody was there to hear any more
        self._report("engine", f"{context.get('message')}: {error!r}")
        if self._violation is not None:
            self._violation.__cause__ = error
        self._loop.stop()

    def _report(self, invariant: str, message: str) -> None:
        if self._violation is None:
            for full in _ids(message):
                message = message.replace(full, self._names.of(full))
            self._violation = Violation(invariant, message, seed=self.seed, options=self.options, trace=self.trace)

    def _fail(self, invariant: str, message: str) -> None:
        self._report(invariant, message)
        raise WorldEnded(message)


ACTIONS_THAT_END = ("submit", "submit_again", "submit_another", "cancel", "look", "change_quota", "delete_tenant")
"""Once all runs are final, everybody who did this has an answer."""


def simulate(seed: int, **arguments: Any) -> Report:
    """Let one world be and check it.

    Raises:
        Violation: something does not hold.
    """
    return World(seed, **arguments).run()


@lru_cache
def _settings(slots: int, window: int) -> Settings:
    """Give the settings; reading them takes longer than many a world."""
    return read_settings(
        database=":memory:",
        max_concurrent_tasks=slots,
        waiting_runs_in_memory=window,
        memory_mb=1_000_000,
        cpus=64,
        shutdown_grace_seconds=1.0,
        stop_grace_seconds=0.5,
        watchdog_seconds=0,
    )


PLANS = {tier.value: plan for tier, plan in TIER_PLANS.items()}


async def _limits_of(store: Any) -> tuple[dict[str, ResourceQuota], list[Subject]]:
    """Give the quota of every tenant, and what is suspended or paused, as the store has it."""
    records = await store.list_tenants()
    quotas = {record.tenant_id: tenant_view(record, PLANS).quota for record in records}
    held: list[Subject] = [
        ("tenant", record.tenant_id) for record in records if record.status is TenantStatus.SUSPENDED
    ]
    held += [("workflow", each.tenant_id, each.workflow) for each in await store.list_pauses()]
    runs = await store.list_runs(tenant_id=None, statuses=OPEN, limit=1_000)
    held += [("run", each.run_id) for each in runs if each.paused_at is not None]
    return quotas, held


def _ids(text: str) -> list[str]:
    """Give the ids of runs and tenants in a text."""
    return _ID.findall(text)


def _bury(loop: VirtualLoop) -> None:
    """Close a loop and let go of what is left half done on it; what that wants to do at its end is not heard."""
    loop.set_exception_handler(lambda loop, context: None)
    tasks = asyncio.all_tasks(loop)
    loop.close()
    loop.create_task = _refuse  # type: ignore[method-assign, assignment]  # what ends may begin nothing here
    events._set_running_loop(loop)
    try:
        _close(tasks)
    finally:
        events._set_running_loop(None)


def _refuse(coroutine: Any, **options: Any) -> Any:
    """Begin nothing on a loop that is closed."""
    _end(coroutine)
    raise RuntimeError("the loop is closed.")


def _close(tasks: set[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # asyncio has no other way to say so
        coroutine: Any = task.get_coro()
        for _ in range(BURIALS_MAX):
            with contextlib.suppress(BaseException):
                _end(coroutine)
                break


def _end(coroutine: Any) -> None:
    """Close a coroutine, and what it would have awaited if it had begun."""
    given = list(inspect.getcoroutinelocals(coroutine).values()) if inspect.iscoroutine(coroutine) else []
    coroutine.close()
    for each in given:
        if inspect.iscoroutine(each):
            _end(each)


def _finish(coroutine: Any) -> None:
    """Run a coroutine on a loop of its own."""
    loop = VirtualLoop()
    try:
        loop.run_until_complete(coroutine)
    finally:
        loop.close()
