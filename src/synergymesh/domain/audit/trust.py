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
    SEQ_MAX,
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
    if canonical(fields) != line:
        raise ValueError("it is not in its canonical form")
    if "key_link" in fields:
        return SignedLink(
            link=read_key_link(canonical(fields["key_link"])),
            signature=signature_of(fields.get("signature")),
            signature_of_new=signature_of(fields.get("signature_of_new")),
        )
    full = fields.get("full")
    if "checkpoint" not in fields or not isinstance(fields.get("heads"), list) or not isinstance(full, bool):
        raise ValueError("a record must have a checkpoint, heads, and whether these are all, or a key_link")
    if "signature" in fields and len(fields) > 4:
        raise ValueError("it has fields that do not belong there")
    return SignedCheckpoint(
        checkpoint=read_checkpoint(canonical(fields["checkpoint"])),
        signature=signature_of(fields.get("signature")),
        heads=tuple(_head(item) for item in fields["heads"]),
        full=full,
    )


def signature_of(value: object) -> bytes:
    """Read a signature; one that is missing or no hexadecimal text is empty, and refused where it is compared."""
    try:
        return _bytes(value)
    except ValueError:
        return b""


def _bytes(value: object) -> bytes:
    """Read hexadecimal text in the only form in which it is written: small letters, without spaces."""
    read = bytes.fromhex(value) if isinstance(value, str) else b""
    if read.hex() != value:
        raise ValueError("a text of hexadecimal digits was expected")
    return read


def _head(item: Any) -> Head:
    if not isinstance(item, list) or len(item) != 3:
        raise ValueError("a head must be [tenant, number, hash]")
    tenant_id, seq, hash_ = item
    if not isinstance(tenant_id, str) or not isinstance(seq, int) or isinstance(seq, bool) or not 0 <= seq <= SEQ_MAX:
        raise ValueError("a head must be [tenant, number, hash]")
    tenant_id.encode()  # a lone half of a surrogate pair is a text of JSON, and none that can be hashed
    value = _bytes(hash_)
    if len(value) != HASH_BYTES:
        raise ValueError("a hash must have 32 bytes")
    return Head(tenant_id, seq, value)


# --- keys -----------------------------------------------------------------------------------------------------------


class Trust:
    """Know which keys are trusted, and how far: those that were given, and those that links lead to from them.

    A link counts in both directions: the old key vouches for the new one, and the new one for the old one's past. It
    ends the old key: that counts for what it signed up to the checkpoint that the link names, and vouches for no other
    successor, since whoever has stolen it can sign links too.

    Attributes:
        log_id: the log that everything has to belong to; empty until the first thing says it.
        keys: trusted public keys by their ids.
    """

    def __init__(self, keys: Iterable[bytes], verify: VerifySignature, *, log_id: str = "") -> None:
        self.log_id = log_id
        self.keys = {key_id(key): key for key in keys}
        self._verify = verify
        self._heirs = set(self.keys)
        self._successors: dict[str, str] = {}
        self._ends: dict[str, int] = {}

    def follow(self, links: Iterable[SignedLink]) -> list[Finding]:
        """Trust the keys that links lead to; give what is wrong with links, also with those that lead nowhere."""
        findings: list[Finding] = []
        left = list(dict.fromkeys(links))
        while left:
            # From a trusted key to what was before it, as long as there is such a link, and only then to what follows.
            each = next((one for one in left if key_id(one.link.new) in self.keys), None) or next(
                (one for one in left if key_id(one.link.old) in self._heirs - self._successors.keys()), None
            )
            if each is None:
                break
            left.remove(each)
            damage = self._damage_of(each)
            if damage is not None:
                findings.append(_of_link(damage, each.link, "is no good"))
            elif self._successors.get(key_id(each.link.old), key_id(each.link.new)) != key_id(each.link.new):
                findings.append(_of_link(Damage.FORKED, each.link, _SECOND))
            else:
                self._adopt(each.link)
        for each in left:
            if key_id(each.link.old) not in self.keys:
                findings.append(_of_link(Damage.WRONG_KEY, each.link, "touches no key that is trusted"))
            elif (damage := self._damage_of(each)) is not None:
                findings.append(_of_link(damage, each.link, "is no good"))
            else:
                findings.append(_of_link(Damage.FORKED, each.link, _SECOND))
        return findings

    def _adopt(self, link: KeyLink) -> None:
        old, new = key_id(link.old), key_id(link.new)
        if new not in self.keys:
            self._heirs.add(new)
        self.keys.setdefault(new, link.new)
        self.keys.setdefault(old, link.old)
        self._successors[old] = new
        self._ends[old] = min(link.checkpoint, self._ends.get(old, SEQ_MAX), self._ends.get(new, SEQ_MAX))

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

    def check(
        self, tag: bytes, content: bytes, signature: bytes, *, log_id: str, signed_by: str, checkpoint: int
    ) -> Damage | None:
        """Say what is wrong with something that was signed behind a checkpoint, or None."""
        if not isinstance(signature, bytes) or len(signature) != SIGNATURE_BYTES:
            return Damage.UNSIGNED
        key = self.keys.get(signed_by)
        if key is None:
            return Damage.WRONG_KEY
        if not self._verify(key, signature, signed_bytes(tag, content)):
            return Damage.BAD_SIGNATURE
        if checkpoint > self._ends.get(signed_by, SEQ_MAX):
            return Damage.REPLACED_KEY
        if not self.log_id:
            self.log_id = log_id
        return None if log_id == self.log_id else Damage.WRONG_LOG


_SECOND = "is a second one: the old key had a successor already"

WHY = {
    Damage.UNSIGNED: "has no whole signature",
    Damage.WRONG_KEY: "is signed by a key that is not trusted",
    Damage.REPLACED_KEY: "is signed by a key that had been replaced before",
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
        known: the largest number of each tenant that was signed up to the checkpoint `until`.
        hashes: of the checkpoints with a good signature, by number.
        findings: what is wrong, in the order of the lines.
        notes: what is wrong before the checkpoint from which on is verified, and with its place behind those.
    """

    pins: dict[str, dict[int, bytes]] = field(default_factory=dict)
    heads: dict[str, Head] = field(default_factory=dict)
    start: dict[str, Head] | None = None
    last: Checkpoint | None = None
    count: int = 0
    known: dict[str, int] = field(default_factory=dict)
    hashes: dict[int, bytes] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)


def verify_checkpoints(
    lines: Iterable[bytes], trust: Trust, *, since: int | None = None, until: int | None = None
) -> Pinned:
    """Verify published checkpoints, and give what they pin.

    Args:
        lines: as they were published, of one file or of several one after the other; repeated ones do no harm.
        trust: the keys and the log; follows the links among the lines.
        since: the number of the checkpoint from which on, whose heads are wanted in `start`; those before it pin
            nothing.
        until: the number of the checkpoint up to which `known` is wanted.
    """
    pinned = Pinned()
    records: list[SignedCheckpoint | Finding] = []
    links: list[SignedLink] = []
    for number, line in enumerate(lines, 1):
        try:
            record = read_record(line)
        except ValueError as error:
            records.append(_of_checkpoint(Damage.UNREADABLE, None, f"line {number:,} is no record: {error}"))
            continue
        if isinstance(record, SignedLink):
            links.append(record)
        else:
            records.append(record)
    of_links = trust.follow(links)
    way = _Checkpoints(pinned, trust, since, until)
    way.follow(records)
    way.compare_with([each.link for each in links])
    pinned.findings = of_links + pinned.findings
    return pinned


class _Checkpoints:
    """One way along checkpoints."""

    def __init__(self, pinned: Pinned, trust: Trust, since: int | None, until: int | None) -> None:
        self.pinned = pinned
        self.trust = trust
        self.since = since
        self.until = until
        self.work = ROOTS_WORK_MAX
        self.lacks_heads = True  # until a line has all of them

    def follow(self, records: Sequence[SignedCheckpoint | Finding]) -> None:
        """Go along all of them, and along what was found instead of one."""
        numbers = [each.checkpoint.number for each in records if isinstance(each, SignedCheckpoint)]
        newest = max(numbers, default=0)
        for record in records:
            if isinstance(record, Finding):
                self.pinned.findings.append(record)
            else:
                self.add(record, is_newest=record.checkpoint.number in (newest, self.since))
        if records and self.lacks_heads and not self.pinned.findings:
            detail = "no line before the newest checkpoint has all heads, so that it cannot be compared"
            self.pinned.findings.append(_of_checkpoint(Damage.MISSING, newest, detail))

    def compare_with(self, links: Iterable[KeyLink]) -> None:
        """Look whether the checkpoints that links name are there: what the old key signed ends with them."""
        hashes = self.pinned.hashes
        first = min(hashes, default=0)
        for link in links:
            number = link.checkpoint
            if not number or first > number or key_id(link.new) not in self.trust.keys:
                continue  # what was before it was put away
            found = hashes.get(number)
            if found == link.previous:
                continue
            detail = f"checkpoint {number:,}, before the key {key_id(link.old)} was replaced, is " + (
                "gone" if found is None else "another one"
            )
            damage = Damage.MISSING if found is None else Damage.FORKED
            is_before = self.since is not None and number < self.since
            (self.pinned.notes if is_before else self.pinned.findings).append(_of_checkpoint(damage, number, detail))

    def add(self, record: SignedCheckpoint, *, is_newest: bool) -> None:
        """Verify one, and adopt what it proves."""
        pinned, checkpoint = self.pinned, record.checkpoint
        number = checkpoint.number
        damage = self.trust.check(
            CHECKPOINT_TAG,
            checkpoint.content(),
            record.signature,
            log_id=checkpoint.log_id,
            signed_by=checkpoint.key_id,
            checkpoint=number,
        )
        if damage is not None:
            pinned.findings.append(_of_checkpoint(damage, number, f"checkpoint {number:,} {WHY[damage]}"))
            self.lacks_heads = True
            return
        pinned.hashes.setdefault(number, checkpoint.hash())
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
        pinned.heads, pinned.last, self.lacks_heads = heads, checkpoint, False
        pinned.count += 1
        if number == self.since:
            # What is wrong up to here, a restored backup say, is what this checkpoint is taken to have settled.
            pinned.start = dict(heads)
            pinned.notes += pinned.findings
            pinned.findings = []
        if self.since is None or pinned.start is not None:
            for head in record.heads:
                if head.seq:
                    pinned.pins.setdefault(head.tenant_id, {}).setdefault(head.seq, head.hash)
        if self.until is not None and number <= self.until:
            for head in record.heads:
                pinned.known[head.tenant_id] = max(head.seq, pinned.known.get(head.tenant_id, 0))


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


def _of_link(damage: Damage, link: KeyLink, what: str) -> Finding:
    detail = f"the link between the keys {key_id(link.old)} and {key_id(link.new)} {what}."
    return Finding(damage=damage, tenant_id=None, seq=None, detail=detail)


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
        damage = trust.check(
            TOMBSTONE_TAG,
            stone.content,
            stone.signature,
            log_id=tombstone.log_id,
            signed_by=tombstone.key_id,
            checkpoint=tombstone.checkpoint,
        )
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
