"""What an attempt prints and logs, in bounded space: its first lines and its last ones."""

from __future__ import annotations

from collections import deque

import msgspec

from synergymesh.domain.instants import Instant

HEAD_CHARACTERS_MAX = 16_000
TAIL_CHARACTERS_MAX = 48_000
"""Of one attempt: how it began, and what it did before its end; together no more than a recorded result may have."""

LINE_CHARACTERS_MAX = 8_000
"""A longer line is shortened: one of them must not be all that is kept."""

LINE_COST = 50
"""Characters that a line counts for besides its text, so that empty lines are bounded too."""


LINES_MAX = 2 * (TAIL_CHARACTERS_MAX // LINE_COST + 1)
"""Of one write: half of so many lines fill whatever is kept, however short they are."""


GAP_SOURCE = "synergymesh"
"""Where the line comes from that stands for those which are not kept."""


class OutputLine(msgspec.Struct, frozen=True, gc=False):
    """Hold a line: when it was written, where (`stdout`, `stderr`, or the level of a log record), and its text."""

    at: Instant
    source: str
    text: str


class CapturedOutput:
    """Collect lines; what lies between the first and the last ones is dropped and counted.

    Attributes:
        dropped: lines.
    """

    __slots__ = ("_head", "_head_left", "_open", "_tail", "_tail_left", "dropped")

    def __init__(self) -> None:
        self.dropped = 0
        self._head: list[OutputLine] = []
        self._head_left = HEAD_CHARACTERS_MAX
        self._tail: deque[OutputLine] = deque()
        self._tail_left = TAIL_CHARACTERS_MAX
        self._open: dict[str, str] = {}

    def write(self, source: str, text: str, at: Instant) -> None:
        """Take text as it is printed: a line counts once it is ended, or long enough."""
        *lines, rest = (self._open.pop(source, "") + text).split("\n")
        if len(rest) > LINE_CHARACTERS_MAX:
            starts = range(0, len(rest) - LINE_CHARACTERS_MAX, LINE_CHARACTERS_MAX)
            lines += [rest[start : start + LINE_CHARACTERS_MAX] for start in starts]
            rest = rest[starts[-1] + LINE_CHARACTERS_MAX :]
        if len(lines) > LINES_MAX:
            # the event loop may be waiting: what lies in the middle of so many lines is counted without being looked at
            kept = LINES_MAX // 2
            for line in lines[:kept]:
                self.add(source, line, at)
            self.dropped += len(lines) - 2 * kept
            lines = lines[-kept:]
        for line in lines:
            self.add(source, line, at)
        if rest:
            self._open[source] = rest

    def add(self, source: str, text: str, at: Instant) -> None:
        """Take a whole line."""
        if len(text) > LINE_CHARACTERS_MAX:
            text = f"{text[: LINE_CHARACTERS_MAX - 1]}…"
        line = OutputLine(at, source, _storable(text))
        cost = len(line.text) + LINE_COST
        if not self._tail and cost <= self._head_left:
            self._head.append(line)
            self._head_left -= cost
            return
        self._head_left = 0
        self._tail.append(line)
        self._tail_left -= cost
        while self._tail_left < 0:
            self._tail_left += len(self._tail.popleft().text) + LINE_COST
            self.dropped += 1

    def lines(self, at: Instant) -> list[OutputLine]:
        """Give the lines that are kept, and where some are missing a line that says so.

        Lines that are not ended yet count as written at `at`.
        """
        open_lines = [OutputLine(at, source, _storable(text)) for source, text in self._open.items()]
        gap = []
        if self.dropped:
            since = self._tail[0].at if self._tail else at
            gap = [OutputLine(since, GAP_SOURCE, f"({self.dropped:,} lines were not kept)")]
        return [*self._head, *gap, *self._tail, *open_lines]


def _storable(text: str) -> str:
    """Replace what no database stores: NUL and lone surrogates."""
    return text.replace("\0", "\N{SYMBOL FOR NULL}").encode("utf-8", "backslashreplace").decode()
