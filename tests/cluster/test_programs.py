"""Programs that know nothing of labkit run unmodified in pods.

Of each: two replicas that listen on the same port, probed, reached by Service name from another pod, scaled and rolled.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from labkit.cluster.base import Cluster
from labkit.tools import go

from .helpers import Namespace, config_map, deployment, namespace, service, until

pytestmark = pytest.mark.cluster
FILES = Path(__file__).parent / "programs"
ASGI = """
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello from uvicorn\\n"})
"""


@dataclass(frozen=True)
class Program:
    """A program under test: what starts it, the port it listens on, and a client command with its answer."""

    name: str
    needs: str
    command: list[str]
    port: int
    client: list[str]
    answer: str
    config: dict[str, str] = field(default_factory=dict)
    probe: dict[str, Any] | None = None


def web(name: str, needs: str, command: list[str], port: int, answer: str, **config: str) -> Program:
    """A program that answers HTTP."""
    client = ["curl", "-sS", "--max-time", "5", f"http://{name}/"]
    return Program(name, needs, command, port, client, answer, config)


PROGRAMS = [
    web("python", "python3", ["python3", "-m", "http.server", "8080"], 8080, "Directory listing"),
    web(
        "uvicorn",
        sys.executable,
        [
            sys.executable,
            "-m",
            "uvicorn",
            "--app-dir",
            "/etc/program",
            "asgi:app",
            "--host",
            "0.0.0.0",
            "--port",
            "8080",
        ],
        8080,
        "hello from uvicorn",
        asgi__py=ASGI,
    ),  # fmt: skip
    web(
        "node",
        "node",
        ["node", "-e", "require('http').createServer((q, r) => r.end('hello from node\\n')).listen(8080)"],
        8080,
        "hello from node",
    ),  # fmt: skip
    web("go", "go", ["/programs/server"], 8080, "hello from go"),
    web(
        "nginx",
        "nginx",
        ["nginx", "-e", "stderr", "-c", "/etc/program/nginx.conf", "-g", "daemon off;"],
        80,
        "hello from nginx",
        nginx__conf=(FILES / "nginx.conf").read_text(),
    ),  # fmt: skip
    Program(
        "redis",
        "redis-server",
        ["redis-server", "--port", "6379", "--save", "", "--protected-mode", "no", "--dir", "/tmp"],
        6379,
        ["redis-cli", "-h", "redis", "ping"],
        "PONG",
        probe={"exec": {"command": ["redis-cli", "ping"]}},
    ),  # fmt: skip
    web("java", "javac", ["java", "-Xmx32m", "-cp", "/programs", "Server"], 8080, "hello from java"),
]


@pytest.fixture(scope="module")
def binaries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the Go and Java programs, compiled."""
    folder = tmp_path_factory.mktemp("programs")
    env = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": ""}
    source = str(FILES / "server.go")
    subprocess.run(
        [str(go()), "build", "-trimpath", "-o", str(folder / "server"), source], check=True, env=env
    )
    if shutil.which("javac"):
        subprocess.run(["javac", "-d", str(folder), str(FILES / "Server.java")], check=True)
    return folder


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.name)
def test_program_runs_unmodified(cluster: Cluster, binaries: Path, program: Program) -> None:
    if program.needs != "go" and not shutil.which(program.needs):
        pytest.skip(f"{program.needs} is not installed on this machine")
    with namespace(cluster, program.name) as space:
        start(space, program, binaries)
        space.run("client")
        answers = until(lambda: space.exec("client", *program.client), 15, "an answer by Service name")
        assert program.answer in answers
        space.kubectl("scale", f"deployment/{program.name}", "--replicas=3")
        space.rolled(f"deployment/{program.name}")
        before = pod_names(space, program)
        assert len(before) == 3
        space.kubectl("rollout", "restart", f"deployment/{program.name}")
        space.rolled(f"deployment/{program.name}")
        until(lambda: len(pod_names(space, program)) == 3, 30, "the old pods are gone")
        assert not before & pod_names(space, program)
        assert program.answer in space.exec("client", *program.client)


def start(space: Namespace, program: Program, binaries: Path) -> None:
    """Deploy two replicas of a program with its Service, and wait until they are Ready."""
    probe = program.probe or {"tcpSocket": {"port": program.port}}
    volumes: list[dict[str, Any]] = [{"name": "programs", "hostPath": {"path": str(binaries)}}]
    mounts = [{"name": "programs", "mountPath": "/programs", "readOnly": True}]
    if program.config:
        space.apply(config_map("config", **program.config))
        volumes.append({"name": "config", "configMap": {"name": "config"}})
        mounts.append({"name": "config", "mountPath": "/etc/program"})
    of_container = {
        "volumeMounts": mounts,
        "ports": [{"containerPort": program.port}],
        "readinessProbe": {**probe, "periodSeconds": 1},
        "livenessProbe": {**probe, "periodSeconds": 5, "timeoutSeconds": 3},
    }
    front = 6379 if program.name == "redis" else 80
    space.apply(
        deployment(program.name, 2, *program.command, container=of_container, volumes=volumes),
        service(program.name, front, program.port),
    )
    space.rolled(f"deployment/{program.name}")


def pod_names(space: Namespace, program: Program) -> set[str]:
    """Names of the program's pods."""
    return {item["metadata"]["name"] for item in space.items("pods", f"app={program.name}")}
