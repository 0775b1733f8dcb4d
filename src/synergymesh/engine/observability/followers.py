"""Who waits for runs, or watches them, that are not in memory."""

from __future__ import annotations

from collections.abc import Callable

from synergymesh.engine.live import LiveRun, Waiter
from synergymesh.engine.observability.events import RunEvent

Waiters = list[Waiter]
Watchers = list[Callable[[RunEvent | None], None]]


class Followers:
    """Keep the lists of waiters and watchers of absent runs; a run that comes into memory takes them along."""

    def __init__(self) -> None:
        self._of: dict[str, tuple[Waiters, Watchers]] = {}

    def __len__(self) -> int:
        """Count the absent runs that somebody follows."""
        return len(self._of)

    def run_ids(self) -> list[str]:
        """Give the ids of the absent runs that somebody follows."""
        return list(self._of)

    def of(self, run_id: str, live: LiveRun | None) -> tuple[Waiters, Watchers]:
        """Give the lists of a run, absent or not, to join and to leave."""
        if live is None:
            return self._of.setdefault(run_id, ([], []))
        if live.waiters is None:
            live.waiters = []
        if live.watchers is None:
            live.watchers = []
        return live.waiters, live.watchers

    def tidy(self, run_id: str) -> None:
        """Forget an absent run that nobody follows any more."""
        if not any(self._of.get(run_id, ("",))):
            self._of.pop(run_id, None)

    def arrive(self, run: LiveRun) -> None:
        """Give a run that comes into memory those who follow it."""
        lists = self._of.pop(run.run_id, None)
        if lists is not None:
            run.waiters, run.watchers = lists

    def depart(self, run: LiveRun) -> None:
        """Keep those who follow a run that leaves memory before it is begun."""
        self._of[run.run_id] = self.of(run.run_id, run)
        self.tidy(run.run_id)

    def release(self, run_id: str, error: Exception) -> None:
        """Tell those who follow an absent run that it will not end here."""
        waiters, watchers = self._of.pop(run_id, ([], []))
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(error)
        for watcher in watchers:
            watcher(None)
