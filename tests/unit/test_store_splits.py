"""However changes are put into batches, the same is recorded."""

import sqlite3
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synergymesh.domain.states import ATTEMPT_STATUSES, ExecutionStatus, TenantStatus
from synergymesh.ports.changes import (
    AttemptFailed,
    CancelRequested,
    Change,
    EstimateLearnt,
    HourReserved,
    RunCreated,
    RunFinished,
    RunLinked,
    RunStarted,
    TaskFinished,
    TaskStarted,
    TenantCreated,
    TenantPlanChanged,
    TenantStatusChanged,
    Unit,
    WorkflowStored,
)
from synergymesh.store import statements, writes
from synergymesh.store.sqlite_files import open_writer

S = ExecutionStatus
TENANTS = ("tenant-a", "tenant-b")
EVERYBODY = ["tenant-a", "tenant-b", "tenant-c", "tenant-d"]
SETUP: list[Unit] = [
    [*(TenantCreated(t, t, "basic", b"{}", 1) for t in TENANTS), WorkflowStored("h", "w", b"{}", None, 1)]
]

# Few ids, so that the changes meet. Every run that another change names has a number below 3 and is created first;
# of the others each is created at most now and then.
tenants = st.sampled_from(TENANTS)
known_runs = st.sampled_from(["run-0", "run-1", "run-2"])
components = st.sampled_from(["a", "b"])
numbers = st.integers(1, 3)
moments = st.integers(1, 5)
maybe_moments = st.none() | moments
payloads = st.sampled_from([None, b"1", b"2"])
values: dict[str, st.SearchStrategy[Any]] = {
    "tenant_id": tenants,
    "component_id": components,
    "started_at": moments,
    "ended_at": moments,
    "error": payloads,
}
of_known_run = {"run_id": known_runs, "tenant_id": st.sampled_from([TENANTS[0], TENANTS[0], TENANTS[0], TENANTS[1]])}

changes: st.SearchStrategy[Change] = st.one_of(
    st.builds(
        RunCreated,
        run_id=st.sampled_from([f"run-{n}" for n in range(3, 8)]),
        tenant_id=tenants | st.just("tenant-nobody"),
        workflow=st.just("w"),
        content_hash=st.sampled_from(["h", "h", "h", "unknown"]),
        input=st.sampled_from([b"1", b"2"]),
        idempotency_key=st.sampled_from([None, "k1", "k2"]),
        priority=numbers,
        not_before=moments,
        created_at=moments,
    ),
    st.builds(RunStarted, **of_known_run, started_at=moments),
    st.builds(CancelRequested, **of_known_run, requested_at=moments),
    st.builds(TaskStarted, **of_known_run, component_id=components, attempt=numbers, started_at=moments),
    st.builds(
        AttemptFailed,
        **of_known_run,
        component_id=components,
        number=numbers,
        status=st.sampled_from(sorted(ATTEMPT_STATUSES)),
        started_at=moments,
        ended_at=moments,
        retry_at=moments,
        error=payloads,
    ),
    st.builds(
        TaskFinished,
        **of_known_run,
        component_id=components,
        status=st.sampled_from([S.SUCCESS, S.FAILED, S.SKIPPED, S.PARTIAL]),
        attempt=numbers,
        started_at=maybe_moments,
        ended_at=moments,
        result=payloads,
        error=payloads,
    ),
    st.builds(
        RunFinished,
        **of_known_run,
        status=st.sampled_from([S.SUCCESS, S.FAILED, S.CANCELLED]),
        started_at=maybe_moments,
        ended_at=moments,
        result=payloads,
        error=payloads,
    ),
    st.builds(
        TenantStatusChanged,
        tenant_id=st.sampled_from([TENANTS[1], "tenant-nobody"]),
        status=st.sampled_from(TenantStatus),
        changed_at=moments,
    ),
    # Families: `tenant-c` and `tenant-d` may have each other or one that leaves as parents, or not join at all.
    st.builds(
        TenantCreated,
        tenant_id=st.sampled_from(["tenant-c", "tenant-d"]),
        tenant_name=st.just("n"),
        tier=st.just("basic"),
        quota=st.just(b"{}"),
        created_at=moments,
        parent_id=st.sampled_from([None, *EVERYBODY]),
        policy=st.sampled_from([b"1", b"2"]),
    ),
    st.builds(
        TenantStatusChanged,
        tenant_id=st.sampled_from(EVERYBODY[1:]),
        status=st.just(TenantStatus.DELETED),
        changed_at=moments,
    ),
    st.builds(
        TenantPlanChanged,
        tenant_id=st.sampled_from(EVERYBODY),
        tier=st.sampled_from(["one", "two"]),
        quota=st.just(b"1"),
        policy=st.just(b"3"),
        changed_at=moments,
    ),
    st.builds(HourReserved, tenant_id=st.sampled_from(EVERYBODY), minute=numbers, starts=st.integers(-1, 5)),
    st.builds(
        EstimateLearnt,
        tenant_id=st.sampled_from(EVERYBODY),
        workflow=st.just("w"),
        component_id=components,
        microseconds=st.integers(-1, 5),
    ),
    st.builds(
        WorkflowStored,
        content_hash=st.sampled_from(["h", "h2"]),
        workflow=st.just("w"),
        definition=st.just(b"{}"),
        source=st.sampled_from([None, "one", "two"]),
        created_at=moments,
    ),
)


@st.composite
def sequences(draw: st.DrawFn) -> tuple[list[list[Change]], list[list[list[Change]]]]:
    """Give units that follow one another, and the same units in batches."""
    units = draw(st.lists(st.lists(changes, min_size=1, max_size=3), max_size=25))
    batches = []
    rest = units
    while rest:
        size = draw(st.integers(1, len(rest)))
        batches.append(rest[:size])
        rest = rest[size:]
    return units, batches


class Template:
    """A database with two tenants and three runs, as bytes: opening it hundreds of times takes no time."""

    def __init__(self) -> None:
        connection = open_writer(None, "full")
        runs = [RunCreated(f"run-{n}", TENANTS[0], "w", "h", b"{}", None, 0, 0, 1) for n in range(3)]
        writes.commit(connection, [*SETUP, [*runs]])
        self._bytes = connection.serialize()
        connection.close()

    def apply(
        self, batches: Sequence[Sequence[Unit]], *, unclean_ends: int = 0
    ) -> tuple[dict[str, list[Any]], list[str]]:
        """Give all tables, and the kinds of all answers, after so many unclean ends and committing these batches."""
        connection = sqlite3.connect(":memory:", isolation_level=None)
        connection.deserialize(self._bytes)
        connection.execute("PRAGMA foreign_keys = ON")
        if unclean_ends:
            connection.execute("INSERT INTO meta (name, value) VALUES (?, ?)", (statements.UNCLEAN, unclean_ends))
        answers = [type(answer).__name__ for batch in batches for answer in writes.commit(connection, batch)]
        tables = {
            table: connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3").fetchall()
            for table in ("tenants", "workflows", "runs", "tasks", "attempts", "hour_reservations", "estimates")
        }
        # Which entries share a row depends on the batches.
        rows = connection.execute("SELECT tenant_id, payload FROM audit_entries").fetchall()
        tables["audit"] = sorted((tenant, payload) for tenant, lines in rows for payload in lines.split(b"\n"))
        connection.close()
        return tables, answers


@pytest.fixture(scope="module")
def template() -> Template:
    return Template()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(sequence=sequences())
def test_any_batches_record_what_one_unit_after_the_other_records(
    template: Template, sequence: tuple[list[list[Change]], list[list[list[Change]]]]
) -> None:
    units, batches = sequence
    assert template.apply(batches) == template.apply([[unit] for unit in units])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(sequence=sequences())
def test_a_batch_that_is_repeated_records_nothing_more(
    template: Template, sequence: tuple[list[list[Change]], list[list[list[Change]]]]
) -> None:
    # A caller repeats the batch whose commit failed, before anything else.
    batches = without_starts_after_failures(sequence[1])
    # What was refused may be right the second time: a parent that joined behind its child, say.
    _, answers = template.apply(batches)
    kinds = iter(answers)
    batches = [[unit for unit in batch if next(kinds) != "Refused"] for batch in batches]
    once, _ = template.apply(batches)
    twice, _ = template.apply([batch for batch in batches for _ in range(2)])
    assert without_status_moments(twice) == without_status_moments(once)


def without_starts_after_failures(batches: list[list[list[Change]]]) -> list[list[list[Change]]]:
    """Leave out the starts of attempts that failed before: nobody does that, and a repeated failure would end them."""
    failed = set()
    kept: list[list[list[Change]]] = []
    for batch in batches:
        kept.append([])
        for unit in batch:
            kept[-1].append([])
            for change in unit:
                if isinstance(change, AttemptFailed):
                    failed.add((change.run_id, change.component_id, change.number))
                if not isinstance(change, TaskStarted) or (
                    (change.run_id, change.component_id, change.attempt) not in failed
                ):
                    kept[-1][-1].append(change)
    return kept


def without_status_moments(tables: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Leave out the tenants: a batch that suspends one and resumes it says so twice, and does it twice."""
    kept = {name: rows for name, rows in tables.items() if name not in ("tenants", "workflows")}
    kept["audit"] = [row for row in kept["audit"] if b'"entity":"tenant/' not in row[1]]
    return kept


@st.composite
def lives(draw: st.DrawFn, run_id: str) -> list[list[Change]]:
    """Give a run's life from its beginning to its end, in units; a part of it may be told twice."""
    of_run = {"run_id": st.just(run_id), "tenant_id": st.just(TENANTS[0])}
    traceparent = draw(st.sampled_from([None, "00-1-2-01"]))
    parts: list[Change] = [RunCreated(run_id, TENANTS[0], "w", "h", b"1", None, 2, 3, 4, traceparent=traceparent)]
    of_component = {**of_run, "component_id": components, "started_at": moments, "ended_at": moments}
    for strategy in (
        st.builds(RunLinked, **of_run, retry_of=st.just("run-0"), replay_of=st.none(), linked_at=moments),
        st.builds(RunStarted, **of_run, started_at=moments),
        st.builds(CancelRequested, **of_run, requested_at=moments),
        st.builds(
            TaskFinished, **of_component, status=st.just(S.SUCCESS), attempt=numbers, result=payloads, error=payloads
        ),
        st.builds(
            RunFinished,
            **of_run,
            status=st.sampled_from([S.SUCCESS, S.FAILED]),
            started_at=maybe_moments,
            ended_at=moments,
            result=payloads,
            error=payloads,
        ),
    ):
        if draw(st.booleans()):
            parts.append(draw(strategy))
    if draw(st.integers(0, 9)) == 0:
        parts.append(draw(st.sampled_from(parts)))
    cut = draw(st.integers(1, len(parts)))
    return [each for each in (parts[:cut], parts[cut:]) if each]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(one=lives("run-3"), two=lives("run-4"), unclean_ends=st.integers(0, 3))
def test_a_run_that_ends_in_the_batch_in_which_it_begins_is_recorded_as_any_other(
    template: Template, one: list[list[Change]], two: list[list[Change]], unclean_ends: int
) -> None:
    units = [*one, *two]
    together = template.apply([units], unclean_ends=unclean_ends)
    assert together == template.apply([[unit] for unit in units], unclean_ends=unclean_ends)


@given(rows=st.integers(0, 20_000))
def test_rows_are_split_into_statements_that_hold_each_of_them_once(rows: int) -> None:
    plan = statements._plan(rows)
    assert [start for start, _, _ in plan] == [sum(count for _, count, _ in plan[:n]) for n in range(len(plan))]
    assert sum(count for _, count, _ in plan) == rows
    assert all(count <= size <= max(count + count // 4, count) for _, count, size in plan)
    assert all(size <= statements.ROWS_MAX for _, _, size in plan)
    assert len(plan) <= rows // statements.ROWS_MAX + 4


def test_what_came_before_its_tenant_is_refused_in_one_batch_too(template: Template) -> None:
    joins = TenantCreated("tenant-d", "n", "basic", b"{}", 1)
    for early in (
        HourReserved("tenant-d", 1, 0),
        EstimateLearnt("tenant-d", "w", "a", 1),
        RunCreated("run-9", "tenant-d", "w", "h", b"{}", None, 0, 0, 1),
    ):
        _, answers = template.apply([[[early], [joins]]])
        assert answers == ["Refused", "Committed"]


def test_a_start_behind_the_end_of_its_task_leaves_no_entry(template: Template) -> None:
    end = TaskFinished("run-0", "a", TENANTS[0], S.SUCCESS, 1, 1, 1, None, None)
    start = TaskStarted("run-0", "a", TENANTS[0], 1, 1)
    assert template.apply([[[end], [start]]]) == template.apply([[[end]], [[start]]])
