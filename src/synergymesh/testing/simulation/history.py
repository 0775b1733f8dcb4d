"""What was recorded, as the store was told it: the journal that everything else is compared with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from synergymesh.domain.states import ExecutionStatus, TenantStatus
from synergymesh.domain.workflow.definition import Component, WorkflowDefinition
from synergymesh.ports.changes import (
    AttemptFailed,
    Change,
    HourReserved,
    RunCreated,
    RunFinished,
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
        components: by id.
        ended: the final verdicts by component.
        failed: the failed attempts by component and number.
        end: of the run, or None.
    """

    __slots__ = ("components", "created", "definition", "end", "ended", "failed")

    def __init__(self, created: RunCreated, definition: WorkflowDefinition) -> None:
        self.created = created
        self.definition = definition
        self.components: dict[str, Component] = {each.component_id: each for each in definition.components}
        self.ended: dict[str, TaskFinished] = {}
        self.failed: dict[tuple[str, int], AttemptFailed] = {}
        self.end: RunFinished | None = None


class History:
    """Follow the commits, and check each of them against what was recorded before.

    Attributes:
        runs: by id, those of deleted tenants included.
        parents: of tenants, by id.
        deleted: tenants.
        reserved: starts by (tenant, minute).
        keys: runs by (tenant, idempotency key).
    """

    def __init__(self, fail: Fail) -> None:
        self.runs: dict[str, RunHistory] = {}
        self.parents: dict[str, str | None] = {}
        self.deleted: set[str] = set()
        self.reserved: dict[tuple[str, int], int] = defaultdict(int)
        self.keys: dict[tuple[str, str], str] = {}
        self._definitions: dict[str, WorkflowDefinition] = {}
        self._fail = fail
        self._note: dict[type, Callable[[Any], None]] = {
            TenantCreated: self._tenant,
            TenantStatusChanged: self._tenant_status,
            HourReserved: self._hour,
            WorkflowStored: self._workflow,
            RunCreated: self._created,
            AttemptFailed: self._attempt,
            TaskFinished: self._finished,
            RunFinished: self._ended,
        }

    def committed(self, units: Sequence[Unit], results: Sequence[CommitResult]) -> None:
        """Take what was recorded."""
        for unit, result in zip(units, results, strict=True):
            if isinstance(result, Committed) and result.existing is None:
                for change in unit:
                    self._take(change)

    def _take(self, change: Change) -> None:
        note = self._note.get(type(change))
        if note is not None:
            note(change)

    def _tenant(self, change: TenantCreated) -> None:
        self.parents[change.tenant_id] = change.parent_id

    def _tenant_status(self, change: TenantStatusChanged) -> None:
        if change.status is TenantStatus.DELETED:
            self.deleted.add(change.tenant_id)

    def _hour(self, change: HourReserved) -> None:
        self.reserved[change.tenant_id, change.minute] = change.starts

    def _workflow(self, change: WorkflowStored) -> None:
        self._definitions[change.content_hash] = WorkflowDefinition.from_json(change.definition)

    def _created(self, change: RunCreated) -> None:
        known = self.runs.get(change.run_id)
        if known is not None:
            if known.created != change:
                self._fail("I2", f"{change.run_id} was recorded twice, differently")
            return
        self.runs[change.run_id] = RunHistory(change, self._definitions[change.content_hash])
        if change.idempotency_key is not None:
            key = (change.tenant_id, change.idempotency_key)
            if self.keys.setdefault(key, change.run_id) != change.run_id:
                self._fail("I8", f"the key {change.idempotency_key} has two runs")

    def _attempt(self, change: AttemptFailed) -> None:
        run = self.runs[change.run_id]
        key = (change.component_id, change.number)
        if run.failed.setdefault(key, change) != change:
            self._fail("I3", f"attempt {key} of {change.run_id} was recorded twice, differently")

    def _finished(self, change: TaskFinished) -> None:
        run = self.runs[change.run_id]
        known = run.ended.get(change.component_id)
        if known is not None and known.status is change.status and change.status in FOLLOWING:
            return  # worked out again after a restart; the store keeps the first one
        if known is not None and known != change:
            self._fail("I2", f"{change.run_id}/{change.component_id} was {known.status}, and then {change.status}")
        elif known is None and run.end is not None:
            self._fail("I2", f"{change.run_id} had ended when {change.component_id} did")
        run.ended[change.component_id] = change

    def _ended(self, change: RunFinished) -> None:
        run = self.runs[change.run_id]
        if run.end is not None:
            if run.end != change:
                self._fail("I2", f"{change.run_id} was {run.end.status}, and then {change.status}")
            return
        missing = run.components.keys() - run.ended.keys()
        if missing:
            self._fail("I2", f"{change.run_id} is {change.status} although {sorted(missing)} did not end")
        run.end = change

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
