"""Every verb of an orchestrator, tried by one tenant with the ids of another."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from synergymesh.domain.fault_tolerance.retry import RetryPolicy
from synergymesh.domain.states import ExecutionStatus
from synergymesh.engine.replay.what_if import TenantChange
from synergymesh.errors import NotFound, RunFailed
from synergymesh.orchestrator import Orchestrator
from synergymesh.ports.task_context import current_task
from synergymesh.workflows.workflow import Workflow

WAIT_SECONDS = 0.2
"""How long a verb that waits for a run may wait for one that it must not find."""

KEY = "a key that both tenants use"


@dataclass(frozen=True, slots=True)
class World:
    """Hold a mesh with two tenants: `me`, who asks, and `they`, with a run that ended, one that failed, one open."""

    mesh: Orchestrator
    me: str
    they: str
    done: str
    failed: str
    open: str
    dead_letter: str
    flow: Workflow

    async def everything_of_theirs(self) -> list[Any]:
        """Give all that can be seen of them, to find out whether something was changed."""
        mesh = self.mesh
        runs = await mesh.list_runs(tenant=self.they)
        return [
            await mesh.get_tenant(self.they),
            [await mesh.get_run(run.id, tenant=self.they) for run in runs],
            await mesh.dead_letters(tenant=self.they),
            [await mesh.logs(run.id, tenant=self.they) for run in runs],
        ]


Probe = Callable[[World], Awaitable[str | None]]
"""Tries a verb; gives what it found of the others, or None."""


async def make_world(mesh: Orchestrator, gate: asyncio.Event) -> World:
    """Fill a started mesh; the open run goes on once the gate is set."""

    async def fine() -> str:
        current_task().logger.info("what they log is theirs")
        return "their result"

    async def fails() -> None:
        raise ValueError("their error")

    begun = asyncio.Event()

    async def waits() -> None:
        begun.set()
        await gate.wait()

    flow = Workflow("fine").add(fine, id="task")
    failing = Workflow("fails").add(fails, id="task", retry=RetryPolicy(max_retries=0))
    waiting = Workflow("waits").add(waits, id="task")
    they = (await mesh.create_tenant("They", "enterprise")).tenant_id
    me = (await mesh.create_tenant("Me", "enterprise")).tenant_id
    done = await mesh.submit(flow, tenant=they, idempotency_key=KEY)
    failed = await mesh.submit(failing, tenant=they)
    still_open = await mesh.submit(waiting, tenant=they)
    await done.result()
    with contextlib.suppress(RunFailed):
        await failed.result()
    await begun.wait()
    (dead_letter,) = await mesh.dead_letters(tenant=they)
    return World(mesh, me, they, done.id, failed.id, still_open.id, dead_letter.id, flow)


async def try_verbs(world: World) -> dict[str, str]:
    """Try every verb; give what was found by the verb's name: nothing, when tenants are isolated."""
    before = await world.everything_of_theirs()
    found = {}
    for name, probe in PROBES.items():
        leak = await probe(world)
        if leak is not None:
            found[name] = leak
    if await world.everything_of_theirs() != before:
        found["a write"] = "something of the other tenant was changed"
    return found


def _by_run(verb: str, *more: Any, **given: Any) -> Probe:
    """Try a verb that takes a run's id, with each of their runs."""

    async def probe(world: World) -> str | None:
        for run_id in (world.done, world.failed, world.open):
            leak = await _nothing(getattr(world.mesh, verb)(run_id, *more, tenant=world.me, **given))
            if leak is not None:
                return leak
        return None

    return probe


def _by_dead_letter(verb: str, **given: Any) -> Probe:
    async def probe(world: World) -> str | None:
        return await _nothing(getattr(world.mesh, verb)(world.dead_letter, tenant=world.me, **given))

    return probe


async def _nothing(answering: Awaitable[Any]) -> str | None:
    """Wait for an answer, which has to be that there is no such thing."""
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            answer = await answering
    except NotFound:
        return None
    except TimeoutError:
        return "it waits for a run of the other tenant"
    except Exception as error:
        return f"the answer is another one than for what does not exist: {type(error).__name__}"
    return f"it answered: {str(answer)[:60]}"


async def _list_runs(world: World) -> str | None:
    runs = await world.mesh.list_runs(tenant=world.me)
    return next((f"it lists {run.id}" for run in runs if run.tenant_id != world.me), None)


async def _dead_letters(world: World) -> str | None:
    found = await world.mesh.dead_letters(tenant=world.me)
    return f"it lists {found[0].id}" if found else None


async def _redrive_many(world: World) -> str | None:
    redriven = await world.mesh.redrive_dead_letters(tenant=world.me)
    return f"it redrove or named {[*redriven.runs, *redriven.skipped]}" if redriven.runs or redriven.skipped else None


async def _count_open_runs(world: World) -> str | None:
    counted = await world.mesh.count_open_runs(world.me)
    return f"it counts {counted}" if counted else None


async def _submit(world: World) -> str | None:
    handle = await world.mesh.submit(world.flow, tenant=world.me, idempotency_key=KEY)
    await handle.result()
    return "their idempotency key gave their run" if handle.id == world.done else None


async def _handle(world: World) -> str | None:
    return await _nothing(world.mesh.handle(world.done, tenant=world.me).result())


async def _events_of(world: World) -> str | None:
    async def first() -> Any:
        async for event in world.mesh.events_of(world.done, tenant=world.me):
            return event
        return "an end without events"

    return await _nothing(first())


async def _get_tenant_health(world: World) -> str | None:
    health = await world.mesh.get_tenant_health(world.me)
    mine = await world.mesh.list_runs(tenant=world.me, status=ExecutionStatus.SUCCESS)
    return f"it counts {health.executions} executions" if health.executions > len(mine) else None


async def _what_if(world: World) -> str | None:
    change = TenantChange(weight=7)
    leak = await _nothing(world.mesh.what_if({world.they: change}, tenant=world.me))
    if leak is not None:
        return leak
    await _submit(world)  # there is something of mine to replay
    seen = await world.mesh.what_if({world.me: change}, tenant=world.me)
    return "the replay shows the other tenant" if world.they in str(seen) else None


async def _breakers(world: World) -> str | None:
    found = [each for each in await world.mesh.breakers(world.me) if each.tenant_id != world.me]
    return f"it lists {found[0]}" if found else None


async def _paused_workflows(world: World) -> str | None:
    await world.mesh.pause_workflow("nothing of mine", tenant=world.they)
    found = await world.mesh.paused_workflows(tenant=world.me)
    await world.mesh.resume_workflow("nothing of mine", tenant=world.they)
    return f"it lists {found[0]}" if found else None


async def _audit_log(world: World) -> str | None:
    found = (await world.mesh.audit_log(world.me, as_tenant=True)).entries
    found += (await world.mesh.audit_log(world.me, as_tenant=True, entity=f"run/{world.done}")).entries
    return next((f"it has entry {each.seq} of the other one" for each in found if world.they in str(each)), None)


PROBES: Mapping[str, Probe] = MappingProxyType(
    {
        "audit_log": _audit_log,
        "breakers": _breakers,
        "cancel_run": _by_run("cancel_run"),
        "count_open_runs": _count_open_runs,
        "dead_letters": _dead_letters,
        "discard_dead_letter": _by_dead_letter("discard_dead_letter", reason="none of mine"),
        "events_of": _events_of,
        "explain": _by_run("explain"),
        "get_dead_letter": _by_dead_letter("get_dead_letter"),
        "get_run": _by_run("get_run"),
        "get_tenant_health": _get_tenant_health,
        "handle": _handle,
        "list_runs": _list_runs,
        "logs": _by_run("logs"),
        "pause_run": _by_run("pause_run"),
        "paused_workflows": _paused_workflows,
        "redrive_dead_letter": _by_dead_letter("redrive_dead_letter"),
        "redrive_dead_letters": _redrive_many,
        "replay": _by_run("replay"),
        "result_of": _by_run("result_of"),
        "resume_run": _by_run("resume_run"),
        "retry_run": _by_run("retry_run"),
        "submit": _submit,
        "timeline": _by_run("timeline"),
        "what_if": _what_if,
    }
)
"""How each verb that knows tenants is tried."""

_NAMES_ITS_TENANT = "it names the tenant itself, and nothing else: whoever calls it decides for whom"
_OPERATOR = "it is the operator's, who sees all tenants"
_LIFE = "it starts or ends the mesh, or says who acts"

EXEMPT: Mapping[str, str] = MappingProxyType(
    {
        "acquire_rate_limit": _NAMES_ITS_TENANT,
        "acting_as": _LIFE,
        "alerts": _OPERATOR,
        "audit_holds": _OPERATOR,
        "audit_keys": _OPERATOR,
        "call": _NAMES_ITS_TENANT,
        "check_resource_quota": _NAMES_ITS_TENANT,
        "close": _LIFE,
        "create_tenant": _OPERATOR,
        "delete_tenant": _NAMES_ITS_TENANT,
        "erase_audit": _OPERATOR,
        "export_audit": _NAMES_ITS_TENANT,
        "get_metrics": _OPERATOR,
        "get_tenant": _NAMES_ITS_TENANT,
        "hold_audit": _NAMES_ITS_TENANT,
        "lingering": _OPERATOR,
        "list_tenants": _OPERATOR,
        "metrics_text": _OPERATOR,
        "modify_quota": _NAMES_ITS_TENANT,
        "neighbours": _OPERATOR,
        "overview": _OPERATOR,
        "pause_workflow": _NAMES_ITS_TENANT,
        "prune": _OPERATOR,
        "prune_audit": _NAMES_ITS_TENANT,
        "queue": _OPERATOR,
        "release_audit": _NAMES_ITS_TENANT,
        "reset_breaker": _NAMES_ITS_TENANT,
        "resume_tenant": _NAMES_ITS_TENANT,
        "resume_workflow": _NAMES_ITS_TENANT,
        "rotate_audit_key": _OPERATOR,
        "set_breaker_policy": _NAMES_ITS_TENANT,
        "set_quota": _NAMES_ITS_TENANT,
        "set_retention": _NAMES_ITS_TENANT,
        "set_retry_policy": _NAMES_ITS_TENANT,
        "set_tier": _NAMES_ITS_TENANT,
        "set_share": _NAMES_ITS_TENANT,
        "set_weight": _NAMES_ITS_TENANT,
        "sla_report": _NAMES_ITS_TENANT,
        "start": _LIFE,
        "suspend_tenant": _NAMES_ITS_TENANT,
        "throttle_tenant": _NAMES_ITS_TENANT,
        "verify_audit": _NAMES_ITS_TENANT,
        "with_personal_data": _LIFE,
    }
)
"""Verbs that are not tried, and why."""


def verbs_of(kind: type) -> set[str]:
    """Give the names of the public methods of a class."""
    return {name for name in dir(kind) if not name.startswith("_") and callable(getattr(kind, name))}


def untried_verbs() -> list[str]:
    """Give the verbs of an orchestrator that are neither tried nor exempt: none, or a new one was forgotten here."""
    return sorted(verbs_of(Orchestrator) - PROBES.keys() - EXEMPT.keys())
