"""What people do with the audit log: part of the asynchronous face."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from synergymesh.audit.auditing import AuditKey
from synergymesh.audit.entries import AuditEntries
from synergymesh.audit.exporting import AuditExport
from synergymesh.domain.actors import Actor
from synergymesh.domain.audit.verification import LogReport
from synergymesh.domain.instants import to_datetime
from synergymesh.errors import InvalidRequest
from synergymesh.ports.audit_keeping import HoldRecord

if TYPE_CHECKING:
    from synergymesh.assembly import Parts

HOURS_MAX = 1_000_000
"""More than a century."""


class AuditControl:
    """Search, verify, export and keep the audit log; `Orchestrator` has all of these verbs."""

    @property
    def _running(self) -> Parts:
        raise NotImplementedError

    async def audit_log(
        self,
        tenant: str | None = None,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        hours: float | None = None,
        action: str | None = None,
        actor: str | None = None,
        entity: str | None = None,
        outcome: str | None = None,
        cursor: int | None = None,
        limit: int = 100,
        as_tenant: bool = False,
    ) -> AuditEntries:
        """Give entries of the audit log, newest first. That somebody looked is recorded.

        Args:
            tenant: of whose chain; '' for the mesh's own, None for all, which only the operator sees.
            since, until: from when on, and before when; aware.
            hours: how far back from now, by the orchestrator's clock, in the place of `since`.
            action: only those of an action, as the guide lists them.
            actor: only those of an actor, `type/id`.
            entity: only those about something: `run/run-…`, `tenant/tenant-…`.
            outcome: success, failure or denied.
            cursor: that of the page before.
            limit: 1 to 1,000.
            as_tenant: whether the tenant itself asks, and not the operator; it needs the feature `audit_logs`.

        Returns:
            a page of entries, with the cursor of the next one.

        Raises:
            InvalidRequest: an argument cannot be accepted.
            FeatureNotEnabled: the tenant's tier does not let it read its log.
        """
        if hours is not None:
            if since is not None:
                raise InvalidRequest("since and hours say the same. Give one of them.", field="hours")
            since = to_datetime(self._running.clock.now()) - check_hours(hours)
        return await self._running.auditing.entries(
            tenant,
            since=since,
            until=until,
            action=action,
            actor=actor,
            entity=entity,
            outcome=outcome,
            cursor=cursor,
            limit=limit,
            as_tenant=as_tenant,
        )

    async def verify_audit(
        self,
        tenant: str | None = None,
        *,
        since: int | None = None,
        keys: Sequence[str] = (),
        checkpoints: str | None = None,
        as_tenant: bool = False,
    ) -> LogReport:
        """Verify the audit log against its signed checkpoints; name the first bad entry of each chain.

        The report's `verdict` is intact, damaged, or unproven: nothing is wrong, and nothing signed speaks for it.

        Args:
            tenant: whose chain; '' for the mesh's own, None for all.
            since: the number of the checkpoint from which on; what is wrong with those before it is a note.
            keys: trusted public keys (PEM, a file, or hexadecimal); the one beside the database when empty.
            checkpoints: a file or a directory of checkpoints that were kept elsewhere, in place of the database's.
            as_tenant: whether the tenant itself asks.

        Returns:
            what was found, whether it is intact, and how much is not signed yet.

        Raises:
            InvalidRequest: there is no such checkpoint.
            UnknownTenant: the log has nothing of this tenant.
            AuditKeyError: a key cannot be used.
        """
        return await self._running.auditing.verify(
            tenant, since=since, keys=keys, checkpoints=checkpoints, as_tenant=as_tenant
        )

    async def export_audit(
        self,
        path: str,
        tenant: str | None = None,
        *,
        format: str = "jsonl",
        since: datetime | None = None,
        until: datetime | None = None,
        as_tenant: bool = False,
    ) -> AuditExport:
        """Write the audit log into a file; that it was exported is recorded.

        Args:
            path: of the file; one that is there is replaced.
            tenant: whose chain; '' for the mesh's own, None for all.
            format: jsonl (with a signed manifest beside it, can be verified), csv or cloudevents.
            since, until: from when on, and before when; aware.
            as_tenant: whether the tenant itself asks.

        Returns:
            what was written, and where.

        Raises:
            InvalidRequest: an argument cannot be accepted, or the file cannot be written.
        """
        return await self._running.auditing.export(
            path, tenant, format=format, since=since, until=until, as_tenant=as_tenant
        )

    async def prune_audit(self, tenant: str | None = None) -> int:
        """Delete entries whose time is over, by whole days, and leave signed tombstones; give how many.

        This happens every hour by itself.

        Args:
            tenant: whose; '' for the mesh's own, None for all.

        Returns:
            how many entries were deleted.

        Raises:
            LegalHold: the tenant's log must be kept.
            StoreError: the log is damaged.
        """
        return await self._running.auditing.pruning.prune(tenant)

    async def hold_audit(self, tenant: str, reason: str) -> bool:
        """Forbid to prune a tenant's log ('' for the mesh's own); False when it is forbidden already.

        Args:
            tenant: whose; '' for the mesh's own.
            reason: why, for people.

        Returns:
            whether it was allowed before.

        Raises:
            UnknownTenant: there is no log of that tenant.
        """
        return await self._running.auditing.pruning.hold(tenant, reason)

    async def release_audit(self, tenant: str) -> bool:
        """Allow to prune a tenant's log again; False when nothing forbids it.

        Args:
            tenant: whose; '' for the mesh's own.

        Returns:
            whether it was forbidden before.

        Raises:
            UnknownTenant: there is no log of that tenant.
        """
        return await self._running.auditing.pruning.release(tenant)

    async def audit_holds(self) -> list[HoldRecord]:
        """Give all legal holds.

        Returns:
            what must be kept, why and since when.
        """
        return await self._running.auditing.pruning.holds()

    async def with_personal_data(self, actor: Actor, **personal: str | None) -> Actor:
        """Give an actor whose entries name it: name, mail and address, encrypted under a key of its own.

        Use it with `acting_as`. `erase_audit` destroys the key, and the log still verifies.

        Args:
            actor: who.
            personal: name, mail, address; None for what is not known.

        Returns:
            the actor to act as.

        Raises:
            InvalidRequest: a field is not known or cannot be kept.
        """
        return await self._running.auditing.erasing.with_personal_data(actor, personal)

    async def erase_audit(self, subject: str) -> bool:
        """Make the personal data of an actor (`type/id`) in the audit log unreadable for ever.

        Args:
            subject: the actor, `type/id`.

        Returns:
            whether nothing of its key is left in the files. While somebody reads an older state of the database (a
            backup, an export, a verification), the write-ahead log keeps it; it is wiped as soon as that ends.

        Raises:
            NotFound: there is none, or it is erased already.
        """
        return await self._running.auditing.erasing.erase(subject)

    async def audit_keys(self) -> list[AuditKey]:
        """Give the public keys of the audit log; the one that signs now is the last.

        Returns:
            the keys: id, public part, and whether the private part is here.
        """
        return await self._running.auditing.keys_shown()

    async def rotate_audit_key(self) -> AuditKey:
        """Replace the key that signs the audit log; the old one vouches for the new one, and is destroyed.

        Returns:
            the new key.

        Raises:
            AuditKeyError: the present key cannot be used.
        """
        return await self._running.auditing.rotate_key()


def check_hours(hours: object) -> timedelta:
    """Give so many hours.

    Raises:
        InvalidRequest: it is no number above 0, or more than a century.
    """
    if isinstance(hours, bool) or not isinstance(hours, (int, float)) or not 0 < hours <= HOURS_MAX:
        raise InvalidRequest(f"hours must be above 0, and at most {HOURS_MAX:,}, not {hours!r:.100}.", field="hours")
    return timedelta(hours=hours)
