"""What speaks with a cluster uses no proxy; what fetches from outside does."""

from __future__ import annotations

import threading
import urllib.error
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from labkit.checks.lab00 import _get
from labkit.cluster import supervisor
from labkit.errors import KubeError
from labkit.kube import Kube
from labkit.kube.direct import is_near, is_own, no_proxy, opener
from labkit.labs.visit import get

from .api_server import Server, kubeconfig
from .refusing_proxy import RefusingProxy

ADDRESS = "127.18.250.9"
"""As embedded clusters have them: no usual NO_PROXY names it."""


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[RefusingProxy]:
    """It is in the environment, beside the usual NO_PROXY."""
    made = RefusingProxy()
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    yield made
    made.close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    made.http.shutdown()
    made.http.server_close()
    made.http = ThreadingHTTPServer((ADDRESS, 0), made.handler)
    made.http.daemon_threads = True
    made.port = made.http.server_address[1]
    threading.Thread(target=made.http.serve_forever, args=(0.05,), daemon=True).start()
    yield made
    made.http.shutdown()
    made.http.server_close()


def kube_at(server: Server, folder: Path) -> Kube:
    file = kubeconfig(folder, server.port)
    config: Any = yaml.safe_load(file.read_text())
    config["clusters"][0]["cluster"]["server"] = f"http://{ADDRESS}:{server.port}"
    file.write_text(yaml.safe_dump(config))
    return Kube(file, patience_s=1)


def test_requests_and_exec_reach_the_api_server_directly(
    proxy: RefusingProxy, server: Server, tmp_path: Path
) -> None:
    kube = kube_at(server, tmp_path)
    server.answers["/api/v1/nodes"] = [(200, {"items": []})]
    assert kube.request("GET", "/api/v1/nodes") == {"items": []}
    with pytest.raises(KubeError):  # it is no WebSocket server, but it was asked
        kube.exec("one", ["true"], namespace="default", timeout_s=3)
    assert any("/pods/one/exec" in line for line in server.seen)
    assert proxy.asked == []


def test_visits_reach_services_directly(proxy: RefusingProxy, server: Server) -> None:
    server.answers["/hello"] = [(200, {"said": "hello"})]
    url = f"http://{ADDRESS}:{server.port}/hello"
    assert get(url).json == {"said": "hello"}

    class Here:
        def url(self, _name: str) -> str:
            return url

    assert "hello" in _get(Here())  # type: ignore[arg-type]
    assert proxy.asked == []


def test_downloads_use_the_proxy(proxy: RefusingProxy) -> None:
    with pytest.raises(urllib.error.HTTPError, match="403"):
        opener("http://labkit.example/x").open("http://labkit.example/x", timeout=5)
    assert len(proxy.asked) == 1


def test_components_know_no_proxy(proxy: RefusingProxy) -> None:
    assert not [name for name in supervisor._clean_environment() if "proxy" in name.lower()]
    assert proxy.asked == []


@pytest.mark.parametrize(
    ("url", "own", "near"),
    [
        ("https://127.18.0.1:6443", True, True),
        ("http://127.96.0.7", True, True),
        ("http://198.18.1.2:8080", True, True),
        ("http://localhost:1", True, True),
        ("http://[::1]:1", True, True),
        ("http://web.default.svc", True, True),
        ("http://web.default.svc.cluster.local:80", True, True),
        ("http://172.18.0.3:30000", False, True),
        ("http://8.8.8.8", False, False),
        ("https://api.school.example:6443", False, False),
    ],
)
def test_what_is_a_clusters_own(url: str, own: bool, near: bool) -> None:
    assert (is_own(url), is_near(url)) == (own, near)


def test_programs_of_the_user_keep_the_proxy_for_what_is_outside() -> None:
    assert no_proxy({"PATH": "/bin"}) == no_proxy({"https_proxy": ""}) == {}
    told = no_proxy({"HTTPS_PROXY": "http://p", "NO_PROXY": "a.example, 127.0.0.0/8"})
    assert told["NO_PROXY"] == told["no_proxy"]
    parts = told["NO_PROXY"].split(",")
    assert parts[0] == "a.example" and parts.count("127.0.0.0/8") == 1 and "198.18.0.0/15" in parts
