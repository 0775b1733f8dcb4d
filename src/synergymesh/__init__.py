"""SynergyMesh: durable multi-tenant workflows in dependency order, with retries, quotas and fairness.

The public names and nothing else. Each is imported when it is first used, so that `synergymesh --help`, and programs
that need only a part of it, start at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from synergymesh.domain.actors import Actor
    from synergymesh.domain.fault_tolerance.breaker import BreakerPolicy
    from synergymesh.domain.fault_tolerance.retry import RetryPolicy
    from synergymesh.domain.graphs.analysis import ExecutionPhase
    from synergymesh.domain.observability.timeline import Timeline
    from synergymesh.domain.quota import ResourceQuota
    from synergymesh.domain.scheduling.limits import Capacity, CohortShare
    from synergymesh.domain.scheduling.neighbours import Neighbour
    from synergymesh.domain.scheduling.queue_views import TenantView
    from synergymesh.domain.simulation import PlannedRun, PlannedTask
    from synergymesh.domain.states import ExecutionStatus, TenantStatus
    from synergymesh.domain.tenants import Tenant, TenantTier
    from synergymesh.domain.workflow.component_types import ComponentType
    from synergymesh.domain.workflow.definition import Dependency
    from synergymesh.engine.control.dead_letter_views import DeadLetter
    from synergymesh.engine.control.dead_letters import Redriven
    from synergymesh.engine.control.pausing import PausedWorkflow
    from synergymesh.engine.direct_calls import DirectCall, ExecutionResult
    from synergymesh.engine.observability.events import RunEvent
    from synergymesh.engine.observability.explaining import RunExplanation, TaskExplanation
    from synergymesh.engine.observability.monitoring import MeshMetrics, TenantHealth
    from synergymesh.engine.observability.overview import Overview, TenantActivity
    from synergymesh.engine.observability.views import BreakerView, LingeringAttempt, Run, RunTask
    from synergymesh.engine.replay.what_if import TenantChange, WhatIf
    from synergymesh.enterprise import AuditLog, ComponentDependency, EnterpriseSynergyMeshOrchestrator, TenantConfig
    from synergymesh.errors import GiveUp, RetryLater, RunCancelled, RunFailed, RunTimedOut, SynergyMeshError
    from synergymesh.orchestrator import Orchestrator
    from synergymesh.ports.task_context import TaskContext, current_task
    from synergymesh.resolver.components import DependencyNode
    from synergymesh.resolver.dependency_resolver import DependencyResolver
    from synergymesh.run_handle import RunHandle
    from synergymesh.settings import Settings, TierSettings, read_settings
    from synergymesh.timeline.page import timeline_html
    from synergymesh.timeline.picture import timeline_svg
    from synergymesh.workflows.loader import load_workflow, load_workflows
    from synergymesh.workflows.nodes import given, optional, ref
    from synergymesh.workflows.registry import Registry
    from synergymesh.workflows.tasks import Task, task
    from synergymesh.workflows.wfformat import read_wfformat
    from synergymesh.workflows.workflow import Workflow, workflow

_HOMES = {
    "synergymesh.domain.actors": ("Actor",),
    "synergymesh.domain.graphs.analysis": ("ExecutionPhase",),
    "synergymesh.domain.workflow.component_types": ("ComponentType",),
    "synergymesh.domain.fault_tolerance.breaker": ("BreakerPolicy",),
    "synergymesh.domain.workflow.definition": ("Dependency",),
    "synergymesh.domain.fault_tolerance.retry": ("RetryPolicy",),
    "synergymesh.domain.simulation": ("PlannedRun", "PlannedTask"),
    "synergymesh.domain.states": (
        "ExecutionStatus",
        "TenantStatus",
    ),
    "synergymesh.domain.scheduling.limits": ("Capacity", "CohortShare"),
    "synergymesh.domain.scheduling.neighbours": ("Neighbour",),
    "synergymesh.domain.scheduling.queue_views": ("TenantView",),
    "synergymesh.domain.quota": ("ResourceQuota",),
    "synergymesh.domain.tenants": ("Tenant", "TenantTier"),
    "synergymesh.engine.control.dead_letter_views": ("DeadLetter",),
    "synergymesh.engine.control.dead_letters": ("Redriven",),
    "synergymesh.domain.observability.timeline": ("Timeline",),
    "synergymesh.timeline.page": ("timeline_html",),
    "synergymesh.timeline.picture": ("timeline_svg",),
    "synergymesh.engine.observability.explaining": ("RunExplanation", "TaskExplanation"),
    "synergymesh.settings": ("Settings", "TierSettings", "read_settings"),
    "synergymesh.engine.direct_calls": ("DirectCall", "ExecutionResult"),
    "synergymesh.engine.control.pausing": ("PausedWorkflow",),
    "synergymesh.engine.observability.events": ("RunEvent",),
    "synergymesh.engine.observability.monitoring": ("MeshMetrics", "TenantHealth"),
    "synergymesh.engine.observability.overview": ("Overview", "TenantActivity"),
    "synergymesh.engine.replay.what_if": ("TenantChange", "WhatIf"),
    "synergymesh.engine.observability.views": (
        "BreakerView",
        "LingeringAttempt",
        "Run",
        "RunTask",
    ),
    "synergymesh.enterprise": ("AuditLog", "ComponentDependency", "EnterpriseSynergyMeshOrchestrator", "TenantConfig"),
    "synergymesh.errors": (
        "GiveUp",
        "RetryLater",
        "RunCancelled",
        "RunFailed",
        "RunTimedOut",
        "SynergyMeshError",
    ),
    "synergymesh.orchestrator": ("Orchestrator",),
    "synergymesh.ports.task_context": (
        "TaskContext",
        "current_task",
    ),
    "synergymesh.resolver.components": ("DependencyNode",),
    "synergymesh.resolver.dependency_resolver": ("DependencyResolver",),
    "synergymesh.run_handle": ("RunHandle",),
    "synergymesh.workflows.loader": (
        "load_workflow",
        "load_workflows",
    ),
    "synergymesh.workflows.nodes": (
        "given",
        "optional",
        "ref",
    ),
    "synergymesh.workflows.registry": ("Registry",),
    "synergymesh.workflows.tasks": (
        "Task",
        "task",
    ),
    "synergymesh.workflows.wfformat": ("read_wfformat",),
    "synergymesh.workflows.workflow": (
        "Workflow",
        "workflow",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Actor",
    "AuditLog",
    "BreakerPolicy",
    "BreakerView",
    "Capacity",
    "CohortShare",
    "ComponentDependency",
    "ComponentType",
    "DeadLetter",
    "Dependency",
    "DependencyNode",
    "DependencyResolver",
    "DirectCall",
    "EnterpriseSynergyMeshOrchestrator",
    "ExecutionPhase",
    "ExecutionResult",
    "ExecutionStatus",
    "GiveUp",
    "LingeringAttempt",
    "MeshMetrics",
    "Neighbour",
    "Orchestrator",
    "Overview",
    "PausedWorkflow",
    "PlannedRun",
    "PlannedTask",
    "Redriven",
    "Registry",
    "ResourceQuota",
    "RetryLater",
    "RetryPolicy",
    "Run",
    "RunCancelled",
    "RunEvent",
    "RunExplanation",
    "RunFailed",
    "RunHandle",
    "RunTask",
    "RunTimedOut",
    "Settings",
    "SynergyMeshError",
    "Task",
    "TaskContext",
    "TaskExplanation",
    "Tenant",
    "TenantActivity",
    "TenantChange",
    "TenantConfig",
    "TenantHealth",
    "TenantStatus",
    "TenantTier",
    "TenantView",
    "TierSettings",
    "Timeline",
    "WhatIf",
    "Workflow",
    "current_task",
    "given",
    "load_workflow",
    "load_workflows",
    "optional",
    "read_settings",
    "read_wfformat",
    "ref",
    "task",
    "timeline_html",
    "timeline_svg",
    "workflow",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
