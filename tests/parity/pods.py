"""Pods and Deployments of the image that both providers have."""

from __future__ import annotations

from typing import Any

from tests.cluster.helpers import deployment, pod
from tests.parity.conftest import IMAGE

SLEEP = "import signal; signal.sigwait([signal.SIGTERM])"
SERVER = (
    "import http.server, os\n"
    "class Answer(http.server.BaseHTTPRequestHandler):\n"
    "    def do_GET(self):\n"
    "        self.send_response(200); self.end_headers()\n"
    "        self.wfile.write(f\"{os.environ['HOSTNAME']} {os.environ.get('VERSION', '')}\".encode())\n"
    "http.server.ThreadingHTTPServer(('', 8080), Answer).serve_forever()"
)
READY = {"readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1}}
ASK = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode())"


def python_pod(name: str, program: str = SLEEP, **more: Any) -> dict[str, Any]:
    """A pod that runs a Python program; `container=` adds to its container."""
    return pod(name, "python", "-c", program, **_with_image(more))


def python_deployment(name: str, replicas: int, program: str = SERVER, **more: Any) -> dict[str, Any]:
    """A Deployment of such pods."""
    return deployment(name, replicas, "python", "-c", program, **_with_image(more))


def server_deployment(name: str, replicas: int, version: str = "v1", **more: Any) -> dict[str, Any]:
    """A Deployment of HTTP servers on port 8080 that answer with their pod's name and VERSION."""
    env = [{"name": "VERSION", "value": version}]
    name_of_pod = {"name": "HOSTNAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    container = {**READY, "env": [*env, name_of_pod], **more.pop("container", {})}
    return python_deployment(name, replicas, SERVER, container=container, **more)


def _with_image(more: dict[str, Any]) -> dict[str, Any]:
    return {**more, "container": {"image": IMAGE, **more.get("container", {})}}
