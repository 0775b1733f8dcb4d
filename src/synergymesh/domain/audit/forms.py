"""The forms of the audit log: bytes that are hashed and signed. Pure, and the standard library only.

```text
payload      canonical JSON of all that an entry says
chain        per tenant, gapless from 1                hash = H(tag, tenant, seq, previous hash, payload)
genesis      what the first entry of a tenant follows  hash = H(tag, log id, tenant)
root         over the heads of all tenants (RFC 6962)  leaf = 0x00 || head, node = 0x01 || left || right
checkpoint   root, counts, number, the one before      signed
tombstone    what was pruned, the hashes at both ends  signed
key link     the next key                              signed by the old and by the new one
```

H is SHA-256 over fields with their lengths in front, so that no two layouts of fields give the same bytes. Whatever is
signed begins with the tag of its kind, so that a signature of one kind is none of another.

The stand-alone verifier of exports runs on this module: it imports nothing of SynergyMesh that needs a package.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from struct import Struct
from typing import Any, TypeVar

MESH = ""
"""The tenant id of the chain that is about the mesh itself."""

HASH_BYTES = 32
NOTHING = bytes(HASH_BYTES)
"""Stands for the hash of the checkpoint before the first one."""

ENTRY_TAG = b"synergymesh/audit/entry/2"
GENESIS_TAG = b"synergymesh/audit/genesis/1"
HEAD_TAG = b"synergymesh/audit/head/1"
CHECKPOINT_TAG = b"synergymesh/audit/checkpoint/1"
TOMBSTONE_TAG = b"synergymesh/audit/tombstone/1"
KEY_LINK_TAG = b"synergymesh/audit/key-link/1"
MANIFEST_TAG = b"synergymesh/audit/manifest/1"

SEQ_MAX = 2**63 - 1
"""The largest integer of a database column."""

_LENGTH = Struct(">I")
_LINK = "IQI32sI"
_HEAD = Struct(">IQI32s")

_encode = json.JSONEncoder(allow_nan=False, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode


def canonical(value: Any) -> bytes:
    """Give a value as JSON with sorted keys, without spaces, as UTF-8.

    msgspec with `order="sorted"` gives the same bytes for texts, integers, lists and objects.

    Raises:
        ValueError: it is no JSON, or text that is no UTF-8.
    """
    return _encode(value).encode()


# --- chains ---------------------------------------------------------------------------------------------------------


def _fields(*values: bytes) -> bytes:
    return b"".join(part for value in values for part in (_LENGTH.pack(len(value)), value))


@lru_cache(4_096)
def chain_prefix(tenant_id: str) -> bytes:
    """Give what is hashed in front of every link of a tenant's chain."""
    return _fields(ENTRY_TAG, tenant_id.encode())


@lru_cache(256)
def _link_behind(length: int) -> Callable[..., bytes]:
    """Give what packs a link behind a prefix of that length."""
    return Struct(f">{length}s{_LINK}").pack


def genesis_hash(log_id: str, tenant_id: str) -> bytes:
    """Give the hash that a tenant's first entry follows: a chain fits into one log and one tenant only."""
    return sha256(_fields(GENESIS_TAG, log_id.encode(), tenant_id.encode())).digest()


def chain_hash(tenant_id: str, seq: int, previous_hash: bytes, payload: bytes) -> bytes:
    """Give the hash of one entry in its tenant's chain, over its exact bytes.

    Raises:
        ValueError: the hash before it has not 32 bytes.
    """
    return chain_hashes(tenant_id, seq, previous_hash, (payload,))[0]


def chain_hashes(tenant_id: str, first_seq: int, previous_hash: bytes, payloads: Iterable[bytes]) -> list[bytes]:
    """Give the hashes of entries that follow each other, from `first_seq` on; the last one is the new head.

    Raises:
        ValueError: the hash has not 32 bytes.
    """
    if len(previous_hash) != HASH_BYTES:
        raise ValueError("a hash must have 32 bytes")
    prefix = chain_prefix(tenant_id)
    # The prefix goes through the same call: joining it costs as much as a tenth of the hash.
    pack, size = _link_behind(len(prefix)), HASH_BYTES
    hashes: list[bytes] = []
    for seq, payload in enumerate(payloads, first_seq):
        previous_hash = sha256(pack(prefix, 8, seq, size, previous_hash, len(payload)) + payload).digest()
        hashes.append(previous_hash)
    return hashes


# --- heads of all tenants -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, order=True)
class Head:
    """The last sealed entry of a tenant: its number in the chain and its hash."""

    tenant_id: str
    seq: int
    hash: bytes


def is_place(seq: object, hash_: object) -> bool:
    """Whether these are a number and a hash in a chain: a database lets anything stand in a column."""
    return (
        isinstance(seq, int)
        and not isinstance(seq, bool)
        and 0 < seq <= SEQ_MAX
        and isinstance(hash_, bytes)
        and len(hash_) == HASH_BYTES
    )


def head_leaf(head: Head) -> bytes:
    """Give the leaf hash of a head."""
    leaf = _fields(HEAD_TAG, head.tenant_id.encode()) + _HEAD.pack(8, head.seq, HASH_BYTES, head.hash)
    return sha256(b"\0" + leaf).digest()


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """Give the root over leaf hashes, as RFC 6962 (section 2.1) forms it; of none, the hash of nothing."""
    level = list(leaves)
    if not level:
        return sha256(b"").digest()
    while len(level) > 1:
        level = _level_above(level)
    return level[0]


def _level_above(level: list[bytes]) -> list[bytes]:
    """Join neighbours; a node without one goes up as it is, which gives the same tree as the RFC's recursion."""
    nodes = [sha256(b"\1" + left + right).digest() for left, right in zip(level[::2], level[1::2], strict=False)]
    return [*nodes, level[-1]] if len(level) % 2 else nodes


def heads_root(heads: Iterable[Head]) -> bytes:
    """Give the root over the heads of all tenants, in the order of their ids."""
    return merkle_root([head_leaf(head) for head in sorted(heads)])


def inclusion_path(leaves: Sequence[bytes], index: int) -> list[tuple[bool, bytes]]:
    """Give the neighbours on the way from a leaf to the root, each with whether it stands on the left."""
    path: list[tuple[bool, bytes]] = []
    level = list(leaves)
    while len(level) > 1:
        neighbour = index ^ 1
        if neighbour < len(level):
            path.append((neighbour < index, level[neighbour]))
        level = _level_above(level)
        index //= 2
    return path


def root_of_path(leaf: bytes, path: Iterable[tuple[bool, bytes]]) -> bytes:
    """Give the root to which a leaf leads by its neighbours."""
    for is_left, neighbour in path:
        leaf = sha256(b"\1" + (neighbour + leaf if is_left else leaf + neighbour)).digest()
    return leaf


# --- what is signed -------------------------------------------------------------------------------------------------


def signed_bytes(tag: bytes, content: bytes) -> bytes:
    """Give the bytes that a signature of this kind of content is over."""
    return _fields(tag, content)


def key_id(public_key: bytes) -> str:
    """Give the short name of a public key: the beginning of its hash, as hex."""
    return sha256(public_key).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What the log was at a moment.

    Attributes:
        log_id: of the log; random, made with the database.
        number: 1 for the first checkpoint of the log.
        at: nanoseconds since 1970.
        root: over the heads of all tenants.
        heads: how many tenants have one.
        entries: how many entries are sealed.
        previous: the hash of the checkpoint before; NOTHING for the first.
        key_id: of the key that signs it.
    """

    log_id: str
    number: int
    at: int
    root: bytes
    heads: int
    entries: int
    previous: bytes
    key_id: str

    def content(self) -> bytes:
        """Give the bytes that are signed and hashed."""
        return canonical(
            {
                "log_id": self.log_id,
                "number": self.number,
                "at": self.at,
                "root": self.root.hex(),
                "heads": self.heads,
                "entries": self.entries,
                "previous": self.previous.hex(),
                "key_id": self.key_id,
            }
        )

    def hash(self) -> bytes:
        """Give the hash by which the next checkpoint names this one."""
        return sha256(signed_bytes(CHECKPOINT_TAG, self.content())).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Entries that are gone: from `first` to `last`, the hash before the first one, and the hash of the last one."""

    first: int
    last: int
    previous: bytes
    head: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Tombstone:
    """What was pruned of one day of one tenant, so that the chain can be followed over it.

    Attributes:
        log_id: of the log.
        tenant_id: whose.
        day: UTC, `2026-11-22`.
        gaps: ascending; what lies between them was kept.
        pruned_at: nanoseconds since 1970.
        checkpoint: the number of the last checkpoint before it, 0 when there was none.
        key_id: of the key that signs it.
    """

    log_id: str
    tenant_id: str
    day: str
    gaps: tuple[Gap, ...]
    pruned_at: int
    checkpoint: int
    key_id: str

    @property
    def count(self) -> int:
        """How many entries are gone."""
        return sum(gap.last - gap.first + 1 for gap in self.gaps)

    def content(self) -> bytes:
        """Give the bytes that are signed."""
        return canonical(
            {
                "log_id": self.log_id,
                "tenant_id": self.tenant_id,
                "day": self.day,
                "gaps": [[gap.first, gap.last, gap.previous.hex(), gap.head.hex()] for gap in self.gaps],
                "count": self.count,
                "pruned_at": self.pruned_at,
                "checkpoint": self.checkpoint,
                "key_id": self.key_id,
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyLink:
    """The step from one key to the next.

    Attributes:
        log_id: of the log.
        old, new: public keys of 32 bytes.
        checkpoint: the number of the last checkpoint before it, 0 when there was none: what the old key signs after
            that counts for nothing.
        previous: the hash of that checkpoint; NOTHING when there was none.
        at: nanoseconds since 1970.
    """

    log_id: str
    old: bytes
    new: bytes
    checkpoint: int
    previous: bytes
    at: int

    def content(self) -> bytes:
        """Give the bytes that both keys sign."""
        return canonical(
            {
                "log_id": self.log_id,
                "old": self.old.hex(),
                "new": self.new.hex(),
                "checkpoint": self.checkpoint,
                "previous": self.previous.hex(),
                "at": self.at,
            }
        )


# --- reading what was signed ----------------------------------------------------------------------------------------

T = TypeVar("T", Checkpoint, Tombstone, KeyLink)


def read_checkpoint(content: bytes) -> Checkpoint:
    """Read the content of a checkpoint.

    Raises:
        ValueError: it is none.
    """
    fields = _object(content)
    checkpoint = Checkpoint(
        log_id=_text(fields, "log_id"),
        number=_number(fields, "number"),
        at=_number(fields, "at"),
        root=_hash(fields.get("root")),
        heads=_number(fields, "heads"),
        entries=_number(fields, "entries"),
        previous=_hash(fields.get("previous")),
        key_id=_text(fields, "key_id"),
    )
    return _same(checkpoint, content)


def read_tombstone(content: bytes) -> Tombstone:
    """Read the content of a tombstone.

    Raises:
        ValueError: it is none, or its gaps do not follow each other.
    """
    if not isinstance(content, bytes):
        raise ValueError("the content is not in bytes")
    fields = _object(content)
    listed = fields.get("gaps")
    if not isinstance(listed, list) or not listed:
        raise ValueError("gaps must be a list that is not empty")
    gaps: list[Gap] = []
    for item in listed:
        if not isinstance(item, list) or len(item) != 4:
            raise ValueError("a gap must be [first, last, previous, head]")
        first, last = _integer(item[0], "first"), _integer(item[1], "last")
        if not (gaps[-1].last if gaps else 0) < first <= last:
            raise ValueError("gaps must follow each other")
        gaps.append(Gap(first=first, last=last, previous=_hash(item[2]), head=_hash(item[3])))
    tombstone = Tombstone(
        log_id=_text(fields, "log_id"),
        tenant_id=_text(fields, "tenant_id"),
        day=_text(fields, "day"),
        gaps=tuple(gaps),
        pruned_at=_number(fields, "pruned_at"),
        checkpoint=_number(fields, "checkpoint"),
        key_id=_text(fields, "key_id"),
    )
    return _same(tombstone, content)


def read_key_link(content: bytes) -> KeyLink:
    """Read the content of a link between keys.

    Raises:
        ValueError: it is none.
    """
    fields = _object(content)
    link = KeyLink(
        log_id=_text(fields, "log_id"),
        old=_hash(fields.get("old")),
        new=_hash(fields.get("new")),
        checkpoint=_number(fields, "checkpoint"),
        previous=_hash(fields.get("previous")),
        at=_number(fields, "at"),
    )
    return _same(link, content)


def _same(read: T, content: bytes) -> T:
    if read.content() != content:
        raise ValueError("the content is not in its canonical form")
    return read


def _object(content: bytes) -> Mapping[str, Any]:
    try:
        fields = json.loads(content)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(fields, dict):
        raise ValueError("the content must be an object")
    return fields


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a text")
    return value


def _number(fields: Mapping[str, Any], name: str) -> int:
    return _integer(fields.get(name), name)


def _integer(value: object, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= SEQ_MAX:
        raise ValueError(f"{name} must be a whole number that is not negative")
    return value


def _hash(value: object) -> bytes:
    if not isinstance(value, str) or len(value) != 2 * HASH_BYTES:
        raise ValueError("a hash must be a text of 64 hexadecimal digits")
    return bytes.fromhex(value)
