"""Entries that say the same share a row, and nothing of them is lost by that."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synergymesh.audit.verifying import verify_log
from synergymesh.domain.actors import ENGINE, Actor
from synergymesh.domain.audit.actions import ROUTINE, Action, Outcome
from synergymesh.domain.audit.forms import NOTHING, chain_hashes, genesis_hash
from synergymesh.domain.audit.groups import GROUP_ENTRIES_MAX, TOGETHER, day_of, is_kept_together, is_of_run
from synergymesh.domain.audit.retention import DAY
from synergymesh.domain.states import ExecutionStatus
from synergymesh.ports.audit import AuditEntryRecord
from synergymesh.ports.changes import RunCreated, RunFinished, TaskFinished
from synergymesh.store import migration
from synergymesh.store.audit.entries import Entry, entries_of
from synergymesh.store.audit.rows import AuditRowRecord, Group, pack, unpack
from synergymesh.store.audit.scan import SqliteAuditScan
from synergymesh.store.audit.writes import Trail

TENANT = "tenant-a"


def made(action: Action, at: int, entity: str, actor: str, outcome: Outcome, details: object, version: int) -> Entry:
    fields = {
        "action": action.value,
        "actor": actor,
        "at": at,
        "details": details,
        "entity": entity,
        "outcome": outcome.value,
        "tenant_id": TENANT,
        "version": version,
    }
    payload = msgspec.json.encode(fields)
    return Entry(TENANT, at, action.value, entity, version, actor, outcome.value, payload)


entries = st.lists(
    st.builds(
        made,
        action=st.sampled_from([*5 * [Action.TASK_FINISHED], Action.RUN_FINISHED, Action.TENANT_PLAN_CHANGED]),
        at=st.integers(0, 3) | st.integers(DAY - 2, DAY + 2),
        entity=st.sampled_from(["run/run-1", "task/run-1/a\n", "tenant/tenant-a", "task/run-1/\u2028ë"]),
        actor=st.sampled_from([*5 * ["system/engine"], "user/alice\n"]),
        outcome=st.sampled_from([*5 * [Outcome.SUCCESS], *Outcome]),
        details=st.none() | st.text(max_size=5),
        version=st.integers(0, 3),
    ),
    min_size=1,
    max_size=300,
)


def grouped(given_: Sequence[Entry]) -> list[Group]:
    groups = [Group(given_[0])]
    for entry in given_[1:]:
        if not groups[-1].takes(entry):
            groups.append(Group(entry))
    return groups


@given(entries)
def test_what_is_packed_into_rows_comes_out_as_it_was(given_: list[Entry]) -> None:
    hashes = chain_hashes(TENANT, 8, NOTHING, [entry.payload for entry in given_])
    rows = [AuditRowRecord(*row) for row in pack(TENANT, grouped(given_), 7, 70, hashes)]  # type: ignore[arg-type]  # rows are of any values
    found = [entry for row in rows for entry in reversed(list(unpack(row)))]
    assert found == [
        AuditEntryRecord(
            *(71 + number, TENANT, 8 + number, entry.at, entry.action, entry.entity, entry.version),
            *(entry.actor, entry.outcome, entry.payload, hashes[number]),
        )
        for number, entry in enumerate(given_)
    ]


@given(entries)
def test_a_row_has_entries_of_one_day_that_say_the_same_and_only_of_runs_that_went_well(given_: list[Entry]) -> None:
    hashes = chain_hashes(TENANT, 1, NOTHING, [entry.payload for entry in given_])
    for row in (AuditRowRecord(*row) for row in pack(TENANT, grouped(given_), 0, 0, hashes)):  # type: ignore[arg-type]  # as above
        inside = list(unpack(row))
        assert {(entry.action, entry.actor, entry.outcome) for entry in inside} == {
            (row.action, row.actor, row.outcome)
        }
        times = [entry.at for entry in inside]
        assert (min(times), max(times)) == (row.first_at, row.at)
        assert day_of(row.first_at) == day_of(row.at)
        assert len(inside) <= GROUP_ENTRIES_MAX
        assert (row.entity, row.version) == (
            ("", 0) if is_of_run(inside[0].entity) else (inside[0].entity, inside[0].version)
        )
        if len(inside) > 1:
            assert is_kept_together(row.action, row.outcome)
            assert all(is_of_run(entry.entity) for entry in inside)


finished_tasks = st.lists(
    st.builds(
        TaskFinished,
        run_id=st.sampled_from(["run-1", "run-2"]),
        component_id=st.sampled_from(["a", 'b"\n']),
        tenant_id=st.just(TENANT),
        status=st.sampled_from([ExecutionStatus.SUCCESS, ExecutionStatus.FAILED, ExecutionStatus.CANCELLED]),
        attempt=st.integers(0, 3),
        started_at=st.none() | st.integers(0, 3),
        ended_at=st.integers(0, 3) | st.integers(DAY - 2, DAY + 2),
        result=st.just(b"1"),
        error=st.none() | st.just(b'{"type":"E","message":"m","chain":[]}'),
    ),
    min_size=1,
    max_size=300,
)


finished_runs = st.lists(
    st.builds(
        RunFinished,
        run_id=st.sampled_from(["run-1", "run-2"]),
        tenant_id=st.just(TENANT),
        status=st.sampled_from([ExecutionStatus.SUCCESS, ExecutionStatus.FAILED, ExecutionStatus.PARTIAL]),
        started_at=st.none() | st.integers(0, 3),
        ended_at=st.integers(0, 3) | st.integers(DAY - 2, DAY + 2),
        result=st.just(b"1"),
        error=st.none() | st.just(b'{"type":"E","message":"m","chain":[]}'),
    ),
    min_size=1,
    max_size=300,
)


ALICE = Actor(type="user", id="alice")
ACTORS = (None, ENGINE, ALICE, Actor(type="user", id="alice"), Actor(type="user", id="alice", request_id="r-1"))

submissions = st.lists(
    st.builds(
        RunCreated,
        run_id=st.sampled_from(["run-1", "run-2"]),
        tenant_id=st.just(TENANT),
        workflow=st.sampled_from(["w", 'w"\n']),
        content_hash=st.just("h"),
        input=st.sampled_from([b"{}", b'{"a":1}']),
        idempotency_key=st.none(),
        priority=st.integers(-1, 1),
        not_before=st.integers(0, 1),
        created_at=st.integers(0, 3) | st.integers(DAY - 2, DAY + 2),
        by=st.sampled_from(ACTORS),
    ),
    min_size=1,
    max_size=300,
)


@given(st.lists(finished_tasks | finished_runs | submissions, min_size=1, max_size=4))
def test_what_happens_most_is_grouped_the_short_way_as_all_entries_are(
    kinds: list[list[TaskFinished] | list[RunFinished] | list[RunCreated]],
) -> None:
    connection = sqlite3.connect(":memory:")
    trail = Trail(connection)
    for changes in kinds:
        trail.add_changes(changes)
    connection.close()
    expected = grouped([entry for changes in kinds for entry in entries_of(changes)])
    names = ("first_at", "at", "action", "entity", "version", "actor", "outcome", "payloads")
    found = trail._groups[TENANT]
    assert [[getattr(group, name) for name in names] for group in found] == [
        [getattr(group, name) for name in names] for group in expected
    ]


def of_tasks(times: Sequence[int]) -> list[Entry]:
    return [made(Action.TASK_FINISHED, at, "task/run-1/a", "system/engine", Outcome.SUCCESS, None, 1) for at in times]


def test_a_full_row_is_followed_by_another_one() -> None:
    groups = grouped(of_tasks([5] * (2 * GROUP_ENTRIES_MAX + 3)))
    assert [len(group.payloads) for group in groups] == [GROUP_ENTRIES_MAX, GROUP_ENTRIES_MAX, 3]


def test_a_row_ends_at_midnight_in_both_directions_and_has_its_earliest_and_latest_time() -> None:
    groups = grouped(of_tasks([DAY - 2, DAY - 5, DAY - 1, DAY, DAY + 3, DAY - 1, 2 * DAY - 1, 2 * DAY]))
    assert [(len(group.payloads), group.first_at, group.at) for group in groups] == [
        (3, DAY - 5, DAY - 1),
        (2, DAY, DAY + 3),
        (1, DAY - 1, DAY - 1),
        (1, 2 * DAY - 1, 2 * DAY - 1),
        (1, 2 * DAY, 2 * DAY),
    ]


def test_what_happens_by_itself_all_the_time_is_kept_together() -> None:
    assert ROUTINE < TOGETHER
    assert all(is_kept_together(action.value, "success") for action in TOGETHER)
    assert not any(is_kept_together(action.value, "failure") for action in TOGETHER)
    assert not is_kept_together(Action.TENANT_SUSPENDED.value, "success")


def test_rows_of_an_older_version_become_groups_of_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    with monkeypatch.context() as patch:
        patch.setattr(migration, "HEAD", "0016")
        migration.upgrade(connection, None, "it")
    success = Outcome.SUCCESS
    chain = [
        made(Action.TENANT_CREATED, 5, f"tenant/{TENANT}", "user/alice", success, {}, 5),
        made(Action.RUN_SUBMITTED, 6, "run/run-1", "user/alice", success, {}, 6),
        made(Action.TASK_FINISHED, 7, "task/run-1/a", "system/engine", success, {}, 1),
    ]
    log_id = 9
    hashes = chain_hashes(TENANT, 1, genesis_hash(f"{log_id:016x}", TENANT), [entry.payload for entry in chain])
    connection.execute("INSERT INTO meta VALUES ('audit_log_id', ?)", (log_id,))
    connection.execute("INSERT INTO audit_heads VALUES (?, 3, ?)", (TENANT, hashes[-1]))
    connection.executemany(
        "INSERT INTO audit_entries (tenant_id, at, action, entity, version, actor, outcome, payload, seq, hash)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [(*entry, seq, hash_) for seq, (entry, hash_) in enumerate(zip(chain, hashes, strict=True), 1)],
    )
    migration.upgrade(connection, "0016", "it")
    report = verify_log(SqliteAuditScan(connection), [], [])
    assert (report.findings, report.entries) == ([], 3)
    connection.close()
