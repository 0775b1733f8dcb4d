"""Retry policies, and what follows from the end of an attempt."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from synergymesh.domain.fault_tolerance.error_info import (
    DELAY_SECONDS_MAX,
    MESSAGE_CHARACTERS_MAX,
    SHORT_TRACEBACK_CHARACTERS,
    TRACEBACK_CHARACTERS_MAX,
    ErrorInfo,
    describe,
    shorten,
)
from synergymesh.domain.fault_tolerance.retry import (
    ELAPSED_SECONDS_MAX,
    LOSSES_MAX,
    NO_RETRY,
    POSTPONEMENTS_MAX,
    RETRIES_MAX,
    Cancelled,
    Ending,
    Interrupted,
    Lost,
    Outcome,
    Raised,
    RetryPolicy,
    Succeeded,
    TimedOut,
    Verdict,
    decide,
)
from synergymesh.domain.instants import SECOND
from synergymesh.domain.states import ExecutionStatus
from synergymesh.errors import GiveUp, InvalidPayload, InvalidRequest, RetryLater

S = ExecutionStatus
NOW = 1_700_000_000 * SECOND

delays = st.floats(0, DELAY_SECONDS_MAX, allow_nan=False)
policies = st.builds(
    RetryPolicy,
    max_retries=st.integers(0, RETRIES_MAX),
    initial_delay=delays,
    max_delay=delays,
    exponential_base=st.floats(1, 1_000),
    jitter=st.floats(0, 1),
)


class Nested:
    class Broken(ConnectionError):
        pass


def raised(error: BaseException) -> Raised:
    return Raised(describe(error))


def verdict(
    outcome: Outcome, policy: RetryPolicy = NO_RETRY, *, failures: int = 0, cancelling: bool = False, **more: Any
) -> Verdict:
    return decide(policy, outcome, failures=failures, cancelling=cancelling, now=NOW, dice=0.0, **more)


# --- delays ---------------------------------------------------------------------------------------------------------


@settings(max_examples=200)
@given(policies, st.integers(0, 5_000))
def test_delays_never_shrink_and_never_exceed_their_limit(policy: RetryPolicy, attempt: int) -> None:
    delay = policy.get_delay(attempt)
    assert 0 <= delay <= policy.max_delay
    assert delay <= policy.get_delay(attempt + 1)


@settings(max_examples=200)
@given(policies, st.integers(0, RETRIES_MAX), st.floats(0, 1, exclude_max=True))
def test_jitter_takes_no_more_than_its_share_off_the_delay(policy: RetryPolicy, attempt: int, dice: float) -> None:
    full = policy.get_delay(attempt)
    shortened = policy.get_delay(attempt, dice)
    assert full * (1 - policy.jitter) <= shortened * (1 + 1e-12)
    assert shortened <= full


def modelled_delay(policy: RetryPolicy, attempt: int, dice: float) -> Decimal:
    """Give the delay as the guide defines it, step by step: each is so many times the one before, none is longer."""
    with localcontext() as context:
        context.prec = 60
        longest, base = Decimal(policy.max_delay), Decimal(float(policy.exponential_base))
        delay = Decimal(policy.initial_delay)
        for _ in range(attempt):
            if delay >= longest or not delay or base == 1:
                break
            delay *= base
        return min(delay, longest) * (1 - Decimal(policy.jitter) * Decimal(dice))


@settings(max_examples=300)
@given(policies, st.one_of(st.integers(0, 30), st.integers(0, RETRIES_MAX)), st.floats(0, 1, exclude_max=True))
@example(RetryPolicy(initial_delay=5e-324, exponential_base=1_000, max_delay=DELAY_SECONDS_MAX), 110, 0.5)
@example(RetryPolicy(initial_delay=DELAY_SECONDS_MAX, exponential_base=1_000, max_delay=1e-9), RETRIES_MAX, 0.0)
@example(RetryPolicy(initial_delay=1e-300, exponential_base=1.0 + 2**-52, max_delay=60, jitter=1.0), RETRIES_MAX, 0.99)
@example(RetryPolicy(initial_delay=1.0, exponential_base=2, max_delay=60, jitter=1.0), 2_000, 0.0)
def test_a_delay_is_that_of_a_model_that_multiplies_step_by_step(
    policy: RetryPolicy, attempt: int, dice: float
) -> None:
    exact = modelled_delay(policy, attempt, dice)
    delay = policy.get_delay(attempt, dice)
    assert math.isclose(delay, exact, rel_tol=1e-9, abs_tol=1e-12)
    low = modelled_delay(policy, attempt, 1.0)
    high = modelled_delay(policy, attempt, 0.0)
    assert float(low) * (1 - 1e-9) <= delay <= float(high) * (1 + 1e-9)
    decided = decide(
        policy,
        raised(OSError()),
        failures=attempt,
        cancelling=False,
        now=NOW,
        dice=dice,
    )
    if attempt < policy.max_retries:
        assert abs(decided.not_before - NOW - int(exact * SECOND)) <= 1 + exact * SECOND * Decimal("1e-9")
    else:
        assert ending(decided) == Ending.EXHAUSTED


def test_the_delays_are_those_of_exponential_backoff() -> None:
    policy = RetryPolicy(initial_delay=0.5, exponential_base=3, max_delay=10)
    assert [policy.get_delay(attempt) for attempt in range(5)] == [0.5, 1.5, 4.5, 10, 10]


@pytest.mark.parametrize("attempt", [1_023, 1_024, 10_000, 10**9])
def test_a_huge_number_of_attempts_waits_for_the_longest_delay(attempt: int) -> None:
    assert RetryPolicy(max_delay=60).get_delay(attempt) == 60


@pytest.mark.parametrize("attempt", [0, 1, 1_023, 1_024, 10_000, 10**9])
def test_no_delay_stays_no_delay_however_many_attempts(attempt: int) -> None:
    assert RetryPolicy(initial_delay=0).get_delay(attempt) == 0


# --- which errors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "error", "expected"),
    [
        (RetryPolicy(), ValueError(), True),
        (RetryPolicy(), KeyboardInterrupt(), False),  # no Exception
        (RetryPolicy(retry_on=(OSError,)), ConnectionResetError(), True),  # a subclass
        (RetryPolicy(retry_on=(ConnectionError,)), OSError(), False),  # a superclass
        (RetryPolicy(retry_on=("OSError",)), ConnectionResetError(), True),  # builtins by their bare name
        (RetryPolicy(retry_on=("builtins.OSError",)), ConnectionResetError(), True),
        (RetryPolicy(retry_on=(f"{__name__}.Nested.Broken",)), Nested.Broken(), True),
        (RetryPolicy(retry_on=(Nested.Broken,)), ConnectionError(), False),
        (RetryPolicy(retry_on=("requests.Timeout",)), TimeoutError(), False),
        (RetryPolicy(retry_on=()), ValueError(), False),
        (RetryPolicy(give_up_on=(LookupError,)), KeyError("k"), False),
        (RetryPolicy(give_up_on=(KeyError,)), IndexError(), True),
        (RetryPolicy(retry_on=(LookupError,), give_up_on=(KeyError,)), KeyError("k"), False),
        (RetryPolicy(retry_on=(KeyError,), give_up_on=("Exception",)), KeyError("k"), False),
        (RetryPolicy(retry_on=KeyError), KeyError("k"), True),  # type: ignore[arg-type]  # one type alone
        (RetryPolicy(retry_on="KeyError"), KeyError("k"), True),  # type: ignore[arg-type]  # one name alone
    ],
)
def test_which_errors_are_retried(policy: RetryPolicy, error: BaseException, expected: bool) -> None:
    assert policy.retries(describe(error), 0) is expected


@pytest.mark.parametrize("error", [InvalidRequest("no"), InvalidPayload("no")])
def test_what_synergymesh_itself_refuses_is_never_retried(error: Exception) -> None:
    assert not RetryPolicy(retry_on=(Exception,)).retries(describe(error), 0)


@given(st.integers(0, 20), st.integers(0, 40))
def test_there_are_no_more_retries_than_allowed(max_retries: int, failures: int) -> None:
    policy = RetryPolicy(max_retries=max_retries)
    assert policy.retries(describe(ValueError()), failures) is (failures < max_retries)


# --- bad policies ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_retries", -1),
        ("max_retries", RETRIES_MAX + 1),
        ("max_retries", 1.0),
        ("max_retries", True),
        ("max_retries", None),
        ("initial_delay", -0.1),
        ("initial_delay", math.nan),
        ("initial_delay", "1"),
        ("max_delay", math.inf),
        ("max_delay", DELAY_SECONDS_MAX + 1),
        ("exponential_base", 0.9),
        ("exponential_base", 1_001),
        ("jitter", -0.1),
        ("jitter", 1.1),
        ("jitter", None),
        ("retry_on", 3),
        ("retry_on", (int,)),
        ("retry_on", ("",)),
        ("retry_on", (ValueError("an instance"),)),
        ("give_up_on", None),
        ("give_up_on", ("ValueError", 1)),
        ("max_elapsed", -1),
        ("max_elapsed", math.nan),
        ("max_elapsed", "60"),
        ("max_elapsed", ELAPSED_SECONDS_MAX + 1),
    ],
)
def test_a_field_outside_its_range_is_refused_with_its_name(field: str, value: Any) -> None:
    with pytest.raises(InvalidRequest, match=field) as caught:
        RetryPolicy(**{field: value})
    assert caught.value.field == field


def test_policies_with_the_same_meaning_are_equal() -> None:
    assert RetryPolicy(retry_on=(ValueError,)) == RetryPolicy(retry_on=("ValueError",))
    assert RetryPolicy(retry_on=(Nested.Broken,)) == RetryPolicy(retry_on=(f"{__name__}.Nested.Broken",))


# --- verdicts -------------------------------------------------------------------------------------------------------


def test_a_success_is_a_success_even_of_a_run_that_is_being_cancelled() -> None:
    for cancelling in (False, True):
        assert verdict(Succeeded(b"1"), cancelling=cancelling) == Verdict(S.SUCCESS, result=b"1")


def test_an_attempt_stopped_by_a_cancellation_is_cancelled() -> None:
    for cancelling in (False, True):
        assert verdict(Cancelled(), RetryPolicy(), cancelling=cancelling) == Verdict(S.CANCELLED)


def test_an_attempt_stopped_by_a_shutdown_is_pending_again_unless_the_run_is_being_cancelled() -> None:
    assert verdict(Interrupted()).status is S.PENDING
    assert verdict(Interrupted(), cancelling=True).status is S.CANCELLED


def test_an_error_is_followed_by_another_attempt_after_the_delay() -> None:
    policy = RetryPolicy(initial_delay=2, exponential_base=10, max_delay=1_000)
    decided = verdict(raised(ValueError("no")), policy, failures=1)
    assert (decided.status, decided.attempt_status) == (S.RETRYING, S.FAILED)
    assert decided.not_before == NOW + 20 * SECOND
    assert str(decided.error) == "ValueError: no"


def test_the_last_error_is_the_final_one() -> None:
    decided = verdict(raised(ValueError("no")), RetryPolicy(max_retries=2), failures=2)
    assert decided.status is S.FAILED
    assert decided.error is not None
    assert decided.error.type == "builtins.ValueError"


def test_an_error_of_a_run_that_is_being_cancelled_is_not_retried_and_kept() -> None:
    decided = verdict(raised(ValueError("no")), RetryPolicy(), cancelling=True)
    assert decided.status is S.CANCELLED
    assert str(decided.error) == "ValueError: no"


def test_a_timeout_is_retried_like_the_error_that_it_is_and_says_its_seconds() -> None:
    decided = verdict(TimedOut(1.5), RetryPolicy(retry_on=(TimeoutError,), initial_delay=1))
    assert (decided.status, decided.attempt_status) == (S.RETRYING, S.TIMEOUT)
    assert "1.5 s" in str(decided.error)


@pytest.mark.parametrize(
    "policy", [NO_RETRY, RetryPolicy(give_up_on=(TimeoutError,)), RetryPolicy(retry_on=(ValueError,))]
)
def test_a_timeout_that_is_not_retried_is_a_timeout(policy: RetryPolicy) -> None:
    assert verdict(TimedOut(1.5), policy).status is S.TIMEOUT


def test_a_timeout_of_a_run_that_is_being_cancelled_is_a_cancellation() -> None:
    assert verdict(TimedOut(1.5), RetryPolicy(), cancelling=True).status is S.CANCELLED


@given(
    st.sampled_from(
        [Succeeded(b"1"), raised(ValueError()), raised(InvalidRequest("x")), TimedOut(1.0), Cancelled(), Interrupted()]
    ),
    policies,
    st.integers(0, RETRIES_MAX + 1),
    st.booleans(),
    st.floats(0, 1, exclude_max=True),
)
def test_every_verdict_is_a_state_that_follows_running(
    outcome: Outcome, policy: RetryPolicy, failures: int, cancelling: bool, dice: float
) -> None:
    decided = decide(policy, outcome, failures=failures, cancelling=cancelling, now=NOW, dice=dice)
    assert decided.status in {S.SUCCESS, S.FAILED, S.TIMEOUT, S.CANCELLED, S.RETRYING, S.PENDING}
    assert (decided.status is S.RETRYING) <= (failures < policy.max_retries and not cancelling)
    if decided.status is S.RETRYING:
        assert NOW <= decided.not_before <= NOW + round(policy.max_delay * SECOND)
    assert (decided.result is not None) is (decided.status is S.SUCCESS)


def ending(decided: Verdict) -> str:
    assert decided.error is not None
    return decided.error.ending


def test_a_final_error_says_why_no_other_attempt_followed() -> None:
    policy = RetryPolicy(max_retries=2, retry_on=(OSError,))
    assert ending(verdict(raised(OSError()), policy, failures=2)) == Ending.EXHAUSTED
    assert ending(verdict(raised(ValueError()), policy)) == Ending.NOT_RETRYABLE
    assert ending(verdict(raised(GiveUp("no such order")), RetryPolicy())) == Ending.GAVE_UP
    assert ending(verdict(raised(OSError()), policy, failures=1)) == ""


def test_a_task_that_gives_up_is_not_tried_again_whatever_its_policy_says() -> None:
    decided = verdict(raised(GiveUp("no such order")), RetryPolicy(retry_on=(Exception, GiveUp)))
    assert decided.status is S.FAILED
    assert str(decided.error) == "synergymesh.errors.GiveUp: no such order"


@given(st.floats(0, 10 * DELAY_SECONDS_MAX), st.integers(0, RETRIES_MAX), st.integers(0, POSTPONEMENTS_MAX - 1))
def test_a_postponed_task_is_tried_again_after_its_own_delay_and_loses_no_retry(
    delay: float, failures: int, postponements: int
) -> None:
    decided = verdict(raised(RetryLater(delay, "busy")), NO_RETRY, failures=failures, postponements=postponements)
    assert decided.status is S.RETRYING
    assert decided.not_before == NOW + round(min(delay, DELAY_SECONDS_MAX) * SECOND)


def test_a_task_that_postpones_itself_for_ever_fails() -> None:
    assert verdict(raised(RetryLater(1)), postponements=POSTPONEMENTS_MAX - 1).status is S.RETRYING
    decided = verdict(raised(RetryLater(1)), RetryPolicy(), postponements=POSTPONEMENTS_MAX)
    assert (decided.status, ending(decided)) == (S.FAILED, Ending.EXHAUSTED)


@pytest.mark.parametrize("delay", [-0.1, math.nan, math.inf, "1", None, True])
def test_a_delay_that_is_none_is_refused_where_it_is_raised(delay: Any) -> None:
    with pytest.raises(InvalidRequest, match="delay"):
        RetryLater(delay)


@given(st.floats(0.001, 1_000), st.floats(0, 1_000), st.floats(0, 1_000), st.booleans())
def test_no_retry_starts_later_than_the_time_that_all_of_them_have(
    max_elapsed: float, delay: float, elapsed: float, postponed: bool
) -> None:
    policy = RetryPolicy(initial_delay=delay, max_delay=delay, max_elapsed=max_elapsed)
    began = NOW - round(elapsed * SECOND)
    decided = verdict(raised(RetryLater(delay) if postponed else OSError()), policy, began=began)
    in_time = NOW + round(delay * SECOND) <= began + round(max_elapsed * SECOND)
    assert decided.status is (S.RETRYING if in_time else S.FAILED)
    assert ending(decided) == ("" if in_time else Ending.MAX_ELAPSED)


def test_a_lost_attempt_costs_no_retry_but_a_task_that_is_lost_again_and_again_fails() -> None:
    lost = Lost(ErrorInfo("synergymesh.WorkerLost", "the worker died"))
    for losses in range(LOSSES_MAX):
        assert verdict(lost, NO_RETRY, losses=losses).status is S.PENDING
    decided = verdict(lost, RetryPolicy(), losses=LOSSES_MAX)
    assert (decided.status, ending(decided)) == (S.FAILED, Ending.LOST)
    assert verdict(lost, cancelling=True).status is S.CANCELLED


# --- errors as data -------------------------------------------------------------------------------------------------


def test_an_error_is_described_by_type_lineage_message_and_traceback() -> None:
    try:
        raise Nested.Broken("the peer is gone")
    except ConnectionError as error:
        described = describe(error)
    assert described.type == f"{__name__}.Nested.Broken"
    assert described.types[:3] == (described.type, "builtins.ConnectionError", "builtins.OSError")
    assert described.message == "the peer is gone"
    assert "test_an_error_is_described" in described.traceback
    assert msgspec.json.decode(msgspec.json.encode(described), type=ErrorInfo) == described


def test_a_long_error_is_shortened_and_keeps_its_end() -> None:
    def deep(levels: int) -> None:
        if levels:
            deep(levels - 1)
        raise ValueError("x" * 100_000 + "the end")

    try:
        deep(50)
    except ValueError as error:
        described = describe(error)
    assert len(described.message) == MESSAGE_CHARACTERS_MAX
    assert len(described.traceback) < TRACEBACK_CHARACTERS_MAX + 100
    assert described.traceback.rstrip().endswith("the end")


def test_an_error_whose_message_cannot_be_shown_is_described_nevertheless() -> None:
    class Rude(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    assert "cannot be shown: RuntimeError" in describe(Rude()).message


def test_what_no_database_stores_is_replaced_in_a_described_error() -> None:
    described = describe(ValueError("a\0b\ud800c"))
    assert "\0" not in described.message
    assert "\0" not in described.traceback
    msgspec.json.encode(described)


def test_a_shortened_error_keeps_the_end_of_its_traceback() -> None:
    error = ErrorInfo("builtins.OSError", "no", traceback="x" * SHORT_TRACEBACK_CHARACTERS)
    assert shorten(error) is error
    long = shorten(ErrorInfo("builtins.OSError", "no", traceback="x" * SHORT_TRACEBACK_CHARACTERS + "end"))
    assert long.traceback.endswith("xend")
    assert len(long.traceback) < SHORT_TRACEBACK_CHARACTERS + 20


def test_a_policy_is_stored_and_read_back_with_names_for_types() -> None:
    policy = RetryPolicy(max_retries=7, retry_on=(OSError,), give_up_on=(Nested.Broken,), max_elapsed=3.5)
    assert msgspec.json.decode(msgspec.json.encode(policy), type=RetryPolicy) == policy
