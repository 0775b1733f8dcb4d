"""Checkpoints go to sinks: in order, each at least once, and a sink that fails disturbs nobody."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from synergymesh.audit.checkpoint_file import CheckpointFile
from synergymesh.audit.checkpoints import Checkpoints
from synergymesh.audit.key_ring import KeyRing
from synergymesh.audit.keys import SigningKey, load, verify_signature, write_key
from synergymesh.audit.notes import Notes
from synergymesh.audit.sinks import SINKS_MAX, CommandSink, DirectorySink, Follower, read_sinks
from synergymesh.audit.verify import read_checkpoint_lines
from synergymesh.domain.actors import ENGINE
from synergymesh.domain.audit.trust import Trust, verify_checkpoints
from synergymesh.errors import AuditKeyError, InvalidRequest
from synergymesh.ports.audit import AuditHeadRecord
from synergymesh.ports.changes import Unit
from synergymesh.ports.clock import SystemClock
from synergymesh.ports.records import CommitResult, Committed

SECONDS = 20.0


class Heads:
    """A log that has only heads."""

    def __init__(self) -> None:
        self.heads: dict[str, int] = {}

    async def get_audit_log_id(self) -> str:
        return "log-1"

    async def list_audit_heads(self) -> list[AuditHeadRecord]:
        return [AuditHeadRecord(tenant, seq, bytes([seq]) * 32) for tenant, seq in self.heads.items()]


async def recorded(unit: Unit) -> CommitResult:
    return Committed()


def checkpoints(heads: Heads, directory: Path, **more: Any) -> Checkpoints:
    given: dict[str, Any] = {"interval_seconds": 60.0, "interval_units": 10, "written": lambda: 0} | more
    file = CheckpointFile(directory / "checkpoints.jsonl")
    notes = Notes(recorded, lambda: ENGINE, SystemClock())
    keys = KeyRing(directory / "key.pem", file, notes, SystemClock())
    return Checkpoints(heads, file, keys, SystemClock(), **given)


def intact(lines: list[bytes], key: bytes) -> bool:
    return verify_checkpoints(lines, Trust([key], verify_signature)).findings == []


async def test_a_checkpoint_is_written_when_a_head_has_changed_and_only_then(tmp_path: Path) -> None:
    heads = Heads()
    made = checkpoints(heads, tmp_path)
    assert await made.write() is None
    heads.heads = {"": 1, "a": 2}
    first = await made.write()
    assert first is not None
    assert await made.write() is None
    heads.heads = {"": 1, "a": 3, "b": 1}
    second = await made.write()
    assert second is not None
    assert (second.number, second.entries, second.heads) == (2, 5, 3)
    assert second.previous == first.hash()
    again = checkpoints(heads, tmp_path)
    assert await again.write() is None, "another process has nothing to add"
    heads.heads = {"": 2}
    third = await again.write()
    assert third is not None
    assert third.number == 3
    key = load(tmp_path / "key.pem").public
    assert made.file is not None
    assert intact([line for _, line in made.file.lines()], key)


async def test_a_checkpoint_is_due_after_so_many_units_or_so_much_time(tmp_path: Path) -> None:
    heads = Heads()
    heads.heads = {"": 1}
    units = 0
    made = checkpoints(heads, tmp_path, written=lambda: units)
    await made.tick()
    assert made.last is None
    units = 10
    await made.tick()
    assert made.last is not None


async def test_trouble_with_the_key_is_kept_and_ends(tmp_path: Path) -> None:
    heads = Heads()
    heads.heads = {"": 1}
    write_key(tmp_path / "key.pem", SigningKey.generate(), replace=False)
    (tmp_path / "key.pem").chmod(0o644)
    made = checkpoints(heads, tmp_path)
    await made.write_if_possible()
    assert made.trouble is not None
    (tmp_path / "key.pem").chmod(0o600)
    await made.write_if_possible()
    assert made.trouble is None
    assert made.last is not None


@pytest.mark.parametrize(
    "garbage", [b"x\n", b"\xff\x00\n", b"{}\n", b"[1]\n", b'{"checkpoint":7,"heads":[]}\n', b"\n", b"torn"]
)
async def test_a_line_that_is_no_record_keeps_nothing_from_being_signed_and_delivered(
    tmp_path: Path, garbage: bytes
) -> None:
    file = await publish(tmp_path, 2)
    good = [line for _, line in file.lines()]
    with file.path.open("ab") as end:
        end.write(garbage)
    heads = Heads()
    heads.heads = {"": 3}
    made = checkpoints(heads, tmp_path)
    await made.write_if_possible()
    assert made.trouble is None
    assert made.last is not None
    assert made.last.number == 3
    lines = [line for _, line in file.lines()]
    assert lines[:2] == good
    assert intact([*good, lines[-1]], load(tmp_path / "key.pem").public), "it follows the last good one"
    target = tmp_path / "elsewhere"
    target.mkdir()
    follower = Follower(file, DirectorySink(target))
    follower.start()
    follower.close()
    assert follower.failures == 0
    assert read_checkpoint_lines(target) == [*good, lines[-1]]


async def test_checkpoints_of_another_log_are_not_continued(tmp_path: Path) -> None:
    heads = Heads()
    heads.heads = {"": 1}
    made = checkpoints(heads, tmp_path)
    await made.write()

    class Other(Heads):
        async def get_audit_log_id(self) -> str:
            return "log-2"

    other = Other()
    other.heads = {"": 2}
    with pytest.raises(AuditKeyError, match="another log"):
        await checkpoints(other, tmp_path).write()


async def test_after_a_rotation_the_old_key_vouches_for_what_the_new_one_signs(tmp_path: Path) -> None:
    heads = Heads()
    heads.heads = {"": 1}
    made = checkpoints(heads, tmp_path)
    await made.write()
    old = load(tmp_path / "key.pem").public
    await made.rotate()
    heads.heads = {"": 2}
    await made.write()
    new = load(tmp_path / "key.pem").public
    assert new != old
    assert made.public_keys() == [old, new]
    for key in (old, new):
        assert intact(list(made.lines()), key)


async def publish(directory: Path, count: int) -> CheckpointFile:
    heads = Heads()
    made = checkpoints(heads, directory)
    for number in range(1, count + 1):
        heads.heads = {"": number}
        await made.write()
    assert made.file is not None
    return made.file


class Broken:
    """A sink that fails so many times."""

    name = "broken"

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.lines: list[bytes] = []
        self.tried = threading.Semaphore(0)
        self.done = threading.Event()

    def deliver(self, line: bytes) -> None:
        self.tried.release()
        if self.failures:
            self.failures -= 1
            raise OSError("no room")
        self.lines.append(line)
        self.done.set()


async def test_a_sink_that_fails_gets_everything_in_order_once_it_works(tmp_path: Path) -> None:
    file = await publish(tmp_path, 3)
    sink = Broken(2)
    follower = Follower(file, sink, retry_seconds=(0.01,))
    follower.start()
    assert sink.done.wait(SECONDS)
    follower.close()
    assert sink.lines == [line for _, line in file.lines()]
    assert follower.failures == 0


async def test_a_sink_goes_on_behind_what_it_has_also_after_a_restart(tmp_path: Path) -> None:
    file = await publish(tmp_path, 2)
    first = Broken(0)
    follower = Follower(file, first)
    follower.start()
    follower.close()
    assert len(first.lines) == 2
    key = load(tmp_path / "key.pem")
    assert key is not None
    file.append(first.lines[0])
    second = Broken(0)
    follower = Follower(file, second)
    follower.start()
    follower.close()
    assert second.lines == [first.lines[0]]


async def test_an_end_does_not_wait_for_a_sink_that_does_not_work(tmp_path: Path) -> None:
    file = await publish(tmp_path, 1)
    sink = Broken(10**9)
    follower = Follower(file, sink, retry_seconds=(3_600.0,))
    follower.start()
    assert sink.tried.acquire(timeout=SECONDS)
    follower.close(SECONDS)
    assert follower._thread is not None
    assert not follower._thread.is_alive()
    assert sink.lines == []


async def test_a_directory_has_a_file_for_each_checkpoint_that_is_never_overwritten(tmp_path: Path) -> None:
    file = await publish(tmp_path, 3)
    target = tmp_path / "elsewhere"
    target.mkdir()
    sink = DirectorySink(target)
    lines = [line for _, line in file.lines()]
    for line in [*lines, *lines]:
        sink.deliver(line)
    assert sorted(path.name for path in target.iterdir()) == [f"checkpoint-{n:012}.json" for n in (1, 2, 3)]
    assert read_checkpoint_lines(target) == lines
    assert intact(read_checkpoint_lines(target), load(tmp_path / "key.pem").public)
    sink.deliver(lines[0].replace(b'"entries":1', b'"entries":2'))
    assert len(list(target.iterdir())) == 4
    with pytest.raises(OSError, match="No such file"):
        DirectorySink(tmp_path / "nowhere").deliver(lines[0])


async def test_a_command_gets_each_line_on_its_standard_input(tmp_path: Path) -> None:
    file = await publish(tmp_path, 2)
    out = tmp_path / "out with space"
    script = "import sys; open(sys.argv[1], 'ab').write(sys.stdin.buffer.read())"
    sink = CommandSink(f"{sys.executable} -c \"{script}\" '{out}'")
    for _, line in file.lines():
        sink.deliver(line)
    assert out.read_bytes() == file.path.read_bytes()
    with pytest.raises(OSError, match="ended with 3"):
        CommandSink(f"{sys.executable} -c 'raise SystemExit(3)'").deliver(b"{}")
    with pytest.raises(OSError, match="No such file"):
        CommandSink("/nowhere/program").deliver(b"{}")


@pytest.mark.parametrize("text", ["", "directory:", "command:", "mail:x", "command:'", "/tmp"])
def test_what_is_no_sink_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="audit_sinks"):
        read_sinks([text])


def test_there_may_be_so_many_sinks_and_not_one_more() -> None:
    assert len(read_sinks(["directory:x"] * SINKS_MAX)) == SINKS_MAX
    with pytest.raises(InvalidRequest, match="limit"):
        read_sinks(["directory:x"] * (SINKS_MAX + 1))
