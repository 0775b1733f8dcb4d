"""What can be seen of the queues: what blocks a task, when it will start, and each tenant's use of its limits.

For people who ask, not for decisions: these look at everything and change nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from synergymesh.domain.instants import Instant
from synergymesh.domain.scheduling.explain import Blocker, Explanation, Pace, Reason, estimate_start
from synergymesh.domain.scheduling.fair_queue import Cohort, can_ever_run
from synergymesh.domain.scheduling.grants import Grant
from synergymesh.domain.scheduling.limits import Capacity, Request
from synergymesh.domain.scheduling.tenant_queue import NO_REQUEST, Item, Member, Queue, WorkT

AHEAD_MAX = 1_000
"""So many tenants that go first are counted, no more; the answer would be the same."""

MILLION = 1_000_000

NOT_GUARANTEED = "not guaranteed to others"
"""Follows the name of a resource of which a task asks for more than others' guarantees ever leave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantView:
    """Describe a tenant or sub-tenant at a moment.

    Attributes:
        parent: of a sub-tenant.
        eligible: it has ready work and nothing of its own holds it.
        waiting, delayed, aside, parked, running: tasks; `aside` ask for more than a limit as such, `parked` are held
            back by an open circuit.
        share: what it uses of the capacity (its dominant share), in millionths.
        fair_share: what its weight gives it beside those that are active now, in millionths.
        used, limits: of slots, memory and CPU.
        hour_used, hour_limit: starts in the rolling hour; None for no such limit.
        last_reason: why its head did not start when it was last looked at.
        holds: how often it was held, by reason.
    """

    tenant_id: str
    parent: str | None
    eligible: bool
    waiting: int
    delayed: int
    aside: int
    running: int
    weight: int
    share: int
    fair_share: int
    used: Capacity
    limits: Capacity
    hour_used: int | None
    hour_limit: int | None
    last_reason: Reason | None
    holds: Mapping[Reason, int]
    parked: int = 0


class Ceiling(NamedTuple):
    """Say what a task may ask for at most, and why.

    Attributes:
        level: the tenant or sub-tenant whose limit it is.
        is_share: it is what a share lets a sub-tenant use, not its quota.
        beside_guarantees: it is what others' guarantees leave of the quota.
    """

    level: str
    memory_mb: int
    cpu_millis: int
    is_share: bool = False
    beside_guarantees: bool = False


def ceiling_against(queue: Queue[WorkT], request: Request) -> Ceiling | None:
    """Give the limit of a tenant or sub-tenant that a task could never keep; None if it could run under all of them."""
    member: Member[WorkT] = queue
    while member.parent is not None:
        if not member.limits.admits(request):
            return Ceiling(member.tenant_id, member.limits.memory_mb, member.limits.cpu_millis)
        if request.memory_mb > member.memory or request.cpu_millis > member.cpu:
            return Ceiling(member.tenant_id, member.memory, member.cpu, is_share=True)
        above = member.parent
        if above.guarantees:
            _, memory_mb, cpu_millis = above.most_for(member)
            if min(above.memory, request.memory_mb) > memory_mb or min(above.cpu, request.cpu_millis) > cpu_millis:
                return Ceiling(above.tenant_id, memory_mb, cpu_millis, beside_guarantees=True)
        member = above
    return None


def blockers_of(
    queue: Queue[WorkT], item: Item[WorkT], at: Instant, root: Cohort[WorkT], now: Instant, *, recorded: bool
) -> list[Blocker]:
    """Say what keeps a waiting task from starting, in the order in which it is looked at.

    Args:
        queue: where it waits.
        item: the task.
        at: not before; 0 if that has passed.
        root: the capacity.
        now: the present.
        recorded: starts of a rolling hour have to be reserved first.
    """
    blockers = [Blocker(reason=Reason.RETRY_DELAY, until=at)] if at > now else []
    gate = None if queue.gates is None else queue.gates.get(item[10])
    if gate is not None and gate.permits <= 0:
        name = "/".join(filter(None, item[10])) if isinstance(item[10], tuple) else str(item[10])
        until = gate.until or None
        blockers.append(Blocker(reason=Reason.CIRCUIT_OPEN, level=queue.tenant_id, resource=name, until=until))
    blockers += limit_blockers(queue, item[7], now, recorded=recorded)
    head = head_of(queue)
    if head is not None and head < item:
        # what is ahead in the same queue has to start first, so what holds that holds this one too
        of_head = limit_blockers(queue, head[7], now, recorded=recorded)
        blockers += [blocker for blocker in of_head if blocker not in blockers]
    ahead = ahead_in_queue(queue, item)
    member: Member[WorkT] = queue
    while member.parent is not None:
        ahead += ahead_in_level(member.parent, member, now, recorded=recorded)
        member = member.parent
    if ahead:
        blockers.append(Blocker(reason=Reason.FAIR_SHARE, level=queue.tenant_id, resource="tasks", asked=ahead))
    return blockers


def limit_blockers(queue: Queue[WorkT], request: Request, now: Instant, *, recorded: bool) -> list[Blocker]:
    """Give what the limits of all levels have against a task, the queue's own first."""
    blockers: list[Blocker] = []
    member: Member[WorkT] = queue
    while member.parent is not None:
        blockers += own_blockers(member, request, now, recorded=recorded)
        if member.parent.parent is None:
            blockers += shared_blockers(member.parent, queue, request)
        else:
            blockers += kept_blockers(member.parent, queue, request)
        member = member.parent
    return blockers


def head_of(queue: Queue[WorkT]) -> Item[WorkT] | None:
    """Give the task that is next in a queue, apart from those that ask for more than a limit as such."""
    item = queue.head()
    if item is None or can_ever_run(queue, item[7]):
        return item
    return min(
        (other for other in queue.ready if other[4].wants(other[5]) and can_ever_run(queue, other[7])), default=None
    )


def own_blockers(member: Member[WorkT], request: Request, now: Instant, *, recorded: bool) -> list[Blocker]:
    """Give what a member's own limits have against a task, in the order in which they are looked at."""
    name = member.tenant_id
    blockers = [Blocker(reason=Reason.PAUSED, level=name)] if member.paused else []
    if member.running >= member.slots:
        blockers.append(_over(Reason.CONCURRENCY, name, "slots", member.slots, member.running, 1))
    hour = _hour_blocker(member, now)
    if hour is not None and hour.until is not None:
        blockers.append(hour)
    for reason, resource, most, used, asked in (
        (Reason.MEMORY, "memory_mb", member.memory, member.memory_used, request.memory_mb),
        (Reason.CPU, "cpu_millis", member.cpu, member.cpu_used, request.cpu_millis),
    ):
        if asked and used + asked > most:
            blockers.append(_over(reason, name, resource, most, used, asked))
    if hour is not None and hour.until is None and recorded and not blockers:
        blockers.append(hour)  # for the moment until the start is written down; behind anything else it is none
    return blockers


def _over(reason: Reason, level: str, resource: str, limit: int, used: int, asked: int) -> Blocker:
    return Blocker(reason=reason, level=level, resource=resource, limit=limit, used=used, asked=asked)


def _hour_blocker(member: Member[WorkT], now: Instant) -> Blocker | None:
    """Give what the rolling hour has against a start; without `until`, it is only not reserved yet."""
    limit = member.limits.per_hour
    if limit is None:
        return None
    hour = member.hour
    if hour is not None and hour.has_room(now):
        return None
    room_at = now if hour is None else hour.next_room(now)
    return Blocker(
        reason=Reason.HOUR_LIMIT,
        level=member.tenant_id,
        resource="starts_per_hour",
        limit=limit,
        used=0 if hour is None else hour.spent,
        asked=1,
        until=room_at if room_at > now else None,
    )


def shared_blockers(root: Cohort[WorkT], queue: Queue[WorkT], request: Request) -> Iterator[Blocker]:
    """Give what the capacity has against a task."""
    short = False
    for resource, most, used, asked in (
        ("slots", root.slots, root.running, 1),
        ("memory_mb", root.memory, root.memory_used, request.memory_mb),
        ("cpu_millis", root.cpu, root.cpu_used, request.cpu_millis),
    ):
        if asked and used + asked > most:
            short = True
            yield Blocker(reason=Reason.CAPACITY, resource=resource, limit=most, used=used, asked=asked)
    if not short:
        yield from kept_blockers(root, queue, request)


def kept_blockers(cohort: Cohort[WorkT], queue: Queue[WorkT], request: Request) -> Iterator[Blocker]:
    """Give what is kept for other members of a level: their guarantees, or room for a head that waits longer."""
    slots, memory_mb, cpu_millis = cohort.most_for(cohort.member_of(queue))
    for reason, resource, most, whole, used, asked in (
        (Reason.CONCURRENCY, "slots", slots, cohort.slots, cohort.running, 1),
        (Reason.MEMORY, "memory_mb", memory_mb, cohort.memory, cohort.memory_used, request.memory_mb),
        (Reason.CPU, "cpu_millis", cpu_millis, cohort.cpu, cohort.cpu_used, request.cpu_millis),
    ):
        if most < asked <= whole:
            yield _over(reason, cohort.tenant_id, f"{resource} {NOT_GUARANTEED}", most, used, asked)
    is_short = (
        cohort.running >= cohort.slots
        or (request.memory_mb and cohort.memory_used + request.memory_mb > cohort.memory)
        or (request.cpu_millis and cohort.cpu_used + request.cpu_millis > cohort.cpu)
    )
    if not is_short and not cohort.fits_here(queue, request):
        claim = cohort.claim if cohort.bars(queue) else None
        yield Blocker(
            reason=Reason.CAPACITY,
            level=cohort.tenant_id if claim is None else claim.tenant_id,
            resource="kept for others",
        )


def ahead_in_queue(queue: Queue[WorkT], item: Item[WorkT]) -> int:
    """Count the tasks of the same queue that go before a task."""
    return sum(
        1 for other in queue.ready if other < item and other[4].wants(other[5]) and can_ever_run(queue, other[7])
    )


def ahead_in_level(cohort: Cohort[WorkT], member: Member[WorkT], now: Instant, *, recorded: bool) -> int:
    """Count the members of a level that would start a task before that one does."""
    place = place_of(cohort, member)
    ahead = 0
    for other in cohort.members.values():
        if other.entry and other is not member and place_of(cohort, other) < place:
            ahead += has_startable(cohort, other, now, recorded=recorded)
            if ahead >= AHEAD_MAX:
                break
    return ahead


def place_of(cohort: Cohort[WorkT], member: Member[WorkT]) -> tuple[int, int]:
    """Give a member's place in its level, or the one that it would get if it entered now."""
    item = head_of(member) if isinstance(member, Queue) else None
    key = cohort.key_for(member, NO_REQUEST if item is None else item[7])
    if member.entry:
        return key, member.entry
    return max(key, cohort.virtual_time), 1 << 62


def has_startable(cohort: Cohort[WorkT], member: Member[WorkT], now: Instant, *, recorded: bool) -> bool:
    """Tell whether a member could start a task now, as far as its level and its own limits are concerned."""
    if isinstance(member, Cohort):
        if any(own_blockers(member, NO_REQUEST, now, recorded=recorded)):
            return False
        return any(
            below.entry and has_startable(member, below, now, recorded=recorded) for below in member.members.values()
        )
    assert isinstance(member, Queue)
    item = head_of(member)
    if item is None or any(own_blockers(member, item[7], now, recorded=recorded)):
        return False
    return cohort.fits(member, item[7])


def explanation_of(
    queue: Queue[WorkT],
    item: Item[WorkT],
    at: Instant,
    root: Cohort[WorkT],
    grants: Collection[Grant[WorkT]],
    now: Instant,
    *,
    recorded: bool,
) -> Explanation:
    """Give the blockers of a task, its place in its queue, and when it will probably start."""
    blockers = blockers_of(queue, item, at, root, now, recorded=recorded)
    ahead = ahead_in_queue(queue, item)
    own = [grant for grant in grants if grant.queue is queue]
    shared = any(blocker.reason is Reason.CAPACITY for blocker in blockers)
    estimates = None if queue.estimates is None else list(queue.estimates.values())
    pace = Pace(
        ends=[_end_of(grant) for grant in (grants if shared else own)],
        duration_ns=sum(estimates) // len(estimates) * 1_000 if estimates else None,
        parallel=len(own),
    )
    return Explanation(
        blockers=blockers, position=ahead + 1, estimated_start=estimate_start(blockers, ahead, pace, now)
    )


def _end_of(grant: Grant[WorkT]) -> Instant | None:
    estimates = grant.queue.estimates
    if estimates is None or grant.component not in estimates:
        return None
    return grant.started_at + estimates[grant.component] * 1_000


def view_of(
    member: Member[WorkT], queues: Sequence[Queue[WorkT]], root: Cohort[WorkT], total_weight: int, now: Instant
) -> TenantView:
    """Describe a member.

    Args:
        member: the tenant or sub-tenant.
        queues: its queues.
        root: the capacity.
        total_weight: of the members of the first level that are active.
        now: the present.
    """
    hour = member.hour
    if hour is not None:
        hour.has_room(now)  # brings it to the present minute
    parts = (
        member.running * MILLION // root.slots,
        member.memory_used * MILLION // root.memory,
        member.cpu_used * MILLION // root.cpu,
    )
    waiting = sum(len(queue.ready) for queue in queues)
    reason = member.last_reason
    if waiting and member.entry and not member.shut:
        reason = Reason.CAPACITY if root.running >= root.slots else Reason.FAIR_SHARE
    above = member.parent
    return TenantView(
        tenant_id=member.tenant_id,
        parent=above.tenant_id if above is not None and above is not root else None,
        eligible=bool(member.entry) and not member.shut and not member.paused and waiting > 0,
        waiting=waiting,
        delayed=sum(queue.delayed for queue in queues),
        aside=sum(len(queue.aside or ()) for queue in queues),
        parked=sum(queue.parked for queue in queues),
        running=member.running,
        weight=member.weight,
        share=max(parts),
        fair_share=member.weight * MILLION // max(total_weight, member.weight) if above is root else 0,
        used=Capacity(member.running, member.memory_used, member.cpu_used),
        limits=Capacity(member.slots, member.memory, member.cpu),
        hour_used=None if member.limits.per_hour is None else 0 if hour is None else hour.spent,
        hour_limit=member.limits.per_hour,
        last_reason=reason,
        holds=dict(member.holds or {}),
    )
