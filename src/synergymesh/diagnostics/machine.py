"""Examines the machine: disk, file system, SQLite, limits of the process, and limits that are only counted."""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

from synergymesh.diagnostics.findings import Finding, note, ok, wrong
from synergymesh.errors import InvalidRequest
from synergymesh.settings import read_settings

FREE_BYTES_MIN = 200_000_000
"""Below this a burst of work, with its log, can fill the disk."""

FREE_SHARE_MIN = 0.02

DESCRIPTORS_MIN = 1_024

NETWORK_FILE_SYSTEMS = ("nfs", "cifs", "smb", "fuse.sshfs", "9p", "afs", "ceph", "gluster")
"""Whose locks do not keep two machines apart, or not always."""

_RESET_FIXED = (3, 51, 3)
_NEEDED = (3, 35, 0)


def examine_machine(path: Path | None) -> Iterator[Finding]:
    """Look at the machine; at the disk of that database, if there is one."""
    yield _python()
    yield _sqlite()
    yield _settings()
    if path is not None and path.parent.is_dir():
        yield _disk(path)
        yield _file_system(path)
    yield _descriptors()
    yield _only_counted()


def _python() -> Finding:
    from importlib.metadata import PackageNotFoundError, version

    try:
        own = version("synergymesh")
    except PackageNotFoundError:
        own = "not installed"
    return ok("version", f"SynergyMesh {own}, Python {sys.version.split()[0]}, {sys.platform}.")


def _sqlite() -> Finding:
    shown = f"SQLite {sqlite3.sqlite_version}."
    if sqlite3.sqlite_version_info < _NEEDED:
        return wrong("sqlite", f"{shown} It is too old.", "Install a Python with SQLite 3.35 or newer.")
    if sqlite3.sqlite_version_info < _RESET_FIXED:
        return ok(
            "sqlite",
            f"{shown} Before 3.51.3 two connections that write or checkpoint at once can damage a database; here one "
            f"connection does both.",
        )
    return ok("sqlite", shown)


def _settings() -> Finding:
    try:
        settings = read_settings()
    except InvalidRequest as error:
        return wrong("settings", str(error), "Correct the value; nothing can be started before.")
    machine_mb = psutil.virtual_memory().total // (1024 * 1024)
    if settings.memory_mb is not None and settings.memory_mb > machine_mb:
        return wrong(
            "settings",
            f"memory_mb is {settings.memory_mb:,}, and this machine has {machine_mb:,} MiB.",
            "Lower memory_mb, or leave it out; tasks may be started that the machine has no room for.",
        )
    return ok("settings", "they can be read, and fit the machine.")


def _disk(path: Path) -> Finding:
    usage = shutil.disk_usage(path.parent)
    size = path.stat().st_size if path.exists() else 0
    said = f"{usage.free:,} bytes are free where the database is."
    if usage.free < max(FREE_BYTES_MIN, FREE_SHARE_MIN * usage.total):
        return wrong("disk", said, "Make room, or shorten the retention of finished runs; a full disk stops all work.")
    if usage.free < 2 * size:
        return note(
            "disk", f"{said} `compact`, or a backup beside it, needs as much as it has ({size:,}).", "Make room for it."
        )
    return ok("disk", said)


def _file_system(path: Path) -> Finding:
    mounts = [
        mount for mount in psutil.disk_partitions(all=True) if Path(mount.mountpoint) in (path.parent, *path.parents)
    ]
    mount = max(mounts, key=lambda each: len(each.mountpoint), default=None)
    kind = "unknown" if mount is None else mount.fstype
    if kind.startswith(NETWORK_FILE_SYSTEMS):
        return wrong(
            "file system",
            f"the database is on {kind}, whose locks may not keep two processes apart.",
            "Put it on a local disk.",
        )
    return ok("file system", f"the database is on {kind}.")


def _descriptors() -> Finding:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    said = f"a process may open {'any number of' if soft == resource.RLIM_INFINITY else f'{soft:,}'} files."
    if soft != resource.RLIM_INFINITY and soft < DESCRIPTORS_MIN:
        return wrong("descriptors", said, f"Raise it: `ulimit -n {DESCRIPTORS_MIN * 8}`.")
    return ok("descriptors", said)


def _only_counted() -> Finding:
    """Say which limits nothing enforces here: tasks run in this process, on its loop and in threads."""
    cgroup = Path("/sys/fs/cgroup/cgroup.controllers")
    has_cgroup = cgroup.exists() and os.access(cgroup.parent, os.W_OK)
    said = (
        "memory_mb and cpus of tasks are counted, and not enforced: tasks run in the process itself, on its event loop "
        "and in threads, where nothing can limit one of them; a thread cannot be killed."
    )
    extra = "" if has_cgroup else " Control groups cannot be written here either."
    return note("limits", said + extra, "Limit the whole process from outside, and give tasks what they really take.")
