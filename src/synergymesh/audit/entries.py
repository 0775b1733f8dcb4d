"""Entries of the audit log as people and programs see them."""

from __future__ import annotations

from collections.abc import Sequence
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


_decode = msgspec.json.Decoder(_Said).decode


def entry_view(row: Sequence[Any]) -> AuditEntry:
    """Show a row: number, hash, payload, at, action, entity, version, actor, outcome, tenant."""
    seq, hash_, payload, at, action, entity, version, actor, outcome, tenant_id = row
    try:
        said = _decode(payload)
    except msgspec.MsgspecError:
        said = _Said()  # `synergymesh audit verify` says what happened to it
    return AuditEntry(
        tenant_id=tenant_id,
        seq=seq,
        at=to_datetime(at),
        action=action,
        entity=entity,
        version=version,
        actor=actor,
        outcome=outcome,
        details=said.details,
        origin=said.origin,
        personal=None,
        hash=hash_.hex(),
    )


def record_view(record: AuditEntryRecord) -> AuditEntry:
    """Show an entry as stored."""
    return entry_view(
        (
            record.seq,
            record.hash,
            record.payload,
            record.at,
            record.action,
            record.entity,
            record.version,
            record.actor,
            record.outcome,
            record.tenant_id,
        )
    )
