"""What may not start because somebody said so: suspended tenants, paused runs, paused workflows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

from synergymesh.ports.executor import Call
from synergymesh.testing.simulation.history import History
from synergymesh.testing.simulation.usage import Token, token_of

Subject = tuple[str, ...]
"""What is held: ("tenant", id), ("run", id), or ("workflow", tenant's id or nothing for all, name)."""


class Holds:
    """Follow what is held, and check that nothing of it starts.

    What is being let go may start from the moment at which somebody asked for it; what is being held may start until
    that is acknowledged, and what had a slot by then may start after it.
    """

    def __init__(self, history: History, fail: Callable[[str, str], None]) -> None:
        self._history = history
        self._fail = fail
        self._held: set[Subject] = set()
        self._excused: set[Token] = set()
        self._lifts: dict[Subject, int] = defaultdict(int)
        self._lifting: dict[Subject, int] = defaultdict(int)

    def begin_life(self, held: Iterable[Subject]) -> None:
        """Begin with what the store says."""
        self._held = set(held)
        self._excused.clear()
        self._lifting.clear()

    def lifting(self, subject: Subject) -> None:
        """Expect that something may start again from now on."""
        self._lifts[subject] += 1
        self._lifting[subject] += 1
        self._held.discard(subject)

    def lifted(self, subject: Subject) -> None:
        """Take note that somebody who wanted it let go has an answer."""
        self._lifting[subject] -= 1
        self._held.discard(subject)

    def lifts(self, subject: Subject) -> int:
        """Count how often it was let go; to be asked before it is held."""
        return self._lifts[subject]

    def held(self, subject: Subject, lifts: int, chosen: Iterable[Token]) -> bool:
        """Take note that nothing of it starts any more; tell whether that is certain.

        It is not, if somebody let it go while it was asked for: either may have been the last.

        Args:
            subject: what is held.
            lifts: how often it had been let go before it was asked for.
            chosen: the attempts that have a slot and are not handed over yet.
        """
        if self._lifts[subject] != lifts or self._lifting[subject] > 0:
            return False
        self._held.add(subject)
        self._excused.update(chosen)
        return True

    def excuse(self, chosen: Iterable[Token]) -> None:
        """Let attempts start that had a slot when a limit changed."""
        self._excused.update(chosen)

    def excuses(self, token: Token) -> bool:
        """Tell whether an attempt had a slot before something changed; once."""
        if token in self._excused:
            self._excused.discard(token)
            return True
        return False

    def handed(self, call: Call) -> None:
        """Check a start that nothing excuses."""
        if not self._held:
            return
        context = call.context
        workflow = self._history.runs[context.run_id].definition.name
        subjects: list[Subject] = [("tenant", each) for each in self._history.family(context.tenant_id)]
        subjects += [("run", context.run_id), ("workflow", context.tenant_id, workflow), ("workflow", "", workflow)]
        for subject in subjects:
            if subject in self._held:
                self._fail("I6", f"{token_of(call)} starts although {' '.join(subject)} is held")
