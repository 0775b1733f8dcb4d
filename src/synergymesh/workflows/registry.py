"""Registries: workflows by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from synergymesh.errors import InvalidWorkflow, UnknownWorkflow
from synergymesh.workflows.workflow import Workflow


class Registry:
    """Hold workflows, each name once. There is none that all programs share: who needs one makes one."""

    def __init__(self, workflows: Iterable[Workflow] = ()) -> None:
        self._workflows: dict[str, Workflow] = {}
        for each in workflows:
            self.add(each)

    def add(self, workflow: Workflow) -> Workflow:
        """Add a workflow; one that is the same, or has the same content, changes nothing.

        Raises:
            InvalidWorkflow: it is no workflow, or another one has its name.
        """
        if not isinstance(workflow, Workflow):
            raise InvalidWorkflow(
                f"a registry takes workflows, not {workflow!r:.100}. Put @workflow above the function."
            )
        known = self._workflows.setdefault(workflow.name, workflow)
        if known is not workflow and known.definition.content_hash != workflow.definition.content_hash:
            raise InvalidWorkflow(
                f"two different workflows are named {workflow.name!r}. Give one another name: @workflow(name=...).",
                field="name",
            )
        return known

    def get(self, name: str) -> Workflow:
        """Give the workflow of that name.

        Raises:
            UnknownWorkflow: there is none.
        """
        try:
            return self._workflows[name]
        except (KeyError, TypeError):
            raise UnknownWorkflow(name, sorted(self._workflows)) from None

    def __contains__(self, name: object) -> bool:
        return name in self._workflows

    def __iter__(self) -> Iterator[Workflow]:
        return iter(self._workflows.values())

    def __len__(self) -> int:
        return len(self._workflows)
