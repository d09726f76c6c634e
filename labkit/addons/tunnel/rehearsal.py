"""A rehearsal's two ends: the edge, a process outside of the cluster, and the connector's image."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from importlib.resources import files
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import asyncssh
import pandas as pd
import psutil

from labkit.addons.tunnel.credentials import Credentials
from labkit.cluster import Cluster
from labkit.errors import LabkitError

IMAGE = "labkit/rehearsal-connector:v1"
_LOOPBACK = "127.0.7.7"
_START_S = 20.0
_SHARED = (
    "errors.py", "durations.py", "addons/tunnel/ingress.py", "addons/tunnel/urls.py",
    "addons/tunnel/hostnames.py", "addons/tunnel/origin.py",
)  # fmt: skip


class EdgeError(LabkitError):
    """The edge of a rehearsal does not run."""


class Edge:
    """The edge: connectors dial in, visitors come, and nothing of it is in the cluster.

    Attributes:
        address: where it listens.
        key: its public key, which connectors expect.
    """

    def __init__(self, address: str, credentials: Credentials) -> None:
        self.address = address
        self._credentials = credentials
        private = asyncssh.generate_private_key("ssh-ed25519")
        self._private = private.export_private_key().decode()
        self.key = private.export_public_key().decode().strip()
        self._ports = (0, 0)
        self._process: subprocess.Popen[bytes] | None = None
        self._events: list[dict[str, Any]] = []
        self._told = threading.Event()
        self._listens = False
        self._secrets = 0

    @property
    def url(self) -> str:
        """Where visitors come."""
        return f"http://{self.address}:{self._ports[1]}"

    @property
    def door(self) -> str:
        """Where connectors come, HOST:PORT."""
        return f"{self.address}:{self._ports[0]}"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def events(self) -> list[dict[str, Any]]:
        """What it told so far: connectors that registered or went, and those that were refused."""
        return list(self._events)

    def start(self) -> None:
        """Start it, at the ports of the last time.

        Raises:
            EdgeError: it does not start.
        """
        if self.running:
            return
        self._told.clear()
        self._listens = False
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("edge.py"))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        plan = {
            "address": self.address, "connector_port": self._ports[0], "visitor_port": self._ports[1],
            "host_key": self._private, "tunnel_id": self._credentials.tunnel_id,
            "secret": self._credentials.secret, "number": self._secrets,
        }  # fmt: skip
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(plan).encode() + b"\n")
            self._process.stdin.flush()
        threading.Thread(target=self._read, args=(self._process,), daemon=True).start()
        self._told.wait(_START_S)
        if not self._listens:
            words = self._last_words()
            self.stop()
            raise EdgeError(f"The edge of the rehearsal does not start: {words}")

    def renew(self, credentials: Credentials) -> None:
        """From now on connectors need these credentials. Those that are registered stay, as at Cloudflare."""
        self._credentials = credentials
        self._secrets += 1
        if self._process is not None and self._process.stdin is not None:
            line = json.dumps({"secret": credentials.secret, "number": self._secrets})
            with contextlib.suppress(OSError):
                self._process.stdin.write(line.encode() + b"\n")
                self._process.stdin.flush()

    def outdated(self) -> int:
        """How many connectors are registered with a secret that `renew` has replaced since."""
        return sum(event.get("secret", 0) != self._secrets for event in self._registered().values())

    def stop(self) -> None:
        """Stop it, as if the network to it were cut: connectors and visitors find nobody."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin:
            with contextlib.suppress(OSError):
                process.stdin.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stderr:
            process.stderr.close()
        now = time.time()
        for number in self._registered():
            self._events.append({"connector": number, "peer": "", "state": "gone", "at": now})

    def connectors(self) -> pd.DataFrame:
        """Connectors that are registered: connector, comes_from (address:port), since_s (seconds)."""
        now = time.time()
        rows = [
            {"connector": number, "comes_from": event["peer"], "since_s": round(now - event["at"], 1)}
            for number, event in self._registered().items()
        ]
        return pd.DataFrame(rows, columns=["connector", "comes_from", "since_s"])

    def _registered(self) -> dict[int, dict[str, Any]]:
        last = {event["connector"]: event for event in self._events if "connector" in event}
        return {number: event for number, event in last.items() if event["state"] == "registered"}

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line)
            if "listening" in event:
                self._ports = tuple(event["listening"])
                self._listens = True
                self._told.set()
            else:
                self._events.append(event)
        self._told.set()

    def _last_words(self) -> str:
        process = self._process
        if process is None or process.stderr is None:
            return "no message"
        process.kill()
        text = process.stderr.read().decode(errors="replace").strip()
        return text.splitlines()[-1] if text else "no message"


def edge_address(cluster: Cluster) -> str:
    """An address of this machine that the cluster's pods reach and other machines do not.

    On kind it is this machine's own address in the nodes' network; the embedded cluster's pods reach
    loopback addresses.
    """
    nodes = [ip_address(node.address) for node in cluster.nodes() if node.address]
    for addresses in psutil.net_if_addrs().values():
        for entry in addresses:
            with contextlib.suppress(ValueError):
                network = ip_network(f"{entry.address}/{entry.netmask}", strict=False)
                if any(node in network for node in nodes):
                    return str(entry.address)
    return _LOOPBACK


def build_connector(cluster: Cluster, tell: Callable[[str], None] = lambda _: None) -> str:
    """Build the connector's image for a cluster; returns its name."""
    with tempfile.TemporaryDirectory() as scratch:
        context = Path(scratch)
        package = Path(str(files("labkit")))
        source = package / "addons" / "tunnel" / "connector"
        for name in ("Dockerfile", "requirements.txt", "connector.py"):
            shutil.copyfile(source / name, context / name)
        for name in _SHARED:
            target = context / "labkit" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(package / name, target)
        tell(f"building {IMAGE}")
        cluster.build_image(context, IMAGE)
    return IMAGE
