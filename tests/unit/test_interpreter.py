"""The settings of the interpreter are changed while orchestrators are open, and only those that nobody else changed."""

import gc
import sys
from collections.abc import Iterator

import pytest

from synergymesh import Orchestrator, orchestrator
from synergymesh.interpreter import COLLECT_AFTER, SWITCH_SECONDS, _Interpreter
from synergymesh.settings import Settings


@pytest.fixture
def interpreter(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Interpreter]:
    """Give a counter of its own on an interpreter as it begins, and leave the interpreter as it was."""
    threshold, seconds = gc.get_threshold(), sys.getswitchinterval()
    gc.set_threshold(700, 10, 10)
    sys.setswitchinterval(0.005)
    fresh = _Interpreter()
    monkeypatch.setattr(orchestrator, "INTERPRETER", fresh)
    yield fresh
    gc.set_threshold(*threshold)
    sys.setswitchinterval(seconds)


def _now() -> tuple[float, int]:
    return round(sys.getswitchinterval(), 6), gc.get_threshold()[0]


DEFAULT = (0.005, 700)
ADJUSTED = (SWITCH_SECONDS, COLLECT_AFTER)


async def test_open_orchestrators_adjust_the_interpreter_until_the_last_is_closed(interpreter: _Interpreter) -> None:
    async with Orchestrator(":memory:"):
        async with Orchestrator(":memory:"):
            assert _now() == ADJUSTED
        assert _now() == ADJUSTED
    assert _now() == DEFAULT


async def test_an_orchestrator_that_cannot_start_leaves_the_interpreter_as_it_was(
    interpreter: _Interpreter, monkeypatch: pytest.MonkeyPatch
) -> None:
    mesh = Orchestrator(":memory:")

    async def fails(*_: object) -> None:
        assert _now() == ADJUSTED
        raise OSError("no")

    monkeypatch.setattr(mesh._database, "begin_incarnation", fails)
    with pytest.raises(OSError, match="no"):
        await mesh.start()
    assert _now() == DEFAULT


async def test_the_setting_keeps_it_from_being_touched(interpreter: _Interpreter) -> None:
    async with Orchestrator(":memory:", settings=Settings(adjust_interpreter=False)):
        assert _now() == DEFAULT


def test_what_the_program_has_set_itself_is_left_alone(interpreter: _Interpreter) -> None:
    gc.set_threshold(50_000, 20, 30)
    sys.setswitchinterval(0.002)
    interpreter.adjust()
    assert _now() == (0.002, 50_000)
    interpreter.set_back()
    assert _now() == (0.002, 50_000)
    assert gc.get_threshold() == (50_000, 20, 30)


def test_what_the_program_sets_meanwhile_stays(interpreter: _Interpreter) -> None:
    interpreter.adjust()
    gc.set_threshold(0)
    sys.setswitchinterval(0.02)
    interpreter.set_back()
    assert _now() == (0.02, 0)


def test_only_the_youngest_generation_is_changed(interpreter: _Interpreter) -> None:
    gc.set_threshold(700, 7, 8)
    interpreter.adjust()
    assert gc.get_threshold() == (COLLECT_AFTER, 7, 8)
    interpreter.set_back()
    assert gc.get_threshold() == (700, 7, 8)
