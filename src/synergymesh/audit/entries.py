"""Entries of the audit log as people and programs see them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from synergymesh.domain.instants import to_datetime
from synergymesh.ports.audit import AuditEntryRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """Describe something that happened.

    Attributes:
        tenant_id: in whose chain the entry is; '' for the mesh's own.
        seq: its number in the chain, from 1 without gaps.
        at: when it happened, aware (UTC).
        action: what; see the catalogue in the guide.
        entity: what it is about: `run/run-…`, `task/run-…/component`, `tenant/tenant-…` and so on.
        version: tells one change of the entity from another.
        actor: on whose account, `type/id`.
        outcome: success, failure or denied.
        details: what more there is to say.
        origin: on whose behalf, from where, with which request.
        personal: name, mail and address of the actor, if they were given and not erased.
        hash: of the entry in its chain, as hex.
    """

    tenant_id: str
    seq: int
    at: datetime
    action: str
    entity: str
    version: int
    actor: str
    outcome: str
    details: Any
    origin: dict[str, str]
    personal: dict[str, str] | None
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntries:
    """Entries that were found, newest first.

    `cursor` goes on behind them; None when there are no more. A page may be short, even empty, and not be the last.
    """

    entries: tuple[AuditEntry, ...]
    cursor: int | None


class _Said(msgspec.Struct, gc=False):
    details: Any = None
    origin: dict[str, str] = {}


class _Sealed(_Said, gc=False, kw_only=True):
    at: int
    action: str
    entity: str
    version: int
    actor: str
    outcome: str


_decode = msgspec.json.Decoder(_Said).decode
_decode_sealed = msgspec.json.Decoder(_Sealed).decode


def record_view(record: AuditEntryRecord) -> AuditEntry:
    """Show an entry as stored."""
    try:
        said = _decode(record.payload)
    except msgspec.MsgspecError:
        said = _Said()  # `synergymesh audit verify` says what happened to it
    return _view(record.tenant_id, record.seq, record.hash, record, said)


def sealed_view(tenant_id: str, seq: int, hash_: bytes, payload: bytes) -> AuditEntry:
    """Show an entry as its payload has it.

    Raises:
        ValueError: it is none.
    """
    sealed = _decode_sealed(payload)
    return _view(tenant_id, seq, hash_, sealed, sealed)


def _view(tenant_id: str, seq: int, hash_: bytes, what: AuditEntryRecord | _Sealed, said: _Said) -> AuditEntry:
    return AuditEntry(
        tenant_id=tenant_id,
        seq=seq,
        at=to_datetime(what.at),
        action=what.action,
        entity=what.entity,
        version=what.version,
        actor=what.actor,
        outcome=what.outcome,
        details=said.details,
        origin=said.origin,
        personal=None,
        hash=hash_.hex(),
    )
