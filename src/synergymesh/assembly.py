"""What an orchestrator is made of, and how the parts fit; the only place that knows which adapters run."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from random import Random, SystemRandom

from synergymesh.alerting.delivery import Delivery, Sink, read_sinks
from synergymesh.audit.auditing import Auditing
from synergymesh.audit.sinks import read_sinks as read_audit_sinks
from synergymesh.audit_assembly import assemble_auditing
from synergymesh.domain.fault_tolerance.breaker import BreakerPolicy
from synergymesh.domain.fault_tolerance.retry import RetryPolicy
from synergymesh.domain.scheduling.scheduler import Scheduler
from synergymesh.engine.admission import Admission
from synergymesh.engine.attempts import Attempts
from synergymesh.engine.background import Background
from synergymesh.engine.backlog.doubts import Doubts
from synergymesh.engine.backlog.window import Window
from synergymesh.engine.circuits import Circuits
from synergymesh.engine.committer import Committer
from synergymesh.engine.control.cancellation import Control
from synergymesh.engine.control.dead_letters import DeadLetters
from synergymesh.engine.control.pausing import Pausing
from synergymesh.engine.control.reruns import Reruns
from synergymesh.engine.control.turns import Turns
from synergymesh.engine.direct_calls import DirectCalls
from synergymesh.engine.dispatch import Dispatcher
from synergymesh.engine.housekeeping import Housekeeping
from synergymesh.engine.limit_hits import LimitHits
from synergymesh.engine.live import LiveRun
from synergymesh.engine.maintenance import Maintenance
from synergymesh.engine.observability.alerts import Alerts
from synergymesh.engine.observability.explaining import Explaining
from synergymesh.engine.observability.monitoring import Monitoring
from synergymesh.engine.observability.neighbours import Neighbours
from synergymesh.engine.observability.observed_runs import ObservedRuns
from synergymesh.engine.observability.overview import Overviews
from synergymesh.engine.observability.statistics import Statistics
from synergymesh.engine.observability.watching import Watching
from synergymesh.engine.open_runs import OpenRuns
from synergymesh.engine.recovery import Recovery
from synergymesh.engine.replay.recordings import Recordings
from synergymesh.engine.replay.what_if import WhatIfs
from synergymesh.engine.retry_policies import RetryPolicies
from synergymesh.engine.submission import Submission
from synergymesh.engine.tenants import Tenants
from synergymesh.engine.timing.deadlines import Deadlines
from synergymesh.engine.timing.time_limits import TimeLimits
from synergymesh.engine.timing.watchdog import Watchdog
from synergymesh.engine.versions import Versions
from synergymesh.executors.loop import LoopExecutor
from synergymesh.executors.thread import ThreadExecutor
from synergymesh.ports.clock import Clock, SteadyClock
from synergymesh.ports.executor import Executor
from synergymesh.ports.store import Store
from synergymesh.settings import Settings
from synergymesh.workflows.workflow import Workflow


@dataclass(frozen=True, slots=True, kw_only=True)
class Seams:
    """Bring what an orchestrator stands on instead of what it takes by itself: for adapters, tests and simulations.

    Attributes:
        store: in place of the SQLite database that the settings name.
        executors: by name (`loop`, `thread`), in place of the real ones.
        dice: for ids and delays; seeded, they fall the same again.
    """

    store: Store | None = None
    executors: Mapping[str, Executor] = field(default_factory=dict)
    dice: Random | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Hold what a started orchestrator is made of."""

    store: Store
    executors: Mapping[str, Executor]
    committer: Committer
    turns: Turns
    runs: OpenRuns
    deadlines: Deadlines
    watchdog: Watchdog | None
    attempts: Attempts
    dispatcher: Dispatcher
    tenants: Tenants
    admission: Admission
    retry_policies: RetryPolicies
    circuits: Circuits
    submission: Submission
    doubts: Doubts
    recovery: Recovery
    control: Control
    reruns: Reruns
    dead_letters: DeadLetters
    pausing: Pausing
    watching: Watching
    versions: Versions
    window: Window
    explaining: Explaining
    maintenance: Maintenance
    direct_calls: DirectCalls
    monitoring: Monitoring
    alerts: Alerts
    delivery: Delivery
    statistics: Statistics
    neighbours: Neighbours
    overviews: Overviews
    housekeeping: Housekeeping
    what_ifs: WhatIfs
    auditing: Auditing
    clock: Clock


def check_sinks(settings: Settings) -> None:
    """Refuse sinks that cannot be used, before anything starts: a start that fails later is recorded, and has threads.

    Raises:
        InvalidRequest: a sink for alerts or for checkpoints of the audit log cannot be read.
    """
    _alert_sinks(settings)
    read_audit_sinks(settings.audit_sinks)


def _alert_sinks(settings: Settings) -> tuple[bool, list[Sink]]:
    secret = settings.alert_webhook_secret
    return read_sinks(
        settings.alert_sinks,
        None if secret is None else secret.get_secret_value(),
        allow_private=settings.alert_webhook_allow_private,
    )


def assemble(
    store: Store,
    settings: Settings,
    workflows: Iterable[Workflow],
    default_retry: RetryPolicy,
    clock: Clock,
    seams: Seams,
) -> Parts:
    """Put the parts together; nothing is started. Needs a running event loop.

    Args:
        store: opened.
        settings: of the orchestrator.
        workflows: that runs of an earlier process may need.
        default_retry: the policy of tasks that have none of their own.
        clock: where the time comes from.
        seams: executors and dice in place of the usual ones.
    """
    capacity = settings.capacity()
    payload_bytes_max = settings.payload_bytes_max
    executors: dict[str, Executor] = {
        "loop": LoopExecutor(captures=settings.capture_output),
        "thread": ThreadExecutor(capacity.slots, captures=settings.capture_output),
    }
    executors.update(seams.executors)
    dice = seams.dice or Random()
    clock = SteadyClock(clock, asyncio.get_running_loop().time)
    background = Background(clock)
    committer = Committer(store, background)
    turns = Turns(committer, background)
    statistics = Statistics(store, committer, clock)
    scheduler: Scheduler[LiveRun] = Scheduler(capacity)
    traces = None
    if settings.traces:
        from synergymesh.telemetry.traces import Traces  # here, as it needs an extra

        traces = Traces(clock)
    runs = (
        OpenRuns(committer, clock, dice, payload_bytes_max=payload_bytes_max)
        if traces is None
        else ObservedRuns(committer, clock, dice, traces, payload_bytes_max=payload_bytes_max)
    )
    deadlines = Deadlines(clock)
    attempts = Attempts(scheduler, runs, executors, clock, deadlines, stop_grace_seconds=settings.stop_grace_seconds)
    neighbours = Neighbours(scheduler, clock, dice)
    neighbours.waited = statistics.waited
    dispatcher = Dispatcher(scheduler, runs, attempts, committer, neighbours, clock)
    tenants = Tenants(
        store, committer, turns, scheduler, clock, settings.tier_plans(), capacity, seams.dice or SystemRandom()
    )
    retry_policies = RetryPolicies(tenants, default_retry)
    runs.policy_of = retry_policies.of
    circuits = Circuits(
        store,
        committer,
        scheduler,
        tenants,
        deadlines,
        clock,
        dice,
        default=BreakerPolicy() if settings.breakers == "all" else None,
    )
    circuits.changed = dispatcher.pump_soon
    circuits.count_running = attempts.count_running
    runs.circuits = circuits
    limit_hits = LimitHits(committer, clock)
    admission = Admission(
        tenants, scheduler, runs, limit_hits, store, clock, queued_tasks_max=settings.max_queued_tasks
    )
    versions = Versions(store, workflows, default_retry, settings.task_request(), payload_bytes_max)
    window = Window(
        store, runs, versions, dispatcher, tenants, clock, background, runs_max=settings.waiting_runs_in_memory
    )

    time_limits = TimeLimits(deadlines, runs, attempts, dispatcher, store, window, clock)
    dispatcher.limited_offered = time_limits.offered

    def tenant_changed(tenant_id: str) -> None:
        circuits.take_policies_again()
        window.tenant_changed(tenant_id)
        dispatcher.pump_soon()

    tenants.changed = tenant_changed
    watching = Watching(store, runs)
    doubts = Doubts(store, runs, window, background)
    submission = Submission(
        tenants,
        admission,
        versions,
        committer,
        runs,
        dispatcher,
        window,
        doubts,
        clock,
        dice,
        payload_bytes_max=payload_bytes_max,
    )
    monitoring = Monitoring(
        store,
        statistics,
        scheduler,
        tenants,
        admission,
        runs,
        committer,
        dispatcher,
        background,
        circuits,
        limit_hits,
        clock,
        labels_max=settings.metrics_tenants_max,
    )
    delivery = Delivery(*_alert_sinks(settings))
    alerts = Alerts(monitoring, statistics, tenants, committer, background, clock, delivery.tell)
    control = Control(store, turns, tenants, runs, attempts, dispatcher, watching, window)
    direct_calls = DirectCalls(
        tenants,
        admission,
        versions,
        submission,
        runs,
        dispatcher,
        attempts,
        control,
        clock,
        payload_bytes_max=payload_bytes_max,
    )
    if traces is not None:
        submission.traced = traces.submitted
        direct_calls.traced = traces.caller
    reruns = Reruns(store, tenants, versions, submission, watching, payload_bytes_max=payload_bytes_max)
    maintenance = Maintenance(
        store, committer, scheduler, attempts, statistics, alerts, neighbours, limit_hits, clock, background
    )
    maintenance.sweep = time_limits.end_overdue
    pausing = Pausing(store, turns, scheduler, runs, dispatcher, window, watching, tenants, clock)

    def tenant_removed(tenant_id: str) -> None:
        control.tenant_removed(tenant_id)
        pausing.forget(tenant_id)
        admission.forget(tenant_id)
        circuits.forget(tenant_id)
        maintenance.purge_is_due = True

    tenants.removing = monitoring.forget
    tenants.removed = tenant_removed
    auditing = assemble_auditing(store, settings, committer, tenants, clock)
    monitoring.signing_trouble = lambda: auditing.checkpoints.trouble
    return Parts(
        store=store,
        executors=executors,
        committer=committer,
        turns=turns,
        runs=runs,
        deadlines=deadlines,
        watchdog=Watchdog(settings.watchdog_seconds, attempts.context_of) if settings.watchdog_seconds else None,
        attempts=attempts,
        dispatcher=dispatcher,
        tenants=tenants,
        admission=admission,
        retry_policies=retry_policies,
        circuits=circuits,
        submission=submission,
        recovery=Recovery(store, versions, runs, dispatcher, window, time_limits, clock),
        doubts=doubts,
        control=control,
        direct_calls=direct_calls,
        reruns=reruns,
        dead_letters=DeadLetters(store, committer, reruns, clock),
        pausing=pausing,
        watching=watching,
        versions=versions,
        window=window,
        explaining=Explaining(store, scheduler, runs, versions, window, watching, clock),
        maintenance=maintenance,
        overviews=Overviews(scheduler, tenants, runs.backlog, window, neighbours, clock),
        what_ifs=WhatIfs(Recordings(store, settings.task_request()), tenants, clock),
        auditing=auditing,
        clock=clock,
        statistics=statistics,
        neighbours=neighbours,
        monitoring=monitoring,
        alerts=alerts,
        delivery=delivery,
        housekeeping=Housekeeping(store, committer, tenants, versions, clock, background),
    )
