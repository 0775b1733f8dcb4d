"""What was recorded, as the store was told it: the journal that everything else is compared with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from synergymesh.domain.states import ExecutionStatus, TenantStatus
from synergymesh.domain.workflow.definition import Component, WorkflowDefinition
from synergymesh.ports.changes import (
    AttemptFailed,
    Change,
    DeadLetterDiscarded,
    HourReserved,
    RunCreated,
    RunFinished,
    RunLinked,
    RunStarted,
    TaskFinished,
    TenantCreated,
    TenantStatusChanged,
    Unit,
    WorkflowStored,
)
from synergymesh.ports.records import CommitResult, Committed

FOLLOWING = (ExecutionStatus.SKIPPED, ExecutionStatus.CANCELLED)
"""Ends that follow from those of other tasks, or from the wish to cancel."""

Fail = Callable[[str, str], None]


class RunHistory:
    """Hold what was recorded of a run.

    Attributes:
        created: its row.
        definition: what is run.
        components: by id, those that undo others too.
        undo: ids of the components that undo others, by the ids of these.
        ended: the final verdicts by component, in the order of their commits.
        failed: the failed attempts by component and number.
        reused: the components whose results come from another run.
        link: says which run it goes on from or repeats, or None.
        begun: whether its start is recorded.
        end: of the run, or None.
    """

    __slots__ = ("begun", "components", "created", "definition", "end", "ended", "failed", "link", "reused", "undo")

    def __init__(self, created: RunCreated, definition: WorkflowDefinition) -> None:
        self.created = created
        self.definition = definition
        undoing = definition.compensations
        self.components: dict[str, Component] = {
            each.component_id: each for each in (*definition.components, *undoing.values())
        }
        self.undo = {done: each.component_id for done, each in undoing.items()}
        self.ended: dict[str, TaskFinished] = {}
        self.failed: dict[tuple[str, int], AttemptFailed] = {}
        self.reused: set[str] = set()
        self.link: RunLinked | None = None
        self.begun = False
        self.end: RunFinished | None = None

    def attempts_of(self, component_id: str) -> list[AttemptFailed]:
        """Give the attempts of a task that were followed by another one, oldest first."""
        found = [each for (of, _), each in self.failed.items() if of == component_id]
        return sorted(found, key=lambda attempt: attempt.number)


class History:
    """Follow the commits, and check each of them against what was recorded before.

    Attributes:
        runs: by id, those of deleted tenants included.
        parents: of tenants, by id.
        deleted: tenants.
        reserved: starts by (tenant, minute).
        keys: runs by (tenant, idempotency key).
        retries: by the id of a run, the one that goes on from it.
        discarded: dead letters, as (run, component).
        pruned: runs that were deleted after their retention.
        heard: are told of every change that is new, once it is taken.
        entered: are told of every new run, once all of its unit is taken.
    """

    def __init__(self, fail: Fail) -> None:
        self.runs: dict[str, RunHistory] = {}
        self.parents: dict[str, str | None] = {}
        self.deleted: set[str] = set()
        self.reserved: dict[tuple[str, int], int] = defaultdict(int)
        self.keys: dict[tuple[str, str], str] = {}
        self.retries: dict[str, str] = {}
        self.discarded: set[tuple[str, str]] = set()
        self.pruned: set[str] = set()
        self.heard: list[Callable[[Change], None]] = []
        self.entered: list[Callable[[RunHistory], None]] = []
        self._definitions: dict[str, WorkflowDefinition] = {}
        self._entering: str | None = None
        self._fail = fail
        self._note: dict[type, Callable[[Any], bool | None]] = {
            TenantCreated: self._tenant,
            TenantStatusChanged: self._tenant_status,
            HourReserved: self._hour,
            WorkflowStored: self._workflow,
            RunCreated: self._created,
            RunLinked: self._linked,
            RunStarted: self._started,
            DeadLetterDiscarded: self._discarded,
            AttemptFailed: self._attempt,
            TaskFinished: self._finished,
            RunFinished: self._ended,
        }

    def committed(self, units: Sequence[Unit], results: Sequence[CommitResult]) -> None:
        """Take what was recorded."""
        for unit, result in zip(units, results, strict=True):
            if isinstance(result, Committed) and result.existing is None:
                entering = next((each.run_id for each in unit if isinstance(each, RunCreated)), None)
                self._entering = None if entering in self.runs else entering
                for change in unit:
                    self._take(change)
                if self._entering is not None:
                    for listener in self.entered:
                        listener(self.runs[self._entering])

    def _take(self, change: Change) -> None:
        note = self._note.get(type(change))
        if note is None or note(change) is not False:
            for listener in self.heard:
                listener(change)

    def _tenant(self, change: TenantCreated) -> None:
        self.parents[change.tenant_id] = change.parent_id

    def _tenant_status(self, change: TenantStatusChanged) -> None:
        if change.status is TenantStatus.DELETED:
            self.deleted.add(change.tenant_id)

    def _hour(self, change: HourReserved) -> None:
        self.reserved[change.tenant_id, change.minute] = change.starts

    def _workflow(self, change: WorkflowStored) -> None:
        self._definitions[change.content_hash] = WorkflowDefinition.from_json(change.definition)

    def _created(self, change: RunCreated) -> bool:
        known = self.runs.get(change.run_id)
        if known is not None:
            if known.created != change:
                self._fail("I2", f"{change.run_id} was recorded twice, differently")
            return False
        self.runs[change.run_id] = RunHistory(change, self._definitions[change.content_hash])
        if change.idempotency_key is not None:
            key = (change.tenant_id, change.idempotency_key)
            if self.keys.setdefault(key, change.run_id) != change.run_id:
                self._fail("I8", f"the key {change.idempotency_key} has two runs")
        return True

    def _linked(self, change: RunLinked) -> None:
        self.runs[change.run_id].link = change
        if change.retry_of is not None and self.retries.setdefault(change.retry_of, change.run_id) != change.run_id:
            self._fail("I8", f"{change.retry_of} has two retries")

    def _started(self, change: RunStarted) -> None:
        self.runs[change.run_id].begun = True

    def _discarded(self, change: DeadLetterDiscarded) -> None:
        self.discarded.add((change.run_id, change.component_id))

    def _attempt(self, change: AttemptFailed) -> bool:
        run = self.runs[change.run_id]
        key = (change.component_id, change.number)
        known = run.failed.get(key)
        if known is None:
            run.failed[key] = change
        elif known != change:
            self._fail("I3", f"attempt {key} of {change.run_id} was recorded twice, differently")
        return known is None

    def _finished(self, change: TaskFinished) -> bool:
        run = self.runs[change.run_id]
        known = run.ended.get(change.component_id)
        if known is not None and known.status is change.status and change.status in FOLLOWING:
            return False  # worked out again after a restart; the store keeps the first one
        if known is not None and known != change:
            self._fail("I2", f"{change.run_id}/{change.component_id} was {known.status}, and then {change.status}")
        elif known is None and run.end is not None:
            self._fail("I2", f"{change.run_id} had ended when {change.component_id} did")
        run.ended[change.component_id] = change
        if self._entering == change.run_id:
            run.reused.add(change.component_id)
        return known is None

    def _ended(self, change: RunFinished) -> bool:
        run = self.runs[change.run_id]
        if run.end is not None:
            if run.end != change:
                self._fail("I2", f"{change.run_id} was {run.end.status}, and then {change.status}")
            return False
        missing = run.components.keys() - run.ended.keys() - set(run.undo.values())
        if missing:
            self._fail("I2", f"{change.run_id} is {change.status} although {sorted(missing)} did not end")
        run.end = change
        return True

    def forget(self, run_ids: Iterable[str]) -> None:
        """Take note that runs are pruned: their keys are free."""
        for run_id in run_ids:
            self.pruned.add(run_id)
            created = self.runs[run_id].created
            if created.idempotency_key is not None:
                self.keys.pop((created.tenant_id, created.idempotency_key), None)

    def family(self, tenant_id: str) -> list[str]:
        """Give the tenant and the one whose quota it shares."""
        parent = self.parents.get(tenant_id)
        return [tenant_id] if parent is None else [tenant_id, parent]

    def open_runs(self) -> list[RunHistory]:
        """Give the runs that are not final, of tenants that are not deleted."""
        return [run for run in self.runs.values() if run.end is None and run.created.tenant_id not in self.deleted]


def is_required(run: RunHistory, component: Component, dependency_id: str) -> bool:
    """Tell whether a component cannot do without a dependency."""
    required = next(each.required for each in component.dependencies if each.component_id == dependency_id)
    return required and run.components[dependency_id].required


def succeeded(finished: TaskFinished) -> bool:
    """Tell whether a task ended well."""
    return finished.status is ExecutionStatus.SUCCESS
