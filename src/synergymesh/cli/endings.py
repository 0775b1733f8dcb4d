"""How a command ends: its exit code, and the one line that says why."""

from __future__ import annotations

import os
import sys
import threading
import time

from synergymesh.errors import RunNotSuccessful, StoreError, SynergyMeshError

SUCCESS = 0
NOT_SUCCESSFUL = 1
"""A run failed or was cancelled."""
USAGE = 2
"""What was asked for cannot be done: wrong usage, bad input, nothing of that name, a state that does not allow it."""
DATABASE = 3
INTERNAL = 70
"""A fault of SynergyMesh itself; the number that sysexits.h gives to it."""
TIMED_OUT = 124
"""As `timeout(1)`: the time that `--timeout` gave is over, and the run goes on with `resume`."""
INTERRUPTED = 130
PIPE_CLOSED = 141
TERMINATED = 143
"""As the shell reports a process that ended by SIGINT (2), SIGPIPE (13), SIGTERM (15): 128 and the signal's number."""

THREADS_WAIT_SECONDS = 0.5
"""Idle threads of a pool that was shut down end well within it."""


class PipeClosed(Exception):
    """Say that nobody reads the output any more (`| head`)."""


class Ended(Exception):
    """End the command with an exit code other than 0; what there is to say was said."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def code_of(error: SynergyMeshError) -> int:
    """Give the exit code for an error."""
    match error:
        case StoreError():
            return DATABASE
        case RunNotSuccessful():
            return NOT_SUCCESSFUL
        case _:
            return USAGE


def leave(code: int) -> None:
    """End the process with an exit code, also when a function in a thread does not end.

    The interpreter would wait for such a thread for ever; its task was told to stop, and given up.
    """
    deadline = time.monotonic() + THREADS_WAIT_SECONDS
    threads = [t for t in threading.enumerate() if t is not threading.current_thread() and not t.daemon]
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    if any(thread.is_alive() for thread in threads):
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                continue
        os._exit(code)
    sys.exit(code)
