"""Which entries of a chain a store keeps together, in one row.

Runs and tasks leave most entries, and what is written for a row costs more than an entry does. So entries of runs and
tasks that follow each other, say the same in action, actor and outcome, and are of one day (UTC), are a *group*. All
others are alone in theirs: they are found by what they say, and deleted one by one.

Pure, and the standard library only.
"""

from __future__ import annotations

from synergymesh.domain.audit.actions import Action, Outcome
from synergymesh.domain.audit.retention import DAY

GROUP_ENTRIES_MAX = 128
"""Entries of one group: about 40 KB."""

TOGETHER = frozenset(
    {Action.RUN_SUBMITTED, Action.RUN_STARTED, Action.RUN_FINISHED, Action.TASK_STARTED, Action.TASK_FINISHED}
)
"""The actions whose entries are kept together, unless they failed."""

_TOGETHER = frozenset(action.value for action in TOGETHER)
_SUCCESS = Outcome.SUCCESS.value


def is_kept_together(action: str, outcome: str) -> bool:
    """Whether entries that say this may be in one group."""
    return action in _TOGETHER and outcome == _SUCCESS


def is_of_run(entity: str) -> bool:
    """Whether an entity is a run or a task: it is found by the time of its run, and no row names it."""
    return entity.startswith(("run/", "task/"))


def day_of(at: int) -> int:
    """Give the day (UTC, since 1970) of a moment."""
    return at // DAY
