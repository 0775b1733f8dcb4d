"""What people see of tasks that failed for good, read from any store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from synergymesh.domain.fault_tolerance.error_info import ErrorInfo
from synergymesh.domain.instants import Instant, from_datetime, to_datetime
from synergymesh.domain.payload import decode
from synergymesh.domain.states import ExecutionStatus
from synergymesh.domain.workflow.definition import WorkflowDefinition
from synergymesh.domain.workflow.templates import compile_arguments, references
from synergymesh.engine.observability.events import error_of
from synergymesh.engine.observability.views import Attempt, attempt_view
from synergymesh.engine.recovery import QUARANTINED
from synergymesh.engine.stored import Versioned, version_of
from synergymesh.errors import InvalidRequest, UnknownDeadLetter
from synergymesh.ports.records import AttemptRecord, DeadLetterRecord, RunRecord, TaskRecord

PAGE_MAX = 1_000
"""Dead letters of one page: a traceback has up to 16,000 characters, so a page has at most some 20 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """Describe a task that failed for good. Times are aware (UTC).

    Attributes:
        id: `RUN:TASK`.
        version: the content hash of the workflow version.
        run_status: how its run stands; it can be redriven once that is final.
        status: failed or timeout.
        attempt: the number of the last attempt.
        error: why it failed for good, with its traceback.
        crashes: how often the process died while it was running.
        quarantined: whether it failed because of that.
        discarded_at: when somebody put it away, or None.
        discard_reason: why.
        retried_as: the run that goes on with it, or None.
        task: the name of the task function; this and what follows only where one is asked for.
        input: of the run.
        args: what the task was called with, positional.
        kwargs: and by name.
        failures: the attempts before the last one.
    """

    id: str
    run_id: str
    task_id: str
    tenant_id: str
    workflow: str
    version: str
    run_status: ExecutionStatus
    status: ExecutionStatus
    attempt: int
    started_at: datetime | None
    failed_at: datetime
    error: ErrorInfo | None
    crashes: int
    quarantined: bool
    discarded_at: datetime | None
    discard_reason: str | None
    retried_as: str | None
    task: str | None = None
    input: Any = None
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] | None = None
    failures: tuple[Attempt, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterQuery:
    """Say which dead letters are meant: those that fit all that is said.

    Attributes:
        tenant_id: whose; None for all tenants.
        workflow: those of this workflow.
        error_type: those with an error of that type, or of one derived from it.
        since: those that failed then or later; aware.

    Raises:
        InvalidRequest: error_type or since cannot be accepted.
    """

    tenant_id: str | None
    workflow: str | None = None
    error_type: str | None = None
    since: datetime | None = None

    def __post_init__(self) -> None:
        """Refuse what nothing can fit."""
        since, name = self.since, self.error_type
        if since is not None and (not isinstance(since, datetime) or since.tzinfo is None):
            raise InvalidRequest(f"since must be a datetime with a time zone, not {since!r}.", field="since")
        if name is not None and not (isinstance(name, str) and name and name.isprintable()):
            raise InvalidRequest(
                f"error_type must be the name of an exception type, such as ValueError, not {name!r:.100}.",
                field="error_type",
            )


class Reads(Versioned, Protocol):
    """What is read of a store here, with the arguments of `Store`; whoever only reads a database has it too."""

    @property
    def list_dead_letters(self) -> Callable[..., Awaitable[list[DeadLetterRecord]]]: ...

    @property
    def get_dead_letter(self) -> Callable[..., Awaitable[DeadLetterRecord | None]]: ...

    @property
    def get_run(self) -> Callable[..., Awaitable[RunRecord | None]]: ...

    @property
    def list_tasks(self) -> Callable[..., Awaitable[list[TaskRecord]]]: ...

    @property
    def list_attempts(self) -> Callable[..., Awaitable[list[AttemptRecord]]]: ...


async def list_from(store: Reads, query: DeadLetterQuery, *, limit: int, cursor: str | None) -> list[DeadLetter]:
    """Give those of a store that nobody has seen to, newest run first.

    Raises:
        InvalidRequest: limit or cursor cannot be accepted.
    """
    check_limit(limit, PAGE_MAX)
    before = None if cursor is None else _parse(cursor, "cursor")
    return [dead_letter_view(record) for record in await read_page(store, query, before, limit)]


async def read_page(
    store: Reads, query: DeadLetterQuery, before: tuple[str, str] | None, limit: int
) -> list[DeadLetterRecord]:
    """Read those that nobody has seen to, newest run first, behind a (run, component)."""
    return await store.list_dead_letters(
        tenant_id=query.tenant_id,
        workflow=query.workflow,
        error_type=query.error_type,
        since=None if query.since is None else from_datetime(query.since),
        before=before,
        limit=limit,
    )


async def find(store: Reads, dead_letter_id: str, tenant_id: str | None) -> DeadLetterRecord:
    """Give the record of a dead letter.

    Raises:
        UnknownDeadLetter: there is none of that id that this tenant may see.
    """
    try:
        run_id, component_id = _parse(dead_letter_id, "id")
    except InvalidRequest:
        raise UnknownDeadLetter(dead_letter_id) from None
    record = await store.get_dead_letter(run_id, component_id, tenant_id)
    if record is None:
        raise UnknownDeadLetter(dead_letter_id)
    return record


async def look_into(store: Reads, record: DeadLetterRecord) -> DeadLetter:
    """Describe a dead letter with the arguments and attempts of its task.

    Raises:
        UnknownDeadLetter: its run is gone meanwhile.
        StoreCorrupt: the store does not have the version of its workflow.
    """
    run_id, tenant_id = record.run_id, record.tenant_id
    run = await store.get_run(run_id, tenant_id)
    if run is None:
        raise UnknownDeadLetter(_id_of(record))
    workflow = await version_of(store, record.content_hash)
    definition = WorkflowDefinition.from_json(workflow.definition)
    component = definition.find(record.component_id)
    values = [*component.args, *component.kwargs.values()]
    used = {definition.positions[component_id] for component_id in references(values)}
    rows = await store.list_tasks([run_id], tenant_id) if used else []
    places = definition.positions
    results = {places[row.component_id]: row.result for row in rows if row.component_id in places}

    def result_of(position: int) -> Any:
        raw = results.get(position)
        return None if raw is None else decode(raw)

    input_ = decode(run.input)
    try:
        args, kwargs = compile_arguments(component.args, component.kwargs, definition.positions)(input_, result_of)
    except LookupError:
        args, kwargs = (), {}  # that is why it failed, and its error says so
    attempts = await store.list_attempts([run_id], tenant_id)
    return dead_letter_view(
        record,
        task=component.task,
        input=input_,
        args=args,
        kwargs=kwargs,
        failures=tuple(attempt_view(a) for a in attempts if a.component_id == record.component_id),
    )


def dead_letter_view(record: DeadLetterRecord, **more: Any) -> DeadLetter:
    """Describe a dead letter by its row."""
    error = error_of(record.error)
    return DeadLetter(
        id=_id_of(record),
        run_id=record.run_id,
        task_id=record.component_id,
        tenant_id=record.tenant_id,
        workflow=record.workflow,
        version=record.content_hash,
        run_status=ExecutionStatus(record.run_status),
        status=record.status,
        attempt=record.attempt,
        started_at=_moment(record.started_at),
        failed_at=to_datetime(record.ended_at),
        error=error,
        crashes=record.crashes,
        quarantined=error is not None and error.type == QUARANTINED,
        discarded_at=_moment(record.discarded_at),
        discard_reason=record.discard_reason,
        retried_as=record.retried_as,
        **more,
    )


def _id_of(record: DeadLetterRecord) -> str:
    return f"{record.run_id}:{record.component_id}"


def _parse(dead_letter_id: object, field: str) -> tuple[str, str]:
    if isinstance(dead_letter_id, str) and dead_letter_id.isprintable():
        run_id, colon, component_id = dead_letter_id.partition(":")
        if colon and run_id.isascii():
            return run_id, component_id
    raise InvalidRequest(
        f"{field} must be the id of a dead letter, RUN:TASK, not {dead_letter_id!r:.100}.", field=field
    )


def check_limit(limit: object, most: int) -> None:
    """Raise InvalidRequest unless it is a number from 1 to `most`."""
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= most:
        raise InvalidRequest(f"limit must be from 1 to {most:,}, not {limit!r}.", field="limit")


def _moment(instant: Instant | None) -> datetime | None:
    return None if instant is None else to_datetime(instant)
