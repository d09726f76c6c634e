"""A node's memory: what is promised and what there is, from a Node, its pods, its configuration and its measurements."""

from __future__ import annotations

from typing import Any

import pytest

from labkit.errors import KubeError
from labkit.record.memory import node_memory, pod_request

MIB = 1 << 20


class Made:
    """A cluster with one node of 1 GiB: an agent without requests, a pod that requests 200Mi, one that has failed."""

    def __init__(self, config: dict[str, Any], used_mib: int | None = 260) -> None:
        self.kube, self.config, self.used_mib = self, config, used_mib

    def kubelet_config(self, _: str) -> dict[str, Any]:
        return self.config

    def request(self, method: str, path: str) -> dict[str, Any]:
        assert (method, path) == ("GET", "/api/v1/nodes/worker-1/proxy/stats/summary")
        memory = {} if self.used_mib is None else {"workingSetBytes": self.used_mib * MIB}
        pods = [("agent", 80), ("web", 150)]
        measured = [
            {"podRef": {"namespace": "default", "name": name}, "memory": {"workingSetBytes": used * MIB}}
            for name, used in pods
        ]
        return {"node": {"memory": memory}, "pods": measured}

    def get(self, kind: str, name: str) -> dict[str, Any]:
        assert (kind, name) == ("Node", "worker-1")
        return {"status": {"capacity": {"memory": "1Gi"}, "allocatable": {"memory": "824Mi"}}}

    def list(self, kind: str, *, everywhere: bool, fields: str) -> list[dict[str, Any]]:
        assert kind == "Pod" and everywhere and fields == "spec.nodeName=worker-1"
        return [
            self.pod("agent", {}),
            self.pod("web", {"memory": "200Mi"}),
            self.pod("old", {"memory": "1Gi"}, "Failed"),
        ]

    def pod(self, name: str, requests: dict[str, str], phase: str = "Running") -> dict[str, Any]:
        containers = [{"name": "c", "resources": {"requests": requests}}]
        meta = {"namespace": "default", "name": name}
        return {"metadata": meta, "spec": {"containers": containers}, "status": {"phase": phase}}


def test_books_and_machine() -> None:
    config = {"systemReserved": {"memory": "60Mi"}, "kubeReserved": {"memory": "40Mi"}}
    found = node_memory(Made(config), "worker-1")  # type: ignore[arg-type]
    assert (found.capacity_mib, found.allocatable_mib, found.threshold_mib) == (1024, 824, 100)
    assert (found.reserved_mib, found.requested_mib) == (100, 200), "a failed pod counts no more"
    assert (found.used_mib, found.system_mib) == (260, 110), "who requests nothing is the system"
    assert (found.promised_mib, found.free_mib) == (624, 664)


def one(name: str, memory: str = "", **more: Any) -> dict[str, Any]:
    requests = {"requests": {"memory": memory}} if memory else {}
    return {"name": name, "resources": requests, **more}


SIDECAR = {"restartPolicy": "Always"}
RESIZE = [{"type": "PodResizePending", "status": "True", "reason": "Infeasible"}]


@pytest.mark.parametrize(
    ("spec", "status", "mib"),
    [
        ({"containers": [one("a", "100Mi"), one("b", "50Mi"), one("c")]}, {}, 150),
        ({"containers": [one("a", "100Mi")], "initContainers": [one("i", "300Mi"), one("j", "200Mi")]}, {}, 300),
        ({"containers": [one("a", "100Mi")], "initContainers": [one("i", "60Mi")]}, {}, 100),
        ({"containers": [one("a", "100Mi")], "initContainers": [one("s", "60Mi", **SIDECAR)]}, {}, 160),
        ({"containers": [one("a", "10Mi")],
          "initContainers": [one("s", "60Mi", **SIDECAR), one("i", "80Mi"), one("t", "5Mi", **SIDECAR)]}, {}, 140),
        ({"containers": [one("a", "10Mi")],
          "initContainers": [one("i", "80Mi"), one("s", "60Mi", **SIDECAR)]}, {}, 80),
        ({"containers": [one("a", "100Mi")], "overhead": {"memory": "20Mi"}}, {}, 120),
        ({"containers": [one("a", "100Mi")], "resources": {"requests": {"memory": "256Mi"}}}, {}, 256),
        ({"containers": [one("a", "100Mi")], "resources": {"requests": {"cpu": "1"}}}, {}, 100),
        ({"containers": [one("a", "100Mi")], "overhead": {"memory": "20Mi"},
          "initContainers": [one("i", "900Mi")], "resources": {"requests": {"memory": "256Mi"}}}, {}, 276),
        ({"containers": [one("a", "100Mi")]},
         {"containerStatuses": [{"name": "a", "resources": {"requests": {"memory": "150Mi"}}}]}, 150),
        ({"containers": [one("a", "500Mi")]},
         {"containerStatuses": [{"name": "a", "allocatedResources": {"memory": "100Mi"}}], "conditions": RESIZE}, 100),
    ],
)  # fmt: skip
def test_requests_are_counted_as_the_scheduler_does(
    spec: dict[str, Any], status: dict[str, Any], mib: float
) -> None:
    """Values as component-helpers' PodRequests gives them."""
    assert pod_request({"spec": spec, "status": status}, "memory") == mib * MIB


@pytest.mark.parametrize(("text", "mib"), [("300Mi", 300), ("25%", 256)])
def test_thresholds_are_amounts_or_shares(text: str, mib: float) -> None:
    config = {"evictionHard": {"memory.available": text}}
    assert node_memory(Made(config), "worker-1").threshold_mib == mib  # type: ignore[arg-type]


def test_a_kubelet_that_has_not_measured_is_told() -> None:
    with pytest.raises(KubeError, match="measured no memory"):
        node_memory(Made({}, used_mib=None), "worker-1", 0)  # type: ignore[arg-type]
