"""The general examination: machine, database, owner."""

from __future__ import annotations

from synergymesh.diagnostics.database import examine_database
from synergymesh.diagnostics.findings import Finding, note
from synergymesh.diagnostics.machine import examine_machine
from synergymesh.diagnostics.owner import examine_owner
from synergymesh.domain.instants import Instant
from synergymesh.store.sqlite_files import parse_address


async def examine(database: str, now: Instant, *, deep: bool = False) -> list[Finding]:
    """Examine the machine and a database; nothing is changed, and nobody waits for it.

    Args:
        database: URL or file name.
        now: the present moment.
        deep: whether every page, index and reference is read, however many there are.

    Raises:
        InvalidRequest: that is no database.
    """
    path = parse_address(database)
    findings = list(examine_machine(path))
    if path is None:
        return [*findings, note("database", "it is in memory: it ends with its process.")]
    findings += examine_database(path, now, deep=deep)
    if path.exists():
        findings.append(await examine_owner(path))
    return findings
