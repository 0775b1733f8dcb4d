"""The audit log as a part of the store: what its rows are, and how they are read.

Nothing adds an entry but `Store.commit` (and the verbs that begin and end a life of a process, and purge): each entry
is chained in the transaction of the change that it is about, so no entry is ever unsealed, and no chain has a gap. An
entry stands for a row that really changed: a change that is applied a second time changes nothing, and leaves none.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from synergymesh.domain.audit.actions import Action, Outcome
from synergymesh.domain.instants import Instant

AUDIT_PAGE_MAX = 10_000
"""Entries of one page: about 5 MB."""

AUDIT_SCAN_MAX = 200_000
"""Entries that one call looks at for those that are wanted: about 0.2 s. The cursor says how far it came."""


class AuditEntryRecord(msgspec.Struct, frozen=True, gc=False):
    """An entry as stored.

    `payload` is canonical JSON (sorted keys) and repeats the fields from `at` to `outcome` and the tenant; its key
    `details` says more, `origin` where the actor came from. `hash` chains it: see `domain.audit`. `version` tells, with
    the action, one change of the entity from another: the number of a task's attempt, the moment for everything else.
    """

    entry_id: int
    tenant_id: str
    seq: int
    at: Instant
    action: str
    entity: str
    version: int
    actor: str
    outcome: str
    payload: bytes
    hash: bytes


class AuditHeadRecord(msgspec.Struct, frozen=True, gc=False):
    """The end of a tenant's chain as stored."""

    tenant_id: str
    seq: int
    hash: bytes


class AuditPage(msgspec.Struct, frozen=True, gc=False):
    """Entries that were found, and where to go on; a page may be short, even empty, and not be the last one.

    `cursor` is None when nothing is left.
    """

    entries: list[AuditEntryRecord]
    cursor: int | None


class AuditExtent(msgspec.Struct, frozen=True, gc=False):
    """How much was ever recorded, of all chains together.

    `waiting_since` is when the oldest entry behind those that were asked for was recorded; None when there is none.
    """

    entries: int
    waiting_since: Instant | None


class AuditLog(Protocol):
    """Read the audit log. These verbs see deleted tenants too: who may ask for whom is for the caller to decide."""

    async def get_audit_log_id(self) -> str:
        """Give the id of this log, made at random with its first entry; empty before that."""
        ...

    async def list_audit_heads(self) -> list[AuditHeadRecord]:
        """Give the end of every chain, ordered by tenant."""
        ...

    async def get_audit_extent(self, signed: int | None) -> AuditExtent:
        """Count the entries that were ever recorded, pruned ones too; say since when those behind `signed` wait.

        None asks for the count alone.
        """
        ...

    async def list_audit_entries(self, tenant_id: str, *, after_seq: int, limit: int) -> list[AuditEntryRecord]:
        """Give the entries of one chain in its order, those behind `after_seq`; at most `AUDIT_PAGE_MAX`."""
        ...

    async def find_audit_entries(
        self,
        tenant_id: str | None,
        *,
        since: Instant | None = None,
        until: Instant | None = None,
        action: Action | None = None,
        actor: str | None = None,
        entity: str | None = None,
        outcome: Outcome | None = None,
        cursor: int | None = None,
        limit: int = 100,
    ) -> AuditPage:
        """Give entries, newest first: of one chain in its order, or of all (None) in the order of their recording.

        `since` is included, `until` is not. `cursor` is that of the page before.
        """
        ...
