"""What runs: a grant for each task that was started, from which everybody's usage follows."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Generic

from synergymesh.domain.instants import Instant
from synergymesh.domain.scheduling.explain import Reason
from synergymesh.domain.scheduling.limits import NOTHING, Capacity, Request
from synergymesh.domain.scheduling.tenant_queue import Member, Queue, WorkT


class Grant(Generic[WorkT]):
    """Hold a task that was started, and what it takes until `release()`.

    Attributes:
        run, position: which task.
        tenant_id: whose.
        request: what it takes beside its slot.
        charged: what it cost its tenant so far, in units of `1 / WHOLE` microseconds.
        started_at: the moment of the decision.
        ready_at: the moment from which it could have started, as far as whoever handed it in said so.
        waited_for: what kept its queue from starting its next task before this one was chosen; None if nothing did.
        order: unique; the order in which tasks were handed to the scheduler.
    """

    __slots__ = (
        "charged",
        "component",
        "dominant",
        "order",
        "position",
        "queue",
        "ready_at",
        "request",
        "run",
        "started_at",
        "waited_for",
    )

    def __init__(
        self,
        run: WorkT,
        position: int,
        queue: Queue[WorkT],
        request: Request,
        component: Hashable,
        order: int,
        started_at: Instant,
        dominant: int,
        charged: int,
        ready_at: Instant,
        waited_for: Reason | None = None,
    ) -> None:
        self.run = run
        self.position = position
        self.queue = queue
        self.request = request
        self.component = component
        self.order = order
        self.started_at = started_at
        self.dominant = dominant
        self.charged = charged
        self.ready_at = ready_at
        self.waited_for = waited_for

    @property
    def tenant_id(self) -> str:
        """Name the tenant or sub-tenant."""
        return self.queue.tenant_id


def usage_from(grants: Iterable[Grant[WorkT]]) -> dict[str, Capacity]:
    """Work out from what runs what each tenant and sub-tenant uses."""
    usage: dict[str, Capacity] = {}
    for grant in grants:
        member: Member[WorkT] = grant.queue
        names = {member.tenant_id}
        while member.parent is not None:
            names.add(member.tenant_id)
            member = member.parent
        for name in names:
            slots, memory_mb, cpu_millis = usage.get(name, NOTHING)
            usage[name] = Capacity(
                slots + 1, memory_mb + grant.request.memory_mb, cpu_millis + grant.request.cpu_millis
            )
    return usage
