"""`labkit up --provider kind`: create a cluster of node containers, or bring one back."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from labkit.cluster.bring_up import node_ready
from labkit.cluster.kind.binary import kind
from labkit.cluster.kind.config import Host, cluster_configuration
from labkit.cluster.kind.engine import OWN_LABEL, STATE_LABEL, Container, Engine
from labkit.cluster.kind.images import obtain
from labkit.cluster.kind.load import load
from labkit.cluster.kind.objects import added_objects
from labkit.cluster.kind.preflight import check_machine, check_name, look
from labkit.cluster.kind.progress import run_create
from labkit.cluster.kind.registry import choose, pull
from labkit.cluster.kind.state import (
    CONTROL_PLANE,
    KindDirectory,
    KindNode,
    KindOptions,
    KindState,
    check_images,
)
from labkit.cluster.kind.tear_down import remove_containers, tear_down
from labkit.cluster.kind.workers import Workers
from labkit.cluster.objects import apply_all
from labkit.cluster.phases import Listener, Step, phase
from labkit.cluster.state import check_options, settled
from labkit.cluster.waiting import wait_for
from labkit.errors import ClusterError, LabkitError, MachineError
from labkit.folders import write
from labkit.kube import Kube, NotFound
from labkit.versions import versions

_READY_S = 180.0
_API_S = 120.0


@dataclass(frozen=True)
class Parts:
    """What a cluster is made of.

    Attributes:
        program: kind.
        image: the nodes' image, as kind takes it.
        origin: where that came from, in words.
    """

    program: Path
    image: str
    origin: str


def wanted_images(options: KindOptions) -> str:
    """Where images come from: as asked for, else $LABKIT_IMAGES, else by what answers."""
    if options.images != "auto":
        return options.images
    return check_images(replace(options, images=os.environ.get("LABKIT_IMAGES") or "auto")).images


def get_parts(engine: Engine, wanted: str, listener: Listener) -> Parts:
    """The phase in which kind, the nodes' image and that of metrics-server are found, pulled or built."""
    with phase("binaries", listener, "looking for kind") as step:
        program = kind(step)
        step.tell("looking for the nodes' image")
        image, origin = node_image(engine, wanted, step, listener)
        if engine.image(versions().kind.metrics_server) is None:
            obtain(engine, versions().kind.metrics_server, wanted, listener)
        step.tell(f"kind {versions().kind.version}; nodes: {image.partition('@')[0]}, {origin}")
        return Parts(program, image, origin)


def node_image(engine: Engine, wanted: str, step: Step, listener: Listener) -> tuple[str, str]:
    """The nodes' image and where it came from; one that the engine has by its digest is not pulled again."""
    pinned = versions().kind.node_image
    repository, digest = pinned.partition("@")[0].rpartition(":")[0], pinned.partition("@")[2]
    if wanted != "airgap" and engine.image(f"{repository}@{digest}") is not None:
        return f"{repository}@{digest}", "official image"

    def built() -> str:
        from labkit import airgap

        made: str = airgap.node_image(listener)
        return made

    return choose(wanted, lambda: pull(engine, pinned, step.tell).name, built, step.note)


def bring_up(engine: Engine, directory: KindDirectory, listener: Listener, given: dict[str, Any]) -> None:
    """Create the cluster, or start what is missing of it.

    Args:
        given: options that were asked for; a resumed cluster must have been made with the same ones.

    Raises:
        ConfigError: an option is wrong, or another one than the cluster was made with.
        MachineError, AcquireError, ClusterError, WaitTimeout: it cannot start; nothing half-made runs on.
    """
    try:
        _bring_up(engine, directory, listener, given)
    except OSError as err:
        what = f"{err.filename or directory.path}: {err.strerror or err}"
        raise MachineError(f"The cluster's files cannot be written: {what}.", "See XDG_STATE_HOME.") from err


def _bring_up(engine: Engine, directory: KindDirectory, listener: Listener, given: dict[str, Any]) -> None:
    with ExitStack() as held:
        with phase("preflight", listener, "asking the Docker engine") as step:
            info = engine.info()
            held.enter_context(directory.locked(step.note))
            state = directory.read()
            made = state.options if state else KindOptions()
            options = settled(directory.name, made, given, ready=bool(state and state.ready))
            check_images(options)
            check_options(options)
            if not (state and state.ready):
                check_name(engine, directory)
                check_machine(look(info), options.workers)
                if directory.exists:
                    step.note("removing what an interrupted `up` left")
                    tear_down(engine, directory)
            doing = "resume" if state and state.ready else "create"
            step.tell(f"cluster {directory.name}: {doing}, Docker {info.get('ServerVersion', '')}".strip())
        if state and state.ready:
            Resume(engine, directory, state, Host.of(info), listener).run()
        else:
            Create(engine, directory, options, Host.of(info), listener).run()


class _Start:
    """What creating and resuming have in common."""

    def __init__(
        self, engine: Engine, directory: KindDirectory, state: KindState, host: Host, listener: Listener
    ) -> None:
        self.engine, self.directory, self.state = engine, directory, state
        self.host, self.listener = host, listener

    @property
    def kube(self) -> Kube:
        """The API as the administrator."""
        return Kube(self.directory.kubeconfig, patience_s=5)

    def workers(self) -> Workers:
        """What starts and joins workers."""
        return Workers(self.engine, self.directory, self.host)

    def containers(self) -> dict[str, Container]:
        """The node containers by name."""
        return {each.name: each for each in self.engine.containers(self.directory.kind_name)}

    def wait_for_nodes(self, names: list[str]) -> None:
        """The phase that ends when these nodes are Ready and take pods."""
        with phase("nodes", self.listener, f"waiting for {len(names)} nodes") as step:
            kube = self.kube
            for name in names:
                why = partial(self._why, name)
                wait_for(partial(node_ready, kube, name), _READY_S, f"{name} is Ready", why, every_s=0.2)
            step.tell(f"{len(names)} nodes Ready")

    def _why(self, name: str) -> str:
        return f"`labkit logs node-{name} -c {self.directory.name}` shows the log of its kubelet."


class Create(_Start):
    """A cluster that did not exist."""

    def __init__(
        self, engine: Engine, directory: KindDirectory, options: KindOptions, host: Host, listener: Listener
    ) -> None:
        name = directory.kind_name
        nodes = {
            f"worker-{n}": KindNode(f"{name}-worker{n if n > 1 else ''}", options.cpus, options.memory)
            for n in range(1, options.workers + 1)
        }
        state = KindState(directory.name, options, time.time(), nodes=nodes)
        super().__init__(engine, directory, state, host, listener)

    def run(self) -> None:
        """All phases; when one fails or is interrupted, no container is left."""
        parts = get_parts(self.engine, wanted_images(self.state.options), self.listener)
        self.state.image, self.state.origin = parts.image, parts.origin
        self.directory.create()
        self.directory.store(self.state)
        try:
            self._run(parts)
        except KeyboardInterrupt:
            tear_down(self.engine, self.directory)
            raise
        except BaseException:
            self._keep_logs()
            remove_containers(self.engine, self.directory)
            raise

    def _run(self, parts: Parts) -> None:
        with phase("network", self.listener, "making a network of its own") as step:
            subnet = self._network()
            self._note_size(step)
            step.tell(f"Docker network {self.directory.kind_name}, {subnet}")
        file = self.directory / "kind.yaml"
        write(file, cluster_configuration(self.state.options, self.state.nodes, self.host))
        argv = [
            "create", "cluster", "--name", self.directory.kind_name, "--image", parts.image, "--retain",
            "--config", str(file), "--kubeconfig", str(self.directory.kubeconfig),
        ]  # fmt: skip
        run_create(
            self.engine, parts.program, argv, self.directory.kind_name, self.directory.log, self.listener
        )
        self.directory.kubeconfig.chmod(0o600)
        self._remember_addresses()
        workers = self.workers()
        with phase("objects", self.listener, "metrics-server, who may join by hand") as step:
            image = versions().kind.metrics_server
            boxes = [self.directory.control_plane]
            load(self.engine, [image], boxes, step)
            count = apply_all(self.kube, added_objects(self.state.options, image))
            step.tell(f"{count} objects: metrics-server, roles for joining by hand")
        with phase("certificates", self.listener, "the kubelets ask for serving certificates") as step:
            nodes = {name: node.container for name, node in self.state.nodes.items()}
            workers.certify(self.kube, {CONTROL_PLANE: self.directory.control_plane, **nodes})
            step.tell(f"{len(nodes) + 1} serving certificates approved")
        self.wait_for_nodes([CONTROL_PLANE, *self.state.nodes])
        self._addons()
        self.state.ready = True
        self.directory.store(self.state)

    def _addons(self) -> None:
        with phase("addons", self.listener, "cluster DNS") as step:
            kube = self.kube
            dns = "/apis/apps/v1/namespaces/kube-system/deployments/coredns"
            there = partial(_has_ready, kube, dns)
            wait_for(there, _READY_S, "cluster DNS runs", every_s=0.2)
            account = "/api/v1/namespaces/default/serviceaccounts/default"
            wait_for(partial(kube.request, "GET", account), 30, "the default service account exists")
            step.tell("cluster DNS; metrics-server starts to collect")

    def _network(self) -> str:
        """Make the cluster's own network; returns its range."""
        name = self.directory.kind_name
        if self.engine.network(name) is None:
            own = ("--label", f"{OWN_LABEL}={self.directory.name}")
            whose = ("--label", f"{STATE_LABEL}={self.directory.path}")
            self.engine.run(
                "network", "create", "--driver", "bridge", *own, *whose, name, failure=_no_network
            )
        network = self.engine.network(name) or {}
        return str(network["IPAM"]["Config"][0]["Subnet"])

    def _note_size(self, step: Step) -> None:
        lacking = self.host.fits(self.state.options.cpus, self.state.options.memory)
        if lacking:
            step.note(f"a worker was asked to have {lacking}: it will have as much as that")

    def _remember_addresses(self) -> None:
        there = self.containers()
        self.state.address = there[self.directory.control_plane].address
        for node in self.state.nodes.values():
            node.address = there[node.container].address
        self.directory.store(self.state)

    def _keep_logs(self) -> None:
        """What the node containers wrote, for whoever looks for the reason."""
        with suppress(LabkitError):
            for each in self.containers().values():
                said = self.engine.attempt("logs", "--tail", "200", each.name).stdout
                write(self.directory / "logs" / f"{each.name}.log", said)


class Resume(_Start):
    """A cluster that was complete once."""

    def run(self) -> None:
        """Start what does not run; data and nodes are as they were, addresses may have changed."""
        with phase("resume", self.listener, "looking what runs") as step:
            there = self.containers()
            if self.directory.control_plane not in there:
                raise ClusterError(
                    f"The container {self.directory.control_plane} is gone, and with it the cluster's data.",
                    f"`labkit down {self.directory.name}`, then `labkit up` makes a new one.",
                )
            lost = {node.container for node in self.state.nodes.values() if node.lost}
            started = [
                start(self.engine, each) for each in _first_control_plane(there) if each.name not in lost
            ]
            kube = self.kube
            ready = partial(kube.request, "GET", "/readyz")
            wait_for(lambda: ready() == "ok", _API_S, "the API server is ready", self._log_hint, every_s=0.3)
            step.tell(
                f"{sum(started)} of {len(there)} containers started" if any(started) else "it runs already"
            )
        self._certify_moved()
        self._rejoin([name for name, node in self.state.nodes.items() if self._is_gone(name, node, there)])
        self.wait_for_nodes([CONTROL_PLANE, *(n for n, node in self.state.nodes.items() if not node.lost)])

    def _log_hint(self) -> str:
        return f"`docker logs {self.directory.control_plane}` shows what its machine wrote."

    def _is_gone(self, name: str, node: KindNode, there: dict[str, Container]) -> bool:
        if node.lost:
            return False
        return node.container not in there or self.kube.find("Node", name) is None

    def _certify_moved(self) -> None:
        """Containers that came back with another address need another serving certificate."""
        now, moved = self.containers(), {}
        was = {CONTROL_PLANE: (self.directory.control_plane, self.state.address)}
        was |= {
            name: (node.container, node.address) for name, node in self.state.nodes.items() if not node.lost
        }
        for name, (container, address) in was.items():
            if container in now and now[container].address != address:
                moved[name] = container
        if not moved:
            return
        with phase("certificates", self.listener, "addresses have changed") as step:
            note_addresses(self.engine, self.directory)
            with suppress(LabkitError):  # the API answers without; metrics of that node are missing
                self.workers().certify(self.kube, moved)
            step.tell(f"new addresses of {', '.join(moved)}")

    def _rejoin(self, names: list[str]) -> None:
        workers = self.workers()
        for name in names:
            with phase(f"join {name}", self.listener, "its container is gone: a new one joins") as step:
                step.note(f"{name}'s container is gone; what was on its disk is lost")
                with suppress(NotFound):
                    self.kube.request("DELETE", f"/api/v1/nodes/{name}")
                for seen in workers.join(self.kube, name, self.state.nodes[name], self.state.image):
                    step.tell(seen.name)
                step.tell("Ready")


def start(engine: Engine, container: Container) -> bool:
    """Let a node container run; whether it did not before."""
    if container.state == "running":
        return False
    engine.run("unpause" if container.state == "paused" else "start", container.name)
    return True


def note_addresses(engine: Engine, directory: KindDirectory) -> None:
    """Write down the addresses that the containers have now."""
    there = {each.name: each.address for each in engine.containers(directory.kind_name)}
    with directory.changed() as state:
        state.address = there.get(directory.control_plane) or state.address
        for node in state.nodes.values():
            node.address = there.get(node.container) or node.address


def _first_control_plane(there: dict[str, Container]) -> list[Container]:
    return sorted(there.values(), key=lambda each: (each.role != CONTROL_PLANE, each.name))


def _has_ready(kube: Kube, path: str) -> bool:
    status: dict[str, Any] = kube.request("GET", path).get("status") or {}
    return bool(status.get("readyReplicas"))


def _no_network(said: str) -> LabkitError:
    if "could not find an available" in said or "non-overlapping" in said:
        return MachineError(
            "Docker has no free address range for another network.",
            "`docker network ls` lists them, `docker network prune` removes those that nothing uses.",
        )
    return ClusterError(f"Docker cannot make the cluster's network: {said}")
