r"""Exports for other programs: CSV for spreadsheets, CloudEvents 1.0. Neither can be verified.

Nothing that a tenant or a task wrote is more than text there: characters that are not printed are codes (`\x1b`), and a
cell that a spreadsheet would run as a formula begins with an apostrophe.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable
from datetime import UTC

from synergymesh.audit.entries import AuditEntry

CSV_COLUMNS = (
    "seq (this file is not for verification)",
    "tenant",
    "at",
    "action",
    "entity",
    "version",
    "actor",
    "outcome",
    "on_behalf_of",
    "source",
    "request_id",
    "details",
)

_FORMULA = frozenset("=+-@|%\uff1d\uff0b\uff0d\uff20")
"""What spreadsheets take for the beginning of a formula or a command, also in full width."""

_SPACES = frozenset({"Zs", "Zl", "Zp"})
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def plain(text: str) -> str:
    r"""Give text on one line in which everything that is not printed is a code: `\x1b`, `\u202e`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_code(c) if unicodedata.category(c) in _UNSAFE else c for c in text)


def _code(character: str) -> str:
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def cell(text: str) -> str:
    """Give a quoted cell of RFC 4180 that no spreadsheet runs."""
    shown = plain(text)
    first = next((c for c in shown if unicodedata.category(c) not in _SPACES), "")
    if first in _FORMULA:
        shown = f"'{shown}"
    return '"' + shown.replace('"', '""') + '"'


def csv_header() -> bytes:
    """Give the first line."""
    return (",".join(map(cell, CSV_COLUMNS)) + "\r\n").encode()


def csv_line(entry: AuditEntry) -> bytes:
    """Give the line of an entry (RFC 4180)."""
    values: Iterable[str] = (
        str(entry.seq),
        entry.tenant_id,
        entry.at.isoformat(),
        entry.action,
        entry.entity,
        str(entry.version),
        entry.actor,
        entry.outcome,
        entry.origin.get("on_behalf_of", ""),
        entry.origin.get("source", ""),
        entry.origin.get("request_id", ""),
        json.dumps(entry.details, ensure_ascii=False, sort_keys=True),
    )
    return (",".join(map(cell, values)) + "\r\n").encode("utf-8", "replace")


def cloud_event(entry: AuditEntry, log_id: str) -> bytes:
    """Give the line of an entry as a CloudEvent 1.0 in JSON."""
    tenant = plain(entry.tenant_id)
    event = {
        "specversion": "1.0",
        "id": f"{log_id}/{tenant}/{entry.seq}",
        "source": f"/synergymesh/{log_id}/{tenant or 'mesh'}",
        "type": f"synergymesh.audit.{plain(entry.action)}",
        "subject": plain(entry.entity),
        "time": entry.at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "data": {
            "actor": entry.actor,
            "details": entry.details,
            "entity": entry.entity,
            "hash": entry.hash,
            "origin": entry.origin,
            "outcome": entry.outcome,
            "seq": entry.seq,
            "tenant_id": entry.tenant_id,
            "version": entry.version,
        },
    }
    return (json.dumps(event, ensure_ascii=True).replace("\x7f", "\\u007f") + "\n").encode()
