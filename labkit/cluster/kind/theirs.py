"""A kind cluster that somebody made with `kind create cluster` on this machine's Docker.

Its nodes get images as those of labkit's own kind clusters do, and its Services are reached through
NodePorts. Nothing else of it is changed, and nothing else of Docker's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.cluster.kind.create import wanted_images
from labkit.cluster.kind.engine import Container, Engine
from labkit.cluster.kind.images import build, obtain
from labkit.cluster.kind.load import load
from labkit.cluster.kind.state import KindOptions
from labkit.cluster.phases import Listener, Step, phase, silent
from labkit.cluster.waiting import accepts
from labkit.kube import Kube, Object, dig

if TYPE_CHECKING:
    from labkit.images import Image

_BALANCER = "external-load-balancer"
_PREFIX = "labkit-reach-"
_KUBELET_PORT = 10250


@dataclass(frozen=True)
class TheirKind:
    """A kind cluster of somebody else's.

    Attributes:
        name: as `kind get clusters` gives it.
        nodes: name of a Node → its running container.
    """

    engine: Engine
    name: str
    nodes: Mapping[str, Container]

    def lacks(self, workers: Sequence[str]) -> list[str]:
        """Those of the workers that are no running container here."""
        return [name for name in workers if name not in self.nodes]

    def build_image(
        self, path: str | Path, tag: str, build_args: Mapping[str, str] | None, workers: Sequence[str]
    ) -> Image:
        """`docker build`, then the image is loaded into the workers."""
        image = build(self.engine, path, tag, build_args, wanted_images(KindOptions()), silent)
        self._load(image.tags[0], workers, Step("image", silent, ""))
        return image

    def provide_image(self, name: str, workers: Sequence[str], listener: Listener) -> None:
        """Pull or build an upstream image, and load it into the workers."""
        obtain(self.engine, name, wanted_images(KindOptions()), listener)
        with phase("image", listener, name) as step:
            self._load(name, workers, step)
            step.tell(f"{name} is on {len(workers)} nodes")

    def reach(self, kube: Kube, service: Object, port: int) -> tuple[str, int] | None:
        """Host and port that lead to a Service's port; None where this machine has no route to the nodes."""
        address = next(iter(self.nodes.values())).address
        if not dig(service, "spec.selector") or not address or not accepts(address, _KUBELET_PORT):
            return None
        return address, node_port(kube, service, port)

    def _load(self, image: str, workers: Sequence[str], step: Step) -> None:
        boxes = [self.nodes[name].name for name in workers if name in self.nodes]
        load(self.engine, [image], boxes, step)


def find(engine: Engine, nodes: Sequence[Object]) -> TheirKind | None:
    """The kind cluster whose containers are these Nodes of an API; None where there is none.

    Names and addresses repeat from one machine to the next. Each of kind's containers has a machine-id of
    its own, which its kubelet tells the API.

    Raises:
        MachineError: there is no engine, or this user may not use it.
    """
    for name in engine.kind_clusters():
        boxes = [box for box in engine.containers(name) if box.state == "running" and box.role != _BALANCER]
        found = {node["metadata"]["name"]: box for node in nodes for box in boxes if _same(engine, node, box)}
        if found:
            return TheirKind(engine, name, found)
    return None


def _same(engine: Engine, node: Object, box: Container) -> bool:
    addresses = [entry["address"] for entry in dig(node, "status.addresses", [])]
    if box.name not in addresses and box.name != node["metadata"]["name"] and box.address not in addresses:
        return False
    told = engine.attempt("exec", box.name, "cat", "/etc/machine-id").stdout.strip()
    return bool(told) and told == dig(node, "status.nodeInfo.machineID", "")


def node_port(kube: Kube, service: Object, port: int) -> int:
    """A NodePort that leads where a Service's port leads.

    It is that of a Service beside it, which goes when the Service goes.
    """
    meta = service["metadata"]
    owner = {"apiVersion": "v1", "kind": "Service", "name": meta["name"], "uid": meta["uid"]}
    kept = ("name", "port", "targetPort", "protocol")
    ports = [{key: each[key] for key in kept if key in each} for each in dig(service, "spec.ports", [])]
    beside: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": f"{_PREFIX}{meta['name']}"[:63].rstrip("-"),
            "namespace": meta["namespace"],
            "labels": {"app.kubernetes.io/managed-by": "labkit"},
            "ownerReferences": [owner],
        },
        "spec": {"type": "NodePort", "selector": dig(service, "spec.selector"), "ports": ports},
    }
    [made] = kube.apply(beside)
    return next(int(each["nodePort"]) for each in dig(made, "spec.ports", []) if each["port"] == port)
