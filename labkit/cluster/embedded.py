"""The embedded provider: upstream components as processes of the user, with pods as processes too."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from labkit.acquire import Binaries, cached
from labkit.cluster import bring_up, kubelet
from labkit.cluster.addresses import MACHINES, Slot, served_port, service_at
from labkit.cluster.base import Cluster, check_options
from labkit.cluster.care import NODE_MONITOR_GRACE_S, NODE_MONITOR_PERIOD_S, last_lines
from labkit.cluster.commands import CONTROLLER_MANAGER, CommandLine, running
from labkit.cluster.components import PORTS, log_file
from labkit.cluster.credentials import server_url
from labkit.cluster.discovery import check_hash, check_server
from labkit.cluster.join import Join, Token
from labkit.cluster.phases import Listener, phase, silent
from labkit.cluster.processes import continue_all, kill_all, memory_bytes, node_processes, pid_list, stop_all
from labkit.cluster.show import show_logs
from labkit.cluster.state import Directory, Node, Options, State, check_name, check_size, cluster_names
from labkit.cluster.state import check_options as check_settings
from labkit.cluster.status import ClusterStatus, ComponentStatus, NodeInfo
from labkit.cluster.supervisor import NoComponent, NotRunning, Process, Supervisor
from labkit.cluster.tear_down import tear_down
from labkit.errors import AcquireError, ClusterError, KubeError
from labkit.images import default_root
from labkit.kube import Kube
from labkit.kube.direct import no_proxy
from labkit.tools import kubectl
from labkit.versions import versions

if TYPE_CHECKING:
    from labkit.images import Image

_STATUS_S = 2.0


class EmbeddedCluster(Cluster):
    """A cluster of this machine's processes.

    Options of `up` are the fields of `labkit.cluster.state.Options`.
    """

    provider = "embedded"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.directory = Directory(name)
        self._supervisor = Supervisor(self.directory)

    @classmethod
    def prepare(cls, listener: Listener = silent) -> None:
        """Find, download or build the cluster's programs."""
        bring_up.get_binaries(listener)

    @classmethod
    def up(cls, name: str, listener: Listener = silent, **options: Any) -> Self:
        """Create the cluster, or start what is missing of it; complete when it returns."""
        check_options(options, [field.name for field in fields(Options)])
        cluster = cls(name)
        bring_up.bring_up(cluster.directory, listener, options)
        return cluster

    @classmethod
    def open(cls, name: str) -> Self:
        """A cluster that exists, running or not.

        Raises:
            ClusterError: there is none.
        """
        cluster = cls(name)
        if not cluster.directory.exists:
            names = ", ".join(cluster_names()) or "none"
            raise ClusterError(
                f"There is no cluster {name!r}.", f"Clusters: {names}. `labkit up {name}` makes it."
            )
        cluster.directory.check_is_labkits()
        return cluster

    @property
    def kubeconfig(self) -> Path:
        """admin.kubeconfig in the cluster's directory."""
        return self.directory.kubeconfig

    def _kubectl_env(self) -> dict[str, str]:
        return {"KUBECACHEDIR": str(self.directory / "kubectl-cache")}

    def down(self) -> None:
        """End all processes of the cluster and remove its directory."""
        with self.directory.locked(partial(print, file=sys.stderr, flush=True)):
            tear_down(self.directory)
        self.__dict__.pop("kube", None)

    def build_image(self, path: str | Path, tag: str, build_args: Mapping[str, str] | None = None) -> Image:
        """Build a bundle from a Dockerfile; see `labkit image build`."""
        from labkit.images import build

        return build(path, tag, build_args=build_args)

    def provide_image(self, name: str, listener: Listener = silent) -> None:
        """Make a bundle of the image's program."""
        from labkit.cluster.upstream import make_bundle

        with phase("image", listener, name) as step:
            make_bundle(name, step.tell)
            step.tell(name)

    def shell(self, command: str | None = None) -> tuple[list[str], dict[str, str]]:
        """Program and environment of a shell that sees the cluster as a pod does.

        Raises:
            NotRunning: the cluster does not run.
        """
        slot, _ = self._supervisor.status()
        program = os.environ.get("SHELL") or "/bin/sh"
        table = f"--services={self.directory / 'services.json'}"
        argv = [str(self._binaries().shim), "run", "--slot", str(slot), table, "--", program]
        env = {
            **os.environ,
            "KUBECONFIG": str(self.kubeconfig),
            "PATH": f"{kubectl().parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "LABKIT_CLUSTER": self.name,
            **self._kubectl_env(),
            **no_proxy(os.environ),
        }
        return ([*argv, "-c", command] if command is not None else argv), env

    def controller_manager(self) -> CommandLine:
        """See Cluster.controller_manager. It is a process here."""
        _, processes = self._supervisor.status()
        pids = (each.pid for each in processes if each.name == CONTROLLER_MANAGER and each.pid)
        return next((running(pid, CONTROLLER_MANAGER) for pid in pids), CommandLine())

    def show_logs(self, component: str | None, *, follow: bool, tail: int) -> None:
        """Of each component the file in its directory."""
        show_logs(self.directory, component, follow=follow, tail=tail)

    def status(self) -> ClusterStatus:
        """Read from the supervisor, the API and /proc."""
        try:
            state, unknown = self.directory.load(), "incomplete"
        except ClusterError:
            state, unknown = None, "damaged"
        if state is None:
            return ClusterStatus(
                self.name, self.provider, unknown, versions().kubernetes, self.directory.path
            )
        try:
            _, processes = self._supervisor.status()
        except NotRunning:
            processes = []
        nodes = self._nodes_now() if processes else []
        components = tuple(self._component(process) for process in processes)
        slot = Slot(state.slot)
        healthy = all(p.state == "running" for p in processes) and all(n.ready == "True" for n in nodes)
        now = "stopped" if state.ready else "incomplete"
        if processes:
            now = "running" if healthy and len(nodes) == len(state.nodes) else "degraded"
        return ClusterStatus(
            name=self.name, provider=self.provider, state=now,
            version=versions().kubernetes, directory=self.directory.path, components=components,
            uptime_s=max((c.uptime_s for c in components), default=0.0), nodes=tuple(nodes),
            urls=_urls(slot),
        )  # fmt: skip

    def _nodes_now(self) -> list[NodeInfo]:
        try:
            hasty = Kube(self.kubeconfig, patience_s=_STATUS_S)
            return self._node_infos(hasty)
        except KubeError:
            return []

    def _component(self, process: Process) -> ComponentStatus:
        pids = {process.pid} - {0}
        if node := kubelet.node_of(process.name):
            pids |= {one.pid for one in node_processes(self.directory, node)}
        uptime = max(0.0, time.time() - process.started_at) if process.pid else 0.0
        return ComponentStatus(
            name=process.name, state=process.state, pid=process.pid, restarts=process.restarts,
            uptime_s=uptime, memory_bytes=memory_bytes(pids), last_exit=process.last_exit,
        )  # fmt: skip

    def _reach(self, service: dict[str, Any], port: int) -> tuple[str, int]:
        address = service["spec"].get("clusterIP", "")
        if address in ("", "None"):
            name = service["metadata"]["name"]
            raise ClusterError(
                f"Service {name!r} has no address of its own.", "Headless Services have only DNS names."
            )
        return service_at(address, port)

    def load_balancer_range(self) -> tuple[str, str]:
        """127.240.SLOT.1 to 127.240.SLOT.254."""
        pool = Slot(self._state().slot).load_balancer_cidr
        return str(pool[1]), str(pool[254])

    def add_worker(
        self, name: str | None = None, *, cpus: int | None = None, memory: str | None = None,
        labels: dict[str, str] | None = None, taints: list[str] | None = None, approve: bool = True,
        limit_s: float = 120.0, token: str | None = None, ca_cert_hash: str | None = None,
        server: str | None = None,
    ) -> Join:  # fmt: skip
        """See Cluster.add_worker."""
        given = Token.parse(token) if token is not None else None
        pin = check_hash(ca_cert_hash) if ca_cert_hash is not None else None
        where = check_server(server) if server is not None else None
        with self.directory.change() as state:
            machine = _free_machine(state)
            chosen = check_name(name or f"worker-{machine}")
            if chosen in state.nodes:
                raise ClusterError(
                    f"There is a node {chosen!r} already.", f"Nodes: {', '.join(state.nodes)}."
                )
            options = state.options
            node = Node(machine, cpus or options.cpus, memory or options.memory, labels or {}, taints or [])
            check_size(node.cpus, node.memory)
            kubelet.configuration(self.directory, Slot(state.slot), chosen, node)  # refuses what cannot be
            state.nodes[chosen] = node
        return bring_up.start_join(
            self.kube, self.directory, state, chosen, self._binaries(),
            approve=approve, limit_s=limit_s, token=given, ca_cert_hash=pin, server=where,
        )  # fmt: skip

    def remove_worker(self, name: str, *, drain: bool = False) -> None:
        """Remove a worker: its pods, its processes, its files and its Node object.

        Args:
            drain: first move its pods elsewhere, as `kubectl drain` does; else they are lost.
        """
        _, node = self._node(name)
        if drain:
            self._drain(name)
        component = kubelet.component_name(name)
        self._forgiving(lambda: self._supervisor.stop(component, "KILL", 5))
        self._kill_pods(name)
        self._forgiving(lambda: self._supervisor.remove(component))
        self._delete_node(name)
        with self.directory.change() as state:
            state.nodes.pop(name, None)
        for folder in (self.directory.node(name), self.directory.kubelet_root(node.machine)):
            shutil.rmtree(folder, ignore_errors=True)

    def stop_kubelet(self, name: str) -> None:
        """Stop a node's kubelet by SIGTERM. Its pods run on."""
        self._node(name)
        self._supervisor.stop(kubelet.component_name(name), "TERM", 5)

    def start_kubelet(self, name: str) -> None:
        """Start a node's kubelet again; it takes over the pods it finds."""
        state, node = self._node(name)
        made = kubelet.component(
            self.directory, Slot(state.slot), name, node, self._binaries(), default_root()
        )
        self._supervisor.apply([made.request(self.directory)])

    def freeze(self, name: str) -> None:
        """Stop a node with everything on it (SIGSTOP), as a hung machine."""
        self._node(name)
        self._signal(name, "STOP")
        stop_all(lambda: node_processes(self.directory, name))

    def thaw(self, name: str) -> None:
        """Let a frozen node go on."""
        self._node(name)
        continue_all(lambda: node_processes(self.directory, name))
        self._signal(name, "CONT")

    def lose(self, name: str) -> None:
        """Kill a node's kubelet and everything on it, as a power cut does; `labkit up` leaves it so."""
        self._node(name)
        with self.directory.change() as state:
            state.nodes[name].lost = True
        self._supervisor.stop(kubelet.component_name(name), "KILL", 5)
        self._kill_pods(name)

    def restore(self, name: str) -> None:
        """Start a lost node again; its disk is as it was, its processes are gone."""
        self._node(name)
        with self.directory.change() as state:
            state.nodes[name].lost = False
        self.start_kubelet(name)

    def kubelet_config(self, name: str) -> dict[str, Any]:
        """A node's KubeletConfiguration, as its file has it."""
        self._node(name)
        return kubelet.read_configuration(self.directory, name)

    def configure_kubelet(self, name: str, changes: Mapping[str, Any] | None = None) -> None:
        """See Cluster.configure_kubelet. A lost node's file is changed, its kubelet not started."""
        state, node = self._node(name)
        kubelet.write_configuration(self.directory, Slot(state.slot), name, node, changes)
        if not node.lost:
            self._forgiving(lambda: self._supervisor.stop(kubelet.component_name(name), "TERM", 5))
            self.start_kubelet(name)

    def kubelet_log(self, name: str, lines: int = 20, matching: str = "") -> str:
        """See Cluster.kubelet_log. A join's discovery is in it too, also one that failed."""
        try:
            with log_file(self.directory, kubelet.component_name(name)).open(errors="replace") as stream:
                return last_lines(stream, lines, matching)
        except OSError as err:
            raise ClusterError(f"The kubelet of {name} has written no log.") from err

    def tune_node_monitor(
        self, grace_s: int = NODE_MONITOR_GRACE_S, period_s: int = NODE_MONITOR_PERIOD_S
    ) -> None:
        """See Cluster.tune_node_monitor."""
        with self.directory.change() as state:
            wanted = replace(state.options, node_monitor_grace_s=grace_s, node_monitor_period_s=period_s)
            state.options = check_settings(wanted)
        bring_up.restart_controller_manager(self.directory, state, self._binaries())

    def _state(self) -> State:
        state = self.directory.load()
        if state is None:
            raise ClusterError(
                f"Cluster {self.name!r} was not completely created.",
                f"`labkit up {self.name}` does it again, `labkit down {self.name}` removes it.",
            )
        return state

    def _node(self, name: str) -> tuple[State, Node]:
        state = self._state()
        if name not in state.nodes:
            raise ClusterError(f"There is no node {name!r}.", f"Nodes: {', '.join(state.nodes) or 'none'}.")
        return state, state.nodes[name]

    def _signal(self, name: str, signal: str) -> None:
        """Send a signal to a node's kubelet, if it runs."""
        with suppress(NoComponent):
            self._supervisor.signal(kubelet.component_name(name), signal)

    def _kill_pods(self, name: str) -> None:
        left = kill_all(lambda: node_processes(self.directory, name))
        if left:
            raise ClusterError(f"Processes {pid_list(left)} on {name} do not end, not even by SIGKILL.")

    def _binaries(self) -> Binaries:
        """Those of this version of labkit, without building."""
        found = cached()
        if found is None:
            raise AcquireError(
                "The cluster's programs are not in the cache any more.", f"labkit up {self.name}"
            )
        return found

    def _forgiving(self, act: Callable[[], object]) -> None:
        """What is gone already need not be removed."""
        with suppress(NotRunning, NoComponent, KubeError):
            act()


def _urls(slot: Slot) -> dict[str, str]:
    """Where the control plane's parts answer."""
    host = f"https://{slot.control_plane.served}"
    ports = {
        f"{name.removeprefix('kube-')}": PORTS[name][0]
        for name in ("kube-controller-manager", "kube-scheduler")
    }
    doors = {name: f"{host}:{port}" for name, port in ports.items()}
    return {"api": server_url(slot), **doors, "dns": f"{slot.dns}:{served_port(slot.dns, 53)}"}


def _free_machine(state: State) -> int:
    """The lowest machine number that no worker has."""
    used = {node.machine for node in state.nodes.values()}
    free = next((number for number in range(1, MACHINES + 1) if number not in used), None)
    if free is None:
        raise ClusterError(f"The cluster has {MACHINES} workers, as many as there is room for.")
    return free
