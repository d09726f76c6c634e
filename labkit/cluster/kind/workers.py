"""A worker that joins a kind cluster later: a node container, joined by kubeadm with a bootstrap token."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, replace

import yaml

from labkit.cluster.discovery import DISCOVERY_S, check_hash, check_server, found, key_hash, no_trust
from labkit.cluster.join import Join, Token
from labkit.cluster.kind.care import JOIN_LOG
from labkit.cluster.kind.config import (
    PATCHES,
    Host,
    Joining,
    authority_of,
    join_configuration,
    kubelet_configuration,
)
from labkit.cluster.kind.engine import CLUSTER_LABEL, OWN_LABEL, ROLE_LABEL, Engine
from labkit.cluster.kind.load import load
from labkit.cluster.kind.serving import approve_serving
from labkit.cluster.kind.state import KindDirectory, KindNode
from labkit.cluster.phases import Step, silent
from labkit.errors import ClusterError, WaitTimeout
from labkit.kube import Kube

API_PORT = 6443
_BOOT_S = 90.0
_SERVING_S = 60.0
_DISCOVERED_S = 60.0
_SOCKET = "/run/containerd/containerd.sock"
# The first is there from discovery until the kubelet has its certificate, the second from then on.
_FOUND = ("test", "-e", "/etc/kubernetes/bootstrap-kubelet.conf", "-o", "-e", "/etc/kubernetes/kubelet.conf")
_ENDED = "/kind/join.ended"
_JOIN = 'kubeadm join --config /kind/kubeadm.conf --v=4 >"$1" 2>&1; touch "$2"'
_WRITE = 'umask 077; mkdir -p "$(dirname "$1")"; cat >"$1"'
_ADVICE = "To see the stack trace"


@dataclass(frozen=True)
class Given:
    """What a worker that finds its cluster by itself is told of it; each None where it was not given."""

    token: Token | None = None
    ca_cert_hash: str | None = None
    server: str | None = None

    @classmethod
    def parse(cls, token: str | None, ca_cert_hash: str | None, server: str | None = None) -> Given:
        """Of what a person typed.

        Raises:
            ConfigError: one of them cannot be one.
        """
        return cls(
            Token.parse(token) if token is not None else None,
            check_hash(ca_cert_hash) if ca_cert_hash is not None else None,
            check_server(server) if server is not None else None,
        )

    def __bool__(self) -> bool:
        return any(each is not None for each in (self.token, self.ca_cert_hash, self.server))


NOTHING = Given()


class Workers:
    """Node containers of one cluster, besides those that kind made.

    Args:
        host: the machine that the containers share.
    """

    def __init__(self, engine: Engine, directory: KindDirectory, host: Host) -> None:
        self.engine, self.directory, self.host = engine, directory, host

    def join(
        self,
        kube: Kube,
        name: str,
        node: KindNode,
        image: str,
        *,
        approve: bool = True,
        limit_s: float = 120.0,
        given: Given = NOTHING,
    ) -> Join:
        """Start a worker's container and let it join; hands back its steps."""

        def boot(token: Token) -> None:
            address = self._boot(node.container, image)
            self._load_images(node.container)
            self._kubeadm(name, replace(node, address=address), token, limit_s, given)
            with self.directory.changed() as state:
                if name in state.nodes:
                    state.nodes[name].address = address

        def discover(token: Token) -> str:
            boot(token)
            return self._discovered(name, node, token, given.server or self._server)

        def start(token: Token) -> str:
            if not given:
                boot(token)
            return f"{name} with token {token.id}.…, container {node.container}"

        def finish() -> None:
            self.certify(kube, {name: node.container})

        return Join(
            kube, name, start, token=given.token, discover=discover if given else None,
            approve=approve, limit_s=limit_s, finish=finish,
        )  # fmt: skip

    def _discovered(self, name: str, node: KindNode, token: Token, server: str) -> str:
        """Wait until kubeadm trusts the cluster; where it does not, remove the worker and keep its words."""
        deadline = time.monotonic() + _DISCOVERED_S
        while self.engine.attempt("exec", node.container, *_FOUND).returncode:
            ended = not self.engine.attempt("exec", node.container, "test", "-e", _ENDED).returncode
            if ended or time.monotonic() > deadline:
                words = self.engine.attempt("exec", node.container, "cat", JOIN_LOG).stdout.splitlines()
                said = "".join(f"{line}\n" for line in words if not line.startswith(_ADVICE))
                self._forget(name, node, f'kubeadm join with token ID "{token.id}"\n{said}')
                raise no_trust(f"https://{server}", _last_error(said))
            time.sleep(0.2)
        return found(f"https://{server}", self._pin)

    def _forget(self, name: str, node: KindNode, said: str) -> None:
        """Remove a worker that has not joined, but for what kubeadm said."""
        with self.directory.join_log(name).open("a") as stream:
            stream.write(said)
        self.engine.run("rm", "--force", "--volumes", node.container, limit_s=120)
        with self.directory.changed() as state:
            state.nodes.pop(name, None)

    @property
    def _server(self) -> str:
        return f"{self.directory.control_plane}:{API_PORT}"

    @property
    def _pin(self) -> str:
        return key_hash(authority_of(self.directory.kubeconfig))

    def certify(self, kube: Kube, nodes: dict[str, str]) -> None:
        """Approve the serving certificates of nodes, for the addresses that their containers have.

        Args:
            nodes: node → container.

        Raises:
            WaitTimeout: a kubelet has not asked for one.
        """
        addresses = {each.name: each.address for each in self.engine.containers(self.directory.kind_name)}
        allowed = {name: {name, box, addresses.get(box, "")} - {""} for name, box in nodes.items()}
        missing = approve_serving(kube, allowed, _SERVING_S)
        if missing:
            names = ", ".join(sorted(missing))
            raise WaitTimeout(
                f"The kubelet of {names} has not asked for a serving certificate within {_SERVING_S:.0f} s.",
                f"`labkit logs node-{min(missing)} -c {self.directory.name}` shows its log.",
            )

    def _boot(self, container: str, image: str) -> str:
        """Run the container, wait for its containerd, and return its address."""
        if self.engine.attempt("inspect", container).returncode == 0:  # left by a join that was cut off
            self.engine.run("rm", "-f", "-v", container)
        self.engine.run(*self._arguments(container, image), limit_s=120)
        deadline = time.monotonic() + _BOOT_S
        while self.engine.attempt("exec", container, "test", "-S", _SOCKET).returncode:
            if time.monotonic() > deadline:
                said = self.engine.attempt("logs", "--tail", "5", container).stdout.strip()
                raise ClusterError(
                    f"The node container {container} has not booted in {_BOOT_S:.0f} s: {said}"
                )
            time.sleep(0.2)
        found = {each.name: each.address for each in self.engine.containers(self.directory.kind_name)}
        return found[container]

    def _arguments(self, container: str, image: str) -> list[str]:
        """As kind v0.33 runs its nodes (its pkg/cluster/internal/providers/docker/provision.go)."""
        name = self.directory.kind_name
        return [
            "run", "--name", container, "--hostname", container,
            "--label", f"{CLUSTER_LABEL}={name}", "--label", f"{ROLE_LABEL}=worker",
            "--label", f"{OWN_LABEL}={self.directory.name}",
            "--privileged", "--security-opt", "seccomp=unconfined",
            "--security-opt", "apparmor=unconfined",
            "--tmpfs", "/tmp", "--tmpfs", "/run", "--volume", "/var",
            "--volume", "/lib/modules:/lib/modules:ro", "--detach", "--tty", "--net", name,
            "--restart=on-failure:1", "--init=false", "--cgroupns=private", image,
        ]  # fmt: skip

    def _load_images(self, container: str) -> None:
        """Before it joins: a pod that starts to pull goes on pulling, although the image is there by then."""
        state = self.directory.read()
        if state and state.images:
            names = [name for name in state.images if self.engine.image(name)]
            load(self.engine, names, [container], Step("images", silent, ""))

    def _kubeadm(self, name: str, node: KindNode, token: Token, limit_s: float, given: Given) -> None:
        to = Joining(
            given.server or self._server, given.ca_cert_hash or self._pin, str(token),
            DISCOVERY_S if given else None,
        )  # fmt: skip
        config = join_configuration(name, node, self.directory.kind_name, to, limit_s)
        size = kubelet_configuration(self.host, node.cpus, node.memory)
        self._write(node.container, "/kind/kubeadm.conf", config)
        self._write(node.container, f"{PATCHES}/kubeletconfiguration+merge.yaml", yaml.safe_dump(size))
        self.engine.run("exec", "-d", node.container, "sh", "-c", _JOIN, "sh", JOIN_LOG, _ENDED)

    def _write(self, container: str, path: str, text: str) -> None:
        self.engine.exec(container, "sh", "-c", _WRITE, "sh", path, input=text)


def _last_error(said: str) -> str:
    """The line with which kubeadm ended, without the phase that it was in."""
    lines = [line for line in said.splitlines() if line.startswith(("error:", "error execution"))]
    last = (lines or said.strip().splitlines() or ["nothing"])[-1]
    return re.sub(r"^(error: )?(error execution phase \S+: )?", "", last)
