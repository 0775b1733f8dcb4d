"""Where checkpoints go beside their file: directories and commands, each followed by a thread of its own.

The file of checkpoints is the queue: a sink remembers how far it came, so that one that fails falls behind and costs
neither memory nor the engine's time, and goes on where it stopped, also after a restart. Every line is delivered at
least once.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from synergymesh.audit.checkpoint_file import CheckpointFile
from synergymesh.audit.keys import sync_directory
from synergymesh.domain.audit.trust import SignedCheckpoint, read_record
from synergymesh.domain.instants import Instant
from synergymesh.errors import InvalidRequest
from synergymesh.logs import Log

RETRY_SECONDS = (1.0, 2.0, 5.0, 15.0, 60.0)
"""Pauses after failures; the last one again and again."""

COMMAND_SECONDS_MAX = 30.0
"""A command that takes longer is killed and tried again: it may hang on a network that does not answer."""

CLOSE_SECONDS = 5.0
"""How long an end waits for what is not delivered yet; the rest goes out after the next start."""

OUTPUT_SHOWN_MAX = 300

SINKS_MAX = 16
"""Each has a thread."""

log = Log("synergymesh.audit")


class Sink(Protocol):
    """Take published lines."""

    name: str

    def deliver(self, line: bytes) -> None:
        """Keep a line; it may come again.

        Raises:
            OSError: it could not be kept now.
        """
        ...


class DirectorySink:
    """Write each line into a file of its own, `checkpoint-000000000012.json`, which is never changed afterwards."""

    def __init__(self, path: Path) -> None:
        self.name = f"directory:{path}"
        self._path = path

    def deliver(self, line: bytes) -> None:
        """Write the file, durably, unless it is there with the same content; a line that is no record is left out."""
        try:
            record = read_record(line)
        except ValueError as error:
            log.warning("a line of the checkpoints is no record and is not delivered", sink=self.name, error=str(error))
            return
        if isinstance(record, SignedCheckpoint):
            target = self._path / f"checkpoint-{record.checkpoint.number:012}.json"
        else:
            target = self._path / f"key-link-{record.link.at:020}.json"
        content = line + b"\n"
        if target.exists():
            if target.read_bytes() == content:
                return
            # What was published stays: the second one is evidence too.
            target = target.with_stem(f"{target.stem}-{secrets.token_hex(4)}")
        scratch = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        try:
            with scratch.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            scratch.replace(target)
        finally:
            scratch.unlink(missing_ok=True)
        sync_directory(self._path)


class CommandSink:
    """Give each line to a command on its standard input; no shell is between.

    Raises:
        ValueError: the command cannot be split into arguments.
    """

    def __init__(self, command: str) -> None:
        self.name = f"command:{command}"
        self._arguments = shlex.split(command)
        self.program = self._arguments[0] if self._arguments else ""

    def deliver(self, line: bytes) -> None:
        """Run the command, which has to end with 0."""
        try:
            done = subprocess.run(
                self._arguments,
                input=line + b"\n",
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=COMMAND_SECONDS_MAX,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise OSError(f"it took longer than {COMMAND_SECONDS_MAX:g} seconds") from None
        if done.returncode != 0:
            said = done.stdout.decode(errors="replace")[-OUTPUT_SHOWN_MAX:]
            raise OSError(f"it ended with {done.returncode}: {said!r}")


def read_sinks(texts: Sequence[str]) -> list[Sink]:
    """Read sinks as settings name them: `directory:PATH` or `command:PROGRAM ARGUMENTS`.

    Raises:
        InvalidRequest: one is neither, or there are too many.
    """
    if len(texts) > SINKS_MAX:
        raise InvalidRequest(f"audit_sinks has {len(texts)} sinks, the limit is {SINKS_MAX}.", field="audit_sinks")
    return [_read_sink(text) for text in texts]


def _read_sink(text: str) -> Sink:
    kind, _, rest = text.partition(":")
    try:
        if kind == "directory" and rest:
            return DirectorySink(Path(rest))
        if kind == "command" and shlex.split(rest):
            return CommandSink(rest)
    except ValueError as error:
        raise InvalidRequest(
            f"audit_sinks: {text!r} cannot be split into arguments: {error}.", field="audit_sinks"
        ) from None
    raise InvalidRequest(
        f"audit_sinks must be directory:PATH or command:PROGRAM ARGUMENTS, not {text!r}.", field="audit_sinks"
    )


class Follower:
    """Deliver the lines of a checkpoint file to one sink, in order, in a daemon thread.

    Attributes:
        delivered: the offset behind the last line that the sink has.
        failures: how often delivering the next line has failed in a row.
    """

    def __init__(self, file: CheckpointFile, sink: Sink, retry_seconds: Sequence[float] = RETRY_SECONDS) -> None:
        self._file = file
        self._sink = sink
        self._retry_seconds = retry_seconds
        self._place = file.path.with_name(f"{file.path.name}.{_slug(sink.name)}.delivered")
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self.delivered = self._read_place()
        self.failures = 0

    @property
    def name(self) -> str:
        """Give the sink as the setting says it."""
        return self._sink.name

    def waiting_bytes(self) -> int:
        """Give the size of the lines that the sink does not have yet."""
        size = self._size()
        return size - self.delivered if size >= self.delivered else size

    def waiting_since(self) -> Instant | None:
        """Give when the oldest line that the sink does not have was published; None if it has all of them."""
        waiting = self.waiting_bytes()
        if not waiting:
            return None
        for _, line in self._file.lines(self._size() - waiting):
            try:
                record = read_record(line)
            except ValueError:
                continue
            return record.checkpoint.at if isinstance(record, SignedCheckpoint) else record.link.at
        return None

    def _size(self) -> int:
        try:
            return self._file.path.stat().st_size
        except OSError:
            return 0

    def start(self) -> None:
        """Begin, with what is not delivered yet."""
        self._wake.set()
        self._thread = threading.Thread(target=self._follow, name=f"synergymesh-{self._sink.name[:40]}", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Say that there is something new."""
        self._wake.set()

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Deliver what is left once more, as far as it goes, and end."""
        self._closing.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(seconds)

    def _follow(self) -> None:
        while True:
            self._wake.wait()
            closing = self._closing.is_set()
            self._wake.clear()
            try:
                self._deliver_all()
            except Exception as error:  # a sink is a stranger's program; whatever it does, the engine goes on
                self.failures += 1
                if self.failures == 1:
                    log.warning(
                        "a checkpoint could not be delivered; tried again", sink=self._sink.name, error=str(error)
                    )
                if closing:
                    return
                pause = self._retry_seconds[min(self.failures, len(self._retry_seconds)) - 1]
                self._closing.wait(pause)
                self._wake.set()
                continue
            if closing:
                return

    def _deliver_all(self) -> None:
        deadline = time.monotonic() + CLOSE_SECONDS
        if not self._file.path.exists() or self._file.path.stat().st_size < self.delivered:
            self.delivered = 0  # a new file took its place
        for offset, line in self._file.lines(self.delivered):
            self._sink.deliver(line)
            if self.failures:
                log.info("checkpoints are delivered again", sink=self._sink.name)
                self.failures = 0
            self.delivered = offset
            self._write_place()
            if self._closing.is_set() and time.monotonic() > deadline:
                return

    def _read_place(self) -> int:
        try:
            value = json.loads(self._place.read_bytes())
        except (OSError, ValueError):
            return 0
        return value if isinstance(value, int) and value >= 0 else 0

    def _write_place(self) -> None:
        scratch = self._place.with_name(f"{self._place.name}.new")
        scratch.write_text(str(self.delivered))
        scratch.replace(self._place)


def _slug(name: str) -> str:
    from hashlib import sha256

    return sha256(name.encode()).hexdigest()[:12]
