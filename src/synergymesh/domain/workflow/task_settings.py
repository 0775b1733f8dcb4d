"""The settings of tasks, which components can change: named, checked and turned into JSON in one place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from difflib import get_close_matches
from typing import Any, TypedDict

from synergymesh.config import IDENTIFIER_MAX
from synergymesh.domain.fault_tolerance.retry import RetryPolicy
from synergymesh.domain.graphs.graph import WEIGHT_MAX
from synergymesh.domain.quota import QUOTA_FIELD_MAX
from synergymesh.errors import InvalidWorkflow

PRIORITY_MAX = 1_000
"""Priorities are from -1000 to 1000: enough to order anything, and they fit into any database's integer."""

CPUS_MAX = 100_000
"""CPUs of one task: far above any cluster, so a larger figure is a mistake."""


SECONDS_MAX = 100 * 366 * 86_400.0
"""A hundred years: a moment so far away still fits into any database's integer of nanoseconds."""


class TaskSettings(TypedDict, total=False):
    """Name what `@task(...)`, `options(...)` and `Workflow.add(...)` take alike.

    Attributes:
        weight: expected seconds, 0 to `WEIGHT_MAX`.
        priority: a whole number from -1000 to 1000; higher ones go first within a tenant.
        retry: a policy, or None for the default one.
        timeout: seconds for one attempt, above 0, or None for no limit.
        total_timeout: seconds from when the task may start until it is done, all attempts and waits together.
        queue_timeout: seconds that the task may wait for its first attempt once it may start.
        heartbeat_timeout: seconds within which a running attempt has to call `current_task().heartbeat()`.
        breaker: the name of what the task calls, shared by all tasks of the tenant that call it; None for none.
        memory_mb: MiB that it takes of its tenant's quota while it runs, or None for the default of the settings.
        cpus: CPUs that it takes, 1.0 is one, or None for the default of the settings.
    """

    weight: float
    priority: int
    retry: RetryPolicy | None
    timeout: float | None
    total_timeout: float | None
    queue_timeout: float | None
    heartbeat_timeout: float | None
    breaker: str | None
    memory_mb: int | None
    cpus: float | None


DEFAULTS: TaskSettings = {
    "weight": 1.0,
    "priority": 0,
    "retry": None,
    "timeout": None,
    "memory_mb": None,
    "cpus": None,
    "total_timeout": None,
    "queue_timeout": None,
    "heartbeat_timeout": None,
    "breaker": None,
}
"""What counts where nothing is said; in the order in which a definition's JSON has them."""


def check_settings(owner: str, settings: Mapping[str, Any]) -> None:
    """Check settings of tasks and components; those that are left out have their defaults.

    Raises:
        InvalidWorkflow: there is no such setting, or one is outside its range; the message names `owner`.
    """
    for name, value in settings.items():
        check = _CHECKS.get(name)
        if check is None:
            nearest = get_close_matches(name, _CHECKS, n=1)
            hint = f"Did you mean {nearest[0]!r}?" if nearest else f"There are {', '.join(_CHECKS)}."
            raise InvalidWorkflow(f"{owner} has no setting {name!r}. {hint}", field=name)
        accepts, wanted = check
        if not accepts(value):
            raise InvalidWorkflow(f"{owner}: {name} {wanted}, not {value!r:.100}.", field=name)


def settings_to_json(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Give the settings that differ from their defaults as JSON values."""
    document: dict[str, Any] = {}
    for name, default in DEFAULTS.items():
        value = settings[name]
        if value != default:
            if isinstance(value, RetryPolicy):
                value = retry_to_json(value)
            document[name] = float(value) if name in _SECONDS_AND_SHARES else value
    return document


def settings_from_json(document: Mapping[str, Any]) -> dict[str, Any]:
    """Read what `settings_to_json` gave; the rest of the document is left alone."""
    settings = {name: document[name] for name in DEFAULTS if name in document}
    if settings.get("retry") is not None:
        settings["retry"] = retry_from_json(settings["retry"])
    return settings


def retry_to_json(policy: RetryPolicy) -> dict[str, Any]:
    """Give a retry policy as JSON values; a limit that is not set is left out."""
    return {name: value for name, value in asdict(policy).items() if value is not None}


def retry_from_json(document: Mapping[str, Any]) -> RetryPolicy:
    """Read what `retry_to_json` gave."""
    fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in document.items()}
    return RetryPolicy(**fields)


# --- checks -----------------------------------------------------------------------------------------------------------


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_weight(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= WEIGHT_MAX


def _is_priority(value: Any) -> bool:
    return _is_whole(value, -PRIORITY_MAX, PRIORITY_MAX)


def _is_retry(value: Any) -> bool:
    return value is None or isinstance(value, RetryPolicy)


def _is_seconds(value: Any) -> bool:
    return value is None or (_is_number(value) and 0 < value <= SECONDS_MAX)


def check_seconds(owner: str, name: str, value: Any) -> float | None:
    """Give a limit of time.

    Raises:
        InvalidWorkflow: it is no number of seconds above 0, nor None; the message names `owner`.
    """
    if not _is_seconds(value):
        raise InvalidWorkflow(f"{owner}: {name} {_SECONDS_WANTED}, not {value!r:.100}.", field=name)
    return None if value is None else float(value)


def _is_name(value: Any) -> bool:
    return value is None or (
        isinstance(value, str) and bool(value.strip()) and len(value) <= IDENTIFIER_MAX and value.isprintable()
    )


def _is_memory(value: Any) -> bool:
    return value is None or _is_whole(value, 0, QUOTA_FIELD_MAX)


def _is_cpus(value: Any) -> bool:
    return value is None or (_is_number(value) and 0 <= value <= CPUS_MAX)


_SECONDS_AND_SHARES = frozenset({"weight", "timeout", "cpus", "total_timeout", "queue_timeout", "heartbeat_timeout"})

_SECONDS_WANTED = "is a number of seconds above 0 and at most a hundred years, or None"

_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "weight": (_is_weight, "is the expected seconds, a finite number from 0"),
    "priority": (_is_priority, f"must be a whole number from {-PRIORITY_MAX} to {PRIORITY_MAX}"),
    "retry": (_is_retry, "takes a RetryPolicy"),
    "timeout": (_is_seconds, _SECONDS_WANTED),
    "total_timeout": (_is_seconds, _SECONDS_WANTED),
    "queue_timeout": (_is_seconds, _SECONDS_WANTED),
    "heartbeat_timeout": (_is_seconds, _SECONDS_WANTED),
    "breaker": (_is_name, f"is a printable name of 1 to {IDENTIFIER_MAX} characters, or None"),
    "memory_mb": (_is_memory, "is a whole number of MiB from 0, or None"),
    "cpus": (_is_cpus, f"is a number of CPUs from 0 to {CPUS_MAX:,}, or None"),
}
