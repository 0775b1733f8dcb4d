"""What every store promises about the audit log: a part of `StoreContract`."""

from __future__ import annotations

import json
from collections import Counter
from random import Random
from typing import Any

import pytest

from synergymesh.domain.actors import Actor
from synergymesh.domain.audit.actions import Action, Outcome
from synergymesh.domain.audit.forms import MESH, canonical, chain_hash, genesis_hash
from synergymesh.domain.states import ExecutionStatus, TenantStatus
from synergymesh.ports.audit import AUDIT_PAGE_MAX, AuditEntryRecord
from synergymesh.ports.changes import (
    CancelRequested,
    Change,
    EstimateLearnt,
    HourReserved,
    Noted,
    RunStarted,
    TenantStatusChanged,
)
from synergymesh.ports.records import Committed, Refused
from synergymesh.ports.store import Store
from synergymesh.testing.store_changes import (
    ACME,
    BETA,
    HASH,
    S,
    attempt_failed,
    created,
    everything,
    finished,
    plan_changed,
    record,
    task_finished,
    task_started,
    tenant,
    workflow,
)

FAILURES = (S.FAILED, S.CANCELLED)
VERDICTS = (S.SUCCESS, S.FAILED, S.SKIPPED)
ALICE = Actor(type="user", id="alice", on_behalf_of="user/bob", source="http", request_id="r-1")


def note(number: int, tenant_id: str = ACME, **fields: Any) -> Noted:
    """Make a note."""
    given: dict[str, Any] = {
        "action": Action.LIMIT_HIT,
        "entity": f"tenant/{tenant_id}",
        "outcome": Outcome.DENIED,
        "noted_at": 5_000,
        "details": b'{"b": 1, "a": [2]}',
    }
    return Noted(tenant_id=tenant_id, number=number, **(given | fields))


async def entries_of(store: Store, tenant_id: str = ACME) -> list[AuditEntryRecord]:
    """Give a tenant's chain."""
    return await store.list_audit_entries(tenant_id, after_seq=0, limit=AUDIT_PAGE_MAX)


async def all_entries(store: Store) -> list[AuditEntryRecord]:
    """Give all chains, and check that each is whole."""
    log_id = await store.get_audit_log_id()
    found: list[AuditEntryRecord] = []
    for head in await store.list_audit_heads():
        previous = genesis_hash(log_id, head.tenant_id)
        chain = await entries_of(store, head.tenant_id)
        assert [entry.seq for entry in chain] == list(range(1, head.seq + 1))
        for entry in chain:
            check_entry(entry, head.tenant_id)
            previous = chain_hash(entry.tenant_id, entry.seq, previous, entry.payload)
            assert entry.hash == previous
        assert head.hash == previous
        found += chain
    return found


def check_entry(entry: AuditEntryRecord, tenant_id: str) -> None:
    """Check that the columns of an entry say what its payload says, and that this is canonical."""
    said = json.loads(entry.payload)
    assert entry.payload == canonical(said)
    assert entry.tenant_id == tenant_id
    for name in ("tenant_id", "at", "action", "entity", "version", "actor", "outcome"):
        assert said[name] == getattr(entry, name), name
    assert entry.action in set(Action)
    assert entry.outcome in set(Outcome)


def random_change(dice: Random) -> Change:
    """Make a change with few ids, so that changes meet; some of them are bad."""
    run_id = f"run-{dice.randrange(4)}"
    tenant_id = ACME if dice.random() < 0.9 else BETA
    component_id = dice.choice(["a", 'b"é\\'])
    number = dice.randrange(1, 4)
    return dice.choice(
        (
            lambda: created(run_id, tenant_id, idempotency_key=dice.choice([None, "k"])),
            lambda: RunStarted(run_id, tenant_id, 2_050),
            lambda: CancelRequested(run_id, tenant_id, 2_400, dice.choice([None, ALICE])),
            lambda: task_started(run_id, component_id, tenant_id, attempt=number),
            lambda: attempt_failed(run_id, component_id, tenant_id, number=number, status=dice.choice(FAILURES)),
            lambda: task_finished(run_id, component_id, tenant_id, status=dice.choice(VERDICTS)),
            lambda: finished(run_id, tenant_id, status=dice.choice([S.SUCCESS, S.CANCELLED, S.FAILED])),
            lambda: tenant(dice.choice(["tenant-c", BETA]), by=ALICE),
            lambda: plan_changed(dice.choice([ACME, "tenant-c"]), tier=dice.choice(["basic", "enterprise"])),
            lambda: TenantStatusChanged(
                dice.choice([ACME, "tenant-c"]), dice.choice([TenantStatus.ACTIVE, TenantStatus.SUSPENDED]), number
            ),
            lambda: note(number),
        )
    )()  # fmt: skip


class AuditContract:
    """Test the entries that changes leave; the fixture `store` comes from `StoreContract`."""

    @pytest.mark.parametrize("seed", range(6))
    async def test_every_change_that_took_effect_has_one_entry_and_no_other_has_any(
        self, store: Store, seed: int
    ) -> None:
        dice = Random(seed)
        runs = [f"run-{n}" for n in range(4)]
        state = await everything(store, runs)
        entries = await all_entries(store)
        effects = 0
        for _ in range(100):
            change = random_change(dice)
            (answer,) = await store.commit([[change]])
            state, before = await everything(store, runs), state
            entries, known = await all_entries(store), entries
            fresh = Counter(entry.entry_id for entry in entries) - Counter(entry.entry_id for entry in known)
            if not isinstance(change, Noted):
                assert len(fresh) == (state != before), change
            if isinstance(answer, Refused):
                assert not fresh
            effects += len(fresh)
        assert effects >= 12

    async def test_an_entry_says_who_did_what_to_what_from_where_and_when(self, store: Store) -> None:
        await record(store, created("run-1", by=ALICE))
        (entry,) = (await store.find_audit_entries(ACME, action=Action.RUN_SUBMITTED)).entries
        assert json.loads(entry.payload) == {
            "action": "run.submitted",
            "actor": "user/alice",
            "at": 2_000,
            "details": {
                "content_hash": HASH, "input_bytes": 2, "not_before": 0, "priority": 0, "workflow": "checkout",
            },
            "entity": "run/run-1",
            "origin": {"on_behalf_of": "user/bob", "request_id": "r-1", "source": "http"},
            "outcome": "success",
            "tenant_id": ACME,
            "version": 2_000,
        }  # fmt: skip

    async def test_a_whole_run_in_one_unit_leaves_its_entries_in_their_order(self, store: Store) -> None:
        await record(
            store,
            created("run-1"),
            RunStarted("run-1", ACME, 2_050),
            CancelRequested("run-1", ACME, 2_060),
            task_started("run-1", "a"),
            attempt_failed("run-1", "a"),
            attempt_failed("run-1", "b", status=S.CANCELLED),
            task_finished("run-1", "a", attempt=2, status=S.TIMEOUT, error=b'{"type": "TimeoutError", "message": "x"}'),
            finished("run-1", status=S.CANCELLED),
        )
        entries = [entry for entry in await all_entries(store) if "run-1" in entry.entity]
        assert [(entry.action, entry.entity, entry.version, entry.outcome) for entry in entries] == [
            ("run.submitted", "run/run-1", 2_000, "success"),
            ("run.started", "run/run-1", 2_050, "success"),
            ("run.cancel_requested", "run/run-1", 2_060, "success"),
            ("task.started", "task/run-1/a", 1, "success"),
            ("task.retried", "task/run-1/a", 1, "failure"),
            ("task.interrupted", "task/run-1/b", 1, "success"),
            ("task.finished", "task/run-1/a", 2, "failure"),
            ("run.finished", "run/run-1", 2_900, "success"),
        ]
        assert json.loads(entries[6].payload)["details"] == {
            "attempt": 2, "error_type": "TimeoutError", "started_at": 2_100, "status": "timeout"
        }  # fmt: skip

    async def test_units_that_are_repeated_leave_no_further_entry(self, store: Store) -> None:
        units: list[list[Change]] = [
            [created("run-1", idempotency_key="k"), RunStarted("run-1", ACME, 2_050), note(1)],
            [task_started("run-1", "a"), attempt_failed("run-1", "b")],
            [task_finished("run-1", "b"), CancelRequested("run-1", ACME, 2_400)],
            [created("run-2"), plan_changed(), TenantStatusChanged(BETA, TenantStatus.SUSPENDED, 5_000)],
        ]
        assert await store.commit(units) == [Committed()] * 4
        entries = await all_entries(store)
        for _ in range(2):
            assert await store.commit(units) == [Committed()] * 4
            # beside new ones, which do have their entries
        assert await all_entries(store) == entries
        assert await store.commit([*units, [created("run-3")], *units]) == [Committed()] * 9
        assert len(await all_entries(store)) == len(entries) + 1

    @pytest.mark.parametrize("repeated", [1, 3, 250, 499])
    async def test_what_is_new_among_what_is_repeated_has_its_entries(self, store: Store, repeated: int) -> None:
        names = [f"run-{n:03}" for n in range(500)]
        Random(repeated).shuffle(names)
        await store.commit([[created(name), task_finished(name, "a")] for name in names[:repeated]])
        names.sort()
        await store.commit([[created(name), task_finished(name, "a"), finished(name)] for name in names])
        entries = [(entry.action, entry.entity) for entry in await all_entries(store) if "run-" in entry.entity]
        assert len(entries) == len(set(entries)) == 1_500

    async def test_a_refused_unit_leaves_no_entry_and_no_gap(self, store: Store) -> None:
        units = [[created(f"run-{n:03}", ACME if n % 7 else "tenant-nobody")] for n in range(100)]
        await store.commit(units)
        entries = [entry for entry in await all_entries(store) if entry.action == "run.submitted"]
        assert [entry.entity for entry in entries] == [f"run/run-{n:03}" for n in range(100) if n % 7]
        unit: list[Change] = [created("run-x"), task_finished("run-x", "a"), task_finished("run-nothing", "a")]
        assert isinstance((await store.commit([unit]))[0], Refused)
        assert len(await all_entries(store)) == len(entries) + 2

    async def test_an_idempotency_key_that_was_used_leaves_no_entry(self, store: Store) -> None:
        await record(store, created("run-1", idempotency_key="k"))
        before = await all_entries(store)
        await store.commit([[created("run-2", idempotency_key="k")]])
        assert await all_entries(store) == before

    async def test_the_engines_own_bookkeeping_leaves_no_entry(self, store: Store) -> None:
        before = await all_entries(store)
        await record(store, HourReserved(ACME, 1, 1), EstimateLearnt(ACME, "w", "a", 1), workflow("1" * 64))
        assert await all_entries(store) == before

    async def test_each_tenant_has_a_chain_of_its_own(self, store: Store) -> None:
        await store.commit([[created(f"run-{n}", BETA if n % 3 else ACME)] for n in range(30)])
        await all_entries(store)
        heads = {head.tenant_id: head.seq for head in await store.list_audit_heads()}
        assert heads == {ACME: 11, BETA: 21}

    async def test_a_note_is_recorded_once(self, store: Store) -> None:
        before = len(await all_entries(store))
        await record(store, note(1), note(1), note(2), note(1, BETA))
        await record(store, note(2), note(3), note(1, MESH, entity="audit", action=Action.AUDIT_READ))
        entries = await all_entries(store)
        assert len(entries) == before + 5
        said = json.loads((await entries_of(store))[-1].payload)
        assert (said["details"], said["version"], said["outcome"]) == ({"a": [2], "b": 1}, 3, "denied")

    async def test_deleting_a_tenant_is_recorded_beside_its_chain_and_names_the_end_of_it(self, store: Store) -> None:
        await record(store, created("run-1"), TenantStatusChanged(ACME, TenantStatus.SUSPENDED, 3_000, ALICE))
        await record(store, finished("run-1"), TenantStatusChanged(ACME, TenantStatus.DELETED, 3_001, ALICE))
        (deleted,) = await entries_of(store, MESH)
        head = (await entries_of(store))[-1]
        said = json.loads(deleted.payload)
        assert (said["action"], said["entity"], said["actor"]) == ("tenant.deleted", f"tenant/{ACME}", "user/alice")
        assert said["details"] == {"last_hash": head.hash.hex(), "last_seq": head.seq}
        while await store.purge_deleted(10):
            pass
        assert (await entries_of(store))[-1] == head
        purged = (await entries_of(store, MESH))[-1]
        assert (purged.action, purged.entity) == ("tenant.purged", f"tenant/{ACME}")
        await all_entries(store)

    async def test_lives_and_what_they_interrupt_are_recorded(self, store: Store) -> None:
        await store.begin_incarnation(ALICE)
        await record(store, created("run-1"), task_started("run-1", "a", attempt=2))
        await store.begin_incarnation()
        await store.end_incarnation()
        await store.end_incarnation()
        assert [(entry.action, entry.version, entry.actor) for entry in await entries_of(store, MESH)] == [
            ("mesh.started", 1, "user/alice"),
            ("mesh.started", 2, "system/engine"),
            ("mesh.stopped", 2, "system/engine"),
        ]
        second = json.loads((await entries_of(store, MESH))[1].payload)["details"]
        assert second == {"incarnation": 2, "previous_ended_cleanly": False}
        crashed = (await entries_of(store))[-1]
        assert (crashed.action, crashed.entity, crashed.version) == ("task.crashed", "task/run-1/a", 2)
        await all_entries(store)

    # --- reading ------------------------------------------------------------------------------------------------------

    async def test_a_chain_is_read_in_pages(self, store: Store) -> None:
        await store.commit([[created(f"run-{n:03}")] for n in range(25)])
        chain = await entries_of(store)
        read: list[AuditEntryRecord] = []
        while page := await store.list_audit_entries(ACME, after_seq=len(read), limit=4):
            assert len(page) <= 4
            read += page
        assert read == chain
        assert await store.list_audit_entries("tenant-nobody", after_seq=0, limit=4) == []
        assert await store.list_audit_entries(ACME, after_seq=0, limit=0) == []

    async def test_entries_are_found_by_every_filter_as_by_looking_at_all(self, store: Store) -> None:
        dice = Random(1)
        await store.commit([[random_change(dice)] for _ in range(400)])
        await store.commit([[created("run-9", by=ALICE)], [task_finished("run-9", "a")], [finished("run-9")]])
        entries = await all_entries(store)
        filters: dict[str, list[Any]] = {
            "since": [None, 2_100],
            "until": [None, 2_900],
            "action": [None, Action.TASK_FINISHED, Action.RUN_SUBMITTED, Action.TENANT_PLAN_CHANGED],
            "actor": [None, "user/alice", "system/engine"],
            "entity": [
                None,
                "run/run-9",
                "task/run-9/a",
                "task/run-1/a",
                f"tenant/{ACME}",
                "task/run-nothing/a",
                "odd",
            ],
            "outcome": [None, *Outcome],
        }
        found = 0
        for _ in range(250):
            chosen = {name: dice.choice(values) for name, values in filters.items()}
            for tenant_id in (ACME, None):
                expected = [
                    entry
                    for entry in sorted(entries, key=lambda entry: entry.entry_id, reverse=True)
                    if tenant_id in (None, entry.tenant_id)
                    and (chosen["since"] is None or entry.at >= chosen["since"])
                    and (chosen["until"] is None or entry.at < chosen["until"])
                    and all(chosen[n] in (None, getattr(entry, n)) for n in ("action", "actor", "entity", "outcome"))
                ]
                page = await store.find_audit_entries(tenant_id, **chosen, limit=3)
                read = page.entries
                while page.cursor is not None:
                    page = await store.find_audit_entries(tenant_id, **chosen, cursor=page.cursor, limit=3)
                    read = read + page.entries
                assert read == expected, chosen
                found += len(read)
        assert found > 300

    async def test_status_and_outcome_agree(self, store: Store) -> None:
        statuses = {
            S.SUCCESS: "success",
            S.PARTIAL: "success",
            S.CANCELLED: "success",
            S.FAILED: "failure",
        }
        for status in statuses:
            await record(store, created(f"run-{status}"), finished(f"run-{status}", status=status))
        ends = (await store.find_audit_entries(ACME, action=Action.RUN_FINISHED)).entries
        assert {ExecutionStatus(json.loads(entry.payload)["details"]["status"]): entry.outcome for entry in ends} == (
            statuses
        )
