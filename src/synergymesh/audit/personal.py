"""Personal data in entries: encrypted under a key for each subject, so that destroying the key erases it.

The chain is over the encrypted text and stays as it is.
"""

from __future__ import annotations

import secrets
from base64 import b64decode, b64encode
from collections.abc import Mapping

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from synergymesh.errors import InvalidRequest

KEY_BYTES = 32
NONCE_BYTES = 12

PERSONAL_FIELDS = ("name", "mail", "address")
"""What is kept of somebody; an address is where a request came from, or a postal one."""

PERSONAL_TEXT_MAX = 500
"""Characters of each: it goes into every entry that its actor causes."""


def check_personal(personal: Mapping[str, object]) -> dict[str, str]:
    """Give personal data that can be kept.

    Raises:
        InvalidRequest: a field is not known, or no text, or too long.
    """
    checked = {}
    for name, value in personal.items():
        if value is None:
            continue
        if name not in PERSONAL_FIELDS:
            raise InvalidRequest(f"{name} is not one of {', '.join(PERSONAL_FIELDS)}.", field=name)
        if not isinstance(value, str) or not 1 <= len(value) <= PERSONAL_TEXT_MAX or not value.isprintable():
            raise InvalidRequest(f"{name} must be a printable text of 1 to {PERSONAL_TEXT_MAX} characters.", field=name)
        checked[name] = value
    return checked


def new_key() -> bytes:
    """Make a key."""
    return secrets.token_bytes(KEY_BYTES)


def seal(key: bytes, subject: str, personal: Mapping[str, str]) -> str:
    """Encrypt personal data of a subject (AES-256-GCM, bound to the subject's name)."""
    nonce = secrets.token_bytes(NONCE_BYTES)
    raw = msgspec.json.encode(dict(personal))
    return b64encode(nonce + AESGCM(key).encrypt(nonce, raw, subject.encode())).decode()


def unseal(key: bytes, subject: str, sealed: str) -> dict[str, str] | None:
    """Decrypt personal data; None when it was not encrypted with this key for this subject."""
    try:
        raw = b64decode(sealed, validate=True)
        plain = AESGCM(key).decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], subject.encode())
        return msgspec.json.decode(plain, type=dict[str, str])
    except (InvalidTag, ValueError, msgspec.MsgspecError):
        return None
