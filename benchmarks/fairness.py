"""How fair the scheduler is beside plain queues, and how long it takes to replay a day; all on a virtual clock.

`fairness` also draws out/fairness.svg.
"""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from heapq import heappop, heappush
from pathlib import Path
from random import Random
from typing import NamedTuple, Protocol

from benchmarks.scheduler import LIMITS, NOW, REQUEST, SLOTS, WEIGHTS, WantedRun, push
from synergymesh.domain.instants import SECOND
from synergymesh.domain.scheduling.grants import Grant
from synergymesh.domain.scheduling.limits import Capacity
from synergymesh.domain.scheduling.scheduler import Scheduler
from synergymesh.domain.simulation import PlannedRun, PlannedTask, PlannedTenant, Scenario, quantile, simulate

LENGTH_MAX_SECONDS = 50
OTHERS_LOAD = 0.9
"""How much of the capacity the others ask for beside a flood; each stays below its share."""


class Job(NamedTuple):
    """A task of a workload; lengths and moments in nanoseconds."""

    at: int
    tenant: int
    length: int


class Policy(Protocol):
    """Decide which job starts next."""

    def push(self, job: Job, now: int) -> None:
        """Add a job."""

    def next(self, now: int) -> Job | None:
        """Take the next job."""

    def done(self, job: Job, now: int) -> None:
        """Take note of a job's end."""


class Fifo:
    """First come, first served."""

    def __init__(self, weights: Sequence[int]) -> None:
        self.jobs: deque[Job] = deque()

    def push(self, job: Job, now: int) -> None:
        """Add a job."""
        self.jobs.append(job)

    def next(self, now: int) -> Job | None:
        """Take the oldest."""
        return self.jobs.popleft() if self.jobs else None

    def done(self, job: Job, now: int) -> None:
        """Learn nothing."""


class RoundRobin:
    """One job of each tenant in turn, whatever its length and weight."""

    def __init__(self, weights: Sequence[int]) -> None:
        self.queues: list[deque[Job]] = [deque() for _ in weights]
        self.turn: deque[int] = deque()

    def push(self, job: Job, now: int) -> None:
        """Add a job."""
        if not self.queues[job.tenant]:
            self.turn.append(job.tenant)
        self.queues[job.tenant].append(job)

    def next(self, now: int) -> Job | None:
        """Take one of the tenant whose turn it is."""
        if not self.turn:
            return None
        tenant = self.turn.popleft()
        job = self.queues[tenant].popleft()
        if self.queues[tenant]:
            self.turn.append(tenant)
        return job

    def done(self, job: Job, now: int) -> None:
        """Learn nothing."""


class JobRun(WantedRun):
    """Carry a job through the scheduler."""

    __slots__ = ("job",)

    def __init__(self, job: Job) -> None:
        self.job = job


class Fair:
    """The scheduler that is measured. It does not know a job's length before it has ended."""

    def __init__(self, weights: Sequence[int]) -> None:
        self.scheduler: Scheduler[WantedRun] = Scheduler(Capacity(SLOTS, 1 << 20, 64_000), records_reservations=False)
        self.grants: dict[int, Grant[WantedRun]] = {}
        for tenant, weight in enumerate(weights):
            self.scheduler.add_tenant(str(tenant), limits=LIMITS, weight=weight)

    def push(self, job: Job, now: int) -> None:
        """Add a job."""
        push(self.scheduler, str(job.tenant), JobRun(job), 0)

    def next(self, now: int) -> Job | None:
        """Take the next one."""
        grant = self.scheduler.next(now)
        if grant is None:
            return None
        assert isinstance(grant.run, JobRun)
        self.grants[id(grant.run.job)] = grant
        return grant.run.job

    def done(self, job: Job, now: int) -> None:
        """Charge what it took."""
        self.scheduler.release(self.grants.pop(id(job)), now)


class Result(NamedTuple):
    """What a policy made of a workload: by tenant, nanoseconds of service and waits; utilisation while jobs waited."""

    served: list[int]
    starts: list[int]
    waits: list[list[int]]
    utilisation: float


def replay(policy: Policy, jobs: Iterable[Job], tenants: int, until: int) -> Result:
    """Run a workload on a virtual clock until a moment; service counts up to that moment."""
    arrivals = deque(sorted(jobs))
    ends: list[tuple[int, int, int, Job]] = []
    served, starts = [0] * tenants, [0] * tenants
    waits: list[list[int]] = [[] for _ in range(tenants)]
    now = number = waiting = contended = taken = 0
    while arrivals or ends:
        upcoming = min(arrivals[0].at if arrivals else until, ends[0][0] if ends else until, until)
        if waiting:
            contended += (upcoming - now) * SLOTS
            taken += (upcoming - now) * len(ends)
        now = upcoming
        if now >= until:
            break
        while ends and ends[0][0] <= now:
            _, _, _, job = heappop(ends)
            served[job.tenant] += job.length
            policy.done(job, now)
        while arrivals and arrivals[0].at <= now:
            policy.push(arrivals.popleft(), now)
            waiting += 1
        while waiting and len(ends) < SLOTS:
            started = policy.next(now)
            if started is None:
                break
            waiting -= 1
            number += 1
            starts[started.tenant] += 1
            waits[started.tenant].append(now - started.at)
            heappush(ends, (now + started.length, number, now, started))
    for _, _, begun, job in ends:
        served[job.tenant] += max(0, min(until, now) - begun)
    return Result(served, starts, waits, taken / contended if contended else 1.0)


def jain(served: Sequence[int], weights: Sequence[int]) -> float:
    """Give Jain's index of served cost by weight: 1 if everybody got exactly its share."""
    parts = [cost / weight for cost, weight in zip(served, weights, strict=True)]
    return sum(parts) ** 2 / (len(parts) * sum(part * part for part in parts))


def saturated(tenants: int, seconds: int, dice: Random) -> list[Job]:
    """Make a workload in which nobody ever runs out of work: tenants with tasks of their own lengths, one floods."""
    jobs = []
    weight_sum = sum(WEIGHTS[tenant % 3] for tenant in range(tenants))
    for tenant in range(tenants):
        lowest = dice.randint(1, LENGTH_MAX_SECONDS)
        highest = dice.randint(lowest, LENGTH_MAX_SECONDS)
        # twice its share by weight, and by number too, so that it does not run out under round robin either
        need = 2 * seconds * SLOTS * max(WEIGHTS[tenant % 3] * tenants, weight_sum) // (weight_sum * tenants) + 1_000
        lengths: list[int] = []
        while sum(lengths) < need:
            lengths += [dice.randint(lowest, highest) for _ in range(50)]
        # all at the beginning, mixed
        jobs += [Job(NOW + dice.randrange(1_000), tenant, length * SECOND) for length in lengths]
    flood = 100 * sum(job.tenant != 0 for job in jobs) // (tenants - 1)
    jobs += [Job(NOW + dice.randrange(1_000), 0, dice.randint(1, LENGTH_MAX_SECONDS) * SECOND) for _ in range(flood)]
    return jobs


def within_share(tenants: int, seconds: int, dice: Random, *, with_flood: bool) -> list[Job]:
    """Make a workload in which all but the first stay below their shares, and the first submits 100 times more."""
    jobs = []
    weight_sum = sum(WEIGHTS[tenant % 3] for tenant in range(tenants))
    for tenant in range(1, tenants):
        mean_length = (1 + LENGTH_MAX_SECONDS) / 2
        rate = OTHERS_LOAD * SLOTS * WEIGHTS[tenant % 3] / weight_sum / mean_length
        at = 0.0
        while (at := at + dice.expovariate(rate)) < seconds:
            length = dice.randint(1, LENGTH_MAX_SECONDS) * SECOND
            jobs.append(Job(NOW + int(at * SECOND), tenant, length))
    if with_flood:
        for _ in range(100 * len(jobs) // tenants):
            length = dice.randint(1, LENGTH_MAX_SECONDS) * SECOND
            jobs.append(Job(NOW + dice.randrange(seconds * SECOND), 0, length))
    return jobs


def fairness(seconds: int = 60_000, wait_seconds: int = 10_000, tenants: int = 100) -> dict[str, float]:
    """Give the figures of the fairness report, and draw what each tenant got of its share."""
    weights = [WEIGHTS[tenant % 3] for tenant in range(tenants)]
    policies: Mapping[str, Callable[[Sequence[int]], Policy]] = {"fair": Fair, "fifo": Fifo, "round_robin": RoundRobin}
    figures: dict[str, float] = {}
    parts: dict[str, list[float]] = {}
    full = saturated(tenants, seconds, Random(1))
    loads = {
        "alone": within_share(tenants, wait_seconds, Random(2), with_flood=False),
        "beside_flood": within_share(tenants, wait_seconds, Random(2), with_flood=True),
    }
    for name, make in policies.items():
        result = replay(make(weights), full, tenants, NOW + seconds * SECOND)
        figures[f"jain_index_{name}"] = jain(result.served, weights)
        figures[f"utilisation_{name}"] = result.utilisation
        total = sum(result.served)
        parts[name] = [s * sum(weights) / (w * total) for s, w in zip(result.served, weights, strict=True)]
        if name == "fair":
            figures["fewest_charges"] = min(result.starts)
        waits = {
            label: replay(make(weights), jobs, tenants, NOW + wait_seconds * SECOND).waits[1:]
            for label, jobs in loads.items()
        }
        for label, of_tenants in waits.items():
            pooled = sorted(wait for of_tenant in of_tenants for wait in of_tenant)
            figures[f"others_p95_wait_s_{label}_{name}"] = quantile(pooled, 95) / SECOND
        if name == "fair":
            figures["tenants_within_allowed_wait"] = _within_allowed(waits["alone"], waits["beside_flood"])
    allowed = 1.2 * figures["others_p95_wait_s_alone_fair"] + LENGTH_MAX_SECONDS
    figures["wait_ratio_to_allowed"] = figures["others_p95_wait_s_beside_flood_fair"] / allowed
    out = Path(__file__).parent / "out"
    out.mkdir(exist_ok=True)
    (out / "fairness.svg").write_text(picture(parts, figures))
    return figures


def _within_allowed(alone: Sequence[Sequence[int]], beside: Sequence[Sequence[int]]) -> float:
    """Give the part of the tenants with 100 or more tasks whose own p95 beside the flood is within 1.2 times alone."""
    enough = [(sorted(a), sorted(b)) for a, b in zip(alone, beside, strict=True) if min(len(a), len(b)) >= 100]
    allowance = LENGTH_MAX_SECONDS * SECOND
    return sum(quantile(b, 95) <= 1.2 * quantile(a, 95) + allowance for a, b in enough) / len(enough)


def replayed_day(tasks: int = 100_000) -> dict[str, float]:
    """Give the seconds that the what-if simulation takes for a day."""
    dice = Random(3)
    tenants = [PlannedTenant(tenant_id=f"t{i}", limits=LIMITS, weight=WEIGHTS[i % 3]) for i in range(100)]
    runs = [
        PlannedRun(
            tenant_id=f"t{dice.randrange(100)}",
            submitted_at=NOW + dice.randrange(86_400 * SECOND),
            tasks=[
                PlannedTask(
                    component=i, duration_ns=dice.randint(1, 50) * SECOND, depends_on=(0,) if i else (), request=REQUEST
                )
                for i in range(10)
            ],
        )
        for _ in range(tasks // 10)
    ]
    begun = time.perf_counter()
    outcome = simulate(runs, Scenario(tenants=tenants, capacity=Capacity(32, 1 << 20, 32_000)))
    assert sum(tenant.tasks for tenant in outcome.tenants.values()) == tasks
    seconds = time.perf_counter() - begun
    # what if all of it had been submitted at once, by tenants that may submit ten runs per second
    slow = [replace(tenant, rate_limit_per_second=10) for tenant in tenants]
    at_once = [replace(run, submitted_at=NOW) for run in runs]
    begun = time.perf_counter()
    outcome = simulate(at_once, Scenario(tenants=slow, capacity=Capacity(32, 1 << 20, 32_000)))
    assert sum(tenant.tasks for tenant in outcome.tenants.values()) == tasks
    return {"seconds": seconds, "seconds_with_refused_submissions": time.perf_counter() - begun}


def picture(parts: Mapping[str, Sequence[float]], figures: Mapping[str, float]) -> str:
    """Draw as SVG what each tenant got of its share under each policy."""
    names = {"fair": "SynergyMesh", "round_robin": "round robin", "fifo": "first come, first served"}
    width, height, left, gap = 860, 150, 60, 60
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {(height + gap) * len(names) + 40}" '
        'font-family="sans-serif" font-size="13">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{left}" y="22" font-size="16">Served time by share: 1 is exactly what the weight gives; '
        "each bar is a tenant, the first one floods</text>",
    ]
    most = 3.0
    for row, (name, title) in enumerate(names.items()):
        top = 60 + row * (height + gap)
        out.append(
            f'<text x="{left}" y="{top - 8}">{title}: Jain index {figures[f"jain_index_{name}"]:.3f}, p95 wait of the '
            f"others beside a flood {figures[f'others_p95_wait_s_beside_flood_{name}']:,.0f} s (alone "
            f"{figures[f'others_p95_wait_s_alone_{name}']:,.0f} s)</text>"
        )
        step = (width - left - 20) / len(parts[name])
        for tenant, part in enumerate(parts[name]):
            bar = min(part, most) / most * height
            colour = "#c0392b" if tenant == 0 else "#2e6da4"
            out.append(
                f'<rect x="{left + tenant * step:.1f}" y="{top + height - bar:.1f}" width="{step * 0.8:.1f}" '
                f'height="{bar:.1f}" fill="{colour}"/>'
            )
        for level in (0, 1, 2, 3):
            y = top + height - level / most * height
            dash = "" if level == 1 else ' stroke-dasharray="2 4"'
            out.append(f'<line x1="{left}" y1="{y:.1f}" x2="{width - 20}" y2="{y:.1f}" stroke="#555"{dash}/>')
            out.append(f'<text x="{left - 10}" y="{y + 4:.1f}" text-anchor="end">{level}</text>')
    out.append("</svg>")
    return "\n".join(out) + "\n"


SCENARIOS: dict[str, Callable[[], dict[str, float]]] = {"fairness": fairness, "replayed_day": replayed_day}


def main() -> None:
    """Run one scenario and print its figures."""
    if len(sys.argv) != 2 or sys.argv[1] not in SCENARIOS:
        sys.exit(f"usage: python -m benchmarks.fairness {'|'.join(SCENARIOS)}")
    print(json.dumps(SCENARIOS[sys.argv[1]]()))


if __name__ == "__main__":
    main()
