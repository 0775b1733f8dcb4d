"""Brings alerts to their sinks, each by a thread of its own with a bounded queue, so that nothing waits for them."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Sequence
from typing import Protocol

import msgspec

from synergymesh.alerting.webhook import Webhook
from synergymesh.audit.sinks import CommandSink
from synergymesh.domain.instants import to_datetime
from synergymesh.domain.observability.alerts import Alert, AlertState, Severity
from synergymesh.errors import InvalidRequest
from synergymesh.logs import Log

QUEUE_MAX = 1_000
"""Alerts that wait for a sink which does not answer; the oldest ones are dropped, and that is logged."""

TRIES_MAX = 5
RETRY_SECONDS = (1.0, 5.0, 15.0, 60.0)
"""Pauses between the tries of one alert: after a minute and a half the next one is more interesting."""

CLOSE_SECONDS = 2.0
"""How long an end waits for the alerts that are on their way."""

SINKS_MAX = 16
"""Each has a thread."""

LOG = "log"

log = Log("synergymesh.alerts")


class Sink(Protocol):
    """Take alerts as lines of JSON."""

    name: str

    def deliver(self, line: bytes) -> None:
        """Take one; it may come again.

        Raises:
            OSError: it could not be taken now.
        """
        ...


def read_sinks(texts: Sequence[str], secret: str | None, *, allow_private: bool) -> tuple[bool, list[Sink]]:
    """Read sinks as settings name them: `log`, `command:PROGRAM ARGUMENTS` or `webhook:URL`.

    Returns:
        whether alerts are logged, and the other sinks.

    Raises:
        InvalidRequest: one is none of these, or there are too many.
    """
    if len(texts) > SINKS_MAX:
        raise InvalidRequest(f"alert_sinks has {len(texts)} sinks, the limit is {SINKS_MAX}.", field="alert_sinks")
    sinks: list[Sink] = []
    for text in texts:
        kind, _, rest = text.partition(":")
        if kind == "command" and rest.strip():
            sinks.append(_command(rest))
        elif kind == "webhook" and rest:
            sinks.append(Webhook(rest, None if secret is None else secret.encode(), allow_private=allow_private))
        elif text != LOG:
            raise InvalidRequest(
                f"alert_sinks must be log, command:PROGRAM ARGUMENTS or webhook:URL, not {text!r}.",
                field="alert_sinks",
            )
    return LOG in texts, sinks


def _command(text: str) -> CommandSink:
    try:
        sink = CommandSink(text)
    except ValueError as error:
        raise InvalidRequest(
            f"alert_sinks: {text!r} cannot be split into arguments: {error}.", field="alert_sinks"
        ) from None
    if not sink.program:
        raise InvalidRequest(f"alert_sinks: {text!r} names no program.", field="alert_sinks")
    return sink


class Delivery:
    """Tell all sinks.

    Args:
        is_logged: whether alerts are logged.
        sinks: the others.
        retry_seconds: pauses between tries.
    """

    def __init__(self, is_logged: bool, sinks: Sequence[Sink], retry_seconds: Sequence[float] = RETRY_SECONDS) -> None:
        self._is_logged = is_logged
        self._couriers = [_Courier(sink, retry_seconds) for sink in sinks]

    def tell(self, alerts: Sequence[Alert]) -> None:
        """Log alerts and queue them for the sinks; returns at once."""
        for alert in alerts:
            if self._is_logged:
                _log(alert)
            line = as_line(alert)
            for courier in self._couriers:
                courier.put(line)

    async def close(self) -> None:
        """Give what is on its way a short time, and end."""
        if self._couriers:
            await asyncio.to_thread(self._close)

    def _close(self) -> None:
        for courier in self._couriers:
            courier.end()
        for courier in self._couriers:
            courier.join()


class _Courier:
    """Deliver to one sink, in order, in a daemon thread."""

    def __init__(self, sink: Sink, retry_seconds: Sequence[float]) -> None:
        self._sink = sink
        self._retry_seconds = retry_seconds
        self._waiting: deque[bytes] = deque()
        self._wake = threading.Condition()
        self._is_ending = False
        self._thread = threading.Thread(target=self._work, name=f"synergymesh-alerts-{sink.name}", daemon=True)
        self._thread.start()

    def put(self, line: bytes) -> None:
        with self._wake:
            if len(self._waiting) >= QUEUE_MAX:
                self._waiting.popleft()
                log.warning("an alert was dropped: its sink does not keep up", sink=self._sink.name)
            self._waiting.append(line)
            self._wake.notify()

    def end(self) -> None:
        with self._wake:
            self._is_ending = True
            self._wake.notify()

    def join(self) -> None:
        self._thread.join(CLOSE_SECONDS)

    def _work(self) -> None:
        while True:
            with self._wake:
                while not self._waiting:
                    if self._is_ending:
                        return
                    self._wake.wait()
                line = self._waiting.popleft()
            self._deliver(line)

    def _deliver(self, line: bytes) -> None:
        for number in range(1, TRIES_MAX + 1):
            try:
                self._sink.deliver(line)
                return
            except Exception as error:  # whatever a sink does, the next alerts have to be delivered
                last = number == TRIES_MAX or self._is_ending
                log.warning(
                    "an alert could not be delivered",
                    sink=self._sink.name,
                    error=str(error) or repr(error),
                    given_up=last,
                    tries=number,
                )
                if last:
                    return
            with self._wake:
                pause = self._retry_seconds[min(number, len(self._retry_seconds)) - 1]
                self._wake.wait_for(lambda: self._is_ending, timeout=pause)


def as_line(alert: Alert) -> bytes:
    """Give an alert as JSON."""
    return msgspec.json.encode(
        {
            "number": alert.number,
            "state": alert.state.value,
            "key": alert.key,
            "kind": alert.kind,
            "tenant_id": alert.tenant_id,
            "severity": alert.severity.value,
            "summary": alert.summary,
            "at": to_datetime(alert.at).isoformat(),
        }
    )


def _log(alert: Alert) -> None:
    say = log.error if alert.severity is Severity.CRITICAL else log.warning
    if alert.state is AlertState.RESOLVED:
        say = log.info
    say(alert.summary, alert=alert.kind, state=alert.state.value, tenant_id=alert.tenant_id)
