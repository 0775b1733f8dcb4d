"""Takes submissions: validates, admits, records, and only then acknowledges."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from random import Random
from typing import Any

import msgspec

from synergymesh.domain.audit.actions import Action, Outcome
from synergymesh.domain.idempotency import check_key
from synergymesh.domain.instants import Instant, from_datetime
from synergymesh.domain.payload import encode
from synergymesh.domain.scheduling.tenant_queue import level_of
from synergymesh.domain.tenants import Tenant
from synergymesh.engine.acting import current_actor
from synergymesh.engine.admission import Admission
from synergymesh.engine.backlog.doubts import Doubts
from synergymesh.engine.backlog.waiting import live_run
from synergymesh.engine.backlog.window import Window
from synergymesh.engine.committer import Answer, Committer
from synergymesh.engine.dispatch import Dispatcher
from synergymesh.engine.live import SETTLED_BY_AN_ATTEMPT, LiveRun
from synergymesh.engine.open_runs import OpenRuns
from synergymesh.engine.run_ids import RunIds
from synergymesh.engine.tenants import Tenants
from synergymesh.engine.timing.time_limits import start_by
from synergymesh.engine.versions import Version, Versions
from synergymesh.errors import IdempotencyConflict, InvalidRequest, StoreError, StoreUnavailable
from synergymesh.ports.changes import CancelRequested, Change, Noted, RunCreated, RunLinked, RunStarted, TaskFinished
from synergymesh.ports.clock import Clock
from synergymesh.ports.records import Refused, TaskRecord
from synergymesh.workflows.workflow import Workflow

PRIORITY_MAX = 1_000
"""Priorities go from -1,000 to 1,000: enough to order by, small enough to combine with those of components."""

INSTANT_MAX = 2**63 - 1
"""Nanoseconds since 1970 that a database can hold."""


class Origin(msgspec.Struct, frozen=True):
    """Say which run another one goes on from, or repeats.

    Attributes:
        retry_of: the run that it goes on from.
        replay_of: the run that it repeats.
        reused: tasks of that run whose results are used again.
        cancelled: whether that run was cancelled, and this one only undoes what it did.
        dead_letter: the id of the dead letter that somebody redrives, or None.
        size: how many tasks are left; None for all that are not reused.
    """

    retry_of: str | None = None
    replay_of: str | None = None
    reused: Sequence[TaskRecord] = ()
    cancelled: bool = False
    dead_letter: str | None = None
    size: int | None = None

    def open_tasks(self, version: Version) -> int:
        """Count the tasks that are left to do."""
        return version.plan.size - len(self.reused) if self.size is None else self.size

    def changes(self, row: RunCreated) -> list[Change]:
        """Give what is recorded of it beside the row of the new run, which has begun if it has results."""
        changes: list[Change] = [
            RunLinked(row.run_id, row.tenant_id, self.retry_of, self.replay_of, row.created_at, row.by)
        ]
        if self.dead_letter is not None:
            changes.append(
                Noted(
                    row.tenant_id,
                    Action.DEAD_LETTER_REDRIVEN,
                    f"dead_letter/{self.dead_letter}",
                    row.created_at,
                    Outcome.SUCCESS,
                    row.created_at,
                    msgspec.json.encode({"run_id": row.run_id}),
                    row.by,
                )
            )
        if self.reused:
            changes.append(RunStarted(row.run_id, row.tenant_id, row.created_at))
        if self.cancelled:
            changes.append(CancelRequested(row.run_id, row.tenant_id, row.created_at, row.by))
        # in the order in which they were committed, which counts for undoing
        for later, task in enumerate(sorted(self.reused, key=lambda task: task.ended_at or 0)):
            at = row.created_at + later
            changes.append(
                TaskFinished(
                    row.run_id, task.component_id, row.tenant_id, task.status, 0, None, at, task.result, task.error
                )
            )
        return changes

    def restore(self, run: LiveRun) -> None:
        """Bring a new run to where it goes on."""
        for task in sorted(self.reused, key=lambda task: task.ended_at or 0):
            if task.status in SETTLED_BY_AN_ATTEMPT:
                run.restore(task)
        if self.cancelled:
            run.cancelling = True
            run.state.cancel_waiting()


NO_ORIGIN = Origin()


class Submission:
    """Turn a workflow and an input into an acknowledged run.

    Attributes:
        ids: makes the ids of runs.
        traced: gives the trace that a new run belongs to, from its id, its tenant's and the workflow's name; None if
            nothing is traced.
    """

    def __init__(
        self,
        tenants: Tenants,
        admission: Admission,
        versions: Versions,
        committer: Committer,
        runs: OpenRuns,
        dispatcher: Dispatcher,
        window: Window,
        doubts: Doubts,
        clock: Clock,
        dice: Random,
        *,
        payload_bytes_max: int,
    ) -> None:
        self.traced: Callable[[str, str, str], str | None] | None = None
        self._tenants = tenants
        self._admission = admission
        self._versions = versions
        self._committer = committer
        self._runs = runs
        self._dispatcher = dispatcher
        self._window = window
        self._doubts = doubts
        self._clock = clock
        self._payload_bytes_max = payload_bytes_max
        self.ids = RunIds(dice)

    async def submit(
        self,
        workflow: Workflow,
        tenant_id: object,
        input_: Mapping[str, Any] | None,
        idempotency_key: str | None,
        priority: int,
        not_before: datetime | None,
    ) -> str:
        """Record a run and give its id; with an idempotency key that was used before, the id of that run.

        Raises:
            UnknownTenant, TenantNotActive: it cannot be submitted for that tenant.
            InvalidRequest: input, key, priority or not_before cannot be accepted, or a task could never run.
            FeatureNotEnabled, RateLimitExceeded, BacklogFull: the tenant's plan does not allow it, or not now.
            IdempotencyConflict: the key belongs to a run with another workflow or input.
            StoreUnavailable: it could not be recorded.
        """
        tenant = self._tenants.active(tenant_id)
        version = self._versions.of(workflow)
        self._dispatcher.code_found(version)
        self._window.code_found(version)
        raw = encode(workflow.check_input(input_), field="input", limit=self._payload_bytes_max)
        check_key(idempotency_key)
        check_priority(priority)
        earliest = check_not_before(not_before)
        return await self.enter(tenant, version, raw, key=idempotency_key, priority=priority, earliest=earliest)

    async def enter(
        self,
        tenant: Tenant,
        version: Version,
        raw: bytes,
        *,
        key: str | None = None,
        priority: int = 0,
        earliest: Instant = 0,
        origin: Origin = NO_ORIGIN,
    ) -> str:
        """Admit and record a run whose parts are checked; give its id, or that of the run which has its key.

        Args:
            tenant: whose.
            version: what is run.
            raw: the input as JSON.
            key: idempotency key.
            priority: among the runs of the tenant.
            earliest: no task starts before.
            origin: the run that it goes on from, or repeats.

        Raises:
            InvalidRequest, FeatureNotEnabled, RateLimitExceeded, BacklogFull: it is not admitted.
            IdempotencyConflict: the key belongs to a run with another workflow or input.
            StoreError: it could not be recorded.
        """
        await self._committer.room()
        if self._doubts.are_too_many:
            raise StoreUnavailable("the database failed during too many submissions. Wait until it can be read again.")
        now = self._clock.now()
        size = origin.open_tasks(version)
        self._admission.admit(tenant, version.plan, priority, now, size=size)
        run_id = self.ids.make(now)
        traced = self.traced
        row = RunCreated(
            run_id,
            tenant.tenant_id,
            version.plan.workflow,
            version.plan.content_hash,
            raw,
            key,
            priority,
            earliest,
            now,
            level_of(max(now, earliest), priority),
            version.plan.size,
            current_actor(),
            start_by(version.plan, now, earliest),
            None if traced is None else traced(run_id, tenant.tenant_id, version.plan.workflow),
        )
        unit: list[Change] = [row] if version.stored else [version.row(now), row]
        if origin is not NO_ORIGIN:
            unit += origin.changes(row)
        acknowledged: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._runs.backlog.add(tenant.tenant_id, size)
        self._committer.put(unit, partial(self._recorded, row, version, origin, acknowledged), may_fail=True)
        return await acknowledged

    def _recorded(
        self, row: RunCreated, version: Version, origin: Origin, acknowledged: asyncio.Future[str], answer: Answer
    ) -> None:
        """Take up a run that is recorded, whether or not its submitter still waits."""
        run_id = row.run_id
        # counted again with the run itself
        self._runs.backlog.add(row.tenant_id, -origin.open_tasks(version))
        error: Exception | None = None
        if isinstance(answer, Exception):
            error = answer
            if isinstance(answer, StoreError):
                begin = partial(self._begin, row, version, origin)
                self._doubts.add(row, begin, begun=bool(origin.reused))
        elif isinstance(answer, Refused):
            error = StoreError(f"the database refused the run: {answer.reason}")
        elif answer.existing is not None:
            run_id = answer.existing.run_id
            self._doubts.found(answer.existing)
            if (answer.existing.content_hash, answer.existing.input) != (row.content_hash, row.input):
                error = IdempotencyConflict(str(row.idempotency_key), run_id)
        else:
            version.stored = True
            self._begin(row, version, origin)
        if acknowledged.done():
            return
        if error is not None:
            acknowledged.set_exception(error)
        else:
            acknowledged.set_result(run_id)

    def _begin(self, row: RunCreated, version: Version, origin: Origin) -> None:
        """Take up a run that is recorded."""
        if origin.reused:
            self._go_on(row, version, origin)
        else:
            self._window.take(row, version)

    def _go_on(self, row: RunCreated, version: Version, origin: Origin) -> None:
        """Offer the tasks of a run that begins with results."""
        run = live_run(row, version)
        run.started_at = row.created_at
        run.start_recorded = True
        origin.restore(run)
        self._runs.add(run)
        if run.state.open_tasks or self._runs.conclude(run):
            self._dispatcher.offer(run, run.state.startable())


def check_priority(priority: object) -> None:
    """Raise InvalidRequest unless it is a usable priority."""
    if not isinstance(priority, int) or isinstance(priority, bool) or abs(priority) > PRIORITY_MAX:
        raise InvalidRequest(
            f"priority must be a whole number from -{PRIORITY_MAX:,} to {PRIORITY_MAX:,}, not {priority!r}.",
            field="priority",
        )


def check_not_before(moment: object) -> Instant:
    """Give the instant, 0 for None; raise InvalidRequest unless it is an aware datetime."""
    if moment is None:
        return 0
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise InvalidRequest(
            f"not_before must be a datetime with a time zone, not {moment!r}. Use datetime.now(UTC) + …",
            field="not_before",
        )
    instant = from_datetime(moment)
    if instant > INSTANT_MAX:
        raise InvalidRequest(f"not_before must be before April 2262, not {moment}.", field="not_before")
    return max(0, instant)
