"""Finds out who owns a database, without touching its lock."""

from __future__ import annotations

import os
import re
from pathlib import Path

import psutil

from synergymesh.diagnostics.findings import Finding, note, ok, wrong
from synergymesh.errors import SynergyMeshError
from synergymesh.local.client import connect

LOCKS = Path("/proc/locks")
"""Where Linux lists the locks of all processes."""


async def examine_owner(path: Path) -> Finding:
    """Say which process owns a database, and whether it answers."""
    holder = find_holder(path.with_name(path.name + ".lock"))
    if holder is None:
        return ok("owner", "no process owns the database.")
    try:
        process = psutil.Process(holder)
        shown, stopped = f"process {holder} ({process.name()})", process.status() == psutil.STATUS_STOPPED
    except psutil.Error:
        shown, stopped = f"process {holder}", False
    if stopped:
        return wrong(
            "owner",
            f"{shown} owns the database and is stopped: nothing runs, and nobody else can take over.",
            f"Let it go on (`kill -CONT {holder}`), or end it.",
        )
    try:
        remote = await connect(path)
    except (SynergyMeshError, OSError) as error:
        return note("owner", f"{shown} owns the database; it does not answer ({error}).", "Look at its log.")
    if remote is None:
        return note(
            "owner",
            f"{shown} owns the database and does not listen to other processes.",
            "It is starting, ending, or its setting local_socket is off.",
        )
    await remote.close()
    return ok("owner", f"{shown} owns the database, and answers.")


def find_holder(lock: Path) -> int | None:
    """Give the id of the process that holds the lock on a file; None if none does, or where that cannot be seen."""
    try:
        status = lock.stat()
        listed = LOCKS.read_text()
    except OSError:
        return None
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    for line in listed.splitlines():
        found = re.match(r"\d+: FLOCK +\S+ +WRITE (-?\d+) (\S+) ", line)
        if found is not None and found[2] == device:
            return int(found[1])
    return None
