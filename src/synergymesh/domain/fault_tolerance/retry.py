"""What follows when an attempt ends: retry policies, outcomes, verdicts, and the one function between them.

Exponential backoff with optional jitter follows Metcalfe & Boggs, "Ethernet" (1976), and "Exponential Backoff And
Jitter" (AWS Architecture Blog, 2015).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, assert_never

import msgspec

from synergymesh.domain.fault_tolerance.error_info import DELAY_SECONDS_MAX, ErrorInfo, type_name
from synergymesh.domain.instants import Instant, from_seconds
from synergymesh.domain.states import ExecutionStatus
from synergymesh.errors import GiveUp, InvalidRequest

RETRIES_MAX = 10_000
ELAPSED_SECONDS_MAX = 366 * 86_400.0
"""A year: longer limits of the time for retries are mistakes."""

POSTPONEMENTS_MAX = 1_000
"""Times that a task may ask for a later attempt: a task that polls every minute for most of a day."""

LOSSES_MAX = 3
"""Times that an executor may lose a task, as often as the process may die during it (`CRASHES_MAX`)."""


class Ending(StrEnum):
    """Name why a task that did not succeed is not tried again."""

    EXHAUSTED = "retries_exhausted"
    NOT_RETRYABLE = "not_retryable"
    GAVE_UP = "gave_up"
    MAX_ELAPSED = "max_elapsed"
    TIMEOUT = "timeout"
    LOST = "lost"


if TYPE_CHECKING:
    ErrorTypes = tuple[str | type[BaseException], ...]
else:
    ErrorTypes = tuple[str, ...]  # what is kept of them are their names, and msgspec reads them back as that


def _names(value: object, field: str) -> tuple[str, ...]:
    items = [value] if isinstance(value, (str, type)) else value
    names: list[str] = []
    if isinstance(items, Iterable):
        for item in items:
            if isinstance(item, type) and issubclass(item, BaseException):
                names.append(type_name(item))
            elif isinstance(item, str) and item:
                names.append(item if "." in item else f"builtins.{item}")
            else:
                raise InvalidRequest(f"{field} takes exception types or their full names, not {item!r}.", field=field)
        return tuple(names)
    raise InvalidRequest(f"{field} takes exception types or their full names, not {value!r}.", field=field)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Say when a failed attempt is followed by another one.

    Attributes:
        max_retries: retries after the first attempt; 0 for none.
        initial_delay: seconds before the first retry.
        max_delay: seconds; no delay is longer.
        exponential_base: each delay is this many times the one before, at least 1.
        jitter: share of the delay that is random, 0 (none) to 1 ("full jitter").
        retry_on: exception types (or their full names) that are retried; subclasses too.
        give_up_on: exception types that are not, even if `retry_on` has them.
        max_elapsed: seconds after the start of the task's first attempt in which retries may start; None for no limit.

    Raises:
        InvalidRequest: a field is outside its range.
    """

    max_retries: int = 3
    initial_delay: float = 1.0
    max_delay: float = 60.0
    exponential_base: float = 2.0
    jitter: float = 0.0
    retry_on: ErrorTypes = ("builtins.Exception",)
    give_up_on: ErrorTypes = ()
    max_elapsed: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.max_retries, int) or isinstance(self.max_retries, bool):
            raise InvalidRequest(f"max_retries must be a whole number, not {self.max_retries!r}.", field="max_retries")
        for field, low, high in (
            ("max_retries", 0, RETRIES_MAX),
            ("initial_delay", 0, DELAY_SECONDS_MAX),
            ("max_delay", 0, DELAY_SECONDS_MAX),
            ("exponential_base", 1, 1_000),
            ("jitter", 0, 1),
            ("max_elapsed", 0, ELAPSED_SECONDS_MAX),
        ):
            value = getattr(self, field)
            if field == "max_elapsed" and value is None:
                continue
            if not isinstance(value, (int, float)) or not math.isfinite(value) or not low <= value <= high:
                raise InvalidRequest(f"{field} must be between {low} and {high:,}, not {value!r:.100}.", field=field)
        object.__setattr__(self, "retry_on", _names(self.retry_on, "retry_on"))
        object.__setattr__(self, "give_up_on", _names(self.give_up_on, "give_up_on"))

    def get_delay(self, attempt: int, dice: float = 0.0) -> float:
        """Give the seconds to wait after failed attempt number `attempt` (0 is the first one: `initial_delay`).

        `dice` in [0, 1) takes that part of the jitter's share off the delay.
        """
        try:
            delay = self.initial_delay * float(self.exponential_base) ** attempt
        except OverflowError:
            delay = self.max_delay if self.initial_delay else 0.0
        return min(delay, self.max_delay) * (1.0 - self.jitter * dice)

    def is_retryable(self, error: ErrorInfo) -> bool:
        """Tell whether errors of that kind are retried at all, however often there were some before."""
        if not NEVER_RETRIED.isdisjoint(error.types):
            return False
        lineage = set(error.types)
        return not lineage.isdisjoint(self.retry_on) and lineage.isdisjoint(self.give_up_on)

    def is_over(self, moment: Instant, began: Instant | None) -> bool:
        """Tell whether no retry starts any more at that moment, of a task whose first attempt started at `began`."""
        latest = self.latest_retry(began)
        return latest is not None and moment > latest

    def latest_retry(self, began: Instant | None) -> Instant | None:
        """Give the last moment at which a retry of that task may start; None for no limit."""
        return None if self.max_elapsed is None or began is None else began + from_seconds(self.max_elapsed)

    def retries(self, error: ErrorInfo, failures: int) -> bool:
        """Tell whether an attempt that failed with `error`, after `failures` earlier ones, is followed by another."""
        return failures < self.max_retries and self.is_retryable(error)


DEFAULT_RETRY = RetryPolicy()
NO_RETRY = RetryPolicy(max_retries=0)

GIVE_UP = type_name(GiveUp)

NEVER_RETRIED = frozenset({type_name(InvalidRequest), GIVE_UP})
"""What SynergyMesh itself refuses (a result that is no payload, an argument that does not fit) fails the same again,
and a task that says that it gives up is believed."""


class Succeeded(msgspec.Struct, frozen=True, gc=False):
    """The function returned; `result` is its JSON."""

    result: bytes


class Raised(msgspec.Struct, frozen=True, gc=False):
    """The function raised, or what it returned is no payload."""

    error: ErrorInfo


class TimeLimit(StrEnum):
    """Name the limit of time that something went beyond."""

    ATTEMPT = "attempt"
    HEARTBEAT = "heartbeat"
    TASK = "task"
    QUEUE = "queue"
    RUN = "run"


class TimedOut(msgspec.Struct, frozen=True, gc=False):
    """The attempt, or the task or run that it belongs to, took longer than so many seconds."""

    timeout: float
    limit: TimeLimit = TimeLimit.ATTEMPT


class Cancelled(msgspec.Struct, frozen=True, gc=False):
    """The attempt was stopped because its run was cancelled."""


class Interrupted(msgspec.Struct, frozen=True, gc=False):
    """The attempt was stopped because the process shuts down; it says nothing about the task."""


class Lost(msgspec.Struct, frozen=True, gc=False):
    """The executor lost the attempt (its worker died, say); it says nothing about the task."""

    error: ErrorInfo


Outcome = Succeeded | Raised | TimedOut | Cancelled | Interrupted | Lost


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """The task's next state: final, or `retrying` at `not_before`, or `pending` again after an interruption.

    `attempt_status` is how the attempt itself ended, when another one follows.
    """

    status: ExecutionStatus
    result: bytes | None = None
    error: ErrorInfo | None = None
    not_before: Instant = 0
    attempt_status: ExecutionStatus = ExecutionStatus.CANCELLED


TIMEOUT_TYPES = ("builtins.TimeoutError", "builtins.OSError", "builtins.Exception", "builtins.BaseException")


_TIMEOUT_MESSAGES = {
    TimeLimit.ATTEMPT: "took longer than its timeout of {:g} s",
    TimeLimit.HEARTBEAT: "gave no heartbeat for {:g} s",
    TimeLimit.TASK: "was not done within its total timeout of {:g} s, all attempts and waits together",
    TimeLimit.QUEUE: "did not start within its queue timeout of {:g} s",
    TimeLimit.RUN: "was not done when its run had taken longer than its timeout of {:g} s",
}


def timeout_error(outcome: TimedOut) -> ErrorInfo:
    """Describe a time limit that has passed; that of an attempt can be followed by another attempt."""
    ending = "" if outcome.limit in (TimeLimit.ATTEMPT, TimeLimit.HEARTBEAT) else Ending.TIMEOUT.value
    message = _TIMEOUT_MESSAGES[outcome.limit].format(outcome.timeout)
    return ErrorInfo("builtins.TimeoutError", message, TIMEOUT_TYPES, ending=ending)


def decide(
    policy: RetryPolicy,
    outcome: Outcome,
    *,
    failures: int,
    cancelling: bool,
    now: Instant,
    dice: float,
    postponements: int = 0,
    losses: int = 0,
    began: Instant | None = None,
) -> Verdict:
    """Turn what happened to an attempt into the task's next state.

    Args:
        policy: the task's policy.
        outcome: what happened.
        failures: earlier attempts that failed by the task's own fault.
        cancelling: whether the run is being cancelled; then nothing is retried.
        now: when the attempt ended.
        dice: a number in [0, 1) for the jitter.
        postponements: earlier attempts that asked for a later one.
        losses: earlier attempts that an executor lost.
        began: when the task's first attempt started; None if that is not known.
    """
    match outcome:
        case Succeeded(result):
            return Verdict(ExecutionStatus.SUCCESS, result=result)
        case Cancelled():
            return Verdict(ExecutionStatus.CANCELLED)
        case Interrupted():
            return Verdict(ExecutionStatus.CANCELLED if cancelling else ExecutionStatus.PENDING)
        case Lost(error):
            if cancelling:
                return Verdict(ExecutionStatus.CANCELLED, error=error)
            if losses < LOSSES_MAX:
                return Verdict(ExecutionStatus.PENDING, error=error)
            return Verdict(ExecutionStatus.FAILED, error=with_ending(error, Ending.LOST))
        case TimedOut(_, limit):
            error = timeout_error(outcome)
            final = ExecutionStatus.TIMEOUT
            if limit is TimeLimit.RUN or (limit is TimeLimit.TASK and not cancelling):
                return Verdict(final, error=error)
        case Raised(error):
            final = ExecutionStatus.FAILED
        case _:
            assert_never(outcome)
    if cancelling:
        return Verdict(ExecutionStatus.CANCELLED, error=error)
    if error.retry_after is not None:
        ending = None if postponements < POSTPONEMENTS_MAX else Ending.EXHAUSTED
        not_before = now + from_seconds(error.retry_after)
    else:
        ending = _refusal(policy, error, failures)
        not_before = now if ending else now + from_seconds(policy.get_delay(failures, dice))
    if ending is None and policy.is_over(not_before, began):
        ending = Ending.MAX_ELAPSED
    if ending is None:
        return Verdict(ExecutionStatus.RETRYING, error=error, not_before=not_before, attempt_status=final)
    return Verdict(final, error=with_ending(error, ending))


def _refusal(policy: RetryPolicy, error: ErrorInfo, failures: int) -> Ending | None:
    """Say why a failure is not followed by another attempt; None if it is."""
    if GIVE_UP in error.types:
        return Ending.GAVE_UP
    if not policy.is_retryable(error):
        return Ending.NOT_RETRYABLE
    return Ending.EXHAUSTED if failures >= policy.max_retries else None


def with_ending(error: ErrorInfo, ending: Ending) -> ErrorInfo:
    """Give an error after which no other attempt follows, and say why."""
    return msgspec.structs.replace(error, ending=ending.value)
