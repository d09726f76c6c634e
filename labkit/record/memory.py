"""A node's memory, as the scheduler counts it and as it is used."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from labkit.cluster import Cluster
from labkit.errors import KubeError
from labkit.kube import Kube, Object, dig, quantity

_MIB = 1 << 20


@dataclass(frozen=True)
class NodeMemory:
    """All in MiB.

    Attributes:
        capacity_mib, allocatable_mib: as the Node's status says.
        threshold_mib: the kubelet evicts when less than that is available.
        reserved_mib: kubeReserved and systemReserved.
        requested_mib: sum of the requests of the pods on the node.
        used_mib: by everything on the machine, as the kubelet measures it (working set).
        system_mib: of that, by what requests nothing.
    """

    node: str
    capacity_mib: float
    allocatable_mib: float
    threshold_mib: float
    reserved_mib: float
    requested_mib: float
    used_mib: float
    system_mib: float

    @property
    def available_mib(self) -> float:
        """What the eviction manager looks at: capacity less what is used."""
        return self.capacity_mib - self.used_mib

    @property
    def promised_mib(self) -> float:
        """What pods may still request."""
        return self.allocatable_mib - self.requested_mib

    @property
    def free_mib(self) -> float:
        """What may still be used before the kubelet evicts."""
        return self.available_mib - self.threshold_mib


def node_memory(cluster: Cluster, name: str, limit_s: float = 30.0) -> NodeMemory:
    """Read a node's memory from its status, its pods, its configuration and its kubelet's /stats/summary.

    Args:
        limit_s: a kubelet that has just been started needs some seconds until it has measured.

    Raises:
        KubeError: the kubelet does not answer.
        ClusterError: there is no such node.
    """
    kube, config = cluster.kube, cluster.kubelet_config(name)
    summary = _summary(kube, name, limit_s)
    used = dig(summary, "node.memory.workingSetBytes")
    measured = {
        (dig(pod, "podRef.namespace"), dig(pod, "podRef.name")): dig(pod, "memory.workingSetBytes", 0)
        for pod in summary.get("pods") or []
    }
    requested = accounted = 0.0
    for pod in kube.list("Pod", everywhere=True, fields=f"spec.nodeName={name}"):
        if dig(pod, "status.phase") in ("Failed", "Succeeded"):
            continue
        own = pod_request(pod, "memory")
        requested += own
        if own:
            accounted += measured.get((pod["metadata"]["namespace"], pod["metadata"]["name"]), 0)
    node = kube.get("Node", name)
    capacity = quantity(dig(node, "status.capacity.memory"))
    reserved = sum(quantity(dig(config, f"{kind}.memory", 0)) for kind in ("kubeReserved", "systemReserved"))
    return NodeMemory(
        node=name,
        capacity_mib=capacity / _MIB,
        allocatable_mib=quantity(dig(node, "status.allocatable.memory")) / _MIB,
        threshold_mib=_threshold(config, capacity) / _MIB,
        reserved_mib=reserved / _MIB,
        requested_mib=requested / _MIB,
        used_mib=used / _MIB,
        system_mib=(used - accounted) / _MIB,
    )


def pod_request(pod: Object, resource: str) -> float:
    """What a pod requests of "cpu" or "memory", as the scheduler counts it: component-helpers' `PodRequests`.

    Containers and sidecars count together; an init container counts with the sidecars before it, where that
    is more. What is requested for the pod as a whole replaces all of that. A resize under way counts with the
    larger value.
    """
    status = dig(pod, "status", {})
    infeasible = any(
        (each.get("type"), each.get("status"), each.get("reason"))
        == ("PodResizePending", "True", "Infeasible")
        for each in status.get("conditions") or []
    )
    states = [*(status.get("containerStatuses") or []), *(status.get("initContainerStatuses") or [])]
    by_name = {each.get("name"): each for each in states}
    spec = pod["spec"]

    def total(of: Callable[[Object, Object], Any]) -> float:
        def each(container: Object) -> float:
            return quantity(of(container, by_name.get(container["name"], {})) or 0)

        running = sum(each(container) for container in spec["containers"])
        sidecars = most = 0.0
        for container in spec.get("initContainers") or []:
            if container.get("restartPolicy") == "Always":
                sidecars += each(container)
                most = max(most, sidecars)
            else:
                most = max(most, each(container) + sidecars)
        return max(running + sidecars, most)

    def asked(container: Object, _: Object) -> Any:
        return dig(container, f"resources.requests.{resource}")

    def allocated(container: Object, state: Object) -> Any:
        if state.get("allocatedResources") is not None:
            return state["allocatedResources"].get(resource)
        return None if infeasible else asked(container, state)

    def actuated(container: Object, state: Object) -> Any:
        given = dig(state, "resources.requests")
        return given.get(resource) if given is not None else allocated(container, state)

    whole = dig(spec, f"resources.requests.{resource}")
    if whole is not None:
        own = quantity(whole)
    else:
        own = max(total(of) for of in ((allocated, actuated) if infeasible else (asked, allocated, actuated)))
    return own + quantity(dig(spec, f"overhead.{resource}", 0))


def _summary(kube: Kube, name: str, limit_s: float) -> Object:
    deadline = time.monotonic() + limit_s
    while True:
        found: Object = kube.request("GET", f"/api/v1/nodes/{name}/proxy/stats/summary")
        if dig(found, "node.memory.workingSetBytes") is not None:
            return found
        if time.monotonic() > deadline:
            raise KubeError(f"The kubelet of {name} has measured no memory for {limit_s:.0f} s.")
        time.sleep(0.5)


def _threshold(config: Object, capacity: float) -> float:
    """The hard eviction threshold of memory.available in bytes, by default upstream's."""
    text = str(dig(config, "evictionHard", {}).get("memory.available", "100Mi"))
    return capacity * float(text[:-1]) / 100 if text.endswith("%") else quantity(text)
