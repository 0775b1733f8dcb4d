"""What signatures vouch for: keys and the links between them, checkpoints, tombstones. Pure, standard library only.

A checkpoint is published as one line of JSON: its content, the signature, and the heads that have changed since the
line before (all of them where `full` is true), so that whoever has the lines can form the root again and knows for each
tenant which hashes were signed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from synergymesh.domain.audit.forms import (
    CHECKPOINT_TAG,
    HASH_BYTES,
    KEY_LINK_TAG,
    NOTHING,
    TOMBSTONE_TAG,
    Checkpoint,
    Head,
    KeyLink,
    Tombstone,
    canonical,
    head_leaf,
    key_id,
    merkle_root,
    read_checkpoint,
    read_key_link,
    read_tombstone,
    signed_bytes,
)
from synergymesh.domain.audit.verification import Damage, Finding

SIGNATURE_BYTES = 64

ROOTS_WORK_MAX = 2_000_000
"""Leaves that are hashed to compare the roots of old checkpoints (about two seconds); the newest is always compared."""

VerifySignature = Callable[[bytes, bytes, bytes], bool]
"""Tells whether (public key, signature, message) belong together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedCheckpoint:
    """A published checkpoint; a head with number 0 says that its tenant is gone."""

    checkpoint: Checkpoint
    signature: bytes
    heads: tuple[Head, ...]
    full: bool

    def line(self) -> bytes:
        """Give it as a line of JSON."""
        return canonical(
            {
                "checkpoint": json.loads(self.checkpoint.content()),
                "full": self.full,
                "heads": [[head.tenant_id, head.seq, head.hash.hex()] for head in self.heads],
                "signature": self.signature.hex(),
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedLink:
    """A published step from one key to the next."""

    link: KeyLink
    signature: bytes
    signature_of_new: bytes

    def line(self) -> bytes:
        """Give it as a line of JSON."""
        return canonical(
            {
                "key_link": json.loads(self.link.content()),
                "signature": self.signature.hex(),
                "signature_of_new": self.signature_of_new.hex(),
            }
        )


def read_record(line: bytes) -> SignedCheckpoint | SignedLink:
    """Read a published line.

    Raises:
        ValueError: it is none.
    """
    try:
        fields = json.loads(line)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(fields, dict):
        raise ValueError("a record must be an object")
    if "key_link" in fields:
        return SignedLink(
            link=read_key_link(canonical(fields["key_link"])),
            signature=signature_of(fields.get("signature")),
            signature_of_new=signature_of(fields.get("signature_of_new")),
        )
    if "checkpoint" not in fields or not isinstance(fields.get("heads"), list):
        raise ValueError("a record must have a checkpoint and heads, or a key_link")
    return SignedCheckpoint(
        checkpoint=read_checkpoint(canonical(fields["checkpoint"])),
        signature=signature_of(fields.get("signature")),
        heads=tuple(_head(item) for item in fields["heads"]),
        full=fields.get("full") is True,
    )


def signature_of(value: object) -> bytes:
    """Read a signature; one that is missing or no hexadecimal text is empty, and refused where it is compared."""
    try:
        return bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError:
        return b""


def _head(item: Any) -> Head:
    if not isinstance(item, list) or len(item) != 3:
        raise ValueError("a head must be [tenant, number, hash]")
    tenant_id, seq, hash_ = item
    if not isinstance(tenant_id, str) or not isinstance(seq, int) or isinstance(seq, bool) or seq < 0:
        raise ValueError("a head must be [tenant, number, hash]")
    value = bytes.fromhex(hash_) if isinstance(hash_, str) else b""
    if len(value) != HASH_BYTES:
        raise ValueError("a hash must have 32 bytes")
    return Head(tenant_id, seq, value)


# --- keys -----------------------------------------------------------------------------------------------------------


class Trust:
    """Know which keys are trusted: those that were given, and those that they vouch for through links.

    A link counts in both directions: the old key vouches for the new one, and the new one for the old one's past.

    Attributes:
        log_id: the log that everything has to belong to; empty until the first thing says it.
        keys: trusted public keys by their ids.
    """

    def __init__(self, keys: Iterable[bytes], verify: VerifySignature, *, log_id: str = "") -> None:
        self.log_id = log_id
        self.keys = {key_id(key): key for key in keys}
        self._verify = verify

    def follow(self, links: Sequence[SignedLink]) -> list[Finding]:
        """Trust the keys that links lead to; give what is wrong with links from or to trusted keys."""
        findings: list[Finding] = []
        left = list(links)
        while True:
            usable = [each for each in left if key_id(each.link.old) in self.keys or key_id(each.link.new) in self.keys]
            if not usable:
                break
            for each in usable:
                left.remove(each)
                damage = self._damage_of(each)
                if damage is not None:
                    detail = (
                        f"the link between the keys {key_id(each.link.old)} and {key_id(each.link.new)} is no good."
                    )
                    findings.append(Finding(damage=damage, tenant_id=None, seq=None, detail=detail))
                    continue
                for key in (each.link.old, each.link.new):
                    self.keys[key_id(key)] = key
        return findings

    def _damage_of(self, each: SignedLink) -> Damage | None:
        link = each.link
        if self.log_id and link.log_id != self.log_id:
            return Damage.WRONG_LOG
        message = signed_bytes(KEY_LINK_TAG, link.content())
        for key, signature in ((link.old, each.signature), (link.new, each.signature_of_new)):
            if len(signature) != SIGNATURE_BYTES:
                return Damage.UNSIGNED
            if not self._verify(key, signature, message):
                return Damage.BAD_SIGNATURE
        return None

    def check(self, tag: bytes, content: bytes, signature: bytes, log_id: str, signed_by: str) -> Damage | None:
        """Say what is wrong with something signed, or None."""
        if len(signature) != SIGNATURE_BYTES:
            return Damage.UNSIGNED
        key = self.keys.get(signed_by)
        if key is None:
            return Damage.WRONG_KEY
        if not self._verify(key, signature, signed_bytes(tag, content)):
            return Damage.BAD_SIGNATURE
        if not self.log_id:
            self.log_id = log_id
        return None if log_id == self.log_id else Damage.WRONG_LOG


WHY = {
    Damage.UNSIGNED: "has no whole signature",
    Damage.WRONG_KEY: "is signed by a key that is not trusted",
    Damage.BAD_SIGNATURE: "is not what was signed",
    Damage.WRONG_LOG: "belongs to another log",
}


# --- checkpoints ----------------------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class Pinned:
    """What the checkpoints prove.

    Attributes:
        pins: for each tenant the signed hashes by number.
        heads: those that the last checkpoint signed whose heads are known.
        start: those that the checkpoint signed from which on is verified; None for the beginning.
        last: the last good checkpoint.
        count: how many are good.
        findings: what is wrong, in the order of the lines.
    """

    pins: dict[str, dict[int, bytes]] = field(default_factory=dict)
    heads: dict[str, Head] = field(default_factory=dict)
    start: dict[str, Head] | None = None
    last: Checkpoint | None = None
    count: int = 0
    findings: list[Finding] = field(default_factory=list)


def verify_checkpoints(lines: Iterable[bytes], trust: Trust, *, since: int | None = None) -> Pinned:
    """Verify published checkpoints, and give what they pin.

    Args:
        lines: as they were published, of one file or of several one after the other; repeated ones do no harm.
        trust: the keys and the log; follows the links among the lines.
        since: the number of the checkpoint whose heads are wanted in `start`.
    """
    pinned = Pinned()
    records: list[SignedCheckpoint] = []
    links: list[SignedLink] = []
    for number, line in enumerate(lines, 1):
        try:
            record = read_record(line)
        except ValueError as error:
            pinned.findings.append(_of_checkpoint(Damage.UNREADABLE, None, f"line {number:,} is no record: {error}"))
            continue
        if isinstance(record, SignedLink):
            links.append(record)
        else:
            records.append(record)
    pinned.findings += trust.follow(links)
    _Checkpoints(pinned, trust, since).follow(records)
    return pinned


class _Checkpoints:
    """One way along checkpoints."""

    def __init__(self, pinned: Pinned, trust: Trust, since: int | None) -> None:
        self.pinned = pinned
        self.trust = trust
        self.since = since
        self.work = ROOTS_WORK_MAX
        self.lacks_heads = True  # until a line has all of them

    def follow(self, records: Sequence[SignedCheckpoint]) -> None:
        """Go along all of them."""
        newest = max((record.checkpoint.number for record in records), default=0)
        for record in records:
            self.add(record, is_newest=record.checkpoint.number == newest)
        if records and self.lacks_heads and not self.pinned.findings:
            detail = "no line before the newest checkpoint has all heads, so that it cannot be compared"
            self.pinned.findings.append(_of_checkpoint(Damage.MISSING, newest, detail))

    def add(self, record: SignedCheckpoint, *, is_newest: bool) -> None:
        """Verify one, and adopt what it proves."""
        pinned, checkpoint = self.pinned, record.checkpoint
        number = checkpoint.number
        damage = self.trust.check(
            CHECKPOINT_TAG, checkpoint.content(), record.signature, checkpoint.log_id, checkpoint.key_id
        )
        if damage is not None:
            pinned.findings.append(_of_checkpoint(damage, number, f"checkpoint {number:,} {WHY[damage]}"))
            self.lacks_heads = True
            return
        finding = _place(pinned.last, checkpoint)
        if finding is _REPEATED:
            return
        if finding is not None:
            pinned.findings.append(finding)
            if finding.damage is not Damage.MISSING:
                return
            self.lacks_heads = True
        if self.lacks_heads and not record.full:
            pinned.last = checkpoint
            return
        heads = {} if record.full else dict(pinned.heads)
        regress = _changed_heads(pinned, heads, record)
        if is_newest or self.work >= len(heads):
            self.work -= len(heads)
            if merkle_root([head_leaf(heads[tenant]) for tenant in sorted(heads)]) != checkpoint.root:
                detail = f"checkpoint {number:,} does not stand for the heads beside it"
                pinned.findings.append(_of_checkpoint(Damage.CHANGED, number, detail))
                pinned.last, self.lacks_heads = checkpoint, True
                return
        if regress is not None:
            pinned.findings.append(regress)
        for head in record.heads:
            if head.seq:
                pinned.pins.setdefault(head.tenant_id, {}).setdefault(head.seq, head.hash)
        pinned.heads, pinned.last, self.lacks_heads = heads, checkpoint, False
        pinned.count += 1
        if number == self.since:
            pinned.start = dict(heads)


_REPEATED = Finding(damage=Damage.DUPLICATE, tenant_id=None, seq=None, detail="the same checkpoint again.")


def _place(last: Checkpoint | None, checkpoint: Checkpoint) -> Finding | None:
    """Say whether a signed checkpoint follows the one before it."""
    number = checkpoint.number
    if last is None:
        if number == 1 and checkpoint.previous != NOTHING:
            return _of_checkpoint(Damage.MISSING, 1, "what came before checkpoint 1 is gone")
        return None
    if number == last.number:
        if checkpoint.hash() == last.hash():
            return _REPEATED
        return _of_checkpoint(Damage.FORKED, number, f"there are two different checkpoints {number:,}")
    if number < last.number:
        return _of_checkpoint(Damage.REORDERED, number, f"checkpoint {number:,} stands behind {last.number:,}")
    if number > last.number + 1:
        return _of_checkpoint(
            Damage.MISSING, last.number + 1, f"checkpoints {last.number + 1:,} to {number - 1:,} are gone"
        )
    if checkpoint.previous != last.hash():
        return _of_checkpoint(Damage.FORKED, number, f"checkpoint {number:,} does not follow {last.number:,}")
    return None


def _changed_heads(pinned: Pinned, heads: dict[str, Head], record: SignedCheckpoint) -> Finding | None:
    """Put the changed heads in their places; say whether one went back or became another."""
    finding = None
    number = record.checkpoint.number
    for head in record.heads:
        if not head.seq:
            heads.pop(head.tenant_id, None)
            continue
        before = pinned.heads.get(head.tenant_id)
        if before is not None and finding is None:
            name = head.tenant_id or "the mesh"
            if head.seq < before.seq:
                detail = f"checkpoint {number:,} has {head.seq:,} entries of {name}, the one before {before.seq:,}"
                finding = _of_checkpoint(Damage.ROLLED_BACK, number, detail)
            elif head.seq == before.seq and head.hash != before.hash:
                detail = f"checkpoint {number:,} has another entry {head.seq:,} of {name} than the one before"
                finding = _of_checkpoint(Damage.FORKED, number, detail)
        heads[head.tenant_id] = head
    return finding


def _of_checkpoint(damage: Damage, number: int | None, detail: str) -> Finding:
    return Finding(damage=damage, tenant_id=None, seq=number, detail=f"{detail}.")


# --- tombstones -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedTombstone:
    """A tombstone as stored: its content and the signature over it."""

    content: bytes
    signature: bytes


def verify_tombstones(
    stones: Iterable[SignedTombstone], tenant_id: str, trust: Trust
) -> tuple[list[Tombstone], list[Finding]]:
    """Give the tombstones of a tenant that can be relied on, and what is wrong with the others."""
    good: list[Tombstone] = []
    findings: list[Finding] = []
    for stone in stones:
        try:
            tombstone = read_tombstone(stone.content)
        except ValueError as error:
            detail = f"a tombstone is none: {error}."
            findings.append(Finding(damage=Damage.UNREADABLE, tenant_id=tenant_id, seq=None, detail=detail))
            continue
        damage = trust.check(TOMBSTONE_TAG, stone.content, stone.signature, tombstone.log_id, tombstone.key_id)
        first = tombstone.gaps[0].first
        if damage is None and tombstone.tenant_id != tenant_id:
            damage = Damage.FOREIGN
        if damage is not None:
            why = WHY.get(damage, "belongs to another tenant")
            detail = f"the tombstone of {tombstone.day} {why}."
            findings.append(Finding(damage=damage, tenant_id=tenant_id, seq=first, detail=detail))
            continue
        good.append(tombstone)
    return good, findings
