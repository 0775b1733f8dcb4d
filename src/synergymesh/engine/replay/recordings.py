"""Reads recorded runs as a workload that can be replayed, or a declared one from JSON."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from synergymesh.domain.fault_tolerance.retry import DEFAULT_RETRY
from synergymesh.domain.instants import SECOND, Instant
from synergymesh.domain.scheduling.limits import Request
from synergymesh.domain.simulation import PlannedRun, PlannedTask
from synergymesh.domain.states import ExecutionStatus
from synergymesh.domain.workflow.definition import WorkflowDefinition
from synergymesh.domain.workflow.plan import Plan
from synergymesh.engine.stored import Versioned, version_of
from synergymesh.errors import InvalidRequest
from synergymesh.ports.records import AttemptRecord, RunRecord, TaskRecord

TASKS_MAX = 1_000_000
"""Tasks of one replay: some hundred megabytes, and about a minute."""

PAGE_RUNS = 200
"""Runs that are read at once; what they become takes the event loop some milliseconds."""

SECONDS_MAX = 10 * 366 * 86_400
"""Ten years: of a declared task, and of a declared workload."""


class RecordReader(Versioned, Protocol):
    """What is needed of a store, or of a reader of its file."""

    async def list_runs(
        self,
        *,
        tenant_id: str | None,
        statuses: Sequence[ExecutionStatus] = (),
        workflow: str | None = None,
        before: str | None = None,
        limit: int = 100,
    ) -> list[RunRecord]:
        """Give runs, newest first, those with a smaller id than `before`; without statuses: of any."""
        ...

    async def list_tasks(self, run_ids: Sequence[str], tenant_id: str | None = None) -> list[TaskRecord]:
        """Give the task rows of these runs, ordered by (run, component)."""
        ...

    async def list_attempts(self, run_ids: Sequence[str], tenant_id: str | None = None) -> list[AttemptRecord]:
        """Give the failed attempts of these runs, ordered by (run, component, number)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Hold what is replayed.

    Attributes:
        runs: in the order of submission.
        tasks: how many these have together.
        left_out: recorded tasks that were never executed: skipped, cancelled, or not ended yet.
    """

    runs: tuple[PlannedRun, ...]
    tasks: int
    left_out: int = 0


class Recordings:
    """Turn what a store has recorded into workloads.

    Args:
        reader: the store.
        default_request: what a task takes that declares nothing.
    """

    def __init__(self, reader: RecordReader, default_request: Request) -> None:
        self._reader = reader
        self._default_request = default_request
        self._plans: dict[str, Plan] = {}

    async def read(self, since: Instant, until: Instant) -> Workload:
        """Read the runs that were submitted in a span of time, with what their tasks took.

        A task takes as long as all of its attempts together; a dependency on one that never ran counts as met.

        Raises:
            InvalidRequest: they have more tasks than are replayed at once.
        """
        runs: list[PlannedRun] = []
        tasks = left_out = 0
        before: str | None = f"run-{until:016x}"
        while page := await self._reader.list_runs(tenant_id=None, before=before, limit=PAGE_RUNS):
            before = page[-1].run_id
            wanted = [record for record in page if record.created_at >= since]
            for record, executed in await self._executed(wanted):
                plan = await self._plan(record.content_hash)
                left_out += plan.size - len(executed)
                tasks += len(executed)
                if tasks > TASKS_MAX:
                    raise InvalidRequest(
                        f"more than {TASKS_MAX:,} tasks ran in that time. Choose a shorter one.", field="since"
                    )
                if executed:
                    runs.append(_planned(record, plan, executed))
            if len(wanted) < len(page):
                break
        runs.reverse()
        return Workload(runs=tuple(runs), tasks=tasks, left_out=left_out)

    async def _executed(self, records: Sequence[RunRecord]) -> list[tuple[RunRecord, dict[str, int]]]:
        """Give of each run how many nanoseconds each of its executed tasks took."""
        begun = [record.run_id for record in records if record.started_at is not None]
        took: dict[str, dict[str, int]] = defaultdict(dict)
        tried_again: set[str] = set()
        for task in await self._reader.list_tasks(begun) if begun else ():
            if task.started_at is not None and task.ended_at is not None:
                took[task.run_id][task.component_id] = max(1, task.ended_at - task.started_at)
                if task.attempt > 1:
                    tried_again.add(task.run_id)
        for attempt in await self._reader.list_attempts(sorted(tried_again)) if tried_again else ():
            executed = took[attempt.run_id]
            if attempt.component_id in executed:
                executed[attempt.component_id] += max(0, attempt.ended_at - attempt.started_at)
        return [(record, took.get(record.run_id, {})) for record in records]

    async def _plan(self, content_hash: str) -> Plan:
        plan = self._plans.get(content_hash)
        if plan is None:
            record = await version_of(self._reader, content_hash)
            definition = WorkflowDefinition.from_json(record.definition)
            plan = self._plans[content_hash] = Plan(definition, DEFAULT_RETRY, self._default_request)
        return plan


def _planned(record: RunRecord, plan: Plan, executed: dict[str, int]) -> PlannedRun:
    places = {component_id: place for place, component_id in enumerate(executed)}
    components = plan.definition.components
    tasks = []
    for component_id, duration in executed.items():
        position = plan.positions[component_id]
        tasks.append(
            PlannedTask(
                component=plan.learning_keys[position],
                duration_ns=duration,
                depends_on=tuple(
                    places[d.component_id] for d in components[position].dependencies if d.component_id in places
                ),
                request=plan.requests[position],
                declared_cost=plan.costs[position],
                rank=plan.ranks[position],
            )
        )
    return PlannedRun(
        tenant_id=record.tenant_id,
        submitted_at=max(record.created_at, record.not_before),
        tasks=tasks,
        priority=record.priority,
    )


# --- declared workloads ---------------------------------------------------------------------------------------------


class DeclaredTask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Declare a task: how long it takes, the places of those that it depends on, what it takes."""

    seconds: float
    depends_on: tuple[int, ...] = ()
    memory_mb: int = 0
    cpus: float = 0.0


class DeclaredRuns(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Declare runs of the same shape: `count` of them, one every `every_seconds` from `at_seconds` on."""

    tenant: str
    tasks: tuple[DeclaredTask, ...]
    count: int = 1
    at_seconds: float = 0.0
    every_seconds: float = 0.0
    priority: int = 0


def parse_workload(raw: bytes, tenant_id_of: Callable[[str], str]) -> Workload:
    """Read a declared workload from a JSON list of runs, as the fields of `DeclaredRuns` and `DeclaredTask` say.

    Args:
        raw: the JSON.
        tenant_id_of: gives the id of a tenant by what the workload calls it; raises UnknownTenant.

    Raises:
        InvalidRequest: it is no such list, or a value is outside its range.
    """
    try:
        declared = msgspec.json.decode(raw, type=list[DeclaredRuns])
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest(f"that is no workload: {error}.", field="workload") from None
    begin = 1_800_000_000 * SECOND  # any moment will do
    runs: list[PlannedRun] = []
    tasks = 0
    for place, each in enumerate(declared):
        where = f"workload[{place}]"
        _check(1 <= each.count <= TASKS_MAX, f"{where}.count must be from 1 to {TASKS_MAX:,}, not {each.count!r}")
        last = each.at_seconds + each.every_seconds * (each.count - 1)
        moments = (each.at_seconds, each.every_seconds, last)
        _check(
            all(0 <= seconds <= SECONDS_MAX for seconds in moments),
            f"{where}: at_seconds, every_seconds and the last submission must be from 0 to {SECONDS_MAX:,} seconds",
        )
        shape = [_planned_task(task, number, where) for number, task in enumerate(each.tasks)]
        _check(bool(shape), f"{where}.tasks is empty")
        tasks += len(shape) * each.count
        _check(tasks <= TASKS_MAX, f"the workload has more than {TASKS_MAX:,} tasks")
        tenant_id = tenant_id_of(each.tenant)
        runs += [
            PlannedRun(
                tenant_id=tenant_id,
                submitted_at=begin + int((each.at_seconds + number * each.every_seconds) * SECOND),
                tasks=shape,
                priority=each.priority,
            )
            for number in range(each.count)
        ]
    runs.sort(key=lambda run: run.submitted_at)
    return Workload(runs=tuple(runs), tasks=tasks)


def _planned_task(task: DeclaredTask, number: int, where: str) -> PlannedTask:
    field = f"{where}.tasks[{number}]"
    _check(0 < task.seconds <= SECONDS_MAX, f"{field}.seconds must be above 0 and at most {SECONDS_MAX:,}")
    _check(
        all(0 <= before < number for before in task.depends_on),
        f"{field}.depends_on must be places of tasks before it, from 0 on",
    )
    _check(0 <= task.memory_mb <= 1_000_000_000, f"{field}.memory_mb must be from 0 to 1,000,000,000")
    _check(0 <= task.cpus <= 100_000, f"{field}.cpus must be from 0 to 100,000")
    return PlannedTask(
        component=(where, number),
        duration_ns=max(1, int(task.seconds * SECOND)),
        depends_on=tuple(dict.fromkeys(task.depends_on)),
        request=Request(task.memory_mb, int(task.cpus * 1_000)),
        declared_cost=max(1, int(task.seconds * 1_000_000)),
    )


def _check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise InvalidRequest(f"{otherwise}.", field="workload")
