"""Tasks that failed for good: looked into, done again, or put away."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from synergymesh.domain.workflow.definition import UNDO
from synergymesh.engine.acting import current_actor
from synergymesh.engine.committer import Committer
from synergymesh.engine.control.dead_letter_views import (
    DeadLetter,
    DeadLetterQuery,
    check_limit,
    dead_letter_view,
    find,
    list_from,
    look_into,
    read_page,
)
from synergymesh.engine.control.reruns import Reruns
from synergymesh.errors import Denied, InvalidRequest, RateLimitExceeded, RunNotRetryable, StoreError
from synergymesh.ports.changes import DeadLetterDiscarded
from synergymesh.ports.clock import Clock
from synergymesh.ports.records import Committed, DeadLetterRecord
from synergymesh.ports.store import Store

REDRIVEN_MAX = 1_000
"""Runs that one call redrives: what went wrong once may go wrong again, and somebody should look in between."""

PAGE_REDRIVEN = 100
"""Dead letters that are read at once for redriving; each names its error, which is not needed here."""

REASON_CHARACTERS_MAX = 1_000
"""A reason is a note for people, shown beside the error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Redriven:
    """Say what redriving many did.

    Attributes:
        runs: the new runs by the id of the run that each goes on from.
        skipped: why runs were left out, by their id.
        stopped: why it ended before all were looked at (a limit of the tenant), or None.
        more: whether there may be more: `limit` was reached, or it stopped.
    """

    runs: Mapping[str, str]
    skipped: Mapping[str, str]
    stopped: str | None
    more: bool


class DeadLetters:
    """Answer from the rows of tasks that failed for good."""

    def __init__(self, store: Store, committer: Committer, reruns: Reruns, clock: Clock) -> None:
        self._store = store
        self._committer = committer
        self._reruns = reruns
        self._clock = clock

    async def list(self, query: DeadLetterQuery, *, limit: int, cursor: str | None) -> list[DeadLetter]:
        """Give those that nobody has seen to, newest run first.

        Raises:
            InvalidRequest: limit or cursor cannot be accepted.
        """
        return await list_from(self._store, query, limit=limit, cursor=cursor)

    async def get(self, dead_letter_id: str, tenant_id: str | None) -> DeadLetter:
        """Give one with everything that is known of it, also when it was seen to.

        Raises:
            UnknownDeadLetter: there is none of that id that this tenant may see.
        """
        return await look_into(self._store, await find(self._store, dead_letter_id, tenant_id))

    async def redrive(self, dead_letter_id: str, tenant_id: str | None) -> tuple[str, str]:
        """Go on with its run; give the new run's id and its tenant's.

        Raises:
            UnknownDeadLetter: there is none of that id that this tenant may see.
            RunNotRetryable: its run is open, or was retried already.
            TenantNotActive, InvalidRequest, FeatureNotEnabled, RateLimitExceeded, BacklogFull: it is not admitted.
        """
        record = await find(self._store, dead_letter_id, tenant_id)
        return await self._go_on(record)

    async def redrive_many(self, query: DeadLetterQuery, *, limit: int) -> Redriven:
        """Go on with the runs of all that fit, newest first, at most `limit` of them.

        Waits where a tenant's submission rate asks for it, and stops where a limit of it is reached.

        Raises:
            InvalidRequest: limit cannot be accepted.
        """
        check_limit(limit, REDRIVEN_MAX)
        runs: dict[str, str] = {}
        skipped: dict[str, str] = {}
        before: tuple[str, str] | None = None
        while page := await read_page(self._store, query, before, PAGE_REDRIVEN):
            for record in page:
                before = record.run_id, record.component_id
                if record.run_id in runs or record.run_id in skipped:
                    continue
                if len(runs) >= limit:
                    return Redriven(runs=runs, skipped=skipped, stopped=None, more=True)
                try:
                    runs[record.run_id] = await self._redrive_in_time(record)
                except RunNotRetryable as error:
                    skipped[record.run_id] = str(error)
                except (Denied, StoreError) as error:
                    return Redriven(runs=runs, skipped=skipped, stopped=str(error), more=True)
        return Redriven(runs=runs, skipped=skipped, stopped=None, more=False)

    async def _go_on(self, record: DeadLetterRecord) -> tuple[str, str]:
        """Go on with the run, or, if something could not be undone, with undoing."""
        run_id, tenant_id = record.run_id, record.tenant_id
        dead_letter = f"{run_id}:{record.component_id}"
        if record.component_id.startswith(UNDO):
            return await self._reruns.compensate(run_id, tenant_id, dead_letter=dead_letter)
        return await self._reruns.retry(run_id, tenant_id, from_failed=True, dead_letter=dead_letter)

    async def _redrive_in_time(self, record: DeadLetterRecord) -> str:
        while True:
            try:
                new_id, _ = await self._go_on(record)
            except RateLimitExceeded as error:
                await asyncio.sleep(error.retry_after)
            else:
                return new_id

    async def discard(self, dead_letter_id: str, reason: object, tenant_id: str | None) -> DeadLetter:
        """Put one away, for good; one that was put away before keeps its reason.

        Raises:
            UnknownDeadLetter: there is none of that id that this tenant may see.
            InvalidRequest: there is no reason, or it is too long.
        """
        checked = check_reason(reason)
        record = await find(self._store, dead_letter_id, tenant_id)
        if record.discarded_at is None:
            change = DeadLetterDiscarded(
                record.run_id, record.component_id, record.tenant_id, checked, self._clock.now(), current_actor()
            )
            answer = await self._committer.record([change])
            if not isinstance(answer, Committed):
                raise StoreError(f"the database refused the change: {answer.reason}")
        return dead_letter_view(await find(self._store, dead_letter_id, tenant_id))


def check_reason(reason: object) -> str:
    """Give the reason; raise InvalidRequest unless it is a text that is not empty."""
    if not isinstance(reason, str) or not reason.strip() or "\0" in reason:
        raise InvalidRequest(f"reason must be a text that is not empty, not {reason!r:.100}.", field="reason")
    if len(reason) > REASON_CHARACTERS_MAX:
        raise InvalidRequest(
            f"reason has {len(reason):,} characters, the limit is {REASON_CHARACTERS_MAX:,}.", field="reason"
        )
    try:
        reason.encode()
    except UnicodeEncodeError:
        raise InvalidRequest("reason has a lone surrogate, which is no character.", field="reason") from None
    return reason
