"""Every read and every change of a store, tried by one tenant with the ids of another."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, get_args

from synergymesh.diagnostics.isolation_verbs import verbs_of
from synergymesh.domain.fault_tolerance.breaker import BreakerState
from synergymesh.domain.states import ExecutionStatus
from synergymesh.ports.changes import (
    AttemptFailed,
    BreakerChanged,
    CancelRequested,
    Change,
    DeadLetterDiscarded,
    OutputCaptured,
    RunCreated,
    RunFinished,
    RunLinked,
    RunPaused,
    RunResumed,
    RunStarted,
    TaskFinished,
    TaskStarted,
    TenantCreated,
    WorkflowStored,
)
from synergymesh.ports.records import Refused
from synergymesh.ports.store import Store

ME = "tenant-me"
THEY = "tenant-they"
RUN = "run-theirs"
OPEN_RUN = "run-theirs-open"
_HASH = "0" * 64
_S = ExecutionStatus
_END = "run-~"


async def fill(store: Store) -> None:
    """Record two tenants, and of the other one a run that failed and one that is open."""
    await store.commit(
        [
            [
                TenantCreated(ME, "Me", "basic", b"{}", 1),
                TenantCreated(THEY, "They", "basic", b"{}", 2),
                WorkflowStored(_HASH, "w", b"{}", None, 1),
            ],
            [
                RunCreated(RUN, THEY, "w", _HASH, b"{}", "key", 0, 0, 3),
                RunStarted(RUN, THEY, 4),
                AttemptFailed(RUN, "task", 1, THEY, _S.FAILED, 4, 5, 6, b'{"type": "E", "message": "m"}'),
                OutputCaptured(RUN, "task", 1, THEY, b"[]", 0),
                TaskFinished(RUN, "task", THEY, _S.FAILED, 2, 6, 7, None, b'{"type": "E", "message": "m"}'),
                RunFinished(RUN, THEY, _S.FAILED, 4, 8, None, b"{}"),
            ],
            [BreakerChanged(THEY, "", "their service", BreakerState.OPEN, 5, 6, 1, 0, 9, 9, 5)],
            [RunCreated(OPEN_RUN, THEY, "w", _HASH, b"{}", None, 0, 0, 9), RunStarted(OPEN_RUN, THEY, 9)],
        ]
    )


async def _everything_of_theirs(store: Store) -> list[Any]:
    return [
        await store.list_runs(tenant_id=THEY),
        await store.list_tasks([RUN, OPEN_RUN], THEY),
        await store.list_attempts([RUN, OPEN_RUN], THEY),
        await store.list_dead_letters(tenant_id=THEY),
        await store.list_outputs(RUN, None, THEY),
        await store.list_breakers(THEY),
    ]


Read = Callable[[Store], Awaitable[Any]]

READS: Mapping[str, Read] = MappingProxyType(
    {
        "count_runs": lambda store: store.count_runs(tenant_id=ME),
        "count_waiting_before": lambda store: store.count_waiting_before(ME, 0, _END),
        "get_dead_letter": lambda store: store.get_dead_letter(RUN, "task", ME),
        "get_retry": lambda store: store.get_retry(RUN, ME),
        "get_run": lambda store: store.get_run(RUN, ME),
        "list_attempts": lambda store: store.list_attempts([RUN, OPEN_RUN], ME),
        "list_breakers": lambda store: store.list_breakers(ME),
        "list_dead_letters": lambda store: store.list_dead_letters(tenant_id=ME),
        "list_later_runs": lambda store: store.list_later_runs(ME, after=0, limit=10),
        "list_outputs": lambda store: store.list_outputs(RUN, None, ME),
        "list_runs": lambda store: store.list_runs(tenant_id=ME),
        "list_statistics": lambda store: store.list_statistics(ME, since_hour=0),
        "list_tasks": lambda store: store.list_tasks([RUN, OPEN_RUN], ME),
        "list_waiting_runs": lambda store: store.list_waiting_runs(ME, due_by=2**62, after=None, limit=10),
    }
)
"""How each read that takes a tenant is tried: it has to give nothing."""

_ENGINE = "it is the engine's, which works for all tenants"
_AUDIT = "the audit log is asked for by whoever may see that tenant; the caller decides"
_PRUNABLE = "it gives ids only to the engine, which prunes for all tenants"

EXEMPT: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(
            (
                "add_up_statistics",
                "begin_incarnation",
                "close",
                "commit",
                "end_incarnation",
                "find_unused_workflows",
                "forget_workflows",
                "get_workflow",
                "give_space_back",
                "list_begun_runs",
                "list_estimates",
                "list_open_runs",
                "list_overdue_runs",
                "list_pauses",
                "list_reservations",
                "list_submissions",
                "list_tenants",
                "list_waiting_counts",
                "open",
                "prune_reservations",
                "prune_runs",
                "purge_deleted",
                "shorten_log",
                "sum_statistics",
            ),
            _ENGINE,
        ),
        "list_prunable_runs": _PRUNABLE,
        **dict.fromkeys(
            (
                "add_audit_tombstones",
                "add_subject_key",
                "delete_pruned_audit_entries",
                "erase_subject_key",
                "get_subject_key",
                "hold_audit",
                "list_audit_holds",
                "list_audit_tombstones",
                "release_audit",
                "scan_audit",
                "wipe_erased_keys",
            ),
            _AUDIT,
        ),
        **dict.fromkeys(
            (
                "find_audit_entries",
                "get_audit_extent",
                "get_audit_log_id",
                "list_audit_entries",
                "list_audit_heads",
            ),
            _AUDIT,
        ),
    }
)
"""Verbs that are not tried, and why; what `commit` takes is tried change by change."""

CHANGES: Mapping[str, Change] = MappingProxyType(
    {
        "AttemptFailed": AttemptFailed(OPEN_RUN, "task", 1, ME, _S.FAILED, 10, 11, 12, None),
        "CancelRequested": CancelRequested(OPEN_RUN, ME, 10),
        "DeadLetterDiscarded": DeadLetterDiscarded(RUN, "task", ME, "none of mine", 10),
        "OutputCaptured": OutputCaptured(RUN, "task", 2, ME, b"[]", 0),
        "RunFinished": RunFinished(OPEN_RUN, ME, _S.SUCCESS, 9, 10, b"1", None),
        "RunLinked": RunLinked(OPEN_RUN, ME, RUN, None, 10),
        "RunPaused": RunPaused(OPEN_RUN, ME, 10),
        "RunResumed": RunResumed(OPEN_RUN, ME, 10),
        "RunStarted": RunStarted(OPEN_RUN, ME, 10),
        "TaskFinished": TaskFinished(OPEN_RUN, "task", ME, _S.SUCCESS, 1, 10, 11, b"1", None),
        "TaskStarted": TaskStarted(OPEN_RUN, "task", ME, 1, 10),
    }
)
"""A change of each kind that names a run: one of theirs, as if it were mine. It has to be refused."""

NO_RUN = frozenset(
    {
        "BreakerChanged",
        "EstimateLearnt",
        "HourReserved",
        "Noted",
        "RunCreated",
        "StatisticCounted",
        "TenantCreated",
        "TenantPlanChanged",
        "TenantStatusChanged",
        "WorkflowPaused",
        "WorkflowResumed",
        "WorkflowStored",
    }
)
"""Changes that name no run that is there already."""


async def try_store(store: Store) -> dict[str, str]:
    """Try every read and change on an empty store; give what was found by name: nothing, when tenants are isolated."""
    await fill(store)
    before = await _everything_of_theirs(store)
    assert all(before), "there is something to be found"
    found = {}
    for name, read in READS.items():
        answer = await read(store)
        if answer:
            found[name] = f"it gave {str(answer)[:60]}"
    for name, change in CHANGES.items():
        (result,) = await store.commit([[change]])
        if not isinstance(result, Refused):
            found[name] = "the store took it"
    if await _everything_of_theirs(store) != before:
        found["a change"] = "something of the other tenant was changed"
    return found


def untried() -> list[str]:
    """Give the verbs and changes of a store that are neither tried nor exempt: none, or a new one was forgotten."""
    changes = {kind.__name__ for kind in get_args(Change)}
    return sorted((verbs_of(Store) - READS.keys() - EXEMPT.keys()) | (changes - CHANGES.keys() - NO_RUN))
