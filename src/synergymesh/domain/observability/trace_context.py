"""The trace context of a caller, in the form of W3C Trace Context: what a run keeps to stay in its caller's trace."""

from __future__ import annotations

import re
from typing import NamedTuple

_FORM = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


class TraceParent(NamedTuple):
    """Name a span of a trace; `str()` gives it as a `traceparent` of version 00.

    Attributes:
        trace_id: 128 bits, not 0.
        span_id: 64 bits, not 0.
        flags: 8 bits; the lowest one says that the trace is recorded.
    """

    trace_id: int
    span_id: int
    flags: int

    def __str__(self) -> str:
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{self.flags:02x}"


def read_traceparent(text: str) -> TraceParent | None:
    """Read a `traceparent` of version 00; None if it is none (W3C Trace Context, section 3.2)."""
    found = _FORM.fullmatch(text)
    if found is None:
        return None
    read = TraceParent(*(int(part, 16) for part in found.groups()))
    return read if read.trace_id and read.span_id else None
