"""The tunnel without a cluster: mode, credentials, cloudflared's download, what is applied, and both ends of a rehearsal."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncssh
import pytest
import yaml

import labkit
from labkit.addons.tunnel import (
    Credentials,
    Edge,
    IngressError,
    Tunnel,
    choose,
    cloudflared,
    exposure,
    match_rule,
    mode,
    rehearsal,
)
from labkit.addons.tunnel.tunnel import read_config
from labkit.errors import AcquireError, ClusterError, ConfigError
from labkit.labs.visit import VisitError, get
from labkit.versions import versions

ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = ROOT / "manifests" / "tunnel"
ID = "6f1c0c58-4f39-4b0b-9a51-0d6d1c0a7a11"
SECRET = base64.b64encode(b"not for anybody's eyes, 32 bytes").decode()
TOKEN = base64.b64encode(json.dumps({"a": "acc", "t": ID, "s": SECRET}).encode()).decode()
EXAMPLE = "https://shop.example.com"


@dataclass
class NoCluster:
    """Stands where a Cluster would: has no nodes, and no API."""

    name: str = "none"
    provider: str = "embedded"

    def nodes(self) -> list[Any]:
        return []

    def underlying(self) -> NoCluster:
        return self


def tunnel(**options: Any) -> Tunnel:
    return Tunnel(NoCluster(), MANIFESTS, **options)  # type: ignore[arg-type]


# --- credentials


def test_a_token_holds_the_credentials() -> None:
    found = Credentials.from_token(f" {TOKEN}\n")
    assert (found.account, found.tunnel_id, found.secret) == ("acc", ID, SECRET)
    assert json.loads(found.file()) == {"AccountTag": "acc", "TunnelID": ID, "TunnelSecret": SECRET}
    assert Credentials.from_file(found.file()) == found


@pytest.mark.parametrize("token", ["", "x", "ey", TOKEN[:-8], base64.b64encode(b"{}").decode(), "ß" * 40])
def test_what_is_no_token_is_not_repeated(token: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Credentials.from_token(token)
    assert "no tunnel token" in caught.value.message
    assert len(token) < 8 or token not in str(caught.value)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


def test_the_secret_is_not_shown() -> None:
    made = Credentials.generate()
    assert made.secret not in f"{made} {made!r}" and made != Credentials.generate()
    named = tunnel(mode="named", token=TOKEN)
    for text in (repr(named), str(named.choice), repr(named.choice), named.config()):
        assert SECRET not in text and TOKEN not in text


# --- which tunnel


@pytest.fixture
def listener() -> Iterator[tuple[str, int]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()


@pytest.fixture
def closed() -> tuple[str, int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address: tuple[str, int] = server.getsockname()
    return address


def test_without_an_edge_it_is_a_rehearsal(listener: tuple[str, int], closed: tuple[str, int]) -> None:
    for token in ("", TOKEN):
        found = choose("auto", token, edges=[listener, closed])
        assert found.mode == "rehearsal" and f"127.0.0.1:{closed[1]}" in str(found)
    assert "\n" not in str(found)


def test_with_an_edge_it_is_real(listener: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose("auto", "", edges=[listener]).mode == "quick"
    named = choose("auto", TOKEN, edges=[listener])
    assert named.mode == "named" and ID in named.why and named.credentials is not None
    monkeypatch.setenv(mode.TOKEN_VARIABLE, TOKEN)
    assert choose("auto", edges=[listener]).mode == "named"
    assert choose("quick", edges=[]).mode == "quick" and choose("rehearsal").mode == "rehearsal"


def test_an_edge_that_says_nothing_is_waited_for_two_seconds_only(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def connect(_address: tuple[str, int], limit: float) -> socket.socket:
        asked.append(limit)
        raise TimeoutError

    monkeypatch.setattr(mode.socket, "create_connection", connect)
    assert choose("auto", "").mode == "rehearsal" and asked == [2.0]


def test_modes_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(mode.TOKEN_VARIABLE, raising=False)
    with pytest.raises(ConfigError, match="no tunnel mode"):
        choose("fast")
    with pytest.raises(ConfigError, match="needs its token"):
        choose("named")
    with pytest.raises(ConfigError, match="no tunnel token"):
        choose("named", "wrong")


# --- cloudflared's own program


class Files(BaseHTTPRequestHandler):
    """Serves `server.files`: path to bytes."""

    def do_GET(self) -> None:
        body = self.server.files.get(self.path)  # type: ignore[attr-defined]
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Asked", self.headers.get("Host", ""))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def release(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, bytes]]:
    """A server that stands for GitHub, and a cache that is empty."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Files)
    server.files = {}  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("LABKIT_CLOUDFLARED_URL", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    yield server.files  # type: ignore[attr-defined]
    server.shutdown()
    server.server_close()


def pinned(monkeypatch: pytest.MonkeyPatch, program: bytes) -> str:
    """Let the program be the one whose checksum is pinned; returns its path at the server."""
    digest = hashlib.sha256(program).hexdigest()
    known = replace(versions().cloudflared, sha256={"linux-amd64": digest, "linux-arm64": digest})
    changed = replace(versions(), cloudflared=known)
    monkeypatch.setattr(cloudflared, "versions", lambda: changed)
    return f"/{known.version}/cloudflared-{cloudflared.target()}"


def test_cloudflared_is_downloaded_once_and_verified(
    release: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    program = b"#!/bin/sh\necho cloudflared\n"
    release[pinned(monkeypatch, program)] = program
    found = cloudflared.program()
    assert subprocess.run([found], capture_output=True, check=True).stdout == b"cloudflared\n"
    release.clear()
    assert cloudflared.program() == found


def test_something_else_is_not_used(
    release: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    release[pinned(monkeypatch, b"cloudflared")] = b"not cloudflared"
    with pytest.raises(AcquireError, match="It was not used"):
        cloudflared.program()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_no_release_is_an_error_with_a_hint(
    release: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert release == {}
    pinned(monkeypatch, b"cloudflared")
    with pytest.raises(AcquireError) as caught:
        cloudflared.program()
    assert "cannot be downloaded" in caught.value.message and "rehearsal" in caught.value.hint


def test_the_release_comes_over_tls(release: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    assert release == {}
    monkeypatch.setenv("LABKIT_CLOUDFLARED_URL", "http://mirror.test")
    with pytest.raises(AcquireError, match="not https"):
        cloudflared.program()


def test_what_is_pinned_is_complete() -> None:
    known = versions().cloudflared
    assert set(known.sha256) == {"linux-amd64", "linux-arm64"}
    assert all(len(digest) == 64 and int(digest, 16) for digest in known.sha256.values())
    assert known.url.startswith("https://github.com/cloudflare/cloudflared/")


# --- what is applied


def by_kind(made: Tunnel) -> dict[str, dict[str, Any]]:
    return {obj["kind"]: obj for obj in made.objects("image:tag")}


def container_of(objects: dict[str, dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = objects["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    return found


def test_the_secret_is_in_the_secret_alone() -> None:
    for made in (tunnel(mode="rehearsal"), tunnel(mode="named", token=TOKEN)):
        secret = made.credentials.secret
        for obj in made.objects("image:tag"):
            assert (secret in json.dumps(obj)) == (obj["kind"] == "Secret"), obj["kind"]


def test_a_named_tunnel_is_configured_as_cloudflared_wants_it() -> None:
    objects = by_kind(tunnel(mode="named", token=TOKEN))
    config = yaml.safe_load(objects["ConfigMap"]["data"]["config.yml"])
    assert config["tunnel"] == ID and config["ingress"][-1] == {"service": "http_status:404"}
    assert match_rule(config["ingress"], f"{EXAMPLE}/api/orders") == 0
    container = container_of(objects)
    assert container["args"] == ["tunnel", "--config", "/etc/cloudflared/config/config.yml", "run"]
    assert "env" not in container and container["readinessProbe"]["httpGet"]["path"] == "/ready"
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert mounts[str(Path(config["credentials-file"]).parent)] == "credentials"
    assert config["metrics"].endswith(":2000")


def test_a_quick_tunnel_has_one_connector_one_service_and_no_credentials_in_its_settings() -> None:
    made = tunnel(mode="quick")
    objects = by_kind(made)
    assert objects["Deployment"]["spec"]["replicas"] == 1
    assert container_of(objects)["args"][-2:] == ["--url", "http://frontend.shop.svc.cluster.local:80"]
    assert "tunnel" not in yaml.safe_load(made.config())


def test_a_rehearsal_differs_by_image_and_edge_only() -> None:
    made, named = tunnel(mode="rehearsal"), tunnel(mode="named", token=TOKEN)
    assert made.edge is not None and made.edge.address == "127.0.7.7"
    mine, real = container_of(by_kind(made)), container_of(by_kind(named))
    assert [variable["name"] for variable in mine.pop("env")] == ["TUNNEL_EDGE", "TUNNEL_EDGE_KEY"]
    assert mine == real


def test_other_settings_are_a_new_rollout() -> None:
    made = tunnel(mode="named", token=TOKEN)

    def digest() -> str:
        meta = by_kind(made)["Deployment"]["spec"]["template"]["metadata"]
        return str(meta["annotations"]["labkit/settings"])

    first = digest()
    assert digest() == first
    made.credentials = Credentials.generate()
    assert digest() != first


def test_a_named_tunnels_hostnames_are_asked_as_they_are() -> None:
    made = tunnel(mode="named", token=TOKEN)
    assert made.route(f"{EXAMPLE}/x") == (f"{EXAMPLE}/x", {})
    with pytest.raises(ClusterError, match=r"hostnames of its rules"):
        _ = made.url


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("ingress: [", ConfigError),
        ("- a", IngressError),
        ("", IngressError),
        ("tunnel: x", IngressError),
        ("ingress: []", IngressError),
        ("ingress:\n  - service: http://a/b", IngressError),
    ],
)
def test_a_config_that_cannot_be(tmp_path: Path, text: str, error: type[Exception]) -> None:
    file = tmp_path / "config.yml"
    file.write_text(text)
    with pytest.raises(error):
        read_config(file)


def test_no_config_at_all(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config(tmp_path / "config.yml")


# --- both ends of a rehearsal, without a cluster


@dataclass
class Rehearsal:
    edge: Edge
    folder: Path
    ready_url: str
    processes: list[subprocess.Popen[bytes]]

    def connector(self, credentials: Credentials) -> subprocess.Popen[bytes]:
        """Start a connector as its image does."""
        (self.folder / "credentials.json").write_text(credentials.file())
        script = Path(labkit.__file__).parent / "addons" / "tunnel" / "connector" / "connector.py"
        env = {
            **os.environ,
            "TUNNEL_EDGE": self.edge.door,
            "TUNNEL_EDGE_KEY": self.edge.key,
            "PYTHONPATH": str(ROOT),
        }
        argv = [sys.executable, str(script), "tunnel", "--config", str(self.folder / "config.yml"), "run"]
        log = (self.folder / "log").open("ab")
        process = subprocess.Popen(argv, env=env, stdout=log, stderr=subprocess.STDOUT)
        self.processes.append(process)
        return process

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def status(self, url: str, **headers: str) -> int:
        try:
            return get(url, **headers).status
        except VisitError:
            return 0

    def visit(self, host: str, path: str = "/") -> int:
        return self.status(self.edge.url + path, Host=host)


@pytest.fixture
def played(tmp_path: Path) -> Iterator[Rehearsal]:
    """An edge, an origin, and a config.yml that leads to it; no connector yet."""
    origin = ThreadingHTTPServer(("127.0.0.1", 0), Files)
    origin.files = {"/": b"the shop", "/a%20b?x=%2F": b"as it came"}  # type: ignore[attr-defined]
    threading.Thread(target=origin.serve_forever, daemon=True).start()
    with socket.create_server(("127.0.0.1", 0)) as free:
        metrics = free.getsockname()[1]
    config = {
        "credentials-file": str(tmp_path / "credentials.json"), "metrics": f"127.0.0.1:{metrics}",
        "ingress": [
            {"hostname": "shop.test", "service": f"http://127.0.0.1:{origin.server_address[1]}"},
            {"hostname": "gone.test", "service": "http://127.0.0.1:1"},
            {"hostname": "hello.test", "service": "hello_world"},
            {"service": "http_status:404"},
        ],
    }  # fmt: skip
    (tmp_path / "config.yml").write_text(yaml.safe_dump(config))
    made = Rehearsal(
        Edge("127.0.7.7", Credentials.generate()), tmp_path, f"http://127.0.0.1:{metrics}/ready", []
    )
    made.edge.start()
    yield made
    for process in made.processes:
        process.kill()
        process.wait()
    made.edge.stop()
    origin.shutdown()
    origin.server_close()


def until(condition: Callable[[], object], what: str, limit_s: float = 120.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {limit_s:g} s: {what}"
        time.sleep(0.1)


def test_a_visitor_who_comes_with_the_registration_is_served(played: Rehearsal) -> None:
    """The connector is busy: it reads that it is registered, and that there is a visitor, at once."""
    edge, known = played.edge, played.edge._credentials
    service = yaml.safe_load((played.folder / "config.yml").read_text())["ingress"][0]["service"]
    host, _, port = edge.door.rpartition(":")

    async def busy(pool: ThreadPoolExecutor) -> int:
        async with asyncssh.connect(
            host, int(port), username=known.tunnel_id, password=known.secret, known_hosts=None,
            client_keys=None, agent_path=None, config=None, preferred_auth="password",
        ) as connection:  # fmt: skip
            forward = connection.forward_remote_port("tunnel", 443, "127.0.0.1", urlsplit(service).port)
            asked = asyncio.ensure_future(forward)
            for _ in range(10):  # it asks, and then hears nothing for a second
                await asyncio.sleep(0)
            until(lambda: len(edge.connectors()) == 1, "registered", 20)
            visit = pool.submit(played.visit, "shop.test")
            time.sleep(1)
            await asked
            return await asyncio.wrap_future(visit)

    with ThreadPoolExecutor(1) as pool:
        assert asyncio.run(busy(pool)) == 200


def test_a_connector_that_takes_nobody_counts_as_none(played: Rehearsal) -> None:
    edge, known = played.edge, played.edge._credentials
    host, _, port = edge.door.rpartition(":")

    async def refusing() -> int:
        async with asyncssh.connect(
            host, int(port), username=known.tunnel_id, password=known.secret, known_hosts=None,
            client_keys=None, agent_path=None, config=None, preferred_auth="password",
        ) as connection:  # fmt: skip
            await connection.forward_remote_port("tunnel", 443, "127.0.0.1", 1)
            return await asyncio.to_thread(played.visit, "shop.test")

    assert asyncio.run(refusing()) == 530


def test_a_rehearsal_from_end_to_end(played: Rehearsal) -> None:
    edge, good = played.edge, played.edge._credentials
    assert played.visit("shop.test") == 530, "no connector yet"
    connector = played.connector(good)
    until(lambda: len(edge.connectors()) == 1, "registered")
    assert get(played.ready_url).json["readyConnections"] == 1
    answer = get(edge.url + "/", Host="shop.test")
    assert (answer.status, answer.text, answer.headers["x-asked"]) == (200, "the shop", "shop.test")
    assert get(edge.url + "/a%20b?x=%2F", Host="shop.test").text == "as it came"
    assert played.visit("unknown.test") == 404 and played.visit("gone.test") == 502
    assert "tunnel" in get(edge.url + "/", Host="hello.test:8080").text

    ports = (edge.door, edge.url)
    edge.stop()
    assert played.visit("shop.test") == 0 and edge.connectors().empty
    until(lambda: played.status(played.ready_url) == 503, "not ready any more")
    edge.start()
    assert (edge.door, edge.url) == ports
    until(lambda: len(edge.connectors()) == 1, "registered again, by itself")
    assert played.visit("shop.test") == 200

    connector.terminate()
    assert connector.wait(60) == 0
    until(lambda: edge.connectors().empty, "the edge notices")
    assert good.secret not in played.log and "rule=0" in played.log and "?" not in played.log


def test_a_wrong_secret_is_refused(played: Rehearsal) -> None:
    good = played.edge._credentials
    wrong = Credentials(good.account, good.tunnel_id, Credentials.generate().secret)
    played.connector(wrong)
    until(lambda: "Unauthorized: Invalid tunnel secret" in played.log, "refused")
    assert played.status(played.ready_url) == 503 and played.visit("shop.test") == 530
    assert [event["refused"] for event in played.edge.events][:1] == [good.tunnel_id]
    assert wrong.secret not in played.log + json.dumps(played.edge.events)


def test_a_new_secret_counts_for_those_who_come_and_leaves_those_who_are_here(played: Rehearsal) -> None:
    edge, former = played.edge, played.edge._credentials
    old = played.connector(former)
    until(lambda: len(edge.connectors()) == 1, "registered")
    new = Credentials(former.account, former.tunnel_id, Credentials.generate().secret)
    edge.renew(new)
    assert edge.outdated() == 1 and played.visit("shop.test") == 200, "who is registered stays"
    old.terminate()
    assert old.wait(60) == 0
    until(lambda: edge.connectors().empty, "it has gone")
    late = played.connector(former)
    until(lambda: "Unauthorized: Invalid tunnel secret" in played.log, "the former secret is refused")
    late.kill()
    late.wait()
    played.connector(new)
    until(lambda: len(edge.connectors()) == 1, "the new one is good")
    assert edge.outdated() == 0 and played.visit("shop.test") == 200
    edge.stop()
    edge.start()
    until(lambda: len(edge.connectors()) == 1, "an edge that was restarted asks for the new one, too")
    assert edge.outdated() == 0


def test_a_connector_that_is_told_to_end_answers_its_visitors_first(played: Rehearsal) -> None:
    with socket.create_server(("127.0.0.1", 0)) as slow:
        config = yaml.safe_load((played.folder / "config.yml").read_text())
        config["ingress"][0]["service"] = f"http://127.0.0.1:{slow.getsockname()[1]}"
        (played.folder / "config.yml").write_text(yaml.safe_dump(config))
        connector = played.connector(played.edge._credentials)
        until(lambda: len(played.edge.connectors()) == 1, "registered")
        seen: list[int] = []
        visitor = threading.Thread(target=lambda: seen.append(played.visit("shop.test")))
        visitor.start()
        asked, _ = slow.accept()
        asked.recv(1 << 16)
        connector.terminate()
        until(lambda: played.edge.connectors().empty, "it takes no more visitors")
        assert connector.poll() is None and played.visit("shop.test") == 530
        asked.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        asked.close()
        visitor.join(60)
        assert seen == [200] and connector.wait(60) == 0


def test_an_edge_with_another_key_is_not_trusted(played: Rehearsal) -> None:
    other = Edge("127.0.7.7", played.edge._credentials)
    played.edge.key = other.key
    played.connector(played.edge._credentials)
    until(lambda: "HostKeyNotVerifiable" in played.log, "not trusted")
    assert played.edge.connectors().empty


def test_a_connector_with_rules_that_cannot_be_says_so(played: Rehearsal) -> None:
    config = yaml.safe_load((played.folder / "config.yml").read_text())
    (played.folder / "config.yml").write_text(yaml.safe_dump({**config, "ingress": []}))
    assert played.connector(played.edge._credentials).wait(120) == 1
    assert "Validation failed: The config file has no ingress rules." in played.log


def test_an_address_that_is_not_ours_is_one_clear_error() -> None:
    edge = Edge("192.0.2.1", Credentials.generate())
    with pytest.raises(rehearsal.EdgeError, match="does not start"):
        edge.start()
    assert not edge.running


def test_a_rehearsals_secrets_are_in_no_command_line(played: Rehearsal) -> None:
    process = played.edge._process
    assert process is not None
    seen = (
        Path(f"/proc/{process.pid}/cmdline").read_bytes() + Path(f"/proc/{process.pid}/environ").read_bytes()
    )
    assert played.edge._credentials.secret.encode() not in seen


def test_the_connectors_requirements_are_ones_that_labkit_has() -> None:
    wanted = (Path(labkit.__file__).parent / "addons/tunnel/connector/requirements.txt").read_text().split()
    pyproject = (ROOT / "pyproject.toml").read_text()
    for line in wanted:
        assert f'"{line.split(",")[0]}' in pyproject, line


# --- what listens


@pytest.mark.parametrize(
    ("address", "shown", "others"),
    [
        ("127.18.1.5", "127.18.1.5", False),
        ("::1", "::1", False),
        ("::ffff:127.18.1.6", "127.18.1.6", False),
        ("::ffff:192.0.2.7", "192.0.2.7", True),
        ("::", "::", True),
        ("0.0.0.0", "0.0.0.0", True),
        ("192.0.2.7", "192.0.2.7", True),
    ],
)
def test_which_addresses_others_reach(
    monkeypatch: pytest.MonkeyPatch, address: str, shown: str, others: bool
) -> None:
    monkeypatch.setattr(exposure, "_published", lambda _: [("node", address, 80), ("node", address, 80)])
    found = exposure.listening(NoCluster(provider="kind"))  # type: ignore[arg-type]
    assert found.to_numpy().tolist() == [["node", shown, 80, others]]
    assert (
        exposure.summary(found).startswith("1 ports are open")
        and ("none" in exposure.summary(found)) != others
    )


def test_a_provider_that_is_not_known_is_said_so() -> None:
    with pytest.raises(ClusterError, match="existing"):
        exposure.listening(NoCluster(provider="existing"))  # type: ignore[arg-type]
