"""Ports of Services: a low one beside its shifted number, and a name server of the user's own."""

from __future__ import annotations

import urllib.request

import pytest

from labkit.cluster.embedded import EmbeddedCluster

from .helpers import namespace, pod, until

pytestmark = pytest.mark.cluster

TWO_SERVERS = (
    "import http.server, threading\n"
    "class H(http.server.BaseHTTPRequestHandler):\n"
    "    def do_GET(self):\n"
    "        self.send_response(200); self.end_headers(); self.wfile.write(b'%d' % self.server.server_port)\n"
    "    def log_message(self, *a): pass\n"
    "servers = [http.server.ThreadingHTTPServer(('0.0.0.0', port), H) for port in (8080, 9090)]\n"
    "threading.Thread(target=servers[0].serve_forever, daemon=True).start(); servers[1].serve_forever()"
)
ECHO = (
    "import socket\n"
    "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('0.0.0.0', {port}))\n"
    "while True:\n"
    "    data, peer = s.recvfrom(99); s.sendto(b'echo ' + data, peer)"
)


def spec(name: str, *ports: tuple[int, int, str]) -> dict[str, object]:
    """A Service with ports (number, target, protocol)."""
    listed = [
        {"name": f"p{number}", "port": number, "targetPort": target, "protocol": protocol}
        for number, target, protocol in ports
    ]
    return {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": listed},
    }  # fmt: skip


def test_a_port_and_its_shifted_number_are_two_ports(cluster: EmbeddedCluster) -> None:
    with namespace(cluster) as space:
        space.apply(pod("two", "python3", "-c", TWO_SERVERS, labels={"app": "two"}))
        space.apply(spec("two", (80, 8080, "TCP"), (10080, 9090, "TCP")))
        space.ready("two")
        space.run("client")
        for port, answer in ((80, "8080"), (10080, "9090")):
            get = ("curl", "-sS", "--max-time", "5", f"http://two:{port}/")
            assert until(lambda get=get: space.exec("client", *get), 30, f"port {port}") == answer
            url = cluster.url("two", namespace=space.name, port=port)
            assert (
                until(lambda url=url: urllib.request.urlopen(url, timeout=3).read(), 15, url)
                == answer.encode()
            )
        log = (cluster.directory / "logs/vip.log").read_text()
        address = space.get("service", "two")["spec"]["clusterIP"]
        assert [line for line in log.splitlines() if "cannot listen" in line and address in line] == []


def test_a_name_server_of_ones_own_is_reached(cluster: EmbeddedCluster) -> None:
    ask = (
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(3)\n"
        "s.connect(('names', 53)); s.send(b'hello'); print(s.recv(99).decode())"
    )
    with namespace(cluster) as space:
        space.apply(pod("names", "python3", "-c", ECHO.format(port=53), labels={"app": "names"}))
        space.apply(spec("names", (53, 53, "UDP")))
        space.ready("names")
        space.run("client")
        assert (
            until(lambda: space.exec("client", "python3", "-c", ask).strip(), 60, "an answer") == "echo hello"
        )
