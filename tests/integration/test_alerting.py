"""Alerts reach their sinks; a sink that fails, hangs or leads astray harms nobody."""

import asyncio
import contextlib
import http.server
import json
import logging
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from synergymesh import EnterpriseSynergyMeshOrchestrator
from synergymesh.alerting import webhook as webhook_module
from synergymesh.alerting.delivery import QUEUE_MAX, TRIES_MAX, Delivery, read_sinks
from synergymesh.alerting.webhook import SIGNATURE_HEADER, Webhook, is_public, sign
from synergymesh.domain.observability.alerts import Alert, AlertState, Severity
from synergymesh.errors import InvalidRequest
from synergymesh.settings import read_settings


def alert(number: int = 1) -> Alert:
    return Alert(
        number=number,
        state=AlertState.RAISED,
        key="trouble",
        kind="trouble",
        tenant_id=None,
        severity=Severity.WARNING,
        summary="it is wrong",
        at=0,
    )


class Receiver(http.server.ThreadingHTTPServer):
    """Take posts and answer with the given statuses, one after the other."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.statuses = [200]
        self.posts: list[tuple[str, dict[str, str], bytes]] = []
        self.got = threading.Semaphore(0)

    @property
    def url(self) -> str:
        return f"http://localhost:{self.server_address[1]}/alerts?to=me"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posts.append((self.path, dict(self.headers), body))
        status = self.server.statuses.pop(0) if len(self.server.statuses) > 1 else self.server.statuses[0]
        self.send_response(status)
        if status == 302:
            self.send_header("Location", f"http://localhost:{self.server.server_address[1]}/elsewhere")
        self.end_headers()
        self.server.got.release()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_webhook_posts_signed_json(receiver: Receiver) -> None:
    Webhook(receiver.url, b"secret", allow_private=True).deliver(b'{"number":1}')
    ((path, headers, body),) = receiver.posts
    assert (path, body) == ("/alerts?to=me", b'{"number":1}')
    assert headers["Host"] == f"localhost:{receiver.server_address[1]}"
    signature = headers[SIGNATURE_HEADER]
    seconds = int(signature.split(",")[0].removeprefix("t="))
    assert signature == sign(body, b"secret", seconds)
    assert signature != sign(body, b"another", seconds)


@pytest.mark.parametrize("status", [302, 404, 500])
def test_an_answer_other_than_success_is_a_failure_and_redirects_are_not_followed(
    receiver: Receiver, status: int
) -> None:
    receiver.statuses = [status]
    with pytest.raises(OSError, match=str(status)):
        Webhook(receiver.url, None, allow_private=True).deliver(b"{}")
    assert [path for path, _, _ in receiver.posts] == ["/alerts?to=me"]


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "192.168.0.9", "169.254.169.254", "::1", "fe80::1%eth0", "fd00::5", "0.0.0.0"),
        *("::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a00:1", "2002:7f00:1::1"),
        *("2001:0:4136:e378:8000:63bf:3fff:fdd2", "fec0::1", "ff02::1", "224.0.0.1"),
    ],
)
def test_a_private_address_is_refused_whatever_name_leads_to_it(receiver: Receiver, address: str) -> None:
    webhook = Webhook(receiver.url, None, allow_private=False, resolve=lambda host, port: ["8.8.8.8", address])
    with pytest.raises(OSError, match="not of the public internet"):
        webhook.deliver(b"{}")
    assert receiver.posts == []


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808", "2002:808:808::1"])
def test_an_address_of_the_public_internet_is_one_also_behind_a_translation(address: str) -> None:
    assert is_public(address)


def test_the_address_that_was_checked_is_the_one_that_is_connected_to(receiver: Receiver) -> None:
    asked: list[tuple[str, int]] = []
    port = receiver.server_address[1]

    def resolve(host: str, port: int) -> list[str]:
        asked.append((host, port))
        return ["127.0.0.1"]

    # nobody else can resolve this name, so a connection that asked for it again would fail
    webhook = Webhook(f"http://alerts.invalid:{port}/alerts", None, allow_private=True, resolve=resolve)
    webhook.deliver(b"{}")
    assert asked == [("alerts.invalid", port)]
    ((path, headers, _),) = receiver.posts
    assert (path, headers["Host"]) == ("/alerts", f"alerts.invalid:{port}")


def test_a_webhook_with_letters_of_other_alphabets_is_called_in_ascii(receiver: Receiver) -> None:
    port = receiver.server_address[1]
    url = f"http://bücher.example:{port}/päth with space?q=ü&a=%20"
    Webhook(url, None, allow_private=True, resolve=lambda host, port: ["127.0.0.1"]).deliver(b"{}")
    ((path, headers, _),) = receiver.posts
    assert path == "/p%C3%A4th%20with%20space?q=%C3%BC&a=%20"
    assert headers["Host"] == f"xn--bcher-kva.example:{port}"


def test_a_receiver_that_answers_a_byte_at_a_time_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_module, "DELIVERY_SECONDS_MAX", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            taken, _ = server.accept()
            with taken, contextlib.suppress(OSError):
                taken.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
                while True:
                    taken.sendall(b"x")
                    if taken.recv(65_536) == b"":  # the request, and then that it was given up
                        return

        thread = threading.Thread(target=drip)
        thread.start()
        webhook = Webhook(f"http://localhost:{server.getsockname()[1]}/", None, allow_private=True)
        with pytest.raises(OSError, match=r"longer than 0\.3 seconds"):
            webhook.deliver(b"{}")
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the threads that the test itself starts."""
    names: list[str] = []
    start_thread = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if threading.current_thread() is threading.main_thread():
            names.append(thread.name)
        start_thread(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    return names


@pytest.mark.parametrize(
    "text",
    [
        *("webhook:", "webhook:ftp://x/", "webhook:https://user:pw@host/", "webhook:https://x:port/", "mail:me", ""),
        *("webhook:http://a..example/", f"webhook:http://{'a' * 64}.example/"),
        *("command:", "command:'unclosed", "command:''"),
    ],
)
def test_a_sink_that_cannot_be_used_is_refused_before_anything_starts(
    text: str, started: list[str], tmp_path: Path
) -> None:
    with pytest.raises(InvalidRequest, match="alert_sinks"):
        read_sinks([text], None, allow_private=False)
    settings = read_settings(alert_sinks=[text], database=f"sqlite:///{tmp_path}/mesh.db")
    with pytest.raises(InvalidRequest, match="alert_sinks"):
        EnterpriseSynergyMeshOrchestrator(settings.database, settings=settings)
    assert (started, list(tmp_path.iterdir())) == ([], [])


def test_a_sink_of_checkpoints_that_cannot_be_used_is_refused_before_anything_starts(
    started: list[str], tmp_path: Path
) -> None:
    settings = read_settings(alert_sinks=["command:true"], audit_sinks=["mail:me"])
    with pytest.raises(InvalidRequest, match="audit_sinks"):
        EnterpriseSynergyMeshOrchestrator(f"sqlite:///{tmp_path}/mesh.db", settings=settings)
    assert (started, list(tmp_path.iterdir())) == ([], [])


def test_a_failed_delivery_is_tried_again_and_the_order_is_kept(receiver: Receiver) -> None:
    receiver.statuses = [500, 500, 200]
    delivery = Delivery(False, [Webhook(receiver.url, None, allow_private=True)], retry_seconds=[0.0])
    delivery.tell([alert(1), alert(2)])
    for _ in range(4):
        assert receiver.got.acquire(timeout=30)
    asyncio.run(delivery.close())
    assert [json.loads(body)["number"] for _, _, body in receiver.posts] == [1, 1, 1, 2]


class Broken:
    name = "broken"

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.done = threading.Event()

    def deliver(self, line: bytes) -> None:
        self.lines.append(line)
        if json.loads(line)["number"] == 1:
            raise ValueError("a fault of the sink itself")
        self.done.set()


def test_a_fault_of_a_sink_does_not_keep_the_next_alerts_from_it() -> None:
    sink = Broken()
    delivery = Delivery(False, [sink], retry_seconds=[0.0])
    delivery.tell([alert(1), alert(2)])
    assert sink.done.wait(30)
    asyncio.run(delivery.close())
    assert [json.loads(line)["number"] for line in sink.lines] == [1] * TRIES_MAX + [2]


class Hanging:
    name = "hanging"

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.lines: list[bytes] = []

    def deliver(self, line: bytes) -> None:
        self.begun.set()
        self.go_on.wait(30)
        self.lines.append(line)


def test_a_sink_that_hangs_costs_a_bounded_queue_and_nobodys_time() -> None:
    sink = Hanging()
    delivery = Delivery(False, [sink])
    delivery.tell([alert(1)])
    assert sink.begun.wait(30)
    delivery.tell([alert(number) for number in range(2, QUEUE_MAX + 12)])
    sink.go_on.set()
    asyncio.run(delivery.close())
    numbers = [json.loads(line)["number"] for line in sink.lines]
    assert numbers == [1, *range(12, QUEUE_MAX + 12)]


def test_a_failing_tenant_is_told_to_a_command_and_to_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    told = tmp_path / "alerts.jsonl"
    settings = read_settings(alert_sinks=["log", f"command:tee -a {told}"])
    with EnterpriseSynergyMeshOrchestrator(settings=settings) as mesh:
        tenant_id = mesh.create_tenant("Acme")

        async def fail() -> None:
            raise ValueError

        async def work() -> None:
            for _ in range(6):
                await mesh.execute_with_retry(fail, "c", tenant_id, max_retries=0)

        asyncio.run(work())
        with caplog.at_level(logging.INFO):
            mesh._portal.call(_look(mesh))
        assert {each.kind for each in mesh.call(mesh.orchestrator.alerts())} == {
            "tenant_failing",
            "error_budget_burns",
        }
    lines = [json.loads(line) for line in told.read_text().splitlines()]
    assert [(line["kind"], line["state"], line["tenant_id"]) for line in lines] == [
        ("tenant_failing", "raised", tenant_id),
        ("error_budget_burns", "raised", tenant_id),
    ]
    assert "Acme is failing: 0.00 % of 6 executions" in caplog.text


async def _look(mesh: EnterpriseSynergyMeshOrchestrator) -> None:
    await mesh.orchestrator._running.alerts.look()
