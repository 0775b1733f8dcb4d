"""The limits that a tenant's plan sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from synergymesh.errors import InvalidRequest

QUOTA_FIELD_MAX = 1_000_000_000
"""No limit of a quota is larger: far above any machine, far below 2**63 for sums in fixed point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceQuota:
    """Hold the limits of one tenant.

    Attributes:
        max_concurrent_tasks: tasks that run at the same time.
        max_memory_mb: sum of the memory requests of running tasks, in MiB.
        max_cpu_percent: share of the whole capacity, 1 to 100.
        max_tasks_per_hour: starts in any rolling hour.
        rate_limit_per_second: submissions per second.
        max_queued_tasks: tasks that wait.
        burst: submissions that may come at once; None for as many as the rate gives in a second.

    Raises:
        InvalidRequest: a limit is no whole number, below 1 or absurdly large.
    """

    max_concurrent_tasks: int = 5
    max_memory_mb: int = 512
    max_cpu_percent: int = 50
    max_tasks_per_hour: int = 100
    rate_limit_per_second: int = 10
    max_queued_tasks: int = 1_000_000
    burst: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None and field.name == "burst":
                continue
            most = 100 if field.name == "max_cpu_percent" else QUOTA_FIELD_MAX
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
                raise InvalidRequest(
                    f"quota.{field.name} must be a whole number from 1 to {most:,}, not {value!r}.",
                    field=f"quota.{field.name}",
                )


def change_limits(quota: ResourceQuota, limits: Mapping[str, Any]) -> ResourceQuota:
    """Give a quota with other values of single limits.

    Raises:
        InvalidRequest: a value cannot be accepted, or there is no limit of that name.
    """
    names = [field.name for field in fields(ResourceQuota)]
    unknown = sorted(set(limits) - set(names))
    if unknown:
        raise InvalidRequest(f"a quota has no limit {', '.join(unknown)}. It has {', '.join(names)}.", field="quota")
    return replace(quota, **limits)
