"""The connector of a rehearsal: it dials out to an edge, and serves what comes back through that connection.

Its arguments, files and answers are cloudflared's: `tunnel --config FILE run`, config.yml with ingress rules,
credentials, /ready on the metrics address. That one is its only port; visits come through a Unix socket. It
retries with a back-off, as cloudflared does: after 1, 2, 4, … 16 seconds, each shortened a little at random.
"""

from __future__ import annotations

import argparse
import asyncio
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

from labkit.addons.tunnel.ingress import IngressError, Rule, find_rule, read_rules

TUNNEL = ("tunnel", 443)
HOP_BY_HOP = {
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer",
    "transfer-encoding", "upgrade",
}  # fmt: skip
LONGEST_S = 16.0
HELLO = "<h1>Congrats! You created a tunnel!</h1><p>This page is the service hello_world.</p>"


def log(level: str, text: str, **fields: object) -> None:
    """A line as cloudflared writes them."""
    at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    print(at, level, text, *(f"{name}={value}" for name, value in fields.items()), flush=True)


class Connector:
    """One connector and what it knows: rules, credentials, and whether it is registered."""

    def __init__(self, config: dict[str, Any], rules: list[Rule], credentials: dict[str, str]) -> None:
        self.config, self.rules, self.credentials = config, rules, credentials
        self.id = str(uuid.uuid4())
        self.connections = 0
        self.session: aiohttp.ClientSession | None = None

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """One visitor's request: find its rule, and do what that says."""
        number = find_rule(self.rules, request.host, request.rel_url.path)
        service = self.rules[number].service
        answer = await self._answer(request, service)
        log("INF", f"{request.method} {request.host}{request.path}", rule=number, status=answer.status)
        return answer

    async def _answer(self, request: web.Request, service: str) -> web.StreamResponse:
        if service.startswith("http_status:"):
            return web.Response(status=int(service.removeprefix("http_status:")))
        if service in ("hello_world", "hello-world"):
            return web.Response(text=HELLO, content_type="text/html")
        if urlsplit(service).scheme not in ("http", "https"):
            return web.Response(
                status=502, text="A rehearsal serves http, https, http_status and hello_world.\n"
            )
        try:
            return await self._forward(request, service)
        except (TimeoutError, aiohttp.ClientError) as error:
            log(
                "ERR", "Unable to reach the origin service", originService=service, error=type(error).__name__
            )
            return web.Response(status=502, text="Bad gateway: Unable to reach the origin service.\n")

    async def _forward(self, request: web.Request, service: str) -> web.StreamResponse:
        assert self.session is not None
        headers = [(name, value) for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP]
        body = request.content if request.body_exists else None
        url = URL(f"{service}{request.raw_path}", encoded=True)  # as it came
        call = self.session.request(request.method, url, headers=headers, data=body, allow_redirects=False)
        async with call as origin:
            answer = web.StreamResponse(status=origin.status, reason=origin.reason)
            for name, value in origin.headers.items():
                if name.lower() not in HOP_BY_HOP:
                    answer.headers.add(name, value)
            await answer.prepare(request)
            async for chunk in origin.content.iter_any():
                await answer.write(chunk)
            await answer.write_eof()
            return answer

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
                    await connection.forward_remote_port_to_path(*TUNNEL, socket)
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


def read(argv: list[str]) -> tuple[dict[str, Any], list[Rule], dict[str, str]]:
    """Configuration, rules and credentials."""
    parser = argparse.ArgumentParser(prog="connector")
    parser.add_argument("tunnel", choices=["tunnel"])
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("run", choices=["run"])
    config = yaml.safe_load(parser.parse_args(argv).config.read_text())
    credentials = json.loads(Path(config["credentials-file"]).read_text())
    return config, read_rules(config.get("ingress")), credentials


async def main(argv: list[str]) -> None:
    config, rules, credentials = read(argv)
    edge, key = os.environ["TUNNEL_EDGE"], asyncssh.import_public_key(os.environ["TUNNEL_EDGE_KEY"])
    connector = Connector(config, rules, credentials)
    visits = web.Application(client_max_size=1 << 30)
    visits.router.add_route("*", "/{path:.*}", connector.serve)
    metrics = web.Application()
    metrics.router.add_get("/ready", connector.ready)
    host, _, port = str(config["metrics"]).rpartition(":")
    log("INF", "Starting tunnel (a rehearsal)", tunnelID=credentials["TunnelID"], connectorID=connector.id)
    with tempfile.TemporaryDirectory() as folder:
        socket = f"{folder}/visits.sock"
        runners = [web.AppRunner(app, access_log=None) for app in (visits, metrics)]
        for runner in runners:
            await runner.setup()
        await web.UnixSite(runners[0], socket).start()
        await web.TCPSite(runners[1], host, int(port)).start()
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=90)
        async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as connector.session:
            dialling = asyncio.create_task(connector.dial(edge, key, socket))
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, dialling.cancel)
            await asyncio.wait([dialling])
        for runner in runners:
            await runner.cleanup()


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1:]))
    except IngressError as error:
        sys.exit(f"Validation failed: {error.message}")
