"""SynergyMesh: durable multi-tenant workflows in dependency order, with retries, quotas and fairness."""

from synergymesh.domain.definition import Dependency
from synergymesh.domain.retry import RetryPolicy
from synergymesh.domain.states import ExecutionStatus, TenantStatus
from synergymesh.domain.tenants import ResourceQuota, Tenant, TenantTier
from synergymesh.engine.events import RunEvent
from synergymesh.engine.views import Run, RunTask
from synergymesh.errors import RunCancelled, RunFailed, SynergyMeshError
from synergymesh.orchestrator import Orchestrator
from synergymesh.ports.task_context import TaskContext, current_task
from synergymesh.run_handle import RunHandle
from synergymesh.workflows.loader import load_workflow, load_workflows
from synergymesh.workflows.nodes import given, optional, ref
from synergymesh.workflows.registry import Registry
from synergymesh.workflows.tasks import Task, task
from synergymesh.workflows.wfformat import read_wfformat
from synergymesh.workflows.workflow import Workflow, workflow

__all__ = [
    "Dependency",
    "ExecutionStatus",
    "Orchestrator",
    "Registry",
    "ResourceQuota",
    "RetryPolicy",
    "Run",
    "RunCancelled",
    "RunEvent",
    "RunFailed",
    "RunHandle",
    "RunTask",
    "SynergyMeshError",
    "Task",
    "TaskContext",
    "Tenant",
    "TenantStatus",
    "TenantTier",
    "Workflow",
    "current_task",
    "given",
    "load_workflow",
    "load_workflows",
    "optional",
    "read_wfformat",
    "ref",
    "task",
    "workflow",
]
