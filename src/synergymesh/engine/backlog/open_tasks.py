"""How many tasks are open: accepted, and not final."""

from __future__ import annotations


class Backlog:
    """Count open tasks per tenant, those that run included.

    Attributes:
        total: over all tenants.
    """

    def __init__(self) -> None:
        self.total = 0
        self._of: dict[str, int] = {}

    def add(self, tenant_id: str, tasks: int) -> None:
        """Count tasks that are open now; a negative number for those that are not any more."""
        self.total += tasks
        open_tasks = self._of.get(tenant_id, 0) + tasks
        if open_tasks:
            self._of[tenant_id] = open_tasks
        else:
            self._of.pop(tenant_id, None)  # also what is left of deleted tenants

    def of(self, tenant_id: str) -> int:
        """Give the open tasks of a tenant."""
        return self._of.get(tenant_id, 0)
