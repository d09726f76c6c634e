"""What of a config.yml reaches the connector, and that a rehearsal speaks to Services as the file says."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web

from labkit.addons.tunnel import Tunnel
from labkit.addons.tunnel.origin import OriginError, merged
from labkit.cluster.pki import Authority
from labkit.durations import seconds
from labkit.errors import ConfigError
from labkit.labs.visit import get

from .test_tunnel import ID, MANIFESTS, TOKEN, NoCluster, Rehearsal, container_of, played, until

__all__ = ["played"]
LAST = {"service": "http_status:404"}
FILE: dict[str, Any] = {
    "protocol": "http2", "loglevel": "debug", "retries": 7, "warp-routing": {"enabled": False},
    "originRequest": {"connectTimeout": "5s", "httpHostHeader": "all.test"},
    "ingress": [
        {"hostname": "a.test", "service": "http://a:80", "originRequest": {"noTLSVerify": True}}, LAST
    ],
}  # fmt: skip


def tunnel(folder: Path, config: dict[str, Any], **options: Any) -> Tunnel:
    (folder / "connector.yaml").write_text((MANIFESTS / "connector.yaml").read_text())
    (folder / "config.yml").write_text(yaml.safe_dump(config))
    return Tunnel(NoCluster(), folder, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"mode": "rehearsal"}, {"mode": "named", "token": TOKEN}])
def test_the_file_reaches_the_connector_as_it_is(tmp_path: Path, options: dict[str, Any]) -> None:
    given = {**FILE, "credentials-file": "/home/me/.cloudflared/x.json", "metrics": "localhost:9"}
    written = yaml.safe_load(tunnel(tmp_path, given, **options).config())
    assert {key: written[key] for key in FILE} == FILE
    assert written["metrics"] == "0.0.0.0:2000" and written["credentials-file"].startswith(
        "/etc/cloudflared/"
    )
    assert set(written) - set(FILE) == {"tunnel", "credentials-file", "metrics", "no-autoupdate"}


def test_a_quick_tunnel_which_reads_no_file_gets_it_as_flags(tmp_path: Path) -> None:
    made = tunnel(
        tmp_path, {key: value for key, value in FILE.items() if key != "warp-routing"}, mode="quick"
    )
    arguments = container_of({obj["kind"]: obj for obj in made.objects("image:tag")})["args"]
    assert arguments[0] == "tunnel" and arguments[-2:] == ["--url", "http://a:80"]
    wanted = {"--protocol=http2", "--loglevel=debug", "--retries=7", "--proxy-connect-timeout=5s"}
    assert wanted | {"--http-host-header=all.test", "--no-tls-verify"} <= set(arguments)
    with pytest.raises(ConfigError, match="warp-routing"):
        tunnel(tmp_path, FILE, mode="quick")


def test_a_file_of_another_tunnel_is_refused(tmp_path: Path) -> None:
    assert tunnel(tmp_path, {**FILE, "tunnel": ID}, mode="named", token=TOKEN).rules
    with pytest.raises(ConfigError, match="00000000-0000-4000-8000-000000000000"):
        tunnel(
            tmp_path, {**FILE, "tunnel": "00000000-0000-4000-8000-000000000000"}, mode="named", token=TOKEN
        )


@pytest.mark.parametrize(
    ("settings", "service", "name"),
    [
        ({"bastionMode": True}, "http://a", "bastionMode"),
        ({"proxyType": "socks"}, "http://a", "proxyType"),
        ({"caPool": "/etc/ca.pem"}, "https://a", "caPool"),
        ({"http2Origin": True}, "https://a", "http2Origin"),
        ({"disableChunkedEncoding": True}, "http://a", "disableChunkedEncoding"),
        ({"access": {"required": True}}, "http://a", "access"),
        ({}, "ssh://a:22", "ssh://a:22"),
        ({}, "unix:/run/a.sock", "unix:/run/a.sock"),
    ],
)
def test_what_a_rehearsal_cannot_do_is_refused_by_name_before_it_starts(
    tmp_path: Path, settings: dict[str, Any], service: str, name: str
) -> None:
    config = {"ingress": [{"hostname": "a.test", "service": service, "originRequest": settings}, LAST]}
    with pytest.raises(OriginError, match=name):
        tunnel(tmp_path, config, mode="rehearsal")
    assert tunnel(tmp_path, config, mode="named", token=TOKEN).rules, "cloudflared itself does it"


@pytest.mark.parametrize(
    "settings",
    [{"noTLSVerify": "yes"}, {"connectTimeout": "soon"}, {"httpHostHeader": 5}, [1], {"proxyPort": True}],
)
def test_settings_of_the_wrong_type_are_refused(tmp_path: Path, settings: Any) -> None:
    for place in ({"originRequest": settings}, {}):
        rule = {"hostname": "a.test", "service": "http://a", **({} if place else {"originRequest": settings})}
        with pytest.raises(ConfigError, match="originRequest"):
            tunnel(tmp_path, {**place, "ingress": [rule, LAST]}, mode="named", token=TOKEN)


def test_a_rules_settings_go_before_the_files() -> None:
    found = merged(
        {"originRequest": {"connectTimeout": "5s", "noTLSVerify": True}},
        {"originRequest": {"noTLSVerify": False}},
    )
    assert (found["connectTimeout"], found["noTLSVerify"], found["tlsTimeout"]) == (5.0, False, 10.0)


@pytest.mark.parametrize(
    ("text", "value"), [("1m30s", 90), ("500ms", 0.5), ("-1.5h", -5400), ("0", 0), (".5s", 0.5)]
)
def test_durations_are_go_s(text: str, value: float) -> None:
    assert seconds(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "5", "1x", "s", "1..5s", "1s ", "\u0661s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        seconds(text)


# --- a rehearsal's connector, and Services that tell what they got


class Echo(BaseHTTPRequestHandler):
    """Answers with the headers that it got."""

    def do_GET(self) -> None:
        body = "".join(f"{name.lower()}: {value}\n" for name, value in self.headers.items()).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def echo() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[tuple[int, list[str]]]:
    """Port of an HTTPS origin whose certificate nobody trusts, and the names that it was asked by."""
    asked: list[str] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    Authority.create("nobody").issue("inner.test", server=True, names=["inner.test"]).write(
        tmp_path / "inner"
    )
    context.load_cert_chain(tmp_path / "inner.crt", tmp_path / "inner.key")
    context.sni_callback = lambda _socket, name, _context: asked.append(name)  # type: ignore[assignment, return-value]
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1], asked
    server.shutdown()
    server.server_close()


def connected(played: Rehearsal, *rules: dict[str, Any], **config: Any) -> None:
    """A connector with these rules, registered."""
    file = played.folder / "config.yml"
    before = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump({**before, **config, "ingress": [*rules, LAST]}))
    played.connector(played.edge._credentials)
    until(lambda: len(played.edge.connectors()) == 1, "registered")


def rule(host: str, service: str, **settings: Any) -> dict[str, Any]:
    return {"hostname": host, "service": service, "originRequest": settings}


def test_a_services_host_header_is_the_configured_one(played: Rehearsal, echo: ThreadingHTTPServer) -> None:
    service = f"http://127.0.0.1:{echo.server_address[1]}"
    connected(
        played, rule("plain.test", service), rule("own.test", service, httpHostHeader="own.inner"),
        originRequest={"httpHostHeader": "all.inner"}, loglevel="error",
    )  # fmt: skip
    told = {host: get(played.edge.url + "/", Host=host).text for host in ("plain.test", "own.test")}
    assert (
        "host: all.inner\n" in told["plain.test"] and "x-forwarded-host: plain.test\n" in told["plain.test"]
    )
    assert "host: own.inner\n" in told["own.test"] and "x-forwarded-host: own.test\n" in told["own.test"]
    assert "user-agent: python" not in told["own.test"].lower() or "aiohttp" not in told["own.test"]
    assert "INF" not in played.log, "loglevel counts, too"


def test_certificates_are_judged_as_configured(played: Rehearsal, secure: tuple[int, list[str]]) -> None:
    port, asked = secure
    service = f"https://127.0.0.1:{port}"
    connected(
        played, rule("strict.test", service), rule("lax.test", service, noTLSVerify=True),
        rule("named.test", service, noTLSVerify=True, originServerName="inner.test"),
        rule("same.test", service, noTLSVerify=True, matchSNItoHost=True),
    )  # fmt: skip
    assert played.visit("strict.test") == 502 and "ClientConnectorCertificateError" in played.log
    assert played.visit("lax.test") == 200
    assert played.visit("named.test") == 200 and asked[-1] == "inner.test"
    assert played.visit("same.test") == 200 and asked[-1] == "same.test"


def test_a_service_that_never_shakes_hands_is_given_up(played: Rehearsal) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        service = f"https://127.0.0.1:{silent.getsockname()[1]}"
        connected(played, rule("mute.test", service, connectTimeout="100ms", tlsTimeout="200ms"))
        assert played.visit("mute.test") == 502


async def sockets() -> tuple[web.AppRunner, int]:
    """An origin with a WebSocket at /ws that answers in capitals, and refuses at /no."""

    async def speak(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=("chat",), max_msg_size=0)
        await socket.prepare(request)
        await socket.send_str(f"{request.host} {request.headers.get('X-Forwarded-Host', '')}")
        async for message in socket:
            if message.type is aiohttp.WSMsgType.BINARY:
                await socket.send_bytes(message.data[::-1])
            elif message.data == "bye":
                await socket.close(code=4321)
            else:
                await socket.send_str(message.data.upper())
        return socket

    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=403)

    app = web.Application()
    app.add_routes([web.get("/ws", speak), web.get("/no", refuse)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return runner, int(runner.addresses[0][1])


def test_websockets_are_handed_through(played: Rehearsal) -> None:
    async def talk() -> None:
        runner, port = await sockets()
        there = rule("ws.test", f"ws://127.0.0.1:{port}", httpHostHeader="inner.test")
        await asyncio.to_thread(connected, played, there)
        async with aiohttp.ClientSession(headers={"Host": "ws.test"}) as session:
            async with session.ws_connect(
                f"{played.edge.url}/ws", protocols=("chess", "chat"), max_msg_size=0
            ) as one:
                assert one.protocol == "chat" and await one.receive_str() == "inner.test ws.test"
                await one.send_str("grüß")
                assert await one.receive_str() == "GRÜSS"
                big = bytes(range(256)) * 20_000
                await one.send_bytes(big)
                assert await one.receive_bytes() == big[::-1]
                await one.send_str("bye")
                assert (await one.receive()).type is aiohttp.WSMsgType.CLOSE and one.close_code == 4321
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await session.ws_connect(f"{played.edge.url}/no")
            assert refused.value.status == 403
        await runner.cleanup()

    asyncio.run(asyncio.wait_for(talk(), 180))
