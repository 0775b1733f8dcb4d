"""Whether attempts follow each other as the policies say: no sooner, no oftener, and none where there must be none."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from synergymesh.domain.fault_tolerance.error_info import ErrorInfo
from synergymesh.domain.fault_tolerance.retry import LOSSES_MAX, Ending, RetryPolicy
from synergymesh.domain.instants import from_seconds
from synergymesh.domain.states import ExecutionStatus
from synergymesh.ports.changes import AttemptFailed, Change, TaskFinished
from synergymesh.testing.simulation.history import History, RunHistory

GIVE_UP = "synergymesh.errors.GiveUp"
RETRY_LATER = "synergymesh.errors.RetryLater"


class Retrying:
    """Check what is recorded of attempts against the policies of their tasks.

    Args:
        history: what was recorded.
        fail: is called when something does not hold.
        default: the policy of tasks that have none.
    """

    def __init__(self, history: History, fail: Callable[[str, str], None], default: RetryPolicy) -> None:
        self._history = history
        self._fail = fail
        self._default = default
        history.heard.append(self._heard)

    def _heard(self, change: Change) -> None:
        if isinstance(change, AttemptFailed):
            self._followed(change)
        elif isinstance(change, TaskFinished) and change.error is not None:
            run = self._history.runs[change.run_id]
            if change.component_id not in run.reused:
                self._final(run, change, error_of(change))

    def _followed(self, change: AttemptFailed) -> None:
        """Check that an attempt may be followed by another one, and when."""
        run = self._history.runs[change.run_id]
        name = f"attempt {change.number} of {change.run_id}/{change.component_id}"
        earlier = run.attempts_of(change.component_id)
        if change.status is ExecutionStatus.CANCELLED:
            if change.error is not None and _losses(earlier) > LOSSES_MAX:
                self._fail("retry", f"{name} was lost, and is followed by another one, as {LOSSES_MAX} before it were")
            return
        error = error_of(change)
        if GIVE_UP in error.types:
            self._fail("retry", f"{name} gave up, and is followed by another one")
        policy = run.components[change.component_id].retry or self._default
        if RETRY_LATER in error.types:
            seconds = error.retry_after or 0.0
        else:
            failures = _failures(earlier)
            if failures > policy.max_retries:
                self._fail("retry", f"{name} is failure {failures}, and {policy.max_retries} retries are allowed")
            growth = policy.exponential_base ** (failures - 1)
            seconds = min(policy.initial_delay * growth, policy.max_delay)
        if change.retry_at < change.ended_at + from_seconds(seconds):
            self._fail("retry", f"{name} is followed by another one before its {seconds:g} s are over")

    def _final(self, run: RunHistory, change: TaskFinished, error: ErrorInfo) -> None:
        """Check that a task has ended for the reason that is given."""
        name = f"{change.run_id}/{change.component_id}"
        earlier = run.attempts_of(change.component_id)
        policy = run.components[change.component_id].retry or self._default
        if error.ending == Ending.EXHAUSTED and _failures(earlier) != policy.max_retries:
            self._fail("retry", f"{name} ended after {_failures(earlier)} of {policy.max_retries} retries")
        if error.ending == Ending.LOST and _losses(earlier) != LOSSES_MAX:
            self._fail("retry", f"{name} ended as lost after {_losses(earlier)} losses")
        if error.ending == Ending.GAVE_UP and GIVE_UP not in error.types:
            self._fail("retry", f"{name} did not give up, and ended so")
        if error.ending == Ending.NOT_RETRYABLE:
            self._fail("retry", f"{name} was not tried again after {error}, which its policy retries")


def error_of(change: AttemptFailed | TaskFinished) -> ErrorInfo:
    """Give the error that is recorded."""
    return msgspec.json.decode(change.error or b'{"type":"","message":""}', type=ErrorInfo)


def _failures(attempts: list[AttemptFailed]) -> int:
    return sum(
        1
        for attempt in attempts
        if attempt.status is not ExecutionStatus.CANCELLED and RETRY_LATER not in error_of(attempt).types
    )


def _losses(attempts: list[AttemptFailed]) -> int:
    return sum(1 for each in attempts if each.status is ExecutionStatus.CANCELLED and each.error is not None)
