"""The channel to the process that executes: sockets of a database, verbs, errors, limits, slow and foreign clients."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import re
import socket
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from synergymesh import Orchestrator, ResourceQuota, errors
from synergymesh.domain.scheduling.limits import Capacity, CohortShare
from synergymesh.errors import (
    CircularDependency,
    FeatureNotEnabled,
    InvalidRequest,
    NotReachable,
    RateLimitExceeded,
    SynergyMeshError,
    TenantHasOpenRuns,
    UnknownRun,
    UnknownTenant,
)
from synergymesh.local import messages, places, server, verbs
from synergymesh.local.client import Remote, connect
from synergymesh.local.server import LocalServer
from synergymesh.local.verbs import VERBS, Here
from synergymesh.settings import read_settings


class Refusing:
    """Answer every verb with what a test wants."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.answer: Any = None
        self.error: Exception | None = None
        self.gate: asyncio.Event | None = None
        self.called = asyncio.Event()

    async def __call__(self, **arguments: Any) -> Any:
        self.calls.append(arguments)
        self.called.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return self.answer


@pytest.fixture
def refusing() -> Refusing:
    """Give what answers."""
    return Refusing()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Give the path of a database that needs no file here."""
    return Path(os.path.realpath(tmp_path)) / "mesh.db"


@pytest.fixture
async def listening(database: Path, refusing: Refusing) -> AsyncIterator[LocalServer]:
    """Give a server whose verbs are all answered by one object."""
    started = LocalServer(database, dict.fromkeys(VERBS, refusing))
    await started.start()
    yield started
    await started.close()


@pytest.fixture
async def remote(listening: LocalServer, database: Path) -> AsyncIterator[Remote]:
    """Give a connection to it."""
    connected = await connect(database)
    assert connected is not None
    yield connected
    await connected.close()


async def raw(database: Path, line: bytes) -> messages.Answer:
    """Send bytes as they are."""
    reader, writer = await asyncio.open_unix_connection(str(places.places(database)[0]))
    writer.write(line)
    answer = await reader.readline()
    writer.close()
    return msgspec.json.decode(answer, type=messages.Answer)


async def left(listening: LocalServer, connections: int) -> None:
    """Wait until no more than so many connections are left."""
    async with asyncio.timeout(5):
        while len(listening._connections) > connections:
            await asyncio.wait(listening._connections, return_when=asyncio.FIRST_COMPLETED)


# --- verbs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VERBS)
def test_the_fields_of_a_verb_are_arguments_of_the_method_that_answers_it(name: str) -> None:
    verb = VERBS[name]
    parameters = inspect.signature(getattr(Orchestrator, name)).parameters
    assert set(verb.arguments.__struct_fields__) <= set(parameters)
    required = {n for n, p in parameters.items() if p.default is inspect.Parameter.empty} - {"self"}
    assert required <= set(verb.arguments.__struct_fields__)


async def test_every_verb_gives_the_same_here_and_from_another_process(tmp_path: Path) -> None:
    async with Orchestrator(f"{tmp_path}/mesh.db") as mesh:
        there = await connect(Path(os.path.realpath(tmp_path)) / "mesh.db")
        assert there is not None
        here = Here(mesh)
        made = await there.ask(verbs.CREATE_TENANT, tenant_name="Acmé 漢", tier="enterprise")
        assert made == await here.ask(verbs.GET_TENANT, tenant_id=made.tenant_id)
        own = {"tenant_id": made.tenant_id}
        share = CohortShare(nominal=Capacity(2, 100, 1_000))
        child = await there.ask(
            verbs.CREATE_TENANT, tenant_name="Child", tier="basic", parent=made.tenant_id, share=share
        )
        assert child.policy.share == share
        quota = ResourceQuota(max_concurrent_tasks=7, burst=3)
        assert (await there.ask(verbs.SET_QUOTA, **own, quota=quota)).quota == quota
        assert (await there.ask(verbs.SET_TIER, **own, tier="professional")).tier == "professional"
        assert (await there.ask(verbs.SET_WEIGHT, **own, weight=9)).weight == 9
        assert (await there.ask(verbs.THROTTLE_TENANT, **own, percent=5)).policy.throttle_percent == 5
        assert (await there.ask(verbs.SUSPEND_TENANT, **own)).status == "suspended"
        assert (await there.ask(verbs.RESUME_TENANT, **own)).status == "active"
        assert await there.ask(verbs.LIST_TENANTS) == await mesh.list_tenants()
        assert await there.ask(verbs.DELETE_TENANT, tenant_id=child.tenant_id) is None
        for verb, arguments, error in (
            (verbs.GET_TENANT, {"tenant_id": "tenant-none"}, UnknownTenant),
            (verbs.EXPLAIN, {"run_id": "run-none"}, UnknownRun),
            (verbs.CANCEL_RUN, {"run_id": "run-none"}, UnknownRun),
            (verbs.CREATE_TENANT, {"tenant_name": "", "tier": "basic"}, InvalidRequest),
            (verbs.SET_WEIGHT, {**own, "weight": 0}, InvalidRequest),
        ):
            with pytest.raises(error) as told:
                await there.ask(verb, **arguments)
            with pytest.raises(error) as said:
                await here.ask(verb, **arguments)
            assert (str(told.value), vars(told.value)) == (str(said.value), vars(said.value))
        await there.close()
    assert not list(tmp_path.glob("*.sock"))
    assert await connect(tmp_path / "mesh.db") is None


@pytest.mark.parametrize(
    "error",
    [
        UnknownRun("run-1"),
        CircularDependency(["a", "b", "a"]),
        RateLimitExceeded("tenant-1", per_second=10, retry_after=0.125),
        TenantHasOpenRuns("tenant-1", 3),
        FeatureNotEnabled("x", tenant_id="t", tier="basic", tiers=["gold"], what="it"),
        InvalidRequest("no \x00 such ✂ thing", field="name"),
        SynergyMeshError("something"),
    ],
)
async def test_an_error_arrives_as_what_it_is(remote: Remote, refusing: Refusing, error: SynergyMeshError) -> None:
    refusing.error = error
    with pytest.raises(type(error)) as told:
        await remote.ask(verbs.LIST_TENANTS)
    assert (type(told.value), str(told.value), told.value.code) == (type(error), str(error), error.code)
    assert vars(told.value) == vars(error)


def test_every_error_can_be_carried() -> None:
    carried = {error.code for error in messages._kinds().values()}
    drawn = set(re.findall(r"^[│├└─ ]* [A-Z]\w+ +(\w+)", errors.__doc__ or "", re.MULTILINE))
    assert len(drawn) > 20
    assert drawn <= carried
    assert messages.error_of(messages.Failure("from_a_later_version", "so")).args == ("so",)


def test_an_error_is_carried_whatever_classes_a_program_derives_from_it() -> None:
    class Meta(type):
        def __getattribute__(cls, name: str) -> Any:
            raise MemoryError(name)

    class Own(UnknownRun, metaclass=Meta):
        pass

    carried = messages.error_of(messages.failure_of(UnknownRun("run-1")))
    assert type(carried) is UnknownRun
    assert str(carried) == str(UnknownRun("run-1"))
    assert Own in type.__subclasses__(UnknownRun), "it lived that long"


async def test_a_fault_of_the_other_process_is_told_and_it_goes_on(
    remote: Remote, refusing: Refusing, capsys: pytest.CaptureFixture[str]
) -> None:
    refusing.error = KeyError("oops")
    with pytest.raises(SynergyMeshError, match="the process that executes failed: KeyError: 'oops'"):
        await remote.ask(verbs.LIST_TENANTS)
    refusing.error, refusing.answer = None, []
    assert await remote.ask(verbs.LIST_TENANTS) == []


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"\n", "that is no request"),
        (b"[]\n", "that is no request"),
        (b"\xff\xfe\n", "that is no request"),
        (b'{"verb": 5}\n', "that is no request"),
        (b'{"verb": "explain", "more": 1}\n', "that is no request"),
        (b'{"verb": "__class__"}\n', "cannot do '__class__'"),
        (b'{"verb": "explain"}\n', "explain: .*run_id"),
        (b'{"verb": "explain", "arguments": {"run_id": "r", "x": 1}}\n', "explain: .*x"),
        (b'{"verb": "set_quota", "arguments": {"tenant_id": "t", "quota": {"burst": 0}}}\n', "quota.burst must be"),
        (b"x" * (2 * messages.REQUEST_BYTES_MAX) + b"\n", "65,536 bytes"),
    ],
)
async def test_what_is_no_request_is_refused_and_reaches_nobody(
    listening: LocalServer, database: Path, refusing: Refusing, line: bytes, message: str
) -> None:
    answer = await raw(database, line)
    assert answer.error is not None
    error = messages.error_of(answer.error)
    assert isinstance(error, InvalidRequest)
    with pytest.raises(InvalidRequest, match=message):
        raise error
    assert refusing.calls == []


async def test_a_request_may_be_as_long_as_the_limit_and_no_byte_longer(remote: Remote, refusing: Refusing) -> None:
    refusing.answer = True
    rest = len(b'{"verb":"cancel_run","arguments":{"run_id":"","tenant":null}}')
    most = messages.REQUEST_BYTES_MAX - rest - 1
    assert await remote.ask(verbs.CANCEL_RUN, run_id="x" * most) is True
    with pytest.raises(InvalidRequest, match="65,536"):
        await remote.ask(verbs.CANCEL_RUN, run_id="x" * (most + 1))
    assert await remote.ask(verbs.CANCEL_RUN, run_id="x") is True


async def test_an_answer_over_the_limit_is_an_error_and_one_below_it_arrives(
    remote: Remote, refusing: Refusing, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing.answer = "x" * 100
    text = verbs.Verb("list_tenants", verbs.Nothing, str)
    assert await remote.ask(text) == refusing.answer
    monkeypatch.setattr(server, "ANSWER_BYTES_MAX", 100)
    with pytest.raises(InvalidRequest, match="Ask for less"):
        await remote.ask(text)


async def test_an_answer_of_another_version_is_told_as_such(remote: Remote, refusing: Refusing) -> None:
    refusing.answer = {"not": "a list"}
    with pytest.raises(NotReachable, match="another version"):
        await remote.ask(verbs.LIST_TENANTS)


# --- slow, many, foreign clients ------------------------------------------------------------------------------------


async def test_a_client_that_does_not_read_keeps_nobody_waiting_and_is_dropped(
    listening: LocalServer, remote: Remote, database: Path, refusing: Refusing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "WRITE_SECONDS", 0.05)
    refusing.answer = "x" * 4_000_000  # more than a socket's buffers take
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.connect(str(listening.place))
        deaf.sendall(b'{"verb": "list_tenants"}\n')
        await refusing.called.wait()
        refusing.answer = []
        assert await remote.ask(verbs.LIST_TENANTS) == []
        await left(listening, 1)


async def test_a_client_that_sends_half_a_line_keeps_nobody_waiting_and_is_dropped(
    listening: LocalServer, refusing: Refusing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "IDLE_SECONDS", 0.05)
    reader, writer = await asyncio.open_unix_connection(str(listening.place))
    writer.write(b'{"verb"')
    assert await reader.read() == b""
    writer.close()
    assert refusing.calls == []


async def test_one_connection_more_than_the_limit_is_told_so(
    listening: LocalServer, database: Path, refusing: Refusing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "CONNECTIONS_MAX", 3)
    refusing.answer = []
    connected = [await connect(database) for _ in range(3)]
    for each in connected:
        assert each is not None
        assert await each.ask(verbs.LIST_TENANTS) == []
    one_more = await connect(database)
    assert one_more is not None
    with pytest.raises(NotReachable, match="3 processes ask already"):
        await one_more.ask(verbs.LIST_TENANTS)
    first = connected.pop()
    assert first is not None
    await first.close()
    await left(listening, 2)
    again = await connect(database)
    assert again is not None
    assert await again.ask(verbs.LIST_TENANTS) == []
    for each in (*connected, one_more, again):
        assert each is not None
        await each.close()


async def test_a_process_of_another_user_gets_no_answer(
    listening: LocalServer, refusing: Refusing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "is_same_user", lambda connection: False)
    reader, writer = await asyncio.open_unix_connection(str(listening.place))
    writer.write(b'{"verb": "list_tenants"}\n')
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read() == b""
    writer.close()
    assert refusing.calls == []


async def test_a_server_of_another_user_is_not_asked(
    listening: LocalServer, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("synergymesh.local.client.is_same_user", lambda connection: False)
    assert await connect(database) is None


def test_the_user_at_the_other_end_is_the_one_whom_the_system_names(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        assert places.is_same_user(one)
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        assert not places.is_same_user(one)


async def test_a_verb_that_takes_too_long_is_told_and_the_connection_goes_on(
    remote: Remote, refusing: Refusing
) -> None:
    refusing.gate = asyncio.Event()
    slow = verbs.Verb("list_tenants", verbs.Nothing, list[str], seconds_max=0.05)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "VERBS", {"list_tenants": slow})
        with pytest.raises(NotReachable, match="took longer than"):
            await remote.ask(slow)
    refusing.gate.set()
    refusing.answer = []
    assert await remote.ask(verbs.LIST_TENANTS) == []


async def test_closing_lets_an_answer_end_and_tells_the_others_that_it_has_gone(
    database: Path, refusing: Refusing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "CLOSE_SECONDS", 0.05)
    started = LocalServer(database, dict.fromkeys(VERBS, refusing))
    await started.start()
    remote = await connect(database)
    assert remote is not None
    refusing.gate = asyncio.Event()
    asking = asyncio.ensure_future(remote.ask(verbs.LIST_TENANTS))
    await refusing.called.wait()
    await started.close()
    with pytest.raises(NotReachable, match="may have happened or not"):
        await asking
    with pytest.raises(NotReachable):
        await remote.ask(verbs.LIST_TENANTS)
    await remote.close()
    await started.close()


# --- places ---------------------------------------------------------------------------------------------------------


async def test_the_socket_is_for_its_user_only_and_is_removed(listening: LocalServer, database: Path) -> None:
    assert listening.place == database.with_name("mesh.db.sock")
    assert stat.S_IMODE(listening.place.stat().st_mode) == 0o600
    await listening.close()
    assert not listening.place.exists()


async def test_a_socket_left_over_is_replaced(database: Path, refusing: Refusing) -> None:
    stale = database.with_name("mesh.db.sock")
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(stale))
    assert stale.is_socket()
    assert await connect(database) is None
    started = LocalServer(database, dict.fromkeys(VERBS, refusing))
    await started.start()
    assert started.place == stale
    remote = await connect(database)
    assert remote is not None
    await remote.close()
    await started.close()


@pytest.mark.parametrize("kind", ["file", "directory", "long"])
async def test_where_no_socket_can_be_beside_the_file_it_is_in_a_private_directory(
    tmp_path: Path, refusing: Refusing, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    short = Path(os.path.realpath(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/tmp")
    database = short / ("x" * 100 + ".db" if kind == "long" else "mesh.db")
    beside = database.with_name(database.name + ".sock")
    if kind == "file":
        beside.write_text("keep me")
    elif kind == "directory":
        beside.mkdir()
    started = LocalServer(database, dict.fromkeys(VERBS, refusing))
    refusing.answer = []
    await started.start()
    place = started.place
    assert place is not None
    assert place.parent != short
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
    assert len(os.fsencode(place)) <= places.PATH_BYTES_MAX
    remote = await connect(database)
    assert remote is not None
    assert await remote.ask(verbs.LIST_TENANTS) == []
    await remote.close()
    await started.close()
    assert not place.exists()
    if kind == "file":
        assert beside.read_text() == "keep me"


def test_a_directory_that_others_can_enter_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: Path
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid())
    directory = tmp_path / "run"
    directory.mkdir()
    directory.chmod(0o755)
    with pytest.raises(PermissionError, match="only this user"):
        places.prepare(directory / "x.sock", database)
    directory.chmod(0o700)
    places.prepare(directory / "x.sock", database)
    link = tmp_path / "link"
    link.symlink_to(directory)
    with pytest.raises((PermissionError, FileExistsError)):
        places.prepare(link / "x.sock", database)


async def test_where_no_place_works_the_orchestrator_works_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "places", lambda database: [])
    async with Orchestrator(f"{tmp_path}/mesh.db") as mesh:
        assert await mesh.list_tenants() == []


@pytest.mark.parametrize("how", ["memory", "setting", "not executing"])
async def test_there_is_no_socket_where_none_is_wanted(tmp_path: Path, how: str) -> None:
    makes: dict[str, Callable[[], Orchestrator]] = {
        "memory": lambda: Orchestrator(":memory:"),
        "setting": lambda: Orchestrator(
            settings=read_settings(database=f"sqlite:///{tmp_path}/mesh.db", local_socket=False)
        ),
        "not executing": lambda: Orchestrator(f"{tmp_path}/mesh.db", execute=False),
    }
    async with makes[how]() as mesh:
        assert mesh._server is None
        assert not list(tmp_path.glob("*.sock"))
