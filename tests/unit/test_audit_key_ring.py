"""The key that signs the log: made and replaced together with its entries, whatever fails in between."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from synergymesh.audit import key_ring
from synergymesh.audit.checkpoint_file import CheckpointFile
from synergymesh.audit.key_ring import KeyRing, next_key_file
from synergymesh.audit.keys import SigningKey, load, write_key
from synergymesh.audit.notes import Notes
from synergymesh.domain.actors import ENGINE
from synergymesh.domain.audit.forms import key_id
from synergymesh.errors import AuditKeyError, StoreError, StoreUnavailable
from synergymesh.ports.changes import Noted, Unit
from synergymesh.ports.clock import SystemClock
from synergymesh.ports.records import CommitResult, Committed, Refused


class Recorder:
    """Keep notes as the store does: each once; or fail."""

    def __init__(self) -> None:
        self.notes: dict[tuple[str, str, int], Noted] = {}
        self.fails = False
        self.refuses = False

    async def __call__(self, unit: Unit) -> CommitResult:
        if self.fails:
            raise StoreUnavailable("the disk is full")
        if self.refuses:
            return Refused("no")
        for change in unit:
            assert isinstance(change, Noted)
            self.notes.setdefault((change.action.value, change.entity, change.number), change)
        return Committed()

    @property
    def said(self) -> list[tuple[str, str]]:
        return [(action, entity) for action, entity, _ in self.notes]


class Died(BaseException):
    """The process ends here."""


def ring(directory: Path, recorder: Recorder) -> KeyRing:
    notes = Notes(recorder, lambda: ENGINE, SystemClock())
    return KeyRing(directory / "key.pem", CheckpointFile(directory / "checkpoints.jsonl"), notes, SystemClock())


def about_rotation(old: bytes, new: bytes) -> list[tuple[str, str]]:
    return [
        ("key.created", f"key/{key_id(new)}"),
        ("key.rotated", f"key/{key_id(new)}"),
        ("key.revoked", f"key/{key_id(old)}"),
    ]


async def test_a_key_is_made_on_first_use_and_that_is_recorded_once(tmp_path: Path) -> None:
    recorder = Recorder()
    key = await ring(tmp_path, recorder).key()
    assert recorder.said == [("key.created", f"key/{key.key_id}")]
    (noted,) = recorder.notes.values()
    assert msgspec.json.decode(noted.details) == {"public_key": key.public.hex()}
    assert (tmp_path / "key.pem").stat().st_mode & 0o777 == 0o600
    assert (await ring(tmp_path, recorder).key()).public == key.public
    assert len(recorder.notes) == 1
    assert not next_key_file(tmp_path / "key.pem").exists()


async def test_a_key_that_was_there_already_was_not_made(tmp_path: Path) -> None:
    recorder = Recorder()
    given = SigningKey.generate()
    write_key(tmp_path / "key.pem", given, replace=False)
    assert (await ring(tmp_path, recorder).key()).public == given.public
    assert recorder.said == []


@pytest.mark.parametrize("failure", ["fails", "refuses"])
async def test_a_key_is_not_used_before_it_is_recorded_that_it_was_made(tmp_path: Path, failure: str) -> None:
    recorder = Recorder()
    setattr(recorder, failure, True)
    keys = ring(tmp_path, recorder)
    with pytest.raises(StoreError):
        await keys.key()
    assert keys.present is None
    assert not (tmp_path / "key.pem").exists()
    setattr(recorder, failure, False)
    key = await keys.key()
    assert recorder.said == [("key.created", f"key/{key.key_id}")]
    assert load(tmp_path / "key.pem").public == key.public


async def test_a_rotation_makes_a_key_and_revokes_the_old_one_and_the_log_says_both(tmp_path: Path) -> None:
    recorder = Recorder()
    keys = ring(tmp_path, recorder)
    old = (await keys.key()).public
    recorder.notes.clear()
    link = await keys.rotate("log-1", None)
    assert (link.old, link.new) == (old, load(tmp_path / "key.pem").public)
    assert recorder.said == about_rotation(link.old, link.new)
    assert (await keys.key()).public == link.new


async def test_a_rotation_that_cannot_be_recorded_is_recorded_before_anything_is_signed_again(tmp_path: Path) -> None:
    recorder = Recorder()
    keys = ring(tmp_path, recorder)
    old = (await keys.key()).public
    recorder.notes.clear()
    recorder.fails = True
    for attempt in (keys.rotate("log-1", None), keys.key()):
        with pytest.raises(StoreError, match="disk is full"):
            await attempt
    recorder.fails = False
    (link,) = CheckpointFile(tmp_path / "checkpoints.jsonl").links()
    assert (await keys.key()).public == link.link.new
    assert recorder.said == about_rotation(old, link.link.new)


@pytest.mark.parametrize("point", ["before the link", "before the entry", "before its place", "after its place"])
async def test_a_rotation_that_a_crash_interrupted_is_finished_and_recorded_or_undone(
    tmp_path: Path, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder()
    keys = ring(tmp_path, recorder)
    old = (await keys.key()).public
    recorder.notes.clear()

    def die(*_: object, **__: object) -> None:
        raise Died

    async def die_soon(*_: object) -> None:
        raise Died

    match point:
        case "before the link":
            monkeypatch.setattr(CheckpointFile, "append", die)
        case "before the entry":
            monkeypatch.setattr(Notes, "record", die_soon)
        case "before its place":
            monkeypatch.setattr(KeyRing, "_put_in_place", die)
        case "after its place":
            monkeypatch.setattr(key_ring, "sync_directory", die)
    with pytest.raises(Died):
        await keys.rotate("log-1", None)
    monkeypatch.undo()
    key = await ring(tmp_path, recorder).key()
    if point == "before the link":
        assert key.public == old
        assert recorder.said == []
    else:
        assert key.public != old
        assert recorder.said == about_rotation(old, key.public)
    assert load(tmp_path / "key.pem").public == key.public
    assert not next_key_file(tmp_path / "key.pem").exists()


@pytest.mark.parametrize("point", ["before the entry", "before its place", "after its place"])
async def test_making_a_key_that_a_crash_interrupted_is_finished_and_recorded(
    tmp_path: Path, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder()

    def die(*_: object, **__: object) -> None:
        raise Died

    async def die_soon(*_: object) -> None:
        raise Died

    match point:
        case "before the entry":
            monkeypatch.setattr(Notes, "record", die_soon)
        case "before its place":
            monkeypatch.setattr(KeyRing, "_put_in_place", die)
        case "after its place":
            monkeypatch.setattr(Path, "unlink", die)
    with pytest.raises(Died):
        await ring(tmp_path, recorder).key()
    monkeypatch.undo()
    key = await ring(tmp_path, recorder).key()
    assert recorder.said == [("key.created", f"key/{key.key_id}")]
    assert load(tmp_path / "key.pem").public == key.public
    assert not next_key_file(tmp_path / "key.pem").exists()


async def test_a_key_that_is_kept_in_memory_is_recorded_and_cannot_be_replaced() -> None:
    recorder = Recorder()
    keys = KeyRing(None, None, Notes(recorder, lambda: ENGINE, SystemClock()), SystemClock())
    key = await keys.key()
    assert await keys.key() is key
    assert recorder.said == [("key.created", f"key/{key.key_id}")]
    with pytest.raises(AuditKeyError, match="in memory"):
        await keys.rotate("log-1", None)


async def test_a_key_file_in_a_place_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key.pem.next").mkdir()
    with pytest.raises(AuditKeyError, match=r"key\.pem"):
        await ring(tmp_path, Recorder()).key()
