"""Two settings of the Python interpreter that suit an event loop beside a writing thread, while orchestrators are open.

Both belong to the whole process, so only what the program has left as the interpreter begins with is changed, and it is
set back when the last orchestrator is closed, unless somebody has changed it meanwhile. What it brings and costs:
docs/decisions/0018.
"""

from __future__ import annotations

import gc
import sys
import threading

SWITCH_SECONDS_DEFAULT = 0.005
SWITCH_SECONDS = 0.0005
"""How long a thread computes before it hands the interpreter lock over to one that waits for it.

The writing thread gives the lock up around every statement. With the usual 5 ms it waits for it until the event loop
has nothing left to do, so that the two work one after the other.
"""

COLLECT_AFTER_DEFAULT = 700
COLLECT_AFTER = 10_000
"""New containers after which the youngest generation is searched for cycles.

A thousand runs under way hold some 30 containers each for a few milliseconds. With the usual 700 they are searched
dozens of times meanwhile, and become old enough for full collections, which look at every container of the program.
"""


class _Interpreter:
    """Count the orchestrators that are open; the first one changes the settings, the last one sets them back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._switches = False
        self._collects = False

    def adjust(self) -> None:
        """Begin to use the settings."""
        with self._lock:
            self._users += 1
            if self._users > 1:
                return
            if sys.getswitchinterval() == SWITCH_SECONDS_DEFAULT:
                sys.setswitchinterval(SWITCH_SECONDS)
                self._switches = True
            youngest, *older = gc.get_threshold()
            if youngest == COLLECT_AFTER_DEFAULT:
                gc.set_threshold(COLLECT_AFTER, *older)
                self._collects = True

    def set_back(self) -> None:
        """End to use them."""
        with self._lock:
            self._users -= 1
            if self._users:
                return
            if self._switches and abs(sys.getswitchinterval() - SWITCH_SECONDS) < 1e-6:
                sys.setswitchinterval(SWITCH_SECONDS_DEFAULT)
            youngest, *older = gc.get_threshold()
            if self._collects and youngest == COLLECT_AFTER:
                gc.set_threshold(COLLECT_AFTER_DEFAULT, *older)
            self._switches = self._collects = False


INTERPRETER = _Interpreter()
