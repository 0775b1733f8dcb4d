"""Reads moments as people write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from synergymesh.errors import InvalidRequest

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def read_moment(text: str | None, field: str) -> datetime | None:
    """Read a moment: an ISO date or time (the user's time zone where it names none), or how long ago."""
    if text is None:
        return None
    try:
        if text[-1:] in _UNITS and text[:-1].isdigit():
            return datetime.now(UTC) - timedelta(**{_UNITS[text[-1]]: int(text[:-1])})
        moment = datetime.fromisoformat(text)
        return moment if moment.tzinfo else moment.astimezone()
    except (ValueError, OverflowError):
        raise InvalidRequest(
            f"{field} must be a time such as 2026-11-22, 2026-11-22T10:00:00Z or 30m, 2h, 7d, not {text!r:.100}.",
            field=field,
        ) from None
