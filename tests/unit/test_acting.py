"""On whose account something is recorded."""

import asyncio
import os
import pwd
from typing import Any

import pytest

from synergymesh import Actor, Orchestrator
from synergymesh.domain.actors import ACTOR_TEXT_MAX
from synergymesh.engine.acting import ActingAs, current_actor, process_actor
from synergymesh.errors import InvalidRequest

ALICE = Actor(type="user", id="alice")
BOB = Actor(type="service", id="bob", source="http")


def test_without_a_context_the_system_user_of_the_process_acts() -> None:
    assert current_actor() == Actor(type="user", id=pwd.getpwuid(os.geteuid()).pw_name, source="process")


def test_a_user_without_a_name_acts_under_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 2**30)
    process_actor.cache_clear()
    assert process_actor("cli") == Actor(type="user", id=str(2**30), source="cli")
    process_actor.cache_clear()


def test_contexts_are_nested_and_end() -> None:
    with ActingAs(ALICE) as acting:
        assert current_actor() is ALICE
        with ActingAs(BOB), acting:
            assert current_actor() is ALICE
        assert current_actor() is ALICE
    assert current_actor() == process_actor()


async def test_two_tasks_act_each_for_itself() -> None:
    async def act(actor: Actor) -> Actor:
        async with Orchestrator(":memory:").acting_as(actor):
            await asyncio.sleep(0)
            return current_actor()

    assert await asyncio.gather(act(ALICE), act(BOB)) == [ALICE, BOB]
    assert current_actor() == process_actor()


def test_a_context_that_fails_ends_too() -> None:
    with pytest.raises(ZeroDivisionError), ActingAs(ALICE):
        raise ZeroDivisionError
    assert current_actor() == process_actor()


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"type": "robot"}, "type"),
        ({"id": ""}, "id"),
        ({"id": None}, "id"),
        ({"id": "x" * (ACTOR_TEXT_MAX + 1)}, "id"),
        ({"source": "line\nbreak"}, "source"),
        ({"request_id": "\x1b[31m"}, "request_id"),
        ({"on_behalf_of": 7}, "on_behalf_of"),
    ],
)
def test_what_cannot_be_recorded_is_refused(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest, match=field) as error:
        Actor(**({"type": "user", "id": "x" * ACTOR_TEXT_MAX} | fields))
    assert error.value.field == field


def test_only_an_actor_acts() -> None:
    with pytest.raises(InvalidRequest, match="actor must be an Actor"):
        Orchestrator(":memory:").acting_as("alice")  # type: ignore[arg-type]  # on purpose
