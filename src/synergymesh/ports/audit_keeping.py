"""What belongs to the audit log beside its entries: tombstones, holds, keys of personal data; and its scan."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec

from synergymesh.domain.audit.actions import Action
from synergymesh.domain.instants import Instant
from synergymesh.ports.audit import AuditEntryRecord, AuditHeadRecord

if TYPE_CHECKING:
    from synergymesh.ports.changes import Noted

T = TypeVar("T")


class TombstoneRecord(msgspec.Struct, frozen=True, gc=False):
    """A signed tombstone: see `domain.audit`. Its first and last entry are those of its first and last gap."""

    tenant_id: str
    first_seq: int
    last_seq: int
    content: bytes
    signature: bytes


class HoldRecord(msgspec.Struct, frozen=True, gc=False):
    """A legal hold: nothing of the tenant's chain is pruned."""

    tenant_id: str
    reason: str
    held_at: Instant


class UnsuccessfulRecord(msgspec.Struct, frozen=True, gc=False):
    """How often something did not succeed.

    `reason` is the type of an error, of a limit that was hit its name; empty where neither is known. `count` is that of
    what happened, where one entry stands for several.
    """

    tenant_id: str
    action: str
    outcome: str
    reason: str
    count: int
    last_at: Instant


AuditRow = tuple[Any, Any, Any, Any, Any, Any, Any, Any, Any, Any, Any, Any]
"""A group of entries as it is stored, whatever stands there: see `domain.audit.groups`.

Number of the last entry, hashes one behind the other, payloads as lines, earliest time, latest time, action, entity,
version, actor, outcome, tenant, place of the last entry in the log. Entity and version are empty where they are those
of runs and tasks.
"""

AuditScanned = tuple[Any, Any, Any, Any, AuditRow]
"""An entry as it is stored: number, hash, payload, place in the log, and the row in which it is.

Hash and payload of an entry that is alone in its row are the very objects of the row.
"""


class AuditScan(Protocol):
    """Read the log from one end to the other, in one thread, as it was at one moment."""

    def log_id(self) -> str | None:
        """Give the id of the log; empty before its first entry, None if what stands there is none."""
        ...

    def heads(self) -> list[AuditHeadRecord]:
        """Give the recorded end of every chain, whatever stands there."""
        ...

    def tenants(self) -> list[str]:
        """Give every tenant that has entries or tombstones, whether it has a recorded end or not, in order."""
        ...

    def strays(self, tenant_id: str | None) -> list[tuple[object, object]]:
        """Give tenant and number of entries and tombstones that no chain has, of one tenant or of all (None).

        At most some hundred.
        """
        ...

    def extent(self) -> tuple[int, int]:
        """Count the entries of the table itself, past its indexes; give the largest place in the log (0 of none)."""
        ...

    def holds(self) -> list[tuple[object, object, object]]:
        """Give tenant, reason and time of every legal hold, whatever stands there."""
        ...

    def bounds(self, tenant_id: str, since: Instant | None, until: Instant | None) -> tuple[int, int]:
        """Give the numbers between which a time lies, `until` not included; (1, 0) when no entry is of it.

        Without `since` from the beginning of the chain, and without `until` to its end, whatever times are there.
        """
        ...

    def rows(self, tenant_id: str, after_seq: int) -> Iterator[AuditScanned]:
        """Give the entries of a chain in its order, those behind `after_seq`.

        What stands in the database is given as it is, whatever it is, also a number twice.
        """
        ...

    def unsuccessful(self, tenant_id: str | None, since: Instant) -> list[UnsuccessfulRecord]:
        """Count what failed or was denied, of one tenant or of all (None), the most frequent first."""
        ...

    def newest(
        self, actions: Sequence[Action], tenant_id: str | None, since: Instant, limit: int
    ) -> list[AuditEntryRecord]:
        """Give the newest entries of these actions, which are not routine, of one tenant or of all (None)."""
        ...

    def tombstones(self, tenant_id: str) -> list[TombstoneRecord]:
        """Give the tombstones of a tenant, the first one first."""
        ...


class AuditKeeping(Protocol):
    """Keep what belongs to the audit log beside its entries. Each verb is one transaction, with its entry in it."""

    async def scan_audit(self, work: Callable[[AuditScan], T]) -> T:
        """Call `work` with a scan, in a thread; nobody waits for it (but where the database is in memory)."""
        ...

    async def list_audit_tombstones(self, tenant_id: str) -> list[TombstoneRecord]:
        """Give the tombstones of a tenant, the first one first."""
        ...

    async def add_audit_tombstones(self, tombstones: Sequence[TombstoneRecord], noted: Noted) -> bool:
        """Record tombstones of one tenant; `delete_pruned_audit_entries` deletes what they account for.

        Gives False, and records nothing, when the tenant is under a hold.
        """
        ...

    async def delete_pruned_audit_entries(self, limit: int) -> int:
        """Delete entries that tombstones account for: `limit` of them, or few more that share a row with these.

        It ends earlier after some milliseconds. Gives how many, 0 when none is left. Those of a tenant under a hold
        stay until it is released.
        """
        ...

    async def list_audit_holds(self) -> list[HoldRecord]:
        """Give all holds, ordered by tenant."""
        ...

    async def hold_audit(self, hold: HoldRecord, noted: Noted) -> bool:
        """Forbid to prune a tenant's chain; give False, and record nothing, when it is forbidden already."""
        ...

    async def release_audit(self, tenant_id: str, noted: Noted) -> bool:
        """Allow to prune a tenant's chain again; give False, and record nothing, when nothing forbids it."""
        ...

    async def get_subject_key(self, subject: str) -> bytes | None:
        """Give the key of somebody's personal data."""
        ...

    async def add_subject_key(self, subject: str, key: bytes, made_at: Instant) -> bytes:
        """Record a key unless there is one; give the one that counts."""
        ...

    async def erase_subject_key(self, subject: str, noted: Noted) -> bool:
        """Destroy a key; give False, and record nothing, when there is none.

        What the files still have of it, `wipe_erased_keys` removes.
        """
        ...

    async def wipe_erased_keys(self) -> bool:
        """Remove what the files have of erased keys; give False, to be asked again, while somebody reads that."""
        ...
