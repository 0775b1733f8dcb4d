r"""What an export for verification looks like: a file of lines, and a signed manifest beside it.

```text
{"entry":{…},"hash":"…","seq":17,"tenant":"tenant-…"}      one line each, by tenant and number
```

`entry` is the payload that was hashed, byte for byte, except that characters beyond ASCII and DEL are written as
`\u…`: so every line is one line, and harmless, for every program that reads it. The manifest is `EXPORT.manifest.json`.
"""

from __future__ import annotations

import json
import re
from binascii import unhexlify
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from synergymesh.domain.audit.forms import HASH_BYTES, SEQ_MAX, Head, canonical
from synergymesh.domain.audit.trust import SignedTombstone, signature_of

FORMAT = "synergymesh-audit-export/1"

LINE_BYTES_MAX = 16 * 1024 * 1024
"""A longer line is none: an entry has some hundred bytes, and at most what a payload may have."""

MANIFEST_BYTES_MAX = 256 * 1024 * 1024
"""A manifest has about 300 bytes for a tenant, and more for each tombstone."""

_ENTRY = b'{"entry":'
_HASH = b',"hash":"'
_HASH_END = len(_HASH) + 2 * HASH_BYTES
_SEQ = b'","seq":'
_TENANT = b',"tenant":'
_TENANT_ID = re.compile(rb'"(?:[ !#-\[\]-~]|\\(?:["\\bfnrt]|u[0-9a-f]{4}))*"')
SEQ_DIGITS_MAX = 19
"""Of the largest number that a database column takes."""

_NOT_PLAIN = re.compile("[^\x00-\x7e]")


def manifest_path(export: Path) -> Path:
    """Give where the manifest of an export is."""
    return export.with_name(f"{export.name}.manifest.json")


# --- lines ----------------------------------------------------------------------------------------------------------


def write_line(tenant_id: str, seq: int, hash_: bytes, payload: bytes) -> bytes:
    """Give the line of an entry, with its line end."""
    tenant = json.dumps(tenant_id).replace("\x7f", "\\u007f").encode()
    return b'%b%b%b%b","seq":%d,"tenant":%b}\n' % (
        _ENTRY,
        as_ascii(payload),
        _HASH,
        hash_.hex().encode(),
        seq,
        tenant,
    )


def as_ascii(payload: bytes) -> bytes:
    r"""Give JSON with everything but plain ASCII as `\u…`."""
    if payload.isascii() and b"\x7f" not in payload:
        return payload
    return _NOT_PLAIN.sub(_escape, payload.decode("utf-8", "replace")).encode()


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"


# Every escape of JSON, so that the second half of a backslash that is one itself begins none.
_CODES = re.compile(rb"\\u(?:d[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}|[0-9a-f]{4})|\\.", re.DOTALL)


def _unescape(match: re.Match[bytes]) -> bytes:
    """Give the character for a code that `as_ascii` has written; what the payload itself has as a code stays one."""
    code = match[0]
    if len(code) == 12:
        high, low = int(code[2:6], 16) - 0xD800, int(code[8:], 16) - 0xDC00
        return chr(0x10000 + (high << 10) + low).encode()
    if len(code) == 6 and (number := int(code[2:], 16)) >= 0x7F and not 0xD800 <= number < 0xE000:
        return chr(number).encode()
    return code


def read_line(line: bytes) -> tuple[bytes, int, bytes, bytes]:
    """Read a line: the tenant's id as JSON, the number, the hash, the payload.

    Raises:
        ValueError: it is none.
    """
    hash_at = line.rfind(_HASH)
    hash_end = hash_at + _HASH_END
    tenant_at = line.find(_TENANT, hash_end)
    seq = line[hash_end + len(_SEQ) : tenant_at]
    if (
        hash_at < 0
        or tenant_at < 0
        or not line.startswith(_ENTRY)
        or line[hash_end : hash_end + len(_SEQ)] != _SEQ
        or not line.endswith(b"}")
        or not seq.isdigit()
        or len(seq) > SEQ_DIGITS_MAX
        or seq.startswith(b"0")
    ):
        raise ValueError("it has not the form of an entry")
    payload = line[len(_ENTRY) : hash_at]
    if b"\\u" in payload:
        payload = _CODES.sub(_unescape, payload)
    hash_ = unhexlify(line[hash_at + len(_HASH) : hash_end])
    return _tenant(line[tenant_at + len(_TENANT) : -1]), int(seq), hash_, payload


@lru_cache(1_000)
def _tenant(raw: bytes) -> bytes:
    if _TENANT_ID.fullmatch(raw) is None:
        raise ValueError("it names no tenant")
    return raw


# --- the manifest ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """What an export has of one tenant: the entries behind `before` up to `head`, but for those that were pruned.

    Attributes:
        before: what the first one follows.
        head: the last one; the same as `before` when none is in the time that was asked for.
        end: the number of the last entry of the chain at that moment.
        count: how many lines.
    """

    before: Head
    head: Head
    end: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What is signed of an export.

    Attributes:
        log_id: of the log.
        sections: of each tenant, in the order of the file.
        count: lines of the file.
        file_bytes: its size.
        file_sha256: its hash, as hex.
        tenant_id: whose log was asked for; '' for the mesh's own, None for all.
        since, until: the times that were asked for, nanoseconds since 1970, or None.
        exported_at: nanoseconds since 1970.
        checkpoint: the number of the last checkpoint before it, 0 when there was none.
        checkpoint_hash: the hash of that checkpoint; NOTHING when there was none.
        key_id: of the key that signs it.
    """

    log_id: str
    sections: tuple[Section, ...]
    count: int
    file_bytes: int
    file_sha256: str
    tenant_id: str | None
    since: int | None
    until: int | None
    exported_at: int
    checkpoint: int
    checkpoint_hash: bytes
    key_id: str

    def content(self) -> bytes:
        """Give the bytes that are signed."""
        return canonical(
            {
                "format": FORMAT,
                "log_id": self.log_id,
                "tenants": [
                    {
                        "tenant_id": section.head.tenant_id,
                        "first_seq": section.before.seq + 1,
                        "last_seq": section.head.seq,
                        "end_seq": section.end,
                        "count": section.count,
                        "previous": section.before.hash.hex(),
                        "head": section.head.hash.hex(),
                    }
                    for section in self.sections
                ],
                "count": self.count,
                "file_bytes": self.file_bytes,
                "file_sha256": self.file_sha256,
                "tenant_id": self.tenant_id,
                "since": self.since,
                "until": self.until,
                "exported_at": self.exported_at,
                "checkpoint": self.checkpoint,
                "checkpoint_hash": self.checkpoint_hash.hex(),
                "key_id": self.key_id,
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedManifest:
    """A manifest with what is needed to believe it.

    Attributes:
        manifest: what is signed.
        signature: over it.
        key_links: lines that lead from older keys to the one that signed.
        tombstones: of each tenant, for what was pruned in the range.
    """

    manifest: Manifest
    signature: bytes
    key_links: tuple[bytes, ...]
    tombstones: Mapping[str, tuple[SignedTombstone, ...]]

    def text(self) -> bytes:
        """Give it as a file."""
        fields = {
            "manifest": json.loads(self.manifest.content()),
            "signature": self.signature.hex(),
            "key_links": [json.loads(line) for line in self.key_links],
            "tombstones": {
                tenant_id: [
                    {"tombstone": json.loads(stone.content), "signature": stone.signature.hex()} for stone in stones
                ]
                for tenant_id, stones in self.tombstones.items()
            },
        }
        return (json.dumps(fields, indent=1, sort_keys=True).replace("\x7f", "\\u007f") + "\n").encode()


def read_manifest(text: bytes) -> SignedManifest:
    """Read the file of a manifest.

    Raises:
        ValueError: it is none.
    """
    try:
        fields = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    try:
        content = fields["manifest"]
        if content["format"] != FORMAT:
            raise ValueError(f"the format is {content['format']!r}, not {FORMAT!r}")
        manifest = Manifest(
            log_id=_text(content["log_id"]),
            sections=tuple(_section(each) for each in content["tenants"]),
            count=_number(content["count"]),
            file_bytes=_number(content["file_bytes"]),
            file_sha256=_text(content["file_sha256"]),
            tenant_id=None if content["tenant_id"] is None else _text(content["tenant_id"]),
            since=None if content["since"] is None else _number(content["since"]),
            until=None if content["until"] is None else _number(content["until"]),
            exported_at=_number(content["exported_at"]),
            checkpoint=_number(content["checkpoint"]),
            checkpoint_hash=_hash(content["checkpoint_hash"]),
            key_id=_text(content["key_id"]),
        )
        if manifest.content() != canonical(content):
            raise ValueError("it has fields that do not belong there")
        return SignedManifest(
            manifest=manifest,
            signature=signature_of(fields.get("signature")),
            key_links=tuple(canonical(link) for link in fields["key_links"]),
            tombstones={
                tenant_id: tuple(
                    SignedTombstone(
                        content=canonical(stone["tombstone"]), signature=signature_of(stone.get("signature"))
                    )
                    for stone in stones
                )
                for tenant_id, stones in fields["tombstones"].items()
            },
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"it is incomplete: {error!r:.200}") from None


def _section(fields: Any) -> Section:
    tenant_id = _text(fields["tenant_id"])
    first, last, end = (_number(fields[name]) for name in ("first_seq", "last_seq", "end_seq"))
    if not 0 < first <= last + 1 <= end + 1:
        raise ValueError(f"the entries {first} to {last} of {end} are no piece of a chain")
    return Section(
        before=Head(tenant_id, first - 1, _hash(fields["previous"])),
        head=Head(tenant_id, last, _hash(fields["head"])),
        end=end,
        count=_number(fields["count"]),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"a text was expected, not {value!r:.100}")
    return value


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= SEQ_MAX:
        raise ValueError(f"a whole number was expected, not {value!r:.100}")
    return value


def _hash(value: object) -> bytes:
    hash_ = bytes.fromhex(_text(value))
    if len(hash_) != HASH_BYTES:
        raise ValueError("a hash must have 32 bytes")
    return hash_
