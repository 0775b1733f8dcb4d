"""The general examination: machine, database, audit log, owner."""

from __future__ import annotations

from synergymesh.diagnostics.audit_lag import examine_audit_lag
from synergymesh.diagnostics.database import examine_database
from synergymesh.diagnostics.findings import Finding, is_wrong, note
from synergymesh.diagnostics.machine import examine_machine
from synergymesh.diagnostics.owner import examine_owner
from synergymesh.domain.instants import Instant
from synergymesh.store.sqlite_files import parse_address

_NEEDED = ("settings", "database", "migrations")
"""What has to be right before the audit log can be looked at."""


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
    if not is_wrong(finding for finding in findings if finding.subject in _NEEDED):
        findings += await examine_audit_lag(path, now)
    if path.exists():
        findings += await examine_owner(path)
    return findings
