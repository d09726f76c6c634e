"""Cluster: what notebooks hold, whichever provider made it."""

from __future__ import annotations

import os
import subprocess
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from labkit import boxes
from labkit.cluster.care import NodeCare
from labkit.cluster.commands import CONTROLLER_MANAGER, CommandLine, in_pod
from labkit.cluster.phases import Listener, silent
from labkit.cluster.status import ClusterStatus, NodeInfo
from labkit.cluster.waiting import serves, wait_for
from labkit.errors import ClusterError, ConfigError, KubeError, LabkitError, WaitTimeout
from labkit.kube import Kube, NotFound, dig, quantity
from labkit.kube.objects import is_true
from labkit.tools import kubectl
from labkit.versions import UpstreamImage, versions

if TYPE_CHECKING:
    from labkit.cluster.join import Join
    from labkit.images import Image

_PROXY_S = 10.0


class Cluster(NodeCare):
    """A cluster that runs. Make one with `labkit.up()`.

    As a context manager it is torn down at the end of the block.

    Attributes:
        name: the cluster's name.
        provider: which provider made it.
    """

    provider: str = ""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<Cluster {self.name!r} ({self.provider})>"

    def _repr_html_(self) -> str:
        """Its status now; what keeps it from answering where it does not."""
        try:
            return self.status()._repr_html_()
        except LabkitError as err:
            return boxes.box(f"Cluster {self.name}", boxes.line(f"{err.message} {err.hint}"), state="failed")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    @classmethod
    @abstractmethod
    def prepare(cls, listener: Listener = silent) -> None:
        """Get what `up` needs from outside, which may take minutes, so that `up` need not."""

    @property
    @abstractmethod
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""

    @abstractmethod
    def status(self) -> ClusterStatus:
        """Components, nodes, memory and addresses at this moment."""

    @abstractmethod
    def down(self) -> None:
        """Stop the cluster and remove everything that belongs to it."""

    @abstractmethod
    def build_image(self, path: str | Path, tag: str, build_args: Mapping[str, str] | None = None) -> Image:
        """Build an image from the Dockerfile in a directory, so that pods can use it as `tag`.

        Args:
            build_args: values for the Dockerfile's ARGs.
        """

    @abstractmethod
    def provide_image(self, name: str, listener: Listener = silent) -> None:
        """Let pods use an upstream image under the name that upstream's manifests give it.

        Args:
            name: a key of versions.toml's table `images`.

        Raises:
            ConfigError: there is no such image there.
            AcquireError, MachineError, ImageError: it can neither be had nor made.
        """

    def image_gap(self) -> str:
        """Why pods cannot have images that are built on this machine, in one sentence; "" when they can."""
        return ""

    def underlying(self) -> Cluster:
        """The cluster that labkit itself runs here: this one, but for a context that leads to another one."""
        return self

    def controller_manager(self) -> CommandLine:
        """What the kube-controller-manager was started with, as far as it can be seen."""
        return in_pod(self.kube, CONTROLLER_MANAGER)

    @cached_property
    def kube(self) -> Kube:
        """The API, on the official client."""
        return Kube(self.kubeconfig, kubectl=kubectl())

    def kubectl(self, *args: str, input: str | None = None, check: bool = True) -> str:
        """Run kubectl against this cluster.

        Args:
            input: text for its standard input, e.g. with "apply", "-f", "-".
            check: whether a failure raises.

        Returns:
            Its standard output.

        Raises:
            KubeError: it failed; the message is what it said.
        """
        argv = [str(kubectl()), "--kubeconfig", str(self.kubeconfig), *args]
        done = subprocess.run(
            argv, input=input, stdin=None if input is not None else subprocess.DEVNULL,
            capture_output=True, text=True, env={**os.environ, **self._kubectl_env()}, check=False,
        )  # fmt: skip
        if check and done.returncode:
            said = done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"
            raise KubeError(f"kubectl {' '.join(args)}: {said}")
        return done.stdout

    def _kubectl_env(self) -> dict[str, str]:
        return {}

    def nodes(self) -> list[NodeInfo]:
        """The nodes, by name."""
        return self._node_infos(self.kube)

    def workers(self) -> list[NodeInfo]:
        """The nodes that take the pods of users; where the control plane has a node, that is none of them."""
        return [node for node in self.nodes() if not node.is_control_plane]

    @abstractmethod
    def shell(self, command: str | None = None) -> tuple[list[str], dict[str, str]]:
        """Program and environment of a shell that sees the cluster as a pod does.

        Raises:
            ClusterError: the cluster does not run, or the provider has no such place.
        """

    @abstractmethod
    def show_logs(self, component: str | None, *, follow: bool, tail: int) -> None:
        """Print the end of a component's log, or of all; with `follow` go on until interrupted.

        Raises:
            ConfigError: no such log; the message names those there are.
        """

    def _node_infos(self, kube: Kube) -> list[NodeInfo]:
        found = [_node_info(node) for node in kube.request("GET", "/api/v1/nodes")["items"]]
        return sorted(found, key=lambda node: _natural(node.name))

    def url(self, service: str, namespace: str = "default", port: int | str | None = None) -> str:
        """The URL at which this process reaches a Service.

        Where pods behind it are ready it answers when this returns: the Service proxy learns of a pod a
        moment after `wait` does.

        Args:
            port: number or name of one of its ports; its first one by default.

        Raises:
            ClusterError: there is no such Service or port, or it has no address of its own.
        """
        try:
            obj = self.kube.get("Service", service, namespace=namespace)
        except NotFound as err:
            names = ", ".join(s["metadata"]["name"] for s in self.kube.list("Service", namespace=namespace))
            raise ClusterError(
                f"There is no Service {service!r} in namespace {namespace!r}.",
                f"Services there: {names or 'none'}.",
            ) from err
        ports = dig(obj, "spec.ports", [])
        chosen = [p for p in ports if port in (None, p["port"], p.get("name"))][:1]
        if not chosen:
            offered = ", ".join(f"{p['port']} {p.get('name', '')}".strip() for p in ports)
            raise ClusterError(f"Service {service!r} has no port {port!r}.", f"It has: {offered or 'none'}.")
        scheme = "https" if chosen[0]["port"] == 443 or chosen[0].get("name") == "https" else "http"
        wanted = int(chosen[0]["port"])
        host, number = self._reach(obj, wanted)

        def settled() -> bool:
            return (self._leads_on(obj, wanted) and serves(host, number)) or not self._has_ready_pods(obj)

        with suppress(WaitTimeout):
            wait_for(settled, _PROXY_S, "")
        return f"{scheme}://{host}:{number}"

    def _has_ready_pods(self, service: dict[str, Any]) -> bool:
        labels = ",".join(f"{key}={value}" for key, value in dig(service, "spec.selector", {}).items())
        namespace = service["metadata"]["namespace"]
        pods = self.kube.list("Pod", namespace=namespace, labels=labels) if labels else []
        return any(is_true(pod, "Ready") for pod in pods)

    @abstractmethod
    def load_balancer_range(self) -> tuple[str, str]:
        """First and last address that a load balancer may give to Services of this cluster.

        Nothing else of the cluster or of this machine uses them, and this machine reaches them where it has a
        route to them at all (see `url`).

        Raises:
            ClusterError: the provider has no such range, or the cluster does not exist.
        """

    @abstractmethod
    def _reach(self, service: dict[str, Any], port: int) -> tuple[str, int]:
        """Host and port at which this process reaches a Service's port."""

    def _leads_on(self, service: dict[str, Any], port: int) -> bool:  # noqa: ARG002
        """Whether the Service proxy knows a pod for that port, as far as a connection does not show it."""
        return True

    @abstractmethod
    def add_worker(
        self,
        name: str | None = None,
        *,
        cpus: int | None = None,
        memory: str | None = None,
        labels: dict[str, str] | None = None,
        taints: list[str] | None = None,
        approve: bool = True,
        limit_s: float = 120.0,
        token: str | None = None,
        ca_cert_hash: str | None = None,
        server: str | None = None,
    ) -> Join:
        """Add a worker; iterate over what is returned to follow the join, step by step.

        Args:
            name: worker-N with the next number by default.
            cpus, memory: its size, as the cluster's other workers by default.
            labels, taints: at registration; taints as key=value:Effect.
            approve: False for a certificate request that waits for `kubectl certificate approve`.
            limit_s: the join fails when it takes longer.
            token: the bootstrap token to join with (see `join_token`), as `kubeadm join --token`; None for
                a new one.
            ca_cert_hash: the hash that the cluster's authority must have, as `kubeadm join
                --discovery-token-ca-cert-hash`; None for the right one.
            server: host:port at which the worker looks for the API server, the first argument of
                `kubeadm join`; None for the right one.

        With `token`, `ca_cert_hash` or `server` the worker finds the cluster by itself (discovery). When it
        comes to no trust the join ends with ClusterError, the worker is forgotten, and its name can be used
        again.
        """

    @abstractmethod
    def remove_worker(self, name: str, *, drain: bool = False) -> None:
        """Remove a worker: its pods, its processes, its files and its Node object."""

    @abstractmethod
    def stop_kubelet(self, name: str) -> None:
        """Stop a node's kubelet. Its pods run on."""

    @abstractmethod
    def start_kubelet(self, name: str) -> None:
        """Start a node's kubelet again; it takes over the pods it finds."""

    @abstractmethod
    def freeze(self, name: str) -> None:
        """Stop a node with everything on it in the midst of what it does, as a hung machine."""

    @abstractmethod
    def thaw(self, name: str) -> None:
        """Let a frozen node go on."""

    @abstractmethod
    def lose(self, name: str) -> None:
        """Lose a node at once, as by a power cut: kubelet and pods are gone."""

    @abstractmethod
    def restore(self, name: str) -> None:
        """Start a lost node again; its disk is as it was, its processes are gone."""


def _node_info(node: dict[str, Any]) -> NodeInfo:
    conditions = {c["type"]: c["status"] for c in dig(node, "status.conditions", [])}
    addresses = {a["type"]: a["address"] for a in dig(node, "status.addresses", [])}
    taints = [
        f"{t['key']}{'=' + t['value'] if t.get('value') else ''}:{t['effect']}"
        for t in dig(node, "spec.taints", [])
    ]
    return NodeInfo(
        name=node["metadata"]["name"],
        ready=conditions.get("Ready", "Unknown"),
        address=addresses.get("InternalIP", ""),
        kubelet_version=dig(node, "status.nodeInfo.kubeletVersion", ""),
        cpus=quantity(dig(node, "status.allocatable.cpu", "0")),
        memory_bytes=int(quantity(dig(node, "status.allocatable.memory", "0"))),
        schedulable=not dig(node, "spec.unschedulable", False),
        pod_cidr=dig(node, "spec.podCIDR", ""),
        taints=tuple(taints),
        labels=dict(dig(node, "metadata.labels", {})),
    )


def _natural(name: str) -> tuple[str, int]:
    stem = name.rstrip("0123456789")
    return stem, int(name[len(stem) :] or 0)


def check_options(given: dict[str, Any], known: Sequence[str]) -> None:
    """Refuse options that a provider does not know.

    Raises:
        ConfigError: names the unknown one and those there are.
    """
    for name in given:
        if name not in known:
            raise ConfigError(f"There is no option {name!r}.", f"Options: {', '.join(sorted(known))}.")


def upstream_image(name: str) -> UpstreamImage:
    """How an image of versions.toml is made.

    Raises:
        ConfigError: it is not there.
    """
    known = versions().images
    if name not in known:
        raise ConfigError(f"labkit does not know the image {name!r}.", f"It knows: {', '.join(known)}.")
    return known[name]
