"""Examines whether tenants are kept apart: by this version, and in a database."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from itertools import pairwise

from synergymesh.diagnostics import isolation_store, isolation_verbs
from synergymesh.diagnostics.findings import Finding, note, ok, wrong
from synergymesh.errors import StoreError
from synergymesh.orchestrator import Orchestrator
from synergymesh.settings import Settings
from synergymesh.store.sqlite import SqliteReader, SqliteStore
from synergymesh.store.sqlite_files import parse_address

TENANTS_MAX = 200
"""Tenants of a database whose latest run is looked for with another tenant's id."""

_REPORT = "Stop serving more than one tenant, and report this with the version; it must never happen."


async def examine_isolation(database: str | None) -> list[Finding]:
    """Try everything with a foreign tenant's ids: on a mesh and a store in memory, and reads on a database.

    Args:
        database: URL or file name; None, or one that is not there, for none.
    """
    findings = [
        _of_verbs(await _try_mesh()),
        _of("store", await _try_store(), len(isolation_store.READS) + len(isolation_store.CHANGES)),
        *(
            wrong("untried", f"{name} is new, and is not tried here.", "Add it to the tables of the isolation check.")
            for name in (*isolation_verbs.untried_verbs(), *isolation_store.untried())
        ),
    ]
    path = None if database is None else parse_address(database)
    if path is None or not path.exists():
        findings.append(note("database", "there is none; only this version was tried, in memory."))
    else:
        findings.append(await _examine_database(str(path)))
    return findings


async def _try_mesh() -> dict[str, str]:
    settings = Settings(database=":memory:", shutdown_grace_seconds=0.1, stop_grace_seconds=0.1)
    gate = asyncio.Event()
    async with Orchestrator(settings=settings) as mesh:
        world = await isolation_verbs.make_world(mesh, gate)
        found = await isolation_verbs.try_verbs(world)
        gate.set()
        await mesh.handle(world.open, tenant=world.they).result()
        return found


async def _try_store() -> dict[str, str]:
    store = SqliteStore(":memory:")
    await store.open()
    try:
        return await isolation_store.try_store(store)
    finally:
        await store.close()


def _of_verbs(found: Mapping[str, str]) -> Finding:
    return _of("verbs", found, len(isolation_verbs.PROBES))


def _of(subject: str, found: Mapping[str, str], tried: int) -> Finding:
    if not found:
        return ok(subject, f"{tried} were tried with another tenant's ids; none found or changed anything.")
    leaks = "; ".join(f"{name}: {what}" for name, what in found.items())
    return wrong(subject, f"tenants are not kept apart: {leaks}.", _REPORT)


async def _examine_database(database: str) -> Finding:
    """Look for each tenant's latest run with the next tenant's id."""
    reader = SqliteReader(database)
    try:
        await reader.open()
        tenants = [tenant.tenant_id for tenant in await reader.list_tenants()][:TENANTS_MAX]
        tried = 0
        for owner, other in pairwise([*tenants, *tenants[:1]] if len(tenants) > 1 else []):
            for run in await reader.list_runs(tenant_id=owner, limit=1):
                tried += 1
                ids = [run.run_id]
                answers = [
                    await reader.get_run(run.run_id, other),
                    await reader.list_tasks(ids, other),
                    await reader.list_attempts(ids, other),
                    await reader.list_outputs(run.run_id, None, other),
                ]
                if run.tenant_id != owner or any(answers):
                    return wrong("database", f"{run.run_id} of {owner} is found as {other}.", _REPORT)
    except StoreError as error:
        return wrong("database", str(error), "`synergymesh doctor` says more.")
    finally:
        await reader.close()
    if not tried:
        return note("database", "it has no two tenants with a run; only this version was tried, in memory.")
    return ok("database", f"the latest runs of {tried:,} tenants were looked for by other tenants, and not found.")
