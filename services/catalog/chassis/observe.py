"""What happens around every request: id, metrics, log line, headers, faults."""

from __future__ import annotations

import json
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from chassis.faults import Faults
from chassis.logs import request_id
from chassis.metrics import Metrics

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OWN_PATHS = ("/healthz", "/readyz", "/metrics", "/faults")
logger = logging.getLogger("access")
_ID = re.compile(r"[\w.:-]{1,64}")


class Observed:
    """ASGI middleware around a whole application; not Starlette's base class, which costs twice the time.

    Args:
        headers: added to every answer.
        draining: whether connections should end with their answer, so that clients move to another pod.
    """

    def __init__(
        self,
        app: App,
        metrics: Metrics,
        faults: Faults,
        headers: dict[str, str],
        draining: Callable[[], bool],
    ) -> None:
        self.app, self.metrics, self.faults, self.draining = app, metrics, faults, draining
        self.headers = [(k.lower().encode(), v.encode("latin-1", "replace")) for k, v in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(self, scope, send)
        if scope["path"].startswith(OWN_PATHS):
            await exchange.run(receive)
            return
        with self.metrics.in_flight.track_inprogress():
            if await self.faults.strike():
                await exchange.answer(500, "an injected fault")
            else:
                await exchange.run(receive)
        exchange.record()


class _Exchange:
    """One request and its answer."""

    def __init__(self, around: Observed, scope: Scope, send: Send) -> None:
        self.around, self.scope, self._send = around, scope, send
        self.started = time.perf_counter()
        self.status = 0
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        self.id = given if _ID.fullmatch(given) else uuid.uuid4().hex[:16]
        request_id.set(self.id)

    async def run(self, receive: Receive) -> None:
        """Let the application answer; an exception becomes a log line and, if nothing was sent yet, a 500."""
        try:
            await self.around.app(self.scope, receive, self.send)
        except Exception:
            logger.exception("unhandled exception")
            if not self.status:
                await self.answer(500, "internal error")

    async def send(self, message: Message) -> None:
        """Send on, with our headers on the first message."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            ours = [*self.around.headers, (b"x-request-id", self.id.encode())]
            if self.around.draining():
                ours.append((b"connection", b"close"))
            message["headers"] = [*message.get("headers", ()), *ours]
        await self._send(message)

    async def answer(self, status: int, detail: str) -> None:
        """An answer of our own."""
        body = json.dumps({"detail": detail, "request_id": self.id}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    def record(self) -> None:
        """Count and log it; paths are route templates, so that their number is bounded."""
        seconds = time.perf_counter() - self.started
        method = self.scope["method"]
        path = getattr(self.scope.get("route"), "path", "(none)")
        self.around.metrics.requests.labels(method, path, self.status).inc()
        self.around.metrics.latency.labels(method, path).observe(seconds)
        logger.info(
            "request",
            extra={
                "method": method,
                "path": self.scope["path"],
                "status": self.status,
                "duration_ms": round(seconds * 1000, 1),
            },
        )
