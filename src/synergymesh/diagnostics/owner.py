"""Finds out who owns a database, without touching its lock."""

from __future__ import annotations

import os
import re
from pathlib import Path

import psutil

from synergymesh.diagnostics.findings import Finding, note, ok, wrong
from synergymesh.errors import SynergyMeshError
from synergymesh.local.client import Remote, connect
from synergymesh.local.verbs import ALERTS

LOOK = "Look at its log."

LOCKS = Path("/proc/locks")
"""Where Linux lists the locks of all processes."""


async def examine_owner(path: Path) -> list[Finding]:
    """Say which process owns a database, whether it answers, and what it says is wrong."""
    finding, remote = await _meet_owner(path)
    if remote is None:
        return [finding]
    try:
        told = await remote.ask(ALERTS)
    except (SynergyMeshError, OSError) as error:
        return [note("owner", f"{finding.said.partition(',')[0]}; it does not say how it is ({error}).", LOOK)]
    finally:
        await remote.close()
    of_the_mesh = [each for each in told if each.tenant_id is None]
    return [finding, *(wrong(f"alert {each.kind}", f"{each.summary}.", LOOK) for each in of_the_mesh)]


async def _meet_owner(path: Path) -> tuple[Finding, Remote | None]:
    """Say which process owns a database; give the connection to it, if it answers."""
    holder = find_holder(path.with_name(path.name + ".lock"))
    if holder is None:
        return ok("owner", "no process owns the database."), None
    try:
        process = psutil.Process(holder)
        shown, stopped = f"process {holder} ({process.name()})", process.status() == psutil.STATUS_STOPPED
    except psutil.Error:
        shown, stopped = f"process {holder}", False
    if stopped:
        said = f"{shown} owns the database and is stopped: nothing runs, and nobody else can take over."
        return wrong("owner", said, f"Let it go on (`kill -CONT {holder}`), or end it."), None
    try:
        remote = await connect(path)
    except (SynergyMeshError, OSError) as error:
        return note("owner", f"{shown} owns the database; it does not answer ({error}).", LOOK), None
    if remote is None:
        said = f"{shown} owns the database and does not listen to other processes."
        return note("owner", said, "It is starting, ending, or its setting local_socket is off."), None
    return ok("owner", f"{shown} owns the database, and answers."), remote


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
