"""A `traceparent` is what W3C Trace Context says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synergymesh.domain.observability.trace_context import TraceParent, read_traceparent

WHOLE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.integers(0, 255))
def test_what_is_written_is_read_again(trace_id: int, span_id: int, flags: int) -> None:
    written = str(TraceParent(trace_id, span_id, flags))
    assert len(written) == 55
    assert read_traceparent(written) == (trace_id, span_id, flags)


@given(st.text(max_size=60) | st.from_regex(r"[0-9a-fA-F]{2}-[0-9a-f]{31,33}-[0-9a-f]{15,17}-[0-9a-f]{1,3}"))
def test_what_is_read_is_written_in_the_same_way(text: str) -> None:
    read = read_traceparent(text)
    assert read is None or str(read) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        WHOLE.upper(),
        WHOLE + "\n",
        WHOLE + "-more",
        WHOLE.replace("00-", "01-", 1),
        WHOLE.replace("00-", "ff-", 1),
        "00-" + "0" * 32 + "-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-" + "0" * 16 + "-01",
        WHOLE.replace("a", "٣", 1),
    ],
)
def test_what_names_no_span_is_refused(text: str) -> None:
    assert read_traceparent(WHOLE) is not None
    assert read_traceparent(text) is None
