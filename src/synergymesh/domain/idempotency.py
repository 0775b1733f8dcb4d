"""Idempotency keys: what a caller chooses, so that asking twice for the same thing makes it once."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from synergymesh.config import IDENTIFIER_MAX
from synergymesh.errors import InvalidRequest


def check_key(key: object) -> None:
    """Raise InvalidRequest unless it is a usable idempotency key or None."""
    if key is None:
        return
    if not isinstance(key, str) or not 1 <= len(key) <= IDENTIFIER_MAX or not key.isprintable():
        raise InvalidRequest(
            f"idempotency_key must be a printable text of 1 to {IDENTIFIER_MAX} characters, not {key!r:.100}.",
            field="idempotency_key",
        )


def hash_request(*parts: Any) -> str:
    """Give a hash of what was asked for: the SHA-256 of its parts as JSON, in hexadecimal digits."""
    return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()
