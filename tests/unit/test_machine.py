"""What a process may use: the machine's CPUs and memory, or what its control groups leave of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from synergymesh import machine

TOTAL_MB = psutil.virtual_memory().total // (1024 * 1024)
COUNT = len(os.sched_getaffinity(0))


def groups(directory: Path, own: str, files: Mapping[str, str]) -> tuple[Path, Path]:
    """Lay out control groups; give their directory and the file that says which the process is in."""
    for name, text in files.items():
        path = directory / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (directory / "own").write_text(own)
    return directory / "groups", directory / "own"


def test_without_control_groups_it_is_all_of_the_machine(tmp_path: Path) -> None:
    nowhere = (tmp_path / "groups", tmp_path / "own")
    assert machine.memory_mb(*nowhere) == TOTAL_MB
    assert machine.cpus(*nowhere) == COUNT


@pytest.mark.parametrize(
    ("own", "files"),
    [
        ("0::/\n", {"memory.max": "104857600\n", "cpu.max": "50000 100000\n"}),
        ("0::/a/b\n", {"a/memory.max": "104857600\n", "a/b/memory.max": "max\n", "a/cpu.max": "50000 100000\n"}),
        (
            "4:memory:/docker/x\n3:cpu,cpuacct:/docker/x\n",
            {
                "memory/memory.limit_in_bytes": "104857600\n",
                "cpu/cpu.cfs_quota_us": "50000\n",
                "cpu/cpu.cfs_period_us": "100000\n",
            },
        ),
        (
            "4:memory:/job\n3:cpuacct,cpu:/job\n",
            {
                "memory/memory.limit_in_bytes": "9223372036854771712\n",
                "memory/job/memory.limit_in_bytes": "104857600\n",
                "cpu/job/cpu.cfs_quota_us": "50000\n",
                "cpu/job/cpu.cfs_period_us": "100000\n",
            },
        ),
    ],
    ids=["container", "service", "container of the first version", "job of the first version"],
)
def test_the_narrowest_control_group_counts(tmp_path: Path, own: str, files: Mapping[str, str]) -> None:
    at = groups(tmp_path, own, files)
    assert machine.memory_mb(*at) == 100
    assert machine.cpus(*at) == 0.5


def test_groups_without_a_limit_and_files_that_say_nothing_limit_nothing(tmp_path: Path) -> None:
    files = {"memory.max": "max\n", "cpu.max": "max 100000\n", "a/cpu.max": "\n", "a/memory.max": "much\n"}
    at = groups(tmp_path, "0::/a\nnonsense\n", files)
    assert machine.memory_mb(*at) == TOTAL_MB
    assert machine.cpus(*at) == COUNT
