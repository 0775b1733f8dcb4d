"""Instants: moments as whole nanoseconds since 1970 in UTC, exact and cheap inside; aware datetimes outside."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

Instant = int
"""Nanoseconds since 1970-01-01T00:00:00Z."""

SECOND = 1_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def from_seconds(seconds: float) -> int:
    """Turn a number of seconds into nanoseconds."""
    return round(seconds * SECOND)


def to_datetime(instant: Instant) -> datetime:
    """Turn an instant into an aware datetime (UTC, microseconds)."""
    return _EPOCH + timedelta(microseconds=instant // 1_000)


def from_datetime(moment: datetime) -> Instant:
    """Turn an aware datetime into an instant; a naive one is a programmer's error caught at the border."""
    assert moment.tzinfo is not None, "a naive datetime reached the core"
    delta = moment - _EPOCH
    return ((delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds) * 1_000
