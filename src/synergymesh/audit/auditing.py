"""The audit log for people: who may look at it, what is recorded of that, and what is done with it now and then."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from synergymesh.audit.checkpoints import Checkpoints
from synergymesh.audit.entries import AuditEntries, AuditEntry, record_view
from synergymesh.audit.erasing import Erasing
from synergymesh.audit.export_writer import Asked, Signing
from synergymesh.audit.exporting import AuditExport, ExportFormat, Wish, export_log
from synergymesh.audit.keys import public_pem, read_public
from synergymesh.audit.lag import AuditLag, measure_lag
from synergymesh.audit.notes import Notes
from synergymesh.audit.personal import unseal
from synergymesh.audit.pruning import Pruning
from synergymesh.audit.verify import read_checkpoint_lines
from synergymesh.audit.verifying import verify_log
from synergymesh.domain.actors import Actor
from synergymesh.domain.audit.actions import Action, Outcome
from synergymesh.domain.audit.forms import MESH, key_id
from synergymesh.domain.audit.retention import Retention
from synergymesh.domain.audit.verification import LogReport
from synergymesh.domain.instants import Instant, from_datetime
from synergymesh.domain.tenants import Tenant
from synergymesh.errors import (
    AuditKeyError,
    InvalidRequest,
    SynergyMeshError,
    UnknownTenant,
)
from synergymesh.logs import Log
from synergymesh.ports.audit_keeping import AuditKeeping
from synergymesh.ports.clock import Clock
from synergymesh.ports.store import Store

PAGE_ENTRIES_MAX = 1_000
"""Entries of one page, as of runs."""

CURSOR_MAX = 2**63 - 1
"""Places of entries are numbers that a database can hold."""

INSTANT_MAX = 2**63 - 1
"""Nanoseconds before and after 1970 that a database can hold."""

TICK_SECONDS = 1.0

READ_NOTED_SECONDS = 60
"""Who asks the same again within this time is recorded once: following the log must not fill it."""

log = Log("synergymesh.audit")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AuditKey:
    """Show a public key of the audit log.

    Attributes:
        key_id: its short name.
        public: the key, as hex.
        pem: the key, as PEM.
        is_present: whether it signs now.
    """

    key_id: str
    public: str
    pem: str
    is_present: bool


class Auditing:
    """Search, verify and export; each of these is recorded itself, on its actor's account.

    Attributes:
        checkpoints: signs the log.
        pruning: deletes what is over its time, and holds.
        erasing: keeps personal data, and erases it.
    """

    def __init__(
        self,
        store: Store,
        checkpoints: Checkpoints,
        clock: Clock,
        *,
        notes: Notes,
        actor: Callable[[], Actor],
        tenant: Callable[[object], Tenant],
        check_feature: Callable[[Tenant, str, str], None],
        retention: Callable[[str], Retention],
    ) -> None:
        """Put it together.

        Args:
            store: with the log.
            checkpoints: signs the log.
            clock: where the time comes from.
            notes: records what is done with the log.
            actor: gives who acts now.
            tenant: gives a tenant, or raises UnknownTenant.
            check_feature: raises FeatureNotEnabled unless a tenant has a feature, for what it wants to do.
            retention: gives how long a tenant's entries are kept; of one that is gone too.
        """
        self.checkpoints = checkpoints
        self.pruning = Pruning(
            store, checkpoints.signing, notes, clock, retention=retention, check_known=self._check_known
        )
        self.erasing = Erasing(store, notes, clock)
        self._store = store
        self._keeping: AuditKeeping = store
        self._clock = clock
        self._notes = notes
        self._actor = actor
        self._tenant = tenant
        self._check_feature = check_feature
        self._reads: dict[tuple[str, str | None, bytes], Instant] = {}
        self._task: asyncio.Task[None] | None = None

    # --- now and then ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to write checkpoints, and to prune what is over its time."""
        self.checkpoints.start()
        self._task = asyncio.get_running_loop().create_task(self._tick_for_ever(), name="synergymesh-audit")
        self.pruning.start()

    async def stop(self) -> None:
        """End what is done now and then, while entries can still be recorded."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self.pruning.stop()
        if self.checkpoints.file is not None:
            try:
                await self.checkpoints.keys.key()  # the last checkpoint comes when nothing can be recorded any more
            except SynergyMeshError as error:
                log.error("the key of the audit log cannot be used", error=str(error))

    async def close(self) -> None:
        """Write the last checkpoint, behind the last entry."""
        await self.checkpoints.close()
        await self.erasing.close()

    async def _tick_for_ever(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            for tick in (self.checkpoints.tick, self.pruning.tick, self.erasing.tick):
                try:
                    await tick()
                except Exception as error:
                    log.error("the audit log could not be looked after; tried again", error=str(error))

    async def lag(self) -> AuditLag:
        """Say how far the log is signed and published.

        Raises:
            StoreError: the log cannot be read.
            OSError: the file of checkpoints cannot be read.
            ValueError: its end is no checkpoint.
        """
        checkpoints = self.checkpoints
        return await measure_lag(self._store, checkpoints.file, checkpoints.followers, self._clock.now())

    # --- looking --------------------------------------------------------------------------------------------------

    async def entries(
        self,
        tenant_id: str | None,
        *,
        since: datetime | None,
        until: datetime | None,
        action: str | None,
        actor: str | None,
        entity: str | None,
        outcome: str | None,
        cursor: int | None,
        limit: int,
        as_tenant: bool,
    ) -> AuditEntries:
        """Give entries, newest first; see `Orchestrator.audit_log`."""
        await self._check_reader(tenant_id, as_tenant, "reading the audit log")
        if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= PAGE_ENTRIES_MAX:
            raise InvalidRequest(f"limit must be from 1 to {PAGE_ENTRIES_MAX:,}, not {limit!r}.", field="limit")
        check_cursor(cursor)
        wanted = search(since=since, until=until, action=action, actor=actor, entity=entity, outcome=outcome)
        await self._note_reading(tenant_id, {name: value for name, value in wanted.items() if value is not None})
        page = await self._store.find_audit_entries(tenant_id, **wanted, cursor=cursor, limit=limit)
        keys: dict[str, bytes | None] = {}
        views = []
        for record in page.entries:
            view = record_view(record)
            views.append(await self._with_personal(view, keys))
        return AuditEntries(entries=tuple(views), cursor=page.cursor)

    async def _with_personal(self, entry: AuditEntry, keys: dict[str, bytes | None]) -> AuditEntry:
        sealed = entry.origin.get("personal")
        if sealed is None:
            return entry
        if entry.actor not in keys:
            keys[entry.actor] = await self._keeping.get_subject_key(entry.actor)
        key = keys[entry.actor]
        origin = {name: value for name, value in entry.origin.items() if name != "personal"}
        personal = None if key is None else unseal(key, entry.actor, sealed)
        return dataclasses.replace(entry, origin=origin, personal=personal)

    async def verify(
        self,
        tenant_id: str | None,
        *,
        since: int | None,
        keys: Sequence[str],
        checkpoints: str | None,
        as_tenant: bool,
    ) -> LogReport:
        """Verify the log against its checkpoints; see `Orchestrator.verify_audit`."""
        await self._check_reader(tenant_id, as_tenant, "verifying the audit log")
        trusted = [read_public(text) for text in keys]
        if not trusted and (present := await asyncio.to_thread(self.checkpoints.present_key)) is not None:
            trusted = [present]

        def read() -> list[bytes]:
            return list(self.checkpoints.lines()) if checkpoints is None else read_checkpoint_lines(Path(checkpoints))

        try:
            # Before the log: a checkpoint that is written meanwhile may be of entries that the scan does not see.
            lines = await asyncio.to_thread(read)
        except OSError as error:
            raise InvalidRequest(f"the checkpoints cannot be read: {error}.", field="checkpoints") from None
        return await self._keeping.scan_audit(
            lambda scan: verify_log(scan, trusted, lines, tenant_id=tenant_id, since=since)
        )

    async def export(
        self,
        path: str,
        tenant_id: str | None,
        *,
        format: str,
        since: datetime | None,
        until: datetime | None,
        as_tenant: bool,
    ) -> AuditExport:
        """Write an export; see `Orchestrator.export_audit`."""
        await self._check_reader(tenant_id, as_tenant, "exporting the audit log")
        wanted = _choice(ExportFormat, format, "format")
        target = Path(path)
        if not await asyncio.to_thread(_can_be_made, target):
            message = f"path must name a file in a directory that is there, not {path!r:.200}."
            raise InvalidRequest(message, field="path")
        wish = Wish(
            path=target,
            format=wanted or ExportFormat.JSONL,
            asked=Asked(tenant_id=tenant_id, since=_instant(since, "since"), until=_instant(until, "until")),
        )
        details = {"format": wish.format.value, "since": wish.asked.since, "until": wish.asked.until}
        await self._notes.record(self._notes.noted(tenant_id or MESH, Action.AUDIT_EXPORTED, "audit", details))
        signing = await self._signing() if wish.format is ExportFormat.JSONL else None
        try:
            return await self._keeping.scan_audit(lambda scan: export_log(scan, wish, signing))
        except OSError as error:
            message = f"the export {path!r:.200} cannot be written: {error.strerror or error}. Name another file."
            raise InvalidRequest(message, field="path") from None

    async def _signing(self) -> Signing:
        """Say who signs an export, behind a checkpoint of this moment: what is kept elsewhere is compared with it."""
        checkpoints = self.checkpoints
        await checkpoints.write_if_possible()
        key, last = await checkpoints.signing()
        links = [signed.line() for signed in await asyncio.to_thread(checkpoints.links)]
        return Signing(key=key, checkpoint=last, at=self._clock.now(), key_links=links)

    async def _check_reader(self, tenant_id: str | None, as_tenant: bool, what: str) -> None:
        """Refuse a tenant that may not look; the operator may, also at what is left of a tenant that is gone."""
        if as_tenant:
            self._check_feature(self._tenant(tenant_id), "audit_logs", what)
        elif tenant_id is not None:
            await self._check_known(tenant_id)

    async def _check_known(self, tenant_id: object) -> None:
        try:
            self._tenant(tenant_id)
        except UnknownTenant:
            heads = await self._store.list_audit_heads()
            if not any(head.tenant_id == tenant_id for head in heads):
                raise

    # --- keys -----------------------------------------------------------------------------------------------------

    async def keys_shown(self) -> list[AuditKey]:
        """Give the public keys of the log, the one that signs now last."""
        keys = await asyncio.to_thread(self.checkpoints.public_keys)
        return [_shown(key, is_present=key == keys[-1]) for key in keys]

    async def rotate_key(self) -> AuditKey:
        """Replace the signing key; see `Orchestrator.rotate_audit_key`."""
        try:
            link = await self.checkpoints.rotate()
        except OSError as error:
            raise AuditKeyError(f"the key cannot be replaced: {error}.") from None
        return _shown(link.new, is_present=True)

    # --- inside ---------------------------------------------------------------------------------------------------

    async def _note_reading(self, tenant_id: str | None, filters: Mapping[str, Any]) -> None:
        details = {"filters": dict(filters)}
        reading = (str(self._actor()), tenant_id, msgspec.json.encode(details))
        now, kept = self._clock.now(), int(READ_NOTED_SECONDS * 1e9)
        last = self._reads.get(reading)
        if last is not None and now - last < kept:
            return
        await self._notes.record(self._notes.noted(tenant_id or MESH, Action.AUDIT_READ, "audit", details))
        # Only now: what could not be recorded was not read.
        self._reads = {each: at for each, at in self._reads.items() if now - at < kept} | {reading: now}


def search(
    *,
    since: datetime | None,
    until: datetime | None,
    action: str | None,
    actor: str | None,
    entity: str | None,
    outcome: str | None,
) -> dict[str, Any]:
    """Check what is looked for, and give it as the store takes it.

    Raises:
        InvalidRequest: a value cannot be accepted.
    """
    return {
        "since": _instant(since, "since"),
        "until": _instant(until, "until"),
        "action": _choice(Action, action, "action"),
        "actor": _text(actor, "actor"),
        "entity": _text(entity, "entity"),
        "outcome": _choice(Outcome, outcome, "outcome"),
    }


def check_cursor(cursor: object) -> None:
    """Refuse what cannot be the place of an entry.

    Raises:
        InvalidRequest: it is none.
    """
    if cursor is None:
        return
    if not isinstance(cursor, int) or isinstance(cursor, bool) or not 1 <= cursor <= CURSOR_MAX:
        raise InvalidRequest(f"cursor must be that of the page before, not {cursor!r:.100}.", field="cursor")


def _can_be_made(path: Path) -> bool:
    return bool(path.name) and not path.is_dir() and path.parent.is_dir()


def _shown(public: bytes, *, is_present: bool) -> AuditKey:
    return AuditKey(key_id=key_id(public), public=public.hex(), pem=public_pem(public), is_present=is_present)


def _text(value: object, field: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidRequest(f"{field} must be a text, not {value!r:.100}.", field=field)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"{field} has a lone surrogate, which is no character.", field=field) from None
    return value


def _instant(moment: datetime | None, field: str) -> Instant | None:
    if moment is None:
        return None
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise InvalidRequest(f"{field} must be a datetime with a time zone, not {moment!r:.100}.", field=field)
    instant = from_datetime(moment)
    if not -INSTANT_MAX <= instant <= INSTANT_MAX:
        raise InvalidRequest(
            f"{field} must be a time from 1678 to 2261, not {moment}. Leave it out for all entries.", field=field
        )
    return instant


def _choice(kind: Any, value: str | None, field: str) -> Any:
    if value is None:
        return None
    try:
        return kind(value)
    except ValueError:
        known = ", ".join(member.value for member in kind)
        raise InvalidRequest(f"{field} must be one of {known}, not {value!r:.100}.", field=field) from None
