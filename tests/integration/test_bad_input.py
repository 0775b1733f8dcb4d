"""Bad input: each a clear error that names what is wrong, nothing recorded, and the orchestrator goes on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from synergymesh import (
    ExecutionStatus,
    Orchestrator,
    RetryPolicy,
    RunFailed,
    Workflow,
    current_task,
    load_workflow,
    read_wfformat,
    ref,
    task,
    workflow,
)
from synergymesh.errors import (
    CircularDependency,
    DuplicateComponent,
    InvalidPayload,
    InvalidRequest,
    InvalidWorkflow,
    StoreCorrupt,
    StoreUnavailable,
    UnknownComponent,
    UnknownRun,
    UnknownTenant,
    UnknownWorkflow,
    WorkflowFileError,
)
from synergymesh.workflows.nodes import given

S = ExecutionStatus


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@task
async def echo(value: Any) -> Any:
    return value


@workflow
def echoes(value: Any) -> object:
    return echo(value)


@pytest.fixture(autouse=True)
async def _nothing_is_lost(mesh: Orchestrator, tenant: str) -> AsyncIterator[None]:
    """Check around every test that an open run stays open, no other one appears, and everything still works."""
    gate = asyncio.Event()

    async def wait() -> str:
        await gate.wait()
        return "done"

    bystander = await mesh.submit(Workflow("bystander").add(wait), tenant=tenant)
    yield
    assert await mesh.count_open_runs() == 1
    gate.set()
    assert await bystander.result(10) == "done"
    assert await (await mesh.submit(echoes, tenant=tenant, input={"value": [1]})).result(10) == [1]
    assert await mesh.count_open_runs() == 0


async def refused(mesh: Orchestrator, tenant: str, built: Any, input_: Any = None) -> InvalidRequest:
    """Submit what cannot be accepted; check that nothing is recorded of it, and give the error."""
    before = len(await mesh.list_runs())
    with pytest.raises(InvalidRequest) as caught:
        await mesh.submit(built, tenant=tenant, input=input_)
    assert len(await mesh.list_runs()) == before
    assert str(caught.value)
    return caught.value


# --- workflows ------------------------------------------------------------------------------------------------------


async def test_a_cycle_is_refused_and_its_path_is_shown(mesh: Orchestrator, tenant: str) -> None:
    built = Workflow("circle")
    for name, before in {"start": [], "a": ["c", "start"], "b": ["a"], "c": ["b"]}.items():
        built.add(echo, id=name, args=[1], depends_on=before)
    error = await refused(mesh, tenant, built)
    assert isinstance(error, CircularDependency)
    assert error.cycle[0] == error.cycle[-1]
    assert set(error.cycle) == {"a", "b", "c"}
    assert " -> ".join(error.cycle) in str(error)
    assert error.code == "circular_dependency"


async def test_a_component_that_waits_for_itself_is_a_cycle(mesh: Orchestrator, tenant: str) -> None:
    built = Workflow("circle").add(echo, id="a", args=[1], depends_on=["a"])
    error = await refused(mesh, tenant, built)
    assert isinstance(error, CircularDependency)
    assert error.cycle == ("a", "a")


async def test_an_unknown_dependency_is_refused_and_the_nearest_name_is_shown(mesh: Orchestrator, tenant: str) -> None:
    built = Workflow("w").add(echo, id="fetch-order", args=[1]).add(echo, id="b", args=[ref("fetch-ordre")])
    error = await refused(mesh, tenant, built)
    assert isinstance(error, UnknownComponent)
    assert (error.component_id, error.nearest) == ("fetch-ordre", ("fetch-order",))


async def test_a_workflow_without_components_or_with_an_unused_input_is_refused(
    mesh: Orchestrator, tenant: str
) -> None:
    assert "no components" in str(await refused(mesh, tenant, Workflow("empty")))
    unused = Workflow("w").takes("x").add(echo, args=[1])
    error = await refused(mesh, tenant, unused)
    assert isinstance(error, InvalidWorkflow)
    assert "never uses its input 'x'" in str(error)


async def test_a_component_of_the_same_id_twice_is_refused() -> None:
    with pytest.raises(DuplicateComponent, match="'a'"):
        Workflow("w").add(echo, id="a", args=[1]).add(echo, id="a", args=[1])


@pytest.mark.parametrize("wrong", [echo, echo.function, None, 3, {"name": "x"}])
async def test_what_is_no_workflow_is_refused(mesh: Orchestrator, tenant: str, wrong: Any) -> None:
    error = await refused(mesh, tenant, wrong)
    assert error.field == "workflow"


async def test_an_unknown_workflow_tenant_or_run_is_not_found(mesh: Orchestrator, tenant: str) -> None:
    with pytest.raises(UnknownWorkflow, match="'nobody'"):
        await mesh.submit("nobody", tenant=tenant)
    wrong: list[Any] = ["tenant-no", "", None, 7, "x" * 10_000, "a\0b", "\ud800", "' OR 1=1 --"]
    for each in wrong:
        with pytest.raises(UnknownTenant):
            await mesh.submit(echoes, tenant=each, input={"value": 1})
        with pytest.raises(UnknownTenant):
            await mesh.get_tenant(each)
    for each in wrong:
        if isinstance(each, str):
            with pytest.raises(UnknownRun):
                await mesh.get_run(each)
            with pytest.raises(UnknownRun):
                await mesh.cancel_run(each)
            with pytest.raises(UnknownRun):
                await mesh.handle(each, tenant=tenant).result(5)


@pytest.mark.parametrize("priority", [1_001, -1_001, 1.5, "1", True, None])
async def test_a_priority_outside_its_range_is_refused(mesh: Orchestrator, tenant: str, priority: Any) -> None:
    with pytest.raises(InvalidRequest, match="priority") as caught:
        await mesh.submit(echoes, tenant=tenant, input={"value": 1}, priority=priority)
    assert caught.value.field == "priority"


@pytest.mark.parametrize(
    "settings",
    [
        {"max_concurrent_tasks": 0},
        {"max_concurrent_tasks": 1.5},
        {"payload_bytes_max": -1},
        {"synchronous": "off"},
    ],
)
def test_settings_outside_their_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Orchestrator(":memory:", **settings)
    assert caught.value.field in settings


# --- input ----------------------------------------------------------------------------------------------------------

BAD_VALUES = [
    pytest.param(float("nan"), "nan", id="NaN"),
    pytest.param(float("inf"), "inf", id="infinity"),
    pytest.param("a\0b", "NUL", id="NUL"),
    pytest.param("a\ud800b", "lone surrogate", id="lone surrogate"),
    pytest.param({"a\0": 1}, "NUL", id="NUL in a key"),
    pytest.param({"\udfff": 1}, "lone surrogate", id="lone surrogate in a key"),
    pytest.param({1: "x"}, "key", id="a key that is no text"),
    pytest.param(nested(101), "deeper than 100", id="nesting"),
    pytest.param(nested(5_000), "deeper than 100", id="deep nesting"),
    pytest.param(object(), "not JSON", id="an object"),
    pytest.param({1, 2}, "not JSON", id="a set"),
    pytest.param(b"bytes", "not JSON", id="bytes"),
    pytest.param(2**64, "64 bits", id="a huge integer"),
    pytest.param("x" * 10_000_000, "the limit is 1,000,000", id="10 MB"),
]


@pytest.mark.parametrize(("value", "problem"), BAD_VALUES)
async def test_an_input_that_is_no_payload_is_refused(
    mesh: Orchestrator, tenant: str, value: Any, problem: str
) -> None:
    error = await refused(mesh, tenant, echoes, {"value": value})
    assert isinstance(error, InvalidPayload)
    assert problem in str(error)
    assert "input" in str(error)
    assert len(str(error)) < 2_000
    deeper = await refused(mesh, tenant, echoes, {"value": {"list": [0, value]}})
    assert problem in str(deeper) or isinstance(value, (list, str))


async def test_what_is_at_the_limits_is_accepted(mesh: Orchestrator, tenant: str) -> None:
    # the input is an object around it: one level, and {"value":"..."}
    for value in (nested(99), "x" * (1_000_000 - 12), 2**63 - 1, -(2**63), "\U0001f600", "", [], {}, None):
        handle = await mesh.submit(echoes, tenant=tenant, input={"value": value})
        assert await handle.result(10) == value


@pytest.mark.parametrize("wrong", [[1], "text", 5, [("value", 1)]])
async def test_an_input_that_is_no_object_is_refused(mesh: Orchestrator, tenant: str, wrong: Any) -> None:
    assert (await refused(mesh, tenant, echoes, wrong)).field == "input"


async def test_an_input_that_does_not_fit_the_parameters_is_refused_with_their_name(
    mesh: Orchestrator, tenant: str
) -> None:
    @task
    async def take(order_id: int, when: date) -> str:
        return f"{order_id} {when.isoformat()}"

    @workflow
    def typed(order_id: int, when: date) -> object:
        return take(order_id, when)

    good = {"order_id": 1, "when": "2026-01-02"}
    for wrong, field in (
        ({"when": "2026-01-02"}, "order_id"),
        ({**good, "order_id": "one"}, "order_id"),
        ({**good, "when": "tomorrow"}, "when"),
        ({**good, "ordr_id": 1}, "ordr_id"),
    ):
        error = await refused(mesh, tenant, typed, wrong)
        assert error.field == field
        assert field in str(error)
    assert await (await mesh.submit(typed, tenant=tenant, input=good)).result(10) == "1 2026-01-02"


# --- results --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "problem"), BAD_VALUES)
@pytest.mark.parametrize("in_thread", [False, True])
async def test_a_result_that_is_no_payload_fails_the_task_once_and_skips_what_uses_it(
    mesh: Orchestrator, tenant: str, value: Any, problem: str, in_thread: bool
) -> None:
    tried: list[int] = []

    async def make() -> Any:
        tried.append(current_task().attempt)
        return value

    def make_in_thread() -> Any:
        tried.append(current_task().attempt)
        return value

    built = Workflow("w").add(make_in_thread if in_thread else make, id="bad").add(echo, id="uses", args=[ref("bad")])
    built.add(echo, id="beside", args=["fine"])
    handle = await mesh.submit(built, tenant=tenant)
    with pytest.raises(RunFailed) as caught:
        await handle.result(10)
    assert set(caught.value.errors) == {"bad"}
    assert problem in caught.value.errors["bad"]
    assert "result of make" in caught.value.errors["bad"]
    assert tried == [1], "it would fail the same again"
    run = await mesh.get_run(handle.id)
    assert [each.status for each in run.tasks] == [S.FAILED, S.SKIPPED, S.SUCCESS]
    assert len(str(run.error)) < 3_000


async def test_an_output_that_is_too_large_in_all_fails_the_run_and_keeps_the_results(
    mesh: Orchestrator, tenant: str
) -> None:
    built = Workflow("w")
    for name in "abc":
        built.add(echo, id=name, args=[given("text")])
    built.takes("text").returns([ref("a"), ref("b"), ref("c")])
    handle = await mesh.submit(built, tenant=tenant, input={"text": "x" * 400_000})
    with pytest.raises(RunFailed, match="result of the workflow") as caught:
        await handle.result(10)
    assert "1,000,000" in str(caught.value)
    run = await mesh.get_run(handle.id)
    assert [each.status for each in run.tasks] == [S.SUCCESS] * 3
    assert [len(each.result) for each in run.tasks] == [400_000] * 3


async def test_an_error_with_what_no_database_stores_is_recorded_readably(mesh: Orchestrator, tenant: str) -> None:
    async def fail() -> None:
        raise ValueError("a\0b\ud800" + "x" * 100_000)

    handle = await mesh.submit(Workflow("w").add(fail, retry=RetryPolicy(max_retries=0)), tenant=tenant)
    with pytest.raises(RunFailed, match="ValueError: a") as caught:
        await handle.result(10)
    assert len(caught.value.errors["fail"]) < 3_000


# --- files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("flow.py", "def broken(:\n    pass\n", "line 1"),
        ("flow.py", "import no_such_module_anywhere\n", "no_such_module_anywhere"),
        ("flow.py", "x = 1\n\nraise RuntimeError('on purpose')\n", "line 3"),
        ("flow.py", "import sys\nsys.exit(3)\n", "exits while it is loaded"),
        ("flow.py", "x = 1\n", "has no workflow"),
        ("flow.py", "\0", "flow.py"),
        ("trace.json", "{", "not JSON"),
        ("trace.json", "{}", "no WfFormat"),
        ("trace.json", '{"name": "x", "schemaVersion": "0.9"}', "no WfFormat"),
        ("flow.txt", "hello", "neither a Python file"),
    ],
)
async def test_a_broken_workflow_file_is_refused_with_its_place(
    tmp_path: Path, name: str, content: str, problem: str
) -> None:
    file = tmp_path / name
    file.write_text(content)
    with pytest.raises(WorkflowFileError) as caught:
        load_workflow(file)
    assert problem in str(caught.value)
    assert name in str(caught.value)


async def test_a_workflow_file_that_is_missing_or_a_directory_is_refused(tmp_path: Path) -> None:
    for wrong in (tmp_path / "missing.py", tmp_path, tmp_path / "no" / "such.json"):
        with pytest.raises(WorkflowFileError, match=str(wrong)):
            load_workflow(wrong)
    with pytest.raises(WorkflowFileError):
        read_wfformat(tmp_path / "missing.json")


# --- databases ------------------------------------------------------------------------------------------------------


async def refused_database(path: Path, error: type[Exception]) -> str:
    """Open a database that cannot be used, twice; give the message, and check that the file is unchanged."""
    before = path.read_bytes() if path.is_file() else None
    for _ in range(2):
        with pytest.raises(error) as caught:
            await Orchestrator(f"sqlite:///{path}").start()
    assert (path.read_bytes() if path.is_file() else None) == before
    return str(caught.value)


async def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("these are my notes, and no database")
    assert "not a SQLite database" in await refused_database(path, StoreCorrupt)
    assert str(path) in await refused_database(path, StoreCorrupt)


async def test_a_database_of_another_program_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE songs (title TEXT)")
    connection.commit()
    connection.close()
    assert "songs" in await refused_database(path, StoreCorrupt)


async def test_a_damaged_database_is_refused(tmp_path: Path, open_mesh: Callable[..., Orchestrator]) -> None:
    path = tmp_path / "damaged.db"
    async with open_mesh(path) as mesh:
        await mesh.create_tenant("A")
    content = bytearray(path.read_bytes())
    content[100:8_000] = os.urandom(7_900)
    path.write_bytes(content)
    assert str(path) in await refused_database(path, StoreCorrupt)


async def test_a_directory_or_a_path_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    assert "not a file" in await refused_database(tmp_path, StoreUnavailable)
    assert "does not exist" in await refused_database(tmp_path / "no" / "mesh.db", StoreUnavailable)


@pytest.mark.parametrize("address", ["", "postgresql://x/y", "sqlite://host/x", "a\0b", 7])
async def test_an_address_that_names_no_database_is_refused(address: Any) -> None:
    with pytest.raises((InvalidRequest, TypeError)) as caught:
        Orchestrator(address)
    assert isinstance(caught.value, TypeError) or caught.value.field == "database"


UNPRIVILEGED = """
import asyncio, os, sys
from synergymesh import Orchestrator
from synergymesh.errors import SynergyMeshError
import alembic.command, alembic.runtime.migration, alembic.script, encodings.idna, logging.config
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)  # root may write everything
try:
    asyncio.run(Orchestrator("sqlite:///" + sys.argv[1]).start())
except SynergyMeshError as error:
    print(type(error).__name__, error)
"""


@pytest.fixture
def public_directory() -> Iterator[Path]:
    """Give a directory that other users may enter, too."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        yield path
        path.chmod(0o755)


def opened_without_privileges(path: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", UNPRIVILEGED, str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout + done.stderr


async def test_a_read_only_database_is_refused(public_directory: Path, open_mesh: Callable[..., Orchestrator]) -> None:
    path = public_directory / "mesh.db"
    async with open_mesh(path) as mesh:
        await mesh.create_tenant("A")
    for each in public_directory.iterdir():
        each.chmod(0o444)
    public_directory.chmod(0o555)
    said = opened_without_privileges(path)
    assert said.startswith("StoreUnavailable"), said
    assert str(public_directory) in said
    public_directory.chmod(0o777)
    said = opened_without_privileges(path)
    assert said.startswith("StoreUnavailable"), said


async def test_a_new_database_in_a_read_only_directory_is_refused(public_directory: Path) -> None:
    public_directory.chmod(0o555)
    said = opened_without_privileges(public_directory / "mesh.db")
    assert said.startswith("StoreUnavailable"), said
    with contextlib.suppress(FileNotFoundError):
        assert not (public_directory / "mesh.db").exists()


async def test_texts_that_no_database_holds_are_refused(mesh: Orchestrator) -> None:
    for look in (
        mesh.list_runs(workflow="\ud800"),
        mesh.list_runs(cursor="\ud800"),
        mesh.count_open_runs("\ud800"),
    ):
        with pytest.raises(InvalidRequest, match="lone surrogates"):
            await look
