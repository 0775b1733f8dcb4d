"""The schema: what the migrations make, what the metadata says and what the states allow are the same."""

import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.pool import StaticPool

from synergymesh.domain.states import ATTEMPT_STATUSES, RUN_TRANSITIONS, TASK_TRANSITIONS, TenantStatus
from synergymesh.errors import SchemaMismatch, StoreCorrupt
from synergymesh.store import backlog_reads, migration, pruning, reads, schema, tenant_writes, upkeep, writes
from synergymesh.store.sqlite_files import open_writer


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    connection = open_writer(None, "full")
    yield connection
    connection.close()


@pytest.fixture
def migrated(connection: sqlite3.Connection) -> Iterator[sa.Connection]:
    engine = sa.create_engine("sqlite://", creator=lambda: connection, poolclass=StaticPool)
    with engine.connect() as borrowed:
        yield borrowed


@pytest.fixture
def made_from_metadata() -> Iterator[sa.Connection]:
    engine = sa.create_engine("sqlite://")
    with engine.connect() as connection:
        schema.metadata.create_all(connection)
        yield connection
    engine.dispose()


def describe(connection: sa.Connection) -> dict[str, str]:
    """Give the SQL of every table and index, without what only differs in style."""
    rows = connection.execute(
        sa.text("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name <> 'alembic_version'")
    )
    return {name: _without_style(sql) for name, sql in rows}


def _without_style(sql: str) -> str:
    # A column that is added later has its foreign key and its default in other words.
    sql = re.sub(r",\s+CONSTRAINT fk_tenants_tenants FOREIGN KEY\(parent_id\)", "", sql).replace("(x'7b7d')", "x'7b7d'")
    return re.sub(r"[\s\"]+", " ", sql).strip()


def test_the_migrations_make_what_the_metadata_says(migrated: sa.Connection) -> None:
    assert compare_metadata(MigrationContext.configure(migrated), schema.metadata) == []


def test_the_migrations_make_the_same_sql_as_the_metadata(
    migrated: sa.Connection, made_from_metadata: sa.Connection
) -> None:
    made, said = describe(migrated), describe(made_from_metadata)
    assert made.keys() == said.keys()
    for name in said:
        # Constraints come in another order.
        assert sorted(made[name].replace(",", " ,").split()) == sorted(said[name].replace(",", " ,").split()), name


@pytest.mark.parametrize(("table", "column"), [("hour_reservations", "starts"), ("estimates", "microseconds")])
def test_a_measure_that_cannot_be_negative_has_a_check(migrated: sa.Connection, table: str, column: str) -> None:
    (check,) = sa.inspect(migrated).get_check_constraints(table)
    assert (check["name"], check["sqltext"]) == (f"ck_{table}_{column}", f"{column} >= 0")


@pytest.mark.parametrize(
    ("table", "statuses"),
    [
        ("tenants", set(TenantStatus)),
        ("runs", set(RUN_TRANSITIONS)),
        ("tasks", set(TASK_TRANSITIONS)),
        ("attempts", set(ATTEMPT_STATUSES)),
    ],
)
def test_the_checks_of_a_database_are_the_states_of_the_domain(
    migrated: sa.Connection, table: str, statuses: set[str]
) -> None:
    (check,) = sa.inspect(migrated).get_check_constraints(table)
    assert check["name"] == f"ck_{table}_status"
    assert set(re.findall(r"'(\w+)'", check["sqltext"])) == {str(status) for status in statuses}


def test_the_newest_script_is_the_head_of_this_version() -> None:
    assert ScriptDirectory(str(migration.SCRIPTS)).get_heads() == [migration.HEAD]


def test_an_empty_database_has_no_revision_and_a_new_one_has_the_head(connection: sqlite3.Connection) -> None:
    empty = sqlite3.connect(":memory:")
    assert migration.get_revision(empty, "it") is None
    assert migration.get_revision(connection, "it") == migration.HEAD
    empty.close()


def add_script(monkeypatch: pytest.MonkeyPatch, scripts: Path, *statements: str) -> None:
    """Let there be a next version, whose migration runs these statements."""
    (scripts / "versions").mkdir(parents=True)
    for path in (migration.SCRIPTS / "env.py", *migration.SCRIPTS.glob("versions/*.py")):
        (scripts / path.relative_to(migration.SCRIPTS)).write_text(path.read_text())
    lines = [f"    op.execute({statement!r})" for statement in statements]
    (scripts / "versions" / "next.py").write_text(
        f"from alembic import op\nrevision = 'next'\ndown_revision = {migration.HEAD!r}\ndef upgrade():\n"
        + "\n".join(lines)
    )
    monkeypatch.setattr(migration, "SCRIPTS", scripts)
    monkeypatch.setattr(migration, "HEAD", "next")


def test_a_migration_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = open_writer(tmp_path / "mesh.db", "normal")
    head = migration.HEAD
    add_script(monkeypatch, tmp_path / "scripts", "CREATE TABLE half (a)", "CREATE TABLE half (a)")
    with pytest.raises(sa.exc.OperationalError, match="half already exists"):
        migration.upgrade(connection, head, "it")
    assert migration.get_revision(connection, "it") == head
    assert connection.execute("SELECT name FROM sqlite_master WHERE name = 'half'").fetchall() == []
    connection.close()


def test_a_database_of_an_older_version_is_upgraded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mesh.db"
    open_writer(path, "normal").close()
    add_script(monkeypatch, tmp_path / "scripts", "CREATE TABLE later (a)", "INSERT INTO later VALUES (1)")
    for place in (path, None):  # an old one, and a new one
        connection = open_writer(place, "normal")
        assert migration.get_revision(connection, "it") == "next"
        assert connection.execute("SELECT a FROM later").fetchall() == [(1,)]
        connection.close()


def test_a_start_on_a_database_of_this_version_does_not_import_alembic(tmp_path: Path) -> None:
    path = tmp_path / "mesh.db"
    open_writer(path, "normal").close()
    program = (
        "import sys; from pathlib import Path; from synergymesh.store.sqlite_files import open_writer\n"
        "open_writer(Path(sys.argv[1]), 'normal').close(); sys.exit('alembic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(path)], check=False).returncode == 0


def test_a_database_of_a_newer_version_is_refused(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    revision = migration.get_revision(connection, "mesh.db")
    with pytest.raises(SchemaMismatch, match=r"mesh\.db was made by a newer version .*9999"):
        migration.upgrade(connection, revision, "mesh.db")


def test_a_database_without_a_revision_is_refused(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM alembic_version")
    with pytest.raises(StoreCorrupt, match="which version"):
        migration.get_revision(connection, "mesh.db")


def plan(connection: sqlite3.Connection, sql: str) -> str:
    names = dict.fromkeys(re.findall(r":(\w+)", sql))
    return "\n".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", names))


def test_open_runs_are_found_by_their_own_index(connection: sqlite3.Connection) -> None:
    open_runs = schema.OPEN_RUN_STATUSES
    for sql in (
        reads._OPEN_RUNS._packed,
        reads._runs_query(True, open_runs, False, True)._packed,
        reads._count_query(True, open_runs),
    ):
        assert "ix_runs_open" in plan(connection, sql), sql


def test_a_page_of_a_backlog_is_read_from_its_place_without_sorting(connection: sqlite3.Connection) -> None:
    behind = "tenant_id=? AND (level,run_id)>(?,?)"
    for query, seek in (
        (backlog_reads._waiting_query(False, False), "ix_runs_waiting (tenant_id=?)"),
        (backlog_reads._waiting_query(True, False), f"ix_runs_waiting ({behind})"),
        (backlog_reads._waiting_query(True, True), f"ix_runs_waiting ({behind})"),
        (backlog_reads._LATER, "ix_runs_later (tenant_id=? AND not_before>?)"),
        (reads._BEGUN_RUNS, "ix_runs_begun (run_id>?)"),
    ):
        chosen = plan(connection, query._packed)
        assert f"SEARCH runs USING INDEX {seek}" in chosen
        assert "SCAN runs" not in chosen
        assert "B-TREE" not in chosen


def test_a_scan_and_a_sort_are_seen_in_a_plan(connection: sqlite3.Connection) -> None:
    chosen = plan(connection, "SELECT * FROM runs WHERE priority > :priority ORDER BY priority")
    assert "SCAN runs" in chosen
    assert "B-TREE" in chosen


def test_what_waits_is_counted_without_looking_at_other_runs(connection: sqlite3.Connection) -> None:
    chosen = plan(connection, backlog_reads._COUNTS)
    assert re.findall(r"SCAN runs.*", chosen) == ["SCAN runs USING INDEX ix_runs_waiting"]
    chosen = plan(connection, backlog_reads._BEFORE)
    assert "SEARCH runs USING INDEX ix_runs_waiting (tenant_id=? AND (level,run_id)<(?,?))" in chosen


def test_no_query_on_the_way_of_a_task_scans_a_table(connection: sqlite3.Connection) -> None:
    for sql in (
        reads._run_query(False)._packed,
        reads._runs_query(True, frozenset(), False, True)._packed,
        reads._tasks_query(True)._packed,
        reads._attempts_query(True)._packed,
        writes._RUNS_OF_KEYS,
        writes._RUNS_OF_IDS,
        upkeep._DELETED_RUNS,
        upkeep._DELETE_RUNS,
        *upkeep._DELETE_CHILDREN,
        *upkeep._DELETE_OF_TENANTS,
        upkeep._DELETE_TENANTS,
        upkeep._PRUNE_RESERVATIONS,
        pruning._PAGE,
        pruning._SIZES,
        pruning._HIDE,
        *pruning._DELETE_CHILDREN,
        pruning._DELETE_RUNS,
        reads._RESERVATIONS._packed,
        tenant_writes._CHILD,
        tenant_writes._STATUSES,
    ):
        scanned = r"SCAN (runs|tasks|attempts|hour_reservations|estimates|tenants|child)\b(?! USING)"
        assert not re.search(scanned, plan(connection, sql)), sql
    assert "ix_tasks_running" in plan(connection, upkeep._COUNT_CRASHES)


def test_every_table_with_a_run_of_its_own_goes_with_the_run() -> None:
    named = {table for table in schema.metadata.tables.values() if "run_id" in table.c and table is not schema.runs}
    assert named == set(schema.CHILDREN_OF_RUNS) >= {schema.tasks, schema.attempts}
