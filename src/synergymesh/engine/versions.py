"""The versions of workflows that runs refer to: the plan of each, and the functions that do its work."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from synergymesh.config import PAYLOAD_BYTES_MAX
from synergymesh.domain.fault_tolerance.retry import RetryPolicy
from synergymesh.domain.payload import encode
from synergymesh.domain.scheduling.limits import Request
from synergymesh.domain.workflow.definition import WorkflowDefinition
from synergymesh.domain.workflow.plan import Plan
from synergymesh.engine.recently_used import RecentlyUsed
from synergymesh.engine.stored import version_of
from synergymesh.errors import SynergyMeshError
from synergymesh.ports.changes import WorkflowStored
from synergymesh.ports.store import Store
from synergymesh.workflows.direct_tasks import DIRECT
from synergymesh.workflows.loader import find_workflow
from synergymesh.workflows.tasks import Task
from synergymesh.workflows.workflow import Workflow

DIRECT_COMPONENTS_KEPT = 20_000
"""Components of direct calls whose versions are in memory, some 3 KB each; others are made again when called."""


class Losses:
    """Count how often the store may have lost versions.

    Attributes:
        count: so often.
    """

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class Version:
    """One version of a workflow: its plan, and by position the tasks that do the work.

    Args:
        plan: its plan.
        source: where the functions are found again after a restart, or None.
        losses: counts when the store may have lost it.
        stored: whether the store has the definition.

    Attributes:
        tasks: by position; None while the functions cannot be found.
        problem: why they cannot be found, or None.
        workflow: where the functions come from; it may describe another version by now.
        source: where the functions are found again after a restart, or None.
    """

    __slots__ = ("_losses", "_losses_before", "encoders", "plan", "problem", "source", "tasks", "workflow")

    def __init__(self, plan: Plan, source: str | None, losses: Losses, *, stored: bool) -> None:
        self.plan = plan
        self.source = source
        self._losses = losses
        self.stored = stored
        self.tasks: list[Task[..., Any]] | None = None
        self.workflow: Workflow | None = None
        self.encoders: list[Callable[[Any], bytes]] = []
        self.problem: str | None = "its functions were not looked for yet"

    @property
    def stored(self) -> bool:
        """Tell whether the store has the definition; if not, the next run to be recorded brings it along."""
        return self._losses_before == self._losses.count

    @stored.setter
    def stored(self, is_stored: bool) -> None:
        self._losses_before = self._losses.count if is_stored else -1

    def bind(self, workflow: Workflow, payload_bytes_max: int) -> bool:
        """Take the functions from a workflow; tell whether it has all of them."""
        components = self.plan.components
        missing = sorted({c.task for c in components} - set(workflow.tasks))
        if missing:
            self.problem = f"the workflow {workflow.name!r} has no task {missing[0]!r} any more"
            return False
        encoders = {
            name: partial(encode, field=f"result of {name}", limit=payload_bytes_max) for name in workflow.tasks
        }
        self.encoders = [encoders[c.task] for c in components]
        self.workflow = workflow
        self.tasks = [workflow.tasks[c.task] for c in components]
        if workflow.source is not None and workflow.source != self.source:
            self.source = workflow.source
            self.stored = False  # the next submission renews what the store says
        self.problem = None
        return True

    def row(self, now: int) -> WorkflowStored:
        """Give what the store keeps of it."""
        definition = self.plan.definition
        return WorkflowStored(self.plan.content_hash, definition.name, definition.to_json(), self.source, now)


class Versions:
    """Find the version of a workflow by its object, or by the content hash that a stored run names.

    Args:
        supplied: workflows given to the orchestrator; they come before the recorded source.
    """

    def __init__(
        self,
        store: Store,
        supplied: Iterable[Workflow],
        default_policy: RetryPolicy,
        default_request: Request,
        payload_bytes_max: int = PAYLOAD_BYTES_MAX,
    ) -> None:
        self._store = store
        self._supplied = {workflow.name: workflow for workflow in supplied}
        self._default_policy = default_policy
        self._default_request = default_request
        self._payload_bytes_max = payload_bytes_max
        self._losses = Losses()
        self._versions: dict[str, Version] = {}
        self._direct: RecentlyUsed[str, Version] = RecentlyUsed(DIRECT_COMPONENTS_KEPT)
        self._by_object: dict[int, tuple[Workflow, WorkflowDefinition, Version]] = {}

    def of(self, workflow: Workflow) -> Version:
        """Give the version that a workflow object is now."""
        definition = workflow.definition
        known = self._by_object.get(id(workflow))
        if known is not None and known[1] is definition:
            return known[2]
        version = self._versions.get(definition.content_hash)
        if version is None:
            version = Version(
                Plan(definition, self._default_policy, self._default_request),
                workflow.source,
                self._losses,
                stored=False,
            )
            self._versions[definition.content_hash] = version
        version.bind(workflow, self._payload_bytes_max)
        self._by_object[id(workflow)] = (workflow, definition, version)
        return version

    def direct(self, definition: WorkflowDefinition) -> Version:
        """Give the version of a direct call, whose functions come with each run."""
        known = self._direct.get(definition.content_hash)
        if known is None:
            plan = Plan(definition, self._default_policy, self._default_request)
            known = Version(plan, DIRECT, self._losses, stored=False)
            known.tasks = []
            known.problem = None
            self._direct.put(definition.content_hash, known, len(definition.components))
        return known

    def known(self, content_hash: str) -> Version | None:
        """Give a version that is in memory."""
        return self._versions.get(content_hash)

    def forget(self) -> None:
        """Take note that the store may lose versions: each comes along again with the next of its runs."""
        # All of them, since a run that is under way may have one that is not kept here any more.
        self._losses.count += 1

    async def load(self, content_hash: str) -> Version:
        """Give a stored version; its `problem` says so if its functions cannot be found.

        Raises:
            StoreCorrupt: the store has no such version, or another definition than the one that was stored.
        """
        version = self._versions.get(content_hash)
        if version is not None:
            return version
        record = await version_of(self._store, content_hash)
        definition = WorkflowDefinition.from_json(record.definition)
        plan = Plan(definition, self._default_policy, self._default_request)
        version = Version(plan, record.source, self._losses, stored=True)
        self._versions[content_hash] = version
        self._find_functions(version)
        return version

    def _find_functions(self, version: Version) -> None:
        name = version.plan.workflow
        if version.source == DIRECT:
            version.problem = "it was called directly, and its function cannot be found again"
            return
        workflow = self._supplied.get(name)
        if workflow is not None and version.bind(workflow, self._payload_bytes_max):
            return
        if version.source is None:
            version.problem = (
                f"the functions of workflow {name!r} cannot be found again by name (it was defined inside a function). "
                f"Pass it with workflows=[...]."
            )
            return
        try:
            version.bind(find_workflow(version.source), self._payload_bytes_max)
        except SynergyMeshError as error:
            version.problem = f"workflow {name!r} cannot be loaded from {version.source}: {error}"
