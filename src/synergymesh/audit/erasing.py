"""Keeps personal data of actors under a key for each, and erases it by destroying that."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from synergymesh.audit.notes import Notes
from synergymesh.audit.personal import check_personal, new_key, seal
from synergymesh.domain.actors import Actor
from synergymesh.domain.audit.actions import Action
from synergymesh.domain.audit.forms import MESH
from synergymesh.errors import InvalidRequest, NotFound, SynergyMeshError
from synergymesh.logs import Log
from synergymesh.ports.audit_keeping import AuditKeeping
from synergymesh.ports.clock import Clock

SUBJECT_MAX = 300

log = Log("synergymesh.audit")


class Erasing:
    """Encrypt personal data, and make it unreadable for ever. Erasing is an entry itself."""

    def __init__(self, keeping: AuditKeeping, notes: Notes, clock: Clock) -> None:
        """Put it together.

        Args:
            keeping: has the keys of personal data.
            notes: records what is done.
            clock: where the time comes from.
        """
        self._keeping = keeping
        self._notes = notes
        self._clock = clock
        self._wipe_is_due = True  # the process before may have ended before it could

    async def with_personal_data(self, actor: Actor, personal: Mapping[str, object]) -> Actor:
        """Give an actor with encrypted personal data; see `Orchestrator.with_personal_data`."""
        if not isinstance(actor, Actor):
            raise InvalidRequest(f"actor must be an Actor, not {actor!r:.100}.", field="actor")
        checked = check_personal(personal)
        if not checked:
            return actor
        subject = str(actor)
        key = await self._keeping.get_subject_key(subject)
        if key is None:
            key = await self._keeping.add_subject_key(subject, new_key(), self._clock.now())
        return msgspec.structs.replace(actor, personal=seal(key, subject, checked))

    async def erase(self, subject: str) -> bool:
        """Make somebody's personal data unreadable; see `Orchestrator.erase_audit`."""
        if not isinstance(subject, str) or not 1 <= len(subject) <= SUBJECT_MAX:
            raise InvalidRequest(f"subject must be an actor, `type/id`, not {subject!r:.100}.", field="subject")
        noted = self._notes.noted(MESH, Action.AUDIT_ERASED, "audit", {"subject": subject})
        if not await self._keeping.erase_subject_key(subject, noted):
            raise NotFound(f"the audit log has no personal data of {subject!r:.200}, or it is erased already.")
        self._wipe_is_due = True
        await self.tick()
        if self._wipe_is_due:
            log.warning("somebody reads the database, so an erased key is in its log until that ends", subject=subject)
        return not self._wipe_is_due

    async def close(self) -> None:
        """Try it once more; a process may be shorter than a reader."""
        try:
            await self.tick()
        except SynergyMeshError as error:
            log.error("erased keys could not be wiped; the next process does it", error=str(error))

    async def tick(self) -> None:
        """Wipe what is left of erased keys; it is tried again while somebody reads an older state."""
        if self._wipe_is_due:
            self._wipe_is_due = not await self._keeping.wipe_erased_keys()
