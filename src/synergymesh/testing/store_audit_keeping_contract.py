"""What every store promises about what is kept beside the audit log: a part of `StoreContract`."""

from __future__ import annotations

from functools import partial

from synergymesh.domain.audit.actions import Action, Outcome
from synergymesh.domain.audit.forms import MESH, Gap, Tombstone, genesis_hash
from synergymesh.domain.audit.groups import GROUP_ENTRIES_MAX
from synergymesh.ports.audit import AuditExtent
from synergymesh.ports.audit_keeping import AuditScan, AuditScanned, HoldRecord, TombstoneRecord, UnsuccessfulRecord
from synergymesh.ports.changes import Noted
from synergymesh.ports.store import Store
from synergymesh.testing.store_changes import ACME, BETA, S, created, record, task_finished, tenant

KEY_OF_ALICE = bytes(range(32))
NOTES = 12


def keeping_note(action: Action, number: int, tenant_id: str = ACME) -> Noted:
    """Make the entry of something that is done with the log."""
    return Noted(
        tenant_id=tenant_id,
        action=action,
        entity="audit",
        number=number,
        outcome=Outcome.SUCCESS,
        noted_at=number,
    )


async def fill_log(store: Store) -> None:
    """Give a tenant a chain of `NOTES` + 1 entries."""
    await record(store, tenant(ACME))
    for number in range(NOTES):
        await record(store, keeping_note(Action.AUDIT_READ, 100 + number))


async def bury(store: Store, *pieces: tuple[int, int], number: int = 1) -> bool:
    """Record a tombstone for pieces of the chain, each from its first to its last entry."""
    rows = await store.list_audit_entries(ACME, after_seq=0, limit=1_000)
    hashes = {row.seq: row.hash for row in rows} | {0: genesis_hash(await store.get_audit_log_id(), ACME)}
    gaps = tuple(Gap(first=first, last=last, previous=hashes[first - 1], head=hashes[last]) for first, last in pieces)
    content = Tombstone(
        log_id="log", tenant_id=ACME, day="2026-11-22", gaps=gaps, pruned_at=number, checkpoint=0, key_id="k"
    ).content()
    stone = TombstoneRecord(ACME, gaps[0].first, gaps[-1].last, content, b"signature")
    return await store.add_audit_tombstones([stone], keeping_note(Action.AUDIT_PRUNED, number))


def read_chain(scan: AuditScan) -> list[int]:
    """Give the numbers of a chain."""
    return [row[0] for row in scan.rows(ACME, 0)]


def _rows_behind(after: int, scan: AuditScan) -> list[AuditScanned]:
    return list(scan.rows(ACME, after))


def _bounds(since: int, until: int, scan: AuditScan) -> tuple[int, int]:
    return scan.bounds(ACME, since, until)


class AuditKeepingContract:
    """Tombstones, holds, keys of personal data, and the scan of the log."""

    async def test_a_scan_gives_a_chain_as_it_is_stored(self, store: Store) -> None:
        await fill_log(store)
        entries = await store.list_audit_entries(ACME, after_seq=0, limit=1_000)
        scanned = await store.scan_audit(lambda scan: list(scan.rows(ACME, 0)))
        assert scanned == [
            (
                *(e.seq, e.hash, e.payload, e.entry_id),
                (
                    *(e.seq, e.hash, e.payload, e.at, e.at, e.action, e.entity, e.version),
                    *(e.actor, e.outcome, e.tenant_id, e.entry_id),
                ),
            )
            for e in entries
        ]
        assert await store.scan_audit(lambda scan: [row[0] for row in scan.rows(ACME, 10)]) == [11, 12, 13]
        assert ACME in await store.scan_audit(lambda scan: scan.tenants())
        assert await store.scan_audit(lambda scan: scan.log_id()) == await store.get_audit_log_id()
        assert await store.scan_audit(lambda scan: scan.heads()) == await store.list_audit_heads()
        heads = await store.list_audit_heads()
        total = sum(head.seq for head in heads)
        assert await store.scan_audit(lambda scan: scan.extent()) == (total, total)
        assert await store.scan_audit(lambda scan: scan.strays(None)) == []
        assert await store.scan_audit(lambda scan: scan.strays(ACME)) == []
        assert await store.scan_audit(lambda scan: scan.holds()) == []

    async def test_a_scan_gives_entries_that_were_recorded_together_one_by_one(self, store: Store) -> None:
        await record(store, tenant(ACME))
        number = len(await store.list_audit_entries(ACME, after_seq=0, limit=1_000))
        await store.commit([[created(f"run-{n:04}", created_at=5_000 + n)] for n in range(300)])
        entries = await store.list_audit_entries(ACME, after_seq=number, limit=1_000)
        scanned = await store.scan_audit(lambda scan: list(scan.rows(ACME, number)))
        assert [entry[:4] for entry in scanned] == [(e.seq, e.hash, e.payload, e.entry_id) for e in entries]
        for after in (number + 1, number + 127, number + 128, number + 299, number + 300):
            behind = await store.scan_audit(partial(_rows_behind, after))
            assert [entry[0] for entry in behind] == list(range(after + 1, number + 301))
        for since, until in ((5_007, 5_042), (5_127, 5_129), (5_000, 5_001), (5_299, 6_000)):
            first, last = await store.scan_audit(partial(_bounds, since, until))
            assert (first, last) == (number + 1 + since - 5_000, number + min(300, until - 5_000))
        total = sum(head.seq for head in await store.list_audit_heads())
        assert await store.scan_audit(lambda scan: scan.extent()) == (total, total)

    async def test_entries_that_were_recorded_together_are_counted_when_they_are_deleted(self, store: Store) -> None:
        await record(store, tenant(ACME))
        number = len(await store.list_audit_entries(ACME, after_seq=0, limit=1_000))
        await store.commit([[created(f"run-{n:04}", created_at=5_000 + n)] for n in range(300)])
        assert await bury(store, (number + 1, number + 300))
        steps = []
        while step := await store.delete_pruned_audit_entries(100):
            steps.append(step)
        assert sum(steps) == 300
        assert max(steps) < 100 + GROUP_ENTRIES_MAX
        left = await store.list_audit_entries(ACME, after_seq=number, limit=1_000)
        assert [entry.action for entry in left] == ["audit.pruned"]

    async def test_the_oldest_entry_that_waits_is_found_among_those_recorded_with_it(self, store: Store) -> None:
        await record(store, tenant(ACME))
        before = (await store.get_audit_extent(0)).entries
        await store.commit([[created(f"run-{n}", created_at=1_000 + n)] for n in range(5)])
        for signed in range(5):
            assert await store.get_audit_extent(before + signed) == AuditExtent(before + 5, 1_000 + signed)

    async def test_a_scan_counts_what_did_not_succeed_by_reason(self, store: Store) -> None:
        error = b'{"type":"builtins.ValueError","message":"no","chain":[]}'
        for number in range(3):
            run_id = f"run-{number}"
            await record(store, created(run_id))
            await record(store, task_finished(run_id, "a", status=S.FAILED, error=error, result=None, ended_at=2_500))
        for number, count in ((1, b"1"), (2, b"40")):
            details = b'{"count": ' + count + b', "minute": 0}'
            hit = Noted(BETA, Action.LIMIT_HIT, "limit/rate_limit", number, Outcome.DENIED, 100 * number, details)
            await record(store, hit)
        found = await store.scan_audit(lambda scan: scan.unsuccessful(None, 0))
        assert found == [
            UnsuccessfulRecord(BETA, "limit.hit", "denied", "rate_limit", 41, 200),
            UnsuccessfulRecord(ACME, "task.finished", "failure", "builtins.ValueError", 3, 2_500),
        ]
        assert await store.scan_audit(lambda scan: scan.unsuccessful(BETA, 0)) == found[:1]
        assert await store.scan_audit(lambda scan: scan.unsuccessful(BETA, 200)) == [
            UnsuccessfulRecord(BETA, "limit.hit", "denied", "rate_limit", 40, 200)
        ]
        assert await store.scan_audit(lambda scan: scan.unsuccessful(None, 2_501)) == []

    async def test_a_scan_gives_the_newest_entries_of_actions(self, store: Store) -> None:
        await fill_log(store)
        await record(store, tenant("tenant-late"))
        wanted = (Action.AUDIT_READ, Action.TENANT_CREATED)

        async def newest(tenant_id: str | None, since: int, limit: int) -> list[tuple[str, int]]:
            found = await store.scan_audit(lambda scan: scan.newest(wanted, tenant_id, since, limit))
            return [(entry.tenant_id, entry.at) for entry in found]

        assert await newest(None, 0, 3) == [("tenant-late", 1_000), (ACME, 111), (ACME, 110)]
        assert await newest(ACME, 109, 100) == [(ACME, 111), (ACME, 110), (ACME, 109), (ACME, 1_000)]
        only = (Action.TENANT_CREATED,)
        assert len(await store.scan_audit(lambda scan: scan.newest(only, None, 0, 100))) == 3

    async def test_the_extent_of_the_log_counts_pruned_entries_and_says_since_when_the_last_ones_wait(
        self, store: Store
    ) -> None:
        before = (await store.get_audit_extent(0)).entries
        assert await store.get_audit_extent(before) == AuditExtent(before, None)
        await fill_log(store)
        entries = before + NOTES
        assert await store.get_audit_extent(entries) == AuditExtent(entries, None)
        assert await store.get_audit_extent(entries - 2) == AuditExtent(entries, 110)
        assert await store.get_audit_extent(entries + 99) == AuditExtent(entries, None)
        assert await bury(store, (2, 7))
        while await store.delete_pruned_audit_entries(100):
            pass
        assert (await store.get_audit_extent(0)).entries == entries + 1

    async def test_a_scan_finds_the_first_and_last_entry_of_a_time(self, store: Store) -> None:
        await fill_log(store)
        bounds = await store.scan_audit(lambda scan: scan.bounds(ACME, 103, 106))
        entries = {e.seq: e.at for e in await store.list_audit_entries(ACME, after_seq=0, limit=1_000)}
        assert [entries[seq] for seq in bounds] == [103, 105]
        assert await store.scan_audit(lambda scan: scan.bounds(ACME, 10**18, None)) == (1, 0)

    async def test_what_a_tombstone_accounts_for_is_deleted_from_its_end_in_small_steps(self, store: Store) -> None:
        await fill_log(store)
        assert await bury(store, (2, 7))
        assert await store.delete_pruned_audit_entries(2) == 2
        assert await store.scan_audit(read_chain) == [1, 2, 3, 4, 5, *range(8, NOTES + 3)]
        deleted = 0
        while step := await store.delete_pruned_audit_entries(3):
            deleted += step
        assert deleted == 4
        assert await store.scan_audit(read_chain) == [1, *range(8, NOTES + 3)]
        assert [stone.first_seq for stone in await store.list_audit_tombstones(ACME)] == [2]
        assert await store.list_audit_tombstones(MESH) == []

    async def test_several_pieces_are_emptied_from_the_last_one_on(self, store: Store) -> None:
        await fill_log(store)
        assert await bury(store, (1, 2), (4, 4), (6, 8), (10, 10))
        left = [3, 5, 9, *range(11, NOTES + 3)]
        going = [1, 2, 4, 6, 7, 8, 10]
        while going:
            assert await store.delete_pruned_audit_entries(1) == 1
            going.pop()
            assert await store.scan_audit(read_chain) == sorted([*going, *left])
        assert await store.delete_pruned_audit_entries(1) == 0

    async def test_a_hold_keeps_what_is_pruned_but_not_deleted_yet(self, store: Store) -> None:
        await fill_log(store)
        assert await bury(store, (2, 7))
        assert await store.delete_pruned_audit_entries(2) == 2
        assert await store.hold_audit(HoldRecord(ACME, "case 7", 5), keeping_note(Action.AUDIT_HELD, 1))
        assert await store.delete_pruned_audit_entries(100) == 0
        assert await store.scan_audit(read_chain) == [1, 2, 3, 4, 5, *range(8, NOTES + 4)]
        assert await store.release_audit(ACME, keeping_note(Action.AUDIT_RELEASED, 2))
        assert await store.delete_pruned_audit_entries(100) == 4
        assert await store.delete_pruned_audit_entries(100) == 0
        assert await store.scan_audit(read_chain) == [1, *range(8, NOTES + 5)]

    async def test_pruning_is_an_entry_of_the_chain(self, store: Store) -> None:
        await fill_log(store)
        assert await bury(store, (2, 3))
        entries = await store.list_audit_entries(ACME, after_seq=NOTES + 1, limit=10)
        assert [entry.action for entry in entries] == [Action.AUDIT_PRUNED]

    async def test_a_hold_refuses_tombstones_until_it_is_released(self, store: Store) -> None:
        await fill_log(store)
        hold = HoldRecord(ACME, "case 7", 5)
        assert await store.hold_audit(hold, keeping_note(Action.AUDIT_HELD, 1))
        assert not await store.hold_audit(HoldRecord(ACME, "other", 6), keeping_note(Action.AUDIT_HELD, 2))
        assert await store.list_audit_holds() == [hold]
        assert not await bury(store, (2, 3))
        assert await store.list_audit_tombstones(ACME) == []
        assert await store.release_audit(ACME, keeping_note(Action.AUDIT_RELEASED, 3))
        assert not await store.release_audit(ACME, keeping_note(Action.AUDIT_RELEASED, 4))
        assert await bury(store, (2, 3), number=9)
        entries = await store.list_audit_entries(ACME, after_seq=NOTES + 1, limit=10)
        assert [entry.action for entry in entries] == ["audit.held", "audit.released", "audit.pruned"]

    async def test_the_first_key_of_a_subject_counts_until_it_is_erased(self, store: Store) -> None:
        await fill_log(store)
        assert await store.get_subject_key("user/alice") is None
        assert await store.add_subject_key("user/alice", KEY_OF_ALICE, 1) == KEY_OF_ALICE
        assert await store.add_subject_key("user/alice", bytes(32), 2) == KEY_OF_ALICE
        assert await store.get_subject_key("user/alice") == KEY_OF_ALICE
        assert await store.erase_subject_key("user/alice", keeping_note(Action.AUDIT_ERASED, 1, MESH))
        assert await store.get_subject_key("user/alice") is None
        assert not await store.erase_subject_key("user/alice", keeping_note(Action.AUDIT_ERASED, 2, MESH))
        assert await store.wipe_erased_keys(), "nobody reads"
        erased = await store.find_audit_entries(MESH, action=Action.AUDIT_ERASED)
        assert len(erased.entries) == 1
