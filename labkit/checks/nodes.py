"""What the checks of labs 02 and 02b ask about nodes."""

from __future__ import annotations

from collections.abc import Iterator

from labkit.checks.core import Finding, expect
from labkit.checks.objects import container_state
from labkit.cluster import Cluster
from labkit.errors import KubeError
from labkit.kube import Kube, Object, dig

ILL = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
PRESSURE = "node.kubernetes.io/memory-pressure"


def well(cluster: Cluster, name: str) -> Finding:
    node = cluster.kube.find("Node", name)
    if node is None:
        return expect(False, f"{name} is Ready", f"there is no Node {name}")
    wrong = [taint for taint in taints_of(node) if taint.split(":")[0] in (*ILL, PRESSURE)]
    closed = ["it is cordoned"] if dig(node, "spec.unschedulable", False) else []
    state = ready_state(node)
    said = "; ".join([f"Ready is {state}", *(f"taint {taint}" for taint in wrong), *closed])
    return expect(state == "True" and not wrong and not closed, f"{name} is Ready and takes pods", said)


def two_well_workers(cluster: Cluster) -> Iterator[Finding]:
    """worker-1 and worker-2 are the only workers, Ready, and take pods."""
    names = workers(cluster)
    yield expect(names == ["worker-1", "worker-2"], "there are worker-1 and worker-2", f"there are: {names}")
    for name in ("worker-1", "worker-2"):
        yield well(cluster, name)


def answers(cluster: Cluster, node: str) -> Iterator[Finding]:
    said = kubelet_says(cluster, node)
    yield expect(said == "ok", "its kubelet answers the API server", f"asked, it says: {said}")
    yield well(cluster, node)


def kubelet_says(cluster: Cluster, node: str) -> str:
    """What a kubelet answers to the API server: "ok", or why not."""
    impatient = Kube(cluster.kubeconfig, patience_s=0)
    try:
        answer = impatient.request("GET", f"/api/v1/nodes/{node}/proxy/healthz", timeout_s=5)
    except KubeError as error:
        return error.message
    return str(answer).strip()


def workers(cluster: Cluster) -> list[str]:
    """Names of the nodes on which no control plane runs."""
    return [
        node.name for node in cluster.nodes() if "node-role.kubernetes.io/control-plane" not in node.labels
    ]


def ready_state(node: Object | None) -> str:
    states = (c["status"] for c in dig(node, "status.conditions", []) if c["type"] == "Ready")
    return next(states, "unknown to the API")


def taints_of(node: Object | None) -> list[str]:
    return [f"{taint['key']}:{taint['effect']}" for taint in dig(node, "spec.taints", [])]


def about(pod: Object | None) -> str:
    if pod is None:
        return "there is no such pod"
    why = next((c["message"] for c in dig(pod, "status.conditions", []) if c.get("message")), "")
    return f"it is in {container_state(pod)}{': ' if why else ''}{why}"
