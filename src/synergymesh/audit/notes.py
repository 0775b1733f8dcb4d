"""Records what is done with the log itself and with its keys, on the account of who does it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from synergymesh.domain.actors import Actor
from synergymesh.domain.audit.actions import Action, Outcome
from synergymesh.errors import StoreError
from synergymesh.ports.changes import Noted, Unit
from synergymesh.ports.clock import Clock
from synergymesh.ports.records import CommitResult, Committed


class Notes:
    """Make entries of what changes nothing but the log, its keys and what is kept of it."""

    def __init__(
        self, record: Callable[[Unit], Awaitable[CommitResult]], actor: Callable[[], Actor], clock: Clock
    ) -> None:
        """Say how.

        Args:
            record: commits a unit and gives the answer.
            actor: gives who acts now.
            clock: where the time comes from.
        """
        self._record = record
        self._actor = actor
        self._clock = clock

    def noted(
        self, tenant_id: str, action: Action, entity: str, details: Mapping[str, Any], *, number: int | None = None
    ) -> Noted:
        """Make an entry; one with the same action, entity and `number` (the moment when None) is recorded once."""
        now = self._clock.now()
        return Noted(
            tenant_id=tenant_id,
            action=action,
            entity=entity,
            number=now if number is None else number,
            outcome=Outcome.SUCCESS,
            noted_at=now,
            details=msgspec.json.encode(details),
            by=self._actor(),
        )

    async def record(self, *notes: Noted) -> None:
        """Record entries in one transaction.

        Raises:
            StoreError: they could not be recorded.
        """
        answer = await self._record(list(notes))
        if not isinstance(answer, Committed):
            raise StoreError(f"the database refused an entry of the audit log: {answer.reason}")
