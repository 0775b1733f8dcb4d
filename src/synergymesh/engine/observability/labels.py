"""Which tenants have a label of their own in the metrics: so many, and the same ones as long as the process lives.

Prometheus takes a counter that falls for one that began again, and counts everything in it once more. So a tenant that
was shown among the others stays there, and one that has a label keeps it until it is deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable


class TenantLabels:
    """Give out labels, the first time to those that have done the most.

    Args:
        labels_max: how many.

    Attributes:
        has_others: whether a tenant was ever shown without a label.
    """

    def __init__(self, labels_max: int) -> None:
        self._free = labels_max
        self._labelled: dict[str, None] = {}
        self._others: set[str] = set()
        self.has_others = False

    def choose(self, tenants: Iterable[str], done: Callable[[str], int]) -> list[str]:
        """Give the tenants that have a label, in the order in which they got it.

        Args:
            tenants: all that there are.
            done: gives how much one of them has done.
        """
        fresh = [(done(each), each) for each in tenants if each not in self._labelled and each not in self._others]
        for _, tenant_id in sorted(fresh, key=lambda each: (-each[0], each[1])):
            if self._free > 0:
                self._free -= 1
                self._labelled[tenant_id] = None
            else:
                self._others.add(tenant_id)
                self.has_others = True
        return list(self._labelled)

    def forget(self, tenant_id: str) -> bool:
        """Let go of a tenant that is deleted; tell whether it had a label. Another one, not shown yet, can get it."""
        self._others.discard(tenant_id)
        if tenant_id not in self._labelled:
            return False
        del self._labelled[tenant_id]
        self._free += 1
        return True
