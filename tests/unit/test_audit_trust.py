"""Checkpoints, keys and links: what a signature vouches for, and what it does not."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from synergymesh.audit.checkpoint_file import CheckpointFile
from synergymesh.audit.keys import (
    SigningKey,
    load,
    load_or_create,
    public_pem,
    read_public,
    verify_signature,
    write_key,
)
from synergymesh.domain.audit.forms import (
    CHECKPOINT_TAG,
    KEY_LINK_TAG,
    NOTHING,
    TOMBSTONE_TAG,
    Checkpoint,
    Gap,
    Head,
    KeyLink,
    Tombstone,
    heads_root,
)
from synergymesh.domain.audit.trust import (
    SignedCheckpoint,
    SignedLink,
    SignedTombstone,
    Trust,
    read_record,
    verify_checkpoints,
    verify_tombstones,
)
from synergymesh.domain.audit.verification import Damage
from synergymesh.errors import AuditKeyError

LOG = "log-1"
KEY = SigningKey.generate()
OTHER = SigningKey.generate()


def hash_of(number: int) -> bytes:
    return bytes([number]) * 32


class Publisher:
    """Publish checkpoints of heads, as the engine does."""

    def __init__(self, key: SigningKey = KEY, log: str = LOG) -> None:
        self.key = key
        self.log = log
        self.lines: list[bytes] = []
        self.heads: dict[str, Head] = {}
        self.last: Checkpoint | None = None

    def publish(self, *, full: bool = False, number: int | None = None, **heads: int) -> bytes:
        changed = [Head(tenant, seq, hash_of(seq) if seq else NOTHING) for tenant, seq in heads.items()]
        for head in changed:
            if head.seq:
                self.heads[head.tenant_id] = head
            else:
                del self.heads[head.tenant_id]
        full = full or self.last is None
        self.last = Checkpoint(
            log_id=self.log,
            number=number or (1 if self.last is None else self.last.number + 1),
            at=1_000,
            root=heads_root(self.heads.values()),
            heads=len(self.heads),
            entries=sum(head.seq for head in self.heads.values()),
            previous=NOTHING if self.last is None else self.last.hash(),
            key_id=self.key.key_id,
        )
        signed = SignedCheckpoint(
            checkpoint=self.last,
            signature=self.key.sign(CHECKPOINT_TAG, self.last.content()),
            heads=tuple(self.heads.values() if full else changed),
            full=full,
        )
        self.lines.append(signed.line())
        return self.lines[-1]

    def rotate(self, new: SigningKey) -> None:
        self.lines.append(link(self.key, new, self.last).line())
        self.key = new


def link(old: SigningKey, new: SigningKey, last: Checkpoint | None = None) -> SignedLink:
    made = KeyLink(
        log_id=LOG,
        old=old.public,
        new=new.public,
        checkpoint=0 if last is None else last.number,
        previous=NOTHING if last is None else last.hash(),
        at=5,
    )
    content = made.content()
    return SignedLink(
        link=made, signature=old.sign(KEY_LINK_TAG, content), signature_of_new=new.sign(KEY_LINK_TAG, content)
    )


def trust(*keys: SigningKey, log: str = "") -> Trust:
    return Trust([key.public for key in keys or (KEY,)], verify_signature, log_id=log)


def published() -> Publisher:
    publisher = Publisher()
    publisher.publish(a=3, b=1)
    publisher.publish(a=5)
    publisher.publish(c=2, b=4)
    publisher.publish(a=6, c=0)
    return publisher


def damages(lines: list[bytes], given: Trust | None = None) -> list[tuple[Damage, int | None]]:
    return [(finding.damage, finding.seq) for finding in verify_checkpoints(lines, given or trust()).findings]


def test_checkpoints_pin_the_heads_that_they_signed() -> None:
    pinned = verify_checkpoints(published().lines, trust(), until=3)
    assert pinned.findings == []
    assert pinned.count == 4
    assert pinned.last is not None
    assert pinned.pins == {
        "a": {3: hash_of(3), 5: hash_of(5), 6: hash_of(6)},
        "b": {1: hash_of(1), 4: hash_of(4)},
        "c": {2: hash_of(2)},
    }
    assert set(pinned.heads) == {"a", "b"}
    assert pinned.known == {"a": 5, "b": 4, "c": 2}
    assert pinned.hashes[4] == pinned.last.hash()
    pinned = verify_checkpoints(published().lines, trust(), since=2)
    assert pinned.pins == {"a": {5: hash_of(5), 6: hash_of(6)}, "b": {4: hash_of(4)}, "c": {2: hash_of(2)}}
    assert pinned.start == {"a": Head("a", 5, hash_of(5)), "b": Head("b", 1, hash_of(1))}


def test_a_record_is_read_as_it_was_published() -> None:
    for line in [*published().lines, link(KEY, OTHER).line()]:
        assert read_record(line).line() == line


def test_lines_that_come_twice_do_no_harm() -> None:
    lines = published().lines
    assert damages([line for line in lines for _ in range(2)]) == []


def test_checkpoints_that_were_put_away_are_not_missed_where_one_has_all_heads() -> None:
    publisher = published()
    publisher.publish(full=True, a=7)
    publisher.publish(b=8)
    pinned = verify_checkpoints(publisher.lines[4:], trust())
    assert pinned.findings == []
    assert pinned.heads == publisher.heads
    assert damages(publisher.lines[5:]) == [(Damage.MISSING, 6)]


def test_a_checkpoint_taken_out_is_missing() -> None:
    lines = published().lines
    assert damages([lines[0], *lines[2:]]) == [(Damage.MISSING, 2)]


def test_checkpoints_that_changed_places_are_found() -> None:
    lines = published().lines
    found = damages([lines[0], lines[2], lines[1], lines[3]])
    assert found[0] == (Damage.MISSING, 2)
    assert (Damage.REORDERED, 2) in found


def test_two_checkpoints_of_one_number_are_a_fork() -> None:
    one, other = Publisher(), Publisher()
    one.publish(a=1)
    other.publish(a=1)
    one.publish(a=2)
    other.publish(a=3)
    assert damages([*one.lines, other.lines[1]]) == [(Damage.FORKED, 2)]


def test_a_checkpoint_that_follows_another_history_is_a_fork() -> None:
    one, other = Publisher(), Publisher()
    one.publish(a=1)
    other.publish(a=2)
    other.publish(a=3)
    assert damages([one.lines[0], other.lines[1]]) == [(Damage.FORKED, 2)]


def test_a_head_that_goes_back_is_a_rollback_and_one_that_changes_a_fork() -> None:
    publisher = published()
    publisher.publish(a=4)
    assert damages(publisher.lines) == [(Damage.ROLLED_BACK, 5)]
    publisher = published()
    publisher.heads["a"] = Head("a", 6, hash_of(9))
    publisher.publish(full=True)
    assert damages(publisher.lines) == [(Damage.FORKED, 5)]


@pytest.mark.parametrize(
    ("old", "new", "damage"),
    [
        (b'"signature":"', b'"signature":"00', Damage.UNSIGNED),
        (b'"signature"', b'"unsigned"', Damage.UNSIGNED),
        (b'"at":1000', b'"at":1001', Damage.BAD_SIGNATURE),
        (b'"entries":11', b'"entries":12', Damage.BAD_SIGNATURE),
        pytest.param(KEY.key_id.encode(), OTHER.key_id.encode(), Damage.WRONG_KEY, id="other key"),
    ],
)
def test_a_changed_checkpoint_is_found(old: bytes, new: bytes, damage: Damage) -> None:
    lines = published().lines
    assert old in lines[2]
    lines[2] = lines[2].replace(old, new)
    assert damages(lines)[0] == (damage, 3)


def test_a_signature_that_was_cut_off_is_none() -> None:
    lines = published().lines
    at = lines[3].index(b'"signature":"') + len(b'"signature":"')
    lines[3] = lines[3][:at] + lines[3][at + 2 :]
    assert damages(lines) == [(Damage.UNSIGNED, 4)]


def test_a_changed_head_beside_a_checkpoint_is_found() -> None:
    lines = published().lines
    lines[1] = lines[1].replace(hash_of(5).hex().encode(), hash_of(6).hex().encode())
    assert damages(lines)[0] == (Damage.CHANGED, 2)


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line.replace(b'"seq"', b'"seq" '),
        lambda line: line.replace(b',"heads"', b', "heads"'),
        lambda line: line[:-1] + b',"x":1}',
        lambda line: line.replace(b'"full":true', b'"full":1'),
        lambda line: line.replace(b'"full":true', b'"full":"x"'),
        lambda line: line.replace(b'[["a",3,', b'[["a",3.0,'),
        lambda line: line.replace(b'[["a",3,', b'[["a",%d,' % 2**70),
        lambda line: line.replace(b'[["a",3,', b'[["\\ud800",3,'),
        lambda line: line.replace(b'[["a",3,', b'[["a",-3,'),
    ],
)
def test_a_line_in_another_form_is_unreadable(change: Callable[[bytes], bytes]) -> None:
    line = published().lines[0]
    changed = change(line)
    if changed != line:
        assert damages([changed]) == [(Damage.UNREADABLE, None)]


def test_capital_digits_are_none_of_a_signature() -> None:
    head, _, signature = published().lines[0].partition(b'"signature":')
    assert damages([head + b'"signature":' + signature.upper()])[0][0] in (Damage.UNSIGNED, Damage.UNREADABLE)


def test_what_is_wrong_before_the_checkpoint_to_begin_from_is_a_note() -> None:
    publisher = published()
    publisher.publish(full=True, a=4, b=4)
    publisher.publish(a=5)
    assert damages(publisher.lines) == [(Damage.ROLLED_BACK, 5)]
    pinned = verify_checkpoints([b"x", *publisher.lines], trust(), since=5)
    assert pinned.findings == []
    assert [note.damage for note in pinned.notes] == [Damage.UNREADABLE, Damage.ROLLED_BACK]
    assert pinned.pins["a"] == {4: hash_of(4), 5: hash_of(5)}, "what was before pins nothing"
    later = verify_checkpoints([*publisher.lines, b"x"], trust(), since=5)
    assert [finding.damage for finding in later.findings] == [Damage.UNREADABLE]


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b"{}", b'{"checkpoint":{},"heads":[]}', b"\xff", b"[" * 100_000])
def test_a_line_that_is_no_record_is_unreadable(line: bytes) -> None:
    lines = published().lines
    assert damages([*lines, line]) == [(Damage.UNREADABLE, None)]


def test_another_key_or_another_log_is_not_trusted() -> None:
    assert damages(published().lines, trust(OTHER))[0] == (Damage.WRONG_KEY, 1)
    assert damages(published().lines, trust(log="log-2"))[0] == (Damage.WRONG_LOG, 1)
    stranger = Publisher(log="log-2")
    stranger.publish(a=1)
    assert damages([*published().lines, *stranger.lines])[0] == (Damage.WRONG_LOG, 1)


def rotated() -> list[bytes]:
    publisher = published()
    publisher.rotate(OTHER)
    publisher.publish(a=9)
    return publisher.lines


@pytest.mark.parametrize("known", [KEY, OTHER])
def test_a_link_makes_both_keys_trusted_when_one_is(known: SigningKey) -> None:
    assert damages(rotated(), trust(known)) == []


def test_a_link_counts_only_when_both_keys_signed_it() -> None:
    good = link(KEY, OTHER)
    for broken, damage in (
        (SignedLink(link=good.link, signature=good.signature, signature_of_new=good.signature), Damage.BAD_SIGNATURE),
        (SignedLink(link=good.link, signature=b"", signature_of_new=good.signature_of_new), Damage.UNSIGNED),
    ):
        given = trust()
        assert [finding.damage for finding in given.follow([broken])] == [damage]
        assert OTHER.key_id not in given.keys


def test_a_link_between_strangers_makes_nobody_trusted_and_is_reported() -> None:
    given = trust(SigningKey.generate())
    assert [finding.damage for finding in given.follow([link(KEY, OTHER)])] == [Damage.WRONG_KEY]
    assert len(given.keys) == 1


THIEF = SigningKey.generate()


@pytest.mark.parametrize("known", [(OTHER,), (KEY,), (KEY, OTHER), (OTHER, KEY)])
@pytest.mark.parametrize("is_first", [True, False])
def test_a_second_successor_of_a_key_is_a_fork_and_its_checkpoints_count_only_for_who_trusts_the_old_key(
    known: tuple[SigningKey, ...], is_first: bool
) -> None:
    good, stolen = link(KEY, OTHER), link(KEY, THIEF)
    given = trust(*known)
    findings = given.follow([stolen, good] if is_first else [good, stolen])
    assert [finding.damage for finding in findings] == [Damage.FORKED]
    if OTHER in known:
        assert THIEF.key_id not in given.keys


def test_a_key_that_was_replaced_signs_no_further_checkpoint() -> None:
    publisher = published()
    publisher.rotate(OTHER)
    publisher.key = KEY
    publisher.publish(a=9)
    for known in (KEY, OTHER):
        assert damages(publisher.lines, trust(known)) == [(Damage.REPLACED_KEY, 5)]


def test_history_that_a_replaced_key_signed_anew_is_found_by_the_link_that_ended_it() -> None:
    publisher = published()
    publisher.rotate(OTHER)
    publisher.publish(a=9)
    ended = publisher.lines[4]
    forged = Publisher()
    forged.publish(a=3)
    assert damages([ended, *forged.lines], trust(OTHER)) == [(Damage.MISSING, 4)]
    for count in (4, 5, 6):
        forged.publish(a=count)
    assert damages([*forged.lines, ended], trust(OTHER)) == [(Damage.FORKED, 4)]
    assert damages([ended], trust(OTHER)) == [(Damage.MISSING, 4)]


def test_two_replacements_end_each_key_at_its_own_checkpoint() -> None:
    third = SigningKey.generate()
    publisher = published()
    publisher.rotate(OTHER)
    publisher.publish(a=9)
    publisher.rotate(third)
    publisher.publish(a=10)
    for known in (KEY, OTHER, third):
        assert damages(publisher.lines, trust(known)) == []
    publisher.key = OTHER
    publisher.publish(a=11)
    assert damages(publisher.lines, trust(third)) == [(Damage.REPLACED_KEY, 7)]
    assert verify_tombstones([tombstone(checkpoint=5)], "a", ended(third, publisher.lines))[1] != []
    assert verify_tombstones([tombstone(checkpoint=4)], "a", ended(third, publisher.lines))[1] == []


def ended(known: SigningKey, lines: list[bytes]) -> Trust:
    """Give a trust that has followed the links of a file."""
    given = trust(known)
    verify_checkpoints(lines, given)
    return given


def test_lines_before_a_replacement_can_be_put_away() -> None:
    publisher = published()
    publisher.rotate(OTHER)
    publisher.publish(full=True, a=9)
    assert damages(publisher.lines[5:], trust(OTHER)) == []
    assert damages(publisher.lines[4:], trust(OTHER)) == []


def test_a_chain_of_links_in_any_order_is_followed() -> None:
    third = SigningKey.generate()
    given = trust()
    assert given.follow([link(OTHER, third), link(KEY, OTHER)]) == []
    assert set(given.keys) == {KEY.key_id, OTHER.key_id, third.key_id}


def tombstone(tenant: str = "a", key: SigningKey = KEY, log: str = LOG, checkpoint: int = 0) -> SignedTombstone:
    made = Tombstone(
        log_id=log,
        tenant_id=tenant,
        day="2026-11-22",
        gaps=(Gap(first=2, last=3, previous=NOTHING, head=NOTHING),),
        pruned_at=5,
        checkpoint=checkpoint,
        key_id=key.key_id,
    )
    return SignedTombstone(content=made.content(), signature=key.sign(TOMBSTONE_TAG, made.content()))


@pytest.mark.parametrize(
    ("stone", "damage"),
    [
        (tombstone("b"), Damage.FOREIGN),
        (tombstone(key=OTHER), Damage.WRONG_KEY),
        (tombstone(log="log-2"), Damage.WRONG_LOG),
        (SignedTombstone(content=tombstone().content, signature=b""), Damage.UNSIGNED),
        (SignedTombstone(content=tombstone().content, signature=tombstone("b").signature), Damage.BAD_SIGNATURE),
        (SignedTombstone(content=b"{}", signature=b""), Damage.UNREADABLE),
    ],
)
def test_a_tombstone_that_nobody_signed_accounts_for_nothing(stone: SignedTombstone, damage: Damage) -> None:
    good, findings = verify_tombstones([stone], "a", trust(log=LOG))
    assert good == []
    assert [finding.damage for finding in findings] == [damage]


def test_a_signed_tombstone_counts() -> None:
    good, findings = verify_tombstones([tombstone()], "a", trust())
    assert (len(good), findings) == (1, [])
    assert good[0].count == 2


def test_a_signature_over_a_checkpoint_is_none_over_a_tombstone() -> None:
    content = tombstone().content
    swapped = SignedTombstone(content=content, signature=KEY.sign(CHECKPOINT_TAG, content))
    assert verify_tombstones([swapped], "a", trust())[1][0].damage is Damage.BAD_SIGNATURE


# --- the key file ---------------------------------------------------------------------------------------------------


def test_a_key_is_made_on_first_use_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "audit" / "key.pem"
    key, is_new = load_or_create(path)
    assert is_new
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    again, is_new = load_or_create(path)
    assert not is_new
    assert again.public == key.public
    assert os.listdir(path.parent) == ["key.pem"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660, 0o644])
def test_a_key_that_others_may_touch_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key.pem"
    load_or_create(path)
    path.chmod(mode)
    with pytest.raises(AuditKeyError, match="chmod 600"):
        load(path)


@pytest.mark.parametrize("content", [b"", b"secret", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_file_that_is_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(AuditKeyError, match="not an Ed25519"):
        load_or_create(path)
    assert path.read_bytes() == content


def test_a_key_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AuditKeyError, match="cannot be read or made"):
        load_or_create(tmp_path / "file" / "key.pem")
    with pytest.raises(AuditKeyError, match="not a file"):
        load_or_create(tmp_path)


def test_a_key_is_not_overwritten_by_a_second_one(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    assert write_key(path, KEY, replace=False)
    assert not write_key(path, OTHER, replace=False)
    assert load(path).public == KEY.public
    assert write_key(path, OTHER, replace=True)
    assert load(path).public == OTHER.public


def test_a_public_key_is_read_in_every_form_in_which_it_is_shown(tmp_path: Path) -> None:
    file = tmp_path / "key.pub"
    file.write_text(public_pem(KEY.public))
    for text in (str(file), public_pem(KEY.public), KEY.public.hex(), f" {KEY.public.hex().upper()}\n"):
        assert read_public(text) == KEY.public


@pytest.mark.parametrize("text", ["", "abc", "00" * 31, "/nowhere/key", "a\0b", "-----BEGIN PUBLIC KEY-----\nx"])
def test_what_is_no_public_key_is_refused(text: str) -> None:
    with pytest.raises(AuditKeyError, match="public key"):
        read_public(text)


def test_a_private_key_is_no_public_key(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    write_key(path, KEY, replace=False)
    with pytest.raises(AuditKeyError, match="no Ed25519 public key"):
        read_public(str(path))


# --- the file of checkpoints ----------------------------------------------------------------------------------------


def test_lines_are_appended_and_read_back_from_both_ends(tmp_path: Path) -> None:
    file = CheckpointFile(tmp_path / "new" / "checkpoints.jsonl")
    assert list(file.lines()) == []
    assert file.last_checkpoint() is None
    lines = rotated()
    sizes = [file.append(line) for line in lines]
    assert [line for _, line in file.lines()] == lines
    assert [offset for offset, _ in file.lines()] == sizes
    assert [line for _, line in file.lines(sizes[1])] == lines[2:]
    newest = file.last_checkpoint()
    assert newest is not None
    assert newest.line() == lines[-1]
    assert [each.link.new for each in file.links()] == [OTHER.public]


def test_a_line_that_a_crash_cut_off_is_removed_before_the_next_one(tmp_path: Path) -> None:
    file = CheckpointFile(tmp_path / "checkpoints.jsonl")
    lines = published().lines
    file.append(lines[0])
    with file.path.open("ab") as torn:
        torn.write(lines[1][:50])
    newest = file.last_checkpoint()
    assert newest is not None
    assert newest.checkpoint.number == 1
    file.append(lines[1])
    assert [line for _, line in file.lines()] == lines[:2]


def test_the_newest_checkpoint_is_found_behind_lines_longer_than_a_block(tmp_path: Path) -> None:
    file = CheckpointFile(tmp_path / "checkpoints.jsonl")
    publisher = Publisher()
    for count in range(3):
        publisher.publish(full=True, **{f"tenant-{number:05}": count + 1 for number in range(1_600)})
        file.append(publisher.lines[-1])
        assert len(publisher.lines[-1]) > 1 << 17
    file.append(link(KEY, OTHER).line())
    newest = file.last_checkpoint()
    assert newest is not None
    assert newest.line() == publisher.lines[-1]
