"""Group commit with a store whose answers are scripted: batches, order, failures, the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synergymesh.engine import committer as committer_module
from synergymesh.engine.background import Background
from synergymesh.engine.committer import Committer
from synergymesh.errors import NotRunning, StoreCorrupt, StoreError, StoreLocked, StoreUnavailable
from synergymesh.ports.changes import RunStarted, Unit
from synergymesh.ports.clock import SystemClock
from synergymesh.ports.records import COMMITTED, CommitResult, Committed, Refused

SHORT = Exception("the store answers for fewer units than it was given")
FULL = StoreUnavailable("mesh.db: the disk is full")


def unit(number: int) -> Unit:
    return [RunStarted(f"run-{number}", "tenant-1", number)]


def numbers(units: Sequence[Unit]) -> list[int]:
    return [change.started_at for (change,) in units if isinstance(change, RunStarted)]


class ScriptedStore:
    """Answer each commit by the next step of the script: None for well, or an error before or after the write."""

    def __init__(self, *script: Exception | None, after: bool = False) -> None:
        self.script = list(script)
        self.after = after
        self.batches: list[list[int]] = []
        self.calls: list[list[int]] = []
        self.refused: set[int] = set()
        self.open = asyncio.Event()
        self.open.set()
        self.called = asyncio.Event()

    async def commit(self, units: Sequence[Unit]) -> list[CommitResult]:
        self.calls.append(numbers(units))
        self.called.set()
        await asyncio.sleep(0)
        await self.open.wait()
        error = self.script.pop(0) if self.script else None
        if error is SHORT:
            return []
        if error is None or self.after:
            self.batches.append(numbers(units))
        if error is not None:
            raise error
        return [Refused("no such run") if n in self.refused else COMMITTED for n in numbers(units)]

    @property
    def recorded(self) -> list[int]:
        return [number for batch in self.batches for number in batch]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committer_module, "RETRY_DELAYS_SECONDS", (0.0,))


def committer_on(store: Any, background: Background | None = None) -> Committer:
    """Give a committer, not started, on something that only has the verb for it."""
    return Committer(store, background or Background(SystemClock()))


@asynccontextmanager
async def running(store: Any) -> AsyncIterator[Committer]:
    committer = committer_on(store)
    committer.start()
    try:
        yield committer
    finally:
        store.open.set()
        await committer.close()


def answers(committer: Committer, count: int, *, may_fail: Callable[[int], bool] = lambda n: False) -> dict[int, Any]:
    """Put units 0 to count - 1; give the dict that their answers come into."""
    received: dict[int, Any] = {}

    def note(number: int) -> Callable[[Any], None]:
        def done(answer: Any) -> None:
            assert number not in received, "an answer comes once"
            received[number] = answer

        return done

    for number in range(count):
        committer.put(unit(number), note(number), may_fail=may_fail(number))
    return received


async def test_what_waits_while_a_transaction_is_written_goes_into_the_next_one() -> None:
    store = ScriptedStore()
    async with running(store) as committer:
        store.open.clear()
        first = asyncio.create_task(committer.record(unit(0)))
        await store.called.wait()
        others = [asyncio.create_task(committer.record(unit(n))) for n in range(1, 6)]
        await asyncio.sleep(0)
        store.open.set()
        assert await asyncio.gather(first, *others) == [COMMITTED] * 6
    assert store.batches == [[0], [1, 2, 3, 4, 5]]
    assert (committer.batches, committer.units) == (2, 6)


async def test_a_batch_has_its_limit_and_the_order_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committer_module, "BATCH_UNITS_MAX", 4)
    store = ScriptedStore()
    async with running(store) as committer:
        received = answers(committer, 10)
        await committer.drained()
    assert store.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert list(received) == list(range(10))


async def test_a_refused_unit_is_told_so_alone() -> None:
    store = ScriptedStore()
    store.refused = {1}
    async with running(store) as committer:
        received = answers(committer, 3)
        await committer.drained()
    assert [type(answer) for answer in received.values()] == [Committed, Refused, Committed]


@pytest.mark.parametrize("error", [FULL, StoreLocked("mesh.db is locked by another program")])
@pytest.mark.parametrize("after", [False, True])
async def test_what_must_not_be_lost_is_tried_again_as_it_is_until_it_is_recorded(
    error: StoreError, after: bool
) -> None:
    store = ScriptedStore(error, error, error, after=after)
    async with running(store) as committer:
        received = answers(committer, 3)
        await committer.drained()
        assert committer.trouble is None
    assert store.calls == [[0, 1, 2]] * 4
    assert set(received.values()) == {COMMITTED}


async def test_a_submission_is_given_up_at_once_when_the_database_cannot_be_written() -> None:
    store = ScriptedStore(FULL)
    async with running(store) as committer:
        with pytest.raises(StoreUnavailable, match="disk is full"):
            await committer.record(unit(0))
        await committer.room()  # nothing is tried again by itself, so the next one has to find out
        assert await committer.record(unit(1)) == COMMITTED
    assert store.recorded == [1]


async def test_submissions_are_refused_while_results_cannot_be_written_and_taken_again_afterwards() -> None:
    store = ScriptedStore(FULL, FULL, FULL, FULL)
    async with running(store) as committer:
        received = answers(committer, 4, may_fail=lambda n: n % 2 == 1)
        while not received:  # noqa: ASYNC110 - nothing tells of it, so it is looked for
            await asyncio.sleep(0)
        assert {number: str(answer) for number, answer in received.items()} == {1: str(FULL), 3: str(FULL)}
        assert committer.trouble is FULL
        with pytest.raises(StoreUnavailable, match="disk is full"):
            await committer.room()
        await committer.drained()
        await committer.room()
        assert await committer.record(unit(9)) == COMMITTED
    assert store.recorded == [0, 2, 9]
    assert received[0] == received[2] == COMMITTED


async def test_what_waits_behind_a_failed_batch_is_sorted_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committer_module, "BATCH_UNITS_MAX", 2)
    store = ScriptedStore(FULL, FULL)
    async with running(store) as committer:
        received = answers(committer, 8, may_fail=lambda n: n in (1, 4, 5))
        await committer.drained()
    assert store.recorded == [0, 2, 3, 6, 7]
    assert {n for n, answer in received.items() if isinstance(answer, StoreError)} == {1, 4, 5}


async def test_who_submits_faster_than_the_disk_writes_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committer_module, "WAITING_UNITS_MAX", 5)
    store = ScriptedStore()
    async with running(store) as committer:
        store.open.clear()
        answers(committer, 1)
        await store.called.wait()
        answers(committer, 5)
        assert committer.is_full
        submitter = asyncio.create_task(committer.room())
        await asyncio.sleep(0)
        assert not submitter.done()
        store.open.set()
        await submitter
        assert not committer.is_full


async def test_who_waits_for_room_is_told_when_the_database_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committer_module, "WAITING_UNITS_MAX", 5)
    monkeypatch.setattr(committer_module, "BATCH_UNITS_MAX", 1)
    store = ScriptedStore(FULL, FULL, FULL)
    async with running(store) as committer:
        store.open.clear()
        answers(committer, 6)
        submitter = asyncio.create_task(committer.room())
        await asyncio.sleep(0)
        store.open.set()
        with pytest.raises(StoreUnavailable):
            await submitter


async def test_closing_writes_what_waits_and_then_takes_nothing_more() -> None:
    store = ScriptedStore()
    committer = committer_on(store)
    committer.start()
    received = answers(committer, 3)
    await committer.close()
    assert store.recorded == [0, 1, 2]
    assert set(received.values()) == {COMMITTED}
    with pytest.raises(NotRunning):
        await committer.room()


async def test_a_unit_that_comes_after_the_end_is_told_so_and_nobody_waits_for_ever() -> None:
    store = ScriptedStore()
    committer = committer_on(store)
    committer.start()
    await committer.close()
    async with asyncio.timeout(5):
        with pytest.raises(NotRunning):
            await committer.record(unit(0))
    assert store.recorded == []


async def test_closing_gives_up_after_one_more_try_and_nothing_later_is_recorded_without_what_came_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(committer_module, "BATCH_UNITS_MAX", 2)
    store = ScriptedStore(FULL)
    committer = committer_on(store)
    committer.start()
    store.open.clear()
    received = answers(committer, 6)
    await store.called.wait()
    closing = asyncio.create_task(committer.close())
    await asyncio.sleep(0)
    store.open.set()
    await closing
    # the database could be written again right after: units 2 to 5 may rest on 0 and 1, so they are not recorded alone
    assert store.recorded == []
    assert [str(received[n]) for n in range(6)] == [str(FULL)] * 6
    assert committer.trouble is not None, "the end was not clean"


async def test_after_an_error_that_does_not_pass_all_that_waits_is_given_up_and_later_units_are_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(committer_module, "BATCH_UNITS_MAX", 2)
    broken = StoreCorrupt("mesh.db is damaged")
    store = ScriptedStore(broken)
    committer = committer_on(store)
    committer.start()
    received = answers(committer, 5)
    await committer.drained()
    assert store.recorded == []
    assert set(received.values()) == {broken}
    await committer.room()
    assert await committer.record(unit(9)) == COMMITTED
    await committer.close()
    assert committer.trouble is broken, "attempts were lost, so the next start must not take their numbers again"


async def test_who_no_longer_waits_for_an_answer_disturbs_nobody() -> None:
    store = ScriptedStore()
    async with running(store) as committer:
        store.open.clear()
        impatient = asyncio.create_task(committer.record(unit(0)))
        patient = asyncio.create_task(committer.record(unit(1)))
        await store.called.wait()
        impatient.cancel()
        await asyncio.sleep(0)
        store.open.set()
        assert await patient == COMMITTED
    assert store.recorded == [0, 1]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_under_random_faults_every_unit_is_answered_once_and_nothing_kept_is_lost_or_out_of_order(seed: int) -> None:
    dice = Random(seed)

    async def scenario() -> None:
        faults = [dice.choice((None, None, FULL)) for _ in range(60)]
        store = ScriptedStore(*faults, after=dice.random() < 0.5)
        received: dict[int, Any] = {}
        kept: list[int] = []
        async with running(store) as committer:
            for number in range(80):
                may_fail = dice.random() < 0.4
                if may_fail:
                    try:
                        await committer.room()
                    except StoreUnavailable as error:
                        received[number] = error
                        continue
                else:
                    kept.append(number)

                def done(answer: Any, number: int = number) -> None:
                    assert number not in received
                    received[number] = answer

                committer.put(unit(number), done, may_fail=may_fail)
                for _ in range(dice.choice((0, 0, 0, 1, 3))):
                    await asyncio.sleep(0)
            await committer.drained()
            assert committer.trouble is None
        assert sorted(received) == list(range(80))
        firsts = list(dict.fromkeys(store.recorded))
        assert [n for n in firsts if n in set(kept)] == kept
        for number, answer in received.items():
            if isinstance(answer, Committed):
                assert number in firsts
            else:
                assert number not in kept
                assert number not in firsts or store.after

    try:
        asyncio.run(scenario())
    except AssertionError as error:
        raise AssertionError(f"seed {seed}: {error}") from error


# --- what nobody expected -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [RuntimeError("a mistake of ours"), MemoryError(), SHORT, KeyError()])
async def test_whoever_waits_is_answered_whatever_goes_wrong_in_a_commit_and_the_next_one_is_written(
    error: Exception,
) -> None:
    store = ScriptedStore(error)
    background = Background(SystemClock())
    committer = committer_on(store, background)
    committer.start()
    async with asyncio.timeout(5):
        received = answers(committer, 3, may_fail=lambda n: n == 0)
        await committer.drained()
        assert {type(answer) for answer in received.values()} == {StoreError}
        assert len(received) == 3
        await committer.room()
        assert await committer.record(unit(9)) == COMMITTED
        await committer.close()
    assert background.faults["commits"].count == 1
    assert store.recorded == [9]


async def test_who_makes_a_mistake_when_he_is_told_keeps_nobody_else_from_being_told() -> None:
    store = ScriptedStore(None, FULL, StoreCorrupt("mesh.db is damaged"))
    background = Background(SystemClock())
    committer = committer_on(store, background)
    told: list[Any] = []

    def mistaken(answer: Any) -> None:
        raise LookupError("a mistake of ours")

    def room_made() -> None:
        raise LookupError("another one")

    def recorded(*_: object) -> None:
        raise LookupError("and another one")

    committer.room_made, committer.recorded = room_made, recorded
    committer.start()
    async with asyncio.timeout(5):
        for _ in range(3):  # well, tried again after the full disk and given up
            for number in range(2):
                committer.put(unit(number), mistaken, may_fail=number == 0)
            committer.put(unit(2), told.append)
            await committer.drained()
        assert await committer.record(unit(9)) == COMMITTED
        await committer.close()
    assert [type(each) for each in told] == [Committed, StoreCorrupt, Committed]
    assert background.faults["what follows a commit"].count == 6
    assert background.faults["what follows room for more"].count == 4
    assert background.faults["what is counted of commits"].count == 3


def test_ctrl_c_while_somebody_is_told_leaves_a_committer_that_writes_and_ends() -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    async def put_one(committer: Committer) -> None:
        committer.start()
        committer.put(unit(0), interrupted)
        await committer.drained()

    async def go_on(committer: Committer) -> None:
        assert await committer.record(unit(1)) == COMMITTED
        await committer.close()

    store = ScriptedStore()
    with asyncio.Runner() as runner:
        committer = committer_on(store)
        with pytest.raises(KeyboardInterrupt):
            runner.run(put_one(committer))
        runner.run(asyncio.wait_for(go_on(committer), 10))
    assert store.recorded == [0, 1]
