"""What this process may use of its machine: CPUs and memory, inside the limits of its control groups (cgroups) too."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import psutil

MIB = 1024 * 1024

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")

UNLIMITED_BYTES = 1 << 60
"""The first version of cgroups says that there is no limit with a number beyond any memory."""


def memory_mb(cgroups: Path = CGROUPS, own: Path = OWN_CGROUPS) -> int:
    """Give the MiB that this process may use: the machine's, or fewer if a control group above it has a limit."""
    limits = [psutil.virtual_memory().total]
    for group in _groups("memory", cgroups, own):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = _number(_words(group / name))
            if limit is not None and 0 < limit < UNLIMITED_BYTES:
                limits.append(limit)
    return max(1, min(limits) // MIB)


def cpus(cgroups: Path = CGROUPS, own: Path = OWN_CGROUPS) -> float:
    """Give the CPUs that this process may use: those it may run on, or fewer if a control group has a quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else psutil.cpu_count() or 1
    shares = [float(count)]
    for group in _groups("cpu", cgroups, own):
        for words in (
            _words(group / "cpu.max"),
            _words(group / "cpu.cfs_quota_us") + _words(group / "cpu.cfs_period_us"),
        ):
            quota, period = _number(words[:1]), _number(words[1:])
            if quota and period and quota > 0:
                shares.append(quota / period)
    return max(0.001, min(shares))


def _groups(controller: str, cgroups: Path, own: Path) -> Iterator[Path]:
    """Give the directories of the groups that this process is in, each with those above it, of both versions.

    Inside a container the paths may be those of the machine, which are not there; the topmost one is its own then.
    """
    yield cgroups
    yield cgroups / controller
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        top = cgroups / controller if controllers else cgroups
        group = PurePosixPath(path)
        while group.name:
            yield top / group.relative_to("/")
            group = group.parent


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return []


def _number(words: list[str]) -> int | None:
    try:
        return int(words[0]) if words else None
    except ValueError:
        return None
