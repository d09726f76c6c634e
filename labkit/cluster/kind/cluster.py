"""KindCluster: what notebooks hold, on nodes that are containers of a Docker engine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from functools import cached_property, partial
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from labkit.cluster.base import Cluster, check_options
from labkit.cluster.care import NODE_MONITOR_GRACE_S, NODE_MONITOR_PERIOD_S
from labkit.cluster.forward import Forwards
from labkit.cluster.join import Join
from labkit.cluster.kind import care
from labkit.cluster.kind.config import Host
from labkit.cluster.kind.create import bring_up, get_parts, note_addresses, start, wanted_images
from labkit.cluster.kind.engine import Container, Engine, exec_argv
from labkit.cluster.kind.images import build, obtain
from labkit.cluster.kind.load import load
from labkit.cluster.kind.reach import Relay, has_route
from labkit.cluster.kind.state import CONTROL_PLANE, KindDirectory, KindNode, KindOptions, KindState
from labkit.cluster.kind.status import read_status
from labkit.cluster.kind.tear_down import tear_down
from labkit.cluster.kind.workers import Given, Workers
from labkit.cluster.kubelet import taints as check_taints
from labkit.cluster.phases import Listener, Step, phase, silent
from labkit.cluster.state import check_name, check_size
from labkit.cluster.state import check_options as check_settings
from labkit.cluster.status import ClusterStatus
from labkit.errors import ClusterError, ConfigError, LabkitError
from labkit.kube import dig

if TYPE_CHECKING:
    from labkit.images import Image

_POOL = 250
_SHELL = """
printf 'nameserver %s\\noptions ndots:5\\n' "$1" >/run/labkit-resolv.conf
echo search default.svc.cluster.local svc.cluster.local cluster.local >>/run/labkit-resolv.conf
mount --bind /run/labkit-resolv.conf /etc/resolv.conf
shift
exec "$@"
"""


class KindCluster(Cluster):
    """A cluster of node containers.

    Options of `up` are the fields of `labkit.cluster.kind.state.KindOptions`.
    """

    provider = "kind"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.directory = KindDirectory(name)
        self.engine = Engine()

    @classmethod
    def prepare(cls, listener: Listener = silent) -> None:
        """Get kind and the images that `up` needs, and ask the engine before that."""
        engine = Engine()
        engine.info()
        get_parts(engine, wanted_images(KindOptions()), listener)

    @classmethod
    def up(cls, name: str, listener: Listener = silent, **options: Any) -> Self:
        """Create the cluster, or start what is missing of it; complete when it returns."""
        check_options(options, [field.name for field in fields(KindOptions)])
        cluster = cls(name)
        bring_up(cluster.engine, cluster.directory, listener, options)
        return cluster

    @classmethod
    def open(cls, name: str) -> Self:
        """A cluster that exists, running or not.

        Raises:
            ClusterError: there is none.
        """
        cluster = cls(name)
        if cluster.directory.read() is None:
            raise ClusterError(f"There is no cluster {name!r} of kind.", f"`labkit up {name}` makes it.")
        return cluster

    @property
    def kubeconfig(self) -> Path:
        """admin.kubeconfig in the cluster's directory."""
        return self.directory.kubeconfig

    def status(self) -> ClusterStatus:
        """Read from the engine and the API."""
        return read_status(self)

    def down(self) -> None:
        """Remove the cluster's containers, its network and its directory."""
        with self.directory.locked(partial(print, file=sys.stderr, flush=True)):
            self._forwards.close()
            tear_down(self.engine, self.directory)
        self.__dict__.pop("kube", None)

    def build_image(self, path: str | Path, tag: str, build_args: Mapping[str, str] | None = None) -> Image:
        """`docker build`, then the image is loaded into the workers."""
        image = build(self.engine, path, tag, build_args, self.wanted_images, silent)
        self.load_images(image.tags[:1], Step("image", silent, ""))
        return image

    def provide_image(self, name: str, listener: Listener = silent) -> None:
        """Pull or build an upstream image, and load it into the nodes."""
        obtain(self.engine, name, self.wanted_images, listener)
        with phase("image", listener, name) as step:
            self.load_images([name], step, everywhere=True)
            step.tell(f"{name} is on all nodes")

    @property
    def wanted_images(self) -> str:
        """Where images come from: registry, airgap, or auto for the registry where it answers."""
        return wanted_images(self._state().options)

    def load_images(self, names: Sequence[str], step: Step, *, everywhere: bool = False) -> None:
        """Load images that Docker has into the workers that run, and into those that come later.

        Args:
            everywhere: into the control plane's node too.

        Raises:
            ImageError: Docker has no such image.
            ClusterError, MachineError: a node does not take it.
        """
        state = self._state()
        up = {
            each.name for each in self.engine.containers(self.directory.kind_name) if each.state == "running"
        }
        boxes = [node.container for node in state.nodes.values() if node.container in up]
        if everywhere and self.directory.control_plane in up:
            boxes.append(self.directory.control_plane)
        load(self.engine, names, boxes, step)
        with self.directory.changed() as now:
            now.images += [name for name in names if name not in now.images]

    def load_balancer_range(self) -> tuple[str, str]:
        """The last 250 addresses of the cluster's own network (the last quarter of a small one).

        Docker gives addresses to containers from the network's beginning.
        """
        network = self.engine.network(self.directory.kind_name)
        if network is None:
            raise ClusterError(f"Cluster {self.name!r} has no network.", f"labkit up {self.name}")
        subnet = IPv4Network(network["IPAM"]["Config"][0]["Subnet"])
        last = subnet.broadcast_address - 1
        return str(IPv4Address(int(last) - min(_POOL, subnet.num_addresses // 4) + 1)), str(last)

    def _reach(self, service: dict[str, Any], port: int) -> tuple[str, int]:
        meta, address = service["metadata"], dig(service, "spec.clusterIP", "")
        if address in ("", "None"):
            raise ClusterError(
                f"Service {meta['name']!r} has no address of its own.",
                "Headless Services have only DNS names.",
            )
        node = self._routed_control_plane()
        if not node:
            return self._forwards.to(meta["namespace"], f"service/{meta['name']}", port)
        given = [entry["ip"] for entry in dig(service, "status.loadBalancer.ingress", []) if entry.get("ip")]
        return (given[0], port) if given else (node, self._relay.port(address, port))

    def _leads_on(self, service: dict[str, Any], port: int) -> bool:
        address = dig(service, "spec.clusterIP", "")
        return not self._routed_control_plane() or self._relay.leads_on(address, port)

    @cached_property
    def _relay(self) -> Relay:
        return Relay(self.engine, self.directory.control_plane)

    @cached_property
    def _forwards(self) -> Forwards:
        return Forwards(self.kubeconfig)

    def _routed_control_plane(self) -> str:
        """The control plane's address, "" without a route to it; asked anew where nobody answers any more."""
        if not has_route(self._state().address):
            self._relay.forget()
            note_addresses(self.engine, self.directory)
            if not has_route(self._state().address):
                return ""
        return self._state().address

    def component_urls(self) -> dict[str, str]:
        """Where scheduler and controller manager answer; forwarded where there is no route."""
        ports = {"controller-manager": 10257, "scheduler": 10259}
        node = self._routed_control_plane()
        if node:
            return {name: f"https://{node}:{port}" for name, port in ports.items()}
        return {
            name: "https://{}:{}".format(
                *self._forwards.to("kube-system", f"pod/kube-{name}-{CONTROL_PLANE}", port)
            )
            for name, port in ports.items()
        }

    def add_worker(
        self, name: str | None = None, *, cpus: int | None = None, memory: str | None = None,
        labels: dict[str, str] | None = None, taints: list[str] | None = None, approve: bool = True,
        limit_s: float = 120.0, token: str | None = None, ca_cert_hash: str | None = None,
        server: str | None = None,
    ) -> Join:  # fmt: skip
        """See Cluster.add_worker; a size that the machine has not got is refused."""
        given = Given.parse(token, ca_cert_hash, server)
        with self.directory.changed() as state:
            chosen = check_name(name or _free_name(state))
            if chosen in (*state.nodes, CONTROL_PLANE):
                names = ", ".join([CONTROL_PLANE, *state.nodes])
                raise ClusterError(f"There is a node {chosen!r} already.", f"Nodes: {names}.")
            size = (cpus or state.options.cpus, memory or state.options.memory)
            check_size(*size)
            check_taints(taints or [])
            lacking = self._host.fits(*size)
            if lacking and (cpus or memory):
                raise ConfigError(
                    f"A worker cannot have {lacking}.", "The nodes share the machine of the engine."
                )
            container = f"{self.directory.kind_name}-{chosen}"
            state.nodes[chosen] = KindNode(container, *size, labels=labels or {}, taints=taints or [])
        node, image = state.nodes[chosen], state.image
        return self._workers.join(
            self.kube, chosen, node, image, approve=approve, limit_s=limit_s, given=given
        )

    def remove_worker(self, name: str, *, drain: bool = False) -> None:
        """Remove a worker: its container with all that is in it, its pods, and its Node object.

        Args:
            drain: first move its pods elsewhere, as `kubectl drain` does; else they are lost.
        """
        self._node(name)
        if drain:
            self._drain(name)
        box = self._container(name)
        if box is not None:
            if box.state == "paused":
                self.engine.run("unpause", box.name)
            self.engine.run("rm", "--force", "--volumes", box.name, limit_s=120)
        self._delete_node(name)
        with self.directory.changed() as state:
            state.nodes.pop(name, None)

    def stop_kubelet(self, name: str) -> None:
        """`systemctl stop kubelet` in the node. Its pods run on."""
        self.engine.exec(self._node(name).container, "systemctl", "stop", "kubelet")

    def start_kubelet(self, name: str) -> None:
        """`systemctl start kubelet` in the node; it takes over the pods it finds."""
        self.engine.exec(self._node(name).container, "systemctl", "start", "kubelet")

    def freeze(self, name: str) -> None:
        """`docker pause`: every process of the node stops where it is."""
        self.engine.run("pause", self._node(name).container)

    def thaw(self, name: str) -> None:
        """`docker unpause`; nothing where the node is not frozen."""
        box = self._container(name)
        if box is not None and box.state == "paused":
            self.engine.run("unpause", box.name)

    def lose(self, name: str) -> None:
        """`docker kill`, as a power cut; `labkit up` leaves it so."""
        node = self._node(name)
        with self.directory.changed() as state:
            state.nodes[name].lost = True
        with suppress(ClusterError):  # it does not run
            self.engine.run("kill", node.container)

    def restore(self, name: str) -> None:
        """`docker start`; where it comes back with another address, its kubelet gets another certificate."""
        node = self._node(name)
        with self.directory.changed() as state:
            state.nodes[name].lost = False
        box = self._container(name)
        if box is None:
            raise ClusterError(
                f"The container of {name} is gone.", f"`labkit up {self.name}` joins a new one."
            )
        start(self.engine, box)
        note_addresses(self.engine, self.directory)
        if self._node(name).address != node.address:
            with suppress(LabkitError):
                self._workers.certify(self.kube, {name: node.container})

    def kubelet_config(self, name: str) -> dict[str, Any]:
        """A node's KubeletConfiguration, as its file has it."""
        return care.configuration(self.engine, self._node(name).container)

    def configure_kubelet(self, name: str, changes: Mapping[str, Any] | None = None) -> None:
        """See Cluster.configure_kubelet; the node's container must run."""
        care.configure(self.engine, self._node(name).container, changes)

    def kubelet_log(self, name: str, lines: int = 20, matching: str = "") -> str:
        """See Cluster.kubelet_log. What kubeadm said when a join failed is in it too."""
        box = self._container(name) if name in self._state().nodes else None
        return care.log(self.engine, box, self.directory.join_log(name), lines, matching)

    def tune_node_monitor(
        self, grace_s: int = NODE_MONITOR_GRACE_S, period_s: int = NODE_MONITOR_PERIOD_S
    ) -> None:
        """See Cluster.tune_node_monitor. The controller manager is a static pod."""
        with self.directory.changed() as state:
            wanted = replace(state.options, node_monitor_grace_s=grace_s, node_monitor_period_s=period_s)
            check_settings(wanted)
            state.options = wanted
        care.tune_node_monitor(self.engine, self.directory.control_plane, self.kube, grace_s, period_s)

    def show_logs(self, component: str | None, *, follow: bool, tail: int) -> None:
        """Of node-NAME the kubelet's journal, of the control plane's components their pods' logs."""
        names = [component] if component else [f"node-{name}" for name in self._boxes()]
        for name in names:
            argv = self._log_command(name, follow=follow and bool(component), tail=tail)
            if not component:
                print(f"== {name}", flush=True)
            subprocess.run(argv, stdin=subprocess.DEVNULL, check=False)

    def _log_command(self, component: str, *, follow: bool, tail: int) -> list[str]:
        boxes = self._boxes()
        node = component.removeprefix("node-")
        if component.startswith("node-") and node in boxes:
            journal = ["journalctl", "-u", "kubelet", "--no-pager", "-o", "cat", "-n", str(tail)]
            return exec_argv(self.engine, boxes[node], [*journal, *(["-f"] if follow else [])])
        pods = self.kube.list("Pod", namespace="kube-system")
        names = sorted(pod["metadata"]["name"] for pod in pods)
        pod = next((p for p in names if p == component or p.startswith(f"{component}-")), "")
        if not pod:
            known = ", ".join([*(f"node-{box}" for box in boxes), *names])
            raise ConfigError(f"There is no log of {component!r}.", f"Logs: {known}.")
        from labkit.tools import kubectl

        argv = [str(kubectl()), "--kubeconfig", str(self.kubeconfig), "-n", "kube-system", "logs", pod]
        return [*argv, f"--tail={tail}", *(["-f"] if follow else [])]

    def shell(self, command: str | None = None) -> tuple[list[str], dict[str, str]]:
        """A shell on the control plane's machine, with names and addresses as a pod has them."""
        dns = self.kube.get("Service", "kube-dns", namespace="kube-system")["spec"]["clusterIP"]
        inner = ["bash", "-c", command] if command is not None else ["bash", "-l"]
        terminal = command is None and sys.stdin.isatty()
        argv = ["unshare", "--mount", "sh", "-c", _SHELL, "sh", dns, *inner]
        box = self.directory.control_plane
        return exec_argv(self.engine, box, argv, terminal=terminal), dict(os.environ)

    def _container(self, name: str) -> Container | None:
        wanted = self._node(name).container
        there = self.engine.containers(self.directory.kind_name)
        return next((each for each in there if each.name == wanted), None)

    def _boxes(self) -> dict[str, str]:
        """Node → container."""
        nodes = {name: node.container for name, node in self._state().nodes.items()}
        return {CONTROL_PLANE: self.directory.control_plane, **nodes}

    @cached_property
    def _host(self) -> Host:
        return Host.of(self.engine.info())

    @property
    def _workers(self) -> Workers:
        return Workers(self.engine, self.directory, self._host)

    def _state(self) -> KindState:
        state = self.directory.read()
        if state is None or not state.ready:
            raise ClusterError(
                f"Cluster {self.name!r} was not completely created.",
                f"`labkit up {self.name}` does it again, `labkit down {self.name}` removes it.",
            )
        return state

    def _node(self, name: str) -> KindNode:
        nodes = self._state().nodes
        if name not in nodes:
            raise ClusterError(f"There is no worker {name!r}.", f"Workers: {', '.join(nodes) or 'none'}.")
        return nodes[name]


def _free_name(state: KindState) -> str:
    """worker-N with the lowest number that no worker has."""
    return next(f"worker-{n}" for n in range(1, len(state.nodes) + 2) if f"worker-{n}" not in state.nodes)
