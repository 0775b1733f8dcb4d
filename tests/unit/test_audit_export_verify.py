"""The stand-alone verifier: exports that somebody has changed, and exports of hostile content."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from synergymesh.audit import verify as verifier
from synergymesh.audit.export_format import (
    LINE_BYTES_MAX,
    Section,
    as_ascii,
    manifest_path,
    read_line,
    read_manifest,
    write_line,
)
from synergymesh.audit.export_writer import Asked, Entry, ExportWriter, FileInPlace, Signing
from synergymesh.audit.keys import SigningKey, public_pem
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
    canonical,
    chain_hashes,
    genesis_hash,
    heads_root,
)
from synergymesh.domain.audit.trust import SignedCheckpoint, SignedLink, SignedTombstone
from synergymesh.domain.audit.verification import Damage, LogReport

LOG = "log-1"
KEY = SigningKey.generate()
OTHER = SigningKey.generate()
ALL = Asked()

HOSTILE = '=1+2\x00\r\n\t\x1b[31m\x9b31m\u2028\u2029\x85\u202e\x7f","hash":"\U0001f600\\\'|@-+'


def chain(tenant: str, count: int, actor: str = "user/alice") -> list[Entry]:
    payloads = [
        canonical({"tenant_id": tenant, "actor": actor, "entity": f"run/{number}", "at": number})
        for number in range(1, count + 1)
    ]
    hashes = chain_hashes(tenant, 1, genesis_hash(LOG, tenant), payloads)
    return [(number, hash_, each) for number, (hash_, each) in enumerate(zip(hashes, payloads, strict=True), 1)]


def head_of(tenant: str, entries: list[Entry], number: int) -> Head:
    return Head(tenant, number, entries[number - 1][1] if number else genesis_hash(LOG, tenant))


def export(
    path: Path,
    tenants: dict[str, list[Entry]],
    *,
    key: SigningKey = KEY,
    links: tuple[bytes, ...] = (),
    first: int = 1,
    tombstones: dict[str, list[SignedTombstone]] | None = None,
    pruned: tuple[int, ...] = (),
    checkpoint: Checkpoint | None = None,
    asked: Asked = ALL,
    end: int | None = None,
) -> Path:
    with FileInPlace(path) as file:
        writer = ExportWriter(file, LOG)
        for tenant, entries in sorted(tenants.items()):
            rows = [entry for entry in entries[first - 1 :] if entry[0] not in pruned]
            writer.add(tenant, rows)
            stones = (tombstones or {}).get(tenant, [])
            section = Section(
                before=head_of(tenant, entries, first - 1),
                head=head_of(tenant, entries, len(entries)),
                end=len(entries) if end is None else end,
                count=len(rows),
            )
            writer.end_tenant(section, stones)
        writer.finish(Signing(key=key, checkpoint=checkpoint, at=7, key_links=links), asked)
    return path


def verify(path: Path, *keys: SigningKey, checkpoints: tuple[bytes, ...] = ()) -> LogReport:
    return verifier.verify_export(path, manifest_path(path), [key.public for key in keys or (KEY,)], checkpoints)


def found(path: Path, *keys: SigningKey) -> tuple[Damage, str | None, int | None]:
    report = verify(path, *keys)
    assert report.findings, "nothing was found"
    first = report.findings[0]
    return first.damage, first.tenant_id, first.seq


TENANTS = {"": chain("", 4), "tenant-a": chain("tenant-a", 9), "tenant-b": chain("tenant-b", 3)}


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    return export(tmp_path / "log.jsonl", TENANTS)


def test_a_clean_export_is_intact(exported: Path) -> None:
    report = verify(exported)
    assert report.is_intact
    assert (report.entries, report.chains, report.log_id) == (16, 3, LOG)
    assert sorted(path.name for path in exported.parent.iterdir()) == ["log.jsonl", "log.jsonl.manifest.json"]


def test_an_export_of_nothing_is_intact(tmp_path: Path) -> None:
    assert verify(export(tmp_path / "log.jsonl", {})).is_intact


def test_a_part_of_a_chain_is_verified_from_its_signed_beginning(tmp_path: Path) -> None:
    path = export(tmp_path / "log.jsonl", {"tenant-a": TENANTS["tenant-a"]}, first=4)
    assert verify(path).is_intact
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[1:]))
    assert found(path) == (Damage.MISSING, "tenant-a", 4)


Lines = list[bytes]


def edited(change: Callable[[bytes], bytes], number: int) -> Callable[[Lines], Lines]:
    return lambda lines: [*lines[:number], change(lines[number]), *lines[number + 1 :]]


# Lines 0 to 3 are those of the mesh, 4 to 12 those of tenant-a, 13 to 15 those of tenant-b.
ATTACKS: dict[str, tuple[Callable[[Lines], Lines], Damage, str | None, int | None]] = {
    "a field": (edited(lambda line: line.replace(b"alice", b"mallo"), 6), Damage.CHANGED, "tenant-a", 3),
    "a hash": (
        edited(lambda line: line.replace(b'"hash":"', b'"hash":"0')[:-1] + b"\n", 6),
        Damage.UNREADABLE,
        "tenant-a",
        3,
    ),
    "one gone": (lambda lines: [*lines[:6], *lines[7:]], Damage.MISSING, "tenant-a", 3),
    "the tail of a tenant": (lambda lines: [*lines[:11], *lines[13:]], Damage.TRUNCATED, "tenant-a", 8),
    "the tail of the file": (lambda lines: lines[:14], Damage.TRUNCATED, "tenant-b", 2),
    "a whole tenant": (lambda lines: [*lines[:4], *lines[13:]], Damage.MISSING, "tenant-a", 1),
    "two swapped": (lambda lines: [*lines[:6], lines[7], lines[6], *lines[8:]], Damage.REORDERED, "tenant-a", 3),
    "one twice": (lambda lines: [*lines[:7], lines[6], *lines[7:]], Damage.DUPLICATE, "tenant-a", 3),
    "one of another tenant between": (
        lambda lines: [*lines[:7], lines[14], *lines[7:]],
        Damage.TRUNCATED,
        "tenant-a",
        4,
    ),
    "one given to another tenant": (
        edited(lambda line: line.replace(b'"tenant":"tenant-a"', b'"tenant":"tenant-b"'), 12),
        Damage.TRUNCATED,
        "tenant-a",
        9,
    ),
    "a line cut off": (edited(lambda line: line[:40], 15), Damage.UNREADABLE, "tenant-b", 3),
    "an empty line": (lambda lines: [*lines[:6], b"\n", *lines[6:]], Damage.UNREADABLE, "tenant-a", 3),
    "a line behind the end": (lambda lines: [*lines, b"{}\n"], Damage.UNREADABLE, None, None),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_every_change_to_the_file_is_found_at_its_first_bad_entry(exported: Path, attack: str) -> None:
    change, damage, tenant, seq = ATTACKS[attack]
    lines = exported.read_bytes().splitlines(keepends=True)
    exported.write_bytes(b"".join(change(lines)))
    assert found(exported) == (damage, tenant, seq)


def test_a_chain_computed_anew_without_the_key_is_found(tmp_path: Path, exported: Path) -> None:
    forged = dict(TENANTS) | {"tenant-a": chain("tenant-a", 9, actor="user/mallory")}
    other = export(tmp_path / "forged.jsonl", forged)
    exported.write_bytes(other.read_bytes())
    assert found(exported) == (Damage.FORKED, "tenant-a", 9)


def test_an_export_signed_with_another_key_is_found(tmp_path: Path) -> None:
    path = export(tmp_path / "log.jsonl", TENANTS, key=OTHER)
    assert found(path) == (Damage.WRONG_KEY, None, None)


def test_an_export_that_its_own_key_signed_still_has_to_fit_to_checkpoints_kept_elsewhere(tmp_path: Path) -> None:
    heads = [head_of(tenant, entries, len(entries)) for tenant, entries in TENANTS.items()]
    checkpoint = Checkpoint(
        log_id=LOG, number=1, at=1, root=heads_root(heads), heads=3, entries=16, previous=NOTHING, key_id=KEY.key_id
    )
    line = SignedCheckpoint(
        checkpoint=checkpoint, signature=KEY.sign(CHECKPOINT_TAG, checkpoint.content()), heads=tuple(heads), full=True
    ).line()
    assert verify(export(tmp_path / "log.jsonl", TENANTS), checkpoints=(line,)).is_intact
    forged = dict(TENANTS) | {"tenant-a": chain("tenant-a", 9, actor="user/mallory")}
    report = verify(export(tmp_path / "forged.jsonl", forged), checkpoints=(line,))
    assert [(each.damage, each.tenant_id, each.seq) for each in report.findings] == [(Damage.FORKED, "tenant-a", 9)]


def test_a_link_leads_from_the_known_key_to_the_one_that_signed(tmp_path: Path) -> None:
    made = KeyLink(log_id=LOG, old=KEY.public, new=OTHER.public, checkpoint=0, previous=NOTHING, at=5)
    content = made.content()
    signed = SignedLink(
        link=made, signature=KEY.sign(KEY_LINK_TAG, content), signature_of_new=OTHER.sign(KEY_LINK_TAG, content)
    )
    path = export(tmp_path / "log.jsonl", TENANTS, key=OTHER, links=(signed.line(),))
    assert verify(path, KEY).is_intact
    assert verify(path, OTHER).is_intact


def checkpoint_of(tenants: dict[str, list[Entry]], number: int = 1, key: SigningKey = KEY) -> tuple[bytes, Checkpoint]:
    """Give a published checkpoint of these chains, as a line and as it is."""
    heads = [head_of(tenant, entries, len(entries)) for tenant, entries in tenants.items()]
    made = Checkpoint(
        log_id=LOG,
        number=number,
        at=1,
        root=heads_root(heads),
        heads=len(heads),
        entries=sum(head.seq for head in heads),
        previous=NOTHING if number == 1 else bytes([1]) * 32,
        key_id=key.key_id,
    )
    signature = key.sign(CHECKPOINT_TAG, made.content())
    return SignedCheckpoint(checkpoint=made, signature=signature, heads=tuple(heads), full=True).line(), made


ONLY_B = {"tenant-b": TENANTS["tenant-b"]}


@pytest.mark.parametrize(
    ("tenants", "asked", "end", "expected"),
    [
        (TENANTS, Asked(), None, []),
        (ONLY_B, Asked(), None, [(Damage.MISSING, "", 1), (Damage.MISSING, "tenant-a", 1)]),
        (ONLY_B, Asked(tenant_id="tenant-b"), None, []),
        (TENANTS | {"tenant-a": TENANTS["tenant-a"][:5]}, Asked(), None, [(Damage.TRUNCATED, "tenant-a", 6)]),
        (TENANTS | {"tenant-a": TENANTS["tenant-a"][:5]}, Asked(until=5), None, [(Damage.TRUNCATED, "tenant-a", 6)]),
        ({"tenant-a": TENANTS["tenant-a"][:5]}, Asked(tenant_id="tenant-a", until=5), 9, []),
        (
            {"tenant-a": TENANTS["tenant-a"][:5]},
            Asked(tenant_id="tenant-a"),
            9,
            [(Damage.TRUNCATED, "tenant-a", 6)],
        ),
    ],
)
def test_an_export_is_compared_with_all_that_checkpoints_before_it_signed(
    tmp_path: Path,
    tenants: dict[str, list[Entry]],
    asked: Asked,
    end: int | None,
    expected: list[tuple[Damage, str, int]],
) -> None:
    line, made = checkpoint_of(TENANTS)
    path = export(tmp_path / "log.jsonl", tenants, asked=asked, end=end, checkpoint=made)
    report = verify(path, checkpoints=(line,))
    assert [(each.damage, each.tenant_id, each.seq) for each in report.findings] == expected
    earlier = export(tmp_path / "earlier.jsonl", tenants, asked=asked, checkpoint=None)
    assert verify(earlier, checkpoints=(line,)).findings == [], "it was exported before that checkpoint"


def test_an_export_behind_another_checkpoint_than_the_one_that_was_kept_is_a_fork(tmp_path: Path) -> None:
    line, _ = checkpoint_of(TENANTS)
    _, other = checkpoint_of(ONLY_B)
    path = export(tmp_path / "log.jsonl", TENANTS, checkpoint=other)
    assert [each.damage for each in verify(path, checkpoints=(line,)).findings] == [Damage.FORKED]


def test_an_export_that_a_replaced_key_signed_afterwards_is_found(tmp_path: Path) -> None:
    _, last = checkpoint_of(TENANTS)
    _, later = checkpoint_of(TENANTS, number=2)
    made = KeyLink(log_id=LOG, old=KEY.public, new=OTHER.public, checkpoint=1, previous=last.hash(), at=5)
    content = made.content()
    link = SignedLink(
        link=made, signature=KEY.sign(KEY_LINK_TAG, content), signature_of_new=OTHER.sign(KEY_LINK_TAG, content)
    ).line()
    assert verify(export(tmp_path / "a.jsonl", TENANTS, links=(link,), checkpoint=last), OTHER).findings == []
    path = export(tmp_path / "b.jsonl", TENANTS, links=(link,), checkpoint=later)
    for known in (KEY, OTHER):
        assert found(path, known) == (Damage.REPLACED_KEY, None, None)


CRAFTED: list[Callable[[dict[str, Any]], Any]] = [
    lambda fields: fields["manifest"]["tenants"][0].update(last_seq=2**70),
    lambda fields: fields["manifest"]["tenants"][0].update(first_seq=0),
    lambda fields: fields["manifest"]["tenants"][0].update(first_seq=2**70, last_seq=2**70, end_seq=2**70),
    lambda fields: fields["manifest"]["tenants"][0].update(end_seq=0),
    lambda fields: fields["manifest"]["tenants"][0].update(tenant_id="\ud800"),
    lambda fields: fields["manifest"]["tenants"].append(fields["manifest"]["tenants"][0]),
    lambda fields: fields["manifest"].update(tenant_id=7),
    lambda fields: fields["manifest"].update(checkpoint=-1),
    lambda fields: fields["manifest"].update(checkpoint_hash="00"),
    lambda fields: fields.update(tombstones=[]),
    lambda fields: fields.update(tombstones={"tenant-a": [5]}),
    lambda fields: fields.update(tombstones={"tenant-a": [{"tombstone": None, "signature": 5}]}),
    lambda fields: fields.update(key_links=[5]),
    lambda fields: fields.update(key_links=[{"key_link": 5}]),
]


@pytest.mark.parametrize("craft", CRAFTED)
def test_a_crafted_manifest_is_named_and_breaks_no_verifier(
    exported: Path, craft: Callable[[dict[str, Any]], Any]
) -> None:
    beside = manifest_path(exported)
    fields = json.loads(beside.read_bytes())
    craft(fields)
    beside.write_text(json.dumps(fields))
    assert not verify(exported).is_intact


@pytest.mark.parametrize(
    ("name", "value", "damage"),
    [
        ("log_id", "log-2", Damage.BAD_SIGNATURE),
        ("tenant_id", "tenant-a", Damage.BAD_SIGNATURE),
        ("checkpoint", 1, Damage.BAD_SIGNATURE),
        ("file_sha256", "00", Damage.BAD_SIGNATURE),
        ("count", 15, Damage.BAD_SIGNATURE),
        pytest.param("key_id", OTHER.key_id, Damage.WRONG_KEY, id="key_id-other"),
        ("tenants", [], Damage.BAD_SIGNATURE),
        ("more", 1, Damage.UNREADABLE),
        ("format", "other/1", Damage.UNREADABLE),
        ("count", -1, Damage.UNREADABLE),
    ],
)
def test_a_changed_manifest_is_found(exported: Path, name: str, value: object, damage: Damage) -> None:
    beside = manifest_path(exported)
    fields = json.loads(beside.read_bytes())
    fields["manifest"][name] = value
    beside.write_text(json.dumps(fields))
    assert found(exported)[0] is damage


@pytest.mark.parametrize(
    ("signature", "damage"),
    [("", Damage.UNSIGNED), ("00" * 63, Damage.UNSIGNED), (None, Damage.UNSIGNED), ("00" * 64, Damage.BAD_SIGNATURE)],
)
def test_a_manifest_without_its_signature_is_found(exported: Path, signature: object, damage: Damage) -> None:
    beside = manifest_path(exported)
    beside.write_text(json.dumps(json.loads(beside.read_bytes()) | {"signature": signature}))
    assert found(exported)[0] is damage


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"{}", b"[" * 100_000, b'{"manifest":{}}', b"\xff\xfe"])
def test_a_manifest_that_is_none_is_unreadable(exported: Path, text: bytes) -> None:
    manifest_path(exported).write_bytes(text)
    assert found(exported)[0] is Damage.UNREADABLE


def stone(first: int, last: int, key: SigningKey = KEY) -> SignedTombstone:
    entries = TENANTS["tenant-a"]
    gap = Gap(
        first=first,
        last=last,
        previous=head_of("tenant-a", entries, first - 1).hash,
        head=head_of("tenant-a", entries, last).hash,
    )
    content = Tombstone(
        log_id=LOG, tenant_id="tenant-a", day="2026-11-22", gaps=(gap,), pruned_at=1, checkpoint=0, key_id=key.key_id
    ).content()
    return SignedTombstone(content=content, signature=key.sign(TOMBSTONE_TAG, content))


@pytest.mark.parametrize(("first", "last"), [(1, 3), (4, 6), (7, 9), (1, 9)])
def test_what_was_pruned_is_accounted_for_by_a_signed_tombstone(tmp_path: Path, first: int, last: int) -> None:
    part = Asked(until=99)  # the entry that names the tombstone may come behind
    only = {"tenant-a": TENANTS["tenant-a"]}
    pruned = tuple(range(first, last + 1))
    path = export(
        tmp_path / "log.jsonl", only, tombstones={"tenant-a": [stone(first, last)]}, pruned=pruned, asked=part
    )
    report = verify(path)
    assert report.is_intact
    assert report.pruned == last - first + 1
    bare = export(tmp_path / "bare.jsonl", only, pruned=pruned)
    assert found(bare)[0] in (Damage.MISSING, Damage.TRUNCATED)
    forged = export(tmp_path / "f.jsonl", only, tombstones={"tenant-a": [stone(first, last, OTHER)]}, pruned=pruned)
    assert found(forged)[0] is Damage.WRONG_KEY


@pytest.mark.parametrize(
    "payload", [b'{"action":"audit.', b'{"action":"audit.held"}', b'{"action":"audit.' + b"[" * 9_999]
)
def test_a_payload_that_says_nothing_of_a_hold_breaks_no_verifier(tmp_path: Path, payload: bytes) -> None:
    hash_ = chain_hashes("tenant-a", 1, genesis_hash(LOG, "tenant-a"), [payload])[0]
    assert verify(export(tmp_path / "log.jsonl", {"tenant-a": [(1, hash_, payload)]})).findings == []


# --- one line, harmless ---------------------------------------------------------------------------------------------


def test_hostile_text_in_every_field_stays_on_one_plain_line(tmp_path: Path) -> None:
    fields = ("action", "actor", "entity", "outcome", HOSTILE)
    payload = canonical({"tenant_id": HOSTILE, "details": {HOSTILE: [HOSTILE]}} | dict.fromkeys(fields, HOSTILE))
    hash_ = chain_hashes(HOSTILE, 1, genesis_hash(LOG, HOSTILE), [payload])[0]
    path = export(tmp_path / "log.jsonl", {HOSTILE: [(1, hash_, payload)]})
    for file in (path, manifest_path(path)):
        raw = file.read_bytes()
        assert raw.isascii()
        assert not set(raw) & ({*range(32), 127} - {ord("\n")})
    lines = path.read_text().splitlines()
    assert len(lines) == 1
    assert json.loads(lines[0])["entry"]["actor"] == HOSTILE
    assert verify(path).is_intact


@settings(deadline=None)
@given(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.integers(1, 2**62),
    st.binary(min_size=32, max_size=32),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
)
@example("\\u00e9\\\\u00e9\x1f\x7f\x80\U0001f600", 1, bytes(32), 1e-05, True)
@example("é\\", 1, bytes(32), 1e22, False)
def test_a_line_gives_back_what_was_written(
    text: str, seq: int, hash_: bytes, number: float, by_another_program: bool
) -> None:
    fields = {"tenant_id": text, text: [text, seq, None, True, number]}
    payload = msgspec.json.encode(fields, order="sorted") if by_another_program else canonical(fields)
    line = write_line(text, seq, hash_, payload)
    assert line.isascii()
    assert line.count(b"\n") == 1
    tenant, *rest = read_line(line[:-1])
    assert (json.loads(tenant), *rest) == (text, seq, hash_, payload)
    assert json.loads(line)["entry"] == json.loads(payload)


def test_what_is_not_ascii_is_written_as_codes() -> None:
    assert as_ascii(b'"a"') == b'"a"'
    assert as_ascii('"é\U0001f600\x7f"'.encode()) == b'"\\u00e9\\ud83d\\ude00\\u007f"'


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_changed_byte_of_an_export_goes_unnoticed(exported: Path, data: st.DataObject) -> None:
    raw = exported.read_bytes()
    place = data.draw(st.integers(0, len(raw) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != raw[place]))
    exported.write_bytes(raw[:place] + bytes([other]) + raw[place + 1 :])
    try:
        assert not verify(exported).is_intact
    finally:
        exported.write_bytes(raw)


def test_a_line_longer_than_the_limit_is_none(exported: Path) -> None:
    with exported.open("ab") as file:
        file.write(b" " * (LINE_BYTES_MAX + 1))
    assert found(exported)[0] is Damage.UNREADABLE


def test_a_manifest_is_read_as_it_was_written(exported: Path) -> None:
    signed = read_manifest(manifest_path(exported).read_bytes())
    assert read_manifest(signed.text()) == signed
    assert [section.count for section in signed.manifest.sections] == [4, 9, 3]


# --- the program ----------------------------------------------------------------------------------------------------


def run(*arguments: object, imports: bool = False) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "synergymesh.audit.verify", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_program_says_what_it_found_and_ends_with_1(exported: Path, tmp_path: Path) -> None:
    key = tmp_path / "key.pub"
    key.write_text(public_pem(KEY.public))
    done = run(exported, "--key", key)
    assert (done.returncode, done.stdout) == (0, "intact: 16 entries in 3 chains\n")
    exported.write_bytes(exported.read_bytes().replace(b"alice", b"mallo", 6))
    done = run(exported, "--key", key)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "changed mesh #1: entry 1 is not what was sealed.",
        "changed tenant-a #1: entry 1 is not what was sealed.",
        "DAMAGED: 3 entries in 3 chains",
    ]
    done = run(exported, "--key", key, "--json")
    assert json.loads(done.stdout)["findings"][0]["damage"] == "changed"


def test_the_program_ends_with_2_when_it_cannot_tell(exported: Path, tmp_path: Path) -> None:
    for arguments in (
        [tmp_path / "nothing", "--key", KEY.public.hex()],
        [exported, "--key", "nonsense"],
        [exported],
        [exported, "--key", KEY.public.hex(), "--checkpoints", tmp_path / "nothing"],
    ):
        done = run(*arguments)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr


def test_the_program_needs_only_the_standard_library_and_cryptography() -> None:
    code = (
        "import sys, runpy\n"
        "import synergymesh.audit.verify\n"
        "known = sys.stdlib_module_names\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules if not m.startswith('_')} - known))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    allowed = {"synergymesh", "cryptography", "cffi"}
    assert set(json.loads(done.stdout.replace("'", '"'))) - allowed == set()
