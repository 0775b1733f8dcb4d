"""Histograms of durations in few buckets: eight per power of two, so that a percentile is right within 6 %.

The idea is that of HdrHistogram (Gil Tene): a bucket is named by the position of the highest bit and the bits that
follow it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

BITS = 3
"""Bits after the highest one: 2**3 buckets per power of two, each an eighth wide; half of that is the error."""

_SMALLEST_SPLIT = 1 << BITS
VALUE_MAX = 1 << 52
"""142 years in microseconds; what is longer counts as this."""


def bucket_of(microseconds: int) -> int:
    """Give the bucket of a duration; a negative one, from a clock that was set back, counts as 0."""
    if microseconds < _SMALLEST_SPLIT:
        return microseconds if microseconds > 0 else 0
    if microseconds > VALUE_MAX:
        microseconds = VALUE_MAX
    shift = microseconds.bit_length() - BITS - 1
    return (shift << BITS) + (microseconds >> shift)


def bounds_of(bucket: int) -> tuple[int, int]:
    """Give the smallest duration in a bucket, and the smallest one above it, in microseconds."""
    if bucket < _SMALLEST_SPLIT:
        return bucket, bucket + 1
    shift = (bucket >> BITS) - 1
    mantissa = bucket - (shift << BITS)
    return mantissa << shift, (mantissa + 1) << shift


def percentiles(counts: Mapping[int, int], wanted: Sequence[float]) -> list[float]:
    """Give percentiles (0 to 100) in microseconds: the middle of the bucket that holds each; 0 of nothing."""
    total = sum(counts.values())
    if not total:
        return [0.0] * len(wanted)
    buckets = sorted(counts)
    found = []
    for percent in wanted:
        rank = max(1, -int(-total * percent // 100))
        seen = 0
        for bucket in buckets:
            seen += counts[bucket]
            if seen >= rank:
                low, high = bounds_of(bucket)
                found.append((low + high - 1) / 2)
                break
    return found
