"""Deletes entries whose time is over, and keeps those that a legal hold protects."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

from synergymesh.audit.keys import SigningKey
from synergymesh.audit.notes import Notes
from synergymesh.domain.audit.actions import CATALOGUE, Action
from synergymesh.domain.audit.forms import TOMBSTONE_TAG, Checkpoint, Tombstone, genesis_hash, read_tombstone
from synergymesh.domain.audit.keeping import tombstone_name
from synergymesh.domain.audit.retention import Pruned, Retention, plan_pruning
from synergymesh.errors import InvalidRequest, LegalHold, StoreError, SynergyMeshError
from synergymesh.logs import Log
from synergymesh.ports.audit_keeping import AuditScan, HoldRecord, TombstoneRecord
from synergymesh.ports.clock import Clock
from synergymesh.ports.store import Store

PRUNE_SECONDS = 3_600.0
"""Retention is counted in days; once an hour is often enough, and cheap."""

DELETE_ROWS = 10_000
"""Entries that are deleted in one transaction; the store ends it after some milliseconds anyway."""

REST_SECONDS = 0.03
"""Between two steps in the background, so that a quarter of the writer's time goes into deleting at most. That is some
tens of thousands of entries per second, more than an engine writes for long."""

RETRY_SECONDS = 1.0

TOMBSTONES_MAX = 100
"""Tombstones that one entry names, by 64 digits each: it is no long one."""

REASON_MAX = 500

log = Log("synergymesh.audit")


class Pruning:
    """Prune what is over its time, unless a hold forbids it. Pruning, holding and releasing are entries themselves."""

    def __init__(
        self,
        store: Store,
        signing: Callable[[], Awaitable[tuple[SigningKey, Checkpoint | None]]],
        notes: Notes,
        clock: Clock,
        *,
        retention: Callable[[str], Retention],
        check_known: Callable[[object], Awaitable[None]],
    ) -> None:
        """Put it together.

        Args:
            store: with the log.
            signing: gives the key that signs tombstones, and the last checkpoint before that.
            notes: records what is done.
            clock: where the time comes from.
            retention: gives how long a tenant's entries are kept; of one that is gone too.
            check_known: raises UnknownTenant unless there is a log of a tenant.
        """
        self._store = store
        self._signing = signing
        self._notes = notes
        self._clock = clock
        self._retention = retention
        self._check_known = check_known
        self._is_due = asyncio.Event()
        self._burying = asyncio.Lock()
        self._pruned_at = clock.now()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to delete what is pruned, with what an earlier process has left."""
        self._is_due.set()
        self._task = asyncio.get_running_loop().create_task(self._delete_for_ever(), name="synergymesh-audit-pruning")

    async def stop(self) -> None:
        """End, after the step that is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def tick(self) -> None:
        """Prune all logs if that is due; what fails is logged, and tried again when it is due again."""
        now = self._clock.now()
        if now - self._pruned_at < PRUNE_SECONDS * 1e9:
            return
        self._pruned_at = now
        for tenant_id in await self._not_held():
            try:
                await self.bury(tenant_id)
            except (SynergyMeshError, OSError) as error:
                log.error("the audit log of a tenant could not be pruned", tenant=tenant_id, error=str(error))

    # --- by people ------------------------------------------------------------------------------------------------

    async def prune(self, tenant_id: str | None) -> int:
        """Prune what is over its time; see `Orchestrator.prune_audit`."""
        if tenant_id is None:
            count = 0
            for each in await self._not_held():
                count += await self.bury(each)
        else:
            await self._check_known(tenant_id)
            if any(hold.tenant_id == tenant_id for hold in await self.holds()):
                raise LegalHold(tenant_id)
            count = await self.bury(tenant_id)
        while await self._store.delete_pruned_audit_entries(DELETE_ROWS):
            pass
        return count

    async def holds(self) -> list[HoldRecord]:
        """Give all legal holds."""
        return await self._store.list_audit_holds()

    async def hold(self, tenant_id: str, reason: str) -> bool:
        """Forbid to prune; see `Orchestrator.hold_audit`."""
        await self._check_known(tenant_id)
        if not isinstance(reason, str) or not 1 <= len(reason) <= REASON_MAX or not reason.isprintable():
            raise InvalidRequest(f"reason must be a printable text of 1 to {REASON_MAX} characters.", field="reason")
        noted = self._notes.noted(tenant_id, Action.AUDIT_HELD, "audit", {"reason": reason})
        return await self._store.hold_audit(HoldRecord(tenant_id, reason, noted.noted_at), noted)

    async def release(self, tenant_id: str) -> bool:
        """Allow to prune again; see `Orchestrator.release_audit`."""
        await self._check_known(tenant_id)
        noted = self._notes.noted(tenant_id, Action.AUDIT_RELEASED, "audit", {})
        is_released = await self._store.release_audit(tenant_id, noted)
        self._is_due.set()  # what was pruned before the hold is still there
        return is_released

    # --- inside ---------------------------------------------------------------------------------------------------

    async def _not_held(self) -> list[str]:
        held = {hold.tenant_id for hold in await self.holds()}
        return [each for each in await self._store.scan_audit(lambda scan: scan.tenants()) if each not in held]

    async def bury(self, tenant_id: str) -> int:
        """Sign tombstones for what is over its time and has none; it is deleted behind that. Give how many entries.

        Raises:
            LegalHold: the tenant's log must be kept.
            StoreError: the log is damaged.
        """
        async with self._burying:  # two at once would count the same entries twice
            return await self._bury(tenant_id)

    async def _bury(self, tenant_id: str) -> int:
        now = self._clock.now()
        retention = self._retention(tenant_id)
        log_id = await self._store.get_audit_log_id()
        try:
            planned = await self._store.scan_audit(lambda scan: _plan(scan, log_id, tenant_id, retention, now))
        except ValueError as error:
            raise StoreError(
                f"the audit log of {tenant_id or 'the mesh'} is damaged, so nothing is pruned: {error}. "
                f"`synergymesh audit verify` says more."
            ) from None
        if not planned:
            return 0
        key, checkpoint = await self._signing()
        records = []
        for pruned in planned:
            tombstone = Tombstone(
                log_id=log_id,
                tenant_id=tenant_id,
                day=pruned.day,
                gaps=pruned.gaps,
                pruned_at=now,
                checkpoint=0 if checkpoint is None else checkpoint.number,
                key_id=key.key_id,
            )
            content = tombstone.content()
            records.append(
                TombstoneRecord(
                    tenant_id, pruned.gaps[0].first, pruned.gaps[-1].last, content, key.sign(TOMBSTONE_TAG, content)
                )
            )
        total = 0
        for start in range(0, len(planned), TOMBSTONES_MAX):
            days, stones = planned[start : start + TOMBSTONES_MAX], records[start : start + TOMBSTONES_MAX]
            count = sum(gap.last - gap.first + 1 for pruned in days for gap in pruned.gaps)
            details = {
                "count": count,
                "first_day": days[0].day,
                "last_day": days[-1].day,
                "tombstones": [tombstone_name(stone.content) for stone in stones],
            }
            # Not the moment, which may be the same for two of them: an entry is pruned once, so its number is enough.
            number = stones[0].first_seq
            noted = self._notes.noted(tenant_id, Action.AUDIT_PRUNED, "audit", details, number=number)
            if not await self._store.add_audit_tombstones(stones, noted):
                raise LegalHold(tenant_id)
            self._is_due.set()
            total += count
        return total

    async def _delete_for_ever(self) -> None:
        while True:
            await self._is_due.wait()
            self._is_due.clear()
            try:
                deleted = 1
                while deleted:
                    deleted = await self._store.delete_pruned_audit_entries(DELETE_ROWS)
                    await asyncio.sleep(REST_SECONDS)
            except Exception as error:
                log.error("pruned entries could not be deleted; tried again", error=str(error))
                self._is_due.set()
                await asyncio.sleep(RETRY_SECONDS)


def _plan(scan: AuditScan, log_id: str, tenant_id: str, retention: Retention, now: int) -> list[Pruned]:
    pruned = [gap for stone in scan.tombstones(tenant_id) for gap in read_tombstone(stone.content).gaps]
    return list(plan_pruning(_light_rows(scan, tenant_id), genesis_hash(log_id, tenant_id), pruned, retention, now))


def _light_rows(scan: AuditScan, tenant_id: str) -> Iterator[tuple[int, bytes, int, bool | None]]:
    sensitive: dict[str, bool | None] = {action.value: entry.sensitive for action, entry in CATALOGUE.items()}
    sensitive[Action.AUDIT_PRUNED.value] = None
    for seq, hash_, _, _, row in scan.rows(tenant_id, 0):
        _, _, _, _, last_at, action, *_ = row
        # The entries of a row are of one day, which is all that counts.
        yield seq, hash_, last_at, sensitive.get(action, False)
