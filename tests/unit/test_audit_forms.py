"""The bytes that the audit log hashes and signs."""

from __future__ import annotations

import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import synergymesh
from synergymesh.domain.audit.forms import (
    CHECKPOINT_TAG,
    ENTRY_TAG,
    NOTHING,
    SEQ_MAX,
    TOMBSTONE_TAG,
    Checkpoint,
    Gap,
    Head,
    KeyLink,
    Tombstone,
    canonical,
    chain_hash,
    chain_hashes,
    genesis_hash,
    head_leaf,
    heads_root,
    inclusion_path,
    key_id,
    merkle_root,
    read_checkpoint,
    read_key_link,
    read_tombstone,
    root_of_path,
    signed_bytes,
)

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
HASHES = st.binary(min_size=32, max_size=32)
NUMBERS = st.integers(0, SEQ_MAX)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
HEADS = st.builds(Head, TEXTS, NUMBERS, HASHES)
CHECKPOINTS = st.builds(
    Checkpoint,
    log_id=TEXTS,
    number=NUMBERS,
    at=NUMBERS,
    root=HASHES,
    heads=NUMBERS,
    entries=NUMBERS,
    previous=HASHES,
    key_id=TEXTS,
)
KEY_LINKS = st.builds(KeyLink, log_id=TEXTS, old=HASHES, new=HASHES, checkpoint=NUMBERS, previous=HASHES, at=NUMBERS)


@st.composite
def tombstones(draw: st.DrawFn) -> Tombstone:
    ends = sorted(draw(st.sets(st.integers(1, 10_000), min_size=2, max_size=8)))
    gaps = [
        Gap(first=first, last=last, previous=draw(HASHES), head=draw(HASHES))
        for first, last in zip(ends[::2], ends[1::2], strict=False)
    ]
    return Tombstone(
        log_id=draw(TEXTS),
        tenant_id=draw(TEXTS),
        day="2026-11-22",
        gaps=tuple(gaps),
        pruned_at=5,
        checkpoint=7,
        key_id=draw(TEXTS),
    )


@settings(deadline=None)
@given(VALUES)
def test_canonical_json_is_what_msgspec_writes_with_sorted_keys(value: Any) -> None:
    assert canonical(value) == msgspec.json.encode(value, order="sorted")
    assert msgspec.json.decode(canonical(value)) == value


@settings(deadline=None)
@given(st.dictionaries(TEXTS, st.integers(), max_size=6), st.randoms())
def test_the_order_of_keys_does_not_change_canonical_json(value: dict[str, int], random: Any) -> None:
    items = list(value.items())
    random.shuffle(items)
    assert canonical(dict(items)) == canonical(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800", {"a": "\udfff"}])
def test_what_has_no_canonical_form_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        canonical(value)


def link_hash(tenant: str, seq: int, before: bytes, payload: bytes) -> bytes:
    """Give what the hash of a link has to be, written out."""
    fields = (ENTRY_TAG, tenant.encode(), seq.to_bytes(8, "big"), before, payload)
    return sha256(b"".join(len(field).to_bytes(4, "big") + field for field in fields)).digest()


def test_a_link_is_the_hash_of_its_fields_with_their_lengths() -> None:
    before = bytes(range(32))
    assert chain_hash("tenant-1", 7, before, b"{}") == link_hash("tenant-1", 7, before, b"{}")


@settings(deadline=None)
@given(TEXTS, st.integers(1, 2**62), HASHES, st.lists(st.binary(max_size=20), max_size=6))
def test_many_links_at_once_are_the_same_as_one_by_one(
    tenant: str, first: int, before: bytes, payloads: list[bytes]
) -> None:
    expected = []
    previous = before
    for seq, payload in enumerate(payloads, first):
        previous = link_hash(tenant, seq, previous, payload)
        expected.append(previous)
    assert chain_hashes(tenant, first, before, payloads) == expected


LINKS = st.tuples(TEXTS, st.integers(1, 1_000), HASHES, st.binary(max_size=8))


@settings(deadline=None)
@given(LINKS, LINKS)
def test_two_links_have_one_hash_only_if_they_are_the_same(
    one: tuple[str, int, bytes, bytes], other: tuple[str, int, bytes, bytes]
) -> None:
    assert (chain_hash(*one) == chain_hash(*other)) == (one == other)


@settings(deadline=None)
@given(TEXTS, TEXTS, TEXTS, TEXTS)
def test_a_genesis_belongs_to_one_log_and_one_tenant(log: str, tenant: str, log2: str, tenant2: str) -> None:
    assert (genesis_hash(log, tenant) == genesis_hash(log2, tenant2)) == ((log, tenant) == (log2, tenant2))


def test_moving_a_boundary_between_fields_changes_the_hash() -> None:
    assert genesis_hash("ab", "c") != genesis_hash("a", "bc")
    assert signed_bytes(b"ab", b"c") != signed_bytes(b"a", b"bc")


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_hash_of_another_length_is_refused_and_not_padded(length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        chain_hash("t", 1, bytes(length), NOTHING)
    with pytest.raises(ValueError, match="32 bytes"):
        chain_hashes("t", 1, bytes(length), [b"{}"])


def reference_root(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, word by word."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha256(b"\1" + reference_root(leaves[:split]) + reference_root(leaves[split:])).digest()


@settings(deadline=None)
@given(st.lists(HASHES, max_size=40))
def test_the_root_is_that_of_the_rfc_and_every_leaf_leads_to_it(leaves: list[bytes]) -> None:
    root = merkle_root(leaves)
    assert root == reference_root(leaves)
    for index, leaf in enumerate(leaves):
        assert root_of_path(leaf, inclusion_path(leaves, index)) == root


@settings(deadline=None)
@given(st.lists(HEADS, min_size=1, max_size=8, unique_by=lambda head: head.tenant_id), st.data())
def test_the_root_of_heads_depends_on_each_of_them_and_not_on_their_order(
    heads: list[Head], data: st.DataObject
) -> None:
    root = heads_root(heads)
    assert heads_root(data.draw(st.permutations(heads))) == root
    place = data.draw(st.integers(0, len(heads) - 1))
    assert heads_root(heads[:place] + heads[place + 1 :]) != root
    head = heads[place]
    other = Head(head.tenant_id, head.seq ^ 1, head.hash)
    assert heads_root([*heads[:place], other, *heads[place + 1 :]]) != root
    assert head_leaf(other) != head_leaf(head)


@settings(deadline=None)
@given(CHECKPOINTS)
def test_a_checkpoint_is_read_as_it_was_written(checkpoint: Checkpoint) -> None:
    assert read_checkpoint(checkpoint.content()) == checkpoint


@settings(deadline=None)
@given(tombstones())
def test_a_tombstone_is_read_as_it_was_written(tombstone: Tombstone) -> None:
    assert read_tombstone(tombstone.content()) == tombstone


@settings(deadline=None)
@given(KEY_LINKS)
def test_a_key_link_is_read_as_it_was_written(link: KeyLink) -> None:
    assert read_key_link(link.content()) == link


@settings(deadline=None)
@given(CHECKPOINTS, st.binary(max_size=6), st.data())
def test_a_checkpoint_with_other_bytes_is_refused_or_another_checkpoint(
    checkpoint: Checkpoint, bytes_: bytes, data: st.DataObject
) -> None:
    content = checkpoint.content()
    place = data.draw(st.integers(0, len(content)))
    changed = content[:place] + bytes_ + content[place + len(bytes_) :]
    try:
        read = read_checkpoint(changed)
    except ValueError:
        return
    assert read.content() == changed
    assert (read.hash() == checkpoint.hash()) == (changed == content)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b"null", b"[" * 100_000, b'{"gaps":[]}', b'{"gaps":[[1]]}', b"\xff"]
)
def test_what_is_no_content_is_a_value_error(content: bytes) -> None:
    for read in (read_checkpoint, read_tombstone, read_key_link):
        with pytest.raises(ValueError, match=r"."):
            read(content)


def test_gaps_that_overlap_are_refused() -> None:
    gap = Gap(first=3, last=5, previous=NOTHING, head=NOTHING)
    overlapping = Tombstone(
        log_id="l", tenant_id="t", day="2026-11-22", gaps=(gap, gap), pruned_at=1, checkpoint=0, key_id="k"
    ).content()
    with pytest.raises(ValueError, match="follow each other"):
        read_tombstone(overlapping)


def test_a_signature_of_one_kind_is_none_of_another() -> None:
    assert signed_bytes(CHECKPOINT_TAG, b"{}") != signed_bytes(TOMBSTONE_TAG, b"{}")


def test_a_key_has_a_short_name() -> None:
    assert key_id(NOTHING) == sha256(NOTHING).hexdigest()[:16]


def test_the_forms_need_only_the_standard_library() -> None:
    code = (
        "import sys, synergymesh.domain.audit.forms\n"
        "known = sys.stdlib_module_names\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules} - known - {'synergymesh', '__main__'}))"
    )
    # without site-packages, so the package itself has to be named
    environment = os.environ | {"PYTHONPATH": str(Path(synergymesh.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], check=True, capture_output=True, text=True, env=environment
    )
    assert done.stdout.strip() == "[]"
