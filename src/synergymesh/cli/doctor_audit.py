"""Shows what `synergymesh doctor audit` found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from synergymesh.cli import output
from synergymesh.cli.audit import MESH, find_log
from synergymesh.cli.moments import read_moment
from synergymesh.domain.instants import from_datetime

if TYPE_CHECKING:
    from synergymesh.diagnostics.audit import AuditExamination

ROWS_SHOWN_MAX = 20
"""Rows of each table; `--json` has all."""


async def ask(database: str, tenant: str | None, since: str) -> tuple[AuditExamination, Mapping[str, str]]:
    """Examine the audit log of a database, or of one tenant; give the names of its tenants, too.

    Raises:
        InvalidRequest: the time cannot be read, or several tenants have that name.
        StoreError: the database cannot be read.
    """
    from synergymesh.cli.reading import need_database
    from synergymesh.diagnostics.audit import examine_audit
    from synergymesh.ports.clock import SystemClock
    from synergymesh.store.sqlite import SqliteReader

    begin = read_moment(since, "since")
    assert begin is not None
    need_database(database)
    reader = SqliteReader(database)
    await reader.open()
    try:
        names = {each.tenant_id: each.tenant_name for each in await reader.list_tenants()}
    finally:
        await reader.close()
    tenant_id = None if tenant is None else find_log(tenant, names)
    now = SystemClock().now()
    return await examine_audit(database, now, since=from_datetime(begin), tenant_id=tenant_id), names


def show(found: AuditExamination, names: Mapping[str, str]) -> None:
    """Print what failed, and what was done with power or access."""

    def whose(tenant_id: str) -> str:
        return names.get(tenant_id, tenant_id or MESH)

    output.show_fields(
        {
            "entries": f"{found.entries:,} in {found.chains:,} chains",
            "since": output.moment(found.since),
            "failed or denied": f"{sum(each.count for each in found.unsuccessful):,}",
            "sensitive": f"{len(found.sensitive):,}",
        }
    )
    if found.unsuccessful:
        output.say()
        rows = [
            (whose(u.tenant_id), u.action, u.outcome, u.reason or "-", f"{u.count:,}", output.moment(u.last_at))
            for u in found.unsuccessful[:ROWS_SHOWN_MAX]
        ]
        output.show_table(("TENANT", "ACTION", "OUTCOME", "REASON", "COUNT", "LAST"), rows, numbers=("COUNT",))
        _more(len(found.unsuccessful), "kinds of failures")
    if found.sensitive:
        output.say()
        output.show_table(
            ("SENSITIVE", "AT", "TENANT", "ENTITY", "ACTOR", "OUTCOME"),
            [
                (e.action, output.moment(e.at), whose(e.tenant_id), e.entity, e.actor, e.outcome)
                for e in found.sensitive[:ROWS_SHOWN_MAX]
            ],
        )
        _more(len(found.sensitive), "sensitive actions")
    output.say()


def _more(count: int, what: str) -> None:
    if count > ROWS_SHOWN_MAX:
        output.note(f"{count - ROWS_SHOWN_MAX:,} more {what}: --json has them")
