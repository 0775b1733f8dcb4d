"""The file outside the database that checkpoints are appended to, one line each."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from synergymesh.audit.keys import sync_directory
from synergymesh.domain.audit.trust import SignedCheckpoint, SignedLink, read_record

_BLOCK = 1 << 16


class CheckpointFile:
    """Append lines durably, and read them."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, line: bytes) -> int:
        """Append a line and wait until it is on the disk; give the size of the file then.

        A line that a crash has cut off is removed first.

        Raises:
            OSError: it cannot be written.
        """
        is_new = not self.path.exists()
        if is_new:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            end = _end_of_whole_lines(descriptor)
            if end != os.fstat(descriptor).st_size:
                os.ftruncate(descriptor, end)
            os.lseek(descriptor, end, os.SEEK_SET)
            rest = memoryview(line + b"\n")
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
            size = os.lseek(descriptor, 0, os.SEEK_CUR)
        finally:
            os.close(descriptor)
        if is_new:
            sync_directory(self.path.parent)
        return size

    def lines(self, offset: int = 0) -> Iterator[tuple[int, bytes]]:
        """Give the whole lines from an offset on, each with the offset behind it; none when there is no file."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        with file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                offset += len(line)
                yield offset, line[:-1]

    def last_checkpoint(self) -> SignedCheckpoint | None:
        """Give the newest checkpoint; None when there is none.

        Lines that are no record are stepped over: they must not keep new checkpoints from being written behind them.
        `verify` reports them.
        """
        for line in self._lines_from_the_end():
            with contextlib.suppress(ValueError):
                record = read_record(line)
                if isinstance(record, SignedCheckpoint):
                    return record
        return None

    def check_end(self) -> None:
        """Look at the newest line.

        Raises:
            ValueError: it is no record.
        """
        for line in self._lines_from_the_end():
            read_record(line)
            return

    def links(self) -> list[SignedLink]:
        """Give all links between keys, oldest first; lines that are no record are left out."""
        found = []
        for _, line in self.lines():
            if b'"key_link"' in line:
                try:
                    record = read_record(line)
                except ValueError:
                    continue
                if isinstance(record, SignedLink):
                    found.append(record)
        return found

    def _lines_from_the_end(self) -> Iterator[bytes]:
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        with file:
            end = _end_of_whole_lines(file.fileno())
            rest = b""
            while end > 0:
                start = max(0, end - _BLOCK)
                rest = os.pread(file.fileno(), end - start, start) + rest
                end = start
                pieces = rest.split(b"\n")
                for piece in reversed(pieces[1:]):
                    if piece:
                        yield piece
                rest = pieces[0]
            if rest:
                yield rest


def _end_of_whole_lines(descriptor: int) -> int:
    """Give the offset behind the last line end."""
    end = os.fstat(descriptor).st_size
    while end > 0:
        start = max(0, end - _BLOCK)
        place = os.pread(descriptor, end - start, start).rfind(b"\n")
        if place >= 0:
            return start + place + 1
        end = start
    return 0
