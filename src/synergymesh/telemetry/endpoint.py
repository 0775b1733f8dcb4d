"""The metrics as an ASGI application, which any web framework can mount."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from synergymesh.telemetry.metrics import CONTENT_TYPE

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class HasMetrics(Protocol):
    """Stand for whoever knows the metrics: an `Orchestrator`."""

    async def metrics_text(self) -> str:
        """Give the metrics in Prometheus' text format."""
        ...


class MetricsEndpoint:
    """Answer every GET with the metrics of an orchestrator: `app.mount("/metrics", MetricsEndpoint(mesh))`.

    It asks nobody who they are: mount it where only the monitoring system comes.
    """

    def __init__(self, mesh: HasMetrics) -> None:
        self._mesh = mesh

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return
        allowed = scope["method"] in ("GET", "HEAD")
        body = (await self._mesh.metrics_text()).encode() if allowed else b"only GET and HEAD\n"
        headers = [(b"content-type", CONTENT_TYPE.encode() if allowed else b"text/plain; charset=utf-8")]
        headers.append((b"content-length", str(len(body)).encode()))
        if not allowed:
            headers.append((b"allow", b"GET, HEAD"))
        await send({"type": "http.response.start", "status": 200 if allowed else 405, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
