"""The connector of a rehearsal: it dials out to an edge, and serves what comes back through that connection.

Its arguments, files and answers are cloudflared's: `tunnel --config FILE run`, config.yml with ingress rules,
credentials, /ready on the metrics address. That one is its only port; visits come through a Unix socket. It
retries with a back-off, as cloudflared does: after 1, 2, 4, … 16 seconds, each shortened a little at random.
Told to end, it takes its leave of the edge first, and answers the visitors it has.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import asyncssh
import yaml
from aiohttp import web
from yarl import URL

from labkit.addons.tunnel import origin
from labkit.addons.tunnel.ingress import Rule, find_rule, read_rules
from labkit.errors import ConfigError

TUNNEL = ("tunnel", 443)
HOP_BY_HOP = {
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer",
    "transfer-encoding", "upgrade",
}  # fmt: skip
LONGEST_S = 16.0
CLOSING_S = 5.0
SETTLE_S, GRACE_S = 0.3, 10.0
HANDSHAKE = {
    "sec-websocket-key", "sec-websocket-version", "sec-websocket-extensions", "sec-websocket-protocol",
    "sec-websocket-accept",
}  # fmt: skip
"""Headers of a WebSocket that each of its two connections has of its own."""
SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
GONE = "Bad gateway: Unable to reach the origin service.\n"
LEVELS = ("DBG", "INF", "WRN", "ERR", "FTL")
NAMES = {"debug": "DBG", "info": "INF", "warn": "WRN", "error": "ERR", "fatal": "FTL"}
HELLO = "<h1>Congrats! You created a tunnel!</h1><p>This page is the service hello_world.</p>"


quietest = ["INF"]
"""The least important lines that are written, as `loglevel` says."""


def log(level: str, text: str, **fields: object) -> None:
    """A line as cloudflared writes them."""
    if LEVELS.index(level) < LEVELS.index(quietest[0]):
        return
    at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    print(at, level, text, *(f"{name}={value}" for name, value in fields.items()), flush=True)


class Origin:
    """A Service as one rule reaches it, with that rule's `originRequest`."""

    def __init__(self, service: str, settings: dict[str, Any]) -> None:
        parts, self.settings = urlsplit(service), settings
        self.base = f"{SCHEMES.get(parts.scheme, 'http')}://{parts.netloc}"
        self.verify = not settings.get("noTLSVerify")
        self.session: aiohttp.ClientSession

    async def open(self) -> None:
        connect_s = self.settings["connectTimeout"]
        if self.base.startswith("https"):
            connect_s += self.settings["tlsTimeout"]
        self.session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_s or None),
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=self.settings["keepAliveTimeout"]),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        )  # fmt: skip

    async def forward(self, request: web.Request) -> web.StreamResponse:
        """Hand a request on, and its answer back."""
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._websocket(request)
        body = request.content if request.body_exists else None
        call = self.session.request(
            request.method, self._url(request), headers=self._headers(request, HOP_BY_HOP), data=body,
            allow_redirects=False, **self._tls(request),
        )  # fmt: skip
        async with call as found:
            answer = web.StreamResponse(status=found.status, reason=found.reason)
            for name, value in found.headers.items():
                if name.lower() not in HOP_BY_HOP:
                    answer.headers.add(name, value)
            await answer.prepare(request)
            async for chunk in found.content.iter_any():
                await answer.write(chunk)
            await answer.write_eof()
            return answer

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        """Open a WebSocket to the Service, then one to the visitor, and hand messages on both ways."""
        offered = [
            each.strip() for each in request.headers.get("Sec-WebSocket-Protocol", "").split(",") if each
        ]
        call = self.session.ws_connect(
            self._url(request), protocols=offered, headers=self._headers(request, HOP_BY_HOP | HANDSHAKE),
            autoclose=False, autoping=False, max_msg_size=0, **self._tls(request),
        )  # fmt: skip
        try:
            inner = await call
        except aiohttp.WSServerHandshakeError as refused:
            kept = [
                (k, v)
                for k, v in (refused.headers or {}).items()
                if k.lower() not in {*HOP_BY_HOP, "content-length"}
            ]
            return web.Response(status=refused.status, headers=kept)
        async with inner:
            chosen = (inner.protocol,) if inner.protocol else ()
            outer = web.WebSocketResponse(
                protocols=chosen, autoclose=False, autoping=False, max_msg_size=0, compress=False
            )
            await outer.prepare(request)
            ways = [asyncio.create_task(relay(*pair)) for pair in ((outer, inner), (inner, outer))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait(ways, timeout=CLOSING_S)
            for way in ways:
                way.cancel()
            return outer

    def _url(self, request: web.Request) -> URL:
        return URL(f"{self.base}{request.raw_path}", encoded=True)  # as it came

    def _headers(self, request: web.Request, without: set[str]) -> list[tuple[str, str]]:
        """The visitor's headers; another Host leaves the visitor's in X-Forwarded-Host, as in cloudflared."""
        kept = [(name, value) for name, value in request.headers.items() if name.lower() not in without]
        host = self.settings.get("httpHostHeader")
        if not host:
            return kept
        other = [(name, value) for name, value in kept if name.lower() not in ("host", "x-forwarded-host")]
        return [("Host", host), ("X-Forwarded-Host", request.host), *other]

    def _tls(self, request: web.Request) -> dict[str, Any]:
        """How a certificate is judged: whether at all, and by which name."""
        if not self.base.startswith("https"):
            return {}
        name = self.settings.get("originServerName")
        if self.settings.get("matchSNItoHost"):
            name = (self.settings.get("httpHostHeader") or request.host).partition(":")[0]
        return {"ssl": self.verify, "server_hostname": name or None}


async def relay(source: Any, target: Any) -> None:
    """Hand a WebSocket's messages on until it closes, then close the other one in the same way."""
    async for message in source:
        if message.type is aiohttp.WSMsgType.TEXT:
            await target.send_str(message.data)
        elif message.type is aiohttp.WSMsgType.BINARY:
            await target.send_bytes(message.data)
        elif message.type is aiohttp.WSMsgType.PING:
            await target.ping(message.data)
        elif message.type is aiohttp.WSMsgType.PONG:
            await target.pong(message.data)
    code = source.close_code
    await target.close(code=code if code in range(1000, 5000) and code not in (1005, 1006) else 1000)
    await source.close()


class Connector:
    """One connector and what it knows: rules, credentials, and whether it is registered."""

    def __init__(self, config: dict[str, Any], rules: list[Rule], credentials: dict[str, str]) -> None:
        self.config, self.rules, self.credentials = config, rules, credentials
        self.id = str(uuid.uuid4())
        self.connections = self.visits = 0
        self.origins: list[Origin] = []
        self.door: asyncssh.SSHListener | None = None

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """One visitor's request: find its rule, and do what that says."""
        number = find_rule(self.rules, request.host, request.rel_url.path)
        self.visits += 1
        try:
            answer = await self._answer(request, number)
        finally:
            self.visits -= 1
        log("INF", f"{request.method} {request.host}{request.path}", rule=number, status=answer.status)
        return answer

    async def _answer(self, request: web.Request, number: int) -> web.StreamResponse:
        service = self.rules[number].service
        if service.startswith("http_status:"):
            return web.Response(status=int(service.removeprefix("http_status:")))
        if service in ("hello_world", "hello-world"):
            return web.Response(text=HELLO, content_type="text/html")
        try:
            return await self.origins[number].forward(request)
        except (TimeoutError, aiohttp.ClientError) as error:
            log(
                "ERR", "Unable to reach the origin service", originService=service, error=type(error).__name__
            )
            return web.Response(status=502, text=GONE)

    async def ready(self, _: web.Request) -> web.Response:
        """200 while it is registered with an edge, as cloudflared's /ready."""
        status = 200 if self.connections else 503
        body = {"status": status, "readyConnections": self.connections, "connectorId": self.id}
        return web.json_response(body, status=status)

    async def dial(self, edge: str, key: asyncssh.SSHKey, socket: str) -> None:
        """Keep a connection to the edge, for ever."""
        host, _, port = edge.rpartition(":")
        failures = 0
        while True:
            try:
                async with asyncssh.connect(
                    host, int(port), username=self.credentials["TunnelID"],
                    password=self.credentials["TunnelSecret"], preferred_auth="password", client_keys=None,
                    agent_path=None, config=None, known_hosts=([key], [], []), connect_timeout=5,
                    login_timeout=5, keepalive_interval=2, keepalive_count_max=2,
                ) as connection:  # fmt: skip
                    self.door = await connection.forward_remote_port_to_path(*TUNNEL, socket)
                    failures, self.connections = 0, 1
                    log("INF", "Registered tunnel connection", connIndex=0, ip=edge, protocol="rehearsal")
                    await connection.wait_closed()
                log("WRN", "Connection terminated", connIndex=0)
            except asyncssh.PermissionDenied:
                log(
                    "ERR",
                    "Register tunnel error from server side: Unauthorized: Invalid tunnel secret",
                    connIndex=0,
                )
            except (OSError, asyncssh.Error, TimeoutError) as error:
                log(
                    "ERR", "Unable to establish connection with the edge", error=type(error).__name__, ip=edge
                )
            self.connections = 0
            wait = min(LONGEST_S, 2.0**failures) * random.uniform(0.75, 1.0)
            failures += 1
            log("INF", f"Retrying connection in {wait:.1f}s", connIndex=0)
            await asyncio.sleep(wait)

    async def leave(self) -> None:
        """As cloudflared at SIGTERM: no new visitors, and an answer for those who are here."""
        self.connections = 0
        if self.door is not None:
            self.door.close()
            with contextlib.suppress(TimeoutError, OSError, asyncssh.Error):
                await asyncio.wait_for(self.door.wait_closed(), CLOSING_S)
        end = asyncio.get_running_loop().time() + GRACE_S
        await asyncio.sleep(SETTLE_S)
        while self.visits and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.05)
        await asyncio.sleep(SETTLE_S)  # the last answer is still on its way through the connection


def read(argv: list[str]) -> tuple[dict[str, Any], list[Rule], dict[str, str]]:
    """Configuration, rules and credentials."""
    parser = argparse.ArgumentParser(prog="connector")
    parser.add_argument("tunnel", choices=["tunnel"])
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("run", choices=["run"])
    config = yaml.safe_load(parser.parse_args(argv).config.read_text())
    credentials = json.loads(Path(config["credentials-file"]).read_text())
    rules = read_rules(config.get("ingress"))
    origin.refuse_unrehearsed(config, config["ingress"])
    if config.get("loglevel", "info") not in NAMES:
        raise ConfigError(f"loglevel is {config['loglevel']!r}.", f"One of: {', '.join(NAMES)}.")
    quietest[0] = NAMES[config.get("loglevel", "info")]
    return config, rules, credentials


async def main(argv: list[str]) -> None:
    config, rules, credentials = read(argv)
    edge, key = os.environ["TUNNEL_EDGE"], asyncssh.import_public_key(os.environ["TUNNEL_EDGE_KEY"])
    connector = Connector(config, rules, credentials)
    visits = web.Application(client_max_size=1 << 30)
    visits.router.add_route("*", "/{path:.*}", connector.serve)
    metrics = web.Application()
    metrics.router.add_get("/ready", connector.ready)
    host, _, port = str(config["metrics"]).rpartition(":")
    for name in origin.unknown(config, config["ingress"]):
        log("WRN", f"Your configuration file has an unknown key: originRequest.{name}")
    log("INF", "Starting tunnel (a rehearsal)", tunnelID=credentials["TunnelID"], connectorID=connector.id)
    with tempfile.TemporaryDirectory() as folder:
        socket = f"{folder}/visits.sock"
        runners = [web.AppRunner(app, access_log=None) for app in (visits, metrics)]
        for runner in runners:
            await runner.setup()
        await web.UnixSite(runners[0], socket).start()
        await web.TCPSite(runners[1], host, int(port)).start()
        connector.origins = [
            Origin(rule.service, origin.merged(config, given or {}))
            for rule, given in zip(rules, config["ingress"], strict=True)
        ]
        for each in connector.origins:
            await each.open()
        dialling = asyncio.create_task(connector.dial(edge, key, socket))
        told = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
        ending = asyncio.create_task(told.wait())
        await asyncio.wait([dialling, ending], return_when=asyncio.FIRST_COMPLETED)
        await connector.leave()
        dialling.cancel()
        await asyncio.wait([dialling])
        for each in connector.origins:
            await each.session.close()
        for runner in runners:
            await runner.cleanup()


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1:]))
    except ConfigError as error:
        sys.exit(f"Validation failed: {error.message}")
