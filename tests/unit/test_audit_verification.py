"""Chains that somebody has changed: the first bad entry is found, and what happened to it is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synergymesh.domain.audit.forms import Gap, Head, canonical, chain_hashes, genesis_hash
from synergymesh.domain.audit.verification import ChainReport, Damage, verify_chain

LOG = "log-1"
TENANT = "tenant-a"

Entry = tuple[int, bytes, bytes]


def payload(number: int, tenant: str = TENANT, what: str = "run.submitted") -> bytes:
    return canonical({"tenant_id": tenant, "action": what, "entity": f"run/{number}", "at": 1_000 + number})


def chain(count: int, tenant: str = TENANT, log: str = LOG, what: str = "run.submitted") -> list[Entry]:
    payloads = [payload(number, tenant, what) for number in range(1, count + 1)]
    hashes = chain_hashes(tenant, 1, genesis_hash(log, tenant), payloads)
    return [(number, hash_, each) for number, (hash_, each) in enumerate(zip(hashes, payloads, strict=True), 1)]


def sealed_again(rows: list[Entry]) -> list[Entry]:
    """Compute the whole chain anew, as somebody can who has the database."""
    hashes = chain_hashes(TENANT, 1, genesis_hash(LOG, TENANT), [row[2] for row in rows])
    return [(number, hash_, row[2]) for number, (hash_, row) in enumerate(zip(hashes, rows, strict=True), 1)]


def verify(rows: list[Any], **given: Any) -> ChainReport:
    return verify_chain(LOG, TENANT, rows, **given)


def found(rows: list[Any], **given: Any) -> tuple[Damage, int | None]:
    finding = verify(rows, **given).finding
    assert finding is not None, "nothing was found"
    assert finding.detail.endswith(".")
    return finding.damage, finding.seq


ROWS = chain(12)
HEAD = Head(TENANT, 12, ROWS[-1][1])
PINS = {4: ROWS[3][1], 8: ROWS[7][1]}


def test_a_clean_chain_is_intact() -> None:
    report = verify(ROWS, pins=PINS, recorded=HEAD)
    assert report.finding is None
    assert (report.entries, report.head, report.pinned, report.pruned) == (12, HEAD, 8, 0)


def test_a_chain_without_entries_is_intact() -> None:
    report = verify([])
    assert report.finding is None
    assert report.head == Head(TENANT, 0, genesis_hash(LOG, TENANT))


def replaced(number: int, **fields: Any) -> list[Any]:
    rows: list[Any] = list(ROWS)
    seq, hash_, raw = rows[number - 1]
    rows[number - 1] = (fields.get("seq", seq), fields.get("hash", hash_), fields.get("payload", raw))
    return rows


def without(*numbers: int) -> list[Entry]:
    return [row for row in ROWS if row[0] not in numbers]


def renumbered(rows: list[Entry]) -> list[Entry]:
    return [(number, row[1], row[2]) for number, row in enumerate(rows, 1)]


def swapped(first: int, second: int) -> list[Entry]:
    rows = list(ROWS)
    rows[first - 1], rows[second - 1] = rows[second - 1], rows[first - 1]
    return renumbered(rows)


def payloads_swapped(first: int, second: int) -> list[Entry]:
    rows = list(ROWS)
    one, two = rows[first - 1], rows[second - 1]
    rows[first - 1], rows[second - 1] = (one[0], one[1], two[2]), (two[0], two[1], one[2])
    return rows


STRANGER = chain(5, "tenant-b")[2]

ATTACKS: dict[str, tuple[Callable[[], list[Any]], Damage, int]] = {
    "a payload": (lambda: replaced(5, payload=payload(5, what="run.finished")), Damage.CHANGED, 5),
    "the last payload": (lambda: replaced(12, payload=payload(99)), Damage.CHANGED, 12),
    "a payload that is no JSON": (lambda: replaced(5, payload=b"{"), Damage.CHANGED, 5),
    "a payload that is a text": (lambda: replaced(5, payload="{}"), Damage.CHANGED, 5),
    "a payload that is nothing": (lambda: replaced(5, payload=None), Damage.CHANGED, 5),
    "a hash": (lambda: replaced(5, hash=bytes(32)), Damage.CHANGED, 5),
    "a hash that is nothing": (lambda: replaced(5, hash=None), Damage.CHANGED, 5),
    "a hash that is a number": (lambda: replaced(5, hash=7), Damage.CHANGED, 5),
    "a number that is nothing": (lambda: replaced(5, seq=None), Damage.CHANGED, 5),
    "one gone": (lambda: without(5), Damage.MISSING, 5),
    "three gone": (lambda: without(5, 6, 7), Damage.MISSING, 5),
    "the first gone": (lambda: without(1), Damage.MISSING, 1),
    "one gone, the others renumbered": (lambda: renumbered(without(5)), Damage.MISSING, 5),
    "three gone, the others renumbered": (lambda: renumbered(without(5, 6, 7)), Damage.MISSING, 5),
    "all gone": (list, Damage.MISSING, 1),
    "the tail gone": (lambda: ROWS[:10], Damage.TRUNCATED, 11),
    "two swapped": (lambda: swapped(3, 9), Damage.REORDERED, 3),
    "two neighbours swapped": (lambda: swapped(3, 4), Damage.REORDERED, 3),
    "payloads swapped": (lambda: payloads_swapped(3, 9), Damage.REORDERED, 3),
    "one inserted": (
        lambda: renumbered([*ROWS[:4], (0, bytes(32), payload(99)), *ROWS[4:]]),
        Damage.INSERTED,
        5,
    ),
    "one added behind the end": (
        lambda: [*ROWS, (13, chain_hashes(TENANT, 13, ROWS[-1][1], [payload(13)])[0], payload(13))],
        Damage.INSERTED,
        13,
    ),
    "one twice": (lambda: [*ROWS[:5], ROWS[4], *ROWS[5:]], Damage.DUPLICATE, 5),
    "a false one of the same number before": (
        lambda: [*ROWS[:4], (5, bytes(32), payload(99)), *ROWS[4:]],
        Damage.DUPLICATE,
        5,
    ),
    "another tenant's in its place": (lambda: replaced(5, payload=STRANGER[2], hash=STRANGER[1]), Damage.FOREIGN, 5),
    "another tenant's of the same number": (lambda: [*ROWS[:3], STRANGER, *ROWS[3:]], Damage.FOREIGN, 3),
    "another tenant's behind the end": (lambda: [*ROWS, (13, *STRANGER[1:])], Damage.FOREIGN, 13),
    "the chain of another log": (lambda: chain(12, log="log-2"), Damage.CHANGED, 1),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_every_attack_is_found_at_its_first_bad_entry(attack: str) -> None:
    make, damage, seq = ATTACKS[attack]
    assert found(make(), recorded=HEAD, pins=PINS) == (damage, seq)


def test_a_chain_computed_anew_is_found_at_the_first_checkpoint_that_it_contradicts() -> None:
    forged = sealed_again(replaced(6, payload=payload(66)))
    head = Head(TENANT, 12, forged[-1][1])
    assert verify(forged, recorded=head).finding is None, "without a checkpoint nothing contradicts it"
    finding = verify(forged, recorded=head, pins=PINS).finding
    assert finding is not None
    assert (finding.damage, finding.seq, finding.since) == (Damage.FORKED, 8, 5)


def test_an_entry_left_out_of_a_chain_computed_anew_is_found() -> None:
    forged = sealed_again(without(6))
    assert found(forged, pins=PINS) == (Damage.FORKED, 8)


def test_what_a_checkpoint_has_not_seen_yet_can_be_written_anew() -> None:
    forged = sealed_again(replaced(10, payload=payload(66)))
    report = verify(forged, recorded=Head(TENANT, 12, forged[-1][1]), pins=PINS)
    assert report.finding is None
    assert report.pinned == 8


def test_an_older_state_of_the_database_is_rolled_back_and_not_only_truncated() -> None:
    older = ROWS[:6]
    assert found(older, recorded=Head(TENANT, 6, ROWS[5][1]), pins=PINS) == (Damage.ROLLED_BACK, 7)
    assert found(older, recorded=HEAD, pins=PINS) == (Damage.TRUNCATED, 7)


def test_a_recorded_head_with_another_hash_is_found() -> None:
    assert found(ROWS, recorded=Head(TENANT, 12, bytes(32))) == (Damage.FORKED, 12)


def test_a_chain_is_followed_from_a_checkpoint_on() -> None:
    start = Head(TENANT, 4, ROWS[3][1])
    report = verify(ROWS[4:], start=start, pins=PINS, recorded=HEAD)
    assert report.finding is None
    assert (report.entries, report.pinned) == (8, 8)
    assert found(ROWS[5:], start=start) == (Damage.MISSING, 5)
    assert found(ROWS[4:], start=Head(TENANT, 4, bytes(32))) == (Damage.CHANGED, 5)


@pytest.mark.parametrize(
    ("rows", "recorded", "expected"),
    [
        (ROWS[3:], HEAD, None),
        (ROWS[4:], HEAD, (Damage.MISSING, 4)),
        ([(4, bytes(32), ROWS[3][2]), *ROWS[4:]], HEAD, (Damage.FORKED, 4)),
        ([], HEAD, (Damage.TRUNCATED, 4)),
        ([], Head(TENANT, 2, ROWS[1][1]), (Damage.ROLLED_BACK, 3)),
        ([], None, (Damage.MISSING, 4)),
        (ROWS[3:4], Head(TENANT, 4, ROWS[3][1]), None),
        (ROWS[3:], Head(TENANT, 2, ROWS[1][1]), (Damage.ROLLED_BACK, 2)),
        ([ROWS[3], *ROWS[3:]], HEAD, (Damage.DUPLICATE, 4)),
    ],
)
def test_the_entry_to_begin_behind_has_to_be_there(
    rows: list[Any], recorded: Head | None, expected: tuple[Damage, int] | None
) -> None:
    start = Head(TENANT, 4, ROWS[3][1])
    finding = verify(rows, start=start, shows_start=True, recorded=recorded, is_recorded=True).finding
    assert (finding and (finding.damage, finding.seq)) == expected


@pytest.mark.parametrize("is_deleted", [True, False])
def test_the_entry_to_begin_behind_may_be_pruned(is_deleted: bool) -> None:
    start = Head(TENANT, 4, ROWS[3][1])
    rows = [row for row in ROWS[3:] if row[0] > 6 or not is_deleted]
    report = verify(rows, start=start, shows_start=True, recorded=HEAD, gaps=[gap(3, 6)])
    assert report.finding is None
    assert report.head == HEAD


def test_where_a_chain_ends_has_to_be_recorded() -> None:
    assert found(ROWS, is_recorded=True) == (Damage.TRUNCATED, 13)
    assert verify([], is_recorded=True).finding is None


def test_thousands_of_gaps_and_checkpoints_are_gone_over() -> None:
    rows = chain(4_000)
    genesis = genesis_hash(LOG, TENANT)
    hashes = {0: genesis} | {row[0]: row[1] for row in rows}
    gaps = [Gap(first=n, last=n, previous=hashes[n - 1], head=hashes[n]) for n in range(1, 4_000, 2)]
    pins = {number: hashes[number] for number in range(1, 4_001)}
    recorded = Head(TENANT, 4_000, hashes[4_000])
    report = verify([row for row in rows if row[0] % 2 == 0], gaps=gaps, pins=pins, recorded=recorded)
    assert (report.finding, report.pruned, report.entries, report.pinned) == (None, 2_000, 2_000, 4_000)
    pins[3_001] = bytes(32)
    finding = verify([row for row in rows if row[0] % 2 == 0], gaps=gaps, pins=pins, recorded=recorded).finding
    assert finding is not None
    assert (finding.damage, finding.seq, finding.since) == (Damage.FORKED, 3_001, 3_001)


def gap(first: int, last: int) -> Gap:
    before = ROWS[first - 2][1] if first > 1 else genesis_hash(LOG, TENANT)
    return Gap(first=first, last=last, previous=before, head=ROWS[last - 1][1])


@pytest.mark.parametrize(("first", "last"), [(1, 1), (1, 4), (1, 12), (3, 6), (5, 8), (9, 12), (12, 12)])
def test_what_a_tombstone_accounts_for_is_not_missing(first: int, last: int) -> None:
    rows = without(*range(first, last + 1))
    report = verify(rows, gaps=[gap(first, last)], pins=PINS, recorded=HEAD)
    assert report.finding is None
    assert (report.pruned, report.entries, report.head) == (last - first + 1, len(rows), HEAD)
    assert found(rows, pins=PINS, recorded=HEAD)[0] in (Damage.MISSING, Damage.TRUNCATED)


@pytest.mark.parametrize("left", [0, 1, 2, 3])
def test_pruning_that_was_interrupted_is_no_damage(left: int) -> None:
    rows = [row for row in ROWS if not 5 + left <= row[0] <= 7]
    assert verify(rows, gaps=[gap(5, 7)], recorded=HEAD, pins=PINS).finding is None


def test_gaps_that_touch_each_other_are_followed() -> None:
    report = verify(without(3, 4, 5, 6), gaps=[gap(5, 6), gap(3, 4)], recorded=HEAD, pins=PINS)
    assert report.finding is None
    assert report.pruned == 4


def test_more_than_a_tombstone_accounts_for_is_missing() -> None:
    assert found(without(3, 4, 5, 6, 7), gaps=[gap(3, 6)], recorded=HEAD) == (Damage.MISSING, 7)
    assert found(without(3, 4, 5, 6), gaps=[gap(4, 6)], recorded=HEAD) == (Damage.MISSING, 3)


def test_an_entry_that_comes_back_into_a_gap_is_found() -> None:
    assert found(without(3, 4, 6), gaps=[gap(3, 6)], recorded=HEAD) == (Damage.INSERTED, 5)


def test_a_tombstone_that_contradicts_a_checkpoint_or_the_chain_is_found() -> None:
    rows = without(3, 4)
    wrong_end = Gap(first=3, last=4, previous=ROWS[1][1], head=bytes(32))
    wrong_start = Gap(first=3, last=4, previous=bytes(32), head=ROWS[3][1])
    assert found(rows, gaps=[wrong_end], pins=PINS) == (Damage.FORKED, 4)
    assert found(rows, gaps=[wrong_end])[1] == 5
    assert found(rows, gaps=[wrong_start]) == (Damage.FORKED, 3)


def test_what_stands_beside_a_payload_is_compared_with_it() -> None:
    rows = [(*row, "user/alice") for row in ROWS]
    rows[6] = (*ROWS[6], "user/bob")
    assert found(rows, disagrees=lambda row: None if row[3] == "user/alice" else "has another actor") == (
        Damage.CHANGED,
        7,
    )


@st.composite
def mutations(draw: st.DrawFn) -> tuple[list[Any], str]:
    """One thing in a chain that is not as it was."""
    rows: list[Any] = list(ROWS)
    place = draw(st.integers(0, len(rows) - 1))
    seq, hash_, raw = rows[place]
    match draw(st.sampled_from(["payload", "hash", "seq", "delete", "duplicate", "move", "cut"])):
        case "payload":
            position = draw(st.integers(0, len(raw) - 1))
            rows[place] = (
                seq,
                hash_,
                raw[:position] + bytes([raw[position] ^ draw(st.integers(1, 255))]) + raw[position + 1 :],
            )
        case "hash":
            position = draw(st.integers(0, 31))
            rows[place] = (
                seq,
                hash_[:position] + bytes([hash_[position] ^ draw(st.integers(1, 255))]) + hash_[position + 1 :],
                raw,
            )
        case "seq":
            rows[place] = (draw(st.integers(-3, 20).filter(lambda number: number != seq)), hash_, raw)
            rows.sort(key=lambda row: row[0])
        case "delete":
            del rows[place]
        case "duplicate":
            rows.insert(place, rows[place])
        case "move":
            target = draw(st.integers(0, len(rows) - 1).filter(lambda other: other != place))
            rows.insert(target, rows.pop(place))
        case "cut":
            rows = rows[:place]
    return rows, "mutated"


@settings(deadline=None, max_examples=300)
@given(mutations())
def test_no_single_mutation_goes_unnoticed(mutated: tuple[list[Any], str]) -> None:
    rows, _ = mutated
    first_bad = next(
        (n for n, (row, good) in enumerate(zip(rows, ROWS, strict=False), 1) if row != good), min(len(rows), 12) + 1
    )
    finding = verify(rows, recorded=HEAD, pins=PINS).finding
    assert finding is not None
    assert finding.seq is not None
    assert finding.seq <= max(first_bad, 1)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 40), st.sets(st.integers(1, 40), max_size=6))
def test_no_clean_chain_alarms(count: int, pinned: set[int]) -> None:
    rows = chain(count)
    pins = {number: rows[number - 1][1] for number in pinned if number <= count}
    recorded = Head(TENANT, count, rows[-1][1]) if rows else None
    assert verify(rows, pins=pins, recorded=recorded).finding is None


def test_a_payload_says_whose_it_is() -> None:
    from synergymesh.domain.audit.verification import tenant_of

    assert tenant_of(payload(1)) == TENANT
    for nothing in (None, 7, b"[]", b"{", b'{"tenant_id":7}', b"\xff", b"[" * 100_000, json.dumps([1])):
        assert tenant_of(nothing) is None
