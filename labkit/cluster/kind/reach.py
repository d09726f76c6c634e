"""How this process reaches a Service of a kind cluster.

A ClusterIP exists only inside the nodes. Where this machine has a route to the node containers, as on Linux,
a relay on the control plane's node takes connections and makes them anew to the ClusterIP, so that kube-proxy
balances each of them. Without a route (Docker Desktop, rootless Docker) `kubectl port-forward` is the way.
"""

from __future__ import annotations

import hashlib
import re
import threading

from labkit.cluster.kind.engine import Engine
from labkit.cluster.waiting import accepts
from labkit.errors import ClusterError

FIRST_PORT, PORTS = 20000, 9000
_API_PORT = 6443
_PROXY = "/lib/systemd/systemd-socket-proxyd"
_PROXY_CHAIN = "-A KUBE-SERVICES "
_TRIES = 20


class Relay:
    """Sockets of systemd on the control plane's node, each of which leads to one ClusterIP and port."""

    def __init__(self, engine: Engine, container: str) -> None:
        self._engine, self._container = engine, container
        self._known: dict[tuple[str, int], int] = {}
        self._lock = threading.Lock()

    def port(self, address: str, port: int) -> int:
        """The node's port that leads to an address of the cluster; opened where it is not yet.

        Raises:
            ClusterError: the node opens none.
        """
        with self._lock:
            known = self._known.get((address, port))
            if known is None:
                known = self._known[address, port] = self._open(address, port)
            return known

    def leads_on(self, address: str, port: int) -> bool:
        """Whether kube-proxy on the node passes connections to that ClusterIP and port on to a pod.

        Until it does they leave the node, and somebody on the network may take them: a node whose kube-proxy
        writes other rules than those of iptables (kind's default) is believed.
        """
        rules = self._engine.attempt("exec", self._container, "iptables-save", "-t", "nat").stdout
        passed_on = re.compile(rf"-d {re.escape(address)}/32 .*--dport {port} -j KUBE-SVC-")
        return _PROXY_CHAIN not in rules or passed_on.search(rules) is not None

    def forget(self) -> None:
        """After the node was started anew its sockets are gone."""
        with self._lock:
            self._known.clear()

    def _open(self, address: str, port: int) -> int:
        unit = f"labkit-reach-{address.replace('.', '-')}-{port}"
        ask = ("systemctl", "show", "-p", "Listen", f"{unit}.socket")
        for word in self._engine.attempt("exec", self._container, *ask).stdout.replace("=", " ").split():
            if word.rpartition(":")[2].isdigit():
                return int(word.rpartition(":")[2])
        first = int(hashlib.sha256(unit.encode()).hexdigest(), 16) % PORTS
        said = ""
        for number in range(_TRIES):
            chosen = FIRST_PORT + (first + number * 97) % PORTS
            socket = [f"--socket-property=ListenStream=0.0.0.0:{chosen}", "--socket-property=Backlog=1024"]
            serve = [_PROXY, "--connections-max=4096", f"{address}:{port}"]
            argv = ["systemd-run", "--quiet", f"--unit={unit}", *socket, *serve]
            done = self._engine.attempt("exec", self._container, *argv)
            if done.returncode == 0:
                return chosen
            said = done.stderr.strip()
            self._engine.attempt("exec", self._container, "systemctl", "reset-failed", f"{unit}.socket")
        raise ClusterError(f"{self._container} opens no port for {address}:{port}: {said}")


def has_route(address: str, port: int = _API_PORT) -> bool:
    """Whether this machine reaches the node containers by their addresses."""
    return bool(address) and accepts(address, port)
