"""The life of a task and of a run: one table holds every allowed transition."""

from __future__ import annotations

from enum import StrEnum


class ExecutionStatus(StrEnum):
    """Name the state of a run, a task or an attempt."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    PARTIAL = "partial"
    SKIPPED = "skipped"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    RETRYING = "retrying"

    @property
    def is_final(self) -> bool:
        """Tell whether nothing follows this state."""
        return self in FINAL


_S = ExecutionStatus

FINAL = frozenset({_S.SUCCESS, _S.FAILED, _S.PARTIAL, _S.SKIPPED, _S.TIMEOUT, _S.CANCELLED})

TASK_TRANSITIONS: dict[ExecutionStatus, frozenset[ExecutionStatus]] = {
    # pending, retrying -> timeout: the task did not start, or was not done, in time
    _S.PENDING: frozenset({_S.RUNNING, _S.SKIPPED, _S.CANCELLED, _S.FAILED, _S.TIMEOUT}),
    # running -> pending: the process died, or was shut down, while an attempt ran
    _S.RUNNING: frozenset({_S.SUCCESS, _S.FAILED, _S.TIMEOUT, _S.CANCELLED, _S.RETRYING, _S.PENDING}),
    _S.RETRYING: frozenset({_S.RUNNING, _S.CANCELLED, _S.FAILED, _S.TIMEOUT}),
    _S.SUCCESS: frozenset(),
    _S.FAILED: frozenset(),
    _S.TIMEOUT: frozenset(),
    _S.CANCELLED: frozenset(),
    _S.SKIPPED: frozenset(),
}

RUN_TRANSITIONS: dict[ExecutionStatus, frozenset[ExecutionStatus]] = {
    _S.PENDING: frozenset({_S.RUNNING, _S.CANCELLED, _S.FAILED, _S.TIMEOUT}),
    _S.RUNNING: frozenset({_S.SUCCESS, _S.FAILED, _S.PARTIAL, _S.CANCELLED, _S.TIMEOUT}),
    _S.SUCCESS: frozenset(),
    _S.FAILED: frozenset(),
    _S.PARTIAL: frozenset(),
    _S.TIMEOUT: frozenset(),
    _S.CANCELLED: frozenset(),
}

ATTEMPT_STATUSES = frozenset({_S.FAILED, _S.TIMEOUT, _S.CANCELLED})
"""How an attempt that did not give the task its final verdict can have ended."""


class TenantStatus(StrEnum):
    """Name the state of a tenant."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    DELETED = "deleted"
